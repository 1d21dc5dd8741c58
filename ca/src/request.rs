//! Certification requests (PKCS #10, RFC 2986). Only the key and the proof that the requester holds it are taken from
//! one: whatever names, extensions or attributes it asks for are not even looked at. The one exception is the challenge password,
//! with which SCEP authenticates.

use core::time::Duration;

use ring::rand::SecureRandom;
use x509_parser::asn1_rs::BitString;
use x509_parser::prelude::FromDer as _;
use x509_parser::verify::verify_signature;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo, X509Name};
use zeroize::Zeroizing;

use crate::der::{self, CONTEXT_0, Der, INTEGER, OID, SEQUENCE, SET};
use crate::name::{attribute_text, check_attribute};
use crate::{Error, KeyPair, PublicKey, Serial, UnixTime, pem, weak};

/// The longest request that is read, octets: one with a large RSA key and some attributes is below 4 KiB.
pub const MAX_REQUEST: usize = 16 * 1024;
/// The longest challenge password, octets. PKCS #9 says 255 characters.
const MAX_CHALLENGE: usize = 1024;
/// challengePassword, 1.2.840.113549.1.9.7 (RFC 2985 §5.4.1).
const OID_CHALLENGE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 7];
const OID_COMMON_NAME: &[u8] = &[0x55, 4, 3];

/// A request without its attributes: clients write these in kinds of strings that x509-parser refuses (certmonger a challenge
/// password with an underscore as a TeletexString), and what is not looked at need not be read.
struct Parsed<'a> {
    subject: X509Name<'a>,
    key: SubjectPublicKeyInfo<'a>,
    algorithm: AlgorithmIdentifier<'a>,
    signature: BitString<'a>,
    /// What is signed: the whole CertificationRequestInfo.
    info: &'a [u8],
}

impl<'a> Parsed<'a> {
    fn from_der(csr: &'a [u8]) -> Option<Self> {
        let mut request = Der::new(der::only(csr, SEQUENCE)?.content);
        let info = request.expect(SEQUENCE)?;
        let (algorithm, signature) = (request.expect(SEQUENCE)?.whole, request.expect(der::BIT_STRING)?.whole);
        let mut fields = Der::new(info.content);
        fields.expect(INTEGER).filter(|version| version.content == [0])?;
        let (subject, key) = (fields.expect(SEQUENCE)?.whole, fields.expect(SEQUENCE)?.whole);
        fields.take_if(CONTEXT_0); // attributes; some clients leave them out when there are none
        let ([], subject) = X509Name::from_der(subject).ok()? else { return None };
        let ([], key) = SubjectPublicKeyInfo::from_der(key).ok()? else { return None };
        let ([], algorithm) = AlgorithmIdentifier::from_der(algorithm).ok()? else { return None };
        let ([], signature) = BitString::from_der(signature).ok()? else { return None };
        let whole = request.is_empty() && fields.is_empty();
        whole.then_some(Self { subject, key, algorithm, signature, info: info.whole })
    }
}

/// What a request calls its subject (RFC 2986 §4.1): for people who decide on it, and for nothing else. At most 128
/// characters, none of which hides or turns others (those are written out); empty where there is none.
pub fn claimed_name(csr: &[u8]) -> String {
    if csr.len() > MAX_REQUEST {
        return String::new();
    }
    let Some(request) = Parsed::from_der(csr) else { return String::new() };
    let text = crate::name::text(&request.subject);
    text.chars().take(128).collect()
}

impl PublicKey {
    /// The key of a certification request in DER, after its signature was verified with that key, and nothing is known against
    /// the key itself.
    pub fn from_csr_der(csr: &[u8]) -> Result<Self, Error> {
        if csr.len() > MAX_REQUEST {
            return Err(Error::Request("longer than 16 KiB"));
        }
        let request = Parsed::from_der(csr).ok_or(Error::Request("not a PKCS #10 request in DER"))?;
        let key = Self::from_spki_der(request.key.raw)?;
        if !crate::verify::is_strong_signature(&request.algorithm) {
            return Err(Error::Request("signed with an algorithm that is not accepted; use SHA-256 or stronger"));
        }
        weak::check(&request.key, key.algorithm()).map_err(Error::PublicKey)?;
        match verify_signature(&request.key, &request.algorithm, &request.signature, request.info) {
            Ok(()) => Ok(key),
            Err(_) => Err(Error::Request("its signature does not verify with its own key")),
        }
    }

    /// The same for the first `CERTIFICATE REQUEST` block of a PEM text.
    pub fn from_csr_pem(text: &[u8]) -> Result<Self, Error> {
        Self::from_csr_der(&pem::request(text)?)
    }
}

/// The challenge password in a request in DER, if it has one. The signature is not looked at.
pub fn challenge_password(csr: &[u8]) -> Result<Option<Zeroizing<String>>, Error> {
    if csr.len() > MAX_REQUEST {
        return Err(Error::Request("longer than 16 KiB"));
    }
    let mut attributes = attributes(csr).ok_or(Error::Request("not a PKCS #10 request in DER"))?;
    let bad = Error::Request("its challenge password is not one short string");
    let mut found = None;
    while !attributes.is_empty() {
        let mut attribute = attributes.enter(SEQUENCE).ok_or(Error::Request("its attributes cannot be read"))?;
        if attribute.expect(OID).is_none_or(|oid| oid.content != OID_CHALLENGE) {
            continue;
        }
        let mut values = attribute.enter(SET).ok_or(bad.clone())?;
        let value = values.next().filter(|v| values.is_empty() && v.content.len() <= MAX_CHALLENGE);
        let value = value.filter(|_| found.is_none()).ok_or(bad.clone())?;
        let (_, value) = x509_parser::asn1_rs::Any::from_der(value.whole).map_err(|_| bad.clone())?;
        found = Some(Zeroizing::new(attribute_text(&value).ok_or(bad.clone())?));
    }
    Ok(found)
}

