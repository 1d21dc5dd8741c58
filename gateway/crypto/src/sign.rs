//! Signatures of IKEv1: RFC 2409 §5.1 (RSA) and RFC 4754 (ECDSA).
//!
//! Both sign HASH_I or HASH_R as it is. RSA is PKCS#1 v1.5 block type 1 over the bare hash, without the DigestInfo that
//! every other protocol puts in front. For ECDSA the hash value itself is what the curve arithmetic takes: it is not
//! hashed once more, and the signature is r ‖ s, each padded to the length of the field (RFC 4754 §7).
//!
//! **ECDSA fixes the hash**: RFC 4754 §4 binds SHA-256 to P-256 and SHA-384 to P-384. What strongSwan does (read in its
//! IKEv1 sources, key material and public-key authenticator), and with it what we do: for the methods 9 and 10 HASH_I
//! and HASH_R are computed with HMAC over *that* hash, whatever hash phase 1 negotiated, keyed with a SKEYID that the
//! *negotiated* prf made; everything else (SKEYID_*, phase 2, NAT-D) stays with the negotiated hash.
//! [`SignatureMethod::hash`] says which hash it is.
//!
//! # RUSTSEC-2023-0071
//!
//! The `rsa` crate's private operation is not constant time ("Marvin"), and there is no fix. We use it because `ring`
//! can neither sign nor check without DigestInfo, and only here. The attack needs a decryption or signing oracle for
//! messages that the attacker chooses and times precisely. Here the message is an HMAC whose key includes a secret of
//! the exchange and our fresh nonce, so no peer chooses it; there is no decryption at all; and each signature is blinded
//! with fresh randomness. Before a signature leaves, s^e is compared with the padded hash: a computation that went
//! wrong in one of the two primes would otherwise reveal the key (Boneh, DeMillo, Lipton).

use core::fmt;

use p256::ecdsa::signature::hazmat::{PrehashVerifier, RandomizedPrehashSigner};
use p256::elliptic_curve::pkcs8::DecodePublicKey as _;
use rsa::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePublicKey, SubjectPublicKeyInfoRef};
use rsa::traits::{PublicKeyParts, SignatureScheme};
use rsa::{Pkcs1v15Sign, RsaPrivateKey, RsaPublicKey};
use zeroize::Zeroizing;

use crate::Rng;
use crate::hash::HashAlg;
use crate::rng::LegacyRng;

/// Smallest RSA modulus that is used at all, in bits. Policy may ask for more.
pub const MIN_RSA_BITS: usize = 1024;
/// Largest RSA modulus, in bits. It bounds the work that a stranger's certificate can cause.
pub const MAX_RSA_BITS: usize = 4096;

/// How a peer signs: the three IKEv1 authentication methods with signatures that we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SignatureMethod {
    /// RSA signature, IKEv1 authentication method 3.
    Rsa,
    /// ECDSA with SHA-256 on P-256, method 9 (RFC 4754).
    EcdsaP256,
    /// ECDSA with SHA-384 on P-384, method 10 (RFC 4754).
    EcdsaP384,
}

impl SignatureMethod {
    /// The IKEv1 authentication method number (IANA "IPSEC Authentication Methods").
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Rsa => 3,
            Self::EcdsaP256 => 9,
            Self::EcdsaP384 => 10,
        }
    }

    /// The method with an IKEv1 number, if it is one of signatures that we have.
    #[must_use]
    pub const fn from_number(number: u16) -> Option<Self> {
        match number {
            3 => Some(Self::Rsa),
            9 => Some(Self::EcdsaP256),
            10 => Some(Self::EcdsaP384),
            _ => None,
        }
    }

    /// The hash that HASH_I and HASH_R must be made with under this method; with RSA the `negotiated` one.
    #[must_use]
    pub const fn hash(self, negotiated: HashAlg) -> HashAlg {
        match self {
            Self::Rsa => negotiated,
            Self::EcdsaP256 => HashAlg::Sha256,
            Self::EcdsaP384 => HashAlg::Sha384,
        }
    }

    /// The only method that a key can sign with, from its SubjectPublicKeyInfo.
    pub fn of_public_key(spki_der: &[u8]) -> Result<Self, SignatureError> {
        let spki = SubjectPublicKeyInfoRef::try_from(spki_der).map_err(|_| SignatureError::Key)?;
        if spki.algorithm.oid == rsa::pkcs1::ALGORITHM_OID {
            return Ok(Self::Rsa);
        }
        let oids = spki.algorithm.oids().map_err(|_| SignatureError::Key)?;
        match (oids.0.as_bytes(), oids.1.as_ref().map(rsa::pkcs8::ObjectIdentifier::as_bytes)) {
            (EC_PUBLIC_KEY, Some(PRIME256V1)) => Ok(Self::EcdsaP256),
            (EC_PUBLIC_KEY, Some(SECP384R1)) => Ok(Self::EcdsaP384),
            _ => Err(SignatureError::Key),
        }
    }

    /// Name as operators write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rsa => "rsa",
            Self::EcdsaP256 => "ecdsa-256",
            Self::EcdsaP384 => "ecdsa-384",
        }
    }
}

