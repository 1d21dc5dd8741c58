//! Backups: a consistent copy of the state for an operator, who encrypts it (`crate::backup` says why).

use std::time::Duration;

use sallyport_proto::v1;
use sallyport_proto::v1::create_backup_response::Part;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use super::OperatorService;
use crate::backup::wrap_context;

/// Bytes of state in one message.
const PIECE: usize = 256 * 1024;
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
        let public_key = <[u8; 32]>::try_from(request.public_key)
            .map_err(|_| Status::invalid_argument("public_key must have 32 bytes"))?;
        // Each is a copy of the state in memory: one at a time.
        let turn = (self.backups.clone().try_acquire_owned())
            .map_err(|_| Status::resource_exhausted("another backup is being made; try again when it is done"))?;
        let core = self.core.clone();
        let (cluster_id, log_time_unix_ms, state) = tokio::task::spawn_blocking(move || {
            let state = core.node.shared().read();
            (state.cluster_id().to_vec(), state.now_ms(), state.to_bytes())
        })
        .await
        .map_err(|_| Status::internal("the controller failed at this; see its log"))?;
        let head = v1::BackupHead {
            wrapped_seal_key: self.core.sealer.wrap_for(&public_key, &wrap_context(&cluster_id))?,
            cluster_id,
            created_unix_ms: self.core.now_ms(),
            log_time_unix_ms,
            applied_index: self.core.node.figures().applied,
            version: env!("CARGO_PKG_VERSION").into(),
            state_bytes: state.len() as u64,
        };
        tracing::info!(operator = %caller.name, serial = %caller.serial, bytes = state.len(), "an operator makes a backup");
        let (parts, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            let _turn = turn;
            let pieces = state.chunks(PIECE).map(|piece| Part::State(piece.to_vec()));
            for next in std::iter::once(Part::Head(head)).chain(pieces) {
                match tokio::time::timeout(STALL, parts.send(Ok(part(next)))).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return, // the caller has gone
                    Err(_) => {
                        tracing::warn!(operator = %caller.name, "a backup is given up: nobody takes it");
                        return;
                    }
                }
            }
        });
        Ok(ReceiverStream::new(receiver))
    }
}
