//! What clients do all the while: sessions come and go, a register is changed, certificates are issued, lists are read at every
//! member. Whatever is not answered is asked again under the same id.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sallyport_controller::Clock;
use sallyport_crypto::mschap;
use sallyport_proto::failover::{Failover, REQUEST_ID};
use sallyport_proto::v1;
use sallyport_proto::v1::gateway_client::GatewayClient;
use sallyport_proto::v1::operator_client::OperatorClient;
use tokio::time::{Instant, sleep};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

use super::history::{Event, History, Last, Row};
use super::lab::slow_set;

/// Clients that open and end sessions.
const SESSIONS: u64 = 4;
/// Clients that change the register, and that list sessions.
const OTHERS: u64 = 2;
/// About every tenth session stays, to be found at the end, up to so many: lists remain short.
const STAY: u64 = 300;
/// What the time in a certificate is off at most: a clock that is set by an hour must not show in it.
const WRONG_MS: u64 = 600_000;
/// Pause before asking again.
const AGAIN: Duration = Duration::from_millis(20);
/// How long a call at one member may take.
const CALL: Duration = Duration::from_secs(4);

/// Everything that clients need.
pub(crate) struct World {
    pub(crate) gateway: GatewayClient<Failover>,
    pub(crate) member: v1::Member,
    /// The operator at each member by itself: for reads that must be the same everywhere.
    readers: Mutex<Vec<(u32, OperatorClient<Channel>)>>,
    pub(crate) history: History,
    stop: AtomicBool,
    issues_once: AtomicBool,
    next: AtomicU64,
    acknowledged: AtomicU64,
    /// Sessions that were left open.
    stayed: AtomicU64,
    failed: AtomicU64,
    rhythm: Mutex<Rhythm>,
}

/// When sessions were acknowledged.
#[derive(Clone, Copy, Debug)]
struct Rhythm {
    last: Instant,
    longest: Duration,
}

/// The next of a sequence without a pattern.
pub(crate) fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

/// A connection that is made when it is used and given up when nothing answers.
pub(crate) fn lazy(address: std::net::SocketAddr, tls: ClientTlsConfig) -> Channel {
    let endpoint =
        Endpoint::from_shared(format!("https://{address}")).expect("an address").tls_config(tls).expect("TLS");
    endpoint
        .connect_timeout(Duration::from_secs(1))
        .timeout(CALL)
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(2))
        .keep_alive_while_idle(true)
        .connect_lazy()
}

fn question(member: v1::Member, number: u64) -> v1::AuthenticateRequest {
    use v1::authenticate_request::Method;
    let nt_response = mschap::generate_nt_response(&[1; 16], &[2; 16], "ada", "open sesame").to_vec();
    let method = Method::Mschapv2(v1::MsChapV2 {
        authenticator_challenge: vec![1; 16],
        peer_challenge: vec![2; 16],
        nt_response,
        identifier: 1,
    });
    v1::AuthenticateRequest {
        member: Some(member),
        request_id: u128::from(number).to_be_bytes().to_vec(),
        user: "ada".into(),
        method: Some(method),
        session_key: number,
        remote: format!("198.{}.{}.{}:4500", number >> 16 & 0xff, number >> 8 & 0xff, number & 0xff),
        ..Default::default()
    }
}

/// The number of the question that a listed session was opened by.
fn number_of(remote: &str) -> u64 {
    let address = remote.split(':').next().unwrap_or_default();
    address.split('.').skip(1).fold(0, |n, byte| n << 8 | byte.parse::<u64>().unwrap_or_default())
}

/// Whether an answer says that there was none.
pub(crate) fn passes(status: &Status) -> bool {
    let broken = std::error::Error::source(status).is_some(); // no controller has said this
    broken || matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
}

