//! The roles that run until they are told to end.

pub(crate) mod controller;
mod convert;
pub(crate) mod gateway;
mod parts;
mod reseal;
mod signals;
pub(crate) mod standalone;

pub(crate) use parts::{
    controller_error, form_controller, reachable, start_controller, start_gateway, start_local_gateway,
};
pub(crate) use signals::wait as wait_for_signal;

use std::future::Future;

use sd_notify::NotifyState;
use tracing::info;

use crate::error::{Error, Result};

/// Tells the service manager that we are ready and waits for a signal to end, or for a part to fail.
async fn serve(what: &str, failure: impl Future<Output = Error>) -> Result {
    notify(&[NotifyState::Ready]);
    info!("{what} ready");
    let ended = tokio::select! {
        signal = signals::wait() => signal.map(|signal| info!("{signal}: {what} ends; a second signal ends it at once")),
        error = failure => Err(error),
    };
    notify(&[NotifyState::Stopping]);
    signals::exit_on_next();
    ended
}

fn notify(state: &[NotifyState<'_>]) {
    // Without a service manager this does nothing; one that does not listen cannot be helped.
    if let Err(e) = sd_notify::notify(state) {
        tracing::debug!("the service manager was not told: {e}");
    }
}

/// A gateway that ended by itself.
fn gateway_ended() -> Error {
    Error::failed("the gateway ended by itself").remedy("its log says why")
}
