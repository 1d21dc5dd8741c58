//! The folder of an enrolled machine:
//!
//! ```text
//! key.pem cert.pem chain.pem ca.pem   links into `current`
//! enrollment.toml                     where from, for what, where to
//! current -> 7                        swapped in one step
//! 7/ 6/                               a pair in force with its chain and roots, and the one before it
//! pending/                            a new key and its request, from before the request is sent until it is answered
//! waiting.toml                        while there is no first certificate: what was asked for
//! pin                                 of the token that the key is in, if it was not in a file already
//! ```
//!
//! A numbered folder is complete from the moment it has its name. A crash leaves either the old pair in force and the same
//! request to be sent again, or a complete new pair that [`Folder::open`] puts in force.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use sallyport_ca::{Certificate, KeyAlgorithm, PublicKey, SecureRandom, UnixTime, pem};
use serde::{Deserialize, Serialize};

use crate::chain::Issued;
use crate::files::{self, PRIVATE, PUBLIC};
use crate::{Error, KeyStore, Kind, Result, TokenPlace, key};

const KEY: &str = "key.pem";
const CERT: &str = "cert.pem";
const CHAIN: &str = "chain.pem";
const CA: &str = "ca.pem";
const REQUEST: &str = "request.der";
const SETTINGS: &str = "enrollment.toml";
const CURRENT: &str = "current";
const PENDING: &str = "pending";
const LOCK: &str = ".lock";
pub(crate) const PIN: &str = "pin";
const LOOKED: &str = ".looked";
const HEAD: &str = "# Written by `sallyport enroll`, read by `sallyport enroll renew`. `sallyport enroll remove` takes all of it away.\n";

/// What `enrollment.toml` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where certificates come from, HOST or HOST:PORT.
    pub server: String,
    /// The name that the authority gave this machine.
    pub name: String,
    /// SHA-256 of the root that the token named, in hexadecimal digits.
    pub root: String,
    /// The kind of key.
    pub key: String,
    /// The token that keys are made in, if not in files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_in: Option<String>,
    /// The VPN's public name or address.
    pub gateway: String,
    /// The user of the connections that were written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// For which software key and certificate are installed.
    #[serde(default)]
    pub installed: Vec<String>,
}

/// A key in force with its certificate.
pub struct Identity {
    /// The key.
    pub key: Box<dyn KeyStore>,
    /// The machine's certificate.
    pub certificate: Certificate,
    /// What is between it and a root, the leaf's issuer first, DER.
    pub chain: Vec<Vec<u8>>,
    /// The roots that are trusted, DER.
    pub roots: Vec<Vec<u8>>,
}

impl Identity {
    /// The identity in a folder: `key.pem`, `cert.pem` (perhaps with intermediates), `ca.pem`, and `chain.pem` if there is one.
    /// So is what `cert issue` writes.
    pub fn read(dir: &Path) -> Result<Self> {
        let file = |name: &str| files::read(&dir.join(name));
        let needed = |name: &str| {
            file(name)?.ok_or_else(|| {
                Error::machine(
                    format!("there is no {}", dir.join(name).display()),
                    "name a folder of an enrolled machine, or one that `sallyport cert issue` wrote",
                )
            })
        };
        let unusable = |name: &str, e: &dyn core::fmt::Display| {
            Error::machine(format!("{} cannot be used: {e}", dir.join(name).display()), "")
        };
        let key = key::load(&needed(KEY)?).map_err(|e| unusable(KEY, &e))?;
        let mut certificates = pem::certificates(&needed(CERT)?).map_err(|e| unusable(CERT, &e))?;
        let certificate = Certificate::from_der(&certificates.remove(0)).map_err(|e| unusable(CERT, &e))?;
        // Nothing in it where the root is the issuer.
        let more = file(CHAIN)?.and_then(|text| pem::certificates(&text).ok()).unwrap_or_default();
        for der in more {
            if !certificates.contains(&der) && der != certificate.der() {
                certificates.push(der);
            }
        }
        let roots = pem::certificates(&needed(CA)?).map_err(|e| unusable(CA, &e))?;
        if certificate.spki_der() != key.public_key().spki_der() {
            return Err(unusable(CERT, &"it is for another key than key.pem"));
        }
        Ok(Self { key, certificate, chain: certificates, roots })
    }

