//! `sallyport cert revoke` and `cert release`: certificates by serial number, machine or holder, and how far the gateways are.

use std::time::Duration;

use clap::{Args, ValueEnum};
use sallyport_proto::v1::{
    self, GatewayRevocation, GetRevocationRequest, ReleaseCertificatesRequest, RevocationChange, RevocationReason,
    RevocationState, RevokeCertificatesRequest,
};
use serde::Serialize;

use super::cert::Row as Certificate;
use super::{Context, refused};
use crate::cli::Global;
use crate::error::{Error, Result};
use crate::output::{Column, Record, Table};

/// How long one question about the gateways waits for them, milliseconds.
const WAIT_MS: u32 = 2_000;
/// No gateway is waited for longer than its lease, five seconds; this is for controllers that change meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which certificates.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// Serial number, as `cert list` shows it; the machine's other certificate goes with it.
    serial: Option<String>,
    /// All certificates of this machine.
    #[arg(long, value_name = "NAME")]
    machine: Option<String>,
    /// All certificates of the machines of this holder.
    #[arg(long, value_name = "NAME")]
    holder: Option<String>,
}

/// What to revoke and why.
#[derive(Debug, Args)]
pub(crate) struct Revoke {
    #[command(flatten)]
    which: Which,
    /// Why, as lists and OCSP say it.
    #[arg(long, value_enum, default_value_t)]
    reason: Reason,
    /// Why in words, for the records.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    note: String,
    /// For the time being: `cert release` makes it good again. The same as --reason certificate-hold.
    #[arg(long, conflicts_with = "reason")]
    hold: bool,
    /// Return when each gateway has ended the tunnels and said so, or its lease has lapsed; the exit code is 1 if one has not.
    #[arg(long)]
    wait: bool,
}

/// What to release.
#[derive(Debug, Args)]
pub(crate) struct Release {
    #[command(flatten)]
    which: Which,
    /// Return when each gateway knows, or its lease has lapsed; the exit code is 1 if one does not.
    #[arg(long)]
    wait: bool,
}

/// A reason of RFC 5280 §5.3.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reason {
    /// Nobody said why.
    #[default]
    Unspecified,
    /// The machine or its key is, or may be, in other hands.
    KeyCompromise,
    /// The key of the authority is.
    CaCompromise,
    /// The holder has another name or place.
    AffiliationChanged,
    /// Another certificate has taken its place.
    Superseded,
    /// The machine is not in use any more.
    CessationOfOperation,
    /// For the time being.
    CertificateHold,
    /// The holder may not do any more what it was for.
    PrivilegeWithdrawn,
}

impl From<Reason> for RevocationReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Unspecified => Self::Unspecified,
            Reason::KeyCompromise => Self::KeyCompromise,
            Reason::CaCompromise => Self::CaCompromise,
            Reason::AffiliationChanged => Self::AffiliationChanged,
            Reason::Superseded => Self::Superseded,
            Reason::CessationOfOperation => Self::CessationOfOperation,
            Reason::CertificateHold => Self::CertificateHold,
            Reason::PrivilegeWithdrawn => Self::PrivilegeWithdrawn,
        }
    }
}

impl Which {
    /// As other tools print a serial number: upper case, or in pairs with colons.
    fn serial(text: &str) -> Result<String> {
        let serial: String = text.to_ascii_lowercase().chars().filter(|c| *c != ':').collect();
        if serial.is_empty() || !serial.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(Error::usage(format!("{text:?} is no serial number")).remedy(format!(
                "a machine is named with --machine {text}; serial numbers are in `sallyport cert list`"
            )));
        }
        Ok(serial)
    }

    fn text(&self) -> String {
        match (&self.serial, &self.machine, &self.holder) {
            (Some(serial), ..) => format!("certificate {serial}"),
            (_, Some(machine), _) => format!("machine {machine}"),
            (.., holder) => format!("holder {}", holder.as_deref().unwrap_or_default()),
        }
    }
}

#[derive(Serialize)]
struct Gateway {
    gateway: String,
    state: &'static str,
    /// Milliseconds from the revocation to its acknowledgement.
    after_ms: Option<u64>,
    tunnels_closed: u32,
    #[serde(skip)]
    keeps_set: bool,
}

