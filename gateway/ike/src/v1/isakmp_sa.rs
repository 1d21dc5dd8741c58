//! An ISAKMP SA: from the third message of main mode (as initiator from the first) to its Delete.

use core::fmt;
use core::time::Duration;
use std::collections::VecDeque;
use std::net::SocketAddr;

use sallyport_base::{Instant, PeerId};
use sallyport_crypto::Zeroizing;
use sallyport_crypto::dh::SharedSecret;
use sallyport_crypto::hash::Digest;

use crate::config::CredentialId;
use crate::endpoint::Connect;
use crate::header::{Cookie, ExchangeType, Header};
use crate::nat::{NatStatus, NatVariant};
use crate::output::{JobId, Role};
use crate::payload::{DPD, FRAGMENTATION, Identification, Payload};
use crate::proposal::{AuthMethod, Phase1Transform};
use crate::v1::keymat::{Iv, Keys, Phase1Hash};
use crate::v1::quick_mode::QuickMode;

/// Names an ISAKMP SA inside the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SaId(pub(crate) u64);

/// Message IDs of each kind that are remembered against replay.
const SEEN_IDS: usize = 64;

fn note_id(seen: &mut VecDeque<u32>, message_id: u32) -> bool {
    if seen.contains(&message_id) {
        return false;
    }
    if seen.len() == SEEN_IDS {
        seen.pop_front();
    }
    seen.push_back(message_id);
    true
}

/// What a peer's vendor IDs say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerTraits {
    /// The best NAT-T variant in common.
    pub(crate) nat: Option<NatVariant>,
    /// RFC 3706.
    pub(crate) dpd: bool,
    /// It takes fragments.
    pub(crate) fragmentation: bool,
}

impl PeerTraits {
    pub(crate) fn of(payloads: &[Payload<'_>]) -> Self {
        let mut traits = Self::default();
        for p in payloads {
            if let Payload::VendorId(v) = p {
                traits.nat = traits.nat.max(NatVariant::of_vendor_id(v.0));
                traits.dpd |= v.0.starts_with(&DPD[..14]);
                traits.fragmentation |= v.0.starts_with(&FRAGMENTATION);
            }
        }
        traits
    }

    /// Adds what a later message announces: Cisco sends some vendor IDs with message 3 only.
    pub(crate) fn and_later(self, payloads: &[Payload<'_>]) -> Self {
        let later = Self::of(payloads);
        Self { dpd: self.dpd || later.dpd, fragmentation: self.fragmentation || later.fragmentation, ..self }
    }
}

/// Where a handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Responder: message 3 came, keys are being made.
    MakeKeys,
    /// Responder: message 4 is sent.
    Expect5,
    /// Responder: message 5 came, its sender is being verified.
    Verify5,
    /// Responder: message 6 is being signed.
    Sign6,
    /// Initiator: message 1 is sent.
    Expect2,
    /// Initiator: message 2 came, a key pair is being made.
    MakeKeyPair,
    /// Initiator: message 3 is sent.
    Expect4,
    /// Initiator: message 4 came, keys are being made.
    Agree,
    /// Initiator: message 5 is being signed.
    Sign5,
    /// Initiator: message 5 is sent.
    Expect6,
    /// Initiator: message 6 came, its sender is being verified.
    Verify6,
}

/// A set of our credentials, by their place in the configuration. The first 64 can be told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Requested(u64);

impl Requested {
    pub(crate) const fn add(&mut self, place: usize) {
        if place < 64 {
            self.0 |= 1 << place;
        }
    }

    pub(crate) const fn has(self, place: usize) -> bool {
        place < 64 && self.0 >> place & 1 != 0
    }
}

impl core::ops::BitOrAssign for Requested {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// A message of ours that is repeated until it is answered.
#[derive(Clone, Debug)]
pub(crate) struct Repeat {
    pub(crate) datagrams: Vec<Vec<u8>>,
    pub(crate) tries: u8,
}

/// What is needed until phase 1 is done and not thereafter.
pub(crate) struct Handshake {
    pub(crate) step: Step,
    /// Body of the SA payload of message 1.
    pub(crate) sa_i: Vec<u8>,
    pub(crate) nonce_i: Vec<u8>,
    pub(crate) nonce_r: Vec<u8>,
    pub(crate) g_xi: Vec<u8>,
    pub(crate) g_xr: Vec<u8>,
    pub(crate) psk: Option<Zeroizing<Vec<u8>>>,
    pub(crate) shared: Option<SharedSecret>,
    pub(crate) secret: Option<sallyport_crypto::dh::DhSecret>,
    pub(crate) skeyid: Option<Digest>,
    /// What the peer's CERTREQs ask for.
    pub(crate) requested: Requested,
    pub(crate) credential: Option<CredentialId>,
    /// The peer's identity, once it is decrypted.
    pub(crate) peer_id: Option<Identification>,
    pub(crate) peer_name: Option<(String, u64)>,
    /// The peer sent INITIAL-CONTACT with its identity.
    pub(crate) initial_contact: bool,
    /// Our message that waits for an answer, as initiator.
    pub(crate) repeat: Option<Repeat>,
    /// An encrypted message did not decrypt to one.
    pub(crate) garbage: u8,
    /// What an unauthenticated notification said.
    pub(crate) hint: Option<String>,
    /// As initiator: what was asked for.
    pub(crate) connect: Option<Box<Connect>>,
    pub(crate) offer: Vec<Phase1Transform>,
}

/// Says where it is, and no secret.
impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake").field("step", &self.step).field("peer_id", &self.peer_id).finish_non_exhaustive()
    }
}

