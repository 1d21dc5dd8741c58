use hex_literal::hex;
use sallyport_crypto::dh::DhGroup;

use super::*;

/// NIST CAVP kdf135, IKEv1 with a pre-shared key and SHA-1.
#[test]
fn skeyid_is_that_of_nist_cavp() {
    let transform = Phase1Transform {
        cipher: CbcAlg::Aes128,
        hash: HashAlg::Sha1,
        group: DhGroup::Modp2048,
        method: AuthMethod::PreSharedKey,
    };
    let g_xy = hex!("739003ba2c11c982946c65e26acf661fbf8ebb78011a9fead79efa12fe3e71cc");
    let skeyid = skeyid_psk(HashAlg::Sha1, &hex!("75"), &hex!("b9a2d0e922dc66dd"), &hex!("2130166863b5ddef"));
    assert_eq!(skeyid[..], hex!("62b04d112877e442fc3282fc37c076997718a0b9"));
    let cookies = (Cookie(hex!("83d374c30b3b5082")), Cookie(hex!("5afc0da06c728029")));
    let keys = Keys::derive(&transform, &skeyid, &g_xy, cookies.0, cookies.1);
    assert_eq!(keys.skeyid_d[..], hex!("369e5aad1bdb5faf6a3d929d500cdc236710a9ab"));
    assert_eq!(keys.skeyid_a[..], hex!("588e957d8d790d093b3a39f121473473af78e9bb"));
    // The key of AES-128 is the beginning of SKEYID_e.
    assert_eq!(keys.ka[..], hex!("cd74b0c048219db81384d3fda8f6cda51e398a2b")[..16]);
}

/// RFC 2409 appendix B: `K1 = prf(SKEYID_e, 0)`, `K2 = prf(SKEYID_e, K1)`.
#[test]
fn a_long_key_is_stretched_as_appendix_b_says() {
    let skeyid_e = hex!("cd74b0c048219db81384d3fda8f6cda51e398a2b");
    let k1 = HashAlg::Sha1.hmac(&skeyid_e, &[&[0]]);
    let k2 = HashAlg::Sha1.hmac(&skeyid_e, &[&k1]);
    assert_eq!(stretch(HashAlg::Sha1, &skeyid_e, 32)[..], [&k1[..], &k2[..]].concat()[..32]);
    assert_eq!(stretch(HashAlg::Sha1, &skeyid_e, 16)[..], skeyid_e[..16]);
}

#[test]
fn an_ecdsa_method_brings_its_own_hash() {
    use sallyport_crypto::sign::SignatureMethod;
    for (method, len) in [
        (AuthMethod::PreSharedKey, 20),
        (AuthMethod::Signature(SignatureMethod::Rsa), 20),
        (AuthMethod::Signature(SignatureMethod::EcdsaP256), 32),
        (AuthMethod::Signature(SignatureMethod::EcdsaP384), 48),
    ] {
        let transform =
            Phase1Transform { cipher: CbcAlg::Aes256, hash: HashAlg::Sha1, group: DhGroup::Modp2048, method };
        let skeyid = HashAlg::Sha1.digest(&[b"x"]);
        let (cky_i, cky_r) = (Cookie([1; 8]), Cookie([2; 8]));
        let h = Phase1Hash { transform: &transform, skeyid: &skeyid, cky_i, cky_r, g_xi: b"a", g_xr: b"b", sa_i: b"c" };
        assert_eq!((h.hash_i(b"id").len(), h.hash_r(b"id").len()), (len, len));
        assert_ne!(h.hash_i(b"id"), h.hash_r(b"id"));
    }
}

#[test]
fn what_is_sealed_opens_and_the_iv_chains() {
    let transform = Phase1Transform {
        cipher: CbcAlg::TripleDes,
        hash: HashAlg::Md5,
        group: DhGroup::Modp1024,
        method: AuthMethod::PreSharedKey,
    };
    let skeyid = HashAlg::Md5.digest(&[b"x"]);
    let (cky_i, cky_r) = (Cookie([1; 8]), Cookie([2; 8]));
    let keys = Keys::derive(&transform, &skeyid, b"secret", cky_i, cky_r);
    let iv = phase1_iv(&transform, b"a", b"b");
    let mut chain = ChainWriter::new();
    chain.bytes(PayloadType::HASH, &[7; 13]);
    let header = Header::v1(cky_i, cky_r, crate::header::ExchangeType::MAIN_MODE, 0);
    let (message, next) = keys.seal(&iv, header, &chain);
    let (h, body) = Header::split(&message).unwrap();
    assert!(h.is_encrypted() && h.next_payload == PayloadType::HASH && body.len() == 24);
    let (plain, after) = keys.open(&iv, body).unwrap();
    assert_eq!((&plain[..17], after), (chain.as_slice(), next));
    assert_eq!(plain[17..], [0; 7], "padding is zeros");
    assert!(keys.open(&iv, &body[1..]).is_none() && keys.open(&iv, &[]).is_none());
    assert!(!format!("{keys:?}").contains("115"));
}
