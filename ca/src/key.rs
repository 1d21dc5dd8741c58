//! Key pairs and public keys.

use core::fmt;

use ring::rand::SecureRandom;
use ring::signature::{self, EcdsaKeyPair, KeyPair as _, RsaKeyPair};
use rsa::pkcs8::EncodePrivateKey as _;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey as ParsedKey;
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroizing;

use crate::hash::Hash;
use crate::{Error, der, pem};

/// DER contents of the object identifiers of RFC 3279 §2.3.1 and RFC 5480 §2.
pub(crate) const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
pub(crate) const OID_EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
pub(crate) const OID_P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
pub(crate) const OID_P384: &[u8] = &[0x2b, 0x81, 4, 0, 34];

/// The kinds of key that are made, certified and accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyAlgorithm {
    /// ECDSA on P-256 with SHA-256: the default.
    #[default]
    EcdsaP256,
    /// ECDSA on P-384 with SHA-384.
    EcdsaP384,
    /// RSA with 2048 bits, which the built-in clients of Windows need.
    Rsa2048,
    /// RSA with 3072 bits.
    Rsa3072,
    /// RSA with 4096 bits.
    Rsa4096,
}

impl KeyAlgorithm {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::EcdsaP256, Self::EcdsaP384, Self::Rsa2048, Self::Rsa3072, Self::Rsa4096];

    /// The name in configuration files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "ecdsa-p256",
            Self::EcdsaP384 => "ecdsa-p384",
            Self::Rsa2048 => "rsa-2048",
            Self::Rsa3072 => "rsa-3072",
            Self::Rsa4096 => "rsa-4096",
        }
    }

    /// Whether keys of this kind are RSA keys.
    pub const fn is_rsa(self) -> bool {
        matches!(self, Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096)
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl core::str::FromStr for KeyAlgorithm {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        let known = Self::ALL.into_iter().find(|a| a.name() == s);
        known.ok_or(Error::PrivateKey("one of ecdsa-p256, ecdsa-p384, rsa-2048, rsa-3072, rsa-4096 is expected"))
    }
}

/// A private key with its public half. The PKCS #8 form is wiped when it is dropped; the form that `ring` computes with
/// cannot be wiped.
pub struct KeyPair {
    pkcs8: Zeroizing<Vec<u8>>,
    inner: Inner,
    public: PublicKey,
}

