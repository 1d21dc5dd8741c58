//! The log, its heads and its witnesses over a running controller.

use std::net::Ipv4Addr;
use std::time::Duration;

use sallyport_ca::merkle::{Answer, Fault, Followed, Follower, SignedTreeHead, leaf_hash};
use sallyport_ca::{Certificate, SystemRandom};

use super::witnesses::Trouble;
use super::*;
use crate::app::Running;
use crate::app::tests::controller;
use crate::state::{AcceptHeads, Action, ClearPsk, Outcome, Refusal, RefusalKind, RegisterGateway, SetPsk};

/// What the controller records by itself is there before anything is counted.
async fn settled(core: &Core) {
    let of_endpoint = |core: &Core| {
        let state = core.node.shared().read();
        state.certificates.iter().any(|(_, c)| c.profile() == v1::CertificateProfile::Endpoint)
    };
    let looking = async {
        while !of_endpoint(core) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), looking).await.expect("the endpoint has a certificate");
}

struct Site {
    _dir: tempfile::TempDir,
    running: Running,
    core: Arc<Core>,
}

impl Site {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (running, _) = controller(dir.path()).await;
        let core = running.core().clone();
        settled(&core).await;
        Self { _dir: dir, running, core }
    }

    async fn change(&self, action: Action) {
        let reply = self.core.propose(action).await.expect("proposes");
        assert!(matches!(reply.outcome, Some(Outcome::Done(_))), "{reply:?}");
    }

    async fn grow(&self, by: usize) {
        for _ in 0..by {
            self.change(Action::SetPsk(SetPsk { sealed: vec![1] })).await;
        }
    }

    async fn shown(&self) -> Shown {
        show(&self.core).await.expect("looks").expect("a log")
    }

    async fn tell(&self, follower: &mut Follower) -> Followed {
        let known = follower.known().cloned();
        let answer = answer(&self.core, known.as_ref(), &self.shown().await).await.expect("answers");
        let (issuers, accepted) = (answer.issuers.as_slice(), answer.accepted.as_slice());
        let root = Certificate::from_der(&self.running.root_certificate()).expect("a root");
        follower.follow(&Answer { head: &answer.head, proof: &answer.proof, issuers, accepted }, &[root])
    }

    /// What a hostile controller, or another copy of this cluster, would show: as many entries, and others.
    async fn forged(&self, size: u64) -> SignedTreeHead {
        let mut tree = Frontier::new();
        for n in 0..size {
            tree.append(leaf_hash(&n.to_be_bytes()), |_, _| {});
        }
        let issuing = self.core.issuing(KeyAlgorithm::EcdsaP256).expect("an authority");
        let cluster = self.core.cluster_id().try_into().expect("16 bytes");
        issuing.authority.sign_tree_head(cluster, &tree, 1, &SystemRandom::new()).expect("signs")
    }

    async fn heard(&self, gateway: &str, slot: u32, head: &SignedTreeHead) -> Option<Trouble> {
        heard(&self.core, (gateway, slot, 1), head.clone(), &self.shown().await).await.expect("judges")
    }

    fn attempts(&self, phase: v1::Phase) -> Vec<v1::Attempt> {
        let state = self.core.node.shared().read();
        state.attempts.iter().filter(|(_, a)| a.phase() == phase).map(|(_, a)| a.clone()).collect()
    }

    async fn end(self) {
        drop(self.core);
        self.running.shutdown().await;
    }
}

#[tokio::test]
async fn witnesses_follow_the_log_and_one_that_was_shown_another_is_found_when_it_reports() {
    let site = Site::new().await;
    let mut follower = Follower::default();
    assert_eq!(site.tell(&mut follower).await, Followed::First);
    for by in [1, 7, 40] {
        site.grow(by).await;
        assert_eq!(site.tell(&mut follower).await, Followed::Good(true));
    }
    let honest = follower.known().expect("a head").clone();
    assert_eq!(site.shown().await.head, honest, "what did not change is not signed again");
    assert_eq!(site.heard("gw1", 1, &honest).await, None);

    // Of a size for which a proof shows what the old root was: one that is no power of two.
    let size = (honest.head.size - 3..).find(|size| !size.is_power_of_two()).expect("one of two");
    let forged = site.forged(size).await;
    assert_eq!(site.heard("gw2", 2, &forged).await, Some(Trouble::Forked));
    assert_eq!(site.heard("gw2", 2, &forged).await, Some(Trouble::Forked));
    let longer = site.forged(1_000).await;
    assert_eq!(site.heard("gw3", 3, &longer).await, Some(Trouble::Shorter));
    let mut foreign = forged.clone();
    foreign.head.cluster = [0; 16];
    assert_eq!(site.heard("gw4", 4, &foreign).await, Some(Trouble::Unsigned), "the signature is of another text");
    let mut unsigned = forged.clone();
    unsigned.head.time_ms += 1;
    assert_eq!(site.heard("gw5", 5, &unsigned).await, Some(Trouble::Unsigned));
    // What nobody has signed is no evidence, however much of it there is.
    for time in 0..20 {
        unsigned.head.time_ms += time;
        site.heard("gw5", 5, &unsigned).await;
    }
    assert_eq!(site.core.audit.witnesses.in_trouble(), 2);
    let attempts = site.attempts(v1::Phase::AuditLog);
    assert_eq!(attempts.len(), 2, "each is recorded once: {attempts:?}");
    let keys = signers(&site.core).keys.clone();
    let made_up = sallyport_ca::merkle::Evidence { known: unsigned, shown: site.shown().await.head, proof: Vec::new() };
    assert!(witnesses::is_signed(&attempts[0].evidence, &keys) && !witnesses::is_signed(&made_up.to_bytes(), &keys));
    assert!(!witnesses::is_signed(b"", &keys));
    let evidence = sallyport_ca::merkle::Evidence::from_bytes(&attempts[0].evidence).expect("two heads");
    let signers = signers(&site.core);
    assert_eq!(evidence.known, forged);
    assert!(evidence.finding(&signers.keys).expect("signed by ours").is_some(), "which anybody can judge");

    // An operator knows why: from then on it is no alarm.
    let heads = vec![forged.to_bytes()];
    site.change(Action::AcceptHeads(AcceptHeads { heads, reason: "a test".into() })).await;
    assert_eq!(site.heard("gw2", 2, &forged).await, None);
    let mut follower = Follower::knowing(Some(forged.clone()));
    assert_eq!(site.tell(&mut follower).await, Followed::Replaced(Box::new(forged)));
    let mut follower = Follower::knowing(Some(longer));
    let Followed::Wrong(wrong) = site.tell(&mut follower).await else { panic!("not found") };
    assert_eq!(wrong.fault, Fault::RolledBack, "fewer entries at a later time");
    site.end().await;
}

