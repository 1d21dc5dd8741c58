//! Any PPP frame as a typed message, for people: the decoder prints these.

use core::fmt;

use sallyport_base::DecodeError;

use crate::auth::{Chap, ChapCode, MsChapV2Response, Pap, PapCode, printable};
use crate::frame::{Protocol, strip};
use crate::option::{describe, hex};
use crate::packet::{Code, ConfigOption, ControlPacket};
use crate::terminate::terminate_reason;

/// A PPP frame, taken apart as far as this implementation knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it carries.
    pub protocol: Protocol,
    /// The packet.
    pub packet: Packet,
}

/// The packet in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// LCP, IPCP, IPV6CP, CCP, and other protocols of the same shape.
    Control {
        /// What kind.
        code: Code,
        /// Ties replies to requests.
        identifier: u8,
        /// What it says.
        body: Body,
    },
    /// PAP.
    Pap {
        /// Ties replies to requests.
        identifier: u8,
        /// What it says.
        content: Pap,
    },
    /// CHAP.
    Chap {
        /// Ties replies to requests.
        identifier: u8,
        /// What it says.
        content: Chap,
    },
    /// Data, and protocols that are not taken apart: their length.
    Other(usize),
}

/// What a control packet says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The options of a configure packet.
    Options(Vec<ConfigOption>),
    /// A Terminate-Request's or -Ack's data, which may be a reason.
    Reason(Option<String>),
    /// The magic number of an echo, an identification and the like, and what follows it.
    Magic(u32, Vec<u8>),
    /// The protocol of a Protocol-Reject.
    Protocol(Protocol),
    /// Anything else.
    Octets(Vec<u8>),
}

/// Control protocols: those with the top bit set and the shape of LCP.
fn is_control(protocol: Protocol) -> bool {
    protocol == Protocol::LCP || (0x8000..0xc000).contains(&protocol.0)
}

impl Frame {
    /// Reads a frame in any form of header.
    pub fn parse(frame: &[u8]) -> Result<Self, DecodeError> {
        let (protocol, payload) = strip(frame).ok_or(DecodeError::Truncated("PPP protocol", 1))?;
        Self::parse_payload(Protocol(protocol), payload)
    }

    /// Reads the packet of a known protocol.
    pub fn parse_payload(protocol: Protocol, payload: &[u8]) -> Result<Self, DecodeError> {
        let packet = match protocol {
            Protocol::PAP => {
                let packet = ControlPacket::parse(payload)?;
                Packet::Pap { identifier: packet.identifier, content: Pap::parse(&packet)? }
            }
            Protocol::CHAP => {
                let packet = ControlPacket::parse(payload)?;
                Packet::Chap { identifier: packet.identifier, content: Chap::parse(&packet)? }
            }
            protocol if is_control(protocol) => {
                let packet = ControlPacket::parse(payload)?;
                let code = Code(packet.code);
                Packet::Control { code, identifier: packet.identifier, body: Body::parse(code, packet.data)? }
            }
            _ => Packet::Other(payload.len()),
        };
        Ok(Self { protocol, packet })
    }

    /// Protocol and kind, such as `LCP CONFIGURE_REQUEST` or `IPV4`.
    pub fn name(&self) -> String {
        let protocol = match self.protocol.name() {
            Some(name) => name.to_owned(),
            None => format!("{:#06x}", self.protocol.0),
        };
        match &self.packet {
            Packet::Control { code, .. } => format!("{protocol} {code}"),
            Packet::Pap { content, .. } => format!("{protocol} {}", pap_code(content)),
            Packet::Chap { content, .. } => format!("{protocol} {}", chap_code(content)),
            Packet::Other(_) => protocol,
        }
    }

    /// All fields by name, for tables and JSON. Passwords are left out.
    pub fn fields(&self) -> Vec<(String, String)> {
        let field = |name: &str, value: String| (name.to_owned(), value);
        let mut fields = Vec::new();
        match &self.packet {
            Packet::Control { identifier, body, .. } => {
                fields.push(field("id", identifier.to_string()));
                body.fields(self.protocol, &mut fields);
            }
            Packet::Pap { identifier, content } => {
                fields.push(field("id", identifier.to_string()));
                match content {
                    Pap::Request { user, .. } => fields.push(field("user", printable(user))),
                    Pap::Ack(text) | Pap::Nak(text) => fields.push(field("message", printable(text))),
                }
            }
            Packet::Chap { identifier, content } => {
                fields.push(field("id", identifier.to_string()));
                match content {
                    Chap::Challenge { value, name } => {
                        fields.push(field("challenge", hex(value)));
                        fields.push(field("name", printable(name)));
                    }
                    Chap::Response { value, name } => {
                        match MsChapV2Response::parse(value) {
                            Ok(response) => {
                                fields.push(field("peer_challenge", hex(&response.peer_challenge)));
                                fields.push(field("nt_response", hex(&response.nt_response)));
                            }
                            Err(_) => fields.push(field("response", hex(value))),
                        }
                        fields.push(field("user", printable(name)));
                    }
                    Chap::Success(text) | Chap::Failure(text) => fields.push(field("message", printable(text))),
                }
            }
            Packet::Other(len) => fields.push(field("len", len.to_string())),
        }
        fields
    }
}

