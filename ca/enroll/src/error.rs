//! Why a machine has no new certificate, and what to do about it.

use std::fmt;
use std::io;
use std::path::Path;

/// The result of what this crate does.
pub type Result<T = ()> = std::result::Result<T, Error>;

/// What sort of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What was asked for does not fit together.
    Usage,
    /// Nothing answered, or nothing that speaks EST; the same may succeed later.
    Unreachable,
    /// What answered is not the authority that the token or the earlier certificate names, or its answer is wrong.
    Untrusted,
    /// The authority says no.
    Refused,
    /// An operator has yet to say yes.
    Pending,
    /// A file, a program or a permission of this machine.
    Machine,
}

/// A failure: one line for its cause, one for what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What sort.
    pub kind: Kind,
    /// What happened.
    pub cause: String,
    /// What to do next; empty where nobody knows.
    pub remedy: String,
}

impl Error {
    pub(crate) fn new(kind: Kind, cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { kind, cause: cause.into(), remedy: remedy.into() }
    }

    pub(crate) fn untrusted(cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Kind::Untrusted, cause, remedy)
    }

    pub(crate) fn machine(cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Kind::Machine, cause, remedy)
    }

    pub(crate) fn file(what: &str, path: &Path, error: &io::Error) -> Self {
        let remedy = match error.kind() {
            io::ErrorKind::PermissionDenied => "run the command with sudo",
            io::ErrorKind::StorageFull => "make room on the disk and run the command again",
            _ => "",
        };
        Self::machine(format!("cannot {what} {}: {error}", path.display()), remedy)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, " ({})", self.remedy) }
    }
}

impl std::error::Error for Error {}

impl From<sallyport_ca::Error> for Error {
    fn from(error: sallyport_ca::Error) -> Self {
        Self::machine(error.to_string(), "")
    }
}

/// Text of a server, fit for one line of a terminal: at most 200 characters, without any that steer it.
pub(crate) fn foreign(text: &str) -> String {
    let hidden =
        |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    let line = text.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or_default();
    line.chars().filter(|c| !c.is_control() && !hidden(*c)).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_steers_no_terminal() {
        assert_eq!(foreign("\n\n the token \u{1b}[31mhas\u{202e} expired\nmore"), "the token [31mhas expired");
        assert_eq!(foreign(&"x".repeat(10_000)).len(), 200);
        assert_eq!(Error::new(Kind::Refused, "no", "ask").to_string(), "no (ask)");
    }
}
