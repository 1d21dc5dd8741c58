//! A disk that forgets, in a power failure, what was not synced.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::mpsc;

use super::executor::{self, OUTSIDE, Random};
use super::world::{Planted, World};
use crate::raft::commit::{Commit, Waiter};
use crate::raft::kv::{Kv, KvError, Op, Result, Row, Table};
use crate::raft::state_machine::{APPLIED, Applied, INSTALLING};
use crate::raft::{LogId, LogStore, Vote, codec, log_store};

type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// Of the rows of the state: equal for equal rows, in whatever order they came.
pub(super) fn row_sum(key: &[u8], value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, value).hash(&mut hasher);
    hasher.finish()
}

/// What the disk of one machine holds, through all its crashes.
pub(super) struct Disk {
    id: u64,
    world: Weak<World>,
    image: Mutex<Image>,
}

#[derive(Default)]
struct Image {
    live: Rows,
    synced: Rows,
    /// Writes in the order in which they were made; the first has the number `written - unsynced.len()`.
    unsynced: Vec<Vec<Op>>,
    written: u64,
    /// Sum of the state's rows in `live`.
    sum: u64,
    /// The same rows, and what was applied, as they are in the process.
    memory: Memory,
    /// Counts crashes.
    life: u64,
    /// The power fails at this many calls from now.
    fails_in: Option<u64>,
    failed: bool,
    slow_until: Duration,
}

/// What a process knows: the disk may learn of it later.
#[derive(Default)]
struct Memory {
    rows: Rows,
    sum: u64,
}

fn applied_in(rows: &Rows) -> Option<LogId> {
    let bytes = rows.get(&(Table::Meta, APPLIED.to_vec()))?;
    codec::decode::<Applied>(bytes).expect("was encoded").log_id
}

fn apply(rows: &mut Rows, sum: &mut u64, ops: Vec<Op>) {
    let mut set = |rows: &mut Rows, table: Table, key: Vec<u8>, value: Option<Vec<u8>>| {
        let row = (table, key);
        if table == Table::State {
            if let Some(old) = rows.get(&row) {
                *sum = sum.wrapping_sub(row_sum(&row.1, old));
            }
            if let Some(new) = &value {
                *sum = sum.wrapping_add(row_sum(&row.1, new));
            }
        }
        match value {
            Some(value) => drop(rows.insert(row, value)),
            None => drop(rows.remove(&row)),
        }
    };
    for op in ops {
        match op {
            Op::Put(table, key, value) => set(rows, table, key, Some(value)),
            Op::Del(table, key) => set(rows, table, key, None),
            Op::DelRange(table, from, to) if from < to => {
                let keys: Vec<_> = rows.range((table, from)..(table, to)).map(|((_, key), _)| key.clone()).collect();
                keys.into_iter().for_each(|key| set(rows, table, key, None));
            }
            Op::DelRange(..) => {}
        }
    }
}

impl Image {
    /// The process begins with what is on the disk, or has just taken a snapshot.
    fn remember(&mut self) {
        let known = |table: Table, key: &[u8]| table == Table::State || (table, key) == (Table::Meta, APPLIED);
        let rows = self.live.iter().filter(|((table, key), _)| known(*table, key));
        self.memory = Memory { rows: rows.map(|(row, value)| (row.clone(), value.clone())).collect(), sum: self.sum };
    }

    fn vote(&self) -> Vote {
        let bytes = self.live.get(&(Table::Meta, log_store::VOTE.to_vec()));
        bytes.map(|bytes| codec::decode(bytes).expect("was encoded")).unwrap_or_default()
    }

    fn entry(&self, index: u64) -> Option<&Vec<u8>> {
        self.live.get(&(Table::Log, index.to_be_bytes().to_vec()))
    }

    fn sync_to(&mut self, number: u64) {
        let first = self.written - self.unsynced.len() as u64;
        let count = number.saturating_sub(first) as usize;
        for ops in self.unsynced.drain(..count) {
            apply(&mut self.synced, &mut 0, ops);
        }
    }
}

