//! Quick mode as responder.

use std::net::SocketAddr;

use sallyport_base::{Instant, Reader};

use crate::endpoint::{Endpoint, Purpose, TimerKey, backoff};
use crate::error::RefusalKind;
use crate::header::Header;
use crate::output::{Event, Job, Output, Role};
use crate::payload::{NotifyType, SecurityAssociation};
use crate::proposal::{EspWish, choose_esp};
use crate::v1::isakmp_sa::IsakmpSa;
use crate::v1::keymat::{hash_matches, prepend_hash};
use crate::v1::quick_mode::{QuickMode, QuickState, UDP, open};

impl Endpoint {
    /// Message 1.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn quick_mode_1(
        &mut self,
        now: Instant,
        sa: &mut IsakmpSa,
        local: SocketAddr,
        remote: SocketAddr,
        header: &Header,
        body: &[u8],
        print: u64,
    ) {
        let Some(iv) = sa.keys.as_ref().map(|k| k.phase2_iv(&sa.iv, header.message_id)) else { return };
        let opened = open(sa, &iv, header, body);
        let genuine = opened
            .filter(|m| sa.keys.as_ref().is_some_and(|k| hash_matches(&k.hash_1(header.message_id, &m.rest), &m.hash)));
        let Some(m) = genuine else {
            self.stats.unauthentic += 1;
            return;
        };
        if !sa.first_seen_quick(header.message_id) {
            self.stats.repeated += 1;
            return;
        }
        if sa.exchanges.len() >= self.config.limits.exchanges_per_sa.max(1) {
            let done = sa.exchanges.iter().position(|x| x.state == QuickState::Done);
            let Some(done) = done else { return };
            let old = sa.exchanges.swap_remove(done);
            self.forget_exchange(sa, &old);
        }
        let mut x = QuickMode::new(header.message_id, Role::Responder, QuickState::MakeKeys, m.next_iv);
        x.print = print;
        // Replies go where the request came from; the peer itself moves only on proof that this is no replay.
        let known = (sa.local, sa.remote);
        (sa.local, sa.remote) = (local, remote);
        self.begin_response(now, sa, &mut x, m);
        (sa.local, sa.remote) = known;
        sa.exchanges.push(x);
    }

    fn begin_response(&mut self, now: Instant, sa: &mut IsakmpSa, x: &mut QuickMode, m: super::Opened) {
        let (Some(offer), Some(nonce)) = (m.sa, m.nonce) else {
            let cause = "the peer's message 1 has no SA or no nonce".to_owned();
            let n = Some(NotifyType::PAYLOAD_MALFORMED);
            return self.fail_quick(now, sa, x, RefusalKind::Malformed, n, cause, "a fault of the peer");
        };
        let Ok(offer) = SecurityAssociation::parse(Reader::new(&offer)) else { return };
        if let Some(spi) = offer.proposals.first().and_then(|p| <[u8; 4]>::try_from(p.spi).ok()) {
            x.spi_out = u32::from_be_bytes(spi); // for the notification, if nothing is chosen
        }
        let mut ids = m.ids.into_iter();
        let (Some(ci), Some(cr)) = (ids.next(), ids.next()) else {
            let cause = "the client names no traffic: L2TP needs UDP port 1701 on the gateway's side".to_owned();
            let n = Some(NotifyType::INVALID_ID_INFORMATION);
            return self.fail_quick(
                now,
                sa,
                x,
                RefusalKind::Selectors,
                n,
                cause,
                "set the client's connection to L2TP/IPsec (leftprotoport=17/%any, rightprotoport=17/1701)",
            );
        };
        // As gateway, our side is IDcr; as client of a gateway that rekeys, its side is IDci.
        let we_are_gateway = sa.peer.and_then(|p| self.peers.get(&p)).is_none_or(|p| p.role == Role::Responder);
        let (gateway, client) = if we_are_gateway { (&cr, &ci) } else { (&ci, &cr) };
        if (gateway.protocol, gateway.port) != (UDP, self.config.l2tp_port) || client.protocol != UDP {
            let cause = format!(
                "the traffic that the client asks for is not L2TP: {client} to {gateway}; it must be protocol 17 on both sides and port {} on the gateway's",
                self.config.l2tp_port
            );
            let n = Some(NotifyType::INVALID_ID_INFORMATION);
            return self.fail_quick(
                now,
                sa,
                x,
                RefusalKind::Selectors,
                n,
                cause,
                "set the client's connection to L2TP/IPsec (leftprotoport=17/%any, rightprotoport=17/1701)",
            );
        }
        x.ids = Some(Box::new((ci, cr)));
        x.nonce_i = nonce;
        let udp = sa.udp_encap();
        let floated = sa.local.port() == self.config.nat_t_port;
        if udp && !floated {
            let cause = "there is a NAT, and the client did not move to UDP 4500 as RFC 3947 asks".to_owned();
            let n = Some(NotifyType::NO_PROPOSAL_CHOSEN);
            return self.fail_quick(
                now,
                sa,
                x,
                RefusalKind::Encapsulation,
                n,
                cause,
                "the client's NAT traversal is older than RFC 3947: update it",
            );
        }
        let wish = EspWish {
            // A client may insist on UDP without a NAT; where it sends IKE, its ESP passes too.
            udp: udp || (floated && sa.traits.nat.is_some()),
            native: self.config.native_esp && (!udp || self.config.native_esp_through_nat),
            doubt_sha2: sa.transform.group == sallyport_crypto::dh::DhGroup::Modp1024,
            has_ke: m.ke.is_some(),
        };
        let choice = match choose_esp(&offer, &self.config, wish) {
            Ok(choice) => choice,
            Err(no) => {
                let n = Some(NotifyType::NO_PROPOSAL_CHOSEN);
                let kind = if no.encapsulation { RefusalKind::Encapsulation } else { RefusalKind::NoProposal };
                return self.fail_quick(now, sa, x, kind, n, no.cause, &no.remedy);
            }
        };
        let Some(spi_in) = self.new_spi() else {
            let cause = "this gateway has no SPI left".to_owned();
            return self.fail_quick(now, sa, x, RefusalKind::Limit, None, cause, "add a gateway");
        };
        self.reserved_spis.insert(spi_in, sa.id);
        (x.spi_in, x.spi_out) = (spi_in, choice.spi_out);
        let group = choice.transform.group;
        x.transform = Some(choice.transform);
        x.choice = Some(choice);
        match (group, m.ke) {
            (Some(group), Some(ke)) if ke.len() == group.public_len() => {
                self.timers.set(TimerKey::Quick(sa.id, x.message_id), now + self.config.exchange_timeout);
                let job = Job::KeyExchange { group, peer_public: ke };
                if !self.give_job(sa, Purpose::QuickKeyExchange(x.message_id), job) {
                    let cause = "too many handshakes wait for this machine's processors".to_owned();
                    self.fail_quick(
                        now,
                        sa,
                        x,
                        RefusalKind::Limit,
                        None,
                        cause,
                        "this machine is overloaded: add a gateway",
                    );
                }
            }
            (Some(group), _) => {
                let cause = format!("the client's key exchange value has not the length of {group}");
                let n = Some(NotifyType::INVALID_KEY_INFORMATION);
                self.fail_quick(now, sa, x, RefusalKind::Malformed, n, cause, "a fault of the client");
            }
            (None, _) => self.quick_respond_2(now, sa, x),
        }
    }

    /// Message 2.
    pub(super) fn quick_respond_2(&mut self, now: Instant, sa: &mut IsakmpSa, x: &mut QuickMode) {
        x.nonce_r = self.quick_nonce();
        let Some(choice) = x.choice.take() else { return };
        let mut chain = Self::quick_chain(x, &choice.answer(x.spi_in), &x.nonce_r);
        Self::nat_oa_payloads(sa, sa.remote, sa.local, &mut chain);
        let Some(keys) = &sa.keys else { return };
        let hash = keys.hash_2(x.message_id, &x.nonce_i, chain.as_slice());
        let (message, iv) = keys.seal(&x.iv, Self::quick_header(sa, x), &prepend_hash(&hash, &chain));
        x.iv = iv;
        x.state = QuickState::Expect3;
        x.sent = self.send(sa, message);
        x.tries = 0;
        self.timers.set(TimerKey::Quick(sa.id, x.message_id), now + backoff(&self.config, 0));
        if let Some(child) = sa.peer.and_then(|p| self.child_of(sa, x, p)) {
            x.prepared = true;
            self.output.push_back(Output::Event(Event::ChildPrepared(Box::new(child))));
        }
    }

    /// Message 3.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn quick_mode_3(
        &mut self,
        now: Instant,
        sa: &mut IsakmpSa,
        x: &mut QuickMode,
        (local, remote): (SocketAddr, SocketAddr),
        header: &Header,
        body: &[u8],
        print: u64,
    ) {
        let genuine = open(sa, &x.iv, header, body).is_some_and(|m| {
            let hash = sa.keys.as_ref().map(|k| k.hash_3(x.message_id, &x.nonce_i, &x.nonce_r));
            hash.is_some_and(|h| hash_matches(&h, &m.hash))
        });
        if !genuine {
            self.stats.unauthentic += 1;
            return;
        }
        x.print = print;
        x.sent.clear();
        // HASH(3) covers our fresh nonce, so this is the peer and it is here.
        (sa.local, sa.remote) = (local, remote);
        if let Some(peer) = sa.peer {
            self.move_peer(peer, local, remote);
        }
        self.child_up(now, sa, x);
    }
}
