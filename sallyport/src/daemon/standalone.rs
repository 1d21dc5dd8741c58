//! `sallyport standalone`: a controller and a gateway in one process.

use clap::Args;

use super::{serve_until_told, start_controller, start_gateway};
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
    let identity = global.state.join("gateway");
    let gateway = match start_gateway(config.gateway, &identity, vec![controller.address.clone()]).await {
        Ok(gateway) => gateway,
        Err(error) => {
            controller.shutdown().await;
            return Err(error);
        }
    };
    let ended = serve_until_told("standalone").await;
    // The gateway first: it reports how its sessions ended.
    gateway.shutdown().await;
    controller.shutdown().await;
    ended
}
