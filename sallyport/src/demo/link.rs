//! Links, addresses and routes, by netlink.

use std::net::Ipv4Addr;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// An IPv4 address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cidr {
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix: u8,
}

impl Cidr {
    pub(crate) const fn new(address: Ipv4Addr, prefix: u8) -> Self {
        Self { address, prefix }
    }
}

/// The links of the network namespace that this process is in.
#[derive(Clone, Debug)]
pub(crate) struct Links(Handle);

impl Links {
    /// Opens a netlink socket in the namespace of the calling thread. Must be called within a runtime.
    pub(crate) fn open() -> Result<Self> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|e| Error::machine(format!("cannot open a netlink socket: {e}")))?;
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// Makes a pair of joined Ethernet devices, one of which goes to the namespace of the process `pid`.
    pub(crate) async fn add_veth(&self, name: &str, peer: &str, pid: u32) -> Result {
        self.0
            .link()
            .add(LinkVeth::new(name, peer).build())
            .execute()
            .await
            .map_err(|e| failed(&format!("make the veth pair {name}"), &e))?;
        let index = self.index(peer).await?;
        let message = LinkUnspec::new_with_index(index).setns_by_pid(pid).build();
        let moved = self.0.link().set(message).execute().await;
        moved.map_err(|e| failed(&format!("move {peer} into its namespace"), &e))
    }

    /// Switches a device on.
    pub(crate) async fn up(&self, name: &str) -> Result {
        let message = LinkUnspec::new_with_name(name).up().build();
        self.0.link().set(message).execute().await.map_err(|e| failed(&format!("switch {name} on"), &e))
    }

    /// Gives a device an address.
    pub(crate) async fn add_address(&self, name: &str, cidr: Cidr) -> Result {
        let index = self.index(name).await?;
        let added = self.0.address().add(index, cidr.address.into(), cidr.prefix).execute().await;
        added.map_err(|e| failed(&format!("give {name} the address {}", cidr.address), &e))
    }

    /// Adds a route through the neighbour `via`.
    pub(crate) async fn add_route(&self, to: Cidr, via: Ipv4Addr) -> Result {
        let message =
            RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to.address, to.prefix).gateway(via).build();
        self.0
            .route()
            .add(message)
            .execute()
            .await
            .map_err(|e| failed(&format!("add the route to {}/{}", to.address, to.prefix), &e))
    }

    /// Adds a route into a device that has no neighbours: a tunnel.
    pub(crate) async fn add_device_route(&self, to: Cidr, device: &str) -> Result {
        let index = self.index(device).await?;
        let message = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to.address, to.prefix)
            .output_interface(index)
            .scope(RouteScope::Link)
            .build();
        let added = self.0.route().add(message).execute().await;
        added.map_err(|e| failed(&format!("add the route to {}/{}", to.address, to.prefix), &e))
    }

    async fn index(&self, name: &str) -> Result<u32> {
        let found = self.0.link().get().match_name(name).execute().try_next().await;
        match found.map_err(|e| failed(&format!("find {name}"), &e))? {
            Some(link) => Ok(link.header.index),
            None => Err(Error::failed(format!("the device {name} is not there"))),
        }
    }
}

fn failed(what: &str, error: &rtnetlink::Error) -> Error {
    Error::machine(format!("cannot {what}: {error}"))
        .remedy("the kernel needs CONFIG_VETH, and the demo the right to make network namespaces")
}
