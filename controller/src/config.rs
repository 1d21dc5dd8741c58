//! Settings of one controller process. What the whole cluster shares (pools, authentication, IKE) is in the log instead.

mod unseal;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use sallyport_ca::KeyAlgorithm;
use serde::Deserialize;

pub use self::unseal::{Pkcs11Config, UnsealConfig, UnsealMethod};
use crate::error::Error;

/// Settings of a controller. Every key has a default.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where gateways and operators connect (gRPC over mutual TLS).
    pub listen: SocketAddr,
    /// HOST:PORT where other controllers reach this one; empty is the listening address.
    pub advertise: String,
    /// Name in lists; empty is the host name.
    pub name: String,
    /// Further host names and addresses for this controller's certificate.
    pub names: Vec<String>,
    /// Where Prometheus asks (`/metrics`), and whoever watches (`/healthz`): plain HTTP without secrets. Empty is nowhere.
    #[serde(deserialize_with = "address_or_nowhere")]
    pub metrics_listen: Option<SocketAddr>,
    /// The certificate authority, read at the first start only.
    pub authority: AuthorityConfig,
    /// The store.
    pub storage: StorageConfig,
    /// The group of controllers.
    pub raft: RaftConfig,
    /// How this node's copy of the seal key is opened.
    pub unseal: UnsealConfig,
    /// Dealings with gateways.
    pub gateways: GatewaysConfig,
    /// Checking passwords.
    pub passwords: PasswordsConfig,
    /// The enrollment endpoint on this controller itself.
    pub enrollment: EnrollmentConfig,
    /// Bounds on what others may ask of this process.
    pub limits: LimitsConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7443),
            advertise: String::new(),
            name: String::new(),
            names: Vec::new(),
            metrics_listen: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9443)),
            authority: AuthorityConfig::default(),
            storage: StorageConfig::default(),
            raft: RaftConfig::default(),
            unseal: UnsealConfig::default(),
            gateways: GatewaysConfig::default(),
            passwords: PasswordsConfig::default(),
            enrollment: EnrollmentConfig::default(),
            limits: LimitsConfig::default(),
        }
    }
}

/// The enrollment endpoint on this controller itself; gateways carry it to here in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnrollmentConfig {
    /// HTTPS; empty is nowhere.
    #[serde(deserialize_with = "address_or_nowhere")]
    pub listen: Option<SocketAddr>,
    /// Plain HTTP; empty is nowhere.
    #[serde(deserialize_with = "address_or_nowhere")]
    pub http_listen: Option<SocketAddr>,
    /// Further names for the endpoint's certificate, beside those of the gateways' certificates.
    pub names: Vec<String>,
}

/// The certificate authority that the first start makes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthorityConfig {
    /// Organization in the subjects of its certificates.
    pub organization: String,
    /// Common name of the root.
    pub common_name: String,
    /// Kind of the root's key: `ecdsa-p256`, `ecdsa-p384`, `rsa-2048`, `rsa-3072` or `rsa-4096`.
    #[serde(deserialize_with = "key_algorithm")]
    pub key: KeyAlgorithm,
    /// How long the root lives, years, 1 to 30.
    pub years: u32,
    /// Kinds of the keys of the issuing authorities below it, one for each; empty is one with a key of the root's kind.
    #[serde(deserialize_with = "key_algorithms")]
    pub issuing: Vec<KeyAlgorithm>,
    /// How long they live, years, 1 to 30, never longer than the root. Read whenever one is made.
    pub issuing_years: u32,
}

impl Default for AuthorityConfig {
    fn default() -> Self {
        Self {
            organization: "Sallyport".into(),
            common_name: "Sallyport Root".into(),
            key: KeyAlgorithm::default(),
            years: 10,
            issuing: Vec::new(),
            issuing_years: 5,
        }
    }
}

/// Which engine stores the log and the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// sled 0.34 with our guards.
    #[default]
    Sled,
    /// redb 4.
    Redb,
}

impl Engine {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Sled, Self::Redb];

    /// As in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sled => "sled",
            Self::Redb => "redb",
        }
    }
}

/// The store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageConfig {
    /// Which engine.
    pub engine: Engine,
    /// Log entries between two snapshots, 100 to 1,000,000.
    pub snapshot_every: u64,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self { engine: Engine::Sled, snapshot_every: 10_000 }
    }
}

/// The group of controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RaftConfig {
    /// Milliseconds between two life signs of the leader; four that are missed make it lose the lead. The same on all nodes.
    pub heartbeat_ms: u64,
}

impl Default for RaftConfig {
    fn default() -> Self {
        Self { heartbeat_ms: 200 }
    }
}

/// Dealings with gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewaysConfig {
    /// How often a gateway shows that it lives, milliseconds.
    pub heartbeat_ms: u32,
    /// Silence after which a gateway is given up and its sessions ended, milliseconds; at least three heartbeats.
    pub timeout_ms: u32,
    /// How often each live session must be reported, milliseconds. After three misses it is ended.
    pub report_ms: u32,
    /// How long an authorized session may take to come up, milliseconds.
    pub setup_ms: u32,
}

impl Default for GatewaysConfig {
    fn default() -> Self {
        Self { heartbeat_ms: 5_000, timeout_ms: 45_000, report_ms: 60_000, setup_ms: 120_000 }
    }
}

/// Checking passwords. The costs apply to passwords set from now on; a stored verifier carries its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PasswordsConfig {
    /// Memory of one Argon2id computation, KiB.
    pub argon2_memory_kib: u32,
    /// Passes over it.
    pub argon2_passes: u32,
    /// Computations at a time; more wait. 0 is one for each processor.
    pub argon2_parallel: usize,
}

