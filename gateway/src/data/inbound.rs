//! From outside to inside: UDP or protocol 50, ESP, UDP 1701, L2TP, PPP, IPv4.
//!
//! Packets of one SA that follow one another are opened as one batch, in the buffers that they were received in; what
//! comes out is a list of places in these buffers. Nothing is copied but what goes to the control plane.

use std::net::SocketAddr;

use sallyport_base::PeerId;
use sallyport_esp::{Packet, UdpEncap};
use sallyport_l2tp::header;
use sallyport_ppp::{clamp_mss, strip};

use super::buffer::Slice;
use super::fast::{Fast, drop_reason, is_set};
use super::packet::{Ipv4, PROTO_UDP, UDP_HEADER_LEN, u16_at, u32_at};
use super::receive::ReceiveBatch;
use super::stats::{Count, DropReason};
use super::tables::L2TP_PORT;
use crate::link::{FromData, OuterPath, ToControl};
use crate::net::Role;

/// Most packets that are opened at once.
const BATCH: usize = 32;

/// The shortest ISAKMP message: a header (RFC 2408 §3.1). What is shorter is not worth a message to control.
const MIN_IKE: usize = 28;

/// Longest IKE message that is passed on. Chains of certificates make up to some 5 KiB; a stranger who sends 64 KiB at a time
/// only wants our memory.
const MAX_IKE: usize = 16 << 10;

/// IPv4 in PPP (IANA "PPP DLL Protocol Numbers").
const PPP_IPV4: u16 = 0x0021;

/// Flags of the L2TP data header that nearly every client sends: version 2 and nothing else.
const PLAIN_DATA: u16 = 0x0002;

/// Where a packet of a batch came from.
#[derive(Clone, Copy)]
struct Origin {
    buffer: u16,
    start: usize,
    /// Which entry of [`ReceiveBatch::filled`].
    received: usize,
    /// ESP sequence number, as far as it is in the packet.
    seq: u32,
}

/// ESP packets of one SA, waiting to be opened together.
struct Pending<'b> {
    sa: u32,
    packets: [Packet<'b>; BATCH],
    origins: [Origin; BATCH],
    n: usize,
}

impl Fast {
    /// Takes all packets of `batch`. Where IPv4 packets for the inside lie afterwards is added to `inner`, in order;
    /// everything else goes to `control` or is dropped and counted.
    pub fn inbound(&mut self, batch: &mut ReceiveBatch, inner: &mut Vec<Slice>, control: &mut impl ToControl) {
        let ReceiveBatch { buffers, filled } = batch;
        let none = Origin { buffer: 0, start: 0, received: 0, seq: 0 };
        let mut pending = Pending {
            sa: u32::MAX,
            packets: std::array::from_fn(|_| Packet::sealed(&mut [])),
            origins: [none; BATCH],
            n: 0,
        };
        for ((at, from), buffer) in filled.iter().enumerate().zip(buffers.iter_mut()) {
            let bytes = buffer.get_mut(..from.len).unwrap_or_default();
            self.counters.add(Count::OuterBytesIn, bytes.len() as u64);
            let mut start = 0;
            for datagram in bytes.chunks_mut(from.stride.max(1)) {
                self.counters.add(Count::OuterPacketsIn, 1);
                let mut origin = Origin { buffer: at as u16, start, received: at, seq: 0 };
                start += datagram.len();
                let esp = match self.sort(from.role, from.local, from.remote, datagram, control) {
                    Some(skip) => {
                        origin.start += skip.start;
                        datagram.get_mut(skip).unwrap_or_default()
                    }
                    None => continue,
                };
                let Some(sa) = sallyport_esp::spi(esp).and_then(|spi| self.tables.find_sa(spi)) else {
                    self.counters.drop(DropReason::UnknownSpi);
                    continue;
                };
                origin.seq = u32_at(esp, 4);
                if pending.sa != sa || pending.n == BATCH {
                    self.open(&mut pending, filled, inner, control);
                    pending.sa = sa;
                }
                if let (Some(p), Some(o)) = (pending.packets.get_mut(pending.n), pending.origins.get_mut(pending.n)) {
                    *p = Packet::sealed(esp);
                    *o = origin;
                    pending.n += 1;
                }
            }
        }
        self.open(&mut pending, filled, inner, control);
        filled.clear();
    }

