//! A store that notices what its engine does not: rows that changed on the disk, rows that are gone, and a whole state that
//! is older than what was acknowledged.
//!
//! No engine promises this. redb trusts its pages once it is open, sled takes a damaged segment for the end of its log and
//! throws away what comes after it. So
//!
//! - each row carries a CRC-32 over its table, key and value, checked whenever it is read;
//! - each write counts, and keeps the number of rows and the sum of their checksums of each table in a row of
//!   [`Table::About`], in the same atomic write. The small tables are checked against them when the store is opened, the
//!   state when it is read as a whole; of the state, rows that nobody reads at the start are checked behind it, beside what is
//!   read and written then ([`Kv::check_more`]);
//! - after each sync the number of the last write goes to a file outside the engine (`SYNCED`), not synced itself: it is
//!   never ahead of what is durable, and an engine that comes back with less has lost something.
//!
//! After the first failure of whatever kind nothing is read or written any more. A later sync that succeeds would say
//! nothing about the pages that an earlier one failed to write.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use super::kv::{KEY_END, Kv, KvError, Op, Result, Room, Row, Sink, Table, caught, parts};

/// Row of [`Table::About`]: [`Totals`].
const TOTALS: &[u8] = b"totals";
/// Bytes of a checksum, big-endian, behind each value.
const CRC: usize = 4;
/// Rows looked at together where a table may be large.
const PAGE: usize = 256;

/// One table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    rows: u64,
    /// Of the checksums, modulo 2^64.
    sum: u64,
}

impl Sum {
    fn add(&mut self, crc: u32) {
        self.rows = self.rows.wrapping_add(1);
        self.sum = self.sum.wrapping_add(u64::from(crc));
    }

    fn merge(&mut self, other: Self) {
        self.rows = self.rows.wrapping_add(other.rows);
        self.sum = self.sum.wrapping_add(other.sum);
    }

    fn take(&mut self, crc: u32) {
        self.rows = self.rows.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(u64::from(crc));
    }
}

/// What the store must hold: `writes (8) | { rows (8) sum (8) } of each table | CRC-32 (4)`, big-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// Number of the last write.
    writes: u64,
    tables: [Sum; Table::CONTENT.len()],
}

impl Totals {
    fn of(&self, table: Table) -> Option<Sum> {
        let place = Table::CONTENT.iter().position(|t| *t == table)?;
        self.tables.get(place).copied()
    }

    /// The same, to change; there is none for the store's own table.
    fn of_mut(&mut self, table: Table) -> Option<&mut Sum> {
        let place = Table::CONTENT.iter().position(|t| *t == table)?;
        self.tables.get_mut(place)
    }

    /// Number of rows in all tables.
    pub(super) fn rows(&self) -> u64 {
        self.tables.iter().map(|t| t.rows).sum()
    }

    /// Whether two stores hold the same, however they came to it.
    pub(super) fn same_content(&self, other: &Self) -> bool {
        self.tables == other.tables
    }

    fn to_bytes(self) -> Vec<u8> {
        let numbers = std::iter::once(self.writes).chain(self.tables.iter().flat_map(|t| [t.rows, t.sum]));
        with_crc(numbers.flat_map(u64::to_be_bytes).collect())
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (numbers, rest) = without_crc(bytes)?.as_chunks::<8>();
        let mut numbers = numbers.iter().map(|n| u64::from_be_bytes(*n));
        let mut totals = Self { writes: numbers.next()?, ..Self::default() };
        for table in &mut totals.tables {
            *table = Sum { rows: numbers.next()?, sum: numbers.next()? };
        }
        (rest.is_empty() && numbers.next().is_none()).then_some(totals)
    }
}

/// Appends the checksum of a record of the store's own.
pub(super) fn with_crc(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes
}

/// The record, when its checksum is right.
pub(super) fn without_crc(bytes: &[u8]) -> Option<&[u8]> {
    let (record, crc) = bytes.split_last_chunk::<CRC>()?;
    (u32::from_be_bytes(*crc) == crc32fast::hash(record)).then_some(record)
}

/// Checksum of a row. The key's length is in it: no row is another one whose key and value were cut elsewhere.
fn row_crc(table: Table, key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[table as u8]);
    hasher.update(&(key.len() as u64).to_be_bytes());
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}

