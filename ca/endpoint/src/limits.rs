//! Bounds on what strangers may make us hold or do, and the table of who they are.

use core::time::Duration;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use crate::counts::Limit;

/// The bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Connections at a time of one source: an IPv4 address, or an IPv6 network of 64 bits.
    pub connections_per_source: u32,
    /// Requests that a source may make at once.
    pub burst: u32,
    /// Requests a second that a source may make in the long run.
    pub requests_per_second: u32,
    /// Wrong tokens of a source before it must pause.
    pub free_tries: u32,
    /// Its first pause, which doubles with each further wrong token, and the longest one.
    pub pause: (Duration, Duration),
    /// Quiet time after which wrong tokens are forgotten.
    pub forget_after: Duration,
    /// Sources remembered; those that are connected are never forgotten.
    pub sources: usize,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long a connection may be idle, and its next request's header take.
    pub idle: Duration,
    /// How long the body of a request may take.
    pub body_time: Duration,
    /// How long the office may take.
    pub answer_time: Duration,
    /// When a connection is closed after the request that it is at.
    pub life: Duration,
    /// Largest header of a request, bytes.
    pub header: usize,
    /// Largest body, bytes.
    pub body: usize,
    /// The same of an OCSP request, bytes.
    pub ocsp_body: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connections: 1_024,
            connections_per_source: 32,
            burst: 60,
            requests_per_second: 10,
            free_tries: 3,
            pause: (seconds(1), seconds(60)),
            forget_after: seconds(600),
            sources: 16_384,
            handshake: seconds(10),
            idle: seconds(30),
            body_time: seconds(10),
            answer_time: seconds(30),
            life: seconds(120),
            header: 16 * 1024,
            body: 64 * 1024,
            ocsp_body: 16 * 1024,
        }
    }
}

/// Whom limits are counted for: whoever has an IPv6 address has all of its network.
fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}

/// A source, and the gateway that vouches for it. A hostile gateway can invent sources: they count beside those of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Origin {
    /// 0 for whoever came here himself.
    via: u32,
    source: IpAddr,
}

impl Origin {
    pub(crate) fn of(via: u32, address: IpAddr) -> Self {
        Self { via, source: source_of(address) }
    }
}

/// What is known of one source.
#[derive(Clone, Copy, Debug)]
struct Source {
    connections: u32,
    /// Thousandths of requests that it may make.
    credit: u64,
    /// When that was so.
    at: Duration,
    wrong: u32,
    /// No token is tried before.
    until: Duration,
}

/// The table of sources.
#[derive(Debug)]
pub(crate) struct Sources {
    limits: Limits,
    connections: usize,
    /// Of those, what each gateway has carried here.
    carried: BTreeMap<u32, usize>,
    known: BTreeMap<Origin, Source>,
}

impl Sources {
    pub(crate) fn new(limits: Limits) -> Self {
        // Room for all that may be connected, or one could not be counted.
        let limits = Limits { sources: limits.sources.max(limits.connections + 1), ..limits };
        Self { limits, connections: 0, carried: BTreeMap::new(), known: BTreeMap::new() }
    }

    /// A connection came.
    pub(crate) fn arrive(&mut self, source: Origin, now: Duration) -> Result<(), Limit> {
        if self.connections >= self.limits.connections || self.carries_too_many(source.via) {
            return Err(Limit::Connections);
        }
        let most = self.limits.connections_per_source;
        let known = self.source(source, now);
        if known.connections >= most {
            return Err(Limit::SourceConnections);
        }
        known.connections += 1;
        self.connections += 1;
        if source.via != 0 {
            *self.carried.entry(source.via).or_default() += 1;
        }
        Ok(())
    }

    /// Once half of the room is taken, no gateway has more than its share, and one more share stays for whoever comes by another way: of
    /// gateways that are flooded, or hostile, two would else have all of it.
    fn carries_too_many(&self, via: u32) -> bool {
        let share = self.limits.connections / (self.carried.len() + 1);
        let has = self.carried.get(&via).copied().unwrap_or_default();
        self.connections >= self.limits.connections / 2 && has != 0 && has >= share
    }

    /// A connection that had come is gone.
    pub(crate) fn leave(&mut self, source: Origin) {
        self.connections = self.connections.saturating_sub(1);
        if let Some(carried) = self.carried.get_mut(&source.via) {
            *carried = carried.saturating_sub(1);
            if *carried == 0 {
                self.carried.remove(&source.via);
            }
        }
        if let Some(known) = self.known.get_mut(&source) {
            known.connections = known.connections.saturating_sub(1);
        }
    }

    /// Takes one request from the credit of a source; else says how long to wait.
    pub(crate) fn request(&mut self, source: Origin, now: Duration) -> Result<(), Duration> {
        let rate = u64::from(self.limits.requests_per_second.max(1));
        let known = self.source(source, now);
        match known.credit.checked_sub(1_000) {
            Some(left) => {
                known.credit = left;
                Ok(())
            }
            None => Err(Duration::from_millis((1_000 - known.credit).div_ceil(rate))),
        }
    }

