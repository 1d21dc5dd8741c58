//! How far one message may raise the term.
//!
//! A vote counts its terms one by one, and a member takes up the term of whoever speaks to it. One message with the last term that
//! there is would leave none for the next election, in every member that hears of it and for good: openraft adds one to it.

use openraft::Raft;

use super::propose::ProposeError;
use super::{LogId, TypeConfig, Vote};

/// Terms that one message may go through: no group sees as many in its life, and one that uses up as many with each message
/// needs as many messages to use up all.
const STEP: u64 = 1 << 32;

/// Whether a vote is one that a group can have come to.
pub(super) fn is_near(own: u64, vote: &Vote) -> bool {
    vote.leader_id.term <= own.saturating_add(STEP)
}

/// Refuses the message of a leader or candidate that this member cannot have been left behind by, and one that speaks of entries
/// of a later term than its own.
pub(super) fn check(
    raft: &Raft<TypeConfig>,
    vote: &Vote,
    entries: impl IntoIterator<Item = LogId>,
) -> Result<(), ProposeError> {
    let own = raft.metrics().borrow().current_term;
    let term = vote.leader_id.term;
    if !is_near(own, vote) {
        tracing::warn!(own, term, by = vote.leader_id.node_id, "refused a message of a term that no group comes to");
        return Err(ProposeError::Membership(format!("term {term} is out of all proportion to {own}")));
    }
    match entries.into_iter().find(|id| id.leader_id.term > term) {
        Some(id) => Err(ProposeError::Membership(format!("an entry of term {} in term {term}", id.leader_id.term))),
        None => Ok(()),
    }
}
