//! PKCS #12 (RFC 7292): a private key with its certificates under a password, as other systems import it.
//!
//! ```text
//! PFX { 3, data { encryptedData { certificates }, data { shrouded key } }, MAC over the inner data }
//! ```
//!
//! [`Protection::Modern`] is AES-256-CBC by PBES2 (RFC 8018 §6.2) with an HMAC-SHA-256 MAC, what OpenSSL 3, Windows 10 and
//! macOS 14 write and read. [`Protection::Legacy`] is 3DES and SHA-1, for importers that know nothing else: its contents are as
//! safe as the password is long.

use core::num::NonZeroU32;

use ring::rand::SecureRandom;
use ring::{digest, hmac, pbkdf2};
use sallyport_crypto::cbc::{CbcAlg, CbcEncryptor};
use zeroize::Zeroizing;

use crate::Error;
use crate::der::{CONTEXT_0, INTEGER, OID, SEQUENCE, SET, encode as element};

/// Passwords that this project makes have 120 random bits and need no stretching; a person's own gets some.
const ITERATIONS: u32 = 10_000;
const SALT: usize = 16;
/// The longest password, characters.
const MAX_PASSWORD: usize = 128;

const OCTET_STRING: u8 = 0x04;
const NULL: &[u8] = &[5, 0];
/// DER contents of object identifiers: PKCS #7 data and encryptedData, 1.2.840.113549.1.7.{1, 6}.
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
const ENCRYPTED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 6];
/// pkcs-12-pkcs-8ShroudedKeyBag and certBag, 1.2.840.113549.1.12.10.1.{2, 3}.
const SHROUDED_KEY_BAG: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 10, 1, 2];
const CERT_BAG: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 10, 1, 3];
/// x509Certificate, 1.2.840.113549.1.9.22.1; friendlyName and localKeyId, 1.2.840.113549.1.9.{20, 21}.
const X509: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 22, 1];
const FRIENDLY_NAME: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 20];
const LOCAL_KEY_ID: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 21];
/// pbeWithSHAAnd3-KeyTripleDES-CBC, 1.2.840.113549.1.12.1.3.
const PBE_3DES: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 1, 3];
/// PBKDF2 and PBES2, 1.2.840.113549.1.5.{12, 13}; hmacWithSHA256, 1.2.840.113549.2.9.
const PBKDF2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 12];
const PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 13];
const HMAC_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2, 9];
/// aes256-CBC-PAD, 2.16.840.1.101.3.4.1.42; SHA-256, 2.16.840.1.101.3.4.2.1; SHA-1, 1.3.14.3.2.26.
const AES256_CBC: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 42];
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
const SHA1: &[u8] = &[0x2b, 14, 3, 2, 26];

/// How it is encrypted and authenticated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protection {
    /// AES-256 and SHA-256.
    #[default]
    Modern,
    /// 3DES and SHA-1.
    Legacy,
}

/// What goes in.
#[derive(Clone, Copy)]
pub struct Contents<'a> {
    /// The private key, PKCS #8 in DER.
    pub key: &'a [u8],
    /// Its certificate in DER.
    pub certificate: &'a [u8],
    /// Certificates above it in DER, roots last.
    pub authorities: &'a [&'a [u8]],
    /// What an importer shows.
    pub name: &'a str,
}

/// Writes a PKCS #12 file under a password.
pub fn encode(
    contents: &Contents<'_>,
    password: &str,
    protection: Protection,
    rng: &dyn SecureRandom,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    if password.is_empty() || password.chars().count() > MAX_PASSWORD {
        return Err(Error::Request("the password of a PKCS #12 file has 1 to 128 characters"));
    }
    let coder = Coder { password, bmp: bmp(password), protection, rng };
    let id = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, contents.certificate);
    let own = [friendly_name(contents.name), attribute(LOCAL_KEY_ID, &element(OCTET_STRING, &[id.as_ref()]))].concat();

    let mut certificates = certificate_bag(contents.certificate, &own);
    for der in contents.authorities {
        certificates.extend(certificate_bag(der, &[]));
    }
    let certificates = coder.encrypted_data(&element(SEQUENCE, &[&certificates]))?;
    let (algorithm, shrouded) = coder.encrypt(contents.key)?;
    let shrouded = element(SEQUENCE, &[&algorithm, &element(OCTET_STRING, &[&shrouded])]);
    let key =
        content_info(DATA, &element(OCTET_STRING, &[&element(SEQUENCE, &[&bag(SHROUDED_KEY_BAG, &shrouded, &own)])]));

    let safe = element(SEQUENCE, &[&certificates, &key]);
    let mac = coder.mac(&safe)?;
    let data = content_info(DATA, &element(OCTET_STRING, &[&safe]));
    Ok(Zeroizing::new(element(SEQUENCE, &[&element(INTEGER, &[&[3]]), &data, &mac])))
}

