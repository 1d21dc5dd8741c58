//! gRPC over mutual TLS: for gateways and for operators.

mod caller;
mod convert;
mod error;
mod forward;
mod gate;
mod gateway;
mod joining;
pub(crate) mod live;
mod operator;
mod peer;
mod places;
mod revocation;
pub(crate) mod server;
mod tls;
mod watch;

pub(crate) use error::conflict;
pub(crate) use revocation::{revoked_controllers, signed_list};
pub(crate) use tls::Tls;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Response, Status};

use crate::app::Core;
use crate::metrics::Rpc;

use sallyport_proto::failover::REQUEST_ID;

/// Counts and times a call.
async fn observed<T>(
    core: &Arc<Core>,
    rpc: Rpc,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<Response<T>, Status> {
    let began = core.clock.monotonic_us();
    let result = call.await;
    let took = Duration::from_micros(core.clock.monotonic_us().saturating_sub(began));
    let code = result.as_ref().map_or_else(Status::code, |_| tonic::Code::Ok);
    core.metrics.rpc(rpc, code, took);
    result.map(Response::new)
}
