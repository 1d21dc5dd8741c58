//! Quick mode as initiator: the first ESP SA of a connection, and rekeying from either side.

use std::net::SocketAddr;

use sallyport_base::{Instant, PeerId, Reader};

use crate::endpoint::{Endpoint, Fate, Purpose, TimerKey, backoff};
use crate::error::RefusalKind;
use crate::header::Header;
use crate::output::{Job, Role};
use crate::payload::{EncapsulationMode, Identification, SecurityAssociation};
use crate::proposal::EspOffer;
use crate::v1::isakmp_sa::{IsakmpSa, SaId};
use crate::v1::keymat::{hash_matches, prepend_hash};
use crate::v1::quick_mode::{QuickMode, QuickState, UDP, open};

impl Endpoint {
    /// Phase 1 has just come up: what waited for it begins.
    pub(crate) fn start_pending(&mut self, now: Instant, peer: PeerId) {
        let Some(sa) = self.newest_sa(peer) else { return };
        let Some(p) = self.peers.get_mut(&peer) else { return };
        let pending = core::mem::take(&mut p.pending);
        let first = p.role == Role::Initiator && p.children.is_empty() && pending.is_empty();
        if first {
            self.begin_quick_mode(now, sa, None);
        }
        for spi in pending {
            self.begin_quick_mode(now, sa, Some(spi));
        }
    }

    /// Replaces a child, with a new ISAKMP SA first if there is none.
    pub(crate) fn rekey_child(&mut self, now: Instant, peer: PeerId, spi_in: u32) {
        if let Some(sa) = self.newest_sa(peer) {
            return self.begin_quick_mode(now, sa, Some(spi_in));
        }
        let Some(p) = self.peers.get_mut(&peer) else { return };
        if p.connect.is_some() {
            p.pending.push(spi_in);
            self.new_phase1(now, peer);
        } else if let Some(child) = self.children.get_mut(&spi_in) {
            child.rekeying = false; // a client without ISAKMP SA rekeys itself, or its SA ends
        }
    }

    fn begin_quick_mode(&mut self, now: Instant, id: SaId, replaces: Option<u32>) {
        let mid = self.new_message_id();
        let Some(spi_in) = self.new_spi() else { return };
        self.with_sa(id, |ep, sa| {
            let Some(peer) = sa.peer.and_then(|p| ep.peers.get(&p)) else { return Fate::Keep };
            let connect = peer.connect.as_deref();
            let old = replaces.and_then(|spi| ep.children.get(&spi));
            let ids = match (old, connect) {
                // The identities of the first time, from our side.
                (Some(old), _) => (old.ids.0.clone(), old.ids.1.clone()),
                (None, Some(c)) => (
                    Identification::selector(sa.local.ip(), UDP, c.client_port),
                    Identification::selector(sa.remote.ip(), UDP, ep.config.l2tp_port),
                ),
                (None, None) => return Fate::Keep,
            };
            let mut suites = match connect.map(|c| &c.esp) {
                Some(esp) if !esp.is_empty() => esp.clone(),
                _ => ep.config.esp_suites.clone(),
            };
            // What was agreed the first time will do the next time.
            if let Some(at) = old.and_then(|old| suites.iter().position(|s| *s == old.suite)) {
                suites[..=at].rotate_right(1);
            }
            let group = connect.and_then(|c| c.pfs);
            let encapsulation = match sa.traits.nat {
                Some(variant) if sa.udp_encap() => variant.udp_transport(),
                _ => EncapsulationMode::TRANSPORT,
            };
            let Some(iv) = sa.keys.as_ref().map(|k| k.phase2_iv(&sa.iv, mid)) else { return Fate::Keep };
            let mut x = QuickMode::new(mid, Role::Initiator, QuickState::MakeKeyPair, iv);
            x.offer = Some(EspOffer {
                suites,
                encapsulation,
                group,
                seconds: u32::try_from(ep.config.phase2_lifetime.as_secs()).unwrap_or(u32::MAX),
                kilobytes: ep.config.phase2_kilobytes,
            });
            x.ids = Some(Box::new(ids));
            x.spi_in = spi_in;
            x.replaces = replaces;
            x.nonce_i = ep.quick_nonce();
            ep.reserved_spis.insert(spi_in, sa.id);
            match group {
                None => ep.quick_request_1(now, sa, &mut x),
                Some(group) => {
                    ep.timers.set(TimerKey::Quick(sa.id, mid), now + ep.config.exchange_timeout);
                    if !ep.give_job(sa, Purpose::QuickKeyPair(mid), Job::KeyPair { group }) {
                        let cause = "too many handshakes wait for this machine's processors".to_owned();
                        ep.fail_quick(now, sa, &mut x, RefusalKind::Limit, None, cause, "this machine is overloaded");
                    }
                }
            }
            sa.exchanges.push(x);
            Fate::Keep
        });
    }

