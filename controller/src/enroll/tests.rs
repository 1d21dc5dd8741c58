use std::net::Ipv4Addr;
use std::time::Duration;

use sallyport_ca::{KeyAlgorithm, KeyPair, Profile, SystemRandom};
use sallyport_endpoint::Protocol;
use sallyport_proto::v1;
use zeroize::Zeroizing;

use super::*;
use crate::app::Running;
use crate::app::tests::controller;
use crate::authority;
use crate::clock::Clock;
use crate::state::{
    CreateEnrollToken, DecideRequest, IntendCertificate, IntentRow, MachineRow, PutMachines, RevokeCertificate,
    SetProfile,
};

pub(super) const NAME: &str = "laptop7.example.com";

/// A controller whose clock the test moves.
pub(super) struct Site {
    _dir: tempfile::TempDir,
    running: Running,
    pub(super) clock: Clock,
    pub(super) core: Arc<Core>,
}

impl Site {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (running, clock) = controller(dir.path()).await;
        let core = running.core().clone();
        Self { _dir: dir, running, clock, core }
    }

    pub(super) async fn done(&self, action: Action) {
        let reply = self.core.propose(action).await.expect("proposes");
        assert!(matches!(reply.outcome, Some(Outcome::Done(_))), "{reply:?}");
    }

    pub(super) async fn token(&self, uses: u32) -> Shown {
        let root = self.core.root().fingerprint.0;
        let token = EnrollToken::generate(root, "", &SystemRandom::new()).expect("a token");
        let command = CreateEnrollToken {
            id: token.id.to_vec(),
            hash: token.hash().to_vec(),
            profile: "machine".into(),
            name: NAME.into(),
            ttl_ms: 3_600_000,
            uses,
            holder: "ada".into(),
            ..CreateEnrollToken::default()
        };
        self.done(Action::CreateEnrollToken(command)).await;
        Shown::Token(token.to_text())
    }

    async fn ask(&self, proof: &Shown, key: &KeyPair) -> Enrolled {
        // Whatever it calls itself.
        let csr = key.request("boss.example.com", None, &SystemRandom::new()).expect("a request").to_vec();
        let request =
            Enrollment { protocol: Protocol::Est, proof: proof.clone(), csr, source: Ipv4Addr::LOCALHOST.into() };
        enroll(&self.core, &request).await.expect("decides")
    }

    pub(super) async fn issued(&self, proof: &Shown, key: &KeyPair) -> Vec<u8> {
        match self.ask(proof, key).await {
            Enrolled::Issued { certificate, chain } => {
                assert!(!chain.is_empty());
                certificate
            }
            Enrolled::Waiting => panic!("waits"),
            Enrolled::Refused(refusal) => panic!("{refusal:?}"),
            Enrolled::Invalid(text) => panic!("{text}"),
        }
    }

    async fn refused(&self, proof: &Shown, key: &KeyPair) -> RefusalKind {
        match self.ask(proof, key).await {
            Enrolled::Refused(refusal) => refusal.kind,
            _ => panic!("not refused"),
        }
    }

    pub(super) async fn end(self) {
        drop(self.core);
        self.running.shutdown().await;
    }
}

pub(super) fn key() -> KeyPair {
    KeyPair::generate(KeyAlgorithm::EcdsaP256, &SystemRandom::new()).expect("a key")
}

pub(super) fn serial(der: &[u8]) -> String {
    Certificate::from_der(der).expect("a certificate").serial.to_string()
}

