//! [`Kv`] over sled 0.34, with the guards without which sled loses data.
//!
//! 1. `flush` is no barrier: after it we `fdatasync` the file `db` through a handle of our own.
//! 2. Large leaves become files of their own that sled never syncs: values are cut into chunks so that none arises, and
//!    `sync` syncs new ones all the same.
//! 3. A crash while sled writes its start-up snapshot leaves `snap.*.generating`, at which every later open fails: it is
//!    deleted before opening. Nothing is lost, the log it was made from is still there.
//! 4. `conf` is written once, in two pieces, and never synced; one that is torn is never forgiven. It is made in another
//!    folder, synced, and renamed into its place before sled opens the database for the first time.
//! 5. sled takes what it has flushed for durable, writes so into the header of the next segment of its log, and believes that
//!    header at the next start: a page that the disk had not written by then is skipped, and batches are torn. So sled
//!    flushes only when we do (no thread of its own), nothing is written between a flush and the barrier behind it, and a
//!    barrier comes before the log has grown by a segment. What an earlier process wrote is synced before sled looks at it.
//! 6. A store that fails to open, read or write is not repaired here. The error goes up and the process stops.
//!
//! Everything is in one sled tree, the table's number first in the key: a batch over one tree is atomic, and needs no
//! transaction closures that may run twice.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use super::kv::{Kv, KvError, Op, Result, Room, Row, Table};
use super::read_ahead::read_ahead;

/// Longest value that is stored in one piece. A leaf holds up to 16 values and moves to a file of its own above 128 KiB.
const INLINE_MAX: usize = 4_000;
/// Length of a segment of sled's log in a new database, bytes; a power of two. An old one keeps its own. The longer, the more rows of the
/// state may wait for each other (guard 5, [`Kv::room`]); a buffer of sled's is as long.
const SEGMENT: usize = 8 * 1024 * 1024;
/// The shortest that there is: that of databases made before.
const OLD_SEGMENT: usize = 2 * 1024 * 1024;
/// This part of what may be written without a barrier is for the rows' own bytes, the rest for what each adds.
const OWN_BYTES: u64 = 4;
/// What one change adds to the log beyond its own bytes, on average at most: now and then a leaf is written anew, and one of
/// another segment with it.
const CHANGE_BYTES: u64 = 8 * 1024;
/// What waits to be written together goes without a barrier before it and another behind it.
const _: () = assert!(
    room(OLD_SEGMENT as u64 / 2).rows >= super::state_machine::PAGE
        && room(SEGMENT as u64 / 2).rows >= super::view::MAX_BEHIND,
    "a write of the state is longer than sled may make it"
);
/// Memory for sled's page cache, bytes. The state itself is in memory anyway; the log is read only by lagging peers.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// sled's configuration in its folder.
const CONF: &str = "conf";
/// A database that is made for the sake of its configuration.
const MAKING: &str = "making";
/// First byte of a stored value: the value follows.
const INLINE: u8 = 0;
/// First byte of a stored value: the number of chunks follows, 4 bytes big-endian.
const CHUNKED: u8 = 1;
/// First byte of the keys of chunks; no table has this number.
const CHUNK_TAG: u8 = 0xfe;

/// A sled database in a folder.
pub struct SledKv {
    path: PathBuf,
    db: sled::Db,
    /// The same inode that sled writes: what `sync` syncs.
    db_file: File,
    /// Chunks and their head are read and written together.
    gate: RwLock<()>,
    /// Bytes that the log may have grown by since the last barrier; held while writing and by the barrier.
    unsynced: Mutex<u64>,
    /// A barrier comes before it is more.
    unsynced_max: u64,
    /// Number above those of all files in `blobs` that are synced.
    synced_blobs: Mutex<u64>,
    /// Number of chunks of each value that has any, by its key: so nobody looks what is stored before he writes.
    chunked: Mutex<HashMap<Vec<u8>, u32>>,
}

impl SledKv {
    /// Opens the database in `path`, making it when there is none.
    pub fn open(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(io_at(path))?;
        remove_unfinished_snapshots(path)?;
        make_conf(path)?;
        let segment = segment_of(path)?;
        sync_leftovers(path)?;
        read_ahead(&path.join("db"));
        let config = config().path(path).segment_size(segment).cache_capacity(CACHE_BYTES);
        let db = config.open().map_err(|e| engine_error(path, e))?;
        let file = path.join("db");
        let db_file = File::open(&file).map_err(io_at(&file))?;
        let this = Self {
            path: path.into(),
            db,
            db_file,
            gate: RwLock::new(()),
            unsynced: Mutex::new(0),
            unsynced_max: segment as u64 / 2,
            synced_blobs: Mutex::new(0),
            chunked: Mutex::default(),
        };
        this.find_chunked()?;
        this.sync_creation()?;
        Ok(this)
    }

