use super::*;
use crate::state::tests::{Bench, machine_record};
use crate::state::{
    Action, CreateEnrollToken, MachineRow, OpenSession, Outcome, PutMachines, RecordCertificate, RevokeCertificate,
};

/// A state at the level of revocation.
fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.raise(REVOCATION_LEVEL);
    bench
}

fn record(bench: &mut Bench, serial: &str, name: &str) {
    record_row(bench, CertificateRow { name: name.into(), ..machine_record(serial) });
}

/// As it was before there were rules for what operators have issued.
fn record_row(bench: &mut Bench, row: CertificateRow) {
    let level = bench.state.level();
    bench.raise(level.min(REVOCATION_LEVEL - 1));
    bench.done(Action::RecordCertificate(RecordCertificate { record: Some(row), answer: Vec::new() }));
    bench.raise(level);
}

fn revoke(which: Selector, reason: Reason) -> Action {
    Action::RevokeCertificates(RevokeCertificates {
        which: Some(which),
        code: reason.code().into(),
        text: "a reason".into(),
    })
}

fn release(which: Selector) -> Action {
    Action::ReleaseCertificates(ReleaseCertificates { which: Some(which) })
}

fn revoked(bench: &mut Bench, action: Action) -> Revoked {
    match bench.apply(action) {
        Outcome::Revoked(revoked) => revoked,
        other => panic!("{other:?}"),
    }
}

fn conflict(bench: &mut Bench, action: Action) -> (ConflictKind, String) {
    match bench.apply(action) {
        Outcome::Conflict(c) => (c.kind(), c.message),
        other => panic!("{other:?}"),
    }
}

fn row<'a>(bench: &'a Bench, serial: &str) -> &'a CertificateRow {
    bench.state.certificates.get(&serial.to_owned()).expect("recorded")
}

fn machine(name: &str) -> Selector {
    Selector::Machine(name.into())
}

fn holder(name: &str) -> Selector {
    Selector::Holder(name.into())
}

fn token(bench: &mut Bench, id: u8, name: &str, of: &str) {
    bench.done(Action::CreateEnrollToken(CreateEnrollToken {
        id: vec![id; 8],
        hash: vec![id; 32],
        profile: "machine".into(),
        name: name.into(),
        ttl_ms: 1_000_000,
        uses: 3,
        holder: of.into(),
        ..CreateEnrollToken::default()
    }));
}

/// The state as it is stored, loaded again, is the same in all that is asked of it.
fn assert_reloads(bench: &Bench) {
    let again = State::from_rows(bench.state.rows()).expect("loads");
    assert_eq!(again.rows(), bench.state.rows());
    assert_eq!(again.live_changes(0, usize::MAX), bench.state.live_changes(0, usize::MAX));
    assert_eq!(again.last_revocation(), bench.state.last_revocation());
    assert_eq!(format!("{:?}", again.index), format!("{:?}", bench.state.index));
}

#[test]
fn all_certificates_of_a_machine_go_in_one_entry_with_their_reason_and_their_sessions() {
    let mut b = bench();
    for serial in ["a1", "a2", "a3"] {
        record(&mut b, serial, "Laptop.example.com");
    }
    record(&mut b, "b1", "other.example.com");
    let identity = v1::MachineIdentity {
        auth: v1::MachineAuth::Certificate.into(),
        certificate_serial: "a1".into(),
        ..Default::default()
    };
    let wish = OpenSession { machine: Some(identity), ..b.wish(1, "ada") };
    assert!(matches!(b.apply(Action::OpenSession(wish)), Outcome::Opened(_)));
    let done = revoked(&mut b, revoke(machine("laptop.EXAMPLE.com"), Reason::KeyCompromise));
    assert_eq!((done.serials.as_slice(), done.ended_sessions), (["a1", "a2", "a3"].map(String::from).as_slice(), 1));
    for serial in ["a1", "a2", "a3"] {
        let row = row(&b, serial);
        assert_eq!((row.reason(), row.revocation_reason.as_str()), (Reason::KeyCompromise, "a reason"));
        assert!(row.revoked_ms != 0 && row.revocation_number > done.after && row.revocation_number <= done.last);
    }
    assert_eq!(row(&b, "b1").revoked_ms, 0);
    let (cause, _) = b.state.machine_certificate("a2", 0).expect_err("revoked");
    assert!(cause.contains("revoked: key-compromise (a reason)"), "{cause}");
    // Again there is nothing to do, and that is no mistake.
    let again = revoked(&mut b, revoke(machine("laptop.example.com"), Reason::KeyCompromise));
    assert_eq!(again.serials, Vec::<String>::new());
    let (kind, why) = conflict(&mut b, revoke(machine("nobody.example.com"), Reason::KeyCompromise));
    assert!(kind == ConflictKind::NotFound && why.contains("sallyport machine list"), "{why}");
    assert_reloads(&b);
}

