//! When a certificate is renewed, and from when on it is overdue: the one calculation of machines, controllers and the log.

use core::ops::RangeInclusive;

use crate::{Certificate, Serial, UnixTime};

/// After which part of a life a machine that has not renewed is overdue, percent: all renew by five sixths of it.
pub const OVERDUE_PERCENT: RangeInclusive<u32> = 84..=99;
/// The same where nobody has said otherwise.
pub const DEFAULT_OVERDUE_PERCENT: u32 = 92;

/// A life: from when, and how long. Both in the same unit, whichever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Its beginning.
    pub from: u64,
    /// How long it lasts.
    pub length: u64,
}

impl Life {
    /// When it is renewed: from two thirds on, and later by up to a sixth, by a hash of the serial, so that machines that were
    /// enrolled together do not all come back together. A sixth is left for what goes wrong.
    pub fn renewed_from(self, serial: &Serial) -> u64 {
        let hash = ring::digest::digest(&ring::digest::SHA256, serial.as_be_bytes());
        let share = hash.as_ref().first_chunk::<4>().map_or(0, |b| u32::from_be_bytes(*b));
        let spread = (u128::from(self.length / 6) * u128::from(share)) >> 32;
        let after = self.length / 3 * 2 + u64::try_from(spread).unwrap_or(0);
        self.from.saturating_add(after)
    }

    /// When somebody should be told that it was not renewed: after these percent, see [`OVERDUE_PERCENT`].
    pub const fn overdue_from(self, percent: u32) -> u64 {
        self.from.saturating_add((self.length / 100).saturating_mul(percent as u64))
    }
}

impl Certificate {
    /// When its holder renews it.
    pub fn renewal_due(&self) -> UnixTime {
        let length = u64::try_from(self.not_after.0.saturating_sub(self.not_before.0)).unwrap_or(0);
        let after = Life { from: 0, length }.renewed_from(&self.serial);
        UnixTime(self.not_before.0.saturating_add(i64::try_from(after).unwrap_or(i64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_renews_in_time_is_never_overdue() {
        let rng = crate::SystemRandom::new();
        let life = Life { from: 1_000, length: 30 * 86_400 };
        for _ in 0..500 {
            let due = life.renewed_from(&Serial::generate(&rng).unwrap());
            assert!(due >= life.from + life.length / 3 * 2, "{due}");
            assert!(due <= life.overdue_from(*OVERDUE_PERCENT.start()), "{due}");
        }
        assert!(OVERDUE_PERCENT.contains(&DEFAULT_OVERDUE_PERCENT));
        assert!(life.overdue_from(*OVERDUE_PERCENT.end()) < life.from + life.length);
    }

    #[test]
    fn the_longest_life_has_an_end() {
        let life = Life { from: u64::MAX - 5, length: u64::MAX };
        assert_eq!(life.overdue_from(92), u64::MAX);
        assert_eq!(life.renewed_from(&Serial::generate(&crate::SystemRandom::new()).unwrap()), u64::MAX);
    }
}
