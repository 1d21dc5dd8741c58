//! The only reader of the clocks in this crate.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The clocks of a machine, or what a test makes of them. Cheap to clone; clones show the same time.
///
/// The wall clock may jump when somebody sets it, so nothing of the cluster is decided by it: see [`crate::raft::LogTime`].
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
    /// By how much the wall clock was set, milliseconds.
    set_by: Arc<AtomicI64>,
}

#[derive(Clone, Debug)]
enum Source {
    System { origin: Instant },
    Manual(Arc<AtomicU64>),
}

impl Clock {
    fn new(source: Source) -> Self {
        Self { source, set_by: Arc::default() }
    }

    /// The machine's clocks.
    #[allow(clippy::disallowed_methods, reason = "this is the one clock module of the crate")]
    pub fn system() -> Self {
        Self::new(Source::System { origin: Instant::now() })
    }

    /// A clock that stands at `unix_ms` until [`Clock::advance`] moves it.
    pub fn manual(unix_ms: u64) -> Self {
        Self::new(Source::Manual(Arc::new(AtomicU64::new(unix_ms))))
    }

    /// The wall clock, milliseconds since 1970-01-01T00:00:00Z; may jump when somebody sets the machine's clock.
    #[allow(clippy::disallowed_methods, reason = "this is the one clock module of the crate")]
    pub fn unix_ms(&self) -> u64 {
        let ms = match &self.source {
            Source::System { .. } => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            }
            Source::Manual(now) => now.load(Ordering::Acquire),
        };
        ms.saturating_add_signed(self.set_by.load(Ordering::Acquire))
    }

    /// Milliseconds that only ever grow, from an origin of their own: for intervals.
    pub fn monotonic_ms(&self) -> u64 {
        self.monotonic_us() / 1_000
    }

    /// The same in microseconds, for measuring how long something took.
    pub fn monotonic_us(&self) -> u64 {
        match &self.source {
            Source::System { origin } => u64::try_from(origin.elapsed().as_micros()).unwrap_or(u64::MAX),
            Source::Manual(now) => now.load(Ordering::Acquire).saturating_mul(1_000),
        }
    }

    /// Moves a manual clock; the machine's clocks do not move by being asked.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(now) = &self.source {
            now.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::AcqRel);
        }
    }

    /// Sets the wall clock forward or back, as this process sees it; what is monotonic stays. For tests.
    pub fn step(&self, by_ms: i64) {
        self.set_by.fetch_add(by_ms, Ordering::AcqRel);
    }
}
