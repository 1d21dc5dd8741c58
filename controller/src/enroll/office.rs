//! What the enrollment endpoint asks of this controller.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use sallyport_ca::KeyPair;
use sallyport_endpoint::{Answer, Crl, Enrollment, Office, Protocol, ScepAnswer};
use tokio::sync::Semaphore;

use super::Enrolled;
use super::ocsp::Ocsp;
use super::scep::{self, Scep};
use crate::app::Core;
use crate::error::Error;
use crate::lists::Part;
use crate::raft::ProposeError;
use crate::state::{Refusal, RefusalKind};

/// When to ask again while an operator has yet to decide.
const DECISION: Duration = Duration::from_secs(60);
/// When to ask again while the group has no leader, or too much to do.
pub(super) const BUSY: Duration = Duration::from_secs(5);
/// Keys that are made for machines at a time.
const KEYS: usize = 2;

/// The office of one controller.
#[derive(Clone)]
pub(crate) struct ControllerOffice {
    pub(super) core: Arc<Core>,
    pub(super) ocsp: Arc<Ocsp>,
    pub(super) scep: Arc<Scep>,
    /// Room for keys that are being made.
    pub(super) keys: Arc<Semaphore>,
}

impl ControllerOffice {
    /// The office over `core`.
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core, ocsp: Arc::default(), scep: Arc::default(), keys: Arc::new(Semaphore::new(KEYS)) }
    }

    /// Answers of OCSP that were signed so far.
    pub(crate) fn ocsp_signatures(&self) -> u64 {
        self.ocsp.signed()
    }

    /// Decides on an application of any protocol.
    pub(super) async fn decide(&self, mut request: Enrollment) -> Answer {
        if !self.core.is_ready() {
            return Answer::Busy { retry_after: BUSY };
        }
        let made = match request.protocol {
            Protocol::EstServerKey => match self.key_for(&mut request).await {
                Ok(key) => Some(key),
                Err(answer) => return answer,
            },
            Protocol::Est | Protocol::EstRenewal | Protocol::Scep => None,
        };
        let key = made.map(|key| zeroize::Zeroizing::new(key.pkcs8_der().to_vec()));
        let enrolled = super::enroll(&self.core, &request).await.map(Some);
        match self.answered(enrolled) {
            Some(Answer::Issued { certificate, chain, .. }) => Answer::Issued { certificate, chain, private_key: key },
            Some(other) => other,
            None => Answer::Busy { retry_after: BUSY }, // there is always something
        }
    }

    /// What is said of a decision; `None` of none.
    pub(super) fn answered(&self, enrolled: Result<Option<Enrolled>, Error>) -> Option<Answer> {
        let enrolled = enrolled.transpose()?;
        Some(match enrolled {
            Ok(Enrolled::Issued { certificate, chain }) => Answer::Issued { certificate, chain, private_key: None },
            Ok(Enrolled::Waiting) => Answer::Pending {
                retry_after: DECISION,
                text: "the request waits for an operator: sallyport request list shows it".into(),
            },
            Ok(Enrolled::Refused(refusal)) => denied(&refusal),
            Ok(Enrolled::Invalid(text)) => Answer::Invalid(text),
            Err(Error::Propose(ProposeError::Level(text))) => Answer::Denied { text, authenticate: false },
            Err(error) => {
                tracing::warn!(%error, "a request for a certificate could not be decided");
                Answer::Busy { retry_after: BUSY }
            }
        })
    }

    /// The key that a machine asked for (RFC 7030 §4.4), and the request as if it had made it itself.
    async fn key_for(&self, request: &mut Enrollment) -> Result<KeyPair, Answer> {
        if !self.core.node.shared().read().profile(sallyport_ca::Profile::Machine).server_keys {
            let text = "the controllers make no keys for machines; an operator can allow it: \
                        sallyport cert profile set machine --server-keys";
            return Err(Answer::Denied { text: text.into(), authenticate: false });
        }
        match super::may_have_key(&self.core, request).await {
            Ok(Ok(())) => {}
            Ok(Err(refusal)) => return Err(denied(&super::noted(&self.core, &request.source, refusal))),
            Err(Error::Refused(text)) => return Err(Answer::Invalid(text)),
            Err(_) => return Err(Answer::Busy { retry_after: BUSY }),
        }
        let wanted = sallyport_ca::PublicKey::from_csr_der(&request.csr).map_err(|e| Answer::Invalid(e.to_string()))?;
        // An RSA key takes a second and more of a core.
        let Ok(place) = self.keys.clone().try_acquire_owned() else {
            return Err(Answer::Busy { retry_after: BUSY });
        };
        let core = self.core.clone();
        let made = tokio::task::spawn_blocking(move || {
            let _place = place; // also if nobody waits for the key any more
            let rng = core.sealer.rng();
            let key = KeyPair::generate(wanted.algorithm(), rng)?;
            let csr = key.request("machine", None, rng)?;
            Ok::<_, sallyport_ca::Error>((key, csr))
        });
        match made.await {
            Ok(Ok((key, csr))) => {
                request.csr = csr.to_vec();
                Ok(key)
            }
            Ok(Err(_)) | Err(_) => Err(Answer::Busy { retry_after: BUSY }),
        }
    }
}

