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
use tonic::codegen::tokio_stream::{Pending, pending};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response};
use zeroize::Zeroizing;

use super::*;

/// Much more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the controllers of a test have in common.
struct Group {
    /// Whoever is asked for the policy stream says so, and answers only when this allows it.
    asked: mpsc::Sender<usize>,
    may_answer: watch::Receiver<bool>,
    crl: Mutex<Vec<u8>>,
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
        Ok(Response::new(v1::ListControllersResponse { crl }))
    }
}

#[tonic::async_trait]
impl Gateway for Scripted {
    type WatchPolicyStream = Pending<Result<v1::WatchPolicyResponse, Status>>;

    async fn register(&self, _: Request<v1::RegisterRequest>) -> Result<Response<v1::RegisterResponse>, Status> {
        Ok(Response::new(v1::RegisterResponse { heartbeat_interval_ms: 60_000, ..Default::default() }))
    }

    async fn watch_policy(
        &self,
        _: Request<v1::WatchPolicyRequest>,
    ) -> Result<Response<Self::WatchPolicyStream>, Status> {
        self.group.asked.send(self.id).await.map_err(|_| Status::cancelled("the test is over"))?;
        let mut may_answer = self.group.may_answer.clone();
        may_answer.wait_for(|may| *may).await.map_err(|_| Status::cancelled("the test is over"))?;
        Ok(Response::new(pending()))
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

    async fn heartbeat(&self, _: Request<v1::HeartbeatRequest>) -> Result<Response<v1::HeartbeatResponse>, Status> {
        Ok(Response::new(v1::HeartbeatResponse::default()))
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

#[tokio::test]
async fn a_controller_that_turns_out_to_be_removed_while_it_is_asked_for_the_policy_is_not_listened_to() {
    let (rng, config) = (SystemRandom::new(), RootConfig::new("Example", "Example VPN Root"));
    let seal = SealKey::generate(&rng).expect("a key");
    let (authority, _) = Authority::create(&config, &seal, crate::clock::Clock::unix(), &rng).expect("a root");
    let list = |number, revoked: &[(Serial, UnixTime)]| {
        authority.revocation_list(CONTROLLERS, number, revoked, crate::clock::Clock::unix(), &rng).expect("a list")
    };

    let (asked_in, mut asked) = mpsc::channel(64);
    let (answers, may_answer) = watch::channel(false);
    let group = Arc::new(Group { asked: asked_in, may_answer, crl: Mutex::new(list(1, &[])) });
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
        revoked: None,
        ike: Vec::new(),
    };
    let registration = Registration { name: "gw1".into(), addresses: Vec::new(), boot_id: [7; 16] };
    let (events_in, _events) = mpsc::channel(16);
    let started = Controllers::start(&addresses, &identity, registration, events_in);
    let (controllers, _) = tokio::time::timeout(PATIENCE, started).await.expect("registers").expect("starts");

    // While the first one is asked, it becomes known that it is none any more.
    let first = tokio::time::timeout(PATIENCE, asked.recv()).await.expect("is asked").expect("goes on");
    let revoked = list(2, &[(serials[first].clone(), crate::clock::Clock::unix())]);
    *group.crl.lock().unwrap_or_else(PoisonError::into_inner) = revoked;
    controllers.look_for_revoked_controllers().await;
    answers.send_replace(true);
    let other = async {
        while let Some(id) = asked.recv().await {
            if id != first {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, other).await.expect("the other one is asked instead");
    for server in servers {
        server.abort();
    }
}
