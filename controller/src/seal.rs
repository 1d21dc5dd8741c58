//! What is secret at rest, under which name it is sealed, and how this node gets the key that opens it.
//!
//! All secrets of the cluster are sealed under one *seal key*. Each node keeps a copy of it in `seal.sealed`, sealed under a
//! *node key* of its own that is elsewhere: in a file (`node.key` unless another disk is configured), in an operator's head
//! (a passphrase), or in a token (PKCS #11). Either without the other opens nothing. A node that joins gets the seal key
//! wrapped to a key pair made for the purpose ([`Sealer::wrap_for`]) and makes a copy of its own ([`Sealer::adopt`]).
//!
//! A sealed value is bound to its purpose, to the cluster and to its place, so that it opens nowhere but there.
//!
//! Until version 0.1 the seal key itself was in `seal.key`: such a file is taken over at the first start.

mod copy;
mod hold;
pub(crate) mod passphrase;
mod secrets;
mod token;

use std::path::{Path, PathBuf};

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use sallyport_ca::seal::{Purpose, SealError, SealKey, Sealed};
use zeroize::Zeroizing;

use self::copy::Copy;
use self::secrets::Secrets;
use crate::config::{UnsealConfig, UnsealMethod};
use crate::error::Error;
use crate::files;

/// Argon2id verifiers are no passwords, but let their owner guess offline.
const VERIFIER: Purpose = Purpose::new("password verifier");

/// Controllers prove to each other that they are of one cluster.
const AMONG_MEMBERS: Purpose = Purpose::new("proof among controllers");

/// Answers with a secret, for whoever asks again.
const ANSWER: Purpose = Purpose::new("answer to a caller");

/// The key of SCEP's RA, which all controllers share.
const SCEP_RA: Purpose = Purpose::new("scep ra key");

/// A controller's private key, in its own state folder.
const OWN_KEY: Purpose = Purpose::new("controller's own key");

/// A secret of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UserSecret {
    /// For MS-CHAPv2.
    NtHash,
    /// For PAP.
    Verifier,
    /// For CHAP-MD5.
    Password,
}

impl UserSecret {
    const fn purpose(self) -> Purpose {
        match self {
            Self::NtHash => Purpose::NT_HASH,
            Self::Verifier => VERIFIER,
            Self::Password => Purpose::PASSWORD,
        }
    }
}

/// A request that may be made again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    /// Its id in the log.
    pub(crate) id: [u8; 16],
    /// What its caller named it: kept nowhere.
    pub(crate) name: &'a [u8],
}

/// This node's copy of the seal key, in the state folder.
const COPY: &str = "seal.sealed";
/// The seal key in the clear, as earlier versions kept it.
const BARE: &str = "seal.key";
/// A folder in a state that `backup::restore` has not finished.
pub(crate) const RESTORING: &str = ".restoring";

/// Seals and opens.
#[derive(Debug)]
pub(crate) struct Sealer {
    key: SealKey,
    path: PathBuf,
    rng: SystemRandom,
}

impl Sealer {
    /// Opens this node's copy of the seal key in the folder `state`. Where there is none, a seal key is made if `pristine`
    /// says that there is nothing yet that it would have to open; the bare key of an earlier version is taken over.
    pub(crate) fn open(state: &Path, config: &UnsealConfig, pristine: bool) -> Result<Self, Error> {
        Self::open_with(state, config, pristine, &Secrets::of_this_process())
    }

