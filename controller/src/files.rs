//! Files of the state folder: written whole or not at all, readable by us alone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::error::Error;

/// Makes a folder that only its owner may enter, with those above it as they come.
pub(crate) fn private_dir(path: &Path) -> Result<(), Error> {
    let made = || -> io::Result<()> {
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            fs::create_dir_all(parent)?;
        }
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => sync_dir(path.parent().unwrap_or(path)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            Err(e) => Err(e),
        }
    };
    made().map_err(|e| Error::file(path, &e, "choose a state folder that this user may write"))
}

/// Makes durable what was made, renamed or removed in a folder.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path)?.sync_all()
}

/// Writes a file of mode 0600: a crash leaves the old one or the new one.
pub(crate) fn write_private(path: &Path, contents: &[u8]) -> Result<(), Error> {
    let written = || -> io::Result<()> {
        let tmp = path.with_extension("tmp");
        match fs::remove_file(&tmp) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        // Made with its mode: it is at no moment readable by others.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&tmp)?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&tmp, path)?;
        sync_dir(path.parent().unwrap_or(path))
    };
    written().map_err(|e| Error::file(path, &e, "see that the disk has room and the folder belongs to this user"))
}

/// Puts a file that is there in place of another.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    let renamed = fs::rename(from, to).and_then(|()| sync_dir(to.parent().unwrap_or(to)));
    renamed.map_err(|e| Error::file(to, &e, "see that the folder belongs to this user"))
}

/// Removes a file that is of no use any more.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::file(path, &e, "see that the folder belongs to this user"))
        }
        _ => Ok(()),
    }
}

/// Writes a file of mode 0600 that must not be there yet, whoever else makes one of that name at the same time.
pub(crate) fn write_new_private(path: &Path, contents: &[u8]) -> Result<(), Error> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|e| {
        let remedy = match e.kind() {
            io::ErrorKind::AlreadyExists => "choose another name: what is there is not replaced",
            _ => "see that the folder belongs to this user",
        };
        Error::file(path, &e, remedy)
    })?;
    let written = file.write_all(contents).and_then(|()| file.sync_all());
    written.and_then(|()| sync_dir(path.parent().unwrap_or(path))).map_err(|e| {
        let _ = fs::remove_file(path); // half a file is of no use, and the first error is the one to tell
        Error::file(path, &e, "see that the disk has room")
    })
}

/// Removes a file that holds a secret, if it is there. Its bytes are overwritten first, for what that is worth on a disk that
/// remembers.
pub(crate) fn destroy(path: &Path) -> Result<(), Error> {
    let destroyed = || -> io::Result<()> {
        let mut file = match OpenOptions::new().write(true).open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(0);
        file.write_all(&vec![0; length])?;
        file.sync_all()?;
        fs::remove_file(path)?;
        sync_dir(path.parent().unwrap_or(path))
    };
    destroyed().map_err(|e| Error::file(path, &e, "remove it by hand: whoever reads it has a key"))
}

/// Reads a file that holds a secret; `None` when it is not there. One that others may read is refused.
pub(crate) fn read_private(path: &Path) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>, Error> {
    let read = || -> io::Result<(u32, Vec<u8>)> { Ok((fs::metadata(path)?.permissions().mode(), fs::read(path)?)) };
    match read() {
        Ok((mode, contents)) if mode & 0o077 == 0 => Ok(Some(zeroize::Zeroizing::new(contents))),
        Ok(_) => Err(Error::File {
            path: path.into(),
            cause: "others may read this file".into(),
            remedy: "take the permission away (chmod 600) and consider whether they did".into(),
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::file(path, &e, "see that the file belongs to this user")),
    }
}

/// Reads a file that is no secret; `None` when it is not there.
pub(crate) fn read_public(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(contents) => Ok(Some(contents)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::file(path, &e, "see that the file belongs to this user")),
    }
}

/// This machine's name, for lists.
pub(crate) fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().filter(|c| !c.is_control()).take(64).collect();
    if name.is_empty() { "controller".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_written_for_us_alone_and_refused_when_they_are_open() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let state = dir.path().join("a/b");
        private_dir(&state).expect("makes");
        private_dir(&state).expect("again");
        assert_eq!(fs::metadata(&state).expect("there").permissions().mode() & 0o777, 0o700);
        let file = state.join("secret.key");
        assert!(read_private(&file).expect("reads").is_none());
        for contents in [b"one".as_slice(), b"two"] {
            write_private(&file, contents).expect("writes");
            assert_eq!(read_private(&file).expect("reads").expect("there").as_slice(), contents);
        }
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("opens");
        assert!(read_private(&file).is_err_and(|e| e.to_string().contains("chmod 600")));
    }
}
