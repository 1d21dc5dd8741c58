//! Between controllers: openraft's calls as bytes, over whatever carries them.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use openraft::error::{Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{BasicNode, OptionalSend, Snapshot};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::codec::{decode, encode};
use super::{SnapshotData, TypeConfig, Vote};

type RpcResult<T> = Result<T, RPCError<u64, BasicNode, RaftError<u64>>>;

/// What a call to another member gives.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, LinkError>> + Send + 'a>>;

/// Why another member gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It cannot be reached, or is not ready: try again a little later.
    #[error("cannot reach it: {0}")]
    Unreachable(String),
    /// The call broke off: try again at once.
    #[error("the call broke off: {0}")]
    Broken(String),
}

/// Whom a call is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Who calls.
    pub source: u64,
    /// The member.
    pub target: u64,
    /// HOST:PORT where it is.
    pub address: String,
}

/// A snapshot on its way: what the receiver needs before it takes the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The leader's vote, encoded.
    pub vote: Vec<u8>,
    /// What the snapshot holds, encoded.
    pub meta: Vec<u8>,
}

/// Carries messages to other members. Dropping a call gives it up.
pub trait Transport: Send + Sync + 'static {
    /// Raft's AppendEntries.
    fn append_entries<'a>(&'a self, to: &'a Destination, body: Vec<u8>) -> Answer<'a, Vec<u8>>;
    /// Raft's RequestVote.
    fn vote<'a>(&'a self, to: &'a Destination, body: Vec<u8>) -> Answer<'a, Vec<u8>>;
    /// Raft's InstallSnapshot with the whole state.
    fn snapshot<'a>(&'a self, to: &'a Destination, head: Head, state: SnapshotData) -> Answer<'a, Vec<u8>>;
}

/// Makes links.
pub(super) struct Network {
    source: u64,
    transport: Arc<dyn Transport>,
}

impl Network {
    pub(super) fn new(source: u64, transport: Arc<dyn Transport>) -> Self {
        Self { source, transport }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Link {
        let to = Destination { source: self.source, target, address: node.addr.clone() };
        Link { to, transport: self.transport.clone() }
    }
}

/// The way to one member.
pub(super) struct Link {
    to: Destination,
    transport: Arc<dyn Transport>,
}

fn broken(e: &(impl std::error::Error + 'static)) -> RPCError<u64, BasicNode, RaftError<u64>> {
    RPCError::Network(NetworkError::new(e))
}

fn failed(e: LinkError) -> RPCError<u64, BasicNode, RaftError<u64>> {
    match e {
        LinkError::Unreachable(_) => RPCError::Unreachable(Unreachable::new(&e)),
        LinkError::Broken(_) => broken(&e),
    }
}

impl Link {
    async fn call<Q: Serialize, R: DeserializeOwned>(
        &self,
        request: &Q,
        send: impl for<'a> FnOnce(&'a dyn Transport, &'a Destination, Vec<u8>) -> Answer<'a, Vec<u8>>,
    ) -> RpcResult<R> {
        let body = encode(request).map_err(|e| broken(&e))?;
        let answer = send(&*self.transport, &self.to, body).await.map_err(failed)?;
        decode(&answer).map_err(|e| broken(&e))
    }
}

impl RaftNetwork<TypeConfig> for Link {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> RpcResult<AppendEntriesResponse<u64>> {
        self.call(&rpc, |transport, to, body| transport.append_entries(to, body)).await
    }

    async fn vote(&mut self, rpc: VoteRequest<u64>, _option: RPCOption) -> RpcResult<VoteResponse<u64>> {
        self.call(&rpc, |transport, to, body| transport.vote(to, body)).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        let fault = |e: &(dyn std::error::Error + 'static)| {
            StreamingError::Network(NetworkError::new(&io::Error::other(e.to_string())))
        };
        let head =
            Head { vote: encode(&vote).map_err(|e| fault(&e))?, meta: encode(&snapshot.meta).map_err(|e| fault(&e))? };
        let sent = self.transport.snapshot(&self.to, head, *snapshot.snapshot);
        tokio::select! {
            biased;
            answer = sent => match answer {
                Ok(answer) => decode(&answer).map_err(|e| fault(&e)),
                Err(e @ LinkError::Unreachable(_)) => Err(StreamingError::Unreachable(Unreachable::new(&e))),
                Err(e) => Err(fault(&e)),
            },
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }
}
