//! From a captured frame to what carries the messages: links, VLANs, PPPoE, IP with its extension headers and fragments,
//! GRE. Nothing is believed about lengths, and every wrapping is counted, so that no frame costs more than a bounded
//! number of steps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sallyport_base::{DecodeError, Reader};
use serde_json::{Value, json};

use super::Raw;
use super::capture::Frame;
use super::demux::Conversations;
use super::reassembly::{Fragment, Key, Partial, Reassembly};
use super::record::{End, Place, Record};

/// How many wrappings are taken off at most.
const MAX_DEPTH: usize = 8;
/// How many VLAN tags, and MPLS labels, stand before a packet at most.
const MAX_TAGS: usize = 4;
/// How many extension headers one IPv6 packet has at most.
const MAX_EXTENSIONS: usize = 16;
/// How many kinds of links are remembered for the warning that they were passed over.
const MAX_LINKS: usize = 64;

/// Internet protocol numbers.
pub(super) mod protocol {
    pub(crate) const ICMP: u8 = 1;
    pub(crate) const IPIP: u8 = 4;
    pub(crate) const TCP: u8 = 6;
    pub(crate) const UDP: u8 = 17;
    pub(crate) const IPV6: u8 = 41;
    pub(crate) const GRE: u8 = 47;
    pub(crate) const ESP: u8 = 50;
    pub(crate) const AH: u8 = 51;
    pub(crate) const ICMPV6: u8 = 58;
}

/// Finds the messages in frames. It remembers what later frames need: fragments and conversations.
#[derive(Default)]
pub(super) struct Decoder {
    /// Whether passwords may be printed.
    pub(super) show_secrets: bool,
    /// What was found and not taken yet.
    pub(super) records: Vec<Record>,
    pub(super) conversations: Conversations,
    /// Next sequence number of each direction of a PPTP control connection.
    pub(super) tcp: BTreeMap<(SocketAddr, SocketAddr), u32>,
    reassembly: Reassembly,
    unknown_links: BTreeSet<u32>,
}

impl Decoder {
    /// A decoder that has seen nothing yet; `show_secrets` says whether passwords may be printed.
    pub(super) fn new(show_secrets: bool) -> Self {
        Self { show_secrets, ..Self::default() }
    }

    /// Finds the messages of a frame; they are in [`Decoder::records`] then.
    pub(super) fn frame(&mut self, frame: &Frame) {
        let cut = (frame.data.len() < frame.original_len).then_some((frame.data.len(), frame.original_len));
        let place = Place { frame: frame.number, time: frame.time, cut, ..Place::default() };
        self.link(frame.link, place, &frame.data);
    }

    /// Decodes one bare message, as of frame 1.
    pub(super) fn raw(&mut self, raw: Raw, bytes: &[u8]) {
        let place = Place { frame: 1, ..Place::default() };
        match raw {
            Raw::Ike => match bytes.strip_prefix(&[0; 4]) {
                // Four zero bytes are the non-ESP marker, unless an odd initiator's cookie begins so.
                Some(ike) if !super::demux::claims_its_length(bytes) => self.ike(&place, ike, true),
                _ => self.ike(&place, bytes, false),
            },
            Raw::Esp => self.esp(&place, bytes, None),
            Raw::L2tp => self.l2tp(&place, bytes),
            Raw::Ppp => self.ppp(&place, bytes),
            Raw::Ip => self.ip(place, bytes),
            Raw::Ethernet => self.ethernet(place, bytes),
        }
    }

    /// The end of the capture: says what is still incomplete.
    pub(super) fn finish(&mut self) {
        for (key, partial) in self.reassembly.finish() {
            self.incomplete(&key, &partial);
        }
    }

    /// Link types of frames that could not be opened.
    pub(super) fn unknown_links(&self) -> impl Iterator<Item = u32> {
        self.unknown_links.iter().copied()
    }

    /// Adds a message.
    pub(super) fn emit(&mut self, place: &Place, protocol: &'static str, summary: String, fields: Value) {
        let place = place.clone();
        self.records.push(Record { place, protocol, summary, malformed: None, fields });
    }

