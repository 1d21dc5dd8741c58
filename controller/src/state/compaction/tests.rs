use super::*;
use crate::state::tests::{Bench, machine_record};
use crate::state::{
    Action, Applicant, ClearPsk, Command, CommandBatch, MachineRow, OpenSession, Outcome, ProofKind, PutMachines,
    RecordCertificate, ReleaseCertificates, RevokeCertificates, Selector, Verdict,
};

const NAME: &str = "laptop.example.com";
const END_MS: u64 = 50_000;

fn record(bench: &mut Bench, row: CertificateRow) {
    // As it was before there were rules for what operators have issued.
    bench.raise(COMPACTION_LEVEL - 1);
    bench.done(Action::RecordCertificate(RecordCertificate { record: Some(row), answer: Vec::new() }));
    bench.raise(COMPACTION_LEVEL);
}

fn machine(serial: &str) -> CertificateRow {
    let fingerprint = vec![7; 32];
    CertificateRow { name: NAME.into(), not_after_ms: END_MS, fingerprint, ..machine_record(serial) }
}

fn revoke(serial: &str, reason: Reason) -> Action {
    let which = Some(Selector::Serial(serial.into()));
    Action::RevokeCertificates(RevokeCertificates { which, code: reason.code().into(), text: "a reason".into() })
}

/// The log's time goes on to when nothing asks for what had ended by `end_ms`.
fn long_after(bench: &mut Bench, end_ms: u64) {
    let at_ms = end_ms + KEPT_MS;
    bench.state.apply(&Command { request_id: Vec::new(), at_ms, action: Some(Action::ClearPsk(ClearPsk {})) });
}

fn compact(bench: &mut Bench, serials: &[&str]) -> Outcome {
    let serials = serials.iter().map(|serial| (*serial).to_owned()).collect();
    let outcome = bench.apply(Action::CompactCertificates(CompactCertificates { serials }));
    let again = State::from_rows(bench.state.rows()).expect("loads");
    assert_eq!(again.rows(), bench.state.rows());
    assert_eq!(format!("{:?}", again.index), format!("{:?}", bench.state.index));
    outcome
}

