//! Attribute-value pairs (RFC 2661 §4), hidden ones too.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! |M|H| rsvd  |      Length       |           Vendor ID           |
//! |         Attribute Type        |        Attribute Value...
//! ```

use core::fmt;

use sallyport_base::{DecodeError, Reader, Writer};
use sallyport_crypto::hash::HashAlg;

use crate::config::TunnelSecret;
use crate::message::MessageType;
use crate::result::ResultCode;

const M: u16 = 0x8000;
const H: u16 = 0x4000;
const RESERVED: u16 = 0x3c00;
const LENGTH: u16 = 0x03ff;
const HEADER_LEN: usize = 6;
/// The longest value that the 10-bit length allows.
pub const MAX_VALUE_LEN: usize = LENGTH as usize - HEADER_LEN;
/// More AVPs than this in one message are an attack: the longest message of the RFC has 17.
pub const MAX_AVPS: usize = 64;

sallyport_base::wire_enum! {
    /// IANA "Control Message Attribute Value Pairs", of vendor 0.
    pub struct AvpType(u16) {
        MESSAGE_TYPE = 0, RESULT_CODE = 1, PROTOCOL_VERSION = 2, FRAMING_CAPABILITIES = 3, BEARER_CAPABILITIES = 4,
        TIE_BREAKER = 5, FIRMWARE_REVISION = 6, HOST_NAME = 7, VENDOR_NAME = 8, ASSIGNED_TUNNEL_ID = 9,
        RECEIVE_WINDOW_SIZE = 10, CHALLENGE = 11, Q931_CAUSE_CODE = 12, CHALLENGE_RESPONSE = 13,
        ASSIGNED_SESSION_ID = 14, CALL_SERIAL_NUMBER = 15, MINIMUM_BPS = 16, MAXIMUM_BPS = 17, BEARER_TYPE = 18,
        FRAMING_TYPE = 19, CALLED_NUMBER = 21, CALLING_NUMBER = 22, SUB_ADDRESS = 23, TX_CONNECT_SPEED = 24,
        PHYSICAL_CHANNEL_ID = 25, INITIAL_RECEIVED_LCP_CONFREQ = 26, LAST_SENT_LCP_CONFREQ = 27,
        LAST_RECEIVED_LCP_CONFREQ = 28, PROXY_AUTHEN_TYPE = 29, PROXY_AUTHEN_NAME = 30, PROXY_AUTHEN_CHALLENGE = 31,
        PROXY_AUTHEN_ID = 32, PROXY_AUTHEN_RESPONSE = 33, CALL_ERRORS = 34, ACCM = 35, RANDOM_VECTOR = 36,
        PRIVATE_GROUP_ID = 37, RX_CONNECT_SPEED = 38, SEQUENCING_REQUIRED = 39,
        // Later standards, which we name and otherwise skip: RFC 3145, RFC 3301, RFC 3308.
        PPP_DISCONNECT_CAUSE = 46, CCDS = 47, SDS = 48,
    }
}

/// How the value of an AVP is laid out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    Empty,
    U16,
    U32,
    U64,
    Octets,
    Text,
    MessageType,
    Version,
    ResultCode,
    Q931,
    CallErrors,
    Accm,
}

