//! The gateway's part of the configuration file: settings become types that cannot be wrong.
//!
//! Each key has a default that serves a site which sets nothing. A wrong key or value is an error of the parser, which
//! names the line; a contradiction between keys is found by [`GatewayConfig::validate`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A time in whole seconds within `MIN..=MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Seconds<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Seconds<MIN, MAX> {
    /// The same as a duration.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }

    /// The number of seconds.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl<const MIN: u64, const MAX: u64> TryFrom<u64> for Seconds<MIN, MAX> {
    type Error = String;
    fn try_from(v: u64) -> Result<Self, String> {
        if (MIN..=MAX).contains(&v) { Ok(Self(v)) } else { Err(format!("{v} seconds: allowed are {MIN} to {MAX}")) }
    }
}

impl<const MIN: u64, const MAX: u64> From<Seconds<MIN, MAX>> for u64 {
    fn from(v: Seconds<MIN, MAX>) -> Self {
        v.0
    }
}

/// A whole number within `MIN..=MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Bounded<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Bounded<MIN, MAX> {
    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number as a `usize`; the bounds of every use in this file fit one.
    #[allow(clippy::cast_possible_truncation)]
    pub const fn usize(self) -> usize {
        self.0 as usize
    }

    /// The number as a `u16`, cut to its range.
    pub fn u16(self) -> u16 {
        u16::try_from(self.0).unwrap_or(u16::MAX)
    }
}

impl<const MIN: u64, const MAX: u64> TryFrom<u64> for Bounded<MIN, MAX> {
    type Error = String;
    fn try_from(v: u64) -> Result<Self, String> {
        if (MIN..=MAX).contains(&v) { Ok(Self(v)) } else { Err(format!("{v}: allowed are {MIN} to {MAX}")) }
    }
}

impl<const MIN: u64, const MAX: u64> From<Bounded<MIN, MAX>> for u64 {
    fn from(v: Bounded<MIN, MAX>) -> Self {
        v.0
    }
}

/// `[gateway]`: who this gateway is, where it listens and whom it asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// The gateway's name in lists and records; empty takes the host name.
    pub name: String,
    /// The controllers' gRPC addresses, `host:port`. A standalone gateway fills this in itself.
    pub controllers: Vec<String>,
    /// Folder with `grpc.pem`, `grpc.key`, `ca.pem` and the IKE identities; empty takes `STATE/gateway`.
    pub identity: String,
    /// File with the token for the first certificates, on its first line; used while the identity's folder is empty.
    pub token_file: String,
    /// Local address for IKE and ESP; `0.0.0.0` is every IPv4 address.
    pub listen: IpAddr,
    /// Addresses that clients dial where they are not this machine's own (a load balancer's, a NAT's): they count as
    /// ours in NAT detection (RFC 3947 §3.2).
    pub public_addresses: Vec<IpAddr>,
    /// The names that clients dial: they stand in the gateway's certificate. Empty takes the gateway's name.
    pub public_names: Vec<String>,
    /// Where Prometheus reads the gateway's metrics; absent is off.
    pub metrics: Option<SocketAddr>,
    /// IKE.
    pub ike: IkeConfig,
    /// ESP.
    pub esp: EspConfig,
    /// L2TP.
    pub l2tp: L2tpConfig,
    /// PPP.
    pub ppp: PppConfig,
    /// The inside network.
    pub inside: InsideConfig,
    /// Where machines enroll.
    pub enrollment: EnrollmentConfig,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            controllers: Vec::new(),
            identity: String::new(),
            token_file: String::new(),
            listen: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            public_addresses: Vec::new(),
            public_names: Vec::new(),
            metrics: None,
            ike: IkeConfig::default(),
            esp: EspConfig::default(),
            l2tp: L2tpConfig::default(),
            ppp: PppConfig::default(),
            inside: InsideConfig::default(),
            enrollment: EnrollmentConfig::default(),
        }
    }
}

/// `[gateway.enrollment]`: where machines enroll. What comes there is carried to the controllers unread.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnrollmentConfig {
    /// HTTPS; empty is off.
    #[serde(with = "address_or_nowhere")]
    pub listen: Option<SocketAddr>,
    /// Plain HTTP, for revocation lists, OCSP and SCEP; empty is off.
    #[serde(with = "address_or_nowhere")]
    pub http_listen: Option<SocketAddr>,
    /// Most connections at once.
    pub connections: Bounded<1, 512>,
    /// The same of one source: an IPv4 address, or an IPv6 network of 64 bits.
    pub connections_per_source: Bounded<1, 512>,
}

impl EnrollmentConfig {
    /// Nowhere.
    pub fn off() -> Self {
        Self { listen: None, http_listen: None, ..Self::default() }
    }
}

impl Default for EnrollmentConfig {
    fn default() -> Self {
        let everywhere = |port| Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port));
        Self {
            listen: everywhere(443),
            http_listen: everywhere(80),
            connections: Bounded(256),
            connections_per_source: Bounded(16),
        }
    }
}

