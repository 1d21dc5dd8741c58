//! Hashes and HMAC: FIPS 180-4, RFC 1321, RFC 2104.

use core::fmt;
use core::ops::Deref;

use hmac::digest::Output as MacOutput;
use hmac::{KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Output length of the largest hash, in bytes.
pub const MAX_OUTPUT: usize = 64;

/// A hash function, on its own or inside HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HashAlg {
    /// MD5, RFC 1321. Broken as a hash; CHAP and old IKE peers use it.
    Md5,
    /// SHA-1. Broken as a hash, sound inside HMAC; all that Windows offers in IKEv1.
    Sha1,
    /// SHA2-256.
    Sha256,
    /// SHA2-384.
    Sha384,
    /// SHA2-512.
    Sha512,
}

impl HashAlg {
    /// Bytes of a digest, and of an HMAC that is not truncated.
    #[must_use]
    pub const fn output_len(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Name as operators write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// The hash of the parts, one after the other.
    #[must_use]
    pub fn digest(self, parts: &[&[u8]]) -> Digest {
        match self {
            Self::Md5 => hash::<Md5>(parts),
            Self::Sha1 => hash::<Sha1>(parts),
            Self::Sha256 => hash::<Sha256>(parts),
            Self::Sha384 => hash::<Sha384>(parts),
            Self::Sha512 => hash::<Sha512>(parts),
        }
    }

    /// HMAC of the parts, one after the other, under a key of any length: the prf of IKEv1 (RFC 2409 §4).
    #[must_use]
    pub fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Digest {
        Hmac::new(self, key).mac(parts)
    }
}

impl fmt::Display for HashAlg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn hash<D: sha2::Digest>(parts: &[&[u8]]) -> Digest {
    let mut d = D::new();
    for part in parts {
        d.update(part);
    }
    Digest::new(&d.finalize())
}

/// The output of a hash or of HMAC. It may be a key (SKEYID), so it is wiped on drop, not printed, and compared in
/// constant time.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Digest {
    bytes: [u8; MAX_OUTPUT],
    len: u8,
}

impl Digest {
    fn new(bytes: &[u8]) -> Self {
        let mut out = Self { bytes: [0; MAX_OUTPUT], len: 0 };
        for (to, from) in out.bytes.iter_mut().zip(bytes) {
            *to = *from;
            out.len += 1;
        }
        out
    }

    /// Whether `other` is these bytes, in constant time.
    #[must_use]
    pub fn ct_eq(&self, other: &[u8]) -> bool {
        (**self).ct_eq(other).into()
    }
}

impl Deref for Digest {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Digest {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.ct_eq(other)
    }
}

impl Eq for Digest {}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({} bytes)", self.len)
    }
}

/// A keyed HMAC with the inner and the outer state computed once, for use per packet or per message.
#[derive(Clone)]
pub struct Hmac(State);

/// Sizes run from 128 to 300 bytes; a box would cost a cache miss per packet.
#[allow(clippy::large_enum_variant)]
#[derive(Clone)]
enum State {
    Md5(hmac::Hmac<Md5>),
    Sha1(hmac::Hmac<Sha1>),
    Sha256(hmac::Hmac<Sha256>),
    Sha384(hmac::Hmac<Sha384>),
    Sha512(hmac::Hmac<Sha512>),
}

/// HMAC takes keys of any length (RFC 2104 §3), so the error that the trait allows for cannot arise.
fn keyed<M: Mac + KeyInit>(key: &[u8]) -> M {
    match M::new_from_slice(key) {
        Ok(mac) => mac,
        Err(_) => unreachable!("HMAC takes keys of any length"),
    }
}

/// The MAC of the parts as the primitive gives it.
fn mac<M: Mac + Clone>(state: &M, parts: &[&[u8]]) -> MacOutput<M> {
    let mut m = state.clone();
    for part in parts {
        m.update(part);
    }
    m.finalize().into_bytes()
}

/// Runs `$f` over the MAC of `$parts`, whatever the hash.
macro_rules! with_mac {
    ($hmac:expr, $parts:expr, $out:ident => $f:expr) => {
        match &$hmac.0 {
            State::Md5(s) => {
                let $out = mac(s, $parts);
                $f
            }
            State::Sha1(s) => {
                let $out = mac(s, $parts);
                $f
            }
            State::Sha256(s) => {
                let $out = mac(s, $parts);
                $f
            }
            State::Sha384(s) => {
                let $out = mac(s, $parts);
                $f
            }
            State::Sha512(s) => {
                let $out = mac(s, $parts);
                $f
            }
        }
    };
}

impl Hmac {
    /// Prepares `alg` under `key`.
    #[must_use]
    pub fn new(alg: HashAlg, key: &[u8]) -> Self {
        Self(match alg {
            HashAlg::Md5 => State::Md5(keyed(key)),
            HashAlg::Sha1 => State::Sha1(keyed(key)),
            HashAlg::Sha256 => State::Sha256(keyed(key)),
            HashAlg::Sha384 => State::Sha384(keyed(key)),
            HashAlg::Sha512 => State::Sha512(keyed(key)),
        })
    }

    /// The hash inside.
    #[must_use]
    pub const fn alg(&self) -> HashAlg {
        match self.0 {
            State::Md5(_) => HashAlg::Md5,
            State::Sha1(_) => HashAlg::Sha1,
            State::Sha256(_) => HashAlg::Sha256,
            State::Sha384(_) => HashAlg::Sha384,
            State::Sha512(_) => HashAlg::Sha512,
        }
    }

    /// The MAC of the parts, one after the other.
    #[must_use]
    pub fn mac(&self, parts: &[&[u8]]) -> Digest {
        with_mac!(self, parts, out => Digest::new(&out))
    }

    /// Writes the MAC of the parts, cut to the length of `out`, which should not be longer than the MAC. For packets:
    /// unlike a [`Digest`], nothing is wiped, since a MAC that is sent is no secret.
    pub fn mac_into(&self, parts: &[&[u8]], out: &mut [u8]) {
        with_mac!(self, parts, mac => {
            for (to, from) in out.iter_mut().zip(mac) {
                *to = from;
            }
        });
    }

    /// Whether `tag` is the MAC of the parts, cut to the length of `tag`; in constant time.
    ///
    /// The caller decides how short a tag may be. An empty one never matches.
    #[must_use]
    pub fn verify(&self, parts: &[&[u8]], tag: &[u8]) -> bool {
        with_mac!(self, parts, mac => match mac.get(..tag.len()) {
            Some(expected) if !tag.is_empty() => expected.ct_eq(tag).into(),
            _ => false,
        })
    }
}

impl fmt::Debug for Hmac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hmac({})", self.alg())
    }
}

#[cfg(test)]
mod tests;
