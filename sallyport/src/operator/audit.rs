//! `sallyport audit`: the log of what happened to certificates, keys and policy, which nobody can change unseen. Who tried to connect
//! is in `sallyport attempt`.

mod entry;
mod file;
mod folder;
mod verify;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use sallyport_ca::merkle::{Answer, Followed, Follower, SignedTreeHead, head_keys};
use sallyport_proto::v1::{AcceptLogRequest, GetLogRequest, GetLogResponse, ReadLogRequest};
use serde::Serialize;

use self::entry::Row;
use self::folder::Folder;
use super::{Context, refused};
use crate::cli::Global;
use crate::error::{Error, Exit, Result};

/// Entries asked for in one call.
const PAGE: u32 = 5_000;
/// Heads accepted in one call.
const HEADS: usize = 250;
/// How often the controllers are asked for more of them: at some thousand gateways a time, more than there are.
const ROUNDS: usize = 64;

/// What to do with the audit log.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the newest entries: who did what to certificates, keys and policy.
    #[command(alias = "ls")]
    List(List),
    /// Verify that the log only grew since this was asked last, here and at every gateway.
    #[command(after_help = "\
Examples:
  sallyport audit verify                          nothing that was shown before has changed or is gone
  sallyport audit verify --full                   and every entry is what was signed
  sallyport audit verify --from head-of-january   the same since a head that was kept elsewhere
  sallyport audit verify --file audit.jsonl --root ca.pem   an export, without any controller

The newest head is kept in the operator's folder (audit-head), so that each run is a witness of the next.")]
    Verify(verify::Arguments),
    /// Write the log to a file that anybody can verify: JSON lines, and the signed head.
    Export(Export),
    /// Say that the controllers were restored or set back on purpose: witnesses then follow the log as it is.
    Accept(Accept),
}

/// Which entries.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Most entries to print.
    #[arg(long, default_value_t = 50, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

/// What to write, and where.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// First entry; those before it are represented by their hashes.
    #[arg(long, default_value_t = 0, value_name = "INDEX")]
    since: u64,
    /// File to write; it must not be there yet.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    out: PathBuf,
}

/// What was done.
#[derive(Debug, Args)]
#[command(after_help = "\
Without --head or --all it only lists the heads that witnesses hold and that are none of the log as it is. --all takes those that an authority
of this cluster has signed: each of them the log has shown once, and lost. One that nobody has signed, a gateway may have made up; name it if
you know it to be right, as after a restore from before its authority was made.")]
pub(crate) struct Accept {
    /// What happened, for the log.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// A head, by the first digits of its root hash; may be given several times.
    #[arg(long, value_name = "HASH", conflicts_with = "all", value_parser = hash)]
    head: Vec<String>,
    /// All heads that an authority of this cluster has signed.
    #[arg(long)]
    all: bool,
}

/// Digits enough to name one of a few heads.
const DIGITS: usize = 8;

fn hash(text: &str) -> std::result::Result<String, String> {
    let digits = text.trim_end_matches('.').to_ascii_lowercase();
    match digits.len() >= DIGITS && digits.len() <= 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        true => Ok(digits),
        false => Err(format!("at least {DIGITS} hexadecimal digits of the root hash")),
    }
}

impl Accept {
    /// Whether this head is meant.
    fn takes(&self, head: &SignedTreeHead, is_signed: bool) -> bool {
        let hash = crate::hex::lower(&head.head.root);
        (self.all && is_signed) || self.head.iter().any(|named| hash.starts_with(named))
    }
}

#[derive(Serialize)]
struct Accepted {
    heads: Vec<String>,
    reason: String,
}

#[derive(Serialize)]
struct Exported {
    file: PathBuf,
    from: u64,
    entries: u64,
    root: String,
}

/// Asks where the log stands.
async fn look(context: &mut Context, known: Option<&SignedTreeHead>) -> Result<GetLogResponse> {
    let known = known.map(SignedTreeHead::to_bytes).unwrap_or_default();
    Ok(context.connection.client.get_log(GetLogRequest { known }).await.map_err(refused)?.into_inner())
}

fn answer_of(response: &GetLogResponse) -> (sallyport_proto::v1::WitnessLogResponse, Vec<u8>) {
    let log = response.log.clone().unwrap_or_default();
    let head = log.head.clone();
    (log, head)
}

/// Judges an answer; the controllers' word for it is not taken.
fn follow(follower: &mut Follower, response: &GetLogResponse, folder: &Folder) -> Followed {
    let (log, head) = answer_of(response);
    let answer = Answer { head: &head, proof: &log.proof, issuers: &log.issuers, accepted: &log.accepted };
    follower.follow(&answer, folder.roots())
}

/// Runs the command.
pub(crate) async fn run(command: Command, global: &Global) -> Result {
    match command {
        Command::List(list) => run_list(&list, global).await,
        Command::Verify(arguments) => verify::run(arguments, global).await,
        Command::Export(export) => run_export(export, global).await,
        Command::Accept(accept) => run_accept(accept, global).await,
    }
}

async fn run_list(list: &List, global: &Global) -> Result {
    let mut context = Context::open(global).await?;
    let client = &mut context.connection.client;
    let read = async |client: &mut sallyport_proto::v1::operator_client::OperatorClient<_>, from, limit| {
        let request = ReadLogRequest { from, limit, before: false };
        Ok::<_, Error>(client.read_log(request).await.map_err(refused)?.into_inner())
    };
    let size = read(client, 0, 1).await?.size;
    let mut from = size.saturating_sub(list.limit.into());
    let mut rows = Vec::new();
    while from < size {
        let answer = read(client, from, PAGE.min(u32::try_from(size - from).unwrap_or(PAGE))).await?;
        if answer.entries.is_empty() {
            break;
        }
        for entry in &answer.entries {
            rows.push(Row::of(from, entry)?);
            from += 1;
        }
    }
    rows.reverse();
    context.printer.list(&rows, "the audit log is empty")
}