    fn open_with(state: &Path, config: &UnsealConfig, pristine: bool, secrets: &Secrets<'_>) -> Result<Self, Error> {
        let (path, bare, rng) = (state.join(COPY), state.join(BARE), SystemRandom::new());
        if state.join(RESTORING).exists() {
            return Err(Error::File {
                path: state.into(),
                cause: "a restore into this folder was cut short".into(),
                remedy: "run it again: sallyport backup restore".into(),
            });
        }
        let key = match (Copy::read(&path)?, files::read_private(&bare)?) {
            (Some(copy), left) => {
                let key = open_copy(state, &path, &copy, config, secrets)?;
                if let Some(left) = left {
                    // A start that was cut short between the two steps below.
                    take_away_bare(&bare, &left, &key)?;
                }
                key
            }
            (None, Some(contents)) => {
                let key = SealKey::from_file(&contents).map_err(|e| Error::File {
                    path: bare.clone(),
                    cause: e.to_string(),
                    remedy: "put back the key file this state was made with".into(),
                })?;
                write_copy(state, &path, config, secrets, &key, &rng)?;
                // Not before the copy is on disk.
                take_away_bare(&bare, &contents, &key)?;
                tracing::info!(
                    path = %path.display(), method = config.method.name(),
                    "the seal key is sealed now; old copies and backups of {BARE} still open everything, so destroy them"
                );
                key
            }
            (None, None) if pristine => {
                let key = SealKey::generate(&rng).map_err(|e| Error::Internal(e.to_string()))?;
                write_copy(state, &path, config, secrets, &key, &rng)?;
                tracing::info!(path = %path.display(), method = config.method.name(), "made a new seal key");
                key
            }
            (None, None) => {
                return Err(Error::File {
                    path,
                    cause: "the sealed copy of the seal key is missing, and without it nothing in this state can be \
                            opened"
                        .into(),
                    remedy: "put back the file this state was made with; if it is lost, wipe the node and let it join \
                             again, or restore a backup"
                        .into(),
                });
            }
        };
        Ok(Self { key, path, rng })
    }

    /// Keeps a seal key that a member of the cluster handed over, in a copy of this node's own.
    pub(crate) fn adopt(state: &Path, config: &UnsealConfig, key: SealKey) -> Result<Self, Error> {
        Self::adopt_with(state, config, key, &Secrets::of_this_process())
    }

    fn adopt_with(state: &Path, config: &UnsealConfig, key: SealKey, secrets: &Secrets<'_>) -> Result<Self, Error> {
        let (path, rng) = (state.join(COPY), SystemRandom::new());
        match Copy::read(&path)? {
            // An attempt to join that was cut short.
            Some(copy) if open_copy(state, &path, &copy, config, secrets)?.id() == key.id() => {}
            Some(_) => {
                return Err(Error::File {
                    path,
                    cause: "this node holds the seal key of another cluster".into(),
                    remedy: "choose an empty state folder for a node that joins".into(),
                });
            }
            None => write_copy(state, &path, config, secrets, &key, &rng)?,
        }
        Ok(Self { key, path, rng })
    }

    /// Makes the copy for a state that is being restored, in the folder `into`; the node key is made where it will be.
    pub(crate) fn prepare(state: &Path, into: &Path, config: &UnsealConfig, key: &SealKey) -> Result<(), Error> {
        let secrets = Secrets::of_this_process();
        write_copy(state, &into.join(COPY), config, &secrets, key, &SystemRandom::new())
    }

    /// The file with the node key, if one is configured.
    pub(crate) fn key_file(state: &Path, config: &UnsealConfig) -> Option<PathBuf> {
        (config.method == UnsealMethod::File).then(|| hold::key_file(state, config))
    }

    /// Wraps the seal key to the public key of a node that joins; `sallyport_ca::seal::JoinKey` opens it there. Both sides
    /// name the same `context`: the cluster, and whom this is for.
    pub(crate) fn wrap_for(&self, recipient_public: &[u8; 32], context: &[u8]) -> Result<Vec<u8>, Error> {
        self.key
            .wrap_for(recipient_public, context, &self.rng)
            .map_err(|e| Error::Refused(format!("the seal key cannot be wrapped to this public key: {e}")))
    }

    /// The file with this node's copy, which errors name.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A key that all members have, to know each other by.
    pub(crate) fn key_among_members(&self) -> Zeroizing<[u8; 32]> {
        self.key.derive_key(AMONG_MEMBERS)
    }

    /// The key itself, for the authority.
    pub(crate) const fn key(&self) -> &SealKey {
        &self.key
    }

    /// The random source.
    pub(crate) const fn rng(&self) -> &SystemRandom {
        &self.rng
    }

    /// Seals a secret of a user.
    pub(crate) fn seal_user(
        &self,
        which: UserSecret,
        cluster: &[u8],
        key: &str,
        secret: &[u8],
    ) -> Result<Vec<u8>, Error> {
        self.seal(which.purpose(), &[cluster, b"user", key.as_bytes()], secret)
    }

