//! Wrong passwords, counted in the log: a new leader goes on counting, and every node agrees on who must wait.
//!
//! They count for a user and an address, so that a stranger at one address cannot lock a user out from elsewhere; behind one NAT,
//! people share an address but not a user name. The address is what the gateway says it is. So they count for the user and the
//! gateway, too, up to [`GATEWAY_FACTOR`] times as many: a gateway that invents an address for each guess gets no further than that.
//! The price: a stranger with that many guesses, from several addresses, locks the user out *of that gateway* from anywhere, for as
//! long as the settings say or until an operator unlocks the user; other gateways let the user in.
//!
//! No gateway holds more than a part of the table: one that floods it forgets its own rows, and nobody else's. Of these, first
//! those of names that no user has, of which it may make up as many as it likes: else it would have a user's forgotten before there
//! are enough of them. Then those of the fewest wrong passwords, then the oldest.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Guesser, LockoutRow, MAX_LOCKOUTS, MAX_LOCKOUTS_OF_GATEWAY, SettingsRow, State};

/// So many times what may be wrong from one address may be wrong through one gateway.
pub const GATEWAY_FACTOR: u32 = 10;

/// First octet of the keys that hold a gateway; others begin with the length of an address.
const OF_GATEWAY: u8 = 0xff;

/// The level from which on rows of users are kept longer than those of names that no user has.
const WEIGHT_LEVEL: u32 = 5;

/// How much a row is missed: whether it is of a user, how many passwords were wrong, when the last was, and its key.
pub(super) type Weight = (bool, u32, u64, Vec<u8>);

fn weight(key: &[u8], row: &LockoutRow) -> Weight {
    (row.of_user, row.failures, row.last_ms, key.to_vec())
}

impl Guesser {
    /// A user's folded name, and where the peer is, if that is known.
    pub fn new(user: &str, source: Option<IpAddr>) -> Self {
        let source = match source {
            Some(IpAddr::V4(v4)) => v4.octets().to_vec(),
            Some(IpAddr::V6(v6)) => v6.octets().to_vec(),
            None => Vec::new(),
        };
        Self { user: user.to_owned(), source }
    }

    /// `length of the address (1) | address | name`
    fn key(&self) -> Vec<u8> {
        let length = u8::try_from(self.source.len()).unwrap_or(u8::MAX);
        [&[length], self.source.as_slice(), self.user.as_bytes()].concat()
    }
}

/// `255 | length of the gateway's name (4) | name of the gateway | name of the user`
fn key_through(gateway: &str, user: &str) -> Vec<u8> {
    let length = u32::try_from(gateway.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[OF_GATEWAY], length.as_slice(), gateway.as_bytes(), user.as_bytes()].concat()
}

/// The name of the user in either kind of key.
fn user_of(key: &[u8]) -> Option<&[u8]> {
    let (first, rest) = key.split_first()?;
    let (length, rest) = match *first {
        OF_GATEWAY => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::try_from(u32::from_be_bytes(*length)).ok()?, rest)
        }
        length => (usize::from(length), rest),
    };
    rest.get(length..)
}

/// How long wrong passwords count, and whoever gave too many must wait, milliseconds; 0 where nothing is counted.
fn window_ms(settings: &SettingsRow) -> u64 {
    if settings.lockout_failures == 0 { 0 } else { u64::from(settings.lockout_s) * 1_000 }
}

impl State {
    /// Wrong passwords that count at a time of the log, and milliseconds until they do no longer.
    pub fn wrong_passwords(&self, guesser: &Guesser, now_ms: u64) -> (u32, u64) {
        self.counted(&guesser.key(), now_ms)
    }

    /// The same for all that a gateway handed on for a user, from wherever.
    pub fn wrong_passwords_through(&self, gateway: &str, user: &str, now_ms: u64) -> (u32, u64) {
        self.counted(&key_through(gateway, user), now_ms)
    }

    fn counted(&self, key: &Vec<u8>, now_ms: u64) -> (u32, u64) {
        let Some(row) = self.lockouts.get(key) else { return (0, 0) };
        match window_ms(&self.settings()).saturating_sub(now_ms.saturating_sub(row.last_ms)) {
            0 => (0, 0),
            left => (row.failures, left),
        }
    }

