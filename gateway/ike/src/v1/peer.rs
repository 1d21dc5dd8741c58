//! A peer: what survives a rekey of either phase.

use std::net::SocketAddr;

use sallyport_base::{Instant, PeerId};

use crate::endpoint::{Connect, Endpoint, TimerKey};
use crate::error::{Phase, RefusalKind};
use crate::output::{DownReason, Event, Output, Role};
use crate::payload::{Identification, ProtocolId};
use crate::proposal::AuthMethod;
use crate::v1::isakmp_sa::{PeerTraits, SaId};

/// ISAKMP SAs of one peer: the one in use, and those that it is replacing. The oldest makes room.
pub(crate) const MAX_SAS: usize = 4;

/// Somebody that has authenticated, or that we connect to.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) role: Role,
    /// `PeerUp` was reported.
    pub(crate) up: bool,
    pub(crate) identity: Option<Identification>,
    pub(crate) name: String,
    /// How it proved its identity.
    pub(crate) method: Option<AuthMethod>,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) traits: PeerTraits,
    pub(crate) behind_nat: bool,
    pub(crate) we_behind_nat: bool,
    /// Oldest first.
    pub(crate) sas: Vec<SaId>,
    /// Inbound SPIs, oldest first.
    pub(crate) children: Vec<u32>,
    /// As initiator: what was asked for, to do it again.
    pub(crate) connect: Option<Box<Connect>>,
    /// Children to replace as soon as there is an ISAKMP SA.
    pub(crate) pending: Vec<u32>,
    pub(crate) last_inbound: Instant,
    /// Sequence number of R-U-THERE, and whether one is unanswered.
    pub(crate) dpd_seq: u32,
    pub(crate) dpd_waiting: bool,
    pub(crate) had_child: bool,
    /// A refusal of this attempt was reported.
    pub(crate) refused: bool,
    /// When a refusal of this peer was last reported.
    pub(crate) last_refusal: Option<Instant>,
    /// What the peer said last in a notification.
    pub(crate) hint: Option<String>,
}

impl Peer {
    /// A peer of which nothing is known but where it is.
    pub(crate) const fn new(id: PeerId, role: Role, local: SocketAddr, remote: SocketAddr, now: Instant) -> Self {
        Self {
            id,
            role,
            up: false,
            identity: None,
            name: String::new(),
            method: None,
            local,
            remote,
            traits: PeerTraits { nat: None, dpd: false, fragmentation: false },
            behind_nat: false,
            we_behind_nat: false,
            sas: Vec::new(),
            children: Vec::new(),
            connect: None,
            pending: Vec::new(),
            last_inbound: now,
            dpd_seq: 0,
            dpd_waiting: false,
            had_child: false,
            refused: false,
            last_refusal: None,
            hint: None,
        }
    }

    /// The key under which a peer that comes back is found.
    pub(crate) fn index_key(identity: &Identification, remote: SocketAddr) -> (Identification, SocketAddr) {
        (Identification { protocol: 0, port: 0, ..identity.clone() }, remote)
    }
}

impl Endpoint {
    /// Ends a peer and everything that it has. `tell` sends Deletes.
    pub(crate) fn peer_down(&mut self, now: Instant, id: PeerId, reason: DownReason, tell: bool) {
        let Some(peer) = self.peers.get(&id) else { return };
        let children = peer.children.clone();
        if tell {
            self.send_delete_children(now, id, &children);
        }
        for spi in children {
            self.child_down(spi, reason.clone());
        }
        let sas = self.peers.get(&id).map(|p| p.sas.clone()).unwrap_or_default();
        for sa in sas {
            if tell {
                self.send_delete_sa(now, sa);
            }
            self.drop_sa(sa);
        }
        let Some(peer) = self.peers.remove(&id) else { return };
        self.timers.cancel(TimerKey::PeerDpd(id));
        self.timers.cancel(TimerKey::PeerIdle(id));
        self.timers.cancel(TimerKey::PeerKeepalive(id));
        if let Some(identity) = &peer.identity {
            let key = Peer::index_key(identity, peer.remote);
            if self.peer_index.get(&key) == Some(&id) {
                self.peer_index.remove(&key);
            }
        }
        if !peer.had_child && !peer.refused {
            self.refuse_childless(now, &peer, &reason);
        }
        if peer.up {
            self.output.push_back(Output::Event(Event::PeerDown { peer: id, reason }));
        }
    }

