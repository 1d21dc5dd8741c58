//! IP fragments to datagrams, within bounds. A Windows client sends its certificate in three of them.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// How many datagrams are being put together at a time; the oldest gives way.
const MAX_DATAGRAMS: usize = 256;
/// How many fragments one datagram may have: 64 KiB in pieces of 8 bytes.
const MAX_FRAGMENTS: usize = 8192;
/// How many bytes all of them hold.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Fragments of one datagram arrive within this time (RFC 8200 §4.5: 60 s).
const LIFETIME: u64 = 60 * 1_000_000_000;

/// What the fragments of one datagram have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// Identification, RFC 791 §3.1, RFC 8200 §4.5.
    pub(super) id: u32,
    /// Protocol of IPv4; 0 for IPv6, where it is no part of the key.
    pub(super) protocol: u8,
    /// How many tunnels the fragments are in: inside and outside do not mix.
    pub(super) depth: usize,
}

/// One fragment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragment<'a> {
    /// Where its data begin, in bytes.
    pub(super) offset: usize,
    /// Whether others follow.
    pub(super) more: bool,
    /// The protocol that its own header names; that of the first fragment counts.
    pub(super) protocol: u8,
    pub(super) data: &'a [u8],
}

/// A datagram that is not whole.
#[derive(Clone, Debug, Default)]
pub(super) struct Partial {
    pieces: BTreeMap<usize, Vec<u8>>,
    total: Option<usize>,
    bytes: usize,
    /// Of the first fragment.
    pub(super) protocol: u8,
    /// Where and when it was first seen.
    pub(super) frame: u64,
    time: Option<u64>,
}

impl Partial {
    /// How many bytes are there.
    pub(super) const fn len(&self) -> usize {
        self.bytes
    }

    /// How many bytes there should be, if the last fragment is there.
    pub(super) const fn total(&self) -> Option<usize> {
        self.total
    }

    /// What the first fragment begins with, if it is there.
    pub(super) fn start(&self) -> Option<&[u8]> {
        self.pieces.get(&0).map(Vec::as_slice)
    }

    fn whole(&self) -> Option<Vec<u8>> {
        let total = self.total?;
        let mut out = Vec::with_capacity(total);
        for (offset, piece) in &self.pieces {
            // Overlaps are cut: what came at a lower offset stays (Linux and Windows drop such datagrams).
            let new = out.len().checked_sub(*offset)?;
            out.extend_from_slice(piece.get(new..).unwrap_or_default());
        }
        out.truncate(total);
        (out.len() == total).then_some(out)
    }
}

/// What a fragment led to.
#[derive(Debug)]
pub(super) struct Added {
    /// The datagram that it made whole, and its protocol.
    pub(super) whole: Option<(u8, Vec<u8>)>,
    /// The datagrams that were given up, to make room or because they are too old.
    pub(super) given_up: Vec<(Key, Partial)>,
}

/// The datagrams that are being put together.
#[derive(Debug, Default)]
pub(super) struct Reassembly {
    partial: BTreeMap<Key, Partial>,
    bytes: usize,
}

impl Reassembly {
    /// Takes a fragment.
    pub(super) fn add(&mut self, key: Key, fragment: Fragment<'_>, frame: u64, time: Option<u64>) -> Added {
        let mut given_up = self.expire(time);
        let end = fragment.offset.saturating_add(fragment.data.len());
        // A last fragment ends the datagram; others are whole blocks of 8. What is beyond 64 KiB is an attack.
        if end > 65_535 || (fragment.more && !fragment.data.len().is_multiple_of(8)) || fragment.data.is_empty() {
            return Added { whole: None, given_up };
        }
        while self.partial.len() >= MAX_DATAGRAMS && !self.partial.contains_key(&key)
            || self.bytes.saturating_add(fragment.data.len()) > MAX_BYTES
        {
            let Some(oldest) = self.partial.iter().min_by_key(|(_, p)| p.frame).map(|(k, _)| *k) else { break };
            given_up.extend(self.remove(&oldest).map(|p| (oldest, p)));
        }
        let partial = self.partial.entry(key).or_insert_with(|| Partial { frame, time, ..Partial::default() });
        if fragment.offset == 0 {
            partial.protocol = fragment.protocol;
        }
        if !fragment.more {
            partial.total = Some(end);
        }
        if partial.pieces.len() < MAX_FRAGMENTS && !partial.pieces.contains_key(&fragment.offset) {
            partial.pieces.insert(fragment.offset, fragment.data.to_vec());
            partial.bytes += fragment.data.len();
            self.bytes += fragment.data.len();
        }
        // Putting together is tried only when there is enough, so that the work stays in proportion to the input.
        let enough = partial.total.is_some_and(|total| partial.bytes >= total);
        let whole = if enough { partial.whole() } else { None };
        let protocol = partial.protocol;
        if whole.is_some() {
            self.remove(&key);
        }
        Added { whole: whole.map(|data| (protocol, data)), given_up }
    }

