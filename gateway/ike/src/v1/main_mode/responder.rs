//! Main mode as responder.

use std::net::SocketAddr;

use sallyport_base::{Instant, Source};

use crate::embryonic::{Bounds, Embryonic};
use crate::endpoint::{Endpoint, Fate, Purpose, TimerKey, fingerprint};
use crate::error::{Phase, RefusalKind};
use crate::header::{ExchangeType, Header};
use crate::message::{Message, assemble};
use crate::nat::{detect, nat_d};
use crate::output::{Job, Role};
use crate::payload::{ChainWriter, NotifyType, Payload, PayloadType};
use crate::proposal::{AuthMethod, choose_phase1, no_phase1_proposal};
use crate::v1::isakmp_sa::{Handshake, IsakmpSa, PeerTraits, Requested, Step, StoredReply};
use crate::v1::main_mode::{asks_for, open_authentication};

/// Largest SA payload of message 1 that is taken. It has to be kept until the handshake ends (HASH_I covers it); the
/// longest lists that clients send by default take 2 KB.
const MAX_SA_LEN: usize = 8_192;

impl Endpoint {
    /// Message 1: choose a transform and remember the offer. Nothing expensive: anybody can send it from any address.
    pub(super) fn main_mode_1(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        message: &Message<'_>,
        bytes: &[u8],
    ) {
        let cky_i = message.header.cky_i;
        let print = fingerprint(bytes);
        if let Some(e) = self.embryonic.of_origin(remote, cky_i) {
            self.stats.repeated += 1;
            if e.print == print {
                let reply = e.reply.clone();
                self.transmit(local, remote, &[reply]);
            }
            return;
        }
        if self.by_origin.contains_key(&(remote, cky_i)) {
            self.stats.repeated += 1;
            return;
        }
        if self.refused_before(now, local, remote, cky_i) {
            return;
        }
        let mut sa_payloads = message.payloads.iter().filter_map(|p| match p {
            Payload::Sa(sa, body) => Some((sa, *body)),
            _ => None,
        });
        let (Some((sa, sa_i)), None) = (sa_payloads.next(), sa_payloads.next()) else {
            self.stats.malformed += 1;
            return;
        };
        if sa_i.len() > MAX_SA_LEN {
            self.stats.malformed += 1;
            return;
        }
        let cky_r = self.new_cookie();
        let Some(choice) = choose_phase1(sa, &self.config) else {
            let reply = self.notify_stranger(now, local, remote, (cky_i, cky_r), NotifyType::NO_PROPOSAL_CHOSEN);
            self.remember_refused(remote, cky_i, reply);
            if self.may_refuse_stranger(now) {
                let no = no_phase1_proposal(sa, &self.config);
                let ends = (local, remote);
                self.report(Phase::MainMode, RefusalKind::NoProposal, ends, None, None, no.cause, no.remedy);
            }
            return;
        };
        let traits = PeerTraits::of(&message.payloads);
        let mut chain = ChainWriter::new();
        chain.bytes(PayloadType::SA, &choice.answer);
        let nat: Vec<&[u8]> = traits.nat.iter().map(|v| &v.vendor_id()[..]).collect();
        Self::vendor_ids(&mut chain, &nat);
        let reply = assemble(Header::v1(cky_i, cky_r, ExchangeType::MAIN_MODE, 0), &chain);
        self.stats.main_mode_1 += 1;
        self.transmit(local, remote, core::slice::from_ref(&reply));
        let limits = self.config.limits;
        let evicted = self.embryonic.insert(
            Embryonic {
                local,
                remote,
                cky_i,
                cky_r,
                print,
                sa_i: sa_i.to_vec(),
                transform: choice.transform,
                lifetimes: choice.lifetimes,
                traits,
                reply,
                began: now,
                over_limit: false,
            },
            Bounds {
                entries: limits.embryonic,
                per_source: limits.embryonic_per_source,
                bytes: limits.embryonic_bytes,
            },
        );
        self.stats.embryonic_evicted += evicted;
        self.arm_embryonic();
    }

    fn arm_embryonic(&mut self) {
        match self.embryonic.oldest() {
            Some(began) => self.timers.set(TimerKey::Embryonic, began + self.config.exchange_timeout),
            None => self.timers.cancel(TimerKey::Embryonic),
        }
    }

