//! Whatever arrives, and whatever an authority on the path says, is judged and makes nothing panic.

use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;

/// What an authority may say of names and policies, each a good extension's number and content.
fn constraining() -> Vec<(u64, Vec<u8>)> {
    let tagged = |tag: u8, parts: &[&[u8]]| encode(tag, parts);
    let subtrees = |names: &[(u8, &[u8])]| -> Vec<u8> {
        names.iter().flat_map(|(tag, content)| tagged(SEQUENCE, &[&tagged(*tag, &[content])])).collect()
    };
    let every_kind: &[(u8, &[u8])] = &[
        (0xa0, &[6, 1, 42, 0xa0, 2, 5, 0]),
        (0x81, b".example.com"),
        (0x82, b"example"),
        (0xa4, &[0x30, 0]),
        (0x86, b"host.example"),
        (0x87, &[192, 0, 2, 0, 255, 255, 255, 0]),
        (0x88, &[42, 3]),
    ];
    let policy = |n: u8| tagged(OID, &[&[42, n]]);
    let any = tagged(OID, &[&[0x55, 0x1d, 32, 0]]);
    let of =
        |oids: &[&[u8]]| tagged(SEQUENCE, &[&oids.iter().flat_map(|o| tagged(SEQUENCE, &[o])).collect::<Vec<u8>>()]);
    let mapping = tagged(SEQUENCE, &[&tagged(SEQUENCE, &[&policy(1), &policy(2)])]);
    vec![
        (
            30,
            tagged(
                SEQUENCE,
                &[&tagged(0xa0, &[&subtrees(every_kind)]), &tagged(0xa1, &[&subtrees(&every_kind[1..3])])],
            ),
        ),
        (32, of(&[&policy(1), &any])),
        (33, mapping),
        (36, tagged(SEQUENCE, &[&[0x80, 1, 0], &[0x81, 1, 0]])),
        (54, tagged(INTEGER, &[&[0]])),
    ]
}

proptest! {
    #[test]
    fn an_authority_that_says_nonsense_of_names_and_policies_never_makes_it_panic(
        changes in prop::collection::vec((0..5_usize, any::<prop::sample::Index>(), any::<u8>()), 0..8), said in 0..32_u8,
        leaf_says: bool,
    ) {
        static ROOT: OnceLock<Ca> = OnceLock::new();
        let root = ROOT.get_or_init(|| root("Root"));
        let mut contents = constraining();
        for (which, at, value) in changes {
            let content = &mut contents[which].1;
            let at = at.index(content.len());
            content[at] = value;
        }
        let extensions: Vec<_> = contents.iter().enumerate().filter(|(i, _)| said & 1 << i != 0).map(|(_, (number, content))| {
            CustomExtension::from_oid_content(&[2, 5, 29, *number], content.clone())
        }).collect();
        let mut params = ca_params("Sub");
        params.custom_extensions = extensions.clone();
        let sub = root.sub_with(params);
        let mut params = leaf_params("a.example");
        params.custom_extensions = if leaf_says { extensions } else { vec![] };
        let leaf = sub.leaf_with(params);
        let mut trust = trusting(&[root]);
        for (required, acceptable) in [(false, vec![]), (true, vec![]), (true, vec![vec![42, 2]])] {
            trust.set_policies(PolicySettings { required, acceptable, ..PolicySettings::default() });
            match verify(&trust, &[&leaf, &sub.der]) {
                // The leaf has addresses and a mailbox, which the first extension forbids, and nothing says a policy for it.
                Ok(_) => prop_assert!(!required || (leaf_says && said & 2 != 0)),
                Err(refusal) => prop_assert!(refusal.cause().len() > 15),
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        data in prop::collection::vec(any::<u8>(), 0..400), encoding in 0..8_u8, id_type in 0..13_u8,
        id in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let payload = [CertPayload { encoding, data: &data }];
        let id = IkeId { id_type, data: &id };
        let _ = describe_id(id);
        prop_assert!(verify_peer(&TrustStore::new(), &payload, Some(id), PeerRole::Machine, NOW).is_err());
    }

    #[test]
    fn damaged_chains_never_panic_and_never_pass_as_another(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), wrap: bool, which in 0..2_usize,
    ) {
        static CHAIN: OnceLock<(TrustStore, Vec<u8>, Vec<u8>)> = OnceLock::new();
        let (trust, sub, leaf) = CHAIN.get_or_init(|| {
            let root = root("Root");
            let sub = root.sub("Sub");
            (trusting(&[&root]), sub.der.clone(), sub.leaf("a.example"))
        });
        let mut ders = [leaf.clone(), sub.clone()];
        let target = &mut ders[which];
        for (index, value) in &changes {
            let i = index.index(target.len());
            target[i] = *value;
        }
        let id = IkeId { id_type: 2, data: b"a.example" };
        let result = if wrap {
            let data = pkcs7(&[&ders[0], &ders[1]]);
            verify_peer(trust, &[CertPayload { encoding: 1, data: &data }], Some(id), PeerRole::Machine, NOW)
        } else {
            verify_peer(trust, &payloads(&[&ders[0], &ders[1]]), Some(id), PeerRole::Machine, NOW)
        };
        match result {
            Ok(peer) => prop_assert_eq!(&peer.der, leaf),
            Err(error) => prop_assert!(!error.cause().is_empty() && !error.remedy().is_empty()),
        }
    }
}

/// What is around the part that is signed has no signature over it, and one way to be written.
#[test]
fn a_certificate_whose_frame_is_written_otherwise_is_refused() {
    let root = root("Root");
    let (trust, leaf) = (trusting(&[&root]), root.leaf("a.example"));
    let id = IkeId { id_type: 2, data: b"a.example" };
    let accepts = |der: &[u8]| verify_peer(&trust, &payloads(&[der]), Some(id), PeerRole::Machine, NOW).is_ok();
    assert!(accepts(&leaf));
    let signed = Certificate::from_der(&leaf).unwrap();
    let (_, parsed) = X509Certificate::from_der(signed.der()).unwrap();
    let head = leaf.len() - parsed.tbs_certificate.as_ref().len() - 12 - parsed.signature_value.data.len() - 3;
    let behind = head + parsed.tbs_certificate.as_ref().len();
    // The outer header, the algorithm (ECDSA with SHA-256: 12 octets) and the head of the signature.
    for at in (0..head).chain(behind..behind + 12 + 3) {
        for value in 0..=u8::MAX {
            let mut other = leaf.clone();
            other[at] = value;
            assert!(other == leaf || !accepts(&other), "octet {at} as {value:#04x}");
        }
    }
}
