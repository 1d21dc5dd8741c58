//! The audit log as operators read and verify it.

use sallyport_ca::merkle::SignedTreeHead;
use sallyport_proto::v1;
use tonic::Status;

use super::super::caller::Caller;
use super::OperatorService;
use crate::ledger;
use crate::raft::blocking;
use crate::state::{AcceptHeads, Action};

/// Entries of one answer: when nothing is said, and at most.
const ENTRIES: (u32, u32) = (1_000, 10_000);
/// And their bytes, about.
const BYTES: usize = 1024 * 1024;
/// Witnesses of one answer.
const WITNESSES: usize = 1_000;
/// Longest reason, bytes.
const MAX_REASON: usize = 256;

fn head(bytes: &[u8], what: &str) -> Result<Option<SignedTreeHead>, Status> {
    let head = (!bytes.is_empty()).then(|| SignedTreeHead::from_bytes(bytes)).transpose();
    head.map_err(|e| Status::invalid_argument(format!("{what}: {e}")))
}

impl OperatorService {
    pub(super) async fn do_get_log(
        &self,
        _caller: &Caller,
        request: v1::GetLogRequest,
    ) -> Result<v1::GetLogResponse, Status> {
        let known = head(&request.known, "known")?;
        let Some(shown) = ledger::show(&self.core).await? else {
            return Err(Status::failed_precondition(
                "the cluster has no audit log yet: it begins when all controllers run a version that knows it (sallyport cluster status)",
            ));
        };
        let mut log = ledger::answer(&self.core, known.as_ref(), &shown).await?;
        let mut all: Vec<_> = self.core.audit.witnesses.all().into_values().collect();
        {
            let state = self.core.node.shared().read();
            let accepted = |seen: &ledger::Seen| state.accepts_head(&seen.head.to_bytes());
            // Where there are more than fit, those come first about which something is to be done.
            all.sort_by_cached_key(|seen| seen.trouble.is_none() || accepted(seen));
            all.truncate(WITNESSES);
            log.accepted.extend(all.iter().filter(|seen| accepted(seen)).map(|seen| seen.head.to_bytes()));
        }
        let mut witnesses = Vec::new();
        for seen in all {
            // One who knows a longer log, or another, is shown as he is: the reader judges.
            let proof = ledger::proof(&self.core, seen.head.head.size, &shown).await?;
            witnesses.push(v1::LogWitness {
                gateway: seen.gateway,
                head: seen.head.to_bytes(),
                seen_unix_ms: seen.seen_ms,
                alarm: seen.trouble.filter(|t| t.is_evidence()).map(|t| t.text().to_owned()).unwrap_or_default(),
                proof,
            });
        }
        Ok(v1::GetLogResponse { log: Some(log), witnesses })
    }

    pub(super) async fn do_read_log(
        &self,
        _caller: &Caller,
        request: v1::ReadLogRequest,
    ) -> Result<v1::ReadLogResponse, Status> {
        let limit = if request.limit == 0 { ENTRIES.0 } else { request.limit.min(ENTRIES.1) } as usize;
        let reader = self.core.node.ledger();
        let from = request.from;
        let failed = |e: &dyn std::fmt::Display| Status::internal(format!("reading the audit log: {e}"));
        let read = blocking(move || {
            let size = reader.tree()?.0.size();
            Ok::<_, crate::raft::kv::KvError>((size, reader.entries(from, limit, BYTES)?))
        });
        let (size, entries) = read.await.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
        if from > size {
            return Err(Status::invalid_argument(format!("from: the log has {size} entries")));
        }
        let before = match request.before {
            true => ledger::tree_at(&self.core, from).await?.to_bytes(),
            false => Vec::new(),
        };
        Ok(v1::ReadLogResponse { entries, size, before })
    }

    pub(super) async fn do_accept_log(
        &self,
        caller: &Caller,
        request: v1::AcceptLogRequest,
    ) -> Result<v1::AcceptLogResponse, Status> {
        if request.reason.len() > MAX_REASON {
            return Err(Status::invalid_argument(format!("reason: at most {MAX_REASON} bytes")));
        }
        let signers = ledger::signers(&self.core);
        let shown = ledger::show(&self.core).await?;
        for bytes in &request.heads {
            let head = head(bytes, "heads")?.ok_or_else(|| Status::invalid_argument("heads: an empty one"))?;
            // One of an authority that was made after the backup is signed by nobody whom this state knows; but anybody can make up one
            // that nobody has signed, so an operator must have named it.
            if head.verify(&signers.keys).is_err() {
                if !request.named {
                    return Err(Status::failed_precondition(format!(
                        "no authority of this state has signed the head of {}: name it if it is right (audit accept --head)",
                        head.head.summary()
                    )));
                }
                tracing::warn!(operator = %caller.name, head = %head.head.summary(), "accepts a head that no authority of this state signed");
            }
            let of_this_log = match &shown {
                Some(shown) if head.head.size <= shown.head.head.size => {
                    ledger::tree_at(&self.core, head.head.size).await?.root() == head.head.root
                }
                _ => false,
            };
            if of_this_log {
                return Err(Status::failed_precondition(format!(
                    "the log goes on from {}: there is nothing to accept",
                    head.head.summary()
                )));
            }
        }
        let command = AcceptHeads { heads: request.heads, reason: request.reason };
        self.change(caller, "accept heads of the audit log", Action::AcceptHeads(command)).await?;
        Ok(v1::AcceptLogResponse {})
    }
}
