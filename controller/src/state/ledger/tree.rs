//! The tree as rows: leaves, the hashes of larger subtrees, and the right edge.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use sallyport_ca::merkle::{Frontier, Hash, NodeId, Nodes, leaf_hash, node_hash};
use sallyport_proto::v1::LogEntry;

use super::MAX_ACCEPTED;
use crate::raft::kv::{Op, Table};
use crate::state::{LEAVES, NODES, RowError, TREE};

/// First byte of every stored row: the format of what follows.
const FORMAT: u8 = 1;
/// Subtrees from this level on have a row of their own: one row for 16 leaves, and as many again for all that is above. Those below
/// are made from their leaves.
const FIRST_LEVEL: u8 = 4;

/// What is stored of the tree beside its leaves and nodes.
#[derive(Clone, PartialEq, prost::Message)]
struct TreeRow {
    /// The right edge: `size (8) | the hash of each complete subtree, the largest first`.
    #[prost(bytes = "vec", tag = "1")]
    frontier: Vec<u8>,
    /// Time of the last entry, milliseconds since 1970.
    #[prost(uint64, tag = "2")]
    time_ms: u64,
}

/// Stored key of a leaf.
pub(crate) fn leaf_key(index: u64) -> Vec<u8> {
    [&[LEAVES][..], &index.to_be_bytes()].concat()
}

/// Stored key behind that of every leaf.
pub(crate) fn first_leaf_key() -> [u8; 1] {
    [LEAVES]
}

/// The entry in a stored leaf, as it was hashed.
pub(crate) fn leaf_of(value: &[u8]) -> Option<&[u8]> {
    value.strip_prefix(&[FORMAT])
}

fn node_key(node: NodeId) -> Vec<u8> {
    [&[NODES][..], &node.to_key()].concat()
}

/// Where a head is stored that is none of this log: behind the edge, which is written with every entry, as these are not.
fn accepted_key(number: u64) -> Vec<u8> {
    [&[TREE][..], &number.to_be_bytes()].concat()
}

/// The tree by its stored rows, wherever these are.
pub(crate) struct StoredTree<G>(pub(crate) G);

impl<G: Fn(&[u8]) -> Option<Vec<u8>>> Nodes for StoredTree<G> {
    fn hash(&self, node: NodeId) -> Option<Hash> {
        match node.level {
            0 => Some(leaf_hash(leaf_of(&(self.0)(&leaf_key(node.index))?)?)),
            level if level < FIRST_LEVEL => {
                let half = |index| self.hash(NodeId { level: level - 1, index });
                Some(node_hash(&half(node.index * 2)?, &half(node.index * 2 + 1)?))
            }
            _ => leaf_of(&(self.0)(&node_key(node))?)?.try_into().ok(),
        }
    }
}

