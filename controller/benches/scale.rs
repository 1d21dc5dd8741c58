//! A large cluster's state on each engine: memory, disk, and how long a controller takes to start with it:
//! `cargo bench -p sallyport-controller --bench scale`.
//!
//! The state is made by commands as a controller applies them: users, machine certificates and sessions, with the answers that
//! are remembered; the log holds as many entries as there may be between two snapshots. Then a new process opens it: first with
//! nothing of its files in memory, then again. In the end a copy of the state (a snapshot; a backup is made the same way) is
//! written while commands go on, and the longest that one of them waits is shown.
//!
//! `SALLYPORT_BENCH_CERTIFICATES` (default 1,000,000), `SALLYPORT_BENCH_SESSIONS` (default 100,000), `SALLYPORT_BENCH_ENGINES`
//! (default "sled redb"), `TMPDIR` for the disk.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::sync::Arc;
use std::time::Instant;

use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::{CommittedLeaderId, Entry, EntryPayload, LogId, RaftSnapshotBuilder};
use sallyport_controller::Engine;
use sallyport_controller::raft::kv::{Kv, KvError};
use sallyport_controller::raft::{LogStore, StateMachine, TypeConfig, store};
use sallyport_controller::state::{
    Action, AddPool, AddUser, Bootstrap, CertificateRow, Command, CommandBatch, Credentials, OpenSession, Outcome,
    RecordCertificate, RegisterGateway, SessionsUp,
};
use sallyport_proto::v1;

/// Set for the process that opens a state: its folder and its engine.
const OPEN: &str = "SALLYPORT_BENCH_OPEN";
/// Commands in an entry, as when many arrive at once.
const BATCH: usize = 256;
/// Entries in the log: those between two snapshots and those that are kept behind one.
const LOG: u64 = 11_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

fn opened(path: &Path, engine: Engine) -> Arc<dyn Kv> {
    loop {
        match store::open(path, engine) {
            Err(KvError::Locked { .. }) => std::thread::yield_now(),
            other => return other.unwrap(),
        }
    }
}

/// Makes entries of commands.
struct Filler {
    machine: StateMachine,
    index: u64,
    commands: Vec<Command>,
    requests: u64,
}

impl Filler {
    fn entry(&mut self, commands: Vec<Command>) -> Entry<TypeConfig> {
        self.index += 1;
        let log_id = LogId::new(CommittedLeaderId::new(1, 1), self.index);
        Entry { log_id, payload: EntryPayload::Normal(CommandBatch { commands }.into()) }
    }

    async fn put(&mut self, action: Action) {
        self.requests += 1;
        let mut request_id = vec![0; 8];
        request_id.extend_from_slice(&self.requests.to_be_bytes());
        let at_ms = 1_700_000_000_000 + self.requests / 10;
        self.commands.push(Command { request_id, at_ms, action: Some(action) });
        if self.commands.len() == BATCH {
            self.apply().await;
        }
    }

    async fn apply(&mut self) -> Vec<Outcome> {
        let commands = std::mem::take(&mut self.commands);
        let entry = self.entry(commands);
        let replies = self.machine.apply([entry]).await.unwrap().remove(0).replies;
        replies.into_iter().map(|r| r.outcome.unwrap()).collect()
    }
}

fn serial(n: u64) -> String {
    // Spread as random ones are, all 16 bytes long.
    let high = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{high:016x}{n:016x}")
}

fn certificate(n: u64) -> CertificateRow {
    CertificateRow {
        serial: serial(n),
        profile: v1::CertificateProfile::Machine.into(),
        name: format!("laptop-{n:07}.example.org"),
        sans: vec![format!("laptop-{n:07}.example.org")],
        not_before_ms: 1_700_000_000_000,
        not_after_ms: 1_800_000_000_000,
        fingerprint: n.to_be_bytes().repeat(4),
        ..CertificateRow::default()
    }
}

