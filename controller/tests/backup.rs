//! A backup is made over gRPC, and a new controller goes on with it.

mod common;
#[path = "backup/log.rs"]
mod log;

use std::fs;
use std::path::Path;

use common::{Site, TestGateway, Way, add_pool, add_user, allow_all, create_backup, issue, site};
use sallyport_ca::verify::{CertPayload, IkeId, PeerRole, TrustStore, verify_peer};
use sallyport_ca::{Profile, UnixTime};
use sallyport_controller::backup::{self, Lock, Secret};
use sallyport_controller::{Clock, Config, Controller, Engine, Issued, StorageConfig, UnsealConfig, UnsealMethod};
use sallyport_proto::v1;
use sallyport_proto::v1::gateway_client::GatewayClient;
use sallyport_proto::v1::operator_client::OperatorClient;
use tonic::Code;
use tonic::transport::Channel;
use zeroize::Zeroizing;

const PASSWORD: &str = "Kaleidoskop-4711-Ada";
const PASSPHRASE: &[u8] = b"correct horse battery staple";

fn quiet(_done: u64, _all: u64) {}

fn secret() -> Secret {
    Secret::Passphrase(Zeroizing::new(PASSPHRASE.to_vec()))
}

fn lock() -> Lock {
    Lock::passphrase(Zeroizing::new(PASSPHRASE.to_vec())).expect("long enough")
}

/// A site with a user, a pool, certificates (one of them revoked), a pre-shared key, and a session that is up.
struct Busy {
    site: Site,
    gateway: TestGateway,
    laptop: Issued,
    stolen: Issued,
    session: String,
}

