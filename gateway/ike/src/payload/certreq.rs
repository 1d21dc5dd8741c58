//! Certificate Request payload, RFC 2408 §3.10.

use sallyport_base::{DecodeError, Reader, Writer};

use super::numbers::CertEncoding;

/// `| type (8) | certificate authority ... |`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateRequest<'a> {
    /// The encoding that is wanted.
    pub encoding: CertEncoding,
    /// DER name of an acceptable authority in IKEv1; empty is any. Windows and Apple send both forms.
    pub authority: &'a [u8],
}

impl<'a> CertificateRequest<'a> {
    /// Reads the payload's body. A body without even the type is taken as "anything": Apple's old racoon sends it.
    pub fn parse(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        if r.is_empty() {
            return Ok(Self { encoding: CertEncoding::NONE, authority: &[] });
        }
        let encoding = CertEncoding(r.u8("certificate type")?);
        Ok(Self { encoding, authority: r.rest() })
    }

    /// Writes the payload's body.
    pub fn emit(&self, w: &mut Writer) {
        w.u8(self.encoding.0).bytes(self.authority);
    }
}
