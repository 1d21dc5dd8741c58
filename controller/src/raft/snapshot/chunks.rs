//! Snapshots on their way to a file, out of one, and to another member, a chunk at a time: no more than that is in memory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::digest;

use super::{CHUNK, DIGEST, MAGIC, MAX_META, MAX_STATE, SnapshotMeta, codec, header, unusable};

/// The file of a snapshot. It can be read to its end also when a newer one takes its place meanwhile.
#[derive(Clone, Debug)]
pub(super) struct SnapshotFile {
    pub(super) path: PathBuf,
    file: Arc<File>,
    /// Removed with the last handle.
    temporary: Option<Arc<Temporary>>,
}

impl SnapshotFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.into(), file: Arc::new(File::open(path)?), temporary: None })
    }

    /// Gives a file that was made under a name of its own its place.
    pub(super) fn rename(mut self, to: &Path) -> io::Result<Self> {
        fs::rename(&self.path, to)?;
        if let Some(temporary) = self.temporary.take() {
            temporary.keep();
        }
        self.path = to.into();
        Ok(self)
    }

    /// What it is of, the length of its state, and the state to come.
    pub(super) fn reader(&self) -> io::Result<(SnapshotMeta, u64, ChunkReader)> {
        ChunkReader::new(self)
    }
}

/// A file that is removed in the end.
#[derive(Debug)]
struct Temporary {
    path: PathBuf,
    kept: std::sync::atomic::AtomicBool,
}

impl Temporary {
    fn keep(&self) {
        self.kept.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !*self.kept.get_mut() {
            let _ = fs::remove_file(&self.path); // what is left is removed at the next start
        }
    }
}

/// A snapshot that is written. One that is dropped before its end is removed.
#[derive(Debug)]
pub struct SnapshotWriter {
    temporary: Temporary,
    file: BufWriter<File>,
    written: u64,
    sums: Sums,
}

/// SHA-256 of the whole file, and of the state alone.
struct Sums {
    file: digest::Context,
    state: digest::Context,
}

impl std::fmt::Debug for Sums {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sums").finish_non_exhaustive()
    }
}

fn sum(context: &digest::Context) -> io::Result<[u8; DIGEST]> {
    context.clone().finish().as_ref().try_into().map_err(io::Error::other)
}

impl SnapshotWriter {
    pub(super) fn create(path: PathBuf, format: u8, meta: &SnapshotMeta) -> io::Result<Self> {
        let head = header(format, meta)?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        let temporary = Temporary { path, kept: false.into() };
        let context = || digest::Context::new(&digest::SHA256);
        let mut sums = Sums { file: context(), state: context() };
        let mut file = BufWriter::with_capacity(CHUNK, file);
        file.write_all(&head)?;
        sums.file.update(&head);
        Ok(Self { temporary, file, written: 0, sums })
    }

    /// The whole file; on stable storage, if it shall be.
    pub(super) fn finish(mut self, durable: bool) -> io::Result<SnapshotFile> {
        self.file.write_all(&sum(&self.sums.file)?)?;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        if durable {
            file.sync_all()?;
        }
        let path = self.temporary.path.clone();
        Ok(SnapshotFile { path, file: Arc::new(file), temporary: Some(Arc::new(self.temporary)) })
    }
}

impl Write for SnapshotWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        let part = bytes.get(..written).unwrap_or_default();
        self.sums.file.update(part);
        self.sums.state.update(part);
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A snapshot that is read. The last chunk comes out only when the whole file has checked out.
pub struct ChunkReader {
    path: PathBuf,
    file: Arc<File>,
    at: u64,
    format: u8,
    /// Bytes of the state still to come.
    left: u64,
    sums: Sums,
    ended: bool,
}

impl ChunkReader {
    fn new(from: &SnapshotFile) -> io::Result<(SnapshotMeta, u64, Self)> {
        let damaged = |what: &str| unusable(&from.path, what);
        let length = from.file.metadata()?.len();
        let context = || digest::Context::new(&digest::SHA256);
        let mut this = Self {
            path: from.path.clone(),
            file: from.file.clone(),
            at: 0,
            format: 0,
            left: 0,
            sums: Sums { file: context(), state: context() },
            ended: false,
        };
        let fixed = this.read_exact(MAGIC.len() + 5)?;
        let (magic, rest) = fixed.split_at(MAGIC.len());
        let &[format, a, b, c, d] = rest else { return Err(damaged("its header is no header")) };
        if magic != MAGIC || format == 0 {
            return Err(damaged("its header is no header of a snapshot"));
        }
        let meta_length = u32::from_be_bytes([a, b, c, d]) as usize;
        let around = (fixed.len() + meta_length + DIGEST) as u64;
        let left = length.checked_sub(around).filter(|_| meta_length <= MAX_META);
        let left = left.ok_or_else(|| damaged("its header does not fit its length"))?;
        if left > MAX_STATE {
            return Err(damaged("it is longer than a snapshot may be"));
        }
        let meta = this.read_exact(meta_length)?;
        let meta: SnapshotMeta = codec::decode(&meta).map_err(|e| damaged(&e.to_string()))?;
        (this.format, this.left) = (format, left);
        Ok((meta, left, this))
    }

