//! Operators' own certificates.

use sallyport_ca::{Fingerprint, Profile, PublicKey};
use sallyport_proto::v1;
use tonic::Status;

use super::super::caller::Caller;
use super::super::gateway::dedup_id;
use super::super::gateway::renew::MAX_CSR;
use super::OperatorService;
use crate::authority::{self, Certified};

impl OperatorService {
    pub(super) async fn do_renew_operator(
        &self,
        caller: &Caller,
        request: v1::RenewOperatorRequest,
    ) -> Result<v1::RenewOperatorResponse, Status> {
        if request.csr.len() > MAX_CSR {
            return Err(Status::invalid_argument(format!("csr: at most {MAX_CSR} bytes")));
        }
        let public = PublicKey::from_csr_der(&request.csr).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let present = self.core.node.shared().read().certificates.get(&caller.serial).cloned();
        let present = present.ok_or_else(|| Status::internal("a caller without a record"))?;
        let what =
            Certified { profile: Profile::Operator, name: present.name, names: Vec::new(), member: present.member };
        // The same operator with the same key asks the same question.
        let id = dedup_id(&caller.serial, "renew operator", &Fingerprint::of(public.spki_der()).0);
        let issued = authority::certify_once(&self.core, &public, what, id).await?;
        self.core.catch_up().await;
        tracing::info!(operator = %caller.name, serial = %issued.serial, "an operator has a new certificate");
        let state = self.core.node.shared().read();
        let issuer = state.certificates.get(&issued.serial).map_or(0, |record| record.issuer);
        Ok(v1::RenewOperatorResponse { certificate: issued.certificate, chain: state.chain_of(issuer) })
    }
}
