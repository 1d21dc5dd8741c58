//! One connection, from its first byte to its last.

use core::convert::Infallible;
use core::fmt;
use core::pin::pin;
use core::time::Duration;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::STRICT_TRANSPORT_SECURITY;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use crate::answer::{Reply, closing, not_found, text, too_many, with};
use crate::counts::{Counts, Limit, Outcome, Service};
use crate::limits::{Limits, Origin, Sources};
use crate::route::{Est, Route};
use crate::{Clock, Error, Office, est, public, scep, tls};

/// Headers of a request.
const MAX_HEADERS: usize = 64;
/// What is read ahead, and what an answer may take before it is written; larger than any header that is allowed.
const BUFFER: usize = 64 * 1024;
/// How long one who is turned away may take to hear it.
const FAREWELL: Duration = Duration::from_secs(1);
/// What one who is turned away at the plain port hears.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 10\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// To which port a connection came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// HTTPS.
    Tls,
    /// HTTP: nobody enrolls over it but with SCEP, which protects itself.
    Plain,
}

/// A connection's begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Whence it came.
    pub source: SocketAddr,
    /// Where to.
    pub kind: Kind,
    /// Number of the gateway that carried it and says whence it came; 0 for none. What a gateway says of sources counts for those
    /// who come through it, and for nobody else.
    pub via: u32,
}

/// The endpoint: what all connections share.
pub struct Endpoint<O> {
    pub(crate) office: Arc<O>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) limits: Limits,
    counts: Counts,
    sources: Mutex<Sources>,
    acceptor: TlsAcceptor,
    shown: Arc<tls::Shown>,
}

impl<O> fmt::Debug for Endpoint<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl<O: Office> Endpoint<O> {
    /// In front of this office. HTTPS is refused until there is a certificate.
    pub fn new(office: Arc<O>, clock: Arc<dyn Clock>, limits: Limits) -> Result<Self, Error> {
        let (config, shown) = tls::config(clock.clone())?;
        Ok(Self {
            office,
            clock,
            limits,
            counts: Counts::new(),
            sources: Mutex::new(Sources::new(limits)),
            acceptor: TlsAcceptor::from(config),
            shown,
        })
    }

    /// Shows this certificate (DER, with its chain) from the next handshake on; `pkcs8` is its key.
    pub fn set_certificate(&self, chain: &[Vec<u8>], pkcs8: &[u8]) -> Result<(), Error> {
        self.shown.set(chain, pkcs8)
    }

    /// What was asked so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The office.
    pub fn office(&self) -> &Arc<O> {
        &self.office
    }

    fn sources(&self) -> MutexGuard<'_, Sources> {
        // Counters: whoever panicked left them whole.
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a token of this visitor is looked at now.
    pub(crate) fn may_try(&self, visitor: &Visitor) -> Result<(), Reply> {
        self.sources().may_try(visitor.source, self.clock.monotonic()).map_err(|wait| {
            self.counts.refuse(Limit::WrongTokens);
            too_many(wait, "too many wrong tokens came from your address: wait")
        })
    }

    /// A token of this visitor was right or wrong.
    pub(crate) fn tried(&self, visitor: &Visitor, right: bool) {
        self.sources().tried(visitor.source, self.clock.monotonic(), right);
    }

    async fn answer(&self, request: Request<Incoming>, visitor: &Visitor) -> Reply {
        let path = request.uri().path().to_owned();
        let route = Route::of(&path);
        let credit = self.sources().request(visitor.source, self.clock.monotonic());
        let reply = match (credit, route) {
            (Err(wait), _) => {
                self.counts.refuse(Limit::Requests);
                closing(too_many(wait, "too many requests came from your address"))
            }
            (Ok(()), None) => not_found(),
            (Ok(()), Some(Route::Est(operation))) => est::answer(self, operation, request, visitor).await,
            (Ok(()), Some(Route::Scep)) => scep::answer(self, request, visitor).await,
            (Ok(()), Some(route)) => public::answer(self, route, request, visitor).await,
        };
        let outcome = outcome(reply.status());
        self.counts.request(service(route), outcome);
        tracing::debug!(source = %visitor.address, path, status = reply.status().as_u16(), "enrollment endpoint");
        if visitor.kind == Kind::Tls && matches!(route, Some(Route::Page)) {
            return with(reply, STRICT_TRANSPORT_SECURITY, "max-age=31536000");
        }
        reply
    }
}

