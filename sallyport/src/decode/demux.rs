//! What a UDP datagram, or a PPTP control connection, carries: by port, by conversation, and by looking.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

use sallyport_base::Reader;
use sallyport_esp::{EspHeader, KEEPALIVE, MIN_SPI, NON_ESP_MARKER};
use sallyport_ike::header::Header;
use sallyport_ike::{Cookie, ExchangeType};
use serde_json::{Value, json};

use super::layers::Decoder;
use super::record::{End, Place};

const IKE: u16 = 500;
const NAT_T: u16 = 4500;
const L2TP: u16 = 1701;
const PPTP: u16 = 1723;

/// How many cookies, and pairs of sockets, are remembered; the oldest are forgotten.
const MAX_REMEMBERED: usize = 4096;
/// How many PPTP control connections are followed.
const MAX_TCP: usize = 1024;

/// Well-known services whose clients may happen to have one of our ports.
const OTHER_SERVICES: &[u16] =
    &[53, 67, 68, 69, 123, 137, 138, 161, 162, 443, 514, 520, 1812, 1813, 1900, 3478, 5353, 5355];

/// Whether a port is one of IKE, NAT traversal or L2TP.
pub(super) const fn is_vpn_port(port: u16) -> bool {
    matches!(port, IKE | NAT_T | L2TP)
}

/// The conversations that were seen, so that they are followed to whatever ports a NAT gives them.
#[derive(Debug, Default)]
pub(super) struct Conversations {
    cookies: Remembered<[u8; 8]>,
    pairs: Remembered<(SocketAddr, SocketAddr)>,
}

/// A set that forgets its oldest members.
#[derive(Debug)]
struct Remembered<T> {
    set: BTreeSet<T>,
    order: VecDeque<T>,
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self { set: BTreeSet::new(), order: VecDeque::new() }
    }
}

impl<T: Ord + Copy> Remembered<T> {
    fn insert(&mut self, value: T) {
        if self.set.insert(value) {
            self.order.push_back(value);
            if self.order.len() > MAX_REMEMBERED {
                self.order.pop_front().map(|old| self.set.remove(&old));
            }
        }
    }
}

impl Conversations {
    fn note(&mut self, place: &Place, cookie: Cookie) {
        self.cookies.insert(cookie.0);
        if let (End::Socket(source), End::Socket(destination)) = (place.source, place.destination) {
            self.pairs.insert((source.min(destination), source.max(destination)));
        }
    }

    fn knows(&self, place: &Place) -> bool {
        match (place.source, place.destination) {
            (End::Socket(s), End::Socket(d)) => self.pairs.set.contains(&(s.min(d), s.max(d))),
            _ => false,
        }
    }
}

/// The header of what is an IKE message beyond doubt: its length is the datagram's, its version, exchange and first
/// payload are known. `None` is what needs the port's word for it.
fn surely_ike(datagram: &[u8]) -> Option<Header> {
    let mut r = Reader::new(datagram);
    let header = Header::parse(&mut r).ok()?;
    let known =
        matches!(header.major, 1 | 2) && header.exchange.name().is_some() && header.next_payload.name().is_some();
    let right = header.length as usize == datagram.len() && header.exchange != ExchangeType::NONE;
    (known && right && !header.cky_i.is_zero()).then_some(header)
}

impl Decoder {
    /// A UDP datagram with its header.
    pub(super) fn udp(&mut self, mut place: Place, data: &[u8]) {
        let Some((head, rest)) = data.split_first_chunk::<8>() else { return };
        let [s0, s1, d0, d1, l0, l1, ..] = *head;
        let (from, to) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        // Zero is what a segmenting network card is given. A length beyond the packet's is left for the message to notice.
        let payload = rest.get(..len.saturating_sub(8)).filter(|_| len != 0).unwrap_or(rest);
        place.source = place.source.with_port(from);
        place.destination = place.destination.with_port(to);

        let other = OTHER_SERVICES.contains(&from) || OTHER_SERVICES.contains(&to);
        let either = |port| from == port || to == port;
        if payload.is_empty() {
            // Nothing was sent, or nothing was kept.
            if len > 8 && (is_vpn_port(from) || is_vpn_port(to)) {
                let why = format!("{} bytes of the datagram are missing", len - 8);
                self.malformed(&place, "UDP", why, String::new(), json!({ "length": len }));
            }
            return;
        }
        if other && !self.conversations.knows(&place) {
            self.guess(&place, payload);
        } else if either(L2TP) {
            self.l2tp(&place, payload);
        } else if either(NAT_T) || self.conversations.knows(&place) && !either(IKE) {
            self.nat_t(&place, payload);
        } else if either(IKE) {
            self.port_500(&place, payload);
        } else {
            self.guess(&place, payload);
        }
    }

