//! Between controllers: openraft's calls as bytes, over whatever carries them.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use openraft::error::{Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{BasicNode, OptionalSend, Snapshot};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ahead::Ahead;
use super::codec::{decode, encode};
use super::flight::{Flight, Pace};
use super::{LogId, SnapshotData, TypeConfig, Vote, terms};

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
    /// Its software is older, and has no such call.
    #[error("it does not know this call: {0}")]
    Unknown(String),
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
    /// The same without entries: it must not stand in line behind a call that has some.
    fn heartbeat<'a>(&'a self, to: &'a Destination, body: Vec<u8>) -> Answer<'a, Vec<u8>> {
        self.append_entries(to, body)
    }
    /// Raft's RequestVote.
    fn vote<'a>(&'a self, to: &'a Destination, body: Vec<u8>) -> Answer<'a, Vec<u8>>;
    /// The same question before standing, which changes nothing (see `super::pre_vote`).
    fn pre_vote<'a>(&'a self, to: &'a Destination, body: Vec<u8>) -> Answer<'a, Vec<u8>>;
    /// Raft's InstallSnapshot with the whole state.
    fn snapshot<'a>(&'a self, to: &'a Destination, head: Head, state: SnapshotData) -> Answer<'a, Vec<u8>>;
}

/// How a leader sends.
#[derive(Clone)]
pub(super) struct Way {
    /// Between two life signs.
    pub(super) heartbeat: Duration,
    /// What it has sent and not yet on its own disk.
    pub(super) ahead: Arc<Ahead>,
    /// A leader whose own disk takes longer falls silent, so that another can take its place.
    pub(super) patience: Duration,
}

#[cfg(test)]
impl Way {
    /// Of a leader that sends nothing ahead of its disk.
    pub(super) fn of(heartbeat: Duration) -> Self {
        Self { heartbeat, ahead: Arc::new(Ahead::new(1)), patience: Duration::MAX }
    }
}

/// Makes links.
pub(super) struct Network {
    source: u64,
    transport: Arc<dyn Transport>,
    way: Way,
    /// What is known of the line to each member, whatever its links are.
    paces: BTreeMap<u64, Arc<Pace>>,
}

