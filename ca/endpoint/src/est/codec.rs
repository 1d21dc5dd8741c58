//! The bodies of EST.

use base64ct::{Base64, Encoding as _};
use sallyport_ca::pem;

const SIGNED_DATA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];
const DATA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];

/// A certs-only CMS message (RFC 5272 §4.1) with these certificates, DER.
pub(crate) fn certificates(certificates: &[Vec<u8>]) -> Vec<u8> {
    let certificates: Vec<&[u8]> = certificates.iter().map(Vec::as_slice).collect();
    let signed = encode(
        0x30,
        &[&[2, 1, 1], &encode(0x31, &[]), &encode(0x30, &[DATA]), &encode(0xa0, &certificates), &encode(0x31, &[])],
    );
    encode(0x30, &[SIGNED_DATA, &encode(0xa0, &[&signed])])
}

/// CsrAttrs (RFC 7030 §4.5.2) that ask for nothing: of a request only the key and its proof of possession count.
pub(super) fn attributes() -> Vec<u8> {
    encode(0x30, &[])
}

/// The PKCS #10 request of a body: DER, or base64 with or without line ends, or PEM.
pub(super) fn request(body: &[u8]) -> Result<Vec<u8>, &'static str> {
    match body.first() {
        None => Err("the body is empty: a PKCS #10 request is expected"),
        Some(0x30) => Ok(body.to_vec()),
        Some(b'-') => pem::request(body).map_err(|_| "the body is no PEM block of type CERTIFICATE REQUEST"),
        Some(_) => {
            let text: Vec<u8> = body.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
            let text = core::str::from_utf8(&text).map_err(|_| "the body is neither DER nor base64")?;
            Base64::decode_vec(text).map_err(|_| "the body is neither DER nor base64")
        }
    }
}

fn encode(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let len: usize = parts.iter().map(|p| p.len()).sum();
    let octets = len.to_be_bytes();
    let octets = octets.get(len.leading_zeros() as usize / 8..).unwrap_or(&[]);
    let mut out = Vec::with_capacity(len + 2 + octets.len());
    out.push(tag);
    if len < 0x80 {
        out.push(len as u8);
    } else {
        out.push(0x80 | octets.len() as u8);
        out.extend_from_slice(octets);
    }
    parts.iter().for_each(|p| out.extend_from_slice(p));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_taken_as_der_and_as_base64_with_and_without_line_ends() {
        let der: Vec<u8> = [0x30, 0x82, 1, 0].into_iter().chain((0..=255).cycle().take(256)).collect();
        let flat = Base64::encode_string(&der);
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
