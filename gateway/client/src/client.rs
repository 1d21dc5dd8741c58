//! The client: IKE, ESP, L2TP and PPP stacked as initiator.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};

use sallyport_base::{Instant, PeerId};
use sallyport_ca::UnixTime;
use sallyport_ca::verify::{CertPayload, IkeId, PeerRole, verify_peer};
use sallyport_crypto::Rng;
use sallyport_crypto::sign::verify_ikev1;
use sallyport_esp::{KEEPALIVE, NON_ESP_MARKER, UdpEncap, classify};
use sallyport_ike as ike;
use sallyport_l2tp as l2tp;
use sallyport_ppp as ppp;
use tracing::debug;

use crate::settings::{Auth, Certificate, Settings};
use crate::tunnel::{Inner, Sealed, Tunnel};

/// UDP port of L2TP inside ESP.
const L2TP_PORT: u16 = 1701;
/// PPP protocol number of IPv4.
const IPV4: u16 = 0x0021;

/// A phase of the connection, in the order in which they are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// IKE phase 1: the machines know each other.
    IkeSa,
    /// IKE phase 2: ESP is up.
    IpsecSa,
    /// The L2TP control connection.
    L2tpTunnel,
    /// The L2TP session.
    L2tpSession,
    /// LCP is open.
    PppLcp,
    /// The user is authenticated.
    PppAuth,
    /// There is an address.
    PppIp,
}

impl Phase {
    /// The name in lists.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IkeSa => "IKE SA",
            Self::IpsecSa => "IPsec SA",
            Self::L2tpTunnel => "L2TP tunnel",
            Self::L2tpSession => "L2TP session",
            Self::PppLcp => "PPP link",
            Self::PppAuth => "PPP authentication",
            Self::PppIp => "PPP address",
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A phase was reached.
    Reached {
        /// Which.
        phase: Phase,
        /// What was agreed, in words.
        detail: String,
    },
    /// Data may flow.
    Up {
        /// Our address.
        address: Ipv4Addr,
        /// The gateway's.
        gateway: Ipv4Addr,
        /// Name servers.
        dns: Vec<Ipv4Addr>,
        /// Largest packet.
        mtu: u16,
    },
    /// An ESP SA took the place of an older one.
    Rekeyed,
    /// The connection is over or never came up. The last event.
    Down {
        /// Why, in words.
        cause: String,
        /// What to change, if it failed.
        remedy: Option<String>,
    },
}

/// What there is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this datagram from our UDP port.
    Udp {
        /// From.
        local: SocketAddr,
        /// To.
        remote: SocketAddr,
        /// The payload, with whatever marker belongs in front.
        bytes: Vec<u8>,
    },
    /// Send this as IP protocol 50.
    Esp {
        /// From.
        local: SocketAddr,
        /// To.
        remote: SocketAddr,
        /// The ESP packet.
        bytes: Vec<u8>,
    },
    /// An IPv4 packet came through the tunnel.
    Inside(Vec<u8>),
    /// Something happened.
    Event(Event),
}

/// One connection.
pub struct Client {
    auth: Auth,
    nat_t_port: u16,
    ppp_config: ppp::ClientConfig,
    peer: PeerId,
    ike: ike::Endpoint,
    l2tp: l2tp::Endpoint,
    link: Option<ppp::Link>,
    tunnel: Tunnel,
    up: Option<&'static [u8]>,
    rng: Rng,
    /// Wall time at monotonic zero, for the validity of certificates.
    epoch: UnixTime,
    refusal: Option<(String, String)>,
    children: usize,
    /// We hang up: PPP, then L2TP, then IKE.
    leaving: bool,
    down: bool,
    out: VecDeque<Output>,
}

