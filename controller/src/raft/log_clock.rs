//! The time of the log as a machine without I/O: how a leader makes it, and how the others keep up with it.
//!
//! A leader goes on from the time that it knew before, by its monotonic clock, and leans slowly towards the median of the
//! voters' wall clocks. So a wall clock that is set moves nothing by itself, whosever it is, and a wrong minority counts
//! for nothing. Only a group that was down as a whole lets its time jump, and only forward.
//!
//! All times are microseconds: those of the log and of wall clocks since 1970, the monotonic ones from an origin of their own.

use std::collections::{BTreeMap, BTreeSet};

const SECOND: u64 = 1_000_000;
/// The end of the year 9999, the last that a certificate can name: no clock shows more.
const LAST: u64 = 253_402_300_799 * SECOND;
/// A leader's time differs from its monotonic clock by at most one part in so many.
pub(super) const SLEW: u64 = 16;
/// A follower that is ahead of its leader loses at most one part in so many.
const FOLLOWER_SLEW: u64 = 2;
/// What a member's wall clock showed is of use for so long.
const FRESH: u64 = 30 * SECOND;
/// After the group was down, time that lies further behind the voters' clocks jumps to them.
pub(super) const JUMP: u64 = 5 * SECOND;
/// How long a leader after that waits for the clocks of all voters, once it knows a majority's.
const SETTLE: u64 = 10 * SECOND;
/// How long it waits for those of a majority before it makes do with what it has.
pub(super) const BLIND: u64 = SECOND;

/// What a wall clock showed, as its distance from our monotonic clock.
#[derive(Clone, Copy, Debug)]
struct Sample {
    offset: i64,
    at: u64,
}

impl Sample {
    fn new(time: u64, at: u64) -> Self {
        Self { offset: signed(time.min(LAST)) - signed(at), at }
    }

    fn time(self, now: u64) -> i64 {
        signed(now).saturating_add(self.offset)
    }
}

/// Whether this process knows the group's time, or only what its store held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// The group may have been down for long.
    Stored,
    /// It leads since the first time, and jumps once it knows the clocks of enough voters.
    Settling { since: u64, majority_since: Option<u64> },
    /// It has heard a leader's time, or made it.
    Live,
}

#[derive(Debug)]
enum Role {
    Following(Option<Sample>),
    Leading(BTreeSet<u64>),
}

/// The machine.
#[derive(Debug)]
pub(super) struct LogClock {
    id: u64,
    /// The log's time at the monotonic time `at`.
    time: u64,
    at: u64,
    own: Sample,
    walls: BTreeMap<u64, Sample>,
    role: Role,
    trust: Trust,
}

fn signed(time: u64) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}

fn unsigned(time: i64) -> u64 {
    u64::try_from(time).unwrap_or(0)
}

impl LogClock {
    /// A clock that knows nothing but the machine's clocks.
    pub(super) fn new(at: u64, wall: u64) -> Self {
        Self {
            id: 0,
            time: 0,
            at,
            own: Sample::new(wall, at),
            walls: BTreeMap::new(),
            role: Role::Following(None),
            trust: Trust::Stored,
        }
    }

    /// Goes on to a monotonic time, at which the machine's wall clock shows `wall`. Everything else happens then.
    pub(super) fn advance(&mut self, at: u64, wall: u64) {
        let elapsed = at.saturating_sub(self.at);
        self.at = self.at.max(at);
        self.own = Sample::new(wall, self.at);
        let now = self.time.saturating_add(elapsed);
        let slew = |target: i64, part: u64| {
            let most = signed(elapsed / part);
            unsigned(signed(now).saturating_add((target.saturating_sub(signed(now))).clamp(-most, most)))
        };
        let next = match &self.role {
            Role::Following(Some(leader)) => {
                let target = leader.time(self.at);
                if target >= signed(now) { unsigned(target) } else { slew(target, FOLLOWER_SLEW) }
            }
            Role::Following(None) => now,
            Role::Leading(voters) => match self.median(voters) {
                // Within what the median can be, the time is right.
                Some((low, high)) => {
                    let jumps = matches!(self.trust, Trust::Settling { .. });
                    if jumps && low > signed(now.saturating_add(JUMP)) {
                        unsigned(low)
                    } else {
                        slew(signed(now).clamp(low, high), SLEW)
                    }
                }
                None => now,
            },
        };
        self.time = self.time.max(next);
        self.settle();
    }

