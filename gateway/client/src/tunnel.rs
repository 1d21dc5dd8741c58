//! The client's data path: one gateway, one session, a few SAs. Simple rather than fast: it allocates for each packet.

use std::net::SocketAddr;

use sallyport_crypto::Rng;
use sallyport_esp::{HEAD_ROOM, InboundSa, OutboundSa, SaConfig, TAIL_ROOM};
use sallyport_ike::ChildSa;
use sallyport_l2tp::{DataHeader, SessionInfo, header::DataSequence};

/// UDP header inside ESP.
const UDP_LEN: usize = 8;
/// IP protocol number of UDP.
const UDP: u8 = 17;
/// The gateway's port inside ESP.
const L2TP_PORT: u16 = 1701;
/// SAs kept at once: the current one and those that a rekey replaces.
const MAX_SAS: usize = 4;

/// What came out of an ESP packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Inner {
    /// An L2TP control message.
    Control(Vec<u8>),
    /// A PPP frame of our session.
    Frame(Vec<u8>),
}

struct Pair {
    spi_in: u32,
    inbound: InboundSa,
    outbound: OutboundSa,
    local: SocketAddr,
    remote: SocketAddr,
    encap: bool,
    client_port: u16,
}

/// SAs and session of one client.
#[derive(Default)]
pub(crate) struct Tunnel {
    /// Newest last.
    pairs: Vec<Pair>,
    session: Option<SessionInfo>,
    sequence: DataSequence,
}

/// A sealed packet and where it goes.
pub(crate) struct Sealed {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) encap: bool,
    pub(crate) bytes: Vec<u8>,
}

impl Tunnel {
    pub(crate) fn install(&mut self, child: &ChildSa, rng: &mut Rng) {
        let inbound = SaConfig::new(child.spi_in, child.keys_in.clone());
        let outbound = SaConfig::new(child.spi_out, child.keys_out.clone());
        self.remove(child.spi_in);
        if self.pairs.len() == MAX_SAS {
            self.pairs.remove(0);
        }
        self.pairs.push(Pair {
            spi_in: child.spi_in,
            inbound: InboundSa::new(&inbound),
            outbound: OutboundSa::new(&outbound, rng),
            local: child.local,
            remote: child.remote,
            encap: child.udp_encap,
            client_port: if child.client_port == 0 { L2TP_PORT } else { child.client_port },
        });
    }

    pub(crate) fn remove(&mut self, spi_in: u32) {
        self.pairs.retain(|p| p.spi_in != spi_in);
    }

    pub(crate) fn set_session(&mut self, session: Option<SessionInfo>) {
        self.session = session;
    }

    /// Opens an ESP packet; `None` is a packet that is dropped.
    pub(crate) fn open(&mut self, packet: &mut [u8]) -> Option<Inner> {
        let spi = sallyport_esp::spi(packet)?;
        let pair = self.pairs.iter_mut().find(|p| p.spi_in == spi)?;
        let opened = pair.inbound.open(packet).ok()?;
        if opened.next_header != UDP {
            return None;
        }
        let message = packet.get(opened.payload())?.get(UDP_LEN..)?;
        if DataHeader::parse(message).is_err() {
            return Some(Inner::Control(message.to_vec()));
        }
        let (header, frame) = DataHeader::parse(message).ok()?;
        let session = self.session.as_ref()?;
        let ours = header.tunnel_id == session.local_tunnel && header.session_id == session.local_session;
        ours.then(|| Inner::Frame(frame.to_vec()))
    }

    /// Seals an L2TP control message.
    pub(crate) fn seal_control(&mut self, message: &[u8]) -> Option<Sealed> {
        self.seal(message)
    }

    /// Seals a PPP frame of the session.
    pub(crate) fn seal_frame(&mut self, frame: &[&[u8]]) -> Option<Sealed> {
        let session = self.session.as_ref()?;
        let mut header = DataHeader::new(session.peer_tunnel, session.peer_session);
        if session.sequencing {
            header.sequence = Some(self.sequence.next_pair());
        }
        let mut message = vec![0; header.emitted_len()];
        header.emit(&mut message)?;
        for part in frame {
            message.extend_from_slice(part);
        }
        self.seal(&message)
    }

    fn seal(&mut self, message: &[u8]) -> Option<Sealed> {
        let pair = self.pairs.last_mut()?;
        let len = UDP_LEN + message.len();
        let mut buf = vec![0; HEAD_ROOM + len + TAIL_ROOM];
        let (at, end) = (HEAD_ROOM, HEAD_ROOM + len);
        buf[at..at + 2].copy_from_slice(&pair.client_port.to_be_bytes());
        buf[at + 2..at + 4].copy_from_slice(&L2TP_PORT.to_be_bytes());
        buf[at + 4..at + 6].copy_from_slice(&u16::try_from(len).ok()?.to_be_bytes());
        // Without a UDP checksum: ESP's ICV covers it, and behind a NAT it could not be right (RFC 3948 §3.1.2).
        buf[at + UDP_LEN..end].copy_from_slice(message);
        let packet = pair.outbound.seal(&mut buf, at..end, UDP).ok()?;
        Some(Sealed { local: pair.local, remote: pair.remote, encap: pair.encap, bytes: buf[packet].to_vec() })
    }
}
