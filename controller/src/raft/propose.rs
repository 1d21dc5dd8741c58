//! The way of commands into the log: many that wait together become one entry, and so one barrier on each disk.

use std::sync::Arc;
use std::time::Duration;

use openraft::error::{ClientWriteError, RaftError};
use openraft::type_config::TypeConfigExt;
use openraft::{Raft, ServerState};
use prost::Message;
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use super::{LogTime, Metrics, TypeConfig};
use crate::state::{Command, CommandBatch, Reply};

/// Commands in one log entry, by count.
const BATCH_COMMANDS: usize = 256;
/// Commands in one log entry, by encoded size, bytes; a single larger command still goes. An entry must reach a follower over a
/// slow line within a heartbeat.
const BATCH_BYTES: usize = 64 * 1024;
/// Pause between two looks whether a leader that has just started knows the time.
const BLIND_PAUSE: Duration = Duration::from_millis(10);

/// Why a command was not applied, or a read not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead, and knows no one who does.
    #[error("no leader is known right now; try again")]
    NoLeader,
    /// Another node leads.
    #[error("controller {id} at {address} leads; ask there")]
    Elsewhere {
        /// Its id.
        id: u64,
        /// HOST:PORT where it is.
        address: String,
    },
    /// Not all members understand it yet.
    #[error("{0}")]
    Level(String),
    /// Too many commands wait.
    #[error("too many changes wait for the log; try again")]
    Overloaded,
    /// The group refuses a change of its members.
    #[error("the group cannot change its members now: {0}")]
    Membership(String),
    /// The node has stopped for good.
    #[error("this controller has stopped: {0}")]
    Stopped(String),
}

impl ProposeError {
    /// Where to go instead.
    pub(super) fn elsewhere(leader: Option<u64>, node: Option<openraft::BasicNode>) -> Self {
        match (leader, node) {
            (Some(id), Some(node)) => Self::Elsewhere { id, address: node.addr },
            _ => Self::NoLeader,
        }
    }

    /// Whether the same may succeed when the group has a leader again.
    pub fn passes(&self) -> bool {
        matches!(self, Self::NoLeader | Self::Elsewhere { .. } | Self::Overloaded)
    }
}

/// A command, and who waits for its answer.
pub(super) type Waiting = (Command, oneshot::Sender<Result<Reply, ProposeError>>);

/// The only proposer: while one entry is on its way to the disks, the next ones gather in the queue and go as one entry.
/// Nothing is proposed while another holds `turn`.
pub(super) async fn run(
    raft: Raft<TypeConfig>,
    mut queue: mpsc::Receiver<Waiting>,
    turn: Arc<Mutex<()>>,
    time: Arc<LogTime>,
) {
    let mut received = Vec::with_capacity(BATCH_COMMANDS);
    let leads = raft.metrics();
    while queue.recv_many(&mut received, BATCH_COMMANDS).await > 0 {
        let mut waiting = received.drain(..).peekable();
        while waiting.peek().is_some() {
            let (mut commands, mut answers, mut bytes) = (Vec::new(), Vec::new(), 0);
            while let Some((command, answer)) = waiting.next_if(|_| bytes < BATCH_BYTES) {
                bytes += command.encoded_len();
                commands.push(command);
                answers.push(answer);
            }
            stamp(&leads, &time, &mut commands).await;
            let _turn = turn.lock().await;
            propose(&raft, commands, answers).await;
        }
    }
}

/// Gives the commands the time at which they are proposed, whatever stood there.
async fn stamp(leads: &watch::Receiver<Metrics>, time: &LogTime, commands: &mut [Command]) {
    time.follow(&leads.borrow());
    while time.is_blind() {
        TypeConfig::sleep(BLIND_PAUSE).await;
        time.follow(&leads.borrow());
    }
    let at_ms = time.now_ms();
    for command in commands {
        command.at_ms = at_ms;
    }
}

/// The answer to a write, for as long as this member leads as it did when it took it on: `None` says that it does not any more,
/// and that nobody knows what became of the write. openraft answers writes when it applies them; those of a leader that was
/// deposed and caught up by a snapshot are never applied here, and never answered.
pub(super) async fn while_leading<T>(raft: &Raft<TypeConfig>, write: impl Future<Output = T>) -> Option<T> {
    let mut metrics = raft.metrics();
    // With the vote: what is seen lags behind, and a lead may have come and gone unseen.
    let place = |m: &Metrics| (m.state == ServerState::Leader, m.vote.leader_id);
    let mut at = place(&metrics.borrow_and_update());
    let deposed = async {
        while metrics.changed().await.is_ok() {
            let now = place(&metrics.borrow_and_update());
            match (at, now) {
                _ if now == at => {}
                ((false, _), (true, _)) => at = now,
                _ => return,
            }
        }
        std::future::pending().await // the member ends, which answers all writes
    };
    tokio::select! {
        biased;
        written = write => Some(written),
        () = deposed => None,
    }
}

async fn propose(
    raft: &Raft<TypeConfig>,
    commands: Vec<Command>,
    answers: Vec<oneshot::Sender<Result<Reply, ProposeError>>>,
) {
    let Some(written) = while_leading(raft, raft.client_write(CommandBatch { commands })).await else {
        for answer in answers {
            let _ = answer.send(Err(ProposeError::NoLeader)); // the caller may have gone
        }
        return;
    };
    match written {
        Ok(response) => {
            for (answer, reply) in answers.into_iter().zip(response.data.replies) {
                let _ = answer.send(Ok(reply)); // the caller may have gone
            }
        }
        Err(e) => {
            let error = match e {
                RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => {
                    ProposeError::elsewhere(to.leader_id, to.leader_node)
                }
                RaftError::APIError(ClientWriteError::ChangeMembershipError(e)) => {
                    ProposeError::Membership(e.to_string())
                }
                RaftError::Fatal(e) => ProposeError::Stopped(e.to_string()),
            };
            for answer in answers {
                let _ = answer.send(Err(error.clone()));
            }
        }
    }
}
