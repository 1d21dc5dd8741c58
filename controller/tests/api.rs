//! The two services over real mutual TLS on loopback.

mod common;
#[path = "api/enrollment.rs"]
mod enrollment;
#[path = "api/escalations.rs"]
mod escalations;
#[path = "api/est.rs"]
mod est;
#[path = "api/joining.rs"]
mod joining;
#[path = "api/lists.rs"]
mod lists;
#[path = "api/lost_tail.rs"]
mod lost_tail;
#[path = "api/own_certificate.rs"]
mod own_certificate;
#[path = "api/revocation.rs"]
mod revocation;
#[path = "api/roles.rs"]
mod roles;
#[path = "api/scep.rs"]
mod scep;
#[path = "api/status.rs"]
mod status;
#[path = "api/users.rs"]
mod users;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding};
use common::{Way, add_pool, add_user, allow_all, attempts, change_settings, issue, settings, site, tls};
use ring::digest;
use sallyport_ca::seal::SealKey;
use sallyport_ca::{Authority, KeyAlgorithm, KeyPair, Profile, RootConfig, Serial, Subject, SystemRandom, UnixTime};
use sallyport_controller::LEVEL;
use sallyport_proto::failover::REQUEST_ID;
use sallyport_proto::v1;
use sallyport_proto::v1::gateway_client::GatewayClient;
use sallyport_proto::v1::joining_client::JoiningClient;
use sallyport_proto::v1::operator_client::OperatorClient;
use sallyport_proto::v1::peer_client::PeerClient;
use tonic::Code;
use tonic::transport::Channel;

async fn status_call(channel: Channel) -> Code {
    match OperatorClient::new(channel).get_status(v1::GetStatusRequest {}).await {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    }
}

async fn heartbeat_call(channel: Channel) -> Code {
    match GatewayClient::new(channel).heartbeat(v1::HeartbeatRequest::default()).await {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    }
}

#[tokio::test]
async fn only_an_operator_may_operate_and_only_a_gateway_may_be_one() {
    let site = site().await;
    let machine = issue(&site.running, Profile::Machine, "laptop.example.com").await;
    let gateway = issue(&site.running, Profile::GatewayLink, "gw1").await;
    let operator = issue(&site.running, Profile::Operator, "olga").await;
    let person = issue(&site.running, Profile::User, "olga@example.com").await;
    for (issued, operate, report) in [
        (&machine, Code::PermissionDenied, Code::PermissionDenied),
        (&gateway, Code::PermissionDenied, Code::InvalidArgument), // got as far as the request, which is empty
        (&operator, Code::Ok, Code::PermissionDenied),
        (&person, Code::PermissionDenied, Code::PermissionDenied),
    ] {
        let name = &issued.record.name;
        assert_eq!(status_call(site.channel(issued).await.expect("TLS")).await, operate, "{name}");
        assert_eq!(heartbeat_call(site.channel(issued).await.expect("TLS")).await, report, "{name}");
    }

    // The certificate for VPN clients is no TLS client's at all.
    let ike = issue(&site.running, Profile::Gateway, "vpn.example.com").await;
    assert!(fails(site.channel(&ike).await).await);
    // Nobody may do anything without one, but ask to join the controllers.
    let root = site.running.root_certificate();
    let address = site.running.grpc_address();
    let nobody = common::connect(address, tls(&root, None)).await.expect("TLS");
    assert_eq!(status_call(nobody.clone()).await, Code::Unauthenticated);
    assert_eq!(heartbeat_call(nobody.clone()).await, Code::Unauthenticated);
    let raft = v1::RaftMessage { target: 1, source: 1, ..Default::default() };
    let mut peer = PeerClient::new(nobody.clone());
    assert_eq!(peer.vote(raft.clone()).await.expect_err("no member").code(), Code::Unauthenticated);
    let mut peer = PeerClient::new(site.channel(&operator).await.expect("TLS"));
    assert_eq!(peer.vote(raft).await.expect_err("no member").code(), Code::PermissionDenied);
    // Nor may anybody but a controller speak for others.
    let mut request = tonic::Request::new(v1::GetStatusRequest {});
    let serial = operator.record.serial.parse().expect("text");
    request.metadata_mut().insert("sallyport-on-behalf-of", serial);
    let mut pretender = OperatorClient::new(site.channel(&gateway).await.expect("TLS"));
    assert_eq!(pretender.get_status(request).await.expect_err("no member").code(), Code::PermissionDenied);
    let shown = JoiningClient::new(nobody).show_root(v1::ShowRootRequest {}).await.expect("for everybody");
    assert_eq!(shown.into_inner().root, root);

    // Revoked: the next call on the connection that is already open fails.
    let channel = site.channel(&operator).await.expect("TLS");
    assert_eq!(status_call(channel.clone()).await, Code::Ok);
    let request = v1::RevokeCertificateRequest { serial: operator.record.serial.to_uppercase(), reason: "left".into() };
    site.operator().await.revoke_certificate(request).await.expect("revokes");
    assert_eq!(status_call(channel).await, Code::Unauthenticated);
    site.running.shutdown().await;
}

