use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const LIFE: u64 = 7;
const NOW: UnixTime = UnixTime(1_000);

fn fingerprint(n: u8) -> [u8; 32] {
    [n; 32]
}

fn entry(n: u8, end: u32) -> Vec<u8> {
    [tag(&fingerprint(n)).as_slice(), &end.to_be_bytes()].concat()
}

fn gone(n: u8, number: u64, reason: Reason) -> v1::RevokedCertificate {
    v1::RevokedCertificate {
        fingerprint: tag(&fingerprint(n)).to_vec(),
        reason: reason.into(),
        not_after_unix_s: 2_000,
        number,
    }
}

fn change(after: u64, index: u64) -> v1::LiveUpdate {
    v1::LiveUpdate { lineage: LIFE, after, index, ..Default::default() }
}

fn whole(index: u64) -> v1::LiveUpdate {
    v1::LiveUpdate { lineage: LIFE, snapshot: true, index, ..Default::default() }
}

fn secs(s: u64) -> Instant {
    Instant::from_secs(s)
}

#[test]
fn a_certificate_is_live_then_on_hold_then_released_then_revoked_then_over() {
    let mut set = LiveSet::default();
    assert_eq!((set.standing(secs(1)), set.find(&fingerprint(1), NOW)), (Standing::Without, Known::Nothing));
    let first = v1::LiveUpdate { live: [entry(1, 2_000), entry(2, 999)].concat(), ..whole(10) };
    assert_eq!(set.handle(&first), Ok(Vec::new()));
    assert_eq!((set.find(&fingerprint(1), NOW), set.len()), (Known::Live, 2));
    assert_eq!(set.find(&fingerprint(2), NOW), Known::Nothing, "its time is over");
    let held = v1::LiveUpdate { revoked: vec![gone(1, 11, Reason::CertificateHold)], ..change(10, 11) };
    let out = set.handle(&held).expect("fits");
    assert!(out.len() == 1 && out[0].0 == tag(&fingerprint(1)) && out[0].1.number == 11);
    assert!(matches!(set.find(&fingerprint(1), NOW), Known::Revoked(r) if r.reason == Reason::CertificateHold));
    assert_eq!(set.handle(&held), Ok(Vec::new()), "once is enough");
    assert_eq!(set.handle(&v1::LiveUpdate { live: entry(1, 2_000), ..change(11, 12) }), Ok(Vec::new()));
    assert_eq!(set.find(&fingerprint(1), NOW), Known::Live);
    let revoked = v1::LiveUpdate { revoked: vec![gone(1, 15, Reason::KeyCompromise)], ..change(12, 15) };
    assert_eq!(set.handle(&revoked).expect("fits").len(), 1);
    set.sweep(UnixTime(1_500));
    assert_eq!(set.len(), 0);
    assert!(matches!(set.find(&fingerprint(1), NOW), Known::Revoked(_)));
    set.sweep(UnixTime(2_000));
    assert_eq!(set.find(&fingerprint(1), UnixTime(2_000)), Known::Nothing);
}

#[test]
fn what_does_not_fit_is_noticed_and_changes_nothing() {
    let mut set = LiveSet::default();
    assert_eq!(set.handle(&change(0, 1)), Err(Misfit::Gap), "changes without a whole set before them");
    assert_eq!(set.handle(&v1::LiveUpdate { live: entry(1, 2_000), ..whole(10) }), Ok(Vec::new()));
    let at = set.at();
    assert_eq!(set.handle(&v1::LiveUpdate { live: entry(2, 2_000), ..change(11, 12) }), Err(Misfit::Gap));
    let strange = v1::LiveUpdate { lineage: LIFE + 1, live: entry(2, 2_000), ..change(10, 12) };
    assert_eq!(set.handle(&strange), Err(Misfit::Gap), "another life of the cluster");
    assert_eq!(set.handle(&v1::LiveUpdate { lineage: 0, ..whole(10) }), Err(Misfit::Malformed));
    assert_eq!(set.handle(&v1::LiveUpdate { live: vec![1; 19], ..change(10, 12) }), Err(Misfit::Malformed));
    let short = v1::RevokedCertificate { fingerprint: vec![1; 15], ..gone(1, 11, Reason::Unspecified) };
    assert_eq!(set.handle(&v1::LiveUpdate { revoked: vec![short], ..change(10, 12) }), Err(Misfit::Malformed));
    // Of a whole set that breaks off nothing counts.
    assert_eq!(set.handle(&v1::LiveUpdate { more: true, live: entry(3, 2_000), ..whole(20) }), Ok(Vec::new()));
    assert_eq!(set.handle(&v1::LiveUpdate { after: 7, ..whole(20) }), Err(Misfit::Gap), "a part is missing");
    assert_eq!((set.at(), set.find(&fingerprint(1), NOW), set.len()), (at, Known::Live, 1));
    assert_eq!(set.find(&fingerprint(3), NOW), Known::Nothing);
    // And what was known goes on.
    assert_eq!(set.handle(&v1::LiveUpdate { more: true, live: entry(3, 2_000), ..whole(20) }), Ok(Vec::new()));
    assert_eq!(set.handle(&v1::LiveUpdate { live: entry(2, 2_000), ..change(10, 12) }), Ok(Vec::new()));
    assert_eq!((set.at().index, set.len(), set.find(&fingerprint(3), NOW)), (12, 2, Known::Nothing));
}

