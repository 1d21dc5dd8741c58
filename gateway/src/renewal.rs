//! The gateway's own certificates: renewed in time, and whenever operators change its public names, with no restart and no lost
//! session. New keys are made here; the controllers say which names stand in the certificates.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sallyport_ca::roots::Roots;
use sallyport_ca::{AltName, Certificate, KeyAlgorithm, KeyPair, PublicKey, SystemRandom, UnixTime, pem};
use sallyport_proto::{possession, v1};
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::app::{self, StartError};
use crate::control::controller::Controllers;
use crate::first;
use crate::folder;
use crate::identity::{Identity, IkeIdentity};
use crate::metrics::Metrics;

/// How often it is looked whether something is due, when nobody says so.
const LOOK: Duration = Duration::from_secs(60);
/// First and longest pause after a failure.
const AGAIN: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3_600));

/// Why a certificate could not be had, or is not used. What was in force stays in force.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// No controller gives one.
    #[error("{0}")]
    Refused(String),
    /// What came back is not what was asked for.
    #[error("what the controllers sent is not usable: {0}")]
    Unusable(String),
    /// The key could not be made.
    #[error("making a key failed: {0}")]
    Key(String),
}

impl From<StartError> for RenewalError {
    fn from(error: StartError) -> Self {
        Self::Unusable(error.to_string())
    }
}

/// One of the gateway's certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Slot {
    Link,
    /// The place among those for IKE.
    Ike(usize),
}

impl Slot {
    const fn purpose(self) -> v1::GatewayPurpose {
        match self {
            Self::Link => v1::GatewayPurpose::Link,
            Self::Ike(_) => v1::GatewayPurpose::Ike,
        }
    }
}

/// A key and its request, kept until there is an answer: asked again, it is the same question.
struct Pending {
    key: KeyPair,
    csr: Vec<u8>,
}

/// Makes a key and a request.
pub(crate) async fn fresh(algorithm: KeyAlgorithm) -> Result<(KeyPair, Vec<u8>), RenewalError> {
    // An RSA key takes a tenth of a second and more.
    let made = tokio::task::spawn_blocking(move || {
        let rng = SystemRandom::new();
        let key = KeyPair::generate(algorithm, &rng)?;
        let csr = key.request("gateway", None, &rng)?.to_vec();
        Ok::<_, sallyport_ca::Error>((key, csr))
    });
    let failed = |e: &dyn std::fmt::Display| RenewalError::Key(e.to_string());
    made.await.map_err(|e| failed(&e))?.map_err(|e| failed(&e))
}