/// With TLS 1.3 a client hears of a refusal only when it reads.
async fn fails(connected: Result<Channel, tonic::transport::Error>) -> bool {
    match connected {
        Err(_) => true,
        Ok(channel) => matches!(status_call(channel).await, Code::Unavailable | Code::Unknown | Code::Internal),
    }
}

#[tokio::test]
async fn certificates_of_a_strange_authority_and_of_none_in_the_log_are_refused() {
    let rng = SystemRandom::new();
    let seal = SealKey::generate(&rng).expect("a key");
    // A bare seal key, as earlier versions had it, is taken over: so this test knows it.
    let site = common::site_with(|dir| {
        let path = dir.join("seal.key");
        std::fs::write(&path, seal.to_file().as_bytes()).expect("writes");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("closes");
    })
    .await;
    let address = site.running.grpc_address();
    let root = site.running.root_certificate();
    let now = UnixTime(now_s());
    let (strange, _) = Authority::create(&RootConfig::new("X", "Y"), &seal, now, &rng).expect("a root");
    // The same, signed with our root's stolen key: the log never issued it.
    let sealed = std::fs::read(site.dir.path().join("ca/root.key.sealed")).expect("the sealed root key");
    let stolen = Authority::open(&sallyport_ca::seal::Sealed::from_bytes(sealed), &seal, &root).expect("opens");
    for (authority, expected) in [(strange, None), (stolen, Some(Code::Unauthenticated))] {
        let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng).expect("a key");
        let subject = Subject::new("operator", Vec::new()).expect("a subject");
        let serial = Serial::generate(&rng).expect("a serial");
        let made =
            authority.issue(Profile::Operator, &subject, &key.public_key(), now, serial, &rng).expect("a certificate");
        let connected = common::connect(address, tls(&root, Some((&made.pem(), key.pkcs8_der())))).await;
        match expected {
            None => assert!(fails(connected).await),
            Some(code) => assert_eq!(status_call(connected.expect("TLS")).await, code),
        }
    }
    site.running.shutdown().await;
}

#[allow(clippy::disallowed_methods, reason = "certificates must be valid now")]
fn now_s() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_secs()).expect("a date")
}

#[tokio::test]
async fn machines_are_admitted_by_what_the_log_issued() {
    let site = site().await;
    let mut operator = site.operator().await;
    let mut gateway = site.gateway("gw1").await;
    let laptop = issue(&site.running, Profile::Machine, "laptop.example.com").await.record;
    let other = issue(&site.running, Profile::Operator, "olga").await.record;
    assert_eq!(gateway.admit(&laptop.serial, &laptop.fingerprint).await, Ok("laptop.example.com".into()));
    for (serial, fingerprint, cause) in [
        ("01aa", laptop.fingerprint.as_slice(), "no certificate with serial number 01aa"),
        (laptop.serial.as_str(), &[0; 32], "not the one that this authority issued"),
        (other.serial.as_str(), &other.fingerprint, "not a machine's"),
    ] {
        let refused = gateway.admit(serial, fingerprint).await.expect_err("refused");
        assert!(refused.0.contains(cause) && !refused.1.is_empty(), "{}", refused.0);
    }
    // A gateway that was taken over fills no memory with what it asks about.
    let endless = gateway.admit(&"a".repeat(1_000_000), &laptop.fingerprint).await.expect_err("refused");
    assert!(endless.0.len() < 1_000, "{}", endless.0.len());
    let longest = attempts(&mut operator).await.iter().map(|a| format!("{a:?}").len()).max();
    assert!(longest.is_some_and(|len| len < 4_096), "{longest:?}");
    let revoke = v1::RevokeCertificateRequest { serial: laptop.serial.clone(), reason: "stolen".into() };
    operator.revoke_certificate(revoke).await.expect("revokes");
    let refused = gateway.admit(&laptop.serial, &laptop.fingerprint).await.expect_err("refused");
    assert!(refused.0.contains("revoked: stolen"));
    let all = attempts(&mut operator).await;
    assert_eq!(all.len(), 5);
    assert!(all.iter().all(|a| a.phase() == v1::Phase::IkeMainMode && a.claimed_identity == "laptop.example.com"));
    site.running.shutdown().await;
}

