//! What a disk may hold after the power failed.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use super::Random;
use super::record::{Change, Event, Inode, ROOT, Record};

/// How bad a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    /// A kill, no power failure: everything is there that was written.
    Killed,
    /// Only what was synced is there: bytes of synced files, names of synced folders.
    Worst,
    /// Names and lengths up to some moment, in their order; bytes up to a later one, and the write under way torn.
    Journal,
    /// Any of the pages that were not synced, in any order.
    Reorder,
}

/// Bytes that a disk writes in one piece.
const SECTOR: usize = 512;
/// Bytes that the system writes in one piece, if all goes well.
const PAGE: usize = 4_096;

#[derive(Default)]
struct Disk {
    names: HashMap<Inode, BTreeMap<String, Inode>>,
    files: HashMap<Inode, Vec<u8>>,
}

impl Disk {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Name { folder, name, inode } => {
                self.names.entry(*folder).or_default().insert(name.clone(), *inode);
            }
            Change::Unname { folder, name } => {
                self.names.entry(*folder).or_default().remove(name);
            }
            Change::Rename { folder, from, to, inode } => {
                let names = self.names.entry(*folder).or_default();
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
            Change::Write { inode, at, bytes } => self.write(*inode, *at, bytes),
            Change::Length { inode, length } => {
                resize(self.files.entry(*inode).or_default(), usize::try_from(*length).expect("a length"));
            }
            Change::Sync { .. } | Change::Say { .. } => {}
        }
    }

    fn write(&mut self, inode: Inode, at: u64, bytes: &[u8]) {
        let file = self.files.entry(inode).or_default();
        let at = usize::try_from(at).expect("an offset");
        if file.len() < at + bytes.len() {
            resize(file, at + bytes.len());
        }
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// A write that does not make the file longer.
    fn write_within(&mut self, inode: Inode, at: u64, bytes: &[u8]) {
        let length = self.files.get(&inode).map_or(0, Vec::len);
        let room = length.saturating_sub(usize::try_from(at).expect("an offset"));
        if room > 0 {
            self.write(inode, at, &bytes[..bytes.len().min(room)]);
        }
    }

    fn save(&self, record: &Record, folder: Inode, to: &Path) {
        fs::create_dir_all(to).expect("makes");
        for (name, inode) in self.names.get(&folder).into_iter().flatten() {
            let path = to.join(name);
            if record.folders[*inode] {
                self.save(record, *inode, &path);
            } else {
                fs::write(path, self.files.get(inode).map_or(&[][..], Vec::as_slice)).expect("writes");
            }
        }
    }
}

/// `Vec::resize` takes its time byte by byte in a build for tests.
fn resize(file: &mut Vec<u8>, length: usize) {
    match length.checked_sub(file.len()) {
        Some(more) => file.extend_from_slice(&vec![0; more]),
        None => file.truncate(length),
    }
}

/// For each inode the moment before which everything about it is durable, when the power fails at `cut`.
fn durable(record: &Record, cut: usize) -> HashMap<Inode, usize> {
    let mut durable = HashMap::new();
    for event in &record.events {
        if let Change::Sync { inode } = event.change
            && event.end < cut
        {
            let before = durable.entry(inode).or_default();
            *before = event.begin.max(*before);
        }
    }
    durable
}

/// Puts what a disk may hold after a power failure at `cut` (a line of the record) into the folder `to`.
pub(crate) fn rebuild(record: &Record, model: Model, cut: usize, random: &mut Random, to: &Path) {
    let durable = durable(record, cut);
    let is_durable = |event: &Event| {
        event.change.inode().and_then(|inode| durable.get(&inode)).is_some_and(|before| event.end < *before)
    };
    // The call may have been made; whether it came to its end does not matter.
    let issued: Vec<&Event> = record.events.iter().filter(|e| e.begin < cut).collect();
    let mut disk = Disk::default();
    match model {
        Model::Killed => issued.iter().for_each(|e| disk.apply(&e.change)),
        Model::Worst => issued.iter().filter(|e| is_durable(e)).for_each(|e| disk.apply(&e.change)),
        Model::Journal => {
            let durable_metadata = issued.iter().filter(|e| e.change.is_metadata() && is_durable(e)).map(|e| e.end + 1);
            let journal = random.between(durable_metadata.max().unwrap_or(0), cut);
            let data = random.between(journal, cut);
            let mut torn = false;
            for event in issued {
                match &event.change {
                    Change::Write { .. } if is_durable(event) || event.end < journal => disk.apply(&event.change),
                    Change::Write { inode, at, bytes } if event.end < data => disk.write_within(*inode, *at, bytes),
                    Change::Write { inode, at, bytes } if !torn => {
                        torn = true;
                        let end = *at as usize + random.below(bytes.len() as u64 + 1) as usize;
                        let length = (end - end % SECTOR).saturating_sub(*at as usize);
                        disk.write_within(*inode, *at, &bytes[..length]);
                    }
                    Change::Write { .. } => {}
                    // What was durable lies before the journal's end.
                    change if event.end < journal => disk.apply(change),
                    _ => {}
                }
            }
        }
        Model::Reorder => {
            let chance = [10, 50, 90][random.below(3) as usize];
            let mut journals: HashMap<Inode, usize> = HashMap::new();
            for event in issued {
                match &event.change {
                    change if is_durable(event) => disk.apply(change),
                    Change::Write { inode, at, bytes } => {
                        pieces(*at, bytes.len(), random, |from, to, random| {
                            if random.below(100) < chance {
                                disk.write(*inode, at + from as u64, &bytes[from..to]);
                            }
                        });
                    }
                    change @ Change::Length { .. } => {
                        if random.below(100) < chance {
                            disk.apply(change);
                        }
                    }
                    change @ (Change::Name { folder, .. }
                    | Change::Unname { folder, .. }
                    | Change::Rename { folder, .. }) => {
                        // The names of a folder change in their order.
                        let before = durable.get(folder).copied().unwrap_or(0);
                        let journal = *journals.entry(*folder).or_insert_with(|| random.between(before, cut));
                        if event.end < journal {
                            disk.apply(change);
                        }
                    }
                    Change::Sync { .. } | Change::Say { .. } => {}
                }
            }
        }
    }
    disk.save(record, ROOT, to);
}