impl Client {
    /// Begins to connect. `seed` is 32 bytes from the system's generator, `wall` the wall time at `now`.
    pub fn connect(settings: Settings, seed: [u8; 32], now: Instant, wall: UnixTime) -> Self {
        let mut rng = Rng::from_seed(seed);
        let mut config = ike::Config {
            ike_port: settings.ports.0,
            nat_t_port: settings.ports.1,
            native_esp: settings.native_esp,
            ..ike::Config::default()
        };
        replace(&mut config.esp_suites, settings.esp);
        replace(&mut config.groups, settings.groups);
        replace(&mut config.hashes, settings.hashes);
        let auth = match &settings.auth {
            Auth::Certificate(c) => {
                let roots: Vec<Vec<u8>> = c.trust.subject_names().map(<[u8]>::to_vec).collect();
                config.trusted_issuers.clone_from(&roots);
                config.credentials = vec![ike::Credential {
                    id: ike::CredentialId(0),
                    method: c.key.method(),
                    chain: c.chain.clone(),
                    issuers: roots,
                    identity: c.identity.clone(),
                }];
                ike::ConnectAuth::Certificate(ike::CredentialId(0))
            }
            Auth::PreSharedKey(_) => {
                config.pre_shared_key = true;
                ike::ConnectAuth::PreSharedKey
            }
        };
        let mut ike = ike::Endpoint::new(config, rng.bytes(), now);
        let peer = ike.connect(
            now,
            ike::Connect {
                local: SocketAddr::new(settings.local, settings.ports.0),
                remote: SocketAddr::new(settings.gateway, settings.ports.0),
                auth,
                identity: None,
                client_port: L2TP_PORT,
                phase1: Vec::new(),
                esp: Vec::new(),
                pfs: None,
            },
        );
        let mut ppp_config = ppp::ClientConfig::new(&settings.user, &settings.password);
        ppp_config.methods.clone_from(&settings.methods);
        let since = i64::try_from(now.as_micros() / 1_000_000).unwrap_or(0);
        let mut this = Self {
            auth: settings.auth,
            nat_t_port: settings.ports.1,
            ppp_config,
            peer,
            l2tp: l2tp::Endpoint::new(l2tp::Config::client("sallyport-client"), rng.bytes(), now),
            ike,
            link: None,
            tunnel: Tunnel::default(),
            up: None,
            rng,
            epoch: UnixTime(wall.0 - since),
            refusal: None,
            children: 0,
            leaving: false,
            down: false,
            out: VecDeque::new(),
        };
        this.pump(now);
        this
    }

    /// A datagram that arrived at `local` (our UDP port) from `remote`.
    pub fn handle_udp(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr, datagram: &mut [u8]) {
        if local.port() == self.nat_t_port {
            match classify(datagram) {
                UdpEncap::Ike(message) => self.ike.handle_datagram(now, local, remote, message),
                UdpEncap::Esp(_) => return self.handle_esp(now, datagram),
                UdpEncap::Keepalive | UdpEncap::Malformed => {}
            }
        } else {
            self.ike.handle_datagram(now, local, remote, datagram);
        }
        self.pump(now);
    }

    /// An ESP packet, from its SPI on.
    pub fn handle_esp(&mut self, now: Instant, packet: &mut [u8]) {
        let Some(inner) = self.tunnel.open(packet) else { return };
        self.ike.note_inbound(now, self.peer);
        match inner {
            Inner::Control(message) => self.l2tp.handle_control(now, self.peer, L2TP_PORT, &message),
            Inner::Frame(frame) => match (ppp::strip(&frame), self.up) {
                (Some((IPV4, packet)), Some(_)) => {
                    self.out.push_back(Output::Inside(packet.to_vec()));
                    if let Some(link) = &mut self.link {
                        link.note_inbound(now);
                    }
                }
                _ => {
                    if let Some(link) = &mut self.link {
                        link.handle_frame(now, &frame);
                    }
                }
            },
        }
        self.pump(now);
    }

    /// An IPv4 packet to send through the tunnel; dropped while the tunnel is not up.
    pub fn handle_inside(&mut self, packet: &[u8]) {
        let Some(header) = self.up else { return };
        let sealed = self.tunnel.seal_frame(&[header, packet]);
        self.send(sealed);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.ike.handle_timeout(now);
        self.l2tp.handle_timeout(now);
        if let Some(link) = &mut self.link {
            link.handle_timeout(now);
        }
        self.pump(now);
    }