enum Inner {
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl KeyPair {
    /// Makes a key pair. RSA takes a noticeable time: a tenth of a second to some seconds.
    pub fn generate(algorithm: KeyAlgorithm, rng: &dyn SecureRandom) -> Result<Self, Error> {
        let failed = Error::Crypto("key generation failed");
        let pkcs8 = match algorithm {
            KeyAlgorithm::EcdsaP256 => EcdsaKeyPair::generate_pkcs8(&signature::ECDSA_P256_SHA256_ASN1_SIGNING, rng)
                .map(|doc| Zeroizing::new(doc.as_ref().to_vec()))
                .map_err(|_| failed)?,
            KeyAlgorithm::EcdsaP384 => EcdsaKeyPair::generate_pkcs8(&signature::ECDSA_P384_SHA384_ASN1_SIGNING, rng)
                .map(|doc| Zeroizing::new(doc.as_ref().to_vec()))
                .map_err(|_| failed)?,
            KeyAlgorithm::Rsa2048 => generate_rsa(2048, rng)?,
            KeyAlgorithm::Rsa3072 => generate_rsa(3072, rng)?,
            KeyAlgorithm::Rsa4096 => generate_rsa(4096, rng)?,
        };
        Self::from_pkcs8(pkcs8, rng)
    }

    /// Takes a PKCS #8 key (RFC 5958): RSA of 2048 to 4096 bits, P-256 or P-384.
    pub fn from_pkcs8_der(pkcs8: &[u8]) -> Result<Self, Error> {
        // ring wants a random source here only to blind its check of the key.
        Self::from_pkcs8(Zeroizing::new(pkcs8.to_vec()), &ring::rand::SystemRandom::new())
    }

    /// Takes the first `PRIVATE KEY` block of a PEM text.
    pub fn from_pem(text: &[u8]) -> Result<Self, Error> {
        Self::from_pkcs8_der(&pem::private_key(text)?)
    }

    fn from_pkcs8(pkcs8: Zeroizing<Vec<u8>>, rng: &dyn SecureRandom) -> Result<Self, Error> {
        let ecdsa = |alg| EcdsaKeyPair::from_pkcs8(alg, &pkcs8, rng).ok();
        let spki = |algorithm: &[u8], point: &[u8]| {
            use crate::der::{BIT_STRING, SEQUENCE, encode};
            encode(SEQUENCE, &[algorithm, &encode(BIT_STRING, &[&[0], point])])
        };
        let ec_algorithm = |curve: &[u8]| {
            use crate::der::{OID, SEQUENCE, encode};
            encode(SEQUENCE, &[&encode(OID, &[OID_EC]), &encode(OID, &[curve])])
        };
        let (inner, public) = if let Some(key) = ecdsa(&signature::ECDSA_P256_SHA256_ASN1_SIGNING) {
            let public = spki(&ec_algorithm(OID_P256), key.public_key().as_ref());
            (Inner::Ecdsa(key), public)
        } else if let Some(key) = ecdsa(&signature::ECDSA_P384_SHA384_ASN1_SIGNING) {
            let public = spki(&ec_algorithm(OID_P384), key.public_key().as_ref());
            (Inner::Ecdsa(key), public)
        } else {
            use crate::der::{OID, SEQUENCE, encode};
            let key = RsaKeyPair::from_pkcs8(&pkcs8)
                .map_err(|_| Error::PrivateKey("not a PKCS #8 key of RSA (2048 to 4096 bits), P-256 or P-384"))?;
            let algorithm = encode(SEQUENCE, &[&encode(OID, &[OID_RSA]), &[5, 0]]);
            let public = spki(&algorithm, key.public_key().as_ref());
            (Inner::Rsa(key), public)
        };
        let public = PublicKey::from_spki_der(&public)?;
        Ok(Self { pkcs8, inner, public })
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        self.public.clone()
    }

    /// The key as PKCS #8 in DER.
    pub fn pkcs8_der(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The key as PKCS #8 in PEM.
    pub fn pkcs8_pem(&self) -> Zeroizing<String> {
        pem::encode("PRIVATE KEY", &self.pkcs8)
    }

    /// Signs `message` as certificates are signed: SHA-256 with P-256 and RSA (PKCS #1 v1.5), SHA-384 with P-384.
    pub fn sign(&self, message: &[u8], rng: &dyn SecureRandom) -> Result<Vec<u8>, Error> {
        let failed = |_| Error::Crypto("signing failed");
        match &self.inner {
            Inner::Ecdsa(key) => Ok(key.sign(rng, message).map_err(failed)?.as_ref().to_vec()),
            Inner::Rsa(key) => {
                let mut out = vec![0; key.public().modulus_len()];
                key.sign(&signature::RSA_PKCS1_SHA256, rng, message, &mut out).map_err(failed)?;
                Ok(out)
            }
        }
    }

    /// Signs `message` over this hash: any but SHA-1 with RSA, the one of its curve with ECDSA.
    pub(crate) fn sign_with(&self, hash: Hash, message: &[u8], rng: &dyn SecureRandom) -> Result<Vec<u8>, Error> {
        let padding: &dyn signature::RsaEncoding = match hash {
            Hash::Sha256 => &signature::RSA_PKCS1_SHA256,
            Hash::Sha384 => &signature::RSA_PKCS1_SHA384,
            Hash::Sha512 => &signature::RSA_PKCS1_SHA512,
            Hash::Sha1 => return Err(Error::Crypto("nothing is signed over SHA-1")),
        };
        match &self.inner {
            Inner::Rsa(key) => {
                let mut out = vec![0; key.public().modulus_len()];
                key.sign(padding, rng, message, &mut out).map_err(|_| Error::Crypto("signing failed"))?;
                Ok(out)
            }
            Inner::Ecdsa(_) if hash == self.public.hash() => self.sign(message, rng),
            Inner::Ecdsa(_) => Err(Error::Crypto("an ECDSA key signs over the hash of its curve only")),
        }
    }

    /// See [`PublicKey::signature_algorithm_der`].
    pub(crate) fn signature_algorithm_der(&self) -> Vec<u8> {
        self.public.signature_algorithm_der()
    }

    /// The algorithm of [`KeyPair::sign`] as rcgen names it.
    pub(crate) fn signature_algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        match self.public.algorithm {
            KeyAlgorithm::EcdsaP256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            KeyAlgorithm::EcdsaP384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            _ => &rcgen::PKCS_RSA_SHA256,
        }
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({}, ..)", self.public.algorithm)
    }
}

/// The `rsa` crate makes the primes and decrypts (`ring` can do neither); it is never used to sign.
fn generate_rsa(bits: usize, rng: &dyn SecureRandom) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut source = RandCore::new(rng);
    let key = rsa::RsaPrivateKey::new(&mut source, bits).map_err(|_| Error::Crypto("RSA key generation failed"))?;
    source.check()?;
    let document = key.to_pkcs8_der().map_err(|_| Error::Crypto("RSA key encoding failed"))?;
    Ok(document.to_bytes())
}

