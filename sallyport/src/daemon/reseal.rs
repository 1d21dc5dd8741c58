//! `sallyport controller --reseal`: another way to hold this node's copy of the seal key.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use sallyport_controller::UnsealConfig;
use serde::Serialize;

use super::controller_error;
use crate::cli::Global;
use crate::config;
use crate::error::Result;
use crate::output::Printer;

/// Whether to reseal.
#[derive(Debug, Args)]
pub(crate) struct Reseal {
    /// Change how this node holds the key to the cluster's secrets to what [controller.unseal] says now, and end.
    #[arg(long)]
    reseal: bool,
    /// Configuration file that was in force until now, if what it says of the old passphrase or token is needed.
    #[arg(long, value_name = "FILE", requires = "reseal", value_hint = ValueHint::FilePath)]
    reseal_from: Option<PathBuf>,
}

impl Reseal {
    /// Whether that is all there is to do.
    pub(crate) const fn is_wanted(&self) -> bool {
        self.reseal
    }
}

#[derive(Serialize)]
struct Done {
    from: &'static str,
    to: &'static str,
    left_over: Option<PathBuf>,
}

/// Reseals as the settings `to` say.
pub(crate) fn run(arguments: &Reseal, to: &UnsealConfig, global: &Global) -> Result {
    let from = match &arguments.reseal_from {
        Some(path) => Some(config::load(path)?.controller.unseal),
        None => None,
    };
    let done = sallyport_controller::reseal(&global.state, from.as_ref(), to).map_err(controller_error)?;
    let done = Done { from: done.from.name(), to: done.to.name(), left_over: done.left_over };
    let mut text =
        format!("the seal key in {} was held by {}, and is by {} now", global.state.display(), done.from, done.to);
    if let Some(file) = &done.left_over {
        text.push_str(&format!("; nothing needs {} any more: destroy it", file.display()));
    }
    Printer::new(global.output).one(&done, &text)
}
