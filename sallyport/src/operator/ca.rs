//! `sallyport ca`: the roots, and the issuing authorities below them.

use clap::{Args, Subcommand};
use sallyport_ca::{Certificate, NameConstraints, Subtree};
use sallyport_proto::v1;
use serde::Serialize;

use super::cert::Key;
use super::identity_files::certificate_pem;
use super::{Context, names, refused, unix};
use crate::cli::Global;
use crate::error::{Error, Result};
use crate::output::{Column, Record, print, rfc3339};

/// What to do with authorities.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the roots and the issuing authorities below them.
    #[command(alias = "ls")]
    List,
    /// Show an authority, or print its certificate.
    Show {
        /// Its number as `ca list` shows it, or `root`.
        authority: String,
        /// Print the certificate (PEM) and nothing else.
        #[arg(long)]
        pem: bool,
    },
    /// Make an issuing authority, or end the issuing of one.
    #[command(subcommand)]
    Issuer(Issuer),
    /// Take the root's private key out of the cluster and bring it back; stand below a company's root.
    #[command(subcommand)]
    Root(super::ca_root::Command),
    /// Put another root in the place of the one in force.
    #[command(subcommand)]
    Rollover(super::ca_rollover::Command),
}

/// What to do with issuing authorities.
#[derive(Debug, Subcommand)]
pub(crate) enum Issuer {
    /// Make an issuing authority below the root in force.
    #[command(after_help = "\
Certificates come from the issuing authority whose kind of key their own has, else from one of the same family. What another has
issued stays good.

Name constraints are off unless --permit-... or --exclude-... is given. An authority that has some stands beside the one without:
from then on machines and gateways get their certificates from it, or none if a name is outside, and all others as before. They
are critical, and some VPN clients cannot read them and refuse the chain (RFC 4945 advises against them): try yours first. What
machines have stays good, but those whose names are outside cannot renew.

Examples:
  sallyport ca issuer add --key rsa-2048
  sallyport ca issuer add --key ecdsa-p256 --replace
  sallyport ca issuer add --key ecdsa-p256 --permit-dns example.com --permit-ip 10.0.0.0/8")]
    Add(Add),
    /// Let an issuing authority issue no more; what it has issued stays good.
    #[command(after_help = "\
An authority whose key is in other hands (--compromised) is revoked as well: the root's lists name it, gateways and operators believe no
controller below it and no list that it has signed, also none of before. Controllers and gateways have new certificates within seconds,
machines that renew by themselves within six hours; until then gateways let them in, as far as they are on record. Put another
authority in its place first, and have the root's key in the cluster:
  sallyport ca issuer add --key ecdsa-p256 --replace
  sallyport ca issuer retire 1 --compromised")]
    Retire {
        /// Its number, as `ca list` shows it.
        number: u64,
        /// Its key is in other hands: revoke it, and whatever it signs.
        #[arg(long)]
        compromised: bool,
    },
}

/// A new issuing authority.
#[derive(Debug, Args)]
pub(crate) struct Add {
    /// Kind of its key.
    #[arg(long, value_enum)]
    key: Key,
    /// Retire the one of the same kind that is in force: with name constraints if this one has some, else without.
    #[arg(long)]
    replace: bool,
    /// A domain in which it may certify names: itself and all below it. With none, any.
    #[arg(long, value_name = "DOMAIN")]
    permit_dns: Vec<String>,
    /// A network of which it may certify addresses, such as 10.0.0.0/8 or 2001:db8::/32. With none, any.
    #[arg(long, value_name = "NETWORK")]
    permit_ip: Vec<String>,
    /// A domain in which it may certify no name, whatever is permitted.
    #[arg(long, value_name = "DOMAIN")]
    exclude_dns: Vec<String>,
    /// A network of which it may certify no address; 0.0.0.0/0 and ::/0 are all there are.
    #[arg(long, value_name = "NETWORK")]
    exclude_ip: Vec<String>,
}

#[derive(Clone, Serialize)]
struct Row {
    /// `root`, or the number of an issuing authority.
    authority: String,
    subject: String,
    key: &'static str,
    state: &'static str,
    private_key: &'static str,
    not_after: String,
    made: String,
    retired: String,
    certificates: u64,
    serial: String,
    fingerprint: String,
    /// Name constraints; none for all names.
    permitted: Vec<String>,
    excluded: Vec<String>,
    #[serde(skip)]
    certificate: Vec<u8>,
}

impl Row {
    /// How an authority is called: the root in force is `root`, another one has its number behind that.
    fn new(info: v1::AuthorityInfo, in_force: u64) -> Self {
        let parsed = Certificate::from_der(&info.certificate).ok();
        let constraints = NameConstraints::of_certificate(&info.certificate).unwrap_or_default();
        let texts = |list: &[Subtree]| list.iter().map(ToString::to_string).collect();
        let text = |of: fn(&Certificate) -> String| parsed.as_ref().map(of).unwrap_or_default();
        Self {
            authority: match info.is_root {
                true if info.number == in_force => "root".into(),
                true => format!("root-{}", info.number),
                false => info.number.to_string(),
            },
            subject: text(|c| c.subject.clone()),
            key: names::key_algorithm(info.key_algorithm()),
            state: match info.retired_unix_ms {
                0 if info.is_root && info.number != in_force => "trusted",
                0 => "in force",
                _ if info.compromised_unix_ms != 0 => "compromised",
                _ => "retired",
            },
            private_key: if info.has_key { "sealed" } else { "kept elsewhere" },
            not_after: text(|c| rfc3339(c.not_after)),
            made: text(|c| rfc3339(c.not_before)),
            retired: rfc3339(unix(info.retired_unix_ms)),
            certificates: info.certificates,
            serial: text(|c| c.serial.to_string()),
            fingerprint: text(|c| c.fingerprint.to_string()),
            permitted: texts(constraints.permitted()),
            excluded: texts(constraints.excluded()),
            certificate: info.certificate,
        }
    }

