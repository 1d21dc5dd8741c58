mod impostors;

use std::time::Duration;

use super::*;
use crate::config::PasswordsConfig;
use crate::state::{Action, AddPool, AddUser, Credentials, OpenSession, Outcome, RegisterGateway, SessionsUp};
use crate::{identity, janitor, soft};

/// A controller whose clock stands still until it is moved. It answers nobody but this test.
pub(crate) async fn controller(dir: &Path) -> (Running, Clock) {
    let clock = Clock::manual(1_800_000_000_000);
    let mut config = Config { metrics_listen: None, ..Config::default() };
    config.listen.set_port(0);
    config.passwords = PasswordsConfig { argon2_memory_kib: 8, argon2_passes: 1, argon2_parallel: 1 };
    let running = Controller::start_with(config, dir, clock.clone()).await.expect("starts");
    (running, clock)
}

async fn session(core: &Core, slot: u32, epoch: u64, session_id: u64) {
    let credentials_version =
        core.node.shared().read().users.get(&"ada".to_owned()).expect("there").credentials_version;
    let wish =
        OpenSession { session_id, user: "ada".into(), credentials_version, slot, epoch, ..OpenSession::default() };
    let reply = core.propose(Action::OpenSession(wish)).await.expect("decides");
    assert!(matches!(reply.outcome, Some(Outcome::Opened(_))), "{reply:?}");
}

async fn prepared(core: &Core) -> (u32, u64) {
    let user = AddUser {
        key: "ada".into(),
        name: "ada".into(),
        credentials: Some(Credentials::default()),
        enabled: true,
        ..AddUser::default()
    };
    core.propose(Action::AddUser(user)).await.expect("adds");
    let networks = vec!["10.0.0.0/24".parse().expect("a network")];
    core.propose(Action::AddPool(AddPool { name: "p".into(), networks, ..AddPool::default() })).await.expect("adds");
    let gateway = RegisterGateway { name: "gw".into(), boot_id: vec![1; 16], ..RegisterGateway::default() };
    match core.propose(Action::RegisterGateway(gateway)).await.expect("registers").outcome {
        Some(Outcome::Registered(r)) => (r.slot, r.epoch),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_silent_gateway_is_given_up_after_its_timeout_and_not_before() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (running, clock) = controller(dir.path()).await;
    let core = running.core().clone();
    let (slot, epoch) = prepared(&core).await;
    session(&core, slot, epoch, 1).await;
    let timeout = Duration::from_millis(u64::from(core.config.gateways.timeout_ms));
    let sessions = || core.node.shared().read().sessions.len();

    janitor::sweep_gateways(&core).await.expect("sweeps"); // a new leader gives everybody the full time
    clock.advance(timeout);
    janitor::sweep_gateways(&core).await.expect("sweeps");
    assert_eq!(sessions(), 1);
    clock.advance(timeout);
    core.soft.give_all_the_full_time(clock.monotonic_ms()); // it was stopped, or did not lead
    clock.advance(timeout);
    janitor::sweep_gateways(&core).await.expect("sweeps");
    assert_eq!(sessions(), 1);
    core.soft.heard(slot, epoch, clock.monotonic_ms(), core.now_ms());
    clock.advance(timeout);
    janitor::sweep_gateways(&core).await.expect("sweeps");
    assert_eq!((sessions(), core.gateways_alive()), (1, 1));
    clock.advance(Duration::from_millis(1));
    janitor::sweep_gateways(&core).await.expect("sweeps");
    assert_eq!((sessions(), core.gateways_alive()), (0, 0));
    assert!(core.node.shared().read().gateways.get(&slot).expect("known").lost);
    drop(core);
    running.shutdown().await;
}

#[tokio::test]
async fn sessions_that_never_come_up_or_are_no_longer_reported_end() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (running, clock) = controller(dir.path()).await;
    let core = running.core().clone();
    let (slot, epoch) = prepared(&core).await;
    for id in 1..=3 {
        session(&core, slot, epoch, id).await;
    }
    core.propose(Action::SessionsUp(SessionsUp { slot, epoch, session_ids: vec![2, 3] })).await.expect("up");
    let config = core.config.gateways;
    let ids = || core.node.shared().read().sessions.iter().map(|(id, _)| *id).collect::<Vec<_>>();
    janitor::sweep_sessions(&core).await.expect("sweeps");
    clock.advance(Duration::from_millis(u64::from(config.setup_ms) + 1));
    janitor::sweep_sessions(&core).await.expect("sweeps");
    assert_eq!(ids(), [2, 3], "the first never came up");
    let signs = soft::SessionSigns { seen_ms: clock.monotonic_ms(), ..soft::SessionSigns::default() };
    core.soft.lock().sessions.insert(3, signs);
    clock.advance(Duration::from_millis(u64::from(config.report_ms) * 3 - u64::from(config.setup_ms)));
    janitor::sweep_sessions(&core).await.expect("sweeps");
    assert_eq!(ids(), [3], "the second is no longer reported");
    janitor::sweep_sessions(&core).await.expect("sweeps");
    assert_eq!(core.soft.lock().sessions.keys().copied().collect::<Vec<_>>(), [3], "nothing is kept about the others");
    drop(core);
    running.shutdown().await;
}

#[tokio::test]
async fn own_and_operators_certificates_are_renewed_after_two_thirds_of_their_life() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (running, clock) = controller(dir.path()).await;
    let read = |name: &str| std::fs::read(dir.path().join(name)).expect("there");
    let files = ["controller/cert.pem", "operator/cert.pem"];
    let before = files.map(read);
    let core = running.core().clone();
    let restart = async |days: u64| {
        clock.advance(Duration::from_secs(days * 86_400));
        bootstrap::own_certificate(&core).await.expect("looks");
        identity::operator(&core, &core.paths.operator()).await.expect("looks");
    };
    restart(240).await;
    assert_eq!(files.map(read), before);
    restart(10).await;
    let after = files.map(read);
    assert!(before.iter().zip(&after).all(|(b, a)| b != a));
    drop(core);
    running.shutdown().await;
}

#[tokio::test]
async fn a_second_controller_on_the_same_state_is_told_so() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (running, _clock) = controller(dir.path()).await;
    let mut config = Config { metrics_listen: None, ..Config::default() };
    config.listen.set_port(0);
    let error = Controller::start(config, dir.path()).await.expect_err("refuses");
    assert!(matches!(error, Error::StateInUse { .. }), "{error}");
    running.shutdown().await;
}
