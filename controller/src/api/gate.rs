//! What stands before every call, before anything of its body is read: whether its caller may make it, and for how long.
//!
//! A message may have megabytes. Without this, somebody without a certificate could have us gather them, for a call that is
//! refused in the end.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use sallyport_proto::v1;
use sallyport_proto::v1::gateway_server::SERVICE_NAME as GATEWAY;
use sallyport_proto::v1::operator_server::SERVICE_NAME as OPERATOR;
use sallyport_proto::v1::peer_server::SERVICE_NAME as PEER;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tower::Layer;

use super::caller;
use super::server::Peer;
use crate::app::Core;

/// A call that may take as long as it goes on: the state is as long as it is, and the line as slow. It watches itself.
const LONG: &str = "/sallyport.v1.Peer/InstallSnapshot";

/// Puts a [`Gate`] before the services.
#[derive(Clone)]
pub(super) struct GateLayer {
    core: Arc<Core>,
    /// Second of the last refusal that was noted in the log.
    noted: Arc<AtomicU64>,
}

impl GateLayer {
    /// The layer over `core`.
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core, noted: Arc::default() }
    }

    /// Notes a refusal in the log, one in a second: whoever is refused must not fill it.
    fn note(&self, peer: &Peer, status: &Status) {
        let Some((serial, _)) = &peer.certificate else { return };
        let second = self.core.clock.monotonic_ms() / 1_000 + 1;
        if self.noted.swap(second, Ordering::Relaxed) != second {
            tracing::warn!(remote = %peer.remote, %serial, reason = status.message(), "refused a caller");
        }
    }
}

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate { by: self.clone(), inner }
    }
}

/// The services behind their gate.
#[derive(Clone)]
pub(super) struct Gate<S> {
    by: GateLayer,
    inner: S,
}

/// For whom a method of this path is; `None` is everybody. What there is not is refused unread.
fn profile_of(path: &str) -> Option<v1::CertificateProfile> {
    let service = path.strip_prefix('/').and_then(|p| p.split_once('/')).map_or("", |(service, _)| service);
    match service {
        GATEWAY => Some(v1::CertificateProfile::GatewayLink),
        OPERATOR => Some(v1::CertificateProfile::Operator),
        PEER => Some(v1::CertificateProfile::Controller),
        _ => None,
    }
}

/// Whether whoever is at the other end may make such a call. The services look again, at each call and more closely.
fn may_call(core: &Core, peer: &Peer, profile: Option<v1::CertificateProfile>) -> Result<(), Status> {
    profile.map_or(Ok(()), |profile| caller::may_call(core, peer, profile))
}

impl<S> Service<http::Request<Body>> for Gate<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let refuse = |status: Status| -> Self::Future { Box::pin(std::future::ready(Ok(status.into_http()))) };
        let Some(peer) = request.extensions().get::<Peer>() else {
            return refuse(Status::internal("a connection of nobody"));
        };
        let (core, profile) = (&self.by.core, profile_of(request.uri().path()));
        // Messages of other controllers bring what is unknown here: they wait for nothing.
        let waits = matches!(profile, Some(p) if p != v1::CertificateProfile::Controller) && {
            let on_behalf = request.headers().get(caller::ON_BEHALF).and_then(|serial| serial.to_str().ok());
            caller::is_unknown(core, peer, on_behalf)
        };
        if !waits && let Err(status) = may_call(core, peer, profile) {
            self.by.note(peer, &status);
            return refuse(status);
        }
        // A visitor asks one thing after the other.
        let turn = match peer.visit.as_ref().map(|visit| visit.clone().try_acquire_owned()) {
            Some(Err(_)) => {
                return refuse(Status::resource_exhausted("too many calls at a time; ask one after the other"));
            }
            Some(Ok(turn)) => Some(turn),
            None => None,
        };
        let limit = (request.uri().path() != LONG).then(|| Duration::from_millis(core.config.limits.call_ms));
        let unknown = waits.then(|| (self.by.clone(), peer.clone()));
        let other = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, other);
        let answer = async move {
            if let Some((by, peer)) = unknown {
                by.core.linearizable().await?;
                may_call(&by.core, &peer, profile).inspect_err(|status| by.note(&peer, status))?;
            }
            let Ok(answer) = ready.call(request).await;
            Ok(answer)
        };
        Box::pin(async move {
            let _turn = turn;
            let answered: Result<_, Status> = match limit {
                None => answer.await,
                Some(limit) => tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
                    Err(Status::cancelled("this call took longer than limits.call_ms allows; try again"))
                }),
            };
            Ok(answered.unwrap_or_else(Status::into_http))
        })
    }
}
