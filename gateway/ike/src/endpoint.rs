//! The endpoint.
use std::net::SocketAddr;

use sallyport_base::{Instant, PeerId};
use sallyport_crypto::dh::DhGroup;
use sallyport_crypto::suite::EspSuite;

use crate::config::{Config, CredentialId};
use crate::output::{Answer, JobId, Output};
use crate::payload::Identification;
use crate::proposal::Phase1Transform;
use crate::stats::Stats;

/// How we authenticate to the gateway that we connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectAuth {
    /// With the pre-shared key that [`Job::PreSharedKey`](crate::Job) gives.
    PreSharedKey,
    /// With this credential of [`Config::credentials`].
    Certificate(CredentialId),
}

/// A connection to make, as initiator: main mode, then one ESP SA for L2TP.
#[derive(Clone, Debug)]
pub struct Connect {
    /// Our address and the IKE port; the address must be a real one, not 0.0.0.0.
    pub local: SocketAddr,
    /// The gateway's address and IKE port.
    pub remote: SocketAddr,
    /// How we authenticate.
    pub auth: ConnectAuth,
    /// Our identity; `None` is the credential's, or our address.
    pub identity: Option<Identification>,
    /// UDP port of our L2TP, 0 for any.
    pub client_port: u16,
    /// Phase 1 proposals, best first; empty is what the configuration allows.
    pub phase1: Vec<Phase1Transform>,
    /// ESP proposals, best first; empty is what the configuration allows.
    pub esp: Vec<EspSuite>,
    /// Perfect forward secrecy with this group.
    pub pfs: Option<DhGroup>,
}

/// IKEv1 for all peers of one gateway or client.
#[derive(Debug)]
pub struct Endpoint {
    config: Config,
    stats: Stats,
}

impl Endpoint {
    /// An endpoint without peers. `seed` is 32 bytes from the operating system's generator.
    pub fn new(config: Config, seed: [u8; 32], now: Instant) -> Self {
        let _ = (seed, now);
        Self { config, stats: Stats::default() }
    }

    /// The settings in force.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Replaces the settings for what begins from now on.
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
    }

    /// Counters.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Takes a datagram that came to `local` from `remote`, without the non-ESP marker if there was one.
    ///
    /// `local` is the address that it was sent to, never 0.0.0.0: replies leave from it, and NAT detection uses it.
    pub fn handle_datagram(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr, datagram: &[u8]) {
        let _ = (now, local, remote, datagram);
    }

    /// Connects to a gateway. The peer's number is valid from here on; a failure is one [`Event::Refused`](crate::Event)
    /// that names it (and no `PeerDown`, if `PeerUp` was not reached).
    pub fn connect(&mut self, now: Instant, connect: Connect) -> PeerId {
        let _ = (now, connect);
        PeerId(0)
    }

    /// Takes the answer to a job.
    pub fn handle_answer(&mut self, now: Instant, id: JobId, answer: Answer) {
        let _ = (now, id, answer);
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }

    /// The next output; call until `None` after every call that takes `now`.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }

    /// When `handle_timeout` is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Authenticated ESP traffic came from the peer: it lives (RFC 3706 §5). Cheap; once a second is plenty.
    pub fn note_inbound(&mut self, now: Instant, peer: PeerId) {
        let _ = (now, peer);
    }

    /// Authenticated ESP traffic came from another address than the peer's: its NAT has a new mapping (RFC 3947 §5).
    /// IKE follows, and `PeerMoved` is reported.
    pub fn note_moved(&mut self, now: Instant, peer: PeerId, local: SocketAddr, remote: SocketAddr) {
        let _ = (now, peer, local, remote);
    }

    /// The data plane reached the soft limit of an ESP SA (packets or bytes): replace it.
    pub fn child_expiring(&mut self, now: Instant, spi_in: u32) {
        let _ = (now, spi_in);
    }

    /// Ends everything with a peer and tells it so.
    pub fn disconnect(&mut self, now: Instant, peer: PeerId, reason: &str) {
        let _ = (now, peer, reason);
    }
}
