//! `kill -9` of the leader and of followers, again and again, while sessions come and go: a history of all that was
//! acknowledged is checked afterwards (see `history`).
//!
//! Each controller is a process of its own: the test runs itself as a child.

#[path = "../common/mod.rs"]
mod common;
mod history;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{add_pool, add_user, tls};
use history::{Event, History};
use sallyport_controller::{Controller, Formation, PasswordsConfig};
use sallyport_crypto::mschap;
use sallyport_proto::failover::Failover;
use sallyport_proto::v1;
use sallyport_proto::v1::gateway_client::GatewayClient;
use sallyport_proto::v1::operator_client::OperatorClient;
use tonic::transport::{Channel, Endpoint};

/// Set for a child: its state folder.
const STATE: &str = "SALLYPORT_CLUSTER_STATE";
/// Set for a child: where it listens.
const LISTEN: &str = "SALLYPORT_CLUSTER_LISTEN";
/// Set for a child that joins: `HOST:PORT TOKEN`.
const JOIN: &str = "SALLYPORT_CLUSTER_JOIN";
/// How often to kill; more by hand: `SALLYPORT_KILLS=200 cargo test -p sallyport-controller --test cluster_kill`.
const KILLS: &str = "SALLYPORT_KILLS";
const DEFAULT_KILLS: u32 = 30;
/// Writers at a time.
const WRITERS: u64 = 6;

/// A child's life. Not a test of its own: without the variables that the test below sets, it is over at once.
#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stdout, reason = "the pipe to the parent")]
async fn the_child() {
    let Some(state) = std::env::var_os(STATE).map(PathBuf::from) else { return };
    let mut config = common::config();
    config.listen = std::env::var(LISTEN).expect("an address").parse().expect("an address");
    config.metrics_listen = None;
    config.passwords = PasswordsConfig { argon2_memory_kib: 8, argon2_passes: 1, argon2_parallel: 2 };
    config.storage.snapshot_every = 500; // snapshots and purges in the middle of it all
    let formation = match std::env::var(JOIN) {
        Ok(join) => {
            let (address, token) = join.split_once(' ').expect("address and token");
            Formation::Join { addresses: vec![address.into()], token: token.to_owned().into(), learner: false }
        }
        Err(_) => Formation::Found,
    };
    let running = Controller::form(config, &state, formation).await.expect("starts");
    println!("\nREADY");
    let error = running.wait().await;
    println!("\nENDED {error}");
}

/// A controller's process, and what starting it again takes.
struct Member {
    state: PathBuf,
    listen: SocketAddr,
    join: Option<String>,
    child: Option<Child>,
}

