//! ESP transforms: which cipher, which integrity check, and how many bytes of each thing they need.
//!
//! It lies here and not in the `esp` crate because IKE negotiates what ESP runs, and neither imports the other.

use core::fmt;

use zeroize::Zeroizing;

use crate::cbc::CbcAlg;
use crate::gcm::GcmAlg;
use crate::hash::HashAlg;

/// Encryption of an ESP SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EspCipher {
    /// AES-GCM, 128-bit key, 16-byte ICV (RFC 4106). Authenticates by itself.
    Aes128Gcm16,
    /// AES-GCM, 256-bit key, 16-byte ICV (RFC 4106). Authenticates by itself.
    Aes256Gcm16,
    /// AES-CBC, 128-bit key (RFC 3602).
    Aes128Cbc,
    /// AES-CBC, 192-bit key (RFC 3602).
    Aes192Cbc,
    /// AES-CBC, 256-bit key (RFC 3602).
    Aes256Cbc,
    /// 3DES-CBC (RFC 2451): about 5 MB/s, for peers that have nothing else.
    TripleDesCbc,
}

impl EspCipher {
    /// All ciphers, the preferred first.
    pub const ALL: [Self; 6] =
        [Self::Aes256Gcm16, Self::Aes128Gcm16, Self::Aes256Cbc, Self::Aes192Cbc, Self::Aes128Cbc, Self::TripleDesCbc];

    /// The CBC mode underneath, if it is one.
    #[must_use]
    pub const fn cbc(self) -> Option<CbcAlg> {
        match self {
            Self::Aes128Gcm16 | Self::Aes256Gcm16 => None,
            Self::Aes128Cbc => Some(CbcAlg::Aes128),
            Self::Aes192Cbc => Some(CbcAlg::Aes192),
            Self::Aes256Cbc => Some(CbcAlg::Aes256),
            Self::TripleDesCbc => Some(CbcAlg::TripleDes),
        }
    }

    /// The GCM variant underneath, if it is one.
    #[must_use]
    pub const fn gcm(self) -> Option<GcmAlg> {
        match self {
            Self::Aes128Gcm16 => Some(GcmAlg::Aes128),
            Self::Aes256Gcm16 => Some(GcmAlg::Aes256),
            _ => None,
        }
    }

    /// Whether it authenticates by itself and so takes no integrity algorithm.
    #[must_use]
    pub const fn is_aead(self) -> bool {
        self.gcm().is_some()
    }

    /// Bits of the key as the negotiation counts them: without the salt (RFC 4106 §8.1), with the parity bits of DES.
    #[must_use]
    pub const fn key_bits(self) -> u16 {
        match self {
            Self::Aes128Gcm16 | Self::Aes128Cbc => 128,
            Self::Aes192Cbc | Self::TripleDesCbc => 192,
            Self::Aes256Gcm16 | Self::Aes256Cbc => 256,
        }
    }

    /// Bytes of key material, the 4 bytes of salt of GCM included (RFC 4106 §8.1).
    #[must_use]
    pub const fn keymat_len(self) -> usize {
        self.key_bits() as usize / 8 + if self.is_aead() { GCM_SALT_LEN } else { 0 }
    }

    /// Bytes of IV in each packet.
    #[must_use]
    pub const fn iv_len(self) -> usize {
        match self.cbc() {
            Some(alg) => alg.block_len(),
            None => 8, // RFC 4106 §3.1
        }
    }

    /// What payload, padding, Pad Length and Next Header together must be a multiple of, in bytes: the block of the
    /// cipher, and never less than 4 (RFC 4303 §2.4).
    #[must_use]
    pub const fn block_len(self) -> usize {
        match self.cbc() {
            Some(alg) => alg.block_len(),
            None => 4,
        }
    }

    /// Name as operators write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aes128Gcm16 => "aes128gcm16",
            Self::Aes256Gcm16 => "aes256gcm16",
            Self::Aes128Cbc => "aes128",
            Self::Aes192Cbc => "aes192",
            Self::Aes256Cbc => "aes256",
            Self::TripleDesCbc => "3des",
        }
    }
}

/// Salt at the end of GCM key material, in bytes (RFC 4106 §4).
pub const GCM_SALT_LEN: usize = 4;

/// Integrity of an ESP SA whose cipher does not authenticate by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EspInteg {
    /// HMAC-SHA1-96 (RFC 2404).
    HmacSha1_96,
    /// HMAC-SHA2-256-128 (RFC 4868).
    HmacSha2_256_128,
    /// HMAC-SHA2-384-192 (RFC 4868).
    HmacSha2_384_192,
    /// HMAC-SHA2-512-256 (RFC 4868).
    HmacSha2_512_256,
}

