//! The audit log as it is in the store: entries, and the tree above them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sallyport_ca::merkle::{Frontier, Hash, NodeId, Nodes};

use super::kv::{Kv, Result, Table};
use super::state_machine::Shared;
use super::view::Views;
use crate::state::{StoredTree, first_leaf_key, kept_key, kept_of, leaf_key, leaf_of};

/// Rows read together.
const PAGE: usize = 512;

/// Reads entries and proofs. All calls block.
#[derive(Clone)]
pub(crate) struct LedgerReader {
    kv: Arc<dyn Kv>,
    views: Arc<Views>,
    shared: Arc<Shared>,
    /// Entries whose rows are known to be in the store.
    written: Arc<AtomicU64>,
}

impl LedgerReader {
    pub(super) fn new(kv: Arc<dyn Kv>, views: Arc<Views>, shared: Arc<Shared>, written: Arc<AtomicU64>) -> Self {
        Self { kv, views, shared, written }
    }

    /// The tree as it is now, and the time of its last entry. Its rows can be read from then on.
    pub(crate) fn tree(&self) -> Result<(Frontier, u64)> {
        let tree = {
            let state = self.shared.read();
            (state.log_tree().clone(), state.log_time_ms())
        };
        // What the state shows may wait to be written; entries that were in the store once stay there.
        let size = tree.0.size();
        if self.written.load(Ordering::Acquire) < size {
            self.views.change().catch_up()?;
            self.written.fetch_max(size, Ordering::AcqRel);
        }
        Ok(tree)
    }

    /// A machine's certificate, DER, if it is kept.
    pub(crate) fn certificate(&self, serial: &str) -> Result<Option<Vec<u8>>> {
        let read = || self.kv.get(Table::State, &kept_key(serial));
        let mut value = read()?;
        if value.is_none() {
            // It may wait to be written.
            self.views.change().catch_up()?;
            value = read()?;
        }
        Ok(value.and_then(|value| kept_of(&value).map(<[u8]>::to_vec)))
    }

    /// Entries from an index on, as they were hashed: at most `most` of them, and as soon as there are `bytes` no more.
    pub(crate) fn entries(&self, from: u64, most: usize, bytes: usize) -> Result<Vec<Vec<u8>>> {
        let (mut next, mut entries, mut length) = (from, Vec::new(), 0);
        let mut end = first_leaf_key().to_vec();
        end.iter_mut().for_each(|tag| *tag += 1);
        while entries.len() < most && length < bytes {
            let rows = self.kv.scan(Table::State, &leaf_key(next), &end, PAGE.min(most - entries.len()))?;
            if rows.is_empty() {
                break;
            }
            for (key, value) in rows {
                let Some(entry) = leaf_of(&value).filter(|_| key == leaf_key(next) && length < bytes) else {
                    return Ok(entries);
                };
                length += entry.len();
                entries.push(entry.to_vec());
                next += 1;
            }
        }
        Ok(entries)
    }
}

impl Nodes for LedgerReader {
    fn hash(&self, node: NodeId) -> Option<Hash> {
        StoredTree(|key: &[u8]| self.kv.get(Table::State, key).ok().flatten()).hash(node)
    }
}
