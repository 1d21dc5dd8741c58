//! Reliable delivery of control messages (RFC 2661 §5.8 and appendix A).

use std::collections::{BTreeMap, VecDeque};

use sallyport_base::Instant;

use crate::header::{CONTROL_HEADER_LEN, ControlHeader};
use crate::timer;

/// So many messages of ours may wait for acknowledgement. While it is full we take no new message from the peer, so that
/// a peer that asks much and acknowledges nothing cannot make us remember more.
pub(crate) const MAX_QUEUE: usize = 64;
/// The longest control message that is kept for its turn; all real ones are far shorter.
pub(crate) const MAX_EARLY_LEN: usize = 2048;
/// The window of a peer that announces none (§4.4.3, Receive Window Size).
pub(crate) const DEFAULT_PEER_WINDOW: u16 = 4;

/// What to do with a message that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It is the one that we waited for: act on it, and then ask [`Channel::next_early`].
    InOrder,
    /// It came before its turn and is kept.
    Early,
    /// We have had it: acknowledge again, do nothing else.
    Duplicate,
    /// Outside the window, or no room: as if it never came.
    Dropped,
}

/// What [`Channel::handle_timeout`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// Nothing was due.
    None,
    /// The oldest message must be sent again, which the next [`Channel::poll_transmit`] does.
    Resend,
    /// The peer is gone.
    Dead,
}

/// The sequence state of one tunnel.
#[derive(Debug)]
pub(crate) struct Channel {
    /// Ns of the front of `queue`: the oldest message that is not acknowledged.
    una: u16,
    /// Unacknowledged and unsent messages with their whole header; the i-th has Ns `una + i`.
    queue: VecDeque<Vec<u8>>,
    /// How many from the front count as in flight.
    in_flight: usize,
    /// How many from the front were sent at least once.
    sent: usize,
    /// The next Ns that we expect.
    nr: u16,
    /// Messages beyond `nr`, by Ns; inside our window, so bounded by it.
    early: BTreeMap<u16, (ControlHeader, Vec<u8>)>,
    /// What we announced.
    local_window: u16,
    /// What the peer announced.
    peer_window: u16,
    /// Congestion window and slow-start threshold (appendix A), and acknowledgements since the last step.
    cwnd: u16,
    ssthresh: u16,
    acked: u16,
    retries: u8,
    max_retries: u8,
    deadline: Option<Instant>,
    /// Whether the peer is owed an acknowledgement.
    ack_due: bool,
}

impl Channel {
    pub(crate) const fn new(local_window: u16, max_retries: u8) -> Self {
        Self {
            una: 0,
            queue: VecDeque::new(),
            in_flight: 0,
            sent: 0,
            nr: 0,
            early: BTreeMap::new(),
            local_window,
            peer_window: 1,
            cwnd: 1,
            ssthresh: DEFAULT_PEER_WINDOW,
            acked: 0,
            retries: 0,
            max_retries,
            deadline: None,
            ack_due: false,
        }
    }

    /// Learns the peer's Receive Window Size; absent is 4, and the invalid 0 counts as 1.
    pub(crate) fn set_peer_window(&mut self, announced: Option<u16>) {
        self.peer_window = announced.unwrap_or(DEFAULT_PEER_WINDOW).max(1);
        self.ssthresh = self.peer_window;
    }

    /// Adds a message, whose Ns and Nr are filled in when it is sent.
    pub(crate) fn push(&mut self, message: Vec<u8>) {
        self.queue.push_back(message);
    }

    /// Whether nothing of ours waits for acknowledgement.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Forgets messages that were never sent: the tunnel ends, and a StopCCN is to go next.
    pub(crate) fn drop_unsent(&mut self) {
        self.queue.truncate(self.sent);
    }

    /// Forgets all that we wanted to send: the peer has closed the tunnel.
    pub(crate) fn drop_queue(&mut self) {
        self.una = self.una.wrapping_add(u16::try_from(self.sent).unwrap_or(u16::MAX));
        self.queue.clear();
        (self.sent, self.in_flight, self.deadline) = (0, 0, None);
    }

    /// When [`Channel::handle_timeout`] has something to do.
    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Sends the oldest message again at once, without counting it as a retry: the peer has shown that it lacks it.
    pub(crate) fn resend_first(&mut self) {
        if self.sent > 0 {
            self.in_flight = 0;
        }
    }

