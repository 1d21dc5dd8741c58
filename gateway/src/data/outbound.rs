//! From inside to outside: IPv4, PPP, L2TP, UDP 1701, ESP, UDP or protocol 50.
//!
//! A frame of the inside device is a packet or a superpacket of one flow, so all of it belongs to one session. Its
//! packets are laid into the transmit buffer one behind the other, each with its headers before it and room for what
//! ESP adds, and are sealed there as one batch.

use sallyport_esp::{Packet, sealed_len};
use sallyport_ppp::clamp_mss;

use super::coalesce::InsideDevice;
use super::fast::{Fast, carrier, drop_reason, esp_head, finish_udp, next_headers};
use super::icmp::{Fragments, MAX_ICMP_LEN, fragmentation_needed};
use super::packet::{Ipv4, PROTO_UDP};
use super::segment::Segments;
use super::stats::{Count, DropReason};
use super::transmit::{OutsideDevice, TransmitBatch};
use crate::link::ToControl;

/// Most packets that are sealed at once.
const BATCH: usize = 32;

impl Fast {
    /// Takes one frame of the inside device; `vnet` says whether it begins with a virtio header. What is to be sent is
    /// added to `transmit`, which is sent through `outside` whenever it is full. ICMP errors go back `inside`.
    pub fn outbound(
        &mut self,
        frame: &mut [u8],
        vnet: bool,
        transmit: &mut TransmitBatch,
        outside: &mut impl OutsideDevice,
        inside: &mut impl InsideDevice,
        control: &mut impl ToControl,
    ) {
        let mut segments = match Segments::new(frame, vnet) {
            Ok(segments) => segments,
            Err(why) => return self.counters.drop(why),
        };
        let Some(at) = self.tables.find_client(segments.ip().destination) else {
            return self.counters.drop(DropReason::NoSession);
        };
        let Some(mtu) = self.tables.session_mut(at).map(|s| s.network.mtu) else { return };
        if segments.longest() > usize::from(mtu) {
            return self.too_big(at, mtu, &mut segments, transmit, outside, inside, control);
        }
        while segments.remaining() > 0 {
            if !self.seal_some(at, &mut segments, transmit, outside, control) {
                break;
            }
        }
    }

    /// Seals the next packets of `segments`. `false` if there is nobody to send to.
    #[inline]
    fn seal_some(
        &mut self,
        at: u32,
        segments: &mut Segments<'_>,
        transmit: &mut TransmitBatch,
        outside: &mut impl OutsideDevice,
        control: &mut impl ToControl,
    ) -> bool {
        let wanted = segments.remaining().min(BATCH);
        let Some((session, peer, pair)) = self.tables.outbound_of(at) else {
            self.counters.drop_n(DropReason::NoSa, segments.remaining() as u64);
            return false;
        };
        let sa = &mut pair.sa.outbound;
        let suite = sa.suite();
        let (head, template) = (esp_head(suite), usize::from(session.template_len));
        let slot = sealed_len(suite, template + segments.longest());
        let Some(room) = transmit.room(slot * wanted, outside, &mut self.counters) else {
            self.counters.drop_n(DropReason::OutsideRefused, segments.remaining() as u64);
            return false;
        };
        let mut lens = [0; BATCH];
        let mut n = 0;
        for (chunk, len) in room.chunks_mut(slot).zip(&mut lens) {
            let headers = next_headers(session);
            let Some(udp) = chunk.get_mut(head..) else { break };
            let Some((to, packet)) = udp.split_at_mut_checked(template) else { break };
            to.copy_from_slice(headers.get(..template).unwrap_or_default());
            let Some(ip_len) = segments.next_into(packet) else { break };
            if wanted == 1
                && let Some(packet) = packet.get_mut(..ip_len)
                && segments.ip().is_tcp_syn(packet)
            {
                clamp_mss(packet, session.network.mtu);
            }
            *len = template + ip_len;
            finish_udp(udp.get_mut(..*len).unwrap_or_default(), &peer.path);
            n += 1;
        }
        let lens = lens.get(..n).unwrap_or_default();
        let mut sealed = 0;
        if let [len] = lens {
            match sa.seal(room, head..head + len, PROTO_UDP) {
                Ok(_) => sealed = 1,
                Err(e) => self.counters.drop(drop_reason(e)),
            }
        } else {
            let mut packets: [Packet<'_>; BATCH] = std::array::from_fn(|_| Packet::plain(&mut [], 0..0, PROTO_UDP));
            for ((packet, chunk), len) in packets.iter_mut().zip(room.chunks_mut(slot)).zip(lens) {
                *packet = Packet::plain(chunk, head..head + len, PROTO_UDP);
            }
            let packets = packets.get_mut(..n).unwrap_or_default();
            sealed = sa.seal_batch(packets);
            // An SA at its end lets nothing more through, so what failed is the rest.
            for e in packets.iter().filter_map(|p| p.outcome().err()) {
                self.counters.drop(drop_reason(e));
            }
        }
        let (path, peer_at) = (peer.path, session.peer);
        pair.note_lifetime(pair.sa.outbound.lifetime(), self.tick, control);
        let mut bytes = 0;
        for len in lens.iter().take(sealed) {
            bytes += (len - template) as u64;
            transmit.commit(sealed_len(suite, *len), peer_at, carrier(&path), path.local, path.remote);
        }
        session.counters.packets_out += sealed as u64;
        session.counters.bytes_out += bytes;
        if !session.changed {
            session.changed = true;
            self.changed.push(at);
        }
        self.counters.add(Count::InnerPacketsOut, sealed as u64);
        self.counters.add(Count::InnerBytesOut, bytes);
        sealed > 0
    }

    /// Packets that are longer than the session takes: fragments if they may be cut, an ICMP error if not.
    #[cold]
    #[allow(clippy::too_many_arguments)]
    fn too_big(
        &mut self,
        at: u32,
        mtu: u16,
        segments: &mut Segments<'_>,
        transmit: &mut TransmitBatch,
        outside: &mut impl OutsideDevice,
        inside: &mut impl InsideDevice,
        control: &mut impl ToControl,
    ) {
        let ip = *segments.ip();
        let router = self.tables.session_mut(at).map_or(ip.destination, |s| s.network.router);
        if Fragments::new(segments.packet(), &ip, mtu).is_none() {
            self.counters.drop_n(DropReason::TooBig, segments.remaining() as u64);
            let mut error = [0; MAX_ICMP_LEN];
            if self.icmp_budget > 0
                && let Some(len) = fragmentation_needed(segments.packet(), &ip, router, mtu, &mut error)
            {
                self.icmp_budget -= 1;
                self.counters.add(Count::IcmpSent, 1);
                self.write_inside(error.get(..len).unwrap_or_default(), inside);
            }
            return;
        }
        // A detour through buffers of their own for the whole packet and each fragment: this path is rare.
        let mut whole = std::mem::take(&mut self.scratch);
        let mut cut = [0; u16::MAX as usize];
        while let Some(len) = segments.next_into(&mut whole) {
            let packet = whole.get(..len).unwrap_or_default();
            let fragments = Ipv4::parse(packet).and_then(|ip| Fragments::new(packet, &ip, mtu));
            let Some(mut fragments) = fragments else { break };
            self.counters.add(Count::Fragmented, 1);
            while let Some(len) = fragments.next_into(&mut cut) {
                let Ok(mut one) = Segments::new(cut.get_mut(..len).unwrap_or_default(), false) else { break };
                self.seal_some(at, &mut one, transmit, outside, control);
            }
        }
        self.scratch = whole;
    }
}
