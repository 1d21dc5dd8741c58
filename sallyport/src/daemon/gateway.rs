//! `sallyport gateway`.

use std::path::PathBuf;

use clap::Args;

use super::{gateway_ended, serve, start_gateway};
use crate::cli::Global;
use crate::config::ConfigSource;
use crate::error::{Error, Exit, Result};
use crate::logging;

/// How to run a gateway.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    config: ConfigSource,
}

/// Runs until a signal.
pub(crate) async fn run(arguments: Arguments, global: &Global) -> Result {
    let mut config = arguments.config.load()?;
    logging::start(&config.log, global.verbose)?;
    if let Some(address) = &global.controller {
        config.gateway.controllers = address.split(',').map(|a| a.trim().to_owned()).collect();
    }
    if config.gateway.controllers.is_empty() {
        return Err(Error::new(Exit::Config, "[gateway] controllers is empty: there is nobody to ask")
            .remedy("name a controller there or with --controller HOST:PORT"));
    }
    let identity = match config.gateway.identity.as_str() {
        "" => global.state.join("gateway"),
        dir => PathBuf::from(dir),
    };
    let mut gateway = start_gateway(config.gateway, &identity).await?;
    let failure = async {
        gateway.wait().await;
        gateway_ended()
    };
    let ended = serve("gateway", failure).await;
    gateway.shutdown().await;
    ended
}
