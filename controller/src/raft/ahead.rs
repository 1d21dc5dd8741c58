//! A leader sends an entry to the others while its own disk still writes it (Raft dissertation, §10.2.1): a change waits for the
//! slower of the disks instead of for one after the other.
//!
//! openraft 0.9 waits for the leader's disk before it sends anything. So the log store of a leader says at once that an entry is
//! durable, and openraft counts the leader among those that have it. That is true before it matters, because the answers of the
//! others are held back until it is ([`Ahead::durable`]): an entry that is committed is one that another voter has, and no other
//! voter is known to have it before this disk does. Where the leader alone is a quorum, nothing of this is done.
//!
//! A leader that is killed may so find less in its log than the others have. It must not go on under the log ids that it gave
//! out: see `LogStore::give_up_lead`. One whose disk hangs must not hold the others up: see [`Ahead::gets_on`].

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use openraft::type_config::TypeConfigExt;
use openraft::{CommittedLeaderId, EntryPayload};
use tokio::sync::watch;

use super::{Entry, Instant, TypeConfig, Vote};

/// What a leader has sent and not yet on its disk.
pub(super) struct Ahead {
    own: u64,
    mode: Mutex<Mode>,
    waiting: watch::Sender<Waiting>,
    /// A fault that is put in on purpose: what others answer counts at once.
    #[cfg(test)]
    pub(super) hasty: std::sync::atomic::AtomicBool,
}

#[derive(Default)]
struct Mode {
    vote: Option<Vote>,
    /// Voters in the smallest of the configurations in force; `None` where that must be looked up.
    voters: Option<usize>,
}

#[derive(Default)]
struct Waiting {
    /// First index of each append on its way to the disk and since when, in their order.
    appends: VecDeque<(u64, Instant)>,
    /// What failed first.
    failed: Option<String>,
}

impl Ahead {
    /// For the member `own`.
    pub(super) fn new(own: u64) -> Self {
        Self {
            own,
            mode: Mutex::default(),
            waiting: watch::Sender::default(),
            #[cfg(test)]
            hasty: false.into(),
        }
    }

    fn mode(&self) -> std::sync::MutexGuard<'_, Mode> {
        self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The vote that is in force from now on.
    pub(super) fn vote(&self, vote: Vote) {
        self.mode().vote = Some(vote);
    }

    /// Entries are gone, or came as a snapshot: who votes must be looked up.
    pub(super) fn forget_voters(&self) {
        self.mode().voters = None;
    }

    /// Notes who votes from these entries on.
    pub(super) fn note(&self, entries: &[Entry]) {
        for entry in entries {
            if let EntryPayload::Membership(membership) = &entry.payload {
                self.mode().voters = Some(smallest(membership));
            }
        }
    }

    /// Whether these entries, which are about to be appended, may go to the others before they are on this disk: this node leads
    /// and is no quorum by itself. `look_up` finds the voters where they are not known.
    pub(super) fn may<E>(&self, entries: &[Entry], look_up: impl FnOnce() -> Result<usize, E>) -> Result<bool, E> {
        let mut mode = self.mode();
        let Some(vote) = mode.vote.filter(|v| v.committed && v.leader_id.voted_for() == Some(self.own)) else {
            return Ok(false);
        };
        let mine = CommittedLeaderId::new(vote.leader_id.term, self.own);
        let plain = |e: &Entry| e.log_id.leader_id == mine && !matches!(e.payload, EntryPayload::Membership(_));
        if entries.is_empty() || !entries.iter().all(plain) {
            return Ok(false);
        }
        let voters = match mode.voters {
            Some(voters) => voters,
            None => *mode.voters.insert(look_up()?),
        };
        Ok(voters > 1)
    }

    /// An append that begins at `first` is on its way to the disk.
    pub(super) fn begin(&self, first: u64) {
        self.waiting.send_modify(|w| w.appends.push_back((first, TypeConfig::now())));
    }

    /// The oldest of them is there, or never will be.
    pub(super) fn end(&self, result: std::io::Result<()>) {
        self.waiting.send_modify(|w| match result {
            Ok(()) => drop(w.appends.pop_front()),
            Err(e) => drop(w.failed.get_or_insert_with(|| e.to_string())),
        });
    }

    /// Returns while nothing is on its way for longer than `patience`, or once that has come to its end.
    pub(super) async fn gets_on(&self, patience: Duration) {
        let mut waiting = self.waiting.subscribe();
        let on = |since: Instant| TypeConfig::now() - since <= patience;
        let _ = waiting.wait_for(|w| w.failed.is_some() || w.appends.front().is_none_or(|(_, s)| on(*s))).await;
    }

    /// Returns when everything up to `index` is on this disk; the error is what failed.
    pub(super) async fn durable(&self, index: u64) -> Result<(), String> {
        #[cfg(test)]
        if self.hasty.load(std::sync::atomic::Ordering::Relaxed) {
            return Ok(());
        }
        let mut waiting = self.waiting.subscribe();
        let there = |w: &Waiting| w.failed.is_some() || w.appends.iter().all(|(first, _)| *first > index);
        match waiting.wait_for(there).await {
            Ok(w) => w.failed.clone().map_or(Ok(()), Err),
            Err(_) => Err("the log is closed".into()),
        }
    }

    /// What failed, once something has.
    pub(super) fn failed(&self) -> Option<String> {
        self.waiting.borrow().failed.clone()
    }

    /// Returns when something has failed.
    pub(super) async fn failure(&self) {
        let mut waiting = self.waiting.subscribe();
        let _ = waiting.wait_for(|w| w.failed.is_some()).await; // closed with us
    }
}

/// Voters of the smallest configuration of a membership.
pub(super) fn smallest(membership: &openraft::Membership<u64, openraft::BasicNode>) -> usize {
    membership.get_joint_config().iter().map(std::collections::BTreeSet::len).min().unwrap_or(0)
}

#[cfg(test)]
#[path = "ahead/tests.rs"]
mod tests;
