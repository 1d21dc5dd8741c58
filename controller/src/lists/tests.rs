use std::collections::BTreeSet;

use sallyport_ca::crl::{Reason, RevocationList};
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

    async fn issue_for(&self, name: &str, days: u32) -> CertificateRow {
        let (profile, key) = (Profile::Machine, KeyAlgorithm::EcdsaP256);
        let request = IssueRequest { profile, name: name.into(), sans: Vec::new(), key, days };
        issue(&self.core, request).await.expect("issues").record
    }

    async fn deltas(&self, delta_crl: bool) {
        let settings = self.core.node.shared().read().settings();
        let settings = crate::state::SettingsRow { delta_crl, ..settings };
        self.done(Action::UpdateSettings(UpdateSettings { settings: Some(settings) })).await;
    }

    /// A list as it is served.
    async fn raw(&self, issuer: u64, part: Part) -> Crl {
        self.core.lists.list(&self.core, issuer, part).await.expect("a list")
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

/// Serial numbers and reasons.
type Entries = Vec<(String, Option<u8>)>;

/// The number that a delta list starts from, its own, and its entries: serial number and reason.
fn read(der: &[u8]) -> (Option<u64>, u64, Entries) {
    use x509_parser::prelude::*;
    let (_, list) = CertificateRevocationList::from_der(der).expect("a list");
    let indicator = list.extensions().iter().find(|e| e.oid.to_string() == "2.5.29.27");
    let base = indicator.map(|e| {
        assert!(e.critical);
        e.value[2..].iter().fold(0_u64, |n, b| n << 8 | u64::from(*b))
    });
    let number = list.crl_number().expect("a number").to_u64_digits();
    let entries = list.iter_revoked_certificates().map(|entry| {
        let serial = sallyport_ca::Serial::from_be_bytes(entry.raw_serial()).to_string();
        (serial, entry.reason_code().map(|(_, reason)| reason.0))
    });
    (base, number.first().copied().unwrap_or_default(), entries.collect())
}

#[tokio::test]
async fn with_delta_lists_complete_ones_say_where_they_are_and_each_change_is_on_one() {
    let site = Site::new().await;
    site.publish("vpn.example.com").await;
    let (_, stolen) = site.issue(Profile::Machine, "a.example.com").await;
    let (_, held) = site.issue(Profile::Machine, "b.example.com").await;
    let issuer = stolen.issuer;
    let hold = |reason: Reason| {
        Action::RevokeCertificates(crate::state::RevokeCertificates {
            which: Some(crate::state::Selector::Serial(held.serial.clone())),
            code: reason.code().into(),
            ..Default::default()
        })
    };
    site.core.propose(hold(Reason::CertificateHold)).await.expect("proposes");
    let off = site.raw(issuer, Part::Whole).await;
    assert!(!has(&off.der, "delta"));
    for part in [Part::WholeDelta, Part::ShardDelta(1)] {
        assert!(site.core.lists.list(&site.core, issuer, part).await.is_err(), "off");
    }

    site.deltas(true).await;
    let base = site.raw(issuer, Part::Whole).await;
    assert!(has(&base.der, &format!("http://vpn.example.com/ca/{issuer}-delta.crl")) && base.number > off.number);
    let Part::Shard(own) = shard(&stolen) else { panic!("a shard") };
    let complete = site.raw(issuer, Part::Shard(own)).await;
    assert!(has(&complete.der, &format!("http://vpn.example.com/ca/{issuer}/{own}-delta.crl")));
    let (start, number, entries) = read(&site.raw(issuer, Part::WholeDelta).await.der);
    assert_eq!((start, number, entries.len()), (Some(base.number), base.number, 0), "made at once, so of one number");

    site.revoke(&stolen, "key-compromise").await;
    let release =
        crate::state::ReleaseCertificates { which: Some(crate::state::Selector::Serial(held.serial.clone())) };
    site.core.propose(Action::ReleaseCertificates(release)).await.expect("proposes");
    let changes = site.raw(issuer, Part::WholeDelta).await;
    assert!(
        !has(&changes.der, "http://"),
        "no distribution point, as the list that it starts from; and no further address"
    );
    let (start, number, mut entries) = read(&changes.der);
    entries.sort();
    let mut expected = vec![(stolen.serial.clone(), Some(1)), (held.serial.clone(), Some(8))];
    expected.sort();
    assert_eq!((start, entries), (Some(base.number), expected));
    let (_, now, listed) = read(&site.raw(issuer, Part::Whole).await.der);
    assert_eq!((number, listed), (now, vec![(stolen.serial.clone(), Some(1))]), "both of one time have one number");
    let (_, _, entries) = read(&site.raw(issuer, Part::ShardDelta(own)).await.der);
    assert!(entries.contains(&(stolen.serial.clone(), Some(1))));
    assert!(
        has(&site.raw(issuer, Part::ShardDelta(own)).await.der, &format!("/ca/{issuer}/{own}.crl")),
        "of one place"
    );
    assert_eq!(site.raw(issuer, Part::WholeDelta).await, changes, "made once");

    // They are made anew each hour, with a higher number, and outlive two.
    site.clock.advance(Duration::from_millis(DELTA_FRESH_MS));
    site.publish("vpn.example.com").await; // an entry, and with it the time
    let later = site.raw(issuer, Part::WholeDelta).await;
    assert!(later.number > changes.number && later.this_update > changes.this_update);
    let now_ms = site.core.node.shared().read().now_ms();
    assert!(later.this_update <= time(now_ms) && time(now_ms + DELTA_FRESH_MS) <= later.next_update);
    assert!(later.next_update <= time(now_ms + 2 * DELTA_FRESH_MS));
    assert!(site.core.lists.list(&site.core, 0, Part::WholeDelta).await.is_err(), "the root has none");
    assert!(site.core.lists.list(&site.core, issuer, Part::ShardDelta(SHARDS)).await.is_err());

    site.deltas(false).await;
    assert!(site.core.lists.list(&site.core, issuer, Part::WholeDelta).await.is_err());
    assert!(!has(&site.raw(issuer, Part::Whole).await.der, "delta"));
    site.end().await;
}

/// Each complete list that is good, with the changes of now applied to it, says what the complete one of now does.
#[tokio::test]
async fn every_list_that_is_good_becomes_the_present_one_by_the_present_changes() {
    let site = Site::new().await;
    site.publish("vpn.example.com").await;
    let mut rows = Vec::new();
    for n in 0..12 {
        rows.push(site.issue_for(&format!("m{n}.example.com"), 30).await);
    }
    let issuer = rows[0].issuer;
    site.deltas(true).await;
    let mut fetched: Vec<Crl> = Vec::new();
    let mut combined = 0;
    for step in 0..24_usize {
        let row = &rows[step * 7 % rows.len()];
        let which = Some(crate::state::Selector::Serial(row.serial.clone()));
        let held = site.core.node.shared().read().certificates.get(&row.serial).is_some_and(CertificateRow::is_on_hold);
        let action = match held && !step.is_multiple_of(5) {
            true => Action::ReleaseCertificates(crate::state::ReleaseCertificates { which }),
            false => {
                let code = if step.is_multiple_of(5) { 1 } else { 6 };
                Action::RevokeCertificates(crate::state::RevokeCertificates { which, code, ..Default::default() })
            }
        };
        // What is revoked for good is refused, and changes nothing.
        site.core.propose(action).await.expect("proposes");
        let (complete, delta) = (site.raw(issuer, Part::Whole).await, site.raw(issuer, Part::WholeDelta).await);
        fetched.push(complete.clone());
        let now = site.core.node.shared().read().now_ms();
        let (base, number, changes) = read(&delta.der);
        let base = base.expect("a delta list");
        assert!(number >= complete.number);
        let listed: BTreeMap<String, Option<u8>> = read(&complete.der).2.into_iter().collect();
        for old in fetched.iter().filter(|old| old.next_update >= time(now)) {
            let state = site.core.node.shared().read();
            let earliest = *state.delta_bases().first().expect("a start");
            assert!(number_of(earliest.at_ms, earliest.change) <= old.number, "every list that is good is a start");
            if old.number < base {
                // Changes begin later only where the list itself is no longer than they would be.
                let (revoked, released) = state.changes_of(issuer, earliest.change, 0);
                assert!(revoked.len() + released.len() >= listed.len(), "{} {base}", old.number);
                continue;
            }
            drop(state);
            let mut applied: BTreeMap<String, Option<u8>> = read(&old.der).2.into_iter().collect();
            for (serial, reason) in &changes {
                match reason {
                    Some(8) => drop(applied.remove(serial)),
                    _ => drop(applied.insert(serial.clone(), *reason)),
                }
            }
            assert_eq!(applied, listed, "step {step}");
            combined += 1;
        }
        site.clock.advance(Duration::from_secs(5 * 3_600 + 1));
    }
    assert!(combined > 40, "{combined}");
    site.end().await;
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
