//! Controllers as processes, and gateways that open and end sessions.

use std::future::Future;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prost::Message;
use sallyport_ca::pem;
use sallyport_controller::state::{self, Action, EndSessions, EndedSession, OpenSession};
use sallyport_controller::{Config, Controller, Formation};
use sallyport_crypto::mschap;
use sallyport_proto::failover::Failover;
use sallyport_proto::v1;
use sallyport_proto::v1::authenticate_request::Method;
use sallyport_proto::v1::authenticate_response::Decision;
use sallyport_proto::v1::gateway_client::GatewayClient;
use sallyport_proto::v1::operator_client::OperatorClient;
use tokio::runtime::Runtime;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::CONNECTIONS;
use crate::load::{Client, Latencies};

/// Set for a child: its state folder.
const STATE: &str = "SALLYPORT_BENCH_STATE";
/// Set for a child: where it listens.
const LISTEN: &str = "SALLYPORT_BENCH_LISTEN";
/// Set for a child that joins: `HOST:PORT TOKEN`.
const JOIN: &str = "SALLYPORT_BENCH_JOIN";
/// Set for a child: where its enrollment endpoint listens.
const ENROLL: &str = "SALLYPORT_BENCH_ENROLL";
/// The name of the endpoint.
pub(crate) const ENDPOINT_NAME: &str = "vpn.example.com";
/// Set by hand: `redb` for the other engine.
const ENGINE: &str = "SALLYPORT_BENCH_ENGINE";
const PASSWORD: &str = "open sesame";
/// What gateways grant one controller before they ask the next.
const PATIENCE: Duration = Duration::from_secs(4);

/// Runs a controller with default settings if this process is to be one.
pub(crate) fn child() -> bool {
    let Some(state) = std::env::var_os(STATE).map(PathBuf::from) else { return false };
    let mut config =
        Config { listen: std::env::var(LISTEN).unwrap().parse().unwrap(), metrics_listen: None, ..Config::default() };
    config.enrollment.listen = Some(std::env::var(ENROLL).unwrap().parse().unwrap());
    config.enrollment.names = vec![ENDPOINT_NAME.into()];
    if std::env::var(ENGINE).is_ok_and(|e| e == "redb") {
        config.storage.engine = sallyport_controller::Engine::Redb;
    }
    let formation = match std::env::var(JOIN) {
        Ok(join) => {
            let (address, token) = join.split_once(' ').unwrap();
            Formation::Join { addresses: vec![address.into()], token: token.to_owned().into(), learner: false }
        }
        Err(_) => Formation::Found,
    };
    let threads = sallyport_controller::worker_threads();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
    runtime.block_on(async {
        let running = Controller::form(config, &state, formation).await.unwrap();
        println!("READY");
        let error = running.wait().await;
        println!("ENDED {error}");
    });
    true
}

/// A controller's process, and what starting it again takes.
pub(crate) struct Node {
    state: PathBuf,
    listen: SocketAddr,
    enroll: SocketAddr,
    join: Option<String>,
    child: Option<Child>,
}

impl Node {
    fn new(dir: &Path, number: usize) -> Self {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self { state: dir.join(number.to_string()), listen: free(), enroll: free(), join: None, child: None }
    }

