//! PPP frames: control protocols as lines with their options, authentication without its secrets, packets by what is in
//! them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sallyport_base::{DecodeError, Reader};
use sallyport_ppp::auth::{Chap, MsChapFailure, MsChapV2Response, Pap};
use sallyport_ppp::decode::{Body, Frame, Packet};
use sallyport_ppp::packet::{Code, ControlPacket};
use sallyport_ppp::{Protocol, strip};
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
            Protocol::LCP
            | Protocol::IPCP
            | Protocol::IPV6CP
            | Protocol::CCP
            | Protocol::ECP
            | Protocol::MPLSCP
            | Protocol::ACSCP
            | Protocol::PAP
            | Protocol::CHAP => self.control(place, kind, packet),
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

    /// A packet of LCP, of a network control protocol (RFC 1661 §5), of PAP or of CHAP.
    fn control(&mut self, place: &Place, kind: Protocol, bytes: &[u8]) {
        let name = kind.name().unwrap_or("PPP");
        let head = match bytes {
            [code, id, ..] => format!("{} id {id}", code_name(kind, *code)),
            _ => String::new(),
        };
        let code = bytes.first().copied().unwrap_or_default();
        match Frame::parse_payload(kind, bytes) {
            Ok(frame) => {
                let (text, content) = match &frame.packet {
                    Packet::Control { code, body, .. } => control_body(kind, *code, body, &frame),
                    Packet::Pap { content, .. } => self.pap(content),
                    Packet::Chap { content, .. } => self.chap(content),
                    Packet::Other(_) => (String::new(), json!({})),
                };
                let summary = if text.is_empty() { head } else { format!("{head}: {text}") };
                self.emit(place, name, summary, fields(kind, code, bytes, content));
            }
            Err(e) => self.malformed(place, name, e, head, fields(kind, code, bytes, json!({}))),
        }
    }

    fn pap(&self, packet: &Pap) -> Said {
        match packet {
            Pap::Request { user, password } => {
                let shown = self.show_secrets.then(|| printable(password.as_bytes()));
                let text = format!("user {:?} password {}", printable(user), quoted_or_hidden(shown.as_deref()));
                (text, json!({ "user": printable(user), "password": shown }))
            }
            Pap::Ack(message) | Pap::Nak(message) => said(message),
        }
    }

    fn chap(&self, packet: &Chap) -> Said {
        match packet {
            Chap::Challenge { value, name } => {
                let text = format!("from {:?}, value {}", printable(name), hex::lower(value));
                (text, json!({ "from": printable(name), "value": hex::lower(value) }))
            }
            Chap::Response { value, name } => self.chap_response(value, name),
            Chap::Success(message) => said(message),
            Chap::Failure(message) => {
                let (text, mut content) = said(message);
                if message.starts_with(b"E=") {
                    let failure = MsChapFailure::parse(message);
                    content["error"] = json!(failure.error);
                    content["retry"] = json!(failure.retry);
                }
                (text, content)
            }
        }
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
        (text, json!({ "user": user, "method": method, "value_length": value.len(), "value": shown }))
    }

    /// EAP, RFC 3748 §4: code, identifier, length, and in requests and responses a type.
    fn eap(&mut self, place: &Place, bytes: &[u8]) {
        let code = bytes.first().copied().unwrap_or_default();
        let head = match bytes {
            [_, id, ..] => format!("{} id {id}", code_name(Protocol::EAP, code)),
            _ => String::new(),
        };
        let packet = match ControlPacket::parse(bytes) {
            Ok(packet) => packet,
            Err(e) => return self.malformed(place, "EAP", e, head, fields(Protocol::EAP, code, bytes, json!({}))),
        };
        let (text, content) = match (packet.code, packet.data.split_first()) {
            (1 | 2, Some((kind, data))) => {
                let name = eap_type(*kind);
                // With these methods the response is a password.
                let hidden = packet.code == 2 && matches!(kind, 5 | 6) && !self.show_secrets;
                let text = match kind {
                    1 | 2 if !data.is_empty() => format!(": {name} {:?}", printable(data)),
                    _ => format!(": {name}, {} bytes", data.len()),
                };
                let data = (!hidden).then(|| hex::lower(data));
                (text, json!({ "eap_type": kind, "eap_type_name": name, "data": data }))
            }
            _ => (String::new(), json!({})),
        };
        self.emit(place, "EAP", head + &text, fields(Protocol::EAP, code, bytes, content));
    }
}

