//! Fragment payload of Cisco and Microsoft, [MS-IKEE] §2.2: a piece of a whole message, its header included.

use sallyport_base::{DecodeError, Reader, Writer};

/// Flag of the last piece.
pub const LAST_FRAGMENT: u8 = 1;

/// `| fragment ID (16) | number (8) | flags (8) | data ... |`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// The same for all pieces of a message.
    pub id: u16,
    /// From 1.
    pub number: u8,
    /// Whether it is the last piece.
    pub last: bool,
    /// The piece.
    pub data: &'a [u8],
}

impl<'a> Fragment<'a> {
    /// Reads the payload's body.
    pub fn parse(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let id = r.u16("fragment ID")?;
        let number = r.u8("fragment number")?;
        let last = r.u8("fragment flags")? & LAST_FRAGMENT != 0;
        if number == 0 {
            return Err(DecodeError::Value("fragment number", 0));
        }
        Ok(Self { id, number, last, data: r.rest() })
    }

    /// Writes the payload's body.
    pub fn emit(&self, w: &mut Writer) {
        w.u16(self.id).u8(self.number).u8(if self.last { LAST_FRAGMENT } else { 0 }).bytes(self.data);
    }
}
