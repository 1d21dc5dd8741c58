//! A backup as a file: written under another name until it is whole, and read only if it is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ring::rand::SecureRandom;
use sallyport_ca::seal::SealKey;
use zeroize::Zeroizing;

use super::Progress;
use super::chunks::{ChunkReader, ChunkWriter, TAG};
use super::contents::Contents;
use super::head::{Fault, Head, Info, Recipients};
use super::keys::{Lock, Secret};
use crate::error::Error;
use crate::files;
use crate::software::Software;
use crate::state::State;

/// Plain bytes of a chunk.
const CHUNK: u32 = 64 * 1024;
/// Plain bytes before the state: the seal key, and the length of the state.
const PREAMBLE: usize = 32 + 8;
/// State read at once.
const PIECE: usize = 1024 * 1024;

/// Bytes of the payload as it is in the file.
fn payload_len(state_bytes: u64, chunk: usize) -> Option<u64> {
    let plain = state_bytes.checked_add(PREAMBLE as u64)?;
    plain.div_ceil(u64::try_from(chunk).ok()?).checked_mul(TAG as u64)?.checked_add(plain)
}

/// A backup being written, mode 0600. If it is dropped before [`Writer::finish`], nothing of it is left.
pub struct Writer {
    path: PathBuf,
    partial: PathBuf,
    out: Option<ChunkWriter<BufWriter<File>>>,
    missing: u64,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("path", &self.path).field("missing", &self.missing).finish_non_exhaustive()
    }
}

impl Writer {
    /// Begins a backup in the file `path`, which is not there yet. Exactly `info.state_bytes` bytes of state must follow.
    pub fn create(
        path: &Path,
        info: Info,
        lock: &Lock,
        seal_key: &SealKey,
        rng: &dyn SecureRandom,
    ) -> Result<Self, Error> {
        Self::create_with(path, info, lock, seal_key, rng, CHUNK)
    }

    pub(super) fn create_with(
        path: &Path,
        info: Info,
        lock: &Lock,
        seal_key: &SealKey,
        rng: &dyn SecureRandom,
        chunk: u32,
    ) -> Result<Self, Error> {
        refuse_existing(path)?;
        let missing = info.state_bytes;
        let (head, key) = Head::make(info, chunk, lock, rng).map_err(|e| {
            Error::Refused(format!("the backup cannot be locked ({e}); are the public keys those that keygen wrote?"))
        })?;
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let begun = || -> io::Result<_> {
            match fs::remove_file(&partial) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {} // what an earlier attempt left that was killed
            }
            // Made with its mode: it is at no moment readable by others.
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
            let mut out = BufWriter::new(file);
            io::Write::write_all(&mut out, &head.bytes)?;
            let mut out = ChunkWriter::new(out, &key, chunk as usize)?;
            out.write(&*seal_key.to_bytes())?;
            out.write(&missing.to_be_bytes())?;
            Ok(out)
        };
        let begun = begun();
        let mut this = Self { path: path.into(), partial, out: None, missing };
        this.out = Some(begun.map_err(|e| this.failed(&e))?);
        Ok(this)
    }

    fn failed(&self, e: &io::Error) -> Error {
        Error::file(&self.partial, e, "see that the disk has room and the folder may be written to")
    }

    /// Takes more of the state.
    pub fn write(&mut self, state: &[u8]) -> Result<(), Error> {
        self.missing = (self.missing)
            .checked_sub(state.len() as u64)
            .ok_or_else(|| Error::Internal("the controller sent more state than it announced".into()))?;
        let written = self.out.as_mut().map_or(Ok(()), |out| out.write(state));
        written.map_err(|e| self.failed(&e))
    }

    /// Ends the backup and gives the file its name. Returns its size, bytes; the file is on stable storage.
    pub fn finish(mut self) -> Result<u64, Error> {
        if self.missing > 0 {
            return Err(Error::Internal(format!("the state ended {} bytes before its announced end", self.missing)));
        }
        let Some(out) = self.out.take() else { return Ok(0) };
        let ended = || -> io::Result<u64> {
            let file = out.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.sync_all()?;
            Ok(file.metadata()?.len())
        };
        let size = ended().map_err(|e| self.failed(&e))?;
        refuse_existing(&self.path)?;
        let named = fs::rename(&self.partial, &self.path);
        named.and_then(|()| files::sync_dir(parent(&self.path))).map_err(|e| self.failed(&e))?;
        Ok(size)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Named by now, or not wanted: nobody can be told here, and the next attempt removes it.
        let _ = fs::remove_file(&self.partial);
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

fn refuse_existing(path: &Path) -> Result<(), Error> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    Err(Error::File {
        path: path.into(),
        cause: "this file is there already".into(),
        remedy: "choose another name; a backup never overwrites one".into(),
    })
}

