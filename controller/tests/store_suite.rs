//! openraft's own suite over our log store and state machine.

use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::{StoreBuilder, Suite};
use sallyport_controller::raft::sled_kv::SledKv;
use sallyport_controller::raft::{LogStore, StateMachine, TypeConfig};

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError<u64>> {
        let dir = tempfile::tempdir().expect("temporary folder");
        let kv = Arc::new(SledKv::open(&dir.path().join("store")).expect("opens"));
        let log = LogStore::new(kv.clone()).expect("starts its thread");
        let machine = StateMachine::open(kv, &dir.path().join("snapshots")).expect("opens");
        Ok((dir, log, machine))
    }
}

#[test]
fn the_store_passes_the_suite_of_openraft() {
    Suite::test_all(Builder).expect("passes");
}
