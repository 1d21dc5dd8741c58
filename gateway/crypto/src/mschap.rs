//! MS-CHAPv2 (RFC 2759) and CHAP with MD5 (RFC 1994).
//!
//! MD4 and DES are broken, and the NT hash is as good as the password. What protects an MS-CHAPv2 exchange is the
//! ESP SA that it runs in.

use core::fmt;

use cipher::{BlockCipherEncrypt, KeyInit};
use md4::Md4;
use md5::Md5;
use sha1::Sha1;
use sha2::Digest as _;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::ct_eq;

/// Longest password in UTF-16 code units (RFC 2759 §8, "0-to-256-unicode-char Password").
pub const MAX_PASSWORD_UNITS: usize = 256;

/// MD4 of the password in UTF-16: whoever has it needs no password. Wiped on drop, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct NtHash([u8; 16]);

impl NtHash {
    /// A hash from storage.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes, for sealed storage.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl PartialEq for NtHash {
    fn eq(&self, other: &Self) -> bool {
        ct_eq(&self.0, &other.0)
    }
}

impl Eq for NtHash {}

impl fmt::Debug for NtHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NtHash")
    }
}

/// NtPasswordHash, RFC 2759 §8.3. A password beyond [`MAX_PASSWORD_UNITS`] is cut there, as it is on the wire.
#[must_use]
pub fn nt_password_hash(password: &str) -> NtHash {
    let mut utf16 = Zeroizing::new(Vec::with_capacity(MAX_PASSWORD_UNITS * 2));
    for unit in password.encode_utf16().take(MAX_PASSWORD_UNITS) {
        utf16.extend_from_slice(&unit.to_le_bytes());
    }
    NtHash(Md4::digest(&*utf16).into())
}

/// HashNtPasswordHash, RFC 2759 §8.4: proves knowledge of the hash without showing it.
#[must_use]
pub fn hash_nt_password_hash(nt_hash: &NtHash) -> Zeroizing<[u8; 16]> {
    Zeroizing::new(Md4::digest(nt_hash.0).into())
}

/// The user name as it enters the hashes: without a Windows domain in front (RFC 2759 §4, `DOMAIN\user`).
#[must_use]
pub fn name_without_domain(user: &str) -> &str {
    user.rsplit_once('\\').map_or(user, |(_, name)| name)
}

/// ChallengeHash, RFC 2759 §8.2. `user` is the name without the domain ([`name_without_domain`]).
#[must_use]
pub fn challenge_hash(
    peer_challenge: &[u8; 16],
    authenticator_challenge: &[u8; 16],
    user: impl AsRef<[u8]>,
) -> [u8; 8] {
    let mut h = Sha1::new();
    h.update(peer_challenge);
    h.update(authenticator_challenge);
    h.update(user.as_ref());
    let digest: [u8; 20] = h.finalize().into();
    let mut out = [0; 8];
    for (to, from) in out.iter_mut().zip(digest) {
        *to = from;
    }
    out
}

/// ChallengeResponse, RFC 2759 §8.5: the challenge under three DES keys cut from the hash.
#[must_use]
pub fn challenge_response(challenge: &[u8; 8], nt_hash: &NtHash) -> [u8; 24] {
    let mut padded = Zeroizing::new([0u8; 21]);
    for (to, from) in padded.iter_mut().zip(nt_hash.0) {
        *to = from;
    }
    let (keys, _) = padded.as_chunks::<7>();
    let mut out = [0; 24];
    let (blocks, _) = out.as_chunks_mut::<8>();
    for (key, block) in keys.iter().zip(blocks) {
        *block = des_encrypt(key, *challenge);
    }
    out
}

/// DesEncrypt, RFC 2759 §8.6: seven key bytes are spread over eight, the low bit of each is parity and ignored.
fn des_encrypt(key: &[u8; 7], clear: [u8; 8]) -> [u8; 8] {
    let bits = key.iter().fold(0u64, |acc, b| acc << 8 | u64::from(*b));
    let mut des_key = Zeroizing::new([0u8; 8]);
    for (i, to) in des_key.iter_mut().enumerate() {
        *to = (bits >> (49 - 7 * i) & 0x7f) as u8 * 2;
    }
    let mut block = clear.into();
    des::Des::new((&*des_key).into()).encrypt_block(&mut block);
    block.into()
}

