//! `sallyport setting`: what all gateways follow, kept by the controller.

use clap::{Subcommand, ValueEnum};
use sallyport_proto::v1::{AuthMethod, GetSettingsRequest, Settings, UpdateSettingsRequest};
use serde::Serialize;

use super::{Context, names, refused};
use crate::cli::Global;
use crate::error::{Error, Result};
use crate::output::{Column, Record};

/// What to do with settings.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the settings.
    #[command(alias = "list", alias = "ls")]
    Show,
    /// Change settings, all of them or none; gateways follow within seconds.
    #[command(after_help = "\
`sallyport setting show` lists the keys with their values and meanings.

Examples:
  sallyport setting set idle-timeout=3600
  sallyport setting set auth-methods=mschapv2,chap-md5 store-chap-secrets=true
  sallyport setting set ike-proposals=aes256-sha256-modp2048,aes256-sha1-ecp384")]
    Set {
        /// Settings and their new values; lists are separated by commas, times are in seconds. One may be written KEY VALUE.
        #[arg(required = true, value_name = "KEY=VALUE")]
        assignments: Vec<String>,
    },
}

/// Reads `KEY=VALUE ...`, or `KEY VALUE`.
fn assignments(texts: &[String]) -> Result<Vec<(Key, String)>> {
    let parsed = match texts {
        [key, value] if !key.contains('=') => assignment(&format!("{key}={value}")).map(|one| vec![one]),
        _ => texts.iter().map(|text| assignment(text)).collect(),
    };
    parsed.map_err(Error::usage)
}

fn assignment(text: &str) -> std::result::Result<(Key, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    let key = Key::from_str(key.trim(), false).map_err(|_| {
        let keys: Vec<String> = Key::value_variants().iter().map(|key| key.name()).collect();
        format!("`{key}` is no setting; they are {}", keys.join(", "))
    })?;
    Ok((key, value.trim().to_owned()))
}

/// A setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Key {
    /// Authentication protocols in the order in which they are offered: mschapv2, chap-md5, pap.
    AuthMethods,
    /// Keep passwords set from now on in a form that CHAP-MD5 can be checked with: true, false.
    StoreChapSecrets,
    /// IKE proposals, preferred first, such as aes256-sha256-modp2048; empty is the gateway's default.
    IkeProposals,
    /// ESP proposals, preferred first, such as aes256gcm16; empty is the gateway's default.
    EspProposals,
    /// Longest life of an ISAKMP SA; 0 is the gateway's default.
    IkeLifetime,
    /// Longest life of an ESP SA; 0 is the gateway's default.
    EspLifetime,
    /// Silence after which a peer is asked for a life sign; 0 is the gateway's default.
    DpdDelay,
    /// Silence after which a peer is given up; 0 is the gateway's default.
    DpdTimeout,
    /// Largest PPP frame that gateways ask for, bytes; 0 is the gateway's default.
    Mru,
    /// Interval of LCP echo requests; 0 is the gateway's default.
    EchoInterval,
    /// Unanswered LCP echo requests after which a link is down; 0 is the gateway's default.
    EchoFailures,
    /// Hang up after this time without traffic; 0 is never.
    IdleTimeout,
    /// Hang up after this time in any case; 0 is never.
    SessionTimeout,
    /// Most sessions of one user at a time; 0 is no limit.
    MaxSessionsPerUser,
    /// Wrong passwords of a user from one address until the user waits there; ten times, at the gateway; 0 is never.
    LockoutFailures,
    /// How long they count and the user waits, after the last of them or until `user unlock`.
    LockoutTime,
    /// Attempts kept for the audit, the newest: 1 to 1000000.
    AuditKeep,
    /// Keep the level of the cluster as it is, so that controllers can go back to the version before: true, false.
    HoldUpgrade,
    /// How long a gateway that hears of no revocations lets in machines that it knows, at least 30; 0 is 600.
    MaxStale,
    /// Whether it ends all its sessions then: true, false.
    FailClosed,
    /// Whether machines can enroll by SCEP, too, with the token as the challenge password: true, false.
    Scep,
    /// Whether SCEP takes requests in single DES, which anybody on the way can open: true, false.
    ScepSingleDes,
    /// Names and addresses under which clients reach the service, such as vpn.example.com: gateways enroll for them; empty leaves each its own.
    PublicNames,
    /// Name, or NAME:PORT, in the addresses of revocation lists and OCSP in certificates; empty is the name of a gateway, `none` no addresses.
    PublicationName,
    /// Whether revocation lists have delta lists beside them, with what changed within two days: true, false.
    DeltaCrl,
}

impl Key {
    fn name(self) -> String {
        self.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
    }

    fn meaning(self) -> String {
        self.to_possible_value().and_then(|v| v.get_help().map(ToString::to_string)).unwrap_or_default()
    }

