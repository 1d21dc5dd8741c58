//! Three controllers in one process, over real TLS on loopback: forming, forwarding, losing and taking back members.

mod common;
#[path = "cluster/time.rs"]
mod time;
#[path = "cluster/upgrade.rs"]
mod upgrade;

use std::path::Path;
use std::time::Duration;

use common::{add_user, create_backup, operator};
use sallyport_controller::backup::{self, Lock, Secret};
use sallyport_controller::{Clock, Config, Controller, Error, Formation, Running, Software, Start};
use sallyport_proto::v1::operator_client::OperatorClient;
use sallyport_proto::v1::peer_client::PeerClient;
use sallyport_proto::{CONTROLLER_NAME, v1};
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use zeroize::Zeroizing;

/// A member, and where it lives.
struct Member {
    dir: tempfile::TempDir,
    config: Config,
    clock: Clock,
    /// What it takes itself for at its next start.
    software: Software,
    running: Option<Running>,
}

/// Settings with a port that stays the same over restarts.
fn config() -> Config {
    let mut config = common::config();
    config.listen = common::steady_address();
    config.metrics_listen = None;
    // Debug builds on a busy machine.
    config.raft.heartbeat_ms = 300;
    config
}

impl Member {
    async fn start(formation: Formation) -> Self {
        Self::start_as(formation, Software::current()).await
    }

    async fn start_as(formation: Formation, software: Software) -> Self {
        let (dir, config, clock) = (tempfile::tempdir().expect("temporary folder"), config(), Clock::system());
        let start = Start { software: software.clone(), clock: clock.clone(), ..Start::new(formation) };
        let running = Controller::start_as(config.clone(), dir.path(), start).await.expect("starts");
        Self { dir, config, clock, software, running: Some(running) }
    }

    async fn join(at: &mut OperatorClient<Channel>, learner: bool) -> Self {
        Self::join_as(at, learner, Software::current()).await
    }

    async fn join_as(at: &mut OperatorClient<Channel>, learner: bool, software: Software) -> Self {
        let (token, addresses) = token(at).await;
        Self::start_as(Formation::Join { addresses, token, learner }, software).await
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("runs")
    }

    fn id(&self) -> u64 {
        self.running().member_id()
    }

    /// What another node answers to a message of Raft with this one's certificate.
    async fn speaks_to(&self, other: &Self) -> tonic::Status {
        let read = |name: &str| std::fs::read(self.dir.path().join("controller").join(name)).expect("its identity");
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read("ca.pem")))
            .identity(Identity::from_pem(read("cert.pem"), read("key.pem")))
            .domain_name(CONTROLLER_NAME);
        let channel = common::connect(other.running().grpc_address(), tls).await.expect("connects");
        let message = v1::RaftMessage { target: other.id(), source: self.id(), ..Default::default() };
        PeerClient::new(channel).vote(message).await.expect_err("no vote")
    }

    async fn stop(&mut self) {
        self.running.take().expect("runs").shutdown().await;
    }

    async fn again(&mut self) -> Result<(), Error> {
        let (software, clock) = (self.software.clone(), self.clock.clone());
        let start = Start { software, clock, ..Start::new(Formation::Existing) };
        self.running = Some(Controller::start_as(self.config.clone(), self.dir.path(), start).await?);
        Ok(())
    }

    /// The operator of this node's folder, at this node.
    async fn operator(&self) -> OperatorClient<Channel> {
        wait_for("the operator's folder", || async { self.dir.path().join("operator/ca.pem").exists().then_some(()) })
            .await;
        operator(self.dir.path(), self.running().grpc_address()).await
    }
}

async fn token(at: &mut OperatorClient<Channel>) -> (Zeroizing<String>, Vec<String>) {
    let made = at.create_cluster_token(v1::CreateClusterTokenRequest { ttl_s: 0 }).await.expect("a token").into_inner();
    let text = String::from_utf8(made.token.expect("a token").into_inner().to_vec()).expect("text");
    (Zeroizing::new(text), made.addresses)
}

