//! What an endpoint gives back: datagrams and events.

use core::fmt;

use sallyport_base::PeerId;

use crate::result::ResultCode;

/// One thing for the shell to do. Drain [`Endpoint::poll_output`](crate::Endpoint::poll_output) after each call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send an L2TP control message to this peer, from our port 1701, inside its ESP SA.
    Transmit(Transmit),
    /// Something happened.
    Event(Event),
}

/// A control message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Through whose ESP SA.
    pub peer: PeerId,
    /// The peer's UDP port inside ESP (Apple's is a random one).
    pub peer_port: u16,
    /// The UDP payload.
    pub bytes: Vec<u8>,
}

/// What happened to a tunnel or a session.
///
/// Each [`Event::TunnelUp`] is followed by exactly one [`Event::TunnelDown`], each [`Event::SessionUp`] by exactly one
/// [`Event::SessionDown`] (before its tunnel's end), and each attempt that never got as far as `SessionUp` by exactly
/// one [`Event::Refused`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The control connection is established.
    TunnelUp(TunnelInfo),
    /// A session is established: start a PPP link on it.
    SessionUp(SessionInfo),
    /// A session is over: end its PPP link.
    SessionDown(SessionDown),
    /// The control connection is over.
    TunnelDown(TunnelDown),
    /// An attempt failed.
    Refused(Refusal),
}

/// An established tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelInfo {
    /// Whose.
    pub peer: PeerId,
    /// The peer's UDP port inside ESP.
    pub peer_port: u16,
    /// Our tunnel id: what the peer puts into headers. Unique over the endpoint.
    pub local_tunnel: u16,
    /// The peer's tunnel id: what we put into headers.
    pub peer_tunnel: u16,
    /// The peer's Host Name, for people only: nobody vouches for it.
    pub host_name: String,
    /// The peer's Vendor Name, for people only.
    pub vendor_name: String,
}

/// An established session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// Whose.
    pub peer: PeerId,
    /// The peer's UDP port inside ESP.
    pub peer_port: u16,
    /// Our tunnel id: what the peer puts into headers.
    pub local_tunnel: u16,
    /// Our session id: what the peer puts into headers. Unique over the endpoint.
    pub local_session: u16,
    /// The peer's tunnel id: what we put into headers.
    pub peer_tunnel: u16,
    /// The peer's session id: what we put into headers.
    pub peer_session: u16,
    /// The peer's Host Name, for people only.
    pub host_name: String,
    /// Whether data messages must carry sequence numbers (Sequencing Required AVP, RFC 2661 §4.4.6).
    pub sequencing: bool,
    /// The number that the peer gave to the call in its own logs.
    pub call_serial: u32,
    /// Whether we asked for the session (LAC).
    pub initiator: bool,
}

/// The end of an established session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionDown {
    /// Whose.
    pub peer: PeerId,
    /// Our tunnel id.
    pub local_tunnel: u16,
    /// Our session id.
    pub local_session: u16,
    /// Why.
    pub reason: DownReason,
}

/// The end of an established tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelDown {
    /// Whose.
    pub peer: PeerId,
    /// Our tunnel id.
    pub local_tunnel: u16,
    /// Why.
    pub reason: DownReason,
}

/// Why something ended; its `Display` is a sentence for the audit record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// The peer sent CDN for the session.
    PeerEndedSession(ResultCode),
    /// The peer sent StopCCN for the tunnel.
    PeerEndedTunnel(ResultCode),
    /// We ended it.
    Local(ResultCode),
    /// The peer acknowledged nothing for the whole retransmission cycle.
    PeerSilent,
    /// The IPsec peer is gone, and all that hung on it.
    PeerGone,
    /// The peer opened the same tunnel anew, so that the old one is a leftover.
    Replaced,
    /// The tunnel had no session for too long.
    Empty,
    /// The tunnel or session did not come up in time.
    SetupTimeout,
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerEndedSession(code) => write!(f, "the peer ended the call (CDN): {}", code.describe_cdn()),
            Self::PeerEndedTunnel(code) => {
                write!(f, "the peer closed the tunnel (StopCCN): {}", code.describe_stop_ccn())
            }
            Self::Local(code) => match &code.message {
                Some(message) => write!(f, "ended here: {message}"),
                None => write!(f, "ended here"),
            },
            Self::PeerSilent => f.write_str("the peer acknowledges no control message any more"),
            Self::PeerGone => f.write_str("the IPsec connection of the peer ended"),
            Self::Replaced => f.write_str("the peer opened the same tunnel again"),
            Self::Empty => f.write_str("the tunnel had no session"),
            Self::SetupTimeout => f.write_str("it did not come up in time"),
        }
    }
}

/// How far a failed attempt came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Opening the control connection.
    Tunnel,
    /// Opening a session in it.
    Session,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tunnel => "L2TP tunnel",
            Self::Session => "L2TP session",
        })
    }
}

/// One attempt that failed, for the audit record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Whose.
    pub peer: PeerId,
    /// How far it came.
    pub phase: Phase,
    /// Our tunnel id, if one was assigned (0 otherwise).
    pub local_tunnel: u16,
    /// The peer's Host Name, as far as it is known.
    pub host_name: String,
    /// Why, in words.
    pub cause: String,
    /// What to change, in words.
    pub remedy: String,
}
