//! `sallyport enroll`: what a machine runs that wants a certificate and to be connected with it.

mod here;
mod shown;

use std::env;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};
use sallyport_ca::{EnrollToken, KeyAlgorithm, SystemRandom};
use sallyport_enroll::install::{self, Connection, Host, Software};
use sallyport_enroll::{Folder, Identity, Outcome, Request, Server, Settings, due, enroll, renew};
use zeroize::Zeroizing;

use self::here::{Here, Programs};
use self::shown::{Done, Row};
use crate::cli::Global;
use crate::duration::parse_duration;
use crate::error::{Error, Result};
use crate::operator::cert::Key;
use crate::output::{Format, Printer, rfc3339};
use crate::secret;

/// Environment variable with a token, for services: command lines are seen by every user of a machine.
const TOKEN: &str = "SALLYPORT_TOKEN";

/// Get this machine's certificate by a token, install it for its VPN software, and have it renewed.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
`sallyport token create` on a controller makes the token. It names the root of the VPN's authority: whoever else answers is told
nothing. The key is made here and never leaves; key and certificate are in DIR, and where the software that is installed looks for them:

  strongswan       /etc/swanctl, with the connection `sallyport`, and xl2tpd's part if --user is given
  libreswan        its NSS database and /etc/ipsec.d/sallyport.conf, and xl2tpd's part (needs --key rsa-2048, its default here)
  networkmanager   a connection for its plugin network-manager-l2tp

A timer of systemd renews the certificate from two thirds of its life on. Files that are not from sallyport are not touched: what would
have to stand in them is printed. If this is interrupted, or has to wait for an approval, run the same command again.

Examples:
  sudo sallyport enroll --token-file - --user ada           asks for the token and for ada's password
  sudo sallyport enroll --token-file t --for strongswan     only for strongSwan
  sudo sallyport enroll status
  sudo sallyport enroll renew --force                       now, not when it is due
  sudo sallyport enroll install --user ada                  once more, for software that came later
  sudo sallyport enroll remove"
)]
pub(crate) struct EnrollOrNoun {
    #[command(flatten)]
    enroll: Enroll,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What to do with the certificate that is there.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Renew the certificate if it is due, and put right what is installed.
    Renew {
        /// Now, even if it is not due.
        #[arg(long)]
        force: bool,
        /// How long to wait where an operator has to approve.
        #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_duration)]
        wait: Duration,
        #[command(flatten)]
        place: Place,
    },
    /// Show the certificate: whose it is, until when, when it will be renewed.
    Status {
        #[command(flatten)]
        place: Place,
    },
    /// Install the certificate for software that came later, or with another user.
    Install {
        #[command(flatten)]
        connection: ConnectionOptions,
        #[command(flatten)]
        place: Place,
    },
    /// Take certificate, key, connections and timer off this machine. The certificate stays good until it is revoked or lapses.
    #[command(alias = "rm")]
    Remove {
        #[command(flatten)]
        place: Place,
    },
}

/// Where the files are.
#[derive(Clone, Debug, Args)]
pub(crate) struct Place {
    /// Folder of key and certificate.
    #[arg(long, value_name = "DIR", default_value = "/etc/sallyport/enroll", value_hint = ValueHint::DirPath)]
    dir: PathBuf,
    /// Folder that stands for `/`, to prepare an image: nothing is started or reloaded.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    root: Option<PathBuf>,
}

impl Place {
    fn folder(&self) -> PathBuf {
        match &self.root {
            Some(root) => root.join(self.dir.strip_prefix("/").unwrap_or(&self.dir)),
            None => std::path::absolute(&self.dir).unwrap_or_else(|_| self.dir.clone()),
        }
    }

    /// The folder as the machine names it.
    fn named(&self) -> String {
        let dir = if self.root.is_some() { self.dir.clone() } else { self.folder() };
        dir.to_string_lossy().into_owned()
    }
}

/// What a connection needs.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConnectionOptions {
    /// Software to install for [default: what is on this machine]
    #[arg(long = "for", value_name = "SOFTWARE", value_delimiter = ',', value_parser = ["strongswan", "libreswan", "networkmanager"])]
    software: Vec<String>,
    /// User who connects; the password is asked for unless --password-file is given.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// File with the user's password on its first line, which nobody else may read.
    #[arg(long, value_name = "FILE", requires = "user", value_hint = ValueHint::FilePath)]
    password_file: Option<PathBuf>,
    /// The VPN's name or address, as clients dial it [default: the server's]
    #[arg(long, value_name = "HOST")]
    gateway: Option<String>,
}

