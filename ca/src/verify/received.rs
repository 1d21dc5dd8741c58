//! CERT payloads to certificates: type 4 holds one, type 1 a PKCS #7 SignedData that signs nothing and carries several
//! (RFC 2315 §9.1, RFC 4945 §3.3.4; Windows sends it when its chain has intermediates).

use super::{CertPayload, MAX_CERTIFICATE_LEN, MAX_CERTIFICATES, VerifyError};
use crate::der::{CONTEXT_0, Der, INTEGER, OID, SEQUENCE, SET};

const PKCS7: u8 = 1;
const X509_SIGNATURE: u8 = 4;
/// id-signedData, 1.2.840.113549.1.7.2.
const ID_SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];

/// The distinct certificates of the payloads, in their order. Other encodings (CRLs, key exchange certificates, PGP) are
/// passed over.
pub(super) fn certificates<'a>(payloads: &[CertPayload<'a>]) -> Result<Vec<&'a [u8]>, VerifyError> {
    let mut out: Vec<&'a [u8]> = Vec::new();
    let mut take = |der: &'a [u8]| {
        if der.len() > MAX_CERTIFICATE_LEN {
            return Err(VerifyError::TooLong { limit: MAX_CERTIFICATE_LEN });
        }
        if !out.contains(&der) {
            if out.len() >= MAX_CERTIFICATES {
                return Err(VerifyError::TooMany { what: "certificates", limit: MAX_CERTIFICATES });
            }
            out.push(der);
        }
        Ok(())
    };
    for (i, payload) in payloads.iter().enumerate() {
        // CRLs and the like count, too: a message of thousands of tiny payloads shall not be walked.
        if i >= 4 * MAX_CERTIFICATES {
            return Err(VerifyError::TooMany { what: "CERT payloads", limit: 4 * MAX_CERTIFICATES });
        }
        match payload.encoding {
            X509_SIGNATURE => take(payload.data)?,
            PKCS7 => {
                if payload.data.len() > MAX_CERTIFICATES * MAX_CERTIFICATE_LEN {
                    return Err(VerifyError::TooLong { limit: MAX_CERTIFICATE_LEN });
                }
                let mut inside = signed_data(payload.data).ok_or(VerifyError::Malformed("not a PKCS #7 SignedData"))?;
                while !inside.is_empty() {
                    let element = inside.next().ok_or(VerifyError::Malformed("a certificate in PKCS #7 is cut off"))?;
                    // Other choices of ExtendedCertificateOrCertificate have other tags.
                    if element.tag == SEQUENCE {
                        take(element.whole)?;
                    }
                }
            }
            _ => {}
        }
    }
    if out.is_empty() { Err(VerifyError::NoCertificate) } else { Ok(out) }
}

/// The certificates field of `ContentInfo { id-signedData, [0] SignedData }`.
fn signed_data(bytes: &[u8]) -> Option<Der<'_>> {
    let mut info = Der::new(Der::new(bytes).expect(SEQUENCE)?.content);
    if info.expect(OID)?.content != ID_SIGNED_DATA {
        return None;
    }
    let mut signed = Der::new(Der::new(info.expect(CONTEXT_0)?.content).expect(SEQUENCE)?.content);
    signed.expect(INTEGER)?; // version
    signed.expect(SET)?; // digestAlgorithms
    signed.expect(SEQUENCE)?; // contentInfo
    Some(match signed.next() {
        Some(certificates) if certificates.tag == CONTEXT_0 => Der::new(certificates.content),
        _ => Der::new(&[]),
    })
}
