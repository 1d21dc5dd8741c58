//! Applies committed entries to [`State`] and keeps its rows in [`Kv`].

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, StorageIOError};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::kv::{KEY_END, Kv, Op, Row, Table};
use super::ledger::LedgerReader;
use super::log_store::{self, Received};
use super::snapshot::{SnapshotData, SnapshotDir, SnapshotWriter};
use super::view::{MAX_BEHIND, View, Views};
use super::{Entry, LogId, LogTime, SnapshotMeta, StorageError, StoredMembership, TypeConfig, blocking, codec};
use crate::software::{Beyond, Software};
use crate::state::{CommandBatch, ReplyBatch, RowReader, RowWriter, State};

pub(super) const APPLIED: &[u8] = b"applied";
/// The snapshot whose rows are taking the place of those in the store: until this is gone, the store holds some of each.
pub(super) const INSTALLING: &[u8] = b"installing";
/// Rows in one write of an installation; fewer than any store takes.
pub(super) const PAGE: usize = 96;
/// Writes between two barriers of an installation.
const PAGES_PER_SYNC: usize = 512;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[cfg(debug_assertions)]
thread_local! {
    /// Whether this thread looks at a state.
    static HELD: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Somebody looks at the state ([`Shared::read`]).
#[derive(Debug)]
pub struct Look<'s>(RwLockReadGuard<'s, State>);

impl std::ops::Deref for Look<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

#[cfg(debug_assertions)]
impl Drop for Look<'_> {
    fn drop(&mut self) {
        HELD.set(false);
    }
}

/// The state, for readers all over the process.
#[derive(Debug)]
pub struct Shared {
    state: RwLock<State>,
    changed: watch::Sender<u64>,
    time: OnceLock<Arc<LogTime>>,
    /// Why this software cannot go on.
    beyond: OnceLock<Beyond>,
    /// Index of the last entry that the state shows.
    applied: AtomicU64,
}

impl Shared {
    /// Looks at the state. Hold it briefly and never across an await: `apply` waits for it. Nobody who holds it may look again: behind an
    /// `apply` that waits, both would wait for ever. Builds with assertions panic there.
    pub fn read(&self) -> Look<'_> {
        #[cfg(debug_assertions)]
        HELD.with(|held| {
            assert!(!held.replace(true), "who looks at the state looks at it again");
        });
        // A panic while writing would have stopped the Raft core, and with it every answer.
        Look(self.state.read().unwrap_or_else(PoisonError::into_inner))
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

    /// Index of the last entry that the state shows, or an earlier one.
    pub(super) fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// Tells when something changed that gateways must hear of.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// What the log or a snapshot brought that is beyond this software; the member has stopped because of it.
    pub fn beyond(&self) -> Option<&Beyond> {
        self.beyond.get()
    }

    fn refuse(&self, beyond: Beyond) -> io::Error {
        io::Error::other(self.beyond.get_or_init(|| beyond).to_string())
    }
}

/// Where the state machine stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Applied {
    pub(super) log_id: Option<LogId>,
    pub(super) membership: StoredMembership,
}

/// The state machine of the group.
pub struct StateMachine {
    kv: Arc<dyn Kv>,
    views: Arc<Views>,
    snapshots: SnapshotDir,
    shared: Arc<Shared>,
    applied: Applied,
    software: Software,
    received: Option<Installs>,
}

/// Who waits for an installation learns that there will be none, also when the task that makes them panics.
struct Installs(Arc<Received>);

impl Drop for Installs {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl StateMachine {
    /// Loads the state from `kv`; snapshots live in `snapshots`.
    pub fn open(kv: Arc<dyn Kv>, snapshots: &Path) -> Result<Self, BoxError> {
        Self::open_as(kv, snapshots, Software::current(), MAX_BEHIND)
    }

