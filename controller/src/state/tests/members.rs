//! Controllers that join, leave, and begin anew.

use super::super::*;
use super::Bench;

#[test]
fn a_cluster_that_begins_anew_knows_none_of_the_old_controllers() {
    let mut b = Bench::new();
    let describe = |id, address: &str| DescribeMember { id, address: address.into(), ..DescribeMember::default() };
    b.apply(Action::DescribeMember(describe(1, "a:1")));
    let hash = vec![7; 32];
    let token = CreateToken { id: vec![1; 8], hash: hash.clone(), ttl_ms: 1_000, made_by: "x".into() };
    b.done(Action::CreateToken(token.clone()));
    let record = CertificateRow {
        serial: "c2".into(),
        profile: v1::CertificateProfile::Controller.into(),
        ..CertificateRow::default()
    };
    let admit = AdmitMember {
        token: token.id.clone(),
        hash,
        member: Some(describe(0, "b:1")),
        learner: false,
        record: Some(record),
    };
    match b.apply(Action::AdmitMember(admit.clone())) {
        Outcome::Admitted(admitted) => assert_eq!(admitted.member_id, 2),
        other => panic!("{other:?}"),
    }
    assert_eq!(b.conflict(Action::AdmitMember(admit)).0, ConflictKind::NotFound, "a token works once");
    b.done(Action::CreateToken(token));
    b.state.begin_anew(9_000);
    assert!(b.state.members.is_empty() && b.state.tokens.is_empty());
    let second = b.state.certificates.get(&"c2".to_owned()).expect("there");
    assert!(second.revoked_ms != 0 && !b.state.was_removed(second), "the old ones may be a cluster still");
    b.apply(Action::DescribeMember(describe(1, "a:1")));
    assert_eq!(b.state.live_members().map(|(id, _)| id).collect::<Vec<_>>(), [1]);
    assert_eq!(b.state.last_member(), 2, "ids are not used again");
}

/// A state at the newest level, with controller 1 at `level`.
pub(super) fn with_member(level: u32) -> Bench {
    let mut b = Bench::empty();
    let member = DescribeMember { id: 1, address: "a:1".into(), level, ..DescribeMember::default() };
    b.apply(Action::DescribeMember(member));
    if level > 1 {
        b.done(Action::RaiseLevel(RaiseLevel { level, since: "0.1.0".into() }));
    }
    b
}

#[test]
fn controllers_that_were_removed_long_ago_are_forgotten_and_their_certificates_stay_revoked() {
    for (level, kept) in [(4, MAX_REMOVED_MEMBERS), (3, MAX_REMOVED_MEMBERS + 5)] {
        let mut b = with_member(level);
        for id in 2..MAX_REMOVED_MEMBERS as u64 + 8 {
            let (token, hash) = (id.to_be_bytes().to_vec(), vec![7; 32]);
            b.done(Action::CreateToken(CreateToken {
                id: token.clone(),
                hash: hash.clone(),
                ttl_ms: 1_000,
                made_by: String::new(),
            }));
            let profile = v1::CertificateProfile::Controller.into();
            let record = Some(CertificateRow { serial: format!("c{id}"), profile, ..CertificateRow::default() });
            let member = DescribeMember { id: 0, address: "b:1".into(), level, ..DescribeMember::default() };
            let admit = AdmitMember { token, hash, member: Some(member), record, learner: true };
            let admitted = b.apply(Action::AdmitMember(admit));
            assert!(matches!(admitted, Outcome::Admitted(a) if a.member_id == id));
            b.done(Action::RemoveMember(RemoveMember { id }));
        }
        // One is removed after the last was let in.
        assert_eq!(b.state.members.len(), 1 + kept + 1, "level {level}");
        assert_eq!(b.state.members.contains(&2), level < 4);
        assert_ne!(b.state.certificates.get(&"c2".to_owned()).map(|c| c.revoked_ms), Some(0));
        assert!(b.state.certificates_of_members().any(|c| c.serial == "c2"), "it is on the list of revoked ones");
        assert!(
            b.state.certificates.get(&"c2".to_owned()).is_some_and(|c| b.state.was_removed(c)),
            "whose it is, is told"
        );
    }
}

#[test]
fn where_no_id_is_left_no_controller_is_taken_in() {
    let mut b = with_member(1);
    b.state.change_core(|core| core.last_member = u64::MAX);
    let hash = vec![7; 32];
    b.done(Action::CreateToken(CreateToken { id: vec![1], hash: hash.clone(), ttl_ms: 1_000, made_by: String::new() }));
    let member = DescribeMember { address: "b:1".into(), ..DescribeMember::default() };
    let record = Some(CertificateRow { serial: "c2".into(), ..CertificateRow::default() });
    let admit = AdmitMember { token: vec![1], hash, member: Some(member.clone()), record, learner: false };
    assert_eq!(b.conflict(Action::AdmitMember(admit)).0, ConflictKind::Exhausted);
    let readmit = ReadmitMember { old_id: 1, member: Some(member) };
    assert_eq!(b.conflict(Action::ReadmitMember(readmit)).0, ConflictKind::Exhausted);
}
