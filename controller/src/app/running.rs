//! A controller that runs, and how it ends.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::Core;
use crate::api::{Tls, server};
use crate::authority::{self, IssueRequest, Issued};
use crate::cluster::{keeper, lead};
use crate::error::Error;
use crate::front::{self, Front};
use crate::lists;
use crate::raft::Health;
use crate::{bootstrap, identity, janitor};

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
    pub(super) fn spawn(
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
