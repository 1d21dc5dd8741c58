//! A gateway asks as a witness how the audit log goes on.

use sallyport_ca::merkle::SignedTreeHead;
use sallyport_proto::v1;
use tonic::{Request, Status};

use super::GatewayService;
use crate::ledger;

impl GatewayService {
    pub(super) async fn do_witness(
        &self,
        request: Request<v1::WitnessLogRequest>,
    ) -> Result<v1::WitnessLogResponse, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let member = v1::Member { slot: request.slot, epoch: request.epoch };
        let member = self.member(&caller, Some(member)).await?;
        let known = match request.known.as_slice() {
            [] => None,
            bytes => {
                Some(SignedTreeHead::from_bytes(bytes).map_err(|e| Status::invalid_argument(format!("known: {e}")))?)
            }
        };
        let Some(shown) = ledger::show(&self.core).await? else { return Ok(v1::WitnessLogResponse::default()) };
        if let Some(known) = known.clone() {
            ledger::heard(&self.core, (&caller.name, member.slot, member.epoch), known, &shown).await?;
        }
        Ok(ledger::answer(&self.core, known.as_ref(), &shown).await?)
    }
}