/// What comes, on a machine however busy: a test that waits for what does not come fails.
async fn patiently<T>(what: &str, coming: impl Future<Output = T>) -> T {
    tokio::time::timeout(common::PATIENCE, coming).await.unwrap_or_else(|_| panic!("{what}: it does not come"))
}

async fn next(stream: &mut tonic::Streaming<v1::WatchPolicyResponse>) -> v1::watch_policy_response::Update {
    let update = async {
        loop {
            let message = stream.message().await.expect("the stream lives").expect("a message");
            match message.update.expect("an update") {
                v1::watch_policy_response::Update::KeepAlive(_) => {}
                update => return update,
            }
        }
    };
    patiently("an update of the stream", update).await
}

#[tokio::test]
async fn the_stream_brings_policy_kills_and_revocations_and_ends_with_the_certificate() {
    use v1::command::Action;
    use v1::watch_policy_response::Update;
    let site = site().await;
    let mut operator = site.operator().await;
    add_user(&mut operator, "ada", "open sesame").await;
    let mut gateway = site.gateway("gw1").await;
    let request = v1::WatchPolicyRequest { member: Some(gateway.member), ..Default::default() };
    let mut stream = gateway.client.watch_policy(request).await.expect("a stream").into_inner();
    let Update::Policy(policy) = next(&mut stream).await else { panic!("the policy comes first") };
    assert_eq!(policy.trusted_roots, [site.running.root_certificate()]);
    assert!(policy.psk.is_none() && policy.pools.is_empty());
    assert_eq!(policy.auth_methods, [i32::from(v1::AuthMethod::Mschapv2)]);

    add_pool(&mut operator, "office", "10.9.0.0/24").await;
    let Update::Policy(policy) = next(&mut stream).await else { panic!("a new policy") };
    assert_eq!(policy.pools[0].router, "10.9.0.1");
    let psk = || Some(v1::Secret::new("correct horse battery"));
    operator.set_psk(v1::SetPskRequest { psk: psk() }).await.expect("sets");
    let Update::Policy(policy) = next(&mut stream).await else { panic!("a new policy") };
    assert_eq!(policy.psk, psk());
    assert!(settings(&mut operator).await.psk_set);
    operator.clear_psk(v1::ClearPskRequest {}).await.expect("clears");
    let Update::Policy(policy) = next(&mut stream).await else { panic!("a new policy") };
    assert_eq!(policy.psk, None);

    let accept = gateway.login(Way::MsChapV2, "ada", "open sesame").await.expect("accepted");
    let prefix = &accept.session_id[..6];
    let kill = v1::KillSessionRequest { session_id: prefix.into(), reason: "maintenance".into() };
    let killed = operator.kill_session(kill).await.expect("kills").into_inner();
    assert_eq!(killed.session_id, accept.session_id);
    let Update::Command(command) = next(&mut stream).await else { panic!("a command") };
    let Some(Action::KillSession(kill)) = command.action else { panic!("a kill") };
    assert_eq!((kill.session_id, kill.text.as_str()), (accept.session_id.clone(), "maintenance"));
    gateway.report(&accept.session_id, v1::SessionState::Down).await;
    let sessions = operator.list_sessions(v1::ListSessionsRequest::default()).await.expect("sessions").into_inner();
    assert!(sessions.sessions.is_empty());

    let laptop = issue(&site.running, Profile::Machine, "laptop").await.record;
    let revoke = v1::RevokeCertificateRequest { serial: laptop.serial.clone(), reason: "stolen".into() };
    operator.revoke_certificate(revoke).await.expect("revokes");
    let Update::Command(command) = next(&mut stream).await else { panic!("a command") };
    let Some(Action::DropMachine(drop)) = command.action else { panic!("a drop") };
    assert_eq!((drop.certificate_serial, drop.text.as_str()), (laptop.serial, "stolen"));

    let revoke = v1::RevokeCertificateRequest { serial: gateway.issued.record.serial.clone(), reason: String::new() };
    operator.revoke_certificate(revoke).await.expect("revokes");
    let end = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("ended without a reason"),
            Err(status) => break status.code(),
        }
    };
    assert_eq!(end, Code::Unauthenticated);
    site.running.shutdown().await;
}

