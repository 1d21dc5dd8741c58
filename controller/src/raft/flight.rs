//! AppendEntries over a line that is slow.
//!
//! openraft gives a call up after a heartbeat and makes the same one again. Over a slow line nothing would ever arrive, for what was
//! given up goes on to fill the line. So a call that was given up goes on as a [`Flight`], and the next attempt takes its answer.
//! Beside it, with each attempt, a heartbeat goes to the follower, which would else take the leader for lost. And a
//! [`Pace`] learns how much the line takes within a heartbeat: less goes at once after a call that was late, more after one
//! that was early.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use openraft::raft::AppendEntriesRequest;
use openraft::type_config::TypeConfigExt;

use super::codec::{self, encode};
use super::log_store::MAX_READ_BYTES;
use super::network::Answer;
use super::{Entry, Instant, LogId, TypeConfig, Vote};

/// Least bytes of entries in one call; a single larger entry still goes.
const LEAST_BYTES: usize = 4 * 1024;
/// Heartbeats after which a call is made anew, at first and at most: it may hang on a connection that is dead.
const PATIENCE: (u32, u32) = (4, 32);

/// What a line to a follower takes.
#[derive(Debug)]
pub(super) struct Pace {
    heartbeat: Duration,
    bytes: AtomicUsize,
    patience_ms: AtomicU64,
}

impl Pace {
    /// A line that nothing is known of.
    pub(super) fn new(heartbeat: Duration) -> Self {
        let pace = Self { heartbeat, bytes: AtomicUsize::new(MAX_READ_BYTES), patience_ms: AtomicU64::default() };
        pace.wait(Duration::ZERO);
        pace
    }

    /// How long an answer is waited for.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_millis(self.patience_ms.load(Ordering::Relaxed))
    }

    fn wait(&self, long: Duration) {
        let bounded = long.clamp(self.heartbeat * PATIENCE.0, self.heartbeat * PATIENCE.1);
        self.patience_ms.store(u64::try_from(bounded.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// A call was longer under way than a heartbeat.
    fn late(&self) {
        let less = (self.bytes.load(Ordering::Relaxed) / 2).max(LEAST_BYTES);
        self.bytes.store(less, Ordering::Relaxed);
    }

    /// No answer came in time.
    pub(super) fn gave_up(&self) {
        self.wait(self.patience() * 2);
    }

    /// An answer came.
    fn arrived(&self, bytes: usize, took: Duration) {
        self.wait(took * 2);
        let limit = self.bytes.load(Ordering::Relaxed);
        // What was small says nothing about more.
        if took < self.heartbeat / 2 && bytes >= limit / 2 {
            self.bytes.store((limit * 2).min(MAX_READ_BYTES), Ordering::Relaxed);
        }
    }

    /// Leaves as many entries as may go at once.
    pub(super) fn cut(&self, entries: &mut Vec<Entry>) -> Result<(), codec::CodecError> {
        let limit = self.bytes.load(Ordering::Relaxed);
        if limit >= MAX_READ_BYTES {
            return Ok(()); // that is what the log gives out
        }
        let mut bytes = 0;
        for (count, entry) in entries.iter().enumerate() {
            bytes += encode(entry)?.len();
            if bytes > limit && count > 0 {
                entries.truncate(count);
                break;
            }
        }
        Ok(())
    }
}

/// A call with entries that is under way.
pub(super) struct Flight {
    vote: Vote,
    prev_log_id: Option<LogId>,
    /// The last entry in it.
    pub(super) last: LogId,
    bytes: usize,
    begun: Instant,
    late: bool,
    pub(super) call: Answer<'static, Vec<u8>>,
}

impl Flight {
    /// A call begins, of `bytes`. `None` if there are no entries in it.
    pub(super) fn begin(
        request: &AppendEntriesRequest<TypeConfig>,
        bytes: usize,
        call: Answer<'static, Vec<u8>>,
    ) -> Option<Self> {
        let last = request.entries.last()?.log_id;
        let (vote, prev_log_id) = (request.vote, request.prev_log_id);
        Some(Self { vote, prev_log_id, last, bytes, begun: TypeConfig::now(), late: false, call })
    }

    /// Whether its answer is one to this request, too.
    pub(super) fn serves(&self, request: &AppendEntriesRequest<TypeConfig>) -> bool {
        self.vote == request.vote
            && self.prev_log_id == request.prev_log_id
            && request.entries.iter().any(|entry| entry.log_id == self.last)
    }

    /// The request that it serves is made once more.
    pub(super) fn is_late(&mut self, pace: &Pace) {
        if !std::mem::replace(&mut self.late, true) {
            pace.late();
        }
    }

    /// How long it has been under way.
    pub(super) fn age(&self) -> Duration {
        TypeConfig::now() - self.begun
    }

    /// It was answered.
    pub(super) fn arrived(&self, pace: &Pace) {
        pace.arrived(self.bytes, self.age());
    }
}

#[cfg(test)]
#[path = "flight/tests.rs"]
mod tests;
