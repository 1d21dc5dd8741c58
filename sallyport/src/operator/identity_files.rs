//! The folders that `cert issue` writes: a private key is readable by its owner only, and nothing is replaced unasked.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sallyport_ca::pem;
use sallyport_proto::dial::REVOKED;
use sallyport_proto::v1::{CertificateProfile, IssueCertificateResponse, KeyAlgorithm, Secret};

use super::revoked::Revoked;
use crate::error::{Error, Result};

/// Readable by the owner only.
pub(super) const PRIVATE: u32 = 0o600;
/// Readable by everybody.
pub(super) const PUBLIC: u32 = 0o644;
/// The root's file.
const CA: &str = "ca.pem";
/// In a machine's folder, the file with what is between its certificate and the root.
const CHAIN: &str = "chain.pem";
/// The file with the controller's address in an operator's folder.
const ADDRESS: &str = "controller";

/// A key with its certificate: what it is for and where it goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    /// What the certificate is for.
    pub(crate) profile: CertificateProfile,
    /// Kind of key.
    pub(crate) key: KeyAlgorithm,
    /// Names of the key's file and of the certificate's.
    pub(crate) files: (&'static str, &'static str),
}

/// A folder to be filled.
#[derive(Debug)]
pub(crate) struct Folder {
    dir: PathBuf,
}

impl Folder {
    /// One that is there.
    pub(crate) fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Makes the folder and looks whether there is room in it, before the controller makes a key that could not be kept.
    pub(crate) fn prepare(dir: &Path, pieces: &[Piece], force: bool) -> Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|e| Error::file("make the folder", dir, &e))?;
        let folder = Self { dir: dir.to_owned() };
        let mut wanted = pieces.iter().flat_map(|p| [p.files.0, p.files.1]).chain([CA]).map(|name| dir.join(name));
        match wanted.find(|path| !force && path.exists()) {
            Some(there) => Err(Error::failed(format!("{} is there already", there.display()))
                .remedy("choose another folder with --out, or replace it with --force")),
            None => Ok(folder),
        }
    }

    /// Writes a key with its certificate, and the root; gives the files.
    pub(crate) fn write(&self, piece: &Piece, response: IssueCertificateResponse) -> Result<Vec<PathBuf>> {
        let key = response.private_key.map(Secret::into_inner).unwrap_or_default();
        let (root, intermediates) = response.chain.split_last().map_or((None, &[][..]), |(r, i)| (Some(r), i));
        let mut certificate = certificate_pem(&response.certificate);
        let above: String = intermediates.iter().map(|der| certificate_pem(der)).collect();
        // VPN clients want each certificate in a file of its own; programs that speak TLS want them in one.
        let apart = matches!(piece.profile, CertificateProfile::Machine | CertificateProfile::User);
        if !apart {
            certificate += &above;
        }
        let mut files = vec![
            self.put(piece.files.0, PRIVATE, pem::encode("PRIVATE KEY", &key).as_bytes())?,
            self.put(piece.files.1, PUBLIC, certificate.as_bytes())?,
        ];
        if apart && !above.is_empty() {
            files.push(self.put(CHAIN, PUBLIC, above.as_bytes())?);
        }
        if let Some(root) = root {
            files.push(self.put(CA, PUBLIC, certificate_pem(root).as_bytes())?);
        }
        Ok(files)
    }

    /// Notes which controller issued an operator's identity, so that commands need no `--controller`.
    pub(crate) fn write_address(&self, address: &str) -> Result<PathBuf> {
        self.put(ADDRESS, PUBLIC, format!("{address}\n").as_bytes())
    }

    /// Notes which controllers' certificates were taken back: who begins with this folder knows from the first word on.
    /// Gives the file, if there is anything to know.
    pub(crate) fn write_revoked(&self, revoked: &Revoked) -> Result<Option<PathBuf>> {
        let path = self.dir.join(REVOKED);
        let there = revoked.keep_in(&path).map_err(|e| Error::file("write", &path, &e))?;
        Ok(there.then_some(path))
    }

    /// Writes under another name first, so that a file is either the old one or the new one, and never readable by others
    /// for a moment.
    pub(super) fn put(&self, name: &str, mode: u32, content: &[u8]) -> Result<PathBuf> {
        let path = self.dir.join(name);
        let temporary = self.dir.join(format!(".{name}.new"));
        let write = || -> io::Result<()> {
            match fs::remove_file(&temporary) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        };
        write().map_err(|e| Error::file("write", &path, &e))?;
        Ok(path)
    }
}

