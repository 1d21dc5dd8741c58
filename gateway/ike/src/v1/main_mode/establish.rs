//! The end of main mode: a peer is there. And the end of an ISAKMP SA.

use core::time::Duration;

use sallyport_base::{Instant, PeerId};

use crate::endpoint::{Endpoint, Fate, TimerKey, jitter};
use crate::error::{Phase, RefusalKind};
use crate::output::{DownReason, Event, Output, PeerUp, Role};
use crate::proposal::cipher_name;
use crate::timer;
use crate::v1::isakmp_sa::{IsakmpSa, SaId};
use crate::v1::peer::{MAX_SAS, Peer};

impl Endpoint {
    /// Phase 1 is done: the peer is new, or one that came back.
    pub(crate) fn establish(&mut self, now: Instant, sa: &mut IsakmpSa) -> Fate {
        let Some(h) = sa.handshake.take() else { return Fate::Keep };
        self.leave_half_open(sa.id);
        self.timers.cancel(TimerKey::Handshake(sa.id));
        self.timers.cancel(TimerKey::Repeat(sa.id));
        let Some(identity) = h.peer_id else { return Fate::Drop };
        sa.established = Some(now);
        self.stats.phase1_up += 1;
        let (name, token) = h.peer_name.unwrap_or_else(|| (identity.to_string(), 0));
        let key = Peer::index_key(&identity, sa.remote);
        let known = match sa.role {
            Role::Initiator => sa.peer,
            // Only with the same proof: whoever knows a pre-shared key can claim the identity of a certificate.
            Role::Responder => self.peer_index.get(&key).copied().filter(|id| {
                self.peers.get(id).is_some_and(|p| p.method == Some(sa.transform.method) && p.name == name)
            }),
        };
        // INITIAL-CONTACT: the peer knows of nothing else. Only what is surely its own goes: same identity, same address
        // and port, since several clients with one identity may sit behind one NAT.
        let known = match known {
            Some(old) if h.initial_contact && sa.role == Role::Responder => {
                self.peer_down(now, old, DownReason::InitialContact, false);
                None
            }
            other => other,
        };
        let id = match known {
            Some(id) => id,
            None if self.peers.len() >= self.config.limits.peers => {
                self.refuse(
                    now,
                    Phase::MainMode,
                    RefusalKind::Limit,
                    (sa.local, sa.remote),
                    Some(name),
                    None,
                    format!("this gateway has as many clients as it takes ({})", self.config.limits.peers),
                    "add a gateway".into(),
                );
                return Fate::Drop;
            }
            None => self.new_peer_id(),
        };
        sa.peer = Some(id);
        let peer = self.peers.entry(id).or_insert_with(|| Peer::new(id, sa.role, sa.local, sa.remote, now));
        let was_up = core::mem::replace(&mut peer.up, true);
        peer.identity = Some(identity.clone());
        peer.name.clone_from(&name);
        peer.method = Some(sa.transform.method);
        (peer.local, peer.remote) = (sa.local, sa.remote);
        (peer.behind_nat, peer.we_behind_nat) = (sa.nat.peer, sa.nat.local);
        peer.traits = sa.traits;
        peer.last_inbound = now;
        if !peer.sas.contains(&sa.id) {
            peer.sas.push(sa.id);
        }
        let surplus = peer.sas.len().saturating_sub(MAX_SAS);
        let oldest: Vec<SaId> = peer.sas.iter().take(surplus).copied().collect();
        let children = !peer.children.is_empty();
        for old in oldest {
            self.send_delete_sa(now, old);
            self.drop_sa(old);
        }
        self.peer_index.insert(key, id);
        self.output.push_back(Output::Event(if was_up {
            Event::PeerRekeyed { peer: id, token }
        } else {
            Event::PeerUp(PeerUp {
                peer: id,
                role: sa.role,
                id: identity,
                name,
                token,
                method: sa.transform.method,
                local: sa.local,
                remote: sa.remote,
                transform: format!("{}/{}/{}", cipher_name(sa.transform.cipher), sa.transform.hash, sa.transform.group),
                behind_nat: sa.nat.peer,
            })
        }));
        self.fresh.push(id);
        let lifetime = sa.lifetime;
        // Whoever began the SA renews it, on its own clock: who answered waits a little longer.
        let grace = if sa.role == Role::Responder { timer::EXPIRE_GRACE } else { Duration::ZERO };
        self.timers.set(TimerKey::Expire(sa.id), now + lifetime + grace);
        self.timers.set(TimerKey::Tidy(sa.id), now + timer::REPLY_KEPT);
        if sa.role == Role::Initiator {
            let at = jitter(&mut self.rng, lifetime.mul_f64(0.85));
            self.timers.set(TimerKey::Rekey(sa.id), now + at);
        }
        if !children {
            self.timers.set(TimerKey::PeerIdle(id), now + self.config.idle_peer_timeout);
        }
        if sa.traits.dpd && !self.config.dpd_delay.is_zero() {
            self.timers.set(TimerKey::PeerDpd(id), now + self.config.dpd_delay);
        }
        if sa.nat.local && !self.config.nat_keepalive.is_zero() {
            self.timers.set(TimerKey::PeerKeepalive(id), now + self.config.nat_keepalive);
        }
        Fate::Keep
    }

    /// Replies are no longer needed.
    pub(crate) fn tidy(&mut self, _now: Instant, id: SaId) {
        if let Some(sa) = self.sas.get_mut(&id) {
            sa.last = None;
        }
    }

    /// An ISAKMP SA is at its end. Its ESP SAs live on (Windows keeps them without one).
    pub(crate) fn expire_sa(&mut self, now: Instant, id: SaId) {
        let Some(sa) = self.sas.get(&id) else { return };
        let peer = sa.peer;
        // A Delete for the ISAKMP SA makes some clients (strongSwan) take down what was made under it, and this may come
        // moments before they renew it: while there are ESP SAs it goes without a word. But a peer that thinks that it
        // lives on has to be told: it would ask for its next ESP SA in vain.
        let childless = peer.and_then(|p| self.peers.get(&p)).is_none_or(|p| p.children.is_empty());
        if childless || sa.cut_short {
            self.send_delete_sa(now, id);
        }
        self.drop_sa(id);
        if let Some(peer) = peer {
            self.review_peer(now, peer, DownReason::Expired);
        }
    }

    pub(crate) fn keepalive(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get(&id) else { return };
        if self.config.nat_keepalive.is_zero() {
            return;
        }
        self.output.push_back(Output::Keepalive { local: peer.local, remote: peer.remote });
        self.timers.set(TimerKey::PeerKeepalive(id), now + self.config.nat_keepalive);
    }
}
