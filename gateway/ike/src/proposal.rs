//! Choosing transforms: what a peer's SA payload offers against what the configuration allows.

use core::fmt;

use sallyport_base::Writer;
use sallyport_crypto::cbc::CbcAlg;
use sallyport_crypto::dh::DhGroup;
use sallyport_crypto::hash::HashAlg;
use sallyport_crypto::sign::SignatureMethod;
use sallyport_crypto::suite::{EspCipher, EspInteg, EspSuite};

use crate::config::Config;
use crate::payload::{
    Attribute, AuthenticationId, EncapsulationMode, EncryptionId, EspAuthenticationId, EspTransformId, HashId,
    IsakmpTransformId, LifeType, Lifetimes, Phase1Attribute, Phase2Attribute, Proposal, ProtocolId,
    SecurityAssociation, Transform, TransformNames,
};

/// Most transforms that one message of ours offers: MM1 stays below 600 bytes.
const MAX_OFFERED: usize = 12;

/// Most offers of a peer that are spelled out in a refusal.
const MAX_LISTED: usize = 24;

/// How the peers authenticate each other in phase 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthMethod {
    /// Pre-shared key, RFC 2409 §5.4.
    PreSharedKey,
    /// Signatures, RFC 2409 §5.1 and RFC 4754.
    Signature(SignatureMethod),
}

impl AuthMethod {
    /// The number of the attribute, RFC 2409 appendix A.
    pub const fn number(self) -> u16 {
        match self {
            Self::PreSharedKey => AuthenticationId::PRE_SHARED_KEY.0,
            Self::Signature(s) => s.number(),
        }
    }

    /// The method with this number, if we have it.
    pub const fn from_number(number: u16) -> Option<Self> {
        if number == AuthenticationId::PRE_SHARED_KEY.0 {
            return Some(Self::PreSharedKey);
        }
        match SignatureMethod::from_number(number) {
            Some(s) => Some(Self::Signature(s)),
            None => None,
        }
    }

    /// Name as operators write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PreSharedKey => "pre-shared key",
            Self::Signature(s) => s.as_str(),
        }
    }
}

impl fmt::Display for AuthMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The algorithms of an ISAKMP SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase1Transform {
    /// Encryption.
    pub cipher: CbcAlg,
    /// Hash, and by HMAC the prf.
    pub hash: HashAlg,
    /// Group.
    pub group: DhGroup,
    /// Authentication.
    pub method: AuthMethod,
}

/// The name of a cipher in the settings.
pub(crate) const fn cipher_name(alg: CbcAlg) -> &'static str {
    match alg {
        CbcAlg::TripleDes => "3des",
        CbcAlg::Aes128 => "aes128",
        CbcAlg::Aes192 => "aes192",
        CbcAlg::Aes256 => "aes256",
    }
}

impl fmt::Display for Phase1Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", cipher_name(self.cipher), self.hash, self.group, self.method)
    }
}

const fn hash_of(id: u16) -> Option<HashAlg> {
    Some(match HashId(id) {
        HashId::MD5 => HashAlg::Md5,
        HashId::SHA1 => HashAlg::Sha1,
        HashId::SHA2_256 => HashAlg::Sha256,
        HashId::SHA2_384 => HashAlg::Sha384,
        HashId::SHA2_512 => HashAlg::Sha512,
        _ => return None,
    })
}

const fn hash_id(alg: HashAlg) -> HashId {
    match alg {
        HashAlg::Md5 => HashId::MD5,
        HashAlg::Sha1 => HashId::SHA1,
        HashAlg::Sha256 => HashId::SHA2_256,
        HashAlg::Sha384 => HashId::SHA2_384,
        HashAlg::Sha512 => HashId::SHA2_512,
    }
}

/// The attributes of a phase 1 transform, each as far as we know it.
#[derive(Clone, Copy)]
struct Phase1Parts {
    cipher: Option<CbcAlg>,
    hash: Option<HashAlg>,
    group: Option<DhGroup>,
    method: Option<AuthMethod>,
    /// An attribute that would change what the others mean: another prf, a group of the peer's own making.
    strange: bool,
}

