//! Shards: each certificate belongs to one of the parts that its authority's list is published in, so that a list stays short.

use crate::Serial;

/// Parts of an authority's list.
pub const SHARDS: u32 = 64;

/// The part that a certificate belongs to, from 0: by the end of its serial number, which is random where the begin is an epoch.
pub fn shard_of(serial: &Serial) -> u32 {
    serial.as_be_bytes().last().map_or(0, |last| u32::from(*last) % SHARDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_of_one_epoch_spread_over_all_shards() {
        let rng = ring::rand::SystemRandom::new();
        let shards: std::collections::BTreeSet<u32> =
            (0..4_000).map(|_| shard_of(&Serial::generate(&rng).unwrap())).collect();
        assert_eq!(shards.into_iter().collect::<Vec<_>>(), (0..SHARDS).collect::<Vec<_>>());
        assert_eq!(shard_of(&Serial::from_be_bytes(&[1, 0, 65])), 1);
        assert_eq!(shard_of(&Serial::from_be_bytes(&[])), 0);
    }
}
