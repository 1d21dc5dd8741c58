use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// An engine in memory that can be tampered with.
#[derive(Default)]
struct Memory {
    rows: RwLock<Rows>,
    fails: AtomicBool,
    panics: AtomicBool,
}

impl Memory {
    fn tamper<T>(&self, how: impl FnOnce(&mut Rows) -> T) -> T {
        how(&mut self.rows.write().expect("no panic"))
    }
}

impl Kv for Memory {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.tamper(|rows| rows.get(&(table, key.to_vec())).cloned()))
    }
    fn scan(&self, table: Table, from: &[u8], to: &[u8], max: usize) -> Result<Vec<Row>> {
        let range = (table, from.to_vec())..(table, to.to_vec());
        Ok(self.tamper(|rows| rows.range(range).take(max).map(|((_, k), v)| (k.clone(), v.clone())).collect()))
    }
    fn last(&self, table: Table) -> Result<Option<Row>> {
        Ok(self.scan(table, &[], &KEY_END, usize::MAX)?.pop())
    }
    fn write(&self, ops: Vec<Op>) -> Result<()> {
        assert!(!self.panics.load(Ordering::SeqCst), "invariants are broken");
        self.tamper(|rows| {
            for op in ops {
                match op {
                    Op::Put(t, k, v) => drop(rows.insert((t, k), v)),
                    Op::Del(t, k) => drop(rows.remove(&(t, k))),
                    Op::DelRange(t, a, b) => rows.retain(|(table, k), _| *table != t || *k < a || *k >= b),
                }
            }
        });
        Ok(())
    }
    fn sync(&self) -> Result<()> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(KvError::Io { path: "disk".into(), source: io::Error::other("input/output error") });
        }
        Ok(())
    }
}

struct Place {
    dir: tempfile::TempDir,
    memory: Arc<Memory>,
}

impl Place {
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().expect("temporary folder"), memory: Arc::default() };
        Checked::adopt(&*place.memory, Vec::new()).expect("begins");
        let kv = place.open().expect("opens");
        for i in 0..600u64 {
            kv.write(vec![Op::Put(Table::Log, i.to_be_bytes().to_vec(), vec![i as u8; 20])]).expect("writes");
            kv.write(vec![Op::Put(Table::State, i.to_be_bytes().to_vec(), vec![i as u8; 5])]).expect("writes");
        }
        kv.write(vec![Op::Put(Table::Meta, b"vote".to_vec(), b"v".to_vec())]).expect("writes");
        kv.sync().expect("syncs");
        place
    }

    fn open(&self) -> Result<Checked> {
        Checked::open(self.memory.clone(), self.dir.path(), Witness::open(self.dir.path())?)
    }

    fn refusal(&self) -> String {
        match self.open() {
            Err(e) => {
                assert!(matches!(e, KvError::Corrupt { .. }), "{e}");
                e.to_string()
            }
            Ok(_) => panic!("it opens"),
        }
    }
}

fn whole(kv: &Checked, table: Table) -> Result<Vec<Row>> {
    kv.scan(table, &[], &KEY_END, usize::MAX)
}

#[test]
fn totals_and_the_numbers_of_writes_survive_their_encoding() {
    let sum = |n| Sum { rows: n, sum: u64::MAX - n };
    let totals = Totals { writes: 77, tables: [sum(1), sum(2), sum(3)] };
    let mut bytes = totals.to_bytes();
    assert_eq!(Totals::from_bytes(&bytes), Some(totals));
    for i in 0..bytes.len() {
        bytes[i] ^= 1;
        assert_eq!(Totals::from_bytes(&bytes), None, "byte {i}");
        bytes[i] ^= 1;
    }
    assert_eq!(Totals::from_bytes(&bytes[..50]), None);
    assert_eq!(Totals::from_bytes(&[]), None);
}

#[test]
fn a_changed_row_is_found_wherever_the_change_is() {
    let place = Place::new();
    for table in [Table::Log, Table::State] {
        let key = 123u64.to_be_bytes();
        let good = place.memory.get(table, &key).expect("gets").expect("there");
        for i in 0..good.len() {
            let kv = place.open().expect("opens");
            place.memory.tamper(|rows| rows.get_mut(&(table, key.to_vec())).expect("there")[i] ^= 0x40);
            let error = kv.get(table, &key).expect_err("changed");
            assert!(matches!(error, KvError::Corrupt { .. }), "{error}");
            // From then on nothing is answered.
            assert!(matches!(kv.get(Table::Meta, b"vote"), Err(KvError::Failed { .. })));
            assert!(matches!(kv.write(Vec::new()), Err(KvError::Failed { .. })));
            assert!(matches!(kv.sync(), Err(KvError::Failed { .. })));
            match table {
                Table::State => assert!(whole(&place.open().expect("opens"), table).is_err()),
                _ => drop(place.refusal()),
            }
            place.memory.tamper(|rows| rows.insert((table, key.to_vec()), good.clone()));
        }
    }
    assert_eq!(whole(&place.open().expect("opens"), Table::State).expect("reads").len(), 600);
}

