//! Questions that were answered before. Whoever asks again for the same key, by something that proves the same, gets the certificate that
//! this has brought, for as long as the machine has it. A message of SCEP can be recorded and sent by anybody: it moves nothing. All since
//! level 7.

use std::collections::BTreeMap;

use sallyport_ca::crl::Reason;
use sallyport_ca::renewal::Life;

use super::{Applicant, IntentRow, MachineRow, ProofKind, machine_key};
use crate::raft::kv::{Op, Table};
use crate::state::{CertificateRow, KEPT_CERTIFICATES, RowError, State};

/// The level of everything here.
pub(crate) const AGAIN_LEVEL: u32 = 7;
/// First byte of every stored row: the format of what follows.
const FORMAT: u8 = 1;
/// Most certificates of a machine that are looked at, the newest of them.
const MOST: usize = 256;

/// Stored key of a certificate.
pub(crate) fn kept_key(serial: &str) -> Vec<u8> {
    [&[KEPT_CERTIFICATES][..], serial.as_bytes()].concat()
}

/// The certificate in a stored row, DER.
pub(crate) fn kept_of(value: &[u8]) -> Option<&[u8]> {
    value.strip_prefix(&[FORMAT])
}

/// The machines' newest certificates themselves, DER. They are in the store and nowhere else: a million of them are a gigabyte.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Changes on their way to the store.
    fresh: Vec<Op>,
    /// All rows, where no store has them.
    rows: Option<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Kept {
    /// With `keep` it remembers its rows itself; otherwise whoever takes the changes does.
    pub(crate) fn new(keep: bool) -> Self {
        Self { fresh: Vec::new(), rows: keep.then(BTreeMap::new) }
    }

    fn put(&mut self, serial: &str, der: &[u8]) {
        let (key, value) = (kept_key(serial), [&[FORMAT][..], der].concat());
        if let Some(rows) = &mut self.rows {
            rows.insert(key.clone(), value.clone());
        }
        self.fresh.push(Op::Put(Table::State, key, value));
    }

    fn remove(&mut self, serial: &str) {
        let key = kept_key(serial);
        if let Some(rows) = &mut self.rows {
            rows.remove(&key);
        }
        self.fresh.push(Op::Del(Table::State, key));
    }

    /// What changed since the last call, as storage operations.
    pub(crate) fn take_changes(&mut self, ops: &mut Vec<Op>) {
        ops.append(&mut self.fresh);
    }

    /// Each row that is kept here, as stored.
    pub(crate) fn each_row<E>(&self, each: &mut impl FnMut(Vec<u8>, Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        self.rows.iter().flatten().try_for_each(|(key, value)| each(key.clone(), value.clone()))
    }

    /// Takes in a stored row, `key` without the table's number.
    pub(crate) fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), RowError> {
        match value.first() {
            Some(&FORMAT) => {}
            Some(&other) => return Err(RowError::Format(other)),
            None => return Err(RowError::Damaged(KEPT_CERTIFICATES)),
        }
        if let Some(rows) = &mut self.rows {
            rows.insert([&[KEPT_CERTIFICATES][..], key].concat(), value.to_vec());
        }
        Ok(())
    }

    /// The serial numbers of what is kept here.
    #[cfg(test)]
    pub(crate) fn serials(&self) -> Vec<String> {
        let text = |key: &Vec<u8>| String::from_utf8_lossy(key.get(1..).unwrap_or_default()).into_owned();
        self.rows.iter().flatten().map(|(key, _)| text(key)).collect()
    }
}

impl State {
    /// The certificate that such a question has brought before: of the same machine, for the same key, and good.
    pub(super) fn has_already(&self, applicant: &Applicant, at_ms: u64) -> Option<&CertificateRow> {
        if self.level() < AGAIN_LEVEL || applicant.key_sha256.len() != 32 {
            return None;
        }
        let machine = self.machine_asked_for(applicant)?;
        if machine.removed || self.machine_on_hold(&machine.name) {
            return None;
        }
        let of_key = |serial: &String| {
            let row = self.certificates.get(serial)?;
            let good = row.revoked_ms == 0 && row.not_after_ms > at_ms && row.key_sha256 == applicant.key_sha256;
            good.then_some(row)
        };
        match &applicant.proof {
            // By its newest a machine may renew with the key that it has; by the one before it has done so.
            Some(ProofKind::Certificate(shown)) => of_key(&machine.serial).filter(|_| machine.previous == *shown),
            // When it is to be renewed it may also be made anew in the way in which it was made first.
            _ => of_key(&machine.serial).or_else(|| of_key(&machine.previous)).filter(|row| !is_due(row, at_ms)),
        }
    }