/// An address as text; the empty text is none.
mod address_or_nowhere {
    use std::net::SocketAddr;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(address: &Option<SocketAddr>, to: S) -> Result<S::Ok, S::Error> {
        match address {
            Some(address) => to.collect_str(address),
            None => to.serialize_str(""),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
        let text = String::deserialize(from)?;
        if text.is_empty() {
            return Ok(None);
        }
        let bad = |_| serde::de::Error::custom(format!("{text:?} is not an address such as 0.0.0.0:443"));
        text.parse().map(Some).map_err(bad)
    }
}

/// An encryption algorithm of IKE (IANA "IPSEC Encryption Algorithms").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IkeEncryption {
    /// AES-CBC with a 256-bit key.
    Aes256,
    /// AES-CBC with a 192-bit key.
    Aes192,
    /// AES-CBC with a 128-bit key.
    Aes128,
    /// 3DES-CBC, for machines that have nothing better.
    #[serde(rename = "3des")]
    TripleDes,
}

/// A hash of IKE (IANA "IPSEC Hash Algorithms").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IkeHash {
    /// SHA-1: all that Windows offers in IKEv1.
    Sha1,
    /// SHA2-256.
    Sha256,
    /// SHA2-384.
    Sha384,
    /// SHA2-512.
    Sha512,
}

/// A Diffie-Hellman group of IKE (IANA "Group Description").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IkeGroup {
    /// Group 2: breakable by a determined adversary; only for clients that have nothing else.
    Modp1024,
    /// Group 5.
    Modp1536,
    /// Group 14.
    Modp2048,
    /// Group 15.
    Modp3072,
    /// Group 16.
    Modp4096,
    /// Group 19.
    Ecp256,
    /// Group 20.
    Ecp384,
}

/// `[gateway.ike]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IkeConfig {
    /// UDP port of IKE.
    pub port: u16,
    /// UDP port of IKE and ESP behind NAT (RFC 3947, RFC 3948).
    pub nat_t_port: u16,
    /// Allowed encryption algorithms.
    pub encryption: Vec<IkeEncryption>,
    /// Allowed hashes.
    pub hash: Vec<IkeHash>,
    /// Allowed Diffie-Hellman groups.
    pub groups: Vec<IkeGroup>,
    /// Longest life of an ISAKMP SA, whatever the client proposes.
    pub lifetime_seconds: Seconds<300, 86_400>,
    /// Silence after which a peer is asked whether it lives (RFC 3706).
    pub dpd_delay_seconds: Seconds<1, 3_600>,
    /// Silence after which a peer that does not answer is gone.
    pub dpd_timeout_seconds: Seconds<2, 14_400>,
    /// Most handshakes under way at once.
    pub half_open: Bounded<16, 65_536>,
    /// Most handshakes under way at once from one address.
    pub half_open_per_source: Bounded<1, 4_096>,
}

impl Default for IkeConfig {
    fn default() -> Self {
        Self {
            port: 500,
            nat_t_port: 4500,
            encryption: vec![IkeEncryption::Aes256, IkeEncryption::Aes192, IkeEncryption::Aes128],
            hash: vec![IkeHash::Sha384, IkeHash::Sha256, IkeHash::Sha512, IkeHash::Sha1],
            groups: vec![
                IkeGroup::Ecp384,
                IkeGroup::Ecp256,
                IkeGroup::Modp2048,
                IkeGroup::Modp3072,
                IkeGroup::Modp4096,
            ],
            lifetime_seconds: Seconds(86_400),
            dpd_delay_seconds: Seconds(30),
            dpd_timeout_seconds: Seconds(120),
            half_open: Bounded(4_096),
            half_open_per_source: Bounded(64),
        }
    }
}

/// A suite of ESP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EspSuiteName {
    /// AES-GCM with a 256-bit key and a 16-byte ICV (RFC 4106).
    #[serde(rename = "aes256gcm16")]
    Aes256Gcm,
    /// AES-GCM with a 128-bit key and a 16-byte ICV.
    #[serde(rename = "aes128gcm16")]
    Aes128Gcm,
    /// AES-CBC, 256 bits, HMAC-SHA2-256-128 (RFC 3602, RFC 4868).
    Aes256Sha256,
    /// AES-CBC, 128 bits, HMAC-SHA2-256-128.
    Aes128Sha256,
    /// AES-CBC, 256 bits, HMAC-SHA1-96 (RFC 2404): the best of Windows.
    Aes256Sha1,
    /// AES-CBC, 128 bits, HMAC-SHA1-96.
    Aes128Sha1,
    /// 3DES-CBC with HMAC-SHA1-96: slow, old, only for machines that have nothing better.
    #[serde(rename = "3des-sha1")]
    TripleDesSha1,
}

/// `[gateway.esp]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EspConfig {
    /// Allowed suites.
    pub suites: Vec<EspSuiteName>,
    /// Longest life of an ESP SA, whatever the client proposes.
    pub lifetime_seconds: Seconds<60, 86_400>,
    /// Most kilobytes that one ESP SA carries. Near it the gateway asks for a new one, which some clients behind NAT
    /// refuse (those renew by themselves): the default is far beyond what a session carries.
    pub lifetime_kilobytes: Bounded<1_024, 4_294_967_295>,
}

