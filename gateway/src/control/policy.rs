//! What the controllers' policy changes: IKE, PPP, the roots, the pre-shared key and the routes to the pools.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use sallyport_ca::Fingerprint;
use sallyport_ca::verify::TrustStore;
use sallyport_crypto::cbc::CbcAlg;
use sallyport_crypto::dh::DhGroup;
use sallyport_crypto::hash::HashAlg;
use sallyport_crypto::proposal;
use sallyport_crypto::suite::EspSuite;
use sallyport_ike as ike;
use sallyport_ppp as ppp;
use sallyport_proto::v1;
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::controller::KnownRoots;
use super::jobs::{Jobs, Trust};
use super::machine::Machine;
use crate::config::{EspConfig, EspSuiteName, IkeConfig, IkeEncryption, IkeGroup, IkeHash};
use crate::net::{Inside, Pool};

/// Applies policies to the parts that they concern.
pub struct Applier {
    /// IKE as the gateway's own configuration has it; a policy narrows or replaces parts of it.
    pub base: ike::Config,
    /// The inside device; `None` in tests.
    pub inside: Option<Inside>,
    /// PPP as configured.
    pub ppp: ppp::ServerConfig,
    /// The roots that count, whatever a policy names.
    pub roots: Arc<KnownRoots>,
}

impl Applier {
    /// Makes `policy` the one in force. What cannot be applied is said in the log and left as it was.
    pub async fn apply(&mut self, policy: v1::Policy, machine: &mut Machine, jobs: &Jobs) {
        info!(version = policy.version, pools = policy.pools.len(), "policy");
        let mut anchors = TrustStore::new();
        for root in &policy.trusted_roots {
            if !self.roots.trusts(root) {
                warn!(
                    fingerprint = %Fingerprint::of(root),
                    "the policy names a root that none vouches for which this gateway trusts: it is left out"
                );
                continue;
            }
            match anchors.add_anchor_der(root) {
                Ok(()) => {}
                Err(e) => warn!(error = %e, "a trusted root of the policy is unusable"),
            }
        }
        for issuer in policy.issuers.iter().chain(&policy.crossing) {
            if let Err(e) = anchors.add_intermediate_der(issuer) {
                warn!(error = %e, "an issuing authority of the policy is unusable");
            }
        }
        let psk = policy.psk.as_ref().map(|s| Zeroizing::new(s.value.clone())).filter(|k| !k.is_empty());
        let mut config = self.base.clone();
        config.trusted_issuers = anchors.subject_names().map(<[u8]>::to_vec).collect();
        config.pre_shared_key = psk.is_some();
        if let Some(settings) = &policy.ike {
            narrow(&mut config, settings);
        }
        let mut server = self.ppp.clone();
        server.methods = methods(&policy);
        if let Some(settings) = &policy.ppp {
            if settings.mru > 0 {
                server.link.mru = u16::try_from(settings.mru).unwrap_or(server.link.mru).min(1_500);
            }
            if settings.echo_interval_s > 0 {
                server.link.echo_interval = Some(Duration::from_secs(settings.echo_interval_s.into()));
            }
            if settings.echo_failures > 0 {
                server.link.echo_misses = u8::try_from(settings.echo_failures).unwrap_or(u8::MAX);
            }
        }
        jobs.set_trust(Trust { anchors, psk });
        machine.set_policy(config, server);
        if let Some(inside) = &mut self.inside
            && let Err(e) = inside.set_pools(&pools(&policy)).await
        {
            warn!(error = %e, "the routes to the pools are not all in place; clients of the others work");
        }
    }
}

fn methods(policy: &v1::Policy) -> Vec<ppp::AuthMethod> {
    policy
        .auth_methods()
        .filter_map(|m| match m {
            v1::AuthMethod::Pap => Some(ppp::AuthMethod::Pap),
            v1::AuthMethod::ChapMd5 => Some(ppp::AuthMethod::ChapMd5),
            v1::AuthMethod::Mschapv2 => Some(ppp::AuthMethod::MsChapV2),
            v1::AuthMethod::Unspecified => None,
        })
        .collect()
}

fn pools(policy: &v1::Policy) -> Vec<Pool> {
    let mut out = Vec::new();
    for pool in &policy.pools {
        let Ok(router) = pool.router.parse::<Ipv4Addr>() else {
            warn!(pool = pool.name, router = pool.router, "the pool's router is no IPv4 address");
            continue;
        };
        for network in &pool.networks {
            let parsed = network
                .split_once('/')
                .and_then(|(a, p)| Some((a.parse::<Ipv4Addr>().ok()?, p.parse::<u8>().ok().filter(|p| *p <= 32)?)));
            match parsed {
                Some((network, prefix)) => out.push(Pool { network, prefix, router }),
                None => warn!(pool = pool.name, network, "the pool's network is no IPv4 network"),
            }
        }
    }
    out
}

