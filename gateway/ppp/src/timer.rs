//! Times and counts: those of RFC 1661 §4.6 first, then ours.

use core::time::Duration;

/// Restart timer.
pub const RESTART: Duration = Duration::from_secs(3);
/// Configure-Requests without an answer before we give up.
pub const MAX_CONFIGURE: u8 = 10;
/// Terminate-Requests without an answer before we go down regardless.
pub const MAX_TERMINATE: u8 = 2;
/// Configure-Naks that we send before we turn to Configure-Reject.
pub const MAX_FAILURE: u8 = 5;

/// Configure-Naks and -Rejects that we take before we call the negotiation hopeless. The RFC's counters restart at each
/// Nak, so that two stubborn ends would talk for ever.
pub const MAX_REPLIES: u8 = 20;
/// Loops that the magic number shows before the link counts as looped back (RFC 1661 §6.4).
pub const MAX_LOOPS: u8 = 3;
/// The MRU that fits L2TP/IPsec on Ethernet.
pub const DEFAULT_MRU: u16 = 1400;
/// The smallest MRU that we take from a peer: an IPv4 packet of 68 bytes may not be fragmented (RFC 791), and below 576
/// little works.
pub const MIN_MRU: u16 = 576;
/// LCP echo: each client answers it, and inside ESP nothing else tells that a phone has gone.
pub const ECHO_INTERVAL: Duration = Duration::from_secs(30);
/// Unanswered echoes until the link is dead.
pub const ECHO_MISSES: u8 = 4;
/// For authentication as a whole; a person may have to type.
pub const AUTH_TIMEOUT: Duration = Duration::from_secs(60);
/// For IPCP as a whole.
pub const NETWORK_TIMEOUT: Duration = Duration::from_secs(45);
/// How long a server waits for the client to begin.
pub const START_DELAY: Duration = Duration::from_secs(1);
/// For LCP as a whole.
pub const LCP_TIMEOUT: Duration = Duration::from_secs(60);
