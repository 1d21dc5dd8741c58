//! Enrollment at work: from a request and what was shown with it to a certificate that is in the log.
//!
//! All protocols come through [`enroll`]. Of the request only the key and the proof that the applicant holds it are taken
//! (`sallyport_ca::PublicKey::from_csr_der`); who gets which certificate is [`crate::state::State::authorise`]'s to say.

mod gateways;
mod issue;
mod ocsp;
mod office;
mod scep;

use std::net::IpAddr;
use std::sync::Arc;

use ring::digest;
use sallyport_ca::{Certificate, EnrollToken, Fingerprint, PublicKey, claimed_name};
use sallyport_endpoint::{Enrollment, Proof as Shown};
use sallyport_proto::v1;

use crate::app::Core;
use crate::authority::algorithm_to_proto;
use crate::error::Error;
use crate::raft::ProposeError;
use crate::state::{
    Action, Applicant, ConflictKind, Grant, Outcome, ProofKind, QueueRequest, Refusal, RefusalKind, TokenProof, Verdict,
};

pub(crate) use gateways::{Asked, for_gateway};
pub(crate) use issue::{complete as complete_intent, finish_intents};
pub(crate) use office::ControllerOffice;
pub(crate) use scep::keep_ra;

/// How often a decision is made again because something changed under it.
const TRIES: usize = 4;

/// What becomes of it.
pub(crate) enum Enrolled {
    /// A certificate, and its issuers, the root last; DER.
    Issued {
        /// The certificate.
        certificate: Vec<u8>,
        /// Its issuers.
        chain: Vec<Vec<u8>>,
    },
    /// An operator has to decide.
    Waiting,
    /// No.
    Refused(Refusal),
    /// The request itself is wrong.
    Invalid(String),
}

/// One application, with what follows from it.
struct Case {
    transaction: [u8; 16],
    key: PublicKey,
    applicant: Applicant,
    claims: String,
}

/// Decides whether what was shown lets anybody in, for whoever has no key yet: one is made only for those who may have a
/// certificate.
pub(crate) async fn may_have_key(core: &Arc<Core>, application: &Enrollment) -> Result<Result<(), Refusal>, Error> {
    let proof = match proof(&application.proof) {
        Ok(Some(proof)) => proof,
        Ok(None) => {
            return Ok(Err(Refusal {
                kind: RefusalKind::Unproven,
                cause: "a key was asked for without a proof".into(),
                remedy: "show a token, or the machine's present certificate".into(),
            }));
        }
        Err(refusal) => return Ok(Err(refusal)),
    };
    core.sight().await?;
    if let Shown::Certificate(der) = &application.proof
        && let Err(refusal) = is_ours(core, der)
    {
        return Ok(Err(refusal));
    }
    let csr = application.csr.clone();
    let kind = tokio::task::spawn_blocking(move || PublicKey::from_csr_der(&csr).map(|key| key.algorithm()));
    let kind = kind.await.map_err(|_| Error::Internal("reading a request panicked".into()))?;
    let kind = kind.map_err(|e| Error::Refused(e.to_string()))?;
    let applicant = Applicant {
        proof: Some(proof),
        key_sha256: Vec::new(),
        key: algorithm_to_proto(kind),
        source: application.source.to_canonical().to_string(),
    };
    let verdict = core.node.shared().read().authorise(&applicant, core.now_ms());
    Ok(match verdict {
        Verdict::Refused(refusal) => Err(refusal),
        Verdict::Granted(_) | Verdict::Has(_) | Verdict::Waiting(_) | Verdict::MayQueue => Ok(()),
    })
}

/// Decides on an application, and issues.
pub(crate) async fn enroll(core: &Arc<Core>, application: &Enrollment) -> Result<Enrolled, Error> {
    let proof = match proof(&application.proof) {
        Ok(proof) => proof,
        Err(refusal) => return Ok(refuse(core, &application.source, refusal)),
    };
    // What was acknowledged before is in sight: a token that was made a moment ago at another controller, too.
    core.sight().await?;
    let refused = |proof| core.node.shared().read().refuses_to_look(proof, core.now_ms());
    if let Some(refusal) = proof.as_ref().and_then(refused) {
        return Ok(refuse(core, &application.source, refusal));
    }
    // Only now is the request worth the time that it takes, and not on a thread that others wait for.
    let csr = application.csr.clone();
    let read = tokio::task::spawn_blocking(move || PublicKey::from_csr_der(&csr).map(|key| (key, claimed_name(&csr))));
    let (key, claims) = match read.await.map_err(|_| Error::Internal("reading a request panicked".into()))? {
        Ok(read) => read,
        Err(e) => return Ok(Enrolled::Invalid(e.to_string())),
    };
    let key_sha256 = Fingerprint::of(key.spki_der()).0.to_vec();
    let case = Case {
        transaction: transaction(proof.as_ref(), &key_sha256),
        applicant: Applicant {
            proof,
            key_sha256,
            key: algorithm_to_proto(key.algorithm()),
            source: application.source.to_canonical().to_string(),
        },
        claims,
        key,
    };
    let certificate = match &application.proof {
        Shown::Certificate(der) => Some(der.as_slice()),
        Shown::Token(_) | Shown::Nothing | Shown::Unasked => None,
    };
    match decide(core, &case, certificate, &application.source).await? {
        Some(decided) => Ok(decided),
        None => match application.proof {
            Shown::Unasked if takes_tokens(core) => Ok(Enrolled::Refused(asks_for_token())),
            _ => queue(core, &case).await,
        },
    }
}

