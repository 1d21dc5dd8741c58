//! Validation of what an IKE peer presents: certificates in CERT payloads, an identity in the ID payload.
//!
//! [`verify_peer`] picks the certificate that belongs to the identity, builds a path from it to a trust anchor out of
//! unordered payloads, validates the path (RFC 5280 §6.1, RFC 4945 §5) and says who the peer is, or in words why not.
//! The signature of the AUTH or SIG payload is not its business: verify that with [`PeerCertificate::spki_der`].
//!
//! Everything a peer can make large is bounded: see [`MAX_CERTIFICATES`], [`MAX_CERTIFICATE_LEN`], [`MAX_PATH`] and
//! [`MAX_SIGNATURE_CHECKS`]. Name constraints and policy constraints of authorities are obeyed. Revocation lists are not evaluated:
//! the gateway asks its own inventory whether the serial is live.

mod constraints;
mod error;
mod identity;
mod path;
mod policies;
mod received;
#[cfg(test)]
mod tests;

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::AlgorithmIdentifier;

use crate::name::{same_name, text};
use crate::{AltName, Fingerprint, KeyAlgorithm, Serial, UnixTime};

pub(crate) use constraints::permits_names;
pub use error::VerifyError;
pub(crate) use identity::address;
pub use identity::{IkeId, describe_id};
pub(crate) use path::is_framed_as_signed;
pub use policies::PolicySettings;

/// How many certificates of one peer are looked at: a chain is three or four, some peers send their whole store.
pub const MAX_CERTIFICATES: usize = 16;
/// How long one certificate or one PKCS #7 wrapping may be, in octets.
pub const MAX_CERTIFICATE_LEN: usize = 16 * 1024;
/// How many certificates a path may have, leaf and anchor included: a company's root and its intermediate, our root as a subordinate
/// of that, one more for a root that changes, an issuing authority, the leaf.
pub const MAX_PATH: usize = 6;
/// How many signatures one validation verifies at most: crafted chains of equal names would otherwise cost a search.
pub const MAX_SIGNATURE_CHECKS: usize = 16;
/// How many anchors and configured intermediates a store holds.
pub const MAX_STORE: usize = 256;

/// One CERT payload as it was received.
#[derive(Clone, Copy, Debug)]
pub struct CertPayload<'a> {
    /// Cert Encoding, RFC 2408 §3.9. X.509 signature (4) and PKCS #7 (1) are read, other encodings are passed over.
    pub encoding: u8,
    /// Certificate Data.
    pub data: &'a [u8],
}

/// What a peer is, which decides the extended key usages that it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerRole {
    /// A client of a gateway: ipsecIKE, ikeIntermediate, clientAuth, the old ipsecEndSystem, or any.
    Machine,
    /// A gateway, seen by a client: ipsecIKE, ikeIntermediate, serverAuth, or any.
    Gateway,
    /// No peer, but an authority: whether a certificate that another authority gave to ours is good. Its extended key usages are
    /// for those below it.
    Authority,
}

/// Who the peer is, once its certificate is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The subject as text, for people.
    pub subject: String,
    /// The subject's distinguished name in DER.
    pub subject_der: Vec<u8>,
    /// The issuer as text.
    pub issuer: String,
    /// The serial number.
    pub serial: Serial,
    /// The common name, if there is exactly one.
    pub common_name: Option<String>,
    /// The alternative names.
    pub alt_names: Vec<AltName>,
    /// The SubjectPublicKeyInfo in DER, to verify the peer's signature with.
    pub spki_der: Vec<u8>,
    /// The kind of key.
    pub key: KeyAlgorithm,
    /// First second of validity.
    pub not_before: UnixTime,
    /// Last second of validity.
    pub not_after: UnixTime,
    /// SHA-256 of the certificate.
    pub fingerprint: Fingerprint,
    /// SHA-256 of the trust anchor at the end of the path.
    pub anchor: Fingerprint,
    /// The certificate in DER.
    pub der: Vec<u8>,
}

