//! `sallyport ca root`: the root's private key out of the cluster and back, and a company's root above ours.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{BufRead, IsTerminal, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};
use sallyport_ca::shares::Share;
use sallyport_ca::{Certificate, SystemRandom, pem};
use sallyport_controller::root_key::{Exported, Holder, MAX_FILE, RootKey};
use sallyport_proto::v1;
use sallyport_proto::v1::manage_root_request::Step;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{Context, refused, unix};
use crate::duration::parse_duration;
use crate::error::{Error, Result};
use crate::output::{print, rfc3339};
use crate::secret;

/// The file beside the shares.
const KEY_FILE: &str = "root.key.enc";
/// Shortest passphrase, bytes; the controller's library insists on it, too.
const SHORTEST: usize = 12;
/// Files of shares in a folder.
const MAX_SHARES: usize = 255;

/// What to do with the root.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the root: its key, its lists, what stands above it.
    Show,
    /// Write the root's private key to files: shares of which any K open it, or one file that a passphrase opens.
    #[command(after_help = "\
The key stays in the cluster until `ca root erase`. Give each share to another person or place; keep root.key.enc with each of
them, it is of no use without K shares. The files are written with mode 0600 and only where nothing is.

Examples:
  sallyport ca root export --shares 2/3 --out root-shares
  sallyport ca root export --encrypt root.key.enc")]
    Export(Export),
    /// Try an export against the cluster's root; nothing is changed.
    #[command(after_help = "\
Examples:
  sallyport ca root verify-export root-shares
  sallyport ca root verify-export root.key.enc --share alice.txt --share -     (- reads shares line by line)")]
    VerifyExport(Opening),
    /// Erase the root's private key from the cluster, once an export of it was opened here.
    #[command(after_help = "\
What goes: the key in the state, and the file ca/root.key.sealed of every controller within seconds. What does not go by this:
logs and snapshots of before hold the key, sealed under the cluster's seal key, until they are replaced (a controller keeps few),
and backups of before hold it for as long as you keep them. So does whoever has read the key meanwhile: a root that was in a
cluster which may have been broken into is replaced (sallyport ca rollover), not hidden.

Before it goes the root signs its lists once more. Its own list is good for 400 days: hold a ceremony before that ends
(ca root import, ca root erase). Certificates, renewals and revocation go on without the key; for another issuing authority, a
request to a company's root or another root (ca rollover begin) it is brought back.

Examples:
  sallyport ca root erase root-shares
  sallyport ca root erase root.key.enc --passphrase-file p --yes")]
    Erase(Erase),
    /// Give the root's private key back to the cluster for a while: an hour, unless another time is said.
    #[command(after_help = "\
Examples:
  sallyport ca root import root-shares
  sallyport ca root import root.key.enc --share alice.txt --share bob.txt --for 15m")]
    Import(Import),
    /// Make a request for a certificate of the root by a company's authority: the cluster becomes its subordinate.
    #[command(after_help = "\
The company signs a subordinate CA for exactly the name and key in the request, with a path length of 1 or none; its own root
must allow 2 or have none. What it gives back is installed with `ca root install`.

Examples:
  sallyport ca root csr > sallyport.csr
  openssl x509 -req -in sallyport.csr -CA company.pem -CAkey company.key -copy_extensions copyall -days 3650 -out chain.pem
  cat company.pem >> chain.pem; sallyport ca root install chain.pem")]
    Csr,
    /// Stand below a company's root: machines that trust it accept what this cluster issues.
    #[command(after_help = "\
The file holds the company's certificate for our root first, then those above it, the company's root last (PEM). Gateways and
the enrollment endpoint show it from then on: gateways with their next certificates. The cluster's own members, gateways and
operators go on trusting our root alone: a certificate of another authority of the company makes nobody a controller.

Examples:
  sallyport ca root install chain.pem
  sallyport ca root install --remove")]
    Install(Install),
}

/// K/N.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Numbers {
    needed: u8,
    all: u8,
}

