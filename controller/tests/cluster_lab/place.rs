//! Where controllers run: in network namespaces of their own, on a bridge to which the clients belong too; or, where a machine
//! forbids that, beside each other on the loopback.
//!
//! The first needs a process that is root in its own namespaces: the test runs itself again by `unshare`, with process ids of
//! its own too, so that nothing outlives it. Frames are lost by sending them to a hardware address that nobody has: in one
//! direction, without an answer, and with nothing but iproute2.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use super::common::steady_address;

/// The clients' number on the bridge.
pub(crate) const CLIENTS: u32 = 254;
/// Members for which there is a place.
pub(crate) const PLACES: u32 = 5;
const PORT: u16 = 7443;
/// A hardware address that nobody has.
const NOBODY: &str = "02:00:00:00:ff:ff";

/// What namespaces are made with, and the Debian package that has it.
const TOOLS: [(&str, &str); 5] =
    [("unshare", "util-linux"), ("nsenter", "util-linux"), ("mount", "mount"), ("ip", "iproute2"), ("tc", "iproute2")];

/// Where controllers run.
#[derive(Debug)]
pub(crate) enum Place {
    /// Beside each other: the address of each.
    Loopback(BTreeMap<u32, SocketAddr>),
    /// Each in a network namespace, which a process holds open.
    Bridge(BTreeMap<u32, Child>),
}

/// The command that runs another one inside new namespaces, or why there is none: what the machine forbids is said in other words
/// than what can be installed.
pub(crate) fn inside() -> &'static Result<Vec<&'static str>, String> {
    static HOW: OnceLock<Result<Vec<&'static str>, String>> = OnceLock::new();
    HOW.get_or_init(|| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let is_there = |tool: &str| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file());
        if let Some((tool, package)) = TOOLS.iter().find(|(tool, _)| !is_there(tool)) {
            return Err(format!("no {package} (apt-get install {package}): {tool} is not in PATH"));
        }
        let common = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
        let mut why = String::new();
        for first in [&["unshare"][..], &["unshare", "--user", "--map-root-user"]] {
            let words: Vec<&str> = first.iter().chain(&common).copied().collect();
            let probe = "ip link add type veth && ip link add name probe type bridge && mount -t tmpfs none /mnt";
            match Command::new(words[0]).args(&words[1..]).args(["sh", "-c", probe]).output() {
                Ok(out) if out.status.success() => return Ok(words),
                Ok(out) => why = String::from_utf8_lossy(&out.stderr).trim().replace('\n', "; "),
                Err(e) => why = format!("unshare: {e}"),
            }
        }
        Err(format!("no network namespaces here ({why})"))
    })
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    match Command::new(program).args(arguments).output() {
        Ok(out) if out.status.success() => Ok(()),
        Ok(out) => Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&out.stderr).trim())),
        Err(e) => Err(format!("{program}: {e}")),
    }
}

/// Runs a command and gives it lines to read.
fn feed(program: &str, arguments: &[&str], lines: &str) {
    let mut child = Command::new(program).args(arguments).stdin(Stdio::piped()).spawn().expect("iproute2");
    child.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("reads");
    assert!(child.wait().expect("ends").success(), "{program} {} refuses:\n{lines}", arguments.join(" "));
}

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, u8::try_from(number).expect("a small number"))
}

fn hardware(number: u32) -> String {
    format!("02:00:00:00:00:{number:02x}")
}

/// A line for `ip`: to which hardware address frames from one for another go.
fn neighbour(from: u32, to: u32, hardware: &str) -> String {
    let device = if from == CLIENTS { "bridge" } else { "eth0" };
    format!("neigh replace {} lladdr {hardware} nud permanent dev {device}\n", address(to))
}

impl Place {
    /// On the loopback.
    pub(crate) fn loopback() -> Self {
        Self::Loopback((1..=PLACES).map(|n| (n, steady_address())).collect())
    }