#[tokio::test]
async fn a_machine_enrolls_by_a_token_renews_by_its_certificate_and_is_out_when_it_is_revoked() {
    let site = Site::new().await;
    let (token, first_key, second_key) = (site.token(1).await, key(), key());
    let first = site.issued(&token, &first_key).await;
    let certificate = Certificate::from_der(&first).expect("a certificate");
    assert!(certificate.names_host(NAME) && !certificate.names_host("boss.example.com"), "{}", certificate.subject);
    assert_eq!(certificate.spki_der(), first_key.public_key().spki_der());
    assert_eq!(site.issued(&token, &first_key).await, first, "the answer was lost: the same again");
    assert_eq!(site.refused(&token, &second_key).await, RefusalKind::UsedUp);

    let by_first = Shown::Certificate(first.clone());
    let second = site.issued(&by_first, &second_key).await;
    assert_ne!(serial(&first), serial(&second));
    assert_eq!(site.issued(&by_first, &second_key).await, second);
    {
        let state = site.core.node.shared().read();
        let machine = state.machine(NAME).expect("known");
        assert_eq!((machine.serial.clone(), machine.holder.as_str()), (serial(&second), "ada"));
        assert!(state.machine_certificate(&serial(&second), site.core.now_ms()).is_ok());
        assert_eq!(state.intents.len(), 0);
    }
    let revoke = RevokeCertificate { serial: serial(&second), reason: "stolen".into() };
    site.done(Action::RevokeCertificate(revoke)).await;
    assert_eq!(site.refused(&Shown::Certificate(second), &key()).await, RefusalKind::Revoked);
    assert!(site.core.metrics.render(&site.core).is_ok_and(|text| {
        let text = String::from_utf8_lossy(&text).into_owned();
        text.contains("enrollments_total{outcome=\"renewed\"} 1") && text.contains("outcome=\"refused_revoked\"} 1")
    }));
    site.end().await;
}

#[tokio::test]
async fn with_name_constraints_machines_get_theirs_from_that_authority_or_none_and_operators_from_the_other() {
    let site = Site::new().await;
    let before = site.issued(&site.token(1).await, &key()).await;
    let constraints = |domain| {
        let permitted = vec![sallyport_ca::Subtree::dns(domain).expect("a domain")];
        sallyport_ca::NameConstraints::new(permitted, Vec::new()).expect("constraints")
    };
    let wanted = |domain| authority::Wanted { key: KeyAlgorithm::EcdsaP256, constraints: constraints(domain) };
    let number = authority::add_issuers(&site.core, vec![wanted("example.com")], false).await.expect("adds")[0];
    // By the certificate of the time before: the new one is below the authority with constraints.
    let after = site.issued(&Shown::Certificate(before), &key()).await;
    let of = |serial: String| site.core.node.shared().read().certificates.get(&serial).map(|row| row.issuer);
    assert_eq!(of(serial(&after)), Some(number));
    let chain = site.core.node.shared().read().chain_of(number);
    let mut trust = sallyport_ca::verify::TrustStore::new();
    trust.add_anchor_der(chain.last().expect("a root")).expect("a root");
    let sent = [&after, &chain[0]].map(|data| sallyport_ca::verify::CertPayload { encoding: 4, data });
    let role = sallyport_ca::verify::PeerRole::Machine;
    let now = sallyport_ca::UnixTime(i64::try_from(site.core.now_ms() / 1_000).expect("a time"));
    assert!(sallyport_ca::verify::verify_peer(&trust, &sent, None, role, now).is_ok());

    let issue = async |profile, name: &str| {
        let request = authority::IssueRequest {
            profile,
            name: name.into(),
            sans: Vec::new(),
            key: KeyAlgorithm::EcdsaP256,
            days: 0,
        };
        authority::issue(&site.core, request).await
    };
    let operator = issue(Profile::Operator, "ann.other.net").await.expect("no constraint is about operators");
    assert_ne!(operator.record.issuer, number);
    let refused = issue(Profile::Machine, "laptop8.other.net").await.expect_err("outside").to_string();
    assert!(refused.contains("laptop8.other.net") && refused.contains("permitted is example.com"), "{refused}");

    // With others in their place the machine is outside, and hears so before anything is signed.
    authority::add_issuers(&site.core, vec![wanted("example.org")], true).await.expect("replaces");
    let refusal = match site.ask(&Shown::Certificate(after), &key()).await {
        Enrolled::Refused(refusal) => refusal,
        _ => panic!("not refused"),
    };
    assert_eq!(refusal.kind, RefusalKind::Profile);
    assert!(refusal.cause.contains(NAME) && refusal.cause.contains("permitted is example.org"), "{}", refusal.cause);
    assert_eq!(site.core.node.shared().read().intents.len(), 0);
    site.end().await;
}

