//! What the log says of itself: how many entries it has and what their root is, signed (RFC 6962 §3.5 in our encoding).

use ring::rand::SecureRandom;

use super::{Frontier, Hash, MAX_SIZE, hash_of};
use crate::{Error, KeyPair, PublicKey};

/// What is signed begins with it, so that the signature is good for nothing else: no DER begins so.
const CONTEXT: &[u8] = b"sallyport tree head v1\0";
const BODY: usize = 16 + 8 + 32 + 8 + 32;
/// Longest signature, octets: RSA with 8192 bits.
const MAX_SIGNATURE: usize = 1024;

/// Why a head counts for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// The bytes are no head.
    #[error("not a signed tree head")]
    Malformed,
    /// Signed by a key that is not among those trusted.
    #[error("the tree head is signed by a key that is not trusted")]
    OtherKey,
    /// The signature is not that of its key.
    #[error("the signature of the tree head is wrong")]
    Signature,
}

/// The name of a key: SHA-256 of its SubjectPublicKeyInfo, as RFC 6962 §3.2 has it.
pub fn key_id(key: &PublicKey) -> Hash {
    hash_of(&[key.spki_der()])
}

/// The state of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeHead {
    /// The cluster whose log it is.
    pub cluster: [u8; 16],
    /// Entries of the log.
    pub size: u64,
    /// The root of their tree.
    pub root: Hash,
    /// The log's time of the last of these entries, milliseconds since 1970. It is a function of the size: an honest log never
    /// says a smaller size with a later time, whichever of its members speaks.
    pub time_ms: u64,
    /// The key that signs: [`key_id`].
    pub key_id: Hash,
}

impl TreeHead {
    /// `| cluster (16) | size (8) | root (32) | time (8) | key id (32) |`.
    fn to_bytes(&self) -> Vec<u8> {
        let (size, time) = (self.size.to_be_bytes(), self.time_ms.to_be_bytes());
        [&self.cluster[..], &size, &self.root, &time, &self.key_id].concat()
    }

    fn parse(bytes: &[u8; BODY]) -> Option<Self> {
        let (cluster, rest) = bytes.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        let (root, rest) = rest.split_first_chunk()?;
        let (time, rest) = rest.split_first_chunk()?;
        let size = u64::from_be_bytes(*size);
        let time_ms = u64::from_be_bytes(*time);
        let head = Self { cluster: *cluster, size, root: *root, time_ms, key_id: *rest.first_chunk()? };
        (size <= MAX_SIZE).then_some(head)
    }

    fn signed_bytes(&self) -> Vec<u8> {
        [CONTEXT, &self.to_bytes()].concat()
    }
}

/// A head and its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedTreeHead {
    /// The head.
    pub head: TreeHead,
    /// As [`KeyPair::sign`] makes it.
    pub signature: Vec<u8>,
}

impl SignedTreeHead {
    /// Signs the head of a tree. `time_ms` is the time of its last entry.
    pub fn sign(
        cluster: [u8; 16],
        tree: &Frontier,
        time_ms: u64,
        key: &KeyPair,
        rng: &dyn SecureRandom,
    ) -> Result<Self, Error> {
        let key_id = key_id(&key.public_key());
        let head = TreeHead { cluster, size: tree.size(), root: tree.root(), time_ms, key_id };
        let signature = key.sign(&head.signed_bytes(), rng)?;
        Ok(Self { head, signature })
    }

    /// Whether one of these keys signed it.
    pub fn verify(&self, keys: &[PublicKey]) -> Result<(), HeadError> {
        let key = keys.iter().find(|key| key_id(key) == self.head.key_id).ok_or(HeadError::OtherKey)?;
        if key.verifies(&self.head.signed_bytes(), &self.signature) { Ok(()) } else { Err(HeadError::Signature) }
    }

    /// `| head (96) | length of the signature (2) | signature |`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let len = u16::try_from(self.signature.len()).unwrap_or(u16::MAX).to_be_bytes();
        [&self.head.to_bytes()[..], &len, &self.signature].concat()
    }

    /// The reverse. The signature is not verified.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HeadError> {
        match Self::take(bytes) {
            Some((head, [])) => Ok(head),
            _ => Err(HeadError::Malformed),
        }
    }

    /// Takes one from the start of `bytes`.
    pub(super) fn take(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = bytes.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let len = usize::from(u16::from_be_bytes(*len));
        let (signature, rest) = rest.split_at_checked(len).filter(|_| len <= MAX_SIGNATURE)?;
        Some((Self { head: TreeHead::parse(head)?, signature: signature.to_vec() }, rest))
    }
}
