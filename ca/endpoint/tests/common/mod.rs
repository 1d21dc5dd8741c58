//! An office that really issues, and a client that writes what it likes.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime as TlsTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use sallyport_ca::scep::{self, FailInfo, Outcome, RaIdentity};
use sallyport_ca::seal::SealKey;
use sallyport_ca::{
    AltName, Authority, Certificate, KeyAlgorithm, KeyPair, Profile, PublicKey, RootConfig, Serial, Subject,
    SystemRandom, UnixTime,
};
use sallyport_endpoint::{
    Answer, Arrival, Clock, Crl, Endpoint, Enrollment, Kind, Limits, Office, Proof, Protocol, ScepAnswer, serve,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The tokens that the office knows.
pub(crate) const RIGHT: &str = "spt1.right";
pub(crate) const PENDING: &str = "spt1.pending";
pub(crate) const FORBIDDEN: &str = "spt1.forbidden";
pub(crate) const BUSY: &str = "spt1.busy";

/// A clock that the test moves.
#[derive(Debug)]
pub(crate) struct Hands(Mutex<Duration>, UnixTime);

impl Hands {
    pub(crate) fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

impl Clock for Hands {
    fn monotonic(&self) -> Duration {
        *self.0.lock().unwrap()
    }
    fn unix(&self) -> UnixTime {
        self.1
    }
}

/// The office: one CA, four tokens.
pub(crate) struct Desk {
    pub(crate) authority: Authority,
    now: UnixTime,
    /// What was asked: protocol, proof, source.
    pub(crate) asked: Mutex<Vec<(Protocol, Proof, IpAddr)>>,
    issued: Mutex<Vec<Vec<u8>>>,
    /// With it SCEP is answered, without it said back.
    ra: OnceLock<RaIdentity>,
    /// SCEP is off.
    pub(crate) without_scep: AtomicBool,
}

impl Desk {
    /// Makes an RA.
    pub(crate) fn open_scep(&self) {
        let (rng, day) = (SystemRandom::new(), Duration::from_secs(86_400));
        let (key, serial) = (KeyPair::generate(KeyAlgorithm::Rsa2048, &rng).unwrap(), Serial::generate(&rng).unwrap());
        let issued = self.authority.issue_scep_ra("SCEP RA", &key.public_key(), self.now, day, serial, &rng).unwrap();
        let chain = vec![self.authority.certificate().der().to_vec()];
        assert!(self.ra.set(RaIdentity::new(key, issued.der(), chain).unwrap()).is_ok());
    }

    async fn answer_scep(&self, ra: &RaIdentity, message: &[u8], source: IpAddr) -> ScepAnswer {
        let rng = SystemRandom::new();
        let request = match scep::open(message, ra, &rng) {
            Ok(request) => request,
            Err(failure) => {
                return match failure.reply(ra, &rng) {
                    Some(der) => ScepAnswer::Reply { der, token: None },
                    None => ScepAnswer::Invalid(failure.to_string()),
                };
            }
        };
        let token = request.challenge.is_some();
        let proof = match &request.challenge {
            Some(token) => Proof::Token(token.clone()),
            None => Proof::Certificate(request.signer.clone()),
        };
        let enrollment = Enrollment { protocol: Protocol::Scep, proof, csr: request.csr.clone(), source };
        let refused = |text| Outcome::Failure { info: FailInfo::BadRequest, text };
        let outcome = match self.enroll(enrollment).await {
            Answer::Issued { certificate, chain, .. } => Outcome::Success { certificate, chain },
            Answer::Pending { .. } => Outcome::Pending,
            Answer::Denied { text, .. } | Answer::Invalid(text) => refused(text),
            Answer::Busy { retry_after } => return ScepAnswer::Busy { retry_after },
        };
        let der = scep::reply(&request, &outcome, ra, &rng).unwrap();
        ScepAnswer::Reply { der, token: token.then_some(!matches!(outcome, Outcome::Failure { .. })) }
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn issue(&self, key: &PublicKey) -> Vec<u8> {
        let subject = Subject::new("laptop7.example.com", vec![]).unwrap();
        let (serial, rng) = (Serial::generate(&SystemRandom::new()).unwrap(), SystemRandom::new());
        let issued = self.authority.issue(Profile::Machine, &subject, key, self.now, serial, &rng).unwrap();
        self.issued.lock().unwrap().push(issued.der().to_vec());
        issued.der().to_vec()
    }
}

impl Office for Desk {
    async fn enroll(&self, request: Enrollment) -> Answer {
        let Enrollment { protocol, proof, csr, source } = request;
        self.asked.lock().unwrap().push((protocol, proof.clone(), source));
        let again = Duration::from_millis(90_500);
        match &proof {
            Proof::Token(token) if **token == *RIGHT => {}
            Proof::Token(token) if **token == *PENDING => {
                return Answer::Pending { retry_after: again, text: "waits for\napproval".into() };
            }
            Proof::Token(token) if **token == *FORBIDDEN => {
                return Answer::Denied { text: "not this machine".into(), authenticate: false };
            }
            Proof::Token(token) if **token == *BUSY => return Answer::Busy { retry_after: again },
            Proof::Certificate(der) => {
                if !self.issued.lock().unwrap().contains(der) {
                    return Answer::Denied { text: "unknown certificate".into(), authenticate: true };
                }
            }
            Proof::Token(_) | Proof::Nothing | Proof::Unasked => {
                return Answer::Denied { text: "a token is needed".into(), authenticate: true };
            }
        }
        let key = match PublicKey::from_csr_der(&csr) {
            Ok(key) => key,
            Err(e) => return Answer::Invalid(e.to_string()),
        };
        let chain = vec![self.authority.certificate().der().to_vec()];
        if protocol == Protocol::EstServerKey {
            let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &SystemRandom::new()).unwrap();
            let private_key = Some(key.pkcs8_der().to_vec().into());
            return Answer::Issued { certificate: self.issue(&key.public_key()), chain, private_key };
        }
        Answer::Issued { certificate: self.issue(&key), chain, private_key: None }
    }

    fn authorities(&self) -> Vec<Vec<u8>> {
        vec![self.authority.certificate().der().to_vec()]
    }

    fn authority(&self, issuer: u64) -> Option<Vec<u8>> {
        (issuer == 0).then(|| self.authority.certificate().der().to_vec())
    }

    async fn crl(&self, issuer: u64, shard: Option<u32>) -> Option<Crl> {
        let der = self.authority.revocation_list("urn:test", 0xa1, &[], self.now, &SystemRandom::new()).unwrap();
        let (this_update, next_update) = (self.now, UnixTime(self.now.0 + 100));
        (issuer == 0 && shard.is_none()).then_some(Crl { der: der.into(), number: 0xa1, this_update, next_update })
    }

    async fn delta_crl(&self, _: u64, _: Option<u32>) -> Option<Crl> {
        None
    }

    /// Says back what was asked.
    async fn ocsp(&self, request: Vec<u8>) -> Vec<u8> {
        if request.is_empty() { vec![0x30, 3, 0x0a, 1, 1] } else { request }
    }

    fn scep_ca(&self) -> Option<Vec<Vec<u8>>> {
        if self.without_scep.load(Ordering::Relaxed) {
            return None;
        }
        let root = self.authority.certificate().der().to_vec();
        let first = self.ra.get().map_or(root.clone(), |ra| ra.certificate().to_vec());
        Some(vec![first, root])
    }

    async fn scep(&self, message: Vec<u8>, source: IpAddr) -> ScepAnswer {
        if let Some(ra) = self.ra.get() {
            return self.answer_scep(ra, &message, source).await;
        }
        match message.as_slice() {
            b"bad" => ScepAnswer::Invalid("no SCEP message".into()),
            b"busy" => ScepAnswer::Busy { retry_after: Duration::from_secs(9) },
            b"guess" => ScepAnswer::Reply { der: message, token: Some(false) },
            _ => ScepAnswer::Reply { der: message, token: None },
        }
    }

    fn names(&self) -> Vec<String> {
        vec!["vpn.example.com".into()]
    }
}

/// An endpoint with a certificate for localhost.
pub(crate) struct World {
    pub(crate) endpoint: Arc<Endpoint<Desk>>,
    pub(crate) clock: Arc<Hands>,
}

/// The time of day where a client with a clock of its own must agree.
#[allow(clippy::disallowed_methods, reason = "no clock module in a test")]
fn wall() -> UnixTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    UnixTime(i64::try_from(since.as_secs()).unwrap())
}

impl World {
    pub(crate) fn new(limits: Limits) -> Self {
        let now = wall();
        let (rng, clock) = (SystemRandom::new(), Arc::new(Hands(Mutex::new(Duration::from_secs(1_000)), now)));
        let seal = SealKey::generate(&rng).unwrap();
        let (authority, _) = Authority::create(&RootConfig::new("Example", "Example Root"), &seal, now, &rng).unwrap();
        let desk = Arc::new(Desk {
            authority,
            now,
            asked: Mutex::default(),
            issued: Mutex::default(),
            ra: OnceLock::new(),
            without_scep: AtomicBool::new(false),
        });
        let endpoint = Arc::new(Endpoint::new(desk, clock.clone(), limits).unwrap());
        let world = Self { endpoint, clock };
        world.swap_certificate();
        world
    }

    pub(crate) fn desk(&self) -> &Desk {
        self.endpoint.office()
    }

    /// Gives the endpoint a new certificate; its serial number is returned.
    pub(crate) fn swap_certificate(&self) -> Serial {
        let (rng, desk) = (SystemRandom::new(), self.desk());
        let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng).unwrap();
        let names = vec![AltName::Dns("localhost".into()), AltName::Ip("127.0.0.1".parse().unwrap())];
        let subject = Subject::new("localhost", names).unwrap().with_addresses_as_dns();
        let serial = Serial::generate(&rng).unwrap();
        let issued =
            desk.authority.issue(Profile::Controller, &subject, &key.public_key(), desk.now, serial, &rng).unwrap();
        self.endpoint.set_certificate(&[issued.der().to_vec()], key.pkcs8_der()).unwrap();
        issued.serial
    }

    /// A machine's certificate and its key.
    pub(crate) fn machine(&self) -> (Vec<u8>, KeyPair) {
        let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &SystemRandom::new()).unwrap();
        (self.desk().issue(&key.public_key()), key)
    }

    /// A connection from 192.0.2.`host`.
    pub(crate) fn connect(&self, kind: Kind, host: u8) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(1 << 17);
        self.serve(theirs, kind, host);
        ours
    }

    /// The same over a stream that is already there.
    pub(crate) fn serve<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(&self, stream: S, kind: Kind, host: u8) {
        let arrival = Arrival { source: ([192, 0, 2, host], 4711).into(), kind, via: 0 };
        let endpoint = self.endpoint.clone();
        tokio::spawn(async move { serve(stream, arrival, &endpoint).await });
    }

    pub(crate) async fn plain(&self) -> Client<DuplexStream> {
        Client::new(self.connect(Kind::Plain, 1))
    }

    pub(crate) async fn tls(&self) -> Client<TlsStream<DuplexStream>> {
        self.tls_as(config(None)).await.expect("TLS comes up")
    }

    pub(crate) async fn tls_as(&self, config: ClientConfig) -> std::io::Result<Client<TlsStream<DuplexStream>>> {
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("localhost").unwrap();
        Ok(Client::new(connector.connect(name, self.connect(Kind::Tls, 1)).await?))
    }
}