impl std::str::FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || format!("{text:?} is not K/N, such as 2/3: any K of N shares open the key, 2 <= K <= N <= 255");
        let (needed, all) = text.split_once('/').ok_or_else(wrong)?;
        match (needed.parse().ok(), all.parse().ok()) {
            (Some(needed), Some(all)) if 2 <= needed && needed <= all => Ok(Self { needed, all }),
            _ => Err(wrong()),
        }
    }
}

/// Where a passphrase comes from.
#[derive(Debug, Args)]
pub(crate) struct Passphrase {
    /// Read the passphrase from the first line of this file (mode 0600) instead of asking for it; `-` is standard input.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    passphrase_file: Option<PathBuf>,
}

/// How the key leaves.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("how").required(true).args(["shares", "encrypt"])))]
pub(crate) struct Export {
    /// Make N shares, any K of which open the key.
    #[arg(long, value_name = "K/N", requires = "out")]
    shares: Option<Numbers>,
    /// New folder for the shares.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::AnyPath, conflicts_with = "encrypt")]
    out: Option<PathBuf>,
    /// Write one file that a passphrase opens.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::AnyPath)]
    encrypt: Option<PathBuf>,
    #[command(flatten)]
    passphrase: Passphrase,
}

/// What opens an export.
#[derive(Debug, Args)]
pub(crate) struct Opening {
    /// The file or folder that `ca root export` wrote; shares that are in the folder are used.
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    path: PathBuf,
    /// File with a share that is elsewhere; `-` reads shares from standard input, one a line. Give as many as are needed.
    #[arg(long = "share", value_name = "FILE", value_hint = ValueHint::FilePath)]
    shares: Vec<PathBuf>,
    #[command(flatten)]
    passphrase: Passphrase,
}

/// How the key goes.
#[derive(Debug, Args)]
pub(crate) struct Erase {
    #[command(flatten)]
    opening: Opening,
    /// Do not ask for the root's fingerprint.
    #[arg(long)]
    yes: bool,
}

/// How it comes back.
#[derive(Debug, Args)]
pub(crate) struct Import {
    #[command(flatten)]
    opening: Opening,
    /// How long it stays.
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration, default_value = "1h")]
    stay: Duration,
    /// Keep it until it is erased by hand.
    #[arg(long, conflicts_with = "stay")]
    keep: bool,
}

/// What stands above.
#[derive(Debug, Args)]
pub(crate) struct Install {
    /// The chain, PEM.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath, required_unless_present = "remove")]
    chain: Option<PathBuf>,
    /// Stand below nobody any more.
    #[arg(long, conflicts_with = "chain")]
    remove: bool,
}

#[derive(Serialize)]
struct Shown {
    root: u64,
    subject: String,
    fingerprint: String,
    not_after: String,
    private_key: &'static str,
    private_key_until: String,
    erased: String,
    list_until: String,
    path_length: Option<u32>,
    below: Vec<String>,
}

#[derive(Serialize)]
struct Written {
    files: Vec<PathBuf>,
    fingerprint: String,
}

#[derive(Serialize)]
struct Done {
    fingerprint: String,
}

fn failed(error: sallyport_controller::Error) -> Error {
    Error::failed(error.to_string())
}

/// A step with the root in force.
pub(super) async fn manage(context: &mut Context, step: Step) -> Result<v1::ManageRootResponse> {
    let request = v1::ManageRootRequest { root: 0, step: Some(step) };
    Ok(context.connection.client.manage_root(request).await.map_err(refused)?.into_inner())
}

/// Writes a file that is not there yet, readable by its owner only.
fn write_new(path: &Path, content: &[u8]) -> Result {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(|e| Error::file("write", path, &e))
}

