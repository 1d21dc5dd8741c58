//! What an endpoint gives to its shell: datagrams, jobs and events.

use core::fmt;
use core::time::Duration;
use std::net::SocketAddr;

use sallyport_base::PeerId;
use sallyport_crypto::Rng;
use sallyport_crypto::Zeroizing;
use sallyport_crypto::dh::{DhGroup, DhSecret, SharedSecret};
use sallyport_crypto::sign::SignatureMethod;
use sallyport_crypto::suite::{EspKeys, EspSuite};

use crate::config::CredentialId;
use crate::error::Refusal;
use crate::payload::{CertEncoding, Identification};
use crate::proposal::AuthMethod;

/// One output. Take them all after each call that takes `now`.
#[derive(Debug)]
pub enum Output {
    /// Send an IKE message. The shell puts the non-ESP marker in front if `local` has the NAT-T port (RFC 3948 §2.2).
    Transmit {
        /// Our address and port.
        local: SocketAddr,
        /// The peer's.
        remote: SocketAddr,
        /// The message, without marker.
        bytes: Vec<u8>,
    },
    /// Send the single byte 0xFF, without a marker (RFC 3948 §2.3).
    Keepalive {
        /// Our address and port.
        local: SocketAddr,
        /// The peer's.
        remote: SocketAddr,
    },
    /// Do this (elsewhere: it is slow or needs keys) and give the answer to `handle_answer`.
    Job {
        /// Comes back with the answer.
        id: JobId,
        /// What to do.
        job: Job,
    },
    /// Something happened.
    Event(Event),
}

/// Numbers a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// Which side of an exchange somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Sent the first message.
    Initiator,
    /// Answered it.
    Responder,
}

/// Work for the shell.
#[derive(Debug)]
pub enum Job {
    /// Make a key pair and agree with `peer_public`. Answer: [`Answer::KeyExchange`]. See [`Job::compute`].
    KeyExchange {
        /// The group.
        group: DhGroup,
        /// The peer's public value, of the length that the group asks for.
        peer_public: Vec<u8>,
    },
    /// Make a key pair. Answer: [`Answer::KeyPair`]. See [`Job::compute`].
    KeyPair {
        /// The group.
        group: DhGroup,
    },
    /// Agree with `peer_public`. Answer: [`Answer::Agree`]. See [`Job::compute`].
    Agree {
        /// Ours.
        secret: DhSecret,
        /// The peer's public value.
        peer_public: Vec<u8>,
    },
    /// Sign HASH_I or HASH_R with the key of a credential. Answer: [`Answer::Signature`].
    Sign {
        /// Whose key.
        credential: CredentialId,
        /// Its method.
        method: SignatureMethod,
        /// What is signed, as it is (RFC 2409 §5.1, RFC 4754).
        hash: Vec<u8>,
    },
    /// Decide whether the peer is who it says and may come in. Answer: [`Answer::Verified`] or [`Answer::Refused`].
    Verify(Box<Verify>),
    /// Look up a pre-shared key. In main mode the peer's identity is not known yet (it is encrypted under the key).
    /// Answer: [`Answer::PreSharedKey`].
    PreSharedKey {
        /// Our address.
        local: SocketAddr,
        /// The peer's.
        remote: SocketAddr,
        /// Which side we are.
        role: Role,
    },
}

impl Job {
    /// Does the three Diffie-Hellman jobs, which need nothing but randomness, or gives the job back.
    pub fn compute(self, rng: &mut Rng) -> Result<Answer, Self> {
        let answer =
            |r: Result<Answer, sallyport_crypto::dh::DhError>| r.unwrap_or_else(|e| Answer::Failed(e.to_string()));
        Ok(match self {
            Self::KeyExchange { group, peer_public } => {
                let secret = DhSecret::generate(group, rng);
                let public = secret.public().to_vec();
                answer(secret.agree(&peer_public).map(|shared| Answer::KeyExchange { public, shared }))
            }
            Self::KeyPair { group } => Answer::KeyPair(DhSecret::generate(group, rng)),
            Self::Agree { secret, peer_public } => answer(secret.agree(&peer_public).map(Answer::Agree)),
            other => return Err(other),
        })
    }
}

/// What there is to verify about a peer.
#[derive(Clone, Debug)]
pub struct Verify {
    /// The peer's address.
    pub remote: SocketAddr,
    /// Which side we are: a client verifies a gateway's certificate, and the other way round.
    pub role: Role,
    /// The peer that we connect to, as initiator.
    pub peer: Option<PeerId>,
    /// What the CERT payloads hold, in their order; CRLs are left out.
    pub certificates: Vec<(CertEncoding, Vec<u8>)>,
    /// Who the peer says it is: to be bound to the certificate (RFC 4945 §3.1).
    pub id: Identification,
    /// How it signed.
    pub method: SignatureMethod,
    /// What it signed: HASH_I or HASH_R.
    pub hash: Vec<u8>,
    /// The signature.
    pub signature: Vec<u8>,
}

/// The answer to a [`Job`].
pub enum Answer {
    /// To [`Job::KeyExchange`].
    KeyExchange {
        /// Our public value.
        public: Vec<u8>,
        /// g^xy.
        shared: SharedSecret,
    },
    /// To [`Job::KeyPair`].
    KeyPair(DhSecret),
    /// To [`Job::Agree`].
    Agree(SharedSecret),
    /// To [`Job::Sign`].
    Signature(Vec<u8>),
    /// To [`Job::Verify`]: come in.
    Verified(Verified),
    /// To [`Job::Verify`]: stay out.
    Refused(VerifyRefusal),
    /// To [`Job::PreSharedKey`]; `None` if there is none.
    PreSharedKey(Option<Zeroizing<Vec<u8>>>),
    /// To any: it could not be done, for this reason.
    Failed(String),
}

