//! Incoming calls (RFC 2661 §7.4), from either end.

use super::*;

impl Core {
    /// LAC: sends ICRQ.
    pub(crate) fn request_session(&mut self, now: Instant, t: &mut Tunnel) -> Option<u16> {
        let limits = &self.config.limits;
        if self.sessions.len() >= limits.sessions || t.sessions.len() >= limits.sessions_per_tunnel {
            return None;
        }
        let serial = self.next_serial;
        self.next_serial = serial.wrapping_add(1);
        let sequencing = self.config.sequencing;
        let id =
            self.add_session(now, t, Session { state: SessionState::WaitReply, peer_session: 0, serial, sequencing });
        let request = Icrq { assigned_session_id: Some(id), call_serial_number: Some(serial), ..Icrq::default() };
        self.send(t, 0, &Message::Icrq(request));
        Some(id)
    }

    pub(super) fn add_session(&mut self, now: Instant, t: &mut Tunnel, session: Session) -> u16 {
        let id = fresh_id(&mut self.rng, |id| self.sessions.contains_key(&id));
        self.sessions.insert(id, t.local_id);
        t.sessions.insert(id, session);
        t.timers.cancel(Timer::Empty);
        t.timers.set(Timer::Session(id), now + self.config.setup_timeout);
        id
    }

    /// LNS: ICRQ.
    pub(super) fn handle_icrq(&mut self, now: Instant, t: &mut Tunnel, request: &Icrq) {
        let limits = &self.config.limits;
        let (session_limit, tunnel_limit) = (limits.sessions, limits.sessions_per_tunnel);
        let Some(peer_session) = request.assigned_session_id.filter(|id| *id != 0) else {
            let code = ResultCode::error(error_code::RANGE, "no Assigned Session ID");
            let cause = "the client's ICRQ has no Assigned Session ID";
            return self.close(now, t, End::refusing(code, cause, "the client's L2TP implementation is at fault"));
        };
        if t.initiator {
            let code = ResultCode::new(cdn::NO_FACILITIES, "no incoming calls");
            let cause = "the server asked for a call towards us";
            return self.refuse_session(t, peer_session, code, cause, "only outgoing connections are made here");
        }
        if let Some(old) = t.session_of_peer(peer_session) {
            // The client has forgotten its old session, or it would not use the id again.
            self.end_session(now, t, old, None, DownReason::Replaced);
        }
        let full = if t.sessions.len() >= tunnel_limit {
            Some(("the tunnel has as many sessions as it may", "close the client's other sessions"))
        } else if self.sessions.len() >= session_limit {
            Some(("the gateway has as many sessions as it may", "add a gateway, or raise the session limit"))
        } else {
            None
        };
        if let Some((cause, remedy)) = full {
            let code = ResultCode::new(cdn::NO_FACILITIES_NOW, cause);
            return self.refuse_session(t, peer_session, code, cause, remedy);
        }
        let serial = request.call_serial_number.unwrap_or(0);
        let session = Session { state: SessionState::WaitConnect, peer_session, serial, sequencing: false };
        let id = self.add_session(now, t, session);
        self.send(t, peer_session, &Message::Icrp(Icrp { assigned_session_id: Some(id) }));
    }

    /// LAC: ICRP.
    pub(super) fn handle_icrp(&mut self, now: Instant, t: &mut Tunnel, id: u16, reply: &Icrp) {
        let Some(session) = t.sessions.get_mut(&id) else { return };
        let peer_session = reply.assigned_session_id.unwrap_or(0);
        if session.state != SessionState::WaitReply || peer_session == 0 {
            let code = ResultCode::error(error_code::SESSION_ID, "unexpected ICRP, or one without a session id");
            return self.end_session(now, t, id, Some(code.clone()), DownReason::Local(code));
        }
        session.peer_session = peer_session;
        let connected = Iccn {
            tx_connect_speed: Some(CONNECT_SPEED),
            framing_type: Some(1),
            sequencing_required: session.sequencing.then_some(()),
            ..Iccn::default()
        };
        self.send(t, peer_session, &Message::Iccn(connected));
        self.session_up(t, id);
    }

    /// LNS: ICCN.
    pub(super) fn handle_iccn(&mut self, now: Instant, t: &mut Tunnel, id: u16, connected: &Iccn) {
        let Some(session) = t.sessions.get_mut(&id) else { return };
        if session.state != SessionState::WaitConnect {
            let code = ResultCode::new(cdn::GENERAL_ERROR, "unexpected ICCN");
            return self.end_session(now, t, id, Some(code.clone()), DownReason::Local(code));
        }
        session.sequencing = connected.sequencing_required.is_some();
        self.session_up(t, id);
    }

    pub(super) fn session_up(&mut self, t: &mut Tunnel, id: u16) {
        t.timers.cancel(Timer::Session(id));
        t.told = true;
        let Some(session) = t.sessions.get_mut(&id) else { return };
        session.state = SessionState::Established;
        self.stats.sessions_up += 1;
        if let Some(session) = t.sessions.get(&id) {
            self.event(Event::SessionUp(t.session_info(id, session)));
        }
    }

    /// Answers an ICRQ or OCRQ with a CDN; no session is kept.
    pub(super) fn refuse_session(
        &mut self,
        t: &mut Tunnel,
        peer_session: u16,
        code: ResultCode,
        cause: impl Into<String>,
        remedy: &str,
    ) {
        // CDN must name an id of ours even for a session that never was (§6.12): one that is in no use.
        let id = fresh_id(&mut self.rng, |id| self.sessions.contains_key(&id));
        self.send(t, peer_session, &Message::Cdn(Cdn { result_code: Some(code), assigned_session_id: Some(id) }));
        self.refuse(t, Phase::Session, cause, remedy);
    }

    /// Ends a session; with a code, tells the peer.
    pub(crate) fn end_session(
        &mut self,
        now: Instant,
        t: &mut Tunnel,
        id: u16,
        code: Option<ResultCode>,
        reason: DownReason,
    ) {
        let Some(session) = self.forget_session(t, id, &reason) else { return };
        if code.is_some() {
            let cdn = Cdn { result_code: code, assigned_session_id: Some(id) };
            self.send(t, session.peer_session, &Message::Cdn(cdn));
        }
        if t.sessions.is_empty() {
            t.timers.set(Timer::Empty, now + self.config.empty_tunnel_timeout);
        }
    }

    pub(super) fn forget_session(&mut self, t: &mut Tunnel, id: u16, reason: &DownReason) -> Option<Session> {
        let session = t.sessions.remove(&id)?;
        self.sessions.remove(&id);
        t.timers.cancel(Timer::Session(id));
        if session.state == SessionState::Established {
            let reason = reason.clone();
            let down = SessionDown { peer: t.peer, local_tunnel: t.local_id, local_session: id, reason };
            self.event(Event::SessionDown(down));
        } else {
            self.refuse(t, Phase::Session, reason.to_string(), reason_remedy(reason));
        }
        Some(session)
    }
}
