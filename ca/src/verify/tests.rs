//! Every cause of refusal, and the chains that must pass. The certificates are made by rcgen directly, because the
//! authority of this crate refuses to make most of them.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyUsagePurpose, NameConstraints, SanType,
};

use super::*;
use crate::der::{CONTEXT_0, INTEGER, OID, SEQUENCE, SET, encode};

mod properties;

const NOW: UnixTime = UnixTime(1_800_000_000);
const DAY: i64 = 86_400;

/// A test authority: parameters, key, certificate.
struct Ca {
    issuer: Issuer<'static, rcgen::KeyPair>,
    der: Vec<u8>,
}

fn key() -> rcgen::KeyPair {
    rcgen::KeyPair::generate().unwrap()
}

fn at(offset_days: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(NOW.0 + offset_days * DAY).unwrap()
}

fn named(common_name: &str) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    dn.push(DnType::OrganizationName, "Example");
    dn.push(DnType::CommonName, common_name);
    dn
}

fn ca_params(name: &str) -> CertificateParams {
    let mut p = CertificateParams::default();
    p.distinguished_name = named(name);
    p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    p.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    p.use_authority_key_identifier_extension = true;
    (p.not_before, p.not_after) = (at(-100), at(100));
    p
}

fn leaf_params(name: &str) -> CertificateParams {
    let mut p = CertificateParams::default();
    p.distinguished_name = named(name);
    p.is_ca = IsCa::ExplicitNoCa;
    p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    p.subject_alt_names = vec![
        SanType::DnsName(name.try_into().unwrap()),
        SanType::Rfc822Name("Ann@Example.com".try_into().unwrap()),
        SanType::IpAddress("192.0.2.7".parse().unwrap()),
        SanType::IpAddress("2001:db8::7".parse().unwrap()),
    ];
    p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    p.use_authority_key_identifier_extension = true;
    (p.not_before, p.not_after) = (at(-10), at(10));
    p
}

fn root_with(params: CertificateParams) -> Ca {
    let key = key();
    let der = params.self_signed(&key).unwrap().der().to_vec();
    Ca { issuer: Issuer::new(params, key), der }
}

fn root(name: &str) -> Ca {
    root_with(ca_params(name))
}

impl Ca {
    fn sub_with(&self, params: CertificateParams) -> Ca {
        let key = key();
        let der = params.signed_by(&key, &self.issuer).unwrap().der().to_vec();
        Ca { issuer: Issuer::new(params, key), der }
    }

    fn sub(&self, name: &str) -> Ca {
        self.sub_with(ca_params(name))
    }

    fn leaf_with(&self, params: CertificateParams) -> Vec<u8> {
        params.signed_by(&key(), &self.issuer).unwrap().der().to_vec()
    }

    fn leaf(&self, name: &str) -> Vec<u8> {
        self.leaf_with(leaf_params(name))
    }
}

fn trusting(cas: &[&Ca]) -> TrustStore {
    let mut trust = TrustStore::new();
    cas.iter().for_each(|c| trust.add_anchor_der(&c.der).unwrap());
    trust
}

fn payloads<'a>(ders: &'a [&'a [u8]]) -> Vec<CertPayload<'a>> {
    ders.iter().map(|data| CertPayload { encoding: 4, data }).collect()
}

fn verify(trust: &TrustStore, ders: &[&[u8]]) -> Result<PeerCertificate, VerifyError> {
    verify_peer(trust, &payloads(ders), None, PeerRole::Machine, NOW)
}

/// The label of the refusal, after its texts were seen to say something.
fn label(result: Result<PeerCertificate, VerifyError>) -> &'static str {
    let error = result.unwrap_err();
    assert!(error.cause().len() > 15 && error.remedy().len() > 15 && !error.cause().contains("  "), "{error:?}");
    error.label()
}