fn takes_tokens(core: &Core) -> bool {
    let machine = core.node.shared().read().profile(sallyport_ca::Profile::Machine);
    machine.methods.contains(&v1::EnrollMethod::Token.into())
}

/// Whoever may wait for an operator and was not asked for a token yet: a question and no refusal, so nothing is written down.
fn asks_for_token() -> Refusal {
    Refusal {
        kind: RefusalKind::Unproven,
        cause: "nothing was shown, and nobody had asked for a token".into(),
        remedy: "show a token as the password of HTTP Basic, or an empty password to wait for an operator".into(),
    }
}

/// Decides on whoever has asked before, and asks with the same key what became of it; `None` if he has not.
async fn decide_poll(core: &Arc<Core>, case: &Case, source: &IpAddr) -> Result<Option<Enrolled>, Error> {
    if !core.is_ready() {
        return Err(Error::Propose(ProposeError::NoLeader));
    }
    core.sight().await?;
    decide(core, case, None, source).await
}

/// `None` is for the queue. `certificate` is what was shown, if it was one. Whoever calls this has asked for sight.
async fn decide(
    core: &Arc<Core>,
    case: &Case,
    certificate: Option<&[u8]>,
    source: &IpAddr,
) -> Result<Option<Enrolled>, Error> {
    let mut changed = String::new();
    for attempt in 0..TRIES {
        if attempt != 0 {
            core.sight().await?;
        }
        if let Some(der) = certificate
            && let Err(refusal) = is_ours(core, der)
        {
            return Ok(Some(refuse(core, source, refusal)));
        }
        if let Some(issued) = issue::again(core, case)? {
            return Ok(Some(issued));
        }
        let verdict = core.node.shared().read().authorise(&case.applicant, core.now_ms());
        let grant: Box<Grant> = match verdict {
            Verdict::Granted(grant) => grant,
            Verdict::Has(serial) => {
                return Ok(Some(match issue::kept(core, &serial).await? {
                    Some(issued) => issued,
                    None => refuse(core, source, has(&serial)),
                }));
            }
            Verdict::Waiting(_) => return Ok(Some(Enrolled::Waiting)),
            Verdict::MayQueue => return Ok(None),
            Verdict::Refused(refusal) => return Ok(Some(refuse(core, source, refusal))),
        };
        match issue::issue(core, case, &grant).await? {
            issue::Done::Issued(issued) => return Ok(Some(issued)),
            issue::Done::Again(why) => changed = why,
        }
    }
    tracing::warn!(cause = %changed, "a certificate could not be issued: what it rests on kept changing");
    Err(Error::Propose(ProposeError::Overloaded))
}

/// What was issued before this software kept certificates cannot be given again.
fn has(serial: &str) -> Refusal {
    Refusal {
        kind: RefusalKind::UsedUp,
        cause: format!("this key has the certificate {serial} already, and it is good"),
        remedy: format!(
            "renew by that certificate, or enroll with a new key; sallyport cert revoke {serial} if it is lost"
        ),
    }
}

/// SHA-256 of parts that cannot run into each other.
fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// Names the question: the same key with the same proof is the same question, however often and wherever it is asked.
fn transaction(proof: Option<&ProofKind>, key_sha256: &[u8]) -> [u8; 16] {
    let (kind, id): (&[u8], &[u8]) = match proof {
        Some(ProofKind::Token(token)) => (b"token", &token.id),
        Some(ProofKind::Certificate(serial)) => (b"certificate", serial.as_bytes()),
        Some(ProofKind::Gateway(proof)) if proof.profile() == v1::CertificateProfile::GatewayLink => {
            (b"gateway's link", proof.link.as_bytes())
        }
        Some(ProofKind::Gateway(proof)) => (b"gateway", proof.link.as_bytes()),
        Some(ProofKind::Listed(_) | ProofKind::Approved(_) | ProofKind::Office(_)) | None => (b"", b""),
    };
    let mut id16 = [0; 16];
    let hash = sha256(&[b"sallyport enrollment", kind, id, key_sha256]);
    id16.copy_from_slice(hash.first_chunk::<16>().unwrap_or(&[0; 16]));
    id16
}

