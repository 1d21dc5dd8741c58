use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const START: u64 = 1_800_000_000 * SECOND;
const HOUR: u64 = 3_600 * SECOND;
const STEP: u64 = SECOND / 4;

/// A leader (member 1), the wall clocks of all, and the true time.
struct Bench {
    clock: LogClock,
    voters: BTreeSet<u64>,
    /// By how much each member's wall clock is wrong; absent for one that does not answer.
    errors: BTreeMap<u64, i64>,
    elapsed: u64,
}

impl Bench {
    /// A group of `n` whose clocks are right, with a leader whose store holds `stored`.
    fn new(n: u64, stored: u64) -> Self {
        let mut bench = Self {
            clock: LogClock::new(0, START),
            voters: (1..=n).collect(),
            errors: (1..=n).map(|id| (id, 0)).collect(),
            elapsed: 0,
        };
        bench.clock.applied(stored);
        bench.clock.lead(1, &bench.voters);
        bench
    }

    /// One that has led for a while.
    fn running(n: u64) -> Self {
        let mut bench = Self::new(n, START);
        bench.run(20 * SECOND);
        assert_eq!(bench.clock.live(), Some(bench.truth()));
        bench
    }

    fn truth(&self) -> u64 {
        START + self.elapsed
    }

    fn wall(&self, id: u64) -> u64 {
        self.truth().saturating_add_signed(self.errors.get(&id).copied().unwrap_or(0))
    }

    /// A heartbeat: time goes on, and whoever answers says what its clock shows.
    fn step(&mut self, by: u64) {
        self.elapsed += by;
        self.clock.advance(self.elapsed, self.wall(1));
        for id in self.errors.keys().filter(|id| **id != 1) {
            self.clock.heard_wall(*id, self.wall(*id));
        }
    }

    fn run(&mut self, by: u64) {
        let step = if by < HOUR { STEP } else { 4 * SECOND };
        for _ in 0..by / step {
            self.step(step);
        }
    }

    fn error(&self) -> i64 {
        signed(self.clock.time()) - signed(self.truth())
    }
}

#[test]
fn a_clock_that_is_set_by_an_hour_moves_nothing_whosever_it_is() {
    for who in 1..=3 {
        for by in [signed(HOUR), -signed(HOUR)] {
            let mut bench = Bench::running(3);
            bench.errors.insert(who, by);
            bench.run(2 * HOUR);
            assert_eq!(bench.error(), 0, "member {who}, {by}");
        }
    }
}

#[test]
fn two_of_five_are_no_majority_even_when_another_is_away() {
    let mut bench = Bench::running(5);
    bench.errors.insert(1, signed(HOUR));
    bench.errors.insert(4, signed(HOUR));
    bench.errors.remove(&2);
    bench.run(HOUR);
    assert_eq!(bench.error(), 0);
    // With two away, the one that is left of three with a right clock still holds it.
    bench.errors.remove(&3);
    bench.run(HOUR);
    assert_eq!(bench.error(), 0);
}

#[test]
fn one_of_two_and_one_of_three_with_another_away_hold_the_time() {
    let mut two = Bench::running(2);
    two.errors.insert(2, signed(HOUR));
    two.run(HOUR);
    assert_eq!(two.error(), 0);
    let mut three = Bench::running(3);
    three.errors.insert(1, -signed(HOUR));
    three.errors.remove(&3);
    three.run(HOUR);
    assert_eq!(three.error(), 0);
}

#[test]
fn a_majority_is_followed_slowly_in_both_directions() {
    for by in [signed(HOUR), -signed(HOUR)] {
        let mut bench = Bench::running(3);
        bench.errors.insert(2, by);
        bench.errors.insert(3, by);
        bench.run(HOUR);
        let expected = by / signed(SLEW);
        assert!((bench.error() - expected).abs() < signed(SECOND), "{} after an hour, {by}", bench.error());
        bench.run(u64::from(16_u8) * HOUR);
        assert_eq!(bench.error(), by);
    }
}

