//! The machines, what they run, and what is known of it all.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::disk::Disk;
use super::executor::{self, OUTSIDE, Random};
use super::ledger::{History, Ledger};
use super::network::{Net, Wire};
use super::{chaos, clients};
use crate::clock::Clock;
use crate::config::Engine;
use crate::raft::membership::{Change, Membership};
use crate::raft::node::Room;
use crate::raft::{LogId, LogTime, Node, NodeOptions, Vote};
use crate::software::Software;
use crate::state::{Action, ClearPsk, Command};

/// Milliseconds between two heartbeats.
const HEARTBEAT_MS: u64 = 100;
/// How often the clock goes on.
const CLOCK: Duration = Duration::from_millis(20);
/// openraft ends a leader that wants to send a snapshot to one who has just told it of a higher vote, in the moment before it learns of
/// that. Whoever runs a controller starts it again.
const GIVES_UP: &str = "replication channel closed";
/// The last lines of what happened that are kept.
const LINES: usize = 400;
/// How long a healed group may take until all is as it must be.
const RECOVERY: Duration = Duration::from_secs(90);

/// A fault that is put in on purpose, to see whether it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Planted {
    /// The disk says that it has synced, and syncs later.
    AckBeforeSync,
    /// Reads are answered from whatever the asked node has.
    ReadWithoutIndex,
    /// A snapshot does not hold which requests were answered.
    AnswersNotInSnapshots,
    /// A power failure takes the vote along.
    VoteForgotten,
    /// A client that asks again does not say that it does.
    RetryWithNewId,
    /// A leader that was started anew leads on, as openraft would have it.
    LeadOn,
    /// A leader counts an entry that it has sent ahead of its disk as if it were there.
    CountsUnsynced,
    /// Whoever misses the leader stands for election without asking first.
    NoPreVote,
}

/// What is simulated.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) seed: u64,
    pub(super) planted: Option<Planted>,
    /// Nothing befalls the group but that one follower has a slow line.
    pub(super) slow_line: bool,
    /// Whether each line is printed as it comes.
    pub(super) print: bool,
}

/// How it went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) violation: Option<String>,
    /// Of everything that happened, in order.
    pub(super) trace: u64,
    pub(super) lines: Vec<String>,
    pub(super) figures: Figures,
}

/// What came to pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Figures {
    pub(super) entries: u64,
    pub(super) leaders: u64,
    pub(super) crashes: u64,
    pub(super) snapshots: u64,
    pub(super) reads: u64,
    pub(super) writes: u64,
    pub(super) members: u64,
    pub(super) virtual_ms: u64,
    pub(super) steps: u64,
}

impl std::ops::Add for Figures {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            entries: self.entries + other.entries,
            leaders: self.leaders + other.leaders,
            crashes: self.crashes + other.crashes,
            snapshots: self.snapshots + other.snapshots,
            reads: self.reads + other.reads,
            writes: self.writes + other.writes,
            members: self.members + other.members,
            virtual_ms: self.virtual_ms + other.virtual_ms,
            steps: self.steps + other.steps,
        }
    }
}

struct Machine {
    disk: Arc<Disk>,
    /// 0 while it is off.
    process: u64,
    node: Option<Arc<Node>>,
}

#[derive(Default)]
struct Trace {
    hash: u64,
    lines: VecDeque<String>,
}

/// All of it.
pub(super) struct World {
    pub(super) settings: Settings,
    /// Folder of the snapshots.
    dir: tempfile::TempDir,
    machines: Mutex<BTreeMap<u64, Machine>>,
    net: Mutex<Net>,
    pub(super) random: Mutex<Random>,
    ledger: Mutex<Ledger>,
    history: Mutex<History>,
    trace: Mutex<Trace>,
    violation: Mutex<Option<String>>,
    calm: AtomicBool,
    /// Of all machines.
    clock: Clock,
    crashes: Mutex<u64>,
    members: Mutex<u64>,
    snapshot_every: u64,
    room: Room,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs one seed.
pub(super) fn run(settings: &Settings) -> Outcome {
    let (settings, seed) = (settings.clone(), settings.seed);
    executor::run(seed, async move {
        let world = World::new(settings);
        world.live().await;
        world.outcome()
    })
    .unwrap_or_else(|| Outcome {
        violation: Some("it goes round in circles, or nobody waits for anything any more".into()),
        ..Outcome::default()
    })
}

impl World {
    fn new(settings: Settings) -> Arc<Self> {
        let mut random = Random::new(settings.seed ^ 0x5a11_7907);
        // Snapshots are synced files: in memory where that can be had.
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let snapshot_every = match settings.slow_line && settings.seed.is_multiple_of(2) {
            true => 100_000, // it catches up by the log
            false => random.between(10, 60),
        };
        Arc::new(Self {
            settings,
            dir: dir.expect("temporary folder"),
            machines: Mutex::default(),
            net: Mutex::new(Net::new(Random::new(random.next()))),
            ledger: Mutex::new(Ledger::new()),
            history: Mutex::default(),
            trace: Mutex::default(),
            violation: Mutex::default(),
            calm: AtomicBool::new(false),
            clock: Clock::manual(1_700_000_000_000),
            crashes: Mutex::default(),
            members: Mutex::default(),
            snapshot_every,
            room: Room { keep: random.between(1, 30), behind: random.between(1, 200) as usize },
            random: Mutex::new(random),
        })
    }

