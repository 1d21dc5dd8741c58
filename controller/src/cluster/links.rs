//! Mutual TLS to other members: one connection for Raft, one for its entries, one for snapshots, one for other calls that may be
//! large. So a heartbeat does not stand in line behind what a slow line takes long for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use sallyport_ca::Certificate;
use sallyport_proto::dial::{self, Channel, Judge};
use sallyport_proto::v1;
use sallyport_proto::v1::peer_client::PeerClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Code, Status};

use super::pass::Pass;
use super::removal::Removal;
use super::trust::Trust;
use crate::clock::Clock;
use crate::error::Error;
use crate::raft::LogTime;
use crate::raft::network::{Answer, Destination, Head, LinkError, Transport};
use crate::raft::{SnapshotData, blocking};

/// Largest message between members: an entry of the log with one large command, or many small ones.
pub(crate) const MAX_PEER_MESSAGE: usize = 16 * 1024 * 1024;
/// Parts of a snapshot that are read ahead of the connection.
const READ_AHEAD: usize = 4;
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(2);
/// Silence after which a connection is asked for a life sign, and how long that may take.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(2));
/// The same while a snapshot goes over it: the life sign stands in line behind what is under way, on a slow line for long.
const KEEPALIVE_SNAPSHOT: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(30));

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    Raft,
    Entries,
    Snapshots,
    Calls,
}

/// What TLS needs, PEM.
struct Material {
    ca: Vec<u8>,
    chain: Vec<u8>,
    key: zeroize::Zeroizing<Vec<u8>>,
}

/// Connections to other members.
pub(crate) struct Links {
    material: Mutex<Material>,
    channels: Mutex<BTreeMap<(Use, String), Channel>>,
    pass: Mutex<Option<Pass>>,
    /// Says whether who answers is a member. Before there is a state, whoever has a certificate for a controller may be that the
    /// root has not taken back.
    judge: Arc<OnceLock<Judge>>,
    trust: Arc<Trust>,
    removal: Removal,
    /// Told to the others, and learned from them.
    time: Arc<LogTime>,
    /// Members that did not answer when they were last called.
    away: Mutex<BTreeSet<u64>>,
    /// When each member last answered, milliseconds since 1970.
    heard: Mutex<BTreeMap<u64, u64>>,
    clock: Clock,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").finish_non_exhaustive()
    }
}

impl Links {
    /// Links without an identity: they reach nobody until [`Links::identify`].
    pub(crate) fn new(time: Arc<LogTime>, clock: Clock) -> Arc<Self> {
        let material = Material { ca: Vec::new(), chain: Vec::new(), key: zeroize::Zeroizing::default() };
        Arc::new(Self {
            material: Mutex::new(material),
            channels: Mutex::default(),
            pass: Mutex::default(),
            judge: Arc::default(),
            trust: Arc::default(),
            removal: Removal::default(),
            time,
            away: Mutex::default(),
            heard: Mutex::default(),
            clock,
        })
    }

