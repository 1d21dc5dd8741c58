//! Which certificates are live, for gateways: the whole set in parts, then what changes, in order; and what they say they have.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ring::digest;
use sallyport_proto::v1;

use crate::app::Core;
use crate::metrics::Metrics;
use crate::state::{CertificateRow, State};

/// How long a gateway may be silent before it counts itself as stale; milliseconds. Whoever revokes waits no longer than this.
pub(crate) const LEASE_MS: u64 = 5_000;
/// And then, until it lets nobody new in, unless the settings say otherwise; seconds.
pub(crate) const MAX_STALE_S: u32 = 600;
/// How often a gateway is told of certificates that were issued. Of revocations and releases it hears at once.
pub(super) const TELL: Duration = Duration::from_secs(1);
/// Certificates looked at for one message: it stays below 200 KB, and the state is not held for long.
const CHUNK: usize = 4_096;
/// Octets of a fingerprint that name a certificate. Whoever has the authority's key could look for another certificate with the same
/// ones, among a million: 2^108 tries.
const TAG: usize = 16;
/// What a gateway has acknowledged lately, and has ended, that is kept of it.
const REMEMBERED: usize = 64;

/// What gateways do that hear of no revocations.
pub(crate) fn stale_policy(core: &Core) -> v1::StalePolicy {
    let settings = core.node.shared().read().settings();
    let lease_s = u32::try_from(LEASE_MS / 1_000).unwrap_or(u32::MAX);
    v1::StalePolicy { lease_s, max_stale_s: settings.max_stale_s(), fail_closed: settings.fail_closed }
}

/// Names a life of the cluster: numbers of two of them have nothing to do with each other. Never 0.
pub(super) fn lineage(state: &State) -> u64 {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(state.cluster_id());
    context.update(&state.begun_ms().to_be_bytes());
    let hash = context.finish();
    hash.as_ref().first_chunk().map_or(1, |bytes| u64::from_be_bytes(*bytes)).max(1)
}

/// The newest revocation or release: whoever knows the set up to there knows of all of them.
pub(super) fn newest(state: &State) -> v1::LiveFrom {
    v1::LiveFrom { lineage: lineage(state), index: state.last_revocation_or_release() }
}

/// Up to where a stream has said what is live.
#[derive(Debug)]
pub(super) struct Cursor {
    lineage: u64,
    index: u64,
    /// A whole set under way: the certificates up to this number were said, and the set is that of `index`.
    whole: Option<u64>,
}

impl Cursor {
    /// Where a gateway says that it is.
    pub(super) fn new(from: v1::LiveFrom, state: &State) -> Self {
        let lineage = lineage(state);
        let last = state.last_certificate();
        if from.lineage == lineage && from.index <= last {
            return Self { lineage, index: from.index, whole: None };
        }
        Self { lineage, index: last, whole: Some(0) }
    }

    /// Whether the whole set is to be said next, and not what has changed.
    pub(super) fn is_whole(&self) -> bool {
        self.whole.is_some()
    }

    /// The next message, if there is anything to say.
    pub(super) fn next(&mut self, state: &State) -> Option<v1::LiveUpdate> {
        let lineage = lineage(state);
        if lineage != self.lineage {
            *self = Self::new(v1::LiveFrom::default(), state); // this node took a snapshot of another life
        }
        match self.whole {
            Some(said) => Some(self.part(said, state)),
            None => self.changes(state),
        }
    }

    fn part(&mut self, said: u64, state: &State) -> v1::LiveUpdate {
        let rows = state.issued_between(said, self.index, CHUNK);
        let more = rows.len() == CHUNK;
        let said_now = rows.last().filter(|_| more).map_or(self.index, |row| row.number);
        self.whole = more.then_some(said_now);
        let mut update = v1::LiveUpdate {
            lineage: self.lineage,
            snapshot: true,
            more,
            after: said,
            index: self.index,
            said: said_now,
            ..Default::default()
        };
        rows.into_iter().for_each(|row| say(row, state.now_ms(), &mut update));
        update
    }

    fn changes(&mut self, state: &State) -> Option<v1::LiveUpdate> {
        let last = state.last_certificate();
        if self.index >= last {
            return None;
        }
        let rows = state.live_changes(self.index, CHUNK);
        let index = if rows.len() == CHUNK { rows.last().map_or(last, |(number, _)| *number) } else { last };
        let after = std::mem::replace(&mut self.index, index);
        let mut update = v1::LiveUpdate { lineage: self.lineage, after, index, ..Default::default() };
        rows.into_iter().for_each(|(_, row)| say(row, state.now_ms(), &mut update));
        Some(update)
    }
}

