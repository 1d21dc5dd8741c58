//! Control messages (RFC 2661 §6): typed, and as the list of AVPs that they are.

use core::fmt;

use sallyport_base::Writer;

use crate::avp::{Avp, AvpType, Avps, Value, emit_all, printable};
use crate::config::TunnelSecret;
use crate::header::ControlHeader;
use crate::result::ResultCode;

sallyport_base::wire_enum! {
    /// IANA "Message Type AVP Values" (RFC 2661 §3.2).
    pub struct MessageType(u16) {
        SCCRQ = 1, SCCRP = 2, SCCCN = 3, STOPCCN = 4, HELLO = 6, OCRQ = 7, OCRP = 8, OCCN = 9, ICRQ = 10, ICRP = 11,
        ICCN = 12, CDN = 14, WEN = 15, SLI = 16,
    }
}

impl MessageType {
    /// Whether a fault in such a message ends one session and not the tunnel (RFC 2661 §4.2).
    pub const fn is_about_session(self) -> bool {
        matches!(self.0, 7..=16)
    }
}

/// A control message as it came: for the decoder, and the step before [`Message`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlMessage {
    /// The header.
    pub header: ControlHeader,
    /// The AVPs; none is a ZLB.
    pub avps: Avps,
}

impl ControlMessage {
    /// Reads what follows a control header.
    pub fn parse(header: ControlHeader, body: &[u8], secret: Option<&TunnelSecret>) -> Self {
        Self { header, avps: Avps::parse(body, secret) }
    }

    /// Whether it is a bare acknowledgement.
    pub fn is_zlb(&self) -> bool {
        self.avps.list.is_empty() && self.avps.fault.is_none()
    }

    /// The type, which must be the first AVP.
    pub fn message_type(&self) -> Option<MessageType> {
        match self.avps.list.first() {
            Some(Avp { vendor: 0, value: Value::MessageType(kind), .. }) => Some(*kind),
            _ => None,
        }
    }

    /// All fields by name, for tables and JSON: the header's, then one for each AVP, then `fault` if there is one.
    pub fn fields(&self) -> Vec<(String, String)> {
        let ControlHeader { tunnel_id, session_id, ns, nr } = self.header;
        let header = [("tunnel", tunnel_id), ("session", session_id), ("ns", ns), ("nr", nr)];
        let header = header.into_iter().map(|(name, v)| (name.to_owned(), v.to_string()));
        let avps = self.avps.list.iter().map(|avp| (avp.name(), avp.value.to_string()));
        let fault = self.avps.fault.iter().map(|fault| ("fault".to_owned(), fault.to_string()));
        header.chain(avps).chain(fault).collect()
    }

    /// The type's name, or what else it is.
    pub fn name(&self) -> String {
        match self.message_type() {
            Some(kind) => kind.to_string(),
            None if self.is_zlb() => "ZLB".into(),
            None => "no message type".into(),
        }
    }
}

/// `ICRQ tunnel=1 session=0 ns=2 nr=1 ASSIGNED_SESSION_ID=7 ...`
impl fmt::Display for ControlMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ControlHeader { tunnel_id, session_id, ns, nr } = self.header;
        write!(f, "{} tunnel={tunnel_id} session={session_id} ns={ns} nr={nr}", self.name())?;
        for avp in self.avps.list.iter().filter(|avp| !matches!(avp.value, Value::MessageType(_))) {
            write!(f, " {avp}")?;
        }
        match &self.avps.fault {
            Some(fault) => write!(f, " ({fault})"),
            None => Ok(()),
        }
    }
}

/// What a field of a typed message can hold.
trait Field: Sized {
    fn from_value(value: &Value) -> Option<Self>;
    fn to_value(&self) -> Value;
}