    /// Port 500: IKE, and what the first drafts of NAT traversal put there, too.
    fn port_500(&mut self, place: &Place, payload: &[u8]) {
        /// draft-ietf-ipsec-udp-encaps-01: "non-IKE marker", in place of the initiator's cookie.
        const NON_IKE_MARKER: [u8; 8] = [0; 8];
        if payload == KEEPALIVE {
            return self.keepalive(place);
        }
        if let Some(ike) = payload.strip_prefix(&NON_ESP_MARKER).filter(|ike| surely_ike(ike).is_some()) {
            return self.ike(place, ike, true);
        }
        match payload.strip_prefix(&NON_IKE_MARKER) {
            // Both an ESP packet behind the marker and a broken IKE message begin with eight zeros; an SPI tells.
            Some(esp) if sallyport_esp::spi(esp).is_some() && !claims_its_length(payload) => {
                self.esp(place, esp, Some("UDP, non-IKE marker"));
            }
            _ => self.ike(place, payload, false),
        }
    }

    /// Port 4500, RFC 3948 §2: a keepalive, IKE behind four zero bytes, or ESP.
    fn nat_t(&mut self, place: &Place, payload: &[u8]) {
        if payload == KEEPALIVE {
            self.keepalive(place);
        } else if surely_ike(payload).is_some() {
            self.ike(place, payload, false); // some forget the marker
        } else if let Some(ike) = payload.strip_prefix(&NON_ESP_MARKER) {
            self.ike(place, ike, true);
        } else {
            self.esp(place, payload, Some("UDP"));
        }
    }

    /// Any other port: a conversation that a NAT moved, or IKE that looks like nothing else.
    fn guess(&mut self, place: &Place, payload: &[u8]) {
        let (ike, marker) = match payload.strip_prefix(&NON_ESP_MARKER) {
            Some(ike) if surely_ike(ike).is_some() => (ike, true),
            _ => (payload, false),
        };
        let Some(header) = surely_ike(ike) else { return };
        let follows = self.conversations.cookies.set.contains(&header.cky_i.0);
        // The first message of phase 1: no responder cookie, message id 0, payloads in the clear.
        let begins = header.cky_r.is_zero() && header.message_id == 0 && !(header.major == 1 && header.is_encrypted());
        if follows || begins {
            self.ike(place, ike, marker);
        }
    }

    /// Remembers the conversation of an IKE message that could be read.
    pub(super) fn note_conversation(&mut self, place: &Place, cookie: Cookie) {
        if !cookie.is_zero() {
            self.conversations.note(place, cookie);
        }
    }

    fn keepalive(&mut self, place: &Place) {
        self.emit(place, "NAT-T", "keepalive".to_owned(), json!({ "keepalive": true }));
    }

    /// An ESP packet: only SPI and sequence number stand in the clear.
    pub(super) fn esp(&mut self, place: &Place, data: &[u8], encapsulation: Option<&'static str>) {
        match EspHeader::parse(&mut Reader::new(data)) {
            Ok(EspHeader { spi, seq }) => {
                let body = data.len().saturating_sub(8);
                let mut summary = format!("spi {spi:08x} seq {seq}, {body} bytes");
                if spi < MIN_SPI {
                    summary.push_str(", reserved SPI");
                }
                let fields = json!({
                    "spi": format!("{spi:08x}"), "seq": seq, "length": body, "encapsulation": encapsulation,
                });
                if encapsulation.is_some() && spi == 0 {
                    self.malformed(place, "ESP", "SPI 0", summary, fields);
                } else {
                    self.emit(place, "ESP", summary, fields);
                }
            }
            Err(e) => self.malformed(place, "ESP", e, String::new(), Value::Null),
        }
    }