impl Disk {
    pub(super) fn new(id: u64, world: &Arc<World>) -> Arc<Self> {
        Arc::new(Self { id, world: Arc::downgrade(world), image: Mutex::default() })
    }

    fn image(&self) -> MutexGuard<'_, Image> {
        self.image.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log on it, and the store, for a new process.
    pub(super) fn mount(self: &Arc<Self>, process: u64) -> (Arc<dyn Kv>, LogStore) {
        let mounted = Mounted { disk: self.clone(), life: self.image().life };
        let kv: Arc<dyn Kv> = Arc::new(mounted);
        let (queue, waiters) = mpsc::unbounded_channel();
        executor::spawn_in(process, commit(self.clone(), waiters));
        let commit = Commit::simulated(move |waiter: Waiter| {
            let _ = queue.send(waiter); // the process may be dying
        });
        let log = LogStore::with_commit(kv.clone(), commit, self.id);
        let hasty = self.world.upgrade().is_some_and(|w| w.settings.planted == Some(Planted::CountsUnsynced));
        log.ahead().hasty.store(hasty, Ordering::Relaxed);
        (kv, log)
    }

    /// The power fails. What was not synced is lost from some write on.
    pub(super) fn crash(&self, random: &mut Random, forget_vote: bool) {
        let mut image = self.image();
        let unsynced = image.unsynced.len() as u64;
        let kept = match random.below(3) {
            0 => 0,
            1 => random.between(0, unsynced),
            _ => unsynced, // only the process died
        };
        let mark = image.written - unsynced + kept;
        image.sync_to(mark);
        image.unsynced.clear();
        if forget_vote {
            image.synced.remove(&(Table::Meta, log_store::VOTE.to_vec()));
        }
        image.live = image.synced.clone();
        let rows = image.live.iter().filter(|((table, _), _)| *table == Table::State);
        image.sum = rows.fold(0, |sum, ((_, key), value)| sum.wrapping_add(row_sum(key, value)));
        image.life += 1;
        image.remember();
        (image.fails_in, image.failed) = (None, false);
    }

    /// The power will fail at a call to come.
    pub(super) fn fail_in(&self, calls: u64) {
        self.image().fails_in = Some(calls);
    }

    pub(super) fn keep_power(&self) {
        self.image().fails_in = None;
    }

    /// Whether the power has failed, or the process that asks is from before it did.
    pub(super) fn has_failed(&self) -> bool {
        self.image().failed
    }

    /// From now on syncs take long.
    pub(super) fn slow_until(&self, at: Duration) {
        self.image().slow_until = at;
    }

    fn delay(&self, random: &mut Random) -> Duration {
        if self.image().slow_until > executor::now() { random.millis(20, 600) } else { random.micros(50, 3_000) }
    }

    /// The first entry of a list that the log has not, or has otherwise; purged ones count as there.
    pub(super) fn lacks<'e>(&self, entries: impl Iterator<Item = (u64, &'e u64)>) -> Option<u64> {
        let image = self.image();
        let purged = image.live.get(&(Table::Meta, log_store::PURGED.to_vec()));
        let purged = purged.map_or(0, |bytes| codec::decode::<LogId>(bytes).expect("was encoded").index);
        let mut entries = entries.filter(|(index, _)| *index > purged);
        entries.find(|(index, sum)| image.entry(*index).map(|e| row_sum(&[], e)) != Some(**sum)).map(|(index, _)| index)
    }
}

/// What one sync costs serves all that wait; what is written meanwhile waits for the next.
async fn commit(disk: Arc<Disk>, mut waiters: mpsc::UnboundedReceiver<Waiter>) {
    let mut random = Random::new(executor::draw());
    let early = disk.world.upgrade().is_some_and(|w| w.settings.planted == Some(Planted::AckBeforeSync));
    let life = disk.image().life;
    while let Some(first) = waiters.recv().await {
        let mut waiting = vec![first];
        while let Ok(next) = waiters.try_recv() {
            waiting.push(next);
        }
        let mark = disk.image().written;
        if early {
            waiting.drain(..).for_each(|waiter| waiter(Ok(())));
        }
        executor::sleep(disk.delay(&mut random)).await;
        let mounted = Mounted { disk: disk.clone(), life };
        let synced = mounted.call(|image| image.sync_to(mark)).map_err(|e| e.to_string());
        waiting.into_iter().for_each(|waiter| waiter(synced.clone().map_err(io::Error::other)));
    }
}

