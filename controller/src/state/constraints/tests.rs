use super::*;
use crate::state::tests::Bench;
use crate::state::{
    Action, AddIssuers, CertificateRow, ConflictKind, Outcome, RecordCertificate, RetireIssuer, SetGatewayNames,
    UpdateSettings,
};

const EC: v1::KeyAlgorithm = v1::KeyAlgorithm::EcdsaP256;
const RSA: v1::KeyAlgorithm = v1::KeyAlgorithm::Rsa2048;

fn record(serial: &str, profile: Profile, name: &str, issuer: u64) -> CertificateRow {
    CertificateRow {
        serial: serial.into(),
        profile: profile_to_proto(profile).into(),
        name: name.into(),
        key_algorithm: EC.into(),
        not_after_ms: 1_000_000,
        issuer,
        ..CertificateRow::default()
    }
}

fn new(number: u64, kind: v1::KeyAlgorithm, permitted: &[&str]) -> NewIssuer {
    let permitted: Vec<String> = permitted.iter().map(|s| (*s).to_owned()).collect();
    NewIssuer {
        number,
        certificate: vec![10],
        sealed_key: vec![1],
        root: 1,
        record: Some(CertificateRow {
            serial: format!("aa{number}"),
            profile: v1::CertificateProfile::Issuing.into(),
            key_algorithm: kind.into(),
            ..CertificateRow::default()
        }),
        constraints: (!permitted.is_empty()).then_some(ConstraintsRow { permitted, excluded: Vec::new() }),
    }
}

fn add(bench: &mut Bench, issuer: NewIssuer, replace: bool) -> Result<(), ConflictKind> {
    said(bench, Action::AddIssuers(AddIssuers { issuers: vec![issuer], replace }))
}

fn said(bench: &mut Bench, action: Action) -> Result<(), ConflictKind> {
    match bench.apply(action) {
        Outcome::Conflict(conflict) => Err(conflict.kind()),
        _ => Ok(()),
    }
}

fn put(bench: &mut Bench, serial: &str, profile: Profile, name: &str, issuer: u64) -> Result<(), ConflictKind> {
    let record = Some(record(serial, profile, name, issuer));
    said(bench, Action::RecordCertificate(RecordCertificate { record, answer: Vec::new() }))
}

fn bench() -> Bench {
    let mut bench = Bench::empty();
    bench.raise(CONSTRAINTS_LEVEL);
    add(&mut bench, new(1, EC, &[]), false).expect("the first");
    bench
}

#[test]
fn machines_and_gateways_have_theirs_from_the_one_with_constraints_and_all_others_from_the_one_without() {
    let mut bench = bench();
    put(&mut bench, "b1", Profile::Machine, "laptop7.other.net", 1).expect("there are no constraints yet");
    add(&mut bench, new(2, EC, &["example.com", "10.0.0.0/8"]), false).expect("beside the one without");
    for (profile, number) in [
        (Profile::Machine, 2),
        (Profile::Gateway, 2),
        (Profile::GatewayLink, 1),
        (Profile::Controller, 1),
        (Profile::Operator, 1),
        (Profile::User, 1),
        (Profile::Endpoint, 1),
    ] {
        for kind in [EC, RSA] {
            let issuer = bench.state.issuer_for(profile_to_proto(profile), kind);
            assert_eq!(issuer.map(|(n, _)| n), Some(number), "{profile}");
        }
    }
    assert_eq!(put(&mut bench, "b2", Profile::Machine, "laptop7.example.com", 1), Err(ConflictKind::Changed));
    assert_eq!(put(&mut bench, "b2", Profile::Machine, "laptop7.example.com", 2), Ok(()));
    assert_eq!(put(&mut bench, "b3", Profile::Machine, "laptop7.other.net", 2), Err(ConflictKind::Changed));
    assert_eq!(put(&mut bench, "b3", Profile::Operator, "ann.other.net", 2), Err(ConflictKind::Changed));
    assert_eq!(put(&mut bench, "b3", Profile::Operator, "ann.other.net", 1), Ok(()));
    // Of that name there can be none, and the refusal says which constraint it is.
    let asked = |name: &str| {
        let maker = crate::state::Maker::Operator;
        bench.state.may_make(Profile::Machine, maker, EC, &[name.to_owned()], 0).map(drop)
    };
    assert_eq!(asked("laptop8.example.com"), Ok(()));
    let why = asked("laptop8.other.net").expect_err("outside");
    assert!(why.contains("laptop8.other.net") && why.contains("permitted is example.com"), "{why}");
    assert!(why.contains("(issuing authority 2)"), "{why}");
    let why = asked("10.1.2.3").expect_err("its common name counts as a host name");
    assert!(why.contains("common name"), "{why}");
}

