//! Inclusion and consistency proofs: made from stored subtrees (RFC 6962 §2.1.1, §2.1.2), verified without (RFC 9162 §2.1.3.2,
//! §2.1.4.2).

use super::{Hash, MAX_SIZE, NodeId, Nodes, complete_subtrees, empty_root, node_hash};

/// Most hashes of a proof.
pub const MAX_PROOF: usize = 64;

/// Why there is no proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// There is no such entry, or the sizes are the wrong way round.
    #[error("no such entry or size of the log")]
    Range,
    /// A row that must be there is not: the store is damaged, or older than the size asked for.
    #[error("the hash of the subtree {} at level {} is missing", .0.index, .0.level)]
    Missing(NodeId),
}

/// The proof that the entry `index` is in the tree of the first `size` entries.
pub fn inclusion_proof(nodes: &impl Nodes, index: u64, size: u64) -> Result<Vec<Hash>, ProofError> {
    if index >= size || size > MAX_SIZE {
        return Err(ProofError::Range);
    }
    let (mut begin, mut end, mut proof) = (0, size, Vec::new());
    while end - begin > 1 {
        let middle = begin + left_part(end - begin);
        if index < middle {
            proof.push(root_of(nodes, middle, end)?);
            end = middle;
        } else {
            proof.push(root_of(nodes, begin, middle)?);
            begin = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The proof that the tree of the first `old` entries is how the tree of the first `new` entries began. It is empty for equal
/// sizes, and for no entries.
pub fn consistency_proof(nodes: &impl Nodes, old: u64, new: u64) -> Result<Vec<Hash>, ProofError> {
    if old > new || new > MAX_SIZE {
        return Err(ProofError::Range);
    }
    let (mut begin, mut end, mut proof) = (0, new, Vec::new());
    if old == 0 {
        return Ok(proof);
    }
    while end != old {
        let middle = begin + left_part(end - begin);
        if old <= middle {
            proof.push(root_of(nodes, middle, end)?);
            end = middle;
        } else {
            proof.push(root_of(nodes, begin, middle)?);
            begin = middle;
        }
    }
    // Who verifies has the root of the old tree, so where that is a whole subtree it is left out.
    if begin != 0 {
        proof.push(root_of(nodes, begin, end)?);
    }
    proof.reverse();
    Ok(proof)
}

/// The largest power of two below `len`, which is at least 2.
const fn left_part(len: u64) -> u64 {
    1 << (63 - (len - 1).leading_zeros())
}

/// The root of the tree of some leaves: of the whole tree, or of one of its inner nodes.
fn root_of(nodes: &impl Nodes, begin: u64, end: u64) -> Result<Hash, ProofError> {
    let mut root = None;
    for node in complete_subtrees(begin, end).rev() {
        let hash = nodes.hash(node).ok_or(ProofError::Missing(node))?;
        root = Some(root.map_or(hash, |right| node_hash(&hash, &right)));
    }
    root.ok_or(ProofError::Range)
}

/// Whether the proof shows that the entry `index` of the tree with this root and `size` has this leaf hash.
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    if index >= size || size > MAX_SIZE {
        return false;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            (at, last) = past_lone_levels(at, last);
        } else {
            hash = node_hash(&hash, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && hash == *root
}

/// Whether the proof shows that the tree with `old_root` and size `old` is how that with `new_root` and size `new` began.
pub fn verify_consistency(old: u64, new: u64, old_root: &Hash, new_root: &Hash, proof: &[Hash]) -> bool {
    if old == 0 && new != 0 {
        // Each tree began as the empty one.
        return new <= MAX_SIZE && proof.is_empty() && *old_root == empty_root();
    }
    consistent_roots(old, new, old_root, proof) == Some((*old_root, *new_root))
}

/// The old and the new root that a proof leads to. The old one is taken from it where it is a whole subtree; otherwise a proof
/// that leads to the true new root shows, too, what the old root was (SHA-256 has no collisions).
pub(super) fn consistent_roots(old: u64, new: u64, old_root: &Hash, proof: &[Hash]) -> Option<(Hash, Hash)> {
    if old > new || new > MAX_SIZE || proof.len() > MAX_PROOF {
        return None;
    }
    if old == new {
        return proof.is_empty().then_some((*old_root, *old_root));
    }
    if old == 0 {
        return None;
    }
    let (first, rest) = if old.is_power_of_two() { (old_root, proof) } else { proof.split_first()? };
    let (mut at, mut last) = (old - 1, new - 1);
    let whole = at.trailing_ones();
    (at, last) = (at >> whole, last >> whole);
    let (mut old_hash, mut new_hash) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            (at, last) = past_lone_levels(at, last);
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    (last == 0).then_some((old_hash, new_hash))
}

/// Steps over the levels on which the last node has no sibling.
const fn past_lone_levels(at: u64, last: u64) -> (u64, u64) {
    if at == 0 {
        return (at, last);
    }
    let lone = at.trailing_zeros();
    (at >> lone, last >> lone)
}

/// The hashes one behind the other.
pub fn proof_to_bytes(proof: &[Hash]) -> Vec<u8> {
    proof.as_flattened().to_vec()
}

/// The reverse; `None` if it is no list of hashes, or longer than a proof.
pub fn proof_from_bytes(bytes: &[u8]) -> Option<Vec<Hash>> {
    let (hashes, rest) = bytes.as_chunks();
    (rest.is_empty() && hashes.len() <= MAX_PROOF).then(|| hashes.to_vec())
}
