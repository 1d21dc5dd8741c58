//! `sallyport demo --plumbing`: the three hosts without a tunnel, to see whether this machine can run the demo.

use std::net::Ipv4Addr;

use super::topology::{CLIENT, GATEWAY_INSIDE, GATEWAY_OUTSIDE, INSIDE_HOST, PAGE_PORT, Topology};
use super::wire::{Order, Report};
use crate::error::{Error, Result};

/// Builds the hosts and checks what each reaches.
pub(crate) async fn check(verbose: u8) -> Result<String> {
    let mut hosts = Topology::build(verbose).await?;
    if hosts.ping(GATEWAY_OUTSIDE, 1, 1_000).await?.is_empty() {
        return Err(Error::machine("the client does not reach the gateway"));
    }
    expect_page(&mut hosts, GATEWAY_INSIDE).await?;
    if !hosts.ping(INSIDE_HOST, 1, 100).await?.is_empty() {
        return Err(Error::machine("the client reaches the inside host without a tunnel"));
    }
    Ok(format!(
        "client {CLIENT} reaches the gateway {GATEWAY_OUTSIDE}; the inside host {INSIDE_HOST} answers the gateway only"
    ))
}

/// The inside host reads its own page; the gateway, which is this process, reads it, too, and is seen by its address.
async fn expect_page(hosts: &mut Topology, gateway: Ipv4Addr) -> Result {
    match hosts.inside.order(&Order::Fetch { address: INSIDE_HOST, port: PAGE_PORT }, |_, _| {}).await? {
        Report::Page { status: 200, .. } => {}
        other => return Err(hosts.inside.unexpected(&other)),
    }
    let timeout = std::time::Duration::from_secs(2);
    let page = super::http::fetch((INSIDE_HOST, PAGE_PORT).into(), timeout)
        .map_err(|e| Error::machine(format!("the gateway does not reach the inside host: {e}")))?;
    if page.caller() == Some(gateway.into()) {
        Ok(())
    } else {
        Err(Error::machine(format!("the inside host sees the gateway as {:?}", page.caller())))
    }
}
