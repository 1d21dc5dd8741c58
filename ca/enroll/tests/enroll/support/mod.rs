//! An authority with a root and an issuing CA, and a server that speaks EST for it, or does what a hostile one would.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64ct::{Base64, Encoding as _};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair as RcgenKey, KeyUsagePurpose};
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sallyport_ca::{
    Authority, Certificate, EnrollToken, Fingerprint, KeyAlgorithm, KeyPair, Profile, PublicKey, SecureRandom, Serial,
    Subject, SystemRandom, UnixTime,
};
use sallyport_enroll::{Access, Folder, Identity, Progress, Request, Result, Settings, Surroundings, enroll};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// When all of it happens.
pub(crate) const NOW: i64 = 1_800_000_000;
pub(crate) const DAY: i64 = 86_400;
pub(crate) const NAME: &str = "laptop7.example.com";

/// A clock that tests set.
#[derive(Clone, Debug)]
pub(crate) struct Clock(Arc<AtomicI64>);

impl Clock {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicI64::new(NOW)))
    }

    pub(crate) fn set(&self, seconds: i64) {
        self.0.store(seconds, Ordering::SeqCst);
    }

    pub(crate) fn now(&self) -> UnixTime {
        UnixTime(self.0.load(Ordering::SeqCst))
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<rustls_pki_types::UnixTime> {
        let seconds = u64::try_from(self.now().0).unwrap();
        Some(rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// A machine with a clock of its own, which waits in no time.
pub(crate) struct Machine {
    pub(crate) clock: Clock,
    rng: SystemRandom,
    pub(crate) told: Mutex<Vec<Progress>>,
    pub(crate) paused: Mutex<Vec<Duration>>,
    /// What somebody else does meanwhile.
    pub(crate) meanwhile: Mutex<Option<Box<dyn FnMut() + Send>>>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self {
            clock: Clock::new(),
            rng: SystemRandom::new(),
            told: Mutex::default(),
            paused: Mutex::default(),
            meanwhile: Mutex::default(),
        }
    }
}

impl Surroundings for Machine {
    fn now(&self) -> UnixTime {
        self.clock.now()
    }

    fn rng(&self) -> &dyn SecureRandom {
        &self.rng
    }

    async fn pause(&self, time: Duration) {
        self.paused.lock().unwrap().push(time);
        if let Some(other) = self.meanwhile.lock().unwrap().as_mut() {
            other();
        }
    }

    fn progress(&self, progress: Progress) {
        self.told.lock().unwrap().push(progress);
    }
}

/// A root above an issuing CA.
pub(crate) struct Hierarchy {
    pub(crate) root: Vec<u8>,
    root_params: CertificateParams,
    root_key: RcgenKey,
    pub(crate) issuing: Authority,
}

fn authority_params(name: &str, path: u8, now: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, "Example");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let date = |t| time::OffsetDateTime::from_unix_timestamp(t).unwrap();
    (params.not_before, params.not_after) = (date(now - DAY), date(now + 3650 * DAY));
    params
}

impl Hierarchy {
    pub(crate) fn new() -> Self {
        Self::at(NOW)
    }

    /// Made at this time.
    pub(crate) fn at(now: i64) -> Self {
        let (root_key, key) = (RcgenKey::generate().unwrap(), RcgenKey::generate().unwrap());
        let root_params = authority_params("Example Root", 2, now);
        let root = root_params.self_signed(&root_key).unwrap().der().to_vec();
        let by = Issuer::from_params(&root_params, &root_key);
        let certificate = authority_params("Example Issuing CA 1", 0, now).signed_by(&key, &by).unwrap();
        let key = KeyPair::from_pkcs8_der(&key.serialize_der()).unwrap();
        Self {
            issuing: Authority::from_parts(key, certificate.der()).unwrap(),
            root,
            root_params: root_params.clone(),
            root_key,
        }
    }

    /// A certificate of `of`'s root, signed by this root: what a rollover publishes.
    pub(crate) fn cross(&self, of: &Self) -> Vec<u8> {
        let now = NOW;
        let by = Issuer::from_params(&self.root_params, &self.root_key);
        let mut params = authority_params("Example Root", 1, now);
        params.distinguished_name = of.root_params.distinguished_name.clone();
        params.signed_by(&of.root_key, &by).unwrap().der().to_vec()
    }

    /// Another root of another name with an issuing CA.
    pub(crate) fn next() -> Self {
        let now = NOW;
        let (root_key, key) = (RcgenKey::generate().unwrap(), RcgenKey::generate().unwrap());
        let root_params = authority_params("Example Root G2", 2, now);
        let root = root_params.self_signed(&root_key).unwrap().der().to_vec();
        let by = Issuer::from_params(&root_params, &root_key);
        let certificate = authority_params("Example Issuing CA 2", 0, now).signed_by(&key, &by).unwrap();
        let key = KeyPair::from_pkcs8_der(&key.serialize_der()).unwrap();
        Self { issuing: Authority::from_parts(key, certificate.der()).unwrap(), root, root_params, root_key }
    }

    /// Another issuing CA below the same root.
    pub(crate) fn another_issuing(&self) -> Authority {
        let key = RcgenKey::generate().unwrap();
        let by = Issuer::from_params(&self.root_params, &self.root_key);
        let certificate = authority_params("Example Issuing CA 2", 0, NOW).signed_by(&key, &by).unwrap();
        Authority::from_parts(KeyPair::from_pkcs8_der(&key.serialize_der()).unwrap(), certificate.der()).unwrap()
    }

    pub(crate) fn issue(&self, profile: Profile, name: &str, key: &PublicKey, now: UnixTime, days: u64) -> Certificate {
        let (rng, subject) = (SystemRandom::new(), Subject::new(name, vec![]).unwrap());
        let serial = Serial::generate(&rng).unwrap();
        let life = Duration::from_secs(days * 86_400);
        let prepared = self.issuing.prepare(profile, &subject, key, now, life, serial).unwrap();
        self.issuing.sign(&prepared, &rng).unwrap()
    }

    pub(crate) fn token(&self, server: &str) -> EnrollToken {
        EnrollToken::generate(Fingerprint::of(&self.root).0, server, &SystemRandom::new()).unwrap()
    }

    /// What `cacerts` has: the issuing CA first.
    pub(crate) fn authorities(&self) -> Vec<Vec<u8>> {
        vec![self.issuing.certificate().der().to_vec(), self.root.clone()]
    }
}

/// One request as it was received.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    pub(crate) csr: Vec<u8>,
    pub(crate) certificate: Option<Vec<u8>>,
}

