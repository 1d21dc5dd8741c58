//! Cryptographic Message Syntax (RFC 5652), as much as enrollment needs: certificates in a message that signs nothing, signed
//! messages of one signer, messages encrypted to one RSA key. What is written is DER; what is read may be BER.
//!
//! * [`certs_only`] and [`certificates`]: the answers of EST and SCEP that carry certificates.
//! * [`Signed`] verifies, [`sign`] makes.
//! * [`Enveloped`] decrypts, [`encrypt`] makes.

mod enveloped;
mod keytrans;
mod signed;

use crate::Error;
use crate::der::{self, CONTEXT_0, Der, INTEGER, OID, SEQUENCE, SET};

pub use self::enveloped::{ContentCipher, DecryptionKey, Enveloped, encrypt};
pub use self::signed::{Attribute, Signed, sign};
pub use crate::hash::Hash as Digest;

/// The longest message that is read, octets.
pub const MAX_MESSAGE: usize = 128 * 1024;
/// Most certificates that are read from one message.
pub const MAX_CERTIFICATES: usize = 32;

/// id-data, id-signedData, id-envelopedData: 1.2.840.113549.1.7.{1, 2, 3}.
pub(crate) const ID_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
const ID_SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];
const ID_ENVELOPED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 3];

/// A message with these certificates (DER), in this order, and no signature.
pub fn certs_only<C: AsRef<[u8]>>(certificates: &[C]) -> Vec<u8> {
    let certificates: Vec<&[u8]> = certificates.iter().map(AsRef::as_ref).collect();
    signed_data(&[
        &der::integer(1),
        &der::encode(SET, &[]),
        &der::encode(SEQUENCE, &[&der::oid(ID_DATA)]),
        &der::encode(CONTEXT_0, &certificates),
        &der::encode(SET, &[]),
    ])
}

/// The certificates (DER) in a message, signed or not, in its order; nothing is verified. There may be none.
pub fn certificates(message: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let message = read(message)?;
    let fields = signed_fields(&message).ok_or(Error::Message("not a PKCS #7 SignedData"))?;
    let list = certificate_list(fields.certificates)?;
    Ok(list.into_iter().map(<[u8]>::to_vec).collect())
}

/// A message whose lengths are all definite.
fn read(message: &[u8]) -> Result<Vec<u8>, Error> {
    if message.len() > MAX_MESSAGE {
        return Err(Error::Message("it is longer than 128 KiB"));
    }
    der::definite(message).ok_or(Error::Message("it is not BER"))
}

/// `ContentInfo` of this type (RFC 5652 §3).
fn content_info(content_type: &[u8], content: &[u8]) -> Vec<u8> {
    der::encode(SEQUENCE, &[&der::oid(content_type), &der::encode(CONTEXT_0, &[content])])
}

/// The content of a `ContentInfo` of this type.
fn open_content_info<'a>(message: &'a [u8], content_type: &[u8]) -> Option<Der<'a>> {
    let mut info = Der::new(der::only(message, SEQUENCE)?.content);
    if info.expect(OID)?.content != content_type {
        return None;
    }
    let mut content = info.enter(CONTEXT_0)?;
    let inside = content.enter(SEQUENCE)?;
    (info.is_empty() && content.is_empty()).then_some(inside)
}

fn signed_data(parts: &[&[u8]]) -> Vec<u8> {
    content_info(ID_SIGNED_DATA, &der::encode(SEQUENCE, parts))
}

/// `SignedData`, RFC 5652 §5.1.
struct SignedFields<'a> {
    content_type: &'a [u8],
    /// `None` where the content is elsewhere.
    content: Option<&'a [u8]>,
    certificates: &'a [u8],
    signers: Der<'a>,
}

fn signed_fields(message: &[u8]) -> Option<SignedFields<'_>> {
    let mut signed = open_content_info(message, ID_SIGNED_DATA)?;
    signed.expect(INTEGER)?;
    signed.expect(SET)?; // digestAlgorithms: each signer names its own
    let mut info = signed.enter(SEQUENCE)?;
    let content_type = info.expect(OID)?.content;
    let content = match info.take_if(CONTEXT_0) {
        Some(content) => Some(der::only(content.content, der::OCTET_STRING)?.content),
        None => None,
    };
    let certificates = signed.take_if(CONTEXT_0).map_or(&[][..], |c| c.content);
    signed.take_if(der::CONTEXT_1); // crls
    let signers = signed.enter(SET)?;
    (info.is_empty() && signed.is_empty()).then_some(SignedFields { content_type, content, certificates, signers })
}

