use core::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::crl::{Reason, Status};
use crate::der::{self, CONTEXT_0, CONTEXT_2, OCTET_STRING, SEQUENCE};
use crate::seal::SealKey;
use crate::{Authority, KeyAlgorithm, KeyPair, RootConfig, SystemRandom, UnixTime};

const NOW: UnixTime = UnixTime(1_800_000_000);

/// A CertID of this issuer.
fn id(issuer: &Issuer, hash: Hash, serial: &[u8]) -> Vec<u8> {
    let (name, key) = issuer.hashes(hash).unwrap();
    let algorithm = der::algorithm(hash.oid(), der::NULL);
    let octets = |content: &[u8]| der::encode(OCTET_STRING, &[content]);
    der::encode(SEQUENCE, &[&algorithm, &octets(name), &octets(key), &der::unsigned(serial)])
}

fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[1, 1, 0xff] } else { &[] };
    der::encode(SEQUENCE, &[&der::oid(oid), critical, &der::encode(OCTET_STRING, &[value])])
}

fn request(ids: &[&[u8]], extensions: &[&[u8]]) -> Vec<u8> {
    let list: Vec<Vec<u8>> = ids.iter().map(|id| der::encode(SEQUENCE, &[id])).collect();
    let list = der::encode(SEQUENCE, &list.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let extensions = match extensions {
        [] => Vec::new(),
        some => der::encode(CONTEXT_2, &[&der::encode(SEQUENCE, some)]),
    };
    der::encode(SEQUENCE, &[&der::encode(SEQUENCE, &[&list, &extensions])])
}

fn nonce(len: usize) -> Vec<u8> {
    extension(NONCE, false, &der::encode(OCTET_STRING, &[&vec![7; len]]))
}

fn authority() -> Authority {
    let rng = SystemRandom::new();
    Authority::create(&RootConfig::new("Example", "Root"), &SealKey::generate(&rng).unwrap(), NOW, &rng).unwrap().0
}

#[test]
fn requests_name_certificates_by_either_hash() {
    let (ours, other) = (authority(), authority());
    let issuer = Issuer::of(ours.certificate().der()).unwrap();
    let other = Issuer::of(other.certificate().der()).unwrap();
    let ids = [id(&issuer, Hash::Sha1, &[1, 2]), id(&issuer, Hash::Sha256, &[0xff]), id(&other, Hash::Sha1, &[1, 2])];
    let asked = Request::parse(&request(&[&ids[0], &ids[1], &ids[2]], &[&nonce(16)])).unwrap();
    let ours: Vec<bool> = asked.ids.iter().map(|id| id.is_of(&issuer)).collect();
    assert_eq!(ours, [true, true, false]);
    assert_eq!(asked.ids[1].serial(), &Serial::from_be_bytes(&[0xff]));
    assert_eq!(asked.nonce.as_deref(), Some(&[7; 16][..]));
    // A hash that is not known is nobody's, and answered all the same.
    let unknown = der::encode(SEQUENCE, &[&der::algorithm(&[1], &[]), &[4, 1, 9], &[4, 1, 9], &[2, 1, 9]]);
    assert!(!Request::parse(&request(&[&unknown], &[])).unwrap().ids[0].is_of(&issuer));
}

#[test]
fn what_is_too_much_or_not_understood_is_malformed() {
    let issuer = Issuer::of(authority().certificate().der()).unwrap();
    let id = id(&issuer, Hash::Sha1, &[5]);
    let parse = |ids: &[&[u8]], extensions: &[&[u8]]| Request::parse(&request(ids, extensions)).map(|r| r.ids.len());
    assert_eq!(parse(&[&id[..]; MAX_IDS], &[]), Ok(MAX_IDS));
    assert_eq!(parse(&[&id[..]; MAX_IDS + 1], &[]), Err(Refusal::MalformedRequest));
    assert_eq!(parse(&[], &[]), Err(Refusal::MalformedRequest));
    for (len, good) in [(0, false), (1, true), (32, true), (MAX_NONCE, true), (MAX_NONCE + 1, false)] {
        assert_eq!(parse(&[&id], &[&nonce(len)]).is_ok(), good, "{len}");
    }
    assert!(parse(&[&id], &[&nonce(9), &nonce(9)]).is_err());
    assert!(parse(&[&id], &[&extension(NONCE, false, &[1, 2, 3])]).is_err());
    assert!(parse(&[&id], &[&extension(&[0x2a, 3], false, b"x")]).is_ok());
    assert!(parse(&[&id], &[&extension(&[0x2a, 3], true, b"x")]).is_err());
    let many = vec![extension(&[0x2a, 3], false, b"x"); 17];
    assert!(parse(&[&id], &many.iter().map(Vec::as_slice).collect::<Vec<_>>()).is_err());
    let negative = der::encode(SEQUENCE, &[&der::algorithm(&[1], &[]), &[4, 0], &[4, 0], &[2, 1, 0x80]]);
    assert!(parse(&[&negative], &[]).is_err());
    let long = der::encode(SEQUENCE, &[&der::algorithm(&[1], &[]), &[4, 0], &[4, 0], &der::unsigned(&[1; 65])]);
    assert!(parse(&[&long], &[]).is_err());
    assert!(Request::parse(&vec![0x30; MAX_REQUEST + 1]).is_err());
    let bytes = request(&[&id], &[]);
    assert!(Request::parse(&[&bytes[..], &[0]].concat()).is_err());
    assert_eq!(Refusal::MalformedRequest.response(), [0x30, 3, 10, 1, 1]);
    // A version and a signature, which does not matter.
    let list = der::encode(SEQUENCE, &[&der::encode(SEQUENCE, &[&id])]);
    let version = der::encode(CONTEXT_0, &[&der::integer(0)]);
    let signed =
        |version: &[u8]| der::encode(SEQUENCE, &[&der::encode(SEQUENCE, &[version, &list]), &[CONTEXT_0, 2, 0x30, 0]]);
    assert!(Request::parse(&signed(&version)).is_ok());
    assert!(Request::parse(&signed(&der::encode(CONTEXT_0, &[&der::integer(1)]))).is_err());
}

#[test]
fn only_a_certificate_for_it_makes_a_responder() {
    let (authority, rng) = (authority(), SystemRandom::new());
    let key = || KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng).unwrap();
    let (right, wrong, day) = (key(), key(), Duration::from_secs(86_400));
    let serial = || Serial::generate(&rng).unwrap();
    let signer = authority.issue_ocsp_signer("OCSP", &right.public_key(), NOW, day, serial(), &rng).unwrap();
    assert!(Responder::new(wrong, signer.der()).is_err());
    let subject = crate::Subject::new("a.example.com", vec![]).unwrap();
    let machine = authority.issue(crate::Profile::Machine, &subject, &right.public_key(), NOW, serial(), &rng).unwrap();
    let again = KeyPair::from_pkcs8_der(right.pkcs8_der()).unwrap();
    assert!(Responder::new(again, machine.der()).is_err());
    let responder = Responder::new(right, signer.der()).unwrap();
    let issuer = Issuer::of(authority.certificate().der()).unwrap();
    let asked = Request::parse(&request(&[&id(&issuer, Hash::Sha1, &[5])], &[])).unwrap();
    let never = Validity { from: NOW, until: NOW };
    assert!(responder.answer(&asked, |_| Status::Good, never, &rng).is_err());
    let beyond = Validity { from: NOW, until: UnixTime(i64::MAX) };
    assert!(responder.answer(&asked, |_| Status::Good, beyond, &rng).is_err());

    let month = Duration::from_secs(32 * 86_400);
    assert!(authority.issue_ocsp_signer("OCSP", &key().public_key(), NOW, month, serial(), &rng).is_err());
    assert!(authority.issue_ocsp_signer("", &key().public_key(), NOW, day, serial(), &rng).is_err());
    assert!(authority.issue_ocsp_signer("OCSP", &key().public_key(), NOW, Duration::ZERO, serial(), &rng).is_err());
    let late = UnixTime(NOW.0 + 20 * 365 * 86_400);
    assert!(authority.issue_ocsp_signer("OCSP", &key().public_key(), late, day, serial(), &rng).is_err());
    assert!(authority.issue_scep_ra("RA", &key().public_key(), NOW, day, serial(), &rng).is_err(), "not with ECDSA");
}

#[test]
fn reasons_have_the_numbers_of_the_standard() {
    let codes: Vec<u8> = Reason::ALL.iter().map(|r| r.code()).collect();
    assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 9, 10]);
    for reason in Reason::ALL {
        assert_eq!((Reason::from_code(reason.code()), reason.name().parse()), (Some(reason), Ok(reason)));
    }
    assert!(Reason::from_code(8).is_none() && "removeFromCRL".parse::<Reason>().is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn damage_and_junk_make_no_panic(at in any::<prop::sample::Index>(), to in any::<u8>(), junk in proptest::collection::vec(any::<u8>(), 0..80)) {
        let issuer = Issuer { sha1: (vec![1; 20], vec![2; 20]), sha256: (vec![1; 32], vec![2; 32]) };
        let mut bytes = request(&[&id(&issuer, Hash::Sha1, &junk), &id(&issuer, Hash::Sha256, &[1])], &[&nonce(20)]);
        let good = junk.iter().skip_while(|b| **b == 0).count() <= 64;
        prop_assert_eq!(Request::parse(&bytes).is_ok(), good);
        let at = at.index(bytes.len());
        bytes[at] = to;
        let _ = (Request::parse(&bytes), Request::parse(&junk));
    }
}
