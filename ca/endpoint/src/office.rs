//! What the endpoint asks: the office behind the counter.

use core::future::Future;
use core::time::Duration;
use std::net::IpAddr;

use hyper::body::Bytes;
use sallyport_ca::UnixTime;
use zeroize::Zeroizing;

/// Who decides, and knows what was issued.
pub trait Office: Send + Sync + 'static {
    /// One door for all protocols.
    fn enroll(&self, request: Enrollment) -> impl Future<Output = Answer> + Send;
    /// CA certificates in DER: issuing ones in force first, roots last, with cross-certificates while a rollover lasts.
    fn authorities(&self) -> Vec<Vec<u8>>;
    /// The certificate of the issuing CA of this number, or of the root (number 0).
    fn authority(&self, issuer: u64) -> Option<Vec<u8>>;
    /// The revocation list of an issuing CA, or of the root (number 0): of a shard, or of everything.
    fn crl(&self, issuer: u64, shard: Option<u32>) -> impl Future<Output = Option<Crl>> + Send;
    /// What changed on such a list, where delta lists are made.
    fn delta_crl(&self, issuer: u64, shard: Option<u32>) -> impl Future<Output = Option<Crl>> + Send;
    /// An OCSPResponse in DER to an OCSPRequest; of what cannot be answered one that says so.
    fn ocsp(&self, request: Vec<u8>) -> impl Future<Output = Vec<u8>> + Send;
    /// For SCEP: the RA's certificate first, then its CA's chain. `None` is "SCEP is off".
    fn scep_ca(&self) -> Option<Vec<Vec<u8>>>;
    /// What becomes of a SCEP message (DER), which is a stranger's.
    fn scep(&self, message: Vec<u8>, source: IpAddr) -> impl Future<Output = ScepAnswer> + Send;
    /// The public names of the service.
    fn names(&self) -> Vec<String>;
}

/// A signed revocation list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crl {
    /// The CertificateList, RFC 5280 §5.1.
    pub der: Bytes,
    /// Its number: of equal numbers are lists that say the same, whoever signed them.
    pub number: u64,
    /// When it was made; 0 where that is not known.
    pub this_update: UnixTime,
    /// When the next one is there at the latest.
    pub next_update: UnixTime,
}

/// What becomes of a SCEP message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScepAnswer {
    /// A CertRep.
    Reply {
        /// In DER.
        der: Vec<u8>,
        /// Whether the challenge password of the request is a token that is good; `None` where none was looked at.
        token: Option<bool>,
    },
    /// It is no SCEP message; a text for a person.
    Invalid(String),
    /// Not now.
    Busy {
        /// When to ask again.
        retry_after: Duration,
    },
}

/// How a request for a certificate came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// EST, /simpleenroll.
    Est,
    /// EST, /simplereenroll.
    EstRenewal,
    /// EST, /serverkeygen: the key is made here.
    EstServerKey,
    /// SCEP.
    Scep,
}

/// Somebody wants a certificate.
#[derive(Debug)]
pub struct Enrollment {
    /// How he came.
    pub protocol: Protocol,
    /// What he showed.
    pub proof: Proof,
    /// The PKCS #10 request in DER, not looked at yet.
    pub csr: Vec<u8>,
    /// Whence.
    pub source: IpAddr,
}

/// What somebody showed.
#[derive(Clone)]
pub enum Proof {
    /// Nothing.
    Nothing,
    /// Nothing so far, and nobody has asked him: many clients say a token only when they are asked for one (RFC 7030 §3.2.3, RFC 7235
    /// §2.1). Where one could help he is to be denied, so that he is.
    Unasked,
    /// The text of a token, as it was sent.
    Token(Zeroizing<String>),
    /// A certificate in DER, *not* judged in any way, but its holder has its key: TLS or the signature of SCEP proved it.
    Certificate(Vec<u8>),
}

impl core::fmt::Debug for Proof {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Unasked => "Unasked",
            Self::Token(_) => "Token",
            Self::Certificate(_) => "Certificate",
        })
    }
}

/// What becomes of it.
pub enum Answer {
    /// Here it is.
    Issued {
        /// The certificate, DER.
        certificate: Vec<u8>,
        /// Its chain, issuing CA first, DER.
        chain: Vec<Vec<u8>>,
        /// The key as PKCS #8, where it was made here.
        private_key: Option<Zeroizing<Vec<u8>>>,
    },
    /// Somebody must approve it first.
    Pending {
        /// When to ask again.
        retry_after: Duration,
        /// For a person; EST's 202 has no room for it.
        text: String,
    },
    /// No.
    Denied {
        /// For a person.
        text: String,
        /// Whether another proof may help: 401 rather than 403.
        authenticate: bool,
    },
    /// The request cannot be understood, or asks for what nobody gets.
    Invalid(String),
    /// Not now.
    Busy {
        /// When to ask again.
        retry_after: Duration,
    },
}
