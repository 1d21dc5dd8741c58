//! One PPP link: its phases (RFC 1661 §3), in either role.

mod authentication;
mod control;
mod network;

use std::collections::VecDeque;

use core::time::Duration;

use sallyport_base::{Instant, Timers};
use sallyport_crypto::Rng;

use crate::auth::client::Supplicant;
use crate::auth::server::Authenticator;
use crate::config::{ClientConfig, LinkConfig, ServerConfig};
use crate::frame::{IPV4_HEADER, IPV4_HEADER_ACFC, Protocol, control_frame, strip};
use crate::ipcp::Ipcp;
use crate::lcp::{Lcp, Role};
use crate::negotiate::{Negotiation, Signal};
use crate::output::{
    Accept, Answer, CloseReason, DownReason, Event, LcpUp, NetworkUp, Output, Phase, QuestionId, Refusal,
};
use crate::packet::{Code, ControlPacket};
use crate::stats::Stats;

/// The role with its settings.
#[derive(Debug)]
enum Config {
    Server(ServerConfig),
    Client(ClientConfig),
}

/// Who authenticates whom, once LCP is open.
#[derive(Debug)]
enum Auth {
    None,
    Server(Authenticator),
    Client(Supplicant),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    /// LCP, authentication or IPCP takes too long.
    Phase,
    Echo,
    Idle,
    Session,
}

/// One PPP link.
#[derive(Debug)]
pub struct Link {
    config: Config,
    rng: Rng,
    phase: Phase,
    lcp: Negotiation<Lcp>,
    ipcp: Option<Negotiation<Ipcp>>,
    auth: Auth,
    timers: Timers<Timer>,
    /// A client's IPCP request that came before authentication was decided; the newest only.
    held_ipcp: Option<Vec<u8>>,
    /// The question that is open.
    question: QuestionId,
    network_up: bool,
    /// Whether [`Event::Down`] was given.
    down: bool,
    /// Whether [`Event::Finished`] was given: nothing moves any more.
    finished: bool,
    user: Option<String>,
    /// Why the last password was refused, for a client that then gives up.
    last_failure: Option<(String, String)>,
    idle_timeout: Option<Duration>,
    /// When the peer was last heard, when data last passed, and echoes that went unanswered since.
    heard_at: Instant,
    data_at: Instant,
    echo_misses: u8,
    echo_id: u8,
    reject_id: u8,
    identifications: u8,
    output: VecDeque<Output>,
    stats: Stats,
}

impl Link {
    /// The authenticator's end. It waits [`LinkConfig::start_delay`] for the client's first request, then begins itself.
    pub fn server(config: ServerConfig, seed: [u8; 32], now: Instant) -> Self {
        Self::new(Config::Server(config), seed, now)
    }

    /// The authenticated end. It begins at once, unless [`LinkConfig::start_delay`] says otherwise.
    pub fn client(config: ClientConfig, seed: [u8; 32], now: Instant) -> Self {
        Self::new(Config::Client(config), seed, now)
    }

    fn new(config: Config, seed: [u8; 32], now: Instant) -> Self {
        let mut rng = Rng::from_seed(seed);
        let (role, methods, link) = match &config {
            Config::Server(c) => (Role::Server, c.methods.clone(), c.link.clone()),
            Config::Client(c) => (Role::Client, c.methods.clone(), c.link.clone()),
        };
        let lcp = Negotiation::new(Lcp::new(role, methods, link.mru, rng.fork()), &link);
        let mut this = Self {
            config,
            rng,
            phase: Phase::Lcp,
            lcp,
            ipcp: None,
            auth: Auth::None,
            timers: Timers::new(),
            held_ipcp: None,
            question: QuestionId(0),
            network_up: false,
            down: false,
            finished: false,
            user: None,
            last_failure: None,
            idle_timeout: None,
            heard_at: now,
            data_at: now,
            echo_misses: 0,
            echo_id: 0,
            reject_id: 0,
            identifications: 0,
            output: VecDeque::new(),
            stats: Stats::default(),
        };
        this.timers.set(Timer::Phase, now + link.lcp_timeout);
        this.lcp.open(now, link.start_delay);
        this.settle(now);
        this
    }

