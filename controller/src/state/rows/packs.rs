//! Numbered rows that come and go in their order, stored several together: a store works for each row that it is given, however
//! short, and of these there is one or two for each session.

use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};

use prost::Message;

use super::{FORMAT, Key, RowError, Rows};
use crate::raft::kv::{Op, Table};

/// The level at which rows are packed: those that come from then on.
pub(crate) const PACKS_LEVEL: u32 = 8;
/// Numbers in a pack: 0 to 15, 16 to 31 and so on.
const PACK: u64 = 16;

/// A pack as it is stored.
#[derive(Clone, PartialEq, prost::Message)]
struct Pack {
    /// Which numbers there are, less the first that a pack may have; ascending.
    #[prost(uint32, repeated, tag = "1")]
    at: Vec<u32>,
    /// Their rows.
    #[prost(bytes = "vec", repeated, tag = "2")]
    rows: Vec<Vec<u8>>,
}

/// A table whose keys are numbers.
#[derive(Clone, Debug)]
pub struct Numbered<V> {
    rows: Rows<u64, V>,
    /// The table of the packs.
    packs: u8,
    /// Rows with this number or a greater one are in packs, those before are stored one by one.
    packed_from: u64,
}

impl<V> Deref for Numbered<V> {
    type Target = Rows<u64, V>;

    fn deref(&self) -> &Self::Target {
        &self.rows
    }
}

impl<V> DerefMut for Numbered<V> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.rows
    }
}

impl<V: Message + Default> Numbered<V> {
    /// An empty table, and that of its packs.
    pub(in crate::state) fn new(tag: u8, packs: u8) -> Self {
        Self { rows: Rows::new(tag), packs, packed_from: u64::MAX }
    }

    /// From which number on rows are packed; no row with it or a greater one has been taken for stored yet.
    pub(in crate::state) fn pack_from(&mut self, number: Option<u64>) {
        self.packed_from = number.unwrap_or(u64::MAX);
    }

    fn pack_key(&self, pack: u64) -> Vec<u8> {
        let mut bytes = vec![self.packs];
        bytes.extend((pack * PACK).to_bytes());
        bytes
    }

    /// As it is stored; `None` if it is empty.
    fn pack(&self, pack: u64) -> Option<Vec<u8>> {
        let first = pack * PACK;
        let mut stored = Pack::default();
        for (number, row) in self.rows.range(first.max(self.packed_from)..=first + (PACK - 1)) {
            stored.at.push((number % PACK) as u32);
            stored.rows.push(row.encode_to_vec());
        }
        (!stored.at.is_empty()).then(|| Rows::<u64, Pack>::stored_value(&stored))
    }

    /// Changes since the last call, as storage operations.
    pub(in crate::state) fn take_changes(&mut self, ops: &mut Vec<Op>) {
        let packed = self.rows.dirty.split_off(&self.packed_from);
        self.rows.take_changes(ops);
        let packs: BTreeSet<u64> = packed.into_iter().map(|number| number / PACK).collect();
        ops.extend(packs.into_iter().map(|pack| match self.pack(pack) {
            Some(stored) => Op::Put(Table::State, self.pack_key(pack), stored),
            None => Op::Del(Table::State, self.pack_key(pack)),
        }));
    }

