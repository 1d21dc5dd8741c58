//! The audit log: one leaf of a Merkle tree for each thing that happens to certificates, keys and the policy behind them, made in
//! the entry that makes it happen. Since level 7.
//!
//! The attempts ([`super::State::attempts`]) are another thing: a ring for people, of who tried to connect and why not, of which the
//! oldest are forgotten. Of this nothing is ever forgotten, and no member can change what it said (`sallyport_ca::merkle`). Refused
//! certificates are in both.
//!
//! Of the tree only the right edge is in memory. Leaves and the hashes above them go to the store and are read from there
//! (`raft::LedgerReader`): two million of them cost no memory and no time at a start. Where there is no store, in a backup and in
//! tests, the state keeps them itself ([`super::State::from_bytes`]).

mod command;
pub(super) mod entry;
mod tree;

#[cfg(test)]
mod tests;

use prost::Message;
use sallyport_ca::merkle::{Frontier, SignedTreeHead};
use sallyport_proto::v1;

pub use command::{AcceptHeads, Attributed, KeyUse, NoteKeyUse};
pub(crate) use tree::{Ledger, StoredTree, first_leaf_key, leaf_key, leaf_of};

use super::{Action, Command, ConflictKind, Reply, State};

/// The level from which on there is a log (see `software`).
pub(crate) const LEDGER_LEVEL: u32 = 7;
/// Most heads that are known to be none of this log: gateways ask at different moments, so each that there can be may hold another one. The
/// oldest make room.
pub const MAX_ACCEPTED: usize = 4_096;
/// Heads accepted by one command, at most; whoever has more to say sends several.
const MAX_HEADS: usize = 256;

/// Where some numbers stood before a command: what is beyond them afterwards, the command made.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    logs: bool,
    certificate: u64,
    enrollment: u64,
    attempt: u64,
    /// Whether the certificate that the command is about was about to be signed.
    intended: bool,
}

/// What a command does, and in whose name.
pub(super) fn unwrapped(command: &Command) -> (Option<&Action>, Option<&Attributed>) {
    match command.action.as_ref() {
        Some(Action::Attributed(by)) => (by.action.as_ref().and_then(|inner| inner.action.as_ref()), Some(by)),
        action => (action, None),
    }
}

impl State {
    /// The tree's right edge.
    pub fn log_tree(&self) -> &Frontier {
        self.ledger.frontier()
    }

    /// Time of the last entry of the log, milliseconds since 1970; 0 while there is none.
    pub fn log_time_ms(&self) -> u64 {
        self.ledger.time_ms()
    }

    /// Whether a signed head is none of this log, and an operator has said why.
    pub fn accepts_head(&self, head: &[u8]) -> bool {
        self.ledger.accepts(head)
    }

    /// Before a command is applied.
    pub(super) fn mark(&self, action: Option<&Action>) -> Mark {
        let core = self.core_row();
        let number = |of: fn(&super::CoreRow) -> u64| core.map_or(0, of);
        let intended = match action {
            Some(Action::CompleteCertificate(c)) => self.has_intent(&c.serial),
            Some(Action::AbandonCertificate(c)) => self.has_intent(&c.serial),
            _ => false,
        };
        Mark {
            logs: self.level() >= LEDGER_LEVEL,
            certificate: number(|c| c.last_certificate),
            enrollment: number(|c| c.last_enrollment),
            attempt: number(|c| c.next_attempt),
            intended,
        }
    }

    /// After a command that met no conflict: what it did, for the log.
    pub(super) fn log_change(&mut self, mark: &Mark, action: &Action, by: Option<&Attributed>) {
        let noted = self.ledger.take_noted();
        if self.level() < LEDGER_LEVEL || !self.is_bootstrapped() {
            return;
        }
        let mut entries = Vec::new();
        if !mark.logs {
            entries.push(entry::begun(mark.certificate));
        }
        entries.extend(self.entries_of(mark, action));
        entries.extend(noted);
        self.log(entries, by);
    }

    /// The first entries after a restore.
    pub(super) fn log_restored(&mut self, mark: &Mark) {
        if !mark.logs {
            return;
        }
        let restored = entry::restored(self.log_tree().size());
        let mut entries = vec![restored];
        entries.extend(self.certificate_entries(mark));
        self.log(entries, None);
    }

    fn log(&mut self, entries: Vec<v1::LogEntry>, by: Option<&Attributed>) {
        let now_ms = self.now_ms();
        for mut entry in entries {
            entry.version = 1;
            entry.time_unix_ms = now_ms;
            if let Some(by) = by {
                entry.actor.clone_from(&by.actor);
                entry.actor_serial.clone_from(&by.actor_serial);
                if entry.source.is_empty() {
                    entry.source.clone_from(&by.source);
                }
            }
            self.ledger.append(now_ms, entry.encode_to_vec());
        }
    }

    pub(super) fn accept_heads(&mut self, command: &AcceptHeads) -> Reply {
        if command.heads.is_empty() || command.heads.len() > MAX_HEADS {
            return Reply::conflict(ConflictKind::Invalid, format!("1 to {MAX_HEADS} heads"));
        }
        for head in &command.heads {
            let of_this = SignedTreeHead::from_bytes(head).is_ok_and(|head| head.head.cluster == *self.cluster_id());
            if !of_this {
                return Reply::conflict(ConflictKind::Invalid, "this is no signed head of this cluster's log");
            }
        }
        self.ledger.accept(&command.heads);
        Reply::done()
    }

    /// The command is its entry in the log, and changes nothing else.
    pub(super) fn note_key_use(&self, command: &NoteKeyUse) -> Reply {
        match (command.purpose(), self.roots.get(&command.root)) {
            (KeyUse::Unspecified, _) => Reply::conflict(ConflictKind::Invalid, "no use of a key in the command"),
            (KeyUse::BackedUp, _) => Reply::done(),
            (KeyUse::Exported | KeyUse::Requested, None) => {
                Reply::conflict(ConflictKind::NotFound, format!("there is no root {}", command.root))
            }
            (KeyUse::Exported | KeyUse::Requested, Some(root)) if root.sealed_key.is_empty() => {
                Reply::conflict(ConflictKind::Precondition, "the root's private key has left the cluster meanwhile")
            }
            (KeyUse::Exported | KeyUse::Requested, Some(_)) => Reply::done(),
        }
    }
}