    /// Opens a secret of a user.
    pub(crate) fn open_user(
        &self,
        which: UserSecret,
        cluster: &[u8],
        key: &str,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.unseal(which.purpose(), &[cluster, b"user", key.as_bytes()], sealed, || format!("the password of {key:?}"))
    }

    /// Seals the pre-shared key.
    pub(crate) fn seal_psk(&self, cluster: &[u8], psk: &[u8]) -> Result<Vec<u8>, Error> {
        self.seal(Purpose::PRE_SHARED_KEY, &[cluster], psk)
    }

    /// Opens the pre-shared key.
    pub(crate) fn open_psk(&self, cluster: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.unseal(Purpose::PRE_SHARED_KEY, &[cluster], sealed, || "the pre-shared key".into())
    }

    /// Seals the answer to a request under the seal key and the caller's name for the request. The log keeps a hash of that name
    /// only, so once the caller is content nobody opens it any more.
    pub(crate) fn seal_answer(&self, cluster: &[u8], request: &Request<'_>, answer: &[u8]) -> Result<Vec<u8>, Error> {
        let key = self.answer_key(request);
        let sealed = key.seal(ANSWER, &[cluster, &request.id], answer, &self.rng);
        Ok(sealed.map_err(|e| Error::Internal(e.to_string()))?.into_bytes())
    }

    /// Opens such an answer for the same request.
    pub(crate) fn open_answer(
        &self,
        cluster: &[u8],
        request: &Request<'_>,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.answer_key(request)
            .open(ANSWER, &[cluster, &request.id], &Sealed::from_bytes(sealed.to_vec()))
            .map_err(|_| Error::Seal { what: "an answer that was given before".into(), key: self.path.clone() })
    }

    fn answer_key(&self, request: &Request<'_>) -> SealKey {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &*self.key.derive_key(ANSWER));
        let tag = hmac::sign(&key, request.name);
        let mut bytes = Zeroizing::new([0; 32]);
        bytes.copy_from_slice(tag.as_ref());
        SealKey::from_bytes(&bytes)
    }

    /// Seals the key of an RA of SCEP, PKCS #8.
    pub(crate) fn seal_scep_ra(&self, cluster: &[u8], number: u64, key: &[u8]) -> Result<Vec<u8>, Error> {
        self.seal(SCEP_RA, &[cluster, &number.to_be_bytes()], key)
    }

    /// Opens it.
    pub(crate) fn open_scep_ra(&self, cluster: &[u8], number: u64, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.unseal(SCEP_RA, &[cluster, &number.to_be_bytes()], sealed, || format!("the key of SCEP's RA {number}"))
    }

    /// Seals this controller's private key.
    pub(crate) fn seal_own_key(&self, key: &[u8]) -> Result<Vec<u8>, Error> {
        self.seal(OWN_KEY, &[], key)
    }

    /// Opens it.
    pub(crate) fn open_own_key(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.unseal(OWN_KEY, &[], sealed, || "this controller's private key (controller/key.sealed)".into())
    }

    fn seal(&self, purpose: Purpose, place: &[&[u8]], secret: &[u8]) -> Result<Vec<u8>, Error> {
        let sealed = self.key.seal(purpose, place, secret, &self.rng).map_err(|e| Error::Internal(e.to_string()))?;
        Ok(sealed.into_bytes())
    }

    fn unseal(
        &self,
        purpose: Purpose,
        place: &[&[u8]],
        sealed: &[u8],
        what: impl FnOnce() -> String,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.key
            .open(purpose, place, &Sealed::from_bytes(sealed.to_vec()))
            .map_err(|_| Error::Seal { what: what(), key: self.path.clone() })
    }

    /// Random bytes.
    pub(crate) fn random<const N: usize>(&self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.rng.fill(&mut bytes).map_err(|_| Error::Internal("the system gives no random bytes".into()))?;
        Ok(bytes)
    }
}

