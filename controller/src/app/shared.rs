//! What all parts of a controller share, and the ways to the log from everywhere.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use sallyport_proto::v1;

use super::Paths;
use super::latest::Latest;
use super::onward::{Answered, Batch, Onward};
use crate::actor;
use crate::api::live::Live;
use crate::auth::Authenticator;
use crate::auth::lockout::Lockout;
use crate::authority::Opened;
use crate::clock::Clock;
use crate::cluster::links::Links;
use crate::config::Config;
use crate::error::Error;
use crate::front::Front;
use crate::ledger::Audit;
use crate::lists::Lists;
use crate::metrics::Metrics;
use crate::raft::{Node, ProposeError};
use crate::seal::Sealer;
use crate::soft::Soft;
use crate::software::Software;
use crate::state::{Action, Command, Reply};

/// From this level on a leader takes several commands in a call.
const TOGETHER_LEVEL: u32 = 8;
/// How long a call waits for the group to have a leader again.
const LEADER_WAIT: Duration = Duration::from_millis(3_000);
/// Pause between two looks for a leader that did not answer.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a follower may take to apply what a read must show.
const READ_WAIT: Duration = Duration::from_secs(5);

/// What all parts share.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    /// What this process is to the others.
    pub(crate) software: Software,
    /// Whether a gateway is started beside this controller.
    pub(crate) with_gateway: bool,
    pub(crate) paths: Paths,
    pub(crate) node: Node,
    pub(crate) links: Arc<Links>,
    /// HOST:PORT where other members reach this node.
    pub(crate) address: String,
    /// Where programs on this machine reach it.
    pub(crate) reachable: SocketAddr,
    pub(crate) sealer: Sealer,
    pub(crate) soft: Soft,
    pub(crate) lockout: Lockout,
    pub(crate) authenticator: OnceLock<Authenticator>,
    pub(crate) authorities: Opened,
    /// What gateways have of the set of live certificates.
    pub(crate) live: Live,
    pub(crate) lists: Lists,
    pub(crate) metrics: Metrics,
    /// The audit log, beside the state.
    pub(crate) audit: Audit,
    /// The enrollment endpoint.
    pub(crate) front: OnceLock<Weak<Front>>,
    /// Questions for the latest state, shared.
    pub(super) latest: Latest,
    /// Commands on their way to the leader.
    pub(super) onward: Onward,
    /// When it started, monotonic milliseconds.
    pub(super) started_ms: u64,
}

impl Core {
    /// The enrollment endpoint, unless this controller has stopped.
    pub(crate) fn front(&self) -> Option<Arc<Front>> {
        self.front.get()?.upgrade()
    }

    /// The check of passwords; set before anything that could ask for it is started.
    pub(crate) fn authenticator(&self) -> &Authenticator {
        self.authenticator.get().expect("bootstrap makes the authenticator")
    }

    /// The log's time, milliseconds since 1970: what decides on everything that ends.
    pub(crate) fn now_ms(&self) -> u64 {
        self.node.time().now_ms()
    }

    /// When this process started, in the log's time.
    pub(crate) fn started_ms(&self) -> u64 {
        self.now_ms().saturating_sub(self.clock.monotonic_ms().saturating_sub(self.started_ms))
    }

    /// Names the cluster.
    pub(crate) fn cluster_id(&self) -> Vec<u8> {
        self.node.shared().read().cluster_id().to_vec()
    }

    /// Whether this node can answer: a new member first receives the state.
    pub(crate) fn is_ready(&self) -> bool {
        self.knows_root() && self.authenticator.get().is_some()
    }

    /// Puts a change into the log, under a request id of its own.
    pub(crate) async fn propose(&self, action: Action) -> Result<Reply, Error> {
        Ok(self.propose_plain(action).await?)
    }

    /// The same, for whoever handles these errors alone.
    pub(crate) async fn propose_plain(&self, action: Action) -> Result<Reply, ProposeError> {
        self.propose_as(self.new_id()?, action).await
    }

    /// A request id.
    pub(crate) fn new_id(&self) -> Result<[u8; 16], ProposeError> {
        self.sealer.random().map_err(|e| ProposeError::Stopped(e.to_string()))
    }

    /// Puts a change into the log, through the leader wherever it is; with an id that was applied before, the answer of then.
    /// While the group has no leader, it is tried again: the id makes that harmless.
    pub(crate) async fn propose_as(&self, request_id: [u8; 16], action: Action) -> Result<Reply, ProposeError> {
        self.propose_command(self.command(request_id.to_vec(), action)).await
    }

