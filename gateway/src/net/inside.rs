//! Addresses and routes of the inside device, by rtnetlink.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use rtnetlink::packet_route::route::{RouteMessage, RouteScope};
use rtnetlink::{AddressMessageBuilder, Handle, LinkUnspec, RouteMessageBuilder};

use super::{NetError, Tun};

/// The device's queue in packets: at 500, the kernel's default, a burst of one fast TCP connection is cut and the
/// connection slows down for nothing.
const TX_QUEUE_LEN: u32 = 4096;

/// An IPv4 network of clients that is reached through the device, and our own address in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pool {
    /// Any address of it.
    pub network: Ipv4Addr,
    /// Its prefix length, 0 to 32.
    pub prefix: u8,
    /// Our address: the `local` of IPCP. It is put on the device with a prefix of 32.
    pub router: Ipv4Addr,
}

/// The control plane's side of the device: addresses and routes.
///
/// It runs in a tokio runtime and must be made inside one. When the [`Tun`] is dropped the system takes the device away
/// and all of this with it.
pub struct Inside {
    handle: Handle,
    netlink: tokio::task::JoinHandle<()>,
    name: String,
    index: u32,
    routers: BTreeSet<Ipv4Addr>,
    routes: BTreeSet<(Ipv4Addr, u8, Ipv4Addr)>,
}

impl std::fmt::Debug for Inside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inside")
            .field("name", &self.name)
            .field("index", &self.index)
            .field("routes", &self.routes)
            .finish_non_exhaustive()
    }
}

impl Inside {
    /// Creates the device `name` with this MTU and brings it up. The second half goes to
    /// [`crate::data::DataPlane::start`]. Needs CAP_NET_ADMIN in the network namespace and `/dev/net/tun`.
    pub async fn create(name: &str, mtu: u16) -> Result<(Self, Tun), NetError> {
        let tun = Tun::create(name, mtu)?;
        let io = |e: std::io::Error| NetError::new(format!("device {name}"), e);
        let (name, index) = (tun.name().map_err(io)?, tun.index().map_err(io)?);
        // Nothing but IPv4 passes the sessions; without IPv6 on the device the kernel sends no router solicitations.
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1\n");
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|e| NetError::new("rtnetlink", e))?;
        let netlink = tokio::spawn(connection);
        // By netlink, not by the ioctl: that one asks for the privilege in the first user namespace.
        let longer = LinkUnspec::new_with_index(index).txqueuelen(TX_QUEUE_LEN).build();
        if let Err(e) = handle.link().set(longer).execute().await {
            tracing::warn!(device = name, error = %e, "the device keeps its short queue; bursts may be cut");
        }
        let (routers, routes) = (BTreeSet::new(), BTreeSet::new());
        Ok((Self { handle, netlink, name, index, routers, routes }, tun))
    }

    /// Makes `pools` the networks that are routed into the device: adds what is missing, removes what is not named.
    /// After an error the call may be repeated; it goes on where it stopped.
    pub async fn set_pools(&mut self, pools: &[Pool]) -> Result<(), NetError> {
        let routers: BTreeSet<_> = pools.iter().map(|p| p.router).collect();
        let routes: BTreeSet<_> =
            pools.iter().map(|p| (first(p.network, p.prefix), p.prefix.min(32), p.router)).collect();
        for router in &routers {
            if !self.routers.contains(router) {
                let add = self.handle.address().add(self.index, IpAddr::V4(*router), 32).replace();
                add.execute().await.map_err(|e| NetError::new(format!("address {router} on {}", self.name), e))?;
                self.routers.insert(*router);
            }
        }
        for route in &routes {
            if !self.routes.contains(route) {
                let add = self.handle.route().add(self.route(*route)).replace();
                add.execute().await.map_err(|e| NetError::new(self.route_name(*route), e))?;
                // A route to the same network with another source address was replaced by this one.
                self.routes.retain(|(network, prefix, _)| (*network, *prefix) != (route.0, route.1));
                self.routes.insert(*route);
            }
        }
        for route in self.routes.difference(&routes).copied().collect::<Vec<_>>() {
            let del = self.handle.route().del(self.route(route));
            del.execute().await.map_err(|e| NetError::new(self.route_name(route), e))?;
            self.routes.remove(&route);
        }
        for router in self.routers.difference(&routers).copied().collect::<Vec<_>>() {
            let address = AddressMessageBuilder::<Ipv4Addr>::new().index(self.index).address(router, 32).build();
            let del = self.handle.address().del(address);
            del.execute().await.map_err(|e| NetError::new(format!("address {router} on {}", self.name), e))?;
            self.routers.remove(&router);
        }
        Ok(())
    }

    /// The device's name as the system gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The device's interface index.
    pub const fn index(&self) -> u32 {
        self.index
    }

    fn route(&self, (network, prefix, router): (Ipv4Addr, u8, Ipv4Addr)) -> RouteMessage {
        RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(network, prefix)
            .output_interface(self.index)
            .scope(RouteScope::Link)
            .pref_source(router)
            .build()
    }

    fn route_name(&self, (network, prefix, _): (Ipv4Addr, u8, Ipv4Addr)) -> String {
        format!("route {network}/{prefix} into {}", self.name)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.netlink.abort();
    }
}

/// The lowest address of the network: the kernel refuses a route whose host bits are set.
fn first(network: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    Ipv4Addr::from_bits(network.to_bits() & mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_bits_are_cut_off() {
        assert_eq!(first(Ipv4Addr::new(10, 9, 8, 7), 16), Ipv4Addr::new(10, 9, 0, 0));
        assert_eq!(first(Ipv4Addr::new(10, 9, 8, 7), 32), Ipv4Addr::new(10, 9, 8, 7));
        assert_eq!(first(Ipv4Addr::new(10, 9, 8, 7), 0), Ipv4Addr::UNSPECIFIED);
    }
}
