use std::sync::Arc;

use super::*;
use crate::raft::kv::{KEY_END, suite};

fn open() -> (tempfile::TempDir, SledKv) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let kv = SledKv::open(&dir.path().join("db")).expect("opens");
    (dir, kv)
}

fn reopen(dir: &tempfile::TempDir) -> SledKv {
    suite::opened(|| SledKv::open(&dir.path().join("db"))).expect("opens again")
}

#[test]
fn it_does_what_every_engine_must() {
    suite::run(&|path| Ok(Arc::new(SledKv::open(path)?)));
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
fn a_damaged_store_is_an_error_and_not_an_empty_one() {
    let (dir, kv) = open();
    kv.write(vec![Op::Put(Table::Log, vec![1], vec![42])]).expect("write");
    kv.sync().expect("sync");
    drop(kv);
    drop(reopen(&dir)); // so that it is damage, not the lock, that is met
    fs::write(dir.path().join("db/conf"), b"garbage that is no configuration").expect("damage");
    let met = suite::opened(|| SledKv::open(&dir.path().join("db")));
    assert!(matches!(met, Err(KvError::Corrupt { .. } | KvError::Io { .. })));
}
