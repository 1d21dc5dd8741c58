use super::*;
use crate::config::Engine;
use crate::raft::store;

fn key(n: u64) -> Vec<u8> {
    n.to_be_bytes().to_vec()
}

fn rest(view: &mut View) -> Vec<Row> {
    let mut rows = Vec::new();
    while let Some(page) = view.next_page().expect("reads") {
        rows.extend(page);
    }
    rows
}

#[test]
fn a_view_shows_one_moment_whatever_changes_while_it_is_read() {
    for engine in Engine::ALL {
        let dir = tempfile::tempdir().expect("temporary folder");
        let kv = store::open(&dir.path().join("store"), engine).expect("opens");
        let views = Views::new(kv.clone(), MAX_BEHIND);
        let row = |n: u64, word: &[u8]| Op::Put(Table::State, key(n), word.to_vec());
        // Every second key: there is room to add.
        let count = 3 * PAGE as u64;
        views.change().write((0..count).map(|n| row(2 * n, b"old")).collect()).expect("writes");
        let before = kv.scan(Table::State, &[], &KEY_END, usize::MAX).expect("scans");

        let (mut early, ()) = views.begin(|| ()).expect("begins");
        let (mut late, ()) = views.begin(|| ()).expect("begins");
        let first = early.next_page().expect("reads").expect("a page");
        assert_eq!(first.len(), PAGE);
        // On both sides of what was read, twice each; also at the seam, and the whole end of the table.
        let seam = 2 * PAGE as u64;
        for word in [b"new".as_slice(), b"newer"] {
            let mut ops: Vec<Op> = (0..20).chain(seam - 4..seam + 4).map(|n| row(n, word)).collect();
            ops.extend((seam + 4..seam + 40).step_by(4).map(|n| Op::Del(Table::State, key(n))));
            ops.extend((4 * PAGE as u64..6 * PAGE as u64).map(|n| Op::Del(Table::State, key(n))));
            ops.push(row(u64::MAX, word));
            ops.push(Op::Put(Table::Meta, b"applied".to_vec(), word.to_vec()));
            views.change().write(ops).expect("writes");
        }
        // What was not there comes back, and goes again.
        views.change().write(vec![row(seam + 4, b"again"), row(5 * PAGE as u64, b"again")]).expect("writes");
        views.change().write(vec![Op::Del(Table::State, key(seam + 4))]).expect("writes");

        assert_eq!([first, rest(&mut early)].concat(), before, "{engine:?}");
        assert_eq!(rest(&mut late), before, "{engine:?}");
        assert!(late.next_page().expect("reads").is_none());
        let (mut now, seen) = views.begin(|| kv.get(Table::Meta, b"applied").expect("reads")).expect("begins");
        assert_eq!(seen.as_deref(), Some(b"newer".as_slice()));
        assert_eq!(rest(&mut now), kv.scan(Table::State, &[], &KEY_END, usize::MAX).expect("scans"));
        drop((early, late, now));
        assert!(views.lock().views.is_empty(), "nothing is kept for views that are gone");
    }
}

#[test]
fn changes_wait_for_company_and_not_for_a_view() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let kv = store::open(&dir.path().join("store"), Engine::default()).expect("opens");
    let views = Views::new(kv.clone(), 10);
    let row = |n: u64, word: &[u8]| Op::Put(Table::State, key(n), word.to_vec());
    let stored = || kv.scan(Table::State, &[], &KEY_END, usize::MAX).expect("scans").len();
    for word in 0..50_u8 {
        views
            .change()
            .write_behind(vec![row(1, &[word]), row(2, b"new"), Op::Del(Table::State, key(3))])
            .expect("waits");
    }
    assert_eq!(stored(), 0, "three rows, however often");
    views.change().write_behind((4..11).map(|n| row(n, b"more")).collect()).expect("writes");
    assert_eq!(stored(), 9);
    assert_eq!(kv.get(Table::State, &key(1)).expect("reads"), Some(vec![49]));

    views.change().write_behind(vec![row(1, b"seen"), Op::Del(Table::State, key(2))]).expect("waits");
    assert_eq!(stored(), 9);
    let (mut view, there) = views.begin(stored).expect("begins");
    assert_eq!(there, 8);
    views.change().write_behind(vec![row(1, b"unseen")]).expect("writes");
    assert_eq!(kv.get(Table::State, &key(1)).expect("reads").as_deref(), Some(b"unseen".as_slice()));
    assert_eq!(rest(&mut view).first(), Some(&(key(1), b"seen".to_vec())));
    drop(view);

    views.change().write_behind(vec![row(1, b"earlier"), row(20, b"earlier")]).expect("waits");
    views.change().write(vec![row(1, b"later")]).expect("writes");
    assert_eq!(kv.get(Table::State, &key(1)).expect("reads").as_deref(), Some(b"later".as_slice()));
    assert_eq!(stored(), 9);
    views.change().write_behind(vec![row(30, &vec![0; MAX_BEHIND_BYTES])]).expect("writes");
    assert_eq!(stored(), 10, "many bytes do not wait");
}