#[tokio::test]
async fn what_is_shown_must_be_ours() {
    let site = Site::new().await;
    assert_eq!(site.refused(&Shown::Token(Zeroizing::new("hunter2".into())), &key()).await, RefusalKind::Unproven);
    let first = site.issued(&site.token(1).await, &key()).await;
    // The right serial number in a certificate that somebody else made.
    let mut forged = first.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert_eq!(site.refused(&Shown::Certificate(forged), &key()).await, RefusalKind::Unproven);
    let foreign = key().self_signed("x", crate_now(), Duration::from_secs(60), &SystemRandom::new());
    let foreign = foreign.expect("a certificate");
    assert_eq!(site.refused(&Shown::Certificate(foreign), &key()).await, RefusalKind::Unproven);
    // Certificates of other kinds renew nothing.
    let operator = std::fs::read(site.core.paths.operator().join("cert.pem")).expect("the operator's");
    let operator = Certificate::from_pem(&operator).expect("a certificate");
    assert_eq!(site.refused(&Shown::Certificate(operator.der().to_vec()), &key()).await, RefusalKind::Unproven);
    site.end().await;
}

fn crate_now() -> sallyport_ca::UnixTime {
    sallyport_ca::UnixTime(1_800_000_000)
}

#[tokio::test]
async fn a_lapsed_machine_comes_back_for_a_while_and_then_needs_a_token() {
    let site = Site::new().await;
    let first = site.issued(&site.token(1).await, &key()).await;
    let shown = Shown::Certificate(first);
    site.clock.advance(Duration::from_secs((365 + 29) * 86_400));
    let renewed = site.issued(&shown, &key()).await;
    site.clock.advance(Duration::from_secs((365 + 31) * 86_400));
    assert_eq!(site.refused(&Shown::Certificate(renewed), &key()).await, RefusalKind::Ended);
    site.end().await;
}

#[tokio::test]
async fn without_proof_an_operator_decides_and_gives_the_name() {
    let site = Site::new().await;
    let key = key();
    for _ in 0..2 {
        assert!(matches!(site.ask(&Shown::Nothing, &key).await, Enrolled::Waiting));
    }
    let (number, claims) = {
        let state = site.core.node.shared().read();
        assert_eq!(state.requests.len(), 1);
        let (number, row) = state.requests.iter().next().expect("one");
        (*number, row.claims.clone())
    };
    assert!(claims.contains("boss.example.com"), "{claims}");
    let decide = DecideRequest { number, approve: true, name: NAME.into(), ..DecideRequest::default() };
    site.done(Action::DecideRequest(decide)).await;
    let certificate = Certificate::from_der(&site.issued(&Shown::Nothing, &key).await).expect("a certificate");
    assert!(certificate.names_host(NAME) && !certificate.names_host("boss.example.com"));
    site.end().await;
}

/// Bouncy Castle, libest and `curl --anyauth` say a token only when they are asked for one: in the queue nobody would ask.
#[tokio::test]
async fn whoever_was_not_asked_for_a_token_is_asked_before_he_waits_for_an_operator() {
    let site = Site::new().await;
    let (first, second) = (key(), key());
    assert_eq!(site.refused(&Shown::Unasked, &first).await, RefusalKind::Unproven);
    assert_eq!(site.core.node.shared().read().requests.len(), 0);
    let token = site.token(1).await;
    site.issued(&token, &first).await;
    // What is decided or waits is answered as before.
    assert!(matches!(site.ask(&Shown::Nothing, &second).await, Enrolled::Waiting));
    assert!(matches!(site.ask(&Shown::Unasked, &second).await, Enrolled::Waiting));
    // Where no token opens, there is nothing to ask for.
    let profile = site.core.node.shared().read().profile(sallyport_ca::Profile::Machine);
    let methods = vec![v1::EnrollMethod::Approval.into()];
    let profile = Some(crate::state::ProfileRow { methods, ..profile });
    site.done(Action::SetProfile(SetProfile { name: "machine".into(), profile })).await;
    assert!(matches!(site.ask(&Shown::Unasked, &key()).await, Enrolled::Waiting));
    site.end().await;
}

#[tokio::test]
async fn a_listed_key_needs_no_token_and_no_other_key_gets_its_name() {
    let site = Site::new().await;
    let key = key();
    let key_sha256 = sallyport_ca::Fingerprint::of(key.public_key().spki_der()).0.to_vec();
    let machine = MachineRow { name: NAME.into(), profile: "machine".into(), key_sha256, ..MachineRow::default() };
    site.done(Action::PutMachines(PutMachines { machines: vec![machine], keep: false })).await;
    let certificate = Certificate::from_der(&site.issued(&Shown::Nothing, &key).await).expect("a certificate");
    assert!(certificate.names_host(NAME));
    assert!(matches!(site.ask(&Shown::Nothing, &super::tests::key()).await, Enrolled::Waiting));
    site.end().await;
}