macro_rules! field {
    ($type:ty, $variant:ident) => {
        impl Field for $type {
            fn from_value(value: &Value) -> Option<Self> {
                match value {
                    Value::$variant(v) => Some(v.clone()),
                    _ => None,
                }
            }
            fn to_value(&self) -> Value {
                Value::$variant(self.clone())
            }
        }
    };
}

field!(u16, U16);
field!(u32, U32);
field!(u64, U64);
field!(Vec<u8>, Octets);
field!(ResultCode, ResultCode);

impl Field for String {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Text(v) => Some(printable(v)),
            _ => None,
        }
    }
    fn to_value(&self) -> Value {
        Value::Text(self.as_bytes().to_vec())
    }
}

/// Version and revision.
impl Field for (u8, u8) {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Version(version, revision) => Some((*version, *revision)),
            _ => None,
        }
    }
    fn to_value(&self) -> Value {
        Value::Version(self.0, self.1)
    }
}

/// Present without a value.
impl Field for () {
    fn from_value(value: &Value) -> Option<Self> {
        matches!(value, Value::Empty).then_some(())
    }
    fn to_value(&self) -> Value {
        Value::Empty
    }
}

/// The six counters of Call Errors.
impl Field for [u32; 6] {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::CallErrors(counts) => Some(*counts),
            _ => None,
        }
    }
    fn to_value(&self) -> Value {
        Value::CallErrors(*self)
    }
}

/// The two maps of ACCM.
impl Field for (u32, u32) {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Accm(send, receive) => Some((*send, *receive)),
            _ => None,
        }
    }
    fn to_value(&self) -> Value {
        Value::Accm(self.0, self.1)
    }
}

