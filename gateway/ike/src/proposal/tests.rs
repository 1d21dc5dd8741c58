use sallyport_base::Reader;
use sallyport_crypto::dh::DhGroup;
use sallyport_crypto::sign::SignatureMethod;
use sallyport_crypto::suite::EspSuite;

use super::*;
use crate::config::{Config, Credential, CredentialId};
use crate::payload::{Attribute, AttributeValue, Identification, Lifetimes, Phase1Attribute, Phase2Attribute};

fn config() -> Config {
    Config {
        credentials: vec![Credential {
            id: CredentialId(1),
            method: SignatureMethod::Rsa,
            chain: Vec::new(),
            issuers: Vec::new(),
            identity: Identification::fqdn("gateway"),
        }],
        ..Config::default()
    }
}

/// Transforms of phase 1 as clients send them: encryption, key length, hash, group, authentication, 28800 s as TLV.
fn phase1<'a>(list: &[(u16, Option<u16>, u16, u16, u16)], seconds: &'a [u8]) -> SecurityAssociation<'a> {
    use Phase1Attribute as A;
    let transforms = (1..).zip(list).map(|(number, (enc, bits, hash, group, auth))| {
        let mut attributes = vec![Attribute::short(A::ENCRYPTION.0, *enc)];
        attributes.extend(bits.map(|b| Attribute::short(A::KEY_LENGTH.0, b)));
        attributes.extend([
            Attribute::short(A::HASH.0, *hash),
            Attribute::short(A::GROUP.0, *group),
            Attribute::short(A::AUTHENTICATION.0, *auth),
            Attribute::short(A::LIFE_TYPE.0, 1),
            Attribute { kind: A::LIFE_DURATION.0, value: AttributeValue::Long(seconds) },
        ]);
        Transform { number, id: 1, attributes }
    });
    SecurityAssociation::new(vec![Proposal {
        number: 1,
        protocol: ProtocolId::ISAKMP,
        spi: &[],
        transforms: transforms.collect(),
    }])
}

/// What Windows proposes for L2TP, with `auth` in every transform.
fn windows(auth: u16) -> SecurityAssociation<'static> {
    phase1(
        &[
            (7, Some(256), 2, 20, auth),
            (7, Some(128), 2, 19, auth),
            (7, Some(256), 2, 14, auth),
            (5, None, 2, 14, auth),
            (5, None, 2, 2, auth),
        ],
        &[0, 0, 0x70, 0x80],
    )
}

#[test]
fn windows_with_a_certificate_gets_its_first_transform_unchanged() {
    let sa = windows(3);
    let choice = choose_phase1(&sa, &config()).unwrap();
    assert_eq!(choice.transform.to_string(), "aes256/sha1/ecp384/rsa");
    assert_eq!(choice.lifetimes, Lifetimes { seconds: Some(28_800), kilobytes: None });
    let answer = SecurityAssociation::parse(Reader::new(&choice.answer)).unwrap();
    assert_eq!(answer.proposals.len(), 1);
    assert_eq!(answer.proposals[0].transforms, [sa.proposals[0].transforms[0].clone()]);
}

#[test]
fn the_clients_order_decides_among_what_is_allowed() {
    let mut c = config();
    c.groups = vec![DhGroup::Modp2048, DhGroup::Ecp256];
    let choice = choose_phase1(&windows(3), &c).unwrap();
    assert_eq!(choice.transform.to_string(), "aes128/sha1/ecp256/rsa");
    let answer = SecurityAssociation::parse(Reader::new(&choice.answer)).unwrap();
    assert_eq!(answer.proposals[0].transforms[0].number, 2);
}

