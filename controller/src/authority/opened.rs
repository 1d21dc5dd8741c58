//! The authorities that this process has opened. Which there are, and which issue, is the state's to say at each question.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sallyport_ca::seal::Sealed;
use sallyport_ca::{Authority, Certificate, KeyAlgorithm, Profile, RevocationUrls};
use sallyport_proto::v1;

use super::{algorithm_to_proto, profile_to_proto};
use crate::app::Core;
use crate::error::Error;
use crate::state::IssuerRow;

/// What cannot be done, and how it can.
const AWAY: &str = "this needs the root's private key, which is out of the cluster; bring it back for a while with \
                    sallyport ca root import FILE, and repeat the command";

/// Open keys, by the number of their authority in the state.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    /// The certificate of the root in force, when it was last asked for; set before anything that could ask for it is started.
    root: Mutex<Option<Arc<Certificate>>>,
    roots: Mutex<BTreeMap<u64, Arc<Authority>>>,
    issuers: Mutex<BTreeMap<u64, Arc<Authority>>>,
    /// Issuing authorities with addresses in what they issue, and what each was made from, by number.
    published: Mutex<BTreeMap<u64, Published>>,
    /// When the end of the root's list was last looked at, the log's time.
    looked_ms: AtomicU64,
}

/// An authority with addresses in what it issues.
#[derive(Debug)]
struct Published {
    urls: RevocationUrls,
    from: Arc<Authority>,
    made: Arc<Authority>,
}

impl Opened {
    /// An issuing authority with these addresses in what it issues.
    pub(super) fn with_urls(&self, issuing: &Issuing, urls: RevocationUrls) -> Result<Issuing, sallyport_ca::Error> {
        let (number, from) = (issuing.number, &issuing.authority);
        let mut published = lock(&self.published);
        let same = |p: &&Published| p.urls == urls && Arc::ptr_eq(&p.from, from);
        if let Some(known) = published.get(&number).filter(same) {
            return Ok(Issuing { number, authority: known.made.clone() });
        }
        let authority = Arc::new(from.with_urls(urls.clone())?);
        published.insert(number, Published { urls, from: from.clone(), made: authority.clone() });
        Ok(Issuing { number, authority })
    }

    /// Whether it is time to look at the end of the root's list: once a day.
    pub(crate) fn warns_of_list(&self, now_ms: u64) -> bool {
        let due = now_ms.saturating_sub(self.looked_ms.load(Ordering::Relaxed)) >= 86_400_000;
        if due {
            self.looked_ms.store(now_ms, Ordering::Relaxed);
        }
        due
    }
}

/// Who issues a certificate.
#[derive(Clone, Debug)]
pub(crate) struct Issuing {
    /// Its number in the state; 0 for the root, which issues while there is no other.
    pub(crate) number: u64,
    /// Its key and certificate.
    pub(crate) authority: Arc<Authority>,
}

