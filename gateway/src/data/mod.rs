//! The data plane: threads that move packets between the outside (UDP 500 and 4500, IP protocol 50) and the inside
//! (one TUN device), and never wait for the control plane, a lock or an allocator.
//!
//! ```text
//!  net::OuterSocket --> receive --> inbound --> coalesce --> net::Tun         ESP, UDP 1701, L2TP, PPP, IPv4
//!  net::OuterSocket <-- transmit <-- outbound <-- segment <-- net::Tun        the same, outwards
//!                                 \\ tables //                                owned by the worker
//!                        link: messages of the control plane
//! ```
//!
//! [`fast::Fast`] is the core: tables, counters and both directions over buffers, without a system call, so that tests and
//! benchmarks drive exactly what the worker drives. [`worker`](self) adds the thread: one `epoll` over everything.
//!
//! # More workers
//!
//! There is one worker, and everything is shaped so that there can be more, each with sockets, tables, buffers and a
//! queue of the device of its own and nothing shared:
//!
//! * *Who owns what.* A peer belongs to the worker whose number the low bits of its inbound SPIs carry; IKE chooses the
//!   SPIs, so it keeps these bits for all SAs of a peer. Tunnels and sessions follow their peer. Every message of
//!   [`crate::link::ToData`] names a peer, an SPI or a session, so [`crate::link::ToDataSender`] can choose the queue.
//! * *Inbound.* All workers bind the same ports with SO_REUSEPORT and a classic BPF program that returns the SPI's low
//!   bits; payloads that begin with zero (IKE) go to the first. A batch that the system put together may hold a packet of
//!   another worker's SA after a rekey: it is passed on by its owner's queue.
//! * *Outbound.* A device with IFF_MULTI_QUEUE steers by the inner destination address to the worker that owns the
//!   session, so each outbound sequence number has one writer and no flow is reordered.
//!
//! On two processors one worker is faster than two: what the second gives is lost to wake-ups and cold caches.

pub mod buffer;
pub mod coalesce;
pub mod config;
pub mod fast;
pub mod icmp;
mod inbound;
mod outbound;
pub mod packet;
pub mod receive;
pub mod segment;
pub mod stats;
pub mod tables;
pub mod transmit;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

pub use config::{DataConfig, DataLimits};
pub use stats::{Count, DataStats, DropReason, Gauge};

use crate::link::{FromDataReceiver, Link, LinkStats, ToDataSender};
use crate::net::{Role, Tun, open_sockets};
use worker::Worker;

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
    addresses: Vec<(Role, SocketAddr)>,
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
    /// and counted. Sockets are opened by the calling thread, so in its network namespace.
    pub fn start(mut config: DataConfig, tun: Option<Tun>) -> Result<Self, DataError> {
        let (sockets, mut warnings) = open_sockets(&config)?;
        if let Some(nat_t) = sockets.iter().find(|s| s.role() == Role::NatT) {
            config.nat_t_port = nat_t.bound().port();
        }
        if let Some(tun) = &tun
            && !(tun.offload() && tun.uso())
        {
            warnings.push("the inside device has no segmentation offload; throughput will be lower".into());
        }
        let addresses = sockets.iter().map(|s| (s.role(), s.bound())).collect();
        let system = |what| move |error| DataError::System { what, error };
        let link = Link::new().map_err(system("eventfd"))?;
        let stats = Arc::new(DataStats::default());
        let worker = Worker::new(&config, sockets, tun, link.to_data_receiver, link.from_data, stats.clone())
            .map_err(system("epoll"))?;
        let thread = std::thread::Builder::new().name("data-0".into()).spawn(move || worker.run());
        let worker = Some(thread.map_err(system("thread of the data plane"))?);
        let handle = DataHandle { worker, stats, link: link.stats, warnings, addresses };
        Ok(Self { to_data: link.to_data, from_data: link.from_data_receiver, handle })
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

    /// What the sockets are bound to: a port that was given as 0 has its number here.
    pub fn addresses(&self) -> &[(Role, SocketAddr)] {
        &self.addresses
    }

    /// Waits until the worker has ended: after [`crate::link::ToData::Stop`], or when every sender is dropped.
    pub fn join(&mut self) {
        if let Some(worker) = self.worker.take() {
            // A panic was already reported by the thread itself.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod rig;
#[cfg(test)]
mod tests;
