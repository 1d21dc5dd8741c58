//! Known answers, exact proofs on small examples, and what people do to shares.

use hex_literal::hex;
use proptest::prelude::*;

use super::*;
use crate::SystemRandom;

fn made(secret: &[u8], k: u8, n: u8) -> Vec<Share> {
    split(secret, k, n, &SystemRandom::new()).unwrap()
}

fn raw(index: u8, value: &[u8]) -> Share {
    Share { set: SetId([0; 8]), k: 2, index, digest: [0; 32], value: Zeroizing::new(value.to_vec()) }
}

/// Every selection of `k` of these.
fn selections(shares: &[Share], k: usize) -> Vec<Vec<Share>> {
    let masks = (0_u32..1 << shares.len()).filter(|mask| mask.count_ones() as usize == k);
    let chosen = |mask: u32| shares.iter().enumerate().filter(move |(i, _)| mask & 1 << i != 0).map(|(_, s)| s.clone());
    masks.map(|mask| chosen(mask).collect()).collect()
}

#[test]
fn the_test_case_of_draft_mcgrew_tss_03_section_9_is_recombined() {
    let shares = [raw(1, &hex!("b9fa07e185")), raw(2, &hex!("f5409b4511"))];
    assert_eq!(value_at(&[&shares[0], &shares[1]], 0).as_slice(), b"test\0");
    assert_eq!(value_at(&[&shares[1], &shares[0]], 0).as_slice(), b"test\0");
}

#[test]
fn shares_of_known_coefficients_are_known() {
    // 0x57 + 0x83 x + 0x13 x^2 in the field of FIPS 197, worked out by hand at 1 and at 2.
    let at = |x| evaluate(&[0x57], &[0x83, 0x13], x)[0];
    assert_eq!(at(1), 0x57 ^ 0x83 ^ 0x13);
    assert_eq!(at(2), 0x57 ^ (0x83 << 1 ^ 0x1b) ^ 0x13 << 2);
    assert_eq!(at(0), 0x57);
}

#[test]
fn k_minus_one_shares_are_uniform_whatever_the_secret() {
    // Exact, not sampled: over all coefficients each possible set of k - 1 values comes equally often, for every secret alike.
    for secret in [0x00, 0x01, 0xa7, 0xff] {
        for index in [1, 2, 255] {
            let mut seen = [0; 256];
            (0..=255).for_each(|c| seen[usize::from(evaluate(&[secret], &[c], index)[0])] += 1);
            assert!(seen.iter().all(|n| *n == 1), "one of two shares, {secret} at {index}");
        }
        let mut seen = vec![0_u8; 65_536];
        for c in 0..=u16::MAX {
            let at = |x| usize::from(evaluate(&[secret], &c.to_be_bytes(), x)[0]);
            seen[at(3) << 8 | at(7)] += 1;
        }
        assert!(seen.iter().all(|n| *n == 1), "two of three shares, {secret}");
    }
}

#[test]
fn every_octet_has_coefficients_of_its_own() {
    // Of a secret of equal octets a share shows no equal octets, but for chance: 4,096 octets of 256 kinds.
    let share = &made(&[0; 4096], 2, 2)[0];
    let mut counts = [0; 256];
    share.value.iter().for_each(|v| counts[usize::from(*v)] += 1);
    // Chi-squared with 255 degrees of freedom: 16.1 expected each; 500 is beyond one in 10^17.
    let expected = share.value.len() as f64 / 256.0;
    let chi: f64 = counts.iter().map(|n| (f64::from(*n) - expected).powi(2) / expected).sum();
    assert!(chi < 500.0, "{chi}");
    assert_ne!(share.value, made(&[0; 4096], 2, 2)[0].value);
}

