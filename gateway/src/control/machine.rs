//! The control plane as a machine without I/O: IKE, L2TP and PPP stacked, driven by what the data plane and the
//! controllers say.
//!
//! The runner (`super::run`) feeds it and carries out its [`Output`]s. It asks nobody itself: decisions are questions
//! with a number, expensive work is a job with a number, and both come back as calls.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use sallyport_base::{Instant, PeerId};
use sallyport_crypto::Rng;
use sallyport_crypto::suite::EspKeys;
use sallyport_esp::{InboundSa, OutboundSa, SaConfig};
use sallyport_ike as ike;
use sallyport_l2tp as l2tp;
use sallyport_ppp as ppp;
use sallyport_proto::v1;
use tracing::{debug, info, warn};

use super::audit::{self, Who};
use super::controller::{Report, Vitals};
use super::session::{self, Session};
use crate::clock::Clock;
use crate::link::{FromData, InstallSa, InstallSession, OuterPath, SessionCounters, SessionNetwork, ToData};

/// Early PPP frames kept for a session whose ICCN is on its way, and how many such frames there may be in all.
const EARLY_FRAMES: usize = 256;

/// Verified certificates whose peer is not up yet.
const VERIFIED: usize = 8_192;

/// Reports of sessions whose counters have changed, per second and gateway.
const REPORTS_PER_SECOND: u64 = 200;

/// What the runner has to do.
#[derive(Debug)]
pub enum Output {
    /// Tell the data plane.
    Data(ToData),
    /// Do this work, on another thread if it likes, and call [`Machine::handle_job`].
    Job(ike::JobId, ike::Job),
    /// Ask the controllers, and call [`Machine::handle_decision`].
    Authenticate(u64, Box<v1::AuthenticateRequest>),
    /// Tell the controllers.
    Report(Report),
}

/// Settings of the machine.
#[derive(Debug)]
pub struct Config {
    /// IKE.
    pub ike: ike::Config,
    /// L2TP.
    pub l2tp: l2tp::Config,
    /// PPP; the methods come from the policy.
    pub ppp: ppp::ServerConfig,
    /// Most kilobytes that one ESP SA carries, whatever the client proposes.
    pub esp_kilobytes: u64,
    /// How often the controllers hear of each live session.
    pub report_interval: Duration,
}

/// A peer of IKE, as far as the layers above care.
struct Peer {
    who: Who,
    local: SocketAddr,
    suite: String,
    certificate_serial: String,
    /// Inbound SPIs that are installed.
    spis: BTreeSet<u32>,
    /// Whether the newest of them travels in UDP.
    encap: bool,
}

/// The control plane.
pub struct Machine {
    config: Config,
    ike: ike::Endpoint,
    l2tp: l2tp::Endpoint,
    peers: BTreeMap<PeerId, Peer>,
    /// By our L2TP session id, which is unique over the endpoint.
    sessions: BTreeMap<u16, Session>,
    /// When each session's link wants to be called.
    deadlines: BTreeSet<(Instant, u16)>,
    scheduled: BTreeMap<u16, Instant>,
    /// Serials of verified certificates by the token that IKE hands back, until their peer is up.
    certificates: BTreeMap<u64, String>,
    next_token: u64,
    /// Why peers that are being taken down go, for the records of their sessions.
    down_reasons: BTreeMap<PeerId, ike::DownReason>,
    /// Which session asked which question.
    questions: BTreeMap<u64, u16>,
    next_question: u64,
    /// PPP frames that overtook their ICCN.
    early: VecDeque<(PeerId, u16, Vec<u8>)>,
    rng: Rng,
    out: VecDeque<Output>,
    /// No new sessions; set by [`Machine::shutdown`].
    closing: bool,
}

impl Machine {
    /// A machine without peers.
    pub fn new(config: Config, seed: [u8; 32], now: Instant) -> Self {
        let mut rng = Rng::from_seed(seed);
        Self {
            ike: ike::Endpoint::new(config.ike.clone(), rng.bytes(), now),
            l2tp: l2tp::Endpoint::new(config.l2tp.clone(), rng.bytes(), now),
            config,
            peers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            scheduled: BTreeMap::new(),
            certificates: BTreeMap::new(),
            next_token: 1,
            down_reasons: BTreeMap::new(),
            questions: BTreeMap::new(),
            next_question: 1,
            early: VecDeque::new(),
            rng,
            out: VecDeque::new(),
            closing: false,
        }
    }

