//! A network that delays, loses, repeats, reorders and cuts, by a seed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::executor::{self, OUTSIDE, Random};
use super::world::{Planted, World};
use crate::raft::network::{Answer, Destination, Head, LinkError, Transport};
use crate::raft::{SnapshotData, Vote, codec};

/// A connection without a life sign is given up after this, as the real ones are.
const GIVEN_UP: Duration = Duration::from_secs(4);

/// How the network is right now.
pub(super) struct Net {
    pub(super) random: Random,
    /// Ways from one machine to another that are cut, and until when.
    pub(super) cut: BTreeMap<(u64, u64), Duration>,
    pub(super) weather: Weather,
    lines: BTreeMap<(u64, u64), Line>,
}

/// A way on which everything stands in one queue.
struct Line {
    bytes_per_s: u64,
    free_at: Duration,
}

/// Loss and delay. Numbers of a thousand, and microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    pub(super) lost: u64,
    pub(super) repeated: u64,
    pub(super) late: u64,
    pub(super) delay: (u64, u64),
}

impl Weather {
    pub(super) const FINE: Self = Self { lost: 0, repeated: 0, late: 0, delay: (100, 2_000) };
}

impl Net {
    pub(super) fn new(random: Random) -> Self {
        Self { random, cut: BTreeMap::new(), weather: Weather::FINE, lines: BTreeMap::new() }
    }

    /// How long a message takes; `None` if it is lost.
    fn delay(&mut self) -> Option<Duration> {
        if self.random.permille(self.weather.lost) {
            return None;
        }
        let (low, high) = self.weather.delay;
        let late = self.random.permille(self.weather.late);
        Some(if late { self.random.millis(50, 1_500) } else { self.random.micros(low, high) })
    }

    fn passes(&self, from: u64, to: u64) -> bool {
        self.cut.get(&(from, to)).is_none_or(|until| *until <= executor::now())
    }

    /// Makes all ways of a machine slow, or with `None` as fast as others.
    pub(super) fn line(&mut self, id: u64, others: &[u64], bytes_per_s: Option<u64>) {
        for other in others.iter().filter(|other| **other != id) {
            for way in [(id, *other), (*other, id)] {
                match bytes_per_s {
                    Some(bytes_per_s) => {
                        self.lines.entry(way).or_insert(Line { bytes_per_s, free_at: Duration::ZERO }).bytes_per_s =
                            bytes_per_s;
                    }
                    None => drop(self.lines.remove(&way)),
                }
            }
        }
    }

    /// How long a message stands in the queue of its way, if there is one.
    fn queued(&mut self, from: u64, to: u64, bytes: usize) -> Option<Duration> {
        let (line, now) = (self.lines.get_mut(&(from, to))?, executor::now());
        line.free_at = line.free_at.max(now) + Duration::from_micros(bytes as u64 * 1_000_000 / line.bytes_per_s);
        Some(line.free_at - now)
    }

    /// All lines are fast again.
    pub(super) fn mend_lines(&mut self) {
        self.lines.clear();
    }

    /// Cuts the way, in this direction.
    pub(super) fn cut(&mut self, from: u64, to: u64, until: Duration) {
        self.cut.insert((from, to), until);
    }
}

#[derive(Clone)]
enum Message {
    /// With the log's time as the leader has it.
    Append(Vec<u8>, u64),
    Vote(Vec<u8>),
    PreVote(Vec<u8>),
    Snapshot(Head, Vec<u8>),
}

/// The connections between two members; see `cluster::links`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Connection {
    Raft,
    Entries,
    Calls,
}

/// Entries of more bytes have a connection of their own.
const SMALL: usize = 8 * 1024;
/// What a message needs beside its body, bytes.
const HEAD: usize = 200;

impl Message {
    fn bytes(&self) -> usize {
        match self {
            Self::Append(body, _) | Self::Vote(body) | Self::PreVote(body) | Self::Snapshot(_, body) => {
                HEAD + body.len()
            }
        }
    }

