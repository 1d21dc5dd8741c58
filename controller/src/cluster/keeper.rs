//! The leader's duty: Raft's membership follows the rows of the state, one step at a time, whoever leads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::app::Core;
use crate::authority;
use crate::raft::ProposeError;
use crate::raft::membership::{Change, Membership};
use crate::software::since;
use crate::state::{Action, MemberRow, Outcome, RaiseLevel};

/// How often to compare.
const INTERVAL: Duration = Duration::from_millis(250);
/// A learner that lacks no more entries than this may vote: it catches up in one message.
const CAUGHT_UP: u64 = 200;

/// Compares until the process ends.
pub(crate) async fn run(core: Arc<Core>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !core.node.leads() {
            continue;
        }
        raise_level(&core).await;
        if core.is_ready()
            && let Err(error) = authority::first_issuers(&core).await
        {
            tracing::debug!(%error, "the first issuing authorities could not be made now");
        }
        let step = {
            let wanted: BTreeMap<u64, MemberRow> =
                core.node.shared().read().live_members().map(|(id, m)| (id, m.clone())).collect();
            let figures = core.node.figures();
            next(&wanted, &core.node.membership(), &core.node.replicated(), figures.last_log)
        };
        let Some(step) = step else { continue };
        match core.node.change(step.clone()).await {
            Ok(()) => tracing::info!(?step, "the group has changed"),
            Err(e) if e.passes() => {}
            Err(ProposeError::Membership(e)) => tracing::debug!(?step, error = %e, "the group cannot change now"),
            Err(e) => tracing::warn!(?step, error = %e, "could not change the group"),
        }
    }
}

/// Raises the level once all members understand the next one.
async fn raise_level(core: &Core) {
    let ahead = core.node.shared().read().level_ahead();
    // A row may be of newer software that this node had before.
    let Some(level) = ahead.filter(|level| *level <= core.software.level) else { return };
    let command = RaiseLevel { level, since: since(level).into() };
    match core.propose_plain(Action::RaiseLevel(command)).await.map(|reply| reply.outcome) {
        Ok(Some(Outcome::Done(_))) => tracing::info!(level, "all controllers understand this level: it is in force"),
        Ok(other) => tracing::debug!(?other, level, "the level was not raised"),
        Err(error) => tracing::debug!(%error, level, "the level could not be raised now"),
    }
}

/// The next step from what is to what is wanted; `None` when they agree or nothing can be done yet.
fn next(
    wanted: &BTreeMap<u64, MemberRow>,
    now: &Membership,
    replicated: &BTreeMap<u64, u64>,
    last_log: u64,
) -> Option<Change> {
    // Before the first rows are written, there is nothing to compare with.
    if wanted.is_empty() {
        return None;
    }
    // Our own changes are whole when we come here: this one lost its leader between its two halves.
    if now.changing {
        return Some(Change::Finish);
    }
    // Out first: a node that is gone for good counts against the majority.
    let out: BTreeSet<u64> = now.voters.iter().copied().filter(|id| !wanted.contains_key(id)).collect();
    if !out.is_empty() && out.len() < now.voters.len() {
        return Some(Change::RemoveVoters(out));
    }
    let out: BTreeSet<u64> =
        now.addresses.keys().copied().filter(|id| !wanted.contains_key(id) && !now.voters.contains(id)).collect();
    if !out.is_empty() {
        return Some(Change::RemoveLearners(out));
    }
    for (id, row) in wanted {
        match now.addresses.get(id) {
            None => return Some(Change::AddLearner { id: *id, address: row.address.clone() }),
            Some(address) if *address != row.address => {
                return Some(Change::SetAddress { id: *id, address: row.address.clone() });
            }
            Some(_) => {}
        }
    }
    let ready = |id: &u64| replicated.get(id).is_some_and(|at| at.saturating_add(CAUGHT_UP) >= last_log);
    let promoted: BTreeSet<u64> = wanted
        .iter()
        .filter(|(id, row)| row.wants_vote && now.is_learner(**id) && ready(id))
        .map(|(id, _)| *id)
        .take(1)
        .collect();
    (!promoted.is_empty()).then_some(Change::Promote(promoted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(address: &str, wants_vote: bool) -> MemberRow {
        MemberRow { address: address.into(), wants_vote, ..MemberRow::default() }
    }

    fn membership(voters: &[u64], all: &[(u64, &str)]) -> Membership {
        Membership {
            voters: voters.iter().copied().collect(),
            addresses: all.iter().map(|(id, a)| (*id, (*a).to_owned())).collect(),
            changing: false,
        }
    }

    #[test]
    fn a_new_member_is_taught_before_it_votes() {
        let wanted = BTreeMap::from([(1, row("a", true)), (2, row("b", true))]);
        let step = |now: &Membership, at: u64| next(&wanted, now, &BTreeMap::from([(1, 5_000), (2, at)]), 5_000);
        let alone = membership(&[1], &[(1, "a")]);
        assert_eq!(step(&alone, 0), Some(Change::AddLearner { id: 2, address: "b".into() }));
        let learning = membership(&[1], &[(1, "a"), (2, "b")]);
        assert_eq!(step(&learning, 4_000), None, "far behind");
        assert_eq!(step(&learning, 4_900), Some(Change::Promote(BTreeSet::from([2]))));
        assert_eq!(step(&membership(&[1, 2], &[(1, "a"), (2, "b")]), 5_000), None);
        let mut changing = learning;
        changing.changing = true;
        assert_eq!(step(&changing, 5_000), Some(Change::Finish), "a change that lost its leader");
    }

    #[test]
    fn a_learner_that_was_not_asked_to_vote_does_not() {
        let wanted = BTreeMap::from([(1, row("a", true)), (2, row("b", false))]);
        let now = membership(&[1], &[(1, "a"), (2, "b")]);
        assert_eq!(next(&wanted, &now, &BTreeMap::from([(1, 9), (2, 9)]), 9), None);
    }

    #[test]
    fn who_was_removed_leaves_and_who_moved_is_looked_for_elsewhere() {
        let wanted = BTreeMap::from([(1, row("a", true)), (3, row("d", true))]);
        let none = BTreeMap::new();
        let now = membership(&[1, 2], &[(1, "a"), (2, "b"), (3, "c"), (4, "x")]);
        assert_eq!(next(&wanted, &now, &none, 9), Some(Change::RemoveVoters(BTreeSet::from([2]))));
        let now = membership(&[1], &[(1, "a"), (3, "c"), (4, "x")]);
        assert_eq!(next(&wanted, &now, &none, 9), Some(Change::RemoveLearners(BTreeSet::from([4]))));
        let now = membership(&[1], &[(1, "a"), (3, "c")]);
        assert_eq!(next(&wanted, &now, &none, 9), Some(Change::SetAddress { id: 3, address: "d".into() }));
        assert_eq!(next(&BTreeMap::new(), &now, &none, 9), None);
    }
}
