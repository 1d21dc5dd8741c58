//! Handing a 32-byte key to somebody whose public key is known: the seal key to a controller that joins, the key of a
//! backup to its recipient.
//!
//! ```text
//! | format (1) = 1 | ephemeral public key (32) | AES-256-GCM ciphertext (32) | tag (16) |
//! ```
//!
//! X25519 (RFC 7748) of an ephemeral key made for this one message and the recipient's key; HKDF-SHA-256 (RFC 5869) of
//! the shared secret, with both public keys and the caller's context in `info`, gives the AES key and the nonce. The
//! context says what the key is handed over for (a cluster, a node, a backup): a message taken from one place opens in no
//! other. Who made the message is not proven here; the callers send it where that is known otherwise (mutual TLS), or
//! check what the key opens.

use core::fmt;

use ring::rand::SecureRandom;
use ring::{aead, hkdf};
use x25519_dalek::{PublicKey, SharedSecret, StaticSecret};
use zeroize::Zeroizing;

use super::{SealError, SealKey};

const FORMAT: u8 = 1;
const SALT: &[u8] = b"sallyport key wrap v1";
const PUBLIC_LEN: usize = 32;
const KEY_LEN: usize = 32;
const TAG_LEN: usize = 16;
/// Bytes of a wrapped key.
pub const WRAPPED_LEN: usize = 1 + PUBLIC_LEN + KEY_LEN + TAG_LEN;

/// The private half of a key pair to which keys are wrapped. Wiped when dropped, never printed.
pub struct RecipientKey(StaticSecret);

impl RecipientKey {
    /// A new key pair.
    pub fn generate(rng: &dyn SecureRandom) -> Result<Self, SealError> {
        let mut secret = Zeroizing::new([0; KEY_LEN]);
        rng.fill(&mut *secret).map_err(|_| SealError::Random)?;
        Ok(Self::from_bytes(&secret))
    }

    /// The key pair of these private bytes; the caller wipes its copy.
    pub fn from_bytes(secret: &[u8; KEY_LEN]) -> Self {
        Self(StaticSecret::from(*secret))
    }

    /// The private bytes, to be stored.
    pub fn to_bytes(&self) -> Zeroizing<[u8; KEY_LEN]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half, which others wrap to.
    pub fn public(&self) -> [u8; PUBLIC_LEN] {
        PublicKey::from(&self.0).to_bytes()
    }

    /// Opens what [`wrap`] made for this key and the same context.
    pub fn unwrap(&self, wrapped: &[u8], context: &[u8]) -> Result<Zeroizing<[u8; KEY_LEN]>, SealError> {
        let (format, rest) = wrapped.split_first_chunk::<1>().ok_or(SealError::Format)?;
        let (ephemeral, sealed) = rest.split_first_chunk::<PUBLIC_LEN>().ok_or(SealError::Format)?;
        if *format != [FORMAT] || sealed.len() != KEY_LEN + TAG_LEN {
            return Err(SealError::Format);
        }
        let shared = self.0.diffie_hellman(&PublicKey::from(*ephemeral));
        let (key, nonce) = derive(&shared, ephemeral, &self.public(), context)?;
        let mut body = Zeroizing::new([0; KEY_LEN + TAG_LEN]);
        body.copy_from_slice(sealed);
        let opened = key.open_in_place(nonce, aead::Aad::from([FORMAT]), &mut *body).map_err(|_| SealError::Altered)?;
        let mut secret = Zeroizing::new([0; KEY_LEN]);
        secret.copy_from_slice(opened);
        Ok(secret)
    }
}

impl fmt::Debug for RecipientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecipientKey(..)")
    }
}

/// Wraps 32 secret bytes so that only the owner of `recipient` can open them, and only with the same `context`.
pub fn wrap(
    secret: &[u8; KEY_LEN],
    recipient: &[u8; PUBLIC_LEN],
    context: &[u8],
    rng: &dyn SecureRandom,
) -> Result<Vec<u8>, SealError> {
    let ephemeral = RecipientKey::generate(rng)?;
    let public = ephemeral.public();
    let shared = ephemeral.0.diffie_hellman(&PublicKey::from(*recipient));
    let (key, nonce) = derive(&shared, &public, recipient, context)?;
    let mut body = Zeroizing::new(*secret);
    let tag =
        key.seal_in_place_separate_tag(nonce, aead::Aad::from([FORMAT]), &mut *body).map_err(|_| SealError::Format)?;
    let mut out = Vec::with_capacity(WRAPPED_LEN);
    out.push(FORMAT);
    out.extend_from_slice(&public);
    out.extend_from_slice(&*body);
    out.extend_from_slice(tag.as_ref());
    Ok(out)
}

