//! One request of HTTP/1.1 over TLS, and an answer that is no longer than it may be.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use sallyport_ca::UnixTime;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::error::foreign;
use crate::{Error, Kind, Result, Server, tls};

/// For a connection to come about, TLS included: machines wake before their network does.
const CONNECT: Duration = Duration::from_secs(20);
/// For an answer: behind it an authority may sign with a slow token.
const ANSWER: Duration = Duration::from_secs(60);
/// A list of sixteen large certificates in base64 is a fifth of this.
const LONGEST_BODY: usize = 256 * 1024;
const LONGEST_HEAD: usize = 16 * 1024;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// Retry-After in seconds, RFC 9110 §10.2.3; a date there is not read.
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Bytes,
}

impl Answer {
    /// What a server says to a person.
    pub(crate) fn text(&self) -> String {
        foreign(&String::from_utf8_lossy(self.body.get(..1024).unwrap_or(&self.body)))
    }
}

/// Connects, asks once, and hangs up.
pub(crate) async fn ask(
    server: &Server,
    config: ClientConfig,
    request: Request<Full<Bytes>>,
    now: UnixTime,
) -> Result<Answer> {
    let unreachable =
        |what: String| Error::new(Kind::Unreachable, what, "check the network, --server and that the endpoint is on");
    let connecting = async {
        let tcp = TcpStream::connect((server.host.as_str(), server.port)).await;
        let tcp = tcp.map_err(|e| unreachable(format!("cannot reach {server}: {e}")))?;
        let _ = tcp.set_nodelay(true);
        let connected = TlsConnector::from(Arc::new(config)).connect(server.name()?, tcp).await;
        connected.map_err(|e| match e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(error) => tls::refused(error, server, now),
            None => unreachable(format!("{server} hangs up during the TLS handshake: {e}")),
        })
    };
    let late = |what: &str| unreachable(format!("{server} {what}"));
    let stream = timeout(CONNECT, connecting).await.map_err(|_| late("does not answer"))??;
    let broken = |e: hyper::Error| {
        // With TLS 1.3 a server refuses a client's certificate after the handshake.
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&e);
        while let Some(inner) = source {
            let tls = inner.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref()).and_then(|i| i.downcast_ref());
            if let Some(error) = tls {
                return tls::refused(error, server, now);
            }
            source = inner.source();
        }
        Error::new(
            Kind::Unreachable,
            format!("{server} does not speak HTTP as it should: {e}"),
            "check --server, host and port",
        )
    };
    let asking = async {
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(LONGEST_HEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let answering = async {
            let answer = sender.send_request(request).await.map_err(broken)?;
            let status = answer.status();
            let seconds = answer.headers().get(RETRY_AFTER).and_then(seconds);
            let body = Limited::new(answer.into_body(), LONGEST_BODY).collect().await.map_err(|e| {
                Error::untrusted(
                    format!("the answer of {server} breaks off or has no end: {e}"),
                    "check --server, host and port",
                )
            })?;
            Ok(Answer { status, retry_after: seconds, body: body.to_bytes() })
        };
        tokio::pin!(connection);
        tokio::pin!(answering);
        let mut driven = true;
        loop {
            tokio::select! {
                answer = &mut answering => return answer,
                // Its error comes through the answer, too.
                _ = &mut connection, if driven => driven = false,
            }
        }
    };
    timeout(ANSWER, asking).await.map_err(|_| late("takes the request and does not answer"))?
}

fn seconds(value: &HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}
