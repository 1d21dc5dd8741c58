use std::collections::{BTreeMap, BTreeSet};

use openraft::{BasicNode, LogId, Membership};

use super::*;
use crate::state::SharedBatch;

const OWN: u64 = 1;

fn entry(term: u64, leader: u64, index: u64) -> Entry {
    let log_id = LogId::new(CommittedLeaderId::new(term, leader), index);
    Entry { log_id, payload: EntryPayload::Normal(SharedBatch::default()) }
}

fn membership(index: u64, configs: &[&[u64]]) -> Entry {
    let configs: Vec<BTreeSet<u64>> = configs.iter().map(|c| c.iter().copied().collect()).collect();
    let nodes: BTreeMap<u64, BasicNode> = configs.iter().flatten().map(|id| (*id, BasicNode::default())).collect();
    Entry { payload: EntryPayload::Membership(Membership::new(configs, nodes)), ..entry(3, OWN, index) }
}

fn leads() -> Ahead {
    let ahead = Ahead::new(OWN);
    ahead.vote(Vote::new_committed(3, OWN));
    ahead
}

fn may(ahead: &Ahead, entries: &[Entry], voters: usize) -> bool {
    ahead.may::<()>(entries, || Ok(voters)).expect("looks up")
}

#[test]
fn only_the_leader_of_others_that_vote_is_ahead_of_its_disk() {
    let own = [entry(3, OWN, 7), entry(3, OWN, 8)];
    assert!(may(&leads(), &own, 2));
    assert!(!may(&leads(), &own, 1), "a quorum by itself");
    assert!(!may(&leads(), &own, 0));
    assert!(!may(&leads(), &[], 3));
    assert!(!may(&leads(), &[entry(2, OWN, 7)], 3), "its own of an earlier term, from another leader");
    assert!(!may(&leads(), &[entry(3, 2, 7)], 3), "of another leader");
    assert!(!may(&leads(), &[membership(7, &[&[1, 2, 3]])], 3), "who votes is about to change");
    assert!(!may(&Ahead::new(OWN), &own, 3), "without a vote");
    for vote in [Vote::new(3, OWN), Vote::new_committed(3, 2), Vote::new_committed(4, OWN)] {
        let ahead = leads();
        ahead.vote(vote);
        assert!(!may(&ahead, &own, 3), "{vote}");
    }
}

#[test]
fn the_smallest_configuration_in_force_decides() {
    let (ahead, own) = (leads(), [entry(3, OWN, 9)]);
    assert!(may(&ahead, &own, 3));
    assert!(may(&ahead, &own, 1), "looked up once");
    ahead.note(&[membership(10, &[&[1, 2], &[1]])]);
    assert!(!may(&ahead, &own, 3), "on the way to one voter");
    ahead.note(&[membership(11, &[&[1, 2], &[1, 2, 3]])]);
    assert!(may(&ahead, &own, 1));
    ahead.forget_voters();
    assert!(!may(&ahead, &own, 1), "looked up again");
}

#[tokio::test]
async fn an_index_is_durable_when_every_append_up_to_it_is() {
    let ahead = leads();
    ahead.durable(100).await.expect("nothing is on its way");
    ahead.begin(10);
    ahead.begin(12);
    ahead.durable(9).await.expect("before the first");
    let mut twelve = std::pin::pin!(ahead.durable(12));
    assert!(futures_util::poll!(twelve.as_mut()).is_pending());
    ahead.end(Ok(()));
    ahead.durable(11).await.expect("the first is there");
    assert!(futures_util::poll!(twelve.as_mut()).is_pending());
    ahead.end(Ok(()));
    twelve.await.expect("all are there");
}

#[tokio::test]
async fn a_disk_that_fails_is_never_taken_for_one_that_is_done() {
    let ahead = leads();
    ahead.begin(10);
    ahead.end(Err(std::io::Error::other("no space")));
    ahead.begin(11);
    ahead.end(Ok(()));
    ahead.failure().await;
    assert_eq!(ahead.failed().as_deref(), Some("no space"));
    for index in [9, 10, 11] {
        assert_eq!(ahead.durable(index).await, Err("no space".into()), "{index}");
    }
}
