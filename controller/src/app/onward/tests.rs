use std::sync::Arc;

use tokio::sync::mpsc;

use super::*;
use crate::state::{Done, Outcome, Reply};

fn leader(id: u64) -> Leader {
    (id, format!("192.0.2.{id}:7443"))
}

fn done() -> Reply {
    Outcome::Done(Done::default()).into()
}

/// A command that is told by its id.
fn command(id: u8) -> Command {
    Command { request_id: vec![id], ..Command::default() }
}

fn id_of(command: &[u8]) -> u8 {
    Command::decode(command).expect("a command").request_id[0]
}

/// Everything that was sent comes out here.
struct Sent {
    onward: Arc<Onward>,
    calls: mpsc::UnboundedSender<Batch>,
}

impl Sent {
    fn new() -> (Self, mpsc::UnboundedReceiver<Batch>) {
        let (calls, sent) = mpsc::unbounded_channel();
        (Self { onward: Arc::default(), calls }, sent)
    }

    fn go(&self, to: u64, id: u8) -> tokio::task::JoinHandle<Answered> {
        let (onward, calls) = (self.onward.clone(), self.calls.clone());
        tokio::spawn(async move {
            let send = |batch: Batch| {
                let calls = calls.clone();
                async move {
                    // A call lasts until its answer has been told.
                    let (told, ended) = oneshot::channel::<()>();
                    let mut batch = batch;
                    let (answer, answered) = oneshot::channel();
                    batch.answers.push(answer);
                    let _ = calls.send(batch);
                    drop(told);
                    let _ = ended.await;
                    let _ = answered.await;
                }
            };
            onward.go(leader(to), &command(id), send).await
        })
    }
}

/// Lets everybody run who can.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// Answers a call: each command with an index of ten times its id.
fn answer(mut batch: Batch) -> Vec<u8> {
    let end = batch.answers.pop(); // the end of the call
    let request = batch.request();
    let commands = if request.commands.is_empty() { vec![request.command] } else { request.commands };
    let ids: Vec<u8> = commands.iter().map(|c| id_of(c)).collect();
    let reply = |id: &u8| proposed(Ok((done(), u64::from(*id) * 10)));
    let mut response = v1::ProposeResponse::default();
    match ids.as_slice() {
        [one] => {
            let one = reply(one);
            (response.reply, response.index) = (one.reply.unwrap_or_default(), one.index);
        }
        all => response.answers = all.iter().map(reply).collect(),
    }
    batch.tell(Ok(response));
    drop(end);
    ids
}

#[tokio::test]
async fn what_waits_while_calls_are_under_way_goes_together_and_each_has_its_own_answer() {
    let (sent, mut calls) = Sent::new();
    let tasks: Vec<_> = (1..=40).map(|id| sent.go(1, id)).collect();
    settle().await;
    let mut seen = Vec::new();
    while let Ok(batch) = calls.try_recv() {
        seen.push(answer(batch));
        settle().await;
    }
    assert!(seen.len() <= 2 * CALLS, "few calls: {seen:?}");
    let mut all = seen.concat();
    all.sort_unstable();
    assert_eq!(all, (1..=40).collect::<Vec<u8>>(), "each once");
    for (id, task) in (1_u64..).zip(tasks) {
        let (reply, index) = task.await.expect("ends").expect("answered");
        assert_eq!((matches!(reply.outcome, Some(Outcome::Done(_))), index), (true, id * 10));
    }
}

#[tokio::test]
async fn commands_for_another_leader_are_not_mixed_in_and_no_call_is_longer_than_allowed() {
    let (sent, mut calls) = Sent::new();
    let tasks: Vec<_> = (0..200).map(|id| sent.go(1 + u64::from(id % 2), id)).collect();
    settle().await;
    let mut count = 0;
    while let Ok(batch) = calls.try_recv() {
        let to = batch.to.0;
        let ids = answer(batch);
        assert!(ids.len() <= MOST && ids.iter().all(|id| 1 + u64::from(id % 2) == to), "{ids:?}");
        count += ids.len();
        settle().await;
    }
    assert_eq!(count, 200);
    for task in tasks {
        assert!(task.await.expect("ends").is_ok());
    }
}

#[tokio::test]
async fn who_gives_up_holds_up_nobody_and_is_left_out_if_he_did_not_go() {
    let (sent, mut calls) = Sent::new();
    let first: Vec<_> = (1..=3).map(|id| sent.go(1, id)).collect();
    settle().await;
    let rest: Vec<_> = (4..=6).map(|id| sent.go(1, id)).collect();
    settle().await;
    rest[1].abort(); // waits
    first[0].abort(); // has a call under way
    settle().await;
    let mut seen = Vec::new();
    while let Ok(batch) = calls.try_recv() {
        seen.extend(answer(batch));
        settle().await;
    }
    seen.sort_unstable();
    assert_eq!(seen, [1, 2, 3, 4, 6]);
    for (at, task) in rest.into_iter().enumerate() {
        assert_eq!(task.await.is_ok(), at != 1);
    }
}

#[tokio::test]
async fn an_answer_that_is_short_or_says_nothing_is_no_success() {
    let batch = || {
        let (mut batch, first) = Batch::of(leader(1), &command(1));
        let (answer, second) = oneshot::channel();
        batch.commands.push(command(2).encode_to_vec());
        batch.answers.push(answer);
        (batch, first, second)
    };
    let good = proposed(Ok((done(), 7)));
    let busy = proposed(Err(ProposeError::Overloaded));
    let (one, first, second) = batch();
    one.tell(Ok(v1::ProposeResponse { answers: vec![good], ..Default::default() }));
    assert!(matches!(first.await.expect("told"), Ok((_, 7))));
    assert_eq!(second.await.expect("told").map(|_| ()), Err(ProposeError::NoLeader));
    let (two, first, second) = batch();
    two.tell(Ok(v1::ProposeResponse { answers: vec![busy, v1::Proposed::default()], ..Default::default() }));
    assert_eq!(first.await.expect("told").map(|_| ()), Err(ProposeError::Overloaded));
    assert_eq!(second.await.expect("told").map(|_| ()), Err(ProposeError::NoLeader));
}
