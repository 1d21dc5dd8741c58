//! A controller that was removed, and goes on as if it were one: its certificate chains to the root for a year.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sallyport_ca::{KeyAlgorithm, Profile, pem};
use sallyport_controller::{Formation, IssueRequest};
use sallyport_proto::v1::revocation_server::{Revocation, RevocationServer};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use super::*;

/// It keeps back that it was removed. Whatever else it is asked, it answers with UNIMPLEMENTED: a call that reaches it fails.
struct Rogue;

#[tonic::async_trait]
impl Revocation for Rogue {
    async fn list_controllers(
        &self,
        _request: Request<v1::ListControllersRequest>,
    ) -> Result<Response<v1::ListControllersResponse>, Status> {
        Err(Status::unimplemented("what list?"))
    }
}

/// Answers at an address with the identity in a state folder.
async fn impersonate(address: SocketAddr, state: &Path) -> tokio::task::JoinHandle<()> {
    let read = |name: &str| std::fs::read(state.join("controller").join(name)).unwrap();
    let identity = tonic::transport::Identity::from_pem(read("cert.pem"), read("key.pem"));
    let mut server = Server::builder().tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
    // The address is free again as soon as its last connection is gone.
    let listener = wait_for("the address of the removed controller", || async {
        tokio::net::TcpListener::bind(address).await.ok()
    })
    .await;
    let serving = server.add_service(RevocationServer::new(Rogue)).serve_with_incoming(TcpIncoming::from(listener));
    tokio::spawn(async move { serving.await.unwrap() })
}

/// Identities for gateways of these names; the keys for IKE are the same in all.
async fn identities(running: &Running, dir: &Path, names: impl Iterator<Item = String>) -> Vec<(String, PathBuf)> {
    let like = dir.join("like");
    running.issue_gateway("like", &["vpn.test".into()], &like).await.unwrap();
    let mut made = Vec::new();
    for name in names {
        let folder = dir.join(&name);
        std::fs::create_dir(&folder).unwrap();
        for file in ["ca.pem", "ike-rsa.pem", "ike-rsa.key"] {
            std::fs::copy(like.join(file), folder.join(file)).unwrap();
        }
        let (profile, key) = (Profile::GatewayLink, KeyAlgorithm::EcdsaP256);
        let request = IssueRequest { profile, name: name.clone(), sans: Vec::new(), key, days: 0 };
        let issued = running.issue(request).await.unwrap();
        std::fs::write(folder.join("grpc.pem"), issued.chain_pem()).unwrap();
        std::fs::write(folder.join("grpc.key"), pem::encode("PRIVATE KEY", &issued.private_key).as_bytes()).unwrap();
        made.push((name, folder));
    }
    made
}

type Gateway = (Controllers, mpsc::Receiver<FromController>);

async fn start(addresses: &[String], (name, folder): &(String, PathBuf), boot: u8) -> Gateway {
    let registration = Registration { name: name.clone(), addresses: Vec::new(), boot_id: [boot; 16] };
    let (events_in, events) = mpsc::channel(1_024);
    let identity = Identity::load(folder).unwrap();
    let (controllers, _) = Controllers::start(addresses, &identity, registration, events_in).await.unwrap();
    (controllers, events)
}

/// Asks for a decision on nobody: the answer is a rejection, by a controller.
async fn is_answered(gateway: &mut Gateway, question: u64) -> Result<(), String> {
    let method = v1::authenticate_request::Method::Pap(v1::Pap { password: Some(v1::Secret::new("x")) });
    let request = v1::AuthenticateRequest {
        request_id: question.to_be_bytes().repeat(2),
        user: "nobody".into(),
        method: Some(method),
        ..Default::default()
    };
    gateway.0.authenticate(question, request);
    loop {
        if let FromController::Authenticated { question: answered, decision } =
            within("a decision", gateway.1.recv()).await.unwrap()
            && answered == question
        {
            return decision.map(drop);
        }
    }
}

pub(super) fn operate(identity: &Path, controllers: &str, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sallyport"));
    command.arg("--identity").arg(identity).args(["--controller", controllers]).args(args).output().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_controller_that_goes_on_answering_is_asked_nothing_any_more() {
    let mut first = Member::start(Formation::Found).await;
    let mut operator = first.operator().await;
    let made = operator.create_cluster_token(v1::CreateClusterTokenRequest { ttl_s: 0 }).await.unwrap().into_inner();
    let token = Zeroizing::new(String::from_utf8(made.token.unwrap().into_inner().to_vec()).unwrap());
    let mut second = Member::start(Formation::Join { addresses: made.addresses, token, learner: false }).await;
    let id = second.running.as_ref().unwrap().member_id();
    let addresses: Vec<String> = [&second, &first].map(|m| m.config.listen.to_string()).to_vec();
    let temp = tempfile::tempdir().unwrap();
    let names = (0..8).map(|n| format!("gw{n}"));
    let identities = identities(first.running.as_ref().unwrap(), temp.path(), names).await;
    wait_for("the second controller", || async {
        operator.clone().list_users(v1::ListUsersRequest::default()).await.ok()?;
        let at_second = second.operator().await;
        at_second.clone().get_cluster(v1::GetClusterRequest {}).await.ok()
    })
    .await;

    // Some gateways run by then, and some of them talk to the one that is removed.
    let mut running = Vec::new();
    for (boot, identity) in identities[..4].iter().enumerate() {
        running.push(start(&addresses, identity, boot as u8).await);
    }
    wait_for("the removal", || async { operator.clone().remove_member(v1::RemoveMemberRequest { id }).await.ok() })
        .await;
    within("the end of the removed one", second.running.as_ref().unwrap().wait()).await;
    second.stop().await;
    let rogue = impersonate(second.config.listen, second.dir.path()).await;
    for (at, gateway) in running.iter_mut().enumerate() {
        gateway.0.look_for_revoked_controllers().await;
        for question in 1..4 {
            is_answered(gateway, question + 10 * at as u64).await.unwrap();
        }
    }
    // And one that starts now knows only both addresses.
    for (boot, identity) in identities[4..].iter().enumerate() {
        let mut gateway = start(&addresses, identity, 4 + boot as u8).await;
        is_answered(&mut gateway, 100).await.unwrap();
    }

    // An operator does not tell it anything either.
    let folder = temp.path().join("operator");
    std::fs::create_dir(&folder).unwrap();
    for file in ["cert.pem", "key.pem", "ca.pem"] {
        std::fs::copy(first.dir.path().join("operator").join(file), folder.join(file)).unwrap();
    }
    for _ in 0..4 {
        let listed = operate(&folder, &addresses.join(","), &["user", "list"]);
        assert!(listed.status.success(), "{listed:?}");
    }
    assert!(folder.join("controllers.crl").exists());
    let refused = operate(&folder, &addresses[0], &["user", "list"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("is revoked"), "{said}");
    // Whoever begins with a folder that was made since knows it, too.
    let out = temp.path().join("gw9");
    let out_text = out.to_str().unwrap();
    let issued = operate(&folder, &addresses[1], &["cert", "issue", "--gateway", "gw9.test", "--out", out_text]);
    assert!(issued.status.success() && out.join("controllers.crl").exists(), "{issued:?}");
    assert!(!rogue.is_finished(), "the rogue was there all the time");
    rogue.abort();
    first.stop().await;
}
