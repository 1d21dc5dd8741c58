//! The head of a backup: what is inside, and who can open it.

use std::io::{self, Read};

use prost::Message;
use ring::{digest, hkdf};
use sallyport_ca::seal::{Purpose, RecipientKey, SealError, SealKey, Sealed, wrap};
use zeroize::Zeroizing;

use super::keys::{Kind, Lock, Secret};
use crate::seal::passphrase::{self, Costs, SALT};
use crate::software::Beyond;

const MAGIC: &[u8; 7] = b"SPBKUP\x00";
const VERSION: u8 = 1;
const PURPOSE: Purpose = Purpose::new("key of a backup");
const WRAP_CONTEXT: &[u8] = b"sallyport backup file key v1";
const PAYLOAD: &[u8] = b"sallyport backup payload v1";
const DIGEST: usize = digest::SHA256_OUTPUT_LEN;
/// A longer head is none of ours.
const MAX_HEAD: usize = 64 * 1024;
/// Most recipients of one backup.
pub(super) const MAX_RECIPIENTS: usize = 64;
/// Plain bytes of a chunk, smallest and largest that is read.
const CHUNK: std::ops::RangeInclusive<u32> = 1..=4 * 1024 * 1024;

/// Why a file cannot be used. Whoever knows its name adds that.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The system refused.
    #[error("{0}")]
    Io(io::Error),
    /// Something else.
    #[error("this is no backup of a Sallyport cluster, or its beginning is damaged")]
    NotABackup,
    /// A newer format.
    #[error("this backup has format {0}, this version reads up to {VERSION}")]
    Newer(u8),
    /// The head does not fit its digest.
    #[error("the head of this backup is damaged")]
    Head,
    /// Not all of it is there.
    #[error("this backup is cut off: {is} bytes of {should_be}")]
    Truncated {
        /// Bytes that are there.
        is: u64,
        /// Bytes that should be there.
        should_be: u64,
    },
    /// There is more than belongs to it.
    #[error("there are {0} bytes after the end of this backup")]
    TooLong(u64),
    /// A chunk does not open.
    #[error("chunk {chunk} of this backup was altered or damaged")]
    Altered {
        /// Its number, from 0.
        chunk: u64,
    },
    /// Wrong passphrase.
    #[error("the passphrase is wrong")]
    WrongPassphrase,
    /// Made for keys only.
    #[error("this backup has no passphrase; it is for the keys {0}")]
    NoPassphrase(String),
    /// Made for a passphrase, or for others.
    #[error("this backup is not for the key {key}; it is for {others}")]
    NotRecipient {
        /// The key that was given.
        key: String,
        /// Who else.
        others: String,
    },
    /// What opened is not what it should be.
    #[error("the contents of this backup cannot be used: {0}")]
    Content(String),
    /// Made by a newer version than this.
    #[error("{0}")]
    Beyond(Beyond),
}

impl Fault {
    /// What to do about it.
    pub(super) const fn remedy(&self) -> &'static str {
        match self {
            Self::Io(_) => "see that the file can be read",
            Self::NotABackup => "name the file that `sallyport backup create` wrote",
            Self::Newer(_) => "use the newer version of this program",
            Self::Beyond(_) => "nothing of it was used",
            Self::Head | Self::Truncated { .. } | Self::TooLong(_) | Self::Altered { .. } | Self::Content(_) => {
                "nothing of it was used; take another copy of the file, or an earlier backup"
            }
            Self::WrongPassphrase => "try again with the passphrase of that backup",
            Self::NoPassphrase(_) => "give the file with one of these keys",
            Self::NotRecipient { .. } => "give the key or the passphrase that it was made for",
        }
    }
}

/// What a backup is of.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Info {
    /// Names the cluster.
    #[prost(bytes = "vec", tag = "1")]
    pub cluster_id: Vec<u8>,
    /// When it was made, by the cluster's time, milliseconds since 1970.
    #[prost(uint64, tag = "2")]
    pub created_unix_ms: u64,
    /// The log's time in it, milliseconds since 1970.
    #[prost(uint64, tag = "3")]
    pub log_time_unix_ms: u64,
    /// Index of the last log entry in it.
    #[prost(uint64, tag = "4")]
    pub applied_index: u64,
    /// Software that made it.
    #[prost(string, tag = "5")]
    pub version: String,
    /// Bytes of the encoded state.
    #[prost(uint64, tag = "6")]
    pub state_bytes: u64,
}

