//! How many connections there may be, and whose: nobody can take the places of all others, and who comes last is not shut out by
//! those who came before and do nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sallyport_base::Source;
use tokio::sync::oneshot;

/// Connections that one certificate may hold: a gateway has a few, an operator's scripts perhaps dozens.
const PER_CERTIFICATE: usize = 128;

/// Connections of those that no service is open to: enough to join, or to be told what is wrong. The oldest makes room.
const STRANGERS: usize = 32;

/// Handshakes that one source may have under way; its oldest makes room. Gateways may share an address.
const HANDSHAKES_PER_SOURCE: usize = 64;

/// Entries in the order in which they came, each of which can be told to go.
#[derive(Debug)]
struct Queue<T> {
    entries: BTreeMap<u64, (T, oneshot::Sender<()>)>,
    next: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), next: 0 }
    }
}

impl<T> Queue<T> {
    fn add(&mut self, what: T) -> (u64, oneshot::Receiver<()>) {
        let (tell, told) = oneshot::channel();
        self.next += 1;
        self.entries.insert(self.next, (what, tell));
        (self.next, told)
    }

    /// Tells the oldest of those that fit to go.
    fn evict(&mut self, fits: impl Fn(&T) -> bool) -> Option<T> {
        let oldest = self.entries.iter().find(|(_, (what, _))| fits(what)).map(|(number, _)| *number)?;
        let (what, tell) = self.entries.remove(&oldest)?;
        let _ = tell.send(()); // it may have ended by itself
        Some(what)
    }
}

#[derive(Debug, Default)]
struct Table {
    handshakes: Queue<Source>,
    by_source: BTreeMap<Source, usize>,
    strangers: Queue<()>,
    known: usize,
    by_certificate: BTreeMap<String, usize>,
}

/// The places of the gRPC address.
#[derive(Debug)]
pub(super) struct Places {
    limit: usize,
    table: Mutex<Table>,
}

/// Who holds a place.
#[derive(Debug)]
enum Holder {
    Handshake(u64),
    Known(String),
    Stranger(u64),
}

/// A place; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    holder: Holder,
}

/// Resolves when a place is taken away.
pub(super) type Evicted = oneshot::Receiver<()>;

impl Places {
    /// `limit` connections in all, and half as many handshakes beside them.
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, table: Mutex::default() })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for the handshake of whoever comes from `source`. Somebody else may have to go for it.
    pub(super) fn arrive(self: &Arc<Self>, source: IpAddr) -> (Place, Evicted) {
        let source = Source::of(source);
        let mut table = self.table();
        if table.by_source.get(&source).is_some_and(|n| *n >= HANDSHAKES_PER_SOURCE) {
            table.evict_handshake(|s| *s == source);
        }
        while table.handshakes.entries.len() >= (self.limit / 2).max(1) {
            table.evict_handshake(|_| true);
        }
        *table.by_source.entry(source).or_default() += 1;
        let (number, evicted) = table.handshakes.add(source);
        drop(table);
        (Place { places: self.clone(), holder: Holder::Handshake(number) }, evicted)
    }
}

impl Table {
    fn evict_handshake(&mut self, fits: impl Fn(&Source) -> bool) {
        if let Some(source) = self.handshakes.evict(fits) {
            remove(&mut self.by_source, &source);
        }
    }
}

/// A place for a connection, once it is known whose it is.
#[derive(Debug)]
pub(super) enum Settled {
    /// It may stay.
    Stays(Place),
    /// It may stay for a while, and goes when many others want to be heard.
    Visits(Place, Evicted),
    /// Its certificate holds as many as it may, or there is no room.
    Full,
}

