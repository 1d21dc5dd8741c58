//! A server, a client, a network between them that loses, repeats and reorders, and a controller that knows one user.

use std::collections::BTreeMap;

use core::net::Ipv4Addr;

use sallyport_crypto::mschap;

use super::*;
use crate::output::{AuthProof, AuthRequest, Reject};

pub(super) const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
pub(super) const LEASED: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 77);
pub(super) const DNS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 53);
pub(super) const PASSWORD: &str = "open sesame";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Server,
    Client,
}

pub(super) struct Net {
    pub(super) server: Link,
    pub(super) client: Link,
    pub(super) now: Instant,
    pub(super) server_events: Vec<Event>,
    pub(super) client_events: Vec<Event>,
    pub(super) questions: Vec<AuthRequest>,
    /// Percentages.
    pub(super) loss: u32,
    pub(super) duplication: u32,
    pub(super) jitter_ms: u32,
    /// How long the controller thinks.
    pub(super) thinking_ms: u64,
    pub(super) log: Vec<(Side, Vec<u8>)>,
    wire: BTreeMap<(Instant, usize), (Side, Vec<u8>)>,
    answers: BTreeMap<Instant, (QuestionId, Answer)>,
    rng: Rng,
}

pub(super) fn accept() -> Accept {
    Accept {
        authenticator_response: None,
        message: "welcome".into(),
        local: LOCAL,
        peer: LEASED,
        dns: [Some(DNS), None],
        nbns: [None, None],
        idle_timeout: None,
        session_timeout: None,
    }
}

pub(super) fn reject(retry: bool) -> Reject {
    let (cause, remedy) = ("wrong password".into(), "type it again".into());
    Reject { error: 691, retry, message: "Authentication failed".into(), cause, remedy }
}

/// Judges as a controller would.
pub(super) fn judge(request: &AuthRequest) -> Answer {
    let user = crate::user_part(&request.user);
    let hash = mschap::nt_password_hash(PASSWORD);
    let known = user == "alice";
    match &request.method {
        AuthProof::Pap { password } if known && password.as_bytes() == PASSWORD.as_bytes() => Answer::Accept(accept()),
        AuthProof::ChapMd5 { identifier, challenge, response }
            if known && mschap::chap_md5(*identifier, PASSWORD.as_bytes(), challenge) == *response =>
        {
            Answer::Accept(accept())
        }
        AuthProof::MsChapV2 { authenticator_challenge, peer_challenge, nt_response, .. }
            if known
                && mschap::check_nt_response(authenticator_challenge, peer_challenge, user, &hash, nt_response) =>
        {
            let s = mschap::generate_authenticator_response(
                &hash,
                nt_response,
                peer_challenge,
                authenticator_challenge,
                user,
            );
            Answer::Accept(Accept { authenticator_response: Some(s), ..accept() })
        }
        _ => Answer::Reject(reject(false)),
    }
}