fn pkcs7(ders: &[&[u8]]) -> Vec<u8> {
    let oid = |last: u8| encode(OID, &[&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, last]]);
    let inner = encode(SEQUENCE, &[&oid(1)]);
    let parts = [&encode(INTEGER, &[&[1]])[..], &encode(SET, &[]), &inner, &encode(CONTEXT_0, ders), &encode(SET, &[])];
    encode(SEQUENCE, &[&oid(2), &encode(CONTEXT_0, &[&encode(SEQUENCE, &parts)])])
}

#[test]
fn a_chain_is_found_among_unordered_payloads() {
    let root = root("Root");
    let (policy, issuing, other) = (root.sub("Policy CA"), root.sub("Other CA"), self::root("Strange"));
    let issuing2 = policy.sub("Issuing CA");
    let leaf = issuing2.leaf("laptop7.example.com");
    let trust = trusting(&[&other, &root]);
    let expected = Fingerprint::of(&leaf);
    for order in [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3], [3, 4, 1, 0, 2]] {
        let all: [&[u8]; 5] = [&leaf, &issuing2.der, &policy.der, &root.der, &issuing.der];
        let ders: Vec<&[u8]> = order.iter().map(|i| all[*i]).collect();
        let peer = verify(&trust, &ders).unwrap();
        assert_eq!((peer.fingerprint, peer.anchor), (expected, Fingerprint::of(&root.der)));
        assert_eq!((&*peer.display_name(), &*peer.issuer), ("laptop7.example.com", "O=Example, CN=Issuing CA"));
        assert_eq!(peer.alt_names.len(), 4);
    }
}

#[test]
fn intermediates_may_come_in_pkcs7_or_from_the_store() {
    let root = root("Root");
    let sub = root.sub("Sub");
    let leaf = sub.leaf("a.example");
    let mut trust = trusting(&[&root]);
    let wrapped = pkcs7(&[&sub.der, &leaf]);
    let one = [CertPayload { encoding: 1, data: &wrapped }];
    assert!(verify_peer(&trust, &one, None, PeerRole::Machine, NOW).is_ok());
    let with_crl = [CertPayload { encoding: 7, data: b"a crl" }, CertPayload { encoding: 4, data: &leaf }];
    assert_eq!(label(verify_peer(&trust, &with_crl, None, PeerRole::Machine, NOW)), "unknown-issuer");
    trust.add_intermediate_der(&sub.der).unwrap();
    assert!(verify_peer(&trust, &with_crl, None, PeerRole::Machine, NOW).is_ok());
}

#[test]
fn the_identity_picks_the_certificate_and_must_stand_in_it() {
    let root = root("Root");
    let (leaf, other) = (root.leaf("laptop7.example.com"), root.leaf("b.example"));
    let trust = trusting(&[&root]);
    let ders: [&[u8]; 3] = [&root.der, &other, &leaf];
    let check = |id_type, data: &[u8]| {
        verify_peer(&trust, &payloads(&ders), Some(IkeId { id_type, data }), PeerRole::Machine, NOW)
    };
    let subject = Certificate::from_der(&leaf).unwrap().subject_der();
    assert_eq!(check(9, &subject).unwrap().der, leaf);
    assert_eq!(check(2, b"LAPTOP7.example.com").unwrap().der, leaf);
    assert_eq!(check(3, b"Ann@EXAMPLE.com").unwrap().der, other, "the first that has the name");
    assert_eq!(check(1, &[192, 0, 2, 7]).unwrap().der, other);
    let v6: std::net::Ipv6Addr = "2001:db8::7".parse().unwrap();
    assert!(check(5, &v6.octets()).is_ok());

    assert_eq!(label(check(2, b"c.example")), "name-mismatch");
    assert_eq!(label(check(2, b"")), "name-mismatch");
    assert_eq!(label(check(3, b"ann@example.com")), "name-mismatch", "local parts are case sensitive");
    assert_eq!(label(check(1, &[192, 0, 2, 8])), "name-mismatch");
    assert_eq!(label(check(1, &[192, 0, 2])), "name-mismatch");
    assert_eq!(label(check(11, b"laptop7.example.com")), "name-mismatch");
    assert_eq!(label(check(9, b"junk")), "malformed");
    assert_eq!(label(check(9, &[0x30, 0])), "name-mismatch", "the empty name");
    let claimed = Certificate::from_der(&root.der).unwrap().subject_der();
    assert_eq!(label(check(9, &claimed)), "name-mismatch");
}