async fn fill(path: &Path, engine: Engine, certificates: u64, sessions: u64) {
    let kv = opened(&path.join("store"), engine);
    let mut log = LogStore::new(kv.clone()).unwrap();
    let machine = StateMachine::open(kv.clone(), &path.join("snapshots")).unwrap();
    let mut filler = Filler { machine, index: 0, commands: Vec::new(), requests: 0 };
    let root = CertificateRow { profile: v1::CertificateProfile::Root.into(), ..certificate(u64::MAX) };
    let bootstrap = Bootstrap {
        cluster_id: vec![1; 16],
        root_certificate: vec![2; 500],
        sealed_root_key: vec![3; 100],
        record: Some(root),
        member: None,
    };
    filler.put(Action::Bootstrap(bootstrap)).await;
    let gateway = RegisterGateway { name: "gw".into(), boot_id: vec![1; 16], ..RegisterGateway::default() };
    filler.put(Action::RegisterGateway(gateway)).await;
    let networks = vec!["10.0.0.0/8".parse().unwrap()];
    filler.put(Action::AddPool(AddPool { name: "office".into(), networks, ..AddPool::default() })).await;
    let users = sessions / 2 + 1;
    let user = |n: u64| format!("user-{:06}", n % users);
    for n in 0..users {
        let credentials = Credentials {
            sealed_nt_hash: vec![n as u8; 48],
            sealed_verifier: vec![n as u8; 130],
            sealed_password: Vec::new(),
        };
        let (key, credentials) = (user(n), Some(credentials));
        let more = AddUser { max_sessions: 10, enabled: true, ..AddUser::default() };
        filler.put(Action::AddUser(AddUser { name: key.clone(), key, credentials, ..more })).await;
    }
    filler.apply().await;
    let shared = filler.machine.shared();
    let epoch = shared.read().gateways.get(&1).unwrap().epoch;
    for n in 0..certificates {
        filler
            .put(Action::RecordCertificate(RecordCertificate { record: Some(certificate(n)), answer: Vec::new() }))
            .await;
    }
    for n in 0..sessions {
        let version = shared.read().users.get(&user(n)).unwrap().credentials_version;
        let session = OpenSession {
            session_id: n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            user: user(n),
            credentials_version: version,
            slot: 1,
            epoch,
            session_key: n,
            remote: format!("192.0.2.{}:4500", n % 250),
            attempt_id: n.to_be_bytes().to_vec(),
            ..OpenSession::default()
        };
        filler.put(Action::OpenSession(session)).await;
    }
    filler.apply().await;
    let ids: Vec<u64> = shared.read().sessions.iter().map(|(id, _)| *id).collect();
    for ids in ids.chunks(1_000) {
        filler.put(Action::SessionsUp(SessionsUp { slot: 1, epoch, session_ids: ids.to_vec() })).await;
    }
    filler.apply().await;
    {
        let state = shared.read();
        assert_eq!((state.certificates.len() as u64, state.sessions.len() as u64), (certificates + 1, sessions));
    }
    // What the log still holds was applied long ago.
    let first = filler.index.saturating_sub(LOG) + 1;
    let last = LogId::new(CommittedLeaderId::new(1, 1), filler.index);
    let at = Command { request_id: vec![7; 16], at_ms: 5, action: None };
    let revoke = Action::RecordCertificate(RecordCertificate { record: Some(certificate(0)), answer: Vec::new() });
    let entries: Vec<_> = (first..=filler.index)
        .map(|index| Entry {
            log_id: LogId::new(CommittedLeaderId::new(1, 1), index),
            payload: EntryPayload::Normal(
                CommandBatch { commands: vec![Command { action: Some(revoke.clone()), ..at.clone() }] }.into(),
            ),
        })
        .collect();
    for entries in entries.chunks(100) {
        log.blocking_append(entries.to_vec()).await.unwrap();
    }
    log.save_committed(Some(last)).await.unwrap();
    kv.sync().unwrap();
}

/// A line of `/proc/self/status`, MB.
fn memory(what: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap_or_default();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) / 1_000
}

/// What a new process does with the folder of a state.
async fn open_it(path: &Path, engine: Engine, copy: bool) {
    let begun = Instant::now();
    let kv = store::open(&path.join("store"), engine).unwrap();
    let opened = begun.elapsed().as_secs_f64();
    let mut log = LogStore::new(kv.clone()).unwrap();
    log.get_log_state().await.unwrap();
    let mut machine = StateMachine::open(kv, &path.join("snapshots")).unwrap();
    let all = begun.elapsed().as_secs_f64();
    let (rss, peak) = (memory("VmRSS"), memory("VmHWM"));
    print!("{opened:>9.2}{:>9.2}{all:>9.2}{rss:>9}{peak:>9}", all - opened);
    if !copy {
        println!();
        return;
    }
    let (last, _) = machine.applied_state().await.unwrap();
    let mut filler = Filler { machine, index: last.unwrap().index, commands: Vec::new(), requests: u64::MAX / 2 };
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
            let record = CertificateRow { serial: serial(u64::MAX / 2 + n), ..certificate(n) };
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
    println!("{:>9.1}{:>9.1}{taken:>9.1}{:>9}", longest[0], longest[1], memory("VmHWM"));
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

#[tokio::main]
async fn main() {
    if let Some(open) = std::env::var_os(OPEN) {
        let words: Vec<String> = open.to_str().unwrap().split(' ').map(str::to_owned).collect();
        let engine = Engine::ALL.into_iter().find(|e| e.name() == words[0]).unwrap();
        return open_it(Path::new(&words[2]), engine, words[1] == "copy").await;
    }
    let certificates = number("SALLYPORT_BENCH_CERTIFICATES", 1_000_000);
    let sessions = number("SALLYPORT_BENCH_SESSIONS", 100_000);
    let engines = std::env::var("SALLYPORT_BENCH_ENGINES").unwrap_or_else(|_| "sled redb".into());
    println!("{sessions} sessions, {certificates} certificates, {} users; {LOG} entries in the log", sessions / 2 + 1);
    println!(
        "{:<8}{:<6}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
        "engine",
        "files",
        "fill s",
        "disk MB",
        "open s",
        "load s",
        "start s",
        "MB",
        "peak MB",
        "alone ms",
        "copy ms",
        "copy s",
        "peak MB"
    );
    for engine in Engine::ALL.into_iter().filter(|e| engines.split(' ').any(|n| n == e.name())) {
        let dir = tempfile::tempdir().unwrap();
        let begun = Instant::now();
        fill(dir.path(), engine, certificates, sessions).await;
        let filled = begun.elapsed().as_secs_f64();
        for (place, what) in ["cold", "warm"].into_iter().enumerate() {
            if place == 0 {
                forget(dir.path());
            }
            let disk: u64 = files(dir.path()).iter().map(|f| fs::metadata(f).unwrap().len()).sum();
            print!("{:<8}{what:<6}{filled:>9.1}{:>9}", engine.name(), disk / 1_000_000);
            std::io::Write::flush(&mut std::io::stdout()).unwrap();
            let copy = if place == 1 { "copy" } else { "open" };
            let open = format!("{} {copy} {}", engine.name(), dir.path().display());
            let status = Process::new(std::env::current_exe().unwrap()).env(OPEN, open).status().unwrap();
            assert!(status.success());
        }
    }
}