    /// Where the ESP packet lies in a datagram; anything else is dealt with here.
    #[inline]
    fn sort(
        &mut self,
        role: Role,
        local: SocketAddr,
        remote: SocketAddr,
        datagram: &[u8],
        control: &mut impl ToControl,
    ) -> Option<std::ops::Range<usize>> {
        match role {
            Role::NatT => match sallyport_esp::classify(datagram) {
                UdpEncap::Esp(_) => return Some(0..datagram.len()),
                UdpEncap::Ike(message) => self.ike(local, remote, message, control),
                UdpEncap::Keepalive => self.counters.add(Count::Keepalives, 1),
                UdpEncap::Malformed => self.counters.drop(DropReason::Truncated),
            },
            Role::Esp if local.is_ipv6() => return Some(0..datagram.len()),
            Role::Esp => match Ipv4::parse(datagram) {
                Some(ip) => return Some(ip.header_len..ip.total_len),
                None => self.counters.drop(DropReason::Truncated),
            },
            Role::Ike => self.ike(local, remote, datagram, control),
            Role::ClearL2tp => self.counters.drop(DropReason::L2tpInClear),
        }
        None
    }

    fn ike(&mut self, local: SocketAddr, remote: SocketAddr, message: &[u8], control: &mut impl ToControl) {
        if message.len() < MIN_IKE {
            return self.counters.drop(DropReason::Truncated);
        }
        if message.len() > MAX_IKE {
            return self.counters.drop(DropReason::IkeTooLong);
        }
        self.counters.add(Count::IkeIn, 1);
        control.tell(FromData::IkeDatagram { local, remote, bytes: message.to_vec() });
    }

    /// Opens what is pending and takes what is inside.
    fn open(
        &mut self,
        pending: &mut Pending<'_>,
        filled: &[super::receive::Received],
        inner: &mut Vec<Slice>,
        control: &mut impl ToControl,
    ) {
        let n = std::mem::take(&mut pending.n);
        let packets = pending.packets.get_mut(..n).unwrap_or_default();
        if packets.is_empty() {
            return;
        }
        let Some(pair) = self.tables.sa_mut(pending.sa) else { return };
        pair.sa.inbound.open_batch(packets);
        let (peer_at, id, newest) = (pair.peer, pair.sa.peer, pair.sa.inbound.seq());
        pair.note_lifetime(pair.sa.inbound.lifetime(), self.tick, control);
        let mut heard = false;
        for (packet, origin) in packets.iter_mut().zip(&pending.origins) {
            if let Err(e) = packet.outcome() {
                self.counters.drop(drop_reason(e));
                continue;
            }
            heard = true;
            // An older packet proves nothing: whoever held it back could draw the traffic to himself.
            if u64::from(origin.seq) == newest & 0xffff_ffff
                && let Some(from) = filled.get(origin.received)
                && from.role == Role::NatT
            {
                self.follow(peer_at, from.local, from.remote, control);
            }
            let start = origin.start + packet.range().start;
            let is_udp = packet.next_header() == PROTO_UDP;
            match if is_udp { self.l2tp(peer_at, id, packet.data_mut(), control) } else { Err(DropReason::NotL2tp) } {
                Ok(Some((at, len))) => {
                    inner.push(Slice { buffer: origin.buffer, start: (start + at) as u32, len: len as u32 });
                }
                Ok(None) => {}
                Err(why) => self.counters.drop(why),
            }
        }
        if heard
            && let Some(peer) = self.tables.peer_mut(peer_at)
            && !peer.seen
        {
            peer.seen = true;
            self.seen.push(peer_at);
        }
    }

    /// Sends to where the newest authenticated packet came from (RFC 3947 §5).
    #[inline]
    fn follow(&mut self, peer: u32, local: SocketAddr, remote: SocketAddr, control: &mut impl ToControl) {
        let Some(peer) = self.tables.peer_mut(peer) else { return };
        if !peer.path.encap || (peer.path.remote == remote && peer.path.local == local) {
            return;
        }
        // IKE must follow too: if it cannot be told now, the next packet tries again.
        if control.tell(FromData::PeerMoved { peer: peer.id, local, remote }) {
            peer.path = OuterPath { local, remote, encap: true };
            self.counters.add(Count::PeersMoved, 1);
        }
    }

