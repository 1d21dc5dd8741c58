//! The real program as a controller in a process of its own, and commands against it.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// Settings for tests: a port of the system's choice, cheap password checks.
pub(crate) const CONFIG: &str = "[controller]\nlisten = \"127.0.0.1:0\"\nmetrics_listen = \"\"\n\
    [controller.passwords]\nargon2_memory_kib = 64\nargon2_passes = 1\n[log]\nlevel = \"warn\"\n";

/// A controller on a folder of its own.
pub(crate) struct Controller {
    child: Option<Child>,
    pub(crate) dir: TempDir,
}

impl Controller {
    /// Starts one and waits until it tells its service manager, which is us, that it is ready.
    pub(crate) fn start() -> Self {
        Self::start_on(tempfile::tempdir().unwrap())
    }

    /// The same on a folder that may hold a `state` already.
    pub(crate) fn start_on(dir: TempDir) -> Self {
        Self::start_with(dir, CONFIG, &[])
    }

    /// The same with other settings and environment variables.
    pub(crate) fn start_with(dir: TempDir, settings: &str, variables: &[(&str, &str)]) -> Self {
        let config = dir.path().join("sallyport.toml");
        std::fs::write(&config, settings).unwrap();
        let notify = dir.path().join("notify");
        let _ = std::fs::remove_file(&notify); // of an earlier controller on this folder
        let manager = UnixDatagram::bind(&notify).unwrap();
        let mut controller = Self { child: None, dir };
        let mut command = controller.command(&["controller", "--bootstrap", "--config", config.to_str().unwrap()]);
        let child = command.env("NOTIFY_SOCKET", &notify).envs(variables.iter().copied()).spawn().unwrap();
        controller.child = Some(child);
        let mut buffer = [0; 256];
        // A controller that fails closes nothing that we could notice here: look at it once in a while.
        manager.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
        loop {
            match manager.recv(&mut buffer) {
                Ok(len) if buffer[..len].starts_with(b"READY=1") => return controller,
                Ok(_) => {}
                Err(_) => {
                    let ended = controller.child.as_mut().unwrap().try_wait().unwrap();
                    assert!(ended.is_none(), "the controller ended: {ended:?}");
                }
            }
        }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sallyport"));
        command.args(arguments).env_clear().env("SALLYPORT_STATE", self.state()).current_dir(self.dir.path());
        command.stdin(Stdio::null());
        command
    }

    /// What is new in a version works once the cluster's level has risen, a moment after its first start.
    pub(crate) fn wait_for_the_level(&self) {
        let risen = (0..600).any(|_| {
            let cluster = self.json(&["cluster", "status"]);
            let risen = cluster[0]["cluster_level"] == cluster[0]["level"];
            if !risen {
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            risen
        });
        assert!(risen, "the level of the cluster did not rise");
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        text(self.command(arguments).output().unwrap())
    }

    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let (code, out, error) = self.run(arguments);
        assert_eq!(code, 0, "{arguments:?}: {error}");
        out
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[arguments, &["--output", "json"]].concat())).unwrap()
    }

    /// Runs a command that is refused; gives what it says.
    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        let (code, out, error) = self.run(arguments);
        assert_eq!((code, out.as_str()), (5, ""), "{arguments:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        error
    }

    pub(crate) fn with_secret(&self, arguments: &[&str], secret: &str) -> (i32, String, String) {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(secret.as_bytes()).unwrap();
        text(child.wait_with_output().unwrap())
    }

    /// Asks it to end, as a service manager does.
    pub(crate) fn stop(self) {
        drop(self.stop_and_keep());
    }

    /// The same; gives the folder.
    pub(crate) fn stop_and_keep(mut self) -> TempDir {
        let mut child = self.child.take().unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
        std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap())
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) fn text(output: Output) -> (i32, String, String) {
    let string = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), string(output.stdout), string(output.stderr))
}
