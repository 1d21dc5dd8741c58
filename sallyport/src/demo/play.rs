//! The demo itself, step by step.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::site::{GATEWAY_NAME, MACHINE, Site, USER};
use super::story::Story;
use super::topology::{
    CLIENT, GATEWAY_INSIDE, GATEWAY_OUTSIDE, INSIDE_HOST, INSIDE_NETWORK, PAGE_PORT, POOL, Topology,
};
use super::wire::{Connect, Order, Report};
use crate::error::{Error, Result};
use crate::operator::{attempt, session};
use crate::output::{Format, Printer};

/// Echo requests through the tunnel.
const PINGS: u16 = 3;

/// Plays all of it; the site is closed in any case.
pub(crate) async fn run(story: &Story, verbose: u8) -> Result {
    let mut hosts = Topology::build(verbose).await.map_err(Story::failed("hosts"))?;
    let wires = format!(
        "client {CLIENT} -- gateway {GATEWAY_OUTSIDE} | {GATEWAY_INSIDE} -- inside host {INSIDE_HOST}, each in a network of its own"
    );
    story.step("hosts", &wires)?;
    if !hosts.ping(INSIDE_HOST, 1, 100).await?.is_empty() {
        return Err(Error::machine("the client reaches the inside host without a tunnel"));
    }
    story.step("no tunnel", &format!("the client does not reach {INSIDE_HOST}"))?;

    let mut site = Site::found().await.map_err(Story::failed("controller"))?;
    let played = tokio::select! {
        played = play(story, &mut hosts, &mut site) => played,
        signal = crate::daemon::wait_for_signal() => {
            signal.and_then(|signal| Err(Error::failed(format!("{signal}: the demo was interrupted"))))
        }
    };
    let closed = site.close().await;
    played.and(closed)?;
    story.step("done", "everything is taken down again")
}

async fn play(story: &Story, hosts: &mut Topology, site: &mut Site) -> Result {
    story.step(
        "controller",
        &format!("answers, with a new root CA {}..., its state in {}", site.root(), site.path().display()),
    )?;
    site.add_pool().await.map_err(Story::failed("pool"))?;
    let warnings = site.start_gateway().await.map_err(Story::failed("gateway"))?;
    story.step("gateway", &format!("enrolled as {GATEWAY_NAME}, listens on UDP 500 and 4500, leases {POOL}"))?;
    for warning in warnings {
        story.step("gateway, without", &warning)?;
    }
    let machine = site.enroll().await.map_err(Story::failed("machine"))?;
    story.step("machine", &format!("{MACHINE} has an RSA certificate"))?;
    let password = site.add_user().await.map_err(Story::failed("user"))?;
    story.step("user", &format!("{USER} may connect with a password (MS-CHAPv2)"))?;

    let address = connect(story, hosts, &machine, password).await?;
    through_the_tunnel(story, hosts, address).await?;

    let sessions = site.sessions_with_traffic().await?;
    story.step("sallyport session list", "")?;
    story.show(&session::render(Printer::new(Format::Table), sessions))?;

    hosts.client.tell(&Order::Disconnect).await.map_err(Story::failed("hang up"))?;
    site.no_sessions().await?;
    story.step("hung up", "the session is gone, its address is free")?;

    refused(story, hosts, site, &machine).await
}

/// Brings the tunnel up, telling each phase; gives the address in it.
async fn connect(story: &Story, hosts: &mut Topology, machine: &Path, password_file: PathBuf) -> Result<Ipv4Addr> {
    let start = story.elapsed();
    let order = Order::Connect(order(machine, password_file));
    let report = hosts.client.order(&order, |phase, detail| {
        // If nobody reads any more, the next step notices.
        let _ = story.step(&phase, &detail);
    });
    match report.await.map_err(Story::failed("connect"))? {
        Report::Connected { address: std::net::IpAddr::V4(address), dns: _, mtu } => {
            let took = (story.elapsed() - start).as_secs_f64();
            story.step("connected", &format!("{address} in {took:.3} s; packets of up to {mtu} bytes"))?;
            Ok(address)
        }
        other => Err(hosts.client.unexpected(&other)),
    }
}

fn order(machine: &Path, password_file: PathBuf) -> Connect {
    Connect {
        local: CLIENT,
        gateway: GATEWAY_OUTSIDE,
        gateway_name: GATEWAY_NAME.into(),
        key: machine.join("key.pem"),
        certificate: machine.join("cert.pem"),
        chain: machine.join("chain.pem"),
        ca: machine.join("ca.pem"),
        user: USER.into(),
        password_file,
        routes: vec![INSIDE_NETWORK],
    }
}

/// Pings the inside host and reads its page.
async fn through_the_tunnel(story: &Story, hosts: &mut Topology, address: Ipv4Addr) -> Result {
    let times = hosts.ping(INSIDE_HOST, PINGS, 1_000).await.map_err(Story::failed("ping"))?;
    if times.len() != usize::from(PINGS) {
        return Err(Error::failed(format!("ping: {} of {PINGS} replies came through the tunnel", times.len())));
    }
    let fastest = times.iter().min().copied().unwrap_or_default();
    story
        .step("ping", &format!("{PINGS} replies from {INSIDE_HOST}, the fastest in {:.3} ms", fastest as f64 / 1e3))?;

    let order = Order::Fetch { address: INSIDE_HOST, port: PAGE_PORT };
    match hosts.client.order(&order, |_, _| {}).await.map_err(Story::failed("page"))? {
        Report::Page { status: 200, title, caller: Some(caller) } if caller == address => {
            story.step("page", &format!("http://{INSIDE_HOST}/ says \"{title}\" and sees {caller}"))
        }
        Report::Page { status, title, caller } => Err(Error::failed(format!(
            "page: status {status}, \"{title}\", seen from {caller:?} and not from {address}"
        ))),
        other => Err(hosts.client.unexpected(&other)),
    }
}

/// Tries a wrong password: the client is told a number, the operator why.
async fn refused(story: &Story, hosts: &mut Topology, site: &mut Site, machine: &Path) -> Result {
    let wrong = site.secret_file("wrong-password", b"a guess")?;
    let order = Order::Connect(order(machine, wrong));
    match hosts.client.order(&order, |_, _| {}).await {
        Ok(_) => return Err(Error::failed("a wrong password was accepted")),
        Err(error) => story.step("a wrong password", &format!("the client is told: {}", error.cause()))?,
    }
    let attempt = site.refusal().await?;
    story.step("sallyport attempt list --failed", "")?;
    story.show(&attempt::render(Printer::new(Format::Table), vec![attempt]))
}