use crate::Certificate;

#[test]
fn a_distinguished_name_matches_in_another_encoding_but_not_another_name() {
    let root = root("Root");
    let trust = trusting(&[&root]);
    let leaf = root.leaf("laptop7.example.com");
    let check = |dn: DistinguishedName| {
        let mut p = CertificateParams::default();
        p.distinguished_name = dn;
        let data = Certificate::from_der(p.self_signed(&key()).unwrap().der()).unwrap().subject_der();
        let id = IkeId { id_type: 9, data: &data };
        verify_peer(&trust, &payloads(&[&leaf]), Some(id), PeerRole::Machine, NOW).map(drop)
    };
    let dn = |o: &str, cn: &str| {
        let mut dn = DistinguishedName::new();
        dn.push(DnType::OrganizationName, DnValue::PrintableString(o.try_into().unwrap()));
        dn.push(DnType::CommonName, DnValue::BmpString(cn.try_into().unwrap()));
        dn
    };
    assert!(check(dn("Example", "laptop7.example.com")).is_ok());
    assert!(check(dn(" EXAMPLE ", "Laptop7.example.com")).is_ok());
    assert!(check(dn("Exam ple", "laptop7.example.com")).is_err());
    assert!(check(dn("Example", "laptop7.example.co")).is_err());
    let mut more = dn("Example", "laptop7.example.com");
    more.push(DnType::CountryName, "DE");
    assert!(check(more).is_err());
    let mut swapped = DistinguishedName::new();
    swapped.push(DnType::CommonName, "laptop7.example.com");
    swapped.push(DnType::OrganizationName, "Example");
    assert!(check(swapped).is_err());
}

#[test]
fn the_common_name_counts_as_host_name_only_where_there_is_no_alternative_name() {
    let root = root("Root");
    let trust = trusting(&[&root]);
    let mut old = leaf_params("old.example");
    old.subject_alt_names.clear();
    let old = root.leaf_with(old);
    let mut new = leaf_params("new.example");
    new.distinguished_name = named("cn.example");
    let new = root.leaf_with(new);
    let check = |der: &[u8], name: &str| {
        let id = IkeId { id_type: 2, data: name.as_bytes() };
        verify_peer(&trust, &payloads(&[der]), Some(id), PeerRole::Machine, NOW)
    };
    assert!(check(&old, "OLD.example").is_ok());
    assert_eq!(label(check(&new, "cn.example")), "name-mismatch");
}

#[test]
fn expired_and_strange_are_different_causes() {
    let (root, strange) = (root("Root"), self::root("Strange Root"));
    let trust = trusting(&[&root]);
    let mut expired = leaf_params("a.example");
    (expired.not_before, expired.not_after) = (at(-9), at(-1));
    let mut early = leaf_params("a.example");
    early.not_before = at(1);
    let refusal = verify(&trust, &[&root.leaf_with(expired.clone())]).unwrap_err();
    assert!(refusal.cause().contains("CN=a.example expired on 2027-01-14 08:00 UTC (it is 2027-01-15 08:00 UTC)"));
    assert_eq!(refusal.label(), "expired");
    assert_eq!(label(verify(&trust, &[&root.leaf_with(early)])), "not-yet-valid");
    let refusal = verify(&trust, &[&strange.leaf("a.example"), &strange.der]).unwrap_err();
    assert_eq!(refusal.label(), "unknown-issuer");
    assert!(refusal.cause().contains("CN=Strange Root") && refusal.remedy().contains("CN=Strange Root"));
    // Both at once: whose it is comes first.
    assert_eq!(label(verify(&trust, &[&strange.leaf_with(expired)])), "unknown-issuer");
    assert_eq!(label(verify(&TrustStore::new(), &[&root.leaf("a.example")])), "unknown-issuer");

    let mut old = ca_params("Old Root");
    old.not_after = at(-1);
    let old = root_with(old);
    assert_eq!(label(verify(&trusting(&[&old]), &[&old.leaf("a.example")])), "expired");
    let mut old_sub = ca_params("Old Sub");
    old_sub.not_after = at(-1);
    let old_sub = root.sub_with(old_sub);
    let refusal = verify(&trust, &[&old_sub.leaf("a.example"), &old_sub.der]).unwrap_err();
    assert!(refusal.label() == "expired" && refusal.cause().contains("CN=Old Sub"));
}

