//! Users: how they log in, what is said to whom when they do not, and what operators change.

use super::*;

#[tokio::test]
async fn a_user_logs_in_by_each_protocol_and_gets_a_session_and_an_address() {
    let site = site().await;
    let mut operator = site.operator().await;
    allow_all(&mut operator).await;
    add_user(&mut operator, "Ada", "open sesame").await;
    add_pool(&mut operator, "office", "10.9.0.0/24").await;
    let mut gateway = site.gateway("gw1").await;
    let mut seen = Vec::new();
    for way in [Way::Pap, Way::Chap, Way::MsChapV2] {
        let accept = gateway.login(way, "EXAMPLE\\ada", "open sesame").await.expect("accepted");
        let lease = accept.lease.expect("a lease");
        assert_eq!(
            (lease.router.as_str(), lease.dns, accept.user.as_str()),
            ("10.9.0.1", vec!["10.9.0.53".to_owned()], "Ada")
        );
        assert_eq!(accept.authenticator_response.starts_with("S="), way == Way::MsChapV2);
        assert!(!seen.contains(&lease.address), "{way:?}");
        seen.push(lease.address);
        assert_eq!(gateway.report(&accept.session_id, v1::SessionState::Up).await, [""; 0]);
    }
    let sessions = operator.list_sessions(v1::ListSessionsRequest::default()).await.expect("sessions").into_inner();
    assert_eq!(sessions.sessions.len(), 3);
    let one = &sessions.sessions[0];
    assert_eq!((one.user.as_str(), one.gateway.as_str(), one.state()), ("Ada", "gw1", v1::SessionState::Up));
    assert_eq!((one.counters.map(|c| c.rx_bytes), one.remote.as_str()), (Some(1_000), "198.51.100.7:4501"));
    let outcomes: Vec<_> = attempts(&mut operator).await.iter().map(v1::Attempt::outcome).collect();
    assert_eq!(outcomes, [v1::Outcome::Accepted; 3]);

    // The same question again is the same session.
    let question = gateway.question(Way::MsChapV2, "ada", "open sesame");
    let first = gateway.ask(question.clone()).await.expect("accepted");
    assert_eq!(gateway.ask(question).await.expect("accepted"), first);

    // Down frees the address; a second report of it is no error.
    for _ in 0..2 {
        assert_eq!(gateway.report(&first.session_id, v1::SessionState::Down).await, [""; 0]);
    }
    assert_eq!(gateway.report(&first.session_id, v1::SessionState::Up).await, [first.session_id]);
    let pools = operator.list_pools(v1::ListPoolsRequest::default()).await.expect("pools").into_inner().pools;
    assert_eq!((pools[0].size, pools[0].used), (253, 3));
    site.running.shutdown().await;
}

#[tokio::test]
async fn refusals_say_little_to_the_client_and_everything_to_the_operator() {
    let site = site().await;
    let mut operator = site.operator().await;
    add_user(&mut operator, "ada", "open sesame").await;
    add_user(&mut operator, "bob", "x").await;
    let mut gateway = site.gateway("gw1").await;
    let mut reject =
        async |way, user: &str, password: &str| gateway.login(way, user, password).await.expect_err("refused");

    let wrong = reject(Way::MsChapV2, "ada", "open sesamf").await;
    let unknown = reject(Way::MsChapV2, "eve", "open sesame").await;
    // Not even the gateway learns which users there are.
    assert_eq!(wrong, unknown);
    assert_eq!((wrong.error_code, wrong.retry), (691, true));
    let audit = attempts(&mut operator).await;
    assert!(audit[1].cause.contains("wrong password for user \"ada\"") && audit[1].remedy.contains("passwd ada"));
    assert!(audit[0].cause.contains("no user \"eve\""));

    assert!(!reject(Way::Pap, "ada", "open sesame").await.retry);
    assert!(attempts(&mut operator).await[0].cause.contains("do not allow PAP"));

    let no_pool = reject(Way::MsChapV2, "ada", "open sesame").await;
    assert_eq!((no_pool.phase(), no_pool.error_code), (v1::Phase::Authorization, 649));
    assert!(no_pool.cause.contains("no address pool"));

    let disable = v1::SetUserEnabledRequest { name: "BOB".into(), enabled: false };
    operator.set_user_enabled(disable).await.expect("disables");
    assert_eq!(reject(Way::MsChapV2, "bob", "x").await.error_code, 647);
    // Who does not know the password does not learn that the account is disabled.
    assert_eq!(reject(Way::MsChapV2, "bob", "y").await.error_code, 691);

    // CHAP-MD5 is allowed now, but this password was set before.
    allow_all(&mut operator).await;
    let not_kept = reject(Way::Chap, "ada", "open sesame").await;
    assert!(attempts(&mut operator).await[0].cause.contains("not kept"));
    assert_eq!(not_kept, reject(Way::Chap, "eve", "open sesame").await);

    let all = attempts(&mut operator).await;
    assert_eq!(all.len(), 8);
    let newest = &all[0];
    assert_eq!((newest.user.as_str(), newest.gateway.as_str(), newest.outcome()), ("eve", "gw1", v1::Outcome::Refused));
    let ask = v1::ListAttemptsRequest { user: "EVE".into(), ..Default::default() };
    let found = operator.list_attempts(ask).await.expect("attempts").into_inner().attempts;
    assert_eq!((found.len(), found[0].phase()), (2, v1::Phase::Authentication));
    let ask = v1::ListAttemptsRequest { remote: "198.51.100.7".into(), limit: 3, ..Default::default() };
    let page = operator.list_attempts(ask.clone()).await.expect("attempts").into_inner();
    assert_eq!((page.attempts.len(), page.attempts[0].id.clone()), (3, newest.id.clone()));
    let next = v1::ListAttemptsRequest { page_token: page.next_page_token, ..ask };
    let page = operator.list_attempts(next).await.expect("attempts").into_inner();
    assert_eq!(page.attempts, all[3..6]);
    site.running.shutdown().await;
}

