//! What each message, timer and command does to a tunnel and its sessions (RFC 2661 §7).

mod session;

use std::collections::{BTreeMap, VecDeque};

use sallyport_base::{Instant, PeerId};
use sallyport_crypto::Rng;

use crate::avp::Fault;
use crate::config::Config;
use crate::header::ControlHeader;
use crate::message::{
    Cdn, ControlMessage, Hello, Iccn, Icrp, Icrq, Message, MessageType, Scccn, Sccrp, Sccrq, StopCcn,
    challenge_response,
};
use crate::output::{DownReason, Event, Output, Phase, Refusal, SessionDown, Transmit, TunnelDown};
use crate::reliable::Arrival;
use crate::result::{ResultCode, cdn, error_code, fault_code, stop_ccn};
use crate::stats::Stats;
use crate::timer;
use crate::tunnel::{Session, SessionState, State, Timer, Tunnel};

/// RFC 2661's version and revision.
const PROTOCOL_VERSION: (u8, u8) = (1, 0);
/// Synchronous and asynchronous framing: over UDP the difference means nothing, and clients offer either.
const FRAMING: u32 = 3;
/// What we say of the speed of a link that has none.
const CONNECT_SPEED: u32 = 1_000_000_000;

/// A random id that is not 0 and not taken; 0 if all are.
pub(crate) fn fresh_id(rng: &mut Rng, taken: impl Fn(u16) -> bool) -> u16 {
    // Limits keep a part of the ids free: a few draws find one, and the walk is for the improbable.
    for _ in 0..64 {
        let id = rng.u16();
        if id != 0 && !taken(id) {
            return id;
        }
    }
    let start = rng.u16();
    (0..=u16::MAX).map(|i| start.wrapping_add(i)).find(|id| *id != 0 && !taken(*id)).unwrap_or(0)
}

/// What all tunnels share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) rng: Rng,
    pub(crate) output: VecDeque<Output>,
    pub(crate) stats: Stats,
    /// The tunnel of each of our session ids.
    pub(crate) sessions: BTreeMap<u16, u16>,
    next_serial: u32,
}

/// How a tunnel ends.
pub(crate) struct End {
    /// What the peer is told by StopCCN.
    code: Option<ResultCode>,
    reason: DownReason,
    /// Cause and remedy, where the reason does not say enough.
    words: Option<(String, &'static str)>,
}

impl End {
    pub(crate) const fn silent(reason: DownReason) -> Self {
        Self { code: None, reason, words: None }
    }

    pub(crate) const fn with_code(code: ResultCode, reason: DownReason) -> Self {
        Self { code: Some(code), reason, words: None }
    }

    fn refusing(code: ResultCode, cause: impl Into<String>, remedy: &'static str) -> Self {
        Self { reason: DownReason::Local(code.clone()), code: Some(code), words: Some((cause.into(), remedy)) }
    }
}

impl Core {
    pub(crate) const fn new(config: Config, rng: Rng) -> Self {
        Self { config, rng, output: VecDeque::new(), stats: Stats::new(), sessions: BTreeMap::new(), next_serial: 1 }
    }

    pub(crate) fn transmit(&mut self, peer: PeerId, peer_port: u16, bytes: Vec<u8>) {
        self.stats.messages_out += 1;
        self.output.push_back(Output::Transmit(Transmit { peer, peer_port, bytes }));
    }

    fn event(&mut self, event: Event) {
        self.output.push_back(Output::Event(event));
    }

    pub(crate) fn refused(&mut self, refusal: Refusal) {
        self.stats.refused += 1;
        self.event(Event::Refused(refusal));
    }

    fn refuse(&mut self, tunnel: &mut Tunnel, phase: Phase, cause: impl Into<String>, remedy: impl Into<String>) {
        tunnel.told = true;
        self.refused(Refusal {
            peer: tunnel.peer,
            phase,
            local_tunnel: tunnel.local_id,
            host_name: tunnel.host_name.clone(),
            cause: cause.into(),
            remedy: remedy.into(),
        });
    }

    /// Sends whatever the window lets through, and an acknowledgement if one is still owed then.
    pub(crate) fn flush(&mut self, now: Instant, tunnel: &mut Tunnel) {
        while let Some((bytes, again)) = tunnel.channel.poll_transmit(now, (tunnel.peer_id, 0)) {
            self.stats.retransmissions += u64::from(again);
            self.transmit(tunnel.peer, tunnel.peer_port, bytes);
        }
    }

