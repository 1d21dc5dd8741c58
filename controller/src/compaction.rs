//! The leader's look through all certificates for those that ended long ago: what it finds makes room by an entry of the log.

use std::ops::Bound;

use crate::app::Core;
use crate::raft::ProposeError;
use crate::state::{Action, COMPACTION_LEVEL, CompactCertificates, MAX_COMPACTED, State};

/// From one look at all of them to the next. Milliseconds.
const EVERY_MS: u64 = 3_600_000;
/// Records that are looked at in one step; a step is made each second.
const AT_A_TIME: usize = 2_000;

/// How far a look is.
#[derive(Debug, Default)]
pub(crate) struct Look {
    /// The last serial number that was looked at, while there are more.
    at: Option<String>,
    found: Vec<String>,
    /// When the next one begins, monotonic milliseconds.
    next_ms: u64,
}

impl Look {
    /// The next step; gives the certificates for which an entry is due.
    fn step(&mut self, state: &State, now_ms: u64) -> Vec<String> {
        if state.level() < COMPACTION_LEVEL || (self.at.is_none() && now_ms < self.next_ms) {
            return Vec::new();
        }
        let from = self.at.take().map_or(Bound::Unbounded, Bound::Excluded);
        let (mut seen, mut last) = (0, None);
        for (serial, row) in state.certificates.range((from, Bound::Unbounded)).take(AT_A_TIME) {
            (seen, last) = (seen + 1, Some(serial));
            if state.may_be_compacted(row) {
                self.found.push(serial.clone());
            }
            if self.found.len() == MAX_COMPACTED {
                break;
            }
        }
        let more = seen == AT_A_TIME || self.found.len() == MAX_COMPACTED;
        match last.filter(|_| more) {
            Some(last) => self.at = Some(last.clone()),
            None => self.next_ms = now_ms.saturating_add(EVERY_MS),
        }
        // A few at a time would be as many entries as steps.
        if self.at.is_none() || self.found.len() == MAX_COMPACTED {
            return std::mem::take(&mut self.found);
        }
        Vec::new()
    }
}

/// Makes a step. What could not be proposed is found again by the next look.
pub(crate) async fn sweep(core: &Core, look: &mut Look) -> Result<(), ProposeError> {
    let serials = look.step(&core.node.shared().read(), core.clock.monotonic_ms());
    if serials.is_empty() {
        return Ok(());
    }
    tracing::info!(count = serials.len(), "certificates that ended long ago are kept in a smaller form");
    core.propose_here(Action::CompactCertificates(CompactCertificates { serials })).await.map(drop)
}

#[cfg(test)]
mod tests {
    use sallyport_proto::v1;

    use super::*;
    use crate::state::{Bootstrap, CertificateRow, Command, DescribeMember, KEPT_MS, RaiseLevel, RecordCertificate};

    fn apply(state: &mut State, at_ms: u64, action: Action) {
        state.apply(&Command { request_id: Vec::new(), at_ms, action: Some(action) });
    }

    fn record(n: u64, profile: v1::CertificateProfile, not_after_ms: u64) -> CertificateRow {
        let (serial, profile, name) = (format!("01{n:032x}"), profile.into(), format!("laptop{n}.example.com"));
        CertificateRow { serial, profile, name, not_after_ms, ..CertificateRow::default() }
    }

    fn state(level: u32, ended: u64, live: u64) -> State {
        // Before there are rules for what operators have issued.
        let before = COMPACTION_LEVEL - 1;
        let mut state = State::new();
        let member = |level| DescribeMember { id: 1, address: "1:1".into(), level, ..DescribeMember::default() };
        let bootstrap = Bootstrap {
            cluster_id: vec![1; 16],
            root_certificate: vec![2],
            sealed_root_key: vec![3],
            record: Some(record(u64::MAX, v1::CertificateProfile::Root, 5)),
            member: Some(member(before)),
        };
        apply(&mut state, 1, Action::Bootstrap(bootstrap));
        for n in 0..ended + live {
            let record = record(n, v1::CertificateProfile::User, if n < ended { 10 } else { u64::MAX });
            apply(
                &mut state,
                2,
                Action::RecordCertificate(RecordCertificate { record: Some(record), answer: Vec::new() }),
            );
        }
        apply(&mut state, 3, Action::DescribeMember(member(level)));
        apply(&mut state, 3, Action::RaiseLevel(RaiseLevel { level, since: "0.1.0".into() }));
        assert_eq!(state.level(), level);
        state
    }

    /// Steps until a look is over; gives the entries that it makes.
    fn whole(look: &mut Look, state: &mut State, now_ms: u64) -> Vec<usize> {
        let mut entries = Vec::new();
        for _ in 0..100 {
            let serials = look.step(state, now_ms);
            if !serials.is_empty() {
                entries.push(serials.len());
                apply(state, 0, Action::CompactCertificates(CompactCertificates { serials }));
            }
            if look.at.is_none() {
                return entries;
            }
        }
        panic!("it does not end");
    }

    #[test]
    fn what_ended_long_ago_is_found_in_few_entries_and_once_an_hour() {
        let mut state = state(COMPACTION_LEVEL, 1_500, 3_000);
        let mut look = Look::default();
        apply(&mut state, 10 + KEPT_MS - 1, Action::ClearPsk(crate::state::ClearPsk {}));
        assert_eq!(whole(&mut look, &mut state, 0), Vec::<usize>::new(), "not yet");
        apply(&mut state, 10 + KEPT_MS, Action::ClearPsk(crate::state::ClearPsk {}));
        assert_eq!(whole(&mut look, &mut state, EVERY_MS - 1), Vec::<usize>::new());
        assert_eq!(whole(&mut look, &mut state, EVERY_MS), [1_000, 500]);
        assert_eq!((state.certificates.len(), state.ended.len()), (3_001, 1_500), "the root stays");
        assert_eq!(whole(&mut look, &mut state, 2 * EVERY_MS), Vec::<usize>::new());
    }

    #[test]
    fn below_its_level_nothing_is_looked_for() {
        let mut state = state(COMPACTION_LEVEL - 1, 3, 0);
        apply(&mut state, 10 + KEPT_MS, Action::ClearPsk(crate::state::ClearPsk {}));
        assert_eq!(whole(&mut Look::default(), &mut state, 0), Vec::<usize>::new());
    }
}
