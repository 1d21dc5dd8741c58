//! The way to several controllers as if they were one: a call that finds none there is made again at the next.
//!
//! Any controller answers any call, so it does not matter which. Each client has an order of its own, drawn from a seed: so
//! clients spread over the controllers, and those of one that goes away spread over the others. A client stays with the one
//! that answered last, and looks after a while whether the first of its order is back: else a restart of all controllers, one
//! after the other, would leave all clients at one. What may be made again is safe to make again: calls that change something
//! carry an id (see [`REQUEST_ID`]).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
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
/// Calls that another controller answers before the first one is looked at again: at first, and when it stays away, since each
/// look may cost a call its patience. Gateways make a call every few seconds.
const RETURN_AFTER: (u32, u32) = (16, 512);
/// gRPC's UNAVAILABLE.
const UNAVAILABLE: &[u8] = b"14";

/// Connections to all controllers. Clones share which of them answered last.
#[derive(Clone, Debug)]
pub struct Failover<S = Channel> {
    /// In the order in which this client asks them.
    channels: Arc<[S]>,
    current: Arc<AtomicUsize>,
    astray: Arc<Astray>,
    noise: Arc<AtomicU64>,
    patience: Option<Duration>,
}

/// How long another than the first controller has been asked.
#[derive(Debug)]
struct Astray {
    calls: AtomicU32,
    /// Calls until the next look at the first one.
    limit: AtomicU32,
}

impl<S> Failover<S> {
    /// Over these connections, which may be lazy, in an order that `seed` draws.
    pub fn new(mut channels: Vec<S>, seed: u64) -> Self {
        let noise = AtomicU64::new(seed);
        // Fisher and Yates.
        for last in (1..channels.len()).rev() {
            let other = usize::try_from(draw(&noise) % (last as u64 + 1)).unwrap_or(0);
            channels.swap(last, other);
        }
        Self::in_order(channels, noise.into_inner())
    }

    /// Over these connections in this order. `seed` spreads the pauses.
    pub fn in_order(channels: Vec<S>, seed: u64) -> Self {
        Self {
            channels: channels.into(),
            current: Arc::default(),
            astray: Arc::new(Astray { calls: AtomicU32::new(0), limit: AtomicU32::new(RETURN_AFTER.0) }),
            noise: Arc::new(AtomicU64::new(seed)),
            patience: None,
        }
    }

    /// Goes on to the next controller when one has not begun to answer in this time.
    #[must_use]
    pub fn patience(mut self, each: Duration) -> Self {
        self.patience = Some(each);
        self
    }

    /// The same controllers for calls that are made once: see [`Once`].
    #[must_use]
    pub fn once(&self) -> Once<S>
    where
        S: Clone,
    {
        Once(self.clone())
    }

    /// The pause after a round.
    fn pause(&self, round: usize) -> Duration {
        let full = PAUSE.saturating_mul(1 << round.min(8));
        full / 2 + (full / 2).mul_f64((draw(&self.noise) >> 11) as f64 / (1_u64 << 53) as f64)
    }

    /// Whether this call goes to the first controller although another answered last.
    fn looks_back(&self) -> bool {
        self.current.load(Ordering::Relaxed) != 0
            && self.astray.calls.fetch_add(1, Ordering::Relaxed) >= self.astray.limit.load(Ordering::Relaxed)
    }

    /// The first controller answered such a call, or did not.
    fn looked_back(&self, answered: bool) {
        let (least, most) = RETURN_AFTER;
        let next = if answered {
            self.current.store(0, Ordering::Relaxed);
            least
        } else {
            self.astray.limit.load(Ordering::Relaxed).saturating_mul(2).min(most)
        };
        self.astray.calls.store(0, Ordering::Relaxed);
        self.astray.limit.store(next, Ordering::Relaxed);
    }
}

