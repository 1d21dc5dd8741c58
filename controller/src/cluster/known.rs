//! Whether who answers at a member's address is one: its certificate chains to the root even after it was removed.

use sallyport_ca::Certificate;
use sallyport_proto::v1;
use subtle::ConstantTimeEq;

use crate::app::Core;
use crate::state::State;

/// What a node goes by.
pub(super) struct View<'a> {
    /// Its state.
    pub(super) state: &'a State,
    /// Whether that holds everything that was acknowledged before this node began to lead. One that follows may lack the record
    /// of a member that joined lately.
    pub(super) complete: bool,
    /// Members of Raft's group, which follows the rows of the state: until a removed one is out, its voice may be needed.
    pub(super) group: &'a dyn Fn(u64) -> bool,
}

/// Judges the certificate (DER) that a server shows.
pub(super) fn judge(core: &Core, certificate: &[u8]) -> Result<(), String> {
    let node = &core.node;
    // It may say more than a state that is behind.
    core.links.trust().judge(certificate)?;
    let complete = node.leads_and_knows();
    let membership = node.membership();
    let group = |id: u64| membership.addresses.contains_key(&id);
    View { state: &node.shared().read(), complete, group: &group }.judge(certificate)
}

impl View<'_> {
    fn judge(&self, certificate: &[u8]) -> Result<(), String> {
        // Nothing is known yet to a node that is about to receive the state, but whom the root has taken back (`trust`).
        if self.state.members.is_empty() {
            return Ok(());
        }
        let certificate = Certificate::from_der(certificate).map_err(|e| e.to_string())?;
        let serial = certificate.serial.to_string();
        let Some(record) = self.state.certificates.get(&serial) else {
            return match self.complete {
                true => {
                    Err(format!("its certificate (serial number {serial}) is not in the records of this authority"))
                }
                false => Ok(()),
            };
        };
        if !bool::from(record.fingerprint.ct_eq(&certificate.fingerprint.0))
            || record.profile() != v1::CertificateProfile::Controller
        {
            return Err(format!("its certificate (serial number {serial}) is not a controller's"));
        }
        let id = record.member;
        let removed = self.state.members.get(&id).is_some_and(|m| m.removed_ms != 0);
        if removed && !(self.group)(id) {
            return Err(format!("controller {id}, which answers there, was removed from the cluster"));
        }
        if record.revoked_ms != 0 && !removed {
            return Err(format!("the certificate of controller {id} (serial number {serial}) is revoked"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
