//! Snapshots on their way to another member, a chunk at a time: no more than that is in memory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ring::digest;

use super::{CHUNK, DIGEST, MAGIC, MAX_META, MAX_STATE, SnapshotMeta, Summed, codec, unusable};

/// A snapshot that is read. The last chunk comes out only when the whole file has checked out.
pub struct ChunkReader {
    path: PathBuf,
    file: Summed,
    format: u8,
    /// Bytes of the state still to come.
    left: u64,
    state: digest::Context,
    ended: bool,
}

impl ChunkReader {
    /// Opens a snapshot: what it is of, the length of its state, and the state to come.
    pub(super) fn open(path: &Path) -> io::Result<(SnapshotMeta, u64, Self)> {
        let damaged = |what: &str| unusable(path, what);
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut file = Summed { file, sum: digest::Context::new(&digest::SHA256) };
        let mut fixed = [0; MAGIC.len() + 5];
        file.read_exact(&mut fixed).map_err(|e| cut_short(e, path))?;
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
        let mut meta = vec![0; meta_length];
        file.read_exact(&mut meta).map_err(|e| cut_short(e, path))?;
        let meta: SnapshotMeta = codec::decode(&meta).map_err(|e| damaged(&e.to_string()))?;
        let state = digest::Context::new(&digest::SHA256);
        Ok((meta, left, Self { path: path.into(), file, format, left, state, ended: false }))
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
        let mut chunk = vec![0; CHUNK.min(usize::try_from(self.left).unwrap_or(CHUNK))];
        self.file.read_exact(&mut chunk).map_err(|e| cut_short(e, &self.path))?;
        self.left -= chunk.len() as u64;
        self.state.update(&chunk);
        if self.left == 0 {
            let sum = self.file.sum.clone().finish();
            let mut expected = [0; DIGEST];
            self.file.file.read_exact(&mut expected).map_err(|e| cut_short(e, &self.path))?;
            if sum.as_ref() != expected {
                return Err(unusable(&self.path, "its checksum is wrong"));
            }
            self.ended = true;
        }
        Ok((!chunk.is_empty()).then_some(chunk))
    }

    /// SHA-256 of the state; `None` before its end was read.
    pub fn digest(&self) -> Option<[u8; DIGEST]> {
        let digest = self.ended.then(|| self.state.clone().finish())?;
        digest.as_ref().try_into().ok()
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

fn cut_short(e: io::Error, path: &Path) -> io::Error {
    match e.kind() {
        io::ErrorKind::UnexpectedEof => unusable(path, "it is cut short"),
        _ => e,
    }
}

/// A snapshot that is received, in a file until it is whole.
pub struct ChunkWriter {
    path: PathBuf,
    file: File,
    /// Bytes that were announced, and those that have come.
    total: u64,
    received: u64,
    sum: digest::Context,
}

impl ChunkWriter {
    pub(super) fn create(path: PathBuf, total: u64) -> io::Result<Self> {
        if total > MAX_STATE {
            return Err(refused(&format!(
                "a snapshot of {total} bytes is announced, more than {MAX_STATE} are not taken"
            )));
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        Ok(Self { path, file, total, received: 0, sum: digest::Context::new(&digest::SHA256) })
    }

    /// Bytes that have come so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Takes the next chunk.
    pub fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        let received = self.received + chunk.len() as u64;
        if received > self.total {
            return Err(refused(&format!("a snapshot of {} bytes was announced, and more comes", self.total)));
        }
        self.file.write_all(chunk)?;
        self.sum.update(chunk);
        self.received = received;
        Ok(())
    }

    /// The whole state, when it is what the sender has.
    pub fn finish(mut self, expected: &[u8; DIGEST]) -> io::Result<Vec<u8>> {
        if self.received != self.total {
            let (received, total) = (self.received, self.total);
            return Err(refused(&format!("{received} bytes of a snapshot came, {total} were announced")));
        }
        if self.sum.clone().finish().as_ref() != expected {
            return Err(refused("a snapshot came with a wrong checksum"));
        }
        let length = usize::try_from(self.total).map_err(io::Error::other)?;
        let mut state = Vec::with_capacity(length);
        self.file.seek(SeekFrom::Start(0))?;
        (&self.file).take(self.total).read_to_end(&mut state)?;
        // It has been on a disk meanwhile.
        if digest::digest(&digest::SHA256, &state).as_ref() != expected {
            return Err(unusable(&self.path, "it is not what was written"));
        }
        Ok(state)
    }
}

impl Drop for ChunkWriter {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // what is left is removed at the next start
    }
}

fn refused(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}
