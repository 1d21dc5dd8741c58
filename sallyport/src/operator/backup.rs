//! `sallyport backup`: making, checking and restoring backups of the cluster.

mod create;
mod meter;
mod report;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use sallyport_ca::SystemRandom;
use sallyport_controller::Clock;
use sallyport_controller::backup::{self, Secret};
use serde::Serialize;
use zeroize::Zeroizing;

pub(crate) use self::meter::Meter;
use self::report::Report;
use crate::cli::Global;
use crate::config::ConfigSource;
use crate::daemon::controller_error;
use crate::error::{Error, Result};
use crate::output::Printer;
use crate::secret;

/// What to do with backups.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write all that the cluster knows, and the key to its secrets, into one encrypted file.
    #[command(after_help = "\
The file holds users, pools, settings, certificate records, the audit and the CA. It is encrypted on this machine, \
under a passphrase or to public keys; no controller ever sees either. With a public key, a timer can make backups that \
this machine cannot read. The configuration files and the node keys of the controllers are not in it.

Examples:
  sallyport backup create --out /mnt/usb/vpn.backup
  sallyport backup create --passphrase-file /root/backup-passphrase
  sallyport backup create --recipient backup.pub --out vpn-$(date +%F).backup")]
    Create(create::Arguments),
    /// Decrypt a backup, check every byte of it and that the CA's key opens, and say what is inside.
    #[command(after_help = "\
Nothing is changed and no controller is asked: run it where the backup lies, after each backup.

Examples:
  sallyport backup verify /mnt/usb/vpn.backup
  sallyport backup verify vpn.backup --key backup.key --root FINGERPRINT --output json")]
    Verify {
        #[command(flatten)]
        source: Source,
    },
    /// Make a new cluster of one controller from a backup, in the empty folder that --state names.
    #[command(after_help = "\
For when all controllers are lost; a single one that is lost joins again instead (`sallyport cluster token`). Users, \
settings, certificates and the CA are as they were when the backup was made. Sessions are over, and the gateways come back \
by themselves. What was issued after the backup is not on record and is refused.

First end the old controllers and remove their state folders: their certificates are revoked. Then restore, start the \
controller, and let the others join it anew. The certificates of their operator folders are still good: where such a folder \
may be in other hands, revoke them (`sallyport cert list`, `sallyport cert revoke`).

With --root, only a backup is taken that was made by who had the CA's private key. `sallyport status` shows the fingerprint: note \
it while the cluster is well. Where the backup was made to a public key, nothing else tells it from one that somebody else made.

Examples:
  sudo sallyport backup restore vpn.backup --state /var/lib/sallyport --root FINGERPRINT
  sudo systemctl start sallyport-controller
  sudo sallyport cluster token")]
    Restore {
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        config: ConfigSource,
    },
    /// Make a pair of keys: one to make backups with, and one to read them.
    #[command(after_help = "\
NAME.pub goes to where backups are made. NAME.key reads every backup made with it: keep it elsewhere, and a copy of it.

Examples:
  sallyport backup keygen backup
  sallyport backup create --recipient backup.pub")]
    Keygen {
        /// Path of the two files, without their endings.
        #[arg(value_name = "NAME", value_hint = ValueHint::FilePath)]
        name: PathBuf,
    },
}

/// The arguments of [`PassphraseSource`], for those that take its place.
const PASSPHRASE: [&str; 2] = ["passphrase_file", "passphrase_stdin"];

/// A backup, and what opens it.
#[derive(Debug, Args)]
pub(crate) struct Source {
    /// The backup.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// The private key of a recipient, NAME.key, for a backup made with its public key.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = PASSPHRASE)]
    key: Option<PathBuf>,
    /// Fingerprint (SHA-256) that the CA in it must have, as `sallyport status` shows it. Anybody can make a backup to a public
    /// key; one that holds this CA, only who had its private key.
    #[arg(long, value_name = "FINGERPRINT", value_parser = fingerprint)]
    root: Option<[u8; 32]>,
    #[command(flatten)]
    passphrase: PassphraseSource,
}

/// The 32 bytes of a fingerprint, as tools print it: with colons or without, in upper or lower case.
fn fingerprint(text: &str) -> std::result::Result<[u8; 32], String> {
    let digits: Vec<u32> = text.chars().filter(|c| *c != ':').map_while(|c| c.to_digit(16)).collect();
    let complete = digits.len() == text.chars().filter(|c| *c != ':').count();
    let bytes: Vec<u8> =
        digits.chunks_exact(2).filter_map(|two| u8::try_from(two.iter().fold(0, |n, d| n << 4 | d)).ok()).collect();
    match <[u8; 32]>::try_from(bytes) {
        Ok(bytes) if complete && digits.len() == 64 => Ok(bytes),
        _ => Err("a fingerprint has 64 hexadecimal digits".into()),
    }
}

