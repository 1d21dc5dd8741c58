//! Secrets at rest: CA keys, password hashes, pre-shared keys and checkpoints are stored only in this form.
//!
//! ```text
//! | format (1) = 1 | key id (4) | nonce (12) | AES-256-GCM ciphertext | tag (16) |
//! ```
//!
//! The AES key is HKDF-SHA-256 (RFC 5869) of the 32-byte seal key for the [`Purpose`], so that a secret of one kind can
//! never be opened as another. The additional data are the format byte, the purpose and what the caller names as the
//! secret's place (a user's name, a certificate's fingerprint), so that a sealed value moved to another row does not
//! open. The nonce is random: one purpose under one seal key is good for 2^32 seals (NIST SP 800-38D §8.3).

use core::fmt;

use ring::rand::SecureRandom;
use ring::{aead, hkdf};
use zeroize::{Zeroize, Zeroizing};

mod wrap;

pub use wrap::{JoinKey, RecipientKey, WRAPPED_LEN, wrap};

const FORMAT: u8 = 1;
const KEY_ID_LEN: usize = 4;
const HEADER_LEN: usize = 1 + KEY_ID_LEN + aead::NONCE_LEN;
const TAG_LEN: usize = 16;
const SALT: &[u8] = b"sallyport seal v1";

/// What a sealed secret is for. Each purpose has a key of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purpose(&'static str);

impl Purpose {
    /// The private key of a certificate authority (PKCS #8).
    pub const CA_KEY: Self = Self("ca key");
    /// The NT hash of a user's password, which MS-CHAPv2 needs.
    pub const NT_HASH: Self = Self("nt hash");
    /// A user's password, kept only where CHAP-MD5 is allowed.
    pub const PASSWORD: Self = Self("password");
    /// A pre-shared key of IKE.
    pub const PRE_SHARED_KEY: Self = Self("pre-shared key");
    /// A private key of this node or of a gateway.
    pub const NODE_KEY: Self = Self("node key");
    /// A checkpoint of a session.
    pub const CHECKPOINT: Self = Self("checkpoint");

    /// Another purpose; the text must be unique to it and never change.
    pub const fn new(text: &'static str) -> Self {
        Self(text)
    }
}

/// Why a sealed value does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The value was sealed under another seal key.
    #[error("sealed under another seal key")]
    WrongKey,
    /// The value was altered, belongs to another place, or has another purpose.
    #[error("the sealed value was altered or belongs elsewhere")]
    Altered,
    /// The bytes are not a sealed value, or are of a format that this version does not know.
    #[error("not a sealed value of a known format")]
    Format,
    /// A seal key file must hold 32 bytes, or 64 hexadecimal digits.
    #[error("a seal key is 32 bytes or 64 hexadecimal digits")]
    KeyFile,
    /// The random source failed.
    #[error("the random source failed")]
    Random,
}

/// The 32-byte key that opens everything. Wiped when dropped, never printed.
pub struct SealKey(Zeroizing<[u8; 32]>);

impl SealKey {
    /// A new key.
    pub fn generate(rng: &dyn SecureRandom) -> Result<Self, SealError> {
        let mut key = Zeroizing::new([0; 32]);
        rng.fill(&mut *key).map_err(|_| SealError::Random)?;
        Ok(Self(key))
    }

