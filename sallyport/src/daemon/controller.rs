//! `sallyport controller`.

use std::env;
use std::path::{Path, PathBuf};

use clap::Args;
use sallyport_controller::{Controller, Formation};
use zeroize::Zeroizing;

use super::{controller_error, convert, form_controller, reseal, serve};
use crate::cli::Global;
use crate::config::ConfigSource;
use crate::error::{Error, Result};
use crate::logging;
use crate::secret;

/// Environment variable with a token, for services: command lines are seen by every user of a machine.
const TOKEN: &str = "SALLYPORT_TOKEN";

/// How to run a controller.
#[derive(Debug, Args)]
#[command(after_help = "\
On an empty state folder, --bootstrap makes a cluster: the root CA, this controller's certificate and an operator's identity in
DIR/operator. --join makes this one a member of a cluster that there is. On a folder that holds a state both are ignored, so that
they may stay on the command line of a service.

A token of `sallyport cluster token` is a secret for as long as it is good. --token-file - asks for it; a service gives a file of mode
0600, or the environment variable SALLYPORT_TOKEN (from its EnvironmentFile, not on a command line, which is seen and logged).

Examples:
  sudo sallyport controller --bootstrap
  sudo sallyport controller --join 10.0.0.1:7443 --token-file -
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
    /// File with what `sallyport cluster token` printed, on its first line; - is standard input.
    #[arg(long, value_name = "FILE", requires = "join", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// The token itself. Every user of this machine sees it here (ps): better is --token-file.
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
    fn formation(&mut self, state: &Path) -> Result<Formation> {
        if self.bootstrap {
            return Ok(Formation::Found);
        }
        // A member that there is already needs no token, and asks for none.
        if self.join.is_empty() || Controller::is_in(state) {
            return Ok(Formation::Existing);
        }
        let token = self.token()?;
        Ok(Formation::Join { addresses: std::mem::take(&mut self.join), token, learner: self.learner })
    }

    fn token(&mut self) -> Result<Zeroizing<String>> {
        let Some(path) = &self.token_file else {
            return self.token.take().or_else(|| env::var(TOKEN).ok()).map(Zeroizing::new).ok_or_else(|| {
                Error::usage("--join needs a token").remedy(
                    "make one on a controller (sallyport cluster token) and pass --token-file FILE, or - to be asked",
                )
            });
        };
        let token = secret::from_file_or_stdin(path, "Token")?;
        let text = str::from_utf8(&token).map_err(|_| Error::usage("the token is not text"))?;
        Ok(Zeroizing::new(text.trim().to_owned()))
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
    let formation = arguments.formation(&global.state)?;
    let controller = form_controller(config.controller, &global.state, formation).await?;
    let ended = serve("controller", async { controller_error(controller.wait().await) }).await;
    controller.shutdown().await;
    ended
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn formation(state: &Path, options: &[&str]) -> Result<Formation> {
        let line = ["controller", "--join", "10.0.0.1:7443"].iter().chain(options);
        Cli::try_parse_from(line).unwrap().arguments.formation(state)
    }

    #[test]
    fn a_token_comes_from_a_file_that_nobody_else_may_read() {
        let temp = tempfile::tempdir().unwrap();
        let (state, file) = (temp.path().join("state"), temp.path().join("token"));
        std::fs::write(&file, "sallyport1.abc \r\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let options = ["--token-file", file.to_str().unwrap()];
        let Formation::Join { addresses, token, learner } = formation(&state, &options).unwrap() else {
            panic!("joins");
        };
        assert_eq!((token.as_str(), addresses, learner), ("sallyport1.abc", vec!["10.0.0.1:7443".to_owned()], false));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(formation(&state, &options).unwrap_err().to_string().contains("chmod 600"));
        std::fs::write(&file, [0xff, b'\n']).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(formation(&state, &options).is_err());
        let both = ["controller", "--join", "10.0.0.1:7443", "--token-file", "-", "--token", "x"];
        assert!(Cli::try_parse_from(both).is_err());
    }

    #[test]
    fn a_member_that_there_is_already_is_asked_for_no_token() {
        let temp = tempfile::tempdir().unwrap();
        let gone = ["--token-file", "/nonexistent/token"];
        assert!(formation(temp.path(), &gone).unwrap_err().to_string().contains("/nonexistent/token"));
        std::fs::create_dir(temp.path().join("controller")).unwrap();
        std::fs::write(temp.path().join("controller/member"), "").unwrap();
        assert!(matches!(formation(temp.path(), &gone), Ok(Formation::Existing)));
    }
}