fn certificate_list(content: &[u8]) -> Result<Vec<&[u8]>, Error> {
    let (mut der, mut out) = (Der::new(content), Vec::new());
    while !der.is_empty() {
        let element = der.next().ok_or(Error::Message("a certificate is cut off"))?;
        if out.len() >= MAX_CERTIFICATES {
            return Err(Error::Message("it holds too many certificates"));
        }
        // Other kinds of certificate (attributes, extended) have other tags.
        if element.tag == SEQUENCE {
            out.push(element.whole);
        }
    }
    Ok(out)
}

/// Which certificate is meant (RFC 5652 §5.3, §6.2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
enum Identifier {
    IssuerAndSerial { issuer: Vec<u8>, serial: Vec<u8> },
    SubjectKeyId(Vec<u8>),
}

impl Identifier {
    /// Reads the next element of a SignerInfo or a KeyTransRecipientInfo.
    fn parse(fields: &mut Der<'_>) -> Option<Self> {
        /// `[0]`, primitive: an OCTET STRING with an implicit tag.
        const KEY_ID: u8 = 0x80;
        let element = fields.next()?;
        match element.tag {
            SEQUENCE => {
                let mut both = Der::new(element.content);
                let issuer = both.expect(SEQUENCE)?.whole.to_vec();
                let serial = both.expect(INTEGER)?.content.to_vec();
                both.is_empty().then_some(Self::IssuerAndSerial { issuer, serial })
            }
            KEY_ID => Some(Self::SubjectKeyId(element.content.to_vec())),
            _ => None,
        }
    }

    /// `IssuerAndSerialNumber` of a certificate in DER.
    fn of(certificate: &[u8]) -> Option<Vec<u8>> {
        let (issuer, serial) = issuer_and_serial(certificate)?;
        Some(der::encode(SEQUENCE, &[issuer, &der::encode(INTEGER, &[serial])]))
    }

    fn names(&self, certificate: &[u8]) -> bool {
        match self {
            Self::IssuerAndSerial { issuer, serial } => {
                issuer_and_serial(certificate).is_some_and(|(i, s)| s == serial && is_same_name(i, issuer))
            }
            Self::SubjectKeyId(id) => key_id(certificate).as_ref() == Some(id),
        }
    }
}

/// Some clients write the name of an issuer in another string type than it has.
fn is_same_name(a: &[u8], b: &[u8]) -> bool {
    use x509_parser::prelude::FromDer as _;
    use x509_parser::x509::X509Name;
    a == b
        || match (X509Name::from_der(a), X509Name::from_der(b)) {
            (Ok(([], a)), Ok(([], b))) => crate::name::same_name(&a, &b),
            _ => false,
        }
}

/// The issuer's name (an element) and the serial number (content octets) of a certificate in DER.
fn issuer_and_serial(certificate: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut tbs = Der::new(der::only(certificate, SEQUENCE)?.content).enter(SEQUENCE)?;
    tbs.take_if(CONTEXT_0); // version
    let serial = tbs.expect(INTEGER)?.content;
    tbs.expect(SEQUENCE)?;
    Some((tbs.expect(SEQUENCE)?.whole, serial))
}

/// The subject key identifier of a certificate in DER.
fn key_id(certificate: &[u8]) -> Option<Vec<u8>> {
    use x509_parser::certificate::X509Certificate;
    use x509_parser::extensions::ParsedExtension;
    use x509_parser::prelude::FromDer as _;
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    certificate.iter_extensions().find_map(|e| match e.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    })
}

/// The public key of a certificate in DER.
pub(crate) fn public_key(certificate: &[u8]) -> Result<crate::PublicKey, Error> {
    let certificate = crate::Certificate::from_der(certificate).map_err(|_| Error::Message("no certificate in DER"))?;
    crate::PublicKey::from_spki_der(&certificate.spki_der())
}

#[cfg(test)]
mod tests;
