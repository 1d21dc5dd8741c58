//! Where passphrases and PINs come from: a file, a credential of systemd, the environment, or the terminal; never the
//! command line, which every user of the machine can read.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::passphrase::SHORTEST;
use crate::config::UnsealConfig;
use crate::error::Error;
use crate::files;

/// Longest secret that is read, bytes.
const LONGEST: usize = 1_024;

/// What a secret is called in each place.
struct Names {
    /// For people.
    what: &'static str,
    /// The setting that names a file.
    setting: &'static str,
    /// The credential of systemd.
    credential: &'static str,
    /// The environment variable.
    variable: &'static str,
}

const PASSPHRASE: Names = Names {
    what: "the passphrase of the seal key",
    setting: "controller.unseal.passphrase_file",
    credential: "sallyport-passphrase",
    variable: "SALLYPORT_SEAL_PASSPHRASE",
};
const PIN: Names = Names {
    what: "the PIN of the token",
    setting: "controller.unseal.pkcs11.pin_file",
    credential: "sallyport-pin",
    variable: "SALLYPORT_PKCS11_PIN",
};

/// A secret.
pub(super) type Secret = Zeroizing<Vec<u8>>;

/// Asks a person; `None` where nobody can be asked.
type Ask<'a> = &'a dyn Fn(&str) -> Option<io::Result<Zeroizing<String>>>;

/// The places.
pub(super) struct Secrets<'a> {
    variable: &'a dyn Fn(&str) -> Option<OsString>,
    ask: Ask<'a>,
}

fn ask_terminal(prompt: &str) -> Option<io::Result<Zeroizing<String>>> {
    io::stdin().is_terminal().then(|| rpassword::prompt_password(format!("{prompt}: ")).map(Zeroizing::new))
}

impl Secrets<'static> {
    /// Those of this process.
    pub(super) fn of_this_process() -> Self {
        Self { variable: &|name| std::env::var_os(name), ask: &ask_terminal }
    }
}

impl Secrets<'_> {
    /// The passphrase of a copy that is there.
    pub(super) fn passphrase(&self, config: &UnsealConfig) -> Result<Secret, Error> {
        self.find(&PASSPHRASE, &config.passphrase_file, false)
    }

    /// The passphrase for a new copy; a person is asked twice.
    pub(super) fn new_passphrase(&self, config: &UnsealConfig) -> Result<Secret, Error> {
        let passphrase = self.find(&PASSPHRASE, &config.passphrase_file, true)?;
        if passphrase.len() < SHORTEST {
            return Err(Error::Config(format!(
                "unseal: the passphrase has {} bytes; give at least {SHORTEST}, for whoever gets the file may guess without end",
                passphrase.len()
            )));
        }
        Ok(passphrase)
    }

    /// The PIN of a token.
    pub(super) fn pin(&self, config: &UnsealConfig) -> Result<Secret, Error> {
        self.find(&PIN, &config.pkcs11.pin_file, false)
    }

    fn find(&self, names: &Names, file: &Path, twice: bool) -> Result<Secret, Error> {
        let credentials = (self.variable)("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        if !file.as_os_str().is_empty() {
            // What systemd hands over it has protected itself, by an access list that looks like a group's permission.
            let by_systemd = credentials.is_some_and(|dir| file.starts_with(dir));
            let contents =
                if by_systemd { files::read_public(file)?.map(Zeroizing::new) } else { files::read_private(file)? };
            return match contents {
                Some(contents) => first_line(contents, names, file),
                None => Err(Error::File {
                    path: file.into(),
                    cause: format!("no such file, and {} is to be read from it", names.what),
                    remedy: format!("make it (mode 0600), or change {}", names.setting),
                }),
            };
        }
        if let Some(path) = credentials.map(|dir| dir.join(names.credential))
            && let Some(contents) = files::read_public(&path)?
        {
            return first_line(Zeroizing::new(contents), names, &path);
        }
        if let Some(value) = (self.variable)(names.variable).filter(|v| !v.is_empty()) {
            let value = Zeroizing::new(value.into_encoded_bytes());
            return if value.len() > LONGEST { Err(too_long(names)) } else { Ok(value) };
        }
        let failed = |e: io::Error| Error::Config(format!("unseal: cannot read from the terminal: {e}"));
        let prompt = format!("{}{}", capital(names.what), if twice { " (a new one)" } else { "" });
        match (self.ask)(&prompt) {
            Some(first) => {
                let first = first.map_err(failed)?;
                if twice {
                    let second = (self.ask)("Once more").unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()));
                    if *second.map_err(failed)? != *first {
                        return Err(Error::Config("unseal: the two are not the same; start again".into()));
                    }
                }
                Ok(Zeroizing::new(first.as_bytes().to_vec()))
            }
            None => Err(Error::Config(format!(
                "unseal: {} is needed, and there is no terminal to ask at; give it in a file ({}), as the systemd \
                 credential {}, or in the environment variable {}",
                names.what, names.setting, names.credential, names.variable
            ))),
        }
    }
}