impl Handshake {
    pub(crate) fn new(step: Step) -> Self {
        Self {
            step,
            sa_i: Vec::new(),
            nonce_i: Vec::new(),
            nonce_r: Vec::new(),
            g_xi: Vec::new(),
            g_xr: Vec::new(),
            psk: None,
            shared: None,
            secret: None,
            skeyid: None,
            requested: Requested::default(),
            credential: None,
            peer_id: None,
            peer_name: None,
            initial_contact: false,
            repeat: None,
            garbage: 0,
            hint: None,
            connect: None,
            offer: Vec::new(),
        }
    }
}

/// A reply that is kept for a repeated request.
#[derive(Clone, Debug)]
pub(crate) struct StoredReply {
    /// Fingerprint of the request.
    pub(crate) print: u64,
    /// Empty while the request is being worked on.
    pub(crate) datagrams: Vec<Vec<u8>>,
}

/// An ISAKMP SA.
#[derive(Debug)]
pub(crate) struct IsakmpSa {
    pub(crate) id: SaId,
    pub(crate) role: Role,
    pub(crate) cky_i: Cookie,
    pub(crate) cky_r: Cookie,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// Where its first message came from, as responder.
    pub(crate) origin: SocketAddr,
    pub(crate) transform: Phase1Transform,
    pub(crate) lifetime: Duration,
    /// The peer proposed a longer life: it does not expect the end that comes.
    pub(crate) cut_short: bool,
    pub(crate) traits: PeerTraits,
    pub(crate) nat: NatStatus,
    pub(crate) keys: Option<Keys>,
    /// Last block of phase 1 so far.
    pub(crate) iv: Iv,
    pub(crate) handshake: Option<Box<Handshake>>,
    pub(crate) peer: Option<PeerId>,
    pub(crate) began: Instant,
    pub(crate) established: Option<Instant>,
    /// Reply to the last request of main mode.
    pub(crate) last: Option<StoredReply>,
    pub(crate) exchanges: Vec<QuickMode>,
    /// Message IDs of the peer's informational exchanges, and of its quick modes, against replay.
    pub(crate) seen: VecDeque<u32>,
    pub(crate) seen_quick: VecDeque<u32>,
    /// Highest sequence number of the peer's R-U-THERE under this SA.
    pub(crate) dpd_peer_seq: Option<u32>,
    pub(crate) jobs: Vec<JobId>,
}

impl IsakmpSa {
    /// A header of this SA.
    pub(crate) const fn header(&self, exchange: ExchangeType, message_id: u32) -> Header {
        Header::v1(self.cky_i, self.cky_r, exchange, message_id)
    }

    /// Both cookies: the SPI of an ISAKMP SA.
    pub(crate) fn spi(&self) -> [u8; 16] {
        let mut spi = [0; 16];
        let (i, r) = spi.split_at_mut(8);
        i.copy_from_slice(&self.cky_i.0);
        r.copy_from_slice(&self.cky_r.0);
        spi
    }

    /// Notes the message ID of an informational exchange; `false` if it was used before.
    pub(crate) fn first_seen(&mut self, message_id: u32) -> bool {
        note_id(&mut self.seen, message_id)
    }

    /// Notes the message ID of a quick mode that the peer begins; `false` if it was used before.
    pub(crate) fn first_seen_quick(&mut self, message_id: u32) -> bool {
        note_id(&mut self.seen_quick, message_id)
    }

    /// What HASH_I and HASH_R are made of, once the keys are there.
    pub(crate) fn phase1_hash(&self) -> Option<Phase1Hash<'_>> {
        let h = self.handshake.as_deref()?;
        Some(Phase1Hash {
            transform: &self.transform,
            skeyid: h.skeyid.as_ref()?,
            cky_i: self.cky_i,
            cky_r: self.cky_r,
            g_xi: &h.g_xi,
            g_xr: &h.g_xr,
            sa_i: &h.sa_i,
        })
    }

    /// Whether both authenticate with signatures.
    pub(crate) const fn with_signatures(&self) -> bool {
        matches!(self.transform.method, AuthMethod::Signature(_))
    }

    /// Whether ESP travels in UDP.
    pub(crate) const fn udp_encap(&self) -> bool {
        self.nat.any() && self.traits.nat.is_some()
    }
}
