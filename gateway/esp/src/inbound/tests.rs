use sallyport_crypto::Rng;

use super::*;
use crate::{HEAD_ROOM, OutboundSa, TAIL_ROOM};

const SPI: u32 = 0x0102_0304;

fn config(suite: EspSuite) -> SaConfig {
    SaConfig::new(SPI, suite.split_keymat(&vec![0x5a; suite.keymat_len()]).unwrap())
}

fn pair(suite: EspSuite) -> (OutboundSa, InboundSa) {
    let config = config(suite);
    (OutboundSa::new(&config, &mut Rng::from_seed([5; 32])), InboundSa::new(&config))
}

fn seal(sa: &mut OutboundSa, payload: &[u8], next_header: u8) -> Vec<u8> {
    let mut buf = vec![0; HEAD_ROOM];
    buf.extend(payload);
    buf.extend([0; TAIL_ROOM]);
    let packet = sa.seal(&mut buf, HEAD_ROOM..HEAD_ROOM + payload.len(), next_header).unwrap();
    buf[packet].to_vec()
}

/// A genuine packet around a plaintext (payload, padding and trailer) of our choice.
fn seal_plaintext(suite: EspSuite, seq: u32, plain: &[u8]) -> Vec<u8> {
    use sallyport_crypto::{cbc::CbcEncryptor, gcm::GcmCipher, hash::Hmac};
    let keys = config(suite).keys;
    let mut packet = [&SPI.to_be_bytes()[..], &seq.to_be_bytes(), &vec![0x33; suite.iv_len()], plain].concat();
    let (clear, body) = packet.split_at_mut(8 + suite.iv_len());
    let icv = match (suite.cipher().gcm(), suite.cipher().cbc(), suite.integ()) {
        (Some(alg), ..) => {
            let mut nonce = [0x33; 12];
            nonce[..4].copy_from_slice(&keys.salt());
            GcmCipher::new(alg, keys.encr_key()).unwrap().seal_in_place(nonce, &clear[..8], body).unwrap().to_vec()
        }
        (_, Some(alg), Some(integ)) => {
            CbcEncryptor::new(alg, keys.encr_key()).unwrap().encrypt(&clear[8..], body).unwrap();
            Hmac::new(integ.hash(), keys.integ_key()).mac(&[clear, body])[..integ.icv_len()].to_vec()
        }
        _ => unreachable!(),
    };
    packet.extend(icv);
    packet
}

#[test]
fn every_length_opens_in_every_suite() {
    for suite in EspSuite::all() {
        let (mut out, mut inb) = pair(suite);
        for n in (0..70).chain([1400, 1499, 9000]) {
            let payload: Vec<u8> = (0..n).map(|i| i as u8).collect();
            let mut packet = seal(&mut out, &payload, 17);
            let opened = inb.open(&mut packet).unwrap();
            assert_eq!((&packet[opened.payload()], opened.next_header), (&payload[..], 17), "{suite} {n}");
        }
        assert_eq!(inb.seq(), 73);
        assert_eq!((inb.stats().packets, inb.stats().bytes), (73, (0..70).sum::<u64>() + 1400 + 1499 + 9000));
    }
}

#[test]
fn short_packets_are_truncated_whatever_they_hold() {
    for suite in EspSuite::all() {
        let (mut out, mut inb) = pair(suite);
        let whole = seal(&mut out, b"", 17);
        for n in 0..whole.len() {
            let result = inb.open(&mut whole[..n].to_vec());
            assert_eq!(result, Err(EspDrop::Truncated), "{suite} {n}");
        }
        assert_eq!((inb.seq(), inb.stats().dropped), (0, whole.len() as u64));
        assert!(inb.open(&mut whole.clone()).is_ok());
    }
}

#[test]
fn a_packet_of_another_spi_is_refused_before_any_work() {
    let (mut out, mut inb) = pair(EspSuite::AES128_GCM16);
    let mut packet = seal(&mut out, b"data", 17);
    packet[3] ^= 1;
    assert_eq!(inb.open(&mut packet), Err(EspDrop::UnknownSpi));
}

#[test]
fn a_cbc_body_of_broken_blocks_is_refused() {
    for suite in EspSuite::all().filter(|s| !s.cipher().is_aead()) {
        let (mut out, mut inb) = pair(suite);
        let mut packet = seal(&mut out, &[0; 50], 17);
        packet.push(0);
        assert_eq!(inb.open(&mut packet), Err(EspDrop::BadLength), "{suite}");
    }
}

