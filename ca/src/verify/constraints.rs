//! Name constraints, RFC 5280 §4.2.1.10: which names the authorities of a path may certify.
//!
//! Everything that an identity is compared with is held against them, the common name of a certificate without alternative
//! names included: otherwise it would be the way around them. Names of kinds that are not understood are refused where an authority
//! constrains names of that kind.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, NameConstraints, ParsedExtension};

use super::VerifyError;
use crate::name::{attribute_text, check_dns_name, safe_text, same_name, text, within};

/// How many subtrees one authority may name, and how many names a certificate below may have: each is compared with each.
const MAX_SUBTREES: usize = 64;
const MAX_NAMES: usize = 128;
/// emailAddress, 1.2.840.113549.1.9.1.
const EMAIL_ADDRESS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1];

/// Holds the names of a path, leaf first, against the constraints of the authorities above each.
pub(super) fn check(path: &[&X509Certificate<'_>], anchor: &X509Certificate<'_>) -> Result<(), VerifyError> {
    let mut above: Vec<(&X509Certificate<'_>, &NameConstraints<'_>)> = Vec::new();
    for (height, cert) in [anchor].into_iter().chain(path.iter().rev().copied()).enumerate() {
        let is_leaf = height == path.len();
        // An authority's certificate for its own next key changes no names.
        if !above.is_empty() && (is_leaf || !same_name(cert.subject(), cert.issuer())) {
            check_one(cert, is_leaf, &above)?;
        }
        let constraints = cert.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::NameConstraints(constraints) => Some(constraints),
            _ => None,
        });
        if let Some(constraints) = constraints {
            let count = |list: &Option<Vec<_>>| list.as_ref().map_or(0, Vec::len);
            if count(&constraints.permitted_subtrees) + count(&constraints.excluded_subtrees) > MAX_SUBTREES {
                return Err(VerifyError::TooMany { what: "name constraints", limit: MAX_SUBTREES });
            }
            above.push((cert, constraints));
        }
    }
    Ok(())
}

/// Whether an authority may certify the names in a certificate.
pub(crate) fn permits_names(cert: &X509Certificate<'_>, authority: &X509Certificate<'_>) -> bool {
    check(&[cert], authority).is_ok()
}

fn check_one(
    cert: &X509Certificate<'_>,
    is_leaf: bool,
    above: &[(&X509Certificate<'_>, &NameConstraints<'_>)],
) -> Result<(), VerifyError> {
    let mailboxes: Vec<String> = cert
        .subject()
        .iter_attributes()
        .filter(|a| a.attr_type().as_bytes() == EMAIL_ADDRESS)
        .filter_map(|a| attribute_text(a.attr_value()))
        .collect();
    let alt_names = cert.subject_alternative_name().ok().flatten();
    // Where there is no alternative name, the common name counts as host name or mailbox.
    let common_names: Vec<String> = match alt_names {
        None if is_leaf => cert.subject().iter_common_name().filter_map(|a| attribute_text(a.attr_value())).collect(),
        _ => Vec::new(),
    };
    let mut names: Vec<GeneralName<'_>> = mailboxes.iter().map(|s| GeneralName::RFC822Name(s)).collect();
    names.extend(common_names.iter().filter_map(|s| match s.contains('@') {
        true => Some(GeneralName::RFC822Name(s)),
        false => check_dns_name(s).is_ok().then_some(GeneralName::DNSName(s)),
    }));
    if cert.subject().iter_rdn().next().is_some() {
        names.push(GeneralName::DirectoryName(cert.subject().clone()));
    }
    names.extend(alt_names.into_iter().flat_map(|san| san.value.general_names.iter().cloned()));
    if names.len() > MAX_NAMES {
        return Err(VerifyError::TooMany { what: "names in one certificate", limit: MAX_NAMES });
    }
    for (authority, constraints) in above {
        if let Some(name) = names.iter().find(|name| !allows(constraints, name)) {
            return Err(VerifyError::NameNotPermitted {
                subject: text(cert.subject()),
                name: describe(name),
                authority: text(authority.subject()),
            });
        }
    }
    Ok(())
}

/// Whether an authority with these constraints may certify the name.
fn allows(constraints: &NameConstraints<'_>, name: &GeneralName<'_>) -> bool {
    let places = |list: &Option<Vec<x509_parser::extensions::GeneralSubtree<'_>>>| -> Vec<Place> {
        list.iter().flatten().map(|subtree| place(name, &subtree.base)).collect()
    };
    if places(&constraints.excluded_subtrees).iter().any(|p| matches!(p, Place::Inside | Place::Unknown)) {
        return false;
    }
    let permitted = places(&constraints.permitted_subtrees);
    permitted.contains(&Place::Inside) || permitted.iter().all(|p| *p == Place::OtherKind)
}

/// Where a name is in relation to a subtree.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Inside,
    Outside,
    /// The subtree is of names of another kind and says nothing about this one.
    OtherKind,
    /// It cannot be told.
    Unknown,
}

