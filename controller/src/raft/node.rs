//! One running member of the group: opening, proposing in batches, reading linearizably, noticing its end.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::error::{CheckIsLeaderError, ClientWriteError, Fatal, InitializeError, RaftError};
use openraft::{BasicNode, Raft, SnapshotPolicy};
use prost::Message;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::kv::{CatchPanics, Kv, KvError};
use super::network::NoPeers;
use super::{LogStore, Shared, StateMachine, TypeConfig, store};
use crate::config::Engine;
use crate::error::Error;
use crate::state::{Command, CommandBatch, Reply};

/// Commands in one log entry, by count.
const BATCH_COMMANDS: usize = 256;
/// Commands in one log entry, by encoded size, bytes; a single larger command still goes.
const BATCH_BYTES: usize = 512 * 1024;
/// Commands that wait for the log. Beyond it a proposer is told to come back.
const QUEUE: usize = 8_192;
/// How long a store that another (ending) process holds is waited for.
const OPEN_PATIENCE: Duration = Duration::from_secs(5);
/// How long the group of one may take to have a leader, including applying what the log still holds.
const LEADER_PATIENCE: Duration = Duration::from_secs(120);

/// How to run.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// This node's id, from 1.
    pub id: u64,
    /// Folder of the store and the snapshots.
    pub dir: PathBuf,
    /// What the store is made by.
    pub engine: Engine,
    /// Entries between two snapshots.
    pub snapshot_every: u64,
}

/// Why a command was not applied, or a read not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead, and knows no one who does.
    #[error("no leader is known right now; try again")]
    NoLeader,
    /// Too many commands wait.
    #[error("too many changes wait for the log; try again")]
    Overloaded,
    /// The node has stopped for good.
    #[error("this controller has stopped: {0}")]
    Stopped(String),
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

type Waiting = (Command, oneshot::Sender<Result<Reply, ProposeError>>);

/// A running member.
pub struct Node {
    id: u64,
    raft: Raft<TypeConfig>,
    shared: Arc<Shared>,
    queue: mpsc::Sender<Waiting>,
    health: watch::Receiver<Health>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Node {
    /// Opens the store, joins the group (making it, when the store is new) and returns once this node can decide.
    pub async fn start(options: &NodeOptions) -> Result<Self, Error> {
        let store = options.dir.join("store");
        Self::start_on(open(&store, options.engine).await?, store, options).await
    }

    /// The same on an engine that is open; `store` is what errors name.
    async fn start_on(kv: Arc<dyn Kv>, store: PathBuf, options: &NodeOptions) -> Result<Self, Error> {
        let storage = |cause: String| Error::storage(&store, cause);
        let kv: Arc<dyn Kv> = Arc::new(CatchPanics(kv));
        let log = LogStore::new(kv.clone()).map_err(|e| storage(e.to_string()))?;
        let machine = StateMachine::open(kv, &options.dir.join("snapshots")).map_err(|e| storage(e.to_string()))?;
        let shared = machine.shared();
        let config = openraft::Config {
            cluster_name: "sallyport".into(),
            heartbeat_interval: 250,
            election_timeout_min: 1_000,
            election_timeout_max: 2_000,
            max_payload_entries: 300,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(options.snapshot_every),
            max_in_snapshot_log_to_keep: 1_000,
            ..openraft::Config::default()
        };
        let config = config.validate().map_err(|e| Error::Internal(e.to_string()))?;
        let raft =
            Raft::new(options.id, Arc::new(config), NoPeers, log, machine).await.map_err(|e| storage(e.to_string()))?;
        lead(&raft, options.id, &store).await?;

        let (queue, waiting) = mpsc::channel(QUEUE);
        let (health_tx, health) = watch::channel(Health::Running);
        let tasks = vec![
            tokio::spawn(propose_batches(raft.clone(), waiting)),
            tokio::spawn(watch_health(raft.clone(), store.clone(), health_tx)),
        ];
        Ok(Self { id: options.id, raft, shared, queue, health, tasks: Mutex::new(tasks) })
    }

    /// The state.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// How the node is, now and later.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Whether this node leads.
    pub fn leads(&self) -> bool {
        self.raft.metrics().borrow().current_leader == Some(self.id)
    }

    /// Puts a command through the log and returns the state machine's answer to it. Once it returns `Ok`, the command is on
    /// stable storage. After an error it may or may not be applied, now or later: ask again with the same request id.
    pub async fn propose(&self, command: Command) -> Result<Reply, ProposeError> {
        let (tx, rx) = oneshot::channel();
        self.queue.try_send((command, tx)).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => ProposeError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => self.stopped(),
        })?;
        rx.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// Returns once the state that [`Node::shared`] shows holds everything that was acknowledged before this call.
    pub async fn linearizable(&self) -> Result<(), ProposeError> {
        match self.raft.ensure_linearizable().await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(
                CheckIsLeaderError::ForwardToLeader(_) | CheckIsLeaderError::QuorumNotEnough(_),
            )) => Err(ProposeError::NoLeader),
            Err(RaftError::Fatal(fatal)) => Err(ProposeError::Stopped(fatal.to_string())),
        }
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
            Health::Running | Health::Stopped => ProposeError::Stopped("it is shutting down".into()),
        }
    }
}

