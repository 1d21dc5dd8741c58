//! Revocation lists, for whoever is no gateway: gateways know what is live from the controllers themselves.
//!
//! What a list says, its number and its dates are a function of the state and of nothing else: two controllers that have applied the same
//! entries sign the same list, and one with a higher number knows more, whoever signed it and whatever was started anew in between.
//! Only the log's time counts, so a controller that hears nothing of the others has its lists end a day later and signs no new ones
//! that would leave out what was revoked meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ring::digest;
use sallyport_ca::crl::{Contents, Delta, Revoked, SHARDS, shard_of};
use sallyport_ca::{Serial, UnixTime};
use sallyport_endpoint::Crl;
use tokio::sync::OwnedMutexGuard;

use crate::app::Core;
use crate::authority::published;
use crate::error::Error;
use crate::state::{CertificateRow, DeltaBase, LISTS_SPAN_MS, State};

/// Lists are made anew at the begin of each such span of the log's time, if nothing is revoked before. Milliseconds.
const FRESH_MS: u64 = LISTS_SPAN_MS;
/// The same of delta lists, which are there for whoever wants to know it sooner.
const DELTA_FRESH_MS: u64 = 3_600 * 1_000;
/// Lists are good from so long before they were made, as certificates are: readers' clocks differ.
const CLOCKS_MS: u64 = 5 * 60 * 1_000;
/// From making lists because of changes to doing so again.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked whether a list is due, besides at each change.
const LOOK: Duration = Duration::from_secs(30);
/// Numbers count seconds from here, and within one what happened: 2020-09-13.
const NUMBERS_FROM: u64 = 1_600_000_000;

/// Which certificates of an authority a list is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// All of them; without an issuing distribution point, which NSS does not read.
    Whole,
    /// One of [`SHARDS`], for those who go by the distribution point in a certificate.
    Shard(u32),
    /// What changed on the list of all of them, where the settings ask for delta lists.
    WholeDelta,
    /// The same of a shard.
    ShardDelta(u32),
}

impl Part {
    const fn shard(self) -> Option<u32> {
        match self {
            Self::Whole | Self::WholeDelta => None,
            Self::Shard(shard) | Self::ShardDelta(shard) => Some(shard),
        }
    }

    const fn is_delta(self) -> bool {
        matches!(self, Self::WholeDelta | Self::ShardDelta(_))
    }

    /// How often it is made anew though nothing changed.
    const fn fresh_ms(self) -> u64 {
        if self.is_delta() { DELTA_FRESH_MS } else { FRESH_MS }
    }

    /// How long after the begin of its span it is good: whoever fetches it has as long again to fetch the next one.
    const fn good_ms(self) -> u64 {
        2 * self.fresh_ms()
    }

    fn has(self, serial: &Serial) -> bool {
        self.shard().is_none_or(|shard| shard_of(serial) == shard)
    }
}

/// From what a list is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stamp {
    /// The last thing that changed any list.
    change: u64,
    /// Begin of the span, the log's time.
    span_ms: u64,
    /// What lists say of when they were made: the later of both, and of the cluster's new begin.
    at_ms: u64,
    /// Number of the root in force, whose list is at the root's address.
    root: u64,
}

impl Stamp {
    fn of(state: &State) -> Self {
        Self::of_part(state, Part::Whole)
    }

    fn of_part(state: &State, part: Part) -> Self {
        let change = state.lists_change();
        let span_ms = state.now_ms() / part.fresh_ms() * part.fresh_ms();
        let at_ms = span_ms.max(change.at_ms).max(state.begun_ms());
        Self { change: change.number, span_ms, at_ms, root: state.root_number() }
    }

    /// Grows with all that is said (RFC 5280 §5.2.3): a restored cluster has lost what happened last, and goes on from a later time.
    const fn number(self) -> u64 {
        number_of(self.at_ms, self.change)
    }
}

const fn number_of(at_ms: u64, change: u64) -> u64 {
    (at_ms / 1_000).saturating_sub(NUMBERS_FROM) << 32 | change & 0xffff_ffff
}

/// The number of a list that is made by the state as it is now.
pub(crate) fn number(core: &Core) -> u64 {
    Stamp::of(&core.node.shared().read()).number()
}

fn time(ms: u64) -> UnixTime {
    UnixTime(i64::try_from(ms / 1_000).unwrap_or(i64::MAX))
}

fn entries<'a>(rows: impl Iterator<Item = &'a CertificateRow>) -> Vec<Revoked> {
    let entry = |c: &CertificateRow| {
        Some(Revoked { serial: c.serial.parse().ok()?, at: time(c.revoked_ms), reason: c.told_reason() })
    };
    rows.filter_map(entry).collect()
}

/// A list and what it was made from.
#[derive(Clone, Debug)]
struct Made {
    /// The state to which it was held against last.
    stamp: Stamp,
    /// SHA-256 of what it says.
    content: Vec<u8>,
    crl: Crl,
}

