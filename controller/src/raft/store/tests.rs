use std::path::PathBuf;

use super::*;
use crate::raft::convert::{Converted, convert};
use crate::raft::kv::KEY_END;
use crate::raft::kv::suite::{self, opened};

struct Place {
    _dir: tempfile::TempDir,
    store: PathBuf,
}

fn place() -> Place {
    let dir = tempfile::tempdir().expect("temporary folder");
    Place { store: dir.path().join("store"), _dir: dir }
}

fn put(table: Table, key: &[u8], value: &[u8]) -> Op {
    Op::Put(table, key.to_vec(), value.to_vec())
}

/// Some of everything.
fn fill(kv: &dyn Kv) {
    for i in 0..700u64 {
        let key = i.to_be_bytes();
        let ops =
            vec![put(Table::Log, &key, &[i as u8; 90]), put(Table::State, &key, &key), put(Table::Meta, b"at", &key)];
        kv.write(ops).expect("writes");
    }
    kv.write(vec![put(Table::State, b"large", &[9; 40_000])]).expect("writes");
    kv.sync().expect("syncs");
}

fn content(kv: &dyn Kv) -> Vec<Vec<Row>> {
    Table::CONTENT.iter().map(|t| kv.scan(*t, &[], &KEY_END, usize::MAX).expect("scans")).collect()
}

fn refusal(path: &Path, engine: Engine) -> KvError {
    match opened(|| open(path, engine)) {
        Err(e) => e,
        Ok(_) => panic!("it opens"),
    }
}

#[test]
fn both_engines_below_the_checks_do_what_every_engine_must() {
    for engine in Engine::ALL {
        suite::run(&|path| open(path, engine));
    }
}

#[test]
fn a_store_of_one_engine_is_refused_by_the_other_with_a_way_out() {
    for (mine, other) in [(Engine::Sled, Engine::Redb), (Engine::Redb, Engine::Sled)] {
        let place = place();
        fill(&*open(&place.store, mine).expect("opens"));
        let error = refusal(&place.store, other);
        assert!(matches!(error, KvError::OtherEngine { .. }), "{error}");
        let text = Error::from(error).to_string();
        for part in [mine.name(), other.name(), "convert", place.store.to_str().expect("text")] {
            assert!(text.contains(part), "{text}");
        }
        // Nothing has been harmed.
        let kv = opened(|| open(&place.store, mine)).expect("opens");
        assert_eq!(content(&*kv)[1].len(), 700);
    }
}

#[test]
fn sled_files_without_a_name_are_a_store_of_sled_and_get_checksums() {
    let place = place();
    let before = SledKv::open(&place.store).expect("opens");
    let rows = vec![put(Table::Meta, b"vote", b"v"), put(Table::Log, b"l", &[1; 9_000]), put(Table::State, b"s", b"")];
    before.write(rows).expect("writes");
    before.sync().expect("syncs");
    drop(before);
    assert!(matches!(refusal(&place.store, Engine::Redb), KvError::OtherEngine { .. }));
    let expected = vec![
        vec![(b"vote".to_vec(), b"v".to_vec())],
        vec![(b"l".to_vec(), vec![1; 9_000])],
        vec![(b"s".to_vec(), Vec::new())],
    ];
    for _ in 0..2 {
        let kv = opened(|| open(&place.store, Engine::Sled)).expect("opens");
        assert_eq!(content(&*kv), expected);
    }
}

#[test]
fn a_name_torn_at_the_very_first_start_is_written_again_and_a_strange_one_is_an_error() {
    for (torn, engine) in [("", Engine::Redb), ("re", Engine::Redb), ("sl", Engine::Redb), ("redb", Engine::Sled)] {
        let place = place();
        fs::create_dir_all(&place.store).expect("makes");
        fs::write(place.store.join(Marker::FILE), torn).expect("plants");
        open(&place.store, engine).expect("opens");
    }
    let place = place();
    fill(&*open(&place.store, Engine::Redb).expect("opens"));
    fs::write(place.store.join(Marker::FILE), "rocks").expect("plants");
    let error = refusal(&place.store, Engine::Redb);
    assert!(matches!(error, KvError::Corrupt { .. }) && error.to_string().contains("ENGINE"), "{error}");
}

#[test]
fn a_conversion_takes_everything_along_and_keeps_the_old_store() {
    for (from, to) in [(Engine::Sled, Engine::Redb), (Engine::Redb, Engine::Sled)] {
        let place = place();
        let kv = open(&place.store, from).expect("opens");
        fill(&*kv);
        let expected = content(&*kv);
        assert!(matches!(convert(&place.store, to), Err(KvError::Locked { .. })), "somebody has it open");
        drop(kv);
        let kept = place.store.with_extension("before-conversion");
        let done = opened(|| convert(&place.store, to)).expect("converts");
        assert_eq!(done, Some(Converted { from, to, rows: 700 + 701 + 1, kept: kept.clone() }));
        assert_eq!(opened(|| convert(&place.store, to)).expect("nothing to do"), None);
        let kv = opened(|| open(&place.store, to)).expect("opens");
        assert_eq!(content(&*kv), expected);
        drop(kv);
        let kv = opened(|| open(&kept, from)).expect("the old one is whole");
        assert_eq!(content(&*kv), expected);
        // The next one would have nowhere to keep the old store.
        let error = opened(|| convert(&place.store, from)).expect_err("refused").to_string();
        assert!(error.contains("before-conversion"), "{error}");
    }
    assert!(convert(Path::new("/nowhere/at/all"), Engine::Redb).is_err_and(|e| e.to_string().contains("no store")));
}

