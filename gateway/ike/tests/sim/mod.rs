//! A simulated network with virtual time: endpoints, NATs, loss, duplication and reordering.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sallyport_base::{Instant, PeerId};
use sallyport_crypto::sign::{IkeKey, SignatureMethod, verify_ikev1};
use sallyport_crypto::{Rng, Zeroizing};
use sallyport_ike::*;

pub fn addr(s: &str) -> SocketAddr {
    s.parse().unwrap()
}

pub fn key(method: SignatureMethod, who: &str) -> IkeKey {
    let der: &[u8] = match (method, who) {
        (SignatureMethod::Rsa, "client") => include_bytes!("../keys/rsa-client.der"),
        (SignatureMethod::Rsa, _) => include_bytes!("../keys/rsa-gateway.der"),
        (SignatureMethod::EcdsaP256, "client") => include_bytes!("../keys/p256-client.der"),
        (SignatureMethod::EcdsaP256, _) => include_bytes!("../keys/p256-gateway.der"),
        (SignatureMethod::EcdsaP384, "client") => include_bytes!("../keys/p384-client.der"),
        (SignatureMethod::EcdsaP384, _) => include_bytes!("../keys/p384-gateway.der"),
    };
    IkeKey::from_pkcs8_der(der).unwrap()
}

/// A bare public key plays the certificate.
pub fn credential(method: SignatureMethod, who: &str, extra: usize) -> Credential {
    let mut chain = vec![key(method, who).public_key_der().unwrap()];
    if extra > 0 {
        chain.push(vec![0xee; extra]);
    }
    Credential {
        id: CredentialId(u32::from(method.number())),
        method,
        chain,
        issuers: vec![b"root".to_vec()],
        identity: Identification::fqdn(&format!("{who}.example")),
    }
}

/// What the shell is in real life.
pub struct Node {
    pub name: &'static str,
    pub ep: Endpoint,
    pub rng: Rng,
    pub psk: Option<Vec<u8>>,
    pub refuse_certificates: bool,
    /// Answers to jobs come this much later.
    pub job_delay: Duration,
    pub events: Vec<Event>,
    pub children: BTreeMap<u32, ChildSa>,
    /// Inside address, and the NAT in front of it if there is one.
    pub at: IpAddr,
    pub nat: Option<IpAddr>,
    /// Packets to and from it vanish.
    pub gone: bool,
    pub received: Vec<Vec<u8>>,
}

impl Node {
    pub fn new(name: &'static str, at: &str, config: Config, seed: u8) -> Self {
        Self {
            name,
            ep: Endpoint::new(config, [seed; 32], Instant::ZERO),
            rng: Rng::from_seed([seed ^ 0x55; 32]),
            psk: None,
            refuse_certificates: false,
            job_delay: Duration::ZERO,
            events: Vec::new(),
            children: BTreeMap::new(),
            at: at.parse().unwrap(),
            nat: None,
            gone: false,
            received: Vec::new(),
        }
    }

    pub fn behind(mut self, nat: &str) -> Self {
        self.nat = Some(nat.parse().unwrap());
        self
    }

    pub fn psk(mut self, psk: &str) -> Self {
        self.psk = Some(psk.as_bytes().to_vec());
        self
    }

    fn answer(&mut self, job: Job) -> Answer {
        match job.compute(&mut self.rng) {
            Ok(answer) => answer,
            Err(Job::Sign { method, hash, .. }) => {
                let who = if self.name.starts_with("client") { "client" } else { "gateway" };
                Answer::Signature(key(method, who).sign_ikev1(&hash, &mut self.rng).unwrap())
            }
            Err(Job::Verify(v)) => {
                let ok = v.certificates.first().is_some_and(|(encoding, spki)| {
                    *encoding == CertEncoding::X509_SIGNATURE
                        && verify_ikev1(spki, v.method, &v.hash, &v.signature).is_ok()
                });
                if ok && !self.refuse_certificates {
                    Answer::Verified(Verified { name: format!("machine {}", v.id), token: 7 })
                } else {
                    Answer::Refused(VerifyRefusal {
                        name: None,
                        cause: "the certificate is of a strange authority".into(),
                        remedy: "enroll the machine".into(),
                    })
                }
            }
            Err(Job::PreSharedKey { .. }) => Answer::PreSharedKey(self.psk.clone().map(Zeroizing::new)),
            Err(job) => panic!("unexpected {job:?}"),
        }
    }

    pub fn refusals(&self) -> Vec<&Refusal> {
        self.events.iter().filter_map(|e| if let Event::Refused(r) = e { Some(&**r) } else { None }).collect()
    }

