//! Entries of the log as people and programs read them.

use prost::Message;
use sallyport_proto::v1::LogEntry;
use serde::{Deserialize, Serialize};

use super::super::unix;
use crate::error::{Error, Result};
use crate::output::{Column, Record, one_line, rfc3339};

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) index: u64,
    time: String,
    time_unix_ms: u64,
    kind: String,
    actor: String,
    actor_serial: String,
    source: String,
    name: String,
    serial: String,
    profile: String,
    number: u64,
    until: String,
    sha256: String,
    detail: String,
    /// The bytes that were hashed.
    pub(super) leaf: String,
}

/// The name of a kind: `certificate-issued`.
fn kind(entry: &LogEntry) -> String {
    match sallyport_proto::v1::LogKind::try_from(entry.kind) {
        Ok(kind) => kind.as_str_name().trim_start_matches("LOG_KIND_").to_lowercase().replace('_', "-"),
        Err(_) => format!("kind-{}", entry.kind),
    }
}

impl Row {
    /// The entry of these bytes.
    pub(super) fn of(index: u64, leaf: &[u8]) -> Result<Self> {
        let entry = LogEntry::decode(leaf).map_err(|_| {
            Error::failed(format!("entry {index} of the audit log cannot be read: update this program"))
        })?;
        Ok(Self {
            index,
            time: rfc3339(unix(entry.time_unix_ms)),
            time_unix_ms: entry.time_unix_ms,
            kind: kind(&entry),
            until: rfc3339(unix(entry.until_unix_ms)),
            sha256: crate::hex::lower(&entry.sha256),
            leaf: crate::hex::lower(leaf),
            actor: entry.actor,
            actor_serial: entry.actor_serial,
            source: entry.source,
            name: entry.name,
            serial: entry.serial,
            profile: entry.profile,
            number: entry.number,
            detail: entry.detail,
        })
    }

    /// When it was made, milliseconds since 1970.
    pub(super) const fn time_ms(&self) -> u64 {
        self.time_unix_ms
    }
}

impl Record for Row {
    const COLUMNS: &'static [Column] = &[
        Column::right("ENTRY"),
        Column::left("TIME"),
        Column::left("EVENT"),
        Column::left("WHO"),
        Column::left("FROM"),
        Column::left("WHAT"),
        Column::left("SERIAL"),
        Column::left("DETAIL"),
    ];

    fn cells(&self) -> Vec<String> {
        let texts = [&self.time, &self.kind, &self.actor, &self.source, &self.name, &self.serial, &self.detail];
        // Some of it are strangers' words.
        std::iter::once(self.index.to_string()).chain(texts.map(|text| one_line(text))).collect()
    }
}
