//! Whether this node was removed while it was away, by what the others say.
//!
//! Each member answers one that was removed with [`REMOVED`]. One word must not be enough to end a controller: whoever is being
//! removed could say it to the leader that removes it. A removal is an entry that a majority of the voters has agreed to, so as
//! many must say it; and who is not in force by this node's own state has no say. That goes for a node that leads, too: one that
//! slept may have been removed meanwhile, and one that leads in truth has a majority behind it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::watch;
use tonic::{Code, Status};

use crate::raft::Node;

/// Metadata of a refusal that says: the caller was removed from the cluster.
pub(crate) const REMOVED: &str = "sallyport-removed";

/// Whose word counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Electorate {
    /// The other voters that are in force.
    pub(crate) others: BTreeSet<u64>,
    /// How many of them must agree.
    pub(crate) needed: usize,
}

impl Electorate {
    /// By what a node knows.
    pub(crate) fn of(node: &Node) -> Self {
        let voters = node.membership().voters;
        let state = node.shared().read();
        // Before there is a state there are no rows: Raft's membership is all there is.
        let in_force = |id: &u64| state.members.is_empty() || state.member(*id).is_some();
        let voters: BTreeSet<u64> = voters.into_iter().filter(in_force).collect();
        let needed = voters.len() / 2 + 1;
        Self { others: voters.into_iter().filter(|id| *id != node.id()).collect(), needed }
    }
}

/// Says whose word counts right now.
type Electing = Arc<dyn Fn() -> Electorate + Send + Sync>;

/// What was said.
pub(crate) struct Removal {
    said: Mutex<BTreeSet<u64>>,
    electorate: OnceLock<Electing>,
    removed: watch::Sender<bool>,
}

impl Default for Removal {
    fn default() -> Self {
        Self { said: Mutex::default(), electorate: OnceLock::new(), removed: watch::Sender::new(false) }
    }
}

impl Removal {
    /// Asks this from now on whose word counts. Before, nobody's does.
    pub(crate) fn decided_by(&self, electorate: Electing) {
        let _ = self.electorate.set(electorate); // the first is as good
    }

    /// Turns true when this node was removed.
    pub(crate) fn subscribe(&self) -> watch::Receiver<bool> {
        self.removed.subscribe()
    }

    /// This node sees in its own state that it was removed.
    pub(crate) fn certain(&self) {
        self.removed.send_replace(true);
    }

    /// A member has answered as a member does to another.
    pub(crate) fn answered_by(&self, member: u64) {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).remove(&member);
    }

    /// A member has refused a call: it may be for that.
    pub(crate) fn refused_by(&self, member: u64, status: &Status) {
        if status.code() != Code::PermissionDenied || !status.metadata().contains_key(REMOVED) {
            return;
        }
        let Some(electorate) = self.electorate.get().map(|electorate| electorate()) else { return };
        if !electorate.others.contains(&member) {
            tracing::debug!(member, "a controller that has no say in it says that this one was removed");
            return;
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.retain(|id| electorate.others.contains(id));
        let is_news = said.insert(member);
        let count = said.len();
        drop(said);
        if count >= electorate.needed {
            self.removed.send_replace(true);
        } else if is_news {
            let needed = electorate.needed;
            tracing::warn!(member, count, needed, "a controller says that this one was removed; more must say so");
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataValue;

    use super::*;

    fn removed() -> Status {
        let mut status = Status::permission_denied("controller 1 was removed from the cluster");
        status.metadata_mut().insert(REMOVED, MetadataValue::from_static("1"));
        status
    }

    fn removal(others: &[u64], needed: usize) -> Removal {
        let (removal, others) = (Removal::default(), others.iter().copied().collect::<BTreeSet<_>>());
        removal.decided_by(Arc::new(move || Electorate { others: others.clone(), needed }));
        removal
    }

    fn ends(removal: &Removal) -> bool {
        *removal.subscribe().borrow()
    }

    #[test]
    fn neither_one_voice_nor_those_of_members_that_are_none_end_a_controller() {
        let removal = removal(&[2, 3], 2);
        for member in [3, 3, 4, 5] {
            removal.refused_by(member, &removed());
            assert!(!ends(&removal), "{member}");
        }
        removal.refused_by(2, &Status::permission_denied("this call is for operators"));
        assert!(!ends(&removal), "a refusal for another reason");
        removal.refused_by(2, &removed());
        assert!(ends(&removal));
    }

    #[test]
    fn who_answers_again_has_taken_it_back_and_who_was_removed_since_has_no_say() {
        let first = removal(&[2, 3], 2);
        first.refused_by(2, &removed());
        first.answered_by(2);
        first.refused_by(3, &removed());
        assert!(!ends(&first));
        // Of two, none was ever removed without its own vote: it sees it in its own state.
        let pair = removal(&[2], 2);
        pair.refused_by(2, &removed());
        assert!(!ends(&pair));
        pair.certain();
        assert!(ends(&pair));
        // Nobody has a say before it is known who is a member.
        let early = Removal::default();
        early.refused_by(2, &removed());
        assert!(!ends(&early));
    }
}