/// Says of a certificate what is so now.
fn say(row: &CertificateRow, now_ms: u64, update: &mut v1::LiveUpdate) {
    let Some(tag) = row.fingerprint.get(..TAG) else { return };
    if row.profile() != v1::CertificateProfile::Machine || row.not_after_ms <= now_ms {
        return;
    }
    let not_after_unix_s = row.not_after_ms / 1_000;
    if row.revoked_ms == 0 {
        update.live.extend_from_slice(tag);
        update.live.extend_from_slice(&u32::try_from(not_after_unix_s).unwrap_or(u32::MAX).to_be_bytes());
    } else {
        update.revoked.push(v1::RevokedCertificate {
            fingerprint: tag.to_vec(),
            reason: i32::try_from(row.revocation_code).unwrap_or_default(),
            not_after_unix_s,
            number: row.revocation_number,
        });
    }
}

/// What one gateway has said.
#[derive(Debug, Default)]
struct Said {
    epoch: u64,
    lineage: u64,
    /// Numbers up to which it has acknowledged, and when it did so first, the log's time.
    acknowledged: VecDeque<(u64, u64)>,
    /// What it has ended, by the revocation's number.
    ended: BTreeMap<u64, u32>,
    held: Option<v1::LiveHeld>,
    /// When it said that, monotonic milliseconds.
    said_ms: u64,
}

/// What gateways have said of the set, at the node that leads.
#[derive(Debug, Default)]
pub(crate) struct Live {
    said: Mutex<BTreeMap<u32, Said>>,
}

impl Live {
    fn said(&self) -> MutexGuard<'_, BTreeMap<u32, Said>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what a gateway says in a life sign.
    pub(super) fn note(
        &self,
        member: v1::Member,
        request: &v1::HeartbeatRequest,
        state: &State,
        times: Times,
        metrics: &Metrics,
    ) {
        let mut all = self.said();
        if !all.contains_key(&member.slot) {
            all.retain(|slot, _| state.gateways.contains(slot));
        }
        let said = all.entry(member.slot).or_default();
        let at = request.live.and_then(|held| held.at).unwrap_or_default();
        if said.epoch != member.epoch || said.lineage != at.lineage {
            *said = Said { epoch: member.epoch, lineage: at.lineage, ..Said::default() };
        }
        (said.held, said.said_ms) = (request.live, times.monotonic_ms);
        if request.live.is_none() || at.lineage != lineage(state) {
            return;
        }
        let known = said.acknowledged.back().map_or(0, |(index, _)| *index);
        if at.index > known {
            // Those of before this process listened were acknowledged some time.
            if known != 0 {
                let new = state.revocations_after(known).take_while(|row| row.revocation_number <= at.index);
                // A gateway says what it likes, and may begin anew with each life sign.
                for row in new.take(CHUNK) {
                    metrics.revocation_acknowledged(times.log_ms.saturating_sub(row.revoked_ms));
                }
            }
            said.acknowledged.push_back((at.index, times.log_ms));
            if said.acknowledged.len() > REMEMBERED {
                said.acknowledged.pop_front();
            }
        }
        for done in request.revocations.iter().take(REMEMBERED) {
            said.ended.insert(done.number, done.tunnels);
        }
        while said.ended.len() > REMEMBERED {
            said.ended.pop_first();
        }
    }

    /// What a gateway has of the set, and how old that is by now, for whoever lists gateways.
    pub(super) fn held(&self, slot: u32, epoch: u64, now_ms: u64) -> Option<v1::LiveHeld> {
        let all = self.said();
        let said = all.get(&slot).filter(|said| said.epoch == epoch)?;
        let since = u32::try_from(now_ms.saturating_sub(said.said_ms)).unwrap_or(u32::MAX);
        said.held.map(|held| v1::LiveHeld { age_ms: held.age_ms.saturating_add(since), ..held })
    }

    /// How far a gateway is with a revocation.
    pub(super) fn progress(
        &self,
        slot: u32,
        epoch: u64,
        lineage: u64,
        revocation: v1::RevocationChange,
        log_ms: u64,
    ) -> v1::GatewayRevocation {
        use v1::RevocationState as State;
        let all = self.said();
        let said = all.get(&slot).filter(|said| said.epoch == epoch && said.lineage == lineage);
        let first = said.and_then(|said| said.acknowledged.iter().find(|(index, _)| *index >= revocation.last));
        let lapsed = log_ms.saturating_sub(revocation.at_unix_ms) >= LEASE_MS;
        let state = match first {
            Some(_) => State::Acknowledged,
            None if lapsed => State::Lapsed,
            None => State::Waiting,
        };
        let numbers = revocation.after.saturating_add(1)..=revocation.last.max(revocation.after.saturating_add(1));
        let tunnels = said.map_or(0, |said| {
            // What a gateway says: any number.
            said.ended.range(numbers).fold(0, |sum: u32, (_, tunnels)| sum.saturating_add(*tunnels))
        });
        v1::GatewayRevocation {
            state: state.into(),
            after_ms: first.map_or(0, |(_, at_ms)| at_ms.saturating_sub(revocation.at_unix_ms)),
            tunnels,
            keeps_set: said.is_some_and(|said| said.held.is_some()),
            ..Default::default()
        }
    }
}

/// A moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// By this machine's monotonic clock, milliseconds.
    pub(super) monotonic_ms: u64,
    /// By the log's, milliseconds since 1970.
    pub(super) log_ms: u64,
}

#[cfg(test)]
mod tests;
