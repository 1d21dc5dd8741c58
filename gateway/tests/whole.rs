//! The whole gateway in memory: a real client's machines against the control plane, the crypto workers and the core of
//! the data plane, over a simulated network with virtual time.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use sallyport_base::{Instant, UnixTime};
use sallyport_ca::seal::SealKey;
use sallyport_ca::{
    AltName, Authority, KeyAlgorithm, KeyPair, Profile, RootConfig, Serial, Subject, SystemRandom, pem,
};
use sallyport_client::{Auth, Certificate, Client, Event, Phase, Settings};
use sallyport_crypto::mschap;
use sallyport_gateway::app::credentials;
use sallyport_gateway::clock::Clock;
use sallyport_gateway::config::{EspConfig, IkeConfig};
use sallyport_gateway::control::controller::Report;
use sallyport_gateway::control::jobs::{Done, Jobs, Trust};
use sallyport_gateway::control::machine::{Config, Machine, Output};
use sallyport_gateway::control::policy;
use sallyport_gateway::data::DataConfig;
use sallyport_gateway::data::coalesce::InsideDevice;
use sallyport_gateway::data::fast::Fast;
use sallyport_gateway::data::receive::ReceiveBatch;
use sallyport_gateway::data::transmit::{Carrier, Group, OutsideDevice, TransmitBatch};
use sallyport_gateway::identity::{Identity, IkeIdentity};
use sallyport_gateway::link::FromData;
use sallyport_gateway::net::Role;
use sallyport_l2tp as l2tp;
use sallyport_ppp as ppp;
use sallyport_proto::v1;
use zeroize::Zeroizing;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const LAPTOP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const LEASE: Ipv4Addr = Ipv4Addr::new(10, 88, 1, 2);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 88, 1, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
const PSK: &[u8] = b"a shared secret of the test";

/// Datagrams of the gateway on their way.
#[derive(Default)]
struct Outside(VecDeque<(Carrier, SocketAddr, SocketAddr, Vec<u8>)>);

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
struct Inside(Vec<Vec<u8>>);

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

struct Pki {
    authority: Authority,
    rng: SystemRandom,
    now: UnixTime,
}

impl Pki {
    fn new(name: &str) -> Self {
        let (rng, now) = (SystemRandom::new(), Clock::unix());
        let seal = SealKey::generate(&rng).unwrap();
        let (authority, _) = Authority::create(&RootConfig::new("Test", name), &seal, now, &rng).unwrap();
        Self { authority, rng, now }
    }

    fn issue(&self, profile: Profile, name: &str, algorithm: KeyAlgorithm) -> (Zeroizing<Vec<u8>>, Vec<u8>) {
        let key = KeyPair::generate(algorithm, &self.rng).unwrap();
        let subject = Subject::new(name, vec![AltName::Dns(name.into())]).unwrap();
        let serial = Serial::generate(&self.rng).unwrap();
        let cert = self.authority.issue(profile, &subject, &key.public_key(), self.now, serial, &self.rng).unwrap();
        (Zeroizing::new(key.pkcs8_der().to_vec()), cert.der().to_vec())
    }

    fn root_pem(&self) -> Vec<u8> {
        pem::encode("CERTIFICATE", self.authority.certificate().der()).as_bytes().to_vec()
    }

    fn laptop(&self, algorithm: KeyAlgorithm) -> Auth {
        let (key, der) = self.issue(Profile::Machine, "laptop.test", algorithm);
        let c = Certificate::new(&key, vec![der], &self.root_pem(), Some("vpn.test"), self.now).unwrap();
        Auth::Certificate(Box::new(c))
    }
}

struct World {
    now: Instant,
    machine: Machine,
    jobs: Jobs,
    results: tokio::sync::mpsc::Receiver<Done>,
    fast: Fast,
    outside: Outside,
    inside: Inside,
    transmit: TransmitBatch,
    client: Client,
    events: Vec<Event>,
    delivered: Vec<Vec<u8>>,
    attempts: Vec<v1::Attempt>,
    sessions: Vec<v1::SessionReport>,
    /// Whether the laptop has been switched off.
    gone: bool,
}