struct Coder<'a> {
    password: &'a str,
    bmp: Zeroizing<Vec<u8>>,
    protection: Protection,
    rng: &'a dyn SecureRandom,
}

impl Coder<'_> {
    fn random<const N: usize>(&self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.rng.fill(&mut bytes).map_err(|_| Error::Crypto("the random source failed"))?;
        Ok(bytes)
    }

    /// AlgorithmIdentifier and ciphertext.
    fn encrypt(&self, plain: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Error> {
        let salt = self.random::<SALT>()?;
        let (salt_der, iterations_der) = (element(OCTET_STRING, &[&salt]), integer(ITERATIONS));
        match self.protection {
            Protection::Modern => {
                let iv = self.random::<16>()?;
                let mut key = Zeroizing::new([0; 32]);
                let rounds = NonZeroU32::new(ITERATIONS).unwrap_or(NonZeroU32::MIN);
                pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, self.password.as_bytes(), key.as_mut_slice());
                let prf = algorithm(HMAC_SHA256, NULL);
                let kdf = algorithm(PBKDF2, &element(SEQUENCE, &[&salt_der, &iterations_der, &integer(32), &prf]));
                let cipher = algorithm(AES256_CBC, &element(OCTET_STRING, &[&iv]));
                let parameters = element(SEQUENCE, &[&kdf, &cipher]);
                Ok((algorithm(PBES2, &parameters), cbc(CbcAlg::Aes256, key.as_slice(), &iv, plain)?))
            }
            Protection::Legacy => {
                let key = self.derive(1, &salt, 24);
                let iv = self.derive(2, &salt, 8);
                let parameters = element(SEQUENCE, &[&salt_der, &iterations_der]);
                Ok((algorithm(PBE_3DES, &parameters), cbc(CbcAlg::TripleDes, &key, &iv, plain)?))
            }
        }
    }

    /// A ContentInfo of EncryptedData, RFC 5652 §8.
    fn encrypted_data(&self, plain: &[u8]) -> Result<Vec<u8>, Error> {
        let (algorithm, ciphertext) = self.encrypt(plain)?;
        // [0] IMPLICIT OCTET STRING
        let content = element(SEQUENCE, &[&element(OID, &[DATA]), &algorithm, &element(0x80, &[&ciphertext])]);
        Ok(content_info(ENCRYPTED_DATA, &element(SEQUENCE, &[&element(INTEGER, &[&[0]]), &content])))
    }

    /// MacData, RFC 7292 §4 and appendix A.
    fn mac(&self, safe: &[u8]) -> Result<Vec<u8>, Error> {
        let salt = self.random::<SALT>()?;
        let (oid, algorithm_of_mac, len) = match self.protection {
            Protection::Modern => (SHA256, hmac::HMAC_SHA256, 32),
            Protection::Legacy => (SHA1, hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, 20),
        };
        let key = self.derive(3, &salt, len);
        let tag = hmac::sign(&hmac::Key::new(algorithm_of_mac, &key), safe);
        let info = element(SEQUENCE, &[&algorithm(oid, NULL), &element(OCTET_STRING, &[tag.as_ref()])]);
        Ok(element(SEQUENCE, &[&info, &element(OCTET_STRING, &[&salt]), &integer(ITERATIONS)]))
    }

    /// The derivation of RFC 7292 appendix B.2; `id` is 1 for a key, 2 for an IV, 3 for a MAC key.
    fn derive(&self, id: u8, salt: &[u8], len: usize) -> Zeroizing<Vec<u8>> {
        /// The block of SHA-1 and SHA-256.
        const V: usize = 64;
        let hash = match self.protection {
            Protection::Modern => &digest::SHA256,
            Protection::Legacy => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        };
        let fill = |from: &[u8]| from.iter().copied().cycle().take(from.len().div_ceil(V) * V).collect::<Vec<u8>>();
        let mut blocks = Zeroizing::new([fill(salt), fill(&self.bmp)].concat());
        let mut out = Zeroizing::new(Vec::with_capacity(len + 32));
        while out.len() < len {
            let mut context = digest::Context::new(hash);
            context.update(&[id; V]);
            context.update(&blocks);
            let mut a = context.finish();
            for _ in 1..ITERATIONS {
                a = digest::digest(hash, a.as_ref());
            }
            out.extend_from_slice(a.as_ref());
            let b: Zeroizing<Vec<u8>> = Zeroizing::new(a.as_ref().iter().copied().cycle().take(V).collect());
            for block in blocks.chunks_mut(V) {
                // I_j + B + 1 modulo 2^512
                let mut carry = 1_u16;
                for (i, b) in block.iter_mut().zip(b.iter()).rev() {
                    carry += u16::from(*i) + u16::from(*b);
                    *i = carry as u8;
                    carry >>= 8;
                }
            }
        }
        out.truncate(len);
        out
    }
}

