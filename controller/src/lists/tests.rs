use std::collections::BTreeSet;

use sallyport_ca::crl::RevocationList;
use sallyport_ca::{KeyAlgorithm, Profile};

use super::*;
use crate::app::Running;
use crate::app::tests::controller;
use crate::authority::{IssueRequest, issue};
use crate::clock::Clock;
use crate::state::{Action, Outcome, RevokeCertificate, UpdateSettings};

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

    async fn done(&self, action: Action) {
        let reply = self.core.propose(action).await.expect("proposes");
        assert!(matches!(reply.outcome, Some(Outcome::Done(_))), "{reply:?}");
    }

    async fn publish(&self, name: &str) {
        let settings = self.core.node.shared().read().settings();
        let settings = crate::state::SettingsRow { publication_name: name.into(), ..settings };
        self.done(Action::UpdateSettings(UpdateSettings { settings: Some(settings) })).await;
    }

    /// A machine's certificate, and its place: authority and shard.
    async fn issue(&self, profile: Profile, name: &str) -> (Vec<u8>, CertificateRow) {
        let key = KeyAlgorithm::EcdsaP256;
        let request = IssueRequest { profile, name: name.into(), sans: Vec::new(), key, days: 1 };
        let issued = issue(&self.core, request).await.expect("issues");
        (issued.certificate, issued.record)
    }

    async fn revoke(&self, row: &CertificateRow, reason: &str) {
        let serial = row.serial.clone();
        self.done(Action::RevokeCertificate(RevokeCertificate { serial, reason: reason.into() })).await;
    }

    async fn list(&self, issuer: u64, part: Part) -> (Crl, BTreeSet<String>) {
        let crl = self.core.lists.list(&self.core, issuer, part).await.expect("a list");
        let authority = {
            let state = self.core.node.shared().read();
            state.chain_of(issuer).into_iter().next().expect("known")
        };
        let list = RevocationList::verify(&crl.der, &[authority]).expect("signed");
        (crl, list.revoked.keys().map(ToString::to_string).collect())
    }

    async fn end(self) {
        drop(self.core);
        self.running.shutdown().await;
    }
}

fn shard(row: &CertificateRow) -> Part {
    Part::Shard(shard_of(&row.serial.parse().expect("a serial number")))
}

fn has(der: &[u8], text: &str) -> bool {
    der.windows(text.len()).any(|part| part == text.as_bytes())
}

#[tokio::test]
async fn a_certificate_names_its_shard_and_the_list_there_names_the_same_place() {
    let site = Site::new().await;
    let (silent, row) = site.issue(Profile::Machine, "a.example.com").await;
    assert!(!has(&silent, "http://"), "where the service has no name there is no place");
    assert!(site.core.lists.list(&site.core, row.issuer, shard(&row)).await.is_err());
    let (first, _) = site.issue(Profile::Gateway, "vpn.example.com").await;
    assert!(!has(&first, "http://"));
    let (der, row) = site.issue(Profile::Machine, "b.example.com").await;
    let Part::Shard(number) = shard(&row) else { panic!("a shard") };
    let point = format!("http://vpn.example.com/ca/{}/{number}.crl", row.issuer);
    assert!(has(&der, &point) && has(&der, &format!("http://vpn.example.com/ca/{}.cer", row.issuer)));
    assert!(has(&der, "http://vpn.example.com/ocsp"));
    let (list, _) = site.list(row.issuer, shard(&row)).await;
    assert!(has(&list.der, &point));
    let (gateway, of_gateway) = site.issue(Profile::Gateway, "vpn.example.com").await;
    assert!(has(&gateway, &format!("http://vpn.example.com/ca/{}.crl", of_gateway.issuer)));
    let (whole, _) = site.list(row.issuer, Part::Whole).await;
    assert!(!has(&whole.der, "http://"));

    // Under another name the list is there for the certificates of both.
    site.publish("pki.example.com:8080").await;
    let (renamed, _) = site.list(row.issuer, shard(&row)).await;
    assert!(has(&renamed.der, &point) && renamed.number > list.number);
    assert!(has(&renamed.der, &format!("http://pki.example.com:8080/ca/{}/{number}.crl", row.issuer)));
    for part in [Part::Shard(SHARDS), Part::Shard(u32::MAX)] {
        assert!(site.core.lists.list(&site.core, row.issuer, part).await.is_err());
    }
    assert!(site.core.lists.list(&site.core, 99, Part::Whole).await.is_err());
    assert!(site.core.lists.list(&site.core, 0, Part::Shard(1)).await.is_err(), "the root has one list");
    site.end().await;
}

