//! Content keys encrypted with RSA: PKCS #1 v1.5 and OAEP (RFC 8017 §7).
//!
//! Whoever may send ciphertexts must not learn whether one was well-formed (Bleichenbacher, Manger). So nothing is refused here: the
//! length of the key is known from the cipher of the content, and what does not unpad to it gives another key, which depends on
//! the ciphertext and a secret: the same ciphertext fails the same way each time. The choice is made without branches. The
//! arithmetic below (crate `rsa`) is blinded, but not constant in time (RUSTSEC-2023-0071): the RA's key has no other use.

use ring::rand::SecureRandom;
use rsa::hazmat::rsa_decrypt_and_check;
use rsa::traits::PublicKeyParts as _;
use rsa::{BigUint, RsaPrivateKey};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};
use zeroize::Zeroizing;

use crate::Error;
use crate::der::{self, CONTEXT_0, CONTEXT_1, Der, OCTET_STRING, OID, SEQUENCE};
use crate::hash::Hash;
use crate::key::{OID_RSA, RandCore};

/// How a key was padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Padding {
    /// RSAES-PKCS1-v1_5.
    Pkcs1,
    /// RSAES-OAEP with an empty label.
    Oaep { hash: Hash, mask: Hash },
}

impl Padding {
    /// Reads the fields of an AlgorithmIdentifier (RFC 4055 §4.1).
    pub(super) fn parse(mut algorithm: Der<'_>) -> Option<Self> {
        /// id-RSAES-OAEP and id-mgf1, 1.2.840.113549.1.1.{7, 8}, id-pSpecified, 1.2.840.113549.1.1.9.
        const OAEP: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 7];
        const MGF1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 8];
        const LABEL: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 9];
        let hash_of = |mut algorithm: Der<'_>| Hash::from_oid(algorithm.expect(OID)?.content);
        match algorithm.expect(OID)?.content {
            OID_RSA => Some(Self::Pkcs1),
            OAEP => {
                let (mut hash, mut mask) = (Hash::Sha1, Hash::Sha1);
                if let Some(mut parameters) = algorithm.enter(SEQUENCE) {
                    if let Some(field) = parameters.take_if(CONTEXT_0) {
                        hash = hash_of(Der::new(field.content).enter(SEQUENCE)?)?;
                    }
                    if let Some(field) = parameters.take_if(CONTEXT_1) {
                        let mut generator = Der::new(field.content).enter(SEQUENCE)?;
                        generator.expect(OID).filter(|o| o.content == MGF1)?;
                        mask = hash_of(generator.enter(SEQUENCE)?)?;
                    }
                    if let Some(field) = parameters.take_if(der::CONTEXT_2) {
                        let mut source = Der::new(field.content).enter(SEQUENCE)?;
                        source.expect(OID).filter(|o| o.content == LABEL)?;
                        source.expect(OCTET_STRING).filter(|label| label.content.is_empty())?;
                    }
                    parameters.is_empty().then_some(())?;
                }
                Some(Self::Oaep { hash, mask })
            }
            _ => None,
        }
    }
}

/// The content key, of the length of `stand_in`, or that one. It fails only where the random source does.
pub(super) fn unwrap(
    key: &RsaPrivateKey,
    padding: Padding,
    encrypted: &[u8],
    stand_in: &[u8],
    rng: &dyn SecureRandom,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut source = RandCore::new(rng);
    // What is too long or too large for the key can be seen in the ciphertext: no secret.
    let number = BigUint::from_bytes_be(if encrypted.len() == key.size() { encrypted } else { &[] });
    let plain = rsa_decrypt_and_check(key, Some(&mut source), &number).ok();
    source.check()?;
    let mut block = Zeroizing::new(vec![0; key.size()]);
    if let Some(plain) = plain {
        let plain = Zeroizing::new(plain.to_bytes_be());
        let start = block.len().saturating_sub(plain.len());
        block.iter_mut().skip(start).zip(plain.iter()).for_each(|(to, from)| *to = *from);
    }
    Ok(match padding {
        Padding::Pkcs1 => unpad_pkcs1(&block, stand_in),
        Padding::Oaep { hash, mask } => unpad_oaep(&block, hash, mask, stand_in),
    })
}

/// `00 02 | at least 8 octets, none of them zero | 00 | key`.
fn unpad_pkcs1(block: &[u8], stand_in: &[u8]) -> Zeroizing<Vec<u8>> {
    let Some(at) = block.len().checked_sub(stand_in.len()).filter(|at| *at >= 11) else {
        return Zeroizing::new(stand_in.to_vec());
    };
    let (head, key) = block.split_at(at);
    let mut good = Choice::from(1);
    for (i, octet) in head.iter().enumerate() {
        good &= match i {
            0 => octet.ct_eq(&0),
            1 => octet.ct_eq(&2),
            _ if i + 1 == head.len() => octet.ct_eq(&0),
            _ => !octet.ct_eq(&0),
        };
    }
    select(good, key, stand_in)
}

