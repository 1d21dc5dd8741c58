//! From a frame of the inside device to IPv4 packets: superpackets of TCP and UDP are cut into the segments that their
//! sender would have made without offloads, and unfinished checksums are finished.

use super::packet::{
    Ipv4, PROTO_TCP, PROTO_UDP, UDP_HEADER_LEN, fold, len16, pseudo_sum, put_u16, put_u32, sum, u16_at, u32_at,
    write_ipv4_checksum,
};
use super::stats::DropReason;
use crate::net::VNET_HEADER_LEN;

/// `linux/virtio_net.h`: the checksum field holds the sum of the pseudo header only.
pub const F_NEEDS_CSUM: u8 = 1;
/// One packet.
pub const GSO_NONE: u8 = 0;
/// A superpacket of TCP over IPv4.
pub const GSO_TCPV4: u8 = 1;
/// A superpacket of UDP.
pub const GSO_UDP_L4: u8 = 5;
/// A mark beside the type that TCP uses ECN: CWR belongs to the first segment only.
pub const GSO_ECN: u8 = 0x80;

const TCP_FIN: u8 = 0x01;
const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;

/// The header before each frame when offloads are on, in the machine's own byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// [`F_NEEDS_CSUM`].
    pub flags: u8,
    /// One of the `GSO_` kinds.
    pub gso_type: u8,
    /// Length of all headers; a hint that forwarded packets have wrong.
    pub hdr_len: u16,
    /// Payload bytes of a segment.
    pub gso_size: u16,
    /// Where the checksummed part begins.
    pub csum_start: u16,
    /// Where the checksum field is, from there.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// Takes the header off a frame.
    pub fn parse(frame: &mut [u8]) -> Option<(Self, &mut [u8])> {
        let (h, packet) = frame.split_first_chunk_mut::<VNET_HEADER_LEN>()?;
        let at = |i: usize| u16::from_ne_bytes([h[i], h[i + 1]]);
        let header = Self {
            flags: h[0],
            gso_type: h[1],
            hdr_len: at(2),
            gso_size: at(4),
            csum_start: at(6),
            csum_offset: at(8),
        };
        Some((header, packet))
    }

    /// The header's bytes.
    pub fn emit(&self) -> [u8; VNET_HEADER_LEN] {
        let [a, b] = self.hdr_len.to_ne_bytes();
        let [c, d] = self.gso_size.to_ne_bytes();
        let [e, f] = self.csum_start.to_ne_bytes();
        let [g, h] = self.csum_offset.to_ne_bytes();
        [self.flags, self.gso_type, a, b, c, d, e, f, g, h]
    }
}

/// The packets of one frame, in order.
#[derive(Debug)]
pub struct Segments<'a> {
    /// The frame's packet, its checksum finished if it is not a superpacket.
    packet: &'a [u8],
    /// What its IPv4 header says.
    ip: Ipv4,
    /// Headers of each segment; 0 if the packet goes out as it is.
    header_len: usize,
    gso_size: usize,
    at: usize,
    n: u16,
}

impl<'a> Segments<'a> {
    /// Reads a frame of the device; `vnet` says whether it begins with a [`VnetHeader`].
    pub fn new(frame: &'a mut [u8], vnet: bool) -> Result<Self, DropReason> {
        let (header, packet) = match vnet {
            true => VnetHeader::parse(frame).ok_or(DropReason::Truncated)?,
            false => (VnetHeader::default(), frame),
        };
        let Some(ip) = Ipv4::parse(packet) else { return Err(DropReason::NotIpv4) };
        let kind = header.gso_type & !GSO_ECN;
        if kind == GSO_NONE {
            if header.flags & F_NEEDS_CSUM != 0 {
                finish_checksum(packet, &header, &ip);
            }
            return Ok(Self { packet, ip, header_len: 0, gso_size: 0, at: 0, n: 0 });
        }
        let transport = match (kind, ip.protocol) {
            (GSO_TCPV4, PROTO_TCP) => {
                usize::from(packet.get(ip.header_len + 12).ok_or(DropReason::Truncated)? >> 4) * 4
            }
            (GSO_UDP_L4, PROTO_UDP) => UDP_HEADER_LEN,
            _ => return Err(DropReason::NotIpv4),
        };
        let header_len = ip.header_len + transport;
        let gso_size = usize::from(header.gso_size);
        if gso_size == 0 || header_len >= ip.total_len || (ip.protocol == PROTO_TCP && transport < 20) {
            return Err(DropReason::Truncated);
        }
        Ok(Self { packet, ip, header_len, gso_size, at: header_len, n: 0 })
    }

