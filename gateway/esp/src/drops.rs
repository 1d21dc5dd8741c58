//! Why a packet does not get through.

use core::fmt;

/// Why a packet was dropped. A closed enumeration: it labels metrics, and no peer can invent a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum EspDrop {
    /// No SA has this SPI, or the packet reached the wrong one.
    #[error("no SA has this SPI")]
    UnknownSpi,
    /// Shorter than the headers, one block and the ICV of the suite.
    #[error("truncated ESP packet")]
    Truncated,
    /// The ciphertext is not whole blocks.
    #[error("ciphertext is not whole blocks")]
    BadLength,
    /// The ICV does not match: changed on the way, or made with another key.
    #[error("integrity check failed")]
    BadIcv,
    /// The sequence number was seen before.
    #[error("replayed sequence number")]
    Replayed,
    /// The sequence number lies behind the anti-replay window, or is zero, which no sender uses.
    #[error("sequence number behind the window")]
    TooOld,
    /// Pad Length or Padding is wrong, although the ICV matches: a broken peer.
    #[error("bad padding")]
    BadPadding,
    /// A dummy packet (Next Header 59, RFC 4303 §2.6): genuine, and meant to be dropped.
    #[error("dummy packet")]
    Dummy,
    /// The SA has carried all the packets or bytes that it may.
    #[error("SA has reached its hard limit")]
    Expired,
    /// The next sequence number would repeat the first (RFC 4303 §3.3.3).
    #[error("sequence numbers are exhausted")]
    SequenceExhausted,
    /// The buffer has too little room around the payload. The caller's mistake, not the peer's.
    #[error("no room for the ESP header or trailer")]
    NoRoom,
}

impl EspDrop {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 11] = [
        Self::UnknownSpi,
        Self::Truncated,
        Self::BadLength,
        Self::BadIcv,
        Self::Replayed,
        Self::TooOld,
        Self::BadPadding,
        Self::Dummy,
        Self::Expired,
        Self::SequenceExhausted,
        Self::NoRoom,
    ];

    /// The label of metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownSpi => "unknown_spi",
            Self::Truncated => "truncated",
            Self::BadLength => "bad_length",
            Self::BadIcv => "bad_icv",
            Self::Replayed => "replayed",
            Self::TooOld => "too_old",
            Self::BadPadding => "bad_padding",
            Self::Dummy => "dummy",
            Self::Expired => "expired",
            Self::SequenceExhausted => "sequence_exhausted",
            Self::NoRoom => "no_room",
        }
    }
}

/// One counter for each [`EspDrop`], for the owner of many SAs; a single SA has [`crate::Stats`].
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct DropCounters([u64; EspDrop::ALL.len()]);

impl DropCounters {
    /// Counts one packet.
    pub fn count(&mut self, drop: EspDrop) {
        if let Some(n) = self.0.get_mut(drop as usize) {
            *n = n.wrapping_add(1);
        }
    }

    /// How many packets were dropped for this reason.
    #[must_use]
    pub fn of(&self, drop: EspDrop) -> u64 {
        self.0.get(drop as usize).copied().unwrap_or_default()
    }

    /// Every reason with its count.
    pub fn iter(&self) -> impl Iterator<Item = (EspDrop, u64)> + '_ {
        EspDrop::ALL.into_iter().zip(self.0)
    }
}

impl fmt::Debug for DropCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().filter(|(_, n)| *n > 0).map(|(d, n)| (d.as_str(), n))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_counter_and_label() {
        let mut counters = DropCounters::default();
        for (i, drop) in EspDrop::ALL.into_iter().enumerate() {
            assert_eq!(drop as usize, i);
            for _ in 0..=i {
                counters.count(drop);
            }
        }
        let mut labels: Vec<_> = EspDrop::ALL.map(EspDrop::as_str).to_vec();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), EspDrop::ALL.len());
        assert!(counters.iter().all(|(drop, n)| n == drop as u64 + 1 && counters.of(drop) == n));
    }
}