impl Default for PasswordsConfig {
    fn default() -> Self {
        // OWASP's first recommendation for Argon2id.
        Self { argon2_memory_kib: 19_456, argon2_passes: 2, argon2_parallel: 0 }
    }
}

/// Bounds on what others may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Connections at a time.
    pub connections: usize,
    /// Calls at a time on one connection.
    pub calls_per_connection: usize,
    /// How long a TLS handshake may take, milliseconds.
    pub handshake_ms: u64,
    /// How long a call may take, milliseconds.
    pub call_ms: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { connections: 1_024, calls_per_connection: 1_024, handshake_ms: 10_000, call_ms: 30_000 }
    }
}

impl Config {
    /// Finds what is out of range, so that nothing starts with it.
    pub fn check(&self) -> Result<(), Error> {
        let bad = |text: String| Err(Error::Config(text));
        if !(1..=30).contains(&self.authority.years) {
            return bad(format!("authority.years is {}, must be 1 to 30", self.authority.years));
        }
        if !(1..=30).contains(&self.authority.issuing_years) {
            let years = self.authority.issuing_years;
            return bad(format!("authority.issuing_years is {years}, must be 1 to 30"));
        }
        let kinds = &self.authority.issuing;
        if kinds.iter().enumerate().any(|(at, kind)| kinds.iter().take(at).any(|earlier| earlier == kind)) {
            return bad("authority.issuing names a kind of key twice".into());
        }
        if !(100..=1_000_000).contains(&self.storage.snapshot_every) {
            return bad(format!("storage.snapshot_every is {}, must be 100 to 1000000", self.storage.snapshot_every));
        }
        if !(50..=5_000).contains(&self.raft.heartbeat_ms) {
            return bad(format!("raft.heartbeat_ms is {}, must be 50 to 5000", self.raft.heartbeat_ms));
        }
        self.unseal.check()?;
        let gateways = self.gateways;
        if !(100..=60_000).contains(&gateways.heartbeat_ms) {
            return bad(format!("gateways.heartbeat_ms is {}, must be 100 to 60000", gateways.heartbeat_ms));
        }
        if gateways.timeout_ms / 3 < gateways.heartbeat_ms {
            return bad(format!(
                "gateways.timeout_ms is {}, must be at least three times gateways.heartbeat_ms ({})",
                gateways.timeout_ms, gateways.heartbeat_ms
            ));
        }
        if gateways.report_ms < 1_000 || gateways.setup_ms < 1_000 {
            return bad("gateways.report_ms and gateways.setup_ms must be at least 1000".into());
        }
        let passwords = self.passwords;
        if !(8..=1_048_576).contains(&passwords.argon2_memory_kib) || !(1..=100).contains(&passwords.argon2_passes) {
            return bad("passwords.argon2_memory_kib must be 8 to 1048576 and argon2_passes 1 to 100".into());
        }
        let limits = self.limits;
        if limits.connections == 0
            || limits.calls_per_connection == 0
            || limits.handshake_ms == 0
            || limits.call_ms == 0
        {
            return bad("limits: none of them may be 0".into());
        }
        Ok(())
    }

    /// How long the root lives.
    pub(crate) fn root_validity(&self) -> Duration {
        Duration::from_secs(u64::from(self.authority.years) * 365 * 86_400)
    }

    /// How long an issuing authority lives.
    pub(crate) fn issuing_validity(&self) -> Duration {
        Duration::from_secs(u64::from(self.authority.issuing_years) * 365 * 86_400)
    }
}

fn key_algorithm<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<KeyAlgorithm, D::Error> {
    kind(&String::deserialize(deserializer)?)
}

fn key_algorithms<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<KeyAlgorithm>, D::Error> {
    Vec::<String>::deserialize(deserializer)?.iter().map(|text| kind(text)).collect()
}

fn kind<E: serde::de::Error>(text: &str) -> Result<KeyAlgorithm, E> {
    text.parse().map_err(|_| {
        let names: Vec<&str> = KeyAlgorithm::ALL.iter().map(|a| a.name()).collect();
        E::custom(format!("{text:?} is none of {}", names.join(", ")))
    })
}

fn address_or_nowhere<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| serde::de::Error::custom(format!("{text:?} is not an address such as 127.0.0.1:9443")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_default_and_the_default_is_good() {
        let config: Config = toml::from_str("").expect("parses");
        assert_eq!(config, Config::default());
        config.check().expect("good");
    }

    #[test]
    fn a_wrong_key_or_value_is_named() {
        let error = |text: &str| match toml::from_str::<Config>(text) {
            Ok(config) => config.check().expect_err("out of range").to_string(),
            Err(e) => e.to_string(),
        };
        assert!(error("listne = \"1.2.3.4:5\"").contains("listne"));
        assert!(error("metrics_listen = \"here\"").contains("not an address"));
        assert!(error("[authority]\nkey = \"dsa\"").contains("ecdsa-p256"));
        assert!(error("[authority]\nissuing = [\"dsa\"]").contains("rsa-2048"));
        assert!(error("[authority]\nissuing = [\"rsa-2048\", \"rsa-2048\"]").contains("twice"));
        assert!(error("[authority]\nissuing_years = 31").contains("1 to 30"));
        let engines = error("[storage]\nengine = \"rocks\"");
        assert!(Engine::ALL.iter().all(|e| engines.contains(e.name())), "{engines}");
        assert!(error("[gateways]\ntimeout_ms = 5000").contains("three times"));
        assert!(error("[authority]\nyears = 99").contains("1 to 30"));
        assert_eq!(toml::from_str::<Config>("metrics_listen = \"\"").expect("parses").metrics_listen, None);
    }
}
