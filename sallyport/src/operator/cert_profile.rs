//! `sallyport cert profile`: what an operator decides for all certificates of a kind.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use sallyport_proto::v1;
use serde::Serialize;

use super::cert::Key;
use super::{Context, names, refused};
use crate::cli::Global;
use crate::duration::{parse_duration, show_seconds};
use crate::error::{Error, Result};
use crate::output::{Column, Record};

/// What to do with certificate profiles.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the profiles.
    #[command(alias = "ls")]
    List,
    /// Show one in full.
    Show {
        /// Its name.
        name: String,
    },
    /// Change one. Certificates that are out stay as they are; what they are good for cannot be changed.
    #[command(after_help = "\
Examples:
  sallyport cert profile set machine --validity 30d --keys ecdsa-p256,rsa-2048
  sallyport cert profile set machine --methods token,renewal --names corp.example.com
  sallyport cert profile set gateway --validity 90d --names vpn.example.com --addresses false
  sallyport cert profile set operator --keys ecdsa-p256 --validity 30d

A profile is obeyed by every way to a certificate: enrollment, cert issue, controllers that join or renew.")]
    Set(Set),
}

/// A way to a certificate.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Method {
    /// By a token.
    Token,
    /// By the list of machines.
    List,
    /// An operator says yes.
    Approval,
    /// By the certificate that it has.
    Renewal,
    /// An operator has it made, key and all: cert issue.
    Operator,
}

impl From<Method> for v1::EnrollMethod {
    fn from(method: Method) -> Self {
        match method {
            Method::Token => Self::Token,
            Method::List => Self::List,
            Method::Approval => Self::Approval,
            Method::Renewal => Self::Renewal,
            Method::Operator => Self::Operator,
        }
    }
}

/// A change of a profile; what is not given stays.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Changes {
    /// How long a certificate lives: 12h, 30d, at most 398d.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    validity: Option<Duration>,
    /// Kinds of key that are certified.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND,...")]
    keys: Option<Vec<Key>>,
    /// The part of its life after which a machine that has not renewed is overdue, percent; machines renew from 67 to 83.
    #[arg(long, value_name = "PERCENT")]
    overdue_after: Option<u32>,
    /// How long after its end a certificate can still be renewed.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    late_renewal: Option<Duration>,
    /// Ways to a certificate: all that shall stay open.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WAY,...")]
    methods: Option<Vec<Method>>,
    /// Names must end in one of these; `any` lifts the bound.
    #[arg(long, value_delimiter = ',', value_name = "SUFFIX,...")]
    names: Option<Vec<String>>,
    /// Whether IP addresses may stand in it.
    #[arg(long, value_name = "BOOL")]
    addresses: Option<bool>,
    /// Whether the controllers make the key for machines that ask for it.
    #[arg(long, value_name = "BOOL")]
    server_keys: Option<bool>,
}

/// Which profile, and what to change.
#[derive(Debug, Args)]
pub(crate) struct Set {
    /// Its name.
    name: String,
    #[command(flatten)]
    changes: Changes,
}

#[derive(Serialize)]
struct Row {
    name: String,
    version: u64,
    validity_s: u64,
    max_validity_s: u64,
    keys: Vec<&'static str>,
    overdue_after_percent: u32,
    late_renewal_s: u64,
    methods: Vec<&'static str>,
    names: Vec<String>,
    addresses: bool,
    server_keys: bool,
    extended_key_usages: Vec<String>,
}

impl From<v1::Profile> for Row {
    fn from(profile: v1::Profile) -> Self {
        Self {
            keys: profile.keys().map(names::key_algorithm).collect(),
            methods: profile.methods().map(names::enroll_method).collect(),
            name: profile.name,
            version: profile.version,
            validity_s: profile.validity_s,
            max_validity_s: profile.max_validity_s,
            overdue_after_percent: profile.overdue_percent,
            late_renewal_s: profile.late_renewal_s,
            names: profile.name_suffixes,
            addresses: !profile.no_addresses,
            server_keys: profile.server_keys,
            extended_key_usages: profile.extended_key_usages,
        }
    }
}