fn proof(shown: &Shown) -> Result<Option<ProofKind>, Refusal> {
    let unproven =
        |cause: &str, remedy: &str| Refusal { kind: RefusalKind::Unproven, cause: cause.into(), remedy: remedy.into() };
    match shown {
        Shown::Nothing | Shown::Unasked => Ok(None),
        Shown::Token(text) => {
            let remedy = "give all of what `sallyport token create` printed, as the password";
            let token = EnrollToken::parse(text).map_err(|_| unproven("what was shown as a token is none", remedy))?;
            Ok(Some(ProofKind::Token(TokenProof { id: token.id.to_vec(), hash: token.hash().to_vec() })))
        }
        Shown::Certificate(der) => {
            let certificate = certificate_of(der)
                .ok_or_else(|| unproven("what was shown as a certificate is none", "enroll with a token"))?;
            Ok(Some(ProofKind::Certificate(certificate.serial.to_string())))
        }
    }
}

/// Most octets of a serial number, RFC 5280 §4.1.2.2.
const MAX_SERIAL: usize = 20;

/// A certificate that a stranger shows. What he was refused for is recorded with its serial number, for ever, and that of a certificate that
/// he has made himself may have all the octets that fit into a handshake.
fn certificate_of(der: &[u8]) -> Option<Certificate> {
    Certificate::from_der(der).ok().filter(|certificate| certificate.serial.as_be_bytes().len() <= MAX_SERIAL)
}

/// Whether a certificate is the one in the records, byte by byte: then this authority signed it, and it is not asked who may have
/// forged what.
fn is_ours(core: &Core, der: &[u8]) -> Result<(), Refusal> {
    let refused = |cause: String| Refusal {
        kind: RefusalKind::Unproven,
        cause,
        remedy: "renew by the certificate that this authority issued, or enroll with a token".into(),
    };
    let certificate = certificate_of(der).ok_or_else(|| refused("what was shown is no certificate".into()))?;
    let serial = certificate.serial.to_string();
    let state = core.node.shared().read();
    let recorded = state.certificates.get(&serial).is_some_and(|row| row.fingerprint == certificate.fingerprint.0);
    if recorded {
        Ok(())
    } else {
        Err(refused(format!("the log of this authority holds no certificate {serial} of this fingerprint")))
    }
}

/// Writes a refusal down.
fn noted(core: &Arc<Core>, source: &IpAddr, refusal: Refusal) -> Refusal {
    tracing::info!(%source, cause = %refusal.cause, remedy = %refusal.remedy, "refused a certificate");
    core.metrics.enrollment_refused(refusal.kind);
    crate::ledger::record_refusal(core, *source, &refusal);
    refusal
}

fn refuse(core: &Arc<Core>, source: &IpAddr, refusal: Refusal) -> Enrolled {
    Enrolled::Refused(noted(core, source, refusal))
}

async fn queue(core: &Arc<Core>, case: &Case) -> Result<Enrolled, Error> {
    let full = |cause: String| {
        let remedy = "decide on those that wait: sallyport request list".into();
        Enrolled::Refused(Refusal { kind: RefusalKind::Unproven, cause, remedy })
    };
    // A stranger who may not wait costs no entry of the log.
    let refused = core.node.shared().read().refuses_to_queue(&case.applicant.source);
    if let Some(cause) = refused {
        return Ok(full(cause));
    }
    let command = QueueRequest {
        key_sha256: case.applicant.key_sha256.clone(),
        key: case.applicant.key.into(),
        claims: case.claims.clone(),
        source: case.applicant.source.clone(),
        profile: sallyport_ca::Profile::Machine.name().into(),
    };
    match core.propose_idempotent(Action::QueueRequest(command)).await?.outcome {
        Some(Outcome::Done(_)) => {
            tracing::info!(source = %case.applicant.source, claims = %case.claims, "a request for a certificate waits for an operator");
            Ok(Enrolled::Waiting)
        }
        Some(Outcome::Conflict(c)) if c.kind() == ConflictKind::Exhausted => Ok(full(c.message)),
        other => Err(Error::Internal(format!("queueing a request: {other:?}"))),
    }
}

#[cfg(test)]
mod tests;