/// `ring`'s random source as the `rsa` crate takes it. A failure is remembered, because that interface has no error for
/// it that every caller heeds.
pub(crate) struct RandCore<'a> {
    rng: &'a dyn SecureRandom,
    failed: bool,
}

impl<'a> RandCore<'a> {
    pub(crate) const fn new(rng: &'a dyn SecureRandom) -> Self {
        Self { rng, failed: false }
    }

    /// Whether all that was drawn was random.
    pub(crate) const fn check(&self) -> Result<(), Error> {
        if self.failed { Err(Error::Crypto("the random source failed")) } else { Ok(()) }
    }
}

impl rsa::rand_core::RngCore for RandCore<'_> {
    fn next_u32(&mut self) -> u32 {
        rsa::rand_core::impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        rsa::rand_core::impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        if self.rng.fill(dest).is_err() {
            self.failed = true;
            // Anything but a constant, so that the search for a prime ends; the key is thrown away.
            dest.iter_mut().enumerate().for_each(|(i, b)| *b = (i as u8).wrapping_mul(97) ^ 0xa5);
        }
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rsa::rand_core::Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}

impl rsa::rand_core::CryptoRng for RandCore<'_> {}

/// A public key that may be certified: RSA of 2048 to 8192 bits with an exponent of at least 65537, P-256 or P-384.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    pub(crate) spki: Vec<u8>,
    pub(crate) algorithm: KeyAlgorithm,
}

impl PublicKey {
    /// Takes a SubjectPublicKeyInfo (RFC 5280 §4.1.2.7) in DER.
    pub fn from_spki_der(spki: &[u8]) -> Result<Self, Error> {
        match SubjectPublicKeyInfo::from_der(spki) {
            Ok(([], parsed)) => {
                let algorithm = classify(&parsed).map_err(Error::PublicKey)?;
                Ok(Self { spki: spki.to_vec(), algorithm })
            }
            _ => Err(Error::PublicKey("not a SubjectPublicKeyInfo")),
        }
    }

