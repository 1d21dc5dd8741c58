use hex_literal::hex;
use sallyport_crypto::suite::{EspCipher, EspInteg};

use super::*;
use crate::{EspHeader, HEAD_ROOM, InboundSa, TAIL_ROOM};

fn config(suite: EspSuite, keymat: &[u8], spi: u32) -> SaConfig {
    SaConfig::new(spi, suite.split_keymat(keymat).unwrap())
}

fn outbound(config: &SaConfig) -> OutboundSa {
    OutboundSa::new(config, &mut Rng::from_seed([5; 32]))
}

/// A payload with room around it, and its place.
fn roomy(payload: &[u8]) -> (Vec<u8>, Range<usize>) {
    let mut buf = vec![0xee; HEAD_ROOM];
    buf.extend(payload);
    buf.extend([0xee; TAIL_ROOM]);
    (buf, HEAD_ROOM..HEAD_ROOM + payload.len())
}

/// Seals with a chosen sequence number and IV, checks against `expected`, opens it again.
fn check(
    suite: EspSuite,
    keymat: &[u8],
    header: EspHeader,
    iv: &[u8],
    payload: &[u8],
    next_header: u8,
    expected: &[u8],
) {
    let config = config(suite, keymat, header.spi);
    let mut whole_iv = [0; 16];
    whole_iv[..iv.len()].copy_from_slice(iv);
    let (mut buf, range) = roomy(payload);
    let packet = outbound(&config).seal_as(&mut buf, range, next_header, header.seq, whole_iv).unwrap();
    let packet = &mut buf[packet];
    assert_eq!(packet.len(), crate::sealed_len(suite, payload.len()));
    assert_eq!(&packet[..expected.len()], expected, "{suite}");
    let opened = InboundSa::new(&config).open(packet).unwrap();
    assert_eq!(&packet[opened.payload()], payload);
    assert_eq!(opened.next_header, next_header);
}

/// The packets of RFC 3602 §4, cases 5 to 8, have no ICV: all bytes before it are compared.
#[test]
fn packets_match_rfc_3602_section_4() {
    let transport = hex!("90d382b410eeba7ad938c46cec1a82bf");
    let tunnel = hex!("0123456789abcdef0123456789abcdef");
    let check = |key: [u8; 16], spi, seq, iv: [u8; 16], payload: &[u8], next_header, ciphertext: &[u8]| {
        let keymat = [&key[..], &[9; 20]].concat();
        let expected = [&u32::to_be_bytes(spi)[..], &u32::to_be_bytes(seq), &iv, ciphertext].concat();
        check(EspSuite::AES128_CBC_SHA1, &keymat, EspHeader { spi, seq }, &iv, payload, next_header, &expected);
    };
    // Case 5
    check(
        transport,
        0x4321,
        1,
        hex!("e96e8c08ab465763fd098d45dd3ff893"),
        &hex!(
            "08000ebda70a00008e9c083db95b070008090a0b0c0d0e0f1011121314151617"
            "18191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637"
        ),
        1,
        &hex!(
            "f663c25d325c18c6a9453e194e120849a4870b66cc6b9965330013b4898dc856"
            "a4699e523a55db080b59ec3a8e4b7e52775b07d1db34ed9c538ab50c551b874a"
            "a269add047ad2d5913ac19b7cfbad4a6"
        ),
    );
    // Case 6
    check(
        transport,
        0x4321,
        8,
        hex!("69d08df7d203329db093fc4924e5bd80"),
        &hex!("0800b5e8a80a0500a69c083d0b660e0077777777777777777777777777777777")[..28],
        1,
        &hex!("f51995881ec4e0c4488987ce742e8109689bb379d2d750c0d915dca346a89f75"),
    );
    // Case 7
    check(
        tunnel,
        0x8765,
        2,
        hex!("f4e765244f6407adf13dc1380f673f37"),
        &hex!(
            "45000054090400004001f988c0a87b03c0a87bc808009f76a90a0100b49c083d"
            "02a2040008090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223"
            "2425262728292a2b2c2d2e2f3031323334353637"
        ),
        4,
        &hex!(
            "773b5241a4c449225e4f3ce5ed611b0c237ca96cf74a93013c1b0ea1a0cf70f8"
            "e4ecaec78ac53aad7a0f022b859243c647752e94a859352b8a4d4d2decd136e5"
            "c177f132ad3fbfb2201ac9904c74ee0a109e0ca1e4dfe9d5a100b842f1c22f0d"
        ),
    );
    // Case 8
    check(
        tunnel,
        0x8765,
        5,
        hex!("85d47224b5f3dd5d2101d4ea8dffab22"),
        &hex!(
            "45000044090c00004001f990c0a87b03c0a87bc80800d63caa0a0200c69c083d"
            "a3de0300ffffffffffffffffffffffffffffffffffffffffffffffffffffffff"
            "ffffffff"
        ),
        4,
        &hex!(
            "15b92683819596a8047232cc00f7048fe45318e11f8a0f62ede3c3fc61203bb5"
            "0f980a08c9843fd3a1b06d5c07ff9639b7eb7dfb3512e5de435e7207ed971ef3"
            "d2726d9b5ef6affc6d17a0decbb13892"
        ),
    );
}

