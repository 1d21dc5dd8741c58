//! Slowing down guesses: wrong passwords of one user from one address are counted in the log (`state/lockouts.rs`), and beyond a
//! number that pair must wait.
//!
//! Here are those whose check is under way at the leader: until the log has counted them, they count as wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::state::Guesser;

#[derive(Debug, Default)]
struct Table {
    /// Passwords that are being checked.
    checking: BTreeMap<Guesser, u32>,
    /// Questions they are given in.
    questions: BTreeSet<[u8; 16]>,
}

/// Why a password is not checked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Too many were wrong: whole seconds that are left.
    Locked(u64),
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
    who: Guesser,
    question: [u8; 16],
}

impl Lockout {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A password is about to be checked, in a question with this id. `limit` is how many may be wrong, 0 is any number;
    /// `counted` says how many were, and for how many milliseconds more they count. Those under way count as wrong, so that
    /// many guesses at the same time get no further than one after the other.
    pub(crate) fn begin(
        &self,
        who: Guesser,
        question: [u8; 16],
        limit: u32,
        counted: impl FnOnce(&Guesser) -> (u32, u64),
    ) -> Result<Guess<'_>, Wait> {
        let mut table = self.table();
        let checking = table.checking.get(&who).copied().unwrap_or(0);
        if limit != 0 {
            // Asked while the table is held: a guess that ends meanwhile is found here or there.
            let (failures, left_ms) = counted(&who);
            if failures >= limit {
                return Err(Wait::Locked(left_ms.div_ceil(1_000)));
            }
            if failures.saturating_add(checking) >= limit {
                return Err(Wait::Busy);
            }
        }
        // The log counts a question once, so it may hold one password only.
        if !table.questions.insert(question) {
            return Err(Wait::Busy);
        }
        table.checking.insert(who.clone(), checking + 1);
        drop(table);
        Ok(Guess { lockout: self, who, question })
    }
}

impl Guess<'_> {
    /// Who gave it.
    pub(crate) const fn who(&self) -> &Guesser {
        &self.who
    }
}

impl Drop for Guess<'_> {
    fn drop(&mut self) {
        let mut table = self.lockout.table();
        table.questions.remove(&self.question);
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

    fn ada() -> Guesser {
        Guesser::new("ada", Some([192, 0, 2, 1].into()))
    }

    #[test]
    fn guesses_at_the_same_time_are_no_way_around() {
        let lockout = Lockout::default();
        let guesses: Vec<_> = (0..2).map(|i| lockout.begin(ada(), [i; 16], 3, |_| (1, 9)).expect("may try")).collect();
        let third = lockout.begin(ada(), [9; 16], 3, |_| (1, 9)).err();
        assert_eq!(third, Some(Wait::Busy), "not locked out: they may all be right");
        assert!(lockout.begin(Guesser::new("bob", None), [9; 16], 3, |_| (0, 0)).is_ok());
        assert!(lockout.begin(Guesser::new("ada", None), [9; 16], 3, |_| (0, 0)).is_ok());
        assert!(lockout.begin(ada(), [9; 16], 0, |_| (99, 9)).is_ok(), "no limit");
        drop(guesses);
        assert!(lockout.begin(ada(), [9; 16], 3, |_| (2, 9)).is_ok());
        assert_eq!(lockout.begin(ada(), [9; 16], 3, |_| (3, 59_001)).err(), Some(Wait::Locked(60)));
        let table = lockout.table();
        assert!(table.checking.is_empty() && table.questions.is_empty());
    }

    #[test]
    fn one_question_holds_one_password() {
        let lockout = Lockout::default();
        let first = lockout.begin(ada(), [1; 16], 3, |_| (0, 0)).expect("may try");
        assert_eq!(lockout.begin(ada(), [1; 16], 3, |_| (0, 0)).err(), Some(Wait::Busy));
        drop(first);
        assert!(lockout.begin(ada(), [1; 16], 3, |_| (0, 0)).is_ok());
    }
}