#[test]
fn any_k_of_n_give_the_secret_and_fewer_are_told_so() {
    for (k, n) in [(2, 2), (2, 3), (3, 5), (5, 5), (4, 7)] {
        let shares = made(b"secret", k, n);
        assert_eq!(shares.iter().map(Share::index).collect::<Vec<_>>(), (1..=n).collect::<Vec<_>>());
        for mut chosen in selections(&shares, usize::from(k)) {
            assert_eq!(combine(&chosen).unwrap().as_slice(), b"secret");
            chosen.reverse();
            chosen.push(chosen[0].clone());
            assert_eq!(combine(&chosen).unwrap().as_slice(), b"secret", "one of them twice");
        }
        for chosen in selections(&shares, usize::from(k) - 1) {
            let given = chosen.len();
            assert_eq!(combine(&chosen).unwrap_err(), ShareError::TooFew { given, needed: k });
            assert!(
                interpolate(&chosen.iter().collect::<Vec<_>>()).is_none(),
                "fewer are not enough by themselves either"
            );
        }
        assert_eq!(combine(&shares).unwrap().as_slice(), b"secret");
    }
    let many = made(&[7; 16], 64, 255);
    assert_eq!(combine(&many[191..]).unwrap().as_slice(), [7; 16]);
    assert_eq!(combine(&[]).unwrap_err(), ShareError::TooFew { given: 0, needed: 2 });
}

#[test]
fn numbers_and_lengths_that_cannot_be_are_refused() {
    let split = |len: usize, k, n| split(&vec![1; len], k, n, &SystemRandom::new()).map(drop);
    for (k, n) in [(0, 0), (1, 1), (1, 5), (3, 2), (0, 255), (255, 254)] {
        assert_eq!(split(10, k, n), Err(ShareError::Numbers { k, n }));
    }
    assert_eq!(split(0, 2, 3), Err(ShareError::SecretLength));
    assert_eq!(split(MAX_SECRET + 1, 2, 3), Err(ShareError::SecretLength));
    assert_eq!(split(MAX_SECRET, 2, 2), Ok(()));
}

#[test]
fn a_wrong_share_is_named_where_there_are_more_than_enough() {
    let mut shares = made(b"secret", 3, 6);
    shares[1].value[30] ^= 1;
    for chosen in selections(&shares, 3) {
        let has_wrong = chosen.iter().any(|s| s.index == 2);
        assert_eq!(combine(&chosen).err(), has_wrong.then_some(ShareError::Wrong));
    }
    for more in [4, 5, 6] {
        for mut chosen in selections(&shares, more) {
            let wrong = chosen.iter().any(|s| s.index == 2).then(|| ShareError::WrongShares(vec![2]));
            assert_eq!(combine(&chosen).err(), wrong);
            chosen.reverse();
            assert_eq!(combine(&chosen).err(), wrong);
        }
    }
    shares[4].value[0] ^= 0x80;
    assert_eq!(combine(&shares).unwrap_err(), ShareError::WrongShares(vec![2, 5]));
    assert!(ShareError::WrongShares(vec![2, 5]).to_string().contains("share 2, 5"));
}

#[test]
fn shares_that_do_not_belong_together_are_told_apart() {
    let (a, b) = (made(b"secret", 2, 3), made(b"secret", 2, 3));
    let mixed = [a[0].clone(), b[1].clone(), a[2].clone()];
    assert_eq!(combine(&mixed).unwrap_err(), ShareError::OtherSet { set: b[0].set, others: a[0].set });
    assert_eq!(combine(&mixed[..2]).unwrap_err(), ShareError::OtherSet { set: b[0].set, others: a[0].set });
    // Somebody says that fewer are needed, or commits to another secret, under the same set.
    let mut lowered = made(b"secret", 3, 4);
    lowered[3].k = 2;
    assert_eq!(combine(&lowered).unwrap_err(), ShareError::WrongShares(vec![4]));
    lowered.iter_mut().for_each(|s| s.k = 2);
    assert_eq!(combine(&lowered).unwrap_err(), ShareError::Wrong);
    let mut forged = a[1].clone();
    forged.value[0] ^= 1;
    assert_eq!(combine(&[a[0].clone(), a[1].clone(), forged]).unwrap_err(), ShareError::Twice(2));
}