/// TLS that trusts anybody and shows this certificate.
pub(crate) fn config(identity: Option<(Vec<u8>, &KeyPair)>) -> ClientConfig {
    config_of(identity, &[&rustls::version::TLS13, &rustls::version::TLS12])
}

pub(crate) fn config_of(
    identity: Option<(Vec<u8>, &KeyPair)>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    match identity {
        None => builder.with_no_client_auth(),
        Some((der, key)) => {
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.pkcs8_der().to_vec()));
            let signer = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
            // Not looked at whether they belong together.
            let shown = rustls::sign::CertifiedKey::new(vec![der.into()], signer);
            builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(shown)))
        }
    }
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: TlsTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A client that writes what it likes.
pub(crate) struct Client<S> {
    pub(crate) stream: S,
    read: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, read: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await; // it may be closed already: the answer says why
        let _ = self.stream.flush().await;
    }

    /// The next answer; `None` if the connection ends first.
    pub(crate) async fn response(&mut self) -> Option<Response> {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if self.fill().await == 0 {
                return None;
            }
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).unwrap();
        let status = head.get(9..12)?.parse().ok()?;
        let mut response = Response { status, head, body: Vec::new() };
        let len: usize = response.header("content-length").map_or(0, |v| v.parse().unwrap());
        while self.read.len() < len {
            assert_ne!(self.fill().await, 0, "the answer breaks off");
        }
        response.body = self.read.drain(..len).collect();
        Some(response)
    }

    async fn fill(&mut self) -> usize {
        let mut buffer = vec![0; 1 << 16];
        let n = self.stream.read(&mut buffer).await.unwrap_or(0);
        self.read.extend_from_slice(&buffer[..n]);
        n
    }

    /// Whether the server ends it; waits until it does.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.read.is_empty() && self.fill().await == 0
    }

    pub(crate) async fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await;
        self.response().await.expect("an answer")
    }

    pub(crate) async fn post(&mut self, path: &str, headers: &str, body: &[u8]) -> Response {
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
        self.send(&[head.as_bytes(), body].concat()).await;
        self.response().await.expect("an answer")
    }

    pub(crate) async fn enroll(&mut self, operation: &str, token: Option<&str>, body: &[u8]) -> Response {
        self.post(&format!("/.well-known/est/{operation}"), &est_headers(token), body).await
    }
}

