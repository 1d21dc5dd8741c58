//! The service for other controllers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use prost::Message;
use sallyport_proto::v1;
use sallyport_proto::v1::peer_server::Peer;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

use super::caller::member_of;
use crate::app::{Core, MOST_COMMANDS as MOST, proposed};
use crate::cluster::{admit, status};
use crate::raft::blocking;
use crate::raft::network::Head;
use crate::state::Command;

/// How long the next piece of a snapshot may take.
const STALL: Duration = Duration::from_secs(30);

/// A command of another member.
fn command_of(bytes: &[u8]) -> Result<Command, Status> {
    let command = Command::decode(bytes).map_err(|_| Status::invalid_argument("this is no command"))?;
    // In the log it would stop every member that does not know it.
    if command.action.is_none() {
        return Err(Status::failed_precondition("a command of a newer version: update the leader first"));
    }
    Ok(command)
}

/// The service.
pub(super) struct PeerService {
    core: Arc<Core>,
    /// A place for the one snapshot that is received at a time: each is on the disk as a whole.
    snapshots: Semaphore,
}

impl PeerService {
    /// The service over `core`.
    pub(super) const fn new(core: Arc<Core>) -> Self {
        Self { core, snapshots: Semaphore::const_new(1) }
    }

    /// The caller is a member, and means this node.
    fn meant<T>(&self, request: &Request<T>, target: u64) -> Result<u64, Status> {
        let member = member_of(&self.core, request)?;
        if target != self.core.node.id() {
            return Err(Status::failed_precondition(format!(
                "this is controller {}, not controller {target}",
                self.core.node.id()
            )));
        }
        Ok(member)
    }

    /// The same, and its record is here.
    fn known<T>(&self, request: &Request<T>, target: u64) -> Result<u64, Status> {
        match self.meant(request, target)? {
            0 => Err(Status::unavailable("this controller does not know the caller yet; try again")),
            member => Ok(member),
        }
    }

    /// A message of Raft from the member that it says it is from, and that member; 0 where its record is not here.
    fn raft(&self, request: Request<v1::RaftMessage>) -> Result<(v1::RaftMessage, u64), Status> {
        let (target, source) = (request.get_ref().target, request.get_ref().source);
        // A node that receives its first entries knows no members yet: the certificate is all there is.
        let member = self.meant(&request, target)?;
        if member != 0 && member != source {
            return Err(Status::permission_denied(format!("controller {member} speaks as controller {source}")));
        }
        self.of_this_cluster(source, target, &request.get_ref().proof)?;
        self.not_beside_the_leader(member)?;
        Ok((request.into_inner(), member))
    }

    /// Whoever is unknown is heard only where nobody known leads: a new member that leads is soon the only one who does, and
    /// somebody who makes certificates with the authority's stolen key gets between no leader and its followers.
    fn not_beside_the_leader(&self, member: u64) -> Result<(), Status> {
        let (core, now_ms) = (&self.core, self.core.clock.monotonic_ms());
        if member == 0 && core.links.trust().hears_leader(now_ms, core.node.lease()) {
            return Err(Status::unavailable("this controller hears a leader and does not know the caller; try again"));
        }
        Ok(())
    }

    /// A certificate that the state does not know may be a new member's, but also that of a controller from before a restore, or
    /// one that was made with a stolen key of the authority.
    fn of_this_cluster(&self, source: u64, target: u64, proof: &[u8]) -> Result<(), Status> {
        if self.core.links.proves(source, target, proof) {
            return Ok(());
        }
        Err(Status::permission_denied(format!(
            "controller {source} is of another cluster, or of this one before it was restored: it must join with a new token"
        )))
    }

    fn leading(&self) -> Result<(), Status> {
        if self.core.node.leads() { Ok(()) } else { Err(Status::unavailable("this controller does not lead")) }
    }
}

/// The next piece of a snapshot.
async fn next(parts: &mut Streaming<v1::SnapshotPart>) -> Result<Option<v1::SnapshotPart>, Status> {
    tokio::time::timeout(STALL, parts.message()).await.unwrap_or_else(|_| {
        Err(Status::unavailable("the next piece of the snapshot did not come in time; send it again"))
    })
}