fn number16(t: &Transform<'_>, kind: u16) -> Option<u16> {
    t.number_of(kind).and_then(|v| u16::try_from(v).ok())
}

impl Phase1Parts {
    fn of(t: &Transform<'_>) -> Self {
        use Phase1Attribute as A;
        let bits = number16(t, A::KEY_LENGTH.0);
        let cipher = number16(t, A::ENCRYPTION.0).and_then(|id| match (EncryptionId(id), bits) {
            // libreswan has sent a key length with 3DES: it says nothing new, so it does no harm.
            (EncryptionId::TRIPLE_DES_CBC, _) => Some(CbcAlg::TripleDes),
            // RFC 3602 §5.3: without the attribute it is 128 bits.
            (EncryptionId::AES_CBC, None | Some(128)) => Some(CbcAlg::Aes128),
            (EncryptionId::AES_CBC, Some(192)) => Some(CbcAlg::Aes192),
            (EncryptionId::AES_CBC, Some(256)) => Some(CbcAlg::Aes256),
            _ => None,
        });
        let strange = t.attributes.iter().any(|a| {
            matches!(
                Phase1Attribute(a.kind),
                A::PRF
                    | A::GROUP_PRIME
                    | A::GROUP_GENERATOR_1
                    | A::GROUP_GENERATOR_2
                    | A::GROUP_CURVE_A
                    | A::GROUP_CURVE_B
                    | A::FIELD_SIZE
                    | A::GROUP_ORDER
            )
        });
        Self {
            cipher,
            hash: number16(t, A::HASH.0).and_then(hash_of),
            group: number16(t, A::GROUP.0).and_then(DhGroup::from_number),
            method: number16(t, A::AUTHENTICATION.0).and_then(AuthMethod::from_number),
            strange: strange || t.id != IsakmpTransformId::KEY_IKE.0,
        }
    }

    fn whole(self) -> Option<Phase1Transform> {
        if self.strange {
            return None;
        }
        Some(Phase1Transform { cipher: self.cipher?, hash: self.hash?, group: self.group?, method: self.method? })
    }
}

/// Whether the configuration lets `method` in.
pub(crate) fn method_allowed(config: &Config, method: AuthMethod) -> bool {
    match method {
        AuthMethod::PreSharedKey => config.pre_shared_key,
        AuthMethod::Signature(s) => config.credentials.iter().any(|c| c.method == s),
    }
}

/// A transform that was chosen from a peer's offer.
#[derive(Clone, Debug)]
pub(crate) struct Phase1Choice {
    pub(crate) transform: Phase1Transform,
    pub(crate) lifetimes: Lifetimes,
    /// Body of the SA payload that answers: this transform alone, unchanged.
    pub(crate) answer: Vec<u8>,
}

/// Why nothing was chosen: to be told to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoProposal {
    /// The algorithms would do, the encapsulation would not.
    pub(crate) encapsulation: bool,
    pub(crate) cause: String,
    pub(crate) remedy: String,
}

/// Takes the first transform of the peer's list that is allowed: the order is the peer's (RFC 2409 §5).
///
/// Why there is none is another function's matter: words cost more than the choice.
pub(crate) fn choose_phase1(sa: &SecurityAssociation<'_>, config: &Config) -> Option<Phase1Choice> {
    for p in &sa.proposals {
        if p.protocol != ProtocolId::ISAKMP {
            continue;
        }
        for t in &p.transforms {
            let Some(transform) = Phase1Parts::of(t).whole() else { continue };
            if config.ciphers.contains(&transform.cipher)
                && config.hashes.contains(&transform.hash)
                && config.groups.contains(&transform.group)
                && method_allowed(config, transform.method)
            {
                return Some(Phase1Choice {
                    transform,
                    lifetimes: t.lifetimes(Phase1Attribute::LIFE_TYPE.0, Phase1Attribute::LIFE_DURATION.0),
                    answer: answer_body(p, t, &[]),
                });
            }
        }
    }
    None
}