#[tokio::test]
async fn guessing_is_slowed_down_and_a_repeated_question_does_not_count() {
    let site = site().await;
    let mut operator = site.operator().await;
    add_user(&mut operator, "ada", "open sesame").await;
    add_pool(&mut operator, "p", "10.9.0.0/24").await;
    change_settings(&mut operator, |s| s.lockout_failures = 3).await;
    let mut gateway = site.gateway("gw1").await;
    let question = gateway.question(Way::MsChapV2, "ada", "wrong");
    for _ in 0..5 {
        gateway.ask(question.clone()).await.expect_err("refused");
    }
    let audit = attempts(&mut operator).await;
    assert!(audit.len() == 1 && audit[0].cause.contains("wrong password"), "{audit:?}");
    // Under the id of a refused question no other password is looked at, not even the right one.
    let other_proof = |id: &[u8], mut question: v1::AuthenticateRequest| {
        question.request_id = id.to_vec();
        question
    };
    let right = other_proof(&question.request_id, gateway.question(Way::MsChapV2, "ada", "open sesame"));
    assert!(gateway.ask(right).await.is_err());
    for _ in 0..2 {
        assert!(gateway.login(Way::MsChapV2, "ada", "wrong").await.is_err());
    }
    let locked = gateway.login(Way::MsChapV2, "ada", "open sesame").await.expect_err("locked out");
    let audit = attempts(&mut operator).await;
    assert!(audit[0].cause.contains("locked out") && !locked.retry, "{}", audit[0].cause);
    // From elsewhere the user gets in.
    let mut elsewhere = gateway.question(Way::MsChapV2, "ada", "open sesame");
    elsewhere.remote = "203.0.113.1:500".into();
    let accepted = gateway.ask(elsewhere.clone()).await.expect("accepted");
    assert_eq!(gateway.ask(elsewhere.clone()).await.expect("again").session_id, accepted.session_id);
    // Nor is the id of an accepted one good for guessing: at others not at all, at the same user it counts.
    add_user(&mut operator, "bob", "close sesame").await;
    let others = other_proof(&elsewhere.request_id, gateway.question(Way::MsChapV2, "bob", "close sesame"));
    assert_eq!(gateway.client.authenticate(others).await.expect_err("refused").code(), Code::InvalidArgument);
    let mut wrong = other_proof(&elsewhere.request_id, gateway.question(Way::MsChapV2, "ada", "wrong"));
    wrong.remote.clone_from(&elsewhere.remote);
    assert!(gateway.ask(wrong).await.is_err());
    site.running.shutdown().await;
}