    /// The certificates above the machine's as one PEM text.
    pub fn chain_pem(&self) -> String {
        pems(&self.chain)
    }

    /// The roots as one PEM text.
    pub fn roots_pem(&self) -> String {
        pems(&self.roots)
    }

    /// The machine's name: its common name, else what the certificate says.
    pub fn name(&self) -> String {
        common_name(&self.certificate)
    }
}

/// The common name of a certificate's subject, else all of the subject.
pub(crate) fn common_name(certificate: &Certificate) -> String {
    let subject = certificate.subject.as_str();
    subject.split(", ").find_map(|part| part.strip_prefix("CN=")).unwrap_or(subject).to_owned()
}

fn pems(list: &[Vec<u8>]) -> String {
    list.iter().map(|der| pem::encode("CERTIFICATE", der).to_string()).collect()
}

/// A key that has no certificate yet, and its request.
pub(crate) struct Pending {
    pub(crate) key: Box<dyn KeyStore>,
    pub(crate) csr: Vec<u8>,
}

impl Drop for Folder {
    /// A program that is being started elsewhere in this process still has the file for a moment: closing it is not enough.
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

/// The folder, held by one process at a time.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    lock: File,
}

impl Folder {
    /// Takes the folder, makes it if it is not there, and finishes what a crash left.
    pub fn open(dir: &Path) -> Result<Self> {
        files::make_dir(dir, 0o700)?;
        let path = dir.join(LOCK);
        let lock = File::create(&path).map_err(|e| Error::file("write", &path, &e))?;
        if let Err(fs::TryLockError::WouldBlock) = lock.try_lock() {
            return Err(Error::machine(
                format!("another process is at work in {}", dir.display()),
                "wait until it is done: it may be the timer",
            ));
        }
        let folder = Self { dir: dir.to_owned(), lock };
        folder.recover()?;
        Ok(folder)
    }

    /// Lets others have the folder until [`Self::take_again`].
    pub(crate) fn let_go(&self) -> Result {
        self.lock.unlock().map_err(|e| Error::file("unlock", &self.dir.join(LOCK), &e))
    }

    /// Takes it again after [`Self::let_go`]; `false` while another process has it.
    pub(crate) fn take_again(&self) -> Result<bool> {
        match self.lock.try_lock() {
            Ok(()) => Ok(true),
            Err(fs::TryLockError::WouldBlock) => Ok(false),
            Err(fs::TryLockError::Error(e)) => Err(Error::file("lock", &self.dir.join(LOCK), &e)),
        }
    }

    /// Whether this request still waits here: nobody has got its certificate meanwhile, begun another, or removed all of it.
    pub(crate) fn still_waits(&self, pending: &Pending) -> Result<bool> {
        Ok(files::read(&self.dir.join(PENDING).join(REQUEST))?.is_some_and(|csr| *csr == pending.csr))
    }

    /// Takes the folder of a machine that is enrolled.
    pub fn open_enrolled(dir: &Path) -> Result<(Self, Settings, Identity)> {
        if !dir.exists() {
            return Err(not_enrolled(dir));
        }
        let folder = Self::open(dir)?;
        let settings = folder.settings()?.ok_or_else(|| not_enrolled(dir))?;
        let identity = folder.identity()?.ok_or_else(|| not_enrolled(dir))?;
        Ok((folder, settings, identity))
    }

