use sallyport_proto::v1;

use super::*;
use crate::state::tests::Bench;
use crate::state::{Action, Command, Outcome, RecordCertificate, ReleaseCertificates, RevokeCertificates, Selector};

const HOUR_MS: u64 = 3_600_000;

struct Site {
    bench: Bench,
    at_ms: u64,
}

impl Site {
    fn new() -> Self {
        let mut bench = Bench::empty();
        bench.raise(DELTAS_LEVEL);
        // The middle of a span.
        Self { bench, at_ms: 100 * LISTS_SPAN_MS + 12 * HOUR_MS }
    }

    fn apply(&mut self, action: Action) {
        let command = Command { request_id: Vec::new(), at_ms: self.at_ms, action: Some(action) };
        let outcome = self.bench.state.apply(&command).outcome;
        assert!(!matches!(outcome, Some(Outcome::Conflict(_)) | None), "{outcome:?}");
    }

    fn set(&mut self, delta_crl: bool) {
        let settings = crate::state::SettingsRow { delta_crl, ..self.bench.state.settings() };
        self.apply(Action::UpdateSettings(crate::state::UpdateSettings { settings: Some(settings) }));
    }

    fn issue(&mut self, serial: &str) {
        let record = CertificateRow {
            serial: serial.into(),
            name: format!("m{serial}.example.com"),
            profile: v1::CertificateProfile::Machine.into(),
            not_after_ms: self.at_ms + 30 * LISTS_SPAN_MS,
            key_algorithm: v1::KeyAlgorithm::EcdsaP256.into(),
            ..CertificateRow::default()
        };
        self.apply(Action::RecordCertificate(RecordCertificate { record: Some(record), answer: Vec::new() }));
    }

    fn revoke(&mut self, serial: &str, code: u32) {
        let which = Some(Selector::Serial(serial.into()));
        self.apply(Action::RevokeCertificates(RevokeCertificates { which, code, ..RevokeCertificates::default() }));
    }

    fn release(&mut self, serial: &str) {
        let which = Some(Selector::Serial(serial.into()));
        self.apply(Action::ReleaseCertificates(ReleaseCertificates { which }));
    }

    /// What has changed since the earliest start: revoked, and released.
    fn changes(&self) -> (Vec<&str>, Vec<&str>) {
        let base = *self.bench.state.delta_bases().first().expect("a start");
        let (revoked, released) = self.bench.state.changes_of(0, base.change, 0);
        let serials = |rows: Vec<&'_ CertificateRow>| rows.iter().map(|row| row.serial.as_str().to_owned()).collect();
        let (revoked, released): (Vec<String>, Vec<String>) = (serials(revoked), serials(released));
        let known = |of: Vec<String>| {
            let all = ["aa", "ab", "ac", "ad"];
            of.iter().filter_map(|s| all.into_iter().find(|a| a == s)).collect::<Vec<_>>()
        };
        (known(revoked), known(released))
    }
}

#[test]
fn changes_start_from_the_begin_of_the_span_before_and_never_from_before_they_were_asked_for() {
    let mut site = Site::new();
    for serial in ["aa", "ab", "ac", "ad"] {
        site.issue(serial);
    }
    site.revoke("aa", 1);
    assert!(site.bench.state.delta_bases().is_empty(), "off");
    let before = site.bench.state.lists_change();
    site.set(true);
    let begun = site.at_ms;
    assert!(site.bench.state.lists_change() > before, "complete lists are made anew, with the address");
    assert_eq!(site.bench.state.delta_bases().first().map(|b| b.at_ms), Some(begun));
    assert_eq!(site.changes(), (vec![], vec![]));
    site.revoke("ab", 6);
    assert_eq!(site.changes(), (vec!["ab"], vec![]));
    // A span later that is still a change, two spans later it is on the list that changes start from.
    site.at_ms += LISTS_SPAN_MS;
    site.release("ab");
    site.revoke("ac", 1);
    assert_eq!(site.changes(), (vec!["ac"], vec!["ab"]));
    assert_eq!(site.bench.state.delta_bases().len(), 2);
    site.at_ms += LISTS_SPAN_MS;
    site.issue("ae");
    assert_eq!(site.changes(), (vec!["ac"], vec!["ab"]), "of the span before");
    let bases = site.bench.state.delta_bases();
    let spans: Vec<u64> = bases.iter().map(|b| b.at_ms % LISTS_SPAN_MS).collect();
    assert_eq!((spans, bases.len()), (vec![0, 0], 2));
    site.revoke("ab", 6);
    assert_eq!(site.changes(), (vec!["ac", "ab"], vec![]), "what is revoked again is not released");
    site.at_ms += LISTS_SPAN_MS;
    site.issue("af");
    assert_eq!(site.changes(), (vec!["ab"], vec![]));
    // Days on which nothing happens.
    site.at_ms += 5 * LISTS_SPAN_MS;
    site.issue("b0");
    assert_eq!(site.changes(), (vec![], vec![]));
    site.revoke("ad", 1);
    assert_eq!(site.changes(), (vec!["ad"], vec![]));
    let again = State::from_rows(site.bench.state.rows()).expect("reads");
    assert_eq!(again.delta_bases(), site.bench.state.delta_bases());
    assert!(site.bench.state.deltas().is_some_and(|row| row.marks.len() <= MAX_MARKS));
}

#[test]
fn when_they_are_off_again_nothing_of_them_is_left_and_a_new_cluster_begins_anew() {
    let mut site = Site::new();
    site.issue("aa");
    site.set(true);
    site.revoke("aa", 1);
    let mut restored = State::from_rows(site.bench.state.rows()).expect("reads");
    let later = site.at_ms + HOUR_MS;
    restored.begin_anew(later);
    let bases = restored.delta_bases();
    assert_eq!(bases.iter().map(|b| b.at_ms >= later).collect::<Vec<_>>(), [true], "{bases:?}");
    assert_eq!(bases[0].change, restored.lists_change().number);

    let before = site.bench.state.lists_change();
    site.set(false);
    assert!(site.bench.state.delta_bases().is_empty() && site.bench.state.deltas().is_none());
    assert!(site.bench.state.lists_change() > before, "complete lists name the address no more");
}

#[test]
fn below_their_level_nobody_asks_for_them() {
    let settings = crate::state::SettingsRow { delta_crl: true, ..crate::state::SettingsRow::default() };
    let command = crate::state::UpdateSettings { settings: Some(settings) };
    assert_eq!(Action::UpdateSettings(command).level(), DELTAS_LEVEL);
}