async fn busy() -> Busy {
    let site = site().await;
    let mut operator = site.operator().await;
    // What the controller records by itself is there before anything is counted.
    let looking = async {
        let of_endpoint = |c: &v1::CertificateInfo| c.profile() == v1::CertificateProfile::Endpoint;
        while !certificates(&mut operator).await.iter().any(of_endpoint) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(common::PATIENCE, looking).await.expect("the endpoint has a certificate");
    allow_all(&mut operator).await;
    add_user(&mut operator, "ada", PASSWORD).await;
    add_pool(&mut operator, "p", "10.9.0.0/24").await;
    operator.set_psk(v1::SetPskRequest { psk: Some(v1::Secret::new("Sonnenblume-2342")) }).await.expect("sets");
    let laptop = issue(&site.running, Profile::Machine, "laptop.example.com").await;
    let stolen = issue(&site.running, Profile::Machine, "stolen.example.com").await;
    let serial = stolen.record.serial.clone();
    operator
        .revoke_certificate(v1::RevokeCertificateRequest { serial, reason: "stolen".into() })
        .await
        .expect("revokes");
    let mut gateway = site.gateway("gw1").await;
    let accept = gateway.login(Way::MsChapV2, "ada", PASSWORD).await.expect("accepted");
    let session = accept.session_id;
    gateway.report(&session, v1::SessionState::Up).await;
    Busy { site, gateway, laptop, stolen, session }
}

async fn certificates(operator: &mut OperatorClient<Channel>) -> Vec<v1::CertificateInfo> {
    let request = v1::ListCertificatesRequest { page_size: 1_000, ..Default::default() };
    operator.list_certificates(request).await.expect("lists").into_inner().certificates
}

async fn sessions(operator: &mut OperatorClient<Channel>) -> usize {
    let request = v1::ListSessionsRequest { page_size: 1_000, ..Default::default() };
    operator.list_sessions(request).await.expect("lists").into_inner().sessions.len()
}

fn config(engine: Engine) -> Config {
    let mut config = common::config();
    config.storage = StorageConfig { engine, ..config.storage };
    config
}

async fn a_restored_cluster_goes_on(engine: Engine) {
    let Busy { site, mut gateway, laptop, stolen, session } = busy().await;
    let mut operator = site.operator().await;
    let mut witness = log::Witness::new(&site.running.root_certificate());
    witness.begin(&mut gateway).await;
    let backups = tempfile::tempdir().expect("temporary folder");
    let file = backups.path().join("b");
    create_backup(&mut operator, &file, &lock()).await;
    let before = certificates(&mut operator).await;
    let root = site.running.root_certificate();
    // What happens now is not in it.
    add_user(&mut operator, "bob", PASSWORD).await;
    let later = issue(&site.running, Profile::Machine, "later.example.com").await;
    witness.grows(&mut gateway).await;
    let identity = ["cert.pem", "key.pem", "ca.pem"].map(|n| fs::read(site.dir.path().join("operator").join(n)));
    drop(operator);
    site.running.shutdown().await;

    let contents = backup::verify(&file, &secret(), &mut quiet).expect("good");
    assert_eq!((contents.users, contents.pools, contents.sessions, contents.gateways), (1, 1, 1, 1));
    assert_eq!((contents.certificates, contents.revoked, contents.psk), (before.len(), 1, true));
    assert_eq!(contents.roots.len(), 1);
    assert_eq!(contents.roots[0].fingerprint, sallyport_ca::Fingerprint::of(&root).0);
    assert_eq!(contents.last_certificate, before.len() as u64 + 1, "issued ones and one revocation");

    let dir = tempfile::tempdir().expect("temporary folder");
    let state = dir.path().join("state");
    let clock = Clock::system();
    let restored = backup::restore(&file, &secret(), &state, &config(engine), &clock, &mut quiet).await;
    assert_eq!(restored.expect("restores"), contents);
    assert!(!state.join("seal.key").exists() && !state.join(".restoring").exists());
    let running = Controller::start(config(engine), &state).await.expect("starts");
    assert_eq!(running.root_certificate(), root);
    // The operator of the old site still is one.
    for (name, contents) in ["cert.pem", "key.pem", "ca.pem"].into_iter().zip(identity) {
        fs::write(state.join("operator").join(name), contents.expect("read")).expect("writes");
    }
    let mut operator = common::operator(&state, running.grpc_address()).await;
    let users = operator.list_users(v1::ListUsersRequest::default()).await.expect("lists").into_inner().users;
    assert_eq!(users.iter().map(|u| u.name.as_str()).collect::<Vec<_>>(), ["ada"]);
    assert_eq!(sessions(&mut operator).await, 0);
    let ended = common::attempts(&mut operator).await;
    assert!(ended.iter().any(|a| a.session_id == session && a.cause.contains("restored from a backup")), "{ended:?}");
    let psk = operator.get_settings(v1::GetSettingsRequest {}).await.expect("settings").into_inner().settings;
    assert!(psk.is_some_and(|s| s.psk_set_unix_ms != 0));

    // Certificates: the good one verifies, the revoked one is refused, the one that is not on record, too.
    let now = UnixTime(i64::try_from(clock.unix_ms() / 1_000).expect("a time"));
    let mut trust = TrustStore::new();
    trust.add_anchor_der(&root).expect("an anchor");
    trust.add_intermediate_der(&laptop.chain[0]).expect("an issuing authority");
    let received = [CertPayload { encoding: 4, data: &laptop.certificate }];
    let id = IkeId { id_type: 2, data: b"laptop.example.com" };
    verify_peer(&trust, &received, Some(id), PeerRole::Machine, now).expect("verifies");
    let site = Site { dir, running };
    gateway.client = GatewayClient::new(site.channel(&gateway.issued).await.expect("connects"));
    let heartbeat = v1::HeartbeatRequest { member: Some(gateway.member), ..Default::default() };
    let stale = gateway.client.heartbeat(heartbeat).await.expect_err("it must register again");
    assert_eq!(stale.code(), Code::FailedPrecondition, "{stale}");
    let old_epoch = gateway.member.epoch;
    gateway.member = common::register(&mut gateway.client, "gw1", 1).await.member.expect("a member");
    assert!(gateway.member.epoch > old_epoch + 1_000, "nobody was given this epoch after the backup");
    witness.finds_the_restore(&mut gateway, &mut operator).await;
    let admitted = gateway.admit(&laptop.record.serial, &laptop.record.fingerprint).await;
    assert_eq!(admitted.expect("admitted"), "laptop.example.com");
    for refused in [&stolen, &later] {
        let record = &refused.record;
        assert!(gateway.admit(&record.serial, &record.fingerprint).await.is_err(), "{}", record.name);
    }

    // Old passwords, by every protocol; the address is free again.
    for way in [Way::Pap, Way::Chap, Way::MsChapV2] {
        gateway.login(way, "ada", PASSWORD).await.expect("accepted");
        gateway.login(way, "ada", "wrong").await.expect_err("refused");
    }

    // The authority signs and numbers on: no serial and no number comes twice.
    let next = issue(&site.running, Profile::Machine, "next.example.com").await;
    assert!(
        next.record.number > contents.last_certificate,
        "{} after {}",
        next.record.number,
        contents.last_certificate
    );
    let mut trust = TrustStore::new();
    trust.add_anchor_der(&root).expect("an anchor");
    trust.add_intermediate_der(&laptop.chain[0]).expect("an issuing authority");
    let received = [CertPayload { encoding: 4, data: &next.certificate }];
    let id = IkeId { id_type: 2, data: b"next.example.com" };
    verify_peer(&trust, &received, Some(id), PeerRole::Machine, now).expect("verifies");
    let after = certificates(&mut operator).await;
    for old in &before {
        let same = after.iter().find(|c| c.serial == old.serial).expect("still there");
        assert_eq!((&same.fingerprint, same.issued_unix_ms), (&old.fingerprint, old.issued_unix_ms));
        let controller = old.profile() == v1::CertificateProfile::Controller;
        assert_eq!(same.revoked_unix_ms != 0, old.revoked_unix_ms != 0 || controller, "{old:?}");
    }

    // And it starts again, with a snapshot in its past.
    drop((operator, gateway));
    let Site { dir, running } = site;
    running.shutdown().await;
    let running = Controller::start(config(engine), &state).await.expect("starts again");
    assert_eq!(running.root_certificate(), root);
    running.shutdown().await;
    drop(dir);
}

#[tokio::test]
async fn a_backup_gives_back_users_certificates_and_the_authority() {
    for engine in Engine::ALL {
        a_restored_cluster_goes_on(engine).await;
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .expect("lists")
        .map(|e| e.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_restore_that_cannot_be_leaves_nothing_behind() {
    let site = site().await;
    let mut operator = site.operator().await;
    let dir = tempfile::tempdir().expect("temporary folder");
    let file = dir.path().join("b");
    create_backup(&mut operator, &file, &lock()).await;
    let good = fs::read(&file).expect("reads");
    let state = dir.path().join("state");
    let clock = Clock::system();
    let restore = async |secret: &Secret, config: &Config| {
        let restored = backup::restore(&file, secret, &state, config, &clock, &mut quiet).await;
        restored.map(drop).map_err(|e| e.to_string())
    };
    let sled = config(Engine::Sled);

    let wrong = Secret::Passphrase(Zeroizing::new(b"wrong horse battery staple".to_vec()));
    assert!(restore(&wrong, &sled).await.is_err_and(|e| e.contains("the passphrase is wrong")));
    fs::write(&file, &good[..good.len() - 1]).expect("writes");
    assert!(restore(&secret(), &sled).await.is_err_and(|e| e.contains("cut off")));
    fs::write(&file, &good).expect("writes");
    assert!(!state.exists());

    // A folder that is in use, if only by one file.
    fs::create_dir(&state).expect("makes");
    fs::write(state.join("mine"), "here").expect("writes");
    assert!(restore(&secret(), &sled).await.is_err_and(|e| e.contains("not empty")));
    assert_eq!(names(&state), ["mine"]);
    fs::remove_file(state.join("mine")).expect("removes");

    // A node key that cannot be made: what was begun is taken back.
    let key_file = dir.path().join("no such disk/node.key");
    let mut elsewhere = config(Engine::Sled);
    elsewhere.unseal = UnsealConfig { key_file, ..UnsealConfig::default() };
    restore(&secret(), &elsewhere).await.expect_err("no such folder");
    assert_eq!(names(&state), Vec::<String>::new());
    // And one that is made before something else fails.
    let mut blocked = config(Engine::Sled);
    blocked.unseal = UnsealConfig { method: UnsealMethod::Passphrase, ..UnsealConfig::default() };
    blocked.unseal.passphrase_file = dir.path().join("none");
    restore(&secret(), &blocked).await.expect_err("no such file");
    assert_eq!(names(&state), Vec::<String>::new());

    // What a restore left that was killed is no state, and no obstacle to the next.
    for part in [".restoring/raft/store", "raft/store"] {
        fs::create_dir_all(state.join(part)).expect("makes");
    }
    fs::write(state.join("node.key"), "11".repeat(32)).expect("writes");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(state.join("node.key"), mode).expect("closes");
    let error = Controller::start(config(Engine::Sled), &state).await.expect_err("refuses").to_string();
    assert!(error.contains("cut short"), "{error}");
    restore(&secret(), &sled).await.expect("restores");
    assert_eq!(names(&state), ["node.key", "raft", "seal.sealed"]);
    let running = Controller::start(config(Engine::Sled), &state).await.expect("starts");
    running.shutdown().await;
    assert!(restore(&secret(), &sled).await.is_err_and(|e| e.contains("not empty")));
    site.running.shutdown().await;
}

#[tokio::test]
async fn only_an_operator_gets_a_backup_and_only_one_at_a_time() {
    let site = site().await;
    let request = || v1::CreateBackupRequest { public_key: vec![9; 32] };
    for profile in [Profile::Machine, Profile::GatewayLink] {
        let issued = issue(&site.running, profile, "other.example.com").await;
        let mut client = OperatorClient::new(site.channel(&issued).await.expect("TLS"));
        let refused = client.create_backup(request()).await.expect_err("refused");
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    }
    let mut operator = site.operator().await;
    for key in [Vec::new(), vec![9; 31], vec![0; 32]] {
        let refused = operator.create_backup(v1::CreateBackupRequest { public_key: key }).await.expect_err("refused");
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    // More state than fits into what is on its way: the first stays unfinished for as long as nobody reads it.
    let mut gateway = site.gateway("gw1").await;
    for _ in 0..8 {
        let text = "x".repeat(512);
        let attempt = v1::Attempt { cause: text.clone(), remedy: text, ..Default::default() };
        let attempts = (0..1_000).map(|_| v1::Attempt { id: gateway.id(), ..attempt.clone() }).collect();
        let request = v1::ReportAttemptsRequest { member: Some(gateway.member), attempts };
        gateway.client.report_attempts(request).await.expect("reports");
    }
    let first = operator.create_backup(request()).await.expect("begins");
    let second = operator.create_backup(request()).await.expect_err("refused");
    assert_eq!(second.code(), Code::ResourceExhausted, "{second}");
    drop(first);
    site.running.shutdown().await;
}
