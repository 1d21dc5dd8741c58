//! `sallyport attempt`: the audit of who tried to connect, and of why sessions ended. The client shows a number; this says what it means.

use std::time::Duration;

use clap::{Args, Subcommand};
use sallyport_proto::v1::{Attempt, ListAttemptsRequest};
use serde::Serialize;

use super::{Context, names, refused, unix};
use crate::cli::Global;
use crate::clock::unix_now;
use crate::duration::{parse_duration, show_seconds};
use crate::error::Result;
use crate::output::{Column, Printer, Record, rfc3339};

/// Records asked for in one call; the contract allows 1,000.
const PAGE: u32 = 500;

/// What to do with attempts.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List attempts, newest first.
    #[command(
        alias = "ls",
        after_help = "\
Examples:
  sallyport attempt list --failed                    what goes wrong today
  sallyport attempt list --user ada --since 1h       what became of Ada's last tries
  sallyport attempt list --remote 203.0.113.7        what one address did
  sallyport attempt list --machine laptop7 -o json   everything there is to know"
    )]
    List(List),
}

/// Which attempts.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only of this user.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Only from this address, or address and port.
    #[arg(long, value_name = "ADDRESS")]
    remote: Option<String>,
    /// Only where the machine's name or the identity it claimed contains this.
    #[arg(long, value_name = "TEXT")]
    machine: Option<String>,
    /// Only those that did not lead to a session, and sessions that broke off.
    #[arg(long)]
    failed: bool,
    /// Only those of the last 90s, 15m, 2h or 7d.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    since: Option<Duration>,
    /// Most records to print.
    #[arg(long, default_value_t = 50, value_name = "NUMBER")]
    limit: u32,
}

#[derive(Serialize)]
struct Row {
    id: String,
    time: String,
    outcome: &'static str,
    phase: &'static str,
    user: String,
    machine: String,
    machine_auth: &'static str,
    certificate_serial: String,
    claimed_identity: String,
    remote: String,
    gateway: String,
    session: String,
    client_error: u32,
    end_reason: &'static str,
    up_s: u64,
    /// What was wrong with a certificate that verifies: forged, revoked, unknown.
    certificate: &'static str,
    cause: String,
    remedy: String,
}

impl From<Attempt> for Row {
    fn from(attempt: Attempt) -> Self {
        let (phase, outcome) = (names::phase(attempt.phase()), names::outcome(attempt.outcome()));
        let end = attempt.end_reason();
        let certificate = names::certificate_verdict(attempt.certificate_verdict());
        let machine = attempt.machine.unwrap_or_default();
        Self {
            id: crate::hex::lower(&attempt.id),
            time: rfc3339(unix(attempt.time_unix_ms)),
            outcome,
            phase,
            user: attempt.user,
            machine_auth: names::machine_auth(machine.auth()),
            machine: machine.name,
            certificate_serial: machine.certificate_serial,
            claimed_identity: attempt.claimed_identity,
            remote: attempt.remote,
            gateway: attempt.gateway,
            session: attempt.session_id,
            client_error: attempt.client_error,
            end_reason: names::end_reason(end),
            up_s: attempt.up_s,
            certificate,
            cause: attempt.cause,
            remedy: attempt.remedy,
        }
    }
}

