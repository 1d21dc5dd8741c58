//! Certificates that nobody enrolls for, exactly once: what will be signed is in the log before the authority's key is touched, then the
//! signature is, and whoever asked is answered from the state. If this controller dies in between, the leader finishes or gives up.

use std::sync::Arc;

use sallyport_ca::{Serial, UnixTime};
use sallyport_proto::v1;

use super::{algorithm_to_proto, ms};
use crate::app::Core;
use crate::enroll::complete_intent;
use crate::error::Error;
use crate::raft::ProposeError;
use crate::state::{
    Action, CertificateRow, ConflictKind, IntendCertificate, Issued, OFFICE_LEVEL, OfficeProof, Outcome, Proof,
    ProofKind,
};

/// What shall be signed.
pub(crate) struct Wished {
    /// The TBSCertificate, DER.
    pub(crate) tbs: Vec<u8>,
    /// What the log will say of it.
    pub(crate) record: CertificateRow,
    /// SHA-256 of its key (SubjectPublicKeyInfo).
    pub(crate) key_sha256: [u8; 32],
    /// The version of the profile by which it was made; 0 where there is none.
    pub(crate) profile_version: u64,
    /// Who asks, and what he is answered.
    pub(crate) office: OfficeProof,
}

/// Whether all members know of such intents.
pub(crate) fn intends(core: &Core) -> bool {
    core.node.shared().read().level() >= OFFICE_LEVEL
}

/// The record of a certificate that is not signed yet.
pub(crate) fn record_before(
    serial: &Serial,
    (not_before, not_after): (UnixTime, UnixTime),
    profile: v1::CertificateProfile,
    name: &str,
    key: sallyport_ca::KeyAlgorithm,
) -> CertificateRow {
    CertificateRow {
        serial: serial.to_string(),
        profile: profile.into(),
        name: name.to_owned(),
        not_before_ms: ms(not_before),
        not_after_ms: ms(not_after),
        key_algorithm: algorithm_to_proto(key).into(),
        ..CertificateRow::default()
    }
}

/// Has it signed and recorded. What is returned is in the log; of a request that was asked before, what that brought.
pub(crate) async fn issue(core: &Arc<Core>, wished: Wished) -> Result<Issued, Error> {
    let request_id = wished.office.request_id.clone();
    let transaction = intend(core, wished).await?;
    core.catch_up().await;
    let intent = core.node.shared().read().intended(&transaction).cloned();
    if let Some(intent) = intent {
        complete_intent(core, intent).await?;
        core.catch_up().await;
    }
    let state = core.node.shared().read();
    let had = match request_id.is_empty() {
        true => state.issued(&transaction).map(|row| Issued {
            serial: row.serial.clone(),
            answer: Vec::new(),
            certificate: row.certificate.clone(),
        }),
        false => state.answered_with(&request_id).cloned(),
    };
    had.ok_or_else(|| Error::Superseded("the certificate was given up while it was signed; try again".into()))
}

/// Says in the log what will be signed, and names it.
async fn intend(core: &Core, wished: Wished) -> Result<Vec<u8>, Error> {
    let transaction = match wished.office.request_id.as_slice() {
        [] => core.new_id()?.to_vec(),
        id => id.to_vec(),
    };
    let command = IntendCertificate {
        transaction: transaction.clone(),
        proof: Some(Proof { kind: Some(ProofKind::Office(wished.office)) }),
        key_sha256: wished.key_sha256.to_vec(),
        source: String::new(),
        profile_version: wished.profile_version,
        tbs: wished.tbs,
        issuer: wished.record.issuer,
        record: Some(wished.record),
    };
    match core.propose_idempotent(Action::IntendCertificate(command)).await?.outcome {
        Some(Outcome::Intended(_)) => Ok(transaction),
        Some(Outcome::Conflict(conflict)) => Err(match conflict.kind() {
            ConflictKind::Changed => Error::Superseded(conflict.message),
            ConflictKind::Precondition => Error::Refused(conflict.message),
            ConflictKind::Exhausted => Error::Propose(ProposeError::Overloaded),
            ConflictKind::AlreadyExists => Error::Internal("a random serial number came twice".into()),
            _ => Error::Internal(format!("intending a certificate: {}", conflict.message)),
        }),
        other => Err(Error::Internal(format!("intending a certificate: {other:?}"))),
    }
}

#[cfg(test)]
mod tests;
