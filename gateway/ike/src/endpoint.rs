//! The endpoint: finds what a datagram, an answer or a timer belongs to, and owns every table.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hasher};
use std::net::SocketAddr;

use sallyport_base::{Bucket, Instant, PeerId, Source};
use sallyport_crypto::Rng;
use sallyport_crypto::dh::DhGroup;
use sallyport_crypto::suite::EspSuite;

use crate::config::{Config, CredentialId};
use crate::embryonic::Embryonics;
use crate::fragment::{Reassemblies, Taken};
use crate::header::{Cookie, ExchangeType, Header};
use crate::message::Message;
use crate::output::{Answer, DownReason, JobId, Output};
use crate::payload::{Identification, Payload, PayloadType};
use crate::proposal::Phase1Transform;
use crate::queue::TimerQueue;
use crate::stats::Stats;
use crate::stranger::{NOTIFY_BURST, NOTIFY_RATE};
use crate::timer;
use crate::v1::ipsec_sa::Child;
use crate::v1::isakmp_sa::{IsakmpSa, SaId};
use crate::v1::peer::Peer;

/// How we authenticate to the gateway that we connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectAuth {
    /// With the pre-shared key that [`Job::PreSharedKey`](crate::Job) gives.
    PreSharedKey,
    /// With this credential of [`Config::credentials`].
    Certificate(CredentialId),
}

/// A connection to make, as initiator: main mode, then one ESP SA for L2TP.
#[derive(Clone, Debug)]
pub struct Connect {
    /// Our address and the IKE port; the address must be a real one, not 0.0.0.0.
    pub local: SocketAddr,
    /// The gateway's address and IKE port.
    pub remote: SocketAddr,
    /// How we authenticate.
    pub auth: ConnectAuth,
    /// Our identity; `None` is the credential's, or our address.
    pub identity: Option<Identification>,
    /// UDP port of our L2TP, 0 for any.
    pub client_port: u16,
    /// Phase 1 proposals, best first; empty is what the configuration allows.
    pub phase1: Vec<Phase1Transform>,
    /// ESP proposals, best first; empty is what the configuration allows.
    pub esp: Vec<EspSuite>,
    /// Perfect forward secrecy with this group.
    pub pfs: Option<DhGroup>,
}

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TimerKey {
    /// The oldest embryonic entry is too old.
    Embryonic,
    /// A handshake takes too long.
    Handshake(SaId),
    /// A message of main mode is to be repeated.
    Repeat(SaId),
    /// Stored replies are no longer needed.
    Tidy(SaId),
    /// An ISAKMP SA is to be replaced.
    Rekey(SaId),
    /// An ISAKMP SA ends.
    Expire(SaId),
    /// A message of quick mode is to be repeated, or its state forgotten.
    Quick(SaId, u32),
    /// A peer is to be asked whether it lives.
    PeerDpd(PeerId),
    /// A peer has had no child for too long.
    PeerIdle(PeerId),
    /// A NAT mapping is to be kept.
    PeerKeepalive(PeerId),
    /// A child is to be replaced.
    ChildRekey(u32),
    /// A replaced child is to be deleted.
    ChildRetire(u32),
    /// A child ends.
    ChildExpire(u32),
}

/// What an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    KeyExchange,
    KeyPair,
    Agree,
    Sign,
    Verify,
    PreSharedKey,
    QuickKeyExchange(u32),
    QuickKeyPair(u32),
    QuickAgree(u32),
}

/// Whether an ISAKMP SA goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Keep,
    Drop,
}

