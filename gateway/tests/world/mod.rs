//! The whole gateway in memory: the built-in client's machines against the control plane, the crypto workers and the core
//! of the data plane, over a simulated network with virtual time. Shared by tests and benchmarks.

#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use sallyport_base::{Instant, PeerId, UnixTime};
use sallyport_ca::seal::SealKey;
use sallyport_ca::{
    AltName, Authority, KeyAlgorithm, KeyPair, Profile, RootConfig, Serial, Subject, SystemRandom, pem,
};
use sallyport_client::{Auth, Certificate, Client, Event, Settings};
use sallyport_crypto::mschap;
use sallyport_gateway::app::{credentials, credentials_of, succeed};
use sallyport_gateway::clock::Clock;
use sallyport_gateway::config::{EspConfig, IkeConfig};
use sallyport_gateway::control::held::Report;
use sallyport_gateway::control::jobs::{Done, Jobs, Trust};
use sallyport_gateway::control::machine::{Config, Judgement, Machine, Output, Proven};
use sallyport_gateway::control::{policy, proven};
use sallyport_gateway::data::DataConfig;
use sallyport_gateway::data::coalesce::InsideDevice;
use sallyport_gateway::data::fast::Fast;
use sallyport_gateway::data::receive::ReceiveBatch;
use sallyport_gateway::data::transmit::{Carrier, Group, OutsideDevice, TransmitBatch};
use sallyport_gateway::identity::{Identity, IkeIdentity};
use sallyport_gateway::link::{FromData, ToData};
use sallyport_gateway::net::Role;
use sallyport_ike::VerifyRefusal;
use sallyport_l2tp as l2tp;
use sallyport_ppp as ppp;
use sallyport_proto::v1;
use zeroize::Zeroizing;

pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const LAPTOP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
pub const LEASE: Ipv4Addr = Ipv4Addr::new(10, 88, 1, 2);
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 88, 1, 1);
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
pub const REQUEST: [u8; 16] = [5; 16];
pub const AWAY: &str = "the controllers are away";
pub const PSK: &[u8] = b"a shared secret of the test";

/// Datagrams of the gateway on their way.
#[derive(Default)]
pub struct Outside(pub VecDeque<(Carrier, SocketAddr, SocketAddr, Vec<u8>)>);

impl OutsideDevice for Outside {
    fn send(&mut self, group: &Group, bytes: &[u8]) -> io::Result<()> {
        for packet in bytes.chunks(group.segment.max(1)) {
            self.0.push_back((group.carrier, group.local, group.remote, packet.to_vec()));
        }
        Ok(())
    }
}

/// Packets that came out inside.
#[derive(Default)]
pub struct Inside(pub Vec<Vec<u8>>);

impl InsideDevice for Inside {
    fn offload(&self) -> bool {
        false
    }
    fn uso(&self) -> bool {
        false
    }
    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.0.push(parts.iter().flat_map(|p| p.iter().copied()).collect());
        Ok(())
    }
}

pub struct Pki {
    pub authority: Authority,
    rng: SystemRandom,
    now: UnixTime,
}

impl Pki {
    pub fn new(name: &str) -> Self {
        let (rng, now) = (SystemRandom::new(), Clock::unix());
        let seal = SealKey::generate(&rng).unwrap();
        let (authority, _) = Authority::create(&RootConfig::new("Test", name), &seal, now, &rng).unwrap();
        Self { authority, rng, now }
    }

    pub fn issue(&self, profile: Profile, name: &str, algorithm: KeyAlgorithm) -> (Zeroizing<Vec<u8>>, Vec<u8>) {
        self.issue_under(profile, name, algorithm, Serial::generate(&self.rng).unwrap())
    }