/// Opens a copy with the method that is configured, which must be the one it was made with.
fn open_copy(
    state: &Path,
    path: &Path,
    copy: &Copy,
    config: &UnsealConfig,
    secrets: &Secrets<'_>,
) -> Result<SealKey, Error> {
    let differs = |is: String, configured: String| Error::File {
        path: path.into(),
        cause: format!("the seal key is held by {is}, and controller.unseal says {configured}"),
        remedy: "correct the configuration, or change the copy to it: sallyport controller --reseal".into(),
    };
    if copy.hold.method() != config.method {
        let quoted = |method: UnsealMethod| format!("method {:?}", method.name());
        return Err(differs(quoted(copy.hold.method()), quoted(config.method)));
    }
    if let hold::Hold::Token(hold) = &copy.hold
        && (hold.token != config.pkcs11.token || hold.key != config.pkcs11.key)
    {
        let text = |key: &str, token: &str| format!("key {key:?} of token {token:?}");
        return Err(differs(text(&hold.key, &hold.token), text(&config.pkcs11.key, &config.pkcs11.token)));
    }
    let node_key = hold::open(state, &copy.hold, config, secrets)?;
    copy.open(&node_key).map_err(|e| match e {
        SealError::WrongKey => Error::File {
            path: path.into(),
            cause: match config.method {
                UnsealMethod::File => {
                    format!("{} is not the node key it was sealed with", hold::key_file(state, config).display())
                }
                UnsealMethod::Passphrase => "the passphrase is wrong".into(),
                UnsealMethod::Pkcs11 => "the key in the token is not the one it was sealed with".into(),
            },
            remedy: "give the one that this copy was made with".into(),
        },
        _ => Error::File {
            path: path.into(),
            cause: "the sealed copy of the seal key is damaged".into(),
            remedy: "put the file back from a copy of this node's state, or wipe the node and let it join again".into(),
        },
    })
}

/// Makes this node's copy of `key` in the file `path`, as configured.
fn write_copy(
    state: &Path,
    path: &Path,
    config: &UnsealConfig,
    secrets: &Secrets<'_>,
    key: &SealKey,
    rng: &SystemRandom,
) -> Result<(), Error> {
    let (hold, node_key) = hold::make(state, config, secrets, rng)?;
    let copy = Copy::new(hold, &node_key, key, rng).map_err(|e| Error::Internal(e.to_string()))?;
    copy.write(path)
}

/// Removes the bare key of an earlier version, which is `key`.
fn take_away_bare(path: &Path, contents: &[u8], key: &SealKey) -> Result<(), Error> {
    // Overwritten already, if this was cut short.
    let spent = contents.iter().all(|b| *b == 0);
    if !spent && SealKey::from_file(contents).is_ok_and(|bare| bare.id() != key.id()) {
        return Err(Error::File {
            path: path.into(),
            cause: format!("it holds another key than {COPY} beside it"),
            remedy: "move away the one that does not belong to this state".into(),
        });
    }
    files::destroy(path)
}

/// What [`reseal`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resealed {
    /// How the seal key was held before.
    pub from: UnsealMethod,
    /// How it is held now.
    pub to: UnsealMethod,
    /// A node key's file that nothing needs any more. It is for the operator to destroy.
    pub left_over: Option<PathBuf>,
}

/// Changes how this node's copy of the seal key in the folder `state` is held: opens it as `from` says, or where that is
/// `None` as the copy itself says, and makes a new one as `to` says. The node does not run meanwhile. Whatever happens, the
/// old copy or the new one is there.
pub fn reseal(state: &Path, from: Option<&UnsealConfig>, to: &UnsealConfig) -> Result<Resealed, Error> {
    reseal_with(state, from, to, &Secrets::of_this_process())
}

fn reseal_with(
    state: &Path,
    from: Option<&UnsealConfig>,
    to: &UnsealConfig,
    secrets: &Secrets<'_>,
) -> Result<Resealed, Error> {
    to.check()?;
    let path = state.join(COPY);
    let copy = Copy::read(&path)?.ok_or_else(|| Error::File {
        path: path.clone(),
        cause: "there is no sealed copy of a seal key".into(),
        remedy: "point to the state folder of a controller that has run before".into(),
    })?;
    let from = from.cloned().unwrap_or_else(|| copy.hold.settings(to));
    let key = open_copy(state, &path, &copy, &from, secrets)?;
    write_copy(state, &path, to, secrets, &key, &SystemRandom::new())?;
    let left_over = Sealer::key_file(state, &from).filter(|old| Sealer::key_file(state, to).as_ref() != Some(old));
    Ok(Resealed { from: from.method, to: to.method, left_over })
}

#[cfg(test)]
mod tests;