/// IKEv1 for all peers of one gateway or client.
#[derive(Debug)]
pub struct Endpoint {
    pub(crate) config: Config,
    pub(crate) rng: Rng,
    pub(crate) stats: Stats,
    pub(crate) output: VecDeque<Output>,
    pub(crate) timers: TimerQueue<TimerKey>,
    pub(crate) embryonic: Embryonics,
    pub(crate) sas: BTreeMap<SaId, Box<IsakmpSa>>,
    pub(crate) by_cookies: BTreeMap<(Cookie, Cookie), SaId>,
    /// Origin of the handshakes and SAs that we answered: a late copy of message 1 begins nothing.
    pub(crate) by_origin: BTreeMap<(SocketAddr, Cookie), SaId>,
    /// Handshakes that we answer, oldest first, and how many each source has.
    pub(crate) half_open: BTreeMap<SaId, Source>,
    pub(crate) half_open_of: BTreeMap<Source, usize>,
    pub(crate) peers: BTreeMap<PeerId, Peer>,
    pub(crate) peer_index: BTreeMap<(Identification, SocketAddr), PeerId>,
    pub(crate) children: BTreeMap<u32, Child>,
    /// Inbound SPIs of quick modes that are under way.
    pub(crate) reserved_spis: BTreeMap<u32, SaId>,
    pub(crate) jobs: BTreeMap<JobId, (SaId, Purpose)>,
    /// Peers whose phase 1 came up in the call that is running.
    pub(crate) fresh: Vec<PeerId>,
    pub(crate) reassemblies: Reassemblies,
    pub(crate) refused: BTreeMap<(SocketAddr, Cookie), Vec<u8>>,
    pub(crate) refused_order: VecDeque<(SocketAddr, Cookie)>,
    pub(crate) refusal_gate: Bucket,
    /// The same for those who named themselves: whoever can do Diffie-Hellman can claim any identity.
    pub(crate) named_gate: Bucket,
    pub(crate) notify_gate: Bucket,
    pub(crate) suppressed: u64,
    pub(crate) next_sa: u64,
    pub(crate) next_peer: u64,
    pub(crate) next_job: u64,
}

impl Endpoint {
    /// An endpoint without peers. `seed` is 32 bytes from the operating system's generator.
    pub fn new(config: Config, seed: [u8; 32], now: Instant) -> Self {
        let refusal_gate = Bucket::new(config.limits.refusal_burst, pause(config.limits.refusals_per_second), now);
        Self {
            config,
            rng: Rng::from_seed(seed),
            stats: Stats::default(),
            output: VecDeque::new(),
            timers: TimerQueue::new(),
            embryonic: Embryonics::default(),
            sas: BTreeMap::new(),
            by_cookies: BTreeMap::new(),
            by_origin: BTreeMap::new(),
            half_open: BTreeMap::new(),
            half_open_of: BTreeMap::new(),
            peers: BTreeMap::new(),
            peer_index: BTreeMap::new(),
            children: BTreeMap::new(),
            reserved_spis: BTreeMap::new(),
            jobs: BTreeMap::new(),
            fresh: Vec::new(),
            reassemblies: Reassemblies::default(),
            refused: BTreeMap::new(),
            refused_order: VecDeque::new(),
            refusal_gate,
            named_gate: refusal_gate,
            notify_gate: Bucket::new(NOTIFY_BURST, pause(NOTIFY_RATE), now),
            suppressed: 0,
            next_sa: 0,
            next_peer: 0,
            next_job: 0,
        }
    }

