//! `sallyport enroll`: what a machine runs that wants a certificate and to be connected with it.

mod first;
mod here;
mod options;
mod put;
mod shown;

use std::time::Duration;

use clap::{Args, Subcommand};
use sallyport_enroll::install::{self, Software};
use sallyport_enroll::{Folder, Outcome, due, renew};

use self::first::Enroll;
use self::here::{Here, Programs};
use self::options::{ConnectionOptions, Place, TimerOptions};
use self::shown::{Done, Row};
use crate::cli::Global;
use crate::duration::parse_duration;
use crate::error::{Error, Result};
use crate::output::{Format, Printer, rfc3339};

/// Get this machine's certificate, install it for its VPN software, and have it renewed.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
`sallyport token create` on a controller makes the token. It names the root of the VPN's authority: whoever else answers is told
nothing. Without a token --root-fingerprint (or --ca) names the root, and the machine is let in by its key or network (sallyport machine
add) or by an operator, who compares the SHA-256 of its key that is printed here with `sallyport request list`. The key is made here and never leaves; key and certificate are in DIR, and where the software that is installed looks for them:

  strongswan       /etc/swanctl, with the connection `sallyport`, and xl2tpd's part if --user is given
  libreswan        its NSS database and /etc/ipsec.d/sallyport.conf, and xl2tpd's part (needs --key rsa-2048, its default here)
  networkmanager   a connection for its plugin network-manager-l2tp

A timer of systemd renews the certificate from two thirds of its life on. Files that are not from sallyport are not touched: what would
have to stand in them is printed. If this is interrupted, or has to wait for an approval, run the same command again.