fn place(name: &GeneralName<'_>, base: &GeneralName<'_>) -> Place {
    let told = |inside: bool| if inside { Place::Inside } else { Place::Outside };
    match (name, base) {
        (GeneralName::Invalid(..), _) | (_, GeneralName::Invalid(..)) => Place::Unknown,
        (GeneralName::DirectoryName(name), GeneralName::DirectoryName(base)) => told(within(name, base)),
        (GeneralName::DNSName(name), GeneralName::DNSName(base)) => told(host_within(name, base, true)),
        (GeneralName::RFC822Name(name), GeneralName::RFC822Name(base)) => told(mailbox_within(name, base)),
        (GeneralName::URI(uri), GeneralName::URI(base)) => match host_of(uri) {
            Some(host) => told(host_within(host, base, false)),
            None => Place::Unknown,
        },
        (GeneralName::IPAddress(address), GeneralName::IPAddress(base)) => match base.len() {
            8 | 32 => told(address_within(address, base)),
            _ => Place::Unknown,
        },
        _ if core::mem::discriminant(name) == core::mem::discriminant(base) => Place::Unknown,
        _ => Place::OtherKind,
    }
}

/// Whether a host is in a domain. A leading dot means what is below the domain and not itself; without one a constraint of host
/// names means both, one of URIs and mailboxes the host alone.
fn host_within(host: &str, base: &str, and_below: bool) -> bool {
    let (host, base) = (host.to_ascii_lowercase(), base.to_ascii_lowercase());
    let host = host.strip_suffix('.').unwrap_or(&host);
    match base.strip_prefix('.') {
        Some(_) => host.ends_with(&base) && host.len() > base.len(),
        None if base.is_empty() => and_below,
        None => host == base || (and_below && host.strip_suffix(&base).is_some_and(|rest| rest.ends_with('.'))),
    }
}

fn mailbox_within(mailbox: &str, base: &str) -> bool {
    let Some((local, host)) = mailbox.rsplit_once('@') else { return false };
    match base.rsplit_once('@') {
        Some((base_local, base_host)) => local == base_local && host.eq_ignore_ascii_case(base_host),
        None => host_within(host, base, false),
    }
}

/// The host of a URI, if it is a name (RFC 5280 §4.2.1.10 has no constraint for others).
fn host_of(uri: &str) -> Option<&str> {
    let (_, rest) = uri.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = host.split_once(':').map_or(host, |(host, _)| host);
    check_dns_name(host).is_ok().then_some(host)
}

/// Whether an address is in a network: `base` is the network's address and then its mask.
fn address_within(address: &[u8], base: &[u8]) -> bool {
    let (network, mask) = base.split_at(base.len() / 2);
    address.len() == network.len() && address.iter().zip(network).zip(mask).all(|((a, n), m)| (a ^ n) & m == 0)
}

/// The name for a log.
fn describe(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DirectoryName(name) => text(name),
        GeneralName::DNSName(s) | GeneralName::RFC822Name(s) | GeneralName::URI(s) => safe_text(s),
        GeneralName::IPAddress(octets) => {
            super::address(octets).map_or_else(|| "a bad address".to_owned(), |address| address.to_string())
        }
        _ => "a name of a kind that is not understood here".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_mailboxes_and_addresses_are_placed_as_rfc_5280_says() {
        for (host, base, inside) in [
            ("host.example.com", "example.com", true),
            ("Example.COM", "example.com", true),
            ("example.com.", "example.com", true),
            ("badexample.com", "example.com", false),
            ("example.com.evil.net", "example.com", false),
            ("example.com", ".example.com", false),
            ("a.example.com", ".example.com", true),
            (".example.com", ".example.com", false),
            ("anything", "", true),
        ] {
            assert_eq!(host_within(host, base, true), inside, "{host} in {base}");
        }
        for (mailbox, base, inside) in [
            ("ann@example.com", "example.com", true),
            ("ann@host.example.com", "example.com", false),
            ("ann@host.example.com", ".example.com", true),
            ("ann@EXAMPLE.com", "ann@example.com", true),
            ("Ann@example.com", "ann@example.com", false),
            ("bob@example.com", "ann@example.com", false),
            ("example.com", "example.com", false),
        ] {
            assert_eq!(mailbox_within(mailbox, base), inside, "{mailbox} in {base}");
        }
        assert_eq!(host_of("http://a@Host.example:8080/x?y#z"), Some("Host.example"));
        for none in ["urn:x", "http://192.0.2.1/", "http:///x", "ldap://[2001:db8::1]/"] {
            assert_eq!(host_of(none), None, "{none}");
        }
        let network = [192, 0, 2, 0, 255, 255, 255, 0];
        assert!(address_within(&[192, 0, 2, 77], &network) && !address_within(&[192, 0, 3, 77], &network));
        assert!(!address_within(&[0; 16], &network));
    }
}