/// Takes what the operator set for all gateways; unknown words are said in the log and skipped.
fn narrow(config: &mut ike::Config, settings: &v1::IkeSettings) {
    if !settings.ike_proposals.is_empty() {
        let (mut ciphers, mut hashes, mut groups) = (Vec::new(), Vec::new(), Vec::new());
        for text in &settings.ike_proposals {
            match proposal::ike(text) {
                Ok((cipher, hash, group)) => {
                    push_new(&mut ciphers, cipher);
                    push_new(&mut hashes, hash);
                    push_new(&mut groups, group);
                }
                Err(why) => warn!(why, "this gateway does not know the IKE proposal"),
            }
        }
        if !groups.is_empty() {
            (config.ciphers, config.hashes, config.groups) = (ciphers, hashes, groups);
        }
    }
    if !settings.esp_proposals.is_empty() {
        let suites: Vec<EspSuite> = settings.esp_proposals.iter().filter_map(|p| proposal::esp(p).ok()).collect();
        if suites.len() < settings.esp_proposals.len() {
            warn!(proposals = ?settings.esp_proposals, "this gateway does not know all of the ESP proposals");
        }
        if !suites.is_empty() {
            config.esp_suites = suites;
        }
    }
    let seconds = |s: u32, into: &mut Duration| {
        if s > 0 {
            *into = Duration::from_secs(s.into());
        }
    };
    seconds(settings.ike_lifetime_s, &mut config.phase1_lifetime_max);
    seconds(settings.esp_lifetime_s, &mut config.phase2_lifetime_max);
    seconds(settings.dpd_delay_s, &mut config.dpd_delay);
    seconds(settings.dpd_timeout_s, &mut config.dpd_timeout);
}

fn push_new<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

/// The gateway's own configuration in IKE's types; credentials and roots come later.
pub fn ike_config(ike: &IkeConfig, esp: &EspConfig) -> ike::Config {
    let defaults = ike::Config::default();
    ike::Config {
        ciphers: ike
            .encryption
            .iter()
            .map(|e| match e {
                IkeEncryption::Aes256 => CbcAlg::Aes256,
                IkeEncryption::Aes192 => CbcAlg::Aes192,
                IkeEncryption::Aes128 => CbcAlg::Aes128,
                IkeEncryption::TripleDes => CbcAlg::TripleDes,
            })
            .collect(),
        hashes: ike
            .hash
            .iter()
            .map(|h| match h {
                IkeHash::Sha1 => HashAlg::Sha1,
                IkeHash::Sha256 => HashAlg::Sha256,
                IkeHash::Sha384 => HashAlg::Sha384,
                IkeHash::Sha512 => HashAlg::Sha512,
            })
            .collect(),
        groups: ike
            .groups
            .iter()
            .map(|g| match g {
                IkeGroup::Modp1024 => DhGroup::Modp1024,
                IkeGroup::Modp1536 => DhGroup::Modp1536,
                IkeGroup::Modp2048 => DhGroup::Modp2048,
                IkeGroup::Modp3072 => DhGroup::Modp3072,
                IkeGroup::Modp4096 => DhGroup::Modp4096,
                IkeGroup::Ecp256 => DhGroup::Ecp256,
                IkeGroup::Ecp384 => DhGroup::Ecp384,
            })
            .collect(),
        esp_suites: esp
            .suites
            .iter()
            .map(|s| match s {
                EspSuiteName::Aes256Gcm => EspSuite::AES256_GCM16,
                EspSuiteName::Aes128Gcm => EspSuite::AES128_GCM16,
                EspSuiteName::Aes256Sha256 => EspSuite::AES256_CBC_SHA256,
                EspSuiteName::Aes128Sha256 => EspSuite::AES128_CBC_SHA256,
                EspSuiteName::Aes256Sha1 => EspSuite::AES256_CBC_SHA1,
                EspSuiteName::Aes128Sha1 => EspSuite::AES128_CBC_SHA1,
                EspSuiteName::TripleDesSha1 => EspSuite::TRIPLE_DES_SHA1,
            })
            .collect(),
        ike_port: ike.port,
        nat_t_port: ike.nat_t_port,
        phase1_lifetime_max: ike.lifetime_seconds.duration(),
        phase2_lifetime_max: esp.lifetime_seconds.duration(),
        // The largest value is no limit: the sequence numbers end before it.
        phase2_kilobytes: u32::try_from(esp.lifetime_kilobytes.get()).ok().filter(|k| *k < u32::MAX),
        dpd_delay: ike.dpd_delay_seconds.duration(),
        dpd_timeout: ike.dpd_timeout_seconds.duration(),
        limits: ike::Limits {
            half_open: ike.half_open.usize(),
            half_open_per_source: ike.half_open_per_source.usize(),
            ..defaults.limits
        },
        ..defaults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_narrows_what_the_gateway_offers_and_strange_words_change_nothing() {
        let mut config = ike_config(&IkeConfig::default(), &EspConfig::default());
        let known = |list: &[&str]| list.iter().map(|p| (*p).to_owned()).collect();
        narrow(
            &mut config,
            &v1::IkeSettings {
                ike_proposals: known(&["aes256-sha256-modp2048", "aes512-sha3-modp9"]),
                esp_proposals: known(&["aes256gcm16"]),
                ..v1::IkeSettings::default()
            },
        );
        assert_eq!((config.ciphers, config.hashes), (vec![CbcAlg::Aes256], vec![HashAlg::Sha256]));
        assert_eq!((config.groups, config.esp_suites), (vec![DhGroup::Modp2048], vec![EspSuite::AES256_GCM16]));
    }

    #[test]
    fn the_default_configuration_keeps_the_weak_out() {
        let config = ike_config(&IkeConfig::default(), &EspConfig::default());
        assert!(!config.groups.contains(&DhGroup::Modp1024));
        assert!(!config.ciphers.contains(&CbcAlg::TripleDes));
        assert!(!config.pre_shared_key);
    }

    #[test]
    fn a_pool_becomes_routes() {
        let policy = v1::Policy {
            pools: vec![v1::Pool {
                name: "default".into(),
                networks: vec!["10.88.1.0/24".into(), "nonsense".into()],
                router: "10.88.1.1".into(),
            }],
            ..v1::Policy::default()
        };
        let found = pools(&policy);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].network, found[0].prefix), (Ipv4Addr::new(10, 88, 1, 0), 24));
    }
}
