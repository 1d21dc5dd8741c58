//! Reports that wait for a controller to take them: bounded, and what falls out is counted.
//!
//! An outage may last for hours and end in the middle of a delivery. So a session's figures take one place however often
//! they change, the end of a session is the last thing to fall out (a lease hangs on it), and each report has an identity under
//! which the controllers take it once: the session with its state, the attempt with its id.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sallyport_proto::v1;

/// Sessions whose figures wait; more than a gateway carries.
const UPDATES: usize = 100_000;
/// Ends of sessions that wait.
const ENDS: usize = 100_000;
/// Attempts that wait: what clients can make many of.
const ATTEMPTS: usize = 10_000;

/// What goes up.
#[derive(Debug)]
pub enum Report {
    /// What became of a session.
    Session(v1::SessionReport),
    /// An attempt that ended here.
    Attempt(Box<v1::Attempt>),
}

/// What fell out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Comings up of sessions, or their figures.
    pub updates: u64,
    /// Ends of sessions.
    pub ends: u64,
    /// Attempts.
    pub attempts: u64,
}

impl Lost {
    /// All of it.
    pub const fn total(self) -> u64 {
        self.updates + self.ends + self.attempts
    }

    /// The rest of what `told` did not say yet.
    const fn since(self, told: Self) -> Self {
        Self {
            updates: self.updates - told.updates,
            ends: self.ends - told.ends,
            attempts: self.attempts - told.attempts,
        }
    }
}

/// Reports in the order in which they came.
#[derive(Debug)]
pub struct Held {
    /// Sessions that are up, by the order in which their waiting began.
    updates: BTreeMap<u64, v1::SessionReport>,
    update_of: BTreeMap<String, u64>,
    next: u64,
    ends: VecDeque<v1::SessionReport>,
    attempts: VecDeque<v1::Attempt>,
    limits: [usize; 3],
    lost: Lost,
    told: Lost,
}

impl Default for Held {
    fn default() -> Self {
        Self::bounded(UPDATES, ENDS, ATTEMPTS)
    }
}

impl Held {
    /// With room for so many sessions' figures, ends of sessions, and attempts.
    pub fn bounded(updates: usize, ends: usize, attempts: usize) -> Self {
        Self {
            updates: BTreeMap::new(),
            update_of: BTreeMap::new(),
            next: 0,
            ends: VecDeque::new(),
            attempts: VecDeque::new(),
            limits: [updates, ends, attempts],
            lost: Lost::default(),
            told: Lost::default(),
        }
    }

    /// Takes a report in; the oldest of its kind makes room.
    pub fn push(&mut self, report: Report) {
        match report {
            Report::Session(report) if report.state() == v1::SessionState::Up => self.push_update(report),
            Report::Session(report) => {
                if self.ends.len() >= self.limits[1] && self.ends.pop_front().is_some() {
                    self.lost.ends += 1;
                }
                self.ends.push_back(report);
            }
            Report::Attempt(attempt) => {
                if self.attempts.len() >= self.limits[2] && self.attempts.pop_front().is_some() {
                    self.lost.attempts += 1;
                }
                self.attempts.push_back(*attempt);
            }
        }
    }

    fn push_update(&mut self, report: v1::SessionReport) {
        // The newest says all that the earlier ones did.
        if let Some(waiting) = self.update_of.get(&report.session_id).and_then(|n| self.updates.get_mut(n)) {
            *waiting = report;
            return;
        }
        if self.updates.len() >= self.limits[0]
            && let Some((_, oldest)) = self.updates.pop_first()
        {
            self.update_of.remove(&oldest.session_id);
            self.lost.updates += 1;
        }
        self.update_of.insert(report.session_id.clone(), self.next);
        self.updates.insert(self.next, report);
        self.next += 1;
    }

    /// The next sessions to report, at most `count`, each once: that one is up goes before that it ended.
    pub fn take_sessions(&mut self, count: usize) -> Vec<v1::SessionReport> {
        let (mut taken, mut named) = (Vec::new(), BTreeSet::new());
        // Half of the places are for ends, if there are any: figures never end.
        let places = if self.ends.is_empty() { count } else { count.div_ceil(2) };
        while taken.len() < places
            && let Some((_, report)) = self.updates.pop_first()
        {
            self.update_of.remove(&report.session_id);
            named.insert(report.session_id.clone());
            taken.push(report);
        }
        while taken.len() < count
            && self.ends.front().is_some_and(|end| {
                !self.update_of.contains_key(&end.session_id) && named.insert(end.session_id.clone())
            })
        {
            taken.extend(self.ends.pop_front());
        }
        taken
    }

