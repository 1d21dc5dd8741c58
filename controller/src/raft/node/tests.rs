use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};

use super::*;
use crate::clock::Clock;
use crate::raft::kv::{KvError, Op, Row, Table};
use crate::raft::network::{Answer, Destination, Head, LinkError};
use crate::raft::snapshot::SnapshotData;
use crate::raft::{SnapshotMeta, codec, store};
use crate::state::{Action, AddPool, ClearPsk, Outcome};

const WORKS: u8 = 0;
const SYNC_FAILS: u8 = 1;
const SYNC_PANICS: u8 = 2;
const STATE_WRITE_FAILS: u8 = 3;
const STATE_WRITE_PANICS: u8 = 4;
const LOG_WRITE_FAILS: u8 = 5;

/// A disk that goes bad when told.
struct Faulty {
    inner: Arc<dyn Kv>,
    fault: AtomicU8,
}

impl Faulty {
    fn error(&self) -> KvError {
        KvError::Io { path: "/the/disk".into(), source: std::io::Error::other("no space left on device") }
    }
}

impl Kv for Faulty {
    fn get(&self, table: Table, key: &[u8]) -> super::super::kv::Result<Option<Vec<u8>>> {
        self.inner.get(table, key)
    }
    fn scan(&self, table: Table, from: &[u8], to: &[u8], max: usize) -> super::super::kv::Result<Vec<Row>> {
        self.inner.scan(table, from, to, max)
    }
    fn last(&self, table: Table) -> super::super::kv::Result<Option<Row>> {
        self.inner.last(table)
    }
    fn write(&self, ops: Vec<Op>) -> super::super::kv::Result<()> {
        let fault = self.fault.load(Ordering::SeqCst);
        let touches = |table| ops.iter().any(|op| matches!(op, Op::Put(t, ..) if *t == table));
        match fault {
            STATE_WRITE_FAILS if touches(Table::State) => Err(self.error()),
            STATE_WRITE_PANICS if touches(Table::State) => panic!("the engine found its invariants broken"),
            LOG_WRITE_FAILS if touches(Table::Log) => Err(self.error()),
            _ => self.inner.write(ops),
        }
    }
    fn sync(&self) -> super::super::kv::Result<()> {
        match self.fault.load(Ordering::SeqCst) {
            SYNC_FAILS => Err(self.error()),
            SYNC_PANICS => panic!("the engine found its invariants broken"),
            _ => self.inner.sync(),
        }
    }
}

/// What is applied is written at once.
const ROOM: Room = Room { keep: KEEP_ENTRIES, behind: 1 };

/// Reaches nobody.
struct Alone;

impl Transport for Alone {
    fn append_entries<'a>(&'a self, _: &'a Destination, _: Vec<u8>) -> Answer<'a, Vec<u8>> {
        Box::pin(async { Err(LinkError::Unreachable("a group of one".into())) })
    }
    fn vote<'a>(&'a self, _: &'a Destination, _: Vec<u8>) -> Answer<'a, Vec<u8>> {
        Box::pin(async { Err(LinkError::Unreachable("a group of one".into())) })
    }
    fn pre_vote<'a>(&'a self, _: &'a Destination, _: Vec<u8>) -> Answer<'a, Vec<u8>> {
        Box::pin(async { Err(LinkError::Unreachable("a group of one".into())) })
    }
    fn snapshot<'a>(&'a self, _: &'a Destination, _: Head, _: SnapshotData) -> Answer<'a, Vec<u8>> {
        Box::pin(async { Err(LinkError::Unreachable("a group of one".into())) })
    }
}

fn command(id: u8, action: Action) -> Command {
    Command { request_id: vec![id; 16], at_ms: 1, action: Some(action) }
}

fn pool(i: u8) -> Action {
    let networks = vec![format!("10.0.{i}.0/24").parse().expect("a network")];
    Action::AddPool(AddPool { name: format!("p{i}"), networks, ..AddPool::default() })
}

fn options(dir: &tempfile::TempDir) -> NodeOptions {
    NodeOptions {
        id: 1,
        dir: dir.path().to_path_buf(),
        engine: Engine::default(),
        snapshot_every: 100,
        heartbeat_ms: 200,
        transport: Arc::new(Alone),
        found: Some("here:1".into()),
        time: LogTime::new(Clock::system()),
        software: Software::current(),
    }
}

