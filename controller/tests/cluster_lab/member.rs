//! A controller's process, and what starting it again takes.

use std::fs::{File, read_to_string};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sallyport_controller::{Config, Controller, Error, Formation, PasswordsConfig, Software, Start};
use tokio::time::Instant;

use super::common;
use super::lab::wait_for;
use super::place::Place;

/// Set for a child: its state folder.
const STATE: &str = "SALLYPORT_CLUSTER_STATE";
/// Set for a child: where it listens.
const LISTEN: &str = "SALLYPORT_CLUSTER_LISTEN";
/// Set for a child that joins: `HOST:PORT TOKEN`.
const JOIN: &str = "SALLYPORT_CLUSTER_JOIN";
/// Set for a child that takes itself for an older software: its level.
const LEVEL: &str = "SALLYPORT_CLUSTER_LEVEL";
/// The level of the older software.
const OLD_LEVEL: u32 = 1;
/// Debian's package `faketime`.
const FAKETIME: &str = "faketime/libfaketimeMT.so.1";
/// Snapshots and purges in the middle of it all.
const SNAPSHOT_EVERY: u64 = 100;
/// How long a port that something else has is waited for.
const PORT_PATIENCE: Duration = Duration::from_secs(60);
/// Half an hour: longer than any test, shorter than the steps of clocks that must not end a session.
const HALF_AN_HOUR_MS: u32 = 1_800_000;

/// What a member's process runs.
#[derive(Clone, Debug)]
pub(crate) enum Program {
    /// This test as a child.
    Own,
    /// The same, taking itself for an older software: what is beyond its level it does not know.
    Old,
    /// A `sallyport` binary.
    Other(PathBuf),
}

fn config(listen: SocketAddr) -> Config {
    let mut config = common::config();
    config.listen = listen;
    config.metrics_listen = None;
    config.passwords = PasswordsConfig { argon2_memory_kib: 8, argon2_passes: 1, argon2_parallel: 2 };
    config.storage.snapshot_every = SNAPSHOT_EVERY;
    config.gateways.timeout_ms = HALF_AN_HOUR_MS;
    config.gateways.report_ms = HALF_AN_HOUR_MS;
    config.gateways.setup_ms = HALF_AN_HOUR_MS;
    config
}

/// The same for a binary.
fn config_text(listen: SocketAddr) -> String {
    format!(
        "[controller]\nlisten = \"{listen}\"\nmetrics_listen = \"\"\n\
         [controller.passwords]\nargon2_memory_kib = 8\nargon2_passes = 1\nargon2_parallel = 2\n\
         [controller.storage]\nsnapshot_every = {SNAPSHOT_EVERY}\n\
         [controller.gateways]\ntimeout_ms = {HALF_AN_HOUR_MS}\nreport_ms = {HALF_AN_HOUR_MS}\nsetup_ms = {HALF_AN_HOUR_MS}\n"
    )
}

