//! The Raft log, the vote and the log pointers in [`Kv`].

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, OptionalSend, RaftLogReader, StorageIOError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ahead::{self, Ahead};
use super::commit::Commit;
use super::kv::{KEY_END, Kv, Op, Table};
use super::recent::Recent;
use super::state_machine::{APPLIED, Applied};
use super::{Entry, LogId, StorageError, TypeConfig, Vote, codec};

pub(super) const VOTE: &[u8] = b"vote";
pub(super) const PURGED: &[u8] = b"purged";
const COMMITTED: &[u8] = b"committed";
/// No member's id.
const NOBODY: u64 = 0;

/// Entries handed out at once to a peer that lags, by count.
const MAX_READ_ENTRIES: usize = 256;
/// And by their encoded size, bytes; a single larger one still goes. A call to a follower should end within a heartbeat also over
/// a slow line: 200 ms, the default, are enough for this at 3 Mbit/s. Over a slower one less goes at once (see `super::flight`).
pub(super) const MAX_READ_BYTES: usize = 64 * 1024;
/// Entries looked at together on the way there.
const READ_PAGE: usize = 16;

/// How often a snapshot that is being installed is looked after when entries behind it come.
const INSTALL_LOOK: Duration = Duration::from_millis(10);

/// What log and state machine know together of the snapshots that came from other members.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// First index behind the newest one that was given to openraft, 0 for none.
    next: AtomicU64,
    /// Whether no more of them will be installed: the state machine has failed, or is gone.
    ended: AtomicBool,
}

impl Received {
    /// Notes a snapshot up to `last`, before openraft gets it.
    pub(super) fn note(&self, last: &LogId) {
        self.next.fetch_max(last.index.saturating_add(1), Ordering::AcqRel);
    }

    /// Nobody needs to wait for an installation any more.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }
}

/// The log; clones share it.
#[derive(Clone)]
pub struct LogStore {
    kv: Arc<dyn Kv>,
    commit: Arc<Commit>,
    received: Arc<Received>,
    /// Last index in one that the state machine may not have installed yet.
    installing: Option<u64>,
    ahead: Arc<Ahead>,
    recent: Arc<Mutex<Recent>>,
    /// The pointer to the last committed entry, while it is newer than the stored one.
    committed: Arc<Mutex<Option<Option<LogId>>>>,
}

impl LogStore {
    /// The log in `kv`. Starts the thread that syncs it.
    pub fn new(kv: Arc<dyn Kv>) -> std::io::Result<Self> {
        Self::of(kv, NOBODY)
    }

    /// The same for a member, which sends ahead of its disk what it appends as a leader.
    pub(super) fn of(kv: Arc<dyn Kv>, id: u64) -> std::io::Result<Self> {
        let commit = Commit::start(kv.clone())?;
        Ok(Self::with_commit(kv, commit, id))
    }

    /// The log of a member in `kv`, synced by `commit`.
    pub(super) fn with_commit(kv: Arc<dyn Kv>, commit: Commit, id: u64) -> Self {
        Self {
            kv,
            commit: Arc::new(commit),
            received: Arc::default(),
            installing: None,
            ahead: Arc::new(Ahead::new(id)),
            recent: Arc::default(),
            committed: Arc::default(),
        }
    }

    fn meta<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StorageIOError<u64>> {
        match self.kv.get(Table::Meta, key).map_err(|e| StorageIOError::read(&e))? {
            Some(bytes) => codec::decode(&bytes).map(Some).map_err(|e| StorageIOError::read(&e)),
            None => Ok(None),
        }
    }

    fn put_meta<T: Serialize>(key: &[u8], value: &T) -> Result<Op, StorageIOError<u64>> {
        Ok(Op::Put(Table::Meta, key.to_vec(), codec::encode(value).map_err(|e| StorageIOError::write(&e))?))
    }

    /// What this node has sent to others and not yet on its disk.
    pub(super) fn ahead(&self) -> Arc<Ahead> {
        self.ahead.clone()
    }