    /// The IPv4 header of all of them, but for lengths.
    pub const fn ip(&self) -> &Ipv4 {
        &self.ip
    }

    /// The packet as the device gave it: for what an ICMP error quotes.
    pub const fn packet(&self) -> &[u8] {
        self.packet
    }

    /// Length of the longest packet that is still to come.
    pub fn longest(&self) -> usize {
        match self.header_len {
            0 => self.ip.total_len,
            h => (h + self.gso_size).min(self.ip.total_len),
        }
    }

    /// How many packets are still to come.
    pub fn remaining(&self) -> usize {
        match self.header_len {
            0 => usize::from(self.n == 0),
            _ => self.ip.total_len.saturating_sub(self.at).div_ceil(self.gso_size),
        }
    }

    /// Writes the next packet and says how long it is; `None` at the end, or where `out` is shorter than
    /// [`Segments::longest`].
    #[inline]
    pub fn next_into(&mut self, out: &mut [u8]) -> Option<usize> {
        if self.header_len == 0 {
            if self.n != 0 {
                return None;
            }
            self.n = 1;
            let packet = self.packet.get(..self.ip.total_len)?;
            out.get_mut(..packet.len())?.copy_from_slice(packet);
            return Some(packet.len());
        }
        let payload = self.packet.get(self.at..self.ip.total_len)?;
        if payload.is_empty() {
            return None;
        }
        let (take, last) = if payload.len() <= self.gso_size { (payload.len(), true) } else { (self.gso_size, false) };
        let total = self.header_len + take;
        let out = out.get_mut(..total)?;
        let (header, body) = out.split_at_mut_checked(self.header_len)?;
        header.copy_from_slice(self.packet.get(..self.header_len)?);
        body.copy_from_slice(payload.get(..take)?);
        let (ip_header, transport) = header.split_at_mut_checked(self.ip.header_len)?;
        put_u16(ip_header, 2, len16(total));
        put_u16(ip_header, 4, u16_at(ip_header, 4).wrapping_add(self.n));
        write_ipv4_checksum(ip_header);
        let checksum_at = if self.ip.protocol == PROTO_TCP {
            let sent = len16(self.at - self.header_len);
            put_u32(transport, 4, u32_at(transport, 4).wrapping_add(u32::from(sent)));
            if let Some(flags) = transport.get_mut(13) {
                *flags &= if last { 0xff } else { !(TCP_FIN | TCP_PSH) };
                *flags &= if self.n == 0 { 0xff } else { !TCP_CWR };
            }
            16
        } else {
            put_u16(transport, 4, len16(transport.len() + take));
            6
        };
        put_u16(transport, checksum_at, 0);
        let pseudo = pseudo_sum(self.ip.source, self.ip.destination, self.ip.protocol, transport.len() + take);
        // A transport header is a multiple of four bytes long, so the pieces add up.
        let checksum = !fold(sum(body, sum(transport, pseudo)));
        put_u16(transport, checksum_at, nonzero(checksum, self.ip.protocol));
        self.at += take;
        self.n = self.n.wrapping_add(1);
        Some(total)
    }
}

/// A UDP checksum of zero would say that there is none (RFC 768).
const fn nonzero(checksum: u16, protocol: u8) -> u16 {
    if checksum == 0 && protocol == PROTO_UDP { 0xffff } else { checksum }
}

