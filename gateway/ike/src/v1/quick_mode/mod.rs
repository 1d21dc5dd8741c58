//! Quick mode, RFC 2409 §5.5: both roles, and what they share.
//!
//! ```text
//! 1  HDR*, HASH(1), SA, Ni, [KE], IDci, IDcr, [NAT-OA, NAT-OA]   ->
//! 2                                          <-  HDR*, HASH(2), SA, Nr, [KE], IDci, IDcr, [NAT-OA, NAT-OA]
//! 3  HDR*, HASH(3)                                                ->
//! ```

mod initiator;
mod responder;

use std::net::SocketAddr;

use sallyport_base::{Instant, PeerId};
use sallyport_crypto::dh::{DhSecret, SharedSecret};

use crate::endpoint::{Endpoint, Fate, Purpose, TimerKey, backoff, fingerprint, jitter};
use crate::error::{Phase, RefusalKind};
use crate::header::{ExchangeType, Header};
use crate::output::{Answer, ChildSa, DownReason, Event, Output, Role};
use crate::payload::{ChainWriter, Identification, NatOa, NotifyType, Payload, PayloadType, parse_chain_used};
use crate::proposal::{EspChoice, EspOffer, EspTransform};
use crate::timer;
use crate::v1::ipsec_sa::Child;
use crate::v1::isakmp_sa::{IsakmpSa, SaId};
use crate::v1::keymat::{Iv, behind_hash};

/// Length of our nonces in bytes.
const NONCE_LEN: usize = 32;

/// IP protocol number of UDP.
const UDP: u8 = 17;

/// Where a quick mode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QuickState {
    /// Responder: message 1 came, PFS is being computed.
    MakeKeys,
    /// Responder: message 2 is sent.
    Expect3,
    /// Initiator: a key pair for PFS is being made.
    MakeKeyPair,
    /// Initiator: message 1 is sent.
    Expect2,
    /// Initiator: message 2 came, PFS is being computed.
    Agree,
    /// Over; the last message is kept.
    Done,
}

/// A quick mode of an ISAKMP SA.
#[derive(Debug)]
pub(crate) struct QuickMode {
    pub(crate) message_id: u32,
    pub(crate) role: Role,
    pub(crate) state: QuickState,
    /// IV of the next message.
    iv: Iv,
    /// Fingerprint of the peer's last message, and what answered it (or waits for an answer).
    print: u64,
    sent: Vec<Vec<u8>>,
    tries: u8,
    nonce_i: Vec<u8>,
    nonce_r: Vec<u8>,
    spi_in: u32,
    spi_out: u32,
    transform: Option<EspTransform>,
    choice: Option<EspChoice>,
    offer: Option<EspOffer>,
    /// IDci and IDcr as they were sent.
    ids: Option<Box<(Identification, Identification)>>,
    public: Vec<u8>,
    secret: Option<DhSecret>,
    shared: Option<SharedSecret>,
    /// The child that this one takes the place of, as initiator.
    replaces: Option<u32>,
    /// `ChildPrepared` was reported.
    prepared: bool,
}

impl QuickMode {
    fn new(message_id: u32, role: Role, state: QuickState, iv: Iv) -> Self {
        Self {
            message_id,
            role,
            state,
            iv,
            print: 0,
            sent: Vec::new(),
            tries: 0,
            nonce_i: Vec::new(),
            nonce_r: Vec::new(),
            spi_in: 0,
            spi_out: 0,
            transform: None,
            choice: None,
            offer: None,
            ids: None,
            public: Vec::new(),
            secret: None,
            shared: None,
            replaces: None,
            prepared: false,
        }
    }
}

/// A decrypted message of quick mode.
struct Opened {
    hash: Vec<u8>,
    /// What HASH(1) and HASH(2) cover.
    rest: Vec<u8>,
    sa: Option<Vec<u8>>,
    nonce: Option<Vec<u8>>,
    ke: Option<Vec<u8>>,
    ids: Vec<Identification>,
    next_iv: Iv,
}

