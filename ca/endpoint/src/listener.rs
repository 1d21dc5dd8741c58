//! The endpoint on a TCP port of its own.

use core::time::Duration;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::{Arrival, Endpoint, Kind, Office, serve};

/// Pause after an accept that failed, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves what comes to this port. All its connections end when this is dropped.
pub async fn listen<O: Office>(listener: TcpListener, kind: Kind, endpoint: Arc<Endpoint<O>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, source)) => {
                    let _ = stream.set_nodelay(true); // slower at worst
                    let endpoint = endpoint.clone();
                    connections.spawn(async move { serve(stream, Arrival { source, kind, via: 0 }, &endpoint).await });
                }
                Err(e) => {
                    tracing::warn!(error = %e, "enrollment: cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}
