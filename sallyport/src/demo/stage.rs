//! A helper process of the demo: takes its place in a network namespace and does as it is told.

use std::io::{self, BufRead, Write};
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::client::Tunnel;
use super::link::{Cidr, Links};
use super::wire::{Order, Report, Role};
use super::{http, namespace, ping};
use crate::error::{Error, Result};

/// How long to wait for the page.
const FETCH: Duration = Duration::from_secs(5);

/// Runs until standard input ends. Must be called while the process has one thread.
pub(crate) fn run(role: Role) -> Result {
    if let Err(error) = namespace::enter_network() {
        return say(&failure(&error));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|e| Error::failed(format!("cannot start the runtime: {e}")))?;
    let mut stage = Stage { role, runtime, links: None, tunnel: None };
    match stage.prepare() {
        Ok(()) => say(&Report::Ready)?,
        Err(error) => return say(&failure(&error)),
    }
    for line in io::stdin().lock().lines() {
        let line = line?;
        let report = match serde_json::from_str::<Order>(&line) {
            Ok(order) => stage.handle_order(order).unwrap_or_else(|e| failure(&e)),
            Err(e) => failure(&Error::failed(format!("an order that nobody understands: {e}"))),
        };
        say(&report)?;
    }
    stage.leave()
}

struct Stage {
    role: Role,
    runtime: Runtime,
    links: Option<Links>,
    tunnel: Option<Tunnel>,
}

impl Stage {
    fn prepare(&mut self) -> Result {
        let _guard = self.runtime.enter();
        // At a terminal an interrupt goes to all of us. The demo ends us in order; once caught, it does nothing here.
        let caught = signal(SignalKind::interrupt());
        drop(caught.map_err(|e| Error::failed(format!("cannot catch signals: {e}")))?);
        let links = Links::open()?;
        self.runtime.block_on(links.up("lo"))?;
        self.links = Some(links);
        Ok(())
    }

    fn links(&self) -> Result<&Links> {
        self.links.as_ref().ok_or_else(|| Error::failed("no netlink socket"))
    }

    fn handle_order(&mut self, order: Order) -> Result<Report> {
        match order {
            Order::Configure { device, address, default_route } => {
                let links = self.links()?;
                self.runtime.block_on(async {
                    links.add_address(&device, address).await?;
                    links.up(&device).await?;
                    match default_route {
                        Some(via) => links.add_route(Cidr::new(Ipv4Addr::UNSPECIFIED, 0), via).await,
                        None => Ok(()),
                    }
                })?;
                Ok(Report::Done)
            }
            Order::Serve { port } => {
                let served = http::serve(port).map_err(|e| Error::failed(format!("cannot serve on port {port}: {e}")));
                served.map(|_| Report::Done)
            }
            Order::Ping { target, count, timeout_ms } => self.ping(target, count, Duration::from_millis(timeout_ms)),
            Order::Fetch { address, port } => {
                let page = http::fetch((address, port).into(), FETCH)
                    .map_err(|e| Error::failed(format!("cannot fetch http://{address}:{port}/: {e}")))?;
                Ok(Report::Page { status: page.status, title: page.title().to_owned(), caller: page.caller() })
            }
            Order::Connect(connect) => {
                let tunnel = self.runtime.block_on(Tunnel::connect(&connect, self.links()?, |phase, detail| {
                    // The demo's end of the pipe has gone: the end of standard input will tell us.
                    let _ = say(&Report::Phase { phase: phase.to_owned(), detail });
                }))?;
                let report = tunnel.report();
                self.tunnel = Some(tunnel);
                Ok(report)
            }
            Order::Disconnect => self.leave().map(|()| Report::Done),
        }
    }

    fn ping(&self, target: Ipv4Addr, count: u16, timeout: Duration) -> Result<Report> {
        // One process pings once at a time in a namespace of its own: any identifier is unique.
        let identifier = match self.role {
            Role::Client => 1,
            Role::Inside => 2,
        };
        let mut micros = Vec::new();
        for sequence in 0..count {
            match ping::ping(target, identifier, sequence, timeout) {
                Ok(time) => micros.push(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
                Err(e) if is_no_answer(&e) => {}
                Err(e) => return Err(Error::failed(format!("cannot ping {target}: {e}"))),
            }
        }
        Ok(Report::Pong { micros })
    }

    fn leave(&mut self) -> Result {
        if let Some(tunnel) = self.tunnel.take() {
            self.runtime.block_on(tunnel.disconnect());
        }
        Ok(())
    }
}

/// Whether an error of ping means that the host cannot be reached, not that we cannot ask.
fn is_no_answer(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable)
}

fn failure(error: &Error) -> Report {
    Report::Failed { cause: error.cause().to_owned(), remedy: error.advice().map(str::to_owned) }
}

fn say(report: &Report) -> Result {
    let mut line = serde_json::to_string(report).map_err(|e| Error::failed(e.to_string()))?;
    line.push('\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(line.as_bytes())?;
    Ok(stdout.flush()?)
}
