//! MODP groups: RFC 2409 §6.2, RFC 3526. Constant time in the exponent.

use std::sync::LazyLock;

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U512, U1024, U1536, U2048, U3072, U4096, Uint};
use zeroize::{Zeroize, Zeroizing};

use super::{DhError, DhGroup};

/// Bytes of the random exponent.
///
/// A full-length exponent costs up to eight times as much and buys nothing: by RFC 3526 §8 (the higher estimate) twice
/// the strength of the group is 240, 320, 420 and 480 bits for the groups 5, 14, 15 and 16. We round up to whole words.
/// The primes are safe primes, so short exponents leak nothing into small subgroups.
pub(super) const fn exponent_len(group: DhGroup) -> usize {
    match group {
        DhGroup::Modp1024 | DhGroup::Modp1536 => 256 / 8,
        DhGroup::Modp2048 => 320 / 8,
        DhGroup::Modp3072 => 448 / 8,
        _ => 512 / 8,
    }
}

/// Runs `$body` with `$p` bound to the Montgomery parameters of the group.
macro_rules! with_params {
    ($group:expr, $p:ident => $body:expr, $other:expr) => {
        match $group {
            DhGroup::Modp1024 => {
                let $p = &*P1024;
                $body
            }
            DhGroup::Modp1536 => {
                let $p = &*P1536;
                $body
            }
            DhGroup::Modp2048 => {
                let $p = &*P2048;
                $body
            }
            DhGroup::Modp3072 => {
                let $p = &*P3072;
                $body
            }
            DhGroup::Modp4096 => {
                let $p = &*P4096;
                $body
            }
            DhGroup::Ecp256 | DhGroup::Ecp384 => $other,
        }
    };
}

/// `base`^`exponent` mod p, or 2^`exponent` mod p without a base; as long as the prime. `base` is less than p and has
/// the prime's length, `exponent` has at most 64 bytes.
pub(super) fn power(group: DhGroup, base: Option<&[u8]>, exponent: &[u8]) -> Zeroizing<Vec<u8>> {
    with_params!(group, p => power_mod(p, base, exponent), Zeroizing::new(Vec::new()))
}

/// Refuses everything but 2 … p − 2.
pub(super) fn check_public(group: DhGroup, public: &[u8]) -> Result<(), DhError> {
    let ok = with_params!(group, p => in_range(p, public), false);
    if ok { Ok(()) } else { Err(DhError::OutOfRange) }
}

fn in_range<const L: usize>(params: &FixedMontyParams<L>, public: &[u8]) -> bool {
    let y = Uint::<L>::from_be_slice(public);
    let p_minus_1 = params.modulus().as_ref().wrapping_sub(&Uint::ONE);
    y > Uint::ONE && y < p_minus_1 // the value is public: time may depend on it
}

fn power_mod<const L: usize>(params: &FixedMontyParams<L>, base: Option<&[u8]>, exponent: &[u8]) -> Zeroizing<Vec<u8>> {
    let bits = u32::try_from(exponent.len() * 8).unwrap_or(U512::BITS).min(U512::BITS);
    let mut padded = Zeroizing::new([0u8; 64]);
    for (to, from) in padded.iter_mut().rev().zip(exponent.iter().rev()) {
        *to = *from;
    }
    let mut x = U512::from_be_slice(&*padded);
    let base = base.map_or(Uint::from_u8(2), Uint::from_be_slice);
    let mut power = FixedMontyForm::new(&base, params).pow_bounded_exp(&x, bits);
    let mut result = power.retrieve();
    let out = Zeroizing::new(result.to_be_bytes().as_ref().to_vec());
    x.zeroize();
    power.zeroize();
    result.zeroize();
    out
}

static P1024: LazyLock<FixedMontyParams<{ U1024::LIMBS }>> = LazyLock::new(|| {
    params(U1024::from_be_hex(concat!(
        "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404dd",
        "ef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7ed",
        "ee386bfb5a899fa5ae9f24117c4b1fe649286651ece65381ffffffffffffffff",
    )))
});

static P1536: LazyLock<FixedMontyParams<{ U1536::LIMBS }>> = LazyLock::new(|| {
    params(U1536::from_be_hex(concat!(
        "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404dd",
        "ef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7ed",
        "ee386bfb5a899fa5ae9f24117c4b1fe649286651ece45b3dc2007cb8a163bf0598da48361c55d39a69163fa8fd24cf5f",
        "83655d23dca3ad961c62f356208552bb9ed529077096966d670c354e4abc9804f1746c08ca237327ffffffffffffffff",
    )))
});