#[test]
fn an_authority_made_anew_under_its_old_name_is_a_strange_one() {
    let (ours, impostor) = (root("Root"), root("Root"));
    assert_eq!(label(verify(&trusting(&[&ours]), &[&impostor.leaf("a.example")])), "unknown-issuer");
    // Without key identifiers only the signature tells.
    let mut bare = leaf_params("a.example");
    bare.use_authority_key_identifier_extension = false;
    assert_eq!(label(verify(&trusting(&[&ours]), &[&impostor.leaf_with(bare)])), "bad-signature");
    // Both trusted, as during a rollover: either works.
    let both = trusting(&[&ours, &impostor]);
    assert!(verify(&both, &[&impostor.leaf("a.example")]).is_ok() && verify(&both, &[&ours.leaf("a.example")]).is_ok());
}

#[test]
fn an_altered_certificate_has_a_bad_signature() {
    let root = root("Root");
    let mut leaf = root.leaf("laptop7.example.com");
    let at = leaf.windows(7).position(|w| w == b"laptop7").unwrap();
    leaf[at] = b'L';
    assert_eq!(label(verify(&trusting(&[&root]), &[&leaf])), "bad-signature");
}

#[test]
fn a_signature_of_an_unaccepted_algorithm_is_named() {
    let root = root("Root");
    let mut leaf = root.leaf("a.example");
    // ecdsa-with-SHA256 becomes ecdsa-with-SHA224, in both places.
    let oid = [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
    let places: Vec<usize> = (0..leaf.len() - 8).filter(|i| leaf[*i..*i + 8] == oid).collect();
    places.iter().for_each(|i| leaf[i + 7] = 1);
    let refusal = verify(&trusting(&[&root]), &[&leaf]).unwrap_err();
    assert_eq!((places.len(), refusal.label()), (2, "weak-signature"));
    assert!(refusal.cause().contains("1.2.840.10045.4.3.1"));
    leaf[places[0] + 7] = 2;
    assert_eq!(label(verify(&trusting(&[&root]), &[&leaf])), "malformed");
}

#[test]
fn keys_that_ike_cannot_use_are_named() {
    let root = root("Root");
    let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let leaf = leaf_params("a.example").signed_by(&ed25519, &root.issuer).unwrap().der().to_vec();
    assert_eq!(label(verify(&trusting(&[&root]), &[&leaf])), "unsupported-key");
}

#[test]
fn usages_are_checked_for_the_role() {
    let root = root("Root");
    let trust = trusting(&[&root]);
    let with = |eku: Vec<ExtendedKeyUsagePurpose>| {
        let mut p = leaf_params("a.example");
        p.extended_key_usages = eku;
        root.leaf_with(p)
    };
    let ok = |der: &[u8], role| verify_peer(&trust, &payloads(&[der]), None, role, NOW).is_ok();
    let other = |last| ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, last]);
    let ike_intermediate = ExtendedKeyUsagePurpose::Other(crate::profile::IKE_INTERMEDIATE.to_vec());
    for (eku, machine, gateway) in [
        (vec![], true, true),
        (vec![ExtendedKeyUsagePurpose::Any], true, true),
        (vec![other(17)], true, true),
        (vec![ike_intermediate], true, true),
        (vec![ExtendedKeyUsagePurpose::ClientAuth], true, false),
        (vec![ExtendedKeyUsagePurpose::ServerAuth], false, true),
        (vec![other(5)], true, false),
        (vec![ExtendedKeyUsagePurpose::CodeSigning], false, false),
    ] {
        let der = with(eku.clone());
        assert_eq!((ok(&der, PeerRole::Machine), ok(&der, PeerRole::Gateway)), (machine, gateway), "{eku:?}");
    }
    assert_eq!(label(verify(&trust, &[&with(vec![ExtendedKeyUsagePurpose::CodeSigning])])), "wrong-usage");

    let mut encipher = leaf_params("a.example");
    encipher.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
    assert_eq!(label(verify(&trust, &[&root.leaf_with(encipher)])), "wrong-usage");
    let mut non_repudiation = leaf_params("a.example");
    non_repudiation.key_usages = vec![KeyUsagePurpose::ContentCommitment];
    assert!(verify(&trust, &[&root.leaf_with(non_repudiation)]).is_ok());
    let mut none = leaf_params("a.example");
    none.key_usages.clear();
    assert!(verify(&trust, &[&root.leaf_with(none)]).is_ok());
}