    fn read_exact(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, self.at).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => unusable(&self.path, "it is cut short"),
            _ => e,
        })?;
        self.at += length as u64;
        self.sums.file.update(&bytes);
        Ok(bytes)
    }

    /// Format of the file.
    pub(super) fn format(&self) -> u8 {
        self.format
    }

    /// The next chunk, [`CHUNK`] bytes or the rest; `None` behind the last.
    pub fn next_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.ended {
            return Ok(None);
        }
        let chunk = self.read_exact(CHUNK.min(usize::try_from(self.left).unwrap_or(CHUNK)))?;
        self.left -= chunk.len() as u64;
        self.sums.state.update(&chunk);
        if self.left == 0 {
            let found = sum(&self.sums.file)?;
            if found.as_slice() != self.read_exact(DIGEST)? {
                return Err(unusable(&self.path, "its checksum is wrong"));
            }
            self.ended = true;
        }
        Ok((!chunk.is_empty()).then_some(chunk))
    }

    /// SHA-256 of the state; `None` before its end was read.
    pub fn digest(&self) -> Option<[u8; DIGEST]> {
        if self.ended { sum(&self.sums.state).ok() } else { None }
    }

    /// All of the state at once.
    pub(super) fn read_all(mut self) -> io::Result<Vec<u8>> {
        let mut state = Vec::with_capacity(usize::try_from(self.left).map_err(io::Error::other)?);
        while let Some(chunk) = self.next_chunk()? {
            state.extend_from_slice(&chunk);
        }
        Ok(state)
    }
}

/// A snapshot that is received, in a file until it is whole. One that is dropped before is removed.
#[derive(Debug)]
pub struct ChunkWriter {
    file: SnapshotWriter,
    /// Bytes that were announced.
    total: u64,
}

impl ChunkWriter {
    pub(super) fn create(path: PathBuf, format: u8, meta: &SnapshotMeta, total: u64) -> io::Result<Self> {
        if total > MAX_STATE {
            return Err(refused(&format!(
                "a snapshot of {total} bytes is announced, more than {MAX_STATE} are not taken"
            )));
        }
        Ok(Self { file: SnapshotWriter::create(path, format, meta)?, total })
    }

    /// Bytes that have come so far.
    pub fn received(&self) -> u64 {
        self.file.written
    }

    /// Takes the next chunk.
    pub fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        if self.received() + chunk.len() as u64 > self.total {
            return Err(refused(&format!("a snapshot of {} bytes was announced, and more comes", self.total)));
        }
        self.file.write_all(chunk)
    }

    /// The whole state, when it is what the sender has; on stable storage.
    pub fn finish(self, expected: &[u8]) -> io::Result<SnapshotData> {
        if self.received() != self.total {
            let (received, total) = (self.received(), self.total);
            return Err(refused(&format!("{received} bytes of a snapshot came, {total} were announced")));
        }
        if sum(&self.file.sums.state)?.as_slice() != expected {
            return Err(refused("a snapshot came with a wrong checksum"));
        }
        Ok(SnapshotData(Source::File(self.file.finish(true)?)))
    }
}

fn refused(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// The state in a snapshot: in memory, or in a file.
#[derive(Clone, Debug)]
pub struct SnapshotData(pub(super) Source);

#[derive(Clone, Debug)]
pub(super) enum Source {
    Memory(Arc<Vec<u8>>),
    File(SnapshotFile),
}

impl Default for SnapshotData {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl From<Vec<u8>> for SnapshotData {
    fn from(state: Vec<u8>) -> Self {
        Self(Source::Memory(Arc::new(state)))
    }
}

impl SnapshotData {
    /// Length of the state, bytes.
    pub fn length(&self) -> io::Result<u64> {
        Ok(match &self.0 {
            Source::Memory(state) => state.len() as u64,
            Source::File(file) => file.reader()?.1,
        })
    }

    /// SHA-256 of the state. A file is read to its end, and checked by that.
    pub fn sha256(&self) -> io::Result<[u8; DIGEST]> {
        match &self.0 {
            Source::Memory(state) => {
                digest::digest(&digest::SHA256, state).as_ref().try_into().map_err(io::Error::other)
            }
            Source::File(file) => {
                let (_, _, mut reader) = file.reader()?;
                while reader.next_chunk()?.is_some() {}
                sum(&reader.sums.state)
            }
        }
    }

    /// The state from its begin.
    pub fn chunks(&self) -> io::Result<Chunks> {
        Ok(Chunks(match &self.0 {
            Source::Memory(state) => Place::Memory(state.clone(), 0),
            Source::File(file) => Place::File(Box::new(file.reader()?.2)),
        }))
    }

    /// The state from its begin, as a reader.
    pub(crate) fn reader(&self) -> io::Result<impl Read + use<>> {
        Ok(StateReader { chunks: self.chunks()?, chunk: Vec::new(), at: 0 })
    }

    /// All of the state.
    pub fn into_bytes(self) -> io::Result<Vec<u8>> {
        match self.0 {
            Source::Memory(state) => Ok(Arc::unwrap_or_clone(state)),
            Source::File(file) => file.reader()?.2.read_all(),
        }
    }
}

/// A state in chunks. The last comes out only when the whole has checked out.
pub struct Chunks(Place);

enum Place {
    Memory(Arc<Vec<u8>>, usize),
    File(Box<ChunkReader>),
}

impl Chunks {
    /// The next, [`CHUNK`] bytes or the rest; `None` behind the last.
    pub fn next_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        match &mut self.0 {
            Place::Memory(state, at) => {
                let rest = state.get(*at..).unwrap_or_default();
                let chunk = rest.get(..CHUNK).unwrap_or(rest).to_vec();
                *at += chunk.len();
                Ok((!chunk.is_empty()).then_some(chunk))
            }
            Place::File(reader) => reader.next_chunk(),
        }
    }
}

struct StateReader {
    chunks: Chunks,
    chunk: Vec<u8>,
    at: usize,
}

impl Read for StateReader {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() {
            let Some(chunk) = self.chunks.next_chunk()? else { return Ok(0) };
            (self.chunk, self.at) = (chunk, 0);
        }
        let read = self.chunk.get(self.at..).unwrap_or_default().read(bytes)?;
        self.at += read;
        Ok(read)
    }
}