/// The tree in memory.
#[derive(Debug)]
pub(crate) struct Ledger {
    frontier: Frontier,
    time_ms: u64,
    /// Heads that are none of this log, in the order in which operators said so.
    accepted: BTreeMap<u64, Vec<u8>>,
    accepted_heads: BTreeSet<Vec<u8>>,
    /// What the command that is being applied does beside what can be seen afterwards.
    noted: Vec<LogEntry>,
    /// Whether the row of the edge is to be written.
    changed: bool,
    /// Changes of other rows on their way to the store.
    fresh: Vec<Op>,
    /// All rows of leaves and nodes, where no store has them.
    kept: Option<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Ledger {
    /// An empty tree. With `keep` it remembers its leaves itself; otherwise whoever takes the changes does.
    pub(crate) fn new(keep: bool) -> Self {
        Self {
            frontier: Frontier::new(),
            time_ms: 0,
            accepted: BTreeMap::new(),
            accepted_heads: BTreeSet::new(),
            noted: Vec::new(),
            changed: false,
            fresh: Vec::new(),
            kept: keep.then(BTreeMap::new),
        }
    }

    pub(crate) const fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    pub(crate) const fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// Whether this head is known to be none of this log.
    pub(crate) fn accepts(&self, head: &[u8]) -> bool {
        self.accepted_heads.contains(head)
    }

    /// How many heads are.
    #[cfg(test)]
    pub(crate) fn accepted(&self) -> usize {
        assert_eq!(self.accepted.len(), self.accepted_heads.len());
        self.accepted.len()
    }

    /// Has the command that is being applied leave an entry: what it takes away, nobody sees afterwards.
    pub(crate) fn note(&mut self, entry: LogEntry) {
        self.noted.push(entry);
    }

    /// The entries that were noted since the last call.
    pub(crate) fn take_noted(&mut self) -> Vec<LogEntry> {
        std::mem::take(&mut self.noted)
    }

    /// Appends an entry of this time.
    pub(crate) fn append(&mut self, time_ms: u64, entry: Vec<u8>) {
        let mut rows = Vec::with_capacity(2);
        let index = self.frontier.append(leaf_hash(&entry), |node, hash| {
            if node.level >= FIRST_LEVEL {
                rows.push((node_key(node), [&[FORMAT][..], &hash].concat()));
            }
        });
        rows.push((leaf_key(index), [&[FORMAT][..], &entry].concat()));
        (self.time_ms, self.changed) = (time_ms, true);
        if let Some(kept) = &mut self.kept {
            kept.extend(rows.iter().cloned());
        }
        self.fresh.extend(rows.into_iter().map(|(key, value)| Op::Put(Table::State, key, value)));
    }

    /// Remembers heads as none of this log.
    pub(crate) fn accept(&mut self, heads: &[Vec<u8>]) {
        for head in heads {
            if !self.accepted_heads.insert(head.clone()) {
                continue;
            }
            let number = self.accepted.last_key_value().map_or(0, |(number, _)| *number) + 1;
            self.accepted.insert(number, head.clone());
            self.fresh.push(Op::Put(Table::State, accepted_key(number), [&[FORMAT][..], head].concat()));
            if self.accepted.len() > MAX_ACCEPTED
                && let Some((number, oldest)) = self.accepted.pop_first()
            {
                self.accepted_heads.remove(&oldest);
                self.fresh.push(Op::Del(Table::State, accepted_key(number)));
            }
        }
    }

    fn row(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let row = TreeRow { frontier: self.frontier.to_bytes(), time_ms: self.time_ms };
        let value = [&[FORMAT][..], &row.encode_to_vec()].concat();
        (self.frontier.size() > 0).then(|| (vec![TREE], value))
    }

    /// What changed since the last call, as storage operations.
    pub(crate) fn take_changes(&mut self, ops: &mut Vec<Op>) {
        ops.append(&mut self.fresh);
        if std::mem::take(&mut self.changed)
            && let Some((key, value)) = self.row()
        {
            ops.push(Op::Put(Table::State, key, value));
        }
    }

    /// Each row as stored; of leaves and nodes those that are kept here.
    pub(crate) fn each_row<E>(&self, each: &mut impl FnMut(Vec<u8>, Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        let kept = self.kept.iter().flatten().map(|(key, value)| (key.clone(), value.clone()));
        let accepted = self.accepted.iter().map(|(n, head)| (accepted_key(*n), [&[FORMAT][..], head].concat()));
        kept.chain(self.row()).chain(accepted).try_for_each(|(key, value)| each(key, value))
    }

    /// Whether there is anything in memory.
    pub(crate) fn has_rows(&self) -> bool {
        self.frontier.size() > 0 || !self.accepted.is_empty()
    }

    /// Takes in a stored row, `key` without the table's number.
    pub(crate) fn load(&mut self, tag: u8, key: &[u8], value: &[u8]) -> Result<(), RowError> {
        let damaged = || RowError::Damaged(tag);
        match value.first() {
            Some(&FORMAT) => {}
            Some(&other) => return Err(RowError::Format(other)),
            None => return Err(damaged()),
        }
        if tag != TREE {
            if let Some(kept) = &mut self.kept {
                kept.insert([&[tag][..], key].concat(), value.to_vec());
            }
            return Ok(());
        }
        let row = leaf_of(value).ok_or_else(damaged)?;
        if !key.is_empty() {
            let number = u64::from_be_bytes(key.try_into().map_err(|_| damaged())?);
            self.accepted_heads.insert(row.to_vec());
            self.accepted.insert(number, row.to_vec());
            return Ok(());
        }
        let row = TreeRow::decode(row).map_err(|_| damaged())?;
        self.frontier = Frontier::from_bytes(&row.frontier).ok_or_else(damaged)?;
        self.time_ms = row.time_ms;
        Ok(())
    }

    /// A row of those that are kept here.
    #[cfg(test)]
    pub(crate) fn kept(&mut self) -> &mut BTreeMap<Vec<u8>, Vec<u8>> {
        self.kept.get_or_insert_default()
    }
}