#[test]
fn what_is_on_hold_is_refused_until_it_is_released_and_what_is_revoked_for_good_is_not_released() {
    let mut b = bench();
    record(&mut b, "a1", "laptop.example.com");
    let at = Selector::Serial("a1".into());
    let held = revoked(&mut b, revoke(at.clone(), Reason::CertificateHold));
    assert!(row(&b, "a1").is_on_hold() && held.serials == ["a1"]);
    let (cause, remedy) = b.state.machine_certificate("a1", 0).expect_err("on hold");
    assert!(cause.contains("on hold") && remedy.contains("sallyport cert release a1"), "{cause} {remedy}");
    assert!(b.state.machine_on_hold("laptop.example.com"), "nor does it get another certificate meanwhile");
    assert_reloads(&b);

    let released = revoked(&mut b, release(at.clone()));
    assert!(released.serials == ["a1"] && released.last > held.last);
    let free = row(&b, "a1");
    assert_eq!((free.revoked_ms, free.revocation_code, free.revocation_reason.as_str()), (0, 0, ""));
    assert!(b.state.machine_certificate("a1", 0).is_ok());
    assert_eq!(b.state.live_changes(held.last, 10).len(), 1, "gateways hear of it");
    assert_reloads(&b);
    assert_eq!(conflict(&mut b, release(at.clone())).0, ConflictKind::Precondition);

    revoked(&mut b, revoke(machine("laptop.example.com"), Reason::CertificateHold));
    let since = row(&b, "a1").revoked_ms;
    revoked(&mut b, revoke(at.clone(), Reason::KeyCompromise));
    let row = row(&b, "a1").clone();
    assert_eq!((row.reason(), row.revoked_ms, row.release_number), (Reason::KeyCompromise, since, 0));
    assert_eq!(conflict(&mut b, release(machine("laptop.example.com"))).0, ConflictKind::Precondition);
    let (_, why) = conflict(&mut b, revoke(at, Reason::CertificateHold));
    assert!(why.contains("for good"), "{why}");
    assert_reloads(&b);
}

#[test]
fn a_holder_loses_all_machines_and_what_was_to_bring_others() {
    let mut b = bench();
    let listed = |name: &str, key: u8| MachineRow {
        name: name.into(),
        profile: "machine".into(),
        holder: "Ada Lovelace".into(),
        key_sha256: vec![key; 32],
        ..MachineRow::default()
    };
    let machines = vec![listed("one.example.com", 1), listed("two.example.com", 2)];
    b.done(Action::PutMachines(PutMachines { machines, keep: false }));
    record(&mut b, "a1", "one.example.com");
    record(&mut b, "a2", "two.example.com");
    record(&mut b, "a3", "three.example.com");
    token(&mut b, 1, "one.example.com", "");
    token(&mut b, 2, "four.example.com", "ada lovelace");
    token(&mut b, 3, "three.example.com", "somebody else");
    let done = revoked(&mut b, revoke(holder("ADA lovelace"), Reason::AffiliationChanged));
    assert_eq!((done.serials.len(), done.tokens), (2, 2));
    assert_eq!((row(&b, "a3").revoked_ms, b.state.enroll_tokens.len()), (0, 1));
    for name in ["one.example.com", "two.example.com"] {
        assert_eq!(b.state.machine(name).expect("known").key_sha256, Vec::<u8>::new(), "its key opens nothing");
    }
    assert_eq!(conflict(&mut b, revoke(holder("Eve"), Reason::KeyCompromise)).0, ConflictKind::NotFound);
    // On hold, what was made for a machine stays as it is: it counts again when the machine is released.
    let (_, why) = conflict(&mut b, revoke(machine("four.example.com"), Reason::CertificateHold));
    assert!(why.contains("no machine"), "{why}");
    assert_reloads(&b);
}

