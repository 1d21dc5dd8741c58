//! What a group of controllers does: `cargo bench -p sallyport-controller --bench cluster`.
//!
//! In one run, on one disk: acknowledged session commands per second with one controller and with three, and etcd with three
//! members under an equal client; how long a decision on a user takes at half that load; how long a group is without a leader
//! after `kill -9`, and how long a client that connects meanwhile waits.
//!
//! Every node is a process of its own (this binary runs itself), every connection mutual TLS over the loopback interface, every
//! write on the disk before it is acknowledged. etcd is Debian's: `apt-get install etcd-server etcd-client`. Where it is
//! missing, its columns are, too.
//!
//! And certificates: how many a second a group of three issues to machines that enroll, beside etcd and bare signing.
//!
//! Parts by name: `-- commands`, `decisions`, `issuing`, `etcdctl` (a minute), `kills`.
//!
//! | variable | what | else |
//! |---|---|---|
//! | `SALLYPORT_BENCH_DIR` | folder for all state, on the disk to measure | cargo's `target/tmp` |
//! | `SALLYPORT_BENCH_LEVELS` | clients at a time | `1,8,32,128` |
//! | `SALLYPORT_BENCH_ROUNDS` | rounds, of whose rates the median is shown | 3 |
//! | `SALLYPORT_BENCH_SECONDS` | seconds of each measurement | 2 |
//! | `SALLYPORT_BENCH_KEY` | the only kind of key that machines bring, `ecdsa-p256` or `rsa-2048` | both |
//! | `SALLYPORT_BENCH_KILLS` | kills of the leader | 30 |

#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod controllers;
mod etcd;
mod issuing;
mod kills;
mod load;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use controllers::Group;
use etcd::Etcd;
use load::{Latencies, closed, median, micros_each, paced};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Connections that the clients share: so many gateways.
pub(crate) const CONNECTIONS: usize = 6;
/// Before anything is counted.
const WARM_UP: Duration = Duration::from_millis(700);

pub(crate) struct Settings {
    dir: PathBuf,
    levels: Vec<usize>,
    rounds: usize,
    each: Duration,
    kills: u32,
}

impl Settings {
    fn from_env() -> Self {
        let number = |name: &str, default: u32| {
            std::env::var(name).ok().map_or(default, |v| v.parse().unwrap_or_else(|_| panic!("{name} is no number")))
        };
        let levels = std::env::var("SALLYPORT_BENCH_LEVELS").unwrap_or_else(|_| "1,8,32,128".into());
        let dir =
            std::env::var_os("SALLYPORT_BENCH_DIR").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
        Self {
            dir,
            levels: levels.split(',').map(|l| l.trim().parse().expect("SALLYPORT_BENCH_LEVELS")).collect(),
            rounds: number("SALLYPORT_BENCH_ROUNDS", 3) as usize,
            each: Duration::from_secs(number("SALLYPORT_BENCH_SECONDS", 2).into()),
            kills: number("SALLYPORT_BENCH_KILLS", 30),
        }
    }
}

fn main() {
    if controllers::child() {
        return;
    }
    let parts: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|p| p == part);
    let settings = Settings::from_env();
    std::fs::create_dir_all(&settings.dir).unwrap();
    let dir = tempfile::Builder::new().prefix("cluster-").tempdir_in(&settings.dir).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let most = settings.levels.iter().copied().fold(kills::CLIENTS, usize::max);

    let mut three = Group::start(&runtime, &dir.path().join("three"), 3, most);
    let etcd = ["commands", "issuing", "etcdctl"]
        .into_iter()
        .any(wanted)
        .then(|| Etcd::start(&runtime, &dir.path().join("etcd")))
        .flatten();
    if wanted("commands") {
        let one = Group::start(&runtime, &dir.path().join("one"), 1, most);
        commands(&runtime, &settings, &one, &three, etcd.as_ref());
    }
    if wanted("decisions") {
        decisions(&runtime, &settings, &three);
    }
    if wanted("issuing") {
        issuing::measure(&runtime, &settings, &three, etcd.as_ref());
    }
    if wanted("kills") {
        kills::measure(&runtime, &settings, &mut three);
    }
    drop(three);
    if let Some(etcd) = etcd.as_ref().filter(|_| wanted("etcdctl")) {
        println!("\n## etcdctl check perf --load=m, its own statement\n\n{}", etcd.check_perf());
    }
}

