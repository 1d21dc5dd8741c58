//! Who counts as one stranger.

use std::net::{IpAddr, Ipv6Addr};

/// What counts as one source: an IPv4 address, or the /64 of an IPv6 address (a host can draw on all of it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(IpAddr);

impl Source {
    /// The source that an address belongs to; an IPv4 address that a dual-stack socket shows as IPv6 is an IPv4 address.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V6(a) => {
                let [s0, s1, s2, s3, ..] = a.segments();
                Self(Ipv6Addr::new(s0, s1, s2, s3, 0, 0, 0, 0).into())
            }
            v4 => Self(v4),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_one_source_whatever_address_it_shows() {
        let of = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
