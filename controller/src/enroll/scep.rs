//! SCEP (RFC 8894): from a message to the one door that all protocols come through.
//!
//! Nothing of the transaction's number is believed. A request goes by its challenge password, which is a token, or by the
//! certificate whose key has signed the message; who waits for an operator and polls is known by his key, which has signed the poll.
//! So whoever replays a transaction, or an envelope of another, gets what he would get without it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sallyport_ca::scep::{self, FailInfo, Failure, Kind, Message, RaIdentity, Request};
use sallyport_ca::{Certificate, Fingerprint, KeyAlgorithm, KeyPair, MAX_RA_VALIDITY, Serial, Service, UnixTime};
use sallyport_endpoint::{Answer, Enrollment, Proof as Shown, Protocol, ScepAnswer};
use sallyport_proto::v1;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::office::{BUSY, ControllerOffice};
use super::{Applicant, Case, transaction};
use crate::app::Core;
use crate::authority::{Issuing, algorithm_to_proto, office, record_of};
use crate::error::Error;
use crate::state::{Action, AddScepRa, CertificateRow, ConflictKind, OfficeProof, Outcome, STATUS_LEVEL, ScepRaRow};

/// Messages that are opened or sealed at a time: each costs an operation with the RA's key.
const AT_A_TIME: usize = 4;
/// How long one waits for its turn.
const TURN: Duration = Duration::from_secs(5);
/// How long an RA lives: below what is ever signed, and long enough for machines that fetch its certificate once.
const RA_LIFE: Duration = Duration::from_secs(365 * 86_400);
/// An RA is replaced when this part of its life is over; the former goes on to its end.
const RA_DUE: (u64, u64) = (5, 6);
/// Two are not made within this time, unless the first is of no use. Milliseconds.
const RA_PAUSE_MS: u64 = 3_600_000;
/// How often it is looked whether there is one, and the pause after it could not be made.
const LOOK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// Its common name.
const RA_NAME: &str = "SCEP RA";

const _: () = assert!(RA_LIFE.as_secs() <= MAX_RA_VALIDITY.as_secs());

/// An opened RA: its number, and whether it reads single DES.
type Opened = BTreeMap<(u64, bool), Arc<RaIdentity>>;

/// What one controller needs for SCEP.
#[derive(Debug)]
pub(super) struct Scep {
    opened: Mutex<Opened>,
    turns: Semaphore,
}

impl Default for Scep {
    fn default() -> Self {
        Self { opened: Mutex::default(), turns: Semaphore::new(AT_A_TIME) }
    }
}

/// How far SCEP is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct On {
    single_des: bool,
}

fn on(core: &Core) -> Option<On> {
    let state = core.node.shared().read();
    let settings = state.settings();
    settings.scep.then_some(On { single_des: settings.scep_single_des })
}

/// For GetCACert: the newest RA, and what stands above it; `None` while SCEP is off.
pub(super) fn certificates(core: &Core) -> Option<Vec<Vec<u8>>> {
    on(core).filter(|_| core.is_ready())?;
    let state = core.node.shared().read();
    let (_, row) = state.live_scep_ras(core.now_ms()).next()?;
    Some(std::iter::once(row.certificate.clone()).chain(state.chain_of(row.issuer)).collect())
}

impl Scep {
    /// The RA that a message is for, or the newest, which says so.
    fn ra(&self, core: &Core, on: On, message: &Message) -> Result<Arc<RaIdentity>, Error> {
        let rows: Vec<(u64, ScepRaRow, Vec<Vec<u8>>)> = {
            let state = core.node.shared().read();
            let live = state.live_scep_ras(core.now_ms());
            live.map(|(number, row)| (number, row.clone(), state.chain_of(row.issuer))).collect()
        };
        let mut newest = None;
        for (number, row, chain) in rows {
            let ra = self.open(core, on, number, &row, chain)?;
            if message.is_for(&ra) {
                return Ok(ra);
            }
            newest.get_or_insert(ra);
        }
        newest.ok_or_else(|| Error::Internal("SCEP has no RA yet".into()))
    }

