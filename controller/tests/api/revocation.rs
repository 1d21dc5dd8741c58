//! Revocation by operators, the set of live certificates on the stream, and what gateways acknowledge.

use sallyport_ca::Profile;
use sallyport_controller::Issued;
use sallyport_proto::v1;
use sallyport_proto::v1::operator_client::OperatorClient;
use sallyport_proto::v1::revoke_certificates_request::Which;
use sallyport_proto::v1::watch_policy_response::Update;
use sallyport_proto::v1::{RevocationReason as Reason, RevocationState as Progress};
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use crate::common::{Site, TestGateway, Way, add_pool, add_user, attempts, change_settings, issue, site};
use crate::users::at_newest_level;
use crate::{next, patiently};

const NAME: &str = "laptop7.example.com";

type Stream = Streaming<v1::WatchPolicyResponse>;

/// The stream of a gateway that knows this much; the policy has come.
async fn watch(gateway: &mut TestGateway, from: v1::LiveFrom) -> Stream {
    let request = v1::WatchPolicyRequest { member: Some(gateway.member), live: Some(from) };
    let mut stream = gateway.client.watch_policy(request).await.expect("a stream").into_inner();
    assert!(matches!(next(&mut stream).await, Update::Policy(policy) if policy.max_stale_s == 600));
    stream
}