#[test]
fn there_is_always_one_without_constraints_and_each_is_replaced_by_its_like() {
    let mut bench = Bench::empty();
    bench.raise(CONSTRAINTS_LEVEL);
    assert_eq!(add(&mut bench, new(1, EC, &["example.com"]), false), Err(ConflictKind::Precondition));
    add(&mut bench, new(1, EC, &[]), false).expect("the first");
    add(&mut bench, new(2, EC, &["example.com"]), false).expect("beside it");
    assert_eq!(add(&mut bench, new(3, EC, &["example.org"]), false), Err(ConflictKind::AlreadyExists));
    assert_eq!(
        said(&mut bench, Action::RetireIssuer(RetireIssuer { number: 1, compromised: false })),
        Err(ConflictKind::Precondition)
    );
    add(&mut bench, new(3, EC, &["example.org"]), true).expect("in the place of the second");
    add(&mut bench, new(4, EC, &[]), true).expect("in the place of the first");
    assert_eq!(bench.state.issuers_in_force().map(|(n, _)| n).collect::<Vec<_>>(), [3, 4]);
    said(&mut bench, Action::RetireIssuer(RetireIssuer { number: 3, compromised: false }))
        .expect("constraints are off again");
    assert_eq!(put(&mut bench, "b1", Profile::Machine, "laptop7.other.net", 4), Ok(()));
    let again = State::from_rows(bench.state.rows()).expect("reads");
    assert_eq!(again.rows(), bench.state.rows());
}

#[test]
fn rows_that_are_no_constraints_are_refused_and_so_is_what_gateways_show_outside_of_them() {
    let mut bench = bench();
    for bad in [&[".example.com"][..], &["10.0.0.1/8"], &["b\u{fc}cher.example"], &[""]] {
        assert_eq!(add(&mut bench, new(2, EC, bad), false), Err(ConflictKind::Invalid), "{bad:?}");
    }
    let many: Vec<String> = (0..10_000).map(|n| format!("d{n}.example")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(add(&mut bench, new(2, EC, &many), false), Err(ConflictKind::Invalid));
    put(&mut bench, "b1", Profile::Gateway, "vpn.example.com", 1).expect("records");
    assert_eq!(add(&mut bench, new(2, EC, &["other.net"]), false), Err(ConflictKind::Precondition));
    add(&mut bench, new(2, EC, &["example.com", "192.0.2.0/24"]), false).expect("fits");
    let settings = |bench: &Bench, name: &str| {
        let settings = crate::state::SettingsRow { public_names: vec![name.into()], ..bench.state.settings() };
        Action::UpdateSettings(UpdateSettings { settings: Some(settings) })
    };
    let set = settings(&bench, "vpn.other.net");
    assert_eq!(said(&mut bench, set), Err(ConflictKind::Precondition));
    let names = |name: &str| SetGatewayNames { name: "gw1".into(), names: vec![name.into()] };
    assert_eq!(said(&mut bench, Action::SetGatewayNames(names("198.51.100.1"))), Err(ConflictKind::Precondition));
    assert_eq!(said(&mut bench, Action::SetGatewayNames(names("192.0.2.1"))), Ok(()));
    let set = settings(&bench, "vpn2.example.com");
    assert_eq!(said(&mut bench, set), Ok(()));
}

#[test]
fn below_its_level_no_authority_has_constraints() {
    let constrained = Action::AddIssuers(AddIssuers { issuers: vec![new(2, EC, &["example.com"])], replace: false });
    assert_eq!(constrained.level(), CONSTRAINTS_LEVEL);
    let plain = Action::AddIssuers(AddIssuers { issuers: vec![new(2, EC, &[])], replace: false });
    assert_eq!(plain.level(), crate::state::ISSUERS_LEVEL);
}
