//! Wrong passwords: counted for whom, for how long, and in how many rows.

use super::super::*;
use super::Bench;
use super::members::with_member;

impl Bench {
    fn wrong(&mut self, user: &str, last: u8) -> u32 {
        let guesser = from(user, last);
        self.done(Action::RecordAttempts(RecordAttempts { guesser: Some(guesser.clone()), ..Default::default() }));
        self.state.wrong_passwords(&guesser, self.now).0
    }

    fn counted(&self, user: &str, last: u8, after_ms: u64) -> (u32, u64) {
        self.state.wrong_passwords(&from(user, last), self.now + after_ms)
    }
}

fn from(user: &str, last: u8) -> Guesser {
    Guesser::new(user, Some([192, 0, 2, last].into()))
}

#[test]
fn wrong_passwords_count_for_their_user_and_address_and_for_a_while() {
    let mut b = Bench::new();
    assert_eq!((b.wrong("ada", 1), b.wrong("ada", 1)), (1, 2));
    assert_eq!(b.counted("ada", 1, 0), (2, 60_000));
    assert_eq!((b.counted("ada", 2, 0), b.counted("bob", 1, 0)), ((0, 0), (0, 0)));
    assert_eq!(b.counted("ada", 1, 59_999), (2, 1));
    assert_eq!(b.counted("ada", 1, 60_000), (0, 0));
    // A new leader, from the store or from a snapshot, counts on.
    b.state = State::from_bytes(&b.state.to_bytes()).expect("loads");
    b.state = State::from_rows(b.state.rows()).expect("loads");
    assert_eq!(b.wrong("ada", 1), 3);
    b.now += 60_000;
    assert_eq!(b.wrong("bob", 1), 1);
    assert_eq!(b.state.lockouts.len(), 1, "who no longer has to wait is forgotten");
    assert_eq!(b.wrong("ada", 1), 1, "counting starts anew");
}

#[test]
fn the_right_password_forgets_the_wrong_ones_and_one_that_changed_meanwhile_does_not() {
    let mut b = Bench::new();
    b.wrong("ada", 1);
    b.wrong("ada", 2);
    let wish = OpenSession { guesser: Some(from("ada", 1)), ..b.wish(1, "ada") };
    let stale = OpenSession { credentials_version: 77, ..wish.clone() };
    assert_eq!(b.conflict(Action::OpenSession(stale)).0, ConflictKind::StaleCredentials);
    assert_eq!(b.counted("ada", 1, 0).0, 1);
    b.open_as(wish).expect("opens");
    assert_eq!((b.counted("ada", 1, 0).0, b.counted("ada", 2, 0).0), (0, 1));
}

#[test]
fn nothing_is_counted_where_nobody_shall_wait() {
    let mut b = Bench::new();
    let settings = SettingsRow { lockout_failures: 0, ..b.state.settings() };
    b.done(Action::UpdateSettings(UpdateSettings { settings: Some(settings) }));
    assert_eq!(b.wrong("ada", 1), 0);
    assert!(b.state.lockouts.is_empty());
}

#[test]
fn the_table_of_wrong_passwords_is_bounded_and_forgets_the_oldest() {
    let mut b = Bench::new();
    let settings = SettingsRow { lockout_s: 1_000_000, audit_keep: 1, ..b.state.settings() };
    b.done(Action::UpdateSettings(UpdateSettings { settings: Some(settings) }));
    for i in 0..MAX_LOCKOUTS + 10 {
        b.state.change_core(|core| core.now_ms += 1);
        b.state.count_wrong_password(&from(&format!("u{i}"), 1), "");
    }
    assert_eq!((b.state.lockouts.len(), b.state.index.lockouts.len()), (MAX_LOCKOUTS, MAX_LOCKOUTS));
    let counted = |user| b.state.wrong_passwords(&from(user, 1), b.state.now_ms()).0;
    assert_eq!((counted("u9"), counted("u10")), (0, 1));
}

#[test]
fn a_time_before_the_logs_is_the_logs() {
    let mut b = Bench::new();
    let now = b.state.now_ms();
    b.now = 5;
    b.wrong("ada", 1);
    assert_eq!((b.state.now_ms(), b.state.wrong_passwords(&from("ada", 1), now)), (now, (1, 60_000)));
}

#[test]
fn an_address_for_each_guess_does_not_help_a_gateway() {
    let mut b = Bench::new();
    let wrong = |b: &mut Bench, gateway: &str, user: &str, last: u8| {
        let guesser = Some(from(user, last));
        b.done(Action::RecordAttempts(RecordAttempts { guesser, gateway: gateway.into(), ..Default::default() }));
        b.state.wrong_passwords_through(gateway, user, b.now).0
    };
    let counts: Vec<u32> = (0..20).map(|last| wrong(&mut b, "gw1", "ada", last)).collect();
    assert_eq!(counts, (1..=20).collect::<Vec<_>>());
    assert_eq!(b.counted("ada", 19, 0).0, 1);
    assert_eq!((wrong(&mut b, "gw2", "ada", 1), wrong(&mut b, "gw1", "bob", 1)), (1, 1));
    // Nor a right password from one of the addresses.
    let wish = OpenSession { guesser: Some(from("ada", 19)), ..b.wish(1, "ada") };
    b.open_as(wish).expect("opens");
    assert_eq!(b.counted("ada", 19, 0).0, 0);
    assert_eq!(b.state.wrong_passwords_through("gw1", "ada", b.now).0, 20);
    b.state = State::from_bytes(&b.state.to_bytes()).expect("loads");
    assert_eq!(wrong(&mut b, "gw1", "ada", 77), 21);
    b.now += 60_000;
    assert_eq!(b.state.wrong_passwords_through("gw1", "ada", b.now).0, 0);
    // Entries of before level 4 name no gateway, and count for none.
    b.wrong("eve", 1);
    assert_eq!(b.state.wrong_passwords_through("", "eve", b.now).0, 0);
    let with = RecordAttempts { gateway: "gw1".into(), ..Default::default() };
    assert_eq!((Action::RecordAttempts(with).level(), Action::RecordAttempts(Default::default()).level()), (4, 1));
}