#[test]
fn only_authorities_issue_and_no_authority_is_a_peer() {
    let root = root("Root");
    let trust = trusting(&[&root]);
    // A machine that issues certificates with its own key.
    let machine = root.sub_with(leaf_params("machine.example"));
    assert_eq!(label(verify(&trust, &[&machine.leaf("forged.example"), &machine.der])), "wrong-usage");
    let mut no_sign = ca_params("No Sign");
    no_sign.key_usages = vec![KeyUsagePurpose::CrlSign];
    let no_sign = root.sub_with(no_sign);
    assert_eq!(label(verify(&trust, &[&no_sign.leaf("a.example"), &no_sign.der])), "wrong-usage");
    assert_eq!(label(verify(&trust, &[&root.der])), "wrong-usage");
    assert_eq!(label(verify(&trust, &[&root.sub("Sub").der])), "wrong-usage");
    assert_eq!(trust.clone().add_anchor_der(&root.leaf("a.example")).unwrap_err().label(), "wrong-usage");
    assert_eq!(trust.clone().add_anchor_der(b"junk").unwrap_err().label(), "malformed");
    // A constrained authority: for servers only.
    let mut server_only = ca_params("Server CA");
    server_only.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server_only = root.sub_with(server_only);
    assert_eq!(label(verify(&trust, &[&server_only.leaf("a.example"), &server_only.der])), "wrong-usage");
}

#[test]
fn what_must_be_understood_and_is_not_is_refused() {
    let root = root("Root");
    let trust = trusting(&[&root]);
    let mut custom = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
    let mut p = leaf_params("a.example");
    p.custom_extensions = vec![custom.clone()];
    assert!(verify(&trust, &[&root.leaf_with(p.clone())]).is_ok());
    custom.set_criticality(true);
    p.custom_extensions = vec![custom.clone()];
    let refusal = verify(&trust, &[&root.leaf_with(p.clone())]).unwrap_err();
    assert!(refusal.label() == "unsupported-extension" && refusal.cause().contains("1.3.6.1.4.1.99999.1"));
    custom.set_criticality(false);
    p.custom_extensions = vec![custom.clone(), custom];
    assert_eq!(label(verify(&trust, &[&root.leaf_with(p)])), "malformed");
}

#[test]
fn an_authority_is_validated_as_one_and_only_then() {
    let root = root("Company Root");
    let trust = trusting(&[&root]);
    let subordinate = root.sub("Our Root");
    let as_authority = |ders: &[&[u8]]| verify_peer(&trust, &payloads(ders), None, PeerRole::Authority, NOW);
    assert_eq!(as_authority(&[&subordinate.der]).unwrap().common_name.as_deref(), Some("Our Root"));
    assert_eq!(label(verify(&trust, &[&subordinate.der])), "wrong-usage");
    assert_eq!(label(as_authority(&[&root.leaf("a.example")])), "wrong-usage");
    let mut p = ca_params("Signs Lists Only");
    p.key_usages = vec![KeyUsagePurpose::CrlSign];
    assert_eq!(label(as_authority(&[&root.sub_with(p).der])), "wrong-usage");
    // What it issues later on counts as below it, not the certificate itself.
    let mut p = ca_params("Last");
    p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let last = root.sub_with(p);
    assert!(as_authority(&[&last.der]).is_ok());
}

