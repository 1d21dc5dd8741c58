//! The folder of a gateway's identity:
//!
//! ```text
//! ca.pem grpc.pem grpc.key ike-*.pem ike-*.key   what an operator put there, if one did
//! current -> 7                                    swapped in one step
//! 7/ 6/                                           whole sets that the gateway enrolled for: in force, and before
//! ```
//!
//! What the gateway enrolled for counts as long as what the operator put there is the same as then: who writes the folder anew is
//! heard. A numbered folder is whole from the moment it has its name, so a crash leaves the old set or the new one, never half of
//! each.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

use ring::digest;
use sallyport_ca::{KeyPair, pem};
use sallyport_proto::dial::REVOKED;

use crate::identity::{CA, GONE, GRPC, IKE, Identity};

const CURRENT: &str = "current";
/// The set that is being written.
const NEXT: &str = ".next";
/// In a set: SHA-256 of the `grpc.pem` that an operator had put beside it.
const FOLLOWS: &str = "follows";
const PRIVATE: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// Where the files are that are in force.
pub fn in_force(dir: &Path) -> PathBuf {
    let current = dir.join(CURRENT);
    match fs::read(current.join(FOLLOWS)) {
        Ok(follows) if follows == origin(dir) => current,
        Ok(_) | Err(_) => dir.to_path_buf(),
    }
}

fn origin(dir: &Path) -> Vec<u8> {
    fs::read(dir.join(GRPC.0)).map(|pem| digest::digest(&digest::SHA256, &pem).as_ref().to_vec()).unwrap_or_default()
}

/// Keeps an identity in place of the one in force.
pub fn write(dir: &Path, identity: &Identity) -> io::Result<()> {
    stage(dir, identity)?;
    let number = promote(dir)?;
    point(dir, number)?;
    prune(dir, number)
}

/// Writes the whole set under a name that nobody reads.
fn stage(dir: &Path, identity: &Identity) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let next = dir.join(NEXT);
    remove(&next)?;
    DirBuilder::new().mode(0o700).create(&next)?;
    put(&next.join(CA), PUBLIC, &identity.ca)?;
    if !identity.gone.is_empty() {
        put(&next.join(GONE), PUBLIC, &identity.gone)?;
    }
    put(&next.join(GRPC.0), PUBLIC, &identity.grpc_chain)?;
    put(&next.join(GRPC.1), PRIVATE, &identity.grpc_key)?;
    for ike in &identity.ike {
        let key = KeyPair::from_pkcs8_der(&ike.key).map_err(io::Error::other)?;
        let (chain, secret) = if key.public_key().algorithm().is_rsa() { IKE[0] } else { IKE[1] };
        let pems: String = ike.chain.iter().map(|der| pem::encode("CERTIFICATE", der).to_string()).collect();
        put(&next.join(chain), PUBLIC, pems.as_bytes())?;
        put(&next.join(secret), PRIVATE, key.pkcs8_pem().as_bytes())?;
    }
    if let Some(list) = &identity.revoked {
        put(&next.join(REVOKED), PUBLIC, list)?;
    }
    put(&next.join(FOLLOWS), PUBLIC, &origin(dir))?;
    File::open(&next)?.sync_all()
}

/// Gives it a number.
fn promote(dir: &Path) -> io::Result<u64> {
    let number = numbers(dir)?.last().map_or(1, |n| n + 1);
    fs::rename(dir.join(NEXT), dir.join(number.to_string()))?;
    File::open(dir)?.sync_all()?;
    Ok(number)
}

/// Puts it in force.
fn point(dir: &Path, number: u64) -> io::Result<()> {
    let link = dir.join(".current.new");
    remove(&link)?;
    symlink(number.to_string(), &link)?;
    fs::rename(&link, dir.join(CURRENT))?;
    File::open(dir)?.sync_all()
}

/// Takes away all sets but that one and the one before it.
fn prune(dir: &Path, number: u64) -> io::Result<()> {
    let mut older: Vec<u64> = numbers(dir)?.into_iter().filter(|n| *n < number).collect();
    older.pop();
    older.iter().try_for_each(|n| remove(&dir.join(n.to_string())))
}

fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn put(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(what) if what.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A private key in a file of its own, for as long as it waits for its first certificate.
pub fn keep_pending(dir: &Path, key: &KeyPair) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let (path, new) = (dir.join(PENDING), dir.join(".pending.new"));
    remove(&new)?;
    put(&new, PRIVATE, key.pkcs8_pem().as_bytes())?;
    fs::rename(new, path)?;
    File::open(dir)?.sync_all()
}

const PENDING: &str = "pending.key";

/// The key that waits for its first certificate, if one does.
pub fn pending(dir: &Path) -> Option<KeyPair> {
    let text = zeroize::Zeroizing::new(fs::read(dir.join(PENDING)).ok()?);
    KeyPair::from_pem(&text).ok()
}

/// It has its certificate.
pub fn forget_pending(dir: &Path) -> io::Result<()> {
    remove(&dir.join(PENDING))
}

#[cfg(test)]
mod tests;
