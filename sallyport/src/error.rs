//! What a command says when it fails: one line that names the cause and what to do next, and an exit code.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// The exit codes, as `sallyport --help` documents them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The operation was tried and failed.
    Failed = 1,
    /// The command line is wrong (clap uses the same number).
    Usage = 2,
    /// The configuration file is wrong; nothing was started.
    Config = 3,
    /// No controller answered.
    Unreachable = 4,
    /// The controller answered and refused: not found, already there, not permitted.
    Refused = 5,
    /// This machine cannot do it: a namespace, device or privilege is missing.
    Machine = 6,
}

/// A failure, ready to be printed.
#[derive(Debug)]
pub(crate) struct Error {
    exit: Exit,
    cause: String,
    remedy: Option<String>,
    silent: bool,
}

/// The result of a command.
pub(crate) type Result<T = ()> = std::result::Result<T, Error>;

impl Error {
    /// A failure with its exit code and its cause.
    pub(crate) fn new(exit: Exit, cause: impl Into<String>) -> Self {
        Self { exit, cause: cause.into(), remedy: None, silent: false }
    }

    /// The operation was tried and failed.
    pub(crate) fn failed(cause: impl Into<String>) -> Self {
        Self::new(Exit::Failed, cause)
    }

    /// The arguments do not fit together, in a way that clap cannot see.
    pub(crate) fn usage(cause: impl Into<String>) -> Self {
        Self::new(Exit::Usage, cause)
    }

    /// This machine lacks something.
    pub(crate) fn machine(cause: impl Into<String>) -> Self {
        Self::new(Exit::Machine, cause)
    }

    /// Adds what to do next.
    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Puts the name of what was attempted before the cause.
    pub(crate) fn context(mut self, what: impl fmt::Display) -> Self {
        self.cause = format!("{what}: {}", self.cause);
        self
    }

    /// A file or directory could not be used.
    pub(crate) fn file(what: &str, path: &std::path::Path, error: &io::Error) -> Self {
        let new = Self::failed(format!("cannot {what} {}: {error}", path.display()));
        match error.kind() {
            io::ErrorKind::PermissionDenied => new.remedy("run the command as the user who owns it, or with sudo"),
            _ => new,
        }
    }

    /// The cause, without the remedy.
    pub(crate) fn cause(&self) -> &str {
        &self.cause
    }

    /// What to do next, if somebody knows.
    pub(crate) fn advice(&self) -> Option<&str> {
        self.remedy.as_deref()
    }

    /// Which of the documented codes this is.
    #[cfg(test)]
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// Whether the same may succeed a little later: the controller is away or only just starting.
    pub(crate) fn may_pass(&self) -> bool {
        self.exit == Exit::Unreachable
    }

    /// Prints the line (nothing if the reader of standard output has gone) and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        if self.silent {
            return ExitCode::SUCCESS;
        }
        let mut stderr = io::stderr().lock();
        // If standard error is closed as well, nobody is left to tell.
        let _ = io::Write::write_fmt(&mut stderr, format_args!("sallyport: {self}\n"));
        ExitCode::from(self.exit as u8)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::output::one_line(&self.cause))?;
        if let Some(remedy) = &self.remedy {
            write!(f, " ({})", crate::output::one_line(remedy))?;
        }
        Ok(())
    }
}

/// Writing to standard output failed. A closed pipe (`sallyport user list | head -1`) is no failure of ours.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        let silent = error.kind() == io::ErrorKind::BrokenPipe;
        Self { exit: Exit::Failed, cause: format!("cannot write the output: {error}"), remedy: None, silent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_with_its_remedy() {
        let error = Error::failed("it\nbroke").remedy("try\tagain");
        assert_eq!(error.to_string(), "it\\nbroke (try\\tagain)");
        assert_eq!(error.context("user add").to_string(), "user add: it\\nbroke (try\\tagain)");
    }

    #[test]
    fn a_closed_pipe_is_silent() {
        assert!(Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).silent);
        assert!(!Error::from(io::Error::from(io::ErrorKind::StorageFull)).silent);
    }
}