impl AvpType {
    /// `None` is an AVP that this implementation does not know.
    const fn layout(self) -> Option<Layout> {
        Some(match self {
            Self::MESSAGE_TYPE => Layout::MessageType,
            Self::RESULT_CODE => Layout::ResultCode,
            Self::PROTOCOL_VERSION => Layout::Version,
            Self::FIRMWARE_REVISION
            | Self::ASSIGNED_TUNNEL_ID
            | Self::RECEIVE_WINDOW_SIZE
            | Self::ASSIGNED_SESSION_ID
            | Self::PROXY_AUTHEN_TYPE
            | Self::PROXY_AUTHEN_ID => Layout::U16,
            Self::FRAMING_CAPABILITIES
            | Self::BEARER_CAPABILITIES
            | Self::CALL_SERIAL_NUMBER
            | Self::MINIMUM_BPS
            | Self::MAXIMUM_BPS
            | Self::BEARER_TYPE
            | Self::FRAMING_TYPE
            | Self::TX_CONNECT_SPEED
            | Self::PHYSICAL_CHANNEL_ID
            | Self::RX_CONNECT_SPEED => Layout::U32,
            Self::TIE_BREAKER => Layout::U64,
            Self::HOST_NAME
            | Self::VENDOR_NAME
            | Self::CALLED_NUMBER
            | Self::CALLING_NUMBER
            | Self::SUB_ADDRESS
            | Self::PROXY_AUTHEN_NAME => Layout::Text,
            Self::CHALLENGE
            | Self::CHALLENGE_RESPONSE
            | Self::INITIAL_RECEIVED_LCP_CONFREQ
            | Self::LAST_SENT_LCP_CONFREQ
            | Self::LAST_RECEIVED_LCP_CONFREQ
            | Self::PROXY_AUTHEN_CHALLENGE
            | Self::PROXY_AUTHEN_RESPONSE
            | Self::RANDOM_VECTOR
            | Self::PRIVATE_GROUP_ID => Layout::Octets,
            Self::Q931_CAUSE_CODE => Layout::Q931,
            Self::CALL_ERRORS => Layout::CallErrors,
            Self::ACCM => Layout::Accm,
            Self::SEQUENCING_REQUIRED => Layout::Empty,
            _ => return None,
        })
    }

    /// Whether RFC 2661 §4.4 sets the M bit of this AVP.
    pub const fn mandatory(self) -> bool {
        !matches!(
            self,
            Self::TIE_BREAKER
                | Self::FIRMWARE_REVISION
                | Self::VENDOR_NAME
                | Self::PHYSICAL_CHANNEL_ID
                | Self::INITIAL_RECEIVED_LCP_CONFREQ
                | Self::LAST_SENT_LCP_CONFREQ
                | Self::LAST_RECEIVED_LCP_CONFREQ
                | Self::PROXY_AUTHEN_TYPE
                | Self::PROXY_AUTHEN_NAME
                | Self::PROXY_AUTHEN_CHALLENGE
                | Self::PROXY_AUTHEN_ID
                | Self::PROXY_AUTHEN_RESPONSE
                | Self::PRIVATE_GROUP_ID
                | Self::RX_CONNECT_SPEED
        )
    }

    /// Whether RFC 2661 §4.4 lets this AVP be hidden and we hide it when asked to hide.
    const fn hideable(self) -> bool {
        matches!(
            self,
            Self::ASSIGNED_TUNNEL_ID
                | Self::ASSIGNED_SESSION_ID
                | Self::CALL_SERIAL_NUMBER
                | Self::FRAMING_TYPE
                | Self::TX_CONNECT_SPEED
                | Self::RX_CONNECT_SPEED
        )
    }
}

/// The value of an AVP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// No octets: the AVP's presence says all.
    Empty,
    /// Two octets.
    U16(u16),
    /// Four octets.
    U32(u32),
    /// Eight octets.
    U64(u64),
    /// Any octets.
    Octets(Vec<u8>),
    /// Octets that are meant for people; nothing says that they are UTF-8.
    Text(Vec<u8>),
    /// Message Type.
    MessageType(MessageType),
    /// Protocol Version: version and revision.
    Version(u8, u8),
    /// Result Code.
    ResultCode(ResultCode),
    /// Q.931 Cause Code: code, message, advisory text.
    Q931(u16, u8, Vec<u8>),
    /// Call Errors: CRC, framing, hardware overrun, buffer overrun, time-out and alignment errors.
    CallErrors([u32; 6]),
    /// ACCM: send and receive map.
    Accm(u32, u32),
    /// Still hidden: there is no secret, or no Random Vector before it.
    Hidden(Vec<u8>),
    /// An AVP that this implementation does not know, or whose octets do not fit its layout.
    Unknown(Vec<u8>),
}

/// One AVP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Avp {
    /// The M bit: whoever does not know the AVP must end the session or tunnel.
    pub mandatory: bool,
    /// The H bit as received; the value is in the clear unless it is [`Value::Hidden`].
    pub hidden: bool,
    /// 0 for the IETF.
    pub vendor: u16,
    /// Its meaning depends on the vendor.
    pub attribute: AvpType,
    /// The value.
    pub value: Value,
}