/// A first certificate.
#[derive(Debug, Args)]
pub(crate) struct Enroll {
    /// File with the token on its first line; - is standard input, at a terminal it is asked for.
    #[arg(long, value_name = "FILE", conflicts_with = "token", value_hint = ValueHint::FilePath)]
    token_file: Option<PathBuf>,
    /// The token itself. Every user of this machine sees it here (ps): better is --token-file, or SALLYPORT_TOKEN.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// Enrollment endpoint, HOST or HOST:PORT [default: what the token says]
    #[arg(long, value_name = "HOST")]
    server: Option<String>,
    /// Name that the certificate must have; the token says which it has.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Kind of key [default: ecdsa-p256, with libreswan rsa-2048]
    #[arg(long, value_enum)]
    key: Option<Key>,
    /// How long to wait where an operator has to approve.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_duration)]
    wait: Duration,
    #[command(flatten)]
    connection: ConnectionOptions,
    /// Leave the timer out: something else runs `sallyport enroll renew` every day.
    #[arg(long)]
    no_timer: bool,
    #[command(flatten)]
    place: Place,
}

/// Runs the command.
pub(crate) async fn run(arguments: EnrollOrNoun, global: &Global) -> Result {
    let format = global.output;
    match arguments.command {
        None => arguments.enroll.run(format).await,
        Some(Command::Renew { force, wait, place }) => run_renew(force, wait, &place, format).await,
        Some(Command::Status { place }) => {
            let (settings, identity) = Folder::look(&place.folder())?;
            Printer::new(format).list(&[Row::new(&settings, &identity)], "")
        }
        Some(Command::Install { connection, place }) => {
            let (folder, settings, identity) = Folder::open_enrolled(&place.folder())?;
            let headline = format!("installed the certificate of {}", settings.name);
            put(&folder, settings, &identity, &connection, &place, headline, false).and_then(|done| done.print(format))
        }
        Some(Command::Remove { place }) => remove(&place, format),
    }
}

impl Enroll {
    async fn run(mut self, format: Format) -> Result {
        let token = self.token()?;
        let server = self.server.as_deref().map(str::parse::<Server>).transpose()?;
        let chosen = software(&self.connection, &mut host(&self.place, &mut Programs))?;
        let key = self.algorithm(&chosen)?;
        // Asked for before the network is: a person may have gone when an approval comes.
        let password = password(&self.connection)?;
        let request = Request {
            token,
            server,
            name: self.name.take(),
            key,
            gateway: self.connection.gateway.clone(),
            wait: self.wait,
        };
        let folder = Folder::open(&self.place.folder())?;
        let (settings, identity) = enroll(&folder, &request, &Here::new()).await?;
        let headline = format!(
            "{} has a certificate: serial {}, valid until {}, renewed from {}",
            settings.name,
            identity.certificate.serial,
            rfc3339(identity.certificate.not_after),
            rfc3339(due(&identity.certificate)),
        );
        let wanted = Wanted { software: chosen, password, user: self.connection.user.clone(), timer: !self.no_timer };
        install_all(&folder, settings, &identity, wanted, &self.place, headline)?.print(format)
    }

    fn token(&mut self) -> Result<EnrollToken> {
        let text = match &self.token_file {
            Some(path) => {
                let bytes = secret::from_file_or_stdin(path, "Token")?;
                let text = str::from_utf8(&bytes).map_err(|_| Error::usage("the token is not text"))?;
                Zeroizing::new(text.to_owned())
            }
            None => self.token.take().or_else(|| env::var(TOKEN).ok()).map(Zeroizing::new).ok_or_else(|| {
                Error::usage("a token is needed").remedy(
                    "make one on a controller (sallyport token create) and pass --token-file FILE, or - to be asked",
                )
            })?,
        };
        EnrollToken::parse(&text).map_err(|e| Error::usage(e.to_string()))
    }

    fn algorithm(&self, chosen: &[Software]) -> Result<KeyAlgorithm> {
        let default = if chosen.contains(&Software::Libreswan) { Key::Rsa2048 } else { Key::EcdsaP256 };
        let algorithm = algorithm(self.key.unwrap_or(default));
        match chosen.iter().find(|s| !s.takes(algorithm)) {
            Some(software) => Err(Error::usage(format!("{software} cannot use an {algorithm} key in IKEv1"))
                .remedy("pass --key rsa-2048, or leave it out with --for")),
            None => Ok(algorithm),
        }
    }
}

