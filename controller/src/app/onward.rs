//! Commands of this member on their way to the leader: those that wait together go in one call.
//!
//! A call costs both sides more than a command does. So while [`CALLS`] of them are under way the next commands gather, and go
//! together when one has ended.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::Message;
use sallyport_proto::v1;
use tokio::sync::{Semaphore, oneshot};

use crate::raft::ProposeError;
use crate::state::{Command, Reply};

/// Calls under way at a time.
const CALLS: usize = 3;
/// Commands in a call, at most.
pub(crate) const MOST: usize = 64;
/// Their length in a call, bytes; a single longer one still goes.
const BYTES: usize = 256 * 1024;

/// What the leader answered to a command: the reply, and the entry that a state must hold to show it; 0 if it did not say.
pub(crate) type Answered = Result<(Reply, u64), ProposeError>;

/// Where a leader is: its id and HOST:PORT.
pub(super) type Leader = (u64, String);

/// The commands that wait, and the calls that are free.
pub(crate) struct Onward {
    queue: Mutex<Queue>,
    calls: Arc<Semaphore>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    /// Number of the last that came.
    last: u64,
}

struct Waiting {
    number: u64,
    to: Leader,
    command: Vec<u8>,
    answer: oneshot::Sender<Answered>,
}

/// Commands for one leader, and who waits for each.
pub(super) struct Batch {
    pub(super) to: Leader,
    commands: Vec<Vec<u8>>,
    answers: Vec<oneshot::Sender<Answered>>,
}

impl Default for Onward {
    fn default() -> Self {
        Self { queue: Mutex::default(), calls: Arc::new(Semaphore::new(CALLS)) }
    }
}

impl Onward {
    /// Sends a command to a leader, in a call with what else waits for it; `send` makes the call and tells what came of it. That goes
    /// on by itself: whoever gives up waiting holds up nobody, and his command may have gone all the same.
    pub(super) async fn go<F>(&self, to: Leader, command: &Command, send: impl Fn(Batch) -> F) -> Answered
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (answer, mut answered) = oneshot::channel();
        let number = {
            let mut queue = self.lock();
            queue.last += 1;
            let number = queue.last;
            queue.waiting.push(Waiting { number, to: to.clone(), command: command.encode_to_vec(), answer });
            number
        };
        while self.lock().waiting.iter().any(|w| w.number == number) {
            let call = tokio::select! {
                biased;
                answered = &mut answered => return answered.unwrap_or(Err(ProposeError::NoLeader)),
                Ok(call) = self.calls.clone().acquire_owned() => call, // never closed
            };
            let batch = self.take(&to);
            if !batch.commands.is_empty() {
                let sending = send(batch);
                tokio::spawn(async move {
                    sending.await;
                    drop(call);
                });
            }
        }
        answered.await.unwrap_or(Err(ProposeError::NoLeader)) // the call was given up, with this process
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first of those that wait for this leader. Who has given up is left out.
    fn take(&self, to: &Leader) -> Batch {
        let mut batch = Batch { to: to.clone(), commands: Vec::new(), answers: Vec::new() };
        let mut bytes = 0;
        let mut queue = self.lock();
        let (mut stay, mut full) = (Vec::new(), false);
        for next in std::mem::take(&mut queue.waiting).into_iter().filter(|w| !w.answer.is_closed()) {
            full |= batch.commands.len() == MOST || bytes > 0 && bytes + next.command.len() > BYTES;
            if full || next.to != *to {
                stay.push(next);
                continue;
            }
            bytes += next.command.len();
            batch.commands.push(next.command);
            batch.answers.push(next.answer);
        }
        queue.waiting = stay;
        batch
    }
}

impl Batch {
    /// One command alone, and its answer.
    pub(super) fn of(to: Leader, command: &Command) -> (Self, oneshot::Receiver<Answered>) {
        let (answer, answered) = oneshot::channel();
        (Self { to, commands: vec![command.encode_to_vec()], answers: vec![answer] }, answered)
    }

    /// The call.
    pub(super) fn request(&mut self) -> v1::ProposeRequest {
        let (target, mut commands) = (self.to.0, std::mem::take(&mut self.commands));
        let command = if commands.len() == 1 { commands.pop() } else { None }; // all that older software understands
        v1::ProposeRequest { target, command: command.unwrap_or_default(), commands }
    }

    /// Tells everybody what came of the call.
    pub(super) fn tell(self, answer: Result<v1::ProposeResponse, ProposeError>) {
        match answer {
            Ok(response) => {
                let proposed = match self.answers.len() {
                    1 => vec![v1::Proposed { reply: Some(response.reply), index: response.index, overloaded: false }],
                    _ => response.answers,
                };
                let all = proposed.into_iter().map(Some).chain(std::iter::repeat(None));
                for (answer, proposed) in self.answers.into_iter().zip(all) {
                    let _ = answer.send(understood(proposed)); // the caller may have gone
                }
            }
            Err(error) => {
                for answer in self.answers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }
}

/// What one command's answer says. Nothing says that it was not taken, or that nobody knows.
fn understood(proposed: Option<v1::Proposed>) -> Answered {
    match proposed {
        Some(v1::Proposed { overloaded: true, .. }) => Err(ProposeError::Overloaded),
        Some(v1::Proposed { reply: Some(reply), index, .. }) => {
            let reply = Reply::decode(reply.as_slice()).map_err(|_| ProposeError::NoLeader)?;
            Ok((reply, index))
        }
        _ => Err(ProposeError::NoLeader),
    }
}

/// The same, said by the leader.
pub(crate) fn proposed(answered: Answered) -> v1::Proposed {
    match answered {
        Ok((reply, index)) => v1::Proposed { reply: Some(reply.encode_to_vec()), index, overloaded: false },
        Err(error) => v1::Proposed { reply: None, index: 0, overloaded: matches!(error, ProposeError::Overloaded) },
    }
}

#[cfg(test)]
#[path = "onward/tests.rs"]
mod tests;
