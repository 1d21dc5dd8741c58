//! What a link gives back: frames, questions and events; and the answers it takes.

use core::fmt;
use core::net::Ipv4Addr;
use core::time::Duration;

use crate::config::{AuthMethod, Password};

/// One thing for the shell to do. Drain [`Link::poll_output`](crate::Link::poll_output) after each call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this PPP frame, which starts with its protocol field or with `FF 03`, to the peer.
    Frame(Vec<u8>),
    /// Ask the controller, and hand back [`Answer`] with the same id.
    Question(QuestionId, AuthRequest),
    /// Something happened.
    Event(Event),
}

/// Ties an [`Answer`] to its question. An answer to a question that is no longer open is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuestionId(pub u32);

/// A client's claim of identity, for the controller to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthRequest {
    /// The name as the client sent it, such as `CORP\alice`; bytes that are not UTF-8 are replaced.
    ///
    /// The MS-CHAPv2 hash takes only the part behind the backslash (RFC 2759 §8.2): whoever verifies calls
    /// [`user_part`](crate::user_part) first. The link strips nothing.
    pub user: String,
    /// The proof.
    pub method: AuthProof,
    /// Which attempt on this link, from 1.
    pub attempt: u8,
}

/// The proof of a claim of identity.
#[derive(Clone, PartialEq, Eq)]
pub enum AuthProof {
    /// The password itself.
    Pap {
        /// As sent.
        password: Password,
    },
    /// CHAP-MD5, RFC 1994: MD5(identifier, secret, challenge).
    ChapMd5 {
        /// The Identifier that goes into the hash.
        identifier: u8,
        /// What we sent.
        challenge: [u8; 16],
        /// What came back.
        response: [u8; 16],
    },
    /// MS-CHAPv2, RFC 2759 §4.
    MsChapV2 {
        /// The Identifier of the response (RADIUS carries it).
        identifier: u8,
        /// What we sent.
        authenticator_challenge: [u8; 16],
        /// The client's own challenge.
        peer_challenge: [u8; 16],
        /// NT-Response.
        nt_response: [u8; 24],
        /// Flags, zero in practice.
        flags: u8,
    },
}

impl AuthProof {
    /// Which method it is.
    pub const fn method(&self) -> AuthMethod {
        match self {
            Self::Pap { .. } => AuthMethod::Pap,
            Self::ChapMd5 { .. } => AuthMethod::ChapMd5,
            Self::MsChapV2 { .. } => AuthMethod::MsChapV2,
        }
    }
}

impl fmt::Debug for AuthProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(..)", self.method())
    }
}

/// What the controller decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Let them in.
    Accept(Accept),
    /// Refuse.
    Reject(Reject),
}

/// Let them in, with these settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    /// MS-CHAPv2 only: `S=` and 40 upper-case hex digits (RFC 2759 §5), which prove to the client that the server
    /// knows the password. Windows hangs up without it.
    pub authenticator_response: Option<String>,
    /// Shown to the user by few clients; may be empty.
    pub message: String,
    /// Our own address on the link.
    pub local: Ipv4Addr,
    /// The address leased to the client.
    pub peer: Ipv4Addr,
    /// DNS servers (RFC 1877 options 129 and 131); without any, both options are rejected.
    pub dns: [Option<Ipv4Addr>; 2],
    /// NBNS (WINS) servers (RFC 1877 options 130 and 132).
    pub nbns: [Option<Ipv4Addr>; 2],
    /// End the link after so much time without data; the shell reports data by
    /// [`Link::note_data`](crate::Link::note_data).
    pub idle_timeout: Option<Duration>,
    /// End the link after this time, whatever it does.
    pub session_timeout: Option<Duration>,
}

/// Refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The number for the client, [`mschap_error`]: 691 wrong user or password, and so on.
    pub error: u32,
    /// Whether the client may try again with another password on the same link (MS-CHAPv2; bounded by
    /// [`ServerConfig::auth_attempts`](crate::ServerConfig::auth_attempts)).
    pub retry: bool,
    /// Text for the client; may be empty.
    pub message: String,
    /// Why, for the audit record; never sent to the client.
    pub cause: String,
    /// What to change, for the audit record; never sent to the client.
    pub remedy: String,
}

/// The error numbers of an MS-CHAPv2 failure (RFC 2759 §6).
pub mod mschap_error {
    /// Restricted logon hours.
    pub const RESTRICTED_LOGON_HOURS: u32 = 646;
    /// Account disabled.
    pub const ACCT_DISABLED: u32 = 647;
    /// Password expired.
    pub const PASSWD_EXPIRED: u32 = 648;
    /// No dial-in permission.
    pub const NO_DIALIN_PERMISSION: u32 = 649;
    /// Wrong user or password.
    pub const AUTHENTICATION_FAILURE: u32 = 691;
    /// The password could not be changed.
    pub const CHANGING_PASSWORD: u32 = 709;
}

