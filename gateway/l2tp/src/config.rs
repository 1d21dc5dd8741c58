//! Settings of an endpoint, each with its default.

use core::fmt;
use core::time::Duration;

use zeroize::Zeroizing;

use crate::timer;

/// The settings of an [`Endpoint`](crate::Endpoint).
#[derive(Clone, Debug)]
pub struct Config {
    /// Our name, sent in the Host Name AVP (RFC 2661 §4.4.3).
    pub host_name: String,
    /// Sent in the Vendor Name AVP; empty sends none.
    pub vendor_name: String,
    /// Whether a peer may open a tunnel to us (LNS). A client's endpoint says no.
    pub accept_tunnels: bool,
    /// How many control messages a peer may have in flight towards us (Receive Window Size AVP, 1 to [`MAX_WINDOW`]).
    pub receive_window: u16,
    /// The secret of tunnel authentication and of hidden AVPs. With one set, each peer must prove that it knows it.
    pub secret: Option<TunnelSecret>,
    /// Whether we hide the Assigned Session ID and similar AVPs when a secret is set. For tests of peers: nobody asks
    /// for it, and inside IPsec it hides nothing from anyone.
    pub hide_avps: bool,
    /// After how much silence of the peer we send HELLO (RFC 2661 §5.5); `None` sends none.
    ///
    /// `None` is the default: some phones never acknowledge a HELLO, so that HELLO would end living sessions, whereas
    /// each client answers LCP echo requests. A gateway that keeps PPP echo on needs no HELLO; a tunnel without any
    /// session ends by `empty_tunnel_timeout`.
    pub hello: Option<Duration>,
    /// How often an unacknowledged message is sent again before the tunnel is declared dead (RFC 2661 §5.8: at least 5).
    pub max_retries: u8,
    /// Time for a tunnel or a session to come up, from its first message.
    pub setup_timeout: Duration,
    /// How long a tunnel may stay without any session.
    pub empty_tunnel_timeout: Duration,
    /// Whether we ask the LNS to number data messages (Sequencing Required AVP; client role).
    pub sequencing: bool,
    /// Bounds on what peers can make us hold.
    pub limits: Limits,
}

/// The largest receive window we announce, and so the bound of a tunnel's queue of early messages.
pub const MAX_WINDOW: u16 = 32;

/// How many tunnels and sessions there may be. Ids are 16 bits wide, so no total can exceed 65,535.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// All tunnels, including those that are only kept to acknowledge late duplicates.
    pub tunnels: usize,
    /// Tunnels of one peer. A client needs one; a second may appear while an old one is being forgotten.
    pub tunnels_per_peer: usize,
    /// All sessions.
    pub sessions: usize,
    /// Sessions of one tunnel.
    pub sessions_per_tunnel: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { tunnels: 60_000, tunnels_per_peer: 4, sessions: 60_000, sessions_per_tunnel: 16 }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host_name: "sallyport".into(),
            vendor_name: "Sallyport".into(),
            accept_tunnels: true,
            receive_window: 8,
            secret: None,
            hide_avps: false,
            hello: None,
            max_retries: timer::MAX_RETRIES,
            setup_timeout: Duration::from_secs(60),
            empty_tunnel_timeout: Duration::from_secs(60),
            sequencing: false,
            limits: Limits::default(),
        }
    }
}

impl Config {
    /// The defaults for the client role (LAC): it accepts no tunnel, and sends HELLO, which every LNS answers.
    pub fn client(host_name: &str) -> Self {
        Self {
            host_name: host_name.into(),
            accept_tunnels: false,
            hello: Some(Duration::from_secs(60)),
            ..Self::default()
        }
    }
}

/// The shared secret of a tunnel (RFC 2661 §5.1.1). It is never printed, and wiped when dropped.
#[derive(Clone)]
pub struct TunnelSecret(Zeroizing<Vec<u8>>);

impl TunnelSecret {
    /// Takes the secret's bytes as they are configured.
    pub fn new(secret: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(secret.into()))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for TunnelSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TunnelSecret(..)")
    }
}
