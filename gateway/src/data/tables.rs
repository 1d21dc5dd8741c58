//! What a worker knows: peers, pairs of SAs by SPI, sessions by their L2TP ids and by the client's address.
//!
//! One worker owns its tables; they change only by messages, between two batches of packets. So nothing here is locked,
//! counted by reference or atomic. A peer's SAs and sessions are chained through the entries themselves, because a
//! gateway has as many of these chains as clients and nearly every one is a single link long.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::Ipv4Addr;

use sallyport_base::PeerId;
use sallyport_esp::Lifetime;
use sallyport_l2tp::header::{DataHeader, DataSequence};

use super::config::DataLimits;
use super::packet::{UDP_HEADER_LEN, put_u16};
use crate::link::{FromData, InstallSa, InstallSession, OuterPath, SessionCounters, SessionNetwork, ToControl};

/// The UDP port of L2TP (RFC 2661 §8.1).
pub const L2TP_PORT: u16 = 1701;

/// The longest template: UDP, L2TP with sequence numbers, PPP in full form.
pub const MAX_TEMPLATE: usize = UDP_HEADER_LEN + 10 + 4;

/// Says that a chain ends.
const NONE: u32 = u32::MAX;

/// Hashes the small integers that are the keys here by one multiplication. Peers cannot choose keys that collide: SPIs
/// and L2TP ids are our own random numbers, addresses come from our pools.
#[derive(Clone, Copy, Debug, Default)]
pub struct IntHasher(u64);

impl Hasher for IntHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.write_u64(u64::from(*b));
        }
    }
    fn write_u32(&mut self, n: u32) {
        self.write_u64(u64::from(n));
    }
    fn write_u64(&mut self, n: u64) {
        // The table takes its index from the low bits and a tag from the high ones: fold the product, so that both
        // depend on all of the key (the constant is 2^64 divided by the golden ratio).
        let product = u128::from(self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

type IntMap<K> = HashMap<K, u32, BuildHasherDefault<IntHasher>>;

/// Entries that keep their number until they are removed.
#[derive(Debug)]
struct Slab<T> {
    entries: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    const fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }

    fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Adds an entry unless there are `limit` already.
    fn insert(&mut self, entry: T, limit: usize) -> Option<u32> {
        if self.len() >= limit {
            return None;
        }
        if let Some(at) = self.free.pop() {
            *self.entries.get_mut(at as usize)? = Some(entry);
            return Some(at);
        }
        let at = u32::try_from(self.entries.len()).ok().filter(|n| *n != NONE)?;
        self.entries.push(Some(entry));
        Some(at)
    }

    #[inline]
    fn get(&self, at: u32) -> Option<&T> {
        self.entries.get(at as usize)?.as_ref()
    }

    #[inline]
    fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.entries.get_mut(at as usize)?.as_mut()
    }

    fn remove(&mut self, at: u32) -> Option<T> {
        let entry = self.entries.get_mut(at as usize)?.take()?;
        self.free.push(at);
        Some(entry)
    }
}

/// A pair of SAs.
#[derive(Debug)]
pub struct SaPair {
    /// Keys, windows, counters: in the box that they came in, so that keys are never copied about.
    pub sa: Box<InstallSa>,
    /// The peer's number.
    pub peer: u32,
    /// What the control plane heard of its life.
    said: Lifetime,
    /// When it heard that, by [`Fast::report_liveness`](super::fast::Fast::report_liveness).
    said_at: u32,
    next: u32,
}

impl SaPair {
    /// Tells the control plane of a limit that one direction has reached: the soft one once, the hard one once a `tick`.
    #[inline]
    pub fn note_lifetime(&mut self, lifetime: Lifetime, tick: u32, control: &mut impl ToControl) {
        if lifetime != Lifetime::Fresh {
            self.tell_lifetime(lifetime, tick, control);
        }
    }

    #[cold]
    fn tell_lifetime(&mut self, lifetime: Lifetime, tick: u32, control: &mut impl ToControl) {
        let (peer, spi_in) = (self.sa.peer, self.sa.spi_in);
        let message = match lifetime {
            Lifetime::Expiring if self.said == Lifetime::Fresh => FromData::SaSoftLimit { peer, spi_in },
            Lifetime::Expired if (self.said, self.said_at) != (lifetime, tick) => {
                FromData::SaHardLimit { peer, spi_in }
            }
            _ => return,
        };
        // What found no room is said again with the next packet.
        if control.tell(message) {
            (self.said, self.said_at) = (lifetime, tick);
        }
    }
}

