//! OCSPRequest, RFC 6960 §4.1.

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::{CertId, NONCE, Refusal};
use crate::der::{self, CONTEXT_0, CONTEXT_1, CONTEXT_2, Der, INTEGER, OCTET_STRING, OID, SEQUENCE};
use crate::hash::Hash;
use crate::{Error, Serial};

/// The longest request that is read, octets.
pub const MAX_REQUEST: usize = 8 * 1024;
/// Most certificates that one request may ask for.
pub const MAX_IDS: usize = 16;
/// The longest nonce, octets (RFC 9654 §2.1; 32 in RFC 8954).
pub const MAX_NONCE: usize = 128;
/// The longest serial number that is looked at, octets: RFC 5280 allows 20.
const MAX_SERIAL: usize = 64;
/// Most extensions of a request.
const MAX_EXTENSIONS: usize = 16;

/// What an issuer is called in requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    pub(super) sha1: (Vec<u8>, Vec<u8>),
    pub(super) sha256: (Vec<u8>, Vec<u8>),
}

impl Issuer {
    /// Of the issuer's certificate in DER.
    pub fn of(certificate: &[u8]) -> Result<Self, Error> {
        let Ok(([], certificate)) = X509Certificate::from_der(certificate) else {
            return Err(Error::Authority("not an X.509 certificate in DER"));
        };
        let (name, key) = (certificate.subject().as_raw(), &certificate.public_key().subject_public_key.data);
        let both = |hash: Hash| (hash.digest(name), hash.digest(key));
        Ok(Self { sha1: both(Hash::Sha1), sha256: both(Hash::Sha256) })
    }

    /// The hashes of its name and of its key.
    pub(super) fn hashes(&self, hash: Hash) -> Option<(&[u8], &[u8])> {
        match hash {
            Hash::Sha1 => Some((&self.sha1.0, &self.sha1.1)),
            Hash::Sha256 => Some((&self.sha256.0, &self.sha256.1)),
            _ => None,
        }
    }
}

/// A request. Who signed it, if anybody, does not matter: what is revoked is no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What it asks for, 1 to [`MAX_IDS`].
    pub ids: Vec<CertId>,
    /// What the answer must repeat, 1 to [`MAX_NONCE`] octets.
    pub nonce: Option<Vec<u8>>,
}

impl Request {
    /// Reads a request in DER.
    pub fn parse(request: &[u8]) -> Result<Self, Refusal> {
        if request.len() > MAX_REQUEST {
            return Err(Refusal::MalformedRequest);
        }
        parse(request).ok_or(Refusal::MalformedRequest)
    }
}

fn parse(request: &[u8]) -> Option<Request> {
    let mut outer = Der::new(der::only(request, SEQUENCE)?.content);
    let mut tbs = outer.enter(SEQUENCE)?;
    outer.take_if(CONTEXT_0); // optionalSignature
    if let Some(version) = tbs.take_if(CONTEXT_0) {
        der::only(version.content, INTEGER).filter(|v| v.content == [0])?;
    }
    tbs.take_if(CONTEXT_1); // requestorName
    let mut list = tbs.enter(SEQUENCE)?;
    let nonce = match tbs.take_if(CONTEXT_2) {
        Some(extensions) => extensions_nonce(extensions.content)?,
        None => None,
    };
    if !outer.is_empty() || !tbs.is_empty() {
        return None;
    }
    let mut ids = Vec::new();
    while !list.is_empty() {
        let mut single = list.enter(SEQUENCE)?;
        let id = single.expect(SEQUENCE)?;
        if let Some(extensions) = single.take_if(CONTEXT_0) {
            extensions_nonce(extensions.content)?;
        }
        if !single.is_empty() || ids.len() >= MAX_IDS {
            return None;
        }
        ids.push(cert_id(id)?);
    }
    (!ids.is_empty()).then_some(Request { ids, nonce })
}

fn cert_id(element: der::Element<'_>) -> Option<CertId> {
    let mut id = Der::new(element.content);
    let hash = Hash::from_oid(id.enter(SEQUENCE)?.expect(OID)?.content);
    let issuer_name_hash = id.expect(OCTET_STRING)?.content.to_vec();
    let issuer_key_hash = id.expect(OCTET_STRING)?.content.to_vec();
    let serial = der::as_unsigned(id.expect(INTEGER)?.content).filter(|s| s.len() <= MAX_SERIAL)?;
    let serial = Serial::from_be_bytes(serial);
    let encoded = element.whole.to_vec();
    id.is_empty().then_some(CertId { hash, issuer_name_hash, issuer_key_hash, serial, encoded })
}

/// The nonce among extensions, if it is there; nothing where one is critical and not known, or the nonce is of no good length.
fn extensions_nonce(content: &[u8]) -> Option<Option<Vec<u8>>> {
    const BOOLEAN: u8 = 0x01;
    let mut list = Der::new(der::only(content, SEQUENCE)?.content);
    let (mut nonce, mut count) = (None, 0);
    while !list.is_empty() {
        let mut extension = list.enter(SEQUENCE)?;
        let oid = extension.expect(OID)?.content;
        let critical = extension.take_if(BOOLEAN).is_some_and(|b| b.content != [0]);
        let value = extension.expect(OCTET_STRING)?.content;
        count += 1;
        if oid == NONCE {
            let octets = der::only(value, OCTET_STRING)?.content;
            if nonce.is_some() || !(1..=MAX_NONCE).contains(&octets.len()) {
                return None;
            }
            nonce = Some(octets.to_vec());
        } else if critical {
            return None;
        }
        if !extension.is_empty() || count > MAX_EXTENSIONS {
            return None;
        }
    }
    Some(nonce)
}