    /// A TCP segment, of which only the control messages of PPTP (RFC 2637 §2) are looked at.
    pub(super) fn tcp_segment(&mut self, mut place: Place, data: &[u8]) {
        let mut r = Reader::new(data);
        let mut head = || {
            let (from, to) = (r.u16("source port")?, r.u16("destination port")?);
            let seq = r.u32("sequence number")?;
            r.skip("acknowledgement", 4)?;
            let offset = usize::from(r.u8("data offset")? >> 4) * 4;
            r.skip("flags and options", offset.saturating_sub(13))?;
            Ok::<_, sallyport_base::DecodeError>((from, to, seq))
        };
        let Ok((from, to, seq)) = head() else { return };
        if from != PPTP && to != PPTP || r.is_empty() {
            return;
        }
        place.source = place.source.with_port(from);
        place.destination = place.destination.with_port(to);
        let next = seq.wrapping_add(u32::try_from(r.len()).unwrap_or(0));
        if let (End::Socket(source), End::Socket(destination)) = (place.source, place.destination) {
            if self.tcp.len() >= MAX_TCP {
                self.tcp.pop_first();
            }
            let seen = self.tcp.insert((source, destination), next);
            if let Some(seen) = seen.filter(|seen| next.wrapping_sub(*seen).cast_signed() <= 0) {
                self.tcp.insert((source, destination), seen);
                return; // sent again
            }
        }
        // A segment holds whole messages in practice; what does not begin with one is passed over.
        while !r.is_empty() {
            let bytes = r.peek();
            let len = bytes.first_chunk().map_or(0, |l| usize::from(u16::from_be_bytes(*l)));
            if len < 12 || r.skip("message", len).is_err() {
                return;
            }
            self.pptp(&place, bytes.get(..len).unwrap_or(bytes));
        }
    }

    fn pptp(&mut self, place: &Place, message: &[u8]) {
        const NAMES: [&str; 15] = [
            "Start-Control-Connection-Request",
            "Start-Control-Connection-Reply",
            "Stop-Control-Connection-Request",
            "Stop-Control-Connection-Reply",
            "Echo-Request",
            "Echo-Reply",
            "Outgoing-Call-Request",
            "Outgoing-Call-Reply",
            "Incoming-Call-Request",
            "Incoming-Call-Reply",
            "Incoming-Call-Connected",
            "Call-Clear-Request",
            "Call-Disconnect-Notify",
            "WAN-Error-Notify",
            "Set-Link-Info",
        ];
        let mut r = Reader::new(message);
        let mut head = || {
            r.skip("length and type", 4)?;
            let cookie = r.u32("magic cookie")?;
            let kind = r.u16("control message type")?;
            r.skip("reserved", 2)?;
            Ok::<_, sallyport_base::DecodeError>((cookie, kind))
        };
        let Ok((0x1a2b_3c4d, kind)) = head() else { return };
        let name = usize::from(kind).checked_sub(1).and_then(|i| NAMES.get(i));
        let name = name.map_or_else(|| format!("message type {kind}"), |n| (*n).to_owned());
        let mut fields = json!({ "type": kind, "name": name, "length": message.len() });
        let mut summary = name;
        // Everything but the control connection's own messages begins with a call id.
        if let (7..=15, Ok(call)) = (kind, r.u16("call id")) {
            summary.push_str(&format!(" call {call}"));
            fields["call"] = json!(call);
        }
        self.emit(place, "PPTP", summary, fields);
    }
}

/// Whether the length in the header of an IKE message is that of the datagram.
pub(super) fn claims_its_length(datagram: &[u8]) -> bool {
    Header::parse(&mut Reader::new(datagram)).is_ok_and(|h| h.length as usize == datagram.len())
}
