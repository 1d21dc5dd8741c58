//! The way to several controllers as if they were one: a call that finds none there is made again at the next.
//!
//! Any controller answers any call, so it does not matter which; a client stays with the one that answered last. What may
//! be made again is safe to make again: calls that change something carry an id (see [`REQUEST_ID`]).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::transport::Channel;

/// Metadata with 16 bytes in hexadecimal that name a change: asked for again under the same name, it is made once.
pub const REQUEST_ID: &str = "sallyport-request-id";

/// Rounds over all controllers.
const ROUNDS: usize = 4;
/// First pause between two rounds; it doubles, and half of it is random.
const PAUSE: Duration = Duration::from_millis(200);
/// gRPC's UNAVAILABLE.
const UNAVAILABLE: &[u8] = b"14";

/// Connections to all controllers. Clones share which of them answered last.
#[derive(Clone, Debug)]
pub struct Failover {
    channels: Arc<[Channel]>,
    current: Arc<AtomicUsize>,
    noise: Arc<AtomicU64>,
    patience: Option<Duration>,
}

impl Failover {
    /// Over these connections, which may be lazy. `seed` spreads clients over the controllers, and their pauses.
    pub fn new(channels: Vec<Channel>, seed: u64) -> Self {
        let first = usize::try_from(seed % (channels.len().max(1) as u64)).unwrap_or(0);
        Self {
            channels: channels.into(),
            current: Arc::new(AtomicUsize::new(first)),
            noise: Arc::new(AtomicU64::new(seed | 1)),
            patience: None,
        }
    }

    /// Goes on to the next controller when one has not begun to answer in this time.
    #[must_use]
    pub fn patience(mut self, each: Duration) -> Self {
        self.patience = Some(each);
        self
    }

    /// The pause after a round.
    fn pause(&self, round: usize) -> Duration {
        let noise = self.noise.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let full = PAUSE.saturating_mul(1 << round.min(8));
        full / 2 + (full / 2).mul_f64((noise >> 11) as f64 / (1_u64 << 53) as f64)
    }

    async fn call_some(self, request: http::Request<Body>) -> Result<http::Response<Body>, tonic::transport::Error> {
        let (parts, body) = request.into_parts();
        // Requests of the contract are small messages. One that breaks off goes as far as it came, and is refused there.
        let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let count = self.channels.len().max(1);
        let mut tried = 0;
        loop {
            let at = self.current.load(Ordering::Relaxed) % count;
            let Some(channel) = self.channels.get(at) else { continue };
            let mut request = http::Request::new(Body::new(Full::new(bytes.clone())));
            *request.method_mut() = parts.method.clone();
            *request.uri_mut() = parts.uri.clone();
            *request.headers_mut() = parts.headers.clone();
            let mut channel = channel.clone();
            let asked = async {
                std::future::poll_fn(|cx| Service::poll_ready(&mut channel, cx)).await?;
                channel.call(request).await
            };
            let answer = match self.patience.filter(|_| count > 1) {
                None => asked.await,
                Some(patience) => tokio::time::timeout(patience, asked)
                    .await
                    .unwrap_or_else(|_| Ok(tonic::Status::unavailable("no answer in time").into_http())),
            };
            tried += 1;
            let away = match &answer {
                Ok(response) => response.headers().get("grpc-status").is_some_and(|s| s.as_bytes() == UNAVAILABLE),
                Err(_) => true,
            };
            if !away || tried >= ROUNDS * count {
                return answer;
            }
            // Whoever came first moves on; others that failed at the same one follow.
            let next = (at + 1) % count;
            let _ = self.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
            if tried % count == 0 {
                tokio::time::sleep(self.pause(tried / count - 1)).await;
            }
        }
    }
}

impl Service<http::Request<Body>> for Failover {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.clone().call_some(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_not_all_the_same() {
        let failover = Failover::new(Vec::new(), 7);
        let pauses: Vec<Duration> = (0..4).map(|round| failover.pause(round)).collect();
        for (round, pause) in pauses.iter().enumerate() {
            let full = PAUSE * (1 << round);
            assert!(*pause >= full / 2 && *pause <= full, "{round}: {pause:?}");
        }
        assert_ne!(failover.pause(0), failover.pause(0));
    }
}