/// Why a message must not be acted upon as it stands (RFC 2661 §4.2, §7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The AVPs themselves cannot be told apart.
    #[error("malformed AVP: {0}")]
    Malformed(DecodeError),
    /// An AVP that this implementation does not know has its M bit set.
    #[error("unknown mandatory AVP: vendor {vendor}, type {attribute}")]
    Unrecognized {
        /// Vendor id.
        vendor: u16,
        /// Attribute type.
        attribute: u16,
    },
    /// A known AVP with its M bit set has a value that its standard does not allow.
    #[error("bad value in mandatory AVP {0}")]
    BadValue(AvpType),
    /// A mandatory AVP is hidden and cannot be opened.
    #[error("hidden AVP {0} cannot be opened: no secret is shared, or it is another one")]
    Hidden(AvpType),
}

/// The AVPs of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Avps {
    /// All that could be told apart, in their order.
    pub list: Vec<Avp>,
    /// The first thing that is wrong beyond repair.
    pub fault: Option<Fault>,
}

impl Avp {
    /// An AVP of the IETF with the M bit as RFC 2661 sets it.
    pub const fn new(attribute: AvpType, value: Value) -> Self {
        Self { mandatory: attribute.mandatory(), hidden: false, vendor: 0, attribute, value }
    }

    fn header(&self, value_len: usize, hidden: bool) -> u16 {
        let length = u16::try_from(HEADER_LEN + value_len).map_or(LENGTH, |n| n.min(LENGTH));
        length | if self.mandatory { M } else { 0 } | if hidden { H } else { 0 }
    }

    /// Appends the AVP in the clear (but for a [`Value::Hidden`], which stays so). Values are cut to 1017 octets.
    pub fn emit(&self, w: &mut Writer) {
        let value = self.value.to_bytes();
        let value = value.get(..MAX_VALUE_LEN).unwrap_or(&value);
        let hidden = matches!(self.value, Value::Hidden(_));
        w.u16(self.header(value.len(), hidden)).u16(self.vendor).u16(self.attribute.0).bytes(value);
    }

    /// Appends the AVP hidden under `secret` and the Random Vector that went before it.
    pub fn emit_hidden(&self, w: &mut Writer, secret: &TunnelSecret, random_vector: &[u8], padding: &[u8]) {
        let value = self.value.to_bytes();
        let mut plain = Writer::with_capacity(2 + value.len() + padding.len());
        let mark = plain.mark_u16();
        plain.bytes(&value).bytes(padding);
        plain.patch(mark, value.len());
        let mut bytes = plain.into_vec();
        bytes.truncate(MAX_VALUE_LEN);
        hide(&mut bytes, self.attribute, secret, random_vector, Direction::Hide);
        w.u16(self.header(bytes.len(), true)).u16(self.vendor).u16(self.attribute.0).bytes(&bytes);
    }
}

/// Writes `avps`; with a secret, hides those that may be (RFC 2661 §4.3), after a Random Vector.
pub fn emit_all(avps: &[Avp], w: &mut Writer, hide: Option<(&TunnelSecret, [u8; 32])>) {
    let Some((secret, random)) = hide else { return avps.iter().for_each(|avp| avp.emit(w)) };
    let (vector, padding) = random.split_at(16);
    for (i, avp) in avps.iter().enumerate() {
        if i == 1 {
            Avp::new(AvpType::RANDOM_VECTOR, Value::Octets(vector.to_vec())).emit(w);
        }
        if i > 0 && avp.attribute.hideable() {
            avp.emit_hidden(w, secret, vector, padding.get(..12).unwrap_or_default());
        } else {
            avp.emit(w);
        }
    }
}

impl Avps {
    /// Reads the AVPs of a message. What is wrong is told in [`Avps::fault`], beside all AVPs that could be read: a
    /// StopCCN ends the tunnel however broken it is.
    pub fn parse(body: &[u8], secret: Option<&TunnelSecret>) -> Self {
        let mut avps = Self { list: Vec::new(), fault: None };
        let mut r = Reader::new(body);
        let mut random_vector: &[u8] = &[];
        while !r.is_empty() {
            if avps.list.len() == MAX_AVPS {
                avps.fault.get_or_insert(Fault::Malformed(DecodeError::TooMany("AVPs", MAX_AVPS)));
                break;
            }
            match Raw::parse(&mut r) {
                Ok(raw) => {
                    if raw.vendor == 0 && raw.attribute == AvpType::RANDOM_VECTOR {
                        random_vector = raw.value;
                    }
                    let (avp, fault) = raw.open(secret, random_vector);
                    avps.list.push(avp);
                    avps.fault = avps.fault.or(fault);
                }
                Err(e) => {
                    avps.fault.get_or_insert(Fault::Malformed(e));
                    break;
                }
            }
        }
        avps
    }