fn settings(auth: Auth, password: &str, native_esp: bool) -> Settings {
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
    fn new(pki: &Pki, client: Settings) -> Self {
        let ike = |algorithm| {
            let (key, der) = pki.issue(Profile::Gateway, "vpn.test", algorithm);
            IkeIdentity { chain: vec![der], key }
        };
        let identity = Identity {
            grpc_chain: Vec::new(),
            grpc_key: Zeroizing::new(Vec::new()),
            ca: pki.root_pem(),
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
        let config = Config {
            ike: config,
            l2tp: l2tp::Config::default(),
            ppp: ppp::ServerConfig::default(),
            report_interval: Duration::from_secs(60),
        };
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
            gone: false,
        }
    }

    /// Lets time pass until nothing happens for a while or `until` says enough.
    fn run(&mut self, limit: Duration, until: impl Fn(&Self) -> bool) {
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
    fn step(&mut self) -> bool {
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
                    Done::Admit(id, candidate) => self.machine.handle_verified(
                        self.now,
                        id,
                        candidate.certificate.display_name(),
                        candidate.certificate.serial.to_string(),
                    ),
                }
            }
            Output::Authenticate(question, request) => {
                let decision = decide(&request);
                self.machine.handle_decision(self.now, question, Ok(decision));
            }
            Output::Report(Report::Attempt(a)) => self.attempts.push(*a),
            Output::Report(Report::Session(s)) => self.sessions.push(s),
        }
    }

    /// Sends a packet from inside to the client.
    fn from_inside(&mut self, packet: &[u8]) {
        let mut frame = packet.to_vec();
        let mut control = Vec::<FromData>::new();
        self.fast.outbound(&mut frame, false, &mut self.transmit, &mut self.outside, &mut self.inside, &mut control);
    }

    fn is_up(&self) -> bool {
        self.events.iter().any(|e| matches!(e, Event::Up { .. }))
    }

    fn is_down(&self) -> bool {
        self.events.iter().any(|e| matches!(e, Event::Down { .. }))
    }

    fn connect(&mut self) {
        self.run(Duration::from_secs(60), |w| w.is_up() || w.is_down());
        assert!(self.is_up(), "{:?} {:?}", self.events, self.attempts);
    }

    /// One packet each way, whole and unchanged.
    fn exchange(&mut self) {
        let (to, from) = (ipv4(LEASE, SERVER, b"up"), ipv4(SERVER, LEASE, b"down"));
        self.client.handle_inside(&to);
        self.run(Duration::ZERO, |_| false);
        assert_eq!(self.inside.0.pop(), Some(to));
        self.from_inside(&from);
        self.run(Duration::ZERO, |_| false);
        assert_eq!(self.delivered.pop(), Some(from));
    }
}

