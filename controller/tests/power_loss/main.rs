//! The power fails at a random moment: what was acknowledged is there, and the store opens.
//!
//! A child writes under strace, which records each write, sync, rename and so on with its bytes. From the record the files
//! are put together as a disk may hold them after a failure at any moment, under three [models](disk::Model); each time
//! the store is opened and every row compared. The same for a kill at each system call of a start, where the system keeps
//! everything that was written.
//!
//! More by hand, or another seed:
//! `SALLYPORT_CUTS=500 SALLYPORT_SEED=7 cargo test -p sallyport-controller --test power_loss`.

mod disk;
mod record;
mod workload;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use disk::Model;
use record::{Change, Record};
use sallyport_controller::Engine;
use workload::{Plan, Size, Told, What};

/// Set for the child: the plan, and the state folder.
const PLAN: &str = "SALLYPORT_POWER_LOSS_PLAN";
const STATE: &str = "SALLYPORT_POWER_LOSS_STATE";
/// Moments in each run and model.
const DEFAULT_CUTS: u64 = 25;

/// A small generator.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`; 0 when that is 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end.max(1)
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high.saturating_sub(low) as u64 + 1) as usize
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

fn seed() -> u64 {
    number("SALLYPORT_SEED", 0x5eed)
}

fn skipped(why: &str) {
    // Past the capture of a passing test's output, so that ./test can report it.
    let _ = std::io::stderr().write_all(format!("\nskipped: {why}\n").as_bytes());
}

/// Whether there is an strace that may trace.
fn strace() -> bool {
    let tried = Command::new("strace").args(["-f", "--seccomp-bpf", "-o", "/dev/null", "true"]).output();
    let works = tried.is_ok_and(|out| out.status.success());
    if !works {
        skipped("no strace that may trace (apt-get install strace)");
    }
    works
}

/// Memory where there is some: nothing here has to survive a real power failure.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory).ok() } else { None };
    folder.unwrap_or_else(|| tempfile::tempdir().expect("temporary folder"))
}

/// The child under strace; returns what it said.
fn child(plan: Plan, state: &Path, options: &[&str], record: &Path) -> String {
    let out = Command::new("strace")
        .args(["-f", "-qq", "-e", "signal=none"])
        .args(options)
        .arg("-o")
        .arg(record)
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", "the_child", "--nocapture", "--test-threads=1"])
        .env(PLAN, plan.to_text())
        .env(STATE, state)
        .stdin(Stdio::null())
        .output()
        .expect("starts strace");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    if !out.status.success() && !options.iter().any(|o| o.contains("SIGKILL")) {
        panic!("{said}\n{}", String::from_utf8_lossy(&out.stderr));
    }
    said
}

/// The child's life. Not a test of its own: without the variable that the tests below set, it is over at once.
#[test]
fn the_child() {
    let (Ok(plan), Some(state)) = (std::env::var(PLAN), std::env::var_os(STATE)) else { return };
    workload::child(Plan::from_text(&plan), &PathBuf::from(state));
}

fn recorded(plan: Plan) -> Record {
    let dir = folder();
    let state = dir.path().join("state");
    fs::create_dir(&state).expect("makes");
    let file = dir.path().join("record");
    child(plan, &state, &["--seccomp-bpf", "-xx", "-s", "16777216", "-e", &format!("trace={}", record::CALLS)], &file);
    // Anything that is not text here would be in hexadecimal.
    let text = fs::read_to_string(&file).expect("reads");
    record::read(&text, state.to_str().expect("text"))
}

/// From when to when the child opened its store.
fn starts(record: &Record) -> Vec<(usize, usize)> {
    let said = |word: &str| -> Vec<usize> {
        let events = record.events.iter();
        events.filter(|e| matches!(&e.change, Change::Say { text } if text.ends_with(word))).map(|e| e.end).collect()
    };
    said("OPEN").into_iter().zip(said("OPENED")).collect()
}

/// Moments to cut at: anywhere, and as many within the starts.
fn moments(record: &Record, count: u64, random: &mut Random) -> Vec<usize> {
    let starts = starts(record);
    let anywhere = (0..count).map(|_| random.between(0, record.lines)).collect::<Vec<_>>();
    let aimed = (0..count).map(|_| {
        let (from, to) = starts[random.below(starts.len() as u64) as usize];
        random.between(from, to + 1)
    });
    anywhere.into_iter().chain(aimed).collect()
}

fn told(record: &Record, cut: usize) -> Told {
    let mut told = Told::default();
    for event in record.events.iter().filter(|e| e.end < cut) {
        if let Change::Say { text } = &event.change {
            text.lines().for_each(|line| told.hear(line));
        }
    }
    told
}

/// One failure; says what is wrong.
fn fail(record: &Record, plan: Plan, model: Model, cut: usize, seed: u64) -> Result<(), String> {
    let dir = folder();
    let state = dir.path().join("state");
    disk::rebuild(record, model, cut, &mut Random::new(seed), &state);
    workload::check(plan, &state, told(record, cut))
        .map_err(|e| format!("{} {model:?}, line {cut} of {}, seed {seed}: {e}", plan.to_text(), record.lines))
}

