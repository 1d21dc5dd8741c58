//! The root's life: its key out and back, a root elsewhere above it, another root in its place.

use sallyport_ca::{KeyAlgorithm, PublicKey};
use sallyport_proto::v1;
use sallyport_proto::v1::manage_root_request::Step;
use tonic::Status;
use zeroize::Zeroizing;

use super::super::caller::Caller;
use super::super::error::done;
use super::OperatorService;
use crate::authority::{algorithm_to_proto, rollover, root};
use crate::error::Error;
use crate::state::{Action, KeyUse, LEDGER_LEVEL, NoteKeyUse};

impl OperatorService {
    pub(super) async fn do_manage_root(
        &self,
        caller: &Caller,
        request: v1::ManageRootRequest,
    ) -> Result<v1::ManageRootResponse, Status> {
        let number = match request.root {
            0 => self.core.node.shared().read().root_number(),
            number => number,
        };
        if !self.core.node.shared().read().roots.contains(&number) {
            return Err(Status::not_found(format!("there is no root {number}; see sallyport ca list")));
        }
        let step = request.step.ok_or_else(|| Status::invalid_argument("step: say what to do"))?;
        if !matches!(step, Step::Look(_)) {
            self.may(caller, super::roles::KEYS)?;
        }
        let noted = what(&step);
        // How far a change of roots is takes a look at all certificates: only who asks about one is told.
        let turns =
            matches!(step, Step::Look(_) | Step::Begin(_) | Step::Activate(_) | Step::Finish(_) | Step::Abort(_));
        let (mut private_key, mut made) = (None, Vec::new());
        match step {
            Step::Look(v1::LookAtRoot {}) => {}
            Step::Export(v1::ExportRootKey {}) => {
                let key = self.core.root_authority_of(number)?.authority;
                self.note_key_use(KeyUse::Exported, number).await?;
                private_key = Some(v1::Secret::new(key.private_key().pkcs8_der().to_vec()));
            }
            Step::Erase(erase) => self.erase(number, &erase).await?,
            Step::Import(import) => {
                let key = import.private_key.map(v1::Secret::into_inner).unwrap_or_default();
                root::import(&self.core, number, Zeroizing::new(key.to_vec()), import.for_s).await?;
            }
            Step::Request(v1::RequestChain {}) => {
                let authority = self.core.root_authority_of(number)?.authority;
                self.note_key_use(KeyUse::Requested, number).await?;
                let signed = authority.authority_request(self.core.sealer.rng());
                made = signed.map_err(|e| Error::Authority(e.to_string()))?;
            }
            Step::Install(install) => root::install(&self.core, number, install.above).await?,
            Step::Begin(begin) => {
                let kind = KeyAlgorithm::ALL.into_iter().find(|k| algorithm_to_proto(*k) == begin.key_algorithm());
                rollover::begin(&self.core, kind, begin.common_name).await?;
            }
            Step::Activate(step) => rollover::activate(&self.core, step.force).await?,
            Step::Finish(step) => rollover::finish(&self.core, step.force).await?,
            Step::Abort(v1::AbortRollover {}) => rollover::abort(&self.core).await?,
        }
        if let Some(what) = noted {
            tracing::warn!(operator = %caller.name, serial = %caller.serial, root = number, "an operator {what}");
        }
        Ok(v1::ManageRootResponse {
            info: self.root_info(number),
            private_key,
            request: made,
            cluster_id: self.core.cluster_id(),
            rollover: if turns { rollover::status(&self.core).await? } else { None },
        })
    }

    /// Puts it into the audit log that a key is about to be used, or to leave: whoever calls this does neither before it is there.
    pub(super) async fn note_key_use(&self, purpose: KeyUse, root: u64) -> Result<(), Status> {
        if self.core.node.shared().read().level() < LEDGER_LEVEL {
            return Ok(()); // there is no such log yet
        }
        // Each has an entry of its own, also where a caller asks twice by the same name.
        done(self.core.propose(Action::NoteKeyUse(NoteKeyUse { purpose: purpose.into(), root })).await?)?;
        self.core.catch_up().await;
        Ok(())
    }

    /// Erases a key that the caller has shown to be in other hands.
    async fn erase(&self, number: u64, erase: &v1::EraseRootKey) -> Result<(), Status> {
        let certificate = {
            let state = self.core.node.shared().read();
            state.roots.get(&number).map(|row| row.certificate.clone()).unwrap_or_default()
        };
        let parsed = sallyport_ca::Certificate::from_der(&certificate).map_err(|e| Error::Internal(e.to_string()))?;
        if erase.fingerprint != parsed.fingerprint.0 {
            return Err(Status::invalid_argument(format!(
                "fingerprint: the root's is {}; look at it: sallyport ca list",
                parsed.fingerprint
            )));
        }
        let public = PublicKey::from_spki_der(&parsed.spki_der()).map_err(|e| Error::Internal(e.to_string()))?;
        if !public.verifies(&root::erasure_proof(&self.core.cluster_id(), &certificate), &erase.proof) {
            return Err(Status::invalid_argument(
                "proof: what was shown does not open the root's private key, so it stays; export it first: sallyport ca root export",
            ));
        }
        Ok(root::erase(&self.core, number).await?)
    }

    fn root_info(&self, number: u64) -> Option<v1::RootInfo> {
        let state = self.core.node.shared().read();
        let (row, life) = (state.roots.get(&number)?, state.root_life(number));
        let away = row.sealed_key.is_empty();
        Some(v1::RootInfo {
            number,
            certificate: row.certificate.clone(),
            has_key: !away,
            erased_unix_ms: life.erased_ms,
            key_until_unix_ms: life.key_until_ms,
            list_until_unix_ms: if away { life.own_list_until_ms } else { 0 },
            above: life.above,
        })
    }
}

/// What is noted of a step, if it is noted.
const fn what(step: &Step) -> Option<&'static str> {
    Some(match step {
        Step::Look(_) => return None,
        Step::Export(_) => "took the root's private key",
        Step::Erase(_) => "erased the root's private key",
        Step::Import(_) => "brought the root's private key back",
        Step::Request(_) => "made a request for a certificate of the root by another authority",
        Step::Install(_) => "changed what the root stands below",
        Step::Begin(_) => "began a change of roots",
        Step::Activate(_) => "let the next root issue",
        Step::Finish(_) => "ended the trust in the root before",
        Step::Abort(_) => "went back to the root before",
    })
}