    fn value(self, settings: &Settings) -> String {
        let (ike, ppp) = (settings.ike.clone().unwrap_or_default(), settings.ppp.unwrap_or_default());
        match self {
            Self::AuthMethods => settings.auth_methods().map(names::auth_method).collect::<Vec<_>>().join(","),
            Self::StoreChapSecrets => settings.store_chap_secrets.to_string(),
            Self::IkeProposals => ike.ike_proposals.join(","),
            Self::EspProposals => ike.esp_proposals.join(","),
            Self::IkeLifetime => ike.ike_lifetime_s.to_string(),
            Self::EspLifetime => ike.esp_lifetime_s.to_string(),
            Self::DpdDelay => ike.dpd_delay_s.to_string(),
            Self::DpdTimeout => ike.dpd_timeout_s.to_string(),
            Self::Mru => ppp.mru.to_string(),
            Self::EchoInterval => ppp.echo_interval_s.to_string(),
            Self::EchoFailures => ppp.echo_failures.to_string(),
            Self::IdleTimeout => settings.idle_timeout_s.to_string(),
            Self::SessionTimeout => settings.session_timeout_s.to_string(),
            Self::MaxSessionsPerUser => settings.max_sessions_per_user.to_string(),
            Self::LockoutFailures => settings.lockout_failures.to_string(),
            Self::LockoutTime => settings.lockout_s.to_string(),
            Self::AuditKeep => settings.audit_keep.to_string(),
            Self::HoldUpgrade => settings.hold_upgrade.to_string(),
            Self::MaxStale => settings.max_stale_s.to_string(),
            Self::FailClosed => settings.fail_closed.to_string(),
            Self::Scep => settings.scep.to_string(),
            Self::ScepSingleDes => settings.scep_single_des.to_string(),
            Self::PublicNames => settings.public_names.join(","),
            Self::PublicationName => settings.publication_name.clone(),
            Self::DeltaCrl => settings.delta_crl.to_string(),
        }
    }

    fn set(self, settings: &mut Settings, value: &str) -> Result {
        let wrong = |allowed: &str| Error::usage(format!("`{value}` is no value of {}", self.name())).remedy(allowed);
        let number = || value.parse::<u32>().map_err(|_| wrong("write a number"));
        let switch = || value.parse::<bool>().map_err(|_| wrong("write true or false"));
        let list = || value.split(',').map(|v| v.trim().to_owned()).filter(|v| !v.is_empty()).collect::<Vec<_>>();
        match self {
            Self::AuthMethods => {
                let methods: Option<Vec<AuthMethod>> = list().iter().map(|m| auth_method(m)).collect();
                let methods = methods.filter(|m| !m.is_empty());
                let methods =
                    methods.ok_or_else(|| wrong("allowed are mschapv2, chap-md5 and pap, separated by commas"))?;
                settings.auth_methods = methods.into_iter().map(i32::from).collect();
            }
            Self::StoreChapSecrets => {
                settings.store_chap_secrets = switch()?;
            }
            Self::IkeProposals => settings.ike.get_or_insert_default().ike_proposals = list(),
            Self::EspProposals => settings.ike.get_or_insert_default().esp_proposals = list(),
            Self::IkeLifetime => settings.ike.get_or_insert_default().ike_lifetime_s = number()?,
            Self::EspLifetime => settings.ike.get_or_insert_default().esp_lifetime_s = number()?,
            Self::DpdDelay => settings.ike.get_or_insert_default().dpd_delay_s = number()?,
            Self::DpdTimeout => settings.ike.get_or_insert_default().dpd_timeout_s = number()?,
            Self::Mru => settings.ppp.get_or_insert_default().mru = number()?,
            Self::EchoInterval => settings.ppp.get_or_insert_default().echo_interval_s = number()?,
            Self::EchoFailures => settings.ppp.get_or_insert_default().echo_failures = number()?,
            Self::IdleTimeout => settings.idle_timeout_s = number()?,
            Self::SessionTimeout => settings.session_timeout_s = number()?,
            Self::MaxSessionsPerUser => settings.max_sessions_per_user = number()?,
            Self::LockoutFailures => settings.lockout_failures = number()?,
            Self::LockoutTime => settings.lockout_s = number()?,
            Self::AuditKeep => settings.audit_keep = number()?,
            Self::HoldUpgrade => settings.hold_upgrade = switch()?,
            Self::MaxStale => settings.max_stale_s = number()?,
            Self::FailClosed => settings.fail_closed = switch()?,
            Self::Scep => settings.scep = switch()?,
            Self::ScepSingleDes => settings.scep_single_des = switch()?,
            Self::PublicNames => settings.public_names = list(),
            Self::PublicationName => settings.publication_name = value.to_owned(),
            Self::DeltaCrl => settings.delta_crl = switch()?,
        }
        Ok(())
    }
}

fn auth_method(name: &str) -> Option<AuthMethod> {
    [AuthMethod::Mschapv2, AuthMethod::ChapMd5, AuthMethod::Pap].into_iter().find(|m| names::auth_method(*m) == name)
}

#[derive(Serialize)]
struct Row {
    setting: String,
    value: String,
    meaning: String,
}

