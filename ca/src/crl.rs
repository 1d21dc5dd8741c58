//! Revocation lists, RFC 5280 §5: what the authority has taken back, signed by it, so that anybody may carry it.
//!
//! A list that is kept from its reader, and an old one that says less, is all that a hostile carrier can do; so a reader asks
//! several, and what it has learned once it keeps ([`Revocations`]): a certificate that is revoked stays revoked.

mod delta;
mod learned;
mod reason;
mod shard;
mod signers;

use std::collections::BTreeMap;

use core::time::Duration;

use rcgen::{
    CertificateRevocationListParams, CrlDistributionPoint, CrlIssuingDistributionPoint, Issuer, KeyIdMethod,
    RevokedCertParams, SerialNumber,
};
use ring::rand::SecureRandom;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{DistributionPointName, GeneralName, ParsedExtension, X509Extension};
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::authority::{Unsigned, attach_signature, date, tbs_of};
use crate::name::same_name;
use crate::verify::is_strong_signature;
use crate::{Authority, Error, Serial, UnixTime};

pub use self::delta::Delta;
pub use self::learned::{MAX_LISTS, Revocations};
pub use self::reason::{Reason, Status};
pub use self::shard::{SHARDS, shard_of};

/// The list with the certificates of controllers, and of nobody else (its issuing distribution point).
pub const CONTROLLERS: &str = "urn:sallyport:controllers";
/// When the next list comes at the latest. Readers here do not mind: nobody may talk them out of what they know.
const NEXT: Duration = Duration::from_secs(7 * 86_400);
/// deltaCRLIndicator, 2.5.29.27.
const DELTA: &[u8] = &[0x55, 0x1d, 27];
/// Longest list that is read, octets.
pub const MAX_LIST_LEN: usize = 1024 * 1024;

/// A certificate on a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Its serial number.
    pub serial: Serial,
    /// Since when it is revoked.
    pub at: UnixTime,
    /// Why.
    pub reason: Reason,
}

/// What goes into a list.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    /// The addresses where the list is published, exactly as the certificates that it is about name one of them in their CRL
    /// distribution point: a list with others says nothing about them (RFC 5280 §6.3.3). A shard has an address of its own, and
    /// several only where it was published under another name before. None is everything, as a root's own list must be: a root names no
    /// place of a list, and OpenSSL asks for one about the root itself.
    pub distribution_points: &'a [&'a str],
    /// Grows with each list of this distribution point.
    pub number: u64,
    /// All certificates of this distribution point that are revoked or on hold.
    pub revoked: &'a [Revoked],
    /// When it is made.
    pub this_update: UnixTime,
    /// When the next one comes at the latest: readers refuse it afterwards.
    pub next_update: UnixTime,
}

impl Authority {
    /// A list of these certificates, each with the time of its revocation. `scope` says which part of the authority's
    /// certificates it is about, `number` grows with each list of that part. An empty scope is all of them, see
    /// [`Contents::distribution_points`].
    pub fn revocation_list(
        &self,
        scope: &str,
        number: u64,
        revoked: &[(Serial, UnixTime)],
        now: UnixTime,
        rng: &dyn SecureRandom,
    ) -> Result<Vec<u8>, Error> {
        let reason = Reason::Unspecified;
        let revoked: Vec<_> =
            revoked.iter().map(|(serial, at)| Revoked { serial: serial.clone(), at: *at, reason }).collect();
        let next_update = UnixTime(now.0.saturating_add(NEXT.as_secs() as i64));
        let scope: &[&str] = if scope.is_empty() { &[] } else { &[scope] };
        let contents =
            Contents { distribution_points: scope, number, revoked: &revoked, this_update: now, next_update };
        self.sign_revocation_list(&self.prepare_revocation_list(&contents)?, rng)
    }

    /// What [`Self::sign_revocation_list`] will sign, a TBSCertList in DER; the authority's key is not touched. Equal contents give
    /// equal bytes.
    pub fn prepare_revocation_list(&self, contents: &Contents<'_>) -> Result<Vec<u8>, Error> {
        self.prepare_list(contents, Vec::new())
    }

