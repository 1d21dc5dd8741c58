//! The state, from its rows in the store: several threads read them beside each other, each some parts of the tables, and understand
//! what they read. Tables that stay in the store are not read for it: they are checked when the node has started, in the background.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::kv::{KEY_END, Kv, Result, Table};
use crate::state::{Loading, RowError, State};

/// Steps of checking that a start waits for,
const AT_ONCE: usize = 32;
/// and what those behind it leave to others between two.
const PAUSE: Duration = Duration::from_millis(1);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A table of more rows is read in parts,
const LARGE: usize = 4_096;
/// at least so many of them, where its keys allow that: the threads end at about the same time.
const PARTS: usize = 8;

/// Reads the state.
pub(super) fn load(kv: &dyn Kv) -> std::result::Result<State, BoxError> {
    let ends = ends(kv)?;
    let part = |_| Mutex::new((State::loading_beside_store(), Ok(())));
    let parts: Vec<Mutex<(Loading, std::result::Result<(), RowError>)>> = (0..=ends.len()).map(part).collect();
    kv.each_part(Table::State, &ends, &|number| {
        let begin = number.checked_sub(1).and_then(|before| ends.get(before)?.first());
        if begin.is_some_and(|table| State::stays_in_store(*table)) {
            return None;
        }
        // Each part is asked for once.
        let mut part: MutexGuard<'_, _> = parts.get(number)?.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Box::new(move |key, value| {
            if let (loading, understood @ Ok(())) = &mut *part {
                *understood = loading.row(key, value);
            }
        }))
    })?;
    // A row that the store itself finds damaged is the better explanation.
    let mut whole = State::loading_beside_store();
    for part in parts {
        let (loading, understood) = part.into_inner().unwrap_or_else(PoisonError::into_inner);
        understood?;
        whole.absorb(loading);
    }
    Ok(whole.end())
}

/// Checks what was not read, or begins to where it is much.
pub(super) fn check_rest(kv: &Arc<dyn Kv>) -> Result<()> {
    for _ in 0..AT_ONCE {
        if !kv.check_more()? {
            return Ok(());
        }
    }
    // The store is closed when nobody else uses it any more.
    let kv = Arc::downgrade(kv);
    let check = move || {
        while let Some(kv) = kv.upgrade() {
            match kv.check_more() {
                Ok(true) => {}
                Ok(false) => return,
                // The next one who reads or writes hears of it, and the node stops.
                Err(error) => return tracing::error!(%error, "the store is not what was written"),
            }
            drop(kv);
            std::thread::sleep(PAUSE);
        }
    };
    // Without it, damage is found where it is read.
    drop(std::thread::Builder::new().name("check-store".into()).spawn(check));
    Ok(())
}

/// Where the parts of the state end that are read beside each other: before each table, and within large ones.
fn ends(kv: &dyn Kv) -> Result<Vec<Vec<u8>>> {
    let (mut ends, mut from) = (Vec::new(), vec![0]);
    while let Some(table) = first_from(kv, &from)?.and_then(|key| key.first().copied()) {
        ends.push(vec![table]);
        let Some(next) = table.checked_add(1) else { break };
        if State::may_be_parted(table) && kv.scan(Table::State, &[table], &[next], LARGE)?.len() == LARGE {
            ends.extend(within(kv, vec![table])?);
        }
        from = vec![next];
    }
    Ok(ends)
}

/// Where the rows can be parted whose keys begin so: by the first octets in which they differ.
fn within(kv: &dyn Kv, beginning: Vec<u8>) -> Result<Vec<Vec<u8>>> {
    // Where a part begins, and how all keys in it do.
    let mut parts = vec![(beginning.clone(), beginning)];
    for _ in 0..KEY_END.len() {
        if parts.len() >= PARTS {
            break;
        }
        let mut finer = Vec::new();
        for (begin, keys) in parts {
            let mut next = next_octets(kv, &keys)?.into_iter().map(|octet| [keys.as_slice(), &[octet]].concat());
            // The key that is only its beginning comes first.
            finer.push((begin, next.next().unwrap_or(keys.clone())));
            finer.extend(next.map(|keys| (keys.clone(), keys)));
        }
        parts = finer;
    }
    Ok(parts.into_iter().skip(1).map(|(begin, _)| begin).collect())
}

/// What comes next in the keys that begin so.
fn next_octets(kv: &dyn Kv, beginning: &[u8]) -> Result<Vec<u8>> {
    let (mut octets, mut next) = (Vec::new(), Some(0));
    while let Some(at_least) = next {
        let key = first_from(kv, &[beginning, &[at_least]].concat())?;
        let Some(&octet) = key.as_deref().and_then(|key| key.strip_prefix(beginning)?.first()) else { break };
        octets.push(octet);
        next = octet.checked_add(1);
    }
    Ok(octets)
}

fn first_from(kv: &dyn Kv, key: &[u8]) -> Result<Option<Vec<u8>>> {
    Ok(kv.scan(Table::State, key, &KEY_END, 1)?.pop().map(|(key, _)| key))
}

#[cfg(test)]
#[path = "load/tests.rs"]
mod tests;