#[tokio::test]
async fn requests_that_are_none_cost_nothing() {
    let site = Site::new().await;
    let proof = site.token(1).await;
    for csr in [vec![], vec![0x30; 17_000], b"junk".to_vec()] {
        let request =
            Enrollment { protocol: Protocol::Est, proof: proof.clone(), csr, source: Ipv4Addr::LOCALHOST.into() };
        assert!(matches!(enroll(&site.core, &request).await.expect("decides"), Enrolled::Invalid(_)));
    }
    site.issued(&proof, &key()).await;
    site.end().await;
}

/// A question of which nobody has made more than the first half.
struct Half {
    token: Shown,
    key: KeyPair,
    command: IntendCertificate,
}

impl Half {
    async fn of(site: &Site) -> Self {
        let (token, key) = (site.token(1).await, key());
        let Ok(Some(proof)) = proof(&token) else { panic!("a token") };
        let key_sha256 = sallyport_ca::Fingerprint::of(key.public_key().spki_der()).0.to_vec();
        let applicant = Applicant {
            proof: Some(proof.clone()),
            key_sha256: key_sha256.clone(),
            key: v1::KeyAlgorithm::EcdsaP256,
            source: "127.0.0.1".into(),
        };
        let case = Case {
            transaction: transaction(Some(&proof), &key_sha256),
            applicant,
            claims: String::new(),
            key: key.public_key(),
        };
        let verdict = site.core.node.shared().read().authorise(&case.applicant, site.core.now_ms());
        let Verdict::Granted(grant) = verdict else { panic!("granted") };
        let command = issue::intent(&site.core, &case, &grant).expect("an intent");
        Self { token, key, command }
    }

    fn serial(&self) -> String {
        self.command.record.as_ref().expect("a record").serial.clone()
    }

    /// Puts it into the log; the row.
    async fn intend(&self, site: &Site) -> IntentRow {
        let action = Action::IntendCertificate(self.command.clone());
        let reply = site.core.propose_idempotent(action).await.expect("proposes");
        assert!(matches!(reply.outcome, Some(Outcome::Intended(_))), "{reply:?}");
        let state = site.core.node.shared().read();
        state.intended(&self.command.transaction).expect("it is there").clone()
    }
}

/// Whoever made an intent was killed before it signed.
#[tokio::test]
async fn an_intent_that_was_left_is_finished_once_and_by_the_same_bytes() {
    let site = Site::new().await;
    let half = Half::of(&site).await;
    half.intend(&site).await;
    finish_intents(&site.core).await.expect("looks");
    assert_eq!(site.core.node.shared().read().intents.len(), 1, "whoever made it has time");
    site.clock.advance(Duration::from_secs(6));
    finish_intents(&site.core).await.expect("finishes");
    assert!(site.core.node.shared().read().intents.is_empty());
    let certificate = site.issued(&half.token, &half.key).await;
    assert_eq!(super::tests::serial(&certificate), half.serial());
    site.end().await;
}

