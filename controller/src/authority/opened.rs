//! The authorities that this process has opened. Which there are, and which issue, is the state's to say at each question.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use sallyport_ca::seal::Sealed;
use sallyport_ca::{Authority, Certificate, KeyAlgorithm};

use super::algorithm_to_proto;
use crate::app::Core;
use crate::error::Error;
use crate::state::{IssuerRow, RootRow};

/// Open keys, by the number of their authority in the state.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    /// The newest root's certificate; set before anything that could ask for it is started.
    root: OnceLock<Arc<Certificate>>,
    roots: Mutex<BTreeMap<u64, Arc<Authority>>>,
    issuers: Mutex<BTreeMap<u64, Arc<Authority>>>,
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
    /// The certificate of the newest root.
    pub(crate) fn root(&self) -> &Certificate {
        self.authorities.root.get().expect("bootstrap opens the authorities")
    }

    /// Whether the root is known here: a new member first receives the state.
    pub(crate) fn knows_root(&self) -> bool {
        self.authorities.root.get().is_some()
    }

    /// The newest root and its number in the state.
    fn newest_root(&self) -> Result<(u64, RootRow), Error> {
        let state = self.node.shared().read();
        let newest = state.roots.iter().next_back().map(|(number, root)| (*number, root.clone()));
        newest.ok_or_else(|| Error::Internal("there is no root".into()))
    }

    /// The newest root with its key, and its number in the state.
    pub(crate) fn root_authority(&self) -> Result<Issuing, Error> {
        let (number, row) = self.newest_root()?;
        let mut opened = lock(&self.authorities.roots);
        if let Some(authority) = opened.get(&number) {
            return Ok(Issuing { number, authority: authority.clone() });
        }
        let authority = Arc::new(unseal(self, "the root's key", row.sealed_key, &row.certificate)?);
        opened.insert(number, authority.clone());
        Ok(Issuing { number, authority })
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
        if let Some(authority) = opened.get(&number) {
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

    /// Who issues for keys of a kind: an issuing authority that fits, or the root while there is none.
    pub(crate) fn issuing(&self, kind: KeyAlgorithm) -> Result<Issuing, Error> {
        let number = {
            let state = self.node.shared().read();
            state.issuer_for(algorithm_to_proto(kind)).map(|(number, _)| number)
        };
        match number {
            Some(number) => self.issuer(number),
            None => self.issuing_by(0),
        }
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
        let (_, newest) = self.newest_root()?;
        let certificate = Certificate::from_der(&newest.certificate)
            .map_err(|e| Error::Authority(format!("the root's certificate: {e}")))?;
        self.root_authority()?;
        let numbers: Vec<u64> = self.node.shared().read().issuers_in_force().map(|(number, _)| number).collect();
        for number in numbers {
            self.issuer(number)?;
        }
        let _ = self.authorities.root.set(Arc::new(certificate)); // the first to set it
        Ok(())
    }
}
