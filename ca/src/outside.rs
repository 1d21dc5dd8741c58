//! Keys whose private halves are elsewhere, in a token or a TPM: their public halves from what the token says of them, and
//! requests that are signed there.

use crate::der::{self, BIT_STRING, CONTEXT_0, OID, SEQUENCE};
use crate::key::{OID_EC, OID_RSA};
use crate::name::check_attribute;
use crate::{Error, PublicKey, request};

impl PublicKey {
    /// An RSA key of this modulus and exponent, big-endian.
    pub fn from_rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, Error> {
        let key = der::encode(SEQUENCE, &[&der::unsigned(modulus), &der::unsigned(exponent)]);
        Self::of(&der::algorithm(OID_RSA, der::NULL), &key)
    }

    /// A key on this curve (the DER of its object identifier) with this point (SEC 1 §2.3.3, uncompressed).
    pub fn from_ec(curve: &[u8], point: &[u8]) -> Result<Self, Error> {
        let curve = der::only(curve, OID).ok_or(Error::PublicKey("the curve is not named"))?;
        Self::of(&der::algorithm(OID_EC, curve.whole), point)
    }

    fn of(algorithm: &[u8], key: &[u8]) -> Result<Self, Error> {
        Self::from_spki_der(&der::encode(SEQUENCE, &[algorithm, &der::encode(BIT_STRING, &[&[0], key])]))
    }

    /// A request for this key in DER, `CN=common_name`. Whoever has the private half signs as certificates are signed
    /// ([`crate::KeyPair::sign`]).
    pub fn request<E: From<Error>>(
        &self,
        common_name: &str,
        sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, E> {
        check_attribute(common_name, "common name of 1 to 64 printable characters").map_err(Error::from)?;
        let attributes = der::encode(CONTEXT_0, &[]);
        let info = [&der::integer(0), &request::name(common_name), self.spki_der(), &attributes];
        let info = der::encode(SEQUENCE, &info);
        let signature = der::encode(BIT_STRING, &[&[0], &sign(&info)?]);
        Ok(der::encode(SEQUENCE, &[&info, &self.signature_algorithm_der(), &signature]))
    }
}

/// An ECDSA signature as certificates and TLS have it (RFC 3279 §2.2.3), of r and s in equal width.
pub fn ecdsa_der(signature: &[u8]) -> Result<Vec<u8>, Error> {
    let half = signature.len() / 2;
    match signature.split_at_checked(half) {
        Some((r, s)) if half > 0 && r.len() == s.len() => {
            Ok(der::encode(SEQUENCE, &[&der::unsigned(r), &der::unsigned(s)]))
        }
        _ => Err(Error::Crypto("this is no signature of ECDSA")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KeyAlgorithm, KeyPair, SystemRandom};

    #[test]
    fn a_request_that_is_signed_elsewhere_is_one_like_ours() {
        let rng = SystemRandom::new();
        for algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384, KeyAlgorithm::Rsa2048] {
            let key = KeyPair::generate(algorithm, &rng).unwrap();
            let public = key.public_key();
            let csr = public.request("laptop7", |info| key.sign(info, &rng)).unwrap();
            assert_eq!(PublicKey::from_csr_der(&csr).unwrap(), public);
            assert_eq!(crate::claimed_name(&csr), "CN=laptop7");
            let refused: Result<_, Error> = public.request("a\nb", |_| panic!("nothing to sign"));
            assert!(refused.is_err());
        }
    }

    #[test]
    fn what_a_token_shows_makes_the_same_key() {
        use x509_parser::prelude::FromDer as _;
        use x509_parser::public_key::PublicKey as Parsed;
        use x509_parser::x509::SubjectPublicKeyInfo;
        let key = KeyPair::generate(KeyAlgorithm::EcdsaP384, &SystemRandom::new()).unwrap().public_key();
        let curve = der::oid(crate::key::OID_P384);
        assert_eq!(PublicKey::from_ec(&curve, &key.key_bits()).unwrap(), key);
        assert!(PublicKey::from_ec(&curve[1..], &key.key_bits()).is_err());
        let key = KeyPair::generate(KeyAlgorithm::Rsa2048, &SystemRandom::new()).unwrap().public_key();
        let (_, spki) = SubjectPublicKeyInfo::from_der(key.spki_der()).unwrap();
        let Ok(Parsed::RSA(rsa)) = spki.parsed() else { panic!("RSA") };
        assert_eq!(PublicKey::from_rsa(rsa.modulus, rsa.exponent).unwrap(), key);
    }

    #[test]
    fn a_signature_is_two_integers() {
        assert_eq!(ecdsa_der(&[0, 1, 0x80, 0]).unwrap(), [0x30, 8, 2, 1, 1, 2, 3, 0, 0x80, 0]);
        assert!(ecdsa_der(&[]).is_err() && ecdsa_der(&[1, 2, 3]).is_err());
    }
}