    fn open(
        &self,
        core: &Core,
        on: On,
        number: u64,
        row: &ScepRaRow,
        chain: Vec<Vec<u8>>,
    ) -> Result<Arc<RaIdentity>, Error> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ra) = opened.get(&(number, on.single_des)) {
            return Ok(ra.clone());
        }
        let pkcs8 = core.sealer.open_scep_ra(&core.cluster_id(), number, &row.sealed_key)?;
        let made = KeyPair::from_pkcs8_der(&pkcs8).and_then(|key| RaIdentity::new(key, &row.certificate, chain));
        let ra = made.map_err(|e| Error::Authority(format!("the RA of SCEP: {e}")))?;
        let ra = Arc::new(if on.single_des { ra.accepting_single_des() } else { ra });
        // Those of before that have ended are not asked for again.
        opened.retain(|(other, _), _| number.abs_diff(*other) < 8);
        opened.insert((number, on.single_des), ra.clone());
        Ok(ra)
    }

    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        tokio::time::timeout(TURN, self.turns.acquire()).await.ok()?.ok()
    }
}

/// Off the threads that serve others: an operation with an RSA key takes a millisecond and more.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

const fn busy() -> ScepAnswer {
    ScepAnswer::Busy { retry_after: BUSY }
}

/// What is to be said, and whether a token was right.
struct Decision {
    outcome: scep::Outcome,
    token: Option<bool>,
}

fn failure(info: FailInfo, text: impl Into<String>) -> scep::Outcome {
    scep::Outcome::Failure { info, text: text.into() }
}

impl ControllerOffice {
    /// What becomes of a SCEP message.
    pub(super) async fn answer_scep(&self, message: &[u8], source: IpAddr) -> ScepAnswer {
        let Some(on) = on(&self.core) else { return ScepAnswer::Invalid("SCEP is off here".into()) };
        // Costs a verification, and turns away what is no message.
        let read = match Message::read(message) {
            Ok(read) => Ok(read),
            Err(failure) if failure.is_answered() => Err(failure),
            Err(failure) => return ScepAnswer::Invalid(failure.to_string()),
        };
        let Some(turn) = self.scep.turn().await else { return busy() };
        let (ra, read) = match read {
            Ok(message) => match self.scep.ra(&self.core, on, &message) {
                Ok(ra) => (ra, Ok(message)),
                Err(error) => return unready(&error),
            },
            Err(failure) => match self.newest_ra(on) {
                Ok(ra) => (ra, Err(failure)),
                Err(error) => return unready(&error),
            },
        };
        let (core, key) = (self.core.clone(), ra.clone());
        let opened = aside(move || {
            let rng = core.sealer.rng();
            let request = read.and_then(|message| message.open(&key, rng));
            request.map_err(|failure| (failure.reply(&key, rng), failure))
        });
        let request = match opened.await {
            Some(Ok(request)) => request,
            Some(Err((reply, failure))) => return refused(source, reply, &failure),
            None => return busy(),
        };
        drop(turn);
        let Some(Decision { outcome, token }) = self.decide_scep(&request, source).await else { return busy() };
        let Some(_turn) = self.scep.turn().await else { return busy() };
        let core = self.core.clone();
        match aside(move || scep::reply(&request, &outcome, &ra, core.sealer.rng())).await {
            Some(Ok(der)) => ScepAnswer::Reply { der, token },
            Some(Err(error)) => {
                tracing::warn!(%error, "an answer of SCEP could not be made");
                busy()
            }
            None => busy(),
        }
    }

    fn newest_ra(&self, on: On) -> Result<Arc<RaIdentity>, Error> {
        let (number, row, chain) = {
            let state = self.core.node.shared().read();
            let newest = state.live_scep_ras(self.core.now_ms()).next();
            let (number, row) = newest.ok_or_else(|| Error::Internal("SCEP has no RA yet".into()))?;
            (number, row.clone(), state.chain_of(row.issuer))
        };
        self.scep.open(&self.core, on, number, &row, chain)
    }