    /// Each row that is stored by itself.
    pub(in crate::state) fn each_row<E>(
        &self,
        each: &mut impl FnMut(Vec<u8>, Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut single = self.rows.range(..self.packed_from);
        single.try_for_each(|(number, row)| each(self.rows.stored_key(number), Rows::<u64, V>::stored_value(row)))
    }

    /// Each pack as stored.
    pub(in crate::state) fn each_pack<E>(
        &self,
        each: &mut impl FnMut(Vec<u8>, Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut next = self.packed_from;
        while let Some((&number, _)) = self.rows.range(next..).next() {
            let pack = number / PACK;
            if let Some(stored) = self.pack(pack) {
                each(self.pack_key(pack), stored)?;
            }
            let Some(behind) = (pack + 1).checked_mul(PACK) else { break };
            next = behind;
        }
        Ok(())
    }

    /// Takes in a stored pack, as [`Rows::load`] takes in a row.
    pub(in crate::state) fn load_pack(&mut self, key: &[u8], value: &[u8]) -> Result<(), RowError> {
        let damaged = || RowError::Damaged(self.packs);
        let stored = match value.split_first() {
            Some((&FORMAT, rest)) => Pack::decode(rest).map_err(|_| damaged())?,
            Some((&other, _)) => return Err(RowError::Format(other)),
            None => return Err(damaged()),
        };
        let first = u64::from_bytes(key).filter(|first| first % PACK == 0).ok_or_else(damaged)?;
        let ascending = stored.at.windows(2).all(|two| two[0] < two[1]);
        let within = stored.at.last().is_some_and(|last| u64::from(*last) < PACK);
        if !ascending || !within || stored.at.len() != stored.rows.len() {
            return Err(damaged());
        }
        for (at, row) in stored.at.iter().zip(&stored.rows) {
            let row = V::decode(row.as_slice()).map_err(|_| damaged())?;
            self.rows.take_in(first + u64::from(*at), row);
        }
        Ok(())
    }

    /// Takes in what another one has loaded.
    pub(in crate::state) fn absorb(&mut self, other: Self) {
        self.rows.absorb(other.rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::SessionRow;

    const SINGLE: u8 = 200;
    const PACKS: u8 = 201;

    fn row(address: u32) -> SessionRow {
        SessionRow { address, ..SessionRow::default() }
    }

    fn table(packed_from: u64, numbers: impl IntoIterator<Item = u64>) -> Numbered<SessionRow> {
        let mut table = Numbered::new(SINGLE, PACKS);
        table.pack_from(Some(packed_from));
        for number in numbers {
            table.insert(number, row(number as u32));
        }
        table
    }

    fn stored(table: &Numbered<SessionRow>) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        let mut push = |key, value| {
            rows.push((key, value));
            Ok::<_, ()>(())
        };
        assert_eq!(table.each_row(&mut push).and_then(|()| table.each_pack(&mut push)), Ok(()));
        rows
    }

    fn changes(table: &mut Numbered<SessionRow>) -> Vec<Op> {
        let mut ops = Vec::new();
        table.take_changes(&mut ops);
        ops
    }

    #[test]
    fn rows_before_the_level_stay_one_by_one_and_those_since_share_packs() {
        let mut table = table(18, 10..50);
        let rows = stored(&table);
        let tags: Vec<u8> = rows.iter().map(|(key, _)| key[0]).collect();
        assert_eq!(tags, [vec![SINGLE; 8], vec![PACKS; 3]].concat(), "10 to 17, then those of 16, 32 and 48");
        assert_eq!(changes(&mut table).len(), 11);

        let mut read = Numbered::<SessionRow>::new(SINGLE, PACKS);
        for (key, value) in &rows {
            let done = if key[0] == SINGLE { read.load(&key[1..], value) } else { read.load_pack(&key[1..], value) };
            done.expect("reads");
        }
        read.loaded();
        read.pack_from(Some(18));
        assert!(read.iter().eq(table.iter()));
        assert_eq!(stored(&read), rows);
        assert!(changes(&mut read).is_empty());
    }

    #[test]
    fn a_pack_is_written_once_for_all_that_changed_in_it_and_goes_with_its_last_row() {
        let mut table = table(0, 0..32);
        changes(&mut table);
        for _ in 0..15 {
            table.pop_first();
        }
        table.insert(32, row(1));
        let ops = changes(&mut table);
        assert!(matches!(&ops[..], [Op::Put(_, a, _), Op::Put(_, b, _)] if a[8] == 0 && b[8] == 32), "{ops:?}");
        table.pop_first();
        let ops = changes(&mut table);
        assert!(matches!(&ops[..], [Op::Del(_, key)] if key[8] == 0), "{ops:?}");
        assert_eq!(stored(&table).len(), 2);
    }

    #[test]
    fn what_no_pack_says_is_refused() {
        let key = 16u64.to_bytes();
        let load = |key: &[u8], at: Vec<u32>, rows: usize| {
            let pack = Pack { at, rows: vec![row(1).encode_to_vec(); rows] };
            Numbered::<SessionRow>::new(SINGLE, PACKS).load_pack(key, &Rows::<u64, Pack>::stored_value(&pack))
        };
        assert!(load(&key, vec![0, 15], 2).is_ok());
        for (at, rows) in [(vec![16], 1), (vec![1, 1], 2), (vec![2, 1], 2), (vec![], 0), (vec![1], 2), (vec![1, 2], 1)]
        {
            assert!(matches!(load(&key, at.clone(), rows), Err(RowError::Damaged(PACKS))), "{at:?}, {rows}");
        }
        assert!(load(&17u64.to_bytes(), vec![1], 1).is_err());
        assert!(load(&key[1..], vec![1], 1).is_err());
        let mut newer = Rows::<u64, Pack>::stored_value(&Pack::default());
        newer[0] = 2;
        let refused = Numbered::<SessionRow>::new(SINGLE, PACKS).load_pack(&key, &newer);
        assert!(matches!(refused, Err(RowError::Format(2))));
    }
}
