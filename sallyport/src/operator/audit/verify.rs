//! `sallyport audit verify`.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use sallyport_ca::merkle::{Answer, Followed, Follower, Frontier, REMEDY, SignedTreeHead, Wrong, head_keys};
use sallyport_proto::v1::{GetLogResponse, ReadLogRequest};
use serde::Serialize;

use super::folder::{Folder, head_in, roots_in};
use super::{PAGE, answer_of, file, follow, look};
use crate::cli::Global;
use crate::error::{Error, Result};
use crate::operator::backup::Meter;
use crate::operator::{Context, refused, unix};
use crate::output::{Printer, rfc3339};

/// What to verify, and against what.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A signed head that was kept elsewhere, in hexadecimal digits; otherwise the one in the operator's folder.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "file")]
    from: Option<PathBuf>,
    /// Read every entry and make the whole tree again.
    #[arg(long, conflicts_with = "file")]
    full: bool,
    /// Verify what `sallyport audit export` wrote, without a controller.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// The root's certificate, PEM, for --file; otherwise that in the operator's folder.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "file")]
    root: Option<PathBuf>,
}

/// A gateway as a witness.
#[derive(Serialize)]
pub(super) struct WitnessRow {
    gateway: String,
    entries: u64,
    seen: String,
    pub(super) alarm: String,
    /// It reported a head that no authority of this cluster has signed: that says nothing of the log, and something of the gateway.
    pub(super) unsigned: bool,
    #[serde(skip)]
    pub(super) head: Option<SignedTreeHead>,
}

#[derive(Serialize)]
struct Report {
    entries: u64,
    root_hash: String,
    time: String,
    signed_by: String,
    known_before: Option<u64>,
    outcome: &'static str,
    every_entry: bool,
    witnesses: Vec<WitnessRow>,
}

/// What the gateways hold, judged here: the controllers only carry it.
pub(super) fn judge_witnesses(response: &GetLogResponse, folder: &Folder) -> Vec<WitnessRow> {
    let (log, head) = answer_of(response);
    let keys = head_keys(folder.roots(), &log.issuers);
    let judge = |witness: &sallyport_proto::v1::LogWitness| {
        let held = SignedTreeHead::from_bytes(&witness.head).ok();
        let unsigned = held.as_ref().is_none_or(|held| held.verify(&keys).is_err());
        let mut follower = Follower::knowing(held.clone());
        let answer = Answer { head: &head, proof: &witness.proof, issuers: &log.issuers, accepted: &log.accepted };
        let found = match follower.follow(&answer, folder.roots()) {
            Followed::Wrong(wrong) if !unsigned => wrong.fault.to_string(),
            _ => String::new(),
        };
        WitnessRow {
            gateway: witness.gateway.clone(),
            entries: held.as_ref().map_or(0, |held| held.head.size),
            seen: rfc3339(unix(witness.seen_unix_ms)),
            alarm: found,
            unsigned,
            head: held,
        }
    };
    response.witnesses.iter().map(judge).collect()
}

