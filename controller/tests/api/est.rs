//! EST with other people's tools at a port of a gateway, which carries all that comes there to a real controller.

use std::net::SocketAddr;
use std::path::Path;

use sallyport_ca::{Certificate, pem};
use sallyport_controller::Config;
use sallyport_proto::v1;
use tokio::io::copy_bidirectional;
use tokio::net::TcpListener;

use super::enrollment::{NAME, site_with, soon, through, tls};
use super::scep::token;
use super::status::{good, has};
use crate::common::{Site, TestGateway};

/// A site, a gateway of it, and its port.
pub(crate) struct Place {
    pub(crate) site: Site,
    port: u16,
    dir: tempfile::TempDir,
}

pub(crate) fn change(config: &mut Config) {
    // Not every client can be told where a name leads.
    config.enrollment.names.push("localhost".into());
    // The gateway shows no sign of life here.
    config.gateways.timeout_ms = 600_000;
}

impl Place {
    pub(crate) async fn new() -> Self {
        Self::at(site_with(change).await, "gw1").await
    }

    /// With a new gateway of this name.
    async fn at(site: Site, gateway: &str) -> Self {
        Self::at_with(site, gateway, tempfile::tempdir().expect("temporary folder")).await
    }

    /// The folder, and the site.
    pub(crate) fn leave(self) -> (tempfile::TempDir, Site) {
        (self.dir, self.site)
    }

