//! Answers of OCSP (RFC 6960): each controller's own, from what it has applied.
//!
//! A controller signs with short-lived keys of its own, one below each issuing authority, retired ones included; they are made when
//! somebody first asks. What the log never issued is `unknown`, which no client takes for good. The root is not asked this way:
//! its key may be elsewhere, and what it has signed are authorities, which are on its list; such questions are `unauthorized`.
//!
//! An answer without a nonce is kept and given again as long as what it says is so; the same question costs no second signature.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ring::digest;
use sallyport_ca::crl::Status;
use sallyport_ca::ocsp::{CertId, Issuer, Refusal, Request, Responder, Validity};
use sallyport_ca::{Fingerprint, KeyAlgorithm, KeyPair, Serial, Service, UnixTime};
use sallyport_proto::v1;
use tokio::sync::Semaphore;

use crate::app::Core;
use crate::authority::{Issuing, office, record_of};
use crate::error::Error;
use crate::state::{Action, CertificateRow, OfficeProof, Outcome, RecordCertificate, State};

/// How long an answer is good, seconds.
const GOOD_S: i64 = 3_600;
/// An answer that is older is not given again. Milliseconds.
const FRESH_MS: u64 = 30 * 60 * 1_000;
/// Most answers that are kept, and their octets.
const MAX_KEPT: usize = 8_192;
const MAX_KEPT_OCTETS: usize = 8 << 20;
/// How long a signer's certificate lives; another one is made at half of that.
const SIGNER_LIFE: Duration = Duration::from_secs(3 * 86_400);
/// Pause after a signer could not be made. Milliseconds.
const AGAIN_MS: u64 = 5_000;
/// The others are asked at most so often whether this node knows all that was acknowledged. Milliseconds.
const SIGHT_MS: u64 = 1_000;
/// How long they may take.
const SIGHT_TIME: Duration = Duration::from_millis(1_500);
/// A node that has not heard of the group for so long says nothing any more: it may have been left out. Milliseconds.
const STALE_MS: u64 = 10 * 60 * 1_000;
/// Signatures at a time.
const SIGNATURES: usize = 4;

/// A signer at work.
#[derive(Debug)]
struct Signer {
    responder: Responder,
    is_rsa: bool,
    serial: String,
    /// When another one is due, and when it ends, log's time.
    due_ms: u64,
    not_after_ms: u64,
}

#[derive(Debug, Default)]
struct Slot {
    signer: Mutex<Option<Arc<Signer>>>,
    /// Held by whoever makes another; when that was last tried, log's time.
    making: Arc<tokio::sync::Mutex<Option<u64>>>,
}

impl Slot {
    /// The present signer, unless it has ended or was revoked.
    fn good(&self, core: &Core) -> Option<Arc<Signer>> {
        let signer = lock(&self.signer).clone()?;
        let state = core.node.shared().read();
        let revoked = state.certificates.get(&signer.serial).is_none_or(|row| row.revoked_ms != 0);
        (!revoked && core.now_ms() < signer.not_after_ms).then_some(signer)
    }

    /// Makes another one. `tried` is what [`Self::making`] guards.
    async fn make(&self, core: &Arc<Core>, issuer: u64, tried: &mut Option<u64>) -> Result<Arc<Signer>, Refusal> {
        let now_ms = core.now_ms();
        if tried.is_some_and(|at| now_ms.saturating_sub(at) < AGAIN_MS) {
            return Err(Refusal::TryLater);
        }
        match make(core, issuer).await {
            Ok(signer) => {
                *tried = None;
                let signer = Arc::new(signer);
                *lock(&self.signer) = Some(signer.clone());
                Ok(signer)
            }
            Err(error) => {
                *tried = Some(now_ms);
                tracing::warn!(issuer, %error, "no signer for OCSP; trying again");
                Err(Refusal::TryLater)
            }
        }
    }
}

