//! The processing core of one worker: tables, counters and the two directions. It touches no socket, device or clock,
//! so that tests and benchmarks drive it as the worker does.

use std::io::IoSlice;
use std::net::Ipv4Addr;

use sallyport_base::PeerId;
use sallyport_esp::EspDrop;

use super::coalesce::InsideDevice;
use super::config::{DataConfig, DataLimits};
use super::packet::{PROTO_UDP, UDP_HEADER_LEN, fold, len16, put_u16, sum};
use super::segment::VnetHeader;
use super::stats::{Count, Counters, DropReason};
use super::tables::{L2TP_PORT, Session, TableFull, Tables};
use super::transmit::{Carrier, NOBODY, OutsideDevice, TransmitBatch};
use crate::link::{FromData, InstallSession, OuterPath, REPORT_CHUNK, SessionCounters, ToControl, ToData};

/// PPP frames for sessions that are not installed (yet) which are handed to the control plane between two ticks. A
/// client sends two or three of them while its session is being installed; a peer that makes ids up gets no further.
const UNKNOWN_SESSION_FRAMES: u32 = 256;

/// ICMP errors between two ticks (RFC 1812 §4.3.2.8 asks for a limit).
const ICMP_ERRORS: u32 = 256;

/// Largest control message that is sent: what fits a UDP datagram with everything around it.
const MAX_CONTROL: usize = 60_000;

/// What [`Fast::apply`] asks its caller to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Go on.
    Continue,
    /// End the worker.
    Stop,
}

/// The core of one worker.
#[derive(Debug)]
pub struct Fast {
    /// Peers, SAs, sessions.
    pub tables: Tables,
    /// What was counted so far.
    pub counters: Counters,
    pub(super) client_to_client: bool,
    pub(super) nat_t_port: u16,
    /// How often [`Fast::report_liveness`] was called; it may wrap around.
    pub(super) tick: u32,
    pub(super) unknown_session_budget: u32,
    pub(super) icmp_budget: u32,
    /// Peers heard of since the last report.
    pub(super) seen: Vec<u32>,
    /// Sessions whose counters changed since the last report.
    pub(super) changed: Vec<u32>,
    /// One packet that is to be fragmented.
    pub(super) scratch: Box<[u8]>,
}

impl Fast {
    /// An empty core.
    pub fn new(config: &DataConfig) -> Self {
        Self::with_limits(config, config.limits)
    }

    /// An empty core with tables of other sizes.
    pub fn with_limits(config: &DataConfig, limits: DataLimits) -> Self {
        Self {
            tables: Tables::new(limits),
            counters: Counters::default(),
            client_to_client: config.client_to_client,
            nat_t_port: config.nat_t_port,
            tick: 0,
            unknown_session_budget: UNKNOWN_SESSION_FRAMES,
            icmp_budget: ICMP_ERRORS,
            seen: Vec::new(),
            changed: Vec::new(),
            scratch: vec![0; usize::from(u16::MAX)].into_boxed_slice(),
        }
    }

