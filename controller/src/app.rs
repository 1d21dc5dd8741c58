//! Builds, joins and stops the parts of a controller.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use sallyport_ca::Authority;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::api::{Tls, server};
use crate::auth::Authenticator;
use crate::auth::lockout::Lockout;
use crate::auth::password::Workers;
use crate::authority::{self, IssueRequest, Issued};
use crate::clock::Clock;
use crate::config::Config;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::raft::{Health, Node, NodeOptions, ProposeError};
use crate::seal::Sealer;
use crate::soft::Soft;
use crate::state::{Action, Command, Reply};
use crate::{bootstrap, files, identity, janitor};

/// Id of the only node of the group.
const NODE_ID: u64 = 1;

/// Where things are in the state folder.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    root: PathBuf,
}

impl Paths {
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
    pub(crate) paths: Paths,
    pub(crate) node: Node,
    pub(crate) sealer: Sealer,
    pub(crate) soft: Soft,
    pub(crate) lockout: Lockout,
    pub(crate) authenticator: OnceLock<Authenticator>,
    pub(crate) authority: OnceLock<Authority>,
    pub(crate) metrics: Metrics,
    pub(crate) started_ms: u64,
}

impl Core {
    /// The open authority.
    ///
    /// It is set before anything that could ask for it is started.
    pub(crate) fn authority(&self) -> &Authority {
        self.authority.get().expect("bootstrap opens the authority")
    }

    /// The check of passwords; set like the authority.
    pub(crate) fn authenticator(&self) -> &Authenticator {
        self.authenticator.get().expect("bootstrap makes the authenticator")
    }

    /// Names the cluster.
    pub(crate) fn cluster_id(&self) -> Vec<u8> {
        self.node.shared().read().cluster_id().to_vec()
    }

    /// Puts a change into the log, under a request id of its own.
    pub(crate) async fn propose(&self, action: Action) -> Result<Reply, Error> {
        Ok(self.propose_plain(action).await?)
    }

    /// The same, for whoever handles these errors alone.
    pub(crate) async fn propose_plain(&self, action: Action) -> Result<Reply, ProposeError> {
        let id: [u8; 16] = self.sealer.random().map_err(|e| ProposeError::Stopped(e.to_string()))?;
        self.propose_as(id, action).await
    }

    /// Puts a change into the log; with an id that was applied before, the answer of then.
    pub(crate) async fn propose_as(&self, request_id: [u8; 16], action: Action) -> Result<Reply, ProposeError> {
        let command = Command { request_id: request_id.to_vec(), at_ms: self.clock.unix_ms(), action: Some(action) };
        self.node.propose(command).await
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

/// Starts controllers.
#[derive(Debug)]
pub struct Controller;

impl Controller {
    /// Starts a controller on a state folder. On an empty folder it first makes the cluster: seal key, root, its own
    /// certificate, and the first operator's under `operator/`. Returns once it answers.
    pub async fn start(config: Config, state_dir: &Path) -> Result<Running, Error> {
        Self::start_with(config, state_dir, Clock::system()).await
    }

    /// The same with another clock.
    pub async fn start_with(config: Config, state_dir: &Path, clock: Clock) -> Result<Running, Error> {
        config.check()?;
        let paths = Paths { root: state_dir.to_path_buf() };
        files::private_dir(&paths.root)?;
        files::private_dir(&paths.raft())?;
        let pristine = !paths.raft().join("store").exists();
        let sealer = Sealer::open(&paths.root, &config.unseal, pristine)?;
        let grpc = listen(config.listen, "gRPC").await?;
        let metrics_listener = match config.metrics_listen {
            Some(address) => Some(listen(address, "metrics").await?),
            None => None,
        };
        let options = NodeOptions {
            id: NODE_ID,
            dir: paths.raft(),
            engine: config.storage.engine,
            snapshot_every: config.storage.snapshot_every,
        };
        let node = Node::start(&options).await?;
        let workers = Workers::new(config.passwords);
        let core = Arc::new(Core {
            started_ms: clock.unix_ms(),
            metrics: Metrics::new().map_err(|e| Error::Internal(e.to_string()))?,
            config,
            clock,
            paths,
            node,
            sealer,
            soft: Soft::default(),
            lockout: Lockout::default(),
            authenticator: OnceLock::new(),
            authority: OnceLock::new(),
        });
        let tls = match bootstrap::run(&core, workers).await {
            Ok(tls) => tls,
            Err(e) => {
                core.node.shutdown().await;
                return Err(e);
            }
        };
        Running::spawn(core, tls, grpc, metrics_listener)
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
    fn spawn(core: Arc<Core>, tls: Tls, grpc: TcpListener, metrics: Option<TcpListener>) -> Result<Self, Error> {
        let local = |listener: &TcpListener| listener.local_addr().map_err(|e| Error::Internal(e.to_string()));
        let grpc_address = local(&grpc)?;
        let metrics_address = metrics.as_ref().map(local).transpose()?;
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let tls = Arc::new(tls);
        let mut tasks = vec![
            tokio::spawn(janitor::run(core.clone())),
            tokio::spawn(bootstrap::keep_certificate_fresh(core.clone(), tls.clone())),
        ];
        if let Some(listener) = metrics {
            tasks.push(tokio::spawn(sallyport_monitor::serve(listener, core.clone())));
        }
        let server = tokio::spawn(server::serve(grpc, core.clone(), tls, stopped));
        tracing::info!(address = %grpc_address, "the controller answers");
        Ok(Self { core, grpc_address, metrics_address, stop, server: Some(server), tasks })
    }

    /// Where gateways and operators connect.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    /// Where `/metrics` is, if anywhere.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Folder with the first operator's `cert.pem`, `key.pem` and `ca.pem`.
    pub fn operator_dir(&self) -> PathBuf {
        self.core.paths.operator()
    }

    /// The root certificate, DER.
    pub fn root_certificate(&self) -> Vec<u8> {
        self.core.authority().certificate().der().to_vec()
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

    /// Waits until the controller cannot go on; the error says why. Stop it then.
    pub async fn wait(&self) -> Error {
        let mut health = self.core.node.health();
        loop {
            let now = health.borrow_and_update().clone();
            match now {
                Health::Running => {}
                Health::Failed { path, cause } => return Error::Storage { path, cause },
                Health::Stopped => return Error::Internal("the Raft group stopped by itself".into()),
            }
            if health.changed().await.is_err() {
                return Error::Internal("the Raft group went away".into());
            }
        }
    }

    /// Stops: no new calls, running ones are answered, the store is closed.
    pub async fn shutdown(mut self) {
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
mod tests;
