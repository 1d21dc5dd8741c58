//! The parts that roles and the demo are put together from.

use std::path::Path;

use sallyport_gateway::config::GatewayConfig;

use crate::config::ControllerConfig;
use crate::error::{Error, Result};

/// A controller that runs.
pub(crate) struct RunningController {
    /// HOST:PORT for gateways and operators.
    pub(crate) address: String,
}

/// Starts a controller on `state`.
pub(crate) async fn start_controller(_: ControllerConfig, _: &Path) -> Result<RunningController> {
    Err(Error::failed("the controller is not there yet"))
}

impl RunningController {
    /// Ends it in order.
    pub(crate) async fn shutdown(self) {}
}

/// A gateway that runs.
pub(crate) struct RunningGateway {}

/// Starts a gateway with the identity in the folder `identity`.
pub(crate) async fn start_gateway(_: GatewayConfig, _: &Path, _: Vec<String>) -> Result<RunningGateway> {
    Err(Error::failed("the gateway is not there yet"))
}

impl RunningGateway {
    /// Ends it in order: clients are told.
    pub(crate) async fn shutdown(self) {}
}
