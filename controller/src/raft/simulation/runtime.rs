//! What openraft runs on in tests: the simulation where one runs on this thread, tokio elsewhere.

#![allow(unreachable_pub, reason = "the associated types of the public TypeConfig")]

use std::fmt;
use std::future::Future;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::Duration;

use openraft::{AsyncRuntime, OptionalSend, TokioRuntime};

use super::executor::{self, Joined};

/// See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Runtime;

/// A task that was started.
pub enum JoinHandle<T> {
    /// On tokio.
    Tokio(tokio::task::JoinHandle<T>),
    /// In a simulation.
    Simulated(Joined<T>),
}

impl<T> JoinHandle<T> {
    /// Ends the task where it waits.
    pub fn abort(&self) {
        self.abort_handle().abort();
    }

    /// What ends the task where it waits.
    pub fn abort_handle(&self) -> AbortHandle {
        match self {
            Self::Tokio(handle) => AbortHandle::Tokio(handle.abort_handle()),
            Self::Simulated(joined) => AbortHandle::Simulated(joined.id()),
        }
    }
}

/// What ends a task.
pub enum AbortHandle {
    /// On tokio.
    Tokio(tokio::task::AbortHandle),
    /// In a simulation.
    Simulated(u64),
}

impl AbortHandle {
    /// Ends it where it waits.
    pub fn abort(&self) {
        match self {
            Self::Tokio(handle) => handle.abort(),
            Self::Simulated(id) => executor::abort(*id),
        }
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Tokio(handle) => Pin::new(handle).poll(cx).map_err(|e| JoinError { panic: e.is_panic() }),
            // One that is killed takes along those who would ask.
            Self::Simulated(joined) => Pin::new(joined).poll(cx).map(|answer| answer.ok_or(JoinError { panic: true })),
        }
    }
}

/// Why a task has no result.
#[derive(Debug)]
pub struct JoinError {
    panic: bool,
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.panic { "the task panicked" } else { "the task was ended" })
    }
}

/// Time since an origin far back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(Duration);

/// openraft looks back from now.
const BEFORE: Duration = Duration::from_secs(1_000_000);
static ORIGIN: LazyLock<tokio::time::Instant> = LazyLock::new(tokio::time::Instant::now);

impl openraft::Instant for Instant {
    fn now() -> Self {
        if executor::is_active() {
            return Self(executor::now());
        }
        let origin = *ORIGIN;
        Self(BEFORE + (tokio::time::Instant::now() - origin))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        Self(self.0 + by)
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, by: Duration) {
        self.0 += by;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, by: Duration) -> Self {
        Self(self.0 - by)
    }
}

impl Sub for Instant {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, by: Duration) {
        self.0 -= by;
    }
}

/// A wait.
pub enum Sleep {
    /// On tokio.
    Tokio(Pin<Box<tokio::time::Sleep>>),
    /// In a simulation.
    Simulated(executor::Sleep),
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self {
            Self::Tokio(sleep) => sleep.as_mut().poll(cx),
            Self::Simulated(sleep) => Pin::new(sleep).poll(cx),
        }
    }
}

/// A call with a limit.
pub struct Timeout<F> {
    future: Pin<Box<F>>,
    sleep: Sleep,
}

impl<R, F: Future<Output = R>> Future for Timeout<F> {
    type Output = Result<R, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.future.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Ok(answer)),
            Poll::Pending => Pin::new(&mut self.sleep).poll(cx).map(|()| Err(Elapsed)),
        }
    }
}

/// The limit is over.
#[derive(Debug)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it took too long")
    }
}

/// Draws from the simulation's generator, or from the thread's.
pub struct Rng;

impl rand::RngCore for Rng {
    fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }
    fn next_u64(&mut self) -> u64 {
        if executor::is_active() { executor::draw() } else { rand::thread_rng().next_u64() }
    }
    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = JoinError;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = Instant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = Rng;
    type OneshotSender<T: OptionalSend> = openraft::async_runtime::TokioOneShotSender<T>;
    type OneshotReceiver<T: OptionalSend> = tokio::sync::oneshot::Receiver<T>;
    type OneshotReceiverError = tokio::sync::oneshot::error::RecvError;

    fn spawn<T>(future: T) -> JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        if executor::is_active() {
            JoinHandle::Simulated(executor::spawn(future))
        } else {
            JoinHandle::Tokio(tokio::spawn(future))
        }
    }

    fn sleep(duration: Duration) -> Sleep {
        if executor::is_active() {
            Sleep::Simulated(executor::sleep(duration))
        } else {
            Sleep::Tokio(Box::pin(tokio::time::sleep(duration)))
        }
    }

    fn sleep_until(deadline: Instant) -> Sleep {
        if executor::is_active() {
            Sleep::Simulated(executor::sleep_until(deadline.0))
        } else {
            Sleep::Tokio(Box::pin(tokio::time::sleep_until(*ORIGIN + deadline.0.saturating_sub(BEFORE))))
        }
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Timeout<F> {
        Timeout { future: Box::pin(future), sleep: Self::sleep(duration) }
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Instant, future: F) -> Timeout<F> {
        Timeout { future: Box::pin(future), sleep: Self::sleep_until(deadline) }
    }

    fn is_panic(error: &JoinError) -> bool {
        error.panic
    }

    fn thread_rng() -> Rng {
        Rng
    }

    fn oneshot<T>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>)
    where
        T: OptionalSend,
    {
        TokioRuntime::oneshot()
    }
}