async fn run_export(export: Export, global: &Global) -> Result {
    let folder = Folder::open(global)?;
    let mut context = Context::open(global).await?;
    let response = look(&mut context, None).await?;
    // Only what verifies is written: from a first answer, whatever it is.
    let mut follower = Follower::default();
    if let Followed::Wrong(wrong) = follow(&mut follower, &response, &folder) {
        return Err(Error::failed(wrong.fault.to_string()));
    }
    let head = follower.known().cloned().ok_or_else(|| Error::failed("the cluster has no audit log yet"))?;
    let (log, _) = answer_of(&response);
    if export.since > head.head.size {
        return Err(Error::usage(format!("the log has {} entries", head.head.size)));
    }
    let client = &mut context.connection.client;
    let mut out = file::Writer::create(&export.out, &head, export.since, &log.issuers, folder.roots())?;
    let (mut from, mut meter) = (export.since, super::backup::Meter::new("entries"));
    loop {
        let left = u32::try_from(head.head.size - from).unwrap_or(PAGE);
        let request = ReadLogRequest { from, limit: PAGE.min(left).max(1), before: from == export.since };
        let answer = client.read_log(request).await.map_err(refused)?.into_inner();
        if from == export.since {
            out.begin(&answer.before)?;
        }
        if from >= head.head.size {
            break;
        }
        if answer.entries.is_empty() {
            return Err(Error::failed(format!("the controller has no entry {from} of {}", head.head.size)));
        }
        for entry in answer.entries.iter().take(usize::try_from(head.head.size - from).unwrap_or(usize::MAX)) {
            out.entry(entry)?;
            from += 1;
        }
        meter.count(from - export.since, head.head.size - export.since);
        if from >= head.head.size {
            break;
        }
    }
    drop(meter);
    out.end()?;
    let entries = head.head.size - export.since;
    let exported =
        Exported { file: export.out.clone(), from: export.since, entries, root: crate::hex::lower(&head.head.root) };
    let text = format!("wrote {entries} entries and the signed head to {}", export.out.display());
    context.printer.one(&exported, &text)
}

/// The heads that the gateways and this folder hold, and that are none of this log.
fn of_other_logs(response: &GetLogResponse, own: Option<&SignedTreeHead>, folder: &Folder) -> Vec<SignedTreeHead> {
    let mut heads = Vec::new();
    let mut follower = Follower::knowing(own.cloned());
    if let (Followed::Wrong(_), Some(own)) = (follow(&mut follower, response, folder), own) {
        heads.push(own.clone());
    }
    for witness in verify::judge_witnesses(response, folder) {
        if let (true, Some(head)) = (!witness.alarm.is_empty() || witness.unsigned, witness.head)
            && !heads.contains(&head)
        {
            heads.push(head);
        }
    }
    heads
}

async fn run_accept(accept: Accept, global: &Global) -> Result {
    let folder = Folder::open(global)?;
    let mut context = Context::open(global).await?;
    let own = folder.known()?;
    let (mut heads, mut others): (Vec<SignedTreeHead>, Vec<SignedTreeHead>) = Default::default();
    // A controller shows a thousand gateways at once, and takes some heads at a time.
    for _ in 0..ROUNDS {
        let response = look(&mut context, own.as_ref()).await?;
        let mut found = of_other_logs(&response, own.as_ref(), &folder);
        found.retain(|head| !heads.contains(head) && !others.contains(head));
        if found.is_empty() {
            break;
        }
        let keys = head_keys(folder.roots(), &response.log.clone().unwrap_or_default().issuers);
        let (mut found, mut left): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|head| accept.takes(head, head.verify(&keys).is_ok()));
        others.append(&mut left);
        if found.is_empty() {
            break;
        }
        for some in found.chunks(HEADS) {
            let (heads, reason) = (some.iter().map(SignedTreeHead::to_bytes).collect(), accept.reason.clone());
            let named = !accept.all;
            context.connection.client.accept_log(AcceptLogRequest { heads, reason, named }).await.map_err(refused)?;
        }
        heads.append(&mut found);
    }
    if heads.is_empty() && !others.is_empty() {
        let heads: Vec<String> = others.iter().map(|head| head.head.summary()).collect();
        return Err(Error::new(Exit::Refused, format!("witnesses hold heads of another log: {}", heads.join("; "))).remedy(
            "if the controllers were restored or set back on purpose, accept these that the log has lost: audit accept --all, or --head HASH \
             for each that you know to be right",
        ));
    }
    if heads.is_empty() {
        return Err(Error::new(Exit::Refused, "no witness knows another log than the controllers show")
            .remedy("there is nothing to accept; `sallyport audit verify` says so, too"));
    }
    // And this folder follows the log as it is.
    let mut follower = Follower::knowing(folder.known()?);
    let response = look(&mut context, follower.known()).await?;
    match follow(&mut follower, &response, &folder) {
        // It was not named.
        Followed::Wrong(_) if own.as_ref().is_some_and(|own| others.contains(own)) => {}
        Followed::Wrong(wrong) => return Err(Error::failed(wrong.fault.to_string())),
        _ => folder.keep(follower.known())?,
    }
    let summaries: Vec<String> = heads.iter().map(|head| head.head.summary()).collect();
    let text = format!("the log says now that these heads are none of it:\n  {}", summaries.join("\n  "));
    context.printer.one(&Accepted { heads: summaries, reason: accept.reason }, &text)
}