    /// The next thing to do; drain after each call.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When [`Machine::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.ike.poll_timeout(), self.l2tp.poll_timeout(), self.deadlines.first().map(|(at, _)| *at)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Figures for the heartbeat and the metrics.
    pub fn vitals(&self) -> Vitals {
        let up = self.sessions.values().filter(|s| s.up).count();
        Vitals {
            live_sessions: u32::try_from(up).unwrap_or(u32::MAX),
            half_open: u32::try_from(self.ike.gauges().half_open).unwrap_or(u32::MAX),
        }
    }

    /// First messages of IKE that were answered and whose senders have not shown yet that they hear us.
    pub fn embryonic(&self) -> usize {
        self.ike.gauges().embryonic
    }

    /// Peers that IKE knows.
    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    /// Counters of the protocol machines.
    pub fn stats(&self) -> (&ike::Stats, &l2tp::Stats) {
        (self.ike.stats(), self.l2tp.stats())
    }

    /// A new policy: roots and PSK for IKE, methods for PPP. Sessions that are up stay.
    pub fn set_policy(&mut self, ike: ike::Config, ppp: ppp::ServerConfig) {
        self.ike.set_config(ike);
        self.config.ppp = ppp;
    }

    /// Something from the data plane.
    pub fn handle_data(&mut self, now: Instant, message: FromData) {
        match message {
            FromData::IkeDatagram { local, remote, bytes } => self.ike.handle_datagram(now, local, remote, &bytes),
            FromData::L2tpControl { peer, peer_port, bytes } => {
                self.l2tp.handle_control(now, peer, peer_port, &bytes);
            }
            FromData::PppFrame { peer, local_tunnel: _, local_session, frame } => {
                self.handle_frame(now, peer, local_session, frame);
            }
            FromData::SaSoftLimit { peer: _, spi_in } => self.ike.child_expiring(now, spi_in),
            FromData::PeerMoved { peer, local, remote } => {
                self.ike.note_moved(now, peer, local, remote);
                self.peer_moved(peer, local, remote);
            }
            FromData::Liveness { peers } => {
                for peer in peers {
                    self.ike.note_inbound(now, peer);
                }
            }
            FromData::CounterSnapshot { sessions } => {
                for counters in sessions {
                    self.note_counters(now, counters);
                }
            }
            FromData::Stopped { reason } => warn!(reason, "a data worker ended"),
        }
        self.pump(now);
    }

    /// The answer to a job.
    pub fn handle_job(&mut self, now: Instant, id: ike::JobId, answer: ike::Answer) {
        self.ike.handle_answer(now, id, answer);
        self.pump(now);
    }

    /// The certificate of a peer was verified and admitted under this name.
    pub fn handle_verified(&mut self, now: Instant, id: ike::JobId, name: String, serial: String) {
        let token = self.next_token;
        self.next_token += 1;
        self.certificates.insert(token, serial);
        // A peer that fails after its certificate was good leaves its entry behind.
        if self.certificates.len() > VERIFIED {
            self.certificates.pop_first();
        }
        self.handle_job(now, id, ike::Answer::Verified(ike::Verified { name, token }));
    }

    /// The controller's answer to a question of [`Output::Authenticate`].
    pub fn handle_decision(
        &mut self,
        now: Instant,
        question: u64,
        decision: Result<v1::authenticate_response::Decision, String>,
    ) {
        let (answer, accepted, unusable) = session::answer(decision);
        let asked = self.questions.remove(&question).and_then(|id| {
            let session = self.sessions.get_mut(&id)?;
            let (_, link_question) = session.asked.take_if(|(q, _)| *q == question)?;
            Some((id, link_question))
        });
        match asked {
            Some((id, link_question)) => {
                let mut earlier = None;
                if let Some(session) = self.sessions.get_mut(&id) {
                    // A client that negotiates LCP anew before it is up authenticates anew, and gets a new session.
                    earlier = std::mem::replace(&mut session.accepted, accepted);
                    session.link.handle_answer(now, link_question, answer);
                }
                self.give_back(earlier.map(|a| a.session_id));
                self.pump_link(now, id);
            }
            // Whoever asked is gone: give the session back at once, not after a timeout.
            None => self.give_back(accepted.map(|a| a.session_id)),
        }
        self.give_back(unusable);
        self.pump(now);
    }

