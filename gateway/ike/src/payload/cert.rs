//! Certificate payload, RFC 2408 §3.9 (IKEv2 has the same form, RFC 7296 §3.6).

use sallyport_base::{DecodeError, Reader, Writer};

use super::numbers::CertEncoding;

/// `| encoding (8) | data ... |`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate<'a> {
    /// How the data is encoded.
    pub encoding: CertEncoding,
    /// The certificate, list or bundle, unopened.
    pub data: &'a [u8],
}

impl<'a> Certificate<'a> {
    /// Reads the payload's body.
    pub fn parse(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let encoding = CertEncoding(r.u8("certificate encoding")?);
        Ok(Self { encoding, data: r.rest() })
    }

    /// Writes the payload's body.
    pub fn emit(&self, w: &mut Writer) {
        w.u8(self.encoding.0).bytes(self.data);
    }
}