static P2048: LazyLock<FixedMontyParams<{ U2048::LIMBS }>> = LazyLock::new(|| {
    params(U2048::from_be_hex(concat!(
        "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404dd",
        "ef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7ed",
        "ee386bfb5a899fa5ae9f24117c4b1fe649286651ece45b3dc2007cb8a163bf0598da48361c55d39a69163fa8fd24cf5f",
        "83655d23dca3ad961c62f356208552bb9ed529077096966d670c354e4abc9804f1746c08ca18217c32905e462e36ce3b",
        "e39e772c180e86039b2783a2ec07a28fb5c55df06f4c52c9de2bcbf6955817183995497cea956ae515d2261898fa0510",
        "15728e5a8aacaa68ffffffffffffffff",
    )))
});

static P3072: LazyLock<FixedMontyParams<{ U3072::LIMBS }>> = LazyLock::new(|| {
    params(U3072::from_be_hex(concat!(
        "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404dd",
        "ef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7ed",
        "ee386bfb5a899fa5ae9f24117c4b1fe649286651ece45b3dc2007cb8a163bf0598da48361c55d39a69163fa8fd24cf5f",
        "83655d23dca3ad961c62f356208552bb9ed529077096966d670c354e4abc9804f1746c08ca18217c32905e462e36ce3b",
        "e39e772c180e86039b2783a2ec07a28fb5c55df06f4c52c9de2bcbf6955817183995497cea956ae515d2261898fa0510",
        "15728e5a8aaac42dad33170d04507a33a85521abdf1cba64ecfb850458dbef0a8aea71575d060c7db3970f85a6e1e4c7",
        "abf5ae8cdb0933d71e8c94e04a25619dcee3d2261ad2ee6bf12ffa06d98a0864d87602733ec86a64521f2b18177b200c",
        "bbe117577a615d6c770988c0bad946e208e24fa074e5ab3143db5bfce0fd108e4b82d120a93ad2caffffffffffffffff",
    )))
});

static P4096: LazyLock<FixedMontyParams<{ U4096::LIMBS }>> = LazyLock::new(|| {
    params(U4096::from_be_hex(concat!(
        "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404dd",
        "ef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7ed",
        "ee386bfb5a899fa5ae9f24117c4b1fe649286651ece45b3dc2007cb8a163bf0598da48361c55d39a69163fa8fd24cf5f",
        "83655d23dca3ad961c62f356208552bb9ed529077096966d670c354e4abc9804f1746c08ca18217c32905e462e36ce3b",
        "e39e772c180e86039b2783a2ec07a28fb5c55df06f4c52c9de2bcbf6955817183995497cea956ae515d2261898fa0510",
        "15728e5a8aaac42dad33170d04507a33a85521abdf1cba64ecfb850458dbef0a8aea71575d060c7db3970f85a6e1e4c7",
        "abf5ae8cdb0933d71e8c94e04a25619dcee3d2261ad2ee6bf12ffa06d98a0864d87602733ec86a64521f2b18177b200c",
        "bbe117577a615d6c770988c0bad946e208e24fa074e5ab3143db5bfce0fd108e4b82d120a92108011a723c12a787e6d7",
        "88719a10bdba5b2699c327186af4e23c1a946834b6150bda2583e9ca2ad44ce8dbbbc2db04de8ef92e8efc141fbecaa6",
        "287c59474e6bc05d99b2964fa090c3a2233ba186515be7ed1f612970cee2d7afb81bdd762170481cd0069127d5b05aa9",
        "93b4ea988d8fddc186ffb7dc90a6c08f4df435c934063199ffffffffffffffff",
    )))
});

/// The primes are odd constants, so the check of `Odd` cannot fail.
fn params<const L: usize>(p: Uint<L>) -> FixedMontyParams<L> {
    match Odd::new(p).into_option() {
        Some(p) => FixedMontyParams::new_vartime(p),
        None => unreachable!("the primes are odd"),
    }
}

#[cfg(test)]
pub(super) fn prime(group: DhGroup) -> Vec<u8> {
    with_params!(group, p => p.modulus().as_ref().to_be_bytes().as_ref().to_vec(), Vec::new())
}