    /// The SubjectPublicKeyInfo in DER.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// Whether `signature` is one of [`KeyPair::sign`] over `message` with the private half of this key: a proof of possession.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &dyn signature::VerificationAlgorithm = match self.algorithm {
            KeyAlgorithm::EcdsaP256 => &signature::ECDSA_P256_SHA256_ASN1,
            KeyAlgorithm::EcdsaP384 => &signature::ECDSA_P384_SHA384_ASN1,
            KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => {
                &signature::RSA_PKCS1_2048_8192_SHA256
            }
        };
        let Ok(([], parsed)) = SubjectPublicKeyInfo::from_der(&self.spki) else { return false };
        let key = signature::UnparsedPublicKey::new(algorithm, &parsed.subject_public_key.data);
        key.verify(message, signature).is_ok()
    }

    /// The AlgorithmIdentifier of [`KeyPair::sign`] in DER (RFC 4055 §5, RFC 5758 §3.2).
    pub(crate) fn signature_algorithm_der(&self) -> Vec<u8> {
        let hash = self.hash();
        if self.algorithm.is_rsa() {
            der::algorithm(hash.rsa_signature(), der::NULL)
        } else {
            der::algorithm(hash.ecdsa_signature(), &[])
        }
    }

    /// The hash of [`KeyPair::sign`].
    pub(crate) const fn hash(&self) -> Hash {
        match self.algorithm {
            KeyAlgorithm::EcdsaP384 => Hash::Sha384,
            _ => Hash::Sha256,
        }
    }

    /// The bits of the subjectPublicKey, of which an OCSP key hash is made.
    pub(crate) fn key_bits(&self) -> Vec<u8> {
        match SubjectPublicKeyInfo::from_der(&self.spki) {
            Ok((_, parsed)) => parsed.subject_public_key.data.to_vec(),
            Err(_) => Vec::new(),
        }
    }

    /// The kind of key. RSA keys of other sizes are reported as the next smaller listed size.
    pub const fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }
}

/// The kind of a key, or why it is not accepted.
pub(crate) fn classify(spki: &SubjectPublicKeyInfo<'_>) -> Result<KeyAlgorithm, &'static str> {
    const BAD_POINT: &str = "the point is not an uncompressed point of its curve";
    let algorithm = spki.algorithm.algorithm.as_bytes();
    let point = &spki.subject_public_key.data;
    if algorithm == OID_EC {
        let curve = spki.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
        let curve = curve.as_ref().map(|oid| oid.as_bytes());
        return match (curve, point.len(), point.first()) {
            (Some(OID_P256), 65, Some(4)) => Ok(KeyAlgorithm::EcdsaP256),
            (Some(OID_P384), 97, Some(4)) => Ok(KeyAlgorithm::EcdsaP384),
            (Some(OID_P256 | OID_P384), ..) => Err(BAD_POINT),
            _ => Err("elliptic curve keys must be on P-256 or P-384"),
        };
    }
    if algorithm != OID_RSA {
        return Err("keys must be RSA, P-256 or P-384");
    }
    let Ok(ParsedKey::RSA(key)) = spki.parsed() else { return Err("not an RSA public key") };
    let modulus = key.modulus.iter().position(|b| *b != 0).and_then(|at| key.modulus.get(at..)).unwrap_or(&[]);
    let bits = (modulus.len() * 8).saturating_sub(modulus.first().map_or(0, |b| b.leading_zeros() as usize));
    match key.try_exponent() {
        Ok(e) if e >= 65_537 && e % 2 == 1 => {}
        _ => return Err("the RSA exponent must be odd and at least 65537"),
    }
    if modulus.last().is_none_or(|b| b % 2 == 0) {
        return Err("the RSA modulus is even");
    }
    match bits {
        2048..3072 => Ok(KeyAlgorithm::Rsa2048),
        3072..4096 => Ok(KeyAlgorithm::Rsa3072),
        4096..=8192 => Ok(KeyAlgorithm::Rsa4096),
        0..2048 => Err("RSA keys must have at least 2048 bits"),
        _ => Err("RSA keys must have at most 8192 bits"),
    }
}
