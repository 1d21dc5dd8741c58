//! Whether a machine may in: what is said of a certificate whose chain and signature a gateway found good.

use sallyport_proto::v1::{self, CertificateVerdict as Verdict};
use subtle::ConstantTimeEq;

use crate::state::State;

/// Why it may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// What kind of why.
    pub(super) verdict: Verdict,
    /// What went wrong.
    pub(super) cause: String,
    /// What to change.
    pub(super) remedy: String,
}

/// What to do when somebody else has signed with our key.
const FORGED: &str = "somebody else signs with the authority's key: replace it (sallyport ca issuer add --replace, then new \
    certificates for all machines) and find out who had it";
/// What to do about a certificate that a restored backup may have lost.
const LOST: &str = "let the machine in anew: `sallyport token create --machine NAME`, and there `sallyport enroll` with that token; if \
    nobody knows the machine, somebody else signs with the authority's key: sallyport ca issuer add --replace";

/// The name of the machine, or why it may not in. The chain is good: so a certificate that the log does not hold was signed with our
/// key by somebody else, and one that it holds under another fingerprint, too. But a log that a backup gave back has lost its end:
/// what is from before the restore may be honest. It stays out all the same, as nobody knows whether it was revoked.
pub(super) fn judge(state: &State, request: &v1::AdmitPeerRequest, at_ms: u64) -> Result<String, Refusal> {
    let serial = &request.certificate_serial;
    let forged = |cause: String| Err(Refusal { verdict: Verdict::Forged, cause, remedy: FORGED.into() });
    let known = state.certificates.get(serial).map(|row| bool::from(row.fingerprint.ct_eq(&request.fingerprint)));
    let known = known.or_else(|| state.ended.get(serial).map(|old| old.has(&request.fingerprint)));
    let Some(is_it) = known else {
        if request.not_before_unix_ms != 0 && request.not_before_unix_ms < state.begun_ms() {
            let cause = format!(
                "unknown: the log of this authority holds no certificate with serial number {serial}; it is from before the controllers \
                 were restored from a backup, which may have lost it"
            );
            return Err(Refusal { verdict: Verdict::Unknown, cause, remedy: LOST.into() });
        }
        return forged(format!(
            "forged: the certificate verifies, but the log of this authority holds no certificate with serial number {serial}"
        ));
    };
    if !is_it {
        return forged(format!(
            "forged: the certificate verifies, but with serial number {serial} it is not the one that this authority issued under it"
        ));
    }
    match state.machine_certificate(serial, at_ms) {
        Ok(row) => Ok(row.name.clone()),
        Err((cause, remedy)) => {
            let revoked = state.standing(serial).is_some_and(|standing| standing.revoked_ms != 0);
            let verdict = if revoked { Verdict::Revoked } else { Verdict::Unspecified };
            Err(Refusal { verdict, cause, remedy })
        }
    }
}

#[cfg(test)]
mod tests;
