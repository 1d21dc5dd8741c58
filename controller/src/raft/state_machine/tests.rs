use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};

use openraft::CommittedLeaderId;

use super::*;
use crate::config::Engine;
use crate::raft::kv::KvError;
use crate::raft::store;
use crate::state::{Action, AddPool, Command, CommandBatch};

/// Fails after a number of writes.
struct Failing {
    inner: Arc<dyn Kv>,
    writes: AtomicI64,
}

impl Kv for Failing {
    fn get(&self, table: Table, key: &[u8]) -> super::super::kv::Result<Option<Vec<u8>>> {
        self.inner.get(table, key)
    }
    fn scan(&self, table: Table, from: &[u8], to: &[u8], max: usize) -> super::super::kv::Result<Vec<Row>> {
        self.inner.scan(table, from, to, max)
    }
    fn last(&self, table: Table) -> super::super::kv::Result<Option<Row>> {
        self.inner.last(table)
    }
    fn write(&self, ops: Vec<Op>) -> super::super::kv::Result<()> {
        if self.writes.fetch_sub(1, Ordering::SeqCst) <= 0 {
            return Err(KvError::Failed { path: PathBuf::from("store"), cause: "as the test wants".into() });
        }
        self.inner.write(ops)
    }
    fn sync(&self) -> super::super::kv::Result<()> {
        self.inner.sync()
    }
}

fn entry(index: u64, names: impl Iterator<Item = u32>) -> Entry {
    let pool = |i: u32| {
        let networks = vec![format!("10.{}.{}.0/24", i / 256, i % 256).parse().expect("a network")];
        Action::AddPool(AddPool { name: format!("p{i:04}"), networks, ..AddPool::default() })
    };
    let command = |i: u32| Command { request_id: i.to_be_bytes().repeat(4), at_ms: 1, action: Some(pool(i)) };
    Entry {
        log_id: LogId::new(CommittedLeaderId::new(1, 1), index),
        payload: EntryPayload::Normal(CommandBatch { commands: names.map(command).collect() }.into()),
    }
}

fn opened(dir: &Path) -> Arc<dyn Kv> {
    loop {
        match store::open(&dir.join("store"), Engine::Redb) {
            Err(KvError::Locked { .. }) => std::thread::yield_now(),
            other => return other.expect("opens"),
        }
    }
}

fn machine(dir: &Path) -> StateMachine {
    StateMachine::open(opened(dir), &dir.join("snapshots")).expect("opens")
}

fn bytes(machine: &StateMachine) -> Vec<u8> {
    machine.shared.read().to_bytes()
}

#[tokio::test]
async fn snapshots_and_copies_hold_the_state_of_one_moment_and_are_the_same_bytes() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut machine = machine(dir.path());
    machine.apply([entry(1, (0..700).step_by(2))]).await.expect("applies");
    let before = bytes(&machine);
    let copied = machine.copier().copy().expect("copies");
    let mut builder = machine.get_snapshot_builder().await;
    machine.apply([entry(2, (1..700).step_by(2))]).await.expect("applies");
    let built = builder.build_snapshot().await.expect("builds");
    assert_eq!(built.meta.last_log_id.map(|id| id.index), Some(1));
    assert_eq!(built.snapshot.clone().into_bytes().expect("reads"), before);
    assert_eq!((copied.applied, copied.log_time_ms), (1, 1));
    assert_eq!(copied.state.clone().into_bytes().expect("reads"), before);
    assert_eq!(copied.state.length().expect("reads"), before.len() as u64);
    assert_ne!(bytes(&machine), before);

    let files = || std::fs::read_dir(dir.path().join("snapshots")).expect("lists").count();
    assert_eq!(files(), 2);
    drop(copied);
    assert_eq!(files(), 1, "a copy goes with its handle, a snapshot stays");
    let sent = machine.get_current_snapshot().await.expect("reads").expect("there");
    assert_eq!((sent.meta, sent.snapshot.into_bytes().expect("reads")), (built.meta, before));
}

#[tokio::test]
async fn a_snapshot_that_a_crash_keeps_from_being_installed_is_installed_at_the_next_start() {
    let (from, dir) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
    let mut source = machine(from.path());
    source.apply([entry(7, (0..990).filter(|i| i % 3 != 0))]).await.expect("applies");
    let snapshot = source.get_snapshot_builder().await.build_snapshot().await.expect("builds");
    let wanted = bytes(&source);

    let mut begins = 0;
    for writes in 0.. {
        // Rows to remove, to change and to keep.
        let dir = dir.path().join(writes.to_string());
        std::fs::create_dir(&dir).expect("makes");
        let mut before = machine(&dir);
        before.apply([entry(5, (0..990).filter(|i| i % 5 != 0))]).await.expect("applies");
        let old = bytes(&before);
        drop(before);

        let failing = Arc::new(Failing { inner: opened(&dir), writes: AtomicI64::new(writes) });
        let mut target = StateMachine::open(failing.clone(), &dir.join("snapshots")).expect("opens");
        let mut place = target.snapshots.receive(&snapshot.meta, wanted.len() as u64).expect("makes room");
        place.write(&wanted).expect("writes");
        let received = place.finish(&snapshot.snapshot.sha256().expect("sums")).expect("whole");
        let installed = target.install_snapshot(&snapshot.meta, Box::new(received)).await;
        assert_eq!(bytes(&target) == wanted, installed.is_ok(), "{writes}");
        drop((target, failing));

        let after = machine(&dir);
        let begun = writes > 0;
        assert_eq!(bytes(&after), if begun { wanted.clone() } else { old }, "after {writes} writes");
        assert_eq!(after.applied.log_id.map(|id| id.index), Some(if begun { 7 } else { 5 }));
        assert!(after.kv.get(Table::Meta, INSTALLING).expect("reads").is_none());
        if installed.is_ok() {
            break;
        }
        begins += 1;
    }
    assert!(begins > 3, "{begins}");
}

#[tokio::test]
async fn a_snapshot_that_is_damaged_or_out_of_order_changes_nothing() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut target = machine(dir.path());
    target.apply([entry(1, 0..5)]).await.expect("applies");
    let before = bytes(&target);
    let rows = target.shared.read().rows();
    let mut unordered = RowWriter::begin(Vec::new()).expect("begins");
    rows.iter().rev().for_each(|(key, value)| unordered.row(key, value).expect("writes"));
    let mut meta = target.meta();
    meta.last_log_id = Some(LogId::new(CommittedLeaderId::new(1, 1), 9));
    for bad in [unordered.end(), before[..before.len() - 1].to_vec(), vec![9], Vec::new()] {
        assert!(target.install_snapshot(&meta, Box::new(bad.into())).await.is_err());
        assert_eq!(bytes(&target), before);
    }
    assert_eq!(std::fs::read_dir(dir.path().join("snapshots")).expect("lists").count(), 0);
    drop(target);
    assert_eq!(bytes(&machine(dir.path())), before);
}

/// Behind an `apply` that waits between the two, both would wait for ever.
#[cfg(debug_assertions)]
#[test]
#[should_panic(expected = "looks at it again")]
fn who_looks_at_the_state_may_not_look_again() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let machine = machine(dir.path());
    drop(machine.shared.read());
    let _first = machine.shared.read();
    let _second = machine.shared.read();
}
