//! Errors, by who must act.

use std::path::{Path, PathBuf};

/// Why the controller does not start, or stopped. Each message says what happened and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operator: a setting.
    #[error("configuration: {0}")]
    Config(String),
    /// The operator: a file or folder of the state that cannot be used as it is.
    #[error("{path}: {cause}; {remedy}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        cause: String,
        /// What to do.
        remedy: String,
    },
    /// The operator: an address that cannot be listened on.
    #[error("cannot listen on {address} for {what}: {source}; choose another address or stop what uses it")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// For what.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The operator: another controller runs on this state.
    #[error("{path} is in use by another process; stop that controller, or give this one its own state folder")]
    StateInUse {
        /// Which folder.
        path: PathBuf,
    },
    /// The operator: the store is damaged or the disk fails. Nothing is repaired by itself and nothing is answered from it.
    #[error(
        "{path}: storage failed: {cause}; check the disk and free space (dmesg, df), then start again; if it fails again: a \
         member of a group is stopped, {path} removed, and started, it learns everything from the others; a single controller \
         is restored from a backup"
    )]
    Storage {
        /// Which folder.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The operator: a sealed secret does not open.
    #[error(
        "cannot open what is sealed in {what}: the seal key in {key} does not fit; put back the file this state was made with"
    )]
    Seal {
        /// What was to be opened.
        what: String,
        /// The file with the seal key.
        key: PathBuf,
    },
    /// The operator: this node was taken out of its cluster.
    #[error(
        "controller {id} was removed from its cluster, and its data in {state} are of no use any more; to take this machine \
         in again, remove that folder and join with a new token"
    )]
    Removed {
        /// Its id.
        id: u64,
        /// The state folder.
        state: PathBuf,
    },
    /// The operator: the other controllers run a newer version and went on without this one.
    #[error(transparent)]
    Outdated(#[from] crate::software::Beyond),
    /// The authority cannot do what was asked.
    #[error("certificate authority: {0}")]
    Authority(String),
    /// The caller: try again.
    #[error(transparent)]
    Propose(#[from] crate::raft::ProposeError),
    /// The caller: what was asked is refused.
    #[error("{0}")]
    Refused(String),
    /// The caller: try again; it was made meanwhile by something that is no more.
    #[error("{0}")]
    Superseded(String),
    /// Us.
    #[error("internal error: {0}; please report it")]
    Internal(String),
}

impl Error {
    /// A storage failure at `path`.
    pub(crate) fn storage(path: &Path, cause: String) -> Self {
        Self::Storage { path: path.into(), cause }
    }

    /// A file that the system refused.
    pub(crate) fn file(path: &Path, source: &std::io::Error, remedy: &str) -> Self {
        Self::File { path: path.into(), cause: source.to_string(), remedy: remedy.into() }
    }
}
