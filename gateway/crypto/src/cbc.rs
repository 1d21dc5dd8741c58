//! AES and 3DES in CBC mode: NIST SP 800-38A, RFC 2451, RFC 3602. Whole blocks, in place, no padding rules.

use core::fmt;

use aes::{Aes128, Aes192, Aes256};
use cbc::{Decryptor, Encryptor};
use cipher::array::{Array, ArraySize};
use cipher::{BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit};
use des::TdesEde3;

use crate::{CipherError, Rng};

/// A block cipher in CBC mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CbcAlg {
    /// Three-key 3DES (EDE). Slow, 64-bit blocks, table look-ups that leak by timing: for old peers only.
    TripleDes,
    /// AES with a 128-bit key.
    Aes128,
    /// AES with a 192-bit key.
    Aes192,
    /// AES with a 256-bit key.
    Aes256,
}

impl CbcAlg {
    /// Key length in bytes. For 3DES the parity bits are included and ignored.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::TripleDes | Self::Aes192 => 24,
            Self::Aes128 => 16,
            Self::Aes256 => 32,
        }
    }

    /// Block length in bytes, which is the IV length too.
    #[must_use]
    pub const fn block_len(self) -> usize {
        match self {
            Self::TripleDes => 8,
            Self::Aes128 | Self::Aes192 | Self::Aes256 => 16,
        }
    }

    /// Name as operators write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TripleDes => "3des-cbc",
            Self::Aes128 => "aes128-cbc",
            Self::Aes192 => "aes192-cbc",
            Self::Aes256 => "aes256-cbc",
        }
    }
}

impl fmt::Display for CbcAlg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn encrypt_blocks<C, N>(cipher: &C, iv: &[u8], buf: &mut [u8]) -> Result<(), CipherError>
where
    C: BlockCipherEncrypt<BlockSize = N>,
    N: ArraySize,
{
    let iv: &Array<u8, N> = iv.try_into().map_err(|_| CipherError::IvLength { expected: N::USIZE, got: iv.len() })?;
    let n = buf.len();
    let (blocks, rest) = Array::slice_as_chunks_mut(buf);
    if !rest.is_empty() {
        return Err(CipherError::NotWholeBlocks(n));
    }
    Encryptor::inner_iv_init(cipher, iv).encrypt_blocks(blocks);
    Ok(())
}

fn decrypt_blocks<C, N>(cipher: &C, iv: &[u8], buf: &mut [u8]) -> Result<(), CipherError>
where
    C: BlockCipherDecrypt<BlockSize = N>,
    N: ArraySize,
{
    let iv: &Array<u8, N> = iv.try_into().map_err(|_| CipherError::IvLength { expected: N::USIZE, got: iv.len() })?;
    let n = buf.len();
    let (blocks, rest) = Array::slice_as_chunks_mut(buf);
    if !rest.is_empty() {
        return Err(CipherError::NotWholeBlocks(n));
    }
    Decryptor::inner_iv_init(cipher, iv).decrypt_blocks(blocks);
    Ok(())
}

