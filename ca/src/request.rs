//! Certification requests (PKCS #10, RFC 2986). Only the key and the proof that the requester holds it are taken from
//! one: whatever names, extensions or attributes it asks for are not even looked at.

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use crate::{Error, PublicKey, pem};

/// A request with a large RSA key and some attributes is below 4 KiB.
const MAX_REQUEST: usize = 16 * 1024;

impl PublicKey {
    /// The key of a certification request in DER, after its signature was verified with that key.
    pub fn from_csr_der(csr: &[u8]) -> Result<Self, Error> {
        if csr.len() > MAX_REQUEST {
            return Err(Error::Request("longer than 16 KiB"));
        }
        let Ok(([], request)) = X509CertificationRequest::from_der(csr) else {
            return Err(Error::Request("not a PKCS #10 request in DER"));
        };
        let key = Self::from_spki_der(request.certification_request_info.subject_pki.raw)?;
        if !crate::verify::is_strong_signature(&request.signature_algorithm) {
            return Err(Error::Request("signed with an algorithm that is not accepted; use SHA-256 or stronger"));
        }
        match request.verify_signature() {
            Ok(()) => Ok(key),
            Err(_) => Err(Error::Request("its signature does not verify with its own key")),
        }
    }

    /// The same for the first `CERTIFICATE REQUEST` block of a PEM text.
    pub fn from_csr_pem(text: &[u8]) -> Result<Self, Error> {
        Self::from_csr_der(&pem::request(text)?)
    }
}