fn read(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>> {
    let mut content = Zeroizing::new(Vec::with_capacity(limit + 1));
    let file = std::fs::File::open(path).map_err(|e| Error::file("read", path, &e))?;
    file.take(limit as u64 + 1).read_to_end(&mut content).map_err(|e| Error::file("read", path, &e))?;
    if content.len() > limit {
        return Err(Error::failed(format!("{} is longer than any such file", path.display())));
    }
    Ok(content)
}

fn is_share(line: &str) -> bool {
    line.trim_start().get(..4).is_some_and(|start| start.eq_ignore_ascii_case("sps1"))
}

/// The share on a line of a file; other lines are for people.
fn read_share(path: &Path) -> Result<Share> {
    let content = read(path, MAX_FILE)?;
    let text = std::str::from_utf8(&content).map_err(|_| Error::failed(format!("{}: not text", path.display())))?;
    let line = text.lines().find(|line| is_share(line));
    let line = line.ok_or_else(|| Error::failed(format!("{}: no share in it", path.display())))?;
    Share::parse(line).map_err(|e| Error::failed(format!("{}: {e}", path.display())))
}

/// Shares from standard input, one a line, until an empty line.
fn read_shares_from_stdin() -> Result<Vec<Share>> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        let _ = writeln!(std::io::stderr(), "Shares, one a line; an empty line ends them:");
    }
    let (mut shares, mut input) = (Vec::new(), stdin.lock().take(4 << 20));
    while shares.len() < MAX_SHARES {
        let mut line = Zeroizing::new(String::with_capacity(MAX_FILE));
        let read = input.read_line(&mut line);
        read.map_err(|e| Error::failed(format!("cannot read a share from standard input: {e}")))?;
        if line.trim().is_empty() {
            break;
        }
        shares.push(Share::parse(line.trim()).map_err(|e| Error::failed(format!("share {}: {e}", shares.len() + 1)))?);
    }
    Ok(shares)
}

impl Opening {
    /// Opens the export.
    fn open(&self) -> Result<RootKey> {
        let folder = self.path.is_dir();
        let file = if folder { self.path.join(KEY_FILE) } else { self.path.clone() };
        let exported = Exported::parse(&read(&file, MAX_FILE)?).map_err(failed)?;
        let opened = match exported.holder() {
            Holder::Shares => {
                let mut shares = Vec::new();
                if folder {
                    for index in 1..=MAX_SHARES {
                        let path = self.path.join(format!("share-{index}.txt"));
                        if path.exists() {
                            shares.push(read_share(&path)?);
                        }
                    }
                }
                for path in &self.shares {
                    match path == Path::new("-") {
                        true => shares.extend(read_shares_from_stdin()?),
                        false => shares.push(read_share(path)?),
                    }
                }
                if shares.is_empty() {
                    return Err(Error::usage("shares open this file").remedy("name them: --share FILE --share FILE"));
                }
                exported.open_with_shares(&shares)
            }
            Holder::Passphrase => {
                let prompt = "Passphrase of the root's key";
                let passphrase = match &self.passphrase.passphrase_file {
                    Some(file) => secret::from_file_or_stdin(file, prompt)?,
                    None => secret::known(false, prompt, "--passphrase-file FILE")?.into_inner(),
                };
                exported.open_with_passphrase(&passphrase)
            }
        };
        opened.map_err(failed)
    }

    /// Opens it and compares it with the root in force.
    async fn open_for(&self, context: &mut Context) -> Result<(RootKey, v1::ManageRootResponse)> {
        let root = self.open()?;
        let now = manage(context, Step::Look(v1::LookAtRoot {})).await?;
        let info = now.info.clone().unwrap_or_default();
        if info.certificate != root.certificate().der() {
            let is = Certificate::from_der(&info.certificate).map(|c| c.fingerprint.to_string()).unwrap_or_default();
            return Err(Error::failed(format!(
                "this opens, but it is the key of another root: {}, and the cluster's is {is}",
                root.certificate().fingerprint
            ))
            .remedy("take the export of this cluster's root, or make one: sallyport ca root export"));
        }
        Ok((root, now))
    }
}