    /// Voters in the smallest of the configurations in force.
    fn voters(&self) -> Result<usize, StorageIOError<u64>> {
        let applied: Applied = self.meta(APPLIED)?.unwrap_or_default();
        let mut membership = applied.membership.membership().clone();
        let next = index_key(applied.log_id.map_or(0, |id| id.index + 1));
        let rows = self.kv.scan(Table::Log, &next, &KEY_END, usize::MAX).map_err(|e| StorageIOError::read_logs(&e))?;
        for (_, bytes) in rows {
            let entry: Entry = codec::decode(&bytes).map_err(|e| StorageIOError::read_logs(&e))?;
            if let EntryPayload::Membership(newer) = entry.payload {
                membership = newer;
            }
        }
        Ok(ahead::smallest(&membership))
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newer pointer to the last committed entry, to go with another write: one of its own would be the dearest part of a
    /// commit.
    fn take_committed(&self, ops: &mut Vec<Op>) -> Result<(), StorageIOError<u64>> {
        let newer = self.committed.lock().unwrap_or_else(PoisonError::into_inner).take();
        ops.extend(match newer {
            Some(Some(id)) => Some(Self::put_meta(COMMITTED, &id)?),
            Some(None) => Some(Op::Del(Table::Meta, COMMITTED.to_vec())),
            None => None,
        });
        Ok(())
    }

    /// Takes the lead out of the vote of a member that led when it ended. openraft would lead on in the same term. But entries
    /// that were not on this disk yet may be gone while the others have them, committed even: the new ones would get the same
    /// log ids, and nobody would see the difference. A new term tells them apart.
    pub(super) fn give_up_lead(&self, id: u64) -> Result<(), StorageIOError<u64>> {
        match self.meta::<Vote>(VOTE)? {
            Some(mut vote) if vote.committed && vote.leader_id.node_id == id => {
                vote.committed = false;
                // Not synced: should it be lost, the next start does it again.
                self.kv.write(vec![Self::put_meta(VOTE, &vote)?]).map_err(|e| StorageIOError::write(&e))
            }
            _ => Ok(()),
        }
    }

    /// Where received snapshots are noted.
    pub(super) fn received(&self) -> Arc<Received> {
        self.received.clone()
    }

    /// Index of the last entry that the stored state holds.
    fn applied(&self) -> Result<Option<u64>, StorageIOError<u64>> {
        let applied: Option<Applied> = self.meta(APPLIED)?;
        Ok(applied.and_then(|a| a.log_id).map(|id| id.index))
    }

    /// Returns once the state machine has a snapshot that was to take the place of the log: what comes behind it must not be
    /// on the disk, and acknowledged, before it is. That may take minutes. openraft hears of a failed installation only when
    /// we return, so it must end the waiting, too.
    async fn installed(&mut self) -> Result<(), StorageIOError<u64>> {
        while let Some(last) = self.installing {
            let ended = self.received.ended.load(Ordering::Acquire);
            if self.applied()? >= Some(last) {
                self.installing = None;
            } else if ended {
                return Err(StorageIOError::write_logs(&io::Error::other("a snapshot was not installed")));
            } else {
                TypeConfig::sleep(INSTALL_LOOK).await;
            }
        }
        Ok(())
    }

    async fn write_durably(&self, ops: Vec<Op>) -> Result<(), StorageIOError<u64>> {
        self.kv.write(ops).map_err(|e| StorageIOError::write(&e))?;
        self.commit.durable().await.map_err(|e| StorageIOError::write(&e))
    }
}

/// What removes the log up to an entry.
pub(super) fn forget(last: &LogId) -> Result<[Op; 2], codec::CodecError> {
    let to = last.index.checked_add(1).map_or_else(|| KEY_END.to_vec(), index_key);
    let purged = Op::Put(Table::Meta, PURGED.to_vec(), codec::encode(last)?);
    Ok([purged, Op::DelRange(Table::Log, Vec::new(), to)])
}

fn index_key(index: u64) -> Vec<u8> {
    index.to_be_bytes().to_vec()
}

/// First index of a range, and the first one beyond it; `None` is an empty range or no end.
fn bounds(range: &impl RangeBounds<u64>) -> (Option<u64>, Option<u64>) {
    let start = match range.start_bound() {
        Bound::Included(i) => Some(*i),
        Bound::Excluded(i) => i.checked_add(1),
        Bound::Unbounded => Some(0),
    };
    let end = match range.end_bound() {
        Bound::Included(i) => i.checked_add(1),
        Bound::Excluded(i) => Some(*i),
        Bound::Unbounded => None,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let (Some(start), end) = bounds(&range) else { return Ok(Vec::new()) };
        if let Some(entries) = self.recent().range(start, end) {
            return Ok(entries);
        }
        let end = end.map_or_else(|| KEY_END.to_vec(), index_key);
        let rows =
            self.kv.scan(Table::Log, &index_key(start), &end, usize::MAX).map_err(|e| StorageIOError::read_logs(&e))?;
        rows.into_iter()
            .map(|(_, bytes)| codec::decode(&bytes).map_err(|e| StorageIOError::read_logs(&e).into()))
            .collect()
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        if let Some(entries) = self.recent().limited(start, end, MAX_READ_ENTRIES, MAX_READ_BYTES) {
            return Ok(entries);
        }
        let (mut entries, mut bytes, mut next) = (Vec::new(), 0, start);
        while next < end && entries.len() < MAX_READ_ENTRIES {
            let rows = self.kv.scan(Table::Log, &index_key(next), &index_key(end), READ_PAGE);
            let rows = rows.map_err(|e| StorageIOError::read_logs(&e))?;
            if rows.is_empty() {
                break;
            }
            for (_, row) in rows {
                bytes += row.len();
                if bytes > MAX_READ_BYTES && !entries.is_empty() {
                    return Ok(entries);
                }
                let entry: Entry = codec::decode(&row).map_err(|e| StorageIOError::read_logs(&e))?;
                // Purged since it was asked for, as under a leader that was just deposed: openraft would send what is behind
                // the gap as if it followed. Nothing is a heartbeat.
                if entry.log_id.index != next {
                    return Ok(entries);
                }
                next = entry.log_id.index + 1;
                entries.push(entry);
            }
        }
        entries.truncate(MAX_READ_ENTRIES);
        Ok(entries)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let last_purged_log_id: Option<LogId> = self.meta(PURGED)?;
        let last_log_id = match self.kv.last(Table::Log).map_err(|e| StorageIOError::read_logs(&e))? {
            Some((_, bytes)) => Some(codec::decode::<Entry>(&bytes).map_err(|e| StorageIOError::read_logs(&e))?.log_id),
            None => last_purged_log_id,
        };
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        self.write_durably(vec![Self::put_meta(VOTE, vote)?]).await?;
        self.ahead.vote(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        let vote: Option<Vote> = self.meta(VOTE)?;
        vote.into_iter().for_each(|vote| self.ahead.vote(vote));
        Ok(vote)
    }

    /// Not synced, and written with what is written next: a pointer that is behind only means that entries are applied again
    /// from where the state stands.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        *self.committed.lock().unwrap_or_else(PoisonError::into_inner) = Some(committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        let newer = *self.committed.lock().unwrap_or_else(PoisonError::into_inner);
        match newer {
            Some(committed) => Ok(committed),
            None => Ok(self.meta(COMMITTED)?),
        }
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        if let Some(cause) = self.ahead.failed() {
            return Err(StorageIOError::write_logs(&io::Error::other(cause)).into());
        }
        let mut ops = Vec::with_capacity(entries.len() + 1);
        let mut sizes = Vec::with_capacity(entries.len());
        for entry in &entries {
            let bytes = codec::encode(entry).map_err(|e| StorageIOError::write_log_entry(entry.log_id, &e))?;
            sizes.push(bytes.len());
            ops.push(Op::Put(Table::Log, index_key(entry.log_id.index), bytes));
        }
        self.installed().await?;
        let early = self.ahead.may(&entries, || self.voters())?;
        self.ahead.note(&entries);
        self.take_committed(&mut ops)?;
        // Before anybody can read them, and so could hear that they are durable.
        if early {
            self.ahead.begin(entries.first().map_or(0, |e| e.log_id.index));
        }
        self.kv.write(ops).map_err(|e| {
            self.ahead.end(Err(io::Error::other(e.to_string())));
            StorageIOError::write_logs(&e)
        })?;
        let mut recent = self.recent();
        entries.into_iter().zip(sizes).for_each(|(entry, size)| recent.push(entry, size));
        drop(recent);
        if early {
            let ahead = self.ahead.clone();
            self.commit.when_durable(move |result| ahead.end(result));
            callback.log_io_completed(Ok(()));
        } else {
            self.commit.when_durable(move |result| callback.log_io_completed(result));
        }
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.installed().await?;
        let from = index_key(log_id.index);
        self.ahead.forget_voters();
        self.recent().truncate(log_id.index);
        Ok(self.write_durably(vec![Op::DelRange(Table::Log, from, KEY_END.to_vec())]).await?)
    }

    /// openraft purges the log up to a snapshot that it has only begun to install. A crash between the two would leave a store
    /// with neither the entries nor the state that they make. So that part is left to the state machine, which does both
    /// in one write.
    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.ahead.forget_voters();
        self.recent().purge(log_id.index);
        if self.received.next.load(Ordering::Acquire) > log_id.index && self.applied()? < Some(log_id.index) {
            self.installing = Some(log_id.index);
            return Ok(());
        }
        let mut ops = forget(&log_id).map_err(|e| StorageIOError::write(&e))?.into();
        self.take_committed(&mut ops)?;
        Ok(self.write_durably(ops).await?)
    }
}

#[cfg(test)]
#[path = "log_store/tests.rs"]
mod tests;
