//! A core with clients around it, for tests: what the worker does, without sockets, device and clock.

use std::net::{Ipv4Addr, SocketAddr};

use sallyport_base::PeerId;
use sallyport_crypto::Rng;
use sallyport_crypto::suite::EspSuite;
use sallyport_esp::{HEAD_ROOM, InboundSa, OutboundSa, SaConfig, TAIL_ROOM};

use super::coalesce::Coalescer;
use super::coalesce::tests::Kept;
use super::config::DataConfig;
use super::fast::Fast;
use super::packet::{len16, put_u16};
use super::receive::ReceiveBatch;
use super::transmit::{Carrier, Group, OutsideDevice, TransmitBatch};
use crate::link::{FromData, InstallSa, InstallSession, OuterPath, SessionNetwork, ToData};
use crate::net::Role;

pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
pub(super) const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
pub(super) const MTU: u16 = 1400;

pub(super) fn addr(s: &str) -> SocketAddr {
    s.parse().unwrap()
}

/// What was sent outside: one entry for each packet, and how many sends it took.
#[derive(Default)]
pub(super) struct Sent {
    pub(super) packets: Vec<(Carrier, SocketAddr, SocketAddr, Vec<u8>)>,
    pub(super) sends: usize,
}

impl OutsideDevice for Sent {
    fn send(&mut self, group: &Group, bytes: &[u8]) -> std::io::Result<()> {
        self.sends += 1;
        let packets: Vec<_> = bytes.chunks(group.segment).collect();
        assert_eq!(packets.len(), group.packets);
        for p in packets {
            self.packets.push((group.carrier, group.local, group.remote, p.to_vec()));
        }
        Ok(())
    }
}

/// A client's end of a pair of SAs and of one session.
pub(super) struct Client {
    pub(super) peer: PeerId,
    pub(super) spi_in: u32,
    pub(super) path: OuterPath,
    pub(super) outbound: OutboundSa,
    pub(super) inbound: InboundSa,
    /// The gateway's ids.
    pub(super) ids: (u16, u16),
    pub(super) address: Ipv4Addr,
}

/// Both ends of a pair of SAs.
pub(super) fn pair(suite: EspSuite, peer: PeerId, spi_in: u32, path: OuterPath) -> (InstallSa, OutboundSa, InboundSa) {
    let mut rng = Rng::from_seed([spi_in as u8; 32]);
    let spi_out = spi_in ^ 0x5555_0000;
    let mut config = |spi| {
        let mut keymat = vec![0; suite.keymat_len()];
        rng.fill(&mut keymat);
        SaConfig::new(spi, suite.split_keymat(&keymat).unwrap())
    };
    let (up, down) = (config(spi_in), config(spi_out));
    let install = InstallSa {
        peer,
        spi_in,
        spi_out,
        inbound: InboundSa::new(&up),
        outbound: OutboundSa::new(&down, &mut rng),
        path,
        activate: true,
    };
    (install, OutboundSa::new(&up, &mut rng), InboundSa::new(&down))
}

pub(super) fn network(client: Ipv4Addr) -> SessionNetwork {
    SessionNetwork { opened: true, client, router: ROUTER, mtu: MTU, ..SessionNetwork::closed() }
}

impl Client {
    /// ESP around a UDP datagram to port 1701.
    pub(super) fn seal(&mut self, l2tp: &[u8]) -> Vec<u8> {
        let mut udp = vec![0; 8];
        put_u16(&mut udp, 0, 40_000);
        put_u16(&mut udp, 2, 1701);
        put_u16(&mut udp, 4, len16(8 + l2tp.len()));
        udp.extend_from_slice(l2tp);
        self.seal_bare(&udp, 17)
    }

    pub(super) fn seal_bare(&mut self, payload: &[u8], next_header: u8) -> Vec<u8> {
        let mut buf = vec![0; HEAD_ROOM];
        buf.extend_from_slice(payload);
        buf.extend([0; TAIL_ROOM]);
        let at = self.outbound.seal(&mut buf, HEAD_ROOM..HEAD_ROOM + payload.len(), next_header).unwrap();
        buf[at].to_vec()
    }

    /// The L2TP data message of an IPv4 packet, in the form that Windows sends.
    pub(super) fn l2tp(&self, frame: &[u8]) -> Vec<u8> {
        let mut m = vec![0x00, 0x02];
        m.extend(self.ids.0.to_be_bytes());
        m.extend(self.ids.1.to_be_bytes());
        m.extend_from_slice(frame);
        m
    }

