//! One PPP link: its phases (RFC 1661 §3), in either role.

use std::collections::VecDeque;

use sallyport_base::Instant;

use crate::config::{ClientConfig, ServerConfig};
use crate::output::{Answer, CloseReason, Output, QuestionId};
use crate::stats::Stats;

/// One PPP link.
#[derive(Debug)]
pub struct Link {
    output: VecDeque<Output>,
    stats: Stats,
}

impl Link {
    /// The authenticator's end. It starts to negotiate at once.
    pub fn server(config: ServerConfig, seed: [u8; 32], now: Instant) -> Self {
        let _ = (config, seed, now);
        Self { output: VecDeque::new(), stats: Stats::default() }
    }

    /// The authenticated end. It starts to negotiate at once.
    pub fn client(config: ClientConfig, seed: [u8; 32], now: Instant) -> Self {
        let _ = (config, seed, now);
        Self { output: VecDeque::new(), stats: Stats::default() }
    }

    /// Takes a received frame that is not data, or that the data path did not want: `FF 03` and one-byte protocol
    /// fields are accepted in any mix.
    pub fn handle_frame(&mut self, now: Instant, frame: &[u8]) {
        let _ = (now, frame);
    }

    /// Takes the answer to an [`Output::Question`].
    pub fn handle_answer(&mut self, now: Instant, question: QuestionId, answer: Answer) {
        let _ = (now, question, answer);
    }

    /// Ends the link with a Terminate-Request.
    pub fn close(&mut self, now: Instant, reason: CloseReason) {
        let _ = (now, reason);
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }

    /// Notes that authenticated traffic of the peer was seen, so that no echo is needed. Call it at most every few
    /// seconds.
    pub fn note_inbound(&mut self, now: Instant) {
        let _ = now;
    }

    /// Notes that data passed in either direction, which restarts the idle timeout. Call it at most every few seconds.
    pub fn note_data(&mut self, now: Instant) {
        let _ = now;
    }

    /// The next thing to do, oldest first.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// When to call [`Link::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The counters.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }
}
