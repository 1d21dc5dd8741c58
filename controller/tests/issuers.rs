//! A root, and issuing authorities below it: made at the first start, or when a cluster of an earlier version rises.

mod common;
#[path = "issuers/root.rs"]
mod root;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::{Site, issue, site_with, tls};
use sallyport_ca::seal::{SealKey, Sealed};
use sallyport_ca::{Authority, Certificate, KeyAlgorithm, KeyPair, Profile, Serial, Subject, SystemRandom, UnixTime};
use sallyport_controller::{Config, Controller, Formation, IssueRequest, Issued, Running, Software, Start};
use sallyport_proto::v1;
use tonic::Code;

async fn start(config: Config, dir: &Path, level: u32) -> Running {
    let software = Software { level, ..Software::current() };
    Controller::start_as(config, dir, Start { software, ..Start::new(Formation::Found) }).await.expect("starts")
}

async fn of_kind(running: &Running, key: KeyAlgorithm) -> Issued {
    let name = "laptop.example.com".into();
    let request = IssueRequest { profile: Profile::Machine, name, sans: Vec::new(), key, days: 0 };
    running.issue(request).await.expect("issues")
}

/// The issuing authorities on record, by serial number.
async fn on_record(site: &Site) -> Vec<String> {
    let request = v1::ListCertificatesRequest { profile: v1::CertificateProfile::Issuing.into(), ..Default::default() };
    let answer = site.operator().await.list_certificates(request).await.expect("answers").into_inner();
    answer.certificates.into_iter().map(|c| c.serial).collect()
}

fn certificate(der: &[u8]) -> Certificate {
    Certificate::from_der(der).expect("a certificate")
}

#[tokio::test]
async fn the_first_start_makes_the_configured_authorities_and_a_certificate_comes_from_the_one_of_its_kind() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut config = common::config();
    config.authority.issuing = vec![KeyAlgorithm::EcdsaP384, KeyAlgorithm::Rsa2048];
    let running = Controller::start(config.clone(), dir.path()).await.expect("starts");
    let (elliptic, rsa) =
        (of_kind(&running, KeyAlgorithm::EcdsaP256).await, of_kind(&running, KeyAlgorithm::Rsa2048).await);
    assert_eq!((elliptic.record.issuer, rsa.record.issuer), (1, 2));
    for (issued, subject) in
        [(&elliptic, "O=Sallyport, CN=Sallyport Issuing 1"), (&rsa, "O=Sallyport, CN=Sallyport Issuing 2")]
    {
        let [issuer, root] = issued.chain.as_slice() else { panic!("{} above", issued.chain.len()) };
        assert_eq!(certificate(issuer).subject, subject);
        assert!(certificate(&issued.certificate).is_issued_by(&certificate(issuer)));
        assert!(certificate(issuer).is_issued_by(&certificate(root)));
        assert_eq!(*root, running.root_certificate());
    }
    for (name, certificates) in [("controller/cert.pem", 2), ("operator/cert.pem", 2), ("operator/ca.pem", 1)] {
        let text = std::fs::read(dir.path().join(name)).expect("there");
        assert_eq!(sallyport_ca::pem::certificates(&text).expect("PEM").len(), certificates, "{name}");
    }
    let site = Site { dir, running };
    let before = on_record(&site).await;
    assert_eq!(before.len(), 2);
    // A restart makes none anew, whatever the configuration says by then.
    let site = site.restart().await;
    assert_eq!(on_record(&site).await, before);
    assert_eq!(of_kind(&site.running, KeyAlgorithm::Rsa2048).await.record.issuer, 2);
    site.running.shutdown().await;
}

