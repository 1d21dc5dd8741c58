//! What an RA does with a message (RFC 8894 §3.3, §4).

use core::fmt;

use ring::rand::SecureRandom;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use zeroize::Zeroizing;

use super::message::*;
use super::{FailInfo, Failure, Kind, Outcome, RaIdentity, ReplyTo, Request};
use crate::cms::{self, Attribute, ContentCipher, Digest, Enveloped, Signed};
use crate::der::{self, Der, SEQUENCE};
use crate::{Error, PublicKey, request, weak};

/// Characters of a text for a person that are sent at most.
const MAX_EXPLANATION: usize = 512;

/// A message with a good signature, before any key of ours was touched: to read one costs a verification.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    kind: Kind,
    signed: Signed,
    signer_key: PublicKey,
    reply_to: ReplyTo,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("kind", &self.kind).finish_non_exhaustive()
    }
}

fn refuse(info: FailInfo, cause: Error, to: &ReplyTo) -> Failure {
    Failure { info, cause, reply_to: Some(Box::new(to.clone())) }
}

impl Message {
    /// Verifies a message and reads what is not encrypted.
    pub fn read(message: &[u8]) -> Result<Self, Failure> {
        let silent = |cause| Failure { info: FailInfo::BadMessageCheck, cause, reply_to: None };
        let signed = Signed::verify(message).map_err(silent)?;
        let transaction_id = read_text(&signed, TRANSACTION_ID);
        let transaction_id =
            transaction_id.ok_or(silent(Error::Message("it has no transactionID of 1 to 128 characters")))?;
        let sender_nonce = read_nonce(&signed, SENDER_NONCE);
        let sender_nonce = sender_nonce.ok_or(silent(Error::Message("it has no senderNonce of 1 to 64 octets")))?;
        let reply_to = ReplyTo {
            transaction_id,
            sender_nonce,
            signer: signed.signer.clone(),
            cipher: ContentCipher::Aes128,
            // SHA-1 is read and never written.
            digest: if signed.digest == Digest::Sha1 { Digest::Sha256 } else { signed.digest },
        };
        let kind = match read_text(&signed, MESSAGE_TYPE).as_deref() {
            Some(PKCS_REQ) => Kind::Enroll,
            Some(RENEWAL_REQ) => Kind::Renew,
            Some(CERT_POLL) => Kind::Poll,
            _ => {
                let cause = Error::Message("only PKCSReq, RenewalReq and CertPoll are answered");
                return Err(refuse(FailInfo::BadRequest, cause, &reply_to));
            }
        };
        let signer_key = cms::public_key(&signed.signer).map_err(silent)?;
        if !signer_key.algorithm().is_rsa() {
            let cause =
                Error::PublicKey("SCEP needs an RSA key, since the answer is encrypted to it; EST takes others");
            return Err(refuse(FailInfo::BadAlg, cause, &reply_to));
        }
        Ok(Self { kind, signed, signer_key, reply_to })
    }

    /// Whether its envelope names this RA: which of several can open it is no secret.
    pub fn is_for(&self, ra: &RaIdentity) -> bool {
        Enveloped::parse_with(&self.signed.content, true).is_ok_and(|envelope| envelope.is_for(ra.certificate()))
    }

    /// Opens the envelope with the RA's key.
    pub fn open(self, ra: &RaIdentity, rng: &dyn SecureRandom) -> Result<Request, Failure> {
        let Self { kind, signed, signer_key, mut reply_to } = self;
        let envelope = Enveloped::parse_with(&signed.content, ra.single_des).map_err(|cause| {
            let info = match &cause {
                _ if signed.content.is_empty() => FailInfo::BadRequest,
                Error::Cipher(_) => FailInfo::BadAlg,
                _ => FailInfo::BadMessageCheck,
            };
            refuse(info, cause, &reply_to)
        })?;
        reply_to.cipher = envelope.cipher();
        let opened = envelope.decrypt(&ra.decryption, rng).and_then(|content| inside(kind, &content, &signer_key));
        match opened {
            Ok(Inside { csr, challenge, same_key }) => Ok(Request {
                kind,
                transaction_id: reply_to.transaction_id.clone(),
                sender_nonce: reply_to.sender_nonce.clone(),
                csr,
                challenge,
                signer: signed.signer,
                same_key,
                reply_to,
            }),
            // A key that is refused is told to whoever holds it, and so knows the request: nobody else has its signature.
            Err(cause @ Error::PublicKey(_)) => Err(refuse(FailInfo::BadAlg, cause, &reply_to)),
            Err(cause) => Err(refuse(FailInfo::BadMessageCheck, cause, &reply_to)),
        }
    }
}

