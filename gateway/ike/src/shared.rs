//! What all exchanges need of the endpoint: numbers, jobs, sending, and taking an SA out of its table and back.

use std::net::SocketAddr;

use sallyport_base::PeerId;

use crate::endpoint::{Endpoint, Fate, Purpose, TimerKey};
use crate::fragment;
use crate::header::Cookie;
use crate::output::{Job, JobId, Output};
use crate::v1::isakmp_sa::{IsakmpSa, SaId};

impl Endpoint {
    pub(crate) const fn new_sa_id(&mut self) -> SaId {
        self.next_sa += 1;
        SaId(self.next_sa)
    }

    pub(crate) const fn new_peer_id(&mut self) -> PeerId {
        self.next_peer += 1;
        PeerId(self.next_peer)
    }

    /// A cookie that begins with our slot and is not in use.
    pub(crate) fn new_cookie(&mut self) -> Cookie {
        let random = self.rng.u64() >> 12 | 1;
        Cookie((u64::from(self.config.slot & 0xfff) << 52 | random).to_be_bytes())
    }

    /// An inbound SPI that begins with our slot and is not in use. Values below 256 are reserved (RFC 4303 §2.1).
    pub(crate) fn new_spi(&mut self) -> Option<u32> {
        /// With 20 random bits, 64 draws fail once in 2^64 at half a million SAs.
        const DRAWS: usize = 64;
        for _ in 0..DRAWS {
            let spi = u32::from(self.config.slot & 0xfff) << 20 | self.rng.u32() >> 12;
            if spi >= 256 && !self.children.contains_key(&spi) && !self.reserved_spis.contains_key(&spi) {
                return Some(spi);
            }
        }
        None
    }

    /// A message ID that is not zero.
    pub(crate) fn new_message_id(&mut self) -> u32 {
        self.rng.u32().max(1)
    }

    /// Takes an SA out of the table for the time of a call.
    pub(crate) fn with_sa(&mut self, id: SaId, f: impl FnOnce(&mut Self, &mut IsakmpSa) -> Fate) {
        let Some(mut sa) = self.sas.remove(&id) else { return };
        let fate = f(self, &mut sa);
        self.sas.insert(id, sa);
        if fate == Fate::Drop {
            self.drop_sa(id);
        }
    }

    /// Gives a job out for an SA; `false` if there are too many unanswered.
    pub(crate) fn give_job(&mut self, sa: &mut IsakmpSa, purpose: Purpose, job: Job) -> bool {
        if self.jobs.len() >= self.config.limits.jobs {
            self.stats.jobs_refused += 1;
            return false;
        }
        self.next_job += 1;
        let id = JobId(self.next_job);
        self.jobs.insert(id, (sa.id, purpose));
        sa.jobs.push(id);
        self.output.push_back(Output::Job { id, job });
        true
    }

    /// Removes an SA from every table and its peer. What it was negotiating fails.
    pub(crate) fn drop_sa(&mut self, id: SaId) {
        let Some(sa) = self.sas.remove(&id) else { return };
        self.by_cookies.remove(&(sa.cky_i, sa.cky_r));
        self.by_cookies.remove(&(sa.cky_i, Cookie::ZERO));
        if self.by_origin.get(&(sa.origin, sa.cky_i)) == Some(&id) {
            self.by_origin.remove(&(sa.origin, sa.cky_i));
        }
        self.reassemblies.forget((sa.cky_i, sa.cky_r));
        self.leave_half_open(id);
        for key in [
            TimerKey::Handshake(id),
            TimerKey::Repeat(id),
            TimerKey::Tidy(id),
            TimerKey::Rekey(id),
            TimerKey::Expire(id),
        ] {
            self.timers.cancel(key);
        }
        for job in &sa.jobs {
            self.jobs.remove(job);
        }
        for exchange in &sa.exchanges {
            self.forget_exchange(&sa, exchange);
        }
        if let Some(peer) = sa.peer.and_then(|p| self.peers.get_mut(&p)) {
            peer.sas.retain(|s| *s != id);
        }
    }

    /// A handshake has ended, one way or the other.
    pub(crate) fn leave_half_open(&mut self, id: SaId) {
        let Some(source) = self.half_open.remove(&id) else { return };
        if let Some(n) = self.half_open_of.get_mut(&source) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                self.half_open_of.remove(&source);
            }
        }
    }

    /// Sends a message of an SA, in pieces if it is large and the peer takes them. Gives the datagrams.
    pub(crate) fn send(&mut self, sa: &IsakmpSa, message: Vec<u8>) -> Vec<Vec<u8>> {
        let datagrams = if message.len() > self.config.fragment_above && sa.traits.fragmentation {
            let id = self.rng.u16().max(1);
            fragment::split(&message, id)
        } else {
            vec![message]
        };
        self.transmit(sa.local, sa.remote, &datagrams);
        datagrams
    }

    pub(crate) fn transmit(&mut self, local: SocketAddr, remote: SocketAddr, datagrams: &[Vec<u8>]) {
        for bytes in datagrams {
            self.output.push_back(Output::Transmit { local, remote, bytes: bytes.clone() });
        }
    }
}