#[tokio::test]
async fn a_cluster_of_an_earlier_version_gets_its_issuing_authority_once_and_what_the_root_issued_stays_good() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let running = start(common::config(), dir.path(), 5).await;
    let old = issue(&running, Profile::GatewayLink, "gw1").await;
    assert_eq!((old.record.issuer, old.chain.len()), (0, 1), "the root issues");
    let site = Site { dir, running };
    assert!(on_record(&site).await.is_empty());
    let Site { dir, running } = site;
    running.shutdown().await;

    let mut site = Site { running: start(common::config(), dir.path(), sallyport_controller::LEVEL).await, dir };
    let looking = async {
        loop {
            let made = on_record(&site).await;
            if !made.is_empty() {
                return made;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let made = tokio::time::timeout(common::PATIENCE, looking).await.expect("the leader makes one by itself");
    assert_eq!(made.len(), 1);
    let new = issue(&site.running, Profile::GatewayLink, "gw2").await;
    assert_eq!((new.record.issuer, new.chain.len()), (1, 2));
    for issued in [&old, &new] {
        let name = &issued.record.name;
        let mut client = v1::gateway_client::GatewayClient::new(site.channel(issued).await.expect("connects"));
        common::register(&mut client, name, 1).await;
    }
    for _ in 0..2 {
        site = site.restart().await;
        assert_eq!(on_record(&site).await, made);
    }
    site.running.shutdown().await;
}

#[tokio::test]
async fn with_an_issuing_authoritys_stolen_key_alone_nobody_is_let_in() {
    let (rng, seal) = (SystemRandom::new(), SealKey::generate(&SystemRandom::new()).expect("a key"));
    // A bare seal key, as earlier versions had it, is taken over: so this test knows it.
    let site = site_with(|dir| {
        let path = dir.join("seal.key");
        std::fs::write(&path, seal.to_file().as_bytes()).expect("writes");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("closes");
    })
    .await;
    let operator = issue(&site.running, Profile::Operator, "olga").await;
    let sealed = std::fs::read(site.dir.path().join("ca/issuing-1.key.sealed")).expect("the sealed key");
    let stolen = Authority::open(&Sealed::from_bytes(sealed), &seal, &operator.chain[0]).expect("opens");
    let now = UnixTime(operator.record.issued_ms as i64 / 1_000);
    let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng).expect("a key");
    let status = async |serial: Serial| {
        let subject = Subject::new("olga", Vec::new()).expect("a subject");
        let made = stolen.issue(Profile::Operator, &subject, &key.public_key(), now, serial, &rng).expect("signs");
        let shown = common::shown(made.der(), &operator.chain);
        let tls = tls(&site.running.root_certificate(), Some((&shown, key.pkcs8_der())));
        let channel = common::connect(site.running.grpc_address(), tls).await.expect("the chain is good");
        let mut client = v1::operator_client::OperatorClient::new(channel);
        client.get_status(v1::GetStatusRequest {}).await.map_or_else(|s| s.code(), |_| Code::Ok)
    };
    assert_eq!(status(Serial::generate(&rng).expect("random")).await, Code::Unauthenticated, "never issued");
    let present: Serial = operator.record.serial.parse().expect("a serial number");
    assert_eq!(status(present).await, Code::Unauthenticated, "a number that was issued, in another certificate");
    site.running.shutdown().await;
}

#[tokio::test]
async fn an_operator_adds_replaces_and_retires_issuing_authorities_and_what_they_issued_stays_good() {
    let site = common::site().await;
    let mut operator = site.operator().await;
    let list = async || {
        let request = v1::ListAuthoritiesRequest {};
        site.operator().await.list_authorities(request).await.expect("lists").into_inner().authorities
    };
    let add = |key: v1::KeyAlgorithm, replace| v1::AddIssuerRequest {
        key_algorithm: key.into(),
        replace,
        ..Default::default()
    };
    let [root, first] = list().await.try_into().expect("a root and an issuing authority");
    assert!(root.is_root && root.has_key && root.certificate == site.running.root_certificate());
    assert!(
        !first.is_root && first.has_key && (first.number, first.root, first.retired_unix_ms) == (1, root.number, 0)
    );
    assert!(first.certificates >= 2, "the controller's and the operator's: {}", first.certificates);
    let old = issue(&site.running, Profile::Operator, "olga").await;

    let twice = operator.add_issuer(add(v1::KeyAlgorithm::EcdsaP256, false)).await.expect_err("there is one");
    assert!(twice.message().contains("--replace"), "{twice}");
    let only = operator
        .retire_issuer(v1::RetireIssuerRequest { number: 1, compromised: false })
        .await
        .expect_err("the only one");
    assert_eq!(only.code(), Code::FailedPrecondition, "{only}");
    let none = operator.add_issuer(add(v1::KeyAlgorithm::Unspecified, false)).await.expect_err("of which kind?");
    assert_eq!(none.code(), Code::InvalidArgument);
    let made = operator.add_issuer(add(v1::KeyAlgorithm::Rsa2048, false)).await.expect("another kind").into_inner();
    assert_eq!(made.number, 2);
    let made = operator.add_issuer(add(v1::KeyAlgorithm::EcdsaP256, true)).await.expect("in its place").into_inner();
    assert_eq!(made.number, 3);
    assert_eq!(of_kind(&site.running, KeyAlgorithm::Rsa2048).await.record.issuer, 2);
    let new = issue(&site.running, Profile::Operator, "otto").await;
    assert_eq!((old.record.issuer, new.record.issuer), (1, 3));
    let states: Vec<(u64, bool)> =
        list().await.iter().filter(|a| !a.is_root).map(|a| (a.number, a.retired_unix_ms == 0)).collect();
    assert_eq!(states, [(1, false), (2, true), (3, true)]);
    // Both let their owner in, and gateways know all of them.
    for issued in [&old, &new] {
        let channel = site.channel(issued).await.expect("connects");
        let mut client = v1::operator_client::OperatorClient::new(channel);
        client.get_status(v1::GetStatusRequest {}).await.expect("answers");
    }
    let link = issue(&site.running, Profile::GatewayLink, "gw1").await;
    let mut gateway = v1::gateway_client::GatewayClient::new(site.channel(&link).await.expect("connects"));
    let policy = common::register(&mut gateway, "gw1", 1).await.policy.expect("a policy");
    assert_eq!((policy.trusted_roots.len(), policy.issuers.len()), (1, 3));
    operator.retire_issuer(v1::RetireIssuerRequest { number: 3, compromised: false }).await.expect("there is another");
    assert_eq!(issue(&site.running, Profile::Operator, "ottilie").await.record.issuer, 2, "whose kind is another");
    site.running.shutdown().await;
}
