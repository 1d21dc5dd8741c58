//! Logs, on standard error: for people, or JSON for programs.

use std::io::IsTerminal;

use serde::Deserialize;
use tracing_subscriber::EnvFilter;

use crate::error::{Error, Result};

/// The variable that overrides every other choice of what is logged.
const VARIABLE: &str = "SALLYPORT_LOG";

/// `[log]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LogConfig {
    /// What is logged.
    pub(crate) level: Level,
    /// How it is written.
    pub(crate) format: LogFormat,
}

/// Least important message that is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Level {
    /// Something that cannot go on.
    Error,
    /// Something that an operator should look at.
    Warn,
    /// What happened: sessions up and down, refusals.
    #[default]
    Info,
    /// How it happened: each message of each protocol.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// A line for people.
    #[default]
    Human,
    /// A JSON object a line.
    Json,
}

/// Starts logging. `SALLYPORT_LOG` comes before `-v`, and that before the configuration file.
pub(crate) fn start(config: &LogConfig, verbose: u8) -> Result {
    let filter = match std::env::var(VARIABLE) {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text).map_err(|e| {
            Error::usage(format!("{VARIABLE}={text}: {e}")).remedy("for example `info,sallyport_ike=debug`")
        })?,
        _ => EnvFilter::new(directives(config.level, verbose)),
    };
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    // A second start, as in the demo, keeps the first one's choice.
    let _ = match config.format {
        LogFormat::Human => builder.try_init(),
        LogFormat::Json => builder.json().with_ansi(false).try_init(),
    };
    Ok(())
}

/// Our own crates at the level that is asked for; the libraries below us stay one step quieter than debug.
fn directives(level: Level, verbose: u8) -> String {
    let level = match verbose {
        0 => level,
        1 => level.max_with(Level::Debug),
        _ => Level::Trace,
    };
    match level {
        Level::Debug | Level::Trace if verbose < 3 => format!(
            "{},h2=info,hyper=info,tonic=info,tower=info,rustls=info,openraft=info,sled=info,netlink_proto=info,\
             netlink_packet_route=info",
            level.name()
        ),
        // openraft says of each call to a member that is away that it failed; we say it once.
        _ => format!("{},openraft=off,sled=warn", level.name()),
    }
}

impl Level {
    fn max_with(self, other: Self) -> Self {
        if self as u8 >= other as u8 { self } else { other }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbosity_raises_the_level_and_never_lowers_it() {
        assert!(directives(Level::Info, 0).starts_with("info"));
        assert!(directives(Level::Info, 1).starts_with("debug"));
        assert!(directives(Level::Trace, 1).starts_with("trace"));
        assert!(directives(Level::Error, 2).starts_with("trace"));
        assert!(directives(Level::Error, 0).starts_with("error"));
    }

    #[test]
    fn every_choice_is_a_filter() {
        for level in [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace] {
            for verbose in 0..4 {
                assert!(EnvFilter::try_new(directives(level, verbose)).is_ok());
            }
        }
    }
}
