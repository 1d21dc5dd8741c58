//! Slowing down guesses: wrong passwords of one user from one address, and of one user through one gateway, are counted in the
//! log (`state/lockouts.rs`), and beyond a number that pair must wait.
//!
//! Here are those whose check is under way at the leader: until the log has counted them, they count as wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::state::Guesser;

/// Whose wrong passwords count together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pair {
    /// A user and an address.
    From(Guesser),
    /// A user and the gateway that asks.
    Through {
        /// Its name.
        gateway: String,
        /// Folded name of the user.
        user: String,
    },
}

/// A pair, and how many of its passwords may be wrong; 0 is any number.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    /// Whose.
    pub(crate) pair: Pair,
    /// How many.
    pub(crate) limit: u32,
}

#[derive(Debug, Default)]
struct Table {
    /// Passwords that are being checked.
    checking: BTreeMap<Pair, u32>,
    /// Questions they are given in.
    questions: BTreeSet<[u8; 16]>,
}

/// Why a password is not checked now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Too many were wrong: of whom, how many are too many, and whole seconds that are left.
    Locked(Pair, u32, u64),
    /// Too many are being checked at this moment to know whether one more is too many.
    Busy,
}

/// The checks under way. Bounded by the calls under way.
#[derive(Debug, Default)]
pub(crate) struct Lockout(Mutex<Table>);

/// A password that is being checked, and counts as wrong until this is dropped: after the log has counted it, or when it
/// was right.
#[derive(Debug)]
pub(crate) struct Guess<'a> {
    lockout: &'a Lockout,
    pairs: Vec<Pair>,
    question: [u8; 16],
}

impl Lockout {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A password is about to be checked, in a question with this id. `counted` says how many of a pair's were wrong, and for
    /// how many milliseconds more they count. Those under way count as wrong, so that many guesses at the same time get no
    /// further than one after the other.
    pub(crate) fn begin(
        &self,
        bounds: Vec<Bound>,
        question: [u8; 16],
        counted: impl Fn(&Pair) -> (u32, u64),
    ) -> Result<Guess<'_>, Wait> {
        let mut table = self.table();
        let mut busy = false;
        for Bound { pair, limit } in bounds.iter().filter(|bound| bound.limit != 0) {
            let checking = table.checking.get(pair).copied().unwrap_or(0);
            // Asked while the table is held: a guess that ends meanwhile is found here or there.
            let (failures, left_ms) = counted(pair);
            if failures >= *limit {
                return Err(Wait::Locked(pair.clone(), *limit, left_ms.div_ceil(1_000)));
            }
            busy |= failures.saturating_add(checking) >= *limit;
        }
        // The log counts a question once, so it may hold one password only.
        if busy || !table.questions.insert(question) {
            return Err(Wait::Busy);
        }
        let pairs: Vec<Pair> = bounds.into_iter().map(|bound| bound.pair).collect();
        for pair in &pairs {
            *table.checking.entry(pair.clone()).or_default() += 1;
        }
        drop(table);
        Ok(Guess { lockout: self, pairs, question })
    }
}

impl Drop for Guess<'_> {
    fn drop(&mut self) {
        let mut table = self.lockout.table();
        table.questions.remove(&self.question);
        for pair in &self.pairs {
            match table.checking.get_mut(pair) {
                Some(n) if *n > 1 => *n -= 1,
                _ => {
                    table.checking.remove(pair);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(user: &str, source: Option<[u8; 4]>, limit: u32) -> Vec<Bound> {
        vec![Bound { pair: Pair::From(Guesser::new(user, source.map(Into::into))), limit }]
    }

    fn ada(limit: u32) -> Vec<Bound> {
        from("ada", Some([192, 0, 2, 1]), limit)
    }

    #[test]
    fn guesses_at_the_same_time_are_no_way_around() {
        let lockout = Lockout::default();
        let guesses: Vec<_> = (0..2).map(|i| lockout.begin(ada(3), [i; 16], |_| (1, 9)).expect("may try")).collect();
        let third = lockout.begin(ada(3), [9; 16], |_| (1, 9)).err();
        assert_eq!(third, Some(Wait::Busy), "not locked out: they may all be right");
        assert!(lockout.begin(from("bob", None, 3), [9; 16], |_| (0, 0)).is_ok());
        assert!(lockout.begin(from("ada", None, 3), [9; 16], |_| (0, 0)).is_ok());
        assert!(lockout.begin(ada(0), [9; 16], |_| (99, 9)).is_ok(), "no limit");
        drop(guesses);
        assert!(lockout.begin(ada(3), [9; 16], |_| (2, 9)).is_ok());
        let locked = lockout.begin(ada(3), [9; 16], |_| (3, 59_001)).err();
        assert!(matches!(locked, Some(Wait::Locked(Pair::From(_), 3, 60))), "{locked:?}");
        let table = lockout.table();
        assert!(table.checking.is_empty() && table.questions.is_empty());
    }

    #[test]
    fn one_question_holds_one_password() {
        let lockout = Lockout::default();
        let first = lockout.begin(ada(3), [1; 16], |_| (0, 0)).expect("may try");
        assert_eq!(lockout.begin(ada(3), [1; 16], |_| (0, 0)).err(), Some(Wait::Busy));
        drop(first);
        assert!(lockout.begin(ada(3), [1; 16], |_| (0, 0)).is_ok());
    }

    #[test]
    fn guesses_from_everywhere_count_for_their_gateway() {
        let lockout = Lockout::default();
        let through = |last: u8| {
            let pair = Pair::Through { gateway: "gw1".into(), user: "ada".into() };
            [from("ada", Some([192, 0, 2, last]), 3), vec![Bound { pair, limit: 5 }]].concat()
        };
        let guesses: Vec<_> =
            (0..5).map(|i| lockout.begin(through(i), [i; 16], |_| (0, 0)).expect("may try")).collect();
        assert_eq!(lockout.begin(through(9), [9; 16], |_| (0, 0)).err(), Some(Wait::Busy));
        drop(guesses);
        let counted = |pair: &Pair| if matches!(pair, Pair::Through { .. }) { (5, 1_000) } else { (0, 0) };
        let locked = lockout.begin(through(9), [9; 16], counted).err();
        assert!(matches!(locked, Some(Wait::Locked(Pair::Through { .. }, 5, 1))), "{locked:?}");
    }
}
