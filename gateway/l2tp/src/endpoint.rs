//! All tunnels of one gateway or client: finding the tunnel, limits, timers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sallyport_base::{Instant, PeerId};
use sallyport_crypto::Rng;

use crate::avp::AvpType;
use crate::config::{Config, MAX_WINDOW};
use crate::handle::{Core, End, fresh_id};
use crate::header::{ControlHeader, Packet};
use crate::message::{ControlMessage, Message, Sccrq};
use crate::output::{DownReason, Output, Refusal};
use crate::reliable::{Channel, Expiry};
use crate::result::{ResultCode, stop_ccn};
use crate::stats::Stats;
use crate::timer;
use crate::tunnel::{State, Timer, Tunnel};

/// L2TP's own UDP port: where a LAC sends its first message.
pub const PORT: u16 = 1701;
/// Longer control messages are dropped unseen: with the largest of all AVPs the RFC's are below this.
const MAX_CONTROL_LEN: usize = 8192;
/// How many refused SCCRQs are remembered, so that their retransmissions are not counted as attempts of their own.
const MAX_REFUSED: usize = 1024;

/// All tunnels of one gateway (LNS) or client (LAC).
#[derive(Debug)]
pub struct Endpoint {
    core: Core,
    tunnels: BTreeMap<u16, Tunnel>,
    by_peer: BTreeSet<(PeerId, u16)>,
    /// The earliest deadline of each tunnel that has one.
    schedule: BTreeSet<(Instant, u16)>,
    /// SCCRQs that were refused without a tunnel: when, whose, and the peer's tunnel id.
    refused: VecDeque<(Instant, PeerId, u16)>,
    shutting_down: bool,
}

/// No tunnel or session could be opened: a limit of [`Limits`](crate::Limits) is reached, the endpoint is shutting
/// down, or there is no such tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many tunnels or sessions, or no such tunnel")]
pub struct LimitReached;

impl Endpoint {
    /// An endpoint without tunnels.
    pub fn new(mut config: Config, seed: [u8; 32], now: Instant) -> Self {
        let _ = now;
        config.receive_window = config.receive_window.clamp(1, MAX_WINDOW);
        // Ids are 16 bits wide and 0 is not one; a few stay free so that a random draw finds one soon.
        config.limits.tunnels = config.limits.tunnels.min(65_000);
        config.limits.sessions = config.limits.sessions.min(65_000);
        Self {
            core: Core::new(config, Rng::from_seed(seed)),
            tunnels: BTreeMap::new(),
            by_peer: BTreeSet::new(),
            schedule: BTreeSet::new(),
            refused: VecDeque::new(),
            shutting_down: false,
        }
    }

    /// Takes a control message that came from `peer`'s ESP SA and its UDP port `peer_port`.
    pub fn handle_control(&mut self, now: Instant, peer: PeerId, peer_port: u16, bytes: &[u8]) {
        self.core.stats.messages_in += 1;
        let (header, body) = match Packet::parse(bytes) {
            Ok(Packet::Control(header, body)) if bytes.len() <= MAX_CONTROL_LEN => (header, body),
            Ok(_) | Err(_) => {
                self.core.stats.malformed += 1;
                return;
            }
        };
        if header.tunnel_id == 0 {
            return self.handle_unaddressed(now, peer, peer_port, header, body);
        }
        match self.tunnels.get(&header.tunnel_id) {
            Some(tunnel) if tunnel.peer == peer => {
                self.with_tunnel(now, header.tunnel_id, |core, tunnel| {
                    core.receive(now, tunnel, peer_port, header, body)
                });
            }
            _ => self.core.stats.unknown_tunnel += 1,
        }
    }

    /// A message of a peer that does not know our tunnel id: an SCCRQ, or a StopCCN that takes one back.
    fn handle_unaddressed(&mut self, now: Instant, peer: PeerId, peer_port: u16, header: ControlHeader, body: &[u8]) {
        let message = ControlMessage::parse(header, body, self.core.config.secret.as_ref());
        let kind = message.message_type();
        match kind.and_then(|kind| Message::from_avps(kind, &message.avps)) {
            Some(Message::Sccrq(request)) if header.ns == 0 => {
                self.handle_sccrq(now, peer, peer_port, header, &message, &request);
            }
            Some(Message::StopCcn(stop)) => {
                let found = stop.assigned_tunnel_id.and_then(|id| self.tunnel_of(peer, id));
                match found {
                    Some(id) => self.with_tunnel(now, id, |core, t| core.receive(now, t, peer_port, header, body)),
                    None => self.core.stats.unknown_tunnel += 1,
                }
            }
            _ => self.core.stats.unknown_tunnel += 1,
        }
    }