    /// What an enrolled machine has, to be shown: the folder is neither taken nor changed.
    pub fn look(dir: &Path) -> Result<(Settings, Identity)> {
        match settings(dir)? {
            Some(settings) => Ok((settings, Identity::read(&dir.join(CURRENT))?)),
            None => Err(not_enrolled(dir)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// What is in force.
    pub fn identity(&self) -> Result<Option<Identity>> {
        if self.current()?.is_none() {
            return Ok(None);
        }
        Identity::read(&self.dir.join(CURRENT)).map(Some)
    }

    /// What `enrollment.toml` says.
    pub fn settings(&self) -> Result<Option<Settings>> {
        settings(&self.dir)
    }

    /// Writes `enrollment.toml`.
    pub fn write_settings(&self, settings: &Settings) -> Result {
        let text = toml::to_string(settings).map_err(|e| Error::machine(e.to_string(), ""))?;
        files::put(&self.dir.join(SETTINGS), PRIVATE, format!("{HEAD}{text}").as_bytes())
    }

    /// The key and the request that wait for an answer, if they are of this kind; else new ones, on disk before this returns.
    pub(crate) fn begin(
        &self,
        (place, algorithm): (Option<&TokenPlace>, KeyAlgorithm),
        name: &str,
        rng: &dyn SecureRandom,
    ) -> Result<Pending> {
        let dir = self.dir.join(PENDING);
        if let Some(pending) = self.pending()? {
            let key = &pending.key;
            if key.public_key().algorithm() == algorithm && key.token().map(|k| k.place()) == place {
                return Ok(pending);
            }
            // A token that is gone keeps it; nobody certifies it any more.
            let _ = key.destroy();
        }
        let fresh = self.dir.join(".pending.new");
        for old in [&dir, &fresh] {
            remove_dir(old)?;
        }
        let key = key::generate(place, algorithm, rng)?;
        let csr = key.request(name, rng)?;
        files::make_dir(&fresh, 0o700)?;
        files::put(&fresh.join(KEY), PRIVATE, key.pem().as_bytes())?;
        files::put(&fresh.join(REQUEST), PRIVATE, &csr)?;
        self.rename(&fresh, &dir)?;
        Ok(Pending { key, csr })
    }

    /// When it was last looked which authorities are in force.
    pub(crate) fn looked(&self) -> Result<Option<UnixTime>> {
        let text = files::read(&self.dir.join(LOOKED))?;
        Ok(text.and_then(|t| core::str::from_utf8(&t).ok()?.trim().parse().ok()).map(UnixTime))
    }

    pub(crate) fn note_look(&self, at: UnixTime) -> Result {
        files::put(&self.dir.join(LOOKED), PRIVATE, at.0.to_string().as_bytes())
    }

    fn pending(&self) -> Result<Option<Pending>> {
        let dir = self.dir.join(PENDING);
        let (Some(key), Some(csr)) = (files::read(&dir.join(KEY))?, files::read(&dir.join(REQUEST))?) else {
            return Ok(None);
        };
        let Ok(key) = key::load(&key) else { return Ok(None) };
        let of_this_key = PublicKey::from_csr_der(&csr).is_ok_and(|public| public == key.public_key());
        Ok(of_this_key.then(|| Pending { key, csr: csr.to_vec() }))
    }

    /// Puts the pending key with its certificate in force; the pair before it is kept, older ones go.
    pub(crate) fn complete(&self, issued: &Issued, roots: &[Vec<u8>]) -> Result<Identity> {
        self.fill_pending(issued, roots)?;
        let number = self.promote()?;
        self.point(number)?;
        self.prune(number)?;
        Identity::read(&self.dir.join(CURRENT))
    }

    fn fill_pending(&self, issued: &Issued, roots: &[Vec<u8>]) -> Result {
        let dir = self.dir.join(PENDING);
        files::put(&dir.join(CERT), PUBLIC, issued.leaf.pem().as_bytes())?;
        files::put(&dir.join(CHAIN), PUBLIC, pems(&issued.middle).as_bytes())?;
        files::put(&dir.join(CA), PUBLIC, pems(roots).as_bytes())
    }

    fn promote(&self) -> Result<u64> {
        let number = self.numbers()?.last().map_or(1, |n| n + 1);
        self.rename(&self.dir.join(PENDING), &self.dir.join(number.to_string()))?;
        Ok(number)
    }

    fn point(&self, number: u64) -> Result {
        self.link(CURRENT, Path::new(&number.to_string()))?;
        for name in [KEY, CERT, CHAIN, CA] {
            let target = Path::new(CURRENT).join(name);
            if fs::read_link(self.dir.join(name)).ok().as_deref() != Some(&target) {
                self.link(name, &target)?;
            }
        }
        Ok(())
    }

    fn prune(&self, current: u64) -> Result {
        files::remove(&self.dir.join(current.to_string()).join(REQUEST))?;
        let mut older: Vec<u64> = self.numbers()?.into_iter().filter(|n| *n < current).collect();
        older.pop(); // the one before
        for dir in older.iter().map(|n| self.dir.join(n.to_string())) {
            // Where its token is away, the key and its folder stay until the next run.
            if destroy(&dir).is_ok() {
                remove_dir(&dir)?;
            }
        }
        Ok(())
    }

    fn recover(&self) -> Result {
        remove_dir(&self.dir.join(".pending.new"))?;
        let Some(last) = self.numbers()?.last().copied() else { return Ok(()) };
        let linked = [KEY, CERT, CHAIN, CA].iter().all(|name| self.dir.join(name).exists());
        if self.current()? != Some(last) || !linked {
            self.point(last)?;
        }
        self.prune(last)
    }

    fn current(&self) -> Result<Option<u64>> {
        let path = self.dir.join(CURRENT);
        match fs::read_link(&path) {
            Ok(target) => Ok(target.to_str().and_then(|t| t.parse().ok())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::file("read", &path, &e)),
        }
    }

    /// The numbered folders, in order.
    fn numbers(&self) -> Result<Vec<u64>> {
        let wrong = |e: &io::Error| Error::file("read", &self.dir, e);
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(|e| wrong(&e))? {
            let name = entry.map_err(|e| wrong(&e))?.file_name();
            numbers.extend(name.to_str().and_then(|n| n.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result {
        fs::rename(from, to).and_then(|()| files::sync(&self.dir)).map_err(|e| Error::file("write", to, &e))
    }

    fn link(&self, name: &str, target: &Path) -> Result {
        let (path, new) = (self.dir.join(name), self.dir.join(format!(".{name}.new")));
        files::remove(&new)?;
        symlink(target, &new).map_err(|e| Error::file("write", &new, &e))?;
        self.rename(&new, &path)
    }

    /// Removes all that [`Folder`] wrote; a file of somebody else stays, and so does the folder then. What it gives back went wrong
    /// with keys in tokens, which stay there.
    pub fn remove(self) -> Result<Vec<Error>> {
        let folders = self.numbers()?.into_iter().map(|n| n.to_string()).chain([PENDING.to_owned()]);
        let left = folders.filter_map(|name| destroy(&self.dir.join(name)).err()).collect();
        for name in [SETTINGS, KEY, CERT, CHAIN, CA, CURRENT] {
            files::remove(&self.dir.join(name))?;
        }
        for number in self.numbers()? {
            remove_dir(&self.dir.join(number.to_string()))?;
        }
        remove_dir(&self.dir.join(PENDING))?;
        self.clear_waiting()?;
        files::remove(&self.dir.join(PIN))?;
        files::remove(&self.dir.join(LOOKED))?;
        files::remove(&self.dir.join(LOCK))?;
        let _ = fs::remove_dir(&self.dir);
        Ok(left)
    }
}

fn settings(dir: &Path) -> Result<Option<Settings>> {
    let path = dir.join(SETTINGS);
    let Some(text) = files::read(&path)? else { return Ok(None) };
    let text = core::str::from_utf8(&text).unwrap_or_default();
    toml::from_str(text).map(Some).map_err(|e| {
        Error::machine(
            format!("{} cannot be read: {}", path.display(), e.message()),
            "mend it, or enroll again with a new token",
        )
    })
}

/// Takes the key of a folder out of its token, if it is in one.
fn destroy(dir: &Path) -> Result {
    match files::read(&dir.join(KEY))?.map(|text| key::load(&text)) {
        Some(Ok(key)) => key.destroy(),
        // What cannot be read leads to no token.
        Some(Err(_)) | None => Ok(()),
    }
}

fn not_enrolled(dir: &Path) -> Error {
    Error::new(
        Kind::Usage,
        format!("this machine is not enrolled in {}", dir.display()),
        "get a token (sallyport token create) and run `sallyport enroll --token-file -`",
    )
}

fn remove_dir(path: &Path) -> Result {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", path, &e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