    /// Whether a folder holds a database of this engine.
    pub(super) fn is_in(path: &Path) -> bool {
        path.join("db").exists() || path.join(CONF).exists()
    }

    /// Names and first contents. Cheap enough to do at each start.
    fn sync_creation(&self) -> Result<()> {
        let conf = self.path.join(CONF);
        File::open(&conf).and_then(|f| f.sync_all()).map_err(io_at(&conf))?;
        self.db_file.sync_all().map_err(io_at(&self.path.join("db")))?;
        let blobs = self.blobs();
        if blobs.is_dir() {
            File::open(&blobs).and_then(|f| f.sync_all()).map_err(io_at(&blobs))?;
        }
        File::open(&self.path).and_then(|f| f.sync_all()).map_err(io_at(&self.path))?;
        if let Some(parent) = self.path.parent().filter(|p| !p.as_os_str().is_empty()) {
            File::open(parent).and_then(|f| f.sync_all()).map_err(io_at(parent))?;
        }
        Ok(())
    }

    fn blobs(&self) -> PathBuf {
        self.path.join("blobs")
    }

    /// Guard 2, second half: blob names are sled's log sequence numbers, so a greater number is a newer file.
    fn sync_blobs(&self) -> Result<()> {
        let dir = self.blobs();
        let mut synced = self.synced_blobs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut top = 0;
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(io_at(&dir)(e)),
        };
        for entry in entries {
            let entry = entry.map_err(io_at(&dir))?;
            let Some(number) = entry.file_name().to_str().and_then(|n| n.parse::<u64>().ok()) else { continue };
            if number >= *synced {
                match File::open(entry.path()) {
                    Ok(file) => file.sync_all().map_err(io_at(&entry.path()))?,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {} // collected meanwhile
                    Err(e) => return Err(io_at(&entry.path())(e)),
                }
                top = top.max(number + 1);
            }
        }
        if top > *synced {
            File::open(&dir).and_then(|f| f.sync_all()).map_err(io_at(&dir))?;
            *synced = top;
        }
        Ok(())
    }

    /// Everything that was written is on stable storage when it returns.
    fn barrier(&self, unsynced: &mut u64) -> Result<()> {
        self.db.flush().map_err(|e| self.engine(e))?; // sled's buffers to the page cache
        self.sync_blobs()?;
        self.db_file.sync_data().map_err(io_at(&self.path.join("db")))?; // guard 1
        *unsynced = 0;
        Ok(())
    }

    fn engine(&self, e: sled::Error) -> KvError {
        engine_error(&self.path, e)
    }

    fn corrupt(&self, what: &str) -> KvError {
        KvError::Corrupt { path: self.path.clone(), what: what.into() }
    }

    /// Learns which values have chunks: few are so long, and their chunks stand together.
    fn find_chunked(&self) -> Result<()> {
        let mut chunked = self.chunked.lock().unwrap_or_else(PoisonError::into_inner);
        for row in self.db.range([CHUNK_TAG]..[CHUNK_TAG + 1]).keys() {
            let row = row.map_err(|e| self.engine(e))?;
            let (key, index) = chunk_of(&row).ok_or_else(|| self.corrupt("a chunk of nothing"))?;
            match chunked.get_mut(key) {
                Some(count) => *count = (*count).max(index.saturating_add(1)),
                None => drop(chunked.insert(key.to_vec(), index.saturating_add(1))),
            }
        }
        Ok(())
    }

    /// Puts a stored value together; the caller holds the gate.
    fn load(&self, key: &[u8], stored: &[u8]) -> Result<Vec<u8>> {
        match stored.split_first() {
            Some((&INLINE, value)) => Ok(value.to_vec()),
            Some((&CHUNKED, _)) => {
                let count = chunk_count(stored).ok_or_else(|| self.corrupt("head of a chunked value"))?;
                let mut value = Vec::new();
                for index in 0..count {
                    let chunk = self.db.get(chunk_key(key, index)).map_err(|e| self.engine(e))?;
                    value.extend_from_slice(&chunk.ok_or_else(|| self.corrupt("a chunk is missing"))?);
                }
                Ok(value)
            }
            _ => Err(self.corrupt("unknown form of a stored value")),
        }
    }

    /// Turns changes into the last word on each key, with ranges resolved against what is stored; the caller holds the gate.
    fn resolve(&self, ops: Vec<Op>) -> Result<BTreeMap<Vec<u8>, Option<Vec<u8>>>> {
        let mut words = BTreeMap::new();
        for op in ops {
            match op {
                Op::Put(table, key, value) => {
                    words.insert(full_key(table, &key), Some(value));
                }
                Op::Del(table, key) => {
                    words.insert(full_key(table, &key), None);
                }
                Op::DelRange(table, from, to) => {
                    let (from, to) = (full_key(table, &from), full_key(table, &to));
                    if from >= to {
                        continue;
                    }
                    for (_, word) in words.range_mut(from.clone()..to.clone()) {
                        *word = None;
                    }
                    for row in self.db.range(from..to) {
                        let (key, _) = row.map_err(|e| self.engine(e))?;
                        words.insert(key.to_vec(), None);
                    }
                }
            }
        }
        Ok(words)
    }
}

