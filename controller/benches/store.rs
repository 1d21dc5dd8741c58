//! Durable commits of each engine against a bare `fdatasync`, and the start on a large state:
//! `cargo bench -p sallyport-controller --bench store`.
//!
//! One writer, each commit an entry of 256 bytes, a row of 256 bytes and two pointers, synced before the next one. The
//! engines and the bare loop take turns in one run on one disk (`TMPDIR`), since the speed of a disk changes by the minute.
//! `SALLYPORT_BENCH_COMMITS` (default 2,000 in each of three rounds) and `SALLYPORT_BENCH_ROWS` (default 100,000).

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use sallyport_controller::Engine;
use sallyport_controller::raft::kv::{KEY_END, Kv, KvError, Op, Table};
use sallyport_controller::raft::redb_kv::RedbKv;
use sallyport_controller::raft::sled_kv::SledKv;
use sallyport_controller::raft::store;

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const VALUE: usize = 256;
const ROUNDS: usize = 3;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

fn opened(open: impl Fn() -> Result<Arc<dyn Kv>, KvError>) -> Arc<dyn Kv> {
    loop {
        match open() {
            Err(KvError::Locked { .. }) => std::thread::yield_now(),
            other => return other.unwrap(),
        }
    }
}

/// Commits a second; `from` is the first index.
fn commits(kv: &dyn Kv, from: u64, count: u64, writes_per_sync: u64) -> f64 {
    let begun = Instant::now();
    for index in from..from + count {
        let key = index.to_be_bytes().to_vec();
        kv.write(vec![
            Op::Put(Table::Log, key.clone(), vec![index as u8; VALUE]),
            Op::Put(Table::State, (index * 7_919 % 10_000).to_be_bytes().to_vec(), vec![index as u8; VALUE]),
            Op::Put(Table::Meta, b"applied".to_vec(), key.clone()),
            Op::Put(Table::Meta, b"committed".to_vec(), key),
        ])
        .unwrap();
        if index % writes_per_sync == 0 {
            kv.sync().unwrap();
        }
    }
    count as f64 / begun.elapsed().as_secs_f64()
}

/// A page written in place and synced, as often as that goes.
fn bare(dir: &Path, count: u64) -> f64 {
    let path = dir.join("bare");
    fs::write(&path, vec![0; 4_096 * 1_024]).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.sync_all().unwrap();
    let begun = Instant::now();
    for index in 0..count {
        file.write_all_at(&[index as u8; 4_096], index % 1_024 * 4_096).unwrap();
        file.sync_data().unwrap();
    }
    count as f64 / begun.elapsed().as_secs_f64()
}

fn size(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else {
        return File::open(path).and_then(|f| f.metadata()).map_or(0, |m| m.len());
    };
    entries.map(|e| size(&e.unwrap().path())).sum()
}

fn main() {
    let count = number("SALLYPORT_BENCH_COMMITS", 2_000);
    let dir = tempfile::tempdir().unwrap();
    let stores: Vec<(String, Arc<dyn Kv>)> = Engine::ALL
        .into_iter()
        .flat_map(|engine| {
            let path = dir.path().join(engine.name());
            let raw: Arc<dyn Kv> = match engine {
                Engine::Sled => Arc::new(SledKv::open(&path.join("raw")).unwrap()),
                Engine::Redb => Arc::new(RedbKv::open(&path.join("raw")).unwrap()),
            };
            let checked = store::open(&path.join("checked"), engine).unwrap();
            [(format!("{} without checks", engine.name()), raw), (engine.name().to_owned(), checked)]
        })
        .collect();
    println!("{:<24}{:>14}{:>14}{:>18}", "commits/s", "of the round", "of fdatasync", "8 writes a sync");
    for round in 0..ROUNDS as u64 {
        let bare = bare(dir.path(), count);
        println!("{:<24}{bare:>14.0}{:>14.2}", "bare fdatasync", 1.0);
        for (name, kv) in &stores {
            let from = round * 2 * count;
            let single = commits(&**kv, from, count, 1);
            let grouped = commits(&**kv, from + count, count, 8);
            println!("{name:<24}{single:>14.0}{:>14.2}{grouped:>18.0}", single / bare);
        }
    }
    drop(stores);

    let rows = number("SALLYPORT_BENCH_ROWS", 100_000);
    println!("\nstart with {rows} rows of {VALUE} bytes");
    for engine in Engine::ALL {
        let path = dir.path().join(engine.name()).join("large");
        let kv = store::open(&path, engine).unwrap();
        let begun = Instant::now();
        for from in (0..rows).step_by(1_000) {
            let row = |i: u64| Op::Put(Table::State, (i * 7_919).to_be_bytes().to_vec(), vec![i as u8; VALUE]);
            kv.write((from..rows.min(from + 1_000)).map(row).collect()).unwrap();
            kv.sync().unwrap();
        }
        let filled = begun.elapsed().as_secs_f64();
        drop(kv);
        let begun = Instant::now();
        let kv = opened(|| store::open(&path, engine));
        let open = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        let read = kv.scan(Table::State, &[], &KEY_END, usize::MAX).unwrap().len();
        let scan = begun.elapsed().as_secs_f64();
        assert_eq!(read as u64, rows);
        let megabytes = size(&path) / 1_000_000;
        println!(
            "{:<8} filled in {filled:.2} s, {megabytes} MB; opened in {open:.2} s, read in {scan:.2} s",
            engine.name()
        );
    }
}