const fn pap_code(content: &Pap) -> PapCode {
    match content {
        Pap::Request { .. } => PapCode::REQUEST,
        Pap::Ack(_) => PapCode::ACK,
        Pap::Nak(_) => PapCode::NAK,
    }
}

const fn chap_code(content: &Chap) -> ChapCode {
    match content {
        Chap::Challenge { .. } => ChapCode::CHALLENGE,
        Chap::Response { .. } => ChapCode::RESPONSE,
        Chap::Success(_) => ChapCode::SUCCESS,
        Chap::Failure(_) => ChapCode::FAILURE,
    }
}

impl Body {
    fn parse(code: Code, data: &[u8]) -> Result<Self, DecodeError> {
        Ok(match code {
            Code::CONFIGURE_REQUEST | Code::CONFIGURE_ACK | Code::CONFIGURE_NAK | Code::CONFIGURE_REJECT => {
                Self::Options(ConfigOption::parse_all(data)?)
            }
            Code::TERMINATE_REQUEST | Code::TERMINATE_ACK => Self::Reason(terminate_reason(data)),
            Code::PROTOCOL_REJECT => match data.first_chunk::<2>() {
                Some(protocol) => Self::Protocol(Protocol(u16::from_be_bytes(*protocol))),
                None => return Err(DecodeError::Truncated("rejected protocol", 2)),
            },
            Code::ECHO_REQUEST
            | Code::ECHO_REPLY
            | Code::DISCARD_REQUEST
            | Code::IDENTIFICATION
            | Code::TIME_REMAINING => match data.split_first_chunk::<4>() {
                Some((magic, rest)) => Self::Magic(u32::from_be_bytes(*magic), rest.to_vec()),
                None => return Err(DecodeError::Truncated("magic number", 4)),
            },
            _ => Self::Octets(data.to_vec()),
        })
    }

    fn fields(&self, protocol: Protocol, fields: &mut Vec<(String, String)>) {
        match self {
            Self::Options(options) => fields.extend(options.iter().map(|option| describe(protocol, option))),
            Self::Reason(reason) => fields.extend(reason.iter().map(|reason| ("reason".into(), reason.clone()))),
            Self::Magic(magic, rest) => {
                fields.push(("magic".into(), format!("{magic:08x}")));
                if !rest.is_empty() {
                    let text = printable(rest);
                    let value = if text.contains('\u{fffd}') { hex(rest) } else { text };
                    fields.push(("data".into(), value));
                }
            }
            Self::Protocol(rejected) => {
                let name = rejected.name().map_or_else(|| format!("{:#06x}", rejected.0), ToOwned::to_owned);
                fields.push(("rejected".into(), name));
            }
            Self::Octets(octets) => fields.push(("data".into(), hex(octets))),
        }
    }
}

/// `LCP CONFIGURE_REQUEST id=1 MRU=1400 MAGIC=1a2b3c4d`
impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        for (name, value) in self.fields() {
            match value.contains(' ') {
                true => write!(f, " {name}={value:?}")?,
                false => write!(f, " {name}={value}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;
    use proptest::collection::vec as octets;
    use proptest::prelude::{any, proptest};

    use super::*;

    fn shown(frame: &[u8]) -> String {
        Frame::parse(frame).map_or_else(|e| e.to_string(), |frame| frame.to_string())
    }

    #[test]
    fn frames_are_shown_on_one_line() {
        assert_eq!(
            shown(&hex!("ff03 c021 01 00 0015 01040578 05061a2b3c4d 0702 0802 0d0306")),
            "LCP CONFIGURE_REQUEST id=0 MRU=1400 MAGIC=1a2b3c4d PFC=yes ACFC=yes CALLBACK=6"
        );
        assert_eq!(
            shown(&hex!("c021 0c 02 0012 1a2b3c4d 4d535241 5356352e 3230")),
            "LCP IDENTIFICATION id=2 magic=1a2b3c4d data=MSRASV5.20"
        );
        assert_eq!(shown(&hex!("80fd 01 06 000a 12 06 01000040")), "CCP CONFIGURE_REQUEST id=6 MPPE=\"stateless 128\"");
        assert_eq!(shown(&hex!("8021 03 09 000a 03 06 0a09004d")), "IPCP CONFIGURE_NAK id=9 ADDRESS=10.9.0.77");
        assert_eq!(shown(&hex!("c021 08 02 0006 8057")), "LCP PROTOCOL_REJECT id=2 rejected=IPV6CP");
        assert_eq!(shown(&hex!("c023 01 01 000c 03 626f62 03 707764")), "PAP REQUEST id=1 user=bob");
        assert_eq!(shown(&hex!("21 45 00")), "IPV4 len=2");
        assert_eq!(shown(&hex!("8021 03 09 000a 03 ff 0a09004d")), "truncated: option needs 249 more bytes");
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(frame in octets(any::<u8>(), 0..100), protocol in 0usize..8) {
            shown(&frame);
            let protocols = [Protocol::LCP, Protocol::PAP, Protocol::CHAP, Protocol::IPCP, Protocol::IPV6CP, Protocol::CCP, Protocol::ACSCP, Protocol::EAP];
            if let Ok(frame) = Frame::parse_payload(protocols[protocol], &frame) {
                let _ = frame.to_string();
            }
        }
    }
}