/// A peer.
#[derive(Debug)]
pub struct Peer {
    /// Its name towards the control plane.
    pub id: PeerId,
    /// Where packets to it go.
    pub path: OuterPath,
    /// The pair to send through.
    pub outbound: Option<u32>,
    /// Whether it is on the list of peers seen since the last report.
    pub seen: bool,
    first_sa: u32,
    first_session: u32,
}

/// A session.
#[derive(Debug)]
pub struct Session {
    /// The peer's number.
    pub peer: u32,
    /// What PPP decided.
    pub network: SessionNetwork,
    /// UDP, L2TP and PPP headers of an IPv4 packet to the peer, but for lengths and sequence numbers.
    pub template: [u8; MAX_TEMPLATE],
    /// How much of the template is used.
    pub template_len: u8,
    /// Where the PPP header begins in the template.
    pub ppp_at: u8,
    /// Whether our data messages carry Ns.
    pub sequencing: bool,
    /// Sequence numbers of data messages.
    pub sequence: DataSequence,
    /// Octets and packets so far, and the session's ids.
    pub counters: SessionCounters,
    /// Whether it is on the list of sessions whose counters changed since the last report.
    pub changed: bool,
    next: u32,
}

impl Session {
    fn write_template(&mut self, s: &InstallSession) {
        let mut t = [0; MAX_TEMPLATE];
        put_u16(&mut t, 0, L2TP_PORT);
        put_u16(&mut t, 2, s.peer_port);
        let header =
            DataHeader { sequence: s.sequencing.then_some((0, 0)), ..DataHeader::new(s.peer_tunnel, s.peer_session) };
        let n = t.get_mut(UDP_HEADER_LEN..).and_then(|out| header.emit(out)).unwrap_or(0);
        self.template = t;
        self.ppp_at = u8::try_from(UDP_HEADER_LEN + n).unwrap_or(0);
        self.write_ppp();
    }

    fn write_ppp(&mut self) {
        let at = usize::from(self.ppp_at);
        let header: &[u8] = match (self.network.acfc, self.network.pfc) {
            (false, false) => &[0xff, 0x03, 0x00, 0x21],
            (false, true) => &[0xff, 0x03, 0x21],
            (true, false) => &[0x00, 0x21],
            (true, true) => &[0x21],
        };
        if let Some(out) = self.template.get_mut(at..at + header.len()) {
            out.copy_from_slice(header);
            self.template_len = u8::try_from(at + header.len()).unwrap_or(0);
        }
    }
}

/// A table is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableFull;

/// All tables of one worker.
#[derive(Debug)]
pub struct Tables {
    limits: DataLimits,
    sas: Slab<SaPair>,
    by_spi: IntMap<u32>,
    peers: Slab<Peer>,
    by_peer: IntMap<u64>,
    sessions: Slab<Session>,
    by_ids: IntMap<u32>,
    by_client: IntMap<u32>,
    default_session: Option<u32>,
}

const fn ids(tunnel: u16, session: u16) -> u32 {
    (tunnel as u32) << 16 | session as u32
}

impl Tables {
    /// Empty tables that grow up to `limits`.
    pub fn new(limits: DataLimits) -> Self {
        Self {
            limits,
            sas: Slab::new(),
            by_spi: IntMap::default(),
            peers: Slab::new(),
            by_peer: IntMap::default(),
            sessions: Slab::new(),
            by_ids: IntMap::default(),
            by_client: IntMap::default(),
            default_session: None,
        }
    }

