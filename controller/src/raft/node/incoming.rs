//! What other members send: calls of leaders and candidates.

use openraft::Snapshot;
use openraft::raft::{AppendEntriesRequest, VoteRequest};

use super::Node;
use crate::raft::network::Head;
use crate::raft::propose::ProposeError;
use crate::raft::snapshot::{ChunkWriter, SnapshotData};
use crate::raft::{SnapshotMeta, TypeConfig, blocking, codec, pre_vote, terms};

impl Node {
    /// A call of a leader: AppendEntries, encoded. The error is for the caller's log.
    pub async fn handle_append(&self, body: &[u8]) -> Result<Vec<u8>, ProposeError> {
        let request: AppendEntriesRequest<TypeConfig> = codec::decode(body).map_err(garbled)?;
        let entries = request.entries.iter().map(|entry| entry.log_id).chain(request.prev_log_id);
        terms::check(&self.raft, &request.vote, entries)?;
        let answer = self.raft.append_entries(request).await.map_err(|e| ProposeError::Stopped(e.to_string()))?;
        // One that looks for where the logs part leads, too.
        if !matches!(answer, openraft::raft::AppendEntriesResponse::HigherVote(_)) {
            self.heard.note();
        }
        codec::encode(&answer).map_err(garbled)
    }

    /// A call of a candidate: RequestVote, encoded.
    pub async fn handle_vote(&self, body: &[u8]) -> Result<Vec<u8>, ProposeError> {
        let request: VoteRequest<u64> = codec::decode(body).map_err(garbled)?;
        terms::check(&self.raft, &request.vote, None)?;
        let answer = self.raft.vote(request).await.map_err(|e| ProposeError::Stopped(e.to_string()))?;
        if answer.vote_granted {
            self.heard.note();
        }
        codec::encode(&answer).map_err(garbled)
    }

    /// Whoever would stand asks what this member would say: RequestVote, encoded. Nothing changes by it.
    pub async fn handle_pre_vote(&self, body: &[u8]) -> Result<Vec<u8>, ProposeError> {
        let question = codec::decode(body).map_err(garbled)?;
        let answer = pre_vote::answer(&self.raft, &question, self.lease).await;
        codec::encode(&answer.map_err(|e| ProposeError::Stopped(e.to_string()))?).map_err(garbled)
    }

    /// A place for the state that a leader sends, of `length` bytes, because the log no longer reaches back far enough.
    pub async fn receive_snapshot(&self, head: &Head, length: u64) -> Result<ChunkWriter, ProposeError> {
        let meta = codec::decode(&head.meta).map_err(garbled)?;
        let snapshots = self.copier.snapshots.clone();
        let place = blocking(move || snapshots.receive(&meta, length)).await.and_then(|place| place);
        place.map_err(|e| ProposeError::Stopped(e.to_string()))
    }

    /// A call of a leader: the whole state.
    pub async fn handle_snapshot(&self, head: &Head, state: impl Into<SnapshotData>) -> Result<Vec<u8>, ProposeError> {
        let vote = codec::decode(&head.vote).map_err(garbled)?;
        let meta: SnapshotMeta = codec::decode(&head.meta).map_err(garbled)?;
        terms::check(&self.raft, &vote, meta.last_log_id)?;
        let snapshot: Snapshot<TypeConfig> = Snapshot { meta, snapshot: Box::new(state.into()) };
        if let Some(last) = &snapshot.meta.last_log_id {
            self.received.note(last);
        }
        let installed = self.raft.install_full_snapshot(vote, snapshot).await;
        self.heard.note();
        codec::encode(&installed.map_err(|e| ProposeError::Stopped(e.to_string()))?).map_err(garbled)
    }
}

fn garbled(e: codec::CodecError) -> ProposeError {
    ProposeError::Membership(format!("a message of another version: {e}"))
}
