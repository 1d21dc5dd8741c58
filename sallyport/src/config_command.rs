//! `sallyport config`: the configuration file, checked and explained.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use crate::cli::Global;
use crate::config::{self, ConfigSource, DEFAULT_TEXT};
use crate::error::Result;
use crate::output::{Printer, print};

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check a file: exit code 3 and one line with its place for what is wrong.
    #[command(after_help = "\
Examples:
  sallyport config check                                 what the daemons would read
  sallyport config check new.toml
  sallyport config check --config new.toml               the same, as the daemons name it")]
    Check {
        /// The file [default: the one that the daemons would read]
        file: Option<PathBuf>,
        #[command(flatten)]
        source: ConfigSource,
    },
    /// Print a file with every key at its default, and what it means.
    #[command(after_help = "\
Examples:
  sallyport config show-default | sudo tee /etc/sallyport/sallyport.toml")]
    ShowDefault,
}

#[derive(Serialize)]
struct Checked {
    valid: bool,
    file: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(command: Command, global: &Global) -> Result {
    match command {
        Command::Check { file, source } => {
            let file = file.or(source.config).or_else(ConfigSource::default_file);
            let text = match &file {
                Some(file) => {
                    config::load(file)?;
                    format!("{}: the configuration is valid", file.display())
                }
                None => "no configuration file: every key has its default".to_owned(),
            };
            Printer::new(global.output).one(&Checked { valid: true, file }, &text)
        }
        Command::ShowDefault => print(DEFAULT_TEXT),
    }
}
