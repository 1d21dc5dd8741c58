//! The operators' rules for profiles, wherever a certificate comes from.

use super::*;
use crate::state::{AdmitMember, CreateToken, DescribeMember, RecordCertificate, RemoveMember};

const EC: v1::KeyAlgorithm = v1::KeyAlgorithm::EcdsaP256;
const HOUR_S: u64 = 3_600;

fn office() -> Office {
    let mut o = Office::new();
    o.bench.raise(RULES_LEVEL);
    o
}

impl Office {
    fn set(&mut self, profile: Profile, change: impl FnOnce(&mut ProfileRow)) -> Outcome {
        let mut row = self.bench.state.profile(profile);
        change(&mut row);
        self.bench.apply(Action::SetProfile(SetProfile { name: profile.name().into(), profile: Some(row) }))
    }

    fn is_set(&mut self, profile: Profile, change: impl FnOnce(&mut ProfileRow)) {
        let outcome = self.set(profile, change);
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }

    fn is_wrong(&mut self, profile: Profile, change: impl FnOnce(&mut ProfileRow)) -> String {
        match self.set(profile, change) {
            Outcome::Conflict(conflict) if conflict.kind() == ConflictKind::Invalid => conflict.message,
            other => panic!("{other:?}"),
        }
    }

    fn make(
        &self,
        profile: Profile,
        maker: Maker,
        key: v1::KeyAlgorithm,
        name: &str,
        validity_s: u64,
    ) -> Result<u64, String> {
        let made = self.bench.state.may_make(profile, maker, key, &[name.to_owned()], validity_s);
        made.map(|rules| rules.validity_s)
    }

    /// Records a certificate as an operator's or a controller's.
    fn record(
        &mut self,
        serial: &str,
        profile: v1::CertificateProfile,
        change: impl FnOnce(&mut CertificateRow),
    ) -> Outcome {
        let mut record = CertificateRow {
            serial: serial.into(),
            profile: profile.into(),
            name: "a.example.com".into(),
            sans: vec!["a.example.com".into()],
            not_after_ms: self.bench.state.now_ms() + HOUR_S * 1_000,
            key_algorithm: EC.into(),
            ..CertificateRow::default()
        };
        change(&mut record);
        self.bench.apply(Action::RecordCertificate(RecordCertificate { record: Some(record), answer: Vec::new() }))
    }

    /// Lets a controller in under a name; its id.
    fn admit(&mut self, name: &str) -> Result<u64, String> {
        let (token, hash) = (vec![9], vec![9; 32]);
        self.bench.done(Action::CreateToken(CreateToken {
            id: token.clone(),
            hash: hash.clone(),
            ttl_ms: 60_000,
            made_by: "x".into(),
        }));
        let record = CertificateRow {
            serial: format!("c-{name}"),
            profile: v1::CertificateProfile::Controller.into(),
            name: sallyport_proto::CONTROLLER_NAME.into(),
            sans: vec![sallyport_proto::CONTROLLER_NAME.into(), name.into()],
            not_after_ms: self.bench.state.now_ms() + 86_400_000,
            key_algorithm: EC.into(),
            ..CertificateRow::default()
        };
        let member = DescribeMember { address: format!("{name}:1"), level: RULES_LEVEL, ..DescribeMember::default() };
        let admit = AdmitMember { token, hash, member: Some(member), learner: false, record: Some(record) };
        match self.bench.apply(Action::AdmitMember(admit)) {
            Outcome::Admitted(admitted) => Ok(admitted.member_id),
            Outcome::Conflict(conflict) => Err(conflict.message),
            other => panic!("{other:?}"),
        }
    }
}

