//! Counters of one link.

/// What a link counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Control frames received.
    pub frames_in: u64,
    /// Control frames sent.
    pub frames_out: u64,
    /// Frames dropped because they made no sense.
    pub malformed: u64,
    /// Frames dropped because their phase or protocol was not open.
    pub out_of_phase: u64,
    /// Protocol-Rejects sent.
    pub protocol_rejects: u64,
    /// Configure-Requests, challenges and the like that were sent again.
    pub retransmissions: u64,
    /// Echo requests that stayed unanswered.
    pub echo_misses: u64,
}
