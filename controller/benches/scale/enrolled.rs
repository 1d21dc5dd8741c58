//! The state of a cluster whose machines have enrolled by tokens, over a year: certificates, machines, the certificates themselves for
//! whoever asks again, and the audit log; one in a hundred was revoked.

use std::path::Path;

use sallyport_ca::seal::SealKey;
use sallyport_ca::{Authority, KeyAlgorithm, KeyPair, Profile, RootConfig, Serial, Subject, SystemRandom, UnixTime};
use sallyport_controller::state::{
    Action, CertificateRow, CompleteCertificate, CreateEnrollToken, IntendCertificate, Proof, ProofKind,
    RevokeCertificates, Selector, TokenProof,
};
use sallyport_controller::{Engine, LEVEL};
use sallyport_proto::v1;

use crate::fill::{BEGIN_MS, Filler, serial};

/// One in so many is revoked.
const REVOKED: u64 = 100;
const DAY_MS: u64 = 86_400 * 1_000;
/// The first octet of each serial number.
const EPOCH: u8 = 1;

/// An authority whose time has come when the log begins.
pub(crate) fn authority() -> Authority {
    let rng = SystemRandom::new();
    let seal = SealKey::generate(&rng).unwrap();
    let begin = UnixTime((BEGIN_MS / 1_000) as i64);
    Authority::create(&RootConfig::new("Example", "Example Root"), &seal, begin, &rng).unwrap().0
}

fn name(n: u64) -> String {
    format!("laptop-{n:07}.example.org")
}

fn serial_of(n: u64) -> String {
    format!("{EPOCH:02x}{}", serial(n))
}

fn octets(hex: &str) -> Vec<u8> {
    hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Puts one in the place of the other, wherever it stands.
fn replace(within: &mut [u8], old: &[u8], new: &[u8]) {
    assert_eq!(old.len(), new.len());
    let at: Vec<usize> = (0..=within.len() - old.len()).filter(|at| within[*at..].starts_with(old)).collect();
    assert!(!at.is_empty());
    for at in at {
        within[at..at + new.len()].copy_from_slice(new);
    }
}

/// Makes the state in an empty folder.
pub(crate) async fn fill(path: &Path, engine: Engine, certificates: u64) {
    let mut filler = Filler::begin(path, engine, LEVEL).await;
    filler.apply().await;
    let shared = filler.machine.shared();
    let (version, validity_ms) = {
        let rules = shared.read().profile(Profile::Machine);
        (rules.version, rules.validity_s * 1_000)
    };
    // What is signed differs by name and number; the key in it is looked at by nobody here.
    let rng = SystemRandom::new();
    let first = Serial::from_be_bytes(&octets(&serial_of(0)));
    let pair = KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng).unwrap();
    let alt_name = sallyport_ca::AltName::Dns(name(0));
    let subject = Subject::new(&name(0), vec![alt_name]).unwrap();
    let begin = UnixTime((BEGIN_MS / 1_000) as i64);
    let validity = core::time::Duration::from_millis(validity_ms);
    let prepared = authority().prepare(Profile::Machine, &subject, &pair.public_key(), begin, validity, first);
    let template = prepared.unwrap().tbs().to_vec();
    // As if by ECDSA on P-256.
    let signature: Vec<u8> = (0..70).collect();
    for n in 0..certificates {
        filler.at_ms = BEGIN_MS + n * (350 * DAY_MS / certificates.max(1));
        let (serial, id, hash) = (serial_of(n), n.to_be_bytes().to_vec(), n.to_be_bytes().repeat(4));
        let token = CreateEnrollToken {
            id: id.clone(),
            hash: hash.clone(),
            profile: Profile::Machine.name().into(),
            name: name(n),
            ttl_ms: DAY_MS,
            uses: 1,
            made_by: "operator".into(),
            ..CreateEnrollToken::default()
        };
        filler.put(Action::CreateEnrollToken(token)).await;
        let mut tbs = template.clone();
        replace(&mut tbs, &octets(&serial_of(0)), &octets(&serial));
        replace(&mut tbs, name(0).as_bytes(), name(n).as_bytes());
        let record = CertificateRow {
            serial: serial.clone(),
            profile: v1::CertificateProfile::Machine.into(),
            name: name(n),
            sans: vec![name(n)],
            not_before_ms: filler.at_ms,
            not_after_ms: filler.at_ms + validity_ms,
            key_algorithm: v1::KeyAlgorithm::EcdsaP256.into(),
            ..CertificateRow::default()
        };
        let intent = IntendCertificate {
            transaction: [[0; 8], n.to_be_bytes()].concat(),
            proof: Some(Proof { kind: Some(ProofKind::Token(TokenProof { id, hash })) }),
            key_sha256: n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().repeat(4),
            source: "192.0.2.7".into(),
            profile_version: version,
            tbs,
            record: Some(record),
            issuer: 0,
        };
        filler.put(Action::IntendCertificate(intent)).await;
        filler.put(Action::CompleteCertificate(CompleteCertificate { serial, signature: signature.clone() })).await;
    }
    for n in (0..certificates).step_by(REVOKED as usize) {
        let which = Some(Selector::Serial(serial_of(n)));
        let revoke = RevokeCertificates { which, code: 1, text: "the laptop was stolen".into() };
        filler.put(Action::RevokeCertificates(revoke)).await;
    }
    filler.apply().await;
    {
        let state = shared.read();
        assert_eq!((state.certificates.len() as u64, state.machines.len() as u64), (certificates + 1, certificates));
        assert!(state.log_tree().size() > certificates * 2, "{}", state.log_tree().size());
    }
    filler.end().await;
}