impl Export {
    async fn run(self, context: &mut Context) -> Result {
        let passphrase = match (&self.encrypt, &self.passphrase.passphrase_file) {
            (None, None) => None,
            (None, Some(_)) => return Err(Error::usage("shares need no passphrase: leave --passphrase-file out")),
            (Some(_), Some(file)) => Some(secret::from_file_or_stdin(file, "Passphrase of the root's key")?),
            (Some(_), None) => {
                let prompt = "New passphrase of the root's key";
                Some(secret::read(false, prompt, "--passphrase-file FILE", SHORTEST)?.into_inner())
            }
        };
        let target = self.encrypt.as_ref().or(self.out.as_ref());
        let target = target.ok_or_else(|| Error::usage("say where: --out DIR or --encrypt FILE"))?;
        if target.exists() {
            return Err(Error::failed(format!("{} is there already", target.display())).remedy("choose another name"));
        }
        let answer = manage(context, Step::Export(v1::ExportRootKey {})).await?;
        let pkcs8 = answer.private_key.map(v1::Secret::into_inner).unwrap_or_default();
        let root = RootKey::new(&answer.info.unwrap_or_default().certificate, pkcs8).map_err(failed)?;
        let fingerprint = root.certificate().fingerprint;
        let rng = SystemRandom::new();
        let mut files = Vec::new();
        let verify = match (self.shares, passphrase) {
            (Some(numbers), _) => {
                files = write_shares(&root, numbers, target, &rng)?;
                // As they will be read one day: from the files.
                Opening { path: target.clone(), shares: Vec::new(), passphrase: Passphrase { passphrase_file: None } }
                    .open()
            }
            (None, Some(passphrase)) => {
                write_new(target, &root.to_passphrase(&passphrase, &rng).map_err(failed)?)?;
                files.push(target.clone());
                let exported = Exported::parse(&read(target, MAX_FILE)?).map_err(failed)?;
                exported.open_with_passphrase(&passphrase).map_err(failed)
            }
            (None, None) => return Err(Error::usage("say how: --shares K/N or --encrypt FILE")),
        };
        verify.map_err(|e| e.context("what was written cannot be read back; do not use it"))?;
        let mut text: String = files.iter().map(|file| format!("wrote {}\n", file.display())).collect();
        text += &format!(
            "the root {fingerprint} is in them, and in the cluster still; when somebody else could open them \
             (sallyport ca root verify-export), erase it there: sallyport ca root erase {}",
            target.display()
        );
        context.printer.one(&Written { files, fingerprint: fingerprint.to_string() }, &text)
    }
}

fn write_shares(root: &RootKey, numbers: Numbers, dir: &Path, rng: &SystemRandom) -> Result<Vec<PathBuf>> {
    let Numbers { needed, all } = numbers;
    let (file, shares) = root.to_shares(needed, all, rng).map_err(failed)?;
    DirBuilder::new().mode(0o700).create(dir).map_err(|e| Error::file("make the folder", dir, &e))?;
    let mut files = vec![dir.join(KEY_FILE)];
    write_new(&dir.join(KEY_FILE), &file)?;
    for share in &shares {
        let path = dir.join(format!("share-{}.txt", share.index()));
        // Room for all of it at once: a reallocation would leave a copy behind.
        let mut text = Zeroizing::new(String::with_capacity(2_048));
        text.push_str(&format!(
            "Share {} of {all} of the private key of {}\nfingerprint {}\nAny {needed} shares and {KEY_FILE} give it back: \
             sallyport ca root import\n\n",
            share.index(),
            root.certificate().subject,
            root.certificate().fingerprint,
        ));
        text.push_str(&share.to_text());
        text.push('\n');
        write_new(&path, text.as_bytes())?;
        files.push(path);
    }
    Ok(files)
}

