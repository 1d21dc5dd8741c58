//! The RAs of SCEP: RSA keys to which requests are encrypted, and with which answers are signed. All controllers share them, for
//! a machine's next message may come to another one. A new one takes over before the former ends, which goes on until then:
//! machines keep the certificate that they have fetched.

use sallyport_proto::v1;

use super::{CertificateRow, ConflictKind, Reply, State};

/// The level from which on there are RAs of SCEP and signers of OCSP (see `software`).
pub(crate) const STATUS_LEVEL: u32 = 7;
/// Most RAs that are kept, the newest.
pub const MAX_SCEP_RAS: usize = 4;

/// An RA of SCEP. Numbers are part of the store: never reuse one. Since level 7.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ScepRaRow {
    /// The certificate, DER.
    #[prost(bytes = "vec", tag = "1")]
    pub certificate: Vec<u8>,
    /// Its key, PKCS #8, sealed.
    #[prost(bytes = "vec", tag = "2")]
    pub sealed_key: Vec<u8>,
    /// Number of the authority that issued it.
    #[prost(uint64, tag = "3")]
    pub issuer: u64,
    /// Serial number of its certificate, hexadecimal: where its record is.
    #[prost(string, tag = "4")]
    pub serial: String,
    /// When it was made, log's time.
    #[prost(uint64, tag = "5")]
    pub made_ms: u64,
    /// When it ends.
    #[prost(uint64, tag = "6")]
    pub not_after_ms: u64,
}

/// A new RA. Since level 7.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AddScepRa {
    /// Its number, to which its key is sealed: the next one.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// The certificate, DER.
    #[prost(bytes = "vec", tag = "2")]
    pub certificate: Vec<u8>,
    /// Its key, PKCS #8, sealed.
    #[prost(bytes = "vec", tag = "3")]
    pub sealed_key: Vec<u8>,
    /// The record of its certificate.
    #[prost(message, optional, tag = "4")]
    pub record: Option<CertificateRow>,
}

impl State {
    /// Number of the next RA: none is used twice.
    pub(crate) fn next_scep_ra(&self) -> u64 {
        self.core_row().map_or(0, |core| core.last_scep_ra) + 1
    }

    /// RAs that are good at a time, the newest first. One whose certificate was revoked is none any more.
    pub fn live_scep_ras(&self, at_ms: u64) -> impl Iterator<Item = (u64, &ScepRaRow)> {
        let rows = self.scep_ras.iter().rev().map(|(number, row)| (*number, row));
        rows.filter(move |(_, row)| {
            row.not_after_ms > at_ms && self.certificates.get(&row.serial).is_some_and(|c| c.revoked_ms == 0)
        })
    }