#[test]
fn an_authority_certifies_only_the_names_that_it_may() {
    let root = root("Root");
    let trust = trusting(&[&root]);
    let constrained = |permitted: Vec<GeneralSubtree>, excluded: Vec<GeneralSubtree>| {
        let mut p = ca_params("Constrained");
        p.name_constraints = Some(NameConstraints { permitted_subtrees: permitted, excluded_subtrees: excluded });
        root.sub_with(p)
    };
    let dns = |s: &str| GeneralSubtree::DnsName(s.into());
    let ca = constrained(vec![dns("example")], vec![dns("secret.example")]);
    assert!(verify(&trust, &[&ca.leaf("a.example"), &ca.der]).is_ok());
    let refusal = verify(&trust, &[&ca.leaf("a.example.org"), &ca.der]).unwrap_err();
    assert!(refusal.cause().contains("the name a.example.org, which O=Example, CN=Constrained"), "{refusal}");
    assert_eq!(label(verify(&trust, &[&ca.leaf("b.secret.example"), &ca.der])), "name-not-permitted");
    // What is below is bound, too, and cannot be talked out of it.
    let mut wider = ca_params("Sub");
    wider.name_constraints = Some(NameConstraints { permitted_subtrees: vec![dns("org")], excluded_subtrees: vec![] });
    let sub = ca.sub_with(wider);
    for name in ["a.example", "a.org"] {
        assert_eq!(label(verify(&trust, &[&sub.leaf(name), &sub.der, &ca.der])), "name-not-permitted");
    }
    // Without alternative names the common name is the host's, and no way around.
    let named = |name: &str| {
        let mut p = leaf_params("a.example");
        (p.distinguished_name, p.subject_alt_names) = (super::tests::named(name), vec![]);
        ca.leaf_with(p)
    };
    assert!(verify(&trust, &[&named("a.example"), &ca.der]).is_ok());
    assert_eq!(label(verify(&trust, &[&named("a.example.org"), &ca.der])), "name-not-permitted");
    let mailboxes = constrained(vec![GeneralSubtree::Rfc822Name("example.com".into())], vec![]);
    assert!(verify(&trust, &[&mailboxes.leaf("a.example"), &mailboxes.der]).is_ok());
    let mailboxes = constrained(vec![], vec![GeneralSubtree::Rfc822Name("example.com".into())]);
    assert_eq!(label(verify(&trust, &[&mailboxes.leaf("a.example"), &mailboxes.der])), "name-not-permitted");
    // The test's leaves have an IPv4 and an IPv6 address: a network of one kind permits none of the other.
    let network = GeneralSubtree::IpAddress(rcgen::CidrSubnet::V4([192, 0, 2, 0], [255, 255, 255, 0]));
    let networks = constrained(vec![network.clone()], vec![]);
    assert_eq!(label(verify(&trust, &[&networks.leaf("a.example"), &networks.der])), "name-not-permitted");
    let networks =
        constrained(vec![network, GeneralSubtree::IpAddress(rcgen::CidrSubnet::V6([0; 16], [0; 16]))], vec![]);
    assert!(verify(&trust, &[&networks.leaf("a.example"), &networks.der]).is_ok());
    // The anchor's own constraints are obeyed.
    let mut p = ca_params("Anchor");
    p.name_constraints = Some(NameConstraints { permitted_subtrees: vec![dns("example")], excluded_subtrees: vec![] });
    let anchor = root_with(p);
    let trust = trusting(&[&anchor]);
    assert!(verify(&trust, &[&anchor.leaf("a.example")]).is_ok());
    assert_eq!(label(verify(&trust, &[&anchor.leaf("a.org")])), "name-not-permitted");
}