    /// Carries out a message of the control plane.
    pub fn apply(
        &mut self,
        message: ToData,
        transmit: &mut TransmitBatch,
        outside: &mut impl OutsideDevice,
        control: &mut impl ToControl,
    ) -> Applied {
        // Groups of packets name peers by their numbers, which a change of the tables may give to others.
        if !message.is_packet() {
            transmit.flush(outside, &mut self.counters);
        }
        match message {
            ToData::InstallSa(sa) => {
                if self.tables.find_sa(sa.spi_in).is_some() {
                    self.forget_reports(control);
                }
                let done = self.tables.install_sa(sa);
                self.count_full(done);
            }
            ToData::RemoveSa { spi_in } => {
                self.forget_reports(control);
                self.tables.remove_sa(spi_in);
            }
            ToData::SwitchOutbound { spi_in } => self.tables.switch_outbound(spi_in),
            ToData::MovePeer { peer, path } => self.tables.move_peer(peer, path),
            ToData::RemovePeer { peer } => {
                self.forget_reports(control);
                self.tables.remove_peer(peer, |last| {
                    control.tell(FromData::CounterSnapshot { sessions: vec![last] });
                });
            }
            ToData::InstallSession(session) => {
                if self.tables.find_session(session.local_tunnel, session.local_session).is_some() {
                    self.forget_reports(control);
                }
                self.install_session(&session);
            }
            ToData::UpdateSession { local_tunnel, local_session, network } => {
                self.tables.update_session(local_tunnel, local_session, network);
            }
            ToData::RemoveSession { local_tunnel, local_session } => {
                self.forget_reports(control);
                if let Some(last) = self.tables.remove_session(local_tunnel, local_session) {
                    control.tell(FromData::CounterSnapshot { sessions: vec![last] });
                }
            }
            ToData::SendIke { local, remote, bytes } => {
                let marker: &[u8] = if local.port() == self.nat_t_port { &sallyport_esp::NON_ESP_MARKER } else { &[] };
                let len = marker.len() + bytes.len();
                if let Some(room) = transmit.room(len, outside, &mut self.counters) {
                    let (head, body) = room.split_at_mut(marker.len());
                    head.copy_from_slice(marker);
                    body.copy_from_slice(&bytes);
                    transmit.commit(len, NOBODY, Carrier::Udp, local, remote);
                }
            }
            ToData::SendL2tpControl { peer, peer_port, bytes } => {
                let mut udp = [0; UDP_HEADER_LEN];
                put_u16(&mut udp, 0, L2TP_PORT);
                put_u16(&mut udp, 2, peer_port);
                self.send_control(peer, &udp, &bytes, transmit, outside, control);
            }
            ToData::SendPpp { local_tunnel, local_session, frame } => {
                let found = self.tables.find_session(local_tunnel, local_session);
                match found.and_then(|at| self.tables.session_and_peer(at)) {
                    Some((session, peer)) => {
                        let (headers, id) = (next_headers(session), peer.id);
                        let headers = headers.get(..usize::from(session.ppp_at)).unwrap_or_default();
                        self.send_control(id, headers, &frame, transmit, outside, control);
                    }
                    None => self.counters.drop(DropReason::UnknownSession),
                }
            }
            ToData::Stop => return Applied::Stop,
        }
        Applied::Continue
    }

    fn install_session(&mut self, session: &InstallSession) {
        match self.tables.install_session(session) {
            Ok(true) => {}
            Ok(false) => self.counters.drop(DropReason::NoSa),
            Err(full) => self.count_full(Err(full)),
        }
    }

    fn count_full(&mut self, result: Result<(), TableFull>) {
        if result.is_err() {
            self.counters.drop(DropReason::TableFull);
        }
    }

    /// Sends `headers` (from the UDP header on) and `body` through the peer's current SA.
    fn send_control(
        &mut self,
        peer: PeerId,
        headers: &[u8],
        body: &[u8],
        transmit: &mut TransmitBatch,
        outside: &mut impl OutsideDevice,
        control: &mut impl ToControl,
    ) {
        let found = self.tables.find_peer(peer);
        let Some((entry, pair)) = found.and_then(|at| self.tables.outbound_mut(at)) else {
            return self.counters.drop(DropReason::NoSa);
        };
        let suite = pair.sa.outbound.suite();
        let payload = headers.len() + body.len();
        let len = sallyport_esp::sealed_len(suite, payload);
        if payload > MAX_CONTROL {
            return self.counters.drop(DropReason::TooBig);
        }
        let Some(room) = transmit.room(len, outside, &mut self.counters) else {
            return self.counters.drop(DropReason::OutsideRefused);
        };
        let start = esp_head(suite);
        if let Some(to) = room.get_mut(start..start + headers.len()) {
            to.copy_from_slice(headers);
        }
        if let Some(to) = room.get_mut(start + headers.len()..start + payload) {
            to.copy_from_slice(body);
        }
        if let Some(udp) = room.get_mut(start..start + payload) {
            finish_udp(udp, &entry.path);
        }
        match pair.sa.outbound.seal(room, start..start + payload, PROTO_UDP) {
            Ok(packet) => {
                let path = entry.path;
                transmit.commit(packet.len(), pair.peer, carrier(&path), path.local, path.remote);
            }
            Err(e) => self.counters.drop(drop_reason(e)),
        }
        pair.note_lifetime(pair.sa.outbound.lifetime(), self.tick, control);
    }

    /// Tells the control plane which peers were heard of, and refills the budgets. To be called about once a second.
    pub fn report_liveness(&mut self, control: &mut impl ToControl) {
        self.tick = self.tick.wrapping_add(1);
        self.unknown_session_budget = UNKNOWN_SESSION_FRAMES;
        self.icmp_budget = ICMP_ERRORS;
        self.tell_seen(control);
    }