    /// The same in a folder that there is.
    pub(crate) async fn at_with(site: Site, gateway: &str, dir: tempfile::TempDir) -> Self {
        let gateway = site.gateway(gateway).await;
        soon(async || {
            let stream = through(&gateway, v1::EnrollmentPort::Https).await.expect("is carried");
            tls(&site.running, stream).await.ok()
        })
        .await;
        let root = pem::encode("CERTIFICATE", &site.running.root_certificate());
        std::fs::write(dir.path().join("root.pem"), root.as_bytes()).expect("writes");
        Self { port: door(gateway).await.port(), site, dir }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn certificate(&self, file: &str) -> Certificate {
        Certificate::from_pem(&std::fs::read(self.folder().join(file)).expect("there")).expect("a certificate")
    }

    /// What curl sends to an operation, and where the answer goes: head and body. It asks again where the endpoint is busy: the same
    /// question has the same answer.
    fn curl(&self, operation: &str, credentials: &str, request: &str) -> String {
        format!(
            "curl -sS --max-time 60 --retry 5 --retry-all-errors --resolve {NAME}:{port}:127.0.0.1 --cacert root.pem {credentials} -D head -o body \
             -w '%{{http_code}}' {request} https://{NAME}:{port}/.well-known/est/{operation}",
            port = self.port
        )
    }

    /// The status that a request in a file gets.
    pub(crate) async fn post(&self, operation: &str, credentials: &str, request: &str) -> String {
        let sends = format!("-H 'Content-Type: application/pkcs10' --data-binary @{request}");
        good(self.folder(), &self.curl(operation, credentials, &sends)).await
    }

    fn head(&self) -> String {
        String::from_utf8(std::fs::read(self.folder().join("head")).expect("there")).expect("text").to_lowercase()
    }

    /// The token in a file that curl reads: a command line is no place for it.
    pub(crate) async fn credentials(&self, name: &str) -> String {
        let text = format!("user = \":{}\"\n", token(&self.site, name).await);
        std::fs::write(self.folder().join("credentials"), text).expect("writes");
        "--config credentials".into()
    }

    /// A key and a request that claims another name.
    pub(crate) async fn request(&self, name: &str) {
        let new = "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=boss.example.com -outform der";
        good(self.folder(), &format!("set -o pipefail; {new} -keyout {name}.key | base64 -w0 > {name}.csr")).await;
    }

    pub(crate) async fn unpack(&self, name: &str) {
        let unpack = "set -o pipefail; base64 -d body | openssl pkcs7 -inform der -print_certs -out";
        good(self.folder(), &format!("{unpack} {name}.pem")).await;
    }
}

/// A port of the gateway: whoever connects is carried.
async fn door(gateway: TestGateway) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((mut outside, _)) = listener.accept().await {
            let Ok(mut inside) = through(&gateway, v1::EnrollmentPort::Https).await else { continue };
            tokio::spawn(async move { copy_bidirectional(&mut outside, &mut inside).await });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_enrolls_renews_has_a_key_made_and_waits_for_an_operator_at_a_gateway() {
    if !has(&[("curl", "curl"), ("openssl", "openssl")]) {
        return;
    }
    let place = Place::new().await;
    let folder = place.folder();
    let mut operator = place.site.operator().await;
    for operation in ["cacerts", "csrattrs"] {
        assert_eq!(good(folder, &place.curl(operation, "", "")).await, "200");
        good(folder, &format!("base64 -d body > {operation}")).await;
    }
    let authorities = good(folder, "openssl pkcs7 -inform der -in cacerts -print_certs | tee authorities.pem").await;
    assert_eq!(authorities.matches("BEGIN CERTIFICATE").count(), 2, "an issuing authority and the root: {authorities}");
    let kinds = good(folder, "openssl asn1parse -inform der -in csrattrs").await;
    assert!(kinds.contains(":id-ecPublicKey") && kinds.contains(":rsaEncryption"), "{kinds}");

    // By a token, whatever the request says, and then by the certificate.
    place.request("first").await;
    let credentials = place.credentials("laptop7.example.com").await;
    assert_eq!(place.post("simpleenroll", &credentials, "first.csr").await, "200");
    place.unpack("first").await;
    place.request("second").await;
    assert_eq!(place.post("simplereenroll", "--cert first.pem --key first.key", "second.csr").await, "200");
    place.unpack("second").await;
    for name in ["first", "second"] {
        let certificate = place.certificate(&format!("{name}.pem"));
        assert!(certificate.names_host("laptop7.example.com") && !certificate.names_host("boss.example.com"));
        let same = "diff <(openssl x509 -in NAME.pem -noout -pubkey) <(openssl pkey -in NAME.key -pubout)";
        good(folder, &same.replace("NAME", name)).await;
        let verify = "openssl verify -x509_strict -CAfile root.pem -untrusted authorities.pem -purpose sslclient";
        good(folder, &format!("{verify} {name}.pem")).await;
    }
    assert_ne!(place.certificate("first.pem").serial, place.certificate("second.pem").serial);

    // A key of the controllers, once operators allow that: it fits the certificate, and nobody gets it without a token.
    let credentials = place.credentials("sensor1.example.com").await;
    assert_eq!(place.post("serverkeygen", &credentials, "first.csr").await, "403", "it is off");
    let profiles = operator.list_profiles(v1::ListProfilesRequest {}).await.expect("lists").into_inner().profiles;
    let machine = profiles.into_iter().find(|profile| profile.name == "machine").expect("there is one");
    let wider = v1::SetProfileRequest { profile: Some(v1::Profile { server_keys: true, ..machine }) };
    operator.set_profile(wider).await.expect("sets");
    assert_ne!(place.post("serverkeygen", "", "first.csr").await, "200", "nobody showed anything");
    assert_eq!(place.post("serverkeygen", &credentials, "first.csr").await, "200");
    let body = std::fs::read_to_string(folder.join("body")).expect("text");
    let part = |kind: &str| {
        let (_, after) = body.split_once(kind).unwrap_or_else(|| panic!("no {kind} in {}", body.len()));
        let (_, content) = after.split_once("\r\n\r\n").expect("a part");
        content.split_once("\r\n--").expect("its end").0.to_owned()
    };
    assert!(place.head().contains("multipart/mixed"));
    for (kind, file) in [("application/pkcs8", "made.key"), ("application/pkcs7-mime", "body")] {
        std::fs::write(folder.join(file), part(kind)).expect("writes");
    }
    place.unpack("made").await;
    let made = place.certificate("made.pem");
    assert!(made.names_host("sensor1.example.com") && made.spki_der() != place.certificate("first.pem").spki_der());
    let same =
        "diff <(openssl x509 -in made.pem -noout -pubkey) <(base64 -d made.key | openssl pkey -inform der -pubout)";
    good(folder, same).await;

    // Nobody knows this machine: it is asked for a token, as many clients say theirs only then (RFC 7030 §3.2.3). Whoever has none is
    // told when to ask again, and gets its certificate once an operator has named it.
    place.request("third").await;
    assert_eq!(place.post("simpleenroll", "", "third.csr").await, "401");
    assert!(place.head().contains("www-authenticate: basic "), "{}", place.head());
    let empty = operator.list_requests(v1::ListRequestsRequest::default()).await.expect("lists").into_inner();
    assert_eq!(empty.requests.len(), 0);
    for credentials in ["-u :", "-u :", ""] {
        assert_eq!(place.post("simpleenroll", credentials, "third.csr").await, "202");
        let head = place.head();
        let after = head.lines().find_map(|line| line.strip_prefix("retry-after: ")).expect("when to ask again");
        assert!(after.trim().parse::<u32>().is_ok_and(|seconds| seconds > 0), "{head}");
    }
    let digest = "openssl pkey -in third.key -pubout -outform der | sha256sum";
    let digest = good(folder, digest).await;
    let listed = v1::ListRequestsRequest { waiting_only: true, page_size: 100, ..Default::default() };
    let requests = operator.list_requests(listed).await.expect("lists").into_inner().requests;
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let ours: Vec<_> = requests.iter().filter(|r| digest.starts_with(&hex(&r.key_sha256))).collect();
    assert_eq!((ours.len(), requests.len()), (1, 1), "asked twice, it waits once: {requests:?}");
    let approve = v1::DecideRequestRequest {
        number: ours[0].number,
        approve: true,
        name: "laptop9.example.com".into(),
        ..Default::default()
    };
    operator.decide_request(approve).await.expect("approves");
    assert_eq!(place.post("simpleenroll", "", "third.csr").await, "200");
    place.unpack("third").await;
    assert!(place.certificate("third.pem").names_host("laptop9.example.com"));

    // The token is used up by whoever says it when asked, at once.
    place.request("asked").await;
    let asked = format!("--anyauth {}", place.credentials("laptop10.example.com").await);
    assert_eq!(place.post("simpleenroll", &asked, "asked.csr").await, "200");
    place.unpack("asked").await;
    assert!(place.certificate("asked.pem").names_host("laptop10.example.com"));

    // What is not good opens nothing, and the token that was used is used up.
    place.request("fourth").await;
    for wrong in ["-u :spt1.wrong", &*credentials] {
        assert_eq!(place.post("simpleenroll", wrong, "fourth.csr").await, "401", "{wrong}");
    }
    place.site.running.shutdown().await;
}

/// Where Debian puts what the Java program needs.
const JARS: [&str; 3] = ["/usr/share/java/bcpkix.jar", "/usr/share/java/bcprov.jar", "/usr/share/java/bcutil.jar"];

#[tokio::test(flavor = "multi_thread")]
async fn bouncy_castle_enrolls_renews_is_refused_and_put_off_at_a_gateway() {
    if !has(&[("java", "openjdk-17-jdk-headless"), ("openssl", "openssl")]) {
        return;
    }
    if !JARS.iter().all(|jar| Path::new(jar).exists()) {
        use std::io::Write as _;
        let why = b"\nskipped: enrollment with Bouncy Castle: it is not installed (Debian: libbcpkix-java)\n";
        let _ = std::io::stderr().write_all(why);
        return;
    }
    let place = Place::new().await;
    let first = token(&place.site, "laptop7.example.com").await;
    // The same with another secret.
    let other = token(&place.site, "laptop8.example.com").await;
    let (head, tail) = other.split_at(30);
    let wrong = format!("{head}{}{}", if tail.starts_with('A') { 'B' } else { 'A' }, &tail[1..]);
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/../ca/endpoint/tests/common/Est.java");
    // It runs for a second: no need to compile it well.
    let java = format!("java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto -cp {}", JARS.join(":"));
    let line = format!("{java} '{program}' localhost:{} root.pem {first} {wrong} ''", place.port);
    let said = good(place.folder(), &line).await;
    let lines: Vec<&str> = said.lines().collect();
    for line in ["cacerts 2", "csrattr 1.2.840.10045.2.1", "csrattr 1.2.840.113549.1.1.1", "refused 401", "later true"]
    {
        assert!(lines.contains(&line), "{line}: {said}");
    }
    let [one, two] = ["first.pem", "second.pem"].map(|file| place.certificate(file));
    assert!(one.serial != two.serial && [&one, &two].iter().all(|c| c.names_host("laptop7.example.com")));
    place.site.running.shutdown().await;
}