    /// How many peers, pairs of SAs and sessions there are.
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.peers.len(), self.sas.len(), self.sessions.len())
    }

    /// The number of the pair with this SPI of ours.
    #[inline]
    pub fn find_sa(&self, spi_in: u32) -> Option<u32> {
        self.by_spi.get(&spi_in).copied()
    }

    /// A pair by its number.
    #[inline]
    pub fn sa_mut(&mut self, at: u32) -> Option<&mut SaPair> {
        self.sas.get_mut(at)
    }

    /// A peer's number.
    pub fn find_peer(&self, id: PeerId) -> Option<u32> {
        self.by_peer.get(&id.0).copied()
    }

    /// A peer by its number.
    #[inline]
    pub fn peer(&self, at: u32) -> Option<&Peer> {
        self.peers.get(at)
    }

    /// A peer by its number.
    #[inline]
    pub fn peer_mut(&mut self, at: u32) -> Option<&mut Peer> {
        self.peers.get_mut(at)
    }

    /// The number of the session with these ids of ours.
    #[inline]
    pub fn find_session(&self, local_tunnel: u16, local_session: u16) -> Option<u32> {
        self.by_ids.get(&ids(local_tunnel, local_session)).copied()
    }

    /// The number of the session whose client has this address, or of the one that takes everything.
    #[inline]
    pub fn find_client(&self, client: Ipv4Addr) -> Option<u32> {
        self.by_client.get(&client.to_bits()).copied().or(self.default_session)
    }

    /// Whether one of the sessions has this address.
    #[inline]
    pub fn is_client(&self, client: Ipv4Addr) -> bool {
        self.by_client.contains_key(&client.to_bits())
    }

    /// A session by its number.
    #[inline]
    pub fn session_mut(&mut self, at: u32) -> Option<&mut Session> {
        self.sessions.get_mut(at)
    }

    /// A session and its peer: what sending needs at once.
    #[inline]
    pub fn session_and_peer(&mut self, at: u32) -> Option<(&mut Session, &mut Peer)> {
        let session = self.sessions.get_mut(at)?;
        let peer = self.peers.get_mut(session.peer)?;
        Some((session, peer))
    }

    /// The pair that a peer is sent to through.
    #[inline]
    pub fn outbound_mut(&mut self, peer: u32) -> Option<(&Peer, &mut SaPair)> {
        let peer = self.peers.get(peer)?;
        let sa = self.sas.get_mut(peer.outbound?)?;
        Some((peer, sa))
    }

    /// A session, its peer and the pair to send through: what the packet path needs at once.
    #[inline]
    pub fn outbound_of(&mut self, session: u32) -> Option<(&mut Session, &Peer, &mut SaPair)> {
        let session = self.sessions.get_mut(session)?;
        let peer = self.peers.get(session.peer)?;
        let sa = self.sas.get_mut(peer.outbound?)?;
        Some((session, peer, sa))
    }

    /// Adds a pair, and its peer if need be. A pair with the same SPI is replaced.
    pub fn install_sa(&mut self, sa: Box<InstallSa>) -> Result<(), TableFull> {
        self.remove_sa(sa.spi_in);
        let peer = match self.find_peer(sa.peer) {
            Some(at) => at,
            None => {
                let peer = Peer {
                    id: sa.peer,
                    path: sa.path,
                    outbound: None,
                    seen: false,
                    first_sa: NONE,
                    first_session: NONE,
                };
                let at = self.peers.insert(peer, self.limits.peers).ok_or(TableFull)?;
                self.by_peer.insert(sa.peer.0, at);
                at
            }
        };
        let (spi, path, activate) = (sa.spi_in, sa.path, sa.activate);
        let Some(entry) = self.peers.get_mut(peer) else { return Err(TableFull) };
        let pair = SaPair { sa, peer, said: Lifetime::Fresh, said_at: 0, next: entry.first_sa };
        let Some(at) = self.sas.insert(pair, self.limits.sas) else {
            if entry.first_sa == NONE && entry.first_session == NONE {
                self.forget_peer(peer);
            }
            return Err(TableFull);
        };
        entry.first_sa = at;
        // A pair that is only prepared has been asked for, and not yet confirmed by the peer: it changes nothing outwards.
        if activate || entry.outbound.is_none() {
            entry.path = path;
            entry.outbound = Some(at);
        }
        self.by_spi.insert(spi, at);
        Ok(())
    }

    /// Removes a pair. If it was the one to send through, the newest of the peer's others takes its place.
    pub fn remove_sa(&mut self, spi_in: u32) {
        let Some(at) = self.by_spi.remove(&spi_in) else { return };
        let Some(pair) = self.sas.remove(at) else { return };
        let Some(peer) = self.peers.get_mut(pair.peer) else { return };
        if peer.first_sa == at {
            peer.first_sa = pair.next;
        } else {
            let mut before = peer.first_sa;
            while let Some(entry) = self.sas.get_mut(before) {
                if entry.next == at {
                    entry.next = pair.next;
                    break;
                }
                before = entry.next;
            }
        }
        if peer.outbound == Some(at) {
            peer.outbound = Some(peer.first_sa).filter(|n| *n != NONE);
        }
        if peer.first_sa == NONE && peer.first_session == NONE {
            self.forget_peer(pair.peer);
        }
    }

    /// Sends through this pair from now on.
    pub fn switch_outbound(&mut self, spi_in: u32) {
        if let Some(at) = self.find_sa(spi_in)
            && let Some(pair) = self.sas.get(at)
            && let Some(peer) = self.peers.get_mut(pair.peer)
            && peer.outbound != Some(at)
        {
            peer.path = pair.sa.path;
            peer.outbound = Some(at);
        }
    }

    /// Sends to these addresses from now on.
    pub fn move_peer(&mut self, id: PeerId, path: OuterPath) {
        if let Some(peer) = self.find_peer(id).and_then(|at| self.peers.get_mut(at)) {
            peer.path = path;
        }
    }

    /// Removes a peer with its SAs; gives the last counters of its sessions to `last`.
    pub fn remove_peer(&mut self, id: PeerId, mut last: impl FnMut(SessionCounters)) {
        let Some(at) = self.find_peer(id) else { return };
        while let Some(session) = self.peers.get(at).and_then(|p| self.sessions.get(p.first_session)) {
            let (tunnel, session) = (session.counters.local_tunnel, session.counters.local_session);
            match self.remove_session(tunnel, session) {
                Some(counters) => last(counters),
                None => break,
            }
        }
        while let Some(pair) = self.peers.get(at).and_then(|p| self.sas.get(p.first_sa)) {
            let spi = pair.sa.spi_in;
            self.remove_sa(spi);
        }
        if self.find_peer(id).is_some() {
            self.forget_peer(at);
        }
    }

    fn forget_peer(&mut self, at: u32) {
        if let Some(peer) = self.peers.remove(at) {
            self.by_peer.remove(&peer.id.0);
        }
    }

    /// Adds a session, or replaces the one with the same ids. `false` if its peer has no SA.
    pub fn install_session(&mut self, s: &InstallSession) -> Result<bool, TableFull> {
        self.remove_session(s.local_tunnel, s.local_session);
        let Some(peer) = self.find_peer(s.peer) else { return Ok(false) };
        let Some(entry) = self.peers.get_mut(peer) else { return Ok(false) };
        let mut session = Session {
            peer,
            network: s.network,
            template: [0; MAX_TEMPLATE],
            template_len: 0,
            ppp_at: 0,
            sequencing: s.sequencing,
            sequence: DataSequence::default(),
            counters: SessionCounters {
                local_tunnel: s.local_tunnel,
                local_session: s.local_session,
                ..SessionCounters::default()
            },
            changed: false,
            next: entry.first_session,
        };
        session.write_template(s);
        let at = self.sessions.insert(session, self.limits.sessions).ok_or(TableFull)?;
        entry.first_session = at;
        self.by_ids.insert(ids(s.local_tunnel, s.local_session), at);
        self.route(at, s.network);
        Ok(true)
    }

    /// Changes what PPP decided for a session.
    pub fn update_session(&mut self, local_tunnel: u16, local_session: u16, network: SessionNetwork) {
        let Some(at) = self.find_session(local_tunnel, local_session) else { return };
        self.unroute(at);
        if let Some(session) = self.sessions.get_mut(at) {
            session.network = network;
            session.write_ppp();
        }
        self.route(at, network);
    }

    /// The session takes the packets to its client's address. The latest session with an address has it.
    fn route(&mut self, at: u32, network: SessionNetwork) {
        if network.opened && network.default_route {
            self.default_session = Some(at);
        }
        if network.opened && !network.client.is_unspecified() {
            self.by_client.insert(network.client.to_bits(), at);
        }
    }

    fn unroute(&mut self, at: u32) {
        let Some(session) = self.sessions.get(at) else { return };
        let client = session.network.client.to_bits();
        if self.by_client.get(&client) == Some(&at) {
            self.by_client.remove(&client);
        }
        if self.default_session == Some(at) {
            self.default_session = None;
        }
    }

    /// Removes a session and gives its last counters.
    pub fn remove_session(&mut self, local_tunnel: u16, local_session: u16) -> Option<SessionCounters> {
        let at = self.find_session(local_tunnel, local_session)?;
        self.unroute(at);
        self.by_ids.remove(&ids(local_tunnel, local_session));
        let gone = self.sessions.remove(at)?;
        let peer = self.peers.get_mut(gone.peer)?;
        if peer.first_session == at {
            peer.first_session = gone.next;
        } else {
            let mut before = peer.first_session;
            while let Some(entry) = self.sessions.get_mut(before) {
                if entry.next == at {
                    entry.next = gone.next;
                    break;
                }
                before = entry.next;
            }
        }
        if peer.first_sa == NONE && peer.first_session == NONE {
            self.forget_peer(gone.peer);
        }
        Some(gone.counters)
    }
}