#[test]
fn a_node_alone_begins_with_its_own_clock_and_then_trusts_its_monotonic_one() {
    let mut bench = Bench::new(1, 0);
    bench.step(1);
    assert_eq!(bench.clock.live(), Some(bench.truth()), "at once");
    bench.errors.insert(1, signed(HOUR));
    bench.run(60 * SECOND);
    assert!((bench.error() - signed(60 * SECOND / SLEW)).abs() < signed(SECOND), "{}", bench.error());
}

#[test]
fn after_the_whole_group_was_down_time_jumps_forward_to_the_majoritys_clocks() {
    let mut bench = Bench::new(3, START - 24 * HOUR);
    bench.errors.remove(&2);
    bench.errors.remove(&3);
    bench.step(STEP);
    assert!(bench.clock.is_blind() && bench.clock.live().is_none() && bench.clock.announced().is_none());
    assert_eq!(bench.error(), -signed(24 * HOUR), "alone it knows nothing");
    // The first answer makes a majority, but it is the one that is wrong.
    bench.errors.insert(3, -signed(HOUR));
    bench.run(SECOND);
    assert!(!bench.clock.is_blind());
    assert!((bench.error() + signed(HOUR)).abs() < signed(SECOND), "{}", bench.error());
    assert!(bench.clock.live().is_none(), "the third may still say something else");
    bench.errors.insert(2, 0);
    bench.run(SECOND);
    assert_eq!(bench.error(), 0);
    assert_eq!(bench.clock.announced(), Some(bench.truth()));
    // From now on nothing jumps.
    for id in 1..=3 {
        bench.errors.insert(id, signed(HOUR));
    }
    bench.run(60 * SECOND);
    assert!(bench.error() <= signed(60 * SECOND / SLEW));
}

#[test]
fn one_wrong_clock_does_not_make_it_jump_too_far() {
    for wrong in 1..=3 {
        for away in 1..=3 {
            let mut bench = Bench::new(3, START - 24 * HOUR);
            bench.errors.insert(wrong, signed(HOUR));
            if away != 1 {
                bench.errors.remove(&away);
            }
            bench.run(60 * SECOND);
            assert_eq!(bench.error(), 0, "{wrong} is wrong, {away} away");
        }
    }
}

#[test]
fn time_that_is_ahead_of_all_clocks_goes_on_slowly_and_does_not_stand_still() {
    let mut bench = Bench::new(3, START + HOUR);
    bench.run(160 * SECOND);
    let gained = bench.clock.time() - (START + HOUR);
    assert!((149 * SECOND..=151 * SECOND).contains(&gained), "{gained}");
    bench.run(17 * HOUR);
    assert_eq!(bench.error(), 0);
}

#[test]
fn a_leader_whose_followers_say_no_time_makes_do() {
    let mut bench = Bench::new(3, START);
    bench.errors.retain(|id, _| *id == 1);
    bench.run(BLIND + SECOND);
    assert!(!bench.clock.is_blind());
    bench.run(SETTLE);
    assert_eq!(bench.clock.live(), Some(bench.truth()));
    bench.errors.insert(1, signed(HOUR));
    bench.run(HOUR);
    assert_eq!(bench.error(), 0, "its own clock is no majority");
}

#[test]
fn a_follower_keeps_up_with_its_leader_and_goes_on_from_there() {
    let mut clock = LogClock::new(0, START + HOUR);
    clock.applied(START - 24 * HOUR);
    clock.advance(SECOND, START + HOUR);
    assert_eq!((clock.live(), clock.announced()), (None, None));
    clock.heard_leader(START);
    clock.advance(2 * SECOND, START);
    assert_eq!(clock.live(), Some(START + SECOND));
    // A leader that is behind is waited for, without ever going back.
    clock.heard_leader(START);
    clock.advance(3 * SECOND, START);
    assert_eq!(clock.time(), START + SECOND + SECOND / 2);
    clock.advance(10 * SECOND, START);
    assert_eq!(clock.time(), START + 8 * SECOND);
    // It leads: from here, whatever its own clock shows.
    clock.lead(2, &BTreeSet::from([1, 2, 3]));
    clock.advance(11 * SECOND, START - 7 * HOUR);
    assert_eq!((clock.announced(), clock.is_blind()), (Some(START + 9 * SECOND), false));
    clock.follow();
    clock.advance(12 * SECOND, START);
    assert_eq!((clock.live(), clock.announced()), (Some(START + 10 * SECOND), None));
}