/// Reads a message for this RA.
pub fn open(message: &[u8], ra: &RaIdentity, rng: &dyn SecureRandom) -> Result<Request, Failure> {
    Message::read(message)?.open(ra, rng)
}

impl Request {
    /// The key of the signer, against which nothing is known: the one that a requester who polls has asked for before.
    pub fn signer_key(&self) -> Result<PublicKey, Error> {
        let key = cms::public_key(&self.signer)?;
        let (_, certificate) =
            X509Certificate::from_der(&self.signer).map_err(|_| Error::Message("no certificate in DER"))?;
        weak::check(certificate.public_key(), key.algorithm()).map_err(Error::PublicKey)?;
        Ok(key)
    }
}

struct Inside {
    csr: Vec<u8>,
    challenge: Option<Zeroizing<String>>,
    same_key: bool,
}

/// Reads what was in the envelope. An [`Error::PublicKey`] may be told to the signer.
fn inside(kind: Kind, content: &[u8], signer: &PublicKey) -> Result<Inside, Error> {
    const BAD: Error = Error::Message("its envelope holds no request that is signed with its own key");
    if kind == Kind::Poll {
        // IssuerAndSubject; the transaction says which request is meant.
        let names = der::only(content, SEQUENCE).and_then(|e| {
            let mut names = Der::new(e.content);
            names.expect(SEQUENCE)?;
            names.expect(SEQUENCE)?;
            names.is_empty().then_some(())
        });
        names.ok_or(Error::Message("its envelope holds no issuer and subject"))?;
        return Ok(Inside { csr: Vec::new(), challenge: None, same_key: false });
    }
    let same_key = request::key_of(content).is_some_and(|spki| spki == signer.spki_der());
    match PublicKey::from_csr_der(content) {
        Ok(_) => {}
        Err(error @ Error::PublicKey(_)) if same_key => return Err(error),
        Err(Error::Request(why)) => return Err(Error::Request(why)),
        Err(_) => return Err(BAD),
    }
    let challenge = request::challenge_password(content)?.filter(|_| same_key);
    Ok(Inside { csr: content.to_vec(), challenge, same_key })
}

/// The answer to a request: a CertRep in DER.
pub fn reply(to: &Request, outcome: &Outcome, ra: &RaIdentity, rng: &dyn SecureRandom) -> Result<Vec<u8>, Error> {
    answer(&to.reply_to, outcome, ra, rng)
}

impl Failure {
    /// Whether the requester can be told in SCEP.
    pub const fn is_answered(&self) -> bool {
        self.reply_to.is_some()
    }

    /// The answer to the requester, a CertRep in DER; `None` where the message was so broken that it has none but an error of HTTP.
    pub fn reply(&self, ra: &RaIdentity, rng: &dyn SecureRandom) -> Option<Vec<u8>> {
        // badMessageCheck stays without words: see the module.
        let text = if self.info == FailInfo::BadMessageCheck { String::new() } else { self.cause.to_string() };
        answer(self.reply_to.as_deref()?, &Outcome::Failure { info: self.info, text }, ra, rng).ok()
    }
}

fn answer(to: &ReplyTo, outcome: &Outcome, ra: &RaIdentity, rng: &dyn SecureRandom) -> Result<Vec<u8>, Error> {
    let mut nonce = [0; NONCE];
    rng.fill(&mut nonce).map_err(|_| Error::Crypto("the random source failed"))?;
    let status = |value| text(PKI_STATUS, value);
    let mut attributes: Vec<Attribute> = vec![
        text(MESSAGE_TYPE, CERT_REP),
        text(TRANSACTION_ID, &to.transaction_id),
        octets(SENDER_NONCE, &nonce),
        octets(RECIPIENT_NONCE, &to.sender_nonce),
    ];
    let mut content = Vec::new();
    match outcome {
        Outcome::Success { certificate, chain } => {
            attributes.push(status(SUCCESS));
            let list: Vec<&[u8]> = core::iter::once(certificate).chain(chain).map(Vec::as_slice).collect();
            content = cms::encrypt(&cms::certs_only(&list), to.cipher, &to.signer, rng)?;
        }
        Outcome::Pending => attributes.push(status(PENDING)),
        Outcome::Failure { info, text: words } => {
            attributes.push(status(FAILURE));
            attributes.push(text(FAIL_INFO, info.code()));
            if !words.is_empty() {
                attributes.push(fail_info_text(&words.chars().take(MAX_EXPLANATION).collect::<String>()));
            }
        }
    }
    // An empty content rather than none: readers of PKCS #7 take one without content for a detached signature.
    cms::sign(&content, &attributes, &ra.key, ra.certificate(), &ra.chain, to.digest, rng)
}
