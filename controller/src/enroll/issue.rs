//! Intent, signature, record. Whoever asked is answered from the state only.

use std::sync::Arc;
use std::time::Duration;

use sallyport_ca::{
    Authority, KeyAlgorithm, Profile, Recorded, RecordedService, SecureRandom, Serial, Service, Subject, UnixTime,
};
use sallyport_proto::v1;

use super::{Case, Enrolled};
use crate::app::Core;
use crate::authority::{IssueRequest, algorithm_to_proto, alt_name, profile_to_proto, subject};
use crate::error::Error;
use crate::raft::{ProposeError, blocking};
use crate::state::{
    AbandonCertificate, Action, CertificateRow, CompleteCertificate, ConflictKind, Grant, IntendCertificate, IntentRow,
    Outcome, Proof, profile_of,
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

/// A machine's certificate that was issued a while ago, and is good.
pub(super) async fn kept(core: &Arc<Core>, serial: &str) -> Result<Option<Enrolled>, Error> {
    let (reader, of) = (core.node.ledger(), serial.to_owned());
    let unread = |e: &dyn std::fmt::Display| Error::Internal(format!("reading a certificate: {e}"));
    let certificate = blocking(move || reader.certificate(&of)).await.map_err(|e| unread(&e))?;
    let Some(certificate) = certificate.map_err(|e| unread(&e))? else { return Ok(None) };
    let state = core.node.shared().read();
    let Some(row) = state.certificates.get(&serial.to_owned()).filter(|row| row.revoked_ms == 0) else {
        return Ok(None); // it was revoked meanwhile
    };
    let chain = state.chain_of(row.issuer);
    drop(state);
    tracing::info!(%serial, "gave a certificate again, for the same key");
    Ok(Some(Enrolled::Issued { certificate, chain }))
}

/// Says in the log what will be signed, signs it, and has it recorded.
pub(super) async fn issue(core: &Arc<Core>, case: &Case, grant: &Grant) -> Result<Done, Error> {
    let command = match intent(core, case, grant) {
        Ok(command) => command,
        Err(Error::Refused(text)) => return Ok(Done::Issued(Enrolled::Invalid(text))),
        Err(e) => return Err(e),
    };
    match core.propose_and_see(Action::IntendCertificate(command)).await?.outcome {
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
    let intent = core.node.shared().read().intended(&case.transaction).cloned();
    if let Some(intent) = intent {
        complete(core, intent).await?;
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
    let issuing = core.issuing_for(grant.profile, request.key)?;
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
/// leaves this house. Whether there is one now, here or from somebody else.
pub(crate) async fn complete(core: &Arc<Core>, intent: IntentRow) -> Result<bool, Error> {
    let authority = core.issuing_by(intent.issuer)?.authority;
    let is_rsa = authority.key_algorithm().is_rsa();
    let (worker, signer, row) = (core.clone(), authority.clone(), intent.clone());
    let sign = move || Said::of(&row)?.sign(&signer, &row.tbs, worker.sealer.rng());
    // An elliptic signature takes less than handing it to another thread would.
    let signature = if is_rsa {
        tokio::task::spawn_blocking(sign).await.map_err(|_| Error::Internal("signing panicked".into()))?
    } else {
        sign()
    };
    match signature {
        Ok(signature) => hand_in(core, &authority, &intent, signature).await,
        Err(fault) => abandon(core, &intent, fault).await,
    }
}

/// Records a signature over what was intended, if it is one: what leaves this house is checked under the public key, and against
/// what the log says of it, by code that had no part in making it.
pub(super) async fn hand_in(
    core: &Core,
    authority: &Authority,
    intent: &IntentRow,
    signature: Vec<u8>,
) -> Result<bool, Error> {
    let checked =
        Said::of(intent).and_then(|said| said.check(authority, &intent.tbs, &signature).map(|()| said.serial));
    let serial = match checked {
        Ok(serial) => serial.to_string(),
        Err(fault) => return abandon(core, intent, fault).await,
    };
    let command = CompleteCertificate { serial, signature };
    match core.propose_and_see(Action::CompleteCertificate(command)).await?.outcome {
        // Not found: it was abandoned meanwhile.
        Some(Outcome::Done(_) | Outcome::Conflict(_)) => Ok(true),
        other => Err(Error::Internal(format!("recording a certificate: {other:?}"))),
    }
}

/// Gives up what no try would mend: the bytes are not what was said of them, or the key is not the authority's. What allowed the
/// certificate is good again.
async fn abandon(core: &Core, intent: &IntentRow, fault: sallyport_ca::Error) -> Result<bool, Error> {
    // The random source, say: the next try, or another controller, may have more luck.
    if matches!(fault, sallyport_ca::Error::Crypto(_)) {
        return Err(Error::Authority(fault.to_string()));
    }
    let record = intent.record.clone().unwrap_or_default();
    tracing::error!(
        serial = %record.serial, name = %record.name, issuer = intent.issuer, cause = %fault,
        "gave up a certificate that is not what the log says of it; nothing was issued. Look at the controller that asked for it"
    );
    core.metrics.abandoned();
    core.propose_idempotent(Action::AbandonCertificate(AbandonCertificate { serial: record.serial })).await?;
    Ok(false)
}

/// What a certificate is for.
#[derive(Clone, Copy)]
enum Kind {
    Profile(Profile),
    Service(Service),
}

/// What the log says of a certificate that is to be signed.
struct Said {
    kind: Kind,
    serial: Serial,
    subject: Subject,
    period: (UnixTime, UnixTime),
    key: KeyAlgorithm,
    key_sha256: Option<[u8; 32]>,
}

impl Said {
    fn of(intent: &IntentRow) -> Result<Self, sallyport_ca::Error> {
        let unreadable = sallyport_ca::Error::Request("the log does not say what is to be signed");
        let record = intent.record.as_ref().ok_or(unreadable.clone())?;
        let key = KeyAlgorithm::ALL.into_iter().find(|k| algorithm_to_proto(*k) == record.key_algorithm());
        let seconds = |ms: u64| UnixTime(i64::try_from(ms / 1_000).unwrap_or(i64::MAX));
        let kind = match record.profile() {
            v1::CertificateProfile::OcspSigner => Some(Kind::Service(Service::OcspSigner)),
            v1::CertificateProfile::ScepRa => Some(Kind::Service(Service::ScepRa)),
            _ => profile_of(record).map(Kind::Profile),
        };
        Ok(Self {
            kind: kind.ok_or(unreadable.clone())?,
            serial: record.serial.parse()?,
            subject: Subject::new(&record.name, record.sans.iter().map(|san| alt_name(san)).collect())?,
            period: (seconds(record.not_before_ms), seconds(record.not_after_ms)),
            key: key.ok_or(unreadable)?,
            key_sha256: intent.key_sha256.as_slice().try_into().ok(),
        })
    }

    fn recorded(&self, profile: Profile) -> Recorded<'_> {
        Recorded {
            profile,
            serial: &self.serial,
            subject: &self.subject,
            period: self.period,
            key: self.key,
            key_sha256: self.key_sha256.as_ref(),
        }
    }

    fn recorded_service(&self, service: Service) -> RecordedService<'_> {
        RecordedService {
            service,
            serial: &self.serial,
            name: self.subject.common_name(),
            period: self.period,
            key: self.key,
            key_sha256: self.key_sha256.as_ref(),
        }
    }

    fn sign(&self, by: &Authority, tbs: &[u8], rng: &dyn SecureRandom) -> Result<Vec<u8>, sallyport_ca::Error> {
        match self.kind {
            Kind::Profile(profile) => by.sign_recorded(tbs, &self.recorded(profile), rng),
            Kind::Service(service) => by.sign_recorded_service(tbs, &self.recorded_service(service), rng),
        }
    }

    fn check(&self, by: &Authority, tbs: &[u8], signature: &[u8]) -> Result<(), sallyport_ca::Error> {
        match self.kind {
            Kind::Profile(profile) => by.check_recorded(tbs, signature, &self.recorded(profile)),
            Kind::Service(service) => by.check_recorded_service(tbs, signature, &self.recorded_service(service)),
        }
        .map(drop)
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
            Ok(true) => tracing::info!(%serial, "finished a certificate that somebody had left"),
            Ok(false) => {}
            Err(error) if old => {
                tracing::warn!(%serial, %error, "gave up a certificate that was to be signed");
                core.propose_idempotent(Action::AbandonCertificate(AbandonCertificate { serial })).await?;
            }
            Err(error) => tracing::debug!(%serial, %error, "could not finish a certificate; trying again"),
        }
    }
    Ok(())
}
