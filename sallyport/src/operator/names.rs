//! Names of the contract's numbers, as tables and JSON show them.

use sallyport_base::UnixTime;
use sallyport_proto::v1::{
    AuthMethod, CertificateProfile, CertificateVerdict, EndReason, EnrollMethod, KeyAlgorithm, MachineAuth, MemberRole,
    Outcome, Phase, RequestState, RevocationReason, SessionState,
};

/// Milliseconds of the contract as whole seconds.
pub(crate) fn unix(ms: u64) -> UnixTime {
    UnixTime(i64::try_from(ms / 1000).unwrap_or(i64::MAX))
}

/// A connection's phase.
pub(super) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Unspecified => "",
        Phase::IkeMainMode => "ike-main-mode",
        Phase::IkeQuickMode => "ike-quick-mode",
        Phase::L2tpTunnel => "l2tp-tunnel",
        Phase::L2tpSession => "l2tp-session",
        Phase::Lcp => "lcp",
        Phase::Authentication => "authentication",
        Phase::Authorization => "authorization",
        Phase::Ipcp => "ipcp",
        Phase::Up => "up",
        Phase::Enrollment => "enrollment",
        Phase::AuditLog => "audit-log",
    }
}

/// How an attempt ended.
pub(super) fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Unspecified => "",
        Outcome::Accepted => "accepted",
        Outcome::Refused => "refused",
        Outcome::Abandoned => "abandoned",
        Outcome::Ended => "ended",
    }
}

/// Why a session ended.
pub(super) fn end_reason(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Unspecified => "",
        EndReason::Client => "client",
        EndReason::PeerSilent => "peer-silent",
        EndReason::IdleTimeout => "idle-timeout",
        EndReason::SessionTimeout => "session-timeout",
        EndReason::Killed => "killed",
        EndReason::Revoked => "revoked",
        EndReason::GatewayShutdown => "gateway-shutdown",
        EndReason::GatewayLost => "gateway-lost",
        EndReason::ProtocolError => "protocol-error",
        EndReason::NeverUp => "never-up",
    }
}

/// A PPP authentication protocol.
pub(super) fn auth_method(method: AuthMethod) -> &'static str {
    match method {
        AuthMethod::Unspecified => "",
        AuthMethod::Pap => "pap",
        AuthMethod::ChapMd5 => "chap-md5",
        AuthMethod::Mschapv2 => "mschapv2",
    }
}

/// How a machine proved itself.
pub(super) fn machine_auth(auth: MachineAuth) -> &'static str {
    match auth {
        MachineAuth::Unspecified => "",
        MachineAuth::Certificate => "certificate",
        MachineAuth::Psk => "psk",
    }
}

/// Where a session is in its life.
pub(super) fn session_state(state: SessionState) -> &'static str {
    match state {
        SessionState::Unspecified => "",
        SessionState::Authorized => "authorized",
        SessionState::Up => "up",
        SessionState::Down => "down",
    }
}

/// What a controller is.
pub(super) fn member_role(role: MemberRole) -> &'static str {
    match role {
        MemberRole::Unspecified => "",
        MemberRole::Leader => "leader",
        MemberRole::Voter => "voter",
        MemberRole::Learner => "learner",
        MemberRole::Changing => "changing",
    }
}

/// What a certificate is for.
pub(super) fn profile(profile: CertificateProfile) -> &'static str {
    match profile {
        CertificateProfile::Unspecified => "",
        CertificateProfile::Machine => "machine",
        CertificateProfile::Gateway => "gateway",
        CertificateProfile::GatewayLink => "gateway-link",
        CertificateProfile::Operator => "operator",
        CertificateProfile::Controller => "controller",
        CertificateProfile::Root => "root",
        CertificateProfile::Endpoint => "endpoint",
        CertificateProfile::Issuing => "issuing",
        CertificateProfile::User => "user",
        CertificateProfile::OcspSigner => "ocsp-signer",
        CertificateProfile::ScepRa => "scep-ra",
    }
}

/// A way to a certificate.
pub(super) fn enroll_method(method: EnrollMethod) -> &'static str {
    match method {
        EnrollMethod::Unspecified => "",
        EnrollMethod::Operator => "operator",
        EnrollMethod::Token => "token",
        EnrollMethod::List => "list",
        EnrollMethod::Approval => "approval",
        EnrollMethod::Renewal => "renewal",
    }
}

/// Why a certificate is revoked.
pub(super) fn revocation_reason(reason: RevocationReason) -> &'static str {
    match reason {
        RevocationReason::Unspecified => "unspecified",
        RevocationReason::KeyCompromise => "key-compromise",
        RevocationReason::CaCompromise => "ca-compromise",
        RevocationReason::AffiliationChanged => "affiliation-changed",
        RevocationReason::Superseded => "superseded",
        RevocationReason::CessationOfOperation => "cessation-of-operation",
        RevocationReason::CertificateHold => "certificate-hold",
        RevocationReason::PrivilegeWithdrawn => "privilege-withdrawn",
        RevocationReason::AaCompromise => "aa-compromise",
    }
}

/// What is wrong with a certificate that verifies.
pub(super) fn certificate_verdict(verdict: CertificateVerdict) -> &'static str {
    match verdict {
        CertificateVerdict::Unspecified => "",
        CertificateVerdict::Forged => "forged",
        CertificateVerdict::Revoked => "revoked",
        CertificateVerdict::Unknown => "unknown",
    }
}

/// What became of a request.
pub(super) fn request_state(state: RequestState) -> &'static str {
    match state {
        RequestState::Unspecified => "",
        RequestState::Waiting => "waiting",
        RequestState::Approved => "approved",
        RequestState::Refused => "refused",
        RequestState::Issued => "issued",
    }
}

/// A kind of key.
pub(super) fn key_algorithm(algorithm: KeyAlgorithm) -> &'static str {
    match algorithm {
        KeyAlgorithm::Unspecified => "",
        KeyAlgorithm::EcdsaP256 => "ecdsa-p256",
        KeyAlgorithm::EcdsaP384 => "ecdsa-p384",
        KeyAlgorithm::Rsa2048 => "rsa-2048",
        KeyAlgorithm::Rsa3072 => "rsa-3072",
        KeyAlgorithm::Rsa4096 => "rsa-4096",
    }
}

/// Bytes in the unit that leaves one to four digits.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (count, 0);
    while value >= 10_000 && unit + 1 < UNITS.len() {
        value /= 1024;
        unit += 1;
    }
    format!("{value} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_few_digits() {
        for (count, text) in [(0, "0 B"), (9_999, "9999 B"), (10_240, "10 KiB"), (u64::MAX, "16383 PiB")] {
            assert_eq!(bytes(count), text);
        }
    }
}