/// A certificate as PEM text.
pub(crate) fn certificate_pem(der: &[u8]) -> String {
    pem::encode("CERTIFICATE", der).to_string()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const MACHINE: Piece =
        Piece { profile: CertificateProfile::Machine, key: KeyAlgorithm::Rsa2048, files: ("key.pem", "cert.pem") };

    fn response(key: &[u8]) -> IssueCertificateResponse {
        IssueCertificateResponse {
            private_key: Some(Secret::new(key)),
            certificate: b"leaf".to_vec(),
            chain: vec![b"middle".to_vec(), b"root".to_vec()],
            info: None,
        }
    }

    fn listing(dir: &Path) -> Vec<(String, u32)> {
        let mut all: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap())
            .map(|e| (e.file_name().into_string().unwrap(), e.metadata().unwrap().permissions().mode() & 0o777))
            .collect();
        all.sort();
        all
    }

    #[test]
    fn a_machine_gets_a_private_key_a_chain_and_the_root() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("laptop7");
        let folder = Folder::prepare(&dir, &[MACHINE], false).unwrap();
        assert_eq!(folder.write(&MACHINE, response(b"key")).unwrap().len(), 4);
        let expected = [("ca.pem", 0o644), ("cert.pem", 0o644), ("chain.pem", 0o644), ("key.pem", 0o600)];
        assert_eq!(listing(&dir), expected.map(|(n, m)| (n.to_owned(), m)));
        assert_eq!(pem::private_key(&fs::read(dir.join("key.pem")).unwrap()).unwrap().as_slice(), b"key");
        for (file, content) in
            [("cert.pem", b"leaf".to_vec()), ("chain.pem", b"middle".to_vec()), ("ca.pem", b"root".to_vec())]
        {
            assert_eq!(pem::certificates(&fs::read(dir.join(file)).unwrap()).unwrap(), [content], "{file}");
        }
    }

    #[test]
    fn a_gateway_and_an_operator_show_their_chain_out_of_one_file() {
        let temp = tempfile::tempdir().unwrap();
        for (profile, files) in
            [(CertificateProfile::Gateway, ("a.key", "a.pem")), (CertificateProfile::Operator, ("b.key", "b.pem"))]
        {
            let piece = Piece { profile, key: KeyAlgorithm::EcdsaP256, files };
            let folder = Folder::prepare(temp.path(), &[piece], true).unwrap();
            assert_eq!(folder.write(&piece, response(b"key")).unwrap().len(), 3);
            let chain = pem::certificates(&fs::read(temp.path().join(files.1)).unwrap()).unwrap();
            assert_eq!(chain, [b"leaf".to_vec(), b"middle".to_vec()]);
        }
        assert!(!temp.path().join("chain.pem").exists());
    }

    #[test]
    fn a_key_that_is_there_is_not_replaced_unasked() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("key.pem"), "precious").unwrap();
        let error = Folder::prepare(temp.path(), &[MACHINE], false).unwrap_err();
        assert!(error.to_string().contains("key.pem is there already"), "{error}");
        let folder = Folder::prepare(temp.path(), &[MACHINE], true).unwrap();
        folder.write(&MACHINE, response(b"new")).unwrap();
        assert_ne!(fs::read(temp.path().join("key.pem")).unwrap(), b"precious");
    }
}
