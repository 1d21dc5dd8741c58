//! Who can open a backup: a passphrase, or key pairs in files.
//!
//! A pair is X25519. `NAME.pub` is no secret and lies where backups are made, by a timer for example; `NAME.key` is needed
//! to read one, and lies elsewhere. Both are one line: a word that says what it is, and 64 hexadecimal digits.

use std::path::Path;

use ring::rand::SecureRandom;
use sallyport_ca::seal::{RecipientKey, SealKey};
use zeroize::Zeroizing;

use super::head::MAX_RECIPIENTS;
use crate::error::Error;
use crate::files;
use crate::seal::passphrase::{Costs, SHORTEST};

const PRIVATE: &str = "sallyport-backup-key-v1";
const PUBLIC: &str = "sallyport-backup-public-key-v1";

/// What a new backup is locked with.
pub struct Lock(pub(super) Kind);

pub(super) enum Kind {
    Passphrase(Zeroizing<Vec<u8>>, Costs),
    Recipients(Vec<[u8; 32]>),
}

impl Lock {
    /// A passphrase, at the usual costs of a guess.
    pub fn passphrase(passphrase: Zeroizing<Vec<u8>>) -> Result<Self, Error> {
        if passphrase.len() < SHORTEST {
            return Err(Error::Refused(format!(
                "the passphrase has {} bytes; give at least {SHORTEST}, for whoever gets the file may guess without end",
                passphrase.len()
            )));
        }
        Ok(Self(Kind::Passphrase(passphrase, Costs::RECOMMENDED)))
    }

    /// The public keys of those who can open it.
    pub fn recipients(keys: Vec<[u8; 32]>) -> Result<Self, Error> {
        match keys.len() {
            0 => Err(Error::Refused("a backup needs a recipient".into())),
            n if n > MAX_RECIPIENTS => Err(Error::Refused(format!("at most {MAX_RECIPIENTS} recipients"))),
            _ => Ok(Self(Kind::Recipients(keys))),
        }
    }
}

impl std::fmt::Debug for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Kind::Passphrase(..) => "Passphrase(..)",
            Kind::Recipients(_) => "Recipients(..)",
        })
    }
}

/// What opens a backup.
pub enum Secret {
    /// Its passphrase.
    Passphrase(Zeroizing<Vec<u8>>),
    /// The private key of one of its recipients.
    Key(RecipientKey),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Passphrase(_) => "Passphrase(..)",
            Self::Key(_) => "Key(..)",
        })
    }
}

/// Makes a key pair and writes it to two files that are not there yet, the private one with mode 0600. Returns the public
/// key.
pub fn make_recipient(private: &Path, public: &Path, rng: &dyn SecureRandom) -> Result<[u8; 32], Error> {
    let key = RecipientKey::generate(rng).map_err(|e| Error::Internal(e.to_string()))?;
    files::write_new_private(private, line(PRIVATE, &key.to_bytes()).as_bytes())?;
    files::write_new_private(public, line(PUBLIC, &key.public()).as_bytes()).inspect_err(|_| {
        let _ = std::fs::remove_file(private); // made a moment ago; no backup is for it
    })?;
    Ok(key.public())
}

/// The public key in a file.
pub fn read_recipient(path: &Path) -> Result<[u8; 32], Error> {
    let text = files::read_public(path)?.map(Zeroizing::new);
    parse(path, text, PUBLIC).map(|key| *key)
}

/// The private key in a file that only we may read.
pub fn read_key(path: &Path) -> Result<RecipientKey, Error> {
    let text = files::read_private(path)?;
    parse(path, text, PRIVATE).map(|key| RecipientKey::from_bytes(&key))
}

fn line(word: &str, key: &[u8; 32]) -> Zeroizing<String> {
    let digits = SealKey::from_bytes(key).to_file();
    let mut line = Zeroizing::new(String::with_capacity(word.len() + 1 + digits.len()));
    line.extend([word, " ", digits.as_str()]);
    line
}

/// The reverse of [`line`].
fn parse(path: &Path, text: Option<Zeroizing<Vec<u8>>>, word: &str) -> Result<Zeroizing<[u8; 32]>, Error> {
    let wrong = |cause: String| Error::File {
        path: path.into(),
        cause,
        remedy: "name a file that `sallyport backup keygen` made: NAME.pub to make backups, NAME.key to open them"
            .into(),
    };
    let text = text.ok_or_else(|| wrong("no such file".into()))?;
    let digits = text.trim_ascii().strip_prefix(word.as_bytes()).map(<[u8]>::trim_ascii);
    let key = digits.filter(|d| d.len() == 64).and_then(|d| SealKey::from_file(d).ok());
    key.map(|key| key.to_bytes()).ok_or_else(|| wrong(format!("this is no {word} and 64 hexadecimal digits")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use ring::rand::SystemRandom;

    use super::*;

    #[test]
    fn a_key_pair_is_written_read_and_never_overwritten() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (private, public) = (dir.path().join("b.key"), dir.path().join("b.pub"));
        let key = make_recipient(&private, &public, &SystemRandom::new()).expect("makes");
        assert_eq!(read_recipient(&public).expect("reads"), key);
        assert_eq!(read_key(&private).expect("reads").public(), key);
        let mode = std::fs::metadata(&private).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = make_recipient(&private, &public, &SystemRandom::new()).expect_err("refused");
        assert!(again.to_string().contains("another name"), "{again}");
        assert_eq!(read_key(&private).expect("as it was").public(), key);
        // Neither half of a pair is left where the other could not be written, and no other file is touched.
        let other = dir.path().join("c.key");
        std::fs::write(dir.path().join("c.tmp"), "somebody's").expect("writes");
        make_recipient(&other, &public, &SystemRandom::new()).expect_err("the public one is there");
        assert!(!other.exists());
        make_recipient(&other, &dir.path().join("c.pub"), &SystemRandom::new()).expect("makes");
        assert_eq!(std::fs::read(dir.path().join("c.tmp")).expect("there"), b"somebody's");
        // Each in the place of the other.
        assert!(read_key(&public).is_err_and(|e| e.to_string().contains("NAME.key to open")));
        assert!(read_recipient(&private).is_err());
        assert!(read_recipient(&dir.path().join("none")).is_err_and(|e| e.to_string().contains("no such file")));
    }

    #[test]
    fn a_passphrase_must_not_be_short() {
        let lock = |text: &str| Lock::passphrase(Zeroizing::new(text.as_bytes().to_vec()));
        assert!(lock("short").is_err_and(|e| e.to_string().contains("at least 12")));
        assert_eq!(format!("{:?}", lock("correct horse battery").expect("taken")), "Passphrase(..)");
        assert!(Lock::recipients(Vec::new()).is_err());
    }
}