/// The SubjectPublicKeyInfo in a request in DER. Nothing is verified.
pub(crate) fn key_of(csr: &[u8]) -> Option<&[u8]> {
    let mut info = Der::new(der::only(csr, SEQUENCE)?.content).enter(SEQUENCE)?;
    info.expect(INTEGER)?;
    info.expect(SEQUENCE)?;
    info.expect(SEQUENCE).map(|key| key.whole)
}

/// The attributes of a request: `SEQUENCE { CertificationRequestInfo { version, subject, key, [0] }, algorithm, signature }`.
fn attributes(csr: &[u8]) -> Option<Der<'_>> {
    let mut info = Der::new(der::only(csr, SEQUENCE)?.content).enter(SEQUENCE)?;
    info.expect(INTEGER)?;
    info.expect(SEQUENCE)?;
    info.expect(SEQUENCE)?;
    // The standard has the field always, some clients leave it out when it is empty.
    Some(info.enter(CONTEXT_0).unwrap_or(Der::new(&[])))
}

impl KeyPair {
    /// A request for this key in DER: `CN=common_name`, and a challenge password where SCEP wants one. An authority such as ours
    /// takes no name from it.
    pub fn request(
        &self,
        common_name: &str,
        challenge: Option<&str>,
        rng: &dyn SecureRandom,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        check_attribute(common_name, "common name of 1 to 64 printable characters")?;
        let subject = name(common_name);
        let attributes = match challenge {
            Some(secret) if secret.len() > MAX_CHALLENGE => {
                return Err(Error::Request("the challenge password is too long"));
            }
            Some(secret) => {
                let value = Zeroizing::new(text(secret));
                let values = Zeroizing::new(der::encode(SET, &[&value]));
                Zeroizing::new(der::encode(SEQUENCE, &[&der::oid(OID_CHALLENGE), &values]))
            }
            None => Zeroizing::default(),
        };
        let attributes = Zeroizing::new(der::encode(CONTEXT_0, &[&attributes]));
        let public = self.public_key();
        let info = [&der::integer(0), &subject, public.spki_der(), &attributes];
        let info = Zeroizing::new(der::encode(SEQUENCE, &info));
        let signature = der::encode(der::BIT_STRING, &[&[0], &self.sign(&info, rng)?]);
        Ok(Zeroizing::new(der::encode(SEQUENCE, &[&info, &self.signature_algorithm_der(), &signature])))
    }
}

impl KeyPair {
    /// A certificate in DER that this key has signed for itself: with it a SCEP client signs before it has another one. Nobody
    /// trusts it.
    pub fn self_signed(
        &self,
        common_name: &str,
        now: UnixTime,
        validity: Duration,
        rng: &dyn SecureRandom,
    ) -> Result<Vec<u8>, Error> {
        /// keyUsage, critical: digitalSignature and keyEncipherment (RFC 8894 §2.3).
        const KEY_USAGE: &[u8] = &[SEQUENCE, 14, OID, 3, 0x55, 29, 15, 1, 1, 0xff, der::OCTET_STRING, 4, 3, 2, 5, 0xa0];
        const OUT_OF_RANGE: Error = Error::Validity("beyond the dates that a certificate can hold");
        check_attribute(common_name, "common name of 1 to 64 printable characters")?;
        let name = name(common_name);
        let serial = Serial::generate(rng)?;
        let seconds = i64::try_from(validity.as_secs()).map_err(|_| OUT_OF_RANGE)?;
        let time = |at: i64| der::certificate_time(UnixTime(at)).ok_or(OUT_OF_RANGE);
        let validity = [time(now.0.saturating_sub(300))?, time(now.0.saturating_add(seconds))?].concat();
        let algorithm = self.signature_algorithm_der();
        let tbs = der::encode(
            SEQUENCE,
            &[
                &der::encode(CONTEXT_0, &[&der::integer(2)]),
                &der::unsigned(serial.as_be_bytes()),
                &algorithm,
                &name,
                &der::encode(SEQUENCE, &[&validity]),
                &name,
                self.public_key().spki_der(),
                &der::encode(0xa3, &[&der::encode(SEQUENCE, &[KEY_USAGE])]),
            ],
        );
        let signature = der::encode(der::BIT_STRING, &[&[0], &self.sign(&tbs, rng)?]);
        Ok(der::encode(SEQUENCE, &[&tbs, &algorithm, &signature]))
    }
}

/// `CN=common_name` in DER.
pub(crate) fn name(common_name: &str) -> Vec<u8> {
    let attribute = der::encode(SEQUENCE, &[&der::oid(OID_COMMON_NAME), &text(common_name)]);
    der::encode(SEQUENCE, &[&der::encode(SET, &[&attribute])])
}

/// PrintableString where the characters allow it, UTF8String otherwise.
pub(crate) fn text(text: &str) -> Vec<u8> {
    let printable = text.bytes().all(|b| b.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&b));
    der::encode(if printable { der::PRINTABLE_STRING } else { der::UTF8_STRING }, &[text.as_bytes()])
}

#[cfg(test)]
mod tests;
