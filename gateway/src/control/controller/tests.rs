//! Against controllers that say what a test wants.

use std::sync::{Mutex, PoisonError};

use sallyport_ca::crl::CONTROLLERS;
use sallyport_ca::seal::SealKey;
use sallyport_ca::{AltName, Authority, Certificate, KeyAlgorithm, KeyPair, Profile, RootConfig, Serial, Subject};
use sallyport_ca::{SystemRandom, UnixTime};
use sallyport_proto::CONTROLLER_NAME;
use sallyport_proto::v1::gateway_server::{Gateway, GatewayServer};
use sallyport_proto::v1::revocation_server::{Revocation, RevocationServer};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response};
use zeroize::Zeroizing;

use std::net::SocketAddr;

use sallyport_proto::carry::pump;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Streaming;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::config::EnrollmentConfig;
use crate::enrollment::Ports;
use crate::metrics::Metrics;

/// Much more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What life signs are answered with.
const NEWEST: v1::LiveFrom = v1::LiveFrom { lineage: 3, index: 12 };

/// What the controllers of a test have in common.
struct Group {
    /// Whoever is asked for the policy stream says so, and answers only when this allows it.
    asked: mpsc::Sender<usize>,
    may_answer: watch::Receiver<bool>,
    crl: Mutex<Vec<u8>>,
    /// Who takes no connections of machines that enroll.
    away: Mutex<Vec<usize>>,
    /// From where the gateway wanted to hear of live certificates, and the streams on which it does.
    from: Mutex<Vec<v1::LiveFrom>>,
    streams: Mutex<Vec<mpsc::Sender<Result<v1::WatchPolicyResponse, Status>>>>,
    /// The newest life sign.
    beat: watch::Sender<v1::HeartbeatRequest>,
}

#[derive(Clone)]
struct Scripted {
    id: usize,
    group: Arc<Group>,
}

#[tonic::async_trait]
impl Revocation for Scripted {
    async fn list_controllers(
        &self,
        _request: Request<v1::ListControllersRequest>,
    ) -> Result<Response<v1::ListControllersResponse>, Status> {
        let crl = self.group.crl.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Response::new(v1::ListControllersResponse { crl, ..Default::default() }))
    }
}

#[tonic::async_trait]
impl Gateway for Scripted {
    type WatchPolicyStream = ReceiverStream<Result<v1::WatchPolicyResponse, Status>>;
    type CarryEnrollmentStream = ReceiverStream<Result<v1::CarryEnrollmentResponse, Status>>;

    async fn register(&self, _: Request<v1::RegisterRequest>) -> Result<Response<v1::RegisterResponse>, Status> {
        Ok(Response::new(v1::RegisterResponse { heartbeat_interval_ms: 60_000, ..Default::default() }))
    }

    async fn watch_policy(
        &self,
        request: Request<v1::WatchPolicyRequest>,
    ) -> Result<Response<Self::WatchPolicyStream>, Status> {
        self.group.asked.send(self.id).await.map_err(|_| Status::cancelled("the test is over"))?;
        let mut may_answer = self.group.may_answer.clone();
        may_answer.wait_for(|may| *may).await.map_err(|_| Status::cancelled("the test is over"))?;
        let (stream, messages) = mpsc::channel(4);
        let from = request.into_inner().live.ok_or_else(|| Status::invalid_argument("live"))?;
        self.group.streams.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        self.group.from.lock().unwrap_or_else(PoisonError::into_inner).push(from);
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn admit_peer(&self, _: Request<v1::AdmitPeerRequest>) -> Result<Response<v1::AdmitPeerResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn authenticate(
        &self,
        _: Request<v1::AuthenticateRequest>,
    ) -> Result<Response<v1::AuthenticateResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn report_sessions(
        &self,
        _: Request<v1::ReportSessionsRequest>,
    ) -> Result<Response<v1::ReportSessionsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn report_attempts(
        &self,
        _: Request<v1::ReportAttemptsRequest>,
    ) -> Result<Response<v1::ReportAttemptsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        self.group.beat.send_replace(request.into_inner());
        Ok(Response::new(v1::HeartbeatResponse { revoked: Some(NEWEST), ..Default::default() }))
    }

