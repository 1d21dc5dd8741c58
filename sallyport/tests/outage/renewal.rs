//! A gateway that looks after its own certificates, with a real controller whose clock a test moves.

use std::path::PathBuf;

use sallyport_ca::{Certificate, EnrollToken, UnixTime};
use sallyport_controller::Clock;
use sallyport_gateway::app;
use sallyport_gateway::first;
use sallyport_gateway::renewal::Renewer;

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

struct Place {
    dir: tempfile::TempDir,
    running: Running,
    clock: Clock,
    operator: OperatorClient<Channel>,
    address: String,
}

impl Place {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(Clock::system().unix_ms());
        let running = Controller::start_with(config(), dir.path(), clock.clone()).await.unwrap();
        let address = running.grpc_address();
        let read = |name: &str| std::fs::read(dir.path().join("operator").join(name)).unwrap();
        let tls = ClientTlsConfig::new()
            .ca_certificate(tonic::transport::Certificate::from_pem(read("ca.pem")))
            .identity(tonic::transport::Identity::from_pem(read("cert.pem"), read("key.pem")))
            .domain_name(CONTROLLER_NAME);
        let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
        let mut operator = OperatorClient::new(endpoint.tls_config(tls).unwrap().connect_lazy());
        prepare(&mut operator).await;
        Self { dir, running, clock, operator, address: address.to_string() }
    }

    async fn gateway(
        &self,
        name: &str,
        identity: &Identity,
        boot: u8,
    ) -> (Controllers, mpsc::Receiver<FromController>) {
        let registration = Registration { name: name.into(), addresses: Vec::new(), boot_id: [boot; 16] };
        let (events_in, events) = mpsc::channel(1_024);
        let (controllers, _) =
            Controllers::start(std::slice::from_ref(&self.address), identity, registration, events_in).await.unwrap();
        (controllers, events)
    }

    /// Time passes for the controllers, and the gateway hears of it.
    async fn wait(&self, controllers: &Controllers, time: Duration) {
        self.clock.advance(time);
        let then = self.clock.unix_ms();
        wait_for("the controllers' time at the gateway", || async { (controllers.now_ms() >= then).then_some(()) })
            .await;
    }

    async fn set_names(&mut self, names: &[&str]) {
        let settings = self.operator.get_settings(v1::GetSettingsRequest {}).await.unwrap().into_inner().settings;
        let public_names = names.iter().map(|n| (*n).to_owned()).collect();
        let settings = Some(v1::Settings { public_names, ..settings.unwrap() });
        self.operator.update_settings(v1::UpdateSettingsRequest { settings }).await.unwrap();
    }
}

fn link(identity: &Identity) -> Certificate {
    Certificate::from_pem(&identity.grpc_chain).unwrap()
}

fn names(identity: &Identity) -> Vec<Vec<String>> {
    let all = app::names(identity).unwrap();
    all.iter().map(|names| names.iter().map(ToString::to_string).collect()).collect()
}

fn serials(identity: &Identity) -> Vec<String> {
    let ike = identity.ike.iter().map(|ike| Certificate::from_der(&ike.chain[0]).unwrap().serial.to_string());
    std::iter::once(link(identity).serial.to_string()).chain(ike).collect()
}

async fn handed_on(events: &mut mpsc::Receiver<FromController>) -> usize {
    loop {
        match within("new credentials", events.recv()).await.expect("goes on") {
            FromController::Credentials(new) => return new.credentials.len(),
            FromController::GivenUp => panic!("given up"),
            _ => {}
        }
    }
}

