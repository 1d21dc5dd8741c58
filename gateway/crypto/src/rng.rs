//! Randomness as an argument.

use core::convert::Infallible;
use core::fmt;

use chacha20::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng, TryCryptoRng, TryRng};

/// A cryptographic generator (ChaCha20) that starts from a seed.
///
/// Machines own one, made from a seed that the shell drew from the operating system, so that a test can replay a run.
/// It is deliberately not `Clone`: two copies would give the same "random" numbers. Its state is wiped on drop.
pub struct Rng(ChaCha20Rng);

impl Rng {
    /// A generator whose output is a function of `seed` alone.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(seed))
    }

    /// An independent child: its seed is drawn from this generator.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self::from_seed(self.bytes())
    }

    /// Fills `buf`.
    pub fn fill(&mut self, buf: &mut [u8]) {
        self.0.fill_bytes(buf);
    }

    /// `N` random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }

    /// A random 16-bit number, zero included.
    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.bytes())
    }

    /// A random 32-bit number, zero included.
    pub fn u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// A random 64-bit number, zero included.
    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }
}

impl fmt::Debug for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rng")
    }
}

// The traits of rand_core 0.10, so that RustCrypto's curves can draw from it.
impl TryRng for Rng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.0.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.next_u64())
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill_bytes(dst);
        Ok(())
    }
}

impl TryCryptoRng for Rng {}

/// The same generator as rand_core 0.6, for the `rsa` crate, which is one generation behind.
pub(crate) struct LegacyRng<'a>(pub(crate) &'a mut Rng);

impl rsa::rand_core::RngCore for LegacyRng<'_> {
    fn next_u32(&mut self) -> u32 {
        self.0.u32()
    }

    fn next_u64(&mut self) -> u64 {
        self.0.u64()
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        self.0.fill(dest);
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rsa::rand_core::Error> {
        self.0.fill(dest);
        Ok(())
    }
}

impl rsa::rand_core::CryptoRng for LegacyRng<'_> {}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    #[test]
    fn the_stream_is_chacha20_with_the_seed_as_key() {
        // RFC 8439 appendix A.1, test vector 1: all-zero key and nonce, counter 0.
        assert_eq!(
            Rng::from_seed([0; 32]).bytes::<32>(),
            hex!("76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7")
        );
    }

    #[test]
    fn a_fork_differs_from_its_parent_and_from_its_sibling() {
        let mut parent = Rng::from_seed([7; 32]);
        let (mut a, mut b) = (parent.fork(), parent.fork());
        let (a, b, p) = (a.u64(), b.u64(), parent.u64());
        assert!(a != b && a != p && b != p);
    }

    #[test]
    fn debug_says_nothing() {
        assert_eq!(format!("{:?}", Rng::from_seed([1; 32])), "Rng");
    }
}