    /// The same with further entries, of a kind that complete lists have none of.
    fn prepare_list(&self, contents: &Contents<'_>, further: Vec<RevokedCertParams>) -> Result<Vec<u8>, Error> {
        if contents.next_update <= contents.this_update {
            return Err(Error::Validity("the list would never be valid"));
        }
        let revoked_certs = contents.revoked.iter().map(|entry| {
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from_slice(entry.serial.as_be_bytes()),
                revocation_time: date(entry.at)?,
                reason_code: entry.reason.encoded(),
                invalidity_date: None,
            })
        });
        let points = contents.distribution_points;
        let params = CertificateRevocationListParams {
            this_update: date(contents.this_update)?,
            next_update: date(contents.next_update)?,
            crl_number: SerialNumber::from(contents.number),
            issuing_distribution_point: (!points.is_empty()).then(|| CrlIssuingDistributionPoint {
                distribution_point: CrlDistributionPoint { uris: points.iter().map(|p| (*p).to_owned()).collect() },
                scope: None,
            }),
            revoked_certs: revoked_certs.chain(further.into_iter().map(Ok)).collect::<Result<_, Error>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let unsigned = Unsigned { spki: &self.key().public_key(), algorithm: self.key().signature_algorithm() };
        let issuer = Issuer::from_ca_cert_der(&self.certificate().der().into(), unsigned)
            .map_err(|_| Error::Authority("its name or extensions cannot be copied"))?;
        let draft = params.signed_by(&issuer).map_err(|_| Error::Crypto("the revocation list could not be encoded"))?;
        tbs_of(draft.der())
    }

    /// Signs what [`Self::prepare_revocation_list`] built.
    pub fn sign_revocation_list(&self, tbs: &[u8], rng: &dyn SecureRandom) -> Result<Vec<u8>, Error> {
        // version, then the algorithm (RFC 5280 §5.1).
        attach_signature(tbs, &[crate::der::INTEGER], self.key(), rng)
    }
}

/// A list whose signature is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationList {
    /// Its number, big-endian without leading zeros.
    pub number: Serial,
    /// Which part of the authority's certificates it is about: its distribution point, empty where it has none.
    pub scope: String,
    /// The revoked certificates, and when they were.
    pub revoked: BTreeMap<Serial, UnixTime>,
}

impl RevocationList {
    /// Reads a list in DER that one of these authorities (certificates in DER) has signed. Its age does not matter.
    pub fn verify(der: &[u8], authorities: &[Vec<u8>]) -> Result<Self, Error> {
        const BAD: fn(&'static str) -> Error = Error::RevocationList;
        if der.len() > MAX_LIST_LEN {
            return Err(BAD("it is too long"));
        }
        let Ok(([], list)) = CertificateRevocationList::from_der(der) else {
            return Err(BAD("it is none in DER"));
        };
        if list.signature_algorithm != list.tbs_cert_list.signature || !is_strong_signature(&list.signature_algorithm) {
            return Err(BAD("its signature is of a weak or unclear kind"));
        }
        understood(&list).map_err(BAD)?;
        let signed = authorities.iter().any(|authority| {
            X509Certificate::from_der(authority).is_ok_and(|(_, authority)| {
                same_name(list.issuer(), authority.subject())
                    && may_sign_lists(&authority)
                    && list.verify_signature(authority.public_key()).is_ok()
            })
        });
        if !signed {
            return Err(BAD("none of the trusted authorities has signed it"));
        }
        let number = list.crl_number().ok_or(BAD("it has no number"))?;
        let entries = list.iter_revoked_certificates();
        let revoked = entries.map(|c| (Serial::from_be_bytes(c.raw_serial()), UnixTime(c.revocation_date.timestamp())));
        let number = Serial::from_be_bytes(&number.to_bytes_be());
        Ok(Self { number, scope: scope(&list), revoked: revoked.collect() })
    }
}

/// The first address of the issuing distribution point, if the list has one.
fn scope(list: &CertificateRevocationList<'_>) -> String {
    let point = list.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::IssuingDistributionPoint(point) => point.distribution_point.as_ref(),
        _ => None,
    });
    let Some(DistributionPointName::FullName(names)) = point else { return String::new() };
    let address = names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    });
    address.unwrap_or_default()
}

/// Whether an authority's key usage, if it has one, allows it to sign lists (RFC 5280 §4.2.1.3).
fn may_sign_lists(authority: &X509Certificate<'_>) -> bool {
    authority.key_usage().is_ok_and(|usage| usage.is_none_or(|u| u.value.crl_sign()))
}

/// Refuses a list that is not a whole one of its issuer's own certificates, or that has what must be understood and is not (RFC 5280
/// §5.2, §5.3): its entries may not mean what they seem to.
fn understood(list: &CertificateRevocationList<'_>) -> Result<(), &'static str> {
    for extension in list.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::CRLNumber(_) | ParsedExtension::AuthorityKeyIdentifier(_) => {}
            ParsedExtension::IssuingDistributionPoint(point) if point.indirect_crl => {
                return Err("it is about certificates of other authorities, too");
            }
            ParsedExtension::IssuingDistributionPoint(point) if point.only_contains_attribute_certs => {
                return Err("it is about attribute certificates");
            }
            ParsedExtension::IssuingDistributionPoint(_) => {}
            ParsedExtension::ParseError { .. } => return Err("an extension of it cannot be read"),
            _ if extension.oid.as_bytes() == DELTA => return Err("it is only the change of another one"),
            _ if extension.critical => return Err("it has an extension that must be understood and is not"),
            _ => {}
        }
    }
    let plain = |e: &X509Extension<'_>| {
        let known = matches!(e.parsed_extension(), ParsedExtension::ReasonCode(_) | ParsedExtension::InvalidityDate(_));
        known || !e.critical
    };
    if list.iter_revoked_certificates().flat_map(|entry| entry.extensions()).all(plain) {
        Ok(())
    } else {
        Err("an entry has an extension that must be understood and is not")
    }
}

#[cfg(test)]
mod tests;