    /// The same for what the state itself makes once: no answer is kept for it.
    pub(crate) async fn propose_idempotent(&self, action: Action) -> Result<Reply, ProposeError> {
        self.propose_command(self.command(Vec::new(), action)).await
    }

    /// The same, and this node shows what came of it, if that can be had in [`READ_WAIT`].
    pub(crate) async fn propose_and_see(&self, action: Action) -> Result<Reply, ProposeError> {
        let (reply, index) = self.send_command(self.command(Vec::new(), action)).await?;
        if index == 0 {
            self.catch_up().await; // older software leads
        } else if let Err(error) = self.node.applied(index, READ_WAIT).await {
            tracing::debug!(%error, "this node does not know yet what was changed through another");
        }
        Ok(reply)
    }

    /// A command that has no time yet: whoever proposes it to the group fills that in. It says in whose name it is made.
    fn command(&self, request_id: Vec<u8>, action: Action) -> Command {
        let action = actor::attributed(self.node.shared().read().level(), action);
        Command { request_id, at_ms: 0, action: Some(action) }
    }

    async fn propose_command(&self, command: Command) -> Result<Reply, ProposeError> {
        Ok(self.send_command(command).await?.0)
    }

    async fn send_command(&self, command: Command) -> Answered {
        self.at_leader(|leader| {
            let command = command.clone();
            async move {
                match leader {
                    None => self.node.propose_at(command).await,
                    Some((id, address)) => self.propose_elsewhere(id, &address, command).await,
                }
            }
        })
        .await
    }

    /// What a decision can rest on at this node: without asking the others if it leads.
    pub(crate) async fn sight(&self) -> Result<Sight, ProposeError> {
        match self.node.reign() {
            Some(term) => Ok(Sight::AsLeader(term)),
            None => self.clear_sight().await,
        }
    }

    /// The same, with the others asked.
    pub(crate) async fn clear_sight(&self) -> Result<Sight, ProposeError> {
        self.linearizable().await?;
        Ok(Sight::Clear)
    }

    /// Puts a change into the log that was decided on by what was in sight; `None` if that may have been out of date.
    pub(crate) async fn propose_by(
        &self,
        sight: Sight,
        request_id: [u8; 16],
        action: Action,
    ) -> Result<Option<Reply>, ProposeError> {
        match sight {
            Sight::Clear => self.propose_as(request_id, action).await.map(Some),
            Sight::AsLeader(term) => {
                match self.node.propose_in(term, self.command(request_id.to_vec(), action)).await {
                    Ok(reply) => Ok(Some(reply)),
                    Err(ProposeError::NoLeader | ProposeError::Elsewhere { .. }) => Ok(None),
                    Err(e) => Err(e),
                }
            }
        }
    }

    /// The same if this node leads, and not at all if another does: for what this node alone has seen.
    pub(crate) async fn propose_here(&self, action: Action) -> Result<Reply, ProposeError> {
        self.node.propose(self.command(self.new_id()?.to_vec(), action)).await
    }

    /// The same for a command of another member.
    pub(crate) async fn propose_for_peer(&self, command: Command) -> Answered {
        self.node.propose_at(command).await
    }

    async fn propose_elsewhere(&self, id: u64, address: &str, command: Command) -> Answered {
        let together = {
            let state = self.node.shared().read();
            // A leader with older software would drop what it does not know of it.
            if let Some(action) = &command.action {
                state.permits(action).map_err(ProposeError::Level)?;
            }
            state.level() >= TOGETHER_LEVEL
        };
        let leader = (id, address.to_owned());
        if together {
            return self.onward.go(leader, &command, |batch| send_onward(self.links.clone(), batch)).await;
        }
        let (batch, answered) = Batch::of(leader, &command);
        send_onward(self.links.clone(), batch).await;
        answered.await.unwrap_or(Err(ProposeError::NoLeader))
    }

    /// The same while this node hears of no leader: others may look for it at an address where it no longer is.
    pub(crate) async fn propose_anywhere(&self, action: Action) -> Result<(), ProposeError> {
        let command = self.command(self.new_id()?.to_vec(), action);
        let others: Vec<(u64, String)> = {
            let state = self.node.shared().read();
            state
                .live_members()
                .filter(|(id, _)| *id != self.node.id())
                .map(|(id, m)| (id, m.address.clone()))
                .collect()
        };
        for (id, address) in others {
            if self.propose_elsewhere(id, &address, command.clone()).await.is_ok() {
                return Ok(());
            }
        }
        Err(ProposeError::NoLeader)
    }

