//! What a worker is about to send outside: packets one behind the other in one buffer, equal ones grouped so that one
//! system call takes them all.

use std::io;
use std::net::SocketAddr;

use super::stats::{Count, Counters, DropReason};

/// Size of the buffer. A superpacket of the inside device fills an eighth of it; when it is full it is sent.
const ARENA: usize = 512 << 10;

/// Most datagrams of one send (the kernel's `UDP_MAX_SEGMENTS` of old).
pub const MAX_SEGMENTS: usize = 64;

/// Most bytes of one send: the largest IPv4 packet less its headers, with a little room.
const MAX_SEND: usize = 65_000;

/// Groups in one batch; more are sent before they are added.
const MAX_GROUPS: usize = 256;

/// The group of packets that go nowhere twice.
pub const NOBODY: u32 = u32::MAX;

/// How a packet travels outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// In a UDP datagram from a port of ours.
    Udp,
    /// As IP protocol 50.
    Esp,
}

/// One send: a datagram, or equal ones to one peer.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// UDP or protocol 50.
    pub carrier: Carrier,
    /// Our address.
    pub local: SocketAddr,
    /// Where to.
    pub remote: SocketAddr,
    /// Length of each packet but the last, which may be shorter.
    pub segment: usize,
    /// How many packets there are.
    pub packets: usize,
    peer: u32,
    start: usize,
    end: usize,
    open: bool,
}

/// Where packets go outside: the sockets, or whatever a test or benchmark puts in their place.
pub trait OutsideDevice {
    /// Sends the packets of one group.
    fn send(&mut self, group: &Group, bytes: &[u8]) -> io::Result<()>;
}

/// Packets to be sent.
#[derive(Debug)]
pub struct TransmitBatch {
    arena: Box<[u8]>,
    used: usize,
    groups: Vec<Group>,
}

impl Default for TransmitBatch {
    fn default() -> Self {
        Self { arena: vec![0; ARENA].into_boxed_slice(), used: 0, groups: Vec::with_capacity(MAX_GROUPS) }
    }
}

impl TransmitBatch {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Room for `len` bytes at the end, to be filled and then [committed](Self::commit). If there is none, what is
    /// there is sent first. `None` if `len` is more than the whole buffer.
    #[inline]
    pub fn room(&mut self, len: usize, outside: &mut impl OutsideDevice, counters: &mut Counters) -> Option<&mut [u8]> {
        if self.used + len > self.arena.len() || self.groups.len() >= MAX_GROUPS {
            self.flush(outside, counters);
        }
        self.arena.get_mut(self.used..self.used + len)
    }

    /// Takes the next `len` bytes of the room as one packet to `peer` (or [`NOBODY`]'s).
    #[inline]
    pub fn commit(&mut self, len: usize, peer: u32, carrier: Carrier, local: SocketAddr, remote: SocketAddr) {
        let end = self.used + len;
        match self.groups.last_mut() {
            Some(g) if g.takes(len, peer, carrier, local, remote) => {
                g.end = end;
                g.packets += 1;
                g.open = len == g.segment;
            }
            _ => {
                let open = peer != NOBODY && carrier == Carrier::Udp;
                let start = self.used;
                self.groups.push(Group { carrier, local, remote, segment: len, packets: 1, peer, start, end, open });
            }
        }
        self.used = end;
    }

    /// Sends everything, in order.
    pub fn flush(&mut self, outside: &mut impl OutsideDevice, counters: &mut Counters) {
        for group in &self.groups {
            let bytes = self.arena.get(group.start..group.end).unwrap_or_default();
            counters.add(Count::SendCalls, 1);
            match outside.send(group, bytes) {
                Ok(()) => {
                    counters.add(Count::OuterPacketsOut, group.packets as u64);
                    counters.add(Count::OuterBytesOut, bytes.len() as u64);
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    counters.drop_n(DropReason::NoSocket, group.packets as u64);
                }
                Err(_) => counters.drop_n(DropReason::OutsideRefused, group.packets as u64),
            }
        }
        self.groups.clear();
        self.used = 0;
    }
}

impl Group {
    #[inline]
    fn takes(&self, len: usize, peer: u32, carrier: Carrier, local: SocketAddr, remote: SocketAddr) -> bool {
        self.open
            && self.peer == peer
            && len <= self.segment
            && self.packets < MAX_SEGMENTS
            && self.end - self.start + len <= MAX_SEND
            && self.carrier == carrier
            && self.local == local
            && self.remote == remote
    }
}
