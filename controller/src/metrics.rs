//! Every metric's name and label set. Labels are closed enums, but for the names of pools, which operators choose.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use sallyport_endpoint::{Limit, Outcome as EnrollmentOutcome, Service};
use sallyport_proto::v1;

use crate::app::Core;
use crate::raft::Health;
use crate::state::RefusalKind;

/// A call of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the call of its name")]
pub(crate) enum Rpc {
    Register,
    WatchPolicy,
    AdmitPeer,
    Authenticate,
    ReportSessions,
    ReportAttempts,
    Heartbeat,
    CarryEnrollment,
    Renew,
    AddUser,
    ListUsers,
    RemoveUser,
    SetPassword,
    SetUserEnabled,
    UpdateUser,
    UnlockUser,
    AddPool,
    ListPools,
    RemovePool,
    IssueCertificate,
    ListCertificates,
    GetCertificate,
    RevokeCertificate,
    ListRoots,
    ListAuthorities,
    AddIssuer,
    RetireIssuer,
    ManageRoot,
    SetPsk,
    ClearPsk,
    GetSettings,
    UpdateSettings,
    ListSessions,
    KillSession,
    ListGateways,
    RemoveGateway,
    ListOperators,
    SetOperatorRoles,
    SetGatewayNames,
    RenewOperator,
    ListAttempts,
    GetStatus,
    CreateBackup,
    CreateClusterToken,
    GetCluster,
    RemoveMember,
    PromoteMember,
    TransferLeader,
    RevokeClusterTokens,
    RevokeCertificates,
    ReleaseCertificates,
    GetRevocation,
    CreateEnrollToken,
    ListEnrollTokens,
    RevokeEnrollToken,
    PutMachines,
    ListMachines,
    RemoveMachine,
    ListRequests,
    DecideRequest,
    ListProfiles,
    SetProfile,
    WitnessLog,
    GetLog,
    ReadLog,
    AcceptLog,
}

impl Rpc {
    const fn label(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::WatchPolicy => "watch_policy",
            Self::AdmitPeer => "admit_peer",
            Self::Authenticate => "authenticate",
            Self::ReportSessions => "report_sessions",
            Self::ReportAttempts => "report_attempts",
            Self::Heartbeat => "heartbeat",
            Self::CarryEnrollment => "carry_enrollment",
            Self::Renew => "renew",
            Self::AddUser => "add_user",
            Self::ListUsers => "list_users",
            Self::RemoveUser => "remove_user",
            Self::SetPassword => "set_password",
            Self::SetUserEnabled => "set_user_enabled",
            Self::UpdateUser => "update_user",
            Self::UnlockUser => "unlock_user",
            Self::AddPool => "add_pool",
            Self::ListPools => "list_pools",
            Self::RemovePool => "remove_pool",
            Self::IssueCertificate => "issue_certificate",
            Self::ListCertificates => "list_certificates",
            Self::GetCertificate => "get_certificate",
            Self::RevokeCertificate => "revoke_certificate",
            Self::ListRoots => "list_roots",
            Self::ListAuthorities => "list_authorities",
            Self::AddIssuer => "add_issuer",
            Self::RetireIssuer => "retire_issuer",
            Self::ManageRoot => "manage_root",
            Self::SetPsk => "set_psk",
            Self::ClearPsk => "clear_psk",
            Self::GetSettings => "get_settings",
            Self::UpdateSettings => "update_settings",
            Self::ListSessions => "list_sessions",
            Self::KillSession => "kill_session",
            Self::ListGateways => "list_gateways",
            Self::RemoveGateway => "remove_gateway",
            Self::ListOperators => "list_operators",
            Self::SetOperatorRoles => "set_operator_roles",
            Self::SetGatewayNames => "set_gateway_names",
            Self::RenewOperator => "renew_operator",
            Self::ListAttempts => "list_attempts",
            Self::GetStatus => "get_status",
            Self::CreateBackup => "create_backup",
            Self::CreateClusterToken => "create_cluster_token",
            Self::GetCluster => "get_cluster",
            Self::RemoveMember => "remove_member",
            Self::PromoteMember => "promote_member",
            Self::TransferLeader => "transfer_leader",
            Self::RevokeClusterTokens => "revoke_cluster_tokens",
            Self::RevokeCertificates => "revoke_certificates",
            Self::ReleaseCertificates => "release_certificates",
            Self::GetRevocation => "get_revocation",
            Self::CreateEnrollToken => "create_enroll_token",
            Self::ListEnrollTokens => "list_enroll_tokens",
            Self::RevokeEnrollToken => "revoke_enroll_token",
            Self::PutMachines => "put_machines",
            Self::ListMachines => "list_machines",
            Self::RemoveMachine => "remove_machine",
            Self::ListRequests => "list_requests",
            Self::DecideRequest => "decide_request",
            Self::ListProfiles => "list_profiles",
            Self::SetProfile => "set_profile",
            Self::WitnessLog => "witness_log",
            Self::GetLog => "get_log",
            Self::ReadLog => "read_log",
            Self::AcceptLog => "accept_log",
        }
    }
}

