use sallyport_proto::v1;

use super::*;
use crate::state::enroll::tests::{Office, serial_of};
use crate::state::{
    Action, CreateEnrollToken, ENROLL_LEVEL, IntendCertificate, Outcome, RecordCertificate, RemoveGateway, SettingsRow,
    TokenProof, UpdateSettings,
};

const GATEWAY: &str = "gw1.example.com";

fn office() -> Office {
    let mut o = Office::new();
    o.bench.raise(GATEWAYS_LEVEL);
    o
}

fn token(id: u8) -> ProofKind {
    ProofKind::Token(TokenProof { id: vec![id; 8], hash: vec![id; 32] })
}

fn make_token(o: &mut Office, id: u8, name: &str, uses: u32) -> Outcome {
    o.bench.apply(Action::CreateEnrollToken(CreateEnrollToken {
        id: vec![id; 8],
        hash: vec![id; 32],
        profile: "gateway-link".into(),
        name: name.into(),
        ttl_ms: 1_000_000,
        uses,
        ..CreateEnrollToken::default()
    }))
}

fn by(link: &str, profile: v1::CertificateProfile) -> GatewayProof {
    GatewayProof { link: link.into(), profile: profile.into(), ..GatewayProof::default() }
}

fn for_link(link: &str) -> Option<ProofKind> {
    Some(ProofKind::Gateway(by(link, v1::CertificateProfile::GatewayLink)))
}

fn for_ike(link: &str) -> Option<ProofKind> {
    Some(ProofKind::Gateway(by(link, v1::CertificateProfile::Gateway)))
}

fn following(link: &str, present: &str) -> Option<ProofKind> {
    let proof = GatewayProof { present: present.into(), ..by(link, v1::CertificateProfile::Gateway) };
    Some(ProofKind::Gateway(proof))
}

fn set_names(o: &mut Office, names: &[&str]) {
    let public_names = names.iter().map(|n| (*n).to_owned()).collect();
    let settings = SettingsRow { public_names, ..o.bench.state.settings() };
    o.bench.done(Action::UpdateSettings(UpdateSettings { settings: Some(settings) }));
}

/// One that an operator made; the serial number is its own.
fn record(o: &mut Office, serial: &str, profile: v1::CertificateProfile, names: &[&str]) {
    let record = CertificateRow {
        serial: serial.into(),
        profile: profile.into(),
        name: names[0].into(),
        sans: names.iter().map(|n| (*n).to_owned()).collect(),
        not_after_ms: 50_000_000,
        key_algorithm: v1::KeyAlgorithm::EcdsaP256.into(),
        fingerprint: vec![7; 32],
        ..CertificateRow::default()
    };
    o.bench.done(Action::RecordCertificate(RecordCertificate { record: Some(record), answer: Vec::new() }));
}

fn names(grant: &Grant) -> Vec<&str> {
    std::iter::once(grant.name.as_str()).chain(grant.sans.iter().map(String::as_str)).collect()
}

#[test]
fn a_gateway_enrolls_by_a_token_and_then_renews_by_its_link() {
    let mut o = office();
    make_token(&mut o, 1, GATEWAY, 1);
    let link = o.enroll(Some(token(1)), 1);
    let row = o.bench.state.certificates.get(&link).expect("recorded");
    assert_eq!((row.name.as_str(), row.profile()), (GATEWAY, v1::CertificateProfile::GatewayLink));
    assert_eq!(o.refusal(Some(token(1)), 2), RefusalKind::UsedUp);
    assert!(o.bench.state.machines.is_empty(), "a gateway is no machine");

    let ike = o.enroll(for_ike(&link), 3);
    assert_eq!(o.bench.state.certificates.get(&ike).expect("recorded").name, GATEWAY, "nobody said another name");
    // One that lost its keys has a new token, though its name is a gateway's already.
    make_token(&mut o, 2, GATEWAY, 1);
    let second = o.enroll(for_link(&link), 4);
    let third = o.enroll(for_link(&second), 5);
    assert!(matches!(o.refusal(for_ike("0f"), 6), RefusalKind::Unproven), "never issued");
    assert!(!o.is_revoked(&link), "the old ones end by themselves");
    let known = o.bench.state.gateway_identity(GATEWAY).expect("known");
    assert_eq!(known.certificates.len(), 2, "{known:?}");
    assert_eq!(o.bench.state.overdue_gateways(0).count(), 0);
    assert_eq!(o.bench.state.overdue_gateways(u64::MAX).collect::<Vec<_>>(), [GATEWAY]);
    o.revoke(&third);
    assert_eq!(o.refusal(for_link(&third), 7), RefusalKind::Revoked);
    assert_eq!(o.refusal(for_ike(&third), 7), RefusalKind::Revoked);
}

