//! From a passphrase to a key: Argon2id, RFC 9106.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::{Zeroize, Zeroizing};

/// Bytes of salt, RFC 9106 §3.1.
pub(crate) const SALT: usize = 16;
/// Shortest passphrase that is taken for something new, bytes. It guards a whole cluster against guessing without end.
pub(crate) const SHORTEST: usize = 12;

/// What the computation costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Costs {
    /// Memory, KiB.
    pub(crate) memory_kib: u32,
    /// Passes over it.
    pub(crate) passes: u32,
    /// Lanes, which one after the other are computed here.
    pub(crate) lanes: u32,
}

impl Costs {
    /// Memory and passes of RFC 9106 §4, second recommended option; one lane, as nothing here computes more at a time.
    pub(crate) const RECOMMENDED: Self = Self { memory_kib: 65_536, passes: 3, lanes: 1 };
}

impl Costs {
    /// Whether we would pay them: they may come from a file that is damaged or somebody else's. 1 GiB of memory, 100 passes,
    /// and 4 GiB that are passed over.
    pub(crate) fn are_reasonable(self) -> bool {
        (8..=1 << 20).contains(&self.memory_kib)
            && (1..=100).contains(&self.passes)
            && (1..=16).contains(&self.lanes)
            && u64::from(self.memory_kib) * u64::from(self.passes) <= 4 << 20
    }
}

/// The key; `None` for costs that are impossible or not reasonable.
pub(crate) fn derive(costs: Costs, salt: &[u8], passphrase: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let Costs { memory_kib, passes, lanes } = costs;
    if !costs.are_reasonable() {
        return None;
    }
    let params = Params::new(memory_kib, passes, lanes, Some(32)).ok()?;
    let mut memory = vec![Block::default(); params.block_count()];
    let mut key = Zeroizing::new([0; 32]);
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let derived = argon2.hash_password_into_with_memory(passphrase, salt, &mut *key, &mut memory);
    memory.iter_mut().for_each(Zeroize::zeroize);
    derived.ok().map(|()| key)
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    /// Made with the reference implementation: `echo -n "correct horse battery" | argon2 0123456789abcdef -id -k 64 -t 3
    /// -p 1 -l 32 -r`.
    #[test]
    fn a_passphrase_gives_the_key_of_the_reference_implementation() {
        let costs = Costs { memory_kib: 64, passes: 3, lanes: 1 };
        let key = derive(costs, b"0123456789abcdef", b"correct horse battery").expect("derives");
        assert_eq!(*key, hex!("d954dcab5dd0ac649ec8e75007e75bc0a4dfcfe20819f55f9be92935d53ba4bf"));
    }

    #[test]
    fn costs_beyond_reason_are_refused_before_they_are_paid() {
        for (memory_kib, passes, lanes) in [
            (0, 1, 1),
            (u32::MAX, 1, 1),
            (64, 0, 1),
            (64, 101, 1),
            (64, 1, 0),
            (64, 1, 17),
            (1 << 21, 1, 1),
            (1 << 20, 5, 1),
        ] {
            assert!(derive(Costs { memory_kib, passes, lanes }, &[0; SALT], b"x").is_none());
        }
        assert!(derive(Costs { memory_kib: 64, passes: 1, lanes: 1 }, b"short", b"x").is_none(), "salt of 5 bytes");
    }
}
