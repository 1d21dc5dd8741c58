//! What the child does, and what must be there afterwards.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use openraft::{CommittedLeaderId, LogId, StoredMembership};
use sallyport_controller::Engine;
use sallyport_controller::raft::kv::{KEY_END, Kv, KvError, Op, Result, Row, Table};
use sallyport_controller::raft::{SnapshotDir, convert, store};

/// Entries between two purges, and how many are kept behind.
const PURGE_EVERY: u64 = 40;
const KEEP: u64 = 30;
/// Entries between two snapshots.
const SNAPSHOT_EVERY: u64 = 50;
/// Different rows of the state.
const ROWS: u64 = 50;

/// How long values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// 40 to 1,840 bytes.
    Small,
    /// 19 KiB: sled would put leaves of these into files of their own.
    Large,
}

/// A run of the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) engine: Engine,
    pub(crate) size: Size,
    /// How often the store is opened and closed.
    pub(crate) lives: u64,
    /// Entries in each life.
    pub(crate) entries: u64,
    pub(crate) what: What,
}

/// What the child does beyond writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Writes,
    /// Acknowledges what it has not synced: the checker must notice.
    Lies,
    /// Converts the store to the other engine in the end.
    Converts,
    /// Ends without closing the store.
    Breaks,
}

fn engine_named(name: &str) -> Engine {
    Engine::ALL.into_iter().find(|e| e.name() == name).expect("an engine")
}

pub(crate) fn other(engine: Engine) -> Engine {
    Engine::ALL.into_iter().find(|e| *e != engine).expect("two engines")
}

impl Plan {
    pub(crate) fn to_text(self) -> String {
        let Self { engine, size, lives, entries, what } = self;
        format!("{} {size:?} {lives} {entries} {what:?}", engine.name())
    }

    pub(crate) fn from_text(text: &str) -> Self {
        let words: Vec<&str> = text.split(' ').collect();
        let [engine, size, lives, entries, what] = words[..] else { panic!("{text}") };
        let one_of = |all: &[What]| *all.iter().find(|w| format!("{w:?}") == what).expect("a plan");
        Self {
            engine: engine_named(engine),
            size: if size == "Large" { Size::Large } else { Size::Small },
            lives: lives.parse().expect("a number"),
            entries: entries.parse().expect("a number"),
            what: one_of(&[What::Writes, What::Lies, What::Converts, What::Breaks]),
        }
    }

    fn value(&self, index: u64) -> Vec<u8> {
        let length = match self.size {
            Size::Small => 40 + (index * 37) % 1_800,
            Size::Large => 19 * 1_024,
        };
        let mut value = [index as u8 ^ 0x5a].repeat(length as usize); // unlike vec!, fast in a test's build
        value[..8].copy_from_slice(&index.to_be_bytes());
        value
    }

    /// The rows of the state that an entry changes.
    fn rows(&self, index: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
        (0..4)
            .map(|row| {
                let length = if self.size == Size::Large && row == 0 { 19 * 1_024 } else { 200 };
                let value = [index.to_be_bytes().as_slice(), &[row as u8].repeat(length)].concat();
                (((index * 7 + row) % ROWS).to_be_bytes().to_vec(), value)
            })
            .collect()
    }

    /// The last index that an entry purges.
    fn purges(index: u64) -> Option<u64> {
        (index % PURGE_EVERY == PURGE_EVERY - 1).then(|| index.checked_sub(KEEP)).flatten()
    }

    fn syncs(index: u64) -> bool {
        index.wrapping_mul(0x9e37_79b9) >> 7 & 3 == 0
    }

    fn ops(&self, index: u64) -> Vec<Op> {
        let mut ops = vec![
            Op::Put(Table::Log, index.to_be_bytes().to_vec(), self.value(index)),
            Op::Put(Table::Meta, b"applied".to_vec(), index.to_be_bytes().to_vec()),
        ];
        ops.extend(self.rows(index).into_iter().map(|(key, value)| Op::Put(Table::State, key, value)));
        if let Some(purged) = Self::purges(index) {
            ops.push(Op::DelRange(Table::Log, Vec::new(), (purged + 1).to_be_bytes().to_vec()));
            ops.push(Op::Put(Table::Meta, b"purged".to_vec(), purged.to_be_bytes().to_vec()));
        }
        ops
    }

    /// Everything that is in the store after the entries before `next`.
    fn content(&self, next: u64) -> Vec<Vec<Row>> {
        let (mut log, mut state, mut meta) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for index in 0..next {
            log.insert(index.to_be_bytes().to_vec(), self.value(index));
            state.extend(self.rows(index));
            meta.insert(b"applied".to_vec(), index.to_be_bytes().to_vec());
            if let Some(purged) = Self::purges(index) {
                log.retain(|key, _| *key > purged.to_be_bytes().to_vec());
                meta.insert(b"purged".to_vec(), purged.to_be_bytes().to_vec());
            }
        }
        [meta, log, state].into_iter().map(|table| table.into_iter().collect()).collect()
    }
}

pub(crate) fn opened(path: &Path, engine: Engine) -> Result<Arc<dyn Kv>> {
    loop {
        match store::open(path, engine) {
            Err(KvError::Locked { .. }) => std::thread::yield_now(),
            other => return other,
        }
    }
}

