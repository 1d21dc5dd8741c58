//! The laptop's end of the tunnel: the built-in client on a TUN device of this namespace.

use std::net::IpAddr;

use super::link::Links;
use super::wire::{Connect, Report};
use crate::error::{Error, Result};

/// A tunnel that is up.
pub(crate) struct Tunnel {
    address: IpAddr,
    dns: Vec<IpAddr>,
    mtu: u16,
}

impl Tunnel {
    /// Connects; `phase` is called as each phase is reached.
    pub(crate) async fn connect(_: &Connect, _: &Links, _: impl FnMut(&str, String)) -> Result<Self> {
        Err(Error::failed("the built-in client is not there yet"))
    }

    /// What the demo is told about it.
    pub(crate) fn report(&self) -> Report {
        Report::Connected { address: self.address, dns: self.dns.clone(), mtu: self.mtu }
    }

    /// Hangs up: PPP, L2TP and IKE take their leave in this order.
    pub(crate) async fn disconnect(self) -> Result {
        Ok(())
    }
}
