//! The one reader of the clocks and of the system's random source in a gateway.

use std::time::{SystemTime, UNIX_EPOCH};

use ring::rand::SecureRandom;
use sallyport_base::{Instant, UnixTime};

/// The clocks of one gateway. The monotonic one starts near zero when it is made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    /// A clock that starts now.
    #[allow(clippy::disallowed_methods)]
    pub fn start() -> Self {
        Self { origin: std::time::Instant::now() }
    }

    /// Monotonic time.
    pub fn now(&self) -> Instant {
        Instant::from_micros(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// `at` as the runtime's instant, for sleeping until it.
    pub fn to_tokio(&self, at: Instant) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.origin + std::time::Duration::from_micros(at.as_micros()))
    }

    /// Wall time in milliseconds since 1970; 0 before it.
    #[allow(clippy::disallowed_methods)]
    pub fn unix_ms() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
    }

    /// Wall time in seconds since 1970.
    pub fn unix() -> UnixTime {
        UnixTime(i64::try_from(Self::unix_ms() / 1000).unwrap_or(i64::MAX))
    }
}

/// The system gives no random bytes: nothing that this program does would be safe.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the system's random source failed; a gateway cannot work without it")]
pub struct NoRandomness;

/// Fresh random bytes from the system, for seeds and identifiers.
pub fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}
