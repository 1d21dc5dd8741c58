//! SignedData with one signer (RFC 5652 §5).

use core::fmt;

use ring::rand::SecureRandom;

use super::{Identifier, certificate_list, public_key, read, signed_data, signed_fields};
use crate::der::{self, CONTEXT_0, CONTEXT_1, Der, INTEGER, OCTET_STRING, OID, SEQUENCE, SET};
use crate::hash::Hash as Digest;
use crate::key::OID_RSA;
use crate::{Error, KeyPair};

/// contentType and messageDigest, 1.2.840.113549.1.9.{3, 4} (RFC 5652 §11).
const CONTENT_TYPE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 3];
const MESSAGE_DIGEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 4];
/// Most signed attributes that are read: SCEP has eight.
const MAX_ATTRIBUTES: usize = 32;

/// A signed attribute with one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// The content of its OID.
    pub oid: Vec<u8>,
    /// Its value, an encoded element.
    pub value: Vec<u8>,
}

/// A message whose signature is good. Whether its signer may be trusted is another question.
#[derive(Clone, PartialEq, Eq)]
pub struct Signed {
    /// What was signed.
    pub content: Vec<u8>,
    /// The signer's certificate in DER: one of those in the message.
    pub signer: Vec<u8>,
    /// All certificates in the message, in DER.
    pub certificates: Vec<Vec<u8>>,
    /// What is signed beside the content, without contentType and messageDigest.
    pub attributes: Vec<Attribute>,
    /// The hash of the signature.
    pub digest: Digest,
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed")
            .field("digest", &self.digest)
            .field("octets", &self.content.len())
            .finish_non_exhaustive()
    }
}

/// `SignerInfo`, RFC 5652 §5.3.
struct SignerInfo<'a> {
    identifier: Identifier,
    hash: &'a [u8],
    /// The content of `[0]`; its signature is over the same as a SET.
    attributes: Option<&'a [u8]>,
    algorithm: &'a [u8],
    signature: &'a [u8],
}

fn signer_info<'a>(signers: &mut Der<'a>) -> Option<SignerInfo<'a>> {
    let mut info = signers.enter(SEQUENCE)?;
    info.expect(INTEGER)?;
    let identifier = Identifier::parse(&mut info)?;
    let hash = info.enter(SEQUENCE)?.expect(OID)?.content;
    let attributes = info.take_if(CONTEXT_0).map(|a| a.content);
    let algorithm = info.enter(SEQUENCE)?.expect(OID)?.content;
    let signature = info.expect(OCTET_STRING)?.content;
    info.take_if(CONTEXT_1); // unsigned attributes
    info.is_empty().then_some(SignerInfo { identifier, hash, attributes, algorithm, signature })
}