#[tokio::test]
async fn any_failure_of_the_store_ends_all_answers_and_names_itself() {
    for fault in [SYNC_FAILS, SYNC_PANICS, STATE_WRITE_FAILS, STATE_WRITE_PANICS, LOG_WRITE_FAILS] {
        let dir = tempfile::tempdir().expect("temporary folder");
        let store = dir.path().join("store");
        let inner = store::open(&store, Engine::default()).expect("opens");
        let kv = Arc::new(Faulty { inner, fault: AtomicU8::new(WORKS) });
        let node = Node::start_on(kv.clone(), store.clone(), &options(&dir), ROOM).await.expect("starts");
        node.propose(command(1, pool(1))).await.expect("works");
        node.read_index().await.expect("works");

        kv.fault.store(fault, Ordering::SeqCst);
        let refused = node.propose(command(2, pool(2))).await;
        assert!(matches!(refused, Err(ProposeError::Stopped(_))), "{fault}: {refused:?}");
        let mut health = node.health();
        let failed = health.wait_for(|h| *h != Health::Running).await.expect("watches").clone();
        let Health::Failed { path, cause } = failed else { panic!("{fault}: {failed:?}") };
        assert_eq!(path, store, "{fault}");
        if matches!(fault, SYNC_FAILS | STATE_WRITE_FAILS | LOG_WRITE_FAILS) {
            assert!(cause.contains("no space left on device"), "{fault}: {cause}");
        }
        // Also when the disk works again: the process must be started anew.
        kv.fault.store(WORKS, Ordering::SeqCst);
        assert!(node.propose(command(3, pool(3))).await.is_err(), "{fault}");
        assert!(node.read_index().await.is_err(), "{fault}");
        node.shutdown().await;
        drop((node, kv));

        let node = Node::start(&options(&dir)).await.expect("starts again");
        let there = node.shared().read().pools.contains(&"p1".to_owned());
        assert!(there, "{fault}: what was acknowledged");
        node.shutdown().await;
    }
}