fn run(plan: Plan) {
    let record = recorded(plan);
    let told_all = told(&record, usize::MAX);
    assert_eq!(told_all.entry, Some(plan.lives * plan.entries - 1), "the child did all of it");
    let mut random = Random::new(seed());
    let (mut failures, mut states) = (Vec::new(), 0);
    let cuts = number("SALLYPORT_CUTS", DEFAULT_CUTS);
    for (from, to) in starts(&record) {
        // Each call where there are not too many.
        for cut in (from..=to + 1).step_by((to - from) / (4 * cuts as usize) + 1) {
            failures.extend(fail(&record, plan, Model::Killed, cut, 1).err());
            states += 1;
        }
    }
    for model in [Model::Worst, Model::Journal, Model::Reorder] {
        for cut in moments(&record, cuts, &mut random) {
            failures.extend(fail(&record, plan, model, cut, random.below(u64::MAX)).err());
            states += 1;
        }
    }
    assert!(failures.is_empty(), "{} of {states}:\n{}", failures.len(), failures.join("\n"));
    let lines = record.lines;
    say(&format!(
        "{}: {states} kills and power failures in {lines} system calls, nothing lost (seed {})",
        plan.to_text(),
        seed()
    ));
}

#[allow(clippy::print_stdout, reason = "shown with --nocapture")]
fn say(text: &str) {
    println!("{text}");
}

fn plan(engine: Engine, size: Size, what: What) -> Plan {
    let entries = if size == Size::Large { 40 } else { 90 };
    Plan { engine, size, lives: 3, entries, what }
}

#[test]
fn sled_keeps_what_it_acknowledged() {
    if strace() {
        run(plan(Engine::Sled, Size::Small, What::Writes));
    }
}

#[test]
fn sled_keeps_large_values_too() {
    if strace() {
        run(plan(Engine::Sled, Size::Large, What::Writes));
    }
}

#[test]
fn redb_keeps_what_it_acknowledged() {
    if strace() {
        run(plan(Engine::Redb, Size::Small, What::Writes));
    }
}

#[test]
fn redb_keeps_large_values_too() {
    if strace() {
        run(plan(Engine::Redb, Size::Large, What::Writes));
    }
}

#[test]
fn a_conversion_loses_nothing_either() {
    if strace() {
        for engine in Engine::ALL {
            run(Plan { lives: 1, ..plan(engine, Size::Small, What::Converts) });
        }
    }
}

/// Moments right behind each acknowledgement, and whether anything was synced since the one before.
fn acknowledged(record: &Record) -> Vec<(usize, bool)> {
    let (mut moments, mut synced) = (Vec::new(), false);
    for event in &record.events {
        match &event.change {
            Change::Sync { .. } => synced = true,
            Change::Say { text } if text.starts_with("ACK ") => {
                moments.push((event.end + 1, std::mem::take(&mut synced)));
            }
            _ => {}
        }
    }
    moments
}

/// The checker itself: a child that acknowledges before it has synced is found out at each acknowledgement (sled syncs now
/// and then by itself; those do not count), and an honest one at none.
#[test]
fn an_acknowledgement_without_a_sync_is_noticed() {
    if !strace() {
        return;
    }
    for engine in Engine::ALL {
        let lies = Plan { lives: 1, ..plan(engine, Size::Small, What::Lies) };
        let record = recorded(lies);
        let unsynced = || acknowledged(&record).into_iter().filter(|(_, synced)| !synced).map(|(cut, _)| cut);
        assert!(unsynced().count() > 10, "{}: most of the lies are lies", engine.name());
        for cut in unsynced() {
            let found = fail(&record, lies, Model::Worst, cut, 1);
            assert!(found.is_err_and(|e| e.contains("entries up to")), "{}: overlooked at {cut}", engine.name());
        }

        let honest = Plan { lives: 1, ..plan(engine, Size::Small, What::Writes) };
        let record = recorded(honest);
        for (cut, _) in acknowledged(&record) {
            fail(&record, honest, Model::Worst, cut, 1).expect("what was acknowledged");
        }
    }
}

/// System calls at which a start is killed.
const KILLED_AT: [&str; 9] =
    ["pwrite64", "write", "ftruncate", "rename", "unlink", "mkdir", "fsync", "fdatasync", "sync_file_range"];

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("makes");
    for entry in fs::read_dir(from).expect("lists").map(|e| e.expect("an entry")) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copies");
        }
    }
}

/// Starts on `before`, killed at the first, second ... call of each kind (strace counts in each thread) until one start gets
/// through. Returns how many did not.
fn kills(engine: Engine, before: &Path, told: Told) -> u64 {
    let start = Plan { entries: 0, lives: 1, ..plan(engine, Size::Small, What::Breaks) };
    let mut kills = 0;
    for call in KILLED_AT {
        for n in 1..1_000 {
            let dir = folder();
            let state = dir.path().join("state");
            copy(before, &state);
            let inject = format!("inject={call}:signal=SIGKILL:when={n}");
            let said = child(start, &state, &["-e", &format!("trace={call}"), "-e", &inject], Path::new("/dev/null"));
            if let Err(e) = workload::check(plan(engine, Size::Small, What::Writes), &state, told) {
                panic!("{}: killed at {call} {n}: {e}", engine.name());
            }
            if said.contains("OPENED") {
                break;
            }
            kills += 1;
        }
    }
    kills
}

#[test]
fn a_kill_at_any_moment_of_a_start_leaves_a_store_that_opens() {
    if !strace() {
        return;
    }
    for engine in Engine::ALL {
        let dir = folder();
        let empty = dir.path().join("empty");
        fs::create_dir(&empty).expect("makes");
        let first = kills(engine, &empty, Told::default());
        let broken = dir.path().join("broken");
        fs::create_dir(&broken).expect("makes");
        let breaks = Plan { lives: 1, ..plan(engine, Size::Small, What::Breaks) };
        child(breaks, &broken, &["-e", "trace=fsync"], Path::new("/dev/null"));
        let later = kills(engine, &broken, Told { entry: Some(breaks.entries - 1), snapshot: Some(49) });
        // A test that kills nothing would show nothing.
        assert!(first > 5 && later > 5, "{}: {first}, {later}", engine.name());
        say(&format!("{}: {first} kills during a first start, {later} during a later one", engine.name()));
    }
}
