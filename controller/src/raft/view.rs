//! The state as it is at one moment, read at leisure while it goes on changing; and its changes on their way to the store.
//!
//! Changes wait for company: many rows are written again and again, and a write costs more than the rows in it. What waits is
//! lost with the process, and made again from the log, whose entries stay until a snapshot has been made: no view
//! begins while something waits.
//!
//! A [`View`] reads the rows from the store, page by page. Whoever changes the state does it through [`Views::change`], which
//! keeps the old row for each view that has not come to it yet. So neither a snapshot nor a backup holds up the log for longer
//! than a page takes, and neither needs the state in memory a second time; what is kept is at most what changes meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::kv::{KEY_END, Kv, Op, Result, Room, Row, Table};

/// Rows in a page.
const PAGE: usize = 512;
/// Rows that wait, at most, where the store takes so many at once.
pub(super) const MAX_BEHIND: usize = 384;
/// And their length, bytes.
pub(super) const MAX_BEHIND_BYTES: usize = 1024 * 1024;

/// All views of a state.
pub(super) struct Views {
    kv: Arc<dyn Kv>,
    room: Room,
    open: Mutex<Open>,
    /// Held while the whole state is replaced, in more than one change.
    replacing: Mutex<()>,
}

#[derive(Default)]
struct Open {
    views: BTreeMap<u64, Reading>,
    last: u64,
    behind: Behind,
}

/// Changes that wait: the last word on each row.
#[derive(Default)]
struct Behind {
    words: BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>,
    bytes: usize,
}

impl Behind {
    fn add(&mut self, table: Table, key: Vec<u8>, word: Option<Vec<u8>>) {
        let length = |word: &Option<Vec<u8>>| word.as_ref().map_or(0, Vec::len);
        let (key_bytes, word_bytes) = (key.len(), length(&word));
        match self.words.insert((table, key), word) {
            Some(old) => self.bytes = self.bytes + word_bytes - length(&old),
            None => self.bytes += key_bytes + word_bytes,
        }
    }

    fn take(&mut self) -> Vec<Op> {
        let words = std::mem::take(self).words.into_iter();
        let op = |((table, key), word)| match word {
            Some(value) => Op::Put(table, key, value),
            None => Op::Del(table, key),
        };
        words.map(op).collect()
    }
}

/// How far a view has come.
#[derive(Default)]
struct Reading {
    /// The next row has this key or a greater one; `None` behind the last.
    next: Option<Vec<u8>>,
    /// Rows to come as they were; `None` for one that was not there.
    kept: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Reading {
    fn still_needs(&self, key: &[u8]) -> bool {
        self.next.as_ref().is_some_and(|next| next.as_slice() <= key) && !self.kept.contains_key(key)
    }
}

impl Views {
    /// Views of the state in `kv`, whose changes wait until there are `behind` rows, or as many as the store takes at once.
    pub(super) fn new(kv: Arc<dyn Kv>, behind: usize) -> Arc<Self> {
        let Room { rows, bytes } = kv.room();
        let room = Room { rows: rows.min(behind), bytes: bytes.min(MAX_BEHIND_BYTES) };
        Arc::new(Self { kv, room, open: Mutex::default(), replacing: Mutex::default() })
    }

    /// Begins a change of the state; no view begins or reads until it is over.
    pub(super) fn change(&self) -> Changing<'_> {
        Changing { kv: &*self.kv, room: self.room, open: self.lock() }
    }