    /// Shows this certificate from now on; connections that are open are made anew.
    pub(crate) fn identify(&self, ca: Vec<u8>, chain: Vec<u8>, key: zeroize::Zeroizing<Vec<u8>>) {
        let mut material = self.material.lock().unwrap_or_else(PoisonError::into_inner);
        if material.ca == ca && material.chain == chain && *material.key == *key {
            return;
        }
        *material = Material { ca, chain, key };
        drop(material);
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Proves with this pass from now on that this node is of the cluster, and asks the same of others.
    pub(crate) fn belong(&self, pass: Pass) {
        *self.pass.lock().unwrap_or_else(PoisonError::into_inner) = Some(pass);
    }

    /// Asks this from now on, before each call, whether who answers is a member.
    pub(crate) fn judge_by(&self, judge: Judge) {
        let _ = self.judge.set(judge); // the first is as good
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Closes connections to other addresses: nobody is called there any more.
    pub(crate) fn keep_only(&self, addresses: &BTreeSet<String>) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.retain(|(_, address), _| addresses.contains(address));
    }

    fn message(&self, to: &Destination, body: Vec<u8>) -> v1::RaftMessage {
        let (target, source, proof) = (to.target, to.source, self.proof(to));
        v1::RaftMessage { target, source, body, proof, ..v1::RaftMessage::default() }
    }

    fn proof(&self, to: &Destination) -> Vec<u8> {
        let pass = self.pass.lock().unwrap_or_else(PoisonError::into_inner);
        pass.as_ref().map(|pass| pass.proof(to.source, to.target)).unwrap_or_default()
    }

    /// Whether another member has proven that it is of the cluster.
    pub(crate) fn proves(&self, source: u64, target: u64, proof: &[u8]) -> bool {
        let pass = self.pass.lock().unwrap_or_else(PoisonError::into_inner);
        pass.as_ref().is_some_and(|pass| pass.proves(source, target, proof))
    }

    /// What this node goes by beside its state.
    pub(crate) fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Whether this node was removed.
    pub(crate) fn removal(&self) -> &Removal {
        &self.removal
    }

    fn channel(&self, purpose: Use, address: &str) -> Result<Channel, Error> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(&(purpose, address.to_owned())) {
            return Ok(channel.clone());
        }
        let (known, trust) = (self.judge.clone(), self.trust.clone());
        let judge: Judge = Arc::new(move |shown| match known.get() {
            Some(judge) => judge(shown),
            None => trust.judge(&Certificate::from_der(shown).map_err(|e| e.to_string())?),
        });
        let tls = {
            let m = self.material.lock().unwrap_or_else(PoisonError::into_inner);
            if m.chain.is_empty() {
                return Err(Error::Internal("this node has no certificate yet".into()));
            }
            let material = dial::Material { ca: &m.ca, chain: &m.chain, key: &m.key };
            // By the log's time: a leader whose clock is set back an hour would else no longer reach a member that has a
            // certificate of today.
            dial::tls(&material, self.time.clone(), judge.clone())
                .map_err(|e| Error::Internal(format!("TLS to other controllers: {e}")))?
        };
        let mut endpoint = plain_endpoint(address)?;
        if purpose == Use::Snapshots {
            endpoint = keep_alive(endpoint, KEEPALIVE_SNAPSHOT);
        }
        let channel = Channel::new(endpoint, address, tls, judge);
        channels.insert((purpose, address.to_owned()), channel.clone());
        Ok(channel)
    }

    /// For calls of gateways and operators that are passed on.
    pub(crate) fn calls(&self, address: &str) -> Result<Channel, Error> {
        self.channel(Use::Calls, address)
    }

    /// For calls between members.
    pub(crate) fn peer(&self, address: &str) -> Result<PeerClient<Channel>, Error> {
        Ok(sized(PeerClient::new(self.channel(Use::Calls, address)?)))
    }

    fn raft(&self, purpose: Use, to: &Destination) -> Result<PeerClient<Channel>, LinkError> {
        let channel = self.channel(purpose, &to.address).map_err(|e| LinkError::Unreachable(e.to_string()))?;
        Ok(sized(PeerClient::new(channel)))
    }

    /// What an answer of another member means for us.
    fn learn<T>(&self, to: &Destination, answer: Result<T, Status>) -> Result<T, LinkError> {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(answer) => {
                let now_ms = self.clock.unix_ms();
                self.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(to.target, now_ms);
                self.removal.answered_by(to.target);
                if away.remove(&to.target) {
                    tracing::info!(id = to.target, address = to.address, "the controller answers again");
                }
                Ok(answer)
            }
            Err(status) => {
                if away.insert(to.target) {
                    let (id, address, reason) = (to.target, &to.address, status.message());
                    tracing::warn!(id, address, reason, "a controller does not answer");
                }
                drop(away);
                self.removal.refused_by(to.target, &status);
                Err(match status.code() {
                    Code::Cancelled | Code::DeadlineExceeded => LinkError::Broken(status.message().into()),
                    _ => LinkError::Unreachable(status.message().into()),
                })
            }
        }
    }

    /// When a member last answered a message of Raft, milliseconds since 1970; 0 for never.
    pub(crate) fn last_contact(&self, id: u64) -> u64 {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied().unwrap_or(0)
    }
}

fn sized(client: PeerClient<Channel>) -> PeerClient<Channel> {
    client.max_decoding_message_size(MAX_PEER_MESSAGE).max_encoding_message_size(MAX_PEER_MESSAGE)
}

/// An endpoint with the habits of members.
pub(crate) fn endpoint(address: &str) -> Result<Endpoint, Error> {
    with_habits("https", address)
}

