//! One control connection and its sessions.

use std::collections::BTreeMap;

use sallyport_base::{Instant, PeerId, Timers};

use crate::output::{SessionInfo, TunnelInfo};
use crate::reliable::Channel;

/// The states of RFC 2661 §7.2.1; `Idle` is no tunnel at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// We sent SCCRQ.
    WaitCtlReply,
    /// We sent SCCRP.
    WaitCtlConn,
    /// Open.
    Established,
    /// StopCCN went one way or the other: kept to deliver ours and to acknowledge late duplicates of the peer's (§5.7).
    Closed {
        /// Whether it was refused while being set up, so that a repeated SCCRQ means that our StopCCN was lost.
        refused: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The tunnel must be open by then.
    Setup,
    /// The session must be open by then.
    Session(u16),
    /// The tunnel must have a session by then.
    Empty,
    /// The peer was silent.
    Hello,
    /// The closed tunnel is forgotten.
    Linger,
}

/// The states of RFC 2661 §7.4; `Idle` and `WaitTunnel` are no session yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionState {
    /// LAC: we sent ICRQ.
    WaitReply,
    /// LNS: we sent ICRP.
    WaitConnect,
    /// Open.
    Established,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) state: SessionState,
    /// What we put into headers; 0 until known.
    pub(crate) peer_session: u16,
    pub(crate) serial: u32,
    pub(crate) sequencing: bool,
}

#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) peer: PeerId,
    pub(crate) peer_port: u16,
    pub(crate) local_id: u16,
    /// What we put into headers; 0 until known.
    pub(crate) peer_id: u16,
    pub(crate) initiator: bool,
    pub(crate) state: State,
    pub(crate) channel: Channel,
    pub(crate) sessions: BTreeMap<u16, Session>,
    pub(crate) timers: Timers<Timer>,
    /// What we asked the peer to answer.
    pub(crate) challenge: Option<[u8; 16]>,
    pub(crate) host_name: String,
    pub(crate) vendor_name: String,
    pub(crate) established_at: Instant,
    /// When the peer was last heard.
    pub(crate) heard_at: Instant,
    /// Whether the attempt that this tunnel is has been told of: by a session that came up, or by a refusal.
    pub(crate) told: bool,
    /// To be removed.
    pub(crate) gone: bool,
    /// Where this tunnel stands in the endpoint's schedule.
    pub(crate) scheduled: Option<Instant>,
}

impl Tunnel {
    pub(crate) fn new(
        peer: PeerId,
        peer_port: u16,
        local_id: u16,
        state: State,
        channel: Channel,
        now: Instant,
    ) -> Self {
        Self {
            peer,
            peer_port,
            local_id,
            peer_id: 0,
            initiator: state == State::WaitCtlReply,
            state,
            channel,
            sessions: BTreeMap::new(),
            timers: Timers::new(),
            challenge: None,
            host_name: String::new(),
            vendor_name: String::new(),
            established_at: now,
            heard_at: now,
            told: false,
            gone: false,
            scheduled: None,
        }
    }

    /// When something is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let timer = self.timers.next().map(|(at, _)| at);
        timer.into_iter().chain(self.channel.deadline()).min()
    }

    pub(crate) const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    pub(crate) fn info(&self) -> TunnelInfo {
        TunnelInfo {
            peer: self.peer,
            peer_port: self.peer_port,
            local_tunnel: self.local_id,
            peer_tunnel: self.peer_id,
            host_name: self.host_name.clone(),
            vendor_name: self.vendor_name.clone(),
        }
    }

    pub(crate) fn session_info(&self, local_session: u16, session: &Session) -> SessionInfo {
        SessionInfo {
            peer: self.peer,
            peer_port: self.peer_port,
            local_tunnel: self.local_id,
            local_session,
            peer_tunnel: self.peer_id,
            peer_session: session.peer_session,
            host_name: self.host_name.clone(),
            sequencing: session.sequencing,
            call_serial: session.serial,
            initiator: self.initiator,
        }
    }

    /// Our session whose id on the peer's side is `peer_session`.
    pub(crate) fn session_of_peer(&self, peer_session: u16) -> Option<u16> {
        self.sessions.iter().find(|(_, s)| peer_session != 0 && s.peer_session == peer_session).map(|(id, _)| *id)
    }
}