#[test]
fn a_conversion_cut_anywhere_leaves_one_store() {
    let make = |engine| {
        let place = place();
        fill(&*open(&place.store, engine).expect("opens"));
        place
    };
    let beside = |place: &Place, suffix: &str| place.store.with_extension(suffix);
    // While copying, and before the first rename: the old store, and no copy that could be taken for it later.
    for suffix in ["converting", "converted"] {
        let place = make(Engine::Sled);
        fs::create_dir(beside(&place, suffix)).expect("plants");
        fs::write(beside(&place, suffix).join("db.redb"), "half").expect("plants");
        let kv = opened(|| open(&place.store, Engine::Sled)).expect("opens");
        assert_eq!(content(&*kv)[1].len(), 700);
        assert!(!beside(&place, suffix).exists());
    }
    // Between the renames.
    let place = make(Engine::Redb);
    fs::rename(&place.store, beside(&place, "converted")).expect("renames");
    let kv = open(&place.store, Engine::Redb).expect("opens");
    assert_eq!(content(&*kv)[1].len(), 700);
    assert!(!beside(&place, "converted").exists());
}

/// What a later version might do: a row of another form, and a table that is no more.
fn upper_case(kv: &dyn Kv) -> Result<Vec<Op>> {
    let rows = kv.scan(Table::State, &[], &KEY_END, usize::MAX)?;
    Ok(rows.into_iter().map(|(key, value)| Op::Put(Table::State, key, value.to_ascii_uppercase())).collect())
}

fn append(kv: &dyn Kv) -> Result<Vec<Op>> {
    let rows = kv.scan(Table::State, &[], &KEY_END, usize::MAX)?;
    let changed = rows.into_iter().map(|(key, value)| Op::Put(Table::State, key, [value, b"!".to_vec()].concat()));
    Ok(changed.chain([Op::DelRange(Table::Meta, Vec::new(), KEY_END.to_vec())]).collect())
}

fn fails(_: &dyn Kv) -> Result<Vec<Op>> {
    Err(KvError::Corrupt { path: "here".into(), what: "a row that no migration understands".into() })
}

#[test]
fn an_older_store_is_brought_up_step_by_step_and_a_newer_one_is_refused() {
    let value = |kv: &dyn Kv| kv.get(Table::State, b"k").expect("gets").expect("there");
    for engine in Engine::ALL {
        let place = place();
        let kv = Store::open_with(&place.store, engine, &[]).expect("opens");
        kv.write(vec![put(Table::State, b"k", b"word"), put(Table::Meta, b"gone", b"")]).expect("writes");
        kv.sync().expect("syncs");
        drop(kv);
        // One that fails changes nothing, and what was done before it stays done.
        let failed = opened(|| Store::open_with(&place.store, engine, &[upper_case, fails]));
        assert!(failed.is_err_and(|e| e.to_string().contains("no migration understands")));
        let kv = opened(|| Store::open_with(&place.store, engine, &[upper_case])).expect("opens");
        assert_eq!(value(&kv), b"WORD");
        drop(kv);
        for _ in 0..2 {
            let kv = opened(|| Store::open_with(&place.store, engine, &[upper_case, append])).expect("opens");
            assert_eq!((value(&kv), kv.get(Table::Meta, b"gone").expect("gets")), (b"WORD!".to_vec(), None));
        }
        // A store that is made new needs no migration.
        let fresh = super::tests::place();
        drop(Store::open_with(&fresh.store, engine, &[fails]).expect("opens"));

        let older = opened(|| Store::open_with(&place.store, engine, &[upper_case]));
        let Err(error) = older else { panic!("an older version opens it") };
        assert!(matches!(error, KvError::Newer { found: 3, known: 2, .. }), "{error}");
        let text = Error::from(error).to_string();
        assert!(text.contains("schema 3") && text.contains("newer version"), "{text}");
        let kv = opened(|| Store::open_with(&place.store, engine, &[upper_case, append])).expect("opens still");
        assert_eq!(value(&kv), b"WORD!");
    }
}

#[test]
fn a_write_is_there_with_all_its_rows_or_not_at_all_and_errors_say_what_to_do() {
    let full = KvError::Io { path: "/s".into(), source: io::Error::from(io::ErrorKind::StorageFull) };
    assert!(Error::from(full).to_string().contains("make room"));
    let denied = KvError::Io { path: "/s".into(), source: io::Error::from(io::ErrorKind::PermissionDenied) };
    assert!(Error::from(denied).to_string().contains("belongs to this user"));
    let damaged = KvError::Corrupt { path: "/s".into(), what: "page 7".into() };
    let text = Error::from(damaged).to_string();
    for part in ["/s: damaged: page 7", "/s removed", "member of a group", "backup"] {
        assert!(text.contains(part), "{text}");
    }
}
