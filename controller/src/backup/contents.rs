//! What is in a backup, once all of it was checked.

use std::path::Path;

use sallyport_ca::seal::{Purpose, Sealed};
use sallyport_ca::{Authority, Certificate, Fingerprint, PublicKey};

use super::file::Backup;
use super::head::{Fault, Info};
use crate::error::Error;
use crate::state::RootRow;

/// What is in a backup.
#[derive(Clone, Debug, PartialEq)]
pub struct Contents {
    /// What its head says, now proven.
    pub info: Info,
    /// Users.
    pub users: usize,
    /// Pools.
    pub pools: usize,
    /// Sessions that were live.
    pub sessions: usize,
    /// Gateways.
    pub gateways: usize,
    /// Attempts in the audit.
    pub attempts: usize,
    /// Certificates on record.
    pub certificates: usize,
    /// Of these, revoked.
    pub revoked: usize,
    /// Number of the certificate that was issued or revoked last.
    pub last_certificate: u64,
    /// Whether a pre-shared key is set.
    pub psk: bool,
    /// The roots that are trusted, the one in force last.
    pub roots: Vec<Root>,
}

/// A root whose key opened and fits it, or is kept elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Its subject.
    pub subject: String,
    /// SHA-256 of the certificate.
    pub fingerprint: [u8; 32],
    /// Kind of its key.
    pub key: String,
    /// Until when it is valid, seconds since 1970.
    pub not_after: i64,
}

/// A root whose key opens and fits. Where its key is away, that of an authority does that it has certified: whoever made the backup had
/// the one or the other.
fn look_at_root(backup: &Backup, number: u64, root: &RootRow) -> Result<Root, Fault> {
    let fingerprint = Fingerprint::of(&root.certificate);
    let strange =
        |e: sallyport_ca::Error| Fault::Content(format!("the key of the root {fingerprint} does not open: {e}"));
    let certificate = Certificate::from_der(&root.certificate).map_err(strange)?;
    let key = PublicKey::from_spki_der(&certificate.spki_der()).map_err(strange)?.algorithm().name();
    if !root.sealed_key.is_empty() {
        let sealed = Sealed::from_bytes(root.sealed_key.clone());
        Authority::open(&sealed, &backup.seal_key, &root.certificate).map_err(strange)?;
    } else if !backup.state.issuers.iter().any(|(_, issuer)| issuer.root == number) {
        // Each of these is looked at below.
        return Err(Fault::Content(format!("it has no key of the root {fingerprint}, nor of an authority below it")));
    }
    Ok(Root {
        subject: certificate.subject.clone(),
        fingerprint: fingerprint.0,
        key: if root.sealed_key.is_empty() { format!("{key}, kept elsewhere") } else { key.to_owned() },
        not_after: certificate.not_after.0,
    })
}

impl Contents {
    /// Refuses the backup in a file unless it is of the authority whose root certificate has this SHA-256. That its key opened
    /// and fits is known by now: so whoever made the backup had that key.
    pub fn is_of(&self, path: &Path, root: [u8; 32]) -> Result<(), Error> {
        let newest = self.roots.last().map(|newest| newest.fingerprint);
        if newest == Some(root) {
            return Ok(());
        }
        let is = newest.map_or_else(|| "none".to_owned(), |is| Fingerprint(is).to_string());
        Err(Error::File {
            path: path.into(),
            cause: format!("it is of another authority: its root has the fingerprint {is}, not {}", Fingerprint(root)),
            remedy:
                "do not use it, unless you mistook the fingerprint: `sallyport status` shows it while a controller runs"
                    .into(),
        })
    }

    /// Looks at a backup: that the keys of its roots and issuing authorities open with its seal key and fit their certificates,
    /// and its pre-shared key, too.
    pub(super) fn of(backup: &Backup) -> Result<Self, Fault> {
        let state = &backup.state;
        let mut roots = Vec::new();
        // The root in force is the last.
        let mut trusted: Vec<_> = state.trusted_roots().collect();
        trusted.reverse();
        for (number, root) in trusted {
            roots.push(look_at_root(backup, number, root)?);
        }
        if roots.is_empty() {
            return Err(Fault::Content("there is no root in it".into()));
        }
        for (number, row) in state.issuers.iter() {
            let of_issuer = |cause: String| Fault::Content(format!("issuing authority {number}: {cause}"));
            let sealed = Sealed::from_bytes(row.sealed_key.clone());
            let authority = Authority::open(&sealed, &backup.seal_key, &row.certificate);
            let authority = authority.map_err(|e| of_issuer(format!("its key does not open: {e}")))?;
            let root = state.roots.get(&row.root).and_then(|root| Certificate::from_der(&root.certificate).ok());
            if !root.is_some_and(|root| authority.certificate().is_issued_by(&root)) {
                return Err(of_issuer("no root in the backup has signed its certificate".into()));
            }
        }
        if let Some((sealed, _)) = state.sealed_psk() {
            let sealed = Sealed::from_bytes(sealed.to_vec());
            backup
                .seal_key
                .open(Purpose::PRE_SHARED_KEY, &[state.cluster_id()], &sealed)
                .map_err(|e| Fault::Content(format!("its pre-shared key does not open: {e}")))?;
        }
        Ok(Self {
            info: backup.info.clone(),
            users: state.users.len(),
            pools: state.pools.len(),
            sessions: state.sessions.len(),
            gateways: state.gateways.len(),
            attempts: state.attempts.len(),
            certificates: state.certificates.len(),
            revoked: state.certificates.iter().filter(|(_, c)| c.revoked_ms != 0).count(),
            last_certificate: state.last_certificate(),
            psk: state.sealed_psk().is_some(),
            roots,
        })
    }
}
