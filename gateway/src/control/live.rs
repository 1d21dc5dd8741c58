//! The set of live certificates: which machines this gateway lets in by itself, and how current what it knows is.
//!
//! Plain data without I/O. It changes by what the controllers say, in the order of their log: the whole set in parts, then changes.
//! What is said of a certificate is always what is so when it is said, and each message says up to which number all is known then;
//! so a message that comes twice, late, or from another controller does no harm, and one that is missing is noticed.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use sallyport_base::{Instant, UnixTime};
use sallyport_proto::v1;
use sallyport_proto::v1::RevocationReason as Reason;

/// After this time without a word the gateway is stale: it lets in by itself whom it knows, and asks about everybody else in vain.
pub const LEASE: Duration = Duration::from_secs(5);
/// Most certificates that are kept, 20 octets each and some for the tree: 200 MB.
const MOST: usize = 5_000_000;
/// Octets of an entry of a message: the name of a certificate, and its end.
const ENTRY: usize = 20;
/// Entries whose end is looked at in one go.
const SWEEP: usize = 4_096;
/// Answers that wait for what they speak of.
const ANSWERS: usize = 16;

/// The first octets of a certificate's SHA-256.
pub type Tag = [u8; 16];

/// Names a certificate here.
pub fn tag(fingerprint: &[u8; 32]) -> Tag {
    let mut tag = Tag::default();
    tag.copy_from_slice(&fingerprint[..16]);
    tag
}

/// A certificate that is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Why.
    pub reason: Reason,
    /// Its place in the order of revocations.
    pub number: u64,
    not_after: u32,
}

/// What is known of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is live.
    Live,
    /// It is revoked.
    Revoked(Revoked),
    /// Nothing.
    Nothing,
}

/// How current it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// The controllers have never said what is live: they are asked about every machine.
    Without,
    /// All revocations up to five seconds ago are known.
    Current,
    /// Nothing was heard for longer than that.
    Stale,
    /// And for longer than the policy allows.
    Shut,
}

/// A message that does not fit what is known: the stream must begin again from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// Something between is missing.
    #[error("a message about live certificates is missing")]
    Gap,
    /// It says less than is known.
    #[error("the controller knows less of revocations than was heard before; it is not believed")]
    Older,
    /// Nonsense.
    #[error("a message about live certificates is malformed")]
    Malformed,
    /// More than fits.
    #[error("more live certificates than this gateway keeps")]
    TooMany,
}

#[derive(Debug)]
struct Coming {
    /// What it will be.
    to: v1::LiveFrom,
    /// How far it has come.
    said: u64,
    set: Set,
}

#[derive(Debug, Default)]
struct Set {
    live: BTreeMap<Tag, u32>,
    revoked: BTreeMap<Tag, Revoked>,
}

/// The set.
#[derive(Debug, Default)]
pub struct LiveSet {
    at: v1::LiveFrom,
    set: Set,
    /// The whole set anew, under way.
    coming: Option<Coming>,
    /// When everything was known, at the latest.
    known_at: Option<Instant>,
    /// What the controllers have answered of revocations that were not here yet: when it was asked, and the number.
    answers: VecDeque<(Instant, u64)>,
    /// Until when it lets in whom it knows, after it has heard nothing; `None` is for ever.
    max_stale: Option<Duration>,
    fail_closed: bool,
    /// Up to where ends were looked at.
    swept: Tag,
}

impl Set {
    fn take(&mut self, update: &v1::LiveUpdate) -> Result<Vec<(Tag, Revoked)>, Misfit> {
        let (entries, rest) = update.live.as_chunks::<ENTRY>();
        if !rest.is_empty() {
            return Err(Misfit::Malformed);
        }
        let mut revoked = Vec::with_capacity(update.revoked.len());
        for one in &update.revoked {
            let tag = Tag::try_from(one.fingerprint.as_slice()).map_err(|_| Misfit::Malformed)?;
            let not_after = u32::try_from(one.not_after_unix_s).unwrap_or(u32::MAX);
            revoked.push((tag, Revoked { reason: one.reason(), number: one.number, not_after }));
        }
        if self.live.len() + self.revoked.len() + entries.len() + revoked.len() > MOST {
            return Err(Misfit::TooMany);
        }
        for [tag @ .., a, b, c, d] in entries {
            self.revoked.remove(tag);
            self.live.insert(*tag, u32::from_be_bytes([*a, *b, *c, *d]));
        }
        for (tag, one) in &revoked {
            self.live.remove(tag);
            self.revoked.insert(*tag, *one);
        }
        Ok(revoked)
    }
}

impl LiveSet {
    /// Takes in what a controller says. Returns the certificates that are revoked by it: whoever is in with one of them must go.
    pub fn handle(&mut self, update: &v1::LiveUpdate) -> Result<Vec<(Tag, Revoked)>, Misfit> {
        let to = v1::LiveFrom { lineage: update.lineage, index: update.index };
        if to.lineage == 0 {
            return Err(Misfit::Malformed);
        }
        if !update.snapshot {
            self.coming = None; // of a whole set that broke off nothing counts
            return self.change(update, to);
        }
        // Whoever was a controller, or is behind, brings back nobody.
        if to.lineage == self.at.lineage && to.index < self.at.index {
            return Err(Misfit::Older);
        }
        let before = self.coming.take().filter(|_| update.after != 0);
        let mut coming = before.unwrap_or(Coming { to, said: 0, set: Set::default() });
        if coming.to != to || coming.said != update.after {
            return Err(Misfit::Gap);
        }
        coming.set.take(update)?;
        coming.said = update.said;
        if update.more {
            self.coming = Some(coming);
            return Ok(Vec::new());
        }
        if to.lineage != self.at.lineage {
            (self.known_at, self.answers) = (None, VecDeque::new());
        }
        (self.at, self.set) = (to, coming.set);
        self.settle();
        Ok(self.set.revoked.iter().map(|(tag, revoked)| (*tag, *revoked)).collect())
    }