impl From<GatewayRevocation> for Gateway {
    fn from(gateway: GatewayRevocation) -> Self {
        let acknowledged = gateway.state() == RevocationState::Acknowledged;
        Self {
            state: match gateway.state() {
                RevocationState::Unspecified => "",
                RevocationState::Waiting => "waiting",
                RevocationState::Acknowledged => "acknowledged",
                RevocationState::Lapsed => "lapsed",
            },
            after_ms: acknowledged.then_some(gateway.after_ms),
            tunnels_closed: gateway.tunnels,
            keeps_set: gateway.keeps_set,
            gateway: gateway.gateway,
        }
    }
}

impl Record for Gateway {
    const COLUMNS: &'static [Column] =
        &[Column::left("GATEWAY"), Column::left("STATE"), Column::right("AFTER"), Column::right("TUNNELS CLOSED")];

    fn cells(&self) -> Vec<String> {
        let state = match (self.state, self.keeps_set) {
            ("lapsed", true) => "lapsed: it is cut off",
            ("lapsed", false) => "lapsed: cut off, or older software",
            (state, _) => state,
        };
        let after = self.after_ms.map(|ms| format!("{ms} ms")).unwrap_or_default();
        vec![self.gateway.clone(), state.into(), after, self.tunnels_closed.to_string()]
    }
}

/// What gateways said, as far as they were waited for.
struct Waited {
    gateways: Vec<Gateway>,
    done: bool,
}

impl Waited {
    fn table(&self) -> String {
        if self.gateways.is_empty() {
            return "no gateway runs\n".into();
        }
        let mut table = Table::new(Gateway::COLUMNS);
        self.gateways.iter().for_each(|gateway| table.row(gateway.cells()));
        table.render()
    }

    fn behind(&self) -> Result {
        let behind: Vec<&str> =
            self.gateways.iter().filter(|g| g.after_ms.is_none()).map(|g| g.gateway.as_str()).collect();
        if behind.is_empty() && self.done {
            return Ok(());
        }
        Err(Error::failed(format!("not acknowledged by {}", behind.join(", "))).remedy(
            "such a gateway does it when it hears of it; until then `sallyport gateway list` says how old what it knows is, and the \
             settings max-stale and fail-closed what it does meanwhile",
        ))
    }
}

async fn wait(context: &mut Context, change: RevocationChange) -> Result<Waited> {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let request = GetRevocationRequest { revocation: Some(change), wait_ms: WAIT_MS };
        let answer = context.connection.client.get_revocation(request).await.map_err(refused)?.into_inner();
        let over = tokio::time::Instant::now() >= end;
        if answer.done || over {
            let gateways = answer.gateways.into_iter().map(Gateway::from).collect();
            return Ok(Waited { gateways, done: answer.done });
        }
    }
}

