use std::task::Poll;

use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogStorageExt, RaftStateMachine};
use openraft::{BasicNode, CommittedLeaderId, EntryPayload, Membership};

use super::*;
use crate::config::Engine;
use crate::raft::{SnapshotData, SnapshotMeta, StateMachine, StoredMembership, store};
use crate::state::{Action, Command, CommandBatch, RevokeCertificate, State};

fn entry(index: u64, length: usize) -> Entry {
    let revoke = RevokeCertificate { serial: "x".repeat(length), reason: String::new() };
    let command = Command { request_id: vec![7; 16], at_ms: 5, action: Some(Action::RevokeCertificate(revoke)) };
    Entry {
        log_id: LogId::new(CommittedLeaderId::new(1, 1), index),
        payload: EntryPayload::Normal(CommandBatch { commands: vec![command] }.into()),
    }
}

#[tokio::test]
async fn what_goes_to_a_follower_at_once_is_bounded_by_count_and_by_bytes() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut log = LogStore::new(store::open(dir.path(), Engine::Redb).expect("opens")).expect("starts");
    let lengths = [vec![20_000; 10], vec![300_000; 2], vec![10; 600]].concat();
    let entries: Vec<Entry> = (0..).zip(&lengths).map(|(index, length)| entry(index, *length)).collect();
    log.blocking_append(entries.clone()).await.expect("appends");
    let end = entries.len() as u64;
    let (mut next, mut counts) = (0, Vec::new());
    while next < end {
        let part = log.limited_get_log_entries(next, end).await.expect("reads");
        assert_eq!(part, entries[next as usize..next as usize + part.len()]);
        next += part.len() as u64;
        counts.push(part.len());
    }
    // Three of 20 kB fit; what is too long goes alone; of short ones there are enough.
    assert_eq!(counts, [3, 3, 3, 1, 1, 1, 256, 256, 88]);
    assert_eq!(log.limited_get_log_entries(4, 6).await.expect("reads").len(), 2);
    assert!(log.limited_get_log_entries(4, 4).await.expect("reads").is_empty());
    log.purge(log_id(5)).await.expect("purges");
    assert!(log.limited_get_log_entries(4, 8).await.expect("reads").is_empty(), "nothing from behind a gap");
    assert_eq!(log.limited_get_log_entries(6, 8).await.expect("reads"), entries[6..8]);
}

fn log_id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(1, 1), index)
}

#[tokio::test]
async fn the_log_is_purged_for_a_received_snapshot_only_with_its_installing() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let kv = store::open(&dir.path().join("store"), Engine::Redb).expect("opens");
    let mut log = LogStore::new(kv.clone()).expect("a log");
    let mut machine = StateMachine::open(kv.clone(), &dir.path().join("snapshots")).expect("a state");
    let blank = |index| {
        Op::Put(Table::Log, index_key(index), codec::encode(&Entry::new_blank(log_id(index))).expect("encodes"))
    };
    kv.write((1..=7).map(blank).collect()).expect("writes");

    machine.installs(log.received());
    log.received().note(&log_id(5));
    log.purge(log_id(5)).await.expect("leaves it");
    let state = log.get_log_state().await.expect("reads");
    assert_eq!((state.last_purged_log_id, state.last_log_id), (None, Some(log_id(7))));
    // What comes behind it waits.
    let mut behind = log.clone();
    let mut append = std::pin::pin!(behind.blocking_append(vec![Entry::new_blank(log_id(8))]));
    assert!(std::future::poll_fn(|cx| Poll::Ready(append.as_mut().poll(cx).is_pending())).await);

    let members = Membership::new(vec![[1].into()], std::collections::BTreeMap::from([(1, BasicNode::default())]));
    let meta = SnapshotMeta {
        last_log_id: Some(log_id(5)),
        last_membership: StoredMembership::new(Some(log_id(5)), members),
        snapshot_id: "1-1-5".into(),
    };
    machine.install_snapshot(&meta, Box::new(State::new().to_bytes().into())).await.expect("installs");
    let state = log.get_log_state().await.expect("reads");
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(5)), Some(log_id(7))));
    append.await.expect("appends");
    assert_eq!(log.try_get_log_entries(0..).await.expect("reads").len(), 3);
    // One of our own making is installed before anything is purged for it.
    log.purge(log_id(6)).await.expect("purges");
    assert_eq!(log.get_log_state().await.expect("reads").last_purged_log_id, Some(log_id(6)));
}

#[tokio::test]
async fn entries_behind_a_snapshot_that_will_not_be_installed_fail() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let kv = store::open(&dir.path().join("store"), Engine::Redb).expect("opens");
    let mut log = LogStore::new(kv.clone()).expect("a log");
    let mut machine = StateMachine::open(kv, &dir.path().join("snapshots")).expect("a state");
    machine.installs(log.received());
    log.received().note(&log_id(5));
    log.purge(log_id(5)).await.expect("leaves it");
    let damaged: SnapshotData = b"no rows".to_vec().into();
    assert!(machine.install_snapshot(&SnapshotMeta::default(), Box::new(damaged)).await.is_err());
    assert!(log.blocking_append(vec![Entry::new_blank(log_id(6))]).await.is_err());

    let mut log = LogStore::new(log.kv.clone()).expect("a log");
    machine.installs(log.received());
    log.received().note(&log_id(5));
    log.purge(log_id(5)).await.expect("leaves it");
    drop(machine);
    assert!(log.blocking_append(vec![Entry::new_blank(log_id(6))]).await.is_err(), "its task has ended");
}

#[tokio::test]
async fn a_lead_is_not_taken_up_again_after_a_restart() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let kv = store::open(&dir.path().join("store"), Engine::Redb).expect("opens");
    let mut log = LogStore::new(kv).expect("a log");
    log.give_up_lead(1).expect("none to give up");
    assert_eq!(log.read_vote().await.expect("reads"), None);
    for (vote, after) in [
        (Vote::new_committed(3, 1), Vote::new(3, 1)),
        (Vote::new_committed(3, 2), Vote::new_committed(3, 2)),
        (Vote::new(4, 1), Vote::new(4, 1)),
    ] {
        log.save_vote(&vote).await.expect("saves");
        log.give_up_lead(1).expect("gives up");
        assert_eq!(log.read_vote().await.expect("reads"), Some(after));
    }
}