    /// Whether a source may try a token; else says how long to wait.
    pub(crate) fn may_try(&mut self, source: Origin, now: Duration) -> Result<(), Duration> {
        let known = self.source(source, now);
        if now < known.until { Err(known.until.saturating_sub(now)) } else { Ok(()) }
    }

    /// A token was right or wrong.
    pub(crate) fn tried(&mut self, source: Origin, now: Duration, right: bool) {
        let Limits { free_tries, pause: (first, longest), .. } = self.limits;
        let known = self.source(source, now);
        if right {
            (known.wrong, known.until) = (0, Duration::ZERO);
            return;
        }
        known.wrong = known.wrong.saturating_add(1);
        if let Some(doublings) = known.wrong.checked_sub(free_tries.max(1)) {
            let pause = first.saturating_mul(1 << doublings.min(16)).min(longest);
            known.until = now.saturating_add(pause);
        }
    }

    /// The record of a source, with the credit that it has now.
    fn source(&mut self, source: Origin, now: Duration) -> &mut Source {
        let limits = self.limits;
        if self.known.len() >= limits.sources && !self.known.contains_key(&source) {
            self.make_room(now);
        }
        let full = u64::from(limits.burst.max(1)) * 1_000;
        let new = Source { connections: 0, credit: full, at: now, wrong: 0, until: Duration::ZERO };
        let known = self.known.entry(source).or_insert(new);
        let since = now.saturating_sub(known.at);
        let earned = since.as_millis().saturating_mul(u128::from(limits.requests_per_second.max(1)));
        known.credit = u64::try_from(earned).unwrap_or(full).saturating_add(known.credit).min(full);
        if since >= limits.forget_after {
            known.wrong = 0;
        }
        known.at = now;
        known
    }

