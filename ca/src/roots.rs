//! The roots that somebody trusts, from the first day on: they grow only by what one of them has signed.
//!
//! A new root comes with a certificate for its name and key by a root that is trusted (RFC 4210 §4.4), over others of the same kind where
//! several changes were missed. So whoever carries it adds none by himself. A root that was given up is never taken up again: the next
//! root has cross-certified it, too, for those who needed the way back while both were trusted.

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::{Certificate, Error, UnixTime, pem};

/// Roots that are trusted at a time: the one in force, those before and after it, and room.
pub const MAX_TRUSTED: usize = 16;
/// Certificates that are looked at in what one controller says.
pub const MAX_SHOWN: usize = 128;
/// Roots given up that are remembered; as many as a cluster can have.
const MAX_GONE: usize = 64;

/// The roots that are trusted, and those that are no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    trusted: Vec<Certificate>,
    gone: Vec<Certificate>,
}

/// Whether a certificate makes an authority of its subject that may stand above issuing ones. A leaf of a root, or an issuing
/// authority (path length 0), vouches for no root.
fn stands_above(certificate: &Certificate) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate.der()) else { return false };
    // What is there twice, or cannot be read, allows nothing.
    let Ok(constraints) = parsed.basic_constraints() else { return false };
    let Ok(usage) = parsed.key_usage() else { return false };
    constraints.is_some_and(|c| c.value.ca && c.value.path_len_constraint != Some(0))
        && usage.is_none_or(|u| u.value.key_cert_sign())
}

fn in_force(certificate: &Certificate, now: UnixTime) -> bool {
    certificate.not_before <= now && now <= certificate.not_after
}

fn same_key(one: &Certificate, other: &Certificate) -> bool {
    one.spki_der() == other.spki_der()
}

fn same_holder(one: &Certificate, other: &Certificate) -> bool {
    same_key(one, other) && one.subject_der() == other.subject_der()
}

fn read(list: &[Vec<u8>]) -> Vec<Certificate> {
    list.iter().filter_map(|der| Certificate::from_der(der).ok()).collect()
}

impl Roots {
    /// These (DER) are trusted. What cannot be read is left out.
    pub fn of(trusted: &[Vec<u8>]) -> Self {
        Self { trusted: read(trusted), gone: Vec::new() }
    }

    /// What was kept: [`Self::pem`] and, where there is one, [`Self::gone_pem`].
    pub fn from_pem(trusted: &[u8], gone: Option<&[u8]>) -> Result<Self, Error> {
        let trusted =
            pem::certificates(trusted)?.iter().map(|der| Certificate::from_der(der)).collect::<Result<_, _>>()?;
        // Nothing but an empty file holds none.
        let gone = gone.map_or_else(Vec::new, |text| read(&pem::certificates(text).unwrap_or_default()));
        let mut this = Self { trusted, gone };
        // An operator who writes the folder anew has the last word.
        this.gone.retain(|gone| !this.trusted.iter().any(|root| same_key(root, gone)));
        Ok(this)
    }

    /// Those that are trusted.
    pub fn trusted(&self) -> &[Certificate] {
        &self.trusted
    }

    /// The same in DER.
    pub fn ders(&self) -> Vec<Vec<u8>> {
        self.trusted.iter().map(|root| root.der().to_vec()).collect()
    }

    /// The same in PEM.
    pub fn pem(&self) -> String {
        self.trusted.iter().map(Certificate::pem).collect()
    }

    /// Those that were given up, PEM; empty where none was.
    pub fn gone_pem(&self) -> String {
        self.gone.iter().map(Certificate::pem).collect()
    }

    /// Whether this certificate (DER) is that of a root that is trusted.
    pub fn trusts(&self, der: &[u8]) -> bool {
        self.trusted.iter().any(|root| root.der() == der)
    }

    /// Whether this certificate (DER) is for the key of a root that was given up: its own, or one by another authority. No path
    /// leads through it.
    pub fn is_gone(&self, der: &[u8]) -> bool {
        !self.gone.is_empty()
            && Certificate::from_der(der).is_ok_and(|shown| self.gone.iter().any(|gone| same_key(gone, &shown)))
    }

    /// Takes up the roots among these certificates (DER) that one which is trusted vouches for by a certificate for their name and key
    /// among them; gives those that are new.
    pub fn learn(&mut self, shown: &[Vec<u8>], now: UnixTime) -> Vec<Certificate> {
        // An answer like the one before, as all are but few, costs no signature.
        if shown.iter().take(MAX_SHOWN).all(|der| self.trusts(der)) {
            return Vec::new();
        }
        let good = |c: &Certificate| stands_above(c) && in_force(c, now) && !self.is_gone(c.der());
        let shown: Vec<Certificate> = read(shown.get(..MAX_SHOWN).unwrap_or(shown)).into_iter().filter(good).collect();
        let (own, mut others): (Vec<_>, Vec<_>) = shown.into_iter().partition(|c| c.is_issued_by(c));
        // Those for whose name and key somebody who is trusted vouches, by whatever certificate.
        let able = |c: &&Certificate| stands_above(c) && in_force(c, now);
        let mut vouched: Vec<Certificate> = self.trusted.iter().filter(able).cloned().collect();
        let mut new = Vec::new();
        // Each round takes at least one away, so a circle ends it.
        loop {
            let (next, rest): (Vec<_>, Vec<_>) =
                others.into_iter().partition(|cross| vouched.iter().any(|above| cross.is_issued_by(above)));
            if next.is_empty() {
                break;
            }
            vouched.extend(next);
            others = rest;
        }
        for root in own {
            // Another encoding of the same one, or one for the same key, would bring nothing, and others may not read it.
            let known = self.trusted.iter().any(|trusted| same_holder(trusted, &root));
            if !known && self.trusted.len() < MAX_TRUSTED && vouched.iter().any(|cross| same_holder(cross, &root)) {
                self.trusted.push(root.clone());
                new.push(root);
            }
        }
        new
    }

    /// Gives up the roots that none of the controllers trusts any more. `said` is what each one that was asked just now has said that it
    /// trusts (DER), of `all` that are known. A few of them cannot talk anybody out of a root: more than half must have said so,
    /// nobody who answered may trust it, and what remains must be enough to know each of them by. `None` where nothing changes.
    pub fn without_the_unsaid(&self, said: &[Vec<Vec<u8>>], all: usize) -> Option<Self> {
        if said.len() * 2 <= all || said.iter().any(Vec::is_empty) {
            return None;
        }
        let anybody = |root: &Certificate| said.iter().any(|list| list.iter().any(|der| der == root.der()));
        let everybody = |root: &Certificate| said.iter().all(|list| list.iter().any(|der| der == root.der()));
        let (trusted, dropped): (Vec<_>, Vec<_>) = self.trusted.iter().cloned().partition(anybody);
        if dropped.is_empty() || !trusted.iter().any(everybody) {
            return None;
        }
        let mut gone = self.gone.clone();
        // The same key in two certificates is given up only with the last of them.
        gone.extend(dropped.into_iter().filter(|root| !trusted.iter().any(|left| same_key(left, root))));
        if gone.len() > MAX_GONE {
            gone.drain(..gone.len() - MAX_GONE);
        }
        Some(Self { trusted, gone })
    }
}

#[cfg(test)]
mod tests;