/// The file key under a passphrase.
#[derive(Clone, PartialEq, prost::Message)]
struct PassphraseSlot {
    #[prost(uint32, tag = "1")]
    memory_kib: u32,
    #[prost(uint32, tag = "2")]
    passes: u32,
    #[prost(uint32, tag = "3")]
    lanes: u32,
    #[prost(bytes = "vec", tag = "4")]
    salt: Vec<u8>,
    /// See [`sallyport_ca::seal`].
    #[prost(bytes = "vec", tag = "5")]
    sealed: Vec<u8>,
}

/// The file key for the owner of a key pair.
#[derive(Clone, PartialEq, prost::Message)]
struct RecipientSlot {
    #[prost(bytes = "vec", tag = "1")]
    public_key: Vec<u8>,
    /// See [`wrap`].
    #[prost(bytes = "vec", tag = "2")]
    wrapped: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Stored {
    #[prost(message, optional, tag = "1")]
    info: Option<Info>,
    #[prost(uint32, tag = "2")]
    chunk_bytes: u32,
    #[prost(message, optional, tag = "3")]
    passphrase: Option<PassphraseSlot>,
    #[prost(message, repeated, tag = "4")]
    recipients: Vec<RecipientSlot>,
}

/// Who can open a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipients {
    /// Whoever knows its passphrase.
    pub passphrase: bool,
    /// The owners of these key pairs, by public key.
    pub keys: Vec<Vec<u8>>,
}

/// The head of a backup.
pub(super) struct Head {
    stored: Stored,
    /// As in the file, up to and including the digest.
    pub(super) bytes: Vec<u8>,
}

fn short(public_key: &[u8]) -> String {
    public_key.iter().take(8).map(|b| format!("{b:02x}")).collect()
}

impl Head {
    /// Makes the head of a new backup, and the key of its payload.
    pub(super) fn make(
        info: Info,
        chunk_bytes: u32,
        lock: &Lock,
        rng: &dyn ring::rand::SecureRandom,
    ) -> Result<(Self, Zeroizing<[u8; 32]>), SealError> {
        let file_key = SealKey::generate(rng)?;
        let mut stored = Stored { info: Some(info), chunk_bytes, ..Stored::default() };
        match &lock.0 {
            Kind::Passphrase(passphrase, costs) => {
                let mut salt = vec![0; SALT];
                rng.fill(&mut salt).map_err(|_| SealError::Random)?;
                let key = passphrase::derive(*costs, &salt, passphrase).ok_or(SealError::Format)?;
                let sealed = SealKey::from_bytes(&key).seal(PURPOSE, &[], &*file_key.to_bytes(), rng)?.into_bytes();
                let Costs { memory_kib, passes, lanes } = *costs;
                stored.passphrase = Some(PassphraseSlot { memory_kib, passes, lanes, salt, sealed });
            }
            Kind::Recipients(keys) => {
                for key in keys {
                    let wrapped = wrap(&file_key.to_bytes(), key, WRAP_CONTEXT, rng)?;
                    stored.recipients.push(RecipientSlot { public_key: key.to_vec(), wrapped });
                }
            }
        }
        let encoded = stored.encode_to_vec();
        let length = u32::try_from(encoded.len()).map_err(|_| SealError::Format)?;
        let mut bytes = [MAGIC.as_slice(), &[VERSION], &length.to_be_bytes(), &encoded].concat();
        let sum = digest::digest(&digest::SHA256, &bytes);
        bytes.extend_from_slice(sum.as_ref());
        let head = Self { stored, bytes };
        let key = head.payload_key(&file_key.to_bytes());
        Ok((head, key))
    }