    /// In namespaces; this process must be root in some of its own.
    pub(crate) fn bridge() -> Self {
        let holder = || {
            Command::new("unshare")
                .args(["--net", "sh", "-c", "echo there && exec cat"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("unshare")
        };
        let mut holders: BTreeMap<u32, Child> = (1..=PLACES).map(|n| (n, holder())).collect();
        let mut here = format!(
            "link set lo up\nlink add bridge address {} type bridge\naddr add {}/24 dev bridge\nlink set bridge up\n",
            hardware(CLIENTS),
            address(CLIENTS)
        );
        for (n, holder) in &mut holders {
            let mut line = String::new();
            BufReader::new(holder.stdout.take().expect("a pipe")).read_line(&mut line).expect("reads");
            assert_eq!(line, "there\n");
            let (hardware, pid) = (hardware(*n), holder.id());
            here += &format!("link add port{n} type veth peer name eth0 address {hardware} netns {pid}\n");
            here += &format!("link set port{n} master bridge up\n");
        }
        feed("ip", &["-batch", "-"], &here);
        let place = Self::Bridge(holders);
        for n in 1..=PLACES {
            let address = address(n);
            place.batch(n, &format!("link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\n"));
        }
        place.heal();
        place
    }

    /// Lines for `ip`, at the place of member `n`.
    fn batch(&self, n: u32, lines: &str) {
        match self {
            Self::Bridge(holders) if n != CLIENTS => {
                let net = format!("--net=/proc/{}/ns/net", holders[&n].id());
                feed("nsenter", &[&net, "--", "ip", "-batch", "-"], lines);
            }
            _ => feed("ip", &["-batch", "-"], lines),
        }
    }

    /// Whether links can be cut and disks be small.
    pub(crate) const fn is_a_network(&self) -> bool {
        matches!(self, Self::Bridge(_))
    }

    /// Where member `n` listens.
    pub(crate) fn listen(&self, n: u32) -> SocketAddr {
        match self {
            Self::Loopback(addresses) => addresses[&n],
            Self::Bridge(_) => SocketAddr::new(address(n).into(), PORT),
        }
    }

    /// A command that runs `program` at the place of member `n`.
    pub(crate) fn command(&self, n: u32, program: &Path) -> Command {
        match self {
            Self::Loopback(_) => Command::new(program),
            Self::Bridge(holders) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/proc/{}/ns/net", holders[&n].id())).arg("--").arg(program);
                command
            }
        }
    }

    fn at(&self, n: u32, words: &[&str]) -> Result<(), String> {
        match self {
            Self::Bridge(holders) if n != CLIENTS => {
                let net = format!("--net=/proc/{}/ns/net", holders[&n].id());
                run("nsenter", &[&[net.as_str(), "--"], words].concat())
            }
            _ => run(words[0], &words[1..]),
        }
    }

    /// From now on nothing gets from `from` to `to`; the other direction is as it was.
    pub(crate) fn cut(&self, from: u32, to: u32) {
        self.batch(from, &neighbour(from, to, NOBODY));
    }

    /// Everything gets everywhere again.
    pub(crate) fn heal(&self) {
        let all: Vec<u32> = (1..=PLACES).chain([CLIENTS]).collect();
        for from in &all {
            let others = all.iter().filter(|to| *to != from);
            let lines: String = others.map(|to| neighbour(*from, *to, &hardware(*to))).collect();
            self.batch(*from, &lines);
        }
    }

    /// Makes the link of member `n` slow in both directions; returns how. With `netem`, packets are late too.
    pub(crate) fn slow(&self, n: u32, rate: &str, delay: &str) -> String {
        let port = format!("port{n}");
        let both = |words: &[&str]| {
            let shape = |at, device| {
                let begin = ["tc", "qdisc", "replace", "dev", device, "root"];
                self.at(at, &[&begin[..], words].concat())
            };
            shape(n, "eth0").and_then(|()| shape(CLIENTS, port.as_str()))
        };
        if both(&["netem", "rate", rate, "delay", delay]).is_ok() {
            return format!("{rate}, {delay} late");
        }
        both(&["tbf", "rate", rate, "burst", "4kb", "latency", "400ms"]).expect("tc");
        format!("{rate}, up to 400 ms late (this kernel has no netem)")
    }

    /// Its link is as fast as the others again.
    pub(crate) fn fast(&self, n: u32) {
        self.at(n, &["tc", "qdisc", "del", "dev", "eth0", "root"]).expect("tc");
        self.at(CLIENTS, &["tc", "qdisc", "del", "dev", &format!("port{n}"), "root"]).expect("tc");
    }

    /// A disk of its own for `folder`.
    pub(crate) fn small_disk(&self, folder: &Path, size: &str) {
        let folder = folder.to_str().expect("text");
        run("mount", &["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "tmpfs", folder]).expect("mounts");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Self::Bridge(holders) = self {
            for holder in holders.values_mut() {
                let _ = holder.kill();
                let _ = holder.wait();
            }
        }
    }
}
