//! What every engine must do, and every layer over one.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};

use super::*;

/// Opens the store in a folder.
pub(crate) type Open<'o> = &'o dyn Fn(&Path) -> Result<Arc<dyn Kv>>;

/// Threads of an engine may hold its lock for a moment after the last handle is gone; a node waits for that, too.
pub(crate) fn opened<T>(open: impl Fn() -> Result<T>) -> Result<T> {
    loop {
        match open() {
            Err(KvError::Locked { .. }) => std::thread::yield_now(),
            other => return other,
        }
    }
}

fn put(table: Table, key: &[u8], value: &[u8]) -> Op {
    Op::Put(table, key.to_vec(), value.to_vec())
}

fn all(kv: &dyn Kv, table: Table) -> Vec<Row> {
    kv.scan(table, &[], &KEY_END, usize::MAX).expect("scans")
}

/// All of it.
pub(crate) fn run(open: Open<'_>) {
    let test = |name: &str, test: fn(Open<'_>, &Path)| {
        let dir = tempfile::tempdir().expect("temporary folder");
        // Shown with a failure.
        eprint_name(name);
        test(open, &dir.path().join("store"));
    };
    test("a new store is empty", a_new_store_is_empty);
    test("tables do not touch each other", tables_do_not_touch_each_other);
    test("the last word on a key wins", the_last_word_on_a_key_wins);
    test("ranges have a first key and an end", ranges_have_a_first_key_and_an_end);
    test("values of any size come back", values_of_any_size_come_back);
    test("what was synced is there after opening again", what_was_synced_is_there_after_opening_again);
    test("a second opener is told of the first", a_second_opener_is_told_of_the_first);
    test("readers see writes whole", readers_see_writes_whole);
    test("it behaves like a map", it_behaves_like_a_map);
}

#[allow(clippy::print_stderr, reason = "shown with a failure")]
fn eprint_name(name: &str) {
    eprintln!("suite: {name}");
}

fn a_new_store_is_empty(open: Open<'_>, path: &Path) {
    let kv = open(path).expect("opens");
    for table in Table::CONTENT {
        assert_eq!(kv.get(table, b"k").expect("gets"), None);
        assert_eq!(kv.last(table).expect("last"), None);
        assert!(all(&*kv, table).is_empty());
    }
    kv.write(Vec::new()).expect("an empty write is one");
    kv.sync().expect("syncs");
}

fn tables_do_not_touch_each_other(open: Open<'_>, path: &Path) {
    let kv = open(path).expect("opens");
    let keys: [&[u8]; 4] = [b"", b"\0", b"k", &[0xff; 8]];
    let ops = Table::CONTENT.iter().flat_map(|t| keys.map(|k| put(*t, k, &[*t as u8, k.len() as u8]))).collect();
    kv.write(ops).expect("writes");
    kv.write(vec![Op::DelRange(Table::Log, Vec::new(), KEY_END.to_vec())]).expect("writes");
    assert!(all(&*kv, Table::Log).is_empty());
    assert_eq!(kv.last(Table::Log).expect("last"), None);
    for table in [Table::Meta, Table::State] {
        let rows: Vec<Row> = keys.iter().map(|k| (k.to_vec(), vec![table as u8, k.len() as u8])).collect();
        assert_eq!(all(&*kv, table), rows);
        assert_eq!(kv.last(table).expect("last"), rows.last().cloned());
    }
}

fn the_last_word_on_a_key_wins(open: Open<'_>, path: &Path) {
    let kv = open(path).expect("opens");
    let range = |from: &[u8], to: &[u8]| Op::DelRange(Table::State, from.to_vec(), to.to_vec());
    let del = |key: &[u8]| Op::Del(Table::State, key.to_vec());
    let cases: [(Vec<Op>, Option<&[u8]>); 8] = [
        (vec![put(Table::State, b"k", b"1"), put(Table::State, b"k", b"2")], Some(b"2")),
        (vec![put(Table::State, b"k", b"3"), del(b"k")], None),
        (vec![del(b"k"), put(Table::State, b"k", b"4")], Some(b"4")),
        (vec![put(Table::State, b"k", b"5"), range(b"a", b"z")], None),
        (vec![range(b"a", b"z"), put(Table::State, b"k", b"6")], Some(b"6")),
        (vec![range(b"k", b"k"), range(b"z", b"a")], Some(b"6")),
        (vec![range(b"a", b"k")], Some(b"6")),
        (vec![range(b"k", b"k\0"), del(b"k"), del(b"never there")], None),
    ];
    for (ops, expected) in cases {
        let text = format!("{ops:?}");
        kv.write(ops).expect("writes");
        assert_eq!(kv.get(Table::State, b"k").expect("gets").as_deref(), expected, "{text}");
    }
}

