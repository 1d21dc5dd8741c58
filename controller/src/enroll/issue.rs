//! Intent, signature, record. Whoever asked is answered from the state only.

use std::sync::Arc;
use std::time::Duration;

use sallyport_ca::{Profile, Serial, Subject, UnixTime};

use super::{Case, Enrolled};
use crate::app::Core;
use crate::authority::{IssueRequest, algorithm_to_proto, profile_to_proto, subject};
use crate::error::Error;
use crate::raft::ProposeError;
use crate::state::{
    AbandonCertificate, Action, CertificateRow, CompleteCertificate, ConflictKind, Grant, IntendCertificate, IntentRow,
    Outcome, Proof,
};

/// An intent that is this old was left by whoever made it: another finishes it. Milliseconds of the log's time.
const LEFT_MS: u64 = 5_000;
/// And at this age it is given up.
const GIVEN_UP_MS: u64 = 10 * 60 * 1_000;
/// Intents that are finished in one go.
const BATCH: usize = 64;

/// What an attempt to issue came to.
pub(super) enum Done {
    /// A certificate.
    Issued(Enrolled),
    /// Something changed under it.
    Again(String),
}

/// The certificate that the same question has brought before, if its proof still is one.
pub(super) fn again(core: &Core, case: &Case) -> Result<Option<Enrolled>, Error> {
    let state = core.node.shared().read();
    let Some(issued) = state.issued(&case.transaction) else { return Ok(None) };
    let (certificate, serial) = (issued.certificate.clone(), issued.serial.clone());
    let chain = state.chain_of(issued.issuer);
    let revoked = state.certificates.get(&serial).is_none_or(|row| row.revoked_ms != 0);
    // A token that was used up by this very question is good for its answer; one that was taken back is not.
    if revoked || !state.still_proves(case.applicant.proof.as_ref()) {
        return Ok(None);
    }
    drop(state);
    tracing::info!(%serial, "gave an issued certificate again, to the same request");
    Ok(Some(Enrolled::Issued { certificate, chain }))
}

/// Says in the log what will be signed, signs it, and has it recorded.
pub(super) async fn issue(core: &Arc<Core>, case: &Case, grant: &Grant) -> Result<Done, Error> {
    let command = match intent(core, case, grant) {
        Ok(command) => command,
        Err(Error::Refused(text)) => return Ok(Done::Issued(Enrolled::Invalid(text))),
        Err(e) => return Err(e),
    };
    match core.propose_idempotent(Action::IntendCertificate(command)).await?.outcome {
        Some(Outcome::Intended(_)) => {}
        Some(Outcome::Conflict(c)) => {
            return match c.kind() {
                ConflictKind::Changed | ConflictKind::AlreadyExists => Ok(Done::Again(c.message)),
                ConflictKind::Exhausted => Err(Error::Propose(ProposeError::Overloaded)),
                _ => Err(Error::Internal(format!("intending a certificate: {}", c.message))),
            };
        }
        other => return Err(Error::Internal(format!("intending a certificate: {other:?}"))),
    }
    core.catch_up().await;
    let intent = core.node.shared().read().intended(&case.transaction).cloned();
    if let Some(intent) = intent {
        complete(core, intent).await?;
        core.catch_up().await;
    }
    match again(core, case)? {
        Some(issued) => {
            tracing::info!(name = %grant.name, source = %case.applicant.source, method = ?grant.method, "issued a certificate");
            core.metrics.issued(grant.method);
            Ok(Done::Issued(issued))
        }
        None => Ok(Done::Again("the certificate was abandoned or revoked while it was signed".into())),
    }
}

