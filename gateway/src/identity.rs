//! Who this gateway is: its certificate towards the controllers and its certificates towards IKE peers.

use std::fs;
use std::path::{Path, PathBuf};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sallyport_proto::dial::REVOKED;
use zeroize::Zeroizing;

use crate::folder;

/// One key with its chain for IKE.
#[derive(Clone)]
pub struct IkeIdentity {
    /// DER certificates, the gateway's own first, then intermediates; the root is left out.
    pub chain: Vec<Vec<u8>>,
    /// PKCS #8 DER.
    pub key: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for IkeIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IkeIdentity").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

/// Everything a gateway holds to prove itself.
#[derive(Clone)]
pub struct Identity {
    /// Certificate chain for gRPC, PEM.
    pub grpc_chain: Vec<u8>,
    /// Its key, PEM.
    pub grpc_key: Zeroizing<Vec<u8>>,
    /// The roots, PEM: whom we believe to be a controller.
    pub ca: Vec<u8>,
    /// Roots that were given up, PEM: never trusted again. Empty where there is none.
    pub gone: Vec<u8>,
    /// Certificates of controllers that were taken back when the folder was written: a list in DER that the root has signed.
    pub revoked: Option<Vec<u8>>,
    /// Identities for IKE, one per kind of key.
    pub ike: Vec<IkeIdentity>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("ike", &self.ike).finish_non_exhaustive()
    }
}

/// The identity folder does not hold what a gateway needs.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read.
    #[error(
        "cannot read {path}: {source}; a token makes this folder: sallyport gateway token NAME, then sallyport gateway --token-file -"
    )]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file holds something else.
    #[error("{path}: {why}; make the folder anew: remove it, and give a token (sallyport gateway token NAME)")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// File names of the folder: certificate chain and key for each purpose.
pub(crate) const GRPC: (&str, &str) = ("grpc.pem", "grpc.key");
pub(crate) const IKE: [(&str, &str); 2] = [("ike-rsa.pem", "ike-rsa.key"), ("ike-ecdsa.pem", "ike-ecdsa.key")];
pub(crate) const CA: &str = "ca.pem";
pub(crate) const GONE: &str = "ca-gone.pem";

impl Identity {
    /// Reads the folder that the controller or `sallyport cert issue --gateway` wrote: `ca.pem`, `grpc.pem` and `.key`,
    /// and at least one of `ike-rsa` and `ike-ecdsa`; `controllers.crl` if it is there. What the gateway enrolled for by itself
    /// since then takes their place.
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        let dir = &folder::in_force(dir);
        let mut ike = Vec::new();
        for (chain, key) in IKE {
            if dir.join(chain).exists() {
                ike.push(load_ike(&dir.join(chain), &dir.join(key))?);
            }
        }
        if ike.is_empty() {
            let path = dir.to_path_buf();
            return Err(IdentityError::Content { path, why: "no ike-rsa.pem and no ike-ecdsa.pem".into() });
        }
        Ok(Self {
            grpc_chain: read(&dir.join(GRPC.0))?,
            grpc_key: Zeroizing::new(read(&dir.join(GRPC.1))?),
            ca: read(&dir.join(CA))?,
            gone: read_if_there(&dir.join(GONE))?.unwrap_or_default(),
            revoked: read_if_there(&dir.join(REVOKED))?,
            ike,
        })
    }

    /// The root certificate in DER.
    pub fn root_der(&self) -> Option<Vec<u8>> {
        CertificateDer::from_pem_slice(&self.ca).ok().map(|c| c.to_vec())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    fs::read(path).map_err(|source| IdentityError::Read { path: path.into(), source })
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, IdentityError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::Read { path: path.into(), source }),
    }
}

fn load_ike(chain: &Path, key: &Path) -> Result<IkeIdentity, IdentityError> {
    let content = |path: &Path, why: &str| IdentityError::Content { path: path.into(), why: why.into() };
    let certificates: Vec<Vec<u8>> = CertificateDer::pem_slice_iter(&read(chain)?)
        .map(|c| c.map(|c| c.to_vec()))
        .collect::<Result<_, _>>()
        .map_err(|e| content(chain, &format!("not PEM certificates ({e})")))?;
    if certificates.is_empty() {
        return Err(content(chain, "no certificate in it"));
    }
    let pem = Zeroizing::new(read(key)?);
    match PrivateKeyDer::from_pem_slice(&pem) {
        Ok(PrivateKeyDer::Pkcs8(der)) => {
            Ok(IkeIdentity { chain: certificates, key: Zeroizing::new(der.secret_pkcs8_der().to_vec()) })
        }
        Ok(_) => Err(content(key, "not a PKCS #8 key")),
        Err(e) => Err(content(key, &format!("not a PEM key ({e})"))),
    }
}