    /// Between what the median of the voters' wall clocks lies, whatever those show that are not known; `None` while
    /// fewer than a majority are.
    fn median(&self, voters: &BTreeSet<u64>) -> Option<(i64, i64)> {
        let mut known: Vec<i64> = voters.iter().filter_map(|id| self.wall(*id)).map(|s| s.time(self.at)).collect();
        known.sort_unstable();
        let unknown = voters.len() - known.len();
        // Those that are not known all lie below for the lower bound, all above for the upper one.
        let low = (voters.len().checked_sub(1)? / 2).checked_sub(unknown)?;
        Some((*known.get(low)?, *known.get(voters.len() / 2)?))
    }

    fn wall(&self, id: u64) -> Option<Sample> {
        let sample = if id == self.id { Some(self.own) } else { self.walls.get(&id).copied() };
        sample.filter(|s| self.at.saturating_sub(s.at) <= FRESH)
    }

    fn settle(&mut self) {
        let (Role::Leading(voters), Trust::Settling { since, majority_since }) = (&self.role, self.trust) else {
            return;
        };
        let majority = self.median(voters).is_some();
        let majority_since = if majority { majority_since.or(Some(self.at)) } else { None };
        let all = voters.iter().all(|id| self.wall(*id).is_some());
        let settled = match majority_since {
            Some(from) => all || self.at.saturating_sub(from) >= SETTLE,
            None => self.at.saturating_sub(since) >= SETTLE,
        };
        self.trust = if settled { Trust::Live } else { Trust::Settling { since, majority_since } };
    }

    /// This node leads these voters, itself (`id`) among them. Said again whenever it may have changed.
    pub(super) fn lead(&mut self, id: u64, voters: &BTreeSet<u64>) {
        self.id = id;
        match &mut self.role {
            Role::Leading(known) if known == voters => return,
            Role::Leading(known) => known.clone_from(voters),
            Role::Following(_) => self.role = Role::Leading(voters.clone()),
        }
        self.walls.retain(|id, _| voters.contains(id));
        if self.trust == Trust::Stored {
            self.trust = Trust::Settling { since: self.at, majority_since: None };
        }
    }

    /// This node does not lead.
    pub(super) fn follow(&mut self) {
        if matches!(self.role, Role::Leading(_)) {
            self.role = Role::Following(None);
            self.walls.clear();
            if self.trust != Trust::Live {
                self.trust = Trust::Stored;
            }
        }
    }

    /// The wall clock of another member shows this now.
    pub(super) fn heard_wall(&mut self, id: u64, wall: u64) {
        if matches!(&self.role, Role::Leading(voters) if voters.contains(&id)) {
            self.walls.insert(id, Sample::new(wall, self.at));
        }
    }

    /// The log's time at the leader is this now.
    pub(super) fn heard_leader(&mut self, time: u64) {
        if let Role::Following(leader) = &mut self.role {
            *leader = Some(Sample::new(time, self.at));
            self.time = self.time.max(time);
            self.trust = Trust::Live;
        }
    }

    /// An entry with this time was applied.
    pub(super) fn applied(&mut self, time: u64) {
        self.time = self.time.max(time);
    }

    /// The log's time as far as this node knows it.
    pub(super) fn time(&self) -> u64 {
        self.time
    }

    /// The same, unless it may be long behind.
    pub(super) fn live(&self) -> Option<u64> {
        (self.trust == Trust::Live).then_some(self.time)
    }

    /// The time that a leader tells the others.
    pub(super) fn announced(&self) -> Option<u64> {
        self.live().filter(|_| matches!(self.role, Role::Leading(_)))
    }

    /// Whether this leader may know better in a moment: the time of its store is old, and a majority has not said theirs.
    pub(super) fn is_blind(&self) -> bool {
        matches!(self.trust, Trust::Settling { since, majority_since: None } if self.at.saturating_sub(since) < BLIND)
    }
}

#[cfg(test)]
mod tests;