#[test]
fn the_names_are_those_that_were_set_and_never_another_gateways() {
    let mut o = office();
    record(&mut o, "1a", v1::CertificateProfile::GatewayLink, &["gw1"]);
    record(&mut o, "1b", v1::CertificateProfile::Gateway, &["vpn.example.com", "192.0.2.1"]);
    record(&mut o, "2a", v1::CertificateProfile::Machine, &["laptop7.example.com"]);
    // Nobody set names: the new one follows the one whose key the gateway holds, or there is none.
    assert_eq!(names(&o.grant(following("1a", "1b"), 1)), ["vpn.example.com", "192.0.2.1"]);
    assert_eq!(o.refusal(for_ike("1a"), 1), RefusalKind::Profile, "gw1 is no name that clients dial");
    assert_eq!(o.refusal(following("1a", "2a"), 1), RefusalKind::Unproven, "a machine's");
    assert_eq!(o.refusal(for_ike("2a"), 1), RefusalKind::Unproven, "a machine is no gateway");
    assert_eq!(o.refusal(following("1b", "1b"), 1), RefusalKind::Unproven, "one for IKE does not call");
    let followed = o.enroll(following("1a", "1b"), 2);
    o.revoke("1b");
    assert_eq!(o.refusal(following("1a", "1b"), 3), RefusalKind::Revoked);
    assert_eq!(names(&o.grant(for_ike("1a"), 3)), ["vpn.example.com", "192.0.2.1"], "as the newest, {followed}");

    set_names(&mut o, &["vpn.example.com", "vpn2.example.com"]);
    assert_eq!(names(&o.grant(following("1a", "1b"), 3)), ["vpn.example.com", "vpn2.example.com"]);
    let own = SetGatewayNames { name: "gw1".into(), names: vec!["Gw1.Example.com".into(), "2001:DB8:0::1".into()] };
    o.bench.done(Action::SetGatewayNames(own));
    assert_eq!(names(&o.grant(for_ike("1a"), 3)), ["gw1.example.com", "2001:db8::1"]);
    let mut all = o.bench.state.public_names();
    assert_eq!(all.next().map(String::as_str), Some("vpn.example.com"), "the first of the service");
    assert!(all.any(|n| n == "gw1.example.com"));
    drop(all);
    o.bench.done(Action::SetGatewayNames(SetGatewayNames { name: "gw1".into(), names: Vec::new() }));
    assert_eq!(names(&o.grant(for_ike("1a"), 3)), ["vpn.example.com", "vpn2.example.com"]);
    // What a hostile controller's front end would put into the log for another name is no grant.
    let grant = o.grant(for_ike("1a"), 3);
    let stolen = Grant { name: "bank.example.com".into(), sans: Vec::new(), ..grant };
    let intent = o.intent(&stolen, 3);
    assert_eq!(o.conflict(Action::IntendCertificate(intent)), ConflictKind::Changed);
}

