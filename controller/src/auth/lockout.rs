//! Slowing down guesses: wrong passwords of one user from one address are counted, and beyond a number that pair must wait.
//!
//! Soft state of the leader: a new leader starts counting anew. The key holds the address, so that a stranger cannot lock
//! a user out from elsewhere; behind one NAT, people share an address but not a user name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most pairs remembered; the one that failed longest ago is forgotten first.
const MAX_ENTRIES: usize = 65_536;

type Who = (String, Option<IpAddr>);

#[derive(Debug, Default)]
struct Table {
    entries: BTreeMap<Who, Entry>,
    by_time: BTreeSet<(u64, Who)>,
    /// Passwords that are being checked.
    checking: BTreeMap<Who, u32>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    failures: u32,
    last_ms: u64,
}

/// The rule, from the settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    /// Failures after which to wait; 0 is never.
    pub(crate) failures: u32,
    /// How long, seconds; also how long failures count.
    pub(crate) wait_s: u32,
}

impl Rule {
    fn window_ms(self) -> u64 {
        u64::from(self.wait_s) * 1_000
    }
}

/// Why a password is not checked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Too many were wrong: whole seconds that are left.
    Locked(u64),
    /// Too many are being checked at this moment to know whether one more is too many.
    Busy,
}

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct Lockout(Mutex<Table>);

/// A password that is being checked. Dropped without a word, it counts neither as right nor as wrong.
#[derive(Debug)]
pub(crate) struct Guess<'a> {
    lockout: &'a Lockout,
    who: Who,
}

impl Lockout {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A password is about to be checked. Those under way count as wrong until it is known, so that many guesses at the
    /// same time get no further than one after the other.
    pub(crate) fn begin(&self, user: &str, source: Option<IpAddr>, rule: Rule, now_ms: u64) -> Result<Guess<'_>, Wait> {
        let who = (user.to_owned(), source);
        let mut table = self.table();
        let checking = table.checking.get(&who).copied().unwrap_or(0);
        if rule.failures != 0 {
            let (failures, left) = table.entries.get(&who).map_or((0, 0), |entry| {
                let left = rule.window_ms().saturating_sub(now_ms.saturating_sub(entry.last_ms));
                (if left > 0 { entry.failures } else { 0 }, left)
            });
            if failures >= rule.failures {
                return Err(Wait::Locked(left.div_ceil(1_000)));
            }
            if failures.saturating_add(checking) >= rule.failures {
                return Err(Wait::Busy);
            }
        }
        table.checking.insert(who.clone(), checking + 1);
        drop(table);
        Ok(Guess { lockout: self, who })
    }
}

impl Guess<'_> {
    /// It was wrong.
    pub(crate) fn wrong(self, rule: Rule, now_ms: u64) {
        let mut table = self.lockout.table();
        let before = table.entries.remove(&self.who);
        if let Some(entry) = before {
            table.by_time.remove(&(entry.last_ms, self.who.clone()));
        }
        let counts = |e: &Entry| now_ms.saturating_sub(e.last_ms) < rule.window_ms();
        let failures = before.filter(counts).map_or(0, |e| e.failures).saturating_add(1);
        table.entries.insert(self.who.clone(), Entry { failures, last_ms: now_ms });
        table.by_time.insert((now_ms, self.who.clone()));
        while table.entries.len() > MAX_ENTRIES {
            if let Some((_, oldest)) = table.by_time.pop_first() {
                table.entries.remove(&oldest);
            }
        }
    }

    /// It was right: the wrong ones before it are forgotten.
    pub(crate) fn right(self) {
        let mut table = self.lockout.table();
        if let Some(entry) = table.entries.remove(&self.who) {
            table.by_time.remove(&(entry.last_ms, self.who.clone()));
        }
    }
}

impl Drop for Guess<'_> {
    fn drop(&mut self) {
        let mut table = self.lockout.table();
        match table.checking.get_mut(&self.who) {
            Some(n) if *n > 1 => *n -= 1,
            _ => {
                table.checking.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { failures: 3, wait_s: 60 };

    fn from(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    fn wait(lockout: &Lockout, user: &str, source: u8, now_ms: u64) -> Option<Wait> {
        lockout.begin(user, from(source), RULE, now_ms).err()
    }

    fn fail(lockout: &Lockout, user: &str, now_ms: u64) {
        lockout.begin(user, from(1), RULE, now_ms).expect("may try").wrong(RULE, now_ms);
    }

    #[test]
    fn the_third_failure_makes_the_pair_wait_and_nobody_else() {
        let lockout = Lockout::default();
        for i in 0..3 {
            fail(&lockout, "ada", i);
        }
        assert_eq!(wait(&lockout, "ada", 1, 10), Some(Wait::Locked(60)));
        assert_eq!(wait(&lockout, "ada", 2, 10), None);
        assert_eq!(wait(&lockout, "bob", 1, 10), None);
        assert!(lockout.begin("ada", from(1), Rule { failures: 0, wait_s: 60 }, 10).is_ok());
        assert_eq!(wait(&lockout, "ada", 1, 60_001), Some(Wait::Locked(1)));
        assert_eq!(wait(&lockout, "ada", 1, 60_002), None);
        fail(&lockout, "ada", 70_000);
        assert_eq!(wait(&lockout, "ada", 1, 70_000), None, "counting starts anew");
    }

    #[test]
    fn guesses_at_the_same_time_are_no_way_around() {
        let lockout = Lockout::default();
        let guesses: Vec<_> = (0..3).map(|i| lockout.begin("ada", from(1), RULE, i).expect("may try")).collect();
        assert_eq!(wait(&lockout, "ada", 1, 3), Some(Wait::Busy), "not locked out: they may all be right");
        assert_eq!(wait(&lockout, "bob", 1, 3), None);
        drop(guesses);
        assert_eq!(wait(&lockout, "ada", 1, 4), None, "a check that could not be made counts for nothing");
        assert!(lockout.table().checking.is_empty());
    }

    #[test]
    fn the_right_password_forgets_the_wrong_ones() {
        let lockout = Lockout::default();
        fail(&lockout, "ada", 0);
        fail(&lockout, "ada", 1);
        lockout.begin("ada", from(1), RULE, 2).expect("may try").right();
        fail(&lockout, "ada", 3);
        assert_eq!(wait(&lockout, "ada", 1, 4), None);
    }

    #[test]
    fn the_table_is_bounded() {
        let lockout = Lockout::default();
        for i in 0..MAX_ENTRIES as u64 + 10 {
            fail(&lockout, &format!("u{i}"), i);
        }
        let table = lockout.table();
        assert_eq!((table.entries.len(), table.by_time.len()), (MAX_ENTRIES, MAX_ENTRIES));
        assert!(!table.entries.contains_key(&("u0".to_owned(), from(1))));
    }
}