impl EspInteg {
    /// All integrity algorithms.
    pub const ALL: [Self; 4] =
        [Self::HmacSha1_96, Self::HmacSha2_256_128, Self::HmacSha2_384_192, Self::HmacSha2_512_256];

    /// The hash inside.
    #[must_use]
    pub const fn hash(self) -> HashAlg {
        match self {
            Self::HmacSha1_96 => HashAlg::Sha1,
            Self::HmacSha2_256_128 => HashAlg::Sha256,
            Self::HmacSha2_384_192 => HashAlg::Sha384,
            Self::HmacSha2_512_256 => HashAlg::Sha512,
        }
    }

    /// Key length in bytes: the output of the hash (RFC 2404 §3, RFC 4868 §2.1.1).
    #[must_use]
    pub const fn key_len(self) -> usize {
        self.hash().output_len()
    }

    /// Bytes of ICV in each packet.
    #[must_use]
    pub const fn icv_len(self) -> usize {
        match self {
            Self::HmacSha1_96 => 12,
            Self::HmacSha2_256_128 => 16,
            Self::HmacSha2_384_192 => 24,
            Self::HmacSha2_512_256 => 32,
        }
    }

    /// Name as operators write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HmacSha1_96 => "sha1",
            Self::HmacSha2_256_128 => "sha256",
            Self::HmacSha2_384_192 => "sha384",
            Self::HmacSha2_512_256 => "sha512",
        }
    }
}

/// A cipher and an integrity algorithm that go together: none is missing and none is left over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EspSuite {
    cipher: EspCipher,
    integ: Option<EspInteg>,
}

impl EspSuite {
    /// AES-GCM with a 128-bit key.
    pub const AES128_GCM16: Self = Self { cipher: EspCipher::Aes128Gcm16, integ: None };
    /// AES-GCM with a 256-bit key.
    pub const AES256_GCM16: Self = Self { cipher: EspCipher::Aes256Gcm16, integ: None };
    /// AES-128-CBC with HMAC-SHA1-96.
    pub const AES128_CBC_SHA1: Self = Self { cipher: EspCipher::Aes128Cbc, integ: Some(EspInteg::HmacSha1_96) };
    /// AES-256-CBC with HMAC-SHA1-96: what Windows proposes first for L2TP.
    pub const AES256_CBC_SHA1: Self = Self { cipher: EspCipher::Aes256Cbc, integ: Some(EspInteg::HmacSha1_96) };
    /// AES-128-CBC with HMAC-SHA2-256-128.
    pub const AES128_CBC_SHA256: Self = Self { cipher: EspCipher::Aes128Cbc, integ: Some(EspInteg::HmacSha2_256_128) };
    /// AES-256-CBC with HMAC-SHA2-256-128.
    pub const AES256_CBC_SHA256: Self = Self { cipher: EspCipher::Aes256Cbc, integ: Some(EspInteg::HmacSha2_256_128) };
    /// 3DES-CBC with HMAC-SHA1-96.
    pub const TRIPLE_DES_SHA1: Self = Self { cipher: EspCipher::TripleDesCbc, integ: Some(EspInteg::HmacSha1_96) };

    /// The pair, or `None` if it does not make an authenticated SA: CBC without integrity is open to forgery
    /// (RFC 4303 §2.7 allows it, we do not), GCM takes no second check.
    #[must_use]
    pub const fn new(cipher: EspCipher, integ: Option<EspInteg>) -> Option<Self> {
        if cipher.is_aead() == integ.is_none() { Some(Self { cipher, integ }) } else { None }
    }

    /// Every valid suite.
    pub fn all() -> impl Iterator<Item = Self> {
        EspCipher::ALL.into_iter().flat_map(|cipher| {
            core::iter::once(None)
                .chain(EspInteg::ALL.into_iter().map(Some))
                .filter_map(move |integ| Self::new(cipher, integ))
        })
    }

    /// The cipher.
    #[must_use]
    pub const fn cipher(self) -> EspCipher {
        self.cipher
    }

    /// The integrity algorithm; `None` with GCM.
    #[must_use]
    pub const fn integ(self) -> Option<EspInteg> {
        self.integ
    }

    /// Bytes of KEYMAT for one direction: first the cipher's key (and salt), then the integrity key
    /// (RFC 2409 §5.5, RFC 4303 §4).
    #[must_use]
    pub const fn keymat_len(self) -> usize {
        self.cipher.keymat_len() + self.integ_key_len()
    }

    const fn integ_key_len(self) -> usize {
        match self.integ {
            Some(integ) => integ.key_len(),
            None => 0,
        }
    }

    /// Bytes of IV in each packet.
    #[must_use]
    pub const fn iv_len(self) -> usize {
        self.cipher.iv_len()
    }

    /// Bytes of ICV in each packet.
    #[must_use]
    pub const fn icv_len(self) -> usize {
        match self.integ {
            Some(integ) => integ.icv_len(),
            None => crate::gcm::TAG_LEN,
        }
    }