    pub fn peer_ups(&self) -> Vec<&PeerUp> {
        self.events.iter().filter_map(|e| if let Event::PeerUp(p) = e { Some(p) } else { None }).collect()
    }

    pub fn count(&self, f: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|e| f(e)).count()
    }
}

#[derive(Debug)]
enum What {
    Packet { from: SocketAddr, to: SocketAddr, bytes: Vec<u8> },
    Answer { node: usize, id: JobId, answer: Answer },
}

/// What a middlebox does to a packet.
pub type Rewrite = fn(&[u8]) -> Vec<u8>;

pub struct Net {
    pub now: Instant,
    pub nodes: Vec<Node>,
    queue: BTreeMap<(Instant, u64), What>,
    seq: u64,
    pub latency: Duration,
    pub rng: Rng,
    /// Per cent of packets.
    pub loss: u32,
    pub duplication: u32,
    pub reordering: u32,
    /// (NAT, port) to (inside), and back.
    mappings: BTreeMap<SocketAddr, SocketAddr>,
    next_port: u16,
    pub packets: u64,
    /// Largest datagram seen.
    pub largest: usize,
    /// Drops the n-th packets (from 0).
    pub drop: Vec<u64>,
    /// Changes packets on their way.
    pub rewrite: Option<Rewrite>,
}

impl Net {
    pub fn new(nodes: Vec<Node>, seed: u8) -> Self {
        Self {
            now: Instant::from_secs(1000),
            nodes,
            queue: BTreeMap::new(),
            seq: 0,
            latency: Duration::from_millis(20),
            rng: Rng::from_seed([seed; 32]),
            loss: 0,
            duplication: 0,
            reordering: 0,
            mappings: BTreeMap::new(),
            next_port: 20_000,
            packets: 0,
            largest: 0,
            drop: Vec::new(),
            rewrite: None,
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        percent > 0 && self.rng.u32() % 100 < percent
    }

    fn push(&mut self, at: Instant, what: What) {
        self.seq += 1;
        self.queue.insert((at, self.seq), what);
    }

    /// NAT rebinding: everything gets new ports.
    pub fn rebind(&mut self) {
        self.mappings.clear();
    }

    /// Sends bytes from anywhere.
    pub fn inject(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        self.push(self.now, What::Packet { from, to, bytes });
    }

    fn transmit(&mut self, node: usize, local: SocketAddr, remote: SocketAddr, bytes: Vec<u8>) {
        let bytes = self.rewrite.map_or_else(|| bytes.clone(), |f| f(&bytes));
        let n = self.packets;
        self.packets += 1;
        self.largest = self.largest.max(bytes.len());
        let mut from = local;
        if let Some(nat) = self.nodes[node].nat {
            let known = self.mappings.iter().find(|(_, inside)| **inside == local).map(|(outside, _)| *outside);
            from = known.unwrap_or_else(|| {
                self.next_port += 1;
                let outside = SocketAddr::new(nat, self.next_port);
                self.mappings.insert(outside, local);
                outside
            });
        }
        if self.nodes[node].gone || self.drop.contains(&n) || self.chance(self.loss) {
            return;
        }
        let copies = if self.chance(self.duplication) { 2 } else { 1 };
        for _ in 0..copies {
            let mut at = self.now + self.latency;
            if self.chance(self.reordering) {
                at = at + Duration::from_millis(u64::from(self.rng.u32() % 1500));
            }
            self.push(at, What::Packet { from, to: remote, bytes: bytes.clone() });
        }
    }

    fn drain(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].ep.poll_output() {
            match output {
                Output::Transmit { local, remote, bytes } => self.transmit(node, local, remote, bytes),
                Output::Keepalive { local, remote } => self.transmit(node, local, remote, vec![0xff]),
                Output::Job { id, job } => {
                    let answer = self.nodes[node].answer(job);
                    let at = self.now + self.nodes[node].job_delay;
                    self.push(at, What::Answer { node, id, answer });
                }
                Output::Event(event) => {
                    let n = &mut self.nodes[node];
                    match &event {
                        Event::ChildUp(c) => drop(n.children.insert(c.spi_in, (**c).clone())),
                        Event::ChildDown { spi_in, .. } => drop(n.children.remove(spi_in)),
                        _ => {}
                    }
                    n.events.push(event);
                }
            }
        }
    }