/// An SA payload with the one transform that was chosen, its number and attributes as they came.
fn answer_body(p: &Proposal<'_>, t: &Transform<'_>, spi: &[u8]) -> Vec<u8> {
    let answer = SecurityAssociation::new(vec![Proposal {
        number: p.number,
        protocol: p.protocol,
        spi,
        transforms: vec![t.clone()],
    }]);
    let mut w = Writer::new();
    answer.emit(&mut w);
    w.into_vec()
}

fn list<T>(items: &[T], name: impl Fn(&T) -> String) -> String {
    items.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn offered(sa: &SecurityAssociation<'_>) -> String {
    let all = sa.proposals.iter().flat_map(|p| p.transforms.iter().map(move |t| (p.protocol, t)));
    let count = sa.proposals.iter().map(|p| p.transforms.len()).sum::<usize>();
    let mut text: Vec<String> = Vec::new();
    for (protocol, transform) in all.take(MAX_LISTED) {
        let names = TransformNames { protocol, transform }.to_string();
        text.push(if protocol == ProtocolId::ISAKMP || protocol == ProtocolId::ESP {
            names
        } else {
            format!("{protocol}:{names}")
        });
    }
    if count > MAX_LISTED {
        text.push(format!("and {} more", count - MAX_LISTED));
    }
    if text.is_empty() { "nothing".into() } else { text.join(", ") }
}

/// Why [`choose_phase1`] found nothing.
pub(crate) fn no_phase1_proposal(sa: &SecurityAssociation<'_>, config: &Config) -> NoProposal {
    let mut methods: Vec<&str> = Vec::new();
    if config.pre_shared_key {
        methods.push("pre-shared key");
    }
    for c in &config.credentials {
        if !methods.contains(&c.method.as_str()) {
            methods.push(c.method.as_str());
        }
    }
    let cause = format!(
        "no proposal of the client is allowed. Offered: {}. Allowed: encryption {}; hash {}; groups {}; authentication {}",
        offered(sa),
        list(&config.ciphers, |c| cipher_name(*c).into()),
        list(&config.hashes, ToString::to_string),
        list(&config.groups, ToString::to_string),
        if methods.is_empty() { "none (no certificate, no pre-shared key)".into() } else { methods.join(", ") },
    );
    // The offer that misses the least: what would let it in.
    let best = sa
        .proposals
        .iter()
        .filter(|p| p.protocol == ProtocolId::ISAKMP)
        .flat_map(|p| &p.transforms)
        .filter_map(|t| {
            let parts = Phase1Parts::of(t).whole()?;
            let mut settings = Vec::new();
            if !config.ciphers.contains(&parts.cipher) {
                settings.push(format!("\"{}\" to encryption in [gateway.ike]", cipher_name(parts.cipher)));
            }
            if !config.hashes.contains(&parts.hash) {
                settings.push(format!("\"{}\" to hash in [gateway.ike]", parts.hash));
            }
            if !config.groups.contains(&parts.group) {
                settings.push(format!("\"{}\" to groups in [gateway.ike]", parts.group));
            }
            let method = match parts.method {
                m if method_allowed(config, m) => None,
                AuthMethod::PreSharedKey => Some(
                    "the client is set to a pre-shared key: set it to a certificate, or set a pre-shared key here"
                        .to_owned(),
                ),
                AuthMethod::Signature(s) => Some(format!(
                    "the client signs with {}: give the gateway a certificate with such a key",
                    s.as_str()
                )),
            };
            Some((settings.len() + usize::from(method.is_some()), settings, method))
        })
        .min_by_key(|(n, ..)| *n);
    let remedy = match best {
        Some((_, settings, method)) => {
            let mut parts: Vec<String> = method.into_iter().collect();
            if !settings.is_empty() {
                parts.push(format!("to let this client in, add {}", settings.join(" and ")));
            }
            parts.join("; ")
        }
        None => "the client offers nothing that this gateway could be set to: change the client's proposals".into(),
    };
    NoProposal { encapsulation: false, cause, remedy }
}

/// What we offer as initiator when the caller does not say: each group with the best cipher and hash, then variations.
pub(crate) fn default_offer(config: &Config, method: AuthMethod) -> Vec<Phase1Transform> {
    let mut out: Vec<Phase1Transform> = Vec::new();
    for hash in &config.hashes {
        for cipher in &config.ciphers {
            for group in &config.groups {
                if out.len() < MAX_OFFERED {
                    out.push(Phase1Transform { cipher: *cipher, hash: *hash, group: *group, method });
                }
            }
        }
    }
    out
}

/// Body of the SA payload that offers `transforms` with a life of `seconds`.
pub(crate) fn phase1_offer(transforms: &[Phase1Transform], seconds: u32) -> Vec<u8> {
    use Phase1Attribute as A;
    let seconds = seconds.to_be_bytes();
    let transforms = (1..).zip(transforms).map(|(number, t)| {
        let (id, bits) = match t.cipher {
            CbcAlg::TripleDes => (EncryptionId::TRIPLE_DES_CBC, None),
            aes => (EncryptionId::AES_CBC, u16::try_from(aes.key_len() * 8).ok()),
        };
        let mut attributes = vec![Attribute::short(A::ENCRYPTION.0, id.0)];
        attributes.extend(bits.map(|b| Attribute::short(A::KEY_LENGTH.0, b)));
        attributes.extend([
            Attribute::short(A::HASH.0, hash_id(t.hash).0),
            Attribute::short(A::GROUP.0, t.group.number()),
            Attribute::short(A::AUTHENTICATION.0, t.method.number()),
            Attribute::short(A::LIFE_TYPE.0, LifeType::SECONDS.0),
            Attribute { kind: A::LIFE_DURATION.0, value: crate::payload::AttributeValue::Long(&seconds) },
        ]);
        Transform { number, id: IsakmpTransformId::KEY_IKE.0, attributes }
    });
    let sa = SecurityAssociation::new(vec![Proposal {
        number: 1,
        protocol: ProtocolId::ISAKMP,
        spi: &[],
        transforms: transforms.collect(),
    }]);
    let mut w = Writer::new();
    sa.emit(&mut w);
    w.into_vec()
}

/// As initiator: what the responder's SA payload chose, if it is one transform of our offer.
pub(crate) fn accepted_phase1(
    sa: &SecurityAssociation<'_>,
    offer: &[Phase1Transform],
) -> Option<(Phase1Transform, Lifetimes)> {
    let [Proposal { protocol: ProtocolId::ISAKMP, transforms, .. }] = &sa.proposals[..] else { return None };
    let [t] = &transforms[..] else { return None };
    let chosen = Phase1Parts::of(t).whole()?;
    let lifetimes = t.lifetimes(Phase1Attribute::LIFE_TYPE.0, Phase1Attribute::LIFE_DURATION.0);
    offer.contains(&chosen).then_some((chosen, lifetimes))
}

/// An ESP transform as far as we know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EspTransform {
    pub(crate) suite: EspSuite,
    pub(crate) encapsulation: EncapsulationMode,
    /// Group of PFS.
    pub(crate) group: Option<DhGroup>,
    pub(crate) lifetimes: Lifetimes,
}

