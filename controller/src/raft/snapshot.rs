//! Snapshots as plain files beside the storage engine, so that they survive it.
//!
//! `magic (8) | length of meta (4, big-endian) | meta | state | SHA-256 of all before (32)`

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ring::digest;

use super::{SnapshotMeta, codec};

const MAGIC: &[u8; 8] = b"SPSNAP\x00\x01";
const SUFFIX: &str = ".snapshot";
const DIGEST: usize = digest::SHA256_OUTPUT_LEN;

/// The folder of snapshots: at most one is kept.
#[derive(Clone, Debug)]
pub(super) struct SnapshotDir(PathBuf);

impl SnapshotDir {
    /// Opens the folder, making it when there is none, and clears what a crash left half written.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().ends_with(".tmp") {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Self(path.into()))
    }

    /// Writes a snapshot and removes the older ones.
    pub(super) fn save(&self, meta: &SnapshotMeta, state: &[u8]) -> io::Result<()> {
        let head = codec::encode(meta).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(MAGIC.len() + 4 + head.len() + state.len() + DIGEST);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&u32::try_from(head.len()).map_err(io::Error::other)?.to_be_bytes());
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(state);
        let sum = digest::digest(&digest::SHA256, &bytes);
        bytes.extend_from_slice(sum.as_ref());

        let index = meta.last_log_id.map_or(0, |id| id.index);
        // Zero-padded, so that the order of names is the order of snapshots.
        let path = self.0.join(format!("{index:020}-{}{SUFFIX}", file_safe(&meta.snapshot_id)));
        let tmp = path.with_extension("tmp");
        let mut file = File::create(&tmp)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&tmp, &path)?;
        File::open(&self.0)?.sync_all()?;
        for old in self.files()?.into_iter().filter(|f| *f != path) {
            fs::remove_file(old)?;
        }
        Ok(())
    }

    /// The newest snapshot, or `None`. One that does not check out is an error: it was renamed into place only after it was
    /// on disk, so the disk is at fault.
    pub(super) fn load(&self) -> io::Result<Option<(SnapshotMeta, Vec<u8>)>> {
        match self.files()?.pop() {
            Some(path) => {
                let bytes = fs::read(&path)?;
                let parsed = parse(&bytes).ok_or_else(|| {
                    io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged", path.display()))
                })?;
                Ok(Some(parsed))
            }
            None => Ok(None),
        }
    }

    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(SUFFIX) {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }
}

fn file_safe(id: &str) -> String {
    id.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect()
}

fn parse(bytes: &[u8]) -> Option<(SnapshotMeta, Vec<u8>)> {
    let (body, sum) = bytes.split_last_chunk::<DIGEST>()?;
    if digest::digest(&digest::SHA256, body).as_ref() != sum {
        return None;
    }
    let body = body.strip_prefix(MAGIC)?;
    let (length, body) = body.split_first_chunk::<4>()?;
    let (head, state) = body.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    Some((codec::decode(head).ok()?, state.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(index: u64) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: Some(openraft::LogId::new(openraft::CommittedLeaderId::new(1, 1), index)),
            last_membership: openraft::StoredMembership::default(),
            snapshot_id: format!("1-1-{index}.x/y"),
        }
    }

    #[test]
    fn the_newest_snapshot_is_kept_and_read_back() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let snapshots = SnapshotDir::open(dir.path()).expect("opens");
        assert!(snapshots.load().expect("loads").is_none());
        for index in [9, 10, 111] {
            snapshots.save(&meta(index), &[index as u8; 100]).expect("saves");
        }
        assert_eq!(snapshots.load().expect("loads"), Some((meta(111), vec![111; 100])));
        assert_eq!(fs::read_dir(dir.path()).expect("lists").count(), 1);
    }

    #[test]
    fn a_damaged_snapshot_is_an_error_and_a_half_written_one_is_cleared() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let snapshots = SnapshotDir::open(dir.path()).expect("opens");
        snapshots.save(&meta(5), b"state").expect("saves");
        fs::write(dir.path().join("00000000000000000006-x.tmp"), b"half").expect("plants");
        let snapshots = SnapshotDir::open(dir.path()).expect("opens again");
        assert!(snapshots.load().expect("loads").is_some());
        let file = snapshots.files().expect("lists").pop().expect("one");
        let good = fs::read(&file).expect("reads");
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 0x10;
            fs::write(&file, &bad).expect("damages");
            assert!(snapshots.load().is_err(), "byte {i}");
        }
    }
}