fn ranges_have_a_first_key_and_an_end(open: Open<'_>, path: &Path) {
    let kv = open(path).expect("opens");
    kv.write((0..100u64).map(|i| put(Table::Log, &i.to_be_bytes(), &[i as u8])).collect()).expect("writes");
    let scan = |from: u64, to: u64, max| -> Vec<u8> {
        let rows = kv.scan(Table::Log, &from.to_be_bytes(), &to.to_be_bytes(), max).expect("scans");
        rows.into_iter().map(|(_, v)| v[0]).collect()
    };
    assert_eq!(scan(7, 10, 100), [7, 8, 9]);
    assert_eq!(scan(7, 10, 2), [7, 8]);
    assert_eq!(scan(7, 10, 0), [0u8; 0]);
    assert_eq!(scan(98, 1_000, usize::MAX), [98, 99]);
    assert_eq!(scan(9, 9, 5), [0u8; 0]);
    assert_eq!(scan(9, 3, 5), [0u8; 0]);
    kv.write(vec![Op::DelRange(Table::Log, 10u64.to_be_bytes().to_vec(), 90u64.to_be_bytes().to_vec())])
        .expect("writes");
    assert_eq!(scan(8, 92, 100), [8, 9, 90, 91]);
    assert_eq!(kv.last(Table::Log).expect("last").map(|(_, v)| v), Some(vec![99]));
}

fn values_of_any_size_come_back(open: Open<'_>, path: &Path) {
    let value = |n: usize| -> Vec<u8> { (0..n).map(|i| (i % 251) as u8).collect() };
    let sizes = [0, 1, 3_999, 4_000, 4_001, 8_000, 19 * 1024, 300_000, 2_000_000];
    let kv = open(path).expect("opens");
    for (i, size) in sizes.into_iter().enumerate() {
        kv.write(vec![put(Table::Log, &[i as u8], &value(size))]).expect("writes");
        kv.sync().expect("syncs");
    }
    let check = |kv: &dyn Kv| {
        for (i, (key, stored)) in all(kv, Table::Log).into_iter().enumerate() {
            assert_eq!((key, stored.len()), (vec![i as u8], sizes[i]));
            assert_eq!(stored, value(sizes[i]));
            assert_eq!(kv.get(Table::Log, &[i as u8]).expect("gets"), Some(stored));
        }
        assert_eq!(all(kv, Table::Log).len(), sizes.len());
    };
    check(&*kv);
    drop(kv);
    let kv = opened(|| open(path)).expect("opens again");
    check(&*kv);
    // Smaller in the place of larger.
    kv.write((0..sizes.len()).map(|i| put(Table::Log, &[i as u8], b"s")).collect()).expect("writes");
    assert!(all(&*kv, Table::Log).iter().all(|(_, v)| v == b"s"));
}

fn what_was_synced_is_there_after_opening_again(open: Open<'_>, path: &Path) {
    for round in 0..5u64 {
        let kv = opened(|| open(path)).expect("opens");
        assert_eq!(all(&*kv, Table::State).len() as u64, round * 50);
        for i in 0..50 {
            kv.write(vec![put(Table::State, &(round * 50 + i).to_be_bytes(), &[7; 100])]).expect("writes");
        }
        kv.sync().expect("syncs");
    }
}

fn a_second_opener_is_told_of_the_first(open: Open<'_>, path: &Path) {
    let kv = open(path).expect("opens");
    kv.write(vec![put(Table::Meta, b"k", b"v")]).expect("writes");
    match open(path) {
        Err(KvError::Locked { path: named }) => assert_eq!(named, path),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("two writers"),
    }
    assert_eq!(kv.get(Table::Meta, b"k").expect("gets").as_deref(), Some(b"v".as_slice()));
}

