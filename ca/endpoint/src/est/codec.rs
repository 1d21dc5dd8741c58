//! The bodies of EST.

use sallyport_ca::{cms, est};

/// A certs-only CMS message (RFC 5272 §4.1) with these certificates, DER.
pub(crate) fn certificates(certificates: &[Vec<u8>]) -> Vec<u8> {
    cms::certs_only(certificates)
}

/// CsrAttrs (RFC 7030 §4.5.2) that ask for nothing: of a request only the key and its proof of possession count.
pub(super) fn attributes() -> Vec<u8> {
    est::csr_attributes(&[])
}

/// The PKCS #10 request of a body: DER, or base64 with or without line ends, or PEM.
pub(super) fn request(body: &[u8]) -> Result<Vec<u8>, &'static str> {
    if body.is_empty() {
        return Err("the body is empty: a PKCS #10 request is expected");
    }
    let der = est::parse_body(body).map_err(|_| "the body is neither DER nor base64 nor PEM")?;
    Ok(der.to_vec())
}

#[cfg(test)]
mod tests {
    use sallyport_ca::pem;

    use super::*;

    #[test]
    fn a_request_is_taken_as_der_and_as_base64_with_and_without_line_ends() {
        let der: Vec<u8> = [0x30, 0x82, 1, 0].into_iter().chain((0..=255).cycle().take(256)).collect();
        let flat = est::body(&der);
        let wrapped: String =
            flat.as_bytes().chunks(64).map(|l| format!("{}\r\n", core::str::from_utf8(l).unwrap())).collect();
        let armoured = pem::encode("CERTIFICATE REQUEST", &der);
        for body in [der.as_slice(), flat.as_bytes(), wrapped.as_bytes(), armoured.as_bytes()] {
            assert_eq!(request(body).as_deref(), Ok(der.as_slice()));
        }
        for bad in [&b""[..], b"MII?", b"M", b"-----BEGIN NOTHING-----", b"\xff\xfe"] {
            assert!(request(bad).is_err(), "{bad:?}");
        }
    }
}