fn open(sa: &IsakmpSa, iv: &Iv, header: &Header, body: &[u8]) -> Option<Opened> {
    let (plain, next_iv) = sa.keys.as_ref()?.open(iv, body)?;
    let (payloads, used) = parse_chain_used(header.next_payload, &plain).ok()?;
    let Some(Payload::Hash(hash)) = payloads.first() else { return None };
    let rest = behind_hash(&plain, used, hash.len())?.to_vec();
    let mut out = Opened { hash: hash.to_vec(), rest, sa: None, nonce: None, ke: None, ids: Vec::new(), next_iv };
    for p in payloads.iter().skip(1) {
        match p {
            Payload::Sa(_, body) if out.sa.is_none() => out.sa = Some(body.to_vec()),
            Payload::Nonce(n) => out.nonce = Some(n.to_vec()),
            Payload::KeyExchange(k) => out.ke = Some(k.to_vec()),
            Payload::Id(id) if out.ids.len() < 2 => out.ids.push(id.clone()),
            _ => {}
        }
    }
    Some(out)
}

impl Endpoint {
    /// Takes a message of quick mode.
    pub(crate) fn quick_mode(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        header: &Header,
        body: &[u8],
    ) {
        let Some(id) = self.by_cookies.get(&(header.cky_i, header.cky_r)).copied() else {
            self.stats.unknown_cookies += 1;
            return;
        };
        if !header.is_encrypted() || header.message_id == 0 {
            self.stats.malformed += 1;
            return;
        }
        let print = fingerprint(body);
        self.with_sa(id, |ep, sa| {
            if sa.established.is_none() {
                ep.stats.unauthentic += 1;
                return Fate::Keep;
            }
            let at = sa.exchanges.iter().position(|x| x.message_id == header.message_id);
            let Some(at) = at else {
                ep.quick_mode_1(now, sa, local, remote, header, body, print);
                return Fate::Keep;
            };
            let mut x = sa.exchanges.swap_remove(at);
            if x.print == print {
                ep.stats.repeated += 1;
                let sent = x.sent.clone();
                ep.transmit(local, remote, &sent);
            } else {
                match x.state {
                    QuickState::Expect3 => ep.quick_mode_3(now, sa, &mut x, (local, remote), header, body, print),
                    QuickState::Expect2 => ep.quick_mode_2(now, sa, &mut x, (local, remote), header, body, print),
                    _ => ep.stats.repeated += 1,
                }
            }
            sa.exchanges.push(x);
            Fate::Keep
        });
        self.after_quick_mode(now, id);
    }

    /// Takes the answer to a job of quick mode.
    pub(crate) fn quick_mode_answer(&mut self, now: Instant, id: SaId, mid: u32, purpose: Purpose, answer: Answer) {
        self.with_exchange(id, mid, |ep, sa, x| match (x.state, purpose, answer) {
            (_, _, Answer::Failed(why)) => {
                let cause = format!("the key exchange of perfect forward secrecy failed: {why}");
                ep.fail_quick(now, sa, x, RefusalKind::Crypto, None, cause, "a fault of the peer, or an attack");
            }
            (QuickState::MakeKeys, Purpose::QuickKeyExchange(_), Answer::KeyExchange { public, shared }) => {
                (x.public, x.shared) = (public, Some(shared));
                ep.quick_respond_2(now, sa, x);
            }
            (QuickState::MakeKeyPair, Purpose::QuickKeyPair(_), Answer::KeyPair(secret)) => {
                x.public = secret.public().to_vec();
                x.secret = Some(secret);
                ep.quick_request_1(now, sa, x);
            }
            (QuickState::Agree, Purpose::QuickAgree(_), Answer::Agree(shared)) => {
                x.shared = Some(shared);
                ep.quick_request_3(now, sa, x);
            }
            _ => {}
        });
        self.after_quick_mode(now, id);
    }

