//! Tables of the state: ordered maps that remember which rows changed, so that a change costs what it touches.

mod packs;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeBounds;

use prost::Message;

use crate::raft::kv::{Op, Table};

pub use packs::Numbered;
pub(crate) use packs::PACKS_LEVEL;

/// First byte of every stored row: the format of what follows (prost).
const FORMAT: u8 = 1;

/// What a row is found by.
pub trait Key: Ord + Clone {
    /// Bytes in the same order as the keys.
    fn to_bytes(&self) -> Vec<u8>;
    /// The reverse.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

impl Key for String {
    fn to_bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::from_utf8(bytes.to_vec()).ok()
    }
}

impl Key for u64 {
    fn to_bytes(&self) -> Vec<u8> {
        self.to_be_bytes().to_vec()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self::from_be_bytes(bytes.try_into().ok()?))
    }
}

impl Key for u32 {
    fn to_bytes(&self) -> Vec<u8> {
        self.to_be_bytes().to_vec()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self::from_be_bytes(bytes.try_into().ok()?))
    }
}

impl Key for Vec<u8> {
    fn to_bytes(&self) -> Vec<u8> {
        self.clone()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(bytes.to_vec())
    }
}

/// A stored row that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// Written by another version.
    #[error("a row has format {0}, this version reads {FORMAT}: start the newer version again")]
    Format(u8),
    /// No such table here.
    #[error("a row belongs to table {0}, which this version does not know: start the newer version again")]
    Table(u8),
    /// Not what it should be.
    #[error("a row of table {0} is damaged")]
    Damaged(u8),
}

/// One table.
#[derive(Clone, Debug)]
pub struct Rows<K, V> {
    tag: u8,
    map: BTreeMap<K, V>,
    dirty: BTreeSet<K>,
    /// Rows that are being loaded, in parts: a map that is made of all at once, in their order, takes half the memory and less time.
    loading: Vec<Vec<(K, V)>>,
}

impl<K: Key, V: Message + Default> Rows<K, V> {
    /// An empty table. The tag is part of the stored key: never reuse one.
    pub(super) fn new(tag: u8) -> Self {
        Self { tag, map: BTreeMap::new(), dirty: BTreeSet::new(), loading: Vec::new() }
    }

    /// One row.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key)
    }

    /// Whether there is such a row.
    pub fn contains(&self, key: &K) -> bool {
        self.map.contains_key(key)
    }

    /// All rows in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.map.iter()
    }

    /// Some rows in order.
    pub fn range(&self, range: impl RangeBounds<K>) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.map.range(range)
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        self.dirty.insert(key.clone());
        self.map.insert(key, value);
    }

    /// A row to change; it counts as changed.
    pub(super) fn change(&mut self, key: &K) -> Option<&mut V> {
        let row = self.map.get_mut(key)?;
        self.dirty.insert(key.clone());
        Some(row)
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let row = self.map.remove(key)?;
        self.dirty.insert(key.clone());
        Some(row)
    }

    pub(super) fn pop_first(&mut self) -> Option<(K, V)> {
        let (key, row) = self.map.pop_first()?;
        self.dirty.insert(key.clone());
        Some((key, row))
    }

    fn stored_key(&self, key: &K) -> Vec<u8> {
        let mut bytes = vec![self.tag];
        bytes.extend(key.to_bytes());
        bytes
    }

    fn stored_value(row: &V) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(row.encoded_len() + 1);
        bytes.push(FORMAT);
        // Encoding into a vector cannot run out of room.
        let _ = row.encode(&mut bytes);
        bytes
    }

    /// Changes since the last call, as storage operations.
    pub(super) fn take_changes(&mut self, ops: &mut Vec<Op>) {
        for key in std::mem::take(&mut self.dirty) {
            ops.push(match self.map.get(&key) {
                Some(row) => Op::Put(Table::State, self.stored_key(&key), Self::stored_value(row)),
                None => Op::Del(Table::State, self.stored_key(&key)),
            });
        }
    }

    /// Each row as stored.
    pub(super) fn each_row<E>(&self, each: &mut impl FnMut(Vec<u8>, Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        self.map.iter().try_for_each(|(key, row)| each(self.stored_key(key), Self::stored_value(row)))
    }

    /// Takes in a stored row without counting it as changed. It is there once all are ([`Self::loaded`]).
    pub(super) fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), RowError> {
        let damaged = || RowError::Damaged(self.tag);
        let row = match value.split_first() {
            Some((&FORMAT, rest)) => V::decode(rest).map_err(|_| damaged())?,
            Some((&other, _)) => return Err(RowError::Format(other)),
            None => return Err(damaged()),
        };
        let key = K::from_bytes(key).ok_or_else(damaged)?;
        self.take_in(key, row);
        Ok(())
    }

    fn take_in(&mut self, key: K, row: V) {
        match self.loading.last_mut() {
            Some(rows) => rows.push((key, row)),
            None => self.loading.push(vec![(key, row)]),
        }
    }

    /// Takes in what another one has loaded.
    pub(super) fn absorb(&mut self, mut other: Self) {
        self.loading.append(&mut other.loading);
    }

    /// All rows have been loaded.
    pub(super) fn loaded(&mut self) {
        let mut all = Vec::with_capacity(self.loading.iter().map(Vec::len).sum());
        for rows in std::mem::take(&mut self.loading) {
            all.extend(rows);
        }
        // Sorts them, if they are not in order.
        self.map = all.into_iter().collect();
    }
}
