//! From IPv4 packets to frames of the inside device: in-order packets of one TCP or UDP flow are written as one
//! superpacket, straight from the buffers that they were decrypted in.
//!
//! The rules are those of the kernel's own receive offload: headers must be equal but for what segmentation changes, and
//! cutting the superpacket again must give the very packets back. Checksums are verified before packets are merged,
//! because the superpacket's own is made anew and would hide what was broken.

use std::io::{self, IoSlice};

use super::buffer::{Buffers, Slice};
use super::packet::{
    Ipv4, PROTO_TCP, PROTO_UDP, UDP_HEADER_LEN, fold, len16, pseudo_sum, put_u16, sum, u16_at, u32_at,
    write_ipv4_checksum,
};
use super::segment::{F_NEEDS_CSUM, GSO_TCPV4, GSO_UDP_L4, VnetHeader};
use super::stats::{Count, Counters, DropReason};
use crate::net::{Tun, VNET_HEADER_LEN};

/// Most packets of one superpacket: the kernel's own bound for UDP, and close to what 64 KiB hold anyway.
pub const MAX_MERGE: usize = 64;

/// Most flows that are merged at once; a packet of one more flow sends the oldest off.
const FLOWS: usize = 16;

/// The longest headers of a superpacket: IPv4 with options is never merged, TCP has at most 60 bytes.
const MAX_HEADERS: usize = 20 + 60;

const TCP_ACK: u8 = 0x10;
const TCP_PSH: u8 = 0x08;

/// Where inner packets go: the TUN device, or whatever a test or benchmark puts in its place.
pub trait InsideDevice {
    /// Whether frames begin with a [`VnetHeader`], and superpackets of TCP are taken.
    fn offload(&self) -> bool;
    /// Whether superpackets of UDP are taken.
    fn uso(&self) -> bool;
    /// Writes one frame that lies in several places.
    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()>;
}

impl InsideDevice for Tun {
    fn offload(&self) -> bool {
        Self::offload(self)
    }
    fn uso(&self) -> bool {
        Self::uso(self)
    }
    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        Self::write(self, parts).map(|_| ())
    }
}

/// A flow, for a first comparison: addresses, ports and protocol.
type Key = (u64, u32, u8);

/// Packets of one flow that will be one superpacket.
#[derive(Clone, Debug)]
struct Run {
    key: Key,
    /// IPv4 and TCP or UDP headers of each packet.
    header_len: usize,
    /// Payload of each packet but the last.
    size: usize,
    /// Length of the superpacket so far.
    total: usize,
    /// TCP: the next sequence number.
    next_seq: u32,
    /// The IPv4 identification that the next packet must have where that matters.
    next_id: u16,
    /// Nothing can follow: PSH was seen, or a short packet.
    closed: bool,
    /// Whether the last packet pushes.
    push: bool,
    /// Whether the first packet's checksum was verified.
    verified: bool,
    packets: [Slice; MAX_MERGE],
    n: usize,
}

impl Run {
    const EMPTY: Self = Self {
        key: (0, 0, 0),
        header_len: 0,
        size: 0,
        total: 0,
        next_seq: 0,
        next_id: 0,
        closed: true,
        push: false,
        verified: false,
        packets: [Slice::EMPTY; MAX_MERGE],
        n: 0,
    };

    fn packets(&self) -> &[Slice] {
        self.packets.get(..self.n).unwrap_or_default()
    }
}

/// What a packet is to merging.
enum Kind {
    /// Belongs to no flow that could be open: any order will do.
    Loose,
    /// Belongs to a flow but ends what is open of it: no payload, SYN, FIN, RST, options.
    Barrier(Key),
    /// Payload of a flow.
    Mergeable(Key, Ipv4, Candidate),
}

struct Candidate {
    header_len: usize,
    payload: usize,
    push: bool,
    seq: u32,
    id: u16,
}

/// The state of merging; empty between two calls.
#[derive(Debug)]
pub struct Coalescer {
    runs: Box<[Run; FLOWS]>,
    /// The oldest open run, and how many there are.
    first: usize,
    open: usize,
}

impl Default for Coalescer {
    fn default() -> Self {
        Self { runs: Box::new(std::array::from_fn(|_| Run::EMPTY)), first: 0, open: 0 }
    }
}

impl Coalescer {
    /// Writes `packets` to the device, merged where that is possible. Packets of one flow stay in order.
    pub fn write(
        &mut self,
        packets: &[Slice],
        buffers: &Buffers,
        device: &mut impl InsideDevice,
        counters: &mut Counters,
    ) {
        let merge = device.offload();
        for slice in packets {
            let Some(bytes) = buffers.get(*slice) else { continue };
            match if merge { classify(bytes, device.uso()) } else { Kind::Loose } {
                Kind::Loose => write_one(bytes, device, counters),
                Kind::Barrier(key) => {
                    self.close(key, buffers, device, counters);
                    write_one(bytes, device, counters);
                }
                Kind::Mergeable(key, ip, candidate) => {
                    if !self.append(key, &ip, &candidate, *slice, bytes, buffers) {
                        self.close(key, buffers, device, counters);
                        self.start(key, &candidate, *slice, bytes, buffers, device, counters);
                    }
                }
            }
        }
        while self.open > 0 {
            self.emit_first(buffers, device, counters);
        }
    }