impl Member {
    fn new(dir: &Path, number: u32) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
        Self { state: dir.join(number.to_string()), listen: free, join: None, child: None }
    }

    /// Starts it, without waiting for anything.
    fn start(&mut self) {
        let mut command = Command::new(std::env::current_exe().expect("this test"));
        command.args(["--exact", "the_child", "--nocapture"]).env(STATE, &self.state);
        command.env(LISTEN, self.listen.to_string()).stdout(Stdio::piped()).stderr(Stdio::null());
        if let Some(join) = &self.join {
            command.env(JOIN, join);
        }
        self.child = Some(command.spawn().expect("starts the child"));
    }

    /// Waits until it answers.
    fn ready(&mut self) {
        let out = self.child.as_mut().expect("runs").stdout.take().expect("a pipe");
        let mut lines = BufReader::new(out).lines().map_while(Result::ok);
        let line = lines.find(|l| l == "READY" || l.starts_with("ENDED"));
        assert_eq!(line.as_deref(), Some("READY"), "the controller at {} ended by itself", self.listen);
    }

    fn kill(&mut self) {
        let mut child = self.child.take().expect("runs");
        child.kill().expect("kills"); // SIGKILL
        child.wait().expect("dies");
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What connects to the controllers as a gateway.
struct Gateway {
    client: GatewayClient<Failover>,
    member: v1::Member,
}

/// Everything that a writer needs.
struct World {
    gateway: Gateway,
    /// The operator at each member by itself: for reads that must be the same everywhere.
    readers: Vec<OperatorClient<Channel>>,
    history: History,
    stop: AtomicBool,
    next_request: AtomicU64,
    acknowledged: AtomicU64,
}

fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

fn question(member: v1::Member, number: u64) -> v1::AuthenticateRequest {
    use v1::authenticate_request::Method;
    let nt_response = mschap::generate_nt_response(&[1; 16], &[2; 16], "ada", "open sesame").to_vec();
    let method = Method::Mschapv2(v1::MsChapV2 {
        authenticator_challenge: vec![1; 16],
        peer_challenge: vec![2; 16],
        nt_response,
        identifier: 1,
    });
    v1::AuthenticateRequest {
        member: Some(member),
        request_id: u128::from(number).to_be_bytes().to_vec(),
        user: "ada".into(),
        method: Some(method),
        session_key: number,
        remote: format!("198.51.{}.{}:4500", number >> 8 & 0xff, number & 0xff),
        ..Default::default()
    }
}

impl World {
    /// Opens a session, keeps it a moment, ends it. Whatever is not answered is asked again with the same id.
    async fn session(&self, seed: &mut u64) {
        use v1::authenticate_response::Decision;
        let number = self.next_request.fetch_add(1, Ordering::Relaxed);
        let request = question(self.gateway.member, number);
        let mut client = self.gateway.client.clone();
        let accept = loop {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            match client.authenticate(request.clone()).await.map(|r| r.into_inner().decision) {
                Ok(Some(Decision::Accept(accept))) => break accept,
                Ok(other) => panic!("request {number}: {other:?}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let address = accept.lease.as_ref().expect("a lease").address.clone();
        self.history.note(Event::Opened { request: number, session: accept.session_id.clone(), address });
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        // The same question again has the same answer.
        if random(seed).is_multiple_of(8)
            && let Ok(again) = client.authenticate(request).await
        {
            match again.into_inner().decision {
                Some(Decision::Accept(again)) => assert_eq!(again.session_id, accept.session_id, "applied twice"),
                other => panic!("request {number} again: {other:?}"),
            }
        }
        // Whichever member is asked, it knows.
        if random(seed).is_multiple_of(4) {
            let at = usize::try_from(random(seed)).unwrap_or(0) % self.readers.len();
            let request = v1::ListSessionsRequest { page_size: 1_000, ..Default::default() };
            if let Ok(answer) = self.readers[at].clone().list_sessions(request).await {
                let answer = answer.into_inner();
                assert!(answer.next_page_token.is_empty());
                let there = answer.sessions.iter().any(|s| s.session_id == accept.session_id);
                assert!(there, "member {at} does not show session {}", accept.session_id);
            }
        }
        // Some stay, to be found at the end.
        if random(seed).is_multiple_of(16) {
            return;
        }
        self.history.note(Event::Ending { session: accept.session_id.clone() });
        let report = v1::SessionReport {
            session_id: accept.session_id.clone(),
            state: v1::SessionState::Down.into(),
            end_reason: v1::EndReason::Client.into(),
            ..Default::default()
        };
        let request = v1::ReportSessionsRequest { member: Some(self.gateway.member), reports: vec![report] };
        while !self.stop.load(Ordering::Relaxed) {
            match client.report_sessions(request.clone()).await {
                Ok(_) => {
                    self.history.note(Event::Ended { session: accept.session_id });
                    return;
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

/// Asks again for at most two minutes.
async fn wait_for<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    for _ in 0..2_400 {
        if let Some(found) = ask().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("waited in vain for {what}");
}

/// The leader, once three vote and all answer.
async fn whole(readers: &[OperatorClient<Channel>]) -> u64 {
    wait_for("three controllers that vote and answer", || async {
        let mut leader = None;
        for reader in readers {
            let mut reader = reader.clone();
            let asked = tokio::time::timeout(Duration::from_secs(3), reader.get_cluster(v1::GetClusterRequest {}));
            let cluster = asked.await.ok()?.ok()?.into_inner();
            let votes = |m: &&v1::ClusterMember| {
                matches!(m.role(), v1::MemberRole::Leader | v1::MemberRole::Voter) && m.vitals.is_some()
            };
            if cluster.members.iter().filter(votes).count() != 3 {
                return None;
            }
            leader = Some(cluster.leader_id).filter(|id| *id != 0);
        }
        leader
    })
    .await
}

fn lazy(address: SocketAddr, tls: tonic::transport::ClientTlsConfig) -> Channel {
    let endpoint = Endpoint::from_shared(format!("https://{address}")).expect("an address");
    endpoint.tls_config(tls).expect("TLS").connect_timeout(Duration::from_secs(1)).connect_lazy()
}

#[test]
fn nothing_acknowledged_is_lost_while_controllers_are_killed() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let kills = std::env::var(KILLS).ok().and_then(|k| k.parse().ok()).unwrap_or(DEFAULT_KILLS);
    let mut members: Vec<Member> = (1..=3).map(|n| Member::new(dir.path(), n)).collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let world = runtime.block_on(form(&mut members));
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| {
            let world = world.clone();
            runtime.spawn(async move {
                let mut seed = 0x5eed + n;
                while !world.stop.load(Ordering::Relaxed) {
                    world.session(&mut seed).await;
                }
            })
        })
        .collect();

    let mut seed = 0xdead_u64;
    let mut leaders = 0;
    for round in 0..kills {
        let leader = runtime.block_on(whole(&world.readers));
        // Every second time the leader, else one of the others; ids are in the order of joining.
        let victim = if round % 2 == 0 { leader - 1 } else { (leader - 1 + 1 + random(&mut seed) % 2) % 3 };
        leaders += u32::from(victim == leader - 1);
        let victim = &mut members[usize::try_from(victim).expect("small")];
        victim.kill();
        let before = world.acknowledged.load(Ordering::Relaxed);
        // The others go on without it, before it comes back.
        runtime.block_on(wait_for("a session after the kill", || async {
            (world.acknowledged.load(Ordering::Relaxed) > before + WRITERS).then_some(())
        }));
        victim.start();
    }
    runtime.block_on(whole(&world.readers));
    world.stop.store(true, Ordering::Relaxed);
    for writer in writers {
        runtime.block_on(writer).expect("no writer saw anything wrong");
    }

    // All members show the same, and it is what the history says.
    let mut seen = Vec::new();
    for reader in &world.readers {
        let request = v1::ListSessionsRequest { page_size: 1_000, ..Default::default() };
        let answer = runtime.block_on(reader.clone().list_sessions(request)).expect("answers").into_inner();
        assert!(answer.next_page_token.is_empty(), "more sessions than one page holds");
        let sessions: Vec<(String, String)> = answer.sessions.into_iter().map(|s| (s.session_id, s.address)).collect();
        seen.push(sessions);
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "members differ");
    world.history.check(&seen[0]).expect("the history is one that may be");
    println_summary(kills, leaders, world.acknowledged.load(Ordering::Relaxed));
}

#[allow(clippy::print_stdout, reason = "shown with --nocapture")]
fn println_summary(kills: u32, leaders: u32, acknowledged: u64) {
    println!(
        "{kills} kills, {leaders} of them of the leader; {acknowledged} sessions acknowledged, none lost or doubled"
    );
}

async fn form(members: &mut [Member]) -> Arc<World> {
    members[0].start();
    members[0].ready();
    let mut operator = common::operator(&members[0].state, members[0].listen).await;
    add_user(&mut operator, "ada", "open sesame").await;
    add_pool(&mut operator, "p", "10.0.0.0/16").await;
    for n in 1..members.len() {
        let made = operator.create_cluster_token(v1::CreateClusterTokenRequest { ttl_s: 0 }).await.expect("a token");
        let token = made.into_inner().token.expect("a token").into_inner();
        let token = String::from_utf8(token.to_vec()).expect("text");
        members[n].join = Some(format!("{} {token}", members[0].listen));
        members[n].start();
        members[n].ready();
    }
    let folder = members[0].state.join("operator");
    let read = |name: &str| std::fs::read(folder.join(name)).expect("the operator's folder");
    let readers: Vec<OperatorClient<Channel>> = members
        .iter()
        .map(|member| {
            let tls = tonic::transport::ClientTlsConfig::new()
                .ca_certificate(tonic::transport::Certificate::from_pem(read("ca.pem")))
                .identity(tonic::transport::Identity::from_pem(read("cert.pem"), read("key.pem")))
                .domain_name(sallyport_proto::CONTROLLER_NAME);
            OperatorClient::new(lazy(member.listen, tls))
        })
        .collect();
    whole(&readers).await;
    let request = v1::IssueCertificateRequest {
        profile: v1::CertificateProfile::GatewayLink.into(),
        name: "gw1".into(),
        key_algorithm: v1::KeyAlgorithm::EcdsaP256.into(),
        ..Default::default()
    };
    let issued = operator.issue_certificate(request).await.expect("issues").into_inner();
    let key = issued.private_key.expect("a key").into_inner();
    let identity = (issued.certificate.as_slice(), key.as_slice());
    let channels = members.iter().map(|m| lazy(m.listen, tls(&issued.chain[0], Some(identity)))).collect();
    let mut client = GatewayClient::new(Failover::new(channels, 1).patience(Duration::from_secs(3)));
    let request = v1::RegisterRequest { name: "gw1".into(), boot_id: vec![1; 16], ..Default::default() };
    let member = client.register(request).await.expect("registers").into_inner().member.expect("a member");
    Arc::new(World {
        gateway: Gateway { client, member },
        readers,
        history: History::default(),
        stop: AtomicBool::new(false),
        next_request: AtomicU64::new(1),
        acknowledged: AtomicU64::new(0),
    })
}