#[tokio::test]
async fn many_proposals_share_entries_and_each_gets_its_own_answer() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let node = Arc::new(Node::start(&options(&dir)).await.expect("starts"));
    let before = node.figures().applied;
    let tasks: Vec<_> = (0..200u8)
        .map(|i| {
            let node = node.clone();
            tokio::spawn(async move { (i, node.propose(command(i, pool(i % 100))).await.expect("answers")) })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        let (i, reply) = task.await.expect("runs");
        match reply.outcome {
            Some(Outcome::Done(_)) => done += 1,
            Some(Outcome::Conflict(c)) => assert!(c.message.contains(&format!("\"p{}\"", i % 100)), "{}", c.message),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(done, 100);
    let entries = node.figures().applied - before;
    assert!(entries < 100, "{entries} entries for 200 commands");
    node.shutdown().await;
}

#[tokio::test]
async fn snapshots_are_made_the_log_is_purged_and_the_state_is_whole_after_a_restart() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let node = Node::start(&options(&dir)).await.expect("starts");
    for i in 0..50 {
        node.propose(command(i, pool(i))).await.expect("works");
    }
    // More entries than are kept behind a snapshot.
    for i in 0..1_500u32 {
        let mut clear = command(0, Action::ClearPsk(ClearPsk {}));
        clear.request_id = (u128::from(i) + 1_000).to_be_bytes().to_vec();
        node.propose(clear).await.expect("works");
    }
    let purged = node.raft.wait(None).metrics(|m| m.purged.is_some(), "the log is purged").await;
    assert!(purged.is_ok());
    let figures = node.figures();
    assert!(figures.snapshot >= figures.purged && figures.purged > 0, "{figures:?}");
    let bytes = node.shared().read().to_bytes();
    node.shutdown().await;
    drop(node);
    let node = Node::start(&options(&dir)).await.expect("starts again");
    assert_eq!(node.shared().read().to_bytes(), bytes);
    node.propose(command(77, pool(77))).await.expect("works");
    node.shutdown().await;
}

#[tokio::test]
async fn the_leader_stamps_what_it_proposes_and_an_idle_one_puts_the_time_into_the_log() {
    const START: u64 = 1_800_000_000_000;
    let dir = tempfile::tempdir().expect("temporary folder");
    let clock = Clock::manual(START);
    let with = |clock: &Clock| NodeOptions { time: LogTime::new(clock.clone()), ..options(&dir) };
    let node = Node::start(&with(&clock)).await.expect("starts");
    // No other task has run since.
    assert_eq!(node.time().now_ms(), START, "a founder's time, from the first moment");
    let stored = |node: &Node| node.shared().read().now_ms();
    node.propose(Command { at_ms: START + 99_999, ..command(1, pool(1)) }).await.expect("works");
    assert_eq!(stored(&node), START, "whatever the caller wrote");
    clock.step(-3_600_000);
    clock.advance(Duration::from_secs(160));
    while stored(&node) == START {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(stored(&node), START + 150_000, "its monotonic clock, slowed by a wall clock an hour behind");
    node.shutdown().await;
    drop(node);

    // A new process two days later begins with its own clock.
    let clock = Clock::manual(START + 172_800_000);
    let node = Node::start(&with(&clock)).await.expect("starts again");
    node.propose(command(2, pool(2))).await.expect("works");
    assert_eq!(stored(&node), START + 172_800_000);
    node.shutdown().await;
}

fn old() -> Software {
    Software { version: "0.0.9".into(), level: 1 }
}

fn raise() -> Action {
    Action::RaiseLevel(crate::state::RaiseLevel { level: 2, since: "0.1.0".into() })
}

#[tokio::test]
async fn software_that_the_group_has_left_behind_stops_before_it_misreads_anything() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let node = Node::start(&NodeOptions { software: old(), ..options(&dir) }).await.expect("starts");
    node.propose(command(1, pool(1))).await.expect("works");
    let refused = node.propose(command(2, Action::RevokeTokens(crate::state::RevokeTokens {}))).await;
    assert!(matches!(refused, Err(ProposeError::Level(_))), "{refused:?}");

    // The entry is committed; applying it is what this software cannot do.
    assert!(node.propose(command(3, raise())).await.is_err());
    let mut health = node.health();
    let ended = health.wait_for(|h| *h != Health::Running).await.expect("watches").clone();
    let Health::Outdated(beyond) = ended else { panic!("{ended:?}") };
    assert!(beyond.to_string().contains("install version 0.1.0 or newer"), "{beyond}");
    node.shutdown().await;
    drop(node);
    // Neither does it start again; the newer one goes on with everything.
    for _ in 0..2 {
        let refused = Node::start(&NodeOptions { software: old(), ..options(&dir) }).await.err();
        assert!(matches!(&refused, Some(Error::Outdated(again)) if *again == beyond), "{refused:?}");
    }
    let node = Node::start(&options(&dir)).await.expect("starts");
    assert_eq!(node.shared().read().level(), 2);
    assert!(node.shared().read().pools.contains(&"p1".to_owned()));
    node.propose(command(2, Action::RevokeTokens(crate::state::RevokeTokens {}))).await.expect("works");
    node.shutdown().await;
    drop(node);
    let refused = Node::start(&NodeOptions { software: old(), ..options(&dir) }).await.err();
    assert!(matches!(&refused, Some(Error::Outdated(again)) if *again == beyond), "{refused:?}");
}

#[tokio::test]
async fn a_snapshot_of_a_higher_level_is_refused_and_changes_nothing() {
    use openraft::storage::RaftStateMachine;
    let mut newer = crate::state::State::new();
    newer.apply(&command(1, pool(1)));
    newer.apply(&command(2, raise()));
    let meta = crate::raft::SnapshotMeta::default();
    let dir = tempfile::tempdir().expect("temporary folder");
    let open = |software| {
        let kv = store::open(&dir.path().join("store"), Engine::default()).expect("opens");
        StateMachine::open_as(kv, &dir.path().join("snapshots"), software, 1).expect("opens")
    };
    let mut machine = open(old());
    let refused =
        machine.install_snapshot(&meta, Box::new(newer.to_bytes().into())).await.expect_err("refused").to_string();
    assert!(refused.contains("install version 0.1.0 or newer"), "{refused}");
    assert!(machine.shared().beyond().is_some());
    assert_eq!(machine.shared().read().level(), 1);
    drop(machine);
    let mut machine = open(Software::current());
    assert_eq!(machine.shared().read().pools.len(), 0, "nothing was stored");
    machine.install_snapshot(&meta, Box::new(newer.to_bytes().into())).await.expect("installs");
    assert_eq!(machine.shared().read().level(), 2);
}

#[tokio::test]
async fn who_waits_for_a_leader_at_a_node_that_has_stopped_is_told_so() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let node = Node::start(&options(&dir)).await.expect("starts");
    let limit = Duration::from_secs(60);
    assert_eq!(node.leader_changes(None, limit).await, Ok(()));
    assert_eq!(node.leader().map(|(id, _)| id), Some(1));
    node.shutdown().await;
    // At once, so that whoever asked again and again would never let anybody else have a turn.
    assert!(matches!(node.leader_changes(None, limit).await, Err(ProposeError::Stopped(_))));
}

