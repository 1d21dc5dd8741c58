//! The time of the log for the rest of the process: what decides on leases, tokens, lockouts and certificates.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::ServerState;
use openraft::type_config::TypeConfigExt;
use rustls_pki_types::UnixTime;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

use super::log_clock::LogClock;
use super::propose::Waiting;
use super::{Metrics, Shared, TypeConfig};
use crate::clock::Clock;
use crate::state::{Action, Command, RecordAttempts};

/// How often time is looked after.
const LOOK: Duration = Duration::from_secs(1);
/// A leader that puts nothing else into the log puts the time in: so far a group that was stopped can be behind at its start.
const IDLE_MS: u64 = 60_000;
/// A machine whose clock is further away from the log's time is told of.
const OFF_MS: u64 = 5_000;
/// And again after so many looks, while it stays so.
const REMIND: u32 = 600;

/// The log's time, as this node knows it; it never goes back. On the leader it is what commands are stamped with, on the
/// others what the leader said last and the time since.
#[derive(Debug)]
pub struct LogTime {
    clock: Clock,
    machine: Mutex<LogClock>,
}

impl LogTime {
    /// A time that is told of what happens; `clock` is the machine's.
    pub fn new(clock: Clock) -> Arc<Self> {
        let machine = LogClock::new(clock.monotonic_us(), clock.unix_ms().saturating_mul(1_000));
        Arc::new(Self { clock, machine: Mutex::new(machine) })
    }

    /// The machine, at this moment.
    fn machine(&self) -> MutexGuard<'_, LogClock> {
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        machine.advance(self.clock.monotonic_us(), self.clock.unix_ms().saturating_mul(1_000));
        machine
    }

    /// Milliseconds since 1970. A node that has just started and heard of no leader may be behind.
    pub fn now_ms(&self) -> u64 {
        self.machine().time() / 1_000
    }

    /// The same; `None` where it may be long behind.
    pub fn live_ms(&self) -> Option<u64> {
        Some(self.machine().live()? / 1_000)
    }

    /// By how much the machine's wall clock is ahead, milliseconds; `None` where the log's time is not known well.
    pub fn offset_ms(&self) -> Option<i64> {
        let time = self.live_ms()?;
        Some(i64::try_from(self.clock.unix_ms()).ok()?.saturating_sub(i64::try_from(time).ok()?))
    }

    /// What the machine's wall clock shows, for the leader.
    pub fn wall_ms(&self) -> u64 {
        self.clock.unix_ms()
    }

    /// What a leader tells the others; 0 is nothing.
    pub fn announced_ms(&self) -> u64 {
        self.machine().announced().unwrap_or(0) / 1_000
    }

    /// Another member said what its wall clock shows; 0 is nothing.
    pub fn heard_wall(&self, member: u64, wall_ms: u64) {
        if wall_ms != 0 {
            self.machine().heard_wall(member, wall_ms.saturating_mul(1_000));
        }
    }

    /// The leader that this node follows said the log's time; 0 is nothing.
    pub fn heard_leader(&self, time_ms: u64) {
        if time_ms != 0 {
            self.machine().heard_leader(time_ms.saturating_mul(1_000));
        }
    }

    /// The state holds this time.
    pub(super) fn applied(&self, time_ms: u64) {
        self.machine().applied(time_ms.saturating_mul(1_000));
    }

    /// What the group says of who leads. Returns whether this node does.
    pub(super) fn follow(&self, metrics: &Metrics) -> bool {
        let mut machine = self.machine();
        // It is the leader a moment before it is in the state of one.
        let leads = metrics.current_leader == Some(metrics.id) || metrics.state == ServerState::Leader;
        if leads {
            let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
            machine.lead(metrics.id, &voters);
        } else {
            machine.follow();
        }
        leads
    }

    /// Whether it is worth waiting a moment before the first command after a start is stamped.
    pub(super) fn is_blind(&self) -> bool {
        self.machine().is_blind()
    }
}

/// TLS judges certificates by the log's time, too: a machine whose clock was set wrong still hears the others. A node that has
/// just started has its wall clock only, as its store may know nothing of the certificates of today.
impl rustls::time_provider::TimeProvider for LogTime {
    fn current_time(&self) -> Option<UnixTime> {
        let ms = self.live_ms().unwrap_or_else(|| self.wall_ms());
        Some(UnixTime::since_unix_epoch(Duration::from_millis(ms)))
    }
}

/// Looks after time until the member ends: who leads, what an idle log must learn, whether the machine's clock is wrong.
pub(super) async fn run(
    raft: openraft::Raft<TypeConfig>,
    time: Arc<LogTime>,
    shared: Arc<Shared>,
    queue: mpsc::Sender<Waiting>,
) {
    let (metrics, mut roles) = (raft.metrics(), raft.server_metrics());
    drop(raft); // the watcher must not keep the member alive
    let mut off_for = 0_u32;
    let mut waits: Option<oneshot::Receiver<_>> = None;
    loop {
        // A new leader begins at once: the clocks of the others come with the answers to its first entry.
        let leads = time.follow(&metrics.borrow());
        if tokio::select! {
            biased;
            () = TypeConfig::sleep(LOOK) => false,
            changed = roles.changed() => match changed {
                Ok(()) => true,
                Err(_) => return,
            },
        } {
            continue;
        }
        let stored_ms = shared.read().now_ms();
        if leads && time.live_ms().is_some_and(|now| now.saturating_sub(stored_ms) >= IDLE_MS) && stored_ms != 0 {
            // One at a time: without a majority they would gather.
            if !waits.as_mut().is_some_and(|answer| matches!(answer.try_recv(), Err(TryRecvError::Empty))) {
                let (answer, receiver) = oneshot::channel();
                let _ = queue.try_send(Waiting { command: idle(), term: None, answer }); // a full queue has other commands
                waits = Some(receiver);
            }
        }
        off_for = warn(time.offset_ms().unwrap_or(0), off_for);
    }
}

/// A command that changes the time only. It has no request id: nobody asks for its answer.
fn idle() -> Command {
    let nothing = Action::RecordAttempts(RecordAttempts::default());
    Command { request_id: Vec::new(), at_ms: 0, action: Some(nothing) }
}

/// Says when the machine's clock is wrong and when it is right again. Returns for how many looks it has been wrong.
fn warn(offset_ms: i64, off_for: u32) -> u32 {
    if offset_ms.unsigned_abs() <= OFF_MS {
        if off_for > 0 {
            tracing::info!(offset_ms, "the clock of this machine agrees with the cluster's again");
        }
        return 0;
    }
    if off_for.is_multiple_of(REMIND) {
        tracing::warn!(
            offset_ms,
            "the clock of this machine differs from the cluster's: nothing is decided by it, but the certificates of whoever \
             connects from here are; set it right, for example with NTP"
        );
    }
    off_for.saturating_add(1)
}