    pub(super) fn add_scep_ra(&mut self, command: &AddScepRa) -> Reply {
        let is_right = |r: &&CertificateRow| !r.serial.is_empty() && r.profile() == v1::CertificateProfile::ScepRa;
        let whole = !command.certificate.is_empty() && !command.sealed_key.is_empty();
        let Some(record) = command.record.as_ref().filter(is_right).filter(|_| whole) else {
            return Reply::conflict(ConflictKind::Invalid, "an RA needs a certificate, a key and a record");
        };
        if command.number != self.next_scep_ra() || self.is_used(&record.serial) {
            return Reply::conflict(ConflictKind::Changed, "another RA was made meanwhile");
        }
        if let Some(superseded) = self.superseded(record, record.issuer) {
            return superseded;
        }
        self.record_certificate(Some(record));
        let now_ms = self.now_ms();
        let row = ScepRaRow {
            certificate: command.certificate.clone(),
            sealed_key: command.sealed_key.clone(),
            issuer: record.issuer,
            serial: record.serial.clone(),
            made_ms: now_ms,
            not_after_ms: record.not_after_ms,
        };
        self.scep_ras.insert(command.number, row);
        self.change_core(|core| core.last_scep_ra = command.number);
        let ended: Vec<u64> =
            self.scep_ras.iter().filter(|(_, row)| row.not_after_ms <= now_ms).map(|(number, _)| *number).collect();
        for number in ended {
            self.scep_ras.remove(&number);
        }
        while self.scep_ras.len() > MAX_SCEP_RAS {
            self.scep_ras.pop_first();
        }
        Reply::done()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{
        Action, AddIssuers, Bootstrap, Command, NewIssuer, Outcome, RecordCertificate, RetireIssuer, RevokeCertificate,
        SettingsRow, UpdateSettings,
    };

    fn record(serial: &str, profile: v1::CertificateProfile, issuer: u64) -> CertificateRow {
        CertificateRow {
            serial: serial.into(),
            profile: profile.into(),
            key_algorithm: v1::KeyAlgorithm::Rsa2048.into(),
            issuer,
            not_after_ms: 1_000,
            ..CertificateRow::default()
        }
    }

    fn apply(state: &mut State, at_ms: u64, action: Action) -> Result<(), ConflictKind> {
        match state.apply(&Command { request_id: Vec::new(), at_ms, action: Some(action) }).outcome {
            Some(Outcome::Conflict(c)) => Err(c.kind()),
            _ => Ok(()),
        }
    }

    fn state() -> State {
        let mut state = State::new();
        let bootstrap = Bootstrap {
            cluster_id: vec![1; 16],
            root_certificate: vec![9],
            sealed_root_key: vec![2],
            record: Some(record("a0", v1::CertificateProfile::Root, 0)),
            member: None,
        };
        apply(&mut state, 1, Action::Bootstrap(bootstrap)).expect("begins");
        add_issuer(&mut state, 1);
        state
    }

    fn add_issuer(state: &mut State, number: u64) {
        let issuer = NewIssuer {
            constraints: None,
            number,
            certificate: vec![10],
            sealed_key: vec![1],
            root: 1,
            record: Some(record(&format!("aa{number}"), v1::CertificateProfile::Issuing, 0)),
        };
        apply(state, 1, Action::AddIssuers(AddIssuers { issuers: vec![issuer], replace: true })).expect("adds");
    }

    fn ra(number: u64, serial: &str) -> AddScepRa {
        let record = Some(record(serial, v1::CertificateProfile::ScepRa, 1));
        AddScepRa { number, certificate: vec![1], sealed_key: vec![2], record }
    }

    fn add(state: &mut State, at_ms: u64, ra: AddScepRa) -> Result<(), ConflictKind> {
        apply(state, at_ms, Action::AddScepRa(ra))
    }

    fn live(state: &State, at_ms: u64) -> Vec<u64> {
        state.live_scep_ras(at_ms).map(|(number, _)| number).collect()
    }

    #[test]
    fn a_new_ra_comes_first_and_the_former_goes_on_until_it_ends_or_is_revoked() {
        let mut state = state();
        assert_eq!(add(&mut state, 5, ra(1, "b1")), Ok(()));
        assert_eq!(add(&mut state, 6, ra(1, "b2")), Err(ConflictKind::Changed), "two made one at a time");
        assert_eq!(add(&mut state, 6, ra(2, "b2")), Ok(()));
        assert_eq!((live(&state, 7), live(&state, 1_000)), (vec![2, 1], vec![]));
        let revoke = RevokeCertificate { serial: "b2".into(), reason: String::new() };
        assert_eq!(apply(&mut state, 7, Action::RevokeCertificate(revoke)), Ok(()));
        assert_eq!(live(&state, 7), [1]);
        assert_eq!(state.certificates.get(&"b1".to_owned()).map(|c| (c.issuer, c.issued_ms)), Some((1, 5)));
        for number in 3..=6 {
            assert_eq!(add(&mut state, 8, ra(number, &format!("c{number}"))), Ok(()));
        }
        assert_eq!(state.scep_ras.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [3, 4, 5, 6], "bounded");
        let mut last = ra(7, "d7");
        last.record.as_mut().expect("a record").not_after_ms = 5_000;
        assert_eq!(add(&mut state, 1_000, last), Ok(()));
        assert_eq!(state.scep_ras.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [7], "what has ended goes");
        let again = State::from_rows(state.rows()).expect("reads");
        assert_eq!((again.rows(), again.next_scep_ra()), (state.rows(), 8));
    }

    #[test]
    fn what_is_not_whole_or_not_of_an_authority_in_force_is_refused() {
        let mut state = state();
        let unsealed = AddScepRa { sealed_key: Vec::new(), ..ra(1, "b1") };
        let other = AddScepRa { record: Some(record("b1", v1::CertificateProfile::Machine, 1)), ..ra(1, "b1") };
        for bad in [unsealed, other, AddScepRa { record: None, ..ra(1, "b1") }] {
            assert_eq!(add(&mut state, 2, bad), Err(ConflictKind::Invalid));
        }
        let of_root = AddScepRa { record: Some(record("b1", v1::CertificateProfile::ScepRa, 0)), ..ra(1, "b1") };
        assert_eq!(add(&mut state, 2, of_root), Err(ConflictKind::Changed));
        add_issuer(&mut state, 2);
        assert_eq!(add(&mut state, 2, ra(1, "b1")), Err(ConflictKind::Changed), "its authority has retired");
    }

    #[test]
    fn a_retired_authority_gets_a_signer_of_ocsp_and_nothing_else() {
        let mut state = state();
        add_issuer(&mut state, 2);
        assert_eq!(apply(&mut state, 2, Action::RetireIssuer(RetireIssuer { number: 1, compromised: false })), Ok(()));
        let issue = |profile, serial: &str, issuer| {
            let record = Some(record(serial, profile, issuer));
            Action::RecordCertificate(RecordCertificate { record, answer: Vec::new() })
        };
        let signer = v1::CertificateProfile::OcspSigner;
        assert_eq!(apply(&mut state, 3, issue(signer, "e1", 1)), Ok(()));
        assert_eq!(apply(&mut state, 3, issue(signer, "e2", 9)), Err(ConflictKind::Changed), "there is none");
        assert_eq!(apply(&mut state, 3, issue(signer, "e3", 0)), Err(ConflictKind::Changed), "the root has none");
        let machine = issue(v1::CertificateProfile::Machine, "e4", 1);
        assert_eq!(apply(&mut state, 3, machine), Err(ConflictKind::Changed));
    }

    #[test]
    fn all_of_it_is_of_level_7_and_settings_without_scep_are_not() {
        let settings = |scep, scep_single_des| {
            let settings = Some(SettingsRow { scep, scep_single_des, ..SettingsRow::default() });
            Action::UpdateSettings(UpdateSettings { settings }).level()
        };
        assert_eq!([settings(false, false), settings(true, false), settings(false, true)], [1, 7, 7]);
        let signer = Some(record("e1", v1::CertificateProfile::OcspSigner, 1));
        let signer = Action::RecordCertificate(RecordCertificate { record: signer, answer: Vec::new() });
        assert_eq!((signer.level(), Action::AddScepRa(ra(1, "b1")).level()), (7, 7));
    }
}
