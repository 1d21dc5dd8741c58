use sallyport_ca::verify::{CertPayload, PeerRole, TrustStore, verify_peer};
use sallyport_ca::{Certificate, KeyAlgorithm, KeyPair, Profile, Serial, Subject, UnixTime};

use super::*;
use crate::app::Core;
use crate::app::tests::controller;
use crate::authority::IssueRequest;
use crate::state::{
    Action, Bootstrap, CertificateRow, ClearPsk, Command, CompactCertificates, DescribeMember, KEPT_MS,
    RecordCertificate, RevokeCertificates, Selector,
};

const NAME: &str = "laptop7.example.com";

/// What somebody makes who has the key of the issuing authority.
fn forge(core: &Core, serial: &Serial) -> Certificate {
    let rng = core.sealer.rng();
    let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, rng).expect("a key");
    let subject = Subject::new(NAME, Vec::new()).expect("a name");
    let authority = core.issuing(KeyAlgorithm::EcdsaP256).expect("an authority").authority;
    let made = authority.issue(Profile::Machine, &subject, &key.public_key(), now(core), serial.clone(), rng);
    made.expect("issues")
}

fn now(core: &Core) -> UnixTime {
    UnixTime(i64::try_from(core.now_ms() / 1_000).expect("a date"))
}

/// What a gateway finds of a certificate by the policy that it has from here.
fn verifies(core: &Core, der: &[u8]) -> bool {
    let policy = super::super::policy::policy(core, "gw1").expect("a policy");
    let mut trust = TrustStore::new();
    policy.trusted_roots.iter().for_each(|root| trust.add_anchor_der(root).expect("a root"));
    policy.issuers.iter().for_each(|issuer| trust.add_intermediate_der(issuer).expect("an authority"));
    verify_peer(&trust, &[CertPayload { encoding: 4, data: der }], None, PeerRole::Machine, now(core)).is_ok()
}

fn ask(core: &Core, certificate: &[u8], serial: &str) -> Result<String, Refusal> {
    let request = v1::AdmitPeerRequest {
        certificate_serial: serial.into(),
        fingerprint: sallyport_ca::Fingerprint::of(certificate).0.to_vec(),
        ..Default::default()
    };
    judge(&core.node.shared().read(), &request, core.now_ms())
}

#[tokio::test]
async fn a_golden_certificate_verifies_and_is_refused_as_forged() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (running, _clock) = controller(dir.path()).await;
    let core = running.core();
    let request = IssueRequest {
        profile: Profile::Machine,
        name: NAME.into(),
        sans: Vec::new(),
        key: KeyAlgorithm::EcdsaP256,
        days: 0,
    };
    let honest = running.issue(request).await.expect("issues");
    let serial = honest.record.serial.clone();
    assert!(verifies(core, &honest.certificate));
    assert_eq!(ask(core, &honest.certificate, &serial), Ok(NAME.to_owned()));

    // Under a number of its own, and under that of a certificate that is live.
    let own = Serial::generate(core.sealer.rng()).expect("random");
    for number in [own, serial.parse().expect("ours")] {
        let golden = forge(core, &number);
        assert!(verifies(core, golden.der()), "the signature is the authority's");
        let refusal = ask(core, golden.der(), &number.to_string()).expect_err("refused");
        assert_eq!(refusal.verdict, Verdict::Forged);
        assert!(
            refusal.cause.starts_with("forged:") && refusal.remedy.contains("sallyport ca issuer add"),
            "{refusal:?}"
        );
    }

    for (code, cause) in [(6, "on hold"), (1, "revoked: key-compromise")] {
        let which = Some(Selector::Machine(NAME.into()));
        let command = RevokeCertificates { which, code, text: String::new() };
        core.propose(Action::RevokeCertificates(command)).await.expect("decides");
        let refusal = ask(core, &honest.certificate, &serial).expect_err("refused");
        assert!(refusal.verdict == Verdict::Revoked && refusal.cause.contains(cause), "{refusal:?}");
    }
    running.shutdown().await;
}

#[test]
fn a_certificate_that_ended_long_ago_is_no_forgery_unless_it_is_another_one() {
    let mut state = State::new();
    let mut apply = |at_ms, action| {
        state.apply(&Command { request_id: Vec::new(), at_ms, action: Some(action) });
    };
    let record = |serial: &str, profile: v1::CertificateProfile| CertificateRow {
        serial: serial.into(),
        profile: profile.into(),
        name: NAME.into(),
        fingerprint: vec![7; 32],
        not_after_ms: 10,
        ..CertificateRow::default()
    };
    apply(
        1,
        Action::Bootstrap(Bootstrap {
            cluster_id: vec![1; 16],
            root_certificate: vec![2],
            sealed_root_key: vec![3],
            record: Some(record("a0", v1::CertificateProfile::Root)),
            // Before there are rules for what operators have issued.
            member: Some(DescribeMember { id: 1, address: "1:1".into(), level: 6, ..DescribeMember::default() }),
        }),
    );
    for serial in ["a1", "a2", "a3"] {
        let record = Some(record(serial, v1::CertificateProfile::Machine));
        apply(2, Action::RecordCertificate(RecordCertificate { record, answer: Vec::new() }));
    }
    for serial in ["a2", "a3"] {
        let which = Some(Selector::Serial(serial.into()));
        apply(3, Action::RevokeCertificates(RevokeCertificates { which, code: 1, text: String::new() }));
    }
    apply(10 + KEPT_MS, Action::ClearPsk(ClearPsk {}));
    let serials = ["a1", "a2"].map(String::from).to_vec();
    apply(0, Action::CompactCertificates(CompactCertificates { serials }));
    assert_eq!(state.ended.len(), 2);
    let ask = |serial: &str, first: u8| {
        let mut fingerprint = vec![7; 32];
        fingerprint[0] = first;
        let request =
            v1::AdmitPeerRequest { certificate_serial: serial.into(), fingerprint, ..v1::AdmitPeerRequest::default() };
        judge(&state, &request, state.now_ms()).expect_err("refused")
    };
    let (ended, revoked) = (ask("a1", 7), ask("a2", 7));
    assert!(ended.verdict == Verdict::Unspecified && ended.cause.contains("has ended"), "{ended:?}");
    assert!(revoked.verdict == Verdict::Revoked && revoked.cause.contains("is revoked"), "{revoked:?}");
    for (serial, first) in [("a1", 8), ("a2", 8), ("ff", 7)] {
        assert_eq!(ask(serial, first).verdict, Verdict::Forged, "{serial}");
    }
}