    /// A group is made, suffers, heals, and must be whole then.
    async fn live(self: &Arc<Self>) {
        let clock = self.clock.clone();
        executor::spawn_in(OUTSIDE, async move {
            loop {
                executor::sleep(CLOCK).await;
                clock.advance(CLOCK);
            }
        });
        let voters = if lock(&self.random).permille(300) { 5 } else { 3 };
        self.add_machine(1);
        self.power_on(1, true);
        if !self.reach("the first node leads", || async { self.leader().is_some() }).await {
            return;
        }
        // The first command of a group gives its log a time.
        let first = Command { request_id: vec![0; 16], at_ms: 0, action: Some(Action::ClearPsk(ClearPsk {})) };
        if let Some((_, _, node)) = self.leader()
            && let Err(e) = node.propose(first).await
        {
            return self.violated(format!("the first command: {e}"));
        }
        for id in 2..=voters {
            self.add_machine(id);
            self.power_on(id, false);
        }
        let formed = self.reach("the group is formed", || async {
            for id in 2..=voters {
                let members = self.members();
                if !members.addresses.contains_key(&id) {
                    self.change(Change::AddLearner { id, address: address(id) }).await;
                } else if !members.voters.contains(&id) {
                    self.change(Change::Promote(BTreeSet::from([id]))).await;
                }
            }
            self.members().voters.len() as u64 == voters
        });
        if !formed.await {
            return;
        }
        let clients: Vec<_> = (0..4).map(|n| executor::spawn_in(OUTSIDE, clients::run(self.clone(), n))).collect();
        let term = match self.settings.slow_line {
            true => chaos::slow_line(self).await,
            false => {
                chaos::run(self).await;
                None
            }
        };
        self.calm.store(true, Ordering::Relaxed);
        for client in clients {
            if executor::timeout(RECOVERY, client).await.is_none() {
                self.violated("a client waits for an answer although all is well again".into());
            }
            if self.is_over() {
                return;
            }
        }
        let whole = self.reach("all members stand at the same entry", || async {
            if self.members().changing {
                self.change(Change::Finish).await;
            }
            self.keeps(term);
            self.is_whole()
        });
        whole.await;
    }

    /// Nobody has stood for election after `term`.
    pub(super) fn keeps(&self, term: Option<u64>) {
        let now = self.ids().into_iter().filter_map(|id| Some(self.node(id)?.1.figures().term)).max();
        if let (Some(term), Some(now)) = (term, now)
            && now > term
        {
            self.violated(format!("the term rose from {term} to {now}, though no leader failed"));
        }
    }

    async fn reach<F: Future<Output = bool>>(&self, what: &str, mut is: impl FnMut() -> F) -> bool {
        let until = executor::now() + RECOVERY;
        while executor::now() < until && !self.is_over() {
            if is().await {
                return true;
            }
            executor::sleep(Duration::from_millis(20)).await;
        }
        self.violated(format!("not within {} s: {what}", RECOVERY.as_secs()));
        false
    }

    fn outcome(&self) -> Outcome {
        let steps = executor::steps();
        let figures = {
            let (ledger, history) = (lock(&self.ledger), lock(&self.history));
            Figures {
                entries: ledger.len(),
                leaders: ledger.terms(),
                crashes: *lock(&self.crashes),
                snapshots: ledger.installed,
                reads: history.reads,
                writes: history.writes,
                members: *lock(&self.members),
                virtual_ms: executor::elapsed_ms(),
                steps,
            }
        };
        // What holds the world is held by it.
        let machines = std::mem::take(&mut *lock(&self.machines));
        machines.values().for_each(|m| executor::kill(m.process));
        let trace = std::mem::take(&mut *lock(&self.trace));
        let violation = lock(&self.violation).take();
        Outcome { violation, trace: trace.hash, lines: trace.lines.into(), figures }
    }

