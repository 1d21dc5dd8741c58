//! Builds, joins and stops the parts of a controller.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use prost::Message;
use sallyport_proto::v1;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::api::live::Live;
use crate::api::{Tls, server};
use crate::auth::Authenticator;
use crate::auth::lockout::Lockout;
use crate::auth::password::Workers;
use crate::authority::{self, IssueRequest, Issued, Opened};
use crate::clock::Clock;
use crate::cluster::join::Candidate;
use crate::cluster::links::Links;
use crate::cluster::member::MemberFile;
use crate::cluster::token::Token;
use crate::cluster::{self, Formation, keeper, lead};
use crate::config::Config;
use crate::error::Error;
use crate::front::{self, Front};
use crate::ledger::Audit;
use crate::lists::{self, Lists};
use crate::metrics::Metrics;
use crate::raft::{Health, LogTime, Node, NodeOptions, ProposeError};
use crate::seal::Sealer;
use crate::soft::Soft;
use crate::software::Software;
use crate::state::{Action, Command, Reply};
use crate::{actor, bootstrap, files, identity, janitor};

/// Id of the node that makes a cluster.
const FIRST: u64 = 1;
/// How long a call waits for the group to have a leader again.
const LEADER_WAIT: Duration = Duration::from_millis(3_000);
/// Pause between two looks for a leader that did not answer.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a follower may take to apply what a read must show.
const READ_WAIT: Duration = Duration::from_secs(5);

/// Where things are in the state folder.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    root: PathBuf,
}

impl Paths {
    /// In this state folder.
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// The state folder itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Which member this node is.
    pub(crate) fn member(&self) -> PathBuf {
        self.controller().join("member")
    }

    /// Log, state and snapshots.
    pub(crate) fn raft(&self) -> PathBuf {
        self.root.join("raft")
    }

    /// The authority's certificate and sealed key, a copy of what is in the state.
    pub(crate) fn ca(&self) -> PathBuf {
        self.root.join("ca")
    }

    /// The controller's own certificate and key.
    pub(crate) fn controller(&self) -> PathBuf {
        self.root.join("controller")
    }

