//! The endpoint against a client that writes what it likes.

mod common;

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use sallyport_endpoint::{Kind, Limit, Limits, Outcome, Proof, Protocol, Service, serve};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

use common::{
    BUSY, Client, FORBIDDEN, PENDING, RIGHT, World, base64, certificates, config, config_of, csr, csr_key, est_headers,
};

fn world() -> World {
    World::new(Limits { free_tries: 100, ..Limits::default() })
}

#[tokio::test]
async fn a_token_gets_a_certificate_for_the_key_of_the_request_and_nothing_else_of_it() {
    let world = world();
    let mut client = world.tls().await;
    let flat = base64(&csr());
    let wrapped: Vec<u8> = flat.as_bytes().chunks(64).flat_map(|l| [l, b"\r\n"].concat()).collect();
    for body in [csr(), flat.into_bytes(), wrapped] {
        let response = client.enroll("simpleenroll", Some(RIGHT), &body).await;
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.header("content-transfer-encoding"), Some("base64"));
        assert_eq!(response.header("content-type"), Some("application/pkcs7-mime; smime-type=certs-only"));
        assert_eq!(response.header("transfer-encoding"), None);
        let issued = certificates(&response.body);
        assert_eq!(issued.len(), 1);
        assert_eq!(issued[0].spki_der(), csr_key());
        assert!(issued[0].subject.contains("laptop7") && !issued[0].subject.contains("stolen"));
    }
    assert_eq!(world.endpoint.counts().requests(Service::EstEnroll, Outcome::Ok), 3);
    let asked = world.desk().asked.lock().unwrap();
    assert!(asked.iter().all(|(p, _, source)| *p == Protocol::Est && source.to_string() == "192.0.2.1"));
}

#[tokio::test]
async fn what_the_office_says_becomes_the_status_that_est_has_for_it() {
    let world = world();
    let mut client = world.tls().await;
    let nothing = client.enroll("simpleenroll", None, &csr()).await;
    assert_eq!(nothing.status, 401);
    assert_eq!(nothing.header("www-authenticate"), Some("Basic realm=\"enrollment token\""));
    let wrong = client.enroll("simpleenroll", Some("spt1.wrong"), &csr()).await;
    assert_eq!((wrong.status, wrong.text()), (401, "a token is needed\n".into()));
    let pending = client.enroll("simpleenroll", Some(PENDING), &csr()).await;
    assert_eq!((pending.status, pending.header("retry-after")), (202, Some("91")));
    // Bouncy Castle 1.72 gives up where these have a body.
    assert_eq!((pending.text(), nothing.text()), (String::new(), String::new()));
    assert_eq!(client.enroll("simpleenroll", Some(FORBIDDEN), &csr()).await.status, 403);
    let busy = client.enroll("simpleenroll", Some(BUSY), &csr()).await;
    assert_eq!((busy.status, busy.header("retry-after")), (503, Some("91")));
    let mut altered = csr();
    *altered.last_mut().unwrap() ^= 1;
    let invalid = client.enroll("simpleenroll", Some(RIGHT), &altered).await;
    assert_eq!(invalid.status, 400, "{}", invalid.text());
    let counts = world.endpoint.counts();
    for (outcome, n) in [(Outcome::Denied, 3), (Outcome::Pending, 1), (Outcome::Unavailable, 1), (Outcome::Invalid, 1)]
    {
        assert_eq!(counts.requests(Service::EstEnroll, outcome), n, "{outcome:?}");
    }
}

#[tokio::test]
async fn est_is_not_spoken_without_tls_and_the_token_is_not_looked_at() {
    let world = world();
    let mut client = world.plain().await;
    assert_eq!(client.get("/.well-known/est/cacerts").await.status, 403);
    let mut client = world.plain().await;
    let response = client.enroll("simpleenroll", Some(RIGHT), &csr()).await;
    assert_eq!(response.status, 403);
    assert!(response.text().contains("HTTPS"), "{}", response.text());
    assert_eq!(world.desk().asked(), 0);
}

