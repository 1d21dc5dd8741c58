use proptest::collection::vec as octets;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::*;

/// The checksum of TCP with the pseudo-header, from scratch.
fn checksum(addresses: &[u8], tcp: &[u8]) -> u16 {
    let mut sum = u64::from(TCP) + tcp.len() as u64;
    for (i, byte) in addresses.iter().enumerate() {
        sum += u64::from(*byte) << if i % 2 == 0 { 8 } else { 0 };
    }
    for (i, byte) in tcp.iter().enumerate().filter(|(i, _)| *i != 16 && *i != 17) {
        sum += u64::from(*byte) << if i % 2 == 0 { 8 } else { 0 };
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn tcp(options: &[u8], flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut options = options.to_vec();
    options.resize(options.len().next_multiple_of(4), 0);
    let mut tcp = vec![0x12; 20];
    tcp[12] = u8::try_from((20 + options.len()) / 4 * 16).unwrap();
    tcp[13] = flags;
    tcp.extend_from_slice(&options);
    tcp.extend_from_slice(payload);
    tcp
}

fn ipv4(tcp: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, TCP, 0, 0, 10, 0, 0, 1, 192, 0, 2, 7];
    packet.extend_from_slice(tcp);
    let sum = checksum(&packet[12..20], tcp);
    packet[36..38].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn ipv6(extensions: &[u8], first: u8, tcp: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, first, 64];
    packet.extend((0..32u8).map(|i| i ^ 0x5a));
    packet.extend_from_slice(extensions);
    packet.extend_from_slice(tcp);
    let at = 40 + extensions.len() + 16;
    let sum = checksum(&packet[8..40], tcp);
    packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn mss_at(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

#[test]
fn a_syn_is_clamped_to_the_mtu() {
    let mut packet = ipv4(&tcp(&[2, 4, 0x05, 0xb4], SYN, &[]));
    assert!(clamp_mss(&mut packet, 1400));
    assert_eq!(mss_at(&packet, 42), 1360);
    assert_eq!(mss_at(&packet, 36), checksum(&packet[12..20], &packet[20..]));
    assert!(!clamp_mss(&mut packet, 1400), "low enough now");
    let mut packet = ipv6(&[], TCP, &tcp(&[2, 4, 0x05, 0xa0], SYN | 0x10, &[]));
    assert!(clamp_mss(&mut packet, 1400));
    assert_eq!(mss_at(&packet, 62), 1340);
    assert_eq!(mss_at(&packet, 56), checksum(&packet[8..40], &packet[40..]));
}

#[test]
fn what_is_no_syn_or_not_tcp_is_left_alone() {
    let whole = ipv4(&tcp(&[2, 4, 0x05, 0xb4], SYN, &[]));
    let mut cases =
        vec![ipv4(&tcp(&[2, 4, 0x05, 0xb4], 0x10, &[])), ipv4(&tcp(&[1, 1, 1, 1], SYN, &[])), vec![], vec![0x45]];
    let mut change = |at: usize, to: u8| {
        let mut packet = whole.clone();
        packet[at] = to;
        cases.push(packet);
    };
    change(9, 17); // UDP
    change(7, 1); // a later fragment
    change(0, 0x44); // a header shorter than a header
    change(0, 0x55); // no version
    change(40, 0); // end of options before the MSS
    change(41, 3); // an MSS option of the wrong length
    change(41, 0);
    change(32, 0x40); // a TCP header shorter than a header
    change(32, 0xf0); // ... and longer than the packet
    for mut packet in cases {
        let before = packet.clone();
        assert!(!clamp_mss(&mut packet, 576));
        assert_eq!(packet, before);
    }
}

#[test]
fn ipv6_extension_headers_are_walked_over() {
    let syn = tcp(&[2, 4, 0x05, 0xb4], SYN, &[]);
    // Hop-by-hop, then destination options of two units, then a first fragment.
    let mut extensions = vec![60, 0, 1, 4, 0, 0, 0, 0];
    extensions.extend_from_slice(&[44, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    extensions.extend_from_slice(&[TCP, 0, 0, 1, 0, 0, 0, 9]);
    let mut packet = ipv6(&extensions, 0, &syn);
    assert!(clamp_mss(&mut packet, 1280));
    // A later fragment holds no TCP header.
    let mut packet = ipv6(&[TCP, 0, 0x01, 0x08, 0, 0, 0, 9], 44, &syn);
    assert!(!clamp_mss(&mut packet, 1280));
    // A chain without end.
    let mut packet = ipv6(&[0; 200], 0, &syn);
    assert!(!clamp_mss(&mut packet, 1280));
}

proptest! {
    #[test]
    fn the_checksum_stays_right(nops in 0usize..6, mss: u16, mtu: u16, payload in octets(any::<u8>(), 0..50), v6: bool) {
        let mut options = vec![1; nops];
        options.extend_from_slice(&[2, 4]);
        options.extend_from_slice(&mss.to_be_bytes());
        let segment = tcp(&options, SYN, &payload);
        let (mut packet, tcp_at, headers) = if v6 { (ipv6(&[], TCP, &segment), 40, 60) } else { (ipv4(&segment), 20, 40) };
        let clamped = clamp_mss(&mut packet, mtu);
        let max = mtu.saturating_sub(headers);
        prop_assert_eq!(clamped, mss > max);
        prop_assert_eq!(mss_at(&packet, tcp_at + 20 + nops + 2), mss.min(max));
        let addresses = if v6 { 8..40 } else { 12..20 };
        let (stored, fresh) = (mss_at(&packet, tcp_at + 16), checksum(&packet[addresses], &packet[tcp_at..]));
        // Zero has two forms in one's complement.
        prop_assert!(stored == fresh || (stored.min(fresh), stored.max(fresh)) == (0, 0xffff));
    }

    #[test]
    fn nothing_makes_it_panic(mut packet in octets(any::<u8>(), 0..120), mtu: u16, version in 0u8..3) {
        if let Some(first) = packet.first_mut() {
            *first = match version { 0 => 0x45, 1 => 0x60, _ => *first };
        }
        if let Some(protocol) = packet.get_mut(if version == 0 { 9 } else { 6 }) {
            *protocol = TCP;
        }
        clamp_mss(&mut packet, mtu);
    }
}
