//! Microsoft's and Cisco's fragmentation of IKEv1 messages, [MS-IKEE] §3.3.2: both directions.

use std::collections::BTreeMap;

use sallyport_base::{Instant, Source};

use crate::header::{Cookie, HEADER_LEN, Header, MAX_MESSAGE_LEN};
use crate::message::assemble;
use crate::payload::{ChainWriter, Fragment, PayloadType};
use crate::timer;

/// Most pieces of one message: Windows has been seen with 29 (of IKEv2).
pub(crate) const MAX_FRAGMENTS: u8 = 32;

/// Most that all messages which are being put together take, in bytes; the oldest makes room.
const MAX_TOTAL: usize = 16 << 20;

/// Most messages that are being put together for one source, and the most that they take; its oldest makes room. A whole office
/// may return behind one address.
const MAX_PER_SOURCE: (usize, usize) = (128, MAX_TOTAL / 8);

/// Data in each piece that we send: with IPv6, UDP, the non-ESP marker and the headers it makes 1280 bytes.
const PIECE: usize = 1280 - 40 - 8 - 4 - HEADER_LEN - 8;

/// The pieces of one message.
#[derive(Debug)]
struct Reassembly {
    id: u16,
    pieces: BTreeMap<u8, Vec<u8>>,
    bytes: usize,
    last: Option<u8>,
    began: Instant,
    source: Source,
    /// For finding the oldest.
    order: u64,
}

/// All messages that are being put together: one for each pair of cookies, which has to be known.
#[derive(Debug, Default)]
pub(crate) struct Reassemblies {
    open: BTreeMap<(Cookie, Cookie), Reassembly>,
    by_age: BTreeMap<u64, (Cookie, Cookie)>,
    /// How many there are of each source, and their bytes.
    by_source: BTreeMap<Source, (usize, usize)>,
    next: u64,
    bytes: usize,
}

/// What became of a piece.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// More are needed.
    Waiting,
    /// It was the last that was missing: the message.
    Whole(Vec<u8>),
    /// It does not fit.
    Dropped,
}

