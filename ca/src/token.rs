//! The token by which a machine gets its first certificate: `spt1.` and, in base64url, `id (8) | secret (16) | SHA-256 of the
//! root (32) | HOST or HOST:PORT of the endpoint (UTF-8, may be empty)`.
//!
//! The fingerprint lets the machine know the endpoint before it says the secret; the log keeps only a hash of the secret.

use base64ct::{Base64UrlUnpadded, Encoding as _};
use ring::digest;
use ring::rand::SecureRandom;
use zeroize::Zeroizing;

use crate::Error;

const PREFIX: &str = "spt1.";
const ID: usize = 8;
const SECRET: usize = 16;
const FINGERPRINT: usize = 32;
/// The longest host name, a colon and a port.
const MAX_SERVER: usize = 253 + 1 + 5;

/// A token.
#[derive(Clone, PartialEq, Eq)]
pub struct EnrollToken {
    /// Names it in the log; no secret.
    pub id: [u8; ID],
    /// Proves that it was given.
    pub secret: Zeroizing<[u8; SECRET]>,
    /// SHA-256 of the root certificate.
    pub root: [u8; FINGERPRINT],
    /// HOST or HOST:PORT of the endpoint; empty where the machine is told otherwise.
    pub server: String,
}

impl core::fmt::Debug for EnrollToken {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("EnrollToken").field("id", &self.id).field("server", &self.server).finish_non_exhaustive()
    }
}

impl EnrollToken {
    /// A new one.
    pub fn generate(root: [u8; FINGERPRINT], server: &str, rng: &dyn SecureRandom) -> Result<Self, Error> {
        let (mut id, mut secret) = ([0; ID], Zeroizing::new([0; SECRET]));
        let failed = |_| Error::Crypto("no random numbers");
        rng.fill(&mut id).map_err(failed)?;
        rng.fill(secret.as_mut_slice()).map_err(failed)?;
        Ok(Self { id, secret, root, server: server.to_owned() })
    }

    /// As a person carries it.
    pub fn to_text(&self) -> Zeroizing<String> {
        let parts = [self.id.as_slice(), self.secret.as_slice(), self.root.as_slice(), self.server.as_bytes()];
        let bytes = Zeroizing::new(parts.concat());
        Zeroizing::new(format!("{PREFIX}{}", *Zeroizing::new(Base64UrlUnpadded::encode_string(&bytes))))
    }

    /// The reverse. The error says nothing of what was given: it may be most of a secret.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Token("this is no token: copy all of what `sallyport token create` printed");
        let body = text.trim().strip_prefix(PREFIX).ok_or_else(wrong)?;
        if body.len() > (ID + SECRET + FINGERPRINT + MAX_SERVER).div_ceil(3) * 4 {
            return Err(wrong());
        }
        let bytes = Zeroizing::new(Base64UrlUnpadded::decode_vec(body).map_err(|_| wrong())?);
        let (id, rest) = bytes.split_first_chunk::<ID>().ok_or_else(wrong)?;
        let (secret, rest) = rest.split_first_chunk::<SECRET>().ok_or_else(wrong)?;
        let (root, server) = rest.split_first_chunk::<FINGERPRINT>().ok_or_else(wrong)?;
        let server = core::str::from_utf8(server).map_err(|_| wrong())?;
        if server.len() > MAX_SERVER || server.bytes().any(|b| b.is_ascii_control() || b == b' ') {
            return Err(wrong());
        }
        Ok(Self { id: *id, secret: Zeroizing::new(*secret), root: *root, server: server.to_owned() })
    }

    /// What the log keeps of the secret.
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, self.secret.as_slice()).as_ref());
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_copying_and_nothing_else_is_one() {
        for server in ["", "vpn.example.com", "vpn.example.com:8443"] {
            let token = EnrollToken::generate([3; 32], server, &crate::SystemRandom::new()).unwrap();
            let text = token.to_text();
            assert_eq!(EnrollToken::parse(&format!("  {}\n", *text)).unwrap(), token);
            let other = EnrollToken::generate([3; 32], server, &crate::SystemRandom::new()).unwrap();
            assert_ne!((token.id, token.hash()), (other.id, other.hash()));
            for wrong in ["", "spt1.", &text[1..], &text[..60], &format!("{}=", *text), "spt1.%%%"] {
                assert!(EnrollToken::parse(wrong).is_err(), "{wrong}");
            }
            assert!(EnrollToken::parse(&format!("spt1.{}", "A".repeat(1_000))).is_err());
        }
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let mut token = EnrollToken::generate([3; 32], "", &crate::SystemRandom::new()).unwrap();
        token.secret = Zeroizing::new([0xa7; 16]);
        assert!(!format!("{token:?}").contains(&format!("{}", 0xa7)));
    }
}
