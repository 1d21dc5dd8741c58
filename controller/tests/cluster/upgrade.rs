//! A group that goes from one version to the next, member by member. The versions are the same program that takes itself for
//! an older one: what is beyond its level it does not know.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sallyport_controller::{Error, Formation, LEVEL, Software};
use sallyport_proto::failover::{Failover, REQUEST_ID};
use sallyport_proto::v1;
use sallyport_proto::v1::operator_client::OperatorClient;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

use super::{Member, add_user, cluster, settled, stop_all, three, three_of, token, users, wait_for};

/// How long a writer asks again for the same change: much longer than a member takes to start.
const PATIENCE: Duration = Duration::from_secs(60);

fn old() -> Software {
    Software { version: "0.0.9".into(), level: 1 }
}

/// What the older version does not know.
async fn revoke_tokens(at: &OperatorClient<Channel>) -> Result<(), Status> {
    at.clone().revoke_cluster_tokens(v1::RevokeClusterTokensRequest {}).await.map(drop)
}

/// One client that goes on to whichever member answers.
fn anywhere(members: &[Member]) -> OperatorClient<Failover> {
    let read = |name: &str| std::fs::read(members[0].dir.path().join("operator").join(name)).expect("the operator");
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read("ca.pem")))
        .identity(Identity::from_pem(read("cert.pem"), read("key.pem")))
        .domain_name(sallyport_proto::CONTROLLER_NAME);
    let lazy = |member: &Member| {
        let endpoint = Endpoint::from_shared(format!("https://{}", member.config.listen)).expect("an address");
        endpoint.tls_config(tls.clone()).expect("TLS").connect_timeout(Duration::from_secs(1)).connect_lazy()
    };
    OperatorClient::new(Failover::new(members.iter().map(lazy).collect(), 1).patience(Duration::from_secs(5)))
}

/// Adds users without end, each until it is acknowledged, and notes them.
struct Load {
    stop: Arc<AtomicBool>,
    added: Arc<Mutex<BTreeSet<String>>>,
    writers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(members: &[Member]) -> Self {
        let (stop, added) = (Arc::<AtomicBool>::default(), Arc::<Mutex<BTreeSet<String>>>::default());
        let writers = (0..3)
            .map(|writer| {
                let (mut client, stop, added) = (anywhere(members), stop.clone(), added.clone());
                tokio::spawn(async move {
                    for n in 0_u128.. {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        let name = format!("w{writer}-{n}");
                        tokio::time::timeout(PATIENCE, add(&mut client, &name, writer << 64 | n)).await.expect("added");
                        added.lock().expect("whole").insert(name);
                        tokio::time::sleep(Duration::from_millis(20)).await; // a load, not a flood
                    }
                })
            })
            .collect();
        Self { stop, added, writers }
    }

    fn count(&self) -> usize {
        self.added.lock().expect("whole").len()
    }

    /// Returns once so many more changes were acknowledged.
    async fn goes_on(&self, more: usize) {
        let before = self.count();
        wait_for("changes under way", || async { (self.count() >= before + more).then_some(()) }).await;
    }

    async fn end(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await.expect("no writer was refused anything");
        }
        Arc::into_inner(self.added).expect("the only one").into_inner().expect("whole")
    }
}

/// The same change under the same id until it is acknowledged. Made twice, it would be refused: there is such a user.
async fn add(client: &mut OperatorClient<Failover>, name: &str, id: u128) {
    loop {
        let password = Some(v1::Secret::new("open sesame"));
        let mut request = Request::new(v1::AddUserRequest { name: name.into(), password, ..Default::default() });
        request.metadata_mut().insert(REQUEST_ID, format!("{id:032x}").parse().expect("text"));
        match client.add_user(request).await {
            Ok(_) => return,
            Err(e)
                if matches!(e.code(), Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Unknown) =>
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(e) => panic!("{name}: {e:?}"),
        }
    }
}

/// All users that a member shows, page by page.
async fn all_users(at: &OperatorClient<Channel>) -> Option<BTreeSet<String>> {
    let (mut all, mut page_token) = (BTreeSet::new(), String::new());
    loop {
        let request = v1::ListUsersRequest { page_size: 1_000, page_token, ..Default::default() };
        let answer = at.clone().list_users(request).await.ok()?.into_inner();
        all.extend(answer.users.into_iter().map(|u| u.name));
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            return Some(all);
        }
    }
}