async fn live(stream: &mut Stream) -> v1::LiveUpdate {
    let update = async {
        loop {
            match next(stream).await {
                Update::Live(update) => return update,
                Update::Policy(_) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    patiently("what is live", update).await
}

/// The next message that says something of a certificate.
async fn news(stream: &mut Stream) -> v1::LiveUpdate {
    let news = async {
        loop {
            let update = live(stream).await;
            if !update.live.is_empty() || !update.revoked.is_empty() {
                return update;
            }
        }
    };
    patiently("news of a certificate", news).await
}

fn tag(issued: &Issued) -> &[u8] {
    &issued.record.fingerprint[..16]
}

fn at(update: &v1::LiveUpdate) -> v1::LiveFrom {
    v1::LiveFrom { lineage: update.lineage, index: update.index }
}

async fn revoke(
    operator: &mut OperatorClient<Channel>,
    which: Which,
    reason: Reason,
) -> v1::RevokeCertificatesResponse {
    let request =
        v1::RevokeCertificatesRequest { which: Some(which), reason: reason.into(), text: "left on a train".into() };
    operator.revoke_certificates(request).await.expect("revokes").into_inner()
}

async fn progress(
    operator: &mut OperatorClient<Channel>,
    revocation: v1::RevocationChange,
) -> v1::GetRevocationResponse {
    let request = v1::GetRevocationRequest { revocation: Some(revocation), wait_ms: 50 };
    operator.get_revocation(request).await.expect("answers").into_inner()
}

async fn beat(gateway: &mut TestGateway, at: v1::LiveFrom, revocations: Vec<v1::RevocationDone>) -> v1::LiveFrom {
    let live = v1::LiveHeld { at: Some(at), certificates: 1, age_ms: 0, stale: false };
    let request =
        v1::HeartbeatRequest { member: Some(gateway.member), live: Some(live), revocations, ..Default::default() };
    gateway.client.heartbeat(request).await.expect("is heard").into_inner().revoked.expect("the newest")
}

async fn prepared() -> (Site, OperatorClient<Channel>) {
    let site = site().await;
    let mut operator = site.operator().await;
    at_newest_level(&mut operator).await;
    (site, operator)
}

#[tokio::test]
async fn a_gateway_hears_the_set_then_what_changes_and_whoever_revokes_hears_of_the_gateways() {
    let (site, mut operator) = prepared().await;
    let first = issue(&site.running, Profile::Machine, NAME).await;
    let mut gateway = site.gateway("gw1").await;
    let _silent = site.gateway("gw2").await;
    let mut stream = watch(&mut gateway, v1::LiveFrom::default()).await;
    let whole = live(&mut stream).await;
    assert!(whole.snapshot && !whole.more && whole.live.starts_with(tag(&first)) && whole.live.len() == 20);
    let second = issue(&site.running, Profile::Machine, NAME).await;
    let issued = news(&mut stream).await;
    assert!(!issued.snapshot && issued.live.starts_with(tag(&second)));
    let known = beat(&mut gateway, at(&issued), Vec::new()).await;
    assert!(known.lineage == issued.lineage && known.index <= issued.index);

    let answer = revoke(&mut operator, Which::Machine(NAME.to_uppercase()), Reason::KeyCompromise).await;
    assert_eq!(answer.certificates.len(), 2, "all of the machine");
    for certificate in &answer.certificates {
        assert_eq!(
            (certificate.revocation_code(), certificate.revocation_reason.as_str()),
            (Reason::KeyCompromise, "left on a train")
        );
    }
    let change = answer.revocation.expect("a name");
    let gone = news(&mut stream).await;
    assert_eq!(gone.revoked.len(), 2);
    assert!(gone.revoked.iter().all(|r| r.reason() == Reason::KeyCompromise && r.number > change.after));
    assert_eq!(gone.index, change.last);

    // Nobody has acknowledged it; then one has, with what it ended.
    // As if it had been an hour later: on a busy machine leases of five seconds may have ended by now.
    let just_now = v1::RevocationChange { at_unix_ms: change.at_unix_ms + 3_600_000, ..change };
    let waiting = progress(&mut operator, just_now).await;
    let states: Vec<_> = waiting.gateways.iter().map(|g| (g.gateway.as_str(), g.state())).collect();
    assert_eq!(states, [("gw1", Progress::Waiting), ("gw2", Progress::Waiting)]);
    assert!(!waiting.done);
    let ended = vec![v1::RevocationDone { number: gone.revoked[0].number, tunnels: 3 }];
    let known = beat(&mut gateway, at(&gone), ended).await;
    assert!(known.index > change.after && known.index <= gone.index, "it knows all there is");
    // The other one's lease is over once five seconds have passed.
    let later = v1::RevocationChange { at_unix_ms: change.at_unix_ms - 5_000, ..change };
    let done = progress(&mut operator, later).await;
    let states: Vec<_> = done.gateways.iter().map(|g| (g.state(), g.tunnels, g.keeps_set)).collect();
    assert_eq!(states, [(Progress::Acknowledged, 3, true), (Progress::Lapsed, 0, false)]);
    assert!(done.done);
    let listed = operator.list_gateways(v1::ListGatewaysRequest::default()).await.expect("gateways").into_inner();
    let current: Vec<_> = listed.gateways.iter().map(|g| (g.live.is_some(), g.current)).collect();
    assert_eq!(current, [(true, true), (false, false)]);
    site.running.shutdown().await;
}

#[tokio::test]
async fn a_gateway_hears_of_a_revocation_before_it_hears_of_the_sessions_that_end_by_it() {
    let (site, mut operator) = prepared().await;
    add_pool(&mut operator, "office", "10.9.0.0/24").await;
    add_user(&mut operator, "ada", "open sesame").await;
    let laptop = issue(&site.running, Profile::Machine, NAME).await;
    let mut gateway = site.gateway("gw1").await;
    let mut stream = watch(&mut gateway, v1::LiveFrom::default()).await;
    assert!(live(&mut stream).await.snapshot);
    let mut question = gateway.question(Way::MsChapV2, "ada", "open sesame");
    let certificate_serial = laptop.record.serial.clone();
    question.machine = Some(v1::MachineIdentity { certificate_serial, ..Default::default() });
    let session = gateway.ask(question).await.expect("accepted").session_id;

    let answer = revoke(&mut operator, Which::Serial(laptop.record.serial.clone()), Reason::KeyCompromise).await;
    assert_eq!(answer.ended_sessions, 1);
    let mut revoked = false;
    let command = loop {
        match next(&mut stream).await {
            Update::Live(update) => revoked |= !update.revoked.is_empty(),
            Update::Command(command) => break command,
            _ => {}
        }
    };
    assert!(revoked, "the client could hang up, and the gateway would count no tunnel that it has closed");
    let Some(v1::command::Action::KillSession(kill)) = command.action else { panic!("{command:?}") };
    assert_eq!(kill.session_id, session);
    site.running.shutdown().await;
}

#[tokio::test]
async fn hold_and_release_reach_a_gateway_that_goes_on_at_another_process_of_the_controller() {
    let (site, mut operator) = prepared().await;
    let laptop = issue(&site.running, Profile::Machine, NAME).await;
    let serial = laptop.record.serial.clone();
    let mut gateway = site.gateway("gw1").await;
    let from = at(&live(&mut watch(&mut gateway, v1::LiveFrom::default()).await).await);
    let held = revoke(&mut operator, Which::Serial(serial.clone()), Reason::CertificateHold).await;
    assert_eq!(held.certificates[0].revocation_code(), Reason::CertificateHold);
    let (cause, remedy) = gateway.admit(&serial, &laptop.record.fingerprint).await.expect_err("on hold");
    assert!(
        cause.contains("on hold: certificate-hold (left on a train)") && remedy.contains("cert release"),
        "{cause}"
    );
    let (cause, _) = gateway.admit("01aa", &[7; 32]).await.expect_err("forged");
    assert!(cause.starts_with("forged:"), "{cause}");
    let verdicts: Vec<_> = attempts(&mut operator).await.iter().map(v1::Attempt::certificate_verdict).collect();
    assert_eq!(verdicts, [v1::CertificateVerdict::Forged, v1::CertificateVerdict::Revoked], "each has its record");
    drop((operator, gateway));

    let site = site.restart().await;
    let mut operator = site.operator().await;
    let mut gateway = site.gateway("gw1").await;
    let mut stream = watch(&mut gateway, from).await;
    let gone = news(&mut stream).await;
    assert!(!gone.snapshot && gone.after == from.index && gone.revoked[0].fingerprint == tag(&laptop));
    let which = Some(v1::release_certificates_request::Which::Machine(NAME.into()));
    let release = v1::ReleaseCertificatesRequest { which };
    let released = operator.release_certificates(release.clone()).await.expect("releases").into_inner();
    assert_eq!((released.certificates[0].revoked_unix_ms, &released.certificates[0].serial), (0, &serial));
    let back = news(&mut stream).await;
    assert!(back.revoked.is_empty() && back.live.starts_with(tag(&laptop)));
    assert_eq!(gateway.admit(&serial, &laptop.record.fingerprint).await, Ok(NAME.into()));
    let again = operator.release_certificates(release).await.expect_err("nothing is on hold");
    assert!(again.code() == Code::FailedPrecondition && again.message().contains("for good"), "{again}");

    // What is wrong with a question is said.
    for (request, code) in [
        (v1::RevokeCertificatesRequest::default(), Code::InvalidArgument),
        (
            v1::RevokeCertificatesRequest { which: Some(Which::Serial("x".into())), ..Default::default() },
            Code::InvalidArgument,
        ),
        (
            v1::RevokeCertificatesRequest { which: Some(Which::Machine("nobody".into())), ..Default::default() },
            Code::NotFound,
        ),
        (
            v1::RevokeCertificatesRequest { which: Some(Which::Holder("nobody".into())), ..Default::default() },
            Code::NotFound,
        ),
        (
            v1::RevokeCertificatesRequest {
                which: Some(Which::Serial(serial.clone())),
                reason: 7,
                ..Default::default()
            },
            Code::InvalidArgument,
        ),
    ] {
        assert_eq!(operator.revoke_certificates(request.clone()).await.expect_err("bad").code(), code, "{request:?}");
    }
    // And how long a gateway goes on without us is a setting, which the stream brings.
    change_settings(&mut operator, |s| (s.max_stale_s, s.fail_closed) = (60, true)).await;
    let policy = loop {
        if let Update::Policy(policy) = next(&mut stream).await {
            break policy;
        }
    };
    assert_eq!((policy.max_stale_s, policy.fail_closed), (60, true));
    let shown = operator.get_cluster(v1::GetClusterRequest {}).await.expect("answers").into_inner().stale;
    assert_eq!(shown, Some(v1::StalePolicy { lease_s: 5, max_stale_s: 60, fail_closed: true }));
    let mut settings = crate::common::settings(&mut operator).await;
    settings.max_stale_s = 5;
    let short = operator.update_settings(v1::UpdateSettingsRequest { settings: Some(settings) }).await;
    assert_eq!(short.expect_err("too short").code(), Code::InvalidArgument);
    site.running.shutdown().await;
}
