//! Bodies of EST messages (RFC 7030, RFC 8951): what stands in HTTP, without HTTP.
//!
//! Whatever is sent is base64 on one line, which each client reads; what is received may be wrapped, have PEM lines around it or be
//! plain DER, as clients send all of these.

use base64ct::{Base64, Base64Unpadded, Encoding as _};
use zeroize::{Zeroize as _, Zeroizing};

use crate::cms;
use crate::der::{self, INTEGER, SEQUENCE, SET};
use crate::hash::Hash;
use crate::key::{OID_EC, OID_P256, OID_P384, OID_RSA};
use crate::{Error, KeyAlgorithm};

/// The longest body that is read, octets.
pub const MAX_BODY: usize = 64 * 1024;
/// The content type of a request.
pub const PKCS10: &str = "application/pkcs10";
/// The content type of certificates.
pub const CERTS_ONLY: &str = "application/pkcs7-mime; smime-type=certs-only";
/// The content type of a private key.
pub const PKCS8: &str = "application/pkcs8";
/// The content type of hints for a request.
pub const CSR_ATTRS: &str = "application/csrattrs";
/// The content type of what [`server_key`] makes.
pub const MULTIPART: &str = "multipart/mixed; boundary=sallyport-est-part";
/// It holds a hyphen, which base64 does not.
const BOUNDARY: &str = "sallyport-est-part";

/// DER as a body: base64 on one line.
pub fn body(der: &[u8]) -> String {
    Base64::encode_string(der)
}

/// The DER in a body: of base64 with whatever line ends and perhaps PEM lines, or of plain DER. That it is DER is not looked at.
pub fn parse_body(body: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    if body.len() > MAX_BODY {
        return Err(Error::Message("it is longer than 64 KiB"));
    }
    // A SEQUENCE of some length; base64 has no such second octet.
    if matches!(body, [SEQUENCE, 0x80..=0x84, ..]) {
        return Ok(Zeroizing::new(body.to_vec()));
    }
    let text = core::str::from_utf8(body).map_err(|_| Error::Message("it is neither base64 nor DER"))?;
    let inside = match text.split_once("-----BEGIN ") {
        Some((_, armoured)) => {
            let (_, rest) = armoured.split_once("-----").ok_or(Error::Message("its PEM lines are broken"))?;
            rest.split_once("-----END ").ok_or(Error::Message("its PEM lines are broken"))?.0
        }
        None => text,
    };
    let mut packed = Zeroizing::new(String::with_capacity(inside.len()));
    packed.extend(inside.chars().filter(|c| !c.is_ascii_whitespace()));
    let unpadded = packed.trim_end_matches('=');
    if packed.len() - unpadded.len() > 2 || unpadded.is_empty() {
        return Err(Error::Message("it is not base64"));
    }
    Base64Unpadded::decode_vec(unpadded).map(Zeroizing::new).map_err(|_| Error::Message("it is not base64"))
}

/// The certificates (DER) in a body of [`CERTS_ONLY`], in its order. At least one must be there.
pub fn parse_certificates(body: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let list = cms::certificates(&parse_body(body)?)?;
    if list.is_empty() { Err(Error::Message("it holds no certificate")) } else { Ok(list) }
}

/// `CsrAttrs` (RFC 7030 §4.5.2, RFC 9908 §3): which keys a client may make, the best first, and the signatures that go with them.
/// Names are not asked for: they come from the records of the authority.
pub fn csr_attributes(keys: &[KeyAlgorithm]) -> Vec<u8> {
    let curve = |oid: &[u8]| der::encode(SEQUENCE, &[&der::oid(OID_EC), &der::encode(SET, &[&der::oid(oid)])]);
    let modulus = |bits: u16| {
        let bits = der::encode(INTEGER, &[&bits.to_be_bytes()]);
        der::encode(SEQUENCE, &[&der::oid(OID_RSA), &der::encode(SET, &[&bits])])
    };
    let mut list: Vec<Vec<u8>> = Vec::new();
    for key in keys {
        let (attribute, signature) = match key {
            KeyAlgorithm::EcdsaP256 => (curve(OID_P256), Hash::Sha256.ecdsa_signature()),
            KeyAlgorithm::EcdsaP384 => (curve(OID_P384), Hash::Sha384.ecdsa_signature()),
            KeyAlgorithm::Rsa2048 => (modulus(2048), Hash::Sha256.rsa_signature()),
            KeyAlgorithm::Rsa3072 => (modulus(3072), Hash::Sha256.rsa_signature()),
            KeyAlgorithm::Rsa4096 => (modulus(4096), Hash::Sha256.rsa_signature()),
        };
        for element in [attribute, der::oid(signature)] {
            if !list.contains(&element) {
                list.push(element);
            }
        }
    }
    der::encode(SEQUENCE, &list.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// The body of an answer to serverkeygen, of type [`MULTIPART`]: the private key (PKCS #8), then the certificate with its chain
/// (RFC 7030 §4.4.2).
pub fn server_key<C: AsRef<[u8]>>(pkcs8: &[u8], certificates: &[C]) -> Zeroizing<String> {
    let key = Zeroizing::new(body(pkcs8));
    let certificates = body(&cms::certs_only(certificates));
    // Reserved in full, so that no half-written copy of the key is left behind.
    let mut out = Zeroizing::new(String::with_capacity(key.len() + certificates.len() + 512));
    for (kind, text) in [(PKCS8, key.as_str()), (CERTS_ONLY, certificates.as_str())] {
        for piece in
            ["--", BOUNDARY, "\r\nContent-Type: ", kind, "\r\nContent-Transfer-Encoding: base64\r\n\r\n", text, "\r\n"]
        {
            out.push_str(piece);
        }
    }
    out.push_str("--");
    out.push_str(BOUNDARY);
    out.push_str("--\r\n");
    out
}

/// The private key (PKCS #8) and the certificates in an answer to serverkeygen with this Content-Type.
#[allow(clippy::type_complexity)]
pub fn parse_server_key(content_type: &str, body: &[u8]) -> Result<(Zeroizing<Vec<u8>>, Vec<Vec<u8>>), Error> {
    const BAD: Error = Error::Message("not the two parts of a generated key and its certificate");
    let lower = content_type.to_ascii_lowercase();
    let boundary = lower.find("boundary=").and_then(|at| content_type.get(at + "boundary=".len()..)).ok_or(BAD)?;
    let boundary = boundary.split(';').next().unwrap_or_default().trim().trim_matches('"');
    if body.len() > MAX_BODY || !(1..=70).contains(&boundary.len()) || !lower.starts_with("multipart/mixed") {
        return Err(BAD);
    }
    let text = core::str::from_utf8(body).map_err(|_| BAD)?;
    let delimiter = format!("--{boundary}");
    let (mut key, mut certificates) = (None, None);
    for part in text.split(delimiter.as_str()).skip(1).take(2) {
        let (head, content) = part.split_once("\r\n\r\n").or_else(|| part.split_once("\n\n")).ok_or(BAD)?;
        let head = head.to_ascii_lowercase();
        if head.contains(PKCS8) {
            key = Some(parse_body(content.as_bytes())?);
        } else if head.contains("application/pkcs7-mime") {
            certificates = Some(parse_certificates(content.as_bytes())?);
        }
    }
    match (key, certificates) {
        (Some(key), Some(certificates)) => Ok((key, certificates)),
        (mut key, _) => {
            key.zeroize();
            Err(BAD)
        }
    }
}

#[cfg(test)]
mod tests;
