//! The storage engine as the log and the state see it: a few tables, atomic writes, and a barrier.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

/// What a row belongs to. The number is part of the stored key: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// Vote, purged and committed log ids, last applied log id, membership.
    Meta = 1,
    /// Raft log entries by index.
    Log = 2,
    /// Rows of the state machine.
    State = 3,
}

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// One change.
#[derive(Clone, PartialEq, Eq)]
pub enum Op {
    /// Sets a value.
    Put(Table, Vec<u8>, Vec<u8>),
    /// Removes a key; one that is absent is no error.
    Del(Table, Vec<u8>),
    /// Removes all keys from the first, inclusive, to the second, exclusive.
    DelRange(Table, Vec<u8>, Vec<u8>),
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(table, key, value) => write!(f, "Put({table:?}, {key:02x?}, {} bytes)", value.len()),
            Self::Del(table, key) => write!(f, "Del({table:?}, {key:02x?})"),
            Self::DelRange(table, from, to) => write!(f, "DelRange({table:?}, {from:02x?}, {to:02x?})"),
        }
    }
}

/// The engine failed. The node must stop: see `dependencies` notes on sled, guard 5.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// The operating system refused a file.
    #[error("{path}: {source}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Another process holds the store.
    #[error("{path} is in use by another process")]
    Locked {
        /// Which folder.
        path: PathBuf,
    },
    /// The engine cannot read its own files.
    #[error("{path} is damaged: {what}")]
    Corrupt {
        /// Which folder.
        path: PathBuf,
        /// In the engine's words.
        what: String,
    },
}

impl KvError {
    fn panicked() -> Self {
        let source = io::Error::other("the storage engine panicked");
        Self::Io { path: PathBuf::from("store"), source }
    }
}

/// Result of the engine.
pub type Result<T> = std::result::Result<T, KvError>;

/// An ordered key-value store. All calls block.
pub trait Kv: Send + Sync + 'static {
    /// The value of a key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>>;
    /// Rows from `from`, inclusive, to `to`, exclusive, in order, at most `max`.
    fn scan(&self, table: Table, from: &[u8], to: &[u8], max: usize) -> Result<Vec<Row>>;
    /// The row with the greatest key.
    fn last(&self, table: Table) -> Result<Option<Row>>;
    /// Applies all changes or none, over all tables; visible on return, not yet durable. A later change of the same key
    /// wins over an earlier one.
    fn write(&self, ops: Vec<Op>) -> Result<()>;
    /// Returns when everything written before is on stable storage.
    fn sync(&self) -> Result<()>;
}

/// Greater than every key that is in use (keys start with a tag far below it).
pub const KEY_END: [u8; 33] = [0xff; 33];

/// An engine whose panics are errors. sled panics where it finds its own invariants broken; a panic in openraft's
/// state machine task would leave a node that seems to live and answers nobody.
pub struct CatchPanics(pub Arc<dyn Kv>);

impl CatchPanics {
    fn caught<T>(&self, call: impl FnOnce(&dyn Kv) -> Result<T>) -> Result<T> {
        // Nothing is used after a panic: the error stops the node.
        catch_unwind(AssertUnwindSafe(|| call(&*self.0))).unwrap_or_else(|_| Err(KvError::panicked()))
    }
}

impl Kv for CatchPanics {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.caught(|kv| kv.get(table, key))
    }
    fn scan(&self, table: Table, from: &[u8], to: &[u8], max: usize) -> Result<Vec<Row>> {
        self.caught(|kv| kv.scan(table, from, to, max))
    }
    fn last(&self, table: Table) -> Result<Option<Row>> {
        self.caught(|kv| kv.last(table))
    }
    fn write(&self, ops: Vec<Op>) -> Result<()> {
        self.caught(|kv| kv.write(ops))
    }
    fn sync(&self) -> Result<()> {
        self.caught(|kv| kv.sync())
    }
}
