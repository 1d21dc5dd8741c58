//! What somebody gets with a controller's certificate who is none any more, or never was one. He has what a removed controller has
//! in its folder: a certificate that chains to the root, and the seal key, so that he can prove that he is of this cluster.

use std::sync::atomic::{AtomicU8, Ordering};

use sallyport_ca::{KeyPair, Serial, Subject, UnixTime, pem};
use sallyport_proto::v1::operator_server::SERVICE_NAME as OPERATOR;
use sallyport_proto::v1::peer_client::PeerClient;
use sallyport_proto::v1::peer_server::SERVICE_NAME as PEER;
use sallyport_proto::{CONTROLLER_NAME, v1};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};
use zeroize::Zeroizing;

use super::*;
use crate::cluster::pass::Pass;
use crate::cluster::removal::{Electorate, REMOVED};
use crate::state::{Action, CreateToken, RemoveMember};

/// What a call may take here, milliseconds: for those that hang where they should be refused.
const CALL_MS: u64 = 3_000;

/// A controller and its folder.
struct Site {
    dir: tempfile::TempDir,
    running: Running,
}

/// Settings with a port that is known before the start.
fn config() -> Config {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let mut config = Config { listen: free, metrics_listen: None, ..Config::default() };
    config.passwords = PasswordsConfig { argon2_memory_kib: 8, argon2_passes: 1, argon2_parallel: 1 };
    config.limits.call_ms = CALL_MS;
    // So long a lease is not missed on a busy machine.
    config.raft.heartbeat_ms = 1_000;
    config
}

/// Asks again until it is so; a minute is for machines that do much else.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1_200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("waited in vain for {what}");
}

impl Site {
    async fn found() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let running = Controller::start(config(), dir.path()).await.expect("starts");
        Self { dir, running }
    }

    fn core(&self) -> &Core {
        self.running.core()
    }

    /// How somebody joins at this one, without a vote.
    async fn token(&self) -> Formation {
        static TOKENS: AtomicU8 = AtomicU8::new(1);
        let core = self.core();
        let root = core.root().fingerprint.0;
        let token = Token { root, id: [TOKENS.fetch_add(1, Ordering::Relaxed); 8], secret: Zeroizing::new([7; 16]) };
        let made = CreateToken {
            id: token.id.to_vec(),
            hash: Token::hash(&*token.secret),
            ttl_ms: 3_600_000,
            made_by: String::new(),
        };
        let reply = core.propose(Action::CreateToken(made)).await.expect("decides");
        assert!(matches!(reply.outcome, Some(Outcome::Done(_))), "{reply:?}");
        let addresses = vec![self.running.grpc_address().to_string()];
        Formation::Join { addresses, token: token.to_text(), learner: true }
    }

    async fn join(&self) -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let running = Controller::form(config(), dir.path(), self.token().await).await.expect("joins");
        Self { dir, running }
    }

    async fn remove(&self, id: u64) {
        let reply = self.core().propose(Action::RemoveMember(RemoveMember { id })).await.expect("decides");
        assert!(matches!(reply.outcome, Some(Outcome::Done(_))), "{reply:?}");
    }

    /// A connection as the controller in this folder.
    fn calls(&self, at: SocketAddr) -> Channel {
        let read = |name: &str| std::fs::read(self.dir.path().join("controller").join(name)).expect("its identity");
        calls(at, &read("ca.pem"), &read("cert.pem"), &read("key.pem"))
    }

    /// A connection with a certificate that was made with the authority's stolen key.
    fn calls_as_unknown(&self, at: SocketAddr) -> Channel {
        let (authority, rng) = (self.core().root_authority().expect("the root").authority, self.core().sealer.rng());
        let key = KeyPair::generate(sallyport_ca::KeyAlgorithm::EcdsaP256, rng).expect("a key");
        let subject = Subject::new(CONTROLLER_NAME, Vec::new()).expect("a name");
        let now = UnixTime(i64::try_from(self.core().now_ms() / 1_000).expect("a date"));
        let serial = Serial::generate(rng).expect("random");
        let profile = sallyport_ca::Profile::Controller;
        let made = authority.issue(profile, &subject, &key.public_key(), now, serial, rng).expect("issues");
        let ca = authority.certificate().pem();
        calls(at, ca.as_bytes(), pem::encode("CERTIFICATE", made.der()).as_bytes(), key.pkcs8_pem().as_bytes())
    }

    /// A message of Raft that nobody can read, with a good proof.
    fn message(&self, source: u64, target: u64) -> v1::RaftMessage {
        let member = MemberFile::read(&self.core().paths.member()).expect("reads").expect("there");
        let proof = Pass::new(&self.core().sealer, &member).proof(source, target);
        v1::RaftMessage { target, source, proof, ..Default::default() }
    }
}

fn calls(at: SocketAddr, ca: &[u8], cert: &[u8], key: &[u8]) -> Channel {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(ca))
        .identity(Identity::from_pem(cert, key))
        .domain_name(CONTROLLER_NAME);
    let endpoint = Endpoint::from_shared(format!("https://{at}")).expect("an address");
    endpoint.tls_config(tls).expect("TLS").connect_lazy()
}

