//! Revocation: by serial number, machine or holder, on hold or for good; release; and how far the gateways are.

use std::time::Duration;

use sallyport_ca::crl::Reason;
use sallyport_proto::v1;
use tonic::Status;

use super::super::caller::Caller;
use super::super::convert::certificate;
use super::super::error::conflict;
use super::super::gateway::dedup_id;
use super::super::live::lineage;
use super::OperatorService;
use super::certificates::{MAX_REASON, serial};
use crate::state::{
    Action, Outcome, REVOCATION_LEVEL, ReleaseCertificates, RevokeCertificate, RevokeCertificates, Revoked, Selector,
};

/// Longest name of a machine or holder, bytes.
const MAX_NAME: usize = 256;
/// Longest wait in one call, milliseconds.
const MAX_WAIT_MS: u32 = 5_000;
/// Between two looks at what the gateways have said.
const LOOK: Duration = Duration::from_millis(20);

fn selector(which: Selector) -> Result<Selector, Status> {
    match which {
        Selector::Serial(text) => serial(&text).map(Selector::Serial),
        Selector::Machine(name) | Selector::Holder(name) if name.is_empty() || name.len() > MAX_NAME => {
            Err(Status::invalid_argument("the name of a machine or a holder has 1 to 256 bytes"))
        }
        named => Ok(named),
    }
}

fn none() -> Status {
    Status::invalid_argument("say which certificates: a serial number, a machine or a holder")
}

impl OperatorService {
    /// Puts it into the log; what came of it.
    async fn take_back(&self, caller: &Caller, what: &str, action: Action) -> Result<Revoked, Status> {
        let reply = match &caller.request_id {
            Some(id) => self.core.propose_as(dedup_id(&caller.serial, what, id), action).await?,
            None => self.core.propose(action).await?,
        };
        let revoked = match reply.outcome {
            Some(Outcome::Revoked(revoked)) => revoked,
            Some(Outcome::Conflict(c)) => return Err(conflict(c)),
            other => return Err(Status::internal(format!("unexpected answer {other:?}"))),
        };
        self.core.catch_up().await;
        let count = revoked.serials.len();
        tracing::info!(operator = %caller.name, serial = %caller.serial, what, count, "an operator changed something");
        Ok(revoked)
    }

    /// Whether the caller may take these back, or give them back.
    fn may_select(&self, caller: &Caller, which: &Selector) -> Result<(), Status> {
        match which {
            Selector::Serial(serial) => self.may_touch(caller, serial),
            Selector::Machine(_) | Selector::Holder(_) => self.may(caller, super::roles::ENROLLMENT),
        }
    }

    /// The records as they are now, and the name of the change.
    fn changed(&self, revoked: &Revoked) -> (Vec<v1::CertificateInfo>, Option<v1::RevocationChange>) {
        let state = self.core.node.shared().read();
        let rows = revoked.serials.iter().filter_map(|serial| state.certificates.get(serial));
        let change = v1::RevocationChange { after: revoked.after, last: revoked.last, at_unix_ms: revoked.at_ms };
        (rows.map(certificate).collect(), Some(change))
    }

    pub(super) async fn do_revoke_certificates(
        &self,
        caller: &Caller,
        request: v1::RevokeCertificatesRequest,
    ) -> Result<v1::RevokeCertificatesResponse, Status> {
        use v1::revoke_certificates_request::Which;
        if request.text.len() > MAX_REASON {
            return Err(Status::invalid_argument(format!("text: at most {MAX_REASON} bytes")));
        }
        let code = u8::try_from(request.reason).ok().and_then(Reason::from_code);
        let reason = code.ok_or_else(|| Status::invalid_argument("reason: none of RFC 5280"))?;
        let which = selector(match request.which.ok_or_else(none)? {
            Which::Serial(serial) => Selector::Serial(serial),
            Which::Machine(name) => Selector::Machine(name),
            Which::Holder(name) => Selector::Holder(name),
        })?;
        self.may_select(caller, &which)?;
        let old = self.core.node.shared().read().level() < REVOCATION_LEVEL;
        let revoked = match which {
            // While the controllers are upgraded, too, a certificate must be revocable.
            Selector::Serial(serial) if old && reason != Reason::CertificateHold => {
                let text = match (reason, request.text.as_str()) {
                    (Reason::Unspecified, text) => text.to_owned(),
                    (reason, "") => reason.name().to_owned(),
                    (reason, text) => format!("{} ({text})", reason.name()),
                };
                self.revoke_as_before(caller, serial, text).await?
            }
            which => {
                let command = RevokeCertificates { which: Some(which), code: reason.code().into(), text: request.text };
                self.take_back(caller, "revoke certificates", Action::RevokeCertificates(command)).await?
            }
        };
        let (certificates, revocation) = self.changed(&revoked);
        Ok(v1::RevokeCertificatesResponse {
            certificates,
            ended_sessions: revoked.ended_sessions,
            revocation,
            tokens: revoked.tokens,
            requests: revoked.requests,
        })
    }