    /// The value of the first AVP of this type and of vendor 0 whose value could be read.
    pub fn find(&self, attribute: AvpType) -> Option<&Value> {
        self.list
            .iter()
            .filter(|avp| avp.vendor == 0 && avp.attribute == attribute)
            .map(|avp| &avp.value)
            .find(|value| !matches!(value, Value::Unknown(_) | Value::Hidden(_)))
    }
}

/// An AVP whose value is not looked at yet.
struct Raw<'a> {
    flags: u16,
    vendor: u16,
    attribute: AvpType,
    value: &'a [u8],
}

impl<'a> Raw<'a> {
    fn parse(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let flags = r.u16("AVP flags")?;
        let length = usize::from(flags & LENGTH);
        let rest = length.checked_sub(2).filter(|n| *n >= 4).ok_or(DecodeError::Length("AVP", length))?;
        let mut body = r.sub("AVP", rest)?;
        let vendor = body.u16("vendor id")?;
        let attribute = AvpType(body.u16("attribute type")?);
        Ok(Self { flags, vendor, attribute, value: body.rest() })
    }

    fn open(&self, secret: Option<&TunnelSecret>, random_vector: &[u8]) -> (Avp, Option<Fault>) {
        let mandatory = self.flags & M != 0;
        let hidden = self.flags & H != 0;
        let (value, fault) = self.value(hidden, secret, random_vector);
        // An AVP with the M bit clear is skipped whatever is wrong with it (§4.2, §7.1).
        let fault = fault.filter(|_| mandatory);
        (Avp { mandatory, hidden, vendor: self.vendor, attribute: self.attribute, value }, fault)
    }

