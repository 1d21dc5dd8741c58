//! Online Certificate Status Protocol (RFC 6960), the responder's half: requests in, signed answers out. The signer is a short-lived
//! key of its own ([`crate::Authority::issue_ocsp_signer`]); what is revoked, the caller knows.
//!
//! Answers are for others: the gateways never ask. They are signed one by one, so an answer to a request without a nonce may be kept
//! and given again until it ends.

mod request;
mod response;

use core::fmt;

use crate::Serial;
use crate::hash::Hash;

pub use self::request::{Issuer, MAX_IDS, MAX_NONCE, MAX_REQUEST, Request};
pub use self::response::{Responder, Validity};

/// The content type of a request.
pub const OCSP_REQUEST: &str = "application/ocsp-request";
/// The content type of a response.
pub const OCSP_RESPONSE: &str = "application/ocsp-response";

/// id-pkix-ocsp-nonce, 1.3.6.1.5.5.7.48.1.2 (RFC 6960 §4.4.1).
const NONCE: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 48, 1, 2];

/// A certificate that a request is about (RFC 6960 §4.1.1).
#[derive(Clone, PartialEq, Eq)]
pub struct CertId {
    /// `None` for a hash that is not known here: it is nobody's then.
    hash: Option<Hash>,
    issuer_name_hash: Vec<u8>,
    issuer_key_hash: Vec<u8>,
    serial: Serial,
    /// As it was asked, which is how it is answered.
    encoded: Vec<u8>,
}

impl CertId {
    /// Whether the certificate would be one of this issuer.
    pub fn is_of(&self, issuer: &Issuer) -> bool {
        self.hash
            .and_then(|hash| issuer.hashes(hash))
            .is_some_and(|(name, key)| self.issuer_name_hash == name && self.issuer_key_hash == key)
    }

    /// Its serial number.
    pub const fn serial(&self) -> &Serial {
        &self.serial
    }

    /// It in DER, as it was asked.
    pub fn der(&self) -> &[u8] {
        &self.encoded
    }
}

impl fmt::Debug for CertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertId({})", self.serial)
    }
}

/// Why a request has no signed answer: the OCSPResponseStatus (RFC 6960 §4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It cannot be read, or asks for too much at a time.
    MalformedRequest,
    /// Something here is broken.
    InternalError,
    /// Nothing can be said at the moment.
    TryLater,
    /// None of the issuers in it is one of ours (RFC 5019 §2.2.3).
    Unauthorized,
}

#[cfg(test)]
mod tests;
