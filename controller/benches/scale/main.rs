//! A large cluster's state on each engine: memory, disk, and how long a controller takes to start with it:
//! `cargo bench -p sallyport-controller --bench scale`, or with `-- sessions` or `-- enrolled` one of the two:
//!
//! - `sessions`: users, certificate records and sessions, with the answers that are remembered;
//! - `enrolled`: machines with a certificate each, by tokens, and the audit log of that; one in a hundred revoked.
//!
//! The state is made by commands as a controller applies them; the log holds as many entries as there may be between two snapshots.
//! Then a new process opens it: first with nothing of its files in memory, then again. In the end a copy of the state (a snapshot; a
//! backup is made the same way) is written while commands go on, and the longest that one of them waits is shown, and how long the
//! revocation lists are.
//!
//! `SALLYPORT_BENCH_CERTIFICATES` (default 1,000,000), `SALLYPORT_BENCH_SESSIONS` (default 100,000), `SALLYPORT_BENCH_ENGINES`
//! (default "sled redb"), `SALLYPORT_BENCH_ROUNDS` (default 3: starts of each kind, of which the one in the middle is shown),
//! `TMPDIR` for the disk. `SALLYPORT_BENCH_FOLDER` names a folder that keeps what was made for the next run.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod enrolled;
mod fill;
mod lists;
mod sessions;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use openraft::RaftSnapshotBuilder;
use openraft::storage::{RaftLogStorage, RaftStateMachine};
use sallyport_controller::Engine;
use sallyport_controller::raft::{LogStore, StateMachine, store};
use sallyport_controller::state::{Action, CertificateRow, RecordCertificate};
use sallyport_proto::v1;

use crate::fill::{Filler, LOG, serial};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Set for the process that opens a state: its engine, what to do with it, and its folder.
const OPEN: &str = "SALLYPORT_BENCH_OPEN";

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// A line of `/proc/self/status`, MB.
fn memory(what: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap_or_default();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) / 1_000
}

/// What all processors together have done for this process, seconds.
fn worked() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    [usage.user_time(), usage.system_time()].iter().map(|t| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6).sum()
}

/// What a new process does with the folder of a state. The first line is figures, for the process that started it.
async fn open_it(path: &Path, engine: Engine, copy: bool) {
    let begun = Instant::now();
    let kv = store::open(&path.join("store"), engine).unwrap();
    let opened = begun.elapsed().as_secs_f64();
    let mut log = LogStore::new(kv.clone()).unwrap();
    log.get_log_state().await.unwrap();
    let mut machine = StateMachine::open(kv, &path.join("snapshots")).unwrap();
    let all = begun.elapsed().as_secs_f64();
    println!("{opened} {} {all} {} {} {}", all - opened, worked(), memory("VmRSS"), memory("VmHWM"));
    if !copy {
        return;
    }
    let (last, _) = machine.applied_state().await.unwrap();
    let shared = machine.shared();
    let at_ms = shared.read().now_ms();
    let mut filler = Filler::new(machine, last.unwrap().index, u64::MAX / 2);
    filler.at_ms = at_ms;
    let mut longest = [0.0_f64; 2];
    let mut taken = 0.0;
    let mut n = 0_u64;
    for (place, copying) in [false, true].into_iter().enumerate() {
        let building = if copying {
            let begun = Instant::now();
            let mut builder = filler.machine.get_snapshot_builder().await;
            longest[place] = begun.elapsed().as_secs_f64() * 1e3;
            Some((begun, tokio::spawn(async move { builder.build_snapshot().await.unwrap() })))
        } else {
            None
        };
        loop {
            n += 1;
            let begun = Instant::now();
            let record = sessions::certificate(n);
            let record = CertificateRow {
                serial: serial(u64::MAX / 2 + n),
                key_algorithm: v1::KeyAlgorithm::EcdsaP256.into(),
                not_after_ms: at_ms + 1_000,
                ..record
            };
            filler.put(Action::RecordCertificate(RecordCertificate { record: Some(record), answer: Vec::new() })).await;
            filler.apply().await;
            longest[place] = longest[place].max(begun.elapsed().as_secs_f64() * 1e3);
            tokio::task::yield_now().await;
            match &building {
                Some((_, task)) if !task.is_finished() => {}
                None if n < 2_000 => {}
                _ => break,
            }
        }
        if let Some((begun, task)) = building {
            task.await.unwrap();
            taken = begun.elapsed().as_secs_f64();
        }
    }
    println!(
        "  a copy took {taken:.1} s, and a command beside it {:.1} ms at most, alone {:.1} ms; {} MB at most",
        longest[1],
        longest[0],
        memory("VmHWM")
    );
    lists::measure(&shared.read());
}