    /// Which machine a question is about; `None` where nobody said so yet, or what was shown proves nothing.
    fn machine_asked_for(&self, applicant: &Applicant) -> Option<&MachineRow> {
        match &applicant.proof {
            Some(ProofKind::Token(token)) => {
                let row = self.enroll_tokens.get(&token.id).filter(|row| row.hash == token.hash)?;
                self.machine(&row.name)
            }
            Some(ProofKind::Certificate(serial)) => {
                self.machine(&self.certificates.get(serial).filter(|row| row.revoked_ms == 0)?.name)
            }
            Some(ProofKind::Gateway(_) | ProofKind::Office(_)) => None,
            Some(ProofKind::Listed(_) | ProofKind::Approved(_)) | None => {
                let listed = self.index.enroll.machine_of_key.get(&applicant.key_sha256);
                let asked = || self.index.enroll.request_of_key.get(&applicant.key_sha256);
                match listed {
                    Some(key) => self.machines.get(key),
                    None => self.machine(&self.requests.get(asked()?)?.name),
                }
            }
        }
    }

    /// Whether a machine had a certificate for this key that newer ones have replaced: it has gone on from there.
    pub(super) fn was_replaced(&self, name: &str, key_sha256: &[u8]) -> bool {
        if self.level() < AGAIN_LEVEL || key_sha256.is_empty() {
            return false;
        }
        let key = machine_key(name);
        let mut rows = self.closed_certificates_of(name).filter(|row| machine_key(&row.name) == key).take(MOST);
        rows.any(|row| row.reason() == Reason::Superseded && row.key_sha256 == key_sha256)
    }

    /// Whether what allowed a machine's certificate allows it still, when it is about to be recorded.
    pub(super) fn still_allows(&self, intent: &IntentRow, record: &CertificateRow) -> bool {
        if self.level() < AGAIN_LEVEL {
            return true;
        }
        if self.refuses_name_of(record).is_some() {
            return false;
        }
        if record.profile() != sallyport_proto::v1::CertificateProfile::Machine {
            return true;
        }
        let machine = self.machine(&record.name);
        let listed = match intent.proof.as_ref().and_then(|p| p.kind.as_ref()) {
            Some(ProofKind::Listed(key)) => self.machines.get(key).is_some_and(|row| {
                let by_key = row.key_sha256 == intent.key_sha256;
                let open = !row.removed && (by_key || (row.key_sha256.is_empty() && row.network.is_some()));
                open && self.certificates.get(&row.serial).is_none_or(|c| c.revoked_ms == 0)
            }),
            Some(ProofKind::Certificate(_)) => !machine.is_some_and(|row| row.removed),
            _ => true,
        };
        listed && !self.machine_on_hold(&record.name)
    }

    /// Keeps a machine's certificate for whoever asks again.
    pub(in crate::state) fn keep_certificate(&mut self, record: &CertificateRow, der: &[u8]) {
        if self.level() >= AGAIN_LEVEL && record.profile() == sallyport_proto::v1::CertificateProfile::Machine {
            self.kept_certificates.put(&record.serial, der);
        }
    }

    /// Nobody gets it again.
    pub(in crate::state) fn forget_certificate(&mut self, serial: &str) {
        if self.level() >= AGAIN_LEVEL {
            self.kept_certificates.remove(serial);
        }
    }
}

/// Whether a certificate is to be renewed by now.
fn is_due(row: &CertificateRow, at_ms: u64) -> bool {
    let life = Life { from: row.issued_ms, length: row.not_after_ms.saturating_sub(row.issued_ms) };
    row.serial.parse().map_or(true, |serial| at_ms >= life.renewed_from(&serial))
}

#[cfg(test)]
mod tests;