impl PeerCertificate {
    /// The name to show for the peer: its common name, else its first alternative name, else its subject.
    pub fn display_name(&self) -> String {
        let alt = || self.alt_names.first().map(|n| crate::name::safe_text(&n.to_string()));
        let common = self.common_name.as_deref().filter(|n| !n.is_empty()).map(crate::name::safe_text);
        common.or_else(alt).unwrap_or_else(|| self.subject.clone())
    }
}

/// The authorities whose word counts, and intermediates that peers may leave out.
#[derive(Clone, Debug, Default)]
pub struct TrustStore {
    anchors: Vec<Authority>,
    intermediates: Vec<Vec<u8>>,
    policies: PolicySettings,
}

/// A trusted authority.
#[derive(Clone, Debug)]
struct Authority {
    der: Vec<u8>,
    subject_der: Vec<u8>,
}

impl TrustStore {
    /// A store that trusts nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the authority of this CA certificate (DER). The same certificate is taken once.
    pub fn add_anchor_der(&mut self, der: &[u8]) -> Result<(), VerifyError> {
        let subject_der = authority_subject(der)?;
        if self.anchors.iter().any(|a| a.der == der) {
            return Ok(());
        }
        if self.anchors.len() >= MAX_STORE {
            return Err(VerifyError::TooMany { what: "trusted authorities", limit: MAX_STORE });
        }
        self.anchors.push(Authority { der: der.to_vec(), subject_der });
        Ok(())
    }

    /// Trusts the authorities of all certificates in a PEM text; says how many there were.
    pub fn add_anchors_pem(&mut self, text: &[u8]) -> Result<usize, VerifyError> {
        let list =
            crate::pem::certificates(text).map_err(|_| VerifyError::Malformed("no certificate in the PEM text"))?;
        list.iter().try_for_each(|der| self.add_anchor_der(der))?;
        Ok(list.len())
    }

    /// Knows this intermediate CA certificate (DER), for peers that do not send it. It is not trusted by itself: the path must
    /// still end in an anchor.
    pub fn add_intermediate_der(&mut self, der: &[u8]) -> Result<(), VerifyError> {
        authority_subject(der)?;
        if self.intermediates.iter().any(|known| known == der) {
            return Ok(());
        }
        if self.intermediates.len() >= MAX_STORE {
            return Err(VerifyError::TooMany { what: "intermediate authorities", limit: MAX_STORE });
        }
        self.intermediates.push(der.to_vec());
        Ok(())
    }

    /// Asks for certificate policies.
    pub fn set_policies(&mut self, policies: PolicySettings) {
        self.policies = policies;
    }

    /// The distinguished names (DER) of the trusted authorities, for CERTREQ payloads.
    pub fn subject_names(&self) -> impl Iterator<Item = &[u8]> {
        self.anchors.iter().map(|a| &a.subject_der[..])
    }

    /// The certificates (DER) of the trusted authorities.
    pub fn anchors(&self) -> impl Iterator<Item = &[u8]> {
        self.anchors.iter().map(|a| &a.der[..])
    }

    /// Whether nobody is trusted.
    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }
}

/// The subject of a CA certificate; the error says why it is none.
fn authority_subject(der: &[u8]) -> Result<Vec<u8>, VerifyError> {
    if der.len() > MAX_CERTIFICATE_LEN {
        return Err(VerifyError::TooLong { limit: MAX_CERTIFICATE_LEN });
    }
    let Ok(([], cert)) = X509Certificate::from_der(der) else {
        return Err(VerifyError::Malformed("not an X.509 certificate in DER"));
    };
    // A version 1 root has no extensions and can be trusted all the same: the operator says so.
    let authority = match cert.basic_constraints() {
        Ok(Some(c)) => c.value.ca,
        Ok(None) => cert.extensions().is_empty(),
        Err(_) => false,
    };
    if authority {
        Ok(cert.subject().as_raw().to_vec())
    } else {
        Err(VerifyError::WrongUsage { subject: text(cert.subject()), what: "it is not an authority's (no CA:TRUE)" })
    }
}

