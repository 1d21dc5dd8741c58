//! The file with this node's copy of the seal key.
//!
//! ```text
//! | magic (8) | length of header (4, big-endian) | header (prost) | sealed value (see sallyport_ca::seal) |
//! ```
//!
//! The sealed value is the seal key, sealed under the *node key*. The header says what holds the node key, and is part of
//! what is authenticated: it opens unaltered or not at all.

use std::path::Path;

use prost::Message;
use ring::rand::SecureRandom;
use sallyport_ca::seal::{Purpose, SealError, SealKey, Sealed};
use zeroize::Zeroizing;

use super::hold::Hold;
use crate::error::Error;
use crate::files;

const MAGIC: &[u8; 8] = b"SPSEAL\x00\x01";
const PURPOSE: Purpose = Purpose::new("node's copy of the seal key");
/// Longer is no header of ours.
const MAX_HEADER: usize = 16 * 1024;

#[derive(Clone, PartialEq, prost::Message)]
struct Header {
    #[prost(oneof = "Hold", tags = "1, 2, 3")]
    hold: Option<Hold>,
}

/// A copy as it is in the file.
pub(super) struct Copy {
    /// What holds the node key.
    pub(super) hold: Hold,
    head: Vec<u8>,
    sealed: Sealed,
}

impl Copy {
    /// Reads the file; `None` when there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, Error> {
        let Some(bytes) = files::read_private(path)? else { return Ok(None) };
        Self::parse(&bytes).map(Some).map_err(|cause| Error::File {
            path: path.into(),
            cause: cause.into(),
            remedy: "put the file back from a copy of this node's state, or wipe the node and let it join again".into(),
        })
    }

    fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        const DAMAGED: &str = "this is no sealed copy of a seal key, or it is damaged";
        const NEWER: &str = "a newer version wrote this; start that version again";
        let (magic, rest) = bytes.split_first_chunk::<8>().ok_or(DAMAGED)?;
        if magic != MAGIC {
            return Err(if magic.starts_with(b"SPSEAL\x00") { NEWER } else { DAMAGED });
        }
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(DAMAGED)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok().filter(|l| *l <= MAX_HEADER).ok_or(DAMAGED)?;
        let (header, sealed) = rest.split_at_checked(length).ok_or(DAMAGED)?;
        let hold = Header::decode(header).map_err(|_| DAMAGED)?.hold.ok_or(NEWER)?;
        let head = bytes.get(..12 + length).ok_or(DAMAGED)?.to_vec();
        Ok(Self { hold, head, sealed: Sealed::from_bytes(sealed.to_vec()) })
    }

    /// Seals the seal key under a node key.
    pub(super) fn new(
        hold: Hold,
        node_key: &SealKey,
        seal_key: &SealKey,
        rng: &dyn SecureRandom,
    ) -> Result<Self, SealError> {
        let header = Header { hold: Some(hold.clone()) }.encode_to_vec();
        let length = u32::try_from(header.len()).map_err(|_| SealError::Format)?;
        let head = [MAGIC.as_slice(), &length.to_be_bytes(), &header].concat();
        let sealed = node_key.seal(PURPOSE, &[&head], &*seal_key.to_bytes(), rng)?;
        Ok(Self { hold, head, sealed })
    }

    /// Opens it. [`SealError::WrongKey`] is another node key, [`SealError::Altered`] a damaged file.
    pub(super) fn open(&self, node_key: &SealKey) -> Result<SealKey, SealError> {
        let opened = node_key.open(PURPOSE, &[&self.head], &self.sealed)?;
        let mut key = Zeroizing::new([0; 32]);
        if opened.len() != key.len() {
            return Err(SealError::Format);
        }
        key.copy_from_slice(&opened);
        Ok(SealKey::from_bytes(&key))
    }

    /// Writes the file, whole or not at all.
    pub(super) fn write(&self, path: &Path) -> Result<(), Error> {
        files::write_private(path, &[self.head.as_slice(), self.sealed.as_bytes()].concat())
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;
    use crate::seal::hold::FileHold;

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("seal.sealed");
        assert!(Copy::read(&path).expect("reads").is_none());
        let (node_key, seal_key) = (SealKey::from_bytes(&[1; 32]), SealKey::from_bytes(&[2; 32]));
        let hold = Hold::File(FileHold { path: "node.key".into() });
        let copy = Copy::new(hold.clone(), &node_key, &seal_key, &SystemRandom::new()).expect("seals");
        copy.write(&path).expect("writes");
        let good = std::fs::read(&path).expect("reads");
        assert!(!good.windows(32).any(|w| w == [2; 32]));
        let copy = Copy::read(&path).expect("reads").expect("there");
        assert_eq!(copy.hold, hold);
        assert_eq!(copy.open(&node_key).expect("opens").id(), seal_key.id());
        assert_eq!(copy.open(&seal_key).expect_err("another key"), SealError::WrongKey);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Copy::parse(&bad).ok().and_then(|c| c.open(&node_key).ok()).is_none(), "bit {bit}");
        }
        for n in 0..good.len() {
            assert!(Copy::parse(&good[..n]).ok().and_then(|c| c.open(&node_key).ok()).is_none(), "{n} bytes");
        }
        let mut newer = good;
        newer[7] = 2;
        assert!(Copy::parse(&newer).is_err_and(|e| e.contains("newer")));
    }
}
