//! What delta lists (RFC 5280 §5.2.4) start from, an option: the complete list at the begin of a span, and what was the last change by
//! then. What has changed since is found by number, in the order of all that happens to certificates. Since level 8.

use super::{CertificateRow, CoreRow, State};

/// The level from which on there are delta lists (see `software`).
pub(crate) const DELTAS_LEVEL: u32 = 8;
/// Complete lists are made anew at the begin of each such span of the log's time, and are good for two. Milliseconds.
pub(crate) const LISTS_SPAN_MS: u64 = 24 * 3_600 * 1_000;
/// Marks that are kept: of the present span, the one before, and the begin.
const MAX_MARKS: usize = 3;

/// While delta lists are made: what they can start from.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeltasRow {
    /// Since when they are made, log's time. Complete lists of before do not say where they are.
    #[prost(uint64, tag = "1")]
    pub since_ms: u64,
    /// In the order of time: the begin, and each span in which something changed.
    #[prost(message, repeated, tag = "2")]
    pub marks: Vec<ListsMark>,
}

/// What complete lists said at a time.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ListsMark {
    /// When, log's time.
    #[prost(uint64, tag = "1")]
    pub at_ms: u64,
    /// Number of the last change of lists by then.
    #[prost(uint64, tag = "2")]
    pub change: u64,
}

/// The complete list that a delta list starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeltaBase {
    /// When it was made.
    pub(crate) at_ms: u64,
    /// The last change that it says.
    pub(crate) change: u64,
}

impl State {
    fn deltas(&self) -> Option<&DeltasRow> {
        self.core_row().and_then(|core| core.deltas.as_ref())
    }

    /// The lists that delta lists may start from by now, the earliest first; none while there are no delta lists. Each complete list that
    /// is good is one of these or later.
    pub(crate) fn delta_bases(&self) -> Vec<DeltaBase> {
        let Some(row) = self.deltas() else { return Vec::new() };
        let span_ms = self.now_ms() / LISTS_SPAN_MS * LISTS_SPAN_MS;
        let base = |begin_ms: u64| {
            let at_ms = begin_ms.max(row.since_ms);
            // Nothing changed between that time and the mark: the change would have left one.
            let mark = row.marks.iter().find(|mark| mark.at_ms >= at_ms);
            DeltaBase { at_ms, change: mark.map_or_else(|| self.lists_change().number, |mark| mark.change) }
        };
        let mut bases = vec![base(span_ms.saturating_sub(LISTS_SPAN_MS)), base(span_ms)];
        bases.dedup();
        bases
    }

    /// What an authority's lists say otherwise than after a change: what is revoked since and has not ended by a time, and what may be
    /// on them and is not revoked.
    pub(crate) fn changes_of(
        &self,
        issuer: u64,
        change: u64,
        at_ms: u64,
    ) -> (Vec<&CertificateRow>, Vec<&CertificateRow>) {
        let own = |row: &&CertificateRow| row.issuer == issuer;
        let revoked = self.revocations_after(change).filter(own).filter(|row| row.not_after_ms > at_ms);
        (revoked.collect(), self.releases_after(change).filter(own).collect())
    }

    /// Begins with delta lists, or ends them, as the settings say. Complete lists say where they are, or no more.
    pub(super) fn review_deltas(&mut self) {
        let wanted = self.settings().delta_crl;
        if wanted == self.deltas().is_some() {
            return;
        }
        let number = self.next_certificate();
        self.note_lists_change(number);
        if wanted {
            self.begin_deltas(number);
        } else {
            self.change_core(|core| core.deltas = None);
        }
    }

    /// Begins anew with what is the last change by now.
    pub(super) fn restart_deltas(&mut self) {
        if self.deltas().is_some() {
            let number = self.next_certificate();
            self.note_lists_change(number);
            self.begin_deltas(number);
        }
    }

    fn begin_deltas(&mut self, change: u64) {
        let at_ms = self.now_ms().max(self.begun_ms());
        let row = DeltasRow { since_ms: at_ms, marks: vec![ListsMark { at_ms, change }] };
        self.change_core(|core| core.deltas = Some(row));
    }

    /// Something is about to change lists: the first time within a span, what they said at its begin is noted.
    pub(super) fn mark_span(&mut self, now_ms: u64) {
        let at_ms = now_ms / LISTS_SPAN_MS * LISTS_SPAN_MS;
        let last = self.deltas().and_then(|row| row.marks.last());
        if last.is_none_or(|last| last.at_ms >= at_ms) {
            return;
        }
        self.change_core(|core: &mut CoreRow| {
            // What was noted before: the indexes know of the new one already.
            let change = core.lists_number;
            if let Some(row) = &mut core.deltas {
                row.marks.push(ListsMark { at_ms, change });
                row.marks.drain(..row.marks.len().saturating_sub(MAX_MARKS));
            }
        });
    }
}

#[cfg(test)]
mod tests;