impl Place {
    /// Exchanges the place of a handshake for one of a connection; `welcome` says whether its certificate opens a service.
    pub(super) fn settle(self, serial: &str, welcome: bool) -> Settled {
        let mut table = self.places.table();
        if welcome {
            let count = table.by_certificate.get(serial).copied().unwrap_or(0);
            if table.known >= self.places.limit || count >= PER_CERTIFICATE {
                return Settled::Full;
            }
            table.known += 1;
            table.by_certificate.insert(serial.to_owned(), count + 1);
            drop(table);
            let holder = Holder::Known(serial.to_owned());
            return Settled::Stays(Self { places: self.places.clone(), holder });
        }
        if table.strangers.entries.len() >= STRANGERS {
            table.strangers.evict(|()| true);
        }
        let (number, evicted) = table.strangers.add(());
        drop(table);
        Settled::Visits(Self { places: self.places.clone(), holder: Holder::Stranger(number) }, evicted)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.places.table();
        match &self.holder {
            // Gone already if it was told to go.
            Holder::Handshake(number) => {
                if let Some((source, _)) = table.handshakes.entries.remove(number) {
                    remove(&mut table.by_source, &source);
                }
            }
            Holder::Known(serial) => {
                table.known = table.known.saturating_sub(1);
                remove(&mut table.by_certificate, serial);
            }
            Holder::Stranger(number) => drop(table.strangers.entries.remove(number)),
        }
    }
}

fn remove<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    match counts.get_mut(key) {
        Some(count) if *count > 1 => *count -= 1,
        _ => {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn told(evicted: &mut Evicted) -> bool {
        evicted.try_recv().is_ok()
    }

    #[test]
    fn idle_handshakes_of_a_source_make_room_for_its_next_and_for_nobody_elses() {
        let places = Places::new(1_000);
        let mut other = places.arrive(at(2));
        let mut idle: Vec<_> = (0..HANDSHAKES_PER_SOURCE + 5).map(|_| places.arrive(at(1))).collect();
        let gone = idle.iter_mut().map(|(_, evicted)| told(evicted)).filter(|gone| *gone).count();
        assert_eq!((gone, told(&mut other.1)), (5, false));
        assert_eq!(places.table().handshakes.entries.len(), HANDSHAKES_PER_SOURCE + 1);
        drop((idle, other));
        assert!(places.table().by_source.is_empty() && places.table().handshakes.entries.is_empty());
    }

    #[test]
    fn a_host_that_draws_on_all_its_addresses_is_one_source() {
        let places = Places::new(10_000);
        let held: Vec<_> = (0..1_000_u16)
            .map(|n| places.arrive(std::net::Ipv6Addr::new(0x2001, 0xdb8, 1, 2, n, n, n, n).into()))
            .collect();
        assert_eq!(places.table().handshakes.entries.len(), HANDSHAKES_PER_SOURCE);
        drop(held);
    }

    #[test]
    fn handshakes_in_all_are_bounded_and_the_newest_always_gets_its_chance() {
        let places = Places::new(100);
        let mut held: Vec<_> = (0..=255).map(|n| places.arrive(at(n))).collect();
        assert_eq!(places.table().handshakes.entries.len(), 50);
        assert!(held.last_mut().is_some_and(|(_, evicted)| !told(evicted)));
    }

    #[test]
    fn no_certificate_takes_the_places_of_others_and_strangers_come_and_go() {
        let places = Places::new(1_000);
        let settle = |serial: &str, welcome| places.arrive(at(3)).0.settle(serial, welcome);
        let gateway: Vec<_> =
            (0..1_000).map(|_| settle("gw1", true)).filter(|s| matches!(s, Settled::Stays(_))).collect();
        assert_eq!(gateway.len(), PER_CERTIFICATE);
        assert!(matches!(settle("gw2", true), Settled::Stays(_)));
        let mut strangers: Vec<_> = (0..STRANGERS + 3).map(|_| settle("laptop", false)).collect();
        let mut gone = 0;
        for stranger in &mut strangers {
            if let Settled::Visits(_, evicted) = stranger {
                gone += usize::from(told(evicted));
            }
        }
        assert_eq!(gone, 3);
        drop((gateway, strangers));
        let table = places.table();
        assert_eq!((table.known, table.strangers.entries.len(), table.by_certificate.len()), (0, 0, 0));
        assert!(table.handshakes.entries.is_empty());
    }
}
