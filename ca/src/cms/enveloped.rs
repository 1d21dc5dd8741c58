//! EnvelopedData for RSA keys (RFC 5652 §6, RFC 3370 §4.2.1, RFC 3565).

use core::fmt;

use ring::rand::SecureRandom;
use rsa::pkcs8::DecodePrivateKey as _;
use rsa::{BigUint, Pkcs1v15Encrypt, RsaPrivateKey, RsaPublicKey};
use sallyport_crypto::cbc::{CbcAlg, CbcDecryptor, CbcEncryptor};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey as ParsedKey;
use zeroize::Zeroizing;

use super::keytrans::{self, Padding};
use super::{ID_DATA, ID_ENVELOPED_DATA, Identifier, content_info, open_content_info, read};
use crate::der::{self, CONTEXT_0, CONTEXT_1, Der, INTEGER, OCTET_STRING, OID, SEQUENCE, SET};
use crate::key::{OID_RSA, RandCore};
use crate::{Error, KeyPair};

/// Most recipients that are looked at.
const MAX_RECIPIENTS: usize = 8;
/// One sentence for everything that goes wrong behind the key: who tries ciphertexts learns nothing.
const NOT_DECRYPTED: Error = Error::Message("it could not be decrypted");

/// What content is encrypted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentCipher {
    /// AES-128 in CBC mode.
    Aes128,
    /// AES-192 in CBC mode.
    Aes192,
    /// AES-256 in CBC mode.
    Aes256,
    /// 3DES (EDE, three keys) in CBC mode, for old clients.
    TripleDes,
}

impl ContentCipher {
    const ALL: [Self; 4] = [Self::Aes128, Self::Aes192, Self::Aes256, Self::TripleDes];

    /// The content of its OID: 2.16.840.1.101.3.4.1.{2, 22, 42} (RFC 3565 §4.1), 1.2.840.113549.3.7 (RFC 3370 §5.1).
    const fn oid(self) -> &'static [u8] {
        match self {
            Self::Aes128 => &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 2],
            Self::Aes192 => &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 22],
            Self::Aes256 => &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 42],
            Self::TripleDes => &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 3, 7],
        }
    }

    const fn cbc(self) -> CbcAlg {
        match self {
            Self::Aes128 => CbcAlg::Aes128,
            Self::Aes192 => CbcAlg::Aes192,
            Self::Aes256 => CbcAlg::Aes256,
            Self::TripleDes => CbcAlg::TripleDes,
        }
    }

    fn from_oid(oid: &[u8]) -> Result<Self, Error> {
        /// 1.2.840.113549.3.2.
        const RC2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 3, 2];
        let known = Self::ALL.into_iter().find(|c| c.oid() == oid);
        known.ok_or(Error::Cipher(match oid {
            DES => "single DES, which anybody can break; set the client to AES (or 3DES)",
            RC2 => "RC2; set the client to AES (or 3DES)",
            _ => "a cipher that is not accepted; set the client to AES in CBC mode",
        }))
    }
}

/// Single DES in CBC mode, 1.3.14.3.2.7.
const DES: &[u8] = &[0x2b, 14, 3, 2, 7];
/// Octets of its key. Three times the same key make 3DES out of it.
const DES_KEY: usize = 8;

/// An RSA key that messages are encrypted to, with its certificate.
pub struct DecryptionKey {
    private: RsaPrivateKey,
    certificate: Vec<u8>,
    /// Makes the content keys that stand in for those that are none.
    rejection: ring::hmac::Key,
}

impl DecryptionKey {
    /// The key of this certificate (DER).
    pub fn new(key: &KeyPair, certificate: &[u8]) -> Result<Self, Error> {
        if !key.public_key().algorithm().is_rsa() {
            return Err(Error::PrivateKey("only an RSA key can decrypt messages"));
        }
        if super::public_key(certificate)? != key.public_key() {
            return Err(Error::PrivateKey("it does not belong to the certificate"));
        }
        let private = RsaPrivateKey::from_pkcs8_der(key.pkcs8_der());
        let mut label = ring::digest::Context::new(&ring::digest::SHA256);
        label.update(b"sallyport implicit rejection");
        label.update(key.pkcs8_der());
        Ok(Self {
            private: private.map_err(|_| Error::PrivateKey("not an RSA key"))?,
            certificate: certificate.to_vec(),
            rejection: ring::hmac::Key::new(ring::hmac::HMAC_SHA256, label.finish().as_ref()),
        })
    }

    /// The certificate in DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }
}

impl fmt::Debug for DecryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DecryptionKey(..)")
    }
}

