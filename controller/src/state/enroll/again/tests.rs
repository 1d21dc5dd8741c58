use sallyport_proto::v1;

use super::super::tests::{NAME, Office, certificate, serial_of, token};
use super::super::*;
use super::*;
use crate::state::{
    Action, ClearPsk, Command, ConflictKind, IntendCertificate, Outcome, RecordCertificate, ReleaseCertificates,
    RevokeCertificates, Selector,
};

const DAY_MS: u64 = 86_400 * 1_000;

fn office() -> Office {
    let mut o = Office::new();
    o.bench.raise(AGAIN_LEVEL);
    o
}

/// The log's time goes on.
fn later(o: &mut Office, by_ms: u64) {
    let at_ms = o.bench.state.now_ms() + by_ms;
    o.bench.state.apply(&Command { request_id: Vec::new(), at_ms, action: Some(Action::ClearPsk(ClearPsk {})) });
}

fn has(o: &Office, proof: Option<ProofKind>, key: u8) -> String {
    match o.ask(proof, key) {
        Verdict::Has(serial) => serial,
        other => panic!("{other:?}"),
    }
}

/// The whole way, as a question of its own.
fn enroll_as(o: &mut Office, proof: Option<ProofKind>, key: u8, transaction: u8) -> String {
    let grant = o.grant(proof, key);
    let intent = IntendCertificate { transaction: vec![transaction; 16], ..o.intent(&grant, key) };
    o.intends(&intent);
    o.complete(&intent);
    serial_of(&intent)
}

fn list(o: &mut Office, key: u8) {
    let (name, profile, key_sha256) = (NAME.into(), "machine".into(), vec![key; 32]);
    let row = MachineRow { name, profile, key_sha256, ..MachineRow::default() };
    o.bench.done(Action::PutMachines(PutMachines { machines: vec![row], keep: true }));
}

fn hold(o: &mut Office) {
    let which = Some(Selector::Machine(NAME.into()));
    let command = RevokeCertificates { which, code: 6, text: "lost".into() };
    assert!(matches!(o.bench.apply(Action::RevokeCertificates(command)), Outcome::Revoked(_)));
}

fn release(o: &mut Office) {
    let which = Some(Selector::Machine(NAME.into()));
    assert!(matches!(o.bench.apply(Action::ReleaseCertificates(ReleaseCertificates { which })), Outcome::Revoked(_)));
}

#[test]
fn what_is_replayed_after_days_brings_the_certificate_that_it_brought_and_moves_nothing() {
    for listed in [false, true] {
        let mut o = office();
        let proof = if listed {
            list(&mut o, 1);
            None
        } else {
            o.token(1, NAME, 9, 400 * DAY_MS);
            token(1)
        };
        let first = o.enroll(proof.clone(), 1);
        for _ in 0..3 {
            later(&mut o, DAY_MS + 1);
            // What a recorded message has put into the log so far.
            assert_eq!(has(&o, proof.clone(), 1), first, "listed: {listed}");
        }
        let second = o.enroll(certificate(&first), 2);
        for _ in 0..3 {
            later(&mut o, DAY_MS + 1);
            assert_eq!(has(&o, proof.clone(), 1), first, "the one before the newest is good, too");
            assert_eq!(has(&o, certificate(&first), 2), second, "a renewal");
        }
        assert_eq!((o.machine().serial.as_str(), o.machine().previous.as_str()), (second.as_str(), first.as_str()));
        assert!(!o.is_revoked(&first) && !o.is_revoked(&second));
        // The log itself refuses what somebody else decided.
        let grant = Grant {
            profile: sallyport_ca::Profile::Machine,
            rules: o.bench.state.profile(sallyport_ca::Profile::Machine),
            name: NAME.into(),
            sans: Vec::new(),
            holder: String::new(),
            proof: Proof { kind: certificate(&first) },
            method: v1::EnrollMethod::Renewal,
        };
        let intent = IntendCertificate { transaction: vec![99; 16], ..o.intent(&grant, 2) };
        assert_eq!(o.conflict(Action::IntendCertificate(intent)), ConflictKind::Changed);
    }
    // Below the level it is as it was.
    let mut o = Office::new();
    o.token(1, NAME, 9, 400 * DAY_MS);
    o.enroll(token(1), 1);
    later(&mut o, DAY_MS + 1);
    assert!(matches!(o.ask(token(1), 1), Verdict::Granted(_)));
    assert!(o.bench.state.kept_certificates.serials().is_empty());
}