    /// `None` is "not now".
    async fn decide_scep(&self, request: &Request, source: IpAddr) -> Option<Decision> {
        let signer = Certificate::from_der(&request.signer).ok();
        let ours = signer.as_ref().is_some_and(|c| super::is_ours(&self.core, c.der()).is_ok());
        if request.kind == Kind::Poll {
            return self.poll(request, source).await;
        }
        // A machine that has a certificate goes by it; some clients send the password of their first request all the same.
        if ours || request.kind == Kind::Renew {
            let decision = self.apply(request, Shown::Certificate(request.signer.clone()), source).await?;
            let failed = matches!(decision.outcome, scep::Outcome::Failure { .. });
            if !failed || request.challenge.is_none() {
                return Some(decision);
            }
        }
        match &request.challenge {
            Some(token) => self.apply(request, Shown::Token(token.clone()), source).await,
            // Whoever signs with another key has taken somebody's envelope, or would never hear of his request.
            None if !request.same_key => Some(Decision {
                outcome: failure(
                    FailInfo::BadRequest,
                    "sign with the key of the request, or with a certificate of ours",
                ),
                token: None,
            }),
            None => self.apply(request, Shown::Nothing, source).await,
        }
    }

    async fn apply(&self, request: &Request, proof: Shown, source: IpAddr) -> Option<Decision> {
        let is_token = matches!(proof, Shown::Token(_));
        let csr = request.csr.clone();
        let answer = self.decide(Enrollment { protocol: Protocol::Scep, proof, csr, source }).await;
        decision(answer, is_token)
    }

    /// Whoever was told to wait asks with the key of the request.
    async fn poll(&self, request: &Request, source: IpAddr) -> Option<Decision> {
        let key = match request.signer_key() {
            Ok(key) => key,
            Err(error) => {
                return Some(Decision { outcome: failure(FailInfo::BadAlg, error.to_string()), token: None });
            }
        };
        let key_sha256 = Fingerprint::of(key.spki_der()).0.to_vec();
        let case = Case {
            transaction: transaction(None, &key_sha256),
            applicant: Applicant {
                proof: None,
                key_sha256,
                key: algorithm_to_proto(key.algorithm()),
                source: source.to_canonical().to_string(),
            },
            claims: String::new(),
            key,
        };
        let none = || failure(FailInfo::BadCertId, "no request with this key waits here; ask anew");
        match self.answered(super::decide_poll(&self.core, &case, &source).await) {
            Some(answer) => decision(answer, false),
            None => Some(Decision { outcome: none(), token: None }),
        }
    }
}

fn unready(error: &Error) -> ScepAnswer {
    tracing::warn!(%error, "a message of SCEP cannot be answered");
    busy()
}

fn refused(source: IpAddr, reply: Option<Vec<u8>>, failure: &Failure) -> ScepAnswer {
    tracing::info!(%source, cause = %failure, "refused a message of SCEP");
    match reply {
        Some(der) => ScepAnswer::Reply { der, token: None },
        None => ScepAnswer::Invalid(failure.to_string()),
    }
}

fn decision(answer: Answer, is_token: bool) -> Option<Decision> {
    let token = |right| is_token.then_some(right);
    Some(match answer {
        Answer::Issued { certificate, chain, .. } => {
            Decision { outcome: scep::Outcome::Success { certificate, chain }, token: token(true) }
        }
        Answer::Pending { .. } => Decision { outcome: scep::Outcome::Pending, token: token(true) },
        Answer::Denied { text, authenticate } => {
            let wrong = if authenticate { token(false) } else { None };
            Decision { outcome: failure(FailInfo::BadRequest, text), token: wrong }
        }
        Answer::Invalid(text) => Decision { outcome: failure(FailInfo::BadAlg, text), token: None },
        Answer::Busy { .. } => return None,
    })
}

/// Sees that there is an RA while SCEP is on: the leader makes it.
pub(crate) async fn keep_ra(core: Arc<Core>) {
    loop {
        let pause = match refresh(&core).await {
            Ok(()) => LOOK.0,
            Err(error) => {
                tracing::warn!(%error, "no RA for SCEP; trying again");
                LOOK.1
            }
        };
        tokio::time::sleep(pause).await;
    }
}

fn is_due(core: &Core, now_ms: u64) -> bool {
    let state = core.node.shared().read();
    if state.level() < STATUS_LEVEL || !state.settings().scep {
        return false;
    }
    let newest = state.live_scep_ras(now_ms).next();
    let Some((_, row)) = newest else { return true };
    // One of an authority that has retired goes with it.
    if state.issuers.get(&row.issuer).is_none_or(|issuer| !issuer.in_force()) {
        return true;
    }
    let life_ms = row.not_after_ms.saturating_sub(row.made_ms);
    let due_ms = row.made_ms.saturating_add((life_ms / RA_DUE.1 * RA_DUE.0).max(RA_PAUSE_MS));
    now_ms >= due_ms
}

