//! The payload chain of a message, and every payload as a type of its own.
//!
//! RFC 2408 §3.2: each payload begins with `| next payload (8) | RESERVED (8) | length (16) |`.

mod cert;
mod certreq;
mod delete;
mod dn;
mod fragment;
mod id;
mod nat_oa;
mod notify;
mod numbers;
mod sa;
mod v2;
mod vendor_id;

use core::fmt;

use sallyport_base::{DecodeError, Reader, Writer};

pub use cert::Certificate;
pub use certreq::CertificateRequest;
pub use delete::{Delete, MAX_SPIS};
pub use dn::DerName;
pub use fragment::{Fragment, LAST_FRAGMENT};
pub use id::{Identification, MAX_ID_LEN};
pub use nat_oa::NatOa;
pub use notify::Notify;
pub use numbers::*;
pub use sa::{
    Attribute, AttributeValue, DOI_IPSEC, Lifetimes, MAX_ATTRIBUTES, MAX_PROPOSALS, MAX_TRANSFORMS, Proposal,
    SIT_IDENTITY_ONLY, SecurityAssociation, Transform, TransformNames,
};
pub use v2::{KeyExchangeV2, NotifyV2, ProposalV2, SecurityAssociationV2, TransformV2};
pub use vendor_id::VendorId;
pub(crate) use vendor_id::{DPD, FRAGMENTATION, FRAGMENTATION_FLAGS, NAT_T_02, NAT_T_02_N, NAT_T_03, RFC_3947};

/// Most payloads in one message: a Windows client may send one CERTREQ for each root that it trusts.
pub const MAX_PAYLOADS: usize = 256;

/// Longest nonce, RFC 2409 §5.
pub const MAX_NONCE_LEN: usize = 256;

/// Shortest nonce, RFC 2409 §5.
pub const MIN_NONCE_LEN: usize = 8;

