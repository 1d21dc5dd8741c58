//! Against the service's own endpoint, as a controller runs it.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sallyport_ca::{Certificate, KeyAlgorithm, KeyPair, Profile, PublicKey, SystemRandom, UnixTime};
use sallyport_endpoint::{
    Answer, Crl, Endpoint, Enrollment, Kind, Limits, Office, Proof, Protocol, ScepAnswer, listen,
};
use sallyport_enroll::{Folder, Outcome, Request, due, enroll, renew};
use tokio::net::TcpListener;

use crate::support::{Clock, DAY, Hierarchy, Machine, NAME, NOW, request};

/// Knows one token, and what it issued.
struct Desk {
    hierarchy: Hierarchy,
    clock: Clock,
    token: Mutex<Option<String>>,
    issued: Mutex<Vec<(Vec<u8>, Vec<u8>)>>,
    /// How often a request has to wait.
    puts_off: Mutex<u32>,
}

impl Office for Desk {
    async fn enroll(&self, request: Enrollment) -> Answer {
        let denied = |text: &str| Answer::Denied { text: text.to_owned(), authenticate: false };
        let now = self.clock.now();
        match (request.protocol, &request.proof) {
            (Protocol::Est, Proof::Token(text)) if self.token.lock().unwrap().as_deref() == Some(text.as_str()) => {}
            (Protocol::EstRenewal, Proof::Certificate(der)) => {
                let known = self.issued.lock().unwrap().iter().any(|(_, issued)| issued == der);
                let live = Certificate::from_der(der).is_ok_and(|c| now <= c.not_after);
                match (known, live) {
                    (true, true) => {}
                    (true, false) => return denied("the certificate has lapsed"),
                    (false, _) => return denied("it was never issued here"),
                }
            }
            _ => return Answer::Denied { text: "no such token".to_owned(), authenticate: true },
        }
        let mut left = self.puts_off.lock().unwrap();
        if *left > 0 {
            *left -= 1;
            return Answer::Pending {
                retry_after: Duration::from_secs(30),
                text: "waiting for an operator".to_owned(),
            };
        }
        let mut issued = self.issued.lock().unwrap();
        let certificate = match issued.iter().find(|(csr, _)| *csr == request.csr) {
            Some((_, certificate)) => certificate.clone(),
            None => {
                let key = PublicKey::from_csr_der(&request.csr).unwrap();
                let der = self.hierarchy.issue(Profile::Machine, NAME, &key, now, 30).der().to_vec();
                issued.push((request.csr, der.clone()));
                der
            }
        };
        Answer::Issued { certificate, chain: self.hierarchy.authorities(), private_key: None }
    }

    fn authorities(&self) -> Vec<Vec<u8>> {
        self.hierarchy.authorities()
    }

    fn authority(&self, _: u64) -> Option<Vec<u8>> {
        None
    }

    async fn crl(&self, _: u64, _: Option<u32>) -> Option<Crl> {
        None
    }

    async fn delta_crl(&self, _: u64, _: Option<u32>) -> Option<Crl> {
        None
    }

    async fn ocsp(&self, _: Vec<u8>) -> Vec<u8> {
        Vec::new()
    }

    fn scep_ca(&self) -> Option<Vec<Vec<u8>>> {
        None
    }

    async fn scep(&self, _: Vec<u8>, _: IpAddr) -> ScepAnswer {
        ScepAnswer::Invalid("off".to_owned())
    }

    fn names(&self) -> Vec<String> {
        vec!["localhost".to_owned()]
    }
}

impl sallyport_endpoint::Clock for Clock {
    fn monotonic(&self) -> Duration {
        Duration::from_secs(1_000)
    }

    fn unix(&self) -> UnixTime {
        self.now()
    }
}

async fn start(machine: &Machine) -> (Arc<Desk>, Request) {
    let hierarchy = Hierarchy::new();
    let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &SystemRandom::new()).unwrap();
    let certificate = hierarchy.issue(Profile::Endpoint, "localhost", &key.public_key(), UnixTime(NOW), 300);
    let chain = [certificate.der().to_vec(), hierarchy.authorities()[0].clone()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let token = hierarchy.token(&format!("localhost:{}", listener.local_addr().unwrap().port()));
    let desk = Arc::new(Desk {
        hierarchy,
        clock: machine.clock.clone(),
        token: Mutex::new(Some(token.to_text().to_string())),
        issued: Mutex::default(),
        puts_off: Mutex::default(),
    });
    let endpoint = Endpoint::new(Arc::clone(&desk), Arc::new(machine.clock.clone()), Limits::default()).unwrap();
    endpoint.set_certificate(&chain, key.pkcs8_der()).unwrap();
    tokio::spawn(listen(listener, Kind::Tls, Arc::new(endpoint)));
    (desk, request(&token))
}

#[tokio::test]
async fn the_services_own_endpoint_enrolls_and_renews_and_says_no() {
    let (machine, temp) = (Machine::new(), tempfile::tempdir().unwrap());
    let (desk, mut wanted) = start(&machine).await;
    let dir = temp.path().join("enroll");
    let token = desk.token.lock().unwrap().take();
    let error = enroll(&Folder::open(&dir).unwrap(), &wanted, &machine).await.err().unwrap();
    assert!(error.cause.contains("no such token"), "{error}");

    *desk.token.lock().unwrap() = token;
    *desk.puts_off.lock().unwrap() = 2;
    wanted.wait = Duration::from_secs(60);
    let (settings, first) = enroll(&Folder::open(&dir).unwrap(), &wanted, &machine).await.unwrap();
    assert_eq!((first.name().as_str(), machine.paused.lock().unwrap().len()), (NAME, 2));
    assert_eq!(first.chain, [desk.hierarchy.authorities()[0].clone()]);

    machine.clock.set(due(&first.certificate).0);
    let folder = Folder::open(&dir).unwrap();
    let Outcome::Renewed(second) = renew(&folder, &settings, &first, false, Duration::ZERO, &machine).await.unwrap()
    else {
        panic!("not renewed")
    };
    assert_eq!(desk.issued.lock().unwrap().len(), 2);

    // The endpoint takes any certificate in the handshake; the office says no in words.
    machine.clock.set(NOW + 100 * DAY);
    let error = renew(&folder, &settings, &second, false, Duration::ZERO, &machine).await.err().unwrap();
    assert!(error.cause.contains("has lapsed") && error.remedy.contains("token create"), "{error}");
}
