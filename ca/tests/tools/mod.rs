//! Programs of others that judge what the crate makes, and make what it reads.
#![allow(dead_code, unreachable_pub)] // each test takes what it needs

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use sallyport_ca::{KeyAlgorithm, KeyPair, SystemRandom, UnixTime};

pub fn rng() -> SystemRandom {
    SystemRandom::new()
}

/// The wall clock, which programs of others go by.
#[allow(clippy::disallowed_methods)]
pub fn wall_clock() -> UnixTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    UnixTime(since.as_secs() as i64)
}

/// RSA keys take long to make, so each kind is made once.
pub fn key(algorithm: KeyAlgorithm) -> &'static KeyPair {
    static KEYS: [OnceLock<KeyPair>; 5] = [const { OnceLock::new() }; 5];
    let at = KeyAlgorithm::ALL.iter().position(|a| *a == algorithm).unwrap();
    KEYS[at].get_or_init(|| KeyPair::generate(algorithm, &rng()).unwrap())
}

/// Whether a program is there; says that the test is skipped where it is not.
pub fn has(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        skipped(&format!("no {program} command"));
    }
    there
}

/// Says that a test is skipped, past the capture of a passing test's output, so that ./test can report it.
pub fn skipped(why: &str) {
    let _ = std::io::stderr().write_all(format!("\nskipped: {why}\n").as_bytes());
}

/// Whether NSS's tools are there; says that the test is skipped where they are not.
pub fn has_nss() -> bool {
    let there = Command::new("certutil").arg("--help").output().is_ok();
    if !there {
        skipped("no NSS tools to validate chains with (libnss3-tools)");
    }
    there
}

/// The same for Java.
pub fn has_java() -> bool {
    let there = Command::new("javac").arg("-version").output().is_ok_and(|out| out.status.success());
    if !there {
        skipped("no JDK to validate chains with (openjdk-17-jdk-headless)");
    }
    there
}

/// The Python that has cryptography and pkilint, which `.ci/run` makes; says that the test is skipped where it is not there.
pub fn python() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_TARGET_TMPDIR")).join("../validators");
    let bin = std::env::var_os("SALLYPORT_VALIDATORS").map_or_else(beside, PathBuf::from).join("bin");
    if bin.join("lint_pkix_cert").is_file() {
        return Some(bin.join("python"));
    }
    skipped(
        "no Python with cryptography and pkilint (python3 -m venv target/validators; target/validators/bin/pip install -r \
         ca/tests/validators/requirements.txt)",
    );
    None
}

/// A program of ours that runs one of the validators.
pub fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/validators").join(name)
}

/// A folder to run programs in.
pub struct Bench(tempfile::TempDir);

impl Bench {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// Whether a command line succeeds, and what it says. Its words are separated by spaces.
    pub fn try_run(&self, line: &str) -> (bool, String) {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().unwrap());
        let out = command.args(words).current_dir(self.0.path()).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        (out.status.success(), text)
    }

    /// What a command line says, which must succeed.
    pub fn run(&self, line: &str) -> String {
        let (good, text) = self.try_run(line);
        assert!(good, "{line}\n{text}");
        text
    }

    pub fn folder(&self) -> &Path {
        self.0.path()
    }
}
