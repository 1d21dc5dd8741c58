//! PPP frames: control protocols as lines with their options, authentication without its secrets, packets by what is in
//! them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sallyport_base::{DecodeError, Reader};
use sallyport_ppp::auth::{Chap, ChapCode, MsChapFailure, MsChapV2Response, Pap, PapCode};
use sallyport_ppp::option::{CcpKind, IpcpKind, IpcpOption, Ipv6cpKind, LcpKind, LcpOption, mppe_words};
use sallyport_ppp::packet::{Code, ConfigOption, ControlPacket};
use sallyport_ppp::{Protocol, strip, terminate_reason};
use serde_json::{Value, json};

use super::layers::{Decoder, protocol};
use super::record::Place;
use crate::hex;

/// How many wrappings of PPP in PPP (multilink) are taken off; other wrappings are counted in [`Place::depth`].
const MAX_DEPTH: usize = 8;

/// What can be said of a packet that was read: a line, and fields.
type Said = (String, Value);

impl Decoder {
    /// A PPP frame, with or without address, control and compressed protocol field.
    pub(super) fn ppp(&mut self, place: &Place, frame: &[u8]) {
        let Some((number, packet)) = strip(frame) else {
            let why = DecodeError::Truncated("PPP protocol", 2_usize.saturating_sub(frame.len()).max(1));
            return self.malformed(place, "PPP", why, String::new(), json!({ "length": frame.len() }));
        };
        let kind = Protocol(number);
        match kind {
            Protocol::LCP => self.control(place, "LCP", kind, packet),
            Protocol::IPCP => self.control(place, "IPCP", kind, packet),
            Protocol::IPV6CP => self.control(place, "IPV6CP", kind, packet),
            Protocol::CCP => self.control(place, "CCP", kind, packet),
            Protocol::ECP | Protocol::MPLSCP | Protocol::ACSCP | Protocol::BACP => {
                self.control(place, kind.name().unwrap_or("PPP"), kind, packet);
            }
            Protocol::PAP => self.pap(place, packet),
            Protocol::CHAP => self.chap(place, packet),
            Protocol::EAP => self.eap(place, packet),
            Protocol::IPV4 | Protocol::IPV6 => {
                let (summary, fields) = ip_line(kind, packet);
                self.emit(place, "PPP", summary, fields);
                self.ip(place.clone(), packet);
            }
            Protocol::MULTILINK => self.multilink(place, packet),
            _ => {
                let name = match kind {
                    Protocol::COMPRESSED => "compressed or encrypted (MPPE)".to_owned(),
                    _ => kind.name().map_or_else(|| format!("protocol {number:#06x}"), str::to_owned),
                };
                let fields = json!({ "protocol": number, "name": kind.name(), "length": packet.len() });
                self.emit(place, "PPP", format!("{name}, {} bytes", packet.len()), fields);
            }
        }
    }

    /// Long sequence numbers of RFC 1990 §3: `| B E 000000 | sequence (24) |`. A fragment that is a whole packet is opened.
    fn multilink(&mut self, place: &Place, packet: &[u8]) {
        let Some((&[flags, a, b, c], rest)) = packet.split_first_chunk::<4>() else {
            let why = DecodeError::Truncated("multilink header", 4_usize.saturating_sub(packet.len()));
            return self.malformed(place, "PPP", why, "MULTILINK".to_owned(), Value::Null);
        };
        let sequence = u32::from_be_bytes([0, a, b, c]);
        let (begin, end) = (flags & 0x80 != 0, flags & 0x40 != 0);
        let fields = json!({ "sequence": sequence, "begin": begin, "end": end, "length": rest.len() });
        if begin && end && place.depth < MAX_DEPTH && !rest.is_empty() {
            let mut inner = place.within("multilink", Some(format!("multilink {sequence}")), fields);
            inner.depth += 1;
            return self.ppp(&inner, rest);
        }
        self.emit(place, "PPP", format!("MULTILINK sequence {sequence}, {} bytes", rest.len()), fields);
    }

