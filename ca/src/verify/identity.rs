//! Does the certificate belong to the identity in the ID payload? RFC 4945 §3.1: the identity must stand in the
//! certificate, as its subject or as an alternative name of the same kind.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Name;

use super::VerifyError;
use crate::AltName;
use crate::name::{attribute_text, safe_text, same_name, text, text_of_name};

const ID_IPV4_ADDR: u8 = 1;
const ID_FQDN: u8 = 2;
const ID_USER_FQDN: u8 = 3;
const ID_IPV6_ADDR: u8 = 5;
const ID_DER_ASN1_DN: u8 = 9;
const ID_KEY_ID: u8 = 11;

/// How many alternative names of a peer are looked at.
const MAX_ALT_NAMES: usize = 64;

/// The body of an ID payload (RFC 2407 §4.6.2, RFC 7296 §3.5), without protocol and port.
#[derive(Clone, Copy, Debug)]
pub struct IkeId<'a> {
    /// ID Type.
    pub id_type: u8,
    /// Identification Data.
    pub data: &'a [u8],
}

/// An identity as text for a log.
pub fn describe_id(id: IkeId<'_>) -> String {
    match id.id_type {
        ID_IPV4_ADDR | ID_IPV6_ADDR => match address(id.data) {
            Some(address) => address.to_string(),
            None => format!("an address of {} octets", id.data.len()),
        },
        ID_FQDN | ID_USER_FQDN => safe_text(&String::from_utf8_lossy(id.data)),
        ID_DER_ASN1_DN => text_of_name(id.data),
        ID_KEY_ID => format!("key id of {} octets", id.data.len()),
        other => format!("an identity of type {other}"),
    }
}

/// Four or sixteen octets as an address.
pub(crate) fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(|o| IpAddr::V4(Ipv4Addr::from(o)));
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(|o| IpAddr::V6(Ipv6Addr::from(o)))).ok()
}

/// The alternative names of a certificate of the kinds that are compared. Entries of other kinds, with characters outside
/// ASCII or with a wrong length are left out: they match nothing.
pub(super) fn alt_names(cert: &X509Certificate<'_>) -> Vec<AltName> {
    let Ok(Some(extension)) = cert.subject_alternative_name() else { return Vec::new() };
    let ascii = |s: &str| s.is_ascii().then(|| s.to_owned());
    let names = extension.value.general_names.iter().take(MAX_ALT_NAMES);
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(dns) => ascii(dns).map(AltName::Dns),
            GeneralName::RFC822Name(email) => ascii(email).map(AltName::Email),
            GeneralName::IPAddress(octets) => address(octets).map(AltName::Ip),
            _ => None,
        })
        .collect()
}

/// Checks that the certificate is for this identity.
///
/// A certificate without any alternative name comes from an authority of the old school; there the common name counts as
/// the host name or mailbox. With an alternative name it never does (RFC 4945 §3.1.2).
pub(super) fn check(cert: &X509Certificate<'_>, id: &IkeId<'_>) -> Result<(), VerifyError> {
    let names = alt_names(cert);
    let common_name_is = |wanted: &str| {
        matches!(cert.subject_alternative_name(), Ok(None))
            && cert
                .subject()
                .iter_common_name()
                .any(|cn| attribute_text(cn.attr_value()).is_some_and(|s| s.eq_ignore_ascii_case(wanted)))
    };
    let wanted = core::str::from_utf8(id.data).ok().filter(|s| s.is_ascii() && !s.is_empty());
    let matches = match (id.id_type, wanted) {
        (ID_IPV4_ADDR | ID_IPV6_ADDR, _) => {
            let claimed = address(id.data);
            names.iter().any(|n| matches!(n, AltName::Ip(a) if Some(*a) == claimed))
        }
        (ID_FQDN, Some(wanted)) => {
            names.iter().any(|n| matches!(n, AltName::Dns(s) if s.eq_ignore_ascii_case(wanted)))
                || common_name_is(wanted)
        }
        (ID_USER_FQDN, Some(wanted)) => {
            names.iter().any(|n| matches!(n, AltName::Email(s) if same_mailbox(s, wanted))) || common_name_is(wanted)
        }
        (ID_DER_ASN1_DN, _) => match X509Name::from_der(id.data) {
            // An empty subject would match every certificate that has none.
            Ok(([], name)) => name.iter_rdn().next().is_some() && same_name(&name, cert.subject()),
            _ => return Err(VerifyError::Malformed("the identity is not a distinguished name")),
        },
        _ => false,
    };
    if matches {
        return Ok(());
    }
    let mut certified = text(cert.subject());
    for name in names.iter().take(4) {
        certified.push_str(" / ");
        certified.push_str(&safe_text(&name.to_string()));
    }
    Err(VerifyError::NameMismatch { claimed: describe_id(*id), certified })
}

/// Mailboxes are the same if the local parts are equal and the domains are without regard to case (RFC 5280 §7.5).
fn same_mailbox(a: &str, b: &str) -> bool {
    match (a.rsplit_once('@'), b.rsplit_once('@')) {
        (Some((la, da)), Some((lb, db))) => la == lb && da.eq_ignore_ascii_case(db),
        _ => false,
    }
}
