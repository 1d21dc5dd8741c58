//! The header of control and data messages (RFC 2661 §3.1), without allocation.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! |T|L|x|x|S|x|O|P|x|x|x|x|  Ver  |          Length (opt)         |
//! |           Tunnel ID           |           Session ID          |
//! |             Ns (opt)          |             Nr (opt)          |
//! |      Offset Size (opt)        |    Offset pad... (opt)        |
//! ```

use core::fmt;

use sallyport_base::{DecodeError, Reader};

const T: u16 = 0x8000;
const L: u16 = 0x4000;
const S: u16 = 0x0800;
const O: u16 = 0x0200;
const P: u16 = 0x0100;
const VERSION_MASK: u16 = 0x000f;
const VERSION: u16 = 2;

/// The length of a control message's header: T, L and S are always set.
pub const CONTROL_HEADER_LEN: usize = 12;
/// The longest header that [`DataHeader::emit`] writes: length and sequence numbers.
pub const MAX_DATA_HEADER_LEN: usize = 12;

/// The header of a control message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlHeader {
    /// The receiver's tunnel id; 0 in an SCCRQ.
    pub tunnel_id: u16,
    /// The receiver's session id; 0 in messages about the tunnel. Ignored on a ZLB: some peers put the call's there.
    pub session_id: u16,
    /// The number of this message.
    pub ns: u16,
    /// The number of the next message that the sender expects.
    pub nr: u16,
}

/// The header of a data message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHeader {
    /// The receiver's tunnel id.
    pub tunnel_id: u16,
    /// The receiver's session id.
    pub session_id: u16,
    /// The sequence numbers, if the S bit is set: Ns, and Nr, which means nothing in data messages.
    pub sequence: Option<(u16, u16)>,
    /// The Length field, if the L bit is set (kept for display; the payload is already cut to it).
    pub length: Option<u16>,
    /// The Offset Size, if the O bit is set (kept for display; the payload already starts behind the pad).
    pub offset: Option<u16>,
    /// The P bit: the sender asks for preference.
    pub priority: bool,
}

/// Either header, with what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A control message and its AVPs; empty is a ZLB, a bare acknowledgement.
    Control(ControlHeader, &'a [u8]),
    /// A data message and its PPP frame.
    Data(DataHeader, &'a [u8]),
}

impl<'a> Packet<'a> {
    /// Reads a UDP payload.
    ///
    /// Any mix of the L, S and O bits is taken on data messages. Control messages must have L and S; their O and P bits
    /// are ignored where they do no harm. Another version than 2 is an error: L2TPv3 (and L2F) have other layouts.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let flags = r.u16("flags")?;
        if flags & VERSION_MASK != VERSION {
            return Err(DecodeError::Value("version", u64::from(flags & VERSION_MASK)));
        }
        let length = if flags & L != 0 { Some(r.u16("length")?) } else { None };
        if let Some(length) = length {
            let read = bytes.len() - r.len();
            let rest = usize::from(length).checked_sub(read).ok_or(DecodeError::Length("message", length.into()))?;
            // What lies behind the message's own length is padding of a lower layer.
            r = r.sub("message", rest)?;
        }
        let tunnel_id = r.u16("tunnel id")?;
        let session_id = r.u16("session id")?;
        let sequence = if flags & S != 0 { Some((r.u16("Ns")?, r.u16("Nr")?)) } else { None };
        if flags & T != 0 {
            let Some((ns, nr)) = sequence else { return Err(DecodeError::Value("control flags", flags.into())) };
            if length.is_none() || flags & O != 0 {
                return Err(DecodeError::Value("control flags", flags.into()));
            }
            return Ok(Self::Control(ControlHeader { tunnel_id, session_id, ns, nr }, r.rest()));
        }
        let offset = if flags & O != 0 { Some(r.u16("offset size")?) } else { None };
        if let Some(offset) = offset {
            r.skip("offset pad", offset.into())?;
        }
        let header = DataHeader { tunnel_id, session_id, sequence, length, offset, priority: flags & P != 0 };
        Ok(Self::Data(header, r.rest()))
    }

    /// Whether the datagram claims to be a control message: one test for the data path, which hands these to control.
    pub fn is_control(bytes: &[u8]) -> bool {
        bytes.first().is_some_and(|b| b & 0x80 != 0)
    }
}

