//! Dead peer detection, RFC 3706: only towards peers that announced it.

use std::net::SocketAddr;

use sallyport_base::{Instant, PeerId};

use crate::endpoint::{Endpoint, Fate, TimerKey};
use crate::output::DownReason;
use crate::payload::NotifyType;
use crate::v1::isakmp_sa::SaId;

/// How often a silent peer is asked between the delay and the timeout.
const ASKS: u32 = 5;

impl Endpoint {
    /// Time to see whether a peer has been silent for too long.
    pub(crate) fn dpd_timeout(&mut self, now: Instant, id: PeerId) {
        let (delay, timeout) = (self.config.dpd_delay, self.config.dpd_timeout);
        if delay.is_zero() {
            return;
        }
        let sa = self.newest_sa(id);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let silent = now.since(peer.last_inbound);
        if silent < delay {
            let at = peer.last_inbound + delay;
            self.timers.set(TimerKey::PeerDpd(id), at);
            return;
        }
        // Without an ISAKMP SA there is nothing to ask with; the peer's ESP SAs may well live on.
        let Some(sa) = sa else {
            peer.last_inbound = now;
            self.timers.set(TimerKey::PeerDpd(id), now + delay);
            return;
        };
        if silent >= timeout && peer.dpd_waiting {
            self.stats.dpd_dead += 1;
            return self.peer_down(now, id, DownReason::PeerSilent, true);
        }
        if !peer.dpd_waiting {
            // RFC 3706 §7: begins at random and grows by one; a repetition has the same number.
            peer.dpd_seq = if peer.dpd_seq == 0 { self.rng.u32() >> 1 | 1 } else { peer.dpd_seq.wrapping_add(1) };
            peer.dpd_waiting = true;
        }
        let seq = peer.dpd_seq.to_be_bytes();
        self.stats.dpd_sent += 1;
        self.with_sa(sa, |ep, sa| {
            ep.send_notify(sa, NotifyType::R_U_THERE, None, &seq);
            Fate::Keep
        });
        let pause = (timeout.saturating_sub(delay) / ASKS).max(core::time::Duration::from_millis(500));
        self.timers.set(TimerKey::PeerDpd(id), now + pause);
    }

    /// The peer asks whether we live.
    pub(crate) fn dpd_asked(
        &mut self,
        now: Instant,
        id: SaId,
        peer: PeerId,
        local: SocketAddr,
        remote: SocketAddr,
        seq: u32,
    ) {
        let mut fresh = false;
        self.with_sa(id, |ep, sa| {
            // An older number is a replay; the same is a repetition.
            let ahead = sa.dpd_peer_seq.map_or(1, |last| seq.wrapping_sub(last).cast_signed());
            if ahead < 0 {
                ep.stats.repeated += 1;
                return Fate::Keep;
            }
            fresh = ahead > 0;
            sa.dpd_peer_seq = Some(seq);
            let was = (sa.local, sa.remote);
            (sa.local, sa.remote) = (local, remote);
            ep.send_notify(sa, NotifyType::R_U_THERE_ACK, None, &seq.to_be_bytes());
            (sa.local, sa.remote) = was;
            Fate::Keep
        });
        if fresh {
            self.note_inbound(now, peer);
            self.move_peer(peer, local, remote);
        }
    }

    /// The peer says that it lives.
    pub(crate) fn dpd_answered(&mut self, now: Instant, peer: PeerId, local: SocketAddr, remote: SocketAddr, seq: u32) {
        if self.peers.get(&peer).is_some_and(|p| p.dpd_waiting && p.dpd_seq == seq) {
            self.note_inbound(now, peer);
            self.move_peer(peer, local, remote);
        }
    }
}
