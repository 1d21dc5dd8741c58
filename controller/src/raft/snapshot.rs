//! Snapshots as plain files beside the storage engine, so that they survive it.
//!
//! `magic (7) | format (1) | length of meta (4, big-endian) | meta | state | SHA-256 of all before (32)`
//!
//! A file gets its name when it is whole and on stable storage: one that does not check out is the disk's doing. At most one
//! is kept. Files of an older format are brought to today's when the folder is opened.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ring::digest;

use super::{LogId, SnapshotMeta, codec};

mod chunks;

pub use chunks::{ChunkReader, ChunkWriter, Chunks, SnapshotData, SnapshotWriter};
use chunks::{SnapshotFile, Source};

const MAGIC: &[u8; 7] = b"SPSNAP\x00";
const SUFFIX: &str = ".snapshot";
/// Suffix of files that are not whole yet, or are being received.
const UNFINISHED: &str = ".tmp";
/// Suffix of a snapshot that is ahead of the store.
const UNUSED: &str = ".unused";
const DIGEST: usize = digest::SHA256_OUTPUT_LEN;
/// Bytes of a chunk, at most.
const CHUNK: usize = 128 * 1024;
/// Longest state that is read or received, bytes: it is in memory as a whole in the end.
const MAX_STATE: u64 = 8 * 1024 * 1024 * 1024;
/// Longest meta, bytes.
const MAX_META: usize = 1024 * 1024;

/// What the state of a format is, from that of the one before.
type Migration = fn(Vec<u8>) -> io::Result<Vec<u8>>;

/// How format 1 becomes 2, 2 becomes 3 and so on.
const MIGRATIONS: &[Migration] = &[];

/// The folder of snapshots.
#[derive(Clone, Debug)]
pub struct SnapshotDir {
    path: PathBuf,
    format: u8,
}

