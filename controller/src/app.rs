//! Builds, joins and stops the parts of a controller.

mod latest;
mod onward;
mod paths;
mod running;
mod shared;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;
use tokio::net::TcpListener;

use self::latest::Latest;
use self::onward::Onward;
pub(crate) use self::onward::{MOST as MOST_COMMANDS, proposed};
pub(crate) use self::paths::Paths;
pub use self::running::Running;
pub(crate) use self::shared::{Core, Sight};
use crate::api::live::Live;
use crate::auth::lockout::Lockout;
use crate::auth::password::Workers;
use crate::authority::Opened;
use crate::clock::Clock;
use crate::cluster::join::Candidate;
use crate::cluster::links::Links;
use crate::cluster::member::MemberFile;
use crate::cluster::token::Token;
use crate::cluster::{self, Formation};
use crate::config::Config;
use crate::error::Error;
use crate::front::{self, Front};
use crate::ledger::Audit;
use crate::lists::Lists;
use crate::metrics::Metrics;
use crate::raft::{LogTime, Node, NodeOptions};
use crate::seal::Sealer;
use crate::soft::Soft;
use crate::software::Software;
use crate::{bootstrap, files};

/// Id of the node that makes a cluster.
const FIRST: u64 = 1;

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
        files::private_dir(paths.root())?;
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
            latest: Latest::default(),
            onward: Onward::default(),
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

#[cfg(test)]
pub(crate) mod tests;
