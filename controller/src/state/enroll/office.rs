//! Certificates that nobody enrolls for: those that operators have made, and those that controllers make for themselves. Like all others
//! they are in the log before the key is touched, and whoever asks again gets the same. Since level 8.

use sallyport_ca::Certificate;
use sallyport_proto::v1;

use super::{
    AbandonCertificate, IntendCertificate, IntentRow, IssuedRow, MAX_INTENTS, OfficeProof, Proof, ProofKind, profile_of,
};
use crate::state::{AddScepRa, CertificateRow, ConflictKind, Intended, Issued, Outcome, Reply, State};

/// The level from which on these have an intent, too (see `software`).
pub(crate) const OFFICE_LEVEL: u32 = 8;

impl IntentRow {
    /// What is said of it, if nobody enrolls for it.
    pub(super) fn office(&self) -> Option<&OfficeProof> {
        match self.proof.as_ref().and_then(|proof| proof.kind.as_ref()) {
            Some(ProofKind::Office(office)) => Some(office),
            _ => None,
        }
    }
}

impl State {
    /// What a request of this id was answered, if it brought a certificate.
    pub(crate) fn answered_with(&self, request_id: &[u8]) -> Option<&Issued> {
        match &self.answered(request_id)?.outcome {
            Some(Outcome::Issued(issued)) => Some(issued),
            _ => None,
        }
    }

    pub(super) fn intend_by_office(
        &mut self,
        command: &IntendCertificate,
        record: &CertificateRow,
        office: &OfficeProof,
    ) -> Reply {
        let answered = !office.request_id.is_empty() && self.answered(&office.request_id).is_some();
        if answered || self.intended(&command.transaction).is_some() || self.issued(&command.transaction).is_some() {
            return Outcome::Intended(Intended {}).into(); // whoever asked reads which one
        }
        if let Some(refused) = self.refuses_by_office(record, command.issuer, office) {
            return refused;
        }
        if profile_of(record).is_some_and(|profile| self.profile(profile).version != command.profile_version) {
            return Reply::conflict(ConflictKind::Changed, "the profile was changed meanwhile; try again");
        }
        if self.is_used(&record.serial) || self.has_intent(&record.serial) {
            return Reply::conflict(ConflictKind::AlreadyExists, "this serial number was used before; make another");
        }
        if self.intents.len() >= MAX_INTENTS {
            return Reply::conflict(ConflictKind::Exhausted, "too many certificates wait to be signed; try again");
        }
        let office = OfficeProof { of_member: self.member(record.member).is_some(), ..office.clone() };
        let row = IntentRow {
            transaction: command.transaction.clone(),
            tbs: command.tbs.clone(),
            record: Some(record.clone()),
            issuer: command.issuer,
            at_ms: self.now_ms(),
            proof: Some(Proof { kind: Some(ProofKind::Office(office)) }),
            holder: String::new(),
            due_ms: 0,
            key_sha256: command.key_sha256.clone(),
            profile_version: command.profile_version,
        };
        let number = self.next_enrollment();
        self.index.note_intent(number, &row);
        self.intents.insert(number, row);
        Outcome::Intended(Intended {}).into()
    }

    /// Why there may be no such certificate, by what the state says now.
    fn refuses_by_office(&self, record: &CertificateRow, issuer: u64, office: &OfficeProof) -> Option<Reply> {
        let is_ra = record.profile() == v1::CertificateProfile::ScepRa;
        let service = is_ra || record.profile() == v1::CertificateProfile::OcspSigner;
        if (profile_of(record).is_none() && !service) || is_ra == office.sealed_key.is_empty() {
            return Some(Reply::conflict(ConflictKind::Invalid, "no such certificate is made in this way"));
        }
        if is_ra && office.number != self.next_scep_ra() {
            return Some(Reply::conflict(ConflictKind::Changed, "another RA was made meanwhile"));
        }
        self.refuses_to_record(record, issuer)
    }

    /// It was signed. What was said of it may be wrong by now: then it is given up, and whoever asked is told to ask again.
    pub(super) fn complete_by_office(
        &mut self,
        (number, intent): (u64, &IntentRow),
        office: &OfficeProof,
        record: &CertificateRow,
        certificate: &Certificate,
    ) -> Reply {
        let removed = office.of_member && self.member(record.member).is_none();
        let changed = profile_of(record).is_some_and(|p| self.profile(p).version != intent.profile_version);
        if removed || changed || self.refuses_by_office(record, intent.issuer, office).is_some() {
            return self.abandon_certificate(&AbandonCertificate { serial: record.serial.clone() });
        }
        let reply = match office.sealed_key.is_empty() {
            true => self.record_unenrolled(Some(record)),
            false => self.add_scep_ra(&AddScepRa {
                number: office.number,
                certificate: certificate.der().to_vec(),
                sealed_key: office.sealed_key.clone(),
                record: Some(record.clone()),
            }),
        };
        if matches!(reply.outcome, Some(Outcome::Conflict(_))) {
            return reply;
        }
        self.drop_intent(number, intent);
        let (serial, der) = (record.serial.clone(), certificate.der().to_vec());
        if office.request_id.is_empty() {
            self.keep_issued(number, intent, serial, der);
        } else {
            // In place of what would be the answer to the question, which nobody has put into the log.
            let issued = Outcome::Issued(Issued { serial, answer: office.answer.clone(), certificate: der });
            self.remember(&office.request_id, self.now_ms(), &issued.into());
        }
        Reply::done()
    }

    /// Keeps what was issued for whoever asks again.
    pub(super) fn keep_issued(&mut self, number: u64, intent: &IntentRow, serial: String, certificate: Vec<u8>) {
        let now_ms = self.now_ms();
        let row = IssuedRow {
            transaction: intent.transaction.clone(),
            certificate,
            at_ms: now_ms,
            issuer: intent.issuer,
            serial,
        };
        // Of one question there is one answer, in the rows as in the index: the one before was revoked.
        if let Some(before) = self.index.enroll.issued_of.insert(row.transaction.clone(), number) {
            self.issued.remove(&before);
        }
        self.issued.insert(number, row);
        self.forget_issued(now_ms);
    }
}
