//! Key pairs whose private halves never leave the token. They are found by their CKA_ID.

use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use ring::digest;
use sallyport_ca::{KeyAlgorithm, PublicKey};

use crate::{Problem, Trouble};

/// The named curves as CKA_EC_PARAMS has them: an object identifier in DER (RFC 5480 §2.1.1.1).
const P256: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P384: &[u8] = &[6, 5, 0x2b, 0x81, 4, 0, 34];
/// F4, the exponent of RSA.
const EXPONENT: &[u8] = &[1, 0, 1];

/// How a message is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// As certificates are: ECDSA over the hash of the curve, in DER, or RSA with PKCS #1 v1.5 over SHA-256.
    Certificates,
    /// RSASSA-PSS over SHA-256 with a salt of 32 octets, which TLS 1.3 wants of RSA keys.
    RsaPss,
}

/// Makes a pair in the token and gives its public half.
pub fn generate(session: &Session, algorithm: KeyAlgorithm, id: &[u8], label: &str) -> Result<PublicKey, Problem> {
    let named = [Attribute::Token(true), Attribute::Id(id.to_vec()), Attribute::Label(label.as_bytes().to_vec())];
    let mut public = named.to_vec();
    public.extend([Attribute::Private(false), Attribute::Verify(true)]);
    let mut private = named.to_vec();
    private.extend([
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
    ]);
    let rsa = |bits: u64| {
        let modulus = Attribute::ModulusBits(bits.into());
        (Mechanism::RsaPkcsKeyPairGen, vec![modulus, Attribute::PublicExponent(EXPONENT.to_vec())])
    };
    let (mechanism, kind) = match algorithm {
        KeyAlgorithm::EcdsaP256 => (Mechanism::EccKeyPairGen, vec![Attribute::EcParams(P256.to_vec())]),
        KeyAlgorithm::EcdsaP384 => (Mechanism::EccKeyPairGen, vec![Attribute::EcParams(P384.to_vec())]),
        KeyAlgorithm::Rsa2048 => rsa(2048),
        KeyAlgorithm::Rsa3072 => rsa(3072),
        KeyAlgorithm::Rsa4096 => rsa(4096),
    };
    public.extend(kind);
    let (public, _) = session.generate_key_pair(&mechanism, &public, &private)?;
    read(session, public)
}

/// The public key of an object.
fn read(session: &Session, object: ObjectHandle) -> Result<PublicKey, Problem> {
    let wanted = [
        AttributeType::EcParams,
        AttributeType::EcPoint,
        AttributeType::Modulus,
        AttributeType::PublicExponent,
        AttributeType::KeyType,
    ];
    let (mut curve, mut point, mut modulus, mut exponent, mut kind) = (None, None, None, None, None);
    for attribute in session.get_attributes(object, &wanted)? {
        match attribute {
            Attribute::EcParams(value) => curve = Some(value),
            Attribute::EcPoint(value) => point = Some(value),
            Attribute::Modulus(value) => modulus = Some(value),
            Attribute::PublicExponent(value) => exponent = Some(value),
            Attribute::KeyType(value) => kind = Some(value),
            _ => {}
        }
    }
    let key = match (kind, curve, point, modulus, exponent) {
        (Some(KeyType::RSA), _, _, Some(modulus), Some(exponent)) => PublicKey::from_rsa(&modulus, &exponent)?,
        (Some(KeyType::EC), Some(curve), Some(point), ..) => PublicKey::from_ec(&curve, bare_point(&point))?,
        _ => return Err(Problem::new(Trouble::CannotDo, "the token does not show the public key that it made")),
    };
    Ok(key)
}

/// PKCS #11 v2.40 §2.3.3 has the point in an OCTET STRING; some tokens leave that out.
fn bare_point(point: &[u8]) -> &[u8] {
    match point {
        [4, len, bare @ ..] if usize::from(*len) == bare.len() && bare.first() == Some(&4) => bare,
        _ => point,
    }
}

fn find(session: &Session, class: ObjectClass, id: &[u8]) -> Result<Option<ObjectHandle>, Problem> {
    let found = session.find_objects(&[Attribute::Class(class), Attribute::Id(id.to_vec())])?;
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        many => Err(Problem::new(Trouble::Several, format!("{} keys of the token have the same id", many.len()))),
    }
}

/// Signs a message by the private key of this id.
pub fn sign(
    session: &Session,
    id: &[u8],
    algorithm: KeyAlgorithm,
    scheme: Scheme,
    message: &[u8],
) -> Result<Vec<u8>, Problem> {
    let key = find(session, ObjectClass::PRIVATE_KEY, id)?;
    let key = key.ok_or_else(|| Problem::new(Trouble::NoKey, "the private key is no longer in the token"))?;
    let ecdsa = |hash: &'static digest::Algorithm| {
        // The token is given the hash: few know ECDSA with one of their own.
        let signature = session.sign(&Mechanism::Ecdsa, key, digest::digest(hash, message).as_ref())?;
        Ok(sallyport_ca::ecdsa_der(&signature)?)
    };
    match (algorithm, scheme) {
        (KeyAlgorithm::EcdsaP256, Scheme::Certificates) => ecdsa(&digest::SHA256),
        (KeyAlgorithm::EcdsaP384, Scheme::Certificates) => ecdsa(&digest::SHA384),
        (_, Scheme::Certificates) => Ok(session.sign(&Mechanism::Sha256RsaPkcs, key, message)?),
        (KeyAlgorithm::EcdsaP256 | KeyAlgorithm::EcdsaP384, Scheme::RsaPss) => {
            Err(Problem::new(Trouble::CannotDo, "an ECDSA key makes no signature of RSA"))
        }
        (_, Scheme::RsaPss) => {
            let (hash_alg, mgf) = (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256);
            let pss = PkcsPssParams { hash_alg, mgf, s_len: 32.into() };
            Ok(session.sign(&Mechanism::Sha256RsaPkcsPss(pss), key, message)?)
        }
    }
}

/// Removes the pair of this id; what is not there is no failure.
pub fn destroy(session: &Session, id: &[u8]) -> Result<(), Problem> {
    for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
        if let Some(object) = find(session, class, id)? {
            session.destroy_object(object)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_read_with_its_octet_string_and_without() {
        let bare: Vec<u8> = [vec![4], vec![7; 64]].concat();
        let wrapped = [vec![4, 65], bare.clone()].concat();
        assert_eq!((bare_point(&bare), bare_point(&wrapped)), (&*bare, &*bare));
        assert_eq!(bare_point(&[]), &[] as &[u8]);
    }
}