impl Record for Row {
    const COLUMNS: &'static [Column] = &[
        Column::left("PROFILE"),
        Column::left("VALIDITY"),
        Column::left("OVERDUE AFTER"),
        Column::left("WAYS"),
        Column::left("NAMES"),
        Column::left("KEYS"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            show_seconds(self.validity_s),
            format!("{} %", self.overdue_after_percent),
            self.methods.join(","),
            if self.names.is_empty() { "any".into() } else { self.names.join(",") },
            self.keys.join(","),
        ]
    }
}

impl Row {
    fn text(&self) -> String {
        let joined = |list: &[&str]| if list.is_empty() { "none".to_owned() } else { list.join(", ") };
        let lines = [
            ("profile", format!("{} (version {})", self.name, self.version)),
            ("validity", format!("{} (at most {})", show_seconds(self.validity_s), show_seconds(self.max_validity_s))),
            ("keys", joined(&self.keys)),
            ("good for", self.extended_key_usages.join(", ")),
            ("overdue after", format!("{} % of its life", self.overdue_after_percent)),
            ("late renewal", format!("for {} after its end", show_seconds(self.late_renewal_s))),
            ("ways to it", joined(&self.methods)),
            ("names", if self.names.is_empty() { "any".into() } else { self.names.join(", ") }),
            ("addresses", if self.addresses { "may stand in it".into() } else { "none".into() }),
            ("keys by us", if self.server_keys { "yes, on request".into() } else { "no".into() }),
        ];
        lines.iter().map(|(what, value)| format!("{what:<14} {value}\n")).collect()
    }
}

/// Runs the command.
pub(crate) async fn run(command: Command, global: &Global) -> Result {
    let mut context = Context::open(global).await?;
    let client = &mut context.connection.client;
    let profiles = client.list_profiles(v1::ListProfilesRequest {}).await.map_err(refused)?.into_inner().profiles;
    let find = |name: &str| {
        let known = profiles.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ");
        let found = profiles.iter().find(|p| p.name == name).cloned();
        found.ok_or_else(|| Error::usage(format!("there is no profile {name:?}; there are {known}")))
    };
    match command {
        Command::List => {
            let rows: Vec<Row> = profiles.into_iter().map(Row::from).collect();
            context.printer.list(&rows, "no profiles")
        }
        Command::Show { name } => {
            let row = Row::from(find(&name)?);
            context.printer.one(&row, &row.text())
        }
        Command::Set(set) => {
            let profile = set.changes.apply(find(&set.name)?);
            let request = v1::SetProfileRequest { profile: Some(profile) };
            let row =
                Row::from(client.set_profile(request).await.map_err(refused)?.into_inner().profile.unwrap_or_default());
            context.printer.one(&row, &row.text())
        }
    }
}

impl Changes {
    fn apply(self, mut profile: v1::Profile) -> v1::Profile {
        if let Some(validity) = self.validity {
            profile.validity_s = validity.as_secs();
        }
        if let Some(keys) = self.keys {
            profile.keys = keys.into_iter().map(|key| v1::KeyAlgorithm::from(key).into()).collect();
        }
        if let Some(percent) = self.overdue_after {
            profile.overdue_percent = percent;
        }
        if let Some(late) = self.late_renewal {
            profile.late_renewal_s = late.as_secs();
        }
        if let Some(methods) = self.methods {
            profile.methods = methods.into_iter().map(|method| v1::EnrollMethod::from(method).into()).collect();
        }
        if let Some(names) = self.names {
            profile.name_suffixes = names.into_iter().filter(|name| name != "any").collect();
        }
        if let Some(addresses) = self.addresses {
            profile.no_addresses = !addresses;
        }
        if let Some(server_keys) = self.server_keys {
            profile.server_keys = server_keys;
        }
        profile
    }
}
