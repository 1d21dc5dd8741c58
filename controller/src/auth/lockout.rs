//! Slowing down guesses: wrong passwords of one user from one address are counted, and beyond a number both must wait.
//!
//! Soft state of the leader: a new leader starts counting anew. The key holds the address, so that a stranger cannot lock
//! a user out from elsewhere; behind one NAT, people share an address but not a user name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

/// Most pairs remembered; the one that failed longest ago is forgotten first.
const MAX_ENTRIES: usize = 65_536;

type Who = (String, Option<IpAddr>);

#[derive(Debug, Default)]
struct Table {
    entries: BTreeMap<Who, Entry>,
    by_time: BTreeSet<(u64, Who)>,
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

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct Lockout(Mutex<Table>);

impl Lockout {
    /// Whole seconds that this pair must still wait; `None` when it need not.
    pub(crate) fn wait_s(&self, user: &str, source: Option<IpAddr>, rule: Rule, now_ms: u64) -> Option<u64> {
        if rule.failures == 0 {
            return None;
        }
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = table.entries.get(&(user.to_owned(), source))?;
        let left = (u64::from(rule.wait_s) * 1_000).saturating_sub(now_ms.saturating_sub(entry.last_ms));
        (entry.failures >= rule.failures && left > 0).then(|| left.div_ceil(1_000))
    }

    /// A wrong password.
    pub(crate) fn failed(&self, user: &str, source: Option<IpAddr>, rule: Rule, now_ms: u64) {
        let who = (user.to_owned(), source);
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = table.entries.remove(&who);
        if let Some(entry) = before {
            table.by_time.remove(&(entry.last_ms, who.clone()));
        }
        let window_ms = u64::from(rule.wait_s) * 1_000;
        let counted = before.filter(|e| now_ms.saturating_sub(e.last_ms) < window_ms).map_or(0, |e| e.failures);
        let entry = Entry { failures: counted.saturating_add(1), last_ms: now_ms };
        table.entries.insert(who.clone(), entry);
        table.by_time.insert((now_ms, who));
        while table.entries.len() > MAX_ENTRIES {
            if let Some((_, oldest)) = table.by_time.pop_first() {
                table.entries.remove(&oldest);
            }
        }
    }

    /// The right password.
    pub(crate) fn succeeded(&self, user: &str, source: Option<IpAddr>) {
        let who = (user.to_owned(), source);
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = table.entries.remove(&who) {
            table.by_time.remove(&(entry.last_ms, who));
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

    #[test]
    fn the_third_failure_makes_the_pair_wait_and_nobody_else() {
        let lockout = Lockout::default();
        for i in 0..3 {
            assert_eq!(lockout.wait_s("ada", from(1), RULE, i), None);
            lockout.failed("ada", from(1), RULE, i);
        }
        assert_eq!(lockout.wait_s("ada", from(1), RULE, 10), Some(60));
        assert_eq!(lockout.wait_s("ada", from(2), RULE, 10), None);
        assert_eq!(lockout.wait_s("bob", from(1), RULE, 10), None);
        assert_eq!(lockout.wait_s("ada", from(1), Rule { failures: 0, wait_s: 60 }, 10), None);
        assert_eq!(lockout.wait_s("ada", from(1), RULE, 60_001), Some(1));
        assert_eq!(lockout.wait_s("ada", from(1), RULE, 60_002), None);
        lockout.failed("ada", from(1), RULE, 70_000);
        assert_eq!(lockout.wait_s("ada", from(1), RULE, 70_000), None, "counting starts anew");
    }

    #[test]
    fn the_right_password_forgets_the_wrong_ones() {
        let lockout = Lockout::default();
        for i in 0..2 {
            lockout.failed("ada", from(1), RULE, i);
        }
        lockout.succeeded("ada", from(1));
        lockout.failed("ada", from(1), RULE, 3);
        assert_eq!(lockout.wait_s("ada", from(1), RULE, 4), None);
    }

    #[test]
    fn the_table_is_bounded() {
        let lockout = Lockout::default();
        for i in 0..MAX_ENTRIES as u64 + 10 {
            lockout.failed(&format!("u{i}"), None, RULE, i);
        }
        let table = lockout.0.lock().expect("not poisoned");
        assert_eq!((table.entries.len(), table.by_time.len()), (MAX_ENTRIES, MAX_ENTRIES));
        assert!(!table.entries.contains_key(&("u0".to_owned(), None)));
    }
}