/// Whoever may revoke machines, and nothing else, tries the names and holders of gateways' tokens.
#[test]
fn what_is_made_for_gateways_is_no_machines_to_take_back() {
    let mut b = bench();
    let of_gateway = |id: u8, name: &str| CreateEnrollToken {
        id: vec![id; 8],
        hash: vec![id; 32],
        profile: "gateway-link".into(),
        name: name.into(),
        ttl_ms: 1_000_000,
        uses: 1,
        holder: "ada".into(),
        ..CreateEnrollToken::default()
    };
    b.done(Action::CreateEnrollToken(of_gateway(1, "gw1.example.com")));
    assert_eq!(revoked(&mut b, revoke(machine("gw1.example.com"), Reason::KeyCompromise)).tokens, 1, "below the level");
    b.raise(MACHINES_LEVEL);
    b.done(Action::CreateEnrollToken(of_gateway(2, "gw1.example.com")));
    token(&mut b, 3, "one.example.com", "bob");
    for which in [machine("gw1.example.com"), holder("ada")] {
        assert_eq!(conflict(&mut b, revoke(which, Reason::KeyCompromise)).0, ConflictKind::NotFound);
    }
    // Of a holder of both kinds only the machines are taken.
    b.done(Action::CreateEnrollToken(CreateEnrollToken { holder: "bob".into(), ..of_gateway(4, "one.example.com") }));
    assert_eq!(revoked(&mut b, revoke(holder("bob"), Reason::KeyCompromise)).tokens, 1);
    let left: Vec<u8> = b.state.enroll_tokens.iter().map(|(id, _)| id[0]).collect();
    assert_eq!(left, [2, 4]);
    assert_reloads(&b);
}

#[test]
fn a_token_that_opens_nothing_any_more_goes_and_is_not_counted() {
    let mut b = bench();
    b.raise(MACHINES_LEVEL);
    for id in 1..=3 {
        token(&mut b, id, "one.example.com", "");
    }
    b.state.enroll_tokens.change(&vec![1; 8]).expect("there").used = 3;
    b.state.enroll_tokens.change(&vec![2; 8]).expect("there").expires_ms = b.state.now_ms();
    assert_eq!(revoked(&mut b, revoke(machine("one.example.com"), Reason::KeyCompromise)).tokens, 1);
    assert!(b.state.enroll_tokens.is_empty(), "none brings its answer again");
}

#[test]
fn lists_and_ocsp_tell_one_reason_for_records_of_before_reasons_had_numbers() {
    let told = |code: u32, text: &str| {
        let (revocation_code, revocation_reason) = (code, text.into());
        CertificateRow { revocation_code, revocation_reason, ..CertificateRow::default() }.told_reason()
    };
    assert_eq!(told(0, "superseded: the machine has two newer ones"), Reason::Superseded);
    assert_eq!(told(0, "left on Friday"), Reason::Unspecified);
    assert_eq!(told(1, "superseded"), Reason::KeyCompromise);
    assert_eq!(told(0, Reason::CertificateHold.name()), Reason::Unspecified, "revoked for good");
}