#[test]
fn what_a_clock_showed_long_ago_is_not_used() {
    let mut bench = Bench::running(3);
    for id in 1..=3 {
        bench.errors.insert(id, signed(HOUR));
    }
    bench.step(STEP);
    bench.errors.remove(&2);
    bench.errors.remove(&3);
    bench.run(FRESH + SECOND);
    let before = bench.error();
    bench.run(HOUR);
    assert_eq!(bench.error(), before);
}

#[derive(Clone, Debug)]
enum Event {
    Advance(u64, i64),
    Wall(u64, u64),
    Leader(u64),
    Applied(u64),
    Lead(u64),
    Follow,
}

fn event() -> impl Strategy<Value = Event> {
    let time = || START - HOUR..START + HOUR;
    prop_oneof![
        8 => (0..10 * SECOND, any::<i32>()).prop_map(|(by, error)| Event::Advance(by, error.into())),
        6 => (1..6u64, prop_oneof![time(), any::<u64>()]).prop_map(|(id, at)| Event::Wall(id, at)),
        1 => time().prop_map(Event::Leader),
        1 => time().prop_map(Event::Applied),
        1 => (1..6u64).prop_map(Event::Lead),
        1 => Just(Event::Follow),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn it_never_goes_back_and_a_settled_leader_keeps_its_pace(events in prop::collection::vec(event(), 1..200)) {
        let (mut clock, mut at) = (LogClock::new(0, START), 0);
        for event in events {
            let before = clock.time();
            let leads = clock.announced().is_some();
            match event {
                Event::Advance(by, error) => {
                    at += by;
                    clock.advance(at, (START + at).saturating_add_signed(error));
                    if leads {
                        let gained = clock.time() - before;
                        prop_assert!(gained >= by - by / SLEW && gained <= by + by / SLEW, "{gained} in {by}");
                    }
                }
                Event::Wall(id, time) => clock.heard_wall(id, time),
                Event::Leader(time) => clock.heard_leader(time),
                Event::Applied(time) => clock.applied(time),
                Event::Lead(n) => clock.lead(1, &(1..=n).collect()),
                Event::Follow => clock.follow(),
            }
            prop_assert!(clock.time() >= before);
        }
    }

    /// Whatever a minority says, and whoever does not answer meanwhile, the time stays between the clocks that are right.
    #[test]
    fn a_minority_of_liars_moves_nothing(
        five in any::<bool>(),
        honest in prop::collection::vec(-100_000..100_000i64, 5),
        lies in prop::collection::vec((0..2usize, any::<i32>(), 0..6u64), 1..120),
    ) {
        let (n, liars): (u64, &[u64]) = if five { (5, &[1, 4]) } else { (3, &[1]) };
        let mut bench = Bench::new(n, START);
        for id in 1..=n {
            let wrong = if liars.contains(&id) { 0 } else { honest[id as usize - 1] };
            bench.errors.insert(id, wrong);
        }
        for (liar, lie, away) in lies {
            let liar = liars[liar % liars.len()];
            bench.errors.insert(liar, i64::from(lie) * 1_000);
            let absent = bench.errors.remove(&away).filter(|_| away != 1);
            bench.run(2 * SECOND);
            if let Some(back) = absent {
                bench.errors.insert(away, back);
            }
            prop_assert!(bench.error().abs() <= 100_000, "{}", bench.error());
        }
    }
}
