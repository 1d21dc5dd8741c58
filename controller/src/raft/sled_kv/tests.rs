use proptest::prelude::*;

use super::*;
use crate::raft::kv::KEY_END;

fn open() -> (tempfile::TempDir, SledKv) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let kv = SledKv::open(&dir.path().join("db")).expect("opens");
    (dir, kv)
}

/// sled's own threads may hold the lock for a moment after the last handle is gone; a node waits for that, too.
fn reopen(dir: &tempfile::TempDir) -> SledKv {
    loop {
        match SledKv::open(&dir.path().join("db")) {
            Err(KvError::Locked { .. }) => std::thread::yield_now(),
            opened => return opened.expect("opens again"),
        }
    }
}

#[test]
fn large_values_are_cut_so_that_sled_makes_no_blob_files() {
    let (dir, kv) = open();
    let value: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
    for i in 0..20u8 {
        kv.write(vec![Op::Put(Table::Log, vec![i], value.clone())]).expect("write");
        kv.sync().expect("sync");
    }
    assert_eq!(kv.get(Table::Log, &[7]).expect("get").as_deref(), Some(value.as_slice()));
    assert_eq!(kv.scan(Table::Log, &[0], &KEY_END, 100).expect("scan").len(), 20);
    let blobs = fs::read_dir(dir.path().join("db/blobs")).map_or(0, |d| d.count());
    assert_eq!(blobs, 0);
}

#[test]
fn overwriting_a_large_value_leaves_no_chunks_behind() {
    let (_dir, kv) = open();
    kv.write(vec![Op::Put(Table::State, b"k".to_vec(), vec![1; 50_000])]).expect("write");
    kv.write(vec![Op::Put(Table::State, b"k".to_vec(), vec![2; 9_000])]).expect("write");
    assert_eq!(kv.get(Table::State, b"k").expect("get"), Some(vec![2; 9_000]));
    kv.write(vec![Op::Put(Table::State, b"k".to_vec(), vec![3; 10])]).expect("write");
    assert_eq!(kv.db.len(), 1);
    kv.write(vec![Op::DelRange(Table::State, vec![], KEY_END.to_vec())]).expect("write");
    assert_eq!(kv.db.len(), 0);
}

#[test]
fn a_snapshot_left_unfinished_by_a_crash_does_not_stop_the_next_start() {
    let (dir, kv) = open();
    kv.write(vec![Op::Put(Table::Log, vec![1], vec![42])]).expect("write");
    kv.sync().expect("sync");
    drop(kv);
    let leftover = dir.path().join("db/snap.0000000000000123.generating");
    fs::write(&leftover, b"torn").expect("plant");
    // What happens without the guard, so that we notice when sled no longer needs it.
    let bare = || loop {
        match sled::Config::new().path(dir.path().join("db")).open() {
            Err(sled::Error::Io(e)) if e.to_string().contains("could not acquire lock") => std::thread::yield_now(),
            opened => return opened,
        }
    };
    assert!(bare().is_err(), "sled needs guard 3 no more");
    let kv = reopen(&dir);
    assert!(!leftover.exists());
    assert_eq!(kv.get(Table::Log, &[1]).expect("get"), Some(vec![42]));
}

#[test]
fn a_second_opener_is_told_that_the_store_is_in_use() {
    let (dir, _kv) = open();
    assert!(matches!(SledKv::open(&dir.path().join("db")), Err(KvError::Locked { .. })));
}

#[test]
fn a_damaged_store_is_an_error_and_not_an_empty_one() {
    let (dir, kv) = open();
    kv.write(vec![Op::Put(Table::Log, vec![1], vec![42])]).expect("write");
    kv.sync().expect("sync");
    drop(kv);
    drop(reopen(&dir)); // so that it is damage, not the lock, that is met
    fs::write(dir.path().join("db/conf"), b"garbage that is no configuration").expect("damage");
    let met = loop {
        match SledKv::open(&dir.path().join("db")) {
            Err(KvError::Locked { .. }) => std::thread::yield_now(),
            other => break other,
        }
    };
    assert!(matches!(met, Err(KvError::Corrupt { .. } | KvError::Io { .. })));
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, usize),
    Del(u8),
    DelRange(u8, u8),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..12u8, prop_oneof![0..100usize, 3_990..4_010usize, 8_000..20_000usize]).prop_map(|(k, n)| Step::Put(k, n)),
        2 => (0..12u8).prop_map(Step::Del),
        2 => (0..12u8, 0..12u8).prop_map(|(a, b)| Step::DelRange(a, b)),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn it_behaves_like_a_map(batches in prop::collection::vec(prop::collection::vec(step(), 1..6), 1..12)) {
        let (dir, mut kv) = open();
        let mut model = BTreeMap::new();
        for batch in batches {
            let mut ops = Vec::new();
            for step in batch {
                match step {
                    Step::Put(k, n) => {
                        model.insert(vec![k], vec![k; n]);
                        ops.push(Op::Put(Table::State, vec![k], vec![k; n]));
                    }
                    Step::Del(k) => {
                        model.remove(&vec![k]);
                        ops.push(Op::Del(Table::State, vec![k]));
                    }
                    Step::DelRange(a, b) => {
                        model.retain(|k, _| !(k[0] >= a && k[0] < b));
                        ops.push(Op::DelRange(Table::State, vec![a], vec![b]));
                    }
                    Step::Reopen => {
                        kv.write(std::mem::take(&mut ops)).expect("write");
                        kv.sync().expect("sync");
                        drop(kv);
                        kv = reopen(&dir);
                    }
                }
            }
            kv.write(ops).expect("write");
            let rows = kv.scan(Table::State, &[], &KEY_END, usize::MAX).expect("scan");
            prop_assert_eq!(&rows, &model.clone().into_iter().collect::<Vec<_>>());
            prop_assert_eq!(kv.last(Table::State).expect("last"), rows.last().cloned());
            prop_assert_eq!(kv.last(Table::Log).expect("last"), None);
        }
    }
}