    /// Adds a message that cannot be read. `summary` says what could be.
    pub(super) fn malformed(
        &mut self,
        place: &Place,
        protocol: &'static str,
        why: impl ToString,
        summary: String,
        fields: Value,
    ) {
        let why = match place.cut {
            Some((kept, sent)) => format!("the capture kept {kept} of {sent} bytes of the frame"),
            None => why.to_string(),
        };
        self.records.push(Record { place: place.clone(), protocol, summary, malformed: Some(why), fields });
    }

    fn link(&mut self, link: u32, mut place: Place, data: &[u8]) {
        match link {
            0 => self.null(place, data, u32::from_le_bytes),
            108 => self.null(place, data, u32::from_be_bytes),
            1 => self.ethernet(place, data),
            // PPP, in HDLC-like framing or without; Cisco's HDLC tells itself by its address.
            9 | 50 | 104 => match data {
                [0x0f | 0x8f, _, kind @ ..] => self.ethertype_and_rest(place, kind),
                _ => self.ppp(&place, data),
            },
            51 => self.pppoe(&place, data),
            // The address field says the direction: 1 is sent by the capturing host.
            166 => {
                if let Some((direction, frame)) = data.split_first() {
                    (place.source, place.destination) = ends_of_link(*direction == 1);
                    self.ppp(&place, frame.strip_prefix(&[3]).unwrap_or(frame));
                }
            }
            204 => {
                if let Some((direction, frame)) = data.split_first() {
                    (place.source, place.destination) = ends_of_link(*direction != 0);
                    self.ppp(&place, frame);
                }
            }
            12 | 14 | 101 | 228 | 229 => self.ip(place, data),
            // Linux cooked: 16 bytes, protocol at the end; version 2: 20 bytes, protocol in front.
            113 => {
                if let Some((head, rest)) = data.split_first_chunk::<16>() {
                    self.ethertype(place, u16::from_be_bytes([head[14], head[15]]), rest);
                }
            }
            276 => {
                if let Some((head, rest)) = data.split_first_chunk::<20>() {
                    self.ethertype(place, u16::from_be_bytes([head[0], head[1]]), rest);
                }
            }
            // OpenBSD's enc(4): family, SPI, flags; what follows is the packet inside IPsec.
            109 => self.ip(place, data.get(12..).unwrap_or_default()),
            239 => self.nflog(place, data),
            other => {
                if self.unknown_links.len() < MAX_LINKS {
                    self.unknown_links.insert(other);
                }
            }
        }
    }

    /// BSD loopback: an address family in somebody's byte order. The packet itself says which it is.
    fn null(&mut self, place: Place, data: &[u8], order: fn([u8; 4]) -> u32) {
        if let Some((family, packet)) = data.split_first_chunk::<4>() {
            let family = order(*family);
            if family <= 0xff || family.swap_bytes() <= 0xff {
                self.ip(place, packet);
            }
        }
    }

