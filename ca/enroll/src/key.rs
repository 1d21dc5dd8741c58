//! The machine's private key, wherever it lives.

use std::sync::Arc;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::sign::SigningKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sallyport_ca::{KeyAlgorithm, KeyPair, PublicKey, SecureRandom};
use zeroize::Zeroizing;

use crate::{Error, Result, TokenKey, TokenPlace};

/// A private key that can be used; whether it can be seen is its own matter: one in a token or a TPM cannot.
pub trait KeyStore: Send + Sync {
    /// The public half.
    fn public_key(&self) -> PublicKey;

    /// A certification request of `CN=name` (PKCS #10, DER), signed by the key.
    fn request(&self, name: &str, rng: &dyn SecureRandom) -> Result<Vec<u8>>;

    /// The key as TLS uses it when the machine proves who it is.
    fn tls(&self) -> Result<Arc<dyn SigningKey>>;

    /// What stands for the key in `key.pem`: the key itself in PKCS #8, or where it is kept.
    fn pem(&self) -> Zeroizing<String>;

    /// The key itself in PKCS #8 (DER), if it can leave.
    fn pkcs8(&self) -> Result<Zeroizing<Vec<u8>>>;

    /// The key in a token, if it is one.
    fn token(&self) -> Option<&TokenKey> {
        None
    }

    /// Removes what is left of the key outside of `key.pem`.
    fn destroy(&self) -> Result {
        Ok(())
    }
}

/// A key in a file.
#[derive(Debug)]
pub struct FileKey(KeyPair);

impl FileKey {
    /// A new one.
    pub fn generate(algorithm: KeyAlgorithm, rng: &dyn SecureRandom) -> Result<Self> {
        Ok(Self(KeyPair::generate(algorithm, rng)?))
    }

    /// The key of `key.pem`.
    pub fn from_pem(text: &[u8]) -> Result<Self> {
        Ok(Self(KeyPair::from_pem(text)?))
    }

    /// PKCS #8 in DER.
    pub fn pkcs8_der(&self) -> &[u8] {
        self.0.pkcs8_der()
    }
}

impl KeyStore for FileKey {
    fn public_key(&self) -> PublicKey {
        self.0.public_key()
    }

    fn request(&self, name: &str, rng: &dyn SecureRandom) -> Result<Vec<u8>> {
        Ok(self.0.request(name, None, rng)?.to_vec())
    }

    fn tls(&self) -> Result<Arc<dyn SigningKey>> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.pkcs8_der().to_vec()));
        any_supported_type(&key).map_err(|e| Error::machine(format!("the machine's key cannot be used: {e}"), ""))
    }

    fn pem(&self) -> Zeroizing<String> {
        self.0.pkcs8_pem()
    }

    fn pkcs8(&self) -> Result<Zeroizing<Vec<u8>>> {
        Ok(Zeroizing::new(self.0.pkcs8_der().to_vec()))
    }
}

/// A new key: in a token, or for a file.
pub(crate) fn generate(
    place: Option<&TokenPlace>,
    algorithm: KeyAlgorithm,
    rng: &dyn SecureRandom,
) -> Result<Box<dyn KeyStore>> {
    Ok(match place {
        Some(place) => Box::new(TokenKey::generate(place, algorithm, rng)?),
        None => Box::new(FileKey::generate(algorithm, rng)?),
    })
}

/// The key of a `key.pem`.
pub(crate) fn load(text: &[u8]) -> Result<Box<dyn KeyStore>> {
    match TokenKey::parse(text) {
        Some(key) => Ok(Box::new(key?)),
        None => Ok(Box::new(FileKey::from_pem(text)?)),
    }
}
