//! The gRPC client: policy and decisions in, reports out.
//!
//! Tasks here own the network towards the controllers; the control plane only sees [`FromController`] messages and never
//! waits. Whatever is reported is held (`super::held`) and repeated until a controller has taken it: sessions and attempts
//! carry identifiers, so that a repetition is harmless.

mod carry;
mod live;
mod own;
mod reports;
mod revocations;
mod roots;
mod witness;

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use sallyport_proto::dial::{self, Channel, Judge, Shown};
use sallyport_proto::failover::{Failover, Once};
use sallyport_proto::v1;
use sallyport_proto::v1::gateway_client::GatewayClient;
use tokio::sync::{mpsc, watch};
use tonic::{Code, Status};
use tracing::{debug, info, warn};

pub use self::carry::Carried;
use self::reports::Reports;
use self::revocations::Watchman;
pub use self::roots::{BELOW_GONE, KnownRoots};
pub use self::witness::LogSight;
use self::witness::Witnessing;
use super::held::{Held, Lost, Report};
use super::live::LEASE;
use crate::app::NewCredentials;
use crate::identity::Identity;

/// A decision that takes longer counts as "the controllers are away".
const DECISION_TIMEOUT: Duration = Duration::from_secs(10);
/// The same while they are known to be away, or where the gateway can do without: a client repeats itself after 4 s.
const SHORT_TIMEOUT: Duration = Duration::from_secs(3);
/// What one of several controllers may take before the next is asked.
const PER_CONTROLLER: Duration = Duration::from_secs(4);
/// Any other call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// First and longest pause between tries.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How long a gateway that stops waits for its last reports to be taken.
const FLUSH: Duration = Duration::from_secs(3);

/// What the controllers say.
#[derive(Debug)]
pub enum FromController {
    /// The policy, in full.
    Policy(v1::Policy),
    /// Something to do now.
    Command(v1::Command),
    /// The answer to [`Controllers::authenticate`]; the error is the cause in words.
    Authenticated {
        /// The number of the question.
        question: u64,
        /// The decision.
        decision: Result<v1::authenticate_response::Decision, String>,
    },
    /// The answer to [`Controllers::admit`].
    Admitted {
        /// The number of the question.
        question: u64,
        /// The decision.
        decision: Result<v1::admit_peer_response::Decision, String>,
    },
    /// Which certificates are live, or what has changed of that.
    Live(Box<v1::LiveUpdate>),
    /// The newest revocation when a life sign was answered.
    Newest {
        /// Its number.
        newest: v1::LiveFrom,
        /// When the life sign was sent.
        asked: tokio::time::Instant,
    },
    /// Sessions that are no longer ours.
    UnknownSessions(Vec<String>),
    /// They had given this gateway up, and all its sessions with it.
    GivenUp,
    /// The gateway has new certificates for IKE, which they gave it.
    Credentials(NewCredentials),
}

/// Life signs that the control plane keeps current for the heartbeat.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vitals {
    /// Sessions up.
    pub live_sessions: u32,
    /// IKE exchanges under way.
    pub half_open: u32,
}

/// Who we say we are.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Name, as in our certificate.
    pub name: String,
    /// Public addresses.
    pub addresses: Vec<String>,
    /// Drawn once per process.
    pub boot_id: [u8; 16],
}

/// The handle: cheap to clone, never blocks.
#[derive(Clone)]
pub struct Controllers {
    client: GatewayClient<Failover<Channel>>,
    carrier: GatewayClient<Carrier>,
    /// How many there are.
    controllers: usize,
    member: Arc<RwLock<v1::Member>>,
    events: mpsc::Sender<FromController>,
    reports: Arc<Reports>,
    away: Arc<AtomicBool>,
    /// Rings when a controller has answered: what waits to be tried again need not wait longer.
    heard: watch::Sender<()>,
    vitals: watch::Sender<Vitals>,
    live: Arc<live::Report>,
    watchman: Arc<Watchman>,
    witnessing: Arc<Witnessing>,
    /// The names that our certificates for IKE shall have.
    names: watch::Sender<Vec<String>>,
    /// By how much their clock is ahead of ours, milliseconds.
    ahead_ms: Arc<AtomicI64>,
    addresses: Arc<[String]>,
    registering: Arc<tokio::sync::Mutex<()>>,
}

/// Calls that carry connections of strangers, over connections of their own: whatever these may fill, no decision waits for it.
type Carrier = Once<Channel>;