    /// When [`Client::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let link = self.link.as_ref().and_then(ppp::Link::poll_timeout);
        [self.ike.poll_timeout(), self.l2tp.poll_timeout(), link].into_iter().flatten().min()
    }

    /// The next thing to do; drain after each call.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// Hangs up in order: PPP, L2TP, IKE. [`Event::Down`] follows.
    pub fn disconnect(&mut self, now: Instant) {
        self.leaving = true;
        match &mut self.link {
            Some(link) => link.close(now, ppp::CloseReason::User),
            None => self.hang_up(now),
        }
        self.pump(now);
    }

    /// Replaces the ESP SA by a new quick mode.
    pub fn rekey(&mut self, now: Instant, spi_in: u32) {
        self.ike.child_expiring(now, spi_in);
        self.pump(now);
    }

    /// L2TP and IKE say goodbye.
    fn hang_up(&mut self, now: Instant) {
        self.link = None;
        self.up = None;
        self.l2tp.shutdown(now);
        while let Some(output) = self.l2tp.poll_output() {
            self.handle_l2tp(now, output);
        }
        self.ike.disconnect(now, self.peer, "the user disconnects");
    }

    fn pump(&mut self, now: Instant) {
        loop {
            if let Some(output) = self.ike.poll_output() {
                self.handle_ike(now, output);
            } else if let Some(output) = self.l2tp.poll_output() {
                self.handle_l2tp(now, output);
            } else if let Some(output) = self.link.as_mut().and_then(ppp::Link::poll_output) {
                self.handle_ppp(now, output);
            } else {
                break;
            }
        }
    }

    fn reached(&mut self, phase: Phase, detail: String) {
        self.out.push_back(Output::Event(Event::Reached { phase, detail }));
    }

    fn failed(&mut self, cause: String, remedy: String) {
        self.refusal.get_or_insert((cause, remedy));
    }

    fn end(&mut self, why: String) {
        if self.down {
            return;
        }
        self.down = true;
        let (cause, remedy) = match self.refusal.take() {
            Some((cause, remedy)) => (cause, Some(remedy)),
            None => (why, None),
        };
        self.out.push_back(Output::Event(Event::Down { cause, remedy }));
    }

    fn send(&mut self, sealed: Option<Sealed>) {
        let Some(Sealed { local, remote, encap, bytes }) = sealed else { return };
        self.out.push_back(if encap {
            Output::Udp { local, remote, bytes }
        } else {
            Output::Esp { local, remote, bytes }
        });
    }

    fn handle_ike(&mut self, now: Instant, output: ike::Output) {
        match output {
            ike::Output::Transmit { local, remote, bytes } => {
                let bytes =
                    if local.port() == self.nat_t_port { [&NON_ESP_MARKER[..], &bytes].concat() } else { bytes };
                self.out.push_back(Output::Udp { local, remote, bytes });
            }
            ike::Output::Keepalive { local, remote } => {
                self.out.push_back(Output::Udp { local, remote, bytes: KEEPALIVE.to_vec() });
            }
            ike::Output::Job { id, job } => {
                let answer = self.work(now, job);
                self.ike.handle_answer(now, id, answer);
            }
            ike::Output::Event(event) => self.handle_ike_event(now, event),
        }
    }

    fn work(&mut self, now: Instant, job: ike::Job) -> ike::Answer {
        let job = match job.compute(&mut self.rng) {
            Ok(answer) => return answer,
            Err(job) => job,
        };
        match (job, &self.auth) {
            (ike::Job::Sign { hash, .. }, Auth::Certificate(c)) => match c.key.sign_ikev1(&hash, &mut self.rng) {
                Ok(signature) => ike::Answer::Signature(signature),
                Err(e) => ike::Answer::Failed(e.to_string()),
            },
            (ike::Job::Verify(verify), Auth::Certificate(c)) => {
                let wall = UnixTime(self.epoch.0 + i64::try_from(now.as_micros() / 1_000_000).unwrap_or(0));
                match check_gateway(c, &verify, wall) {
                    Ok(name) => ike::Answer::Verified(ike::Verified { name, token: 0 }),
                    Err((cause, remedy)) => ike::Answer::Refused(ike::VerifyRefusal { name: None, cause, remedy }),
                }
            }
            (ike::Job::PreSharedKey { .. }, Auth::PreSharedKey(key)) => ike::Answer::PreSharedKey(Some(key.clone())),
            _ => ike::Answer::Failed("the client has no such credential".into()),
        }
    }

    fn handle_ike_event(&mut self, now: Instant, event: ike::Event) {
        match event {
            ike::Event::PeerUp(up) => {
                let nat = if up.behind_nat { ", behind NAT" } else { "" };
                self.reached(Phase::IkeSa, format!("{} as {}{nat}", up.transform, up.name));
            }
            ike::Event::ChildUp(child) => {
                self.tunnel.install(&child, &mut self.rng);
                self.children += 1;
                if self.children > 1 {
                    self.out.push_back(Output::Event(Event::Rekeyed));
                    return;
                }
                let encap = if child.udp_encap { ", in UDP" } else { "" };
                self.reached(Phase::IpsecSa, format!("{}{encap}", child.suite));
                if self.l2tp.connect(now, self.peer).is_err() {
                    self.end("no room for a tunnel".into());
                }
            }
            ike::Event::ChildPrepared(child) => self.tunnel.install(&child, &mut self.rng),
            ike::Event::ChildDown { spi_in, reason, .. } => {
                debug!(spi_in, %reason, "ESP SA down");
                self.tunnel.remove(spi_in);
            }
            ike::Event::PeerDown { reason, .. } => {
                self.l2tp.peer_gone(now, self.peer);
                self.link = None;
                self.up = None;
                self.end(if self.leaving { "disconnected".into() } else { reason.to_string() });
            }
            ike::Event::Refused(r) => {
                self.failed(format!("{}: {}", r.phase, r.cause), r.remedy);
                self.end(String::new());
            }
            ike::Event::PeerRekeyed { .. } | ike::Event::PeerMoved { .. } => {}
        }
    }

    fn handle_l2tp(&mut self, now: Instant, output: l2tp::Output) {
        match output {
            l2tp::Output::Transmit(t) => {
                let sealed = self.tunnel.seal_control(&t.bytes);
                self.send(sealed);
            }
            l2tp::Output::Event(l2tp::Event::TunnelUp(t)) => {
                self.reached(Phase::L2tpTunnel, format!("{} to {} ({})", t.local_tunnel, t.peer_tunnel, t.host_name));
            }
            l2tp::Output::Event(l2tp::Event::SessionUp(s)) => {
                self.reached(Phase::L2tpSession, format!("{} to {}", s.local_session, s.peer_session));
                self.tunnel.set_session(Some(s));
                self.link = Some(ppp::Link::client(self.ppp_config.clone(), self.rng.bytes(), now));
            }
            l2tp::Output::Event(l2tp::Event::SessionDown(down)) => {
                self.tunnel.set_session(None);
                self.up = None;
                if !self.leaving {
                    self.refusal.get_or_insert((down.reason.to_string(), "ask the operator of the gateway".into()));
                    self.hang_up(now);
                }
            }
            l2tp::Output::Event(l2tp::Event::TunnelDown(_)) => {}
            l2tp::Output::Event(l2tp::Event::Refused(r)) => {
                self.failed(format!("{}: {}", r.phase, r.cause), r.remedy);
                self.hang_up(now);
            }
        }
    }

    fn handle_ppp(&mut self, now: Instant, output: ppp::Output) {
        match output {
            ppp::Output::Frame(frame) => {
                let sealed = self.tunnel.seal_frame(&[&frame]);
                self.send(sealed);
            }
            // Only an authenticator has questions.
            ppp::Output::Question(..) => {}
            ppp::Output::Event(event) => match event {
                ppp::Event::LcpUp(up) => self.reached(Phase::PppLcp, format!("MRU {}", up.peer_mru)),
                ppp::Event::Authenticated { user, method } => {
                    let method = method.map_or("no authentication", ppp::AuthMethod::name);
                    self.reached(Phase::PppAuth, format!("{user} by {method}"));
                }
                ppp::Event::NetworkUp(up) => {
                    self.up = Some(up.ipv4_header);
                    self.reached(Phase::PppIp, up.local.to_string());
                    let dns = up.dns.into_iter().flatten().collect();
                    let (address, gateway, mtu) = (up.local, up.peer, up.mtu);
                    self.out.push_back(Output::Event(Event::Up { address, gateway, dns, mtu }));
                }
                ppp::Event::Refused(r) => self.failed(format!("{}: {}", r.phase, r.cause), r.remedy),
                ppp::Event::Down { reason } => {
                    self.up = None;
                    debug!(%reason, "PPP down");
                    if !self.leaving {
                        self.refusal.get_or_insert((reason.to_string(), "ask the operator of the gateway".into()));
                    }
                }
                ppp::Event::Finished => {
                    self.leaving = true;
                    self.hang_up(now);
                }
                ppp::Event::PeerIdentified(_) | ppp::Event::AuthenticationRetry { .. } => {}
            },
        }
    }
}

