//! A disk that is full, and one that must not fill up.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use openraft::{CommittedLeaderId, LogId, StoredMembership};
use sallyport_controller::raft::kv::{KEY_END, Kv, KvError, Op, Result, Row, Table};
use sallyport_controller::raft::{SnapshotDir, convert, store};
use sallyport_controller::{Engine, Error};

/// Set for the child: a folder on a small file system.
const CHILD: &str = "SALLYPORT_FULL_DISK";

fn skipped(why: &str) {
    // Past the capture of a passing test's output, so that ./test can report it.
    let _ = std::io::stderr().write_all(format!("\nskipped: {why}\n").as_bytes());
}

fn opened(path: &Path, engine: Engine) -> Result<Arc<dyn Kv>> {
    loop {
        match store::open(path, engine) {
            Err(KvError::Locked { .. }) => std::thread::yield_now(),
            other => return other,
        }
    }
}

fn entry(index: u64) -> Vec<Op> {
    let key = index.to_be_bytes().to_vec();
    vec![
        Op::Put(Table::Log, key.clone(), vec![index as u8; 3_000]),
        Op::Put(Table::State, (index % 100).to_be_bytes().to_vec(), vec![index as u8; 500]),
        Op::Put(Table::Meta, b"applied".to_vec(), key),
    ]
}

fn content(kv: &dyn Kv) -> Vec<Vec<Row>> {
    Table::CONTENT.iter().map(|t| kv.scan(*t, &[], &KEY_END, usize::MAX).expect("scans")).collect()
}

fn expected(entries: u64) -> Vec<Vec<Row>> {
    let rows = |first: u64, length: usize, key: &dyn Fn(u64) -> u64| -> Vec<Row> {
        let mut rows: Vec<Row> =
            (first..entries).map(|i| (key(i).to_be_bytes().to_vec(), vec![i as u8; length])).collect();
        rows.sort();
        rows
    };
    let meta = vec![(b"applied".to_vec(), (entries - 1).to_be_bytes().to_vec())];
    vec![meta, rows(0, 3_000, &|i| i), rows(entries.saturating_sub(100), 500, &|i| i % 100)]
}

fn meta(index: u64) -> openraft::SnapshotMeta<u64, openraft::BasicNode> {
    openraft::SnapshotMeta {
        last_log_id: Some(LogId::new(CommittedLeaderId::new(1, 1), index)),
        last_membership: StoredMembership::default(),
        snapshot_id: index.to_string(),
    }
}

/// Fills the disk with the store and sees how it goes on.
fn full_disk(engine: Engine, dir: &Path) {
    let path = dir.join("store");
    let ballast = dir.join("ballast");
    fs::write(&ballast, vec![1; 20_000_000]).expect("fits");
    let snapshots = SnapshotDir::open(&dir.join("snapshots")).expect("opens");
    snapshots.save(&meta(1), &[7; 100_000]).expect("fits");

    let kv = opened(&path, engine).expect("opens");
    let mut synced = 0;
    let error = loop {
        assert!(synced < 100_000, "the disk does not fill");
        match kv.write(entry(synced)).and_then(|()| kv.sync()) {
            Ok(()) => synced += 1,
            Err(error) => break error,
        }
    };
    let cause = error.to_string();
    let text = Error::from(error).to_string();
    assert!(text.contains("space") && text.contains("make room"), "{text}");
    assert!(text.contains(path.to_str().expect("text")), "{text}");
    // It stays with that, also when there is room again for a moment.
    let again = kv.sync().expect_err("it has failed").to_string();
    assert!(again.contains(&cause), "{again}");
    assert!(kv.get(Table::Meta, b"applied").is_err());
    drop(kv);

    // As long as the disk is full: an error or the whole content, no panic, and no harm.
    for _ in 0..3 {
        match opened(&path, engine) {
            Ok(kv) => assert!(content(&*kv)[1].len() as u64 >= synced),
            Err(e) => assert!(e.to_string().contains("space"), "{e}"),
        }
    }
    let error = snapshots.save(&meta(2), &vec![8; 30_000_000]).expect_err("no room");
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(snapshots.load().expect("loads").expect("the old one").1, [7; 100_000]);
    let other = Engine::ALL.into_iter().find(|e| *e != engine).expect("two");
    let error = loop {
        match convert(&path, other) {
            Err(KvError::Locked { .. }) => std::thread::yield_now(),
            done => break done.expect_err("no room for two stores"),
        }
    };
    assert!(error.to_string().contains("space"), "{error}");

    fs::remove_file(&ballast).expect("makes room");
    let kv = opened(&path, engine).expect("opens");
    let there = content(&*kv)[1].len() as u64;
    assert!(there >= synced, "{there} of {synced}");
    assert_eq!(content(&*kv), expected(there));
    for index in there..there + 50 {
        kv.write(entry(index)).and_then(|()| kv.sync()).expect("there is room");
    }
    drop(kv);
    assert_eq!(content(&*opened(&path, engine).expect("opens")), expected(there + 50));
}

