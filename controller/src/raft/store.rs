//! The folder of a store: which engine made it, who holds it, what its rows are like.
//!
//! Beside the engine's own files there are
//!
//! - `ENGINE`: the engine's name, put on stable storage before the engine makes its first file; whoever has the store open
//!   holds a lock on it;
//! - `SYNCED`: see [`checked`](super::checked).
//!
//! A folder of sled's files without `ENGINE` is from before there was a choice; it gets checksums, totals and a schema when
//! it is opened, in one write.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::checked::{Checked, Totals, Witness};
use super::convert;
use super::kv::{Kv, KvError, Op, Result, Room, Row, Sink, Table, caught};
use super::redb_kv::RedbKv;
use super::schema::{self, MIGRATIONS, Migration};
use super::sled_kv::SledKv;
use crate::config::Engine;
use crate::error::Error;

/// Opens the store in the folder `path`, making it when there is none. What it returns checks every row that it reads, and
/// does nothing more after a first failure.
pub fn open(path: &Path, engine: Engine) -> Result<Arc<dyn Kv>> {
    Ok(Arc::new(Store::open(path, engine)?))
}

/// An open store.
pub(super) struct Store {
    // In this order: the lock goes last.
    kv: Checked,
    held: Marker,
}

impl Store {
    /// See [`open`].
    pub(super) fn open(path: &Path, engine: Engine) -> Result<Self> {
        Self::open_with(path, engine, MIGRATIONS)
    }

    fn open_with(path: &Path, engine: Engine, migrations: &[Migration]) -> Result<Self> {
        convert::finish(path)?;
        fs::create_dir_all(path).map_err(io_at(path))?;
        let marker = Marker::hold(path)?;
        convert::clear(path)?;
        let made = marker.read(path)?;
        let found = match made {
            Made::Now => engine,
            Made::Before => Engine::Sled,
            Made::By(found) => found,
        };
        if found != engine {
            return Err(KvError::OtherEngine { path: path.into(), found: found.name(), wanted: engine.name() });
        }
        if made == Made::Now {
            marker.write(path, engine)?;
        }
        let witness = Witness::open(path)?;
        sync_dir(path)?;
        sync_dir(path.parent().unwrap_or(path))?;
        let kv = caught(path, || {
            let raw = open_engine(path, engine)?;
            if let Some(found) = schema::found(&*raw, path)? {
                schema::refuse_newer(found, path, migrations)?;
            } else {
                if witness.last() > 0 || (made != Made::Before && !schema::is_empty(&*raw)?) {
                    let what = "the rows in which the store describes itself are gone".into();
                    return Err(KvError::Corrupt { path: path.into(), what });
                }
                schema::begin(&*raw, migrations)?;
            }
            let kv = Checked::open(raw, path, witness)?;
            schema::migrate(&kv, path, migrations)?;
            Ok(kv)
        })?;
        if made == Made::Before {
            marker.write(path, engine)?;
        }
        Ok(Self { kv, held: marker })
    }

    /// Closes the engine; the folder is still ours.
    pub(super) fn close(self) -> Marker {
        self.held
    }

    /// What the store must hold.
    pub(super) fn totals(&self) -> Totals {
        self.kv.totals()
    }

    /// Reads a whole table against its total.
    pub(super) fn verify(&self, table: Table) -> Result<()> {
        self.kv.verify(table)
    }
}

