use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::der::OCTET_STRING;
use crate::{KeyAlgorithm, KeyPair, SystemRandom, UnixTime};

static RSA: LazyLock<(KeyPair, Vec<u8>)> = LazyLock::new(|| identity(KeyAlgorithm::Rsa2048));
static EC: LazyLock<(KeyPair, Vec<u8>)> = LazyLock::new(|| identity(KeyAlgorithm::EcdsaP256));

fn identity(algorithm: KeyAlgorithm) -> (KeyPair, Vec<u8>) {
    let rng = SystemRandom::new();
    let key = KeyPair::generate(algorithm, &rng).unwrap();
    let certificate = key.self_signed("someone", UnixTime(1_800_000_000), core::time::Duration::from_secs(60), &rng);
    (key, certificate.unwrap())
}

fn signed(who: &(KeyPair, Vec<u8>), content: &[u8], attributes: &[Attribute]) -> Vec<u8> {
    let others: [&[u8]; 0] = [];
    sign(content, attributes, &who.0, &who.1, &others, Digest::Sha256, &SystemRandom::new()).unwrap()
}

#[test]
fn signed_attributes_are_read_back_and_each_octet_matters() {
    let attribute = Attribute { oid: vec![0x2a, 3], value: der::integer(9) };
    let message = signed(&EC, b"content", std::slice::from_ref(&attribute));
    let read = Signed::verify(&message).unwrap();
    assert_eq!(read.attributes, [attribute]);
    assert_eq!((read.attribute(&[0x2a, 3]), read.attribute(&[0x2a, 4])), (Some(&[2, 1, 9][..]), None));
    let mut accepted = 0;
    for at in (0..message.len()).step_by(3) {
        let mut damaged = message.clone();
        damaged[at] ^= 1;
        // What is not signed: versions, the list of hashes, parameters of algorithms, and what of a certificate is no key or name.
        if let Ok(other) = Signed::verify(&damaged) {
            assert_eq!((&other.content, &other.attributes), (&read.content, &read.attributes), "octet {at}");
            accepted += 1;
        }
    }
    assert!(accepted < message.len() / 6, "{accepted} of {}", message.len());
}

#[test]
fn an_attribute_that_comes_twice_or_with_two_values_is_refused() {
    let attribute = Attribute { oid: vec![0x2a, 3], value: der::integer(9) };
    let twice = signed(&EC, b"content", &[attribute.clone(), attribute.clone()]);
    assert_eq!(Signed::verify(&twice), Err(Error::Message("its signed attributes cannot be read")));
    let value = [der::integer(9), der::integer(8)].concat();
    let two = signed(&EC, b"content", &[Attribute { value, ..attribute }]);
    assert!(Signed::verify(&two).is_err());
    let many: Vec<_> = (0..64).map(|n| Attribute { oid: vec![0x2a, n], value: der::integer(n) }).collect();
    assert!(Signed::verify(&signed(&EC, b"content", &many)).is_err());
}

#[test]
fn a_signature_over_another_content_is_refused() {
    for who in [&*EC, &*RSA] {
        let message = signed(who, b"content", &[]);
        let at = message.windows(7).position(|w| w == b"content").unwrap();
        let mut damaged = message.clone();
        damaged[at] ^= 1;
        assert_eq!(Signed::verify(&damaged), Err(Error::Message("its content is not what was signed")));
        let mut damaged = message;
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(Signed::verify(&damaged), Err(Error::Message("its signature is not good")));
    }
}

#[test]
fn whatever_is_wrong_behind_the_key_is_one_failure_and_the_same_each_time() {
    let rng = SystemRandom::new();
    let key = DecryptionKey::new(&RSA.0, &RSA.1).unwrap();
    let message = encrypt(&[5; 100], ContentCipher::Aes128, &RSA.1, &rng).unwrap();
    let parsed = Enveloped::parse(&message).unwrap();
    assert_eq!(**parsed.decrypt(&key, &rng).unwrap(), [5; 100]);
    // The key's 256 octets, then the content's 112 at the end.
    let wrapped = message.windows(4).position(|w| w == [OCTET_STRING, 0x82, 1, 0]).unwrap() + 4;
    let mut seen = std::collections::BTreeSet::new();
    for change in 0..64 {
        let mut damaged = message.clone();
        damaged[wrapped + 2 * change] ^= 0x55;
        let damaged = Enveloped::parse(&damaged).unwrap();
        // A wrong content key ends in good padding once in 256 times: then there is a content, and it is nonsense.
        let result = damaged.decrypt(&key, &rng).map(|c| c.to_vec());
        assert_ne!(result, Ok(vec![5; 100]));
        assert_eq!(damaged.decrypt(&key, &rng).map(|c| c.to_vec()), result, "again");
        seen.extend(result.err().map(|e| e.to_string()));
    }
    let mut damaged = message.clone();
    *damaged.last_mut().unwrap() ^= 0xff;
    seen.extend(Enveloped::parse(&damaged).unwrap().decrypt(&key, &rng).err().map(|e| e.to_string()));
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["bad message: it could not be decrypted"]);
    assert_eq!(format!("{key:?}"), "DecryptionKey(..)");
}

#[test]
fn sizes_and_numbers_are_bounded() {
    assert!(certificates(&vec![0x30; MAX_MESSAGE + 1]).is_err());
    let many = vec![vec![0x30, 0]; MAX_CERTIFICATES + 1];
    assert_eq!(certificates(&certs_only(&many)), Err(Error::Message("it holds too many certificates")));
    assert_eq!(certificates(&certs_only(&many[1..])).unwrap(), many[1..]);
    assert_eq!(certificates(&certs_only::<&[u8]>(&[])), Ok(Vec::new()));
    let recipient = der::encode(
        SEQUENCE,
        &[&der::integer(0), &der::encode(0x80, &[&[1]]), &der::algorithm(&[1], &[]), &[OCTET_STRING, 0]],
    );
    let algorithm = der::algorithm(&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 2], &der::encode(OCTET_STRING, &[&[0; 16]]));
    let message = |recipients: usize, encrypted: usize| {
        let content =
            der::encode(SEQUENCE, &[&der::oid(ID_DATA), &algorithm, &der::encode(0x80, &[&vec![0; encrypted]])]);
        let recipients = der::encode(SET, &[&recipient.repeat(recipients)]);
        content_info(ID_ENVELOPED_DATA, &der::encode(SEQUENCE, &[&der::integer(0), &recipients, &content]))
    };
    assert!(Enveloped::parse(&message(8, 16)).is_ok());
    for (recipients, encrypted) in [(9, 16), (1, 0), (1, 15)] {
        assert!(Enveloped::parse(&message(recipients, encrypted)).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn messages_survive_the_way_and_damage_makes_no_panic(content in proptest::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let rng = SystemRandom::new();
        let message = signed(&EC, &content, &[]);
        prop_assert_eq!(&Signed::verify(&message).unwrap().content, &content);
        let sealed = encrypt(&content, ContentCipher::Aes256, &RSA.1, &rng).unwrap();
        for mut bytes in [message, sealed, certs_only(&[&EC.1]), content] {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = to;
            }
            let _ = (Signed::verify(&bytes), Enveloped::parse(&bytes), certificates(&bytes));
        }
    }
}