/// Cuts a write where pages begin, and now and then where sectors do.
fn pieces(at: u64, length: usize, random: &mut Random, mut piece: impl FnMut(usize, usize, &mut Random)) {
    let unit = if random.below(8) == 0 { SECTOR } else { PAGE };
    let mut from = 0;
    while from < length {
        let position = at as usize + from;
        let to = (from + unit - position % unit).min(length);
        piece(from, to, random);
        from = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(changes: &[Change]) -> Record {
        let events: Vec<Event> = changes
            .iter()
            .enumerate()
            .map(|(line, change)| Event { begin: line, end: line, change: change.clone() })
            .collect();
        Record { lines: events.len(), events, folders: vec![true, false, false] }
    }

    fn files(record: &Record, model: Model, cut: usize, seed: u64) -> BTreeMap<String, Vec<u8>> {
        let dir = tempfile::tempdir().expect("temporary folder");
        rebuild(record, model, cut, &mut Random::new(seed), dir.path());
        let entries = fs::read_dir(dir.path()).expect("lists").map(|e| e.expect("an entry"));
        entries.map(|e| (e.file_name().into_string().expect("text"), fs::read(e.path()).expect("reads"))).collect()
    }

    fn name(name: &str, inode: Inode) -> Change {
        Change::Name { folder: ROOT, name: name.into(), inode }
    }

    fn write(inode: Inode, at: u64, bytes: &[u8]) -> Change {
        Change::Write { inode, at, bytes: bytes.to_vec() }
    }

    #[test]
    fn only_what_was_synced_survives_the_worst() {
        let sync = |inode| Change::Sync { inode };
        let rename = Change::Rename { folder: ROOT, from: "a".into(), to: "b".into(), inode: 1 };
        let record = record(&[
            name("a", 1),
            write(1, 0, b"old"),
            sync(1),
            write(1, 0, b"new"),
            sync(ROOT),
            rename,
            name("c", 2),
            sync(1),
            sync(ROOT),
            write(2, 0, b"never synced"),
        ]);
        let worst = |cut| files(&record, Model::Worst, cut, 1);
        let one = |name: &str, bytes: &[u8]| BTreeMap::from([(name.to_owned(), bytes.to_vec())]);
        assert_eq!(worst(4), BTreeMap::new(), "the name is not");
        assert_eq!(worst(5), one("a", b"old"));
        assert_eq!(worst(7), one("a", b"old"));
        assert_eq!(worst(8), one("a", b"new"));
        assert_eq!(worst(10), [one("b", b"new"), one("c", b"")].into_iter().flatten().collect());
    }

    #[test]
    fn the_other_models_keep_what_was_synced_and_lose_some_of_the_rest() {
        let long: Vec<u8> = (0..20_000u32).map(|i| 1 + (i % 250) as u8).collect();
        let record = record(&[
            name("a", 1),
            write(1, 0, &vec![0; 20_000]),
            Change::Sync { inode: 1 },
            Change::Sync { inode: ROOT },
            write(1, 0, &long),
            write(1, 0, &[0xff; 5_000]),
        ]);
        for model in [Model::Journal, Model::Reorder] {
            let mut seen = std::collections::BTreeSet::new();
            for seed in 1..200 {
                let files = files(&record, model, 6, seed);
                let bytes = &files["a"];
                assert_eq!(bytes.len(), 20_000);
                for sector in bytes.chunks(SECTOR).enumerate() {
                    let (i, sector) = sector;
                    let from = i * SECTOR;
                    let whole = |source: &[u8]| sector == &source[from..from + sector.len()];
                    let newest: Vec<u8> =
                        long.iter().enumerate().map(|(i, b)| if i < 5_000 { 0xff } else { *b }).collect();
                    let half: Vec<u8> = (0..20_000).map(|i| if i < 5_000 { 0xff } else { 0 }).collect();
                    assert!(
                        whole(&vec![0; 20_000]) || whole(&long) || whole(&newest) || whole(&half),
                        "{model:?} {seed}"
                    );
                }
                seen.insert(bytes.clone());
            }
            assert!(seen.len() > 10, "{model:?}: {}", seen.len());
        }
    }
}