impl Issuing {
    /// What stands above what it issues: its own certificate first, the root last, DER.
    pub(crate) fn chain(&self) -> Vec<Vec<u8>> {
        self.authority.chain().map(|c| c.der().to_vec()).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a key; `what` names it in errors, and `path` the file with the seal key.
fn unseal(core: &Core, what: &str, sealed_key: Vec<u8>, certificate: &[u8]) -> Result<Authority, Error> {
    let path: PathBuf = core.sealer.path().into();
    Authority::open(&Sealed::from_bytes(sealed_key), core.sealer.key(), certificate).map_err(|e| match e {
        sallyport_ca::Error::Seal(_) => Error::Seal { what: what.into(), key: path },
        other => Error::Authority(format!("{what}: {other}")),
    })
}

impl Core {
    /// The certificate of the root in force.
    pub(crate) fn root(&self) -> Arc<Certificate> {
        let mut known = lock(&self.authorities.root);
        let state = self.node.shared().read();
        let now = state.root_in_force().map(|(_, row)| row.certificate.as_slice());
        if let Some(changed) = now.filter(|now| known.as_ref().is_none_or(|known| known.der() != *now))
            && let Ok(certificate) = Certificate::from_der(changed)
        {
            *known = Some(Arc::new(certificate));
        }
        known.clone().expect("bootstrap opens the authorities")
    }

    /// The certificates of all roots that are trusted, that in force first, PEM: what folders hold as `ca.pem`.
    pub(crate) fn roots_pem(&self) -> String {
        let state = self.node.shared().read();
        super::pem_of(state.trusted_roots().map(|(_, row)| &row.certificate))
    }

    /// Whether the root is known here: a new member first receives the state.
    pub(crate) fn knows_root(&self) -> bool {
        lock(&self.authorities.root).is_some()
    }

    /// The root in force with its key, and its number in the state.
    pub(crate) fn root_authority(&self) -> Result<Issuing, Error> {
        let number = self.node.shared().read().root_number();
        self.root_authority_of(number)
    }

    /// A root with its key, which may be out of the cluster.
    pub(crate) fn root_authority_of(&self, number: u64) -> Result<Issuing, Error> {
        let row = self.node.shared().read().roots.get(&number).cloned();
        let row = row.ok_or_else(|| Error::Refused(format!("there is no root {number}; see sallyport ca list")))?;
        let mut opened = lock(&self.authorities.roots);
        if row.sealed_key.is_empty() {
            opened.remove(&number);
            return Err(Error::Authority(AWAY.into()));
        }
        if let Some(authority) = opened.get(&number) {
            return Ok(Issuing { number, authority: authority.clone() });
        }
        let authority = Arc::new(unseal(self, "the root's key", row.sealed_key, &row.certificate)?);
        opened.insert(number, authority.clone());
        Ok(Issuing { number, authority })
    }

    /// Closes the keys of roots that were erased from the state.
    pub(crate) fn close_erased(&self) {
        let state = self.node.shared().read();
        let here = |number: &u64| state.roots.get(number).is_some_and(|row| !row.sealed_key.is_empty());
        lock(&self.authorities.roots).retain(|number, _| here(number));
    }

    /// An issuing authority, retired or not.
    pub(crate) fn issuer(&self, number: u64) -> Result<Issuing, Error> {
        let (row, above) = {
            let state = self.node.shared().read();
            let row = state.issuers.get(&number).cloned();
            let row = row.ok_or_else(|| Error::Refused(format!("there is no issuing authority {number}")))?;
            (row, state.chain_of(number).split_off(1))
        };
        self.open_issuer(number, row, &above)
    }

    fn open_issuer(&self, number: u64, row: IssuerRow, above: &[Vec<u8>]) -> Result<Issuing, Error> {
        let mut opened = lock(&self.authorities.issuers);
        // What stands above may have changed since: a root elsewhere, another root of ours.
        let as_it_is =
            |a: &&Arc<Authority>| a.chain().skip(1).map(Certificate::der).eq(above.iter().map(Vec::as_slice));
        if let Some(authority) = opened.get(&number).filter(as_it_is) {
            return Ok(Issuing { number, authority: authority.clone() });
        }
        let what = format!("the key of issuing authority {number}");
        let mut authority = unseal(self, &what, row.sealed_key, &row.certificate)?;
        let above = above.iter().map(|der| Certificate::from_der(der)).collect::<Result<Vec<_>, _>>();
        above
            .and_then(|above| authority.set_issuers(above))
            .map_err(|e| Error::Authority(format!("issuing authority {number}: {e}")))?;
        let authority = Arc::new(authority);
        opened.insert(number, authority.clone());
        Ok(Issuing { number, authority })
    }

    /// Who issues certificates of a profile for keys of a kind: an issuing authority that fits, or the root while there is none.
    pub(crate) fn issuing_for(&self, profile: Profile, kind: KeyAlgorithm) -> Result<Issuing, Error> {
        self.issuing_of(profile_to_proto(profile), kind)
    }

    /// Who signs what is for nobody's name: one without name constraints.
    pub(crate) fn issuing(&self, kind: KeyAlgorithm) -> Result<Issuing, Error> {
        self.issuing_of(v1::CertificateProfile::Unspecified, kind)
    }

    fn issuing_of(&self, profile: v1::CertificateProfile, kind: KeyAlgorithm) -> Result<Issuing, Error> {
        let number = {
            let state = self.node.shared().read();
            state.issuer_for(profile, algorithm_to_proto(kind)).map(|(number, _)| number)
        };
        let issuing = match number {
            Some(number) => self.issuer(number),
            None => self.issuing_by(0),
        }?;
        self.publishing(issuing)
    }

    /// Who has this number in the records of certificates, in force or not; 0 is the root.
    pub(crate) fn issuing_by(&self, number: u64) -> Result<Issuing, Error> {
        match number {
            0 => Ok(Issuing { number: 0, ..self.root_authority()? }),
            number => self.issuer(number),
        }
    }

    /// Opens all keys that this state holds, so that a seal key that does not fit is found at once.
    pub(crate) fn open_authorities(&self) -> Result<(), Error> {
        let (certificate, has_key) = {
            let state = self.node.shared().read();
            let root = state.root_in_force().map(|(_, row)| (row.certificate.clone(), !row.sealed_key.is_empty()));
            root.ok_or_else(|| Error::Internal("there is no root".into()))?
        };
        let certificate = Certificate::from_der(&certificate)
            .map_err(|e| Error::Authority(format!("the root's certificate: {e}")))?;
        if has_key {
            self.root_authority()?;
        }
        let numbers: Vec<u64> = self.node.shared().read().issuers_in_force().map(|(number, _)| number).collect();
        for number in numbers {
            self.issuer(number)?;
        }
        *lock(&self.authorities.root) = Some(Arc::new(certificate));
        Ok(())
    }
}