/// Asks again until there is an answer; a minute is for machines that do much else.
async fn wait_for<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    for _ in 0..1_200 {
        if let Some(found) = ask().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("waited in vain for {what}");
}

/// The refusal, if there is one, of somebody who decides: on a machine that does much else there may be no leader for a while.
async fn answered<T>(mut ask: impl AsyncFnMut() -> Result<T, tonic::Status>) -> Option<tonic::Status> {
    for _ in 0..100 {
        match ask().await {
            Err(status) if matches!(status.code(), Code::Unavailable | Code::Cancelled) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            answer => return answer.err(),
        }
    }
    panic!("nobody has answered");
}

async fn cluster(at: &OperatorClient<Channel>) -> Option<v1::GetClusterResponse> {
    at.clone().get_cluster(v1::GetClusterRequest {}).await.ok().map(tonic::Response::into_inner)
}

/// Waits until exactly these members vote and one of them leads.
async fn settled(at: &OperatorClient<Channel>, voters: &[u64]) -> v1::GetClusterResponse {
    wait_for(&format!("voters {voters:?}"), || async {
        let cluster = cluster(at).await?;
        let votes = |m: &v1::ClusterMember| matches!(m.role(), v1::MemberRole::Leader | v1::MemberRole::Voter);
        let now: Vec<u64> = cluster.members.iter().filter(|m| votes(m)).map(|m| m.id).collect();
        (now == voters && voters.contains(&cluster.leader_id) && cluster.members.len() == voters.len())
            .then_some(cluster)
    })
    .await
}

/// Makes a member lead, as often as it takes on a machine that does much else.
async fn hand_over(at: &OperatorClient<Channel>, to: &Member) {
    let request = v1::TransferLeaderRequest { id: to.id() };
    wait_for("another leader", || async { at.clone().transfer_leader(request).await.ok() }).await;
}

async fn users(at: &OperatorClient<Channel>) -> Option<Vec<String>> {
    let request = v1::ListUsersRequest::default();
    let users = at.clone().list_users(request).await.ok()?.into_inner().users;
    Some(users.into_iter().map(|u| u.name).collect())
}

async fn three() -> (Vec<Member>, OperatorClient<Channel>) {
    three_of(Software::current()).await
}

async fn three_of(software: Software) -> (Vec<Member>, OperatorClient<Channel>) {
    let first = Member::start_as(Formation::Found, software.clone()).await;
    let mut operator = first.operator().await;
    let mut members = vec![first];
    for _ in 0..2 {
        members.push(Member::join_as(&mut operator, false, software.clone()).await);
    }
    settled(&operator, &[1, 2, 3]).await;
    (members, operator)
}

