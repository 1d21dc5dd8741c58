//! Commands of the audit log. Numbers are part of the log: never reuse one. All since level 7.

use crate::state::Command;

/// A change in somebody's name: the log says whose.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Attributed {
    /// The operator's name.
    #[prost(string, tag = "1")]
    pub actor: String,
    /// Serial number of the certificate by which he is known.
    #[prost(string, tag = "2")]
    pub actor_serial: String,
    /// The address that he calls from; empty where that is not known.
    #[prost(string, tag = "3")]
    pub source: String,
    /// The change; of the command around it only this counts.
    #[prost(message, optional, boxed, tag = "4")]
    pub action: Option<Box<Command>>,
}

/// Heads that witnesses hold are none of this log, and an operator knows why.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AcceptHeads {
    /// The signed heads.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub heads: Vec<Vec<u8>>,
    /// Why.
    #[prost(string, tag = "2")]
    pub reason: String,
}

/// What a private key is used for, or who gets it, where no other command says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum KeyUse {
    /// Not said.
    Unspecified = 0,
    /// A root's key goes out to an operator.
    Exported = 1,
    /// A root's key signs a request for a certificate of it by another authority.
    Requested = 2,
    /// All keys go out in a backup, with the one that opens them.
    BackedUp = 3,
}

/// A private key is about to be used, or to leave. Whoever does it waits until this is applied: so nothing leaves unseen.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NoteKeyUse {
    /// For what.
    #[prost(enumeration = "KeyUse", tag = "1")]
    pub purpose: i32,
    /// Which root's; of a backup 0.
    #[prost(uint64, tag = "2")]
    pub root: u64,
}
