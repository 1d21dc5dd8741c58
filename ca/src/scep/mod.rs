//! Simple Certificate Enrolment Protocol (RFC 8894): its messages, without HTTP. The server's half is [`Message`], or [`open`], and [`reply`], the
//! client's is [`client`].
//!
//! A message is signed by the requester and holds an envelope, encrypted to the RA, with a request inside. Everything behind the
//! envelope's key fails in one way only: who replays somebody's envelope with changes learns nothing of its challenge password.

pub mod client;
mod message;
mod server;

use core::fmt;

use zeroize::Zeroizing;

use crate::cms::{ContentCipher, DecryptionKey, Digest, certs_only};
use crate::{Certificate, Error, KeyPair};

pub use self::server::{Message, open, reply};

/// The answer to GetCACaps (RFC 8894 §3.5.2), of type `text/plain`.
pub const CAPABILITIES: &str = "AES\nPOSTPKIOperation\nRenewal\nSCEPStandard\nSHA-256\nSHA-512\n";
/// The content type of [`RaIdentity::ca_certificates`].
pub const CA_RA_CERTIFICATES: &str = "application/x-x509-ca-ra-cert";
/// The content type of a PKI message.
pub const PKI_MESSAGE: &str = "application/x-pki-message";

/// What a requester asks for (RFC 8894 §3.2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// PKCSReq, 19: a certificate.
    Enroll,
    /// RenewalReq, 17: a certificate, asked for with the present one.
    Renew,
    /// CertPoll, 20: whether a certificate that was asked for before is ready.
    Poll,
}

/// Why a request fails, in the words of the protocol (RFC 8894 §3.2.1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailInfo {
    /// An algorithm that is not accepted.
    BadAlg,
    /// A signature or an encryption is broken.
    BadMessageCheck,
    /// The request is not permitted, or not known here.
    BadRequest,
    /// The message is too old or too new.
    BadTime,
    /// No certificate for what was asked.
    BadCertId,
}

impl FailInfo {
    const ALL: [Self; 5] = [Self::BadAlg, Self::BadMessageCheck, Self::BadRequest, Self::BadTime, Self::BadCertId];

    /// The name in the standard.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadAlg => "badAlg",
            Self::BadMessageCheck => "badMessageCheck",
            Self::BadRequest => "badRequest",
            Self::BadTime => "badTime",
            Self::BadCertId => "badCertId",
        }
    }
}

impl fmt::Display for FailInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The registration authority that requesters talk to: an RSA key, its certificate, and the authorities above it.
#[derive(Debug)]
pub struct RaIdentity {
    key: KeyPair,
    decryption: DecryptionKey,
    chain: Vec<Vec<u8>>,
    single_des: bool,
}

impl RaIdentity {
    /// The one of this RSA key and its certificate (DER), with the certificates of the issuing authority first, of the root last.
    pub fn new(key: KeyPair, certificate: &[u8], chain: Vec<Vec<u8>>) -> Result<Self, Error> {
        let decryption = DecryptionKey::new(&key, certificate)?;
        Certificate::from_der(certificate)?;
        Ok(Self { key, decryption, chain, single_des: false })
    }

    /// Reads requests that are encrypted with single DES, too; they are answered in 3DES. RFC 8894 §2.9 forbids it: whoever records
    /// such a request finds its challenge password in a day, and whoever stands in between makes other clients use it. So it is for
    /// a network of devices that know nothing else, with passwords that are good once.
    pub fn accepting_single_des(mut self) -> Self {
        self.single_des = true;
        self
    }

    /// Its certificate in DER.
    pub fn certificate(&self) -> &[u8] {
        self.decryption.certificate()
    }

    /// The answer to GetCACert, of type [`CA_RA_CERTIFICATES`]: its certificate, then those above it.
    pub fn ca_certificates(&self) -> Vec<u8> {
        let own = core::iter::once(self.certificate());
        certs_only(&own.chain(self.chain.iter().map(Vec::as_slice)).collect::<Vec<_>>())
    }
}

/// Whom to answer, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplyTo {
    transaction_id: String,
    sender_nonce: Vec<u8>,
    signer: Vec<u8>,
    cipher: ContentCipher,
    digest: Digest,
}

/// A request whose signature is good and whose envelope was meant for us. Whether it is granted is decided elsewhere.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// What is asked for.
    pub kind: Kind,
    /// Names the transaction, in 1 to 128 printable characters: the same in a retry and in polls.
    pub transaction_id: String,
    /// Random octets of the requester, 1 to 64.
    pub sender_nonce: Vec<u8>,
    /// The PKCS #10 request in DER: well-formed and signed with its own key, which is known to be no weak one. Empty where a
    /// requester polls.
    pub csr: Vec<u8>,
    /// The challenge password in the request. It is there only if [`Self::same_key`], for otherwise somebody may have taken
    /// another's envelope.
    pub challenge: Option<Zeroizing<String>>,
    /// The certificate in DER whose holder has signed the message. It may be one that the requester made, or anybody: who goes
    /// by it verifies it first.
    pub signer: Vec<u8>,
    /// Whether the key of the signer is that of the request.
    pub same_key: bool,
    pub(crate) reply_to: ReplyTo,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("kind", &self.kind)
            .field("transaction_id", &self.transaction_id)
            .field("same_key", &self.same_key)
            .finish_non_exhaustive()
    }
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is granted.
    Success {
        /// The certificate in DER.
        certificate: Vec<u8>,
        /// The authorities above it, in DER, the issuing one first.
        chain: Vec<Vec<u8>>,
    },
    /// It waits for approval; the requester polls.
    Pending,
    /// It is refused.
    Failure {
        /// Why.
        info: FailInfo,
        /// The same for a person, who can change something; may be empty.
        text: String,
    },
}

/// A message that is not a request that can be granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why, as the requester is told.
    pub info: FailInfo,
    /// Why, for our records. Of what is behind the envelope's key the requester is not told more than [`Self::info`].
    pub cause: Error,
    /// Whom to tell; `None` where the message was so broken that it cannot be answered in SCEP.
    pub(crate) reply_to: Option<Box<ReplyTo>>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.info, self.cause)
    }
}

#[cfg(test)]
mod tests;