/// A key and a certificate to sign answers with, recorded before anybody sees it. The key is in this process only.
async fn make(core: &Arc<Core>, issuer: u64) -> Result<Signer, Error> {
    let issuing = core.issuing_by(issuer)?;
    if office::intends(core) {
        return make_by_intent(core, issuing).await;
    }
    // Whoever can verify the authority's signature can verify one of the same kind.
    let is_rsa = issuing.authority.key_algorithm().is_rsa();
    let kind = if is_rsa { KeyAlgorithm::Rsa2048 } else { KeyAlgorithm::EcdsaP256 };
    let name = format!("OCSP signer {} of controller {}", issuer, core.node.id());
    let (worker, common_name, now_ms) = (core.clone(), name.clone(), core.now_ms());
    let made = tokio::task::spawn_blocking(move || -> Result<_, sallyport_ca::Error> {
        let rng = worker.sealer.rng();
        let key = KeyPair::generate(kind, rng)?;
        let (public, serial, now) = (key.public_key(), Serial::generate(rng)?, time(now_ms));
        let authority = &issuing.authority;
        let certificate = authority.issue_ocsp_signer(&common_name, &public, now, SIGNER_LIFE, serial, rng)?;
        Ok((key, certificate))
    });
    let (key, certificate) = made
        .await
        .map_err(|_| Error::Internal("making a signer panicked".into()))?
        .map_err(|e| Error::Authority(e.to_string()))?;
    let record = record_of(&certificate, v1::CertificateProfile::OcspSigner, &name, Vec::new(), kind);
    let (serial, not_after_ms) = (record.serial.clone(), record.not_after_ms);
    // With the member: it is revoked when that is removed.
    let record = CertificateRow { member: core.node.id(), issuer, ..record };
    let command = RecordCertificate { record: Some(record), answer: Vec::new() };
    match core.propose(Action::RecordCertificate(command)).await?.outcome {
        Some(Outcome::Done(_)) => core.catch_up().await,
        other => return Err(Error::Internal(format!("recording a signer: {other:?}"))),
    }
    let responder =
        Responder::new(key, certificate.der()).map_err(|e| Error::Internal(format!("the signer of OCSP: {e}")))?;
    tracing::info!(issuer, %serial, "this controller has a signer for OCSP");
    let due_ms = now_ms.saturating_add(not_after_ms.saturating_sub(now_ms) / 2);
    Ok(Signer { responder, is_rsa, serial, due_ms, not_after_ms })
}

/// The same where what will be signed is in the log before.
async fn make_by_intent(core: &Arc<Core>, issuing: Issuing) -> Result<Signer, Error> {
    let issuer = issuing.number;
    let is_rsa = issuing.authority.key_algorithm().is_rsa();
    let kind = if is_rsa { KeyAlgorithm::Rsa2048 } else { KeyAlgorithm::EcdsaP256 };
    let name = format!("OCSP signer {} of controller {}", issuer, core.node.id());
    let (worker, common_name, now_ms) = (core.clone(), name.clone(), core.now_ms());
    let drafted = tokio::task::spawn_blocking(move || -> Result<_, sallyport_ca::Error> {
        let rng = worker.sealer.rng();
        let key = KeyPair::generate(kind, rng)?;
        let (public, serial, now) = (key.public_key(), Serial::generate(rng)?, time(now_ms));
        let (service, of) = (Service::OcspSigner, serial.clone());
        let draft = issuing.authority.prepare_service(service, &common_name, &public, now, SIGNER_LIFE, of)?;
        Ok((key, draft, serial))
    });
    let (key, (tbs, period), serial) = drafted
        .await
        .map_err(|_| Error::Internal("making a signer panicked".into()))?
        .map_err(|e| Error::Authority(e.to_string()))?;
    let before = office::record_before(&serial, period, v1::CertificateProfile::OcspSigner, &name, kind);
    // With the member: it is revoked when that is removed.
    let record = CertificateRow { member: core.node.id(), issuer, ..before };
    let not_after_ms = record.not_after_ms;
    let key_sha256 = Fingerprint::of(key.public_key().spki_der()).0;
    let wished = office::Wished { tbs, record, key_sha256, profile_version: 0, office: OfficeProof::default() };
    let issued = office::issue(core, wished).await?;
    let responder = Responder::new(key, &issued.certificate);
    let responder = responder.map_err(|e| Error::Internal(format!("the signer of OCSP: {e}")))?;
    tracing::info!(issuer, serial = %issued.serial, "this controller has a signer for OCSP");
    let due_ms = now_ms.saturating_add(not_after_ms.saturating_sub(now_ms) / 2);
    Ok(Signer { responder, is_rsa, serial: issued.serial, due_ms, not_after_ms })
}

/// An answer and what it says.
#[derive(Debug)]
struct Made {
    statuses: Vec<Status>,
    serial: String,
    at_ms: u64,
    number: u64,
    der: Vec<u8>,
}

#[derive(Debug, Default)]
struct Kept {
    answers: BTreeMap<[u8; 32], Made>,
    /// In the order in which they were made.
    order: VecDeque<(u64, [u8; 32])>,
    octets: usize,
    last: u64,
}