/// What becomes of a call whose message never comes.
async fn without_a_message(channel: &Channel, service: &str, method: &str) -> Status {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.expect("connects");
    let path = format!("/{service}/{method}").parse().expect("a path");
    let codec = tonic_prost::ProstCodec::<v1::RaftMessage, v1::RaftMessage>::default();
    let never = futures_util::stream::pending::<v1::RaftMessage>();
    client.client_streaming(Request::new(never), path, codec).await.expect_err("no answer")
}

/// Whether a message got as far as to be read: nobody can.
fn was_read(status: &Status) -> bool {
    status.message().contains("a message of another version")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_controller_is_heard_neither_by_the_others_nor_by_a_node_that_has_no_state_yet() {
    let first = Site::found().await;
    let removed = first.join().await;
    let at_first = removed.calls(first.running.grpc_address());
    first.remove(2).await;

    // It is refused before any of its messages, of megabytes maybe, is gathered.
    for (service, method) in [(OPERATOR, "ListUsers"), (PEER, "Vote")] {
        let refused = without_a_message(&at_first, service, method).await;
        assert_eq!(refused.code(), Code::PermissionDenied, "{method}: {refused}");
        assert!(refused.metadata().contains_key(REMOVED), "{method}: {refused}");
    }
    // One that nobody knows makes no calls in the name of others.
    let unknown = first.calls_as_unknown(first.running.grpc_address());
    let refused = without_a_message(&unknown, OPERATOR, "ListUsers").await;
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");

    // A third joins where the first does not reach it: it waits for the state.
    let (config, dir) =
        (Config { advertise: "127.0.0.1:1".into(), ..config() }, tempfile::tempdir().expect("a folder"));
    let (at, token, state) = (config.listen, first.token().await, dir.path().to_path_buf());
    let joining = tokio::spawn(async move { Controller::form(config, &state, token).await });
    let (mut leader, mut traitor) = (PeerClient::new(first.calls(at)), PeerClient::new(removed.calls(at)));
    until("the third answers", async || {
        leader.describe(v1::DescribeRequest { target: 3 }).await.is_ok_and(|a| a.into_inner().vitals.is_some())
    })
    .await;
    let heard = leader.append_entries(first.message(1, 3)).await.expect_err("nobody can read it");
    assert!(was_read(&heard), "{heard}");
    for source in [1, 2] {
        let refused = traitor.append_entries(first.message(source, 3)).await.expect_err("refused");
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        assert!(refused.message().contains("revoked"), "{refused}");
    }
    // What could change something waits until it knows who asks.
    let propose = v1::ProposeRequest { target: 3, ..Default::default() };
    let refused = leader.propose(propose).await.expect_err("refused");
    assert!(refused.message().contains("does not know the caller"), "{refused}");
    let refused = leader.read_index(v1::ReadIndexRequest { target: 3 }).await.expect_err("refused");
    assert!(refused.message().contains("does not know the caller"), "{refused}");
    joining.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_the_log_does_not_know_does_not_come_between_a_leader_and_its_follower() {
    let first = Site::found().await;
    let second = first.join().await;
    let at = second.running.grpc_address();
    let unknown = first.calls_as_unknown(at);
    let mut client = PeerClient::new(unknown.clone());
    let lease = second.core().node.lease();
    let hears = || second.core().links.trust().hears_leader(second.core().clock.monotonic_ms(), lease);
    until("a life sign", async || hears()).await;
    let refused = client.vote(first.message(9, 2)).await.expect_err("refused");
    assert!(refused.message().contains("hears a leader"), "{refused}");
    let refused = client.describe(v1::DescribeRequest { target: 2 }).await.expect_err("refused");
    assert!(refused.message().contains("does not know the caller"), "{refused}");
    // Nor does it fill the memory with messages that it begins and does not end.
    let begun = (0..12).map(|_| without_a_message(&unknown, PEER, "Vote"));
    let begun = futures_util::future::join_all(begun).await;
    assert!(begun.iter().any(|status| status.code() == Code::ResourceExhausted), "{begun:?}");

    // A leader that is known no longer speaks: one that is unknown may be a new member that leads.
    first.running.shutdown().await;
    until("the end of the lease", async || !hears()).await;
    let first = Site { running: second.running, dir: second.dir };
    let heard = client.vote(first.message(9, 2)).await.expect_err("nobody can read it");
    assert!(was_read(&heard), "{heard}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_is_not_ended_by_the_member_that_it_removes() {
    let first = Site::found().await;
    let second = first.join().await;
    let says = |core: &Core, member: u64| {
        let mut status = Status::permission_denied("you were removed from the cluster");
        status.metadata_mut().insert(REMOVED, "1".parse().expect("text"));
        core.links.removal().refused_by(member, &status);
        *core.links.removal().subscribe().borrow()
    };
    // Where the leader is the only one that votes, its word is a majority.
    assert_eq!(Electorate::of(&second.core().node), Electorate { others: [1].into(), needed: 1 });
    assert!(!says(second.core(), 3) && says(second.core(), 1));

    assert_eq!(Electorate::of(&first.core().node), Electorate { others: [].into(), needed: 1 });
    assert!(!says(first.core(), 2));
    first.remove(2).await;
    assert!(!says(first.core(), 2));
}
