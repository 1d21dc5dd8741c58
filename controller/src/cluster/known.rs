//! Whether who answers at a member's address is one: its certificate chains to the root even after it was removed.

use std::sync::{Arc, Mutex, PoisonError};

use sallyport_ca::Certificate;
use sallyport_proto::v1;
use subtle::ConstantTimeEq;

use crate::app::Core;
use crate::state::State;

/// So many certificates are kept at most: there are as many as members, and now and then a new one.
const KEPT: usize = 32;

/// Certificates as they were read: each call asks about the same few.
#[derive(Default)]
pub(super) struct Faces(Mutex<Vec<Arc<Certificate>>>);

impl Faces {
    fn read(&self, der: &[u8]) -> Result<Arc<Certificate>, String> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept.iter().find(|known| known.der() == der) {
            return Ok(known.clone());
        }
        let new = Arc::new(Certificate::from_der(der).map_err(|e| e.to_string())?);
        if kept.len() == KEPT {
            kept.clear();
        }
        kept.push(new.clone());
        Ok(new)
    }
}

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
pub(super) fn judge(core: &Core, faces: &Faces, certificate: &[u8]) -> Result<(), String> {
    let (node, certificate) = (&core.node, faces.read(certificate)?);
    // It may say more than a state that is behind.
    core.links.trust().judge(&certificate)?;
    let complete = node.leads_and_knows();
    let group = |id: u64| node.membership().addresses.contains_key(&id);
    View { state: &node.shared().read(), complete, group: &group }.judge(&certificate)
}

impl View<'_> {
    fn judge(&self, certificate: &Certificate) -> Result<(), String> {
        // Nothing is known yet to a node that is about to receive the state, but whom the root has taken back (`trust`).
        if self.state.members.is_empty() {
            return Ok(());
        }
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
        let removed = self.state.was_removed(record);
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
