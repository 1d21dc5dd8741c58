//! SCEP: messages to the RA, and what stands behind their signature and behind the key of their envelope.
//!
//! Each packet of an input is a message (choice 0), or is made into one that is signed well: as the content (1), as the value of one
//! attribute (2 to 4), as what is in the envelope (5 to 7, by the kind of the request), or as an answer (8).
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sallyport_ca::cms::{self, Attribute, ContentCipher, Digest, Signed};
use sallyport_ca::scep::client::{Authority, Transaction};
use sallyport_ca::scep::{self, Kind, Outcome, RaIdentity};
use sallyport_ca::{KeyPair, SystemRandom};
use sallyport_fuzz::steps;

const CERTIFICATE: &[u8] = include_bytes!("../seeds/rsa.der");
const CSR: &[u8] = include_bytes!("../seeds/request-rsa.der");
/// Most messages of one input: each may take an operation with a private key.
const MAX_MESSAGES: usize = 4;

fn key() -> KeyPair {
    KeyPair::from_pkcs8_der(include_bytes!("../seeds/rsa.p8")).expect("a key")
}

static KEY: LazyLock<KeyPair> = LazyLock::new(key);
static RA: LazyLock<RaIdentity> = LazyLock::new(|| {
    RaIdentity::new(key(), CERTIFICATE, Vec::new()).expect("an RA").accepting_single_des()
});
static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| Authority::parse(CERTIFICATE).expect("an authority"));
static GOOD: LazyLock<Signed> = LazyLock::new(|| {
    let message = transaction().request(Kind::Enroll, CSR, &SystemRandom::new()).expect("a message");
    Signed::verify(&message).expect("its signature")
});

fn transaction() -> Transaction<'static> {
    Transaction::new(&AUTHORITY, &KEY, CERTIFICATE, CSR).expect("a transaction")
}

fn signed(content: &[u8], attributes: &[Attribute]) -> Vec<u8> {
    let others: [&[u8]; 0] = [];
    let rng = SystemRandom::new();
    cms::sign(content, attributes, &KEY, CERTIFICATE, &others, Digest::Sha256, &rng).expect("a signature")
}

fuzz_target!(|data: &[u8]| {
    let rng = SystemRandom::new();
    for step in steps(data).take(MAX_MESSAGES) {
        let message = match step.choice % 9 {
            0 => step.packet.to_vec(),
            1 => signed(step.packet, &GOOD.attributes),
            at @ 2..=4 => {
                let mut attributes = GOOD.attributes.clone();
                attributes[usize::from(at) - 2].value = step.packet.to_vec();
                signed(&GOOD.content, &attributes)
            }
            kind @ 5..=7 => {
                let envelope = cms::encrypt(step.packet, ContentCipher::Aes128, CERTIFICATE, &rng).expect("an envelope");
                let mut attributes = GOOD.attributes.clone();
                let number = ["19", "17", "20"][usize::from(kind) - 5];
                attributes.iter_mut().filter(|a| a.oid.last() == Some(&2)).for_each(|a| {
                    a.value = [&[0x13, 2], number.as_bytes()].concat();
                });
                signed(&envelope, &attributes)
            }
            _ => {
                let _ = transaction().open(step.packet, &rng);
                let _ = Authority::parse(step.packet);
                continue;
            }
        };
        match scep::open(&message, &RA, &rng) {
            Ok(request) => {
                assert!(request.challenge.is_none() || request.same_key);
                let answer = scep::reply(&request, &Outcome::Pending, &RA, &rng).expect("an answer");
                assert!(Signed::verify(&answer).is_ok());
            }
            Err(failure) => drop((failure.to_string(), failure.reply(&RA, &rng))),
        }
    }
});
