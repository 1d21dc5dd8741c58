use proptest::prelude::*;
use rsa::traits::PublicKeyParts as _;
use rsa::{BigUint, Pkcs1v15Sign, RsaPrivateKey};

use super::*;
use crate::{KeyAlgorithm, SystemRandom};

fn key(algorithm: KeyAlgorithm) -> KeyPair {
    KeyPair::generate(algorithm, &SystemRandom::new()).unwrap()
}

#[test]
fn a_request_of_ours_is_read_back_with_its_key_and_its_challenge() {
    for algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384, KeyAlgorithm::Rsa2048] {
        let key = key(algorithm);
        for challenge in [None, Some(""), Some("spt1.abc-_="), Some("b\u{fc}cher")] {
            let csr = key.request("laptop7.example.com", challenge, &SystemRandom::new()).unwrap();
            assert_eq!(PublicKey::from_csr_der(&csr).unwrap(), key.public_key());
            assert_eq!(challenge_password(&csr).unwrap().as_deref().map(String::as_str), challenge);
        }
    }
    let key = key(KeyAlgorithm::EcdsaP256);
    assert!(key.request("", None, &SystemRandom::new()).is_err());
    assert!(key.request("a", Some(&"x".repeat(MAX_CHALLENGE + 1)), &SystemRandom::new()).is_err());
}

#[test]
fn a_challenge_password_in_any_kind_of_string_is_read() {
    let key = key(KeyAlgorithm::EcdsaP256);
    // UTF8String, PrintableString, TeletexString (what certmonger writes for an underscore), IA5String, VisibleString.
    for tag in [0x0c, 0x13, 0x14, 0x16, 0x1a] {
        let values = der::encode(SET, &[&der::encode(tag, &[b"spt1.a_b"])]);
        let attribute = der::encode(SEQUENCE, &[&der::oid(OID_CHALLENGE), &values]);
        let attributes = der::encode(CONTEXT_0, &[&attribute]);
        let public = key.public_key();
        let info = der::encode(SEQUENCE, &[&der::integer(0)[..], &name("x"), public.spki_der(), &attributes]);
        let signature = der::encode(der::BIT_STRING, &[&[0], &key.sign(&info, &SystemRandom::new()).unwrap()]);
        let csr = der::encode(SEQUENCE, &[&info, &key.signature_algorithm_der(), &signature]);
        assert_eq!(PublicKey::from_csr_der(&csr), Ok(key.public_key()), "{tag}");
        assert_eq!(challenge_password(&csr).unwrap().unwrap().as_str(), "spt1.a_b", "{tag}");
        assert_eq!(claimed_name(&csr), "CN=x");
        let longer = [&csr[..], &[0]].concat();
        assert!(PublicKey::from_csr_der(&longer).is_err() && challenge_password(&longer).is_err());
    }
}

#[test]
fn a_claimed_name_cannot_turn_or_hide_what_stands_beside_it() {
    let key = key(KeyAlgorithm::EcdsaP256);
    let claim = |name: &str| claimed_name(&key.request(name, None, &SystemRandom::new()).unwrap());
    assert_eq!(claim("b\u{fc}ro laptop"), "CN=b\u{fc}ro laptop");
    // What could is written out, so that it is seen.
    assert_eq!(claim("gnp.\u{202e}moc.elpmaxe\u{2066}"), r"CN=gnp.\u{202e}moc.elpmaxe\u{2066}");
    assert_eq!(claim("a\u{200b}\u{feff}\u{ad}b\u{2028}c\u{e0041}"), r"CN=a\u{200b}\u{feff}\u{ad}b\u{2028}c\u{e0041}");
    let others = (0x80..=0xffff).chain([0xe_0001, 0xe_0fff]).filter_map(char::from_u32);
    for hidden in others.filter(|c| crate::name::is_format_character(*c)) {
        assert!(!claim(&format!("a{hidden}b")).contains(hidden), "{hidden:?}");
    }
}

