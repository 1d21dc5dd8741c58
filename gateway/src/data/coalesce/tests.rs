use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::super::packet::build::{checksums_are_right, tcp, udp};
use super::super::segment::Segments;
use super::*;

const A: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const B: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ACK: u8 = 0x10;

/// A device that keeps each frame.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) frames: Vec<Vec<u8>>,
    pub(crate) plain: bool,
}

impl InsideDevice for Kept {
    fn offload(&self) -> bool {
        !self.plain
    }
    fn uso(&self) -> bool {
        !self.plain
    }
    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.frames.push(parts.iter().flat_map(|p| p.to_vec()).collect());
        Ok(())
    }
}

impl Kept {
    /// The packets that the kernel would make of the frames.
    pub(crate) fn packets(&self) -> Vec<Vec<u8>> {
        let mut out = vec![0; 65_535];
        let mut packets = Vec::new();
        for frame in &self.frames {
            let mut frame = frame.clone();
            let mut segments = Segments::new(&mut frame, !self.plain).unwrap();
            while let Some(n) = segments.next_into(&mut out) {
                packets.push(out[..n].to_vec());
            }
        }
        packets
    }
}

fn write(packets: &[Vec<u8>]) -> Kept {
    let mut buffers = Buffers::new(packets.len().max(1), 65_535);
    let mut slices = Vec::new();
    for (n, p) in packets.iter().enumerate() {
        buffers.buffer_mut(n).unwrap()[..p.len()].copy_from_slice(p);
        slices.push(Slice { buffer: n as u16, start: 0, len: p.len() as u32 });
    }
    let (mut device, mut counters) = (Kept::default(), Counters::default());
    Coalescer::default().write(&slices, &buffers, &mut device, &mut counters);
    assert_eq!(counters.count(Count::InsideWrites), device.frames.len() as u64);
    device
}

fn segment(port: u16, seq: u32, flags: u8, len: usize) -> Vec<u8> {
    let mut p = tcp(A, B, (port, 80), seq, flags, &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2], &vec![seq as u8; len]);
    // Identification counts up as a sender's does; the header checksum follows.
    put_u16(&mut p, 4, (seq / 1000) as u16);
    write_ipv4_checksum(&mut p[..20]);
    p
}

#[test]
fn a_burst_of_tcp_is_one_frame_and_cuts_back_into_itself() {
    let packets: Vec<_> =
        (0..10).map(|n| segment(1, n * 1000, if n == 9 { ACK | TCP_PSH } else { ACK }, 1000)).collect();
    let device = write(&packets);
    assert_eq!(device.frames.len(), 1);
    assert_eq!(device.packets(), packets);
}

#[test]
fn two_flows_that_alternate_are_two_frames() {
    let packets: Vec<_> = (0..10).map(|n| segment(1 + (n % 2) as u16, n / 2 * 1000, ACK, 1000)).collect();
    let device = write(&packets);
    assert_eq!(device.frames.len(), 2);
    let mut sent = device.packets();
    assert!(sent.iter().all(|p| checksums_are_right(p)));
    let (mut sorted, mut expected) = (std::mem::take(&mut sent), packets);
    sorted.sort();
    expected.sort();
    assert_eq!(sorted, expected);
}

#[test]
fn a_gap_a_push_a_short_packet_and_a_fin_each_end_a_run() {
    let device = write(&[segment(1, 0, ACK, 1000), segment(1, 2000, ACK, 1000)]);
    assert_eq!(device.frames.len(), 2);
    let device = write(&[segment(1, 0, ACK | TCP_PSH, 1000), segment(1, 1000, ACK, 1000)]);
    assert_eq!(device.frames.len(), 2);
    let device = write(&[segment(1, 0, ACK, 1000), segment(1, 1000, ACK, 500), segment(1, 1500, ACK, 500)]);
    assert_eq!(device.frames.len(), 2);
    let device = write(&[segment(1, 0, ACK, 1000), segment(1, 1000, ACK | 1, 1000), segment(1, 2000, ACK, 1000)]);
    assert_eq!(device.frames.len(), 3);
    assert_eq!(device.packets()[1], segment(1, 1000, ACK | 1, 1000));
}

