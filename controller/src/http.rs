//! `/metrics` and `/healthz` in plain HTTP, on an address of their own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::app::Core;
use crate::raft::Health;

/// Connections at a time.
const MAX_CONNECTIONS: usize = 32;
/// How long a client may take to send a request.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may last.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause after an accept that failed, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until the task is dropped.
pub(crate) async fn serve(listener: TcpListener, core: Arc<Core>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (stream, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::warn!(error = %e, "metrics: cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let core = core.clone();
        tokio::spawn(async move {
            let _place = place;
            let service = hyper::service::service_fn(|request| answer(request, core.clone(), remote));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(READ_TIMEOUT)
                .keep_alive(true)
                .serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await; // its client's loss
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    core: Arc<Core>,
    remote: SocketAddr,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = |status: StatusCode, body: String| {
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response
    };
    if request.method() != Method::GET {
        return Ok(text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into()));
    }
    Ok(match request.uri().path() {
        "/metrics" => match core.metrics.render(&core) {
            Ok(body) => {
                let mut response = Response::new(Full::new(Bytes::from(body)));
                let kind = HeaderValue::from_static("text/plain; version=0.0.4");
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
            Err(e) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{e}\n")),
        },
        "/healthz" => {
            let health = core.node.health().borrow().clone();
            match health {
                Health::Running if core.node.figures().leader != 0 => text(StatusCode::OK, "ok\n".into()),
                Health::Running => text(StatusCode::SERVICE_UNAVAILABLE, "no leader is known\n".into()),
                // What failed is in the log and the exit message; this address is for anybody.
                Health::Failed { .. } => text(StatusCode::SERVICE_UNAVAILABLE, "storage failed\n".into()),
                Health::Stopped => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n".into()),
            }
        }
        path => {
            tracing::debug!(%remote, path, "unknown path");
            text(StatusCode::NOT_FOUND, "/metrics and /healthz are here\n".into())
        }
    })
}