#[test]
fn a_pre_shared_key_is_off_unless_configured_and_the_refusal_says_so() {
    let sa = windows(1);
    assert!(choose_phase1(&sa, &config()).is_none());
    let no = no_phase1_proposal(&sa, &config());
    assert!(no.remedy.contains("pre-shared key"), "{}", no.remedy);
    assert!(no.cause.contains("AES_CBC-256/SHA1/ECP_384/PRE_SHARED_KEY/28800s"), "{}", no.cause);
    assert!(no.cause.contains("authentication rsa"), "{}", no.cause);
    let on = Config { pre_shared_key: true, ..config() };
    assert!(choose_phase1(&sa, &on).is_some());
}

#[test]
fn the_remedy_names_every_setting_that_is_missing() {
    let xp = phase1(&[(5, None, 2, 2, 3), (5, None, 1, 2, 3), (1, None, 2, 1, 3)], &[0, 0, 0x70, 0x80]);
    let no = no_phase1_proposal(&xp, &config());
    assert_eq!(
        no.remedy,
        "to let this client in, add \"3des\" to encryption in [gateway.ike] and \"modp1024\" to groups in [gateway.ike]"
    );
    let hopeless = phase1(&[(1, None, 2, 1, 3)], &[1]);
    assert!(no_phase1_proposal(&hopeless, &config()).remedy.contains("offers nothing"));
}

#[test]
fn attributes_in_any_order_and_form_are_understood() {
    // The lifetime first and as TV; the key length in front of the algorithm; a TLV where others send TV.
    use Phase1Attribute as A;
    let t = Transform {
        number: 1,
        id: 1,
        attributes: vec![
            Attribute::short(A::LIFE_TYPE.0, 1),
            Attribute::short(A::LIFE_DURATION.0, 28_800),
            Attribute::short(A::KEY_LENGTH.0, 256),
            Attribute { kind: A::ENCRYPTION.0, value: AttributeValue::Long(&[0, 0, 0, 7]) },
            Attribute::short(A::GROUP.0, 20),
            Attribute::short(A::HASH.0, 6),
            Attribute::short(A::AUTHENTICATION.0, 3),
        ],
    };
    let p = Proposal { number: 1, protocol: ProtocolId::ISAKMP, spi: &[1, 2, 3, 4, 5, 6, 7, 8], transforms: vec![t] };
    let choice = choose_phase1(&SecurityAssociation::new(vec![p]), &config()).unwrap();
    assert_eq!(choice.transform.to_string(), "aes256/sha512/ecp384/rsa");
    assert_eq!(choice.lifetimes.seconds, Some(28_800));
}

#[test]
fn a_transform_with_a_strange_attribute_is_not_taken_for_a_known_one() {
    use Phase1Attribute as A;
    let mut sa = windows(3);
    for t in &mut sa.proposals[0].transforms {
        t.attributes.push(Attribute::short(A::PRF.0, 1));
    }
    assert!(choose_phase1(&sa, &config()).is_none());
}

#[test]
fn our_own_offer_is_accepted_and_recognised() {
    let offer = default_offer(&config(), AuthMethod::Signature(SignatureMethod::Rsa));
    assert_eq!(offer.len(), MAX_OFFERED);
    let body = phase1_offer(&offer, 3_600);
    let choice = choose_phase1(&SecurityAssociation::parse(Reader::new(&body)).unwrap(), &config()).unwrap();
    assert_eq!(choice.transform, offer[0]);
    let answer = SecurityAssociation::parse(Reader::new(&choice.answer)).unwrap();
    assert_eq!(accepted_phase1(&answer, &offer), Some((offer[0], choice.lifetimes)));
    assert_eq!(accepted_phase1(&answer, &offer[1..]), None);
    let whole = SecurityAssociation::parse(Reader::new(&body)).unwrap();
    assert_eq!(accepted_phase1(&whole, &offer), None, "an answer has one transform");
}

const NATED: EspWish = EspWish { udp: true, native: false, doubt_sha2: false, has_ke: false };
const DIRECT: EspWish = EspWish { udp: false, native: true, doubt_sha2: false, has_ke: false };

