//! Main mode as initiator.

use std::net::SocketAddr;

use sallyport_base::{Instant, PeerId};
use sallyport_crypto::dh::DhSecret;

use crate::endpoint::{Connect, ConnectAuth, Endpoint, Fate, Purpose, TimerKey, backoff};
use crate::error::RefusalKind;
use crate::header::{Cookie, ExchangeType};
use crate::message::{Message, assemble};
use crate::nat::{NatVariant, detect, nat_d};
use crate::output::{Job, Role};
use crate::payload::{ChainWriter, Notify, NotifyType, Payload, PayloadType, ProtocolId};
use crate::proposal::{AuthMethod, Phase1Transform, accepted_phase1, default_offer, phase1_offer};
use crate::v1::isakmp_sa::{Handshake, IsakmpSa, PeerTraits, Repeat, Requested, SaId, Step};
use crate::v1::main_mode::{asks_for, open_authentication};
use crate::v1::peer::Peer;

impl Endpoint {
    /// Connects to a gateway. The peer's number is valid from here on; a failure is one [`Event::Refused`](crate::Event)
    /// that names it (and no `PeerDown`, if `PeerUp` was not reached).
    pub fn connect(&mut self, now: Instant, connect: Connect) -> PeerId {
        let id = self.new_peer_id();
        let (local, remote) = (connect.local, connect.remote);
        let mut peer = Peer::new(id, Role::Initiator, local, remote, now);
        peer.connect = Some(Box::new(connect.clone()));
        self.peers.insert(id, peer);
        self.request_1(now, id, Box::new(connect), local, remote);
        id
    }

