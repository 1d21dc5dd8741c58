//! The node key behind a PKCS #11 token: a hardware security module, or its stand-in in software.
//!
//! A random node key is encrypted by a key that never leaves the token, and only the result is kept. By which mechanism
//! depends on the token; the first that works both ways is taken:
//!
//! 1. AES-GCM, with the label of the key as additional data.
//! 2. AES-CBC over exactly two blocks, without padding: there is no padding to make an oracle of.
//! 3. RSA-OAEP, where the key is a pair of RSA keys; with SHA-256 or, where the token knows only that, SHA-1 (OAEP needs
//!    no resistance against collisions).
//!
//! The node key seals the seal key by AES-256-GCM (`super::copy`), so that a ciphertext altered in 2. or 3. is noticed
//! there: it gives another node key, which opens nothing.
//!
//! How the module is loaded and a session is had is in `sallyport-pkcs11`, which `sallyport enroll` uses, too.

use ring::rand::SecureRandom;
use sallyport_pkcs11::cryptoki::error::Error as P11;
use sallyport_pkcs11::cryptoki::mechanism::aead::GcmParams;
use sallyport_pkcs11::cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource};
use sallyport_pkcs11::cryptoki::mechanism::{Mechanism, MechanismType};
use sallyport_pkcs11::cryptoki::object::{Attribute, KeyType, ObjectClass, ObjectHandle};
use sallyport_pkcs11::cryptoki::session::Session;
use sallyport_pkcs11::{Place, Problem, Trouble};
use zeroize::Zeroizing;

use super::hold::TokenHold;
use super::secrets::Secret;
use crate::config::Pkcs11Config;
use crate::error::Error;

/// Length of the tag of GCM, bits.
const TAG_BITS: u64 = 128;

/// How the node key was encrypted. Numbers are stored: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Method {
    /// Of a newer version.
    Unspecified = 0,
    /// CKM_AES_GCM.
    AesGcm = 1,
    /// CKM_AES_CBC.
    AesCbc = 2,
    /// CKM_RSA_PKCS_OAEP with SHA-256.
    RsaOaepSha256 = 3,
    /// CKM_RSA_PKCS_OAEP with SHA-1.
    RsaOaepSha1 = 4,
}

/// A session of a user who has logged in.
struct Token<'a> {
    session: &'a Session,
    config: &'a Pkcs11Config,
}

/// Loads the module, logs in, and calls `work`.
fn with<T>(config: &Pkcs11Config, pin: &Secret, work: impl FnOnce(&Token<'_>) -> Result<T, Error>) -> Result<T, Error> {
    let place = Place { module: &config.module, token: &config.token };
    sallyport_pkcs11::with(place, pin, |session| work(&Token { session, config }))
        .map_err(|problem| failed(config, problem))?
}

fn refused(config: &Pkcs11Config, cause: String, remedy: &str) -> Error {
    Error::File { path: config.module.clone(), cause, remedy: remedy.into() }
}

/// What the module said, with what to do.
fn problem(config: &Pkcs11Config, error: P11) -> Error {
    failed(config, Problem::from(error))
}

fn failed(config: &Pkcs11Config, problem: Problem) -> Error {
    let remedy = match problem.trouble {
        Trouble::Module => "name the token's PKCS #11 module in controller.unseal.pkcs11.module",
        Trouble::Pin => "correct the PIN before the token locks itself after a few wrong ones",
        Trouble::Locked => "unlock the token as its security officer",
        Trouble::NoToken => "plug it in, or correct controller.unseal.pkcs11.token",
        Trouble::Several => "give one of them another label",
        Trouble::NoKey | Trouble::CannotDo | Trouble::Other => {
            "see that the token works (pkcs11-tool --test), then start again"
        }
    };
    refused(config, format!("token {:?}: {problem}", config.token), remedy)
}

/// The key, or the pair.
enum Keys {
    Aes(ObjectHandle),
    Rsa { public: ObjectHandle, private: ObjectHandle },
}

impl Token<'_> {
    fn find(&self, class: ObjectClass, kind: KeyType) -> Result<Option<ObjectHandle>, Error> {
        let template =
            [Attribute::Class(class), Attribute::KeyType(kind), Attribute::Label(self.config.key.as_bytes().to_vec())];
        let found = self.session.find_objects(&template).map_err(|e| problem(self.config, e))?;
        match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(*one)),
            many => Err(refused(
                self.config,
                format!("{} keys are called {:?} in token {:?}", many.len(), self.config.key, self.config.token),
                "give one of them another label",
            )),
        }
    }

    fn keys(&self) -> Result<Option<Keys>, Error> {
        if let Some(key) = self.find(ObjectClass::SECRET_KEY, KeyType::AES)? {
            return Ok(Some(Keys::Aes(key)));
        }
        let public = self.find(ObjectClass::PUBLIC_KEY, KeyType::RSA)?;
        let private = self.find(ObjectClass::PRIVATE_KEY, KeyType::RSA)?;
        Ok(public.zip(private).map(|(public, private)| Keys::Rsa { public, private }))
    }

    /// A new AES key that never leaves the token.
    fn make_key(&self) -> Result<Keys, Error> {
        let template = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::ValueLen(32.into()),
            Attribute::Label(self.config.key.as_bytes().to_vec()),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
        ];
        let key = self.session.generate_key(&Mechanism::AesKeyGen, &template);
        let key = key.map_err(|e| problem(self.config, e))?;
        tracing::info!(token = %self.config.token, key = %self.config.key, "made an AES key in the token");
        Ok(Keys::Aes(key))
    }

    fn aad(&self) -> Vec<u8> {
        [b"sallyport node key ".as_slice(), self.config.key.as_bytes()].concat()
    }

    /// Encrypts by one method. The initialization vector is drawn by us; a token that insists on its own puts it there.
    fn encrypt(&self, keys: &Keys, method: Method, secret: &[u8], iv: &mut [u8; 16]) -> Result<Vec<u8>, P11> {
        let encrypt = |mechanism: Mechanism<'_>, key| self.session.encrypt(&mechanism, key, secret);
        match (method, keys) {
            (Method::AesGcm, Keys::Aes(key)) => {
                let aad = self.aad();
                let (nonce, _) = iv.split_at_mut(12);
                encrypt(Mechanism::AesGcm(GcmParams::new(nonce, &aad, TAG_BITS.into())?), *key)
            }
            (Method::AesCbc, Keys::Aes(key)) => encrypt(Mechanism::AesCbc(*iv), *key),
            (Method::RsaOaepSha256 | Method::RsaOaepSha1, Keys::Rsa { public, .. }) => encrypt(oaep(method), *public),
            _ => Err(P11::NotSupported),
        }
    }

    fn decrypt(&self, keys: &Keys, method: Method, encrypted: &[u8], iv: &[u8]) -> Result<Zeroizing<Vec<u8>>, P11> {
        let decrypt =
            |mechanism: Mechanism<'_>, key| self.session.decrypt(&mechanism, key, encrypted).map(Zeroizing::new);
        let iv: [u8; 16] = if iv.len() == 16 { iv.try_into()? } else { [0; 16] };
        match (method, keys) {
            (Method::AesGcm, Keys::Aes(key)) => {
                let (aad, mut iv) = (self.aad(), iv);
                let (nonce, _) = iv.split_at_mut(12);
                decrypt(Mechanism::AesGcm(GcmParams::new(nonce, &aad, TAG_BITS.into())?), *key)
            }
            (Method::AesCbc, Keys::Aes(key)) => decrypt(Mechanism::AesCbc(iv), *key),
            (Method::RsaOaepSha256 | Method::RsaOaepSha1, Keys::Rsa { private, .. }) => decrypt(oaep(method), *private),
            _ => Err(P11::NotSupported),
        }
    }
}

