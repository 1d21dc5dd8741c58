//! Attempts, for people: a ring (what is kept for ever is in `ledger`). Comings and goings may fill half of it at most, so that they do not push out what went
//! wrong; and so may any one gateway, so that it does not push out what the others saw.

use std::collections::BTreeSet;

use sallyport_proto::v1;

use super::{Index, LEDGER_LEVEL, State};

/// Records that keep their evidence, two signed heads and a proof of up to 8 KiB, and those of them that one gateway sent.
const MAX_EVIDENCE: usize = 256;
const MAX_EVIDENCE_OF_GATEWAY: usize = 4;

impl Index {
    pub(super) fn note_evidence(&mut self, number: u64, attempt: &v1::Attempt) {
        if !attempt.evidence.is_empty() {
            self.evidence.insert(number);
            self.evidence_of_gateway.insert((attempt.gateway.clone(), number));
        }
    }

    fn drop_evidence(&mut self, number: u64, attempt: &v1::Attempt) {
        if self.evidence.remove(&number) {
            self.evidence_of_gateway.remove(&(attempt.gateway.clone(), number));
        }
    }
}

impl State {
    /// Stores a record, unless one of the same gateway and id is there.
    pub(super) fn record_attempt(&mut self, mut attempt: v1::Attempt) {
        if attempt.phase() != v1::Phase::AuditLog || self.level() < LEDGER_LEVEL {
            attempt.evidence.clear();
        }
        let name = (attempt.gateway.clone(), attempt.id.clone());
        if self.index.attempt_ids.contains_key(&name) {
            return;
        }
        let mut number = 0;
        self.change_core(|core| {
            number = core.next_attempt;
            core.next_attempt += 1;
        });
        self.index.attempt_ids.insert(name, number);
        if is_quiet(&attempt) {
            self.index.quiet_attempts.insert(number);
        }
        self.index.attempts_of_gateway.entry(attempt.gateway.clone()).or_default().insert(number);
        self.index.note_evidence(number, &attempt);
        let (gateway, evident) = (attempt.gateway.clone(), !attempt.evidence.is_empty());
        self.attempts.insert(number, attempt);
        if evident {
            self.trim_evidence(&gateway);
        }
        self.trim_attempts();
    }

    /// Takes the evidence out of the oldest records where there is too much of it, of this gateway or of all; what they say stays.
    fn trim_evidence(&mut self, gateway: &str) {
        loop {
            let of_gateway = (gateway.to_owned(), 0)..=(gateway.to_owned(), u64::MAX);
            let own = self.index.evidence_of_gateway.range(of_gateway);
            let too_many = own.clone().count() > MAX_EVIDENCE_OF_GATEWAY;
            let oldest = match (too_many, self.index.evidence.len() > MAX_EVIDENCE) {
                (true, _) => own.map(|(_, number)| *number).next(),
                (false, true) => self.index.evidence.first().copied(),
                (false, false) => None,
            };
            let Some(number) = oldest else { return };
            let Some(attempt) = self.attempts.change(&number) else { return };
            self.index.drop_evidence(number, attempt);
            attempt.evidence = Vec::new();
        }
    }

    /// What a gateway's attempt with this id came to, while the audit still has it.
    pub fn attempt(&self, gateway: &str, id: &[u8]) -> Option<&v1::Attempt> {
        self.attempts.get(self.index.attempt_ids.get(&(gateway.to_owned(), id.to_vec()))?)
    }

