use crate::software::LEVEL;
use crate::state::tests::Bench;
use crate::state::{
    Action, CertificateRow, ConflictKind, CreateToken, DescribeMember, Outcome, RaiseLevel, RevokeTokens, SettingsRow,
    State, UnlockUser, UpdateSettings, UpdateUser,
};

fn describe(id: u64, level: u32) -> Action {
    let (name, address, version) = (format!("c{id}"), format!("{id}:1"), format!("0.0.{level}"));
    Action::DescribeMember(DescribeMember { id, name, address, version, level })
}

fn raise(level: u32) -> Action {
    Action::RaiseLevel(RaiseLevel { level, since: "0.1.0".into() })
}

fn hold(b: &mut Bench, hold_upgrade: bool) {
    let settings = SettingsRow { hold_upgrade, ..b.state.settings() };
    b.done(Action::UpdateSettings(UpdateSettings { settings: Some(settings) }));
}

fn refused(b: &mut Bench, action: Action) -> String {
    match b.apply(action) {
        Outcome::Conflict(c) if c.kind() == ConflictKind::Precondition => c.message,
        other => panic!("{other:?}"),
    }
}

/// Two members: one of level 2, one that says nothing of levels.
fn mixed() -> Bench {
    let mut b = Bench::empty();
    b.apply(describe(1, 2));
    let hash = vec![7; 32];
    let token = CreateToken { id: vec![1; 8], hash: hash.clone(), ttl_ms: 1_000, made_by: "x".into() };
    b.done(Action::CreateToken(token));
    let Action::DescribeMember(member) = describe(0, 0) else { panic!("describes") };
    let record = CertificateRow { serial: "c2".into(), ..CertificateRow::default() };
    let admit = crate::state::AdmitMember {
        token: vec![1; 8],
        hash,
        member: Some(member),
        learner: true,
        record: Some(record),
    };
    assert!(matches!(b.apply(Action::AdmitMember(admit)), Outcome::Admitted(a) if a.member_id == 2));
    b
}

#[test]
fn the_level_rises_when_every_member_reaches_it_and_never_falls() {
    let mut b = mixed();
    let new = Action::RevokeTokens(RevokeTokens {});
    assert_eq!((b.state.level(), b.state.level_ahead()), (1, None));
    let why = b.state.permits(&new).expect_err("a member is behind");
    assert!(why.contains("controller 2 (c0) runs 0.0.0") && !why.contains("controller 1"), "{why}");
    assert!(refused(&mut b, raise(2)).contains("controller 2"));
    assert_eq!(b.state.permits(&describe(1, 2)), Ok(()));

    b.apply(describe(2, 2));
    assert_eq!(b.state.level_ahead(), Some(2));
    assert!(b.state.permits(&new).is_err_and(|why| why.contains("try again")), "not before it is in force");
    b.done(raise(2));
    assert_eq!((b.state.level(), b.state.level_since(), b.state.level_ahead()), (2, "0.1.0", None));
    assert_eq!(b.state.permits(&new), Ok(()));

    b.done(raise(1)); // of a leader that did not know
    assert_eq!(b.state.level(), 2);
    let why = refused(&mut b, describe(2, 1));
    assert!(why.contains("install version 0.1.0 or newer"), "{why}");
    assert_eq!(b.state.members.get(&2).map(|m| m.level()), Some(2));
}

#[test]
fn the_setting_holds_the_level() {
    let mut b = mixed();
    b.apply(describe(2, 2));
    hold(&mut b, true);
    assert_eq!(b.state.level_ahead(), None);
    assert!(refused(&mut b, raise(2)).contains("hold-upgrade"));
    let why = b.state.permits(&Action::RevokeTokens(RevokeTokens {})).expect_err("held");
    assert!(why.contains("setting set hold-upgrade=false"), "{why}");
    hold(&mut b, false);
    assert_eq!(b.state.level_ahead(), Some(2));
}

#[test]
fn who_leaves_holds_nobody_back() {
    let mut b = mixed();
    b.done(Action::RemoveMember(crate::state::RemoveMember { id: 2 }));
    assert_eq!(b.state.level_ahead(), Some(2));
}

#[test]
fn the_level_is_found_in_rows_that_cannot_all_be_read() {
    let mut b = mixed();
    b.apply(describe(2, 2));
    b.done(raise(2));
    let mut rows = b.state.rows();
    rows.push((vec![250, 1], vec![1])); // a table of a newer version
    let (key, core) = rows.first().expect("rows");
    assert_eq!((key, State::level_in(core)), (&State::core_key(), (2, "0.1.0".into())));
    assert!(State::from_rows(rows).is_err());
    assert_eq!(State::level_in(&[]), (0, String::new()));
    const { assert!(LEVEL >= 2, "these tests use what level 2 brought") };
}

#[test]
fn tokens_that_were_taken_back_are_of_no_use() {
    let mut b = mixed();
    let token = CreateToken { id: vec![2; 8], hash: vec![7; 32], ttl_ms: 1_000, made_by: "x".into() };
    b.done(Action::CreateToken(token));
    b.done(Action::RevokeTokens(RevokeTokens {}));
    assert!(b.state.tokens.is_empty());
}

#[test]
fn users_are_changed_and_unlocked_from_level_5_on() {
    let mut b = mixed();
    b.apply(describe(1, 5));
    b.apply(describe(2, 4));
    b.done(raise(4));
    let new = [Action::UpdateUser(UpdateUser::default()), Action::UnlockUser(UnlockUser::default())];
    for action in &new {
        let why = b.state.permits(action).expect_err("a member is behind");
        assert!(why.contains("needs level 5") && why.contains("controller 2"), "{why}");
    }
    b.apply(describe(2, 5));
    b.done(raise(5));
    assert!(new.iter().all(|action| b.state.permits(action) == Ok(())));
}
