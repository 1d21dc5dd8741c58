use std::time::Duration;

use sallyport_ca::{KeyAlgorithm, KeyPair, Profile, SystemRandom};

use super::*;
use crate::app::Running;
use crate::app::tests::controller;
use crate::authority::{IssueRequest, Issued};
use crate::clock::Clock;
use crate::state::{Action, CreateEnrollToken, Outcome, RevokeCertificate};

struct Site {
    _dir: tempfile::TempDir,
    running: Running,
    clock: Clock,
}

impl Site {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (running, clock) = controller(dir.path()).await;
        Self { _dir: dir, running, clock }
    }

    fn core(&self) -> &Arc<Core> {
        self.running.core()
    }

    async fn issue(&self, profile: Profile, name: &str, sans: &[&str]) -> Issued {
        let sans = sans.iter().map(|s| (*s).to_owned()).collect();
        let request = IssueRequest { profile, name: name.into(), sans, key: KeyAlgorithm::EcdsaP256, days: 0 };
        self.running.issue(request).await.expect("issues")
    }

    async fn done(&self, action: Action) {
        let reply = self.core().propose(action).await.expect("proposes");
        assert!(matches!(reply.outcome, Some(Outcome::Done(_))), "{reply:?}");
    }

    async fn ask(&self, asked: Asked, key: &KeyPair) -> Result<Certificate, RefusalKind> {
        self.ask_with(asked, &csr(key)).await
    }

    async fn ask_with(&self, asked: Asked, csr: &[u8]) -> Result<Certificate, RefusalKind> {
        match for_gateway(self.core(), asked, csr, IpAddr::from([192, 0, 2, 9])).await.expect("decides") {
            Enrolled::Issued { certificate, .. } => Ok(Certificate::from_der(&certificate).expect("a certificate")),
            Enrolled::Refused(refusal) => Err(refusal.kind),
            Enrolled::Waiting => panic!("waits"),
            Enrolled::Invalid(text) => panic!("{text}"),
        }
    }

    async fn end(self) {
        self.running.shutdown().await;
    }
}

fn key() -> KeyPair {
    KeyPair::generate(KeyAlgorithm::EcdsaP256, &SystemRandom::new()).expect("a key")
}

/// Whatever it calls itself.
fn csr(key: &KeyPair) -> Vec<u8> {
    key.request("bank.example.com", None, &SystemRandom::new()).expect("a request").to_vec()
}

fn calling(link: &Issued, purpose: v1::GatewayPurpose, present: Option<v1::Possession>) -> Asked {
    Asked::Calling { link: link.record.serial.clone(), purpose, present }
}

/// Somebody with `by` says that he holds the key of a certificate, for this request.
fn possession(of: &Issued, by: &KeyPair, purpose: v1::GatewayPurpose, csr: &[u8]) -> v1::Possession {
    let signature = by.sign(&sallyport_proto::possession::input(purpose, csr), &SystemRandom::new()).expect("signs");
    v1::Possession { certificate: of.certificate.clone(), signature }
}

fn own(issued: &Issued) -> KeyPair {
    KeyPair::from_pkcs8_der(&issued.private_key).expect("a key")
}

#[tokio::test]
async fn a_gateway_has_what_its_record_says_and_no_name_of_its_request() {
    let site = Site::new().await;
    let link = site.issue(Profile::GatewayLink, "gw1.example.com", &[]).await;
    let other = site.issue(Profile::Gateway, "vpn.example.com", &["192.0.2.1"]).await;
    let (link_key, ike_key) = (key(), key());
    let renewed = site.ask(calling(&link, v1::GatewayPurpose::Link, None), &link_key).await.expect("renews");
    assert!(renewed.subject.contains("CN=gw1.example.com"), "{}", renewed.subject);
    let again = site.ask(calling(&link, v1::GatewayPurpose::Link, None), &link_key).await.expect("the same");
    assert_eq!(renewed.serial, again.serial, "the answer was lost");

    // The names of a certificate are for whoever holds its key.
    let csr = csr(&ike_key);
    let ike = v1::GatewayPurpose::Ike;
    for (by, purpose) in [(key(), ike), (own(&other), v1::GatewayPurpose::Link)] {
        let wrong = calling(&link, ike, Some(possession(&other, &by, purpose, &csr)));
        assert_eq!(site.ask_with(wrong, &csr).await.err(), Some(RefusalKind::Unproven));
    }
    let right = calling(&link, ike, Some(possession(&other, &own(&other), ike, &csr)));
    let certificate = site.ask_with(right, &csr).await.expect("follows");
    let recorded = site.core().node.shared().read().certificates.get(&certificate.serial.to_string()).cloned();
    assert_eq!(recorded.expect("recorded").sans, ["vpn.example.com", "192.0.2.1"]);
    assert!(certificate.names_host("vpn.example.com") && !certificate.names_host("bank.example.com"));

    let laptop = site.issue(Profile::Machine, "laptop7.example.com", &[]).await;
    assert_eq!(site.ask(calling(&laptop, ike, None), &key()).await.err(), Some(RefusalKind::Unproven));
    site.done(Action::RevokeCertificate(RevokeCertificate {
        serial: link.record.serial.clone(),
        reason: "stolen".into(),
    }))
    .await;
    assert_eq!(
        site.ask(calling(&link, v1::GatewayPurpose::Link, None), &key()).await.err(),
        Some(RefusalKind::Revoked)
    );
    let text = String::from_utf8(site.core().metrics.render(site.core()).expect("renders")).expect("text");
    assert!(text.contains("gateways_overdue"), "{text}");
    site.end().await;
}

