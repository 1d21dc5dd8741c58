//! The schema of a store, and how an older one becomes today's.
//!
//! The number says what the rows of all tables look like. It grows with every change that an older version of this software
//! would misread, never with one that it merely does not know (a new field of a prost message). Each change comes with a
//! [`Migration`].

use super::checked::{Checked, with_crc, without_crc};
use super::kv::{KEY_END, Kv, KvError, Op, Result, Table};
use std::path::Path;

/// Row of [`Table::About`]: the number, 4 bytes big-endian, and its CRC-32.
const SCHEMA: &[u8] = b"schema";

/// What the rows of a new schema are, from those of the one before: changes that are made in one write together with the new
/// number. It runs before anything else reads the store.
pub(super) type Migration = fn(&dyn Kv) -> Result<Vec<Op>>;

/// How schema 1 becomes 2, 2 becomes 3 and so on. (Schema 0, without a number, checksums and totals, becomes 1 by
/// [`begin`].) Keep each for as long as a store of its schema may be around.
pub(super) const MIGRATIONS: &[Migration] = &[];

/// The schema that these migrations lead to.
fn known(migrations: &[Migration]) -> u32 {
    1 + u32::try_from(migrations.len()).unwrap_or(u32::MAX - 1)
}

fn put(schema: u32) -> Op {
    Op::Put(Table::About, SCHEMA.to_vec(), with_crc(schema.to_be_bytes().to_vec()))
}

/// The schema of a store; `None` for one that says nothing.
pub(super) fn found(kv: &dyn Kv, path: &Path) -> Result<Option<u32>> {
    let Some(bytes) = kv.get(Table::About, SCHEMA)? else { return Ok(None) };
    match without_crc(&bytes).and_then(|n| n.try_into().ok()).map(u32::from_be_bytes) {
        Some(schema) => Ok(Some(schema)),
        None => {
            Err(KvError::Corrupt { path: path.into(), what: "the row with its schema is not what was written".into() })
        }
    }
}

/// Whether a store holds nothing at all.
pub(super) fn is_empty(kv: &dyn Kv) -> Result<bool> {
    for table in Table::CONTENT.into_iter().chain([Table::About]) {
        if !kv.scan(table, &[], &KEY_END, 1)?.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Gives a store its first number and totals: a new one today's, one from before there were any its own.
pub(super) fn begin(kv: &dyn Kv, migrations: &[Migration]) -> Result<()> {
    let schema = if is_empty(kv)? { known(migrations) } else { 1 };
    Checked::adopt(kv, vec![put(schema)])?;
    kv.sync()
}

/// Refuses a store that a newer version of this software made or changed.
pub(super) fn refuse_newer(found: u32, path: &Path, migrations: &[Migration]) -> Result<()> {
    match known(migrations) {
        known if found > known => Err(KvError::Newer { path: path.into(), found, known }),
        _ => Ok(()),
    }
}

/// Brings a store to today's schema, one migration after the other.
pub(super) fn migrate(kv: &Checked, path: &Path, migrations: &[Migration]) -> Result<()> {
    let gone = || KvError::Corrupt { path: path.into(), what: "its schema is gone".into() };
    let mut schema = found(kv, path)?.filter(|n| *n > 0).ok_or_else(gone)?;
    for migration in migrations.iter().skip(schema as usize - 1) {
        let mut ops = migration(kv)?;
        schema += 1;
        ops.push(put(schema));
        kv.write(ops)?;
        kv.sync()?;
        tracing::info!(path = %path.display(), schema, "brought the store to a newer schema");
    }
    Ok(())
}
