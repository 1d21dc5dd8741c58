//! A controller on a temporary folder and clients for it. Every test has its own; ports are chosen by the system.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sallyport_ca::seal::{RecipientKey, SealKey};
use sallyport_ca::{KeyAlgorithm, Profile, SystemRandom, pem};
use sallyport_controller::backup::{Info, Lock, Writer, wrap_context};
use sallyport_controller::{Config, Controller, IssueRequest, Issued, PasswordsConfig, Running};
use sallyport_crypto::mschap;
use sallyport_proto::v1::create_backup_response::Part;
use sallyport_proto::v1::gateway_client::GatewayClient;
use sallyport_proto::v1::operator_client::OperatorClient;
use sallyport_proto::{CONTROLLER_NAME, v1};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// How long a test waits for what comes by itself, on a machine that is busy. What has not come by then does not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Settings for tests: ports of the system's choice, cheap password checks.
pub(crate) fn config() -> Config {
    let mut config = Config::default();
    config.listen.set_port(0);
    if let Some(address) = &mut config.metrics_listen {
        address.set_port(0);
    }
    config.passwords = PasswordsConfig { argon2_memory_kib: 64, argon2_passes: 1, argon2_parallel: 2 };
    config
}

/// An address on the loopback that can be listened on again after a while without: its port is below those that the system gives to
/// outgoing connections.
pub(crate) fn steady_address() -> SocketAddr {
    const LOWEST: u32 = 10_000;
    static DRAWN: AtomicU32 = AtomicU32::new(0);
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let outgoing = range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32_768_u32);
    let count = outgoing.saturating_sub(LOWEST);
    // Tests in other processes draw, too.
    let begin = std::process::id().wrapping_mul(7_919);
    for _ in 0..count {
        let at = begin.wrapping_add(DRAWN.fetch_add(1, Ordering::Relaxed)) % count;
        let port = u16::try_from(LOWEST + at).expect("below the highest");
        if let Ok(free) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return free.local_addr().expect("its address");
        }
    }
    // None are left below: any.
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr()).expect("a port")
}

/// A controller and the folder it lives in.
pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) running: Running,
}

/// A new cluster.
pub(crate) async fn site() -> Site {
    site_with(|_| {}).await
}

/// A new cluster in a folder that `prepare` has been at.
pub(crate) async fn site_with(prepare: impl FnOnce(&Path)) -> Site {
    let dir = tempfile::tempdir().expect("temporary folder");
    prepare(dir.path());
    let running = Controller::start(config(), dir.path()).await.expect("starts");
    Site { dir, running }
}

/// What the owner of a certificate shows, PEM: without the root, which ends the chain.
pub(crate) fn shown(certificate: &[u8], chain: &[Vec<u8>]) -> String {
    let between = chain.split_last().map_or(&[][..], |(_, between)| between);
    let all = std::iter::once(certificate).chain(between.iter().map(Vec::as_slice));
    all.map(|der| pem::encode("CERTIFICATE", der).to_string()).collect()
}

/// TLS towards a controller, with what is shown (PEM) and its key, or without.
pub(crate) fn tls(root: &[u8], identity: Option<(&str, &[u8])>) -> ClientTlsConfig {
    let root = pem::encode("CERTIFICATE", root);
    let config =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(root.as_bytes())).domain_name(CONTROLLER_NAME);
    match identity {
        Some((certificate, key)) => {
            let key = pem::encode("PRIVATE KEY", key);
            config.identity(Identity::from_pem(certificate.as_bytes(), key.as_bytes()))
        }
        None => config,
    }
}

pub(crate) async fn connect(address: SocketAddr, tls: ClientTlsConfig) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(format!("https://{address}")).expect("an address").tls_config(tls)?.connect().await
}

/// The operator of a state folder.
pub(crate) async fn operator(dir: &Path, address: SocketAddr) -> OperatorClient<Channel> {
    let read = |name: &str| std::fs::read(dir.join("operator").join(name)).expect("the operator's folder");
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read("ca.pem")))
        .identity(Identity::from_pem(read("cert.pem"), read("key.pem")))
        .domain_name(CONTROLLER_NAME);
    OperatorClient::new(connect(address, tls).await.expect("connects"))
}