    /// First messages whose sender was not heard of again.
    pub(crate) fn expire_embryonic(&mut self, now: Instant) {
        let before = Instant::from_micros(
            now.as_micros().saturating_sub(u64::try_from(self.config.exchange_timeout.as_micros()).unwrap_or(u64::MAX)),
        );
        while let Some(e) = self.embryonic.take_older(before) {
            let (kind, cause, remedy) = if e.over_limit {
                (
                    RefusalKind::Limit,
                    format!(
                        "there are as many handshakes from {} as this gateway takes from one address",
                        e.remote.ip()
                    ),
                    "if many clients sit behind this address, raise half_open_per_source in [gateway.ike]",
                )
            } else {
                (
                    RefusalKind::Silence,
                    "the client sent message 1, got our answer, and was not heard of again".to_owned(),
                    "our answers do not reach the client (Windows shows 809): check the way back, such as a firewall or a load balancer that changes addresses; a scanner looks the same",
                )
            };
            self.refuse(now, Phase::MainMode, kind, (e.local, e.remote), None, None, cause, remedy.to_owned());
        }
        self.arm_embryonic();
    }

    /// Message 3: the sender has repeated our cookie, so it hears us. The expensive part is given out.
    pub(super) fn main_mode_3(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        message: &Message<'_>,
        bytes: &[u8],
    ) {
        let (cky_i, cky_r) = (message.header.cky_i, message.header.cky_r);
        let limits = self.config.limits;
        let source = Source::of(remote.ip());
        let crowded = self.half_open_of.get(&source).copied().unwrap_or(0) >= limits.half_open_per_source.max(1);
        let Some(e) = self.embryonic.of_cookies(cky_i, cky_r) else { return };
        if message.encrypted.is_some() {
            self.stats.malformed += 1;
            return;
        }
        if crowded {
            e.over_limit = true;
            self.stats.half_open_evicted += 1;
            return;
        }
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
            return;
        };
        let Some(e) = self.embryonic.take(cky_i, cky_r) else { return };
        self.arm_embryonic();
        while self.half_open.len() >= limits.half_open.max(1) {
            let Some(oldest) = self.half_open.first_key_value().map(|(id, _)| *id) else { break };
            self.stats.half_open_evicted += 1;
            self.with_sa(oldest, |ep, sa| {
                let cause = format!("it took too long while {} other handshakes were under way", limits.half_open);
                ep.fail(
                    now,
                    sa,
                    RefusalKind::Limit,
                    cause,
                    "raise half_open in [gateway.ike], or find out who floods this gateway",
                )
            });
        }
        let mut h = Box::new(Handshake::new(Step::MakeKeys));
        h.sa_i = e.sa_i;
        h.nonce_i = nonce.to_vec();
        h.g_xi = ke.to_vec();
        h.requested = requested;
        let id = self.new_sa_id();
        let lifetime = self.lifetime(e.lifetimes.seconds, self.config.phase1_lifetime_max);
        let mut traits = e.traits.and_later(&message.payloads);
        // No NAT-D, no NAT-T, whatever was announced.
        if nat_ds.is_empty() {
            traits.nat = None;
        }
        let hash = e.transform.hash;
        let mut nat = detect(&nat_ds, |at| nat_d(hash, cky_i, cky_r, at), local, remote, &self.config.public_addresses);
        if !self.config.native_esp && traits.nat.is_some() {
            nat.peer = true;
        }
        let mut sa = Box::new(IsakmpSa {
            id,
            role: Role::Responder,
            cky_i,
            cky_r,
            local,
            remote,
            origin: e.remote,
            transform: e.transform,
            lifetime,
            cut_short: e.lifetimes.seconds.is_some_and(|s| s > lifetime.as_secs()),
            traits,
            nat,
            keys: None,
            iv: Default::default(),
            handshake: Some(h),
            peer: None,
            began: now,
            established: None,
            last: Some(StoredReply { print: fingerprint(bytes), datagrams: Vec::new() }),
            exchanges: Vec::new(),
            seen: Default::default(),
            seen_quick: Default::default(),
            dpd_peer_seq: None,
            jobs: Vec::new(),
        });
        let group = e.transform.group;
        let good_length = ke.len() == group.public_len();
        let ok = good_length
            && self.give_job(&mut sa, Purpose::KeyExchange, Job::KeyExchange { group, peer_public: ke.to_vec() })
            && (e.transform.method != AuthMethod::PreSharedKey || {
                let job = Job::PreSharedKey { local, remote, role: Role::Responder };
                self.give_job(&mut sa, Purpose::PreSharedKey, job)
            });
        self.by_cookies.insert((cky_i, cky_r), id);
        self.by_origin.insert((e.remote, cky_i), id);
        self.half_open.insert(id, source);
        *self.half_open_of.entry(source).or_default() += 1;
        self.timers.set(TimerKey::Handshake(id), now + self.config.exchange_timeout);
        self.sas.insert(id, sa);
        if !ok {
            self.with_sa(id, |ep, sa| {
                if good_length {
                    return ep.too_many_jobs(now, sa);
                }
                ep.notify_stranger(now, local, remote, (cky_i, cky_r), NotifyType::INVALID_KEY_INFORMATION);
                let cause = format!("the client's key exchange value has not the length of {group}");
                ep.fail(now, sa, RefusalKind::Malformed, cause, "a fault of the client")
            });
        }
    }

    /// The lifetime that a peer proposed, within ours. RFC 2407 §4.5: without one it is eight hours.
    pub(crate) fn lifetime(&self, seconds: Option<u64>, max: core::time::Duration) -> core::time::Duration {
        let seconds = seconds.filter(|s| *s > 0).unwrap_or(28_800);
        core::time::Duration::from_secs(seconds).min(max)
    }

    /// Message 4, once the keys are there.
    pub(super) fn respond_4(&mut self, _now: Instant, sa: &mut IsakmpSa) -> Fate {
        let nonce_r = self.nonce();
        let Some(h) = sa.handshake.as_deref_mut() else { return Fate::Keep };
        if h.nonce_r.is_empty() {
            h.nonce_r = nonce_r;
        }
        if !Self::make_keys(sa) {
            return Fate::Keep; // one of the two answers is still missing
        }
        let Some(h) = sa.handshake.as_deref_mut() else { return Fate::Keep };
        h.step = Step::Expect5;
        let mut chain = ChainWriter::new();
        chain.bytes(PayloadType::KE, &h.g_xr).bytes(PayloadType::NONCE, &h.nonce_r);
        self.certificate_requests(sa, &mut chain);
        // One NAT-D for our side: the address that the client dialled, if it is one of ours.
        let own = SocketAddr::new(sa.nat.dialled.unwrap_or(sa.local.ip()), sa.local.port());
        self.nat_d_payloads(sa, &mut chain, own);
        let message = assemble(sa.header(ExchangeType::MAIN_MODE, 0), &chain);
        let datagrams = self.send(sa, message);
        if let Some(last) = &mut sa.last {
            last.datagrams = datagrams;
        }
        Fate::Keep
    }

    /// Message 5: who the initiator is.
    pub(super) fn main_mode_5(
        &mut self,
        now: Instant,
        sa: &mut IsakmpSa,
        local: SocketAddr,
        remote: SocketAddr,
        message: &Message<'_>,
        print: u64,
    ) -> Fate {
        let Some(body) = message.encrypted else {
            self.stats.malformed += 1;
            return Fate::Keep;
        };
        let Some(a) = open_authentication(sa, &message.header, body, &self.config.credentials) else {
            return self.garbage(now, sa);
        };
        // The client has floated to 4500 by now; the reply goes where the request came from.
        (sa.local, sa.remote) = (local, remote);
        sa.last = Some(StoredReply { print, datagrams: Vec::new() });
        self.check_authentication(now, sa, a, Step::Verify5)
    }

    /// The initiator is who it says: prove who we are.
    pub(super) fn authenticate_6(&mut self, now: Instant, sa: &mut IsakmpSa) -> Fate {
        let identity = self.own_identity(sa);
        let Some(hash) = sa.phase1_hash().map(|h| h.hash_r(&identity.to_body())) else { return Fate::Keep };
        if !sa.with_signatures() {
            return self.respond_6(now, sa, PayloadType::HASH, &hash);
        }
        let Some((credential, method)) = self.choose_credential(sa).map(|c| (c.id, c.method)) else {
            let cause = "the gateway has no certificate for this method any more".to_owned();
            return self.fail(now, sa, RefusalKind::Crypto, cause, "check the gateway's certificates");
        };
        if let Some(h) = sa.handshake.as_deref_mut() {
            h.credential = Some(credential);
            h.step = Step::Sign6;
        }
        if self.give_job(sa, Purpose::Sign, Job::Sign { credential, method, hash: hash.to_vec() }) {
            Fate::Keep
        } else {
            self.too_many_jobs(now, sa)
        }
    }

    /// Message 6, with the proof of who we are.
    pub(super) fn respond_6(&mut self, now: Instant, sa: &mut IsakmpSa, kind: PayloadType, proof: &[u8]) -> Fate {
        let identity = self.own_identity(sa);
        let mut chain = self.authentication_chain(sa, &identity);
        chain.bytes(kind, proof);
        let datagrams = self.send_sealed(sa, &chain);
        if let Some(last) = &mut sa.last {
            last.datagrams = datagrams;
        }
        self.establish(now, sa)
    }
}