/// `00 | masked seed | masked (hash of the label | zeros | 01 | key)`.
fn unpad_oaep(block: &[u8], hash: Hash, mask: Hash, stand_in: &[u8]) -> Zeroizing<Vec<u8>> {
    let len = hash.len();
    let Some((first, rest)) = block.split_first().filter(|(_, rest)| rest.len() > 2 * len + stand_in.len()) else {
        return Zeroizing::new(stand_in.to_vec());
    };
    let (masked_seed, masked_data) = rest.split_at(len);
    let mut seed = Zeroizing::new(masked_seed.to_vec());
    apply_mask(&mut seed, masked_data, mask);
    let mut data = Zeroizing::new(masked_data.to_vec());
    apply_mask(&mut data, &seed, mask);
    let (head, key) = data.split_at(data.len() - stand_in.len());
    let (label, zeros) = head.split_at(len);
    let mut good = first.ct_eq(&0) & label.ct_eq(&hash.digest(&[]));
    for (i, octet) in zeros.iter().enumerate() {
        good &= octet.ct_eq(&u8::from(i + 1 == zeros.len()));
    }
    select(good, key, stand_in)
}

/// MGF1, RFC 8017 §B.2.1.
fn apply_mask(data: &mut [u8], seed: &[u8], hash: Hash) {
    for (counter, chunk) in data.chunks_mut(hash.len()).enumerate() {
        let mut input = Zeroizing::new(Vec::with_capacity(seed.len() + 4));
        input.extend_from_slice(seed);
        input.extend_from_slice(&(counter as u32).to_be_bytes());
        let stream = Zeroizing::new(hash.digest(&input));
        chunk.iter_mut().zip(stream.iter()).for_each(|(to, from)| *to ^= from);
    }
}

fn select(good: Choice, key: &[u8], stand_in: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(key.iter().zip(stand_in).map(|(key, other)| u8::conditional_select(other, key, good)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAND_IN: [u8; 16] = [9; 16];

    #[test]
    fn a_block_of_pkcs1_gives_its_key_or_the_stand_in() {
        let good = [&[0, 2][..], &[7; 237], &[0], &[1; 16]].concat();
        assert_eq!(*unpad_pkcs1(&good, &STAND_IN), [1; 16]);
        for at in [0, 1, 2, 100, 238, 239] {
            let mut bad = good.clone();
            bad[at] = if at == 239 { 5 } else { bad[at].wrapping_mul(0) + u8::from(at < 2) * 3 };
            assert_eq!(*unpad_pkcs1(&bad, &STAND_IN), STAND_IN, "{at}");
        }
        // A key of another length than the cipher's.
        let long = [&[0, 2][..], &[7; 229], &[0], &[1; 24]].concat();
        assert_eq!(*unpad_pkcs1(&long, &STAND_IN), STAND_IN);
        assert_eq!(*unpad_pkcs1(&good[..20], &STAND_IN), STAND_IN);
    }

    #[test]
    fn a_block_of_oaep_gives_its_key_or_the_stand_in() {
        for hash in [Hash::Sha1, Hash::Sha256, Hash::Sha512] {
            let seed = vec![3; hash.len()];
            let zeros = vec![0; 255 - 2 * hash.len() - 17];
            let data = [&hash.digest(&[])[..], &zeros, &[1], &[5; 16]].concat();
            let mask = |seed: &[u8], mut data: Vec<u8>| {
                apply_mask(&mut data, seed, hash);
                let mut seed = seed.to_vec();
                apply_mask(&mut seed, &data, hash);
                [&[0][..], &seed, &data].concat()
            };
            let good = mask(&seed, data.clone());
            assert_eq!(*unpad_oaep(&good, hash, hash, &STAND_IN), [5; 16]);
            let mut first = good.clone();
            first[0] = 1;
            assert_eq!(*unpad_oaep(&first, hash, hash, &STAND_IN), STAND_IN);
            for at in [0, hash.len(), hash.len() + zeros.len()] {
                let mut bad = data.clone();
                bad[at] ^= 1;
                assert_eq!(*unpad_oaep(&mask(&seed, bad), hash, hash, &STAND_IN), STAND_IN, "{at}");
            }
            assert_eq!(*unpad_oaep(&good[..60], Hash::Sha256, Hash::Sha256, &STAND_IN), STAND_IN);
        }
    }
}
