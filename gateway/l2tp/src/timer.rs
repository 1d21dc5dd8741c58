//! Times and counts: those of RFC 2661 §5.8 first, then ours.

use core::time::Duration;

/// The first retransmission comes this long after a message was sent.
pub const RETRANSMIT_FIRST: Duration = Duration::from_secs(1);
/// Each further one waits twice as long, up to this.
pub const RETRANSMIT_CAP: Duration = Duration::from_secs(8);
/// Retransmissions before the peer counts as gone: 1+2+4+8+8+8 seconds after the first sending.
pub const MAX_RETRIES: u8 = 5;
/// How long a cleared tunnel is kept to acknowledge late messages: one full retransmission cycle (§5.7).
pub const LINGER: Duration = Duration::from_secs(31);

/// How long to wait for the acknowledgement of a message that was sent `retries + 1` times.
pub const fn backoff(retries: u8) -> Duration {
    let shift = if retries > 3 { 3 } else { retries };
    let secs = RETRANSMIT_FIRST.as_secs() << shift;
    Duration::from_secs(if secs > RETRANSMIT_CAP.as_secs() { RETRANSMIT_CAP.as_secs() } else { secs })
}
