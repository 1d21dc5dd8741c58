//! The folders that `cert issue` writes: a private key is readable by its owner only, and nothing is replaced unasked.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sallyport_ca::pem;
use sallyport_proto::v1::{CertificateProfile, IssueCertificateResponse, KeyAlgorithm};

use crate::error::{Error, Result};

/// Readable by the owner only.
const PRIVATE: u32 = 0o600;
/// Readable by everybody.
const PUBLIC: u32 = 0o644;
/// The root's file.
const CA: &str = "ca.pem";
/// The file with the controller's address in an operator's folder.
const ADDRESS: &str = "controller";

/// A folder to be filled.
#[derive(Debug)]
pub(crate) struct Folder {
    dir: PathBuf,
    profile: CertificateProfile,
    /// Whether one kind of key is made.
    only: bool,
}

/// Names of a key's file and its certificate's, once for each use of the pair.
type Names = &'static [(&'static str, &'static str)];

/// What a profile's folder calls a key of this kind. A gateway speaks gRPC with its ECDSA key, or with the `only` one it
/// has.
const fn names(profile: CertificateProfile, kind: KeyAlgorithm, only: bool) -> Names {
    let rsa = matches!(kind, KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096);
    match (profile, rsa, only) {
        (CertificateProfile::Gateway, false, _) => &[("grpc.key", "grpc.pem"), ("ike-ecdsa.key", "ike-ecdsa.pem")],
        (CertificateProfile::Gateway, true, true) => &[("grpc.key", "grpc.pem"), ("ike-rsa.key", "ike-rsa.pem")],
        (CertificateProfile::Gateway, true, false) => &[("ike-rsa.key", "ike-rsa.pem")],
        _ => &[("key.pem", "cert.pem")],
    }
}

impl Folder {
    /// Makes the folder and looks whether there is room in it, before the controller makes a key that could not be kept.
    pub(crate) fn prepare(
        dir: &Path,
        profile: CertificateProfile,
        kinds: &[KeyAlgorithm],
        force: bool,
    ) -> Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|e| Error::file("make the folder", dir, &e))?;
        let folder = Self { dir: dir.to_owned(), profile, only: kinds.len() == 1 };
        let mut wanted: Vec<&str> =
            kinds.iter().flat_map(|kind| names(profile, *kind, folder.only)).flat_map(|(k, c)| [*k, *c]).collect();
        wanted.push(CA);
        if !force && let Some(there) = wanted.iter().map(|n| folder.dir.join(n)).find(|p| p.exists()) {
            return Err(Error::failed(format!("{} is there already", there.display()))
                .remedy("choose another folder with --out, or replace it with --force"));
        }
        Ok(folder)
    }

    /// Writes a key with its certificate, and the root; gives the files.
    pub(crate) fn write(
        &self,
        asked: KeyAlgorithm,
        made: KeyAlgorithm,
        response: IssueCertificateResponse,
    ) -> Result<Vec<PathBuf>> {
        let kind = if made == KeyAlgorithm::Unspecified { asked } else { made };
        let key = response.private_key.map(|k| k.into_inner()).unwrap_or_default();
        let key = pem::encode("PRIVATE KEY", &key);
        let (root, intermediates) = response.chain.split_last().map_or((None, &[][..]), |(r, i)| (Some(r), i));
        let mut chain = certificate_pem(&response.certificate);
        chain.extend(intermediates.iter().map(|der| certificate_pem(der)));
        let mut files = Vec::new();
        for (key_name, certificate_name) in names(self.profile, kind, self.only) {
            files.push(self.put(key_name, PRIVATE, key.as_bytes())?);
            files.push(self.put(certificate_name, PUBLIC, chain.as_bytes())?);
        }
        if let Some(root) = root {
            files.push(self.put(CA, PUBLIC, certificate_pem(root).as_bytes())?);
        }
        Ok(files)
    }

    /// Notes which controller issued an operator's identity, so that commands need no `--controller`.
    pub(crate) fn write_address(&self, address: &str) -> Result<Vec<PathBuf>> {
        Ok(vec![self.put(ADDRESS, PUBLIC, format!("{address}\n").as_bytes())?])
    }

    /// Writes under another name first, so that a file is either the old one or the new one, and never readable by others
    /// for a moment.
    fn put(&self, name: &str, mode: u32, content: &[u8]) -> Result<PathBuf> {
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

    use sallyport_proto::v1::Secret;

    use super::*;

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
        let kinds = [KeyAlgorithm::Rsa2048];
        let folder = Folder::prepare(&dir, CertificateProfile::Machine, &kinds, false).unwrap();
        folder.write(kinds[0], kinds[0], response(b"key")).unwrap();
        let expected = [("ca.pem", 0o644), ("cert.pem", 0o644), ("key.pem", 0o600)];
        assert_eq!(listing(&dir), expected.map(|(n, m)| (n.to_owned(), m)));
        assert_eq!(pem::private_key(&fs::read(dir.join("key.pem")).unwrap()).unwrap().as_slice(), b"key");
        let chain = pem::certificates(&fs::read(dir.join("cert.pem")).unwrap()).unwrap();
        assert_eq!(chain, [b"leaf".to_vec(), b"middle".to_vec()]);
        assert_eq!(pem::certificates(&fs::read(dir.join("ca.pem")).unwrap()).unwrap(), [b"root".to_vec()]);
    }

    #[test]
    fn a_gateway_speaks_grpc_with_its_ecdsa_key_or_its_only_one() {
        let temp = tempfile::tempdir().unwrap();
        let kinds = [KeyAlgorithm::EcdsaP256, KeyAlgorithm::Rsa2048];
        let both = temp.path().join("both");
        let folder = Folder::prepare(&both, CertificateProfile::Gateway, &kinds, false).unwrap();
        for kind in kinds {
            folder.write(kind, kind, response(format!("{kind:?}").as_bytes())).unwrap();
        }
        let names: Vec<String> = listing(&both).into_iter().map(|(n, _)| n).collect();
        assert_eq!(
            names,
            ["ca.pem", "grpc.key", "grpc.pem", "ike-ecdsa.key", "ike-ecdsa.pem", "ike-rsa.key", "ike-rsa.pem"]
        );
        assert_eq!(fs::read(both.join("grpc.key")).unwrap(), fs::read(both.join("ike-ecdsa.key")).unwrap());

        let one = temp.path().join("one");
        let folder = Folder::prepare(&one, CertificateProfile::Gateway, &kinds[1..], false).unwrap();
        folder.write(kinds[1], kinds[1], response(b"rsa")).unwrap();
        let names: Vec<String> = listing(&one).into_iter().map(|(n, _)| n).collect();
        assert_eq!(names, ["ca.pem", "grpc.key", "grpc.pem", "ike-rsa.key", "ike-rsa.pem"]);
    }

    #[test]
    fn a_key_that_is_there_is_not_replaced_unasked() {
        let temp = tempfile::tempdir().unwrap();
        let kinds = [KeyAlgorithm::EcdsaP256];
        fs::write(temp.path().join("key.pem"), "precious").unwrap();
        let error = Folder::prepare(temp.path(), CertificateProfile::Operator, &kinds, false).unwrap_err();
        assert!(error.to_string().contains("key.pem is there already"), "{error}");
        let folder = Folder::prepare(temp.path(), CertificateProfile::Operator, &kinds, true).unwrap();
        folder.write(kinds[0], kinds[0], response(b"new")).unwrap();
        assert_ne!(fs::read(temp.path().join("key.pem")).unwrap(), b"precious");
    }
}
