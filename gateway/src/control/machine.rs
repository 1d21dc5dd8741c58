//! The control plane as a machine without I/O: IKE, L2TP and PPP stacked, driven by what the data plane and the
//! controllers say.
//!
//! The runner (`super::run`) feeds it and carries out its [`Output`]s. It asks nobody itself: decisions are questions
//! with a number, expensive work is a job with a number, and both come back as calls.

mod admission;
mod peers;
mod sessions;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use sallyport_base::{Bucket, Instant, PeerId, Source};
use sallyport_crypto::Rng;
use sallyport_ike as ike;
use sallyport_l2tp as l2tp;
use sallyport_ppp as ppp;
use sallyport_proto::v1;
use tracing::{info, warn};

use self::admission::Admitted;
pub use self::admission::Judgement;
use super::audit::{self, Who};
use super::controller::Vitals;
use super::held::Report;
use super::live::{LiveSet, Standing};
use super::session::Session;
use crate::clock::Clock;
use crate::link::{FromData, ToData};

/// Early PPP frames kept for a session whose ICCN is on its way, and how many such frames there may be in all.
const EARLY_FRAMES: usize = 256;

/// Verified certificates whose peer is not up yet.
const VERIFIED: usize = 8_192;

/// Reports of sessions whose counters have changed, per second and gateway.
const REPORTS_PER_SECOND: u64 = 200;

/// Questions to the controllers that one machine may cause: so many at once, and another after each pause. A person mistypes a
/// few times; a client with a wrong saved password tries every few seconds and gives up.
const QUESTIONS: (u32, Duration) = (20, Duration::from_secs(3));

/// Refusals of L2TP and PPP that are recorded of one machine, in the same way. What is left out is counted in the next one.
const REFUSALS: (u32, Duration) = (20, Duration::from_secs(10));

/// Machines whose allowances are remembered; the one that came first is forgotten first.
const MACHINES: usize = 65_536;

/// Peers that one machine may be at a time: after a change of network its old ones have yet to be found dead.
const PEERS_OF_MACHINE: usize = 32;

/// Sessions of one peer whose user is not known yet: a client opens one.
const UNKNOWN_USERS: usize = 2;

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
    /// How often the controllers hear of each live session.
    pub report_interval: Duration,
}

/// A peer of IKE, as far as the layers above care.
struct Peer {
    who: Who,
    local: SocketAddr,
    suite: String,
    certificate_serial: String,
    /// Its SHA-256, if it came with one.
    fingerprint: Option<[u8; 32]>,
    /// Inbound SPIs that are installed.
    spis: BTreeSet<u32>,
    /// Whether the newest of them travels in UDP.
    encap: bool,
    /// Whose allowance it draws on.
    key: MachineKey,
}

/// A machine that has proven that it owns a valid certificate of a trusted root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// The name in the certificate, or the one that the controllers know it under.
    pub name: String,
    /// The certificate's serial number.
    pub serial: String,
    /// Its SHA-256.
    pub fingerprint: [u8; 32],
}

/// What one machine is known by, over all the peers that it is: its certificate, or the place from which it has the pre-shared
/// key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum MachineKey {
    Certificate(String),
    Source(Source),
}

/// What one machine may still do.
#[derive(Debug)]
struct Allowance {
    questions: Bucket,
    refusals: Bucket,
    /// Refusals that were not recorded since the last one that was.
    left_out: u32,
    peers: usize,
}

/// The control plane.
pub struct Machine {
    config: Config,
    ike: ike::Endpoint,
    l2tp: l2tp::Endpoint,
    peers: BTreeMap<PeerId, Peer>,
    allowances: BTreeMap<MachineKey, Allowance>,
    allowance_order: BTreeMap<u64, MachineKey>,
    next_allowance: u64,
    /// By our L2TP session id, which is unique over the endpoint.
    sessions: BTreeMap<u16, Session>,
    /// When each session's link wants to be called.
    deadlines: BTreeSet<(Instant, u16)>,
    scheduled: BTreeMap<u16, Instant>,
    /// Admitted machines by the token that IKE hands back, until their peer is up.
    certificates: BTreeMap<u64, Admitted>,
    next_token: u64,
    /// Which certificates are live.
    live: LiveSet,
    /// How current that was when it was last looked at.
    standing: Standing,
    /// What was ended lately because of revocations.
    ended: VecDeque<v1::RevocationDone>,
    /// What is wrong with the certificate of whom IKE is being told to refuse.
    verdict: Option<v1::CertificateVerdict>,
    /// Under which id the controllers recorded the refusal that IKE is being told of.
    recorded: Option<[u8; 16]>,
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
            allowances: BTreeMap::new(),
            allowance_order: BTreeMap::new(),
            next_allowance: 0,
            sessions: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            scheduled: BTreeMap::new(),
            certificates: BTreeMap::new(),
            next_token: 1,
            live: LiveSet::default(),
            standing: Standing::Without,
            ended: VecDeque::new(),
            verdict: None,
            recorded: None,
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
        let of_sessions = self.deadlines.first().map(|(at, _)| *at);
        [self.ike.poll_timeout(), self.l2tp.poll_timeout(), of_sessions, self.live.deadline(self.standing)]
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