fn stored(table: Table, key: &[u8], mut value: Vec<u8>) -> (Vec<u8>, u32) {
    let crc = row_crc(table, key, &value);
    value.extend_from_slice(&crc.to_be_bytes());
    (value, crc)
}

/// The checksum that a stored value carries, unchecked: 0 for one that is too short, which no sum survives.
fn carried(stored: &[u8]) -> u32 {
    stored.last_chunk::<CRC>().map_or(0, |crc| u32::from_be_bytes(*crc))
}

/// One key in a write.
#[derive(Default)]
struct Word {
    /// Checksum of the row that is there now, where it is known already.
    old: Option<u32>,
    /// What is to be there.
    new: Option<Vec<u8>>,
}

/// A store with checks.
pub(super) struct Checked {
    inner: Arc<dyn Kv>,
    path: PathBuf,
    totals: RwLock<Totals>,
    /// No row of the log has a greater key.
    log_end: Mutex<Vec<u8>>,
    witness: Witness,
    /// What is still to be checked.
    rest: Mutex<Option<Rest>>,
    /// What failed first.
    failed: OnceLock<String>,
}

/// Parts of a table that are checked while the store is in use.
struct Rest {
    table: Table,
    /// Where they begin and end.
    left: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The rows that were read, and those of them that were changed since as they were.
    found: Sum,
    /// What these and those to come make together.
    expected: Option<Sum>,
}

impl Rest {
    /// Where a row stands that is still to be read, what is expected.
    fn expects(&mut self, table: Table, key: &[u8]) -> Option<&mut Sum> {
        let up_to = (Bound::Unbounded, Bound::Included(key));
        let within = self.left.range::<[u8], _>(up_to).next_back().is_some_and(|(_, to)| key < to.as_slice());
        if within && table == self.table { self.expected.as_mut() } else { None }
    }
}

impl Checked {
    /// Gives a store that has none its totals and the rows in it their checksums, in one write with `more`.
    pub(super) fn adopt(inner: &dyn Kv, more: Vec<Op>) -> Result<()> {
        let (mut totals, mut ops) = (Totals { writes: 1, ..Totals::default() }, more);
        for table in Table::CONTENT {
            for (key, value) in inner.scan(table, &[], &KEY_END, usize::MAX)? {
                let (value, crc) = stored(table, &key, value);
                ops.push(Op::Put(table, key, value));
                if let Some(sum) = totals.of_mut(table) {
                    sum.add(crc);
                }
            }
        }
        ops.push(Op::Put(Table::About, TOTALS.to_vec(), totals.to_bytes()));
        inner.write(ops)
    }

    /// The store in `inner`, whose folder is `path`; checks what can be checked without reading the state.
    pub(super) fn open(inner: Arc<dyn Kv>, path: &Path, witness: Witness) -> Result<Self> {
        let corrupt = |what: String| KvError::Corrupt { path: path.into(), what };
        let totals = inner.get(Table::About, TOTALS)?.as_deref().and_then(Totals::from_bytes);
        let totals = totals.ok_or_else(|| corrupt("the row with its totals is gone or changed".into()))?;
        let synced = witness.last();
        if totals.writes < synced {
            return Err(corrupt(format!(
                "write {synced} was synced, and the engine came back with write {}: what came between is lost",
                totals.writes
            )));
        }
        let log_end = Mutex::new(inner.last(Table::Log)?.map(|(key, _)| key).unwrap_or_default());
        let (totals, rest) = (RwLock::new(totals), Mutex::default());
        let this = Self { inner, path: path.into(), totals, log_end, witness, rest, failed: OnceLock::new() };
        this.verify(Table::Meta)?;
        this.verify(Table::Log)?;
        Ok(this)
    }

    /// Reads a whole table against its total.
    pub(super) fn verify(&self, table: Table) -> Result<()> {
        self.each(table, &mut |_| {})
    }