    /// One more. The gateway is empty in entries of a time when it was not counted.
    pub(super) fn count_wrong_password(&mut self, guesser: &Guesser, gateway: &str) {
        let window_ms = window_ms(&self.settings());
        if window_ms == 0 {
            return;
        }
        // Older software would keep other rows.
        let of_user = self.level() >= WEIGHT_LEVEL && self.users.contains(&guesser.user);
        self.count(guesser.key(), gateway, of_user, window_ms);
        if !gateway.is_empty() {
            self.count(key_through(gateway, &guesser.user), gateway, of_user, window_ms);
        }
    }

    fn count(&mut self, key: Vec<u8>, gateway: &str, of_user: bool, window_ms: u64) {
        let now_ms = self.now_ms();
        let (before, _) = self.counted(&key, now_ms);
        self.drop_lockout(&key);
        // Whoever no longer has to wait is forgotten; then, when they are too many, the one that is missed least of all, and of those
        // who came through this gateway.
        while let Some((last_ms, oldest)) = self.index.lockouts.first().cloned()
            && now_ms.saturating_sub(last_ms) >= window_ms
        {
            self.drop_lockout(&oldest);
        }
        while self.lockouts.len() >= MAX_LOCKOUTS
            && let Some(least) = self.least_lockout(None)
        {
            self.drop_lockout(&least);
        }
        while self.index.lockouts_of_gateway.get(gateway).is_some_and(|all| all.len() >= MAX_LOCKOUTS_OF_GATEWAY)
            && let Some(least) = self.least_lockout(Some(gateway))
        {
            self.drop_lockout(&least);
        }
        let row =
            LockoutRow { failures: before.saturating_add(1), last_ms: now_ms, gateway: gateway.to_owned(), of_user };
        self.index.note_lockout(&key, &row);
        self.lockouts.insert(key, row);
    }

    /// The row that is missed least, of all or of those that came through a gateway.
    fn least_lockout(&self, gateway: Option<&str>) -> Option<Vec<u8>> {
        if self.level() < WEIGHT_LEVEL {
            let oldest = match gateway {
                Some(gateway) => self.index.lockouts_of_gateway.get(gateway)?.first(),
                None => self.index.lockouts.first(),
            };
            return oldest.map(|(_, key)| key.clone());
        }
        let least = match gateway {
            Some(gateway) => self.index.lockouts_by_weight.get(gateway)?.first(),
            None => self.index.lockouts_by_weight.values().filter_map(BTreeSet::first).min(),
        };
        least.map(|(_, _, _, key)| key.clone())
    }

    /// The right password was given. What counts for the gateway stays: it could have one user's right password, and another's
    /// to guess.
    pub(super) fn forget_wrong_passwords(&mut self, guesser: &Guesser) {
        self.drop_lockout(&guesser.key());
    }

    /// An operator lets a user try again, from anywhere and through every gateway. Gives the addresses and gateways that were
    /// counted.
    pub(super) fn forget_all_wrong_passwords(&mut self, user: &str) -> u32 {
        let of_user = |key: &&Vec<u8>| user_of(key) == Some(user.as_bytes());
        let keys: Vec<Vec<u8>> = self.lockouts.iter().map(|(key, _)| key).filter(of_user).cloned().collect();
        for key in &keys {
            self.drop_lockout(key);
        }
        u32::try_from(keys.len()).unwrap_or(u32::MAX)
    }

    fn drop_lockout(&mut self, key: &Vec<u8>) {
        let Some(row) = self.lockouts.remove(key) else { return };
        let place = (row.last_ms, key.clone());
        remove(&mut self.index.lockouts_of_gateway, &row.gateway, &place);
        remove(&mut self.index.lockouts_by_weight, &row.gateway, &weight(key, &row));
        self.index.lockouts.remove(&place);
    }
}

fn remove<T: Ord>(sets: &mut BTreeMap<String, BTreeSet<T>>, gateway: &String, entry: &T) {
    if let Some(of_gateway) = sets.get_mut(gateway) {
        of_gateway.remove(entry);
        if of_gateway.is_empty() {
            sets.remove(gateway);
        }
    }
}

impl super::Index {
    pub(super) fn note_lockout(&mut self, key: &[u8], row: &LockoutRow) {
        self.lockouts.insert((row.last_ms, key.to_vec()));
        self.lockouts_by_weight.entry(row.gateway.clone()).or_default().insert(weight(key, row));
        // Rows of the time before gateways were counted are nobody's.
        if !row.gateway.is_empty() {
            let of_gateway = self.lockouts_of_gateway.entry(row.gateway.clone()).or_default();
            of_gateway.insert((row.last_ms, key.to_vec()));
        }
    }
}