    /// Returns once the state of this node shows everything that was acknowledged before this call, anywhere.
    /// All who wait for that share one question to the leader at a time.
    pub(crate) async fn linearizable(&self) -> Result<(), ProposeError> {
        if self.node.leader().is_none() {
            return self.ask_for_latest().await; // each has its own patience
        }
        let shared = self.latest.share(|| self.ask_for_latest());
        tokio::time::timeout(READ_WAIT, shared).await.unwrap_or(Err(ProposeError::NoLeader))
    }

    async fn ask_for_latest(&self) -> Result<(), ProposeError> {
        let index = self
            .at_leader(|leader| async move {
                match leader {
                    None => self.node.read_index().await,
                    Some((id, address)) => {
                        let mut client = self.links.peer(&address).map_err(|e| ProposeError::Stopped(e.to_string()))?;
                        let answer = client.read_index(v1::ReadIndexRequest { target: id }).await;
                        Ok(answer.map_err(|status| failed_call(&self.links, id, &status))?.into_inner().index)
                    }
                }
            })
            .await?;
        self.node.applied(index, READ_WAIT).await
    }

    /// A node that lost the lead in the middle of a change made it through another leader, and knows of it later: this waits for that
    /// as long as a read would. What was changed stays changed if it is in vain.
    pub(crate) async fn catch_up(&self) {
        if !self.node.leads()
            && let Err(error) = self.linearizable().await
        {
            tracing::debug!(%error, "this node does not know yet what was changed through another");
        }
    }

    /// Does something at the leader: `None` is this node. Tried again for a while when there is none or it has just changed.
    async fn at_leader<T, F>(&self, mut ask: impl FnMut(Option<(u64, String)>) -> F) -> Result<T, ProposeError>
    where
        F: Future<Output = Result<T, ProposeError>>,
    {
        let tries = async {
            loop {
                let leader = self.node.leader();
                let error = match &leader {
                    Some((id, _)) if *id == self.node.id() => ask(None).await,
                    Some(elsewhere) => ask(Some(elsewhere.clone())).await,
                    None => Err(ProposeError::NoLeader),
                };
                match error {
                    Err(ProposeError::NoLeader | ProposeError::Elsewhere { .. }) => {}
                    other => return other,
                }
                let before = leader.map(|(id, _)| id);
                self.node.leader_changes(before, PAUSE).await?;
            }
        };
        tokio::time::timeout(LEADER_WAIT, tries).await.unwrap_or(Err(ProposeError::NoLeader))
    }

    /// Gateways heard of within their timeout.
    pub(crate) fn gateways_alive(&self) -> usize {
        let now = self.clock.monotonic_ms();
        let timeout = u64::from(self.config.gateways.timeout_ms);
        let state = self.node.shared().read();
        let signs = self.soft.lock();
        let alive = |slot: &u32, epoch: u64| {
            signs
                .gateways
                .get(slot)
                .is_some_and(|g| g.epoch == epoch && g.seen_unix_ms != 0 && now.saturating_sub(g.seen_ms) <= timeout)
        };
        state.gateways.iter().filter(|(slot, g)| !g.lost && alive(slot, g.epoch)).count()
    }
}

/// Puts commands to the leader that they are for.
async fn send_onward(links: Arc<Links>, mut batch: Batch) {
    let (id, address) = batch.to.clone();
    let answer = match links.peer(&address) {
        Ok(mut client) => {
            // Longer than this nobody waits, and the next leader's calls wait for this one's end.
            match tokio::time::timeout(LEADER_WAIT, client.propose(batch.request())).await {
                Ok(Ok(answer)) => Ok(answer.into_inner()),
                Ok(Err(status)) => Err(failed_call(&links, id, &status)),
                Err(_) => Err(ProposeError::NoLeader),
            }
        }
        Err(e) => Err(ProposeError::Stopped(e.to_string())),
    };
    batch.tell(answer);
}

fn failed_call(links: &Links, at: u64, status: &tonic::Status) -> ProposeError {
    links.removal().refused_by(at, status);
    match status.code() {
        tonic::Code::ResourceExhausted => ProposeError::Overloaded,
        _ => ProposeError::NoLeader,
    }
}

/// What the state of a node is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// It shows everything that was acknowledged before.
    Clear,
    /// The same if this node still leads in this term, which it does not know. A change that it puts into the log in the same term
    /// proves it: asking the others would be another round.
    AsLeader(u64),
}