/// What a broken or hostile controller could have put into the log: the next one looks before it touches the key.
#[tokio::test]
async fn what_is_not_what_the_log_says_of_it_is_never_signed_and_gives_its_token_back() {
    let site = Site::new().await;
    let others = {
        // What would be signed for other names, another key, another time.
        let half = Half::of(&site).await;
        let grant = |name: &str, key: &KeyPair, days: u64| {
            let issuing = site.core.issuing(KeyAlgorithm::EcdsaP256).expect("an authority").authority;
            let serial = half.serial().parse().expect("a serial number");
            let subject = sallyport_ca::Subject::new(name, Vec::new()).expect("a subject");
            let now = sallyport_ca::UnixTime(i64::try_from(site.core.now_ms() / 1_000).expect("a time"));
            let validity = Duration::from_secs(days * 86_400);
            let public = key.public_key();
            let profile = sallyport_ca::Profile::Machine;
            issuing.prepare(profile, &subject, &public, now, validity, serial).expect("prepares").tbs().to_vec()
        };
        let right = grant(NAME, &half.key, 365);
        assert_eq!(right, half.command.tbs, "but for these it is the same");
        [
            ("another name", grant("boss.example.com", &half.key, 365)),
            ("another key", grant(NAME, &key(), 365)),
            ("another life", grant(NAME, &half.key, 364)),
            ("another serial number", Half::of(&site).await.command.tbs),
            ("an authority", site.core.root().der().to_vec()),
            ("nothing", Vec::new()),
        ]
        .map(|(what, tbs)| (what, tbs, Half { command: half.command.clone(), token: half.token.clone(), key: key() }))
    };
    for (what, tbs, mut half) in others {
        half.command.tbs = tbs;
        let row = half.intend(&site).await;
        assert!(!issue::complete(&site.core, row).await.expect(what), "{what}");
        let state = site.core.node.shared().read();
        assert!(state.intents.is_empty() && !state.certificates.contains(&half.serial()), "{what}");
        let Ok(Some(ProofKind::Token(token))) = proof(&half.token) else { panic!("a token") };
        assert_eq!(state.enroll_tokens.get(&token.id).expect("there").used, 0, "{what}");
    }
    let text = site.core.metrics.render(&site.core).expect("renders");
    assert!(String::from_utf8_lossy(&text).contains("enrollments_total{outcome=\"abandoned\"} 6"));
    site.end().await;
}

/// A fault in the signing: another key's signature, or a flipped bit, as a fault attack would have it.
#[tokio::test]
async fn a_signature_that_is_not_the_authoritys_leaves_no_controller() {
    let site = Site::new().await;
    let half = Half::of(&site).await;
    let authority = site.core.issuing_by(half.command.issuer).expect("an authority").authority;
    let (rng, tbs) = (SystemRandom::new(), half.command.tbs.clone());
    let wrong = [
        ("another key's", key().sign(&tbs, &rng).expect("signs")),
        ("made up", vec![0x30, 6, 2, 1, 1, 2, 1, 1]),
        ("none", Vec::new()),
    ];
    for (what, signature) in wrong {
        let row = half.intend(&site).await;
        assert!(!issue::hand_in(&site.core, &authority, &row, signature).await.expect(what), "{what}");
        let state = site.core.node.shared().read();
        assert!(state.intents.is_empty() && !state.certificates.contains(&half.serial()), "{what}");
    }
    // And nothing was lost by it.
    let certificate = Certificate::from_der(&site.issued(&half.token, &half.key).await).expect("a certificate");
    assert!(certificate.is_issued_by(authority.certificate()));
    site.end().await;
}

/// Its authority cannot be opened, say, and never can.
#[tokio::test]
async fn an_intent_that_nobody_can_sign_is_given_up_after_ten_minutes_and_its_token_is_good_again() {
    let site = Site::new().await;
    let half = Half::of(&site).await;
    half.intend(&site).await;
    assert_eq!(site.refused(&half.token, &key()).await, RefusalKind::UsedUp);
    site.clock.advance(Duration::from_secs(10 * 60));
    // Whoever leads is late itself: then it is not begun any more.
    finish_intents(&site.core).await.expect("gives up");
    assert!(site.core.node.shared().read().intents.is_empty());
    site.issued(&half.token, &half.key).await;
    site.end().await;
}

#[tokio::test]
async fn a_profile_that_allows_no_such_key_says_so() {
    let site = Site::new().await;
    let token = site.token(1).await;
    let profile = site.core.node.shared().read().profile(sallyport_ca::Profile::Machine);
    let keys = vec![v1::KeyAlgorithm::Rsa3072.into()];
    let rsa_only = crate::state::ProfileRow { keys, ..profile };
    site.done(Action::SetProfile(SetProfile { name: "machine".into(), profile: Some(rsa_only) })).await;
    assert_eq!(site.refused(&token, &key()).await, RefusalKind::Profile);
    site.end().await;
}