#[test]
fn names_that_clients_cannot_dial_are_no_public_names() {
    let mut o = office();
    record(&mut o, "1a", v1::CertificateProfile::GatewayLink, &["gw1"]);
    let mut refused = |gateway: &str, names: &[&str]| {
        let names = names.iter().map(|n| (*n).to_owned()).collect();
        o.conflict(Action::SetGatewayNames(SetGatewayNames { name: gateway.into(), names }))
    };
    for wrong in ["", "vpn example", "ada@example.com", "*.example.com", CONTROLLER_NAME, "-x.example.com"] {
        assert_eq!(refused("gw1", &[wrong]), ConflictKind::Invalid, "{wrong:?}");
    }
    let many: Vec<String> = (0..=MAX_PUBLIC_NAMES).map(|n| format!("vpn{n}.example.com")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(refused("gw1", &many), ConflictKind::Invalid);
    assert_eq!(refused("no gateway", &["vpn.example.com"]), ConflictKind::NotFound);
    assert_eq!(refused("gw-*.example.com", &["vpn.example.com"]), ConflictKind::NotFound, "a fleet is no gateway");
    assert_eq!(public_names(&["A.example.com".into(), "a.example.com".into()]), Ok(vec!["a.example.com".to_owned()]));
}

#[test]
fn a_token_for_a_fleet_gives_each_gateway_a_name_of_its_own() {
    let mut o = office();
    for wrong in ["gw 1", "gw-*-*.example.com", "", CONTROLLER_NAME] {
        assert!(matches!(make_token(&mut o, 9, wrong, 1), Outcome::Conflict(_)), "{wrong:?}");
    }
    assert!(matches!(make_token(&mut o, 9, GATEWAY, 2), Outcome::Conflict(_)), "two would be one");
    make_token(&mut o, 1, "gw-*.example.com", 2);
    let (one, two) = (o.enroll(Some(token(1)), 0x1f), o.enroll(Some(token(1)), 2));
    assert_eq!(o.refusal(Some(token(1)), 3), RefusalKind::UsedUp);
    let name = |serial: &String| o.bench.state.certificates.get(serial).expect("recorded").name.clone();
    assert_eq!(
        (name(&one), name(&two)),
        ("gw-1f1f1f1f1f1f1f1f1f1f.example.com".into(), "gw-02020202020202020202.example.com".into())
    );
}

#[test]
fn one_that_has_ended_is_renewed_late_and_not_for_ever() {
    let mut o = office();
    record(&mut o, "1a", v1::CertificateProfile::GatewayLink, &["gw1"]);
    let applicant = |late| super::super::Applicant {
        proof: Some(ProofKind::Gateway(GatewayProof { late, ..by("1a", v1::CertificateProfile::GatewayLink) })),
        key_sha256: vec![1; 32],
        key: v1::KeyAlgorithm::EcdsaP256,
        source: String::new(),
    };
    let kind = |late, at_ms| match o.bench.state.authorise(&applicant(late), at_ms) {
        Verdict::Refused(refusal) => Some(refusal.kind),
        Verdict::Granted(_) => None,
        other => panic!("{other:?}"),
    };
    let late_ms = o.bench.state.profile(Profile::GatewayLink).late_renewal_s * 1_000;
    assert_eq!(kind(false, 49_999_999), None);
    assert_eq!(kind(false, 50_000_000), Some(RefusalKind::Ended), "no connection comes with it");
    assert_eq!(kind(true, 50_000_000), None);
    assert_eq!(kind(true, 50_000_000 + late_ms), Some(RefusalKind::Ended));
}

#[test]
fn a_gateway_that_was_removed_is_out_with_all_it_has() {
    let mut o = office();
    make_token(&mut o, 1, GATEWAY, 1);
    let link = o.enroll(Some(token(1)), 1);
    let (ike, next) = (o.enroll(for_ike(&link), 2), o.enroll(for_link(&link), 3));
    // One that gathers certificates loses those, too, that others have replaced.
    let gathered: Vec<String> = (10..15).map(|key| o.enroll(for_ike(&next), key)).collect();
    assert_eq!(o.bench.state.gateway_identity(GATEWAY).expect("known").replaced.len(), 4);
    o.bench.register(GATEWAY, 1);
    o.bench.done(Action::RemoveGateway(RemoveGateway { name: GATEWAY.into() }));
    for serial in [&link, &ike, &next].into_iter().chain(&gathered) {
        assert!(o.is_revoked(serial), "{serial}");
    }
    assert_eq!(o.refusal(for_link(&next), 4), RefusalKind::Revoked);
    assert_eq!(o.conflict(Action::RemoveGateway(RemoveGateway { name: GATEWAY.into() })), ConflictKind::NotFound);
    // Before all members know this, removing forgets and does no more.
    record(&mut o, "1a", v1::CertificateProfile::GatewayLink, &["gw2"]);
    o.bench.register("gw2", 1);
    o.bench.raise(ENROLL_LEVEL);
    o.bench.done(Action::RemoveGateway(RemoveGateway { name: "gw2".into() }));
    assert!(!o.is_revoked("1a"));
}

/// A thief and the gateway cannot be told apart; the one that renews less often is not locked out.
#[test]
fn a_stolen_link_key_locks_the_gateway_out_by_no_number_of_renewals() {
    let mut o = office();
    make_token(&mut o, 1, GATEWAY, 1);
    let own = o.enroll(Some(token(1)), 1);
    let mut stolen = own.clone();
    for key in 2..6 {
        stolen = o.enroll(for_link(&stolen), key);
    }
    assert!(o.bench.state.is_stray_link(&own) && !o.bench.state.is_stray_link(&stolen));
    assert!(matches!(o.ask(for_ike(&own), 20), Verdict::Granted(_)));
    let next = o.enroll(for_link(&own), 21);
    assert!(!o.bench.state.is_stray_link(&own) && !o.bench.state.is_stray_link(&next), "both are known again");
    o.enroll(for_ike(&next), 22);
    // The same again, and neither gathers without end.
    for key in 30..33 {
        stolen = o.enroll(for_link(&stolen), key);
    }
    assert!(o.bench.state.is_stray_link(&next));
    let row = o.bench.state.gateway_identity(GATEWAY).expect("known").clone();
    assert!(row.strays > 0, "{row:?}");
    let full = GatewayIdentityRow { strays: MAX_STRAYS, ..row.clone() };
    o.bench.state.put_gateway_identity(GATEWAY, full);
    assert_eq!(o.refusal(for_link(&next), 40), RefusalKind::UsedUp, "for today");
    assert!(matches!(o.ask(for_link(&stolen), 40), Verdict::Granted(_)));
    o.bench.state.put_gateway_identity(GATEWAY, row);
    // It has ended: then nobody shows it in a connection, and only the newest two come back late.
    let late = ProofKind::Gateway(GatewayProof { late: true, ..by(&next, v1::CertificateProfile::GatewayLink) });
    assert_eq!(o.refusal(Some(late), 41), RefusalKind::UsedUp);
    o.bench.register(GATEWAY, 1);
    o.bench.done(Action::RemoveGateway(RemoveGateway { name: GATEWAY.into() }));
    assert!(o.is_revoked(&own) && o.is_revoked(&stolen) && o.is_revoked(&next));
}

#[test]
fn what_an_operator_had_made_for_a_gateway_goes_with_it() {
    let mut o = office();
    record(&mut o, "1a", v1::CertificateProfile::GatewayLink, &["gw1"]);
    record(&mut o, "2a", v1::CertificateProfile::GatewayLink, &["gw2"]);
    let made = |serial: &str, gateway: &str| {
        let record = CertificateRow {
            serial: serial.into(),
            profile: v1::CertificateProfile::Gateway.into(),
            name: "vpn.example.com".into(),
            gateway: gateway.into(),
            not_after_ms: 50_000_000,
            key_algorithm: v1::KeyAlgorithm::EcdsaP256.into(),
            ..CertificateRow::default()
        };
        Action::RecordCertificate(RecordCertificate { record: Some(record), answer: Vec::new() })
    };
    assert_eq!((made("1b", "gw1").level(), made("1b", "").level()), (GATEWAYS_LEVEL, 1));
    for (serial, gateway) in [("1b", "gw1"), ("2b", "gw2"), ("3b", ""), ("4b", "")] {
        o.bench.done(made(serial, gateway));
    }
    // Nobody said whose the last is, but the gateway that goes on from it has its key.
    o.enroll(following("1a", "4b"), 1);
    o.bench.register("gw1", 1);
    o.bench.done(Action::RemoveGateway(RemoveGateway { name: "gw1".into() }));
    assert!(o.is_revoked("1a") && o.is_revoked("1b") && o.is_revoked("4b"));
    assert!(!o.is_revoked("2a") && !o.is_revoked("2b") && !o.is_revoked("3b"), "another's, or nobody knows whose");
}

#[test]
fn many_gateways_with_one_public_name_are_served_at_a_time_and_each_one_after_the_other() {
    let mut o = office();
    set_names(&mut o, &["vpn.example.com"]);
    for link in ["1a", "2a"] {
        record(&mut o, link, v1::CertificateProfile::GatewayLink, &[&format!("gw{link}")]);
    }
    let intents: Vec<IntendCertificate> = [("1a", 1), ("2a", 2), ("1a", 3)]
        .map(|(link, key)| {
            let grant = o.grant(for_ike(link), key);
            o.intent(&grant, key)
        })
        .into();
    o.intends(&intents[0]);
    o.intends(&intents[1]);
    assert_eq!(o.conflict(Action::IntendCertificate(intents[2].clone())), ConflictKind::Exhausted);
    o.complete(&intents[0]);
    o.intends(&intents[2]);
    o.complete(&intents[2]);
    let known = o.bench.state.gateway_identity("gw1a").expect("known");
    let ike = known.of(v1::CertificateProfile::Gateway).next().expect("one of its kind");
    assert_eq!((&ike.serial, &ike.previous), (&serial_of(&intents[2]), &serial_of(&intents[0])));
}

#[test]
fn a_gateway_that_gathers_certificates_is_stopped_for_the_day() {
    let mut o = office();
    record(&mut o, "1a", v1::CertificateProfile::GatewayLink, &["gw1.example.com"]);
    let mut row = o.bench.state.gateway_identity("gw1.example.com").cloned().expect("known");
    row.renewals = MAX_GATEWAY_RENEWALS;
    o.bench.state.put_gateway_identity("gw1.example.com", row);
    assert_eq!(o.refusal(for_ike("1a"), 1), RefusalKind::TooOften);
    let row =
        GatewayIdentityRow { day_ms: 0, ..o.bench.state.gateway_identity("gw1.example.com").cloned().expect("known") };
    o.bench.state.put_gateway_identity("gw1.example.com", row);
    let applicant = super::super::Applicant {
        proof: for_ike("1a"),
        key_sha256: vec![1; 32],
        key: v1::KeyAlgorithm::EcdsaP256,
        source: String::new(),
    };
    let many: Vec<String> = (0..MAX_REPLACED).map(|n| format!("f{n:04x}")).collect();
    many.iter().for_each(|serial| record(&mut o, serial, v1::CertificateProfile::Gateway, &["gw1.example.com"]));
    let row = GatewayIdentityRow {
        renewals: 0,
        replaced: many,
        ..o.bench.state.gateway_identity("gw1.example.com").cloned().expect("known")
    };
    o.bench.state.put_gateway_identity("gw1.example.com", row);
    assert_eq!(o.refusal(for_ike("1a"), 1), RefusalKind::TooOften, "over many days");
    assert_eq!(names(&o.grant(for_link("1a"), 1)), ["gw1.example.com"], "it may still call");
    // A day later by the log's time the certificate itself has ended; late renewal is another way.
    assert!(matches!(o.bench.state.authorise(&applicant, DAY_MS), Verdict::Refused(r) if r.kind == RefusalKind::Ended));
}

#[test]
fn nothing_of_this_is_there_below_its_level() {
    let settings = SettingsRow { public_names: vec!["vpn.example.com".into()], ..SettingsRow::initial() };
    let with = Action::UpdateSettings(UpdateSettings { settings: Some(settings) });
    let without = Action::UpdateSettings(UpdateSettings { settings: Some(SettingsRow::initial()) });
    assert_eq!((with.level(), without.level()), (GATEWAYS_LEVEL, 1));
    let token = |profile: &str| {
        Action::CreateEnrollToken(CreateEnrollToken { profile: profile.into(), ..CreateEnrollToken::default() }).level()
    };
    assert_eq!((token("gateway-link"), token("machine")), (GATEWAYS_LEVEL, ENROLL_LEVEL));
    let mut o = Office::new();
    o.bench.raise(ENROLL_LEVEL);
    assert!(matches!(make_token(&mut o, 1, GATEWAY, 1), Outcome::Conflict(_)), "as the software of then");
    record(&mut o, "1a", v1::CertificateProfile::GatewayLink, &["gw1"]);
    assert!(o.bench.state.gateway_identities.is_empty());
}
