//! `sallyport standalone`: a controller and a gateway in one process.

use std::path::PathBuf;

use clap::Args;

use super::{controller_error, gateway_ended, serve, start_controller, start_local_gateway};
use crate::cli::Global;
use crate::config::ConfigSource;
use crate::error::Result;
use crate::logging;

/// How to run both.
#[derive(Debug, Args)]
#[command(after_help = "\
Needs root, or CAP_NET_ADMIN (the TUN device), CAP_NET_BIND_SERVICE (UDP 500) and CAP_NET_RAW (ESP without NAT). \
The first start makes the root CA, all certificates and an operator's identity below DIR; nothing has to be prepared.

Examples:
  sudo sallyport standalone
  sudo sallyport standalone --state /srv/vpn --config /etc/sallyport/sallyport.toml
  systemd-run --property=Type=notify sallyport standalone")]
pub(crate) struct Arguments {
    #[command(flatten)]
    config: ConfigSource,
}

/// Runs until a signal.
pub(crate) async fn run(arguments: Arguments, global: &Global) -> Result {
    let config = arguments.config.load()?;
    logging::start(&config.log, global.verbose)?;
    let controller = start_controller(config.controller, &global.state).await?;
    let dir = match config.gateway.identity.as_str() {
        "" => global.state.join("gateway"),
        dir => PathBuf::from(dir),
    };
    let mut gateway = match start_local_gateway(config.gateway, &controller, &dir).await {
        Ok(gateway) => gateway,
        Err(error) => {
            controller.shutdown().await;
            return Err(error);
        }
    };
    let failure = async {
        tokio::select! {
            error = controller.wait() => controller_error(error),
            () = gateway.wait() => gateway_ended(),
        }
    };
    let ended = serve("standalone", failure).await;
    // The gateway first: it reports how its sessions ended.
    gateway.shutdown().await;
    controller.shutdown().await;
    ended
}