/// Validates a peer's certificate and, if an identity is given, that the certificate is for it.
pub fn verify_peer(
    trust: &TrustStore,
    received: &[CertPayload<'_>],
    id: Option<IkeId<'_>>,
    role: PeerRole,
    now: UnixTime,
) -> Result<PeerCertificate, VerifyError> {
    let ders = received::certificates(received)?;
    let mut certs = Vec::with_capacity(ders.len());
    for der in ders {
        match X509Certificate::from_der(der) {
            Ok(([], cert)) => certs.push(cert),
            // One bad certificate among good ones is passed over; alone it is the reason.
            _ if received.len() > 1 => {}
            _ => return Err(VerifyError::Malformed("not an X.509 certificate in DER")),
        }
    }
    let leaf = pick_leaf(&certs, id.as_ref()).ok_or(VerifyError::Malformed("not an X.509 certificate in DER"))?;
    let anchor = path::validate(trust, &certs, leaf, role, now)?;
    if let Some(id) = &id {
        identity::check(leaf, id)?;
    }
    let key = crate::key::classify(leaf.public_key())
        .map_err(|what| VerifyError::UnsupportedKey { subject: text(leaf.subject()), what })?;
    let mut common_names = leaf.subject().iter_common_name();
    let common_name = match (common_names.next(), common_names.next()) {
        (Some(only), None) => crate::name::attribute_text(only.attr_value()),
        _ => None,
    };
    Ok(PeerCertificate {
        subject: text(leaf.subject()),
        subject_der: leaf.subject().as_raw().to_vec(),
        issuer: text(leaf.issuer()),
        serial: Serial::from_be_bytes(leaf.raw_serial()),
        common_name,
        alt_names: identity::alt_names(leaf),
        spki_der: leaf.public_key().raw.to_vec(),
        key,
        not_before: UnixTime(leaf.validity().not_before.timestamp()),
        not_after: UnixTime(leaf.validity().not_after.timestamp()),
        fingerprint: Fingerprint::of(leaf.as_raw()),
        anchor: Fingerprint::of(anchor),
        der: leaf.as_raw().to_vec(),
    })
}

/// The certificate that is the peer's own: payloads come in any order. It is the first that belongs to the identity, else
/// the first that is no authority's and has issued none of the others, else the first.
fn pick_leaf<'c, 'a>(certs: &'c [X509Certificate<'a>], id: Option<&IkeId<'_>>) -> Option<&'c X509Certificate<'a>> {
    let is_authority = |c: &X509Certificate<'_>| matches!(c.basic_constraints(), Ok(Some(b)) if b.value.ca);
    let has_issued =
        |c: &X509Certificate<'_>| certs.iter().any(|o| o.as_raw() != c.as_raw() && same_name(o.issuer(), c.subject()));
    let named = id.and_then(|id| certs.iter().find(|c| !is_authority(c) && identity::check(c, id).is_ok()));
    named
        .or_else(|| certs.iter().find(|c| !is_authority(c) && !has_issued(c)))
        .or_else(|| certs.iter().find(|c| !is_authority(c)))
        .or_else(|| certs.first())
}

/// Whether a signature algorithm is one that is accepted: RSA or ECDSA with SHA-256 or stronger. SHA-1 and MD5 are not.
pub(crate) fn is_strong_signature(algorithm: &AlgorithmIdentifier<'_>) -> bool {
    /// DER contents of the RSA signatures 1.2.840.113549.1.1.{10 (PSS), 11, 12, 13} and ECDSA 1.2.840.10045.4.3.{2, 3}.
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1];
    const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3];
    match algorithm.algorithm.as_bytes().split_last() {
        Some((10..=13, arcs)) => arcs == RSA,
        Some((2 | 3, arcs)) => arcs == ECDSA,
        _ => false,
    }
}
