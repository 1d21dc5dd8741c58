//! Calls that only the leader can answer, passed on to it once.

use std::time::Duration;

use sallyport_proto::dial::Channel;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

use super::caller::{ON_BEHALF, SOURCE};
use crate::app::Core;
use crate::cluster::removal::REMOVED;

/// Metadata of a call that was passed on: it is not passed on again.
const FORWARDED: &str = "sallyport-forwarded";
/// How long a call waits for the group to have a leader.
const PATIENCE: Duration = Duration::from_millis(2_500);

/// Where the leader is.
pub(super) enum Leader {
    /// This node leads.
    Here,
    /// Another does.
    There(Channel),
}

/// Refuses calls while a new member receives the state.
pub(super) fn ready(core: &Core) -> Result<(), Status> {
    if core.is_ready() { Ok(()) } else { Err(Status::unavailable("this controller is starting; try again")) }
}

/// Whether another controller passed a call on.
pub(super) fn is_forwarded<T>(request: &Request<T>) -> bool {
    request.metadata().contains_key(FORWARDED)
}

/// Marks a call as passed on.
pub(super) fn mark<T>(request: &mut Request<T>) {
    request.metadata_mut().insert(FORWARDED, MetadataValue::from_static("1"));
}

/// Finds the leader, waiting a while for one.
pub(super) async fn leader(core: &Core, forwarded: bool) -> Result<Leader, Status> {
    let found = async {
        loop {
            match core.node.leader() {
                Some((id, _)) if id == core.node.id() => return Ok(Leader::Here),
                // Two nodes that each believe in the other would pass it back and forth.
                Some(_) if forwarded => {
                    return Err(Status::unavailable("this controller does not lead any more; try again"));
                }
                Some((_, address)) => {
                    let channel = core.links.calls(&address).map_err(|e| Status::unavailable(e.to_string()))?;
                    return Ok(Leader::There(channel));
                }
                None => core.node.leader_changes(None, PATIENCE).await?,
            }
        }
    };
    let none = || Status::unavailable("the controllers have no leader right now; try again");
    tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| Err(none()))
}

/// What the caller is told when the leader was asked and this came of it. Where the connection broke, or this controller was
/// refused and not its caller, the caller may try again, here or elsewhere: that is what UNAVAILABLE says, and other codes deny.
pub(super) fn failed(status: Status) -> Status {
    if status.metadata().contains_key(REMOVED) {
        return Status::unavailable(format!("{}; try another", status.message()));
    }
    match std::error::Error::source(&status) {
        None => status,
        Some(_) => Status::unavailable(format!("the leader did not answer; try again ({})", status.message())),
    }
}

/// The call as it goes to the leader, in the name of its caller: the leader looks the certificate up, whose chain was verified
/// here.
pub(super) fn on_behalf<T>(request: Request<T>) -> Result<Request<T>, Status> {
    let serial = super::caller::serial_of(&request)?;
    let serial = serial.parse().map_err(|_| Status::internal("a serial number that is no text"))?;
    let request_id = request.metadata().get(super::REQUEST_ID).cloned();
    let peer = request.extensions().get::<super::server::Peer>();
    let source = peer.and_then(|peer| peer.remote.ip().to_canonical().to_string().parse().ok());
    let mut passed = Request::new(request.into_inner());
    mark(&mut passed);
    passed.metadata_mut().insert(ON_BEHALF, serial);
    if let Some(source) = source {
        passed.metadata_mut().insert(SOURCE, source);
    }
    if let Some(id) = request_id {
        passed.metadata_mut().insert(super::REQUEST_ID, id);
    }
    Ok(passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_the_leader_is_passed_on_and_a_broken_connection_invites_another_try() {
        let refused = failed(Status::internal("the seal key does not fit"));
        assert_eq!((refused.code(), refused.message()), (tonic::Code::Internal, "the seal key does not fit"));
        let broken = failed(Status::from_error(Box::new(std::io::Error::from(std::io::ErrorKind::BrokenPipe))));
        assert_eq!(broken.code(), tonic::Code::Unavailable, "{broken:?}");
        let mut removed = Status::permission_denied("controller 2 was removed from the cluster");
        removed.metadata_mut().insert(REMOVED, MetadataValue::from_static("1"));
        assert_eq!(failed(removed).code(), tonic::Code::Unavailable);
    }
}