async fn login(controllers: &Controllers, events: &mut mpsc::Receiver<FromController>) -> String {
    use v1::authenticate_response::Decision;
    let request = v1::AuthenticateRequest {
        request_id: vec![9; 16],
        user: "ada".into(),
        method: Some(v1::authenticate_request::Method::Pap(v1::Pap { password: Some(v1::Secret::new("open sesame")) })),
        remote: "198.51.100.7:4500".into(),
        ..Default::default()
    };
    controllers.authenticate(1, request);
    loop {
        if let FromController::Authenticated { decision, .. } =
            within("a decision", events.recv()).await.expect("goes on")
        {
            let Ok(Decision::Accept(accept)) = decision else { panic!("{decision:?}") };
            return accept.session_id;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_renews_its_certificates_and_takes_other_names_while_a_session_is_up() {
    let mut place = Place::new().await;
    let dir: PathBuf = place.dir.path().join("gw1");
    place.running.issue_gateway("gw1", &["vpn.test".into()], &dir).await.unwrap();
    let first = Identity::load(&dir).unwrap();
    let (controllers, mut events) = place.gateway("gw1", &first, 3).await;
    let mut renewer = Renewer::new(controllers.clone(), first.clone(), Some(dir.clone()), None);
    let session = login(&controllers, &mut events).await;
    let report = |state: v1::SessionState| {
        controllers.report(Report::Session(v1::SessionReport {
            session_id: session.clone(),
            state: state.into(),
            end_reason: v1::EndReason::Client.into(),
            ..Default::default()
        }));
    };
    report(v1::SessionState::Up);
    assert!(controllers.try_flush().await);
    assert!(!renewer.look().await.unwrap(), "nothing is due yet");

    // The gateway's name alone changes: for that the link needs no other certificate.
    place.set_names(&["vpn2.test", "192.0.2.1"]).await;
    let mut wanted = controllers.public_names();
    within("the names", wanted.wait_for(|names| names.len() == 2)).await.unwrap();
    assert!(renewer.look().await.unwrap());
    assert_eq!(handed_on(&mut events).await, 2);
    let named = Identity::load(&dir).unwrap();
    assert_eq!(names(&named), [["vpn2.test", "192.0.2.1"], ["vpn2.test", "192.0.2.1"]]);
    assert_eq!(link(&named).serial, link(&first).serial);
    assert!(!renewer.look().await.unwrap());

    // Five sixths of their life are over.
    place.wait(&controllers, DAY * 76).await;
    assert!(renewer.look().await.unwrap());
    assert_eq!(handed_on(&mut events).await, 2);
    let renewed = Identity::load(&dir).unwrap();
    assert_eq!(names(&renewed), names(&named));
    let (old, new) = (serials(&named), serials(&renewed));
    assert!(old.iter().zip(&new).all(|(a, b)| a != b), "{old:?} {new:?}");
    assert!(renewed.ike.iter().zip(&named.ike).all(|(a, b)| a.key != b.key), "new keys");

    // The certificate that the gateway came with ends, and nothing else does.
    report(v1::SessionState::Up);
    place.wait(&controllers, DAY * 16).await;
    assert!(controllers.try_flush().await, "{:?}", controllers.held());
    let sessions =
        place.operator.list_sessions(v1::ListSessionsRequest::default()).await.unwrap().into_inner().sessions;
    assert_eq!(sessions.iter().map(|s| s.session_id.as_str()).collect::<Vec<_>>(), [session.as_str()]);
    report(v1::SessionState::Down);
    assert!(controllers.try_flush().await);
    assert!(!controllers.are_away());
    let mut operator = place.operator.clone();
    let listed = operator.list_gateways(v1::ListGatewaysRequest::default()).await.unwrap().into_inner().gateways;
    assert_eq!(listed.len(), 1);
    let ends = u64::try_from(link(&renewed).not_after.0).unwrap() * 1_000;
    assert!(listed[0].alive && listed[0].certificate_not_after_unix_ms <= ends, "{listed:?}");
    place.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_enrolls_by_a_token_and_comes_back_after_its_certificate_has_ended() {
    let mut place = Place::new().await;
    let addresses = [place.address.clone()];
    let dir = place.dir.path().join("gw7");
    let request = v1::CreateEnrollTokenRequest {
        profile: "gateway-link".into(),
        name: "gw-*.test".into(),
        uses: 1,
        ..Default::default()
    };
    let token = place.operator.create_enroll_token(request).await.unwrap().into_inner().token.unwrap();
    let token = String::from_utf8(token.into_inner().to_vec()).unwrap();
    // A controller of another cluster is not told the token.
    let parsed = EnrollToken::parse(&token).unwrap();
    let strange = EnrollToken { root: [7; 32], ..parsed };
    let refused = first::enroll(&addresses, &strange.to_text(), &place.dir.path().join("none")).await.unwrap_err();
    assert!(refused.to_string().contains("another cluster"), "{refused}");

    let identity = first::enroll(&addresses, &token, &dir).await.unwrap();
    let name = link(&identity).subject.rsplit("CN=").next().unwrap().to_owned();
    assert!(name.starts_with("gw-") && name.ends_with(".test") && name.len() == 28, "{name}");
    assert_eq!(names(&identity), [[name.clone()], [name.clone()]], "nobody has set names");
    assert_eq!(serials(&Identity::load(&dir).unwrap()), serials(&identity));
    let again = first::enroll(&addresses, &token, &place.dir.path().join("gw8")).await.unwrap_err();
    assert!(again.to_string().contains("used"), "{again}");

    let (controllers, mut events) = place.gateway(&name, &identity, 7).await;
    let mut renewer = Renewer::new(controllers.clone(), identity.clone(), None, None);
    // Switched off for a hundred days; the connection that is open ends with the certificate.
    place.clock.advance(DAY * 100);
    let now = UnixTime(i64::try_from(place.clock.unix_ms() / 1_000).unwrap());
    assert!(renewer.look_at(now).await.unwrap());
    assert_eq!(handed_on(&mut events).await, 2);
    assert_ne!(serials(renewer.identity()), serials(&identity));
    assert_eq!(serials(&Identity::load(&dir).unwrap()), serials(&identity), "kept in memory only");
    // And it may call again.
    let (back, _events) = place.gateway(&name, renewer.identity(), 7).await;
    assert!(!back.are_away());

    // Removed, it is out.
    place.operator.remove_gateway(v1::RemoveGatewayRequest { name: name.clone() }).await.unwrap();
    place.wait_until_refused(renewer.identity(), &name).await;
    place.running.shutdown().await;
}

impl Place {
    async fn wait_until_refused(&self, identity: &Identity, name: &str) {
        let registration = Registration { name: name.into(), addresses: Vec::new(), boot_id: [8; 16] };
        let (events_in, _events) = mpsc::channel(16);
        let addresses = [self.address.clone()];
        let started = Controllers::start(&addresses, identity, registration, events_in);
        let refused = within("a refusal", started).await.err().expect("refused");
        assert!(refused.to_string().contains("revoked"), "{refused}");
    }
}