    /// The same with a serial number that is given.
    pub fn issue_under(
        &self,
        profile: Profile,
        name: &str,
        algorithm: KeyAlgorithm,
        serial: Serial,
    ) -> (Zeroizing<Vec<u8>>, Vec<u8>) {
        let key = KeyPair::generate(algorithm, &self.rng).unwrap();
        let subject = Subject::new(name, vec![AltName::Dns(name.into())]).unwrap();
        let cert = self.authority.issue(profile, &subject, &key.public_key(), self.now, serial, &self.rng).unwrap();
        (Zeroizing::new(key.pkcs8_der().to_vec()), cert.der().to_vec())
    }

    pub fn root_pem(&self) -> Vec<u8> {
        pem::encode("CERTIFICATE", self.authority.certificate().der()).as_bytes().to_vec()
    }

    pub fn laptop(&self, algorithm: KeyAlgorithm) -> Auth {
        let (key, der) = self.issue(Profile::Machine, "laptop.test", algorithm);
        self.with_certificate(&key, der)
    }

    /// A laptop with this key and certificate.
    pub fn with_certificate(&self, key: &[u8], der: Vec<u8>) -> Auth {
        self.dialling("vpn.test", key, der)
    }

    /// A laptop that dials this name.
    pub fn laptop_dialling(&self, name: &str) -> Auth {
        let (key, der) = self.issue(Profile::Machine, "laptop.test", KeyAlgorithm::EcdsaP256);
        self.dialling(name, &key, der)
    }

    fn dialling(&self, name: &str, key: &[u8], der: Vec<u8>) -> Auth {
        let c = Certificate::new(key, vec![der], &self.root_pem(), Some(name), self.now).unwrap();
        Auth::Certificate(Box::new(c))
    }
}

pub struct World {
    pub now: Instant,
    pub machine: Machine,
    pub jobs: Jobs,
    pub results: tokio::sync::mpsc::Receiver<Done>,
    pub fast: Fast,
    pub outside: Outside,
    pub inside: Inside,
    pub transmit: TransmitBatch,
    pub client: Client,
    pub events: Vec<Event>,
    pub delivered: Vec<Vec<u8>>,
    pub attempts: Vec<v1::Attempt>,
    pub sessions: Vec<v1::SessionReport>,
    /// Whether the controllers turn every machine away, under the id [`REQUEST`].
    pub refuse_machines: bool,
    /// Whether no controller answers.
    pub controllers_away: bool,
    /// Whether the controllers' answers about machines are on their way until [`World::answer`] lets them arrive.
    pub slow: bool,
    /// What was asked meanwhile, and up to which number revocations were known then.
    pub unanswered: Vec<(sallyport_ike::JobId, Proven, u64)>,
    /// Serial number and SHA-256 of the last certificate that was admitted.
    pub last_serial: String,
    pub last_fingerprint: [u8; 32],
    /// The ESP SAs that the gateway installed, the newest last: whose, and their inbound SPI.
    pub installed: Vec<(PeerId, u32)>,
    /// How often the controllers were asked about a machine.
    pub asked: usize,
    /// Whether the laptop has been switched off.
    pub gone: bool,
    /// The root, PEM, and how often the gateway had other certificates.
    pub ca: Vec<u8>,
    pub generation: u32,
}

pub fn settings(auth: Auth, password: &str, native_esp: bool) -> Settings {
    Settings {
        local: LAPTOP.into(),
        gateway: GATEWAY.into(),
        ports: (500, 4500),
        auth,
        esp: Vec::new(),
        groups: Vec::new(),
        hashes: Vec::new(),
        native_esp,
        user: "alice".into(),
        password: Zeroizing::new(password.into()),
        methods: vec![ppp::AuthMethod::MsChapV2],
    }
}

impl World {
    /// The gateway has a new certificate with another key, as after a renewal.
    pub fn swap(&mut self, pki: &Pki, name: &str) {
        let (key, der) = pki.issue(Profile::Gateway, name, KeyAlgorithm::EcdsaP256);
        let identity = Identity {
            grpc_chain: Vec::new(),
            grpc_key: Zeroizing::new(Vec::new()),
            ca: self.ca.clone(),
            gone: Vec::new(),
            revoked: None,
            ike: vec![IkeIdentity { chain: vec![der], key }],
        };
        self.generation += 1;
        let (keys, new) = credentials_of(&identity, self.generation, Clock::unix()).unwrap();
        let credentials = succeed(new, &self.machine.ike_config().credentials);
        self.jobs.set_keys(keys, &credentials);
        self.machine.set_credentials(credentials);
    }