    /// Notes what happens.
    pub(super) fn trace(&self, line: impl FnOnce() -> String) {
        let line = format!("{:>7} ms {}", executor::elapsed_ms(), line());
        let mut trace = lock(&self.trace);
        let mut hasher = DefaultHasher::new();
        (trace.hash, executor::now(), &line).hash(&mut hasher);
        trace.hash = hasher.finish();
        if self.settings.print {
            super::say(&line);
        }
        if trace.lines.len() == LINES {
            trace.lines.pop_front();
        }
        trace.lines.push_back(line);
    }

    /// Something that must not be. The first one counts.
    pub(super) fn violated(&self, what: String) {
        self.trace(|| format!("VIOLATION: {what}"));
        lock(&self.violation).get_or_insert(what);
    }

    fn hold(&self, result: Result<(), String>) {
        if let Err(what) = result {
            self.violated(what);
        }
    }

    /// Whether there is nothing more to find out.
    pub(super) fn is_over(&self) -> bool {
        for panic in executor::take_panics() {
            self.violated(format!("a task panicked: {panic}"));
        }
        lock(&self.violation).is_some()
    }

    /// Whether everything works by now and shall end.
    pub(super) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    pub(super) fn net(&self) -> MutexGuard<'_, Net> {
        lock(&self.net)
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        lock(&self.history)
    }