/// A request with these attributes and a void signature.
fn unsigned(attributes: &[&[u8]]) -> Vec<u8> {
    let spki = key(KeyAlgorithm::EcdsaP256).public_key();
    let parts = [&der::integer(0), &name("x"), spki.spki_der(), &der::encode(CONTEXT_0, attributes)];
    let signature = der::encode(der::BIT_STRING, &[&[0]]);
    der::encode(SEQUENCE, &[&der::encode(SEQUENCE, &parts), &der::algorithm(&[1], &[]), &signature])
}

#[test]
fn a_challenge_password_that_is_not_one_string_is_refused() {
    let attribute = |values: &[&[u8]]| der::encode(SEQUENCE, &[&der::oid(OID_CHALLENGE), &der::encode(SET, values)]);
    let good = attribute(&[&text("a")]);
    assert_eq!(challenge_password(&unsigned(&[&good])).unwrap().unwrap().as_str(), "a");
    let bmp = attribute(&[&[0x1e, 4, 0, b'h', 0, b'i']]);
    assert_eq!(challenge_password(&unsigned(&[&bmp])).unwrap().unwrap().as_str(), "hi");
    let long = text(&"x".repeat(MAX_CHALLENGE + 1));
    let bad = [
        attribute(&[]),
        attribute(&[&text("a"), &text("b")]),
        attribute(&[&der::integer(1)]),
        attribute(&[&long]),
        [good.clone(), good.clone()].concat(),
        vec![2, 1, 0],
    ];
    for attributes in bad {
        assert!(challenge_password(&unsigned(&[&attributes])).is_err(), "{attributes:?}");
    }
    assert_eq!(challenge_password(&unsigned(&[&der::encode(SEQUENCE, &[&der::oid(&[1])])])), Ok(None));
}

/// A request for an RSA key, signed with it by another implementation than ours.
fn rsa_request(key: &RsaPrivateKey) -> Vec<u8> {
    let public =
        der::encode(SEQUENCE, &[&der::unsigned(&key.n().to_bytes_be()), &der::unsigned(&key.e().to_bytes_be())]);
    let bits = der::encode(der::BIT_STRING, &[&[0], &public]);
    let spki = der::encode(SEQUENCE, &[&der::algorithm(crate::key::OID_RSA, der::NULL), &bits]);
    let info = der::encode(SEQUENCE, &[&der::integer(0), &name("x"), &spki, &[CONTEXT_0, 0]]);
    let hash = crate::hash::Hash::Sha256;
    let prefix = [&[0x30, 0x31][..], &der::algorithm(hash.oid(), der::NULL), &[4, 32]].concat();
    let padding = Pkcs1v15Sign { hash_len: Some(32), prefix: prefix.into() };
    let signature = key.sign(padding, &hash.digest(&info)).unwrap();
    let signature = der::encode(der::BIT_STRING, &[&[0], &signature]);
    der::encode(SEQUENCE, &[&info, &der::algorithm(hash.rsa_signature(), der::NULL), &signature])
}

/// A key of two primes of 1024 bits, one beside the other.
fn close() -> RsaPrivateKey {
    let p = next_prime(BigUint::from(0xc000_0000_0000_1234_u64) << 960);
    let q = next_prime(&p + BigUint::from(2_u8));
    RsaPrivateKey::from_p_q(p, q, BigUint::from(65_537_u32)).unwrap()
}

fn next_prime(mut n: BigUint) -> BigUint {
    let one = BigUint::from(1_u8);
    let small = (3_u32..2_000).fold(BigUint::from(1_u8), |m, p| m * BigUint::from(p));
    n |= &one;
    loop {
        // Fermat's little theorem is enough of a test here.
        let coprime = gcd(small.clone(), n.clone()) == one;
        if coprime && BigUint::from(2_u8).modpow(&(&n - &one), &n) == one {
            return n;
        }
        n += BigUint::from(2_u8);
    }
}