    fn send(&mut self, tunnel: &mut Tunnel, session_id: u16, message: &Message) {
        let header = ControlHeader { tunnel_id: tunnel.peer_id, session_id, ns: 0, nr: 0 };
        let random = self.rng.bytes();
        let secret = self.config.secret.as_ref().filter(|_| self.config.hide_avps);
        tunnel.channel.push(message.emit(header, secret.map(|secret| (secret, random))));
    }

    /// Takes a message that is addressed to this tunnel.
    pub(crate) fn receive(&mut self, now: Instant, t: &mut Tunnel, port: u16, header: ControlHeader, body: &[u8]) {
        t.heard_at = now;
        if t.state == State::WaitCtlReply {
            t.peer_port = port; // An LNS may answer from another port than the one it was asked at (§8.1).
        }
        t.channel.handle_nr(now, header.nr);
        if body.is_empty() {
            return; // A ZLB, whatever session id its header has.
        }
        match t.channel.handle_ns(header, body) {
            Arrival::InOrder => {
                self.handle_message(now, t, header, body);
                while let Some((header, body)) = t.channel.next_early() {
                    self.handle_message(now, t, header, &body);
                }
            }
            Arrival::Early => self.stats.out_of_order += 1,
            Arrival::Duplicate => self.stats.duplicates += 1,
            Arrival::Dropped => self.stats.outside_window += 1,
        }
    }

    fn handle_message(&mut self, now: Instant, t: &mut Tunnel, header: ControlHeader, body: &[u8]) {
        if t.is_closed() {
            return; // It is acknowledged, and that is all.
        }
        let message = ControlMessage::parse(header, body, self.config.secret.as_ref());
        let Some(kind) = message.message_type() else {
            let fault = message.avps.fault.map_or_else(|| "no Message Type".into(), |fault| fault.to_string());
            let code = ResultCode::error(error_code::RANGE, fault.as_str());
            return self.close(now, t, End::refusing(code, fault, "the client's L2TP implementation is at fault"));
        };
        let Some(typed) = Message::from_avps(kind, &message.avps) else {
            // The M bit of the Message Type says whether an unknown message may be skipped (§4.4.1).
            if message.avps.list.first().is_some_and(|avp| avp.mandatory) {
                let cause = format!("unknown mandatory message type {kind}");
                let code = ResultCode::error(error_code::UNKNOWN_AVP, cause.as_str());
                self.close(now, t, End::refusing(code, cause, "the client's L2TP implementation is at fault"));
            }
            return;
        };
        // An end is an end, however broken the message is: see Apple's Result Code.
        let fault = message.avps.fault.filter(|_| !matches!(typed, Message::StopCcn(_) | Message::Cdn(_)));
        match fault {
            Some(fault) => self.handle_fault(now, t, kind, header, &typed, &fault),
            None => self.dispatch(now, t, header, typed),
        }
    }

    fn handle_fault(
        &mut self,
        now: Instant,
        t: &mut Tunnel,
        kind: MessageType,
        header: ControlHeader,
        message: &Message,
        fault: &Fault,
    ) {
        let (code, cause) = (fault_code(fault), format!("{kind}: {fault}"));
        let remedy = fault_remedy(fault);
        if !kind.is_about_session() {
            return self.close(now, t, End::refusing(code, cause, remedy));
        }
        if t.sessions.contains_key(&header.session_id) {
            return self.end_session(now, t, header.session_id, Some(code.clone()), DownReason::Local(code));
        }
        if let Message::Icrq(Icrq { assigned_session_id: Some(peer_session), .. }) = message {
            self.refuse_session(t, *peer_session, code, cause, remedy);
        }
    }