/// A certificate for a test.
pub(crate) async fn issue(running: &Running, profile: Profile, name: &str) -> Issued {
    let request = IssueRequest { profile, name: name.into(), sans: Vec::new(), key: KeyAlgorithm::EcdsaP256, days: 0 };
    running.issue(request).await.expect("issues")
}

impl Site {
    pub(crate) async fn operator(&self) -> OperatorClient<Channel> {
        operator(self.dir.path(), self.running.grpc_address()).await
    }

    /// A connection with this certificate.
    pub(crate) async fn channel(&self, issued: &Issued) -> Result<Channel, tonic::transport::Error> {
        let shown = issued.chain_pem();
        let identity = (shown.as_str(), issued.private_key.as_slice());
        connect(self.running.grpc_address(), tls(&self.running.root_certificate(), Some(identity))).await
    }

    /// A registered gateway.
    pub(crate) async fn gateway(&self, name: &str) -> TestGateway {
        let issued = issue(&self.running, Profile::GatewayLink, name).await;
        let mut client = GatewayClient::new(self.channel(&issued).await.expect("connects"));
        let registered = register(&mut client, name, 1).await;
        TestGateway { member: registered.member.expect("a member"), ..TestGateway::new(client, issued) }
    }

    /// The same state, a new process (as far as the controller can tell).
    pub(crate) async fn restart(self) -> Self {
        let Self { dir, running } = self;
        running.shutdown().await;
        let running = Controller::start(config(), dir.path()).await.expect("starts again");
        Self { dir, running }
    }
}

pub(crate) async fn register(client: &mut GatewayClient<Channel>, name: &str, boot: u8) -> v1::RegisterResponse {
    let request = v1::RegisterRequest { name: name.into(), boot_id: vec![boot; 16], ..Default::default() };
    client.register(request).await.expect("registers").into_inner()
}

pub(crate) struct TestGateway {
    pub(crate) client: GatewayClient<Channel>,
    pub(crate) member: v1::Member,
    pub(crate) issued: Issued,
    next: u128,
}

/// How a test user logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Pap,
    Chap,
    MsChapV2,
}

impl TestGateway {
    /// One that has yet to register.
    pub(crate) fn new(client: GatewayClient<Channel>, issued: Issued) -> Self {
        Self { client, member: v1::Member::default(), issued, next: 1 }
    }

    pub(crate) fn id(&mut self) -> Vec<u8> {
        self.next += 1;
        self.next.to_be_bytes().to_vec()
    }

    /// The question a gateway asks after a client has answered.
    pub(crate) fn question(&mut self, way: Way, user: &str, password: &str) -> v1::AuthenticateRequest {
        use v1::authenticate_request::Method;
        let bare = mschap::name_without_domain(user);
        let method = match way {
            Way::Pap => Method::Pap(v1::Pap { password: Some(v1::Secret::new(password)) }),
            Way::Chap => {
                let challenge = vec![5; 16];
                let response = mschap::chap_md5(9, password.as_bytes(), &challenge).to_vec();
                Method::ChapMd5(v1::ChapMd5 { identifier: 9, challenge, response })
            }
            Way::MsChapV2 => {
                let nt_response = mschap::generate_nt_response(&[1; 16], &[2; 16], bare, password).to_vec();
                Method::Mschapv2(v1::MsChapV2 {
                    authenticator_challenge: vec![1; 16],
                    peer_challenge: vec![2; 16],
                    nt_response,
                    identifier: 1,
                })
            }
        };
        v1::AuthenticateRequest {
            member: Some(self.member),
            request_id: self.id(),
            user: user.into(),
            method: Some(method),
            session_key: 7,
            remote: "198.51.100.7:4500".into(),
            ..Default::default()
        }
    }

    pub(crate) async fn ask(&mut self, request: v1::AuthenticateRequest) -> Result<v1::Accept, v1::Reject> {
        use v1::authenticate_response::Decision;
        let answer = self.client.authenticate(request).await.expect("an answer").into_inner();
        match answer.decision.expect("a decision") {
            Decision::Accept(accept) => Ok(accept),
            Decision::Reject(reject) => Err(reject),
        }
    }

    pub(crate) async fn login(&mut self, way: Way, user: &str, password: &str) -> Result<v1::Accept, v1::Reject> {
        let request = self.question(way, user, password);
        self.ask(request).await
    }