#[test]
fn padding_is_checked_although_the_icv_is_right() {
    for suite in EspSuite::all() {
        let block = suite.block_len();
        let plain = |payload: &[u8], padding: &[u8], pad_len: u8, next_header: u8| {
            let plain = [payload, padding, &[pad_len, next_header]].concat();
            assert_eq!(plain.len() % block, 0);
            plain
        };
        let payload = vec![7; 2 * block - 5];
        let opened = |sa: &mut InboundSa, seq, plain: &[u8]| {
            let mut packet = seal_plaintext(suite, seq, plain);
            sa.open(&mut packet).map(|o| packet[o.payload()].to_vec())
        };
        let mut inb = InboundSa::new(&config(suite));
        assert_eq!(opened(&mut inb, 1, &plain(&payload, &[1, 2, 3], 3, 17)), Ok(payload.clone()));
        assert_eq!(opened(&mut inb, 2, &plain(&payload, &[1, 2, 4], 3, 17)), Err(EspDrop::BadPadding));
        assert_eq!(opened(&mut inb, 3, &plain(&payload, &[0, 0, 0], 3, 17)), Err(EspDrop::BadPadding));
        assert_eq!(opened(&mut inb, 4, &plain(&payload, &[1, 2, 3], 255, 17)), Err(EspDrop::BadPadding));
        let all = u8::try_from(2 * block - 2).unwrap();
        assert_eq!(opened(&mut inb, 5, &plain(&payload, &[1, 2, 3], all + 1, 17)), Err(EspDrop::BadPadding));
        let padding: Vec<u8> = (1..=all).collect();
        assert_eq!(opened(&mut inb, 6, &plain(&[], &padding, all, 17)), Ok(vec![]), "more padding than needed");
        assert_eq!(inb.seq(), 6, "the packets were genuine, so the window moved");

        let mut config = config(suite);
        config.strict_padding = false;
        let mut lax = InboundSa::new(&config);
        assert_eq!(opened(&mut lax, 1, &plain(&payload, &[0, 0, 0], 3, 17)), Ok(payload.clone()));
        assert_eq!(opened(&mut lax, 2, &plain(&payload, &[1, 2, 3], 255, 17)), Err(EspDrop::BadPadding));
    }
}

#[test]
fn padding_of_255_bytes_is_the_longest() {
    let suite = EspSuite::AES128_GCM16;
    let mut inb = InboundSa::new(&config(suite));
    let plain: Vec<u8> = (1..=255).chain([255, 17]).collect();
    let mut packet = seal_plaintext(suite, 1, &plain);
    assert_eq!(inb.open(&mut packet).unwrap().payload().len(), 0);
}

#[test]
fn dummies_are_dropped_and_counted() {
    let (mut out, mut inb) = pair(EspSuite::AES256_CBC_SHA256);
    let mut packet = seal(&mut out, &[0; 100], NO_NEXT_HEADER);
    assert_eq!(inb.open(&mut packet), Err(EspDrop::Dummy));
    assert_eq!((inb.seq(), inb.stats().dropped, inb.stats().packets), (1, 1, 0));
}

#[test]
fn replays_and_stragglers_are_refused_before_decryption() {
    let (mut out, mut inb) = pair(EspSuite::AES128_CBC_SHA1);
    let packets: Vec<_> = (0..2100).map(|_| seal(&mut out, b"x", 17)).collect();
    assert!(inb.open(&mut packets[50].clone()).is_ok());
    assert_eq!(inb.open(&mut packets[50].clone()), Err(EspDrop::Replayed));
    assert!(inb.open(&mut packets[3].clone()).is_ok());
    assert!(inb.open(&mut packets[2099].clone()).is_ok());
    assert_eq!(inb.open(&mut packets[60].clone()), Err(EspDrop::TooOld));
    assert_eq!(inb.open(&mut packets[50].clone()), Err(EspDrop::TooOld));
    assert!(inb.open(&mut packets[2098].clone()).is_ok());
    assert_eq!(inb.stats().replayed, 3);
}

#[test]
fn a_forged_sequence_number_does_not_move_the_window() {
    for suite in EspSuite::all() {
        let (mut out, mut inb) = pair(suite);
        let mut forged = seal(&mut out, b"x", 17);
        forged[4] = 0xff;
        assert_eq!(inb.open(&mut forged), Err(EspDrop::BadIcv), "{suite}");
        assert_eq!((inb.seq(), inb.stats().bad_icv), (0, 1));
    }
}