    fn dispatch(&mut self, now: Instant, t: &mut Tunnel, header: ControlHeader, message: Message) {
        match (message, t.state) {
            (Message::StopCcn(stop), _) => {
                let code = stop.result_code.unwrap_or_default();
                self.close(now, t, End::silent(DownReason::PeerEndedTunnel(code)));
            }
            (Message::Sccrp(reply), State::WaitCtlReply) => self.handle_sccrp(now, t, &reply),
            (Message::Scccn(connected), State::WaitCtlConn) => self.handle_scccn(now, t, &connected),
            (Message::Icrq(request), State::Established) => self.handle_icrq(now, t, &request),
            (Message::Icrp(reply), State::Established) => self.handle_icrp(now, t, header.session_id, &reply),
            (Message::Iccn(connected), State::Established) => self.handle_iccn(now, t, header.session_id, &connected),
            (Message::Cdn(cdn), State::Established) => {
                let by_header = Some(header.session_id).filter(|id| t.sessions.contains_key(id));
                let by_avp = cdn.assigned_session_id.and_then(|id| t.session_of_peer(id));
                let code = cdn.result_code.unwrap_or_default();
                if let Some(id) = by_header.or(by_avp) {
                    self.end_session(now, t, id, None, DownReason::PeerEndedSession(code));
                }
            }
            (Message::Ocrq(request), State::Established) => {
                let code = ResultCode::new(cdn::NO_FACILITIES, "no outgoing calls");
                let peer_session = request.assigned_session_id.unwrap_or(0);
                let cause = "the peer asked for an outgoing call";
                self.refuse_session(t, peer_session, code, cause, "only incoming calls are served here");
            }
            // HELLO wants its acknowledgement and nothing else; WEN and SLI tell of lines that we do not have.
            (Message::Hello(_) | Message::Wen(_) | Message::Sli(_) | Message::Ocrp(_) | Message::Occn(_), _) => {}
            (message, _) => {
                let cause = format!("unexpected {} in state {:?}", message.message_type(), t.state);
                let code = ResultCode::new(stop_ccn::STATE, cause.as_str());
                self.close(now, t, End::refusing(code, cause, "the client's L2TP implementation is at fault"));
            }
        }
    }

    /// LAC: sends SCCRQ.
    pub(crate) fn start(&mut self, now: Instant, t: &mut Tunnel) {
        t.challenge = self.config.secret.is_some().then(|| self.rng.bytes());
        let request = Sccrq {
            protocol_version: Some(PROTOCOL_VERSION),
            framing_capabilities: Some(FRAMING),
            bearer_capabilities: Some(0),
            host_name: Some(self.config.host_name.clone()),
            vendor_name: Some(self.config.vendor_name.clone()).filter(|name| !name.is_empty()),
            assigned_tunnel_id: Some(t.local_id),
            receive_window_size: Some(self.config.receive_window),
            challenge: t.challenge.map(|challenge| challenge.to_vec()),
            ..Sccrq::default()
        };
        self.send(t, 0, &Message::Sccrq(request));
        t.timers.set(Timer::Setup, now + self.config.setup_timeout);
    }

    /// LNS: the SCCRQ that a new tunnel was made for.
    pub(crate) fn handle_sccrq(&mut self, now: Instant, t: &mut Tunnel, message: &ControlMessage, request: &Sccrq) {
        t.peer_id = request.assigned_tunnel_id.unwrap_or(0);
        t.host_name = request.host_name.clone().unwrap_or_default();
        t.vendor_name = request.vendor_name.clone().unwrap_or_default();
        if let Some(fault) = &message.avps.fault {
            return self.close(
                now,
                t,
                End::refusing(fault_code(fault), format!("SCCRQ: {fault}"), fault_remedy(fault)),
            );
        }
        if let Some(end) = refuse_version(request.protocol_version) {
            return self.close(now, t, end);
        }
        let response = match self.answer_challenge(MessageType::SCCRP, request.challenge.as_deref()) {
            Ok(response) => response,
            Err(end) => return self.close(now, t, end),
        };
        t.challenge = self.config.secret.is_some().then(|| self.rng.bytes());
        let reply = Sccrp {
            protocol_version: Some(PROTOCOL_VERSION),
            framing_capabilities: Some(FRAMING),
            bearer_capabilities: Some(0),
            firmware_revision: None,
            host_name: Some(self.config.host_name.clone()),
            vendor_name: Some(self.config.vendor_name.clone()).filter(|name| !name.is_empty()),
            assigned_tunnel_id: Some(t.local_id),
            receive_window_size: Some(self.config.receive_window),
            challenge: t.challenge.map(|challenge| challenge.to_vec()),
            challenge_response: response,
        };
        self.send(t, 0, &Message::Sccrp(reply));
        t.timers.set(Timer::Setup, now + self.config.setup_timeout);
    }

