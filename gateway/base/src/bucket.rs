//! How often something may happen.

use core::time::Duration;

use crate::Instant;

/// A token bucket: a burst at once, and one more after each pause.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Microseconds that a token takes to come back.
    pause: u64,
    /// Microseconds' worth of a full bucket.
    full: u64,
    level: u64,
    at: Instant,
}

impl Bucket {
    /// A full bucket of `burst` tokens, each of which comes back `pause` after the one before it. A pause of zero is no
    /// limit.
    pub fn new(burst: u32, pause: Duration, now: Instant) -> Self {
        // So that a burst of any size fits.
        let longest = u64::MAX / u64::from(burst.max(1));
        let pause = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX).min(longest);
        let full = pause.saturating_mul(burst.into());
        Self { pause, full, level: full, at: now }
    }

    /// Takes a token if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let passed = now.as_micros().saturating_sub(self.at.as_micros());
        self.level = self.level.saturating_add(passed).min(self.full);
        self.at = self.at.max(now);
        match self.level.checked_sub(self.pause) {
            Some(left) => {
                self.level = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut b = Bucket::new(3, Duration::from_millis(500), Instant::ZERO);
        assert_eq!((0..10).filter(|_| b.take(Instant::ZERO)).count(), 3);
        assert_eq!((0..10).filter(|_| b.take(Instant::from_secs(1))).count(), 2);
        assert_eq!((0..10).filter(|_| b.take(Instant::from_secs(60))).count(), 3);
        assert_eq!((0..10).filter(|_| b.take(Instant::from_secs(1))).count(), 0, "time that runs back gives nothing");
    }

    #[test]
    fn the_ends_of_the_range_are_no_surprise() {
        let mut none = Bucket::new(0, Duration::from_secs(1), Instant::ZERO);
        assert!(!none.take(Instant::from_secs(1 << 40)));
        let mut free = Bucket::new(0, Duration::ZERO, Instant::ZERO);
        assert!(free.take(Instant::ZERO) && free.take(Instant::ZERO));
        let mut once = Bucket::new(64, Duration::MAX, Instant::ZERO);
        assert_eq!((0..100).filter(|_| once.take(Instant::from_secs(5))).count(), 64);
    }
}
