//! SIGINT and SIGTERM: the first ends in order, the second at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{Error, Result};

/// Exit code after a second signal: 128 and the number of SIGINT, as shells count.
const INTERRUPTED: i32 = 130;

/// Waits for either; gives its name.
pub(crate) async fn wait() -> Result<&'static str> {
    let (mut interrupt, mut terminate) = both()?;
    Ok(next(&mut interrupt, &mut terminate).await)
}

/// Ends the process at once when the next one comes.
pub(super) fn exit_on_next() {
    tokio::spawn(async {
        if let Ok((mut interrupt, mut terminate)) = both() {
            next(&mut interrupt, &mut terminate).await;
            std::process::exit(INTERRUPTED);
        }
    });
}

fn both() -> Result<(Signal, Signal)> {
    let open = |kind| signal(kind).map_err(|e| Error::failed(format!("cannot wait for signals: {e}")));
    Ok((open(SignalKind::interrupt())?, open(SignalKind::terminate())?))
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal) -> &'static str {
    tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    }
}