fn files(path: &Path) -> Vec<PathBuf> {
    match fs::read_dir(path) {
        Ok(entries) => entries.flat_map(|e| files(&e.unwrap().path())).collect(),
        Err(_) => vec![path.into()],
    }
}

/// Has the system forget what it holds of the files.
fn forget(path: &Path) {
    for file in files(path) {
        File::open(&file).unwrap().sync_all().unwrap();
        let of = format!("of={}", file.display());
        let dd = ["oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none", &of];
        Process::new("dd").args(dd).status().unwrap();
    }
}

/// Has a new process open a state; its figures, and what else it says.
fn start(path: &Path, engine: Engine, what: &str) -> (Vec<f64>, String) {
    let open = format!("{} {what} {}", engine.name(), path.display());
    let out = Process::new(std::env::current_exe().unwrap()).env(OPEN, open).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let (figures, rest) = text.split_once('\n').unwrap();
    (figures.split(' ').map(|n| n.parse().unwrap()).collect(), rest.to_owned())
}

#[tokio::main]
async fn main() {
    if let Some(open) = std::env::var_os(OPEN) {
        let words: Vec<String> = open.to_str().unwrap().split(' ').map(str::to_owned).collect();
        let engine = Engine::ALL.into_iter().find(|e| e.name() == words[0]).unwrap();
        return open_it(Path::new(&words[2]), engine, words[1] == "copy").await;
    }
    let certificates = number("SALLYPORT_BENCH_CERTIFICATES", 1_000_000);
    let sessions = number("SALLYPORT_BENCH_SESSIONS", 100_000);
    let rounds = number("SALLYPORT_BENCH_ROUNDS", 3) as usize;
    let engines = std::env::var("SALLYPORT_BENCH_ENGINES").unwrap_or_else(|_| "sled redb".into());
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    println!("sessions: {sessions} sessions, {certificates} certificate records, {} users", sessions / 2 + 1);
    println!("enrolled: {certificates} certificates of as many machines, their audit log, one in a hundred revoked");
    println!("{LOG} entries in the log; of {rounds} starts that in the middle\n");
    println!(
        "| state | engine | files | disk MB | opening s | loading s | start s | processors s | memory MB | at most |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let made = tempfile::tempdir().unwrap();
    let folder = std::env::var_os("SALLYPORT_BENCH_FOLDER").map_or_else(|| made.path().into(), PathBuf::from);
    for what in ["sessions", "enrolled"].into_iter().filter(|w| wanted.is_empty() || wanted.iter().any(|n| n == w)) {
        for engine in Engine::ALL.into_iter().filter(|e| engines.split(' ').any(|n| n == e.name())) {
            let path = folder.join(format!("{what}-{}", engine.name()));
            let begun = Instant::now();
            if !path.exists() {
                let making = folder.join("making");
                fs::create_dir_all(&making).unwrap();
                match what {
                    "sessions" => sessions::fill(&making, engine, certificates, sessions).await,
                    _ => enrolled::fill(&making, engine, certificates).await,
                }
                fs::rename(&making, &path).unwrap();
            }
            let filled = begun.elapsed().as_secs_f64();
            for cold in [true, false] {
                let mut starts = Vec::new();
                let disk: u64 = files(&path).iter().map(|f| fs::metadata(f).unwrap().len()).sum();
                for _ in 0..rounds {
                    if cold {
                        forget(&path);
                    }
                    starts.push(start(&path, engine, "open").0);
                }
                starts.sort_by(|a, b| a[2].total_cmp(&b[2]));
                let [opening, loading, all, worked, rss, peak] = starts[rounds / 2][..] else { unreachable!() };
                println!(
                    "| {what} | {} | {} | {} | {opening:.2} | {loading:.2} | {all:.2} | {worked:.2} | {rss} | {peak} |",
                    engine.name(),
                    if cold { "cold" } else { "warm" },
                    disk / 1_000_000
                );
            }
            // In a copy of the folder, so that the next run finds what this one did.
            let copied = folder.join("copied");
            let _ = fs::remove_dir_all(&copied);
            assert!(Process::new("cp").arg("-a").arg(&path).arg(&copied).status().unwrap().success());
            print!("{}", start(&copied, engine, "copy").1);
            println!("  made in {filled:.0} s");
            fs::remove_dir_all(&copied).unwrap();
        }
    }
}
