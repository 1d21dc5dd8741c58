//! How often strangers may ask for a gateway's certificate: each question costs two signatures to be looked at, and maybe one to the leader.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Questions of one source at once, and then in a second: gateways that start together may be behind one address.
const OF_SOURCE: Rate = Rate { burst: 30, per_second: 1 };
/// The same of all sources.
const OF_ALL: Rate = Rate { burst: 200, per_second: 50 };
/// Questions that are looked at together.
const AT_A_TIME: usize = 8;
/// Most sources that are counted. Each is forgotten when it has not asked for half a minute, in which all together ask less often.
const MAX_SOURCES: usize = 4_096;
/// When to ask again while others are looked at.
const BUSY: Duration = Duration::from_secs(1);

/// How often something may be.
#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: u64,
    per_second: u64,
}

/// What is left of a rate, in thousandths.
#[derive(Clone, Copy, Debug)]
struct Credit {
    left: u64,
    at_ms: u64,
}

impl Rate {
    const fn full(self, at_ms: u64) -> Credit {
        Credit { left: self.burst * 1_000, at_ms }
    }

    fn now(self, credit: Credit, at_ms: u64) -> Credit {
        let earned = at_ms.saturating_sub(credit.at_ms).saturating_mul(self.per_second);
        Credit { left: credit.left.saturating_add(earned).min(self.burst * 1_000), at_ms }
    }

    /// One less, or how long until there is one.
    fn take(self, credit: &mut Credit, at_ms: u64) -> Result<(), Duration> {
        *credit = self.now(*credit, at_ms);
        match credit.left.checked_sub(1_000) {
            Some(left) => {
                credit.left = left;
                Ok(())
            }
            None => Err(Duration::from_millis((1_000 - credit.left).div_ceil(self.per_second)).max(BUSY)),
        }
    }
}

/// Whom a question is counted for: whoever has an IPv6 address has all of its network of 64 bits.
fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[derive(Debug)]
struct Counted {
    all: Credit,
    sources: BTreeMap<IpAddr, Credit>,
}

/// The limits, and who has asked.
#[derive(Debug)]
pub(super) struct Limits {
    counted: Mutex<Counted>,
    turns: Arc<Semaphore>,
}

impl Default for Limits {
    fn default() -> Self {
        let counted = Counted { all: OF_ALL.full(0), sources: BTreeMap::new() };
        Self { counted: Mutex::new(counted), turns: Arc::new(Semaphore::new(AT_A_TIME)) }
    }
}

impl Limits {
    /// A turn for a question from there, by a clock that does not go back; otherwise how long to wait.
    pub(super) fn turn(&self, source: IpAddr, at_ms: u64) -> Result<OwnedSemaphorePermit, Duration> {
        self.count(source_of(source), at_ms)?;
        self.turns.clone().try_acquire_owned().map_err(|_| BUSY)
    }

    fn count(&self, source: IpAddr, at_ms: u64) -> Result<(), Duration> {
        // Counters: whoever panicked left them whole.
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let Counted { all, sources } = &mut *counted;
        if sources.len() >= MAX_SOURCES && !sources.contains_key(&source) {
            sources.retain(|_, credit| OF_SOURCE.now(*credit, at_ms).left < OF_SOURCE.burst * 1_000);
            if sources.len() >= MAX_SOURCES {
                return Err(BUSY);
            }
        }
        // What one source asks in vain is not counted for the others.
        OF_SOURCE.take(sources.entry(source).or_insert_with(|| OF_SOURCE.full(at_ms)), at_ms)?;
        OF_ALL.take(all, at_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    #[test]
    fn one_source_is_stopped_and_the_others_are_not() {
        let limits = Limits::default();
        for _ in 0..OF_SOURCE.burst {
            drop(limits.turn(v4(1), 5).expect("a turn"));
        }
        for _ in 0..1_000 {
            assert!(limits.turn(v4(1), 5).is_err());
        }
        assert!(limits.turn(v4(2), 5).is_ok(), "what it asked in vain takes nothing from others");
        assert!(limits.turn(v4(1), 1_005).is_ok() && limits.turn(v4(1), 1_005).is_err(), "one in a second");
    }

    #[test]
    fn an_ipv6_network_is_one_source() {
        let limits = Limits::default();
        let address = |n: u64| IpAddr::from(Ipv6Addr::from_bits((0x2001_0db8_u128 << 96) | u128::from(n)));
        let turns = (0..1_000).filter(|n| limits.turn(address(*n), 0).is_ok()).count();
        assert_eq!(turns as u64, OF_SOURCE.burst);
    }

    #[test]
    fn all_together_are_bounded_and_so_is_what_is_remembered_of_them() {
        let limits = Limits::default();
        let turns = (0..10_000).filter(|n| limits.turn(v4(*n), 0).is_ok()).count();
        assert_eq!(turns as u64, OF_ALL.burst);
        assert!(limits.counted.lock().expect("whole").sources.len() <= MAX_SOURCES);
        // Later the first are forgotten, and others have room.
        assert!(limits.turn(v4(20_000), 60_000).is_ok());
        assert!(limits.counted.lock().expect("whole").sources.len() < MAX_SOURCES);
        let held: Vec<_> = (0..20).filter_map(|n| limits.turn(v4(30_000 + n), 60_000).ok()).collect();
        assert_eq!(held.len(), AT_A_TIME, "a few at a time");
    }
}