#[test]
fn the_hard_limit_ends_it_and_forgeries_do_not_count() {
    let suite = EspSuite::AES128_GCM16;
    let mut config = config(suite);
    config.limits = SaLimits { soft_packets: 1, hard_packets: 2, soft_bytes: u64::MAX, hard_bytes: u64::MAX };
    let mut out = OutboundSa::new(&self::config(suite), &mut Rng::from_seed([5; 32]));
    let mut inb = InboundSa::new(&config);
    for _ in 0..10 {
        let mut forged = seal(&mut out, b"x", 17);
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(inb.open(&mut forged), Err(EspDrop::BadIcv));
    }
    assert_eq!(inb.lifetime(), Lifetime::Fresh);
    assert!(inb.open(&mut seal(&mut out, b"x", 17)).is_ok());
    assert_eq!(inb.lifetime(), Lifetime::Expiring);
    assert!(inb.open(&mut seal(&mut out, b"x", 17)).is_ok());
    assert_eq!(inb.open(&mut seal(&mut out, b"x", 17)), Err(EspDrop::Expired));
}

#[test]
fn an_adopted_sa_takes_nothing_that_its_former_owner_may_have_taken() {
    let suite = EspSuite::AES128_GCM16;
    let (mut out, _) = pair(suite);
    let old: Vec<_> = (0..100).map(|_| seal(&mut out, b"x", 17)).collect();
    let mut config = config(suite);
    config.seq = 90;
    let mut inb = InboundSa::new(&config);
    for (i, packet) in old.iter().enumerate() {
        assert_eq!(inb.open(&mut packet.clone()).is_ok(), i >= 90, "{i}");
    }
}

#[test]
fn batches_do_what_single_packets_do() {
    for suite in EspSuite::all() {
        let (mut out, mut inb) = pair(suite);
        // One buffer, as GRO gives it: five payloads with room around each.
        let stride = HEAD_ROOM + 100 + TAIL_ROOM;
        let mut buf = vec![0; stride * 5];
        let mut batch: Vec<_> = buf
            .chunks_mut(stride)
            .enumerate()
            .map(|(i, chunk)| {
                chunk[HEAD_ROOM..HEAD_ROOM + 100].fill(i as u8);
                // The third asks for more than there is.
                Packet::plain(chunk, HEAD_ROOM..if i == 2 { stride } else { HEAD_ROOM + 100 }, 17)
            })
            .collect();
        assert_eq!(out.seal_batch(&mut batch), 4);
        assert_eq!(batch[2].outcome(), Err(EspDrop::NoRoom));
        assert!(batch[2].data().is_empty());

        batch[1].data_mut()[30] ^= 1;
        let mut copy = batch[0].data().to_vec();
        assert_eq!(inb.open_batch(&mut batch), 3);
        let outcomes: Vec<_> = batch.iter().map(Packet::outcome).collect();
        assert_eq!(outcomes, [Ok(()), Err(EspDrop::BadIcv), Err(EspDrop::NoRoom), Ok(()), Ok(())], "{suite}");
        for i in [0u8, 3, 4] {
            let packet = &batch[usize::from(i)];
            assert_eq!((packet.data(), packet.next_header()), (&[i; 100][..], 17));
        }
        assert_eq!(inb.open_batch(&mut [Packet::sealed(&mut copy)]), 0);
        assert_eq!(inb.stats().replayed, 1);
        assert_eq!(out.stats().packets, 4);
    }
}

#[test]
fn a_packet_outside_its_buffer_is_empty() {
    let mut buf = [0; 10];
    let mut packet = Packet::plain(&mut buf, 5..11, 17);
    assert_eq!((packet.outcome(), packet.data().len(), packet.data_mut().len()), (Err(EspDrop::NoRoom), 0, 0));
}

/// The memory of idle sessions is counted by these.
#[test]
fn sizes_stay_small() {
    assert_eq!(size_of::<ReplayWindow>(), 264);
    assert!(size_of::<InboundSa>() <= 1024, "{}", size_of::<InboundSa>());
    assert!(size_of::<OutboundSa>() <= 960, "{}", size_of::<OutboundSa>());
    assert!(size_of::<Packet<'_>>() <= 48, "{}", size_of::<Packet<'_>>());
}

#[test]
fn debug_shows_no_key() {
    let (out, inb) = pair(EspSuite::AES128_GCM16);
    assert_eq!(format!("{out:?}"), "OutboundSa(01020304 aes128gcm16 seq 0)");
    assert_eq!(format!("{inb:?}"), "InboundSa(01020304 aes128gcm16 seq 0)");
    assert!(!format!("{:?}", config(EspSuite::AES128_GCM16)).contains("5a"));
}
