//! The whole talk between the control plane and the data plane: two bounded queues, and nothing else is shared but
//! published counters.
//!
//! Only control packets and changes of tables pass here, never a packet of a user. Towards the data plane the queue
//! is a ring of the standard library with an `eventfd` beside it, because a worker waits in one `epoll_wait` for
//! everything. Towards the control plane it is tokio's, whose `recv` a task can await.
//!
//! What happens when a queue is full differs on purpose:
//! * a **control packet** (IKE, L2TP control, PPP) is dropped and counted: its protocol retransmits it;
//! * a **change of a table** is never lost: [`ToDataSender::send`] waits for room, which a worker makes within one
//!   turn of its loop. A worker never waits for control, so this cannot lock up.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};

use nix::sys::eventfd::{EfdFlags, EventFd};
use sallyport_base::PeerId;
use sallyport_esp::{InboundSa, OutboundSa};

/// Most messages that wait for a worker. A message is a few words or a box, so this is memory of some 100 KiB.
pub const TO_DATA_QUEUE: usize = 4096;

/// Most messages that wait for the control plane; each holds at most one datagram or one chunk of counters.
pub const FROM_DATA_QUEUE: usize = 4096;

/// Most entries of one [`FromData::Liveness`] or [`FromData::CounterSnapshot`]; more go into further messages.
pub const REPORT_CHUNK: usize = 512;

/// The outer addresses of a peer, and whether ESP travels in UDP (RFC 3948) or as IP protocol 50.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterPath {
    /// Our address: packets to the peer leave from here. Without encapsulation its port means nothing.
    pub local: SocketAddr,
    /// The peer's address. Without encapsulation its port means nothing.
    pub remote: SocketAddr,
    /// Whether ESP is encapsulated in UDP between these two.
    pub encap: bool,
}

/// A pair of ESP SAs, installed together: the fruit of one quick mode.
#[derive(Debug)]
pub struct InstallSa {
    /// Whose SAs they are. The first pair of a peer makes the peer known to the data plane.
    pub peer: PeerId,
    /// Our SPI; the name of the pair in every other message.
    pub spi_in: u32,
    /// The peer's SPI.
    pub spi_out: u32,
    /// Keys, window and limits of what we receive.
    pub inbound: InboundSa,
    /// Keys, counter and limits of what we send. From now on the peer is sent to through this SA, unless
    /// [`InstallSa::activate`] is false.
    pub outbound: OutboundSa,
    /// The outer addresses. They replace what the data plane knew of the peer.
    pub path: OuterPath,
    /// Whether to send through the new pair at once. A responder that waits for the initiator's third message says
    /// false and sends [`ToData::SwitchOutbound`] later.
    pub activate: bool,
}

/// A session of L2TP whose PPP frames the data plane carries.
#[derive(Clone, Debug)]
pub struct InstallSession {
    /// Through whose SAs the session runs. Packets from anybody else's SA are dropped, whatever ids they name.
    pub peer: PeerId,
    /// The peer's UDP port inside ESP (1701 from Windows, a high one from Apple).
    pub peer_port: u16,
    /// Our tunnel id, which the peer writes into its packets.
    pub local_tunnel: u16,
    /// Our session id.
    pub local_session: u16,
    /// The peer's tunnel id, which we write into ours.
    pub peer_tunnel: u16,
    /// The peer's session id.
    pub peer_session: u16,
    /// Whether data messages carry Ns (RFC 2661 §5.4).
    pub sequencing: bool,
    /// What the PPP side decided so far; [`SessionNetwork::closed`] until IPCP is open.
    pub network: SessionNetwork,
}

/// What IPCP and LCP decided for a session: changed by [`ToData::UpdateSession`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionNetwork {
    /// Whether IPv4 passes. If not, IPv4 packets of the client are dropped and counted.
    pub opened: bool,
    /// The client's leased address: packets to it from inside go into this session, and the client may send from no
    /// other address. Unspecified while there is none.
    pub client: Ipv4Addr,
    /// Our own address of the link: the source of the ICMP errors that the data plane sends.
    pub router: Ipv4Addr,
    /// Largest IPv4 packet in the session, in bytes: at most the MRU of the peer.
    pub mtu: u16,
    /// Whether address and control field may be left out towards the peer (RFC 1661 §6.6).
    pub acfc: bool,
    /// Whether the protocol field may be one byte towards the peer (RFC 1661 §6.5).
    pub pfc: bool,
    /// The initiator's side of a session (the built-in client): every inside packet that has no session of its own
    /// goes here, and packets from the peer may have any source.
    pub default_route: bool,
}

