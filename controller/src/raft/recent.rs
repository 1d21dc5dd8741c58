//! The end of the log in memory: what is appended is read back at once, for each follower and to be applied.

use std::collections::VecDeque;

use super::Entry;

/// Most bytes kept, encoded; the newest entry stays whatever its size.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Entries without a gap, up to the last one of the log.
#[derive(Default)]
pub(super) struct Recent {
    entries: VecDeque<(Entry, usize)>,
    bytes: usize,
}

impl Recent {
    fn first(&self) -> Option<u64> {
        self.entries.front().map(|(e, _)| e.log_id.index)
    }

    fn last(&self) -> Option<u64> {
        self.entries.back().map(|(e, _)| e.log_id.index)
    }

    /// Appends an entry of so many bytes.
    pub(super) fn push(&mut self, entry: Entry, bytes: usize) {
        if self.last().is_some_and(|last| last + 1 != entry.log_id.index) {
            self.clear();
        }
        self.entries.push_back((entry, bytes));
        self.bytes += bytes;
        while self.bytes > MAX_BYTES && self.entries.len() > 1 {
            self.bytes -= self.entries.pop_front().map_or(0, |(_, bytes)| bytes);
        }
    }

    /// Entries of this index and above are gone.
    pub(super) fn truncate(&mut self, from: u64) {
        while self.last().is_some_and(|last| last >= from) {
            self.bytes -= self.entries.pop_back().map_or(0, |(_, bytes)| bytes);
        }
    }

    /// Entries up to this index are gone.
    pub(super) fn purge(&mut self, upto: u64) {
        while self.first().is_some_and(|first| first <= upto) {
            self.bytes -= self.entries.pop_front().map_or(0, |(_, bytes)| bytes);
        }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The entries from `start`, inclusive, to `end`, exclusive; `None` is for the store to answer.
    pub(super) fn range(&self, start: u64, end: Option<u64>) -> Option<Vec<Entry>> {
        self.limited(start, end.unwrap_or(u64::MAX), usize::MAX, usize::MAX)
    }

    /// The same, not more than so many entries and bytes; the first one goes whatever its size.
    pub(super) fn limited(&self, start: u64, end: u64, entries: usize, bytes: usize) -> Option<Vec<Entry>> {
        let (first, last) = (self.first()?, self.last()?);
        let end = end.min(last + 1);
        if start < first || start >= end {
            return None;
        }
        let range = usize::try_from(start - first).ok()?..usize::try_from(end - first).ok()?;
        let mut sum = 0;
        let fits = |(at, (_, size)): &(usize, &(Entry, usize))| {
            sum += size;
            *at == 0 || sum <= bytes
        };
        let chosen = self.entries.range(range).take(entries).enumerate().take_while(fits);
        Some(chosen.map(|(_, (entry, _))| entry.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use openraft::{CommittedLeaderId, EntryPayload, LogId};

    use super::*;

    fn entry(index: u64) -> Entry {
        Entry { log_id: LogId::new(CommittedLeaderId::new(1, 1), index), payload: EntryPayload::Blank }
    }

    fn held(recent: &Recent, start: u64, end: Option<u64>) -> Option<Vec<u64>> {
        Some(recent.range(start, end)?.iter().map(|e| e.log_id.index).collect())
    }

    #[test]
    fn it_answers_what_it_has_and_nothing_else() {
        let mut recent = Recent::default();
        assert_eq!(held(&recent, 0, None), None);
        (5..10).for_each(|i| recent.push(entry(i), 10));
        assert_eq!(held(&recent, 5, Some(7)), Some(vec![5, 6]));
        assert_eq!(held(&recent, 8, None), Some(vec![8, 9]));
        assert_eq!(held(&recent, 8, Some(20)), Some(vec![8, 9]), "the log has no more either");
        let limited = |entries, bytes| recent.limited(5, 10, entries, bytes).map(|e| e.len());
        assert_eq!(
            [limited(2, 100), limited(9, 30), limited(9, 39), limited(9, 1)].map(Option::unwrap_or_default),
            [2, 3, 3, 1]
        );
        for (start, end) in [(4, Some(7)), (4, None), (10, None), (7, Some(7))] {
            assert_eq!(held(&recent, start, end), None, "{start}..{end:?}");
        }
        recent.truncate(8);
        recent.purge(5);
        assert_eq!(held(&recent, 6, None), Some(vec![6, 7]));
        assert_eq!(held(&recent, 5, None), None);
        recent.push(entry(20), 10); // a snapshot came between
        assert_eq!(held(&recent, 7, None), None);
        assert_eq!(held(&recent, 20, None), Some(vec![20]));
    }

    #[test]
    fn it_is_bounded_but_for_the_newest() {
        let mut recent = Recent::default();
        (1..=100).for_each(|i| recent.push(entry(i), MAX_BYTES / 4));
        assert_eq!(held(&recent, 97, None), Some(vec![97, 98, 99, 100]));
        assert_eq!(held(&recent, 96, None), None);
        recent.push(entry(101), MAX_BYTES * 2);
        assert_eq!(held(&recent, 101, None), Some(vec![101]));
        assert_eq!(held(&recent, 100, None), None);
        recent.truncate(0);
        assert_eq!(recent.bytes, 0);
    }
}
