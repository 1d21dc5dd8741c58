//! `sallyport controller`.

use clap::Args;

use super::{controller_error, reseal, serve, start_controller};
use crate::cli::Global;
use crate::config::ConfigSource;
use crate::error::Result;
use crate::logging;

/// How to run a controller.
#[derive(Debug, Args)]
#[command(after_help = "\
The first start makes the root CA, the controller's certificate and an operator's identity in DIR/operator.

Examples:
  sudo sallyport controller --state /var/lib/sallyport --config /etc/sallyport/sallyport.toml")]
pub(crate) struct Arguments {
    #[command(flatten)]
    config: ConfigSource,
    #[command(flatten)]
    reseal: reseal::Reseal,
}

/// Runs until a signal.
pub(crate) async fn run(arguments: Arguments, global: &Global) -> Result {
    let config = arguments.config.load()?;
    if arguments.reseal.is_wanted() {
        return reseal::run(&arguments.reseal, &config.controller.unseal, global);
    }
    logging::start(&config.log, global.verbose)?;
    let controller = start_controller(config.controller, &global.state).await?;
    let ended = serve("controller", async { controller_error(controller.wait().await) }).await;
    controller.shutdown().await;
    ended
}