#[tokio::test]
async fn a_link_that_has_ended_is_renewed_by_its_key_alone() {
    let site = Site::new().await;
    let link = site.issue(Profile::GatewayLink, "gw1.example.com", &[]).await;
    site.clock.advance(Duration::from_secs(91 * 86_400));
    let fresh = key();
    let request = csr(&fresh);
    let late = |by: &KeyPair| Asked::Late(possession(&link, by, v1::GatewayPurpose::Link, &request));
    let called = site.ask(calling(&link, v1::GatewayPurpose::Link, None), &fresh).await;
    assert_eq!(called.err(), Some(RefusalKind::Ended));
    assert_eq!(site.ask_with(late(&key()), &request).await.err(), Some(RefusalKind::Unproven), "without the key");
    let renewed = site.ask_with(late(&own(&link)), &request).await.expect("renews");
    assert!(renewed.subject.contains("CN=gw1.example.com"), "{}", renewed.subject);
    site.clock.advance(Duration::from_secs(31 * 86_400));
    let request = csr(&key());
    let late = Asked::Late(possession(&link, &own(&link), v1::GatewayPurpose::Link, &request));
    assert_eq!(site.ask_with(late, &request).await.err(), Some(RefusalKind::Ended), "too late");
    site.end().await;
}

#[tokio::test]
async fn a_token_for_a_gateway_is_used_once_and_says_who_it_is() {
    let site = Site::new().await;
    let root = site.core().root().fingerprint.0;
    let token = EnrollToken::generate(root, "", &SystemRandom::new()).expect("a token");
    site.done(Action::CreateEnrollToken(CreateEnrollToken {
        id: token.id.to_vec(),
        hash: token.hash().to_vec(),
        profile: "gateway-link".into(),
        name: "gw7.example.com".into(),
        ttl_ms: 3_600_000,
        uses: 1,
        ..CreateEnrollToken::default()
    }))
    .await;
    let shown = || Asked::Token(token.to_text());
    let first = key();
    let certificate = site.ask(shown(), &first).await.expect("enrolls");
    assert!(certificate.subject.contains("CN=gw7.example.com"), "{}", certificate.subject);
    assert_eq!(site.ask(shown(), &first).await.expect("the same").serial, certificate.serial);
    assert_eq!(site.ask(shown(), &key()).await.err(), Some(RefusalKind::UsedUp));
    let none = Asked::Token(Zeroizing::new("spt1.nothing".into()));
    assert_eq!(site.ask(none, &key()).await.err(), Some(RefusalKind::Unproven));
    site.end().await;
}

#[tokio::test]
async fn what_nobody_made_is_refused_before_its_request_is_looked_at() {
    let site = Site::new().await;
    let unknown = EnrollToken::generate([7; 32], "", &SystemRandom::new()).expect("a token").to_text();
    assert_eq!(site.ask_with(Asked::Token(unknown), b"junk").await.err(), Some(RefusalKind::Unproven));
    let foreign = key();
    let der = foreign.self_signed("x", sallyport_ca::UnixTime(1), Duration::from_secs(60), &SystemRandom::new());
    let shown = |certificate| v1::Possession { certificate, signature: vec![1; 70] };
    for certificate in [der.expect("a certificate"), vec![0x30; 9_000], b"junk".to_vec()] {
        assert_eq!(site.ask_with(Asked::Late(shown(certificate)), b"junk").await.err(), Some(RefusalKind::Unproven));
    }
    site.end().await;
}
