//! `sallyport gateway`.

use std::path::PathBuf;

use clap::Args;

use super::{serve_until_told, start_gateway};
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
    let config = arguments.config.load()?;
    logging::start(&config.log, global.verbose)?;
    let controllers = match &global.controller {
        Some(address) => vec![address.clone()],
        None => config.gateway.controllers.clone(),
    };
    if controllers.is_empty() {
        return Err(Error::new(Exit::Config, "[gateway] controllers is empty: there is nobody to ask")
            .remedy("name a controller there or with --controller HOST:PORT"));
    }
    let identity = match config.gateway.identity.as_str() {
        "" => global.state.join("gateway"),
        dir => PathBuf::from(dir),
    };
    let gateway = start_gateway(config.gateway, &identity, controllers).await?;
    let ended = serve_until_told("gateway").await;
    gateway.shutdown().await;
    ended
}
