//! Phase 1 transforms, RFC 2409 appendix A.

use core::fmt;

use sallyport_base::Writer;
use sallyport_crypto::cbc::CbcAlg;
use sallyport_crypto::dh::DhGroup;
use sallyport_crypto::hash::HashAlg;
use sallyport_crypto::sign::SignatureMethod;

use super::{MAX_OFFERED, NoProposal, answer_body, list, number16, offered};
use crate::config::Config;
use crate::payload::{
    Attribute, AttributeValue, AuthenticationId, EncryptionId, HashId, IsakmpTransformId, LifeType, Lifetimes,
    Phase1Attribute, Proposal, ProtocolId, SecurityAssociation, Transform,
};

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
            Attribute { kind: A::LIFE_DURATION.0, value: AttributeValue::Long(&seconds) },
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
