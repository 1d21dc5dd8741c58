//! The one place in this crate that reads a clock.

use sallyport_base::UnixTime;

/// Monotonic time.
#[allow(clippy::disallowed_methods)] // this is the clock module that the lint asks for
pub(crate) fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// Civil time, in whole seconds since 1970; zero on a machine whose clock stands before that.
#[allow(clippy::disallowed_methods)] // this is the clock module that the lint asks for
pub(crate) fn unix_now() -> UnixTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    UnixTime(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
