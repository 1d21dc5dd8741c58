//! The configuration file: one TOML file for all roles, checked whole before anything starts.

mod locate;

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use sallyport_controller::Config as ControllerConfig;
use sallyport_gateway::config::GatewayConfig;
use serde::Deserialize;

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
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// `[controller]`.
    pub(crate) controller: ControllerConfig,
    /// `[gateway]` and its sections.
    pub(crate) gateway: GatewayConfig,
    /// `[log]`.
    pub(crate) log: LogConfig,
}

impl ConfigSource {
    /// Reads and checks the file. Without one, every key has its default.
    pub(crate) fn load(&self) -> Result<Config> {
        match self.config.clone().or_else(Self::default_file) {
            Some(path) => load(&path),
            None => Ok(Config::default()),
        }
    }

    /// The file that is read when none is named, if it is there.
    pub(crate) fn default_file() -> Option<PathBuf> {
        Some(PathBuf::from(DEFAULT_PATH)).filter(|path| path.exists())
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
    if let Err(contradiction) = validate(&config) {
        let at = locate::key(text, &contradiction.section, &contradiction.key).unwrap_or(0);
        return Err(format!("{} {}", locate::position(text, at), contradiction.text));
    }
    Ok(config)
}

/// What no single key shows, and where it is to be looked for.
struct Contradiction {
    section: String,
    key: String,
    text: String,
}

fn validate(config: &Config) -> std::result::Result<(), Contradiction> {
    config.controller.check().map_err(|error| {
        let text = error.to_string();
        let text = text.strip_prefix("configuration: ").unwrap_or(&text);
        // The controller begins with the path of the key below its own section.
        let path = text.split([' ', ':']).next().unwrap_or_default();
        let path = format!("controller.{path}");
        let (section, key) = path.rsplit_once('.').unwrap_or((&path, ""));
        Contradiction { section: section.into(), key: key.into(), text: format!("[controller] {text}") }
    })?;
    config.gateway.validate().map_err(|error| Contradiction {
        section: error.section.into(),
        key: error.key.into(),
        text: error.to_string(),
    })
}

#[cfg(test)]
mod tests;