    /// Netfilter's log: family, version, resource, then attributes; number 9 is the packet.
    fn nflog(&mut self, place: Place, data: &[u8]) {
        let mut rest = data.get(4..).unwrap_or_default();
        while let Some((head, _)) = rest.split_first_chunk::<4>() {
            let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
            let kind = u16::from_ne_bytes([head[2], head[3]]);
            let Some(value) = rest.get(4..len) else { return };
            if kind & 0x7fff == 9 {
                return self.ip(place, value);
            }
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
    }

    fn ethernet(&mut self, mut place: Place, data: &[u8]) {
        let mut r = Reader::new(data);
        let (Ok(destination), Ok(source)) = (r.array::<6>("destination"), r.array::<6>("source")) else { return };
        (place.source, place.destination) = (End::Mac(source), End::Mac(destination));
        place.depth += 1;
        if place.depth <= MAX_DEPTH {
            self.ethertype_and_rest(place, r.rest());
        }
    }

    fn ethertype_and_rest(&mut self, place: Place, data: &[u8]) {
        if let Some((kind, rest)) = data.split_first_chunk::<2>() {
            self.ethertype(place, u16::from_be_bytes(*kind), rest);
        }
    }

    fn ethertype(&mut self, mut place: Place, mut kind: u16, mut data: &[u8]) {
        let mut tags = Vec::new();
        while matches!(kind, 0x8100 | 0x88a8 | 0x9100) && tags.len() < MAX_TAGS {
            let Some((head, rest)) = data.split_first_chunk::<4>() else { return };
            tags.push(u16::from_be_bytes([head[0], head[1]]) & 0x0fff);
            kind = u16::from_be_bytes([head[2], head[3]]);
            data = rest;
        }
        if !tags.is_empty() {
            place.around.insert("vlan".to_owned(), json!(tags));
        }
        match kind {
            0x0800 | 0x86dd => self.ip(place, data),
            0x8864 => self.pppoe(&place, data),
            0x880b => self.ppp(&place, data),
            0x8847 | 0x8848 => {
                for _ in 0..MAX_TAGS {
                    let Some((label, rest)) = data.split_first_chunk::<4>() else { return };
                    data = rest;
                    if label[2] & 1 == 1 {
                        return self.ip(place, data); // bottom of the stack
                    }
                }
            }
            // IEEE 802.3: a length, then LLC; SNAP has an Ethertype again.
            0..0x0600 => {
                if let [0xaa, 0xaa, 3, 0, 0, 0, rest @ ..] = data {
                    place.depth += 1;
                    if place.depth <= MAX_DEPTH {
                        self.ethertype_and_rest(place, rest);
                    }
                }
            }
            _ => {}
        }
    }

    /// PPPoE session stage, RFC 2516 §4: `| ver type (8) | code (8) | session (16) | length (16) | PPP ... |`
    fn pppoe(&mut self, place: &Place, data: &[u8]) {
        let Some((head, rest)) = data.split_first_chunk::<6>() else { return };
        let [0x11, 0, s0, s1, l0, l1] = *head else { return };
        let session = u16::from_be_bytes([s0, s1]);
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        let frame = rest.get(..len).unwrap_or(rest);
        let text = format!("PPPoE {session}");
        self.ppp(&place.within("pppoe", Some(text), json!({ "session": session })), frame);
    }

    /// An IP packet of either version. It may be followed by padding.
    pub(super) fn ip(&mut self, mut place: Place, data: &[u8]) {
        place.depth += 1;
        if place.depth > MAX_DEPTH {
            return;
        }
        // What is no IP packet is nobody's message here: there is no line about it.
        let _ = match data.first().map(|b| b >> 4) {
            Some(4) => self.ipv4(place, data),
            Some(6) => self.ipv6(place, data),
            _ => Ok(()),
        };
    }

    fn ipv4(&mut self, mut place: Place, data: &[u8]) -> Result<(), DecodeError> {
        let mut r = Reader::new(data);
        let header_len = usize::from(r.u8("version and header length")? & 15) * 4;
        r.skip("type of service", 1)?;
        let total = usize::from(r.u16("total length")?);
        let id = r.u16("identification")?;
        let fragment = r.u16("fragment")?;
        r.skip("time to live", 1)?;
        let number = r.u8("protocol")?;
        r.skip("checksum", 2)?;
        let source = IpAddr::V4(Ipv4Addr::from(r.array::<4>("source")?));
        let destination = IpAddr::V4(Ipv4Addr::from(r.array::<4>("destination")?));
        r.skip("options", header_len.saturating_sub(20))?;
        // Zero is what a segmenting network card is given.
        let total = if total == 0 { data.len() } else { total };
        let payload_len = total.checked_sub(header_len.max(20)).ok_or(DecodeError::Length("IPv4 packet", total))?;
        let payload = r.rest();
        let payload = payload.get(..payload_len).unwrap_or(payload);
        (place.source, place.destination) = (End::Ip(source), End::Ip(destination));
        let (offset, more) = (usize::from(fragment & 0x1fff) * 8, fragment & 0x2000 != 0);
        if offset != 0 || more {
            let key = Key { source, destination, id: id.into(), protocol: number, depth: place.depth };
            let fragment = Fragment { offset, more, protocol: number, data: payload };
            self.fragment(place, key, fragment, payload.len() == payload_len);
            return Ok(());
        }
        self.transport(place, number, payload);
        Ok(())
    }

    fn ipv6(&mut self, mut place: Place, data: &[u8]) -> Result<(), DecodeError> {
        let mut r = Reader::new(data);
        r.skip("version, class and flow", 4)?;
        let len = usize::from(r.u16("payload length")?);
        let mut next = r.u8("next header")?;
        r.skip("hop limit", 1)?;
        let source = IpAddr::V6(Ipv6Addr::from(r.array::<16>("source")?));
        let destination = IpAddr::V6(Ipv6Addr::from(r.array::<16>("destination")?));
        let rest = r.rest();
        let whole = len == 0 || rest.len() >= len;
        // Zero is a jumbogram, or what a segmenting network card is given.
        let mut r = Reader::new(if len == 0 { rest } else { rest.get(..len).unwrap_or(rest) });
        (place.source, place.destination) = (End::Ip(source), End::Ip(destination));
        for _ in 0..MAX_EXTENSIONS {
            match next {
                // Hop-by-hop, routing, destination options, mobility, HIP, shim6: `| next (8) | length (8) | ... |`
                0 | 43 | 60 | 135 | 139 | 140 => {
                    next = r.u8("next header")?;
                    let units = usize::from(r.u8("extension length")?);
                    r.skip("extension header", units * 8 + 6)?;
                }
                44 => {
                    let number = r.u8("next header")?;
                    r.skip("reserved", 1)?;
                    let field = r.u16("fragment offset")?;
                    let id = r.u32("identification")?;
                    let (offset, more) = (usize::from(field & 0xfff8), field & 1 != 0);
                    if offset == 0 && !more {
                        next = number;
                        continue;
                    }
                    let key = Key { source, destination, id, protocol: 0, depth: place.depth };
                    self.fragment(place, key, Fragment { offset, more, protocol: number, data: r.rest() }, whole);
                    return Ok(());
                }
                _ => {
                    self.transport(place, next, r.rest());
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// A fragment of which the capture kept everything (`whole`) or not: then the datagram can never be put together, and
    /// the first fragment is shown as far as it goes.
    fn fragment(&mut self, place: Place, key: Key, fragment: Fragment<'_>, whole: bool) {
        if !whole {
            if fragment.offset == 0 {
                self.transport(place, fragment.protocol, fragment.data);
            }
            return;
        }
        let added = self.reassembly.add(key, fragment, place.frame, place.time);
        for (key, partial) in added.given_up {
            self.incomplete(&key, &partial);
        }
        if let Some((number, data)) = added.whole {
            self.transport(place, number, &data);
        }
    }

    /// A datagram of ours whose fragments did not all arrive: a firewall that drops fragments is a common cause of VPN
    /// trouble, so it has a line of its own.
    fn incomplete(&mut self, key: &Key, partial: &Partial) {
        let start = partial.start().unwrap_or_default();
        let ports = match start {
            [a, b, c, d, ..] if partial.protocol == protocol::UDP => {
                Some((u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])))
            }
            _ => None,
        };
        let ours = match ports {
            Some((from, to)) => super::demux::is_vpn_port(from) || super::demux::is_vpn_port(to),
            None => matches!(partial.protocol, protocol::ESP | protocol::AH),
        };
        if !ours {
            return;
        }
        let mut place = Place { frame: partial.frame, ..Place::default() };
        (place.source, place.destination) = (End::Ip(key.source), End::Ip(key.destination));
        if let Some((from, to)) = ports {
            (place.source, place.destination) = (place.source.with_port(from), place.destination.with_port(to));
        }
        let total = partial.total();
        let expected = total.map_or_else(|| "an unknown number".to_owned(), |n| n.to_string());
        let why = format!("IP fragments are missing: {} of {expected} bytes arrived", partial.len());
        self.malformed(
            &place,
            "IP",
            why,
            String::new(),
            json!({ "bytes": partial.len(), "total": total, "id": key.id }),
        );
    }

    /// What an IP packet carries.
    pub(super) fn transport(&mut self, place: Place, number: u8, data: &[u8]) {
        match number {
            protocol::UDP => self.udp(place, data),
            protocol::TCP => self.tcp_segment(place, data),
            protocol::ESP => self.esp(&place, data, None),
            protocol::AH => self.ah(place, data),
            protocol::GRE => {
                let _ = self.gre(&place, data);
            }
            protocol::IPIP | protocol::IPV6 => self.ip(place, data),
            _ => {}
        }
    }

    /// Authentication Header, RFC 4302 §2: `| next (8) | length (8) | reserved (16) | SPI (32) | seq (32) | ICV ... |`
    fn ah(&mut self, mut place: Place, data: &[u8]) {
        let mut r = Reader::new(data);
        let mut parse = || {
            let next = r.u8("next header")?;
            let words = usize::from(r.u8("payload length")?);
            r.skip("reserved", 2)?;
            let (spi, seq) = (r.u32("SPI")?, r.u32("sequence number")?);
            // In words of 32 bits, less two; three have been read.
            let icv = (words + 2).checked_sub(3).ok_or(DecodeError::Length("AH", words))? * 4;
            r.skip("ICV", icv)?;
            Ok::<_, DecodeError>((next, spi, seq, icv))
        };
        match parse() {
            Ok((next, spi, seq, icv)) => {
                let fields = json!({ "spi": format!("{spi:08x}"), "seq": seq, "icv_length": icv, "next_header": next });
                self.emit(&place, "AH", format!("spi {spi:08x} seq {seq}, carries protocol {next}"), fields);
                place.depth += 1;
                if place.depth <= MAX_DEPTH {
                    self.transport(place, next, r.rest());
                }
            }
            Err(e) => self.malformed(&place, "AH", e, String::new(), Value::Null),
        }
    }

    /// GRE, RFC 2784 and 2890, and its version 1 of PPTP, RFC 2637 §4.1.
    fn gre(&mut self, place: &Place, data: &[u8]) -> Result<(), DecodeError> {
        let mut r = Reader::new(data);
        let flags = r.u16("GRE flags")?;
        let kind = r.u16("GRE protocol")?;
        let has = |bit: u16| flags & bit != 0;
        if flags & 7 == 1 {
            let len = usize::from(r.u16("GRE payload length")?);
            let call = r.u16("GRE call id")?;
            let seq = if has(0x1000) { Some(r.u32("GRE sequence number")?) } else { None };
            let ack = if has(0x0080) { Some(r.u32("GRE acknowledgement")?) } else { None };
            let rest = r.rest();
            // Without a sequence number it is a bare acknowledgement.
            if kind == 0x880b && seq.is_some() {
                let fields = json!({ "version": 1, "call": call, "seq": seq, "ack": ack });
                let inner = place.within("gre", Some(format!("GRE call {call}")), fields);
                self.ppp(&inner, rest.get(..len).unwrap_or(rest));
            }
            return Ok(());
        }
        if flags & 7 != 0 || has(0x4000) {
            return Ok(()); // no known version, or source routes, which nobody sends
        }
        r.skip("GRE checksum", if has(0x8000) { 4 } else { 0 })?;
        let key = if has(0x2000) { Some(r.u32("GRE key")?) } else { None };
        let seq = if has(0x1000) { Some(r.u32("GRE sequence number")?) } else { None };
        let mut inner = place.within("gre", Some("GRE".to_owned()), json!({ "version": 0, "key": key, "seq": seq }));
        inner.depth += 1;
        if inner.depth <= MAX_DEPTH {
            match kind {
                0x6558 => self.ethernet(inner, r.rest()),
                _ => self.ethertype(inner, kind, r.rest()),
            }
        }
        Ok(())
    }
}

/// Source and destination of a frame of a PPP link whose direction is known.
const fn ends_of_link(sent: bool) -> (End, End) {
    if sent { (End::Local, End::Peer) } else { (End::Peer, End::Local) }
}
