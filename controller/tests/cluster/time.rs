//! Clocks that are set while the group runs: the log's time goes on, and with it all that ends by time.

use sallyport_ca::Profile;
use sallyport_proto::v1::gateway_client::GatewayClient;

use super::common::{TestGateway, Way, add_pool, add_user, attempts, change_settings, connect, issue, register, tls};
use super::*;

/// A gateway that is registered at this member.
async fn gateway(member: &Member) -> TestGateway {
    let running = member.running();
    let issued = issue(running, Profile::GatewayLink, "gw1").await;
    let mut gateway = TestGateway::new(connect_as(member, &issued).await, issued);
    gateway.member = register(&mut gateway.client, "gw1", 1).await.member.expect("a member");
    gateway
}

async fn connect_as(member: &Member, issued: &sallyport_controller::Issued) -> GatewayClient<Channel> {
    let shown = issued.chain_pem();
    let identity = (shown.as_str(), issued.private_key.as_slice());
    let tls = tls(&member.running().root_certificate(), Some(identity));
    GatewayClient::new(connect(member.running().grpc_address(), tls).await.expect("connects"))
}

/// The time of the cluster is the true one but for what a busy machine may do.
async fn time_is_right(at: &OperatorClient<Channel>) {
    let status = at.clone().get_status(v1::GetStatusRequest {}).await.expect("answers").into_inner();
    let off = status.now_unix_ms.abs_diff(Clock::system().unix_ms());
    assert!(off < 30_000, "{off} ms");
}

/// Waits until a member says that its clock is off by about so many seconds.
async fn is_off(at: &OperatorClient<Channel>, id: u64, seconds: i64) {
    wait_for("the offset", || async {
        let vitals = cluster(at).await?.members.into_iter().find(|m| m.id == id)?.vitals?;
        (vitals.clock_offset_ms?.abs_diff(seconds * 1_000) < 30_000).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_clock_is_set_by_an_hour_ends_nothing() {
    const HOUR_MS: i64 = 3_600_000;
    let (mut members, mut operator) = three().await;
    let leader = cluster(&operator).await.expect("answers").leader_id;
    let position = members.iter().position(|m| m.id() == leader).expect("a member");
    let clock = members[position].clock.clone();
    add_user(&mut operator, "ada", "open sesame").await;
    add_pool(&mut operator, "p", "10.9.0.0/24").await;
    let mut gateway = gateway(&members[position]).await;
    let session = gateway.login(Way::MsChapV2, "ada", "open sesame").await.expect("accepted").session_id;
    assert!(gateway.report(&session, v1::SessionState::Up).await.is_empty());
    let (token, addresses) = token(&mut operator).await;
    time_is_right(&operator).await;

    clock.step(HOUR_MS);
    is_off(&operator, leader, 3_600).await;
    time_is_right(&operator).await;
    assert!(gateway.report(&session, v1::SessionState::Up).await.is_empty(), "it is still there");
    // The token is good for an hour, and the new member's certificate is of now.
    let joined = Member::start(Formation::Join { addresses, token, learner: true }).await;
    wait_for("the new member", || async {
        cluster(&operator).await?.members.iter().find(|m| m.id == 4)?.vitals.clone()
    })
    .await;
    assert!(gateway.report(&session, v1::SessionState::Up).await.is_empty());

    // An hour behind, the leader reaches a member whose certificate was made a moment ago.
    clock.step(-2 * HOUR_MS);
    is_off(&operator, leader, -3_600).await;
    let other = (position + 1) % members.len();
    members[other].stop().await;
    members[other].again().await.expect("starts again");
    let at_other = members[other].operator().await;
    wait_for("its leader", || async { (cluster(&at_other).await?.leader_id != 0).then_some(()) }).await;
    add_user(&mut operator, "bob", "open sesame").await;
    let request = v1::ListUsersRequest::default();
    let users = operator.list_users(request).await.expect("users").into_inner().users;
    let bob = users.iter().find(|u| u.name == "bob").expect("added");
    assert!(bob.created_unix_ms.abs_diff(Clock::system().unix_ms()) < 30_000, "{}", bob.created_unix_ms);
    assert!(gateway.report(&session, v1::SessionState::Up).await.is_empty());
    time_is_right(&operator).await;
    members.push(joined);
    stop_all(members).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_goes_on_counting_wrong_passwords() {
    let (members, mut operator) = three().await;
    add_user(&mut operator, "ada", "open sesame").await;
    add_pool(&mut operator, "p", "10.9.0.0/24").await;
    change_settings(&mut operator, |s| (s.lockout_failures, s.lockout_s) = (3, 3_600)).await;
    let mut gateway = gateway(&members[0]).await;
    for _ in 0..2 {
        assert!(gateway.login(Way::MsChapV2, "ada", "wrong").await.expect_err("refused").retry);
    }
    let before = cluster(&operator).await.expect("answers").leader_id;
    operator.transfer_leader(v1::TransferLeaderRequest { id: 0 }).await.expect("hands over");
    assert_ne!(cluster(&operator).await.expect("answers").leader_id, before);
    assert!(gateway.login(Way::MsChapV2, "ada", "wrong").await.expect_err("refused").retry);
    gateway.login(Way::MsChapV2, "ada", "open sesame").await.expect_err("locked out");
    let audit = attempts(&mut operator).await;
    assert!(audit.len() == 4 && audit[0].cause.contains("locked out"), "{audit:?}");
    // From elsewhere the user gets in, which the log keeps apart.
    let mut elsewhere = gateway.question(Way::MsChapV2, "ada", "open sesame");
    elsewhere.remote = "203.0.113.1:500".into();
    gateway.ask(elsewhere).await.expect("accepted");
    assert!(gateway.login(Way::MsChapV2, "ada", "open sesame").await.is_err());
    stop_all(members).await;
}