    pub(super) fn trim_attempts(&mut self) {
        let keep = self.core_row().and_then(|c| c.settings.as_ref()).map_or(10_000, |s| s.audit_keep) as usize;
        while self.attempts.len() > keep {
            let too_many = |numbers: &&BTreeSet<u64>| numbers.len() > (keep / 2).max(1);
            let quiet = Some(&self.index.quiet_attempts).filter(too_many);
            // Whose record came last is the only one who can have come to have too many.
            let newest = self.attempts.iter().next_back().map(|(_, attempt)| &attempt.gateway);
            let talker = newest.and_then(|name| self.index.attempts_of_gateway.get(name)).filter(too_many);
            let oldest = quiet.or(talker).and_then(|numbers| numbers.first().copied());
            let gone = match oldest {
                Some(number) => self.attempts.remove(&number).map(|old| (number, old)),
                None => self.attempts.pop_first(),
            };
            let Some((number, old)) = gone else { return };
            self.index.quiet_attempts.remove(&number);
            self.index.drop_evidence(number, &old);
            if let Some(numbers) = self.index.attempts_of_gateway.get_mut(&old.gateway) {
                numbers.remove(&number);
                if numbers.is_empty() {
                    self.index.attempts_of_gateway.remove(&old.gateway);
                }
            }
            self.index.attempt_ids.remove(&(old.gateway, old.id));
        }
    }
}

/// Whether a record says that all went as it should.
pub(super) fn is_quiet(attempt: &v1::Attempt) -> bool {
    matches!(attempt.outcome(), v1::Outcome::Accepted | v1::Outcome::Ended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::Bench;
    use crate::state::{Action, RecordAttempts};

    fn attempt(gateway: &str, n: u16, phase: v1::Phase) -> v1::Attempt {
        let id = [&n.to_be_bytes()[..], &[0; 14]].concat();
        let (gateway, phase, evidence) = (gateway.into(), phase.into(), vec![1; 100]);
        v1::Attempt { id, gateway, phase, evidence, outcome: v1::Outcome::Refused.into(), ..v1::Attempt::default() }
    }

    fn record(attempts: Vec<v1::Attempt>) -> Action {
        Action::RecordAttempts(RecordAttempts { attempts, ..RecordAttempts::default() })
    }

    fn evident(state: &State, gateway: &str) -> usize {
        let of = state.attempts.iter().filter(|(_, a)| gateway.is_empty() || a.gateway == gateway);
        of.filter(|(_, a)| !a.evidence.is_empty()).count()
    }

    #[test]
    fn evidence_is_of_the_audit_log_and_of_its_level() {
        let with = record(vec![attempt("gw1", 1, v1::Phase::AuditLog)]);
        assert_eq!(with.level(), LEDGER_LEVEL);
        let mut bench = Bench::empty();
        bench.raise(LEDGER_LEVEL - 1);
        bench.done(with);
        bench.raise(LEDGER_LEVEL);
        bench.done(record(vec![attempt("gw1", 2, v1::Phase::IkeMainMode)]));
        assert_eq!((evident(&bench.state, ""), bench.state.attempts.len()), (0, 2));
        bench.done(record(vec![attempt("gw1", 3, v1::Phase::AuditLog)]));
        assert_eq!(evident(&bench.state, ""), 1);
    }

    #[test]
    fn how_much_evidence_is_kept_is_bounded_for_a_gateway_and_for_all() {
        let mut bench = Bench::empty();
        bench.raise(LEDGER_LEVEL);
        bench.done(record((0..20).map(|n| attempt("gw1", n, v1::Phase::AuditLog)).collect()));
        assert_eq!((evident(&bench.state, "gw1"), bench.state.attempts.len()), (MAX_EVIDENCE_OF_GATEWAY, 20));
        let newest = bench.state.attempts.iter().next_back().expect("there").1;
        assert!(!newest.evidence.is_empty(), "the oldest went");
        for n in 0..300 {
            bench.done(record(vec![attempt(&format!("gw{n}x"), n, v1::Phase::AuditLog)]));
        }
        assert_eq!((evident(&bench.state, ""), bench.state.attempts.len()), (MAX_EVIDENCE, 320));
        let mut loaded = State::from_rows(bench.state.rows()).expect("loads");
        for state in [&mut loaded, &mut bench.state] {
            state.record_attempt(attempt("other", 999, v1::Phase::AuditLog));
        }
        assert_eq!(loaded.rows(), bench.state.rows());
    }
}
