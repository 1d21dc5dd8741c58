//! Path building and validation, RFC 5280 §6.1, for a store of certificate anchors.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Version;

use super::{MAX_PATH, MAX_SIGNATURE_CHECKS, PeerRole, PolicySettings, TrustStore, VerifyError, is_strong_signature};
use super::{constraints, policies};
use crate::UnixTime;
use crate::der::{BIT_STRING, CONTEXT_0, Der, INTEGER, SEQUENCE, only};
use crate::name::{same_name, text};

/// Extended key usages by the DER contents of their identifiers.
const IPSEC_IKE: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 17];
const IKE_INTERMEDIATE: &[u8] = &[0x2b, 6, 1, 5, 5, 8, 2, 2];
const IPSEC_END_SYSTEM: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 5];

struct Search<'s, 'c, 'a> {
    intermediates: Vec<&'c X509Certificate<'a>>,
    anchors: &'c [(X509Certificate<'s>, &'s [u8])],
    role: PeerRole,
    policies: &'s PolicySettings,
    now: UnixTime,
    signature_checks: usize,
    /// The first reason that a whole path was refused for.
    refused: Option<VerifyError>,
    /// The reason where the search got stuck, for when there was no whole path.
    stuck: Option<VerifyError>,
}

/// Finds a valid path from `leaf` to an anchor; says the anchor (DER).
///
/// The causes are told apart by the order of the work: a path is first built from names and signatures alone, and only a
/// whole path is then held against dates, constraints and usages. So the expired certificate of a strange authority is
/// reported as a strange authority's, and that of our own as expired.
pub(super) fn validate<'s>(
    trust: &'s TrustStore,
    received: &[X509Certificate<'_>],
    leaf: &X509Certificate<'_>,
    role: PeerRole,
    now: UnixTime,
) -> Result<&'s [u8], VerifyError> {
    // Both were parsed when they were added to the store.
    let parse = |der: &'s [u8]| X509Certificate::from_der(der).ok().map(|(_, cert)| (cert, der));
    let anchors: Vec<_> = trust.anchors().filter_map(parse).collect();
    let known: Vec<_> = trust.intermediates.iter().filter_map(|der| parse(der)).collect();
    let mut search = Search {
        intermediates: received
            .iter()
            .chain(known.iter().map(|(c, _)| c))
            .filter(|c| c.as_raw() != leaf.as_raw())
            .collect(),
        anchors: &anchors,
        role,
        policies: &trust.policies,
        now,
        signature_checks: 0,
        refused: None,
        stuck: None,
    };
    match search.extend(&mut vec![leaf]) {
        Some(anchor) => Ok(anchor),
        None => Err(search.refused.or(search.stuck).unwrap_or_else(|| unknown_issuer(leaf))),
    }
}

/// Whether what no signature covers, the frame around the part that is signed, is the one way to write it: the algorithm is that within
/// (RFC 5280 §4.1.1.2), octet by octet. A parser that looks at less takes a certificate in several encodings, each with a fingerprint of its own.
pub(crate) fn is_framed_as_signed(der: &[u8]) -> bool {
    let framed = || {
        let mut certificate = Der::new(only(der, SEQUENCE)?.content);
        let signed = certificate.expect(SEQUENCE)?;
        let outer = certificate.expect(SEQUENCE)?;
        certificate.expect(BIT_STRING).filter(|_| certificate.is_empty())?;
        let mut signed = Der::new(signed.content);
        signed.take_if(CONTEXT_0); // the version
        signed.expect(INTEGER)?;
        (signed.expect(SEQUENCE)?.whole == outer.whole).then_some(())
    };
    framed().is_some()
}

fn unknown_issuer(cert: &X509Certificate<'_>) -> VerifyError {
    VerifyError::UnknownIssuer { subject: text(cert.subject()), issuer: text(cert.issuer()) }
}

