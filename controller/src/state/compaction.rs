//! Certificates that ended long ago make room: their records go, and what may still be asked of them stays in [`super::Ended`].
//!
//! The leader looks for them (`controller/src/compaction.rs`) and names them; here it is judged by the log's time, on each member alike.

use sallyport_ca::crl::Reason;
use sallyport_proto::v1;

use super::enroll::{MAX_LATE_S, RefusalKind};
use super::{CertificateRow, ConflictKind, Ended, Index, Reply, State};

/// The level of everything here.
pub(crate) const COMPACTION_LEVEL: u32 = 7;
/// The level from which on the certificate itself goes with its record, where nothing replaced it.
const KEPT_LEVEL: u32 = 8;
/// How long after its end the whole record of a certificate stays.
pub const KEPT_MS: u64 = 400 * 86_400 * 1_000;
/// Most certificates that one command is about.
pub const MAX_COMPACTED: usize = 1_000;

// By none of them is anything renewed any more, however late.
const _: () = assert!(KEPT_MS > MAX_LATE_S * 1_000);

/// Certificates that ended long ago make room.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CompactCertificates {
    /// Their serial numbers.
    #[prost(string, repeated, tag = "1")]
    pub serials: Vec<String>,
}

/// Until when a certificate was good, and whether it was taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Valid until.
    pub not_after_ms: u64,
    /// When revoked; 0 for not.
    pub revoked_ms: u64,
}

impl Index {
    fn drop_certificate(&mut self, row: &CertificateRow) {
        self.certificates.remove(&row.number);
        self.drop_standing(row);
        self.drop_member_certificate(row);
        self.drop_gateway_certificate(row);
        self.drop_link_certificate(row);
        self.drop_operator_certificate(row);
    }
}

impl State {
    /// Whether nothing asks for the whole record of a certificate any more.
    pub fn may_be_compacted(&self, row: &CertificateRow) -> bool {
        use v1::CertificateProfile as P;
        let ended = row.not_after_ms.saturating_add(KEPT_MS) <= self.now_ms();
        // What was removed from the cluster is told so by its record, and authorities have certificates below them.
        let kept = matches!(row.profile(), P::Unspecified | P::Root | P::Issuing | P::Controller);
        // The numbers of the last ones say how far everybody is.
        let last = |number: u64, last: u64| number != 0 && number >= last;
        ended
            && !kept
            && !row.is_on_hold()
            && !last(row.revocation_number, self.last_revocation())
            && !last(row.release_number, self.last_revocation_or_release())
            && !self.index.sessions_of_machine.contains_key(&row.serial)
            && Ended::takes(row)
    }

    pub(super) fn compact_certificates(&mut self, command: &CompactCertificates) -> Reply {
        if command.serials.len() > MAX_COMPACTED {
            return Reply::conflict(ConflictKind::Invalid, format!("more than {MAX_COMPACTED} certificates at once"));
        }
        for serial in &command.serials {
            let Some(row) = self.certificates.get(serial).filter(|row| self.may_be_compacted(row)) else { continue };
            if self.ended.insert(row)
                && let Some(row) = self.certificates.remove(serial)
            {
                self.index.drop_certificate(&row);
                if self.level() >= KEPT_LEVEL && row.profile() == v1::CertificateProfile::Machine {
                    self.forget_certificate(serial);
                }
            }
        }
        Reply::done()
    }

    /// Whether the log ever issued a certificate under this serial number.
    pub(super) fn is_used(&self, serial: &String) -> bool {
        self.certificates.contains(serial) || self.ended.contains(serial)
    }

    /// How a certificate stands, however long ago it ended.
    pub fn standing(&self, serial: &String) -> Option<Standing> {
        if let Some(row) = self.certificates.get(serial) {
            return Some(Standing { not_after_ms: row.not_after_ms, revoked_ms: row.revoked_ms });
        }
        let old = self.ended.get(serial)?;
        Some(Standing { not_after_ms: old.not_after_ms, revoked_ms: old.revoked_ms })
    }

    /// What is said to whoever shows a certificate that ended long ago.
    pub(super) fn refuse_ended(&self, serial: &str) -> Option<(RefusalKind, String)> {
        let old = self.ended.get(serial)?;
        let (kind, how) = match (old.revoked_ms, old.reason) {
            (0, _) => (RefusalKind::Ended, "has ended, too long ago to be renewed".to_owned()),
            (_, Reason::Unspecified) => (RefusalKind::Revoked, "is revoked".to_owned()),
            (_, reason) => (RefusalKind::Revoked, format!("is revoked: {}", reason.name())),
        };
        Some((kind, format!("the certificate of {:?} (serial number {serial}) {how}", old.name)))
    }

    /// Why a certificate that ended long ago is neither revoked nor released.
    pub(super) fn refuse_to_revoke_ended(&self, serial: &str) -> Option<Reply> {
        let old = self.ended.get(serial)?;
        let mut message =
            format!("the certificate of {:?} (serial number {serial}) ended long ago and opens nothing", old.name);
        if old.profile == v1::CertificateProfile::Machine {
            message += &format!("; sallyport cert revoke --machine {} takes back what that machine has now", old.name);
        }
        Some(Reply::conflict(ConflictKind::Precondition, message))
    }
}

#[cfg(test)]
mod tests;
