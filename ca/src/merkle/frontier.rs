//! The right edge of a growing tree: the roots of the complete subtrees that it consists of (a "compact range").

use super::{Hash, MAX_SIZE, NodeId, Nodes, ProofError, complete_subtrees, empty_root, node_hash};

/// A tree that grows. It has at most 48 hashes in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// One for each bit of `size` that is set, the largest subtree first.
    roots: Vec<Hash>,
}

impl Frontier {
    /// The tree without entries.
    pub const fn new() -> Self {
        Self { size: 0, roots: Vec::new() }
    }

    /// How many entries there are.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Appends an entry by its [`super::leaf_hash`] and says its index. Each subtree that is complete with it, the leaf itself
    /// first, is handed to `store`: these are one, and one more for each bit that is carried when the size goes up.
    pub fn append(&mut self, leaf: Hash, mut store: impl FnMut(NodeId, Hash)) -> u64 {
        let index = self.size;
        let (mut level, mut hash) = (0_u8, leaf);
        store(NodeId { level, index }, hash);
        while index >> level & 1 == 1
            && let Some(left) = self.roots.pop()
        {
            hash = node_hash(&left, &hash);
            level += 1;
            store(NodeId { level, index: index >> level }, hash);
        }
        self.roots.push(hash);
        self.size += 1;
        index
    }

    /// The root of the tree as it is now.
    pub fn root(&self) -> Hash {
        let folded = self.roots.iter().rev().copied().reduce(|right, left| node_hash(&left, &right));
        folded.unwrap_or_else(empty_root)
    }

    /// The tree of `size` entries from its stored subtrees.
    pub fn from_nodes(nodes: &impl Nodes, size: u64) -> Result<Self, ProofError> {
        if size > MAX_SIZE {
            return Err(ProofError::Range);
        }
        let roots = complete_subtrees(0, size).map(|node| nodes.hash(node).ok_or(ProofError::Missing(node)));
        Ok(Self { size, roots: roots.collect::<Result<_, _>>()? })
    }

    /// | size (8) | the roots, the largest subtree's first (32 each) |.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 + self.roots.len() * 32);
        out.extend_from_slice(&self.size.to_be_bytes());
        out.extend_from_slice(self.roots.as_flattened());
        out
    }

    /// The reverse; `None` if it is not one.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (size, roots) = bytes.split_first_chunk()?;
        let size = u64::from_be_bytes(*size);
        let (roots, rest) = roots.as_chunks::<32>();
        let whole = rest.is_empty() && roots.len() == size.count_ones() as usize && size <= MAX_SIZE;
        whole.then(|| Self { size, roots: roots.to_vec() })
    }
}