impl<'s, 'c, 'a> Search<'s, 'c, 'a> {
    /// Extends a path whose signatures are good, depth first, anchors before intermediates.
    fn extend(&mut self, path: &mut Vec<&'c X509Certificate<'a>>) -> Option<&'s [u8]> {
        let last = *path.last()?;
        let mut found_issuer = false;
        let anchors = self.anchors;
        for (anchor, der) in anchors {
            if !issued(last, anchor) {
                continue;
            }
            match self.verify_signature(last, anchor) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(()) => return None,
            }
            found_issuer = true;
            let checked = check_path(path, anchor, self.role, self.now)
                .and_then(|()| constraints::check(path, anchor))
                .and_then(|()| policies::check(path, self.policies));
            match checked {
                Ok(()) => return Some(der),
                Err(reason) => drop(self.refused.get_or_insert(reason)),
            }
        }
        if path.len() + 1 >= MAX_PATH {
            if !found_issuer {
                self.stuck = Some(VerifyError::PathTooLong { subject: text(last.subject()) });
            }
            return None;
        }
        for i in 0..self.intermediates.len() {
            let Some(candidate) = self.intermediates.get(i).copied() else { break };
            let repeated = path.iter().any(|c| c.as_raw() == candidate.as_raw());
            if repeated || !issued(last, candidate) {
                continue;
            }
            match self.verify_signature(last, candidate) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(()) => return None,
            }
            found_issuer = true;
            path.push(candidate);
            let found = self.extend(path);
            path.pop();
            if found.is_some() {
                return found;
            }
        }
        if !found_issuer && self.stuck.is_none() {
            self.stuck = Some(unknown_issuer(last));
        }
        None
    }

    /// Whether `issuer` signed `cert`; an error when the work allowed for one peer is used up.
    fn verify_signature(&mut self, cert: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> Result<bool, ()> {
        if self.signature_checks >= MAX_SIGNATURE_CHECKS {
            self.stuck = Some(VerifyError::TooMany { what: "possible chains", limit: MAX_SIGNATURE_CHECKS });
            return Err(());
        }
        self.signature_checks += 1;
        let subject = || text(cert.subject());
        if !is_framed_as_signed(cert.as_raw()) || cert.tbs_certificate.signature != cert.signature_algorithm {
            self.stuck = Some(VerifyError::Malformed("two different signature algorithms in one certificate"));
            return Ok(false);
        }
        if !is_strong_signature(&cert.signature_algorithm) {
            let algorithm = cert.signature_algorithm.algorithm.to_string();
            self.stuck = Some(VerifyError::WeakSignature { subject: subject(), algorithm });
            return Ok(false);
        }
        // A signature is whole octets; the library does not look at how many bits of the last one are said not to count.
        let whole = cert.signature_value.unused_bits == 0;
        if whole && cert.verify_signature(Some(issuer.public_key())).is_ok() {
            return Ok(true);
        }
        self.stuck = Some(VerifyError::BadSignature { subject: subject(), issuer: text(cert.issuer()) });
        Ok(false)
    }
}

/// Whether `issuer` is who `cert` names as its issuer: by distinguished name, and by key identifier if both have one. An
/// authority that was made anew under its old name differs in the latter and is a strange one.
fn issued(cert: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    if !same_name(cert.issuer(), issuer.subject()) {
        return false;
    }
    let wanted = cert.iter_extensions().find_map(|e| match e.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(aki) => aki.key_identifier.as_ref().map(|k| k.0),
        _ => None,
    });
    let own = issuer.iter_extensions().find_map(|e| match e.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(ski) => Some(ski.0),
        _ => None,
    });
    match (wanted, own) {
        (Some(wanted), Some(own)) => wanted == own,
        _ => true,
    }
}