/// What a stranger hears: enough to go on, and nothing about others.
fn denied(refusal: &Refusal) -> Answer {
    let (text, authenticate) = match refusal.kind {
        RefusalKind::Unproven => {
            ("show a token that is good, or the machine's present certificate; ask your operator for a token", true)
        }
        RefusalKind::Ended => ("what was shown has ended; ask your operator for a token", true),
        RefusalKind::UsedUp => ("what was shown was used up; ask your operator for a token", true),
        RefusalKind::Revoked => ("the certificate is revoked", false),
        RefusalKind::TooOften => ("this machine has renewed too often; it can again a day later", false),
        RefusalKind::Decided => ("an operator decided against this request", false),
        RefusalKind::Profile => ("the operators do not allow this kind of key, name or way", false),
    };
    Answer::Denied { text: text.into(), authenticate }
}

impl ControllerOffice {
    async fn list(&self, issuer: u64, part: Part) -> Option<Crl> {
        if !self.core.is_ready() {
            return None;
        }
        match self.core.lists.list(&self.core, issuer, part).await {
            Ok(list) => Some(list),
            Err(Error::Refused(_)) => None, // there is none
            Err(error) => {
                tracing::warn!(issuer, %error, "a revocation list could not be made");
                None
            }
        }
    }
}

impl Office for ControllerOffice {
    async fn enroll(&self, request: Enrollment) -> Answer {
        self.decide(request).await
    }

    fn authorities(&self) -> Vec<Vec<u8>> {
        let state = self.core.node.shared().read();
        let issuers = state.issuers_in_force().map(|(_, row)| &row.certificate);
        let above = state.cross_certificates();
        issuers.cloned().chain(above).chain(state.trusted_roots().map(|(_, root)| root.certificate.clone())).collect()
    }

    fn authority(&self, issuer: u64) -> Option<Vec<u8>> {
        let state = self.core.node.shared().read();
        match issuer {
            0 => state.root_in_force().map(|(_, root)| root.certificate.clone()),
            number => state.issuers.get(&number).map(|row| row.certificate.clone()),
        }
    }

    async fn crl(&self, issuer: u64, shard: Option<u32>) -> Option<Crl> {
        self.list(issuer, shard.map_or(Part::Whole, Part::Shard)).await
    }

    async fn delta_crl(&self, issuer: u64, shard: Option<u32>) -> Option<Crl> {
        self.list(issuer, shard.map_or(Part::WholeDelta, Part::ShardDelta)).await
    }

    async fn ocsp(&self, request: Vec<u8>) -> Vec<u8> {
        self.ocsp.answer(&self.core, &request).await
    }

    fn scep_ca(&self) -> Option<Vec<Vec<u8>>> {
        scep::certificates(&self.core)
    }

    async fn scep(&self, message: Vec<u8>, source: IpAddr) -> ScepAnswer {
        self.answer_scep(&message, source).await
    }

    fn names(&self) -> Vec<String> {
        crate::front::public_names(&self.core)
    }
}
