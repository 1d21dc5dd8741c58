//! Attempts, for people: a ring (what is kept for ever is in `ledger`). Comings and goings may fill half of it at most, so that they do not push out what went
//! wrong; and so may any one gateway, so that it does not push out what the others saw.

use std::collections::BTreeSet;

use sallyport_proto::v1;

use super::State;

impl State {
    /// Stores a record, unless one of the same gateway and id is there.
    pub(super) fn record_attempt(&mut self, attempt: v1::Attempt) {
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
        self.attempts.insert(number, attempt);
        self.trim_attempts();
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
