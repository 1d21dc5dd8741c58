//! A machine whose certificate was issued after the backup was made that the controllers are restored from: nobody knows it, and
//! nobody calls it a thief.

use sallyport_ca::Certificate;
use sallyport_controller::backup::{self, Lock, Secret};
use sallyport_controller::{Clock, Controller};
use sallyport_proto::v1;
use sallyport_proto::v1::admit_peer_response::Decision;
use zeroize::Zeroizing;

use super::enrollment;
use super::est::{Place, change};
use super::status::has;
use crate::common::{self, Site, TestGateway, attempts};

const PASSPHRASE: &[u8] = b"correct horse battery staple";
const NAME: &str = "laptop7.example.com";

/// What a gateway is told of a certificate whose chain and signature it found good, with what it says of its beginning.
async fn judged(gateway: &mut TestGateway, certificate: &Certificate, from_s: i64) -> Decision {
    let request = v1::AdmitPeerRequest {
        member: Some(gateway.member),
        request_id: gateway.id(),
        certificate_serial: certificate.serial.to_string(),
        fingerprint: certificate.fingerprint.0.to_vec(),
        subject: certificate.subject.clone(),
        remote: "198.51.100.7:500".into(),
        claimed_identity: NAME.into(),
        not_before_unix_ms: u64::try_from(from_s).expect("a date") * 1_000,
    };
    gateway.client.admit_peer(request).await.expect("an answer").into_inner().decision.expect("a decision")
}

fn refused(decision: Decision) -> v1::PeerRefused {
    let Decision::Refused(refused) = decision else { panic!("{decision:?}") };
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_a_restored_backup_has_lost_is_unknown_and_its_machine_gets_another_by_a_token() {
    if !has(&[("curl", "curl"), ("openssl", "openssl")]) {
        return;
    }
    let place = Place::new().await;
    let backups = tempfile::tempdir().expect("temporary folder");
    let file = backups.path().join("b");
    let lock = Lock::passphrase(Zeroizing::new(PASSPHRASE.to_vec())).expect("long enough");
    common::create_backup(&mut place.site.operator().await, &file, &lock).await;
    // What happens now is not in it.
    place.request("lost").await;
    let credentials = place.credentials(NAME).await;
    assert_eq!(place.post("simpleenroll", &credentials, "lost.csr").await, "200");
    place.unpack("lost").await;
    let lost = place.certificate("lost.pem");
    let mut gateway = place.site.gateway("gw2").await;
    let before = judged(&mut gateway, &lost, lost.not_before.0).await;
    assert!(matches!(&before, Decision::Admitted(admitted) if admitted.name == NAME), "{before:?}");
    drop(gateway);
    let (folder, site) = place.leave();
    site.running.shutdown().await;

    let dir = tempfile::tempdir().expect("temporary folder");
    let mut config = enrollment::config();
    change(&mut config);
    let secret = Secret::Passphrase(Zeroizing::new(PASSPHRASE.to_vec()));
    let restored = backup::restore(&file, &secret, dir.path(), &config, &Clock::system(), &mut |_, _| {}).await;
    restored.expect("restores");
    let running = Controller::start(config, dir.path()).await.expect("starts");
    let place = Place::at_with(Site { dir, running }, "gw3", folder).await;
    let mut operator = place.site.operator().await;
    let mut gateway = place.site.gateway("gw4").await;

    // It stays out: nobody knows whether it was revoked. But who is told to look for a stolen key?
    let unknown = refused(judged(&mut gateway, &lost, lost.not_before.0).await);
    assert!(unknown.cause.starts_with("unknown:") && unknown.cause.contains("restored from a backup"), "{unknown:?}");
    assert!(unknown.remedy.contains("sallyport token create"), "{unknown:?}");
    // One from after the restore, and one that does not say from when it is, were never issued by anybody of ours. A certificate says
    // its beginning in whole seconds, and all of this may pass within the second of the restore: so one from the next.
    let next = running_now(&place.site).await + 1;
    for from_s in [next, 0] {
        let forged = refused(judged(&mut gateway, &lost, from_s).await);
        assert!(forged.cause.starts_with("forged:"), "{forged:?}");
    }
    let records = attempts(&mut operator).await;
    let count = |verdict| records.iter().filter(|record| record.certificate_verdict() == verdict).count();
    let (unknown, forged) = (v1::CertificateVerdict::Unknown, v1::CertificateVerdict::Forged);
    assert_eq!((count(unknown), count(forged)), (1, 2), "{records:?}");

    // It proves nothing at the endpoint either; a token does.
    place.request("next").await;
    assert_eq!(place.post("simplereenroll", "--cert lost.pem --key lost.key", "next.csr").await, "401");
    let credentials = place.credentials(NAME).await;
    assert_eq!(place.post("simpleenroll", &credentials, "next.csr").await, "200");
    place.unpack("next").await;
    let next = place.certificate("next.pem");
    let admitted = judged(&mut gateway, &next, next.not_before.0).await;
    assert!(matches!(&admitted, Decision::Admitted(admitted) if admitted.name == NAME), "{admitted:?}");
    place.site.running.shutdown().await;
}

/// The controllers' time, whole seconds, by a certificate that they make now: it begins five minutes before.
async fn running_now(site: &Site) -> i64 {
    let issued = common::issue(&site.running, sallyport_ca::Profile::Machine, "clock.example.com").await;
    Certificate::from_der(&issued.certificate).expect("a certificate").not_before.0 + 300
}
