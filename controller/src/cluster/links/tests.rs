use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use sallyport_ca::seal::SealKey;
use sallyport_ca::{Authority, KeyAlgorithm, KeyPair, Profile, RootConfig, Serial, Subject, SystemRandom, UnixTime};
use sallyport_proto::CONTROLLER_NAME;
use sallyport_proto::v1::peer_server::{Peer, PeerServer};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Streaming};

use super::*;

type Answered<T> = Result<Response<T>, Status>;
type Message = v1::RaftMessage;

/// A member that notes which calls came over which connection.
#[derive(Clone, Default)]
struct Member(Arc<Mutex<Vec<(&'static str, SocketAddr)>>>);

impl Member {
    fn note<T, A: Default>(&self, call: &'static str, request: &Request<T>) -> Answered<A> {
        let from = request.remote_addr().expect("an address");
        self.0.lock().expect("not poisoned").push((call, from));
        Ok(Response::new(A::default()))
    }

    fn calls(&self) -> Vec<(&'static str, SocketAddr)> {
        self.0.lock().expect("not poisoned").clone()
    }
}

#[tonic::async_trait]
impl Peer for Member {
    async fn append_entries(&self, request: Request<Message>) -> Answered<Message> {
        let call = if request.get_ref().body.is_empty() { "heartbeat" } else { "entries" };
        self.note(call, &request)
    }
    async fn vote(&self, request: Request<Message>) -> Answered<Message> {
        self.note("vote", &request)
    }
    async fn pre_vote(&self, request: Request<Message>) -> Answered<Message> {
        self.note("pre-vote", &request)
    }
    async fn install_snapshot(&self, request: Request<Streaming<v1::SnapshotPart>>) -> Answered<Message> {
        self.note("snapshot", &request)
    }
    async fn propose(&self, request: Request<v1::ProposeRequest>) -> Answered<v1::ProposeResponse> {
        self.note("propose", &request)
    }
    async fn read_index(&self, request: Request<v1::ReadIndexRequest>) -> Answered<v1::ReadIndexResponse> {
        self.note("read index", &request)
    }
    async fn stand_for_election(
        &self,
        request: Request<v1::StandForElectionRequest>,
    ) -> Answered<v1::StandForElectionResponse> {
        self.note("stand", &request)
    }
    async fn describe(&self, request: Request<v1::DescribeRequest>) -> Answered<v1::DescribeResponse> {
        self.note("describe", &request)
    }
    async fn rejoin(&self, request: Request<v1::RejoinRequest>) -> Answered<v1::JoinResponse> {
        self.note("rejoin", &request)
    }
}

/// A member that listens, and links with an identity of the same authority.
async fn member() -> (Member, Destination, Arc<Links>) {
    let (clock, rng) = (Clock::system(), SystemRandom::new());
    let now = UnixTime(i64::try_from(clock.unix_ms() / 1_000).expect("fits"));
    let (seal_key, root) = (SealKey::generate(&rng).expect("random"), RootConfig::new("Example", "Example Root"));
    let (authority, _) = Authority::create(&root, &seal_key, now, &rng).expect("a root");
    let identity = || {
        let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng).expect("a key");
        let subject = Subject::new(CONTROLLER_NAME, Vec::new()).expect("a name");
        let serial = Serial::generate(&rng).expect("random");
        let made = authority.issue(Profile::Controller, &subject, &key.public_key(), now, serial, &rng);
        (made.expect("issues").pem().into_bytes(), key.pkcs8_pem().as_bytes().to_vec())
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    let (member, (chain, key)) = (Member::default(), identity());
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(chain, key));
    let server = Server::builder().tls_config(tls).expect("TLS").add_service(PeerServer::new(member.clone()));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let links = Links::new(LogTime::new(clock.clone()), clock);
    let (chain, key) = identity();
    links.identify(authority.certificate().pem().into_bytes(), chain, key.into());
    (member, Destination { source: 1, target: 2, address }, links)
}

#[tokio::test]
async fn a_member_that_was_removed_is_called_no_more_over_a_connection_that_is_open() {
    let (member, to, links) = member().await;
    let good = Arc::new(AtomicBool::new(true));
    let knows = good.clone();
    links.judge_by(Arc::new(move |_| match knows.load(Ordering::Relaxed) {
        true => Ok(()),
        false => Err("it was removed".into()),
    }));
    let describe =
        || async { links.peer(&to.address).expect("a client").describe(v1::DescribeRequest::default()).await };
    describe().await.expect("a member");
    links.heartbeat(&to, Vec::new()).await.expect("a member");
    good.store(false, Ordering::Relaxed);
    describe().await.expect_err("it was removed");
    links.heartbeat(&to, Vec::new()).await.expect_err("it was removed");
    assert_eq!(member.calls().len(), 2, "it has heard nothing more");
    // As good as any other when it is back.
    good.store(true, Ordering::Relaxed);
    describe().await.expect("a member");
    let calls = member.calls();
    assert_ne!(calls[2].1, calls[0].1, "by another connection");
}

#[tokio::test]
async fn entries_hold_up_no_heartbeat_however_few_bytes_they_have() {
    let (member, to, links) = member().await;
    for _ in 0..2 {
        links.heartbeat(&to, Vec::new()).await.expect("an answer");
        links.append_entries(&to, vec![7]).await.expect("an answer");
        links.append_entries(&to, vec![7; 100_000]).await.expect("an answer");
        links.vote(&to, Vec::new()).await.expect("an answer");
        links.peer(&to.address).expect("a client").describe(v1::DescribeRequest::default()).await.expect("an answer");
    }
    let of = |call: &str| {
        let calls = member.calls().into_iter().filter(|(name, _)| *name == call);
        let ports: BTreeSet<SocketAddr> = calls.map(|(_, from)| from).collect();
        assert_eq!(ports.len(), 1, "{call}");
        ports
    };
    let (heartbeats, entries, calls) = (of("heartbeat"), of("entries"), of("describe"));
    assert_eq!(of("vote"), heartbeats);
    assert!(heartbeats.is_disjoint(&entries) && heartbeats.is_disjoint(&calls) && entries.is_disjoint(&calls));
}
