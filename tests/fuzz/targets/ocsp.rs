//! OCSP requests, and the answer to each that can be read.
#![no_main]

use core::time::Duration;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sallyport_ca::crl::{Reason, Status};
use sallyport_ca::ocsp::{Issuer, MAX_IDS, MAX_NONCE, Request, Responder, Validity};
use sallyport_ca::seal::SealKey;
use sallyport_ca::{Authority, KeyAlgorithm, KeyPair, RootConfig, Serial, SystemRandom, UnixTime};

const NOW: UnixTime = UnixTime(1_900_000_000);

static RESPONDER: LazyLock<(Responder, Issuer)> = LazyLock::new(|| {
    let rng = SystemRandom::new();
    let seal_key = SealKey::generate(&rng).expect("a key");
    let (authority, _) = Authority::create(&RootConfig::new("O", "Root"), &seal_key, NOW, &rng).expect("an authority");
    let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng).expect("a key");
    let (day, serial) = (Duration::from_secs(86_400), Serial::generate(&rng).expect("a serial"));
    let signer = authority.issue_ocsp_signer("OCSP", &key.public_key(), NOW, day, serial, &rng).expect("a certificate");
    let issuer = Issuer::of(authority.certificate().der()).expect("an issuer");
    (Responder::new(key, signer.der()).expect("a responder"), issuer)
});

fuzz_target!(|data: &[u8]| {
    let Ok(request) = Request::parse(data) else { return };
    assert!((1..=MAX_IDS).contains(&request.ids.len()));
    assert!(request.nonce.as_ref().is_none_or(|n| (1..=MAX_NONCE).contains(&n.len())));
    let (responder, issuer) = &*RESPONDER;
    let validity = Validity { from: NOW, until: UnixTime(NOW.0 + 60) };
    let status = |id: &sallyport_ca::ocsp::CertId| match id.serial().as_be_bytes().len() {
        _ if id.is_of(issuer) => Status::Good,
        0..8 => Status::Revoked { at: NOW, reason: Reason::KeyCompromise },
        _ => Status::Unknown,
    };
    responder.answer(&request, status, validity, &SystemRandom::new()).expect("an answer");
});