#[tokio::test]
async fn a_gateway_cannot_speak_for_another_or_for_its_own_past() {
    let site = site().await;
    let mut operator = site.operator().await;
    add_user(&mut operator, "ada", "open sesame").await;
    add_pool(&mut operator, "p", "10.9.0.0/24").await;
    let mut one = site.gateway("gw1").await;
    let mut two = site.gateway("gw2").await;
    let accept = one.login(Way::MsChapV2, "ada", "open sesame").await.expect("accepted");

    // Under the other's member, or about the other's session.
    let own = std::mem::replace(&mut two.member, one.member);
    let request = v1::HeartbeatRequest { member: Some(two.member), ..Default::default() };
    assert_eq!(two.client.heartbeat(request).await.expect_err("refused").code(), Code::FailedPrecondition);
    two.member = own;
    assert_eq!(two.report(&accept.session_id, v1::SessionState::Up).await, std::slice::from_ref(&accept.session_id));
    assert_eq!(two.report(&accept.session_id, v1::SessionState::Down).await, [""; 0]);
    let request = v1::RegisterRequest { name: "gw1".into(), boot_id: vec![9; 16], ..Default::default() };
    assert_eq!(two.client.register(request).await.expect_err("refused").code(), Code::PermissionDenied);
    let count = async |operator: &mut OperatorClient<Channel>| {
        operator.get_status(v1::GetStatusRequest {}).await.expect("status").into_inner().sessions
    };
    assert_eq!(count(&mut operator).await, 1);

    // A new process takes the place of the old one and of its sessions.
    let old = one.member;
    one.member = common::register(&mut one.client, "gw1", 2).await.member.expect("a member");
    assert_eq!((one.member.slot, one.member.epoch > old.epoch), (old.slot, true));
    assert_eq!(count(&mut operator).await, 0);
    let request = v1::HeartbeatRequest { member: Some(old), ..Default::default() };
    assert_eq!(one.client.heartbeat(request).await.expect_err("stale").code(), Code::FailedPrecondition);
    site.running.shutdown().await;
}