/// Whole packets of each kind, made with other code (Python's `cryptography` and `hmac`).
#[test]
fn packets_match_an_independent_implementation() {
    const PAYLOAD: &[u8] = b"Sallyport inner payload, 33 bytes";
    let keymat: Vec<u8> = (1..=100).collect();
    let header = EspHeader { spi: 0xa1b2_c3d4, seq: 0x0102_0304 };
    let check = |cipher, integ, iv: &[u8], expected: &[u8]| {
        let suite = EspSuite::new(cipher, integ).unwrap();
        check(suite, &keymat[..suite.keymat_len()], header, iv, PAYLOAD, 17, expected);
    };
    let iv = hex!("00112233445566778899aabbccddeeff");
    check(
        EspCipher::Aes256Gcm16,
        None,
        &hex!("abcd000001020304"),
        &hex!(
            "a1b2c3d401020304abcd000001020304bc40be4c402e6e52faea66f5cd93e1d8"
            "01f799e9ea70b1c14bb0a613c07affd795ea37b345088b4819afef489037bf00"
            "44c66478"
        ),
    );
    check(
        EspCipher::Aes256Cbc,
        Some(EspInteg::HmacSha1_96),
        &iv,
        &hex!(
            "a1b2c3d40102030400112233445566778899aabbccddeeff3bd15a0b7ecc3bf0"
            "46e20d122b4ff3901e099b409e61fc909142b31e3e5bae4cf04d32953022985e"
            "eb72e75bb04fb58e9e921d229a370c5aa45d7016"
        ),
    );
    check(
        EspCipher::Aes128Cbc,
        Some(EspInteg::HmacSha2_256_128),
        &iv,
        &hex!(
            "a1b2c3d40102030400112233445566778899aabbccddeeffef96ac9f552be50c"
            "282aa2a1da6242e501427697b062883040775e42b684f21a6d91f3d619c754f6"
            "46837e04d2db0da6fb36cc381f8950849f892d734521ee98"
        ),
    );
    check(
        EspCipher::Aes192Cbc,
        Some(EspInteg::HmacSha2_384_192),
        &iv,
        &hex!(
            "a1b2c3d40102030400112233445566778899aabbccddeeffe4b4e5448f085f27"
            "321aa280ce8b04491b8703b8d2b66ea317f2f293d708098d5b3c915bde675e23"
            "da26de466c31c6c0b01d3247dd0c96073eff702963aee98eb472a09c0c2be2d2"
        ),
    );
    check(
        EspCipher::Aes256Cbc,
        Some(EspInteg::HmacSha2_512_256),
        &iv,
        &hex!(
            "a1b2c3d40102030400112233445566778899aabbccddeeff3bd15a0b7ecc3bf0"
            "46e20d122b4ff3901e099b409e61fc909142b31e3e5bae4cf04d32953022985e"
            "eb72e75bb04fb58eeb2987c333403bc4d9af60f7fbafc85c38f3a9df3ffdfdb7"
            "5a53ae9346ee88e0"
        ),
    );
    check(
        EspCipher::TripleDesCbc,
        Some(EspInteg::HmacSha1_96),
        &iv[..8],
        &hex!(
            "a1b2c3d40102030400112233445566774cefc871c432d724908319900223e21c"
            "fdfe7435ea2fd48f16a8bfc90eaeeef9f50588b8c95538d5cc178b68161427c9"
            "d8ec2948"
        ),
    );
}

#[test]
fn gcm_ivs_carry_the_epoch_and_the_sequence_number() {
    let suite = EspSuite::AES128_GCM16;
    let mut config = config(suite, &[3; 20], 700);
    (config.epoch, config.seq) = (0xabcd, 41);
    let mut sa = outbound(&config);
    for n in 42u8..50 {
        let (mut buf, payload) = roomy(b"x");
        let packet = sa.seal(&mut buf, payload, 17).unwrap();
        assert_eq!(buf[packet][..16], [0, 0, 2, 188, 0, 0, 0, n, 0xab, 0xcd, 0, 0, 0, 0, 0, n]);
    }
}