fn at(path: &Path) -> impl Fn(Fault) -> Error + '_ {
    |fault| Error::File { path: path.into(), cause: fault.to_string(), remedy: fault.remedy().into() }
}

/// What a file says of itself, and who can open it. Nothing of this is proven before [`verify`].
pub fn open(path: &Path) -> Result<(Info, Recipients), Error> {
    let (head, _) = begin(path).map_err(at(path))?;
    Ok((head.info(), head.recipients()))
}

/// Reads the head, and sees that the file has the length that it should have.
fn begin(path: &Path) -> Result<(Head, BufReader<File>), Fault> {
    let file = File::open(path).map_err(Fault::Io)?;
    let is = file.metadata().map_err(Fault::Io)?.len();
    let mut input = BufReader::new(file);
    let head = Head::read(&mut input)?;
    let payload = payload_len(head.info().state_bytes, head.chunk_bytes()).ok_or(Fault::Head)?;
    let should_be = payload.checked_add(head.bytes.len() as u64).ok_or(Fault::Head)?;
    match is.cmp(&should_be) {
        std::cmp::Ordering::Less => Err(Fault::Truncated { is, should_be }),
        std::cmp::Ordering::Equal => Ok((head, input)),
        std::cmp::Ordering::Greater => Err(Fault::TooLong(is - should_be)),
    }
}

/// A backup that was read and checked to its end.
pub(super) struct Backup {
    pub(super) info: Info,
    pub(super) seal_key: SealKey,
    pub(super) state: State,
}

/// Decrypts and checks everything.
pub(super) fn read(path: &Path, secret: &Secret, progress: Progress<'_>) -> Result<Backup, Error> {
    read_all(path, secret, progress).map_err(at(path))
}

fn read_all(path: &Path, secret: &Secret, progress: Progress<'_>) -> Result<Backup, Fault> {
    let (head, input) = begin(path)?;
    let info = head.info();
    let mut payload = ChunkReader::new(input, &*head.open(secret)?, head.chunk_bytes()).map_err(Fault::Io)?;
    let mut seal_key = Zeroizing::new([0; 32]);
    payload.read_exact(&mut *seal_key)?;
    let mut length = [0; 8];
    payload.read_exact(&mut length)?;
    if u64::from_be_bytes(length) != info.state_bytes {
        return Err(Fault::Content("its head and its payload announce different lengths".into()));
    }
    // Bounded by the length of the file, which was compared to it.
    let total = usize::try_from(info.state_bytes).map_err(|_| Fault::Head)?;
    let mut bytes = vec![0; total];
    let mut done = 0;
    for piece in bytes.chunks_mut(PIECE) {
        payload.read_exact(piece)?;
        done += piece.len() as u64;
        progress(done, info.state_bytes);
    }
    payload.end()?;
    let state = State::from_bytes(&bytes).map_err(|e| Fault::Content(e.to_string()))?;
    Software::current().reaches(state.level(), state.level_since()).map_err(Fault::Beyond)?;
    if state.cluster_id() != info.cluster_id {
        return Err(Fault::Content("its head names another cluster than its state".into()));
    }
    Ok(Backup { info, seal_key: SealKey::from_bytes(&seal_key), state })
}

/// Decrypts and checks everything in a backup, and that its authority opens; says what is inside.
pub fn verify(path: &Path, secret: &Secret, progress: Progress<'_>) -> Result<Contents, Error> {
    let backup = read(path, secret, progress)?;
    Contents::of(&backup).map_err(at(path))
}
