//! `sallyport controller --convert-store`: the store of a controller that does not run, by another engine.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use sallyport_controller::Engine;
use serde::Serialize;

use super::controller_error;
use crate::cli::Global;
use crate::clock;
use crate::error::Result;
use crate::output::Printer;

/// Between two lines about how far it is; nothing is said of what takes less.
const SAY_EVERY: Duration = Duration::from_secs(1);

#[derive(Serialize)]
struct Done {
    from: &'static str,
    to: &'static str,
    rows: u64,
    kept: Option<PathBuf>,
}

/// Converts to the engine that the settings name.
pub(crate) fn run(to: Engine, global: &Global) -> Result {
    let mut said = clock::now();
    let mut progress = |rows: u64, all: u64| {
        if clock::now().duration_since(said) >= SAY_EVERY {
            said = clock::now();
            say(&format!("{rows} of {all} rows copied"));
        }
    };
    let converted = sallyport_controller::convert_store(&global.state, to, &mut progress).map_err(controller_error)?;
    let store = global.state.join("raft").join("store");
    let (done, text) = match converted {
        Some(c) => {
            let text = format!(
                "{}: converted from {} to {}, {} rows compared; the old store is in {}: remove it when the controller has \
                 started and works",
                store.display(),
                c.from.name(),
                c.to.name(),
                c.rows,
                c.kept.display()
            );
            (Done { from: c.from.name(), to: c.to.name(), rows: c.rows, kept: Some(c.kept) }, text)
        }
        None => {
            let text = format!("{} is a store of {} already; nothing was changed", store.display(), to.name());
            (Done { from: to.name(), to: to.name(), rows: 0, kept: None }, text)
        }
    };
    Printer::new(global.output).one(&done, &text)
}

/// To people only: what reads the output reads the end.
fn say(text: &str) {
    let mut err = std::io::stderr();
    if err.is_terminal() {
        let _ = writeln!(err, "{text}"); // nobody has to hear it
    }
}
