//! `sallyport gateway`.

use std::env;
use std::path::{Path, PathBuf};

use clap::Args;
use zeroize::Zeroizing;

use super::{gateway_ended, serve, start_gateway};
use crate::cli::Global;
use crate::config::ConfigSource;
use crate::error::{Error, Exit, Result};
use crate::logging;
use crate::secret;

/// Environment variable with a token, for services: command lines are seen by every user of a machine.
const TOKEN: &str = "SALLYPORT_TOKEN";

/// How to run a gateway.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    config: ConfigSource,
    /// File with what `sallyport gateway token` printed, on its first line; - is standard input. A gateway that has its certificates
    /// needs none, and asks for none. SALLYPORT_TOKEN and `[gateway] token_file` do the same.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The token itself. Every user of this machine sees it here (ps): better is --token-file.
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,
}

impl Arguments {
    /// The token, if one is given anywhere.
    fn token(&mut self, configured: &str) -> Result<Option<Zeroizing<String>>> {
        let configured = (!configured.is_empty()).then(|| PathBuf::from(configured));
        let Some(path) = self.token_file.take() else {
            if let Some(token) = self.token.take().or_else(|| env::var(TOKEN).ok()) {
                return Ok(Some(Zeroizing::new(token)));
            }
            return configured.map(|path| read(&path)).transpose();
        };
        read(&path).map(Some)
    }
}

fn read(path: &Path) -> Result<Zeroizing<String>> {
    let token = secret::from_file_or_stdin(path, "Token")?;
    let text = str::from_utf8(&token).map_err(|_| Error::usage("the token is not text"))?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

/// Runs until a signal.
pub(crate) async fn run(mut arguments: Arguments, global: &Global) -> Result {
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
    // One that has its certificates is asked for no token.
    let token = match sallyport_gateway::identity::Identity::load(&identity) {
        Ok(_) => None,
        Err(_) => arguments.token(&config.gateway.token_file)?,
    };
    let mut gateway = start_gateway(config.gateway, &identity, token).await?;
    let failure = async {
        gateway.wait().await;
        gateway_ended()
    };
    let ended = serve("gateway", failure).await;
    gateway.shutdown().await;
    ended
}