    /// Message 1.
    pub(super) fn quick_request_1(&mut self, now: Instant, sa: &mut IsakmpSa, x: &mut QuickMode) {
        let Some(offer) = &x.offer else { return };
        let mut chain = Self::quick_chain(x, &offer.body(x.spi_in), &x.nonce_i);
        Self::nat_oa_payloads(sa, sa.local, sa.remote, &mut chain);
        let Some(keys) = &sa.keys else { return };
        let hash = keys.hash_1(x.message_id, chain.as_slice());
        let (message, iv) = keys.seal(&x.iv, Self::quick_header(sa, x), &prepend_hash(&hash, &chain));
        x.iv = iv;
        x.state = QuickState::Expect2;
        x.sent = self.send(sa, message);
        self.timers.set(TimerKey::Quick(sa.id, x.message_id), now + backoff(&self.config, 0));
    }

    /// Message 2.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn quick_mode_2(
        &mut self,
        now: Instant,
        sa: &mut IsakmpSa,
        x: &mut QuickMode,
        (local, remote): (SocketAddr, SocketAddr),
        header: &Header,
        body: &[u8],
        print: u64,
    ) {
        let genuine = open(sa, &x.iv, header, body).filter(|m| {
            let hash = sa.keys.as_ref().map(|k| k.hash_2(x.message_id, &x.nonce_i, &m.rest));
            hash.is_some_and(|h| hash_matches(&h, &m.hash))
        });
        let Some(m) = genuine else {
            self.stats.unauthentic += 1;
            return;
        };
        x.print = print;
        x.iv = m.next_iv;
        // HASH(2) covers our fresh nonce.
        (sa.local, sa.remote) = (local, remote);
        if let Some(peer) = sa.peer {
            self.move_peer(peer, local, remote);
        }
        let chosen = m.sa.as_deref().and_then(|body| {
            let answer = SecurityAssociation::parse(Reader::new(body)).ok()?;
            x.offer.as_ref()?.accepted(&answer)
        });
        let (Some((transform, spi_out)), Some(nonce)) = (chosen, m.nonce) else {
            let cause = "the gateway chose something that was not offered".to_owned();
            return self.fail_quick(now, sa, x, RefusalKind::Malformed, None, cause, "a fault of the gateway");
        };
        // The identities come back as they went (RFC 2409 §5.5). Some leave them out, and strongSwan puts the address that
        // our NAT gives us into ours: what counts is protocol and port.
        let ports = |ids: &[Identification]| ids.iter().map(|i| (i.protocol, i.port)).collect::<Vec<_>>();
        let ids_ok = m.ids.is_empty()
            || x.ids.as_deref().is_some_and(|(ci, cr)| ports(&m.ids) == ports(&[ci.clone(), cr.clone()]));
        if !ids_ok {
            let cause = "the gateway changed the traffic that was asked for".to_owned();
            return self.fail_quick(now, sa, x, RefusalKind::Selectors, None, cause, "a fault of the gateway");
        }
        (x.transform, x.spi_out, x.nonce_r) = (Some(transform), spi_out, nonce);
        match (transform.group, m.ke, x.secret.take()) {
            (None, ..) => self.quick_request_3(now, sa, x),
            (Some(_), Some(peer_public), Some(secret)) => {
                x.state = QuickState::Agree;
                self.timers.set(TimerKey::Quick(sa.id, x.message_id), now + self.config.exchange_timeout);
                if !self.give_job(sa, Purpose::QuickAgree(x.message_id), Job::Agree { secret, peer_public }) {
                    let cause = "too many handshakes wait for this machine's processors".to_owned();
                    self.fail_quick(now, sa, x, RefusalKind::Limit, None, cause, "this machine is overloaded");
                }
            }
            _ => {
                let cause = "the gateway sent no key for perfect forward secrecy".to_owned();
                self.fail_quick(now, sa, x, RefusalKind::Malformed, None, cause, "a fault of the gateway");
            }
        }
    }

    /// Message 3: from here on the ESP SA is up.
    pub(super) fn quick_request_3(&mut self, now: Instant, sa: &mut IsakmpSa, x: &mut QuickMode) {
        let Some(keys) = &sa.keys else { return };
        let hash = keys.hash_3(x.message_id, &x.nonce_i, &x.nonce_r);
        let chain = prepend_hash(&hash, &crate::payload::ChainWriter::new());
        let (message, iv) = keys.seal(&x.iv, Self::quick_header(sa, x), &chain);
        x.iv = iv;
        x.sent = self.send(sa, message);
        self.child_up(now, sa, x);
    }
}
