//! Wrong passwords of one user from one address, counted in the log: a new leader goes on counting, and every node agrees on
//! who must wait.
//!
//! The key holds the address, so that a stranger cannot lock a user out from elsewhere; behind one NAT, people share an
//! address but not a user name.

use std::net::IpAddr;

use super::{Guesser, LockoutRow, MAX_LOCKOUTS, SettingsRow, State};

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

/// How long wrong passwords count, and whoever gave too many must wait, milliseconds; 0 where nothing is counted.
fn window_ms(settings: &SettingsRow) -> u64 {
    if settings.lockout_failures == 0 { 0 } else { u64::from(settings.lockout_s) * 1_000 }
}

impl State {
    /// Wrong passwords that count at a time of the log, and milliseconds until they do no longer.
    pub fn wrong_passwords(&self, guesser: &Guesser, now_ms: u64) -> (u32, u64) {
        let Some(row) = self.lockouts.get(&guesser.key()) else { return (0, 0) };
        match window_ms(&self.settings()).saturating_sub(now_ms.saturating_sub(row.last_ms)) {
            0 => (0, 0),
            left => (row.failures, left),
        }
    }

    /// One more.
    pub(super) fn count_wrong_password(&mut self, guesser: &Guesser) {
        let (now_ms, window_ms) = (self.now_ms(), window_ms(&self.settings()));
        if window_ms == 0 {
            return;
        }
        let key = guesser.key();
        let (before, _) = self.wrong_passwords(guesser, now_ms);
        self.forget_wrong_passwords(guesser);
        // Whoever failed longest ago is forgotten first, and whoever no longer has to wait.
        while let Some((last_ms, oldest)) = self.index.lockouts.first().cloned()
            && (self.lockouts.len() >= MAX_LOCKOUTS || now_ms.saturating_sub(last_ms) >= window_ms)
        {
            self.lockouts.remove(&oldest);
            self.index.lockouts.remove(&(last_ms, oldest));
        }
        self.index.lockouts.insert((now_ms, key.clone()));
        self.lockouts.insert(key, LockoutRow { failures: before.saturating_add(1), last_ms: now_ms });
    }

    /// The right password was given.
    pub(super) fn forget_wrong_passwords(&mut self, guesser: &Guesser) {
        let key = guesser.key();
        if let Some(row) = self.lockouts.remove(&key) {
            self.index.lockouts.remove(&(row.last_ms, key));
        }
    }
}