    /// Time to repeat a message of quick mode, to give it up, or to forget it.
    pub(crate) fn quick_mode_timeout(&mut self, now: Instant, id: SaId, mid: u32) {
        self.with_exchange(id, mid, |ep, sa, x| {
            match x.state {
                QuickState::Done => {
                    ep.forget_exchange(sa, x);
                    x.message_id = 0; // marks it for removal
                }
                QuickState::Expect2 | QuickState::Expect3 if x.tries < ep.config.retransmit_tries => {
                    x.tries += 1;
                    ep.stats.retransmitted += 1;
                    let sent = x.sent.clone();
                    ep.transmit(sa.local, sa.remote, &sent);
                    ep.timers.set(TimerKey::Quick(sa.id, mid), now + backoff(&ep.config, x.tries));
                }
                QuickState::Expect2 => {
                    let cause = "the peer does not answer message 1".to_owned();
                    ep.fail_quick(now, sa, x, RefusalKind::Silence, None, cause, "the gateway's own record says why; check that UDP 4500 reaches it");
                }
                QuickState::Expect3 => {
                    let cause = "the client sent no message 3".to_owned();
                    ep.fail_quick(now, sa, x, RefusalKind::Silence, None, cause, "the client did not like our answer (Windows: the server is behind a NAT and AssumeUDPEncapsulationContextOnSendRule is not set), or packets are lost");
                }
                QuickState::MakeKeys | QuickState::MakeKeyPair | QuickState::Agree => {
                    let cause = "our own computation took too long".to_owned();
                    ep.fail_quick(now, sa, x, RefusalKind::Limit, None, cause, "this machine is overloaded: look at its processor time");
                }
            }
        });
        self.after_quick_mode(now, id);
    }

    fn with_exchange(&mut self, id: SaId, mid: u32, f: impl FnOnce(&mut Self, &mut IsakmpSa, &mut QuickMode)) {
        self.with_sa(id, |ep, sa| {
            let Some(at) = sa.exchanges.iter().position(|x| x.message_id == mid) else { return Fate::Keep };
            let mut x = sa.exchanges.swap_remove(at);
            f(ep, sa, &mut x);
            if x.message_id != 0 {
                sa.exchanges.push(x);
            }
            Fate::Keep
        });
    }

    /// What can only be done when the SA is back in its table.
    fn after_quick_mode(&mut self, now: Instant, id: SaId) {
        let Some(peer) = self.sas.get(&id).and_then(|sa| sa.peer) else { return };
        let Some(p) = self.peers.get(&peer) else { return };
        // As initiator a peer whose first ESP SA failed is of no use.
        if p.role == Role::Initiator && p.refused && !p.had_child {
            return self.peer_down(now, peer, DownReason::Failed, true);
        }
        let surplus = p.children.len().saturating_sub(self.config.limits.children_per_peer.max(1));
        let oldest: Vec<u32> = p.children.iter().take(surplus).copied().collect();
        for spi in oldest {
            self.end_child(now, spi, DownReason::Replaced);
        }
    }

    /// Forgets what an exchange holds in other tables.
    pub(crate) fn forget_exchange(&mut self, sa: &IsakmpSa, x: &QuickMode) {
        self.timers.cancel(TimerKey::Quick(sa.id, x.message_id));
        if self.reserved_spis.remove(&x.spi_in).is_some()
            && x.prepared
            && let Some(peer) = sa.peer
        {
            let down = Event::ChildDown { peer, spi_in: x.spi_in, reason: DownReason::Failed };
            self.output.push_back(Output::Event(down));
        }
        if let Some(old) = x.replaces.and_then(|spi| self.children.get_mut(&spi)) {
            old.rekeying = false;
        }
    }

    /// Ends a quick mode and reports why; `notify` tells the peer.
    #[allow(clippy::too_many_arguments)]
    fn fail_quick(
        &mut self,
        now: Instant,
        sa: &mut IsakmpSa,
        x: &mut QuickMode,
        kind: RefusalKind,
        notify: Option<NotifyType>,
        cause: String,
        remedy: &str,
    ) {
        self.forget_exchange(sa, x);
        if let Some(what) = notify {
            x.sent = self.send_notify(sa, what, Some(x.spi_out), &[]);
        }
        x.state = QuickState::Done;
        x.secret = None;
        x.shared = None;
        x.prepared = false;
        self.timers.set(TimerKey::Quick(sa.id, x.message_id), now + timer::REPLY_KEPT);
        let mut identity = None;
        if let Some(peer) = sa.peer.and_then(|p| self.peers.get_mut(&p)) {
            peer.refused = true;
            identity = Some(peer.name.clone());
        }
        // A rekey that failed is tried again while there is time.
        if let Some(spi) = x.replaces
            && let Some(child) = self.children.get(&spi)
            && sa.role == Role::Initiator
        {
            let end = child.installed + child.lifetime;
            let again = now + timer::REKEY_RETRY;
            if again < end {
                self.timers.set(TimerKey::ChildRekey(spi), again);
            }
        }
        let ends = (sa.local, sa.remote);
        self.refuse(now, Phase::QuickMode, kind, ends, identity, sa.peer, cause, remedy.to_owned());
    }

