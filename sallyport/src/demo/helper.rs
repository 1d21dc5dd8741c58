//! The demo's side of a helper process: started, ordered about, ended.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;

use super::wire::{Order, Report, Role};
use crate::error::{Error, Result};

/// Longest time that any order may take: the client gives up by itself before that.
const PATIENCE: Duration = Duration::from_secs(30);

/// A helper process. It ends when this is dropped, because its standard input does.
pub(crate) struct Helper {
    role: Role,
    child: Child,
    orders: Option<ChildStdin>,
    reports: mpsc::Receiver<Report>,
}

impl fmt::Debug for Helper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Helper").field("role", &self.role).field("pid", &self.child.id()).finish_non_exhaustive()
    }
}

impl Helper {
    /// Starts this program once more, to play `role` in a network namespace of its own, and waits until it is there.
    pub(crate) async fn start(role: Role, verbose: u8) -> Result<Self> {
        let failed = |e| Error::failed(format!("cannot start the demo's {role:?} process: {e}"));
        let name = match role {
            Role::Client => "client",
            Role::Inside => "inside",
        };
        // The link to the running program stays right even if the file was replaced by a rebuild meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command.arg("demo-helper").arg(name).args((0..verbose).map(|_| "-v"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let orders = child.stdin.take();
        // Few reports are ever under way; a helper that says more waits in its pipe.
        let (sender, reports) = mpsc::channel(64);
        if let Some(stdout) = child.stdout.take() {
            thread::Builder::new()
                .name(format!("demo-{name}"))
                .spawn(move || {
                    for line in BufReader::new(stdout).lines().map_while(std::io::Result::ok) {
                        let report = serde_json::from_str(&line).unwrap_or_else(|e| Report::Failed {
                            cause: format!("a helper process said what nobody understands ({e}): {line}"),
                            remedy: None,
                        });
                        if sender.blocking_send(report).is_err() {
                            break;
                        }
                    }
                })
                .map_err(failed)?;
        }
        let mut helper = Self { role, child, orders, reports };
        match helper.report().await? {
            Report::Ready => Ok(helper),
            other => Err(helper.unexpected(&other)),
        }
    }

    /// The process, which is also the name of its network namespace.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives an order and waits for its final report; phases on the way go to `phase`.
    pub(crate) async fn order(&mut self, order: &Order, mut phase: impl FnMut(String, String)) -> Result<Report> {
        let mut line = serde_json::to_string(order).map_err(|e| Error::failed(e.to_string()))?;
        line.push('\n');
        let sent = self.orders.as_mut().map(|pipe| pipe.write_all(line.as_bytes()).and_then(|()| pipe.flush()));
        if !matches!(sent, Some(Ok(()))) {
            return Err(self.gone());
        }
        loop {
            match self.report().await? {
                Report::Phase { phase: name, detail } => phase(name, detail),
                Report::Failed { cause, remedy } => {
                    let error = Error::failed(cause);
                    return Err(match remedy {
                        Some(remedy) => error.remedy(remedy),
                        None => error,
                    });
                }
                report => return Ok(report),
            }
        }
    }

    /// Gives an order that has nothing to tell but that it was carried out.
    pub(crate) async fn tell(&mut self, order: &Order) -> Result {
        match self.order(order, |_, _| {}).await? {
            Report::Done => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    /// An error for a report that does not answer the order.
    pub(crate) fn unexpected(&self, report: &Report) -> Error {
        Error::failed(format!("the demo's {:?} process answered {report:?}", self.role))
    }

    async fn report(&mut self) -> Result<Report> {
        match tokio::time::timeout(PATIENCE, self.reports.recv()).await {
            Ok(Some(report)) => Ok(report),
            Ok(None) => Err(self.gone()),
            Err(_) => Err(Error::failed(format!(
                "the demo's {:?} process did not answer within {} s",
                self.role,
                PATIENCE.as_secs()
            ))),
        }
    }

    fn gone(&mut self) -> Error {
        let status = self.child.try_wait().ok().flatten().map(|s| format!(" ({s})")).unwrap_or_default();
        Error::failed(format!("the demo's {:?} process ended early{status}", self.role))
            .remedy("run `sallyport demo -v` to see its log")
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.orders = None;
        // The end of its input ends it; the kill is for one that hangs in an order. Its namespace goes with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