#[tokio::test]
async fn operators_manage_users_pools_and_certificates() {
    let site = site().await;
    let mut operator = site.operator().await;
    for i in 0..5 {
        add_user(&mut operator, &format!("User{i}"), "x").await;
    }
    let again = v1::AddUserRequest { name: "uSER1".into(), password: Some(v1::Secret::new("y")), ..Default::default() };
    assert_eq!(operator.add_user(again).await.expect_err("there").code(), Code::AlreadyExists);
    for (name, password) in [("", "x"), ("a\\b", "x"), (" a", "x"), ("a", ""), ("a\n", "x")] {
        let bad =
            v1::AddUserRequest { name: name.into(), password: Some(v1::Secret::new(password)), ..Default::default() };
        assert_eq!(operator.add_user(bad).await.expect_err("bad").code(), Code::InvalidArgument, "{name:?}");
    }
    let mut names = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListUsersRequest { page_size: 2, page_token, name_contains: "USER".into() };
        let page = operator.list_users(request).await.expect("users").into_inner();
        names.extend(page.users.into_iter().map(|u| u.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["User0", "User1", "User2", "User3", "User4"]);
    operator.remove_user(v1::RemoveUserRequest { name: "user0".into() }).await.expect("removes");
    let gone = operator.remove_user(v1::RemoveUserRequest { name: "user0".into() }).await.expect_err("gone");
    assert_eq!(gone.code(), Code::NotFound);

    let request = v1::AddPoolRequest { name: "p".into(), networks: vec!["10.0.0.1/8".into()], ..Default::default() };
    let error = operator.add_pool(request).await.expect_err("bad");
    assert!(error.message().contains("the network is 10.0.0.0/8"), "{}", error.message());
    add_pool(&mut operator, "p", "10.0.0.0/8").await;
    let remove = v1::RemovePoolRequest { name: "p".into(), force: false };
    operator.remove_pool(remove).await.expect("removes");

    let request = v1::IssueCertificateRequest {
        profile: v1::CertificateProfile::Machine.into(),
        name: "laptop.example.com".into(),
        sans: vec!["192.0.2.7".into(), "alias.example.com".into()],
        ..Default::default()
    };
    let issued = operator.issue_certificate(request.clone()).await.expect("issues").into_inner();
    let info = issued.info.expect("a record");
    assert_eq!(info.sans, ["laptop.example.com", "192.0.2.7", "alias.example.com"]);
    assert_eq!(info.key_algorithm(), v1::KeyAlgorithm::Rsa2048, "what native clients accept");
    let key = issued.private_key.expect("a key").into_inner();
    let key = KeyPair::from_pkcs8_der(&key).expect("PKCS #8");
    let certificate = sallyport_ca::Certificate::from_der(&issued.certificate).expect("a certificate");
    assert_eq!(certificate.spki_der(), key.public_key().spki_der());
    let [issuer, root] = issued.chain.as_slice() else { panic!("{} certificates above it", issued.chain.len()) };
    assert_eq!(*root, site.running.root_certificate());
    let issuer = sallyport_ca::Certificate::from_der(issuer).expect("a certificate");
    assert!(certificate.is_issued_by(&issuer) && info.issuer == 1);
    assert!(issuer.is_issued_by(&sallyport_ca::Certificate::from_der(root).expect("a certificate")));
    for (profile, name) in [
        (v1::CertificateProfile::Controller, "x"),
        (v1::CertificateProfile::Root, "x"),
        (v1::CertificateProfile::Issuing, "x"),
        (v1::CertificateProfile::Endpoint, "x.example.com"),
        (v1::CertificateProfile::Gateway, sallyport_proto::CONTROLLER_NAME),
    ] {
        let request = v1::IssueCertificateRequest { profile: profile.into(), name: name.into(), ..request.clone() };
        assert_eq!(operator.issue_certificate(request).await.expect_err("refused").code(), Code::InvalidArgument);
    }
    let person = v1::IssueCertificateRequest {
        profile: v1::CertificateProfile::User.into(),
        name: "ada@example.com".into(),
        ..Default::default()
    };
    let person = operator.issue_certificate(person).await.expect("issues").into_inner().info.expect("a record");
    assert_eq!((person.profile(), person.sans), (v1::CertificateProfile::User, vec!["ada@example.com".to_owned()]));
    let request = v1::ListCertificatesRequest { profile: v1::CertificateProfile::Machine.into(), ..Default::default() };
    let listed = operator.list_certificates(request).await.expect("certificates").into_inner().certificates;
    assert_eq!(listed, [info]);

    let mut stale = settings(&mut operator).await;
    change_settings(&mut operator, |s| s.idle_timeout_s = 60).await;
    stale.idle_timeout_s = 90;
    let request = v1::UpdateSettingsRequest { settings: Some(stale) };
    assert_eq!(operator.update_settings(request).await.expect_err("stale").code(), Code::Aborted);
    for (ike, esp, word) in [("aes256-sha256-modp768", "aes256gcm16", "modp768"), ("aes256-sha1-ecp256", "nul", "nul")]
    {
        let mut wrong = settings(&mut operator).await;
        let list = wrong.ike.get_or_insert_default();
        (list.ike_proposals, list.esp_proposals) = (vec![ike.into()], vec![esp.into()]);
        let request = v1::UpdateSettingsRequest { settings: Some(wrong) };
        let refused = operator.update_settings(request).await.expect_err("no proposal");
        assert!(refused.code() == Code::InvalidArgument && refused.message().contains(word), "{refused}");
    }
    site.running.shutdown().await;
}

#[tokio::test]
async fn everything_acknowledged_is_there_after_a_restart() {
    let site = site().await;
    let mut operator = site.operator().await;
    allow_all(&mut operator).await;
    add_user(&mut operator, "ada", "open sesame").await;
    add_pool(&mut operator, "p", "10.9.0.0/24").await;
    operator.set_psk(v1::SetPskRequest { psk: Some(v1::Secret::new("correct horse")) }).await.expect("sets");
    let mut gateway = site.gateway("gw1").await;
    let accept = gateway.login(Way::Chap, "ada", "open sesame").await.expect("accepted");
    gateway.report(&accept.session_id, v1::SessionState::Up).await;
    assert!(gateway.login(Way::Pap, "ada", "wrong").await.is_err());
    let (root, before) = (site.running.root_certificate(), attempts(&mut operator).await);

    let site = site.restart().await;
    assert_eq!(site.running.root_certificate(), root);
    let mut operator = site.operator().await;
    assert_eq!(attempts(&mut operator).await, before);
    let sessions = operator.list_sessions(v1::ListSessionsRequest::default()).await.expect("sessions").into_inner();
    assert_eq!(sessions.sessions[0].session_id, accept.session_id);
    // The gateway goes on where it was: same process, same place, same session.
    gateway.client = GatewayClient::new(site.channel(&gateway.issued).await.expect("TLS"));
    let registered = common::register(&mut gateway.client, "gw1", 1).await;
    assert_eq!(registered.member, Some(gateway.member));
    assert_eq!(registered.policy.expect("a policy").psk, Some(v1::Secret::new("correct horse")));
    for way in [Way::Pap, Way::Chap, Way::MsChapV2] {
        gateway.login(way, "ada", "open sesame").await.expect("accepted");
    }
    assert_eq!(gateway.report(&accept.session_id, v1::SessionState::Up).await, [""; 0]);
    site.running.shutdown().await;
}

#[tokio::test]
async fn metrics_and_health_are_shown() {
    let site = site().await;
    let mut operator = site.operator().await;
    add_user(&mut operator, "ada", "open sesame").await;
    add_pool(&mut operator, "office", "10.9.0.0/24").await;
    let mut gateway = site.gateway("gw1").await;
    gateway.login(Way::MsChapV2, "ada", "open sesame").await.expect("accepted");
    let _ = gateway.login(Way::MsChapV2, "ada", "wrong").await;
    let address = site.running.metrics_address().expect("an address");
    let text = get(address, "/metrics").await;
    for line in [
        "sallyport_controller_pool_addresses{kind=\"size\",pool=\"office\"} 253",
        "sallyport_controller_pool_addresses{kind=\"used\",pool=\"office\"} 1",
        "sallyport_controller_objects{kind=\"sessions\"} 1",
        "sallyport_controller_objects{kind=\"gateways_alive\"} 1",
        "sallyport_controller_authentications_total{method=\"mschapv2\",outcome=\"accepted\"} 1",
        "sallyport_controller_authentications_total{method=\"mschapv2\",outcome=\"wrong_password\"} 1",
        "sallyport_controller_rpcs_total{code=\"ok\",rpc=\"authenticate\"} 2",
        "sallyport_controller_raft{figure=\"is_leader\"} 1",
        "sallyport_controller_healthy 1",
    ] {
        assert!(text.contains(line), "no {line} in:\n{text}");
    }
    // What the rules for alerts ask for is there, by that name.
    let rules = include_str!("../../deploy/prometheus/alerts.yml");
    let asked = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect::<Vec<_>>();
    assert!(asked.len() >= 7, "{asked:?}");
    for series in asked.iter().flat_map(|expr| expr.split(['(', ')', ' '])).filter(|word| word.contains("_controller_"))
    {
        assert!(text.lines().any(|line| line.starts_with(series)), "no {series} in:\n{text}");
    }
    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get(address, "/etc/passwd").await.starts_with("HTTP/1.1 404"));
    site.running.shutdown().await;
}

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("asks");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

#[tokio::test]
async fn a_gateways_folder_is_made_once_and_kept() {
    let site = site().await;
    let dir = site.dir.path().join("gateway");
    let names = vec!["vpn.example.com".to_owned(), "192.0.2.1".to_owned()];
    let read = || {
        ["ca.pem", "grpc.pem", "grpc.key", "ike-rsa.pem", "ike-rsa.key", "ike-ecdsa.pem", "ike-ecdsa.key"]
            .map(|name| std::fs::read(dir.join(name)).expect("there"))
    };
    site.running.issue_gateway("gw1", &names, &dir).await.expect("makes");
    let first = read();
    site.running.issue_gateway("gw1", &names, &dir).await.expect("keeps");
    assert_eq!(read(), first);
    site.running.issue_gateway("gw1", &["other.example.com".to_owned()], &dir).await.expect("makes anew");
    assert_ne!(read()[3], first[3], "another public name");
    assert_eq!(read()[1], first[1], "the same gateway");
    assert!(site.running.issue_gateway("gw1", &[], &dir).await.is_err());
    site.running.shutdown().await;
}
