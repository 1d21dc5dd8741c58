//! Files that are either the old ones or the new ones, and never readable by others for a moment.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use zeroize::Zeroizing;

use crate::{Error, Result};

/// Readable by the owner only.
pub(crate) const PRIVATE: u32 = 0o600;
/// Readable by everybody.
pub(crate) const PUBLIC: u32 = 0o644;
/// No file that is read here is longer, bytes.
const LONGEST: u64 = 1 << 20;

/// Puts a file in place of what is there.
pub(crate) fn put(path: &Path, mode: u32, content: &[u8]) -> Result {
    let write = || -> io::Result<()> {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let temporary = dir.join(format!(".{}.new", name.to_string_lossy()));
        match fs::remove_file(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync(dir)
    };
    write().map_err(|e| Error::file("write", path, &e))
}

/// Makes a folder and what is above it; what is there keeps its mode.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result {
    let make = |p: &Path, mode| DirBuilder::new().recursive(true).mode(mode).create(p);
    let parent = path.parent().map_or(Ok(()), |p| make(p, 0o755));
    parent.and_then(|()| make(path, mode)).map_err(|e| Error::file("make the folder", path, &e))
}

/// Makes what was renamed in this folder survive a loss of power.
pub(crate) fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// A file's content, if the file is there.
pub(crate) fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::file("read", path, &e)),
    };
    // All the room at once: a reallocation would leave a copy of a key behind.
    let room = file.metadata().map_or(0, |m| m.len()).min(LONGEST) as usize + 1;
    let mut content = Zeroizing::new(Vec::with_capacity(room));
    file.take(LONGEST).read_to_end(&mut content).map_err(|e| Error::file("read", path, &e))?;
    Ok(Some(content))
}

/// Removes a file; says whether there was one.
pub(crate) fn remove(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::file("remove", path, &e)),
    }
}