impl Signed {
    /// Reads a message with its content and its signer's certificate inside, and verifies the one signature.
    pub fn verify(message: &[u8]) -> Result<Self, Error> {
        const BAD: fn(&'static str) -> Error = Error::Message;
        let message = read(message)?;
        let mut fields = signed_fields(&message).ok_or(BAD("not a PKCS #7 SignedData"))?;
        // An answer without content signs its attributes, and the hash of nothing.
        let content = fields.content.unwrap_or_default();
        let info = signer_info(&mut fields.signers).ok_or(BAD("its signer cannot be read"))?;
        if !fields.signers.is_empty() {
            return Err(BAD("it has more than one signer"));
        }
        let hash = Digest::from_oid(info.hash).ok_or(BAD("signed over a hash that is not accepted; use SHA-256"))?;
        let certificates = certificate_list(fields.certificates)?;
        let signer = certificates.iter().find(|c| info.identifier.names(c));
        let signer = *signer.ok_or(BAD("the certificate of its signer is not in it"))?;
        let key = public_key(signer)?;
        let (attributes, signed) = match info.attributes {
            Some(content_of_set) => {
                let attributes = attributes(content_of_set).ok_or(BAD("its signed attributes cannot be read"))?;
                let value = |oid: &[u8]| attributes.iter().find(|a| a.oid == oid).map(|a| a.value.as_slice());
                if value(CONTENT_TYPE) != Some(&der::oid(fields.content_type)) {
                    return Err(BAD("the type of its content is not the signed one"));
                }
                if value(MESSAGE_DIGEST) != Some(&der::encode(OCTET_STRING, &[&hash.digest(content)])) {
                    let detached = fields.content.is_none();
                    return Err(BAD(if detached {
                        "what it signs is not in it"
                    } else {
                        "its content is not what was signed"
                    }));
                }
                (attributes, der::encode(SET, &[content_of_set]))
            }
            None if fields.content.is_none() => return Err(BAD("what it signs is not in it")),
            None if fields.content_type != super::ID_DATA => return Err(BAD("its signed attributes are missing")),
            None => (Vec::new(), content.to_vec()),
        };
        if !hash.verifies(&key, info.algorithm, &signed, info.signature) {
            return Err(BAD("its signature is not good"));
        }
        let others = attributes.into_iter().filter(|a| a.oid != CONTENT_TYPE && a.oid != MESSAGE_DIGEST);
        Ok(Self {
            content: content.to_vec(),
            signer: signer.to_vec(),
            certificates: certificates.iter().map(|c| c.to_vec()).collect(),
            attributes: others.collect(),
            digest: hash,
        })
    }

    /// The value of the signed attribute with this OID, an encoded element.
    pub fn attribute(&self, oid: &[u8]) -> Option<&[u8]> {
        self.attributes.iter().find(|a| a.oid == oid).map(|a| a.value.as_slice())
    }
}

/// Attributes, each there once and with one value.
fn attributes(content: &[u8]) -> Option<Vec<Attribute>> {
    let (mut der, mut out) = (Der::new(content), Vec::<Attribute>::new());
    while !der.is_empty() {
        let mut attribute = der.enter(SEQUENCE)?;
        let oid = attribute.expect(OID)?.content;
        let mut values = attribute.enter(SET)?;
        let value = values.next()?.whole;
        let single = values.is_empty() && attribute.is_empty() && out.iter().all(|a| a.oid != oid);
        if !single || out.len() >= MAX_ATTRIBUTES {
            return None;
        }
        out.push(Attribute { oid: oid.to_vec(), value: value.to_vec() });
    }
    Some(out)
}

/// A message with `content` (of type data), signed with `key`, which belongs to `certificate` (DER); `others` go with it. With RSA
/// any hash but SHA-1 does; ECDSA takes the one of its curve, whatever is said here.
pub fn sign<C: AsRef<[u8]>>(
    content: &[u8],
    attributes: &[Attribute],
    key: &KeyPair,
    certificate: &[u8],
    others: &[C],
    digest: Digest,
    rng: &dyn SecureRandom,
) -> Result<Vec<u8>, Error> {
    let public = key.public_key();
    let is_rsa = public.algorithm().is_rsa();
    let hash = if is_rsa { digest } else { public.hash() };
    let encoded = |oid: &[u8], value: &[u8]| der::encode(SEQUENCE, &[&der::oid(oid), &der::encode(SET, &[value])]);
    let mut list = vec![
        encoded(CONTENT_TYPE, &der::oid(super::ID_DATA)),
        encoded(MESSAGE_DIGEST, &der::encode(OCTET_STRING, &[&hash.digest(content)])),
    ];
    list.extend(attributes.iter().map(|a| encoded(&a.oid, &a.value)));
    let set = der::set_of(SET, list);
    let signature = key.sign_with(hash, &set, rng)?;
    let implicit = [&[CONTEXT_0], set.get(1..).unwrap_or_default()].concat();
    // Readers of PKCS #7 know no other name for an RSA signature than that of the key.
    let algorithm =
        if is_rsa { der::algorithm(OID_RSA, der::NULL) } else { der::algorithm(hash.ecdsa_signature(), &[]) };
    let hash_algorithm = der::algorithm(hash.oid(), der::NULL);
    let identifier = Identifier::of(certificate).ok_or(Error::Message("no certificate in DER"))?;
    let signature = der::encode(OCTET_STRING, &[&signature]);
    let signer = [&der::integer(1)[..], &identifier, &hash_algorithm, &implicit, &algorithm, &signature];
    let data = der::encode(CONTEXT_0, &[&der::encode(OCTET_STRING, &[content])]);
    let certificates: Vec<&[u8]> = core::iter::once(certificate).chain(others.iter().map(AsRef::as_ref)).collect();
    Ok(signed_data(&[
        &der::integer(1),
        &der::encode(SET, &[&hash_algorithm]),
        &der::encode(SEQUENCE, &[&der::oid(super::ID_DATA), &data]),
        &der::encode(CONTEXT_0, &certificates),
        &der::encode(SET, &[&der::encode(SEQUENCE, &signer)]),
    ]))
}