    /// Starts it; it answers when this returns.
    pub(crate) fn start(&mut self) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(STATE, &self.state).env(LISTEN, self.listen.to_string());
        command.env(ENROLL, self.enroll.to_string());
        command.stdout(Stdio::piped()).stderr(Stdio::inherit());
        if let Some(join) = &self.join {
            command.env(JOIN, join);
        }
        let mut child = command.spawn().unwrap();
        let out = child.stdout.take().unwrap();
        self.child = Some(child);
        let first = BufReader::new(out).lines().map_while(Result::ok).next();
        assert_eq!(first.as_deref(), Some("READY"), "the controller at {} ended by itself", self.listen);
    }

    /// Processor time that it has taken so far.
    fn cpu(&self) -> Duration {
        self.child.as_ref().map_or(Duration::ZERO, |child| crate::load::cpu_of(child.id()))
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A group with a pool, users, and gateways that are registered.
pub(crate) struct Group {
    pub(crate) nodes: Vec<Node>,
    gateways: Vec<Gateway>,
    operator: Vec<OperatorClient<Channel>>,
}

/// A gateway's connections to all controllers.
#[derive(Clone)]
struct Gateway {
    client: GatewayClient<Failover>,
    member: v1::Member,
}

fn channel(address: SocketAddr, tls: ClientTlsConfig) -> Channel {
    // The habits of a gateway.
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap();
    let endpoint = endpoint.connect_timeout(Duration::from_secs(3)).http2_keep_alive_interval(Duration::from_secs(5));
    endpoint.keep_alive_timeout(Duration::from_secs(5)).keep_alive_while_idle(true).tcp_nodelay(true).connect_lazy()
}

impl Group {
    /// Processor time that all nodes have taken so far.
    pub(crate) fn cpu(&self) -> Duration {
        self.nodes.iter().map(Node::cpu).sum()
    }

    /// Forms a group of `count` in `dir`, with a user for each of so many clients.
    pub(crate) fn start(runtime: &Runtime, dir: &Path, count: usize, users: usize) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let mut nodes: Vec<Node> = (0..count).map(|n| Node::new(dir, n)).collect();
        nodes[0].start();
        let folder = nodes[0].state.join("operator");
        let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read("ca.pem")))
            .identity(Identity::from_pem(read("cert.pem"), read("key.pem")))
            .domain_name(sallyport_proto::CONTROLLER_NAME);
        let operator: Vec<_> = {
            let _inside = runtime.enter(); // connections that are made later belong to it
            nodes.iter().map(|n| OperatorClient::new(channel(n.listen, tls.clone()))).collect()
        };
        let mut first = operator[0].clone();
        let pool = v1::AddPoolRequest { name: "p".into(), networks: vec!["10.0.0.0/16".into()], ..Default::default() };
        runtime.block_on(first.add_pool(pool)).unwrap();
        let settings = runtime.block_on(first.get_settings(v1::GetSettingsRequest {})).unwrap().into_inner().settings;
        let mut settings = settings.unwrap();
        settings.auth_methods = vec![v1::AuthMethod::Mschapv2.into(), v1::AuthMethod::Pap.into()];
        runtime.block_on(first.update_settings(v1::UpdateSettingsRequest { settings: Some(settings) })).unwrap();
        for node in 1..count {
            let request = v1::CreateClusterTokenRequest { ttl_s: 0 };
            let made = runtime.block_on(first.create_cluster_token(request)).unwrap().into_inner();
            let token = String::from_utf8(made.token.unwrap().into_inner().to_vec()).unwrap();
            nodes[node].join = Some(format!("{} {token}", nodes[0].listen));
            nodes[node].start();
        }
        let mut this = Self { nodes, gateways: Vec::new(), operator };
        runtime.block_on(this.whole());
        runtime.block_on(async {
            for gateway in 0..CONNECTIONS {
                this.add_gateway(gateway).await;
            }
            let adding: Vec<_> = (0..=users)
                .map(|number| {
                    let mut operator = first.clone();
                    let password = Some(v1::Secret::new(PASSWORD));
                    let request = v1::AddUserRequest { name: user(number), password, ..Default::default() };
                    tokio::spawn(async move { operator.add_user(request).await.unwrap() })
                })
                .collect();
            for user in adding {
                user.await.unwrap();
            }
        });
        this
    }

    async fn add_gateway(&mut self, number: usize) {
        let name = format!("gw{number}");
        let request = v1::IssueCertificateRequest {
            profile: v1::CertificateProfile::GatewayLink.into(),
            name: name.clone(),
            key_algorithm: v1::KeyAlgorithm::EcdsaP256.into(),
            ..Default::default()
        };
        let issued = self.operator[0].clone().issue_certificate(request).await.unwrap().into_inner();
        // It shows what stands between it and the root.
        let (root, above) = issued.chain.split_last().unwrap();
        let encode = |der: &Vec<u8>| pem::encode("CERTIFICATE", der).to_string();
        let shown: String = std::iter::once(&issued.certificate).chain(above).map(encode).collect();
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(encode(root)))
            .identity(Identity::from_pem(
                shown.as_bytes(),
                pem::encode("PRIVATE KEY", &issued.private_key.unwrap().into_inner()).as_bytes(),
            ))
            .domain_name(sallyport_proto::CONTROLLER_NAME);
        let channels = self.nodes.iter().map(|n| channel(n.listen, tls.clone())).collect();
        let mut client = GatewayClient::new(Failover::new(channels, number as u64).patience(PATIENCE));
        let request = v1::RegisterRequest { name, boot_id: vec![1; 16], ..Default::default() };
        let mut tries = 0;
        let member = loop {
            match client.register(request.clone()).await {
                Ok(answer) => break answer.into_inner().member.unwrap(),
                // A controller that is behind does not know the certificate yet.
                Err(e) => assert!(tries < 200, "a gateway cannot register: {e}"),
            }
            tries += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        self.gateways.push(Gateway { client, member });
    }

    /// The place of the leader among the nodes, once all of them vote and answer.
    pub(crate) async fn whole(&self) -> usize {
        loop {
            if let Some(leader) = self.look().await {
                return leader;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn look(&self) -> Option<usize> {
        let mut leader = None;
        for operator in &self.operator {
            let mut operator = operator.clone();
            let asked = tokio::time::timeout(Duration::from_secs(3), operator.get_cluster(v1::GetClusterRequest {}));
            let cluster = asked.await.ok()?.ok()?.into_inner();
            let votes = |m: &&v1::ClusterMember| {
                matches!(m.role(), v1::MemberRole::Leader | v1::MemberRole::Voter) && m.vitals.is_some()
            };
            if cluster.members.iter().filter(votes).count() != self.nodes.len() {
                return None;
            }
            // Ids are in the order of joining.
            leader = usize::try_from(cluster.leader_id).ok()?.checked_sub(1);
        }
        leader
    }

    /// Where a client enrolls.
    pub(crate) fn endpoint(&self, client: usize) -> SocketAddr {
        self.nodes[client % self.nodes.len()].enroll
    }

    /// The root's certificate, DER.
    pub(crate) fn root(&self) -> Vec<u8> {
        pem::certificates(&std::fs::read(self.nodes[0].state.join("operator/ca.pem")).unwrap()).unwrap().remove(0)
    }

    /// A token for the first certificate of a machine.
    pub(crate) fn token(&self, name: String) -> impl Future<Output = String> + Send + use<> {
        let mut operator = self.operator[0].clone();
        async move {
            let request = v1::CreateEnrollTokenRequest { name, ..Default::default() };
            let made = operator.create_enroll_token(request).await.unwrap().into_inner();
            String::from_utf8(made.token.unwrap().into_inner().to_vec()).unwrap()
        }
    }

    /// An issuing authority for a kind of key.
    pub(crate) async fn add_issuer(&self, key: v1::KeyAlgorithm) {
        let request = v1::AddIssuerRequest { key_algorithm: key.into(), replace: false, ..Default::default() };
        self.operator[0].clone().add_issuer(request).await.unwrap();
    }

    /// Clients that open and end sessions in turn.
    pub(crate) fn clients(&self, count: usize) -> Vec<Subscriber> {
        (0..count).map(|number| self.client(number)).collect()
    }

    pub(crate) fn client(&self, number: usize) -> Subscriber {
        let gateway = self.gateways[number % self.gateways.len()].clone();
        Subscriber { gateway, number, session: None, opened: None }
    }

    /// The same, whose openings are timed.
    pub(crate) fn timed_clients(&self, count: usize, opened: Arc<Mutex<Latencies>>) -> Vec<Subscriber> {
        (0..count).map(|number| Subscriber { opened: Some(opened.clone()), ..self.client(number) }).collect()
    }

    /// Somebody who connects with PAP five times a second.
    pub(crate) fn pap(&self, stop: Arc<AtomicBool>) -> impl Future<Output = Latencies> + use<> {
        let gateways = self.gateways.clone();
        async move {
            let mut seen = Latencies::default();
            let mut ticks = tokio::time::interval(Duration::from_millis(200));
            for gateway in gateways.iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                ticks.tick().await;
                let mut client = Subscriber { gateway: gateway.clone(), number: 0, session: None, opened: None };
                let method = Method::Pap(v1::Pap { password: Some(v1::Secret::new(PASSWORD)) });
                let asked = Instant::now();
                let id = unique();
                while client.open(method.clone(), id).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                seen.note(asked.elapsed());
                client.end().await;
            }
            seen
        }
    }
}

/// User 0 is for PAP.
fn user(number: usize) -> String {
    format!("user{number}@example.com")
}

fn unique() -> u128 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed).into()
}