#[test]
fn rows_that_are_gone_doubled_or_exchanged_are_found() {
    type Tamper = fn(&mut Rows, Table);
    let tampers: [Tamper; 5] = [
        |rows, t| drop(rows.remove(&(t, 599u64.to_be_bytes().to_vec()))),
        |rows, t| drop(rows.remove(&(t, 0u64.to_be_bytes().to_vec()))),
        |rows, t| rows.retain(|(table, _), _| *table != t),
        |rows, t| {
            let value = rows[&(t, 5u64.to_be_bytes().to_vec())].clone();
            rows.insert((t, 600u64.to_be_bytes().to_vec()), value);
        },
        |rows, t| {
            let (a, b) = ((t, 5u64.to_be_bytes().to_vec()), (t, 6u64.to_be_bytes().to_vec()));
            let (x, y) = (rows[&a].clone(), rows[&b].clone());
            rows.extend([(a, y), (b, x)]);
        },
    ];
    for (i, tamper) in tampers.into_iter().enumerate() {
        let place = Place::new();
        place.memory.tamper(|rows| tamper(rows, Table::Log));
        place.refusal();
        let place = Place::new();
        place.memory.tamper(|rows| tamper(rows, Table::State));
        let kv = place.open().expect("the state is looked at when it is read");
        assert!(whole(&kv, Table::State).is_err(), "{i}");
        assert!(place.open().expect("opens").verify(Table::State).is_err(), "{i}");
    }
}

#[test]
fn a_whole_state_that_is_older_than_what_was_synced_is_found() {
    let place = Place::new();
    let old = place.memory.tamper(|rows| rows.clone());
    let kv = place.open().expect("opens");
    let write = |kv: &Checked, value: u8| {
        kv.write(vec![Op::Put(Table::Meta, b"vote".to_vec(), vec![value])]).expect("writes");
    };
    write(&kv, 1);
    // What was not synced may be lost.
    let newer = place.memory.tamper(|rows| std::mem::replace(rows, old.clone()));
    drop(place.open().expect("opens"));
    place.memory.tamper(|rows| *rows = newer);
    kv.sync().expect("syncs");
    place.memory.tamper(|rows| *rows = old);
    let text = place.refusal();
    assert!(text.contains("was synced") && text.contains("lost"), "{text}");
}

#[test]
fn one_slot_of_the_witness_may_be_torn_and_not_both() {
    let place = Place::new();
    let last = Witness::open(place.dir.path()).expect("opens").last();
    assert!(last > 1_000, "{last}");
    let file = place.dir.path().join(Witness::FILE);
    let good = std::fs::read(&file).expect("reads");
    let kv = place.open().expect("opens");
    kv.write(Vec::new()).expect("writes");
    kv.sync().expect("syncs");
    let now = Witness::open(place.dir.path()).expect("opens").last();
    assert_eq!(now, last + 1);
    let later = std::fs::read(&file).expect("reads");
    let changed: Vec<usize> = (0..good.len()).filter(|i| good[*i] != later[*i]).collect();
    let mut torn = later.clone();
    torn[changed[0]] ^= 1;
    std::fs::write(&file, &torn).expect("tears");
    assert_eq!(Witness::open(place.dir.path()).expect("opens").last(), last);
    for slot in [0, Witness::APART as usize] {
        torn = torn.iter().enumerate().map(|(i, b)| if i == slot + 3 { !b } else { *b }).collect();
    }
    std::fs::write(&file, &torn).expect("tears");
    assert!(place.refusal().contains("SYNCED"));
    // A file cut short is as good as none.
    std::fs::write(&file, &later[..20]).expect("cuts");
    assert_eq!(Witness::open(place.dir.path()).expect("opens").last(), 0);
}

