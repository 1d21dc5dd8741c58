//! IPv4 networks and the addresses of a pool.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 network in CIDR form. Stored in rows and commands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Message)]
pub struct Net {
    /// Its first address.
    #[prost(fixed32, tag = "1")]
    pub address: u32,
    /// Length of its prefix, 0 to 32.
    #[prost(uint32, tag = "2")]
    pub prefix: u32,
}

impl Net {
    /// First and last address, both inclusive. A prefix beyond 32 counts as 32.
    pub fn bounds(self) -> (u32, u32) {
        let mask = u32::MAX.checked_shl(32 - self.prefix.min(32)).unwrap_or(0); // a shift by 32 is none in Rust
        (self.address & mask, self.address | !mask)
    }

    /// Addresses that a host may have: without network and broadcast address, except in /31 (RFC 3021) and /32.
    pub fn host_bounds(self) -> (u32, u32) {
        let (first, last) = self.bounds();
        if self.prefix >= 31 { (first, last) } else { (first + 1, last - 1) }
    }

    /// Whether the two share an address.
    pub fn overlaps(self, other: Self) -> bool {
        let ((a, b), (c, d)) = (self.bounds(), other.bounds());
        a <= d && c <= b
    }

    /// Whether `address` belongs to it.
    pub fn contains(self, address: u32) -> bool {
        let (first, last) = self.bounds();
        (first..=last).contains(&address)
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.address), self.prefix)
    }
}

impl FromStr for Net {
    type Err = String;

    /// `192.0.2.0/24`, or an address alone for a /32. Host bits must be zero: a typing error there means another network.
    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, prefix.parse().ok().filter(|p| *p <= 32)),
            None => (text, Some(32)),
        };
        let address: Ipv4Addr =
            address.parse().map_err(|_| format!("{text:?} is not an IPv4 network such as 10.64.0.0/16"))?;
        let prefix = prefix.ok_or_else(|| format!("{text:?}: the prefix length is a number from 0 to 32"))?;
        let net = Self { address: address.into(), prefix };
        let (first, _) = net.bounds();
        if first != net.address {
            let meant = Self { address: first, prefix };
            return Err(format!("{text:?} has host bits set; the network is {meant}"));
        }
        Ok(net)
    }
}

/// The addresses that a pool may lease: disjoint inclusive ranges in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u32, u32)>);

impl Ranges {
    /// The hosts of `networks` without `excluded`.
    pub fn new(networks: &[Net], excluded: &[Net]) -> Self {
        let mut ranges: Vec<(u32, u32)> = networks.iter().map(|n| n.host_bounds()).collect();
        ranges.sort_unstable();
        for gap in excluded {
            let (from, to) = gap.bounds();
            ranges = ranges
                .into_iter()
                .flat_map(|(first, last)| {
                    let below = (from > first).then(|| (first, last.min(from.saturating_sub(1))));
                    let above = (to < last).then(|| (first.max(to.saturating_add(1)), last));
                    if to < first || from > last { [Some((first, last)), None] } else { [below, above] }
                })
                .flatten()
                .collect();
        }
        Self(ranges)
    }

    /// Number of addresses.
    pub fn size(&self) -> u64 {
        self.0.iter().map(|(first, last)| u64::from(last - first) + 1).sum()
    }

    /// Whether `address` may be leased.
    pub fn contains(&self, address: u32) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&address))
    }

    /// All addresses, once each, starting behind `after` and coming round to it.
    pub fn from_after(&self, after: u32) -> impl Iterator<Item = u32> + '_ {
        let behind = self.0.iter().flat_map(move |(first, last)| {
            let first = u64::from(*first).max(u64::from(after) + 1);
            first..=u64::from(*last)
        });
        let before =
            self.0.iter().flat_map(move |(first, last)| u64::from(*first)..=u64::from(*last).min(u64::from(after)));
        behind.chain(before).filter_map(|a| u32::try_from(a).ok())
    }

    /// The ranges.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> Net {
        text.parse().expect("a network")
    }

    #[test]
    fn networks_parse_and_say_what_is_wrong() {
        for text in ["10.64.0.0/16", "192.0.2.1/32", "0.0.0.0/0", "192.0.2.6/31"] {
            assert_eq!(net(text).to_string(), text);
        }
        assert_eq!(net("192.0.2.7"), net("192.0.2.7/32"));
        assert!("10.64.0.1/16".parse::<Net>().is_err_and(|e| e.contains("the network is 10.64.0.0/16")));
        for bad in ["", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0/8", "::/0", "10.0.0.0/8/8"] {
            assert!(bad.parse::<Net>().is_err(), "{bad}");
        }
    }

    #[test]
    fn network_and_broadcast_addresses_are_no_hosts() {
        assert_eq!(Ranges::new(&[net("192.0.2.0/30")], &[]).size(), 2);
        assert_eq!(Ranges::new(&[net("192.0.2.0/31")], &[]).size(), 2);
        assert_eq!(Ranges::new(&[net("192.0.2.9/32")], &[]).size(), 1);
        assert_eq!(Ranges::new(&[net("0.0.0.0/0")], &[]).size(), (1 << 32) - 2);
        assert_eq!(Ranges::new(&[net("192.0.2.0/30")], &[net("0.0.0.0/0")]).size(), 0);
    }

    proptest! {
        #[test]
        fn ranges_are_the_set_they_stand_for(
            networks in prop::collection::vec((0u32..8, 26u32..=32), 1..3),
            excluded in prop::collection::vec((0u32..512, 27u32..=32), 0..5),
            after in 0u32..600,
        ) {
            // Networks 64 apart do not overlap.
            let mut seen = BTreeSet::new();
            let networks: Vec<Net> = networks
                .into_iter()
                .filter(|(slot, _)| seen.insert(*slot))
                .map(|(slot, prefix)| Net { address: slot * 64, prefix })
                .collect();
            let excluded: Vec<Net> = excluded.into_iter().map(|(address, prefix)| {
                let (address, _) = Net { address, prefix }.bounds();
                Net { address, prefix }
            }).collect();
            let expected: BTreeSet<u32> = networks
                .iter()
                .flat_map(|n| { let (a, b) = n.host_bounds(); a..=b })
                .filter(|a| !excluded.iter().any(|n| n.contains(*a)))
                .collect();
            let ranges = Ranges::new(&networks, &excluded);
            let order: Vec<u32> = ranges.from_after(after).collect();
            prop_assert_eq!(order.len() as u64, ranges.size());
            prop_assert_eq!(order.iter().copied().collect::<BTreeSet<_>>(), expected.clone());
            prop_assert!(order.iter().all(|a| ranges.contains(*a)));
            if let Some(first) = expected.range(after + 1..).next() {
                prop_assert_eq!(order.first(), Some(first));
            }
        }
    }
}