    /// The settings in force.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Replaces the settings for what begins from now on.
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
    }

    /// Counters.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// How much there is of everything, for gauges and tests.
    pub fn gauges(&self) -> Gauges {
        Gauges {
            embryonic: self.embryonic.len(),
            half_open: self.half_open.len(),
            isakmp_sas: self.sas.len(),
            peers: self.peers.len(),
            children: self.children.len(),
            jobs: self.jobs.len(),
            timers: self.timers.len(),
        }
    }

    /// Takes a datagram that came to `local` from `remote`, without the non-ESP marker if there was one.
    ///
    /// `local` is the address that it was sent to, never 0.0.0.0: replies leave from it, and NAT detection uses it.
    pub fn handle_datagram(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr, datagram: &[u8]) {
        self.stats.received += 1;
        if datagram == [0xff] {
            self.stats.keepalives += 1;
            return;
        }
        let (local, remote) = (canonical(local), canonical(remote));
        self.message(now, local, remote, datagram, true);
    }

    fn message(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr, bytes: &[u8], whole: bool) {
        let Ok((header, body)) = Header::split(bytes) else {
            self.stats.malformed += 1;
            return;
        };
        match header.major {
            1 => {}
            2 => return self.ikev2(now, local, remote, &header),
            _ => {
                self.stats.not_spoken += 1;
                return;
            }
        }
        tracing::trace!(
            %local, %remote, exchange = %header.exchange, cky_i = %header.cky_i, cky_r = %header.cky_r,
            message_id = header.message_id, length = header.length, "IKE message"
        );
        // A cookie of zeros also catches the second marker that old iOS puts in front.
        if header.cky_i.is_zero() {
            self.stats.malformed += 1;
            return;
        }
        if (ExchangeType::AUTHIP_MAIN_MODE..=ExchangeType::AUTHIP_NOTIFY).contains(&header.exchange) {
            self.stats.authip += 1;
            return;
        }
        if header.next_payload == PayloadType::FRAGMENT && whole {
            return self.fragment(now, local, remote, &header, bytes);
        }
        // The cut takes off what lies behind the message, so that a copy of it is known as one.
        let exact = bytes.get(..bytes.len().min(crate::header::HEADER_LEN + body.len())).unwrap_or(bytes);
        match header.exchange {
            ExchangeType::MAIN_MODE => self.main_mode(now, local, remote, exact),
            ExchangeType::QUICK_MODE => self.quick_mode(now, local, remote, &header, body),
            ExchangeType::INFORMATIONAL_V1 => self.informational(now, local, remote, &header, exact, body),
            ExchangeType::AGGRESSIVE if header.cky_r.is_zero() => self.aggressive(now, local, remote, &header),
            _ => self.stats.not_spoken += 1,
        }
    }

    /// A fragment counts only for cookies that are known: nobody can make us keep one with a single spoofed packet.
    fn fragment(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr, header: &Header, bytes: &[u8]) {
        self.stats.fragments += 1;
        let key = (header.cky_i, header.cky_r);
        let known = self.by_cookies.contains_key(&key) || self.embryonic.of_cookies(key.0, key.1).is_some();
        let parsed = Message::parse(bytes);
        let fragment = match parsed.as_ref().map(|m| m.payloads.first()) {
            Ok(Some(Payload::Fragment(f))) if known => f,
            _ => {
                self.stats.fragments_dropped += 1;
                return;
            }
        };
        match self.reassemblies.take(now, key, Source::of(remote.ip()), fragment, self.config.limits.reassemblies) {
            Taken::Waiting => {}
            Taken::Dropped => self.stats.fragments_dropped += 1,
            Taken::Whole(message) => match Header::split(&message) {
                Ok((h, _)) if (h.cky_i, h.cky_r) == key => self.message(now, local, remote, &message, false),
                _ => self.stats.malformed += 1,
            },
        }
    }

    /// Takes the answer to a job.
    pub fn handle_answer(&mut self, now: Instant, id: JobId, answer: Answer) {
        let Some((sa, purpose)) = self.jobs.remove(&id) else { return };
        if let Some(sa) = self.sas.get_mut(&sa) {
            sa.jobs.retain(|j| *j != id);
        }
        match purpose {
            Purpose::QuickKeyExchange(mid) | Purpose::QuickKeyPair(mid) | Purpose::QuickAgree(mid) => {
                self.quick_mode_answer(now, sa, mid, purpose, answer);
            }
            _ => self.main_mode_answer(now, sa, purpose, answer),
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(key) = self.timers.take_expired(now) {
            match key {
                TimerKey::Embryonic => self.expire_embryonic(now),
                TimerKey::Handshake(sa) => self.handshake_timeout(now, sa),
                TimerKey::Repeat(sa) => self.repeat_main_mode(now, sa),
                TimerKey::Tidy(sa) => self.tidy(now, sa),
                TimerKey::Rekey(sa) => self.rekey_phase1(now, sa),
                TimerKey::Expire(sa) => self.expire_sa(now, sa),
                TimerKey::Quick(sa, mid) => self.quick_mode_timeout(now, sa, mid),
                TimerKey::PeerDpd(peer) => self.dpd_timeout(now, peer),
                TimerKey::PeerIdle(peer) => self.peer_down(now, peer, DownReason::PeerSilent, true),
                TimerKey::PeerKeepalive(peer) => self.keepalive(now, peer),
                TimerKey::ChildRekey(spi) => self.child_expiring(now, spi),
                TimerKey::ChildRetire(spi) => self.end_child(now, spi, DownReason::Replaced),
                TimerKey::ChildExpire(spi) => self.end_child(now, spi, DownReason::Expired),
            }
        }
    }

    /// The next output; call until `None` after every call that takes `now`.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.output.pop_front();
        if matches!(output, Some(Output::Transmit { .. })) {
            self.stats.sent += 1;
        }
        output
    }

    /// When `handle_timeout` is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Authenticated ESP traffic came from the peer: it lives (RFC 3706 §5). Cheap; once a second is plenty.
    pub fn note_inbound(&mut self, now: Instant, peer: PeerId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.last_inbound = peer.last_inbound.max(now);
            peer.dpd_waiting = false;
        }
    }

    /// Authenticated ESP traffic came from another address than the peer's: its NAT has a new mapping (RFC 3947 §5).
    /// IKE follows, and `PeerMoved` is reported.
    pub fn note_moved(&mut self, now: Instant, peer: PeerId, local: SocketAddr, remote: SocketAddr) {
        self.note_inbound(now, peer);
        self.move_peer(peer, canonical(local), canonical(remote));
    }

    /// The data plane reached the soft limit of an ESP SA (packets or bytes): replace it.
    pub fn child_expiring(&mut self, now: Instant, spi_in: u32) {
        let Some(child) = self.children.get_mut(&spi_in) else { return };
        if child.replaced || child.rekeying {
            return;
        }
        child.rekeying = true;
        let peer = child.peer;
        self.rekey_child(now, peer, spi_in);
    }

    /// The data plane reached the hard limit of an ESP SA: nothing passes through it any more, and the peer, who counts for
    /// himself, still sends through it. To be called again, about once a second, for as long as he does.
    pub fn child_expired(&mut self, now: Instant, spi_in: u32) {
        self.child_expiring(now, spi_in);
        let Some(child) = self.children.get_mut(&spi_in) else { return };
        child.overrun = child.overrun.saturating_add(1);
        let (peer, replaced, overrun) = (child.peer, child.replaced, child.overrun);
        if overrun > timer::OVERRUN_TOLD {
            // Either he does not hear us, or there will be no successor: let him begin anew.
            self.end_child(now, spi_in, DownReason::Expired);
        } else if replaced {
            // Nobody acknowledges a Delete, so this one is told again. Without a successor it would cut the peer off.
            self.send_delete_children(now, peer, &[spi_in]);
        }
    }

    /// Ends everything with a peer and tells it so.
    pub fn disconnect(&mut self, now: Instant, peer: PeerId, reason: &str) {
        self.peer_down(now, peer, DownReason::Local(reason.to_owned()), true);
    }
}