    fn index(&self, nth: usize) -> usize {
        (self.first + nth) % FLOWS
    }

    fn find(&self, key: Key) -> Option<usize> {
        (0..self.open).map(|n| self.index(n)).find(|i| self.runs.get(*i).is_some_and(|r| r.n > 0 && r.key == key))
    }

    /// Adds the packet to its flow's run if cutting the run again would give it back.
    fn append(&mut self, key: Key, ip: &Ipv4, c: &Candidate, slice: Slice, bytes: &[u8], buffers: &Buffers) -> bool {
        let Some(run) = self.find(key).and_then(|i| self.runs.get_mut(i)) else { return false };
        let Some(first) = run.packets().first().and_then(|s| buffers.get(*s)) else { return false };
        let fits = !run.closed
            && run.n < MAX_MERGE
            && c.payload <= run.size
            && run.total + c.payload <= usize::from(u16::MAX)
            && c.header_len == run.header_len
            && (ip.protocol == PROTO_UDP || c.seq == run.next_seq)
            && (ip.dont_fragment || c.id == run.next_id)
            && same_headers(first, bytes, ip);
        if !fits || !checksum_is_right(bytes, ip) {
            return false;
        }
        if !run.verified {
            let Some(first_ip) = Ipv4::parse(first) else { return false };
            if !checksum_is_right(first, &first_ip) {
                return false;
            }
            run.verified = true;
        }
        let Some(slot) = run.packets.get_mut(run.n) else { return false };
        *slot = slice;
        run.n += 1;
        run.total += c.payload;
        run.next_seq = c.seq.wrapping_add(u32::from(len16(c.payload)));
        run.next_id = c.id.wrapping_add(1);
        run.push = c.push;
        run.closed = c.push || c.payload < run.size;
        true
    }

    #[allow(clippy::too_many_arguments)]
    fn start(
        &mut self,
        key: Key,
        c: &Candidate,
        slice: Slice,
        bytes: &[u8],
        buffers: &Buffers,
        device: &mut impl InsideDevice,
        counters: &mut Counters,
    ) {
        if self.open == FLOWS {
            self.emit_first(buffers, device, counters);
        }
        let at = self.index(self.open);
        let Some(run) = self.runs.get_mut(at) else { return };
        run.key = key;
        run.header_len = c.header_len;
        run.size = c.payload;
        run.total = bytes.len();
        run.next_seq = c.seq.wrapping_add(u32::from(len16(c.payload)));
        run.next_id = c.id.wrapping_add(1);
        run.closed = c.push;
        run.push = c.push;
        run.verified = false;
        run.n = 1;
        if let Some(slot) = run.packets.first_mut() {
            *slot = slice;
        }
        self.open += 1;
    }

    /// Writes what is open of a flow. The place of its run stays empty until it is the oldest.
    fn close(&mut self, key: Key, buffers: &Buffers, device: &mut impl InsideDevice, counters: &mut Counters) {
        if let Some(run) = self.find(key).and_then(|i| self.runs.get_mut(i)) {
            write_run(run, buffers, device, counters);
            run.n = 0;
        }
    }

    fn emit_first(&mut self, buffers: &Buffers, device: &mut impl InsideDevice, counters: &mut Counters) {
        if let Some(run) = self.runs.get_mut(self.first) {
            if run.n > 0 {
                write_run(run, buffers, device, counters);
            }
            run.n = 0;
        }
        self.first = self.index(1);
        self.open = self.open.saturating_sub(1);
    }
}

fn classify(bytes: &[u8], uso: bool) -> Kind {
    let Some(ip) = Ipv4::parse(bytes) else { return Kind::Loose };
    if ip.fragment || ip.total_len != bytes.len() || !matches!(ip.protocol, PROTO_TCP | PROTO_UDP) {
        return Kind::Loose;
    }
    let Some(ports) = bytes.get(ip.header_len..ip.header_len + 4) else { return Kind::Loose };
    let addresses = u64::from(ip.source.to_bits()) << 32 | u64::from(ip.destination.to_bits());
    let key = (addresses, u32_at(ports, 0), ip.protocol);
    if ip.header_len != 20 {
        return Kind::Barrier(key);
    }
    let id = u16_at(bytes, 4);
    if ip.protocol == PROTO_TCP {
        let (Some(offset), Some(flags)) = (bytes.get(32), bytes.get(33)) else { return Kind::Barrier(key) };
        let header_len = 20 + usize::from(offset >> 4) * 4;
        let payload = bytes.len().saturating_sub(header_len);
        if header_len < 40 || payload == 0 || flags & !TCP_PSH != TCP_ACK {
            return Kind::Barrier(key);
        }
        let push = flags & TCP_PSH != 0;
        return Kind::Mergeable(key, ip, Candidate { header_len, payload, push, seq: u32_at(bytes, 24), id });
    }
    let header_len = 20 + UDP_HEADER_LEN;
    let payload = bytes.len().saturating_sub(header_len);
    let whole = usize::from(u16_at(bytes, 24)) == payload + UDP_HEADER_LEN;
    if !uso || payload == 0 || !whole || u16_at(bytes, 26) == 0 {
        return Kind::Barrier(key);
    }
    Kind::Mergeable(key, ip, Candidate { header_len, payload, push: false, seq: 0, id })
}

