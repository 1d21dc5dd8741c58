//! Our errors as gRPC statuses: what may pass later, and what will not.

use tonic::Status;

use crate::error::Error;
use crate::raft::ProposeError;
use crate::state::{Conflict, ConflictKind, Done, Outcome, Reply};

impl From<ProposeError> for Status {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NoLeader | ProposeError::Elsewhere { .. } | ProposeError::Membership(_) => {
                Self::unavailable(error.to_string())
            }
            ProposeError::Level(text) => Self::failed_precondition(text),
            ProposeError::Overloaded => Self::resource_exhausted(error.to_string()),
            // The details name files and are for the operator of this host, in its log.
            ProposeError::Stopped(_) => Self::unavailable("this controller has stopped; see its log"),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::Propose(e) => e.into(),
            Error::Refused(text) => Self::invalid_argument(text),
            Error::Superseded(text) => Self::aborted(text),
            Error::Authority(text) => Self::failed_precondition(text),
            Error::Config(_)
            | Error::File { .. }
            | Error::Listen { .. }
            | Error::StateInUse { .. }
            | Error::Storage { .. }
            | Error::Removed { .. }
            | Error::Outdated(_)
            | Error::Seal { .. }
            | Error::Internal(_) => {
                tracing::error!(%error, "a call failed");
                Self::internal("the controller failed at this; see its log")
            }
        }
    }
}

/// A conflict as a status.
pub(crate) fn conflict(conflict: Conflict) -> Status {
    let kind = conflict.kind();
    let message = conflict.message;
    match kind {
        ConflictKind::Invalid => Status::invalid_argument(message),
        ConflictKind::NotFound => Status::not_found(message),
        ConflictKind::AlreadyExists => Status::already_exists(message),
        ConflictKind::Precondition | ConflictKind::StaleMember => Status::failed_precondition(message),
        ConflictKind::Changed | ConflictKind::StaleCredentials => Status::aborted(message),
        ConflictKind::Exhausted => Status::resource_exhausted(message),
    }
}

/// What a change came to that is either done or in conflict.
pub(super) fn done(reply: Reply) -> Result<Done, Status> {
    match reply.outcome {
        Some(Outcome::Done(done)) => Ok(done),
        Some(Outcome::Conflict(c)) => Err(conflict(c)),
        other => {
            tracing::error!(reply = ?other, "an answer of the wrong kind");
            Err(Status::internal("the controller failed at this; see its log"))
        }
    }
}