/// What came of an authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuthOutcome {
    /// A session was opened.
    Accepted,
    /// Wrong password.
    WrongPassword,
    /// No such user.
    UnknownUser,
    /// The pair of user and address must wait.
    LockedOut,
    /// The settings do not allow the protocol.
    MethodNotAllowed,
    /// The password is not kept in the form that the protocol needs.
    PasswordNotKept,
    /// Right password, but the user is disabled.
    Disabled,
    /// Too many sessions of the user.
    SessionLimit,
    /// Too many sessions on the gateway.
    GatewayFull,
    /// No address free.
    NoAddress,
    /// The machine's certificate is not good any more.
    MachineRefused,
}

impl AuthOutcome {
    const fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::WrongPassword => "wrong_password",
            Self::UnknownUser => "unknown_user",
            Self::LockedOut => "locked_out",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::PasswordNotKept => "password_not_kept",
            Self::Disabled => "disabled",
            Self::SessionLimit => "session_limit",
            Self::GatewayFull => "gateway_full",
            Self::NoAddress => "no_address",
            Self::MachineRefused => "machine_refused",
        }
    }
}

/// What came of a connection to the gRPC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    /// TLS is up.
    Accepted,
    /// TLS failed: mostly a client without a certificate of this authority.
    TlsFailed,
    /// TLS took too long.
    TlsTimeout,
    /// Too many connections.
    TooMany,
}

impl Connection {
    const fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::TlsFailed => "tls_failed",
            Self::TlsTimeout => "tls_timeout",
            Self::TooMany => "too_many",
        }
    }
}

/// Counters of this process.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    rpcs: IntCounterVec,
    rpc_seconds: HistogramVec,
    revocation_seconds: Histogram,
    authentications: IntCounterVec,
    admissions: IntCounterVec,
    connections: IntCounterVec,
    enrollments: IntCounterVec,
    state: IntGaugeVec,
    pools: IntGaugeVec,
    raft: IntGaugeVec,
    authorities: IntGaugeVec,
    healthy: IntGauge,
    clock_offset: Gauge,
    enrollment_requests: IntCounterVec,
    enrollment_refused: IntCounterVec,
    ocsp_signatures: IntCounter,
    /// Two who read at once must not both add what was counted elsewhere.
    catching_up: Mutex<()>,
}

/// Brings a counter up to what was counted elsewhere.
fn catch_up(counter: &IntCounter, counted: u64) {
    counter.inc_by(counted.saturating_sub(counter.get()));
}

const PREFIX: &str = "sallyport_controller";