impl Row {
    fn new(key: Key, settings: &Settings) -> Self {
        Self { setting: key.name(), value: key.value(settings), meaning: key.meaning() }
    }
}

impl Record for Row {
    const COLUMNS: &'static [Column] = &[Column::left("SETTING"), Column::left("VALUE"), Column::left("MEANING")];

    fn cells(&self) -> Vec<String> {
        vec![self.setting.clone(), self.value.clone(), self.meaning.clone()]
    }
}

/// Runs the command.
pub(crate) async fn run(command: Command, global: &Global) -> Result {
    let changes = match &command {
        Command::Show => Vec::new(),
        Command::Set { assignments: texts } => assignments(texts)?,
    };
    let mut context = Context::open(global).await?;
    let client = &mut context.connection.client;
    let response = client.get_settings(GetSettingsRequest {}).await.map_err(refused)?;
    let mut settings = response.into_inner().settings.unwrap_or_default();
    match command {
        Command::Show => {
            let rows: Vec<Row> = Key::value_variants().iter().map(|key| Row::new(*key, &settings)).collect();
            context.printer.list(&rows, "")
        }
        Command::Set { .. } => {
            for (key, value) in &changes {
                key.set(&mut settings, value)?;
            }
            let request = UpdateSettingsRequest { settings: Some(settings) };
            let settings = client.update_settings(request).await.map_err(refused)?.into_inner().settings;
            let settings = settings.unwrap_or_default();
            let rows: Vec<Row> = changes.iter().map(|(key, _)| Row::new(*key, &settings)).collect();
            let text: Vec<String> = rows
                .iter()
                .map(|row| {
                    format!("{} is now {}", row.setting, if row.value.is_empty() { "the default" } else { &row.value })
                })
                .collect();
            context.printer.one(&rows, &text.join("\n"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_shows_what_was_set() {
        for key in Key::value_variants() {
            let mut settings = Settings::default();
            let value = match key {
                Key::AuthMethods => "mschapv2,pap",
                Key::StoreChapSecrets
                | Key::HoldUpgrade
                | Key::FailClosed
                | Key::Scep
                | Key::ScepSingleDes
                | Key::DeltaCrl => "true",
                Key::IkeProposals => "aes256-sha256-modp2048,3des-sha1-modp1024",
                Key::EspProposals => "aes256gcm16",
                Key::PublicNames => "vpn.example.com,192.0.2.1",
                Key::PublicationName => "vpn.example.com:8080",
                _ => "1234",
            };
            key.set(&mut settings, value).unwrap();
            assert_eq!(key.value(&settings), value, "{key:?}");
            assert!(!key.meaning().is_empty(), "{key:?}");
        }
    }

    #[test]
    fn an_assignment_is_a_known_key_and_a_value() {
        assert_eq!(assignment("idle-timeout=5"), Ok((Key::IdleTimeout, "5".to_owned())));
        assert_eq!(assignment("ike-proposals="), Ok((Key::IkeProposals, String::new())));
        assert!(assignment("idle-timeout").unwrap_err().contains("KEY=VALUE"));
        let words = |text: &str| {
            assignments(&text.split(' ').map(str::to_owned).collect::<Vec<_>>()).map_err(|e| e.to_string())
        };
        assert_eq!(words("idle-timeout 5"), Ok(vec![(Key::IdleTimeout, "5".to_owned())]));
        assert_eq!(words("idle-timeout=5 mru=1300").map(|all| all.len()), Ok(2));
        assert!(words("idle-timeout 5 mru=1300").is_err());
        assert!(assignment("idle=5").unwrap_err().contains("idle-timeout, session-timeout"));
    }

    #[test]
    fn a_wrong_value_says_what_is_allowed() {
        let mut settings = Settings::default();
        for (key, value, allowed) in [
            (Key::AuthMethods, "mschapv1", "mschapv2, chap-md5 and pap"),
            (Key::AuthMethods, "", "mschapv2, chap-md5 and pap"),
            (Key::StoreChapSecrets, "yes", "true or false"),
            (Key::IdleTimeout, "1h", "number"),
        ] {
            let error = key.set(&mut settings, value).unwrap_err().to_string();
            assert!(error.contains(allowed), "{error}");
        }
        assert_eq!(settings, Settings::default());
    }

    fn sources(dir: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }

    #[test]
    fn each_setting_that_a_remedy_names_exists() {
        let workspace = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut files = vec![workspace.join("README.md"), workspace.join("deploy/README.md")];
        for part in ["controller/src", "gateway/src", "gateway/ike/src", "gateway/l2tp/src", "gateway/ppp/src"] {
            sources(&workspace.join(part), &mut files);
        }
        let mut named = 0;
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            for rest in text.split("sallyport setting set ").skip(1) {
                // KEY=VALUE, as many as there are.
                for word in rest.split_whitespace().map_while(|word| word.split_once('=')) {
                    assert!(Key::from_str(word.0, false).is_ok(), "{} names the setting {}", file.display(), word.0);
                    named += 1;
                }
            }
        }
        assert!(named >= 6, "{named}");
    }
}