/// Runs the command.
pub(super) async fn run(arguments: Arguments, global: &Global) -> Result {
    if let Some(path) = &arguments.file {
        let roots = match &arguments.root {
            Some(root) => roots_in(root)?,
            None => Folder::open(global)
                .map_err(|e| e.remedy("name the root's certificate: --root ca.pem"))?
                .roots()
                .to_vec(),
        };
        let mut meter = Meter::new("entries");
        let verified = file::verify(path, &roots, &mut |done, all| meter.count(done, all))?;
        drop(meter);
        let text = format!(
            "{}: {} entries from {} on, each as it was signed; root hash {}",
            path.display(),
            verified.entries,
            verified.from,
            verified.root_hash
        );
        return Printer::new(global.output).one(&verified, &text);
    }
    let folder = Folder::open(global)?;
    let known = match &arguments.from {
        Some(path) => Some(head_in(path)?),
        None => folder.known()?,
    };
    let mut context = Context::open(global).await?;
    let response = look(&mut context, known.as_ref()).await?;
    let mut follower = Follower::knowing(known.clone());
    let outcome = match follow(&mut follower, &response, &folder) {
        Followed::Nothing => return Err(Error::failed("the cluster has no audit log yet")),
        Followed::First => "first",
        Followed::Good(false) => "same",
        Followed::Good(true) => "grown",
        Followed::Replaced(_) => "replaced",
        Followed::Wrong(wrong) => return Err(alarm(&wrong, &folder, restored(&response))),
    };
    let head = follower.known().cloned().ok_or_else(|| Error::failed("the cluster has no audit log yet"))?;
    if arguments.full {
        read_all(&mut context, &head).await?;
    }
    if arguments.from.is_none() {
        folder.keep(Some(&head))?;
    }
    let witnesses = judge_witnesses(&response, &folder);
    let alarms: Vec<String> = witnesses
        .iter()
        .filter(|witness| !witness.alarm.is_empty())
        .map(|witness| format!("gateway {}: {}", witness.gateway, witness.alarm))
        .collect();
    let report = Report {
        entries: head.head.size,
        root_hash: crate::hex::lower(&head.head.root),
        time: rfc3339(unix(head.head.time_ms)),
        signed_by: crate::hex::lower(&head.head.key_id),
        known_before: known.map(|known| known.head.size),
        outcome,
        every_entry: arguments.full,
        witnesses,
    };
    context.printer.one(&report, &text(&report))?;
    match alarms.as_slice() {
        [] => Ok(()),
        _ => Err(Error::failed(alarms.join("; ")).remedy(REMEDY)),
    }
}

fn restored(response: &GetLogResponse) -> u64 {
    response.log.as_ref().map_or(0, |log| log.restored_unix_ms)
}

fn text(report: &Report) -> String {
    let mut lines = vec![format!(
        "the audit log has {} entries, the last of {}; root hash {}",
        report.entries, report.time, report.root_hash
    )];
    lines.push(match (report.outcome, report.known_before) {
        ("replaced", Some(before)) => {
            format!(
                "the {before} entries that were known here are of another log: an operator has said in this one why"
            )
        }
        (_, Some(before)) => format!("the {before} entries that were known here are among them, as they were"),
        (_, None) => "nothing was known of it here; from now on it is".into(),
    });
    if report.every_entry {
        lines.push("every entry was read: they are those that were signed".into());
    }
    for witness in report.witnesses.iter().filter(|witness| witness.unsigned) {
        lines.push(format!("gateway {} reported a head that nobody has signed: look at that gateway", witness.gateway));
    }
    let good = report.witnesses.iter().filter(|witness| witness.alarm.is_empty() && !witness.unsigned).count();
    lines.push(format!("{good} of {} gateways hold heads of this log", report.witnesses.len()));
    lines.join("\n")
}

/// The failure, with both heads kept as evidence.
fn alarm(wrong: &Wrong, folder: &Folder, restored_ms: u64) -> Error {
    let mut text = format!("{}", wrong.fault);
    if let Some(evidence) = &wrong.evidence {
        let (known, shown) = (evidence.known.head.summary(), evidence.shown.head.summary());
        text = format!("{text}: {known} was known here, {shown} is shown");
        match folder.keep_evidence(evidence.id(), &evidence.to_bytes()) {
            Ok(path) => text = format!("{text}; both signed heads are in {}", path.display()),
            Err(error) => tracing::warn!(cause = error.cause(), "the evidence could not be kept"),
        }
    }
    if restored_ms != 0 {
        text = format!(
            "{text}; the controllers say that they were restored from a backup on {}",
            rfc3339(unix(restored_ms))
        );
    }
    Error::failed(text).remedy(REMEDY)
}

/// Reads every entry, and makes the tree again.
async fn read_all(context: &mut Context, head: &SignedTreeHead) -> Result {
    let mut checker = file::Checker::after(Frontier::new());
    let (mut from, mut meter) = (0, Meter::new("entries"));
    while from < head.head.size {
        let limit = PAGE.min(u32::try_from(head.head.size - from).unwrap_or(PAGE));
        let request = ReadLogRequest { from, limit, before: false };
        let answer = context.connection.client.read_log(request).await.map_err(refused)?.into_inner();
        if answer.entries.is_empty() {
            break;
        }
        for entry in answer.entries.iter().take(limit as usize) {
            checker.add(entry)?;
            from += 1;
        }
        meter.count(from, head.head.size);
    }
    drop(meter);
    checker.end(head)
}
