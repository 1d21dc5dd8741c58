//! Applies committed entries to [`State`] and keeps its rows in [`Kv`].

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, StorageIOError};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::kv::{KEY_END, Kv, Op, Table};
use super::snapshot::SnapshotDir;
use super::{Entry, LogId, LogTime, SnapshotMeta, StorageError, StoredMembership, TypeConfig, codec};
use crate::state::{ReplyBatch, State};

const APPLIED: &[u8] = b"applied";

/// The state, for readers all over the process.
#[derive(Debug)]
pub struct Shared {
    state: RwLock<State>,
    changed: watch::Sender<u64>,
    time: OnceLock<Arc<LogTime>>,
}

impl Shared {
    /// Looks at the state. Hold it briefly and never across an await: `apply` waits for it.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        // A panic while writing would have stopped the Raft core, and with it every answer.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on `time` is at least the time of the state.
    pub(super) fn keep(&self, time: Arc<LogTime>) {
        time.applied(self.read().now_ms());
        let _ = self.time.set(time); // a state has one time
    }

    fn tell_time(&self, now_ms: u64) {
        if let Some(time) = self.time.get() {
            time.applied(now_ms);
        }
    }

    /// Tells when something changed that gateways must hear of.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// Where the state machine stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Applied {
    log_id: Option<LogId>,
    membership: StoredMembership,
}

/// The state machine of the group.
pub struct StateMachine {
    kv: Arc<dyn Kv>,
    snapshots: SnapshotDir,
    shared: Arc<Shared>,
    applied: Applied,
}

impl StateMachine {
    /// Loads the state from `kv`; snapshots live in `snapshots`.
    pub fn open(kv: Arc<dyn Kv>, snapshots: &Path) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let snapshots = SnapshotDir::open(snapshots)?;
        let applied = match kv.get(Table::Meta, APPLIED)? {
            Some(bytes) => codec::decode::<Applied>(&bytes)?,
            None => Applied::default(),
        };
        snapshots.put_away_ahead_of(applied.log_id)?;
        let rows = kv.scan(Table::State, &[], &KEY_END, usize::MAX)?;
        let state = State::from_rows(rows)?;
        let (changed, _) = watch::channel(0);
        let shared = Arc::new(Shared { state: RwLock::new(state), changed, time: OnceLock::new() });
        Ok(Self { kv, snapshots, shared, applied })
    }

    /// The state, for readers.
    pub fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// One write for all entries, their rows and the pointer together. Not synced: the log is durable, and entries behind
    /// the pointer are applied again after a crash.
    fn apply_all(&mut self, entries: Vec<Entry>) -> Result<Vec<ReplyBatch>, StorageIOError<u64>> {
        let mut replies = Vec::with_capacity(entries.len());
        let (mut ops, notices, now_ms) = {
            let mut state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
            for entry in entries {
                self.applied.log_id = Some(entry.log_id);
                replies.push(match entry.payload {
                    EntryPayload::Blank => ReplyBatch::default(),
                    EntryPayload::Normal(batch) if !batch.is_known() => {
                        let newer = "the log holds a command of a newer version: update this controller";
                        return Err(StorageIOError::apply(entry.log_id, &io::Error::other(newer)));
                    }
                    EntryPayload::Normal(batch) => state.apply_batch(&batch),
                    EntryPayload::Membership(membership) => {
                        self.applied.membership = StoredMembership::new(Some(entry.log_id), membership);
                        ReplyBatch::default()
                    }
                });
            }
            (state.take_changes(), state.notices(), state.now_ms())
        };
        self.shared.tell_time(now_ms);
        ops.push(self.put_applied()?);
        self.kv.write(ops).map_err(|e| StorageIOError::write_state_machine(&e))?;
        self.shared.changed.send_if_modified(|seen| std::mem::replace(seen, notices) != notices);
        Ok(replies)
    }

    fn put_applied(&self) -> Result<Op, StorageIOError<u64>> {
        let bytes = codec::encode(&self.applied).map_err(|e| StorageIOError::write_state_machine(&e))?;
        Ok(Op::Put(Table::Meta, APPLIED.to_vec(), bytes))
    }

    fn meta(&self) -> SnapshotMeta {
        let snapshot_id = match self.applied.log_id {
            Some(id) => format!("{}-{}-{}", id.leader_id.term, id.leader_id.node_id, id.index),
            None => "empty".into(),
        };
        SnapshotMeta { last_log_id: self.applied.log_id, last_membership: self.applied.membership.clone(), snapshot_id }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.applied.log_id, self.applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<ReplyBatch>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        // openraft does not notice when this task panics. A command that makes us panic stops the node like a bad disk.
        catch_unwind(AssertUnwindSafe(|| self.apply_all(entries)))
            .unwrap_or_else(|_| {
                Err(StorageIOError::write_state_machine(&io::Error::other("applying the log panicked")))
            })
            .map_err(StorageError::from)
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        // The view is taken here, between applies; building goes on beside later ones.
        SnapshotBuilder { meta: self.meta(), state: self.shared.read().to_bytes(), snapshots: self.snapshots.clone() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Vec<u8>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Box<Vec<u8>>) -> Result<(), StorageError> {
        let mut state =
            State::from_bytes(&snapshot).map_err(|e| StorageIOError::read_snapshot(Some(meta.signature()), &e))?;
        self.applied = Applied { log_id: meta.last_log_id, membership: meta.last_membership.clone() };
        let mut ops = vec![Op::DelRange(Table::State, Vec::new(), KEY_END.to_vec())];
        ops.extend(state.all_rows());
        ops.push(self.put_applied()?);
        // The file first: should we die between, the rows are still the old ones and the snapshot is asked for again.
        self.snapshots.save(meta, &snapshot).map_err(|e| StorageIOError::write_snapshot(Some(meta.signature()), &e))?;
        self.kv
            .write(ops)
            .and_then(|()| self.kv.sync())
            .map_err(|e| StorageIOError::write_snapshot(Some(meta.signature()), &e))?;
        let mut current = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
        state.continue_notices(&current);
        let (notices, now_ms) = (state.notices(), state.now_ms());
        *current = state;
        drop(current);
        self.shared.tell_time(now_ms);
        self.shared.changed.send_replace(notices);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let loaded = self.snapshots.load().map_err(|e| StorageIOError::read_snapshot(None, &e))?;
        Ok(loaded.map(|(meta, state)| Snapshot { meta, snapshot: Box::new(state) }))
    }
}

/// A view of the state on its way to a file.
pub struct SnapshotBuilder {
    meta: SnapshotMeta,
    state: Vec<u8>,
    snapshots: SnapshotDir,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let (snapshots, meta, state) = (self.snapshots.clone(), self.meta.clone(), std::mem::take(&mut self.state));
        let signature = meta.signature();
        tokio::task::spawn_blocking(move || {
            snapshots.save(&meta, &state)?;
            Ok(Snapshot { meta, snapshot: Box::new(state) })
        })
        .await
        .map_err(std::io::Error::other)
        .and_then(|r: std::io::Result<_>| r)
        .map_err(|e| StorageIOError::write_snapshot(Some(signature), &e).into())
    }
}
