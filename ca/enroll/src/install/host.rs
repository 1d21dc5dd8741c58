//! The machine that things are installed on: its files, perhaps below another root, and its programs.

use std::fs;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::MARK;
use crate::files::{self, PUBLIC};
use crate::{Error, Result};

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// Whether it says that it succeeded.
    pub success: bool,
    /// The last line that it said.
    pub said: String,
}

/// What runs programs.
pub trait Runner {
    /// Whether this machine has the program.
    fn has(&self, program: &str) -> bool;
    /// Runs it to its end; the error is that it could not be started.
    fn run(&mut self, program: &str, arguments: &[&str]) -> std::io::Result<Ran>;
}

/// The machine.
pub struct Host<'a> {
    root: Option<PathBuf>,
    runner: &'a mut dyn Runner,
    /// The machine's folder, as the machine names it.
    pub(crate) folder: String,
    /// Files that were written, as the machine itself names them.
    pub wrote: Vec<String>,
    /// Files that were removed.
    pub removed: Vec<String>,
    /// Commands that were run.
    pub ran: Vec<String>,
    /// What is left for a person to do.
    pub advice: Vec<String>,
}

impl<'a> Host<'a> {
    /// This machine, or one whose files are below `root`: there nothing is started or reloaded.
    /// `folder` is the one that [`crate::Folder`] keeps.
    pub fn new(root: Option<PathBuf>, folder: &str, runner: &'a mut dyn Runner) -> Self {
        let folder = folder.to_owned();
        Self { root, runner, folder, wrote: Vec::new(), removed: Vec::new(), ran: Vec::new(), advice: Vec::new() }
    }

    /// Where an absolute path of the machine is.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        match &self.root {
            Some(root) => root.join(path.trim_start_matches('/')),
            None => PathBuf::from(path),
        }
    }

    /// Whether the running system is meant, not a folder that will become one.
    pub(crate) const fn is_live(&self) -> bool {
        self.root.is_none()
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    pub(crate) fn has(&self, program: &str) -> bool {
        self.runner.has(program)
    }

    pub(crate) fn read(&self, path: &str) -> Result<Option<Zeroizing<Vec<u8>>>> {
        files::read(&self.path(path))
    }

    /// Leaves something to a person.
    pub fn advise(&mut self, text: impl Into<String>) {
        self.advice.push(text.into());
    }

    /// Writes a file whose name is ours, if it is not the same already; says whether it was not.
    pub(crate) fn put(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<bool> {
        use std::os::unix::fs::PermissionsExt as _;
        let at = self.path(path);
        let same_mode = fs::metadata(&at).is_ok_and(|m| m.permissions().mode() & 0o777 == mode);
        if same_mode && files::read(&at)?.is_some_and(|there| *there == content) {
            return Ok(false);
        }
        if let Some(dir) = at.parent() {
            files::make_dir(dir, 0o755)?;
        }
        files::put(&at, mode, content)?;
        // What was taken away on the way and is there again was not removed.
        self.removed.retain(|removed| removed != path);
        self.wrote.push(path.to_owned());
        Ok(true)
    }

    /// Writes a file of configuration, unless somebody else's is there: then that is said with `else_add`.
    pub(crate) fn put_marked(&mut self, path: &str, mode: u32, content: &str, else_add: &str) -> Result<bool> {
        if self.read(path)?.is_some_and(|there| !is_ours(&there)) {
            self.advise(format!("{path} is there and is not from sallyport, so it was left as it is; {else_add}"));
            return Ok(false);
        }
        self.put(path, mode, content.as_bytes())
    }

    /// Removes a file of ours; says whether there was one.
    pub(crate) fn remove(&mut self, path: &str) -> Result<bool> {
        let there = files::remove(&self.path(path))?;
        if there {
            self.removed.push(path.to_owned());
        }
        Ok(there)
    }

    /// Removes a file if it has our mark.
    pub(crate) fn remove_marked(&mut self, path: &str) -> Result<bool> {
        let ours = self.read(path)?.is_some_and(|there| is_ours(&there));
        if ours { self.remove(path) } else { Ok(false) }
    }

    /// The names in a folder of the machine, in order.
    pub(crate) fn names(&self, dir: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(dir)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// Runs a program that only works on files.
    pub(crate) fn run(&mut self, program: &str, arguments: &[&str]) -> Result<Ran> {
        self.ran.push(format!("{program} {}", arguments.join(" ")));
        self.runner.run(program, arguments).map_err(|e| {
            Error::machine(
                format!("cannot run {program}: {e}"),
                format!("install {program}, or leave that software out with --for"),
            )
        })
    }

    /// Runs a program that has a running service do something; where that fails, it is left to a person, since the files are
    /// in place.
    pub(crate) fn tell(&mut self, program: &str, arguments: &[&str]) -> Result {
        if !self.is_live() {
            return Ok(());
        }
        let command = format!("{program} {}", arguments.join(" "));
        let failed = match self.run(program, arguments) {
            Ok(ran) if ran.success => return Ok(()),
            Ok(ran) => ran.said,
            Err(e) => e.cause,
        };
        self.advise(format!("{command} failed: {}; find out why and run it again", crate::error::foreign(&failed)));
        Ok(())
    }

    /// The temporary place of a secret file below a folder, removed when dropped.
    pub(crate) fn secret(&self, name: &str, content: &[u8]) -> Result<Temporary> {
        let dir = self.path("/run/sallyport");
        files::make_dir(&dir, 0o700)?;
        let path = dir.join(name);
        files::put(&path, files::PRIVATE, content)?;
        Ok(Temporary(path))
    }
}

fn is_ours(content: &[u8]) -> bool {
    let first = content.split(|b| *b == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(first).contains(MARK)
}

/// The mode of what everybody may read.
pub(crate) const SHARED: u32 = PUBLIC;

/// A file that is removed when this is dropped.
pub(crate) struct Temporary(PathBuf);

impl Temporary {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