/// GenerateNTResponse, RFC 2759 §8.1. `user` is the name without the domain.
#[must_use]
pub fn generate_nt_response(
    authenticator_challenge: &[u8; 16],
    peer_challenge: &[u8; 16],
    user: impl AsRef<[u8]>,
    password: &str,
) -> [u8; 24] {
    nt_response(authenticator_challenge, peer_challenge, user, &nt_password_hash(password))
}

/// The same from the stored hash, for the side that has no password.
#[must_use]
pub fn nt_response(
    authenticator_challenge: &[u8; 16],
    peer_challenge: &[u8; 16],
    user: impl AsRef<[u8]>,
    nt_hash: &NtHash,
) -> [u8; 24] {
    challenge_response(&challenge_hash(peer_challenge, authenticator_challenge, user), nt_hash)
}

/// Whether `response` proves the password whose hash is given; in constant time.
#[must_use]
pub fn check_nt_response(
    authenticator_challenge: &[u8; 16],
    peer_challenge: &[u8; 16],
    user: impl AsRef<[u8]>,
    nt_hash: &NtHash,
    response: &[u8; 24],
) -> bool {
    ct_eq(&nt_response(authenticator_challenge, peer_challenge, user, nt_hash), response)
}

/// "Magic server to client signing constant", RFC 2759 §8.7.
const MAGIC1: &[u8; 39] = b"Magic server to client signing constant";
/// "Pad to make it do more than one iteration", RFC 2759 §8.7.
const MAGIC2: &[u8; 41] = b"Pad to make it do more than one iteration";

/// GenerateAuthenticatorResponse, RFC 2759 §8.7: `S=` and 40 upper-case hexadecimal digits, by which the client sees
/// that the server knows the password, too. `user` is the name without the domain.
#[must_use]
pub fn generate_authenticator_response(
    nt_hash: &NtHash,
    nt_response: &[u8; 24],
    peer_challenge: &[u8; 16],
    authenticator_challenge: &[u8; 16],
    user: impl AsRef<[u8]>,
) -> String {
    let mut h = Sha1::new();
    h.update(*hash_nt_password_hash(nt_hash));
    h.update(nt_response);
    h.update(MAGIC1);
    let digest = h.finalize();

    let mut h = Sha1::new();
    h.update(digest);
    h.update(challenge_hash(peer_challenge, authenticator_challenge, user));
    h.update(MAGIC2);

    h.finalize().iter().fold(String::from("S="), |mut s, b| {
        for nibble in [b >> 4, b & 0xf] {
            s.extend(char::from_digit(nibble.into(), 16).map(|c| c.to_ascii_uppercase()));
        }
        s
    })
}

/// CheckAuthenticatorResponse, RFC 2759 §8.8: the client's check of the server's proof, in constant time. Lower-case
/// digits are accepted, too.
#[must_use]
pub fn check_authenticator_response(
    nt_hash: &NtHash,
    nt_response: &[u8; 24],
    peer_challenge: &[u8; 16],
    authenticator_challenge: &[u8; 16],
    user: impl AsRef<[u8]>,
    received: &str,
) -> bool {
    let expected = generate_authenticator_response(nt_hash, nt_response, peer_challenge, authenticator_challenge, user);
    ct_eq(expected.as_bytes(), received.to_ascii_uppercase().as_bytes())
}

/// The response of CHAP with MD5, RFC 1994 §4.1: MD5 over identifier, secret and challenge.
#[must_use]
pub fn chap_md5(identifier: u8, secret: &[u8], challenge: &[u8]) -> [u8; 16] {
    let mut h = Md5::new();
    h.update([identifier]);
    h.update(secret);
    h.update(challenge);
    h.finalize().into()
}

#[cfg(test)]
mod tests;