fn finish_checksum(packet: &mut [u8], header: &VnetHeader, ip: &Ipv4) {
    let (start, offset) = (usize::from(header.csum_start), usize::from(header.csum_offset));
    if let Some(part) = packet.get_mut(start..ip.total_len) {
        // The field holds the sum of the pseudo header, so it is part of what is summed.
        let checksum = nonzero(!fold(sum(part, 0)), ip.protocol);
        put_u16(part, offset, checksum);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::packet::build::{checksums_are_right, tcp, udp};
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

    fn frame(header: VnetHeader, packet: &[u8]) -> Vec<u8> {
        let mut f = header.emit().to_vec();
        f.extend_from_slice(packet);
        f
    }

    fn all(frame: &mut [u8]) -> Vec<Vec<u8>> {
        let mut segments = Segments::new(frame, true).unwrap();
        let (mut out, mut packets) = (vec![0; 65_535], Vec::new());
        while let Some(n) = segments.next_into(&mut out) {
            packets.push(out[..n].to_vec());
        }
        packets
    }

    #[test]
    fn a_tcp_superpacket_becomes_the_segments_of_its_sender() {
        let payload: Vec<u8> = (0..=255).cycle().take(3001).collect();
        let packet = tcp(A, B, (80, 9), 0xffff_fe00, 0x10 | TCP_PSH | TCP_FIN | TCP_CWR, &[1; 12], &payload);
        let header =
            VnetHeader { flags: F_NEEDS_CSUM, gso_type: GSO_TCPV4 | GSO_ECN, gso_size: 1000, ..VnetHeader::default() };
        let packets = all(&mut frame(header, &packet));
        assert_eq!(packets.iter().map(Vec::len).collect::<Vec<_>>(), [1052, 1052, 1052, 53]);
        let mut seen = Vec::new();
        for (n, p) in packets.iter().enumerate() {
            assert!(checksums_are_right(p));
            assert_eq!(u32_at(p, 24), 0xffff_fe00_u32.wrapping_add(n as u32 * 1000));
            assert_eq!(u16_at(p, 4), 0x1234 + n as u16);
            let flags = p[33];
            assert_eq!(flags & (TCP_PSH | TCP_FIN) != 0, n == 3);
            assert_eq!(flags & TCP_CWR != 0, n == 0);
            seen.extend_from_slice(&p[52..]);
        }
        assert_eq!(seen, payload);
    }

    #[test]
    fn a_udp_superpacket_becomes_datagrams() {
        let packet = udp(A, B, (53, 9), true, &[5; 2500]);
        let header = VnetHeader { gso_type: GSO_UDP_L4, gso_size: 1200, ..VnetHeader::default() };
        let packets = all(&mut frame(header, &packet));
        assert_eq!(packets.iter().map(Vec::len).collect::<Vec<_>>(), [1228, 1228, 128]);
        assert!(packets.iter().all(|p| checksums_are_right(p) && usize::from(u16_at(p, 24)) == p.len() - 20));
    }

    #[test]
    fn an_unfinished_checksum_is_finished() {
        let good = udp(A, B, (53, 9), true, b"odd");
        let mut packet = good.clone();
        put_u16(&mut packet, 26, fold(pseudo_sum(A, B, PROTO_UDP, 11)));
        assert!(!checksums_are_right(&packet));
        let header = VnetHeader { flags: F_NEEDS_CSUM, csum_start: 20, csum_offset: 6, ..VnetHeader::default() };
        assert_eq!(all(&mut frame(header, &packet)), [good]);
    }

    #[test]
    fn what_lies_behind_the_packet_is_cut_off() {
        let good = udp(A, B, (53, 9), true, b"x");
        let mut padded = good.clone();
        padded.extend([0; 9]);
        assert_eq!(all(&mut frame(VnetHeader::default(), &padded)), [good]);
    }

    #[test]
    fn nonsense_from_the_device_is_refused() {
        let packet = udp(A, B, (53, 9), true, &[5; 100]);
        let none = |h: VnetHeader, p: &[u8]| Segments::new(&mut frame(h, p), true).err();
        assert_eq!(
            none(VnetHeader { gso_type: GSO_UDP_L4, ..VnetHeader::default() }, &packet),
            Some(DropReason::Truncated)
        );
        let wrong = VnetHeader { gso_type: GSO_TCPV4, gso_size: 10, ..VnetHeader::default() };
        assert_eq!(none(wrong, &packet), Some(DropReason::NotIpv4));
        assert_eq!(none(VnetHeader::default(), &[0x60; 40]), Some(DropReason::NotIpv4));
        assert_eq!(Segments::new(&mut [0; 5], true).err(), Some(DropReason::Truncated));
        let far = VnetHeader { flags: F_NEEDS_CSUM, csum_start: 9999, csum_offset: 9, ..VnetHeader::default() };
        assert_eq!(all(&mut frame(far, &packet)), [packet]);
    }
}
