//! Files of a store, on their way into memory before anybody asks: an engine reads the pages of a start one by one, in the order of keys,
//! and a disk gives them many times as fast in the order in which they are.

use std::fs::File;
use std::path::Path;

use rustix::fs::{Advice, fadvise};

/// The system is asked for so much at a time, as it does no more at once: bytes.
const PIECE: u64 = 1024 * 1024;
/// And for so much of a file: what has no room in memory goes again.
const MOST: u64 = 8 * 1024 * 1024 * 1024;

/// Begins to read a file; whoever needs a part of it waits for that part alone. Where it cannot be, everything goes on as without.
pub(super) fn read_ahead(path: &Path) {
    let Ok(file) = File::open(path) else { return };
    let length = file.metadata().map_or(0, |about| about.len()).min(MOST);
    if length <= PIECE {
        return;
    }
    let ask = move || {
        for at in (0..length).step_by(PIECE as usize) {
            if fadvise(&file, at, std::num::NonZeroU64::new(PIECE), Advice::WillNeed).is_err() {
                return;
            }
        }
    };
    // Whether there is such a thread changes nothing but the time.
    drop(std::thread::Builder::new().name("read-ahead".into()).spawn(ask));
}
