use super::super::{IssueRequest, Owner, issue_once, issue_to};
use super::*;
use crate::app::Running;
use crate::app::tests::controller;
use crate::clock::Clock;
use crate::enroll::finish_intents;
use crate::seal::Request;
use sallyport_ca::{Certificate, KeyAlgorithm, KeyPair, Profile};

struct Site {
    _dir: tempfile::TempDir,
    running: Running,
    clock: Clock,
    core: Arc<Core>,
}

impl Site {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (running, clock) = controller(dir.path()).await;
        let core = running.core().clone();
        Self { _dir: dir, running, clock, core }
    }

    async fn once(&self, id: u8, name: &str) -> super::super::Issued {
        let (id, name_of) = ([id; 16], [id; 16]);
        let asked = Request { id, name: &name_of };
        issue_once(&self.core, wanted(name), Owner::default(), asked).await.expect("issues")
    }

    fn live(&self, name: &str) -> usize {
        let state = self.core.node.shared().read();
        state.certificates.iter().filter(|(_, row)| row.name == name && row.revoked_ms == 0).count()
    }

    fn intended(&self, id: u8) -> bool {
        self.core.node.shared().read().intended(&[id; 16]).is_some()
    }

    /// What an operator asks for by a controller that dies when the log has said it.
    async fn left(&self, id: u8, name: &str) -> KeyPair {
        let (key, draft) = super::super::draft(&self.core, wanted(name), Owner::default()).await.expect("drafts");
        let (id, name_of) = ([id; 16], [id; 16]);
        let answer = super::super::sealed_key(&self.core, &Request { id, name: &name_of }, &key).expect("seals");
        let office = OfficeProof { request_id: id.to_vec(), answer, ..OfficeProof::default() };
        intend(&self.core, draft.wished(&key.public_key(), office)).await.expect("intends");
        self.core.catch_up().await;
        assert_eq!(self.live(name), 0);
        assert!(self.intended(id[0]));
        key
    }

    async fn end(self) {
        drop(self.core);
        self.running.shutdown().await;
    }
}

fn wanted(name: &str) -> IssueRequest {
    IssueRequest {
        profile: Profile::Operator,
        name: name.into(),
        sans: Vec::new(),
        key: KeyAlgorithm::EcdsaP256,
        days: 0,
    }
}

fn of_key(issued: &super::super::Issued, key: &KeyPair) -> bool {
    let certificate = Certificate::from_der(&issued.certificate).expect("a certificate");
    certificate.spki_der() == key.public_key().spki_der() && issued.private_key.as_slice() == key.pkcs8_der()
}

#[tokio::test]
async fn the_same_request_has_the_same_certificate_and_key_and_each_was_intended() {
    let site = Site::new().await;
    assert!(intends(&site.core));
    let first = site.once(1, "ann").await;
    assert_eq!(first.record.fingerprint, Certificate::from_der(&first.certificate).expect("reads").fingerprint.0);
    let key = KeyPair::from_pkcs8_der(&first.private_key).expect("a key");
    assert!(of_key(&first, &key));
    let again = site.once(1, "ann").await;
    assert_eq!((again.certificate, again.chain), (first.certificate.clone(), first.chain));
    assert_eq!(again.private_key, first.private_key);
    assert_eq!(site.live("ann"), 1);
    // Two at a time.
    let (one, other) = tokio::join!(site.once(2, "bob"), site.once(2, "bob"));
    assert_eq!((one.certificate, one.private_key), (other.certificate, other.private_key));
    assert_eq!(site.live("bob"), 1);
    let unasked = issue_to(&site.core, wanted("eve"), Owner::default()).await.expect("issues");
    assert_eq!((unasked.record.name.as_str(), site.live("eve")), ("eve", 1));
    assert!(!site.intended(1) && !site.intended(2));
    site.end().await;
}

#[tokio::test]
async fn what_a_controller_left_between_intent_and_record_the_leader_finishes_and_whoever_asks_again_has_it() {
    let site = Site::new().await;
    let key = site.left(1, "ann").await;
    site.clock.advance(std::time::Duration::from_secs(6));
    finish_intents(&site.core).await.expect("finishes");
    site.core.catch_up().await;
    assert_eq!(site.live("ann"), 1);
    let asked = site.once(1, "ann").await;
    assert!(of_key(&asked, &key), "the key of before, which nobody has seen");
    // Whoever asks again before the leader has looked finishes it himself, and no second key counts.
    let key = site.left(2, "bob").await;
    assert!(of_key(&site.once(2, "bob").await, &key));
    assert_eq!((site.live("ann"), site.live("bob")), (1, 1));
    site.end().await;
}

#[tokio::test]
async fn what_nobody_could_sign_for_ten_minutes_is_given_up_and_the_same_request_begins_anew() {
    let site = Site::new().await;
    let key = site.left(1, "ann").await;
    site.clock.advance(std::time::Duration::from_secs(11 * 60));
    finish_intents(&site.core).await.expect("gives up");
    site.core.catch_up().await;
    assert_eq!((site.live("ann"), site.intended(1)), (0, false));
    let asked = site.once(1, "ann").await;
    assert!(!of_key(&asked, &key));
    assert_eq!(site.live("ann"), 1);
    site.end().await;
}
