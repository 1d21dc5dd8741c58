use std::sync::Mutex;

use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::AppendEntriesResponse;
use openraft::{BasicNode, CommittedLeaderId, EntryPayload};
use tokio::sync::Semaphore;

use super::*;
use crate::raft::SnapshotData;
use crate::raft::codec::decode;
use crate::raft::network::{Destination, Head, Link, LinkError, Network, Transport, Way};
use crate::raft::simulation::in_virtual_time;
use crate::state::{Action, Command, CommandBatch, SetPsk};

const HEARTBEAT: Duration = Duration::from_millis(200);
type Request = AppendEntriesRequest<TypeConfig>;
type Answered = AppendEntriesResponse<u64>;

fn log_id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(3, 1), index)
}

/// The entries behind `prev` up to `last`, of 10 kB each.
fn request(prev: u64, last: u64) -> Request {
    let action = Some(Action::SetPsk(SetPsk { sealed: vec![7; 10_000] }));
    let batch = CommandBatch { commands: vec![Command { request_id: vec![1; 16], at_ms: 1, action }] };
    let entry = |index| Entry { log_id: log_id(index), payload: EntryPayload::Normal(batch.clone().into()) };
    let entries = (prev + 1..=last).map(entry).collect();
    Request {
        vote: Vote::new_committed(3, 1),
        prev_log_id: Some(log_id(prev)),
        entries,
        leader_commit: Some(log_id(0)),
    }
}

/// Takes heartbeats at once, and entries when it may, each by their own way.
struct Line {
    takes: Semaphore,
    /// How many entries each call had.
    calls: Mutex<Vec<usize>>,
    to_heartbeats: Mutex<Answered>,
}

impl Line {
    fn calls(&self) -> Vec<usize> {
        std::mem::take(&mut self.calls.lock().expect("not poisoned"))
    }
}

impl Transport for Line {
    fn append_entries<'a>(&'a self, _: &'a Destination, body: Vec<u8>) -> Answer<'a, Vec<u8>> {
        let entries = decode::<Request>(&body).expect("a request").entries.len();
        assert_ne!(entries, 0, "a heartbeat where it may stand in line");
        self.calls.lock().expect("not poisoned").push(entries);
        Box::pin(async move {
            self.takes.acquire().await.expect("open").forget();
            Ok(encode(&Answered::Success).expect("encodes"))
        })
    }
    fn heartbeat<'a>(&'a self, _: &'a Destination, body: Vec<u8>) -> Answer<'a, Vec<u8>> {
        assert_eq!(decode::<Request>(&body).expect("a request").entries, [], "entries where they hold up heartbeats");
        self.calls.lock().expect("not poisoned").push(0);
        Box::pin(async { Ok(encode(&*self.to_heartbeats.lock().expect("not poisoned")).expect("encodes")) })
    }
    fn vote<'a>(&'a self, _: &'a Destination, _: Vec<u8>) -> Answer<'a, Vec<u8>> {
        Box::pin(async { Err(LinkError::Broken("not asked".into())) })
    }
    fn pre_vote<'a>(&'a self, _: &'a Destination, _: Vec<u8>) -> Answer<'a, Vec<u8>> {
        Box::pin(async { Err(LinkError::Broken("not asked".into())) })
    }
    fn snapshot<'a>(&'a self, _: &'a Destination, _: Head, _: SnapshotData) -> Answer<'a, Vec<u8>> {
        Box::pin(async { Err(LinkError::Broken("not asked".into())) })
    }
}

async fn link() -> (std::sync::Arc<Line>, Link) {
    let (takes, calls) = (Semaphore::new(0), Mutex::default());
    let line = std::sync::Arc::new(Line { takes, calls, to_heartbeats: Mutex::new(Answered::Success) });
    let link = Network::new(1, line.clone(), Way::of(HEARTBEAT)).new_client(2, &BasicNode::default()).await;
    (line, link)
}

/// As openraft does it. `None` if there is no answer within a heartbeat.
async fn attempt(link: &mut Link, request: Request) -> Option<Answered> {
    let answer = link.append_entries(request, RPCOption::new(HEARTBEAT));
    TypeConfig::timeout(HEARTBEAT, answer).await.ok().map(|answer| answer.expect("an answer"))
}