    /// An SCCRQ with an id that this tunnel has already: a retransmission (whose answer was lost, or is on its way) or,
    /// long after the tunnel came up, a client that has started anew. Says whether the tunnel made room for it.
    pub(crate) fn repeated_sccrq(&mut self, now: Instant, t: &mut Tunnel) -> bool {
        self.stats.duplicates += 1;
        match t.state {
            State::Established if now.since(t.established_at) >= timer::LINGER => {
                self.close(now, t, End::silent(DownReason::Replaced));
                t.gone = true;
                return true;
            }
            State::Established => t.channel.owe_ack(),
            // The SCCRP or StopCCN goes again at once, and acknowledges.
            State::WaitCtlConn | State::Closed { .. } | State::WaitCtlReply => t.channel.resend_first(),
        }
        false
    }

    /// LAC: SCCRP.
    fn handle_sccrp(&mut self, now: Instant, t: &mut Tunnel, reply: &Sccrp) {
        let peer_id = reply.assigned_tunnel_id.unwrap_or(0);
        t.peer_id = peer_id;
        t.host_name = reply.host_name.clone().unwrap_or_default();
        t.vendor_name = reply.vendor_name.clone().unwrap_or_default();
        t.channel.set_peer_window(reply.receive_window_size);
        if peer_id == 0 {
            let code = ResultCode::error(error_code::RANGE, "no Assigned Tunnel ID");
            return self.close(now, t, End::refusing(code, "the server's SCCRP has no Assigned Tunnel ID", SERVER));
        }
        if let Some(end) = refuse_version(reply.protocol_version) {
            return self.close(now, t, end);
        }
        if let Err(end) = self.check_response(t, MessageType::SCCRP, reply.challenge_response.as_deref()) {
            return self.close(now, t, end);
        }
        let response = match self.answer_challenge(MessageType::SCCCN, reply.challenge.as_deref()) {
            Ok(response) => response,
            Err(end) => return self.close(now, t, end),
        };
        self.send(t, 0, &Message::Scccn(Scccn { challenge_response: response }));
        self.established(now, t);
        self.request_session(now, t);
    }

    /// LNS: SCCCN.
    fn handle_scccn(&mut self, now: Instant, t: &mut Tunnel, connected: &Scccn) {
        match self.check_response(t, MessageType::SCCCN, connected.challenge_response.as_deref()) {
            Ok(()) => self.established(now, t),
            Err(end) => self.close(now, t, end),
        }
    }

    fn established(&mut self, now: Instant, t: &mut Tunnel) {
        t.state = State::Established;
        t.established_at = now;
        t.challenge = None;
        t.timers.cancel(Timer::Setup);
        t.timers.set(Timer::Empty, now + self.config.empty_tunnel_timeout);
        if let Some(interval) = self.config.hello {
            t.timers.set(Timer::Hello, now + interval);
        }
        self.stats.tunnels_up += 1;
        self.event(Event::TunnelUp(t.info()));
    }

    fn answer_challenge(&self, carrier: MessageType, challenge: Option<&[u8]>) -> Result<Option<Vec<u8>>, End> {
        match (challenge, &self.config.secret) {
            (None, _) => Ok(None),
            (Some(challenge), Some(secret)) => Ok(Some(challenge_response(carrier, secret, challenge).to_vec())),
            (Some(_), None) => Err(End::refusing(
                ResultCode::new(stop_ccn::NOT_AUTHORIZED, "no tunnel secret is configured here"),
                "the peer asks for L2TP tunnel authentication, and no L2TP secret is configured here",
                "leave the \"L2TP secret\" of the client empty, or configure the same secret at the gateway",
            )),
        }
    }

    fn check_response(&self, t: &Tunnel, carrier: MessageType, response: Option<&[u8]>) -> Result<(), End> {
        let (Some(challenge), Some(secret)) = (&t.challenge, &self.config.secret) else { return Ok(()) };
        let expected = challenge_response(carrier, secret, challenge);
        let (cause, remedy) = match response {
            Some(response) if sallyport_crypto::ct_eq(&expected, response) => return Ok(()),
            Some(_) => ("the peer's L2TP secret is another one", "make the L2TP secrets of client and gateway equal"),
            None => ("the peer has no L2TP secret", "set the gateway's L2TP secret at the client, or remove it here"),
        };
        Err(End::refusing(ResultCode::new(stop_ccn::NOT_AUTHORIZED, "tunnel authentication failed"), cause, remedy))
    }