const fn service(route: Option<Route<'_>>) -> Service {
    match route {
        Some(Route::Page) => Service::Page,
        Some(Route::CaPem | Route::Authority(_)) => Service::Ca,
        Some(Route::Crl(..) | Route::DeltaCrl(..)) => Service::Crl,
        Some(Route::Ocsp(_)) => Service::Ocsp,
        Some(Route::Est(Est::CaCerts)) => Service::EstCaCerts,
        Some(Route::Est(Est::CsrAttrs)) => Service::EstAttributes,
        Some(Route::Est(Est::SimpleEnroll)) => Service::EstEnroll,
        Some(Route::Est(Est::SimpleReenroll)) => Service::EstRenew,
        Some(Route::Est(Est::ServerKeyGen)) => Service::EstServerKey,
        Some(Route::Scep) => Service::Scep,
        None => Service::Unknown,
    }
}

fn outcome(status: StatusCode) -> Outcome {
    match status {
        StatusCode::ACCEPTED => Outcome::Pending,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Outcome::Denied,
        StatusCode::NOT_FOUND => Outcome::NotFound,
        StatusCode::TOO_MANY_REQUESTS => Outcome::Limited,
        status if status.is_success() || status == StatusCode::NOT_MODIFIED => Outcome::Ok,
        status if status.is_client_error() => Outcome::Invalid,
        _ => Outcome::Unavailable,
    }
}

/// Who is at the other end.
pub(crate) struct Visitor {
    pub(crate) address: IpAddr,
    /// For whom limits count.
    source: Origin,
    pub(crate) kind: Kind,
    /// The certificate that was shown, DER; its key signed the handshake.
    pub(crate) certificate: Option<Vec<u8>>,
}

#[cfg(test)]
impl Visitor {
    pub(crate) fn at(address: IpAddr, kind: Kind, certificate: Option<Vec<u8>>) -> Self {
        Self { address, source: Origin::of(0, address), kind, certificate }
    }
}

/// A place among those allowed; given back when it is dropped.
struct Place<'a, O: Office> {
    endpoint: &'a Endpoint<O>,
    source: Origin,
}

impl<O: Office> Drop for Place<'_, O> {
    fn drop(&mut self) {
        self.endpoint.sources().leave(self.source);
    }
}

/// Serves one connection until it ends; it ends at once when this is dropped.
pub async fn serve<S, O>(mut stream: S, arrival: Arrival, endpoint: &Arc<Endpoint<O>>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    O: Office,
{
    let address = arrival.source.ip().to_canonical();
    let source = Origin::of(arrival.via, address);
    let arrived = endpoint.sources().arrive(source, endpoint.clock.monotonic());
    if let Err(limit) = arrived {
        endpoint.counts.refuse(limit);
        if arrival.kind == Kind::Plain {
            let _ = tokio::time::timeout(FAREWELL, stream.write_all(FULL)).await; // he is turned away in any case
        }
        return;
    }
    let _place = Place { endpoint: &**endpoint, source };
    let mut visitor = Visitor { address, source, kind: arrival.kind, certificate: None };
    match arrival.kind {
        Kind::Plain => http(stream, visitor, endpoint).await,
        Kind::Tls => match tokio::time::timeout(endpoint.limits.handshake, endpoint.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                visitor.certificate = shown.map(|der| der.to_vec());
                http(stream, visitor, endpoint).await;
            }
            Ok(Err(e)) => {
                endpoint.counts.refuse(Limit::Tls);
                tracing::debug!(source = %address, error = %e, "enrollment endpoint: TLS failed");
            }
            Err(_) => endpoint.counts.refuse(Limit::Handshake),
        },
    }
}

async fn http<S, O>(stream: S, visitor: Visitor, endpoint: &Arc<Endpoint<O>>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    O: Office,
{
    let limits = endpoint.limits;
    let visitor = &visitor;
    let service = service_fn(|request| async move { Ok::<_, Infallible>(endpoint.answer(request, visitor).await) });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_headers(MAX_HEADERS)
        .max_header_size(limits.header)
        .max_buf_size(limits.header.saturating_mul(2).max(BUFFER))
        // Header and body of an answer leave in one write: some clients take what they read first for the whole header.
        .writev(false)
        // Some close their side once they have asked.
        .half_close(true)
        // Some compare names of headers letter by letter.
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // What fails is its client's loss.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = tokio::time::sleep(limits.life) => connection.as_mut().graceful_shutdown(),
    }
    let _ = tokio::time::timeout(limits.body_time.saturating_add(limits.answer_time), connection).await;
}

/// The whole body of a request, if it is small and comes in time.
pub(crate) async fn body(request: Request<Incoming>, most: usize, time: Duration) -> Result<Bytes, Reply> {
    let body = request.into_body();
    let too_large = || closing(text(StatusCode::PAYLOAD_TOO_LARGE, &format!("at most {most} bytes are read")));
    if body.size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(time, Limited::new(body, most).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(closing(text(StatusCode::BAD_REQUEST, "the body broke off"))),
        Err(_) => Err(closing(text(StatusCode::REQUEST_TIMEOUT, "the body came too slowly"))),
    }
}

/// Whether a request only reads.
pub(crate) fn is_get(request: &Request<Incoming>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
}