#[test]
fn with_a_certificate_that_is_revoked_by_its_serial_number_goes_what_lay_beside_its_key() {
    let mut b = bench();
    let (profile, key_sha256) = ("machine".into(), vec![1; 32]);
    let listed = MachineRow { name: "one.example.com".into(), profile, key_sha256, ..MachineRow::default() };
    b.done(Action::PutMachines(PutMachines { machines: vec![listed], keep: false }));
    record(&mut b, "a1", "one.example.com");
    token(&mut b, 1, "one.example.com", "");
    token(&mut b, 2, "two.example.com", "");
    let serial = |serial: &str| Selector::Serial(serial.into());
    let key = |b: &Bench| b.state.machine("one.example.com").expect("known").key_sha256.clone();
    assert_eq!(b.state.machine("one.example.com").expect("known").serial, "a1");
    // A thief waits until the name has a certificate that is good, and asks by the list's key or the token for one of it.
    assert_eq!(revoked(&mut b, revoke(serial("a1"), Reason::CertificateHold)).tokens, 0);
    assert_eq!(key(&b), vec![1; 32], "on hold, it stays");
    assert_eq!(revoked(&mut b, revoke(serial("a1"), Reason::KeyCompromise)).tokens, 1);
    assert_eq!((key(&b), b.state.enroll_tokens.len()), (Vec::new(), 1));
    assert_reloads(&b);
}

#[test]
fn a_certificate_of_a_controller_cannot_be_on_hold_and_a_root_not_revoked() {
    let mut b = bench();
    let row = CertificateRow { profile: v1::CertificateProfile::Controller.into(), ..machine_record("c1") };
    record_row(&mut b, row);
    let at = |serial: &str| Selector::Serial(serial.into());
    assert_eq!(conflict(&mut b, revoke(at("c1"), Reason::CertificateHold)).0, ConflictKind::Precondition);
    assert_eq!(conflict(&mut b, revoke(at("r00t"), Reason::KeyCompromise)).0, ConflictKind::Precondition);
    assert_eq!(conflict(&mut b, revoke(at("ff"), Reason::KeyCompromise)).0, ConflictKind::NotFound);
    let nothing = RevokeCertificates { which: None, code: 1, text: String::new() };
    assert_eq!(conflict(&mut b, Action::RevokeCertificates(nothing)).0, ConflictKind::Invalid);
    let strange = RevokeCertificates { which: Some(at("c1")), code: 7, text: String::new() };
    assert_eq!(conflict(&mut b, Action::RevokeCertificates(strange)).0, ConflictKind::Invalid);
}

#[test]
fn below_its_level_nothing_of_a_reason_is_written() {
    let mut b = Bench::new();
    record(&mut b, "a1", "laptop.example.com");
    b.done(Action::RevokeCertificate(RevokeCertificate { serial: "a1".into(), reason: "stolen".into() }));
    let row = row(&b, "a1");
    assert_eq!((row.revocation_code, row.release_number, row.reason()), (0, 0, Reason::Unspecified));
    for action in [revoke(machine("x"), Reason::KeyCompromise), release(machine("x"))] {
        assert!(b.state.permits(&action).is_err(), "{action:?}");
    }
}

#[test]
fn a_holder_of_more_machines_than_one_entry_may_change_is_refused_and_nothing_changes() {
    let mut b = bench();
    let machine = |n: usize| MachineRow {
        name: format!("m{n}.example.com"),
        profile: "machine".into(),
        holder: "Example GmbH".into(),
        key_sha256: vec![0; 32],
        ..MachineRow::default()
    };
    for n in 0..=MAX_MACHINES_REVOKED {
        b.state.put_machine(format!("m{n}.example.com"), machine(n));
    }
    let before = b.state.last_certificate();
    let (kind, why) = conflict(&mut b, revoke(holder("example gmbh"), Reason::CessationOfOperation));
    assert!(kind == ConflictKind::Exhausted && why.contains("machine by machine"), "{why}");
    assert_eq!(b.state.last_certificate(), before);
    let of_another = MachineRow { holder: "another".into(), ..machine(0) };
    b.state.put_machine("m0.example.com".into(), of_another);
    let done = revoked(&mut b, revoke(holder("example gmbh"), Reason::CessationOfOperation));
    assert_eq!(done.serials, Vec::<String>::new());
    let listed = b.state.machines.iter().filter(|(_, row)| !row.key_sha256.is_empty()).map(|(key, _)| key.as_str());
    assert_eq!(listed.collect::<Vec<_>>(), ["m0.example.com"]);
}

