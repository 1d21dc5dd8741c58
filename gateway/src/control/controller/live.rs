//! What the control plane says of live certificates, for life signs and for a policy stream that begins.

use std::sync::{Mutex, MutexGuard, PoisonError};

use sallyport_proto::v1;
use tokio::sync::Notify;

use super::Controllers;

/// What there is to say.
#[derive(Debug, Default)]
pub(super) struct Report {
    said: Mutex<(Option<v1::LiveHeld>, Vec<v1::RevocationDone>)>,
    /// It shall be said at once.
    urgent: Notify,
    /// The stream shall begin anew.
    again: Notify,
}

impl Report {
    fn lock(&self) -> MutexGuard<'_, (Option<v1::LiveHeld>, Vec<v1::RevocationDone>)> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The report.
    pub(super) fn said(&self) -> (Option<v1::LiveHeld>, Vec<v1::RevocationDone>) {
        self.lock().clone()
    }

    /// From where a stream shall go on.
    pub(super) fn at(&self) -> v1::LiveFrom {
        self.lock().0.and_then(|held| held.at).unwrap_or_default()
    }

    /// Returns when something was ended that somebody waits for.
    pub(super) async fn is_urgent(&self) {
        self.urgent.notified().await;
    }

    /// Returns when a message did not fit.
    pub(super) async fn follow_again(&self) {
        self.again.notified().await;
    }
}

impl Controllers {
    /// What is known of live certificates, and what was ended lately because of revocations; said with the next life sign, or now.
    pub fn report_live(&self, held: Option<v1::LiveHeld>, done: Vec<v1::RevocationDone>, urgent: bool) {
        *self.live.lock() = (held, done);
        if urgent {
            self.live.urgent.notify_one();
        }
    }

    /// A message of the policy stream did not fit: it begins again from what is known.
    pub fn follow_again(&self) {
        self.live.again.notify_one();
    }
}