    /// The peer refused a quick mode that we began, and said so with authority.
    pub(crate) fn quick_mode_refused(&mut self, now: Instant, id: SaId, what: NotifyType, _spi: &[u8]) {
        let waiting = self.sas.get(&id).map(|sa| {
            let of_ours = sa.exchanges.iter().filter(|x| x.state == QuickState::Expect2);
            of_ours.map(|x| x.message_id).collect::<Vec<_>>()
        });
        // With several under way it is not known which is meant; their own timers end them.
        let Some([mid]) = waiting.as_deref() else { return };
        let mid = *mid;
        self.with_exchange(id, mid, |ep, sa, x| {
            let cause = format!("the other side refused: {what}");
            ep.fail_quick(now, sa, x, RefusalKind::PeerRefused, None, cause, "its own record says why");
        });
        self.after_quick_mode(now, id);
    }

    /// The keys and everything else of the ESP SA that this exchange makes.
    fn child_of(&self, sa: &IsakmpSa, x: &QuickMode, peer: PeerId) -> Option<ChildSa> {
        let keys = sa.keys.as_ref()?;
        let t = x.transform.as_ref()?;
        let shared = x.shared.as_deref();
        if t.group.is_some() && shared.is_none() {
            return None;
        }
        let make = |spi| keys.esp_keys(t.suite, spi, &x.nonce_i, &x.nonce_r, shared);
        let (client_port, gateway_port) = self.ports(peer, x)?;
        let replaces = x.replaces.or_else(|| self.peers.get(&peer)?.children.last().copied());
        Some(ChildSa {
            peer,
            spi_in: x.spi_in,
            spi_out: x.spi_out,
            suite: t.suite,
            keys_in: make(x.spi_in)?,
            keys_out: make(x.spi_out)?,
            local: sa.local,
            remote: sa.remote,
            udp_encap: t.encapsulation != crate::payload::EncapsulationMode::TRANSPORT,
            client_port,
            gateway_port,
            lifetime: self.lifetime(t.lifetimes.seconds, self.config.phase2_lifetime_max),
            lifetime_kilobytes: t
                .lifetimes
                .kilobytes
                .filter(|k| *k > 0)
                .into_iter()
                .chain(self.config.phase2_kilobytes.map(u64::from))
                .min(),
            role: x.role,
            replaces,
        })
    }

    /// Our identity and the peer's in an exchange.
    fn own_and_peer(x: &QuickMode) -> Option<(&Identification, &Identification)> {
        let (ci, cr) = &**x.ids.as_ref()?;
        Some(match x.role {
            Role::Initiator => (ci, cr),
            Role::Responder => (cr, ci),
        })
    }

    /// The UDP ports of client and gateway.
    fn ports(&self, peer: PeerId, x: &QuickMode) -> Option<(u16, u16)> {
        let (own, theirs) = Self::own_and_peer(x)?;
        Some(match self.peers.get(&peer)?.role {
            Role::Responder => (theirs.port, own.port),
            Role::Initiator => (own.port, theirs.port),
        })
    }

