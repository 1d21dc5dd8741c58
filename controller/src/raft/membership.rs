//! Who takes part in the group, as Raft knows it.

use std::collections::{BTreeMap, BTreeSet};

use openraft::error::{ClientWriteError, RaftError};
use openraft::{BasicNode, ChangeMembers, Raft};

use super::TypeConfig;
use super::propose::{ProposeError, while_leading};

/// Members by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Those who vote.
    pub voters: BTreeSet<u64>,
    /// Everyone, with the address where the others look for it.
    pub addresses: BTreeMap<u64, String>,
    /// Whether a change is under way.
    pub changing: bool,
}

impl Membership {
    /// Whether a node receives the log without voting.
    pub fn is_learner(&self, id: u64) -> bool {
        self.addresses.contains_key(&id) && !self.voters.contains(&id)
    }
}

/// A change of the group, one step of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sends the log to a new node.
    AddLearner {
        /// Its id.
        id: u64,
        /// Where it is.
        address: String,
    },
    /// Looks for a node elsewhere.
    SetAddress {
        /// Its id.
        id: u64,
        /// Where it is now.
        address: String,
    },
    /// Lets learners vote.
    Promote(BTreeSet<u64>),
    /// Takes voters out.
    RemoveVoters(BTreeSet<u64>),
    /// Takes learners out.
    RemoveLearners(BTreeSet<u64>),
    /// Ends a change that a leader before left half made.
    Finish,
}

pub(super) fn of(raft: &Raft<TypeConfig>) -> Membership {
    let metrics = raft.metrics();
    let metrics = metrics.borrow();
    let config = metrics.membership_config.membership();
    Membership {
        voters: config.voter_ids().collect(),
        addresses: config.nodes().map(|(id, node)| (*id, node.addr.clone())).collect(),
        changing: config.get_joint_config().len() > 1,
    }
}

/// Makes one step; returns when it is committed.
pub(super) async fn change(raft: &Raft<TypeConfig>, change: Change) -> Result<(), ProposeError> {
    let node = |address: String| BasicNode { addr: address };
    let changed = async {
        match change {
            // Not waited for: who is far behind would hold everyone else up.
            Change::AddLearner { id, address } => raft.add_learner(id, node(address), false).await,
            Change::SetAddress { id, address } => {
                raft.change_membership(ChangeMembers::SetNodes(BTreeMap::from([(id, node(address))])), true).await
            }
            Change::Promote(ids) => raft.change_membership(ChangeMembers::AddVoterIds(ids), true).await,
            Change::RemoveVoters(ids) => raft.change_membership(ChangeMembers::RemoveVoters(ids), false).await,
            Change::RemoveLearners(ids) => raft.change_membership(ChangeMembers::RemoveNodes(ids), false).await,
            Change::Finish => raft.change_membership(ChangeMembers::AddVoterIds(BTreeSet::new()), false).await,
        }
    };
    let Some(changed) = while_leading(raft, changed).await else { return Err(ProposeError::NoLeader) };
    changed.map(drop).map_err(|e| match e {
        RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => {
            ProposeError::elsewhere(to.leader_id, to.leader_node)
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(e)) => ProposeError::Membership(e.to_string()),
        RaftError::Fatal(e) => ProposeError::Stopped(e.to_string()),
    })
}
