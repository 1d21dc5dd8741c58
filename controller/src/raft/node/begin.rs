//! How a member begins, and how its end is noticed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{Fatal, InitializeError, RaftError};
use openraft::{BasicNode, Raft};
use tokio::sync::watch;

use super::{Health, NodeOptions};
use crate::config::Engine;
use crate::error::Error;
use crate::raft::ahead::Ahead;
use crate::raft::kv::{Kv, KvError};
use crate::raft::{Shared, TypeConfig, membership, store};
use crate::state::SharedBatch;

/// How long a store that another (ending) process holds is waited for.
const OPEN_PATIENCE: Duration = Duration::from_secs(5);
/// How long the group of one may take to have a leader, including applying what the log still holds.
const LEADER_PATIENCE: Duration = Duration::from_secs(120);

/// Opens the store; a process that is just ending still holds it for a moment.
pub(super) async fn open(path: &Path, engine: Engine) -> Result<Arc<dyn Kv>, Error> {
    let pause = Duration::from_millis(50);
    let mut waited = Duration::ZERO;
    loop {
        let dir = path.to_path_buf();
        match tokio::task::spawn_blocking(move || store::open(&dir, engine)).await {
            Ok(Ok(kv)) => return Ok(kv),
            Ok(Err(KvError::Locked { .. })) if waited < OPEN_PATIENCE => {
                tokio::time::sleep(pause).await;
                waited += pause;
            }
            Ok(Err(e)) => return Err(e.into()),
            Err(e) => return Err(Error::storage(path, format!("opening it panicked: {e}"))),
        }
    }
}

/// Makes the group on a pristine store if asked to; where this node is the whole group, has it elected without waiting for the
/// election timeout.
pub(super) async fn lead_alone(raft: &Raft<TypeConfig>, options: &NodeOptions, store: &Path) -> Result<(), Error> {
    let storage = |e: &dyn std::fmt::Display| Error::storage(store, e.to_string());
    if !raft.is_initialized().await.map_err(|e| storage(&e))? {
        let Some(address) = &options.found else { return Ok(()) };
        let first = BTreeMap::from([(options.id, BasicNode { addr: address.clone() })]);
        match raft.initialize(first).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
            Err(e) => return Err(storage(&e)),
        }
        // What it says of itself lags behind a little.
        raft.wait(Some(LEADER_PATIENCE))
            .metrics(|m| m.membership_config.voter_ids().next().is_some() || m.running_state.is_err(), "a group of one")
            .await
            .map_err(|e| storage(&e))?;
    }
    let membership = membership::of(raft);
    if !(membership.voters.len() == 1 && membership.voters.contains(&options.id)) {
        return Ok(());
    }
    raft.trigger().elect().await.map_err(|e| storage(&e))?;
    let id = options.id;
    raft.wait(Some(LEADER_PATIENCE))
        .metrics(|m| m.current_leader == Some(id) || m.running_state.is_err(), "leader of a group of one")
        .await
        .map_err(|e| storage(&e))?;
    raft.ensure_linearizable().await.map_err(|e| storage(&e))?;
    Ok(())
}

/// Has the Raft core meet a failure of the disk that came after an entry was sent to the others: it looks at its log at the next
/// append only.
pub(super) async fn end_with_disk(raft: Raft<TypeConfig>, ahead: Arc<Ahead>) {
    ahead.failure().await;
    let _ = raft.client_write(SharedBatch::default()).await; // it fails
}

/// Any storage error stops the Raft core for good; this notices and says so.
pub(super) async fn watch_health(
    raft: Raft<TypeConfig>,
    shared: Arc<Shared>,
    store: PathBuf,
    health: watch::Sender<Health>,
) {
    let mut metrics = raft.metrics();
    // The watcher must not keep the member alive.
    drop(raft);
    loop {
        let state = metrics.borrow_and_update().running_state.clone();
        match state {
            Ok(()) => {}
            Err(Fatal::Stopped) => break,
            Err(fatal) => {
                if let Some(beyond) = shared.beyond() {
                    tracing::error!(%beyond, "this controller stops");
                    health.send_replace(Health::Outdated(beyond.clone()));
                    return;
                }
                let cause = fatal.to_string();
                tracing::error!(path = %store.display(), %cause, "storage failed, this controller answers nothing any more");
                health.send_replace(Health::Failed { path: store, cause });
                return;
            }
        }
        if metrics.changed().await.is_err() {
            break;
        }
    }
    health.send_replace(Health::Stopped);
}