impl Kv for Store {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.kv.get(table, key)
    }
    fn scan(&self, table: Table, from: &[u8], to: &[u8], max: usize) -> Result<Vec<Row>> {
        self.kv.scan(table, from, to, max)
    }
    fn each(&self, table: Table, row: &mut dyn FnMut(Row)) -> Result<()> {
        self.kv.each(table, row)
    }
    fn each_in(&self, table: Table, from: &[u8], to: &[u8], row: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        self.kv.each_in(table, from, to, row)
    }
    fn each_part<'s>(
        &self,
        table: Table,
        ends: &[Vec<u8>],
        sink: &(dyn Fn(usize) -> Option<Sink<'s>> + Sync),
    ) -> Result<()> {
        self.kv.each_part(table, ends, sink)
    }
    fn check_more(&self) -> Result<bool> {
        self.kv.check_more()
    }
    fn last(&self, table: Table) -> Result<Option<Row>> {
        self.kv.last(table)
    }
    fn write(&self, ops: Vec<Op>) -> Result<()> {
        self.kv.write(ops)
    }
    fn sync(&self) -> Result<()> {
        self.kv.sync()
    }
    fn room(&self) -> Room {
        self.kv.room()
    }
    fn is_idle(&self) -> bool {
        self.kv.is_idle()
    }
}

fn open_engine(path: &Path, engine: Engine) -> Result<Arc<dyn Kv>> {
    Ok(match engine {
        Engine::Sled => Arc::new(SledKv::open(path)?),
        Engine::Redb => Arc::new(RedbKv::open(path)?),
    })
}

/// The engine that made the store in a folder; `None` where there is none.
pub(super) fn engine_of(path: &Path) -> Result<Option<Engine>> {
    if !path.is_dir() {
        return Ok(None);
    }
    match Marker::hold(path)?.read(path)? {
        Made::Now => Ok(None),
        Made::Before => Ok(Some(Engine::Sled)),
        Made::By(engine) => Ok(Some(engine)),
    }
}

/// Who made a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    /// Nobody yet.
    Now,
    /// sled, when there was no `ENGINE`.
    Before,
    /// This engine.
    By(Engine),
}

/// The file `ENGINE`, locked.
pub(super) struct Marker(File);

impl Marker {
    const FILE: &'static str = "ENGINE";

    fn hold(path: &Path) -> Result<Self> {
        let name = path.join(Self::FILE);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&name);
        let file = file.map_err(io_at(&name))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(KvError::Locked { path: path.into() }),
            Err(TryLockError::Error(e)) => Err(io_at(&name)(e)),
        }
    }

    fn read(&self, path: &Path) -> Result<Made> {
        let name = path.join(Self::FILE);
        let mut content = [0; 64];
        let length = self.0.read_at(&mut content, 0).map_err(io_at(&name))?;
        let text = content.get(..length).unwrap_or_default();
        for engine in Engine::ALL {
            if text == line(engine).as_bytes() {
                return Ok(Made::By(engine));
            }
        }
        let (sled, redb) = (SledKv::is_in(path), RedbKv::is_in(path));
        match (text.is_empty(), sled, redb) {
            // No engine makes a file before the name is on the disk: this one was torn by a crash at the very first start.
            (_, false, false) => Ok(Made::Now),
            (true, true, false) => Ok(Made::Before),
            _ => Err(KvError::Corrupt { path: path.into(), what: format!("{} names no engine", Self::FILE) }),
        }
    }

    fn write(&self, path: &Path, engine: Engine) -> Result<()> {
        let written = self.0.set_len(0).and_then(|()| self.0.write_all_at(line(engine).as_bytes(), 0));
        written.and_then(|()| self.0.sync_all()).map_err(io_at(&path.join(Self::FILE)))
    }
}

fn line(engine: Engine) -> String {
    format!("{}\n", engine.name())
}

pub(super) fn sync_dir(path: &Path) -> Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path).and_then(|f| f.sync_all()).map_err(io_at(path))
}

pub(super) fn io_at(path: &Path) -> impl FnOnce(io::Error) -> KvError + '_ {
    move |source| KvError::Io { path: path.into(), source }
}

impl From<KvError> for Error {
    fn from(e: KvError) -> Self {
        match e {
            KvError::Locked { path } => Self::StateInUse { path },
            other => Self::File { path: other.path().into(), cause: other.cause(), remedy: other.remedy() },
        }
    }
}

#[cfg(test)]
#[path = "store/tests.rs"]
mod tests;
