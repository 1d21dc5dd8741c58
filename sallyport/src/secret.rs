//! Secrets from people: asked for at the terminal or read from standard input, never from the argument list, which every
//! user of the machine can read.

use std::fs::File;
use std::io::{BufRead, IsTerminal, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use clap::Args;
use sallyport_proto::v1::Secret;
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// Longest secret that the controller takes, bytes.
const LONGEST: usize = 256;

/// Where a password comes from.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct PasswordSource {
    /// Read the password from the first line of standard input instead of asking for it.
    #[arg(long)]
    pub(crate) password_stdin: bool,
}

impl PasswordSource {
    /// A new password, asked for twice.
    pub(crate) fn read(self, whose: &str) -> Result<Secret> {
        read(self.password_stdin, &format!("New password of {whose}"), "--password-stdin", 1)
    }
}

/// A new secret of at least `shortest` bytes; a person is asked for it twice.
pub(crate) fn read(from_stdin: bool, prompt: &str, option: &str, shortest: usize) -> Result<Secret> {
    let secret = given(from_stdin, prompt, option)?;
    if !from_stdin && *secret != *ask("Once more: ")? {
        return Err(Error::failed("the two are not the same").remedy("run the command again"));
    }
    checked(&secret, shortest)
}

/// A secret that there is already.
pub(crate) fn known(from_stdin: bool, prompt: &str, option: &str) -> Result<Secret> {
    checked(&given(from_stdin, prompt, option)?, 1)
}

/// The first line of a file that no one else may read.
pub(crate) fn from_file(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path).map_err(|e| Error::file("read", path, &e))?;
    let mode = file.metadata().map_err(|e| Error::file("read", path, &e))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(Error::failed(format!("others may read {}", path.display()))
            .remedy("take the permission away (chmod 600) and consider whether they did"));
    }
    // No more than the longest secret and a little, so that a longer one is noticed.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST + 4));
    file.take(LONGEST as u64 + 3).read_to_end(&mut bytes).map_err(|e| Error::file("read", path, &e))?;
    let line = first_line(bytes.as_slice()).map_err(|e| e.context(path.display()))?;
    Ok(checked(&line, 1).map_err(|e| e.context(path.display()))?.into_inner())
}

/// The first line of a file that no one else may read, or of standard input where the file is `-`: there a person is asked.
pub(crate) fn from_file_or_stdin(path: &Path, prompt: &str) -> Result<Zeroizing<Vec<u8>>> {
    if path != Path::new("-") {
        return from_file(path);
    }
    let line = if std::io::stdin().is_terminal() {
        ask(&format!("{prompt}: "))?
    } else {
        first_line(std::io::stdin().lock())?
    };
    Ok(checked(&line, 1).map_err(|e| e.context("standard input"))?.into_inner())
}

fn given(from_stdin: bool, prompt: &str, option: &str) -> Result<Zeroizing<String>> {
    if from_stdin {
        first_line(std::io::stdin().lock())
    } else if std::io::stdin().is_terminal() {
        ask(&format!("{prompt}: "))
    } else {
        Err(Error::usage("standard input is no terminal, so nobody can be asked").remedy(format!("pass {option}")))
    }
}

fn checked(secret: &str, shortest: usize) -> Result<Secret> {
    match secret.len() {
        len if len < shortest => {
            Err(Error::usage(format!("{len} bytes are too short")).remedy(format!("give at least {shortest}")))
        }
        len if len > LONGEST => {
            Err(Error::usage(format!("{len} bytes are too long")).remedy(format!("give at most {LONGEST}")))
        }
        _ => Ok(Secret::new(secret.as_bytes())),
    }
}

fn ask(prompt: &str) -> Result<Zeroizing<String>> {
    rpassword::prompt_password(prompt)
        .map(Zeroizing::new)
        .map_err(|e| Error::failed(format!("cannot read from the terminal: {e}")))
}

/// The first line without its end; a little more than the longest secret is read, so that a longer one is noticed.
fn first_line(input: impl BufRead) -> Result<Zeroizing<String>> {
    // Room for all of it at once: a reallocation would leave a copy behind.
    let mut line = Zeroizing::new(String::with_capacity(LONGEST + 4));
    input
        .take(LONGEST as u64 + 3)
        .read_line(&mut line)
        .map_err(|e| Error::failed(format!("cannot read the secret: {e}")))?;
    let len = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(len);
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_where_it_ends() {
        for (input, secret) in
            [("open sesame\n", "open sesame"), ("a\r\nb", "a"), (" a ", " a "), ("", ""), ("\n", ""), ("ü\n", "ü")]
        {
            assert_eq!(first_line(input.as_bytes()).unwrap().as_str(), secret);
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "open sesame\nsecond line\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(from_file(&path).unwrap_err().to_string().contains("chmod 600"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
        assert_eq!(*from_file(&path).unwrap(), b"open sesame");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        for (contents, hint) in [(String::new(), "too short"), ("x".repeat(10_000), "too long")] {
            std::fs::write(&path, contents).unwrap();
            assert!(from_file(&path).unwrap_err().to_string().contains(hint));
        }
        assert!(from_file(&dir.path().join("none")).is_err());
    }

    #[test]
    fn a_long_line_is_read_far_enough_to_be_refused() {
        let long = "x".repeat(10_000);
        assert!(first_line(long.as_bytes()).unwrap().len() > LONGEST);
    }
}
