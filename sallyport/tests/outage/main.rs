//! A gateway's way to three real controllers, with faults in between: what it reports arrives once whatever is lost or
//! restarted, and nobody gives a gateway up, or a session, because the controllers were away.

mod proxy;
mod removed;
mod renewal;
mod roots;

use std::path::Path;
use std::time::Duration;

use proxy::{Mode, Proxy};
use sallyport_controller::{Config, Controller, Formation, PasswordsConfig, Running};
use sallyport_gateway::control::controller::{Controllers, FromController, Registration};
use sallyport_gateway::control::held::Report;
use sallyport_gateway::identity::Identity;
use sallyport_proto::v1::operator_client::OperatorClient;
use sallyport_proto::{CONTROLLER_NAME, v1};
use tokio::sync::mpsc;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use zeroize::Zeroizing;

/// Silence after which the controllers give a gateway up.
const TIMEOUT_MS: u32 = 6_000;

/// A controller, and where it lives.
struct Member {
    dir: tempfile::TempDir,
    config: Config,
    running: Option<Running>,
}

fn config() -> Config {
    let mut config = Config {
        listen: std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap(),
        metrics_listen: None,
        passwords: PasswordsConfig { argon2_memory_kib: 64, argon2_passes: 1, argon2_parallel: 2 },
        ..Config::default()
    };
    config.raft.heartbeat_ms = 300;
    config.gateways.heartbeat_ms = 200;
    config.gateways.timeout_ms = TIMEOUT_MS;
    // Three of these without a report end a session: later than its gateway, which so is the one that is given up.
    config.gateways.report_ms = 2_400;
    config
}

impl Member {
    async fn start(formation: Formation) -> Self {
        let (dir, config) = (tempfile::tempdir().unwrap(), config());
        let running = Controller::form(config.clone(), dir.path(), formation).await.unwrap();
        Self { dir, config, running: Some(running) }
    }

    async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.shutdown().await;
        }
    }

    async fn again(&mut self) {
        self.running = Some(Controller::form(self.config.clone(), self.dir.path(), Formation::Existing).await.unwrap());
    }

    async fn operator(&self) -> OperatorClient<Channel> {
        wait_for("the operator's folder", || async { self.dir.path().join("operator/ca.pem").exists().then_some(()) })
            .await;
        let read = |name: &str| std::fs::read(self.dir.path().join("operator").join(name)).unwrap();
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read("ca.pem")))
            .identity(tonic::transport::Identity::from_pem(read("cert.pem"), read("key.pem")))
            .domain_name(CONTROLLER_NAME);
        let endpoint = Endpoint::from_shared(format!("https://{}", self.config.listen)).unwrap();
        OperatorClient::new(endpoint.tls_config(tls).unwrap().connect_lazy())
    }
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