/// The child's life on its small file system. Not a test of its own: without the variable it is over at once.
#[test]
fn the_child() {
    let Some(dir) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    for engine in Engine::ALL {
        let dir = dir.join(engine.name());
        fs::create_dir(&dir).expect("makes");
        full_disk(engine, &dir);
        fs::remove_dir_all(&dir).expect("cleans");
    }
}

#[test]
fn a_full_disk_stops_the_store_with_a_remedy_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let unshare = |options: &[&str], script: &str| {
        let mut command = Command::new("unshare");
        command.args(options).args(["--mount", "sh", "-c", script]).arg(dir.path());
        command
    };
    let works = |options: &&[&str]| {
        let tried = unshare(options, "mount -t tmpfs -o size=1m none \"$0\"").output();
        tried.is_ok_and(|out| out.status.success())
    };
    // As root, or as root of a user namespace.
    let ways: [&[&str]; 2] = [&[], &["--user", "--map-root-user"]];
    let Some(way) = ways.into_iter().find(works) else {
        return skipped("a small file system needs a mount namespace, which this machine forbids");
    };
    let out = unshare(way, "mount -t tmpfs -o size=64m none \"$0\" && exec \"$1\" --exact the_child --nocapture")
        .arg(std::env::current_exe().expect("this test"))
        .env(CHILD, dir.path())
        .output()
        .expect("starts");
    let text = [out.stdout, out.stderr].concat();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&text));
}

fn size(path: &Path) -> u64 {
    match fs::read_dir(path) {
        Ok(entries) => entries.map(|e| size(&e.expect("an entry").path())).sum(),
        Err(_) => fs::metadata(path).map_or(0, |m| m.len()),
    }
}

/// `SALLYPORT_ENTRIES` for more than so many in each of four lives.
#[test]
fn a_log_that_is_purged_keeps_to_its_room() {
    let entries = std::env::var("SALLYPORT_ENTRIES").ok().and_then(|n| n.parse().ok()).unwrap_or(1_500);
    for (engine, most) in [(Engine::Sled, 64_000_000), (Engine::Redb, 16_000_000)] {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("store");
        let mut largest = [0, 0];
        for life in 0..4u64 {
            let kv = opened(&path, engine).expect("opens");
            for index in life * entries..(life + 1) * entries {
                let mut ops = entry(index);
                if index % 100 == 99 {
                    let behind = index.saturating_sub(500).to_be_bytes().to_vec();
                    ops.push(Op::DelRange(Table::Log, Vec::new(), behind));
                }
                kv.write(ops).expect("writes");
                if index % 50 == 49 {
                    kv.sync().expect("syncs");
                    let half = &mut largest[(life / 2) as usize];
                    *half = size(&path).max(*half);
                }
            }
        }
        let [first, second] = largest;
        say(&format!("{}: at most {first} bytes, later {second}", engine.name()));
        assert!(second < most, "{}: {second} bytes", engine.name());
        assert!(second < first + first / 2, "{}: it grows, {first} to {second}", engine.name());
    }
}

#[allow(clippy::print_stdout, reason = "shown with --nocapture")]
fn say(text: &str) {
    println!("{text}");
}