/// An encrypted message that has been read and not decrypted yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enveloped {
    cipher: ContentCipher,
    /// It is single DES: `cipher` is 3DES then.
    single_des: bool,
    iv: Vec<u8>,
    recipients: Vec<Recipient>,
    encrypted: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Recipient {
    identifier: Identifier,
    /// `None` where it is one that is not known here.
    padding: Option<Padding>,
    encrypted_key: Vec<u8>,
}

fn recipient(info: &[u8]) -> Option<Recipient> {
    let mut info = Der::new(info);
    info.expect(INTEGER)?;
    let identifier = Identifier::parse(&mut info)?;
    let algorithm = info.enter(SEQUENCE)?;
    let encrypted_key = info.expect(OCTET_STRING)?.content.to_vec();
    info.is_empty().then_some(Recipient { identifier, padding: Padding::parse(algorithm), encrypted_key })
}

impl Enveloped {
    /// Reads a message.
    pub fn parse(message: &[u8]) -> Result<Self, Error> {
        Self::parse_with(message, false)
    }

    /// The same; with `single_des`, one that is encrypted with single DES is read as well.
    pub(crate) fn parse_with(message: &[u8], single_des: bool) -> Result<Self, Error> {
        const BAD: Error = Error::Message("not a PKCS #7 EnvelopedData");
        let message = read(message)?;
        let mut data = open_content_info(&message, ID_ENVELOPED_DATA).ok_or(BAD)?;
        data.expect(INTEGER).ok_or(BAD)?;
        data.take_if(CONTEXT_0); // originatorInfo
        let mut infos = data.enter(SET).ok_or(BAD)?;
        let mut content = data.enter(SEQUENCE).ok_or(BAD)?;
        data.take_if(CONTEXT_1); // unprotectedAttrs
        if !data.is_empty() {
            return Err(BAD);
        }
        let mut recipients = Vec::new();
        while !infos.is_empty() {
            let info = infos.next().ok_or(BAD)?;
            if recipients.len() >= MAX_RECIPIENTS {
                return Err(Error::Message("it is for too many recipients"));
            }
            // Other kinds (key agreement, passwords) have other tags.
            if info.tag == SEQUENCE {
                recipients.push(recipient(info.content).ok_or(BAD)?);
            }
        }
        content.expect(OID).ok_or(BAD)?; // what it is inside, the caller finds out
        let mut algorithm = content.enter(SEQUENCE).ok_or(BAD)?;
        let oid = algorithm.expect(OID).ok_or(BAD)?.content;
        let single_des = single_des && oid == DES;
        let cipher = if single_des { ContentCipher::TripleDes } else { ContentCipher::from_oid(oid)? };
        let iv = algorithm.expect(OCTET_STRING).ok_or(BAD)?.content.to_vec();
        let encrypted = encrypted_content(&mut content).filter(|_| content.is_empty() && algorithm.is_empty());
        let encrypted = encrypted.ok_or(BAD)?;
        let block = cipher.cbc().block_len();
        if iv.len() != block || encrypted.is_empty() || encrypted.len() % block != 0 {
            return Err(BAD);
        }
        Ok(Self { cipher, single_des, iv, recipients, encrypted })
    }

    /// What it is encrypted with.
    pub const fn cipher(&self) -> ContentCipher {
        self.cipher
    }

    /// Whether it is encrypted to the key of this certificate (DER), as it says.
    pub(crate) fn is_for(&self, certificate: &[u8]) -> bool {
        self.recipients.iter().any(|r| r.identifier.names(certificate))
    }

    /// The content. A key that was not meant, a broken one and a broken content cannot be told from each other.
    pub fn decrypt(&self, key: &DecryptionKey, rng: &dyn SecureRandom) -> Result<Zeroizing<Vec<u8>>, Error> {
        let ours = self.recipients.iter().find(|r| r.identifier.names(&key.certificate));
        let ours =
            ours.ok_or(Error::Message("it is encrypted to another certificate; let the client fetch ours again"))?;
        let padding = ours.padding.ok_or(Error::Message("its key is encrypted in a way that is not known; use RSA"))?;
        let cbc = self.cipher.cbc();
        let stand_in = ring::hmac::sign(&key.rejection, &ours.encrypted_key);
        let key_len = if self.single_des { DES_KEY } else { cbc.key_len() };
        let stand_in = stand_in.as_ref().get(..key_len).ok_or(NOT_DECRYPTED)?;
        let mut content_key = keytrans::unwrap(&key.private, padding, &ours.encrypted_key, stand_in, rng)?;
        if self.single_des {
            content_key = Zeroizing::new(content_key.repeat(3));
        }
        let mut content = Zeroizing::new(self.encrypted.clone());
        let cipher = CbcDecryptor::new(cbc, &content_key).map_err(|_| NOT_DECRYPTED)?;
        cipher.decrypt(&self.iv, &mut content).map_err(|_| NOT_DECRYPTED)?;
        let len = unpadded_len(&content, cbc.block_len()).ok_or(NOT_DECRYPTED)?;
        content.truncate(len);
        Ok(content)
    }
}