impl SessionNetwork {
    /// Before IPCP is open: control frames pass, IPv4 does not.
    pub const fn closed() -> Self {
        Self {
            opened: false,
            client: Ipv4Addr::UNSPECIFIED,
            router: Ipv4Addr::UNSPECIFIED,
            mtu: 1400,
            acfc: false,
            pfc: false,
            default_route: false,
        }
    }
}

/// What the control plane tells the data plane.
#[derive(Debug)]
pub enum ToData {
    /// Adds a pair of SAs, and its peer if it is the peer's first.
    InstallSa(Box<InstallSa>),
    /// Removes a pair. The newest of the remaining pairs becomes the one to send through.
    RemoveSa {
        /// Our SPI of the pair.
        spi_in: u32,
    },
    /// From now on sends to the peer through this pair.
    SwitchOutbound {
        /// Our SPI of the pair.
        spi_in: u32,
    },
    /// The peer's outer addresses changed by what IKE saw.
    MovePeer {
        /// The peer.
        peer: PeerId,
        /// Its new addresses.
        path: OuterPath,
    },
    /// Removes a peer, all its SAs and all its sessions.
    RemovePeer {
        /// The peer.
        peer: PeerId,
    },
    /// Adds a session, or replaces the one with the same local ids.
    InstallSession(Box<InstallSession>),
    /// Changes what PPP decided for a session.
    UpdateSession {
        /// Our tunnel id.
        local_tunnel: u16,
        /// Our session id.
        local_session: u16,
        /// What holds from now on.
        network: SessionNetwork,
    },
    /// Removes a session; its last counters come with the next [`FromData::CounterSnapshot`].
    RemoveSession {
        /// Our tunnel id.
        local_tunnel: u16,
        /// Our session id.
        local_session: u16,
    },
    /// Sends an IKE message; the data plane writes the non-ESP marker where the local port asks for it.
    SendIke {
        /// The address and port to send from.
        local: SocketAddr,
        /// Where to.
        remote: SocketAddr,
        /// The message, from the ISAKMP header on.
        bytes: Vec<u8>,
    },
    /// Sends an L2TP control message in UDP 1701, sealed with the peer's current SA.
    SendL2tpControl {
        /// To whom.
        peer: PeerId,
        /// The peer's UDP port inside ESP.
        peer_port: u16,
        /// The message, from the L2TP header on.
        bytes: Vec<u8>,
    },
    /// Sends a PPP frame of a session: L2TP data header, UDP 1701, ESP.
    SendPpp {
        /// Our tunnel id.
        local_tunnel: u16,
        /// Our session id.
        local_session: u16,
        /// The frame, from the address field (or the protocol field) on.
        frame: Vec<u8>,
    },
    /// Ends the worker; whatever is queued before it is carried out first.
    Stop,
}

impl ToData {
    /// Whether its protocol sends it again when it is lost.
    pub(crate) const fn is_packet(&self) -> bool {
        matches!(self, Self::SendIke { .. } | Self::SendL2tpControl { .. } | Self::SendPpp { .. })
    }
}

/// Octets and packets of one session since it was installed; IPv4 only, lengths of the inner IP packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounters {
    /// Our tunnel id.
    pub local_tunnel: u16,
    /// Our session id.
    pub local_session: u16,
    /// From the client, in packets.
    pub packets_in: u64,
    /// From the client, in octets.
    pub bytes_in: u64,
    /// To the client, in packets.
    pub packets_out: u64,
    /// To the client, in octets.
    pub bytes_out: u64,
}