    /// What the store must hold.
    pub(super) fn totals(&self) -> Totals {
        *self.totals.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn compare(&self, table: Table, found: Sum, expected: Option<Sum>) -> Result<()> {
        match expected {
            Some(expected) if expected != found => Err(self.fail(self.corrupt(format!(
                "table {table:?} must have {} rows and has {}, or other ones",
                expected.rows, found.rows
            )))),
            _ => Ok(()),
        }
    }

    /// The value of a stored row.
    fn checked(&self, table: Table, key: &[u8], mut stored: Vec<u8>) -> Result<Vec<u8>> {
        let length = self.value_of(table, key, &stored)?.len();
        stored.truncate(length);
        Ok(stored)
    }

    /// The same, lent.
    fn value_of<'r>(&self, table: Table, key: &[u8], stored: &'r [u8]) -> Result<&'r [u8]> {
        match stored.split_last_chunk::<CRC>() {
            Some((value, crc)) if row_crc(table, key, value) == u32::from_be_bytes(*crc) => Ok(value),
            _ => {
                Err(self
                    .fail(self.corrupt(format!("a row of table {table:?} is not what was written (key {key:02x?})"))))
            }
        }
    }

    /// Lends each row of a part of a table; what they come to.
    fn part(&self, table: Table, (from, to): (&[u8], &[u8]), row: &mut dyn FnMut(&[u8], &[u8])) -> Result<Sum> {
        let (mut found, mut first) = (Sum::default(), Ok(()));
        self.engine(|kv| {
            kv.each_in(table, from, to, &mut |key, stored| {
                found.add(carried(stored));
                if first.is_ok() {
                    match self.value_of(table, key, stored) {
                        Ok(value) => row(key, value),
                        Err(e) => first = Err(e),
                    }
                }
            })
        })?;
        first.map(|()| found)
    }

    fn corrupt(&self, what: String) -> KvError {
        KvError::Corrupt { path: self.path.clone(), what }
    }

    /// From here on nothing is read or written.
    fn fail(&self, e: KvError) -> KvError {
        let _ = self.failed.set(e.to_string()); // the first failure stays
        e
    }

    fn alive(&self) -> Result<()> {
        match self.failed.get() {
            None => Ok(()),
            Some(cause) => Err(KvError::Failed { path: self.path.clone(), cause: cause.clone() }),
        }
    }

    fn engine<T>(&self, call: impl FnOnce(&dyn Kv) -> Result<T>) -> Result<T> {
        self.alive()?;
        caught(&self.path, || call(&*self.inner)).map_err(|e| self.fail(e))
    }

    /// The last word on each key, with ranges resolved against what is stored; the caller holds the totals.
    fn resolve(&self, ops: Vec<Op>) -> Result<Words> {
        let mut words = Words::new();
        for op in ops {
            match op {
                Op::Put(table, key, value) => words.entry((table, key)).or_default().new = Some(value),
                Op::Del(table, key) => words.entry((table, key)).or_default().new = None,
                Op::DelRange(table, from, to) if from < to => {
                    for (_, word) in words.range_mut((table, from.clone())..(table, to.clone())) {
                        word.new = None;
                    }
                    let mut from = from;
                    loop {
                        let rows = self.engine(|kv| kv.scan(table, &from, &to, PAGE))?;
                        let last = rows.last().map(|(key, _)| key.clone()).filter(|_| rows.len() == PAGE);
                        for (key, value) in rows {
                            words.insert((table, key), Word { old: Some(carried(&value)), new: None });
                        }
                        let Some(last) = last else { break };
                        from = after(last);
                    }
                }
                Op::DelRange(..) => {}
            }
        }
        Ok(words)
    }
}

type Words = BTreeMap<(Table, Vec<u8>), Word>;