    /// Another laptop comes: the present one is forgotten by the network, not by the gateway.
    pub fn replace_client(&mut self, settings: Settings) {
        self.client = Client::connect(settings, seed(self.now), self.now, Clock::unix());
        self.events.clear();
    }

    pub fn new(pki: &Pki, client: Settings) -> Self {
        Self::with(pki, client, |_| {})
    }

    /// A gateway whose configuration `change` has changed.
    pub fn with(pki: &Pki, client: Settings, change: impl FnOnce(&mut Config)) -> Self {
        let ike = |algorithm| {
            let (key, der) = pki.issue(Profile::Gateway, "vpn.test", algorithm);
            IkeIdentity { chain: vec![der], key }
        };
        let identity = Identity {
            grpc_chain: Vec::new(),
            grpc_key: Zeroizing::new(Vec::new()),
            ca: pki.root_pem(),
            gone: Vec::new(),
            revoked: None,
            ike: vec![ike(KeyAlgorithm::Rsa2048), ike(KeyAlgorithm::EcdsaP256)],
        };
        let (keys, credentials) = credentials(&identity).unwrap();
        let mut config = policy::ike_config(&IkeConfig::default(), &EspConfig::default());
        config.credentials = credentials;
        config.pre_shared_key = true;
        let mut anchors = sallyport_ca::verify::TrustStore::new();
        anchors.add_anchors_pem(&identity.ca).unwrap();
        config.trusted_issuers = anchors.subject_names().map(<[u8]>::to_vec).collect();
        let (jobs, results) = Jobs::start(keys, 1).unwrap();
        jobs.set_trust(Trust { anchors, psk: Some(Zeroizing::new(PSK.to_vec())) });
        let now = Instant::from_secs(1);
        let mut config = Config {
            ike: config,
            l2tp: l2tp::Config::default(),
            ppp: ppp::ServerConfig::default(),
            report_interval: Duration::from_secs(60),
        };
        change(&mut config);
        Self {
            now,
            machine: Machine::new(config, [1; 32], now),
            jobs,
            results,
            fast: Fast::new(&DataConfig::default()),
            outside: Outside::default(),
            inside: Inside::default(),
            transmit: TransmitBatch::default(),
            client: Client::connect(client, [2; 32], now, Clock::unix()),
            events: Vec::new(),
            delivered: Vec::new(),
            attempts: Vec::new(),
            sessions: Vec::new(),
            refuse_machines: false,
            controllers_away: false,
            slow: false,
            unanswered: Vec::new(),
            last_serial: String::new(),
            last_fingerprint: [0; 32],
            installed: Vec::new(),
            asked: 0,
            gone: false,
            ca: pki.root_pem(),
            generation: 0,
        }
    }

    /// Lets time pass until nothing happens for a while or `until` says enough.
    pub fn run(&mut self, limit: Duration, until: impl Fn(&Self) -> bool) {
        let end = self.now + limit;
        while !until(self) {
            if self.step() {
                continue;
            }
            let wake = [self.machine.poll_timeout(), (!self.gone).then(|| self.client.poll_timeout()).flatten()];
            let Some(at) = wake.into_iter().flatten().min().filter(|at| *at <= end) else { break };
            self.now = at.max(self.now);
            self.machine.handle_timeout(self.now);
            if !self.gone {
                self.client.handle_timeout(self.now);
            }
        }
    }