    /// Reads the head from the beginning of a file.
    pub(super) fn read(input: &mut impl Read) -> Result<Self, Fault> {
        fn more(input: &mut impl Read, bytes: &mut Vec<u8>, n: usize) -> Result<(), Fault> {
            let read = input.take(n as u64).read_to_end(bytes).map_err(Fault::Io)?;
            if read == n { Ok(()) } else { Err(Fault::NotABackup) }
        }
        let mut bytes = Vec::new();
        more(input, &mut bytes, MAGIC.len() + 5)?;
        let Some((MAGIC, [version, length @ ..])) = bytes.split_first_chunk() else { return Err(Fault::NotABackup) };
        if *version != VERSION {
            return Err(Fault::Newer(*version));
        }
        let length = <[u8; 4]>::try_from(length).map(u32::from_be_bytes).map_err(|_| Fault::NotABackup)?;
        let length = usize::try_from(length).ok().filter(|l| *l <= MAX_HEAD).ok_or(Fault::NotABackup)?;
        more(input, &mut bytes, length + DIGEST)?;
        let (before, sum) = bytes.split_last_chunk::<DIGEST>().ok_or(Fault::Head)?;
        if digest::digest(&digest::SHA256, before).as_ref() != sum {
            return Err(Fault::Head);
        }
        let stored = Stored::decode(before.get(MAGIC.len() + 5..).unwrap_or_default()).map_err(|_| Fault::Head)?;
        if stored.info.is_none() || !CHUNK.contains(&stored.chunk_bytes) || stored.recipients.len() > MAX_RECIPIENTS {
            return Err(Fault::Head);
        }
        Ok(Self { stored, bytes })
    }

    /// What is inside.
    pub(super) fn info(&self) -> Info {
        self.stored.info.clone().unwrap_or_default()
    }

    /// Plain bytes of a chunk.
    pub(super) fn chunk_bytes(&self) -> usize {
        self.stored.chunk_bytes as usize
    }

    /// Who can open it.
    pub(super) fn recipients(&self) -> Recipients {
        let keys = self.stored.recipients.iter().map(|r| r.public_key.clone()).collect();
        Recipients { passphrase: self.stored.passphrase.is_some(), keys }
    }

    /// The key of the payload, for whoever has the passphrase or the key.
    pub(super) fn open(&self, secret: &Secret) -> Result<Zeroizing<[u8; 32]>, Fault> {
        let others: Vec<String> = self.stored.recipients.iter().map(|r| short(&r.public_key)).collect();
        match secret {
            Secret::Passphrase(passphrase) => {
                let slot = self.stored.passphrase.as_ref().ok_or_else(|| Fault::NoPassphrase(others.join(", ")))?;
                let costs = Costs { memory_kib: slot.memory_kib, passes: slot.passes, lanes: slot.lanes };
                let key = passphrase::derive(costs, &slot.salt, passphrase).ok_or(Fault::Head)?;
                let sealed = Sealed::from_bytes(slot.sealed.clone());
                let opened = SealKey::from_bytes(&key).open(PURPOSE, &[], &sealed).map_err(|e| match e {
                    SealError::WrongKey => Fault::WrongPassphrase,
                    _ => Fault::Head,
                })?;
                let mut file_key = Zeroizing::new([0; 32]);
                if opened.len() != file_key.len() {
                    return Err(Fault::Head);
                }
                file_key.copy_from_slice(&opened);
                Ok(self.payload_key(&file_key))
            }
            Secret::Key(key) => self.open_with_key(key, &others),
        }
    }

    fn open_with_key(&self, key: &RecipientKey, others: &[String]) -> Result<Zeroizing<[u8; 32]>, Fault> {
        let public = key.public();
        let slot = self.stored.recipients.iter().find(|r| r.public_key == public).ok_or_else(|| {
            let passphrase = self.stored.passphrase.is_some().then(|| "a passphrase".to_owned());
            let others: Vec<String> = passphrase.into_iter().chain(others.iter().cloned()).collect();
            Fault::NotRecipient { key: short(&public), others: others.join(", ") }
        })?;
        let file_key = key.unwrap(&slot.wrapped, WRAP_CONTEXT).map_err(|_| Fault::Head)?;
        Ok(self.payload_key(&file_key))
    }

    fn payload_key(&self, file_key: &[u8; 32]) -> Zeroizing<[u8; 32]> {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, PAYLOAD).extract(file_key);
        let mut key = Zeroizing::new([0; 32]);
        // Both fail only for more than 255 blocks of output.
        if let Ok(okm) = prk.expand(&[&self.bytes], hkdf::HKDF_SHA256) {
            let _ = okm.fill(&mut *key);
        }
        key
    }
}
