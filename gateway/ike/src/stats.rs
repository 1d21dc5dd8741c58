//! Counters, all since the endpoint was made.

/// What an endpoint has seen and done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Datagrams taken in.
    pub received: u64,
    /// Datagrams given out.
    pub sent: u64,
    /// NAT keepalives taken in.
    pub keepalives: u64,
    /// Datagrams that are no message of IKE.
    pub malformed: u64,
    /// Messages with cookies that nobody here knows.
    pub unknown_cookies: u64,
    /// Messages of AuthIP, which nobody speaks any more.
    pub authip: u64,
    /// Messages of IKEv2.
    pub ikev2: u64,
    /// Messages of other versions, exchanges and kinds that are not spoken here.
    pub not_spoken: u64,
    /// Requests that had come before: answered with the stored reply, or being worked on.
    pub repeated: u64,
    /// Messages of ours that were sent again.
    pub retransmitted: u64,
    /// Encrypted messages that did not decrypt to a message, or whose HASH is wrong.
    pub unauthentic: u64,
    /// Notifications and deletes in the clear, which change nothing.
    pub unprotected_informational: u64,
    /// First messages (main mode 1) answered.
    pub main_mode_1: u64,
    /// First messages whose state made room for a newer one.
    pub embryonic_evicted: u64,
    /// Handshakes that were not begun, or made room, because there were too many.
    pub half_open_evicted: u64,
    /// Jobs that were not given out because too many were unanswered.
    pub jobs_refused: u64,
    /// Phase 1 handshakes that ended well.
    pub phase1_up: u64,
    /// Quick modes that ended well.
    pub phase2_up: u64,
    /// Refusals reported.
    pub refusals: u64,
    /// Refusals counted only.
    pub refusals_suppressed: u64,
    /// Fragments taken in.
    pub fragments: u64,
    /// Fragments dropped, or messages given up for want of a fragment.
    pub fragments_dropped: u64,
    /// R-U-THERE sent.
    pub dpd_sent: u64,
    /// Peers that DPD found dead.
    pub dpd_dead: u64,
}
