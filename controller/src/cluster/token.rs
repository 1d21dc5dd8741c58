//! The token that lets a node join: `sallyport1.` and, in base64url, `id (8) | secret (16) | SHA-256 of the root (32)`.
//!
//! The fingerprint lets the node know the cluster before it says the secret; the log keeps only a hash of the secret.

use base64ct::{Base64UrlUnpadded, Encoding};
use ring::digest;
use zeroize::Zeroizing;

use crate::error::Error;

const PREFIX: &str = "sallyport1.";
const ID: usize = 8;
const SECRET: usize = 16;
const FINGERPRINT: usize = 32;

/// A token.
#[derive(Clone)]
pub(crate) struct Token {
    /// Names it in the log.
    pub(crate) id: [u8; ID],
    /// Proves that it was given.
    pub(crate) secret: Zeroizing<[u8; SECRET]>,
    /// SHA-256 of the root certificate.
    pub(crate) root: [u8; FINGERPRINT],
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Token {
    /// As an operator carries it.
    pub(crate) fn to_text(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new([self.id.as_slice(), self.secret.as_slice(), self.root.as_slice()].concat());
        Zeroizing::new(format!("{PREFIX}{}", *Zeroizing::new(Base64UrlUnpadded::encode_string(&bytes))))
    }

    /// The reverse.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Refused("this is no token: copy all of what `sallyport cluster token` printed".into());
        let body = text.trim().strip_prefix(PREFIX).ok_or_else(wrong)?;
        let bytes = Zeroizing::new(Base64UrlUnpadded::decode_vec(body).map_err(|_| wrong())?);
        let (id, rest) = bytes.split_first_chunk::<ID>().ok_or_else(wrong)?;
        let (secret, root) = rest.split_first_chunk::<SECRET>().ok_or_else(wrong)?;
        let root = root.try_into().map_err(|_| wrong())?;
        Ok(Self { id: *id, secret: Zeroizing::new(*secret), root })
    }

    /// What the log keeps of a secret.
    pub(crate) fn hash(secret: &[u8]) -> Vec<u8> {
        digest::digest(&digest::SHA256, secret).as_ref().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_copying_and_nothing_else_is_one() {
        let token = Token { id: [1; 8], secret: Zeroizing::new([2; 16]), root: [3; 32] };
        let text = token.to_text();
        let again = Token::parse(&format!("  {}\n", *text)).expect("a token");
        assert_eq!((again.id, *again.secret, again.root), (token.id, *token.secret, token.root));
        assert!(!format!("{token:?}").contains("2, 2"));
        for wrong in ["", "sallyport1.", &text[1..], &text[..text.len() - 1], &format!("{}A", *text), "sallyport1.%%%"]
        {
            assert!(Token::parse(wrong).is_err(), "{wrong}");
        }
    }
}
