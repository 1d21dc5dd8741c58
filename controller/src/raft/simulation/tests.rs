use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::*;

/// Runs in the quick form, and the time after which no new one is begun.
const QUICK: (u64, Duration) = (10, Duration::from_secs(5));

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.trim().parse().unwrap_or_else(|_| panic!("{name}={text:?} is no number")))
}

fn run(seed: u64, planted: Option<Planted>) -> Outcome {
    world::run(&Settings { seed, planted, print: false })
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
        let outcome = world::run(&Settings { seed, planted: None, print: true });
        say(&format!("seed {seed}: {:?}, trace {:016x}", outcome.figures, outcome.trace));
        assert!(outcome.violation.is_none(), "{}", fail(seed, &outcome));
        return;
    }
    let asked = number("SALLYPORT_SEEDS");
    let (count, limit) = (asked.unwrap_or(QUICK.0), asked.is_none().then_some(QUICK.1));
    let first = number("SALLYPORT_SEED_FROM").unwrap_or(1);
    let (begun, next) = (Instant::now(), AtomicU64::new(0));
    let total = std::sync::Mutex::new((0u64, world::Figures::default(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= count || limit.is_some_and(|limit| begun.elapsed() > limit) {
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
    say(&format!("simulation: {runs} seeds from {first} in {:.1} s: {figures:?}", begun.elapsed().as_secs_f64()));
    assert!(failures.is_empty(), "{} of {runs} seeds failed, the first:\n{}", failures.len(), failures[0]);
    assert!(figures.writes > 0 && figures.reads > 0 && runs > 0);
}

/// Faults, and a seed that found each when this was written; whatever changes the order of events changes that.
const FAULTS: [(Planted, u64); 6] = [
    (Planted::AckBeforeSync, 89),
    (Planted::ReadWithoutIndex, 6),
    (Planted::AnswersNotInSnapshots, 5),
    (Planted::VoteForgotten, 3),
    (Planted::RetryWithNewId, 1),
    (Planted::LeadOn, 40),
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

/// Seeds that found something in this software, once. They may find nothing any more: what they draw has changed since.
#[test]
fn seeds_that_once_failed_do_not() {
    let seeds = [
        (1, "a leader that was started anew led on in the same term"),
        (8, "a crash while a snapshot was installed left neither log nor state"),
        (1_026, "a change of the members stayed half done when its leader was lost"),
        (1_069, "a leader that had left the group was asked for changes"),
        (1_117, "a write of a deposed leader was never answered, and held up all that came after it"),
    ];
    for (seed, once) in seeds {
        let outcome = run(seed, None);
        assert!(outcome.violation.is_none(), "once: {once}\n{}", fail(seed, &outcome));
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let first: Vec<Outcome> = (1..=2).map(|seed| run(seed, None)).collect();
    for (seed, first) in (1..).zip(&first) {
        assert_eq!(*first, run(seed, None), "seed {seed}");
    }
    assert_ne!(first[0].trace, first[1].trace);
}