#[test]
fn a_key_that_a_machine_has_gone_on_from_is_no_way_back_by_its_token() {
    let mut o = office();
    o.token(1, NAME, 9, 400 * DAY_MS);
    let first = o.enroll(token(1), 1);
    let second = o.enroll(certificate(&first), 2);
    let third = o.enroll(certificate(&second), 3);
    assert!(o.is_revoked(&first));
    assert_eq!(o.refusal(token(1), 1), RefusalKind::UsedUp);
    assert!(matches!(o.ask(token(1), 4), Verdict::Granted(_)), "a machine that was set up anew has a new key");
    assert_eq!((o.machine().serial.as_str(), o.machine().previous.as_str()), (third.as_str(), second.as_str()));
}

#[test]
fn a_machine_renews_with_the_key_that_it_has_and_one_that_is_due_comes_back_as_it_came_first() {
    let mut o = office();
    o.token(1, NAME, 9, 4_000 * DAY_MS);
    let first = o.enroll(token(1), 1);
    let second = enroll_as(&mut o, certificate(&first), 1, 102);
    assert_eq!(has(&o, certificate(&first), 1), second, "asked again");
    let third = enroll_as(&mut o, certificate(&second), 1, 103);
    let row = o.bench.state.certificates.get(&third).expect("there").clone();
    later(&mut o, (row.not_after_ms - row.issued_ms) / 6 * 5 + 1);
    assert!(matches!(o.ask(token(1), 1), Verdict::Refused(_)), "newer ones replaced the first of this key");
    list(&mut o, 1);
    let fourth = enroll_as(&mut o, None, 1, 104);
    assert_eq!((o.machine().serial.as_str(), o.machine().previous.as_str()), (fourth.as_str(), third.as_str()));
}

#[test]
fn a_used_up_token_is_good_for_its_certificate_and_for_nobody_elses() {
    let mut o = office();
    o.token(1, NAME, 1, 10_000);
    let first = o.enroll(token(1), 1);
    later(&mut o, 2 * DAY_MS);
    assert_eq!(has(&o, token(1), 1), first, "the answer was lost, and the lid was closed for two days");
    assert!(matches!(o.refusal(token(1), 2), RefusalKind::Ended | RefusalKind::UsedUp));
    let wrong = ProofKind::Token(TokenProof { id: vec![1; 8], hash: vec![2; 32] });
    assert_eq!(o.refusal(Some(wrong), 1), RefusalKind::Unproven);
    o.revoke(&first);
    assert!(!matches!(o.ask(token(1), 1), Verdict::Has(_)));
}

#[test]
fn the_newest_two_of_a_machine_are_kept_and_no_others() {
    let mut o = office();
    o.token(1, NAME, 1, 10_000);
    let mut serials = vec![o.enroll(token(1), 1)];
    for key in 2..6 {
        serials.push(o.enroll(certificate(serials.last().expect("one")), key));
    }
    let kept = |o: &Office| o.bench.state.kept_certificates.serials();
    let mut two = serials.split_off(3);
    two.sort();
    assert_eq!(kept(&o), two);
    let loaded = State::from_rows(o.bench.state.rows()).expect("loads");
    assert_eq!((loaded.rows(), loaded.kept_certificates.serials()), (o.bench.state.rows(), two.clone()));
    hold(&mut o);
    assert_eq!(kept(&o), two, "what is on hold may come back");
    release(&mut o);
    o.revoke(&two[0]);
    assert!(kept(&o).is_empty());
}