#[tokio::test]
async fn a_revocation_is_on_the_next_list_of_its_shard_and_changes_no_other() {
    let site = Site::new().await;
    site.publish("vpn.example.com").await;
    let (_, row) = site.issue(Profile::Machine, "a.example.com").await;
    let Part::Shard(own) = shard(&row) else { panic!("a shard") };
    let other = Part::Shard((own + 1) % SHARDS);
    let (before, listed) = site.list(row.issuer, shard(&row)).await;
    let (elsewhere, _) = site.list(row.issuer, other).await;
    let (whole, _) = site.list(row.issuer, Part::Whole).await;
    assert!(listed.is_empty());
    assert_eq!(site.list(row.issuer, shard(&row)).await.0, before, "made once");

    site.revoke(&row, "key-compromise: stolen").await;
    let (after, listed) = site.list(row.issuer, shard(&row)).await;
    assert_eq!(listed, BTreeSet::from([row.serial.clone()]));
    assert!(after.number > before.number && after.this_update >= before.this_update);
    assert_eq!(after.next_update, before.next_update);
    assert!(has(&after.der, "\u{a}\u{1}\u{1}"), "reasonCode keyCompromise");
    assert_eq!(site.list(row.issuer, other).await.0, elsewhere);
    let (whole_after, listed) = site.list(row.issuer, Part::Whole).await;
    assert!(whole_after.number > whole.number && listed.contains(&row.serial));
    assert!(site.list(0, Part::Whole).await.1.is_empty(), "the root did not issue it");
    site.end().await;
}

#[tokio::test]
async fn lists_are_made_anew_in_time_and_an_entry_stays_until_one_list_was_made_after_its_end() {
    let site = Site::new().await;
    let (_, row) = site.issue(Profile::Machine, "a.example.com").await;
    site.revoke(&row, "").await;
    let mut numbers = Vec::new();
    let mut was_listed_after_its_end = false;
    for _ in 0..5 {
        let (list, listed) = site.list(row.issuer, Part::Whole).await;
        let now_ms = site.core.node.shared().read().now_ms();
        assert!(list.this_update <= time(now_ms) && time(now_ms + FRESH_MS) <= list.next_update);
        // The certificate lives for a day: it is on the list that began after it ended, and then on none.
        let ended = list.this_update.0 * 1_000 > i64::try_from(row.not_after_ms).expect("a date");
        was_listed_after_its_end |= ended && listed.contains(&row.serial);
        assert!(ended || listed.contains(&row.serial));
        numbers.push((list.number, listed.len()));
        site.clock.advance(Duration::from_millis(FRESH_MS));
        site.publish("").await; // an entry, and with it the time
    }
    assert!(was_listed_after_its_end, "{numbers:?}");
    assert!(numbers.is_sorted() && numbers.last().is_some_and(|(_, listed)| *listed == 0), "{numbers:?}");
    assert!(numbers.windows(2).all(|pair| pair[0].0 < pair[1].0), "{numbers:?}");
    site.end().await;
}

/// As certificates are: a reader's clock may be behind.
#[tokio::test]
async fn a_list_is_good_from_five_minutes_before_it_was_made() {
    let site = Site::new().await;
    let (_, row) = site.issue(Profile::Machine, "a.example.com").await;
    site.revoke(&row, "").await;
    let (list, listed) = site.list(row.issuer, Part::Whole).await;
    let revoked_ms = site.core.node.shared().read().certificates.get(&row.serial).expect("there").revoked_ms;
    assert!(listed.contains(&row.serial));
    assert_eq!(list.this_update, time(revoked_ms - 5 * 60 * 1_000));
    site.end().await;
}

#[tokio::test]
async fn many_who_ask_at_a_time_have_one_list() {
    let site = Site::new().await;
    let (_, row) = site.issue(Profile::Machine, "a.example.com").await;
    let asked = (0..50).map(|_| {
        let core = site.core.clone();
        tokio::spawn(async move { core.lists.list(&core, row.issuer, Part::Whole).await.expect("a list").der })
    });
    let mut made = BTreeSet::new();
    for list in asked.collect::<Vec<_>>() {
        made.insert(list.await.expect("ends"));
    }
    assert_eq!(made.len(), 1, "a list signed twice would differ");
    site.end().await;
}

/// The node that keeps the lists does so without being asked.
#[tokio::test]
async fn lists_that_somebody_asked_for_are_made_anew_at_once_by_themselves() {
    let site = Site::new().await;
    let (_, row) = site.issue(Profile::Machine, "a.example.com").await;
    site.list(row.issuer, Part::Whole).await;
    site.revoke(&row, "").await;
    let of = site.core.lists.of(row.issuer);
    for _ in 0..3_000 {
        if of.current(&site.core, Part::Whole).is_some() {
            return site.end().await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nobody made it");
}

#[test]
fn numbers_grow_by_what_happened_by_the_days_and_over_a_restored_backup() {
    let at = 1_800_000_000_000;
    let stamps = [
        Stamp { change: 9, span_ms: at, at_ms: at, root: 1 },
        Stamp { change: 10, span_ms: at, at_ms: at, root: 1 },
        Stamp { change: 11, span_ms: at, at_ms: at + 1_000, root: 1 },
        Stamp { change: 11, span_ms: at + FRESH_MS, at_ms: at + FRESH_MS, root: 1 },
        // What was revoked last is lost.
        Stamp { change: 9, span_ms: at + FRESH_MS, at_ms: at + FRESH_MS + 5_000, root: 1 },
    ];
    assert!(stamps.windows(2).all(|pair| pair[0].number() < pair[1].number()));
    assert!(stamps[0].number() > 2_000_000_000, "more than the numbers that were seconds once");
}