/// Makes an RA if one is due and this node leads.
pub(super) async fn refresh(core: &Arc<Core>) -> Result<(), Error> {
    let now_ms = core.now_ms();
    if !core.is_ready() || !core.node.leads() || !is_due(core, now_ms) {
        return Ok(());
    }
    core.linearizable().await?;
    let issuing = core.issuing(KeyAlgorithm::Rsa2048)?;
    let (issuer, number) = (issuing.number, core.node.shared().read().next_scep_ra());
    if office::intends(core) {
        return make_by_intent(core, issuing, number, now_ms).await;
    }
    let worker = core.clone();
    let made = aside(move || -> Result<_, sallyport_ca::Error> {
        let rng = worker.sealer.rng();
        let key = KeyPair::generate(KeyAlgorithm::Rsa2048, rng)?;
        let now = UnixTime(i64::try_from(now_ms / 1_000).unwrap_or(i64::MAX));
        let serial = Serial::generate(rng)?;
        let certificate = issuing.authority.issue_scep_ra(RA_NAME, &key.public_key(), now, RA_LIFE, serial, rng)?;
        Ok((key, certificate))
    });
    let made = made.await.ok_or_else(|| Error::Internal("making an RA panicked".into()))?;
    let (key, certificate) = made.map_err(|e| Error::Authority(e.to_string()))?;
    let profile = v1::CertificateProfile::ScepRa;
    let record = record_of(&certificate, profile, RA_NAME, Vec::new(), KeyAlgorithm::Rsa2048);
    let serial = record.serial.clone();
    let command = AddScepRa {
        number,
        certificate: certificate.der().to_vec(),
        sealed_key: core.sealer.seal_scep_ra(&core.cluster_id(), number, key.pkcs8_der())?,
        record: Some(CertificateRow { issuer, ..record }),
    };
    match core.propose(Action::AddScepRa(command)).await?.outcome {
        Some(Outcome::Done(_)) => {
            tracing::info!(number, %serial, "SCEP has a new RA");
            Ok(())
        }
        // Another leader was first.
        Some(Outcome::Conflict(c)) if c.kind() == ConflictKind::Changed => Ok(()),
        other => Err(Error::Internal(format!("recording an RA: {other:?}"))),
    }
}

/// The same where what will be signed is in the log before.
async fn make_by_intent(core: &Arc<Core>, issuing: Issuing, number: u64, now_ms: u64) -> Result<(), Error> {
    let (issuer, worker) = (issuing.number, core.clone());
    let drafted = aside(move || -> Result<_, sallyport_ca::Error> {
        let rng = worker.sealer.rng();
        let key = KeyPair::generate(KeyAlgorithm::Rsa2048, rng)?;
        let now = UnixTime(i64::try_from(now_ms / 1_000).unwrap_or(i64::MAX));
        let (public, serial) = (key.public_key(), Serial::generate(rng)?);
        let of = serial.clone();
        let draft = issuing.authority.prepare_service(Service::ScepRa, RA_NAME, &public, now, RA_LIFE, of)?;
        Ok((key, draft, serial))
    });
    let drafted = drafted.await.ok_or_else(|| Error::Internal("making an RA panicked".into()))?;
    let (key, (tbs, period), serial) = drafted.map_err(|e| Error::Authority(e.to_string()))?;
    let profile = v1::CertificateProfile::ScepRa;
    let before = office::record_before(&serial, period, profile, RA_NAME, KeyAlgorithm::Rsa2048);
    let sealed_key = core.sealer.seal_scep_ra(&core.cluster_id(), number, key.pkcs8_der())?;
    let wished = office::Wished {
        tbs,
        record: CertificateRow { issuer, ..before },
        key_sha256: Fingerprint::of(key.public_key().spki_der()).0,
        profile_version: 0,
        office: OfficeProof { sealed_key, number, ..OfficeProof::default() },
    };
    match office::issue(core, wished).await {
        Ok(issued) => {
            tracing::info!(number, serial = %issued.serial, "SCEP has a new RA");
            Ok(())
        }
        // Another leader was first.
        Err(Error::Superseded(_)) => Ok(()),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests;