impl Kv for SledKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let key = full_key(table, key);
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        match self.db.get(&key).map_err(|e| self.engine(e))? {
            Some(stored) => self.load(&key, &stored).map(Some),
            None => Ok(None),
        }
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], max: usize) -> Result<Vec<Row>> {
        let (from, to) = (full_key(table, from), full_key(table, to));
        if from >= to {
            return Ok(Vec::new());
        }
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let mut rows = Vec::new();
        for row in self.db.range(from..to).take(max) {
            let (key, stored) = row.map_err(|e| self.engine(e))?;
            rows.push((key.get(1..).unwrap_or_default().to_vec(), self.load(&key, &stored)?));
        }
        Ok(rows)
    }

    fn each(&self, table: Table, row: &mut dyn FnMut(Row)) -> Result<()> {
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        for found in self.db.range([table as u8]..[table as u8 + 1]) {
            let (key, stored) = found.map_err(|e| self.engine(e))?;
            row((key.get(1..).unwrap_or_default().to_vec(), self.load(&key, &stored)?));
        }
        Ok(())
    }

    fn each_in(&self, table: Table, from: &[u8], to: &[u8], row: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        let (from, to) = (full_key(table, from), full_key(table, to));
        if from >= to {
            return Ok(());
        }
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        for found in self.db.range(from..to) {
            let (full, stored) = found.map_err(|e| self.engine(e))?;
            let key = full.get(1..).unwrap_or_default();
            match stored.split_first() {
                Some((&INLINE, value)) => row(key, value),
                _ => row(key, &self.load(&full, &stored)?),
            }
        }
        Ok(())
    }

    fn last(&self, table: Table) -> Result<Option<Row>> {
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        match self.db.range([table as u8]..[table as u8 + 1]).next_back() {
            Some(row) => {
                let (key, stored) = row.map_err(|e| self.engine(e))?;
                let value = self.load(&key, &stored)?;
                Ok(Some((key.get(1..).unwrap_or_default().to_vec(), value)))
            }
            None => Ok(None),
        }
    }

    fn write(&self, ops: Vec<Op>) -> Result<()> {
        let mut unsynced = self.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
        let gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let mut chunked = self.chunked.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = sled::Batch::default();
        let mut growth = 0;
        for (key, word) in self.resolve(ops)? {
            growth += CHANGE_BYTES + word.as_ref().map_or(0, |value| (key.len() + value.len()) as u64);
            let old_chunks = chunked.remove(&key).unwrap_or(0);
            let mut new_chunks = 0;
            match word {
                Some(value) if value.len() <= INLINE_MAX => {
                    let mut stored = Vec::with_capacity(value.len() + 1);
                    stored.push(INLINE);
                    stored.extend_from_slice(&value);
                    batch.insert(key.clone(), stored);
                }
                Some(value) => {
                    for chunk in value.chunks(INLINE_MAX) {
                        batch.insert(chunk_key(&key, new_chunks), chunk);
                        new_chunks += 1;
                    }
                    let mut stored = vec![CHUNKED];
                    stored.extend_from_slice(&new_chunks.to_be_bytes());
                    batch.insert(key.clone(), stored);
                }
                None => batch.remove(key.clone()),
            }
            for index in new_chunks..old_chunks {
                batch.remove(chunk_key(&key, index));
            }
            if new_chunks > 0 {
                chunked.insert(key, new_chunks);
            }
        }
        if *unsynced > 0 && *unsynced + growth > self.unsynced_max {
            self.barrier(&mut unsynced)?;
        }
        self.db.apply_batch(batch).map_err(|e| self.engine(e))?;
        drop((gate, chunked));
        *unsynced += growth;
        if *unsynced > self.unsynced_max {
            self.barrier(&mut unsynced)?;
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.barrier(&mut self.unsynced.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn room(&self) -> Room {
        room(self.unsynced_max)
    }

    fn is_idle(&self) -> bool {
        self.unsynced.try_lock().is_ok()
    }
}

/// Rows and bytes of a write that makes the log no longer than so many bytes.
const fn room(bytes: u64) -> Room {
    let own = bytes / OWN_BYTES;
    Room { rows: ((bytes - own) / CHANGE_BYTES) as usize, bytes: own as usize }
}

/// Settings that are no part of `conf`.
fn config() -> sled::Config {
    sled::Config::new().flush_every_ms(None) // guard 5
}

/// Length of a segment, from `conf`: text lines, then a checksum.
fn segment_of(path: &Path) -> Result<usize> {
    let conf = path.join(CONF);
    let text = fs::read(&conf).map_err(io_at(&conf))?;
    let line = text.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"segment_size: "));
    let segment = line.and_then(|n| std::str::from_utf8(n).ok()?.parse().ok());
    // sled panics on other numbers.
    segment
        .filter(|n: &usize| n.is_power_of_two() && (256..=1 << 24).contains(n))
        .ok_or_else(|| KvError::Corrupt { path: path.into(), what: format!("{CONF} names no length of a segment") })
}

