//! OCSPResponse, RFC 6960 §4.2.

use ring::rand::SecureRandom;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::{CertId, NONCE, Refusal, Request};
use crate::crl::Status;
use crate::der::{self, BIT_STRING, CONTEXT_0, CONTEXT_1, CONTEXT_2, ENUMERATED, OCTET_STRING, SEQUENCE};
use crate::hash::Hash;
use crate::{Error, KeyPair, UnixTime};

/// id-pkix-ocsp-basic, 1.3.6.1.5.5.7.48.1.1.
const BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 48, 1, 1];

impl Refusal {
    /// The response in DER; it is not signed.
    pub const fn response(self) -> [u8; 5] {
        let status = match self {
            Self::MalformedRequest => 1,
            Self::InternalError => 2,
            Self::TryLater => 3,
            Self::Unauthorized => 6,
        };
        [SEQUENCE, 3, ENUMERATED, 1, status]
    }
}

/// Since when the statuses are known to be so, and until when a client may go by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// thisUpdate, and the time of the signature.
    pub from: UnixTime,
    /// nextUpdate.
    pub until: UnixTime,
}

/// The key that signs, and its certificate.
#[derive(Debug)]
pub struct Responder {
    key: KeyPair,
    certificate: Vec<u8>,
    /// `[2]` KeyHash, which names the responder.
    id: Vec<u8>,
}

impl Responder {
    /// The one of this key and its certificate (DER), which must be for signing such responses.
    pub fn new(key: KeyPair, certificate: &[u8]) -> Result<Self, Error> {
        let Ok(([], parsed)) = X509Certificate::from_der(certificate) else {
            return Err(Error::Authority("not an X.509 certificate in DER"));
        };
        if parsed.public_key().raw != key.public_key().spki_der() {
            return Err(Error::Authority("it is for another key"));
        }
        if !matches!(parsed.extended_key_usage(), Ok(Some(usage)) if usage.value.ocsp_signing) {
            return Err(Error::Authority("it is not for signing OCSP responses"));
        }
        let hash = Hash::Sha1.digest(&parsed.public_key().subject_public_key.data);
        let id = der::encode(CONTEXT_2, &[&der::encode(OCTET_STRING, &[&hash])]);
        Ok(Self { key, certificate: certificate.to_vec(), id })
    }

    /// Its certificate in DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The signed answer, in DER: `status` says what is known of each certificate that is asked for.
    pub fn answer(
        &self,
        request: &Request,
        mut status: impl FnMut(&CertId) -> Status,
        validity: Validity,
        rng: &dyn SecureRandom,
    ) -> Result<Vec<u8>, Error> {
        if validity.until <= validity.from {
            return Err(Error::Validity("the answer would never be valid"));
        }
        let (from, until) = (time(validity.from)?, der::encode(CONTEXT_0, &[&time(validity.until)?]));
        let mut list = Vec::with_capacity(request.ids.len());
        for id in &request.ids {
            list.push(der::encode(SEQUENCE, &[&id.encoded, &cert_status(status(id))?, &from, &until]));
        }
        let list = der::encode(SEQUENCE, &list.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let extensions = request.nonce.as_ref().map_or(Vec::new(), |nonce| {
            let value = der::encode(OCTET_STRING, &[&der::encode(OCTET_STRING, &[nonce])]);
            let nonce = der::encode(SEQUENCE, &[&der::oid(NONCE), &value]);
            der::encode(CONTEXT_1, &[&der::encode(SEQUENCE, &[&nonce])])
        });
        let data = der::encode(SEQUENCE, &[&self.id, &from, &list, &extensions]);
        let signature = der::encode(BIT_STRING, &[&[0], &self.key.sign(&data, rng)?]);
        let certificates = der::encode(CONTEXT_0, &[&der::encode(SEQUENCE, &[&self.certificate])]);
        let basic = der::encode(SEQUENCE, &[&data, &self.key.signature_algorithm_der(), &signature, &certificates]);
        let bytes = der::encode(SEQUENCE, &[&der::oid(BASIC), &der::encode(OCTET_STRING, &[&basic])]);
        Ok(der::encode(SEQUENCE, &[&[ENUMERATED, 1, 0], &der::encode(CONTEXT_0, &[&bytes])]))
    }
}

fn time(at: UnixTime) -> Result<Vec<u8>, Error> {
    der::generalized_time(at).ok_or(Error::Validity("beyond the dates that an answer can hold"))
}

/// `CertStatus`, whose alternatives are implicit: `[0]` good, `[1]` revoked, `[2]` unknown.
fn cert_status(status: Status) -> Result<Vec<u8>, Error> {
    Ok(match status {
        Status::Good => vec![0x80, 0],
        Status::Unknown => vec![0x82, 0],
        Status::Revoked { at, reason } => {
            let reason = reason.listed().map_or(Vec::new(), |r| der::encode(CONTEXT_0, &[&[ENUMERATED, 1, r.code()]]));
            der::encode(CONTEXT_1, &[&time(at)?, &reason])
        }
    })
}