    /// A packet of LCP or of a network control protocol (RFC 1661 §5).
    fn control(&mut self, place: &Place, name: &'static str, kind: Protocol, bytes: &[u8]) {
        let packet = match ControlPacket::parse(bytes) {
            Ok(packet) => packet,
            Err(e) => return self.malformed_packet(place, name, bytes, e),
        };
        let code = Code(packet.code);
        let head = format!("{} id {}", words(code.name(), packet.code), packet.identifier);
        match control_content(kind, code, packet.data) {
            Ok((text, content)) => {
                let summary = if text.is_empty() { head } else { format!("{head}: {text}") };
                let fields = fields(&packet, &words(code.name(), packet.code), content);
                self.emit(place, name, summary, fields);
            }
            Err(e) => {
                let content = json!({ "data": hex::lower(packet.data) });
                self.malformed(place, name, e, head.clone(), fields(&packet, &head, content));
            }
        }
    }

    fn malformed_packet(&mut self, place: &Place, name: &'static str, bytes: &[u8], why: DecodeError) {
        let summary = match bytes {
            [code, id, ..] if !matches!(name, "PAP" | "CHAP" | "EAP") => {
                format!("{} id {id}", words(Code(*code).name(), *code))
            }
            [code, id, ..] => format!("code {code} id {id}"),
            _ => String::new(),
        };
        self.malformed(place, name, why, summary, json!({ "length": bytes.len() }));
    }

    fn pap(&mut self, place: &Place, bytes: &[u8]) {
        let packet = match ControlPacket::parse(bytes) {
            Ok(packet) => packet,
            Err(e) => return self.malformed_packet(place, "PAP", bytes, e),
        };
        let code = match PapCode(packet.code) {
            PapCode::REQUEST => "Authenticate-Request",
            PapCode::ACK => "Authenticate-Ack",
            PapCode::NAK => "Authenticate-Nak",
            _ => "unknown code",
        };
        let (text, content) = match Pap::parse(&packet) {
            Ok(Pap::Request { user, password }) => {
                let shown = self.show_secrets.then(|| printable(password.as_bytes()));
                let text = format!("user {:?} password {}", printable(&user), quoted_or_hidden(shown.as_deref()));
                (text, json!({ "user": printable(&user), "password": shown }))
            }
            Ok(Pap::Ack(message) | Pap::Nak(message)) => said(&message),
            Err(e) => {
                let head = format!("{code} id {}", packet.identifier);
                return self.malformed(place, "PAP", e, head, fields(&packet, code, json!({})));
            }
        };
        self.emit_packet(place, "PAP", &packet, code, text, content);
    }

    fn chap(&mut self, place: &Place, bytes: &[u8]) {
        let packet = match ControlPacket::parse(bytes) {
            Ok(packet) => packet,
            Err(e) => return self.malformed_packet(place, "CHAP", bytes, e),
        };
        let code = match ChapCode(packet.code) {
            ChapCode::CHALLENGE => "Challenge",
            ChapCode::RESPONSE => "Response",
            ChapCode::SUCCESS => "Success",
            ChapCode::FAILURE => "Failure",
            ChapCode::CHANGE_PASSWORD => "Change-Password",
            _ => "unknown code",
        };
        let (text, content) = match Chap::parse(&packet) {
            Ok(Chap::Challenge { value, name }) => {
                let text = format!("from {:?}, value {}", printable(&name), hex::lower(&value));
                (text, json!({ "name": printable(&name), "value": hex::lower(&value) }))
            }
            Ok(Chap::Response { value, name }) => self.chap_response(&value, &name),
            Ok(Chap::Success(message)) => said(&message),
            Ok(Chap::Failure(message)) => {
                let (text, mut content) = said(&message);
                if message.starts_with(b"E=") {
                    let failure = MsChapFailure::parse(&message);
                    content["error"] = json!(failure.error);
                    content["retry"] = json!(failure.retry);
                }
                (text, content)
            }
            Err(e) => {
                let head = format!("{code} id {}", packet.identifier);
                return self.malformed(place, "CHAP", e, head, fields(&packet, code, json!({})));
            }
        };
        self.emit_packet(place, "CHAP", &packet, code, text, content);
    }