/// A certificate for a machine, asked for under a request's number.
pub(crate) async fn ask_for_certificate(
    mut client: OperatorClient<Channel>,
    name: &str,
    number: u64,
) -> Result<v1::IssueCertificateResponse, Status> {
    let request = v1::IssueCertificateRequest {
        profile: v1::CertificateProfile::Machine.into(),
        name: name.into(),
        key_algorithm: v1::KeyAlgorithm::EcdsaP256.into(),
        ..Default::default()
    };
    Ok(client.issue_certificate(with_id(request, number)).await?.into_inner())
}

/// A request of this number.
pub(crate) fn with_id<T>(message: T, number: u64) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(REQUEST_ID, format!("{number:032x}").parse().expect("text"));
    request
}

impl World {
    /// A world with its history begun.
    pub(crate) fn new(gateway: GatewayClient<Failover>, member: v1::Member) -> Arc<Self> {
        Arc::new(Self {
            gateway,
            member,
            readers: Mutex::default(),
            history: History::default(),
            stop: AtomicBool::new(false),
            issues_once: AtomicBool::new(false),
            next: AtomicU64::new(1),
            acknowledged: AtomicU64::new(0),
            stayed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            rhythm: Mutex::new(Rhythm { last: Instant::now(), longest: Duration::ZERO }),
        })
    }