#[derive(Serialize)]
struct Changed {
    certificates: Vec<Certificate>,
    ended_sessions: u32,
    tokens: u32,
    requests: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateways: Option<Vec<Gateway>>,
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

impl Changed {
    fn text(&self, verb: &str, which: &Which) -> String {
        let mut text = String::new();
        for row in &self.certificates {
            text += &format!("{verb} the {} certificate of {} (serial {})\n", row.profile, row.name, row.serial);
        }
        if self.certificates.is_empty() {
            text += &format!("{}: no certificate was left to change\n", which.text());
        }
        let taken = [(self.tokens, "token"), (self.requests, "approved request")];
        for (n, what) in taken.into_iter().filter(|(n, _)| *n > 0) {
            text += &format!("took back {}\n", count(n as usize, what));
        }
        if self.ended_sessions > 0 {
            text += &format!("ended {}\n", count(self.ended_sessions as usize, "session"));
        }
        text
    }
}

impl Revoke {
    /// Revokes, and waits for the gateways if it shall.
    pub(crate) async fn run(self, global: &Global) -> Result {
        use v1::revoke_certificates_request::Which as Wanted;
        let mut context = Context::open(global).await?;
        let Which { serial, machine, holder } = &self.which;
        let reason = if self.hold { Reason::CertificateHold } else { self.reason };
        let which = match (serial, machine, holder) {
            (Some(serial), ..) => Wanted::Serial(Which::serial(serial)?),
            (_, Some(machine), _) => Wanted::Machine(machine.clone()),
            (.., holder) => Wanted::Holder(holder.clone().unwrap_or_default()),
        };
        let request = RevokeCertificatesRequest {
            which: Some(which),
            reason: RevocationReason::from(reason).into(),
            text: self.note.clone(),
        };
        let answer = context.connection.client.revoke_certificates(request).await.map_err(refused)?.into_inner();
        let waited = match self.wait {
            true => Some(wait(&mut context, answer.revocation.unwrap_or_default()).await?),
            false => None,
        };
        let verb = if reason == Reason::CertificateHold { "put on hold" } else { "revoked" };
        let changed = Changed {
            certificates: answer.certificates.into_iter().map(Certificate::from).collect(),
            ended_sessions: answer.ended_sessions,
            tokens: answer.tokens,
            requests: answer.requests,
            gateways: None,
        };
        finish(&context, changed, verb, &self.which, waited)
    }
}

impl Release {
    /// Releases, and waits for the gateways if it shall.
    pub(crate) async fn run(self, global: &Global) -> Result {
        use v1::release_certificates_request::Which as Wanted;
        let mut context = Context::open(global).await?;
        let Which { serial, machine, holder } = &self.which;
        let which = match (serial, machine, holder) {
            (Some(serial), ..) => Wanted::Serial(Which::serial(serial)?),
            (_, Some(machine), _) => Wanted::Machine(machine.clone()),
            (.., holder) => Wanted::Holder(holder.clone().unwrap_or_default()),
        };
        let request = ReleaseCertificatesRequest { which: Some(which) };
        let answer = context.connection.client.release_certificates(request).await.map_err(refused)?.into_inner();
        let waited = match self.wait {
            true => Some(wait(&mut context, answer.revocation.unwrap_or_default()).await?),
            false => None,
        };
        let certificates = answer.certificates.into_iter().map(Certificate::from).collect();
        let changed = Changed { certificates, ended_sessions: 0, tokens: 0, requests: 0, gateways: None };
        finish(&context, changed, "released", &self.which, waited)
    }
}

/// Prints what was done, and fails if a gateway has not followed.
fn finish(context: &Context, mut changed: Changed, verb: &str, which: &Which, waited: Option<Waited>) -> Result {
    let mut text = changed.text(verb, which);
    let Some(mut waited) = waited else { return context.printer.one(&changed, &text) };
    text += "\n";
    text += &waited.table();
    let behind = waited.behind();
    changed.gateways = Some(std::mem::take(&mut waited.gateways));
    context.printer.one(&changed, &text)?;
    behind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_the_name_under_which_it_is_typed() {
        for reason in Reason::value_variants() {
            let typed = reason.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default();
            assert_eq!(super::super::names::revocation_reason(RevocationReason::from(*reason)), typed);
        }
    }

    #[test]
    fn a_name_is_no_serial_number_and_the_option_for_names_is_said() {
        assert_eq!(Which::serial("01:AB:cd").expect("one"), "01abcd");
        for name in ["laptop7.example.com", "", ":"] {
            let error = Which::serial(name).expect_err(name);
            assert!(error.to_string().contains("no serial number"), "{error}");
        }
        let error = Which::serial("laptop7").expect_err("a name");
        assert!(format!("{error:?}").contains("--machine laptop7"), "{error:?}");
    }

    #[test]
    fn what_is_waited_for_is_shown_and_whoever_is_behind_is_named() {
        let gateway = |name: &str, state: RevocationState, keeps_set| GatewayRevocation {
            gateway: name.into(),
            state: state.into(),
            after_ms: 42,
            tunnels: 2,
            last_seen_unix_ms: 0,
            keeps_set,
        };
        let waited = |gateways: Vec<GatewayRevocation>| Waited {
            gateways: gateways.into_iter().map(Gateway::from).collect(),
            done: true,
        };
        let all = waited(vec![gateway("gw1", RevocationState::Acknowledged, true)]);
        assert!(all.behind().is_ok());
        let table = all.table();
        assert!(table.contains("gw1") && table.contains("acknowledged") && table.contains("42 ms"), "{table}");
        let lapsed = [gateway("gw2", RevocationState::Lapsed, true), gateway("gw3", RevocationState::Lapsed, false)];
        let some = waited([vec![gateway("gw1", RevocationState::Acknowledged, true)], lapsed.to_vec()].concat());
        let error = some.behind().expect_err("two are behind").to_string();
        assert!(error.contains("gw2, gw3") && !error.contains("gw1") && error.contains("max-stale"), "{error}");
        assert!(some.table().contains("cut off, or older software"));
    }
}
