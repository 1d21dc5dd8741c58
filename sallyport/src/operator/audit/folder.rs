//! What an operator's folder remembers of the log: `audit-head`, the newest signed head that was verified with it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use sallyport_ca::merkle::SignedTreeHead;
use sallyport_ca::{Certificate, pem};

use crate::cli::Global;
use crate::error::{Error, Exit, Result};

const HEAD: &str = "audit-head";
/// Longest file that is read, bytes.
const MAX_FILE: u64 = 64 * 1024;

/// The folder of the operator's identity.
pub(super) struct Folder {
    dir: PathBuf,
    roots: Vec<Certificate>,
}

/// Bytes of hexadecimal digits.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let text = text.trim();
    let digits = (text.len().is_multiple_of(2) && text.bytes().all(|b| b.is_ascii_hexdigit())).then_some(text)?;
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()).collect()
}

/// Root certificates of a PEM file.
pub(super) fn roots_in(path: &Path) -> Result<Vec<Certificate>> {
    let text = fs::read(path).map_err(|e| Error::file("read", path, &e))?;
    let unusable = |e: sallyport_ca::Error| Error::failed(format!("{}: {e}", path.display()));
    pem::certificates(&text).map_err(unusable)?.iter().map(|der| Certificate::from_der(der).map_err(unusable)).collect()
}

/// A head in a file, in hexadecimal digits.
pub(super) fn head_in(path: &Path) -> Result<SignedTreeHead> {
    let long = fs::metadata(path).map_err(|e| Error::file("read", path, &e))?.len() > MAX_FILE;
    let none = || Error::failed(format!("{} holds no signed head of an audit log", path.display()));
    let text = if long { String::new() } else { fs::read_to_string(path).map_err(|_| none())? };
    unhex(&text).and_then(|bytes| SignedTreeHead::from_bytes(&bytes).ok()).ok_or_else(none)
}

impl Folder {
    /// The folder that the global options say.
    pub(super) fn open(global: &Global) -> Result<Self> {
        let dir = global.identity.clone().unwrap_or_else(|| global.state.join("operator"));
        let ca = dir.join("ca.pem");
        if !ca.exists() {
            return Err(Error::new(Exit::Unreachable, format!("no operator's identity: {} is missing", ca.display()))
                .remedy("point --state or --identity to the folder"));
        }
        Ok(Self { roots: roots_in(&ca)?, dir })
    }

    /// The roots of the cluster.
    pub(super) fn roots(&self) -> &[Certificate] {
        &self.roots
    }

    /// The newest head that is known.
    pub(super) fn known(&self) -> Result<Option<SignedTreeHead>> {
        let path = self.dir.join(HEAD);
        if path.exists() { head_in(&path).map(Some) } else { Ok(None) }
    }

    /// Keeps a head from now on.
    pub(super) fn keep(&self, head: Option<&SignedTreeHead>) -> Result {
        match head {
            Some(head) => self.write(HEAD, &head.to_bytes()).map(drop),
            None => Ok(()),
        }
    }

    /// Keeps the two heads and the proof that show what is wrong; where.
    pub(super) fn keep_evidence(&self, id: [u8; 16], evidence: &[u8]) -> Result<PathBuf> {
        self.write(&format!("audit-evidence-{}", crate::hex::lower(&id[..4])), evidence)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.dir.join(name);
        let failed = |e: std::io::Error| Error::file("write", &path, &e);
        // Whoever reads it at the same time finds a whole one.
        let mut file = tempfile::Builder::new().prefix(name).tempfile_in(&self.dir).map_err(failed)?;
        file.write_all(format!("{}\n", crate::hex::lower(bytes)).as_bytes()).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&path).map_err(|e| failed(e.error))?;
        Ok(path)
    }
}
