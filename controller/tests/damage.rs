//! Files of a store that the disk changed: the store refuses with an error that says what to do, or everything in it is
//! right. It never panics and never answers with something else.
//!
//! More by hand, or another seed: `SALLYPORT_FLIPS=2000 SALLYPORT_SEED=7 cargo test -p sallyport-controller --test damage`.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sallyport_controller::Engine;
use sallyport_controller::raft::kv::{KEY_END, Kv, KvError, Op, Result, Row, Table};
use sallyport_controller::raft::store;

/// Damaged stores of each engine and kind.
const DEFAULT_FLIPS: u64 = 40;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// A small generator.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end.max(1)
    }
}

fn opened(path: &Path, engine: Engine) -> Result<Arc<dyn Kv>> {
    loop {
        match store::open(path, engine) {
            Err(KvError::Locked { .. }) => std::thread::yield_now(),
            other => return other,
        }
    }
}

fn value(index: u64, length: usize) -> Vec<u8> {
    (0..length).map(|i| (index.wrapping_mul(31) + i as u64) as u8).collect()
}

/// What a node writes: entries, rows that change, and a log that is purged.
fn fill(kv: &dyn Kv) {
    for index in 0..400u64 {
        let length = if index % 50 == 7 { 19_000 } else { 40 + (index as usize * 37) % 1_800 };
        let mut ops = vec![
            Op::Put(Table::Log, index.to_be_bytes().to_vec(), value(index, length)),
            Op::Put(Table::Meta, b"applied".to_vec(), index.to_be_bytes().to_vec()),
        ];
        for row in 0..4 {
            ops.push(Op::Put(Table::State, (index * 7 % 90 + row).to_be_bytes().to_vec(), value(index, 300)));
        }
        if index % 100 == 99 {
            ops.push(Op::DelRange(Table::Log, Vec::new(), (index - 60).to_be_bytes().to_vec()));
        }
        kv.write(ops).expect("writes");
        if index % 10 == 0 {
            kv.sync().expect("syncs");
        }
    }
    kv.sync().expect("syncs");
}

fn content(kv: &dyn Kv) -> Result<Vec<Vec<Row>>> {
    Table::CONTENT.iter().map(|t| kv.scan(*t, &[], &KEY_END, usize::MAX)).collect()
}

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn read_folder(folder: &Path) -> Files {
    let mut files = Files::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).expect("lists") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("below").to_path_buf();
                files.insert(name, fs::read(path).expect("reads"));
            }
        }
    }
    files
}

fn write_folder(folder: &Path, files: &Files) {
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("makes");
        fs::write(path, bytes).expect("writes");
    }
}

/// A store that was closed, and one whose process was killed.
fn templates(engine: Engine) -> ([Files; 2], Vec<Vec<Row>>) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("store");
    let kv = opened(&path, engine).expect("opens");
    fill(&*kv);
    let expected = content(&*kv).expect("reads");
    let killed = read_folder(&path);
    drop(kv);
    drop(opened(&path, engine).expect("opens again"));
    // Until its threads have let go of it.
    drop(opened(&path, engine).expect("opens again"));
    let closed = read_folder(&path);
    ([closed, killed], expected)
}

/// Opens, reads everything, writes, reads again.
fn use_it(path: &Path, engine: Engine) -> Result<[Vec<Vec<Row>>; 2]> {
    let kv = opened(path, engine)?;
    let first = content(&*kv)?;
    let rows = (0..200u64).map(|i| Op::Put(Table::State, i.to_be_bytes().to_vec(), value(i, 500))).collect();
    kv.write(rows)?;
    kv.write(vec![Op::DelRange(Table::Log, Vec::new(), 380u64.to_be_bytes().to_vec())])?;
    kv.sync()?;
    let second = content(&*kv)?;
    Ok([first, second])
}

fn run(engine: Engine, flips: u64, seed: u64) {
    let (templates, expected) = templates(engine);
    for (kind, files) in ["closed", "killed"].into_iter().zip(templates) {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("whole");
        write_folder(&path, &files);
        let whole = use_it(&path, engine).expect("an undamaged one opens");
        assert_eq!(whole[0], expected);
        let (mut random, mut refused, mut ours, mut unharmed) = (Random(seed), 0, 0, 0);
        let total: usize = files.values().map(Vec::len).sum();
        for flip in 0..flips {
            let path = dir.path().join(flip.to_string());
            let mut damaged = files.clone();
            // Every third time a small file, which a random byte would seldom meet.
            let place = if flip % 3 == 0 {
                let name = damaged.keys().nth(random.below(files.len() as u64) as usize).expect("one").clone();
                let length = damaged[&name].len();
                (length > 0).then(|| (name, random.below(length as u64) as usize))
            } else {
                let mut at = random.below(total as u64) as usize;
                damaged.iter().find_map(|(name, bytes)| {
                    let found = (at < bytes.len()).then(|| (name.clone(), at));
                    at = at.wrapping_sub(bytes.len());
                    found
                })
            };
            let Some((name, at)) = place else { continue };
            let what = random.below(4);
            let bytes = damaged.get_mut(&name).expect("there");
            let end = bytes.len().min(at + 4_096 - at % 4_096);
            match what {
                0 | 1 => bytes[at] ^= 1 << random.below(8),
                2 => bytes[at - at % 512..end.min(at - at % 512 + 512)].fill(0),
                _ => bytes[at - at % 4_096..end].fill(0),
            }
            if damaged == files {
                continue; // zeros on zeros
            }
            write_folder(&path, &damaged);
            let story = || {
                format!("{} {kind}, flip {flip} of seed {seed}: {} at {at}, kind {what}", engine.name(), name.display())
            };
            let outcome = catch_unwind(AssertUnwindSafe(|| use_it(&path, engine)));
            match outcome {
                Err(_) => panic!("{}: a panic escaped", story()),
                Ok(Ok(found)) => {
                    assert!(found == whole, "{}: other rows than were written", story());
                    unharmed += 1;
                }
                Ok(Err(error)) => {
                    let text = sallyport_controller::Error::from(error).to_string();
                    assert!(text.contains(path.to_str().expect("text")), "{}: {text}", story());
                    refused += 1;
                    // What the engine would have given out for right.
                    let texts = ["must have", "was synced", "what was written", "totals", "describes itself"];
                    ours += u32::from(texts.iter().any(|t| text.contains(t)));
                }
            }
            fs::remove_dir_all(&path).expect("cleans");
        }
        say(&format!(
            "{} {kind}: {refused} refused ({ours} that the engine did not notice), {unharmed} unharmed (seed {seed})",
            engine.name()
        ));
    }
}

#[allow(clippy::print_stdout, reason = "shown with --nocapture")]
fn say(text: &str) {
    println!("{text}");
}

#[test]
fn a_damaged_store_of_sled_is_refused_or_right() {
    run(Engine::Sled, number("SALLYPORT_FLIPS", DEFAULT_FLIPS), number("SALLYPORT_SEED", 0x5eed));
}

#[test]
fn a_damaged_store_of_redb_is_refused_or_right() {
    run(Engine::Redb, number("SALLYPORT_FLIPS", DEFAULT_FLIPS), number("SALLYPORT_SEED", 0x5eed));
}