#[tokio::test]
async fn the_other_operations_of_est_answer() {
    let world = world();
    let mut client = world.tls().await;
    let response = client.get("/.well-known/est/anything/cacerts").await;
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/pkcs7-mime")));
    let root = world.desk().authority.certificate();
    assert_eq!(certificates(&response.body)[0].der(), root.der());
    let response = client.get("/.well-known/est/csrattrs").await;
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/csrattrs")));
    let response = client.enroll("serverkeygen", Some(RIGHT), &csr()).await;
    assert_eq!(response.header("content-type"), Some("multipart/mixed; boundary=sallyport-est-part"));
    let text = response.text();
    let parts: Vec<&str> = text.split("--sallyport-est-part").collect();
    assert_eq!((parts[0], parts[3]), ("", "--\r\n"));
    let body = |n: usize| parts[n].split("\r\n").nth(4).unwrap();
    let key = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", body(1));
    let key = sallyport_ca::KeyPair::from_pem(key.as_bytes()).unwrap();
    assert_eq!(certificates(body(2).as_bytes())[0].spki_der(), key.public_key().spki_der());
    assert_eq!(client.get("/.well-known/est/simpleenroll").await.header("allow"), Some("POST"));
    assert_eq!(client.post("/.well-known/est/cacerts", "", b"").await.status, 405);
}

#[tokio::test]
async fn a_page_of_another_site_cannot_make_a_browser_enroll() {
    let world = world();
    let (der, key) = world.machine();
    let mut client = world.tls_as(config(Some((der, &key)))).await.unwrap();
    for kind in ["", "Content-Type: text/plain\r\n", "Content-Type: application/x-www-form-urlencoded\r\n"] {
        let response = client.post("/.well-known/est/simplereenroll", kind, &csr()).await;
        assert_eq!(response.status, 415, "{kind}");
        client = {
            let (der, key) = world.machine();
            world.tls_as(config(Some((der, &key)))).await.unwrap()
        };
    }
    assert_eq!(world.desk().asked(), 0);
}

#[tokio::test]
async fn a_certificate_counts_only_if_its_key_signed_the_handshake() {
    let world = world();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let (der, key) = world.machine();
        let (_, other_key) = world.machine();
        let mut client = world.tls_as(config_of(Some((der.clone(), &key)), &[version])).await.unwrap();
        let response = client.enroll("simplereenroll", None, &csr()).await;
        assert_eq!(response.status, 200, "{}", response.text());
        let last = world.desk().asked.lock().unwrap().pop().unwrap();
        assert!(matches!(last, (Protocol::EstRenewal, Proof::Certificate(shown), _) if shown == der));

        let before = world.endpoint.counts().refused(Limit::Tls);
        let refused = match world.tls_as(config_of(Some((der, &other_key)), &[version])).await {
            Err(_) => true,
            Ok(mut client) => {
                client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
                client.response().await.is_none()
            }
        };
        assert!(refused);
        assert_eq!(world.endpoint.counts().refused(Limit::Tls), before + 1);
        assert_eq!(world.desk().asked(), 0);
    }
}

#[tokio::test]
async fn a_new_certificate_is_shown_from_the_next_handshake_on() {
    let world = world();
    let shown = |client: &Client<tokio_rustls::client::TlsStream<DuplexStream>>| {
        let der = client.stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        sallyport_ca::Certificate::from_der(&der).unwrap().serial
    };
    let mut before = world.tls().await;
    let serial = world.swap_certificate();
    assert_ne!(shown(&before), serial);
    assert_eq!(shown(&world.tls().await), serial);
    assert_eq!(before.get("/").await.status, 200);
    assert!(world.endpoint.set_certificate(&[vec![1, 2, 3]], b"no key").is_err());
    assert_eq!(shown(&world.tls().await), serial);
}

/// Notes what is written at once.
struct Writes(DuplexStream, Arc<Mutex<Vec<usize>>>);