impl Default for EspConfig {
    fn default() -> Self {
        use EspSuiteName::*;
        Self {
            suites: vec![Aes256Gcm, Aes128Gcm, Aes256Sha256, Aes128Sha256, Aes256Sha1, Aes128Sha1],
            lifetime_seconds: Seconds(28_800),
            lifetime_kilobytes: Bounded(4_294_967_295),
        }
    }
}

/// `[gateway.l2tp]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct L2tpConfig {
    /// Silence of the control channel after which a Hello is sent (RFC 2661 §6.5); 0 is never.
    pub hello_seconds: Seconds<0, 3_600>,
    /// Retransmissions of a control message before the tunnel is given up (RFC 2661 §5.8).
    pub retries: Bounded<3, 20>,
    /// Most tunnels at once.
    pub tunnels: Bounded<1, 65_000>,
}

impl Default for L2tpConfig {
    fn default() -> Self {
        Self { hello_seconds: Seconds(0), retries: Bounded(6), tunnels: Bounded(60_000) }
    }
}

/// `[gateway.ppp]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PppConfig {
    /// Maximum-Receive-Unit that we ask for, and the most that we send (RFC 1661 §6.1).
    pub mru: Bounded<576, 1_500>,
    /// Silence after which an LCP Echo-Request is sent; 0 is never.
    pub echo_seconds: Seconds<0, 3_600>,
    /// Unanswered Echo-Requests after which the link is gone.
    pub echo_failures: Bounded<1, 100>,
}

impl Default for PppConfig {
    fn default() -> Self {
        Self { mru: Bounded(1_400), echo_seconds: Seconds(30), echo_failures: Bounded(4) }
    }
}

/// `[gateway.inside]`: the network that clients reach.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InsideConfig {
    /// Name of the TUN device, at most 15 letters.
    pub device: String,
    /// Whether the gateway switches on IPv4 forwarding if it is off (`net.ipv4.ip_forward`).
    pub forwarding: bool,
    /// Whether clients may reach each other through the gateway.
    pub client_to_client: bool,
}

impl Default for InsideConfig {
    fn default() -> Self {
        Self { device: "sallyport0".into(), forwarding: true, client_to_client: true }
    }
}

/// A contradiction between keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("[{section}] {key}: {why}")]
pub struct ConfigError {
    /// The section of the file.
    pub section: &'static str,
    /// The key.
    pub key: &'static str,
    /// What is wrong and what is allowed.
    pub why: String,
}

impl GatewayConfig {
    /// Finds what no single key shows.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let err = |section, key, why: &str| Err(ConfigError { section, key, why: why.into() });
        if self.ike.encryption.is_empty() {
            return err("gateway.ike", "encryption", "at least one algorithm is needed");
        }
        if self.ike.hash.is_empty() {
            return err("gateway.ike", "hash", "at least one hash is needed");
        }
        if self.ike.groups.is_empty() {
            return err("gateway.ike", "groups", "at least one group is needed");
        }
        if self.esp.suites.is_empty() {
            return err("gateway.esp", "suites", "at least one suite is needed");
        }
        if self.ike.port == 0 || self.ike.port == self.ike.nat_t_port {
            return err("gateway.ike", "port", "must not be 0, nor the same as nat_t_port");
        }
        if self.ike.dpd_timeout_seconds.get() <= self.ike.dpd_delay_seconds.get() {
            return err("gateway.ike", "dpd_timeout_seconds", "must be longer than dpd_delay_seconds");
        }
        if self.enrollment.listen.is_some_and(|a| a.port() != 0)
            && self.enrollment.listen == self.enrollment.http_listen
        {
            return err("gateway.enrollment", "http_listen", "must not be the same as listen");
        }
        let device = &self.inside.device;
        if device.is_empty()
            || device.len() > 15
            || !device.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        {
            return err("gateway.inside", "device", "1 to 15 of the letters a-z, A-Z, 0-9, - and _");
        }
        if self.name.len() > 64 || self.name.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return err("gateway", "name", "at most 64 characters, without blanks");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid() {
        assert_eq!(GatewayConfig::default().validate(), Ok(()));
    }

    #[test]
    fn group_2_and_3des_are_off_unless_asked_for() {
        let c = GatewayConfig::default();
        assert!(!c.ike.groups.contains(&IkeGroup::Modp1024));
        assert!(!c.ike.encryption.contains(&IkeEncryption::TripleDes));
        assert!(!c.esp.suites.contains(&EspSuiteName::TripleDesSha1));
    }

    #[test]
    fn a_contradiction_names_section_and_key() {
        let mut c = GatewayConfig::default();
        c.ike.groups.clear();
        assert_eq!(c.validate().unwrap_err().to_string(), "[gateway.ike] groups: at least one group is needed");
    }
}
