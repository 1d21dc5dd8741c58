//! What the packet path reads and writes of IPv4, TCP and UDP headers: a few fields at fixed places, and checksums.

use std::net::Ipv4Addr;

/// IP protocol numbers (IANA "Protocol Numbers").
pub const PROTO_ICMP: u8 = 1;
/// TCP.
pub const PROTO_TCP: u8 = 6;
/// UDP.
pub const PROTO_UDP: u8 = 17;

/// The shortest IPv4 header, in bytes.
pub const IPV4_HEADER_LEN: usize = 20;
/// A UDP header, in bytes.
pub const UDP_HEADER_LEN: usize = 8;

/// The fields of an IPv4 header that matter here; lengths are checked against the bytes that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    /// Header length in bytes, 20 to 60.
    pub header_len: usize,
    /// Length of the packet in bytes, header included; never more than there are.
    pub total_len: usize,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// The DF bit.
    pub dont_fragment: bool,
    /// Whether it is a fragment of a larger packet: MF is set or the offset is not zero.
    pub fragment: bool,
}

impl Ipv4 {
    /// Reads the header; `None` unless a whole IPv4 packet begins here.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let h = bytes.first_chunk::<IPV4_HEADER_LEN>()?;
        let header_len = usize::from(h[0] & 0x0f) * 4;
        let total_len = usize::from(u16::from_be_bytes([h[2], h[3]]));
        if h[0] >> 4 != 4 || header_len < IPV4_HEADER_LEN || total_len < header_len || total_len > bytes.len() {
            return None;
        }
        Some(Self {
            header_len,
            total_len,
            protocol: h[9],
            source: Ipv4Addr::new(h[12], h[13], h[14], h[15]),
            destination: Ipv4Addr::new(h[16], h[17], h[18], h[19]),
            dont_fragment: h[6] & 0x40 != 0,
            fragment: h[6] & 0x3f != 0 || h[7] != 0,
        })
    }

    /// Whether the packet begins a TCP connection, the only kind with an MSS option. `bytes` is what was parsed.
    #[inline]
    pub fn is_tcp_syn(&self, bytes: &[u8]) -> bool {
        const SYN: u8 = 0x02;
        self.protocol == PROTO_TCP && bytes.get(self.header_len + 13).is_some_and(|flags| flags & SYN != 0)
    }
}

/// Adds `bytes` to an Internet checksum (RFC 1071) in host byte order; an odd last byte is padded with zero, so only the
/// last of several pieces may be odd.
#[inline]
pub fn sum(bytes: &[u8], initial: u64) -> u64 {
    // In host byte order, because the ones' complement sum does not care and only its end has to be swapped; in eight
    // sums without carries between them, so that the compiler can make them wide. None can overflow: it would take 2^31
    // rounds. `wrapping_add` says so, because a check in each round would keep the loop narrow.
    let (rounds, rest) = bytes.as_chunks::<64>();
    let mut lanes = [0u64; 8];
    for round in rounds {
        for (lane, word) in lanes.iter_mut().zip(round.as_chunks::<8>().0) {
            let word = u64::from_ne_bytes(*word);
            *lane = lane.wrapping_add((word & 0xffff_ffff).wrapping_add(word >> 32));
        }
    }
    let (words, rest) = rest.as_chunks::<4>();
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    let words = words.iter().chain([&last]).map(|word| u64::from(u32::from_ne_bytes(*word)));
    lanes.into_iter().chain(words).fold(initial, u64::wrapping_add)
}

/// The 16-bit ones' complement sum as it stands in a packet, not yet complemented.
#[inline]
pub fn fold(mut acc: u64) -> u16 {
    acc = (acc >> 32) + (acc & 0xffff_ffff);
    acc = (acc >> 32) + (acc & 0xffff_ffff);
    acc = (acc >> 16) + (acc & 0xffff);
    acc = (acc >> 16) + (acc & 0xffff);
    acc = (acc >> 16) + (acc & 0xffff);
    u16::from_be((acc & 0xffff) as u16)
}

/// The sum of the pseudo header of TCP and UDP over IPv4, for [`fold`]; `len` is that of header and payload.
#[inline]
pub fn pseudo_sum(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, len: usize) -> u64 {
    let len = u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
    sum(&[0, protocol, len[0], len[1]], sum(&source.octets(), sum(&destination.octets(), 0)))
}

/// Writes the header checksum of an IPv4 packet.
#[inline]
pub fn write_ipv4_checksum(header: &mut [u8]) {
    put_u16(header, 10, 0);
    let checksum = !fold(sum(header, 0));
    put_u16(header, 10, checksum);
}

/// Writes a big-endian number at `at`; nothing happens where there is no room.
#[inline]
pub fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(two) = bytes.get_mut(at..at + 2) {
        two.copy_from_slice(&value.to_be_bytes());
    }
}