/// Waits for what happens by itself, as long as `wait_for`.
async fn within<T>(what: &str, happens: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(60), happens).await {
        Ok(happened) => happened,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// Three controllers, and a gateway behind a proxy to each.
struct Site {
    members: Vec<Member>,
    operators: Vec<OperatorClient<Channel>>,
    proxies: Vec<Proxy>,
    controllers: Controllers,
    events: mpsc::Receiver<FromController>,
    question: u64,
}

impl Site {
    async fn new() -> Self {
        let mut members = vec![Member::start(Formation::Found).await];
        let mut operators = vec![members[0].operator().await];
        for _ in 0..2 {
            let made = operators[0].create_cluster_token(v1::CreateClusterTokenRequest { ttl_s: 0 }).await.unwrap();
            let made = made.into_inner();
            let token = String::from_utf8(made.token.unwrap().into_inner().to_vec()).unwrap();
            let (addresses, token) = (made.addresses, Zeroizing::new(token));
            let member = Member::start(Formation::Join { addresses, token, learner: false }).await;
            operators.push(member.operator().await);
            members.push(member);
        }
        let identity_dir = members[0].dir.path().join("gw1");
        members[0].running.as_ref().unwrap().issue_gateway("gw1", &["vpn.test".into()], &identity_dir).await.unwrap();
        prepare(&mut operators[0]).await;
        let mut proxies = Vec::new();
        for member in &members {
            proxies.push(Proxy::to(member.config.listen).await);
        }
        let (controllers, events) = gateway(&proxies, &identity_dir).await;
        let site = Self { members, operators, proxies, controllers, events, question: 0 };
        site.settled().await;
        site
    }

    /// All three vote and one leads.
    async fn settled(&self) {
        for operator in &self.operators {
            wait_for("the group", || async {
                let cluster = operator.clone().get_cluster(v1::GetClusterRequest {}).await.ok()?.into_inner();
                let votes = |m: &&v1::ClusterMember| matches!(m.role(), v1::MemberRole::Leader | v1::MemberRole::Voter);
                (cluster.leader_id != 0 && cluster.members.iter().filter(votes).count() == 3).then_some(())
            })
            .await;
        }
    }

    async fn leader(&self, at: usize) -> usize {
        let operator = &self.operators[at];
        wait_for("a leader", || async {
            let cluster = operator.clone().get_cluster(v1::GetClusterRequest {}).await.ok()?.into_inner();
            let id = |m: &Member| m.running.as_ref().map(Running::member_id);
            self.members.iter().position(|m| id(m) == Some(cluster.leader_id))
        })
        .await
    }

    fn set(&self, mode: Mode) {
        for proxy in &self.proxies {
            proxy.set(mode);
        }
    }

    /// A user wants in.
    async fn login(&mut self) -> Result<String, String> {
        use v1::authenticate_response::Decision;
        self.question += 1;
        let request = v1::AuthenticateRequest {
            request_id: self.question.to_be_bytes().repeat(2),
            user: "ada".into(),
            method: Some(v1::authenticate_request::Method::Pap(v1::Pap {
                password: Some(v1::Secret::new("open sesame")),
            })),
            remote: "198.51.100.7:4500".into(),
            ..Default::default()
        };
        self.controllers.authenticate(self.question, request);
        loop {
            match within("a decision", self.events.recv()).await.expect("goes on") {
                FromController::Authenticated { question, decision } if question == self.question => {
                    return decision.map(|decision| match decision {
                        Decision::Accept(accept) => accept.session_id,
                        Decision::Reject(reject) => panic!("{reject:?}"),
                    });
                }
                FromController::GivenUp => panic!("given up"),
                _ => {}
            }
        }
    }

    fn report(&self, session: &str, state: v1::SessionState) {
        self.controllers.report(Report::Session(v1::SessionReport {
            session_id: session.into(),
            state: state.into(),
            end_reason: v1::EndReason::Client.into(),
            end_text: "the client hung up".into(),
            ..Default::default()
        }));
    }

    fn refuse(&self, id: u8, cause: &str) {
        self.controllers.report(Report::Attempt(Box::new(v1::Attempt {
            id: vec![id; 16],
            phase: v1::Phase::IkeMainMode.into(),
            outcome: v1::Outcome::Refused.into(),
            cause: cause.into(),
            ..Default::default()
        })));
    }

    /// The audit as one member shows it; none while it cannot.
    async fn audit(&self, at: usize) -> Option<Vec<v1::Attempt>> {
        let answer = self.operators[at].clone().list_attempts(v1::ListAttemptsRequest::default()).await;
        answer.ok().map(|a| a.into_inner().attempts)
    }

    async fn sessions(&self, at: usize) -> Option<Vec<v1::SessionInfo>> {
        let answer = self.operators[at].clone().list_sessions(v1::ListSessionsRequest::default()).await;
        answer.ok().map(|a| a.into_inner().sessions)
    }

    async fn delivered(&self) {
        for _ in 0..20 {
            if self.controllers.try_flush().await {
                return;
            }
        }
        panic!("{:?} reports are not taken, away: {}", self.controllers.held(), self.controllers.are_away());
    }

    /// How often the audit says that a session came up, how often one ended, and how often one was refused with this cause.
    async fn counts(&self, at: usize, cause: &str) -> [usize; 3] {
        let Some(audit) = self.audit(at).await else { return [0; 3] };
        let count =
            |outcome, cause: &str| audit.iter().filter(|a| a.outcome() == outcome && a.cause.contains(cause)).count();
        [count(v1::Outcome::Accepted, ""), count(v1::Outcome::Ended, ""), count(v1::Outcome::Refused, cause)]
    }

    /// Goes on reporting a session, as a gateway does.
    fn keep_reporting(&self, session: &str) -> tokio::task::JoinHandle<()> {
        let (controllers, session_id) = (self.controllers.clone(), session.to_owned());
        tokio::spawn(async move {
            loop {
                let state = v1::SessionState::Up.into();
                let session_id = session_id.clone();
                controllers.report(Report::Session(v1::SessionReport { session_id, state, ..Default::default() }));
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        })
    }

    fn was_given_up(&mut self) -> bool {
        let mut given_up = false;
        while let Ok(event) = self.events.try_recv() {
            given_up |= matches!(event, FromController::GivenUp);
        }
        given_up
    }

    async fn end(mut self) {
        for member in &mut self.members {
            member.stop().await;
        }
    }
}

async fn prepare(operator: &mut OperatorClient<Channel>) {
    let mut settings = operator.get_settings(v1::GetSettingsRequest {}).await.unwrap().into_inner().settings.unwrap();
    settings.auth_methods = vec![v1::AuthMethod::Pap.into()];
    operator.update_settings(v1::UpdateSettingsRequest { settings: Some(settings) }).await.unwrap();
    let password = Some(v1::Secret::new("open sesame"));
    operator.add_user(v1::AddUserRequest { name: "ada".into(), password, ..Default::default() }).await.unwrap();
    let pool =
        v1::AddPoolRequest { name: "clients".into(), networks: vec!["10.88.0.0/24".into()], ..Default::default() };
    operator.add_pool(pool).await.unwrap();
}

async fn gateway(proxies: &[Proxy], identity: &Path) -> (Controllers, mpsc::Receiver<FromController>) {
    let addresses: Vec<String> = proxies.iter().map(|p| p.address.to_string()).collect();
    let identity = Identity::load(identity).unwrap();
    let registration = Registration { name: "gw1".into(), addresses: Vec::new(), boot_id: [3; 16] };
    let (events_in, events) = mpsc::channel(1_024);
    let (controllers, _) = Controllers::start(&addresses, &identity, registration, events_in).await.unwrap();
    (controllers, events)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_reported_arrives_once_although_answers_are_lost_and_the_leader_changes() {
    let mut site = Site::new().await;
    let session = site.login().await.unwrap();
    site.report(&session, v1::SessionState::Up);
    site.delivered().await;

    // The reports arrive and are applied; the gateway does not hear of it.
    site.set(Mode::NoAnswers);
    site.refuse(7, "no certificate");
    site.report(&session, v1::SessionState::Down);
    wait_for("both records", || async { (site.counts(0, "no certificate").await == [1, 1, 1]).then_some(()) }).await;
    assert_eq!(site.controllers.held().0, 2, "as far as it knows, nobody has taken them");
    // It hears of it from another leader.
    let leader = site.leader(0).await;
    site.members[leader].stop().await;
    for proxy in &site.proxies {
        proxy.cut().await;
    }
    site.set(Mode::Passes);
    site.delivered().await;
    let rest = (leader + 1) % 3;
    let audit = wait_for("the audit", || site.audit(rest)).await;
    assert_eq!(site.counts(rest, "no certificate").await, [1, 1, 1], "{audit:?}");

    // Nor does a repetition count after all have been restarted from what they stored.
    for (at, member) in site.members.iter_mut().enumerate() {
        if at != leader {
            member.stop().await;
        }
    }
    for member in &mut site.members {
        member.again().await;
    }
    site.settled().await;
    site.refuse(7, "no certificate");
    site.report(&session, v1::SessionState::Down);
    site.delivered().await;
    assert_eq!(site.counts(0, "no certificate").await, [1, 1, 1]);
    assert!(!site.was_given_up());
    site.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_given_up_while_no_majority_listens_and_one_that_alone_was_silent_is() {
    let mut site = Site::new().await;
    let session = site.login().await.unwrap();
    let reporting = site.keep_reporting(&session);

    // Two of three are gone, for longer than a gateway may be silent and a session unreported. The leader stays.
    let leader = site.leader(0).await;
    for (at, member) in site.members.iter_mut().enumerate() {
        if at != leader {
            member.stop().await;
        }
    }
    wait_for("the gateway to notice", || async { site.controllers.are_away().then_some(()) }).await;
    let cause = site.login().await.expect_err("nobody decides");
    assert!(cause.contains("the controllers are away"), "{cause}");
    site.refuse(9, &cause);
    tokio::time::sleep(Duration::from_millis(u64::from(TIMEOUT_MS) * 5 / 4)).await;
    for (at, member) in site.members.iter_mut().enumerate() {
        if at != leader {
            member.again().await;
        }
    }
    site.settled().await;
    wait_for("the attempt", || async { (site.counts(0, "the controllers are away").await[2] == 1).then_some(()) })
        .await;
    wait_for("the gateway to notice", || async { (!site.controllers.are_away()).then_some(()) }).await;
    let kept = wait_for("sessions", || site.sessions(0)).await;
    assert_eq!(kept.iter().map(|s| s.session_id.as_str()).collect::<Vec<_>>(), [session.as_str()]);
    assert_eq!(site.counts(0, "the controllers are away").await, [1, 0, 1]);
    assert!(!site.was_given_up());

    // All are there, only this gateway cannot be heard: it is given up by decision of the group, and hears of it.
    site.set(Mode::Cut);
    wait_for("the end of the session", || async { site.sessions(0).await.filter(Vec::is_empty) }).await;
    let audit = wait_for("the audit", || site.audit(0)).await;
    assert!(audit.iter().any(|a| a.end_reason() == v1::EndReason::GatewayLost), "{audit:?}");
    reporting.abort();
    site.set(Mode::Passes);
    let mut given_up = false;
    for _ in 0..1_200 {
        given_up = given_up || site.was_given_up();
        if given_up {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(given_up);
    site.end().await;
}
