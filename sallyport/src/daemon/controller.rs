//! `sallyport controller`.

use std::env;

use clap::Args;
use sallyport_controller::Formation;
use zeroize::Zeroizing;

use super::{controller_error, convert, form_controller, reseal, serve};
use crate::cli::Global;
use crate::config::ConfigSource;
use crate::error::{Error, Result};
use crate::logging;

/// Environment variable with a token: command lines are seen by every user of a machine.
const TOKEN: &str = "SALLYPORT_TOKEN";

/// How to run a controller.
#[derive(Debug, Args)]
#[command(after_help = "\
On an empty state folder, --bootstrap makes a cluster: the root CA, this controller's certificate and an operator's identity in
DIR/operator. --join makes this one a member of a cluster that there is. On a folder that holds a state both are ignored, so that
they may stay on the command line of a service.

Examples:
  sudo sallyport controller --bootstrap
  sudo SALLYPORT_TOKEN=TOKEN sallyport controller --join 10.0.0.1:7443    with a token of `sallyport cluster token`
  sudo sallyport controller                                       a member that there is already")]
pub(crate) struct Arguments {
    #[command(flatten)]
    config: ConfigSource,
    /// Make a cluster if the state folder is empty.
    #[arg(long)]
    bootstrap: bool,
    /// Join the cluster of these controllers, HOST:PORT,..., if the state folder is empty.
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',', conflicts_with = "bootstrap")]
    join: Vec<String>,
    /// What `sallyport cluster token` printed. Every user of this machine sees it here (ps), and not in SALLYPORT_TOKEN.
    #[arg(long, value_name = "TOKEN", requires = "join")]
    token: Option<String>,
    /// Receive the log without voting, until `sallyport cluster promote`.
    #[arg(long, requires = "join")]
    learner: bool,
    #[command(flatten)]
    reseal: reseal::Reseal,
    /// Convert the store to the engine that [controller.storage] names now, and end. The old store is kept beside the new one.
    #[arg(long, conflicts_with_all = ["reseal", "bootstrap", "join"])]
    convert_store: bool,
}

impl Arguments {
    fn formation(&mut self) -> Result<Formation> {
        if self.bootstrap {
            return Ok(Formation::Found);
        }
        if self.join.is_empty() {
            return Ok(Formation::Existing);
        }
        let token = self.token.take().or_else(|| env::var(TOKEN).ok()).map(Zeroizing::new).ok_or_else(|| {
            Error::usage("--join needs a token").remedy("make one on a controller: sallyport cluster token")
        })?;
        Ok(Formation::Join { addresses: std::mem::take(&mut self.join), token, learner: self.learner })
    }
}

/// Runs until a signal.
pub(crate) async fn run(mut arguments: Arguments, global: &Global) -> Result {
    let config = arguments.config.load()?;
    if arguments.reseal.is_wanted() {
        return reseal::run(&arguments.reseal, &config.controller.unseal, global);
    }
    if arguments.convert_store {
        return convert::run(config.controller.storage.engine, global);
    }
    logging::start(&config.log, global.verbose)?;
    let formation = arguments.formation()?;
    let controller = form_controller(config.controller, &global.state, formation).await?;
    let ended = serve("controller", async { controller_error(controller.wait().await) }).await;
    controller.shutdown().await;
    ended
}
