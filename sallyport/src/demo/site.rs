//! The demo's site: a controller and a gateway on a state folder of their own, and an operator who sets them up.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use sallyport_controller::{Config as ControllerConfig, Running as RunningController};
use sallyport_gateway::app::Running as RunningGateway;
use sallyport_gateway::config::{EnrollmentConfig, GatewayConfig};
use sallyport_proto::v1::{
    AddPoolRequest, AddUserRequest, Attempt, CertificateProfile, IssueCertificateRequest, KeyAlgorithm,
    ListAttemptsRequest, Secret, SessionInfo, SessionState,
};
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::topology::POOL;
use crate::daemon::{reachable, start_controller, start_local_gateway};
use crate::error::{Error, Result};
use crate::operator::identity_files::{Folder, Piece};
use crate::operator::{Connection, cert, refused, session};

/// The name that the client dials.
pub(crate) const GATEWAY_NAME: &str = "vpn.demo.test";
/// The machine.
pub(crate) const MACHINE: &str = "laptop7.demo.test";
/// The user.
pub(crate) const USER: &str = "ada";
/// How often the gateway reports what sessions carry: at work that is once a minute.
const REPORT_MS: u32 = 1_000;
/// Patience with reports that are on their way from the gateway to the controller.
const PATIENCE: Duration = Duration::from_secs(4);
/// Patience with the first counters: without them the session is shown all the same.
const COUNTERS: Duration = Duration::from_millis(1_500);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// A site at work.
pub(crate) struct Site {
    dir: TempDir,
    controller: RunningController,
    gateway: Option<RunningGateway>,
    operator: Connection,
}

impl Site {
    /// Starts a controller on an empty folder and connects to it as its first operator.
    pub(crate) async fn found() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("sallyport-demo-")
            .tempdir()
            .map_err(|e| Error::failed(format!("cannot make a temporary folder: {e}")))?;
        let mut config = ControllerConfig { metrics_listen: None, ..Default::default() };
        config.gateways.report_ms = REPORT_MS;
        let controller = start_controller(config, &dir.path().join("state")).await?;
        let identity = controller.operator_dir();
        let address = reachable(controller.grpc_address()).to_string();
        match Connection::open_identity(&identity, Some(&address)).await {
            Ok(operator) => Ok(Self { dir, controller, gateway: None, operator }),
            Err(error) => {
                controller.shutdown().await;
                Err(error)
            }
        }
    }

    /// What a person would read first about the new authority.
    pub(crate) fn root(&self) -> String {
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.controller.root_certificate());
        crate::hex::lower(digest.as_ref().get(..8).unwrap_or_default())
    }

    /// Starts the gateway, for which the controller makes the certificates.
    pub(crate) async fn start_gateway(&mut self) -> Result<Vec<String>> {
        let config = GatewayConfig {
            name: "gateway".into(),
            public_names: vec![GATEWAY_NAME.into()],
            enrollment: EnrollmentConfig::off(),
            ..GatewayConfig::default()
        };
        let gateway = start_local_gateway(config, &self.controller, &self.dir.path().join("gateway")).await?;
        let warnings = gateway.warnings().to_vec();
        self.gateway = Some(gateway);
        Ok(warnings)
    }

    /// Adds the pool of inside addresses.
    pub(crate) async fn add_pool(&mut self) -> Result {
        let request = AddPoolRequest { name: "demo".into(), networks: vec![POOL.into()], ..Default::default() };
        self.operator.client.add_pool(request).await.map_err(refused)?;
        Ok(())
    }

    /// Makes the machine's key and certificate; gives the folder.
    pub(crate) async fn enroll(&mut self) -> Result<PathBuf> {
        let piece =
            Piece { profile: CertificateProfile::Machine, key: KeyAlgorithm::Rsa2048, files: ("key.pem", "cert.pem") };
        let dir = self.dir.path().join(MACHINE);
        let folder = Folder::prepare(&dir, &[piece], false)?;
        let request = IssueCertificateRequest {
            profile: piece.profile.into(),
            name: MACHINE.into(),
            key_algorithm: piece.key.into(),
            ..Default::default()
        };
        let response = cert::issue(&mut self.operator, request).await?;
        folder.write(&piece, response)?;
        Ok(dir)
    }

    /// Adds the user; gives the file with the password.
    pub(crate) async fn add_user(&mut self) -> Result<PathBuf> {
        let mut bytes = Zeroizing::new([0; 12]);
        SystemRandom::new().fill(&mut *bytes).map_err(|_| Error::failed("the system's random source failed"))?;
        let password = Zeroizing::new(crate::hex::lower(&*bytes));
        let request = AddUserRequest {
            name: USER.into(),
            password: Some(Secret::new(password.as_bytes())),
            ..Default::default()
        };
        self.operator.client.add_user(request).await.map_err(refused)?;
        self.secret_file("password", password.as_bytes())
    }

    /// Writes a file that only we may read.
    pub(crate) fn secret_file(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.dir.path().join(name);
        let mut options = OpenOptions::new();
        let written =
            options.write(true).create_new(true).mode(0o600).open(&path).and_then(|mut f| f.write_all(content));
        written.map_err(|e| Error::file("write", &path, &e))?;
        Ok(path)
    }

    /// The sessions, once the gateway has reported one that is up and, if that comes soon, what it carried.
    pub(crate) async fn sessions_with_traffic(&mut self) -> Result<Vec<SessionInfo>> {
        let up = |s: &SessionInfo| s.state() == SessionState::Up;
        let carries = |s: &SessionInfo| s.counters.as_ref().is_some_and(|c| c.rx_bytes > 0 && c.tx_bytes > 0);
        let sessions = self.sessions_when(PATIENCE, |sessions| sessions.iter().any(up)).await?;
        if !sessions.iter().any(up) {
            return Err(Error::failed("the controller does not know that the session is up"));
        }
        self.sessions_when(COUNTERS, |sessions| sessions.iter().any(carries)).await
    }

    /// The sessions, once there is none.
    pub(crate) async fn no_sessions(&mut self) -> Result {
        match self.sessions_when(PATIENCE, <[SessionInfo]>::is_empty).await?.len() {
            0 => Ok(()),
            n => Err(Error::failed(format!("{n} sessions are left although the client hung up"))),
        }
    }

    /// Looks until the sessions are as wanted or patience ends; gives them as they then are.
    async fn sessions_when(
        &mut self,
        patience: Duration,
        wanted: impl Fn(&[SessionInfo]) -> bool,
    ) -> Result<Vec<SessionInfo>> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let sessions = session::list(&mut self.operator, None, None).await?;
            if wanted(&sessions) || tokio::time::Instant::now() >= deadline {
                return Ok(sessions);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The newest refusal.
    pub(crate) async fn refusal(&mut self) -> Result<Attempt> {
        let request = ListAttemptsRequest { limit: 1, failed_only: true, ..Default::default() };
        let response = self.operator.client.list_attempts(request).await.map_err(refused)?;
        response.into_inner().attempts.into_iter().next().ok_or_else(|| Error::failed("the refusal left no record"))
    }

    /// Ends gateway and controller in order and removes everything they wrote.
    pub(crate) async fn close(mut self) -> Result {
        if let Some(gateway) = self.gateway.take() {
            gateway.shutdown().await;
        }
        drop(self.operator);
        self.controller.shutdown().await;
        let path = self.dir.path().to_owned();
        self.dir.close().map_err(|e| Error::file("remove", &path, &e))
    }

    /// Where files of the demo are.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}
