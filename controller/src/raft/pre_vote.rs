//! Asking before standing for election: whoever would not be elected must not stand, for the term that it raises deposes the
//! leader that the others hear well (Pre-Vote: Ongaro, Consensus: Bridging Theory and Practice, 2014, §9.6).
//!
//! The question is a RequestVote that changes nothing, neither a term nor a vote. openraft 0.9 does not know it.

use std::collections::BTreeSet;
use std::task::Poll;
use std::time::Duration;

use openraft::error::Fatal;
use openraft::raft::{VoteRequest, VoteResponse};
use openraft::type_config::TypeConfigExt;
use openraft::{Raft, ServerState};

use super::codec::{decode, encode};
use super::network::{Answer, Destination, LinkError, Transport};
use super::{LogId, TypeConfig, Vote};

/// What a voter goes by.
#[derive(Clone, Copy, Debug, Default)]
struct View {
    last_log_id: Option<LogId>,
    /// Since the leader that it follows spoke.
    leader_spoke: Option<Duration>,
    /// While it leads: since a majority answered.
    majority_answered: Option<Duration>,
}

impl View {
    /// Whether it would vote for a candidate with this log. The terms do not matter: a candidate that is behind in terms learns
    /// of it by standing.
    fn would_vote(&self, last_log_id: Option<LogId>, lease: Duration) -> bool {
        let fresh = |ago: Option<Duration>| ago.is_some_and(|ago| ago <= lease);
        !fresh(self.leader_spoke) && !fresh(self.majority_answered) && last_log_id >= self.last_log_id
    }
}

/// What this member says to a candidate.
pub(super) async fn answer(
    raft: &Raft<TypeConfig>,
    question: &VoteRequest<u64>,
    lease: Duration,
) -> Result<VoteResponse<u64>, Fatal<u64>> {
    let (vote, at) = raft.with_raft_state(|state| (*state.vote_ref(), state.vote_last_modified())).await?;
    let majority_answered = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow();
        metrics.millis_since_quorum_ack.filter(|_| metrics.state == ServerState::Leader).map(Duration::from_millis)
    };
    let view = View {
        last_log_id: raft.data_metrics().borrow().last_log,
        leader_spoke: at.filter(|_| vote.is_committed()).map(|at| TypeConfig::now() - at),
        majority_answered,
    };
    Ok(VoteResponse::new(vote, view.last_log_id, view.would_vote(question.last_log_id, lease)))
}

/// Whether this member would be elected, as far as the others answer within `limit`.
pub(super) async fn would_win(raft: &Raft<TypeConfig>, transport: &dyn Transport, limit: Duration) -> bool {
    let (id, term, membership) = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow();
        (metrics.id, metrics.current_term, metrics.membership_config.clone())
    };
    let membership = membership.membership();
    let last_log_id = raft.data_metrics().borrow().last_log;
    let others = membership.voter_ids().filter(|other| *other != id).filter_map(|target| {
        let address = membership.get_node(&target)?.addr.clone();
        Some(Destination { source: id, target, address })
    });
    let others: Vec<Destination> = others.collect();
    let Ok(body) = encode(&VoteRequest::new(Vote::new(term.saturating_add(1), id), last_log_id)) else { return false };
    ask(transport, id, &others, &body, membership.get_joint_config(), limit).await
}

/// Asks all at once. Whether `id` has a majority of each of `configs` for it; those who say nothing are not waited for once it has.
async fn ask(
    transport: &dyn Transport,
    id: u64,
    others: &[Destination],
    body: &[u8],
    configs: &[BTreeSet<u64>],
    limit: Duration,
) -> bool {
    let mut for_it = BTreeSet::from([id]);
    let mut calls: Vec<(u64, Answer<'_, Vec<u8>>)> =
        others.iter().map(|to| (to.target, transport.pre_vote(to, body.to_vec()))).collect();
    let counted = std::future::poll_fn(move |cx| {
        calls.retain_mut(|(target, call)| match call.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(answer) => {
                if is_yes(&answer) {
                    for_it.insert(*target);
                }
                false
            }
        });
        match configs.iter().all(|config| config.intersection(&for_it).count() * 2 > config.len()) {
            true => Poll::Ready(true),
            false if calls.is_empty() => Poll::Ready(false),
            false => Poll::Pending,
        }
    });
    TypeConfig::timeout(limit, counted).await.unwrap_or(false)
}

fn is_yes(answer: &Result<Vec<u8>, LinkError>) -> bool {
    match answer {
        Ok(body) => decode::<VoteResponse<u64>>(body).is_ok_and(|answer| answer.vote_granted),
        // Older software does not know the question: there, whoever wants to stand does.
        Err(LinkError::Unknown(_)) => true,
        Err(LinkError::Unreachable(_) | LinkError::Broken(_)) => false,
    }
}

#[cfg(test)]
#[path = "pre_vote/tests.rs"]
mod tests;