/// The client cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// No address configured.
    #[error("[gateway] controllers is empty: name at least one controller as \"host:port\"")]
    NoAddress,
    /// An address that is none.
    #[error("[gateway] controllers: {0:?} is not \"host:port\"")]
    Address(String),
    /// TLS material that does not fit.
    #[error("the gateway's certificate, key or CA is not usable: {0}")]
    Tls(String),
    /// A controller answered and said no.
    #[error("the controller refuses this gateway: {0}")]
    Refused(String),
}

impl Controllers {
    /// Registers with the first controller that answers, and keeps the policy stream, the heartbeat and the reports going
    /// until `events` is closed. Waits as long as no controller answers, and says so.
    pub async fn start(
        addresses: &[String],
        identity: &Identity,
        registration: Registration,
        events: mpsc::Sender<FromController>,
    ) -> Result<(Self, v1::RegisterResponse), ControllerError> {
        // Gateways spread over the controllers.
        let seed = registration.boot_id.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let watchman = Watchman::new(addresses, identity)?;
        let channels = watchman.channels().to_vec();
        let client = GatewayClient::new(Failover::new(channels, seed).patience(PER_CONTROLLER))
            .max_decoding_message_size(sallyport_proto::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(sallyport_proto::MAX_MESSAGE_BYTES);
        let carriers = watchman.carriers().to_vec();
        let controllers = carriers.len().max(1);
        let carrier = GatewayClient::new(Failover::new(carriers, seed).patience(PER_CONTROLLER).once());
        // Before anything is said to one of them that may be none any more.
        watchman.look().await;
        let registered = register(&client, &registration, addresses).await?;
        let roots = watchman.roots().clone();
        let member = Arc::new(RwLock::new(registered.member.unwrap_or_default()));
        let (vitals, vitals_rx) = watch::channel(Vitals::default());
        let this = Self {
            client,
            carrier,
            controllers,
            member,
            events,
            reports: Arc::default(),
            away: Arc::default(),
            heard: watch::Sender::new(()),
            vitals,
            live: Arc::default(),
            watchman,
            witnessing: Arc::new(Witnessing::trusting(roots)),
            names: watch::Sender::default(),
            ahead_ms: Arc::default(),
            addresses: addresses.into(),
            registering: Arc::default(),
        };
        this.note_time(registered.now_unix_ms);
        this.note_policy(registered.policy.as_ref());
        tokio::spawn(this.clone().keep_looking(seed));
        tokio::spawn(this.clone().keep_witnessing(seed));
        tokio::spawn(this.clone().watch_policy(registration.clone()));
        let interval = Duration::from_millis(u64::from(registered.heartbeat_interval_ms.clamp(100, 60_000)));
        // Twice in the time after which what is known of revocations is old.
        let interval = interval.min(LEASE * 2 / 5);
        tokio::spawn(this.clone().heartbeat(registration, interval, vitals_rx));
        tokio::spawn(this.clone().deliver());
        Ok((this, registered))
    }

    fn member(&self) -> v1::Member {
        // A poisoned lock holds a value that is as good as any: it is replaced whole.
        *self.member.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Keeps the heartbeat's figures current.
    pub fn set_vitals(&self, vitals: Vitals) {
        self.vitals.send_replace(vitals);
    }

    /// Takes a report that is to be delivered.
    pub fn report(&self, report: Report) {
        self.reports.push(report);
    }

    /// Reports that no controller has taken yet, and those that fell out.
    pub fn held(&self) -> (usize, Lost) {
        (self.reports.len(), self.reports.lock().lost())
    }

    /// What this gateway, as its witness, knows of the controllers' audit log.
    pub fn log_sight(&self) -> LogSight {
        self.witnessing.sight()
    }

    /// Whether the last life sign found no controller that could take it.
    pub fn are_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// Waits until everything reported so far was taken, or [`FLUSH`] is over; says whether it was.
    pub async fn try_flush(&self) -> bool {
        tokio::time::timeout(FLUSH, self.reports.delivered()).await.is_ok()
    }

    /// The same, at the end.
    pub async fn flush(&self) {
        if !self.try_flush().await {
            let left = self.reports.len();
            warn!(left, "the gateway stops before a controller has taken its last reports");
        }
    }

    fn patience(&self) -> Duration {
        if self.are_away() { SHORT_TIMEOUT } else { DECISION_TIMEOUT }
    }

    /// Asks for a decision on a user; the answer comes as [`FromController::Authenticated`].
    pub fn authenticate(&self, question: u64, mut request: v1::AuthenticateRequest) {
        let this = self.clone();
        tokio::spawn(async move {
            let decision = this
                .retry(this.patience(), |mut client, member| {
                    request.member = Some(member);
                    let request = request.clone();
                    async move { client.authenticate(request).await }
                })
                .await
                .and_then(|r| r.decision.ok_or_else(|| "the controller answered nothing".into()));
            let _ = this.events.send(FromController::Authenticated { question, decision }).await;
        });
    }

    /// Asks whether a machine may in; the answer comes as [`FromController::Admitted`]. A machine that is `known`, because it
    /// is in already, does not wait long: see `Machine::handle_undecided`.
    pub fn admit(&self, question: u64, mut request: v1::AdmitPeerRequest, known: bool) {
        let this = self.clone();
        let limit = if known { SHORT_TIMEOUT } else { this.patience() };
        tokio::spawn(async move {
            let decision = this
                .retry(limit, |mut client, member| {
                    request.member = Some(member);
                    let request = request.clone();
                    async move { client.admit_peer(request).await }
                })
                .await
                .and_then(|r| r.decision.ok_or_else(|| "the controller answered nothing".into()));
            let _ = this.events.send(FromController::Admitted { question, decision }).await;
        });
    }

    /// Repeats `call` while the failure may pass and `limit` allows. The error is the cause in words.
    async fn retry<T, F>(
        &self,
        limit: Duration,
        mut call: impl FnMut(GatewayClient<Failover<Channel>>, v1::Member) -> F,
    ) -> Result<T, String>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let mut last = String::new();
        let tries = async {
            let mut pause = BACKOFF.0;
            loop {
                let member = self.member();
                match call(self.client.clone(), member).await {
                    Ok(response) => {
                        self.heard.send_replace(());
                        return Ok(response.into_inner());
                    }
                    Err(status) if passes(&status) => {
                        debug!(%status, "controller call failed, trying again");
                        last = format!(": {}", words(&status));
                    }
                    Err(status) => return Err(format!("the controller answered: {}", status.message())),
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(BACKOFF.1);
            }
        };
        match tokio::time::timeout(limit, tries).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("the controllers are away{last}")),
        }
    }

