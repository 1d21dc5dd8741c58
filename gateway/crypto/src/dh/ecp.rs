//! ECP groups: RFC 5903.

use p256::elliptic_curve::Generate;
use zeroize::Zeroizing;

use super::DhError;
use crate::Rng;

/// First byte of an uncompressed point (SEC 1 §2.3.3), which IKE leaves out.
const UNCOMPRESSED: u8 = 4;

macro_rules! ecp_group {
    ($curve:ident, $generate:ident, $agree:ident, $sec1_len:literal) => {
        pub(super) fn $generate(rng: &mut Rng) -> (Zeroizing<Vec<u8>>, Vec<u8>) {
            let secret = $curve::SecretKey::generate_from_rng(rng);
            let sec1 = secret.public_key().to_sec1_bytes();
            let mut scalar = secret.to_bytes();
            let private = Zeroizing::new(scalar.to_vec());
            zeroize::Zeroize::zeroize(&mut scalar);
            (private, sec1.get(1..).unwrap_or_default().to_vec())
        }

        /// `peer` is x ‖ y. The library checks that the point is on the curve; the curve's cofactor is one, so there
        /// is no small subgroup, and x ‖ y cannot name the point at infinity.
        pub(super) fn $agree(private: &[u8], peer: &[u8]) -> Result<Zeroizing<Vec<u8>>, DhError> {
            let mut sec1 = [0; $sec1_len];
            let (tag, point) = sec1.split_at_mut(1);
            tag.fill(UNCOMPRESSED);
            for (to, from) in point.iter_mut().zip(peer) {
                *to = *from;
            }
            let peer = $curve::PublicKey::from_sec1_bytes(&sec1).map_err(|_| DhError::NotOnCurve)?;
            let secret = $curve::SecretKey::from_slice(private).map_err(|_| DhError::OutOfRange)?;
            Ok(Zeroizing::new(secret.diffie_hellman(&peer).raw_secret_bytes().to_vec()))
        }
    };
}

ecp_group!(p256, p256_generate, p256_agree, 65);
ecp_group!(p384, p384_generate, p384_agree, 97);
