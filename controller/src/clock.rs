//! The only reader of the clocks in this crate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A clock that a test can hold still. Cheap to clone; clones show the same time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { origin: Instant },
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's clocks.
    #[allow(clippy::disallowed_methods, reason = "this is the one clock module of the crate")]
    pub fn system() -> Self {
        Self(Source::System { origin: Instant::now() })
    }

    /// A clock that stands at `unix_ms` until [`Clock::advance`] moves it.
    pub fn manual(unix_ms: u64) -> Self {
        Self(Source::Manual(Arc::new(AtomicU64::new(unix_ms))))
    }

    /// Milliseconds since 1970-01-01T00:00:00Z; may jump when somebody sets the machine's clock.
    #[allow(clippy::disallowed_methods, reason = "this is the one clock module of the crate")]
    pub fn unix_ms(&self) -> u64 {
        match &self.0 {
            Source::System { .. } => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            }
            Source::Manual(now) => now.load(Ordering::Acquire),
        }
    }

    /// Milliseconds that only ever grow, from an origin of their own: for intervals.
    pub fn monotonic_ms(&self) -> u64 {
        match &self.0 {
            Source::System { origin } => u64::try_from(origin.elapsed().as_millis()).unwrap_or(u64::MAX),
            Source::Manual(now) => now.load(Ordering::Acquire),
        }
    }

    /// The same in microseconds, for measuring how long something took.
    pub fn monotonic_us(&self) -> u64 {
        match &self.0 {
            Source::System { origin } => u64::try_from(origin.elapsed().as_micros()).unwrap_or(u64::MAX),
            Source::Manual(now) => now.load(Ordering::Acquire).saturating_mul(1_000),
        }
    }

    /// Moves a manual clock; the machine's clocks do not move by being asked.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(now) = &self.0 {
            now.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::AcqRel);
        }
    }
}
