//! Informational exchange, RFC 2408 §4.8 and RFC 2409 §5.7: `HDR*, HASH(1), N | D`.

use std::net::SocketAddr;

use sallyport_base::{Instant, PeerId};

use crate::endpoint::{Endpoint, Fate, TimerKey};
use crate::header::{Cookie, ExchangeType, Header};
use crate::message::Message;
use crate::output::{DownReason, Role};
use crate::payload::{ChainWriter, Delete, Notify, NotifyType, Payload, PayloadType, ProtocolId, parse_chain_used};
use crate::timer;
use crate::v1::isakmp_sa::{IsakmpSa, SaId, Step};
use crate::v1::keymat::{behind_hash, hash_matches, prepend_hash};

/// What an informational message asks for, copied out of its payloads.
enum Said {
    InitialContact,
    RUThere(u32),
    RUThereAck(u32),
    /// An error or a status that we only note: its type, and the message of a quick mode that it may be about.
    Other(NotifyType, Vec<u8>),
    DeleteEsp(Vec<u32>),
    DeleteIsakmp(Vec<[u8; 16]>),
}

fn collect(payloads: &[Payload<'_>]) -> Vec<Said> {
    let mut said = Vec::new();
    for p in payloads {
        match p {
            Payload::Notify(n) => {
                let seq = || <[u8; 4]>::try_from(n.data).ok().map(u32::from_be_bytes);
                said.push(match (n.notify_type, seq()) {
                    (NotifyType::INITIAL_CONTACT, _) => Said::InitialContact,
                    (NotifyType::R_U_THERE, Some(seq)) => Said::RUThere(seq),
                    (NotifyType::R_U_THERE_ACK, Some(seq)) => Said::RUThereAck(seq),
                    (other, _) => Said::Other(other, n.spi.to_vec()),
                });
            }
            Payload::Delete(d) if d.protocol == ProtocolId::ESP => {
                let spis = d.spis.iter().filter_map(|s| <[u8; 4]>::try_from(*s).ok());
                said.push(Said::DeleteEsp(spis.map(u32::from_be_bytes).collect()));
            }
            Payload::Delete(d) if d.protocol == ProtocolId::ISAKMP => {
                said.push(Said::DeleteIsakmp(d.spis.iter().filter_map(|s| <[u8; 16]>::try_from(*s).ok()).collect()));
            }
            _ => {}
        }
    }
    said
}

impl Endpoint {
    /// Takes an informational message.
    pub(crate) fn informational(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        header: &Header,
        bytes: &[u8],
        body: &[u8],
    ) {
        let found = self.by_cookies.get(&(header.cky_i, header.cky_r));
        let found = found.or_else(|| self.by_cookies.get(&(header.cky_i, Cookie::ZERO)));
        let Some(id) = found.copied() else {
            self.stats.unknown_cookies += 1;
            return;
        };
        if !header.is_encrypted() {
            return self.unprotected(now, id, bytes);
        }
        let mut said = Vec::new();
        self.with_sa(id, |ep, sa| {
            let opened = sa.keys.as_ref().and_then(|keys| {
                let iv = keys.phase2_iv(&sa.iv, header.message_id);
                let (plain, _) = keys.open(&iv, body)?;
                let (payloads, used) = parse_chain_used(header.next_payload, &plain).ok()?;
                let Some(Payload::Hash(hash)) = payloads.first() else { return None };
                let rest = behind_hash(&plain, used, hash.len())?;
                hash_matches(&keys.hash_1(header.message_id, rest), hash).then(|| collect(&payloads))
            });
            match opened {
                None => ep.stats.unauthentic += 1,
                Some(_) if !sa.first_seen(header.message_id) => ep.stats.repeated += 1,
                Some(s) => said = s,
            }
            Fate::Keep
        });
        for s in said {
            self.said(now, id, local, remote, s);
        }
    }

    fn said(&mut self, now: Instant, id: SaId, local: SocketAddr, remote: SocketAddr, said: Said) {
        let Some(sa) = self.sas.get(&id) else { return };
        let peer = sa.peer;
        match (said, peer) {
            (Said::RUThere(seq), Some(peer)) => self.dpd_asked(now, id, peer, local, remote, seq),
            (Said::RUThereAck(seq), Some(peer)) => self.dpd_answered(now, peer, local, remote, seq),
            (Said::InitialContact, Some(peer)) => {
                // Only right after phase 1 (RFC 2407 §4.6.3.3), and only what was there before.
                let Some(since) = sa.established else { return };
                if now.since(since) < self.config.exchange_timeout {
                    self.initial_contact(now, id, peer, since);
                }
            }
            (Said::DeleteEsp(spis), Some(peer)) => {
                // The sender names its own inbound SPIs: our outbound ones.
                let children = self.peers.get(&peer).map(|p| p.children.clone()).unwrap_or_default();
                for spi_in in children {
                    if self.children.get(&spi_in).is_some_and(|c| spis.contains(&c.spi_out)) {
                        self.child_down(spi_in, DownReason::PeerDeleted);
                    }
                }
                self.review_peer(now, peer, DownReason::PeerDeleted);
            }
            (Said::DeleteIsakmp(spis), _) => {
                for spi in spis {
                    let (mut i, mut r) = (Cookie::ZERO, Cookie::ZERO);
                    i.0.copy_from_slice(&spi[..8]);
                    r.0.copy_from_slice(&spi[8..]);
                    let Some(doomed) = self.by_cookies.get(&(i, r)).copied() else { continue };
                    // A peer ends its own SAs only.
                    if doomed != id && (peer.is_none() || self.sas.get(&doomed).is_none_or(|sa| sa.peer != peer)) {
                        continue;
                    }
                    self.isakmp_deleted(now, doomed);
                }
            }
            (Said::Other(what, spi), _) => self.noted(now, id, what, &spi),
            _ => {}
        }
    }

    /// The peer says that an ISAKMP SA is gone. Its ESP SAs stay: Windows keeps them without one.
    fn isakmp_deleted(&mut self, now: Instant, id: SaId) {
        let Some(sa) = self.sas.get(&id) else { return };
        let peer = sa.peer;
        if sa.established.is_none() {
            return self.with_sa(id, |ep, sa| {
                let cause = "the other side ended the exchange".to_owned();
                ep.fail(now, sa, crate::RefusalKind::PeerRefused, cause, "its own record says why")
            });
        }
        self.drop_sa(id);
        if let Some(peer) = peer {
            self.review_peer(now, peer, DownReason::PeerDeleted);
        }
    }

    /// Something that changes nothing by itself, but explains what follows.
    fn noted(&mut self, now: Instant, id: SaId, what: NotifyType, spi: &[u8]) {
        let Some(sa) = self.sas.get_mut(&id) else { return };
        if let Some(h) = sa.handshake.as_deref_mut() {
            h.hint = Some(what.to_string());
        }
        let peer = sa.peer;
        if let Some(peer) = peer.and_then(|p| self.peers.get_mut(&p)) {
            peer.hint = Some(what.to_string());
        }
        // Error types are below 8192 (RFC 2408 §3.14.1): the only quick mode that we have begun is the one that failed.
        if what.0 < 8192 {
            self.quick_mode_refused(now, id, what, spi);
        }
    }

    /// The peer came back after it lost everything: what is older than this SA is of no use.
    fn initial_contact(&mut self, now: Instant, id: SaId, peer: PeerId, since: Instant) {
        let Some(p) = self.peers.get(&peer) else { return };
        if p.role == Role::Initiator {
            return;
        }
        let (children, sas) = (p.children.clone(), p.sas.clone());
        for spi in children {
            if self.children.get(&spi).is_some_and(|c| c.installed < since) {
                self.child_down(spi, DownReason::InitialContact);
            }
        }
        for old in sas {
            if old != id && self.sas.get(&old).is_some_and(|sa| sa.began < since) {
                self.drop_sa(old);
            }
        }
        self.review_peer(now, peer, DownReason::InitialContact);
    }

    /// In the clear: anybody could have sent it, so it ends nothing. As initiator it may explain a silence, and shortens
    /// the wait for a genuine answer.
    fn unprotected(&mut self, now: Instant, id: SaId, bytes: &[u8]) {
        self.stats.unprotected_informational += 1;
        let Ok(message) = Message::parse(bytes) else { return };
        let Some(what) = message.payloads.iter().find_map(|p| match p {
            Payload::Notify(n) => Some(n.notify_type),
            _ => None,
        }) else {
            return;
        };
        let Some(sa) = self.sas.get_mut(&id) else { return };
        let role = sa.role;
        let Some(h) = sa.handshake.as_deref_mut() else { return };
        let first = h.hint.replace(what.to_string()).is_none();
        let waiting = matches!(h.step, Step::Expect2 | Step::Expect4 | Step::Expect6);
        if role == Role::Initiator && first && waiting && what.0 < 8192 {
            let at = now + timer::GRACE_AFTER_NOTIFY;
            if self.timers.deadline(TimerKey::Handshake(id)).is_none_or(|d| d > at) {
                self.timers.set(TimerKey::Handshake(id), at);
            }
        }
    }

    /// Sends a protected notification about this SA, or about an ESP SA by its SPI.
    pub(crate) fn send_notify(
        &mut self,
        sa: &mut IsakmpSa,
        what: NotifyType,
        esp: Option<u32>,
        data: &[u8],
    ) -> Vec<Vec<u8>> {
        let cookies = sa.spi();
        let spi = esp.map(u32::to_be_bytes);
        let notify = match &spi {
            Some(spi) => Notify::new(ProtocolId::ESP, what, spi, data),
            None => Notify::new(ProtocolId::ISAKMP, what, &cookies, data),
        };
        let mut chain = ChainWriter::new();
        chain.payload(PayloadType::NOTIFY, |w| notify.emit(w));
        self.send_informational(sa, &chain)
    }

    fn send_informational(&mut self, sa: &mut IsakmpSa, chain: &ChainWriter) -> Vec<Vec<u8>> {
        let mid = self.new_message_id();
        let Some(keys) = &sa.keys else { return Vec::new() };
        let chain = prepend_hash(&keys.hash_1(mid, chain.as_slice()), chain);
        let iv = keys.phase2_iv(&sa.iv, mid);
        let (message, _) = keys.seal(&iv, sa.header(ExchangeType::INFORMATIONAL_V1, mid), &chain);
        self.send(sa, message)
    }

    /// Sends a Delete, which nobody acknowledges (RFC 2408 §3.15).
    pub(crate) fn send_delete(&mut self, _now: Instant, id: SaId, protocol: ProtocolId, spis: &[&[u8]]) {
        self.with_sa(id, |ep, sa| {
            let delete = Delete::new(protocol, spis.to_vec());
            let mut chain = ChainWriter::new();
            chain.payload(PayloadType::DELETE, |w| delete.emit(w));
            ep.send_informational(sa, &chain);
            Fate::Keep
        });
    }
}