/// All that an authority has revoked, once for its lists.
#[derive(Debug, Default)]
struct Gathered {
    stamp: Stamp,
    revoked: Vec<Revoked>,
}

/// The lists of one authority.
#[derive(Debug, Default)]
struct OfAuthority {
    /// Whoever has it makes lists: one at a time.
    making: Arc<tokio::sync::Mutex<Gathered>>,
    made: Mutex<BTreeMap<Part, Made>>,
}

/// Lists that were made: each once, however many ask.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    authorities: Mutex<BTreeMap<u64, Arc<OfAuthority>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in there is whole between two of its own calls.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OfAuthority {
    /// The list, if it says what the state does.
    fn current(&self, core: &Core, part: Part) -> Option<Crl> {
        let stamp = Stamp::of_part(&core.node.shared().read(), part);
        lock(&self.made).get(&part).filter(|made| made.stamp == stamp).map(|made| made.crl.clone())
    }

    /// Makes the list, or finds that the one before still says the same.
    fn make(&self, core: &Core, issuer: u64, part: Part, gathered: &mut Gathered) -> Result<Crl, Error> {
        let (stamp, said) = {
            let state = core.node.shared().read();
            let complete = Stamp::of(&state);
            // What has ended stays until a span has begun after its end: it was on a list made after that (RFC 5280 §3.3).
            let ended_ms = complete.span_ms.saturating_sub(FRESH_MS + CLOCKS_MS);
            if gathered.stamp != complete {
                *gathered = Gathered { stamp: complete, revoked: entries(state.revoked_of(issuer, ended_ms)) };
            }
            let all = gathered.revoked.iter().filter(|r| part.has(&r.serial));
            let stamp = Stamp::of_part(&state, part);
            let names = state.published_names(stamp.at_ms);
            let points =
                part.shard().map(|shard| names.iter().map(|name| published::shard(name, issuer, shard)).collect());
            let points: Vec<String> = points.unwrap_or_default();
            let bases = if issuer == 0 { Vec::new() } else { state.delta_bases() };
            let changes = || changes(&state, issuer, part, (&bases, ended_ms, all.clone().count()));
            let said = match part.is_delta() {
                true => changes().filter(|_| !names.is_empty()).map(|(base, revoked, removed)| Said {
                    points,
                    revoked,
                    from: Some((number_of(base.at_ms, base.change), removed)),
                    freshest: None,
                }),
                false => {
                    let named = names.first().filter(|_| !bases.is_empty());
                    let freshest = named.map(|name| published::delta(name, issuer, part.shard()));
                    Some(Said { points, revoked: all.cloned().collect(), from: None, freshest })
                }
            };
            (stamp, said)
        };
        let Some(said) = said else {
            lock(&self.made).remove(&part);
            return Err(Error::Refused("no list has changes published beside it".into()));
        };
        if part.shard().is_some() && said.points.is_empty() {
            // A list that names no place would say that nothing else is revoked.
            return Err(Error::Refused("no certificate names a part of the list yet".into()));
        }
        let content = said.digest();
        let mut made = lock(&self.made).get(&part).cloned();
        if let Some(made) = &mut made
            && made.content == content
            && (made.stamp.span_ms, made.stamp.root) == (stamp.span_ms, stamp.root)
        {
            made.stamp = stamp;
        } else {
            made = None;
        }
        let made = match made {
            Some(made) => made,
            None => Made { stamp, content, crl: sign(core, issuer, part, stamp, &said)? },
        };
        let crl = made.crl.clone();
        lock(&self.made).insert(part, made);
        Ok(crl)
    }
}

/// What a delta list says: from the earliest complete list that is good, or from the last one where the list itself is no longer than
/// its changes are.
fn changes(
    state: &State,
    issuer: u64,
    part: Part,
    (bases, ended_ms, complete): (&[DeltaBase], u64, usize),
) -> Option<(DeltaBase, Vec<Revoked>, Vec<Serial>)> {
    let mut last = None;
    for base in bases {
        let (revoked, released) = state.changes_of(issuer, base.change, ended_ms);
        let mut revoked = entries(revoked.into_iter());
        revoked.retain(|r| part.has(&r.serial));
        let serials = released.iter().filter_map(|row| row.serial.parse::<Serial>().ok());
        let removed: Vec<Serial> = serials.filter(|serial| part.has(serial)).collect();
        let short = revoked.len() + removed.len() < complete;
        last = Some((*base, revoked, removed));
        if short {
            break;
        }
    }
    last
}

/// What a list says.
struct Said {
    /// Its addresses.
    points: Vec<String>,
    /// All that is revoked; of a delta list, since its base.
    revoked: Vec<Revoked>,
    /// Of a delta list: number of its base, and what is revoked no more since.
    from: Option<(u64, Vec<Serial>)>,
    /// Of a complete list: where its delta list is.
    freshest: Option<String>,
}

