//! From one engine to another.
//!
//! The rows are copied into a new folder beside the store, checked against the totals of the old one, and the folders change
//! their names. At each moment one of them is the store: a crash leaves the old one, or the new one whole.
//!
//! | name | what |
//! |---|---|
//! | `store` | the store |
//! | `store.converting` | a copy that is not whole yet |
//! | `store.converted` | a copy that is whole: the store, when there is no `store` |
//! | `store.before-conversion` | the old store, kept for the operator to remove |

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::kv::{KEY_END, Kv, KvError, Op, Result, Table};
use super::store::{Store, engine_of, io_at, sync_dir};
use crate::config::Engine;
use crate::error::Error;

/// Rows in one write.
const ROWS: usize = 256;

/// What a conversion did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// The engine before.
    pub from: Engine,
    /// The engine now.
    pub to: Engine,
    /// Rows that were copied and compared.
    pub rows: u64,
    /// Where the old store is; remove it once the new one has proved itself.
    pub kept: PathBuf,
}

fn beside(store: &Path, suffix: &str) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn converting(store: &Path) -> PathBuf {
    beside(store, ".converting")
}

fn converted(store: &Path) -> PathBuf {
    beside(store, ".converted")
}

fn before(store: &Path) -> PathBuf {
    beside(store, ".before-conversion")
}

/// Converts the store in the state folder `state` of a controller that does not run; `None` when `to` is what made it.
/// `progress` is told now and then how many rows were copied, of how many.
pub fn convert_store(
    state: &Path,
    to: Engine,
    progress: &mut dyn FnMut(u64, u64),
) -> std::result::Result<Option<Converted>, Error> {
    Ok(convert_with(&state.join("raft").join("store"), to, progress)?)
}

/// Converts the store in the folder `store`; `None` when `to` is what made it. No one else may have it open.
pub fn convert(store: &Path, to: Engine) -> Result<Option<Converted>> {
    convert_with(store, to, &mut |_, _| {})
}

fn convert_with(store: &Path, to: Engine, progress: &mut dyn FnMut(u64, u64)) -> Result<Option<Converted>> {
    finish(store)?;
    let Some(from) = engine_of(store)? else {
        let source = io::Error::new(io::ErrorKind::NotFound, "there is no store to convert");
        return Err(KvError::Io { path: store.into(), source });
    };
    if from == to {
        return Ok(None);
    }
    let kept = before(store);
    if kept.exists() {
        let source = io::Error::new(
            io::ErrorKind::AlreadyExists,
            "it is there from an earlier conversion; remove it or put it elsewhere first",
        );
        return Err(KvError::Io { path: kept, source });
    }
    let old = Store::open(store, from)?;
    let new = converting(store);
    {
        let target = Store::open(&new, to)?;
        copy(&old, &target, progress)?;
        target.sync()?;
    }
    let target = reopened(&new, to)?;
    for table in Table::CONTENT {
        old.verify(table)?;
        target.verify(table)?;
    }
    if !target.totals().same_content(&old.totals()) {
        return Err(KvError::Corrupt { path: new, what: "the copy is not what was copied".into() });
    }
    let rows = target.totals().rows();
    drop(target);
    // The engine must not touch a folder that has another name by then; nobody else may open it either.
    let held = old.close();
    rename(&new, &converted(store))?;
    rename(store, &kept)?;
    finish(store)?;
    drop(held);
    Ok(Some(Converted { from, to, rows, kept }))
}

fn copy(from: &Store, to: &Store, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
    let (mut copied, all) = (0, from.totals().rows());
    for table in Table::CONTENT {
        let mut next = Vec::new();
        loop {
            let rows = from.scan(table, &next, &KEY_END, ROWS)?;
            let Some((last, _)) = rows.last() else { break };
            next.clone_from(last);
            next.push(0);
            copied += rows.len() as u64;
            to.write(rows.into_iter().map(|(key, value)| Op::Put(table, key, value)).collect())?;
            progress(copied, all);
        }
    }
    Ok(())
}

/// Opens what this process has just closed: threads of the engine may hold it for a moment longer.
fn reopened(path: &Path, engine: Engine) -> Result<Store> {
    let mut tries = 0;
    loop {
        match Store::open(path, engine) {
            Err(KvError::Locked { .. }) if tries < 500 => {
                tries += 1;
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(io_at(from))?;
    sync_dir(to.parent().unwrap_or(to))
}

/// Ends a conversion that a crash stopped between its renames.
pub(super) fn finish(store: &Path) -> Result<()> {
    let copy = converted(store);
    if !store.exists() && copy.is_dir() {
        rename(&copy, store)?;
    }
    Ok(())
}

/// Removes what a conversion left that did not come to its end. The caller holds the store: none is under way, and a copy must
/// not be taken for the store when that is removed some day.
pub(super) fn clear(store: &Path) -> Result<()> {
    for left in [converting(store), converted(store)] {
        match fs::remove_dir_all(&left) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_at(&left)(e)),
            _ => {}
        }
    }
    Ok(())
}
