//! How far a long piece of work has come, on the terminal.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::clock::now;
use crate::operator::names::bytes;

/// Work that ends within this time is not reported on.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause between two reports.
const PAUSE: Duration = Duration::from_millis(200);

/// A line on standard error that is overwritten by the next, and removed at the end. Nothing where that is no terminal.
pub(crate) struct Meter {
    what: &'static str,
    next: Instant,
    shown: bool,
    terminal: bool,
}

impl Meter {
    /// A meter of what is `what` ("read", "received").
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, next: now() + PATIENCE, shown: false, terminal: std::io::stderr().is_terminal() }
    }

    /// So much is done.
    pub(super) fn show(&mut self, done: u64, all: u64) {
        self.say(|| format!("{} of {}", bytes(done), bytes(all)));
    }

    /// So many are done.
    pub(crate) fn count(&mut self, done: u64, all: u64) {
        self.say(|| format!("{done} of {all}"));
    }

    fn say(&mut self, text: impl FnOnce() -> String) {
        if !self.terminal || now() < self.next {
            return;
        }
        self.next = now() + PAUSE;
        self.shown = true;
        // A terminal that has gone needs no report.
        let _ = write!(std::io::stderr(), "\r\x1b[K{} {}", self.what, text());
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
