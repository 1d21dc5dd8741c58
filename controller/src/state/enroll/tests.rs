use sallyport_ca::seal::SealKey;
use sallyport_ca::{
    Authority, KeyAlgorithm, KeyPair, Profile, Recorded, RootConfig, Serial, Subject, SystemRandom, UnixTime,
};
use sallyport_proto::v1;

use super::*;
use crate::state::tests::Bench;
use crate::state::{Action, CertificateRow, Command, ConflictKind, Done, Outcome, RevokeCertificate};

mod office;
mod rules;

pub(super) const NAME: &str = "laptop7.example.com";

/// A state, an authority, and machines that want certificates of it.
pub(super) struct Office {
    pub(super) bench: Bench,
    authority: Authority,
    serials: u8,
}

impl Office {
    pub(super) fn new() -> Self {
        let rng = SystemRandom::new();
        let seal = SealKey::generate(&rng).expect("a key");
        let config = RootConfig::new("Example", "Example Root");
        let (authority, _) = Authority::create(&config, &seal, UnixTime(0), &rng).expect("a root");
        let mut bench = Bench::empty();
        bench.raise(ENROLL_LEVEL);
        Self { bench, authority, serials: 0 }
    }

    pub(super) fn token(&mut self, id: u8, name: &str, uses: u32, ttl_ms: u64) {
        let command = CreateEnrollToken {
            id: vec![id; 8],
            hash: vec![id; 32],
            profile: "machine".into(),
            name: name.into(),
            ttl_ms,
            uses,
            ..CreateEnrollToken::default()
        };
        self.bench.done(Action::CreateEnrollToken(command));
    }

    pub(super) fn ask(&self, proof: Option<ProofKind>, key: u8) -> Verdict {
        self.ask_from(proof, key, "192.0.2.7")
    }

    fn ask_from(&self, proof: Option<ProofKind>, key: u8, source: &str) -> Verdict {
        let (key_sha256, source) = (vec![key; 32], source.into());
        let applicant = Applicant { proof, key_sha256, key: v1::KeyAlgorithm::EcdsaP256, source };
        self.bench.state.authorise(&applicant, self.bench.state.now_ms())
    }