fn too_long(names: &Names) -> Error {
    Error::Config(format!("unseal: {} is longer than {LONGEST} bytes", names.what))
}

fn first_line(contents: Secret, names: &Names, path: &Path) -> Result<Secret, Error> {
    let line = contents.split(|b| *b == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match line.len() {
        0 => Err(Error::File {
            path: path.into(),
            cause: format!("its first line is empty, and {} is to stand there", names.what),
            remedy: "write it there".into(),
        }),
        n if n > LONGEST => Err(too_long(names)),
        _ => Ok(Zeroizing::new(line.to_vec())),
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn nobody(_: &str) -> Option<io::Result<Zeroizing<String>>> {
        None
    }

    fn config(file: &Path) -> UnsealConfig {
        UnsealConfig { passphrase_file: file.into(), ..UnsealConfig::default() }
    }

    fn write(path: &Path, contents: &str, mode: u32) {
        fs::write(path, contents).expect("writes");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("sets");
    }

    #[test]
    fn a_file_comes_before_a_credential_before_the_environment_before_a_person() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (file, credential) = (dir.path().join("file"), dir.path().join("sallyport-passphrase"));
        let variable = |name: &str| match name {
            "CREDENTIALS_DIRECTORY" => Some(dir.path().as_os_str().to_owned()),
            "SALLYPORT_SEAL_PASSPHRASE" => Some("from the environment".into()),
            _ => None,
        };
        let bare = |_: &str| None;
        let person = |_: &str| Some(Ok(Zeroizing::new("from a person".to_owned())));
        let found = |secrets: Secrets<'_>, file: &Path| {
            String::from_utf8(secrets.passphrase(&config(file)).expect("found").to_vec()).expect("text")
        };
        write(&file, "from a file\r\nsecond line\n", 0o600);
        write(&credential, "from systemd", 0o440);
        assert_eq!(found(Secrets { variable: &variable, ask: &person }, &file), "from a file");
        assert_eq!(found(Secrets { variable: &variable, ask: &person }, Path::new("")), "from systemd");
        assert_eq!(found(Secrets { variable: &variable, ask: &person }, &credential), "from systemd");
        fs::remove_file(&credential).expect("removes");
        assert_eq!(found(Secrets { variable: &variable, ask: &person }, Path::new("")), "from the environment");
        assert_eq!(found(Secrets { variable: &bare, ask: &person }, Path::new("")), "from a person");
        let error = Secrets { variable: &bare, ask: &nobody }.passphrase(&config(Path::new(""))).expect_err("none");
        assert!(error.to_string().contains("SALLYPORT_SEAL_PASSPHRASE"), "{error}");
    }

    #[test]
    fn a_file_that_others_may_read_or_that_is_empty_or_missing_is_refused() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let file = dir.path().join("file");
        let bare = |_: &str| None;
        let error = || {
            let secrets = Secrets { variable: &bare, ask: &nobody };
            secrets.passphrase(&config(&file)).expect_err("refused").to_string()
        };
        assert!(error().contains("no such file"), "{}", error());
        write(&file, "open sesame", 0o644);
        assert!(error().contains("chmod 600"), "{}", error());
        write(&file, "\nopen sesame", 0o600);
        assert!(error().contains("first line is empty"), "{}", error());
        write(&file, &"x".repeat(LONGEST + 1), 0o600);
        assert!(error().contains("longer than"), "{}", error());
    }

    #[test]
    fn a_new_passphrase_is_asked_for_twice_and_must_not_be_short() {
        let bare = |_: &str| None;
        let answers = RefCell::new(Vec::new());
        let person = |_: &str| answers.borrow_mut().pop().map(|a: &str| Ok(Zeroizing::new(a.to_owned())));
        let secrets = Secrets { variable: &bare, ask: &person };
        let ask = |given: [&'static str; 2]| {
            answers.replace(given.to_vec());
            secrets.new_passphrase(&config(Path::new(""))).map(|p| p.to_vec()).map_err(|e| e.to_string())
        };
        assert_eq!(ask(["correct horse battery"; 2]).expect("taken"), b"correct horse battery");
        assert!(ask(["correct horse battery", "correct house battery"]).is_err_and(|e| e.contains("not the same")));
        assert!(ask(["too short"; 2]).is_err_and(|e| e.contains("at least 12")));
    }
}
