//! Whom an identity's folder believes to be a controller: the roots in `ca.pem`, which grow by what one of them has signed and shrink when
//! most controllers have given one up (`ca-gone.pem`); and `controllers.crl`, the controllers that are none any more, which only ever says more.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sallyport_ca::Certificate;
use sallyport_ca::crl::Revocations;
use sallyport_ca::roots::Roots;
use sallyport_proto::dial::{Anchors, Authorities, Judge, REVOKED, Unusable};

use crate::clock::unix_now;
use crate::error::{Error, Result};

/// The roots.
const CA: &str = "ca.pem";
/// Roots that were given up: never trusted again.
const GONE: &str = "ca-gone.pem";

/// What is known of roots, and of certificates of controllers that were taken back.
pub(crate) struct Revoked {
    known: Arc<Revocations>,
    roots: Arc<Mutex<Roots>>,
    /// The root in force, DER, as the controllers say.
    in_force: Mutex<Vec<u8>>,
    anchors: Anchors,
    /// The folder.
    dir: PathBuf,
    /// Where the lists are kept.
    path: PathBuf,
}

/// These roots (PEM), on no way through what is revoked or was given up.
fn anchors(ca: &[u8], known: &Arc<Revocations>, roots: &Arc<Mutex<Roots>>) -> std::result::Result<Anchors, Unusable> {
    let (known, roots) = (known.clone(), roots.clone());
    let authorities: Judge = Arc::new(move |shown| match lock(&roots).is_gone(shown) {
        true => Err("who answers there is below a root that the controllers have given up".into()),
        false => known.judge_authority(shown),
    });
    Anchors::judging(ca, authorities)
}

fn lock(roots: &Mutex<Roots>) -> MutexGuard<'_, Roots> {
    // What is in there is replaced whole.
    roots.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts a file that everybody may read in the place of another, whole: beside it and under a name of its own at first, for two commands may
/// do this at once.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().permissions(Permissions::from_mode(0o644)).tempfile_in(dir)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

impl Revoked {
    /// What is kept in an identity's folder, whose roots are `ca` (PEM).
    pub(crate) fn read(dir: &Path, ca: &str) -> Result<Self> {
        let unusable = |e: &dyn std::fmt::Display| Error::failed(format!("{}: {e}", dir.join(CA).display()));
        let known = Revocations::trusting(ca.as_bytes()).map_err(|e| unusable(&e))?;
        let gone = fs::read(dir.join(GONE)).ok();
        let roots = Roots::from_pem(ca.as_bytes(), gone.as_deref()).map_err(|e| unusable(&e))?;
        let path = dir.join(REVOKED);
        // Lists of another root, or broken ones, are asked for again.
        if let Ok(lists) = fs::read(&path)
            && let Err(error) = known.take_all(&lists)
        {
            tracing::debug!(path = %path.display(), %error, "not all of what is kept of revoked controllers can be used");
        }
        let (known, roots, in_force) = (Arc::new(known), Arc::new(Mutex::new(roots)), Mutex::default());
        let anchors = anchors(ca.as_bytes(), &known, &roots).map_err(|e| unusable(&e))?;
        Ok(Self { known, roots, in_force, anchors, dir: dir.to_owned(), path })
    }

    /// Judges who answers.
    pub(crate) fn judge(&self) -> Judge {
        Arc::new(self.known.judge(""))
    }

    /// What controllers' certificates would have to lead to if these roots were all.
    pub(crate) fn anchors_of(&self, roots: &Roots) -> std::result::Result<Anchors, Unusable> {
        anchors(roots.pem().as_bytes(), &self.known, &Arc::new(Mutex::new(roots.clone())))
    }

    /// What controllers' certificates must lead to.
    pub(crate) fn anchors(&self) -> &Anchors {
        &self.anchors
    }

    /// The roots that are trusted.
    pub(crate) fn roots(&self) -> Roots {
        lock(&self.roots).clone()
    }

    /// Takes up what a controller says: roots that one which is trusted vouches for, and who is none any more.
    pub(crate) fn learn(&self, said: &Authorities) {
        let mut roots = self.roots();
        if !said.roots.iter().all(|root| roots.trusts(root)) {
            // Those that vouch first: many roots must not push them out.
            let shown = [said.crossing.as_slice(), &said.roots].concat();
            if !roots.learn(&shown, unix_now()).is_empty() {
                self.put_in_force(roots);
            }
        }
        // The one in force comes first.
        if let Some(first) = said.roots.first().filter(|first| self.roots().trusts(first)) {
            self.in_force.lock().unwrap_or_else(PoisonError::into_inner).clone_from(first);
        }
        self.take(&said.lists);
    }

    /// Whether another root is in force than the one above the issuer in this chain (DER, the leaf first): its certificate ends with the
    /// change of roots.
    pub(crate) fn is_superseded(&self, chain: &[Vec<u8>]) -> bool {
        let in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        let (Ok(root), Some(issuer)) = (Certificate::from_der(&in_force), chain.get(1)) else { return false };
        Certificate::from_der(issuer).is_ok_and(|issuer| !issuer.is_issued_by(&root))
    }

    /// What would be left if the roots went that none of these controllers trusts, of `all` that there are.
    pub(crate) fn without_the_unsaid(&self, said: &[Authorities], all: usize) -> Option<Roots> {
        let said: Vec<_> = said.iter().map(|said| said.roots.clone()).collect();
        self.roots().without_the_unsaid(&said, all)
    }

    /// Trusts these roots from now on. What cannot be kept (the folder may be another's) is found out again next time.
    pub(crate) fn put_in_force(&self, roots: Roots) {
        let kept = self.anchors.change(roots.pem().as_bytes()).map_err(io::Error::other).and_then(|()| {
            // First what must not come back.
            if !roots.gone_pem().is_empty() {
                replace(&self.dir.join(GONE), roots.gone_pem().as_bytes())?;
            }
            replace(&self.dir.join(CA), roots.pem().as_bytes())
        });
        if let Err(error) = kept {
            tracing::debug!(dir = %self.dir.display(), %error, "the roots are not kept");
        }
        self.known.trust(roots.ders());
        *lock(&self.roots) = roots;
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
        let all = Revocations::trusting(self.roots().pem().as_bytes()).map_err(io::Error::other)?;
        for lists in there.iter().chain([&self.known.lists()]) {
            let _ = all.take_all(lists); // what is of another root, or broken, is not kept
        }
        let lists = all.lists();
        if lists.is_empty() || there.as_ref() == Some(&lists) {
            return Ok(!lists.is_empty());
        }
        replace(path, &lists)?;
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
