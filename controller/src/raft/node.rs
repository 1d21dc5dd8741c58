//! One running member of the group: opening, proposing in batches, reading linearizably, noticing its end.

mod begin;
mod incoming;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use openraft::metrics::WaitError;
use openraft::type_config::TypeConfigExt;
use openraft::{BasicNode, Raft, SnapshotPolicy};
use tokio::sync::{mpsc, oneshot, watch};

use self::begin::{end_with_disk, lead_alone, open, watch_health};
use super::failover::{self, Heard};
use super::kv::{CatchPanics, Kv};
use super::ledger::LedgerReader;
use super::log_store::Received;
use super::membership::{self, Change, Membership};
use super::network::{Network, Transport, Way};
use super::propose::{self, ProposeError, Put, Waiting};
use super::reads::{self, Asking};
use super::state_machine::{Copier, StateCopy};
use super::view::MAX_BEHIND;
use super::{
    AbortHandle, JoinHandle, LogStore, LogTime, Metrics, Shared, StateMachine, TypeConfig, blocking, log_time,
};
use crate::config::Engine;
use crate::error::Error;
use crate::software::{Beyond, Software};
use crate::state::{Command, Reply};

/// Commands that wait for the log. Beyond it a proposer is told to come back.
const QUEUE: usize = 8_192;
/// Heartbeats that make a leader's lease: so many in a row may be lost before anybody doubts it.
const LEASE_HEARTBEATS: u64 = 4;

/// Heartbeats that a leader's own disk may take before it falls silent.
const DISK_HEARTBEATS: u32 = 2;

/// Entries that stay behind a snapshot.
const KEEP_ENTRIES: u64 = 1_000;

/// What a member holds back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Entries that stay behind a snapshot, for followers that lag.
    pub(super) keep: u64,
    /// Rows of the state that wait to be written.
    pub(super) behind: usize,
}

/// How to run.
#[derive(Clone)]
pub struct NodeOptions {
    /// This node's id, from 1.
    pub id: u64,
    /// Folder of the store and the snapshots.
    pub dir: PathBuf,
    /// What the store is made by.
    pub engine: Engine,
    /// Entries between two snapshots.
    pub snapshot_every: u64,
    /// Milliseconds between two heartbeats of a leader. A call to a follower, its disk included, must end within.
    pub heartbeat_ms: u64,
    /// The way to other members.
    pub transport: Arc<dyn Transport>,
    /// HOST:PORT where others reach this node, if it shall make the group should the store be new.
    pub found: Option<String>,
    /// The log's time, which this node makes while it leads.
    pub time: Arc<LogTime>,
    /// What this node understands.
    pub software: Software,
}

/// How the node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It works.
    Running,
    /// Its storage failed; it answers nothing any more.
    Failed {
        /// Folder of the store.
        path: PathBuf,
        /// What failed.
        cause: String,
    },
    /// The others run a newer version of this software and went on with what this one does not understand.
    Outdated(Beyond),
    /// It was shut down.
    Stopped,
}

/// Figures of the group, for metrics and status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// This node.
    pub id: u64,
    /// The leader, 0 for none.
    pub leader: u64,
    /// Raft term.
    pub term: u64,
    /// Index of the last entry in the log.
    pub last_log: u64,
    /// Index of the last applied entry.
    pub applied: u64,
    /// Index of the last entry in the snapshot.
    pub snapshot: u64,
    /// Index of the last purged entry.
    pub purged: u64,
}

/// A running member.
pub struct Node {
    id: u64,
    raft: Raft<TypeConfig>,
    shared: Arc<Shared>,
    time: Arc<LogTime>,
    copier: Copier,
    queue: mpsc::Sender<Waiting>,
    reads: mpsc::Sender<Asking>,
    health: watch::Receiver<Health>,
    heard: Heard,
    received: Arc<Received>,
    lease: Duration,
    /// Whose turn it is to put something into the log.
    turn: Arc<tokio::sync::RwLock<()>>,
    /// Standing for election when the leader is silent.
    candidacy: AbortHandle,
    tasks: Mutex<Vec<JoinHandle>>,
}