    /// Ends a tunnel and its sessions; afterwards it only lingers.
    pub(crate) fn close(&mut self, now: Instant, t: &mut Tunnel, end: End) {
        if t.is_closed() {
            return;
        }
        let ids: Vec<u16> = t.sessions.keys().copied().collect();
        for id in ids {
            self.forget_session(t, id, &end.reason);
        }
        let was_established = t.state == State::Established;
        let (cause, remedy) = end.words.unwrap_or_else(|| (end.reason.to_string(), reason_remedy(&end.reason)));
        if !was_established {
            self.refuse(t, Phase::Tunnel, cause, remedy);
        } else {
            if !t.told {
                self.refuse(t, Phase::Session, format!("no session was opened: {cause}"), remedy);
            }
            self.event(Event::TunnelDown(TunnelDown { peer: t.peer, local_tunnel: t.local_id, reason: end.reason }));
        }
        t.state = State::Closed { refused: !was_established };
        t.timers.clear();
        t.timers.set(Timer::Linger, now + timer::LINGER);
        match end.code {
            Some(code) => {
                t.channel.drop_unsent();
                let stop = StopCcn { assigned_tunnel_id: Some(t.local_id), result_code: Some(code) };
                self.send(t, 0, &Message::StopCcn(stop));
            }
            None => t.channel.drop_queue(),
        }
    }

    pub(crate) fn handle_timer(&mut self, now: Instant, t: &mut Tunnel, timer: Timer) {
        match timer {
            Timer::Linger => t.gone = true,
            Timer::Setup => {
                let code = ResultCode::new(stop_ccn::CLEAR, "the tunnel did not come up in time");
                self.close(now, t, End::with_code(code, DownReason::SetupTimeout));
            }
            Timer::Session(id) => {
                let code = ResultCode::new(cdn::TIMEOUT, "the session did not come up in time");
                self.end_session(now, t, id, Some(code), DownReason::SetupTimeout);
            }
            Timer::Empty => {
                let code = ResultCode::new(stop_ccn::CLEAR, "no session");
                self.close(now, t, End::with_code(code, DownReason::Empty));
            }
            Timer::Hello => {
                let Some(interval) = self.config.hello else { return };
                let due = t.heard_at + interval;
                if due > now {
                    return t.timers.set(Timer::Hello, due);
                }
                // A message that is under way asks the same question already.
                if t.channel.is_idle() {
                    self.send(t, 0, &Message::Hello(Hello {}));
                }
                t.timers.set(Timer::Hello, now + interval);
            }
        }
    }
}

const SERVER: &str = "the server's L2TP implementation is at fault";

fn refuse_version(version: Option<(u8, u8)>) -> Option<End> {
    let (major, minor) = version.filter(|(major, _)| *major != PROTOCOL_VERSION.0)?;
    let code = ResultCode { result: stop_ccn::VERSION, error: Some(0x0100), message: None };
    let cause = format!("the peer speaks L2TP {major}.{minor}");
    Some(End::refusing(code, cause, "set the client to L2TPv2 (protocol version 1.0)"))
}

const fn fault_remedy(fault: &Fault) -> &'static str {
    match fault {
        Fault::Hidden(_) => "give client and gateway the same L2TP secret, or turn AVP hiding off at the client",
        Fault::Unrecognized { .. } => "turn off the extension of the client that this AVP belongs to",
        Fault::Malformed(_) | Fault::BadValue(_) => "the client's L2TP implementation is at fault",
    }
}

const fn reason_remedy(reason: &DownReason) -> &'static str {
    match reason {
        DownReason::PeerEndedSession(_) | DownReason::PeerEndedTunnel(_) => {
            "the client gave up: see its own log for the reason"
        }
        DownReason::Local(_) => "see the cause",
        DownReason::PeerSilent | DownReason::SetupTimeout => {
            "replies do not reach the client: look at NAT, firewalls and packet loss between it and the gateway"
        }
        DownReason::PeerGone => "see the record of the IPsec connection",
        DownReason::Replaced => "nothing: the newer attempt has its own record",
        DownReason::Empty => "the client opened a tunnel and asked for no session: see its own log",
    }
}