#[test]
fn cbc_ivs_do_not_repeat_and_show_no_counter() {
    let config = config(EspSuite::AES128_CBC_SHA1, &[3; 36], 700);
    let mut sa = outbound(&config);
    let mut ivs: Vec<[u8; 16]> = (0..1000)
        .map(|_| {
            let (mut buf, payload) = roomy(b"same payload");
            let packet = sa.seal(&mut buf, payload, 17).unwrap();
            buf[packet][8..24].try_into().unwrap()
        })
        .collect();
    assert!(ivs.windows(2).all(|w| (0..16).filter(|i| w[0][*i] != w[1][*i]).count() > 6));
    ivs.sort_unstable();
    ivs.dedup();
    assert_eq!(ivs.len(), 1000);
}

#[test]
fn too_little_room_spends_nothing_and_changes_nothing() {
    for suite in EspSuite::all() {
        let config = config(suite, &vec![1; suite.keymat_len()], 700);
        let mut sa = outbound(&config);
        let head = 8 + suite.iv_len();
        let len = crate::sealed_len(suite, 5);
        for (start, total) in [(head - 1, 400), (head, len - 1), (0, 400)] {
            let mut buf = vec![7; total];
            assert_eq!(sa.seal(&mut buf, start..start + 5, 17), Err(EspDrop::NoRoom), "{suite}");
            assert_eq!(buf, vec![7; total]);
        }
        let mut buf = vec![7; len];
        #[allow(clippy::reversed_empty_ranges)]
        for bad in [len..len + 1, 40..30, usize::MAX - 1..usize::MAX, 0..usize::MAX] {
            assert_eq!(sa.seal(&mut buf, bad, 17), Err(EspDrop::NoRoom), "{suite}");
        }
        assert_eq!(sa.seq(), 0);
        assert_eq!(sa.seal(&mut buf, head..head + 5, 17), Ok(0..len), "exactly enough room: {suite}");
        assert_eq!((sa.seq(), sa.stats().packets, sa.stats().dropped), (1, 1, 7));
    }
}

#[test]
fn sequence_numbers_end_before_they_wrap() {
    let mut config = config(EspSuite::AES256_GCM16, &[1; 36], 700);
    config.seq = u32::MAX - 1;
    let mut sa = outbound(&config);
    assert_eq!(sa.lifetime(), Lifetime::Expiring);
    let (mut buf, payload) = roomy(b"last");
    let packet = sa.seal(&mut buf, payload.clone(), 17).unwrap();
    assert_eq!(buf[packet][4..8], [0xff; 4]);
    assert_eq!(sa.lifetime(), Lifetime::Expired);
    assert_eq!(sa.seal(&mut buf, payload, 17), Err(EspDrop::SequenceExhausted));
    assert_eq!(sa.seq(), u64::from(u32::MAX));
}

#[test]
fn limits_are_reached_softly_then_hard() {
    let mut config = config(EspSuite::AES256_GCM16, &[1; 36], 700);
    config.limits = SaLimits { soft_packets: 2, hard_packets: 3, soft_bytes: u64::MAX, hard_bytes: u64::MAX };
    let mut sa = outbound(&config);
    let mut seal = || {
        let (mut buf, payload) = roomy(&[0; 100]);
        let before = sa.lifetime();
        (before, sa.seal(&mut buf, payload, 17).is_ok())
    };
    assert_eq!(seal(), (Lifetime::Fresh, true));
    assert_eq!(seal(), (Lifetime::Fresh, true));
    assert_eq!(seal(), (Lifetime::Expiring, true));
    assert_eq!(seal(), (Lifetime::Expired, false));

    config.limits = SaLimits::of(config.keys.suite()).within_kilobytes(1);
    assert_eq!((config.limits.soft_bytes, config.limits.hard_bytes), (896, 1024));
    let mut sa = outbound(&config);
    for (before, ok) in (0..9)
        .map(|_| (Lifetime::Fresh, true))
        .chain([(Lifetime::Expiring, true); 2])
        .chain([(Lifetime::Expired, false)])
    {
        assert_eq!(sa.lifetime(), before);
        let (mut buf, payload) = roomy(&[0; 100]);
        assert_eq!(sa.seal(&mut buf, payload, 17).is_ok(), ok);
    }
}

#[test]
fn triple_des_is_limited_and_no_lifetime_is_no_limit() {
    assert_eq!(SaLimits::of(EspSuite::TRIPLE_DES_SHA1).hard_bytes, 1 << 32);
    assert_eq!(SaLimits::of(EspSuite::TRIPLE_DES_SHA1).within_kilobytes(u64::MAX).hard_bytes, 1 << 32);
    assert_eq!(SaLimits::of(EspSuite::AES256_GCM16).within_kilobytes(0).soft_bytes, u64::MAX);
}