/// Where a passphrase comes from.
#[derive(Debug, Args)]
pub(crate) struct PassphraseSource {
    /// File whose first line is the passphrase; no one else may read it [default: it is asked for]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "passphrase_stdin")]
    passphrase_file: Option<PathBuf>,
    /// Read the passphrase from the first line of standard input.
    #[arg(long)]
    passphrase_stdin: bool,
}

impl PassphraseSource {
    /// The passphrase; where it is `new` and a person is asked, twice.
    fn read(&self, new: bool) -> Result<Zeroizing<Vec<u8>>> {
        if let Some(path) = &self.passphrase_file {
            return secret::from_file(path);
        }
        let secret = if new {
            secret::read(self.passphrase_stdin, "Passphrase for the backup", "--passphrase-stdin", 1)
        } else {
            secret::known(self.passphrase_stdin, "Passphrase of the backup", "--passphrase-stdin")
        };
        Ok(secret?.into_inner())
    }
}

impl Source {
    /// What a person should look at.
    fn remark(&self) -> &'static str {
        match (&self.key, self.root) {
            (Some(_), None) => {
                "\nAnybody who has the public key can make such a file: compare the root's fingerprint, or give it with --root"
            }
            _ => "",
        }
    }

    /// What opens the backup. A backup that nothing could open is refused before anybody is asked.
    fn secret(&self) -> Result<Secret> {
        let (_, recipients) = backup::open(&self.file).map_err(controller_error)?;
        match &self.key {
            Some(path) => Ok(Secret::Key(backup::read_key(path).map_err(controller_error)?)),
            None if !recipients.passphrase => {
                Err(Error::usage("this backup was made with a public key")
                    .remedy("give the private one: --key NAME.key"))
            }
            None => Ok(Secret::Passphrase(self.passphrase.read(false)?)),
        }
    }
}

#[derive(Serialize)]
struct Pair {
    private: PathBuf,
    public: PathBuf,
    public_key: String,
}

/// Runs the command.
pub(crate) async fn run(command: Command, global: &Global) -> Result {
    let printer = Printer::new(global.output);
    match command {
        Command::Create(arguments) => create::run(arguments, global).await,
        Command::Verify { source } => {
            let (secret, mut meter) = (source.secret()?, Meter::new("checked"));
            let contents = backup::verify(&source.file, &secret, &mut |done, all| meter.show(done, all));
            drop(meter);
            let contents = contents.map_err(controller_error)?;
            if let Some(root) = source.root {
                contents.is_of(&source.file, root).map_err(controller_error)?;
            }
            let report = Report::new(&source.file, &contents, None);
            printer.one(&report, &format!("{} is good\n{}{}", source.file.display(), report.text(), source.remark()))
        }
        Command::Restore { source, config } => {
            let config = config.load()?.controller;
            let (secret, mut meter) = (source.secret()?, Meter::new("read"));
            let mut progress = |done, all| meter.show(done, all);
            let (state, clock) = (&global.state, Clock::system());
            let contents =
                backup::restore_of(source.root, &source.file, &secret, state, &config, &clock, &mut progress).await;
            drop(meter);
            let report = Report::new(&source.file, &contents.map_err(controller_error)?, Some(state));
            let next = format!("start it: sallyport controller --state {}", state.display());
            let text = format!("restored into {}; {next}\n{}{}", state.display(), report.text(), source.remark());
            printer.one(&report, &text)
        }
        Command::Keygen { name } => {
            let with = |ending: &str| {
                let mut path = name.clone().into_os_string();
                path.push(ending);
                PathBuf::from(path)
            };
            let (private, public) = (with(".key"), with(".pub"));
            let key = backup::make_recipient(&private, &public, &SystemRandom::new()).map_err(controller_error)?;
            let text = format!(
                "wrote {} to make backups with and {} to read them; keep that one elsewhere, and a copy of it",
                public.display(),
                private.display()
            );
            printer.one(&Pair { private, public, public_key: crate::hex::lower(&key) }, &text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_tools_print_it() {
        let plain = "0a".repeat(32);
        assert_eq!(fingerprint(&plain), Ok([10; 32]));
        assert_eq!(fingerprint(&vec!["0A"; 32].join(":")), Ok([10; 32]));
        for wrong in
            ["", "0a", &"0a".repeat(31), &"0a".repeat(33), &format!("{plain}0"), &"0g".repeat(32), &"€".repeat(64)]
        {
            assert!(fingerprint(wrong).is_err(), "{wrong}");
        }
    }
}
