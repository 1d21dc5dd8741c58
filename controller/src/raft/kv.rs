//! The storage engine as the log and the state see it: a few tables, atomic writes, and a barrier.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
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
    /// What the store says of itself: its schema, and the sums of the other tables.
    About = 4,
}

impl Table {
    /// The tables of the node, in the order of their numbers; [`Table::About`] is the store's own.
    pub const CONTENT: [Self; 3] = [Self::Meta, Self::Log, Self::State];
}

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Takes in the rows of a part of a table: keys and values, lent.
pub type Sink<'s> = Box<dyn FnMut(&[u8], &[u8]) + 's>;

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

/// The store cannot be used. The node must stop: nothing is repaired in place, and nothing is answered from what is left.
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
    /// The engine cannot read its own files, or what it read is not what was written.
    #[error("{path} is damaged: {what}")]
    Corrupt {
        /// Which folder or file.
        path: PathBuf,
        /// In the engine's words, or ours.
        what: String,
    },
    /// The folder was made by the other engine.
    #[error("{path} was made by the engine {found}, the configuration says {wanted}")]
    OtherEngine {
        /// Which folder.
        path: PathBuf,
        /// What made it.
        found: &'static str,
        /// What was to open it.
        wanted: &'static str,
    },
    /// The folder was made, or changed, by a newer version of this software.
    #[error("{path} has schema {found}, this version knows {known}")]
    Newer {
        /// Which folder.
        path: PathBuf,
        /// Schema of the folder.
        found: u32,
        /// Highest schema of this version.
        known: u32,
    },
    /// A call failed before: what was written since may or may not be there.
    #[error("{path} failed before and is not used any more: {cause}")]
    Failed {
        /// Which folder.
        path: PathBuf,
        /// What failed then.
        cause: String,
    },
}

impl KvError {
    /// The file or folder that the error is about.
    pub fn path(&self) -> &Path {
        match self {
            Self::Io { path, .. }
            | Self::Locked { path }
            | Self::Corrupt { path, .. }
            | Self::OtherEngine { path, .. }
            | Self::Newer { path, .. }
            | Self::Failed { path, .. } => path,
        }
    }

    /// What is wrong, without the path.
    pub fn cause(&self) -> String {
        match self {
            Self::Io { source, .. } => source.to_string(),
            Self::Locked { .. } => "in use by another process".into(),
            Self::Corrupt { what, .. } => format!("damaged: {what}"),
            Self::OtherEngine { found, wanted, .. } => {
                format!("made by the engine {found}, the configuration says {wanted}")
            }
            Self::Newer { found, known, .. } => format!("it has schema {found}, this version knows {known}"),
            Self::Failed { cause, .. } => cause.clone(),
        }
    }

    /// What an operator does next.
    pub fn remedy(&self) -> String {
        match self {
            Self::Io { source, .. } if is_full(source) => {
                "make room on that file system, then start again: nothing that was acknowledged is lost".into()
            }
            Self::Io { .. } => {
                "see that the folder belongs to this user and that the disk is well (dmesg), then start again".into()
            }
            Self::Locked { .. } => "stop that process, or give this one its own state folder".into(),
            Self::Corrupt { path, .. } => {
                format!("check the disk (dmesg); {}", replace_store(path))
            }
            Self::OtherEngine { found, .. } => format!(
                "set engine = \"{found}\" in [controller.storage], or convert the store while the controller is stopped \
                 (sallyport controller --convert-store)"
            ),
            Self::Newer { path, .. } => {
                format!("start the newer version again; to stay with this one: {}", replace_store(path))
            }
            Self::Failed { .. } => "check the disk and its free space (dmesg, df), then start again".into(),
        }
    }

    pub(super) fn panicked(path: &Path) -> Self {
        Self::Corrupt { path: path.into(), what: "the storage engine panicked".into() }
    }
}

/// How a store that is beyond use is given up.
fn replace_store(path: &Path) -> String {
    format!(
        "a member of a group is stopped, {} removed, and started: it learns everything from the others; \
         a single controller is restored from a backup",
        path.display()
    )
}

/// Whether there was no room.
fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Result of the engine.
pub type Result<T> = std::result::Result<T, KvError>;