/// The next key there can be.
fn after(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

impl Kv for Checked {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.engine(|kv| kv.get(table, key))? {
            Some(value) if table == Table::About => Ok(Some(value)),
            Some(value) => self.checked(table, key, value).map(Some),
            None => Ok(None),
        }
    }

    /// A scan of a whole table is held against its total, too.
    fn scan(&self, table: Table, from: &[u8], to: &[u8], max: usize) -> Result<Vec<Row>> {
        let whole = from.is_empty() && to >= KEY_END.as_slice() && max == usize::MAX;
        // Nothing is written meanwhile.
        let totals = whole.then(|| self.totals.read().unwrap_or_else(PoisonError::into_inner));
        let rows = self.engine(|kv| kv.scan(table, from, to, max))?;
        if table == Table::About {
            return Ok(rows);
        }
        if let Some(totals) = totals {
            let mut found = Sum::default();
            rows.iter().for_each(|(_, value)| found.add(carried(value)));
            self.compare(table, found, totals.of(table))?;
        }
        rows.into_iter()
            .map(|(key, value)| {
                let value = self.checked(table, &key, value)?;
                Ok((key, value))
            })
            .collect()
    }

    /// Held against the total of the table in the end.
    fn each(&self, table: Table, row: &mut dyn FnMut(Row)) -> Result<()> {
        // Nothing is written meanwhile.
        let totals = self.totals.read().unwrap_or_else(PoisonError::into_inner);
        let (mut found, mut first) = (Sum::default(), Ok(()));
        self.engine(|kv| {
            kv.each(table, &mut |(key, value)| {
                found.add(carried(&value));
                if first.is_ok() {
                    match self.checked(table, &key, value) {
                        Ok(value) => row((key, value)),
                        Err(e) => first = Err(e),
                    }
                }
            })
        })?;
        first?;
        self.compare(table, found, totals.of(table))
    }

    fn each_in(&self, table: Table, from: &[u8], to: &[u8], row: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        self.part(table, (from, to), row).map(drop)
    }

    /// One thread for each processor takes part after part. In the end all is held against the total of the table; what nobody takes in
    /// is left for [`Kv::check_more`], to come to what is missing then.
    fn each_part<'s>(
        &self,
        table: Table,
        ends: &[Vec<u8>],
        sink: &(dyn Fn(usize) -> Option<Sink<'s>> + Sync),
    ) -> Result<()> {
        // Nothing is written meanwhile.
        let totals = self.totals.read().unwrap_or_else(PoisonError::into_inner);
        let parts: Vec<_> = parts(ends).collect();
        let (next, left) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
        let work = || -> Result<Sum> {
            let mut found = Sum::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some((from, to)) = parts.get(number).copied() else { return Ok(found) };
                match sink(number) {
                    Some(mut row) => found.merge(self.part(table, (from, to), &mut *row)?),
                    None => {
                        let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
                        left.insert(from.to_vec(), to.to_vec());
                    }
                }
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(parts.len());
        let mut ended = std::thread::scope(|scope| {
            let mut others = Vec::new();
            for _ in 1..threads {
                // With fewer it takes longer.
                others.extend(std::thread::Builder::new().name("read-state".into()).spawn_scoped(scope, work));
            }
            let mut ended = vec![work()];
            let panicked = |_| Err(self.fail(KvError::panicked(&self.path)));
            ended.extend(others.into_iter().map(|other| other.join().unwrap_or_else(panicked)));
            ended
        });
        // What failed first says more than that something failed.
        ended.sort_by_key(|ended| matches!(ended, Err(KvError::Failed { .. })));
        let mut found = Sum::default();
        for ended in ended {
            found.merge(ended?);
        }
        let left = left.into_inner().unwrap_or_else(PoisonError::into_inner);
        if left.is_empty() {
            return self.compare(table, found, totals.of(table));
        }
        let rest = Rest { table, left, found, expected: totals.of(table) };
        *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = Some(rest);
        Ok(())
    }

    fn check_more(&self) -> Result<bool> {
        // What is written between two pages changes what is expected of those to come, and nothing is written while one is read.
        let _totals = self.totals.read().unwrap_or_else(PoisonError::into_inner);
        let mut unchecked = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(rest) = &mut *unchecked else { return Ok(false) };
        let Some((from, to)) = rest.left.pop_first() else {
            let Rest { table, found, expected, .. } = *rest;
            *unchecked = None;
            return self.compare(table, found, expected).map(|()| false);
        };
        let rows = self.engine(|kv| kv.scan(rest.table, &from, &to, PAGE))?;
        for (key, stored) in &rows {
            self.value_of(rest.table, key, stored)?;
            rest.found.add(carried(stored));
        }
        if let Some((last, _)) = rows.last().filter(|_| rows.len() == PAGE) {
            rest.left.insert(after(last.clone()), to);
        }
        Ok(true)
    }

    fn last(&self, table: Table) -> Result<Option<Row>> {
        match self.engine(|kv| kv.last(table))? {
            Some((key, value)) => {
                let value = self.checked(table, &key, value)?;
                Ok(Some((key, value)))
            }
            None => Ok(None),
        }
    }

    fn write(&self, ops: Vec<Op>) -> Result<()> {
        let mut totals = self.totals.write().unwrap_or_else(PoisonError::into_inner);
        let mut log_end = self.log_end.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Totals { writes: totals.writes + 1, ..*totals };
        let mut unchecked = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let words = self.resolve(ops)?;
        let mut ops = Vec::with_capacity(words.len() + 1);
        for ((table, key), Word { old, new }) in words {
            let Some(sum) = next.of_mut(table) else {
                // The store's own rows have checksums of their own.
                ops.push(match new {
                    Some(value) => Op::Put(table, key, value),
                    None => Op::Del(table, key),
                });
                continue;
            };
            let old = match old {
                Some(crc) => Some(crc),
                // What is appended takes nobody's place.
                None if table == Table::Log && key > *log_end => None,
                None => self.engine(|kv| kv.get(table, &key))?.as_deref().map(carried),
            };
            if table == Table::Log && new.is_some() && key > *log_end {
                log_end.clone_from(&key);
            }
            let mut sums = [Some(sum), unchecked.as_mut().and_then(|rest| rest.expects(table, &key))];
            if let Some(crc) = old {
                sums.iter_mut().flatten().for_each(|sum| sum.take(crc));
            }
            match new {
                Some(value) => {
                    let (value, crc) = stored(table, &key, value);
                    sums.iter_mut().flatten().for_each(|sum| sum.add(crc));
                    ops.push(Op::Put(table, key, value));
                }
                None if old.is_some() => ops.push(Op::Del(table, key)),
                None => {}
            }
        }
        ops.push(Op::Put(Table::About, TOTALS.to_vec(), next.to_bytes()));
        self.engine(|kv| kv.write(ops))?;
        *totals = next;
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let writes = self.totals().writes;
        self.engine(|kv| kv.sync())?;
        self.witness.note(writes).map_err(|e| self.fail(e))
    }

    /// One row of it is the totals.
    fn room(&self) -> Room {
        let Room { rows, bytes } = self.inner.room();
        Room { rows: rows.saturating_sub(1), bytes }
    }

    fn is_idle(&self) -> bool {
        self.inner.is_idle()
    }
}

/// The file that knows which write was synced last, two slots of `number (8) | CRC-32 (4)`, big-endian, a sector apart. They
/// are written in turn, so that a write that is torn leaves the other.
pub(super) struct Witness {
    path: PathBuf,
    file: File,
    /// The last number, and the slot that it is in.
    last: Mutex<(u64, usize)>,
}

impl Witness {
    /// Name of the file in the folder of the store.
    const FILE: &'static str = "SYNCED";
    const SLOTS: usize = 2;
    /// Bytes from one slot to the next.
    const APART: u64 = 512;
    const SLOT: usize = 8 + CRC;

    /// Opens the file in the folder of a store, making it when there is none.
    pub(super) fn open(store: &Path) -> Result<Self> {
        let path = store.join(Self::FILE);
        let opened = || -> io::Result<Self> {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
            if file.metadata()?.len() < Self::APART + Self::SLOT as u64 {
                // It is new, or was when the power failed: nothing has been synced yet. Both slots are good from the start.
                for slot in 0..Self::SLOTS {
                    file.write_all_at(&with_crc(vec![0; 8]), slot as u64 * Self::APART)?;
                }
                file.sync_all()?;
            }
            let mut best = None;
            for slot in 0..Self::SLOTS {
                let mut bytes = [0; Self::SLOT];
                file.read_exact_at(&mut bytes, slot as u64 * Self::APART)?;
                let number = without_crc(&bytes).and_then(|n| n.try_into().ok()).map(u64::from_be_bytes);
                best = best.max(number.map(|n| (n, slot)));
            }
            let last = best.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "both slots are damaged"))?;
            Ok(Self { path: path.clone(), file, last: Mutex::new(last) })
        };
        opened().map_err(|source| match source.kind() {
            io::ErrorKind::InvalidData => {
                KvError::Corrupt { path: store.into(), what: format!("{}: {source}", Self::FILE) }
            }
            _ => KvError::Io { path: path.clone(), source },
        })
    }

    /// Number of the last write that is known to have been synced; 0 for none.
    pub(super) fn last(&self) -> u64 {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Not synced: it may come late to the disk, and never says more than is there.
    fn note(&self, number: u64) -> Result<()> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if number <= last.0 {
            return Ok(()); // nothing was written since
        }
        let slot = (last.1 + 1) % Self::SLOTS;
        self.file
            .write_all_at(&with_crc(number.to_be_bytes().to_vec()), slot as u64 * Self::APART)
            .map_err(|source| KvError::Io { path: self.path.clone(), source })?;
        *last = (number, slot);
        Ok(())
    }
}

#[cfg(test)]
#[path = "checked/tests.rs"]
mod tests;
