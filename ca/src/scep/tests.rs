use core::time::Duration;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::client::{Authority as Server, Reply, Transaction};
use super::*;
use crate::cms::{self, Attribute, Signed};
use crate::{KeyAlgorithm, SystemRandom, UnixTime, der};

const NOW: UnixTime = UnixTime(1_800_000_000);

struct Party {
    key: KeyPair,
    certificate: Vec<u8>,
}

impl Party {
    fn new(algorithm: KeyAlgorithm, name: &str) -> Self {
        let key = KeyPair::generate(algorithm, &SystemRandom::new()).unwrap();
        let certificate = key.self_signed(name, NOW, Duration::from_secs(3600), &SystemRandom::new()).unwrap();
        Self { key, certificate }
    }

    fn csr(&self, challenge: Option<&str>) -> Vec<u8> {
        self.key.request("laptop7", challenge, &SystemRandom::new()).unwrap().to_vec()
    }
}

static RA: LazyLock<(RaIdentity, Server)> = LazyLock::new(|| {
    let party = Party::new(KeyAlgorithm::Rsa2048, "RA");
    let ra = RaIdentity::new(party.key, &party.certificate, vec![EC.certificate.clone()]).unwrap();
    let server = Server::parse(&ra.ca_certificates()).unwrap();
    (ra, server)
});
static LAPTOP: LazyLock<Party> = LazyLock::new(|| Party::new(KeyAlgorithm::Rsa2048, "laptop7"));
static THIEF: LazyLock<Party> = LazyLock::new(|| Party::new(KeyAlgorithm::Rsa2048, "thief"));
static EC: LazyLock<Party> = LazyLock::new(|| Party::new(KeyAlgorithm::EcdsaP256, "ec"));

fn rng() -> SystemRandom {
    SystemRandom::new()
}

fn transaction(party: &Party, csr: &[u8]) -> Transaction<'static> {
    // Parties live as long as the tests; the borrow of the key is what the type wants.
    let key: &'static KeyPair = Box::leak(Box::new(KeyPair::from_pkcs8_der(party.key.pkcs8_der()).unwrap()));
    Transaction::new(&RA.1, key, &party.certificate, csr).unwrap()
}

/// The failure of a message, and whether it is answered.
fn refused(message: &[u8]) -> (FailInfo, String, bool) {
    let failure = open(message, &RA.0, &rng()).unwrap_err();
    (failure.info, failure.cause.to_string(), failure.reply(&RA.0, &rng()).is_some())
}

#[test]
fn a_request_is_granted_and_its_certificate_comes_back() {
    let csr = LAPTOP.csr(Some("spt1.secret"));
    for cipher in [ContentCipher::Aes128, ContentCipher::Aes192, ContentCipher::Aes256, ContentCipher::TripleDes] {
        let mut client = transaction(&LAPTOP, &csr).with_cipher(cipher);
        let message = client.request(Kind::Enroll, &csr, &rng()).unwrap();
        let request = open(&message, &RA.0, &rng()).unwrap();
        assert_eq!((request.kind, request.same_key, request.reply_to.cipher), (Kind::Enroll, true, cipher));
        assert_eq!((&request.csr, &request.signer), (&csr, &LAPTOP.certificate));
        assert_eq!(request.challenge.as_ref().unwrap().as_str(), "spt1.secret");
        assert_eq!((request.transaction_id.len(), request.sender_nonce.len()), (64, 16));
        assert!(!format!("{request:?}").contains("secret"));
        let outcome = Outcome::Success { certificate: vec![0x30, 1, 5], chain: vec![vec![0x30, 0]] };
        let answer = reply(&request, &outcome, &RA.0, &rng()).unwrap();
        assert_eq!(client.open(&answer, &rng()), Ok(Reply::Issued(vec![vec![0x30, 1, 5], vec![0x30, 0]])));
        // Its nonce is that of the one message before.
        client.poll(&rng()).unwrap();
        assert!(client.open(&answer, &rng()).is_err());
    }
}

#[test]
fn a_requester_waits_polls_and_hears_why_not() {
    let csr = LAPTOP.csr(None);
    let mut client = transaction(&LAPTOP, &csr);
    let first = open(&client.request(Kind::Enroll, &csr, &rng()).unwrap(), &RA.0, &rng()).unwrap();
    assert_eq!(first.challenge, None);
    let answer = reply(&first, &Outcome::Pending, &RA.0, &rng()).unwrap();
    assert_eq!(client.open(&answer, &rng()), Ok(Reply::Pending));
    let poll = open(&client.poll(&rng()).unwrap(), &RA.0, &rng()).unwrap();
    assert_eq!((poll.kind, &poll.transaction_id, poll.csr.len()), (Kind::Poll, &first.transaction_id, 0));
    assert_ne!(poll.sender_nonce, first.sender_nonce);
    assert_eq!(poll.signer, first.signer);
    for info in FailInfo::ALL {
        for text in ["", "the token has expired: ask for another\n"] {
            let answer = reply(&poll, &Outcome::Failure { info, text: text.into() }, &RA.0, &rng()).unwrap();
            let text = text.replace('\n', "\\u{a}");
            assert_eq!(client.open(&answer, &rng()), Ok(Reply::Refused { info, text }));
        }
    }
}