/// DER contents of 1.2.840.10045.2.1, id-ecPublicKey (RFC 5480 §2.1.1).
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// DER contents of 1.2.840.10045.3.1.7, secp256r1 (RFC 5480 §2.1.1.1).
const PRIME256V1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// DER contents of 1.3.132.0.34, secp384r1 (RFC 5480 §2.1.1.1).
const SECP384R1: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];

impl fmt::Display for SignatureMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a key or a signature is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The key cannot be read, or is none of RSA, P-256 and P-384.
    #[error("not a usable RSA, P-256 or P-384 key")]
    Key,
    /// An RSA modulus outside [`MIN_RSA_BITS`] … [`MAX_RSA_BITS`].
    #[error("RSA key of {0} bits")]
    RsaSize(usize),
    /// The key is of another kind than the method asks for.
    #[error("key of kind {key} cannot serve method {method}")]
    WrongKey {
        /// What the key can do.
        key: SignatureMethod,
        /// What was asked for.
        method: SignatureMethod,
    },
    /// The signature does not have the length that the key gives it.
    #[error("signature of {got} bytes where {expected} are needed")]
    Length {
        /// Bytes that the key's signatures have.
        expected: usize,
        /// Bytes that came.
        got: usize,
    },
    /// The signature is not the key's over this hash.
    #[error("signature does not match")]
    Mismatch,
    /// Our own computation went wrong and nothing was released.
    #[error("signing failed")]
    Signing,
}

/// A private key that authenticates us in IKEv1. Wiped on drop, never printed.
pub struct IkeKey(Private);

/// One or two live in a process, so that size does not matter.
#[allow(clippy::large_enum_variant)]
enum Private {
    Rsa(RsaPrivateKey),
    P256(p256::ecdsa::SigningKey),
    P384(p384::ecdsa::SigningKey),
}

impl IkeKey {
    /// Reads an unencrypted PKCS#8 key: RSA of 1024 to 4096 bits, P-256 or P-384.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, SignatureError> {
        if let Ok(key) = RsaPrivateKey::from_pkcs8_der(der) {
            check_rsa_size(key.n().bits())?;
            key.validate().map_err(|_| SignatureError::Key)?;
            return Ok(Self(Private::Rsa(key)));
        }
        use p256::elliptic_curve::pkcs8::DecodePrivateKey as _;
        if let Ok(key) = p256::SecretKey::from_pkcs8_der(der) {
            return Ok(Self(Private::P256(key.into())));
        }
        match p384::SecretKey::from_pkcs8_der(der) {
            Ok(key) => Ok(Self(Private::P384(key.into()))),
            Err(_) => Err(SignatureError::Key),
        }
    }

    /// The method that the key serves.
    #[must_use]
    pub const fn method(&self) -> SignatureMethod {
        match self.0 {
            Private::Rsa(_) => SignatureMethod::Rsa,
            Private::P256(_) => SignatureMethod::EcdsaP256,
            Private::P384(_) => SignatureMethod::EcdsaP384,
        }
    }

    /// The public half as a DER SubjectPublicKeyInfo, to be compared with a certificate's.
    pub fn public_key_der(&self) -> Result<Vec<u8>, SignatureError> {
        use p256::elliptic_curve::pkcs8::EncodePublicKey as _;
        match &self.0 {
            Private::Rsa(key) => {
                key.to_public_key().to_public_key_der().map(|d| d.into_vec()).map_err(|_| SignatureError::Key)
            }
            Private::P256(key) => {
                key.verifying_key().to_public_key_der().map(|d| d.into_vec()).map_err(|_| SignatureError::Key)
            }
            Private::P384(key) => {
                key.verifying_key().to_public_key_der().map(|d| d.into_vec()).map_err(|_| SignatureError::Key)
            }
        }
    }

    /// The contents of a SIG payload over HASH_I or HASH_R.
    ///
    /// It takes 0.1 ms (ECDSA) to some 5 ms (RSA), so run it off the thread that serves packets. `rng` blinds RSA and
    /// hedges the nonce of ECDSA (RFC 6979 with added randomness).
    pub fn sign_ikev1(&self, hash: &[u8], rng: &mut Rng) -> Result<Vec<u8>, SignatureError> {
        match &self.0 {
            Private::Rsa(key) => {
                let signature = Pkcs1v15Sign::new_unprefixed()
                    .sign(Some(&mut LegacyRng(rng)), key, hash)
                    .map(Zeroizing::new)
                    .map_err(|_| SignatureError::Signing)?;
                rsa_verify(&key.to_public_key(), hash, &signature).map_err(|_| SignatureError::Signing)?;
                Ok(signature.to_vec())
            }
            Private::P256(key) => {
                let signature: p256::ecdsa::Signature =
                    key.sign_prehash_with_rng(rng, &field_sized::<32>(hash)).map_err(|_| SignatureError::Signing)?;
                Ok(signature.to_bytes().to_vec())
            }
            Private::P384(key) => {
                let signature: p384::ecdsa::Signature =
                    key.sign_prehash_with_rng(rng, &field_sized::<48>(hash)).map_err(|_| SignatureError::Signing)?;
                Ok(signature.to_bytes().to_vec())
            }
        }
    }
}

