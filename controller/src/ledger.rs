//! The audit log at work: signed heads, what its witnesses hold, and refusals on their way into it.
//!
//! Any controller signs the head of the tree that it has applied: at each size there is one tree, whoever shows it. Witnesses are
//! answered by the leader, once it knows that it leads; so it has every entry that anybody was ever shown, and a witness that knows
//! more has met a log that was rolled back.

mod refusals;
#[cfg(test)]
mod tests;
mod witnesses;

use std::sync::{Arc, Mutex, PoisonError};

use sallyport_ca::merkle::{Frontier, SignedTreeHead, consistency_proof, proof_to_bytes};
use sallyport_ca::{Certificate, KeyAlgorithm, PublicKey};
use sallyport_proto::v1;

use crate::app::Core;
use crate::error::Error;
use crate::raft::blocking;
use crate::state::LEDGER_LEVEL;

pub(crate) use refusals::{Refusals, record as record_refusal};
pub(crate) use witnesses::{Seen, Witnesses, heard, is_signed};

/// What a controller keeps of the log beside the state.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    /// The head that was signed last, and by which authority.
    signed: Mutex<Option<(u64, SignedTreeHead)>>,
    /// Who may sign heads, as it was at a version of the policy.
    signers: Mutex<Option<(u64, Arc<Signers>)>>,
    /// What gateways hold.
    pub(crate) witnesses: Witnesses,
    /// Refused certificates.
    pub(crate) refusals: Refusals,
}

/// Who may sign heads.
#[derive(Debug)]
pub(crate) struct Signers {
    /// Their keys.
    pub(crate) keys: Vec<PublicKey>,
    /// The certificates of those below a root, DER.
    issuers: Vec<Vec<u8>>,
}

/// The log as it is now.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    /// Its signed head.
    pub(crate) head: SignedTreeHead,
    tree: Frontier,
}

fn internal(what: &str, error: impl std::fmt::Display) -> Error {
    Error::Internal(format!("{what}: {error}"))
}

/// The log as it is now, with its signed head; `None` at a level without a log.
pub(crate) async fn show(core: &Arc<Core>) -> Result<Option<Shown>, Error> {
    let (level, cluster, tree, time_ms) = {
        let state = core.node.shared().read();
        (state.level(), <[u8; 16]>::try_from(state.cluster_id()), state.log_tree().clone(), state.log_time_ms())
    };
    let (LEDGER_LEVEL.., Ok(cluster)) = (level, cluster) else { return Ok(None) };
    let issuing = core.issuing(KeyAlgorithm::EcdsaP256)?;
    // Mostly nothing was added since the last look, and what was signed then is in the store.
    let last = core.audit.signed.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some((number, head)) = last
        && number == issuing.number
        && (head.head.size, head.head.root, head.head.time_ms) == (tree.size(), tree.root(), time_ms)
    {
        return Ok(Some(Shown { head, tree }));
    }
    let reader = core.node.ledger();
    let tree = blocking(move || reader.tree()).await.map_err(|e| internal("the audit log", e))?;
    let (tree, time_ms) = tree.map_err(|e| internal("the audit log", e))?;
    let (worker, number) = (core.clone(), issuing.number);
    let signing = tree.clone();
    let sign = move || issuing.authority.sign_tree_head(cluster, &signing, time_ms, worker.sealer.rng());
    let head = blocking(sign).await.map_err(|e| internal("signing the audit log's head", e))?;
    let head = head.map_err(|e| Error::Authority(format!("the audit log's head: {e}")))?;
    *core.audit.signed.lock().unwrap_or_else(PoisonError::into_inner) = Some((number, head.clone()));
    Ok(Some(Shown { head, tree }))
}

/// The proof between a size that a witness knows and what is shown: from the smaller to the larger. Empty where it knows more.
pub(crate) async fn proof(core: &Core, known: u64, shown: &Shown) -> Result<Vec<u8>, Error> {
    let size = shown.tree.size();
    if known == 0 || known >= size {
        return Ok(Vec::new());
    }
    let reader = core.node.ledger();
    let proof = blocking(move || consistency_proof(&reader, known, size)).await;
    let proof = proof.map_err(|e| internal("the audit log", e))?.map_err(|e| internal("the audit log", e))?;
    Ok(proof_to_bytes(&proof))
}

/// The tree of the first entries.
pub(crate) async fn tree_at(core: &Core, size: u64) -> Result<Frontier, Error> {
    let reader = core.node.ledger();
    let tree = blocking(move || Frontier::from_nodes(&reader, size)).await;
    tree.map_err(|e| internal("the audit log", e))?.map_err(|e| internal("the audit log", e))
}

/// Who may sign heads. Authorities are parsed once for each version of the policy, which changes with them.
pub(crate) fn signers(core: &Core) -> Arc<Signers> {
    let mut last = core.audit.signers.lock().unwrap_or_else(PoisonError::into_inner);
    let state = core.node.shared().read();
    let version = state.policy_version();
    if let Some((_, signers)) = last.as_ref().filter(|(of, _)| *of == version) {
        return signers.clone();
    }
    let roots = state.roots.iter().rev().filter_map(|(_, root)| Certificate::from_der(&root.certificate).ok());
    // One whose key is in other hands says nothing any more.
    let believed = state.issuers.iter().rev().filter(|(_, row)| row.compromised_ms == 0);
    let mut issuers: Vec<Vec<u8>> = believed.map(|(_, row)| row.certificate.clone()).collect();
    // Whoever knows the root before this one finds the way by these.
    issuers.extend(state.cross_certificates());
    let roots: Vec<Certificate> = roots.collect();
    drop(state);
    let signers = Arc::new(Signers { keys: sallyport_ca::merkle::head_keys(&roots, &issuers), issuers });
    *last = Some((version, signers.clone()));
    signers
}

/// What whoever holds `known` is told. Of the heads that are none of this log he hears of his own: others mean nothing to him, and there
/// may be thousands.
pub(crate) async fn answer(
    core: &Core,
    known: Option<&SignedTreeHead>,
    shown: &Shown,
) -> Result<v1::WitnessLogResponse, Error> {
    let proof = proof(core, known.map_or(0, |known| known.head.size), shown).await?;
    let issuers = signers(core).issuers.clone();
    let state = core.node.shared().read();
    let accepted = known.map(SignedTreeHead::to_bytes).filter(|known| state.accepts_head(known));
    Ok(v1::WitnessLogResponse {
        head: shown.head.to_bytes(),
        proof,
        issuers,
        accepted: accepted.into_iter().collect(),
        restored_unix_ms: state.begun_ms(),
    })
}