/// Opens the store; a process that is just ending still holds it for a moment.
async fn open(path: &Path, engine: Engine) -> Result<Arc<dyn Kv>, Error> {
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

/// Makes the group on a pristine store, and has a leader elected without waiting for the election timeout.
async fn lead(raft: &Raft<TypeConfig>, id: u64, store: &Path) -> Result<(), Error> {
    let storage = |e: &dyn std::fmt::Display| Error::storage(store, e.to_string());
    if raft.is_initialized().await.map_err(|e| storage(&e))? {
        raft.trigger().elect().await.map_err(|e| storage(&e))?;
    } else {
        match raft.initialize(std::collections::BTreeMap::from([(id, BasicNode::default())])).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
            Err(e) => return Err(storage(&e)),
        }
    }
    raft.wait(Some(LEADER_PATIENCE))
        .metrics(|m| m.current_leader == Some(id) || m.running_state.is_err(), "leader of a group of one")
        .await
        .map_err(|e| storage(&e))?;
    raft.ensure_linearizable().await.map_err(|e| storage(&e))?;
    Ok(())
}

/// The only proposer: while one entry is on its way to the disk, the next ones gather in the queue and go as one entry.
async fn propose_batches(raft: Raft<TypeConfig>, mut queue: mpsc::Receiver<Waiting>) {
    let mut received = Vec::with_capacity(BATCH_COMMANDS);
    while queue.recv_many(&mut received, BATCH_COMMANDS).await > 0 {
        let mut waiting = received.drain(..).peekable();
        while waiting.peek().is_some() {
            let (mut commands, mut answers, mut bytes) = (Vec::new(), Vec::new(), 0);
            while let Some((command, answer)) = waiting.next_if(|_| bytes < BATCH_BYTES) {
                bytes += command.encoded_len();
                commands.push(command);
                answers.push(answer);
            }
            propose(&raft, commands, answers).await;
        }
    }
}

async fn propose(
    raft: &Raft<TypeConfig>,
    commands: Vec<Command>,
    answers: Vec<oneshot::Sender<Result<Reply, ProposeError>>>,
) {
    match raft.client_write(CommandBatch { commands }).await {
        Ok(response) => {
            for (answer, reply) in answers.into_iter().zip(response.data.replies) {
                let _ = answer.send(Ok(reply)); // the caller may have gone
            }
        }
        Err(e) => {
            let error = match e {
                RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => ProposeError::NoLeader,
                RaftError::APIError(e) => ProposeError::Stopped(e.to_string()),
                RaftError::Fatal(e) => ProposeError::Stopped(e.to_string()),
            };
            for answer in answers {
                let _ = answer.send(Err(error.clone()));
            }
        }
    }
}

/// Any storage error stops the Raft core for good; this notices and says so.
async fn watch_health(raft: Raft<TypeConfig>, store: PathBuf, health: watch::Sender<Health>) {
    let mut metrics = raft.metrics();
    // The watcher must not keep the member alive.
    drop(raft);
    loop {
        let state = metrics.borrow_and_update().running_state.clone();
        match state {
            Ok(()) => {}
            Err(Fatal::Stopped) => break,
            Err(fatal) => {
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

#[cfg(test)]
mod tests;