impl ControlHeader {
    /// The header bytes in front of `body_len` bytes of AVPs. Lengths above 64 KiB are cut, which the peer refuses.
    pub fn emit(&self, body_len: usize) -> [u8; CONTROL_HEADER_LEN] {
        let mut out = [0; CONTROL_HEADER_LEN];
        let length = u16::try_from(CONTROL_HEADER_LEN + body_len).unwrap_or(u16::MAX);
        let fields = [T | L | S | VERSION, length, self.tunnel_id, self.session_id, self.ns, self.nr];
        for (two, field) in out.chunks_exact_mut(2).zip(fields) {
            two.copy_from_slice(&field.to_be_bytes());
        }
        out
    }
}

impl DataHeader {
    /// A header with ids only, as nearly every data message has.
    pub const fn new(tunnel_id: u16, session_id: u16) -> Self {
        Self { tunnel_id, session_id, sequence: None, length: None, offset: None, priority: false }
    }

    /// Reads a data message and gives its PPP frame; a control message is an error.
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        match Packet::parse(bytes)? {
            Packet::Data(header, frame) => Ok((header, frame)),
            Packet::Control(..) => Err(DecodeError::Value("data flags", 1)),
        }
    }

    /// How many bytes [`DataHeader::emit`] writes.
    pub const fn emitted_len(&self) -> usize {
        6 + if self.length.is_some() { 2 } else { 0 } + if self.sequence.is_some() { 4 } else { 0 }
    }

    /// Writes the header into `out` and says how many bytes; `None` if `out` is too short. `offset` is not written:
    /// we never pad.
    pub fn emit(&self, out: &mut [u8]) -> Option<usize> {
        let mut flags = VERSION;
        flags |= if self.length.is_some() { L } else { 0 };
        flags |= if self.sequence.is_some() { S } else { 0 };
        flags |= if self.priority { P } else { 0 };
        let (ns, nr) = self.sequence.map_or((None, None), |(ns, nr)| (Some(ns), Some(nr)));
        let fields = [Some(flags), self.length, Some(self.tunnel_id), Some(self.session_id), ns, nr];
        let out = out.get_mut(..self.emitted_len())?;
        for (two, field) in out.chunks_exact_mut(2).zip(fields.into_iter().flatten()) {
            two.copy_from_slice(&field.to_be_bytes());
        }
        Some(self.emitted_len())
    }
}

/// `DATA tunnel=7 session=9 ns=1 nr=2`
impl fmt::Display for DataHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DATA tunnel={} session={}", self.tunnel_id, self.session_id)?;
        if let Some((ns, nr)) = self.sequence {
            write!(f, " ns={ns} nr={nr}")?;
        }
        if let Some(offset) = self.offset {
            write!(f, " offset={offset}")?;
        }
        f.write_str(if self.priority { " priority" } else { "" })
    }
}

/// The sequence numbers of one session's data messages (RFC 2661 §5.4), for sessions that asked for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataSequence {
    ns: u16,
    nr: u16,
}

impl DataSequence {
    /// The pair for the next message to send.
    pub fn next_pair(&mut self) -> (u16, u16) {
        let ns = self.ns;
        self.ns = ns.wrapping_add(1);
        (ns, self.nr)
    }

    /// Whether a message that arrived with `ns` is to be taken: it is, unless it is older than one taken before. Gaps
    /// are losses; nothing is held back to be put in order.
    pub fn accept(&mut self, ns: u16) -> bool {
        let newer = ns.wrapping_sub(self.nr) < 0x8000;
        if newer {
            self.nr = ns.wrapping_add(1);
        }
        newer
    }
}

#[cfg(test)]
mod tests;