    fn deliver(&mut self, what: What) {
        match what {
            What::Answer { node, id, answer } => {
                self.nodes[node].ep.handle_answer(self.now, id, answer);
                self.drain(node);
            }
            What::Packet { from, to, bytes } => {
                let inside = self.mappings.get(&to).copied().unwrap_or(to);
                let behind = inside != to;
                let found = self.nodes.iter().position(|n| n.at == inside.ip() && n.nat.is_some() == behind);
                let found = found.filter(|_| behind || self.nodes.iter().all(|n| n.nat != Some(to.ip())));
                let Some(node) = found.filter(|n| !self.nodes[*n].gone) else { return };
                self.nodes[node].received.push(bytes.clone());
                self.nodes[node].ep.handle_datagram(self.now, inside, from, &bytes);
                self.drain(node);
            }
        }
    }

    /// Runs for `how_long`.
    pub fn run(&mut self, how_long: Duration) {
        let end = self.now + how_long;
        for n in 0..self.nodes.len() {
            self.drain(n);
        }
        loop {
            let packet = self.queue.first_key_value().map(|((at, _), _)| *at);
            let timer = (0..self.nodes.len()).filter_map(|n| Some((self.nodes[n].ep.poll_timeout()?, n))).min();
            let next = match (packet, timer) {
                (Some(p), Some((t, _))) => p.min(t),
                (Some(p), None) => p,
                (None, Some((t, _))) => t,
                (None, None) => break,
            };
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            if packet == Some(next) {
                let (_, what) = self.queue.pop_first().unwrap();
                self.deliver(what);
            } else if let Some((_, n)) = timer {
                self.nodes[n].ep.handle_timeout(self.now);
                self.drain(n);
            }
        }
        self.now = end;
    }

    pub fn secs(&mut self, s: u64) {
        self.run(Duration::from_secs(s));
    }

    pub fn connect(&mut self, node: usize, gateway: &str, auth: ConnectAuth) -> PeerId {
        let local = SocketAddr::new(self.nodes[node].at, 500);
        self.connect_with(
            node,
            Connect {
                local,
                remote: SocketAddr::new(gateway.parse().unwrap(), 500),
                auth,
                identity: None,
                client_port: 1701,
                phase1: Vec::new(),
                esp: Vec::new(),
                pfs: None,
            },
        )
    }

    pub fn connect_with(&mut self, node: usize, connect: Connect) -> PeerId {
        let id = self.nodes[node].ep.connect(self.now, connect);
        self.drain(node);
        id
    }

    pub fn with<T>(&mut self, node: usize, f: impl FnOnce(&mut Endpoint, Instant) -> T) -> T {
        let out = f(&mut self.nodes[node].ep, self.now);
        self.drain(node);
        out
    }

    /// Both ends of each ESP SA fit together.
    pub fn check_children(&self, a: usize, b: usize) {
        let (a, b) = (&self.nodes[a], &self.nodes[b]);
        assert!(!a.children.is_empty(), "{} has no ESP SA: {:?}", a.name, a.events);
        for c in a.children.values() {
            let Some(d) = b.children.get(&c.spi_out) else { panic!("{} lacks the other half of {c:?}", b.name) };
            assert_eq!((c.spi_in, c.suite, c.udp_encap), (d.spi_out, d.suite, d.udp_encap));
            assert_eq!(*c.keys_in.keymat(), *d.keys_out.keymat());
            assert_eq!(*c.keys_out.keymat(), *d.keys_in.keymat());
            assert_ne!(*c.keys_out.keymat(), *c.keys_in.keymat());
            assert_eq!((c.client_port, c.gateway_port), (d.client_port, d.gateway_port));
        }
    }
}

/// A gateway with all methods, and a client.
pub fn gateway_config() -> Config {
    use SignatureMethod::*;
    Config {
        pre_shared_key: true,
        credentials: [Rsa, EcdsaP256, EcdsaP384].into_iter().map(|m| credential(m, "gateway", 0)).collect(),
        trusted_issuers: vec![b"root".to_vec()],
        ..Config::default()
    }
}

pub fn client_config() -> Config {
    Config {
        credentials: gateway_config().credentials.iter().map(|c| credential(c.method, "client", 0)).collect(),
        ..gateway_config()
    }
}

pub const GATEWAY: usize = 0;
pub const CLIENT: usize = 1;

/// A gateway at 192.0.2.1 and a client at 198.51.100.7, or at 192.168.1.2 behind 198.51.100.7.
pub fn pair(nat: bool) -> Net {
    pair_with(nat, gateway_config(), client_config())
}

pub fn pair_with(nat: bool, gateway: Config, client: Config) -> Net {
    let gateway = Node::new("gateway", "192.0.2.1", gateway, 1).psk("secret");
    let client = match nat {
        false => Node::new("client", "198.51.100.7", client, 2),
        true => Node::new("client", "192.168.1.2", client, 2).behind("198.51.100.7"),
    };
    Net::new(vec![gateway, client.psk("secret")], 3)
}