/// What the data plane tells the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromData {
    /// An IKE message; the non-ESP marker is gone.
    IkeDatagram {
        /// The address and port that it was sent to.
        local: SocketAddr,
        /// Where it came from.
        remote: SocketAddr,
        /// The message, from the ISAKMP header on.
        bytes: Vec<u8>,
    },
    /// An L2TP control message that came through an SA of the peer.
    L2tpControl {
        /// Whose SA.
        peer: PeerId,
        /// The peer's UDP port inside ESP.
        peer_port: u16,
        /// The message, from the L2TP header on.
        bytes: Vec<u8>,
    },
    /// A PPP frame that is not IPv4, or belongs to a session that the data plane does not know (yet): the first LCP
    /// frame of a client can overtake the [`ToData::InstallSession`] that its ICCN caused. The receiver therefore
    /// has to check that the session is `peer`'s.
    PppFrame {
        /// Whose SA it came through.
        peer: PeerId,
        /// Our tunnel id.
        local_tunnel: u16,
        /// Our session id.
        local_session: u16,
        /// The frame as it was in the L2TP message.
        frame: Vec<u8>,
    },
    /// A pair of SAs is near the end of its bytes or sequence numbers: time to rekey. Said once for a pair.
    SaSoftLimit {
        /// Whose.
        peer: PeerId,
        /// Our SPI of the pair.
        spi_in: u32,
    },
    /// A pair of SAs is at its end: nothing passes through it any more. Said about once a second while packets come
    /// that it would have carried.
    SaHardLimit {
        /// Whose.
        peer: PeerId,
        /// Our SPI of the pair.
        spi_in: u32,
    },
    /// An authenticated packet, newer than all before, came from new outer addresses (RFC 3947 §5). The data plane
    /// already sends there.
    PeerMoved {
        /// The peer.
        peer: PeerId,
        /// Our address.
        local: SocketAddr,
        /// The peer's address.
        remote: SocketAddr,
    },
    /// Peers from which authenticated packets came since the last report.
    Liveness {
        /// At most [`REPORT_CHUNK`].
        peers: Vec<PeerId>,
    },
    /// Counters of the sessions that changed since the last report.
    CounterSnapshot {
        /// At most [`REPORT_CHUNK`].
        sessions: Vec<SessionCounters>,
    },
    /// A worker has ended and will not come back; empty if it was told to.
    Stopped {
        /// Why.
        reason: String,
    },
}

/// The data plane is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the data plane has stopped")]
pub struct Stopped;

/// What both ends count about the queues.
#[derive(Debug, Default)]
pub struct LinkStats {
    /// Control packets that the control plane sent and no worker had room for.
    pub to_data_dropped: AtomicU64,
    /// Control packets and reports that a worker had and the control plane had no room for.
    pub from_data_dropped: AtomicU64,
}

/// The control plane's end towards the workers. Clones send into the same queues.
#[derive(Clone, Debug)]
pub struct ToDataSender {
    queue: SyncSender<ToData>,
    wake: Arc<EventFd>,
    stats: Arc<LinkStats>,
}

impl ToDataSender {
    /// Hands `message` over. A control packet that finds the queue full is dropped and counted; anything else waits
    /// for room.
    pub fn send(&self, message: ToData) -> Result<(), Stopped> {
        match self.queue.try_send(message) {
            Ok(()) => self.wake(),
            Err(TrySendError::Full(message)) if message.is_packet() => {
                self.stats.to_data_dropped.fetch_add(1, Ordering::Relaxed);
                self.wake();
            }
            Err(TrySendError::Full(message)) => {
                self.wake();
                self.queue.send(message).map_err(|_| Stopped)?;
                self.wake();
            }
            Err(TrySendError::Disconnected(_)) => return Err(Stopped),
        }
        Ok(())
    }

    fn wake(&self) {
        // The counter of an eventfd overflows only after 2^64 wake-ups, and then the worker is awake anyway.
        let _ = self.wake.write(1);
    }
}

/// A worker's end towards the control plane's messages.
#[derive(Debug)]
pub struct ToDataReceiver {
    queue: Receiver<ToData>,
    wake: Arc<EventFd>,
}

impl ToDataReceiver {
    /// The next message. `Err` when every sender is gone.
    pub fn try_recv(&self) -> Result<Option<ToData>, Stopped> {
        match self.queue.try_recv() {
            Ok(message) => Ok(Some(message)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Stopped),
        }
    }

    /// Takes note of the wake-ups so far; call it before the queue is drained, not after.
    pub fn acknowledge(&self) {
        let _ = self.wake.read();
    }

    /// Wakes the worker itself: it stopped before the queue was empty.
    pub fn remind(&self) {
        let _ = self.wake.write(1);
    }
}

impl AsFd for ToDataReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// Where a worker puts what the control plane is to know.
pub trait ToControl {
    /// Hands `message` over, or drops and counts it when there is no room, and says `false`. Never waits.
    fn tell(&mut self, message: FromData) -> bool;
}

/// For tests and benchmarks.
impl ToControl for Vec<FromData> {
    fn tell(&mut self, message: FromData) -> bool {
        self.push(message);
        true
    }
}

/// A worker's end towards the control plane.
#[derive(Clone, Debug)]
pub struct FromDataSender {
    queue: tokio::sync::mpsc::Sender<FromData>,
    stats: Arc<LinkStats>,
}

