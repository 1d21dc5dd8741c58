//! Where machines enroll: the gateway's ports for HTTPS and plain HTTP, carried to the controllers byte by byte.
//!
//! TLS ends in a controller: the gateway has no key for it, sees no token, and decides nothing. So a machine whose certificate has
//! lapsed needs no tunnel to get a new one. What is here bounds how many strangers may have the controllers' ear at a time.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sallyport_proto::carry::pump;
use sallyport_proto::v1::EnrollmentPort;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tracing::{debug, info, warn};

use crate::config::EnrollmentConfig;
use crate::control::controller::Controllers;
use crate::metrics::{Carriage, Metrics};

/// How long a client may say nothing before a controller hears of it.
const FIRST_BYTE: Duration = Duration::from_secs(10);
/// How long a connection lasts at most; the controller ends it before.
const LIFE: Duration = Duration::from_secs(600);
/// How long a client may take to close once the controller has said everything.
const LINGER: Duration = Duration::from_secs(2);
/// How long one that cannot be served may take to hear it.
const FAREWELL: Duration = Duration::from_secs(2);
/// What one at the plain port hears while the controllers are away.
const AWAY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 30\r\nContent-Type: text/plain\r\n\
    Content-Length: 26\r\nConnection: close\r\n\r\nno controller answers now\n";
/// What is read of one who is sent away, bytes: or his system would drop our answer for what he still sends.
const DRAIN: usize = 64 * 1024;
/// Pause after an accept that failed, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The ports.
#[derive(Debug, Default)]
pub struct Ports {
    tasks: Vec<JoinHandle<()>>,
    addresses: Vec<SocketAddr>,
    warnings: Vec<String>,
}

impl Ports {
    /// Opens what is configured. A port that is not to be had is a warning: the VPN goes on.
    pub async fn open(config: &EnrollmentConfig, controllers: &Controllers, metrics: &Arc<Metrics>) -> Self {
        let mut this = Self::default();
        let places = Places::new(config);
        for (key, address, port) in [
            ("listen", config.listen, EnrollmentPort::Https),
            ("http_listen", config.http_listen, EnrollmentPort::Http),
        ] {
            let Some(address) = address else { continue };
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    let address = listener.local_addr().unwrap_or(address);
                    info!(%address, "machines can enroll");
                    this.addresses.push(address);
                    let (controllers, metrics) = (controllers.clone(), metrics.clone());
                    this.tasks.push(tokio::spawn(accept(listener, port, controllers, places.clone(), metrics)));
                }
                Err(error) => this.warnings.push(format!(
                    "[gateway.enrollment] {key}: cannot listen on {address}: {error}; no machine can enroll there; free the \
                     port, set another one, or switch it off with \"\""
                )),
            }
        }
        this
    }

    /// Where they are.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What does not work, in words for the operator.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn accept(
    listener: TcpListener,
    port: EnrollmentPort,
    controllers: Controllers,
    places: Arc<Places>,
    metrics: Arc<Metrics>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, remote)) => match places.take(remote.ip()) {
                    Ok(place) => {
                        let (controllers, metrics) = (controllers.clone(), metrics.clone());
                        connections.spawn(async move {
                            let _place = place;
                            let carriage = carry(stream, remote, port, &controllers).await;
                            metrics.note_carriage(carriage);
                        });
                    }
                    Err(full) => metrics.note_carriage(full),
                },
                Err(error) => {
                    warn!(%error, "enrollment: cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(stream: TcpStream, remote: SocketAddr, port: EnrollmentPort, controllers: &Controllers) -> Carriage {
    let _ = stream.set_nodelay(true); // slower at worst
    // A controller hears of nobody who does not say a word.
    let mut first = [0];
    match tokio::time::timeout(FIRST_BYTE, stream.peek(&mut first)).await {
        Ok(Ok(1..)) => {}
        Ok(_) | Err(_) => return Carriage::Silent,
    }
    match controllers.carry(remote, port).await {
        Ok((outgoing, incoming)) => match tokio::time::timeout(LIFE, pump(stream, incoming, outgoing, LINGER)).await {
            Ok(Ok(())) => Carriage::Carried,
            Ok(Err(error)) => {
                debug!(%remote, %error, "a connection of a machine that enrolls broke off");
                Carriage::BrokenOff
            }
            Err(_) => Carriage::BrokenOff,
        },
        Err(why) => {
            debug!(%remote, why, "no controller for a machine that enrolls");
            if port == EnrollmentPort::Http {
                let _ = tokio::time::timeout(FAREWELL, send_away(stream)).await; // he is sent away in any case
            }
            Carriage::Away
        }
    }
}

async fn send_away(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(AWAY).await?;
    stream.shutdown().await?;
    let mut left = stream.take(DRAIN as u64);
    let mut buffer = [0; 4096];
    while left.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// How many connections there may be.
#[derive(Debug)]
struct Places {
    total: usize,
    per_source: usize,
    taken: Mutex<BTreeMap<IpAddr, usize>>,
}

/// One of them; given back when it is dropped.
struct Place {
    places: Arc<Places>,
    source: IpAddr,
}

impl Places {
    fn new(config: &EnrollmentConfig) -> Arc<Self> {
        let (total, per_source) = (config.connections.usize(), config.connections_per_source.usize());
        Arc::new(Self { total, per_source, taken: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        // Counters: whoever panicked left them whole.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: &Arc<Self>, remote: IpAddr) -> Result<Place, Carriage> {
        let source = source_of(remote);
        let mut taken = self.lock();
        if taken.values().sum::<usize>() >= self.total {
            return Err(Carriage::TooMany);
        }
        let of_source = taken.entry(source).or_insert(0);
        if *of_source >= self.per_source {
            return Err(Carriage::TooManyOfSource);
        }
        *of_source += 1;
        Ok(Place { places: self.clone(), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(count) = taken.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.source);
            }
        }
    }
}

/// Whom connections are counted for: whoever has an IPv6 address has all of its network of 64 bits.
fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_in_total_and_for_each_source_and_come_back() {
        let config = EnrollmentConfig {
            connections: 3.try_into().expect("in range"),
            connections_per_source: 2.try_into().expect("in range"),
            ..EnrollmentConfig::default()
        };
        let places = Places::new(&config);
        let take = |text: &str| places.take(text.parse().expect("an address"));
        let first = (take("2001:db8::1").ok(), take("2001:db8::2").ok());
        assert!(first.0.is_some() && first.1.is_some());
        assert!(matches!(take("2001:db8::3"), Err(Carriage::TooManyOfSource)));
        let other = take("192.0.2.1");
        assert!(other.is_ok());
        assert!(matches!(take("192.0.2.2"), Err(Carriage::TooMany)));
        drop(first);
        assert!(take("::ffff:192.0.2.1").is_ok());
        drop(other);
        assert!(places.lock().is_empty());
    }

    #[test]
    fn the_answer_for_whoever_comes_while_the_controllers_are_away_is_as_long_as_it_says() {
        let text = std::str::from_utf8(AWAY).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a header");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{text}");
    }
}
