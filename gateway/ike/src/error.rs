//! Why an attempt failed, for the person who asks.

use core::fmt;
use std::net::SocketAddr;

use sallyport_base::PeerId;

/// One failed attempt: the phase, the cause and what to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// How far it got.
    pub phase: Phase,
    /// The cause as a closed set, for counters.
    pub kind: RefusalKind,
    /// Our address.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// Who the peer said it is, as far as it did.
    pub identity: Option<String>,
    /// The peer that was up, or that we connected to.
    pub peer: Option<PeerId>,
    /// Why, in words.
    pub cause: String,
    /// What to change, in words.
    pub remedy: String,
    /// Refusals of strangers that were counted and not reported since the last one that was: more than zero means a
    /// flood.
    pub suppressed: u64,
}

/// How far an attempt got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// ISAKMP SA: proposals, key exchange, authentication.
    MainMode,
    /// ESP SA.
    QuickMode,
    /// Something that is neither: IKEv2, aggressive mode.
    Other,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MainMode => "IKE main mode",
            Self::QuickMode => "IKE quick mode",
            Self::Other => "IKE",
        })
    }
}

/// The cause of a [`Refusal`] as a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusalKind {
    /// No transform of the client's list is allowed.
    NoProposal,
    /// The pre-shared keys differ.
    WrongPreSharedKey,
    /// There is no pre-shared key for this client.
    NoPreSharedKey,
    /// The shell's verification turned it away.
    Certificate,
    /// The peer sent no certificate or no signature.
    NoCertificate,
    /// The peer stopped answering.
    Silence,
    /// A message was not what the exchange asks for.
    Malformed,
    /// The key exchange or a signature could not be computed.
    Crypto,
    /// The identities of quick mode are not those of L2TP.
    Selectors,
    /// Transport or UDP encapsulation cannot be had.
    Encapsulation,
    /// The peer ended the exchange.
    PeerRefused,
    /// An exchange or version that is not spoken here.
    NotSpoken,
    /// A limit was reached.
    Limit,
    /// The shell ended the attempt.
    Local,
}

impl RefusalKind {
    /// The name that counters carry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoProposal => "no_proposal",
            Self::WrongPreSharedKey => "wrong_psk",
            Self::NoPreSharedKey => "no_psk",
            Self::Certificate => "certificate",
            Self::NoCertificate => "no_certificate",
            Self::Silence => "silence",
            Self::Malformed => "malformed",
            Self::Crypto => "crypto",
            Self::Selectors => "selectors",
            Self::Encapsulation => "encapsulation",
            Self::PeerRefused => "peer_refused",
            Self::NotSpoken => "not_spoken",
            Self::Limit => "limit",
            Self::Local => "local",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.phase, self.cause)
    }
}

impl std::error::Error for Refusal {}