#[test]
fn a_call_that_was_given_up_goes_on_and_the_next_attempt_takes_its_answer() {
    in_virtual_time(async {
        let (line, mut link) = link().await;
        assert_eq!(attempt(&mut link, request(4, 6)).await, None);
        assert_eq!(attempt(&mut link, request(4, 6)).await, None);
        assert_eq!(line.calls(), [2, 0], "a heartbeat beside it, and nothing twice");
        line.takes.add_permits(1);
        // There is more to send by now.
        assert_eq!(attempt(&mut link, request(4, 7)).await, Some(Answered::PartialSuccess(Some(log_id(6)))));
        line.takes.add_permits(1);
        assert_eq!(attempt(&mut link, request(6, 7)).await, Some(Answered::Success));
        assert_eq!(line.calls(), [1]);
        // Another place in the log is another call.
        assert_eq!(attempt(&mut link, request(7, 8)).await, None);
        line.takes.add_permits(1);
        assert_eq!(attempt(&mut link, request(6, 8)).await, Some(Answered::Success));
        assert_eq!(line.calls(), [1, 2]);
    });
}

#[test]
fn a_call_without_entries_goes_the_way_of_heartbeats() {
    in_virtual_time(async {
        let (line, mut link) = link().await;
        assert_eq!(attempt(&mut link, request(4, 4)).await, Some(Answered::Success));
        assert_eq!(line.calls(), [0]);
        line.takes.add_permits(1);
        assert_eq!(attempt(&mut link, request(4, 5)).await, Some(Answered::Success));
        assert_eq!(line.calls(), [1]);
    });
}

#[test]
fn a_heartbeat_beside_a_call_can_depose_the_leader() {
    in_virtual_time(async {
        let (line, mut link) = link().await;
        assert_eq!(attempt(&mut link, request(4, 6)).await, None);
        let higher = || Answered::HigherVote(Vote::new(4, 2));
        *line.to_heartbeats.lock().expect("not poisoned") = higher();
        assert_eq!(attempt(&mut link, request(4, 6)).await, Some(higher()));
    });
}

#[test]
fn less_goes_at_once_over_a_line_that_was_late_and_more_when_it_is_early() {
    in_virtual_time(async {
        let (line, mut link) = link().await;
        // 60 kB were too much, then 30 kB and so on; what goes on is not sent again.
        let mut sent = Vec::new();
        let mut at = 0;
        for _ in 0..5 {
            assert_eq!(attempt(&mut link, request(at, at + 6)).await, None);
            line.takes.add_permits(1);
            let answer = attempt(&mut link, request(at, at + 6)).await.expect("an answer");
            let calls = line.calls();
            assert_eq!(calls.len(), 1, "the same one");
            sent.push(calls[0]);
            at += calls[0] as u64;
            let last = Some(log_id(at));
            assert!(matches!(answer, Answered::Success) || answer == Answered::PartialSuccess(last));
        }
        assert_eq!(sent, [6, 3, 1, 1, 1], "of 10 kB; one entry always goes");
        sent.clear();
        for _ in 0..6 {
            line.takes.add_permits(1);
            attempt(&mut link, request(at, at + 6)).await.expect("an answer");
            sent.extend(line.calls());
            at += *sent.last().expect("a call") as u64;
        }
        assert_eq!(sent, [1, 1, 1, 3, 6, 6]);
    });
}

#[test]
fn a_call_that_hangs_is_made_anew_and_given_more_time() {
    in_virtual_time(async {
        let (line, mut link) = link().await;
        for _ in 0..20 {
            assert_eq!(attempt(&mut link, request(4, 5)).await, None);
        }
        let calls = line.calls();
        // After 4 heartbeats, then after 8 more.
        let made = calls.iter().enumerate().filter(|(_, entries)| **entries > 0).map(|(at, _)| at);
        assert_eq!(made.collect::<Vec<_>>(), [0, 4, 12], "{calls:?}");
    });
}
