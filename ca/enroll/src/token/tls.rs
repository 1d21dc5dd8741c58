//! The key of a token as TLS uses it: each signature is made there.

use rustls::sign::{Signer, SigningKey};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};
use sallyport_ca::KeyAlgorithm;
use sallyport_pkcs11::Scheme;

use super::TokenKey;

#[derive(Debug)]
pub(super) struct TlsKey(pub(super) TokenKey);

#[derive(Debug)]
struct TlsSigner {
    key: TokenKey,
    scheme: SignatureScheme,
}

impl TlsKey {
    fn schemes(&self) -> &'static [SignatureScheme] {
        match self.0.public.algorithm() {
            KeyAlgorithm::EcdsaP256 => &[SignatureScheme::ECDSA_NISTP256_SHA256],
            KeyAlgorithm::EcdsaP384 => &[SignatureScheme::ECDSA_NISTP384_SHA384],
            // TLS 1.3 knows the first only (RFC 8446 §4.2.3).
            _ => &[SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256],
        }
    }
}

impl SigningKey for TlsKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let scheme = self.schemes().iter().copied().find(|scheme| offered.contains(scheme))?;
        Some(Box::new(TlsSigner { key: self.0.clone(), scheme }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        if self.0.public.algorithm().is_rsa() { SignatureAlgorithm::RSA } else { SignatureAlgorithm::ECDSA }
    }
}

impl Signer for TlsSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let scheme = match self.scheme {
            SignatureScheme::RSA_PSS_SHA256 => Scheme::RsaPss,
            _ => Scheme::Certificates,
        };
        self.key.sign(scheme, message).map_err(|e| Error::General(e.to_string()))
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}