impl Erase {
    async fn run(self, context: &mut Context) -> Result {
        let (root, now) = self.opening.open_for(context).await?;
        let fingerprint = root.certificate().fingerprint;
        if now.info.as_ref().is_some_and(|info| !info.has_key) {
            let text = "the cluster has no private key of this root; nothing was changed";
            return context.printer.one(&Done { fingerprint: fingerprint.to_string() }, text);
        }
        if !self.yes {
            confirm(&fingerprint.to_string())?;
        }
        let proof = root.prove_kept(&now.cluster_id, &SystemRandom::new()).map_err(failed)?;
        let erase = v1::EraseRootKey { fingerprint: fingerprint.0.to_vec(), proof };
        let after = manage(context, Step::Erase(erase)).await?.info.unwrap_or_default();
        let text = format!(
            "erased the private key of the root {fingerprint} from the cluster's state. Logs and snapshots of before hold it, \
             sealed, until they are replaced; backups of before for as long as you keep them. The root's list is good until {}: \
             bring the key back for a moment before that (sallyport ca root import)",
            rfc3339(unix(after.list_until_unix_ms))
        );
        context.printer.one(&Done { fingerprint: fingerprint.to_string() }, &text)
    }
}

/// Asks for the first eight characters of a fingerprint.
fn confirm(fingerprint: &str) -> Result {
    if !std::io::stdin().is_terminal() {
        return Err(Error::usage("standard input is no terminal, so nobody can be asked").remedy("pass --yes"));
    }
    let start = fingerprint.get(..8).unwrap_or(fingerprint);
    let _ = write!(
        std::io::stderr(),
        "This erases the private key of the root {fingerprint}.\nType the first 8 characters of the fingerprint to go on: "
    );
    let mut line = String::new();
    let read = std::io::stdin().lock().take(256).read_line(&mut line);
    read.map_err(|e| Error::failed(format!("cannot read from the terminal: {e}")))?;
    match line.trim().eq_ignore_ascii_case(start) {
        true => Ok(()),
        false => Err(Error::failed("that is not how the fingerprint begins; nothing was changed")),
    }
}

impl Import {
    async fn run(self, context: &mut Context) -> Result {
        let (root, _) = self.opening.open_for(context).await?;
        let for_s = match self.keep {
            true => 0,
            false => u32::try_from(self.stay.as_secs()).unwrap_or(u32::MAX).max(1),
        };
        let private_key = Some(v1::Secret::new(root.pkcs8().to_vec()));
        let info =
            manage(context, Step::Import(v1::ImportRootKey { private_key, for_s })).await?.info.unwrap_or_default();
        let until = match info.key_until_unix_ms {
            0 => "until you erase it (sallyport ca root erase)".to_owned(),
            ms => format!("until {}, or until you erase it (sallyport ca root erase)", rfc3339(unix(ms))),
        };
        let fingerprint = root.certificate().fingerprint.to_string();
        let text = format!("the cluster has the private key of the root {fingerprint} {until}");
        context.printer.one(&Done { fingerprint }, &text)
    }
}

impl Install {
    async fn run(self, context: &mut Context) -> Result {
        let above = match &self.chain {
            None => Vec::new(),
            Some(path) => {
                let text = read(path, MAX_FILE)?;
                pem::certificates(&text).map_err(|e| Error::failed(format!("{}: {e}", path.display())))?
            }
        };
        let done = manage(context, Step::Install(v1::InstallChain { above })).await?;
        let shown = Shown::new(done.info.unwrap_or_default());
        let text = match shown.below.last() {
            Some(top) => format!(
                "the root stands below {top}: the endpoint gives that out now, gateways show it with their next certificates"
            ),
            None => "the root stands below nobody any more".to_owned(),
        };
        context.printer.one(&shown, &text)
    }
}