/// What a server does with a request: the bytes of its answer.
pub(crate) type Conduct = Box<dyn FnMut(&Asked) -> Vec<u8> + Send>;

/// A server on a port of its own.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
    conduct: Arc<Mutex<Conduct>>,
}

impl Server {
    /// Serves with a certificate of `of` for `name`.
    pub(crate) async fn start(of: &Hierarchy, name: &str, clock: &Clock, conduct: Conduct) -> Self {
        Self::start_as(Profile::Endpoint, of, name, clock, conduct).await
    }

    /// The same with a certificate of another profile.
    pub(crate) async fn start_as(
        profile: Profile,
        of: &Hierarchy,
        name: &str,
        clock: &Clock,
        conduct: Conduct,
    ) -> Self {
        let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &SystemRandom::new()).unwrap();
        let certificate = of.issue(profile, name, &key.public_key(), clock.now(), 300);
        let chain = [certificate.der().to_vec(), of.issuing.certificate().der().to_vec()];
        let chain = chain.into_iter().map(CertificateDer::from).collect();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(of.root.clone())).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let verifier = verifier.allow_unauthenticated().build().unwrap();
        let config = ServerConfig::builder_with_details(provider, Arc::new(clock.clone()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, PrivateKeyDer::Pkcs8(key.pkcs8_der().to_vec().into()))
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            asked: Arc::default(),
            conduct: Arc::new(Mutex::new(conduct)),
        };
        let (asked, conduct) = (Arc::clone(&server.asked), Arc::clone(&server.conduct));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, asked, conduct) = (acceptor.clone(), Arc::clone(&asked), Arc::clone(&conduct));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(tcp).await else { return };
                    let Some(mut request) = read_request(&mut stream).await else { return };
                    let shown = stream.get_ref().1.peer_certificates();
                    request.certificate = shown.and_then(|c| c.first()).map(|c| c.to_vec());
                    let answer = (conduct.lock().unwrap())(&request);
                    asked.lock().unwrap().push(request);
                    let _ = stream.write_all(&answer).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        server
    }

    pub(crate) fn behave(&self, conduct: Conduct) {
        *self.conduct.lock().unwrap() = conduct;
    }

    /// How a client names it.
    pub(crate) fn name(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    /// The requests to this operation.
    pub(crate) fn requests(&self, operation: &str) -> Vec<Asked> {
        self.asked.lock().unwrap().iter().filter(|a| a.path.ends_with(operation)).cloned().collect()
    }

    /// Whether anybody said a token.
    pub(crate) fn heard_a_token(&self) -> bool {
        self.asked.lock().unwrap().iter().any(|a| a.authorization.is_some())
    }
}

async fn read_request(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<Asked> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let field = |name: &str| {
        head.lines()
            .find_map(|l| l.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.to_owned()))
    };
    let len: usize = field("content-length").map_or(0, |v| v.parse().unwrap());
    while bytes.len() < end + len {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let body = String::from_utf8(bytes[end..].to_vec()).unwrap();
    if len > 0 {
        assert_eq!(field("content-type").as_deref(), Some("application/pkcs10"));
    }
    Some(Asked {
        path: head.split(' ').nth(1).unwrap().to_owned(),
        authorization: field("authorization"),
        csr: Base64::decode_vec(&body).unwrap(),
        certificate: None,
    })
}

