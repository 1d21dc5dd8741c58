//! What changes in a state when a new cluster begins with it, which a backup gave back.

use sallyport_ca::crl::Reason;
use sallyport_proto::v1;

use super::State;

/// By how much numbers go up that somebody who saw the lost end of the old log may still hold: no epoch of a gateway and no
/// version of the policy comes twice.
const LEAP: u64 = 1 << 32;

/// Why what was before is over.
pub(super) const RESTORED: &str = "the controllers were restored from a backup";

impl State {
    /// Begins anew: the log's time is at least `now_ms`, the sessions are over, and every gateway must register again.
    /// What was issued and revoked stays, and is numbered on. The controllers that were are no members any more, and their
    /// certificates are revoked: none of them is heard that still runs, with what it knows of the lost end of the log.
    pub(crate) fn begin_anew(&mut self, now_ms: u64) {
        let mark = self.mark(None);
        self.change_core(|core| {
            core.now_ms = core.now_ms.max(now_ms);
            core.begun_ms = now_ms.max(core.begun_ms + 1);
            core.last_epoch += LEAP;
            core.policy_version += LEAP;
        });
        let sessions: Vec<u64> = self.sessions.iter().map(|(id, _)| *id).collect();
        for id in sessions {
            self.end_session(id, v1::EndReason::GatewayLost, RESTORED);
        }
        let gateways: Vec<u32> = self.gateways.iter().map(|(slot, _)| *slot).collect();
        for slot in gateways {
            if let Some(gateway) = self.gateways.change(&slot) {
                gateway.lost = true;
            }
        }
        // The new cluster is one node, which describes itself; the ids of the others are not used again.
        let members: Vec<u64> = self.members.iter().map(|(id, _)| *id).collect();
        for id in members {
            self.members.remove(&id);
        }
        let tokens: Vec<Vec<u8>> = self.tokens.iter().map(|(id, _)| id.clone()).collect();
        for id in tokens {
            self.tokens.remove(&id);
        }
        // What was used up or taken back since the backup would be good again.
        while self.enroll_tokens.pop_first().is_some() {}
        while self.requests.pop_first().is_some() {}
        while self.intents.pop_first().is_some() {}
        let listed: Vec<String> =
            self.machines.iter().filter(|(_, m)| m.network.is_some()).map(|(k, _)| k.clone()).collect();
        for key in listed {
            if let Some(machine) = self.machines.change(&key) {
                machine.network = None;
            }
        }
        self.index = self.build_index();
        let controllers: Vec<String> = self
            .certificates
            .iter()
            .filter(|(_, c)| c.profile() == v1::CertificateProfile::Controller && c.revoked_ms == 0)
            .map(|(serial, _)| serial.clone())
            .collect();
        for serial in controllers {
            self.revoke_one(&serial, Reason::CessationOfOperation, RESTORED);
        }
        // Lists of the lost end of the log are no start for what is to come.
        self.restart_deltas();
        self.log_restored(&mark);
    }

    /// Number of the certificate that was issued or revoked last.
    pub(crate) fn last_certificate(&self) -> u64 {
        self.core_row().map_or(0, |core| core.last_certificate)
    }
}
