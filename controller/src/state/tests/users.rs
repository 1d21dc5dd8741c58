//! Users that are changed.

use super::super::*;
use super::{Bench, ip};

#[test]
fn a_user_is_given_another_pool_address_limit_and_comment_and_sessions_stay() {
    let mut b = Bench::new();
    b.add_pool("q", "10.0.1.0/29", &[]);
    let set = |more: UpdateUser| Action::UpdateUser(UpdateUser { key: "ada".into(), ..more });
    let row = |b: &Bench| b.state.users.get(&"ada".to_owned()).expect("there").clone();
    assert_eq!(b.open(1, "ada"), Ok(ip(2)));
    let before = row(&b);

    let pool = |name: &str| UpdateUser { pool: Some(name.into()), ..UpdateUser::default() };
    b.done(set(pool("q")));
    assert_eq!(row(&b), UserRow { pool: "q".into(), ..before.clone() }, "nothing else changed");
    assert_eq!(b.conflict(set(pool("none"))).0, ConflictKind::Precondition);
    assert_eq!(b.open(2, "ada"), Ok(u32::from_be_bytes([10, 0, 1, 2])));

    let fixed = |address: u32| UpdateUser { address: Some(address), ..UpdateUser::default() };
    let (kind, why) = b.conflict(set(fixed(ip(3))));
    assert!(kind == ConflictKind::Precondition && why.contains("not in \"q\""), "{why}");
    b.done(set(UpdateUser { address: Some(ip(3)), ..pool("p") }));
    let of_bob = Action::UpdateUser(UpdateUser { key: "bob".into(), ..fixed(ip(3)) });
    assert_eq!(b.conflict(of_bob).0, ConflictKind::AlreadyExists);
    b.done(Action::UpdateUser(UpdateUser { key: "bob".into(), ..pool("p") }));
    assert_eq!(b.open(3, "bob"), Err(DenialKind::NoAddress), ".2 is leased, .3 is ada's");
    b.done(set(fixed(ip(3)))); // the one that she has
    assert_eq!(b.open(4, "ada"), Ok(ip(3)));
    b.end(4);
    b.done(set(fixed(0)));
    assert_eq!(b.open(5, "bob"), Ok(ip(3)), "it is nobody's any more");

    b.done(set(UpdateUser { max_sessions: Some(2), comment: Some("2nd floor".into()), ..UpdateUser::default() }));
    assert_eq!((row(&b).max_sessions, row(&b).comment.as_str(), row(&b).pool.as_str()), (2, "2nd floor", "p"));
    assert_eq!(b.open(6, "ada"), Err(DenialKind::SessionLimit));
    assert_eq!(b.state.sessions_of_user("ada"), 2, "what was up stayed up");
    let nobody = Action::UpdateUser(UpdateUser { key: "eve".into(), ..UpdateUser::default() });
    assert_eq!(b.conflict(nobody).0, ConflictKind::NotFound);
    assert_eq!(State::from_bytes(&b.state.to_bytes()).expect("loads").index.fixed, b.state.index.fixed);
}

#[test]
fn a_user_whose_pool_is_gone_can_be_changed_all_the_same() {
    let mut b = Bench::new();
    b.add_user("eve", AddUser { address: ip(2), ..AddUser::default() });
    b.done(Action::RemovePool(RemovePool { name: "p".into(), force: true }));
    let set = |more: UpdateUser| Action::UpdateUser(UpdateUser { key: "eve".into(), ..more });
    b.done(set(UpdateUser { max_sessions: Some(1), ..UpdateUser::default() }));
    assert_eq!(
        b.conflict(set(UpdateUser { pool: Some(String::new()), ..UpdateUser::default() })).0,
        ConflictKind::Precondition
    );
    b.done(set(UpdateUser { pool: Some(String::new()), address: Some(0), ..UpdateUser::default() }));
}

#[test]
fn the_remedy_for_a_users_own_limit_names_user_set_from_level_5_on() {
    let refused = |level: u32| {
        let mut b = Bench::new();
        b.state.change_core(|core| core.level = level);
        b.add_user("one", AddUser { max_sessions: 1, ..AddUser::default() });
        assert!(b.open(1, "one").is_ok());
        let wish = b.wish(2, "one");
        let Outcome::Denied(denied) = b.apply(Action::OpenSession(wish)) else { panic!("has one") };
        denied.remedy
    };
    // What members with older software make of the same entry.
    let old = "end one of them (sallyport session list, session kill), or raise the limit: it is this user's own, which \
               sallyport user add --max-sessions N has set";
    assert_eq!((refused(1), refused(4)), (old.to_owned(), old.to_owned()));
    assert!(refused(5).ends_with("sallyport user set one --max-sessions 2"), "{}", refused(5));
}