    fn text(&self) -> String {
        let names = match (self.permitted.as_slice(), self.excluded.as_slice()) {
            ([], []) => "all".to_owned(),
            (permitted, []) => permitted.join(", "),
            ([], excluded) => format!("all but {}", excluded.join(", ")),
            (permitted, excluded) => format!("{}, but not {}", permitted.join(", "), excluded.join(", ")),
        };
        format!(
            "{}\nkey           {}, {}\nstate         {}\nnames         {names}\nvalid         {} until {}\ncertificates  {} live\nserial        {}\nfingerprint   {}",
            self.subject,
            self.key,
            self.private_key,
            self.state,
            self.made,
            self.not_after,
            self.certificates,
            self.serial,
            self.fingerprint
        )
    }
}

impl Record for Row {
    const COLUMNS: &'static [Column] = &[
        Column::left("AUTHORITY"),
        Column::left("SUBJECT"),
        Column::left("KEY"),
        Column::left("STATE"),
        Column::left("PRIVATE KEY"),
        Column::left("NOT AFTER"),
        Column::right("CERTIFICATES"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.authority.clone(),
            self.subject.clone(),
            self.key.into(),
            self.state.into(),
            self.private_key.into(),
            self.not_after.clone(),
            self.certificates.to_string(),
        ]
    }
}

#[derive(Serialize)]
struct Changed {
    authority: u64,
}

async fn list(context: &mut Context) -> Result<Vec<Row>> {
    let request = v1::ListAuthoritiesRequest {};
    let infos = context.connection.client.list_authorities(request).await.map_err(refused)?.into_inner().authorities;
    // Older controllers have one root, and do not say that it is in force.
    let in_force = infos.iter().find(|a| a.in_force).or_else(|| infos.iter().find(|a| a.is_root));
    let in_force = in_force.map(|a| a.number).unwrap_or_default();
    Ok(infos.into_iter().map(|info| Row::new(info, in_force)).collect())
}

/// Runs the command.
pub(crate) async fn run(command: Command, global: &Global) -> Result {
    let mut context = Context::open(global).await?;
    match command {
        Command::List => {
            let rows = list(&mut context).await?;
            context.printer.list(&rows, "no authorities")
        }
        Command::Show { authority, pem } => {
            let rows = list(&mut context).await?;
            let Some(row) = rows.into_iter().find(|row| row.authority == authority) else {
                return Err(Error::failed(format!("there is no authority {authority}"))
                    .remedy("`sallyport ca list` shows which there are"));
            };
            if pem { print(&certificate_pem(&row.certificate)) } else { context.printer.one(&row, &row.text()) }
        }
        Command::Issuer(Issuer::Add(add)) => {
            let kind: v1::KeyAlgorithm = add.key.into();
            let request = v1::AddIssuerRequest {
                key_algorithm: kind.into(),
                replace: add.replace,
                permit_dns: add.permit_dns,
                permit_ip: add.permit_ip,
                exclude_dns: add.exclude_dns,
                exclude_ip: add.exclude_ip,
            };
            let made = context.connection.client.add_issuer(request).await.map_err(refused)?.into_inner();
            let text = format!("issuing authority {} is in force; gateways know it", made.number);
            context.printer.one(&Changed { authority: made.number }, &text)
        }
        Command::Issuer(Issuer::Retire { number, compromised }) => {
            let request = v1::RetireIssuerRequest { number, compromised };
            context.connection.client.retire_issuer(request).await.map_err(refused)?;
            let text = match compromised {
                false => format!("issuing authority {number} issues no more; what it has issued stays good"),
                true => format!(
                    "issuing authority {number} is revoked; gateways and operators hear of it within half a minute"
                ),
            };
            context.printer.one(&Changed { authority: number }, &text)
        }
        Command::Root(command) => super::ca_root::run(command, &mut context).await,
        Command::Rollover(command) => super::ca_rollover::run(command, &mut context).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn the_root_in_force_is_called_root_and_issuing_authorities_by_their_number() {
        let info = |number, is_root, has_key| v1::AuthorityInfo { number, is_root, has_key, ..Default::default() };
        let called = |info, newest| Row::new(info, newest).authority;
        assert_eq!(called(info(2, true, true), 2), "root");
        assert_eq!(called(info(1, true, true), 2), "root-1");
        assert_eq!(called(info(2, false, true), 2), "2");
        assert_eq!(Row::new(info(1, true, false), 1).private_key, "kept elsewhere");
    }

    #[test]
    fn what_the_controllers_name_as_remedy_exists() {
        for line in [
            "ca issuer add --key rsa-2048 --permit-dns example.com --permit-dns corp.example --exclude-ip ::/0 --replace",
            "ca list",
            "ca issuer add --key rsa-2048 --replace",
            "ca issuer retire 1",
            "ca show root --pem",
        ] {
            let words = std::iter::once("sallyport").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
        assert!(Cli::try_parse_from(["sallyport", "ca", "issuer", "add"]).is_err(), "which kind of key?");
    }
}