fn oaep(method: Method) -> Mechanism<'static> {
    let (hash, mgf) = match method {
        Method::RsaOaepSha256 => (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256),
        _ => (MechanismType::SHA1, PkcsMgfType::MGF1_SHA1),
    };
    Mechanism::RsaPkcsOaep(PkcsOaepParams::new(hash, mgf, PkcsOaepSource::empty()))
}

/// Encrypts a node key by the first method that works both ways. An AES key is made where there is no key of that name.
pub(super) fn encrypt(
    config: &Pkcs11Config,
    pin: &Secret,
    node_key: &[u8; 32],
    rng: &dyn SecureRandom,
) -> Result<TokenHold, Error> {
    with(config, pin, |token| {
        let keys = match token.keys()? {
            Some(keys) => keys,
            None => token.make_key()?,
        };
        let methods: &[Method] = match keys {
            Keys::Aes(_) => &[Method::AesGcm, Method::AesCbc],
            Keys::Rsa { .. } => &[Method::RsaOaepSha256, Method::RsaOaepSha1],
        };
        let mut causes = Vec::new();
        for &method in methods {
            let mut iv = [0; 16];
            rng.fill(&mut iv).map_err(|_| Error::Internal("the system gives no random bytes".into()))?;
            let tried = token.encrypt(&keys, method, node_key, &mut iv).and_then(|encrypted| {
                let again = token.decrypt(&keys, method, &encrypted, &iv)?;
                if again.as_slice() == node_key { Ok(encrypted) } else { Err(P11::InvalidValue) }
            });
            match tried {
                Ok(encrypted) => {
                    return Ok(TokenHold {
                        token: config.token.clone(),
                        key: config.key.clone(),
                        method: method.into(),
                        iv: iv.to_vec(),
                        encrypted,
                        module: config.module.to_string_lossy().into_owned(),
                    });
                }
                Err(e) => causes.push(format!("{method:?}: {e}")),
            }
        }
        Err(refused(
            config,
            format!("key {:?} of token {:?} cannot encrypt: {}", config.key, config.token, causes.join("; ")),
            "use an AES key with CKA_ENCRYPT and CKA_DECRYPT, or an RSA pair with the same",
        ))
    })
}

/// The reverse of [`encrypt`].
pub(super) fn decrypt(config: &Pkcs11Config, pin: &Secret, hold: &TokenHold) -> Result<Zeroizing<[u8; 32]>, Error> {
    with(config, pin, |token| {
        let keys = token.keys()?.ok_or_else(|| {
            refused(
                config,
                format!("there is no key {:?} in token {:?}", config.key, config.token),
                "put it back from the token's backup; without it this node's copy of the seal key does not open: wipe \
                 the node and let it join again",
            )
        })?;
        let opened = token.decrypt(&keys, hold.method(), &hold.encrypted, &hold.iv).map_err(|e| problem(config, e))?;
        let mut key = Zeroizing::new([0; 32]);
        if opened.len() != key.len() {
            return Err(refused(config, "the token gave no key".into(), "use the key that the copy was made with"));
        }
        key.copy_from_slice(&opened);
        Ok(key)
    })
}

#[cfg(test)]
mod tests;