/// `[0] IMPLICIT OCTET STRING`, in one piece or in several.
fn encrypted_content(content: &mut Der<'_>) -> Option<Vec<u8>> {
    /// `[0]`, primitive.
    const WHOLE: u8 = 0x80;
    let element = content.next()?;
    match element.tag {
        WHOLE => Some(element.content.to_vec()),
        CONTEXT_0 => {
            let (mut pieces, mut out) = (Der::new(element.content), Vec::new());
            while !pieces.is_empty() {
                out.extend_from_slice(pieces.expect(OCTET_STRING)?.content);
            }
            Some(out)
        }
        _ => None,
    }
}

/// The length without padding (RFC 5652 §6.3). It looks at a whole block, whatever stands there.
fn unpadded_len(content: &[u8], block: usize) -> Option<usize> {
    let last = content.len().checked_sub(block).and_then(|at| content.get(at..))?;
    let pad = usize::from(*last.last()?);
    let good = last.iter().enumerate().fold(true, |good, (i, b)| good & (i + pad < block || usize::from(*b) == pad));
    (good & (pad >= 1) & (pad <= block)).then(|| content.len() - pad)
}

/// A message with `content` for the RSA key in `certificate` (DER).
pub fn encrypt(
    content: &[u8],
    cipher: ContentCipher,
    certificate: &[u8],
    rng: &dyn SecureRandom,
) -> Result<Vec<u8>, Error> {
    let failed = |_| Error::Crypto("the random source failed");
    let key = rsa_key(certificate).ok_or(Error::PublicKey("messages can be encrypted to an RSA key only"))?;
    let cbc = cipher.cbc();
    let (mut content_key, mut iv) = (Zeroizing::new(vec![0; cbc.key_len()]), vec![0; cbc.block_len()]);
    rng.fill(&mut content_key).map_err(failed)?;
    rng.fill(&mut iv).map_err(failed)?;
    let pad = cbc.block_len() - content.len() % cbc.block_len();
    let mut encrypted = Vec::with_capacity(content.len() + pad);
    encrypted.extend_from_slice(content);
    encrypted.resize(content.len() + pad, pad as u8);
    let not_encrypted = Error::Crypto("the message could not be encrypted");
    let cipher_key = CbcEncryptor::new(cbc, &content_key).map_err(|_| not_encrypted.clone())?;
    cipher_key.encrypt(&iv, &mut encrypted).map_err(|_| not_encrypted.clone())?;
    let mut source = RandCore::new(rng);
    let wrapped = key.encrypt(&mut source, Pkcs1v15Encrypt, &content_key).map_err(|_| not_encrypted)?;
    source.check()?;

    let identifier = Identifier::of(certificate).ok_or(Error::Message("no certificate in DER"))?;
    let algorithm = der::algorithm(OID_RSA, der::NULL);
    let recipient = [&der::integer(0)[..], &identifier, &algorithm, &der::encode(OCTET_STRING, &[&wrapped])];
    let algorithm = der::algorithm(cipher.oid(), &der::encode(OCTET_STRING, &[&iv]));
    let inside = [&der::oid(ID_DATA)[..], &algorithm, &der::encode(0x80, &[&encrypted])];
    let data = [
        &der::integer(0)[..],
        &der::encode(SET, &[&der::encode(SEQUENCE, &recipient)]),
        &der::encode(SEQUENCE, &inside),
    ];
    Ok(content_info(ID_ENVELOPED_DATA, &der::encode(SEQUENCE, &data)))
}

/// The RSA key of a certificate, if it is one that is accepted here.
fn rsa_key(certificate: &[u8]) -> Option<RsaPublicKey> {
    const MAX_BITS: usize = 8192;
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    crate::key::classify(certificate.public_key()).ok()?;
    let Ok(ParsedKey::RSA(key)) = certificate.public_key().parsed() else { return None };
    let number = BigUint::from_bytes_be;
    RsaPublicKey::new_with_max_size(number(key.modulus), number(key.exponent), MAX_BITS).ok()
}
