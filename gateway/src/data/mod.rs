//! The data plane: threads that move packets between the outside (UDP 500 and 4500, IP protocol 50) and the inside
//! (one TUN device), and never wait for the control plane, a lock or an allocator.

pub mod buffer;
pub mod coalesce;
pub mod config;
pub mod icmp;
pub mod packet;
pub mod sa;
pub mod segment;
pub mod stats;

use std::sync::Arc;
use std::thread::JoinHandle;

pub use config::{DataConfig, DataLimits};
pub use stats::{Count, DataStats, DropReason, Gauge};

use crate::link::{FromDataReceiver, LinkStats, ToDataSender};
use crate::net::Tun;

/// What [`DataPlane::start`] gives.
#[derive(Debug)]
pub struct DataPlane {
    /// Where the control plane's messages go.
    pub to_data: ToDataSender,
    /// Where the data plane's messages come from.
    pub from_data: FromDataReceiver,
    /// Its threads and counters.
    pub handle: DataHandle,
}

/// The running data plane.
#[derive(Debug)]
pub struct DataHandle {
    worker: Option<JoinHandle<()>>,
    stats: Arc<DataStats>,
    link: Arc<LinkStats>,
    warnings: Vec<String>,
}

/// Why the data plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A socket cannot be opened.
    #[error("cannot open {what}: {error}")]
    Socket {
        /// Which, such as `UDP 0.0.0.0:500`.
        what: String,
        /// The system's reason.
        error: std::io::Error,
    },
    /// Anything else that the system refuses.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's reason.
        error: std::io::Error,
    },
}

impl DataPlane {
    /// Opens the sockets and starts the worker. `tun` is the inside; without it (tests) inner packets are dropped
    /// and counted.
    pub fn start(config: DataConfig, tun: Option<Tun>) -> Result<Self, DataError> {
        let _ = (config, tun);
        Err(DataError::System { what: "data plane", error: std::io::ErrorKind::Unsupported.into() })
    }
}

impl DataHandle {
    /// The counters, for metrics; they may be read at any time.
    pub fn stats(&self) -> Arc<DataStats> {
        self.stats.clone()
    }

    /// What was dropped between the planes.
    pub fn link_stats(&self) -> Arc<LinkStats> {
        self.link.clone()
    }

    /// What could not be had and is done without, in words for the operator: native ESP without the privilege for raw
    /// sockets, a device without offloads.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Waits until the worker has ended: after [`crate::link::ToData::Stop`], or when every sender is dropped.
    pub fn join(&mut self) {
        if let Some(worker) = self.worker.take() {
            // A panic was already reported by the thread itself.
            let _ = worker.join();
        }
    }
}
