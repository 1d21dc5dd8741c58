use sallyport_ca::seal::SealKey;
use sallyport_ca::{Authority, KeyAlgorithm, KeyPair, Profile, RootConfig, Serial, Subject, SystemRandom, UnixTime};

use super::*;
use crate::state::{
    Action, AdmitMember, Bootstrap, CertificateRow, Command, CreateToken, DescribeMember, Outcome, RecordCertificate,
    RemoveMember, RevokeCertificate,
};

/// A state with controllers 1 and 2, and their certificates.
struct Site {
    state: State,
    authority: Authority,
    requests: u64,
}

impl Site {
    fn new() -> (Self, [Certificate; 2]) {
        let rng = SystemRandom::new();
        let (seal_key, root) = (SealKey::generate(&rng).expect("random"), RootConfig::new("Example", "Example Root"));
        let (authority, _) = Authority::create(&root, &seal_key, UnixTime(1_800_000_000), &rng).expect("a root");
        let mut site = Self { state: State::new(), authority, requests: 0 };
        let member = |id: u64| DescribeMember { id, address: format!("10.0.0.{id}:7443"), ..Default::default() };
        site.done(Action::Bootstrap(Bootstrap {
            cluster_id: vec![1; 16],
            root_certificate: vec![2],
            sealed_root_key: vec![3],
            record: Some(CertificateRow {
                serial: "r00t".into(),
                profile: v1::CertificateProfile::Root.into(),
                ..Default::default()
            }),
            member: Some(member(1)),
        }));
        let (first, record) = site.certificate(Profile::Controller);
        let record = Some(CertificateRow { member: 1, ..record });
        site.done(Action::RecordCertificate(RecordCertificate { record, ..Default::default() }));
        let (second, record) = site.certificate(Profile::Controller);
        let token = CreateToken { id: vec![1], hash: vec![7; 32], ttl_ms: u64::from(u32::MAX), made_by: String::new() };
        site.done(Action::CreateToken(token));
        let admit = AdmitMember {
            token: vec![1],
            hash: vec![7; 32],
            member: Some(member(2)),
            record: Some(record),
            learner: false,
        };
        assert!(matches!(site.apply(Action::AdmitMember(admit)), Outcome::Admitted(a) if a.member_id == 2));
        (site, [first, second])
    }

    fn apply(&mut self, action: Action) -> Outcome {
        self.requests += 1;
        let request_id = self.requests.to_be_bytes().repeat(2);
        let command = Command { request_id, at_ms: 1_000 + self.requests, action: Some(action) };
        self.state.apply(&command).outcome.expect("an outcome")
    }

    fn done(&mut self, action: Action) {
        let outcome = self.apply(action);
        assert!(matches!(outcome, Outcome::Done(_) | Outcome::Admitted(_)), "{outcome:?}");
    }

    fn certificate(&self, profile: Profile) -> (Certificate, CertificateRow) {
        let rng = SystemRandom::new();
        let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng).expect("a key");
        let (subject, serial) =
            (Subject::new("c", Vec::new()).expect("a name"), Serial::generate(&rng).expect("random"));
        let now = UnixTime(1_800_000_000);
        let made = self.authority.issue(profile, &subject, &key.public_key(), now, serial, &rng).expect("issues");
        let kind = match profile {
            Profile::Controller => v1::CertificateProfile::Controller,
            _ => v1::CertificateProfile::Operator,
        };
        let record = crate::authority::record_of(&made, kind, "c", Vec::new(), KeyAlgorithm::EcdsaP256);
        (made, record)
    }

    fn judge(&self, certificate: &Certificate, complete: bool, group: &[u64]) -> Result<(), String> {
        let group = |id: u64| group.contains(&id);
        View { state: &self.state, complete, group: &group }.judge(certificate)
    }
}

#[test]
fn a_removed_member_is_refused_as_soon_as_the_group_can_do_without_it() {
    let (mut site, [first, second]) = Site::new();
    for shown in [&first, &second] {
        assert_eq!(site.judge(shown, true, &[1, 2]), Ok(()));
    }
    site.done(Action::RemoveMember(RemoveMember { id: 2 }));
    // Of two, the other must agree before the group is one.
    assert_eq!(site.judge(&second, true, &[1, 2]), Ok(()));
    for complete in [true, false] {
        let refused = site.judge(&second, complete, &[1]).expect_err("refused");
        assert!(refused.contains("controller 2") && refused.contains("removed"), "{refused}");
        assert_eq!(site.judge(&first, complete, &[1]), Ok(()));
    }
}

#[test]
fn a_certificate_that_was_taken_back_is_refused_although_its_member_is_in_the_group() {
    let (mut site, [_, second]) = Site::new();
    let revoke = RevokeCertificate { serial: second.serial.to_string(), reason: "its folder was stolen".into() };
    site.done(Action::RevokeCertificate(revoke));
    assert!(site.judge(&second, true, &[1, 2]).is_err_and(|why| why.contains("revoked")));
}

#[test]
fn what_the_log_never_issued_is_refused_by_a_leader_and_borne_by_who_may_be_behind() {
    let (mut site, _) = Site::new();
    let (forged, record) = site.certificate(Profile::Controller);
    assert!(site.judge(&forged, true, &[1, 2]).is_err_and(|why| why.contains("not in the records")));
    assert_eq!(site.judge(&forged, false, &[1, 2]), Ok(()));
    // Neither one with the number of another, nor one of another kind.
    let record = CertificateRow { fingerprint: vec![0; 32], member: 1, ..record };
    site.done(Action::RecordCertificate(RecordCertificate { record: Some(record), ..Default::default() }));
    assert!(site.judge(&forged, false, &[1, 2]).is_err());
    let (operator, record) = site.certificate(Profile::Operator);
    site.done(Action::RecordCertificate(RecordCertificate { record: Some(record), ..Default::default() }));
    assert!(site.judge(&operator, false, &[1, 2]).is_err_and(|why| why.contains("not a controller's")));
    // A node without a state believes the chain.
    let group = |_| false;
    let empty = View { state: &State::new(), complete: false, group: &group };
    assert_eq!(empty.judge(&forged), Ok(()));
}

#[test]
fn a_certificate_is_read_once_and_few_are_kept() {
    let (site, [first, second]) = Site::new();
    let faces = Faces::default();
    let again = (faces.read(first.der()).expect("a certificate"), faces.read(first.der()).expect("a certificate"));
    assert!(Arc::ptr_eq(&again.0, &again.1));
    assert_eq!((&*again.0, &*faces.read(second.der()).expect("a certificate")), (&first, &second));
    assert!(faces.read(b"none").is_err());
    for _ in 0..2 * KEPT {
        faces.read(site.certificate(Profile::Controller).0.der()).expect("a certificate");
    }
    assert!(faces.0.lock().expect("not poisoned").len() <= KEPT);
}