/// Somebody who connects and leaves.
pub(crate) struct Subscriber {
    gateway: Gateway,
    number: usize,
    session: Option<String>,
    opened: Option<Arc<Mutex<Latencies>>>,
}

impl Subscriber {
    fn mschap(&self) -> Method {
        let name = user(self.number + 1);
        let nt_response = mschap::generate_nt_response(&[1; 16], &[2; 16], &name, PASSWORD).to_vec();
        Method::Mschapv2(v1::MsChapV2 {
            authenticator_challenge: vec![1; 16],
            peer_challenge: vec![2; 16],
            nt_response,
            identifier: 1,
        })
    }

    async fn open(&mut self, method: Method, id: u128) -> Result<(), tonic::Status> {
        let number = if matches!(method, Method::Pap(_)) { 0 } else { self.number + 1 };
        let request = v1::AuthenticateRequest {
            member: Some(self.gateway.member),
            request_id: id.to_be_bytes().to_vec(),
            user: user(number),
            method: Some(method),
            session_key: 7,
            remote: format!("198.51.100.{}:4500", number % 250),
            ..Default::default()
        };
        let answer = self.gateway.client.authenticate(request).await.inspect_err(|e| {
            assert_ne!(e.code(), tonic::Code::FailedPrecondition, "the gateway was silent for too long: {e}");
        })?;
        match answer.into_inner().decision {
            Some(Decision::Accept(accept)) => self.session = Some(accept.session_id),
            other => panic!("user {number}: {other:?}"),
        }
        Ok(())
    }