/// The fields that every packet has, and those of its content.
fn fields(kind: Protocol, code: u8, bytes: &[u8], content: Value) -> Value {
    let mut all = json!({
        "code": code, "name": code_name(kind, code), "identifier": bytes.get(1), "length": bytes.len(),
    });
    if let (Value::Object(all), Value::Object(content)) = (&mut all, content) {
        all.extend(content);
    }
    all
}

/// The name of a code as the RFCs write it.
fn code_name(kind: Protocol, code: u8) -> String {
    const PAP: [&str; 3] = ["Authenticate-Request", "Authenticate-Ack", "Authenticate-Nak"];
    const CHAP: [&str; 4] = ["Challenge", "Response", "Success", "Failure"];
    const EAP: [&str; 4] = ["Request", "Response", "Success", "Failure"];
    let names: &[&str] = match kind {
        Protocol::PAP => &PAP,
        Protocol::CHAP => &CHAP,
        Protocol::EAP => &EAP,
        _ => return words(code),
    };
    let name = usize::from(code).checked_sub(1).and_then(|i| names.get(i));
    name.map_or_else(|| format!("code {code}"), |n| (*n).to_owned())
}

/// `CONFIGURE_REQUEST` as RFC 1661 writes it: `Configure-Request`.
fn words(code: u8) -> String {
    let Some(name) = Code(code).name() else { return format!("code {code}") };
    let word = |w: &str| {
        let (first, rest) = w.split_at_checked(1).unwrap_or((w, ""));
        format!("{first}{}", rest.to_ascii_lowercase())
    };
    name.split('_').map(word).collect::<Vec<_>>().join("-")
}

/// What a control packet says.
fn control_body(kind: Protocol, code: Code, body: &Body, frame: &Frame) -> Said {
    match body {
        Body::Options(options) => {
            // The identifier comes first among the fields, then one for each option.
            let named: Vec<(String, String)> = frame.fields().into_iter().skip(1).collect();
            let text = named.iter().map(|(name, value)| match value.as_str() {
                "yes" | "" => name.clone(),
                _ => format!("{name}={value}"),
            });
            let text = text.collect::<Vec<_>>().join(" ");
            let option = |((name, value), option): (&(String, String), &sallyport_ppp::packet::ConfigOption)| json!({ "type": option.kind, "name": name, "value": value, "data": hex::lower(&option.data) });
            let list: Vec<Value> = named.iter().zip(options).map(option).collect();
            (text, json!({ "options": list }))
        }
        Body::Reason(reason) => (reason.clone().unwrap_or_default(), json!({ "reason": reason })),
        Body::Protocol(rejected) => {
            let name = rejected.name().map_or_else(|| format!("{:#06x}", rejected.0), str::to_owned);
            (name, json!({ "rejected": rejected.to_string(), "rejected_number": rejected.0 }))
        }
        Body::Magic(magic, rest) => {
            let magic = format!("{magic:08x}");
            let fields = json!({ "magic": magic, "data": hex::lower(rest) });
            match (code, rest.as_slice()) {
                (Code::IDENTIFICATION, message) => (format!("magic {magic} {}", printable_or_hex(message)), fields),
                (Code::TIME_REMAINING, [a, b, c, d, ..]) => {
                    (format!("magic {magic}, {} s", u32::from_be_bytes([*a, *b, *c, *d])), fields)
                }
                _ => (format!("magic {magic}, {} bytes", rest.len()), fields),
            }
        }
        Body::Octets(data) => {
            let text = match (code, data.first()) {
                (Code::CODE_REJECT, Some(rejected)) => code_name(kind, *rejected),
                _ => format!("{} bytes", data.len()),
            };
            (text, json!({ "data": hex::lower(data) }))
        }
    }
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
