//! What holds the node key: making one, and getting it back.

use std::path::{Path, PathBuf};

use ring::rand::SecureRandom;
use sallyport_ca::seal::{SealError, SealKey};

use super::passphrase::{self, Costs, SALT};
use super::secrets::Secrets;
use super::token;
use crate::config::{UnsealConfig, UnsealMethod};
use crate::error::Error;
use crate::files;

/// What holds the node key, as it stands in the sealed copy. Numbers are stored: never reuse one.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Hold {
    /// A file.
    #[prost(message, tag = "1")]
    File(FileHold),
    /// A passphrase.
    #[prost(message, tag = "2")]
    Passphrase(PassphraseHold),
    /// A token.
    #[prost(message, tag = "3")]
    Token(TokenHold),
}

/// The node key is in a file.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct FileHold {
    /// Where it was when the copy was made, as configured; empty for the usual place.
    #[prost(string, tag = "1")]
    pub(super) path: String,
}

/// The node key is Argon2id (RFC 9106) of a passphrase.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PassphraseHold {
    /// Memory, KiB.
    #[prost(uint32, tag = "1")]
    pub(super) memory_kib: u32,
    /// Passes.
    #[prost(uint32, tag = "2")]
    pub(super) passes: u32,
    /// Lanes.
    #[prost(uint32, tag = "3")]
    pub(super) lanes: u32,
    /// Salt.
    #[prost(bytes = "vec", tag = "4")]
    pub(super) salt: Vec<u8>,
}

/// The node key is encrypted by a key that stays in a token.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TokenHold {
    /// Label of the token.
    #[prost(string, tag = "1")]
    pub(super) token: String,
    /// Label of the key.
    #[prost(string, tag = "2")]
    pub(super) key: String,
    /// How it was encrypted.
    #[prost(enumeration = "token::Method", tag = "3")]
    pub(super) method: i32,
    /// Initialization vector; empty for RSA.
    #[prost(bytes = "vec", tag = "4")]
    pub(super) iv: Vec<u8>,
    /// The node key, encrypted.
    #[prost(bytes = "vec", tag = "5")]
    pub(super) encrypted: Vec<u8>,
    /// The module when the copy was made.
    #[prost(string, tag = "6")]
    pub(super) module: String,
}

impl Hold {
    /// Its name in the configuration.
    pub(super) const fn method(&self) -> UnsealMethod {
        match self {
            Self::File(_) => UnsealMethod::File,
            Self::Passphrase(_) => UnsealMethod::Passphrase,
            Self::Token(_) => UnsealMethod::Pkcs11,
        }
    }

    /// The settings that open it, as far as the copy itself tells them; where secrets are found is as in `like`.
    pub(super) fn settings(&self, like: &UnsealConfig) -> UnsealConfig {
        let mut config = UnsealConfig { method: self.method(), ..like.clone() };
        match self {
            Self::File(file) => config.key_file = PathBuf::from(&file.path),
            Self::Passphrase(_) => {}
            Self::Token(token) => {
                config.pkcs11.token.clone_from(&token.token);
                config.pkcs11.key.clone_from(&token.key);
                if config.pkcs11.module.as_os_str().is_empty() {
                    config.pkcs11.module = PathBuf::from(&token.module);
                }
            }
        }
        config
    }
}

/// Where the node key's file is.
pub(super) fn key_file(state: &Path, config: &UnsealConfig) -> PathBuf {
    if config.key_file.as_os_str().is_empty() { state.join("node.key") } else { state.join(&config.key_file) }
}

/// Makes what the settings ask for, and the node key that it holds. A key file that is there is used.
pub(super) fn make(
    state: &Path,
    config: &UnsealConfig,
    secrets: &Secrets<'_>,
    rng: &dyn SecureRandom,
) -> Result<(Hold, SealKey), Error> {
    let random = |e: SealError| Error::Internal(e.to_string());
    match config.method {
        UnsealMethod::File => {
            let path = key_file(state, config);
            let key = match files::read_private(&path)? {
                Some(contents) => SealKey::from_file(&contents).map_err(|e| no_key(&path, e))?,
                None => {
                    let key = SealKey::generate(rng).map_err(random)?;
                    files::write_private(&path, key.to_file().as_bytes())?;
                    key
                }
            };
            let path = config.key_file.to_str().ok_or_else(|| Error::Config("unseal.key_file is not UTF-8".into()))?;
            Ok((Hold::File(FileHold { path: path.into() }), key))
        }
        UnsealMethod::Passphrase => {
            let passphrase = secrets.new_passphrase(config)?;
            let mut salt = [0; SALT];
            rng.fill(&mut salt).map_err(|_| random(SealError::Random))?;
            let costs = Costs { memory_kib: config.argon2_memory_kib, passes: config.argon2_passes, lanes: 1 };
            let key = passphrase::derive(costs, &salt, &passphrase)
                .ok_or_else(|| Error::Config("unseal: these Argon2 costs are not possible".into()))?;
            let Costs { memory_kib, passes, lanes } = costs;
            let hold = PassphraseHold { memory_kib, passes, lanes, salt: salt.to_vec() };
            Ok((Hold::Passphrase(hold), SealKey::from_bytes(&key)))
        }
        UnsealMethod::Pkcs11 => {
            let key = SealKey::generate(rng).map_err(random)?;
            let pin = secrets.pin(config)?;
            let hold = token::encrypt(&config.pkcs11, &pin, &key.to_bytes(), rng)?;
            Ok((Hold::Token(hold), key))
        }
    }
}

/// Gets the node key that `hold` stands for; the settings are for the same method.
pub(super) fn open(state: &Path, hold: &Hold, config: &UnsealConfig, secrets: &Secrets<'_>) -> Result<SealKey, Error> {
    match hold {
        Hold::File(_) => {
            let path = key_file(state, config);
            match files::read_private(&path)? {
                Some(contents) => SealKey::from_file(&contents).map_err(|e| no_key(&path, e)),
                None => Err(Error::File {
                    path,
                    cause: "the node key is missing, and without it this node's copy of the seal key does not open"
                        .into(),
                    remedy: "mount its disk or put the file back; if it is lost for ever, wipe the node and let it \
                             join again"
                        .into(),
                }),
            }
        }
        Hold::Passphrase(hold) => {
            let passphrase = secrets.passphrase(config)?;
            let costs = Costs { memory_kib: hold.memory_kib, passes: hold.passes, lanes: hold.lanes };
            passphrase::derive(costs, &hold.salt, &passphrase)
                .map(|key| SealKey::from_bytes(&key))
                .ok_or_else(|| Error::Config("the sealed copy asks for impossible Argon2 costs; it is damaged".into()))
        }
        Hold::Token(hold) => {
            let pin = secrets.pin(config)?;
            let key = token::decrypt(&config.pkcs11, &pin, hold)?;
            Ok(SealKey::from_bytes(&key))
        }
    }
}

fn no_key(path: &Path, error: SealError) -> Error {
    Error::File {
        path: path.into(),
        cause: error.to_string(),
        remedy: "put back the node key, or name another file in controller.unseal.key_file".into(),
    }
}
