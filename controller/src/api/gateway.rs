//! The service for gateways.

use std::sync::Arc;

use ring::digest;
use sallyport_proto::v1::gateway_client::GatewayClient;
use sallyport_proto::v1::gateway_server::Gateway;
use sallyport_proto::{MAX_MESSAGE_BYTES, v1};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::caller::Caller;
use super::convert::{session_id, session_text};
use super::error::{conflict, done};
use super::forward::{self, Leader};
use super::{live, observed, watch as policy};
use crate::app::{Core, Sight};
use crate::ledger::{self, is_signed};
use crate::metrics::Rpc;
use crate::state::{
    Action, EndSessions, EndedSession, LEDGER_LEVEL, MAX_ROOTS, Outcome, REVOCATION_LEVEL, RecordAttempts,
    RegisterGateway, SessionsUp, State,
};

mod admit;
mod authenticate;
mod carry;
pub(super) mod renew;
mod witness;

/// Reports and attempts in one call.
const MAX_BATCH: usize = 1_000;
/// Longest text field of a request that we keep, bytes.
const MAX_TEXT: usize = 512;
/// Longest evidence about the audit log: two signed heads and a proof, bytes.
const MAX_EVIDENCE: usize = 8 * 1024;
/// Public addresses of a gateway.
const MAX_ADDRESSES: usize = 16;

/// The service.
pub(super) struct GatewayService {
    core: Arc<Core>,
    stopped: watch::Receiver<bool>,
    streams: policy::Streams,
}

/// The gateway in this slot and epoch is the caller.
pub(super) fn check_member(state: &State, caller: &Caller, member: Option<v1::Member>) -> Result<v1::Member, Status> {
    let stale = || Status::failed_precondition("this gateway was given up or replaced; it must register again");
    let member = member.ok_or_else(|| Status::invalid_argument("member is missing"))?;
    let gateway = state.gateways.get(&member.slot).ok_or_else(stale)?;
    if gateway.name != caller.name || gateway.epoch != member.epoch || gateway.lost {
        return Err(stale());
    }
    Ok(member)
}

/// Which of our roots these fingerprints are of: bit N - 1 for root N.
fn trusted(state: &State, fingerprints: &[Vec<u8>]) -> u64 {
    if fingerprints.is_empty() {
        return 0;
    }
    let said = |der: &[u8]| {
        let own = digest::digest(&digest::SHA256, der);
        fingerprints.iter().take(MAX_ROOTS).any(|said| said == own.as_ref())
    };
    let numbers = state.trusted_roots().filter(|(_, row)| said(&row.certificate)).map(|(number, _)| number);
    numbers
        .filter_map(|n| u32::try_from(n.saturating_sub(1)).ok())
        .fold(0, |all, n| all | 1_u64.checked_shl(n).unwrap_or(0))
}

/// Cuts a text that is only for people, so that the audit stays bounded.
fn cut(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        let mut end = MAX_TEXT;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    text
}

fn cut_machine(machine: Option<v1::MachineIdentity>) -> Option<v1::MachineIdentity> {
    machine.map(|m| v1::MachineIdentity {
        auth: m.auth,
        name: cut(m.name),
        certificate_serial: cut(m.certificate_serial),
    })
}

/// 16 bytes that are the same for the same gateway, purpose and request: no gateway can speak under another's ids.
pub(super) fn dedup_id(gateway: &str, purpose: &str, request_id: &[u8]) -> [u8; 16] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [gateway.as_bytes(), purpose.as_bytes()] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context.update(request_id);
    let mut id = [0; 16];
    for (to, from) in id.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    id
}

fn request_id(bytes: &[u8]) -> Result<(), Status> {
    if bytes.len() == 16 { Ok(()) } else { Err(Status::invalid_argument("request_id must have 16 bytes")) }
}

impl GatewayService {
    /// The service over `core`.
    pub(super) fn new(core: Arc<Core>, stopped: watch::Receiver<bool>) -> Self {
        Self { core, stopped, streams: policy::Streams::default() }
    }

    fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        Caller::of(&self.core, request, v1::CertificateProfile::GatewayLink)
    }

    /// The caller speaks as a member in force; all that was acknowledged is in the state.
    async fn member(&self, caller: &Caller, member: Option<v1::Member>) -> Result<v1::Member, Status> {
        self.core.linearizable().await?;
        self.member_in_sight(caller, member)
    }

    /// The same by the state as it is.
    fn member_in_sight(&self, caller: &Caller, member: Option<v1::Member>) -> Result<v1::Member, Status> {
        let member = check_member(&self.core.node.shared().read(), caller, member)?;
        self.core.soft.heard(member.slot, member.epoch, self.core.clock.monotonic_ms(), self.core.now_ms());
        Ok(member)
    }

    async fn do_register(&self, request: Request<v1::RegisterRequest>) -> Result<v1::RegisterResponse, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        if request.name != caller.name {
            return Err(Status::permission_denied(format!(
                "this gateway calls itself {:?}, its certificate says {:?}; set the name in its configuration to that",
                request.name, caller.name
            )));
        }
        if request.boot_id.len() != 16 {
            return Err(Status::invalid_argument("boot_id must have 16 bytes"));
        }
        if request.addresses.len() > MAX_ADDRESSES {
            return Err(Status::invalid_argument(format!("addresses: at most {MAX_ADDRESSES}")));
        }
        let command = RegisterGateway {
            name: request.name,
            version: cut(request.version),
            boot_id: request.boot_id,
            addresses: request.addresses.into_iter().map(cut).collect(),
            max_sessions: request.max_sessions,
        };
        let reply = self.core.propose(Action::RegisterGateway(command)).await?;
        let registered = match reply.outcome {
            Some(Outcome::Registered(registered)) => registered,
            Some(Outcome::Conflict(c)) => return Err(conflict(c)),
            other => return Err(Status::internal(format!("unexpected answer {other:?}"))),
        };
        let now_unix_ms = self.core.now_ms();
        self.core.soft.heard(registered.slot, registered.epoch, self.core.clock.monotonic_ms(), now_unix_ms);
        tracing::info!(gateway = %caller.name, slot = registered.slot, epoch = registered.epoch, "a gateway registered");
        let config = self.core.config.gateways;
        Ok(v1::RegisterResponse {
            member: Some(v1::Member { slot: registered.slot, epoch: registered.epoch }),
            heartbeat_interval_ms: config.heartbeat_ms,
            gateway_timeout_ms: config.timeout_ms,
            report_interval_ms: config.report_ms,
            policy: Some(policy::policy(&self.core, &caller.name)?),
            now_unix_ms,
        })
    }

    async fn do_watch(
        &self,
        request: Request<v1::WatchPolicyRequest>,
    ) -> Result<ReceiverStream<Result<v1::WatchPolicyResponse, Status>>, Status> {
        // Answered by every member from its own state, once that shows all that was acknowledged.
        self.core.linearizable().await?;
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let member = self.member(&caller, request.member).await?;
        let (tx, rx) = mpsc::channel(policy::QUEUE);
        let evicted = self.streams.open(&caller.name);
        tokio::spawn(policy::follow(
            self.core.clone(),
            caller,
            (member, request.live),
            tx,
            self.stopped.clone(),
            evicted,
        ));
        Ok(ReceiverStream::new(rx))
    }

    async fn do_admit(&self, request: Request<v1::AdmitPeerRequest>) -> Result<v1::AdmitPeerResponse, Status> {
        use v1::admit_peer_response::Decision;
        let caller = self.caller(&request)?;
        let mut request = request.into_inner();
        request_id(&request.request_id)?;
        self.member(&caller, request.member).await?;
        // The cause of a refusal has it, and each is a record.
        request.certificate_serial = cut(request.certificate_serial);
        let (decision, records_verdicts) = {
            let state = self.core.node.shared().read();
            let decision = admit::judge(&state, &request, self.core.now_ms());
            (decision, state.level() >= REVOCATION_LEVEL)
        };
        self.core.metrics.admission(decision.as_ref().map(drop).map_err(|refusal| refusal.verdict));
        let decision = match decision {
            Ok(name) => Decision::Admitted(v1::PeerAdmitted { name }),
            Err(admit::Refusal { verdict, cause, remedy }) => {
                let attempt = v1::Attempt {
                    id: request.request_id,
                    time_unix_ms: self.core.now_ms(),
                    gateway: caller.name.clone(),
                    remote: cut(request.remote),
                    machine: Some(v1::MachineIdentity {
                        auth: v1::MachineAuth::Certificate.into(),
                        name: cut(request.subject),
                        certificate_serial: request.certificate_serial,
                    }),
                    claimed_identity: cut(request.claimed_identity),
                    phase: v1::Phase::IkeMainMode.into(),
                    outcome: v1::Outcome::Refused.into(),
                    cause: cause.clone(),
                    remedy: remedy.clone(),
                    controller_time: true,
                    certificate_verdict: if records_verdicts { verdict.into() } else { 0 },
                    ..v1::Attempt::default()
                };
                self.record(vec![attempt]).await?;
                Decision::Refused(v1::PeerRefused { cause, remedy })
            }
        };
        Ok(v1::AdmitPeerResponse { decision: Some(decision) })
    }

    async fn record(&self, attempts: Vec<v1::Attempt>) -> Result<(), Status> {
        done(self.core.propose(Action::RecordAttempts(RecordAttempts { attempts, ..RecordAttempts::default() })).await?)
            .map(drop)
    }

    async fn do_report_sessions(
        &self,
        request: Request<v1::ReportSessionsRequest>,
    ) -> Result<v1::ReportSessionsResponse, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        if request.reports.len() > MAX_BATCH {
            return Err(Status::invalid_argument(format!("at most {MAX_BATCH} reports in one call")));
        }
        let mut sight = self.core.sight().await?;
        loop {
            if let Some(answer) = self.take_reports(&caller, &request, sight).await? {
                return Ok(answer);
            }
            sight = self.core.clear_sight().await?; // with which there is an answer
        }
    }

    /// Takes reports by what is in sight; `None` if that does not do.
    async fn take_reports(
        &self,
        caller: &Caller,
        request: &v1::ReportSessionsRequest,
        sight: Sight,
    ) -> Result<Option<v1::ReportSessionsResponse>, Status> {
        let member = match (self.member_in_sight(caller, request.member), sight) {
            (Ok(member), _) => member,
            (Err(_), Sight::AsLeader(_)) => return Ok(None),
            (Err(e), Sight::Clear) => return Err(e),
        };
        let (mut up, mut down, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        {
            let state = self.core.node.shared().read();
            let mut signs = self.core.soft.lock();
            let (now, unix) = (self.core.clock.monotonic_ms(), self.core.now_ms());
            for report in &request.reports {
                let id = session_id(&report.session_id)
                    .ok_or_else(|| Status::invalid_argument(format!("{:?} is no session id", report.session_id)))?;
                let owned = |s: &&crate::state::SessionRow| (s.slot, s.epoch) == (member.slot, member.epoch);
                let session = state.sessions.get(&id).filter(owned);
                match (report.state(), session) {
                    (v1::SessionState::Up, Some(session)) => {
                        if session.up_ms == 0 {
                            up.push(id);
                        }
                        let signs = signs.sessions.entry(id).or_default();
                        signs.seen_ms = now;
                        if let Some(counters) = report.counters {
                            (signs.counters, signs.counters_unix_ms) = (counters, unix);
                        }
                        signs.remote = cut(report.remote.clone());
                    }
                    (v1::SessionState::Up, None) => unknown.push(report.session_id.clone()),
                    (v1::SessionState::Down, Some(_)) => {
                        down.push(EndedSession {
                            session_id: id,
                            reason: report.end_reason,
                            text: cut(report.end_text.clone()),
                        });
                    }
                    (v1::SessionState::Down, None) => {}
                    (v1::SessionState::Unspecified | v1::SessionState::Authorized, _) => {
                        return Err(Status::invalid_argument("a session is reported up or down"));
                    }
                }
            }
        }
        // Nothing that is put into the log would prove the sight.
        if up.is_empty() && down.is_empty() && sight != Sight::Clear {
            return Ok(None);
        }
        let v1::Member { slot, epoch } = member;
        if !up.is_empty() {
            let command = Action::SessionsUp(SessionsUp { slot, epoch, session_ids: up });
            let Some(reply) = self.core.propose_by(sight, self.core.new_id()?, command).await? else { return Ok(None) };
            unknown.extend(done(reply)?.unknown.into_iter().map(session_text));
        }
        if !down.is_empty() {
            let command = Action::EndSessions(EndSessions { slot, epoch, sessions: down });
            let Some(reply) = self.core.propose_by(sight, self.core.new_id()?, command).await? else { return Ok(None) };
            done(reply)?;
        }
        Ok(Some(v1::ReportSessionsResponse { unknown_session_ids: unknown }))
    }

    async fn do_report_attempts(
        &self,
        request: Request<v1::ReportAttemptsRequest>,
    ) -> Result<v1::ReportAttemptsResponse, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        if request.attempts.len() > MAX_BATCH {
            return Err(Status::invalid_argument(format!("at most {MAX_BATCH} attempts in one call")));
        }
        self.member(&caller, request.member).await?;
        let level = self.core.node.shared().read().level();
        let records_verdicts = level >= REVOCATION_LEVEL;
        let mut attempts = Vec::with_capacity(request.attempts.len());
        let of_log = request.attempts.iter().any(|attempt| attempt.phase() == v1::Phase::AuditLog);
        let keys = if of_log { ledger::signers(&self.core).keys.clone() } else { Vec::new() };
        for mut attempt in request.attempts {
            if attempt.id.len() != 16 {
                return Err(Status::invalid_argument("the id of an attempt must have 16 bytes"));
            }
            if attempt.phase() == v1::Phase::Enrollment {
                return Err(Status::invalid_argument("certificates are refused by controllers, which record it"));
            }
            let evident = level >= LEDGER_LEVEL
                && attempt.phase() == v1::Phase::AuditLog
                && attempt.evidence.len() <= MAX_EVIDENCE;
            // What nobody has signed anybody can make up: it says something about that gateway, and nothing about the log.
            if attempt.phase() == v1::Phase::AuditLog && !is_signed(&attempt.evidence, &keys) {
                attempt.evidence.clear();
                attempt.cause =
                    format!("gateway {} reported a head of the audit log that nobody has signed", caller.name);
                attempt.remedy = "look at that gateway: its software may be broken, or in other hands".into();
            }
            attempts.push(v1::Attempt {
                gateway: caller.name.clone(),
                remote: cut(attempt.remote),
                machine: cut_machine(attempt.machine),
                claimed_identity: cut(attempt.claimed_identity),
                user: cut(attempt.user),
                cause: cut(attempt.cause),
                remedy: cut(attempt.remedy),
                session_id: cut(attempt.session_id),
                controller_time: false,
                certificate_verdict: if records_verdicts { attempt.certificate_verdict } else { 0 },
                evidence: if evident { attempt.evidence } else { Vec::new() },
                ..attempt
            });
        }
        if !attempts.is_empty() {
            self.record(attempts).await?;
        }
        Ok(v1::ReportAttemptsResponse {})
    }

    async fn do_heartbeat(&self, request: Request<v1::HeartbeatRequest>) -> Result<v1::HeartbeatResponse, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let member = self.member(&caller, request.member).await?;
        let roots = trusted(&self.core.node.shared().read(), &request.roots);
        if let Some(signs) = self.core.soft.lock().gateways.get_mut(&member.slot) {
            signs.roots = roots;
            signs.live_sessions = request.live_sessions;
            signs.half_open = request.half_open;
            signs.draining = request.draining;
        }
        {
            let state = self.core.node.shared().read();
            let times = live::Times { monotonic_ms: self.core.clock.monotonic_ms(), log_ms: self.core.now_ms() };
            self.core.live.note(member, &request, &state, times, &self.core.metrics);
        }
        let state = self.core.node.shared().read();
        Ok(v1::HeartbeatResponse {
            policy_version: state.policy_version(),
            now_unix_ms: self.core.now_ms(),
            revoked: Some(live::newest(&state)),
        })
    }
}