/// A child's life. Not a test of its own: without the variables that [`Member::start`] sets, it is over at once.
#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stdout, reason = "the parent reads it")]
async fn the_child() {
    let Some(state) = std::env::var_os(STATE).map(PathBuf::from) else { return };
    super::lab::end_with_the_parent();
    let filter = std::env::var("SALLYPORT_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).init();
    let listen = std::env::var(LISTEN).expect("an address").parse().expect("an address");
    let formation = match std::env::var(JOIN) {
        Ok(join) => {
            let (address, token) = join.split_once(' ').expect("address and token");
            Formation::Join { addresses: vec![address.into()], token: token.to_owned().into(), learner: false }
        }
        Err(_) => Formation::Found,
    };
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("signals");
    let begun = Instant::now();
    let running = loop {
        let mut start = Start::new(formation.clone());
        if let Ok(level) = std::env::var(LEVEL) {
            start.software = Software { version: "0.0.9".into(), level: level.parse().expect("a number") };
        }
        match Controller::start_as(config(listen), &state, start).await {
            Ok(running) => break running,
            // On the loopback others may have had the port while this one was away.
            Err(Error::Listen { source, .. })
                if source.kind() == ErrorKind::AddrInUse && begun.elapsed() < PORT_PATIENCE =>
            {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return println!("\nENDED {error}"),
        }
    };
    println!("\nREADY");
    tokio::select! {
        error = running.wait() => println!("\nENDED {error}"),
        _ = terminate.recv() => println!("\nTERMINATED"),
    }
    running.shutdown().await;
}

/// A controller's process.
#[derive(Debug)]
pub(crate) struct Member {
    /// From 1; ids are in the order of joining, so it is the id too.
    pub(crate) number: u32,
    pub(crate) state: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) join: Option<String>,
    pub(crate) program: Program,
    /// A file with what libfaketime adds to its clock.
    clock: Option<PathBuf>,
    logs: Vec<PathBuf>,
    child: Option<Child>,
}

impl Member {
    /// Member `number`, which keeps everything in `dir`.
    pub(crate) fn new(dir: &Path, number: u32, place: &Place) -> Self {
        Self {
            number,
            state: dir.join(number.to_string()),
            listen: place.listen(number),
            join: None,
            program: Program::Own,
            clock: None,
            logs: Vec::new(),
            child: None,
        }
    }

    /// From its next start on its clock can be set.
    pub(crate) fn with_clock(&mut self) {
        let file = self.state.with_extension("clock");
        std::fs::write(&file, "+0").expect("writes");
        self.clock = Some(file);
    }

    /// Sets the clock so many seconds before or after the right time, if it has one of its own; its process notices within a second.
    pub(crate) fn set_clock(&self, offset_s: i64) {
        let Some(file) = &self.clock else { return };
        let new = file.with_extension("new");
        std::fs::write(&new, format!("{offset_s:+}")).expect("writes");
        std::fs::rename(&new, file).expect("renames");
    }

    /// Starts it, without waiting for anything.
    pub(crate) fn start(&mut self, place: &Place) {
        assert!(self.child.is_none(), "member {} runs already", self.number);
        let log = self.state.with_extension(format!("log{}", self.logs.len()));
        let out = File::create(&log).expect("a log");
        self.logs.push(log);
        let mut command = match &self.program {
            Program::Own | Program::Old => {
                let mut command = match &self.clock {
                    None => place.command(self.number, &std::env::current_exe().expect("this test")),
                    Some(file) => {
                        // Not in the way of what starts it.
                        let mut command = place.command(self.number, Path::new("env"));
                        command.arg(format!("LD_PRELOAD={}", faketime().expect("looked for before").display()));
                        command.arg(format!("FAKETIME_TIMESTAMP_FILE={}", file.display()));
                        command.args(["FAKETIME_CACHE_DURATION=1", "DONT_FAKE_MONOTONIC=1"]);
                        command.arg(std::env::current_exe().expect("this test"));
                        command
                    }
                };
                command.args(["--exact", "member::the_child", "--nocapture"]).env(STATE, &self.state);
                command.env(LISTEN, self.listen.to_string());
                if let Some(join) = &self.join {
                    command.env(JOIN, join);
                }
                if matches!(self.program, Program::Old) {
                    command.env(LEVEL, OLD_LEVEL.to_string());
                }
                command
            }
            Program::Other(binary) => {
                let config = self.state.with_extension("toml");
                std::fs::write(&config, config_text(self.listen)).expect("writes");
                let mut command = place.command(self.number, binary);
                command.arg("--state").arg(&self.state).arg("controller").arg("--config").arg(config);
                // Ignored where there is a state.
                match self.join.as_deref().and_then(|join| join.split_once(' ')) {
                    Some((address, token)) => command.args(["--join", address]).env("SALLYPORT_TOKEN", token),
                    None => command.arg("--bootstrap"),
                };
                command
            }
        };
        command.stdin(Stdio::piped()).stdout(out.try_clone().expect("a handle")).stderr(out);
        self.child = Some(command.spawn().expect("starts the child"));
    }

    /// Waits until it answers for the first time.
    pub(crate) async fn ready(&mut self) {
        let number = self.number;
        wait_for(&format!("member {number} to be ready"), || {
            let log = self.log();
            let ready = log.contains("\nREADY") || log.contains("controller ready"); // a child's word, and the binary's
            if let Some(status) = self.has_ended() {
                panic!("member {number} ended by itself ({status}):\n{}", self.tail());
            }
            async move { ready.then_some(()) }
        })
        .await;
    }

    fn pid(&self) -> Pid {
        let child = self.child.as_ref().expect("runs");
        Pid::from_raw(i32::try_from(child.id()).expect("an id"))
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("sends a signal");
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("runs");
        child.kill().expect("kills");
        child.wait().expect("dies");
    }

    /// SIGTERM, and waits for the end of it.
    pub(crate) async fn terminate(&mut self) {
        self.signal(Signal::SIGTERM);
        self.ended().await;
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let what = format!("the end of member {}", self.number);
        let status = wait_for(&what, || {
            let status = self.has_ended();
            async move { status }
        })
        .await;
        self.child = None;
        status
    }

    /// How it ended, if it has.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().expect("waits"))
    }

    /// What its process has said since it was last started.
    pub(crate) fn log(&self) -> String {
        self.logs.last().and_then(|log| read_to_string(log).ok()).unwrap_or_default()
    }

    /// How often it has found the leader silent since it was last started, whatever came of it.
    pub(crate) fn doubts(&self) -> usize {
        self.log().lines().filter(|line| line.contains("the leader is silent")).count()
    }

    /// Whether it has stood for election by itself since it was last started.
    pub(crate) fn has_stood(&self) -> bool {
        self.log().contains("standing for election")
    }

    /// The last lines of the last two logs.
    pub(crate) fn tail(&self) -> String {
        let mut text = String::new();
        for log in self.logs.iter().rev().take(2).rev() {
            let all = read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = all.lines().collect();
            text += &format!("== {}\n{}\n", log.display(), lines[lines.len().saturating_sub(40)..].join("\n"));
            let said = lines.iter().filter(|l| ["READY", "TERMINATED"].contains(l) || l.starts_with("ENDED"));
            text += &format!("it has said: {}\n", said.copied().collect::<Vec<_>>().join(", "));
        }
        text
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The library that shows a process another time.
pub(crate) fn faketime() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok).map(|e| e.path());
    folders.map(|folder| folder.join(FAKETIME)).find(|file| file.exists())
}