    fn give_back(&mut self, session_id: Option<String>) {
        let Some(session_id) = session_id else { return };
        self.out.push_back(Output::Report(Report::Session(v1::SessionReport {
            session_id,
            state: v1::SessionState::Down.into(),
            end_reason: v1::EndReason::NeverUp.into(),
            end_text: "the client left before it had its address".into(),
            time_unix_ms: Clock::unix_ms(),
            ..v1::SessionReport::default()
        })));
    }

    /// A controller's command.
    pub fn handle_command(&mut self, now: Instant, command: v1::Command) {
        match command.action {
            Some(v1::command::Action::KillSession(kill)) => {
                let reason = match kill.reason() {
                    v1::EndReason::Revoked => ppp::CloseReason::Revoked,
                    _ => ppp::CloseReason::Operator,
                };
                self.close_session(now, &kill.session_id, reason);
            }
            Some(v1::command::Action::DropMachine(drop)) => {
                let doomed: Vec<PeerId> = self
                    .peers
                    .iter()
                    .filter(|(_, p)| p.certificate_serial == drop.certificate_serial)
                    .map(|(id, _)| *id)
                    .collect();
                for peer in doomed {
                    info!(%peer, serial = drop.certificate_serial, "the machine's certificate was revoked");
                    self.drop_peer(now, peer, ppp::CloseReason::Revoked);
                }
            }
            None => {}
        }
        self.pump(now);
    }

    /// Sessions that the controllers no longer know as ours.
    pub fn handle_unknown_sessions(&mut self, now: Instant, sessions: &[String]) {
        for session_id in sessions {
            self.close_session(now, session_id, ppp::CloseReason::Replaced);
        }
        self.pump(now);
    }