#[test]
fn path_lengths_are_bounded_by_the_authority_and_by_us() {
    let mut short = ca_params("Short");
    short.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let short = root_with(short);
    let trust = trusting(&[&short]);
    assert!(verify(&trust, &[&short.leaf("a.example")]).is_ok());
    let sub = short.sub("Sub");
    assert_eq!(label(verify(&trust, &[&sub.leaf("a.example"), &sub.der])), "path-too-long");

    let root = root("Root");
    let mut chain = vec![root.sub("CA 1")];
    for n in 2..=5 {
        let next = chain.last().unwrap().sub(&format!("CA {n}"));
        chain.push(next);
    }
    let trust = trusting(&[&root]);
    let with = |n: usize| {
        let leaf = chain[n - 1].leaf("a.example");
        let ders: Vec<&[u8]> = chain[..n].iter().map(|c| &c.der[..]).chain([&leaf[..]]).collect();
        verify(&trust, &ders)
    };
    assert!(with(4).is_ok(), "six certificates with leaf and root");
    assert_eq!(label(with(5)), "path-too-long");
}

#[test]
fn another_path_is_tried_when_the_first_is_no_good() {
    // One issuing key with two certificates: the one under the old root is expired.
    let (old, new) = (root("Old Root"), root("New Root"));
    let mut params = ca_params("Issuing");
    params.not_after = at(-1);
    let issuing_key = key();
    let under_old = params.signed_by(&issuing_key, &old.issuer).unwrap().der().to_vec();
    params.not_after = at(100);
    let under_new = params.signed_by(&issuing_key, &new.issuer).unwrap().der().to_vec();
    let leaf = Ca { issuer: Issuer::new(params, issuing_key), der: vec![] }.leaf("a.example");
    let both = trusting(&[&old, &new]);
    assert!(verify(&both, &[&leaf, &under_old, &under_new]).is_ok());
    assert!(verify(&both, &[&leaf, &under_new, &under_old]).is_ok());
    assert_eq!(label(verify(&both, &[&leaf, &under_old])), "expired");
}

#[test]
fn what_a_peer_can_make_large_is_bounded() {
    let root = root("Root");
    let trust = trusting(&[&root]);
    assert_eq!(label(verify(&trust, &[])), "no-certificate");
    let leaves: Vec<Vec<u8>> = (0..17).map(|i| root.leaf(&format!("m{i}.example"))).collect();
    let ders: Vec<&[u8]> = leaves.iter().map(|l| &l[..]).collect();
    assert!(verify(&trust, &ders[..16]).is_ok());
    assert_eq!(label(verify(&trust, &ders)), "too-many");
    assert_eq!(label(verify(&trust, &[&vec![0x30; MAX_CERTIFICATE_LEN + 1]])), "too-long");
    let crls = vec![CertPayload { encoding: 7, data: b"crl" }; 65];
    assert_eq!(label(verify_peer(&trust, &crls, None, PeerRole::Machine, NOW)), "too-many");
    assert_eq!(label(verify_peer(&trust, &crls[..2], None, PeerRole::Machine, NOW)), "no-certificate");
    assert_eq!(
        label(verify_peer(&trust, &[CertPayload { encoding: 1, data: b"x" }], None, PeerRole::Machine, NOW)),
        "malformed"
    );
    assert_eq!(label(verify(&trust, &[b"junk"])), "malformed");
    let mut long = root.leaf("a.example");
    long.push(0);
    assert_eq!(label(verify(&trust, &[&long])), "malformed", "bytes after the certificate");

    // Fifteen authorities of one name, each of which might have signed each: a search without end if it had none.
    let same: Vec<Ca> = (0..15)
        .map(|_| {
            let mut p = ca_params("Same");
            p.use_authority_key_identifier_extension = false;
            root_with(p)
        })
        .collect();
    let mut p = leaf_params("a.example");
    p.use_authority_key_identifier_extension = false;
    let leaf = same[14].leaf_with(p);
    let ders: Vec<&[u8]> = same.iter().map(|c| &c.der[..]).chain([&leaf[..]]).collect();
    let refusal = label(verify(&trust, &ders));
    assert!(["too-many", "unknown-issuer", "bad-signature"].contains(&refusal), "{refusal}");
}
