use sallyport_ca::verify::{CertPayload, PeerRole, TrustStore, verify_peer};
use sallyport_ca::{Certificate, KeyAlgorithm, KeyPair, Profile, Serial, Subject, UnixTime};

use super::*;
use crate::app::Core;
use crate::app::tests::controller;
use crate::authority::IssueRequest;
use crate::state::{Action, RevokeCertificates, Selector};

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
