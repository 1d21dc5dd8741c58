//! The roles that run until they are told to end.

pub(crate) mod controller;
pub(crate) mod gateway;
mod parts;
mod signals;
pub(crate) mod standalone;

pub(crate) use parts::{start_controller, start_gateway};

use tracing::info;

/// Tells the service manager that we are ready, waits for a signal to end, and tells it that we do.
async fn serve_until_told(what: &str) -> crate::error::Result {
    notify(&[sd_notify::NotifyState::Ready]);
    info!("{what} ready");
    let signal = signals::wait().await?;
    notify(&[sd_notify::NotifyState::Stopping]);
    info!("{signal}: {what} ends; a second signal ends it at once");
    signals::exit_on_next();
    Ok(())
}

fn notify(state: &[sd_notify::NotifyState<'_>]) {
    // Without a service manager this does nothing; one that does not listen cannot be helped.
    if let Err(e) = sd_notify::notify(state) {
        tracing::debug!("the service manager was not told: {e}");
    }
}