impl fmt::Debug for IkeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IkeKey({})", self.method())
    }
}

/// Checks the contents of a SIG payload over HASH_I or HASH_R with the key of a certificate.
///
/// `spki_der` is the certificate's SubjectPublicKeyInfo; whether the certificate is to be trusted is another question.
pub fn verify_ikev1(
    spki_der: &[u8],
    method: SignatureMethod,
    hash: &[u8],
    signature: &[u8],
) -> Result<(), SignatureError> {
    let key = SignatureMethod::of_public_key(spki_der)?;
    if key != method {
        return Err(SignatureError::WrongKey { key, method });
    }
    match method {
        SignatureMethod::Rsa => {
            let key = RsaPublicKey::from_public_key_der(spki_der).map_err(|_| SignatureError::Key)?;
            check_rsa_size(key.n().bits())?;
            rsa_verify(&key, hash, signature)
        }
        SignatureMethod::EcdsaP256 => {
            let key = p256::ecdsa::VerifyingKey::from_public_key_der(spki_der).map_err(|_| SignatureError::Key)?;
            check_len(64, signature)?;
            let signature = p256::ecdsa::Signature::from_slice(signature).map_err(|_| SignatureError::Mismatch)?;
            key.verify_prehash(&field_sized::<32>(hash), &signature).map_err(|_| SignatureError::Mismatch)
        }
        SignatureMethod::EcdsaP384 => {
            let key = p384::ecdsa::VerifyingKey::from_public_key_der(spki_der).map_err(|_| SignatureError::Key)?;
            check_len(96, signature)?;
            let signature = p384::ecdsa::Signature::from_slice(signature).map_err(|_| SignatureError::Mismatch)?;
            key.verify_prehash(&field_sized::<48>(hash), &signature).map_err(|_| SignatureError::Mismatch)
        }
    }
}

fn rsa_verify(key: &RsaPublicKey, hash: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
    check_len(key.size(), signature)?;
    if hash.is_empty() {
        return Err(SignatureError::Mismatch);
    }
    Pkcs1v15Sign::new_unprefixed().verify(key, hash, signature).map_err(|_| SignatureError::Mismatch)
}

const fn check_rsa_size(bits: usize) -> Result<(), SignatureError> {
    if bits < MIN_RSA_BITS || bits > MAX_RSA_BITS { Err(SignatureError::RsaSize(bits)) } else { Ok(()) }
}

const fn check_len(expected: usize, signature: &[u8]) -> Result<(), SignatureError> {
    if signature.len() == expected { Ok(()) } else { Err(SignatureError::Length { expected, got: signature.len() }) }
}

/// A hash as the number that ECDSA takes: its leftmost bits up to the field's length (FIPS 186-4 §6.4); a shorter one
/// gets zeros in front, which leaves the number what it is.
fn field_sized<const N: usize>(hash: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    let hash = hash.get(..N).unwrap_or(hash);
    for (to, from) in out.iter_mut().rev().zip(hash.iter().rev()) {
        *to = *from;
    }
    out
}

#[cfg(test)]
mod tests;
