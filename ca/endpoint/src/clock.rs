//! Where the time comes from.

use core::time::Duration;

use sallyport_ca::UnixTime;

/// The clocks of the process.
pub trait Clock: core::fmt::Debug + Send + Sync + 'static {
    /// Time that only ever grows, from an origin of its own: for limits.
    fn monotonic(&self) -> Duration;
    /// The time of day: for how long a list may be kept.
    fn unix(&self) -> UnixTime;
}