/// A row in each of two tables carries the same number: whoever reads the first one first never sees the second behind.
fn readers_see_writes_whole(open: Open<'_>, path: &Path) {
    let kv = open(path).expect("opens");
    let write = |n: u64| {
        let value = n.to_be_bytes();
        kv.write(vec![put(Table::Log, b"n", &value), put(Table::State, b"n", &value)]).expect("writes");
    };
    let read = |table| {
        let value = kv.get(table, b"n").expect("gets").expect("there");
        u64::from_be_bytes(value.try_into().expect("eight bytes"))
    };
    write(0);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (1..500).for_each(write));
        while !writer.is_finished() {
            let log = read(Table::Log);
            let state = read(Table::State);
            assert!(state >= log, "{state} {log}");
        }
    });
    assert_eq!((read(Table::Log), read(Table::State)), (499, 499));
}

#[derive(Clone, Debug)]
enum Step {
    Put(Table, u8, usize),
    Del(Table, u8),
    DelRange(Table, u8, u8),
    Sync,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let table = || prop::sample::select(Table::CONTENT.to_vec());
    let size = prop_oneof![0..100usize, 3_980..4_010usize, 8_000..20_000usize];
    prop_oneof![
        8 => (table(), 0..12u8, size).prop_map(|(t, k, n)| Step::Put(t, k, n)),
        2 => (table(), 0..12u8).prop_map(|(t, k)| Step::Del(t, k)),
        2 => (table(), 0..12u8, 0..12u8).prop_map(|(t, a, b)| Step::DelRange(t, a, b)),
        1 => Just(Step::Sync),
        1 => Just(Step::Reopen),
    ]
}

fn it_behaves_like_a_map(open: Open<'_>, path: &Path) {
    let batches = prop::collection::vec(prop::collection::vec(step(), 1..6), 1..12);
    let mut runner = TestRunner::new(ProptestConfig { cases: 24, ..ProptestConfig::default() });
    let case = std::cell::Cell::new(0u32);
    let outcome = runner.run(&batches, |batches| {
        case.set(case.get() + 1);
        let path = path.join(case.get().to_string());
        let kv = std::cell::RefCell::new(Some(open(&path).map_err(|e| TestCaseError::fail(e.to_string()))?));
        let mut model: BTreeMap<(Table, u8), Vec<u8>> = BTreeMap::new();
        for (number, batch) in batches.into_iter().enumerate() {
            let mut ops = Vec::new();
            let flush = |ops: &mut Vec<Op>| {
                let kv = kv.borrow();
                kv.as_ref().expect("open").write(std::mem::take(ops)).expect("writes");
            };
            for step in batch {
                match step {
                    Step::Put(t, k, n) => {
                        model.insert((t, k), vec![number as u8; n]);
                        ops.push(put(t, &[k], &vec![number as u8; n]));
                    }
                    Step::Del(t, k) => {
                        model.remove(&(t, k));
                        ops.push(Op::Del(t, vec![k]));
                    }
                    Step::DelRange(t, a, b) => {
                        model.retain(|(table, k), _| !(*table == t && *k >= a && *k < b));
                        ops.push(Op::DelRange(t, vec![a], vec![b]));
                    }
                    Step::Sync => {
                        flush(&mut ops);
                        kv.borrow().as_ref().expect("open").sync().expect("syncs");
                    }
                    Step::Reopen => {
                        flush(&mut ops);
                        kv.borrow().as_ref().expect("open").sync().expect("syncs");
                        kv.replace(None);
                        kv.replace(Some(opened(|| open(&path)).expect("opens again")));
                    }
                }
            }
            flush(&mut ops);
            let kv = kv.borrow();
            let kv = kv.as_ref().expect("open");
            for table in Table::CONTENT {
                let rows = all(&**kv, table);
                let expected: Vec<Row> =
                    model.iter().filter(|((t, _), _)| *t == table).map(|((_, k), v)| (vec![*k], v.clone())).collect();
                prop_assert_eq!(&rows, &expected);
                prop_assert_eq!(kv.last(table).expect("last"), expected.last().cloned());
                for k in 0..12 {
                    prop_assert_eq!(kv.get(table, &[k]).expect("gets"), model.get(&(table, k)).cloned());
                }
            }
        }
        Ok(())
    });
    if let Err(e) = outcome {
        panic!("{e}");
    }
}