/// What will be signed.
pub(super) fn intent(core: &Core, case: &Case, grant: &Grant) -> Result<IntendCertificate, Error> {
    let refused = |e: sallyport_ca::Error| Error::Refused(e.to_string());
    let request = IssueRequest {
        profile: grant.profile,
        name: grant.name.clone(),
        sans: grant.sans.clone(),
        key: case.key.algorithm(),
        days: 0,
    };
    let subject: Subject = subject(&request)?;
    let now = UnixTime(i64::try_from(core.now_ms() / 1_000).unwrap_or(i64::MAX));
    let serial = Serial::generate(core.sealer.rng()).map_err(refused)?;
    let validity = Duration::from_secs(grant.rules.validity_s);
    let issuing = core.issuing(request.key)?;
    let prepared = issuing
        .authority
        .prepare(grant.profile, &subject, &case.key, now, validity, serial.clone())
        .map_err(refused)?;
    let (not_before, not_after) = prepared.period();
    let ms = |time: UnixTime| u64::try_from(time.0).unwrap_or(0).saturating_mul(1_000);
    let record = CertificateRow {
        serial: serial.to_string(),
        profile: profile_to_proto(grant.profile).into(),
        name: grant.name.clone(),
        sans: subject.alt_names().iter().map(ToString::to_string).collect(),
        not_before_ms: ms(not_before),
        not_after_ms: ms(not_after),
        key_algorithm: algorithm_to_proto(case.key.algorithm()).into(),
        ..CertificateRow::default()
    };
    Ok(IntendCertificate {
        transaction: case.transaction.to_vec(),
        proof: Some(Proof { kind: grant.proof.kind.clone() }),
        key_sha256: case.applicant.key_sha256.clone(),
        source: case.applicant.source.clone(),
        profile_version: grant.rules.version,
        tbs: prepared.tbs().to_vec(),
        record: Some(record),
        issuer: issuing.number,
    })
}

/// Signs what was intended and records it. Two who do it at a time make two signatures over the same certificate, and one of them
/// leaves this house.
async fn complete(core: &Arc<Core>, intent: IntentRow) -> Result<(), Error> {
    let record = intent.record.unwrap_or_default();
    let profile = Profile::ALL.into_iter().find(|p| profile_to_proto(*p) == record.profile());
    let profile = profile.ok_or_else(|| Error::Internal("an intent without a profile".into()))?;
    let authority = core.issuing_by(intent.issuer)?.authority;
    let is_rsa = authority.key_algorithm().is_rsa();
    let worker = core.clone();
    let sign = move || authority.sign_recorded(&intent.tbs, profile, worker.sealer.rng());
    // An elliptic signature takes less than handing it to another thread would.
    let signature = if is_rsa {
        tokio::task::spawn_blocking(sign).await.map_err(|_| Error::Internal("signing panicked".into()))?
    } else {
        sign()
    };
    let signature = signature.map_err(|e| Error::Authority(e.to_string()))?;
    let command = CompleteCertificate { serial: record.serial, signature };
    match core.propose_idempotent(Action::CompleteCertificate(command)).await?.outcome {
        // Not found: it was abandoned meanwhile.
        Some(Outcome::Done(_) | Outcome::Conflict(_)) => Ok(()),
        other => Err(Error::Internal(format!("recording a certificate: {other:?}"))),
    }
}

/// Finishes what others have left between intent and record: whoever leads does so now and then.
pub(crate) async fn finish_intents(core: &Arc<Core>) -> Result<(), Error> {
    let now_ms = core.now_ms();
    let left: Vec<IntentRow> = {
        let state = core.node.shared().read();
        let old = state.intents.iter().map(|(_, row)| row).filter(|row| row.at_ms.saturating_add(LEFT_MS) <= now_ms);
        old.take(BATCH).cloned().collect()
    };
    for intent in left {
        let serial = intent.record.as_ref().map(|r| r.serial.clone()).unwrap_or_default();
        let old = intent.at_ms.saturating_add(GIVEN_UP_MS) <= now_ms;
        let done =
            if old { Err(Error::Internal("nobody signed it in time".into())) } else { complete(core, intent).await };
        match done {
            Ok(()) => tracing::info!(%serial, "finished a certificate that somebody had left"),
            Err(error) if old => {
                tracing::warn!(%serial, %error, "gave up a certificate that was to be signed");
                core.propose_idempotent(Action::AbandonCertificate(AbandonCertificate { serial })).await?;
            }
            Err(error) => tracing::debug!(%serial, %error, "could not finish a certificate; trying again"),
        }
    }
    Ok(())
}
