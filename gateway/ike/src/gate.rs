//! Who counts as one stranger.

use std::net::IpAddr;

/// What counts as one source: an IPv4 address, or the /64 of an IPv6 address (a host can draw on all of it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Source(IpAddr);

impl Source {
    pub(crate) fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self(ip),
            IpAddr::V6(a) => {
                let [s0, s1, s2, s3, ..] = a.segments();
                Self(std::net::Ipv6Addr::new(s0, s1, s2, s3, 0, 0, 0, 0).into())
            }
        }
    }
}