impl Network {
    pub(super) fn new(source: u64, transport: Arc<dyn Transport>, way: Way) -> Self {
        Self { source, transport, way, paces: BTreeMap::new() }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Link {
        let to = Destination { source: self.source, target, address: node.addr.clone() };
        let pace = self.paces.entry(target).or_insert_with(|| Arc::new(Pace::new(self.way.heartbeat))).clone();
        Link { to, transport: self.transport.clone(), way: self.way.clone(), pace, flight: Mutex::default() }
    }
}

/// The way to one member.
pub(super) struct Link {
    to: Destination,
    transport: Arc<dyn Transport>,
    way: Way,
    pace: Arc<Pace>,
    /// The call with entries that is under way.
    flight: Mutex<Option<Flight>>,
}

fn broken(e: &(impl std::error::Error + 'static)) -> RPCError<u64, BasicNode, RaftError<u64>> {
    RPCError::Network(NetworkError::new(e))
}

fn failed(e: LinkError) -> RPCError<u64, BasicNode, RaftError<u64>> {
    match e {
        LinkError::Unreachable(_) | LinkError::Unknown(_) => RPCError::Unreachable(Unreachable::new(&e)),
        LinkError::Broken(_) => broken(&e),
    }
}

/// Refuses an answer with a vote that would use up the terms (see [`terms`]): `asked` is the vote of the question.
fn near(asked: &Vote, vote: &Vote) -> io::Result<()> {
    match terms::is_near(asked.leader_id.term, vote) {
        true => Ok(()),
        false => Err(io::Error::other(format!("an answer of term {}", vote.leader_id.term))),
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

    /// An answer about the log up to `last` counts once that is on this node's disk, too: see `super::ahead`. One that deposes counts
    /// if its term can be.
    async fn count(
        &self,
        asked: &Vote,
        last: Option<LogId>,
        answer: AppendEntriesResponse<u64>,
    ) -> RpcResult<AppendEntriesResponse<u64>> {
        match (&answer, last) {
            (AppendEntriesResponse::HigherVote(vote), _) => near(asked, vote).map_err(|e| broken(&e))?,
            (_, Some(last)) => {
                self.way.ahead.durable(last.index).await.map_err(|cause| broken(&io::Error::other(cause)))?;
            }
            (_, None) => {}
        }
        Ok(answer)
    }

    /// Begins a call with as many of the entries as the line takes.
    fn depart(&self, mut request: AppendEntriesRequest<TypeConfig>) -> RpcResult<Option<Flight>> {
        self.pace.cut(&mut request.entries).map_err(|e| broken(&e))?;
        let body = encode(&request).map_err(|e| broken(&e))?;
        let bytes = body.len();
        let (to, transport) = (self.to.clone(), self.transport.clone());
        let call = Box::pin(async move { transport.append_entries(&to, body).await });
        Ok(Flight::begin(&request, bytes, call))
    }

    /// A call without entries: it tells the follower that the leader is there while a larger one is under way.
    fn heartbeat(&self, request: &AppendEntriesRequest<TypeConfig>) -> RpcResult<Answer<'static, Vec<u8>>> {
        let (vote, prev_log_id, leader_commit) = (request.vote, request.prev_log_id, request.leader_commit);
        let request = AppendEntriesRequest::<TypeConfig> { vote, prev_log_id, leader_commit, entries: Vec::new() };
        let body = encode(&request).map_err(|e| broken(&e))?;
        let (to, transport) = (self.to.clone(), self.transport.clone());
        Ok(Box::pin(async move { transport.heartbeat(&to, body).await }))
    }
}

/// The answer to the call, or one to the heartbeat beside it that deposes the leader.
async fn arrival(flight: &mut Flight, mut beside: Option<Answer<'static, Vec<u8>>>) -> Result<Vec<u8>, LinkError> {
    let deposed = |answer: &Result<Vec<u8>, LinkError>| {
        let answer = answer.as_ref().ok().and_then(|body| decode::<AppendEntriesResponse<u64>>(body).ok());
        matches!(answer, Some(AppendEntriesResponse::HigherVote(_)))
    };
    std::future::poll_fn(|cx| {
        if let Poll::Ready(answer) = flight.call.as_mut().poll(cx) {
            return Poll::Ready(answer);
        }
        if let Some(Poll::Ready(answer)) = beside.as_mut().map(|call| call.as_mut().poll(cx)) {
            beside = None;
            if deposed(&answer) {
                return Poll::Ready(answer);
            }
        }
        Poll::Pending
    })
    .await
}

impl RaftNetwork<TypeConfig> for Link {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> RpcResult<AppendEntriesResponse<u64>> {
        self.way.ahead.gets_on(self.way.patience).await;
        let asked = rpc.vote;
        let Some(last) = rpc.entries.last().map(|entry| entry.log_id) else {
            let prev = rpc.prev_log_id;
            let answer = self.call(&rpc, |transport, to, body| transport.heartbeat(to, body)).await?;
            return self.count(&asked, prev, answer).await;
        };
        let under_way = self.flight.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let (mut under_way, mut beside) = (under_way.filter(|flight| flight.serves(&rpc)), None);
        if let Some(flight) = &mut under_way {
            flight.is_late(&self.pace);
            if flight.age() < self.pace.patience() {
                beside = Some(self.heartbeat(&rpc)?);
            } else {
                self.pace.gave_up();
                under_way = None;
            }
        }
        let under_way = match under_way {
            Some(flight) => Some(flight),
            None => self.depart(rpc)?,
        };
        // It stays there when openraft gives this attempt up.
        let slot = self.flight.get_mut().unwrap_or_else(PoisonError::into_inner);
        *slot = under_way;
        let Some(flight) = slot else { return Ok(AppendEntriesResponse::Success) };
        let answer = arrival(flight, beside).await;
        if answer.is_ok() {
            flight.arrived(&self.pace);
        }
        let sent = flight.last;
        *slot = None;
        let answer = match decode(&answer.map_err(failed)?).map_err(|e| broken(&e))? {
            AppendEntriesResponse::Success if sent != last => AppendEntriesResponse::PartialSuccess(Some(sent)),
            answer => answer,
        };
        self.count(&asked, Some(sent), answer).await
    }

    async fn vote(&mut self, rpc: VoteRequest<u64>, _option: RPCOption) -> RpcResult<VoteResponse<u64>> {
        let answer: VoteResponse<u64> = self.call(&rpc, |transport, to, body| transport.vote(to, body)).await?;
        near(&rpc.vote, &answer.vote).map_err(|e| broken(&e))?;
        Ok(answer)
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
                Ok(answer) => {
                    let answer: SnapshotResponse<u64> = decode(&answer).map_err(|e| fault(&e))?;
                    near(&vote, &answer.vote).map_err(|e| fault(&e))?;
                    Ok(answer)
                }
                Err(e @ LinkError::Unreachable(_)) => Err(StreamingError::Unreachable(Unreachable::new(&e))),
                Err(e) => Err(fault(&e)),
            },
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }
}

#[cfg(test)]
#[path = "network/tests.rs"]
mod tests;
