//! What an identity's folder says of controllers that are none any more: `controllers.crl`, which only ever says more.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sallyport_ca::crl::Revocations;
use sallyport_proto::dial::{Judge, REVOKED};

use crate::error::{Error, Result};

/// What is known of certificates of controllers that were taken back.
pub(crate) struct Revoked {
    known: Arc<Revocations>,
    /// The root, PEM.
    ca: Vec<u8>,
    /// Where it is kept.
    path: PathBuf,
}

impl Revoked {
    /// What is kept in an identity's folder, whose root is `ca` (PEM).
    pub(crate) fn read(dir: &Path, ca: &str) -> Result<Self> {
        let known = Revocations::trusting(ca.as_bytes())
            .map_err(|e| Error::failed(format!("{}: {e}", dir.join("ca.pem").display())))?;
        let path = dir.join(REVOKED);
        // Lists of another root, or broken ones, are asked for again.
        if let Ok(lists) = fs::read(&path)
            && let Err(error) = known.take_all(&lists)
        {
            tracing::debug!(path = %path.display(), %error, "not all of what is kept of revoked controllers can be used");
        }
        Ok(Self { known: Arc::new(known), ca: ca.as_bytes().to_vec(), path })
    }

    /// Judges who answers.
    pub(crate) fn judge(&self) -> Judge {
        Arc::new(self.known.judge(""))
    }

    /// Takes up what a controller says. What cannot be kept (the folder may be another's) is asked for again next time.
    pub(crate) fn take(&self, list: &[u8]) {
        let before = self.known.lists();
        if let Err(error) = self.known.take_all(list) {
            tracing::debug!(%error, "not all of what a controller sent of revoked controllers can be used");
        }
        if self.known.lists() != before
            && let Err(error) = self.keep_in(&self.path)
        {
            tracing::debug!(path = %self.path.display(), %error, "the list of revoked controllers is not kept");
        }
    }

    /// Writes what is known to a file, together with what that says already: another command may have written it meanwhile, or
    /// know more. Says whether there is anything to know.
    pub(crate) fn keep_in(&self, path: &Path) -> io::Result<bool> {
        let there = match fs::read(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            there => there.ok(),
        };
        let all = Revocations::trusting(&self.ca).map_err(io::Error::other)?;
        for lists in there.iter().chain([&self.known.lists()]) {
            let _ = all.take_all(lists); // what is of another root, or broken, is not kept
        }
        let lists = all.lists();
        if lists.is_empty() || there.as_ref() == Some(&lists) {
            return Ok(!lists.is_empty());
        }
        // Beside it and under a name of its own: two commands may do this at once, and whoever reads finds a whole file.
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file =
            tempfile::Builder::new().prefix(REVOKED).permissions(Permissions::from_mode(0o644)).tempfile_in(dir)?;
        file.write_all(&lists)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use sallyport_ca::crl::CONTROLLERS;
    use sallyport_ca::seal::SealKey;
    use sallyport_ca::{Authority, RootConfig, Serial, SystemRandom, UnixTime};

    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn authority() -> Authority {
        let rng = SystemRandom::new();
        let config = RootConfig::new("Example", "Example VPN Root");
        Authority::create(&config, &SealKey::generate(&rng).unwrap(), NOW, &rng).unwrap().0
    }

    fn list(authority: &Authority, revoked: &[u8]) -> Vec<u8> {
        let revoked: Vec<_> = revoked.iter().map(|n| (Serial::from_be_bytes(&[*n]), NOW)).collect();
        authority.revocation_list(CONTROLLERS, 1, &revoked, NOW, &SystemRandom::new()).unwrap()
    }

    /// The last octets of the serial numbers that a file names.
    fn named(authority: &Authority, path: &Path) -> Vec<u8> {
        let reader = Revocations::trusting(authority.certificate().pem().as_bytes()).unwrap();
        let mut serials = reader.take_all(&fs::read(path).unwrap()).unwrap();
        serials.sort();
        serials.iter().filter_map(|s| s.as_be_bytes().last().copied()).collect()
    }

    #[test]
    fn a_removed_controller_does_not_talk_the_file_down_with_an_old_list() {
        let (root, dir) = (authority(), tempfile::tempdir().unwrap());
        let (pem, path) = (root.certificate().pem(), dir.path().join(REVOKED));
        Revoked::read(dir.path(), &pem).unwrap().take(&list(&root, &[]));
        assert!(!path.exists(), "there is nothing to know");
        for said in [&[5][..], &[3], &[], &[3]] {
            Revoked::read(dir.path(), &pem).unwrap().take(&list(&root, said));
        }
        assert_eq!(named(&root, &path), [3, 5]);
        // What `cert issue` writes says as much.
        let other = dir.path().join("other.crl");
        fs::write(&other, list(&root, &[9])).unwrap();
        assert!(Revoked::read(dir.path(), &pem).unwrap().keep_in(&other).unwrap());
        assert_eq!(named(&root, &other), [3, 5, 9], "and keeps what the folder knew");
    }

    #[test]
    fn what_two_commands_learn_at_once_is_kept_of_both() {
        let (root, dir) = (authority(), tempfile::tempdir().unwrap());
        let pem = root.certificate().pem();
        let [one, two] = [(); 2].map(|()| Revoked::read(dir.path(), &pem).unwrap());
        one.take(&list(&root, &[5]));
        two.take(&list(&root, &[3]));
        assert_eq!(named(&root, &dir.path().join(REVOKED)), [3, 5]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_file_of_another_root_is_replaced_and_one_that_cannot_be_read_is_an_error() {
        let (root, other, dir) = (authority(), authority(), tempfile::tempdir().unwrap());
        let path = dir.path().join(REVOKED);
        fs::write(&path, list(&other, &[7])).unwrap();
        let revoked = Revoked::read(dir.path(), &root.certificate().pem()).unwrap();
        revoked.take(&list(&root, &[5]));
        assert_eq!(named(&root, &path), [5]);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(revoked.keep_in(&path).is_err());
    }
}
