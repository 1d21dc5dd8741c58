//! Whose signatures count under the head of a log.

use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Frontier, SignedTreeHead, TreeHead};
use crate::{Authority, Certificate, Error, PublicKey, SecureRandom};

/// Most authorities below the roots that are looked at.
const MAX_ISSUERS: usize = 256;
/// Longest way from a root that is trusted: over the next root to an authority below it.
const MAX_STEPS: usize = 3;

/// The keys that may sign heads: those of the roots that are trusted, and of the authorities below them, over a cross-certificate of the
/// next root, too. What is none of theirs, or cannot be read, is left out: whoever shows it need not be honest.
pub fn head_keys(roots: &[Certificate], issuers: &[Vec<u8>]) -> Vec<PublicKey> {
    let shown = issuers.iter().take(MAX_ISSUERS).filter_map(|der| Certificate::from_der(der).ok());
    let mut rest: Vec<Certificate> = shown.filter(is_authority).collect();
    let mut trusted = roots.to_vec();
    for _ in 0..MAX_STEPS {
        let (found, others): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|shown| trusted.iter().any(|above| shown.is_issued_by(above)));
        if found.is_empty() {
            break;
        }
        trusted.extend(found);
        rest = others;
    }
    trusted.iter().filter_map(|certificate| PublicKey::from_spki_der(&certificate.spki_der()).ok()).collect()
}

/// Whether a certificate is that of an authority: a machine's, which a root may have signed too, speaks for no log.
fn is_authority(certificate: &Certificate) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate.der()) else { return false };
    parsed.basic_constraints().ok().flatten().is_some_and(|c| c.value.ca)
}

impl Authority {
    /// Signs the head of a log's tree with this authority's key. What is signed can be taken for nothing else that it signs.
    /// `time_ms` is the time of the last entry, milliseconds since 1970.
    pub fn sign_tree_head(
        &self,
        cluster: [u8; 16],
        tree: &Frontier,
        time_ms: u64,
        rng: &dyn SecureRandom,
    ) -> Result<SignedTreeHead, Error> {
        SignedTreeHead::sign(cluster, tree, time_ms, self.key(), rng)
    }
}

impl TreeHead {
    /// The same in a few words, for people: entries, the beginning of the root hash, time in seconds since 1970.
    pub fn summary(&self) -> String {
        let root: String = self.root.iter().take(8).map(|b| format!("{b:02x}")).collect();
        format!("{} entries, root {root}..., time {}", self.size, self.time_ms / 1_000)
    }
}
