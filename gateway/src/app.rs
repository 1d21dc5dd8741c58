//! Builds, joins and stops the parts of a gateway.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use sallyport_base::UnixTime;
use sallyport_ca::AltName;
use sallyport_ca::verify::{CertPayload, PeerRole, TrustStore, verify_peer};
use sallyport_crypto::sign::IkeKey;
use sallyport_ike as ike;
use sallyport_l2tp as l2tp;
use sallyport_ppp as ppp;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::clock::{Clock, NoRandomness, random};
use crate::config::{ConfigError, GatewayConfig};
use crate::control::controller::{ControllerError, Controllers, Registration};
use crate::control::jobs::Jobs;
use crate::control::machine::{Config as MachineConfig, Machine};
use crate::control::{Runner, policy};
use crate::data::{DataConfig, DataError, DataPlane};
use crate::enrollment::Ports;
use crate::first;
use crate::identity::{Identity, IdentityError, IkeIdentity};
use crate::metrics::Metrics;
use crate::net::{Inside, NetError, Role, enable_ipv4_forwarding, ipv4_forwarding};
use crate::renewal::{RenewalError, Renewer};

/// Events of the controllers that wait for the control plane.
const CONTROLLER_EVENTS: usize = 16_384;
/// How often the control plane hears of the sessions whose counters have changed.
const COUNTER_INTERVAL: Duration = Duration::from_secs(1);
/// MTU of the inside device: what the inside may send as one packet; sessions fragment or refuse below it.
const INSIDE_MTU: u16 = 1_500;

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The identity folder.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A certificate of ours that peers would refuse.
    #[error("the gateway's own certificate is unusable: {cause}; {remedy}")]
    Certificate {
        /// Why.
        cause: String,
        /// What to do.
        remedy: String,
    },
    /// The inside device.
    #[error(transparent)]
    Inside(#[from] NetError),
    /// Certificates that have ended, and no controller gives others.
    #[error(transparent)]
    Renewal(#[from] RenewalError),
    /// Sockets.
    #[error("{0}; is another IPsec daemon running, or is the privilege for ports below 1024 missing?")]
    Data(#[from] DataError),
    /// The controllers.
    #[error(transparent)]
    Controller(#[from] ControllerError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// The address for the metrics.
    #[error("[gateway] metrics: cannot listen on {address}: {error}")]
    MetricsAddress {
        /// Which.
        address: std::net::SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// The metrics registry.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// A gateway at work.
pub struct Running {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
    data: crate::data::DataHandle,
    monitor: Option<JoinHandle<()>>,
    enrollment: Ports,
    renewal: JoinHandle<()>,
    warnings: Vec<String>,
}

/// A gateway.
pub struct Gateway;

impl Gateway {
    /// Opens device and sockets, registers with a controller, and starts both planes.
    ///
    /// The future has no type of its own, so that the code of a whole gateway is compiled here, and not in each program and test
    /// that starts one.
    pub fn start(
        config: GatewayConfig,
        identity: Identity,
    ) -> Pin<Box<dyn Future<Output = Result<Running, StartError>> + Send>> {
        Box::pin(Self::begin(config, identity, None))
    }

    /// The same with the folder that the identity is from: certificates that the gateway renews are kept there.
    pub fn start_in(
        config: GatewayConfig,
        identity: Identity,
        dir: PathBuf,
    ) -> Pin<Box<dyn Future<Output = Result<Running, StartError>> + Send>> {
        Box::pin(Self::begin(config, identity, Some(dir)))
    }

    async fn begin(config: GatewayConfig, identity: Identity, dir: Option<PathBuf>) -> Result<Running, StartError> {
        config.validate()?;
        let clock = Clock::start();
        let identity = first::revive(&config.controllers, identity, dir.as_deref(), Clock::unix()).await?;
        let (keys, credentials) = credentials(&identity)?;
        let (inside, tun) = Inside::create(&config.inside.device, INSIDE_MTU).await?;
        if config.inside.forwarding {
            switch_forwarding_on();
        }
        let plane = DataPlane::start(data_config(&config), Some(tun))?;
        for warning in plane.handle.warnings() {
            warn!("{warning}");
        }
        let metrics = Arc::new(Metrics::new(plane.handle.stats(), plane.handle.link_stats())?);
        let (jobs, results) = Jobs::start(keys, threads())?;

        let (event_tx, events) = mpsc::channel(CONTROLLER_EVENTS);
        let registration = Registration {
            name: config.name.clone(),
            addresses: config.public_addresses.iter().map(IpAddr::to_string).collect(),
            boot_id: random()?,
        };
        let renewing = identity.clone();
        let (controllers, registered) =
            Controllers::start(&config.controllers, &identity, registration, event_tx).await?;

        let mut base = policy::ike_config(&config.ike, &config.esp);
        base.credentials = credentials;
        base.public_addresses.clone_from(&config.public_addresses);
        base.native_esp = plane.handle.addresses().iter().any(|(role, _)| *role == Role::Esp);
        base.slot = registered.member.and_then(|m| u16::try_from(m.slot).ok()).unwrap_or(0);
        let server = ppp_config(&config);
        let machine_config = MachineConfig {
            ike: base.clone(),
            l2tp: l2tp_config(&config),
            ppp: server.clone(),
            report_interval: Duration::from_millis(u64::from(registered.report_interval_ms.max(1_000))),
        };
        let mut machine = Machine::new(machine_config, random()?, clock.now());
        let mut applier =
            policy::Applier { base, inside: Some(inside), ppp: server, roots: controllers.roots().clone() };
        if let Some(policy) = registered.policy {
            machine.set_stale_policy(clock.now(), policy.max_stale_s, policy.fail_closed);
            applier.apply(policy, &mut machine, &jobs).await;
        }
        let DataPlane { to_data, from_data, handle } = plane;
        let enrollment = Ports::open(&config.enrollment, &controllers, &metrics).await;
        for warning in enrollment.warnings() {
            warn!("{warning}");
        }
        let warnings = [handle.warnings(), enrollment.warnings()].concat();
        let renewal = tokio::spawn(Renewer::new(controllers.clone(), renewing, dir, Some(metrics.clone())).run());
        let runner = Runner {
            machine,
            to_data,
            from_data,
            controllers,
            events,
            jobs,
            results,
            policy: applier,
            clock,
            metrics: metrics.clone(),
        };
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(runner.run(stopped));
        let monitor = match config.metrics {
            Some(address) => Some(serve_metrics(address, metrics).await?),
            None => None,
        };
        info!(name = config.name, listen = %config.listen, "gateway ready");
        Ok(Running { stop: Some(stop), task, data: handle, monitor, enrollment, renewal, warnings })
    }
}

impl Running {
    /// What the gateway does without, in words for the operator.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Waits until the gateway ends by itself, which is a failure: its cause is in the log.
    pub async fn wait(&mut self) {
        let _ = (&mut self.task).await;
    }

    /// Says goodbye to every client and stops.
    pub async fn shutdown(mut self) {
        drop(std::mem::take(&mut self.enrollment));
        // A set of certificates that is half written is nobody's: see `folder`.
        self.renewal.abort();
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let _ = (&mut self.task).await;
        if let Some(monitor) = self.monitor.take() {
            monitor.abort();
        }
        let _ = tokio::task::spawn_blocking(move || self.data.join()).await;
    }
}

async fn serve_metrics(address: std::net::SocketAddr, metrics: Arc<Metrics>) -> Result<JoinHandle<()>, StartError> {
    let listener =
        tokio::net::TcpListener::bind(address).await.map_err(|error| StartError::MetricsAddress { address, error })?;
    Ok(tokio::spawn(sallyport_monitor::serve(listener, metrics)))
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn switch_forwarding_on() {
    match ipv4_forwarding() {
        Ok(true) => {}
        Ok(false) => match enable_ipv4_forwarding() {
            Ok(()) => info!("switched net.ipv4.ip_forward on ([gateway.inside] forwarding)"),
            Err(e) => warn!(error = %e, "IPv4 forwarding is off and cannot be switched on: clients reach only this \
                machine; run `sysctl -w net.ipv4.ip_forward=1`"),
        },
        Err(e) => warn!(error = %e, "cannot read net.ipv4.ip_forward"),
    }
}

fn data_config(config: &GatewayConfig) -> DataConfig {
    DataConfig {
        listen: vec![config.listen],
        ike_port: config.ike.port,
        nat_t_port: config.ike.nat_t_port,
        client_to_client: config.inside.client_to_client,
        counter_interval: COUNTER_INTERVAL,
        ..DataConfig::default()
    }
}

fn l2tp_config(config: &GatewayConfig) -> l2tp::Config {
    let defaults = l2tp::Config::default();
    let hello = config.l2tp.hello_seconds.duration();
    l2tp::Config {
        host_name: config.name.clone(),
        hello: (!hello.is_zero()).then_some(hello),
        max_retries: u8::try_from(config.l2tp.retries.get()).unwrap_or(u8::MAX),
        limits: l2tp::Limits { tunnels: config.l2tp.tunnels.usize(), ..defaults.limits },
        ..defaults
    }
}

fn ppp_config(config: &GatewayConfig) -> ppp::ServerConfig {
    let defaults = ppp::ServerConfig::default();
    let echo = config.ppp.echo_seconds.duration();
    ppp::ServerConfig {
        link: ppp::LinkConfig {
            mru: config.ppp.mru.u16(),
            echo_interval: (!echo.is_zero()).then_some(echo),
            echo_misses: u8::try_from(config.ppp.echo_failures.get()).unwrap_or(u8::MAX),
            ..defaults.link
        },
        name: config.name.clone(),
        ..defaults
    }
}

/// Keys by the name of the credential that they are of, and the credentials.
pub type Credentials = (BTreeMap<ike::CredentialId, IkeKey>, Vec<ike::Credential>);

/// What takes the place of the credentials in force.
pub struct NewCredentials {
    /// Keys.
    pub keys: BTreeMap<ike::CredentialId, IkeKey>,
    /// What is shown.
    pub credentials: Vec<ike::Credential>,
}

impl std::fmt::Debug for NewCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewCredentials").field("credentials", &self.credentials.len()).finish_non_exhaustive()
    }
}

/// Credentials of one generation: more than there are kinds of key.
const PER_GENERATION: u32 = 16;
/// Where an identity comes from that is not usable.
const ANEW: &str =
    "make it anew: sallyport gateway token NAME, then sallyport gateway --token-file - on an empty folder";

/// Our identities as IKE takes them, checked as a peer would check them.
pub fn credentials(identity: &Identity) -> Result<Credentials, StartError> {
    credentials_of(identity, 0, Clock::unix())
}

/// The same at a time, for those that take the place of others: no two generations share the name of a credential.
pub fn credentials_of(identity: &Identity, generation: u32, now: UnixTime) -> Result<Credentials, StartError> {
    let bad = |cause: String| StartError::Certificate { cause, remedy: ANEW.into() };
    let trust = roots(identity)?;
    let issuers: Vec<Vec<u8>> = trust.subject_names().map(<[u8]>::to_vec).collect();
    let mut keys = BTreeMap::new();
    let mut out = Vec::new();
    for (n, own) in (generation.saturating_mul(PER_GENERATION)..).zip(&identity.ike) {
        let id = ike::CredentialId(n);
        let certificate = own_certificate(&trust, own, now)?;
        let key = IkeKey::from_pkcs8_der(&own.key).map_err(|e| bad(e.to_string()))?;
        let public = key.public_key_der().map_err(|e| bad(e.to_string()))?;
        if public != certificate.spki_der {
            return Err(bad(format!("the key of {} does not belong to it", certificate.subject)));
        }
        let name = certificate.alt_names.iter().find_map(|n| match n {
            AltName::Dns(name) => Some(ike::Identification::fqdn(name)),
            _ => None,
        });
        out.push(ike::Credential {
            id,
            method: key.method(),
            chain: own.chain.clone(),
            issuers: issuers.clone(),
            identity: name.unwrap_or_else(|| ike::Identification::der_dn(certificate.subject_der)),
        });
        keys.insert(id, key);
    }
    Ok((keys, out))
}

/// New credentials before those in force, which handshakes under way began with; those before them go.
pub fn succeed(new: Vec<ike::Credential>, in_force: &[ike::Credential]) -> Vec<ike::Credential> {
    let generation = |c: &ike::Credential| c.id.0 / PER_GENERATION;
    let newest = in_force.iter().map(generation).max();
    let kept = in_force.iter().filter(|c| Some(generation(c)) == newest).cloned();
    new.into_iter().chain(kept).collect()
}

/// The names in each of an identity's certificates for IKE, also in those that have ended.
pub fn names(identity: &Identity) -> Result<Vec<Vec<AltName>>, StartError> {
    let trust = roots(identity)?;
    let names = identity.ike.iter().map(|own| {
        let leaf = own.chain.first().and_then(|der| sallyport_ca::Certificate::from_der(der).ok());
        let began = leaf.map_or(UnixTime(0), |leaf| leaf.not_before);
        // Its issuer may be younger than it says to be.
        Ok(own_certificate(&trust, own, UnixTime(began.0.saturating_add(NOT_BEFORE_SLACK)))?.alt_names)
    });
    names.collect()
}

/// Certificates are valid from some minutes before they are made.
const NOT_BEFORE_SLACK: i64 = 600;

fn roots(identity: &Identity) -> Result<TrustStore, StartError> {
    let mut trust = TrustStore::new();
    let bad = |cause: String, remedy: String| StartError::Certificate { cause, remedy };
    trust.add_anchors_pem(&identity.ca).map_err(|e| bad(e.cause(), e.remedy()))?;
    Ok(trust)
}

fn own_certificate(
    trust: &TrustStore,
    own: &IkeIdentity,
    now: UnixTime,
) -> Result<sallyport_ca::verify::PeerCertificate, StartError> {
    // 4 is X.509 Certificate - Signature, RFC 2408 §3.9.
    let payloads: Vec<CertPayload<'_>> = own.chain.iter().map(|der| CertPayload { encoding: 4, data: der }).collect();
    verify_peer(trust, &payloads, None, PeerRole::Gateway, now)
        .map_err(|e| StartError::Certificate { cause: e.cause(), remedy: e.remedy() })
}