    /// Begins changes that belong together; no view begins until they are over. Those that have begun are kept right.
    pub(super) fn replace(&self) -> MutexGuard<'_, ()> {
        self.replacing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a view, and looks at something at the same moment.
    pub(super) fn begin<T>(self: &Arc<Self>, look: impl FnOnce() -> T) -> Result<(View, T)> {
        let _not_now = self.replace();
        let mut change = self.change();
        change.catch_up()?;
        let mut open = change.open;
        open.last += 1;
        let id = open.last;
        open.views.insert(id, Reading { next: Some(Vec::new()), ..Reading::default() });
        Ok((View { all: self.clone(), id }, look()))
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A change of the state that is under way.
pub(super) struct Changing<'v> {
    kv: &'v dyn Kv,
    room: Room,
    open: MutexGuard<'v, Open>,
}

impl Changing<'_> {
    /// Has these changes wait for more, all of them together; rows one by one, not in ranges.
    pub(super) fn write_behind(&mut self, ops: Vec<Op>) -> Result<()> {
        // What waits and what comes are a write each where they are too much for one.
        if self.open.behind.words.len() + ops.len() > self.room.rows {
            self.catch_up()?;
        }
        #[cfg(test)]
        self.kv.behind(&ops);
        for op in ops {
            match op {
                Op::Put(table, key, value) => self.open.behind.add(table, key, Some(value)),
                Op::Del(table, key) => self.open.behind.add(table, key, None),
                Op::DelRange(..) => debug_assert!(false, "no range can wait"),
            }
        }
        let Behind { words, bytes } = &self.open.behind;
        let fills = |part: usize| words.len() >= self.room.rows / part || *bytes >= self.room.bytes / part;
        // What a view must keep is known when it is written. While the store waits for its disk, so would we, and nobody gets an answer.
        if fills(1) || fills(2) && self.kv.is_idle() || !self.open.views.is_empty() {
            self.catch_up()?;
        }
        Ok(())
    }

    /// Writes what waits.
    pub(super) fn catch_up(&mut self) -> Result<()> {
        let ops = self.open.behind.take();
        if ops.is_empty() { Ok(()) } else { self.put(ops) }
    }

    /// Writes to the store, behind everything that waits; rows of the state one by one, not in ranges.
    pub(super) fn write(&mut self, ops: Vec<Op>) -> Result<()> {
        self.catch_up()?;
        self.put(ops)
    }

    fn put(&mut self, ops: Vec<Op>) -> Result<()> {
        if !self.open.views.is_empty() {
            for op in &ops {
                if let Op::Put(Table::State, key, _) | Op::Del(Table::State, key) = op {
                    self.keep(key)?;
                }
            }
        }
        self.kv.write(ops)
    }

    fn keep(&mut self, key: &[u8]) -> Result<()> {
        let mut old = None;
        for view in self.open.views.values_mut().filter(|v| v.still_needs(key)) {
            let row = match &old {
                Some(row) => row,
                None => old.insert(self.kv.get(Table::State, key)?),
            };
            view.kept.insert(key.to_vec(), row.clone());
        }
        Ok(())
    }
}

/// The state at one moment.
pub(super) struct View {
    all: Arc<Views>,
    id: u64,
}

impl View {
    /// The next rows in order; `None` behind the last.
    pub(super) fn next_page(&mut self) -> Result<Option<Vec<Row>>> {
        let mut open = self.all.lock();
        let Some(view) = open.views.get_mut(&self.id) else { return Ok(None) };
        let Some(from) = view.next.take() else { return Ok(None) };
        let rows = self.all.kv.scan(Table::State, &from, &KEY_END, PAGE)?;
        let mut kept = std::mem::take(&mut view.kept);
        if let (Some((last, _)), PAGE) = (rows.last(), rows.len()) {
            let mut next = last.clone();
            next.push(0);
            view.kept = kept.split_off(&next);
            view.next = Some(next);
        }
        drop(open);
        if kept.is_empty() {
            return Ok(Some(rows));
        }
        let mut page: BTreeMap<Vec<u8>, Option<Vec<u8>>> = rows.into_iter().map(|(k, v)| (k, Some(v))).collect();
        page.append(&mut kept);
        Ok(Some(page.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()))
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.all.lock().views.remove(&self.id);
    }
}

#[cfg(test)]
#[path = "view/tests.rs"]
mod tests;
