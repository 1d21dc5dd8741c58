use openraft::type_config::TypeConfigExt;
use openraft::{CommittedLeaderId, EntryPayload};

use super::*;
use crate::raft::Entry;
use crate::raft::simulation::in_virtual_time;

const HEARTBEAT: Duration = Duration::from_millis(200);

/// Says yes to everything, and counts.
#[derive(Default)]
struct Yes(Mutex<usize>);

impl Transport for Yes {
    fn append_entries<'a>(&'a self, _: &'a Destination, _: Vec<u8>) -> Answer<'a, Vec<u8>> {
        Box::pin(async move {
            *self.0.lock().expect("no panic") += 1;
            Ok(encode(&AppendEntriesResponse::<u64>::Success).expect("encodes"))
        })
    }
    fn vote<'a>(&'a self, _: &'a Destination, _: Vec<u8>) -> Answer<'a, Vec<u8>> {
        Box::pin(async { Err(LinkError::Unreachable("not asked for".into())) })
    }
    fn pre_vote<'a>(&'a self, _: &'a Destination, _: Vec<u8>) -> Answer<'a, Vec<u8>> {
        Box::pin(async { Err(LinkError::Unreachable("not asked for".into())) })
    }
    fn snapshot<'a>(&'a self, _: &'a Destination, _: Head, _: SnapshotData) -> Answer<'a, Vec<u8>> {
        Box::pin(async { Err(LinkError::Unreachable("not asked for".into())) })
    }
}

fn id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(1, 1), index)
}

fn request(prev: u64, entries: &[u64]) -> AppendEntriesRequest<TypeConfig> {
    let entry = |index: &u64| Entry { log_id: id(*index), payload: EntryPayload::Blank };
    AppendEntriesRequest {
        vote: Vote::new_committed(1, 1),
        prev_log_id: Some(id(prev)),
        entries: entries.iter().map(entry).collect(),
        leader_commit: Some(id(1)),
    }
}

async fn link(patience: Duration) -> (Arc<Yes>, Arc<Ahead>, Link) {
    let (yes, way) = (Arc::<Yes>::default(), Way { patience, ..Way::of(HEARTBEAT) });
    let ahead = way.ahead.clone();
    let link = Network::new(1, yes.clone(), way).new_client(2, &BasicNode::default()).await;
    (yes, ahead, link)
}

fn option() -> RPCOption {
    RPCOption::new(HEARTBEAT)
}

#[test]
fn an_answer_counts_once_what_it_is_about_is_on_our_disk() {
    in_virtual_time(async {
        let (_, ahead, mut link) = link(Duration::MAX).await;
        ahead.begin(2);
        link.append_entries(request(1, &[]), option()).await.expect("about nothing that is under way");
        {
            let mut waits = std::pin::pin!(link.append_entries(request(1, &[2]), option()));
            for _ in 0..10 {
                assert!(futures_util::poll!(waits.as_mut()).is_pending());
            }
            ahead.end(Ok(()));
            waits.await.expect("answered");
        }
        ahead.begin(3);
        ahead.end(Err(io::Error::other("no space")));
        link.append_entries(request(2, &[3]), option()).await.expect_err("it never will be");
    });
}

#[test]
fn a_leader_whose_own_disk_hangs_says_nothing() {
    in_virtual_time(async {
        let (yes, ahead, mut link) = link(HEARTBEAT).await;
        ahead.begin(2);
        link.append_entries(request(1, &[]), option()).await.expect("not yet");
        TypeConfig::sleep(HEARTBEAT * 2).await;
        let mut waits = std::pin::pin!(link.append_entries(request(1, &[]), option()));
        assert!(futures_util::poll!(waits.as_mut()).is_pending());
        assert_eq!(*yes.0.lock().expect("no panic"), 1);
        ahead.end(Ok(()));
        waits.await.expect("sent");
        assert_eq!(*yes.0.lock().expect("no panic"), 2);
    });
}