impl SnapshotDir {
    /// Opens the folder, making it when there is none, and clears what a crash left half written.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_with(path, MIGRATIONS)
    }

    fn open_with(path: &Path, migrations: &[Migration]) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?; // a snapshot is no safer than the name of its folder
        }
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().ends_with(UNFINISHED) {
                fs::remove_file(entry.path())?;
            }
        }
        let format = 1 + u8::try_from(migrations.len()).map_err(io::Error::other)?;
        let this = Self { path: path.into(), format };
        this.migrate(migrations)?;
        Ok(this)
    }

    /// Brings the newest snapshot to today's format.
    fn migrate(&self, migrations: &[Migration]) -> io::Result<()> {
        let Some(file) = self.files()?.pop() else { return Ok(()) };
        let (meta, _, reader) = SnapshotFile::open(&file)?.reader()?;
        let found = reader.format();
        if found > self.format {
            return Err(unusable(
                &file,
                &format!("format {found} is of a newer version of this software, this one reads {}", self.format),
            ));
        }
        let missing = migrations.get(usize::from(found).saturating_sub(1)..).unwrap_or_default();
        if missing.is_empty() {
            return Ok(());
        }
        let mut state = reader.read_all()?;
        for migration in missing {
            state = migration(state)?;
        }
        self.save(&meta, &state)
    }

    /// Writes a snapshot and removes the older ones.
    pub fn save(&self, meta: &SnapshotMeta, state: &[u8]) -> io::Result<()> {
        let mut writer = self.writer(meta)?;
        writer.write_all(state)?;
        self.keep(meta, writer).map(drop)
    }

    /// A snapshot to write, which has no name until it is kept.
    pub fn writer(&self, meta: &SnapshotMeta) -> io::Result<SnapshotWriter> {
        SnapshotWriter::create(self.name(meta, UNFINISHED), self.format, meta)
    }

    /// The same, for a copy of the state that is removed in the end.
    pub(super) fn copy_writer(&self, meta: &SnapshotMeta) -> io::Result<SnapshotWriter> {
        SnapshotWriter::create(self.name(meta, &format!(".copy{UNFINISHED}")), self.format, meta)
    }

    /// A copy that was written.
    pub(super) fn copied(&self, writer: SnapshotWriter) -> io::Result<SnapshotData> {
        Ok(SnapshotData(Source::File(writer.finish(false)?)))
    }

    /// Puts a snapshot that was written on stable storage and removes the older ones.
    pub fn keep(&self, meta: &SnapshotMeta, writer: SnapshotWriter) -> io::Result<SnapshotData> {
        self.put(meta, writer.finish(true)?)
    }

    /// Keeps a snapshot that came from elsewhere.
    pub(super) fn install(&self, meta: &SnapshotMeta, data: &SnapshotData) -> io::Result<SnapshotData> {
        match &data.0 {
            Source::File(file) if file.reader()?.0 == *meta => self.put(meta, file.clone()),
            _ => {
                let (mut writer, mut chunks) = (self.writer(meta)?, data.chunks()?);
                while let Some(chunk) = chunks.next_chunk()? {
                    writer.write_all(&chunk)?;
                }
                self.keep(meta, writer)
            }
        }
    }

    fn put(&self, meta: &SnapshotMeta, file: SnapshotFile) -> io::Result<SnapshotData> {
        let file = file.rename(&self.name(meta, SUFFIX))?;
        File::open(&self.path)?.sync_all()?;
        let mut files = self.files()?;
        files.pop();
        for old in files {
            fs::remove_file(old)?;
        }
        Ok(SnapshotData(Source::File(file)))
    }

    /// The newest snapshot, or `None`.
    pub fn load(&self) -> io::Result<Option<(SnapshotMeta, Vec<u8>)>> {
        match self.reader()? {
            Some((meta, _, reader)) => Ok(Some((meta, reader.read_all()?))),
            None => Ok(None),
        }
    }

    /// The newest snapshot in chunks, with the length of its state; `None` when there is none. It can be read to its end
    /// also when a newer one takes its place meanwhile.
    pub fn reader(&self) -> io::Result<Option<(SnapshotMeta, u64, ChunkReader)>> {
        match self.files()?.pop() {
            Some(path) => SnapshotFile::open(&path)?.reader().map(Some),
            None => Ok(None),
        }
    }

    /// The newest snapshot, in its file; `None` when there is none.
    pub fn newest(&self) -> io::Result<Option<(SnapshotMeta, SnapshotData)>> {
        let Some(path) = self.files()?.pop() else { return Ok(None) };
        let file = SnapshotFile::open(&path)?;
        Ok(Some((file.reader()?.0, SnapshotData(Source::File(file)))))
    }

    /// A place for a snapshot that comes in chunks, of `total` bytes together. One that is dropped before its end is removed.
    pub fn receive(&self, meta: &SnapshotMeta, total: u64) -> io::Result<ChunkWriter> {
        ChunkWriter::create(self.name(meta, &format!(".received{UNFINISHED}")), self.format, meta, total)
    }

    /// Puts away a snapshot that knows more than the store: the store was removed, or a crash came between the two when the
    /// snapshot was installed. The leader sends it again. The file stays, under another name, for whoever removed a store that
    /// was the only one.
    pub(super) fn put_away_ahead_of(&self, applied: Option<LogId>) -> io::Result<()> {
        let Some(file) = self.files()?.pop() else { return Ok(()) };
        let (meta, _, _) = SnapshotFile::open(&file)?.reader()?;
        if meta.last_log_id > applied {
            for older in self.files_with(UNUSED)? {
                fs::remove_file(older)?;
            }
            let unused = file.with_extension(UNUSED.trim_start_matches('.'));
            tracing::warn!(file = %unused.display(), "a snapshot knows more than the store; it is not used");
            fs::rename(&file, unused)?;
            File::open(&self.path)?.sync_all()?;
        }
        Ok(())
    }

    /// Zero-padded, so that the order of names is the order of snapshots.
    fn name(&self, meta: &SnapshotMeta, suffix: &str) -> PathBuf {
        let index = meta.last_log_id.map_or(0, |id| id.index);
        self.path.join(format!("{index:020}-{}{suffix}", file_safe(&meta.snapshot_id)))
    }

    fn files(&self) -> io::Result<Vec<PathBuf>> {
        self.files_with(SUFFIX)
    }

    fn files_with(&self, suffix: &str) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(suffix) {
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

fn header(format: u8, meta: &SnapshotMeta) -> io::Result<Vec<u8>> {
    let meta = codec::encode(meta).map_err(io::Error::other)?;
    let mut head = Vec::with_capacity(MAGIC.len() + 5 + meta.len());
    head.extend_from_slice(MAGIC);
    head.push(format);
    head.extend_from_slice(&u32::try_from(meta.len()).map_err(io::Error::other)?.to_be_bytes());
    head.extend_from_slice(&meta);
    Ok(head)
}

/// An error about a snapshot. The state itself is in the store, so that nothing is lost with the file.
fn unusable(path: &Path, what: &str) -> io::Error {
    let text = format!(
        "{} cannot be used: {what}; check the disk (dmesg), then remove this file and start again: a new snapshot is made \
         from the store",
        path.display()
    );
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests;
