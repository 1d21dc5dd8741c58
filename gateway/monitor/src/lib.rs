//! The plain HTTP endpoint that monitoring reads: the same for gateways and controllers.
//!
//! It answers GET of a few fixed paths, to few clients at a time, and forgets slow ones. It needs no authentication because
//! it tells nothing secret; it listens on an address of its own, on the loopback interface unless the operator says else.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections at a time.
const MAX_CONNECTIONS: usize = 32;
/// How long a client may take to send a request.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may last.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause after an accept that failed, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who answers.
pub trait Monitored: Send + Sync + 'static {
    /// `/metrics` in Prometheus' text format, version 0.0.4; the error is one line of text.
    fn metrics(&self) -> Result<Vec<u8>, String>;
    /// `/healthz`: whether this process does its work; the error is one line that says why not.
    fn health(&self) -> Result<(), String>;
}

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, monitored: Arc<dyn Monitored>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                tracing::warn!(error = %e, "metrics: cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let monitored = monitored.clone();
        tokio::spawn(async move {
            let _place = place;
            let service = hyper::service::service_fn(|request: Request<Incoming>| {
                let response = answer(request.method(), request.uri().path(), &*monitored);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(READ_TIMEOUT)
                .keep_alive(true)
                .serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await; // its client's loss
        });
    }
}

fn answer(method: &Method, path: &str, monitored: &dyn Monitored) -> Response<Full<Bytes>> {
    const PLAIN: &str = "text/plain; charset=utf-8";
    if method != Method::GET {
        return response(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET\n".into());
    }
    match path {
        "/metrics" => match monitored.metrics() {
            Ok(body) => response(StatusCode::OK, "text/plain; version=0.0.4", body.into()),
            Err(e) => response(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{e}\n").into()),
        },
        "/healthz" => match monitored.health() {
            Ok(()) => response(StatusCode::OK, PLAIN, "ok\n".into()),
            Err(e) => response(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{e}\n").into()),
        },
        _ => response(StatusCode::NOT_FOUND, PLAIN, "/metrics and /healthz are here\n".into()),
    }
}

fn response(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sick;

    impl Monitored for Sick {
        fn metrics(&self) -> Result<Vec<u8>, String> {
            Ok(b"up 0\n".to_vec())
        }
        fn health(&self) -> Result<(), String> {
            Err("no leader is known".into())
        }
    }

    #[test]
    fn each_path_has_its_answer() {
        let status = |method: Method, path| answer(&method, path, &Sick).status().as_u16();
        assert_eq!(status(Method::GET, "/metrics"), 200);
        assert_eq!(status(Method::GET, "/healthz"), 503);
        assert_eq!(status(Method::GET, "/"), 404);
        assert_eq!(status(Method::POST, "/metrics"), 405);
    }
}