fn algorithm(key: Key) -> KeyAlgorithm {
    match key {
        Key::Rsa2048 => KeyAlgorithm::Rsa2048,
        Key::Rsa3072 => KeyAlgorithm::Rsa3072,
        Key::Rsa4096 => KeyAlgorithm::Rsa4096,
        Key::EcdsaP256 => KeyAlgorithm::EcdsaP256,
        Key::EcdsaP384 => KeyAlgorithm::EcdsaP384,
    }
}

fn host<'a>(place: &Place, programs: &'a mut Programs) -> Host<'a> {
    Host::new(place.root.clone(), &place.named(), programs)
}

/// What was named, else what is there.
fn software(options: &ConnectionOptions, host: &mut Host<'_>) -> Result<Vec<Software>> {
    let mut chosen = Vec::new();
    for name in &options.software {
        let one = name.parse()?;
        if !chosen.contains(&one) {
            chosen.push(one);
        }
    }
    if chosen.is_empty() {
        chosen = Software::ALL.into_iter().filter(|s| s.is_there(host)).collect();
    }
    Ok(chosen)
}

/// The user's password from its file, or from a person who sits there.
fn password(options: &ConnectionOptions) -> Result<Option<Zeroizing<String>>> {
    let text = |bytes: &[u8]| {
        let text = str::from_utf8(bytes).map_err(|_| Error::usage("the password is not text in UTF-8"))?;
        Ok(Some(Zeroizing::new(text.to_owned())))
    };
    match (&options.user, &options.password_file) {
        (None, _) => Ok(None),
        (Some(_), Some(path)) => text(&secret::from_file(path)?),
        (Some(user), None) if std::io::stdin().is_terminal() => {
            let secret = secret::known(false, &format!("Password of {user}"), "--password-file")?;
            text(&Zeroizing::new(secret.into_inner()))
        }
        // What is written says where it goes.
        (Some(_), None) => Ok(None),
    }
}

struct Wanted {
    software: Vec<Software>,
    user: Option<String>,
    password: Option<Zeroizing<String>>,
    timer: bool,
}

/// Installs for all that is wanted, and goes on where one of them fails.
fn install_all(
    folder: &Folder,
    mut settings: Settings,
    identity: &Identity,
    wanted: Wanted,
    place: &Place,
    headline: String,
) -> Result<Done> {
    let mut programs = Programs;
    let mut host = host(place, &mut programs);
    settings.user = wanted.user.or(settings.user);
    let connection =
        Connection { gateway: settings.gateway.clone(), user: settings.user.clone(), password: wanted.password };
    let mut failed = None;
    for software in &wanted.software {
        let name = software.name().to_owned();
        match install::install(*software, &mut host, identity, &connection, &SystemRandom::new()) {
            Ok(()) if settings.installed.contains(&name) => {}
            Ok(()) => settings.installed.push(name),
            Err(e) => {
                failed.get_or_insert_with(|| {
                    Error::from(e).context(format!("the certificate is there, but not installed for {name}"))
                });
            }
        }
    }
    if wanted.software.is_empty() {
        host.advise(
            "no VPN software was found: install it and run `sallyport enroll install`, or use the files of this folder",
        );
    }
    if wanted.timer {
        let program = env::current_exe().unwrap_or_else(|_| PathBuf::from("/usr/local/bin/sallyport"));
        install::install_timer(&mut host, &program.to_string_lossy(), &place.named())?;
    }
    folder.write_settings(&settings)?;
    match failed {
        Some(error) => Err(error),
        None => Ok(Done::new(headline, Row::new(&settings, identity), host)),
    }
}

fn put(
    folder: &Folder,
    mut settings: Settings,
    identity: &Identity,
    options: &ConnectionOptions,
    place: &Place,
    headline: String,
    timer: bool,
) -> Result<Done> {
    if let Some(gateway) = &options.gateway {
        settings.gateway.clone_from(gateway);
    }
    let software = software(options, &mut host(place, &mut Programs))?;
    let wanted = Wanted { software, user: options.user.clone(), password: password(options)?, timer };
    install_all(folder, settings, identity, wanted, place, headline)
}

