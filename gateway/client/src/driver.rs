//! The shell of one client: UDP sockets, a TUN device, a clock. No protocol lives here.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use sallyport_base::{Instant, UnixTime};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tun_rs::{AsyncDevice, DeviceBuilder};

use crate::client::{Client, Event, Output};
use crate::settings::Settings;

/// Longest datagram and longest inner packet.
const MAX_PACKET: usize = 65_535;
/// Datagrams that are handled before the others get their turn.
const BURST: usize = 64;
/// How long we wait for the gateway's answers when we hang up.
const FAREWELL: Duration = Duration::from_secs(3);
/// Events that may wait for the one who called us; a connection has about ten, and one for each rekey.
const EVENTS: usize = 64;

/// Why a driver does not start.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// A UDP port.
    #[error("cannot open UDP {address}: {error}")]
    Socket {
        /// Which.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The system's random source.
    #[error("the system's random source failed")]
    Random,
}

/// A client at work.
pub struct Driver {
    /// What happens, up to and including [`Event::Down`]. With [`Event::Up`] the device is there.
    pub events: mpsc::Receiver<Event>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Driver {
    /// Opens the sockets and begins to connect. The TUN device `device` is made when the tunnel is up; its address and
    /// routes are the caller's. `wall` is the wall time now.
    pub async fn start(settings: Settings, device: &str, wall: UnixTime) -> Result<Self, DriveError> {
        let open = async |port: u16| {
            let address = SocketAddr::new(settings.local, port);
            UdpSocket::bind(address).await.map_err(|error| DriveError::Socket { address, error })
        };
        let (ike, nat_t) = (open(settings.ports.0).await?, open(settings.ports.1).await?);
        let mut seed = [0; 32];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut seed).map_err(|_| DriveError::Random)?;
        let clock = Clock::start();
        let client = Client::connect(settings, seed, clock.now(), wall);
        let (events_tx, events) = mpsc::channel(EVENTS);
        let (stop, stopped) = oneshot::channel();
        let shell = Shell {
            client,
            ike,
            nat_t,
            clock,
            device_name: device.into(),
            device: None,
            events: events_tx,
            done: false,
        };
        Ok(Self { events, stop: Some(stop), task: tokio::spawn(shell.run(stopped)) })
    }

    /// Hangs up in order and waits for the end.
    pub async fn disconnect(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        self.events.close();
        let _ = self.task.await;
    }
}

/// The one reader of the monotonic clock in this crate.
#[derive(Clone, Copy)]
struct Clock(std::time::Instant);

impl Clock {
    #[allow(clippy::disallowed_methods)]
    fn start() -> Self {
        Self(std::time::Instant::now())
    }

    fn now(self) -> Instant {
        Instant::from_micros(u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn to_tokio(self, at: Instant) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.0 + Duration::from_micros(at.as_micros()))
    }
}

struct Shell {
    client: Client,
    ike: UdpSocket,
    nat_t: UdpSocket,
    clock: Clock,
    device_name: String,
    device: Option<AsyncDevice>,
    events: mpsc::Sender<Event>,
    done: bool,
}

impl Shell {
    async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let (mut a, mut b, mut c) = (vec![0; MAX_PACKET], vec![0; MAX_PACKET], vec![0; MAX_PACKET]);
        let mut leaving: Option<Instant> = None;
        loop {
            self.carry_out().await;
            let now = self.clock.now();
            if self.done || leaving.is_some_and(|at| at <= now) {
                return;
            }
            let wake = [self.client.poll_timeout(), leaving].into_iter().flatten().min();
            let wake = self.clock.to_tokio(wake.unwrap_or(now + Duration::from_secs(3600)));
            tokio::select! {
                Ok((n, from)) = self.ike.recv_from(&mut a) => self.handle(false, n, from, &mut a),
                Ok((n, from)) = self.nat_t.recv_from(&mut b) => self.handle(true, n, from, &mut b),
                Ok(n) = read(self.device.as_ref(), &mut c) => {
                    self.client.handle_inside(&c[..n]);
                    for _ in 1..BURST {
                        let Some(Ok(n)) = self.device.as_ref().map(|d| d.try_recv(&mut c)) else { break };
                        self.client.handle_inside(&c[..n]);
                    }
                }
                _ = &mut stop, if leaving.is_none() => {
                    leaving = Some(now + FAREWELL);
                    self.client.disconnect(self.clock.now());
                }
                () = tokio::time::sleep_until(wake) => self.client.handle_timeout(self.clock.now()),
            }
        }
    }

    fn handle(&mut self, nat_t: bool, n: usize, from: SocketAddr, buf: &mut [u8]) {
        let socket = if nat_t { &self.nat_t } else { &self.ike };
        let Ok(local) = socket.local_addr() else { return };
        let now = self.clock.now();
        let (mut n, mut from) = (n, from);
        for _ in 0..BURST {
            if let Some(datagram) = buf.get_mut(..n) {
                self.client.handle_udp(now, local, from, datagram);
            }
            let socket = if nat_t { &self.nat_t } else { &self.ike };
            match socket.try_recv_from(buf) {
                Ok(next) => (n, from) = next,
                Err(_) => break,
            }
        }
    }

    async fn carry_out(&mut self) {
        while let Some(output) = self.client.poll_output() {
            match output {
                Output::Udp { local, remote, bytes } => {
                    let nat_t = self.nat_t.local_addr().is_ok_and(|a| a.port() == local.port());
                    let socket = if nat_t { &self.nat_t } else { &self.ike };
                    // What is lost here is sent again by its protocol, or was an IP packet.
                    let _ = socket.send_to(&bytes, remote).await;
                }
                // Settings of a driver ask for ESP in UDP.
                Output::Esp { .. } => {}
                Output::Inside(packet) => {
                    if let Some(device) = &self.device {
                        let _ = device.send(&packet).await;
                    }
                }
                Output::Event(event) => self.tell(event).await,
            }
        }
    }

    async fn tell(&mut self, event: Event) {
        let event = match event {
            Event::Up { mtu, .. } => match DeviceBuilder::new().name(&self.device_name).mtu(mtu).build_async() {
                Ok(device) => {
                    self.device = Some(device);
                    event
                }
                Err(e) => {
                    self.done = true;
                    Event::Down {
                        cause: format!("cannot make the TUN device {}: {e}", self.device_name),
                        remedy: Some("it needs CAP_NET_ADMIN and /dev/net/tun".into()),
                    }
                }
            },
            event => event,
        };
        self.done |= matches!(event, Event::Down { .. });
        let _ = self.events.send(event).await;
    }
}

/// Reads a packet; waits for ever while there is no device.
async fn read(device: Option<&AsyncDevice>, buf: &mut [u8]) -> io::Result<usize> {
    match device {
        Some(device) => device.recv(buf).await,
        None => std::future::pending().await,
    }
}
