//! What one entry of the log carries, and how it is written.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use prost::Message;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ledger::LEDGER_LEVEL;
use super::{Action, Command};

/// First byte of an encoded batch: the format of what follows (prost).
const FORMAT: u8 = 1;

/// What one log entry carries: commands that were waiting together, applied in this order.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CommandBatch {
    /// The commands.
    #[prost(message, repeated, tag = "1")]
    pub commands: Vec<Command>,
}

impl CommandBatch {
    /// Whether a software of this level knows every command. A node that skipped one would no longer be the same as those that
    /// did not.
    pub(crate) fn is_known(&self, level: u32) -> bool {
        self.commands.iter().all(|command| {
            // Whatever is within one that names its maker must be known, too.
            let (action, by) = super::ledger::unwrapped(command);
            let knows = |action: &Action| action.level() <= level;
            action.is_some_and(knows) && (by.is_none() || level >= LEDGER_LEVEL)
        })
    }

    /// The level that this batch raises the group to, and the version that brought it.
    pub(crate) fn raises_to(&self) -> Option<(u32, &str)> {
        let raises = self.commands.iter().filter_map(|command| match &command.action {
            Some(Action::RaiseLevel(raise)) => Some((raise.level, raise.since.as_str())),
            _ => None,
        });
        raises.max_by_key(|(level, _)| *level)
    }
}

/// A batch as everybody who has the entry holds it: one in memory for the log, each follower and the state, and encoded once.
#[derive(Clone, Default)]
pub struct SharedBatch(Arc<Held>);

#[derive(Default)]
struct Held {
    batch: CommandBatch,
    encoded: OnceLock<Vec<u8>>,
}

impl From<CommandBatch> for SharedBatch {
    fn from(batch: CommandBatch) -> Self {
        Self(Arc::new(Held { batch, encoded: OnceLock::new() }))
    }
}

impl Deref for SharedBatch {
    type Target = CommandBatch;

    fn deref(&self) -> &CommandBatch {
        &self.0.batch
    }
}

impl fmt::Debug for SharedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.batch.fmt(f)
    }
}

impl PartialEq for SharedBatch {
    fn eq(&self, other: &Self) -> bool {
        self.0.batch == other.0.batch
    }
}

/// As [`CommandBatch`].
impl Serialize for SharedBatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0.encoded.get_or_init(|| encode_tagged(&self.0.batch)))
    }
}

impl<'de> Deserialize<'de> for SharedBatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = deserializer.deserialize_byte_buf(Bytes)?;
        let batch = decode_bytes(&bytes)?;
        // What older or newer software wrote goes on as it came.
        Ok(Self(Arc::new(Held { batch, encoded: OnceLock::from(bytes) })))
    }
}

/// In openraft's structures a batch is a byte string: a format byte, then prost.
impl Serialize for CommandBatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&encode_tagged(self))
    }
}

impl<'de> Deserialize<'de> for CommandBatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        decode_tagged(deserializer)
    }
}

pub(super) fn encode_tagged(message: &impl Message) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(message.encoded_len() + 1);
    bytes.push(FORMAT);
    let _ = message.encode(&mut bytes); // a vector does not run out of room
    bytes
}

pub(super) fn decode_tagged<'de, M: Message + Default, D: Deserializer<'de>>(deserializer: D) -> Result<M, D::Error> {
    decode_bytes(&deserializer.deserialize_byte_buf(Bytes)?)
}

fn decode_bytes<M: Message + Default, E: serde::de::Error>(bytes: &[u8]) -> Result<M, E> {
    match bytes.split_first() {
        Some((&FORMAT, rest)) => M::decode(rest).map_err(E::custom),
        _ => Err(E::custom("written by another version of the controller")),
    }
}

/// Takes a byte string, borrowed or owned.
struct Bytes;

impl Visitor<'_> for Bytes {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }
}