    fn change(&mut self, update: &v1::LiveUpdate, to: v1::LiveFrom) -> Result<Vec<(Tag, Revoked)>, Misfit> {
        if update.more || to.lineage != self.at.lineage || update.after > self.at.index {
            return Err(Misfit::Gap);
        }
        if to.index <= self.at.index {
            return Ok(Vec::new()); // heard before
        }
        let revoked = self.set.take(update)?;
        self.at = to;
        self.settle();
        Ok(revoked)
    }

    /// A controller has answered a question of `asked` with the newest revocation that there was.
    pub fn handle_newest(&mut self, newest: v1::LiveFrom, asked: Instant) {
        if newest.lineage != self.at.lineage || self.at.lineage == 0 {
            return;
        }
        self.answers.push_back((asked, newest.index));
        if self.answers.len() > ANSWERS {
            self.answers.pop_front();
        }
        self.settle();
    }

    /// What was known when.
    fn settle(&mut self) {
        let index = self.at.index;
        let known = self.answers.iter().filter(|(_, newest)| *newest <= index).map(|(asked, _)| *asked).max();
        self.answers.retain(|(_, newest)| *newest > index);
        self.known_at = self.known_at.max(known);
    }

    /// What the policy says of silence; 0 is no bound.
    pub fn set_bounds(&mut self, max_stale_s: u32, fail_closed: bool) {
        self.max_stale = (max_stale_s != 0).then(|| Duration::from_secs(max_stale_s.into()));
        self.fail_closed = fail_closed;
    }

    /// What is known of a certificate.
    pub fn find(&self, fingerprint: &[u8; 32], now: UnixTime) -> Known {
        let tag = tag(fingerprint);
        if let Some(revoked) = self.set.revoked.get(&tag) {
            return Known::Revoked(*revoked);
        }
        match self.set.live.get(&tag) {
            Some(not_after) if i64::from(*not_after) > now.0 => Known::Live,
            _ => Known::Nothing,
        }
    }

    /// How old what is known is; `None` while no controller has confirmed it.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        self.known_at.map(|at| now.since(at))
    }

    /// How current it is.
    pub fn standing(&self, now: Instant) -> Standing {
        match (self.at.lineage, self.age(now)) {
            (0, _) => Standing::Without,
            (_, Some(age)) if age < LEASE => Standing::Current,
            (_, Some(age)) if self.max_stale.is_some_and(|max| age >= max.max(LEASE)) => Standing::Shut,
            _ => Standing::Stale,
        }
    }

    /// When a standing changes next by the passing of time.
    pub fn deadline(&self, standing: Standing) -> Option<Instant> {
        let at = self.known_at?;
        match standing {
            Standing::Current => Some(at + LEASE),
            Standing::Stale => self.max_stale.map(|max| at + max.max(LEASE)),
            Standing::Without | Standing::Shut => None,
        }
    }

    /// Whether a gateway that is shut ends its sessions, too.
    pub fn fails_closed(&self) -> bool {
        self.fail_closed
    }

    /// The bound of the policy.
    pub fn max_stale(&self) -> Option<Duration> {
        self.max_stale
    }

    /// Up to where it is.
    pub fn at(&self) -> v1::LiveFrom {
        self.at
    }

    /// How many are live.
    pub fn len(&self) -> usize {
        self.set.live.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.set.live.is_empty()
    }

    /// Forgets certificates that have ended, some at a time.
    pub fn sweep(&mut self, now: UnixTime) {
        let over = |not_after: u32| i64::from(not_after) <= now.0;
        let range = (Bound::Excluded(self.swept), Bound::Unbounded);
        let mut looked: Vec<(Tag, u32)> = Vec::with_capacity(SWEEP);
        looked.extend(self.set.live.range(range).take(SWEEP).map(|(tag, end)| (*tag, *end)));
        looked.extend(self.set.revoked.range(range).take(SWEEP).map(|(tag, one)| (*tag, one.not_after)));
        looked.sort_unstable();
        looked.truncate(SWEEP);
        self.swept = match looked.last() {
            Some((tag, _)) if looked.len() == SWEEP => *tag,
            _ => Tag::default(),
        };
        for (tag, _) in looked.into_iter().filter(|(_, not_after)| over(*not_after)) {
            self.set.live.remove(&tag);
            self.set.revoked.remove(&tag);
        }
    }

    /// What the controllers are told of it.
    pub fn held(&self, now: Instant) -> Option<v1::LiveHeld> {
        (self.at.lineage != 0).then(|| v1::LiveHeld {
            at: Some(self.at),
            certificates: self.set.live.len() as u64,
            age_ms: self.age(now).map_or(u32::MAX, |age| u32::try_from(age.as_millis()).unwrap_or(u32::MAX)),
            stale: self.standing(now) == Standing::Shut,
        })
    }
}

#[cfg(test)]
mod tests;