    /// Message 1.
    fn request_1(&mut self, now: Instant, peer: PeerId, connect: Box<Connect>, local: SocketAddr, remote: SocketAddr) {
        let method = match &connect.auth {
            ConnectAuth::PreSharedKey => Some((AuthMethod::PreSharedKey, None)),
            ConnectAuth::Certificate(id) => {
                let found = self.config.credentials.iter().find(|c| c.id == *id);
                found.map(|c| (AuthMethod::Signature(c.method), Some(c.id)))
            }
        };
        let id = self.new_sa_id();
        let cky_i = self.new_cookie();
        let mut h = Box::new(Handshake::new(Step::Expect2));
        let mut offer = connect.phase1.clone();
        if offer.is_empty()
            && let Some((method, _)) = method
        {
            offer = default_offer(&self.config, method);
        }
        h.credential = method.and_then(|(_, c)| c);
        h.connect = Some(connect);
        let seconds = u32::try_from(self.config.phase1_lifetime.as_secs()).unwrap_or(u32::MAX);
        h.sa_i = phase1_offer(&offer, seconds);
        h.nonce_i = self.nonce();
        let transform = offer.first().copied();
        h.offer = offer;
        let mut chain = ChainWriter::new();
        chain.bytes(PayloadType::SA, &h.sa_i);
        let variants: Vec<&[u8]> = NatVariant::ALL.iter().map(|v| &v.vendor_id()[..]).collect();
        Self::vendor_ids(&mut chain, &variants);
        let sa = Box::new(IsakmpSa {
            id,
            role: Role::Initiator,
            cky_i,
            cky_r: Cookie::ZERO,
            local,
            remote,
            origin: local,
            transform: transform.unwrap_or(Phase1Transform {
                cipher: sallyport_crypto::cbc::CbcAlg::Aes256,
                hash: sallyport_crypto::hash::HashAlg::Sha256,
                group: sallyport_crypto::dh::DhGroup::Ecp256,
                method: AuthMethod::PreSharedKey,
            }),
            lifetime: self.config.phase1_lifetime,
            cut_short: false,
            traits: PeerTraits::default(),
            nat: Default::default(),
            keys: None,
            iv: Default::default(),
            handshake: Some(h),
            peer: Some(peer),
            began: now,
            established: None,
            last: None,
            exchanges: Vec::new(),
            seen: Default::default(),
            seen_quick: Default::default(),
            dpd_peer_seq: None,
            jobs: Vec::new(),
        });
        let message = assemble(sa.header(ExchangeType::MAIN_MODE, 0), &chain);
        self.by_cookies.insert((cky_i, Cookie::ZERO), id);
        self.sas.insert(id, sa);
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.sas.push(id);
        }
        self.timers.set(TimerKey::Handshake(id), now + self.config.exchange_timeout);
        self.with_sa(id, |ep, sa| {
            if transform.is_none() {
                let cause = "there is nothing to propose: no such certificate, or no algorithm".to_owned();
                return ep.fail(now, sa, RefusalKind::Local, cause, "check the client's settings");
            }
            ep.send_repeating(now, sa, message);
            Fate::Keep
        });
    }

    /// Sends a message of ours and repeats it until it is answered.
    fn send_repeating(&mut self, now: Instant, sa: &mut IsakmpSa, message: Vec<u8>) {
        let datagrams = self.send(sa, message);
        self.repeat(now, sa, datagrams);
    }

    fn repeat(&mut self, now: Instant, sa: &mut IsakmpSa, datagrams: Vec<Vec<u8>>) {
        if let Some(h) = sa.handshake.as_deref_mut() {
            h.repeat = Some(Repeat { datagrams, tries: 0 });
            h.hint = None;
        }
        self.timers.set(TimerKey::Repeat(sa.id), now + backoff(&self.config, 0));
        self.timers.set(TimerKey::Handshake(sa.id), now + self.config.exchange_timeout);
    }

    /// Our last message was answered.
    fn answered(&mut self, sa: &mut IsakmpSa, step: Step) {
        self.timers.cancel(TimerKey::Repeat(sa.id));
        if let Some(h) = sa.handshake.as_deref_mut() {
            h.repeat = None;
            h.step = step;
        }
    }

    /// A reply that cannot be genuine, but nothing proves that it is the responder's: the wait goes on.
    fn implausible(&mut self, sa: &mut IsakmpSa, what: &str) -> Fate {
        self.stats.malformed += 1;
        if let Some(h) = sa.handshake.as_deref_mut() {
            h.hint = Some(what.to_owned());
        }
        Fate::Keep
    }

    /// Message 2: what the responder chose.
    pub(super) fn main_mode_2(&mut self, now: Instant, sa: &mut IsakmpSa, message: &Message<'_>) -> Fate {
        let chosen = message.payloads.iter().find_map(|p| match p {
            Payload::Sa(answer, _) => Some(accepted_phase1(answer, &sa.handshake.as_deref()?.offer)),
            _ => None,
        });
        let Some(chosen) = chosen else {
            self.stats.malformed += 1;
            return Fate::Keep;
        };
        let Some((transform, lifetimes)) = chosen else {
            return self.implausible(sa, "it chose something that was not offered");
        };
        sa.transform = transform;
        sa.lifetime = self.lifetime(lifetimes.seconds, self.config.phase1_lifetime_max);
        sa.traits = PeerTraits::of(&message.payloads);
        self.by_cookies.remove(&(sa.cky_i, Cookie::ZERO));
        sa.cky_r = message.header.cky_r;
        self.by_cookies.insert((sa.cky_i, sa.cky_r), sa.id);
        self.answered(sa, Step::MakeKeyPair);
        if self.give_job(sa, Purpose::KeyPair, Job::KeyPair { group: transform.group }) {
            Fate::Keep
        } else {
            self.too_many_jobs(now, sa)
        }
    }

    /// Message 3.
    pub(super) fn request_3(&mut self, now: Instant, sa: &mut IsakmpSa, secret: DhSecret) -> Fate {
        let Some(h) = sa.handshake.as_deref_mut() else { return Fate::Keep };
        h.g_xi = secret.public().to_vec();
        h.secret = Some(secret);
        h.step = Step::Expect4;
        let mut chain = ChainWriter::new();
        chain.bytes(PayloadType::KE, &h.g_xi).bytes(PayloadType::NONCE, &h.nonce_i);
        self.certificate_requests(sa, &mut chain);
        let own = sa.local;
        self.nat_d_payloads(sa, &mut chain, own);
        let message = assemble(sa.header(ExchangeType::MAIN_MODE, 0), &chain);
        self.send_repeating(now, sa, message);
        Fate::Keep
    }

    /// Message 4: the responder's half of the keys, and where the NATs are.
    pub(super) fn main_mode_4(&mut self, now: Instant, sa: &mut IsakmpSa, message: &Message<'_>) -> Fate {
        let mut ke = None;
        let mut nonce = None;
        let mut nat_ds: Vec<&[u8]> = Vec::new();
        let mut requested = Requested::default();
        for p in &message.payloads {
            match p {
                Payload::KeyExchange(k) => ke = Some(*k),
                Payload::Nonce(n) => nonce = Some(*n),
                Payload::NatD(d) => nat_ds.push(d),
                Payload::CertRequest(c) => requested |= asks_for(&self.config.credentials, c.authority),
                _ => {}
            }
        }
        let (Some(ke), Some(nonce)) = (ke, nonce) else {
            self.stats.malformed += 1;
            return Fate::Keep;
        };
        if ke.len() != sa.transform.group.public_len() {
            return self.implausible(sa, "its key exchange value has not the length of the group");
        }
        sa.traits = sa.traits.and_later(&message.payloads);
        if nat_ds.is_empty() {
            sa.traits.nat = None;
        }
        let (hash, cky_i, cky_r) = (sa.transform.hash, sa.cky_i, sa.cky_r);
        sa.nat = detect(&nat_ds, |at| nat_d(hash, cky_i, cky_r, at), sa.local, sa.remote, &[]);
        if !self.config.native_esp && sa.traits.nat.is_some() {
            sa.nat.local = true;
        }
        // RFC 3947 §4: from message 5 on both ports are 4500.
        if sa.udp_encap() {
            sa.local.set_port(self.config.nat_t_port);
            if sa.remote.port() == self.config.ike_port {
                sa.remote.set_port(self.config.nat_t_port);
            }
        }
        self.answered(sa, Step::Agree);
        let Some(h) = sa.handshake.as_deref_mut() else { return Fate::Keep };
        h.g_xr = ke.to_vec();
        h.nonce_r = nonce.to_vec();
        h.requested = requested;
        let Some(secret) = h.secret.take() else { return Fate::Keep };
        let (local, remote) = (sa.local, sa.remote);
        let mut ok = self.give_job(sa, Purpose::Agree, Job::Agree { secret, peer_public: ke.to_vec() });
        if sa.transform.method == AuthMethod::PreSharedKey {
            let job = Job::PreSharedKey { local, remote, role: Role::Initiator };
            ok = ok && self.give_job(sa, Purpose::PreSharedKey, job);
        }
        if ok { Fate::Keep } else { self.too_many_jobs(now, sa) }
    }

    /// The keys are there: prove who we are.
    pub(super) fn authenticate_5(&mut self, now: Instant, sa: &mut IsakmpSa) -> Fate {
        if !Self::make_keys(sa) {
            return Fate::Keep; // one of the two answers is still missing
        }
        let identity = self.own_identity(sa);
        let Some(hash) = sa.phase1_hash().map(|h| h.hash_i(&identity.to_body())) else { return Fate::Keep };
        if !sa.with_signatures() {
            return self.request_5(now, sa, PayloadType::HASH, &hash);
        }
        let Some((credential, method)) = self.choose_credential(sa).map(|c| (c.id, c.method)) else {
            let cause = "there is no certificate for this method any more".to_owned();
            return self.fail(now, sa, RefusalKind::Crypto, cause, "check the client's certificates");
        };
        if let Some(h) = sa.handshake.as_deref_mut() {
            h.step = Step::Sign5;
        }
        if self.give_job(sa, Purpose::Sign, Job::Sign { credential, method, hash: hash.to_vec() }) {
            Fate::Keep
        } else {
            self.too_many_jobs(now, sa)
        }
    }

    /// Message 5.
    pub(super) fn request_5(&mut self, now: Instant, sa: &mut IsakmpSa, kind: PayloadType, proof: &[u8]) -> Fate {
        let identity = self.own_identity(sa);
        let mut chain = self.authentication_chain(sa, &identity);
        chain.bytes(kind, proof);
        // RFC 2407 §4.6.3.3: only if we have nothing else with this peer.
        let known = sa.peer.and_then(|p| self.peers.get(&p)).is_some_and(|p| p.up);
        if !known {
            let spi = sa.spi();
            let notify = Notify::new(ProtocolId::ISAKMP, NotifyType::INITIAL_CONTACT, &spi, &[]);
            chain.payload(PayloadType::NOTIFY, |w| notify.emit(w));
        }
        if let Some(h) = sa.handshake.as_deref_mut() {
            h.step = Step::Expect6;
        }
        let datagrams = self.send_sealed(sa, &chain);
        self.repeat(now, sa, datagrams);
        Fate::Keep
    }

    /// Message 6: who the responder is.
    pub(super) fn main_mode_6(
        &mut self,
        now: Instant,
        sa: &mut IsakmpSa,
        local: SocketAddr,
        remote: SocketAddr,
        message: &Message<'_>,
    ) -> Fate {
        let Some(body) = message.encrypted else {
            self.stats.malformed += 1;
            return Fate::Keep;
        };
        let Some(a) = open_authentication(sa, &message.header, body, &self.config.credentials) else {
            return self.garbage(now, sa);
        };
        (sa.local, sa.remote) = (local, remote);
        self.check_authentication(now, sa, a, Step::Verify6)
    }

    /// As initiator: a new ISAKMP SA before the old one ends.
    pub(crate) fn rekey_phase1(&mut self, now: Instant, id: SaId) {
        let Some(peer) = self.sas.get(&id).and_then(|sa| sa.peer) else { return };
        self.new_phase1(now, peer);
    }

    /// Begins a main mode with a peer that we once connected to, from where it is now (RFC 3947 §4 lets it begin on
    /// 4500).
    pub(crate) fn new_phase1(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get(&id) else { return };
        let Some(connect) = peer.connect.clone() else { return };
        let under_way = peer.sas.iter().any(|s| self.sas.get(s).is_some_and(|sa| sa.handshake.is_some()));
        if !under_way {
            let (local, remote) = (peer.local, peer.remote);
            self.request_1(now, id, connect, local, remote);
        }
    }
}