/// An ordered key-value store. All calls block.
pub trait Kv: Send + Sync + 'static {
    /// The value of a key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>>;
    /// Rows from `from`, inclusive, to `to`, exclusive, in order, at most `max`.
    fn scan(&self, table: Table, from: &[u8], to: &[u8], max: usize) -> Result<Vec<Row>>;
    /// Every row of a table in order; as they are read, the state need not be in memory twice.
    fn each(&self, table: Table, row: &mut dyn FnMut(Row)) -> Result<()> {
        let mut from = Vec::new();
        loop {
            let rows = self.scan(table, &from, &KEY_END, EACH)?;
            let more = rows.len() == EACH;
            for (key, value) in rows {
                from.clone_from(&key);
                row((key, value));
            }
            if !more {
                return Ok(());
            }
            from.push(0);
        }
    }
    /// Lends each row from `from`, inclusive, to `to`, exclusive, in order.
    fn each_in(&self, table: Table, from: &[u8], to: &[u8], row: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        let mut from = from.to_vec();
        loop {
            let rows = self.scan(table, &from, to, EACH)?;
            for (key, value) in &rows {
                row(key, value);
            }
            let Some((last, _)) = rows.last().filter(|_| rows.len() == EACH) else { return Ok(()) };
            from.clone_from(last);
            from.push(0);
        }
    }
    /// Every row of a table, in parts that end before each of these keys and behind the last one: those of a part in order, the parts
    /// beside each other where that is faster. `sink` is asked for what takes in a part; where there is none, the part need not be read.
    fn each_part<'s>(
        &self,
        table: Table,
        ends: &[Vec<u8>],
        sink: &(dyn Fn(usize) -> Option<Sink<'s>> + Sync),
    ) -> Result<()> {
        for (part, (from, to)) in parts(ends).enumerate() {
            if let Some(mut sink) = sink(part) {
                self.each_in(table, from, to, &mut *sink)?;
            }
        }
        Ok(())
    }
    /// Checks some of the rows that [`Self::each_part`] left out, beside whoever reads and writes: whether there are more of them.
    fn check_more(&self) -> Result<bool> {
        Ok(false)
    }
    /// The row with the greatest key.
    fn last(&self, table: Table) -> Result<Option<Row>>;
    /// Applies all changes or none, over all tables; visible on return, not yet durable. A later change of the same key
    /// wins over an earlier one.
    fn write(&self, ops: Vec<Op>) -> Result<()>;
    /// Returns when everything written before is on stable storage.
    fn sync(&self) -> Result<()>;
    /// How much one write may hold and still be all or nothing, whatever happens to the machine.
    fn room(&self) -> Room {
        Room { rows: usize::MAX, bytes: usize::MAX }
    }
    /// Whether a write now is known to wait for nothing.
    fn is_idle(&self) -> bool {
        false
    }
    /// These changes will be written later: a simulation wants to know at once.
    #[cfg(test)]
    fn behind(&self, _ops: &[Op]) {}
}

/// Size of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Rows.
    pub rows: usize,
    /// Length of their keys and values, bytes.
    pub bytes: usize,
}

/// Greater than every key that is in use (keys start with a tag far below it).
pub const KEY_END: [u8; 33] = [0xff; 33];

/// Rows that [`Kv::each`] reads at a time.
const EACH: usize = 512;

/// From where to where the parts of a table go that end before these keys.
pub(super) fn parts(ends: &[Vec<u8>]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let begins = std::iter::once(&[][..]).chain(ends.iter().map(Vec::as_slice));
    begins.zip(ends.iter().map(Vec::as_slice).chain([KEY_END.as_slice()]))
}

/// Runs a call into an engine. A panic is an error: sled panics where it finds its own invariants broken, and a panic in
/// openraft's state machine task would leave a node that seems to live and answers nobody.
pub(super) fn caught<T>(path: &Path, call: impl FnOnce() -> Result<T>) -> Result<T> {
    // Nothing is used after a panic: the error stops the node.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| Err(KvError::panicked(path)))
}

/// A store whose panics are errors.
pub struct CatchPanics(pub Arc<dyn Kv>);

impl CatchPanics {
    fn caught<T>(&self, call: impl FnOnce(&dyn Kv) -> Result<T>) -> Result<T> {
        caught(Path::new("store"), || call(&*self.0))
    }
}

impl Kv for CatchPanics {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.caught(|kv| kv.get(table, key))
    }
    fn scan(&self, table: Table, from: &[u8], to: &[u8], max: usize) -> Result<Vec<Row>> {
        self.caught(|kv| kv.scan(table, from, to, max))
    }
    fn each(&self, table: Table, row: &mut dyn FnMut(Row)) -> Result<()> {
        self.caught(|kv| kv.each(table, row))
    }
    fn each_in(&self, table: Table, from: &[u8], to: &[u8], row: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        self.caught(|kv| kv.each_in(table, from, to, row))
    }
    fn each_part<'s>(
        &self,
        table: Table,
        ends: &[Vec<u8>],
        sink: &(dyn Fn(usize) -> Option<Sink<'s>> + Sync),
    ) -> Result<()> {
        self.caught(|kv| kv.each_part(table, ends, sink))
    }
    fn check_more(&self) -> Result<bool> {
        self.caught(|kv| kv.check_more())
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
    fn room(&self) -> Room {
        self.0.room()
    }
    fn is_idle(&self) -> bool {
        self.0.is_idle()
    }
}

#[cfg(test)]
#[path = "kv/suite.rs"]
pub(super) mod suite;