    /// The key of these bytes; the caller wipes its copy.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*bytes))
    }

    /// The key in the contents of a key file: 32 raw bytes, or 64 hexadecimal digits and white space around them.
    pub fn from_file(contents: &[u8]) -> Result<Self, SealError> {
        let mut key = Zeroizing::new([0_u8; 32]);
        if contents.len() == 32 {
            key.copy_from_slice(contents);
            return Ok(Self(key));
        }
        let digits = contents.trim_ascii();
        if digits.len() != 64 {
            return Err(SealError::KeyFile);
        }
        for (byte, pair) in key.iter_mut().zip(digits.chunks(2)) {
            for digit in pair {
                let value = char::from(*digit).to_digit(16).ok_or(SealError::KeyFile)?;
                *byte = *byte << 4 | value as u8;
            }
        }
        Ok(Self(key))
    }

    /// The contents of a key file.
    pub fn to_file(&self) -> Zeroizing<String> {
        let mut out = Zeroizing::new(String::with_capacity(65));
        for byte in self.0.iter() {
            for half in [byte >> 4, byte & 15] {
                out.extend(char::from_digit(u32::from(half), 16));
            }
        }
        out.push('\n');
        out
    }

    /// The key's bytes, to be sealed under another key.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.0.clone()
    }

    /// A short public name of the key, which is also in every value sealed under it.
    pub fn id(&self) -> [u8; KEY_ID_LEN] {
        let mut id = [0; KEY_ID_LEN];
        self.derive(b"key id", &mut id);
        id
    }

    /// HKDF-SHA-256 of this key for another component, such as a checkpoint key that gateways are given.
    pub fn derive_key(&self, purpose: Purpose) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        self.derive(purpose.0.as_bytes(), &mut *key);
        key
    }

    fn derive(&self, info: &[u8], out: &mut [u8]) {
        struct Len(usize);
        impl hkdf::KeyType for Len {
            fn len(&self) -> usize {
                self.0
            }
        }
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(&*self.0);
        // Both fail only for more than 255 blocks of output; the callers ask for at most one.
        if let Ok(okm) = prk.expand(&[info], Len(out.len())) {
            let _ = okm.fill(out);
        }
    }

    fn cipher(&self, purpose: Purpose) -> Result<aead::LessSafeKey, SealError> {
        let key = self.derive_key(purpose);
        let key = aead::UnboundKey::new(&aead::AES_256_GCM, &*key).map_err(|_| SealError::Format)?;
        Ok(aead::LessSafeKey::new(key))
    }

    /// Seals `secret`. `place` says where it belongs, part by part (for example a table and a user's name); the same
    /// parts must be given to [`SealKey::open`].
    pub fn seal(
        &self,
        purpose: Purpose,
        place: &[&[u8]],
        secret: &[u8],
        rng: &dyn SecureRandom,
    ) -> Result<Sealed, SealError> {
        let mut nonce = [0; aead::NONCE_LEN];
        rng.fill(&mut nonce).map_err(|_| SealError::Random)?;
        // Reserved in full: a reallocation would leave a copy of the plain text in freed memory.
        let mut out = Vec::with_capacity(HEADER_LEN + secret.len() + TAG_LEN);
        out.push(FORMAT);
        out.extend_from_slice(&self.id());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(secret);
        let aad = aead::Aad::from(aad(purpose, place));
        let (_, body) = out.split_at_mut(HEADER_LEN);
        let sealed =
            self.cipher(purpose)?.seal_in_place_separate_tag(aead::Nonce::assume_unique_for_key(nonce), aad, body);
        match sealed {
            Ok(tag) => out.extend_from_slice(tag.as_ref()),
            Err(_) => {
                out.zeroize();
                return Err(SealError::Format);
            }
        }
        Ok(Sealed(out))
    }

    /// Opens what [`SealKey::seal`] made for the same purpose and place.
    pub fn open(&self, purpose: Purpose, place: &[&[u8]], sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (header, body) = sealed.0.split_first_chunk::<HEADER_LEN>().ok_or(SealError::Format)?;
        let (&[format], rest) = header.split_first_chunk::<1>().ok_or(SealError::Format)?;
        let (id, nonce) = rest.split_first_chunk::<KEY_ID_LEN>().ok_or(SealError::Format)?;
        let nonce = aead::Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Format)?;
        if format != FORMAT {
            return Err(SealError::Format);
        }
        if *id != self.id() {
            return Err(SealError::WrongKey);
        }
        let mut body = Zeroizing::new(body.to_vec());
        let aad = aead::Aad::from(aad(purpose, place));
        let len = self.cipher(purpose)?.open_in_place(nonce, aad, &mut body).map_err(|_| SealError::Altered)?.len();
        body.truncate(len);
        Ok(body)
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(..)")
    }
}