fn gcd(mut a: BigUint, mut b: BigUint) -> BigUint {
    while b != BigUint::from(0_u8) {
        (a, b) = (b.clone(), a % b);
    }
    a
}

/// A key as the broken library of ROCA makes one: each prime is a power of 65537 modulo the product of the first primes
/// (CVE-2017-15361).
fn roca() -> RsaPrivateKey {
    let mut primes: Vec<u32> = vec![2];
    let odd = (3_u32..).step_by(2);
    for n in odd.take_while(|n| *n <= 167) {
        if primes.iter().all(|p| !n.is_multiple_of(*p)) {
            primes.push(n);
        }
    }
    let product = primes.iter().fold(BigUint::from(1_u8), |m, p| m * BigUint::from(*p));
    let one = BigUint::from(1_u8);
    let prime = |power: u32, top: u64| {
        let residue = BigUint::from(65_537_u32).modpow(&BigUint::from(power), &product);
        let mut p = (BigUint::from(top) << 960) / &product * &product + residue;
        // Fermat's little theorem is enough of a test here.
        while BigUint::from(2_u8).modpow(&(&p - &one), &p) != one {
            p += &product;
        }
        p
    };
    let (p, q) = (prime(1_234, 0xc000_0000_0000_1234), prime(98_765, 0xd000_0000_0000_1234));
    RsaPrivateKey::from_p_q(p, q, BigUint::from(65_537_u32)).unwrap()
}

#[test]
fn a_weak_key_is_refused_although_its_holder_signed() {
    let refused = |csr: &[u8]| match PublicKey::from_csr_der(csr) {
        Err(Error::PublicKey(why)) => why,
        other => panic!("{other:?}"),
    };
    assert!(refused(&rsa_request(&close())).contains("close together"));
    let found = refused(&rsa_request(&roca()));
    assert!(found.contains("ROCA"), "{found}");
    let rng = SystemRandom::new();
    let good = KeyPair::generate(KeyAlgorithm::Rsa2048, &rng).unwrap();
    let good = <RsaPrivateKey as rsa::pkcs8::DecodePrivateKey>::from_pkcs8_der(good.pkcs8_der()).unwrap();
    assert!(PublicKey::from_csr_der(&rsa_request(&good)).is_ok());
    let p = next_prime(BigUint::from(0xc000_0000_0000_1234_u64) << 448);
    let q = next_prime(BigUint::from(0xd000_0000_0000_1234_u64) << 448);
    let short = RsaPrivateKey::from_p_q(p, q, BigUint::from(65_537_u32)).unwrap();
    assert!(refused(&rsa_request(&short)).contains("at least 2048 bits"));
}

#[test]
fn ten_thousand_names_are_refused_for_their_size() {
    let names: Vec<u8> =
        (0..10_000).flat_map(|n| der::encode(0x82, &[format!("h{n}.example.com").as_bytes()])).collect();
    let value = der::encode(der::OCTET_STRING, &[&der::encode(SEQUENCE, &[&names])]);
    let extension = der::encode(SEQUENCE, &[&der::oid(&[0x55, 29, 17]), &value]);
    let csr = unsigned(&[&extension]);
    assert!(csr.len() > 100_000);
    assert_eq!(PublicKey::from_csr_der(&csr), Err(Error::Request("longer than 16 KiB")));
    assert_eq!(challenge_password(&csr), Err(Error::Request("longer than 16 KiB")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn junk_and_damage_are_refused_without_a_panic(at in 0_usize..300, to in any::<u8>(), junk in proptest::collection::vec(any::<u8>(), 0..64)) {
        let csr = unsigned(&[&der::encode(SEQUENCE, &[&der::oid(OID_CHALLENGE), &der::encode(SET, &[&text("secret")])])]);
        let mut damaged = csr.clone();
        let at = at % damaged.len();
        damaged[at] = to;
        for bytes in [&damaged, &junk] {
            let _ = challenge_password(bytes);
            prop_assert!(PublicKey::from_csr_der(bytes).is_err());
        }
    }
}