async fn at_level(at: &OperatorClient<Channel>, level: u32) -> v1::GetClusterResponse {
    wait_for(&format!("level {level}"), || async { cluster(at).await.filter(|c| c.level == level) }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_upgraded_member_by_member_and_uses_what_is_new_when_all_know_it() {
    let (mut members, first) = three_of(old()).await;
    let load = Load::start(&members);
    load.goes_on(5).await;
    for position in 0..3 {
        // Somebody is still old: what is new is refused, and it is said who is in the way. Not the leader knows it first.
        let at = members[(position + 1) % 3].operator().await;
        let refused = revoke_tokens(&at).await.expect_err("not all know it");
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
        let (message, last) = (refused.message(), members[2].id());
        assert!(message.contains(&format!("controller {last} (")) && message.contains("runs 0.0.9"), "{message}");
        assert!(message.contains("must run version 0.1.0 or newer first"), "{message}");

        let member = &mut members[position];
        member.stop().await;
        member.software = Software::current();
        load.goes_on(5).await;
        member.again().await.expect("the new version starts on the state of the old one");
        let (id, at) = (member.id(), member.operator().await);
        let seen = wait_for("the new version in the records", || async {
            let seen = cluster(&at).await?;
            seen.members
                .iter()
                .any(|m| m.id == id && m.level == LEVEL && m.version == Software::current().version)
                .then_some(seen)
        })
        .await;
        assert_eq!(seen.level, if position < 2 { 1 } else { seen.level });
        // The new version leads the old ones, too.
        if position == 0 {
            let handed = wait_for("the lead at the new version", || async {
                at.clone().transfer_leader(v1::TransferLeaderRequest { id }).await.ok()
            });
            assert_eq!(handed.await.into_inner().leader_id, id);
        }
        load.goes_on(5).await;
    }
    drop(first);
    let mut operator = members[0].operator().await;
    let seen = at_level(&operator, LEVEL).await;
    assert!(seen.members.iter().all(|m| m.level == LEVEL && m.vitals.as_ref().is_none_or(|v| v.level == LEVEL)));
    let (spare, addresses) = token(&mut operator).await;
    wait_for("what is new", || async { revoke_tokens(&operator).await.ok() }).await;
    let added = load.end().await;
    for member in &members {
        let at = member.operator().await;
        assert_eq!(all_users(&at).await.expect("answers"), added, "as acknowledged, on every member");
    }

    // No way back for a member, and none in for an older one. What its own log does not hold as decided yet when it starts, the leader
    // tells it a moment later: then it ends.
    members[2].stop().await;
    members[2].software = old();
    let refused = match members[2].again().await {
        Err(refused) => refused,
        Ok(()) => {
            let ended = tokio::time::timeout(Duration::from_secs(60), members[2].running().wait()).await;
            members[2].stop().await;
            ended.expect("too old")
        }
    };
    assert!(matches!(refused, Error::Outdated(_)), "{refused:?}");
    assert!(refused.to_string().contains("install version 0.1.0 or newer"), "{refused}");
    members[2].software = Software::current();
    members[2].again().await.expect("the new version starts again");
    settled(&operator, &[1, 2, 3]).await;
    let refused = |token, software| {
        let formation = Formation::Join { addresses: addresses.clone(), token, learner: true };
        async move {
            let start = sallyport_controller::Start { software, ..sallyport_controller::Start::new(formation) };
            let dir = tempfile::tempdir().expect("temporary folder");
            let joined = sallyport_controller::Controller::start_as(super::config(), dir.path(), start).await;
            joined.expect_err("refused").to_string()
        }
    };
    let (fresh, _) = token(&mut operator).await;
    let why = refused(fresh.clone(), old()).await;
    assert!(why.contains("level") && why.contains("install version 0.1.0 or newer"), "{why}");
    let why = refused(spare, Software::current()).await;
    assert!(why.contains("is not known"), "a token that was taken back: {why}");
    stop_all(members).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_level_waits_for_the_operator_who_holds_it() {
    let mut only = Member::start_as(Formation::Found, old()).await;
    let mut operator = only.operator().await;
    super::common::change_settings(&mut operator, |s| s.hold_upgrade = true).await;
    only.stop().await;
    only.software = Software::current();
    only.again().await.expect("starts");
    let mut operator = only.operator().await;
    let seen = wait_for("the new version in the records", || async {
        cluster(&operator).await.filter(|c| c.members[0].level == LEVEL)
    })
    .await;
    assert!(seen.level == 1 && seen.level_held);
    let refused = revoke_tokens(&operator).await.expect_err("held");
    assert!(refused.message().contains("hold-upgrade=false"), "{refused:?}");
    // Until then the way back is open.
    only.stop().await;
    only.software = old();
    only.again().await.expect("the old version starts again");
    only.stop().await;
    only.software = Software::current();
    only.again().await.expect("starts");
    operator = only.operator().await;
    super::common::change_settings(&mut operator, |s| s.hold_upgrade = false).await;
    at_level(&operator, LEVEL).await;
    revoke_tokens(&operator).await.expect("works");
    only.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stops_hands_the_lead_over_first() {
    let (mut members, operator) = three().await;
    let before = cluster(&operator).await.expect("answers");
    let position = members.iter().position(|m| m.id() == before.leader_id).expect("a member");
    let mut leader = members.remove(position);
    let (one, other) = (members[0].operator().await, members[1].operator().await);
    leader.stop().await;
    let next = wait_for("another leader", || async {
        let views = [cluster(&one).await, cluster(&other).await];
        views.into_iter().flatten().find(|view| view.leader_id == view.seen_by).map(|view| view.leader_id)
    })
    .await;
    assert_ne!(next, before.leader_id);
    let mut at = if next == members[0].id() { one } else { other };
    add_user(&mut at, "ada", "open sesame").await;
    assert_eq!(users(&at).await, Some(vec!["ada".into()]));
    let after = cluster(&at).await.expect("answers");
    assert!(after.term > before.term && after.leader_id != before.leader_id, "{after:?}");
    let away = after.members.iter().find(|m| m.id == before.leader_id).expect("still a member");
    assert!(away.vitals.is_none() && !away.version.is_empty() && away.level == LEVEL, "{away:?}");
    assert!(after.members.iter().any(|m| m.last_contact_unix_ms != 0), "{after:?}");

    // Status needs no majority.
    let position = members.iter().position(|m| m.id() == next).expect("a member");
    members.remove(position).stop().await;
    let last = members[0].operator().await;
    let seen = cluster(&last).await.expect("answers alone");
    assert_eq!((seen.seen_by, seen.members.len()), (members[0].id(), 3));
    assert_eq!(seen.members.iter().filter(|m| m.vitals.is_some()).count(), 1);
    stop_all(members).await;
}