/// The same for a connector that speaks TLS by itself.
pub(super) fn plain_endpoint(address: &str) -> Result<Endpoint, Error> {
    with_habits("http", address)
}

fn with_habits(scheme: &str, address: &str) -> Result<Endpoint, Error> {
    let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
        .map_err(|_| Error::Refused(format!("{address:?} is not HOST:PORT")))?;
    Ok(keep_alive(endpoint.connect_timeout(CONNECT).keep_alive_while_idle(true).tcp_nodelay(true), KEEPALIVE))
}

fn keep_alive(endpoint: Endpoint, (interval, timeout): (Duration, Duration)) -> Endpoint {
    endpoint.http2_keep_alive_interval(interval).keep_alive_timeout(timeout)
}

impl Links {
    async fn append(&self, purpose: Use, to: &Destination, body: Vec<u8>) -> Result<Vec<u8>, LinkError> {
        let message = v1::RaftMessage { log_unix_ms: self.time.announced_ms(), ..self.message(to, body) };
        let answer = self.raft(purpose, to)?.append_entries(message).await;
        let answer = self.learn(to, answer)?.into_inner();
        self.time.heard_wall(to.target, answer.wall_unix_ms);
        Ok(answer.body)
    }
}

impl Transport for Links {
    fn append_entries<'a>(&'a self, to: &'a Destination, body: Vec<u8>) -> Answer<'a, Vec<u8>> {
        Box::pin(self.append(Use::Entries, to, body))
    }

    fn heartbeat<'a>(&'a self, to: &'a Destination, body: Vec<u8>) -> Answer<'a, Vec<u8>> {
        Box::pin(self.append(Use::Raft, to, body))
    }

    fn vote<'a>(&'a self, to: &'a Destination, body: Vec<u8>) -> Answer<'a, Vec<u8>> {
        Box::pin(async move {
            let message = self.message(to, body);
            let answer = self.raft(Use::Raft, to)?.vote(message).await;
            Ok(self.learn(to, answer)?.into_inner().body)
        })
    }

    fn pre_vote<'a>(&'a self, to: &'a Destination, body: Vec<u8>) -> Answer<'a, Vec<u8>> {
        Box::pin(async move {
            let message = self.message(to, body);
            let answer = self.raft(Use::Raft, to)?.pre_vote(message).await;
            if let Some(status) = answer.as_ref().err().filter(|status| status.code() == Code::Unimplemented) {
                return Err(LinkError::Unknown(status.message().into()));
            }
            Ok(self.learn(to, answer)?.into_inner().body)
        })
    }

    fn snapshot<'a>(&'a self, to: &'a Destination, head: Head, state: SnapshotData) -> Answer<'a, Vec<u8>> {
        use v1::snapshot_part::Part;
        Box::pin(async move {
            let unreadable = |e: std::io::Error| {
                tracing::error!(error = %e, "the snapshot for another controller cannot be read");
                LinkError::Broken(format!("the snapshot cannot be read: {e}"))
            };
            // The file is checked before any of it leaves.
            let (state, length, sha256) = blocking(move || {
                let (length, sha256) = (state.length()?, state.sha256()?);
                Ok((state, length, sha256))
            })
            .await
            .and_then(|read: std::io::Result<_>| read)
            .map_err(unreadable)?;
            let head = v1::SnapshotHead {
                target: to.target,
                source: to.source,
                vote: head.vote,
                meta: head.meta,
                length,
                sha256: sha256.to_vec(),
                proof: self.proof(to),
            };
            let mut client = self.raft(Use::Snapshots, to)?;
            let (parts, receiver) = mpsc::channel(READ_AHEAD);
            // Ends with the call: the receiver goes with it.
            let reading = tokio::task::spawn_blocking(move || {
                let send = |part| parts.blocking_send(v1::SnapshotPart { part: Some(part) }).is_ok();
                let mut chunks = state.chunks()?;
                let mut open = send(Part::Head(head));
                while open && let Some(chunk) = chunks.next_chunk()? {
                    open = send(Part::Data(chunk));
                }
                Ok(())
            });
            let answer = client.install_snapshot(ReceiverStream::new(receiver)).await;
            let read: std::io::Result<()> = reading.await.map_err(std::io::Error::other).and_then(|read| read);
            read.map_err(unreadable)?;
            Ok(self.learn(to, answer)?.into_inner().body)
        })
    }
}

#[cfg(test)]
mod tests;
