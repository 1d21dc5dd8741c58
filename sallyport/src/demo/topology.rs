//! Three hosts and two wires:
//!
//! ```text
//! client 198.51.100.2 ── 198.51.100.1 gateway 10.77.0.1 ── 10.77.0.10 inside host
//! ```
//!
//! Each host is a network namespace; the gateway's is the one this process is in. The client has no route to
//! 10.77.0.0/24: what reaches the inside host went through the tunnel.

use std::fs;
use std::net::Ipv4Addr;

use super::helper::Helper;
use super::link::{Cidr, Links};
use super::wire::{Order, Report, Role};
use crate::error::{Error, Result};

/// The gateway's outside address (RFC 5737: a network for examples).
pub(crate) const GATEWAY_OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The client's own address.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The gateway's address on the inside network.
pub(crate) const GATEWAY_INSIDE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The host behind the gateway.
pub(crate) const INSIDE_HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
/// The inside network, as the client routes it.
pub(crate) const INSIDE_NETWORK: Cidr = Cidr::new(Ipv4Addr::new(10, 77, 0, 0), 24);
/// The network that the pool leases.
pub(crate) const POOL: &str = "10.88.0.0/24";
/// Where the inside host serves its page.
pub(crate) const PAGE_PORT: u16 = 80;
/// Prefix length of both wires.
const WIRE_PREFIX: u8 = 24;

/// The two other hosts.
#[derive(Debug)]
pub(crate) struct Topology {
    /// The laptop.
    pub(crate) client: Helper,
    /// The host behind the gateway.
    pub(crate) inside: Helper,
}

impl Topology {
    /// Builds all of it around the network namespace that this process is in.
    pub(crate) async fn build(verbose: u8) -> Result<Self> {
        let links = Links::open()?;
        links.up("lo").await?;
        // The gateway's own setting does the same; the plumbing is tested without one, too.
        fs::write("/proc/sys/net/ipv4/ip_forward", "1")
            .map_err(|e| Error::machine(format!("cannot switch on IPv4 forwarding: {e}")))?;
        let mut client = Helper::start(Role::Client, verbose).await?;
        let mut inside = Helper::start(Role::Inside, verbose).await?;

        join(&links, "outside", GATEWAY_OUTSIDE, "laptop", &mut client, CLIENT, None).await?;
        join(&links, "lan", GATEWAY_INSIDE, "server", &mut inside, INSIDE_HOST, Some(GATEWAY_INSIDE)).await?;
        inside.tell(&Order::Serve { port: PAGE_PORT }).await?;
        Ok(Self { client, inside })
    }

    /// Whether the client reaches `target`, and in what times (microseconds).
    pub(crate) async fn ping(&mut self, target: Ipv4Addr, count: u16, timeout_ms: u64) -> Result<Vec<u64>> {
        match self.client.order(&Order::Ping { target, count, timeout_ms }, |_, _| {}).await? {
            Report::Pong { micros } => Ok(micros),
            other => Err(self.client.unexpected(&other)),
        }
    }
}

/// Lays a wire between the gateway and a helper and gives both ends their addresses.
async fn join(
    links: &Links,
    near: &str,
    near_address: Ipv4Addr,
    far: &str,
    helper: &mut Helper,
    far_address: Ipv4Addr,
    default_route: Option<Ipv4Addr>,
) -> Result {
    links.add_veth(near, far, helper.pid()).await?;
    links.add_address(near, Cidr::new(near_address, WIRE_PREFIX)).await?;
    links.up(near).await?;
    let address = Cidr::new(far_address, WIRE_PREFIX);
    helper.tell(&Order::Configure { device: far.into(), address, default_route }).await
}
