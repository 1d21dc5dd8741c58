//! What a gateway signs with the key of a certificate that it has, to have another one.

use crate::v1;

/// The bytes, for a request (PKCS #10, DER) for a certificate of this purpose.
pub fn input(purpose: v1::GatewayPurpose, csr: &[u8]) -> Vec<u8> {
    let purpose = u8::try_from(i32::from(purpose)).unwrap_or(0);
    [b"sallyport gateway renewal\0".as_slice(), &[purpose], csr].concat()
}
