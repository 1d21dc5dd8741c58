//! Namespaces of our own: a network that is ours alone, without privilege where the machine allows it.

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Uid, getegid, geteuid};

use crate::error::{Error, Result};

/// Moves this process into a new network namespace and, unless it is privileged, into a user namespace first, in which
/// it is root.
///
/// The process must have one thread only (the kernel refuses `CLONE_NEWUSER` otherwise), so this runs before any
/// runtime is built.
pub(crate) fn enter() -> Result {
    let privileged = geteuid().is_root();
    if privileged {
        match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => return Ok(()),
            // Root without CAP_SYS_ADMIN, as in most containers: try as anybody else would.
            Err(Errno::EPERM) => {}
            Err(e) => return Err(refused("a network namespace", e)),
        }
    }
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|e| refused("a user namespace", e))?;
    map_to_root(uid, gid.as_raw()).map_err(|e| refused("the user map of a user namespace", errno(&e)))?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(|e| refused("a network namespace", e))
}

/// Moves this process into one more network namespace, below the user namespace it has.
pub(crate) fn enter_network() -> Result {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|e| refused("a network namespace", e))
}

/// Makes the caller root in the namespace just entered (user_namespaces(7)).
fn map_to_root(uid: Uid, gid: u32) -> io::Result<()> {
    // A process without privilege in the parent namespace may map its group only after giving up setgroups(2).
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}

fn refused(what: &str, errno: Errno) -> Error {
    let facts = Facts::read();
    let (cause, remedy) = facts.explain(errno);
    Error::machine(format!("this machine does not let the demo make {what}: {cause}")).remedy(remedy)
}

/// What the kernel says about user namespaces; `None` where it has no such switch.
#[derive(Clone, Copy, Debug, Default)]
struct Facts {
    /// Debian and its kin: 0 forbids user namespaces to users without privilege.
    unprivileged_userns_clone: Option<u64>,
    /// Ubuntu: 1 forbids them to programs without an AppArmor profile that allows them.
    apparmor_restricts: Option<u64>,
    /// Mainline: how many there may be.
    max_user_namespaces: Option<u64>,
    /// Mainline: how many there may be.
    max_net_namespaces: Option<u64>,
    /// Whether we run in a container.
    container: bool,
}

impl Facts {
    fn read() -> Self {
        let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse().ok();
        Self {
            unprivileged_userns_clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor_restricts: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            max_user_namespaces: number("/proc/sys/user/max_user_namespaces"),
            max_net_namespaces: number("/proc/sys/user/max_net_namespaces"),
            container: Path::new("/.dockerenv").exists() || Path::new("/run/.containerenv").exists(),
        }
    }

    /// The cause in words, and what to do.
    fn explain(self, errno: Errno) -> (String, String) {
        let pair = |cause: &str, remedy: &str| (cause.to_owned(), remedy.to_owned());
        if self.max_user_namespaces == Some(0) || self.max_net_namespaces == Some(0) {
            return pair(
                "sysctl user.max_user_namespaces or user.max_net_namespaces is 0",
                "run `sudo sysctl user.max_user_namespaces=1000 user.max_net_namespaces=1000`, or the demo with sudo",
            );
        }
        if errno == Errno::ENOSPC {
            return pair(
                "the number of namespaces allowed by sysctl user.max_user_namespaces or user.max_net_namespaces is reached",
                "raise that sysctl, or run the demo with sudo",
            );
        }
        if self.unprivileged_userns_clone == Some(0) {
            return pair(
                "sysctl kernel.unprivileged_userns_clone is 0",
                "run `sudo sysctl kernel.unprivileged_userns_clone=1`, or the demo with sudo",
            );
        }
        if self.apparmor_restricts == Some(1) {
            return pair(
                "AppArmor restricts user namespaces (sysctl kernel.apparmor_restrict_unprivileged_userns is 1)",
                "run `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or the demo with sudo",
            );
        }
        if errno == Errno::EINVAL {
            return pair(
                "the kernel was built without user or network namespaces, or the process has several threads",
                "run the demo with sudo, or use a kernel with CONFIG_USER_NS and CONFIG_NET_NS",
            );
        }
        if self.container {
            return (
                format!("the container forbids it ({errno})"),
                "start the container with `--cap-add SYS_ADMIN --cap-add NET_ADMIN --security-opt seccomp=unconfined \
                 --device /dev/net/tun`"
                    .to_owned(),
            );
        }
        (format!("{errno}"), "run the demo with sudo".to_owned())
    }
}

/// Whether the demo can make a TUN device; says what is missing.
pub(crate) fn check_tun() -> Result {
    const TUN: &str = "/dev/net/tun";
    match fs::OpenOptions::new().read(true).write(true).open(TUN) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::machine(format!("{TUN} is missing"))
            .remedy("run `sudo modprobe tun`; in a container start it with `--device /dev/net/tun`")),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            Err(Error::machine(format!("{TUN} may not be opened by this user"))
                .remedy("run `sudo chmod 0666 /dev/net/tun` (most systems ship it so), or the demo with sudo"))
        }
        Err(e) => Err(Error::machine(format!("{TUN} cannot be opened: {e}"))
            .remedy("run `sudo modprobe tun`, or use a kernel with CONFIG_TUN")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_forbid_namespaces_has_its_remedy() {
        let none = Facts::default();
        let cases = [
            (Facts { unprivileged_userns_clone: Some(0), ..none }, Errno::EPERM, "kernel.unprivileged_userns_clone=1"),
            (
                Facts { apparmor_restricts: Some(1), ..none },
                Errno::EACCES,
                "kernel.apparmor_restrict_unprivileged_userns=0",
            ),
            (Facts { max_user_namespaces: Some(0), ..none }, Errno::ENOSPC, "user.max_user_namespaces=1000"),
            (Facts { max_user_namespaces: Some(9), ..none }, Errno::ENOSPC, "raise that sysctl"),
            (Facts { container: true, ..none }, Errno::EPERM, "--cap-add SYS_ADMIN"),
            (none, Errno::EINVAL, "CONFIG_USER_NS"),
            (none, Errno::EPERM, "with sudo"),
        ];
        for (facts, errno, expected) in cases {
            let (cause, remedy) = facts.explain(errno);
            assert!(remedy.contains(expected), "{facts:?} {errno}: {cause} / {remedy}");
            assert!(!cause.is_empty());
        }
    }
}
