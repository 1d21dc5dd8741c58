//! A whole message: header and payloads, IKEv1 or IKEv2.

use core::fmt;

use sallyport_base::{DecodeError, Writer};

use crate::header::{HEADER_LEN, Header};
use crate::payload::{ChainWriter, Payload, PayloadType, parse_chain};

/// A message as it was received.
///
/// The payloads of an encrypted IKEv1 message stay closed: its chain is empty and `encrypted` has the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The header.
    pub header: Header,
    /// The payloads in their order.
    pub payloads: Vec<Payload<'a>>,
    /// IKEv1 with the encryption flag: everything behind the header.
    pub encrypted: Option<&'a [u8]>,
}

impl<'a> Message<'a> {
    /// Reads a message in the clear (an encrypted one stays closed). A non-ESP marker has been taken off before.
    ///
    /// Bytes beyond the length that the header names are not looked at.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, DecodeError> {
        let (header, body) = Header::split(datagram)?;
        match header.major {
            // A fragment is never encrypted itself, whatever the flag says: racoon sets it, others clear it.
            1 if header.is_encrypted() && header.next_payload != PayloadType::FRAGMENT => {
                Ok(Self { header, payloads: Vec::new(), encrypted: Some(body) })
            }
            1 | 2 => Ok(Self { header, payloads: parse_chain(header.next_payload, body)?, encrypted: None }),
            other => Err(DecodeError::Value("major version", u64::from(other))),
        }
    }
}

/// Puts `chain` behind `header` and fills in the length and the first payload.
pub(crate) fn assemble(mut header: Header, chain: &ChainWriter) -> Vec<u8> {
    header.next_payload = chain.first();
    assemble_raw(header, chain.as_slice())
}

/// Puts `body` behind `header` and fills in the length.
pub(crate) fn assemble_raw(mut header: Header, body: &[u8]) -> Vec<u8> {
    let length = HEADER_LEN + body.len();
    header.length = u32::try_from(length).unwrap_or(u32::MAX);
    let mut w = Writer::with_capacity(length);
    header.emit(&mut w);
    w.bytes(body);
    w.into_vec()
}

/// One line, as `decode` prints it.
impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let h = &self.header;
        write!(f, "IKEv{} {} {} {} id {:08x}", h.major, h.exchange, h.cky_i, h.cky_r, h.message_id)?;
        if h.major == 2 {
            f.write_str(if h.flags & crate::header::flags::RESPONSE != 0 { " response" } else { " request" })?;
        }
        match self.encrypted {
            Some(body) => write!(f, ": encrypted, {} bytes", body.len()),
            None => {
                for (i, p) in self.payloads.iter().enumerate() {
                    write!(f, "{}{p}", if i == 0 { ": " } else { ", " })?;
                }
                Ok(())
            }
        }
    }
}
