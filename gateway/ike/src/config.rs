//! Settings, as types that the shell fills in from its own configuration.

use core::time::Duration;
use std::net::IpAddr;

use sallyport_crypto::cbc::CbcAlg;
use sallyport_crypto::dh::DhGroup;
use sallyport_crypto::hash::HashAlg;
use sallyport_crypto::sign::SignatureMethod;
use sallyport_crypto::suite::EspSuite;

use crate::payload::Identification;
use crate::timer;

/// What an [`Endpoint`](crate::Endpoint) accepts, offers and tolerates.
///
/// The default accepts what the built-in clients of Windows, current Linux and ChromeOS propose. It has no credential,
/// so it authenticates nobody until [`Config::credentials`] or [`Config::pre_shared_key`] is set.
#[derive(Clone, Debug)]
pub struct Config {
    /// Encryption of phase 1, the preferred first (the order counts as initiator only).
    pub ciphers: Vec<CbcAlg>,
    /// Hashes of phase 1.
    pub hashes: Vec<HashAlg>,
    /// Groups of phase 1 and of PFS in phase 2.
    pub groups: Vec<DhGroup>,
    /// Whether pre-shared keys are accepted: the key itself is asked for with [`Job::PreSharedKey`](crate::Job).
    pub pre_shared_key: bool,
    /// Our certificates. A signature method is accepted if there is a credential for it.
    pub credentials: Vec<Credential>,
    /// DER subject names of the roots that we accept: one CERTREQ each (if they fit; else one empty CERTREQ).
    pub trusted_issuers: Vec<Vec<u8>>,
    /// Our identity with a pre-shared key; `None` is the address that the client dialled.
    pub psk_identity: Option<Identification>,
    /// Suites of ESP, the preferred first (the order counts as initiator only).
    pub esp_suites: Vec<EspSuite>,
    /// Addresses that clients dial and that are not this machine's own (a load balancer's, a NAT's): they count as ours
    /// in NAT detection (RFC 3947 §3.2).
    pub public_addresses: Vec<IpAddr>,
    /// UDP port of IKE: 500.
    pub ike_port: u16,
    /// UDP port of IKE and ESP behind NAT: 4500 (RFC 3947 §4).
    pub nat_t_port: u16,
    /// Whether ESP as IP protocol 50 can be sent and received. Without it we say in NAT detection that the peer is
    /// behind a NAT, so that it encapsulates in UDP.
    pub native_esp: bool,
    /// Whether a peer that asks for plain transport mode although there is a NAT gets it.
    pub native_esp_through_nat: bool,
    /// UDP port of L2TP: the only thing that an ESP SA here may protect.
    pub l2tp_port: u16,
    /// Life of an ISAKMP SA that we propose.
    pub phase1_lifetime: Duration,
    /// The longest that we keep an ISAKMP SA, whatever was proposed.
    pub phase1_lifetime_max: Duration,
    /// Life of an ESP SA that we propose.
    pub phase2_lifetime: Duration,
    /// The longest that we keep an ESP SA, whatever was proposed.
    pub phase2_lifetime_max: Duration,
    /// Kilobytes of an ESP SA that we propose, and the most that one carries, whatever was proposed; the data plane
    /// keeps count.
    pub phase2_kilobytes: Option<u32>,
    /// Silence after which a peer that announced DPD is asked (RFC 3706); zero is never.
    pub dpd_delay: Duration,
    /// Silence after which a peer that does not answer is gone.
    pub dpd_timeout: Duration,
    /// Time from the first message of an exchange to its end, after which it has failed.
    pub exchange_timeout: Duration,
    /// First wait before a message of ours is repeated; it doubles each time.
    pub retransmit_first: Duration,
    /// How often a message of ours is repeated.
    pub retransmit_tries: u8,
    /// Life of a peer that has authenticated and has no ESP SA.
    pub idle_peer_timeout: Duration,
    /// Pause between NAT keepalives while we are behind a NAT and port 4500 is in use (RFC 3948 §4); zero is never.
    pub nat_keepalive: Duration,
    /// Largest message that is sent whole to a peer that takes fragments, in bytes.
    pub fragment_above: usize,
    /// Slot of this gateway: the first 12 bits of its cookies and SPIs, 0 to 4095.
    pub slot: u16,
    /// Bounds.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ciphers: vec![CbcAlg::Aes256, CbcAlg::Aes128, CbcAlg::Aes192],
            hashes: vec![HashAlg::Sha256, HashAlg::Sha384, HashAlg::Sha512, HashAlg::Sha1],
            groups: vec![DhGroup::Ecp384, DhGroup::Ecp256, DhGroup::Modp2048, DhGroup::Modp3072, DhGroup::Modp4096],
            pre_shared_key: false,
            credentials: Vec::new(),
            trusted_issuers: Vec::new(),
            psk_identity: None,
            esp_suites: vec![
                EspSuite::AES256_GCM16,
                EspSuite::AES128_GCM16,
                EspSuite::AES256_CBC_SHA256,
                EspSuite::AES128_CBC_SHA256,
                EspSuite::AES256_CBC_SHA1,
                EspSuite::AES128_CBC_SHA1,
            ],
            public_addresses: Vec::new(),
            ike_port: 500,
            nat_t_port: 4500,
            native_esp: true,
            native_esp_through_nat: false,
            l2tp_port: 1701,
            phase1_lifetime: timer::PHASE1_LIFETIME,
            phase1_lifetime_max: timer::LIFETIME_MAX,
            phase2_lifetime: timer::PHASE2_LIFETIME,
            phase2_lifetime_max: timer::LIFETIME_MAX,
            phase2_kilobytes: None,
            dpd_delay: timer::DPD_DELAY,
            dpd_timeout: timer::DPD_TIMEOUT,
            exchange_timeout: timer::EXCHANGE_TIMEOUT,
            retransmit_first: timer::RETRANSMIT_FIRST,
            retransmit_tries: timer::RETRANSMIT_TRIES,
            idle_peer_timeout: timer::IDLE_PEER_TIMEOUT,
            nat_keepalive: timer::NAT_KEEPALIVE,
            fragment_above: 1280,
            slot: 0,
            limits: Limits::default(),
        }
    }
}