/// The next random number: splitmix64.
fn draw(noise: &AtomicU64) -> u64 {
    let step = 0x9e37_79b9_7f4a_7c15_u64;
    let mut z = noise.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Whether a controller could not be asked, or says that it cannot answer now.
fn is_away<E>(answer: &Result<http::Response<Body>, E>) -> bool {
    match answer {
        Ok(response) => response.headers().get("grpc-status").is_some_and(|s| s.as_bytes() == UNAVAILABLE),
        Err(_) => true,
    }
}

impl<S> Failover<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone,
{
    async fn ask(&self, at: usize, request: http::Request<Body>) -> Result<http::Response<Body>, S::Error> {
        let Some(mut channel) = self.channels.get(at).cloned() else {
            return Ok(tonic::Status::unavailable("no controller is named").into_http());
        };
        let asked = async {
            std::future::poll_fn(|cx| channel.poll_ready(cx)).await?;
            channel.call(request).await
        };
        match self.patience.filter(|_| self.channels.len() > 1) {
            None => asked.await,
            Some(patience) => tokio::time::timeout(patience, asked)
                .await
                .unwrap_or_else(|_| Ok(tonic::Status::unavailable("no answer in time").into_http())),
        }
    }

    async fn call_some(self, request: http::Request<Body>) -> Result<http::Response<Body>, S::Error> {
        if self.channels.is_empty() {
            return Ok(tonic::Status::unavailable("no controller is named").into_http());
        }
        let (parts, body) = request.into_parts();
        // Requests of the contract are small messages. One that breaks off goes as far as it came, and is refused there.
        let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let again = || {
            let mut request = http::Request::new(Body::new(Full::new(bytes.clone())));
            *request.method_mut() = parts.method.clone();
            *request.uri_mut() = parts.uri.clone();
            *request.headers_mut() = parts.headers.clone();
            request
        };
        if self.looks_back() {
            let answer = self.ask(0, again()).await;
            self.looked_back(!is_away(&answer));
            if !is_away(&answer) {
                return answer;
            }
        }
        let count = self.channels.len();
        let mut tried = 0;
        loop {
            let at = self.current.load(Ordering::Relaxed) % count;
            let answer = self.ask(at, again()).await;
            tried += 1;
            if !is_away(&answer) || tried >= ROUNDS * count {
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

impl<S> Service<http::Request<Body>> for Failover<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.clone().call_some(request))
    }
}

/// Calls whose requests are streams: what was sent of one cannot be sent again. Each goes to the controller that answered last; one
/// that finds it away fails, and the next call goes on to another.
#[derive(Clone, Debug)]
pub struct Once<S = Channel>(Failover<S>);

impl<S> Once<S> {
    /// How many controllers there are.
    pub fn controllers(&self) -> usize {
        self.0.channels.len()
    }
}

impl<S> Service<http::Request<Body>> for Once<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let all = self.0.clone();
        Box::pin(async move {
            let count = all.channels.len().max(1);
            let at = all.current.load(Ordering::Relaxed) % count;
            let answer = all.ask(at, request).await;
            if is_away(&answer) {
                let next = (at + 1) % count;
                let _ = all.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
            }
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A controller that notes its calls and may be away.
    #[derive(Clone, Debug, Default)]
    struct Fake(Arc<(AtomicUsize, AtomicU32)>);

    impl Fake {
        fn set_away(&self, away: bool) {
            self.0.1.store(away.into(), Ordering::Relaxed);
        }

        /// Calls since this was asked last.
        fn calls(&self) -> usize {
            self.0.0.swap(0, Ordering::Relaxed)
        }
    }

    impl Service<http::Request<Body>> for Fake {
        type Response = http::Response<Body>;
        type Error = std::convert::Infallible;
        type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

        fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _request: http::Request<Body>) -> Self::Future {
            self.0.0.fetch_add(1, Ordering::Relaxed);
            let away = self.0.1.load(Ordering::Relaxed) != 0;
            let status = if away { tonic::Status::unavailable("away") } else { tonic::Status::ok("") };
            std::future::ready(Ok(status.into_http()))
        }
    }

    fn fakes() -> Vec<Fake> {
        vec![Fake::default(), Fake::default(), Fake::default()]
    }

    /// One call; whether it was answered.
    async fn call(failover: &Failover<Fake>) -> bool {
        let answer = failover.clone().call_some(http::Request::new(Body::empty())).await;
        !is_away(&answer)
    }

    fn counts(fakes: &[Fake]) -> Vec<usize> {
        fakes.iter().map(Fake::calls).collect()
    }

    #[test]
    fn pauses_grow_and_are_not_all_the_same() {
        let failover = Failover::<Fake>::new(Vec::new(), 7);
        let pauses: Vec<Duration> = (0..4).map(|round| failover.pause(round)).collect();
        for (round, pause) in pauses.iter().enumerate() {
            let full = PAUSE * (1 << round);
            assert!(*pause >= full / 2 && *pause <= full, "{round}: {pause:?}");
        }
        assert_ne!(failover.pause(0), failover.pause(0));
    }

    #[tokio::test]
    async fn clients_spread_over_the_controllers_and_those_of_a_lost_one_over_the_others() {
        let fakes = fakes();
        let clients: Vec<Failover<Fake>> = (0..300).map(|seed| Failover::new(fakes.clone(), seed * 77)).collect();
        for client in &clients {
            assert!(call(client).await);
        }
        let spread = counts(&fakes);
        assert!(spread.iter().all(|n| *n > 60), "{spread:?}");
        fakes[1].set_away(true);
        for client in &clients {
            assert!(call(client).await);
        }
        let (left, right) = (fakes[0].calls() - spread[0], fakes[2].calls() - spread[2]);
        assert!(left > spread[1] / 4 && right > spread[1] / 4, "{spread:?} {left} {right}");
    }

    #[tokio::test]
    async fn after_a_restart_of_all_in_turn_every_client_is_back_where_it_began() {
        let fakes = fakes();
        let clients: Vec<Failover<Fake>> = (0..30).map(|seed| Failover::new(fakes.clone(), seed * 77)).collect();
        for client in &clients {
            assert!(call(client).await);
        }
        let before = counts(&fakes);
        for fake in &fakes {
            fake.set_away(true);
            for client in &clients {
                assert!(call(client).await);
            }
            fake.set_away(false);
        }
        for client in &clients {
            for _ in 0..=2 * RETURN_AFTER.1 {
                assert!(call(client).await);
            }
        }
        counts(&fakes);
        for client in &clients {
            assert!(call(client).await);
        }
        assert_eq!(counts(&fakes), before);
    }

    #[tokio::test]
    async fn one_that_stays_away_is_looked_at_less_and_less() {
        let fakes = fakes();
        let client = Failover::in_order(fakes.clone(), 1);
        fakes[0].set_away(true);
        for _ in 0..10_000 {
            assert!(call(&client).await);
        }
        let looks = fakes[0].calls();
        assert!((10..40).contains(&looks), "{looks}");
        assert_eq!(fakes[2].calls(), 0);
    }

    #[tokio::test]
    async fn a_call_that_is_made_once_fails_where_nobody_is_and_the_next_goes_elsewhere() {
        let fakes = fakes();
        let all = Failover::in_order(fakes.clone(), 1);
        let mut once = all.once();
        fakes[0].set_away(true);
        let mut answered = async || !is_away(&once.call(http::Request::new(Body::empty())).await);
        assert!(!answered().await);
        assert_eq!(counts(&fakes), [1, 0, 0]);
        assert!(answered().await && answered().await);
        assert_eq!(counts(&fakes), [0, 2, 0]);
        let mut nobody = Failover::<Fake>::new(Vec::new(), 7).once();
        assert!(is_away(&nobody.call(http::Request::new(Body::empty())).await));
    }

    #[tokio::test]
    async fn where_no_controller_is_named_nobody_is_waited_for() {
        let failover = Failover::<Fake>::new(Vec::new(), 7);
        let call = tokio::task::unconstrained(call(&failover));
        // It is answered when it is looked at for the first time.
        let mut call = std::pin::pin!(call);
        let first = std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
        assert!(matches!(first, Poll::Ready(false)));
    }

    #[tokio::test]
    async fn a_call_that_finds_nobody_ends_after_a_bounded_number_of_tries() {
        let fakes = fakes();
        for fake in &fakes {
            fake.set_away(true);
        }
        let client = Failover::in_order(fakes.clone(), 1);
        assert!(!call(&client).await);
        assert_eq!(counts(&fakes), [ROUNDS; 3]);
        // The first that is back has the next call.
        fakes[2].set_away(false);
        assert!(call(&client).await);
    }
}
