use std::collections::BTreeMap;

use openraft::CommittedLeaderId;

use super::*;
use crate::raft::SnapshotData;
use crate::raft::network::Head;

const LEASE: Duration = Duration::from_millis(800);

fn log_id(term: u64, index: u64) -> Option<LogId> {
    Some(LogId::new(CommittedLeaderId::new(term, 1), index))
}

#[test]
fn a_voter_says_no_while_it_hears_a_leader_or_leads_or_knows_more() {
    let ms = |ms| Some(Duration::from_millis(ms));
    let silent = View { last_log_id: log_id(3, 9), leader_spoke: ms(801), majority_answered: None };
    assert!(silent.would_vote(log_id(3, 9), LEASE));
    assert!(silent.would_vote(log_id(4, 2), LEASE), "of a later term");
    assert!(!silent.would_vote(log_id(3, 8), LEASE));
    assert!(!silent.would_vote(None, LEASE));
    let never = View { leader_spoke: None, ..silent };
    assert!(never.would_vote(log_id(3, 9), LEASE), "it has heard none since it was started");
    assert!(!View { leader_spoke: ms(800), ..silent }.would_vote(log_id(4, 10), LEASE));
    assert!(!View { majority_answered: ms(20), ..silent }.would_vote(log_id(4, 10), LEASE));
    assert!(
        View { majority_answered: ms(900), ..silent }.would_vote(log_id(4, 10), LEASE),
        "a leader that was cut off"
    );
    assert!(View::default().would_vote(None, LEASE));
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Voter {
    Yes,
    No,
    Older,
    Away,
    Hangs,
}

struct Voters(BTreeMap<u64, Voter>);

impl Transport for Voters {
    fn append_entries<'a>(&'a self, _: &'a Destination, _: Vec<u8>) -> Answer<'a, Vec<u8>> {
        Box::pin(std::future::pending())
    }
    fn vote<'a>(&'a self, _: &'a Destination, _: Vec<u8>) -> Answer<'a, Vec<u8>> {
        Box::pin(std::future::pending())
    }
    fn pre_vote<'a>(&'a self, to: &'a Destination, _: Vec<u8>) -> Answer<'a, Vec<u8>> {
        let voter = self.0[&to.target];
        Box::pin(async move {
            match voter {
                Voter::Yes | Voter::No => {
                    let answer = VoteResponse::new(Vote::new(1, 9), None, voter == Voter::Yes);
                    Ok(encode(&answer).expect("encodes"))
                }
                Voter::Older => Err(LinkError::Unknown("unimplemented".into())),
                Voter::Away => Err(LinkError::Unreachable("refused".into())),
                Voter::Hangs => std::future::pending().await,
            }
        })
    }
    fn snapshot<'a>(&'a self, _: &'a Destination, _: Head, _: SnapshotData) -> Answer<'a, Vec<u8>> {
        Box::pin(std::future::pending())
    }
}

/// Member 1 asks the others, which are all voters of one or two configurations.
async fn wins(others: &[Voter], configs: &[&[u64]], limit: Duration) -> bool {
    let voters = Voters((2..).zip(others.iter().copied()).collect());
    let to = |target: &u64| Destination { source: 1, target: *target, address: String::new() };
    let others: Vec<_> = voters.0.keys().map(to).collect();
    let configs: Vec<BTreeSet<u64>> = configs.iter().map(|ids| ids.iter().copied().collect()).collect();
    ask(&voters, 1, &others, &[], &configs, limit).await
}

#[tokio::test]
async fn a_majority_is_enough_and_nobody_else_is_waited_for() {
    use Voter::{Away, Hangs, No, Older, Yes};
    let (three, five): (&[u64], &[u64]) = (&[1, 2, 3], &[1, 2, 3, 4, 5]);
    // So long that a test which waits for it fails.
    let never = Duration::from_secs(86_400);
    assert!(wins(&[Hangs, Yes], &[three], never).await);
    assert!(wins(&[Hangs, Older], &[three], never).await, "older software has no say");
    assert!(wins(&[], &[&[1]], never).await, "alone");
    assert!(wins(&[Hangs, Yes, Hangs, Yes], &[five], never).await);
    assert!(!wins(&[No, Away], &[three], never).await);
    assert!(!wins(&[No, No, Yes, Away], &[five], never).await);
    let soon = Duration::from_millis(10);
    assert!(!wins(&[Hangs, No], &[three], soon).await);
    // Of both configurations while the members change.
    assert!(!wins(&[Yes, Yes, Away, Away], &[three, five, &[1, 4, 5]], never).await);
    assert!(wins(&[Yes, Hangs, Yes, Hangs], &[three, five], never).await);
}