    /// The exchange is complete: the ESP SA is up.
    fn child_up(&mut self, now: Instant, sa: &mut IsakmpSa, x: &mut QuickMode) {
        let Some(peer_id) = sa.peer else { return };
        let Some(mut child) = self.child_of(sa, x, peer_id) else { return };
        let Some((own, theirs)) = Self::own_and_peer(x) else { return };
        (child.local, child.remote) = (sa.local, sa.remote);
        let ids = Box::new((own.clone(), theirs.clone()));
        self.reserved_spis.remove(&x.spi_in);
        x.state = QuickState::Done;
        x.secret = None;
        x.shared = None;
        self.timers.set(TimerKey::Quick(sa.id, x.message_id), now + timer::REPLY_KEPT);
        self.stats.phase2_up += 1;
        let Some(peer) = self.peers.get_mut(&peer_id) else { return };
        peer.had_child = true;
        peer.last_inbound = now;
        let gateway = peer.role == Role::Responder;
        for old in &peer.children {
            if let Some(old) = self.children.get_mut(old) {
                old.replaced = true;
            }
            self.timers.cancel(TimerKey::ChildRekey(*old));
        }
        peer.children.push(child.spi_in);
        self.timers.cancel(TimerKey::PeerIdle(peer_id));
        let (spi, lifetime) = (child.spi_in, child.lifetime);
        self.timers.set(TimerKey::ChildExpire(spi), now + lifetime);
        if !gateway {
            let at = jitter(&mut self.rng, lifetime.mul_f64(0.8));
            self.timers.set(TimerKey::ChildRekey(spi), now + at);
        } else if lifetime >= timer::RESPONDER_REKEY_MARGIN * 3 {
            self.timers.set(TimerKey::ChildRekey(spi), now + (lifetime - timer::RESPONDER_REKEY_MARGIN));
        }
        // Who asked for the new one takes the old one away, when its last packets are through.
        if let Some(old) = x.replaces.filter(|_| x.role == Role::Initiator) {
            self.timers.set(TimerKey::ChildRetire(old), now + timer::OLD_CHILD_KEPT);
        }
        self.children.insert(
            spi,
            Child {
                peer: peer_id,
                spi_out: child.spi_out,
                suite: child.suite,
                installed: now,
                lifetime,
                replaced: false,
                rekeying: false,
                overrun: 0,
                ids,
            },
        );
        x.replaces = None;
        self.output.push_back(Output::Event(Event::ChildUp(Box::new(child))));
    }

    /// Ends a child and tells the peer.
    pub(crate) fn end_child(&mut self, now: Instant, spi_in: u32, reason: DownReason) {
        let Some(peer) = self.children.get(&spi_in).map(|c| c.peer) else { return };
        self.send_delete_children(now, peer, &[spi_in]);
        self.child_down(spi_in, reason.clone());
        self.review_peer(now, peer, reason);
    }

    /// Appends NAT-OA payloads: the initiator's address, then the responder's (RFC 3947 §5.2). Nobody who knows what is
    /// good for him depends on them.
    fn nat_oa_payloads(sa: &IsakmpSa, initiator: SocketAddr, responder: SocketAddr, chain: &mut ChainWriter) {
        let Some(variant) = sa.traits.nat.filter(|_| sa.udp_encap()) else { return };
        for at in [initiator, responder] {
            let oa = NatOa { address: at.ip() };
            chain.payload(variant.nat_oa(), |w| oa.emit(w));
        }
    }

    fn quick_header(sa: &IsakmpSa, x: &QuickMode) -> Header {
        sa.header(ExchangeType::QUICK_MODE, x.message_id)
    }

    /// Appends the payloads that messages 1 and 2 have in common.
    fn quick_chain(x: &QuickMode, sa_body: &[u8], nonce: &[u8]) -> ChainWriter {
        let mut chain = ChainWriter::new();
        chain.bytes(PayloadType::SA, sa_body).bytes(PayloadType::NONCE, nonce);
        if !x.public.is_empty() {
            chain.bytes(PayloadType::KE, &x.public);
        }
        if let Some((ci, cr)) = x.ids.as_deref() {
            chain.payload(PayloadType::ID, |w| ci.emit(w)).payload(PayloadType::ID, |w| cr.emit(w));
        }
        chain
    }

    fn quick_nonce(&mut self) -> Vec<u8> {
        self.rng.bytes::<NONCE_LEN>().to_vec()
    }
}