    /// Carries everything that is under way one step further; `false` if there was nothing.
    pub fn step(&mut self) -> bool {
        let mut busy = false;
        while let Some(output) = self.machine.poll_output() {
            busy = true;
            self.carry_out(output);
        }
        self.transmit.flush(&mut self.outside, &mut sallyport_gateway::data::stats::Counters::default());
        while let Some((carrier, local, remote, mut bytes)) = self.outside.0.pop_front() {
            busy = true;
            if !self.gone {
                match carrier {
                    Carrier::Udp => self.client.handle_udp(self.now, remote, local, &mut bytes),
                    Carrier::Esp => self.client.handle_esp(self.now, &mut bytes),
                }
            }
        }
        while let Some(output) = (!self.gone).then(|| self.client.poll_output()).flatten() {
            busy = true;
            match output {
                sallyport_client::Output::Udp { local, remote, bytes } => {
                    let role = if remote.port() == 500 { Role::Ike } else { Role::NatT };
                    self.arrive(role, remote, local, &bytes);
                }
                sallyport_client::Output::Esp { local, remote, bytes } => {
                    // A raw IPv4 socket hands over the IP header too.
                    let [a, b] = u16::try_from(20 + bytes.len()).unwrap().to_be_bytes();
                    let mut packet = vec![0x45, 0, a, b, 0, 0, 0, 0, 64, 50, 0, 0];
                    packet.extend(LAPTOP.octets());
                    packet.extend(GATEWAY.octets());
                    packet.extend(&bytes);
                    self.arrive(Role::Esp, remote, local, &packet);
                }
                sallyport_client::Output::Inside(packet) => self.delivered.push(packet),
                sallyport_client::Output::Event(event) => self.events.push(event),
            }
        }
        busy
    }

    fn arrive(&mut self, role: Role, local: SocketAddr, remote: SocketAddr, bytes: &[u8]) {
        let mut batch = ReceiveBatch::default();
        assert!(batch.push(role, local, remote, [bytes]));
        let (mut inner, mut control) = (Vec::new(), Vec::<FromData>::new());
        self.fast.inbound(&mut batch, &mut inner, &mut control);
        for slice in inner {
            self.inside.0.push(batch.buffers.get(slice).unwrap().to_vec());
        }
        for message in control {
            self.machine.handle_data(self.now, message);
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Data(message) => {
                if let ToData::InstallSa(sa) = &message {
                    self.installed.push((sa.peer, sa.spi_in));
                }
                let mut control = Vec::<FromData>::new();
                self.fast.apply(message, &mut self.transmit, &mut self.outside, &mut control);
                for message in control {
                    self.machine.handle_data(self.now, message);
                }
            }
            Output::Job(id, job) => {
                assert!(self.jobs.submit(id, job).is_none());
                match self.results.blocking_recv().unwrap() {
                    Done::Answer(id, answer) => self.machine.handle_job(self.now, id, answer),
                    Done::Admit(id, candidate) => self.admit(id, &proven(&candidate)),
                }
            }
            Output::Authenticate(question, request) => {
                let decision = if self.controllers_away { Err(AWAY.to_owned()) } else { Ok(decide(&request)) };
                self.machine.handle_decision(self.now, question, decision);
            }
            Output::Report(Report::Attempt(a)) => self.attempts.push(*a),
            Output::Report(Report::Session(s)) => self.sessions.push(s),
        }
    }

    /// What becomes of a machine: by what is known here, or by what the controllers of the test say.
    fn admit(&mut self, id: sallyport_ike::JobId, machine: &Proven) {
        (self.last_serial, self.last_fingerprint) = (machine.serial.clone(), machine.fingerprint);
        match self.machine.judge(self.now, Clock::unix(), machine) {
            Judgement::Admit => self.machine.handle_admitted(self.now, id, machine.clone()),
            Judgement::Refuse(refusal) => {
                self.machine.handle_refused_here(self.now, id, refusal, v1::CertificateVerdict::Revoked);
            }
            Judgement::Ask(index) => {
                self.asked += 1;
                if self.refuse_machines {
                    let refusal = VerifyRefusal { name: None, cause: "revoked".into(), remedy: "enroll anew".into() };
                    self.machine.handle_not_admitted(self.now, id, refusal, REQUEST);
                } else if self.controllers_away {
                    self.machine.handle_undecided(self.now, id, machine.clone(), AWAY);
                } else if self.slow {
                    self.unanswered.push((id, machine.clone(), index));
                } else {
                    self.machine.handle_admitted_at(self.now, id, machine.clone(), index);
                }
            }
        }
    }