/// How much there is of everything right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Answered first messages.
    pub embryonic: usize,
    /// Handshakes that we answer and that are under way.
    pub half_open: usize,
    /// ISAKMP SAs, half-open ones included.
    pub isakmp_sas: usize,
    /// Peers.
    pub peers: usize,
    /// ESP SAs.
    pub children: usize,
    /// Unanswered jobs.
    pub jobs: usize,
    /// Timers.
    pub timers: usize,
}

/// The pause between two things that happen `per_second` times.
fn pause(per_second: u32) -> core::time::Duration {
    core::time::Duration::from_secs(1).checked_div(per_second).unwrap_or(core::time::Duration::MAX)
}

/// An IPv4 address that a dual-stack socket shows as IPv6 is an IPv4 address.
fn canonical(a: SocketAddr) -> SocketAddr {
    SocketAddr::new(a.ip().to_canonical(), a.port())
}

/// A short name for a message, to know its copies by. It decides nothing but whether the stored reply is sent again.
pub(crate) fn fingerprint(bytes: &[u8]) -> u64 {
    let mut h = DefaultHasher::new();
    h.write(bytes);
    h.finish()
}

/// Adds a little to a lifetime's fraction, so that peers that came together do not rekey together.
pub(crate) fn jitter(rng: &mut Rng, base: core::time::Duration) -> core::time::Duration {
    base + base.mul_f64(f64::from(rng.u16()) / f64::from(u16::MAX) * 0.05)
}

/// The pause before repetition number `tries` of a message of ours.
pub(crate) fn backoff(config: &Config, tries: u8) -> core::time::Duration {
    config.retransmit_first.saturating_mul(1 << u32::from(tries.min(6)))
}
