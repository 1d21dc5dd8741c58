//! The host's side of both networks: the sockets outside, and inside the TUN device with its addresses and routes.
//!
//! Everything here acts on the network namespace of the calling thread, so a demonstration or a test can run in a
//! namespace of its own. A user namespace is enough: what is needed is CAP_NET_ADMIN (device, routes), CAP_NET_RAW
//! (native ESP) and CAP_NET_BIND_SERVICE (port 500) *in* the namespace, and an accessible `/dev/net/tun`.

mod inside;
mod socket;
mod tun;

pub use inside::{Inside, Pool};
pub use socket::{OuterSocket, Role, open_sockets};
pub use tun::{MAX_INSIDE_FRAME, Tun, VNET_HEADER_LEN};

/// Why the inside network cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct NetError {
    /// What was tried, and on what.
    pub what: String,
    /// The system's reason, and what to do where that is known.
    pub why: String,
}

impl NetError {
    fn new(what: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self { what: what.into(), why: why.to_string() }
    }
}

/// Whether the system forwards IPv4 (`net.ipv4.ip_forward` of this network namespace).
pub fn ipv4_forwarding() -> std::io::Result<bool> {
    Ok(std::fs::read_to_string(IP_FORWARD)?.trim() != "0")
}

/// Switches IPv4 forwarding on in this network namespace, for every interface of it.
pub fn enable_ipv4_forwarding() -> std::io::Result<()> {
    std::fs::write(IP_FORWARD, "1\n")
}

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

#[cfg(test)]
mod tests;