Examples:
  sudo sallyport enroll --token-file - --user ada           asks for the token and for ada's password
  sudo sallyport enroll --token-file t --for strongswan     only for strongSwan
  sudo sallyport enroll --server vpn.example.com --root-fingerprint 6f8c... --user ada      to be approved
  sudo sallyport enroll --token-file - --key tpm            the key is made in the TPM and never leaves it (strongSwan only)
  sudo sallyport enroll --token-file - --key 'pkcs11:token=vpn?module-path=/usr/lib/softhsm/libsofthsm2.so' --key rsa-2048
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
    /// Show the certificate: whose it is, until when, when it will be renewed, and whether the authority's list says that it is revoked.
    Status {
        #[command(flatten)]
        place: Place,
    },
    /// Install the certificate for software that came later, or with another user; the timer, too, where it was lost.
    Install {
        #[command(flatten)]
        connection: ConnectionOptions,
        #[command(flatten)]
        timer: TimerOptions,
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

/// Runs the command.
pub(crate) async fn run(arguments: EnrollOrNoun, global: &Global) -> Result {
    let format = global.output;
    match arguments.command {
        None => arguments.enroll.run(format).await,
        Some(Command::Renew { force, wait, place }) => run_renew(force, wait, &place, format).await,
        Some(Command::Status { place }) => Printer::new(format).list(&[Row::ask(&place.folder()).await?], ""),
        Some(Command::Install { connection, timer, place }) => {
            let (folder, settings, identity) = Folder::open_enrolled(&place.folder())?;
            let headline = format!("installed the certificate of {}", settings.name);
            put::put(&folder, settings, &identity, &connection, &timer, &place, headline)
                .and_then(|done| done.print(format))
        }
        Some(Command::Remove { place }) => remove(&place, format),
    }
}

async fn run_renew(force: bool, wait: Duration, place: &Place, format: Format) -> Result {
    if let Some((folder, waiting)) = Folder::open_waiting(&place.folder())? {
        return first::go_on(folder, &waiting, wait, place, format).await;
    }
    let (folder, settings, present) = Folder::open_enrolled(&place.folder())?;
    let here = Here::new();
    let renewed = renew(&folder, &settings, &present, force, wait, &here).await;
    // While an approval was waited for somebody may have installed it for more.
    let settings = folder.settings()?.unwrap_or(settings);
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
    let mut host = place.host(&mut programs);
    let refreshed = put::refresh(&settings, &identity, &mut host);
    match failed.or(refreshed) {
        Some(error) => Err(error),
        None => Done::new(headline, Row::new(&settings, &identity), host).print(format),
    }
}

fn remove(place: &Place, format: Format) -> Result {
    let mut programs = Programs;
    let mut host = place.host(&mut programs);
    if let Some((folder, waiting)) = Folder::open_waiting(&place.folder())?
        && folder.identity()?.is_none()
    {
        let row = Row::look(&place.folder())?;
        install::uninstall_timer(&mut host)?;
        folder.remove()?;
        host.removed.push(place.named());
        host.advise(format!(
            "the request is still at {}: an operator refuses it with `sallyport request refuse`",
            waiting.server
        ));
        return Done::new("this machine no longer waits for a certificate".to_owned(), row, host).print(format);
    }
    let (folder, settings, identity) = Folder::open_enrolled(&place.folder())?;
    let mut left: Vec<Software> = settings.installed.iter().filter_map(|name| name.parse().ok()).collect();
    while let Some(software) = left.pop() {
        install::uninstall(software, &mut host, &left)?;
    }
    install::uninstall_timer(&mut host)?;
    let row = Row::new(&settings, &identity);
    for error in folder.remove()? {
        host.advise(format!("a key is still in its token: {error}"));
    }
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

    use std::path::PathBuf;

    use sallyport_ca::KeyAlgorithm;
    use sallyport_enroll::Access;

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
        let error = enroll.access().unwrap_err().to_string();
        assert!(error.contains("token create") && !error.contains("c2VjcmV0"), "{error}");
    }

    #[test]
    fn without_a_token_the_root_is_named_by_its_fingerprint_or_its_file() {
        let root = "6f".repeat(32);
        let access = |words: &[&str]| parse(words).enroll.access();
        let line = ["--server", "vpn.example.com", "--root-fingerprint", &root];
        assert!(matches!(access(&line), Ok(Access::Listed(roots)) if roots[0].0 == [0x6f; 32]));
        assert!(Line::try_parse_from(["enroll", "--root-fingerprint", "6f"]).is_err());
        assert!(Line::try_parse_from(["enroll", "--root-fingerprint", &root, "--token-file", "-"]).is_err());
        let error = access(&["--ca", "/nonexistent"]).unwrap_err().to_string();
        assert!(error.contains("cannot read /nonexistent"), "{error}");
    }

    #[test]
    fn a_key_in_a_token_is_for_software_that_can_use_one() {
        let uri = "pkcs11:token=vpn?module-path=/l.so";
        let line = parse(&["--key", uri, "--key", "rsa-3072"]).enroll;
        assert_eq!(line.algorithm(&[Software::Strongswan]).unwrap(), KeyAlgorithm::Rsa3072);
        let there = vec![Software::Strongswan, Software::NetworkManager];
        assert_eq!(line.that_take_the_key(there.clone()).unwrap(), [Software::Strongswan]);
        assert_eq!(parse(&[]).enroll.that_take_the_key(there.clone()).unwrap(), there);
        let line = parse(&["--key", "tpm", "--for", "networkmanager"]).enroll;
        assert!(line.that_take_the_key(there).unwrap_err().to_string().contains("--for strongswan"));
        for (key, part) in [(&*format!("{uri}&pin-value=1"), "every user sees it"), ("tpm2", "or tpm is expected")] {
            let error = Line::try_parse_from(["enroll", "--key", key]).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn software_is_named_once() {
        let mut programs = Programs;
        let line = parse(&["--for", "strongswan,networkmanager", "--for", "strongswan"]).enroll;
        let chosen = line.connection.software(&line.place.host(&mut programs)).unwrap();
        assert_eq!(chosen, [Software::Strongswan, Software::NetworkManager]);
        assert!(Line::try_parse_from(["enroll", "--for", "openvpn"]).is_err());
    }
}