/// Whether the headers differ only in what segmentation writes anew: lengths, identification, checksums, sequence
/// number and PSH.
fn same_headers(a: &[u8], b: &[u8], ip: &Ipv4) -> bool {
    let same = |from: usize, to: usize| a.get(from..to).is_some_and(|x| Some(x) == b.get(from..to));
    let ip_same = same(0, 2) && same(6, 10);
    if ip.protocol == PROTO_UDP {
        return ip_same; // addresses and ports are the key
    }
    let end = 20 + usize::from(b.get(32).map_or(0, |o| o >> 4)) * 4;
    let flags = |p: &[u8]| p.get(33).map(|f| f & !TCP_PSH);
    ip_same && same(28, 33) && flags(a) == flags(b) && same(34, 36) && same(38, end.max(40))
}

fn checksum_is_right(bytes: &[u8], ip: &Ipv4) -> bool {
    let Some(segment) = bytes.get(ip.header_len..ip.total_len) else { return false };
    let header = bytes.get(..ip.header_len).unwrap_or_default();
    fold(sum(segment, pseudo_sum(ip.source, ip.destination, ip.protocol, segment.len()))) == 0xffff
        && fold(sum(header, 0)) == 0xffff
}

fn write_one(bytes: &[u8], device: &mut impl InsideDevice, counters: &mut Counters) {
    let header = VnetHeader::default().emit();
    let result = match device.offload() {
        true => device.write(&[IoSlice::new(&header), IoSlice::new(bytes)]),
        false => device.write(&[IoSlice::new(bytes)]),
    };
    count(result, 1, counters);
}

fn write_run(run: &Run, buffers: &Buffers, device: &mut impl InsideDevice, counters: &mut Counters) {
    let Some(first) = run.packets().first().and_then(|s| buffers.get(*s)) else { return };
    if run.n == 1 {
        return write_one(first, device, counters);
    }
    let mut head = [0; VNET_HEADER_LEN + MAX_HEADERS];
    let Some(headers) = first.get(..run.header_len) else { return };
    let Some(to) = head.get_mut(VNET_HEADER_LEN..VNET_HEADER_LEN + run.header_len) else { return };
    to.copy_from_slice(headers);
    let Some(ip) = Ipv4::parse(first) else { return };
    let (ip_header, transport) = to.split_at_mut(ip.header_len);
    put_u16(ip_header, 2, len16(run.total));
    write_ipv4_checksum(ip_header);
    let (gso_type, csum_offset) = match ip.protocol {
        PROTO_TCP => (GSO_TCPV4, 16),
        _ => (GSO_UDP_L4, 6),
    };
    if ip.protocol == PROTO_TCP {
        if let Some(flags) = transport.get_mut(13) {
            *flags |= if run.push { TCP_PSH } else { 0 };
        }
    } else {
        put_u16(transport, 4, len16(run.total - ip.header_len));
    }
    let pseudo = fold(pseudo_sum(ip.source, ip.destination, ip.protocol, run.total - ip.header_len));
    put_u16(transport, usize::from(csum_offset), pseudo);
    let vnet = VnetHeader {
        flags: F_NEEDS_CSUM,
        gso_type,
        hdr_len: len16(run.header_len),
        gso_size: len16(run.size),
        csum_start: len16(ip.header_len),
        csum_offset,
    };
    if let Some(v) = head.get_mut(..VNET_HEADER_LEN) {
        v.copy_from_slice(&vnet.emit());
    }
    let mut parts = [IoSlice::new(&[]); MAX_MERGE + 1];
    let heads = head.get(..VNET_HEADER_LEN + run.header_len).unwrap_or_default();
    let payloads =
        run.packets().iter().map(|s| buffers.get(*s).and_then(|p| p.get(run.header_len..)).unwrap_or_default());
    for (part, bytes) in parts.iter_mut().zip(std::iter::once(heads).chain(payloads)) {
        *part = IoSlice::new(bytes);
    }
    count(device.write(parts.get(..=run.n).unwrap_or_default()), run.n as u64, counters);
}

fn count(result: io::Result<()>, packets: u64, counters: &mut Counters) {
    counters.add(Count::InsideWrites, 1);
    if result.is_err() {
        counters.drop_n(DropReason::InsideRefused, packets);
    }
}

#[cfg(test)]
pub(super) mod tests;
