//! The enrollment endpoint: at the controller's own ports, and through a gateway.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sallyport_ca::{Profile, pem};
use sallyport_controller::{Config, Controller, Running};
use sallyport_proto::carry::pump;
use sallyport_proto::v1;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::common::{self, Site, TestGateway};

pub(crate) const NAME: &str = "vpn.example.com";

/// Settings of a controller that offers the endpoint at ports of its own.
pub(crate) fn config() -> Config {
    let mut config = common::config();
    config.enrollment.names = vec![NAME.into()];
    config.enrollment.listen = Some(([127, 0, 0, 1], 0).into());
    config.enrollment.http_listen = Some(([127, 0, 0, 1], 0).into());
    config
}

pub(crate) async fn site() -> Site {
    site_with(|_| {}).await
}

pub(crate) async fn site_with(change: impl FnOnce(&mut Config)) -> Site {
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut config = config();
    change(&mut config);
    let running = Controller::start(config, dir.path()).await.expect("starts");
    Site { dir, running }
}

fn begin(member: Option<v1::Member>, port: v1::EnrollmentPort) -> v1::CarryEnrollmentRequest {
    let begin = v1::EnrollmentBegin { member, remote: "203.0.113.7:4711".into(), port: port.into() };
    v1::CarryEnrollmentRequest { begin: Some(begin), ..Default::default() }
}

/// A connection that comes to a port of the gateway.
pub(crate) async fn through(gateway: &TestGateway, port: v1::EnrollmentPort) -> Result<DuplexStream, Status> {
    let (outgoing, requests) = mpsc::channel(4);
    outgoing.send(begin(Some(gateway.member), port)).await.expect("a queue");
    let mut client = gateway.client.clone();
    let incoming = client.carry_enrollment(ReceiverStream::new(requests)).await?.into_inner();
    let (ours, theirs) = tokio::io::duplex(4096);
    tokio::spawn(pump(theirs, incoming, outgoing, Duration::from_secs(60)));
    Ok(ours)
}

async fn get(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("is taken");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    String::from_utf8(answer).expect("text")
}

/// TLS that trusts the root and nobody else.
pub(crate) async fn tls<S: AsyncRead + AsyncWrite + Unpin>(
    running: &Running,
    stream: S,
) -> std::io::Result<tokio_rustls::client::TlsStream<S>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(running.root_certificate())).expect("a root");
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(NAME).expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Asks again until there is an answer: a new controller has a certificate for its endpoint after a moment.
pub(crate) async fn soon<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(common::PATIENCE, asking).await.expect("the endpoint has a certificate")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_a_gateway_ends_in_the_controller_tls_and_all() {
    let site = site().await;
    let gateway = site.gateway("gw1").await;
    let root = pem::encode("CERTIFICATE", &site.running.root_certificate());
    let answer = get(through(&gateway, v1::EnrollmentPort::Http).await.expect("is carried"), "/ca.pem").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains(root.as_str()), "{answer}");
    let stream = soon(async || {
        let stream = through(&gateway, v1::EnrollmentPort::Https).await.expect("is carried");
        tls(&site.running, stream).await.ok()
    })
    .await;
    let answer = get(stream, "/.well-known/est/cacerts").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("application/pkcs7-mime"), "{answer}");
    // Many at a time.
    let mut all = Vec::new();
    for _ in 0..20 {
        let stream = through(&gateway, v1::EnrollmentPort::Http).await.expect("is carried");
        all.push(tokio::spawn(get(stream, "/")));
    }
    for one in all {
        assert!(one.await.expect("no panic").contains(NAME));
    }
    let metrics = super::get(site.running.metrics_address().expect("metrics"), "/metrics").await;
    assert!(
        metrics.contains("sallyport_controller_enrollment_requests_total{outcome=\"ok\",service=\"page\"} 20"),
        "{metrics}"
    );
    site.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_gateway_in_force_carries_and_it_says_whom() {
    let site = site().await;
    let gateway = site.gateway("gw1").await;
    let refused = async |first: Option<v1::CarryEnrollmentRequest>| {
        let mut client = gateway.client.clone();
        let (outgoing, requests) = mpsc::channel(4);
        if let Some(first) = first {
            outgoing.send(first).await.expect("a queue");
        }
        drop(outgoing);
        client.carry_enrollment(ReceiverStream::new(requests)).await.map(drop).map_err(|status| status.code())
    };
    let http = v1::EnrollmentPort::Http;
    let stale = v1::Member { epoch: gateway.member.epoch + 1, ..gateway.member };
    assert_eq!(refused(Some(begin(Some(stale), http))).await, Err(Code::FailedPrecondition));
    assert_eq!(refused(Some(begin(None, http))).await, Err(Code::InvalidArgument));
    assert_eq!(
        refused(Some(begin(Some(gateway.member), v1::EnrollmentPort::Unspecified))).await,
        Err(Code::InvalidArgument)
    );
    let mut nowhere = begin(Some(gateway.member), http);
    if let Some(begin) = &mut nowhere.begin {
        begin.remote = "somewhere".into();
    }
    assert_eq!(refused(Some(nowhere)).await, Err(Code::InvalidArgument));
    assert_eq!(refused(Some(v1::CarryEnrollmentRequest::default())).await, Err(Code::InvalidArgument));
    assert_eq!(refused(None).await, Err(Code::InvalidArgument));
    assert_eq!(refused(Some(begin(Some(gateway.member), http))).await, Ok(()));

    let machine = common::issue(&site.running, Profile::Operator, "somebody").await;
    let channel = site.channel(&machine).await.expect("connects");
    let mut client = v1::gateway_client::GatewayClient::new(channel);
    let first = begin(Some(gateway.member), http);
    let status = client.carry_enrollment(tokio_stream::iter([first])).await.expect_err("is no gateway");
    assert_eq!(status.code(), Code::PermissionDenied);
    site.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_offers_the_endpoint_at_ports_of_its_own_under_the_names_of_the_service() {
    let site = site().await;
    let [https, http] = site.running.enrollment_addresses().map(|address| address.expect("listens"));
    let page = get(TcpStream::connect(http).await.expect("connects"), "/").await;
    assert!(page.starts_with("HTTP/1.1 200 OK") && page.contains(NAME), "{page}");
    let stream = soon(async || tls(&site.running, TcpStream::connect(https).await.expect("connects")).await.ok()).await;
    assert!(get(stream, "/").await.contains("Strict-Transport-Security"));
    site.running.shutdown().await;
}
