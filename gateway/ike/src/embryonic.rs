//! First messages of main mode that were answered: all that a spoofed address can reach.
//!
//! IKEv1 has no stateless cookie: HASH_I covers the initiator's proposals, so they have to be kept from message 1 on.
//! The table is bounded and the oldest entry makes room. A flood therefore shortens the time that an honest client has
//! for its message 3 (one round trip) and does not shut it out: with 32,768 entries, 100,000 messages a second leave
//! 320 ms, and a client that misses it tries again with its next message 1. Nothing asymmetric happens here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use sallyport_base::{Instant, Source};

use crate::header::Cookie;
use crate::payload::Lifetimes;
use crate::proposal::Phase1Transform;
use crate::v1::isakmp_sa::PeerTraits;

/// An answered first message.
#[derive(Debug)]
pub(crate) struct Embryonic {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) cky_i: Cookie,
    pub(crate) cky_r: Cookie,
    /// Fingerprint of the message.
    pub(crate) print: u64,
    /// Body of its SA payload.
    pub(crate) sa_i: Vec<u8>,
    pub(crate) transform: Phase1Transform,
    pub(crate) lifetimes: Lifetimes,
    pub(crate) traits: PeerTraits,
    /// Message 2.
    pub(crate) reply: Vec<u8>,
    pub(crate) began: Instant,
    /// Its message 3 came and could not be taken: too many handshakes from its address.
    pub(crate) over_limit: bool,
}

/// The table. Entries are numbered in the order of their arrival, so the first is the oldest.
#[derive(Debug, Default)]
pub(crate) struct Embryonics {
    entries: BTreeMap<u64, Embryonic>,
    by_origin: BTreeMap<(SocketAddr, Cookie), u64>,
    by_cookies: BTreeMap<(Cookie, Cookie), u64>,
    by_source: BTreeMap<Source, BTreeSet<u64>>,
    bytes: usize,
    next: u64,
}

/// Bounds of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) entries: usize,
    pub(crate) per_source: usize,
    pub(crate) bytes: usize,
}

impl Embryonics {
    /// Adds an entry; gives how many made room for it.
    pub(crate) fn insert(&mut self, e: Embryonic, bounds: Bounds) -> u64 {
        let mut evicted = 0;
        let source = Source::of(e.remote.ip());
        let size = e.sa_i.len() + e.reply.len();
        while let Some(of_source) = self.by_source.get(&source) {
            if of_source.len() < bounds.per_source.max(1) {
                break;
            }
            let Some(oldest) = of_source.first().copied() else { break };
            self.remove(oldest);
            evicted += 1;
        }
        while self.entries.len() >= bounds.entries.max(1) || self.bytes + size > bounds.bytes.max(size) {
            let Some(oldest) = self.entries.first_key_value().map(|(n, _)| *n) else { break };
            self.remove(oldest);
            evicted += 1;
        }
        self.next += 1;
        self.by_origin.insert((e.remote, e.cky_i), self.next);
        self.by_cookies.insert((e.cky_i, e.cky_r), self.next);
        self.by_source.entry(source).or_default().insert(self.next);
        self.bytes += size;
        self.entries.insert(self.next, e);
        evicted
    }

    /// The entry of a first message.
    pub(crate) fn of_origin(&self, remote: SocketAddr, cky_i: Cookie) -> Option<&Embryonic> {
        self.entries.get(self.by_origin.get(&(remote, cky_i))?)
    }

    /// The entry of a pair of cookies.
    pub(crate) fn of_cookies(&mut self, cky_i: Cookie, cky_r: Cookie) -> Option<&mut Embryonic> {
        self.entries.get_mut(self.by_cookies.get(&(cky_i, cky_r))?)
    }

    /// Takes the entry of a pair of cookies out.
    pub(crate) fn take(&mut self, cky_i: Cookie, cky_r: Cookie) -> Option<Embryonic> {
        let n = *self.by_cookies.get(&(cky_i, cky_r))?;
        self.remove(n)
    }

    /// Takes out the oldest entry if it began before `before`.
    pub(crate) fn take_older(&mut self, before: Instant) -> Option<Embryonic> {
        let (n, e) = self.entries.first_key_value()?;
        if e.began > before {
            return None;
        }
        let n = *n;
        self.remove(n)
    }

    /// When the oldest entry began.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.entries.first_key_value().map(|(_, e)| e.began)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn remove(&mut self, n: u64) -> Option<Embryonic> {
        let e = self.entries.remove(&n)?;
        self.by_origin.remove(&(e.remote, e.cky_i));
        self.by_cookies.remove(&(e.cky_i, e.cky_r));
        let source = Source::of(e.remote.ip());
        if let Some(of_source) = self.by_source.get_mut(&source) {
            of_source.remove(&n);
            if of_source.is_empty() {
                self.by_source.remove(&source);
            }
        }
        self.bytes = self.bytes.saturating_sub(e.sa_i.len() + e.reply.len());
        Some(e)
    }
}