/// The AES key and the nonce of one message. The key is used once, so that the nonce may follow from the same secret.
fn derive(
    shared: &SharedSecret,
    ephemeral: &[u8; PUBLIC_LEN],
    recipient: &[u8; PUBLIC_LEN],
    context: &[u8],
) -> Result<(aead::LessSafeKey, aead::Nonce), SealError> {
    struct Len;
    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            KEY_LEN + aead::NONCE_LEN
        }
    }
    // A point of small order gives a secret that everybody knows: RFC 7748 §6.1.
    if !shared.was_contributory() {
        return Err(SealError::Format);
    }
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(shared.as_bytes());
    let mut okm = Zeroizing::new([0; KEY_LEN + aead::NONCE_LEN]);
    let info = [ephemeral.as_slice(), recipient, context];
    prk.expand(&info, Len).and_then(|o| o.fill(&mut *okm)).map_err(|_| SealError::Format)?;
    let (key, nonce) = okm.split_at(KEY_LEN);
    let key = aead::UnboundKey::new(&aead::AES_256_GCM, key).map_err(|_| SealError::Format)?;
    let nonce = aead::Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Format)?;
    Ok((aead::LessSafeKey::new(key), nonce))
}

/// The side of a controller that joins: a key pair for one exchange.
#[derive(Debug)]
pub struct JoinKey(RecipientKey);

impl JoinKey {
    /// A new key pair, and its public half to be sent to a member of the cluster.
    pub fn generate(rng: &dyn SecureRandom) -> Result<(Self, [u8; PUBLIC_LEN]), SealError> {
        let key = RecipientKey::generate(rng)?;
        let public = key.public();
        Ok((Self(key), public))
    }

    /// Opens the answer of the member, which named the same context; the key pair is spent.
    pub fn unwrap(self, wrapped: &[u8], context: &[u8]) -> Result<SealKey, SealError> {
        Ok(SealKey::from_bytes(&*self.0.unwrap(wrapped, context)?))
    }
}

impl SealKey {
    /// Wraps this key to the public key of a controller that joins; [`JoinKey::unwrap`] opens it.
    pub fn wrap_for(
        &self,
        recipient: &[u8; PUBLIC_LEN],
        context: &[u8],
        rng: &dyn SecureRandom,
    ) -> Result<Vec<u8>, SealError> {
        wrap(&self.0, recipient, context, rng)
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;
    use ring::rand::SystemRandom;

    use super::*;

    const CONTEXT: &[u8] = b"cluster 1, node 2";

    fn seal_key() -> SealKey {
        SealKey::from_bytes(&[7; 32])
    }

    /// RFC 7748 §6.1: Bob's side.
    #[test]
    fn the_key_agreement_is_x25519() {
        let bob = RecipientKey::from_bytes(&hex!("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"));
        assert_eq!(bob.public(), hex!("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
        let alice = hex!("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
        let shared = bob.0.diffie_hellman(&PublicKey::from(alice));
        assert_eq!(shared.to_bytes(), hex!("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"));
    }

    #[test]
    fn a_joining_controller_gets_the_seal_key() {
        let rng = SystemRandom::new();
        let (join, public) = JoinKey::generate(&rng).unwrap();
        let wrapped = seal_key().wrap_for(&public, CONTEXT, &rng).unwrap();
        assert_eq!(wrapped.len(), WRAPPED_LEN);
        assert!(!wrapped.windows(32).any(|w| w == [7; 32]));
        assert_eq!(join.unwrap(&wrapped, CONTEXT).unwrap().id(), seal_key().id());
    }

    #[test]
    fn it_opens_for_nobody_else_and_nowhere_else() {
        let rng = SystemRandom::new();
        let key = RecipientKey::generate(&rng).unwrap();
        let wrapped = seal_key().wrap_for(&key.public(), CONTEXT, &rng).unwrap();
        let again = RecipientKey::from_bytes(&key.to_bytes());
        assert_eq!(*again.unwrap(&wrapped, CONTEXT).unwrap(), [7; 32]);
        assert_eq!(key.unwrap(&wrapped, b"cluster 1, node 3").unwrap_err(), SealError::Altered);
        let other = RecipientKey::generate(&rng).unwrap();
        assert_eq!(other.unwrap(&wrapped, CONTEXT).unwrap_err(), SealError::Altered);
        assert_ne!(wrapped, seal_key().wrap_for(&key.public(), CONTEXT, &rng).unwrap());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let rng = SystemRandom::new();
        let key = RecipientKey::generate(&rng).unwrap();
        let wrapped = seal_key().wrap_for(&key.public(), CONTEXT, &rng).unwrap();
        for bit in 0..wrapped.len() * 8 {
            // RFC 7748 §5: the highest bit of a coordinate is ignored, but here it is in the key derivation.
            let mut bad = wrapped.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(key.unwrap(&bad, CONTEXT).is_err(), "bit {bit}");
        }
        for n in 0..wrapped.len() {
            assert!(key.unwrap(&wrapped[..n], CONTEXT).is_err(), "{n} bytes");
        }
    }

    #[test]
    fn a_point_of_small_order_is_refused() {
        let rng = SystemRandom::new();
        assert_eq!(seal_key().wrap_for(&[0; 32], CONTEXT, &rng).unwrap_err(), SealError::Format);
        let mut one = [0; 32];
        one[0] = 1;
        assert_eq!(seal_key().wrap_for(&one, CONTEXT, &rng).unwrap_err(), SealError::Format);
    }

    #[test]
    fn debug_output_holds_no_secret() {
        assert_eq!(format!("{:?}", RecipientKey::from_bytes(&[1; 32])), "RecipientKey(..)");
    }
}