    /// Forgets those of whom there is nothing to remember or, if that does not help, the one that was quiet for longest: of those that
    /// came through the gateway that has brought the most, so that one that invents sources has its own forgotten.
    fn make_room(&mut self, now: Duration) {
        let rate = u128::from(self.limits.requests_per_second.max(1));
        let full = u128::from(self.limits.burst.max(1)) * 1_000;
        let forget_after = self.limits.forget_after;
        self.known.retain(|_, s| {
            let since = now.saturating_sub(s.at);
            let rested = since.as_millis() * rate + u128::from(s.credit) >= full;
            s.connections > 0 || !rested || (s.wrong > 0 && since < forget_after)
        });
        if self.known.len() < self.limits.sources {
            return;
        }
        let mut brought: BTreeMap<u32, usize> = BTreeMap::new();
        for (origin, _) in self.known.iter().filter(|(_, s)| s.connections == 0) {
            *brought.entry(origin.via).or_default() += 1;
        }
        let most = brought.into_iter().max_by_key(|(_, count)| *count).map(|(via, _)| via);
        let of_most = self.known.iter().filter(|(origin, s)| s.connections == 0 && Some(origin.via) == most);
        let quietest = of_most.min_by_key(|(_, s)| s.at);
        if let Some(quietest) = quietest.map(|(source, _)| *source) {
            self.known.remove(&quietest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(n: u32) -> Origin {
        through(0, n)
    }

    fn through(via: u32, n: u32) -> Origin {
        Origin::of(via, IpAddr::V4(n.into()))
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_ipv6_network_is_one_source_and_a_mapped_address_is_ipv4() {
        let source = |text: &str| source_of(text.parse().unwrap());
        assert_eq!(source("2001:db8:1:2:3:4:5:6"), source("2001:db8:1:2:ffff::1"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_eq!(source("::ffff:192.0.2.1"), "192.0.2.1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn connections_are_bounded_in_total_and_for_each_source() {
        let mut sources = Sources::new(Limits { connections: 3, connections_per_source: 2, ..Limits::default() });
        assert_eq!(sources.arrive(v4(1), SECOND), Ok(()));
        assert_eq!(sources.arrive(v4(1), SECOND), Ok(()));
        assert_eq!(sources.arrive(v4(1), SECOND), Err(Limit::SourceConnections));
        assert_eq!(sources.arrive(v4(2), SECOND), Ok(()));
        assert_eq!(sources.arrive(v4(3), SECOND), Err(Limit::Connections));
        sources.leave(v4(1));
        assert_eq!(sources.arrive(v4(3), SECOND), Ok(()));
    }

    #[test]
    fn credit_is_used_up_and_comes_back_with_time() {
        let mut sources = Sources::new(Limits { burst: 3, requests_per_second: 2, ..Limits::default() });
        for _ in 0..3 {
            assert_eq!(sources.request(v4(1), SECOND), Ok(()));
        }
        assert_eq!(sources.request(v4(1), SECOND), Err(SECOND / 2));
        assert_eq!(sources.request(v4(2), SECOND), Ok(()));
        assert_eq!(sources.request(v4(1), SECOND + SECOND / 2), Ok(()));
        assert!(sources.request(v4(1), SECOND + SECOND / 2).is_err());
        for _ in 0..3 {
            assert_eq!(sources.request(v4(1), 100 * SECOND), Ok(()));
        }
        assert!(sources.request(v4(1), 100 * SECOND).is_err());
    }

    #[test]
    fn wrong_tokens_cost_pauses_that_double_up_to_a_bound_and_a_right_one_ends_them() {
        let limits = Limits { free_tries: 2, pause: (SECOND, 4 * SECOND), ..Limits::default() };
        let mut sources = Sources::new(limits);
        let mut pauses = Vec::new();
        let mut now = SECOND;
        for _ in 0..6 {
            let wait = sources.may_try(v4(1), now).err().unwrap_or_default();
            pauses.push(wait.as_secs());
            now += wait;
            assert_eq!(sources.may_try(v4(1), now), Ok(()));
            sources.tried(v4(1), now, false);
        }
        assert_eq!(pauses, [0, 0, 1, 2, 4, 4]);
        assert_eq!(sources.may_try(v4(2), now), Ok(()));
        sources.tried(v4(1), now, true);
        assert_eq!(sources.may_try(v4(1), now), Ok(()));
        sources.tried(v4(1), now, false);
        assert_eq!(sources.may_try(v4(1), now), Ok(()));
    }

    #[test]
    fn what_a_hostile_gateway_says_of_sources_bears_on_nobody_who_comes_another_way() {
        let limits = Limits {
            connections: 64,
            sources: 80,
            connections_per_source: 2,
            burst: 2,
            requests_per_second: 1,
            free_tries: 1,
            ..Limits::default()
        };
        let mut sources = Sources::new(limits);
        // The honest one has guessed wrong, and is to pause.
        sources.tried(v4(1), SECOND, false);
        assert!(sources.may_try(v4(1), SECOND).is_err());
        // All that can be had in his name is taken through gateway 7 ...
        for _ in 0..2 {
            sources.arrive(through(7, 2), SECOND).unwrap();
            sources.request(through(7, 2), SECOND).unwrap();
            sources.tried(through(7, 2), SECOND, false);
        }
        assert_eq!(sources.arrive(through(7, 2), SECOND), Err(Limit::SourceConnections));
        assert!(sources.request(through(7, 2), SECOND).is_err() && sources.may_try(through(7, 2), SECOND).is_err());
        // ... and he is served here, and through another gateway.
        for via in [0, 8] {
            assert_eq!(sources.arrive(through(via, 2), SECOND), Ok(()));
            assert_eq!(sources.request(through(via, 2), SECOND), Ok(()));
            assert_eq!(sources.may_try(through(via, 2), SECOND), Ok(()));
        }
        // Sources that it invents push out their like.
        for n in 100..1_000 {
            let _ = sources.request(through(7, n), SECOND);
            let _ = sources.request(through(7, n), SECOND);
        }
        assert!(sources.known.len() <= 80);
        assert!(sources.may_try(v4(1), SECOND).is_err(), "his wrong token is remembered");
    }

    #[test]
    fn gateways_that_are_flooded_leave_room_for_the_others_and_for_whoever_comes_by_himself() {
        let limits = Limits { connections: 60, connections_per_source: 1, ..Limits::default() };
        let mut sources = Sources::new(limits);
        let flood = |sources: &mut Sources, via: u32| {
            (0..100).filter(|n| sources.arrive(through(via, *n), SECOND).is_ok()).count()
        };
        assert_eq!(flood(&mut sources, 7), 30);
        assert_eq!(flood(&mut sources, 8), 20);
        assert_eq!(sources.arrive(through(9, 1), SECOND), Ok(()));
        assert_eq!(sources.arrive(v4(1), SECOND), Ok(()));
        // What the first has too many of ends with time, and does not come again.
        (0..20).for_each(|n| sources.leave(through(7, n)));
        assert_eq!(flood(&mut sources, 7), 5, "15 of 60 are its share now");
        assert_eq!(sources.connections, 30 - 20 + 5 + 20 + 2);
        (0..20).for_each(|n| sources.leave(through(8, n)));
        assert!(!sources.carried.contains_key(&8));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_nobody_who_is_connected() {
        let limits = Limits { connections: 4, sources: 8, burst: 2, requests_per_second: 1, ..Limits::default() };
        let mut sources = Sources::new(limits);
        for n in 0..4 {
            sources.arrive(v4(n), SECOND).unwrap();
        }
        for n in 100..10_000 {
            let _ = sources.request(v4(n), SECOND);
            assert!(sources.known.len() <= 8);
        }
        for n in 0..4 {
            assert_eq!(sources.known.get(&v4(n)).map(|s| s.connections), Some(1));
            sources.leave(v4(n));
        }
        assert_eq!(sources.connections, 0);
    }
}