/// One method of the trait: counted, timed, passed on where another node leads, and handed to the function of the same name.
macro_rules! calls {
    ($($method:ident, $rpc:ident, $request:ident -> $response:ident, $implementation:ident;)*) => {
        #[tonic::async_trait]
        impl Gateway for GatewayService {
            type WatchPolicyStream = ReceiverStream<Result<v1::WatchPolicyResponse, Status>>;
            type CarryEnrollmentStream = ReceiverStream<Result<v1::CarryEnrollmentResponse, Status>>;

            async fn watch_policy(
                &self,
                request: Request<v1::WatchPolicyRequest>,
            ) -> Result<Response<Self::WatchPolicyStream>, Status> {
                observed(&self.core, Rpc::WatchPolicy, self.do_watch(request)).await
            }

            async fn carry_enrollment(
                &self,
                request: Request<Streaming<v1::CarryEnrollmentRequest>>,
            ) -> Result<Response<Self::CarryEnrollmentStream>, Status> {
                observed(&self.core, Rpc::CarryEnrollment, self.do_carry(request)).await
            }

            $(
                async fn $method(&self, request: Request<v1::$request>) -> Result<Response<v1::$response>, Status> {
                    observed(&self.core, Rpc::$rpc, async {
                        match forward::leader(&self.core, forward::is_forwarded(&request)).await? {
                            Leader::Here => self.$implementation(request).await,
                            Leader::There(channel) => {
                                let mut leader = GatewayClient::new(channel)
                                    .max_decoding_message_size(MAX_MESSAGE_BYTES)
                                    .max_encoding_message_size(MAX_MESSAGE_BYTES);
                                let passed = forward::on_behalf(request)?;
                                leader.$method(passed).await.map(Response::into_inner).map_err(forward::failed)
                            }
                        }
                    })
                    .await
                }
            )*
        }
    };
}

calls! {
    register, Register, RegisterRequest -> RegisterResponse, do_register;
    admit_peer, AdmitPeer, AdmitPeerRequest -> AdmitPeerResponse, do_admit;
    authenticate, Authenticate, AuthenticateRequest -> AuthenticateResponse, do_authenticate;
    report_sessions, ReportSessions, ReportSessionsRequest -> ReportSessionsResponse, do_report_sessions;
    report_attempts, ReportAttempts, ReportAttemptsRequest -> ReportAttemptsResponse, do_report_attempts;
    renew, Renew, RenewRequest -> RenewResponse, do_renew;
    heartbeat, Heartbeat, HeartbeatRequest -> HeartbeatResponse, do_heartbeat;
    witness_log, WitnessLog, WitnessLogRequest -> WitnessLogResponse, do_witness;
}
