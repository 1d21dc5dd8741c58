//! Whether what came back is what was asked for: a certificate for our key, of the authority that we trust.

use sallyport_ca::roots::Roots;
use sallyport_ca::verify::{CertPayload, PeerRole, TrustStore, VerifyError, verify_peer};
use sallyport_ca::{Certificate, Fingerprint, PublicKey, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::enroll::Access;
use crate::{Error, Result};

/// A certificate path has at most this many between leaf and root.
const MAX_MIDDLE: usize = 3;

/// What an answer holds, once it is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Issued {
    /// The machine's certificate.
    pub(crate) leaf: Certificate,
    /// Those between it and a root, the leaf's issuer first, DER.
    pub(crate) middle: Vec<Vec<u8>>,
}

/// Finds the certificate for `key` among `certificates`, and its path to one of `roots`.
pub(crate) fn check(
    certificates: &[Vec<u8>],
    authorities: &[Vec<u8>],
    roots: &[Vec<u8>],
    key: &PublicKey,
    now: UnixTime,
) -> Result<Issued> {
    let ours = certificates.iter().filter_map(|der| Certificate::from_der(der).ok());
    let leaf = ours.into_iter().find(|c| c.spki_der() == key.spki_der()).ok_or_else(|| {
        Error::untrusted(
            "the answer holds no certificate for this machine's key",
            "run the command again, and tell the operator",
        )
    })?;
    // What has signed itself leads nowhere: the roots that count are at hand.
    let others = certificates.iter().chain(authorities).map(Vec::as_slice);
    let candidates: Vec<&[u8]> = others.filter(|d| *d != leaf.der() && !issued(d, d)).collect();
    let middle = path(leaf.der(), &candidates, roots).ok_or_else(|| {
        Error::untrusted(
            "the certificate in the answer is not of the authority that this machine trusts",
            "check --server and the token; something may stand in between",
        )
    })?;
    let issued = Issued { leaf, middle };
    verify(&issued, roots, now)?;
    Ok(issued)
}

/// The certificates between a leaf and a root, by names and signatures.
fn path(leaf: &[u8], candidates: &[&[u8]], roots: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    let (mut last, mut middle) = (leaf, Vec::new());
    loop {
        if roots.iter().any(|root| issued(last, root)) {
            return Some(middle);
        }
        let unused = |der: &&&[u8]| !middle.iter().any(|m: &Vec<u8>| m == **der);
        let issuer = candidates.iter().filter(unused).find(|der| issued(last, der))?;
        if middle.len() == MAX_MIDDLE {
            return None;
        }
        middle.push(issuer.to_vec());
        last = issuer;
    }
}

/// Whether `issuer` signed `certificate`, by name and signature.
pub(crate) fn issued(certificate: &[u8], issuer: &[u8]) -> bool {
    let parse = |der| X509Certificate::from_der(der).ok().map(|(_, c)| c);
    let (Some(certificate), Some(issuer)) = (parse(certificate), parse(issuer)) else { return false };
    let authority = matches!(issuer.basic_constraints(), Ok(Some(b)) if b.value.ca);
    authority
        && certificate.issuer().as_raw() == issuer.subject().as_raw()
        && certificate.verify_signature(Some(issuer.public_key())).is_ok()
}

/// Whether a certificate is a root's: of an authority, and signed by its own key.
pub fn is_root(certificate: &Certificate) -> bool {
    issued(certificate.der(), certificate.der())
}

/// Dates, usages and constraints of the path, as a gateway will look at them.
fn verify(issued: &Issued, roots: &[Vec<u8>], now: UnixTime) -> Result {
    let refused = |e: VerifyError| {
        Error::untrusted(
            format!("the certificate in the answer is not usable: {e}"),
            "check this machine's clock (timedatectl), then ask the operator",
        )
    };
    let mut trust = TrustStore::new();
    roots.iter().try_for_each(|root| trust.add_anchor_der(root)).map_err(refused)?;
    let payloads: Vec<CertPayload<'_>> = std::iter::once(issued.leaf.der())
        .chain(issued.middle.iter().map(Vec::as_slice))
        .map(|data| CertPayload { encoding: 4, data })
        .collect();
    match verify_peer(&trust, &payloads, None, PeerRole::Machine, now) {
        // Gateways enroll, too.
        Err(VerifyError::WrongUsage { .. }) => {
            verify_peer(&trust, &payloads, None, PeerRole::Gateway, now).map_err(refused)?
        }
        other => other.map_err(refused)?,
    };
    Ok(())
}

/// The certificates with these fingerprints: at least one.
pub(crate) fn pinned(authorities: &[Vec<u8>], access: &Access, fingerprints: &[Fingerprint]) -> Result<Vec<Vec<u8>>> {
    let found: Vec<Vec<u8>> =
        authorities.iter().filter(|der| fingerprints.contains(&Fingerprint::of(der))).cloned().collect();
    if !found.is_empty() {
        return Ok(found);
    }
    Err(match access {
        Access::Token(_) => Error::untrusted(
            "the server is not of the authority that made the token",
            "check --server and where its name leads; was the token made for another VPN?",
        ),
        Access::Listed(_) => Error::untrusted(
            "the server is not of the authority with that root",
            "compare the fingerprint with what `sallyport ca show root` says on a controller; check --server and where its name leads",
        ),
    })
}

/// The roots that are trusted from now on: those in force so far, and each new one that one of them vouches for ([`Roots::learn`]). A server
/// alone cannot add one.
pub(crate) fn learn(roots: &[Vec<u8>], authorities: &[Vec<u8>], now: UnixTime) -> Vec<Vec<u8>> {
    let mut known = Roots::of(roots);
    known.learn(authorities, now);
    let known = known.ders();
    // A root that has lapsed vouches for nothing more; but never none.
    let living: Vec<Vec<u8>> =
        known.iter().filter(|der| Certificate::from_der(der).is_ok_and(|c| c.not_after >= now)).cloned().collect();
    if living.is_empty() { known } else { living }
}