    /// A response is no password, but it can be tried against a dictionary.
    fn chap_response(&self, value: &[u8], name: &[u8]) -> Said {
        let user = printable(name);
        let method = match MsChapV2Response::parse(value) {
            Ok(_) => "MS-CHAPv2",
            Err(_) if value.len() == 16 => "MD5",
            Err(_) => "unknown",
        };
        let shown = self.show_secrets.then(|| hex::lower(value));
        let text = match &shown {
            Some(value) => format!("user {user:?}, {method} value {value}"),
            None => format!("user {user:?}, {method} value of {} bytes", value.len()),
        };
        (text, json!({ "name": user, "method": method, "value_length": value.len(), "value": shown }))
    }

    /// EAP, RFC 3748 §4: code, identifier, length, and in requests and responses a type.
    fn eap(&mut self, place: &Place, bytes: &[u8]) {
        const CODES: [&str; 4] = ["Request", "Response", "Success", "Failure"];
        let packet = match ControlPacket::parse(bytes) {
            Ok(packet) => packet,
            Err(e) => return self.malformed_packet(place, "EAP", bytes, e),
        };
        let code =
            usize::from(packet.code).checked_sub(1).and_then(|i| CODES.get(i)).copied().unwrap_or("unknown code");
        let (text, content) = match (packet.code, packet.data.split_first()) {
            (1 | 2, Some((kind, data))) => {
                let name = eap_type(*kind);
                // With these methods the response is a password.
                let hidden = packet.code == 2 && matches!(kind, 5 | 6) && !self.show_secrets;
                let text = match kind {
                    1 | 2 if !data.is_empty() => format!("{name} {:?}", printable(data)),
                    _ => format!("{name}, {} bytes", data.len()),
                };
                let data = (!hidden).then(|| hex::lower(data));
                (text, json!({ "eap_type": kind, "eap_type_name": name, "data": data }))
            }
            _ => (String::new(), json!({})),
        };
        self.emit_packet(place, "EAP", &packet, code, text, content);
    }

    fn emit_packet(
        &mut self,
        place: &Place,
        protocol: &'static str,
        packet: &ControlPacket<'_>,
        code: &str,
        text: String,
        content: Value,
    ) {
        let mut summary = format!("{code} id {}", packet.identifier);
        if !text.is_empty() {
            summary.push_str(": ");
            summary.push_str(&text);
        }
        self.emit(place, protocol, summary, fields(packet, code, content));
    }
}

/// The fields that every packet has, and those of its content.
fn fields(packet: &ControlPacket<'_>, code: &str, content: Value) -> Value {
    let mut all = json!({
        "code": packet.code, "name": code, "identifier": packet.identifier, "length": packet.data.len() + 4,
    });
    if let (Value::Object(all), Value::Object(content)) = (&mut all, content) {
        all.extend(content);
    }
    all
}

/// `CONFIGURE_REQUEST` as RFC 1661 writes it: `Configure-Request`.
fn words(name: Option<&str>, code: u8) -> String {
    let Some(name) = name else { return format!("code {code}") };
    let word = |w: &str| {
        let (first, rest) = w.split_at_checked(1).unwrap_or((w, ""));
        format!("{first}{}", rest.to_ascii_lowercase())
    };
    name.split('_').map(word).collect::<Vec<_>>().join("-")
}

