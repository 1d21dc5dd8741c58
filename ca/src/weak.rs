//! Keys that look right and are not: what a broken generator made is refused with its cause, before it is certified.
//!
//! The work is bounded by the size of the key, which [`crate::key::classify`] has bounded before: a few milliseconds for the
//! largest.

use std::sync::LazyLock;

use rsa::BigUint;
use x509_parser::public_key::PublicKey as ParsedKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::KeyAlgorithm;

/// Factors that are tried are below this.
const SMALL: usize = 16_384;
/// Rounds of Fermat's method, as many as the CA/Browser Forum asks for: finds primes whose upper halves are equal.
const FERMAT_ROUNDS: usize = 100;
/// The largest of the first 39 primes, which divide the constant of each key of the affected library, whatever its size.
const ROCA_LARGEST: u32 = 167;

const SMALL_FACTOR: &str = "the RSA modulus has a small factor; the key was not made well, make a new one";
const CLOSE: &str = "the two RSA primes are too close together (Fermat's method finds them); make a new key";
const ROCA: &str =
    "the RSA key comes from a generator with the ROCA flaw (CVE-2017-15361); update it and make a new key";
const OFF_CURVE: &str = "the point is not on its curve";

static ODD_PRIMES: LazyLock<Vec<u32>> = LazyLock::new(|| {
    let mut composite = [false; SMALL];
    let mut primes = Vec::new();
    for n in (3..SMALL).step_by(2) {
        if !composite.get(n).copied().unwrap_or(true) {
            primes.push(n as u32);
            composite.iter_mut().skip(n * n).step_by(n).for_each(|c| *c = true);
        }
    }
    primes
});

/// Why a key of this kind is not certified; `Ok` if nothing is known against it.
pub(crate) fn check(spki: &SubjectPublicKeyInfo<'_>, algorithm: KeyAlgorithm) -> Result<(), &'static str> {
    let point = &spki.subject_public_key.data;
    match algorithm {
        KeyAlgorithm::EcdsaP256 => p256::PublicKey::from_sec1_bytes(point).map(drop).map_err(|_| OFF_CURVE),
        KeyAlgorithm::EcdsaP384 => p384::PublicKey::from_sec1_bytes(point).map(drop).map_err(|_| OFF_CURVE),
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => match spki.parsed() {
            Ok(ParsedKey::RSA(key)) => check_modulus(key.modulus),
            _ => Err("not an RSA public key"),
        },
    }
}

/// Checks an odd modulus, big-endian.
fn check_modulus(modulus: &[u8]) -> Result<(), &'static str> {
    if ODD_PRIMES.iter().any(|p| remainder(modulus, *p) == 0) {
        return Err(SMALL_FACTOR);
    }
    if has_roca_print(modulus) {
        return Err(ROCA);
    }
    if has_close_primes(&BigUint::from_bytes_be(modulus)) { Err(CLOSE) } else { Ok(()) }
}

fn remainder(number: &[u8], divisor: u32) -> u32 {
    let (head, words) = number.as_rchunks::<4>();
    let divisor = u64::from(divisor);
    let first = head.iter().fold(0, |r, b| (r << 8 | u64::from(*b)) % divisor);
    words.iter().fold(first, |r, w| (r << 32 | u64::from(u32::from_be_bytes(*w))) % divisor) as u32
}

/// Keys of the affected library are powers of 65537 modulo each small prime (Nemec et al., CCS 2017 §2.1). Another key has that
/// print with a probability of about 2^-27.
fn has_roca_print(modulus: &[u8]) -> bool {
    ODD_PRIMES.iter().take_while(|p| **p <= ROCA_LARGEST).all(|p| {
        let (wanted, generator) = (remainder(modulus, *p), 65_537 % p);
        let mut power = 1;
        for _ in 0..*p {
            if power == wanted {
                return true;
            }
            power = power * generator % p;
        }
        false
    })
}

/// Fermat's method, for some rounds: `n = a^2 - b^2` with `a` from the root of `n` upwards.
fn has_close_primes(n: &BigUint) -> bool {
    let one = BigUint::from(1_u8);
    let mut a = n.sqrt();
    if &a * &a < *n {
        a += &one;
    }
    let mut rest = &a * &a - n;
    for _ in 0..FERMAT_ROUNDS {
        if is_square(&rest) {
            return true;
        }
        rest += &a * BigUint::from(2_u8) + &one;
        a += &one;
    }
    false
}

