//! The private key of this controller's certificate, with which it is a controller to all others.
//!
//! Where the node key is outside the state folder (a passphrase, a token, a file elsewhere), this key is sealed as all secrets
//! are, in `key.sealed`: who has the folder alone cannot pose as the controller. Where the node key lies in the folder, that would
//! hide nothing, and the key is in `key.pem`, mode 0600.

use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::app::Paths;
use crate::config::{UnsealConfig, UnsealMethod};
use crate::error::Error;
use crate::files;
use crate::seal::Sealer;

const PLAIN: &str = "key.pem";
const SEALED: &str = "key.sealed";

/// Where it is, and what opens it.
pub(crate) struct OwnKey<'a> {
    plain: PathBuf,
    sealed: PathBuf,
    sealer: &'a Sealer,
    seals: bool,
}

impl<'a> OwnKey<'a> {
    /// The key of the controller in this state folder.
    pub(crate) fn of(paths: &Paths, sealer: &'a Sealer, config: &UnsealConfig) -> Self {
        let dir = paths.controller();
        // A key file that is configured is elsewhere: that is what the setting is for.
        let seals = config.method != UnsealMethod::File || !config.key_file.as_os_str().is_empty();
        Self { plain: dir.join(PLAIN), sealed: dir.join(SEALED), sealer, seals }
    }

    /// The file that is read, for errors.
    pub(crate) fn path(&self) -> &PathBuf {
        if self.sealed.exists() && !self.plain.exists() { &self.sealed } else { &self.plain }
    }

    /// The key, PEM; `None` when there is none.
    pub(crate) fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        // One in the clear is newer: of a time when keys were not sealed, or of a change that was cut short.
        if let Some(plain) = files::read_private(&self.plain)? {
            return Ok(Some(plain));
        }
        match files::read_private(&self.sealed)? {
            Some(sealed) => self.sealer.open_own_key(&sealed).map(Some),
            None => Ok(None),
        }
    }

    /// Keeps a key, PEM.
    pub(crate) fn write(&self, key: &[u8]) -> Result<(), Error> {
        if self.seals {
            files::write_private(&self.sealed, &self.sealer.seal_own_key(key)?)?;
            files::destroy(&self.plain)
        } else {
            files::write_private(&self.plain, key)?;
            files::destroy(&self.sealed)
        }
    }

    /// Seals one that lies in the clear and should not.
    pub(crate) fn put_away(&self) -> Result<(), Error> {
        if !self.seals {
            return Ok(());
        }
        let Some(plain) = files::read_private(&self.plain)? else { return Ok(()) };
        self.write(&plain)?;
        let (path, sealed) = (self.plain.display(), self.sealed.display());
        tracing::info!(%path, %sealed, "this controller's private key is sealed now; old copies and backups of it still are not");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sallyport_ca::seal::SealKey;

    use super::*;

    #[test]
    fn the_key_is_sealed_where_the_node_key_is_elsewhere_and_stays_the_same() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let elsewhere = tempfile::tempdir().expect("temporary folder");
        let paths = Paths::new(dir.path());
        files::private_dir(&paths.controller()).expect("makes");
        let beside = UnsealConfig::default();
        let apart = UnsealConfig { key_file: elsewhere.path().join("node.key"), ..UnsealConfig::default() };
        let sealer = Sealer::adopt(dir.path(), &apart, SealKey::from_bytes(&[7; 32])).expect("adopts");
        let (plain, sealed) = (paths.controller().join(PLAIN), paths.controller().join(SEALED));
        let key = |config| OwnKey::of(&paths, &sealer, config);
        assert!(key(&apart).read().expect("reads").is_none());

        key(&beside).write(b"one").expect("writes");
        key(&beside).put_away().expect("nothing to do");
        assert_eq!(std::fs::read(&plain).expect("in the clear"), b"one");
        // Another node key, or an older version before: what lies there is sealed.
        key(&apart).put_away().expect("seals");
        assert!(!plain.exists() && !std::fs::read(&sealed).expect("there").windows(3).any(|w| w == b"one"));
        for config in [&apart, &beside] {
            assert_eq!(key(config).read().expect("reads").expect("there").as_slice(), b"one");
        }
        key(&apart).write(b"two").expect("writes");
        assert!(!plain.exists());
        assert_eq!(key(&apart).read().expect("reads").expect("there").as_slice(), b"two");
        // Cut short before the one in the clear was gone.
        files::write_private(&plain, b"three").expect("writes");
        assert_eq!(key(&apart).read().expect("reads").expect("there").as_slice(), b"three");
        key(&beside).write(b"four").expect("writes");
        assert!(!sealed.exists());
        // The seal key of another cluster opens nothing.
        key(&apart).put_away().expect("seals");
        let other = tempfile::tempdir().expect("temporary folder");
        let strange = Sealer::adopt(other.path(), &beside, SealKey::from_bytes(&[8; 32])).expect("adopts");
        assert!(OwnKey::of(&paths, &strange, &apart).read().is_err());
    }
}