    async fn watch_policy(mut self, registration: Registration) {
        let mut pause = BACKOFF.0;
        while !self.events.is_closed() {
            let request = v1::WatchPolicyRequest { member: Some(self.member()), live: Some(self.live.at()) };
            // Before the call: what is learned while it is under way may be about the one that answers it.
            let news = self.watchman.news();
            match self.client.watch_policy(request).await {
                Ok(response) => {
                    pause = BACKOFF.0;
                    if let Err(status) = self.follow(response.into_inner(), news).await {
                        warn!(status = %status.message(), "the policy stream ended, opening it again");
                    }
                }
                Err(status) if status.code() == Code::FailedPrecondition => self.register_again(&registration).await,
                Err(status) => warn!(status = %status.message(), "no policy stream; what is up stays up"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    /// Hands on what a stream brings, until it ends or there are `news` since it was asked for.
    async fn follow(
        &self,
        mut stream: tonic::Streaming<v1::WatchPolicyResponse>,
        mut news: watch::Receiver<u64>,
    ) -> Result<(), Status> {
        use v1::watch_policy_response::Update;
        loop {
            let message = tokio::select! {
                message = stream.message() => message?,
                () = self.live.follow_again() => return Err(Status::cancelled("something of it is missing")),
                // It may come from a controller that is none any more, or go by a certificate of ours that ends: opened again, it does not.
                _ = news.changed() => return Err(Status::cancelled("certificates have changed")),
            };
            let Some(message) = message else { break };
            let event = match message.update {
                Some(Update::Policy(policy)) => {
                    self.note_policy(Some(&policy));
                    FromController::Policy(policy)
                }
                Some(Update::Command(command)) => FromController::Command(command),
                Some(Update::Live(update)) => FromController::Live(Box::new(update)),
                Some(Update::KeepAlive(_)) | None => continue,
            };
            if self.events.send(event).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    async fn register_again(&mut self, registration: &Registration) {
        // The heartbeat and the policy stream may both have been told to.
        let registering = self.registering.clone();
        let _one = registering.lock().await;
        match self.client.register(register_request(registration)).await {
            Ok(response) => {
                let response = response.into_inner();
                info!("registered again");
                if let Some(member) = response.member {
                    // First this, then the new epoch: what is opened under the new one comes behind it.
                    if member.epoch != self.member().epoch {
                        warn!("the controllers had given this gateway up: its sessions end");
                        let _ = self.events.send(FromController::GivenUp).await;
                    }
                    *self.member.write().unwrap_or_else(std::sync::PoisonError::into_inner) = member;
                }
                self.note_time(response.now_unix_ms);
                self.note_policy(response.policy.as_ref());
                if let Some(policy) = response.policy {
                    let _ = self.events.send(FromController::Policy(policy)).await;
                }
            }
            Err(status) => warn!(status = %status.message(), "registering again failed"),
        }
    }

    async fn heartbeat(mut self, registration: Registration, interval: Duration, vitals: watch::Receiver<Vitals>) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.events.is_closed() {
            // What was ended because of a revocation is said at once: somebody waits for it.
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.live.is_urgent() => {}
            }
            let now = *vitals.borrow();
            let (live, revocations) = self.live.said();
            let request = v1::HeartbeatRequest {
                member: Some(self.member()),
                live_sessions: now.live_sessions,
                half_open: now.half_open,
                draining: false,
                live,
                revocations,
                roots: self.fingerprints(),
            };
            let asked = tokio::time::Instant::now();
            match tokio::time::timeout(CALL_TIMEOUT, self.client.heartbeat(request)).await {
                Ok(Ok(response)) => {
                    self.note_away(None);
                    let response = response.into_inner();
                    self.note_time(response.now_unix_ms);
                    if let Some(newest) = response.revoked {
                        let _ = self.events.send(FromController::Newest { newest, asked }).await;
                    }
                }
                Ok(Err(status)) if status.code() == Code::FailedPrecondition => {
                    self.note_away(None);
                    self.register_again(&registration).await;
                }
                Ok(Err(status)) => self.note_away(Some(words(&status))),
                Err(_) => self.note_away(Some("no answer in time".into())),
            }
        }
    }

    /// Asks all controllers, now, whose certificates were revoked. It is done every 15 to 30 s anyway.
    pub async fn look_for_revoked_controllers(&self) {
        self.watchman.look().await;
    }

    /// Asks all controllers, again and again, whose certificates were revoked.
    async fn keep_looking(self, seed: u64) {
        let pause = revocations::pause(seed);
        while !self.events.is_closed() {
            tokio::time::sleep(pause).await;
            self.watchman.look().await;
        }
    }

    /// Keeps, and says when it changes, whether the controllers are away, and why.
    fn note_away(&self, why: Option<String>) {
        let was = self.away.swap(why.is_some(), Ordering::Relaxed);
        if why.is_none() {
            self.heard.send_replace(());
        }
        match why {
            Some(why) if !was => {
                warn!(
                    why,
                    "the controllers are away: what is up stays up, new connections are refused, reports are held"
                );
            }
            None if was => info!(held = self.held().0, "the controllers are back"),
            Some(_) | None => {}
        }
    }
}

/// What went wrong with a call, for people. A connection that fails has its cause behind it.
fn words(status: &Status) -> String {
    let mut texts = vec![status.message().to_owned()];
    let mut next = std::error::Error::source(status);
    while let Some(error) = next {
        let text = error.to_string();
        if texts.iter().all(|t| !t.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts.retain(|t| !t.is_empty());
    texts.join(": ")
}

/// Whether the same call may succeed later: see the head of the Gateway service in the contract.
fn passes(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::Unknown
            | Code::Internal
    )
}

fn register_request(registration: &Registration) -> v1::RegisterRequest {
    v1::RegisterRequest {
        name: registration.name.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        boot_id: registration.boot_id.to_vec(),
        addresses: registration.addresses.clone(),
        max_sessions: 0,
    }
}

async fn register(
    client: &GatewayClient<Failover<Channel>>,
    registration: &Registration,
    addresses: &[String],
) -> Result<v1::RegisterResponse, ControllerError> {
    let mut client = client.clone();
    let mut pause = BACKOFF.0;
    loop {
        match tokio::time::timeout(CALL_TIMEOUT, client.register(register_request(registration))).await {
            Ok(Ok(response)) => return Ok(response.into_inner()),
            Ok(Err(status)) if !passes(&status) => return Err(ControllerError::Refused(status.message().into())),
            Ok(Err(status)) => warn!(?addresses, status = %status.message(), "waiting for a controller"),
            Err(_) => warn!(?addresses, "waiting for a controller: no answer"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

#[cfg(test)]
mod tests;