#[tokio::test]
async fn what_is_read_from_the_store_is_what_was_signed_also_after_a_restart() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (running, _) = controller(dir.path()).await;
    let core = running.core().clone();
    settled(&core).await;
    for _ in 0..50 {
        core.propose(Action::ClearPsk(ClearPsk {})).await.expect("proposes");
    }
    let mut follower = Follower::default();
    let root = Certificate::from_der(&running.root_certificate()).expect("a root");
    let check = async |core: &Arc<Core>, follower: &mut Follower| {
        let shown = show(core).await.expect("looks").expect("a log");
        let reader = core.node.ledger();
        let entries =
            [reader.entries(0, 20, usize::MAX).expect("reads"), reader.entries(20, 10_000, usize::MAX).expect("reads")]
                .concat();
        let mut tree = Frontier::new();
        for entry in &entries {
            tree.append(leaf_hash(entry), |_, _| {});
        }
        assert_eq!((tree.size(), tree.root()), (shown.head.head.size, shown.head.head.root));
        let first = entries.first().map_or(0, Vec::len);
        assert_eq!(reader.entries(0, 10_000, first).expect("reads").len(), 1, "bounded by bytes, too");
        assert!(reader.entries(shown.head.head.size, 10, 10).expect("reads").is_empty());
        assert_eq!(tree_at(core, 33).await.expect("a tree").size(), 33);
        let known = follower.known().cloned();
        let answer = answer(core, known.as_ref(), &shown).await.expect("answers");
        let (issuers, accepted) = (answer.issuers.as_slice(), answer.accepted.as_slice());
        follower.follow(
            &Answer { head: &answer.head, proof: &answer.proof, issuers, accepted },
            std::slice::from_ref(&root),
        )
    };
    assert_eq!(check(&core, &mut follower).await, Followed::First);
    drop(core);
    running.shutdown().await;
    let (running, _) = controller(dir.path()).await;
    let core = running.core().clone();
    core.propose(Action::SetPsk(SetPsk { sealed: vec![1] })).await.expect("proposes");
    assert_eq!(check(&core, &mut follower).await, Followed::Good(true));
    drop(core);
    running.shutdown().await;
}

#[tokio::test]
async fn refused_certificates_are_recorded_for_people_and_in_the_log_and_a_flood_is_counted() {
    let site = Site::new().await;
    let size = site.shown().await.head.head.size;
    let refusal = Refusal { kind: RefusalKind::Unproven, cause: "no token".into(), remedy: "make one".into() };
    for n in 0..200_u8 {
        record_refusal(&site.core, Ipv4Addr::new(198, 51, 100, n).into(), &refusal);
    }
    // What is proposed in other tasks is there after a while; the wait ends at a bound.
    let recorded = tokio::time::timeout(Duration::from_secs(120), async {
        while site.attempts(v1::Phase::Enrollment).len() < 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    recorded.await.expect("they are recorded");
    let attempts = site.attempts(v1::Phase::Enrollment);
    assert_eq!(attempts.len(), 20);
    assert!(attempts.iter().all(|a| a.cause == "no token" && a.remedy == "make one" && !a.remote.is_empty()));
    assert_eq!(site.shown().await.head.head.size, size + 20, "each in the log, too");
    let register = RegisterGateway { name: "gw1".into(), boot_id: vec![1; 16], ..RegisterGateway::default() };
    site.core.propose(Action::RegisterGateway(register)).await.expect("proposes");
    assert_eq!(site.shown().await.head.head.size, size + 20, "a gateway's coming is none of the log's");
    site.end().await;
}