#[test]
fn a_gateway_that_floods_the_table_forgets_its_own_rows_only() {
    let mut b = Bench::new();
    let settings = SettingsRow { lockout_s: 1_000_000, ..b.state.settings() };
    b.done(Action::UpdateSettings(UpdateSettings { settings: Some(settings) }));
    b.state.count_wrong_password(&from("ada", 1), "gw1");
    for i in 0..MAX_LOCKOUTS_OF_GATEWAY {
        b.state.change_core(|core| core.now_ms += 1);
        b.state.count_wrong_password(&from(&format!("u{i}"), 1), "gw2");
    }
    assert_eq!(b.state.lockouts.len(), MAX_LOCKOUTS_OF_GATEWAY + 2);
    let now_ms = b.state.now_ms();
    assert_eq!(b.state.wrong_passwords_through("gw1", "ada", now_ms).0, 1);
    assert_eq!((b.counted("u0", 1, 0).0, b.counted("u4095", 1, 0).0), (0, 1));
    let loaded = State::from_bytes(&b.state.to_bytes()).expect("loads");
    assert_eq!(loaded.index.lockouts_of_gateway, b.state.index.lockouts_of_gateway);
}

#[test]
fn invented_names_do_not_have_a_users_wrong_passwords_forgotten() {
    // Members with older software forget whoever failed longest ago.
    for (level, kept) in [(5, 2), (4, 0)] {
        let mut b = with_member(level);
        b.add_user("ada", AddUser::default());
        let settings = SettingsRow { lockout_s: 1_000_000, ..b.state.settings() };
        b.done(Action::UpdateSettings(UpdateSettings { settings: Some(settings) }));
        let flood = |b: &mut Bench, gateway: &str, names: usize| {
            for i in 0..names {
                b.state.change_core(|core| core.now_ms += 1);
                b.state.count_wrong_password(&from(&format!("{gateway}-{i}"), 1), gateway);
            }
        };
        for _ in 0..2 {
            b.state.count_wrong_password(&from("ada", 1), "gw1");
            flood(&mut b, "gw1", MAX_LOCKOUTS_OF_GATEWAY);
        }
        let counted = |b: &Bench| {
            let now_ms = b.state.now_ms();
            let through = b.state.wrong_passwords_through("gw1", "ada", now_ms).0;
            (b.state.wrong_passwords(&from("ada", 1), now_ms).0, through)
        };
        assert_eq!(counted(&b), (kept, kept), "level {level}");
        if level == 4 {
            continue;
        }
        // Nor by many gateways together.
        for gateway in 2..=MAX_LOCKOUTS / MAX_LOCKOUTS_OF_GATEWAY + 1 {
            flood(&mut b, &format!("gw{gateway}"), MAX_LOCKOUTS_OF_GATEWAY / 2);
        }
        assert_eq!((counted(&b), b.state.lockouts.len()), ((kept, kept), MAX_LOCKOUTS));
        let loaded = State::from_bytes(&b.state.to_bytes()).expect("loads");
        assert_eq!(loaded.index.lockouts_by_weight, b.state.index.lockouts_by_weight);
    }
}

#[test]
fn an_unlocked_user_may_try_again_from_anywhere_and_through_every_gateway_and_nobody_else() {
    let mut b = Bench::new();
    let mut wrong = |user: &str, source: Option<std::net::IpAddr>, gateway: &str| {
        let guesser = Some(Guesser::new(user, source));
        b.done(Action::RecordAttempts(RecordAttempts { guesser, gateway: gateway.into(), ..Default::default() }));
    };
    let v6 = Some("2001:db8::1".parse().expect("an address"));
    for (source, gateway) in [(Some([192, 0, 2, 1].into()), "gw1"), (v6, "gw2"), (None, "gw1"), (v6, "")] {
        for user in ["ada", "adam", "bada", "a"] {
            wrong(user, source, gateway);
        }
    }
    let rows = b.state.lockouts.len();
    assert_eq!(rows, 4 * 5);
    let unlock = |key: &str| Action::UnlockUser(UnlockUser { key: key.into() });
    assert_eq!(b.done(unlock("ada")).forgotten, 5);
    assert_eq!((b.state.lockouts.len(), b.counted("ada", 1, 0).0, b.counted("adam", 1, 0).0), (rows - 5, 0, 1));
    let through = |b: &Bench, user: &str| b.state.wrong_passwords_through("gw1", user, b.now).0;
    assert_eq!((through(&b, "ada"), through(&b, "adam")), (0, 2));
    assert_eq!(format!("{:?}", b.state.build_index()), format!("{:?}", b.state.index));
    // Again, and for names that are no users but were guessed at, and that were not.
    assert_eq!((b.done(unlock("ada")).forgotten, b.done(unlock("adam")).forgotten), (0, 5));
    assert_eq!(b.conflict(unlock("eve")).0, ConflictKind::NotFound);
}