impl Metrics {
    /// Registers everything.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some(PREFIX.into()), None)?;
        let counters = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok(vec)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
            let vec = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok(vec)
        };
        let buckets = vec![0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
        let seconds = HistogramOpts::new("rpc_seconds", "Time to answer a call").buckets(buckets);
        let rpc_seconds = HistogramVec::new(seconds, &["rpc"])?;
        registry.register(Box::new(rpc_seconds.clone()))?;
        let buckets = vec![0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0, 600.0];
        let help = "Time from a revocation to its acknowledgement by a gateway, which has ended the tunnels by then";
        let revocation_seconds = Histogram::with_opts(HistogramOpts::new("revocation_seconds", help).buckets(buckets))?;
        registry.register(Box::new(revocation_seconds.clone()))?;
        let healthy = IntGauge::new("healthy", "1 while storage works and a leader is known")?;
        registry.register(Box::new(healthy.clone()))?;
        let ocsp_signatures =
            IntCounter::new("ocsp_signatures_total", "Answers of OCSP that were signed, not given again")?;
        registry.register(Box::new(ocsp_signatures.clone()))?;
        let ahead = "By how much this machine's clock is ahead of the cluster's time; 0 while that is not known";
        let clock_offset = Gauge::new("clock_offset_seconds", ahead)?;
        registry.register(Box::new(clock_offset.clone()))?;
        Ok(Self {
            rpcs: counters("rpcs_total", "Calls answered, by gRPC status", &["rpc", "code"])?,
            rpc_seconds,
            revocation_seconds,
            authentications: counters("authentications_total", "Decisions on users", &["method", "outcome"])?,
            admissions: counters("admissions_total", "Decisions on machines", &["outcome"])?,
            connections: counters("connections_total", "Connections to the gRPC address", &["outcome"])?,
            enrollments: counters("enrollments_total", "Certificates for machines, and refusals", &["outcome"])?,
            state: gauges("objects", "Things in the state", &["kind"])?,
            pools: gauges("pool_addresses", "Addresses of a pool", &["pool", "kind"])?,
            raft: gauges("raft", "Figures of the Raft group", &["figure"])?,
            authorities: gauges(
                "authority_not_after_seconds",
                "When the certificate of a root or an issuing authority ends, seconds since 1970",
                &["authority"],
            )?,
            healthy,
            clock_offset,
            ocsp_signatures,
            enrollment_requests: counters(
                "enrollment_requests_total",
                "Requests to the enrollment endpoint, by what was asked and what came of it",
                &["service", "outcome"],
            )?,
            enrollment_refused: counters(
                "enrollment_refused_total",
                "Connections and requests that a limit of the enrollment endpoint refused",
                &["limit"],
            )?,
            catching_up: Mutex::default(),
            registry,
        })
    }

    /// A call was answered.
    pub(crate) fn rpc(&self, rpc: Rpc, code: tonic::Code, took: Duration) {
        self.rpcs.with_label_values(&[rpc.label(), code_label(code)]).inc();
        self.rpc_seconds.with_label_values(&[rpc.label()]).observe(took.as_secs_f64());
    }

    /// A user was decided on.
    pub(crate) fn authentication(&self, method: v1::AuthMethod, outcome: AuthOutcome) {
        let method = match method {
            v1::AuthMethod::Unspecified => "none",
            v1::AuthMethod::Pap => "pap",
            v1::AuthMethod::ChapMd5 => "chap_md5",
            v1::AuthMethod::Mschapv2 => "mschapv2",
        };
        self.authentications.with_label_values(&[method, outcome.label()]).inc();
    }

    /// A machine was decided on.
    pub(crate) fn admission(&self, admitted: Result<(), v1::CertificateVerdict>) {
        let label = match admitted {
            Ok(()) => "admitted",
            Err(v1::CertificateVerdict::Forged) => "forged",
            Err(v1::CertificateVerdict::Revoked) => "revoked",
            Err(v1::CertificateVerdict::Unknown | v1::CertificateVerdict::Unspecified) => "refused",
        };
        self.admissions.with_label_values(&[label]).inc();
    }

    /// A gateway has acknowledged a revocation so many milliseconds after it.
    pub(crate) fn revocation_acknowledged(&self, after_ms: u64) {
        self.revocation_seconds.observe(Duration::from_millis(after_ms).as_secs_f64());
    }

    /// Somebody connected.
    pub(crate) fn connection(&self, outcome: Connection) {
        self.connections.with_label_values(&[outcome.label()]).inc();
    }

    /// A machine has its certificate.
    pub(crate) fn issued(&self, method: v1::EnrollMethod) {
        let label = match method {
            v1::EnrollMethod::Unspecified => "issued",
            v1::EnrollMethod::Operator => "issued_by_operator",
            v1::EnrollMethod::Token => "issued_by_token",
            v1::EnrollMethod::List => "issued_by_list",
            v1::EnrollMethod::Approval => "issued_by_approval",
            v1::EnrollMethod::Renewal => "renewed",
        };
        self.enrollments.with_label_values(&[label]).inc();
    }

    /// A machine got no certificate.
    pub(crate) fn enrollment_refused(&self, kind: RefusalKind) {
        let label = match kind {
            RefusalKind::Unproven => "refused_unproven",
            RefusalKind::Ended => "refused_ended",
            RefusalKind::UsedUp => "refused_used_up",
            RefusalKind::Revoked => "refused_revoked",
            RefusalKind::Decided => "refused_decided",
            RefusalKind::Profile => "refused_profile",
            RefusalKind::TooOften => "refused_too_often",
        };
        self.enrollments.with_label_values(&[label]).inc();
    }

    /// A certificate that was to be signed was not what the log said of it.
    pub(crate) fn abandoned(&self) {
        self.enrollments.with_label_values(&["abandoned"]).inc();
    }

    /// The text that Prometheus reads.
    pub(crate) fn render(&self, core: &Core) -> Result<Vec<u8>, prometheus::Error> {
        self.gauge(core);
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    fn gauge(&self, core: &Core) {
        let set = |vec: &IntGaugeVec, labels: &[&str], value: u64| {
            vec.with_label_values(labels).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        let figures = core.node.figures();
        let running = *core.node.health().borrow() == Health::Running;
        self.healthy.set(i64::from(running && figures.leader != 0));
        self.clock_offset.set(core.node.time().offset_ms().unwrap_or(0) as f64 / 1_000.0);
        for (name, value) in [
            ("term", figures.term),
            ("leader_id", figures.leader),
            ("is_leader", u64::from(figures.leader == figures.id)),
            ("last_log_index", figures.last_log),
            ("applied_index", figures.applied),
            ("snapshot_index", figures.snapshot),
            ("purged_index", figures.purged),
        ] {
            set(&self.raft, &[name], value);
        }
        if let Some(front) = core.front() {
            let counts = front.endpoint().counts();
            let _alone = self.catching_up.lock().unwrap_or_else(PoisonError::into_inner);
            for (service, outcome) in Service::ALL
                .iter()
                .flat_map(|service| EnrollmentOutcome::ALL.iter().map(move |outcome| (*service, *outcome)))
            {
                let n = counts.requests(service, outcome);
                if n > 0 {
                    catch_up(&self.enrollment_requests.with_label_values(&[service.label(), outcome.label()]), n);
                }
            }
            catch_up(&self.ocsp_signatures, front.endpoint().office().ocsp_signatures());
            for limit in Limit::ALL {
                catch_up(&self.enrollment_refused.with_label_values(&[limit.label()]), counts.refused(*limit));
            }
        }
        self.pools.reset(); // a removed pool must not stay
        let (gateways_alive, now_ms) = (core.gateways_alive() as u64, core.now_ms());
        let state = core.node.shared().read();
        for name in state.pools.iter().map(|(name, _)| name) {
            let (size, used) = state.pool_use(name);
            set(&self.pools, &[name, "size"], size);
            set(&self.pools, &[name, "used"], used);
        }
        for (name, value) in [
            ("users", state.users.len()),
            ("sessions", state.sessions.len()),
            ("leases", state.leases()),
            ("certificates", state.certificates.len()),
            ("certificates_ended", state.ended.len()),
            ("gateways", state.gateways.len()),
            ("attempts", state.attempts.len()),
            ("machines", state.machines.len()),
            ("machines_overdue", state.count_overdue(now_ms)),
            ("gateways_overdue", state.overdue_gateways(now_ms).count()),
            ("enrollment_requests", state.requests.len()),
            ("enrollment_requests_waiting", state.requests_waiting()),
            ("intents", state.intents.len()),
        ] {
            set(&self.state, &[name], value as u64);
        }
        set(&self.state, &["audit_log_entries"], state.log_tree().size());
        set(&self.state, &["audit_log_alarms"], core.audit.witnesses.in_trouble() as u64);
        set(&self.state, &["gateways_alive"], gateways_alive);
        self.authorities.reset(); // one that was retired must not stay
        let roots = state.trusted_roots().map(|(number, row)| (format!("root {number}"), &row.certificate));
        let issuers = state.issuers_in_force().map(|(number, row)| (format!("issuing {number}"), &row.certificate));
        for (name, der) in roots.chain(issuers) {
            if let Ok(certificate) = sallyport_ca::Certificate::from_der(der) {
                self.authorities.with_label_values(&[&name]).set(certificate.not_after.0);
            }
        }
    }
}

const fn code_label(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}