fn esp_transform(t: &Transform<'_>) -> Option<EspTransform> {
    use Phase2Attribute as A;
    let bits = number16(t, A::KEY_LENGTH.0);
    let cipher = match (EspTransformId(t.id), bits) {
        (EspTransformId::TRIPLE_DES, _) => EspCipher::TripleDesCbc,
        (EspTransformId::AES_CBC, None | Some(128)) => EspCipher::Aes128Cbc,
        (EspTransformId::AES_CBC, Some(192)) => EspCipher::Aes192Cbc,
        (EspTransformId::AES_CBC, Some(256)) => EspCipher::Aes256Cbc,
        (EspTransformId::AES_GCM_16, Some(128)) => EspCipher::Aes128Gcm16,
        (EspTransformId::AES_GCM_16, Some(256)) => EspCipher::Aes256Gcm16,
        _ => return None,
    };
    let integ = match number16(t, A::AUTHENTICATION.0).map(EspAuthenticationId) {
        None => None,
        // GCM authenticates by itself; some peers name an algorithm all the same, RFC 4106 §8.3 allows none.
        Some(_) if cipher.is_aead() => None,
        Some(EspAuthenticationId::HMAC_SHA1) => Some(EspInteg::HmacSha1_96),
        Some(EspAuthenticationId::HMAC_SHA2_256) => Some(EspInteg::HmacSha2_256_128),
        Some(EspAuthenticationId::HMAC_SHA2_384) => Some(EspInteg::HmacSha2_384_192),
        Some(EspAuthenticationId::HMAC_SHA2_512) => Some(EspInteg::HmacSha2_512_256),
        Some(_) => return None,
    };
    let group = match number16(t, A::GROUP.0) {
        None | Some(0) => None,
        Some(n) => Some(DhGroup::from_number(n)?),
    };
    // Extended sequence numbers (RFC 4304 §2) would have to be counted so; no L2TP client asks for them.
    if number16(t, A::EXTENDED_SEQUENCE.0).is_some_and(|v| v != 0) {
        return None;
    }
    Some(EspTransform {
        suite: EspSuite::new(cipher, integ)?,
        // RFC 2407 §4.5: without the attribute it is up to the host; nobody leaves it out for L2TP.
        encapsulation: EncapsulationMode(number16(t, A::ENCAPSULATION.0).unwrap_or(EncapsulationMode::TRANSPORT.0)),
        group,
        lifetimes: t.lifetimes(A::LIFE_TYPE.0, A::LIFE_DURATION.0),
    })
}

