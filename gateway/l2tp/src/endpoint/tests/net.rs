//! Two endpoints and a network between them that loses, repeats and reorders.

use std::collections::BTreeMap;

use core::time::Duration;

use super::*;
use crate::output::Event;

pub(super) const PEER: PeerId = PeerId(7);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Lac,
    Lns,
}

pub(super) struct Net {
    pub(super) lac: Endpoint,
    pub(super) lns: Endpoint,
    pub(super) now: Instant,
    pub(super) lac_events: Vec<Event>,
    pub(super) lns_events: Vec<Event>,
    /// Percentages.
    pub(super) loss: u32,
    pub(super) duplication: u32,
    pub(super) jitter_ms: u32,
    /// Drops the n-th datagram, counted over both directions.
    pub(super) drop_nth: Vec<usize>,
    /// Keeps all datagrams that were sent.
    pub(super) log: Vec<(Side, Vec<u8>)>,
    /// The LAC's UDP port.
    pub(super) lac_port: u16,
    wire: BTreeMap<(Instant, usize), (Side, Vec<u8>)>,
    rng: Rng,
}

impl Net {
    pub(super) fn new(seed: u8, lac: Config, lns: Config) -> Self {
        let now = Instant::from_secs(1000);
        Self {
            lac: Endpoint::new(lac, [seed; 32], now),
            lns: Endpoint::new(lns, [seed ^ 0xff; 32], now),
            now,
            lac_events: Vec::new(),
            lns_events: Vec::new(),
            loss: 0,
            duplication: 0,
            jitter_ms: 0,
            drop_nth: Vec::new(),
            log: Vec::new(),
            lac_port: 1701,
            wire: BTreeMap::new(),
            rng: Rng::from_seed([seed ^ 0x55; 32]),
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.u32() % 100 < percent
    }

    fn drain(&mut self) {
        for side in [Side::Lac, Side::Lns] {
            loop {
                let endpoint = if side == Side::Lac { &mut self.lac } else { &mut self.lns };
                match endpoint.poll_output() {
                    None => break,
                    Some(Output::Event(event)) if side == Side::Lac => self.lac_events.push(event),
                    Some(Output::Event(event)) => self.lns_events.push(event),
                    Some(Output::Transmit(t)) => {
                        assert_eq!(t.peer, PEER);
                        assert_eq!(t.peer_port, if side == Side::Lac { 1701 } else { self.lac_port });
                        self.put(side, t.bytes);
                    }
                }
            }
        }
    }

    fn put(&mut self, from: Side, bytes: Vec<u8>) {
        self.log.push((from, bytes.clone()));
        let nth = self.log.len();
        let copies = if self.drop_nth.contains(&nth) || self.chance(self.loss) {
            0
        } else if self.chance(self.duplication) {
            2
        } else {
            1
        };
        for copy in 0..copies {
            let jitter = if self.jitter_ms > 0 { self.rng.u32() % self.jitter_ms } else { 0 };
            let at = self.now + Duration::from_millis(20 + u64::from(jitter));
            self.wire.insert((at, nth * 2 + copy), (from, bytes.clone()));
        }
    }

    /// Lets everything happen that happens before `until`.
    pub(super) fn run_until(&mut self, until: Instant) {
        loop {
            self.drain();
            let wire = self.wire.first_key_value().map(|((at, _), _)| *at);
            let next = wire.into_iter().chain(self.lac.poll_timeout()).chain(self.lns.poll_timeout()).min();
            match next {
                Some(at) if at <= until => self.now = self.now.max(at),
                _ => break,
            }
            while let Some(entry) = self.wire.first_entry().filter(|e| e.key().0 <= self.now) {
                let (from, bytes) = entry.remove();
                match from {
                    Side::Lac => self.lns.handle_control(self.now, PEER, self.lac_port, &bytes),
                    Side::Lns => self.lac.handle_control(self.now, PEER, 1701, &bytes),
                }
            }
            self.lac.handle_timeout(self.now);
            self.lns.handle_timeout(self.now);
        }
        self.now = until;
    }

    pub(super) fn run_for(&mut self, secs: u64) {
        self.run_until(self.now + Duration::from_secs(secs));
    }

    pub(super) fn connect(&mut self) -> u16 {
        self.lac.connect(self.now, PEER).expect("a tunnel")
    }

    /// The session both ends agree on.
    pub(super) fn session(&self) -> (crate::SessionInfo, crate::SessionInfo) {
        let find = |events: &[Event]| {
            events.iter().rev().find_map(|e| match e {
                Event::SessionUp(info) => Some(info.clone()),
                _ => None,
            })
        };
        (find(&self.lac_events).expect("LAC session"), find(&self.lns_events).expect("LNS session"))
    }

    /// Types of the messages that `side` sent, in order; ZLBs too.
    pub(super) fn sent(&self, side: Side) -> Vec<String> {
        self.log.iter().filter(|(from, _)| *from == side).map(|(_, bytes)| name(bytes)).collect()
    }
}

pub(super) fn name(bytes: &[u8]) -> String {
    let Ok(Packet::Control(header, body)) = Packet::parse(bytes) else { panic!("not control") };
    ControlMessage::parse(header, body, None).name()
}

pub(super) fn count(events: &[Event], what: impl Fn(&Event) -> bool) -> usize {
    events.iter().filter(|event| what(event)).count()
}

pub(super) fn is_refused(event: &Event) -> bool {
    matches!(event, Event::Refused(_))
}

pub(super) fn is_session_up(event: &Event) -> bool {
    matches!(event, Event::SessionUp(_))
}

pub(super) fn is_session_down(event: &Event) -> bool {
    matches!(event, Event::SessionDown(_))
}

pub(super) fn is_tunnel_down(event: &Event) -> bool {
    matches!(event, Event::TunnelDown(_))
}
