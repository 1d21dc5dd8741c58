//! openraft's own structures on disk: a format byte, then postcard. What we define ourselves is prost inside.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// First byte of every record in this encoding.
const FORMAT: u8 = 1;

/// A record that cannot be read.
#[derive(Debug)]
pub(super) enum CodecError {
    /// Written by another version of this software.
    Format(Option<u8>),
    /// Not what it should be.
    Content(postcard::Error),
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format(Some(found)) => {
                write!(f, "record has format {found}, this version reads {FORMAT}: start the newer version again")
            }
            Self::Format(None) => f.write_str("record is empty"),
            Self::Content(e) => write!(f, "record is damaged: {e}"),
        }
    }
}

impl std::error::Error for CodecError {}

/// Encodes a record.
pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    postcard::to_extend(value, vec![FORMAT]).map_err(CodecError::Content)
}

/// Decodes a record.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    match bytes.split_first() {
        Some((&FORMAT, rest)) => postcard::from_bytes(rest).map_err(CodecError::Content),
        other => Err(CodecError::Format(other.map(|(first, _)| *first))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Entry, LogId};
    use crate::state::{Action, ClearPsk, Command, CommandBatch};

    #[test]
    fn an_entry_survives_and_another_format_is_named() {
        let command = Command { request_id: vec![7; 16], at_ms: 5, action: Some(Action::ClearPsk(ClearPsk {})) };
        let entry = Entry {
            log_id: LogId::new(openraft::CommittedLeaderId::new(3, 1), 9),
            payload: openraft::EntryPayload::Normal(CommandBatch { commands: vec![command] }.into()),
        };
        let mut bytes = encode(&entry).expect("encodes");
        assert_eq!(decode::<Entry>(&bytes).expect("decodes"), entry);
        bytes[0] = 2;
        let error = decode::<Entry>(&bytes).expect_err("another format").to_string();
        assert!(error.contains("format 2") && error.contains("newer version"), "{error}");
        assert!(decode::<Entry>(&[]).is_err());
    }
}
