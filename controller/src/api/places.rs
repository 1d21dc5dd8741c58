//! How many connections there may be, and whose: nobody can take the places of all others.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections that one certificate may hold: a gateway has a few, an operator's shell perhaps a dozen.
const PER_CERTIFICATE: usize = 32;

/// Connections of certificates that open neither service: enough to be told so.
const STRANGERS: usize = 16;

/// Handshakes that one address may have under way. Gateways may share an address.
const HANDSHAKES_PER_SOURCE: usize = 32;

#[derive(Debug, Default)]
struct Table {
    handshakes: usize,
    by_source: BTreeMap<IpAddr, usize>,
    known: usize,
    by_certificate: BTreeMap<String, usize>,
    strangers: usize,
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
    Handshake(IpAddr),
    Known(String),
    Stranger,
}

/// A place; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    holder: Holder,
}

impl Places {
    /// `limit` connections in all, and half as many handshakes beside them.
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, table: Mutex::default() })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for the handshake of whoever comes from `source`.
    pub(super) fn arrive(self: &Arc<Self>, source: IpAddr) -> Option<Place> {
        let mut table = self.table();
        if table.handshakes > self.limit / 2 || !add(&mut table.by_source, source, HANDSHAKES_PER_SOURCE) {
            return None;
        }
        table.handshakes += 1;
        drop(table);
        Some(Place { places: self.clone(), holder: Holder::Handshake(source) })
    }
}

impl Place {
    /// A place for the connection, now that its certificate is known; `welcome` says whether it opens a service.
    pub(super) fn settle(self, serial: &str, welcome: bool) -> Option<Self> {
        let mut table = self.places.table();
        let holder = if welcome {
            if table.known >= self.places.limit || !add(&mut table.by_certificate, serial.to_owned(), PER_CERTIFICATE) {
                return None;
            }
            table.known += 1;
            Holder::Known(serial.to_owned())
        } else {
            if table.strangers >= STRANGERS {
                return None;
            }
            table.strangers += 1;
            Holder::Stranger
        };
        drop(table);
        Some(Self { places: self.places.clone(), holder })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.places.table();
        match &self.holder {
            Holder::Handshake(source) => {
                table.handshakes = table.handshakes.saturating_sub(1);
                remove(&mut table.by_source, source);
            }
            Holder::Known(serial) => {
                table.known = table.known.saturating_sub(1);
                remove(&mut table.by_certificate, serial);
            }
            Holder::Stranger => table.strangers = table.strangers.saturating_sub(1),
        }
    }
}

/// Counts one more of `key` unless there are `limit`.
fn add<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K, limit: usize) -> bool {
    let count = counts.entry(key).or_default();
    let room = *count < limit;
    *count += usize::from(room);
    room
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

    #[test]
    fn no_address_certificate_or_stranger_takes_the_places_of_others() {
        let places = Places::new(100);
        let handshakes: Vec<_> = (0..1_000).filter_map(|_| places.arrive(at(1))).collect();
        assert_eq!(handshakes.len(), HANDSHAKES_PER_SOURCE);
        let laptop: Vec<_> =
            (0..1_000).filter_map(|_| places.arrive(at(2)).and_then(|p| p.settle("laptop", false))).collect();
        assert_eq!(laptop.len(), STRANGERS);
        let gateway: Vec<_> =
            (0..1_000).filter_map(|_| places.arrive(at(3)).and_then(|p| p.settle("gw1", true))).collect();
        assert_eq!(gateway.len(), PER_CERTIFICATE);
        assert!(places.arrive(at(4)).and_then(|p| p.settle("gw2", true)).is_some());
        drop((handshakes, laptop, gateway));
        let table = places.table();
        assert_eq!((table.handshakes, table.known, table.strangers), (0, 0, 0));
        assert!(table.by_source.is_empty() && table.by_certificate.is_empty());
    }

    #[test]
    fn all_together_are_bounded() {
        let places = Places::new(100);
        let handshakes: Vec<_> = (0..=255).filter_map(|n| places.arrive(at(n))).collect();
        assert_eq!(handshakes.len(), 51);
        drop(handshakes);
        let known: Vec<_> =
            (0..=255).filter_map(|n| places.arrive(at(n)).and_then(|p| p.settle(&n.to_string(), true))).collect();
        assert_eq!(known.len(), 100);
    }
}