    /// What payload, padding, Pad Length and Next Header together must be a multiple of, in bytes.
    #[must_use]
    pub const fn block_len(self) -> usize {
        self.cipher.block_len()
    }

    /// Cuts the KEYMAT of one direction into the keys of the suite; `None` if it has another length than
    /// [`EspSuite::keymat_len`].
    #[must_use]
    pub fn split_keymat(self, keymat: &[u8]) -> Option<EspKeys> {
        if keymat.len() != self.keymat_len() {
            return None;
        }
        let (encr, integ) = keymat.split_at_checked(self.cipher.keymat_len())?;
        Some(EspKeys { suite: self, encr: Zeroizing::new(encr.to_vec()), integ: Zeroizing::new(integ.to_vec()) })
    }
}

impl fmt::Display for EspSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.cipher.as_str())?;
        match self.integ {
            Some(integ) => write!(f, "-{}", integ.as_str()),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for EspSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The keys of one direction of an ESP SA, with the lengths that the suite asks for. Wiped on drop, never printed.
#[derive(Clone)]
pub struct EspKeys {
    suite: EspSuite,
    encr: Zeroizing<Vec<u8>>,
    integ: Zeroizing<Vec<u8>>,
}

impl EspKeys {
    /// What they are for.
    #[must_use]
    pub const fn suite(&self) -> EspSuite {
        self.suite
    }

    /// The cipher's key; with GCM without its salt.
    #[must_use]
    pub fn encr_key(&self) -> &[u8] {
        let salt = if self.suite.cipher.is_aead() { GCM_SALT_LEN } else { 0 };
        self.encr.get(..self.encr.len().saturating_sub(salt)).unwrap_or_default()
    }

    /// The salt of GCM; zero for CBC, which has none.
    #[must_use]
    pub fn salt(&self) -> [u8; GCM_SALT_LEN] {
        match (self.suite.cipher.is_aead(), self.encr.last_chunk()) {
            (true, Some(salt)) => *salt,
            _ => [0; GCM_SALT_LEN],
        }
    }

    /// The integrity key; empty for GCM.
    #[must_use]
    pub fn integ_key(&self) -> &[u8] {
        &self.integ
    }

    /// The KEYMAT that they were cut from.
    #[must_use]
    pub fn keymat(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(self.encr.len() + self.integ.len()));
        out.extend_from_slice(&self.encr);
        out.extend_from_slice(&self.integ);
        out
    }
}

impl fmt::Debug for EspKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EspKeys({})", self.suite)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_is_authenticated_exactly_once() {
        assert_eq!(EspSuite::new(EspCipher::Aes128Cbc, None), None);
        assert_eq!(EspSuite::new(EspCipher::Aes128Gcm16, Some(EspInteg::HmacSha1_96)), None);
        assert_eq!(EspSuite::all().count(), 2 + 4 * 4);
    }

    #[test]
    fn sizes_are_those_of_the_standards() {
        let s = EspSuite::AES128_GCM16;
        assert_eq!((s.keymat_len(), s.iv_len(), s.icv_len(), s.block_len()), (20, 8, 16, 4));
        let s = EspSuite::AES256_GCM16;
        assert_eq!((s.keymat_len(), s.iv_len(), s.icv_len(), s.block_len()), (36, 8, 16, 4));
        let s = EspSuite::AES256_CBC_SHA1;
        assert_eq!((s.keymat_len(), s.iv_len(), s.icv_len(), s.block_len()), (52, 16, 12, 16));
        let s = EspSuite::AES128_CBC_SHA256;
        assert_eq!((s.keymat_len(), s.iv_len(), s.icv_len(), s.block_len()), (48, 16, 16, 16));
        let s = EspSuite::TRIPLE_DES_SHA1;
        assert_eq!((s.keymat_len(), s.iv_len(), s.icv_len(), s.block_len()), (44, 8, 12, 8));
    }

    #[test]
    fn keymat_is_cut_into_cipher_key_salt_and_integrity_key() {
        for suite in EspSuite::all() {
            let keymat: Vec<u8> = (0..suite.keymat_len()).map(|i| u8::try_from(i).unwrap()).collect();
            let keys = suite.split_keymat(&keymat).unwrap();
            assert_eq!(keys.encr_key().len() * 8, usize::from(suite.cipher().key_bits()));
            let mut whole = keys.encr_key().to_vec();
            if suite.cipher().is_aead() {
                whole.extend(keys.salt());
            }
            whole.extend(keys.integ_key());
            assert_eq!(whole, keymat);
            assert_eq!(*keys.keymat(), keymat);
            assert!(suite.split_keymat(&keymat[1..]).is_none());
            assert!(!format!("{keys:?}").contains("01"));
        }
    }
}
