//! What a stranger can make us do is limited in rate, not only in size.

use std::net::IpAddr;

use sallyport_base::Instant;

/// A token bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    burst: u64,
    per_second: u64,
    /// Millionths of a token.
    level: u64,
    at: Instant,
}

const TOKEN: u64 = 1_000_000;

impl Bucket {
    pub(crate) fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        let burst = u64::from(burst) * TOKEN;
        Self { burst, per_second: u64::from(per_second), level: burst, at: now }
    }

    /// Takes a token if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        // `per_second` tokens a second are `per_second` millionths a microsecond.
        let passed = now.as_micros().saturating_sub(self.at.as_micros());
        self.level = self.level.saturating_add(passed.saturating_mul(self.per_second)).min(self.burst);
        self.at = self.at.max(now);
        match self.level.checked_sub(TOKEN) {
            Some(left) => {
                self.level = left;
                true
            }
            None => false,
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut b = Bucket::new(3, 2, Instant::ZERO);
        assert_eq!((0..10).filter(|_| b.take(Instant::ZERO)).count(), 3);
        assert_eq!((0..10).filter(|_| b.take(Instant::from_secs(1))).count(), 2);
        assert_eq!((0..10).filter(|_| b.take(Instant::from_secs(60))).count(), 3);
        assert_eq!((0..10).filter(|_| b.take(Instant::from_secs(1))).count(), 0, "time that runs back gives nothing");
    }
}