fn is_square(n: &BigUint) -> bool {
    /// Squares modulo 64, a bit each: most numbers are no squares for that already.
    const MODULO_64: u64 = {
        let (mut bits, mut i) = (0, 0_u64);
        while i < 64 {
            bits |= 1 << (i * i % 64);
            i += 1;
        }
        bits
    };
    let low = n.to_bytes_le().first().copied().unwrap_or(0);
    if MODULO_64 >> (low % 64) & 1 == 0 {
        return false;
    }
    let root = n.sqrt();
    &root * &root == *n
}

#[cfg(test)]
mod tests {
    use rsa::RsaPrivateKey;
    use rsa::traits::PublicKeyParts as _;

    use super::*;
    use crate::{KeyPair, SystemRandom};

    fn modulus_of(a: &BigUint, b: &BigUint) -> Vec<u8> {
        (a * b).to_bytes_be()
    }

    /// An odd number of `bits` bits from a counter: as good as a prime for what is looked at here.
    fn number(bits: usize, seed: u64) -> BigUint {
        let octets = ring::digest::digest(&ring::digest::SHA256, &seed.to_be_bytes());
        let mut out = octets.as_ref().iter().copied().cycle().take(bits / 8).collect::<Vec<_>>();
        out[0] |= 0xc0;
        *out.last_mut().unwrap() |= 1;
        BigUint::from_bytes_be(&out)
    }

    /// The next number without a small factor.
    fn rough(mut n: BigUint) -> BigUint {
        while ODD_PRIMES.iter().any(|p| remainder(&n.to_bytes_be(), *p) == 0) {
            n += BigUint::from(2_u8);
        }
        n
    }

    #[test]
    fn ordinary_keys_pass() {
        let (p, q) = (rough(number(1024, 1)), rough(number(1024, 2)));
        assert_eq!(check_modulus(&modulus_of(&p, &q)), Ok(()));
        let key = KeyPair::generate(KeyAlgorithm::Rsa2048, &SystemRandom::new()).unwrap();
        let key = <RsaPrivateKey as rsa::pkcs8::DecodePrivateKey>::from_pkcs8_der(key.pkcs8_der()).unwrap();
        assert_eq!(check_modulus(&key.n().to_bytes_be()), Ok(()));
    }

    #[test]
    fn a_small_factor_is_found() {
        let p = rough(number(2048, 3));
        for factor in [3_u16, 251, 16_381] {
            assert_eq!(check_modulus(&modulus_of(&p, &BigUint::from(factor))), Err(SMALL_FACTOR));
        }
        assert_eq!(ODD_PRIMES.len(), 1899, "primes below 2^14 but 2");
    }

    #[test]
    fn primes_that_are_close_together_are_found_and_others_are_not() {
        let p = rough(number(1024, 4));
        assert_eq!(check_modulus(&modulus_of(&p, &p)), Err(CLOSE));
        for bits in [1_usize, 64, 400, 512] {
            let q = rough(&p + (BigUint::from(1_u8) << bits));
            assert_eq!(check_modulus(&modulus_of(&p, &q)), Err(CLOSE), "{bits}");
        }
        let far = rough(&p + (BigUint::from(1_u8) << 900));
        assert_eq!(check_modulus(&modulus_of(&p, &far)), Ok(()));
    }

    #[test]
    fn the_print_of_the_roca_flaw_is_found() {
        let primorial = ODD_PRIMES.iter().take_while(|p| **p <= ROCA_LARGEST);
        let primorial = primorial.fold(BigUint::from(2_u8), |m, p| m * BigUint::from(*p));
        let prime = |power: u32, seed| {
            let residue = BigUint::from(65_537_u32).modpow(&BigUint::from(power), &primorial);
            let mut p = number(800, seed) * &primorial + residue;
            while ODD_PRIMES.iter().any(|s| remainder(&p.to_bytes_be(), *s) == 0) {
                p += &primorial;
            }
            p
        };
        assert_eq!(check_modulus(&modulus_of(&prime(1_234, 5), &prime(98_765, 6))), Err(ROCA));
    }

    #[test]
    fn a_point_must_lie_on_its_curve() {
        use x509_parser::prelude::FromDer as _;
        for algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384] {
            let key = KeyPair::generate(algorithm, &SystemRandom::new()).unwrap().public_key();
            let mut spki = key.spki_der().to_vec();
            let ours = |spki: &[u8]| check(&SubjectPublicKeyInfo::from_der(spki).unwrap().1, algorithm);
            assert_eq!(ours(&spki), Ok(()));
            *spki.last_mut().unwrap() ^= 1;
            assert_eq!(ours(&spki), Err(OFF_CURVE));
        }
    }
}
