//! The controller: one Raft group, the certificate authority, users, pools, leases and sessions.
//!
//! [`Controller::start`] on a state folder gives a [`Running`] controller that answers gateways and operators over mutual
//! TLS (the contract is `sallyport-proto`). What is durable is in [`state::State`], a pure function of the Raft log;
//! [`raft`] stores it. What is secret is sealed before it enters the log.
//!
//! The state folder:
//!
//! | path | what |
//! |---|---|
//! | `seal.sealed` | this node's copy of the key that opens everything that is sealed |
//! | `node.key` | opens that copy, unless another method is configured; keep it apart from backups of the rest |
//! | `raft/store`, `raft/snapshots` | log, state, snapshots |
//! | `ca/root.pem`, `ca/root.key.sealed` | the root and its sealed key, outside the store; the key not while it is kept elsewhere |
//! | `ca/issuing-N.pem`, `ca/issuing-N.key.sealed` | the issuing authorities below it, the same |
//! | `controller/` | this controller's own certificate and key; the key sealed where the node key is elsewhere |
//! | `operator/` | certificate, key and root for the first operator's tool |
//!
//! The keys in the two folders open no sealed value by themselves, but whoever has the operator's (mode 0600, never sealed) and
//! reaches a controller may do what an operator may, and ask for a backup: keep it as `node.key` is kept.

mod actor;
mod api;
mod app;
mod auth;
mod authority;
pub mod backup;
mod bootstrap;
mod clock;
mod cluster;
mod compaction;
mod config;
mod enroll;
mod error;
mod files;
mod front;
mod identity;
mod janitor;
mod ledger;
mod lists;
mod metrics;
mod monitored;
mod overdue;
mod own_key;
pub mod raft;
pub mod root_key;
mod seal;
mod soft;
mod software;
pub mod state;

pub use app::{Controller, Running, Start};
pub use authority::{IssueRequest, Issued};
pub use clock::Clock;
pub use cluster::Formation;
pub use config::{
    AuthorityConfig, Config, Engine, GatewaysConfig, LimitsConfig, PasswordsConfig, Pkcs11Config, RaftConfig,
    StorageConfig, UnsealConfig, UnsealMethod,
};
pub use error::Error;
pub use raft::convert_store;
pub use seal::{Resealed, reseal};
pub use software::{Beyond, LEVEL, Software};

/// Threads for a runtime that a controller runs on: log and state are written by its tasks, and a few must be able to wait for
/// the disk while others answer.
pub fn worker_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from) + 2
}