fn conflict(outcome: Outcome) -> (ConflictKind, String) {
    match outcome {
        Outcome::Conflict(c) => (c.kind(), c.message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_ended_long_ago_is_still_known_for_what_it_was() {
    let mut b = Bench::new();
    for serial in ["a1", "a2", "a3"] {
        record(&mut b, machine(serial));
    }
    assert!(matches!(b.apply(revoke("a2", Reason::KeyCompromise)), Outcome::Revoked(_)));
    // A later one, whose number stays.
    assert!(matches!(b.apply(revoke("a3", Reason::Unspecified)), Outcome::Revoked(_)));
    assert_eq!(compact(&mut b, &["a1", "a2"]), Outcome::Done(Default::default()), "not yet: nothing happens");
    assert!(b.state.ended.is_empty());
    long_after(&mut b, END_MS);
    let (leaves, before) = (b.state.log_tree().size(), b.state.last_revocation_or_release());
    compact(&mut b, &["a1", "a2", "a3", "ff"]);
    assert_eq!((b.state.ended.len(), b.state.certificates.contains(&"a1".to_owned())), (2, false));
    assert_eq!((b.state.log_tree().size(), b.state.last_revocation_or_release()), (leaves, before));
    assert_eq!(b.state.live_changes(0, usize::MAX).len(), 3, "the root, and one that was issued and revoked");

    // It is no forgery, it is not good, and it says why.
    let now_ms = b.state.now_ms();
    for (serial, kind, how) in [("a1", RefusalKind::Ended, "has ended"), ("a2", RefusalKind::Revoked, "key-compromise")]
    {
        let (cause, remedy) = b.state.machine_certificate(serial, now_ms).expect_err("over");
        assert!(cause.contains(NAME) && cause.contains(how) && remedy.contains("cert issue"), "{cause} {remedy}");
        let old = b.state.ended.get(serial).expect("known");
        assert!(old.has(&[7; 32]) && !old.has(&[8; 32]));
        assert_eq!((old.not_after_ms, old.revoked_ms != 0), (END_MS, serial == "a2"));
        let applicant = Applicant {
            proof: Some(ProofKind::Certificate(serial.into())),
            key_sha256: vec![1; 32],
            key: v1::KeyAlgorithm::EcdsaP256,
            source: "192.0.2.7".into(),
        };
        let Verdict::Refused(refusal) = b.state.authorise(&applicant, now_ms) else { panic!("granted") };
        assert_eq!(refusal.kind, kind, "{refusal:?}");
        // And nobody has its number again.
        let again = Action::RecordCertificate(RecordCertificate { record: Some(machine(serial)), answer: Vec::new() });
        b.raise(COMPACTION_LEVEL - 1);
        assert_eq!(conflict(b.apply(again)).0, ConflictKind::AlreadyExists);
        b.raise(COMPACTION_LEVEL);
        let (kind, why) = conflict(b.apply(revoke(serial, Reason::KeyCompromise)));
        assert!(kind == ConflictKind::Precondition && why.contains("cert revoke --machine"), "{why}");
        let release = ReleaseCertificates { which: Some(Selector::Serial(serial.into())) };
        assert_eq!(conflict(b.apply(Action::ReleaseCertificates(release))).0, ConflictKind::Precondition);
    }
    assert_eq!(conflict(b.apply(revoke("ff", Reason::KeyCompromise))).0, ConflictKind::NotFound);
}

#[test]
fn what_something_hangs_on_keeps_its_record() {
    let mut b = Bench::new();
    let of = |serial: &str, profile: v1::CertificateProfile| CertificateRow {
        profile: profile.into(),
        name: format!("{serial}.example.com"),
        member: 3,
        ..machine(serial)
    };
    let kept = [
        of("a1", v1::CertificateProfile::Root),
        of("a2", v1::CertificateProfile::Issuing),
        of("a3", v1::CertificateProfile::Controller),
        CertificateRow { name: "held.example.com".into(), ..machine("a4") },
        CertificateRow { name: "in.example.com".into(), ..machine("a5") },
        CertificateRow { name: "last.example.com".into(), ..machine("a6") },
        CertificateRow { name: "odd.example.com".into(), ..machine("no number") },
    ];
    let goes = [
        of("b1", v1::CertificateProfile::Gateway),
        of("b2", v1::CertificateProfile::GatewayLink),
        of("b3", v1::CertificateProfile::Operator),
        of("b4", v1::CertificateProfile::OcspSigner),
        CertificateRow { name: "gone.example.com".into(), ..machine("b5") },
    ];
    for row in kept.iter().chain(&goes) {
        record(&mut b, row.clone());
    }
    let identity = v1::MachineIdentity {
        auth: v1::MachineAuth::Certificate.into(),
        certificate_serial: "a5".into(),
        ..Default::default()
    };
    assert!(matches!(
        b.apply(Action::OpenSession(OpenSession { machine: Some(identity), ..b.wish(1, "ada") })),
        Outcome::Opened(_)
    ));
    assert!(matches!(b.apply(revoke("a4", Reason::CertificateHold)), Outcome::Revoked(_)));
    assert!(matches!(b.apply(revoke("b5", Reason::KeyCompromise)), Outcome::Revoked(_)));
    assert!(matches!(b.apply(revoke("a6", Reason::KeyCompromise)), Outcome::Revoked(_)));
    long_after(&mut b, END_MS);
    let serials: Vec<&str> = kept.iter().chain(&goes).map(|row| row.serial.as_str()).collect();
    compact(&mut b, &serials);
    for row in &kept {
        assert!(b.state.certificates.contains(&row.serial) && !b.state.ended.contains(&row.serial), "{}", row.serial);
    }
    for row in &goes {
        assert!(!b.state.certificates.contains(&row.serial) && b.state.ended.contains(&row.serial), "{}", row.serial);
        assert_eq!(b.state.ended.get(&row.serial).map(|old| old.name), Some(row.name.as_str()));
    }
    // One that is released, and no longer the last, goes later.
    let which = Some(Selector::Serial("a4".into()));
    assert!(matches!(b.apply(Action::ReleaseCertificates(ReleaseCertificates { which })), Outcome::Revoked(_)));
    compact(&mut b, &["a4", "a6"]);
    assert!(b.state.certificates.contains(&"a4".to_owned()), "its release is the last there was");
    assert!(b.state.certificates.contains(&"a6".to_owned()), "as its revocation is");
}

#[test]
fn a_key_in_the_list_stays_worth_nothing_once_the_revoked_certificate_beside_it_is_compacted() {
    let mut b = Bench::new();
    let listed = MachineRow { name: NAME.into(), profile: "machine".into(), ..MachineRow::default() };
    b.raise(COMPACTION_LEVEL);
    b.done(Action::PutMachines(PutMachines {
        machines: vec![MachineRow { key_sha256: vec![9; 32], ..listed }],
        ..PutMachines::default()
    }));
    record(&mut b, machine("a1"));
    record(&mut b, CertificateRow { name: "other.example.com".into(), ..machine("a2") });
    assert_eq!(b.state.machine(NAME).map(|machine| machine.serial.as_str()), Some("a1"));
    // As one that was revoked at a time when that did not end what the list says of its key.
    b.state.revoke_row(&"a1".to_owned(), Reason::KeyCompromise, "stolen");
    b.state.revoke_row(&"a2".to_owned(), Reason::Unspecified, "");
    let applicant =
        Applicant { proof: None, key_sha256: vec![9; 32], key: v1::KeyAlgorithm::Rsa2048, source: "192.0.2.7".into() };
    let refused = |b: &Bench| match b.state.authorise(&applicant, b.state.now_ms()) {
        Verdict::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    };
    let before = refused(&b);
    assert_eq!(before.kind, RefusalKind::Revoked);
    long_after(&mut b, END_MS);
    compact(&mut b, &["a1"]);
    assert!(b.state.ended.contains("a1"));
    assert_eq!(refused(&b), before);
}

#[test]
fn one_entry_is_about_few_and_belongs_to_its_level() {
    let mut b = Bench::new();
    let serials = vec!["a1"; MAX_COMPACTED + 1];
    assert_eq!(conflict(compact(&mut b, &serials)).0, ConflictKind::Invalid);
    let action = Some(Action::CompactCertificates(CompactCertificates::default()));
    let batch = CommandBatch { commands: vec![Command { request_id: Vec::new(), at_ms: 0, action }] };
    assert!(batch.is_known(COMPACTION_LEVEL) && !batch.is_known(COMPACTION_LEVEL - 1));
}

/// A machine that goes away renews nothing, so nothing replaces what is kept of it.
#[test]
fn the_certificate_of_a_machine_that_never_came_again_goes_with_its_record() {
    let mut b = Bench::new();
    for serial in ["a1", "a2"] {
        record(&mut b, machine(serial));
        let row = b.state.certificates.get(&serial.to_owned()).expect("recorded").clone();
        b.state.keep_certificate(&row, &[1, 2, 3]);
    }
    assert_eq!(b.state.kept_certificates.serials(), ["a1", "a2"]);
    long_after(&mut b, END_MS);
    compact(&mut b, &["a1"]);
    assert_eq!(b.state.kept_certificates.serials(), ["a1", "a2"], "below the level it stays");
    b.raise(KEPT_LEVEL);
    compact(&mut b, &["a2"]);
    assert_eq!(b.state.kept_certificates.serials(), ["a1"]);
}