#[test]
fn what_has_ended_is_neither_revoked_nor_listed_unless_it_renews() {
    let mut b = bench();
    for (serial, until) in [("a1", 1), ("a2", 1), ("a3", 1), ("a4", u64::MAX)] {
        let row = CertificateRow { name: "laptop.example.com".into(), not_after_ms: until, ..machine_record(serial) };
        record_row(&mut b, row);
    }
    let done = revoked(&mut b, revoke(machine("laptop.example.com"), Reason::KeyCompromise));
    assert_eq!(done.serials, ["a3", "a4"], "the newest, and the one before, which renews late");
    let listed: Vec<&str> = b.state.revoked_of(0, b.state.now_ms()).map(|row| row.serial.as_str()).collect();
    assert_eq!(listed, ["a4"]);
    assert_eq!(b.state.revoked_of(1, 0).count(), 0);
    assert_eq!(b.state.revoked_of(0, 0).map(|row| row.serial.as_str()).collect::<Vec<_>>(), ["a3", "a4"]);
    assert_reloads(&b);
}

mod order {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Issue(u8),
        Revoke(u8),
        Hold(u8),
        Release(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let which = 0_u8..6;
        prop_oneof![
            which.clone().prop_map(Step::Issue),
            which.clone().prop_map(Step::Revoke),
            which.clone().prop_map(Step::Hold),
            which.prop_map(Step::Release),
        ]
    }

    fn take(bench: &mut Bench, step: &Step) {
        let serial = |n: &u8| format!("{n:02x}");
        let action = match step {
            Step::Issue(n) => {
                if !bench.state.certificates.contains(&serial(n)) {
                    record(bench, &serial(n), &format!("m{n}"));
                }
                return;
            }
            Step::Revoke(n) => revoke(Selector::Serial(serial(n)), Reason::KeyCompromise),
            Step::Hold(n) => revoke(Selector::Serial(serial(n)), Reason::CertificateHold),
            Step::Release(n) => release(Selector::Serial(serial(n))),
        };
        bench.apply(action);
    }

    /// What somebody knows who has heard some changes.
    fn hear(known: &mut BTreeMap<String, u64>, changes: &[(u64, &CertificateRow)]) {
        for (_, row) in changes {
            known.insert(row.serial.clone(), row.revoked_ms);
        }
    }

    fn all(state: &State) -> BTreeMap<String, u64> {
        let machines = state.certificates.iter().filter(|(_, row)| row.profile() == v1::CertificateProfile::Machine);
        machines.map(|(serial, row)| (serial.clone(), row.revoked_ms)).collect()
    }

    proptest! {
        #[test]
        fn whoever_hears_all_changes_in_pieces_of_any_size_knows_what_is_live(
            steps in prop::collection::vec((step(), 0_u8..3), 0..60), most in 1_usize..5,
        ) {
            let mut bench = bench();
            let (mut known, mut at) = (BTreeMap::new(), 0);
            for (step, look) in &steps {
                take(&mut bench, step);
                if *look == 0 {
                    let changes = bench.state.live_changes(at, most);
                    at = changes.last().map_or(at, |(number, _)| *number);
                    hear(&mut known, &changes);
                }
            }
            loop {
                let changes = bench.state.live_changes(at, most);
                let Some((number, _)) = changes.last() else { break };
                prop_assert!(*number > at && changes.is_sorted_by(|a, b| a.0 < b.0));
                at = *number;
                hear(&mut known, &changes);
            }
            known.remove("r00t");
            prop_assert_eq!(known, all(&bench.state));
            prop_assert!(at <= bench.state.last_certificate());
        }
    }
}