#[test]
fn a_hold_stops_what_is_on_its_way_and_is_not_forgotten() {
    let mut o = office();
    o.token(1, NAME, 2, 10_000);
    let first = o.enroll(token(1), 1);
    let grant = o.grant(certificate(&first), 2);
    let by_token = o.grant(token(1), 3);
    for (grant, key) in [(grant, 2), (by_token, 3)] {
        let intent = o.intent(&grant, key);
        o.intends(&intent);
        hold(&mut o);
        o.complete(&intent);
        assert!(!o.bench.state.certificates.contains(&serial_of(&intent)) && o.bench.state.intents.is_empty());
        assert_eq!(o.machine().serial, first);
        assert_eq!(o.refusal(token(1), 3), RefusalKind::Revoked, "it is on hold");
        release(&mut o);
    }
    assert!(matches!(o.ask(token(1), 3), Verdict::Granted(_)), "the token was given back");
    // What was put into the log by other software all the same does not push it out.
    hold(&mut o);
    let row = o.bench.state.certificates.get(&first).expect("there").clone();
    let newer = CertificateRow { serial: "ffff".into(), revoked_ms: 0, revocation_code: 0, ..row };
    o.bench.state.note_enrolled(&newer, (v1::EnrollMethod::Operator, 0, ""));
    assert_eq!(o.machine().previous, first);
    assert_eq!(o.refusal(token(1), 3), RefusalKind::Revoked);
}

#[test]
fn an_operator_has_no_certificate_made_for_a_machine_on_hold() {
    let mut o = office();
    o.token(1, NAME, 1, 10_000);
    let first = o.enroll(token(1), 1);
    hold(&mut o);
    let row = o.bench.state.certificates.get(&first).expect("there").clone();
    let record = CertificateRow { serial: "aaaa".into(), revoked_ms: 0, revocation_code: 0, ..row };
    let command = RecordCertificate { record: Some(record), answer: Vec::new() };
    match o.bench.apply(Action::RecordCertificate(command.clone())) {
        Outcome::Conflict(c) => {
            assert_eq!(c.kind(), ConflictKind::Precondition);
            assert!(c.message.contains(&format!("sallyport cert release --machine {NAME}")), "{}", c.message);
        }
        other => panic!("{other:?}"),
    }
    release(&mut o);
    o.bench.done(Action::RecordCertificate(command));
}

#[test]
fn who_is_taken_off_the_list_or_removed_gets_no_certificate_that_is_on_its_way() {
    for removed in [false, true] {
        let mut o = office();
        list(&mut o, 1);
        let grant = o.grant(None, 1);
        let intent = o.intent(&grant, 1);
        o.intends(&intent);
        let gone = if removed {
            Action::RemoveMachine(RemoveMachine { key: NAME.into() })
        } else {
            let row = MachineRow { name: NAME.into(), profile: "machine".into(), ..MachineRow::default() };
            Action::PutMachines(PutMachines { machines: vec![row], keep: false })
        };
        o.bench.done(gone);
        o.complete(&intent);
        assert!(!o.bench.state.certificates.contains(&serial_of(&intent)), "removed: {removed}");
    }
    let mut o = office();
    o.token(1, NAME, 1, 10_000);
    let first = o.enroll(token(1), 1);
    let grant = o.grant(certificate(&first), 2);
    let intent = o.intent(&grant, 2);
    o.intends(&intent);
    o.bench.done(Action::RemoveMachine(RemoveMachine { key: NAME.into() }));
    o.complete(&intent);
    assert!(!o.bench.state.certificates.contains(&serial_of(&intent)));
}

#[test]
fn a_machine_gets_no_name_that_became_a_gateways_while_it_was_signed() {
    let mut o = office();
    o.token(1, NAME, 1, 10_000);
    let grant = o.grant(token(1), 1);
    let intent = o.intent(&grant, 1);
    o.intends(&intent);
    let record = CertificateRow {
        serial: "aaaa".into(),
        profile: v1::CertificateProfile::Gateway.into(),
        key_algorithm: v1::KeyAlgorithm::EcdsaP256.into(),
        name: NAME.into(),
        not_after_ms: DAY_MS,
        ..CertificateRow::default()
    };
    o.bench.done(Action::RecordCertificate(RecordCertificate { record: Some(record), answer: Vec::new() }));
    o.complete(&intent);
    assert!(!o.bench.state.certificates.contains(&serial_of(&intent)));
    assert!(o.bench.state.machine(NAME).is_none());
}