impl Node {
    /// Opens the store and takes part in the group. Where the options say to make the group, or the group is this node alone,
    /// it returns once this node leads; otherwise at once. Boxed for the reason of `Controller::start_as`.
    pub fn start(options: &NodeOptions) -> BoxFuture<'_, Result<Self, Error>> {
        Box::pin(async move {
            let store = options.dir.join("store");
            let room = Room { keep: KEEP_ENTRIES, behind: MAX_BEHIND };
            Self::start_on(open(&store, options.engine).await?, store, options, room).await
        })
    }

    /// The same on an engine that is open; `store` is what errors name.
    async fn start_on(kv: Arc<dyn Kv>, store: PathBuf, options: &NodeOptions, room: Room) -> Result<Self, Error> {
        let kv: Arc<dyn Kv> = Arc::new(CatchPanics(kv));
        let log = LogStore::of(kv.clone(), options.id).map_err(|e| Error::storage(&store, e.to_string()))?;
        log.give_up_lead(options.id).map_err(|e| Error::storage(&store, e.to_string()))?;
        Self::start_with(kv, log, store, options, room).await
    }

    /// The same with a log that is open.
    pub(super) async fn start_with(
        kv: Arc<dyn Kv>,
        log: LogStore,
        store: PathBuf,
        options: &NodeOptions,
        room: Room,
    ) -> Result<Self, Error> {
        let storage = |cause: String| Error::storage(&store, cause);
        let machine = StateMachine::open_as(kv, &options.dir.join("snapshots"), options.software.clone(), room.behind);
        let mut machine = machine.map_err(|e| match e.downcast::<Beyond>() {
            Ok(beyond) => Error::Outdated(*beyond),
            Err(e) => storage(e.to_string()),
        })?;
        let (shared, copier, time) = (machine.shared(), machine.copier(), options.time.clone());
        let (received, ahead) = (log.received(), log.ahead());
        machine.installs(received.clone());
        shared.keep(time.clone());
        let lease_ms = options.heartbeat_ms.saturating_mul(LEASE_HEARTBEATS);
        let config = openraft::Config {
            cluster_name: "sallyport".into(),
            heartbeat_interval: options.heartbeat_ms,
            // What openraft calls the longest election timeout is the lease, too.
            election_timeout_min: lease_ms - options.heartbeat_ms,
            election_timeout_max: lease_ms,
            max_payload_entries: 300,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(options.snapshot_every),
            max_in_snapshot_log_to_keep: room.keep,
            replication_lag_threshold: room.keep,
            // It would stand without asking: `failover` does it.
            enable_elect: false,
            ..openraft::Config::default()
        };
        let config = config.validate().map_err(|e| Error::Internal(e.to_string()))?;
        let heartbeat = Duration::from_millis(options.heartbeat_ms);
        let way = Way { heartbeat, ahead: ahead.clone(), patience: heartbeat * DISK_HEARTBEATS };
        let network = Network::new(options.id, options.transport.clone(), way);
        let outdated = |e| shared.beyond().map_or(e, |beyond| Error::Outdated(beyond.clone()));
        let raft = Raft::new(options.id, Arc::new(config), network, log, machine).await;
        let raft = raft.map_err(|e| outdated(storage(e.to_string())))?;
        lead_alone(&raft, options, &store).await.map_err(outdated)?;
        // Whoever founds a group asks for the time at once, maybe before the task that looks after it has run.
        time.follow(&raft.metrics().borrow());

        let (queue, waiting) = mpsc::channel(QUEUE);
        let (reads, asking) = mpsc::channel(QUEUE);
        let (health_tx, health) = watch::channel(Health::Running);
        let (heard, lease) = (Heard::now(), Duration::from_millis(lease_ms));
        let turn = Arc::<tokio::sync::RwLock<()>>::default();
        let candidacy = failover::run(raft.clone(), options.transport.clone(), heard.clone(), lease, heartbeat);
        let candidacy = TypeConfig::spawn(candidacy);
        let abort = candidacy.abort_handle();
        let mut tasks = vec![
            TypeConfig::spawn(reads::run(raft.clone(), asking)),
            TypeConfig::spawn(end_with_disk(raft.clone(), ahead)),
            TypeConfig::spawn(log_time::run(raft.clone(), time.clone(), shared.clone(), queue.clone())),
            candidacy,
            TypeConfig::spawn(watch_health(raft.clone(), shared.clone(), store.clone(), health_tx)),
        ];
        let waiting = Arc::new(tokio::sync::Mutex::new(waiting));
        for _ in 0..propose::PROPOSERS {
            let proposer = propose::run(raft.clone(), waiting.clone(), turn.clone(), time.clone());
            tasks.push(TypeConfig::spawn(proposer));
        }
        Ok(Self {
            id: options.id,
            raft,
            shared,
            time,
            copier,
            queue,
            reads,
            health,
            heard,
            received,
            lease,
            turn,
            candidacy: abort,
            tasks: Mutex::new(tasks),
        })
    }

    /// Its id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The state.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The log's time.
    pub fn time(&self) -> &Arc<LogTime> {
        &self.time
    }

    /// How the node is, now and later.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Whether this node leads. One that has taken itself out of the group does not, though openraft still says so.
    pub fn leads(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        metrics.current_leader == Some(self.id) && metrics.membership_config.membership().get_node(&self.id).is_some()
    }

    /// Whether this node leads, and its state holds everything that was acknowledged before it began to.
    pub fn leads_and_knows(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        knowing(&metrics).is_some()
    }

    /// The term in which this node leads, if its state holds everything that was acknowledged before that, and a majority has answered
    /// it lately: else what is put into the log would be done at some time, and nobody would wait for it any more. Another may
    /// lead by now without its knowledge: what its state shows from here on is the truth only if this node puts a command into the
    /// log afterwards, and in the same term (see [`Node::propose_in`]).
    pub fn reign(&self) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let lately = |ms: u64| Duration::from_millis(ms) <= self.lease / 2;
        knowing(&metrics).filter(|_| metrics.millis_since_quorum_ack.is_some_and(lately))
    }

    /// Who leads and where it is, as far as this node knows.
    pub fn leader(&self) -> Option<(u64, String)> {
        leader_of(&self.raft.metrics().borrow())
    }

    /// How long the others believe in a leader that they no longer hear.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Returns when [`Node::leader`] is another than before, or after `limit`. A node that has stopped waits for nothing: that
    /// is an error, so that nobody asks it again and again.
    pub async fn leader_changes(&self, before: Option<u64>, limit: Duration) -> Result<(), ProposeError> {
        let other = |m: &Metrics| leader_of(m).is_some_and(|(id, _)| Some(id) != before);
        let wait = self.raft.wait(Some(limit));
        match wait.metrics(|m| m.running_state.is_err() || other(m), "another leader").await {
            Ok(m) if m.running_state.is_err() => Err(self.stopped()),
            Err(WaitError::ShuttingDown) => Err(self.stopped()),
            Ok(_) | Err(WaitError::Timeout(..)) => Ok(()),
        }
    }

    /// Puts a command through the log and returns the state machine's answer to it. Once it returns `Ok`, the command is on
    /// stable storage. After an error it may or may not be applied, now or later: ask again with the same request id.
    pub async fn propose(&self, command: Command) -> Result<Reply, ProposeError> {
        Ok(self.propose_at(command).await?.0)
    }

    /// The same, with the index of the entry that it is in.
    pub async fn propose_at(&self, command: Command) -> Result<(Reply, u64), ProposeError> {
        let put = self.put(command, None).await?;
        Ok((put.reply, put.index))
    }

    /// The same if this node has led from [`Node::reign`] on, and without a break: nobody else was asked anything meanwhile. It is
    /// [`ProposeError::NoLeader`] if it has not, though the command may be applied.
    pub async fn propose_in(&self, term: u64, command: Command) -> Result<Reply, ProposeError> {
        let put = self.put(command, Some(term)).await?;
        if put.term == term { Ok(put.reply) } else { Err(ProposeError::NoLeader) }
    }

    async fn put(&self, command: Command, term: Option<u64>) -> Result<Put, ProposeError> {
        if let Some(action) = &command.action {
            self.shared.read().permits(action).map_err(ProposeError::Level)?;
        }
        let (answer, rx) = oneshot::channel();
        self.queue.try_send(Waiting { command, term, answer }).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => ProposeError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => self.stopped(),
        })?;
        rx.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// The entry that a state must hold to show everything that was acknowledged before this call. Only the leader knows.
    pub async fn read_index(&self) -> Result<u64, ProposeError> {
        let (tx, rx) = oneshot::channel();
        self.reads.try_send(tx).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => ProposeError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => self.stopped(),
        })?;
        rx.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// Returns once the state that [`Node::shared`] shows holds an entry.
    pub async fn applied(&self, index: u64, limit: Duration) -> Result<(), ProposeError> {
        if self.shared.applied() >= index {
            return Ok(());
        }
        let wait = self.raft.wait(Some(limit));
        let applied = wait.metrics(
            move |m| m.last_applied.map_or(0, |id| id.index) >= index || m.running_state.is_err(),
            "what was acknowledged is applied",
        );
        match applied.await {
            Ok(m) if m.running_state.is_ok() => Ok(()),
            Ok(_) => Err(self.stopped()),
            Err(_) => Err(ProposeError::NoLeader),
        }
    }

    /// The audit log.
    pub(crate) fn ledger(&self) -> LedgerReader {
        self.copier.ledger()
    }

    /// A copy of the state as it is now. The log goes on meanwhile.
    pub async fn copy_state(&self) -> Result<StateCopy, Error> {
        let copier = self.copier.clone();
        let copied = blocking(move || copier.copy()).await.map_err(|e| Error::Internal(e.to_string()))?;
        copied.map_err(|e| Error::Internal(format!("copying the state: {e}")))
    }

    /// Who takes part.
    pub fn membership(&self) -> Membership {
        membership::of(&self.raft)
    }

    /// One step of a change of who takes part. Only the leader can.
    pub async fn change(&self, change: Change) -> Result<(), ProposeError> {
        membership::change(&self.raft, change).await
    }

    /// How far each member's log is known to reach; empty unless this node leads.
    pub fn replicated(&self) -> BTreeMap<u64, u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let Some(replication) = &metrics.replication else { return BTreeMap::new() };
        replication.iter().map(|(id, log)| (*id, log.map_or(0, |log| log.index))).collect()
    }

    /// Puts nothing more into the log until the guard is dropped: what is asked for meanwhile waits. Returns once what is under way
    /// is committed.
    pub async fn pause(&self) -> tokio::sync::OwnedRwLockWriteGuard<()> {
        self.turn.clone().write_owned().await
    }

    /// Returns whether a member has all of this leader's log, which it may take `limit` to receive.
    pub async fn catches_up(&self, id: u64, limit: Duration) -> bool {
        let reached = move |m: &openraft::RaftMetrics<u64, BasicNode>| {
            let at = m.replication.as_ref().and_then(|r| r.get(&id).copied().flatten()).map(|log| log.index);
            at.is_some() && at == m.last_log_index
        };
        self.raft.wait(Some(limit)).metrics(reached, "a member has the whole log").await.is_ok()
    }

    /// Does not stand for election by itself any more: who is about to end must not unsettle the others.
    pub fn retire(&self) {
        self.candidacy.abort();
    }

    /// Stands for election now.
    pub async fn stand(&self) -> Result<(), ProposeError> {
        self.raft.trigger().elect().await.map_err(|e| ProposeError::Stopped(e.to_string()))
    }

    /// Falls silent as a leader, or speaks again: another can take over once the lease has ended.
    pub fn keep_silent(&self, silent: bool) {
        self.raft.runtime_config().heartbeat(!silent);
    }

    /// Figures of the group.
    pub fn figures(&self) -> Figures {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let index = |id: Option<openraft::LogId<u64>>| id.map_or(0, |id| id.index);
        Figures {
            id: self.id,
            leader: metrics.current_leader.unwrap_or(0),
            term: metrics.current_term,
            last_log: metrics.last_log_index.unwrap_or(0),
            applied: index(metrics.last_applied),
            snapshot: index(metrics.snapshot),
            purged: index(metrics.purged),
        }
    }

    /// Makes a snapshot now, without waiting for it.
    pub async fn trigger_snapshot(&self) -> Result<(), ProposeError> {
        self.raft.trigger().snapshot().await.map_err(|e| ProposeError::Stopped(e.to_string()))
    }

    /// Stops the member. What was acknowledged is durable; nothing more is. The store is free once this value is dropped.
    pub async fn shutdown(&self) {
        if let Err(e) = self.raft.shutdown().await {
            tracing::warn!(error = %e, "the Raft task did not end well");
        }
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            task.abort();
            let _ = task.await; // aborted, or ended before
        }
    }

    fn stopped(&self) -> ProposeError {
        match &*self.health.borrow() {
            Health::Failed { path, cause } => ProposeError::Stopped(format!("{}: {cause}", path.display())),
            Health::Outdated(beyond) => ProposeError::Stopped(beyond.to_string()),
            Health::Running | Health::Stopped => ProposeError::Stopped("it is shutting down".into()),
        }
    }
}

/// The term in which the node of these figures leads with a state that holds everything from before.
fn knowing(metrics: &Metrics) -> Option<u64> {
    let term = metrics.current_term;
    let knows = metrics.last_applied.is_some_and(|id| id.leader_id.term == term);
    (metrics.current_leader == Some(metrics.id) && knows).then_some(term)
}

/// Who leads and where it is, by these figures.
fn leader_of(metrics: &Metrics) -> Option<(u64, String)> {
    let id = metrics.current_leader?;
    let node = metrics.membership_config.membership().get_node(&id)?;
    Some((id, node.addr.clone()))
}

#[cfg(test)]
mod tests;
