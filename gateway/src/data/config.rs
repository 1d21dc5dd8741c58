//! What the data plane is told at its start; all the rest comes over the link.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Sizes of the tables: the bound of the data plane's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataLimits {
    /// Most peers.
    pub peers: usize,
    /// Most pairs of SAs; a peer has two while it rekeys.
    pub sas: usize,
    /// Most sessions.
    pub sessions: usize,
}

impl Default for DataLimits {
    /// Room for 65,000 tunnels (the ids of L2TP are 16 bits) with one rekey each under way.
    fn default() -> Self {
        Self { peers: 65_536, sas: 131_072, sessions: 65_536 }
    }
}

/// Settings of the data plane.
#[derive(Clone, Debug)]
pub struct DataConfig {
    /// Addresses to listen on; each gets its own sockets. `0.0.0.0` is every IPv4 address, `::` every IPv6 address.
    pub listen: Vec<IpAddr>,
    /// UDP port of IKE.
    pub ike_port: u16,
    /// UDP port of IKE and ESP behind NAT.
    pub nat_t_port: u16,
    /// UDP port that is opened only to count and drop L2TP in the clear; `None` opens none.
    pub clear_l2tp_port: Option<u16>,
    /// Whether to open raw sockets for IP protocol 50.
    pub native_esp: bool,
    /// Whether clients may reach each other.
    pub client_to_client: bool,
    /// How long a busy worker looks for more before it sleeps; zero never spins.
    pub spin: Duration,
    /// How often the control plane hears of liveness.
    pub liveness_interval: Duration,
    /// How often the control plane hears of counters.
    pub counter_interval: Duration,
    /// Wanted size of each socket's buffers, in bytes; the system may give less.
    pub socket_buffer: usize,
    /// Sizes of the tables.
    pub limits: DataLimits,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            listen: vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
            ike_port: 500,
            nat_t_port: 4500,
            clear_l2tp_port: Some(1701),
            native_esp: true,
            client_to_client: true,
            spin: Duration::from_micros(20),
            liveness_interval: Duration::from_secs(1),
            counter_interval: Duration::from_secs(10),
            socket_buffer: 8 << 20,
            limits: DataLimits::default(),
        }
    }
}
