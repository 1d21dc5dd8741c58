//! The cryptography of IKE, ESP, L2TP and PPP over vetted primitives.
//!
//! Nothing here invents a primitive: each module gives one family the shape that our protocols need (in place, key
//! schedule kept, randomness as an argument) and leaves the arithmetic to `ring` and the RustCrypto crates.
//!
//! | Module | What | Source |
//! | --- | --- | --- |
//! | [`Rng`] | randomness from a seed | ChaCha20 |
//! | [`hash`] | hashes and HMAC | FIPS 180-4, RFC 1321, RFC 2104 |
//! | [`cbc`] | AES and 3DES in CBC mode | SP 800-38A, RFC 2451, RFC 3602 |
//! | [`gcm`] | AES-GCM with a 16-byte tag | SP 800-38D, RFC 4106 |
//! | [`dh`] | Diffie-Hellman groups | RFC 2409, RFC 3526, RFC 5903 |
//! | [`sign`] | signatures of IKEv1 | RFC 2409 §5.1, RFC 4754 |
//! | [`mschap`] | MS-CHAPv2 and CHAP-MD5 | RFC 2759, RFC 1994 |
//! | [`proposal`] | suites as operators write them | |
//! | [`suite`] | names and sizes of ESP transforms | RFC 4106, RFC 4868, ... |
//!
//! Secrets are wiped on drop (but see [`gcm`]), are never printed by `Debug`, and are compared in constant time. Private scalars and
//! exponents meet only constant-time code, with two exceptions: DES and 3DES use table look-ups (nothing faster or
//! safer exists for them), and RSA signing goes through the `rsa` crate with blinding (see [`sign`]).

pub mod cbc;
pub mod dh;
pub mod gcm;
pub mod hash;
pub mod mschap;
pub mod proposal;
mod rng;
pub mod sign;
pub mod suite;

pub use rng::Rng;
pub use subtle::ConstantTimeEq;
pub use zeroize::{Zeroize, Zeroizing};

/// Whether two byte strings are equal, in time that depends on their lengths only.
#[must_use]
pub fn ct_eq(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// Why a cipher cannot do what it was asked for: the caller's lengths are wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CipherError {
    /// The key has another length than the algorithm's.
    #[error("key of {got} bytes where {expected} are needed")]
    KeyLength {
        /// Bytes that the algorithm needs.
        expected: usize,
        /// Bytes that were given.
        got: usize,
    },
    /// The IV or nonce has another length than the algorithm's.
    #[error("IV of {got} bytes where {expected} are needed")]
    IvLength {
        /// Bytes that the algorithm needs.
        expected: usize,
        /// Bytes that were given.
        got: usize,
    },
    /// The data are not whole blocks.
    #[error("{0} bytes are not whole blocks")]
    NotWholeBlocks(usize),
    /// The authentication tag does not match: the data were changed, or the key is another.
    #[error("authentication tag mismatch")]
    BadTag,
}
