//! openraft's own suite over our log store and state machine, on each engine.

use std::path::Path;
use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::{StoreBuilder, Suite};
use sallyport_controller::Engine;
use sallyport_controller::raft::kv::Kv;
use sallyport_controller::raft::{LogStore, StateMachine, TypeConfig, store};

struct Builder(Engine);

impl StoreBuilder<TypeConfig, LogStore, StateMachine, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError<u64>> {
        let dir = tempfile::tempdir().expect("temporary folder");
        let kv = opened(&dir.path().join("store"), self.0);
        let log = LogStore::new(kv.clone()).expect("starts its thread");
        let machine = StateMachine::open(kv, &dir.path().join("snapshots")).expect("opens");
        Ok((dir, log, machine))
    }
}

fn opened(path: &Path, engine: Engine) -> Arc<dyn Kv> {
    store::open(path, engine).expect("opens")
}

#[test]
fn sled_passes_the_suite_of_openraft() {
    Suite::test_all(Builder(Engine::Sled)).expect("passes");
}

#[test]
fn redb_passes_the_suite_of_openraft() {
    Suite::test_all(Builder(Engine::Redb)).expect("passes");
}