    /// What the first operator needs to connect.
    pub(crate) fn operator(&self) -> PathBuf {
        self.root.join("operator")
    }
}

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
    /// When it started, monotonic milliseconds.
    started_ms: u64,
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

    /// A command that has no time yet: whoever proposes it to the group fills that in. It says in whose name it is made.
    fn command(&self, request_id: Vec<u8>, action: Action) -> Command {
        let action = actor::attributed(self.node.shared().read().level(), action);
        Command { request_id, at_ms: 0, action: Some(action) }
    }

    async fn propose_command(&self, command: Command) -> Result<Reply, ProposeError> {
        self.at_leader(|leader| {
            let command = command.clone();
            async move {
                match leader {
                    None => self.node.propose(command).await,
                    Some((id, address)) => self.propose_at(id, &address, command).await,
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
    pub(crate) async fn propose_for_peer(&self, command: Command) -> Result<Reply, ProposeError> {
        self.node.propose(command).await
    }

    async fn propose_at(&self, id: u64, address: &str, command: Command) -> Result<Reply, ProposeError> {
        // A leader with older software would drop what it does not know of it.
        if let Some(action) = &command.action {
            self.node.shared().read().permits(action).map_err(ProposeError::Level)?;
        }
        let mut client = self.links.peer(address).map_err(|e| ProposeError::Stopped(e.to_string()))?;
        let request = v1::ProposeRequest { target: id, command: command.encode_to_vec() };
        let answer = client.propose(request).await.map_err(|status| self.failed_call(id, &status))?;
        Reply::decode(answer.into_inner().reply.as_slice()).map_err(|_| ProposeError::NoLeader)
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
            if self.propose_at(id, &address, command.clone()).await.is_ok() {
                return Ok(());
            }
        }
        Err(ProposeError::NoLeader)
    }

    fn failed_call(&self, at: u64, status: &tonic::Status) -> ProposeError {
        self.links.removal().refused_by(at, status);
        match status.code() {
            tonic::Code::ResourceExhausted => ProposeError::Overloaded,
            _ => ProposeError::NoLeader,
        }
    }

    /// Returns once the state of this node shows everything that was acknowledged before this call, anywhere.
    pub(crate) async fn linearizable(&self) -> Result<(), ProposeError> {
        let index = self
            .at_leader(|leader| async move {
                match leader {
                    None => self.node.read_index().await,
                    Some((id, address)) => {
                        let mut client = self.links.peer(&address).map_err(|e| ProposeError::Stopped(e.to_string()))?;
                        let answer = client.read_index(v1::ReadIndexRequest { target: id }).await;
                        Ok(answer.map_err(|status| self.failed_call(id, &status))?.into_inner().index)
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

/// What the state of a node is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// It shows everything that was acknowledged before.
    Clear,
    /// The same if this node still leads in this term, which it does not know. A change that it puts into the log in the same term
    /// proves it: asking the others would be another round.
    AsLeader(u64),
}

/// Starts controllers.
#[derive(Debug)]
pub struct Controller;

/// How to start, beside the settings.
#[derive(Debug)]
pub struct Start {
    /// What an empty state folder is for.
    pub formation: Formation,
    /// The clock.
    pub clock: Clock,
    /// What the others are told that this is. Another one than [`Software::current`] is for tests of an upgrade.
    pub software: Software,
    /// A gateway of its own is started beside it: until that has registered, the controller says that it is starting.
    pub with_gateway: bool,
}

impl Start {
    /// As usual.
    pub fn new(formation: Formation) -> Self {
        Self { formation, clock: Clock::system(), software: Software::current(), with_gateway: false }
    }
}

impl Controller {
    /// Whether a state folder holds the state of a controller: then nothing is made or joined there.
    pub fn is_in(state_dir: &Path) -> bool {
        let paths = Paths::new(state_dir);
        paths.raft().join("store").exists() || paths.member().exists()
    }

    /// Starts a controller on a state folder, making a cluster where there is none: seal key, root, its own certificate, and
    /// the first operator's under `operator/`. Returns once it answers.
    pub async fn start(config: Config, state_dir: &Path) -> Result<Running, Error> {
        Self::start_as(config, state_dir, Start::new(Formation::Found)).await
    }

    /// The same, and says what an empty state folder is for.
    pub async fn form(config: Config, state_dir: &Path, formation: Formation) -> Result<Running, Error> {
        Self::start_as(config, state_dir, Start::new(formation)).await
    }

    /// As [`Controller::start`], with another clock.
    pub async fn start_with(config: Config, state_dir: &Path, clock: Clock) -> Result<Running, Error> {
        Self::start_as(config, state_dir, Start { clock, ..Start::new(Formation::Found) }).await
    }

    /// As [`Controller::form`], with another clock.
    pub async fn form_with(
        config: Config,
        state_dir: &Path,
        formation: Formation,
        clock: Clock,
    ) -> Result<Running, Error> {
        Self::start_as(config, state_dir, Start { clock, ..Start::new(formation) }).await
    }

    /// The same with everything else said, too.
    ///
    /// The future has no type of its own, so that the code of a whole controller is compiled here, and not in each program and test
    /// that starts one.
    pub fn start_as(config: Config, state_dir: &Path, start: Start) -> BoxFuture<'_, Result<Running, Error>> {
        Box::pin(Self::begin(config, state_dir, start))
    }

    async fn begin(config: Config, state_dir: &Path, start: Start) -> Result<Running, Error> {
        let Start { formation, clock, software, with_gateway } = start;
        config.check()?;
        let paths = Paths::new(state_dir);
        files::private_dir(&paths.root)?;
        files::private_dir(&paths.raft())?;
        let grpc = listen(config.listen, "gRPC").await?;
        let listening = grpc.local_addr().map_err(|e| Error::Internal(e.to_string()))?;
        let time = LogTime::new(clock.clone());
        let links = Links::new(time.clone(), clock.clone());
        let place = take_place(&config, &paths, &software, listening, formation, &links).await?;
        let metrics_listener = match config.metrics_listen {
            Some(address) => Some(listen(address, "metrics").await?),
            None => None,
        };
        let enrollment = front::Listeners::bind(&config.enrollment).await?;
        let options = NodeOptions {
            id: place.id,
            dir: paths.raft(),
            engine: config.storage.engine,
            snapshot_every: config.storage.snapshot_every,
            heartbeat_ms: config.raft.heartbeat_ms,
            transport: links.clone(),
            found: place.founds.then(|| place.address.clone()),
            time,
            software: software.clone(),
        };
        let node = Node::start(&options).await?;
        let workers = Workers::new(config.passwords);
        let core = Arc::new(Core {
            started_ms: clock.monotonic_ms(),
            metrics: Metrics::new().map_err(|e| Error::Internal(e.to_string()))?,
            config,
            clock,
            software,
            with_gateway,
            paths,
            node,
            links,
            address: place.address,
            reachable: cluster::reachable(listening),
            sealer: place.sealer,
            soft: Soft::default(),
            lockout: Lockout::default(),
            audit: Audit::default(),
            authenticator: OnceLock::new(),
            authorities: Opened::default(),
            live: Live::default(),
            lists: Lists::default(),
            front: OnceLock::new(),
        });
        let front = Arc::new(Front::new(&core)?);
        let _ = core.front.set(Arc::downgrade(&front)); // set here and nowhere else
        cluster::know_servers(&core);
        let tls = match bootstrap::identify(&core).await {
            Ok(tls) => tls,
            Err(e) => {
                core.node.shutdown().await;
                return Err(e);
            }
        };
        // From here on others are answered: a group whose members all wait for each other would never begin.
        let running = Running::spawn(core.clone(), tls, grpc, metrics_listener, (enrollment, front))?;
        match bootstrap::open(&core, workers).await {
            Ok(()) => Ok(running),
            Err(e) => {
                running.shutdown().await;
                Err(e)
            }
        }
    }
}

/// A node's place in a cluster.
struct Place {
    id: u64,
    /// HOST:PORT where other members reach it.
    address: String,
    /// Whether it makes the group should the store be new.
    founds: bool,
    sealer: Sealer,
}

/// Finds out which member this node is, and becomes one where it is none.
async fn take_place(
    config: &Config,
    paths: &Paths,
    software: &Software,
    listening: SocketAddr,
    formation: Formation,
    links: &Arc<Links>,
) -> Result<Place, Error> {
    let address = || cluster::advertised(config, listening);
    let stored = paths.raft().join("store").exists();
    let member = MemberFile::read(&paths.member())?;
    let candidate = |address, learner| Candidate { config, paths, software, address, learner };
    match (stored, member, formation) {
        (true, Some(member), _) => {
            let sealer = Sealer::open(paths.root(), &config.unseal, false)?;
            bootstrap::show_identity(paths, &sealer, &config.unseal, links)?;
            // A group of one need not be reached by others.
            let address = address().or_else(|e| match member.members.as_slice() {
                [own] => Ok(own.clone()),
                _ => Err(e),
            })?;
            Ok(Place { id: member.id, address, founds: false, sealer })
        }
        // A cluster that was begun and not finished, or one of a time before there were members.
        (true, None, _) => {
            let sealer = Sealer::open(paths.root(), &config.unseal, false)?;
            let address = address().unwrap_or_else(|_| listening.to_string());
            Ok(Place { id: FIRST, address, founds: true, sealer })
        }
        (false, None, Formation::Found) => {
            let sealer = Sealer::open(paths.root(), &config.unseal, true)?;
            let address = address().unwrap_or_else(|_| listening.to_string());
            Ok(Place { id: FIRST, address, founds: true, sealer })
        }
        (false, None, Formation::Join { addresses, token, learner }) => {
            let (token, address) = (Token::parse(&token)?, address()?);
            let (member, sealer) = candidate(address.clone(), learner).join(&addresses, &token).await?;
            bootstrap::show_identity(paths, &sealer, &config.unseal, links)?;
            Ok(Place { id: member.id, address, founds: false, sealer })
        }
        (false, Some(member), _) => {
            let sealer = Sealer::open(paths.root(), &config.unseal, false)?;
            bootstrap::show_identity(paths, &sealer, &config.unseal, links)?;
            let address = address()?;
            let member = candidate(address.clone(), false).rejoin(&member, links).await?;
            Ok(Place { id: member.id, address, founds: false, sealer })
        }
        (false, None, Formation::Existing) => Err(Error::File {
            path: paths.root().into(),
            cause: "there is no controller's state here".into(),
            remedy: "make a cluster with --bootstrap, or join one with --join HOST:PORT --token-file FILE".into(),
        }),
    }
}

async fn listen(address: SocketAddr, what: &'static str) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, what, source })
}

/// A controller that runs. Dropping it stops its tasks, but [`Running::shutdown`] waits until the store is closed.
pub struct Running {
    core: Arc<Core>,
    grpc_address: SocketAddr,
    metrics_address: Option<SocketAddr>,
    enrollment_addresses: [Option<SocketAddr>; 2],
    /// Held here: the core does not hold it.
    #[allow(dead_code, reason = "it lives as long as this")]
    front: Arc<Front>,
    tls: Arc<Tls>,
    stop: tokio::sync::watch::Sender<bool>,
    server: Option<JoinHandle<()>>,
    tasks: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("grpc_address", &self.grpc_address).finish_non_exhaustive()
    }
}

impl Running {
    fn spawn(
        core: Arc<Core>,
        tls: Tls,
        grpc: TcpListener,
        metrics: Option<TcpListener>,
        (enrollment, front): (front::Listeners, Arc<Front>),
    ) -> Result<Self, Error> {
        let local = |listener: &TcpListener| listener.local_addr().map_err(|e| Error::Internal(e.to_string()));
        let grpc_address = local(&grpc)?;
        let metrics_address = metrics.as_ref().map(local).transpose()?;
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let tls = Arc::new(tls);
        let mut tasks = vec![
            tokio::spawn(janitor::run(core.clone())),
            tokio::spawn(bootstrap::keep_fresh(core.clone(), tls.clone())),
            tokio::spawn(keeper::run(core.clone())),
            tokio::spawn(front::keep_certificate(core.clone(), front.clone())),
            tokio::spawn(crate::enroll::keep_ra(core.clone())),
            tokio::spawn(lists::keep(core.clone())),
        ];
        let enrollment_addresses = enrollment.addresses();
        tasks.extend(enrollment.serve(&front));
        if let Some(listener) = metrics {
            tasks.push(tokio::spawn(sallyport_monitor::serve(listener, core.clone())));
        }
        let server = tokio::spawn(server::serve(grpc, core.clone(), tls.clone(), stopped));
        tracing::info!(address = %grpc_address, "the controller answers");
        let server = Some(server);
        Ok(Self { core, grpc_address, metrics_address, enrollment_addresses, front, tls, stop, server, tasks })
    }

    /// Where gateways and operators connect.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    /// Where `/metrics` is, if anywhere.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Where this controller itself offers the enrollment endpoint, if anywhere: HTTPS, and plain HTTP.
    pub fn enrollment_addresses(&self) -> [Option<SocketAddr>; 2] {
        self.enrollment_addresses
    }

    /// Folder with the first operator's `cert.pem`, `key.pem` and `ca.pem`.
    pub fn operator_dir(&self) -> PathBuf {
        self.core.paths.operator()
    }

    /// The root certificate, DER.
    pub fn root_certificate(&self) -> Vec<u8> {
        self.core.root().der().to_vec()
    }

    /// Makes a key and a certificate, as an operator would over gRPC.
    pub async fn issue(&self, request: IssueRequest) -> Result<Issued, Error> {
        authority::issue(&self.core, request).await
    }

    /// Sees that `dir` holds a gateway's identity: `ca.pem`, `grpc.pem` and `.key` in the name of the gateway, `ike-rsa` and
    /// `ike-ecdsa` (`.pem` and `.key`) for `public_names`, the host names or addresses that clients dial. What is there and
    /// good for more than a third of its life is kept.
    pub async fn issue_gateway(&self, name: &str, public_names: &[String], dir: &Path) -> Result<(), Error> {
        identity::gateway(&self.core, name, public_names, dir).await
    }

    /// Renews this controller's own certificate and that of its operator's folder if they are due, as it does every hour by itself.
    pub async fn look_after_certificates(&self) -> Result<(), Error> {
        bootstrap::refresh(&self.core, &self.tls).await.map(drop)
    }

    /// Waits until the controller cannot go on; the error says why. Stop it then.
    pub async fn wait(&self) -> Error {
        let mut health = self.core.node.health();
        let mut removed = self.core.links.removal().subscribe();
        loop {
            let now = health.borrow_and_update().clone();
            match now {
                Health::Running => {}
                Health::Failed { path, cause } => return Error::Storage { path, cause },
                Health::Outdated(beyond) => return Error::Outdated(beyond),
                Health::Stopped => return Error::Internal("the Raft group stopped by itself".into()),
            }
            if *removed.borrow_and_update() {
                return Error::Removed { id: self.core.node.id(), state: self.core.paths.root().into() };
            }
            tokio::select! {
                changed = health.changed() => if changed.is_err() {
                    return Error::Internal("the Raft group went away".into());
                },
                _ = removed.changed() => {}
            }
        }
    }

    /// What all parts share.
    #[cfg(test)]
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// The id of this member.
    pub fn member_id(&self) -> u64 {
        self.core.node.id()
    }

    /// Hands the lead over if this controller has it, so that its end makes nobody wait for an election. Returns who leads now;
    /// `None` where there was nothing to hand over, or nobody to take it.
    pub async fn step_down(&self) -> Option<u64> {
        lead::step_down(&self.core).await
    }

    /// Stops: another leads, there are no new calls, running ones are answered, the store is closed.
    pub async fn shutdown(mut self) {
        self.step_down().await;
        self.core.node.retire();
        self.stop.send_replace(true);
        if let Some(server) = self.server.take() {
            let _ = server.await; // a panic in it was logged
        }
        self.stop_tasks().await;
        self.core.node.shutdown().await;
        tracing::info!("the controller has stopped");
    }

    async fn stop_tasks(&mut self) {
        for task in std::mem::take(&mut self.tasks) {
            task.abort();
            let _ = task.await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for task in &self.tasks {
            task.abort();
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