/// An answer of HTTP.
pub(crate) fn answer(status: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Certificates as EST carries them.
pub(crate) fn certs<C: AsRef<[u8]>>(list: &[C]) -> Vec<u8> {
    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        let len = content.len();
        let head = if len < 128 { vec![tag, len as u8] } else { vec![tag, 0x82, (len >> 8) as u8, len as u8] };
        [head, content.to_vec()].concat()
    }
    let all: Vec<u8> = list.iter().flat_map(|c| c.as_ref().to_vec()).collect();
    let data = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
    let signed = [vec![2, 1, 1, 0x31, 0], tlv(0x30, &data), tlv(0xa0, &all), vec![0x31, 0]].concat();
    let kind = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];
    let whole = tlv(0x30, &[kind.to_vec(), tlv(0xa0, &tlv(0x30, &signed))].concat());
    answer(
        "200 OK",
        "Content-Type: application/pkcs7-mime; smime-type=certs-only\r\n",
        Base64::encode_string(&whole).as_bytes(),
    )
}

/// An honest office: a token is good for one name, the same request gets the same certificate, a certificate renews itself.
pub(crate) fn honest(of: &Arc<Hierarchy>, token: &EnrollToken, clock: &Clock) -> Conduct {
    let (of, clock, mut issued) = (Arc::clone(of), clock.clone(), BTreeMap::<Vec<u8>, Vec<u8>>::new());
    let password = Base64::encode_string(format!("token:{}", *token.to_text()).as_bytes());
    Box::new(move |asked| {
        if asked.path.ends_with("/cacerts") {
            return certs(&of.authorities());
        }
        let allowed = match &asked.path {
            p if p.ends_with("/simpleenroll") => asked.authorization == Some(format!("Basic {password}")),
            p if p.ends_with("/simplereenroll") => asked.certificate.is_some(),
            _ => return answer("404 Not Found", "", b"no such thing"),
        };
        if !allowed {
            return answer(
                "401 Unauthorized",
                "WWW-Authenticate: Basic realm=\"enroll\"\r\n",
                b"the token is used up\n",
            );
        }
        let key = PublicKey::from_csr_der(&asked.csr).unwrap();
        let certificate = issued
            .entry(asked.csr.clone())
            .or_insert_with(|| of.issue(Profile::Machine, NAME, &key, clock.now(), 30).der().to_vec());
        certs(&[certificate.as_slice()])
    })
}

/// What a first enrollment asks for.
pub(crate) fn request(token: &EnrollToken) -> Request {
    Request {
        access: Access::Token(token.clone()),
        server: None,
        name: None,
        claim: None,
        key: KeyAlgorithm::EcdsaP256,
        key_in: None,
        gateway: None,
        wait: Duration::ZERO,
        waiting: None,
    }
}

/// A world with an honest server.
pub(crate) struct World {
    pub(crate) hierarchy: Arc<Hierarchy>,
    pub(crate) machine: Machine,
    pub(crate) server: Server,
    pub(crate) token: EnrollToken,
    pub(crate) temp: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::named("localhost").await
    }

    /// Whose server has a certificate for `name`.
    pub(crate) async fn named(name: &str) -> Self {
        let (hierarchy, machine) = (Arc::new(Hierarchy::new()), Machine::new());
        let server = Server::start(&hierarchy, name, &machine.clock, Box::new(|_| Vec::new())).await;
        let token = hierarchy.token(&server.name());
        server.behave(honest(&hierarchy, &token, &machine.clock));
        Self { hierarchy, machine, server, token, temp: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn dir(&self) -> std::path::PathBuf {
        self.temp.path().join("enroll")
    }

    pub(crate) fn folder(&self) -> Folder {
        Folder::open(&self.dir()).unwrap()
    }

    pub(crate) async fn enroll(&self) -> Result<(Settings, Identity)> {
        enroll(&self.folder(), &request(&self.token), &self.machine).await
    }

    /// The honest server again.
    pub(crate) fn be_honest(&self) {
        self.server.behave(honest(&self.hierarchy, &self.token, &self.machine.clock));
    }
}

/// All regular files below a folder with their contents, links followed by name only.
pub(crate) fn snapshot(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        let name = entry.file_name().into_string().unwrap();
        if kind.is_dir() {
            all.extend(snapshot(&path).into_iter().map(|(n, c)| (format!("{name}/{n}"), c)));
        } else if kind.is_symlink() {
            all.insert(name, std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes());
        } else {
            all.insert(name, std::fs::read(&path).unwrap());
        }
    }
    all
}