/// Writes a big-endian number at `at`; nothing happens where there is no room.
#[inline]
pub fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(four) = bytes.get_mut(at..at + 4) {
        four.copy_from_slice(&value.to_be_bytes());
    }
}

/// The big-endian number at `at`; zero where there is none.
#[inline]
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_be_bytes)
}

/// The big-endian number at `at`; zero where there is none.
#[inline]
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes)
}

/// A length as a 16-bit field; longer ones, which no packet here has, become the largest.
#[inline]
pub fn len16(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

#[cfg(test)]
pub(crate) mod build {
    //! Packets for tests.

    use super::*;

    /// An IPv4 packet with a right header checksum.
    pub(crate) fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, df: bool, payload: &[u8]) -> Vec<u8> {
        let mut p = vec![0x45, 0, 0, 0, 0x12, 0x34, if df { 0x40 } else { 0 }, 0, 64, protocol, 0, 0];
        p.extend(source.octets());
        p.extend(destination.octets());
        put_u16(&mut p, 2, len16(20 + payload.len()));
        write_ipv4_checksum(&mut p);
        p.extend_from_slice(payload);
        p
    }

    /// A UDP packet with right checksums.
    pub(crate) fn udp(source: Ipv4Addr, destination: Ipv4Addr, ports: (u16, u16), df: bool, payload: &[u8]) -> Vec<u8> {
        let mut u = vec![0; 8];
        put_u16(&mut u, 0, ports.0);
        put_u16(&mut u, 2, ports.1);
        put_u16(&mut u, 4, len16(8 + payload.len()));
        u.extend_from_slice(payload);
        let c = !fold(sum(&u, pseudo_sum(source, destination, PROTO_UDP, u.len())));
        put_u16(&mut u, 6, if c == 0 { 0xffff } else { c });
        ipv4(source, destination, PROTO_UDP, df, &u)
    }

    /// A TCP packet with right checksums.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn tcp(
        source: Ipv4Addr,
        destination: Ipv4Addr,
        ports: (u16, u16),
        seq: u32,
        flags: u8,
        options: &[u8],
        payload: &[u8],
    ) -> Vec<u8> {
        let header_len = 20 + options.len();
        assert_eq!(header_len % 4, 0);
        let mut t = vec![0; 20];
        put_u16(&mut t, 0, ports.0);
        put_u16(&mut t, 2, ports.1);
        put_u32(&mut t, 4, seq);
        put_u32(&mut t, 8, 77);
        t[12] = u8::try_from(header_len / 4).unwrap() << 4;
        t[13] = flags;
        put_u16(&mut t, 14, 500);
        t.extend_from_slice(options);
        t.extend_from_slice(payload);
        let c = !fold(sum(&t, pseudo_sum(source, destination, PROTO_TCP, t.len())));
        put_u16(&mut t, 16, c);
        ipv4(source, destination, PROTO_TCP, true, &t)
    }

    /// Whether the IPv4 header and the TCP or UDP checksum are right.
    pub(crate) fn checksums_are_right(p: &[u8]) -> bool {
        let Some(ip) = Ipv4::parse(p) else { return false };
        let payload = &p[ip.header_len..ip.total_len];
        let inner = match ip.protocol {
            PROTO_TCP | PROTO_UDP => {
                fold(sum(payload, pseudo_sum(ip.source, ip.destination, ip.protocol, payload.len()))) == 0xffff
            }
            PROTO_ICMP => fold(sum(payload, 0)) == 0xffff,
            _ => true,
        };
        fold(sum(&p[..ip.header_len], 0)) == 0xffff && inner
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_rfc_1071() {
        // RFC 1071 §3: the sum of these bytes is ddf2.
        assert_eq!(fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7], 0)), 0xddf2);
        assert_eq!(fold(sum(&[0x12], 0)), 0x1200);
        assert_eq!(fold(sum(&[0xff; 64], 0)), 0xffff);
    }

    #[test]
    fn a_sum_in_pieces_is_the_sum_of_the_whole() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1501).collect();
        for cut in [0, 2, 20, 1000, 1500] {
            assert_eq!(fold(sum(&bytes[cut..], sum(&bytes[..cut], 0))), fold(sum(&bytes, 0)));
        }
    }

    #[test]
    fn a_header_that_lies_about_its_length_is_no_packet() {
        let good = build::udp(Ipv4Addr::new(1, 2, 3, 4), Ipv4Addr::new(5, 6, 7, 8), (1, 2), true, b"hello");
        assert!(build::checksums_are_right(&good));
        let ip = Ipv4::parse(&good).unwrap();
        assert_eq!((ip.header_len, ip.total_len, ip.dont_fragment, ip.fragment), (20, 33, true, false));
        for (at, value) in [(0, 0x44), (0, 0x65), (3, 34), (3, 19), (2, 1)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(Ipv4::parse(&bad), None, "byte {at}");
        }
        assert_eq!(Ipv4::parse(&good[..19]), None);
    }
}
