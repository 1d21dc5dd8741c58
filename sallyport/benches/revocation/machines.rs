//! Machines that connect with their certificate and stay: the built-in client with sockets and a clock.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};
use sallyport_base::UnixTime;
use sallyport_client::{Auth, Certificate, Client, Event, Output, Settings};
use sallyport_ppp::AuthMethod;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::site::{PASSWORD, Site, gateway_address, gateway_name, user};

/// Ports of IKE and of IKE behind NAT, at both ends.
const PORTS: (u16, u16) = (500, 4500);
/// Longest datagram: IKE's with a chain of certificates.
const DATAGRAM: usize = 16 * 1024;

/// A machine with its certificate.
pub(crate) struct Machine {
    pub(crate) number: usize,
    pub(crate) gateway: usize,
    /// PKCS #8 DER.
    pub(crate) key: Zeroizing<Vec<u8>>,
    /// Its own first, without the root.
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) serial: String,
}

/// A session that is up.
pub(crate) struct Session {
    pub(crate) number: usize,
    pub(crate) serial: String,
    /// When the machine saw it end, and why.
    pub(crate) ended: oneshot::Receiver<(Instant, String)>,
}

impl Session {
    /// Connects; the error is why that failed.
    pub(crate) async fn connect(machine: &Machine, site: &Site) -> Result<Self, String> {
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let wall = UnixTime(i64::try_from(wall).unwrap());
        let name = gateway_name(machine.gateway);
        let certificate = Certificate::new(&machine.key, machine.chain.clone(), &site.root, Some(&name), wall);
        // An address for each machine: 127.16.0.1 and up.
        let local = IpAddr::V4(Ipv4Addr::from_bits(0x7f10_0001 + machine.number as u32));
        let settings = Settings {
            local,
            gateway: gateway_address(machine.gateway).into(),
            ports: PORTS,
            auth: Auth::Certificate(Box::new(certificate.map_err(|e| e.to_string())?)),
            esp: Vec::new(),
            groups: Vec::new(),
            hashes: Vec::new(),
            native_esp: false,
            user: user(machine.gateway),
            password: Zeroizing::new(PASSWORD.into()),
            methods: vec![AuthMethod::MsChapV2],
        };
        let open = |port| UdpSocket::bind(SocketAddr::new(local, port));
        let (ike, nat_t) = (open(PORTS.0).await.unwrap(), open(PORTS.1).await.unwrap());
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).unwrap();
        let (up_tx, up) = oneshot::channel();
        let (ended_tx, ended) = oneshot::channel();
        let clock = Clock(Instant::now());
        let client = Client::connect(settings, seed, clock.now(), wall);
        tokio::spawn(Shell { client, ike, nat_t, clock, up: Some(up_tx) }.run(ended_tx));
        if up.await.is_err() {
            return Err(ended.await.map_or_else(|_| "it ended without a word".into(), |(_, why)| why));
        }
        Ok(Self { number: machine.number, serial: machine.serial.clone(), ended })
    }
}

#[derive(Clone, Copy)]
struct Clock(Instant);

impl Clock {
    fn now(self) -> sallyport_base::Instant {
        sallyport_base::Instant::from_micros(u64::try_from(self.0.elapsed().as_micros()).unwrap())
    }
}

/// Like [`sallyport_client::Driver`], without a device: nobody sends anything through the tunnel.
struct Shell {
    client: Client,
    ike: UdpSocket,
    nat_t: UdpSocket,
    clock: Clock,
    up: Option<oneshot::Sender<()>>,
}

impl Shell {
    async fn run(mut self, ended: oneshot::Sender<(Instant, String)>) {
        let (mut a, mut b) = (vec![0; DATAGRAM], vec![0; DATAGRAM]);
        loop {
            if let Some(end) = self.carry_out().await {
                let _ = ended.send(end);
                return;
            }
            let now = self.clock.now();
            let wake = self.client.poll_timeout().unwrap_or(now + Duration::from_secs(3600));
            let wake = self.clock.0 + Duration::from_micros(wake.as_micros());
            tokio::select! {
                Ok((n, from)) = self.ike.recv_from(&mut a) => {
                    let local = self.ike.local_addr().unwrap();
                    self.client.handle_udp(self.clock.now(), local, from, &mut a[..n]);
                }
                Ok((n, from)) = self.nat_t.recv_from(&mut b) => {
                    let local = self.nat_t.local_addr().unwrap();
                    self.client.handle_udp(self.clock.now(), local, from, &mut b[..n]);
                }
                () = tokio::time::sleep_until(wake.into()) => self.client.handle_timeout(self.clock.now()),
            }
        }
    }

    /// Does what the client wants; gives its end.
    async fn carry_out(&mut self) -> Option<(Instant, String)> {
        let mut end = None;
        while let Some(output) = self.client.poll_output() {
            match output {
                Output::Udp { local, remote, bytes } => {
                    let socket = if local.port() == PORTS.1 { &self.nat_t } else { &self.ike };
                    // What is lost here is sent again by its protocol.
                    let _ = socket.send_to(&bytes, remote).await;
                }
                Output::Event(Event::Up { .. }) => drop(self.up.take().map(|up| up.send(()))),
                Output::Event(Event::Down { cause, .. }) => end = Some((Instant::now(), cause)),
                // There is no device, and ESP is in UDP.
                Output::Event(_) | Output::Esp { .. } | Output::Inside(_) => {}
            }
        }
        end
    }
}
