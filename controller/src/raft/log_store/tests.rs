use openraft::storage::RaftLogStorageExt;
use openraft::{CommittedLeaderId, EntryPayload};

use super::*;
use crate::config::Engine;
use crate::raft::store;
use crate::state::{Action, Command, CommandBatch, RevokeCertificate};

fn entry(index: u64, length: usize) -> Entry {
    let revoke = RevokeCertificate { serial: "x".repeat(length), reason: String::new() };
    let command = Command { request_id: vec![7; 16], at_ms: 5, action: Some(Action::RevokeCertificate(revoke)) };
    Entry {
        log_id: LogId::new(CommittedLeaderId::new(1, 1), index),
        payload: EntryPayload::Normal(CommandBatch { commands: vec![command] }),
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
}