    pub(super) fn refusal(&self, proof: Option<ProofKind>, key: u8) -> RefusalKind {
        match self.ask(proof, key) {
            Verdict::Refused(refusal) => refusal.kind,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn grant(&self, proof: Option<ProofKind>, key: u8) -> Grant {
        match self.ask(proof, key) {
            Verdict::Granted(grant) => *grant,
            other => panic!("{other:?}"),
        }
    }

    /// What a controller would put into the log.
    pub(super) fn intent(&mut self, grant: &Grant, key: u8) -> IntendCertificate {
        self.serials += 1;
        let rng = SystemRandom::new();
        let serial = Serial::generate_in_epoch(1, &rng).expect("a serial number");
        let names = std::iter::once(&grant.name).chain(&grant.sans).map(|name| crate::authority::alt_name(name));
        let subject = Subject::new(&grant.name, names.collect()).expect("a name");
        let pair = KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng).expect("a key");
        let now = UnixTime(1);
        let validity = core::time::Duration::from_secs(grant.rules.validity_s);
        let prepared =
            self.authority.prepare(grant.profile, &subject, &pair.public_key(), now, validity, serial.clone());
        let record = CertificateRow {
            serial: serial.to_string(),
            profile: crate::authority::profile_to_proto(grant.profile).into(),
            name: grant.name.clone(),
            sans: std::iter::once(&grant.name).chain(&grant.sans).cloned().collect(),
            not_after_ms: self.bench.state.now_ms() + grant.rules.validity_s * 1_000,
            key_algorithm: v1::KeyAlgorithm::EcdsaP256.into(),
            ..CertificateRow::default()
        };
        IntendCertificate {
            transaction: vec![key; 16],
            proof: Some(grant.proof.clone()),
            key_sha256: vec![key; 32],
            source: "192.0.2.7".into(),
            profile_version: grant.rules.version,
            tbs: prepared.expect("prepares").tbs().to_vec(),
            record: Some(record),
            issuer: 0,
        }
    }

    pub(super) fn complete(&mut self, intent: &IntendCertificate) -> Done {
        let (serial, signature) = (serial_of(intent), self.sign(intent));
        self.bench.done(Action::CompleteCertificate(CompleteCertificate { serial, signature }))
    }

    fn sign(&self, intent: &IntendCertificate) -> Vec<u8> {
        let draft = sallyport_ca::Certificate::assemble(&intent.tbs, &[0]).expect("a certificate");
        let record = intent.record.as_ref().expect("a record");
        let names = record.sans.iter().map(|san| crate::authority::alt_name(san)).collect();
        let subject = Subject::new(&record.name, names).expect("a name");
        let recorded = Recorded {
            profile: profile_of(record).expect("a profile"),
            serial: &draft.serial,
            subject: &subject,
            period: (draft.not_before, draft.not_after),
            key: KeyAlgorithm::EcdsaP256,
            key_sha256: None,
        };
        self.authority.sign_recorded(&intent.tbs, &recorded, &SystemRandom::new()).expect("signs")
    }

    /// The whole way; the serial number.
    pub(super) fn enroll(&mut self, proof: Option<ProofKind>, key: u8) -> String {
        let grant = self.grant(proof, key);
        let intent = self.intent(&grant, key);
        self.intends(&intent);
        self.complete(&intent);
        serial_of(&intent)
    }

    pub(super) fn intends(&mut self, intent: &IntendCertificate) {
        let outcome = self.bench.apply(Action::IntendCertificate(intent.clone()));
        assert!(matches!(outcome, Outcome::Intended(_)), "{outcome:?}");
    }

    pub(super) fn conflict(&mut self, action: Action) -> ConflictKind {
        match self.bench.apply(action) {
            Outcome::Conflict(conflict) => conflict.kind(),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn revoke(&mut self, serial: &str) {
        let command = RevokeCertificate { serial: serial.into(), reason: "stolen".into() };
        self.bench.done(Action::RevokeCertificate(command));
    }

    pub(super) fn is_revoked(&self, serial: &str) -> bool {
        self.bench.state.certificates.get(&serial.to_owned()).expect("there").revoked_ms != 0
    }

    pub(super) fn machine(&self) -> &MachineRow {
        self.bench.state.machine(NAME).expect("known")
    }
}

pub(super) fn serial_of(intent: &IntendCertificate) -> String {
    intent.record.as_ref().expect("a record").serial.clone()
}

#[allow(clippy::unnecessary_wraps, reason = "what callers hand on")]
pub(super) fn token(id: u8) -> Option<ProofKind> {
    Some(ProofKind::Token(TokenProof { id: vec![id; 8], hash: vec![id; 32] }))
}

#[allow(clippy::unnecessary_wraps, reason = "what callers hand on")]
pub(super) fn certificate(serial: &str) -> Option<ProofKind> {
    Some(ProofKind::Certificate(serial.into()))
}

#[test]
fn a_token_is_good_for_its_name_and_as_often_as_it_says() {
    let mut o = Office::new();
    o.token(1, NAME, 1, 10_000);
    assert_eq!(o.refusal(token(2), 1), RefusalKind::Unproven);
    let wrong = ProofKind::Token(TokenProof { id: vec![1; 8], hash: vec![2; 32] });
    assert_eq!(o.refusal(Some(wrong), 1), RefusalKind::Unproven, "the right id without the secret");
    let grant = o.grant(token(1), 1);
    assert_eq!((grant.name.as_str(), grant.method), (NAME, v1::EnrollMethod::Token));
    let serial = o.enroll(token(1), 1);
    assert_eq!(o.refusal(token(1), 2), RefusalKind::UsedUp);
    assert_eq!(o.machine().serial, serial);
    assert_eq!(o.bench.state.issued(&[1; 16]).expect("kept").serial, serial);
    assert!(o.bench.state.machine_certificate(&serial, o.bench.state.now_ms()).is_ok());
}

#[test]
fn a_token_ends_and_can_be_taken_back() {
    let mut o = Office::new();
    o.token(1, NAME, 5, 1);
    o.token(2, NAME, 5, 10_000);
    assert_eq!(o.refusal(token(1), 1), RefusalKind::Ended);
    assert!(matches!(o.ask(token(2), 1), Verdict::Granted(_)));
    o.bench.done(Action::RevokeEnrollToken(RevokeEnrollToken { id: vec![2; 8] }));
    assert_eq!(o.refusal(token(2), 1), RefusalKind::Unproven);
    assert_eq!(o.conflict(Action::RevokeEnrollToken(RevokeEnrollToken { id: vec![2; 8] })), ConflictKind::NotFound);
}

#[test]
fn two_at_a_time_cannot_use_one_token_twice() {
    let mut o = Office::new();
    o.token(1, NAME, 1, 10_000);
    // Both controllers saw the token unused.
    let (grant_a, grant_b) = (o.grant(token(1), 1), o.grant(token(1), 2));
    let (a, b) = (o.intent(&grant_a, 1), o.intent(&grant_b, 2));
    o.intends(&a);
    assert_eq!(o.conflict(Action::IntendCertificate(b)), ConflictKind::Changed);
    assert_eq!(o.bench.state.intents.len(), 1);
}

#[test]
fn the_same_question_is_one_certificate_however_often_it_is_asked() {
    let mut o = Office::new();
    o.token(1, NAME, 1, 10_000);
    let grant = o.grant(token(1), 1);
    let (first, again) = (o.intent(&grant, 1), o.intent(&grant, 1));
    o.intends(&first);
    o.intends(&again);
    assert_eq!(o.bench.state.intents.len(), 1);
    assert_eq!(o.bench.state.intended(&[1; 16]).expect("kept").tbs, first.tbs, "what was said first");
    o.complete(&first);
    o.intends(&again); // the answer was lost
    assert!(o.bench.state.intents.is_empty());
    let kept = o.bench.state.issued(&[1; 16]).expect("kept").clone();
    o.complete(&first); // another controller finished it as well: the first signature counts
    assert_eq!(o.bench.state.issued(&[1; 16]), Some(&kept));
    assert_eq!(o.bench.state.enroll_tokens.get(&vec![1; 8]).expect("kept").used, 1);
}

#[test]
fn nothing_is_recorded_that_was_not_intended_and_an_abandoned_intent_gives_its_token_back() {
    let mut o = Office::new();
    o.token(1, NAME, 1, 10_000);
    let grant = o.grant(token(1), 1);
    let intent = o.intent(&grant, 1);
    let complete = CompleteCertificate { serial: serial_of(&intent), signature: vec![1; 70] };
    assert_eq!(o.conflict(Action::CompleteCertificate(complete.clone())), ConflictKind::NotFound);
    o.intends(&intent);
    assert_eq!(o.refusal(token(1), 2), RefusalKind::UsedUp);
    o.bench.done(Action::AbandonCertificate(AbandonCertificate { serial: serial_of(&intent) }));
    assert_eq!(o.conflict(Action::CompleteCertificate(complete)), ConflictKind::NotFound, "signed too late");
    assert!(matches!(o.ask(token(1), 2), Verdict::Granted(_)));
}

/// What a controller that was taken over could try: the log itself refuses.
#[test]
fn an_intent_says_nothing_but_what_its_proof_allows() {
    type Change = fn(&mut CertificateRow);
    let changes: [(&str, Change); 6] = [
        ("another name", |r| r.name = "boss.example.com".into()),
        ("a further name", |r| r.sans.push("boss.example.com".into())),
        ("another profile", |r| r.profile = v1::CertificateProfile::Operator.into()),
        ("a longer life", |r| r.not_after_ms += 2 * 3_600_000),
        ("a controller's", |r| r.member = 1),
        ("a beginning far ahead", |r| r.not_before_ms = u64::MAX),
    ];
    for (what, change) in changes {
        let mut o = Office::new();
        o.token(1, NAME, 1, 10_000);
        let grant = o.grant(token(1), 1);
        let mut intent = o.intent(&grant, 1);
        change(intent.record.as_mut().expect("a record"));
        assert_eq!(o.conflict(Action::IntendCertificate(intent)), ConflictKind::Changed, "{what}");
        assert!(
            o.bench.state.intents.is_empty() && o.bench.state.enroll_tokens.get(&vec![1; 8]).expect("there").used == 0
        );
    }
    let mut o = Office::new();
    let intent = IntendCertificate {
        proof: Some(Proof { kind: Some(ProofKind::Listed(NAME.into())) }),
        ..{
            o.token(1, NAME, 1, 10_000);
            let grant = o.grant(token(1), 1);
            o.intent(&grant, 1)
        }
    };
    assert_eq!(o.conflict(Action::IntendCertificate(intent)), ConflictKind::Changed, "a list that it is not on");
}

#[test]
fn a_certificate_is_renewed_by_the_newest_two_and_never_by_a_revoked_one() {
    let mut o = Office::new();
    o.token(1, NAME, 1, 10_000);
    let first = o.enroll(token(1), 1);
    let second = o.enroll(certificate(&first), 2);
    let third = o.enroll(certificate(&second), 3);
    assert_eq!((o.machine().serial.as_str(), o.machine().previous.as_str()), (third.as_str(), second.as_str()));
    assert_eq!(o.machine().method(), v1::EnrollMethod::Renewal);
    assert_eq!(o.refusal(certificate(&first), 4), RefusalKind::Revoked, "replaced twice");
    assert!(matches!(o.ask(certificate(&second), 4), Verdict::Granted(_)), "the answer with the third may be lost");
    assert!(o.is_revoked(&first) && !o.is_revoked(&second), "two are live, no more");
    // The operator sees the newest only; the thief has both.
    o.revoke(&third);
    assert!(o.is_revoked(&second));
    assert_eq!(o.refusal(certificate(&third), 4), RefusalKind::Revoked);
    assert_eq!(o.refusal(certificate(&second), 4), RefusalKind::Revoked);
    assert_eq!(o.refusal(certificate("00ff"), 4), RefusalKind::Unproven, "never issued");
}

#[test]
fn a_lapsed_certificate_can_be_renewed_for_a_while() {
    let mut o = Office::new();
    o.token(1, NAME, 1, 10_000);
    let serial = o.enroll(token(1), 1);
    let applicant = |at_ms| {
        let key = v1::KeyAlgorithm::EcdsaP256;
        let a = Applicant { proof: certificate(&serial), key_sha256: vec![2; 32], key, source: String::new() };
        o.bench.state.authorise(&a, at_ms)
    };
    let end = o.bench.state.certificates.get(&serial).expect("there").not_after_ms;
    let late = ProfileRow::initial(Profile::Machine).late_renewal_s * 1_000;
    assert!(matches!(applicant(end + late - 1), Verdict::Granted(_)));
    assert!(matches!(applicant(end + late), Verdict::Refused(r) if r.kind == RefusalKind::Ended));
}

#[test]
fn who_shows_nothing_waits_for_an_operator_who_gives_the_name() {
    let mut o = Office::new();
    assert_eq!(o.ask(None, 1), Verdict::MayQueue);
    let queue = |key: u8| QueueRequest {
        key_sha256: vec![key; 32],
        claims: "CN=ceo.example.com".into(),
        source: "192.0.2.7".into(),
        profile: "machine".into(),
        ..QueueRequest::default()
    };
    o.bench.done(Action::QueueRequest(queue(1)));
    o.bench.done(Action::QueueRequest(queue(1)));
    assert_eq!(o.bench.state.requests.len(), 1, "asked again");
    let Verdict::Waiting(number) = o.ask(None, 1) else { panic!("waits") };
    let decide = |approve| DecideRequest { number, approve, name: NAME.into(), ..DecideRequest::default() };
    o.bench.done(Action::DecideRequest(decide(false)));
    assert_eq!(o.refusal(None, 1), RefusalKind::Decided);
    // A place that was listed for another machine opens nothing to one that was decided on.
    let network = Some("192.0.2.0/24".parse().expect("a network"));
    let other =
        MachineRow { name: "pos1.example.com".into(), profile: "machine".into(), network, ..MachineRow::default() };
    o.bench.done(Action::PutMachines(PutMachines { machines: vec![other], keep: false }));
    assert_eq!(o.refusal(None, 1), RefusalKind::Decided);
    o.bench.done(Action::DecideRequest(decide(true)));
    assert_eq!(o.grant(None, 1).name, NAME);
    o.bench.done(Action::RemoveMachine(RemoveMachine { key: "pos1.example.com".into() }));
    assert_eq!(o.ask(None, 2), Verdict::MayQueue, "another key is another machine");
    o.enroll(None, 1);
    assert_eq!(o.machine().method(), v1::EnrollMethod::Approval, "under the operator's name, not its own");
    assert_eq!(o.refusal(None, 1), RefusalKind::UsedUp);
    assert_eq!(o.conflict(Action::DecideRequest(decide(false))), ConflictKind::Precondition);

    for key in 10..10 + u8::try_from(MAX_REQUESTS_OF_SOURCE).expect("few") {
        o.bench.done(Action::QueueRequest(queue(key)));
    }
    assert_eq!(o.conflict(Action::QueueRequest(queue(100))), ConflictKind::Exhausted, "one place fills no queue");
}

#[test]
fn the_list_lets_in_by_key_and_once_by_network() {
    let mut o = Office::new();
    let machine = |name: &str| MachineRow { name: name.into(), profile: "machine".into(), ..MachineRow::default() };
    let by_key = MachineRow { key_sha256: vec![9; 32], ..machine(NAME) };
    let by_network =
        MachineRow { network: Some("198.51.100.0/24".parse().expect("a network")), ..machine("pos1.example.com") };
    o.bench.done(Action::PutMachines(PutMachines { machines: vec![by_key.clone(), by_network.clone()], keep: false }));
    let serial = o.enroll(None, 9);
    assert_eq!((o.machine().method(), o.machine().serial.as_str()), (v1::EnrollMethod::List, serial.as_str()));
    assert!(matches!(o.ask(None, 9), Verdict::Granted(_)), "its key is its proof");
    let both = MachineRow { network: by_network.network, key_sha256: vec![7; 32], ..machine("both.example.com") };
    o.bench.done(Action::PutMachines(PutMachines { machines: vec![both], keep: false }));
    assert_eq!(o.ask(None, 7), Verdict::MayQueue, "the key alone, from elsewhere");
    assert!(matches!(o.ask_from(None, 7, "198.51.100.3"), Verdict::Granted(_)));

    let Verdict::Granted(grant) = o.ask_from(None, 5, "198.51.100.8") else { panic!("listed") };
    assert_eq!(grant.name, "pos1.example.com");
    let intent = IntendCertificate { source: "198.51.100.8".into(), ..o.intent(&grant, 5) };
    o.intends(&intent);
    o.complete(&intent);
    assert_eq!(o.ask_from(None, 6, "198.51.100.9"), Verdict::MayQueue, "an address opens once");

    // Stolen, with its key.
    o.revoke(&serial);
    assert_eq!(o.refusal(None, 9), RefusalKind::Revoked);

    let twice = PutMachines { machines: vec![machine("a.example.com"), machine("A.example.com")], keep: false };
    assert_eq!(o.conflict(Action::PutMachines(twice)), ConflictKind::Invalid);
    let others_key =
        PutMachines { machines: vec![MachineRow { key_sha256: vec![9; 32], ..machine("b.example.com") }], keep: false };
    assert_eq!(o.conflict(Action::PutMachines(others_key)), ConflictKind::Invalid);
    let two = |name: &str| MachineRow { network: by_network.network, ..machine(name) };
    o.bench.done(Action::PutMachines(PutMachines {
        machines: vec![two("x.example.com"), two("y.example.com")],
        keep: false,
    }));
    assert_eq!(o.ask_from(None, 6, "198.51.100.9"), Verdict::MayQueue, "two come from there: neither is known");
}

#[test]
fn profiles_bound_names_keys_ways_and_lives() {
    let mut o = Office::new();
    let set = |profile: ProfileRow| Action::SetProfile(SetProfile { name: "machine".into(), profile: Some(profile) });
    let initial = ProfileRow::initial(Profile::Machine);
    o.token(1, NAME, 5, 10_000);
    let narrow = ProfileRow { name_suffixes: vec!["example.org".into()], ..initial.clone() };
    o.bench.done(set(narrow.clone()));
    assert_eq!(o.refusal(token(1), 1), RefusalKind::Profile, "a token of before");
    assert_eq!(o.conflict(set(narrow.clone())), ConflictKind::Changed, "made from an older version");
    let rsa_only = ProfileRow { version: 2, keys: vec![v1::KeyAlgorithm::Rsa2048.into()], ..initial.clone() };
    o.bench.done(set(rsa_only));
    assert_eq!(o.refusal(token(1), 1), RefusalKind::Profile, "another kind of key");
    o.bench.done(set(ProfileRow { version: 3, methods: vec![v1::EnrollMethod::Renewal.into()], ..initial.clone() }));
    assert_eq!(o.refusal(token(1), 1), RefusalKind::Profile, "another way");
    let wrong = [
        ProfileRow { validity_s: 399 * 86_400, ..initial.clone() },
        ProfileRow { validity_s: 60, ..initial.clone() },
        ProfileRow { keys: Vec::new(), ..initial.clone() },
        ProfileRow { overdue_percent: 100, ..initial.clone() },
        ProfileRow { methods: vec![v1::EnrollMethod::Operator.into()], ..initial.clone() },
        ProfileRow { name_suffixes: vec!["*".into()], ..initial.clone() },
    ];
    for profile in wrong {
        assert_eq!(o.conflict(set(ProfileRow { version: 4, ..profile.clone() })), ConflictKind::Invalid, "{profile:?}");
    }
    let operators = ProfileRow { version: 1, ..initial };
    let command = SetProfile { name: "operator".into(), profile: Some(operators) };
    assert_eq!(o.conflict(Action::SetProfile(command)), ConflictKind::Invalid, "no way to an operator's certificate");
}

#[test]
fn a_suffix_is_a_whole_part_of_a_name() {
    let profile = ProfileRow { name_suffixes: vec!["corp.example".into()], ..ProfileRow::default() };
    for (name, admitted) in [
        ("a.corp.example", true),
        ("corp.example", true),
        ("A.B.CORP.EXAMPLE", true),
        ("evilcorp.example", false),
        ("corp.example.evil", false),
    ] {
        assert_eq!(profile.admits_name(name), admitted, "{name}");
    }
}

#[test]
fn who_is_due_is_known_before_anything_lapses() {
    let mut o = Office::new();
    o.token(1, NAME, 1, 10_000);
    let serial = o.enroll(token(1), 1);
    let end = o.bench.state.certificates.get(&serial).expect("there").not_after_ms;
    let due = o.machine().due_ms;
    assert!(due > end / 100 * 90 && due < end / 100 * 93, "{due} of {end}");
    assert_eq!(o.bench.state.overdue(due).count(), 0);
    assert_eq!(o.bench.state.overdue(due + 1).map(|m| m.name.as_str()).collect::<Vec<_>>(), [NAME]);
    o.bench.done(Action::RemoveMachine(RemoveMachine { key: NAME.into() }));
    assert_eq!(o.bench.state.overdue(u64::MAX).count(), 0);
}

#[test]
fn what_is_loaded_from_rows_decides_as_before() {
    let mut o = Office::new();
    o.token(1, NAME, 2, 10_000);
    let first = o.enroll(token(1), 1);
    let grant = o.grant(certificate(&first), 2);
    let intent = o.intent(&grant, 2);
    o.intends(&intent);
    let machine = MachineRow {
        name: "k.example.com".into(),
        profile: "machine".into(),
        key_sha256: vec![8; 32],
        ..MachineRow::default()
    };
    o.bench.done(Action::PutMachines(PutMachines { machines: vec![machine], keep: false }));
    o.bench.state = State::from_rows(o.bench.state.rows()).expect("loads");
    assert_eq!(o.bench.state.issued(&[1; 16]).expect("kept").serial, first);
    assert!(matches!(o.ask(None, 8), Verdict::Granted(_)));
    o.complete(&intent);
    assert_eq!(o.machine().serial, serial_of(&intent));
    assert_eq!(o.bench.state.overdue(u64::MAX).count(), 1);
}

#[test]
fn whoever_comes_back_by_a_new_token_renews_although_the_certificate_before_is_revoked() {
    let mut o = Office::new();
    o.token(1, NAME, 2, 10_000);
    let stolen = o.enroll(token(1), 1);
    o.revoke(&stolen);
    let fresh = o.enroll(token(1), 2);
    o.enroll(certificate(&fresh), 3);
    assert_eq!(o.machine().previous, fresh);
}

#[test]
fn a_removed_machine_renews_no_more_until_somebody_lets_it_in_again() {
    let mut o = Office::new();
    o.token(1, NAME, 2, 10_000);
    let serial = o.enroll(token(1), 1);
    o.bench.done(Action::RemoveMachine(RemoveMachine { key: NAME.into() }));
    assert_eq!(o.refusal(certificate(&serial), 2), RefusalKind::Revoked);
    assert_eq!(o.conflict(Action::RemoveMachine(RemoveMachine { key: NAME.into() })), ConflictKind::NotFound);
    let again = o.enroll(token(1), 3);
    assert!(matches!(o.ask(certificate(&again), 4), Verdict::Granted(_)));
}

#[test]
fn a_thief_gathers_no_certificates_with_one() {
    let mut o = Office::new();
    o.token(1, NAME, 1, 10_000);
    let mut serial = o.enroll(token(1), 1);
    // At a time: one.
    let (a, b) = (o.grant(certificate(&serial), 2), o.grant(certificate(&serial), 3));
    let (a, b) = (o.intent(&a, 2), o.intent(&b, 3));
    o.intends(&a);
    assert_eq!(o.conflict(Action::IntendCertificate(b)), ConflictKind::Exhausted);
    o.complete(&a);
    serial = serial_of(&a);
    // In a row: some, of which two are live.
    for key in 4..4 + u8::try_from(MAX_RENEWALS).expect("few") - 1 {
        serial = o.enroll(certificate(&serial), key);
    }
    assert_eq!(o.refusal(certificate(&serial), 100), RefusalKind::TooOften);
    assert_eq!(o.bench.state.certificates.iter().filter(|(_, c)| c.name == NAME && c.revoked_ms == 0).count(), 2);
}

#[test]
fn what_was_taken_back_meanwhile_is_not_recorded() {
    let mut o = Office::new();
    o.token(1, NAME, 1, 10_000);
    let grant = o.grant(token(1), 1);
    let intent = o.intent(&grant, 1);
    o.intends(&intent);
    o.bench.done(Action::RevokeEnrollToken(RevokeEnrollToken { id: vec![1; 8] }));
    o.complete(&intent);
    assert!(o.bench.state.intents.is_empty());
    assert!(!o.bench.state.certificates.contains(&serial_of(&intent)));
}

/// The same question, whose first answer was revoked: a node that starts anew must decide as the others.
#[test]
fn the_answers_that_are_kept_are_the_same_after_a_start() {
    let mut o = Office::new();
    let machine = MachineRow { name: NAME.into(), profile: "machine".into(), ..MachineRow::default() };
    o.token(1, NAME, 3, u64::MAX / 2);
    let first = o.enroll(token(1), 1);
    o.revoke(&first);
    let second = o.enroll(token(1), 1);
    assert_eq!(o.bench.state.issued(&[1; 16]).expect("kept").serial, second);
    let mut loaded = State::from_rows(o.bench.state.rows()).expect("loads");
    // A day later the oldest answers go.
    let later = Command {
        request_id: Vec::new(),
        at_ms: o.bench.state.now_ms() + ISSUED_MS + 1,
        action: Some(Action::PutMachines(PutMachines { machines: vec![machine], keep: false })),
    };
    loaded.apply(&later);
    o.bench.state.apply(&later);
    let grant = o.grant(token(1), 2);
    let intent = o.intent(&grant, 2);
    let complete = CompleteCertificate { serial: serial_of(&intent), signature: o.sign(&intent) };
    for state in [&mut loaded, &mut o.bench.state] {
        for action in [Action::IntendCertificate(intent.clone()), Action::CompleteCertificate(complete.clone())] {
            state.apply(&Command { request_id: Vec::new(), at_ms: later.at_ms, action: Some(action) });
        }
    }
    let kept = |state: &State| [[1; 16], [2; 16]].map(|t| state.issued(&t).map(|row| row.serial.clone()));
    assert_eq!(kept(&loaded), kept(&o.bench.state));
    assert_eq!(loaded.rows(), o.bench.state.rows());
}