    /// A peer that authenticated and went without ever having an ESP SA: an attempt that failed.
    fn refuse_childless(&mut self, now: Instant, peer: &Peer, reason: &DownReason) {
        let said = peer.hint.as_ref().map(|h| format!(" It said: {h}.")).unwrap_or_default();
        let (kind, cause, remedy) = match (reason, peer.role) {
            (DownReason::Local(why), _) => (RefusalKind::Local, format!("ended here: {why}"), "nothing".to_owned()),
            (DownReason::PeerDeleted, Role::Responder) => (
                RefusalKind::PeerRefused,
                format!("the client ended the ISAKMP SA right after main mode, without asking for an ESP SA.{said}"),
                "the client did not accept our certificate or identity (Windows shows 787, 835 or 13801): it must trust the root of the gateway's certificate, and the name that its user typed must stand in that certificate".to_owned(),
            ),
            (_, Role::Responder) => (
                RefusalKind::Silence,
                format!("the client authenticated in main mode and never asked for an ESP SA.{said}"),
                "if message 6 did not reach the client (large certificates on a path that drops IP fragments), enable IKE fragmentation on the client; if it did, the client did not accept our certificate or identity".to_owned(),
            ),
            (_, Role::Initiator) => (
                RefusalKind::PeerRefused,
                format!("the gateway ended the ISAKMP SA before there was an ESP SA: {reason}.{said}"),
                "the gateway's own record says why".to_owned(),
            ),
        };
        let identity = (!peer.name.is_empty()).then(|| peer.name.clone());
        let phase = if peer.up { Phase::QuickMode } else { Phase::MainMode };
        self.refuse(now, phase, kind, (peer.local, peer.remote), identity, Some(peer.id), cause, remedy);
    }

    /// Forgets a child and reports it.
    pub(crate) fn child_down(&mut self, spi_in: u32, reason: DownReason) {
        let Some(child) = self.children.remove(&spi_in) else { return };
        self.timers.cancel(TimerKey::ChildRekey(spi_in));
        self.timers.cancel(TimerKey::ChildExpire(spi_in));
        self.timers.cancel(TimerKey::ChildRetire(spi_in));
        if let Some(peer) = self.peers.get_mut(&child.peer) {
            peer.children.retain(|s| *s != spi_in);
            peer.pending.retain(|s| *s != spi_in);
        }
        self.output.push_back(Output::Event(Event::ChildDown { peer: child.peer, spi_in, reason }));
    }

    /// After something of a peer is gone: a peer with nothing left is gone too, one without children has a while.
    pub(crate) fn review_peer(&mut self, now: Instant, id: PeerId, reason: DownReason) {
        let Some(peer) = self.peers.get(&id) else { return };
        if peer.children.is_empty() && peer.sas.is_empty() {
            self.peer_down(now, id, reason, false);
        } else if peer.children.is_empty() {
            if self.timers.deadline(TimerKey::PeerIdle(id)).is_none() {
                self.timers.set(TimerKey::PeerIdle(id), now + self.config.idle_peer_timeout);
            }
        } else {
            self.timers.cancel(TimerKey::PeerIdle(id));
        }
    }

    /// The newest ISAKMP SA of a peer that is up.
    pub(crate) fn newest_sa(&self, id: PeerId) -> Option<SaId> {
        let peer = self.peers.get(&id)?;
        peer.sas.iter().rev().copied().find(|s| self.sas.get(s).is_some_and(|sa| sa.established.is_some()))
    }

    /// An authenticated message came from `remote`: follow the peer there (RFC 3947 §5).
    pub(crate) fn move_peer(&mut self, id: PeerId, local: SocketAddr, remote: SocketAddr) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if (peer.local, peer.remote) == (local, remote) {
            return;
        }
        if let Some(identity) = &peer.identity {
            let old = Peer::index_key(identity, peer.remote);
            if self.peer_index.get(&old) == Some(&id) {
                self.peer_index.remove(&old);
            }
            self.peer_index.insert(Peer::index_key(identity, remote), id);
        }
        (peer.local, peer.remote) = (local, remote);
        for sa in peer.sas.clone() {
            if let Some(sa) = self.sas.get_mut(&sa) {
                (sa.local, sa.remote) = (local, remote);
            }
        }
        if self.peers.get(&id).is_some_and(|p| p.up) {
            self.output.push_back(Output::Event(Event::PeerMoved { peer: id, local, remote }));
        }
    }

    /// Tells a peer that ESP SAs are gone, if there is an ISAKMP SA to say it with.
    pub(crate) fn send_delete_children(&mut self, now: Instant, id: PeerId, spis: &[u32]) {
        let Some(sa) = self.newest_sa(id) else { return };
        if spis.is_empty() {
            return;
        }
        let spis: Vec<[u8; 4]> = spis.iter().map(|s| s.to_be_bytes()).collect();
        self.send_delete(now, sa, ProtocolId::ESP, &spis.iter().map(|s| &s[..]).collect::<Vec<_>>());
    }

    /// Tells a peer that an ISAKMP SA is gone.
    pub(crate) fn send_delete_sa(&mut self, now: Instant, sa: SaId) {
        let Some(spi) = self.sas.get(&sa).filter(|sa| sa.established.is_some()).map(|sa| sa.spi()) else { return };
        self.send_delete(now, sa, ProtocolId::ISAKMP, &[&spi]);
    }
}