impl ToControl for FromDataSender {
    fn tell(&mut self, message: FromData) -> bool {
        // IKE is what strangers can send. It may fill half of the queue; the rest is for peers that have an SA.
        let stranger = matches!(message, FromData::IkeDatagram { .. });
        let told = !(stranger && self.queue.capacity() <= FROM_DATA_QUEUE / 2) && self.queue.try_send(message).is_ok();
        if !told {
            self.stats.from_data_dropped.fetch_add(1, Ordering::Relaxed);
        }
        told
    }
}

/// The control plane's end of what the workers say: `recv().await` in a task, `blocking_recv()` in a thread.
pub type FromDataReceiver = tokio::sync::mpsc::Receiver<FromData>;

/// The four ends of the queues between the control plane and one worker.
#[derive(Debug)]
pub struct Link {
    /// For the control plane.
    pub to_data: ToDataSender,
    /// For the worker.
    pub to_data_receiver: ToDataReceiver,
    /// For the worker.
    pub from_data: FromDataSender,
    /// For the control plane.
    pub from_data_receiver: FromDataReceiver,
    /// What was dropped.
    pub stats: Arc<LinkStats>,
}

impl Link {
    /// Makes the queues. Fails only if the system gives no `eventfd`.
    pub fn new() -> std::io::Result<Self> {
        let stats = Arc::new(LinkStats::default());
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        let (to_data, to_data_receiver) = sync_channel(TO_DATA_QUEUE);
        let (from_data, from_data_receiver) = tokio::sync::mpsc::channel(FROM_DATA_QUEUE);
        Ok(Self {
            to_data: ToDataSender { queue: to_data, wake: wake.clone(), stats: stats.clone() },
            to_data_receiver: ToDataReceiver { queue: to_data_receiver, wake },
            from_data: FromDataSender { queue: from_data, stats: stats.clone() },
            from_data_receiver,
            stats,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_packet_is_dropped_and_counted_when_the_queue_is_full() {
        let link = Link::new().unwrap();
        for _ in 0..TO_DATA_QUEUE + 3 {
            let frame = ToData::SendPpp { local_tunnel: 1, local_session: 1, frame: Vec::new() };
            link.to_data.send(frame).unwrap();
        }
        assert_eq!(link.stats.to_data_dropped.load(Ordering::Relaxed), 3);
        let mut n = 0;
        while link.to_data_receiver.try_recv().unwrap().is_some() {
            n += 1;
        }
        assert_eq!(n, TO_DATA_QUEUE);
    }

    #[test]
    fn a_change_of_a_table_waits_for_room() {
        let link = Link::new().unwrap();
        for _ in 0..TO_DATA_QUEUE {
            link.to_data.send(ToData::RemoveSa { spi_in: 1 }).unwrap();
        }
        let sender = link.to_data.clone();
        let waiting = std::thread::spawn(move || sender.send(ToData::RemoveSa { spi_in: 2 }));
        let mut last = 0;
        while last != 2 {
            if let Some(ToData::RemoveSa { spi_in }) = link.to_data_receiver.try_recv().unwrap() {
                last = spi_in;
            }
        }
        assert_eq!(waiting.join().unwrap(), Ok(()));
    }

    #[test]
    fn a_full_queue_to_control_never_holds_a_worker_up() {
        let mut link = Link::new().unwrap();
        for _ in 0..FROM_DATA_QUEUE + 5 {
            link.from_data.tell(FromData::Liveness { peers: Vec::new() });
        }
        assert_eq!(link.stats.from_data_dropped.load(Ordering::Relaxed), 5);
        assert!(link.from_data_receiver.try_recv().is_ok());
    }

    #[test]
    fn a_flood_of_ike_leaves_room_for_peers() {
        let mut link = Link::new().unwrap();
        let at: SocketAddr = "192.0.2.1:500".parse().unwrap();
        for _ in 0..2 * FROM_DATA_QUEUE {
            link.from_data.tell(FromData::IkeDatagram { local: at, remote: at, bytes: Vec::new() });
        }
        let before = link.stats.from_data_dropped.load(Ordering::Relaxed);
        link.from_data.tell(FromData::L2tpControl { peer: PeerId(1), peer_port: 1701, bytes: Vec::new() });
        assert_eq!(link.stats.from_data_dropped.load(Ordering::Relaxed), before);
        let mut last = None;
        while let Ok(message) = link.from_data_receiver.try_recv() {
            last = Some(message);
        }
        assert!(matches!(last, Some(FromData::L2tpControl { .. })));
    }

    #[test]
    fn a_sender_learns_that_the_worker_is_gone() {
        let link = Link::new().unwrap();
        drop(link.to_data_receiver);
        assert_eq!(link.to_data.send(ToData::Stop), Err(Stopped));
    }
}
