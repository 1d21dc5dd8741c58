//! What is secret at rest, and under which name it is sealed.
//!
//! The seal key is in a file of its own (mode 0600) in the state folder and nowhere else. A sealed value is bound to its
//! purpose, to the cluster and to its place, so that it opens nowhere but there.

use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};
use sallyport_ca::seal::{Purpose, SealError, SealKey, Sealed};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::files;

/// Argon2id verifiers are no passwords, but let their owner guess offline.
const VERIFIER: Purpose = Purpose::new("password verifier");

/// A secret of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UserSecret {
    /// For MS-CHAPv2.
    NtHash,
    /// For PAP.
    Verifier,
    /// For CHAP-MD5.
    Password,
}

impl UserSecret {
    const fn purpose(self) -> Purpose {
        match self {
            Self::NtHash => Purpose::NT_HASH,
            Self::Verifier => VERIFIER,
            Self::Password => Purpose::PASSWORD,
        }
    }
}

/// Seals and opens.
#[derive(Debug)]
pub(crate) struct Sealer {
    key: SealKey,
    path: PathBuf,
    rng: SystemRandom,
}

impl Sealer {
    /// Reads the key file, or makes it where `pristine` says that there is nothing yet that it would have to open.
    pub(crate) fn open(path: &Path, pristine: bool) -> Result<Self, Error> {
        let rng = SystemRandom::new();
        let broken = |e: SealError| Error::File {
            path: path.into(),
            cause: e.to_string(),
            remedy: "put back the key file this state was made with".into(),
        };
        let key = match files::read_private(path)? {
            Some(contents) => SealKey::from_file(&contents).map_err(broken)?,
            None if pristine => {
                let key = SealKey::generate(&rng).map_err(broken)?;
                files::write_private(path, key.to_file().as_bytes())?;
                tracing::info!(path = %path.display(), "made a new seal key; keep a copy of it apart from backups of the state");
                key
            }
            None => {
                return Err(Error::File {
                    path: path.into(),
                    cause: "the seal key is missing, and without it nothing in this state can be opened".into(),
                    remedy: "put back the key file this state was made with".into(),
                });
            }
        };
        Ok(Self { key, path: path.into(), rng })
    }

    /// The key itself, for the authority.
    pub(crate) const fn key(&self) -> &SealKey {
        &self.key
    }

    /// The random source.
    pub(crate) const fn rng(&self) -> &SystemRandom {
        &self.rng
    }

    /// Seals a secret of a user.
    pub(crate) fn seal_user(
        &self,
        which: UserSecret,
        cluster: &[u8],
        key: &str,
        secret: &[u8],
    ) -> Result<Vec<u8>, Error> {
        self.seal(which.purpose(), &[cluster, b"user", key.as_bytes()], secret)
    }

    /// Opens a secret of a user.
    pub(crate) fn open_user(
        &self,
        which: UserSecret,
        cluster: &[u8],
        key: &str,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.unseal(which.purpose(), &[cluster, b"user", key.as_bytes()], sealed, || format!("the password of {key:?}"))
    }

    /// Seals the pre-shared key.
    pub(crate) fn seal_psk(&self, cluster: &[u8], psk: &[u8]) -> Result<Vec<u8>, Error> {
        self.seal(Purpose::PRE_SHARED_KEY, &[cluster], psk)
    }

    /// Opens the pre-shared key.
    pub(crate) fn open_psk(&self, cluster: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.unseal(Purpose::PRE_SHARED_KEY, &[cluster], sealed, || "the pre-shared key".into())
    }

    fn seal(&self, purpose: Purpose, place: &[&[u8]], secret: &[u8]) -> Result<Vec<u8>, Error> {
        let sealed = self.key.seal(purpose, place, secret, &self.rng).map_err(|e| Error::Internal(e.to_string()))?;
        Ok(sealed.into_bytes())
    }

    fn unseal(
        &self,
        purpose: Purpose,
        place: &[&[u8]],
        sealed: &[u8],
        what: impl FnOnce() -> String,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.key
            .open(purpose, place, &Sealed::from_bytes(sealed.to_vec()))
            .map_err(|_| Error::Seal { what: what(), key: self.path.clone() })
    }

    /// Random bytes.
    pub(crate) fn random<const N: usize>(&self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.rng.fill(&mut bytes).map_err(|_| Error::Internal("the system gives no random bytes".into()))?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_key_is_made_only_for_a_new_state() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("seal.key");
        assert!(Sealer::open(&path, false).is_err_and(|e| e.to_string().contains("put back the key file")));
        let first = Sealer::open(&path, true).expect("makes");
        let sealed = first.seal_user(UserSecret::NtHash, b"c", "ada", b"secret").expect("seals");
        let again = Sealer::open(&path, false).expect("reads");
        let open = |which, cluster: &[u8], key| again.open_user(which, cluster, key, &sealed).map(|s| s.to_vec());
        assert_eq!(open(UserSecret::NtHash, b"c", "ada").expect("opens"), b"secret");
        assert!(open(UserSecret::Password, b"c", "ada").is_err());
        assert!(open(UserSecret::NtHash, b"d", "ada").is_err());
        assert!(open(UserSecret::NtHash, b"c", "bob").is_err_and(|e| e.to_string().contains("seal.key")));
    }
}