/// An ESP transform as Windows sends it: lifetimes in seconds and kilobytes first.
fn esp(id: u8, bits: Option<u16>, auth: Option<u16>, mode: u16) -> Transform<'static> {
    use Phase2Attribute as A;
    let mut attributes = vec![
        Attribute::short(A::LIFE_TYPE.0, 1),
        Attribute { kind: A::LIFE_DURATION.0, value: AttributeValue::Long(&[0, 0, 0x0e, 0x10]) },
        Attribute::short(A::LIFE_TYPE.0, 2),
        Attribute { kind: A::LIFE_DURATION.0, value: AttributeValue::Long(&[0, 3, 0xd0, 0x90]) },
        Attribute::short(A::ENCAPSULATION.0, mode),
    ];
    attributes.extend(auth.map(|a| Attribute::short(A::AUTHENTICATION.0, a)));
    attributes.extend(bits.map(|b| Attribute::short(A::KEY_LENGTH.0, b)));
    Transform { number: 1, id, attributes }
}

fn proposals(list: Vec<(u8, ProtocolId, Transform<'static>)>) -> SecurityAssociation<'static> {
    SecurityAssociation::new(
        list.into_iter()
            .map(|(number, protocol, t)| Proposal { number, protocol, spi: &[0xc0, 1, 2, 3], transforms: vec![t] })
            .collect(),
    )
}

#[test]
fn windows_gets_aes_with_sha1_and_both_lifetimes_back() {
    let list = vec![
        (1, ProtocolId::ESP, esp(12, Some(256), Some(2), 4)),
        (2, ProtocolId::ESP, esp(12, Some(128), Some(2), 4)),
        (3, ProtocolId::ESP, esp(3, None, Some(2), 4)),
        (4, ProtocolId::ESP, esp(11, None, Some(2), 4)),
    ];
    let sa = proposals(list);
    let choice = choose_esp(&sa, &config(), NATED).unwrap();
    assert_eq!((choice.transform.suite, choice.spi_out), (EspSuite::AES256_CBC_SHA1, 0xc001_0203));
    assert_eq!(choice.transform.lifetimes, Lifetimes { seconds: Some(3_600), kilobytes: Some(250_000) });
    let body = choice.answer(0x0000_1234);
    let answer = SecurityAssociation::parse(Reader::new(&body)).unwrap();
    assert_eq!(answer.proposals[0].spi, [0, 0, 0x12, 0x34]);
    assert_eq!(answer.proposals[0].transforms, sa.proposals[0].transforms);
    // Without NAT the same list does not fit: it says UDP.
    assert!(choose_esp(&sa, &config(), DIRECT).unwrap_err().encapsulation);
}

#[test]
fn every_encapsulation_number_is_known() {
    for (mode, wish, ok) in [
        (2, DIRECT, true),
        (4, NATED, true),
        (61_444, NATED, true),
        (1, DIRECT, false),
        (1, NATED, false),
        (3, NATED, false),
        (61_443, NATED, false),
        (2, NATED, false),
        (4, DIRECT, false),
    ] {
        let sa = proposals(vec![(1, ProtocolId::ESP, esp(12, Some(256), Some(2), mode))]);
        assert_eq!(choose_esp(&sa, &config(), wish).is_ok(), ok, "mode {mode}");
    }
}

#[test]
fn tunnel_mode_ah_and_bundles_are_refused_with_reasons() {
    let tunnel = proposals(vec![(1, ProtocolId::ESP, esp(12, Some(256), Some(2), 1))]);
    assert!(choose_esp(&tunnel, &config(), DIRECT).unwrap_err().remedy.contains("tunnel mode"));
    let ah = proposals(vec![(1, ProtocolId::AH, esp(3, None, Some(2), 2))]);
    assert!(choose_esp(&ah, &config(), DIRECT).unwrap_err().remedy.contains("AH"));
    let both = proposals(vec![
        (1, ProtocolId::AH, esp(3, None, Some(2), 2)),
        (1, ProtocolId::ESP, esp(12, Some(256), Some(2), 2)),
        (2, ProtocolId::ESP, esp(12, Some(128), Some(2), 2)),
    ]);
    let choice = choose_esp(&both, &config(), DIRECT).unwrap();
    assert_eq!(choice.transform.suite, EspSuite::AES128_CBC_SHA1);
    let null = proposals(vec![(1, ProtocolId::ESP, esp(12, Some(256), None, 2))]);
    assert!(choose_esp(&null, &config(), DIRECT).is_err(), "CBC without integrity");
    let nothing = EspWish { udp: false, native: false, ..DIRECT };
    assert!(choose_esp(&tunnel, &config(), nothing).unwrap_err().remedy.contains("CAP_NET_RAW"));
}

#[test]
fn gcm_and_triple_des_come_with_and_without_needless_attributes() {
    let sa = proposals(vec![(1, ProtocolId::ESP, esp(20, Some(128), None, 2))]);
    assert_eq!(choose_esp(&sa, &config(), DIRECT).unwrap().transform.suite, EspSuite::AES128_GCM16);
    let mut c = config();
    c.esp_suites = vec![EspSuite::TRIPLE_DES_SHA1];
    for bits in [None, Some(192)] {
        let sa = proposals(vec![(1, ProtocolId::ESP, esp(3, bits, Some(2), 2))]);
        assert_eq!(choose_esp(&sa, &c, DIRECT).unwrap().transform.suite, EspSuite::TRIPLE_DES_SHA1);
    }
    let no = choose_esp(&proposals(vec![(1, ProtocolId::ESP, esp(3, None, Some(2), 2))]), &config(), DIRECT);
    assert_eq!(no.unwrap_err().remedy, "to let this client in, add \"3des-sha1\" to suites in [gateway.esp]");
}

#[test]
fn sha2_comes_last_for_clients_that_may_cut_it_short() {
    let sa = proposals(vec![
        (1, ProtocolId::ESP, esp(12, Some(256), Some(5), 2)),
        (2, ProtocolId::ESP, esp(12, Some(256), Some(2), 2)),
    ]);
    let old = EspWish { doubt_sha2: true, ..DIRECT };
    assert_eq!(choose_esp(&sa, &config(), DIRECT).unwrap().transform.suite, EspSuite::AES256_CBC_SHA256);
    assert_eq!(choose_esp(&sa, &config(), old).unwrap().transform.suite, EspSuite::AES256_CBC_SHA1);
    let only = proposals(vec![(1, ProtocolId::ESP, esp(12, Some(256), Some(5), 2))]);
    assert!(choose_esp(&only, &config(), old).is_ok());
}

#[test]
fn pfs_needs_a_group_that_is_allowed_and_a_key() {
    let with_group = |group| {
        let mut t = esp(12, Some(256), Some(2), 2);
        t.attributes.push(Attribute::short(Phase2Attribute::GROUP.0, group));
        proposals(vec![(1, ProtocolId::ESP, t)])
    };
    let ke = EspWish { has_ke: true, ..DIRECT };
    let choice = choose_esp(&with_group(14), &config(), ke).unwrap();
    assert_eq!(choice.transform.group, Some(DhGroup::Modp2048));
    assert!(choose_esp(&with_group(14), &config(), DIRECT).unwrap_err().remedy.contains("sends no key"));
    assert!(choose_esp(&with_group(2), &config(), ke).unwrap_err().remedy.contains("modp1024"));
    assert!(choose_esp(&with_group(99), &config(), ke).is_err());
}

#[test]
fn reserved_spis_are_not_taken() {
    let mut sa = proposals(vec![(1, ProtocolId::ESP, esp(12, Some(256), Some(2), 2))]);
    sa.proposals[0].spi = &[0, 0, 0, 255];
    assert!(choose_esp(&sa, &config(), DIRECT).is_err());
    sa.proposals[0].spi = &[1, 0];
    assert!(choose_esp(&sa, &config(), DIRECT).is_err());
}
