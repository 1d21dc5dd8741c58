//! Where things are on disk.

use std::path::{Path, PathBuf};

/// Where things are in the state folder.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    root: PathBuf,
}

impl Paths {
    /// In this state folder.
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// The state folder itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Which member this node is.
    pub(crate) fn member(&self) -> PathBuf {
        self.controller().join("member")
    }

    /// Log, state and snapshots.
    pub(crate) fn raft(&self) -> PathBuf {
        self.root.join("raft")
    }

    /// The authority's certificate and sealed key, a copy of what is in the state.
    pub(crate) fn ca(&self) -> PathBuf {
        self.root.join("ca")
    }

    /// The controller's own certificate and key.
    pub(crate) fn controller(&self) -> PathBuf {
        self.root.join("controller")
    }

    /// What the first operator needs to connect.
    pub(crate) fn operator(&self) -> PathBuf {
        self.root.join("operator")
    }
}
