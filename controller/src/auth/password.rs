//! Argon2id verifiers, computed on worker threads, a few at a time.

use std::sync::Arc;

use argon2::{Algorithm, Argon2, Params, Version};
use prost::Message;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::config::PasswordsConfig;
use crate::error::Error;

/// Bytes of the result, RFC 9106 §3.1: 128 bits and more are good.
const TAG: usize = 32;
/// Bytes of salt, RFC 9106 §3.1.
pub(crate) const SALT: usize = 16;
/// Computations that may wait; beyond it the caller is told to come back.
const MAX_WAITING: usize = 256;

/// A stored verifier: it says itself how it was made.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Verifier {
    /// Memory, KiB.
    #[prost(uint32, tag = "1")]
    memory_kib: u32,
    /// Passes.
    #[prost(uint32, tag = "2")]
    passes: u32,
    /// Salt.
    #[prost(bytes = "vec", tag = "3")]
    salt: Vec<u8>,
    /// Result.
    #[prost(bytes = "vec", tag = "4")]
    tag: Vec<u8>,
}

/// The workers.
#[derive(Debug)]
pub(crate) struct Workers {
    places: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    memory_kib: u32,
    passes: u32,
}

fn compute(memory_kib: u32, passes: u32, salt: &[u8], password: &[u8]) -> Option<Zeroizing<[u8; TAG]>> {
    let params = Params::new(memory_kib, passes, 1, Some(TAG)).ok()?;
    let mut tag = Zeroizing::new([0; TAG]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(password, salt, &mut *tag).ok()?;
    Some(tag)
}

/// Too many wait.
#[derive(Debug)]
pub(crate) struct Busy;

impl Workers {
    /// Workers as configured.
    pub(crate) fn new(config: PasswordsConfig) -> Self {
        let parallel = match config.argon2_parallel {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        Self {
            places: Arc::new(Semaphore::new(parallel)),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            memory_kib: config.argon2_memory_kib,
            passes: config.argon2_passes,
        }
    }

    /// Makes a verifier, encoded.
    pub(crate) async fn make(
        &self,
        password: Zeroizing<Vec<u8>>,
        salt: [u8; SALT],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let (memory_kib, passes) = (self.memory_kib, self.passes);
        let tag = self
            .run(move || compute(memory_kib, passes, &salt, &password))
            .await
            .map_err(|Busy| crate::raft::ProposeError::Overloaded)?
            .ok_or_else(|| Error::Config("passwords: these Argon2 costs are not possible".into()))?;
        let verifier = Verifier { memory_kib, passes, salt: salt.to_vec(), tag: tag.to_vec() };
        Ok(Zeroizing::new(verifier.encode_to_vec()))
    }

    /// Whether the password fits an encoded verifier. One that cannot be read fits nothing.
    pub(crate) async fn check(&self, password: Zeroizing<Vec<u8>>, encoded: Zeroizing<Vec<u8>>) -> Result<bool, Busy> {
        self.run(move || {
            let Ok(verifier) = Verifier::decode(encoded.as_slice()) else { return false };
            let computed = compute(verifier.memory_kib, verifier.passes, &verifier.salt, &password);
            computed.is_some_and(|tag| bool::from(tag.as_slice().ct_eq(&verifier.tag)))
        })
        .await
    }

    async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, Busy> {
        let waiting = self.waiting.clone().try_acquire_owned().map_err(|_| Busy)?;
        let place = self.places.clone().acquire_owned().await.map_err(|_| Busy)?;
        tokio::task::spawn_blocking(move || {
            // Held by the thread: a caller that gives up does not free it.
            let _places = (waiting, place);
            job()
        })
        .await
        .map_err(|_| Busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_verifier_fits_its_password_and_no_other() {
        let config = PasswordsConfig { argon2_memory_kib: 8, argon2_passes: 1, argon2_parallel: 1 };
        let workers = Workers::new(config);
        let bytes = |text: &str| Zeroizing::new(text.as_bytes().to_vec());
        let verifier = workers.make(bytes("open sesame"), [7; SALT]).await.expect("makes");
        assert!(workers.check(bytes("open sesame"), verifier.clone()).await.expect("runs"));
        assert!(!workers.check(bytes("open sesamf"), verifier.clone()).await.expect("runs"));
        assert!(!workers.check(bytes(""), verifier).await.expect("runs"));
        assert!(!workers.check(bytes("x"), bytes("")).await.expect("runs"));
    }
}
