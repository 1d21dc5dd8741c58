//! Handing the lead over.

use std::time::Duration;

use tonic::{Request, Status};

use crate::app::Core;
use sallyport_proto::v1;

/// How long the chosen member may take to be asked.
const ASK: Duration = Duration::from_secs(1);
/// What the others may have heard of the present leader later than it thinks.
const MARGIN: Duration = Duration::from_millis(100);
/// How long a new leader is waited for at most, once the lease is over.
const PATIENCE: Duration = Duration::from_secs(2);

/// Makes another voter lead: `to`, or 0 for the one whose log reaches furthest. Returns who leads afterwards.
pub(crate) async fn hand_over(core: &Core, to: u64) -> Result<u64, Status> {
    let figures = core.node.figures();
    let membership = core.node.membership();
    if to == figures.id {
        return Ok(to);
    }
    let reached = core.node.replicated();
    let others = membership.voters.iter().copied().filter(|id| *id != figures.id && (to == 0 || *id == to));
    let Some(chosen) = others.max_by_key(|id| reached.get(id).copied().unwrap_or(0)) else {
        return Err(Status::failed_precondition(match to {
            0 => "there is no other controller that votes: add one first (sallyport cluster token)".into(),
            id => format!("controller {id} does not vote; see sallyport cluster status"),
        }));
    };
    let address = membership.addresses.get(&chosen).cloned().unwrap_or_default();
    let mut client = core.links.peer(&address).map_err(|e| Status::internal(e.to_string()))?;
    // Others vote for nobody before the lease of the present leader is over: it stops renewing it.
    core.node.keep_silent(true);
    let result = async {
        // With three voters this node's own vote is enough, and it may be given at once.
        for patience in [core.node.lease() + MARGIN, PATIENCE] {
            let mut request = Request::new(v1::StandForElectionRequest { target: chosen });
            request.set_timeout(ASK);
            client.stand_for_election(request).await?;
            core.node.leader_changes(Some(figures.id), patience).await;
            if let Some((leader, _)) = core.node.leader().filter(|(id, _)| *id != figures.id) {
                return Ok(leader);
            }
        }
        Err(Status::unavailable(format!("controller {chosen} did not take over; this one leads on")))
    }
    .await;
    core.node.keep_silent(false);
    result
}