/// Declares a cipher with its key schedule for the given directions.
macro_rules! cbc_cipher {
    ($(#[$meta:meta])* $name:ident, $inner:ident { $tdes:ty, $aes128:ty, $aes192:ty, $aes256:ty } $($enc:ident)? ; $($dec:ident)?) => {
        $(#[$meta])*
        pub struct $name($inner);

        /// The schedules lie inline: a box would cost a cache miss per packet.
        #[allow(clippy::large_enum_variant)]
        enum $inner {
            /// Boxed: its 384 bytes would make every SA larger, and nobody runs 3DES for its speed.
            TripleDes(Box<$tdes>),
            Aes128($aes128),
            Aes192($aes192),
            Aes256($aes256),
        }

        impl $name {
            /// Expands `key`, which must have [`CbcAlg::key_len`] bytes. The schedule is wiped on drop.
            pub fn new(alg: CbcAlg, key: &[u8]) -> Result<Self, CipherError> {
                let bad = |_| CipherError::KeyLength { expected: alg.key_len(), got: key.len() };
                Ok(Self(match alg {
                    CbcAlg::TripleDes => $inner::TripleDes(Box::new(KeyInit::new_from_slice(key).map_err(bad)?)),
                    CbcAlg::Aes128 => $inner::Aes128(KeyInit::new_from_slice(key).map_err(bad)?),
                    CbcAlg::Aes192 => $inner::Aes192(KeyInit::new_from_slice(key).map_err(bad)?),
                    CbcAlg::Aes256 => $inner::Aes256(KeyInit::new_from_slice(key).map_err(bad)?),
                }))
            }

            /// The algorithm.
            #[must_use]
            pub const fn alg(&self) -> CbcAlg {
                match self.0 {
                    $inner::TripleDes(_) => CbcAlg::TripleDes,
                    $inner::Aes128(_) => CbcAlg::Aes128,
                    $inner::Aes192(_) => CbcAlg::Aes192,
                    $inner::Aes256(_) => CbcAlg::Aes256,
                }
            }

            $(
                /// Encrypts whole blocks in place. On an error nothing was touched.
                pub fn $enc(&self, iv: &[u8], buf: &mut [u8]) -> Result<(), CipherError> {
                    match &self.0 {
                        $inner::TripleDes(c) => encrypt_blocks(&**c, iv, buf),
                        $inner::Aes128(c) => encrypt_blocks(c, iv, buf),
                        $inner::Aes192(c) => encrypt_blocks(c, iv, buf),
                        $inner::Aes256(c) => encrypt_blocks(c, iv, buf),
                    }
                }
            )?

            $(
                /// Decrypts whole blocks in place. On an error nothing was touched.
                pub fn $dec(&self, iv: &[u8], buf: &mut [u8]) -> Result<(), CipherError> {
                    match &self.0 {
                        $inner::TripleDes(c) => decrypt_blocks(&**c, iv, buf),
                        $inner::Aes128(c) => decrypt_blocks(c, iv, buf),
                        $inner::Aes192(c) => decrypt_blocks(c, iv, buf),
                        $inner::Aes256(c) => decrypt_blocks(c, iv, buf),
                    }
                }
            )?
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.alg())
            }
        }
    };
}

cbc_cipher! {
    /// CBC in both directions, with the key schedule kept. For IKE.
    CbcCipher, Both { TdesEde3, Aes128, Aes192, Aes256 } encrypt ; decrypt
}
cbc_cipher! {
    /// CBC encryption only: half the key schedule. For an outbound SA.
    CbcEncryptor, Enc { TdesEde3, aes::Aes128Enc, aes::Aes192Enc, aes::Aes256Enc } encrypt ;
}
cbc_cipher! {
    /// CBC decryption only: half the key schedule. For an inbound SA.
    CbcDecryptor, Dec { TdesEde3, aes::Aes128Dec, aes::Aes192Dec, aes::Aes256Dec } ; decrypt
}

/// A source of CBC IVs that nobody without the key can predict: a counter under AES-128 (NIST SP 800-38A appendix C).
///
/// It has a key of its own, so that nothing which a peer makes us encrypt ever meets an IV's block.
pub struct IvCipher(aes::Aes128Enc);

impl IvCipher {
    /// Draws the key.
    #[must_use]
    pub fn generate(rng: &mut Rng) -> Self {
        let key = zeroize::Zeroizing::new(rng.bytes::<16>());
        Self(aes::Aes128Enc::new((&*key).into()))
    }

    /// The IV for `counter`. A cipher with shorter blocks takes the first bytes.
    #[must_use]
    pub fn iv(&self, counter: u64) -> [u8; 16] {
        let mut block = Array::from(u128::from(counter).to_be_bytes());
        self.0.encrypt_block(&mut block);
        block.into()
    }
}

impl fmt::Debug for IvCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IvCipher")
    }
}

#[cfg(test)]
mod tests;