async fn run_renew(force: bool, wait: Duration, place: &Place, format: Format) -> Result {
    let (folder, settings, present) = Folder::open_enrolled(&place.folder())?;
    let here = Here::new();
    let renewed = renew(&folder, &settings, &present, force, wait, &here).await;
    // Whatever the authority says: what is installed is the pair in force, even if an earlier run was interrupted.
    let (identity, headline, failed) = match renewed {
        Ok(Outcome::NotDue) => {
            let at = rfc3339(due(&present.certificate));
            (present, format!("the certificate of {} is not due before {at}", settings.name), None)
        }
        Ok(Outcome::Renewed(new)) => {
            let certificate = &new.certificate;
            let until = rfc3339(certificate.not_after);
            let text = format!(
                "renewed the certificate of {}: serial {}, valid until {until}",
                settings.name, certificate.serial
            );
            (new, text, None)
        }
        Err(e) => (present, String::new(), Some(Error::from(e))),
    };
    let mut programs = Programs;
    let mut host = host(place, &mut programs);
    let mut failed = failed;
    for name in &settings.installed {
        let refreshed =
            name.parse().and_then(|software| install::refresh(software, &mut host, &identity, &SystemRandom::new()));
        if let Err(e) = refreshed {
            failed.get_or_insert_with(|| Error::from(e).context(format!("not installed for {name}")));
        }
    }
    match failed {
        Some(error) => Err(error),
        None => Done::new(headline, Row::new(&settings, &identity), host).print(format),
    }
}

fn remove(place: &Place, format: Format) -> Result {
    let (folder, settings, identity) = Folder::open_enrolled(&place.folder())?;
    let mut programs = Programs;
    let mut host = host(place, &mut programs);
    let mut left: Vec<Software> = settings.installed.iter().filter_map(|name| name.parse().ok()).collect();
    while let Some(software) = left.pop() {
        install::uninstall(software, &mut host, &left)?;
    }
    install::uninstall_timer(&mut host)?;
    let row = Row::new(&settings, &identity);
    folder.remove()?;
    host.removed.push(place.named());
    host.advise(format!(
        "the certificate is good until {}: an operator revokes it with `sallyport cert revoke {}`",
        row.not_after, row.serial
    ));
    let headline = format!("{} is no longer enrolled here", settings.name);
    Done::new(headline, row, host).print(format)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        enroll: EnrollOrNoun,
    }

    fn parse(words: &[&str]) -> EnrollOrNoun {
        Line::try_parse_from([&["enroll"], words].concat()).unwrap().enroll
    }

    #[test]
    fn libreswan_decides_the_kind_of_key_unless_it_is_said() {
        let kind =
            |words: &[&str], chosen: &[Software]| parse(words).enroll.algorithm(chosen).map_err(|e| e.to_string());
        assert_eq!(kind(&[], &[Software::Strongswan]), Ok(KeyAlgorithm::EcdsaP256));
        assert_eq!(kind(&[], &[Software::Strongswan, Software::Libreswan]), Ok(KeyAlgorithm::Rsa2048));
        assert_eq!(kind(&["--key", "rsa-3072"], &[Software::Libreswan]), Ok(KeyAlgorithm::Rsa3072));
        assert!(kind(&["--key", "ecdsa-p256"], &[Software::Libreswan]).unwrap_err().contains("rsa-2048"));
    }

    #[test]
    fn an_image_is_prepared_below_its_root_and_keeps_its_own_names() {
        let place = parse(&["--root", "/mnt/image", "--dir", "/etc/sallyport/enroll"]).enroll.place;
        assert_eq!(place.folder(), Path::new("/mnt/image/etc/sallyport/enroll"));
        assert_eq!(place.named(), "/etc/sallyport/enroll");
        let place = parse(&[]).enroll.place;
        assert_eq!(
            (place.folder(), place.named().as_str()),
            (PathBuf::from("/etc/sallyport/enroll"), "/etc/sallyport/enroll")
        );
    }

    #[test]
    fn a_token_that_is_none_is_not_repeated() {
        let mut enroll = parse(&["--token", "spt1.c2VjcmV0"]).enroll;
        let error = enroll.token().unwrap_err().to_string();
        assert!(error.contains("token create") && !error.contains("c2VjcmV0"), "{error}");
    }

    #[test]
    fn software_is_named_once() {
        let mut programs = Programs;
        let line = parse(&["--for", "strongswan,networkmanager", "--for", "strongswan"]).enroll;
        let chosen = software(&line.connection, &mut host(&line.place, &mut programs)).unwrap();
        assert_eq!(chosen, [Software::Strongswan, Software::NetworkManager]);
        assert!(Line::try_parse_from(["enroll", "--for", "openvpn"]).is_err());
    }
}