/// A certificate of ours. The private key stays with the shell, which signs when asked with
/// [`Job::Sign`](crate::Job).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// What the shell knows it by.
    pub id: CredentialId,
    /// The signature method of its key.
    pub method: SignatureMethod,
    /// DER certificates: our own first, then the intermediates.
    pub chain: Vec<Vec<u8>>,
    /// DER names of the authorities above it, up to the root: matched against the peer's CERTREQs.
    pub issuers: Vec<Vec<u8>>,
    /// Our identity with this certificate. A name (ID_FQDN) that stands in its subjectAltName suits every client.
    pub identity: Identification,
}

/// Names a [`Credential`] to the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CredentialId(pub u32);

/// Bounds of every table. What a limit cuts off is counted in [`Stats`](crate::Stats).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// First messages that were answered and whose sender has not shown yet that it can hear us. The oldest makes room,
    /// so a flood shortens the time that a client has for its next message and never shuts it out.
    pub embryonic: usize,
    /// The same, from one address (IPv6: one /64).
    pub embryonic_per_source: usize,
    /// Bytes that the proposals of these first messages may take together.
    pub embryonic_bytes: usize,
    /// Handshakes whose peer has repeated our cookie. The oldest makes room.
    pub half_open: usize,
    /// The same, from one address (IPv6: one /64); more are not begun.
    pub half_open_per_source: usize,
    /// Peers that have authenticated.
    pub peers: usize,
    /// ESP SAs of one peer; the oldest makes room.
    pub children_per_peer: usize,
    /// Quick modes of one ISAKMP SA that are under way or whose reply is kept.
    pub exchanges_per_sa: usize,
    /// Jobs that the shell has not answered.
    pub jobs: usize,
    /// Messages that are being put together from fragments; the oldest makes room.
    pub reassemblies: usize,
    /// Refusals of strangers (nothing authenticated) that are reported in a burst.
    pub refusal_burst: u32,
    /// Refusals of strangers that are reported per second thereafter; the others are counted and the count is reported.
    pub refusals_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            embryonic: 32_768,
            embryonic_per_source: 256,
            embryonic_bytes: 16 << 20,
            half_open: 4_096,
            half_open_per_source: 64,
            peers: 131_072,
            children_per_peer: 8,
            exchanges_per_sa: 16,
            jobs: 8_192,
            reassemblies: 1_024,
            refusal_burst: 64,
            refusals_per_second: 4,
        }
    }
}
