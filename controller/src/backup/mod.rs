//! Backups: everything the cluster agrees on and the key that opens its secrets, in one encrypted file.
//!
//! **Who encrypts.** The operator's tool does, not the controller. It asks for the state over mutual TLS (`CreateBackup`)
//! with a public key made for that one call; the controller answers with a consistent snapshot, in which every secret is
//! sealed as it is in the store, and the seal key wrapped to that public key. The tool encrypts both under a passphrase, or
//! to the public keys of recipients, while they arrive. So the passphrase never travels and no controller ever holds it;
//! what the tool gets to see is no more than an operator may do anyway, who can set every password and issue every
//! certificate.
//!
//! **The file.**
//!
//! ```text
//! | magic (7) | version (1) | length of head (4, big-endian) | head (prost) | SHA-256 of all before (32) | chunk ... |
//! ```
//!
//! The head says for whom the *file key* (32 random bytes) is wrapped, and what is inside; it is in the clear. The payload
//! key is HKDF-SHA-256 of the file key and everything up to and including the digest, so that a head that was exchanged
//! gives another key. The digest itself tells damage from a wrong passphrase, no more.
//!
//! The payload follows in chunks of AES-256-GCM (the STREAM construction): the nonce is the number of the chunk and a flag on
//! the last one, so that chunks cannot be dropped, repeated, exchanged or appended. It is the seal key (32), the length of
//! the state (8, big-endian), and the state ([`State::to_bytes`]).
//!
//! **Restoring** makes a cluster of one node ([`restore()`]) that the other nodes join anew.
//!
//! [`State::to_bytes`]: crate::state::State::to_bytes

mod chunks;
mod contents;
mod file;
mod head;
mod keys;
mod restore;
#[cfg(test)]
mod tests;

pub use contents::{Contents, Root};
pub use file::{Writer, open, verify};
pub use head::{Info, Recipients};
pub use keys::{Lock, Secret, make_recipient, read_key, read_recipient};
pub use restore::{restore, restore_of};

/// Context under which a controller wraps the seal key to the tool that makes a backup of this cluster.
pub fn wrap_context(cluster_id: &[u8]) -> Vec<u8> {
    [b"sallyport backup of ".as_slice(), cluster_id].concat()
}

/// Says how far a long piece of work has come: bytes done, and bytes in all.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);