    fn close_session(&mut self, now: Instant, session_id: &str, reason: ppp::CloseReason) {
        let found = self
            .sessions
            .iter()
            .find(|(_, s)| s.accepted.as_ref().is_some_and(|a| a.session_id == session_id))
            .map(|(id, _)| *id);
        match found {
            Some(id) => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.link.close(now, reason);
                }
                self.pump_link(now, id);
            }
            None => debug!(session_id, "asked to end a session that is not here"),
        }
    }

    /// Ends everything in order: PPP says goodbye, then L2TP, then IKE.
    pub fn shutdown(&mut self, now: Instant) {
        self.closing = true;
        let ids: Vec<u16> = self.sessions.keys().copied().collect();
        for id in ids {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.link.close(now, ppp::CloseReason::Shutdown);
            }
            self.pump_link(now, id);
        }
        self.pump(now);
    }

    /// After [`Machine::shutdown`]: whether all sessions have said goodbye.
    pub fn is_idle(&self) -> bool {
        self.sessions.is_empty()
    }

    /// The last words: StopCCN and Delete for everything that is left.
    pub fn farewell(&mut self, now: Instant) {
        self.l2tp.shutdown(now);
        self.pump(now);
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        for peer in peers {
            self.ike.disconnect(now, peer, "the gateway shuts down");
        }
        self.pump(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.ike.handle_timeout(now);
        self.l2tp.handle_timeout(now);
        while let Some((at, id)) = self.deadlines.first().copied()
            && at <= now
        {
            self.unschedule(id);
            if let Some(session) = self.sessions.get_mut(&id) {
                session.link.handle_timeout(now);
                if session.next_report.is_some_and(|at| at <= now) {
                    session.next_report = Some(now + self.config.report_interval);
                    session.last_report = Some(now);
                    if let Some(report) = session.report(v1::SessionState::Up, Clock::unix_ms()) {
                        self.out.push_back(Output::Report(Report::Session(report)));
                    }
                }
            }
            self.pump_link(now, id);
        }
        self.pump(now);
    }

    fn unschedule(&mut self, id: u16) {
        if let Some(at) = self.scheduled.remove(&id) {
            self.deadlines.remove(&(at, id));
        }
    }

    fn schedule(&mut self, id: u16) {
        self.unschedule(id);
        let Some(session) = self.sessions.get(&id) else { return };
        let next = session.link.poll_timeout().into_iter().chain(session.next_report).min();
        if let Some(at) = next {
            self.scheduled.insert(id, at);
            self.deadlines.insert((at, id));
        }
    }

    /// Carries outputs between the layers until none has anything to say.
    fn pump(&mut self, now: Instant) {
        loop {
            if let Some(output) = self.ike.poll_output() {
                self.handle_ike(now, output);
            } else if let Some(output) = self.l2tp.poll_output() {
                self.handle_l2tp(now, output);
            } else {
                break;
            }
        }
    }

    fn handle_ike(&mut self, now: Instant, output: ike::Output) {
        match output {
            ike::Output::Transmit { local, remote, bytes } => self.data(ToData::SendIke { local, remote, bytes }),
            ike::Output::Job { id, job } => self.out.push_back(Output::Job(id, job)),
            // A gateway behind a NAT is reached through a fixed mapping: there is nothing to keep alive.
            ike::Output::Keepalive { .. } => {}
            ike::Output::Event(event) => self.handle_ike_event(now, event),
        }
    }

    fn handle_ike_event(&mut self, now: Instant, event: ike::Event) {
        match event {
            ike::Event::PeerUp(up) => self.peer_up(up),
            ike::Event::PeerRekeyed { peer, token } => {
                info!(%peer, "ISAKMP SA rekeyed");
                // The machine may have a newer certificate by now: its revocation must find the peer.
                if let (Some(serial), Some(p)) = (self.certificates.remove(&token), self.peers.get_mut(&peer)) {
                    if let Some(machine) = &mut p.who.machine {
                        machine.certificate_serial.clone_from(&serial);
                    }
                    p.certificate_serial = serial;
                }
            }
            ike::Event::PeerMoved { peer, local, remote } => {
                self.peer_moved(peer, local, remote);
                // Where the peer is changes; how its ESP travels was negotiated.
                let encap = self.peers.get(&peer).is_none_or(|p| p.encap);
                self.data(ToData::MovePeer { peer, path: OuterPath { local, remote, encap } });
            }
            ike::Event::ChildPrepared(child) => self.install(&child, false),
            ike::Event::ChildUp(child) => {
                let known = self.peers.get(&child.peer).is_some_and(|p| p.spis.contains(&child.spi_in));
                if known {
                    self.data(ToData::SwitchOutbound { spi_in: child.spi_in });
                } else {
                    self.install(&child, true);
                }
                if let Some(peer) = self.peers.get_mut(&child.peer) {
                    peer.suite = child.suite.to_string();
                }
                info!(
                    peer = %child.peer, spi_in = format_args!("{:08x}", child.spi_in), suite = %child.suite,
                    encap = child.udp_encap, replaces = child.replaces.is_some(), "ESP SA up"
                );
            }
            ike::Event::ChildDown { peer, spi_in, reason } => {
                let installed = self.peers.get_mut(&peer).is_some_and(|p| p.spis.remove(&spi_in));
                if installed {
                    info!(%peer, spi_in = format_args!("{spi_in:08x}"), %reason, "ESP SA down");
                    self.data(ToData::RemoveSa { spi_in });
                }
            }
            ike::Event::PeerDown { peer, reason } => {
                info!(%peer, %reason, "peer gone");
                self.down_reasons.insert(peer, reason);
                self.l2tp.peer_gone(now, peer);
                while let Some(output) = self.l2tp.poll_output() {
                    self.handle_l2tp(now, output);
                }
                self.down_reasons.remove(&peer);
                self.peers.remove(&peer);
                self.data(ToData::RemovePeer { peer });
            }
            ike::Event::Refused(r) => {
                let mut who = r.peer.and_then(|p| self.peers.get(&p)).map(|p| p.who.clone()).unwrap_or_default();
                who.remote = r.remote.to_string();
                if let Some(identity) = r.identity {
                    who.claimed_identity = identity;
                }
                let phase = match r.phase {
                    ike::Phase::QuickMode => v1::Phase::IkeQuickMode,
                    ike::Phase::MainMode | ike::Phase::Other => v1::Phase::IkeMainMode,
                };
                let cause = match r.suppressed {
                    0 => r.cause,
                    n => format!("{} ({n} more refusals of strangers before this one are not listed)", r.cause),
                };
                self.refused(None, &who, phase, cause, r.remedy);
            }
        }
    }

    fn peer_up(&mut self, up: ike::PeerUp) {
        // What it proved counts, not what is left of it here: without its serial a machine is let in by no controller.
        let auth = match up.method {
            ike::AuthMethod::PreSharedKey => v1::MachineAuth::Psk,
            ike::AuthMethod::Signature(_) => v1::MachineAuth::Certificate,
        };
        let certificate_serial = self.certificates.remove(&up.token).unwrap_or_default();
        info!(
            peer = %up.peer, remote = %up.remote, name = up.name, transform = up.transform, behind_nat = up.behind_nat,
            "ISAKMP SA up"
        );
        let who = Who {
            remote: up.remote.to_string(),
            machine: Some(v1::MachineIdentity {
                auth: auth.into(),
                name: up.name,
                certificate_serial: certificate_serial.clone(),
            }),
            claimed_identity: up.id.to_string(),
            user: String::new(),
        };
        let (suite, spis) = (String::new(), BTreeSet::new());
        let peer = Peer { who, local: up.local, suite, certificate_serial, spis, encap: true };
        self.peers.insert(up.peer, peer);
    }

    fn install(&mut self, child: &ike::ChildSa, activate: bool) {
        let Some(peer) = self.peers.get_mut(&child.peer) else {
            warn!(peer = %child.peer, "an ESP SA for a peer that is not up");
            return;
        };
        let kilobytes = child.lifetime_kilobytes.unwrap_or(u64::MAX).min(self.config.esp_kilobytes);
        let inbound = InboundSa::new(&sa_config(child.spi_in, &child.keys_in, kilobytes));
        let outbound = OutboundSa::new(&sa_config(child.spi_out, &child.keys_out, kilobytes), &mut self.rng);
        peer.spis.insert(child.spi_in);
        peer.encap = child.udp_encap;
        self.data(ToData::InstallSa(Box::new(InstallSa {
            peer: child.peer,
            spi_in: child.spi_in,
            spi_out: child.spi_out,
            inbound,
            outbound,
            path: OuterPath { local: child.local, remote: child.remote, encap: child.udp_encap },
            activate,
        })));
    }

    fn data(&mut self, message: ToData) {
        self.out.push_back(Output::Data(message));
    }

    fn peer_moved(&mut self, peer: PeerId, local: SocketAddr, remote: SocketAddr) {
        if let Some(p) = self.peers.get_mut(&peer) {
            info!(%peer, from = p.who.remote, to = %remote, "a peer moved");
            p.local = local;
            p.who.remote = remote.to_string();
            for session in self.sessions.values_mut().filter(|s| s.info.peer == peer) {
                session.who.remote = remote.to_string();
            }
        }
    }

    fn note_counters(&mut self, now: Instant, counters: SessionCounters) {
        // Fresh figures soon, but no more reports in all than the controllers like.
        let pause = Duration::from_secs((self.sessions.len() as u64 / REPORTS_PER_SECOND).clamp(1, 60));
        let Some(session) = self.sessions.get_mut(&counters.local_session) else { return };
        if session.info.local_tunnel != counters.local_tunnel {
            return;
        }
        if counters.packets_in != session.counters.packets_in {
            session.link.note_inbound(now);
        }
        session.link.note_data(now);
        session.counters = counters;
        if let (Some(at), Some(last)) = (session.next_report, session.last_report) {
            session.next_report = Some(at.min(last + pause));
        }
        self.schedule(counters.local_session);
    }

    fn handle_frame(&mut self, now: Instant, peer: PeerId, id: u16, frame: Vec<u8>) {
        match self.sessions.get_mut(&id) {
            Some(session) if session.info.peer == peer => {
                session.link.handle_frame(now, &frame);
                self.pump_link(now, id);
            }
            Some(_) => debug!(%peer, id, "a PPP frame for somebody else's session"),
            None => {
                if self.early.len() == EARLY_FRAMES {
                    self.early.pop_front();
                }
                self.early.push_back((peer, id, frame));
            }
        }
    }

    fn handle_l2tp(&mut self, now: Instant, output: l2tp::Output) {
        match output {
            l2tp::Output::Transmit(t) => {
                self.data(ToData::SendL2tpControl { peer: t.peer, peer_port: t.peer_port, bytes: t.bytes });
            }
            l2tp::Output::Event(l2tp::Event::TunnelUp(t)) => {
                info!(peer = %t.peer, tunnel = t.local_tunnel, host = ?t.host_name, "L2TP tunnel up");
            }
            l2tp::Output::Event(l2tp::Event::TunnelDown(t)) => {
                info!(peer = %t.peer, tunnel = t.local_tunnel, reason = %t.reason, "L2TP tunnel down");
            }
            l2tp::Output::Event(l2tp::Event::SessionUp(info)) => self.session_up(now, info),
            l2tp::Output::Event(l2tp::Event::SessionDown(down)) => {
                let below = self.down_reasons.get(&down.peer);
                if let Some(session) = self.sessions.get_mut(&down.local_session) {
                    debug!(session = down.local_session, reason = %down.reason, "L2TP session down");
                    session.ended_below = Some(audit::end_below(&down.reason, below));
                    session.link.close(now, ppp::CloseReason::LowerLayerDown);
                    session.finished = true;
                }
                self.pump_link(now, down.local_session);
            }
            l2tp::Output::Event(l2tp::Event::Refused(r)) => {
                let who = self.peers.get(&r.peer).map(|p| p.who.clone()).unwrap_or_default();
                self.refused(None, &who, audit::l2tp_phase(r.phase), r.cause, r.remedy);
            }
        }
    }

    fn session_up(&mut self, now: Instant, info: l2tp::SessionInfo) {
        let id = info.local_session;
        let Some(peer) = self.peers.get(&info.peer).filter(|_| !self.closing) else {
            let code = cdn();
            return self.l2tp.disconnect_session(now, id, code);
        };
        let who = peer.who.clone();
        self.data(ToData::InstallSession(Box::new(InstallSession {
            peer: info.peer,
            peer_port: info.peer_port,
            local_tunnel: info.local_tunnel,
            local_session: id,
            peer_tunnel: info.peer_tunnel,
            peer_session: info.peer_session,
            sequencing: info.sequencing,
            network: SessionNetwork::closed(),
        })));
        let link = ppp::Link::server(self.config.ppp.clone(), self.rng.bytes(), now);
        let peer = info.peer;
        self.sessions.insert(id, Session::new(info, link, who));
        let mut early = VecDeque::new();
        std::mem::swap(&mut early, &mut self.early);
        for (p, s, frame) in early {
            match self.sessions.get_mut(&s) {
                Some(session) if s == id && p == peer => session.link.handle_frame(now, &frame),
                _ => self.early.push_back((p, s, frame)),
            }
        }
        self.pump_link(now, id);
    }

    /// Carries a link's outputs away, and drops the session when nothing is left of it.
    fn pump_link(&mut self, now: Instant, id: u16) {
        while let Some(output) = self.sessions.get_mut(&id).and_then(|s| s.link.poll_output()) {
            match output {
                ppp::Output::Frame(frame) => {
                    if let Some(s) = self.sessions.get(&id) {
                        let local_tunnel = s.info.local_tunnel;
                        self.data(ToData::SendPpp { local_tunnel, local_session: id, frame });
                    }
                }
                ppp::Output::Question(question, request) => self.ask(id, question, request),
                ppp::Output::Event(event) => self.handle_ppp(now, id, event),
            }
        }
        if self.sessions.get(&id).is_some_and(|s| s.finished) {
            self.unschedule(id);
            if let Some(session) = self.sessions.remove(&id) {
                if let Some((question, _)) = session.asked {
                    self.questions.remove(&question);
                }
                let local_tunnel = session.info.local_tunnel;
                self.data(ToData::RemoveSession { local_tunnel, local_session: id });
                self.l2tp.disconnect_session(now, id, cdn());
                // An acceptance that came after the link was down: nobody has given it back.
                self.give_back(session.accepted.map(|a| a.session_id));
            }
        } else {
            self.schedule(id);
        }
    }

    fn ask(&mut self, id: u16, question: ppp::QuestionId, request: ppp::AuthRequest) {
        let request_id: [u8; 16] = self.rng.bytes();
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.who.user.clone_from(&request.user);
        session.last_request = Some(request_id);
        let number = self.next_question;
        self.next_question += 1;
        if let Some((earlier, _)) = session.asked.replace((number, question)) {
            self.questions.remove(&earlier);
        }
        self.questions.insert(number, id);
        let (local, suite) =
            self.peers.get(&session.info.peer).map(|p| (p.local.to_string(), p.suite.clone())).unwrap_or_default();
        let request = session::question(session, &local, &suite, request, request_id);
        self.out.push_back(Output::Authenticate(number, Box::new(request)));
    }

    fn handle_ppp(&mut self, now: Instant, id: u16, event: ppp::Event) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        match event {
            ppp::Event::LcpUp(up) => session.lcp = (up.pfc, up.acfc),
            ppp::Event::PeerIdentified(name) => debug!(session = id, name, "the client named itself"),
            ppp::Event::AuthenticationRetry { user, cause } => info!(session = id, user, cause, "wrong password"),
            ppp::Event::Authenticated { user, method } => info!(session = id, user, ?method, "authenticated"),
            ppp::Event::NetworkUp(up) => {
                session.up = true;
                session.next_report = Some(now + self.config.report_interval);
                session.last_report = Some(now);
                let network = session.network(&up);
                let local_tunnel = session.info.local_tunnel;
                info!(session = id, user = session.who.user, address = %up.peer, mtu = up.mtu, "session up");
                let report = session.report(v1::SessionState::Up, Clock::unix_ms());
                self.data(ToData::UpdateSession { local_tunnel, local_session: id, network });
                self.out.extend(report.map(|r| Output::Report(Report::Session(r))));
            }
            ppp::Event::Refused(r) => {
                let who = session.who.clone();
                // The controller recorded its own refusals under its request's id; the second record is dropped there.
                let id = match r.phase {
                    ppp::Phase::Authentication => session.last_request,
                    ppp::Phase::Lcp | ppp::Phase::Ipcp => None,
                };
                self.refused(id, &who, audit::ppp_phase(r.phase), r.cause, r.remedy);
            }
            ppp::Event::Down { reason } => {
                session.up = false;
                session.next_report = None;
                let network = SessionNetwork::closed();
                let local_tunnel = session.info.local_tunnel;
                info!(session = id, user = session.who.user, %reason, "session down");
                if let Some(mut report) = session.report(v1::SessionState::Down, Clock::unix_ms()) {
                    let (end, text) = match (&reason, session.ended_below.take()) {
                        (ppp::DownReason::Closed(ppp::CloseReason::LowerLayerDown), Some(below)) => below,
                        _ => (audit::end_reason(&reason), reason.to_string()),
                    };
                    report.end_reason = end.into();
                    report.end_text = text;
                    self.out.push_back(Output::Report(Report::Session(report)));
                }
                session.accepted = None;
                self.data(ToData::UpdateSession { local_tunnel, local_session: id, network });
            }
            ppp::Event::Finished => session.finished = true,
        }
    }

    fn refused(&mut self, id: Option<[u8; 16]>, who: &Who, phase: v1::Phase, cause: String, remedy: String) {
        info!(remote = who.remote, user = who.user, ?phase, cause, remedy, "attempt refused");
        let id = id.unwrap_or_else(|| self.rng.bytes());
        self.out.push_back(Output::Report(Report::Attempt(audit::attempt(id, who, phase, cause, remedy))));
    }

    /// Ends everything of a peer: its links say goodbye, then IKE deletes its SAs.
    fn drop_peer(&mut self, now: Instant, peer: PeerId, reason: ppp::CloseReason) {
        let ids: Vec<u16> = self.sessions.iter().filter(|(_, s)| s.info.peer == peer).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.link.close(now, reason.clone());
            }
            self.pump_link(now, id);
        }
        self.ike.disconnect(now, peer, "the certificate was revoked");
    }
}

fn sa_config(spi: u32, keys: &EspKeys, kilobytes: u64) -> SaConfig {
    let mut config = SaConfig::new(spi, keys.clone());
    config.limits = config.limits.within_kilobytes(kilobytes);
    config
}

/// Call-Disconnect-Notify for a session whose PPP link has ended: "disconnected for administrative reasons",
/// RFC 2661 §4.4.2.
fn cdn() -> l2tp::ResultCode {
    l2tp::ResultCode::new(3, "the PPP link has ended")
}
