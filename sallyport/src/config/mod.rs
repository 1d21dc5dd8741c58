//! The configuration file: one TOML file for all roles, checked whole before anything starts.

mod locate;

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use sallyport_gateway::config::GatewayConfig;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Exit, Result};
use crate::logging::LogConfig;

/// Read when no file is named and this one is there.
pub(crate) const DEFAULT_PATH: &str = "/etc/sallyport/sallyport.toml";
/// Every key with its default and what it means.
pub(crate) const DEFAULT_TEXT: &str = include_str!("default.toml");

/// Which configuration file.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ConfigSource {
    /// Configuration file; `sallyport config show-default` prints one [default: /etc/sallyport/sallyport.toml, if there]
    #[arg(long, value_name = "FILE", env = "SALLYPORT_CONFIG", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
}

/// The whole file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// `[controller]`.
    pub(crate) controller: ControllerConfig,
    /// `[gateway]` and its sections.
    pub(crate) gateway: GatewayConfig,
    /// `[log]`.
    pub(crate) log: LogConfig,
}

/// Stands in until the controller has settings of its own.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ControllerConfig {}

impl ConfigSource {
    /// Reads and checks the file. Without one, every key has its default.
    pub(crate) fn load(&self) -> Result<Config> {
        match &self.config {
            Some(path) => load(path),
            None if Path::new(DEFAULT_PATH).exists() => load(Path::new(DEFAULT_PATH)),
            None => Ok(Config::default()),
        }
    }
}

/// Reads and checks a file.
pub(crate) fn load(path: &Path) -> Result<Config> {
    let text = fs::read_to_string(path)
        .map_err(|e| Error::new(Exit::Config, format!("cannot read the configuration {}: {e}", path.display())))?;
    parse(&text).map_err(|problem| {
        Error::new(Exit::Config, format!("{}:{problem}", path.display()))
            .remedy("`sallyport config show-default` prints every key with its meaning")
    })
}

/// Parses and checks a file's text; an error is `LINE:COLUMN: what is wrong and what is allowed`.
pub(crate) fn parse(text: &str) -> std::result::Result<Config, String> {
    let config: Config = toml::from_str(text).map_err(|e| {
        let at = e.span().map_or(0, |span| span.start);
        // serde's words for what our users call keys and values.
        let message = e.message().replace("unknown field", "unknown key").replace("unknown variant", "unknown value");
        format!("{} {message}", locate::position(text, at))
    })?;
    validate(&config).map_err(|(section, key, why)| {
        let at = locate::key(text, section, key).unwrap_or(0);
        format!("{} [{section}] {key}: {why}", locate::position(text, at))
    })?;
    Ok(config)
}

/// What no single key shows.
fn validate(config: &Config) -> std::result::Result<(), (&'static str, &'static str, String)> {
    config.gateway.validate().map_err(|e| (e.section, e.key, e.why))
}

#[cfg(test)]
mod tests;