/// One payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Security Association, with the bytes of its body: `SAi_b` of RFC 2409 §5.
    Sa(SecurityAssociation<'a>, &'a [u8]),
    /// Key Exchange, RFC 2408 §3.7: the public value.
    KeyExchange(&'a [u8]),
    /// Identification.
    Id(Identification),
    /// Certificate.
    Cert(Certificate<'a>),
    /// Certificate Request.
    CertRequest(CertificateRequest<'a>),
    /// Hash, RFC 2408 §3.11.
    Hash(&'a [u8]),
    /// Signature, RFC 2408 §3.12.
    Signature(&'a [u8]),
    /// Nonce, RFC 2408 §3.13.
    Nonce(&'a [u8]),
    /// Notification.
    Notify(Notify<'a>),
    /// Delete.
    Delete(Delete<'a>),
    /// Vendor ID.
    VendorId(VendorId<'a>),
    /// NAT detection, RFC 3947 §3.2, under any of its three numbers.
    NatD(&'a [u8]),
    /// NAT original address under any of its three numbers; `None` if it is malformed, which nothing depends on.
    NatOa(Option<NatOa>),
    /// Microsoft's and Cisco's fragment.
    Fragment(Fragment<'a>),
    /// Security Association of IKEv2.
    SaV2(SecurityAssociationV2<'a>),
    /// Key Exchange of IKEv2.
    KeyExchangeV2(KeyExchangeV2<'a>),
    /// Nonce of IKEv2.
    NonceV2(&'a [u8]),
    /// Notify of IKEv2.
    NotifyV2(NotifyV2<'a>),
    /// Vendor ID of IKEv2.
    VendorIdV2(VendorId<'a>),
    /// The encrypted part of an IKEv2 message.
    EncryptedV2 {
        /// [`PayloadType::SK`], or [`PayloadType::SKF`] for a fragment of it.
        kind: PayloadType,
        /// IV, ciphertext and checksum; with SKF the fragment number and their total (16 bits each) come first.
        body: &'a [u8],
        /// Type of the first payload within.
        first: PayloadType,
    },
    /// A type that is not opened here.
    Other(PayloadType, &'a [u8]),
}

impl<'a> Payload<'a> {
    fn parse(kind: PayloadType, next: PayloadType, body: &'a [u8]) -> Result<Self, DecodeError> {
        let r = Reader::new(body);
        Ok(match kind {
            PayloadType::SA => Self::Sa(SecurityAssociation::parse(r)?, body),
            PayloadType::KE => Self::KeyExchange(body),
            PayloadType::ID => Self::Id(Identification::parse(r)?),
            PayloadType::CERT => Self::Cert(Certificate::parse(r)?),
            PayloadType::CERT_REQUEST => Self::CertRequest(CertificateRequest::parse(r)?),
            PayloadType::HASH => Self::Hash(body),
            PayloadType::SIGNATURE => Self::Signature(body),
            PayloadType::NONCE => Self::Nonce(nonce(body)?),
            PayloadType::NOTIFY => Self::Notify(Notify::parse(r)?),
            PayloadType::DELETE => Self::Delete(Delete::parse(r)?),
            PayloadType::VENDOR_ID => Self::VendorId(VendorId(body)),
            PayloadType::NAT_D | PayloadType::NAT_D_DRAFT | PayloadType::NAT_D_DRAFT_04 => Self::NatD(body),
            PayloadType::NAT_OA | PayloadType::NAT_OA_DRAFT | PayloadType::NAT_OA_DRAFT_04 => {
                Self::NatOa(NatOa::parse(r).ok())
            }
            PayloadType::FRAGMENT => Self::Fragment(Fragment::parse(r)?),
            PayloadType::SA_V2 => Self::SaV2(SecurityAssociationV2::parse(r)?),
            PayloadType::KE_V2 => Self::KeyExchangeV2(KeyExchangeV2::parse(r)?),
            PayloadType::NONCE_V2 => Self::NonceV2(body),
            PayloadType::NOTIFY_V2 => Self::NotifyV2(NotifyV2::parse(r)?),
            PayloadType::VENDOR_ID_V2 => Self::VendorIdV2(VendorId(body)),
            PayloadType::SK | PayloadType::SKF => Self::EncryptedV2 { kind, body, first: next },
            other => Self::Other(other, body),
        })
    }
}

fn nonce(body: &[u8]) -> Result<&[u8], DecodeError> {
    if (MIN_NONCE_LEN..=MAX_NONCE_LEN).contains(&body.len()) {
        Ok(body)
    } else {
        Err(DecodeError::Length("nonce", body.len()))
    }
}

/// Reads a chain of payloads that begins with type `first`. What follows the last payload is padding and not looked at.
///
/// Every step takes at least four bytes and there are at most [`MAX_PAYLOADS`], so it ends whatever the bytes are.
pub fn parse_chain(first: PayloadType, bytes: &[u8]) -> Result<Vec<Payload<'_>>, DecodeError> {
    parse_chain_used(first, bytes).map(|(payloads, _)| payloads)
}

/// [`parse_chain`], with how many bytes the payloads take.
pub(crate) fn parse_chain_used(first: PayloadType, bytes: &[u8]) -> Result<(Vec<Payload<'_>>, usize), DecodeError> {
    let mut r = Reader::new(bytes);
    let mut kind = first;
    let mut payloads = Vec::new();
    while kind != PayloadType::NONE {
        if payloads.len() == MAX_PAYLOADS {
            return Err(DecodeError::TooMany("payloads", MAX_PAYLOADS));
        }
        let next = PayloadType(r.u8("next payload")?);
        r.skip("payload reserved", 1)?;
        let length = usize::from(r.u16("payload length")?);
        let body = length.checked_sub(4).ok_or(DecodeError::Length("payload", length))?;
        payloads.push(Payload::parse(kind, next, r.bytes("payload", body)?)?);
        // RFC 7296 §3.14 and RFC 7383 §2.5: the next payload of SK is the first one inside, and SK is the last.
        kind = if matches!(kind, PayloadType::SK | PayloadType::SKF) { PayloadType::NONE } else { next };
    }
    Ok((payloads, bytes.len() - r.len()))
}

/// Writes a chain of payloads and keeps the next-payload fields right.
#[derive(Debug, Default)]
pub struct ChainWriter {
    w: Writer,
    first: Option<PayloadType>,
    last_at: usize,
}

impl ChainWriter {
    /// An empty chain.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a payload whose body `emit` writes.
    pub fn payload(&mut self, kind: PayloadType, emit: impl FnOnce(&mut Writer)) -> &mut Self {
        let start = self.w.len();
        if self.first.is_none() {
            self.first = Some(kind);
        } else {
            self.w.set_u8(self.last_at, kind.0);
        }
        self.last_at = start;
        self.w.u16(0);
        let length = self.w.mark_u16();
        emit(&mut self.w);
        self.w.patch_len_since(length, start);
        self
    }

    /// Appends a payload with the body `body`.
    pub fn bytes(&mut self, kind: PayloadType, body: &[u8]) -> &mut Self {
        self.payload(kind, |w| {
            w.bytes(body);
        })
    }

    /// A chain that begins with one payload and goes on with `rest`.
    pub(crate) fn with_leading(kind: PayloadType, body: &[u8], rest: &Self) -> Self {
        let mut chain = Self::new();
        chain.bytes(kind, body);
        chain.w.set_u8(0, rest.first().0);
        chain.w.bytes(rest.as_slice());
        chain
    }

    /// Type of the first payload.
    pub fn first(&self) -> PayloadType {
        self.first.unwrap_or(PayloadType::NONE)
    }

    /// The bytes so far.
    pub fn as_slice(&self) -> &[u8] {
        self.w.as_slice()
    }

    /// The finished chain.
    pub fn into_vec(self) -> Vec<u8> {
        self.w.into_vec()
    }
}

/// Writes `bytes` in hexadecimal, the first 32 of them.
pub(crate) fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    for b in bytes.iter().take(32) {
        write!(f, "{b:02x}")?;
    }
    if bytes.len() > 32 { write!(f, "...({} bytes)", bytes.len()) } else { Ok(()) }
}

impl fmt::Display for Payload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sa(sa, _) => write!(f, "SA({sa})"),
            Self::KeyExchange(d) => write!(f, "KE({} bytes)", d.len()),
            Self::Id(id) => write!(f, "ID({} {id})", id.id_type),
            Self::Cert(c) => write!(f, "CERT({}, {} bytes)", c.encoding, c.data.len()),
            Self::CertRequest(c) if c.authority.is_empty() => write!(f, "CERTREQ({}, any)", c.encoding),
            Self::CertRequest(c) => write!(f, "CERTREQ({}, {})", c.encoding, DerName(c.authority)),
            Self::Hash(d) => write!(f, "HASH({} bytes)", d.len()),
            Self::Signature(d) => write!(f, "SIG({} bytes)", d.len()),
            Self::Nonce(d) | Self::NonceV2(d) => write!(f, "NONCE({} bytes)", d.len()),
            Self::Notify(n) => {
                write!(f, "N({}", n.notify_type)?;
                if !n.spi.is_empty() {
                    write!(f, ", {} spi ", n.protocol)?;
                    hex(f, n.spi)?;
                }
                if !n.data.is_empty() {
                    f.write_str(", data ")?;
                    hex(f, n.data)?;
                }
                f.write_str(")")
            }
            Self::Delete(d) => {
                write!(f, "D({}", d.protocol)?;
                for s in d.spis.iter().take(8) {
                    f.write_str(" ")?;
                    hex(f, s)?;
                }
                f.write_str(")")
            }
            Self::VendorId(v) | Self::VendorIdV2(v) => write!(f, "VID({v})"),
            Self::NatD(d) => {
                f.write_str("NAT-D(")?;
                hex(f, d)?;
                f.write_str(")")
            }
            Self::NatOa(Some(a)) => write!(f, "NAT-OA({})", a.address),
            Self::NatOa(None) => f.write_str("NAT-OA(malformed)"),
            Self::Fragment(p) => {
                let last = if p.last { ", last" } else { "" };
                write!(f, "FRAGMENT(id {}, #{}{last}, {} bytes)", p.id, p.number, p.data.len())
            }
            Self::SaV2(sa) => write!(f, "SA({sa})"),
            Self::KeyExchangeV2(k) => write!(f, "KE({}, {} bytes)", k.group, k.data.len()),
            Self::NotifyV2(n) => {
                write!(f, "N({}", n.notify_type)?;
                if !n.data.is_empty() {
                    f.write_str(", data ")?;
                    hex(f, n.data)?;
                }
                f.write_str(")")
            }
            Self::EncryptedV2 { kind: PayloadType::SKF, body: [n0, n1, t0, t1, rest @ ..], .. } => {
                let (number, total) = (u16::from_be_bytes([*n0, *n1]), u16::from_be_bytes([*t0, *t1]));
                write!(f, "SKF({number} of {total}, {} bytes)", rest.len())
            }
            Self::EncryptedV2 { kind, body, first } => write!(f, "{kind}({} bytes, first inside {first})", body.len()),
            Self::Other(kind, d) => write!(f, "{kind}({} bytes)", d.len()),
        }
    }
}