#[tokio::test]
async fn a_gateway_that_names_another_address_for_each_guess_gets_no_further() {
    let site = site().await;
    let mut operator = site.operator().await;
    add_user(&mut operator, "ada", "open sesame").await;
    add_pool(&mut operator, "p", "10.9.0.0/24").await;
    change_settings(&mut operator, |s| s.lockout_failures = 2).await;
    at_newest_level(&mut operator).await;
    let mut gateway = site.gateway("gw1").await;
    let ask = |gateway: &mut common::TestGateway, password: &str, last: u8| {
        let remote = format!("203.0.113.{last}:500");
        v1::AuthenticateRequest { remote, ..gateway.question(Way::MsChapV2, "ada", password) }
    };
    for last in 0..20 {
        let question = ask(&mut gateway, "wrong", last);
        assert!(gateway.ask(question).await.expect_err("refused").retry, "{last}: not yet locked out");
    }
    let right = ask(&mut gateway, "open sesame", 200);
    assert!(!gateway.ask(right).await.expect_err("locked out").retry);
    let newest = attempts(&mut operator).await.remove(0);
    assert!(newest.cause.contains("locked out") && newest.cause.contains("gateway gw1"), "{}", newest.cause);
    // Through another gateway the user gets in.
    let mut other = site.gateway("gw2").await;
    other.login(Way::MsChapV2, "ada", "open sesame").await.expect("accepted");
    // And through this one when an operator says so.
    assert!(newest.remedy.contains("sallyport user unlock ada"), "{}", newest.remedy);
    let unlock = |name: &str| v1::UnlockUserRequest { name: name.into() };
    let forgotten = operator.unlock_user(unlock("ADA")).await.expect("unlocks").into_inner().forgotten;
    assert_eq!(forgotten, 21, "twenty addresses and a gateway");
    let right = ask(&mut gateway, "open sesame", 1);
    gateway.ask(right).await.expect("accepted");
    assert_eq!(operator.unlock_user(unlock("eve")).await.expect_err("nobody").code(), Code::NotFound);
    site.running.shutdown().await;
}

/// What came with a level is there once all controllers understand it, which takes a moment.
pub(crate) async fn at_newest_level(operator: &mut OperatorClient<Channel>) {
    let rising = async {
        while operator.get_cluster(v1::GetClusterRequest {}).await.expect("answers").into_inner().level < LEVEL {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(common::PATIENCE, rising).await.expect("the level rises by itself");
}

#[tokio::test]
async fn operators_change_what_a_user_was_added_with() {
    let site = site().await;
    let mut operator = site.operator().await;
    add_user(&mut operator, "Ada", "open sesame").await;
    add_pool(&mut operator, "p", "10.9.0.0/24").await;
    at_newest_level(&mut operator).await;
    let ada = || v1::UpdateUserRequest { name: "ADA".into(), ..Default::default() };
    let request = v1::UpdateUserRequest { max_sessions: Some(1), address: Some("10.9.0.7".into()), ..ada() };
    let changed = operator.update_user(request).await.expect("changes").into_inner().user.expect("as stored");
    assert_eq!((changed.max_sessions, changed.address.as_str(), changed.pool.as_str()), (1, "10.9.0.7", ""));
    let mut gateway = site.gateway("gw1").await;
    let accept = gateway.login(Way::MsChapV2, "ada", "open sesame").await.expect("accepted");
    assert_eq!(accept.lease.expect("a lease").address, "10.9.0.7");
    gateway.login(Way::MsChapV2, "ada", "open sesame").await.expect_err("has one session");
    let remedy = attempts(&mut operator).await.remove(0).remedy;
    assert!(remedy.ends_with("sallyport user set Ada --max-sessions 2"), "{remedy}");
    let request =
        v1::UpdateUserRequest { max_sessions: Some(2), address: Some(String::new()), pool: Some("p".into()), ..ada() };
    operator.update_user(request).await.expect("changes");
    gateway.login(Way::MsChapV2, "ada", "open sesame").await.expect("accepted");
    let users = operator.list_users(v1::ListUsersRequest::default()).await.expect("users").into_inner().users;
    let user = &users[0];
    assert_eq!((user.pool.as_str(), user.address.as_str(), user.enabled, user.live_sessions), ("p", "", true, 2));
    for (request, code) in [
        (ada(), Code::InvalidArgument),
        (v1::UpdateUserRequest { address: Some("10.9.0".into()), ..ada() }, Code::InvalidArgument),
        (v1::UpdateUserRequest { comment: Some("x".repeat(257)), ..ada() }, Code::InvalidArgument),
        (v1::UpdateUserRequest { pool: Some("q".into()), ..ada() }, Code::FailedPrecondition),
        (v1::UpdateUserRequest { name: "eve".into(), pool: Some(String::new()), ..ada() }, Code::NotFound),
    ] {
        assert_eq!(operator.update_user(request.clone()).await.expect_err("bad").code(), code, "{request:?}");
    }
    site.running.shutdown().await;
}