/// Index of the entry that comes next.
fn next_index(kv: &dyn Kv) -> Result<u64> {
    let applied = kv.get(Table::Meta, b"applied")?;
    Ok(applied.map_or(0, |bytes| 1 + u64::from_be_bytes(bytes.try_into().expect("eight bytes"))))
}

fn snapshot_meta(index: u64) -> openraft::SnapshotMeta<u64, openraft::BasicNode> {
    openraft::SnapshotMeta {
        last_log_id: Some(LogId::new(CommittedLeaderId::new(1, 1), index)),
        last_membership: StoredMembership::default(),
        snapshot_id: format!("1-1-{index}"),
    }
}

fn snapshot_state(index: u64) -> Vec<u8> {
    [index as u8].repeat(30_000 + index as usize)
}

/// One line to the parent in one write.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n{text}\n").as_bytes()).and_then(|()| out.flush()).expect("the pipe to the parent");
}

/// Gives sled the short segments that it had before we chose: there are more borders to be torn at.
fn short_segments(store: &Path) {
    let elsewhere = tempfile::tempdir().expect("temporary folder");
    drop(sled::open(elsewhere.path()).expect("opens"));
    let conf = fs::read(elsewhere.path().join("conf")).expect("reads");
    assert!(conf.starts_with(b"segment_size: 524288"));
    fs::create_dir(store).expect("makes");
    let new = store.join("conf.new");
    fs::write(&new, conf).and_then(|()| File::open(&new)?.sync_all()).expect("writes");
    fs::rename(&new, store.join("conf")).and_then(|()| File::open(store)?.sync_all()).expect("renames");
}

/// The child's life.
pub(crate) fn child(plan: Plan, state: &Path) {
    let path = state.join("store");
    if plan.engine == Engine::Sled && plan.size == Size::Large {
        short_segments(&path);
    }
    for life in 0..plan.lives {
        say("OPEN");
        let kv = opened(&path, plan.engine).expect("opens");
        let snapshots = SnapshotDir::open(&state.join("snapshots")).expect("opens");
        say("OPENED");
        let first = next_index(&*kv).expect("reads");
        for index in first..first + plan.entries {
            kv.write(plan.ops(index)).expect("writes");
            if Plan::syncs(index) || index + 1 == first + plan.entries {
                if plan.what != What::Lies {
                    kv.sync().expect("syncs");
                }
                say(&format!("ACK {index}"));
            }
            if index % SNAPSHOT_EVERY == SNAPSHOT_EVERY - 1 {
                snapshots.save(&snapshot_meta(index), &snapshot_state(index)).expect("saves");
                say(&format!("SNAP {index}"));
            }
        }
        if plan.what == What::Breaks && life + 1 == plan.lives {
            std::process::exit(0);
        }
    }
    if plan.what == What::Converts {
        say("OPEN");
        loop {
            match convert(&path, other(plan.engine)) {
                Err(KvError::Locked { .. }) => std::thread::yield_now(),
                done => break drop(done.expect("converts")),
            }
        }
        say("OPENED");
    }
}

/// What the parent was told before the power failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) entry: Option<u64>,
    pub(crate) snapshot: Option<u64>,
}

impl Told {
    pub(crate) fn hear(&mut self, line: &str) {
        let number = |word: &str| line.strip_prefix(word).map(|n| n.trim().parse().expect("a number"));
        self.entry = number("ACK ").or(self.entry);
        self.snapshot = number("SNAP ").or(self.snapshot);
    }
}

/// Checks what is left of a state folder, and that it works again.
pub(crate) fn check(plan: Plan, state: &Path, told: Told) -> std::result::Result<(), String> {
    let path = state.join("store");
    let mut engine = plan.engine;
    let mut kv = opened(&path, engine);
    if plan.what == What::Converts && matches!(kv, Err(KvError::OtherEngine { .. })) {
        engine = other(engine);
        kv = opened(&path, engine);
    }
    let kv = kv.map_err(|e| format!("does not open: {e}"))?;
    let text = |e: KvError| e.to_string();
    let next = next_index(&*kv).map_err(text)?;
    if told.entry.is_some_and(|n| n >= next) {
        return Err(format!("{told:?}, and entries up to {next} are there"));
    }
    let scan = |kv: &dyn Kv| -> Result<Vec<Vec<Row>>> {
        Table::CONTENT.iter().map(|t| kv.scan(*t, &[], &KEY_END, usize::MAX)).collect()
    };
    if scan(&*kv).map_err(text)? != plan.content(next) {
        return Err(format!("other rows than those of {next} entries"));
    }
    // It goes on, and comes back.
    kv.write(plan.ops(next)).and_then(|()| kv.sync()).map_err(text)?;
    drop(kv);
    let kv = opened(&path, engine).map_err(text)?;
    if scan(&*kv).map_err(text)? != plan.content(next + 1) {
        return Err(format!("other rows than those of {next} entries and one more"));
    }

    let snapshots = SnapshotDir::open(&state.join("snapshots")).map_err(|e| e.to_string())?;
    let newest = snapshots.load().map_err(|e| e.to_string())?;
    let index = newest.as_ref().and_then(|(meta, _)| meta.last_log_id).map(|id| id.index);
    if index < told.snapshot {
        return Err(format!("{told:?}, and the newest snapshot is {index:?}"));
    }
    match newest {
        Some((_, bytes)) if Some(&bytes) != index.map(snapshot_state).as_ref() => {
            Err("another snapshot than was saved".into())
        }
        _ => Ok(()),
    }
}