/// TLS and SCEP take any certificate whose key its holder has; what becomes of it is recorded and never forgotten.
#[tokio::test]
async fn a_serial_number_as_long_as_a_handshake_is_neither_recorded_nor_looked_for() {
    let site = Site::new().await;
    let mut params = rcgen::CertificateParams::default();
    params.serial_number = Some(rcgen::SerialNumber::from_slice(&[0x7f; 30_000]));
    let key_pair = rcgen::KeyPair::generate().expect("a key");
    let der = params.self_signed(&key_pair).expect("a certificate").der().to_vec();
    assert!(is_ours(&site.core, &der).is_err_and(|refusal| refusal.cause.len() < 200));
    assert_eq!(site.refused(&Shown::Certificate(der), &key()).await, RefusalKind::Unproven);
    let recorded = || site.core.node.shared().read().attempts.iter().map(|(_, a)| a.cause.len()).max();
    for _ in 0..1_000 {
        if recorded().is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(recorded().is_some_and(|len| len < 200), "{:?}", recorded());
    site.end().await;
}

#[tokio::test]
async fn a_key_is_made_for_whoever_may_have_a_certificate_and_a_few_at_a_time() {
    use sallyport_endpoint::{Answer, Office};

    let site = Site::new().await;
    let profile = site.core.node.shared().read().profile(sallyport_ca::Profile::Machine);
    let profile = Some(crate::state::ProfileRow { server_keys: true, ..profile });
    site.done(Action::SetProfile(SetProfile { name: "machine".into(), profile })).await;
    let office = ControllerOffice::new(site.core.clone());
    let ask = async |proof: Shown| {
        let csr = key().request("x", None, &SystemRandom::new()).expect("a request").to_vec();
        let source = Ipv4Addr::LOCALHOST.into();
        office.enroll(Enrollment { protocol: Protocol::EstServerKey, proof, csr, source }).await
    };
    // There is no room for a key: whoever is refused was so before one would have been made.
    let room = office.keys.available_permits();
    office.keys.forget_permits(room);
    let unknown = EnrollToken::generate([7; 32], "", &SystemRandom::new()).expect("a token").to_text();
    for stranger in [Shown::Nothing, Shown::Token(unknown), Shown::Certificate(site.core.root().der().to_vec())] {
        assert!(matches!(ask(stranger).await, Answer::Denied { .. }));
    }
    let token = site.token(1).await;
    assert!(matches!(ask(token.clone()).await, Answer::Busy { .. }));
    office.keys.add_permits(1);
    assert!(matches!(ask(token.clone()).await, Answer::Issued { private_key: Some(_), .. }));
    assert!(matches!(ask(token).await, Answer::Denied { .. }), "it is used up");
    drop(office);
    site.end().await;
}

/// Somebody who recorded a message sends it again, a day later and after two.
#[tokio::test]
async fn a_request_that_is_replayed_after_days_brings_the_same_certificate_and_costs_the_machine_nothing() {
    let site = Site::new().await;
    let listed = key();
    let key_sha256 = sallyport_ca::Fingerprint::of(listed.public_key().spki_der()).0.to_vec();
    let machine =
        MachineRow { name: "pos1.example.com".into(), profile: "machine".into(), key_sha256, ..MachineRow::default() };
    site.done(Action::PutMachines(PutMachines { machines: vec![machine], keep: false })).await;
    let (token, first_key, second_key) = (site.token(5).await, key(), key());
    let first = site.issued(&token, &first_key).await;
    let by_first = Shown::Certificate(first.clone());
    let second = site.issued(&by_first, &second_key).await;
    let by_list = site.issued(&Shown::Nothing, &listed).await;
    for _ in 0..2 {
        site.clock.advance(Duration::from_secs(86_400 + 60));
        assert_eq!(site.issued(&token, &first_key).await, first);
        assert_eq!(site.issued(&by_first, &second_key).await, second);
        assert_eq!(site.issued(&Shown::Nothing, &listed).await, by_list);
    }
    {
        let state = site.core.node.shared().read();
        for certificate in [&first, &second, &by_list] {
            assert!(state.machine_certificate(&serial(certificate), site.core.now_ms()).is_ok());
        }
    }
    // The machine goes on, and what is recorded of before opens nothing.
    let third = site.issued(&Shown::Certificate(second.clone()), &key()).await;
    site.clock.advance(Duration::from_secs(86_400 + 60));
    assert_eq!(site.refused(&by_first, &second_key).await, RefusalKind::Revoked);
    assert_eq!(site.refused(&token, &first_key).await, RefusalKind::Ended);
    {
        let state = site.core.node.shared().read();
        assert!(state.machine_certificate(&serial(&third), site.core.now_ms()).is_ok());
    }
    site.end().await;
}