impl Shown {
    fn new(info: v1::RootInfo) -> Self {
        let parsed = Certificate::from_der(&info.certificate).ok();
        let text = |of: fn(&Certificate) -> String| parsed.as_ref().map(of).unwrap_or_default();
        let subject = |der: &Vec<u8>| Certificate::from_der(der).map(|c| c.subject).unwrap_or_default();
        Self {
            root: info.number,
            subject: text(|c| c.subject.clone()),
            fingerprint: text(|c| c.fingerprint.to_string()),
            not_after: text(|c| rfc3339(c.not_after)),
            private_key: if info.has_key { "sealed" } else { "kept elsewhere" },
            private_key_until: rfc3339(unix(info.key_until_unix_ms)),
            erased: rfc3339(unix(info.erased_unix_ms)),
            list_until: rfc3339(unix(info.list_until_unix_ms)),
            path_length: parsed.as_ref().and_then(Certificate::path_length),
            below: info.above.iter().skip(1).map(subject).collect(),
        }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{}\nfingerprint   {}\nnot after     {}\nprivate key   {}",
            self.subject, self.fingerprint, self.not_after, self.private_key
        );
        for (name, value) in
            [("key until", &self.private_key_until), ("key erased", &self.erased), ("list until", &self.list_until)]
        {
            if !value.is_empty() {
                text += &format!("\n{name:<13} {value}");
            }
        }
        text += &format!(
            "\npath length   {}",
            self.path_length.map_or_else(|| "not limited".to_owned(), |n| n.to_string())
        );
        if !self.below.is_empty() {
            text += &format!("\nbelow         {}", self.below.join(", below "));
        }
        text
    }
}

/// Runs the command.
pub(super) async fn run(command: Command, context: &mut Context) -> Result {
    match command {
        Command::Show => {
            let shown = Shown::new(manage(context, Step::Look(v1::LookAtRoot {})).await?.info.unwrap_or_default());
            let text = shown.text();
            context.printer.one(&shown, &text)
        }
        Command::Export(export) => export.run(context).await,
        Command::VerifyExport(opening) => {
            let (root, _) = opening.open_for(context).await?;
            let fingerprint = root.certificate().fingerprint.to_string();
            let text = format!("this opens the private key of the cluster's root {fingerprint}; nothing was changed");
            context.printer.one(&Done { fingerprint }, &text)
        }
        Command::Erase(erase) => erase.run(context).await,
        Command::Import(import) => import.run(context).await,
        Command::Csr => {
            let made = manage(context, Step::Request(v1::RequestChain {})).await?.request;
            print(&pem::encode("CERTIFICATE REQUEST", &made))
        }
        Command::Install(install) => install.run(context).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn numbers_of_shares_are_two_of_which_the_first_is_not_larger() {
        assert_eq!("2/3".parse::<Numbers>(), Ok(Numbers { needed: 2, all: 3 }));
        for wrong in ["", "2", "1/3", "4/3", "2/256", "2/3/4", "-2/3"] {
            assert!(wrong.parse::<Numbers>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_share_is_found_among_what_people_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let share = sallyport_ca::shares::split(b"a secret", 2, 3, &SystemRandom::new()).unwrap().remove(1);
        let path = dir.path().join("share-2.txt");
        std::fs::write(&path, format!("Share 2 of 3\n\n  {}\n", share.to_text().as_str())).unwrap();
        assert_eq!(read_share(&path).unwrap().index(), 2);
        std::fs::write(&path, "nothing").unwrap();
        assert!(read_share(&path).is_err());
    }

    #[test]
    fn a_key_leaves_in_one_of_two_ways_and_what_is_named_as_remedy_exists() {
        for line in [
            "export --shares 2/3 --out d",
            "export --encrypt f",
            "export --encrypt f --passphrase-file p",
            "verify-export d",
            "erase d --yes",
            "import f --share a --share -",
            "import f --for 15m",
            "import f --keep",
            "csr",
            "install chain.pem",
            "install --remove",
            "show",
        ] {
            let words = ["sallyport", "ca", "root"].into_iter().chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
        for line in ["export", "export --shares 2/3", "export --shares 2/3 --out d --encrypt f", "erase", "install"] {
            let words = ["sallyport", "ca", "root"].into_iter().chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