    /// The next attempts to report, at most `count`.
    pub fn take_attempts(&mut self, count: usize) -> Vec<v1::Attempt> {
        self.attempts.drain(..count.min(self.attempts.len())).collect()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.updates.is_empty() && self.ends.is_empty() && self.attempts.is_empty()
    }

    /// Reports that wait.
    pub fn len(&self) -> usize {
        self.updates.len() + self.ends.len() + self.attempts.len()
    }

    /// What fell out in all.
    pub const fn lost(&self) -> Lost {
        self.lost
    }

    /// Counts reports that the controllers would not have.
    pub const fn note_refused(&mut self, sessions: u64, attempts: u64) {
        self.lost.ends += sessions;
        self.lost.attempts += attempts;
    }

    /// What fell out since this was asked last, for the audit.
    pub fn take_lost(&mut self) -> Option<Lost> {
        let new = self.lost.since(self.told);
        self.told = self.lost;
        (new.total() > 0).then_some(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(id: u64, state: v1::SessionState, bytes: u64) -> Report {
        Report::Session(v1::SessionReport {
            session_id: format!("{id:016x}"),
            state: state.into(),
            counters: Some(v1::Counters { rx_bytes: bytes, ..v1::Counters::default() }),
            ..v1::SessionReport::default()
        })
    }

    fn attempt(id: u8) -> Report {
        Report::Attempt(Box::new(v1::Attempt { id: vec![id; 16], ..v1::Attempt::default() }))
    }

    use v1::SessionState::{Down, Up};

    #[test]
    fn figures_of_a_session_take_one_place_for_the_whole_of_an_outage() {
        let mut held = Held::bounded(2, 2, 2);
        for bytes in 0..10_000 {
            held.push(session(1, Up, bytes));
            held.push(session(2, Up, bytes));
        }
        assert_eq!((held.len(), held.lost().total()), (2, 0));
        let taken = held.take_sessions(500);
        let figures: Vec<u64> = taken.iter().filter_map(|r| Some(r.counters?.rx_bytes)).collect();
        assert_eq!(figures, [9_999, 9_999]);
        assert!(held.is_empty());
    }

    #[test]
    fn a_session_that_came_and_went_is_reported_as_both_in_this_order_and_never_twice_in_a_call() {
        let mut held = Held::default();
        held.push(session(1, Up, 0));
        held.push(session(1, Down, 7));
        held.push(session(2, Up, 0));
        let states = |reports: Vec<v1::SessionReport>| reports.iter().map(|r| r.state()).collect::<Vec<_>>();
        assert_eq!(states(held.take_sessions(500)), [Up, Up]);
        assert_eq!(states(held.take_sessions(500)), [Down]);
        assert!(held.take_sessions(500).is_empty());
    }

    #[test]
    fn figures_without_end_do_not_hold_up_the_end_of_a_session() {
        let mut held = Held::default();
        held.push(session(1, Down, 7));
        for n in 2..1_000 {
            held.push(session(n, Up, 0));
        }
        assert_eq!(held.take_sessions(10).iter().filter(|r| r.state() == Down).count(), 1);
    }

    #[test]
    fn the_oldest_fall_out_are_counted_by_kind_and_told_once() {
        let mut held = Held::bounded(1, 2, 3);
        for n in 0..5 {
            held.push(session(n, Up, 0));
            held.push(session(n, Down, 0));
            held.push(attempt(u8::try_from(n).unwrap()));
        }
        let lost = Lost { updates: 4, ends: 3, attempts: 2 };
        assert_eq!((held.lost(), held.take_lost(), held.take_lost()), (lost, Some(lost), None));
        let ids: Vec<u8> = held.take_attempts(500).iter().map(|a| a.id[0]).collect();
        assert_eq!(ids, [2, 3, 4]);
        held.note_refused(1, 0);
        assert_eq!(held.take_lost(), Some(Lost { ends: 1, ..Lost::default() }));
    }

    #[test]
    fn a_flood_of_attempts_takes_no_place_from_the_ends_of_sessions() {
        let mut held = Held::bounded(1, 1, 1);
        held.push(session(1, Down, 0));
        for n in 0..100 {
            held.push(attempt(n));
        }
        assert_eq!((held.lost().ends, held.lost().attempts), (0, 99));
        assert_eq!(held.take_sessions(10).len(), 1);
    }
}