/// A certificate for this key, checked as far as it can be without the roots, and what it shows: without the root, PEM.
pub(crate) fn shown(key: &PublicKey, certificate: &[u8], chain: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, RenewalError> {
    let leaf = Certificate::from_der(certificate).map_err(|e| RenewalError::Unusable(e.to_string()))?;
    if leaf.spki_der() != key.spki_der() {
        return Err(RenewalError::Unusable("the certificate is for another key".into()));
    }
    let between = chain.split_last().map_or(&[][..], |(_, between)| between);
    Ok(std::iter::once(certificate.to_vec()).chain(between.iter().cloned()).collect())
}

/// Certificates one behind the other, PEM.
pub(crate) fn pems(chain: &[Vec<u8>]) -> Vec<u8> {
    let text: String = chain.iter().map(|der| pem::encode("CERTIFICATE", der).to_string()).collect();
    text.into_bytes()
}

/// Proof that the key of a certificate is held, for a request.
pub(crate) fn possess(
    certificate: &[u8],
    key: &KeyPair,
    purpose: v1::GatewayPurpose,
    csr: &[u8],
) -> Result<v1::Possession, RenewalError> {
    let signature = key.sign(&possession::input(purpose, csr), &SystemRandom::new());
    let signature = signature.map_err(|e| RenewalError::Key(e.to_string()))?;
    Ok(v1::Possession { certificate: certificate.to_vec(), signature })
}

/// Keeps an identity in its folder; where that cannot be, the gateway goes on with what is in memory.
pub(crate) fn keep(dir: &Path, identity: &Identity) {
    match folder::write(dir, identity) {
        Ok(()) => info!(folder = %dir.display(), "the gateway's new certificates are kept"),
        Err(error) => warn!(
            folder = %dir.display(), %error,
            "the gateway's new certificates cannot be kept in its folder: they are in memory only, and the next start begins with those \
             before"
        ),
    }
}

/// Looks after the certificates of one gateway.
pub struct Renewer {
    controllers: Controllers,
    identity: Identity,
    /// Where they are kept; nowhere for one that keeps nothing.
    dir: Option<PathBuf>,
    metrics: Option<Arc<Metrics>>,
    pending: BTreeMap<Slot, Pending>,
    /// Who issued, in their words, when certificates were last renewed because another authority does.
    followed: Vec<Vec<u8>>,
    /// Counts the sets of credentials, so that handshakes under way end with the key that they began with.
    generation: u32,
}

impl Renewer {
    /// For a gateway with this identity.
    pub fn new(
        controllers: Controllers,
        identity: Identity,
        dir: Option<PathBuf>,
        metrics: Option<Arc<Metrics>>,
    ) -> Self {
        let this =
            Self { controllers, identity, dir, metrics, pending: BTreeMap::new(), followed: Vec::new(), generation: 0 };
        this.publish();
        this
    }

    /// What is in force.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Looks after them until the gateway ends.
    pub async fn run(mut self) {
        let mut names = self.controllers.public_names();
        let mut roots = self.controllers.roots().changes();
        let mut failures = 0_u32;
        while !self.controllers.is_over() {
            let pause = match self.look().await {
                Ok(_) => {
                    failures = 0;
                    LOOK
                }
                Err(error) => {
                    let left_s = self.ends().0.saturating_sub(self.now().0);
                    warn!(%error, left_days = left_s / 86_400, "the gateway's certificates are not renewed; trying again");
                    failures = failures.saturating_add(1);
                    AGAIN.0.saturating_mul(1 << failures.min(9)).min(AGAIN.1)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = names.changed() => if changed.is_err() { return },
                changed = roots.changed() => if changed.is_err() { return },
            }
        }
    }

    /// The controllers' time: by it certificates end.
    fn now(&self) -> UnixTime {
        UnixTime(i64::try_from(self.controllers.now_ms() / 1_000).unwrap_or(i64::MAX))
    }

    fn leaf(&self, slot: Slot) -> Result<Certificate, RenewalError> {
        let unusable = |e: sallyport_ca::Error| RenewalError::Unusable(e.to_string());
        match slot {
            Slot::Link => Certificate::from_pem(&self.identity.grpc_chain).map_err(unusable),
            Slot::Ike(at) => {
                let der = self.identity.ike.get(at).and_then(|ike| ike.chain.first());
                Certificate::from_der(der.map_or(&[], Vec::as_slice)).map_err(unusable)
            }
        }
    }

    fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        std::iter::once(Slot::Link).chain((0..self.identity.ike.len()).map(Slot::Ike))
    }

    /// When the first of them ends.
    fn ends(&self) -> UnixTime {
        let ends = self.slots().filter_map(|slot| self.leaf(slot).ok()).map(|leaf| leaf.not_after);
        ends.min().unwrap_or(UnixTime(0))
    }

    fn key(&self, slot: Slot) -> Result<KeyPair, RenewalError> {
        let key = match slot {
            Slot::Link => KeyPair::from_pem(&self.identity.grpc_key),
            Slot::Ike(at) => KeyPair::from_pkcs8_der(self.identity.ike.get(at).map_or(&[], |ike| &ike.key)),
        };
        key.map_err(|e| RenewalError::Unusable(e.to_string()))
    }

    /// Keeps the roots that the gateway has learned of, or given up, with its certificates.
    fn keep_roots(&mut self) {
        let roots = self.controllers.roots().roots();
        if Roots::from_pem(&self.identity.ca, Some(&self.identity.gone)).is_ok_and(|kept| kept == roots) {
            return;
        }
        (self.identity.ca, self.identity.gone) = (roots.pem().into_bytes(), roots.gone_pem().into_bytes());
        if let Some(dir) = &self.dir {
            keep(dir, &self.identity);
        }
    }

    fn chain(&self, slot: Slot) -> Vec<Vec<u8>> {
        match slot {
            Slot::Link => pem::certificates(&self.identity.grpc_chain).unwrap_or_default(),
            Slot::Ike(at) => self.identity.ike.get(at).map(|ike| ike.chain.clone()).unwrap_or_default(),
        }
    }

    /// Which are due: by their age, because their names are others than those that were set, or because their issuer issues no more:
    /// another root may be in force, or a key have been stolen.
    fn due(&self, now: UnixTime) -> Result<Vec<Slot>, RenewalError> {
        let wanted = self.controllers.public_names().borrow().clone();
        let named = if wanted.is_empty() { Vec::new() } else { app::names(&self.identity)? };
        // Once for each change: who is given a certificate of another authority all the same does not ask on.
        let followed = self.controllers.roots().issuing() == self.followed;
        let mut due = Vec::new();
        for slot in self.slots() {
            let other_names = match slot {
                Slot::Ike(at) => named.get(at).is_some_and(|names| !same(names, &wanted)),
                Slot::Link => false,
            };
            let superseded = !followed && self.controllers.roots().is_superseded(&self.chain(slot));
            if other_names || superseded || now >= self.leaf(slot)?.renewal_due() {
                due.push(slot);
            }
        }
        Ok(due)
    }

    /// Renews what is due now. Returns whether anything was.
    pub async fn look(&mut self) -> Result<bool, RenewalError> {
        self.look_at(self.now()).await
    }

    /// The same at a time.
    pub async fn look_at(&mut self, now: UnixTime) -> Result<bool, RenewalError> {
        self.keep_roots();
        let (mut due, issuing) = (self.due(now)?, self.controllers.roots().issuing());
        if due.is_empty() {
            self.followed = issuing;
            return Ok(false);
        }
        // With a link that has ended nothing else can be asked for.
        if due.first() == Some(&Slot::Link) && now >= self.leaf(Slot::Link)?.not_after {
            self.renew(&[Slot::Link], now).await?;
            due.remove(0);
        }
        if !due.is_empty() {
            self.renew(&due, now).await?;
        }
        self.followed = issuing;
        Ok(true)
    }

    /// Renews these as far as they can be: one that the controllers refuse (a kind of key that is not allowed any more) does not keep
    /// the others from being renewed. The error is the last.
    async fn renew(&mut self, slots: &[Slot], now: UnixTime) -> Result<(), RenewalError> {
        let mut next = self.identity.clone();
        let (mut made, mut failed) = (Vec::new(), Ok(()));
        for slot in slots {
            let chain = match self.certify(*slot, now).await {
                Ok(chain) => chain,
                Err(error) => {
                    failed = Err(error);
                    continue;
                }
            };
            made.push(*slot);
            let Some(pending) = self.pending.get(slot) else { continue };
            match slot {
                Slot::Link => {
                    next.grpc_chain = pems(&chain);
                    next.grpc_key = Zeroizing::new(pending.key.pkcs8_pem().as_bytes().to_vec());
                }
                Slot::Ike(at) => {
                    let key = Zeroizing::new(pending.key.pkcs8_der().to_vec());
                    if let Some(ike) = next.ike.get_mut(*at) {
                        *ike = IkeIdentity { chain, key };
                    }
                }
            }
        }
        if !made.is_empty() {
            self.adopt(next, &made, now).await?;
            self.pending.retain(|slot, _| !made.contains(slot));
        }
        failed
    }

    /// The certificate for the new key of a slot.
    async fn certify(&mut self, slot: Slot, now: UnixTime) -> Result<Vec<Vec<u8>>, RenewalError> {
        let present = self.key(slot)?;
        let pending = match self.pending.entry(slot) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(place) => {
                let (key, csr) = fresh(present.public_key().algorithm()).await?;
                place.insert(Pending { key, csr })
            }
        };
        let (key, csr) = (pending.key.public_key(), pending.csr.clone());
        let (leaf, purpose) = (self.leaf(slot)?, slot.purpose());
        let possession = possess(leaf.der(), &present, purpose, &csr)?;
        let answer = if slot == Slot::Link && now >= leaf.not_after {
            // No controller takes a connection with it any more.
            match first::late(self.controllers.addresses(), &self.identity, possession, csr).await? {
                first::Said::Yes(answer) => v1::RenewResponse { certificate: answer.certificate, chain: answer.chain },
                first::Said::NotNow(said) => {
                    return Err(RenewalError::Refused(format!("no controller answers: {said}")));
                }
            }
        } else {
            let present = (slot != Slot::Link).then_some(possession);
            let request = v1::RenewRequest { purpose: purpose.into(), csr, present };
            self.controllers.renew(request).await.map_err(RenewalError::Refused)?
        };
        shown(&key, &answer.certificate, &answer.chain).inspect_err(|error| {
            warn!(%error, ?slot, "a controller sent a certificate that cannot be used");
        })
    }

    /// Puts an identity in force that is new in these parts: looked at as clients look at it, proven to the controllers, kept, shown.
    async fn adopt(&mut self, next: Identity, slots: &[Slot], now: UnixTime) -> Result<(), RenewalError> {
        let (link, ike) = (slots.contains(&Slot::Link), slots.iter().any(|slot| *slot != Slot::Link));
        let generation = self.generation + u32::from(ike);
        let new = if ike { Some(app::credentials_of(&Self::alive(&next, now), generation, now)?) } else { None };
        if link {
            self.controllers.try_link(&next.grpc_chain, &next.grpc_key).await.map_err(RenewalError::Refused)?;
        }
        if let Some(dir) = &self.dir {
            keep(dir, &next);
        }
        if link {
            let changed = self.controllers.show_link(&next.grpc_chain, &next.grpc_key);
            changed.map_err(|e| RenewalError::Unusable(e.to_string()))?;
        }
        if let Some((keys, credentials)) = new {
            self.controllers.hand_on(app::NewCredentials { keys, credentials }).await;
        }
        (self.identity, self.generation) = (next, generation);
        self.publish();
        info!(until_unix = self.ends().0, link, ike, "the gateway shows new certificates; what is up stays up");
        Ok(())
    }

    /// An identity without the certificates for IKE that have ended and could not be renewed.
    fn alive(identity: &Identity, now: UnixTime) -> Identity {
        let mut alive = identity.clone();
        alive.ike.retain(|ike| {
            let leaf = ike.chain.first().map(|der| Certificate::from_der(der));
            leaf.is_none_or(|leaf| leaf.map_or(true, |leaf| now < leaf.not_after))
        });
        alive
    }

    fn publish(&self) {
        let Some(metrics) = &self.metrics else { return };
        for slot in self.slots() {
            let (Ok(leaf), Ok(key)) = (self.leaf(slot), self.key(slot)) else { continue };
            let name = match slot {
                Slot::Link => "link",
                Slot::Ike(_) if key.public_key().algorithm().is_rsa() => "ike_rsa",
                Slot::Ike(_) => "ike_ecdsa",
            };
            metrics.certificate_ends(name, leaf.not_after.0);
        }
    }
}

/// Whether a certificate's names are those that were set, in their order.
fn same(names: &[AltName], wanted: &[String]) -> bool {
    let mut texts: Vec<String> = Vec::new();
    for text in names.iter().map(ToString::to_string) {
        // An address may stand there as a name, too.
        if !texts.iter().any(|t| t.eq_ignore_ascii_case(&text)) {
            texts.push(text);
        }
    }
    texts.len() == wanted.len() && texts.iter().zip(wanted).all(|(a, b)| a.eq_ignore_ascii_case(b))
}
