use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::*;

/// Runs in the quick form, and the time after which no new one is begun.
const QUICK: (u64, Duration) = (8, Duration::from_secs(4));
/// Runs that are made however long they take: a machine that does much else must not make the test an empty one.
const LEAST: u64 = 4;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.trim().parse().unwrap_or_else(|_| panic!("{name}={text:?} is no number")))
}

fn slow_line() -> bool {
    number("SALLYPORT_SLOW_LINE").is_some()
}

fn run(seed: u64, planted: Option<Planted>) -> Outcome {
    world::run(&Settings { seed, planted, slow_line: slow_line(), print: false })
}

fn fail(seed: u64, outcome: &Outcome) -> String {
    format!(
        "seed {seed}: {}\n{}\nreplay it: SALLYPORT_SEED={seed} cargo test -p sallyport-controller --lib raft::simulation::tests::any_seed",
        outcome.violation.as_deref().unwrap_or_default(),
        outcome.lines.join("\n"),
    )
}

#[test]
#[allow(clippy::disallowed_methods, reason = "bounds the time of the whole test")]
fn any_seed_keeps_what_was_promised() {
    if let Some(seed) = number("SALLYPORT_SEED") {
        let name = std::env::var("SALLYPORT_PLANTED").ok();
        let mut faults = FAULTS.into_iter().map(|(fault, _)| fault).chain([Planted::NoPreVote]);
        let planted = name.map(|name| faults.find(|fault| format!("{fault:?}") == name).expect("a fault of that name"));
        let outcome = world::run(&Settings { seed, planted, slow_line: slow_line(), print: true });
        say(&format!("seed {seed}: {:?}, trace {:016x}", outcome.figures, outcome.trace));
        assert!(outcome.violation.is_none(), "{}", fail(seed, &outcome));
        return;
    }
    let asked = number("SALLYPORT_SEEDS");
    let seconds = number("SALLYPORT_SEED_SECONDS").map(Duration::from_secs);
    let (count, limit) = match (asked, seconds) {
        (None, None) => (QUICK.0, Some(QUICK.1)),
        (asked, seconds) => (asked.unwrap_or(u64::MAX), seconds),
    };
    let first = number("SALLYPORT_SEED_FROM").unwrap_or(1);
    let (begun, next) = (Instant::now(), AtomicU64::new(0));
    let total = std::sync::Mutex::new((0u64, world::Figures::default(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let is_over = at >= LEAST && limit.is_some_and(|limit| begun.elapsed() > limit);
                    if at >= count || is_over {
                        return;
                    }
                    let outcome = run(first + at, None);
                    let mut total = total.lock().expect("not poisoned");
                    total.0 += 1;
                    total.1 = total.1 + outcome.figures;
                    if outcome.violation.is_some() {
                        say(&format!("seed {}: {}", first + at, outcome.violation.as_deref().unwrap_or_default()));
                        total.2.push(fail(first + at, &outcome));
                    }
                }
            });
        }
    });
    let (runs, figures, failures) = total.into_inner().expect("not poisoned");
    say(&format!(
        "simulation: {runs} seeds, {first} to {}, in {:.1} s: {figures:?}",
        first + runs.max(1) - 1,
        begun.elapsed().as_secs_f64()
    ));
    assert!(failures.is_empty(), "{} of {runs} seeds failed, the first:\n{}", failures.len(), failures[0]);
    assert!(runs >= LEAST.min(count), "{runs} runs are too few");
    assert!(figures.writes > 0 && figures.reads > 0);
}

/// Faults, and a seed that found each when this was written; whatever changes the order of events changes that.
const FAULTS: [(Planted, u64); 7] = [
    (Planted::AckBeforeSync, 173),
    (Planted::ReadWithoutIndex, 13),
    (Planted::AnswersNotInSnapshots, 9),
    (Planted::VoteForgotten, 3),
    (Planted::RetryWithNewId, 1),
    (Planted::LeadOn, 93),
    (Planted::CountsUnsynced, 145),
];
/// Seeds within which each must be found.
const WITHIN: u64 = 200;

#[test]
fn a_fault_that_is_put_in_is_found() {
    for (fault, first) in FAULTS {
        let seeds = (first..=WITHIN).chain(1..first);
        let found = seeds.into_iter().find_map(|seed| Some((seed, run(seed, Some(fault)).violation?)));
        let (seed, what) = found.unwrap_or_else(|| panic!("{fault:?} was not found within {WITHIN} seeds"));
        say(&format!("{fault:?}: seed {seed}: {what}"));
    }
}

#[test]
fn a_slow_line_to_one_follower_deposes_nobody() {
    let slow = |seed, planted| {
        world::run(&Settings { seed, planted, slow_line: true, print: number("SALLYPORT_SEED").is_some() })
    };
    // One catches up by the log, the other by snapshots.
    for seed in 1..=2 {
        let outcome = slow(seed, None);
        assert!(outcome.violation.is_none(), "{}", fail(seed, &outcome));
    }
    let found = (1..=8).find_map(|seed| Some((seed, slow(seed, Some(Planted::NoPreVote)).violation?)));
    let (seed, what) = found.expect("standing unasked is found");
    say(&format!("NoPreVote: seed {seed}: {what}"));
}

#[test]
fn the_same_seed_is_the_same_run() {
    let first = run(1, None);
    assert_eq!(first, run(1, None));
    assert_ne!(first.trace, run(2, None).trace);
}