/// Dates, extensions, constraints and usages of a whole path, leaf first.
fn check_path(
    path: &[&X509Certificate<'_>],
    anchor: &X509Certificate<'_>,
    role: PeerRole,
    now: UnixTime,
) -> Result<(), VerifyError> {
    let whole = || path.iter().copied().chain([anchor]);
    for cert in whole() {
        let (from, to) = (cert.validity().not_before.timestamp(), cert.validity().not_after.timestamp());
        if now.0 > to {
            return Err(VerifyError::Expired { subject: text(cert.subject()), not_after: UnixTime(to), now });
        }
        if now.0 < from {
            return Err(VerifyError::NotYetValid { subject: text(cert.subject()), not_before: UnixTime(from), now });
        }
    }
    for (depth, cert) in whole().enumerate() {
        let is_anchor = depth == path.len();
        let extensions = check_extensions(cert)?;
        let wrong = |what| Err(VerifyError::WrongUsage { subject: text(cert.subject()), what });
        if depth == 0 && role != PeerRole::Authority {
            if extensions.authority {
                return wrong("it is an authority's own certificate");
            }
            // RFC 4945 §5.1.3.2: digitalSignature or nonRepudiation, if there is a key usage at all.
            if extensions.key_usage.is_some_and(|flags| flags & 0b11 == 0) {
                return wrong("its key usage does not allow signatures");
            }
        } else {
            // A version 1 anchor has no extensions; the operator's trust stands for them.
            let trusted_v1 = is_anchor && cert.version() != X509Version::V3;
            if !extensions.authority && !trusted_v1 {
                return wrong("it is not an authority's (no CA:TRUE)");
            }
            // keyCertSign is bit 5.
            if extensions.key_usage.is_some_and(|flags| flags & 1 << 5 == 0) {
                return wrong("its key usage does not allow issuing certificates");
            }
            // Certificates between this one and the leaf; those that an authority issued to itself do not count.
            let below = path.iter().take(depth).skip(1).filter(|c| !same_name(c.subject(), c.issuer())).count();
            if extensions.path_len.is_some_and(|limit| below > limit as usize) {
                return Err(VerifyError::PathTooLong { subject: text(cert.subject()) });
            }
        }
        if !is_anchor && !extensions.allows(role) {
            return wrong("its extended key usage is for something else");
        }
    }
    Ok(())
}

/// What the extensions of one certificate say.
struct Extensions {
    authority: bool,
    path_len: Option<u32>,
    key_usage: Option<u16>,
    /// `None` where there is no extended key usage: then any is allowed (RFC 4945 §5.1.3.12).
    usages: Option<Usages>,
}

struct Usages {
    any: bool,
    ipsec: bool,
    end_system: bool,
    server: bool,
    client: bool,
}

impl Extensions {
    /// An authority's extended key usages bound those of what it issues, as everybody but RFC 5280 has it.
    fn allows(&self, role: PeerRole) -> bool {
        let Some(u) = &self.usages else { return true };
        let by_role = match role {
            PeerRole::Machine => u.client || u.end_system,
            PeerRole::Gateway => u.server,
            PeerRole::Authority => true,
        };
        u.any || u.ipsec || by_role
    }
}

fn check_extensions(cert: &X509Certificate<'_>) -> Result<Extensions, VerifyError> {
    let mut out = Extensions { authority: false, path_len: None, key_usage: None, usages: None };
    let mut seen: Vec<&[u8]> = Vec::with_capacity(cert.extensions().len());
    for extension in cert.iter_extensions() {
        let oid = extension.oid.as_bytes();
        if seen.contains(&oid) {
            return Err(VerifyError::Malformed("an extension comes twice"));
        }
        if seen.len() >= 64 {
            return Err(VerifyError::TooMany { what: "extensions", limit: 64 });
        }
        seen.push(oid);
        let unsupported = || VerifyError::UnsupportedExtension {
            subject: text(cert.subject()),
            extension: extension.oid.to_string(),
        };
        match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(c) => {
                out.authority = c.ca;
                out.path_len = c.path_len_constraint;
            }
            ParsedExtension::KeyUsage(u) => out.key_usage = Some(u.flags),
            ParsedExtension::ExtendedKeyUsage(u) => {
                let other = |wanted: &[u8]| u.other.iter().any(|oid| oid.as_bytes() == wanted);
                out.usages = Some(Usages {
                    any: u.any,
                    ipsec: other(IPSEC_IKE) || other(IKE_INTERMEDIATE),
                    end_system: other(IPSEC_END_SYSTEM),
                    server: u.server_auth,
                    client: u.client_auth,
                });
            }
            // Names and policies are looked at along the whole path, revocation elsewhere than where the certificate points.
            ParsedExtension::SubjectAlternativeName(_)
            | ParsedExtension::CertificatePolicies(_)
            | ParsedExtension::PolicyMappings(_)
            | ParsedExtension::PolicyConstraints(_)
            | ParsedExtension::InhibitAnyPolicy(_)
            | ParsedExtension::NameConstraints(_)
            | ParsedExtension::CRLDistributionPoints(_)
            | ParsedExtension::AuthorityKeyIdentifier(_)
            | ParsedExtension::SubjectKeyIdentifier(_) => {}
            ParsedExtension::ParseError { .. } => {
                return Err(VerifyError::Malformed("an extension cannot be read"));
            }
            _ if extension.critical => return Err(unsupported()),
            _ => {}
        }
    }
    Ok(out)
}
