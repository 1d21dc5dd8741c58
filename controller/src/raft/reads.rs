//! Linearizable reads: asking the others whether this node still leads serves everybody who waited when it began.

use openraft::Raft;
use openraft::error::{CheckIsLeaderError, RaftError};
use tokio::sync::{mpsc, oneshot};

use super::TypeConfig;
use super::propose::ProposeError;

/// Reads that one question serves.
const BATCH_READS: usize = 1_024;

/// Who waits for an index to read at.
pub(super) type Asking = oneshot::Sender<Result<u64, ProposeError>>;

/// The only one that asks. Whoever comes while a question is under way waits for the next one: the answer to the first may be
/// older than what was acknowledged before he came.
pub(super) async fn run(raft: Raft<TypeConfig>, mut queue: mpsc::Receiver<Asking>) {
    let mut asking = Vec::with_capacity(BATCH_READS);
    while queue.recv_many(&mut asking, BATCH_READS).await > 0 {
        let answer = ask(&raft).await;
        for asked in asking.drain(..) {
            let _ = asked.send(answer.clone()); // the caller may have gone
        }
    }
}

async fn ask(raft: &Raft<TypeConfig>) -> Result<u64, ProposeError> {
    match raft.get_read_log_id().await {
        Ok((read, _)) => Ok(read.map_or(0, |id| id.index)),
        Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to))) => {
            Err(ProposeError::elsewhere(to.leader_id, to.leader_node))
        }
        Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => Err(ProposeError::NoLeader),
        Err(RaftError::Fatal(fatal)) => Err(ProposeError::Stopped(fatal.to_string())),
    }
}
