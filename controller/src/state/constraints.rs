//! Name constraints (RFC 5280 §4.2.1.10) of issuing authorities, an option. Since level 8.
//!
//! A constraint of host names also counts for certificates whose only name is a common name (OpenSSL, GnuTLS and NSS each have it
//! so), as operators' are, and controllers have names that no site chose. So an authority with constraints issues what clients and
//! gateways show each other, and nothing else; all others have theirs from one without, of which there is always one.

use sallyport_ca::{NameConstraints, Outside, Profile, Subject};
use sallyport_proto::v1;

use super::{CertificateRow, ConflictKind, ConstraintsRow, IssuerRow, NewIssuer, Reply, State};
use crate::authority::{alt_name, profile_to_proto};

/// The level from which on issuing authorities may have name constraints (see `software`).
pub(crate) const CONSTRAINTS_LEVEL: u32 = 8;
/// What an authority with constraints issues: profiles that are judged by names.
const BOUND: [Profile; 2] = [Profile::Machine, Profile::Gateway];

/// Whether certificates of a profile come from an authority with constraints, if there is one.
pub(super) fn is_bound(profile: v1::CertificateProfile) -> bool {
    BOUND.into_iter().any(|bound| profile_to_proto(bound) == profile)
}

impl ConstraintsRow {
    /// The row of constraints; none for none.
    pub fn of(constraints: &NameConstraints) -> Option<Self> {
        let texts = |list: &[sallyport_ca::Subtree]| list.iter().map(ToString::to_string).collect();
        let (permitted, excluded) = (texts(constraints.permitted()), texts(constraints.excluded()));
        (!constraints.is_empty()).then_some(Self { permitted, excluded })
    }

    /// The constraints, if they are any.
    pub fn read(&self) -> Option<NameConstraints> {
        let list = |texts: &[String]| texts.iter().map(|text| text.parse().ok()).collect::<Option<Vec<_>>>();
        NameConstraints::new(list(&self.permitted)?, list(&self.excluded)?).ok().filter(|read| !read.is_empty())
    }
}

impl IssuerRow {
    /// Whether it may certify some names only.
    pub fn is_constrained(&self) -> bool {
        self.constraints.is_some()
    }

    /// Whether it may certify these, all that stand in a certificate of that common name.
    fn permits(&self, name: &str, sans: &[String]) -> Result<(), Outside> {
        let Some(constraints) = self.constraints.as_ref().and_then(ConstraintsRow::read) else { return Ok(()) };
        // The name itself is among the others wherever it can be one.
        let mut names = Subject::new(name, Vec::new()).map_or_else(|_| Vec::new(), |own| own.alt_names().to_vec());
        names.extend(sans.iter().map(|san| alt_name(san)));
        constraints.check(name, &names)
    }
}

impl State {
    /// Whether some issuing authority in force has constraints.
    pub(super) fn has_constraints(&self) -> bool {
        self.issuers_in_force().any(|(_, row)| row.is_constrained())
    }

    /// Why the authority that would issue this certificate may not, by its name constraints.
    pub(super) fn outside(
        &self,
        profile: v1::CertificateProfile,
        kind: v1::KeyAlgorithm,
        name: &str,
        sans: &[String],
    ) -> Option<String> {
        let (number, row) = self.issuer_for(profile, kind)?;
        row.permits(name, sans).err().map(|outside| format!("{outside} (issuing authority {number})"))
    }

    /// Why an authority in force could not certify names that gateways shall show.
    pub(super) fn outside_all(&self, names: &[String]) -> Option<String> {
        self.issuers_in_force().find_map(|(number, row)| {
            let constraints = row.constraints.as_ref().and_then(ConstraintsRow::read)?;
            let outside = names.iter().find_map(|name| constraints.check_name(&alt_name(name)).err())?;
            Some(format!("{outside} (issuing authority {number}): sallyport ca list shows which names it may certify"))
        })
    }

    /// Whether this authority may have issued what a record says, by the constraints that are in force.
    pub(super) fn is_right_issuer(&self, record: &CertificateRow, row: &IssuerRow) -> bool {
        match row.is_constrained() {
            true => is_bound(record.profile()) && row.permits(&record.name, &record.sans).is_ok(),
            false => !is_bound(record.profile()) || !self.has_constraints(),
        }
    }

    /// Why a new authority cannot have the constraints that it has: they cannot be read, or gateways could not renew.
    pub(super) fn refuses_constraints(&self, new: &NewIssuer) -> Option<Reply> {
        let row = new.constraints.as_ref()?;
        let Some(constraints) = row.read() else {
            return Some(Reply::conflict(ConflictKind::Invalid, "these are no name constraints"));
        };
        let outside = self.public_names().find_map(|name| constraints.check_name(&alt_name(name)).err())?;
        let text = format!(
            "gateways show clients a name that this authority could not certify: {outside}. Widen the constraints, or \
             give the gateways other names first: sallyport setting set public-names=..."
        );
        Some(Reply::conflict(ConflictKind::Precondition, text))
    }
}

#[cfg(test)]
mod tests;
