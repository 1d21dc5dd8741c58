//! Settings of a link, each with its default.

use core::fmt;
use core::time::Duration;

use zeroize::Zeroizing;

use crate::timer;

/// A way to authenticate (the Authentication-Protocol option, RFC 1661 §6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthMethod {
    /// Password in the clear (RFC 1334): only ever inside IPsec.
    Pap,
    /// CHAP with MD5 (RFC 1994).
    ChapMd5,
    /// MS-CHAPv2 (RFC 2759).
    MsChapV2,
}

impl AuthMethod {
    /// The name that operators know.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pap => "PAP",
            Self::ChapMd5 => "CHAP-MD5",
            Self::MsChapV2 => "MS-CHAPv2",
        }
    }
}

impl fmt::Display for AuthMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What both roles set alike.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// The Maximum-Receive-Unit that we announce, and the upper bound of what we send: 1400 leaves room for IP, UDP,
    /// ESP, UDP, L2TP and PPP on an Ethernet path.
    pub mru: u16,
    /// How long to wait for the peer's first Configure-Request before we send ours. Windows ignores what arrives before
    /// its own PPP has started, and answers only the retransmission 3 s later; who waits for it connects at once.
    pub start_delay: Duration,
    /// Time for LCP, from the start of the link.
    pub lcp_timeout: Duration,
    /// Restart timer (RFC 1661 §4.6).
    pub restart: Duration,
    /// Max-Configure (RFC 1661 §4.6).
    pub max_configure: u8,
    /// Max-Terminate (RFC 1661 §4.6).
    pub max_terminate: u8,
    /// Max-Failure (RFC 1661 §4.6): after so many Naks without convergence we reject.
    pub max_failure: u8,
    /// LCP Echo-Request after so much silence once LCP is open; `None` sends none.
    pub echo_interval: Option<Duration>,
    /// So many unanswered echoes in a row end the link.
    pub echo_misses: u8,
    /// Time for authentication, from LCP open to the last answer. With a retry allowed it starts anew: a person types.
    pub auth_timeout: Duration,
    /// Time for IPCP, from the end of authentication.
    pub network_timeout: Duration,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            mru: timer::DEFAULT_MRU,
            start_delay: Duration::ZERO,
            lcp_timeout: timer::LCP_TIMEOUT,
            restart: timer::RESTART,
            max_configure: timer::MAX_CONFIGURE,
            max_terminate: timer::MAX_TERMINATE,
            max_failure: timer::MAX_FAILURE,
            echo_interval: Some(timer::ECHO_INTERVAL),
            echo_misses: timer::ECHO_MISSES,
            auth_timeout: timer::AUTH_TIMEOUT,
            network_timeout: timer::NETWORK_TIMEOUT,
        }
    }
}

/// The settings of the authenticator's end (gateway).
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Common settings.
    pub link: LinkConfig,
    /// Our name in CHAP challenges.
    pub name: String,
    /// The methods to offer, best first; one that the client asks for by Configure-Nak is taken if it is here.
    pub methods: Vec<AuthMethod>,
    /// How many wrong passwords a client may send on one link (MS-CHAPv2 only: the others have no retry).
    pub auth_attempts: u8,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            link: LinkConfig { start_delay: timer::START_DELAY, ..LinkConfig::default() },
            name: "sallyport".into(),
            methods: vec![AuthMethod::MsChapV2],
            auth_attempts: 3,
        }
    }
}

/// The settings of the authenticated end (client).
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Common settings.
    pub link: LinkConfig,
    /// The user name as it is sent, such as `alice` or `CORP\alice`.
    pub user: String,
    /// The password. It is never printed, and wiped when dropped.
    pub password: Password,
    /// The methods we consent to, the one we prefer first.
    pub methods: Vec<AuthMethod>,
    /// Ask for DNS servers (RFC 1877).
    pub request_dns: bool,
}

impl ClientConfig {
    /// A client that consents to MS-CHAPv2 and CHAP-MD5.
    pub fn new(user: &str, password: &str) -> Self {
        Self {
            link: LinkConfig::default(),
            user: user.into(),
            password: Password::new(password),
            methods: vec![AuthMethod::MsChapV2, AuthMethod::ChapMd5],
            request_dns: true,
        }
    }
}

/// A password. It is never printed, and wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// Takes the bytes as they are.
    pub fn new(password: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(password.into()))
    }

    /// The bytes. Nobody vouches that they are text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}