/// Guard 5: what a process wrote that was killed or never synced.
fn sync_leftovers(path: &Path) -> Result<()> {
    let mut files = vec![path.join("db"), path.to_path_buf()];
    let blobs = path.join("blobs");
    match fs::read_dir(&blobs) {
        Ok(entries) => {
            for entry in entries {
                files.push(entry.map_err(io_at(&blobs))?.path());
            }
            files.push(blobs);
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(io_at(&blobs)(e)),
    }
    for file in files {
        match File::open(&file).and_then(|f| f.sync_all()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_at(&file)(e)),
            _ => {}
        }
    }
    Ok(())
}

/// Guard 4: sled's own configuration, whole or not at all.
fn make_conf(path: &Path) -> Result<()> {
    let (conf, making) = (path.join(CONF), path.join(MAKING));
    match fs::remove_dir_all(&making) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_at(&making)(e)),
        _ => {}
    }
    if conf.try_exists().map_err(io_at(&conf))? {
        return Ok(());
    }
    let empty = config().path(&making).segment_size(SEGMENT).open().map_err(|e| engine_error(path, e))?;
    let made = making.join(CONF);
    File::open(&made).and_then(|f| f.sync_all()).map_err(io_at(&made))?;
    fs::rename(&made, &conf).map_err(io_at(&conf))?;
    File::open(path).and_then(|f| f.sync_all()).map_err(io_at(path))?;
    drop(empty);
    fs::remove_dir_all(&making).map_err(io_at(&making))
}

/// Guard 3.
fn remove_unfinished_snapshots(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path).map_err(io_at(path))? {
        let entry = entry.map_err(io_at(path))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.starts_with("snap.") && name.ends_with(".generating") {
            tracing::warn!(file = %entry.path().display(), "removing a snapshot that a crash left unfinished");
            fs::remove_file(entry.path()).map_err(io_at(&entry.path()))?;
        }
    }
    Ok(())
}

fn full_key(table: Table, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(key.len() + 1);
    full.push(table as u8);
    full.extend_from_slice(key);
    full
}

/// The key's length stands before it, so that no two keys share a chunk key.
fn chunk_key(key: &[u8], index: u32) -> Vec<u8> {
    let mut full = Vec::with_capacity(key.len() + 9);
    full.push(CHUNK_TAG);
    full.extend_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes());
    full.extend_from_slice(key);
    full.extend_from_slice(&index.to_be_bytes());
    full
}

/// The key whose chunk this is, and which one.
fn chunk_of(chunk: &[u8]) -> Option<(&[u8], u32)> {
    let (length, rest) = chunk.get(1..)?.split_first_chunk::<4>()?;
    let (key, index) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    Some((key, u32::from_be_bytes(index.try_into().ok()?)))
}

fn chunk_count(stored: &[u8]) -> Option<u32> {
    let (&CHUNKED, count) = stored.split_first()? else { return None };
    Some(u32::from_be_bytes(count.try_into().ok()?))
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> KvError + '_ {
    move |source| KvError::Io { path: path.into(), source }
}

fn engine_error(path: &Path, e: sled::Error) -> KvError {
    match e {
        // sled reports a held lock as an I/O error whose text starts so.
        sled::Error::Io(e) if e.to_string().contains("could not acquire lock") => KvError::Locked { path: path.into() },
        sled::Error::Io(source) => KvError::Io { path: path.into(), source },
        other => KvError::Corrupt { path: path.into(), what: other.to_string() },
    }
}

#[cfg(test)]
#[path = "sled_kv/tests.rs"]
mod tests;