impl Reassemblies {
    /// Takes a piece. `max` bounds how many messages are put together at once.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        key: (Cookie, Cookie),
        source: Source,
        f: &Fragment<'_>,
        max: usize,
    ) -> Taken {
        self.expire(now);
        if f.number > MAX_FRAGMENTS || f.data.is_empty() {
            return Taken::Dropped;
        }
        // A new ID is a new attempt of the sender: what came before is worthless.
        if self.open.get(&key).is_some_and(|r| r.id != f.id) {
            self.forget(key);
        }
        if !self.open.contains_key(&key) {
            // One that knows cookies of ours has shown where it is: it pushes out nobody but its own.
            while self.by_source.get(&source).is_some_and(|(n, _)| *n >= MAX_PER_SOURCE.0) {
                self.forget_oldest_of(source);
            }
            while self.open.len() >= max.max(1) {
                let Some(oldest) = self.by_age.first_key_value().map(|(_, k)| *k) else { break };
                self.forget(oldest);
            }
            self.next += 1;
            self.by_age.insert(self.next, key);
            self.by_source.entry(source).or_default().0 += 1;
            let (id, order) = (f.id, self.next);
            let fresh = Reassembly { id, pieces: BTreeMap::new(), bytes: 0, last: None, began: now, source, order };
            self.open.insert(key, fresh);
        }
        while self.by_source.get(&source).is_some_and(|(_, bytes)| bytes + f.data.len() > MAX_PER_SOURCE.1) {
            self.forget_oldest_of(source);
        }
        while self.bytes + f.data.len() > MAX_TOTAL {
            let Some(oldest) = self.by_age.first_key_value().map(|(_, k)| *k) else { break };
            self.forget(oldest);
        }
        let Some(r) = self.open.get_mut(&key) else { return Taken::Dropped };
        let beyond = r.last.is_some_and(|last| f.number > last || (f.last && f.number != last));
        let shrinks = f.last && r.pieces.last_key_value().is_some_and(|(n, _)| *n > f.number);
        if beyond || shrinks || r.bytes + f.data.len() > MAX_MESSAGE_LEN {
            self.forget(key);
            return Taken::Dropped;
        }
        if f.last {
            r.last = Some(f.number);
        }
        if let std::collections::btree_map::Entry::Vacant(free) = r.pieces.entry(f.number) {
            r.bytes += f.data.len();
            self.bytes += f.data.len();
            if let Some((_, bytes)) = self.by_source.get_mut(&r.source) {
                *bytes += f.data.len();
            }
            free.insert(f.data.to_vec());
        }
        if r.last.map(usize::from) != Some(r.pieces.len()) {
            return Taken::Waiting;
        }
        let mut whole = Vec::with_capacity(r.bytes);
        for piece in r.pieces.values() {
            whole.extend_from_slice(piece);
        }
        self.forget(key);
        Taken::Whole(whole)
    }

    /// Gives up what belongs to these cookies.
    pub(crate) fn forget(&mut self, key: (Cookie, Cookie)) {
        if let Some(r) = self.open.remove(&key) {
            self.by_age.remove(&r.order);
            self.bytes = self.bytes.saturating_sub(r.bytes);
            if let Some((n, bytes)) = self.by_source.get_mut(&r.source) {
                (*n, *bytes) = (n.saturating_sub(1), bytes.saturating_sub(r.bytes));
                if *n == 0 {
                    self.by_source.remove(&r.source);
                }
            }
        }
    }

    fn forget_oldest_of(&mut self, source: Source) {
        let mut oldest = self.by_age.values().filter(|key| self.open.get(*key).is_some_and(|r| r.source == source));
        if let Some(key) = oldest.next().copied() {
            self.forget(key);
        } else {
            self.by_source.remove(&source); // cannot be: counted and not there
        }
    }

    /// Gives up what is too old; the order of arrival is the order of age.
    fn expire(&mut self, now: Instant) {
        while let Some((_, key)) = self.by_age.first_key_value() {
            let key = *key;
            if self.open.get(&key).is_some_and(|r| now.since(r.began) < timer::REASSEMBLY) {
                return;
            }
            self.forget(key);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}

/// Cuts `message` into pieces, each a datagram of its own.
pub(crate) fn split(message: &[u8], id: u16) -> Vec<Vec<u8>> {
    let Ok((header, _)) = Header::split(message) else { return vec![message.to_vec()] };
    let count = message.len().div_ceil(PIECE);
    // More than a receiver takes: whole then, and IP has to do it.
    if count > usize::from(MAX_FRAGMENTS) {
        return vec![message.to_vec()];
    }
    (1..)
        .zip(message.chunks(PIECE))
        .map(|(number, data)| {
            let mut chain = ChainWriter::new();
            let fragment = Fragment { id, number, last: usize::from(number) == count, data };
            chain.payload(PayloadType::FRAGMENT, |w| fragment.emit(w));
            assemble(Header { flags: 0, ..header }, &chain)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::ExchangeType;
    use crate::message::Message;
    use crate::payload::Payload;

    fn fragment(bytes: &[u8]) -> Fragment<'_> {
        match Message::parse(bytes).unwrap().payloads[..] {
            [Payload::Fragment(f)] => f,
            _ => panic!("not a fragment"),
        }
    }

    fn source(n: u8) -> Source {
        Source::of([192, 0, 2, n].into())
    }

    fn whole(len: usize) -> Vec<u8> {
        let h = Header::v1(Cookie([1; 8]), Cookie([2; 8]), ExchangeType::MAIN_MODE, 0);
        let mut chain = ChainWriter::new();
        chain.bytes(PayloadType::CERT, &vec![7; len]);
        assemble(h, &chain)
    }

    #[test]
    fn pieces_in_any_order_make_the_message() {
        let message = whole(5000);
        let mut pieces = split(&message, 9);
        assert!(pieces.len() > 3 && pieces.iter().all(|p| p.len() <= 1280 - 52));
        pieces.reverse();
        let key = (Cookie([1; 8]), Cookie([2; 8]));
        let mut table = Reassemblies::default();
        let last = pieces.pop().unwrap();
        for p in &pieces {
            assert_eq!(table.take(Instant::ZERO, key, source(1), &fragment(p), 4), Taken::Waiting);
            assert_eq!(table.take(Instant::ZERO, key, source(1), &fragment(p), 4), Taken::Waiting);
        }
        assert_eq!(table.take(Instant::ZERO, key, source(1), &fragment(&last), 4), Taken::Whole(message));
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn the_table_is_bounded_and_forgets() {
        let mut table = Reassemblies::default();
        let f = Fragment { id: 1, number: 1, last: false, data: b"x" };
        for n in 0..100u8 {
            table.take(Instant::ZERO, (Cookie([n; 8]), Cookie([2; 8])), source(n), &f, 8);
        }
        assert_eq!(table.len(), 8);
        let late = Instant::ZERO + timer::REASSEMBLY;
        table.take(late, (Cookie([200; 8]), Cookie([2; 8])), source(200), &f, 8);
        assert_eq!(table.len(), 1);
        let large = vec![0; 40_000];
        for n in 0..=255u8 {
            for _ in 0..3 {
                let f = Fragment { id: 1, number: 1 + n % 3, last: false, data: &large };
                table.take(late, (Cookie([n; 8]), Cookie([3; 8])), source(n), &f, 100_000);
                table.take(late, (Cookie([n; 8]), Cookie([4; 8])), source(n), &f, 100_000);
            }
        }
        assert!(table.bytes <= MAX_TOTAL && table.len() > 100);
        let beyond = Fragment { number: MAX_FRAGMENTS + 1, ..f };
        assert_eq!(table.take(late, (Cookie([200; 8]), Cookie([2; 8])), source(200), &beyond, 8), Taken::Dropped);
    }

    #[test]
    fn one_source_cannot_push_others_out() {
        let mut table = Reassemblies::default();
        let f = Fragment { id: 1, number: 1, last: false, data: b"x" };
        let key = |n: u32| (Cookie(u64::from(n).to_be_bytes()), Cookie([2; 8]));
        table.take(Instant::ZERO, key(0), source(1), &f, 1_000);
        for n in 1..=1_000 {
            table.take(Instant::ZERO, key(n), source(2), &f, 1_000);
        }
        assert_eq!(table.len(), 1 + MAX_PER_SOURCE.0);
        let rest = Fragment { number: 2, last: true, ..f };
        assert_eq!(table.take(Instant::ZERO, key(0), source(1), &rest, 1_000), Taken::Whole(b"xx".to_vec()));
        let late = Instant::ZERO + timer::REASSEMBLY;
        assert_eq!(table.take(late, key(2_000), source(2), &f, 1_000), Taken::Waiting);
        assert_eq!((table.len(), table.by_source.len()), (1, 1));
        // Nor does the first of an office shut its neighbours out: the newest is put together.
        let rest = Fragment { number: 2, last: true, ..f };
        for n in 0..1_000 {
            table.take(late, key(n), source(2), &f, 1_000);
        }
        assert_eq!(table.take(late, key(999), source(2), &rest, 1_000), Taken::Whole(b"xx".to_vec()));
        // Nor by size.
        let large = vec![0; 60_000];
        for n in 0..1_000 {
            table.take(late, key(n), source(3), &Fragment { data: &large, ..f }, 1_000);
        }
        assert!(table.by_source.values().all(|(_, bytes)| *bytes <= MAX_PER_SOURCE.1));
    }
}