/// How ESP must travel with this peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EspWish {
    /// UDP encapsulation is agreed on (there is a NAT).
    pub(crate) udp: bool,
    /// Plain ESP is possible.
    pub(crate) native: bool,
    /// Leave SHA2-256 for last: Android 6 to 8 cut it to 96 bits and then no packet passes. They are the clients that
    /// have no group above 2.
    pub(crate) doubt_sha2: bool,
    /// The peer sent a KE payload.
    pub(crate) has_ke: bool,
}

impl EspWish {
    fn takes(self, mode: EncapsulationMode) -> bool {
        match mode {
            EncapsulationMode::UDP_TRANSPORT | EncapsulationMode::UDP_TRANSPORT_DRAFT => self.udp,
            EncapsulationMode::TRANSPORT => self.native,
            _ => false,
        }
    }
}

/// An ESP transform that was chosen from a peer's offer.
#[derive(Clone, Debug)]
pub(crate) struct EspChoice {
    pub(crate) transform: EspTransform,
    pub(crate) spi_out: u32,
    /// Where the answer is made from.
    proposal: (u8, Vec<u8>),
}

impl EspChoice {
    /// Body of the SA payload that answers with our inbound SPI: this transform alone, unchanged.
    pub(crate) fn answer(&self, spi_in: u32) -> Vec<u8> {
        let mut body = self.proposal.1.clone();
        // The answer was written with four zero bytes as SPI at its fixed place: DOI and situation (8), proposal (8).
        if let Some(spi) = body.get_mut(16..20) {
            spi.copy_from_slice(&spi_in.to_be_bytes());
        }
        body
    }
}

