//! The packets of PAP (RFC 1334), CHAP (RFC 1994) and MS-CHAPv2 (RFC 2759).

pub(crate) mod client;
pub(crate) mod server;

use sallyport_base::{DecodeError, Reader, Writer};

use crate::config::Password;
use crate::packet::ControlPacket;

sallyport_base::wire_enum! {
    /// Codes of PAP (RFC 1334 §2.2).
    pub struct PapCode(u8) { REQUEST = 1, ACK = 2, NAK = 3 }
}

sallyport_base::wire_enum! {
    /// Codes of CHAP (RFC 1994 §4), and of RFC 2759 §7.
    pub struct ChapCode(u8) { CHALLENGE = 1, RESPONSE = 2, SUCCESS = 3, FAILURE = 4, CHANGE_PASSWORD = 7 }
}

/// Names and passwords longer than this are refused.
pub const MAX_NAME_LEN: usize = 256;

/// A PAP packet's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pap {
    /// Authenticate-Request: `| Peer-ID Length | Peer-Id ... | Passwd-Length | Password ... |`.
    Request {
        /// Peer-Id.
        user: Vec<u8>,
        /// Password.
        password: Password,
    },
    /// Authenticate-Ack with its message.
    Ack(Vec<u8>),
    /// Authenticate-Nak with its message.
    Nak(Vec<u8>),
}

impl Pap {
    /// Reads a packet's data.
    pub fn parse(packet: &ControlPacket<'_>) -> Result<Self, DecodeError> {
        let mut r = Reader::new(packet.data);
        match PapCode(packet.code) {
            PapCode::REQUEST => {
                let len = r.u8("Peer-ID Length")?;
                let user = r.bytes("Peer-Id", len.into())?.to_vec();
                let len = r.u8("Passwd-Length")?;
                Ok(Self::Request { user, password: Password::new(r.bytes("Password", len.into())?) })
            }
            PapCode::ACK => Ok(Self::Ack(message(&mut r))),
            PapCode::NAK => Ok(Self::Nak(message(&mut r))),
            code => Err(DecodeError::Value("PAP code", code.0.into())),
        }
    }

    /// The whole packet. Fields are cut to 255 octets.
    pub fn emit(&self, identifier: u8) -> Vec<u8> {
        let mut w = Writer::new();
        let code = match self {
            Self::Request { user, password } => {
                counted(&mut w, user);
                counted(&mut w, password.as_bytes());
                PapCode::REQUEST
            }
            Self::Ack(text) => {
                counted(&mut w, text);
                PapCode::ACK
            }
            Self::Nak(text) => {
                counted(&mut w, text);
                PapCode::NAK
            }
        };
        ControlPacket { code: code.0, identifier, data: w.as_slice() }.emit()
    }
}

/// The message of an Ack or Nak. Some peers leave the length away, too, so that nothing here is an error.
fn message(r: &mut Reader<'_>) -> Vec<u8> {
    let len = r.u8("Msg-Length").unwrap_or(0);
    let rest = r.rest();
    rest.get(..len.into()).unwrap_or(rest).to_vec()
}

fn counted(w: &mut Writer, bytes: &[u8]) {
    let bytes = bytes.get(..255).unwrap_or(bytes);
    w.u8(u8::try_from(bytes.len()).unwrap_or(u8::MAX)).bytes(bytes);
}

/// A CHAP packet's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chap {
    /// Challenge: value and the authenticator's name.
    Challenge {
        /// Any octets; 16 in MS-CHAPv2.
        value: Vec<u8>,
        /// Who asks.
        name: Vec<u8>,
    },
    /// Response: value and the user's name.
    Response {
        /// 16 octets with MD5; [`MsChapV2Response`] with MS-CHAPv2.
        value: Vec<u8>,
        /// Who answers.
        name: Vec<u8>,
    },
    /// Success with its message, which in MS-CHAPv2 is `S=... M=...`.
    Success(Vec<u8>),
    /// Failure with its message, which in MS-CHAPv2 is [`MsChapFailure`].
    Failure(Vec<u8>),
}

impl Chap {
    /// Reads a packet's data.
    pub fn parse(packet: &ControlPacket<'_>) -> Result<Self, DecodeError> {
        let mut r = Reader::new(packet.data);
        let mut value = || -> Result<(Vec<u8>, Vec<u8>), DecodeError> {
            let len = r.u8("Value-Size")?;
            Ok((r.bytes("Value", len.into())?.to_vec(), r.rest().to_vec()))
        };
        match ChapCode(packet.code) {
            ChapCode::CHALLENGE => value().map(|(value, name)| Self::Challenge { value, name }),
            ChapCode::RESPONSE => value().map(|(value, name)| Self::Response { value, name }),
            ChapCode::SUCCESS => Ok(Self::Success(packet.data.to_vec())),
            ChapCode::FAILURE => Ok(Self::Failure(packet.data.to_vec())),
            code => Err(DecodeError::Value("CHAP code", code.0.into())),
        }
    }