    /// The live tunnel, opened by `peer`, that has this id on the peer's side.
    fn tunnel_of(&self, peer: PeerId, peer_id: u16) -> Option<u16> {
        let of_peer = self.by_peer.range((peer, 0)..=(peer, u16::MAX));
        let mut ids = of_peer.map(|(_, id)| *id).filter(|id| {
            self.tunnels.get(id).is_some_and(|t| {
                !t.initiator && t.peer_id == peer_id && !matches!(t.state, State::Closed { refused: false })
            })
        });
        ids.next()
    }

    fn handle_sccrq(
        &mut self,
        now: Instant,
        peer: PeerId,
        peer_port: u16,
        header: ControlHeader,
        message: &ControlMessage,
        request: &Sccrq,
    ) {
        let peer_id = request.assigned_tunnel_id.unwrap_or(0);
        if let Some(id) = self.tunnel_of(peer, peer_id).filter(|_| peer_id != 0) {
            // The same peer with the same Assigned Tunnel ID sends it again (or has forgotten its old tunnel).
            let mut replaced = false;
            self.with_tunnel(now, id, |core, tunnel| replaced = core.repeated_sccrq(now, tunnel));
            if !replaced {
                return;
            }
        }
        if let Some(refusal) = self.cannot_open(peer, message, peer_id) {
            return self.refuse_unopened(now, peer, peer_port, peer_id, refusal);
        }
        self.forget_closed_tunnels(peer);
        let mut channel = Channel::new(self.core.config.receive_window, self.core.config.max_retries);
        channel.set_peer_window(request.receive_window_size);
        channel.handle_ns(header, &[]);
        let Some(id) = self.insert(now, peer, peer_port, State::WaitCtlConn, channel) else { return };
        self.with_tunnel(now, id, |core, tunnel| core.handle_sccrq(now, tunnel, message, request));
    }

    /// Why an SCCRQ gets no tunnel, not even one to refuse it in.
    fn cannot_open(&self, peer: PeerId, message: &ControlMessage, peer_id: u16) -> Option<Unopened> {
        let limits = &self.core.config.limits;
        if peer_id == 0 {
            let hidden = message.avps.list.iter().any(|avp| avp.hidden && avp.attribute == AvpType::ASSIGNED_TUNNEL_ID);
            return Some(Unopened {
                code: None,
                cause: "the client's SCCRQ has no usable Assigned Tunnel ID".into(),
                remedy: if hidden {
                    "the client hides AVPs: give the gateway the same L2TP secret, or turn hiding off at the client"
                } else {
                    "the client's L2TP implementation is at fault"
                },
            });
        }
        if !self.core.config.accept_tunnels || self.shutting_down {
            return Some(Unopened {
                code: Some(ResultCode::new(stop_ccn::SHUTDOWN, "no new tunnels are accepted")),
                cause: "this endpoint accepts no new tunnels".into(),
                remedy: "connect to another gateway, or wait until this one is back in service",
            });
        }
        let of_peer = || self.by_peer.range((peer, 0)..=(peer, u16::MAX)).filter_map(|(_, id)| self.tunnels.get(id));
        let live = of_peer().filter(|tunnel| !tunnel.is_closed()).count();
        let full = if live >= limits.tunnels_per_peer {
            Some(("the peer has too many tunnels open", "close the client's other tunnels"))
        } else if self.tunnels.len() >= limits.tunnels && of_peer().all(|tunnel| !tunnel.is_closed()) {
            Some(("the gateway has as many tunnels as it may", "add a gateway, or raise the tunnel limit"))
        } else {
            None
        };
        full.map(|(cause, remedy)| Unopened {
            code: Some(ResultCode::error(crate::result::error_code::RESOURCES, cause)),
            cause: cause.into(),
            remedy,
        })
    }

