//! The requester's half (RFC 8894 §3.3, §4): makes messages, reads answers.

use core::fmt;

use ring::rand::SecureRandom;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::message::*;
use super::{FailInfo, Kind};
use crate::cms::{self, ContentCipher, DecryptionKey, Digest, Enveloped, Signed};
use crate::der::{self, SEQUENCE};
use crate::hash::Hash;
use crate::{Certificate, Error, KeyPair};

/// The authority, as its answer to GetCACert shows it. Whoever made that answer over plain HTTP may be anybody: compare
/// [`Self::certificates`] with what is known before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    certificates: Vec<Vec<u8>>,
    recipient: Vec<u8>,
}

impl Authority {
    /// Reads the answer to GetCACert: one certificate in DER, or several in PKCS #7. The RA comes first, or is the one that is no
    /// authority.
    pub fn parse(answer: &[u8]) -> Result<Self, Error> {
        let certificates = match Certificate::from_der(answer) {
            Ok(_) => vec![answer.to_vec()],
            Err(_) => cms::certificates(answer)?,
        };
        let able = |der: &&Vec<u8>| cms::public_key(der).is_ok_and(|k| k.algorithm().is_rsa()) && may_receive(der);
        let leaf = |der: &&Vec<u8>| !is_authority(der);
        let recipient = certificates.iter().filter(able).find(leaf).or_else(|| certificates.iter().find(able));
        let recipient = recipient.ok_or(Error::Message("no certificate of it may be encrypted to"))?.clone();
        Ok(Self { certificates, recipient })
    }

    /// The certificates in DER.
    pub fn certificates(&self) -> &[Vec<u8>] {
        &self.certificates
    }
}

fn is_authority(der: &[u8]) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(_, c)| c.is_ca())
}

/// Whether a key usage, if there is one, has keyEncipherment.
fn may_receive(der: &[u8]) -> bool {
    X509Certificate::from_der(der)
        .is_ok_and(|(_, c)| c.key_usage().is_ok_and(|u| u.is_none_or(|u| u.value.key_encipherment())))
}

/// What the authority answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The certificates in DER, one of which is ours.
    Issued(Vec<Vec<u8>>),
    /// Somebody has to approve: ask again with [`Transaction::poll`].
    Pending,
    /// No.
    Refused {
        /// Why, in the words of the protocol.
        info: FailInfo,
        /// Why, in those of the authority; may be empty.
        text: String,
    },
}

/// One request for a certificate, from the first message to the last answer.
pub struct Transaction<'a> {
    authority: &'a Authority,
    key: &'a KeyPair,
    decryption: DecryptionKey,
    /// The content ciphers and hashes that the authority is known to take are those of RFC 8894 §2.9.
    cipher: ContentCipher,
    id: String,
    nonce: [u8; NONCE],
}

impl fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").field("id", &self.id).finish_non_exhaustive()
    }
}

impl<'a> Transaction<'a> {
    /// Of a requester with this RSA key and its certificate (DER): for a first enrollment that of [`KeyPair::self_signed`], for a
    /// renewal the present one. `csr` (DER) gives the transaction its name.
    pub fn new(authority: &'a Authority, key: &'a KeyPair, certificate: &[u8], csr: &[u8]) -> Result<Self, Error> {
        let decryption = DecryptionKey::new(key, certificate)?;
        let spki = crate::request::key_of(csr).ok_or(Error::Request("not a PKCS #10 request in DER"))?;
        let id = Hash::Sha256.digest(spki).iter().map(|b| format!("{b:02x}")).collect();
        Ok(Self { authority, key, decryption, cipher: ContentCipher::Aes128, id, nonce: [0; NONCE] })
    }

    /// Encrypts with another cipher, for an authority that does not know AES.
    pub fn with_cipher(mut self, cipher: ContentCipher) -> Self {
        self.cipher = cipher;
        self
    }

    /// Asks for a certificate, in [`Kind::Enroll`] or [`Kind::Renew`].
    pub fn request(&mut self, kind: Kind, csr: &[u8], rng: &dyn SecureRandom) -> Result<Vec<u8>, Error> {
        self.message(if kind == Kind::Renew { RENEWAL_REQ } else { PKCS_REQ }, csr, rng)
    }

    /// Asks what has become of the request.
    pub fn poll(&mut self, rng: &dyn SecureRandom) -> Result<Vec<u8>, Error> {
        let subject = Certificate::from_der(self.decryption.certificate())?.subject_der();
        let issuer = self.authority.certificates.iter().find(|c| is_authority(c)).unwrap_or(&self.authority.recipient);
        let issuer = Certificate::from_der(issuer)?.subject_der();
        self.message(CERT_POLL, &der::encode(SEQUENCE, &[&issuer, &subject]), rng)
    }

    fn message(&mut self, kind: &str, content: &[u8], rng: &dyn SecureRandom) -> Result<Vec<u8>, Error> {
        rng.fill(&mut self.nonce).map_err(|_| Error::Crypto("the random source failed"))?;
        let envelope = cms::encrypt(content, self.cipher, &self.authority.recipient, rng)?;
        let attributes = [text(MESSAGE_TYPE, kind), text(TRANSACTION_ID, &self.id), octets(SENDER_NONCE, &self.nonce)];
        let others: [&[u8]; 0] = [];
        let certificate = self.decryption.certificate();
        cms::sign(&envelope, &attributes, self.key, certificate, &others, Digest::Sha256, rng)
    }

    /// Reads the answer to the last message. It must be signed by one of the authority's certificates.
    pub fn open(&self, answer: &[u8], rng: &dyn SecureRandom) -> Result<Reply, Error> {
        let signed = Signed::verify(answer)?;
        if !self.authority.certificates.contains(&signed.signer) {
            return Err(Error::Message("the answer is signed by somebody else than the authority"));
        }
        if read_text(&signed, MESSAGE_TYPE).as_deref() != Some(CERT_REP)
            || read_text(&signed, TRANSACTION_ID).as_deref() != Some(&self.id)
            || read_nonce(&signed, RECIPIENT_NONCE).as_deref() != Some(&self.nonce)
        {
            return Err(Error::Message("it is the answer to another message"));
        }
        match read_text(&signed, PKI_STATUS).as_deref() {
            Some(SUCCESS) => {
                let content = Enveloped::parse(&signed.content)?.decrypt(&self.decryption, rng)?;
                Ok(Reply::Issued(cms::certificates(&content)?))
            }
            Some(PENDING) => Ok(Reply::Pending),
            Some(FAILURE) => {
                let info = read_text(&signed, FAIL_INFO).and_then(|code| FailInfo::from_code(&code));
                let info = info.ok_or(Error::Message("it refuses without a known cause"))?;
                Ok(Reply::Refused { info, text: read_fail_info_text(&signed).unwrap_or_default() })
            }
            _ => Err(Error::Message("it has no known pkiStatus")),
        }
    }
}