    /// The next message to put on the wire, or a ZLB if one is owed and nothing else carries the acknowledgement.
    /// `zlb` is where a ZLB goes. The flag says whether the message was sent before.
    pub(crate) fn poll_transmit(&mut self, now: Instant, zlb: (u16, u16)) -> Option<(Vec<u8>, bool)> {
        let window = usize::from(self.cwnd.min(self.peer_window));
        if self.in_flight < window && self.in_flight < self.queue.len() {
            let index = self.in_flight;
            let ns = self.una.wrapping_add(u16::try_from(index).unwrap_or(u16::MAX));
            let message = self.queue.get_mut(index)?;
            if let Some(numbers) = message.get_mut(CONTROL_HEADER_LEN - 4..CONTROL_HEADER_LEN) {
                let (n, r) = numbers.split_at_mut(2);
                n.copy_from_slice(&ns.to_be_bytes());
                r.copy_from_slice(&self.nr.to_be_bytes());
            }
            let message = message.clone();
            self.in_flight += 1;
            let again = self.in_flight <= self.sent;
            self.sent = self.sent.max(self.in_flight);
            self.ack_due = false;
            if self.deadline.is_none() {
                self.deadline = Some(now + timer::backoff(self.retries));
            }
            return Some((message, again));
        }
        if self.ack_due {
            self.ack_due = false;
            let ns = self.una.wrapping_add(u16::try_from(self.sent).unwrap_or(u16::MAX));
            let header = ControlHeader { tunnel_id: zlb.0, session_id: zlb.1, ns, nr: self.nr };
            return Some((header.emit(0).to_vec(), false));
        }
        None
    }

    /// Takes the Nr of any message, ZLB or not.
    pub(crate) fn handle_nr(&mut self, now: Instant, nr: u16) {
        let acknowledged = usize::from(nr.wrapping_sub(self.una));
        // An Nr from before, or of what was never sent, says nothing.
        if acknowledged == 0 || acknowledged > self.sent {
            return;
        }
        self.queue.drain(..acknowledged.min(self.queue.len()));
        self.una = nr;
        self.sent -= acknowledged;
        self.in_flight = self.in_flight.saturating_sub(acknowledged);
        self.retries = 0;
        self.deadline = (self.in_flight > 0).then(|| now + timer::backoff(0));
        self.grow(u16::try_from(acknowledged).unwrap_or(u16::MAX));
    }

    /// Slow start below the threshold, then one more per full window.
    fn grow(&mut self, acknowledged: u16) {
        for _ in 0..acknowledged.min(self.peer_window) {
            if self.cwnd < self.ssthresh {
                self.cwnd += 1;
            } else {
                self.acked += 1;
                if self.acked >= self.cwnd {
                    self.acked = 0;
                    // A peer may announce a window of 65,535 and acknowledge its way up to it.
                    self.cwnd = self.cwnd.saturating_add(1).min(self.peer_window);
                }
            }
        }
    }

    /// Sorts a message that is not a ZLB. `Arrival::InOrder` counts it as taken.
    pub(crate) fn handle_ns(&mut self, header: ControlHeader, body: &[u8]) -> Arrival {
        let ahead = header.ns.wrapping_sub(self.nr);
        if ahead >= 0x8000 {
            self.ack_due = true;
            return Arrival::Duplicate;
        }
        if ahead >= self.local_window || self.queue.len() >= MAX_QUEUE {
            return Arrival::Dropped;
        }
        if ahead == 0 {
            self.take();
            return Arrival::InOrder;
        }
        if body.len() > MAX_EARLY_LEN {
            return Arrival::Dropped;
        }
        self.early.entry(header.ns).or_insert_with(|| (header, body.to_vec()));
        Arrival::Early
    }

    /// The next message that came early and whose turn it now is.
    pub(crate) fn next_early(&mut self) -> Option<(ControlHeader, Vec<u8>)> {
        if self.queue.len() >= MAX_QUEUE {
            return None;
        }
        let next = self.early.remove(&self.nr)?;
        self.take();
        Some(next)
    }

    fn take(&mut self) {
        // A message kept early and then received again in its turn.
        self.early.remove(&self.nr);
        self.nr = self.nr.wrapping_add(1);
        self.ack_due = true;
    }

    /// Owes the peer an acknowledgement.
    pub(crate) const fn owe_ack(&mut self) {
        self.ack_due = true;
    }

    /// Looks whether the oldest message waits for too long.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Expiry {
        if self.deadline.is_none_or(|at| at > now) {
            return Expiry::None;
        }
        if self.retries >= self.max_retries {
            self.deadline = None;
            return Expiry::Dead;
        }
        self.retries += 1;
        self.ssthresh = (self.cwnd / 2).max(1);
        (self.cwnd, self.acked, self.in_flight) = (1, 0, 0);
        self.deadline = Some(now + timer::backoff(self.retries));
        Expiry::Resend
    }
}

#[cfg(test)]
mod tests;