/// The disk as one process has it.
struct Mounted {
    disk: Arc<Disk>,
    life: u64,
}

impl Mounted {
    fn error(&self) -> KvError {
        KvError::Io { path: "simulated".into(), source: io::Error::other("the power has failed") }
    }

    fn look<T>(&self, look: impl FnOnce(&Image) -> T) -> Result<T> {
        let image = self.disk.image();
        if image.failed || image.life != self.life { Err(self.error()) } else { Ok(look(&image)) }
    }

    /// A call that changes something, at which the power may fail.
    fn call<T>(&self, call: impl FnOnce(&mut Image) -> T) -> Result<T> {
        let mut image = self.disk.image();
        if image.failed || image.life != self.life {
            return Err(self.error());
        }
        if image.fails_in == Some(0) {
            image.failed = true;
            if let Some(world) = self.disk.world.upgrade() {
                let (id, life) = (self.disk.id, self.life);
                executor::spawn_in(OUTSIDE, async move { world.power_failed(id, life) });
            }
            return Err(self.error());
        }
        image.fails_in = image.fails_in.map(|n| n - 1);
        Ok(call(&mut image))
    }
}

impl Mounted {
    fn applied(&self, world: &World, image: &Image, from: u64, last: LogId) {
        let entry = |index| image.entry(index).cloned();
        world.applied(self.disk.id, from, last, image.memory.sum, &image.vote(), &entry);
    }
}

impl Kv for Mounted {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.look(|image| image.live.get(&(table, key.to_vec())).cloned())
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], max: usize) -> Result<Vec<Row>> {
        self.look(|image| {
            if from >= to {
                return Vec::new();
            }
            let rows = image.live.range((table, from.to_vec())..(table, to.to_vec())).take(max);
            rows.map(|((_, key), value)| (key.clone(), value.clone())).collect()
        })
    }

    fn last(&self, table: Table) -> Result<Option<Row>> {
        self.look(|image| {
            let row = image.live.range((table, Vec::new())..).take_while(|((t, _), _)| *t == table).last();
            row.map(|((_, key), value)| (key.clone(), value.clone()))
        })
    }

    fn write(&self, ops: Vec<Op>) -> Result<()> {
        let applies = ops.iter().any(|op| matches!(op, Op::Put(Table::Meta, key, _) if key == APPLIED));
        let installs = ops.iter().any(|op| matches!(op, Op::Del(Table::Meta, key) if key == INSTALLING));
        self.call(|image| {
            apply(&mut image.live, &mut image.sum, ops.clone());
            image.unsynced.push(ops);
            image.written += 1;
            if !applies {
                return;
            }
            if installs {
                image.remember();
            }
            let (stored, known) = (applied_in(&image.live), applied_in(&image.memory.rows));
            let Some(world) = self.disk.world.upgrade() else { return };
            if (stored, image.sum) != (known, image.memory.sum) {
                world.violated(format!("node {} stores another state than it has applied", self.disk.id));
            }
            if let Some(last) = stored.filter(|_| installs) {
                self.applied(&world, image, last.index + 1, last);
            }
        })
    }

    fn behind(&self, ops: &[Op]) {
        let mut image = self.disk.image();
        if image.failed || image.life != self.life {
            return;
        }
        let before = applied_in(&image.memory.rows);
        let Memory { rows, sum } = &mut image.memory;
        apply(rows, sum, ops.to_vec());
        if let (Some(world), Some(after)) = (self.disk.world.upgrade(), applied_in(&image.memory.rows)) {
            self.applied(&world, &image, before.map_or(0, |id| id.index + 1), after);
        }
    }

    fn sync(&self) -> Result<()> {
        self.call(|image| image.sync_to(image.written))
    }
}
