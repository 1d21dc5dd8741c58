//! Hashes by their object identifiers, and signatures over them, as CMS and OCSP name them.

use ring::{digest, signature};

use crate::key::{OID_EC, OID_RSA};
use crate::{KeyAlgorithm, PublicKey};

/// A hash that a message may be signed over, or a certificate be named with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// For messages of old clients, which are read only, and for identifiers that are not about security.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Hash {
    const ALL: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    /// The content of its OID (RFC 3370 §2.1, RFC 5754 §2).
    pub(crate) const fn oid(self) -> &'static [u8] {
        match self {
            Self::Sha1 => &[0x2b, 14, 3, 2, 26],
            Self::Sha256 => &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1],
            Self::Sha384 => &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2],
            Self::Sha512 => &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3],
        }
    }

    pub(crate) fn from_oid(content: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|h| h.oid() == content)
    }

    /// `RSASSA-PKCS1-v1_5` over it (RFC 4055 §5).
    pub(crate) const fn rsa_signature(self) -> &'static [u8] {
        match self {
            Self::Sha1 => &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5],
            Self::Sha256 => &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11],
            Self::Sha384 => &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12],
            Self::Sha512 => &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13],
        }
    }

    /// ECDSA over it (RFC 5758 §3.2).
    pub(crate) const fn ecdsa_signature(self) -> &'static [u8] {
        match self {
            Self::Sha1 => &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1],
            Self::Sha256 => &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2],
            Self::Sha384 => &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3],
            Self::Sha512 => &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4],
        }
    }

    const fn ring(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }

    /// Octets of a digest.
    pub(crate) fn len(self) -> usize {
        self.ring().output_len()
    }

    pub(crate) fn digest(self, message: &[u8]) -> Vec<u8> {
        digest::digest(self.ring(), message).as_ref().to_vec()
    }

    /// Whether `algorithm` (content of a signature's OID) is a signature over this hash by a key of this kind. The plain OID of the
    /// key counts as well: PKCS #7 wants `rsaEncryption`.
    fn is_signed_by(self, algorithm: &[u8], key: KeyAlgorithm) -> bool {
        if key.is_rsa() {
            algorithm == self.rsa_signature() || algorithm == OID_RSA
        } else {
            algorithm == self.ecdsa_signature() || algorithm == OID_EC
        }
    }

    /// Whether `signature` over `message` is good.
    pub(crate) fn verifies(self, key: &PublicKey, algorithm: &[u8], message: &[u8], signature: &[u8]) -> bool {
        if !self.is_signed_by(algorithm, key.algorithm()) {
            return false;
        }
        let algorithm: &dyn signature::VerificationAlgorithm = match (key.algorithm(), self) {
            (KeyAlgorithm::EcdsaP256, Self::Sha256) => &signature::ECDSA_P256_SHA256_ASN1,
            (KeyAlgorithm::EcdsaP256, Self::Sha384) => &signature::ECDSA_P256_SHA384_ASN1,
            (KeyAlgorithm::EcdsaP384, Self::Sha256) => &signature::ECDSA_P384_SHA256_ASN1,
            (KeyAlgorithm::EcdsaP384, Self::Sha384) => &signature::ECDSA_P384_SHA384_ASN1,
            (KeyAlgorithm::EcdsaP256 | KeyAlgorithm::EcdsaP384, _) => return false,
            (_, Self::Sha1) => &signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            (_, Self::Sha256) => &signature::RSA_PKCS1_2048_8192_SHA256,
            (_, Self::Sha384) => &signature::RSA_PKCS1_2048_8192_SHA384,
            (_, Self::Sha512) => &signature::RSA_PKCS1_2048_8192_SHA512,
        };
        signature::UnparsedPublicKey::new(algorithm, &key.key_bits()).verify(message, signature).is_ok()
    }
}