#[test]
fn a_broken_packet_is_passed_as_it_is_and_never_repaired() {
    let mut broken = segment(1, 1000, ACK, 1000);
    broken[100] ^= 1;
    let packets = [segment(1, 0, ACK, 1000), broken, segment(1, 2000, ACK, 1000), segment(1, 3000, ACK, 1000)];
    let device = write(&packets);
    assert_eq!(device.packets(), packets);
    let mut first = segment(1, 0, ACK, 1000);
    first[100] ^= 1;
    let packets = [first, segment(1, 1000, ACK, 1000)];
    assert_eq!(write(&packets).packets(), packets);
}

#[test]
fn datagrams_of_one_size_are_one_frame() {
    let mut packets: Vec<_> = (0..9).map(|_| udp(A, B, (5, 6), true, &[3; 1200])).collect();
    packets.push(udp(A, B, (5, 6), true, &[4; 100]));
    // Identification of packets with DF means nothing; cutting counts it up.
    for (n, p) in packets.iter_mut().enumerate() {
        put_u16(p, 4, 7 + n as u16);
        write_ipv4_checksum(&mut p[..20]);
    }
    let device = write(&packets);
    assert_eq!(device.frames.len(), 1);
    assert_eq!(device.packets(), packets);
}

#[test]
fn more_flows_than_places_lose_nothing() {
    let packets: Vec<_> = (0..100u32).map(|n| segment(1 + (n % 50) as u16, n / 50 * 1000, ACK, 1000)).collect();
    let device = write(&packets);
    let (mut sent, mut expected) = (device.packets(), packets);
    sent.sort();
    expected.sort();
    assert_eq!(sent, expected);
}

#[test]
fn without_offloads_each_packet_is_a_frame_without_a_header() {
    let mut buffers = Buffers::new(1, 2000);
    let p = segment(1, 0, ACK, 1000);
    buffers.buffer_mut(0).unwrap()[..p.len()].copy_from_slice(&p);
    let mut device = Kept { plain: true, ..Kept::default() };
    let slice = Slice { buffer: 0, start: 0, len: p.len() as u32 };
    Coalescer::default().write(&[slice, slice], &buffers, &mut device, &mut Counters::default());
    assert_eq!(device.frames, [p.clone(), p]);
}

proptest! {
    /// Whatever comes, what the kernel makes of the frames is what came, and each flow in its order.
    #[test]
    fn merging_and_cutting_changes_nothing(
        kinds in proptest::collection::vec((0u16..4, 0u8..8, 1usize..4, any::<bool>()), 0..200)
    ) {
        let mut seq = [0u32; 4];
        let packets: Vec<_> = kinds.iter().map(|(flow, what, size, broken)| {
            let s = &mut seq[usize::from(*flow)];
            let len = size * 400;
            let flags = match what { 0 => ACK | TCP_PSH, 1 => ACK | 1, 2 => 2, _ => ACK };
            let mut p = tcp(A, B, (*flow, 80), *s, flags, &[], &vec![*flow as u8; len]);
            put_u16(&mut p, 4, (*s / 400) as u16);
            write_ipv4_checksum(&mut p[..20]);
            if *broken && *what == 7 { p[60] ^= 4; }
            *s = s.wrapping_add(len as u32);
            p
        }).collect();
        let sent = write(&packets).packets();
        for flow in 0..4u16 {
            let of = |all: &[Vec<u8>]| all.iter().filter(|p| u16_at(p, 20) == flow).map(|p| {
                // With DF the identification means nothing, and a superpacket counts it its own way.
                let mut p = p.clone();
                put_u16(&mut p, 4, 0);
                write_ipv4_checksum(&mut p[..20]);
                p
            }).collect::<Vec<_>>();
            prop_assert_eq!(of(&sent), of(&packets));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..20)) {
        let n = packets.len();
        let device = write(&packets);
        prop_assert_eq!(device.frames.len(), n);
    }
}