/// Format, purpose and place, each part with its length before it, so that no two lists give the same bytes.
fn aad(purpose: Purpose, place: &[&[u8]]) -> Vec<u8> {
    let mut out = vec![FORMAT];
    for part in [purpose.0.as_bytes()].iter().chain(place) {
        out.extend_from_slice(&(part.len() as u64).to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

/// A sealed secret: bytes that may be stored and sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Vec<u8>);

impl Sealed {
    /// Takes stored bytes; whether they open is found out by [`SealKey::open`].
    pub const fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes to store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes to store.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ring::rand::SystemRandom;

    use super::*;

    fn key(byte: u8) -> SealKey {
        SealKey::from_bytes(&[byte; 32])
    }

    #[test]
    fn a_sealed_secret_opens_only_with_its_key_purpose_and_place() {
        let rng = SystemRandom::new();
        let sealed = key(1).seal(Purpose::NT_HASH, &[b"users", b"ann"], b"secret", &rng).unwrap();
        let open = |k: &SealKey, p, place: &[&[u8]]| k.open(p, place, &sealed).map(|s| s.to_vec());
        assert_eq!(open(&key(1), Purpose::NT_HASH, &[b"users", b"ann"]).unwrap(), b"secret");
        assert_eq!(open(&key(2), Purpose::NT_HASH, &[b"users", b"ann"]), Err(SealError::WrongKey));
        assert_eq!(open(&key(1), Purpose::PASSWORD, &[b"users", b"ann"]), Err(SealError::Altered));
        assert_eq!(open(&key(1), Purpose::NT_HASH, &[b"users", b"bob"]), Err(SealError::Altered));
        assert_eq!(open(&key(1), Purpose::NT_HASH, &[b"usersa", b"nn"]), Err(SealError::Altered));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let sealed = key(1).seal(Purpose::CA_KEY, &[], b"0123456789", &SystemRandom::new()).unwrap();
        for i in 0..sealed.0.len() * 8 {
            let mut bytes = sealed.0.clone();
            bytes[i / 8] ^= 1 << (i % 8);
            assert!(key(1).open(Purpose::CA_KEY, &[], &Sealed(bytes)).is_err(), "bit {i}");
        }
        for n in 0..sealed.0.len() {
            assert!(key(1).open(Purpose::CA_KEY, &[], &Sealed(sealed.0[..n].to_vec())).is_err());
        }
    }

    #[test]
    fn a_key_file_is_raw_or_hexadecimal() {
        let text = key(0xa5).to_file();
        assert_eq!(SealKey::from_file(text.as_bytes()).unwrap().id(), key(0xa5).id());
        assert_eq!(SealKey::from_file(&[0xa5; 32]).unwrap().id(), key(0xa5).id());
        assert_eq!(SealKey::from_file(b"short").unwrap_err(), SealError::KeyFile);
        assert_eq!(SealKey::from_file(&[b'x'; 64]).unwrap_err(), SealError::KeyFile);
    }

    #[test]
    fn debug_output_holds_no_secret() {
        assert_eq!(format!("{:?}", key(1)), "SealKey(..)");
        assert_eq!(format!("{:?}", Sealed(vec![1, 2, 3])), "Sealed(3 bytes)");
    }

    proptest! {
        #[test]
        fn anything_round_trips(secret in prop::collection::vec(any::<u8>(), 0..300), place in ".{0,20}") {
            let k = key(9);
            let sealed = k.seal(Purpose::CHECKPOINT, &[place.as_bytes()], &secret, &SystemRandom::new()).unwrap();
            prop_assert_eq!(sealed.as_bytes().len(), HEADER_LEN + secret.len() + TAG_LEN);
            prop_assert_eq!(&**k.open(Purpose::CHECKPOINT, &[place.as_bytes()], &sealed).unwrap(), &secret[..]);
        }

        #[test]
        fn arbitrary_bytes_never_open(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(key(3).open(Purpose::CA_KEY, &[], &Sealed(bytes)).is_err());
        }
    }
}