    /// Answers an SCCRQ with a StopCCN that is sent once and never again: nothing is kept but the fact.
    fn refuse_unopened(&mut self, now: Instant, peer: PeerId, peer_port: u16, peer_id: u16, refusal: Unopened) {
        if let Some(code) = refusal.code {
            let header = ControlHeader { tunnel_id: peer_id, session_id: 0, ns: 0, nr: 1 };
            let local_id = self.fresh_tunnel_id();
            self.core.transmit_stop_ccn(peer, peer_port, header, local_id, code);
        }
        while self.refused.front().is_some_and(|(at, ..)| now.since(*at) > timer::LINGER) {
            self.refused.pop_front();
        }
        if self.refused.iter().any(|(_, p, id)| (*p, *id) == (peer, peer_id)) {
            return;
        }
        if self.refused.len() == MAX_REFUSED {
            self.refused.pop_front();
        }
        self.refused.push_back((now, peer, peer_id));
        self.core.refused(Refusal {
            peer,
            phase: crate::output::Phase::Tunnel,
            local_tunnel: 0,
            host_name: String::new(),
            cause: refusal.cause,
            remedy: refusal.remedy.into(),
        });
    }

    /// Makes room among the peer's tunnels: those that are closed and only linger.
    fn forget_closed_tunnels(&mut self, peer: PeerId) {
        let closed = |id: &u16| self.tunnels.get(id).is_some_and(Tunnel::is_closed);
        let ids: Vec<u16> =
            self.by_peer.range((peer, 0)..=(peer, u16::MAX)).map(|(_, id)| *id).filter(closed).collect();
        let of_peer = self.by_peer.range((peer, 0)..=(peer, u16::MAX)).count();
        let limits = &self.core.config.limits;
        let too_many = (of_peer + 1).saturating_sub(limits.tunnels_per_peer);
        let too_many = too_many.max((self.tunnels.len() + 1).saturating_sub(limits.tunnels));
        for id in ids.into_iter().take(too_many) {
            self.remove(id);
        }
    }

    /// Opens a tunnel with one session in it (LAC); gives our tunnel id, which the events name.
    pub fn connect(&mut self, now: Instant, peer: PeerId) -> Result<u16, LimitReached> {
        if self.shutting_down || self.tunnels.len() >= self.core.config.limits.tunnels {
            return Err(LimitReached);
        }
        let channel = Channel::new(self.core.config.receive_window, self.core.config.max_retries);
        let id = self.insert(now, peer, PORT, State::WaitCtlReply, channel).ok_or(LimitReached)?;
        self.with_tunnel(now, id, |core, tunnel| core.start(now, tunnel));
        Ok(id)
    }

    /// Opens one more session in an established tunnel (LAC); gives our session id.
    pub fn open_session(&mut self, now: Instant, local_tunnel: u16) -> Result<u16, LimitReached> {
        let mut opened = None;
        self.with_tunnel(now, local_tunnel, |core, tunnel| {
            if tunnel.initiator && tunnel.state == State::Established {
                opened = core.request_session(now, tunnel);
            }
        });
        opened.ok_or(LimitReached)
    }

    /// The IPsec peer is gone: drops all that hangs on it, at once and without a word to it.
    pub fn peer_gone(&mut self, now: Instant, peer: PeerId) {
        let ids: Vec<u16> = self.by_peer.range((peer, 0)..=(peer, u16::MAX)).map(|(_, id)| *id).collect();
        for id in ids {
            if let Some(tunnel) = self.tunnels.get_mut(&id) {
                self.core.close(now, tunnel, End::silent(DownReason::PeerGone));
            }
            self.remove(id);
        }
    }

    /// Ends a session with a CDN (result codes: [`cdn`](crate::result::cdn)). An unknown session is no error: it may
    /// have ended at the same moment.
    pub fn disconnect_session(&mut self, now: Instant, local_session: u16, code: ResultCode) {
        let Some(id) = self.core.sessions.get(&local_session).copied() else { return };
        self.with_tunnel(now, id, |core, tunnel| {
            core.end_session(now, tunnel, local_session, Some(code.clone()), DownReason::Local(code));
        });
    }

    /// Ends a tunnel and its sessions with a StopCCN (result codes: [`stop_ccn`](crate::result::stop_ccn)).
    pub fn disconnect_tunnel(&mut self, now: Instant, local_tunnel: u16, code: ResultCode) {
        self.with_tunnel(now, local_tunnel, |core, tunnel| {
            core.close(now, tunnel, End::with_code(code.clone(), DownReason::Local(code)));
        });
    }