    /// The same for another version of this software, where changes wait until there are `behind` rows. A state that is beyond it
    /// is refused as [`Beyond`].
    pub(crate) fn open_as(
        kv: Arc<dyn Kv>,
        snapshots: &Path,
        software: Software,
        behind: usize,
    ) -> Result<Self, BoxError> {
        if let Some(core) = kv.get(Table::State, &State::core_key())? {
            let (level, since) = State::level_in(&core);
            software.reaches(level, &since)?;
        }
        let snapshots = SnapshotDir::open(snapshots)?;
        let views = Views::new(kv.clone(), behind);
        if let Some(bytes) = kv.get(Table::Meta, INSTALLING)? {
            finish_installation(&*kv, &views, &snapshots, &codec::decode(&bytes)?, &software)?;
        }
        let applied = match kv.get(Table::Meta, APPLIED)? {
            Some(bytes) => codec::decode::<Applied>(&bytes)?,
            None => Applied::default(),
        };
        snapshots.put_away_ahead_of(applied.log_id)?;
        let state = super::load::load(&*kv)?;
        super::load::check_rest(&kv)?;
        let (changed, _) = watch::channel(0);
        let shared = Arc::new(Shared {
            state: RwLock::new(state),
            changed,
            time: OnceLock::new(),
            beyond: OnceLock::new(),
            applied: AtomicU64::new(applied.log_id.map_or(0, |id| id.index)),
        });
        Ok(Self { kv, views, snapshots, shared, applied, software, received: None })
    }

    /// The state, for readers.
    pub fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// The log leaves these snapshots to this state machine.
    pub(super) fn installs(&mut self, received: Arc<Received>) {
        self.received = Some(Installs(received));
    }

    /// Copies of the state, for a backup, and a place for snapshots that come from others.
    pub(super) fn copier(&self) -> Copier {
        let (kv, views) = (self.kv.clone(), self.views.clone());
        let (snapshots, shared) = (self.snapshots.clone(), self.shared.clone());
        Copier { kv, views, snapshots, shared, logged: Arc::default() }
    }