    /// A number that nobody else has.
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// From now on `number` is asked too.
    pub(crate) fn add_reader(&self, number: u32, client: OperatorClient<Channel>) {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).push((number, client));
    }

    /// From now on `number` is not asked.
    pub(crate) fn remove_reader(&self, number: u32) {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).retain(|(n, _)| *n != number);
    }

    /// The operator at every member.
    pub(crate) fn readers(&self) -> Vec<(u32, OperatorClient<Channel>)> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The operator at one member.
    pub(crate) fn reader(&self, number: u32) -> OperatorClient<Channel> {
        self.readers().into_iter().find(|(n, _)| *n == number).expect("a member").1
    }

    fn some_reader(&self, seed: &mut u64) -> (u32, OperatorClient<Channel>) {
        let mut readers = self.readers();
        readers.swap_remove(usize::try_from(random(seed)).unwrap_or(0) % readers.len())
    }

    /// Sessions acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Calls of gateways so far that had no answer from any controller, however often it was tried.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    fn rhythm(&self) -> MutexGuard<'_, Rhythm> {
        self.rhythm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The longest time in which no session was acknowledged, since this was asked last.
    pub(crate) fn longest_stall(&self) -> Duration {
        let mut rhythm = self.rhythm();
        let longest = rhythm.longest.max(rhythm.last.elapsed());
        rhythm.longest = Duration::ZERO;
        longest
    }

    fn note_answer(&self) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        let mut rhythm = self.rhythm();
        rhythm.longest = rhythm.longest.max(rhythm.last.elapsed());
        rhythm.last = Instant::now();
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Starts all clients.
    pub(crate) fn start(self: &Arc<Self>, tasks: &mut tokio::task::JoinSet<()>) {
        self.rhythm().last = Instant::now();
        // The quick set shares two processors with the rest of its cluster and with another test.
        let pause = if slow_set() { 10 } else { 200 };
        for n in 0..SESSIONS + 2 * OTHERS + 1 {
            let world = self.clone();
            tasks.spawn(async move {
                let mut seed = 0x5eed + n;
                while !world.stopped() {
                    if n < SESSIONS {
                        world.session(&mut seed).await;
                        sleep(Duration::from_millis(pause)).await;
                    } else if n < SESSIONS + OTHERS {
                        world.change(&mut seed).await;
                        sleep(Duration::from_millis(2 * pause)).await;
                    } else if n < SESSIONS + 2 * OTHERS {
                        world.list(&mut seed).await;
                        sleep(Duration::from_millis(2 * pause)).await;
                    } else {
                        world.issue(&mut seed).await;
                        sleep(Duration::from_millis(3 * pause)).await;
                    }
                }
            });
        }
    }

    /// Ends all clients.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// An answer that nobody should get, if there was one: clients have ended then.
    pub(crate) fn oddity(&self) -> Option<String> {
        let odd = |event: Event| if let Event::Odd { what } = event { Some(what) } else { None };
        if self.stopped() { self.history.events().into_iter().find_map(odd) } else { None }
    }

    fn odd(&self, what: String) {
        self.history.note(Event::Odd { what });
        self.stop();
    }

    /// After a call that failed: whether to ask again.
    async fn again(&self, what: &str, status: &Status) -> bool {
        if !passes(status) {
            self.odd(format!("{what}: {:?}: {}", status.code(), status.message()));
        }
        sleep(AGAIN).await;
        !self.stopped()
    }

    /// Asks for a session, which was asked for first at `begun`; `None` is no answer.
    async fn open(&self, number: u64, begun: usize) -> Result<Option<String>, Status> {
        use v1::authenticate_response::Decision;
        let answer = self.gateway.clone().authenticate(question(self.member, number)).await?;
        match answer.into_inner().decision {
            Some(Decision::Accept(accept)) => {
                let address = accept.lease.map(|lease| lease.address).unwrap_or_default();
                let session = accept.session_id;
                self.history.note(Event::Opened { begun, request: number, session: session.clone(), address });
                Ok(Some(session))
            }
            other => {
                self.odd(format!("request {number}: {other:?}"));
                Ok(None)
            }
        }
    }

    /// Asks for a session until it is there. `None` is that it never will be.
    pub(crate) async fn begin(&self) -> Option<String> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.ask_for(number).await
    }

    async fn ask_for(&self, number: u64) -> Option<String> {
        // An attempt that had no answer may have opened it.
        let begun = self.history.now();
        loop {
            match self.open(number, begun).await {
                Ok(session) => return session.inspect(|_| self.note_answer()),
                Err(status) => {
                    self.failed.fetch_add(1, Ordering::Relaxed);
                    if !self.again("authenticate", &status).await {
                        return None;
                    }
                }
            }
        }
    }

    /// Opens a session, keeps it a moment, ends it.
    async fn session(&self, seed: &mut u64) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let Some(session) = self.ask_for(number).await else { return };
        // The same question again has the same answer; a second failure to answer is as good as none.
        if random(seed).is_multiple_of(8) {
            let _ = self.open(number, self.history.now()).await;
        }
        sleep(Duration::from_millis(random(seed) % 40)).await;
        if random(seed).is_multiple_of(10) && self.stayed.fetch_add(1, Ordering::Relaxed) < STAY {
            return;
        }
        self.history.note(Event::Ending { session: session.clone() });
        let report = v1::SessionReport {
            session_id: session.clone(),
            state: v1::SessionState::Down.into(),
            end_reason: v1::EndReason::Client.into(),
            ..Default::default()
        };
        let request = v1::ReportSessionsRequest { member: Some(self.member), reports: vec![report] };
        loop {
            match self.gateway.clone().report_sessions(request.clone()).await {
                Ok(_) => return self.history.note(Event::Ended { session }),
                Err(status) => {
                    self.failed.fetch_add(1, Ordering::Relaxed);
                    if !self.again("report", &status).await {
                        return;
                    }
                }
            }
        }
    }

    /// Reads the register at one member: it is a setting that nothing here depends on.
    pub(crate) async fn read(&self, member: u32, mut client: OperatorClient<Channel>) -> Result<v1::Settings, Status> {
        let begun = self.history.now();
        let answer = client.get_settings(v1::GetSettingsRequest {}).await?.into_inner();
        let settings = answer.settings.ok_or_else(|| Status::internal("no settings"))?;
        let (version, value) = (settings.version, settings.audit_keep);
        self.history.note(Event::Read { begun, member, version, value });
        Ok(settings)
    }

    /// Reads the register somewhere and changes it somewhere else.
    pub(crate) async fn change(&self, seed: &mut u64) {
        let (member, client) = self.some_reader(seed);
        let mut settings = match self.read(member, client).await {
            Ok(settings) => settings,
            Err(status) => {
                self.again("read", &status).await;
                return;
            }
        };
        let write = self.next.fetch_add(1, Ordering::Relaxed);
        settings.audit_keep = u32::try_from(1_000 + write % 900_000).expect("fits");
        self.history.note(Event::Writing { write, version: settings.version + 1, value: settings.audit_keep });
        loop {
            let (_, mut client) = self.some_reader(seed);
            let request = v1::UpdateSettingsRequest { settings: Some(settings.clone()) };
            match client.update_settings(with_id(request, write)).await {
                Ok(_) => return self.history.note(Event::Written { write }),
                Err(status) if status.code() == Code::Aborted => return self.history.note(Event::Refused { write }),
                Err(status) => {
                    if !self.again("write", &status).await {
                        return;
                    }
                }
            }
        }
    }

    /// Lists the sessions at one member; one page, so that it is one read.
    pub(crate) async fn list_at(&self, member: u32, mut client: OperatorClient<Channel>) -> Result<Vec<Row>, Status> {
        let begun = self.history.now();
        let request = v1::ListSessionsRequest { page_size: 1_000, ..Default::default() };
        let answer = client.list_sessions(request).await?.into_inner();
        assert!(answer.next_page_token.is_empty(), "more sessions than one page holds");
        let row = |s: v1::SessionInfo| Row { session: s.session_id, address: s.address, request: number_of(&s.remote) };
        let rows: Vec<Row> = answer.sessions.into_iter().map(row).collect();
        self.history.note(Event::Listed { begun, member, rows: rows.clone() });
        Ok(rows)
    }

    async fn list(&self, seed: &mut u64) {
        let (member, client) = self.some_reader(seed);
        if let Err(status) = self.list_at(member, client).await {
            self.again("list", &status).await;
        }
    }

    /// From now on a certificate is asked for again where there was no answer: all members know how to answer as before.
    pub(crate) fn ask_again_for_certificates(&self) {
        self.issues_once.store(true, Ordering::Relaxed);
    }

    /// Asks for a certificate, and now and then again: there is one for each request, with one key.
    async fn issue(&self, seed: &mut u64) {
        let number = self.number();
        let name = format!("m{number}.example.com");
        let issued = loop {
            let (_, client) = self.some_reader(seed);
            match ask_for_certificate(client, &name, number).await {
                Ok(issued) => break issued,
                Err(status) => {
                    if !self.again("issue", &status).await || !self.issues_once.load(Ordering::Relaxed) {
                        return;
                    }
                }
            }
        };
        let Some(info) = &issued.info else { return self.odd(format!("no record of the certificate of {name}")) };
        let off = Clock::system().unix_ms().abs_diff(info.issued_unix_ms);
        if off > WRONG_MS {
            self.odd(format!("the certificate of {name} was made {off} ms before or after it was asked for"));
        }
        self.history.note(Event::Issued { name: name.clone(), serial: info.serial.clone() });
        if self.issues_once.load(Ordering::Relaxed) && random(seed).is_multiple_of(4) {
            let (_, client) = self.some_reader(seed);
            // A second failure to answer is as good as none.
            let again = ask_for_certificate(client, &name, number).await;
            if again
                .is_ok_and(|again| again.private_key != issued.private_key || again.certificate != issued.certificate)
            {
                self.odd(format!("the certificate of {name} is another when it is asked for again"));
            }
        }
    }

    /// What is there now, at one member.
    pub(crate) async fn last(&self, member: u32, mut client: OperatorClient<Channel>) -> Result<Last, Status> {
        let sessions = self.list_at(member, client.clone()).await?;
        let settings = self.read(member, client.clone()).await?;
        let mut certificates = Vec::new();
        let mut page_token = String::new();
        loop {
            let profile = v1::CertificateProfile::Machine.into();
            let request = v1::ListCertificatesRequest { page_size: 1_000, page_token, profile, ..Default::default() };
            let page = client.list_certificates(request).await?.into_inner();
            certificates.extend(page.certificates.into_iter().map(|c| (c.name, c.serial)));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        Ok(Last { sessions, certificates, register: (settings.version, settings.audit_keep) })
    }
}