    fn connection(&self) -> Connection {
        match self {
            Self::Append(body, _) if body.len() > SMALL => Connection::Entries,
            Self::Append(..) | Self::Vote(_) | Self::PreVote(_) => Connection::Raft,
            Self::Snapshot(..) => Connection::Calls,
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Append(body, _) => {
                match codec::decode::<openraft::raft::AppendEntriesRequest<crate::raft::TypeConfig>>(body) {
                    Ok(a) => format!(
                        "append {} after {:?} +{} committed {:?}",
                        a.vote,
                        a.prev_log_id.map(|l| l.to_string()),
                        a.entries.len(),
                        a.leader_commit.map(|l| l.index)
                    ),
                    Err(e) => e.to_string(),
                }
            }
            Self::Vote(body) | Self::PreVote(body) => match codec::decode::<Vote>(body) {
                Ok(vote) if matches!(self, Self::Vote(_)) => format!("vote {vote}"),
                Ok(vote) => format!("pre-vote {vote}"),
                Err(e) => e.to_string(),
            },
            Self::Snapshot(_, state) => format!("snapshot, {} bytes", state.len()),
        }
    }
}

/// The answer, and what the wall clock of who gives it shows.
type Reply = Result<(Vec<u8>, u64), LinkError>;

/// One process's way to the others.
pub(super) struct Wire {
    pub(super) world: Arc<World>,
    pub(super) source: u64,
    pub(super) process: u64,
    /// Who has put something on one, by target: the next message waits there, and can be given up, until that has arrived.
    connections: Mutex<BTreeMap<(u64, Connection), Turn>>,
}

type Turn = Arc<tokio::sync::Mutex<()>>;

impl Wire {
    pub(super) fn new(world: Arc<World>, source: u64, process: u64) -> Self {
        Self { world, source, process, connections: Mutex::default() }
    }

    fn connection(&self, target: u64, connection: Connection) -> Turn {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.entry((target, connection)).or_default().clone()
    }

    fn call<'a>(&'a self, to: &'a Destination, message: Message) -> Answer<'a, Vec<u8>> {
        Box::pin(async move {
            let unreachable = || LinkError::Unreachable("nobody there".into());
            if !self.world.is_powered(self.source, self.process) {
                return Err(unreachable());
            }
            if let Message::Append(body, _) = &message {
                self.world.leads(self.source, self.process, codec::decode::<Vote>(body).expect("a vote is first"));
            }
            let slow = self.world.net().lines.contains_key(&(self.source, to.target));
            let turn = match slow {
                true => Some(self.connection(to.target, message.connection()).lock_owned().await),
                false => None,
            };
            let queued = self.world.net().queued(self.source, to.target, message.bytes());
            if let Some(queued) = queued {
                executor::spawn_in(OUTSIDE, async move {
                    executor::sleep(queued).await;
                    drop(turn);
                });
            }
            let queued = queued.unwrap_or_default();
            let (tx, rx) = oneshot::channel();
            let tx = Arc::new(Mutex::new(Some(tx)));
            let (first, second) = {
                let mut net = self.world.net();
                let repeated = net.weather.repeated;
                let twice = net.random.permille(repeated);
                (net.delay(), if twice { net.delay() } else { None })
            };
            for delay in [first, second].into_iter().flatten() {
                let (world, source, target) = (self.world.clone(), self.source, to.target);
                let (message, tx) = (message.clone(), tx.clone());
                executor::spawn_in(OUTSIDE, async move {
                    executor::sleep(queued + delay).await;
                    if let Some(reply) = deliver(&world, source, target, message).await {
                        let tx = tx.lock().unwrap_or_else(PoisonError::into_inner).take();
                        if let Some(tx) = tx {
                            let _ = tx.send(reply); // it was given up
                        }
                    }
                });
            }
            drop(tx);
            let answered = async {
                match rx.await {
                    Ok(reply) => reply,
                    Err(_) => std::future::pending().await, // lost: nobody knows
                }
            };
            match executor::timeout(GIVEN_UP + queued, answered).await {
                Some(reply) => {
                    let (body, wall_ms) = reply?;
                    if let Some((_, node)) = self.world.node(self.source) {
                        node.time().heard_wall(to.target, wall_ms);
                    }
                    Ok(body)
                }
                None => Err(LinkError::Broken("no life sign".into())),
            }
        })
    }
}

