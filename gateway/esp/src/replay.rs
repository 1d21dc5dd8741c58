//! Anti-replay: RFC 4303 §3.4.3, as a ring of words after RFC 6479.

use crate::EspDrop;

/// Words of the ring. One of them is always being filled, the others make the window.
const WORDS: usize = 32;
const WORD_BITS: u64 = u64::BITS as u64;

/// Which sequence numbers of an SA were seen.
///
/// The ring never shifts: moving on clears the words that the window leaves, one store per 64 packets. It is 264 bytes.
/// Sequence numbers are 64 bits wide so that extended ones fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayWindow {
    /// The highest number that was seen.
    top: u64,
    seen: [u64; WORDS],
}

impl ReplayWindow {
    /// How far a packet may fall behind the highest number and still get through: 1984.
    pub const SIZE: u64 = (WORDS as u64 - 1) * WORD_BITS;

    /// A window that has seen nothing. The first number is 1 (RFC 4303 §3.3.3).
    #[must_use]
    pub const fn new() -> Self {
        Self { top: 0, seen: [0; WORDS] }
    }

    /// A window that takes nothing up to and including `top`: for an SA adopted from a gateway whose window is lost.
    #[must_use]
    pub const fn after(top: u64) -> Self {
        let mut seen = [u64::MAX; WORDS];
        seen[index(top)] = bit(top) | (bit(top) - 1); // what lies above `top` in its word is still to come
        Self { top, seen }
    }

    /// The highest number that was seen.
    #[must_use]
    pub const fn top(&self) -> u64 {
        self.top
    }

    /// Whether `seq` would be taken; moves nothing. To be asked before the ICV is verified.
    pub fn check(&self, seq: u64) -> Result<(), EspDrop> {
        if seq > self.top {
            return Ok(());
        }
        if seq == 0 || self.top - seq >= Self::SIZE {
            return Err(EspDrop::TooOld);
        }
        if self.seen[index(seq)] & bit(seq) == 0 { Ok(()) } else { Err(EspDrop::Replayed) }
    }

    /// Notes that `seq` was received. Only for a packet whose ICV was verified: else a stranger moves the window.
    pub fn advance(&mut self, seq: u64) {
        if seq > self.top {
            let words = (seq / WORD_BITS - self.top / WORD_BITS).min(WORDS as u64);
            let first = self.top / WORD_BITS;
            for word in 1..=words {
                // `word` counts from the top's word; multiplying gives a number in that word.
                self.seen[index((first + word) * WORD_BITS)] = 0;
            }
            self.top = seq;
        }
        self.seen[index(seq)] |= bit(seq);
    }
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new()
    }
}

/// The word of `seq`; always below [`WORDS`].
const fn index(seq: u64) -> usize {
    (seq / WORD_BITS % WORDS as u64) as usize
}

const fn bit(seq: u64) -> u64 {
    1 << (seq % WORD_BITS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// RFC 4303 §3.4.3 without any cleverness.
    #[derive(Default)]
    struct Naive {
        top: u64,
        seen: BTreeSet<u64>,
    }

    impl Naive {
        fn check(&self, seq: u64) -> Result<(), EspDrop> {
            if seq == 0 || seq + ReplayWindow::SIZE <= self.top {
                Err(EspDrop::TooOld)
            } else if self.seen.contains(&seq) {
                Err(EspDrop::Replayed)
            } else {
                Ok(())
            }
        }

        fn advance(&mut self, seq: u64) {
            self.top = self.top.max(seq);
            self.seen.insert(seq);
        }
    }

    #[test]
    fn numbers_pass_once() {
        let mut w = ReplayWindow::new();
        assert_eq!(w.check(0), Err(EspDrop::TooOld));
        for seq in 1..5000 {
            assert_eq!(w.check(seq), Ok(()));
            w.advance(seq);
            assert_eq!(w.check(seq), Err(EspDrop::Replayed));
        }
        assert_eq!(w.check(4999 - ReplayWindow::SIZE), Err(EspDrop::TooOld));
        assert_eq!(w.check(5000 - ReplayWindow::SIZE), Err(EspDrop::Replayed));
    }

    #[test]
    fn a_jump_past_the_ring_forgets_everything_and_keeps_the_edge() {
        for jump in [63, 64, 65, ReplayWindow::SIZE - 1, ReplayWindow::SIZE, 2048, 2049, 10_000, u64::from(u32::MAX)] {
            let mut w = ReplayWindow::new();
            w.advance(1);
            w.advance(1 + jump);
            assert_eq!(w.top(), 1 + jump);
            let old = if jump < ReplayWindow::SIZE { EspDrop::Replayed } else { EspDrop::TooOld };
            assert_eq!(w.check(1), Err(old), "{jump}");
            for seq in (2 + jump).saturating_sub(ReplayWindow::SIZE).max(2)..=jump {
                assert_eq!(w.check(seq), Ok(()), "{jump} {seq}");
            }
        }
    }

    #[test]
    fn an_adopted_window_takes_only_what_is_new() {
        let mut w = ReplayWindow::after(1_000_000);
        assert!((998_000..=1_000_000).all(|seq| w.check(seq).is_err()));
        w.advance(1_000_070);
        assert_eq!(w.check(1_000_000), Err(EspDrop::Replayed));
        assert_eq!(w.check(1_000_001), Ok(()));
        assert_eq!(w.check(1_000_069), Ok(()));
    }

    #[test]
    fn the_end_of_64_bits_is_no_edge() {
        let mut w = ReplayWindow::after(u64::MAX - 2);
        w.advance(u64::MAX);
        assert_eq!(w.check(u64::MAX), Err(EspDrop::Replayed));
        assert_eq!(w.check(u64::MAX - 1), Ok(()));
    }

    proptest! {
        #[test]
        fn the_ring_does_what_the_naive_window_does(steps in proptest::collection::vec((any::<bool>(), 0u64..3000, any::<bool>()), 1..400)) {
            let (mut ring, mut naive) = (ReplayWindow::new(), Naive::default());
            for (forward, distance, genuine) in steps {
                let seq = if forward { naive.top + distance / 8 } else { naive.top.saturating_sub(distance) };
                let verdict = naive.check(seq);
                prop_assert_eq!(ring.check(seq), verdict);
                if verdict.is_ok() && genuine {
                    ring.advance(seq);
                    naive.advance(seq);
                }
                prop_assert_eq!(ring.top(), naive.top);
            }
        }
    }
}