fn refused(outcome: Outcome) -> String {
    match outcome {
        Outcome::Conflict(conflict) if conflict.kind() == ConflictKind::Changed => conflict.message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn whoever_has_a_certificate_made_goes_by_the_profiles_keys_names_life_and_ways() {
    for profile in ISSUABLE {
        let mut o = office();
        let name = "a.example.com";
        assert_eq!(o.make(profile, Maker::Operator, EC, name, 0), Ok(profile.default_validity().as_secs()));
        o.is_set(profile, |row| {
            row.keys = vec![EC.into()];
            row.name_suffixes = vec!["example.com".into()];
            row.validity_s = 48 * HOUR_S;
        });
        assert_eq!(o.make(profile, Maker::Operator, EC, name, 24 * HOUR_S), Ok(48 * HOUR_S));
        for (key, name, validity_s, part) in [
            (v1::KeyAlgorithm::Rsa2048, name, 0, "certifies no rsa-2048 keys"),
            (EC, "a.example.org", 0, "does not allow the name a.example.org"),
            (EC, "eve@example.org", 0, "does not allow the name eve@example.org"),
            (EC, name, 49 * HOUR_S, "live for at most 2 days"),
        ] {
            let why = o.make(profile, Maker::Operator, key, name, validity_s).expect_err("is refused");
            assert!(why.contains(part) && why.contains("sallyport cert profile s"), "{profile}: {why}");
        }
        o.is_set(profile, |row| row.not_by_operators = true);
        let why = o.make(profile, Maker::Operator, EC, name, 0).expect_err("is refused");
        assert!(why.contains("does not let operators"), "{why}");
    }
    // What the cluster needs for itself an operator never gets.
    let o = office();
    for profile in [Profile::Controller, Profile::Endpoint] {
        assert!(o.make(profile, Maker::Operator, EC, "a.example.com", 0).is_err(), "{profile}");
    }
    assert!(o.make(Profile::Controller, Maker::Cluster, EC, sallyport_proto::CONTROLLER_NAME, 0).is_ok());
}

/// Whoever signed went by the rules of a moment ago, or by none.
#[test]
fn the_log_takes_no_record_that_is_against_the_rules_from_level_7_on() {
    use v1::CertificateProfile as P;
    type Change = fn(&mut CertificateRow);
    let changes: [(&str, P, Change); 6] = [
        ("another key", P::Gateway, |r| r.key_algorithm = v1::KeyAlgorithm::Rsa4096.into()),
        ("another name", P::Gateway, |r| r.name = "a.example.org".into()),
        ("a further name", P::Gateway, |r| r.sans.push("a.example.org".into())),
        ("an address", P::Gateway, |r| r.sans.push("192.0.2.1".into())),
        ("a longer life", P::Gateway, |r| r.not_after_ms += 30 * 86_400_000),
        ("a controller's, by an operator", P::Endpoint, |_| ()),
    ];
    for level in [ENROLL_LEVEL, RULES_LEVEL] {
        let mut o = office();
        o.is_set(Profile::Gateway, |row| {
            row.keys = vec![EC.into()];
            row.name_suffixes = vec!["example.com".into()];
            row.no_addresses = true;
            row.validity_s = 48 * HOUR_S;
        });
        o.bench.raise(level);
        assert!(matches!(o.record("01", P::Gateway, |_| ()), Outcome::Done(_)));
        for (number, (what, profile, change)) in changes.into_iter().enumerate() {
            let outcome = o.record(&format!("1{number}"), profile, change);
            match level {
                ENROLL_LEVEL => assert!(matches!(outcome, Outcome::Done(_)), "{what}: below the level, to the letter"),
                _ => assert!(!refused(outcome).is_empty(), "{what}"),
            }
        }
    }
}

#[test]
fn a_profile_that_changes_while_a_certificate_is_signed_gives_the_token_back() {
    for (level, stays) in [(ENROLL_LEVEL, true), (RULES_LEVEL, false)] {
        let mut o = office();
        o.bench.raise(level);
        o.token(1, NAME, 1, 10_000);
        let grant = o.grant(token(1), 1);
        let intent = o.intent(&grant, 1);
        o.intends(&intent);
        o.is_set(Profile::Machine, |row| row.validity_s = HOUR_S);
        o.complete(&intent);
        assert!(o.bench.state.intents.is_empty());
        assert_eq!(o.bench.state.certificates.contains(&serial_of(&intent)), stays, "level {level}");
        if !stays {
            // Asked again, it is made by the rules of now.
            assert_eq!(o.grant(token(1), 1).rules.validity_s, HOUR_S);
            let serial = o.enroll(token(1), 1);
            assert!(o.bench.state.certificates.contains(&serial));
        }
    }
}

#[test]
fn an_intent_keeps_whose_key_it_is_for_from_level_7_on() {
    for level in [ENROLL_LEVEL, RULES_LEVEL] {
        let mut o = office();
        o.bench.raise(level);
        o.token(1, NAME, 1, 10_000);
        let grant = o.grant(token(1), 5);
        let intent = o.intent(&grant, 5);
        o.intends(&intent);
        let row = o.bench.state.intended(&[5; 16]).expect("kept");
        let expected = if level < RULES_LEVEL { (0, Vec::new()) } else { (1, vec![5; 32]) };
        assert_eq!((row.profile_version, row.key_sha256.clone()), expected, "level {level}");
    }
}

#[test]
fn machines_that_enroll_have_no_address_and_no_further_name_that_the_profile_forbids() {
    let mut o = office();
    let with = |id: u8, san: &str| {
        Action::CreateEnrollToken(CreateEnrollToken {
            id: vec![id; 8],
            hash: vec![id; 32],
            profile: "machine".into(),
            name: NAME.into(),
            sans: vec![san.into()],
            ttl_ms: 10_000,
            uses: 1,
            ..CreateEnrollToken::default()
        })
    };
    o.bench.done(with(1, "192.0.2.7"));
    o.bench.done(with(2, "a.example.org"));
    o.is_set(Profile::Machine, |row| {
        row.no_addresses = true;
        row.name_suffixes = vec!["example.com".into()];
    });
    for (id, san) in [(1, "192.0.2.7"), (2, "a.example.org")] {
        assert_eq!(o.refusal(token(id), id), RefusalKind::Profile, "a token of before: {san}");
        assert_eq!(o.conflict(with(id + 2, san)), ConflictKind::Invalid, "{san}");
    }
}

#[test]
fn no_rule_for_its_own_certificates_ends_the_cluster() {
    let mut o = office();
    o.bench.apply(Action::DescribeMember(DescribeMember {
        id: 1,
        address: "a:1".into(),
        level: RULES_LEVEL,
        ..DescribeMember::default()
    }));
    o.admit("c2.example.com").expect("admits");
    for profile in [Profile::Controller, Profile::Operator, Profile::Endpoint] {
        let why = o.is_wrong(profile, |row| row.keys = vec![v1::KeyAlgorithm::Rsa3072.into()]);
        assert!(why.contains("leave that kind in"), "{why}");
    }
    let why = o.is_wrong(Profile::Controller, |row| row.name_suffixes = vec!["example.org".into()]);
    assert!(why.contains("has the name c2.example.com"), "{why}");
    o.is_set(Profile::Controller, |row| row.name_suffixes = vec!["example.com".into()]);
    // And whoever joins goes by it: his names are a word of his own.
    let why = o.admit("vpn.example.org").expect_err("is refused");
    assert!(why.contains("does not allow the name vpn.example.org"), "{why}");
    o.admit("c3.example.com").expect("admits");
    // The operator's folder beside a controller is not bound by names of people.
    o.is_set(Profile::Operator, |row| row.name_suffixes = vec!["example.com".into()]);
    assert!(o.make(Profile::Operator, Maker::Cluster, EC, crate::identity::OPERATOR, 0).is_ok());
    assert!(o.make(Profile::Operator, Maker::Operator, EC, "grace", 0).is_err());
}

#[test]
fn a_controller_that_is_removed_loses_its_endpoints_certificate_too() {
    let mut o = office();
    o.bench.apply(Action::DescribeMember(DescribeMember {
        id: 1,
        address: "a:1".into(),
        level: RULES_LEVEL,
        ..DescribeMember::default()
    }));
    let id = o.admit("c2.example.com").expect("admits");
    let recorded = o.record("e2", v1::CertificateProfile::Endpoint, |row| row.member = id);
    assert!(matches!(recorded, Outcome::Done(_)), "{recorded:?}");
    assert!(!o.is_revoked("e2"));
    o.bench.done(Action::RemoveMember(RemoveMember { id }));
    assert!(o.is_revoked("e2") && o.is_revoked("c-c2.example.com"));
}
