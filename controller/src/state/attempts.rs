//! The audit: a ring of attempts.

use sallyport_proto::v1;

use super::State;

impl State {
    /// Stores a record, unless one of the same gateway and id is there.
    pub(super) fn record_attempt(&mut self, attempt: v1::Attempt) {
        if !self.index.attempt_ids.insert((attempt.gateway.clone(), attempt.id.clone())) {
            return;
        }
        let mut number = 0;
        self.change_core(|core| {
            number = core.next_attempt;
            core.next_attempt += 1;
        });
        self.attempts.insert(number, attempt);
        self.trim_attempts();
    }

    pub(super) fn trim_attempts(&mut self) {
        let keep = self.core_row().and_then(|c| c.settings.as_ref()).map_or(10_000, |s| s.audit_keep) as usize;
        while self.attempts.len() > keep {
            if let Some((_, old)) = self.attempts.pop_first() {
                self.index.attempt_ids.remove(&(old.gateway, old.id));
            }
        }
    }
}