    /// Takes a UDP datagram of a peer; gives place and length of an IPv4 packet in it that is for the inside.
    #[inline]
    fn l2tp(
        &mut self,
        peer: u32,
        id: PeerId,
        udp: &mut [u8],
        control: &mut impl ToControl,
    ) -> Result<Option<(usize, usize)>, DropReason> {
        let (source, destination, len) = (u16_at(udp, 0), u16_at(udp, 2), usize::from(u16_at(udp, 4)));
        if destination != L2TP_PORT {
            return Err(DropReason::NotL2tp);
        }
        // The UDP checksum is not looked at: a NAT that changed the addresses made it wrong (RFC 3948 §3.1.2).
        let message = udp.get_mut(UDP_HEADER_LEN..len).ok_or(DropReason::Truncated)?;
        if header::Packet::is_control(message) {
            self.counters.add(Count::L2tpControlIn, 1);
            control.tell(FromData::L2tpControl { peer: id, peer_port: source, bytes: message.to_vec() });
            return Ok(None);
        }
        let (tunnel, session, sequence, start, frame_len) = if message.len() > 6 && u16_at(message, 0) == PLAIN_DATA {
            let ids = u32_at(message, 2);
            ((ids >> 16) as u16, ids as u16, None, 6, message.len() - 6)
        } else {
            let (h, frame) = header::DataHeader::parse(message).map_err(|_| DropReason::L2tpMalformed)?;
            let offset = h.offset.map_or(0, |pad| 2 + usize::from(pad));
            (h.tunnel_id, h.session_id, h.sequence, h.emitted_len() + offset, frame.len())
        };
        let frame = message.get_mut(start..start + frame_len).ok_or(DropReason::L2tpMalformed)?;
        let (protocol, ip_len) = match strip(frame) {
            Some((protocol, packet)) => (protocol, packet.len()),
            None => return Err(DropReason::PppMalformed),
        };
        let to_control = FromDataFrame { peer: id, tunnel, session };
        let Some(at) = self.tables.find_session(tunnel, session) else {
            if protocol == PPP_IPV4 || self.unknown_session_budget == 0 {
                return Err(DropReason::UnknownSession);
            }
            self.unknown_session_budget -= 1;
            self.counters.add(Count::PppIn, 1);
            control.tell(to_control.with(frame));
            return Ok(None);
        };
        let client_to_client = self.client_to_client;
        let Some(entry) = self.tables.session_mut(at) else { return Err(DropReason::UnknownSession) };
        if entry.peer != peer {
            return Err(DropReason::WrongPeer);
        }
        if let Some((ns, _)) = sequence {
            // Taken in any order: IPv4 does not mind, and holding packets back would need a clock here.
            let _ = entry.sequence.accept(ns);
        }
        if protocol != PPP_IPV4 {
            self.counters.add(Count::PppIn, 1);
            control.tell(to_control.with(frame));
            return Ok(None);
        }
        let network = entry.network;
        if !network.opened {
            return Err(DropReason::NotOpened);
        }
        let ip_start = frame.len() - ip_len;
        let packet = frame.get_mut(ip_start..).ok_or(DropReason::InnerMalformed)?;
        let ip = Ipv4::parse(packet).ok_or(DropReason::InnerMalformed)?;
        if ip.source != network.client && !network.default_route {
            return Err(DropReason::SpoofedSource);
        }
        if ip.is_tcp_syn(packet) {
            clamp_mss(packet.get_mut(..ip.total_len).unwrap_or_default(), network.mtu);
        }
        entry.counters.packets_in += 1;
        entry.counters.bytes_in += ip.total_len as u64;
        if !entry.changed {
            entry.changed = true;
            self.changed.push(at);
        }
        if !client_to_client && is_set(ip.destination) && self.tables.is_client(ip.destination) {
            return Err(DropReason::ClientToClient);
        }
        self.counters.add(Count::InnerPacketsIn, 1);
        self.counters.add(Count::InnerBytesIn, ip.total_len as u64);
        Ok(Some((UDP_HEADER_LEN + start + ip_start, ip.total_len)))
    }
}

/// A frame on its way to the control plane.
#[derive(Clone, Copy)]
struct FromDataFrame {
    peer: PeerId,
    tunnel: u16,
    session: u16,
}

impl FromDataFrame {
    fn with(self, frame: &[u8]) -> FromData {
        let Self { peer, tunnel, session } = self;
        FromData::PppFrame { peer, local_tunnel: tunnel, local_session: session, frame: frame.to_vec() }
    }
}