#[test]
fn an_older_whole_set_brings_nobody_back_and_one_of_another_life_counts() {
    let mut set = LiveSet::default();
    let now = v1::LiveUpdate { revoked: vec![gone(1, 19, Reason::KeyCompromise)], ..whole(20) };
    assert_eq!(set.handle(&now).expect("fits").len(), 1, "whoever is in with it goes");
    let before = v1::LiveUpdate { live: entry(1, 2_000), ..whole(18) };
    assert_eq!(set.handle(&before), Err(Misfit::Older));
    assert!(matches!(set.find(&fingerprint(1), NOW), Known::Revoked(_)));
    set.handle_newest(set.at(), secs(5));
    assert_eq!(set.standing(secs(6)), Standing::Current);
    assert_eq!(set.handle(&v1::LiveUpdate { lineage: LIFE + 1, live: entry(1, 2_000), ..before }), Ok(Vec::new()));
    assert_eq!(set.find(&fingerprint(1), NOW), Known::Live, "the controllers were restored");
    assert_eq!(set.standing(secs(6)), Standing::Stale, "nobody has confirmed it yet");
}

#[test]
fn it_is_current_by_answers_to_questions_and_old_by_silence() {
    let mut set = LiveSet::default();
    set.set_bounds(600, false);
    set.handle(&whole(10)).expect("fits");
    let newest = |index| v1::LiveFrom { lineage: LIFE, index };
    assert_eq!((set.age(secs(100)), set.deadline(Standing::Stale)), (None, None));
    set.handle_newest(newest(9), secs(100));
    assert_eq!((set.standing(secs(104)), set.deadline(Standing::Current)), (Standing::Current, Some(secs(105))));
    assert_eq!((set.standing(secs(105)), set.deadline(Standing::Stale)), (Standing::Stale, Some(secs(700))));
    assert_eq!(set.standing(secs(700)), Standing::Shut);
    // An answer that speaks of something which is not here yet counts when that comes.
    set.handle_newest(newest(12), secs(650));
    assert_eq!(set.age(secs(700)), Some(Duration::from_secs(600)));
    set.handle(&change(10, 12)).expect("fits");
    assert_eq!(set.age(secs(700)), Some(Duration::from_secs(50)));
    // Nor does an answer of another life count, or an old one that comes late.
    set.handle_newest(v1::LiveFrom { lineage: LIFE + 1, index: 1 }, secs(690));
    set.handle_newest(newest(12), secs(600));
    assert_eq!(set.age(secs(700)), Some(Duration::from_secs(50)));
    for n in 0..1_000 {
        set.handle_newest(newest(100 + n), secs(700));
    }
    assert!(set.answers.len() <= ANSWERS);
    set.set_bounds(0, false);
    assert_eq!(set.standing(secs(1_000_000)), Standing::Stale, "older controllers set no bound");
}

/// What a controller knows: of each certificate whether it is revoked, and the number of its last change.
#[derive(Clone, Debug, Default)]
struct Log {
    last: u64,
    rows: BTreeMap<u8, (bool, u64)>,
}

impl Log {
    fn step(&mut self, n: u8, revoked: bool) {
        self.last += 1;
        self.rows.insert(n, (revoked, self.last));
    }

    fn say(&self, update: v1::LiveUpdate, rows: impl Iterator<Item = u8>) -> v1::LiveUpdate {
        rows.fold(update, |mut update, n| {
            match self.rows[&n] {
                (false, _) => update.live.extend(entry(n, 2_000)),
                (true, number) => update.revoked.push(gone(n, number, Reason::KeyCompromise)),
            }
            update
        })
    }

