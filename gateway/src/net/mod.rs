//! The host's side of the inside network: the TUN device, its addresses and routes, and IPv4 forwarding.

use std::net::Ipv4Addr;

/// The inside device, as the data plane's worker owns it.
#[derive(Debug)]
pub struct Tun {}

/// An IPv4 network of clients that is reached through the device, and our own address in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pool {
    /// Its lowest address.
    pub network: Ipv4Addr,
    /// Its prefix length, 0 to 32.
    pub prefix: u8,
    /// Our address: the `local` of IPCP. It is put on the device with a prefix of 32.
    pub router: Ipv4Addr,
}

/// Why the inside network cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct NetError {
    /// What was tried, and on what.
    pub what: String,
    /// The system's reason, and what to do where that is known.
    pub why: String,
}

/// The control plane's side of the device: addresses and routes. It runs in a tokio runtime and must be made inside one.
#[derive(Debug)]
pub struct Inside {}

impl Inside {
    /// Creates the device `name` with this MTU and brings it up. The second half goes to
    /// [`crate::data::DataPlane::start`]. Needs CAP_NET_ADMIN in the network namespace and `/dev/net/tun`.
    pub async fn create(name: &str, mtu: u16) -> Result<(Self, Tun), NetError> {
        let _ = (name, mtu);
        Err(NetError { what: "TUN device".into(), why: "not there yet".into() })
    }

    /// Makes `pools` the networks that are routed into the device: adds what is missing, removes what is not named.
    pub async fn set_pools(&mut self, pools: &[Pool]) -> Result<(), NetError> {
        let _ = pools;
        Ok(())
    }

    /// The device's name as the system gave it.
    pub fn name(&self) -> &str {
        ""
    }
}

/// Whether the system forwards IPv4 (`net.ipv4.ip_forward` of this network namespace).
pub fn ipv4_forwarding() -> std::io::Result<bool> {
    Ok(std::fs::read_to_string(IP_FORWARD)?.trim() != "0")
}

/// Switches IPv4 forwarding on in this network namespace.
pub fn enable_ipv4_forwarding() -> std::io::Result<()> {
    std::fs::write(IP_FORWARD, "1\n")
}

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