async fn stop_all(members: Vec<Member>) {
    for mut member in members {
        if member.running.is_some() {
            member.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_answers_and_the_loss_of_the_leader_loses_nothing() {
    let (mut members, mut operator) = three().await;
    add_user(&mut operator, "ada", "open sesame").await;
    // A follower passes the change on, and shows it at once.
    let mut at_second = members[1].operator().await;
    add_user(&mut at_second, "bob", "open sesame").await;
    assert_eq!(users(&at_second).await, Some(vec!["ada".into(), "bob".into()]));
    let at_third = members[2].operator().await;
    assert_eq!(users(&at_third).await, Some(vec!["ada".into(), "bob".into()]));

    let leader = cluster(&at_third).await.expect("answers").leader_id;
    let position = members.iter().position(|m| m.id() == leader).expect("a member");
    let mut gone = members.remove(position);
    gone.stop().await;
    let rest = members[0].operator().await;
    wait_for("another leader", || async { cluster(&rest).await.filter(|c| c.leader_id != leader && c.leader_id != 0) })
        .await;
    let mut rest_mut = rest.clone();
    add_user(&mut rest_mut, "eve", "open sesame").await;

    gone.again().await.expect("comes back");
    let back = gone.operator().await;
    wait_for("the lost member knows all", || async { users(&back).await.filter(|u| *u == ["ada", "bob", "eve"]) })
        .await;
    settled(&back, &[1, 2, 3]).await;
    members.push(gone);
    stop_all(members).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_works_once_and_for_its_own_cluster_only() {
    let first = Member::start(Formation::Found).await;
    let mut operator = first.operator().await;
    let (used, addresses) = token(&mut operator).await;
    let join = |token: &Zeroizing<String>, addresses: &[String]| Formation::Join {
        addresses: addresses.to_vec(),
        token: token.clone(),
        learner: false,
    };
    let second = Member::start(join(&used, &addresses)).await;
    settled(&operator, &[1, 2]).await;
    let refused = |formation| async move {
        let dir = tempfile::tempdir().expect("temporary folder");
        let error = Controller::form(config(), dir.path(), formation).await.expect_err("refused").to_string();
        assert!(!dir.path().join("controller/member").exists() && !dir.path().join("raft/store").exists());
        error
    };
    assert!(refused(join(&used, &addresses)).await.contains("used before"));
    let nonsense = Zeroizing::new("sallyport1.AAAA".to_owned());
    assert!(refused(join(&nonsense, &addresses)).await.contains("no token"));

    let strange = Member::start(Formation::Found).await;
    let (other, _) = token(&mut strange.operator().await).await;
    assert!(refused(join(&other, &addresses)).await.contains("another cluster"));
    assert!(refused(Formation::Existing).await.contains("--bootstrap"));
    let nobody = vec!["127.0.0.1:1".to_owned()];
    assert!(refused(join(&other, &nobody)).await.contains("127.0.0.1:1"));
    stop_all(vec![first, second, strange]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_stops_and_does_not_come_back() {
    let (mut members, mut operator) = three().await;
    let mut removed = members.pop().expect("three");
    let id = removed.id();
    let gone = answered(async || operator.remove_member(v1::RemoveMemberRequest { id }).await).await;
    // Asked again after a lost answer, it is not there any more.
    assert!(gone.is_none_or(|status| status.code() == Code::NotFound));
    settled(&operator, &[1, 2]).await;
    let ended = tokio::time::timeout(Duration::from_secs(60), removed.running().wait()).await.expect("it notices");
    assert!(matches!(ended, Error::Removed { id: named, .. } if named == id), "{ended}");
    removed.stop().await;
    // On its old data it is told the same.
    removed.again().await.expect("starts");
    let ended = tokio::time::timeout(Duration::from_secs(60), removed.running().wait()).await.expect("it is told");
    assert!(ended.to_string().contains("was removed"), "{ended}");
    removed.stop().await;
    settled(&operator, &[1, 2]).await;
    let again = answered(async || operator.remove_member(v1::RemoveMemberRequest { id }).await).await;
    assert_eq!(again.expect("it is gone").code(), Code::NotFound);
    // Nor does the operator's folder beside its data let anybody in: he could make a token with it, or a backup.
    let mut thief = common::operator(removed.dir.path(), members[0].running().grpc_address()).await;
    let refused = answered(async || thief.create_cluster_token(v1::CreateClusterTokenRequest { ttl_s: 0 }).await).await;
    assert_eq!(refused.expect("revoked").code(), Code::Unauthenticated);
    stop_all(members).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_its_store_comes_back_under_a_new_id() {
    let (mut members, operator) = three().await;
    let mut wiped = members.pop().expect("three");
    assert_eq!(wiped.id(), 3);
    let mut change = operator.clone();
    add_user(&mut change, "ada", "open sesame").await;
    wiped.stop().await;
    remove(&wiped.dir.path().join("raft"));
    wiped.again().await.expect("comes back");
    assert_eq!(wiped.id(), 4);
    settled(&operator, &[1, 2, 4]).await;
    assert_eq!(users(&wiped.operator().await).await, Some(vec!["ada".into()]));
    // And as that it starts again.
    wiped.stop().await;
    wiped.again().await.expect("starts");
    assert_eq!(wiped.id(), 4);
    members.push(wiped);
    settled(&operator, &[1, 2, 4]).await;
    stop_all(members).await;
}

fn remove(dir: &Path) {
    std::fs::remove_dir_all(dir).expect("there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lead_is_handed_over_and_a_learner_votes_when_it_is_promoted() {
    let (mut members, mut operator) = three().await;
    let before = cluster(&operator).await.expect("answers").leader_id;
    let to = if before == 2 { 3 } else { 2 };
    let now = operator.transfer_leader(v1::TransferLeaderRequest { id: to }).await.expect("hands over").into_inner();
    assert_eq!(now.leader_id, to);
    add_user(&mut operator, "ada", "open sesame").await;

    let learner = Member::join(&mut operator, true).await;
    let id = learner.id();
    wait_for("a learner", || async {
        let role = cluster(&operator).await?.members.iter().find(|m| m.id == id)?.role();
        (role == v1::MemberRole::Learner).then_some(())
    })
    .await;
    let refused = operator.transfer_leader(v1::TransferLeaderRequest { id }).await.expect_err("it does not vote");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    operator.promote_member(v1::PromoteMemberRequest { id }).await.expect("promotes");
    settled(&operator, &[1, 2, 3, id]).await;
    members.push(learner);
    stop_all(members).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_controller_takes_new_members_and_hears_no_old_one() {
    let mut first = Member::start(Formation::Found).await;
    let mut operator = first.operator().await;
    let old = Member::join(&mut operator, false).await;
    settled(&operator, &[1, 2]).await;
    add_user(&mut operator, "ada", "open sesame").await;
    // Any controller gives the whole of it.
    let file = first.dir.path().join("backup");
    let passphrase = || Zeroizing::new(b"correct horse battery".to_vec());
    let lock = Lock::passphrase(passphrase()).expect("long enough");
    create_backup(&mut old.operator().await, &file, &lock).await;
    // One that the backup knows nothing of, and that leads the rest of the old ones: it gets the id of the next that joins.
    let late = Member::join(&mut operator, false).await;
    settled(&operator, &[1, 2, 3]).await;
    hand_over(&operator, &late).await;
    first.stop().await;

    // In the place of the one that is lost, while another of the old ones still runs and looks for it there.
    let restored = tempfile::tempdir().expect("temporary folder");
    let (config, clock) = (first.config.clone(), Clock::system());
    let secret = Secret::Passphrase(passphrase());
    backup::restore(&file, &secret, restored.path(), &config, &clock, &mut |_, _| {}).await.expect("restores");
    let running = Controller::form(config.clone(), restored.path(), Formation::Existing).await.expect("starts");
    let software = Software::current();
    let mut first = Member { dir: restored, config, clock, software, running: Some(running) };
    let mut operator = first.operator().await;
    assert_eq!(users(&operator).await, Some(vec!["ada".into()]));
    let joined = Member::join(&mut operator, false).await;
    assert_eq!((first.id(), joined.id()), (1, 3), "no id is given twice");
    settled(&operator, &[1, 3]).await;
    // Where the restored one follows, it would have to believe a certificate that it does not know; but this one's owner cannot
    // prove that it is of the cluster that began with the restore.
    hand_over(&operator, &joined).await;
    let refused = late.speaks_to(&first).await;
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert!(refused.message().contains("before it was restored"), "{refused}");
    add_user(&mut operator, "bob", "open sesame").await;
    let both = Some(vec!["ada".to_owned(), "bob".to_owned()]);
    let at_joined = joined.operator().await;
    wait_for("the new user at the new controller", || async { (users(&at_joined).await == both).then_some(()) }).await;
    // The restored one starts again as what it is now.
    first.stop().await;
    first.again().await.expect("starts again");
    let operator = first.operator().await;
    settled(&operator, &[1, 3]).await;
    assert_eq!(users(&operator).await, both);
    stop_all(vec![first, joined, old, late]).await;
}