    /// The controllers' answers arrive: yes to all.
    pub fn answer(&mut self) {
        for (id, machine, index) in std::mem::take(&mut self.unanswered) {
            self.machine.handle_admitted_at(self.now, id, machine, index);
        }
    }

    /// Sends a packet from inside to the client.
    pub fn send_from_inside(&mut self, packet: &[u8]) {
        let mut frame = packet.to_vec();
        let mut control = Vec::<FromData>::new();
        self.fast.outbound(&mut frame, false, &mut self.transmit, &mut self.outside, &mut self.inside, &mut control);
    }

    pub fn is_up(&self) -> bool {
        self.events.iter().any(|e| matches!(e, Event::Up { .. }))
    }

    pub fn is_down(&self) -> bool {
        self.events.iter().any(|e| matches!(e, Event::Down { .. }))
    }

    pub fn connect(&mut self) {
        self.run(Duration::from_secs(60), |w| w.is_up() || w.is_down());
        assert!(self.is_up(), "{:?} {:?}", self.events, self.attempts);
    }

    /// One packet each way, whole and unchanged.
    pub fn exchange(&mut self) {
        let (to, from) = (ipv4(LEASE, SERVER, b"up"), ipv4(SERVER, LEASE, b"down"));
        self.client.handle_inside(&to);
        self.run(Duration::ZERO, |_| false);
        assert_eq!(self.inside.0.pop(), Some(to));
        self.send_from_inside(&from);
        self.run(Duration::ZERO, |_| false);
        assert_eq!(self.delivered.pop(), Some(from));
    }
}

/// What a controller with one user decides.
pub fn decide(request: &v1::AuthenticateRequest) -> v1::authenticate_response::Decision {
    use v1::authenticate_request::Method;
    use v1::authenticate_response::Decision;
    let Some(Method::Mschapv2(m)) = &request.method else { panic!("another method") };
    let (challenge, peer) = (m.authenticator_challenge.as_slice(), m.peer_challenge.as_slice());
    let (challenge, peer) = (challenge.try_into().unwrap(), peer.try_into().unwrap());
    let response = m.nt_response.as_slice().try_into().unwrap();
    let hash = mschap::nt_password_hash("wonderland");
    if !mschap::check_nt_response(challenge, peer, &request.user, &hash, response) {
        return Decision::Reject(v1::Reject {
            error_code: 691,
            cause: "wrong password".into(),
            remedy: "type the right one".into(),
            ..v1::Reject::default()
        });
    }
    Decision::Accept(v1::Accept {
        session_id: "00000000000000aa".into(),
        lease: Some(v1::Lease {
            address: LEASE.to_string(),
            router: ROUTER.to_string(),
            dns: vec![SERVER.to_string()],
            ..v1::Lease::default()
        }),
        authenticator_response: mschap::generate_authenticator_response(
            &hash,
            response,
            peer,
            challenge,
            &request.user,
        ),
        user: request.user.clone(),
        ..v1::Accept::default()
    })
}

/// An IPv4 packet with UDP's protocol number and a right header checksum.
pub fn ipv4(from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + payload.len()).unwrap();
    let mut p = vec![0x45, 0];
    p.extend(len.to_be_bytes());
    p.extend([0, 0, 0, 0, 64, 253, 0, 0]);
    p.extend(from.octets());
    p.extend(to.octets());
    let mut sum: u32 = p.chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], c[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = !u16::try_from(sum).unwrap();
    p[10..12].copy_from_slice(&checksum.to_be_bytes());
    p.extend(payload);
    p
}

/// A seed that differs from moment to moment; for a simulation that is randomness enough.
fn seed(now: Instant) -> [u8; 32] {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&now.as_micros().to_be_bytes());
    seed
}
