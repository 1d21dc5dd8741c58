//! Handing the lead over.

use std::cmp::Reverse;
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
/// How long what is under way may take to be committed, and the chosen member to receive it.
const CATCH_UP: Duration = Duration::from_secs(1);
/// How long a controller that stops looks for a successor. With what calls may take then, it is done well before a service
/// manager loses its patience.
const STEP_DOWN: Duration = Duration::from_secs(8);

/// Makes another voter lead: `to`, or 0 for the one whose log reaches furthest. Returns who leads afterwards.
pub(crate) async fn hand_over(core: &Core, to: u64) -> Result<u64, Status> {
    let figures = core.node.figures();
    let membership = core.node.membership();
    if to == figures.id {
        return Ok(to);
    }
    let reached = core.node.replicated();
    let others = membership.voters.iter().copied().filter(|id| *id != figures.id && (to == 0 || *id == to));
    let mut others: Vec<u64> = others.collect();
    // Who lacks least first. Of two that lack the same, the one that answers: asking one that is away ends soon, too.
    others
        .sort_by_key(|id| (Reverse(reached.get(id).copied().unwrap_or(0)), Reverse(core.links.last_contact(*id)), *id));
    // Whoever lacks an entry is not elected, and deposes this leader by trying: nothing new is written before one has all.
    let Ok(_pause) = tokio::time::timeout(CATCH_UP, core.node.pause()).await else {
        return Err(Status::unavailable("what is under way is not committed yet; try again"));
    };
    let mut result = Err(Status::failed_precondition(match to {
        0 => "there is no other controller that votes: add one first (sallyport cluster token)".into(),
        id => format!("controller {id} does not vote; see sallyport cluster status"),
    }));
    for chosen in others {
        if !core.node.catches_up(chosen, CATCH_UP).await {
            result = Err(Status::unavailable(format!(
                "controller {chosen} does not catch up; see sallyport cluster status"
            )));
            continue;
        }
        let address = membership.addresses.get(&chosen).cloned().unwrap_or_default();
        result = hand_over_to(core, chosen, &address).await;
        if result.is_ok() {
            break;
        }
    }
    result
}

async fn hand_over_to(core: &Core, chosen: u64, address: &str) -> Result<u64, Status> {
    let own = core.node.id();
    let mut client = core.links.peer(address).map_err(|e| Status::internal(e.to_string()))?;
    // Others vote for nobody before the lease of the present leader is over: it stops renewing it.
    let _silence = Silence::of(core);
    // With three voters this node's own vote is enough, and it may be given at once.
    for patience in [core.node.lease() + MARGIN, PATIENCE] {
        let mut request = Request::new(v1::StandForElectionRequest { target: chosen });
        request.set_timeout(ASK);
        client.stand_for_election(request).await?;
        core.node.leader_changes(Some(own), patience).await?;
        if let Some((leader, _)) = core.node.leader().filter(|(id, _)| *id != own) {
            return Ok(leader);
        }
    }
    Err(Status::unavailable(format!("controller {chosen} did not take over; this one leads on")))
}

/// A leader that sends no life signs, until this is dropped.
struct Silence<'a>(&'a Core);

impl<'a> Silence<'a> {
    fn of(core: &'a Core) -> Self {
        core.node.keep_silent(true);
        Self(core)
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        self.0.node.keep_silent(false);
    }
}

/// Sees that the end of this node costs nobody an election: another voter leads before it. Returns who leads then; `None`
/// where this node did not lead, is alone, or nobody took over in time.
pub(crate) async fn step_down(core: &Core) -> Option<u64> {
    if !core.node.leads() || core.node.membership().voters.len() < 2 {
        return None;
    }
    match tokio::time::timeout(STEP_DOWN, hand_over(core, 0)).await {
        Ok(Ok(leader)) => {
            tracing::info!(leader, "this controller stops: another leads");
            Some(leader)
        }
        Ok(Err(status)) => {
            tracing::warn!(reason = status.message(), "this controller stops, and nobody took the lead");
            None
        }
        Err(_) => {
            tracing::warn!("this controller stops, and nobody took the lead in time");
            None
        }
    }
}