    /// Gives up those that are older than a minute.
    fn expire(&mut self, now: Option<u64>) -> Vec<(Key, Partial)> {
        let Some(now) = now else { return Vec::new() };
        let old = |p: &Partial| p.time.is_some_and(|t| now > t.saturating_add(LIFETIME));
        let keys: Vec<Key> = self.partial.iter().filter(|(_, p)| old(p)).map(|(k, _)| *k).collect();
        keys.into_iter().filter_map(|k| self.remove(&k).map(|p| (k, p))).collect()
    }

    fn remove(&mut self, key: &Key) -> Option<Partial> {
        let partial = self.partial.remove(key)?;
        self.bytes = self.bytes.saturating_sub(partial.bytes);
        Some(partial)
    }

    /// What is left when the capture ends, in the order of the first fragments.
    pub(super) fn finish(&mut self) -> Vec<(Key, Partial)> {
        let mut left: Vec<_> = core::mem::take(&mut self.partial).into_iter().collect();
        left.sort_by_key(|(_, p)| p.frame);
        left
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(id: u32) -> Key {
        let address = IpAddr::from([192, 0, 2, 1]);
        Key { source: address, destination: address, id, protocol: 17, depth: 0 }
    }

    fn fragment(offset: usize, more: bool, data: &[u8]) -> Fragment<'_> {
        Fragment { offset, more, protocol: 17, data }
    }

    proptest! {
        #[test]
        fn fragments_in_any_order_and_repeated_make_the_datagram(
            blocks in 1..40_usize, tail in 1..9_usize, cuts in prop::collection::btree_set(1..40_usize, 0..8), order: u64,
        ) {
            let data: Vec<u8> = (0..blocks * 8 + tail).map(|i| i as u8).collect();
            let mut edges: Vec<usize> = cuts.into_iter().filter(|c| *c <= blocks).map(|c| c * 8).collect();
            edges.insert(0, 0);
            edges.push(data.len());
            let mut pieces: Vec<_> = edges.windows(2).filter(|w| w[0] < w[1]).map(|w| (w[0], w[1])).collect();
            let mut state = order;
            for i in (1..pieces.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                pieces.swap(i, (state >> 33) as usize % (i + 1));
            }
            let mut r = Reassembly::default();
            let mut whole = None;
            for (i, (from, to)) in pieces.iter().enumerate() {
                prop_assert!(whole.is_none());
                if i + 1 < pieces.len() {
                    r.add(key(1), fragment(*from, *to < data.len(), &data[*from..*to]), 1, None);
                }
                whole = r.add(key(1), fragment(*from, *to < data.len(), &data[*from..*to]), 1, None).whole;
            }
            prop_assert_eq!(whole, Some((17, data)));
            prop_assert_eq!(r.bytes, 0);
        }
    }

    #[test]
    fn what_is_never_whole_is_bounded_and_given_up() {
        let mut r = Reassembly::default();
        let mut given_up = 0;
        for id in 0..10_000 {
            given_up += r.add(key(id), fragment(8, true, &[0; 1480]), u64::from(id), Some(0)).given_up.len();
            assert!(r.partial.len() <= MAX_DATAGRAMS && r.bytes <= MAX_BYTES);
        }
        assert_eq!(given_up, 10_000 - MAX_DATAGRAMS);
        let old = r.add(key(1), fragment(0, true, &[0; 8]), 10_001, Some(LIFETIME + 1)).given_up;
        assert_eq!(old.len(), MAX_DATAGRAMS);
        assert_eq!(r.finish().len(), 1);
    }

    #[test]
    fn impossible_fragments_are_passed_over() {
        let mut r = Reassembly::default();
        for bad in [fragment(65_528, false, &[0; 16]), fragment(0, true, &[0; 7]), fragment(0, false, &[])] {
            assert!(r.add(key(1), bad, 1, None).whole.is_none());
            assert!(r.partial.is_empty());
        }
        assert!(r.add(key(1), fragment(0, false, &[1]), 1, None).whole.is_some(), "an atomic fragment");
    }
}