    /// What a stream says that begins at `from`.
    fn from(&self, from: v1::LiveFrom, parts: usize) -> Vec<v1::LiveUpdate> {
        if from.lineage == LIFE && from.index <= self.last {
            let changed = self.rows.iter().filter(|(_, (_, number))| *number > from.index).map(|(n, _)| *n);
            return vec![self.say(change(from.index, self.last), changed)];
        }
        let all: Vec<u8> = self.rows.keys().copied().collect();
        let size = all.len().div_ceil(parts).max(1);
        let count = all.len().div_ceil(size).max(1);
        let part = |at: usize| {
            let rows = all.iter().copied().skip(at * size).take(size);
            let number = |at: usize| u64::try_from(at * size).expect("small");
            let begin = v1::LiveUpdate { more: at + 1 < count, ..whole(self.last) };
            self.say(v1::LiveUpdate { after: number(at), said: number(at + 1), ..begin }, rows)
        };
        (0..count).map(part).collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Change(u8, bool),
    /// A stream begins at what is known, and says what there is to say now.
    Begin(usize),
    /// The next message arrives, or one out of its turn, or one a second time, or one is lost.
    Arrive,
    OutOfTurn(usize),
    Twice,
    Lose,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u8..8, any::<bool>()).prop_map(|(n, revoked)| Step::Change(n, revoked)),
        2 => (1_usize..4).prop_map(Step::Begin),
        4 => Just(Step::Arrive),
        1 => (0_usize..8).prop_map(Step::OutOfTurn),
        1 => Just(Step::Twice),
        1 => Just(Step::Lose),
    ]
}

fn assert_is(set: &LiveSet, log: &Log) {
    for (n, (revoked, _)) in &log.rows {
        match set.find(&fingerprint(*n), NOW) {
            Known::Live => assert!(!revoked, "{n} is revoked"),
            Known::Revoked(_) => assert!(revoked, "{n} is live"),
            Known::Nothing => panic!("{n} is missing"),
        }
    }
}

proptest! {
    #[test]
    fn messages_may_be_lost_repeated_and_reordered_and_streams_begin_anew(
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let (mut log, mut set) = (Log::default(), LiveSet::default());
        let mut under_way: VecDeque<v1::LiveUpdate> = VecDeque::new();
        let mut said = v1::LiveFrom::default();
        for step in steps {
            let arrives = match step {
                Step::Change(n, revoked) => {
                    log.step(n, revoked);
                    // A stream says each change as it comes, if it has begun.
                    if said.lineage == LIFE {
                        under_way.extend(log.from(said, 1));
                        said.index = log.last;
                    }
                    None
                }
                Step::Begin(parts) => {
                    under_way.extend(log.from(set.at(), parts));
                    said = v1::LiveFrom { lineage: LIFE, index: log.last };
                    None
                }
                Step::Arrive => under_way.pop_front(),
                Step::OutOfTurn(at) => under_way.remove(at),
                Step::Twice => under_way.front().cloned(),
                Step::Lose => {
                    under_way.pop_front();
                    None
                }
            };
            let before = set.at();
            if arrives.is_some_and(|update| set.handle(&update).is_err()) {
                prop_assert_eq!(set.at(), before);
                said = v1::LiveFrom::default(); // and the stream begins anew some time
            }
            // Whatever was lost: a certificate whose last change is known here is what that change made of it.
            for (n, (revoked, number)) in &log.rows {
                if *number <= set.at().index && set.at().lineage == LIFE {
                    let known = set.find(&fingerprint(*n), NOW);
                    prop_assert_eq!(matches!(known, Known::Revoked(_)), *revoked, "{} {:?}", n, known);
                }
            }
        }
        while let Some(update) = under_way.pop_front() {
            let _ = set.handle(&update);
        }
        // A stream that loses nothing ends with all of it.
        for update in log.from(set.at(), 2) {
            prop_assert!(set.handle(&update).is_ok());
        }
        assert_is(&set, &log);
    }

    #[test]
    fn no_message_makes_it_panic(
        lineage in 0_u64..3, snapshot: bool, more: bool, after in 0_u64..5, index in 0_u64..5,
        live in prop::collection::vec(any::<u8>(), 0..61), tags in prop::collection::vec(prop::collection::vec(any::<u8>(), 14..18), 0..3),
    ) {
        let mut set = LiveSet::default();
        for lineage in [lineage, 1] {
            let revoked = tags.iter().map(|tag| v1::RevokedCertificate {
                fingerprint: tag.clone(), reason: 77, not_after_unix_s: u64::MAX, number: u64::MAX,
            });
            let update = v1::LiveUpdate {
                lineage, snapshot, more, after, index, live: live.clone(), revoked: revoked.collect(), said: after,
            };
            let _ = set.handle(&update);
            set.handle_newest(v1::LiveFrom { lineage, index }, Instant::ZERO);
            set.sweep(UnixTime(i64::MAX));
        }
    }
}