pub(crate) fn est_headers(token: Option<&str>) -> String {
    let mut headers = "Content-Type: application/pkcs10\r\n".to_owned();
    if let Some(token) = token {
        headers += &format!("Authorization: Basic {}\r\n", base64(format!("anyone:{token}").as_bytes()));
    }
    headers
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    // The one that is here already: PEM without its frame.
    let pem = sallyport_ca::pem::encode("X", bytes);
    pem.lines().filter(|line| !line.starts_with("--")).collect()
}

/// A request for the name `stolen.example.com` in DER, made by OpenSSL once: P-256.
pub(crate) fn csr() -> Vec<u8> {
    sallyport_ca::pem::request(include_bytes!("request.pem")).unwrap()
}

/// The public key of that request.
pub(crate) fn csr_key() -> Vec<u8> {
    PublicKey::from_csr_der(&csr()).unwrap().spki_der().to_vec()
}

/// The certificates (DER) of a certs-only message in base64, by looking for them.
pub(crate) fn certificates(body: &[u8]) -> Vec<Certificate> {
    let text = std::str::from_utf8(body).unwrap();
    assert!(!text.contains(char::is_whitespace), "base64 must not be wrapped");
    let pem = format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n");
    let der = sallyport_ca::pem::request(pem.as_bytes()).unwrap();
    (0..der.len())
        .filter_map(|at| {
            let len = usize::from(u16::from_be_bytes([*der.get(at + 2)?, *der.get(at + 3)?])) + 4;
            (der[at..].starts_with(&[0x30, 0x82]))
                .then(|| der.get(at..at + len))?
                .and_then(|der| Certificate::from_der(der).ok())
        })
        .collect()
}
