//! Consensus: the openraft group, its log and its state machine over [`kv::Kv`].
//!
//! Every openraft type stays inside this module, so that its next version touches nothing else.

#![allow(clippy::result_large_err, reason = "the traits of openraft demand its errors, and these are large")]

mod ahead;
mod checked;
mod codec;
mod commit;
mod convert;
mod failover;
mod flight;
pub mod kv;
mod ledger;
mod load;
mod log_clock;
mod log_store;
mod log_time;
pub mod membership;
pub mod network;
mod node;
mod pre_vote;
mod propose;
mod read_ahead;
mod reads;
mod recent;
pub mod redb_kv;
mod schema;
mod seed;
#[cfg(test)]
mod simulation;
pub mod sled_kv;
mod snapshot;
mod state_machine;
pub mod store;
mod terms;
mod view;

pub use convert::{Converted, convert, convert_store};
pub use log_store::LogStore;
pub use log_time::LogTime;
pub use node::{Figures, Health, Node, NodeOptions};
pub use propose::ProposeError;
pub(crate) use seed::seed;
pub use snapshot::{ChunkReader, ChunkWriter, Chunks, SnapshotData, SnapshotDir, SnapshotWriter};
pub use state_machine::{Shared, StateCopy, StateMachine};

use crate::state::{ReplyBatch, SharedBatch};

/// Where tasks run and what time it is: tokio.
#[cfg(not(test))]
type Runtime = openraft::TokioRuntime;
#[cfg(not(test))]
use tokio::task::AbortHandle;

#[cfg(test)]
use simulation::{AbortHandle, Runtime};

openraft::declare_raft_types!(
    /// What the group agrees on: batches of commands.
    pub TypeConfig:
        D = SharedBatch,
        R = ReplyBatch,
        NodeId = u64,
        Node = openraft::BasicNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = SnapshotData,
        AsyncRuntime = Runtime,
);

type StorageError = openraft::StorageError<u64>;
type LogId = openraft::LogId<u64>;
type Vote = openraft::Vote<u64>;
type StoredMembership = openraft::StoredMembership<u64, openraft::BasicNode>;
type SnapshotMeta = openraft::SnapshotMeta<u64, openraft::BasicNode>;
type Metrics = openraft::RaftMetrics<u64, openraft::BasicNode>;
type Entry = openraft::Entry<TypeConfig>;
type JoinHandle = <Runtime as openraft::AsyncRuntime>::JoinHandle<()>;
type Instant = <Runtime as openraft::AsyncRuntime>::Instant;

/// Runs what waits for the disk beside the other tasks.
pub(crate) async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> std::io::Result<T> {
    #[cfg(test)]
    if simulation::is_active() {
        simulation::disk_pause().await;
        return Ok(call());
    }
    tokio::task::spawn_blocking(call).await.map_err(std::io::Error::other)
}