    async fn witness_log(&self, _: Request<v1::WitnessLogRequest>) -> Result<Response<v1::WitnessLogResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn renew(&self, _: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    /// Says who it is and who came, then says back what it hears.
    async fn carry_enrollment(
        &self,
        request: Request<Streaming<v1::CarryEnrollmentRequest>>,
    ) -> Result<Response<Self::CarryEnrollmentStream>, Status> {
        if self.group.away.lock().unwrap_or_else(PoisonError::into_inner).contains(&self.id) {
            return Err(Status::unavailable("away"));
        }
        let mut incoming = request.into_inner();
        let begin = incoming.message().await?.and_then(|m| m.begin).ok_or_else(|| Status::invalid_argument("begin"))?;
        let (outgoing, responses) = mpsc::channel(4);
        let (ours, theirs) = tokio::io::duplex(4096);
        let hello = format!("{} {:?} {}\n", self.id, begin.port(), begin.remote);
        tokio::spawn(async move {
            let echo = async move {
                let (mut reader, mut writer) = tokio::io::split(theirs);
                writer.write_all(hello.as_bytes()).await?;
                tokio::io::copy(&mut reader, &mut writer).await
            };
            let _ = tokio::join!(echo, pump(ours, incoming, outgoing, PATIENCE));
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

fn issue(authority: &Authority, profile: Profile, name: &str) -> (Certificate, Zeroizing<String>) {
    let rng = SystemRandom::new();
    let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng).expect("a key");
    let names = match profile {
        Profile::Controller => vec![AltName::Dns(CONTROLLER_NAME.into())],
        _ => Vec::new(),
    };
    let subject = Subject::new(name, names).expect("a name");
    let serial = Serial::generate(&rng).expect("a serial number");
    let issued = authority.issue(profile, &subject, &key.public_key(), crate::clock::Clock::unix(), serial, &rng);
    (issued.expect("a certificate"), key.pkcs8_pem())
}

/// Two controllers and what a gateway needs for them.
struct World {
    group: Arc<Group>,
    authority: Authority,
    serials: Vec<Serial>,
    servers: Vec<tokio::task::JoinHandle<Result<(), tonic::transport::Error>>>,
    controllers: Controllers,
    events: mpsc::Receiver<FromController>,
}

impl Drop for World {
    fn drop(&mut self) {
        for server in &self.servers {
            server.abort();
        }
    }
}

fn list(authority: &Authority, number: u64, revoked: &[(Serial, UnixTime)]) -> Vec<u8> {
    let now = crate::clock::Clock::unix();
    authority.revocation_list(CONTROLLERS, number, revoked, now, &SystemRandom::new()).expect("a list")
}

async fn world(asked: mpsc::Sender<usize>, may_answer: watch::Receiver<bool>) -> World {
    let (rng, config) = (SystemRandom::new(), RootConfig::new("Example", "Example VPN Root"));
    let seal = SealKey::generate(&rng).expect("a key");
    let (authority, _) = Authority::create(&config, &seal, crate::clock::Clock::unix(), &rng).expect("a root");
    let crl = Mutex::new(list(&authority, 1, &[]));
    let beat = watch::Sender::default();
    let (away, from, streams) = Default::default();
    let group = Arc::new(Group { asked, may_answer, crl, away, from, streams, beat });
    let (mut addresses, mut serials, mut servers) = (Vec::new(), Vec::new(), Vec::new());
    for id in 0..2 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        addresses.push(listener.local_addr().expect("an address").to_string());
        let (certificate, key) = issue(&authority, Profile::Controller, &format!("c{id}"));
        let identity = tonic::transport::Identity::from_pem(certificate.pem(), key.as_bytes());
        serials.push(certificate.serial);
        let controller = Scripted { id, group: group.clone() };
        let server = Server::builder()
            .tls_config(ServerTlsConfig::new().identity(identity))
            .expect("an identity")
            .add_service(GatewayServer::new(controller.clone()))
            .add_service(RevocationServer::new(controller));
        servers.push(tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener))));
    }

    let (link, key) = issue(&authority, Profile::GatewayLink, "gw1");
    let identity = Identity {
        grpc_chain: link.pem().into_bytes(),
        grpc_key: Zeroizing::new(key.as_bytes().to_vec()),
        ca: authority.certificate().pem().into_bytes(),
        gone: Vec::new(),
        revoked: None,
        ike: Vec::new(),
    };
    let registration = Registration { name: "gw1".into(), addresses: Vec::new(), boot_id: [7; 16] };
    let (events_in, events) = mpsc::channel(16);
    let started = Controllers::start(&addresses, &identity, registration, events_in);
    let (controllers, _) = tokio::time::timeout(PATIENCE, started).await.expect("registers").expect("starts");
    World { group, authority, serials, servers, controllers, events }
}

