//! The controller's own certificate: renewed while gateways and operators are connected.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use sallyport_ca::{Certificate, Profile};
use sallyport_controller::{Clock, Controller};
use sallyport_proto::dial::{self, Channel, Judge, Material};
use sallyport_proto::v1;
use sallyport_proto::v1::gateway_client::GatewayClient;

use crate::common::{self, Site};

const DAY: Duration = Duration::from_secs(86_400);

/// The clock that the test moves, for TLS.
#[derive(Debug)]
struct Moved(Clock);

impl TimeProvider for Moved {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.unix_ms())))
    }
}

/// Serial number of what the controller shows to whoever connects now.
async fn shown(site: &Site, clock: &Clock) -> String {
    let read = |name: &str| std::fs::read(site.dir.path().join("operator").join(name)).expect("the operator's folder");
    let (ca, chain, key) = (read("ca.pem"), read("cert.pem"), read("key.pem"));
    let seen = Arc::new(Mutex::new(String::new()));
    let note = seen.clone();
    let judge: Judge = Arc::new(move |der| {
        let certificate = Certificate::from_der(der).map_err(|e| e.to_string())?;
        *note.lock().map_err(|e| e.to_string())? = certificate.serial.to_string();
        Ok(())
    });
    let material = Material { ca: &ca, chain: &chain, key: &key };
    let tls = dial::tls(&material, Arc::new(Moved(clock.clone())), judge.clone()).expect("usable");
    let address = site.running.grpc_address().to_string();
    let endpoint = dial::endpoint(&address).expect("an address");
    Channel::new(endpoint, &address, tls, judge).connect().await.expect("connects");
    let serial = seen.lock().expect("whole").clone();
    assert!(!serial.is_empty());
    serial
}

#[tokio::test]
async fn a_controller_shows_its_renewed_certificate_and_cuts_nobody_off() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let clock = Clock::manual(Clock::system().unix_ms());
    let running = Controller::start_with(common::config(), dir.path(), clock.clone()).await.expect("starts");
    let site = Site { dir, running };
    let mut operator = site.operator().await;
    let before = shown(&site, &clock).await;
    site.running.look_after_certificates().await.expect("nothing is due");
    assert_eq!(shown(&site, &clock).await, before);
    clock.advance(DAY * 260);
    let link = common::issue(&site.running, Profile::GatewayLink, "gw1").await;
    let mut gateway = GatewayClient::new(site.channel(&link).await.expect("connects"));
    let registered = common::register(&mut gateway, "gw1", 1).await;
    site.running.look_after_certificates().await.expect("renews");
    let after = shown(&site, &clock).await;
    assert_ne!(after, before);
    // Over the connections that were open.
    operator.get_status(v1::GetStatusRequest {}).await.expect("an answer");
    let again = common::register(&mut gateway, "gw1", 1).await;
    assert_eq!(again.member.map(|m| m.slot), registered.member.map(|m| m.slot));
    let request =
        v1::ListCertificatesRequest { profile: v1::CertificateProfile::Controller.into(), ..Default::default() };
    let listed = operator.list_certificates(request).await.expect("an answer").into_inner().certificates;
    assert_eq!(listed.iter().map(|c| c.serial.as_str()).collect::<Vec<_>>(), [after.as_str(), before.as_str()]);
    assert!(listed.iter().all(|c| c.revoked_unix_ms == 0), "the old one ends by itself");
    assert!(!site.dir.path().join("controller/cert.next").exists());
    site.running.shutdown().await;
}