impl Said {
    fn digest(&self) -> Vec<u8> {
        let mut context = digest::Context::new(&digest::SHA256);
        let mut add = |part: &[u8]| {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        };
        add(&(self.points.len() as u64).to_be_bytes());
        self.points.iter().for_each(|point| add(point.as_bytes()));
        add(self.freshest.as_deref().unwrap_or_default().as_bytes());
        if let Some((base, removed)) = &self.from {
            add(&base.to_be_bytes());
            add(&(removed.len() as u64).to_be_bytes());
            removed.iter().for_each(|serial| add(serial.as_be_bytes()));
        }
        for entry in &self.revoked {
            add(entry.serial.as_be_bytes());
            add(&entry.at.0.to_be_bytes());
            add(&[entry.reason.code()]);
        }
        context.finish().as_ref().to_vec()
    }
}

fn sign(core: &Core, issuer: u64, part: Part, stamp: Stamp, said: &Said) -> Result<Crl, Error> {
    let authority = core.issuing_by(issuer)?.authority;
    let this_update = time(stamp.at_ms.saturating_sub(CLOCKS_MS));
    let next_update = time(stamp.span_ms.saturating_add(part.good_ms()));
    let points: Vec<&str> = said.points.iter().map(String::as_str).collect();
    let number = stamp.number();
    let contents = Contents { distribution_points: &points, number, revoked: &said.revoked, this_update, next_update };
    let prepared = match (&said.from, &said.freshest) {
        (Some((base, removed)), _) => authority.prepare_delta_list(&contents, &Delta { base: *base, removed }),
        (None, Some(address)) => authority.prepare_revocation_list_with_delta(&contents, address),
        (None, None) => authority.prepare_revocation_list(&contents),
    };
    let der = prepared.and_then(|tbs| authority.sign_revocation_list(&tbs, core.sealer.rng()));
    let der = der.map_err(|e| Error::Authority(format!("the revocation list: {e}")))?;
    Ok(Crl { der: der.into(), number, this_update, next_update })
}

impl Lists {
    fn of(&self, issuer: u64) -> Arc<OfAuthority> {
        lock(&self.authorities).entry(issuer).or_default().clone()
    }

    /// The list of an authority (0 for the root) as the state is now.
    pub(crate) async fn list(&self, core: &Arc<Core>, issuer: u64, part: Part) -> Result<Crl, Error> {
        let known = issuer == 0 || core.node.shared().read().issuers.contains(&issuer);
        // The root has one list, which is short.
        let wrong = |shard| shard >= SHARDS || issuer == 0;
        if !known || part.shard().is_some_and(wrong) || (part.is_delta() && issuer == 0) {
            return Err(Error::Refused("there is no such list".into()));
        }
        if issuer == 0
            && let Some(kept) = crate::authority::root::kept_list(core)
        {
            return Ok(kept);
        }
        let of = self.of(issuer);
        if let Some(crl) = of.current(core, part) {
            return Ok(crl);
        }
        let mut making: OwnedMutexGuard<Gathered> = of.making.clone().lock_owned().await;
        if let Some(crl) = of.current(core, part) {
            return Ok(crl); // somebody else has made it meanwhile
        }
        let worker = core.clone();
        // Goes on if whoever asked is gone: the next one has it.
        let made = tokio::task::spawn_blocking(move || of.make(&worker, issuer, part, &mut making));
        made.await.map_err(|_| Error::Internal("making a revocation list panicked".into()))?
    }

    /// Those that somebody has asked for.
    fn asked(&self) -> Vec<(u64, Part)> {
        let authorities: Vec<(u64, Arc<OfAuthority>)> =
            lock(&self.authorities).iter().map(|(issuer, of)| (*issuer, of.clone())).collect();
        let parts = |(issuer, of): (u64, Arc<OfAuthority>)| {
            let parts: Vec<Part> = lock(&of.made).keys().copied().collect();
            parts.into_iter().map(move |part| (issuer, part))
        };
        authorities.into_iter().flat_map(parts).collect()
    }
}

/// Makes lists anew once something is revoked or they are due, also while nobody asks: whoever does so next does not wait.
pub(crate) async fn keep(core: Arc<Core>) {
    let mut changes = core.node.shared().changes();
    loop {
        if let Ok(Err(_)) = tokio::time::timeout(LOOK, changes.changed()).await {
            return; // the state is no more
        }
        for (issuer, part) in core.lists.asked() {
            let made = core.lists.list(&core, issuer, part).await;
            // Those of changes end when the settings say so.
            if let Err(error) = made.map(drop).or_else(|e| if matches!(e, Error::Refused(_)) { Ok(()) } else { Err(e) })
            {
                tracing::warn!(issuer, ?part, %error, "a revocation list could not be made anew; trying again");
            }
        }
        // Each renewal revokes a certificate: where there are a thousand in a second, lists are not made as often. Whoever asks does not wait.
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests;
