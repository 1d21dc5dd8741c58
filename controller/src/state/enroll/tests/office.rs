//! Certificates that nobody enrolls for: operators' and controllers'.

use super::*;
use crate::state::{AdmitMember, CreateToken, DescribeMember, Issued, RemoveMember, Selector};

impl Office {
    fn at_office() -> Self {
        let mut office = Self::new();
        office.bench.raise(OFFICE_LEVEL);
        office
    }

    /// What a controller would put into the log for an operator's request.
    fn asked(&mut self, profile: Profile, name: &str, office: OfficeProof) -> IntendCertificate {
        let rng = SystemRandom::new();
        let serial = Serial::generate_in_epoch(1, &rng).expect("a serial number");
        let subject = Subject::new(name, Vec::new()).expect("a name");
        let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng).expect("a key").public_key();
        let rules = self.bench.state.profile(profile);
        let validity = core::time::Duration::from_secs(rules.validity_s);
        let prepared = self.authority.prepare(profile, &subject, &key, UnixTime(1), validity, serial.clone());
        let record = CertificateRow {
            serial: serial.to_string(),
            profile: crate::authority::profile_to_proto(profile).into(),
            name: name.into(),
            sans: subject.alt_names().iter().map(ToString::to_string).collect(),
            not_after_ms: self.bench.state.now_ms() + rules.validity_s * 1_000,
            key_algorithm: v1::KeyAlgorithm::EcdsaP256.into(),
            ..CertificateRow::default()
        };
        self.serials += 1;
        let transaction = if office.request_id.is_empty() { vec![self.serials; 16] } else { office.request_id.clone() };
        IntendCertificate {
            transaction,
            proof: Some(Proof { kind: Some(ProofKind::Office(office)) }),
            key_sha256: vec![7; 32],
            source: String::new(),
            profile_version: rules.version,
            tbs: prepared.expect("prepares").tbs().to_vec(),
            record: Some(record),
            issuer: 0,
        }
    }

    fn live(&self, intent: &IntendCertificate) -> bool {
        self.bench.state.certificates.get(&serial_of(intent)).is_some_and(|row| row.revoked_ms == 0)
    }
}

fn request(id: u8) -> OfficeProof {
    OfficeProof { request_id: vec![id; 16], answer: vec![id, 1, 2], ..OfficeProof::default() }
}

#[test]
fn what_an_operator_asks_for_is_said_before_it_is_signed_and_is_answered_once() {
    let mut b = Office::at_office();
    let first = b.asked(Profile::Operator, "ann", request(9));
    b.intends(&first);
    assert!(!b.live(&first) && b.bench.state.intended(&[9; 16]).is_some_and(|row| row.tbs == first.tbs));
    // Asked again before it is signed, by somebody who has made another key meanwhile: the first counts.
    let second = b.asked(Profile::Operator, "ann", request(9));
    b.intends(&second);
    assert_eq!(b.bench.state.intents.len(), 1);
    assert!(b.bench.state.answered_with(&[9; 16]).is_none());
    b.complete(&first);
    let Issued { serial, answer, certificate } = b.bench.state.answered_with(&[9; 16]).expect("answered").clone();
    assert_eq!((serial, answer), (serial_of(&first), vec![9, 1, 2]));
    let read = sallyport_ca::Certificate::from_der(&certificate).expect("a certificate");
    assert_eq!(read.serial.to_string(), serial_of(&first));
    assert!(b.live(&first) && b.bench.state.intents.is_empty());
    // And after it, too; another request is another question.
    b.intends(&second);
    assert!(!b.live(&second) && b.bench.state.intents.is_empty());
    let other = b.asked(Profile::Operator, "ann", request(8));
    b.intends(&other);
    b.complete(&other);
    assert!(b.live(&other));
    let again = crate::state::State::from_rows(b.bench.state.rows()).expect("reads");
    assert_eq!(again.answered_with(&[9; 16]), b.bench.state.answered_with(&[9; 16]));
}

