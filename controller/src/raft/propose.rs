//! The way of commands into the log: many that wait together become one entry, and so one barrier on each disk.

use std::sync::Arc;
use std::time::Duration;

use openraft::error::{ClientWriteError, RaftError};
use openraft::type_config::TypeConfigExt;
use openraft::{Raft, ServerState};
use prost::Message;
use tokio::sync::{Mutex, RwLock, mpsc, oneshot, watch};

use super::{LogTime, Metrics, TypeConfig};
use crate::state::{Command, CommandBatch, Reply};

/// Commands in one log entry, by count.
const BATCH_COMMANDS: usize = 256;
/// Commands in one log entry, by encoded size, bytes; a single larger command still goes. An entry must reach a follower over a
/// slow line within a heartbeat.
const BATCH_BYTES: usize = 64 * 1024;
/// Pause between two looks whether a leader that has just started knows the time.
const BLIND_PAUSE: Duration = Duration::from_millis(10);

/// Tasks that propose, each an entry at a time. One more than one, so that the others are not idle while the answers to one
/// entry go out.
pub(super) const PROPOSERS: usize = 2;

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

/// What became of a command.
#[derive(Clone, Debug)]
pub(super) struct Put {
    /// The state machine's answer.
    pub(super) reply: Reply,
    /// The term in which it was put into the log.
    pub(super) term: u64,
    /// And its place there.
    pub(super) index: u64,
}

/// Who waits for the answer to a command.
type Answer = oneshot::Sender<Result<Put, ProposeError>>;

/// A command that is to go into the log.
pub(super) struct Waiting {
    pub(super) command: Command,
    /// The only term in which it may; any if there is none.
    pub(super) term: Option<u64>,
    pub(super) answer: Answer,
}

/// One of [`PROPOSERS`]: while an entry is on its way to the disks, the next commands gather in the queue and go as one entry.
/// Nothing is proposed while another has `turn` for itself.
pub(super) async fn run(
    raft: Raft<TypeConfig>,
    queue: Arc<Mutex<mpsc::Receiver<Waiting>>>,
    turn: Arc<RwLock<()>>,
    time: Arc<LogTime>,
) {
    let mut received = Vec::with_capacity(BATCH_COMMANDS);
    let leads = raft.metrics();
    loop {
        if queue.lock().await.recv_many(&mut received, BATCH_COMMANDS).await == 0 {
            return;
        }
        let mut waiting = received.drain(..).peekable();
        while waiting.peek().is_some() {
            let (mut commands, mut answers, mut bytes) = (Vec::new(), Vec::new(), 0);
            knows_time(&leads, &time).await;
            let _turn = turn.read().await;
            let (at_ms, term) = (time.now_ms(), leads.borrow().current_term);
            while let Some(next) = waiting.next_if(|_| bytes < BATCH_BYTES) {
                // Nobody waits for it any more. Without a majority many may gather here; done all at once when it is back, they
                // would be the sessions of clients that have long gone.
                if next.answer.is_closed() {
                    continue;
                }
                if next.term.is_some_and(|only| only != term) {
                    let _ = next.answer.send(Err(ProposeError::NoLeader)); // the caller may have gone
                    continue;
                }
                bytes += next.command.encoded_len();
                // The time at which it is proposed, whatever stood there.
                commands.push(Command { at_ms, ..next.command });
                answers.push(next.answer);
            }
            if !commands.is_empty() {
                propose(&raft, commands, answers).await;
            }
        }
    }
}

/// Returns once the time is known.
async fn knows_time(leads: &watch::Receiver<Metrics>, time: &LogTime) {
    time.follow(&leads.borrow());
    while time.is_blind() {
        TypeConfig::sleep(BLIND_PAUSE).await;
        time.follow(&leads.borrow());
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
            let now = {
                let seen = metrics.borrow_and_update();
                if seen.running_state.is_err() {
                    break;
                }
                place(&seen)
            };
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

async fn propose(raft: &Raft<TypeConfig>, commands: Vec<Command>, answers: Vec<Answer>) {
    let Some(written) = while_leading(raft, raft.client_write(CommandBatch { commands }.into())).await else {
        for answer in answers {
            let _ = answer.send(Err(ProposeError::NoLeader)); // the caller may have gone
        }
        return;
    };
    match written {
        Ok(response) => {
            let (term, index) = (response.log_id.leader_id.term, response.log_id.index);
            for (answer, reply) in answers.into_iter().zip(response.data.replies) {
                let _ = answer.send(Ok(Put { reply, term, index })); // the caller may have gone
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
