//! What a client must know to connect.

use std::net::IpAddr;

use sallyport_ca::UnixTime;
use sallyport_ca::verify::{CertPayload, PeerRole, TrustStore, verify_peer};
use sallyport_crypto::dh::DhGroup;
use sallyport_crypto::hash::HashAlg;
use sallyport_crypto::sign::IkeKey;
use sallyport_crypto::suite::EspSuite;
use sallyport_ike as ike;
use sallyport_ppp::AuthMethod;
use zeroize::Zeroizing;

/// Settings of one connection.
pub struct Settings {
    /// Our address outside: a real one.
    pub local: IpAddr,
    /// The gateway's address.
    pub gateway: IpAddr,
    /// UDP ports of IKE and of IKE behind NAT, at both ends.
    pub ports: (u16, u16),
    /// How the machine authenticates.
    pub auth: Auth,
    /// ESP suites to propose, best first; empty proposes IKE's defaults.
    pub esp: Vec<EspSuite>,
    /// Groups to propose, best first; empty proposes IKE's defaults.
    pub groups: Vec<DhGroup>,
    /// Hashes to propose, best first; empty proposes IKE's defaults.
    pub hashes: Vec<HashAlg>,
    /// Whether ESP may travel as IP protocol 50; if not it is always in UDP.
    pub native_esp: bool,
    /// The user.
    pub user: String,
    /// The password.
    pub password: Zeroizing<String>,
    /// PPP authentication methods to consent to, the preferred first.
    pub methods: Vec<AuthMethod>,
}

/// How the machine authenticates.
pub enum Auth {
    /// With its certificate.
    Certificate(Box<Certificate>),
    /// With the pre-shared key.
    PreSharedKey(Zeroizing<Vec<u8>>),
}

/// The machine's certificate and whom it trusts.
pub struct Certificate {
    pub(crate) key: IkeKey,
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) identity: ike::Identification,
    pub(crate) trust: TrustStore,
    pub(crate) gateway_name: Option<String>,
}

/// Settings that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The roots.
    #[error("the authority's certificate is unusable: {0}")]
    Authority(String),
    /// Our certificate.
    #[error("the machine's certificate is unusable: {0}")]
    Certificate(String),
    /// Our key.
    #[error("the machine's key is unusable: {0}")]
    Key(String),
}

impl Certificate {
    /// Takes the machine's key (PKCS #8 DER), its chain (DER, its own certificate first), the trusted roots (PEM), and the
    /// name that must stand in the gateway's certificate (`None` accepts any gateway of the authority). Checks that they
    /// belong together at `now`.
    pub fn new(
        key_pkcs8: &[u8],
        chain: Vec<Vec<u8>>,
        roots_pem: &[u8],
        gateway_name: Option<&str>,
        now: UnixTime,
    ) -> Result<Self, SettingsError> {
        let mut trust = TrustStore::new();
        trust.add_anchors_pem(roots_pem).map_err(|e| SettingsError::Authority(e.cause()))?;
        // 4 is X.509 Certificate - Signature, RFC 2408 §3.9.
        let payloads: Vec<CertPayload<'_>> = chain.iter().map(|der| CertPayload { encoding: 4, data: der }).collect();
        let own = verify_peer(&trust, &payloads, None, PeerRole::Machine, now)
            .map_err(|e| SettingsError::Certificate(e.cause()))?;
        let key = IkeKey::from_pkcs8_der(key_pkcs8).map_err(|e| SettingsError::Key(e.to_string()))?;
        if key.public_key_der().ok().as_deref() != Some(&own.spki_der) {
            return Err(SettingsError::Key("it does not belong to the certificate".into()));
        }
        let identity = ike::Identification::der_dn(own.subject_der);
        Ok(Self { key, chain, identity, trust, gateway_name: gateway_name.map(Into::into) })
    }
}