    async fn end(&mut self) {
        let Some(session_id) = self.session.take() else { return };
        let report = v1::SessionReport {
            session_id,
            state: v1::SessionState::Down.into(),
            end_reason: v1::EndReason::Client.into(),
            ..Default::default()
        };
        let request = v1::ReportSessionsRequest { member: Some(self.gateway.member), reports: vec![report] };
        while self.gateway.client.report_sessions(request.clone()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Connects, again and again with the same question until there is an answer, and leaves. Gives the time until then.
    pub(crate) async fn connect(&mut self) -> Duration {
        let (asked, id) = (Instant::now(), unique());
        while self.open(self.mschap(), id).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let waited = asked.elapsed();
        self.end().await;
        waited
    }
}

impl Client for Subscriber {
    fn command(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            if self.session.is_some() {
                return self.end().await;
            }
            let (asked, id) = (Instant::now(), unique());
            while let Err(e) = self.open(self.mschap(), id).await {
                eprintln!("asking again: {e}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if let Some(opened) = &self.opened {
                opened.lock().unwrap().note(asked.elapsed());
            }
        })
    }
}

/// Bytes of the command that opens a session and of the one that ends it, on average.
pub(crate) fn payload() -> usize {
    let command = |action| state::Command { request_id: vec![7; 16], at_ms: 1_790_000_000_000, action: Some(action) };
    let open = command(Action::OpenSession(OpenSession {
        session_id: u64::MAX / 3,
        user: user(1),
        credentials_version: 1,
        slot: 1,
        epoch: 1,
        session_key: 7,
        remote: "198.51.100.17:4500".into(),
        method: v1::AuthMethod::Mschapv2.into(),
        attempt_id: vec![7; 16],
        ..Default::default()
    }));
    let ended = EndedSession { session_id: u64::MAX / 3, reason: v1::EndReason::Client.into(), text: String::new() };
    let end = command(Action::EndSessions(EndSessions { slot: 1, epoch: 1, sessions: vec![ended] }));
    open.encoded_len().midpoint(end.encoded_len())
}