    pub(super) fn data(&mut self, ip: &[u8]) -> Vec<u8> {
        let message = self.l2tp(&[&[0xff, 0x03, 0x00, 0x21], ip].concat());
        self.seal(&message)
    }

    /// Opens what the gateway sent: the L2TP message.
    pub(super) fn open(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut packet = packet.to_vec();
        let opened = self.inbound.open(&mut packet).unwrap();
        assert_eq!(opened.next_header, 17);
        let udp = &packet[opened.payload()];
        assert_eq!((&udp[..4], usize::from(u16::from_be_bytes([udp[4], udp[5]]))), (&[6, 165, 156, 64][..], udp.len()));
        udp[8..].to_vec()
    }

    /// The IPv4 packet in what the gateway sent.
    pub(super) fn open_data(&mut self, packet: &[u8]) -> Vec<u8> {
        let message = self.open(packet);
        assert_eq!(&message[..6], &[0, 2, 0, 21, 0, 22]);
        assert_eq!(&message[6..10], &[0xff, 0x03, 0x00, 0x21]);
        message[10..].to_vec()
    }
}

pub(super) struct Rig {
    pub(super) fast: Fast,
    pub(super) receive: ReceiveBatch,
    pub(super) transmit: TransmitBatch,
    pub(super) sent: Sent,
    pub(super) inside: Kept,
    pub(super) control: Vec<FromData>,
}

impl Rig {
    pub(super) fn new(config: &DataConfig) -> Self {
        Self {
            fast: Fast::new(config),
            receive: ReceiveBatch::default(),
            transmit: TransmitBatch::default(),
            sent: Sent::default(),
            inside: Kept::default(),
            control: Vec::new(),
        }
    }

    /// A client with an open session, behind UDP encapsulation.
    pub(super) fn client(&mut self, suite: EspSuite, n: u16) -> Client {
        let path = OuterPath {
            local: addr("198.51.100.1:4500"),
            remote: SocketAddr::new(Ipv4Addr::new(203, 0, 113, 5).into(), 10_000 + n),
            encap: true,
        };
        let peer = PeerId(u64::from(n));
        let spi_in = 0x1000_0000 + u32::from(n);
        let (install, outbound, inbound) = pair(suite, peer, spi_in, path);
        self.apply(ToData::InstallSa(Box::new(install)));
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 9, 0, 1).to_bits() + u32::from(n));
        let client = Client { peer, spi_in, path, outbound, inbound, ids: (100 + n, 200 + n), address };
        self.apply(ToData::InstallSession(Box::new(InstallSession {
            peer,
            peer_port: 40_000,
            local_tunnel: client.ids.0,
            local_session: client.ids.1,
            peer_tunnel: 21,
            peer_session: 22,
            sequencing: false,
            network: network(address),
        })));
        client
    }

    pub(super) fn apply(&mut self, message: ToData) {
        self.fast.apply(message, &mut self.transmit, &mut self.sent, &mut self.control);
    }

    /// Receives `packets` in one batch, one packet a buffer.
    pub(super) fn receive(&mut self, path: OuterPath, packets: &[Vec<u8>]) {
        self.receive_as(Role::NatT, path.local, path.remote, packets);
    }

    pub(super) fn receive_as(&mut self, role: Role, local: SocketAddr, remote: SocketAddr, packets: &[Vec<u8>]) {
        for chunk in packets.chunks(super::receive::RECEIVE_BUFFERS) {
            for p in chunk {
                assert!(self.receive.push(role, local, remote, [&p[..]]));
            }
            self.process();
        }
    }

    /// Hands the batch over, and what comes out to the device.
    pub(super) fn process(&mut self) {
        let mut inner = Vec::new();
        self.fast.inbound(&mut self.receive, &mut inner, &mut self.control);
        Coalescer::default().write(&inner, &self.receive.buffers, &mut self.inside, &mut self.fast.counters);
    }

    /// Gives one frame of the inside device.
    pub(super) fn give_inside(&mut self, frame: &[u8], vnet: bool) {
        let mut frame = frame.to_vec();
        self.fast.outbound(&mut frame, vnet, &mut self.transmit, &mut self.sent, &mut self.inside, &mut self.control);
    }

    pub(super) fn flush(&mut self) {
        self.transmit.flush(&mut self.sent, &mut self.fast.counters);
    }

    /// The packets that reached the inside, as the kernel would see them.
    pub(super) fn taken_inside(&mut self) -> Vec<Vec<u8>> {
        let packets = self.inside.packets();
        self.inside.frames.clear();
        packets
    }
}