/// What a controller with one user decides.
fn decide(request: &v1::AuthenticateRequest) -> v1::authenticate_response::Decision {
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
fn ipv4(from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
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

#[test]
fn a_laptop_with_an_ecdsa_certificate_connects_and_data_pass_both_ways() {
    let pki = Pki::new("Root");
    let mut w = World::new(&pki, settings(pki.laptop(KeyAlgorithm::EcdsaP256), "wonderland", true));
    w.connect();
    let reached: Vec<Phase> = w
        .events
        .iter()
        .filter_map(|e| match e {
            Event::Reached { phase, .. } => Some(*phase),
            _ => None,
        })
        .collect();
    use Phase::*;
    assert_eq!(reached, [IkeSa, IpsecSa, L2tpTunnel, L2tpSession, PppLcp, PppAuth, PppIp]);
    w.exchange();
    assert_eq!(w.machine.vitals().live_sessions, 1);
    assert_eq!(w.attempts.len(), 0);
}

#[test]
fn a_laptop_with_an_rsa_certificate_connects_in_udp() {
    let pki = Pki::new("Root");
    let mut w = World::new(&pki, settings(pki.laptop(KeyAlgorithm::Rsa2048), "wonderland", false));
    w.connect();
    w.exchange();
}

#[test]
fn a_laptop_with_the_pre_shared_key_connects() {
    let pki = Pki::new("Root");
    let auth = Auth::PreSharedKey(Zeroizing::new(PSK.to_vec()));
    let mut w = World::new(&pki, settings(auth, "wonderland", true));
    w.connect();
    w.exchange();
}

#[test]
fn hanging_up_ends_session_tunnel_and_peer() {
    let pki = Pki::new("Root");
    let mut w = World::new(&pki, settings(pki.laptop(KeyAlgorithm::EcdsaP256), "wonderland", true));
    w.connect();
    w.client.disconnect(w.now);
    w.run(Duration::from_secs(30), World::is_down);
    assert!(w.is_down());
    w.run(Duration::from_secs(1), |_| false);
    let last = w.sessions.last().unwrap();
    assert_eq!((last.state(), last.end_reason()), (v1::SessionState::Down, v1::EndReason::Client));
    assert_eq!(w.machine.vitals().live_sessions, 0);
    assert_eq!(w.machine.peers(), 0);
}

#[test]
fn a_laptop_that_vanishes_is_found_dead_and_its_session_ends() {
    let pki = Pki::new("Root");
    let mut w = World::new(&pki, settings(pki.laptop(KeyAlgorithm::EcdsaP256), "wonderland", true));
    w.connect();
    w.gone = true;
    w.run(Duration::from_secs(600), |w| w.sessions.last().is_some_and(|s| s.state() == v1::SessionState::Down));
    let last = w.sessions.last().unwrap();
    assert_eq!((last.state(), last.end_reason()), (v1::SessionState::Down, v1::EndReason::PeerSilent));
    w.run(Duration::from_secs(600), |w| w.machine.peers() == 0);
    assert_eq!(w.machine.peers(), 0);
}

#[test]
fn a_wrong_password_is_refused_with_its_cause_and_the_gateway_goes_on() {
    let pki = Pki::new("Root");
    let mut w = World::new(&pki, settings(pki.laptop(KeyAlgorithm::EcdsaP256), "looking-glass", true));
    w.run(Duration::from_secs(60), |w| !w.attempts.is_empty() && w.is_down());
    assert!(!w.is_up());
    assert_eq!(w.attempts.len(), 1, "{:?}", w.attempts);
    assert_eq!(w.attempts[0].phase(), v1::Phase::Authentication);
    assert_eq!(w.attempts[0].cause, "wrong password");
    assert_eq!(w.attempts[0].user, "alice");
    w.client = Client::connect(
        settings(pki.laptop(KeyAlgorithm::EcdsaP256), "wonderland", true),
        [3; 32],
        w.now,
        Clock::unix(),
    );
    w.events.clear();
    w.connect();
    w.exchange();
}

#[test]
fn a_certificate_of_a_strange_authority_is_refused_as_such() {
    let (pki, strange) = (Pki::new("Root"), Pki::new("Somebody Else"));
    let mut w = World::new(&pki, settings(strange.laptop(KeyAlgorithm::EcdsaP256), "wonderland", true));
    w.run(Duration::from_secs(120), |w| !w.attempts.is_empty());
    assert_eq!(w.attempts.len(), 1, "{:?} {:?}", w.attempts, w.events);
    assert_eq!(w.attempts[0].phase(), v1::Phase::IkeMainMode);
}

#[test]
fn a_wrong_pre_shared_key_is_refused_as_such() {
    let pki = Pki::new("Root");
    let auth = Auth::PreSharedKey(Zeroizing::new(b"another secret".to_vec()));
    let mut w = World::new(&pki, settings(auth, "wonderland", true));
    w.run(Duration::from_secs(120), |w| !w.attempts.is_empty());
    assert_eq!(w.attempts.len(), 1);
    assert!(w.attempts[0].cause.contains("pre-shared key"), "{}", w.attempts[0].cause);
}

#[test]
fn a_rekey_of_the_esp_sa_loses_no_packet() {
    let pki = Pki::new("Root");
    let mut w = World::new(&pki, settings(pki.laptop(KeyAlgorithm::EcdsaP256), "wonderland", true));
    w.connect();
    w.exchange();
    // Eight hours pass: both phases are rekeyed more than once.
    for _ in 0..48 {
        let until = w.now + Duration::from_secs(1_200);
        w.run(Duration::from_secs(1_200), move |w| w.now >= until);
        w.exchange();
    }
    assert!(w.events.iter().filter(|e| matches!(e, Event::Rekeyed)).count() >= 1, "{:?}", w.events);
    assert!(!w.is_down(), "{:?}", w.events.last());
}
