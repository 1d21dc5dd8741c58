//! What the demo tells: a line for each step, with its time; JSON lines for programs.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::clock;
use crate::error::{Error, Result};
use crate::output::{Format, colour, one_line, print};

/// Width of the column of the steps' names.
const STEP: usize = 19;

/// The narrator.
#[derive(Debug)]
pub(crate) struct Story {
    start: Instant,
    format: Format,
    colour: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    seconds: f64,
    step: &'a str,
    detail: &'a str,
}

impl Story {
    /// Begins now.
    pub(crate) fn begin(format: Format) -> Self {
        Self { start: clock::now(), format, colour: format == Format::Table && colour() }
    }

    /// Time since the beginning.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// A step was done.
    pub(crate) fn step(&self, step: &str, detail: &str) -> Result {
        print(&self.line(self.elapsed(), step, detail))
    }

    /// Something that has a form of its own: a table as the operator sees it.
    pub(crate) fn show(&self, text: &str) -> Result {
        match self.format {
            Format::Table => print(&text.lines().map(|line| format!("            {line}\n")).collect::<String>()),
            Format::Json => Ok(()),
        }
    }

    fn line(&self, at: Duration, step: &str, detail: &str) -> String {
        let seconds = at.as_secs_f64();
        match self.format {
            Format::Json => {
                let line = Line { seconds: (seconds * 1e6).round() / 1e6, step, detail };
                serde_json::to_string(&line).unwrap_or_default() + "\n"
            }
            Format::Table => {
                let (dim, bold, off) = if self.colour { ("\u{1b}[2m", "\u{1b}[1m", "\u{1b}[0m") } else { ("", "", "") };
                let detail = one_line(detail);
                let line = format!("{dim}{seconds:8.3} s{off}  {bold}{step:<STEP$}{off} {detail}");
                line.trim_end().to_owned() + "\n"
            }
        }
    }

    /// A step failed: says which, in the error itself.
    pub(crate) fn failed(step: &str) -> impl FnOnce(Error) -> Error {
        let step = step.to_owned();
        move |error| error.context(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn story(format: Format, colour: bool) -> Story {
        Story { start: clock::now(), format, colour }
    }

    #[test]
    fn a_step_is_one_line_with_its_time() {
        let at = Duration::from_millis(1234);
        assert_eq!(
            story(Format::Table, false).line(at, "ping", "3 replies"),
            "   1.234 s  ping                3 replies\n"
        );
        assert_eq!(
            story(Format::Json, false).line(at, "ping", "3 replies"),
            "{\"seconds\":1.234,\"step\":\"ping\",\"detail\":\"3 replies\"}\n"
        );
    }

    #[test]
    fn colours_are_for_terminals_and_details_cannot_bring_their_own() {
        let at = Duration::from_millis(5);
        assert!(story(Format::Table, true).line(at, "a", "b").contains("\u{1b}[1ma"));
        assert!(!story(Format::Table, false).line(at, "a", "\u{1b}[31mb").contains('\u{1b}'));
    }
}