    fn tell_seen(&mut self, control: &mut impl ToControl) {
        for chunk in self.seen.chunks(REPORT_CHUNK) {
            let mut peers = Vec::with_capacity(chunk.len());
            for at in chunk {
                if let Some(peer) = self.tables.peer_mut(*at) {
                    peer.seen = false;
                    peers.push(peer.id);
                }
            }
            control.tell(FromData::Liveness { peers });
        }
        self.seen.clear();
    }

    /// Tells the control plane the counters that changed.
    pub fn report_counters(&mut self, control: &mut impl ToControl) {
        for chunk in self.changed.chunks(REPORT_CHUNK) {
            let mut sessions: Vec<SessionCounters> = Vec::with_capacity(chunk.len());
            for at in chunk {
                if let Some(session) = self.tables.session_mut(*at) {
                    session.changed = false;
                    sessions.push(session.counters);
                }
            }
            control.tell(FromData::CounterSnapshot { sessions });
        }
        self.changed.clear();
    }

    /// The lists of what to report name entries by their numbers: they are emptied before a number can change hands.
    fn forget_reports(&mut self, control: &mut impl ToControl) {
        self.tell_seen(control);
        self.report_counters(control);
    }

    /// Writes an IPv4 packet of our own to the inside device.
    pub(super) fn write_inside(&mut self, packet: &[u8], inside: &mut impl InsideDevice) {
        let header = VnetHeader::default().emit();
        self.counters.add(Count::InsideWrites, 1);
        let result = match inside.offload() {
            true => inside.write(&[IoSlice::new(&header), IoSlice::new(packet)]),
            false => inside.write(&[IoSlice::new(packet)]),
        };
        if result.is_err() {
            self.counters.drop(DropReason::InsideRefused);
        }
    }
}

/// Bytes of ESP before the payload.
#[inline]
pub(super) const fn esp_head(suite: sallyport_crypto::suite::EspSuite) -> usize {
    8 + suite.iv_len()
}

/// How packets to the peer travel.
#[inline]
pub(super) const fn carrier(path: &OuterPath) -> Carrier {
    if path.encap { Carrier::Udp } else { Carrier::Esp }
}

/// A session's headers with the next sequence number in them.
#[inline]
pub(super) fn next_headers(session: &mut Session) -> [u8; super::tables::MAX_TEMPLATE] {
    let mut headers = session.template;
    if session.sequencing {
        let (ns, nr) = session.sequence.next_pair();
        // Without a length field Ns stands behind flags and ids.
        put_u16(&mut headers, UDP_HEADER_LEN + 6, ns);
        put_u16(&mut headers, UDP_HEADER_LEN + 8, nr);
    }
    headers
}

/// Writes length and checksum of a UDP datagram. Over IPv4 there is no checksum: ESP protects the packet, and behind a
/// NAT the receiver could not verify one (RFC 3948 §3.1.2). Over IPv6 there must be one (RFC 8200 §8.1).
#[inline]
pub(super) fn finish_udp(udp: &mut [u8], path: &OuterPath) {
    let len = udp.len();
    put_u16(udp, 4, len16(len));
    put_u16(udp, 6, 0);
    if let (std::net::IpAddr::V6(local), std::net::IpAddr::V6(remote)) = (path.local.ip(), path.remote.ip()) {
        let [a, b] = len16(len).to_be_bytes();
        let pseudo = sum(&[0, PROTO_UDP, a, b], sum(&local.octets(), sum(&remote.octets(), 0)));
        let checksum = !fold(sum(udp, pseudo));
        put_u16(udp, 6, if checksum == 0 { 0xffff } else { checksum });
    }
}

/// The data plane's name for what ESP refused.
pub(super) const fn drop_reason(e: EspDrop) -> DropReason {
    match e {
        EspDrop::UnknownSpi => DropReason::UnknownSpi,
        EspDrop::Truncated => DropReason::Truncated,
        EspDrop::BadIcv => DropReason::Integrity,
        EspDrop::Replayed | EspDrop::TooOld => DropReason::Replayed,
        EspDrop::Expired | EspDrop::SequenceExhausted => DropReason::SaExpired,
        EspDrop::BadLength | EspDrop::BadPadding | EspDrop::Dummy | EspDrop::NoRoom => DropReason::EspMalformed,
    }
}

/// Whether an address is anybody's at all.
pub(super) const fn is_set(a: Ipv4Addr) -> bool {
    !a.is_unspecified()
}