/// Takes the first transform of the peer's list that is allowed.
pub(crate) fn choose_esp(
    sa: &SecurityAssociation<'_>,
    config: &Config,
    wish: EspWish,
) -> Result<EspChoice, NoProposal> {
    let pass = |skip_sha2: bool| {
        sa.proposals.iter().find_map(|p| {
            // Proposals with one number are an AND (RFC 2408 §4.2), such as AH and ESP: a bundle, which we do not make.
            let bundle = sa.proposals.iter().filter(|q| q.number == p.number).count() > 1;
            let spi = <[u8; 4]>::try_from(p.spi).ok()?;
            if p.protocol != ProtocolId::ESP || bundle || u32::from_be_bytes(spi) < 256 {
                return None;
            }
            p.transforms.iter().find_map(|t| {
                let transform = esp_transform(t)?;
                let sha2 = transform.suite.integ() == Some(EspInteg::HmacSha2_256_128);
                let group_ok = transform.group.is_none_or(|g| config.groups.contains(&g) && wish.has_ke);
                let ok = config.esp_suites.contains(&transform.suite)
                    && wish.takes(transform.encapsulation)
                    && group_ok
                    && !(sha2 && skip_sha2);
                ok.then(|| EspChoice {
                    transform,
                    spi_out: u32::from_be_bytes(spi),
                    proposal: (p.number, answer_body(p, t, &[0; 4])),
                })
            })
        })
    };
    let chosen = if wish.doubt_sha2 { pass(true).or_else(|| pass(false)) } else { pass(false) };
    chosen.ok_or_else(|| no_esp_proposal(sa, config, wish))
}

/// The name of a suite in the settings.
pub(crate) fn suite_name(suite: EspSuite) -> String {
    let cipher = match suite.cipher() {
        EspCipher::Aes128Gcm16 => "aes128-gcm",
        EspCipher::Aes256Gcm16 => "aes256-gcm",
        EspCipher::Aes128Cbc => "aes128",
        EspCipher::Aes192Cbc => "aes192",
        EspCipher::Aes256Cbc => "aes256",
        EspCipher::TripleDesCbc => "3des",
    };
    match suite.integ() {
        None => cipher.into(),
        Some(integ) => format!("{cipher}-{}", integ.hash()),
    }
}

fn no_esp_proposal(sa: &SecurityAssociation<'_>, config: &Config, wish: EspWish) -> NoProposal {
    let mode = match (wish.udp, wish.native) {
        (true, false) => "transport mode in UDP (there is a NAT between client and gateway)",
        (true, true) => "transport mode, in UDP or not",
        (false, true) => "transport mode",
        (false, false) => {
            "none: this gateway cannot send ESP as IP protocol 50, and the client does not speak NAT traversal"
        }
    };
    let cause = format!(
        "no ESP proposal of the client is allowed. Offered: {}. Allowed: {}; {mode}",
        offered(sa),
        list(&config.esp_suites, |s| suite_name(*s)),
    );
    let esp: Vec<EspTransform> = sa
        .proposals
        .iter()
        .filter(|p| p.protocol == ProtocolId::ESP)
        .flat_map(|p| p.transforms.iter().filter_map(esp_transform))
        .collect();
    let tunnel = |m: EncapsulationMode| {
        matches!(m, EncapsulationMode::TUNNEL | EncapsulationMode::UDP_TUNNEL | EncapsulationMode::UDP_TUNNEL_DRAFT)
    };
    let encapsulation =
        esp.iter().any(|t| config.esp_suites.contains(&t.suite)) && !esp.iter().any(|t| wish.takes(t.encapsulation));
    let remedy = if !wish.udp && !wish.native {
        "give the gateway the privilege CAP_NET_RAW, or enable NAT traversal on the client".into()
    } else if !esp.is_empty() && esp.iter().all(|t| tunnel(t.encapsulation)) {
        "the client asks for tunnel mode: L2TP uses transport mode (strongSwan and libreswan: type=transport)".into()
    } else if let Some(t) = esp.iter().find(|t| wish.takes(t.encapsulation) && !config.esp_suites.contains(&t.suite)) {
        format!("to let this client in, add \"{}\" to suites in [gateway.esp]", suite_name(t.suite))
    } else if esp.iter().any(|t| wish.takes(t.encapsulation) && t.group.is_some() && !wish.has_ke) {
        "the client asks for perfect forward secrecy and sends no key: this is a fault of the client".into()
    } else if let Some(g) = esp.iter().filter(|t| wish.takes(t.encapsulation)).find_map(|t| t.group) {
        format!(
            "the client asks for perfect forward secrecy with {g}: add it to groups in [gateway.ike], or turn PFS off on the client"
        )
    } else if !esp.is_empty() {
        "the client does not encapsulate ESP as the path asks for: check that it supports NAT traversal (RFC 3947), and that nothing rewrites its packets".into()
    } else if sa.proposals.iter().any(|p| p.protocol == ProtocolId::AH) {
        "the client asks for AH: set it to ESP".into()
    } else {
        "the client offers nothing that this gateway could be set to: change the client's proposals".into()
    };
    NoProposal { encapsulation, cause, remedy }
}

