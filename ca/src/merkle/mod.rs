//! The Merkle tree of RFC 6962 §2.1 (RFC 9162 §2.1 is the same) with SHA-256, over the entries of an audit log.
//!
//! * [`Frontier`] is the right edge of the tree: it appends an entry and says the root in O(log n), and is all that must be in
//!   memory. What it completes it hands out by [`NodeId`], to be stored: for ten million entries these are twenty million rows of
//!   41 octets, and no proof reads more than some hundred.
//! * [`inclusion_proof`] and [`consistency_proof`] read these rows through [`Nodes`]; [`verify_inclusion`] and
//!   [`verify_consistency`] need none.
//! * [`SignedTreeHead`] is what the log says of itself, signed. [`Witness`] keeps the newest that it saw and judges the next: a log
//!   that was rolled back, or shows different entries to different readers, is found, with both heads as [`Evidence`]. [`Follower`]
//!   does so for one log, from what its keeper says.
//!
//! ```
//! use sallyport_ca::merkle::*;
//! let (mut frontier, mut stored) = (Frontier::new(), std::collections::BTreeMap::new());
//! for entry in ["issued", "revoked", "refused"] {
//!     frontier.append(leaf_hash(entry.as_bytes()), |node, hash| drop(stored.insert(node, hash)));
//! }
//! let proof = inclusion_proof(&stored, 1, 3).unwrap();
//! assert!(verify_inclusion(&leaf_hash(b"revoked"), 1, 3, &proof, &frontier.root()));
//! ```

mod follow;
mod frontier;
mod head;
mod keys;
mod proof;
#[cfg(test)]
mod tests;
mod witness;

use std::collections::BTreeMap;

use ring::digest;

pub use follow::{Answer, Fault, Followed, Follower, Wrong};
pub use frontier::Frontier;
pub use head::{HeadError, SignedTreeHead, TreeHead, key_id};
pub use keys::head_keys;
pub use proof::{
    MAX_PROOF, ProofError, consistency_proof, inclusion_proof, proof_from_bytes, proof_to_bytes, verify_consistency,
    verify_inclusion,
};
pub use witness::{Evidence, Finding, MAX_LOGS, Verdict, Witness, WitnessError};

/// A SHA-256.
pub type Hash = [u8; 32];

/// What to do about a log that is not what it was, for operators: whoever finds it says this.
pub const REMEDY: &str = "if the controllers were restored from a backup or set back, and you know by whom: sallyport audit accept \
    --reason TEXT; otherwise keep the evidence (sallyport attempt list -o json) and find out who runs another copy of the controllers, \
    or changed their state";

/// Most entries of a log.
pub const MAX_SIZE: u64 = 1 << 48;

/// The hash of a leaf: SHA-256(0x00 | entry).
pub fn leaf_hash(entry: &[u8]) -> Hash {
    hash_of(&[&[0], entry])
}

/// The hash of an inner node: SHA-256(0x01 | left | right).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    hash_of(&[&[1], left, right])
}

/// The root of the tree without entries: SHA-256 of nothing.
pub fn empty_root() -> Hash {
    hash_of(&[])
}

fn hash_of(parts: &[&[u8]]) -> Hash {
    let mut context = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().first_chunk().copied().unwrap_or_default()
}

/// A complete subtree: that of the 2^level leaves from index · 2^level on. Its hash never changes once all of them are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    /// 0 is a leaf.
    pub level: u8,
    /// Counted from the left.
    pub index: u64,
}

impl NodeId {
    /// Octets of [`Self::to_key`].
    pub const KEY_LEN: usize = 9;

    /// The key of its row: | level (1) | index (8) |. New rows come at the end of each level.
    pub fn to_key(self) -> [u8; Self::KEY_LEN] {
        let mut key = [self.level; Self::KEY_LEN];
        let (_, index) = key.split_at_mut(1);
        index.copy_from_slice(&self.index.to_be_bytes());
        key
    }

    /// The reverse.
    pub fn from_key(key: &[u8]) -> Option<Self> {
        let (&[level], index) = key.split_first_chunk()?;
        let index = u64::from_be_bytes(index.try_into().ok()?);
        (level < 64).then_some(Self { level, index })
    }
}

/// Where the hashes of complete subtrees are found.
pub trait Nodes {
    /// The hash of a complete subtree.
    fn hash(&self, node: NodeId) -> Option<Hash>;
}

impl Nodes for BTreeMap<NodeId, Hash> {
    fn hash(&self, node: NodeId) -> Option<Hash> {
        self.get(&node).copied()
    }
}

impl<N: Nodes + ?Sized> Nodes for &N {
    fn hash(&self, node: NodeId) -> Option<Hash> {
        (**self).hash(node)
    }
}

/// The complete subtrees that the leaves `begin..end` consist of, from left to right: as large as they can be. `begin` is
/// where a subtree of at least that many leaves begins.
fn complete_subtrees(begin: u64, end: u64) -> impl DoubleEndedIterator<Item = NodeId> + Clone {
    let len = end.saturating_sub(begin);
    let levels = (0..64_u8).rev().filter(move |level| len >> level & 1 == 1);
    // What is left of it: the larger ones.
    levels.map(move |level| {
        let before = len.checked_shr(u32::from(level) + 1).unwrap_or(0);
        NodeId { level, index: (begin >> level) + (before << 1) }
    })
}