#[test]
fn a_renewal_is_signed_with_the_present_certificate_and_has_a_new_key() {
    let csr = THIEF.csr(Some("ignored"));
    let message = transaction(&LAPTOP, &csr).request(Kind::Renew, &csr, &rng()).unwrap();
    let request = open(&message, &RA.0, &rng()).unwrap();
    assert_eq!((request.kind, request.same_key, request.challenge), (Kind::Renew, false, None));
    assert_eq!((request.signer, request.csr), (LAPTOP.certificate.clone(), csr));
}

#[test]
fn an_envelope_that_was_taken_from_another_gives_nothing_away() {
    let csr = LAPTOP.csr(Some("spt1.secret"));
    let message = transaction(&LAPTOP, &csr).request(Kind::Enroll, &csr, &rng()).unwrap();
    let envelope = Signed::verify(&message).unwrap().content;
    let stolen = |envelope: &[u8]| {
        let attributes = Signed::verify(&message).unwrap().attributes;
        let others: [&[u8]; 0] = [];
        cms::sign(envelope, &attributes, &THIEF.key, &THIEF.certificate, &others, Digest::Sha256, &rng()).unwrap()
    };
    let request = open(&stolen(&envelope), &RA.0, &rng()).unwrap();
    assert_eq!((request.same_key, request.challenge), (false, None));
    let mut answers = std::collections::BTreeSet::new();
    // In the wrapped key, in the first block, in the middle, in the padding.
    let (key, len) = (envelope.windows(4).position(|w| w == [4, 0x82, 1, 0]).unwrap() + 20, envelope.len());
    for at in [key, len - 600, len - 300, len - 33, len - 17, len - 1] {
        for change in 1..=8 {
            let mut damaged = envelope.clone();
            damaged[at] ^= change;
            let failure = open(&stolen(&damaged), &RA.0, &rng()).unwrap_err();
            let answer = failure.reply(&RA.0, &rng()).unwrap();
            let answer = Signed::verify(&answer).unwrap();
            let told: Vec<_> = answer.attributes.iter().filter(|a| a.oid.last() != Some(&5)).cloned().collect();
            answers.insert(format!("{:?} {told:?}", failure.info));
        }
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
}

#[test]
fn what_a_server_must_refuse_is_refused_with_the_right_code() {
    let csr = LAPTOP.csr(None);
    let good = transaction(&LAPTOP, &csr).request(Kind::Enroll, &csr, &rng()).unwrap();
    let good = Signed::verify(&good).unwrap();
    let signed_by = |party: &Party, content: &[u8], attributes: &[Attribute]| {
        let others: [&[u8]; 0] = [];
        cms::sign(content, attributes, &party.key, &party.certificate, &others, Digest::Sha256, &rng()).unwrap()
    };
    let kind = |number: &str| {
        let mut attributes = good.attributes.clone();
        attributes.retain(|a| a.oid.last() != Some(&message::MESSAGE_TYPE));
        attributes.push(message::text(message::MESSAGE_TYPE, number));
        signed_by(&LAPTOP, &good.content, &attributes)
    };
    for number in ["3", "18", "21", "22", "0", "x"] {
        let (info, _, answered) = refused(&kind(number));
        assert_eq!((info, answered), (FailInfo::BadRequest, true), "{number}");
    }
    assert!(open(&kind("19"), &RA.0, &rng()).is_ok());

    let without = |number: u8| {
        let attributes: Vec<_> = good.attributes.iter().filter(|a| a.oid.last() != Some(&number)).cloned().collect();
        refused(&signed_by(&LAPTOP, &good.content, &attributes))
    };
    assert_eq!(without(message::MESSAGE_TYPE).0, FailInfo::BadRequest);
    assert!(!without(message::TRANSACTION_ID).2 && !without(message::SENDER_NONCE).2);
    for (id, nonce) in
        [("", vec![1]), (&"x".repeat(129)[..], vec![1]), ("a\nb", vec![1]), ("a", vec![]), ("a", vec![0; 65])]
    {
        let attributes = [
            message::text(message::MESSAGE_TYPE, "19"),
            message::text(message::TRANSACTION_ID, id),
            message::octets(message::SENDER_NONCE, &nonce),
        ];
        assert!(!refused(&signed_by(&LAPTOP, &good.content, &attributes)).2);
    }

    let (info, cause, _) = refused(&signed_by(&EC, &good.content, &good.attributes));
    assert!(info == FailInfo::BadAlg && cause.contains("RSA"), "{cause}");
    assert_eq!(refused(&signed_by(&LAPTOP, b"", &good.attributes)).0, FailInfo::BadRequest);
    assert_eq!(refused(&signed_by(&LAPTOP, b"junk", &good.attributes)).0, FailInfo::BadMessageCheck);
    let aes = [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1];
    let at = good.content.windows(8).position(|w| w == aes).unwrap();
    let mut unknown = good.content.clone();
    unknown[at + 8] = 6; // GCM
    let (info, cause, _) = refused(&signed_by(&LAPTOP, &unknown, &good.attributes));
    assert!(info == FailInfo::BadAlg && cause.contains("set the client to AES"), "{cause}");
    let foreign = cms::encrypt(&csr, ContentCipher::Aes128, &THIEF.certificate, &rng()).unwrap();
    let (info, cause, _) = refused(&signed_by(&LAPTOP, &foreign, &good.attributes));
    assert!(info == FailInfo::BadMessageCheck && cause.contains("another certificate"), "{cause}");
    let junk = cms::encrypt(b"junk", ContentCipher::Aes128, RA.0.certificate(), &rng()).unwrap();
    assert_eq!(refused(&signed_by(&LAPTOP, &junk, &good.attributes)).0, FailInfo::BadMessageCheck);
    assert_eq!(refused(b"junk"), (FailInfo::BadMessageCheck, "bad message: it is not BER".into(), false));
}

#[test]
fn a_client_takes_no_answer_of_somebody_else() {
    let csr = LAPTOP.csr(None);
    let mut client = transaction(&LAPTOP, &csr);
    let message = client.request(Kind::Enroll, &csr, &rng()).unwrap();
    let request = open(&message, &RA.0, &rng()).unwrap();
    let key = KeyPair::from_pkcs8_der(THIEF.key.pkcs8_der()).unwrap();
    let other = RaIdentity::new(key, &THIEF.certificate, Vec::new()).unwrap();
    let answer = reply(&request, &Outcome::Pending, &other, &rng()).unwrap();
    assert!(client.open(&answer, &rng()).unwrap_err().to_string().contains("somebody else"));
    assert!(client.open(&message, &rng()).is_err());
    let csr = THIEF.csr(None);
    let another = transaction(&LAPTOP, &csr);
    let answer = reply(&request, &Outcome::Pending, &RA.0, &rng()).unwrap();
    assert!(another.open(&answer, &rng()).unwrap_err().to_string().contains("another message"));
}

#[test]
fn the_authority_is_read_with_its_ra_first_or_alone() {
    assert_eq!(RA.1.certificates().len(), 2);
    let alone = Server::parse(RA.0.certificate()).unwrap();
    assert_eq!(alone.certificates(), [RA.0.certificate()]);
    for nobody in [&EC.certificate[..], b"junk", &cms::certs_only(&[&EC.certificate])] {
        assert!(Server::parse(nobody).is_err());
    }
    assert!(RaIdentity::new(Party::new(KeyAlgorithm::EcdsaP256, "x").key, &EC.certificate, vec![]).is_err());
    assert!(CAPABILITIES.lines().all(|l| l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn damage_and_junk_make_no_panic(at in any::<prop::sample::Index>(), to in any::<u8>(), content in proptest::collection::vec(any::<u8>(), 0..100)) {
        static MESSAGE: LazyLock<Vec<u8>> = LazyLock::new(|| {
            let csr = LAPTOP.csr(Some("secret"));
            transaction(&LAPTOP, &csr).request(Kind::Enroll, &csr, &rng()).unwrap()
        });
        let mut damaged = MESSAGE.clone();
        let at = at.index(damaged.len());
        damaged[at] = to;
        let _ = (open(&damaged, &RA.0, &rng()), open(&content, &RA.0, &rng()), Server::parse(&content));
        // Behind the signature, where the value of an attribute is anything.
        let mut attributes = Signed::verify(&MESSAGE).unwrap().attributes;
        let value = der::encode(content.first().copied().unwrap_or(4), &[&content]);
        attributes[usize::from(to) % 3].value = value;
        let others: [&[u8]; 0] = [];
        let odd = cms::sign(&content, &attributes, &LAPTOP.key, &LAPTOP.certificate, &others, Digest::Sha256, &rng()).unwrap();
        prop_assert!(open(&odd, &RA.0, &rng()).is_err());
        prop_assert!(transaction(&LAPTOP, &LAPTOP.csr(None)).open(&odd, &rng()).is_err());
    }
}
