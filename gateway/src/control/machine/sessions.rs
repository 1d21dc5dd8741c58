//! L2TP's and PPP's side: sessions.

use std::collections::VecDeque;
use std::time::Duration;

use sallyport_base::{Instant, PeerId};
use sallyport_l2tp as l2tp;
use sallyport_ppp as ppp;
use sallyport_proto::v1;
use tracing::{debug, info};

use super::{EARLY_FRAMES, Machine, Output, REPORTS_PER_SECOND, UNKNOWN_USERS};
use crate::clock::Clock;
use crate::control::audit;
use crate::control::held::Report;
use crate::control::session::{self, Session};
use crate::link::{InstallSession, SessionCounters, SessionNetwork, ToData};

impl Machine {
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

    pub(super) fn give_back(&mut self, session_id: Option<String>) {
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

    pub(super) fn close_session(&mut self, now: Instant, session_id: &str, reason: ppp::CloseReason) {
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

    pub(super) fn unschedule(&mut self, id: u16) {
        if let Some(at) = self.scheduled.remove(&id) {
            self.deadlines.remove(&(at, id));
        }
    }

    pub(super) fn schedule(&mut self, id: u16) {
        self.unschedule(id);
        let Some(session) = self.sessions.get(&id) else { return };
        let next = session.link.poll_timeout().into_iter().chain(session.next_report).min();
        if let Some(at) = next {
            self.scheduled.insert(id, at);
            self.deadlines.insert((at, id));
        }
    }

    pub(super) fn note_counters(&mut self, now: Instant, counters: SessionCounters) {
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

    pub(super) fn handle_frame(&mut self, now: Instant, peer: PeerId, id: u16, frame: Vec<u8>) {
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

    pub(super) fn handle_l2tp(&mut self, now: Instant, output: l2tp::Output) {
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
            l2tp::Output::Event(l2tp::Event::Refused(mut r)) => {
                let who = self.peers.get(&r.peer).map(|p| p.who.clone()).unwrap_or_default();
                if self.may_record(now, r.peer, &mut r.cause) {
                    self.refused(None, &who, audit::l2tp_phase(r.phase), r.cause, r.remedy);
                }
            }
        }
    }

    pub(super) fn session_up(&mut self, now: Instant, info: l2tp::SessionInfo) {
        let id = info.local_session;
        let Some(peer) = self.peers.get(&info.peer).filter(|_| !self.closing) else {
            let code = cdn();
            return self.l2tp.disconnect_session(now, id, code);
        };
        let unknown = |s: &&Session| s.info.peer == info.peer && s.accepted.is_none();
        if self.sessions.values().filter(unknown).count() >= UNKNOWN_USERS {
            let code = l2tp::ResultCode::new(4, "the sessions before this one have no user yet");
            return self.l2tp.disconnect_session(now, id, code);
        }
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
    pub(super) fn pump_link(&mut self, now: Instant, id: u16) {
        while let Some(output) = self.sessions.get_mut(&id).and_then(|s| s.link.poll_output()) {
            match output {
                ppp::Output::Frame(frame) => {
                    if let Some(s) = self.sessions.get(&id) {
                        let local_tunnel = s.info.local_tunnel;
                        self.data(ToData::SendPpp { local_tunnel, local_session: id, frame });
                    }
                }
                ppp::Output::Question(question, request) => self.ask(now, id, question, request),
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

    pub(super) fn ask(&mut self, now: Instant, id: u16, question: ppp::QuestionId, request: ppp::AuthRequest) {
        let request_id: [u8; 16] = self.rng.bytes();
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.who.user.clone_from(&request.user);
        // The controllers lock a user out; a machine that tries name after name ends here.
        let peer = session.info.peer;
        if self.allowance(peer).is_some_and(|a| !a.questions.take(now)) {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.last_request = None;
                session.link.handle_answer(now, question, session::too_many());
            }
            return;
        }
        let Some(session) = self.sessions.get_mut(&id) else { return };
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

    pub(super) fn handle_ppp(&mut self, now: Instant, id: u16, event: ppp::Event) {
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
            ppp::Event::Refused(mut r) => {
                let who = session.who.clone();
                // The controller recorded its own refusals under its request's id; the second record is dropped there.
                let id = match r.phase {
                    ppp::Phase::Authentication => session.last_request,
                    ppp::Phase::Lcp | ppp::Phase::Ipcp => None,
                };
                let peer = session.info.peer;
                // What the controllers have decided they have recorded, under this id.
                if id.is_some() || self.may_record(now, peer, &mut r.cause) {
                    self.refused(id, &who, audit::ppp_phase(r.phase), r.cause, r.remedy);
                }
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
}

/// Call-Disconnect-Notify for a session whose PPP link has ended: "disconnected for administrative reasons",
/// RFC 2661 §4.4.2.
fn cdn() -> l2tp::ResultCode {
    l2tp::ResultCode::new(3, "the PPP link has ended")
}