    fn value(&self, hidden: bool, secret: Option<&TunnelSecret>, random_vector: &[u8]) -> (Value, Option<Fault>) {
        let unknown = || Value::Unknown(self.value.to_vec());
        // The vendor comes before the number: Windows puts type 1 of vendor 311 into its ICRQ, which is no Result Code.
        let layout = if self.vendor == 0 && self.flags & RESERVED == 0 { self.attribute.layout() } else { None };
        let Some(layout) = layout else {
            let fault = Fault::Unrecognized { vendor: self.vendor, attribute: self.attribute.0 };
            return (unknown(), Some(fault));
        };
        if !hidden {
            return match Value::parse(layout, self.value) {
                Some(value) => (value, None),
                None => (unknown(), Some(Fault::BadValue(self.attribute))),
            };
        }
        let fault = Some(Fault::Hidden(self.attribute));
        let Some(secret) = secret.filter(|_| !random_vector.is_empty()) else {
            return (Value::Hidden(self.value.to_vec()), fault);
        };
        let mut bytes = self.value.to_vec();
        hide(&mut bytes, self.attribute, secret, random_vector, Direction::Open);
        let mut r = Reader::new(&bytes);
        let plain = r.u16("original length").and_then(|n| r.bytes("original value", n.into()));
        match plain.ok().and_then(|plain| Value::parse(layout, plain)) {
            Some(value) => (value, None),
            None => (Value::Hidden(self.value.to_vec()), fault),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Hide,
    Open,
}

/// XORs `bytes` with b1, b2, ... of RFC 2661 §4.3; each b after the first hashes the ciphertext chunk before it.
fn hide(bytes: &mut [u8], attribute: AvpType, secret: &TunnelSecret, random_vector: &[u8], direction: Direction) {
    let attribute = attribute.0.to_be_bytes();
    let mut pad = HashAlg::Md5.digest(&[&attribute, secret.as_bytes(), random_vector]);
    for chunk in bytes.chunks_mut(16) {
        let mut cipher = [0; 16];
        let len = chunk.len();
        if direction == Direction::Open {
            cipher[..len].copy_from_slice(chunk);
        }
        for (byte, mask) in chunk.iter_mut().zip(pad.iter()) {
            *byte ^= mask;
        }
        if direction == Direction::Hide {
            cipher[..len].copy_from_slice(chunk);
        }
        pad = HashAlg::Md5.digest(&[secret.as_bytes(), &cipher]);
    }
}

impl Value {
    fn parse(layout: Layout, bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::new(bytes);
        let value = match layout {
            Layout::Empty => Self::Empty,
            Layout::U16 => Self::U16(r.u16("value").ok()?),
            Layout::U32 => Self::U32(r.u32("value").ok()?),
            Layout::U64 => Self::U64(r.u64("value").ok()?),
            Layout::Octets => Self::Octets(r.rest().to_vec()),
            Layout::Text => Self::Text(r.rest().to_vec()),
            Layout::MessageType => Self::MessageType(MessageType(r.u16("value").ok()?)),
            Layout::Version => Self::Version(r.u8("version").ok()?, r.u8("revision").ok()?),
            Layout::ResultCode => Self::ResultCode(ResultCode::parse(r.rest())?),
            Layout::Q931 => Self::Q931(r.u16("cause").ok()?, r.u8("message").ok()?, r.rest().to_vec()),
            Layout::CallErrors => {
                r.skip("reserved", 2).ok()?;
                let mut counts = [0; 6];
                for count in &mut counts {
                    *count = r.u32("count").ok()?;
                }
                Self::CallErrors(counts)
            }
            Layout::Accm => {
                r.skip("reserved", 2).ok()?;
                Self::Accm(r.u32("send").ok()?, r.u32("receive").ok()?)
            }
        };
        r.is_empty().then_some(value)
    }

    /// The octets of the value.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::new();
        match self {
            Self::Empty => {}
            Self::U16(v) | Self::MessageType(MessageType(v)) => _ = w.u16(*v),
            Self::U32(v) => _ = w.u32(*v),
            Self::U64(v) => _ = w.u64(*v),
            Self::Octets(v) | Self::Text(v) | Self::Hidden(v) | Self::Unknown(v) => _ = w.bytes(v),
            Self::Version(version, revision) => _ = w.u8(*version).u8(*revision),
            Self::ResultCode(code) => code.emit(&mut w),
            Self::Q931(cause, message, text) => _ = w.u16(*cause).u8(*message).bytes(text),
            Self::CallErrors(counts) => {
                w.u16(0);
                counts.iter().for_each(|count| _ = w.u32(*count));
            }
            Self::Accm(send, receive) => _ = w.u16(0).u32(*send).u32(*receive),
        }
        w.into_vec()
    }
}

/// Octets that a peer says are text, as people may see them: no trailing NULs (Apple), no control characters.
pub fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim_end_matches('\0').chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(256).collect()
}

fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("yes"),
            Self::U16(v) => v.fmt(f),
            Self::U32(v) => v.fmt(f),
            Self::U64(v) => write!(f, "{v:016x}"),
            Self::Octets(v) | Self::Unknown(v) => hex(f, v),
            Self::Text(v) => write!(f, "{:?}", printable(v)),
            Self::MessageType(v) => v.fmt(f),
            Self::Version(version, revision) => write!(f, "{version}.{revision}"),
            Self::ResultCode(code) => match &code.message {
                Some(message) => write!(f, "{code} {message:?}"),
                None => code.fmt(f),
            },
            Self::Q931(cause, message, text) => write!(f, "{cause}/{message} {:?}", printable(text)),
            Self::CallErrors(counts) => write!(f, "{counts:?}"),
            Self::Accm(send, receive) => write!(f, "send {send:08x} receive {receive:08x}"),
            Self::Hidden(v) => write!(f, "hidden ({} octets)", v.len()),
        }
    }
}

impl Avp {
    /// The AVP's name, such as `HOST_NAME`, `311:1` for a vendor's, or its number.
    pub fn name(&self) -> String {
        if self.vendor == 0 { self.attribute.to_string() } else { format!("{}:{}", self.vendor, self.attribute.0) }
    }
}

impl fmt::Display for Avp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name(), self.value)
    }
}

#[cfg(test)]
mod tests;
