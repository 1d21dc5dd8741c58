//! Diffie-Hellman groups of IKE: MODP (RFC 2409 §6, RFC 3526) and ECP (RFC 5903).

use core::fmt;
use core::ops::Deref;

use zeroize::Zeroizing;

use crate::Rng;

mod ecp;
mod modp;

/// A group by its IANA number ("Group Description", attribute 4 of IKEv1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum DhGroup {
    /// 1024-bit MODP, RFC 2409 §6.2. Within reach of well-funded attackers: off unless policy says otherwise.
    Modp1024 = 2,
    /// 1536-bit MODP, RFC 3526 §2.
    Modp1536 = 5,
    /// 2048-bit MODP, RFC 3526 §3.
    Modp2048 = 14,
    /// 3072-bit MODP, RFC 3526 §4.
    Modp3072 = 15,
    /// 4096-bit MODP, RFC 3526 §5.
    Modp4096 = 16,
    /// P-256, RFC 5903 §3.1.
    Ecp256 = 19,
    /// P-384, RFC 5903 §3.2.
    Ecp384 = 20,
}

impl DhGroup {
    /// All groups, by number.
    pub const ALL: [Self; 7] =
        [Self::Modp1024, Self::Modp1536, Self::Modp2048, Self::Modp3072, Self::Modp4096, Self::Ecp256, Self::Ecp384];

    /// The IANA number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The group with an IANA number, if we have it.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|g| g.number() == number)
    }

    /// Bytes of a public value in the KE payload: the prime's length, or both coordinates.
    #[must_use]
    pub const fn public_len(self) -> usize {
        match self {
            Self::Modp1024 => 128,
            Self::Modp1536 => 192,
            Self::Modp2048 => 256,
            Self::Modp3072 => 384,
            Self::Modp4096 => 512,
            Self::Ecp256 => 64,
            Self::Ecp384 => 96,
        }
    }

    /// Bytes of the shared secret: the prime's length, or the x coordinate (RFC 5903 §9).
    #[must_use]
    pub const fn shared_len(self) -> usize {
        match self {
            Self::Ecp256 => 32,
            Self::Ecp384 => 48,
            modp => modp.public_len(),
        }
    }

    /// Name as operators write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Modp1024 => "modp1024",
            Self::Modp1536 => "modp1536",
            Self::Modp2048 => "modp2048",
            Self::Modp3072 => "modp3072",
            Self::Modp4096 => "modp4096",
            Self::Ecp256 => "ecp256",
            Self::Ecp384 => "ecp384",
        }
    }
}

impl fmt::Display for DhGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a peer's public value is refused. Each of these is an attack or a bug, never bad luck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DhError {
    /// Not the length that the group has. RFC 2409 §5 asks for leading zeros up to the prime's length.
    #[error("public value of {got} bytes where the group has {expected}")]
    Length {
        /// Bytes that the group needs.
        expected: usize,
        /// Bytes that came.
        got: usize,
    },
    /// A MODP value outside 2 … p − 2: the shared secret would be one of three known numbers.
    #[error("public value outside 2 … p - 2")]
    OutOfRange,
    /// An ECP value that is not a point of the curve: the answer would leak the private key bit by bit.
    #[error("public value is not a point of the curve")]
    NotOnCurve,
}

/// One side's ephemeral key pair. The private part is wiped on drop and used once.
///
/// Expensive: generating and agreeing take 0.1 to some 5 ms each, so run them off the thread that serves packets.
pub struct DhSecret {
    group: DhGroup,
    /// Big-endian exponent (MODP) or scalar (ECP).
    private: Zeroizing<Vec<u8>>,
    public: Vec<u8>,
}

impl DhSecret {
    /// A new key pair.
    #[must_use]
    pub fn generate(group: DhGroup, rng: &mut Rng) -> Self {
        let (private, public) = match group {
            DhGroup::Ecp256 => ecp::p256_generate(rng),
            DhGroup::Ecp384 => ecp::p384_generate(rng),
            modp => {
                let mut private = Zeroizing::new(vec![0; modp::exponent_len(modp)]);
                rng.fill(&mut private);
                let public = modp::power(modp, None, &private).to_vec();
                (private, public)
            }
        };
        Self { group, private, public }
    }

    /// The group.
    #[must_use]
    pub const fn group(&self) -> DhGroup {
        self.group
    }

    /// What goes into the KE payload: [`DhGroup::public_len`] bytes, MODP with leading zeros, ECP as x ‖ y without
    /// the leading 04 (RFC 5903 §7).
    #[must_use]
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// The shared secret with the owner of `peer_public`, which is checked first.
    pub fn agree(self, peer_public: &[u8]) -> Result<SharedSecret, DhError> {
        let expected = self.group.public_len();
        if peer_public.len() != expected {
            return Err(DhError::Length { expected, got: peer_public.len() });
        }
        let shared = match self.group {
            DhGroup::Ecp256 => ecp::p256_agree(&self.private, peer_public)?,
            DhGroup::Ecp384 => ecp::p384_agree(&self.private, peer_public)?,
            modp => {
                modp::check_public(modp, peer_public)?;
                modp::power(modp, Some(peer_public), &self.private)
            }
        };
        Ok(SharedSecret(shared))
    }
}

impl fmt::Debug for DhSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DhSecret({})", self.group)
    }
}

/// g^xy of IKE: [`DhGroup::shared_len`] bytes with leading zeros. Wiped on drop, never printed.
#[derive(Clone)]
pub struct SharedSecret(Zeroizing<Vec<u8>>);

impl SharedSecret {
    /// A shared secret that was agreed elsewhere, such as in a test or by a hardware module.
    #[must_use]
    pub const fn from_bytes(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }
}

impl Deref for SharedSecret {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for SharedSecret {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedSecret({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests;