    /// The whole packet. A value is cut to 255 octets.
    pub fn emit(&self, identifier: u8) -> Vec<u8> {
        let mut w = Writer::new();
        let code = match self {
            Self::Challenge { value, name } => {
                counted(&mut w, value);
                w.bytes(name);
                ChapCode::CHALLENGE
            }
            Self::Response { value, name } => {
                counted(&mut w, value);
                w.bytes(name);
                ChapCode::RESPONSE
            }
            Self::Success(text) => {
                w.bytes(text);
                ChapCode::SUCCESS
            }
            Self::Failure(text) => {
                w.bytes(text);
                ChapCode::FAILURE
            }
        };
        ControlPacket { code: code.0, identifier, data: w.as_slice() }.emit()
    }
}

/// The value of an MS-CHAPv2 Response (RFC 2759 §4): `| Peer-Challenge (16) | Reserved (8) | NT-Response (24) | Flags |`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsChapV2Response {
    /// The client's own challenge.
    pub peer_challenge: [u8; 16],
    /// The proof.
    pub nt_response: [u8; 24],
    /// Zero in practice.
    pub flags: u8,
}

impl MsChapV2Response {
    /// Reads the value: 49 octets, of which the reserved ones are ignored.
    pub fn parse(value: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(value);
        let peer_challenge = r.array("Peer-Challenge")?;
        r.skip("Reserved", 8)?;
        let response = Self { peer_challenge, nt_response: r.array("NT-Response")?, flags: r.u8("Flags")? };
        r.finish("MS-CHAPv2 response").map(|()| response)
    }

    /// The 49 octets.
    pub fn emit(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(49);
        w.bytes(&self.peer_challenge).zeros(8).bytes(&self.nt_response).u8(self.flags);
        w.into_vec()
    }
}

/// The message of an MS-CHAPv2 Failure (RFC 2759 §6): `E=691 R=1 C=<32 hex digits> V=3 M=<text>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MsChapFailure {
    /// Which error.
    pub error: u32,
    /// Whether the client may try again.
    pub retry: bool,
    /// The challenge for the next try.
    pub challenge: Option<[u8; 16]>,
    /// Text for people.
    pub message: String,
}

impl MsChapFailure {
    /// Reads the message, field by field: servers leave some out.
    pub fn parse(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let (fields, message) = match text.split_once("M=") {
            Some((fields, message)) => (fields, message),
            None => (text.as_ref(), ""),
        };
        let field = |name: &str| fields.split_whitespace().find_map(|word| word.strip_prefix(name));
        Self {
            error: field("E=").and_then(|v| v.parse().ok()).unwrap_or(0),
            retry: field("R=") == Some("1"),
            challenge: field("C=").and_then(unhex),
            message: printable(message.as_bytes()),
        }
    }

    /// The message as it is sent.
    pub fn emit(&self) -> String {
        let challenge = crate::option::hex(&self.challenge.unwrap_or_default()).to_uppercase();
        let retry = u8::from(self.retry);
        format!("E={} R={retry} C={challenge} V=3 M={}", self.error, self.message)
    }
}

fn unhex(text: &str) -> Option<[u8; 16]> {
    let mut out = [0; 16];
    let text = text.as_bytes();
    if text.len() != 32 {
        return None;
    }
    for (byte, digits) in out.iter_mut().zip(text.chunks_exact(2)) {
        let digits = core::str::from_utf8(digits).ok()?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(out)
}

/// What the error numbers of an MS-CHAPv2 failure mean.
pub const fn error_words(error: u32) -> &'static str {
    use crate::output::mschap_error::{
        ACCT_DISABLED, AUTHENTICATION_FAILURE, CHANGING_PASSWORD, NO_DIALIN_PERMISSION, PASSWD_EXPIRED,
        RESTRICTED_LOGON_HOURS,
    };
    match error {
        RESTRICTED_LOGON_HOURS => "outside the hours in which this user may log on",
        ACCT_DISABLED => "the account is disabled",
        PASSWD_EXPIRED => "the password has expired",
        NO_DIALIN_PERMISSION => "the user may not connect remotely",
        AUTHENTICATION_FAILURE => "wrong user name or password",
        CHANGING_PASSWORD => "the password could not be changed",
        _ => "an unknown error",
    }
}

/// Octets that a peer says are text, as people may see them.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim_end_matches('\0')
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .take(MAX_NAME_LEN)
        .collect()
}

#[cfg(test)]
mod tests;