fn replace<T>(list: &mut Vec<T>, with: Vec<T>) {
    if !with.is_empty() {
        *list = with;
    }
}

/// Chain, name and signature of the gateway; the error is cause and remedy.
fn check_gateway(own: &Certificate, verify: &ike::Verify, now: UnixTime) -> Result<String, (String, String)> {
    let payloads: Vec<CertPayload<'_>> =
        verify.certificates.iter().map(|(encoding, data)| CertPayload { encoding: encoding.0, data }).collect();
    let id = IkeId { id_type: verify.id.id_type.0, data: &verify.id.data };
    let found = verify_peer(&own.trust, &payloads, Some(id), PeerRole::Gateway, now)
        .map_err(|e| (format!("the gateway's certificate: {}", e.cause()), e.remedy()))?;
    if let Some(wanted) = &own.gateway_name
        && !found
            .alt_names
            .iter()
            .any(|n| matches!(n, sallyport_ca::AltName::Dns(name) if name.eq_ignore_ascii_case(wanted)))
    {
        let cause = format!("the gateway's certificate is for {}, not for {wanted}", found.display_name());
        return Err((cause, "dial a name that stands in the certificate, or add the name to it".into()));
    }
    verify_ikev1(&found.spki_der, verify.method, &verify.hash, &verify.signature).map_err(|e| {
        (format!("the gateway's signature: {e}"), "the gateway's key and certificate do not match".into())
    })?;
    Ok(found.display_name())
}