macro_rules! messages {
    ($($(#[$meta:meta])* $name:ident = $kind:ident { $($(#[$fmeta:meta])* $field:ident: $type:ty = $attribute:ident,)* })*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Debug, Default, PartialEq, Eq)]
            pub struct $name {
                $($(#[$fmeta])* pub $field: Option<$type>,)*
            }

            impl $name {
                #[allow(unused_variables)]
                fn from_avps(avps: &Avps) -> Self {
                    Self { $($field: avps.find(AvpType::$attribute).and_then(<$type as Field>::from_value),)* }
                }

                #[allow(unused_mut)]
                fn to_avps(&self) -> Vec<Avp> {
                    let mut list = vec![Avp::new(AvpType::MESSAGE_TYPE, Value::MessageType(MessageType::$kind))];
                    $(list.extend(self.$field.as_ref().map(|v| Avp::new(AvpType::$attribute, v.to_value())));)*
                    list
                }
            }
        )*

        /// A control message with its fields by name. A field that is missing, or whose value made no sense, is `None`;
        /// what must be there is the business of whoever acts on it.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Message {
            $($(#[$meta])* $name($name),)*
        }

        impl Message {
            /// The typed form; `None` is a message type that this implementation does not know.
            pub fn from_avps(kind: MessageType, avps: &Avps) -> Option<Self> {
                Some(match kind {
                    $(MessageType::$kind => Self::$name($name::from_avps(avps)),)*
                    _ => return None,
                })
            }

            /// The AVPs, Message Type first.
            pub fn to_avps(&self) -> Vec<Avp> {
                match self {
                    $(Self::$name(message) => message.to_avps(),)*
                }
            }

            /// Its type.
            pub const fn message_type(&self) -> MessageType {
                match self {
                    $(Self::$name(_) => MessageType::$kind,)*
                }
            }
        }
    };
}

messages! {
    /// Start-Control-Connection-Request, RFC 2661 §6.1.
    Sccrq = SCCRQ {
        /// Must be 1.0.
        protocol_version: (u8, u8) = PROTOCOL_VERSION,
        /// Bit 0 synchronous, bit 1 asynchronous.
        framing_capabilities: u32 = FRAMING_CAPABILITIES,
        /// Bit 0 digital, bit 1 analogue.
        bearer_capabilities: u32 = BEARER_CAPABILITIES,
        /// Who gives way when both ends open a tunnel at once.
        tie_breaker: u64 = TIE_BREAKER,
        /// In the vendor's own encoding.
        firmware_revision: u16 = FIRMWARE_REVISION,
        /// For people.
        host_name: String = HOST_NAME,
        /// For people.
        vendor_name: String = VENDOR_NAME,
        /// The sender's tunnel id.
        assigned_tunnel_id: u16 = ASSIGNED_TUNNEL_ID,
        /// How many messages the sender takes at once; 4 if absent.
        receive_window_size: u16 = RECEIVE_WINDOW_SIZE,
        /// Asks the receiver to prove that it knows the secret.
        challenge: Vec<u8> = CHALLENGE,
    }
    /// Start-Control-Connection-Reply, RFC 2661 §6.2.
    Sccrp = SCCRP {
        /// Must be 1.0.
        protocol_version: (u8, u8) = PROTOCOL_VERSION,
        /// Bit 0 synchronous, bit 1 asynchronous.
        framing_capabilities: u32 = FRAMING_CAPABILITIES,
        /// Bit 0 digital, bit 1 analogue.
        bearer_capabilities: u32 = BEARER_CAPABILITIES,
        /// In the vendor's own encoding.
        firmware_revision: u16 = FIRMWARE_REVISION,
        /// For people.
        host_name: String = HOST_NAME,
        /// For people.
        vendor_name: String = VENDOR_NAME,
        /// The sender's tunnel id.
        assigned_tunnel_id: u16 = ASSIGNED_TUNNEL_ID,
        /// How many messages the sender takes at once; 4 if absent.
        receive_window_size: u16 = RECEIVE_WINDOW_SIZE,
        /// Asks the receiver to prove that it knows the secret.
        challenge: Vec<u8> = CHALLENGE,
        /// Proves that the sender knows the secret.
        challenge_response: Vec<u8> = CHALLENGE_RESPONSE,
    }
    /// Start-Control-Connection-Connected, RFC 2661 §6.3.
    Scccn = SCCCN {
        /// Proves that the sender knows the secret.
        challenge_response: Vec<u8> = CHALLENGE_RESPONSE,
    }
    /// Stop-Control-Connection-Notification, RFC 2661 §6.4.
    StopCcn = STOPCCN {
        /// The sender's tunnel id.
        assigned_tunnel_id: u16 = ASSIGNED_TUNNEL_ID,
        /// Why.
        result_code: ResultCode = RESULT_CODE,
    }
    /// Hello, RFC 2661 §6.5.
    Hello = HELLO {}
    /// Outgoing-Call-Request, RFC 2661 §6.9.
    Ocrq = OCRQ {
        /// The sender's session id.
        assigned_session_id: u16 = ASSIGNED_SESSION_ID,
        /// The sender's own number for the call.
        call_serial_number: u32 = CALL_SERIAL_NUMBER,
        /// Lowest speed, bit/s.
        minimum_bps: u32 = MINIMUM_BPS,
        /// Highest speed, bit/s.
        maximum_bps: u32 = MAXIMUM_BPS,
        /// Bit 0 digital, bit 1 analogue.
        bearer_type: u32 = BEARER_TYPE,
        /// Bit 0 synchronous, bit 1 asynchronous.
        framing_type: u32 = FRAMING_TYPE,
        /// Whom to call.
        called_number: String = CALLED_NUMBER,
        /// More of it.
        sub_address: String = SUB_ADDRESS,
    }
    /// Outgoing-Call-Reply, RFC 2661 §6.10.
    Ocrp = OCRP {
        /// The sender's session id.
        assigned_session_id: u16 = ASSIGNED_SESSION_ID,
        /// For logs.
        physical_channel_id: u32 = PHYSICAL_CHANNEL_ID,
    }
    /// Outgoing-Call-Connected, RFC 2661 §6.11.
    Occn = OCCN {
        /// Bit/s towards the remote system.
        tx_connect_speed: u32 = TX_CONNECT_SPEED,
        /// Bit 0 synchronous, bit 1 asynchronous.
        framing_type: u32 = FRAMING_TYPE,
        /// Bit/s from the remote system.
        rx_connect_speed: u32 = RX_CONNECT_SPEED,
        /// Data messages must be numbered.
        sequencing_required: () = SEQUENCING_REQUIRED,
    }
    /// Incoming-Call-Request, RFC 2661 §6.6.
    Icrq = ICRQ {
        /// The sender's session id.
        assigned_session_id: u16 = ASSIGNED_SESSION_ID,
        /// The sender's own number for the call.
        call_serial_number: u32 = CALL_SERIAL_NUMBER,
        /// Bit 0 digital, bit 1 analogue.
        bearer_type: u32 = BEARER_TYPE,
        /// For logs.
        physical_channel_id: u32 = PHYSICAL_CHANNEL_ID,
        /// Who calls.
        calling_number: String = CALLING_NUMBER,
        /// Who is called.
        called_number: String = CALLED_NUMBER,
        /// More of it.
        sub_address: String = SUB_ADDRESS,
    }
    /// Incoming-Call-Reply, RFC 2661 §6.7.
    Icrp = ICRP {
        /// The sender's session id.
        assigned_session_id: u16 = ASSIGNED_SESSION_ID,
    }
    /// Incoming-Call-Connected, RFC 2661 §6.8. The proxy LCP and authentication AVPs are not among the fields: this
    /// LNS negotiates and authenticates itself.
    Iccn = ICCN {
        /// Bit/s towards the remote system.
        tx_connect_speed: u32 = TX_CONNECT_SPEED,
        /// Bit 0 synchronous, bit 1 asynchronous.
        framing_type: u32 = FRAMING_TYPE,
        /// Bit/s from the remote system.
        rx_connect_speed: u32 = RX_CONNECT_SPEED,
        /// For which customer.
        private_group_id: Vec<u8> = PRIVATE_GROUP_ID,
        /// Data messages must be numbered.
        sequencing_required: () = SEQUENCING_REQUIRED,
    }
    /// Call-Disconnect-Notify, RFC 2661 §6.12.
    Cdn = CDN {
        /// Why.
        result_code: ResultCode = RESULT_CODE,
        /// The sender's session id.
        assigned_session_id: u16 = ASSIGNED_SESSION_ID,
    }
    /// WAN-Error-Notify, RFC 2661 §6.13.
    Wen = WEN {
        /// The counters.
        call_errors: [u32; 6] = CALL_ERRORS,
    }
    /// Set-Link-Info, RFC 2661 §6.14.
    Sli = SLI {
        /// The maps to send and to receive with.
        accm: (u32, u32) = ACCM,
    }
}

impl Message {
    /// A whole control message behind `header`. `hide` gives the secret, and 32 random octets, to hide AVPs with.
    pub fn emit(&self, header: ControlHeader, hide: Option<(&TunnelSecret, [u8; 32])>) -> Vec<u8> {
        let mut body = Writer::new();
        emit_all(&self.to_avps(), &mut body, hide);
        let body = body.into_vec();
        let mut bytes = header.emit(body.len()).to_vec();
        bytes.extend_from_slice(&body);
        bytes
    }
}

/// The answer to a challenge (RFC 2661 §4.4.3): `MD5(type of the message that carries it, secret, challenge)`.
pub fn challenge_response(carrier: MessageType, secret: &TunnelSecret, challenge: &[u8]) -> [u8; 16] {
    let carrier = carrier.0.to_be_bytes();
    let digest = sallyport_crypto::hash::HashAlg::Md5.digest(&[&carrier[1..], secret.as_bytes(), challenge]);
    let mut out = [0; 16];
    out.iter_mut().zip(digest.iter()).for_each(|(o, d)| *o = *d);
    out
}

#[cfg(test)]
mod tests;