#[test]
fn what_is_not_right_any_more_when_the_signature_comes_is_given_up() {
    let mut b = Office::at_office();
    let machine = b.asked(Profile::Machine, NAME, request(1));
    b.intends(&machine);
    let mut rules = b.bench.state.profile(Profile::Machine);
    rules.validity_s /= 2;
    b.bench.done(Action::SetProfile(SetProfile { name: "machine".into(), profile: Some(rules) }));
    b.complete(&machine);
    assert!(!b.live(&machine) && b.bench.state.intents.is_empty(), "by rules that are no more");
    assert!(b.bench.state.answered_with(&[1; 16]).is_none(), "the same request may be made again");

    let machine = b.asked(Profile::Machine, NAME, request(1));
    b.intends(&machine);
    b.complete(&machine);
    assert!(b.live(&machine));
    let next = b.asked(Profile::Machine, NAME, request(2));
    b.intends(&next);
    let which = Some(Selector::Machine(NAME.into()));
    let revoke = crate::state::RevokeCertificates { which, code: 1, ..Default::default() };
    b.bench.apply(Action::RevokeCertificates(revoke));
    assert_eq!(b.bench.state.intents.len(), 0, "what is on its way for a machine that is revoked goes, too");

    // A controller that was removed while its certificate was signed.
    let member = |id, address: &str| DescribeMember { id, address: address.into(), level: 8, ..Default::default() };
    b.bench.apply(Action::DescribeMember(member(1, "a:1")));
    let (token, hash) = (vec![1; 8], vec![7; 32]);
    let create = CreateToken { id: token.clone(), hash: hash.clone(), ttl_ms: 10_000, made_by: String::new() };
    b.bench.done(Action::CreateToken(create));
    let record = CertificateRow {
        serial: "c2".into(),
        name: sallyport_proto::CONTROLLER_NAME.into(),
        profile: v1::CertificateProfile::Controller.into(),
        key_algorithm: v1::KeyAlgorithm::EcdsaP256.into(),
        ..CertificateRow::default()
    };
    let admit = AdmitMember { token, hash, member: Some(member(0, "b:1")), record: Some(record), learner: true };
    let admitted = b.bench.apply(Action::AdmitMember(admit));
    assert!(matches!(admitted, Outcome::Admitted(a) if a.member_id == 2), "joins");
    let mut own = b.asked(Profile::Endpoint, "vpn.example.com", OfficeProof::default());
    own.record.as_mut().expect("a record").member = 2;
    b.intends(&own);
    b.bench.done(Action::RemoveMember(RemoveMember { id: 2 }));
    b.complete(&own);
    assert!(!b.live(&own) && b.bench.state.intents.is_empty());
}

#[test]
fn nobody_shows_such_a_proof_and_no_authority_comes_of_it() {
    let mut b = Office::at_office();
    assert_eq!(b.refusal(Some(ProofKind::Office(OfficeProof::default())), 1), RefusalKind::Unproven);
    let mut intent = b.asked(Profile::Operator, "ann", request(1));
    for profile in [v1::CertificateProfile::Root, v1::CertificateProfile::Issuing, v1::CertificateProfile::ScepRa] {
        intent.record.as_mut().expect("a record").profile = profile.into();
        assert_eq!(b.conflict(Action::IntendCertificate(intent.clone())), ConflictKind::Invalid, "{profile:?}");
    }
    let controller = b.asked(Profile::Controller, "c1.example.com", OfficeProof::default());
    let mut operators = b.asked(Profile::Operator, "ann", request(2));
    operators.profile_version += 1;
    assert_eq!(b.conflict(Action::IntendCertificate(operators)), ConflictKind::Changed);
    b.intends(&controller);
    b.complete(&controller);
    assert!(b.live(&controller));
    let transaction = &controller.transaction;
    assert_eq!(b.bench.state.issued(transaction).map(|row| row.serial.clone()), Some(serial_of(&controller)));
    assert_eq!(
        b.conflict(Action::IntendCertificate(IntendCertificate { transaction: vec![77; 16], ..controller })),
        ConflictKind::AlreadyExists
    );
}

#[test]
fn below_its_level_there_is_no_such_intent() {
    let mut b = Office::at_office();
    let intent = b.asked(Profile::Machine, NAME, request(1));
    assert_eq!(Action::IntendCertificate(intent).level(), OFFICE_LEVEL);
    let record = Action::RecordCertificate(crate::state::RecordCertificate::default());
    assert_eq!(record.level(), 1);
}