/// A BMPString with its terminating zero, RFC 7292 appendix B.1.
fn bmp(password: &str) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(4 * password.len() + 2));
    out.extend(password.encode_utf16().chain([0]).flat_map(u16::to_be_bytes));
    out
}

/// CBC with the padding of RFC 5652 §6.3.
fn cbc(alg: CbcAlg, key: &[u8], iv: &[u8], plain: &[u8]) -> Result<Vec<u8>, Error> {
    let failed = |_| Error::Crypto("a key or IV of the wrong length");
    let pad = alg.block_len() - plain.len() % alg.block_len();
    let mut buffer = Vec::with_capacity(plain.len() + pad);
    buffer.extend_from_slice(plain);
    buffer.resize(plain.len() + pad, pad as u8);
    CbcEncryptor::new(alg, key).map_err(failed)?.encrypt(iv, &mut buffer).map_err(failed)?;
    Ok(buffer)
}

fn algorithm(oid: &[u8], parameters: &[u8]) -> Vec<u8> {
    element(SEQUENCE, &[&element(OID, &[oid]), parameters])
}

fn integer(value: u32) -> Vec<u8> {
    let octets = value.to_be_bytes();
    let skip = octets.iter().take_while(|b| **b == 0).count().min(3);
    let octets = octets.get(skip..).unwrap_or(&[]);
    let sign: &[u8] = if octets.first().is_some_and(|b| *b >= 0x80) { &[0] } else { &[] };
    element(INTEGER, &[sign, octets])
}

fn content_info(kind: &[u8], content: &[u8]) -> Vec<u8> {
    element(SEQUENCE, &[&element(OID, &[kind]), &element(CONTEXT_0, &[content])])
}

fn bag(kind: &[u8], value: &[u8], attributes: &[u8]) -> Vec<u8> {
    let attributes = if attributes.is_empty() { Vec::new() } else { element(SET, &[attributes]) };
    element(SEQUENCE, &[&element(OID, &[kind]), &element(CONTEXT_0, &[value]), &attributes])
}

fn certificate_bag(der: &[u8], attributes: &[u8]) -> Vec<u8> {
    let value = element(CONTEXT_0, &[&element(OCTET_STRING, &[der])]);
    bag(CERT_BAG, &element(SEQUENCE, &[&element(OID, &[X509]), &value]), attributes)
}

fn attribute(kind: &[u8], value: &[u8]) -> Vec<u8> {
    element(SEQUENCE, &[&element(OID, &[kind]), &element(SET, &[value])])
}

fn friendly_name(name: &str) -> Vec<u8> {
    let units: Vec<u8> =
        name.chars().take(MAX_PASSWORD).collect::<String>().encode_utf16().flat_map(u16::to_be_bytes).collect();
    attribute(FRIENDLY_NAME, &element(0x1e, &[&units]))
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    /// The whole file is for OpenSSL, GnuTLS and NSS to judge: `tests/pkcs12.rs`.
    #[test]
    fn a_password_is_big_endian_with_a_zero_behind_it() {
        assert_eq!(*bmp("smeg"), hex!("0073006d006500670000"));
        assert_eq!(integer(10_000), hex!("02022710"));
        assert_eq!(integer(128), hex!("02020080"));
        assert_eq!(integer(0), hex!("020100"));
    }

    #[test]
    fn no_file_is_without_a_password() {
        let rng = ring::rand::SystemRandom::new();
        let contents = Contents { key: b"key", certificate: b"certificate", authorities: &[], name: "x" };
        assert!(encode(&contents, "", Protection::Modern, &rng).is_err());
        assert!(encode(&contents, &"x".repeat(129), Protection::Modern, &rng).is_err());
        let one = encode(&contents, "sesame", Protection::Modern, &rng).unwrap();
        assert_ne!(one, encode(&contents, "sesame", Protection::Modern, &rng).unwrap());
    }
}
