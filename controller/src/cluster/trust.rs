//! Who is a controller for a node whose state cannot tell: it has none yet, or lacks what was written lately.
//!
//! A certificate that chains to the root says that its owner was a controller once. So a node is given the list of those that were
//! taken back (`controller/controllers.crl`) with its place in the cluster; and one that hears a leader whose record it has does not
//! hear strangers, who may be new members.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use sallyport_ca::Certificate;
use sallyport_ca::crl::Revocations;
use sallyport_proto::dial::REVOKED;

use crate::app::Paths;
use crate::error::Error;
use crate::files;

/// Where the list is kept.
fn list_path(paths: &Paths) -> PathBuf {
    paths.controller().join(REVOKED)
}

fn unusable(path: PathBuf, cause: &sallyport_ca::Error) -> Error {
    Error::File {
        path,
        cause: format!(
            "this is no list of controllers' certificates that the root, or an authority below it, has signed: {cause}"
        ),
        remedy: "put it back from a backup of the state folder, or remove the folder and join with a new token".into(),
    }
}

/// Keeps the list that came with a place in the cluster, once its signature is found good. Older software sends none.
pub(crate) fn keep_list(paths: &Paths, ca: &[u8], list: &[u8]) -> Result<(), Error> {
    if list.is_empty() {
        return Ok(());
    }
    serials(ca, list).map_err(|e| Error::Refused(format!("the cluster's answer does not hold: {e}; try again")))?;
    files::write_private(&list_path(paths), list)
}

/// The certificates on a list, which the roots (PEM) must have signed.
fn serials(ca: &[u8], list: &[u8]) -> Result<BTreeSet<String>, sallyport_ca::Error> {
    let listed = Revocations::trusting(ca)?.take_all(list)?;
    Ok(listed.iter().map(ToString::to_string).collect())
}

/// What a node goes by beside its state.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    /// Serial numbers of controllers' certificates that the root says were taken back. It only grows.
    revoked: RwLock<BTreeSet<String>>,
    /// When a leader whose record is here spoke last, monotonic milliseconds and one more; 0 for never.
    leader_spoke: AtomicU64,
}

impl Trust {
    /// Takes up the list in the state folder, if there is one; `ca` are the roots, PEM.
    pub(crate) fn read_list(&self, paths: &Paths, ca: &[u8]) -> Result<(), Error> {
        let path = list_path(paths);
        let Some(list) = files::read_public(&path)? else { return Ok(()) };
        let listed = serials(ca, &list).map_err(|e| unusable(path, &e))?;
        self.revoked.write().unwrap_or_else(PoisonError::into_inner).extend(listed);
        Ok(())
    }

    /// Whether the certificate with this serial number was taken back.
    pub(crate) fn is_revoked(&self, serial: &str) -> bool {
        self.revoked.read().unwrap_or_else(PoisonError::into_inner).contains(serial)
    }

    /// The same as a verdict on a server's certificate.
    pub(crate) fn judge(&self, certificate: &Certificate) -> Result<(), String> {
        let serial = certificate.serial.to_string();
        match self.is_revoked(&serial) {
            true => Err(format!("the certificate of the controller there (serial number {serial}) is revoked")),
            false => Ok(()),
        }
    }

    /// A leader whose record is here has spoken.
    pub(crate) fn leader_spoke(&self, monotonic_ms: u64) {
        self.leader_spoke.fetch_max(monotonic_ms.saturating_add(1), Ordering::Relaxed);
    }

    /// Whether that was less than a lease ago.
    pub(crate) fn hears_leader(&self, monotonic_ms: u64, lease: Duration) -> bool {
        let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        match self.leader_spoke.load(Ordering::Relaxed) {
            0 => false,
            at => monotonic_ms.saturating_add(1).saturating_sub(at) < lease_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use sallyport_ca::crl::CONTROLLERS;
    use sallyport_ca::seal::SealKey;
    use sallyport_ca::{Authority, RootConfig, Serial, SystemRandom, UnixTime};

    use super::*;

    #[test]
    fn what_the_root_has_taken_back_is_known_after_a_restart_and_what_another_signed_is_not() {
        let (dir, rng, now) =
            (tempfile::tempdir().expect("temporary folder"), SystemRandom::new(), UnixTime(1_800_000_000));
        let root = || {
            let seal = SealKey::generate(&rng).expect("random");
            Authority::create(&RootConfig::new("Example", "Example Root"), &seal, now, &rng).expect("a root").0
        };
        let (ours, other) = (root(), root());
        let serial = Serial::generate(&rng).expect("random");
        let list =
            |by: &Authority| by.revocation_list(CONTROLLERS, 1, &[(serial.clone(), now)], now, &rng).expect("a list");
        let (paths, ca) = (Paths::new(dir.path()), ours.certificate().pem());
        files::private_dir(&paths.controller()).expect("a folder");
        let trust = Trust::default();
        trust.read_list(&paths, ca.as_bytes()).expect("there need be none");
        assert!(keep_list(&paths, ca.as_bytes(), &list(&other)).is_err());
        keep_list(&paths, ca.as_bytes(), &[]).expect("older software sends none");
        assert!(!list_path(&paths).exists());
        keep_list(&paths, ca.as_bytes(), &list(&ours)).expect("keeps");
        trust.read_list(&paths, ca.as_bytes()).expect("reads");
        assert!(trust.is_revoked(&serial.to_string()) && !trust.is_revoked("77"));

        std::fs::write(list_path(&paths), b"damaged").expect("writes");
        let error = Trust::default().read_list(&paths, ca.as_bytes()).expect_err("refused").to_string();
        assert!(error.contains("controllers.crl") && error.contains("new token"), "{error}");
    }

    #[test]
    fn a_leader_is_heard_for_as_long_as_its_lease() {
        let (trust, lease) = (Trust::default(), Duration::from_millis(100));
        assert!(!trust.hears_leader(50, lease), "none has spoken yet");
        trust.leader_spoke(1_000);
        trust.leader_spoke(900);
        assert!(trust.hears_leader(1_099, lease) && !trust.hears_leader(1_100, lease));
    }
}
