//! Delta lists, an option: what changed since a complete list (RFC 5280 §5.2.4), and where that is to be found (§5.2.6). Nothing here
//! reads one: our own readers take complete lists only.

use rcgen::{RevocationReason, RevokedCertParams, SerialNumber};

use super::{Contents, date};
use crate::authority::Authority;
use crate::der::{self, CONTEXT_0, Der, OCTET_STRING, SEQUENCE};
use crate::{Error, Serial};

/// freshestCRL, 2.5.29.46, and deltaCRLIndicator, 2.5.29.27.
const FRESHEST: &[u8] = &[0x55, 0x1d, 46];
const DELTA: &[u8] = super::DELTA;
/// `[6]`, a uniformResourceIdentifier among the general names.
const URI: u8 = 0x86;
/// TRUE.
const CRITICAL: &[u8] = &[1, 1, 0xff];

/// What makes a list one of changes.
#[derive(Clone, Copy, Debug)]
pub struct Delta<'a> {
    /// Number of the complete list that it starts from. Whoever has that one, or a later one, of the same distribution points can apply
    /// the changes to it.
    pub base: u64,
    /// What may be on such a list and is not revoked any more: it was on hold and is released.
    pub removed: &'a [Serial],
}

impl Authority {
    /// As [`Self::prepare_revocation_list`], with the address where changes of this list are published.
    pub fn prepare_revocation_list_with_delta(&self, contents: &Contents<'_>, address: &str) -> Result<Vec<u8>, Error> {
        let plain =
            address.starts_with("http://") && address.len() <= 255 && address.bytes().all(|b| b.is_ascii_graphic());
        if !plain {
            return Err(Error::RevocationList("a delta list has a plain http address"));
        }
        // DistributionPoint { distributionPoint [0] { fullName [0] { URI } } }, RFC 5280 §4.2.1.13.
        let names = der::encode(CONTEXT_0, &[&der::encode(URI, &[address.as_bytes()])]);
        let point = der::encode(SEQUENCE, &[&der::encode(CONTEXT_0, &[&names])]);
        let value = der::encode(SEQUENCE, &[&point]);
        with_extension(&self.prepare_revocation_list(contents)?, &extension(FRESHEST, &[], &value))
    }

    /// The changes since a complete list, to be signed like one. `contents` are those of a complete list, but what is revoked is only
    /// what has changed since; its number comes from the same order as those of complete lists (RFC 5280 §5.2.3).
    pub fn prepare_delta_list(&self, contents: &Contents<'_>, delta: &Delta<'_>) -> Result<Vec<u8>, Error> {
        if delta.base > contents.number {
            return Err(Error::RevocationList("it would start from a list that is newer than itself"));
        }
        // When something was released is nobody's concern; that it is so stands as long as the list does.
        let at = date(contents.this_update)?;
        let removed = delta.removed.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial.as_be_bytes()),
            revocation_time: at,
            reason_code: Some(RevocationReason::RemoveFromCrl),
            invalidity_date: None,
        });
        let base = der::unsigned(&delta.base.to_be_bytes());
        with_extension(&self.prepare_list(contents, removed.collect())?, &extension(DELTA, CRITICAL, &base))
    }
}

fn extension(oid: &[u8], critical: &[u8], value: &[u8]) -> Vec<u8> {
    der::encode(SEQUENCE, &[&der::oid(oid), critical, &der::encode(OCTET_STRING, &[value])])
}

/// A TBSCertList with one extension more. Its extensions are its last field (RFC 5280 §5.1).
fn with_extension(tbs: &[u8], extension: &[u8]) -> Result<Vec<u8>, Error> {
    let inserted = || {
        let content = der::only(tbs, SEQUENCE)?.content;
        let (mut fields, mut last) = (Der::new(content), None);
        while !fields.is_empty() {
            last = Some(fields.next()?);
        }
        let last = last.filter(|last| last.tag == CONTEXT_0)?;
        let before = content.get(..content.len().checked_sub(last.whole.len())?)?;
        let extensions = der::only(last.content, SEQUENCE)?.content;
        let extensions = der::encode(CONTEXT_0, &[&der::encode(SEQUENCE, &[extensions, extension])]);
        Some(der::encode(SEQUENCE, &[before, &extensions]))
    };
    inserted().ok_or(Error::Crypto("the revocation list could not be encoded"))
}
