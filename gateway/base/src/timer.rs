//! The few timers that one state machine has.

use core::fmt;

use crate::Instant;

/// At most one deadline per kind `K`, kept in a small vector: a machine has a handful.
#[derive(Clone)]
pub struct Timers<K> {
    set: Vec<(Instant, K)>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { set: Vec::new() }
    }
}

impl<K: Copy + Eq> Timers<K> {
    /// No timer set.
    pub const fn new() -> Self {
        Self { set: Vec::new() }
    }

    /// Sets `kind` to go off at `at`, in place of an earlier setting.
    pub fn set(&mut self, kind: K, at: Instant) {
        match self.set.iter_mut().find(|(_, k)| *k == kind) {
            Some(slot) => slot.0 = at,
            None => self.set.push((at, kind)),
        }
    }

    /// Unsets `kind`.
    pub fn cancel(&mut self, kind: K) {
        self.set.retain(|(_, k)| *k != kind);
    }

    /// Unsets all.
    pub fn clear(&mut self) {
        self.set.clear();
    }

    /// When `kind` goes off, if it is set.
    pub fn deadline(&self, kind: K) -> Option<Instant> {
        self.set.iter().find(|(_, k)| *k == kind).map(|(at, _)| *at)
    }

    /// The earliest deadline and its kind.
    pub fn next(&self) -> Option<(Instant, K)> {
        self.set.iter().copied().min_by_key(|(at, _)| *at)
    }

    /// Takes one timer that is due at `now`, the earliest first; call until `None`.
    pub fn take_expired(&mut self, now: Instant) -> Option<K> {
        let (at, kind) = self.next()?;
        if at > now {
            return None;
        }
        self.cancel(kind);
        Some(kind)
    }
}

impl<K: fmt::Debug> fmt::Debug for Timers<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.set).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_go_off_in_order_and_once() {
        let mut t = Timers::new();
        t.set('b', Instant::from_secs(2));
        t.set('a', Instant::from_secs(1));
        t.set('b', Instant::from_secs(3));
        assert_eq!(t.take_expired(Instant::from_secs(2)), Some('a'));
        assert_eq!(t.take_expired(Instant::from_secs(2)), None);
        assert_eq!(t.take_expired(Instant::from_secs(3)), Some('b'));
        assert_eq!(t.next(), None);
    }
}
