//! From a backup to the state folder of a new cluster of one node.
//!
//! All of the backup is read and checked first. Everything is then made in `.restoring` inside the state folder, and moved
//! from there to its place, the store last: a folder in which `.restoring` is left is no state, and neither a controller
//! starts on it nor does a second attempt stumble over it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;

use super::Progress;
use super::contents::Contents;
use super::file;
use super::keys::Secret;
use crate::clock::Clock;
use crate::config::Config;
use crate::error::Error;
use crate::seal::{RESTORING, Sealer};
use crate::{files, raft};

/// The node of the new cluster.
const NODE_ID: u64 = 1;

/// As [`restore_of`], from a backup of whatever cluster.
pub async fn restore(
    path: &Path,
    secret: &Secret,
    state: &Path,
    config: &Config,
    clock: &Clock,
    progress: Progress<'_>,
) -> Result<Contents, Error> {
    restore_of(None, path, secret, state, config, clock, progress).await
}

/// Restores a backup into the folder `state`, which must be empty or not there, for a controller with the settings `config`.
/// Users, policies, certificates, numbers and the authority are as they were. Sessions are over and gateways must register
/// again, as what happened after the backup is unknown.
///
/// Anybody can make a backup to a public key. With `root`, the SHA-256 of the root certificate, only one is taken whose maker had
/// that root's private key.
pub async fn restore_of(
    root: Option<[u8; 32]>,
    path: &Path,
    secret: &Secret,
    state: &Path,
    config: &Config,
    clock: &Clock,
    progress: Progress<'_>,
) -> Result<Contents, Error> {
    config.check()?;
    check_empty(state)?;
    let mut backup = file::read(path, secret, progress)?;
    let contents = Contents::of(&backup).map_err(|e| Error::File {
        path: path.into(),
        cause: e.to_string(),
        remedy: e.remedy().into(),
    })?;
    if let Some(root) = root {
        contents.is_of(path, root)?;
    }
    backup.state.begin_anew(clock.unix_ms());

    let made_state = !state.exists();
    files::private_dir(state)?;
    let work = state.join(RESTORING);
    let key_file = Sealer::key_file(state, &config.unseal);
    let had_key = key_file.as_ref().is_none_or(|file| file.exists());
    let built = async {
        let failed = |e: io::Error| Error::file(&work, &e, "see that the folder belongs to this user");
        if work.exists() {
            fs::remove_dir_all(&work).map_err(failed)?; // an attempt that was killed
        }
        files::private_dir(&work)?;
        Sealer::prepare(state, &work, &config.unseal, &backup.seal_key)?;
        let raft = work.join("raft");
        files::private_dir(&raft)?;
        raft::seed(&raft, config.storage.engine, NODE_ID, backup.state.to_bytes()).await?;
        move_in(&work, state).map_err(failed)
    };
    match built.await {
        Ok(()) => Ok(contents),
        Err(e) => {
            take_back(&work, state, made_state);
            if let Some(key_file) = key_file.filter(|_| !had_key) {
                let _ = fs::remove_file(key_file); // the first error is the one to tell
            }
            Err(e)
        }
    }
}

/// Refuses a folder that holds anything but what a restore left that was cut short, or what a file system brings.
fn check_empty(state: &Path) -> Result<(), Error> {
    let failed = |e: &io::Error| Error::file(state, e, "choose a folder that this user may read");
    let mut names = Vec::new();
    match fs::read_dir(state) {
        Ok(entries) => {
            for entry in entries {
                names.push(entry.map_err(|e| failed(&e))?.file_name());
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(&e)),
    }
    let interrupted = names.iter().any(|n| n == RESTORING);
    let ours = |name: &OsString| name == RESTORING || (interrupted && PARTS.iter().any(|p| name == *p));
    if names.iter().all(|name| name == "lost+found" || ours(name)) {
        return Ok(());
    }
    Err(Error::File {
        path: state.into(),
        cause: "this folder is not empty".into(),
        remedy: "restore into a new folder (--state), or move away what is there".into(),
    })
}

/// What a restore puts into the folder. The first is made there, the others are moved there in this order; before the last
/// there is no state.
const PARTS: [&str; 3] = ["node.key", "seal.sealed", "raft"];

fn move_in(work: &Path, state: &Path) -> io::Result<()> {
    files::sync_dir(&work.join("raft"))?;
    files::sync_dir(work)?;
    for part in PARTS {
        let (from, to) = (work.join(part), state.join(part));
        if from.exists() {
            if to.is_dir() {
                fs::remove_dir_all(&to)?; // of an attempt that was killed
            }
            fs::rename(from, to)?;
        }
        files::sync_dir(state)?;
    }
    fs::remove_dir_all(work)?;
    files::sync_dir(state)
}

/// Undoes what was done before an error. What cannot be undone stays; the next attempt removes it.
fn take_back(work: &Path, state: &Path, made_state: bool) {
    for part in PARTS {
        let part = state.join(part);
        let _ = if part.is_dir() { fs::remove_dir_all(part) } else { fs::remove_file(part) };
    }
    let _ = fs::remove_dir_all(work);
    if made_state {
        let _ = fs::remove_dir(state);
    }
}