impl Record for Row {
    const COLUMNS: &'static [Column] = &[
        Column::left("TIME"),
        Column::left("OUTCOME"),
        Column::left("PHASE"),
        Column::left("USER"),
        Column::left("MACHINE"),
        Column::left("REMOTE"),
        Column::right("CLIENT ERROR"),
        Column::left("CAUSE AND REMEDY"),
    ];

    fn cells(&self) -> Vec<String> {
        // What a machine proved comes before what it claimed; a claim is shown as one.
        let machine = match (self.machine.is_empty(), self.claimed_identity.is_empty()) {
            (false, _) => self.machine.clone(),
            (true, false) => format!("({}?)", self.claimed_identity),
            (true, true) => String::new(),
        };
        let ended = (!self.end_reason.is_empty()).then(|| {
            let why = if self.cause.is_empty() { self.end_reason } else { &self.cause };
            format!("after {}: {why}", show_seconds(self.up_s))
        });
        let why = match (self.cause.is_empty(), self.remedy.is_empty()) {
            (_, true) => self.cause.clone(),
            (true, false) => self.remedy.clone(),
            (false, false) => format!("{}: {}", self.cause.trim_end_matches('.'), self.remedy),
        };
        let error = if self.client_error == 0 { String::new() } else { self.client_error.to_string() };
        vec![
            self.time.clone(),
            self.outcome.into(),
            self.phase.into(),
            self.user.clone(),
            machine,
            self.remote.clone(),
            error,
            ended.unwrap_or(why),
        ]
    }
}

/// Runs the command.
pub(crate) async fn run(command: Command, global: &Global) -> Result {
    let Command::List(list) = command;
    let mut context = Context::open(global).await?;
    let since = list.since.map_or(0, |since| {
        let now = u64::try_from(unix_now().0).unwrap_or(0);
        now.saturating_sub(since.as_secs()).saturating_mul(1000)
    });
    let limit = list.limit as usize;
    let (mut rows, mut page_token) = (Vec::new(), String::new());
    while rows.len() < limit {
        let request = ListAttemptsRequest {
            limit: PAGE.min(u32::try_from(limit - rows.len()).unwrap_or(PAGE)),
            user: list.user.clone().unwrap_or_default(),
            remote: list.remote.clone().unwrap_or_default(),
            identity: list.machine.clone().unwrap_or_default(),
            since_unix_ms: since,
            failed_only: list.failed,
            page_token,
        };
        let response = context.connection.client.list_attempts(request).await.map_err(refused)?.into_inner();
        rows.extend(response.attempts.into_iter().map(Row::from));
        page_token = response.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    context.printer.list(&rows, NONE)
}

/// The text that `attempt list` prints.
pub(crate) fn render(printer: Printer, attempts: Vec<Attempt>) -> String {
    printer.render_list(&attempts.into_iter().map(Row::from).collect::<Vec<_>>(), NONE)
}

const NONE: &str = "no attempts";

#[cfg(test)]
mod tests {
    use sallyport_proto::v1::{EndReason, MachineIdentity, Outcome, Phase};

    use super::*;

    #[test]
    fn the_end_of_a_session_shows_how_long_it_was_up_and_why_it_ended() {
        let ended = |cause: &str| {
            Row::from(Attempt {
                outcome: Outcome::Ended.into(),
                end_reason: EndReason::PeerSilent.into(),
                up_s: 3_599,
                cause: cause.into(),
                ..Default::default()
            })
            .cells()
        };
        assert_eq!(ended("no answer")[1], "ended");
        assert_eq!(ended("no answer")[7], "after 59m 59s: no answer");
        assert_eq!(ended("")[7], "after 59m 59s: peer-silent");
    }

    #[test]
    fn a_refusal_shows_its_cause_and_remedy_and_a_claim_as_a_claim() {
        let row = Row::from(Attempt {
            outcome: Outcome::Refused.into(),
            phase: Phase::IkeMainMode.into(),
            claimed_identity: "CN=laptop7".into(),
            cause: "the certificate expired.".into(),
            remedy: "issue a new one".into(),
            client_error: 789,
            ..Default::default()
        });
        let cells = row.cells();
        assert_eq!(cells[1..3], ["refused", "ike-main-mode"]);
        assert_eq!(cells[4], "(CN=laptop7?)");
        assert_eq!(cells[6..], ["789", "the certificate expired: issue a new one"]);
    }

    #[test]
    fn a_proven_name_comes_before_a_claim() {
        let machine = Some(MachineIdentity { name: "laptop7".into(), ..Default::default() });
        let row = Row::from(Attempt { machine, claimed_identity: "x".into(), ..Default::default() });
        assert_eq!(row.cells()[4], "laptop7");
    }
}
