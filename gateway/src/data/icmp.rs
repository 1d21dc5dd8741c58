//! The one ICMP error that the data plane sends, and fragmentation for packets that allow it.

use std::net::Ipv4Addr;

use super::packet::{IPV4_HEADER_LEN, Ipv4, PROTO_ICMP, fold, len16, put_u16, sum, u16_at, write_ipv4_checksum};

/// How much of the offending packet an ICMP error quotes at most: the whole error stays within the 576 bytes that every
/// host takes (RFC 1812 §4.3.2.3).
const QUOTE: usize = 576 - IPV4_HEADER_LEN - ICMP_HEADER_LEN;
const ICMP_HEADER_LEN: usize = 8;

/// The longest error that [`fragmentation_needed`] makes.
pub const MAX_ICMP_LEN: usize = 576;

/// Destination Unreachable, fragmentation needed and DF set (RFC 792, RFC 1191 §4), as an IPv4 packet to the sender of
/// `packet`; `None` where no error may be sent: about a fragment but the first, about an ICMP error, to or from an
/// address that is not one host's (RFC 1812 §4.3.2.7).
pub fn fragmentation_needed(packet: &[u8], ip: &Ipv4, router: Ipv4Addr, mtu: u16, out: &mut [u8]) -> Option<usize> {
    let later_fragment = u16_at(packet, 6) & 0x1fff != 0;
    let icmp_error =
        ip.protocol == PROTO_ICMP && packet.get(ip.header_len).is_none_or(|t| !matches!(t, 0 | 8 | 13..=18));
    let host = |a: Ipv4Addr| !(a.is_unspecified() || a.is_broadcast() || a.is_multicast() || a.octets()[0] == 0);
    if later_fragment || icmp_error || !host(ip.source) || ip.source.is_loopback() || !host(ip.destination) {
        return None;
    }
    let quote = packet.get(..ip.total_len.min(QUOTE))?;
    let total = IPV4_HEADER_LEN + ICMP_HEADER_LEN + quote.len();
    let out = out.get_mut(..total)?;
    let (header, icmp) = out.split_at_mut(IPV4_HEADER_LEN);
    // Precedence 6 (RFC 1812 §4.3.2.5), no DF: the error itself may be cut on its way.
    header.copy_from_slice(&[0x45, 0xc0, 0, 0, 0, 0, 0, 0, 64, PROTO_ICMP, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    put_u16(header, 2, len16(total));
    header.get_mut(12..16)?.copy_from_slice(&router.octets());
    header.get_mut(16..20)?.copy_from_slice(&ip.source.octets());
    write_ipv4_checksum(header);
    icmp.get_mut(..8)?.copy_from_slice(&[3, 4, 0, 0, 0, 0, 0, 0]);
    put_u16(icmp, 6, mtu);
    icmp.get_mut(ICMP_HEADER_LEN..)?.copy_from_slice(quote);
    let checksum = !fold(sum(icmp, 0));
    put_u16(icmp, 2, checksum);
    Some(total)
}

/// Cuts one IPv4 packet into fragments (RFC 791 §2.7) of at most `mtu` bytes.
#[derive(Debug)]
pub struct Fragments<'a> {
    packet: &'a [u8],
    header_len: usize,
    /// Payload bytes in each fragment but the last: a multiple of 8.
    step: usize,
    at: usize,
    /// Offset and MF of the packet that is cut, which may itself be a fragment.
    base: u16,
}

impl<'a> Fragments<'a> {
    /// `None` if the packet must not or cannot be cut: DF, IP options (which would need copying rules for a thing that
    /// nobody sends), an MTU without room for a payload.
    pub fn new(packet: &'a [u8], ip: &Ipv4, mtu: u16) -> Option<Self> {
        let step = usize::from(mtu).checked_sub(IPV4_HEADER_LEN)? & !7;
        if ip.dont_fragment || ip.header_len != IPV4_HEADER_LEN || step == 0 {
            return None;
        }
        let packet = packet.get(..ip.total_len)?;
        Some(Self { packet, header_len: ip.header_len, step, at: 0, base: u16_at(packet, 6) & 0x3fff })
    }

    /// Writes the next fragment and says how long it is; `None` at the end, or where `out` is too short.
    pub fn next_into(&mut self, out: &mut [u8]) -> Option<usize> {
        let payload = self.packet.get(self.header_len + self.at..)?;
        if payload.is_empty() {
            return None;
        }
        let (take, last) = if payload.len() <= self.step { (payload.len(), true) } else { (self.step, false) };
        let total = self.header_len + take;
        let out = out.get_mut(..total)?;
        out.get_mut(..self.header_len)?.copy_from_slice(self.packet.get(..self.header_len)?);
        out.get_mut(self.header_len..)?.copy_from_slice(payload.get(..take)?);
        put_u16(out, 2, len16(total));
        // The offset cannot leave its 13 bits: the packet was at most 65,535 bytes with its own offset.
        let offset = (self.base & 0x1fff).wrapping_add(len16(self.at / 8)) & 0x1fff;
        let more = if last { self.base & 0x2000 } else { 0x2000 };
        put_u16(out, 6, offset | more);
        write_ipv4_checksum(out.get_mut(..self.header_len)?);
        self.at += take;
        Some(total)
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::build::{checksums_are_right, ipv4, udp};
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
    const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

    #[test]
    fn the_error_names_the_mtu_and_quotes_the_packet() {
        let packet = udp(A, B, (53, 1000), true, &[7; 1400]);
        let ip = Ipv4::parse(&packet).unwrap();
        let mut out = [0; MAX_ICMP_LEN];
        let n = fragmentation_needed(&packet, &ip, ROUTER, 1300, &mut out).unwrap();
        let error = &out[..n];
        assert!(checksums_are_right(error));
        let head = Ipv4::parse(error).unwrap();
        assert_eq!((head.source, head.destination, head.protocol), (ROUTER, A, PROTO_ICMP));
        assert_eq!(&error[20..22], &[3, 4]);
        assert_eq!(u16_at(error, 26), 1300);
        assert_eq!(&error[28..], &packet[..n - 28]);
    }

    #[test]
    fn no_error_is_sent_about_an_error_or_to_nobody() {
        let mut out = [0; MAX_ICMP_LEN];
        let about = |p: &[u8], out: &mut [u8]| fragmentation_needed(p, &Ipv4::parse(p).unwrap(), ROUTER, 1300, out);
        assert!(about(&ipv4(A, B, PROTO_ICMP, true, &[3, 4, 0, 0]), &mut out).is_none());
        assert!(about(&ipv4(A, B, PROTO_ICMP, true, &[]), &mut out).is_none());
        assert!(about(&ipv4(A, B, PROTO_ICMP, true, &[8, 0, 0, 0]), &mut out).is_some());
        assert!(about(&udp(Ipv4Addr::UNSPECIFIED, B, (1, 2), true, &[]), &mut out).is_none());
        assert!(about(&udp(A, Ipv4Addr::BROADCAST, (1, 2), true, &[]), &mut out).is_none());
        let mut later = udp(A, B, (1, 2), false, &[0; 64]);
        put_u16(&mut later, 6, 0x0004);
        assert!(about(&later, &mut out).is_none());
    }

    #[test]
    fn fragments_put_together_are_the_packet() {
        let packet = udp(A, B, (53, 1000), false, &(0..=255).cycle().take(3000).collect::<Vec<u8>>());
        let ip = Ipv4::parse(&packet).unwrap();
        let mut fragments = Fragments::new(&packet, &ip, 1000).unwrap();
        let (mut payload, mut last_seen) = (Vec::new(), false);
        let mut out = [0; 2000];
        while let Some(n) = fragments.next_into(&mut out) {
            assert!(n <= 1000 && !last_seen);
            let f = Ipv4::parse(&out[..n]).unwrap();
            assert!(f.fragment && fold(sum(&out[..20], 0)) == 0xffff);
            assert_eq!(usize::from(u16_at(&out, 6) & 0x1fff) * 8, payload.len());
            payload.extend_from_slice(&out[20..n]);
            last_seen = u16_at(&out, 6) & 0x2000 == 0;
        }
        assert!(last_seen);
        assert_eq!(payload, &packet[20..]);
    }

    #[test]
    fn a_packet_with_df_is_never_cut() {
        let packet = udp(A, B, (53, 1000), true, &[0; 3000]);
        assert!(Fragments::new(&packet, &Ipv4::parse(&packet).unwrap(), 1000).is_none());
    }
}