/// What stands behind the header of a control packet.
fn control_content(kind: Protocol, code: Code, data: &[u8]) -> Result<Said, DecodeError> {
    let mut r = Reader::new(data);
    Ok(match code {
        Code::CONFIGURE_REQUEST | Code::CONFIGURE_ACK | Code::CONFIGURE_NAK | Code::CONFIGURE_REJECT => {
            let options = ConfigOption::parse_all(data)?;
            let shown: Vec<(String, Value)> = options.iter().map(|o| option(kind, o)).collect();
            let text: Vec<&str> = shown.iter().map(|(text, _)| text.as_str()).collect();
            let text = text.join(" ");
            (text, json!({ "options": shown.iter().map(|(_, fields)| fields).collect::<Vec<_>>() }))
        }
        Code::TERMINATE_REQUEST | Code::TERMINATE_ACK => {
            let reason = terminate_reason(data);
            (reason.clone().unwrap_or_default(), json!({ "reason": reason, "data": hex::lower(data) }))
        }
        Code::CODE_REJECT => {
            let rejected = data.first().map(|code| words(Code(*code).name(), *code));
            (rejected.clone().unwrap_or_default(), json!({ "rejected": rejected, "data": hex::lower(data) }))
        }
        Code::PROTOCOL_REJECT if kind == Protocol::LCP => {
            let rejected = Protocol(r.u16("rejected protocol")?);
            let fields = json!({ "rejected": rejected.to_string(), "rejected_number": rejected.0, "data": hex::lower(r.rest()) });
            (rejected.name().map_or_else(|| format!("{:#06x}", rejected.0), str::to_owned), fields)
        }
        Code::ECHO_REQUEST | Code::ECHO_REPLY | Code::DISCARD_REQUEST if kind == Protocol::LCP => {
            let magic = r.u32("magic number")?;
            let fields = json!({ "magic": format!("{magic:08x}"), "data": hex::lower(r.peek()) });
            (format!("magic {magic:08x}, {} bytes", r.len()), fields)
        }
        Code::IDENTIFICATION if kind == Protocol::LCP => {
            let magic = r.u32("magic number")?;
            let message = printable_or_hex(r.rest());
            (format!("magic {magic:08x} {message}"), json!({ "magic": format!("{magic:08x}"), "message": message }))
        }
        Code::TIME_REMAINING if kind == Protocol::LCP => {
            let (magic, seconds) = (r.u32("magic number")?, r.u32("seconds remaining")?);
            (format!("{seconds} s"), json!({ "magic": format!("{magic:08x}"), "seconds": seconds }))
        }
        _ => (format!("{} bytes", data.len()), json!({ "data": hex::lower(data) })),
    })
}

/// An option as `NAME=value`, and its fields.
fn option(kind: Protocol, option: &ConfigOption) -> Said {
    let data = hex::lower(&option.data);
    let plain = |name: String| if data.is_empty() { name } else { format!("{name}={data}") };
    let (name, text) = match kind {
        Protocol::LCP => (LcpKind(option.kind).to_string(), LcpOption::parse(option).to_string()),
        Protocol::IPCP => (IpcpKind(option.kind).to_string(), IpcpOption::parse(option).to_string()),
        Protocol::IPV6CP => {
            let name = Ipv6cpKind(option.kind).to_string();
            (name.clone(), plain(name))
        }
        Protocol::CCP => {
            let name = CcpKind(option.kind).to_string();
            let text = match (CcpKind(option.kind), option.data.as_slice()) {
                (CcpKind::MPPE, [a, b, c, d]) => {
                    let bits = u32::from_be_bytes([*a, *b, *c, *d]);
                    format!("MPPE={bits:08x} ({})", if bits == 0 { "none".to_owned() } else { mppe_words(bits) })
                }
                _ => plain(name.clone()),
            };
            (name, text)
        }
        _ => (option.kind.to_string(), plain(option.kind.to_string())),
    };
    (text.clone(), json!({ "type": option.kind, "name": name, "text": text, "data": data }))
}

