//! ESP transforms, RFC 2407 §4.4.4 and §4.5.

use sallyport_base::Writer;
use sallyport_crypto::dh::DhGroup;
use sallyport_crypto::suite::{EspCipher, EspInteg, EspSuite};

use super::{MAX_OFFERED, NoProposal, answer_body, list, number16, offered};
use crate::config::Config;
use crate::payload::{
    Attribute, AttributeValue, EncapsulationMode, EspAuthenticationId, EspTransformId, LifeType, Lifetimes,
    Phase2Attribute, Proposal, ProtocolId, SecurityAssociation, Transform,
};

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
        EspCipher::Aes128Gcm16 => "aes128gcm16",
        EspCipher::Aes256Gcm16 => "aes256gcm16",
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
        let long = |kind: u16, value| Attribute { kind, value: AttributeValue::Long(value) };
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