    async fn revoke_as_before(&self, caller: &Caller, serial: String, reason: String) -> Result<Revoked, Status> {
        let after = self.core.node.shared().read().last_certificate();
        let command = Action::RevokeCertificate(RevokeCertificate { serial, reason });
        let done = self.change(caller, "revoke certificate", command).await?;
        let state = self.core.node.shared().read();
        let serials = state.revocations_after(after).map(|row| row.serial.clone()).collect();
        let (ended_sessions, last, at_ms) = (done.ended_sessions, state.last_certificate(), state.now_ms());
        Ok(Revoked { serials, ended_sessions, after, last, at_ms, ..Revoked::default() })
    }

    pub(super) async fn do_release_certificates(
        &self,
        caller: &Caller,
        request: v1::ReleaseCertificatesRequest,
    ) -> Result<v1::ReleaseCertificatesResponse, Status> {
        use v1::release_certificates_request::Which;
        let which = selector(match request.which.ok_or_else(none)? {
            Which::Serial(serial) => Selector::Serial(serial),
            Which::Machine(name) => Selector::Machine(name),
            Which::Holder(name) => Selector::Holder(name),
        })?;
        self.may_select(caller, &which)?;
        let command = Action::ReleaseCertificates(ReleaseCertificates { which: Some(which) });
        let released = self.take_back(caller, "release certificates", command).await?;
        let (certificates, revocation) = self.changed(&released);
        Ok(v1::ReleaseCertificatesResponse { certificates, revocation })
    }

    pub(super) async fn do_get_revocation(
        &self,
        _caller: &Caller,
        request: v1::GetRevocationRequest,
    ) -> Result<v1::GetRevocationResponse, Status> {
        let revocation = request.revocation.ok_or_else(|| Status::invalid_argument("revocation: say which"))?;
        let wait = Duration::from_millis(request.wait_ms.min(MAX_WAIT_MS).into());
        let watch = async {
            loop {
                let answer = self.progress(revocation);
                if answer.done {
                    return answer;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        Ok(tokio::time::timeout(wait, watch).await.unwrap_or_else(|_| self.progress(revocation)))
    }

    fn progress(&self, revocation: v1::RevocationChange) -> v1::GetRevocationResponse {
        let (core, log_ms) = (&self.core, self.core.now_ms());
        let state = core.node.shared().read();
        let lineage = lineage(&state);
        let seen = |slot: &u32| core.soft.lock().gateways.get(slot).map_or(0, |signs| signs.seen_unix_ms);
        let mut gateways: Vec<v1::GatewayRevocation> = state
            .gateways
            .iter()
            .filter(|(_, gateway)| !gateway.lost)
            .map(|(slot, gateway)| v1::GatewayRevocation {
                gateway: gateway.name.clone(),
                last_seen_unix_ms: seen(slot),
                ..core.live.progress(*slot, gateway.epoch, lineage, revocation, log_ms)
            })
            .collect();
        gateways.sort_by(|a, b| a.gateway.cmp(&b.gateway));
        let done = gateways.iter().all(|g| g.state() != v1::RevocationState::Waiting);
        v1::GetRevocationResponse { gateways, done }
    }
}
