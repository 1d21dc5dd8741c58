//! `sallyport demo`: a VPN from end to end on one machine, without root where user namespaces are allowed.

mod client;
mod helper;
mod http;
mod link;
mod namespace;
mod ping;
mod play;
mod plumbing;
mod site;
mod stage;
mod story;
mod topology;
pub(crate) mod wire;

use clap::Args;

use crate::cli::Global;
use crate::error::{Error, Result};
use crate::logging;
use crate::output::print;

/// How to run the demo.
#[derive(Debug, Args)]
#[command(after_help = "\
Everything happens in network namespaces of its own: nothing of this machine's network is touched, and nothing is \
left behind. Exit code 6 says that this machine does not allow it, and what to do.")]
pub(crate) struct Arguments {
    /// Only make the three hosts and check the wires between them.
    #[arg(long)]
    plumbing: bool,
}

/// Runs the demo. Must be called while the process has one thread.
pub(crate) fn run(arguments: &Arguments, global: &Global) -> Result {
    namespace::enter()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::failed(format!("cannot start the runtime: {e}")))?;
    if arguments.plumbing {
        let text = runtime.block_on(plumbing::check(global.verbose))?;
        return print(&format!("{text}\n"));
    }
    namespace::check_tun()?;
    logging::start(&quiet(), global.verbose)?;
    runtime.block_on(play::run(&story::Story::begin(global.output), global.verbose))
}

/// Runs a helper process. Must be called while the process has one thread.
pub(crate) fn run_helper(role: wire::Role, global: &Global) -> Result {
    logging::start(&quiet(), global.verbose)?;
    stage::run(role)
}

/// The demo tells what happens itself: only what goes wrong is logged, unless -v asks for more.
fn quiet() -> logging::LogConfig {
    logging::LogConfig { level: logging::Level::Warn, ..Default::default() }
}
