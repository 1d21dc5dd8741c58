//! Backups: a consistent copy of the state for an operator, who encrypts it (`crate::backup` says why).

use std::time::Duration;

use sallyport_proto::v1;
use sallyport_proto::v1::create_backup_response::Part;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use super::OperatorService;
use crate::actor;
use crate::backup::wrap_context;
use crate::raft::{StateCopy, blocking};
use crate::state::KeyUse;

/// Messages on their way to a caller that reads slowly.
const QUEUE: usize = 4;

/// A caller that takes no message for so long is given up, and the copy of the state with it.
const STALL: Duration = Duration::from_secs(60);

/// A backup on its way.
pub(super) type Parts = ReceiverStream<Result<v1::CreateBackupResponse, Status>>;

fn part(part: Part) -> v1::CreateBackupResponse {
    v1::CreateBackupResponse { part: Some(part) }
}

impl OperatorService {
    pub(super) async fn do_create_backup(&self, request: Request<v1::CreateBackupRequest>) -> Result<Parts, Status> {
        let (caller, request) = self.operator(request).await?;
        self.may(&caller, super::roles::KEYS)?;
        let public_key = <[u8; 32]>::try_from(request.public_key)
            .map_err(|_| Status::invalid_argument("public_key must have 32 bytes"))?;
        // Each is a copy of the state on this disk: one at a time.
        let turn = (self.backups.clone().try_acquire_owned())
            .map_err(|_| Status::resource_exhausted("another backup is being made; try again when it is done"))?;
        // All keys go out with it: that is in the audit log before, and so in the backup, too.
        actor::in_the_name_of(caller.actor(), self.note_key_use(KeyUse::BackedUp, 0)).await?;
        let failed = |e: &dyn std::fmt::Display| {
            tracing::error!(error = %e, "a backup cannot be made");
            Status::internal("the controller failed at this; see its log")
        };
        let StateCopy { cluster_id, log_time_ms, applied, state } =
            self.core.node.copy_state().await.map_err(|e| failed(&e))?;
        let state_bytes = state.length().map_err(|e| failed(&e))?;
        let mut chunks = state.chunks().map_err(|e| failed(&e))?;
        let head = v1::BackupHead {
            wrapped_seal_key: self.core.sealer.wrap_for(&public_key, &wrap_context(&cluster_id))?,
            cluster_id,
            created_unix_ms: self.core.now_ms(),
            log_time_unix_ms: log_time_ms,
            applied_index: applied,
            version: self.core.software.version.clone(),
            state_bytes,
        };
        tracing::info!(operator = %caller.name, serial = %caller.serial, bytes = state_bytes, "an operator makes a backup");
        let (parts, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            let (_turn, _file) = (turn, state);
            let mut next = Ok(Some(Part::Head(head)));
            loop {
                let message = match next {
                    Ok(Some(sent)) => Ok(part(sent)),
                    Ok(None) => return,
                    Err(e) => Err(failed(&e)),
                };
                let last = message.is_err();
                match tokio::time::timeout(STALL, parts.send(message)).await {
                    Ok(Ok(())) if !last => {}
                    Ok(_) => return, // the caller has gone, or knows
                    Err(_) => {
                        tracing::warn!(operator = %caller.name, "a backup is given up: nobody takes it");
                        return;
                    }
                }
                let read = blocking(move || (chunks.next_chunk(), chunks)).await;
                next = match read {
                    Ok((chunk, rest)) => {
                        chunks = rest;
                        chunk.map(|chunk| chunk.map(Part::State))
                    }
                    Err(e) => {
                        failed(&e);
                        return;
                    }
                };
            }
        });
        Ok(ReceiverStream::new(receiver))
    }
}