/// The table of rates: the systems in turn within each round, so that what the machine does besides meets all.
fn commands(runtime: &tokio::runtime::Runtime, settings: &Settings, one: &Group, three: &Group, etcd: Option<&Etcd>) {
    println!("\n## Acknowledged commands per second\n");
    println!(
        "A command of a session is an entry of {} bytes on average (opening and ending in turn); etcd puts values of that size.\n",
        controllers::payload()
    );
    println!(
        "| clients | 1 controller | 3 controllers | p50, p99 ms | etcd, 3 members | p50, p99 ms | ratio | CPU µs each, etcd |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for &clients in &settings.levels {
        let mut rates: [Vec<f64>; 3] = Default::default();
        let mut latencies: [Latencies; 3] = Default::default();
        let mut cpu: [Vec<f64>; 2] = Default::default();
        for _ in 0..settings.rounds {
            let mut note = |at: usize, (rate, seen): (f64, Latencies)| {
                rates[at].push(rate);
                latencies[at].merge(seen);
            };
            note(0, runtime.block_on(closed(WARM_UP, settings.each, one.clients(clients))));
            let count = |rate: f64| rate * (WARM_UP + settings.each).as_secs_f64();
            let before = three.cpu();
            let ours = runtime.block_on(closed(WARM_UP, settings.each, three.clients(clients)));
            cpu[0].push(micros_each(three.cpu() - before, count(ours.0)));
            note(1, ours);
            if let Some(etcd) = etcd {
                let before = etcd.cpu();
                let theirs = runtime.block_on(closed(WARM_UP, settings.each, etcd.clients(clients)));
                cpu[1].push(micros_each(etcd.cpu() - before, count(theirs.0)));
                note(2, theirs);
            }
        }
        let [one, three, peer] = rates.map(|mut r| median(&mut r));
        let [_, ours, theirs] = latencies.map(|mut l| format!("{:.1}, {:.1}", l.ms(0.5), l.ms(0.99)));
        let [cpu, etcd_cpu] = cpu.map(|mut c| median(&mut c));
        if etcd.is_some() {
            let ratio = three / peer;
            println!(
                "| {clients} | {one:.0} | {three:.0} | {ours} | {peer:.0} | {theirs} | {ratio:.2} | {cpu:.0}, {etcd_cpu:.0} |"
            );
        } else {
            println!("| {clients} | {one:.0} | {three:.0} | {ours} | not installed | – | – | {cpu:.0}, – |");
        }
    }
    if etcd.is_none() {
        println!("\n{}", etcd::MISSING);
    }
}

/// Decisions on users while the group has half of what it can do.
fn decisions(runtime: &tokio::runtime::Runtime, settings: &Settings, three: &Group) {
    let clients = settings.levels.iter().copied().max().unwrap_or(1);
    let (full, _) = runtime.block_on(closed(WARM_UP, settings.each, three.clients(clients)));
    let opened = Arc::new(std::sync::Mutex::new(Latencies::default()));
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    // PAP costs an Argon2id computation: a few a second among the others.
    let pap = runtime.spawn(three.pap(stop.clone()));
    let sessions = three.timed_clients(clients, opened.clone());
    let rate = full / 2.0;
    let seconds = settings.each * 4;
    runtime.block_on(paced(rate, seconds, sessions, done.clone()));
    stop.store(true, Ordering::Relaxed);
    let mut pap = runtime.block_on(pap).unwrap();
    let mut opened = opened.lock().unwrap();
    println!("\n## A decision on a user at half load\n");
    println!("Full is {full:.0} commands/s with {clients} clients; {rate:.0} were asked for, {:.0} done.\n", {
        done.load(Ordering::Relaxed) as f64 / seconds.as_secs_f64()
    });
    println!("| protocol | decisions | p50 ms | p99 ms | max ms |\n|---|---|---|---|---|");
    for (name, seen) in [("MS-CHAPv2", &mut *opened), ("PAP (Argon2id, 19 MiB)", &mut pap)] {
        let count = seen.count();
        println!("| {name} | {count} | {:.1} | {:.1} | {:.1} |", seen.ms(0.5), seen.ms(0.99), seen.ms(1.0));
    }
}