#[tokio::test]
async fn a_controller_that_turns_out_to_be_removed_while_it_is_asked_for_the_policy_is_not_listened_to() {
    let (asked_in, mut asked) = mpsc::channel(64);
    let (answers, may_answer) = watch::channel(false);
    let world = world(asked_in, may_answer).await;

    // While the first one is asked, it becomes known that it is none any more.
    let first = tokio::time::timeout(PATIENCE, asked.recv()).await.expect("is asked").expect("goes on");
    let revoked = list(&world.authority, 2, &[(world.serials[first].clone(), crate::clock::Clock::unix())]);
    *world.group.crl.lock().unwrap_or_else(PoisonError::into_inner) = revoked;
    world.controllers.look_for_revoked_controllers().await;
    answers.send_replace(true);
    let other = async {
        while let Some(id) = asked.recv().await {
            if id != first {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, other).await.expect("the other one is asked instead");
}

/// Says something at a port and hears what comes back until the end.
async fn say(port: SocketAddr, text: &str) -> String {
    let (mut reader, mut writer) = TcpStream::connect(port).await.expect("connects").into_split();
    let saying = async {
        writer.write_all(text.as_bytes()).await.expect("is taken");
        writer.shutdown().await.expect("is told the end");
    };
    let mut answer = String::new();
    let hearing = tokio::time::timeout(PATIENCE, reader.read_to_string(&mut answer));
    // Reset is an end, too.
    let _ = tokio::join!(saying, hearing).1.expect("in time");
    answer
}

#[tokio::test]
async fn machines_that_enroll_are_carried_to_whichever_controller_is_there() {
    let (asked, _asked) = mpsc::channel(64);
    let (_answers, may_answer) = watch::channel(false);
    let world = world(asked, may_answer).await;
    let metrics = Arc::new(Metrics::new(Arc::default(), Arc::default()).expect("metrics"));
    let here = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let config = EnrollmentConfig { listen: here, http_listen: here, ..EnrollmentConfig::default() };
    let ports = Ports::open(&config, &world.controllers, &metrics).await;
    assert!(ports.warnings().is_empty());
    let [https, http] = *ports.addresses() else { panic!("two ports") };

    let long = "x".repeat(300_000);
    let answer = say(https, &long).await;
    let (hello, echo) = answer.split_once('\n').expect("a line");
    assert!(hello.contains(" Https 127.0.0.1:") && echo == long, "{hello}");
    let first: usize = hello.split_once(' ').expect("a number").0.parse().expect("a number");
    world.group.away.lock().unwrap_or_else(PoisonError::into_inner).push(first);
    let answer = say(http, "hello").await;
    assert!(answer.starts_with(&format!("{} Http 127.0.0.1:", 1 - first)) && answer.ends_with("hello"), "{answer}");

    // Nobody is there: whoever speaks HTTP is told so.
    world.group.away.lock().unwrap_or_else(PoisonError::into_inner).push(1 - first);
    let (plain, tls) = tokio::join!(say(http, "GET / HTTP/1.1\r\n\r\n"), say(https, "hello"));
    assert!(plain.starts_with("HTTP/1.1 503 ") && plain.contains("\r\nRetry-After: 30\r\n"), "{plain}");
    assert_eq!(tls, "");

    // A port that is taken is a warning.
    let taken = EnrollmentConfig { listen: Some(https), http_listen: None, ..EnrollmentConfig::default() };
    let again = Ports::open(&taken, &world.controllers, &metrics).await;
    assert!(matches!(again.warnings(), [warning] if warning.contains("[gateway.enrollment] listen")));
    let text = String::from_utf8(sallyport_monitor::Monitored::metrics(&*metrics).expect("text")).expect("text");
    for line in ["{outcome=\"carried\"} 2", "{outcome=\"away\"} 2"] {
        assert!(text.contains(&format!("sallyport_gateway_enrollment_connections_total{line}")), "{text}");
    }
}

#[tokio::test]
async fn a_stream_goes_on_from_what_is_known_and_what_was_ended_is_said_at_once() {
    let (asked, mut asks) = mpsc::channel(64);
    let (_answers, may_answer) = watch::channel(true);
    let mut world = world(asked, may_answer).await;
    let group = world.group.clone();
    let streams = || group.streams.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let opened = async |asks: &mut mpsc::Receiver<usize>, count: usize| {
        while streams().len() < count {
            tokio::time::timeout(PATIENCE, asks.recv()).await.expect("is asked").expect("goes on");
            tokio::task::yield_now().await;
        }
        group.from.lock().unwrap_or_else(PoisonError::into_inner)[count - 1]
    };
    assert_eq!(opened(&mut asks, 1).await, v1::LiveFrom::default(), "nothing is known yet");
    let update = v1::LiveUpdate { lineage: 3, snapshot: true, index: 10, ..Default::default() };
    let message = v1::WatchPolicyResponse { update: Some(v1::watch_policy_response::Update::Live(update.clone())) };
    streams()[0].send(Ok(message)).await.expect("is heard");
    let mut newest = None;
    let heard = async {
        loop {
            match world.events.recv().await.expect("goes on") {
                FromController::Live(heard) => break assert_eq!(*heard, update),
                FromController::Newest { newest: n, .. } => newest = Some(n),
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.expect("is handed on");
    assert!(newest.is_none_or(|newest| newest == NEWEST));

    // The control plane has taken it in, and ended something.
    let at = v1::LiveFrom { lineage: 3, index: 10 };
    let held = v1::LiveHeld { at: Some(at), certificates: 7, age_ms: 1, stale: false };
    let done = vec![v1::RevocationDone { number: 9, tunnels: 2 }];
    world.controllers.report_live(Some(held), done.clone(), true);
    let mut beats = group.beat.subscribe();
    let said = beats.wait_for(|beat| beat.live == Some(held) && beat.revocations == done);
    tokio::time::timeout(PATIENCE, said).await.expect("is said").expect("goes on");

    // A message that did not fit, or the end of a stream: the next one begins at what is known.
    world.controllers.follow_again();
    assert_eq!(opened(&mut asks, 2).await, at);
    group.streams.lock().unwrap_or_else(PoisonError::into_inner).clear();
    group.from.lock().unwrap_or_else(PoisonError::into_inner).clear();
    assert_eq!(opened(&mut asks, 1).await, at);
}
