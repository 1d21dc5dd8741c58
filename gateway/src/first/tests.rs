//! Against controllers that say what a test wants.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sallyport_ca::crl::CONTROLLERS;
use sallyport_ca::seal::SealKey;
use sallyport_ca::{AltName, Authority, KeyAlgorithm, KeyPair, Profile, RootConfig, Serial, Subject};
use sallyport_proto::CONTROLLER_NAME;
use sallyport_proto::v1::joining_server::{Joining, JoiningServer};
use sallyport_proto::v1::revocation_server::{Revocation, RevocationServer};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity as Shown, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use super::*;
use crate::clock::Clock;

/// A controller: what it says to gateways, which list it carries, and how often it was told something.
#[derive(Clone)]
struct Scripted {
    root: Vec<u8>,
    list: Arc<Mutex<Vec<u8>>>,
    says: Option<Code>,
    told: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl Revocation for Scripted {
    async fn list_controllers(
        &self,
        _: Request<v1::ListControllersRequest>,
    ) -> Result<Response<v1::ListControllersResponse>, Status> {
        let crl = self.list.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Response::new(v1::ListControllersResponse { crl, ..Default::default() }))
    }
}

#[tonic::async_trait]
impl Joining for Scripted {
    async fn show_root(&self, _: Request<v1::ShowRootRequest>) -> Result<Response<v1::ShowRootResponse>, Status> {
        Ok(Response::new(v1::ShowRootResponse { root: self.root.clone() }))
    }

    async fn join(&self, _: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn enroll_gateway(
        &self,
        _: Request<v1::EnrollGatewayRequest>,
    ) -> Result<Response<v1::EnrollGatewayResponse>, Status> {
        self.told.fetch_add(1, Ordering::Relaxed);
        match self.says {
            None => Ok(Response::new(v1::EnrollGatewayResponse::default())),
            Some(code) => Err(Status::new(code, "as the test wants it")),
        }
    }
}

struct World {
    authority: Authority,
    addresses: Vec<String>,
    serials: Vec<Serial>,
    list: Arc<Mutex<Vec<u8>>>,
    told: Vec<Arc<AtomicUsize>>,
    servers: Vec<tokio::task::JoinHandle<Result<(), tonic::transport::Error>>>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.servers.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl World {
    async fn new(answers: &[Option<Code>]) -> Self {
        let rng = SystemRandom::new();
        let seal = SealKey::generate(&rng).expect("a key");
        let config = RootConfig::new("Example", "Example Root");
        let (authority, _) = Authority::create(&config, &seal, Clock::unix(), &rng).expect("a root");
        let list = Arc::default();
        let (addresses, serials, told, servers) = Default::default();
        let mut world = Self { authority, addresses, serials, list, told, servers };
        for says in answers {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            world.addresses.push(listener.local_addr().expect("an address").to_string());
            let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng).expect("a key");
            let subject = Subject::new("c", vec![AltName::Dns(CONTROLLER_NAME.into())]).expect("a name");
            let (serial, now) = (Serial::generate(&rng).expect("a serial number"), Clock::unix());
            let issued = world.authority.issue(Profile::Controller, &subject, &key.public_key(), now, serial, &rng);
            let certificate = issued.expect("a certificate");
            let shown = Shown::from_pem(certificate.pem(), key.pkcs8_pem().as_bytes());
            world.serials.push(certificate.serial);
            let (root, told) = (world.authority.certificate().der().to_vec(), Arc::<AtomicUsize>::default());
            world.told.push(told.clone());
            let controller = Scripted { root, list: world.list.clone(), says: *says, told };
            let server = Server::builder()
                .tls_config(ServerTlsConfig::new().identity(shown))
                .expect("an identity")
                .add_service(JoiningServer::new(controller.clone()))
                .add_service(RevocationServer::new(controller));
            world.servers.push(tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener))));
        }
        world.revoke(&[]);
        world
    }

    /// All of them carry a list with these from now on.
    fn revoke(&self, which: &[usize]) {
        let now = Clock::unix();
        let revoked: Vec<_> = which.iter().map(|at| (self.serials[*at].clone(), now)).collect();
        let list = self.authority.revocation_list(CONTROLLERS, 1, &revoked, now, &SystemRandom::new());
        *self.list.lock().unwrap_or_else(PoisonError::into_inner) = list.expect("a list");
    }

    fn told(&self) -> Vec<usize> {
        self.told.iter().map(|told| told.load(Ordering::Relaxed)).collect()
    }

    async fn by_token(&self) -> Result<Said<(Vec<u8>, v1::EnrollGatewayResponse)>, RenewalError> {
        let root = self.authority.certificate().fingerprint.0;
        let token = EnrollToken::generate(root, "", &SystemRandom::new()).expect("a token");
        round(&self.addresses, &token, b"csr").await
    }

    async fn late(&self) -> Result<Said<v1::EnrollGatewayResponse>, RenewalError> {
        let ca = self.authority.certificate().pem();
        let identity = Identity {
            grpc_chain: Vec::new(),
            grpc_key: Zeroizing::default(),
            ca: ca.into_bytes(),
            gone: Vec::new(),
            revoked: None,
            ike: Vec::new(),
        };
        late(&self.addresses, &identity, v1::Possession::default(), b"csr".to_vec()).await
    }
}

#[tokio::test]
async fn a_controller_that_is_none_any_more_is_told_neither_token_nor_certificate() {
    let world = World::new(&[None, None]).await;
    world.revoke(&[0]);
    assert!(matches!(world.by_token().await, Ok(Said::Yes(_))));
    assert!(matches!(world.late().await, Ok(Said::Yes(_))));
    assert_eq!(world.told(), [0, 2]);
    world.revoke(&[0, 1]);
    assert!(matches!(world.by_token().await, Ok(Said::NotNow(_))));
    assert_eq!(world.told(), [0, 2]);
}

#[tokio::test]
async fn one_that_refuses_does_not_speak_for_the_others() {
    let world = World::new(&[Some(Code::PermissionDenied), None]).await;
    assert!(matches!(world.by_token().await, Ok(Said::Yes(_))));
    assert!(matches!(world.late().await, Ok(Said::Yes(_))));
    assert_eq!(world.told(), [2, 2]);
    // Somebody may yet say yes, or nobody will.
    let world = World::new(&[Some(Code::PermissionDenied), Some(Code::Unavailable)]).await;
    assert!(matches!(world.late().await, Ok(Said::NotNow(text)) if text.contains("refuse")));
    let world = World::new(&[Some(Code::PermissionDenied), Some(Code::PermissionDenied)]).await;
    assert!(matches!(world.late().await, Err(RenewalError::Refused(_))));
    assert!(matches!(world.by_token().await, Err(RenewalError::Refused(_))));
}