#[tokio::test]
async fn no_message_uses_up_the_terms() {
    use openraft::entry::FromAppData;
    use openraft::{CommittedLeaderId, LogId, Vote};

    let dir = tempfile::tempdir().expect("temporary folder");
    // Nobody's: it takes up what it hears, as one does that is about to receive the state.
    let node = Node::start(&NodeOptions { found: None, ..options(&dir) }).await.expect("starts");
    let encode = |vote, entries: Vec<crate::raft::Entry>| {
        let request = AppendEntriesRequest::<TypeConfig> { vote, prev_log_id: None, leader_commit: None, entries };
        codec::encode(&request).expect("encodes")
    };
    let refused = |answer: Result<Vec<u8>, ProposeError>| {
        assert!(matches!(&answer, Err(ProposeError::Membership(why)) if why.contains("term")), "{answer:?}");
    };
    for term in [u64::MAX, u64::MAX - 1, (1 << 32) + 1] {
        let last = Vote::new_committed(term, 2);
        refused(node.handle_append(&encode(last, Vec::new())).await);
        let vote = VoteRequest::new(Vote::new(term, 2), None);
        refused(node.handle_vote(&codec::encode(&vote).expect("encodes")).await);
        let meta = codec::encode(&SnapshotMeta::default()).expect("encodes");
        let head = Head { vote: codec::encode(&last).expect("encodes"), meta };
        refused(node.handle_snapshot(&head, crate::state::State::new().to_bytes()).await);
    }
    // Nor in what was not its leader's to write.
    let mut entry = crate::raft::Entry::from_app_data(Default::default());
    entry.log_id = LogId::new(CommittedLeaderId::new(u64::MAX, 2), 0);
    refused(node.handle_append(&encode(Vote::new_committed(7, 2), vec![entry])).await);
    assert_eq!(node.figures().term, 0);
    // Many terms may have gone by without it.
    node.handle_append(&encode(Vote::new_committed(1_000_000, 2), Vec::new())).await.expect("hears a leader");
    node.raft
        .wait(Some(Duration::from_secs(60)))
        .metrics(|m| m.current_term == 1_000_000, "its term")
        .await
        .expect("follows");
    node.shutdown().await;
}

/// A disk whose barrier is shut at times.
struct Gate {
    inner: Arc<dyn Kv>,
    shut: Mutex<bool>,
    opened: std::sync::Condvar,
}

impl Gate {
    fn new(inner: Arc<dyn Kv>) -> Arc<Self> {
        Arc::new(Self { inner, shut: Mutex::new(false), opened: std::sync::Condvar::new() })
    }

    fn shut(&self, shut: bool) {
        *self.shut.lock().expect("no panic") = shut;
        self.opened.notify_all();
    }
}

impl Kv for Gate {
    fn get(&self, table: Table, key: &[u8]) -> super::super::kv::Result<Option<Vec<u8>>> {
        self.inner.get(table, key)
    }
    fn scan(&self, table: Table, from: &[u8], to: &[u8], max: usize) -> super::super::kv::Result<Vec<Row>> {
        self.inner.scan(table, from, to, max)
    }
    fn last(&self, table: Table) -> super::super::kv::Result<Option<Row>> {
        self.inner.last(table)
    }
    fn write(&self, ops: Vec<Op>) -> super::super::kv::Result<()> {
        self.inner.write(ops)
    }
    fn sync(&self) -> super::super::kv::Result<()> {
        drop(self.opened.wait_while(self.shut.lock().expect("no panic"), |shut| *shut).expect("no panic"));
        self.inner.sync()
    }
}

