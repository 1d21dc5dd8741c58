//! Delete payload, RFC 2408 §3.15.

use sallyport_base::{DecodeError, Reader, Writer};

use super::numbers::ProtocolId;
use super::sa::DOI_IPSEC;

/// Most SPIs in one Delete; a peer here has a handful.
pub const MAX_SPIS: usize = 256;

/// `| DOI (32) | protocol (8) | SPI size (8) | # SPIs (16) | SPIs ... |`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete<'a> {
    /// Domain of interpretation.
    pub doi: u32,
    /// The protocol that the SPIs belong to.
    pub protocol: ProtocolId,
    /// The sender's inbound SPIs; for ISAKMP both cookies, 16 bytes.
    pub spis: Vec<&'a [u8]>,
}

impl<'a> Delete<'a> {
    /// A Delete of the IPsec DOI.
    pub const fn new(protocol: ProtocolId, spis: Vec<&'a [u8]>) -> Self {
        Self { doi: DOI_IPSEC, protocol, spis }
    }

    /// Reads the payload's body.
    pub fn parse(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let doi = r.u32("DOI")?;
        let protocol = ProtocolId(r.u8("delete protocol")?);
        let spi_size = usize::from(r.u8("SPI size")?);
        let count = usize::from(r.u16("number of SPIs")?);
        if count > MAX_SPIS {
            return Err(DecodeError::TooMany("SPIs of a delete", MAX_SPIS));
        }
        if count * spi_size != r.len() {
            return Err(DecodeError::Length("SPIs of a delete", r.len()));
        }
        let spis = (0..count).map(|_| r.bytes("SPI", spi_size)).collect::<Result<_, _>>()?;
        Ok(Self { doi, protocol, spis })
    }

    /// Writes the payload's body. All SPIs have the size of the first.
    pub fn emit(&self, w: &mut Writer) {
        let size = self.spis.first().map_or(0, |s| s.len());
        w.u32(self.doi).u8(self.protocol.0).u8(u8::try_from(size).unwrap_or(0));
        w.u16(u16::try_from(self.spis.len()).unwrap_or(0));
        for s in &self.spis {
            w.bytes(s);
        }
    }
}