    /// Ends all tunnels with a StopCCN that says that we shut down, and accepts no more.
    pub fn shutdown(&mut self, now: Instant) {
        self.shutting_down = true;
        let ids: Vec<u16> = self.tunnels.keys().copied().collect();
        for id in ids {
            self.disconnect_tunnel(now, id, ResultCode::new(stop_ccn::SHUTDOWN, "the gateway is shutting down"));
        }
    }

    /// Notes that a data message of this tunnel's peer was seen, so that no HELLO is needed. Call it at most every few
    /// seconds; without [`Config::hello`](crate::Config::hello) it does nothing.
    pub fn note_inbound(&mut self, now: Instant, local_tunnel: u16) {
        if let Some(tunnel) = self.tunnels.get_mut(&local_tunnel) {
            tunnel.heard_at = now;
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((_, id)) = self.schedule.first().copied().filter(|(at, _)| *at <= now) {
            self.schedule.pop_first();
            if let Some(tunnel) = self.tunnels.get_mut(&id) {
                tunnel.scheduled = None;
            }
            self.with_tunnel(now, id, |core, tunnel| {
                match tunnel.channel.handle_timeout(now) {
                    Expiry::Dead => {
                        core.close(now, tunnel, End::silent(DownReason::PeerSilent));
                        // Nobody is there to whom a late duplicate would have to be acknowledged.
                        tunnel.timers.set(Timer::Linger, now);
                    }
                    Expiry::Resend | Expiry::None => {}
                }
                while let Some(timer) = tunnel.timers.take_expired(now) {
                    core.handle_timer(now, tunnel, timer);
                }
            });
        }
    }

    /// The next thing to do, oldest first.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.core.output.pop_front()
    }

    /// When to call [`Endpoint::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.first().map(|(at, _)| *at)
    }

    /// The counters.
    pub const fn stats(&self) -> &Stats {
        &self.core.stats
    }

    /// How many tunnels are held, those too that only linger.
    pub fn tunnel_count(&self) -> usize {
        self.tunnels.len()
    }

    /// How many sessions are held, those too that are not up yet.
    pub fn session_count(&self) -> usize {
        self.core.sessions.len()
    }

    fn fresh_tunnel_id(&mut self) -> u16 {
        fresh_id(&mut self.core.rng, |id| self.tunnels.contains_key(&id))
    }

    fn insert(&mut self, now: Instant, peer: PeerId, port: u16, state: State, channel: Channel) -> Option<u16> {
        let id = self.fresh_tunnel_id();
        if id == 0 {
            return None;
        }
        self.tunnels.insert(id, Tunnel::new(peer, port, id, state, channel, now));
        self.by_peer.insert((peer, id));
        Some(id)
    }

    fn remove(&mut self, id: u16) {
        if let Some(tunnel) = self.tunnels.remove(&id) {
            self.by_peer.remove(&(tunnel.peer, id));
            if let Some(at) = tunnel.scheduled {
                self.schedule.remove(&(at, id));
            }
        }
    }

    /// Runs `f` on a tunnel, then sends what it has to send and notes its next deadline.
    fn with_tunnel(&mut self, now: Instant, id: u16, f: impl FnOnce(&mut Core, &mut Tunnel)) {
        let Some(tunnel) = self.tunnels.get_mut(&id) else { return };
        f(&mut self.core, tunnel);
        self.core.flush(now, tunnel);
        if tunnel.gone {
            return self.remove(id);
        }
        self.reschedule(id);
    }

    fn reschedule(&mut self, id: u16) {
        let Some(tunnel) = self.tunnels.get_mut(&id) else { return };
        let at = tunnel.deadline();
        if at == tunnel.scheduled {
            return;
        }
        if let Some(old) = tunnel.scheduled {
            self.schedule.remove(&(old, id));
        }
        tunnel.scheduled = at;
        if let Some(at) = at {
            self.schedule.insert((at, id));
        }
    }
}

/// An SCCRQ that gets no tunnel.
struct Unopened {
    /// What the peer is told; nothing if it gave no id to tell it to.
    code: Option<ResultCode>,
    cause: String,
    remedy: &'static str,
}

impl Core {
    /// A StopCCN outside any tunnel.
    fn transmit_stop_ccn(&mut self, peer: PeerId, port: u16, header: ControlHeader, local_id: u16, code: ResultCode) {
        let stop = crate::message::StopCcn { assigned_tunnel_id: Some(local_id), result_code: Some(code) };
        self.transmit(peer, port, Message::StopCcn(stop).emit(header, None));
    }
}

#[cfg(test)]
mod tests;
