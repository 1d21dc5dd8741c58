//! AES-GCM with a 12-byte nonce and a 16-byte tag: NIST SP 800-38D.
//!
//! `ring` does not wipe its key schedules on drop and offers no way to do so: unlike all other keys of this crate, an
//! expanded GCM key stays in freed memory until it is overwritten.

use core::fmt;

use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::CipherError;

/// Length of the authentication tag, in bytes.
pub const TAG_LEN: usize = 16;
/// Length of the nonce, in bytes.
pub const NONCE_LEN: usize = 12;

/// AES-GCM by key length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GcmAlg {
    /// A 128-bit key.
    Aes128,
    /// A 256-bit key.
    Aes256,
}

impl GcmAlg {
    /// Key length in bytes, without any salt.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128 => 16,
            Self::Aes256 => 32,
        }
    }
}

/// AES-GCM with the key schedule and the GHASH table kept.
///
/// The caller owes each nonce once per key: a second use reveals the authentication key.
pub struct GcmCipher {
    key: LessSafeKey,
    alg: GcmAlg,
}

impl GcmCipher {
    /// Expands `key`, which must have [`GcmAlg::key_len`] bytes.
    pub fn new(alg: GcmAlg, key: &[u8]) -> Result<Self, CipherError> {
        let ring_alg = match alg {
            GcmAlg::Aes128 => &AES_128_GCM,
            GcmAlg::Aes256 => &AES_256_GCM,
        };
        let key = UnboundKey::new(ring_alg, key)
            .map_err(|_| CipherError::KeyLength { expected: alg.key_len(), got: key.len() })?;
        Ok(Self { key: LessSafeKey::new(key), alg })
    }

    /// The algorithm.
    #[must_use]
    pub const fn alg(&self) -> GcmAlg {
        self.alg
    }

    /// Encrypts `buf` in place and returns the tag over `aad` and the ciphertext.
    ///
    /// It fails only for a buffer beyond the 2³⁶ − 32 bytes that GCM allows.
    #[inline]
    pub fn seal_in_place(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        buf: &mut [u8],
    ) -> Result<[u8; TAG_LEN], CipherError> {
        let n = buf.len();
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), buf)
            .map_err(|_| CipherError::NotWholeBlocks(n))?;
        tag.as_ref().try_into().map_err(|_| CipherError::BadTag)
    }

    /// Checks and decrypts `buf`, which is the ciphertext and then the tag, in place; returns the plaintext.
    ///
    /// After an error `buf` holds nothing of use.
    #[inline]
    pub fn open_in_place<'b>(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        buf: &'b mut [u8],
    ) -> Result<&'b mut [u8], CipherError> {
        self.key
            .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), buf)
            .map_err(|_| CipherError::BadTag)
    }
}

impl fmt::Debug for GcmCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GcmCipher({:?})", self.alg)
    }
}

#[cfg(test)]
mod tests;