impl AsyncRead for Writes {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Writes {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        self.1.lock().unwrap().push(buf.len());
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn header_and_body_leave_in_one_write_and_the_header_is_small() {
    let world = world();
    let (ours, theirs) = tokio::io::duplex(1 << 17);
    let writes = Arc::new(Mutex::new(Vec::new()));
    world.serve(Writes(theirs, writes.clone()), Kind::Plain, 1);
    let mut client = Client::new(ours);
    for path in ["/ca.pem", "/ca/root.crl", "/"] {
        let response = client.get(path).await;
        let whole = response.head.len() + response.body.len();
        assert_eq!(std::mem::take(&mut *writes.lock().unwrap()), [whole], "{path}");
    }
    let mut client = world.tls().await;
    client.send(b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut first = vec![0; 1 << 16];
    let n = client.stream.read(&mut first).await.unwrap();
    let text = String::from_utf8_lossy(&first[..n]);
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.len() < 512, "{head}");
    let len = head.lines().find_map(|l| l.strip_prefix("Content-Length: ")).unwrap();
    assert_eq!(body.len().to_string(), len);
}

#[tokio::test]
async fn lists_and_certificates_are_for_anybody_and_say_how_long_they_may_be_kept() {
    let world = world();
    let mut client = world.plain().await;
    let root = world.desk().authority.certificate().der();
    let crl = client.get("/ca/root.crl").await;
    assert_eq!((crl.status, crl.header("content-type")), (200, Some("application/pkix-crl")));
    assert_eq!(crl.header("cache-control"), Some("public, max-age=100"));
    sallyport_ca::crl::RevocationList::verify(&crl.body, &[root.to_vec()]).expect("signed by the root");
    // Whoever has it asks whether it is still right, and is told so without it.
    let (tag, made) = (crl.header("etag").unwrap(), crl.header("last-modified").unwrap());
    assert_eq!(tag, "W/\"a1\"");
    for (asked, status) in [
        (format!("If-None-Match: {tag}"), 304),
        (format!("If-Modified-Since: {made}"), 304),
        ("If-None-Match: \"a0\"".to_owned(), 200),
    ] {
        let request = format!("GET /ca/root.crl HTTP/1.1\r\nHost: localhost\r\n{asked}\r\n\r\n");
        client.send(request.as_bytes()).await;
        let answer = client.response().await.unwrap();
        assert_eq!((answer.status, answer.body.is_empty()), (status, status == 304), "{asked}");
        assert_eq!(answer.header("etag"), Some(tag));
    }
    assert_eq!(world.endpoint.counts().requests(Service::Crl, Outcome::Ok), 4);
    let cer = client.get("/ca/root.cer").await;
    assert_eq!((cer.header("content-type"), cer.body.as_slice()), (Some("application/pkix-cert"), root));
    let pem = client.get("/ca.pem").await;
    assert_eq!(sallyport_ca::pem::certificates(&pem.body).unwrap(), [root.to_vec()]);
    for nowhere in ["/ca/9.cer", "/ca/9.crl", "/ca/9/1.crl", "/ca/0/0.crl", "/nothing", "/ca/root.crl/"] {
        assert_eq!(client.get(nowhere).await.status, 404, "{nowhere}");
    }
    assert_eq!(client.post("/ca.pem", "", b"x").await.header("allow"), Some("GET"));
    client
        .send(b"HEAD /ca.pem HTTP/1.1\r\nHost: localhost\r\n\r\nGET /ca.pem HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    let text = {
        let mut buffer = vec![0; 1 << 16];
        let mut have = 0;
        while String::from_utf8_lossy(&buffer[..have]).matches("END CERTIFICATE").count() == 0 {
            have += client.stream.read(&mut buffer[have..]).await.unwrap();
        }
        String::from_utf8_lossy(&buffer[..have]).into_owned()
    };
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2);
    assert_eq!(text.matches("BEGIN CERTIFICATE").count(), 1);
}

#[tokio::test]
async fn ocsp_is_asked_in_the_body_or_in_the_path() {
    let world = world();
    let mut client = world.plain().await;
    let asked: Vec<u8> = (0..=255).collect();
    let response = client.post("/ocsp", "Content-Type: application/ocsp-request\r\n", &asked).await;
    assert_eq!((response.header("content-type"), &response.body), (Some("application/ocsp-response"), &asked));
    assert_eq!(response.head.to_lowercase().matches("no-store").count(), 1);
    let text = base64(&asked);
    assert!(text.contains('/') && text.contains('+') && text.ends_with('='));
    let escaped = text.replace('/', "%2F").replace('+', "%2b").replace('=', "%3D");
    for path in [text, escaped] {
        let response = client.get(&format!("/ocsp/{path}")).await;
        assert_eq!((response.status, &response.body), (200, &asked));
        assert_eq!(response.header("cache-control"), Some("public, max-age=60"));
    }
    assert_eq!(client.get("/ocsp/%%%").await.status, 400);
    let error = client.post("/ocsp", "", b"").await;
    assert_eq!(error.header("cache-control"), Some("no-store"));
    assert_eq!(client.post("/ocsp", "", &vec![0; 16 * 1024 + 1]).await.status, 413);
}

#[tokio::test]
async fn scep_is_spoken_over_both_ports_by_get_and_post() {
    let world = world();
    let mut client = world.plain().await;
    let caps = client.get("/scep?operation=GetCACaps&message=unknown-ca").await;
    assert!(caps.text().lines().any(|l| l == "POSTPKIOperation") && caps.text().lines().any(|l| l == "SHA-256"));
    let ca = client.get("/scep?operation=GetCACert").await;
    assert_eq!(ca.header("content-type"), Some("application/x-x509-ca-ra-cert"));
    let message: Vec<u8> = (0..=255).collect();
    let post = client.post("/scep?operation=PKIOperation", "", &message).await;
    assert_eq!((post.header("content-type"), &post.body), (Some("application/x-pki-message"), &message));
    let text = base64(&message);
    for text in [text.replace('+', "%2B"), text.clone(), text.replace('+', "%20")] {
        let get = client.get(&format!("/cgi-bin/pkiclient.exe?operation=PKIOperation&message={text}")).await;
        assert_eq!((get.status, &get.body), (200, &message));
    }
    assert_eq!(client.get("/scep").await.status, 400);
    assert_eq!(client.get("/scep?operation=PKIOperation&message=!").await.status, 400);
    assert_eq!(client.post("/scep?operation=PKIOperation", "", b"bad").await.text(), "no SCEP message\n");
    let mut client = world.tls().await;
    assert_eq!(client.post("/scep?operation=PKIOperation", "", &message).await.body, message);
    let busy = client.post("/scep?operation=PKIOperation", "", b"busy").await;
    assert_eq!((busy.status, busy.header("retry-after")), (503, Some("9")));
}

#[tokio::test]
async fn where_scep_is_off_nothing_of_it_answers() {
    let world = world();
    world.desk().without_scep.store(true, Ordering::Relaxed);
    let mut client = world.plain().await;
    for what in ["GetCACaps", "GetCACert", "PKIOperation&message=AAAA"] {
        let answer = client.get(&format!("/scep?operation={what}")).await;
        assert_eq!((answer.status, answer.text()), (404, "SCEP is off here\n".into()), "{what}");
        client = world.plain().await;
    }
    assert!(!client.get("/").await.text().contains("SCEP"));
}

#[tokio::test]
async fn wrong_challenges_of_scep_count_as_wrong_tokens_do() {
    let world = World::new(Limits::default());
    let mut client = world.plain().await;
    let free = Limits::default().free_tries;
    for _ in 0..free {
        assert_eq!(client.post("/scep?operation=PKIOperation", "", b"guess").await.status, 200);
    }
    let paused = client.post("/scep?operation=PKIOperation", "", b"another").await;
    assert_eq!((paused.status, paused.header("retry-after")), (429, Some("1")));
    // Over HTTPS with EST it is the same source.
    let mut est = world.tls().await;
    assert_eq!(est.enroll("simpleenroll", Some(RIGHT), &csr()).await.status, 429);
    world.clock.advance(Duration::from_secs(2));
    assert_eq!(client.post("/scep?operation=PKIOperation", "", b"another").await.status, 200);
}

#[tokio::test]
async fn the_page_tells_a_person_how_and_carries_nothing_that_runs() {
    let world = world();
    let (mut plain, mut tls) = (world.plain().await, world.tls().await);
    let fingerprint = world.desk().authority.certificate().fingerprint.0;
    let fingerprint: Vec<String> = fingerprint.iter().map(|b| format!("{b:02X}")).collect();
    for page in [plain.get("/").await, tls.get("/").await] {
        assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
        assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'; style-src 'sha256-"));
        assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
        let text = page.text();
        assert!(text.contains(&fingerprint.join(":")) && text.contains("vpn.example.com"), "{text}");
    }
    assert_eq!(plain.get("/").await.header("strict-transport-security"), None);
    assert!(tls.get("/").await.header("strict-transport-security").is_some());
}

#[tokio::test]
async fn wrong_tokens_cost_pauses_in_which_the_office_is_not_asked() {
    let world = World::new(Limits { free_tries: 2, ..Limits::default() });
    let mut client = world.tls().await;
    for _ in 0..2 {
        assert_eq!(client.enroll("simpleenroll", Some("spt1.wrong"), &csr()).await.status, 401);
    }
    let paused = client.enroll("simpleenroll", Some(RIGHT), &csr()).await;
    assert_eq!((paused.status, paused.header("retry-after")), (429, Some("1")));
    assert_eq!((world.desk().asked(), world.endpoint.counts().refused(Limit::WrongTokens)), (2, 1));
    // Whoever shows a certificate tries no token.
    let (der, key) = world.machine();
    let mut renewing = world.tls_as(config(Some((der, &key)))).await.unwrap();
    assert_eq!(renewing.enroll("simplereenroll", None, &csr()).await.status, 200);
    world.clock.advance(Duration::from_secs(1));
    let mut client = world.tls().await;
    assert_eq!(client.enroll("simpleenroll", Some(RIGHT), &csr()).await.status, 200);
    assert_eq!(client.enroll("simpleenroll", Some("spt1.wrong"), &csr()).await.status, 401);
    assert_eq!(client.enroll("simpleenroll", Some(RIGHT), &csr()).await.status, 200);
}

#[tokio::test]
async fn a_source_that_asks_too_often_must_wait_and_others_need_not() {
    let world = World::new(Limits { burst: 5, requests_per_second: 1, ..Limits::default() });
    let mut client = world.plain().await;
    for _ in 0..5 {
        assert_eq!(client.get("/ca.pem").await.status, 200);
    }
    let refused = client.get("/ca.pem").await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    let mut other = Client::new(world.connect(Kind::Plain, 2));
    assert_eq!(other.get("/ca.pem").await.status, 200);
    world.clock.advance(Duration::from_secs(2));
    assert_eq!(world.plain().await.get("/ca.pem").await.status, 200);
    assert_eq!(world.endpoint.counts().requests(Service::Ca, Outcome::Limited), 1);
}

#[tokio::test]
async fn ten_thousand_connections_are_as_many_as_there_are_places() {
    const PLACES: usize = 64;
    let world = World::new(Limits { connections: PLACES, connections_per_source: 8, ..Limits::default() });
    let mut inside = Vec::new();
    for n in 0..PLACES {
        let mut client = Client::new(world.connect(Kind::Plain, u8::try_from(n / 8).unwrap()));
        assert_eq!(client.get("/ca/root.cer").await.status, 200);
        inside.push(client);
    }
    for n in 0..10_000_u32 {
        let (ours, theirs) = tokio::io::duplex(256);
        let source = (std::net::Ipv4Addr::from(0x0a00_0000 + n), 1).into();
        let kind = if n % 2 == 0 { Kind::Plain } else { Kind::Tls };
        serve(theirs, sallyport_endpoint::Arrival { source, kind, via: 0 }, &world.endpoint).await;
        let answer = Client::new(ours).response().await;
        assert_eq!(answer.map(|r| r.status), (kind == Kind::Plain).then_some(503));
    }
    assert_eq!(world.endpoint.counts().refused(Limit::Connections), 10_000);
    assert_eq!(inside[0].get("/ca/root.cer").await.status, 200);
    // A place that is given up is there for somebody else, and one source has only some of them.
    for mut client in inside.drain(..16) {
        client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        assert!(client.response().await.is_some() && client.is_closed().await);
    }
    let mut again = Vec::new();
    while world.endpoint.counts().refused(Limit::SourceConnections) == 0 {
        let mut client = Client::new(world.connect(Kind::Plain, 99));
        client.send(b"GET /ca/root.cer HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        again.push((client.response().await.map(|r| r.status), client));
        assert!(again.len() < 20);
    }
    assert_eq!(again.iter().filter(|(status, _)| *status == Some(200)).count(), 8);
}

#[tokio::test]
async fn whatever_is_too_large_is_refused() {
    let world = world();
    let mut client = world.plain().await;
    let header = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: {}\r\n\r\n", "x".repeat(17 * 1024));
    client.send(header.as_bytes()).await;
    assert_eq!(client.response().await.map(|r| r.status), Some(431));
    let mut client = world.plain().await;
    let many = (0..100).map(|n| format!("X-{n}: 1\r\n")).collect::<String>();
    client.send(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n").as_bytes()).await;
    assert_eq!(client.response().await.map(|r| r.status), Some(431));
    let mut client = world.plain().await;
    let address = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(100_000));
    client.send(address.as_bytes()).await;
    assert!(matches!(client.response().await.map(|r| r.status), Some(414 | 431)));

    let mut client = world.tls().await;
    let large = client.enroll("simpleenroll", Some(RIGHT), &vec![0x30; 64 * 1024 + 1]).await;
    assert_eq!((large.status, large.header("connection")), (413, Some("close")));
    // Nobody waits for a body that is announced too large.
    let mut client = world.tls().await;
    let head = format!(
        "POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n{}\r\n",
        est_headers(Some(RIGHT))
    );
    client.send(head.as_bytes()).await;
    assert_eq!(client.response().await.map(|r| r.status), Some(413));
    // Nor is more read of one that comes in pieces.
    let mut client = world.tls().await;
    let head = head.replace("Content-Length: 99999999999", "Transfer-Encoding: chunked");
    client.send(head.as_bytes()).await;
    for _ in 0..17 {
        client.send(format!("1000\r\n{}\r\n", "x".repeat(0x1000)).as_bytes()).await;
    }
    assert_eq!(client.response().await.map(|r| r.status), Some(413));
    assert_eq!(world.desk().asked(), 0);
}

#[tokio::test]
async fn a_body_in_pieces_is_put_together() {
    let world = world();
    let mut client = world.tls().await;
    let head = format!(
        "POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n{}\r\n",
        est_headers(Some(RIGHT))
    );
    client.send(head.as_bytes()).await;
    for piece in base64(&csr()).as_bytes().chunks(7) {
        client.send(&[format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()).await;
    }
    client.send(b"0\r\n\r\n").await;
    assert_eq!(client.response().await.map(|r| r.status), Some(200));
}

#[tokio::test]
async fn whoever_is_slow_is_not_waited_for() {
    let short = Duration::from_millis(100);
    let world = World::new(Limits { handshake: short, idle: short, ..Limits::default() });
    let mut silent = Client::new(world.connect(Kind::Tls, 1));
    assert!(silent.is_closed().await);
    assert_eq!(world.endpoint.counts().refused(Limit::Handshake), 1);
    let mut slow = world.plain().await;
    slow.send(b"GET / HTTP/1.1\r\nHost: local").await;
    assert!(slow.response().await.is_none_or(|r| r.status == 408));
    let mut idle = world.plain().await;
    idle.send(b"GET /ca/root.cer HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    while let Some(answer) = idle.response().await {
        assert!(matches!(answer.status, 200 | 408));
    }

    let world = World::new(Limits { body_time: short, ..Limits::default() });
    let mut slow = world.plain().await;
    slow.send(b"POST /scep?operation=PKIOperation HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc").await;
    let refused = slow.response().await.unwrap();
    assert_eq!((refused.status, refused.header("connection")), (408, Some("close")));
    assert!(slow.is_closed().await);
}

#[tokio::test]
async fn a_connection_does_not_last_for_ever() {
    let world = World::new(Limits { life: Duration::from_millis(100), ..Limits::default() });
    let mut client = world.plain().await;
    loop {
        client.send(b"GET /ca/root.cer HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        if client.response().await.is_none() {
            break;
        }
        world.clock.advance(Duration::from_secs(1));
    }
}

#[tokio::test]
async fn requests_that_are_sent_ahead_are_answered_in_turn() {
    let world = world();
    let mut client = world.plain().await;
    let paths = ["/ca/root.cer", "/nothing", "/ca.pem", "/ca/root.crl"];
    let ahead: String = paths.iter().map(|p| format!("GET {p} HTTP/1.1\r\nHost: localhost\r\n\r\n")).collect();
    client.send(ahead.as_bytes()).await;
    let mut statuses = Vec::new();
    for _ in paths {
        statuses.push(client.response().await.unwrap().status);
    }
    assert_eq!(statuses, [200, 404, 200, 200]);
}

#[tokio::test]
async fn whoever_closes_his_side_after_asking_is_answered() {
    let world = world();
    let mut client = world.plain().await;
    client.send(b"GET /ca/root.cer HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.response().await.map(|r| r.status), Some(200));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn garbage_ends_the_connection_and_nothing_else() {
    let world = world();
    let mut state = 7_u64;
    let mut noise = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    for n in 0..60_usize {
        let kind = if n % 2 == 0 { Kind::Plain } else { Kind::Tls };
        let mut client = Client::new(world.connect(kind, 1));
        let mut bytes: Vec<u8> = (0..200).map(|_| noise()).collect();
        if n % 3 == 0 {
            bytes.splice(..0, *b"GET / HTTP/1.1\r\n");
        }
        bytes.extend_from_slice(b"\r\n\r\n");
        client.send(&bytes).await;
        let _ = client.stream.shutdown().await; // it may be closed already
        while let Some(answer) = client.response().await {
            assert!(answer.status >= 400, "{}", answer.head);
        }
    }
    assert_eq!(world.plain().await.get("/").await.status, 200);
    // HTTP/2 by prior knowledge, and TLS at the plain port.
    for bytes in [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let mut client = world.plain().await;
        client.send(bytes).await;
        let _ = client.stream.shutdown().await; // it may be closed already
        assert!(client.response().await.is_none_or(|r| r.status >= 400));
    }
}
