//! Secrets from people: asked for at the terminal or read from standard input, never from the argument list, which every
//! user of the machine can read.

use std::io::{BufRead, IsTerminal};

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

/// A new secret of at least `shortest` bytes.
pub(crate) fn read(from_stdin: bool, prompt: &str, option: &str, shortest: usize) -> Result<Secret> {
    let secret = if from_stdin {
        first_line(std::io::stdin().lock())?
    } else if std::io::stdin().is_terminal() {
        let secret = ask(&format!("{prompt}: "))?;
        if *secret != *ask("Once more: ")? {
            return Err(Error::failed("the two are not the same").remedy("run the command again"));
        }
        secret
    } else {
        return Err(
            Error::usage("standard input is no terminal, so nobody can be asked").remedy(format!("pass {option}"))
        );
    };
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
        .map_err(|e| Error::failed(format!("cannot read standard input: {e}")))?;
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
    fn a_long_line_is_read_far_enough_to_be_refused() {
        let long = "x".repeat(10_000);
        assert!(first_line(long.as_bytes()).unwrap().len() > LONGEST);
    }
}
