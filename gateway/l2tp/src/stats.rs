//! Counters of one endpoint.

/// What an endpoint counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Control messages received, ZLBs too.
    pub messages_in: u64,
    /// Control messages sent, ZLBs and retransmissions too.
    pub messages_out: u64,
    /// Datagrams dropped because their header made no sense or had another version than 2.
    pub malformed: u64,
    /// Messages for a tunnel that does not exist, or that is another peer's.
    pub unknown_tunnel: u64,
    /// Messages received again.
    pub duplicates: u64,
    /// Messages received early and kept until their turn.
    pub out_of_order: u64,
    /// Messages dropped because they lay outside our window or found our queue full.
    pub outside_window: u64,
    /// Messages sent again.
    pub retransmissions: u64,
    /// Tunnels established.
    pub tunnels_up: u64,
    /// Sessions established.
    pub sessions_up: u64,
    /// Attempts refused.
    pub refused: u64,
}

impl Stats {
    pub(crate) const fn new() -> Self {
        Self {
            messages_in: 0,
            messages_out: 0,
            malformed: 0,
            unknown_tunnel: 0,
            duplicates: 0,
            out_of_order: 0,
            outside_window: 0,
            retransmissions: 0,
            tunnels_up: 0,
            sessions_up: 0,
            refused: 0,
        }
    }
}
