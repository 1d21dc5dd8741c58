//! [`Kv`] over redb: one file, copy-on-write B-trees, each commit checked by its checksums.
//!
//! [`Kv::write`] is a transaction that is not waited for, [`Kv::sync`] an empty one that is: it makes the earlier ones
//! durable with it. redb lets one transaction write at a time, so a write waits while a sync is under way.
//!
//! A new database is made under another name and renamed when it is whole: redb refuses a file that a crash left half made.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use redb::{
    Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition,
    WriteTransaction,
};

use super::kv::{Kv, KvError, Op, Result, Row, Table};
use super::read_ahead::read_ahead;

/// Memory for redb's page cache, bytes. The state itself is in memory anyway; the log is read only by lagging peers.
const CACHE_BYTES: usize = 64 * 1024 * 1024;
/// The database in the folder.
const FILE: &str = "db.redb";
/// The database while it is made.
const FILE_NEW: &str = "db.redb.new";

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// The name is part of the store: never change one.
const fn definition(table: Table) -> Definition {
    TableDefinition::new(match table {
        Table::Meta => "meta",
        Table::Log => "log",
        Table::State => "state",
        Table::About => "about",
    })
}

/// A redb database in a folder.
pub struct RedbKv {
    path: PathBuf,
    db: Database,
}

impl RedbKv {
    /// Opens the database in the folder `path`, making it when there is none.
    pub fn open(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(io_at(path))?;
        let file = path.join(FILE);
        if !file.try_exists().map_err(io_at(&file))? {
            create(path, &file)?;
        }
        read_ahead(&file);
        let db = builder().open(&file).map_err(|e| database_error(path, e))?;
        sync_file(path)?;
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            sync_file(parent)?;
        }
        Ok(Self { path: path.into(), db })
    }

    /// Whether a folder holds a database of this engine.
    pub(super) fn is_in(path: &Path) -> bool {
        path.join(FILE).exists()
    }

    fn read(&self) -> Result<ReadTransaction> {
        self.db.begin_read().map_err(|e| self.engine(e))
    }

    fn begin(&self, durability: Durability) -> Result<WriteTransaction> {
        let mut transaction = self.db.begin_write().map_err(|e| self.engine(e))?;
        transaction.set_durability(durability).map_err(|e| self.engine(e))?;
        Ok(transaction)
    }

    fn engine(&self, e: impl Into<redb::Error>) -> KvError {
        engine_error(&self.path, e.into())
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    // A plain open trusts the file after a clean shutdown, and may panic later where it should not have.
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

/// Makes an empty database with all tables, whole or not at all.
fn create(path: &Path, file: &Path) -> Result<()> {
    let new = path.join(FILE_NEW);
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_at(&new)(e)),
        _ => {}
    }
    let db = builder().create(&new).map_err(|e| database_error(path, e))?;
    let made = || -> std::result::Result<(), redb::Error> {
        let transaction = db.begin_write()?;
        for table in Table::CONTENT.into_iter().chain([Table::About]) {
            transaction.open_table(definition(table))?;
        }
        Ok(transaction.commit()?)
    };
    made().map_err(|e| engine_error(path, e))?;
    db.close().map_err(|e| database_error(path, e))?;
    sync_file(&new)?;
    fs::rename(&new, file).map_err(io_at(file))?;
    sync_file(path)
}

impl Kv for RedbKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let transaction = self.read()?;
        let table = transaction.open_table(definition(table)).map_err(|e| self.engine(e))?;
        let value = table.get(key).map_err(|e| self.engine(e))?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], max: usize) -> Result<Vec<Row>> {
        if from >= to {
            return Ok(Vec::new());
        }
        let transaction = self.read()?;
        let table = transaction.open_table(definition(table)).map_err(|e| self.engine(e))?;
        let mut rows = Vec::new();
        for row in table.range::<&[u8]>(from..to).map_err(|e| self.engine(e))?.take(max) {
            let (key, value) = row.map_err(|e| self.engine(e))?;
            rows.push((key.value().to_vec(), value.value().to_vec()));
        }
        Ok(rows)
    }

    fn each(&self, table: Table, row: &mut dyn FnMut(Row)) -> Result<()> {
        let transaction = self.read()?;
        let table = transaction.open_table(definition(table)).map_err(|e| self.engine(e))?;
        for found in table.iter().map_err(|e| self.engine(e))? {
            let (key, value) = found.map_err(|e| self.engine(e))?;
            row((key.value().to_vec(), value.value().to_vec()));
        }
        Ok(())
    }

    fn each_in(&self, table: Table, from: &[u8], to: &[u8], row: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        if from >= to {
            return Ok(());
        }
        let transaction = self.read()?;
        let table = transaction.open_table(definition(table)).map_err(|e| self.engine(e))?;
        for found in table.range::<&[u8]>(from..to).map_err(|e| self.engine(e))? {
            let (key, value) = found.map_err(|e| self.engine(e))?;
            row(key.value(), value.value());
        }
        Ok(())
    }

    fn last(&self, table: Table) -> Result<Option<Row>> {
        let transaction = self.read()?;
        let table = transaction.open_table(definition(table)).map_err(|e| self.engine(e))?;
        let last = table.last().map_err(|e| self.engine(e))?;
        Ok(last.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())))
    }

    fn write(&self, ops: Vec<Op>) -> Result<()> {
        let transaction = self.begin(Durability::None)?;
        for op in ops {
            let table = match &op {
                Op::Put(table, ..) | Op::Del(table, ..) | Op::DelRange(table, ..) => *table,
            };
            let mut rows = transaction.open_table(definition(table)).map_err(|e| self.engine(e))?;
            match op {
                Op::Put(_, key, value) => {
                    rows.insert(key.as_slice(), value.as_slice()).map_err(|e| self.engine(e))?;
                }
                Op::Del(_, key) => {
                    rows.remove(key.as_slice()).map_err(|e| self.engine(e))?;
                }
                Op::DelRange(_, from, to) if from < to => {
                    rows.retain_in::<&[u8], _>(from.as_slice()..to.as_slice(), |_, _| false)
                        .map_err(|e| self.engine(e))?;
                }
                Op::DelRange(..) => {}
            }
        }
        transaction.commit().map_err(|e| self.engine(e))
    }

    fn sync(&self) -> Result<()> {
        self.begin(Durability::Immediate)?.commit().map_err(|e| self.engine(e))
    }
}

fn sync_file(path: &Path) -> Result<()> {
    File::open(path).and_then(|f| f.sync_all()).map_err(io_at(path))
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> KvError + '_ {
    move |source| KvError::Io { path: path.into(), source }
}

fn database_error(path: &Path, e: DatabaseError) -> KvError {
    match e {
        DatabaseError::DatabaseAlreadyOpen => KvError::Locked { path: path.into() },
        other => engine_error(path, other.into()),
    }
}

fn engine_error(path: &Path, e: redb::Error) -> KvError {
    match e {
        // This is how redb says that a file is none of its own.
        redb::Error::Io(e) if e.kind() == io::ErrorKind::InvalidData => {
            KvError::Corrupt { path: path.into(), what: format!("{FILE}: {e}") }
        }
        redb::Error::Io(source) => KvError::Io { path: path.join(FILE), source },
        redb::Error::PreviousIo => {
            KvError::Failed { path: path.into(), cause: "an earlier read or write of the disk failed".into() }
        }
        other => KvError::Corrupt { path: path.into(), what: format!("{FILE}: {other}") },
    }
}

#[cfg(test)]
#[path = "redb_kv/tests.rs"]
mod tests;
