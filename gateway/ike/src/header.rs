//! The header in front of every ISAKMP and IKE message, RFC 2408 §3.1 and RFC 7296 §3.1.

use core::fmt;

use sallyport_base::{DecodeError, Reader, Writer, wire_enum};

use crate::payload::PayloadType;

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 28;

/// Largest message that is read, header included: what a UDP datagram or a reassembly of fragments can hold.
pub const MAX_MESSAGE_LEN: usize = 65_535;

/// A cookie (IKEv1) or SPI (IKEv2) of one side.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cookie(pub [u8; 8]);

impl Cookie {
    /// The responder's cookie before the responder has chosen one.
    pub const ZERO: Self = Self([0; 8]);

    /// Whether this is the "not chosen yet" value.
    pub const fn is_zero(self) -> bool {
        u64::from_be_bytes(self.0) == 0
    }
}

impl fmt::Display for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

wire_enum! {
    /// Exchange types: ISAKMP (RFC 2408 §3.1), IKEv1 (RFC 2409 appendix A), IKEv2 (IANA), and the numbers that
    /// Microsoft's AuthIP took.
    pub struct ExchangeType(u8) {
        NONE = 0, BASE = 1, MAIN_MODE = 2, AUTHENTICATION_ONLY = 3, AGGRESSIVE = 4, INFORMATIONAL_V1 = 5,
        TRANSACTION = 6, QUICK_MODE = 32, NEW_GROUP_MODE = 33, IKE_SA_INIT = 34, IKE_AUTH = 35, CREATE_CHILD_SA = 36,
        INFORMATIONAL = 37, IKE_SESSION_RESUME = 38, GSA_AUTH = 39, GSA_REGISTRATION = 40, GSA_REKEY = 41,
        IKE_INTERMEDIATE = 43, IKE_FOLLOWUP_KE = 44,
        AUTHIP_MAIN_MODE = 243, AUTHIP_QUICK_MODE = 244, AUTHIP_EXTENDED_MODE = 245, AUTHIP_NOTIFY = 246,
    }
}

/// Bits of the Flags field.
pub mod flags {
    /// IKEv1: everything behind the header is encrypted, RFC 2408 §3.1.
    pub const ENCRYPTION: u8 = 0x01;
    /// IKEv1: the sender wants to hear CONNECTED before it uses the SA, RFC 2408 §3.1.
    pub const COMMIT: u8 = 0x02;
    /// IKEv1: authenticated, not encrypted, RFC 2408 §3.1.
    pub const AUTHENTICATION_ONLY: u8 = 0x04;
    /// IKEv2: sent by the original initiator, RFC 7296 §3.1.
    pub const INITIATOR: u8 = 0x08;
    /// IKEv2: the sender could speak a higher version.
    pub const VERSION: u8 = 0x10;
    /// IKEv2: this is a response.
    pub const RESPONSE: u8 = 0x20;
}

/// `| cookie I (64) | cookie R (64) | next payload (8) | version (4+4) | exchange (8) | flags (8) | message ID (32) | length (32) |`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Initiator's cookie (IKEv2: SPI).
    pub cky_i: Cookie,
    /// Responder's cookie, zero in the very first message.
    pub cky_r: Cookie,
    /// Type of the first payload.
    pub next_payload: PayloadType,
    /// Major version: 1 for IKEv1, 2 for IKEv2.
    pub major: u8,
    /// Minor version.
    pub minor: u8,
    /// Exchange type.
    pub exchange: ExchangeType,
    /// See [`flags`].
    pub flags: u8,
    /// Message ID: 0 in phase 1.
    pub message_id: u32,
    /// Length of the message with this header, as the sender says.
    pub length: u32,
}

impl Header {
    /// A header of IKEv1 with no flags; the length is filled in by [`Header::emit`]'s caller.
    pub const fn v1(cky_i: Cookie, cky_r: Cookie, exchange: ExchangeType, message_id: u32) -> Self {
        Self {
            cky_i,
            cky_r,
            next_payload: PayloadType::NONE,
            major: 1,
            minor: 0,
            exchange,
            flags: 0,
            message_id,
            length: 0,
        }
    }

    /// Reads the header only; the length is not looked at.
    pub fn parse(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let cky_i = Cookie(r.array("initiator cookie")?);
        let cky_r = Cookie(r.array("responder cookie")?);
        let next_payload = PayloadType(r.u8("next payload")?);
        let version = r.u8("version")?;
        let exchange = ExchangeType(r.u8("exchange type")?);
        let flags = r.u8("flags")?;
        let message_id = r.u32("message ID")?;
        let length = r.u32("message length")?;
        Ok(Self {
            cky_i,
            cky_r,
            next_payload,
            major: version >> 4,
            minor: version & 15,
            exchange,
            flags,
            message_id,
            length,
        })
    }

    /// Reads the header of a datagram and gives the bytes behind it, cut at the length that the header says.
    ///
    /// A length beyond the datagram (or below a header) is an error; bytes beyond the length are not looked at.
    pub fn split(datagram: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        let mut r = Reader::new(datagram);
        let header = Self::parse(&mut r)?;
        let length = usize::try_from(header.length).unwrap_or(usize::MAX);
        let body = length.checked_sub(HEADER_LEN).ok_or(DecodeError::Length("ISAKMP message", length))?;
        if length > datagram.len() || length > MAX_MESSAGE_LEN {
            return Err(DecodeError::Length("ISAKMP message", length));
        }
        Ok((header, r.bytes("ISAKMP message", body)?))
    }

    /// Writes the header.
    pub fn emit(&self, w: &mut Writer) {
        w.bytes(&self.cky_i.0).bytes(&self.cky_r.0);
        w.u8(self.next_payload.0).u8(self.major << 4 | self.minor & 15).u8(self.exchange.0).u8(self.flags);
        w.u32(self.message_id).u32(self.length);
    }

    /// Whether the payloads are encrypted (IKEv1).
    pub const fn is_encrypted(&self) -> bool {
        self.flags & flags::ENCRYPTION != 0
    }
}
