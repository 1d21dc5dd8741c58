//! What `sallyport-enroll` takes from this process: time, random numbers, a person who reads, programs to run.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use sallyport_ca::{SecureRandom, SystemRandom, UnixTime};
use sallyport_enroll::install::{Ran, Runner};
use sallyport_enroll::{Kind, Progress, Surroundings};

use crate::clock::unix_now;
use crate::duration::show_seconds;
use crate::error::{Error, Exit};
use crate::output::one_line;

/// This process.
pub(super) struct Here {
    rng: SystemRandom,
}

impl Here {
    pub(super) fn new() -> Self {
        Self { rng: SystemRandom::new() }
    }
}

impl Surroundings for Here {
    fn now(&self) -> UnixTime {
        unix_now()
    }

    fn rng(&self) -> &dyn SecureRandom {
        &self.rng
    }

    async fn pause(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    fn progress(&self, progress: Progress) {
        let line = match progress {
            Progress::Known(root) => format!("the server is of the authority that was named: {root}"),
            Progress::Key(sha256) => format!("the key of this machine has the SHA-256 {sha256}"),
            Progress::Waiting { after, left, text } => {
                let why = if text.is_empty() { "an operator has yet to approve this machine" } else { &text };
                let (after, left) = (after.as_secs(), show_seconds(left.as_secs()));
                format!("waiting: {why}; asking again in {after} s, for {left} at most")
            }
        };
        // If standard error is closed, nobody waits to be told.
        let _ = writeln!(std::io::stderr().lock(), "{}", one_line(&line));
    }
}

/// Runs programs of this machine.
pub(super) struct Programs;

/// Where those of an administrator are, whatever PATH says.
const ADMINISTRATORS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

impl Runner for Programs {
    fn has(&self, program: &str) -> bool {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut folders = std::env::split_paths(&path).chain(ADMINISTRATORS.iter().map(|f| Path::new(f).to_owned()));
        folders.any(|folder| folder.join(program).is_file())
    }

    fn run(&mut self, program: &str, arguments: &[&str]) -> std::io::Result<Ran> {
        let mut path = std::env::var_os("PATH").unwrap_or_default();
        for folder in ADMINISTRATORS {
            path.push(":");
            path.push(folder);
        }
        let output =
            Command::new(program).args(arguments).env("PATH", path).env("LC_ALL", "C").stdin(Stdio::null()).output()?;
        let last = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            text.lines().rev().find(|l| !l.trim().is_empty()).map(|l| l.trim().to_owned())
        };
        let said = last(&output.stderr).or_else(|| last(&output.stdout)).unwrap_or_else(|| output.status.to_string());
        Ok(Ran { success: output.status.success(), said })
    }
}

impl From<sallyport_enroll::Error> for Error {
    fn from(error: sallyport_enroll::Error) -> Self {
        let exit = match error.kind {
            Kind::Usage => Exit::Usage,
            Kind::Unreachable => Exit::Unreachable,
            Kind::Refused => Exit::Refused,
            Kind::Machine => Exit::Machine,
            Kind::Untrusted | Kind::Pending => Exit::Failed,
        };
        let new = Self::new(exit, error.cause);
        if error.remedy.is_empty() { new } else { new.remedy(error.remedy) }
    }
}