impl Kept {
    fn put(&mut self, question: [u8; 32], made: Made) {
        self.last += 1;
        self.octets += made.der.len();
        self.order.push_back((self.last, question));
        if let Some(before) = self.answers.insert(question, Made { number: self.last, ..made }) {
            self.octets -= before.der.len();
        }
        while self.order.len() > MAX_KEPT || self.octets > MAX_KEPT_OCTETS {
            let Some((number, question)) = self.order.pop_front() else { break };
            if self.answers.get(&question).is_some_and(|made| made.number == number)
                && let Some(gone) = self.answers.remove(&question)
            {
                self.octets -= gone.der.len();
            }
        }
    }
}

/// When this node last showed all that was acknowledged, and when it last asked; log's time, 0 for never.
#[derive(Debug, Default)]
struct Sight {
    seen_ms: u64,
    asked_ms: u64,
}

/// The responder of one controller.
#[derive(Debug)]
pub(super) struct Ocsp {
    issuers: Mutex<BTreeMap<u64, Arc<Issuer>>>,
    slots: Mutex<BTreeMap<u64, Arc<Slot>>>,
    kept: Mutex<Kept>,
    sight: tokio::sync::Mutex<Sight>,
    signatures: Semaphore,
    signed: AtomicU64,
}

impl Default for Ocsp {
    fn default() -> Self {
        Self {
            issuers: Mutex::default(),
            slots: Mutex::default(),
            kept: Mutex::default(),
            sight: tokio::sync::Mutex::default(),
            signatures: Semaphore::new(SIGNATURES),
            signed: AtomicU64::new(0),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one call: whoever panicked left it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn time(ms: u64) -> UnixTime {
    UnixTime(i64::try_from(ms / 1_000).unwrap_or(i64::MAX))
}

/// What the log says of a certificate of an issuing authority.
fn status(state: &State, issuer: u64, serial: &Serial) -> Status {
    let serial = serial.to_string();
    let known = state.certificates.get(&serial).map(|row| (row.issuer, row.revoked_ms, row.told_reason()));
    let known = known.or_else(|| state.ended.get(&serial).map(|old| (old.issuer, old.revoked_ms, old.reason)));
    match known {
        Some((of, 0, _)) if of == issuer => Status::Good,
        Some((of, at, reason)) if of == issuer => Status::Revoked { at: time(at), reason },
        _ => Status::Unknown,
    }
}

/// What is asked for, whoever asks and however he calls himself.
fn question(request: &Request) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for id in &request.ids {
        context.update(id.der()); // delimits itself
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

impl Ocsp {
    /// The OCSPResponse in DER to an OCSPRequest.
    pub(super) async fn answer(&self, core: &Arc<Core>, request: &[u8]) -> Vec<u8> {
        match self.respond(core, request).await {
            Ok(answer) => answer,
            Err(refusal) => refusal.response().to_vec(),
        }
    }

    /// Signatures made so far.
    pub(super) fn signed(&self) -> u64 {
        self.signed.load(Ordering::Relaxed)
    }

    async fn respond(&self, core: &Arc<Core>, request: &[u8]) -> Result<Vec<u8>, Refusal> {
        let request = Request::parse(request)?;
        if !core.is_ready() {
            return Err(Refusal::TryLater);
        }
        let issuer = self.asked_of(core, &request).ok_or(Refusal::Unauthorized)?;
        let seen_ms = self.seen_ms(core).await.ok_or(Refusal::TryLater)?;
        let signer = self.signer(core, issuer).await?;
        let question = request.nonce.is_none().then(|| question(&request));
        if let Some(kept) = question.and_then(|q| self.kept(core, issuer, &request, &signer, &q)) {
            return Ok(kept);
        }
        let _permit = self.signatures.acquire().await.map_err(|_| Refusal::InternalError)?;
        // Somebody may have asked the same meanwhile.
        if let Some(kept) = question.and_then(|q| self.kept(core, issuer, &request, &signer, &q)) {
            return Ok(kept);
        }
        let statuses = self.statuses(core, issuer, &request);
        // What is said to be revoked was so when it is said.
        let revoked = statuses.iter().filter_map(|status| match status {
            Status::Revoked { at, .. } => Some(*at),
            Status::Good | Status::Unknown => None,
        });
        let at = revoked.fold(time(seen_ms), UnixTime::max);
        // No answer outlives its signer's certificate.
        let until = UnixTime(at.0.saturating_add(GOOD_S).min(time(signer.not_after_ms).0));
        let (worker, of, by) = (core.clone(), statuses.clone(), signer.clone());
        let sign = move || {
            let mut statuses = of.into_iter();
            let next = |_: &_| statuses.next().unwrap_or(Status::Unknown);
            by.responder.answer(&request, next, Validity { from: at, until }, worker.sealer.rng())
        };
        self.signed.fetch_add(1, Ordering::Relaxed);
        // An elliptic signature takes less than handing it to another thread would.
        let der = if signer.is_rsa {
            tokio::task::spawn_blocking(sign).await.map_err(|_| Refusal::InternalError)?
        } else {
            sign()
        };
        let der = der.map_err(|error| {
            tracing::warn!(issuer, %error, "an answer of OCSP could not be signed");
            Refusal::InternalError
        })?;
        if let Some(question) = question {
            let serial = signer.serial.clone();
            lock(&self.kept).put(question, Made { statuses, serial, at_ms: seen_ms, number: 0, der: der.clone() });
        }
        Ok(der)
    }

    /// The first issuing authority that is asked about: the answer is signed below it, and says of other authorities' certificates
    /// that this signer does not know them.
    fn asked_of(&self, core: &Core, request: &Request) -> Option<u64> {
        let now_ms = core.now_ms();
        let mut issuers = lock(&self.issuers);
        let state = core.node.shared().read();
        for (number, row) in state.issuers.iter() {
            if !issuers.contains_key(number)
                && let Ok(issuer) = Issuer::of(&row.certificate)
            {
                issuers.insert(*number, Arc::new(issuer));
            }
        }
        // Below an authority that has ended nothing is valid, and no signer either.
        let live = |number: &u64| {
            let row = state.issuers.get(number).and_then(|row| state.certificates.get(&row.serial));
            row.is_some_and(|record| record.not_after_ms > now_ms)
        };
        let of = |id: &CertId| issuers.iter().find(|(number, issuer)| live(number) && id.is_of(issuer));
        request.ids.iter().find_map(of).map(|(number, _)| *number)
    }

    fn statuses(&self, core: &Core, number: u64, request: &Request) -> Vec<Status> {
        let Some(issuer) = lock(&self.issuers).get(&number).cloned() else { return Vec::new() };
        let state = core.node.shared().read();
        let of = |id: &CertId| match id.is_of(&issuer) {
            true => status(&state, number, id.serial()),
            false => Status::Unknown,
        };
        request.ids.iter().map(of).collect()
    }

    /// The answer that was given before, if it is still so.
    fn kept(
        &self,
        core: &Core,
        issuer: u64,
        request: &Request,
        signer: &Signer,
        question: &[u8; 32],
    ) -> Option<Vec<u8>> {
        let statuses = self.statuses(core, issuer, request);
        let kept = lock(&self.kept);
        let made = kept.answers.get(question)?;
        let young = core.now_ms().saturating_sub(made.at_ms) < FRESH_MS;
        (young && made.statuses == statuses && made.serial == signer.serial).then(|| made.der.clone())
    }

    /// The log's time at which this node last knew all that was acknowledged; `None` if that is too long ago. All who wait share one
    /// question to the others.
    async fn seen_ms(&self, core: &Core) -> Option<u64> {
        let mut sight = self.sight.lock().await;
        let now_ms = core.now_ms();
        if sight.asked_ms == 0 || now_ms.saturating_sub(sight.asked_ms) >= SIGHT_MS {
            match tokio::time::timeout(SIGHT_TIME, core.sight()).await {
                Ok(Ok(_)) => sight.seen_ms = now_ms,
                Ok(Err(error)) => tracing::debug!(%error, "OCSP is answered by what was known before"),
                Err(_) => tracing::debug!("OCSP is answered by what was known before: the others do not answer"),
            }
            sight.asked_ms = core.now_ms().max(1);
        }
        let seen_ms = Some(sight.seen_ms).filter(|seen| *seen != 0)?;
        (core.now_ms().saturating_sub(seen_ms) <= STALE_MS).then_some(seen_ms)
    }

    /// Who signs below an issuing authority; another one is made in time.
    async fn signer(&self, core: &Arc<Core>, issuer: u64) -> Result<Arc<Signer>, Refusal> {
        let slot = lock(&self.slots).entry(issuer).or_default().clone();
        if let Some(signer) = slot.good(core) {
            if core.now_ms() >= signer.due_ms
                && let Ok(mut tried) = slot.making.clone().try_lock_owned()
            {
                let (core, slot) = (core.clone(), slot.clone());
                // What fails is said there, and the present one goes on.
                tokio::spawn(async move { slot.make(&core, issuer, &mut tried).await.map(drop) });
            }
            return Ok(signer);
        }
        let mut tried = slot.making.lock().await;
        if let Some(signer) = slot.good(core) {
            return Ok(signer);
        }
        slot.make(core, issuer, &mut tried).await
    }
}

#[cfg(test)]
mod tests;