    /// One change for all entries, their rows and the pointer together. Not synced, and maybe not written yet: the log is durable,
    /// and entries behind the pointer are applied again after a crash.
    fn apply_all(&mut self, entries: Vec<Entry>) -> Result<Vec<ReplyBatch>, StorageIOError<u64>> {
        let mut replies = Vec::with_capacity(entries.len());
        let mut change = self.views.change();
        let (mut ops, notices, now_ms) = {
            let mut state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
            for entry in entries {
                if let EntryPayload::Normal(batch) = &entry.payload
                    && let Err(beyond) = understands(&self.software, batch)
                {
                    return Err(StorageIOError::apply(entry.log_id, &self.shared.refuse(beyond)));
                }
                self.applied.log_id = Some(entry.log_id);
                replies.push(match entry.payload {
                    EntryPayload::Blank => ReplyBatch::default(),
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
        change.write_behind(ops).map_err(|e| StorageIOError::write_state_machine(&e))?;
        drop(change);
        self.note_applied();
        self.shared.changed.send_if_modified(|seen| std::mem::replace(seen, notices) != notices);
        Ok(replies)
    }

    /// Takes a snapshot in the place of the state.
    fn install(&mut self, meta: &SnapshotMeta, snapshot: &SnapshotData) -> Result<(), StorageError> {
        let mut state = read_state(snapshot, &self.software)
            .map_err(|e| match e.into_inner().map(|e| e.downcast::<Beyond>()) {
                Some(Ok(beyond)) => self.shared.refuse(*beyond),
                Some(Err(e)) => io::Error::other(e),
                None => io::Error::other("the snapshot cannot be read"),
            })
            .map_err(|e| StorageIOError::read_snapshot(Some(meta.signature()), &e))?;
        // The file first: should we die between, the rows are still the old ones and the snapshot is asked for again.
        let data = self
            .snapshots
            .install(meta, snapshot)
            .map_err(|e| StorageIOError::write_snapshot(Some(meta.signature()), &e))?;
        let replacing = self.views.replace();
        install_rows(&*self.kv, &self.views, meta, &data)
            .map_err(|e| StorageIOError::write_snapshot(Some(meta.signature()), &io::Error::other(e)))?;
        self.applied = Applied { log_id: meta.last_log_id, membership: meta.last_membership.clone() };
        let mut current = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
        state.continue_notices(&current);
        let (notices, now_ms) = (state.notices(), state.now_ms());
        *current = state;
        drop(current);
        drop(replacing);
        self.shared.tell_time(now_ms);
        self.note_applied();
        self.shared.changed.send_replace(notices);
        Ok(())
    }

    fn note_applied(&self) {
        self.shared.applied.store(self.applied.log_id.map_or(0, |id| id.index), Ordering::Release);
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

/// The next start has less to do.
impl Drop for StateMachine {
    fn drop(&mut self) {
        if let Err(error) = self.views.change().catch_up() {
            tracing::debug!(%error, "what was applied last is applied again at the next start");
        }
    }
}

/// Whether a version of this software can apply a batch as all others do. What raises the level beyond it counts as not: what
/// comes behind may hold what it would misread.
fn understands(software: &Software, batch: &CommandBatch) -> Result<(), Beyond> {
    if let Some((level, since)) = batch.raises_to() {
        software.reaches(level, since)?;
    }
    if batch.is_known(software.level) { Ok(()) } else { Err(software.unknown_command()) }
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
        // The view begins here, between applies; building goes on beside later ones.
        let view = self.views.begin(|| ()).map(|(view, ())| view);
        SnapshotBuilder { meta: self.meta(), view: Some(view), snapshots: self.snapshots.clone() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotData>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Box<SnapshotData>) -> Result<(), StorageError> {
        let installed = self.install(meta, &snapshot);
        if let (Err(_), Some(Installs(received))) = (&installed, &self.received) {
            received.end();
        }
        installed
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let newest = self.snapshots.newest().map_err(|e| StorageIOError::read_snapshot(None, &e))?;
        Ok(newest.map(|(meta, data)| Snapshot { meta, snapshot: Box::new(data) }))
    }
}

/// The state in a snapshot, whose rows must be in order.
fn read_state(data: &SnapshotData, software: &Software) -> io::Result<State> {
    let damaged = |e: BoxError| io::Error::new(io::ErrorKind::InvalidData, e);
    let (mut loading, mut last) = (State::loading_beside_store(), None);
    for row in RowReader::begin(data.reader()?)? {
        let (key, value) = row?;
        if last.as_ref().is_some_and(|last| *last >= key) {
            return Err(damaged("the rows of a snapshot are not in order".into()));
        }
        // The first row, and what comes behind it may be beyond this software.
        if key == State::core_key() {
            let (level, since) = State::level_in(&value);
            software.reaches(level, &since).map_err(|e| damaged(e.into()))?;
        }
        loading.row(&key, &value).map_err(|e| damaged(e.into()))?;
        last = Some(key);
    }
    Ok(loading.end())
}

/// Makes the rows in the store those of a snapshot, which is on stable storage and has been read before. Only what differs is
/// written. After a crash it is done again from the beginning.
fn install_rows(kv: &dyn Kv, views: &Views, meta: &SnapshotMeta, data: &SnapshotData) -> Result<(), BoxError> {
    // What waits would be written over what is installed, and the rows are compared with those in the store.
    views.change().catch_up()?;
    kv.write(vec![Op::Put(Table::Meta, INSTALLING.to_vec(), codec::encode(meta)?)])?;
    kv.sync()?;
    let mut ops: Vec<Op> = Vec::with_capacity(PAGE);
    let mut pages = 0;
    let mut push = |op: Op| -> Result<(), BoxError> {
        ops.push(op);
        if ops.len() == PAGE {
            views.change().write(std::mem::replace(&mut ops, Vec::with_capacity(PAGE)))?;
            pages += 1;
            if pages % PAGES_PER_SYNC == 0 {
                kv.sync()?;
            }
        }
        Ok(())
    };
    // Both are in the order of keys, and only what was passed is written.
    let mut old = Cursor::new(kv);
    for row in RowReader::begin(data.reader()?)? {
        let (key, value) = row?;
        while let Some((gone, _)) = old.next_if(|old| *old < key)? {
            push(Op::Del(Table::State, gone))?;
        }
        match old.next_if(|old| *old == key)? {
            Some((_, same)) if same == value => {}
            _ => push(Op::Put(Table::State, key, value))?,
        }
    }
    while let Some((gone, _)) = old.next_if(|_| true)? {
        push(Op::Del(Table::State, gone))?;
    }
    let applied = Applied { log_id: meta.last_log_id, membership: meta.last_membership.clone() };
    ops.push(Op::Put(Table::Meta, APPLIED.to_vec(), codec::encode(&applied)?));
    ops.push(Op::Del(Table::Meta, INSTALLING.to_vec()));
    // The log that it stands for goes with it: `LogStore::purge` leaves that to us.
    if let Some(last) = &meta.last_log_id {
        ops.extend(log_store::forget(last)?);
    }
    views.change().write(ops)?;
    kv.sync()?;
    Ok(())
}

/// Ends an installation that a crash stopped.
fn finish_installation(
    kv: &dyn Kv,
    views: &Views,
    snapshots: &SnapshotDir,
    meta: &SnapshotMeta,
    software: &Software,
) -> Result<(), BoxError> {
    let data = match snapshots.newest()? {
        Some((found, data)) if found == *meta => data,
        _ => {
            return Err(
                "a snapshot was about to take the place of the state, and its file is gone: a member of a group is \
                        stopped, its folder raft/store removed, and started again"
                    .into(),
            );
        }
    };
    read_state(&data, software)?;
    tracing::info!("going on to install a snapshot");
    install_rows(kv, views, meta, &data)
}

/// Reads the rows of the state in a store, some at a time.
struct Cursor<'k> {
    kv: &'k dyn Kv,
    page: std::iter::Peekable<std::vec::IntoIter<Row>>,
    /// Where the next page begins; `None` behind the last.
    next: Option<Vec<u8>>,
}

impl<'k> Cursor<'k> {
    fn new(kv: &'k dyn Kv) -> Self {
        Self { kv, page: Vec::new().into_iter().peekable(), next: Some(Vec::new()) }
    }

    fn next_if(&mut self, wanted: impl Fn(&Vec<u8>) -> bool) -> Result<Option<Row>, BoxError> {
        if self.page.peek().is_none()
            && let Some(from) = self.next.take()
        {
            let rows = self.kv.scan(Table::State, &from, &KEY_END, PAGE)?;
            if let (Some((last, _)), PAGE) = (rows.last(), rows.len()) {
                self.next = Some([last.as_slice(), &[0]].concat());
            }
            self.page = rows.into_iter().peekable();
        }
        Ok(self.page.next_if(|(key, _)| wanted(key)))
    }
}

/// Writes the rows of a view.
fn write_rows(mut view: View, writer: SnapshotWriter) -> io::Result<SnapshotWriter> {
    let mut rows = RowWriter::begin(writer)?;
    while let Some(page) = view.next_page().map_err(io::Error::other)? {
        for (key, value) in page {
            rows.row(&key, &value)?;
        }
    }
    Ok(rows.end())
}

/// A view of the state on its way to a file.
pub struct SnapshotBuilder {
    meta: SnapshotMeta,
    view: Option<super::kv::Result<View>>,
    snapshots: SnapshotDir,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let (snapshots, meta, view) = (self.snapshots.clone(), self.meta.clone(), self.view.take());
        let signature = meta.signature();
        blocking(move || {
            let view = view.ok_or_else(|| io::Error::other("a builder builds once"))?.map_err(io::Error::other)?;
            let writer = write_rows(view, snapshots.writer(&meta)?)?;
            let data = snapshots.keep(&meta, writer)?;
            Ok(Snapshot { meta, snapshot: Box::new(data) })
        })
        .await
        .and_then(|r: io::Result<_>| r)
        .map_err(|e| StorageIOError::write_snapshot(Some(signature), &e).into())
    }
}

/// A copy of the state as it was at one moment, in a file that goes with it.
#[derive(Debug)]
pub struct StateCopy {
    /// Names the cluster.
    pub cluster_id: Vec<u8>,
    /// The log's time, milliseconds since 1970.
    pub log_time_ms: u64,
    /// Index of the last entry in it.
    pub applied: u64,
    /// The state.
    pub state: SnapshotData,
}

/// Makes copies of the state, and room for those of others.
#[derive(Clone)]
pub(super) struct Copier {
    kv: Arc<dyn Kv>,
    views: Arc<Views>,
    pub(super) snapshots: SnapshotDir,
    shared: Arc<Shared>,
    /// Entries of the audit log whose rows are known to be in the store.
    logged: Arc<AtomicU64>,
}

impl Copier {
    /// The audit log in this store.
    pub(super) fn ledger(&self) -> LedgerReader {
        LedgerReader::new(self.kv.clone(), self.views.clone(), self.shared.clone(), self.logged.clone())
    }

    /// Copies the state to a file while it goes on changing.
    pub(super) fn copy(&self) -> Result<StateCopy, BoxError> {
        let (view, (cluster_id, log_time_ms, applied)) = self.views.begin(|| {
            let state = self.shared.read();
            (state.cluster_id().to_vec(), state.now_ms(), self.kv.get(Table::Meta, APPLIED))
        })?;
        let applied = match applied? {
            Some(bytes) => codec::decode::<Applied>(&bytes)?,
            None => Applied::default(),
        };
        let index = applied.log_id.map_or(0, |id| id.index);
        let meta = SnapshotMeta {
            last_log_id: applied.log_id,
            last_membership: applied.membership,
            snapshot_id: "copy".into(),
        };
        let writer = write_rows(view, self.snapshots.copy_writer(&meta)?)?;
        Ok(StateCopy { cluster_id, log_time_ms, applied: index, state: self.snapshots.copied(writer)? })
    }
}

#[cfg(test)]
#[path = "state_machine/tests.rs"]
mod tests;