/// Another member that says yes to everything.
#[derive(Default)]
struct Yes {
    /// Index of the last entry it was sent.
    sent: AtomicU64,
    /// Messages without entries.
    empty: AtomicU64,
    /// It is a leader of this term now, and tells so.
    deposes: AtomicU64,
    /// It says nothing.
    silent: AtomicBool,
}

impl Transport for Yes {
    fn append_entries<'a>(&'a self, _: &'a Destination, body: Vec<u8>) -> Answer<'a, Vec<u8>> {
        Box::pin(async move {
            let request: AppendEntriesRequest<TypeConfig> = codec::decode(&body).expect("decodes");
            if self.silent.load(Ordering::SeqCst) {
                return Err(LinkError::Broken("silent".into()));
            }
            match request.entries.last() {
                Some(last) => self.sent.fetch_max(last.log_id.index, Ordering::SeqCst),
                None => self.empty.fetch_add(1, Ordering::SeqCst),
            };
            let answer = match self.deposes.load(Ordering::SeqCst) {
                term if term > request.vote.leader_id.term => {
                    AppendEntriesResponse::HigherVote(openraft::Vote::new(term, 2))
                }
                _ => AppendEntriesResponse::<u64>::Success,
            };
            Ok(codec::encode(&answer).expect("encodes"))
        })
    }
    fn vote<'a>(&'a self, _: &'a Destination, body: Vec<u8>) -> Answer<'a, Vec<u8>> {
        Box::pin(async move {
            let request: VoteRequest<u64> = codec::decode(&body).expect("decodes");
            let yes = VoteResponse::new(request.vote, request.last_log_id, true);
            Ok(codec::encode(&yes).expect("encodes"))
        })
    }
    fn pre_vote<'a>(&'a self, to: &'a Destination, body: Vec<u8>) -> Answer<'a, Vec<u8>> {
        self.vote(to, body)
    }
    fn snapshot<'a>(&'a self, _: &'a Destination, _: Head, _: SnapshotData) -> Answer<'a, Vec<u8>> {
        Box::pin(async { Err(LinkError::Unreachable("not asked for".into())) })
    }
}

/// A leader with one other voter.
async fn pair(kv: Arc<dyn Kv>, dir: &tempfile::TempDir, other: Arc<Yes>) -> Node {
    let options = NodeOptions { transport: other, ..options(dir) };
    let node = Node::start_on(kv, dir.path().join("store"), &options, ROOM).await.expect("starts");
    if node.membership().voters.len() == 1 {
        node.change(Change::AddLearner { id: 2, address: "there:2".into() }).await.expect("adds");
        node.change(Change::Promote([2].into())).await.expect("promotes");
    }
    node
}

fn stored(dir: &tempfile::TempDir) -> Arc<dyn Kv> {
    store::open(&dir.path().join("store"), Engine::default()).expect("opens")
}

