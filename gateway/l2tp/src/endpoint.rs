//! All tunnels of one gateway or client.

use std::collections::VecDeque;

use sallyport_base::{Instant, PeerId};

use crate::config::Config;
use crate::message::ResultCode;
use crate::output::Output;
use crate::stats::Stats;

/// All tunnels of one gateway (LNS) or client (LAC).
#[derive(Debug)]
pub struct Endpoint {
    output: VecDeque<Output>,
    stats: Stats,
}

/// No tunnel could be opened: a limit of [`Limits`](crate::Limits) is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many tunnels or sessions")]
pub struct LimitReached;

impl Endpoint {
    /// An endpoint without tunnels.
    pub fn new(config: Config, seed: [u8; 32], now: Instant) -> Self {
        let _ = (config, seed, now);
        Self { output: VecDeque::new(), stats: Stats::default() }
    }

    /// Takes a control message that came from `peer`'s ESP SA and its UDP port `peer_port`.
    pub fn handle_control(&mut self, now: Instant, peer: PeerId, peer_port: u16, bytes: &[u8]) {
        let _ = (now, peer, peer_port, bytes);
    }

    /// Opens a tunnel with one session in it (LAC); gives our tunnel id, which the events name.
    pub fn connect(&mut self, now: Instant, peer: PeerId) -> Result<u16, LimitReached> {
        let _ = (now, peer);
        Err(LimitReached)
    }

    /// The IPsec peer is gone: drops all that hangs on it, at once and without a word to it.
    pub fn peer_gone(&mut self, now: Instant, peer: PeerId) {
        let _ = (now, peer);
    }

    /// Ends a session with a CDN (result codes: [`cdn`](crate::message::cdn)).
    pub fn disconnect_session(&mut self, now: Instant, local_session: u16, code: ResultCode) {
        let _ = (now, local_session, code);
    }

    /// Ends a tunnel and its sessions with a StopCCN (result codes: [`stop_ccn`](crate::message::stop_ccn)).
    pub fn disconnect_tunnel(&mut self, now: Instant, local_tunnel: u16, code: ResultCode) {
        let _ = (now, local_tunnel, code);
    }

    /// Ends all tunnels with a StopCCN that says that we shut down, and accepts no more.
    pub fn shutdown(&mut self, now: Instant) {
        let _ = now;
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }

    /// The next thing to do, oldest first.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// When to call [`Endpoint::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The counters.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }
}
