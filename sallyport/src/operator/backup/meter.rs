//! How far a long piece of work has come, on the terminal.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::clock::now;

/// Work that ends within this time is not reported on.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause between two reports.
const PAUSE: Duration = Duration::from_millis(200);

/// A line on standard error that is overwritten by the next, and removed at the end. Nothing where that is no terminal.
pub(super) struct Meter {
    what: &'static str,
    next: Instant,
    shown: bool,
    terminal: bool,
}

impl Meter {
    /// A meter of what is `what` ("read", "received").
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, next: now() + PATIENCE, shown: false, terminal: std::io::stderr().is_terminal() }
    }

    /// So much is done.
    pub(super) fn show(&mut self, done: u64, all: u64) {
        if !self.terminal || now() < self.next {
            return;
        }
        self.next = now() + PAUSE;
        self.shown = true;
        // A terminal that has gone needs no report.
        let _ = write!(std::io::stderr(), "\r\x1b[K{} {} of {}", self.what, size(done), size(all));
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// Bytes in a unit that suits them.
pub(super) fn size(bytes: u64) -> String {
    const KIB: u64 = 1024;
    let tenths = |unit: u64| (bytes / unit, bytes % unit * 10 / unit);
    let (number, unit) = match bytes {
        0..KIB => return format!("{bytes} bytes"),
        KIB..0x10_0000 => (tenths(KIB), "KiB"),
        0x10_0000..0x4000_0000 => (tenths(KIB * KIB), "MiB"),
        _ => (tenths(KIB * KIB * KIB), "GiB"),
    };
    format!("{}.{} {unit}", number.0, number.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (1_048_575, "1023.9 KiB"),
            (1_048_576, "1.0 MiB"),
            (1_073_741_824, "1.0 GiB"),
            (u64::MAX, "17179869183.9 GiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