/// A message of the peer, for people.
fn said(message: &[u8]) -> Said {
    let text = printable(message);
    let shown = if text.is_empty() { String::new() } else { format!("{text:?}") };
    (shown, json!({ "message": text }))
}

fn quoted_or_hidden(secret: Option<&str>) -> String {
    secret.map_or_else(|| "(not shown)".to_owned(), |s| format!("{s:?}"))
}

/// Octets that are meant as text. Control characters are written out when the line is printed.
fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').chars().take(256).collect()
}

/// Text if it is text, digits otherwise: the third Identification of Windows is a GUID.
fn printable_or_hex(bytes: &[u8]) -> String {
    if !bytes.is_empty() && bytes.iter().all(|b| (0x20..0x7f).contains(b)) {
        format!("{:?}", printable(bytes))
    } else {
        hex::lower(bytes)
    }
}

/// IANA "EAP Method Types" that are met with PPP.
fn eap_type(kind: u8) -> String {
    let name = match kind {
        1 => "Identity",
        2 => "Notification",
        3 => "Nak",
        4 => "MD5-Challenge",
        5 => "OTP",
        6 => "GTC",
        13 => "TLS",
        21 => "TTLS",
        25 => "PEAP",
        26 => "MS-CHAPv2",
        254 => "expanded",
        other => return format!("type {other}"),
    };
    name.to_owned()
}

/// What is shown of an IP packet.
struct IpHeader {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    ports: Option<(u16, u16)>,
}

impl IpHeader {
    fn parse(version: u8, packet: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(packet);
        let (source, destination, number): (IpAddr, IpAddr, u8);
        let mut first = true;
        if version == 4 {
            let header_len = usize::from(r.u8("header length")? & 15) * 4;
            r.skip("header", 5)?;
            first = r.u16("fragment")? & 0x1fff == 0;
            r.skip("header", 1)?;
            number = r.u8("protocol")?;
            r.skip("checksum", 2)?;
            source = Ipv4Addr::from(r.array::<4>("source")?).into();
            destination = Ipv4Addr::from(r.array::<4>("destination")?).into();
            r.skip("options", header_len.saturating_sub(20))?;
        } else {
            r.skip("header", 6)?;
            number = r.u8("next header")?;
            r.skip("header", 1)?;
            source = Ipv6Addr::from(r.array::<16>("source")?).into();
            destination = Ipv6Addr::from(r.array::<16>("destination")?).into();
        }
        let has_ports = matches!(number, protocol::UDP | protocol::TCP) && first;
        let ports = if has_ports { r.u16("port").ok().zip(r.u16("port").ok()) } else { None };
        Ok(Self { source, destination, protocol: number, ports })
    }
}

/// An IP packet in a line: addresses, and ports where they are.
fn ip_line(kind: Protocol, packet: &[u8]) -> Said {
    let version = if kind == Protocol::IPV4 { 4 } else { 6 };
    let length = packet.len();
    let Ok(IpHeader { source, destination, protocol: number, ports }) = IpHeader::parse(version, packet) else {
        let fields = json!({ "ip_version": version, "length": length });
        return (format!("IPv{version} packet cut off, {length} bytes"), fields);
    };
    let mut line = format!("IPv{version} {source} → {destination} ");
    line.push_str(&match number {
        protocol::ICMP => "ICMP".to_owned(),
        protocol::TCP => "TCP".to_owned(),
        protocol::UDP => "UDP".to_owned(),
        protocol::ICMPV6 => "ICMPv6".to_owned(),
        other => format!("protocol {other}"),
    });
    if let Some((from, to)) = ports {
        line.push_str(&format!(" {from} → {to}"));
    }
    line.push_str(&format!(", {length} bytes"));
    let fields = json!({
        "ip_version": version, "source": source.to_string(), "destination": destination.to_string(),
        "ip_protocol": number, "source_port": ports.map(|p| p.0), "destination_port": ports.map(|p| p.1),
        "length": length,
    });
    (line, fields)
}