fn answer(body: Vec<u8>) -> Response<v1::RaftMessage> {
    Response::new(v1::RaftMessage { body, ..Default::default() })
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn append_entries(&self, request: Request<v1::RaftMessage>) -> Result<Response<v1::RaftMessage>, Status> {
        let (message, member) = self.raft(request)?;
        let body = self.core.node.handle_append(&message.body).await?;
        let time = self.core.node.time();
        if self.core.node.leader().is_some_and(|(leader, _)| leader == message.source) {
            time.heard_leader(message.log_unix_ms);
            if member != 0 {
                self.core.links.trust().leader_spoke(self.core.clock.monotonic_ms());
            }
        }
        Ok(Response::new(v1::RaftMessage { body, wall_unix_ms: time.wall_ms(), ..v1::RaftMessage::default() }))
    }

    async fn vote(&self, request: Request<v1::RaftMessage>) -> Result<Response<v1::RaftMessage>, Status> {
        let (message, _) = self.raft(request)?;
        Ok(answer(self.core.node.handle_vote(&message.body).await?))
    }

    async fn pre_vote(&self, request: Request<v1::RaftMessage>) -> Result<Response<v1::RaftMessage>, Status> {
        let (message, _) = self.raft(request)?;
        Ok(answer(self.core.node.handle_pre_vote(&message.body).await?))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<v1::SnapshotPart>>,
    ) -> Result<Response<v1::RaftMessage>, Status> {
        use v1::snapshot_part::Part;
        let member = member_of(&self.core, &request)?;
        let mut parts = request.into_inner();
        let head = match next(&mut parts).await?.and_then(|p| p.part) {
            Some(Part::Head(head)) => head,
            _ => return Err(Status::invalid_argument("a snapshot begins with its head")),
        };
        if head.target != self.core.node.id() || (member != 0 && member != head.source) {
            return Err(Status::failed_precondition(
                "this snapshot is not for this controller, or not from its sender",
            ));
        }
        self.of_this_cluster(head.source, head.target, &head.proof)?;
        self.not_beside_the_leader(member)?;
        // Not before: whoever has nothing to send would keep the place from the leader.
        let _turn = (self.snapshots.try_acquire())
            .map_err(|_| Status::unavailable("another snapshot is being received; try again when it is done"))?;
        let (length, sha256) = (head.length, head.sha256);
        let head = Head { vote: head.vote, meta: head.meta };
        let lost = |e: io::Error| Status::data_loss(format!("the snapshot did not arrive: {e}"));
        let mut place = self.core.node.receive_snapshot(&head, length).await?;
        while let Some(part) = next(&mut parts).await? {
            let Some(Part::Data(data)) = part.part else {
                return Err(Status::invalid_argument("a second head"));
            };
            let written = blocking(move || place.write(&data).map(|()| place)).await;
            place = written.and_then(|place| place).map_err(lost)?;
        }
        let state = blocking(move || place.finish(&sha256)).await.and_then(|state| state).map_err(lost)?;
        Ok(answer(self.core.node.handle_snapshot(&head, state).await?))
    }

    async fn propose(&self, request: Request<v1::ProposeRequest>) -> Result<Response<v1::ProposeResponse>, Status> {
        self.known(&request, request.get_ref().target)?;
        self.leading()?;
        let v1::ProposeRequest { command, commands, .. } = request.into_inner();
        if commands.is_empty() {
            let (reply, index) = self.core.propose_for_peer(command_of(&command)?).await?;
            return Ok(Response::new(v1::ProposeResponse { reply: reply.encode_to_vec(), index, answers: Vec::new() }));
        }
        if commands.len() > MOST {
            return Err(Status::invalid_argument(format!("more than {MOST} commands in a call")));
        }
        let commands = commands.iter().map(|bytes| command_of(bytes)).collect::<Result<Vec<_>, _>>()?;
        // All of them are in the queue before the first is answered, so that they can go as one entry.
        let all = join_all(commands.into_iter().map(|command| self.core.propose_for_peer(command))).await;
        let answers = all.into_iter().map(proposed).collect();
        Ok(Response::new(v1::ProposeResponse { answers, ..v1::ProposeResponse::default() }))
    }

    async fn read_index(
        &self,
        request: Request<v1::ReadIndexRequest>,
    ) -> Result<Response<v1::ReadIndexResponse>, Status> {
        self.known(&request, request.get_ref().target)?;
        let index = self.core.node.read_index().await?;
        Ok(Response::new(v1::ReadIndexResponse { index, now_unix_ms: self.core.now_ms() }))
    }

    async fn stand_for_election(
        &self,
        request: Request<v1::StandForElectionRequest>,
    ) -> Result<Response<v1::StandForElectionResponse>, Status> {
        let member = self.known(&request, request.get_ref().target)?;
        if self.core.node.leads() {
            return Ok(Response::new(v1::StandForElectionResponse {}));
        }
        if self.core.node.leader().is_some_and(|(leader, _)| leader != member) {
            return Err(Status::permission_denied("only the leader hands the lead over"));
        }
        self.core.node.stand().await?;
        Ok(Response::new(v1::StandForElectionResponse {}))
    }

    async fn describe(&self, request: Request<v1::DescribeRequest>) -> Result<Response<v1::DescribeResponse>, Status> {
        // One that receives the state knows nobody, and its operators want to see it do so.
        let receives = self.core.node.shared().read().members.is_empty();
        let target = request.get_ref().target;
        if receives {
            self.meant(&request, target)?
        } else {
            self.known(&request, target)?
        };
        Ok(Response::new(v1::DescribeResponse { vitals: Some(status::own(&self.core)) }))
    }

    async fn rejoin(&self, request: Request<v1::RejoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        let member = member_of(&self.core, &request)?;
        self.leading()?;
        Ok(Response::new(admit::readmit(&self.core, member, request.into_inner()).await?))
    }
}