#[test]
fn after_a_sync_that_failed_a_later_one_is_not_believed() {
    let place = Place::new();
    let kv = place.open().expect("opens");
    kv.write(Vec::new()).expect("writes");
    place.memory.fails.store(true, Ordering::SeqCst);
    assert!(matches!(kv.sync(), Err(KvError::Io { .. })));
    place.memory.fails.store(false, Ordering::SeqCst);
    let again = kv.sync().expect_err("it failed before").to_string();
    assert!(again.contains("input/output error"), "{again}");
}

#[test]
fn a_panic_of_the_engine_is_a_failure_for_good() {
    let place = Place::new();
    let kv = place.open().expect("opens");
    place.memory.panics.store(true, Ordering::SeqCst);
    assert!(kv.write(Vec::new()).is_err_and(|e| e.to_string().contains("panicked")));
    place.memory.panics.store(false, Ordering::SeqCst);
    assert!(matches!(kv.write(Vec::new()), Err(KvError::Failed { .. })));
    drop(kv);
    assert_eq!(whole(&place.open().expect("opens"), Table::Log).expect("reads").len(), 600);
}

/// A store whose rows of the state from 100 to 500 are left for later.
fn partly_read(place: &Place) -> Checked {
    let kv = place.open().expect("opens");
    let ends = [100_u64, 500].map(|n| n.to_be_bytes().to_vec());
    let read = Mutex::new(0);
    kv.each_part(Table::State, &ends, &|part| {
        let mut read = read.lock().expect("no panic");
        *read += part;
        (part != 1).then(|| Box::new(|_: &[u8], _: &[u8]| {}) as Sink<'static>)
    })
    .expect("reads");
    assert_eq!(*read.lock().expect("no panic"), 3, "each part once");
    kv
}

fn put(kv: &Checked, key: &[u8]) {
    kv.write(vec![Op::Put(Table::State, key.to_vec(), b"changed".to_vec())]).expect("writes");
}

fn rest(kv: &Checked) -> Result<usize> {
    let mut steps = 1;
    while kv.check_more()? {
        steps += 1;
    }
    Ok(steps)
}

#[test]
fn what_was_left_out_is_checked_while_it_changes() {
    let place = Place::new();
    let kv = partly_read(&place);
    let key = |n: u64| n.to_be_bytes();
    // Rows that were read and rows that were not, before the first page, behind it and beyond it.
    for n in [5, 150, 450, 550] {
        put(&kv, &key(n));
    }
    kv.write(vec![Op::Del(Table::State, key(160).to_vec())]).expect("writes");
    assert!(kv.check_more().expect("as written"));
    for n in [6, 151, 451, 551] {
        put(&kv, &key(n));
        put(&kv, &[key(n).as_slice(), &[7]].concat());
    }
    let range = |from, to| Op::DelRange(Table::State, key(from).to_vec(), key(to).to_vec());
    kv.write(vec![range(200, 210), range(470, 480), range(495, 505)]).expect("writes");
    assert_eq!(rest(&kv).expect("as written"), 2, "and the sum");
    assert!(!kv.check_more().expect("nothing is left"));
    put(&kv, &key(170));
    assert_eq!(rest(&place.open().expect("opens")).expect("nothing was left out"), 1);
    whole(&place.open().expect("opens"), Table::State).expect("as written");
}

#[test]
fn damage_in_what_was_left_out_stops_the_store() {
    let key = |n: u64| (Table::State, n.to_be_bytes().to_vec());
    type Tamper = fn(&mut Rows, (Table, Vec<u8>));
    let tampers: [Tamper; 3] = [
        |rows, key| drop(rows.remove(&key)),
        |rows, key| rows.get_mut(&key).expect("there")[0] ^= 1,
        |rows, key| {
            let value = rows[&key].clone();
            rows.insert((Table::State, 499_u64.to_be_bytes().to_vec()), value);
        },
    ];
    for tamper in tampers {
        for n in [100, 300, 498] {
            let place = Place::new();
            place.memory.tamper(|rows| tamper(rows, key(n)));
            let kv = partly_read(&place);
            let error = rest(&kv).expect_err("damaged");
            assert!(matches!(error, KvError::Corrupt { .. }), "{error}");
            assert!(matches!(kv.get(Table::Meta, b"vote"), Err(KvError::Failed { .. })));
        }
    }
    // Nothing of that is in the parts that were read at once.
    let place = Place::new();
    place.memory.tamper(|rows| rows.remove(&key(50)));
    assert!(rest(&partly_read(&place)).is_err(), "found with the sum of all");
}