/// What comes back, if anything does.
async fn deliver(world: &Arc<World>, source: u64, target: u64, message: Message) -> Option<Reply> {
    if !world.net().passes(source, target) {
        return None;
    }
    let node = world.node(target);
    world.trace(|| {
        format!("{source} -> {target}: {}{}", message.describe(), if node.is_some() { "" } else { " (down)" })
    });
    let reply = match node {
        Some((process, node)) => {
            let strip = world.settings.planted == Some(Planted::AnswersNotInSnapshots);
            let wall_ms = node.time().wall_ms();
            let handled = executor::spawn_in(process, async move {
                match message {
                    Message::Append(body, log_ms) => {
                        let answer = node.handle_append(&body).await;
                        if node.leader().is_some_and(|(leader, _)| leader == source) {
                            node.time().heard_leader(log_ms);
                        }
                        answer
                    }
                    Message::Vote(body) => node.handle_vote(&body).await,
                    Message::PreVote(body) => node.handle_pre_vote(&body).await,
                    Message::Snapshot(head, state) if strip => {
                        node.handle_snapshot(&head, without_answers(&state)).await
                    }
                    Message::Snapshot(head, state) => node.handle_snapshot(&head, state).await,
                }
            });
            handled.await?.map(|body| (body, wall_ms)).map_err(|e| LinkError::Unreachable(e.to_string()))
        }
        None => Err(LinkError::Unreachable("connection refused".into())),
    };
    let delay = world.net().delay()?;
    executor::sleep(delay).await;
    world.net().passes(target, source).then_some(reply)
}

/// A state that forgot which requests it has answered: a fault that is put in on purpose.
fn without_answers(state: &[u8]) -> Vec<u8> {
    use crate::state::{RowReader, RowWriter};
    const ANSWERS: [u8; 2] = [9, 32];
    let mut rest = RowWriter::begin(Vec::new()).expect("memory");
    for row in RowReader::begin(state).expect("a state") {
        let (key, value) = row.expect("a row");
        if !key.first().is_some_and(|table| ANSWERS.contains(table)) {
            rest.row(&key, &value).expect("memory");
        }
    }
    rest.end()
}

impl Transport for Wire {
    fn append_entries<'a>(&'a self, to: &'a Destination, body: Vec<u8>) -> Answer<'a, Vec<u8>> {
        let log_ms = self.world.node(self.source).map_or(0, |(_, node)| node.time().announced_ms());
        self.call(to, Message::Append(body, log_ms))
    }

    fn vote<'a>(&'a self, to: &'a Destination, body: Vec<u8>) -> Answer<'a, Vec<u8>> {
        self.call(to, Message::Vote(body))
    }

    fn pre_vote<'a>(&'a self, to: &'a Destination, body: Vec<u8>) -> Answer<'a, Vec<u8>> {
        if self.world.settings.planted == Some(Planted::NoPreVote) {
            return Box::pin(async { Err(LinkError::Unknown("nobody asks".into())) });
        }
        self.call(to, Message::PreVote(body))
    }

    fn snapshot<'a>(&'a self, to: &'a Destination, head: Head, state: SnapshotData) -> Answer<'a, Vec<u8>> {
        let state = state.into_bytes().expect("a snapshot of our own");
        self.call(to, Message::Snapshot(head, state))
    }
}