    pub(super) fn random(&self) -> MutexGuard<'_, Random> {
        lock(&self.random)
    }

    /// A node applied entries; see [`Ledger::applied`].
    pub(super) fn applied(
        &self,
        id: u64,
        from: u64,
        last: LogId,
        sum: u64,
        vote: &Vote,
        entry: &dyn Fn(u64) -> Option<Vec<u8>>,
    ) {
        self.trace(|| format!("{id} applies {from} to {last}, state {sum:016x}"));
        let result = lock(&self.ledger).applied(id, from, last, sum, *vote.leader_id(), entry);
        self.hold(result);
    }

    /// A process speaks as a leader.
    pub(super) fn leads(&self, id: u64, process: u64, vote: Vote) {
        let Some(disk) = self.disk(id) else { return };
        let lead_on = self.settings.planted == Some(Planted::LeadOn); // what comes of it shall show
        let process = if lead_on { 0 } else { process };
        match lock(&self.ledger).leads(id, process, &vote, |entries| disk.lacks(entries)) {
            Ok(false) => {}
            Ok(true) => self.trace(|| format!("{id} leads by {vote}")),
            Err(what) => self.violated(what),
        }
    }

    pub(super) fn ids(&self) -> Vec<u64> {
        lock(&self.machines).keys().copied().collect()
    }

    /// Its process, 0 while it is off.
    pub(super) fn process(&self, id: u64) -> u64 {
        lock(&self.machines).get(&id).map_or(0, |m| m.process)
    }

    pub(super) fn disk(&self, id: u64) -> Option<Arc<Disk>> {
        lock(&self.machines).get(&id).map(|m| m.disk.clone())
    }

    /// Whether a process still runs.
    pub(super) fn is_powered(&self, id: u64, process: u64) -> bool {
        lock(&self.machines).get(&id).is_some_and(|m| m.process == process && !m.disk.has_failed())
    }

    /// A node that runs.
    pub(super) fn node(&self, id: u64) -> Option<(u64, Arc<Node>)> {
        let machines = lock(&self.machines);
        let machine = machines.get(&id).filter(|m| !m.disk.has_failed())?;
        Some((machine.process, machine.node.clone()?))
    }

    pub(super) fn add_machine(self: &Arc<Self>, id: u64) {
        let disk = Disk::new(id, self);
        lock(&self.machines).insert(id, Machine { disk, process: 0, node: None });
        *lock(&self.members) += 1;
    }

    /// A machine is switched off and thrown away.
    pub(super) fn scrap(&self, id: u64) {
        self.power_off(id);
        lock(&self.machines).remove(&id);
    }

    pub(super) fn power_on(self: &Arc<Self>, id: u64, found: bool) {
        let process = {
            let mut machines = lock(&self.machines);
            let Some(machine) = machines.get_mut(&id).filter(|m| m.process == 0) else { return };
            machine.process = executor::new_process();
            machine.process
        };
        let Some(disk) = self.disk(id) else { return };
        self.trace(|| format!("{id} is started"));
        let (kv, log) = disk.mount(process);
        let dir = self.dir.path().join(id.to_string());
        let options = NodeOptions {
            id,
            dir: dir.clone(),
            engine: Engine::Sled,
            snapshot_every: self.snapshot_every,
            heartbeat_ms: HEARTBEAT_MS,
            transport: Arc::new(Wire::new(self.clone(), id, process)),
            found: found.then(|| address(id)),
            time: LogTime::new(self.clock.clone()),
            software: Software::current(),
        };
        let world = self.clone();
        executor::spawn_in(process, async move {
            let started = async {
                if world.settings.planted != Some(Planted::LeadOn) {
                    log.give_up_lead(id).map_err(|e| e.to_string())?;
                }
                let node = Node::start_with(kv, log, dir.join("store"), &options, world.room).await;
                node.map_err(|e| e.to_string())
            };
            match started.await {
                Ok(node) => {
                    let health = node.health();
                    if let Some(machine) = lock(&world.machines).get_mut(&id).filter(|m| m.process == process) {
                        machine.node = Some(Arc::new(node));
                    }
                    world.watch(id, process, health).await;
                }
                Err(e) if world.is_powered(id, process) => world.violated(format!("node {id} does not start: {e}")),
                Err(_) => {}
            }
        });
    }

    /// A node may fail only with its disk.
    async fn watch(
        self: &Arc<Self>,
        id: u64,
        process: u64,
        mut health: tokio::sync::watch::Receiver<crate::raft::Health>,
    ) {
        while health.changed().await.is_ok() {
            let now = health.borrow_and_update().clone();
            let crate::raft::Health::Failed { cause, .. } = now else { continue };
            if !self.is_powered(id, process) {
                continue;
            }
            if cause.contains(GIVES_UP) {
                let world = self.clone();
                executor::spawn_in(OUTSIDE, async move {
                    world.power_off(id);
                    world.power_on_later(id);
                });
            } else {
                self.violated(format!("node {id} failed: {cause}"));
            }
        }
    }

    /// The power of a machine fails: everything ends where it is.
    pub(super) fn power_off(&self, id: u64) {
        let Some((disk, process)) = lock(&self.machines).get(&id).map(|m| (m.disk.clone(), m.process)) else { return };
        if process == 0 {
            return;
        }
        self.trace(|| format!("{id} loses power"));
        *lock(&self.crashes) += 1;
        executor::kill(process);
        let forget_vote = self.settings.planted == Some(Planted::VoteForgotten);
        let mut random = Random::new(lock(&self.random).next());
        disk.crash(&mut random, forget_vote);
        let node = lock(&self.machines).get_mut(&id).and_then(|machine| {
            machine.process = 0;
            machine.node.take()
        });
        drop(node);
    }

    /// The power failed at a call to the disk.
    pub(super) fn power_failed(self: &Arc<Self>, id: u64, _life: u64) {
        if self.disk(id).is_some_and(|d| d.has_failed()) {
            self.power_off(id);
            self.power_on_later(id);
        }
    }

    /// Starts a machine again, soon or not so soon.
    pub(super) fn power_on_later(self: &Arc<Self>, id: u64) {
        let delay = {
            let mut random = lock(&self.random);
            if random.permille(500) { random.millis(1, 120) } else { random.millis(100, 3_000) }
        };
        let world = self.clone();
        executor::spawn_in(OUTSIDE, async move {
            executor::sleep(delay).await;
            world.power_on(id, false);
        });
    }

    /// Who leads, in the eyes of those who believe that they do.
    pub(super) fn leader(&self) -> Option<(u64, u64, Arc<Node>)> {
        let nodes: Vec<_> = self.ids().into_iter().filter_map(|id| Some((id, self.node(id)?))).collect();
        let leading = nodes.into_iter().filter(|(_, (_, node))| node.leads());
        leading.map(|(id, (process, node))| (id, process, node)).max_by_key(|(_, _, node)| node.figures().term)
    }

    /// Who takes part, as the leader knows it.
    pub(super) fn members(&self) -> Membership {
        self.leader().map(|(_, _, node)| node.membership()).unwrap_or_default()
    }

    /// Asks the leader for a change of the members; `false` if it came to nothing, as far as is known.
    pub(super) async fn change(self: &Arc<Self>, change: Change) -> bool {
        let Some((id, process, node)) = self.leader() else { return false };
        self.trace(|| format!("{id} is asked for {change:?}"));
        let changed = executor::spawn_in(process, async move { node.change(change).await.is_ok() });
        executor::timeout(Duration::from_secs(3), changed).await.flatten() == Some(true)
    }

    fn is_whole(&self) -> bool {
        let Some((_, _, leader)) = self.leader() else { return false };
        let (members, last) = (leader.membership(), leader.figures().last_log);
        let ledger = lock(&self.ledger);
        if members.changing || last + 1 != ledger.len() {
            return false;
        }
        let nodes: Vec<_> = members.addresses.keys().filter_map(|id| self.node(*id)).collect();
        if nodes.len() != members.addresses.len() || nodes.iter().any(|(_, node)| node.figures().applied != last) {
            return false;
        }
        let expected = ledger.state();
        drop(ledger);
        if nodes.iter().any(|(_, node)| node.shared().read().to_bytes() != expected) {
            self.violated("a node shows another state than the log gives".into());
        }
        true
    }
}

pub(super) fn address(id: u64) -> String {
    format!("node-{id}:1")
}
