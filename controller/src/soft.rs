//! What the leader knows and the log does not: life signs and counters. A new leader starts without and gives everyone
//! the full time again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sallyport_proto::v1;

/// A gateway's last life sign.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GatewaySigns {
    /// The incarnation it belongs to.
    pub(crate) epoch: u64,
    /// When, monotonic milliseconds.
    pub(crate) seen_ms: u64,
    /// When, milliseconds since 1970; 0 while it has not been heard of by this process.
    pub(crate) seen_unix_ms: u64,
    /// Sessions it says it carries.
    pub(crate) live_sessions: u32,
    /// IKE exchanges under way.
    pub(crate) half_open: u32,
    /// It takes no new sessions.
    pub(crate) draining: bool,
    /// The roots that it trusts: bit N - 1 for root N; 0 where it has not said.
    pub(crate) roots: u64,
}

/// A session's last report.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionSigns {
    /// When, monotonic milliseconds; at first when this process first saw the session.
    pub(crate) seen_ms: u64,
    /// When counters were reported, milliseconds since 1970; 0 for never.
    pub(crate) counters_unix_ms: u64,
    /// The counters.
    pub(crate) counters: v1::Counters,
    /// Outer address of the peer, if it was reported.
    pub(crate) remote: String,
}

/// All of it. Bounded by what is in the state: the janitor drops the rest.
#[derive(Debug, Default)]
pub(crate) struct Signs {
    /// By slot.
    pub(crate) gateways: BTreeMap<u32, GatewaySigns>,
    /// By session id.
    pub(crate) sessions: BTreeMap<u64, SessionSigns>,
}

/// The lock around it.
#[derive(Debug, Default)]
pub(crate) struct Soft(Mutex<Signs>);

impl Soft {
    /// Looks and changes; hold it briefly.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Signs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everybody counts as heard of now: this node has not listened until now, as another led or the process was stopped.
    pub(crate) fn give_all_the_full_time(&self, now_ms: u64) {
        let mut signs = self.lock();
        signs.gateways.values_mut().for_each(|gateway| gateway.seen_ms = now_ms);
        signs.sessions.values_mut().for_each(|session| session.seen_ms = now_ms);
    }

    /// A gateway has shown that it lives.
    pub(crate) fn heard(&self, slot: u32, epoch: u64, seen_ms: u64, seen_unix_ms: u64) {
        let mut signs = self.lock();
        let gateway = signs.gateways.entry(slot).or_default();
        if gateway.epoch != epoch {
            *gateway = GatewaySigns { epoch, ..GatewaySigns::default() };
        }
        (gateway.seen_ms, gateway.seen_unix_ms) = (seen_ms, seen_unix_ms);
    }
}
