//! The roots that this gateway trusts. They grow by certificates that one of them has signed, whoever carries these, and shrink when the
//! controllers have given one up: see [`Roots`]. What a controller's policy names beside them is nobody's.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sallyport_ca::Certificate;
use sallyport_ca::crl::Revocations;
use sallyport_ca::roots::Roots;
use sallyport_proto::dial::{Anchors, Authorities, Judge};
use sallyport_proto::v1;
use tokio::sync::watch;
use tracing::{info, warn};

use super::{ControllerError, Identity};
use crate::clock::Clock;

/// Why a certificate is refused whose path leads through a root that was given up.
pub const BELOW_GONE: &str = "who answers there is below a root that the controllers have given up";
/// Issuing authorities that are looked at in one policy.
const MAX_ISSUING: usize = 128;

#[derive(Debug, Default)]
struct Known {
    roots: Roots,
    /// Authorities that issue now, DER; empty where nobody has said.
    issuing: Vec<Vec<u8>>,
}

/// What is known, for all parts of a gateway.
#[derive(Debug)]
pub struct KnownRoots {
    known: Arc<Mutex<Known>>,
    anchors: Anchors,
    revoked: Arc<Revocations>,
    changes: watch::Sender<u64>,
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    // What is in there is replaced whole.
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KnownRoots {
    /// Those of an identity; lists of revoked controllers are judged by them.
    pub(super) fn of(identity: &Identity, revoked: Arc<Revocations>) -> Result<Arc<Self>, ControllerError> {
        let unusable = |e: &dyn std::fmt::Display| ControllerError::Tls(e.to_string());
        let roots = Roots::from_pem(&identity.ca, Some(&identity.gone)).map_err(|e| unusable(&e))?;
        let known = Arc::new(Mutex::new(Known { roots, issuing: Vec::new() }));
        let (gone, lists) = (known.clone(), revoked.clone());
        let authorities: Judge = Arc::new(move |shown| match lock(&gone).roots.is_gone(shown) {
            true => Err(BELOW_GONE.into()),
            false => lists.judge_authority(shown),
        });
        let anchors = Anchors::judging(&identity.ca, authorities).map_err(|e| unusable(&e))?;
        Ok(Arc::new(Self { known, anchors, revoked, changes: watch::Sender::new(0) }))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }

    /// They, now.
    pub fn roots(&self) -> Roots {
        self.lock().roots.clone()
    }

    /// Whether this is one of them, DER.
    pub fn trusts(&self, root: &[u8]) -> bool {
        self.lock().roots.trusts(root)
    }

    /// Those of these authorities (DER) that no root has taken back, and whose key is of none that was given up.
    pub(super) fn believed(&self, authorities: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let roots = self.roots();
        let believed = |der: &&Vec<u8>| self.revoked.refuses_authority(der).is_none() && !roots.is_gone(der);
        authorities.iter().filter(believed).cloned().collect()
    }

    /// What TLS would go by if these were all.
    pub(super) fn anchors_of(&self, roots: &Roots) -> Result<Anchors, ControllerError> {
        let (gone, lists) = (roots.clone(), self.revoked.clone());
        let authorities: Judge = Arc::new(move |shown| match gone.is_gone(shown) {
            true => Err(BELOW_GONE.into()),
            false => lists.judge_authority(shown),
        });
        Anchors::judging(roots.pem().as_bytes(), authorities).map_err(|e| ControllerError::Tls(e.to_string()))
    }

    /// Whether another authority issues in the place of the one of this chain (DER, the leaf first).
    pub fn is_superseded(&self, chain: &[Vec<u8>]) -> bool {
        let known = self.lock();
        !known.issuing.is_empty() && chain.get(1).is_none_or(|issuer| !known.issuing.contains(issuer))
    }

    /// Authorities that issue now, DER.
    pub fn issuing(&self) -> Vec<Vec<u8>> {
        self.lock().issuing.clone()
    }

    /// What TLS to controllers goes by.
    pub(super) fn anchors(&self) -> &Anchors {
        &self.anchors
    }

    /// Changes when roots do, or who issues.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Takes up what vouches for roots.
    pub(super) fn learn(&self, said: &Authorities) {
        self.learn_from(&said.roots, &said.crossing);
    }

    fn learn_from(&self, roots: &[Vec<u8>], crossing: &[Vec<u8>]) {
        let mut known = self.lock();
        // Almost always: nothing is new, and no signature is looked at.
        if roots.iter().all(|root| known.roots.trusts(root)) {
            return;
        }
        // Those that vouch first: many roots must not push them out.
        let shown = [crossing, roots].concat();
        let new = known.roots.learn(&shown, Clock::unix());
        for root in &new {
            info!(root = %root.subject, fingerprint = %root.fingerprint, "a new root: one that this gateway trusts vouches for it");
        }
        if !new.is_empty() {
            self.put_in_force(&known.roots);
        }
    }

    /// Takes up a policy: roots, and who issues.
    pub(super) fn note(&self, policy: &v1::Policy) {
        self.learn_from(&policy.trusted_roots, &policy.crossing);
        let mut known = self.lock();
        if known.issuing == policy.issuing {
            return;
        }
        // A list that nobody below our roots is on says nothing.
        let ours = |der: &Vec<u8>| {
            Certificate::from_der(der).is_ok_and(|c| known.roots.trusted().iter().any(|root| c.is_issued_by(root)))
        };
        if policy.issuing.len() <= MAX_ISSUING && policy.issuing.iter().any(ours) {
            known.issuing.clone_from(&policy.issuing);
            self.changes.send_modify(|n| *n += 1);
        }
    }

    /// What would be left if the roots went that none of these controllers trusts, of `all` that there are.
    pub(super) fn without_the_unsaid(&self, said: &[Authorities], all: usize) -> Option<Roots> {
        let said: Vec<_> = said.iter().map(|said| said.roots.clone()).collect();
        self.lock().roots.without_the_unsaid(&said, all)
    }

    /// Goes on with what is left, if nothing has been learned meanwhile.
    pub(super) fn give_up(&self, said: &[Authorities], all: usize, left: &Roots) -> bool {
        let all_said: Vec<_> = said.iter().map(|said| said.roots.clone()).collect();
        let mut known = self.lock();
        if known.roots.without_the_unsaid(&all_said, all).as_ref() != Some(left) {
            return false;
        }
        for root in known.roots.trusted().iter().filter(|root| !left.trusts(root.der())) {
            warn!(root = %root.subject, fingerprint = %root.fingerprint, "the controllers trust this root no more, and neither does this gateway");
        }
        known.roots = left.clone();
        self.put_in_force(&known.roots);
        true
    }

    fn put_in_force(&self, roots: &Roots) {
        if let Err(error) = self.anchors.change(roots.pem().as_bytes()) {
            warn!(%error, "the roots are not usable for TLS");
        }
        self.revoked.trust(roots.ders());
        self.changes.send_modify(|n| *n += 1);
    }
}