    pub(crate) async fn report(&mut self, session: &str, state: v1::SessionState) -> Vec<String> {
        let report = v1::SessionReport {
            session_id: session.into(),
            state: state.into(),
            counters: Some(v1::Counters { rx_bytes: 1_000, ..Default::default() }),
            remote: "198.51.100.7:4501".into(),
            ..Default::default()
        };
        let request = v1::ReportSessionsRequest { member: Some(self.member), reports: vec![report] };
        self.client.report_sessions(request).await.expect("an answer").into_inner().unknown_session_ids
    }

    pub(crate) async fn admit(&mut self, serial: &str, fingerprint: &[u8]) -> Result<String, (String, String)> {
        use v1::admit_peer_response::Decision;
        let request = v1::AdmitPeerRequest {
            member: Some(self.member),
            request_id: self.id(),
            certificate_serial: serial.into(),
            fingerprint: fingerprint.to_vec(),
            subject: "CN=laptop".into(),
            remote: "198.51.100.7:500".into(),
            claimed_identity: "laptop.example.com".into(),
            ..Default::default()
        };
        match self.client.admit_peer(request).await.expect("an answer").into_inner().decision.expect("a decision") {
            Decision::Admitted(a) => Ok(a.name),
            Decision::Refused(r) => Err((r.cause, r.remedy)),
        }
    }
}

pub(crate) async fn add_user(operator: &mut OperatorClient<Channel>, name: &str, password: &str) {
    let request =
        v1::AddUserRequest { name: name.into(), password: Some(v1::Secret::new(password)), ..Default::default() };
    operator.add_user(request).await.expect("adds the user");
}

pub(crate) async fn add_pool(operator: &mut OperatorClient<Channel>, name: &str, network: &str) {
    let request = v1::AddPoolRequest {
        name: name.into(),
        networks: vec![network.into()],
        dns: vec!["10.9.0.53".into()],
        ..Default::default()
    };
    operator.add_pool(request).await.expect("adds the pool");
}

pub(crate) async fn change_settings(operator: &mut OperatorClient<Channel>, change: impl FnOnce(&mut v1::Settings)) {
    let mut settings = settings(operator).await;
    change(&mut settings);
    operator.update_settings(v1::UpdateSettingsRequest { settings: Some(settings) }).await.expect("updates");
}

pub(crate) async fn settings(operator: &mut OperatorClient<Channel>) -> v1::Settings {
    let answer = operator.get_settings(v1::GetSettingsRequest {}).await.expect("settings").into_inner();
    answer.settings.expect("settings")
}

/// All three protocols, for whoever has a password from now on.
pub(crate) async fn allow_all(operator: &mut OperatorClient<Channel>) {
    change_settings(operator, |s| {
        s.store_chap_secrets = true;
        s.auth_methods =
            [v1::AuthMethod::Mschapv2, v1::AuthMethod::ChapMd5, v1::AuthMethod::Pap].map(i32::from).to_vec();
    })
    .await;
}

pub(crate) async fn attempts(operator: &mut OperatorClient<Channel>) -> Vec<v1::Attempt> {
    operator.list_attempts(v1::ListAttemptsRequest::default()).await.expect("attempts").into_inner().attempts
}

/// Makes a backup, as the operator's tool does.
pub(crate) async fn create_backup(operator: &mut OperatorClient<Channel>, path: &Path, lock: &Lock) {
    let rng = SystemRandom::new();
    let key = RecipientKey::generate(&rng).expect("makes");
    let request = v1::CreateBackupRequest { public_key: key.public().to_vec() };
    let mut parts = operator.create_backup(request).await.expect("begins").into_inner();
    let Some(Part::Head(head)) = parts.message().await.expect("a message").and_then(|m| m.part) else {
        panic!("no head")
    };
    let seal_key = key.unwrap(&head.wrapped_seal_key, &wrap_context(&head.cluster_id)).expect("opens");
    let info = Info {
        cluster_id: head.cluster_id,
        created_unix_ms: head.created_unix_ms,
        log_time_unix_ms: head.log_time_unix_ms,
        applied_index: head.applied_index,
        version: head.version,
        state_bytes: head.state_bytes,
    };
    let mut writer = Writer::create(path, info, lock, &SealKey::from_bytes(&seal_key), &rng).expect("begins");
    while let Some(message) = parts.message().await.expect("a message") {
        let Some(Part::State(piece)) = message.part else { panic!("no piece") };
        writer.write(&piece).expect("writes");
    }
    writer.finish().expect("ends");
}