async fn until(what: impl Fn() -> bool) {
    for _ in 0..3_000 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_get_an_entry_while_our_disk_writes_it_and_nobody_is_told_before_it_is_there() {
    let (dir, other) = (tempfile::tempdir().expect("temporary folder"), Arc::<Yes>::default());
    let gate = Gate::new(stored(&dir));
    let node = Arc::new(pair(gate.clone(), &dir, other.clone()).await);
    node.propose(command(1, pool(1))).await.expect("works");
    for round in 2..5 {
        let before = other.sent.load(Ordering::SeqCst);
        gate.shut(true);
        let proposed = tokio::spawn({
            let node = node.clone();
            async move { node.propose(command(round, pool(round))).await }
        });
        until(|| other.sent.load(Ordering::SeqCst) > before).await;
        // The other has it and says so, again and again. Alone that is no quorum.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!proposed.is_finished() && !node.shared().read().pools.contains(&format!("p{round}")));
        gate.shut(false);
        proposed.await.expect("runs").expect("works");
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_behind_an_entry_that_was_sent_ends_the_leader() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let kv = Arc::new(Faulty { inner: stored(&dir), fault: AtomicU8::new(WORKS) });
    let node = pair(kv.clone(), &dir, Arc::default()).await;
    node.propose(command(1, pool(1))).await.expect("works");
    kv.fault.store(SYNC_FAILS, Ordering::SeqCst);
    let refused = node.propose(command(2, pool(2))).await;
    assert!(matches!(refused, Err(ProposeError::Stopped(_))), "{refused:?}");
    let mut health = node.health();
    let failed = health.wait_for(|h| *h != Health::Running).await.expect("watches").clone();
    assert!(matches!(&failed, Health::Failed { cause, .. } if cause.contains("no space left")), "{failed:?}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_led_when_it_ended_leads_again_in_another_term_only() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("store");
    // A member that has just ended holds its store a moment longer.
    let opened = || async { open(&path, Engine::default()).await.expect("opens") };
    let node = pair(opened().await, &dir, Arc::default()).await;
    node.propose(command(1, pool(1))).await.expect("works");
    let before = node.figures().term;
    node.shutdown().await;
    drop(node);
    let node = pair(opened().await, &dir, Arc::default()).await;
    assert!(!node.leads(), "the others may have more of the log than it has");
    until(|| node.leads()).await;
    assert!(node.figures().term > before);
    node.propose(command(2, pool(2))).await.expect("works");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_wait_together_ask_the_others_once() {
    let (dir, other) = (tempfile::tempdir().expect("temporary folder"), Arc::<Yes>::default());
    let node = Arc::new(pair(stored(&dir), &dir, other.clone()).await);
    node.propose(command(1, pool(1))).await.expect("works");
    let applied = node.figures().applied;
    let before = other.empty.load(Ordering::SeqCst);
    let reads = (0..500).map(|_| node.read_index());
    for index in futures_util::future::join_all(reads).await {
        assert!(index.expect("leads") >= applied);
    }
    let asked = other.empty.load(Ordering::SeqCst) - before;
    assert!((1..250).contains(&asked), "{asked} questions for 500 reads");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_leader_saw_in_one_term_is_not_put_into_the_log_in_another() {
    let (dir, other) = (tempfile::tempdir().expect("temporary folder"), Arc::<Yes>::default());
    let node = pair(stored(&dir), &dir, other.clone()).await;
    let term = node.reign().expect("leads and knows");
    node.propose_in(term, command(1, pool(1))).await.expect("in its term");
    // Another led meanwhile, of whose writes it does not know when it looks.
    other.deposes.store(term + 5, Ordering::SeqCst);
    until(|| node.reign() != Some(term)).await;
    let refused = node.propose_in(term, command(2, pool(2))).await;
    assert!(matches!(&refused, Err(e) if e.passes()), "{refused:?}");
    // It leads again, in a later term.
    until(|| node.reign().is_some()).await;
    let later = node.reign().expect("nobody deposes it any more");
    assert!(later > term);
    assert_eq!(node.propose_in(term, command(3, pool(3))).await, Err(ProposeError::NoLeader));
    assert!(!node.shared().read().pools.contains(&"p3".to_owned()), "not even applied");
    node.propose_in(later, command(4, pool(4))).await.expect("in its term");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_asked_for_without_a_majority_is_not_done_when_it_is_back_and_nobody_waits() {
    let (dir, other) = (tempfile::tempdir().expect("temporary folder"), Arc::<Yes>::default());
    let node = pair(stored(&dir), &dir, other.clone()).await;
    until(|| node.reign().is_some()).await;
    other.silent.store(true, Ordering::SeqCst);
    until(|| node.reign().is_none()).await;
    for n in 0..20 {
        let waited = tokio::time::timeout(Duration::from_millis(20), node.propose(command(n, pool(n)))).await;
        assert!(waited.is_err(), "{waited:?}");
    }
    other.silent.store(false, Ordering::SeqCst);
    until(|| node.reign().is_some()).await;
    node.propose(command(50, pool(50))).await.expect("works");
    let done = node.shared().read().pools.len();
    // What each proposer had in hand may be.
    assert!((1..=1 + propose::PROPOSERS).contains(&done), "{done} of 21");
    node.shutdown().await;
}
