use std::sync::Arc;

use super::*;
use crate::raft::kv::suite;

#[test]
fn it_does_what_every_engine_must() {
    suite::run(&|path| Ok(Arc::new(RedbKv::open(path)?)));
}

#[test]
fn a_database_left_half_made_is_made_anew() {
    let dir = tempfile::tempdir().expect("temporary folder");
    fs::write(dir.path().join(FILE_NEW), [7; 5_000]).expect("plants");
    let kv = RedbKv::open(dir.path()).expect("opens");
    kv.write(vec![Op::Put(Table::Log, vec![1], vec![2])]).expect("writes");
    assert!(!dir.path().join(FILE_NEW).exists());
}

#[test]
fn a_file_that_is_no_database_is_an_error_that_names_it() {
    for content in [&b"garbage that is no database"[..], b"", &[0; 70_000]] {
        let dir = tempfile::tempdir().expect("temporary folder");
        fs::write(dir.path().join(FILE), content).expect("plants");
        let Err(error) = RedbKv::open(dir.path()) else { panic!("{} bytes", content.len()) };
        assert!(matches!(error, KvError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains(FILE), "{error}");
    }
}