impl Net {
    pub(super) fn new(seed: u8, server: ServerConfig, client: ClientConfig) -> Self {
        let now = Instant::from_secs(1000);
        Self {
            server: Link::server(server, [seed; 32], now),
            client: Link::client(client, [seed ^ 0xff; 32], now),
            now,
            server_events: Vec::new(),
            client_events: Vec::new(),
            questions: Vec::new(),
            loss: 0,
            duplication: 0,
            jitter_ms: 0,
            thinking_ms: 5,
            log: Vec::new(),
            wire: BTreeMap::new(),
            answers: BTreeMap::new(),
            rng: Rng::from_seed([seed ^ 0x55; 32]),
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.u32() % 100 < percent
    }

    fn drain(&mut self) {
        for side in [Side::Server, Side::Client] {
            loop {
                let link = if side == Side::Server { &mut self.server } else { &mut self.client };
                match link.poll_output() {
                    None => break,
                    Some(Output::Event(event)) if side == Side::Server => self.server_events.push(event),
                    Some(Output::Event(event)) => self.client_events.push(event),
                    Some(Output::Frame(frame)) => self.put(side, frame),
                    Some(Output::Question(id, request)) => {
                        let at = self.now + Duration::from_millis(self.thinking_ms);
                        self.answers.insert(at, (id, judge(&request)));
                        self.questions.push(request);
                    }
                }
            }
        }
    }

    fn put(&mut self, from: Side, frame: Vec<u8>) {
        self.log.push((from, frame.clone()));
        let nth = self.log.len();
        let copies = if self.chance(self.loss) {
            0
        } else if self.chance(self.duplication) {
            2
        } else {
            1
        };
        for copy in 0..copies {
            let jitter = if self.jitter_ms > 0 { self.rng.u32() % self.jitter_ms } else { 0 };
            let at = self.now + Duration::from_millis(20 + u64::from(jitter));
            self.wire.insert((at, nth * 2 + copy), (from, frame.clone()));
        }
    }

    pub(super) fn run_until(&mut self, until: Instant) {
        loop {
            self.drain();
            let wire = self.wire.first_key_value().map(|((at, _), _)| *at);
            let answer = self.answers.first_key_value().map(|(at, _)| *at);
            let timers = [wire, answer, self.server.poll_timeout(), self.client.poll_timeout()];
            match timers.into_iter().flatten().min() {
                Some(at) if at <= until => self.now = self.now.max(at),
                _ => break,
            }
            while let Some(entry) = self.wire.first_entry().filter(|e| e.key().0 <= self.now) {
                let (from, frame) = entry.remove();
                match from {
                    Side::Server => self.client.handle_frame(self.now, &frame),
                    Side::Client => self.server.handle_frame(self.now, &frame),
                }
            }
            while let Some(entry) = self.answers.first_entry().filter(|e| *e.key() <= self.now) {
                let (id, answer) = entry.remove();
                self.server.handle_answer(self.now, id, answer);
            }
            self.server.handle_timeout(self.now);
            self.client.handle_timeout(self.now);
        }
        self.now = until;
    }

    pub(super) fn run_for(&mut self, secs: u64) {
        self.run_until(self.now + Duration::from_secs(secs));
    }

    pub(super) fn networks(&self) -> (Option<NetworkUp>, Option<NetworkUp>) {
        (network(&self.server_events), network(&self.client_events))
    }
}

pub(super) fn network(events: &[Event]) -> Option<NetworkUp> {
    events.iter().find_map(|event| match event {
        Event::NetworkUp(up) => Some(up.clone()),
        _ => None,
    })
}

pub(super) fn refusals(events: &[Event]) -> Vec<Refusal> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Refused(refusal) => Some(refusal.clone()),
            _ => None,
        })
        .collect()
}

pub(super) fn downs(events: &[Event]) -> Vec<DownReason> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Down { reason } => Some(reason.clone()),
            _ => None,
        })
        .collect()
}

/// What must hold of any link's events, whatever happened: the promises of [`Event`].
pub(super) fn check_promises(events: &[Event]) {
    let at = |what: fn(&Event) -> bool| {
        let all: Vec<usize> = events.iter().enumerate().filter(|(_, e)| what(e)).map(|(i, _)| i).collect();
        assert!(all.len() <= 1, "{events:?}");
        all.first().copied()
    };
    let up = at(|e| matches!(e, Event::NetworkUp(_)));
    let refused = at(|e| matches!(e, Event::Refused(_)));
    let down = at(|e| matches!(e, Event::Down { .. }));
    let finished = at(|e| matches!(e, Event::Finished));
    assert!(up.is_none() || refused.is_none(), "{events:?}");
    assert_eq!(down.is_some(), refused.is_some() || (up.is_some() && down.is_some()), "{events:?}");
    if let Some(down) = down {
        assert!(up.or(refused).is_some_and(|before| before < down), "{events:?}");
    }
    if let Some(finished) = finished {
        assert_eq!(finished + 1, events.len(), "{events:?}");
        assert!(down.is_some(), "{events:?}");
    }
}
