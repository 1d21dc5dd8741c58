use std::collections::BTreeMap;

use super::*;
use crate::raft::kv::{Op, Row, parts};

/// Rows in memory.
struct Memory(BTreeMap<Vec<u8>, Vec<u8>>);

impl Kv for Memory {
    fn get(&self, _: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.0.get(key).cloned())
    }
    fn scan(&self, _: Table, from: &[u8], to: &[u8], max: usize) -> Result<Vec<Row>> {
        let rows = self.0.range(from.to_vec()..to.to_vec()).take(max);
        Ok(rows.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
    fn last(&self, _: Table) -> Result<Option<Row>> {
        unreachable!("nobody asks")
    }
    fn write(&self, _: Vec<Op>) -> Result<()> {
        unreachable!("nothing is written")
    }
    fn sync(&self) -> Result<()> {
        Ok(())
    }
}

fn memory(keys: impl IntoIterator<Item = Vec<u8>>) -> Memory {
    Memory(keys.into_iter().map(|key| (key, Vec::new())).collect())
}

/// How many rows each part has; together they are all rows, in order.
fn sizes(kv: &Memory) -> Vec<usize> {
    let ends = ends(kv).expect("reads");
    assert!(ends.is_sorted(), "{ends:?}");
    let mut seen = Vec::new();
    let sizes = parts(&ends).map(|(from, to)| {
        let rows = kv.scan(Table::State, from, to, usize::MAX).expect("reads");
        seen.extend(rows.iter().map(|(key, _)| key.clone()));
        rows.len()
    });
    let sizes = sizes.collect();
    assert_eq!(seen, kv.0.keys().cloned().collect::<Vec<_>>());
    sizes
}

#[test]
fn small_tables_are_read_in_one_part_each() {
    assert_eq!(sizes(&memory([])), [0]);
    let keys = [[1, 0], [1, 1], [3, 7], [255, 0], [255, 9]].map(Vec::from);
    assert_eq!(sizes(&memory(keys)), [0, 2, 1, 2]);
}

#[test]
fn what_is_taken_in_as_a_whole_is_never_parted() {
    // Ended certificates, by serial number, and accepted heads: a later part would take the place of those before it.
    for table in [21, 24] {
        let rows =
            (0..5_000_u64).map(|n| [&[table][..], &n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()].concat());
        assert_eq!(sizes(&memory(rows)), [0, 5_000], "table {table}");
    }
}

#[test]
fn large_tables_are_parted_where_their_keys_differ_first() {
    let of = |table: u8, key: &str| [&[table], key.as_bytes()].concat();
    let small = [of(1, "a"), of(9, "b")];
    // As serial numbers are, and names that all begin with the same; one is the beginning of all others.
    let serials = (0..20_000_u64).map(|n| of(5, &format!("01{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))));
    let names = (0..9_000).map(|n| of(16, &format!("laptop-{n:07}.example.org"))).chain([of(16, "laptop-000")]);
    let numbers = (0..5_000_u64).map(|n| [&[8][..], &n.to_be_bytes()].concat());
    let sizes = sizes(&memory(small.into_iter().chain(serials).chain(names).chain(numbers)));
    let large: Vec<_> = sizes.iter().filter(|n| **n > 1).collect();
    assert_eq!(large.len(), 16 + 9 + 20, "{sizes:?}");
    assert!(large.iter().all(|n| **n <= 1_500), "{sizes:?}");
}