    /// IKE's settings in force.
    pub const fn ike_config(&self) -> &ike::Config {
        self.ike.config()
    }

    /// Other certificates of ours, for handshakes that begin from now on. What is up stays up.
    pub fn set_credentials(&mut self, credentials: Vec<ike::Credential>) {
        self.ike.set_config(ike::Config { credentials, ..self.ike.config().clone() });
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
            FromData::SaHardLimit { peer: _, spi_in } => self.ike.child_expired(now, spi_in),
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

    /// The controllers refused a peer, and recorded it under `request_id`: our record of it has the same id, and is dropped
    /// there as the second one.
    pub fn handle_not_admitted(
        &mut self,
        now: Instant,
        id: ike::JobId,
        refusal: ike::VerifyRefusal,
        request_id: [u8; 16],
    ) {
        self.recorded = Some(request_id);
        self.handle_job(now, id, ike::Answer::Refused(refusal));
        self.recorded = None;
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

    /// The controllers have ended all sessions of this gateway: their addresses may be others' by now.
    pub fn handle_given_up(&mut self, now: Instant) {
        let given_up: Vec<u16> =
            self.sessions.iter().filter(|(_, s)| s.accepted.is_some()).map(|(id, _)| *id).collect();
        for id in given_up {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.link.close(now, ppp::CloseReason::Replaced);
            }
            self.pump_link(now, id);
        }
        self.pump(now);
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
        self.note_standing(now);
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

    /// Carries outputs between the layers until none has anything to say.
    pub(super) fn pump(&mut self, now: Instant) {
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

    pub(super) fn data(&mut self, message: ToData) {
        self.out.push_back(Output::Data(message));
    }

    fn allowance(&mut self, peer: PeerId) -> Option<&mut Allowance> {
        let key = &self.peers.get(&peer)?.key;
        self.allowances.get_mut(key)
    }

    /// One more peer of a machine; `false` if it is too many.
    fn add_peer_of(&mut self, now: Instant, key: &MachineKey) -> bool {
        if !self.allowances.contains_key(key) {
            // Those that have peers are not forgotten: of these there are no more than IKE allows.
            if self.allowances.len() >= MACHINES {
                let idle = |key: &MachineKey| self.allowances.get(key).is_none_or(|a| a.peers == 0);
                let first = self.allowance_order.iter().find(|(_, key)| idle(key)).map(|(number, _)| *number);
                if let Some(key) = first.and_then(|number| self.allowance_order.remove(&number)) {
                    self.allowances.remove(&key);
                }
            }
            self.next_allowance += 1;
            self.allowance_order.insert(self.next_allowance, key.clone());
            let allowance = Allowance {
                questions: Bucket::new(QUESTIONS.0, QUESTIONS.1, now),
                refusals: Bucket::new(REFUSALS.0, REFUSALS.1, now),
                left_out: 0,
                peers: 0,
            };
            self.allowances.insert(key.clone(), allowance);
        }
        let Some(allowance) = self.allowances.get_mut(key) else { return true };
        allowance.peers += 1;
        // The pre-shared key is known to a whole office, and all of it may come from one address.
        let limit = match key {
            MachineKey::Certificate(_) => PEERS_OF_MACHINE,
            MachineKey::Source(_) => usize::MAX,
        };
        allowance.peers <= limit
    }

    fn remove_peer_of(&mut self, key: &MachineKey) {
        if let Some(allowance) = self.allowances.get_mut(key) {
            allowance.peers = allowance.peers.saturating_sub(1);
        }
    }

    /// Whether a refusal above IKE is recorded: the peer is known, and could cause any number of them. Adds to `cause` how
    /// many were left out.
    pub(super) fn may_record(&mut self, now: Instant, peer: PeerId, cause: &mut String) -> bool {
        let Some(allowance) = self.allowance(peer) else { return true };
        if !allowance.refusals.take(now) {
            allowance.left_out = allowance.left_out.saturating_add(1);
            return false;
        }
        match std::mem::take(&mut allowance.left_out) {
            0 => {}
            n => cause.push_str(&format!(" ({n} more refusals of this machine before this one are not listed)")),
        }
        true
    }

    pub(super) fn refused(&mut self, id: Option<[u8; 16]>, who: &Who, phase: v1::Phase, cause: String, remedy: String) {
        info!(remote = who.remote, user = who.user, ?phase, cause, remedy, "attempt refused");
        let id = id.unwrap_or_else(|| self.rng.bytes());
        let mut attempt = audit::attempt(id, who, phase, cause, remedy);
        attempt.certificate_verdict = self.verdict.take().map_or(0, i32::from);
        self.out.push_back(Output::Report(Report::Attempt(attempt)));
    }
}

#[cfg(test)]
mod tests;
