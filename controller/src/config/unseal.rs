//! How this node's copy of the seal key is opened: the settings of `[controller.unseal]`.

use std::path::PathBuf;

use serde::Deserialize;

use crate::error::Error;
use crate::seal::passphrase::Costs;

/// What holds the node key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnsealMethod {
    /// A file that only we may read.
    #[default]
    File,
    /// A passphrase, stretched by Argon2id.
    Passphrase,
    /// A key in a PKCS #11 token (a hardware security module) that never leaves it.
    Pkcs11,
}

impl UnsealMethod {
    /// As it is written in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Passphrase => "passphrase",
            Self::Pkcs11 => "pkcs11",
        }
    }
}

/// How this node's copy of the seal key is opened.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UnsealConfig {
    /// What holds the node key.
    pub method: UnsealMethod,
    /// Method `file`: the node key, mode 0600; relative to the state folder, empty for `node.key` in it.
    pub key_file: PathBuf,
    /// Method `passphrase`: a file whose first line is the passphrase; empty to look elsewhere.
    pub passphrase_file: PathBuf,
    /// Memory of the Argon2id computation, KiB; for passphrases set from now on.
    pub argon2_memory_kib: u32,
    /// Passes over it.
    pub argon2_passes: u32,
    /// Method `pkcs11`.
    pub pkcs11: Pkcs11Config,
}

impl Default for UnsealConfig {
    fn default() -> Self {
        Self {
            method: UnsealMethod::default(),
            key_file: PathBuf::new(),
            passphrase_file: PathBuf::new(),
            // RFC 9106 §4, second recommended option.
            argon2_memory_kib: 65_536,
            argon2_passes: 3,
            pkcs11: Pkcs11Config::default(),
        }
    }
}

/// A key in a token.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pkcs11Config {
    /// The vendor's module, a shared library.
    pub module: PathBuf,
    /// Label of the token.
    pub token: String,
    /// Label of the key in it: an AES key, or a pair of RSA keys. An AES key is made where there is none.
    pub key: String,
    /// A file whose first line is the PIN; empty to look elsewhere.
    pub pin_file: PathBuf,
}

impl Default for Pkcs11Config {
    fn default() -> Self {
        Self { module: PathBuf::new(), token: String::new(), key: "sallyport".into(), pin_file: PathBuf::new() }
    }
}

impl UnsealConfig {
    /// Finds what is out of range or missing.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let bad = |text: String| Err(Error::Config(text));
        let costs = Costs { memory_kib: self.argon2_memory_kib, passes: self.argon2_passes, lanes: 1 };
        if !costs.are_reasonable() {
            return bad(
                "unseal.argon2_memory_kib must be 8 to 1048576, argon2_passes 1 to 100, and both multiplied at \
                        most 4194304"
                    .into(),
            );
        }
        if self.method == UnsealMethod::Pkcs11 {
            let missing = [
                ("module", self.pkcs11.module.as_os_str().is_empty()),
                ("token", self.pkcs11.token.is_empty()),
                ("key", self.pkcs11.key.is_empty()),
            ];
            if let Some((key, _)) = missing.iter().find(|(_, empty)| *empty) {
                return bad(format!("unseal.pkcs11.{key} is empty; the method pkcs11 needs module, token and key"));
            }
            if !self.pkcs11.module.is_absolute() {
                return bad(
                    "unseal.pkcs11.module must be an absolute path, such as /usr/lib/softhsm/libsofthsm2.so".into()
                );
            }
        }
        Ok(())
    }
}
