//! The store of a group that begins with a state from elsewhere.

use std::collections::BTreeMap;
use std::path::Path;

use openraft::storage::{RaftLogStorage, RaftStateMachine};
use openraft::{BasicNode, CommittedLeaderId, Membership};

use super::{LogId, LogStore, SnapshotMeta, StateMachine, StoredMembership, Vote, store};
use crate::config::Engine;
use crate::error::Error;

/// Makes the store of a group of one in the folder `dir`, which holds none: the member `id`, with `state` (as
/// [`State::to_bytes`](crate::state::State::to_bytes) gives it) as its snapshot.
///
/// The state stands at the end of a log that is purged up to there, so that a member that joins later is sent the
/// snapshot: nothing before it could be replayed.
pub(crate) async fn seed(dir: &Path, engine: Engine, id: u64, state: Vec<u8>) -> Result<(), Error> {
    let path = dir.join("store");
    let storage = |cause: String| Error::storage(&path, cause);
    let kv = store::open(&path, engine)?;
    let mut log = LogStore::new(kv.clone()).map_err(|e| storage(e.to_string()))?;
    let mut machine = StateMachine::open(kv, &dir.join("snapshots")).map_err(|e| storage(e.to_string()))?;
    // Term 1 is over: the member calls an election at its start and leads from term 2.
    let last = LogId::new(CommittedLeaderId::new(1, id), 1);
    let members = Membership::new(vec![[id].into()], BTreeMap::from([(id, BasicNode::default())]));
    let meta = SnapshotMeta {
        last_log_id: Some(last),
        last_membership: StoredMembership::new(Some(last), members),
        snapshot_id: format!("restored-{}", last.index),
    };
    machine.install_snapshot(&meta, Box::new(state.into())).await.map_err(|e| storage(e.to_string()))?;
    log.save_vote(&Vote::new_committed(1, id)).await.map_err(|e| storage(e.to_string()))?;
    log.purge(last).await.map_err(|e| storage(e.to_string()))?;
    Ok(())
}
