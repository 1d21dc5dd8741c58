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
use sallyport_ca::UnixTime;
use sallyport_ca::crl::{Contents, Revoked, SHARDS, shard_of};
use sallyport_endpoint::Crl;
use tokio::sync::OwnedMutexGuard;

use crate::app::Core;
use crate::authority::published;
use crate::error::Error;
use crate::state::{CertificateRow, State};

/// Lists are made anew at the begin of each such span of the log's time, if nothing is revoked before. Milliseconds.
const FRESH_MS: u64 = 24 * 3_600 * 1_000;
/// How long after the begin of its span a list is good: whoever fetches it has a day to fetch the next one.
const GOOD_MS: u64 = 2 * FRESH_MS;
/// Lists are good from so long before they were made, as certificates are: readers' clocks differ.
const CLOCKS_MS: u64 = 5 * 60 * 1_000;
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
        let change = state.lists_change();
        let span_ms = state.now_ms() / FRESH_MS * FRESH_MS;
        let at_ms = span_ms.max(change.at_ms).max(state.begun_ms());
        Self { change: change.number, span_ms, at_ms, root: state.root_number() }
    }

    /// Grows with all that is said (RFC 5280 §5.2.3): a restored cluster has lost what happened last, and goes on from a later time.
    const fn number(self) -> u64 {
        (self.at_ms / 1_000).saturating_sub(NUMBERS_FROM) << 32 | self.change & 0xffff_ffff
    }
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
        let stamp = Stamp::of(&core.node.shared().read());
        lock(&self.made).get(&part).filter(|made| made.stamp == stamp).map(|made| made.crl.clone())
    }

    /// Makes the list, or finds that the one before still says the same.
    fn make(&self, core: &Core, issuer: u64, part: Part, gathered: &mut Gathered) -> Result<Crl, Error> {
        let (stamp, names) = {
            let state = core.node.shared().read();
            let stamp = Stamp::of(&state);
            if gathered.stamp != stamp {
                // What has ended stays until a span has begun after its end: it was on a list made after that (RFC 5280 §3.3).
                let own = state.revoked_of(issuer, stamp.span_ms.saturating_sub(FRESH_MS + CLOCKS_MS));
                *gathered = Gathered { stamp, revoked: entries(own) };
            }
            (stamp, state.published_names(stamp.at_ms))
        };
        let (points, revoked): (Vec<String>, Vec<Revoked>) = match part {
            Part::Whole => (Vec::new(), gathered.revoked.clone()),
            Part::Shard(shard) => {
                let in_shard = gathered.revoked.iter().filter(|r| shard_of(&r.serial) == shard).cloned();
                (names.iter().map(|name| published::shard(name, issuer, shard)).collect(), in_shard.collect())
            }
        };
        if matches!(part, Part::Shard(_)) && points.is_empty() {
            // A list that names no place would say that nothing else is revoked.
            return Err(Error::Refused("no certificate names a part of the list yet".into()));
        }
        let content = digest_of(&points, &revoked);
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
            None => Made { stamp, content, crl: sign(core, issuer, stamp, &points, &revoked)? },
        };
        let crl = made.crl.clone();
        lock(&self.made).insert(part, made);
        Ok(crl)
    }
}

fn digest_of(points: &[String], revoked: &[Revoked]) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut add = |part: &[u8]| {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    };
    add(&(points.len() as u64).to_be_bytes());
    points.iter().for_each(|point| add(point.as_bytes()));
    for entry in revoked {
        add(entry.serial.as_be_bytes());
        add(&entry.at.0.to_be_bytes());
        add(&[entry.reason.code()]);
    }
    context.finish().as_ref().to_vec()
}

fn sign(core: &Core, issuer: u64, stamp: Stamp, points: &[String], revoked: &[Revoked]) -> Result<Crl, Error> {
    let authority = core.issuing_by(issuer)?.authority;
    let this_update = time(stamp.at_ms.saturating_sub(CLOCKS_MS));
    let next_update = time(stamp.span_ms.saturating_add(GOOD_MS));
    let points: Vec<&str> = points.iter().map(String::as_str).collect();
    let number = stamp.number();
    let contents = Contents { distribution_points: &points, number, revoked, this_update, next_update };
    let der = authority
        .prepare_revocation_list(&contents)
        .and_then(|tbs| authority.sign_revocation_list(&tbs, core.sealer.rng()));
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
        if !known || matches!(part, Part::Shard(shard) if shard >= SHARDS || issuer == 0) {
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
            if let Err(error) = core.lists.list(&core, issuer, part).await {
                tracing::warn!(issuer, ?part, %error, "a revocation list could not be made anew; trying again");
            }
        }
    }
}

#[cfg(test)]
mod tests;