#[test]
fn a_share_of_a_key_survives_paper() {
    let key = crate::KeyPair::generate(crate::KeyAlgorithm::EcdsaP256, &SystemRandom::new()).unwrap();
    let shares = made(key.pkcs8_der(), 3, 5);
    let texts: Vec<_> = shares.iter().map(Share::to_text).collect();
    assert!(texts.iter().all(|t| t.starts_with("sps1-") && t.lines().count() == 1 && t.len() < 470));
    let typed = [0, 2, 4].map(|i| Share::parse(&texts[i].to_lowercase().replace('-', " \n")).unwrap());
    let again = crate::KeyPair::from_pkcs8_der(&combine(&typed).unwrap()).unwrap();
    assert_eq!(again.public_key(), key.public_key());
    assert_eq!((typed[1].set(), typed[1].index(), typed[1].needed()), (shares[0].set(), 3, 3));
}

#[test]
fn what_is_no_share_is_told_why() {
    let share = &made(b"secret", 2, 2)[0];
    let text = share.to_text();
    let error = |text: &str| Share::parse(text).unwrap_err();
    assert_eq!(error(""), ShareError::Prefix);
    assert_eq!(error("spt1.AAAA"), ShareError::Prefix);
    assert_eq!(error("sps1"), ShareError::Checksum);
    assert_eq!(error(&text[..5 + 9 * 4]), ShareError::Checksum, "whole groups, but not all");
    let last = text.split('-').count() - 1;
    // One time in 32 what is left of the last group is a good one, and a byte is missing.
    let cut = error(&text[..text.len() - 1]);
    assert!(cut == ShareError::Group(last) || cut == ShareError::Checksum, "{cut:?}");
    assert_eq!(error(&"-".repeat(70_000)), ShareError::TooLong);
    let with = |at: usize, value: u8| {
        let mut bytes = share.to_bytes().to_vec();
        bytes.truncate(bytes.len() - CHECKSUM);
        bytes[at] = value;
        let sum = checksum(&bytes);
        bytes.extend(sum);
        text::encode(&bytes)
    };
    assert_eq!(error(&with(0, 9)), ShareError::Format(9));
    assert_eq!(error(&with(9, 1)), ShareError::Values, "one is enough");
    assert_eq!(error(&with(10, 0)), ShareError::Values, "the secret itself");
    let short = [&[FORMAT][..], &[0; 40]].concat();
    assert_eq!(error(&text::encode(&[&short[..], &checksum(&short)].concat())), ShareError::Values);
    assert_eq!(error(&text::encode(&checksum(&[]))), ShareError::Values);
}

#[test]
fn debug_output_holds_no_secret() {
    let share = Share { value: Zeroizing::new(vec![0xa7; 40]), ..raw(3, &[]) };
    assert_eq!(format!("{share:?}"), "Share(set 0000000000000000, number 3, 2 needed, ..)");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_secret_comes_back_from_any_k_of_n(
        secret in proptest::collection::vec(any::<u8>(), 1..80), k in 2_u8..6, more in 0_u8..6, first in 0_usize..6
    ) {
        let mut shares = made(&secret, k, k + more);
        let all = shares.len();
        shares.rotate_left(first % all);
        let typed: Vec<Share> = shares[..usize::from(k)].iter().map(|s| Share::parse(&s.to_text()).unwrap()).collect();
        prop_assert_eq!(&*combine(&typed).unwrap(), &secret);
    }

    #[test]
    fn no_bit_of_a_share_can_be_turned_unseen(bit in 0_usize..((1 + 8 + 2 + 32 + 38) * 8)) {
        let shares = made(b"secret", 2, 3);
        let mut bytes = shares[0].to_bytes().to_vec();
        bytes.truncate(bytes.len() - CHECKSUM);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let sum = checksum(&bytes);
        bytes.extend(sum);
        // With a checksum made anew, as somebody would who does it on purpose.
        if let Ok(altered) = Share::parse(&text::encode(&bytes)) {
            prop_assert!(combine(&[altered, shares[1].clone(), shares[2].clone()]).is_err());
        }
    }
}