    /// Who is at the other end, for sentences.
    const fn peer(&self) -> &'static str {
        match &self.config {
            Config::Server(_) => "the client",
            Config::Client(_) => "the server",
        }
    }

    const fn link_config(&self) -> &LinkConfig {
        match &self.config {
            Config::Server(c) => &c.link,
            Config::Client(c) => &c.link,
        }
    }

    /// Takes a received frame that is not data, or that the data path did not want: `FF 03` and one-byte protocol
    /// fields are accepted in any mix.
    pub fn handle_frame(&mut self, now: Instant, frame: &[u8]) {
        if self.finished {
            return;
        }
        self.stats.frames_in += 1;
        self.note_inbound(now);
        let Some((protocol, payload)) = strip(frame) else {
            self.stats.malformed += 1;
            return;
        };
        match Protocol(protocol) {
            Protocol::LCP => self.handle_lcp(now, payload),
            // All but LCP needs LCP open (RFC 1661 §3.4).
            _ if !self.lcp.is_opened() => self.stats.out_of_phase += 1,
            protocol @ (Protocol::PAP | Protocol::CHAP) => self.handle_auth(now, protocol, payload),
            Protocol::IPCP => self.handle_ipcp(now, payload),
            // Data that came too early, or too late.
            Protocol::IPV4 => self.stats.out_of_phase += 1,
            // CCP, IPV6CP, ACSCP and whatever else: silence would make the client wait for it.
            protocol => self.reject_protocol(protocol, payload),
        }
        self.settle(now);
    }

    /// Takes the answer to an [`Output::Question`].
    pub fn handle_answer(&mut self, now: Instant, question: QuestionId, answer: Answer) {
        if question != self.question || self.down {
            return;
        }
        if let Auth::Server(authenticator) = &mut self.auth {
            authenticator.handle_answer(answer);
        }
        self.settle(now);
    }

    /// Ends the link with a Terminate-Request, or without a word if the layer below is gone.
    pub fn close(&mut self, now: Instant, reason: CloseReason) {
        let lower_down = reason == CloseReason::LowerLayerDown;
        let text = reason.to_string();
        let cause = format!("{text}, in the phase {}", self.phase);
        self.end(now, DownReason::Closed(reason), cause, "nothing, if this was meant", (!lower_down).then_some(&text));
        if lower_down {
            self.finish();
        }
        self.settle(now);
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.finished {
            return;
        }
        self.lcp.handle_timeout(now);
        if let Some(ipcp) = &mut self.ipcp {
            ipcp.handle_timeout(now);
        }
        match &mut self.auth {
            Auth::Server(authenticator) => authenticator.handle_timeout(now),
            Auth::Client(supplicant) => supplicant.handle_timeout(now),
            Auth::None => {}
        }
        self.settle(now);
        while let Some(timer) = self.timers.take_expired(now) {
            self.handle_timer(now, timer);
            self.settle(now);
        }
    }

    /// Notes that authenticated traffic of the peer was seen, so that no echo is needed. Call it at most every few
    /// seconds.
    pub const fn note_inbound(&mut self, now: Instant) {
        self.heard_at = now;
        self.echo_misses = 0;
    }

    /// Notes that data passed in either direction, which restarts the idle timeout. Call it at most every few seconds.
    pub const fn note_data(&mut self, now: Instant) {
        self.data_at = now;
    }

    /// The next thing to do, oldest first.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// When to call [`Link::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.finished {
            return None;
        }
        let auth = match &self.auth {
            Auth::Server(authenticator) => authenticator.deadline(),
            Auth::Client(supplicant) => supplicant.deadline(),
            Auth::None => None,
        };
        let ipcp = self.ipcp.as_ref().and_then(Negotiation::deadline);
        let timer = self.timers.next().map(|(at, _)| at);
        [self.lcp.deadline(), ipcp, auth, timer].into_iter().flatten().min()
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        let mut stats = self.stats;
        stats.retransmissions += self.lcp.retransmissions + self.ipcp.as_ref().map_or(0, |ipcp| ipcp.retransmissions);
        match &self.auth {
            Auth::Server(a) => {
                stats.retransmissions += a.retransmissions;
                stats.malformed += a.malformed;
            }
            Auth::Client(s) => stats.retransmissions += s.retransmissions,
            Auth::None => {}
        }
        stats
    }

    /// Whether [`Event::Finished`] was given.
    pub const fn is_finished(&self) -> bool {
        self.finished
    }

    fn event(&mut self, event: Event) {
        self.output.push_back(Output::Event(event));
    }

    fn send(&mut self, protocol: Protocol, packet: &[u8]) {
        self.stats.frames_out += 1;
        self.output.push_back(Output::Frame(control_frame(protocol, packet)));
    }

    /// Carries what the machines inside have to tell to each other and to the outside, until none has more.
    fn settle(&mut self, now: Instant) {
        loop {
            if let Some(signal) = self.lcp.poll_signal() {
                self.handle_lcp_signal(now, signal);
            } else if let Some(signal) = self.ipcp.as_mut().and_then(Negotiation::poll_signal) {
                self.handle_ipcp_signal(now, signal);
            } else if !self.settle_auth(now) {
                break;
            }
        }
        if self.down && self.lcp.is_down() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if !self.finished {
            self.finished = true;
            self.timers.clear();
            self.event(Event::Finished);
        }
    }

    fn handle_lcp_signal(&mut self, now: Instant, signal: Signal) {
        match signal {
            Signal::Send(packet) => self.send(Protocol::LCP, &packet),
            Signal::Up => self.lcp_up(now),
            Signal::Down => self.lcp_down(now),
            Signal::Finished(event) => {
                let peer = self.peer();
                let cause = match event {
                    crate::automaton::Event::ToMinus => format!("{peer} does not answer LCP"),
                    crate::automaton::Event::RxjMinus => format!("{peer} rejects what no link can do without"),
                    _ => format!("{peer} ended the link"),
                };
                self.refuse(now, cause, "its PPP never started, or packets are lost: see its own log");
            }
            Signal::TerminateRequested(data) => self.peer_terminates(now, &data),
            Signal::Impasse(impasse) => self.refuse(now, impasse.cause, impasse.remedy),
        }
    }

    fn lcp_up(&mut self, now: Instant) {
        if self.down {
            return;
        }
        let lcp = &self.lcp.options;
        let method = lcp.method();
        let up =
            LcpUp { local_mru: lcp.local_mru(), peer_mru: lcp.peer_mru(), method, pfc: lcp.pfc(), acfc: lcp.acfc() };
        self.event(Event::LcpUp(up));
        self.phase = Phase::Authentication;
        let (auth_timeout, echo) = (self.link_config().auth_timeout, self.link_config().echo_interval);
        self.timers.set(Timer::Phase, now + auth_timeout);
        if let Some(interval) = echo {
            self.timers.set(Timer::Echo, now + interval);
        }
        self.start_auth(now, method);
    }

    /// LCP leaves Opened: either the link ends, or the peer negotiates anew.
    fn lcp_down(&mut self, now: Instant) {
        self.timers.cancel(Timer::Echo);
        if self.down {
            return;
        }
        if self.network_up {
            let reason = DownReason::PeerRestarted;
            let text = reason.to_string();
            self.end(now, reason, text.clone(), "", Some(&text));
            return;
        }
        // Before data flowed nothing is lost: all phases begin anew with LCP.
        self.phase = Phase::Lcp;
        self.auth = Auth::None;
        self.ipcp = None;
        self.held_ipcp = None;
        self.question = QuestionId(self.question.0.wrapping_add(1));
        let timeout = self.link_config().lcp_timeout;
        self.timers.set(Timer::Phase, now + timeout);
    }

    fn handle_timer(&mut self, now: Instant, timer: Timer) {
        match timer {
            Timer::Phase => self.phase_timeout(now),
            Timer::Echo => self.echo_due(now),
            Timer::Idle => {
                let Some(idle) = self.idle_timeout else { return };
                let due = self.data_at + idle;
                if due > now {
                    return self.timers.set(Timer::Idle, due);
                }
                self.end(now, DownReason::IdleTimeout, "", "", Some("idle timeout"));
            }
            Timer::Session => {
                let cause = "the session timeout passed before the link was up";
                self.end(now, DownReason::SessionTimeout, cause, "raise the session timeout", Some("session timeout"));
            }
        }
    }

    fn phase_timeout(&mut self, now: Instant) {
        let asking = matches!(&self.auth, Auth::Server(authenticator) if authenticator.is_asking());
        let peer = self.peer();
        match (self.phase, self.last_failure.clone()) {
            (Phase::Lcp, _) => {
                let remedy = "compare the client's PPP settings with the gateway's";
                self.refuse(now, "LCP did not come to an end in time", remedy);
            }
            (Phase::Authentication, _) if asking => {
                let remedy = "see that a controller is reachable from this gateway";
                self.refuse(now, "the controller did not answer in time", remedy);
            }
            (Phase::Authentication, Some((cause, remedy))) => {
                self.refuse(now, format!("{cause}; the user made no further attempt"), &remedy);
            }
            (Phase::Authentication, None) => {
                let remedy = "set a user name and password at the client";
                self.refuse(now, format!("{peer} did not go on with authentication in time"), remedy);
            }
            (Phase::Ipcp, _) => self.refuse(now, "IPCP did not come to an end in time", "see the log of the other end"),
        }
    }

    /// Ends an attempt that failed by our decision, with a Terminate-Request that says why.
    fn refuse(&mut self, now: Instant, cause: impl Into<String>, remedy: &str) {
        let cause = cause.into();
        let reason = if self.network_up { DownReason::Ipcp(cause.clone()) } else { DownReason::Refused };
        self.end(now, reason, cause, remedy, Some("the connection was refused"));
    }

    /// Gives the events of an end, once. `farewell` is what a Terminate-Request says; none is sent without.
    fn end(
        &mut self,
        now: Instant,
        reason: DownReason,
        cause: impl Into<String>,
        remedy: &str,
        farewell: Option<&str>,
    ) {
        if !self.down {
            if !self.network_up {
                let (phase, user) = (self.phase, self.user.clone());
                self.event(Event::Refused(Refusal { phase, user, cause: cause.into(), remedy: remedy.into() }));
            }
            self.down = true;
            self.timers.clear();
            (self.auth, self.held_ipcp) = (Auth::None, None);
            self.event(Event::Down { reason });
        }
        if let Some(text) = farewell {
            self.lcp.close(now, text.as_bytes());
        }
        if let Some(ipcp) = &mut self.ipcp {
            ipcp.lower_down(now);
        }
    }
}

#[cfg(test)]
mod tests;