/// What happened to a link.
///
/// A link gives [`Event::Down`] exactly once, and before it exactly one [`Event::Refused`] unless it reached
/// [`Event::NetworkUp`]. [`Event::Finished`] is the last: then the link has nothing more to say and can be dropped.
/// Dropping it earlier is allowed; the peer's last Terminate-Request then goes unanswered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// LCP is open.
    LcpUp(LcpUp),
    /// The peer named itself (LCP Identification, RFC 1570): the version or the computer's name, printable ASCII only.
    /// Nobody vouches for it.
    PeerIdentified(String),
    /// A password was wrong and the client may try again; not the end.
    AuthenticationRetry {
        /// As sent.
        user: String,
        /// Why, from [`Reject::cause`].
        cause: String,
    },
    /// The client (server role) or we (client role) are authenticated.
    Authenticated {
        /// As sent.
        user: String,
        /// How.
        method: Option<AuthMethod>,
    },
    /// IPCP is open: data may flow.
    NetworkUp(NetworkUp),
    /// The attempt failed.
    Refused(Refusal),
    /// Data no longer flows and never will again on this link: release the address, close the L2TP session soon.
    Down {
        /// Why.
        reason: DownReason,
    },
    /// The link has said everything; drop it and close the L2TP session.
    Finished,
}

/// What LCP agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LcpUp {
    /// The largest packet that the peer may send.
    pub local_mru: u16,
    /// The largest packet that we may send.
    pub peer_mru: u16,
    /// How the client is to authenticate.
    pub method: Option<AuthMethod>,
    /// The peer takes one-byte protocol fields.
    pub pfc: bool,
    /// The peer takes frames without `FF 03`.
    pub acfc: bool,
}

/// What IPCP agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkUp {
    /// Our address.
    pub local: Ipv4Addr,
    /// The peer's address.
    pub peer: Ipv4Addr,
    /// Client role: the DNS servers that the server gave.
    pub dns: [Option<Ipv4Addr>; 2],
    /// The largest IP packet that we may send: the smaller of the peer's MRU and ours. [`clamp_mss`](crate::clamp_mss)
    /// takes it.
    pub mtu: u16,
    /// The bytes to put in front of each IPv4 packet that we send.
    pub ipv4_header: &'static [u8],
}

/// Why a link ended; its `Display` is a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// The peer sent Terminate-Request; with its text or, from Windows, its error number in words.
    PeerTerminated(Option<String>),
    /// The shell called [`Link::close`](crate::Link::close).
    Closed(CloseReason),
    /// Echo requests stayed unanswered.
    EchoTimeout,
    /// No data for the idle timeout.
    IdleTimeout,
    /// The session timeout passed.
    SessionTimeout,
    /// The attempt failed; its [`Refusal`] says why.
    Refused,
    /// The peer negotiates LCP anew after the network was up.
    PeerRestarted,
    /// IPCP ended, or was not agreed on again, after the network was up.
    Ipcp(String),
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerTerminated(Some(text)) => write!(f, "the client hung up: {text}"),
            Self::PeerTerminated(None) => f.write_str("the client hung up"),
            Self::Closed(reason) => reason.fmt(f),
            Self::EchoTimeout => f.write_str("the client no longer answers LCP echo requests"),
            Self::IdleTimeout => f.write_str("no data for the idle timeout"),
            Self::SessionTimeout => f.write_str("the session timeout passed"),
            Self::Refused => f.write_str("the attempt failed"),
            Self::PeerRestarted => f.write_str("the client began a new negotiation"),
            Self::Ipcp(what) => f.write_str(what),
        }
    }
}

/// Why the shell closes a link; the text goes into our Terminate-Request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// An operator ended the session.
    Operator,
    /// The gateway shuts down.
    Shutdown,
    /// The user's rights, or the machine's certificate, were withdrawn.
    Revoked,
    /// The user disconnects (client role).
    User,
    /// The same user or machine connected elsewhere.
    Replaced,
    /// The L2TP session or the IPsec peer below is gone: nothing is sent any more.
    LowerLayerDown,
    /// In words.
    Other(String),
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Operator => "ended by an operator",
            Self::Shutdown => "the gateway is shutting down",
            Self::Revoked => "access was withdrawn",
            Self::User => "user request",
            Self::Replaced => "connected elsewhere",
            Self::LowerLayerDown => "the tunnel below is gone",
            Self::Other(text) => text,
        })
    }
}

/// How far a failed attempt came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Negotiating the link.
    Lcp,
    /// Proving who it is.
    Authentication,
    /// Getting an address.
    Ipcp,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lcp => "LCP",
            Self::Authentication => "authentication",
            Self::Ipcp => "IPCP",
        })
    }
}

/// One attempt that failed, for the audit record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// How far it came.
    pub phase: Phase,
    /// The user name as sent, once there was one.
    pub user: Option<String>,
    /// Why, in words.
    pub cause: String,
    /// What to change, in words.
    pub remedy: String,
}
