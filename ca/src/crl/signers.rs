//! Authorities below a root may sign a list of their cluster, too: the root's key can be away. A list then travels with the
//! certificates between its signer and a root, all in DER, one behind the other.

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::name::same_name;
use crate::verify::is_strong_signature;

/// Certificates that are looked at in what one controller says.
pub(super) const MAX_SIGNERS: usize = super::MAX_LISTS * MAX_DEPTH;
/// Authorities from a signer to the last one below a root.
const MAX_DEPTH: usize = 4;

fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(der).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, certificate)| certificate)
}

/// Whether this is a certificate, and not a list.
pub(super) fn is_certificate(der: &[u8]) -> bool {
    parse(der).is_some()
}

/// The certificates from one that may sign lists to the last one below a root, if there is such a path by names, signatures, usages
/// and path lengths (RFC 5280 §6.1.4). Dates do not matter, as those of lists do not: whoever was told something keeps it.
pub(super) fn path<'a>(signer: &'a [u8], given: &'a [Vec<u8>], roots: &[Vec<u8>]) -> Option<Vec<&'a [u8]>> {
    let mut path = vec![signer];
    is_authority(&parse(signer)?, 0).then_some(())?;
    extend(&mut path, given, roots).then_some(path)
}

fn extend<'a>(path: &mut Vec<&'a [u8]>, given: &'a [Vec<u8>], roots: &[Vec<u8>]) -> bool {
    let Some(last) = path.last().and_then(|der| parse(der)) else { return false };
    // The signer is the end of the path, and does not count.
    let below = path.len() - 1;
    if roots.iter().filter_map(|der| parse(der)).any(|root| is_authority(&root, below) && issued(&last, &root)) {
        return true;
    }
    if path.len() == MAX_DEPTH {
        return false;
    }
    for candidate in given {
        let fits = parse(candidate).is_some_and(|above| is_authority(&above, below) && issued(&last, &above));
        if !fits || path.contains(&candidate.as_slice()) {
            continue;
        }
        path.push(candidate);
        if extend(path, given, roots) {
            return true;
        }
        path.pop();
    }
    false
}

fn is_authority(certificate: &X509Certificate<'_>, below: usize) -> bool {
    let constraints = certificate.basic_constraints().ok().flatten().map(|c| c.value);
    let usage = certificate.key_usage().ok().map(|usage| usage.is_none_or(|u| u.value.key_cert_sign()));
    let long_enough = |limit: Option<u32>| limit.is_none_or(|limit| below <= limit as usize);
    constraints.is_some_and(|c| c.ca && long_enough(c.path_len_constraint)) && usage == Some(true)
}

fn issued(certificate: &X509Certificate<'_>, above: &X509Certificate<'_>) -> bool {
    same_name(certificate.issuer(), above.subject())
        && is_strong_signature(&certificate.signature_algorithm)
        && certificate.verify_signature(Some(above.public_key())).is_ok()
}
