//! Notification payload, RFC 2408 §3.14 and RFC 2407 §4.6.3.

use sallyport_base::{DecodeError, Reader, Writer};

use super::numbers::{NotifyType, ProtocolId};
use super::sa::DOI_IPSEC;

/// `| DOI (32) | protocol (8) | SPI size (8) | type (16) | SPI ... | data ... |`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notify<'a> {
    /// Domain of interpretation: 1, or 0 before there is one.
    pub doi: u32,
    /// The protocol that the SPI belongs to.
    pub protocol: ProtocolId,
    /// What is said.
    pub notify_type: NotifyType,
    /// SPI of the SA that is meant: 16 bytes (both cookies) for ISAKMP, 4 for ESP; may be empty.
    pub spi: &'a [u8],
    /// Depends on the type.
    pub data: &'a [u8],
}

impl<'a> Notify<'a> {
    /// A notification of the IPsec DOI.
    pub const fn new(protocol: ProtocolId, notify_type: NotifyType, spi: &'a [u8], data: &'a [u8]) -> Self {
        Self { doi: DOI_IPSEC, protocol, notify_type, spi, data }
    }

    /// Reads the payload's body.
    pub fn parse(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let doi = r.u32("DOI")?;
        let protocol = ProtocolId(r.u8("notification protocol")?);
        let spi_size = r.u8("SPI size")?;
        let notify_type = NotifyType(r.u16("notify type")?);
        let spi = r.bytes("SPI", usize::from(spi_size))?;
        Ok(Self { doi, protocol, notify_type, spi, data: r.rest() })
    }

    /// Writes the payload's body.
    pub fn emit(&self, w: &mut Writer) {
        w.u32(self.doi).u8(self.protocol.0).u8(u8::try_from(self.spi.len()).unwrap_or(0));
        w.u16(self.notify_type.0).bytes(self.spi).bytes(self.data);
    }
}