/// Says what kind of answer it is, and no secret.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyExchange { .. } => f.write_str("KeyExchange"),
            Self::KeyPair(_) => f.write_str("KeyPair"),
            Self::Agree(_) => f.write_str("Agree"),
            Self::Signature(_) => f.write_str("Signature"),
            Self::Verified(v) => v.fmt(f),
            Self::Refused(r) => r.fmt(f),
            Self::PreSharedKey(psk) => write!(f, "PreSharedKey({})", if psk.is_some() { "some" } else { "none" }),
            Self::Failed(why) => write!(f, "Failed({why:?})"),
        }
    }
}

/// Who a peer was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Its name in lists and records, such as the machine's name.
    pub name: String,
    /// Comes back in [`PeerUp::token`]: whatever the shell wants to find again.
    pub token: u64,
}

/// Why a peer was turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyRefusal {
    /// Its name, as far as it is known.
    pub name: Option<String>,
    /// Why, in words.
    pub cause: String,
    /// What to change, in words.
    pub remedy: String,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A peer has authenticated.
    PeerUp(PeerUp),
    /// A known peer has authenticated anew (phase 1 was rekeyed): children and identity are as before.
    PeerRekeyed {
        /// Who.
        peer: PeerId,
        /// [`Verified::token`] of the certificate that it has shown this time; 0 with a pre-shared key.
        token: u64,
    },
    /// An authenticated message came from another address; ESP SAs in UDP follow it.
    PeerMoved {
        /// Who.
        peer: PeerId,
        /// Our address now.
        local: SocketAddr,
        /// The peer's address now.
        remote: SocketAddr,
    },
    /// Keys of an ESP SA are agreed and the peer may send before [`Event::ChildUp`] follows: the inbound half can be
    /// put in place already. May be ignored; ends in `ChildUp` or `ChildDown`.
    ChildPrepared(Box<ChildSa>),
    /// An ESP SA is up: receive and send on it from now on, and send on no older one of this peer.
    ChildUp(Box<ChildSa>),
    /// An ESP SA is gone.
    ChildDown {
        /// Whose.
        peer: PeerId,
        /// Our inbound SPI.
        spi_in: u32,
        /// Why.
        reason: DownReason,
    },
    /// A peer is gone with all its ESP SAs (`ChildDown` came for each before).
    PeerDown {
        /// Who.
        peer: PeerId,
        /// Why.
        reason: DownReason,
    },
    /// An attempt failed: exactly one for each, but see [`Refusal::suppressed`].
    Refused(Box<Refusal>),
}

/// A peer that has authenticated.
#[derive(Clone, Debug)]
pub struct PeerUp {
    /// Its number from now on.
    pub peer: PeerId,
    /// Which side we are.
    pub role: Role,
    /// Who it says it is.
    pub id: Identification,
    /// Its name: what the verification gave, or the identity as text.
    pub name: String,
    /// From [`Verified::token`]; 0 with a pre-shared key.
    pub token: u64,
    /// How it authenticated.
    pub method: AuthMethod,
    /// Our address.
    pub local: SocketAddr,
    /// Its address.
    pub remote: SocketAddr,
    /// Phase 1 in words: `AES256/SHA1/ECP384`.
    pub transform: String,
    /// Whether the peer is behind a NAT.
    pub behind_nat: bool,
}

/// An ESP SA pair. Transport mode always.
#[derive(Clone)]
pub struct ChildSa {
    /// Whose.
    pub peer: PeerId,
    /// Ours: what the peer writes in its packets.
    pub spi_in: u32,
    /// The peer's: what we write in ours.
    pub spi_out: u32,
    /// The algorithms.
    pub suite: EspSuite,
    /// Keys of the packets to us.
    pub keys_in: EspKeys,
    /// Keys of the packets from us.
    pub keys_out: EspKeys,
    /// Our address (and port, with UDP encapsulation).
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// Whether ESP travels in UDP (RFC 3948), between these ports; else it is IP protocol 50.
    pub udp_encap: bool,
    /// UDP port of the client's end inside the SA; 0 is any. As initiator this is our own port.
    pub client_port: u16,
    /// UDP port of the gateway's end inside the SA: 1701.
    pub gateway_port: u16,
    /// When the SA ends by time, counted from now.
    pub lifetime: Duration,
    /// When the SA ends by volume, in kilobytes of 1024 bytes.
    pub lifetime_kilobytes: Option<u64>,
    /// Which side we were in this quick mode.
    pub role: Role,
    /// The inbound SPI of the SA that this one replaces, if it replaces one.
    pub replaces: Option<u32>,
}

impl fmt::Debug for ChildSa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ChildSa({:?} in {:08x} out {:08x} {} {} -> {}{})",
            self.peer,
            self.spi_in,
            self.spi_out,
            self.suite,
            self.local,
            self.remote,
            if self.udp_encap { " udp" } else { "" }
        )
    }
}

/// Why something that was up is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// The peer said so.
    PeerDeleted,
    /// We said so, for this reason.
    Local(String),
    /// Its time was over.
    Expired,
    /// A newer one is in its place.
    Replaced,
    /// The peer did not answer.
    PeerSilent,
    /// The peer began anew and said that it knows of nothing else (INITIAL-CONTACT).
    InitialContact,
    /// The exchange that would have made it failed.
    Failed,
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerDeleted => f.write_str("the peer ended it"),
            Self::Local(why) => f.write_str(why),
            Self::Expired => f.write_str("its lifetime was over"),
            Self::Replaced => f.write_str("replaced by a newer one"),
            Self::PeerSilent => f.write_str("the peer does not answer"),
            Self::InitialContact => f.write_str("the peer began anew"),
            Self::Failed => f.write_str("it was never completed"),
        }
    }
}