/// What we offer as initiator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EspOffer {
    pub(crate) suites: Vec<EspSuite>,
    pub(crate) encapsulation: EncapsulationMode,
    pub(crate) group: Option<DhGroup>,
    pub(crate) seconds: u32,
    pub(crate) kilobytes: Option<u32>,
}

impl EspOffer {
    /// Body of the SA payload.
    pub(crate) fn body(&self, spi_in: u32) -> Vec<u8> {
        use Phase2Attribute as A;
        let spi = spi_in.to_be_bytes();
        let seconds = self.seconds.to_be_bytes();
        let kilobytes = self.kilobytes.map(u32::to_be_bytes);
        let long = |kind: u16, value| Attribute { kind, value: crate::payload::AttributeValue::Long(value) };
        let transforms = (1..).zip(self.suites.iter().take(MAX_OFFERED)).map(|(number, suite)| {
            let (id, bits) = match suite.cipher() {
                EspCipher::TripleDesCbc => (EspTransformId::TRIPLE_DES, None),
                c if c.is_aead() => (EspTransformId::AES_GCM_16, Some(c.key_bits())),
                c => (EspTransformId::AES_CBC, Some(c.key_bits())),
            };
            let mut attributes =
                vec![Attribute::short(A::LIFE_TYPE.0, LifeType::SECONDS.0), long(A::LIFE_DURATION.0, &seconds)];
            if let Some(k) = &kilobytes {
                attributes.push(Attribute::short(A::LIFE_TYPE.0, LifeType::KILOBYTES.0));
                attributes.push(long(A::LIFE_DURATION.0, k));
            }
            attributes.push(Attribute::short(A::ENCAPSULATION.0, self.encapsulation.0));
            if let Some(integ) = suite.integ() {
                let id = match integ {
                    EspInteg::HmacSha1_96 => EspAuthenticationId::HMAC_SHA1,
                    EspInteg::HmacSha2_256_128 => EspAuthenticationId::HMAC_SHA2_256,
                    EspInteg::HmacSha2_384_192 => EspAuthenticationId::HMAC_SHA2_384,
                    EspInteg::HmacSha2_512_256 => EspAuthenticationId::HMAC_SHA2_512,
                };
                attributes.push(Attribute::short(A::AUTHENTICATION.0, id.0));
            }
            attributes.extend(bits.map(|b| Attribute::short(A::KEY_LENGTH.0, b)));
            attributes.extend(self.group.map(|g| Attribute::short(A::GROUP.0, g.number())));
            Transform { number, id: id.0, attributes }
        });
        let sa = SecurityAssociation::new(vec![Proposal {
            number: 1,
            protocol: ProtocolId::ESP,
            spi: &spi,
            transforms: transforms.collect(),
        }]);
        let mut w = Writer::new();
        sa.emit(&mut w);
        w.into_vec()
    }

    /// What the responder's SA payload chose and its inbound SPI, if it is one transform of our offer.
    pub(crate) fn accepted(&self, sa: &SecurityAssociation<'_>) -> Option<(EspTransform, u32)> {
        let [Proposal { protocol: ProtocolId::ESP, transforms, spi, .. }] = &sa.proposals[..] else { return None };
        let [t] = &transforms[..] else { return None };
        let t = esp_transform(t)?;
        let spi = u32::from_be_bytes(<[u8; 4]>::try_from(*spi).ok()?);
        let fits = self.suites.contains(&t.suite) && t.encapsulation == self.encapsulation && t.group == self.group;
        (fits && spi >= 256).then_some((t, spi))
    }
}

#[cfg(test)]
mod tests;
