//! PEM (RFC 7468): DER in lines of base64 between two labels.

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use zeroize::Zeroizing;

use crate::Error;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// `der` as one PEM block of the type `label`. The text is wiped when it is dropped: it may be a private key.
pub fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    // Reserved in full, so that no half-written copy is left behind by a reallocation.
    let mut out = Zeroizing::new(String::with_capacity(der.len() * 4 / 3 + der.len() / 36 + 2 * label.len() + 64));
    out.push_str("-----BEGIN ");
    out.push_str(label);
    out.push_str("-----\n");
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let at = |i| u32::from(group.get(i).copied().unwrap_or(0));
            let bits = at(0) << 16 | at(1) << 8 | at(2);
            for i in 0..4 {
                let six = (bits >> (18 - 6 * i) & 0x3f) as usize;
                out.push(if i > group.len() { '=' } else { char::from(ALPHABET[six]) });
            }
        }
        out.push('\n');
    }
    out.push_str("-----END ");
    out.push_str(label);
    out.push_str("-----\n");
    out
}

/// The certificates (DER) of a text, in its order; other blocks are passed over. At least one must be there.
pub fn certificates(text: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).map(|c| c.map(|c| c.to_vec())).collect();
    match found {
        Ok(list) if !list.is_empty() => Ok(list),
        _ => Err(Error::Pem("CERTIFICATE")),
    }
}

/// The first PKCS #8 private key (DER) of a text.
pub fn private_key(text: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    match PrivatePkcs8KeyDer::from_pem_slice(text) {
        Ok(key) => Ok(Zeroizing::new(key.secret_pkcs8_der().to_vec())),
        Err(_) => Err(Error::Pem("PRIVATE KEY")),
    }
}

/// The first public key (SubjectPublicKeyInfo in DER) of a text.
pub fn public_key(text: &[u8]) -> Result<Vec<u8>, Error> {
    match SubjectPublicKeyInfoDer::from_pem_slice(text) {
        Ok(key) => Ok(key.to_vec()),
        Err(_) => Err(Error::Pem("PUBLIC KEY")),
    }
}

/// The first certification request (DER) of a text.
pub fn request(text: &[u8]) -> Result<Vec<u8>, Error> {
    match CertificateSigningRequestDer::from_pem_slice(text) {
        Ok(csr) => Ok(csr.to_vec()),
        Err(_) => Err(Error::Pem("CERTIFICATE REQUEST")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_read_back() {
        for n in 1..200_u8 {
            let der: Vec<u8> = (0..n).collect();
            let text = encode("CERTIFICATE", &der);
            assert!(text.lines().all(|l| l.len() <= 64));
            assert_eq!(certificates(text.as_bytes()).unwrap(), vec![der.clone()]);
            assert_eq!(*private_key(encode("PRIVATE KEY", &der).as_bytes()).unwrap(), der);
        }
        assert_eq!(certificates(b"nothing"), Err(Error::Pem("CERTIFICATE")));
    }
}
