//! Issuing, exactly once: what will be signed is in the log before the key is touched, and whoever asks again gets the same.

use ring::digest;
use sallyport_ca::Certificate;
use sallyport_ca::renewal::Life;
use sallyport_proto::v1;

use super::{
    AbandonCertificate, Applicant, CompleteCertificate, ISSUED_MS, IntendCertificate, IntentRow, IssuedRow,
    MAX_INTENTS, MAX_ISSUED, ProofKind, RULES_LEVEL, Verdict, profile_of,
};
use crate::state::{ConflictKind, Intended, Outcome, Reply, State};

impl State {
    /// A certificate that was issued lately to the same question.
    pub fn issued(&self, transaction: &[u8]) -> Option<&IssuedRow> {
        self.issued.get(self.index.enroll.issued_of.get(transaction)?)
    }

    /// What is about to be signed for a question.
    pub fn intended(&self, transaction: &[u8]) -> Option<&IntentRow> {
        self.intents.get(self.index.enroll.intent_of.get(transaction)?)
    }

    pub(in crate::state) fn intend_certificate(&mut self, command: &IntendCertificate) -> Reply {
        let Some(record) = command.record.as_ref().filter(|r| !r.serial.is_empty() && command.transaction.len() == 16)
        else {
            return Reply::conflict(ConflictKind::Invalid, "no certificate in the command");
        };
        if let Some(ProofKind::Office(office)) = command.proof.as_ref().and_then(|p| p.kind.as_ref()) {
            return self.intend_by_office(command, record, office);
        }
        // Of one that was revoked meanwhile there is nothing to give again.
        let issued = self.issued(&command.transaction).map(|row| row.serial.clone());
        let live = issued.and_then(|serial| self.certificates.get(&serial)).is_some_and(|row| row.revoked_ms == 0);
        if live || self.intended(&command.transaction).is_some() {
            return Outcome::Intended(Intended {}).into(); // whoever asked reads which one
        }
        if let Some(superseded) = self.superseded(record, command.issuer) {
            return superseded;
        }
        let at_ms = self.now_ms();
        let applicant = Applicant {
            proof: command.proof.clone().and_then(|p| p.kind),
            key_sha256: command.key_sha256.clone(),
            key: record.key_algorithm(),
            source: command.source.clone(),
        };
        let grant = match self.authorise(&applicant, at_ms) {
            Verdict::Granted(grant) => grant,
            // What was decided on elsewhere has changed: whoever asks again hears why.
            Verdict::Has(_) | Verdict::Waiting(_) | Verdict::MayQueue | Verdict::Refused(_) => {
                return Reply::conflict(ConflictKind::Changed, "what allowed this certificate is no longer so");
            }
        };
        if grant.proof.kind != applicant.proof
            || grant.rules.version != command.profile_version
            || !self.fits(&grant, record, at_ms)
        {
            return Reply::conflict(
                ConflictKind::Changed,
                "the profile or the names were changed meanwhile; try again",
            );
        }
        if self.is_used(&record.serial) || self.index.enroll.intent_of_serial.contains_key(&record.serial) {
            return Reply::conflict(ConflictKind::AlreadyExists, "this serial number was used before; make another");
        }
        let life_ms = record.not_after_ms.saturating_sub(at_ms);
        let due_ms = Life { from: at_ms, length: life_ms }.overdue_from(grant.rules.overdue_percent);
        let known = self.level() >= RULES_LEVEL;
        let row = IntentRow {
            transaction: command.transaction.clone(),
            tbs: command.tbs.clone(),
            record: Some(record.clone()),
            issuer: command.issuer,
            at_ms,
            proof: Some(grant.proof),
            holder: grant.holder,
            due_ms,
            key_sha256: if known { command.key_sha256.clone() } else { Vec::new() },
            profile_version: if known { command.profile_version } else { 0 },
        };
        // One at a time of a name: else a hundred keys are certified on one proof before the first counts.
        if self.index.enroll.intent_of_lane.contains_key(&row.lane()) {
            return Reply::conflict(
                ConflictKind::Exhausted,
                "another certificate of this name is being issued; try again",
            );
        }
        if self.intents.len() >= MAX_INTENTS {
            return Reply::conflict(ConflictKind::Exhausted, "too many certificates wait to be signed; try again");
        }
        self.use_up(row.proof.as_ref().and_then(|p| p.kind.as_ref()), 1);
        let number = self.next_enrollment();
        self.index.note_intent(number, &row);
        self.intents.insert(number, row);
        Outcome::Intended(Intended {}).into()
    }

    pub(in crate::state) fn complete_certificate(&mut self, command: &CompleteCertificate) -> Reply {
        if self.certificates.contains(&command.serial) {
            return Reply::done(); // somebody else was first
        }
        let Some((number, intent)) = self.intent_of(&command.serial) else {
            return Reply::conflict(ConflictKind::NotFound, "nothing was said of signing this certificate");
        };
        let Ok(certificate) = Certificate::assemble(&intent.tbs, &command.signature) else {
            return Reply::conflict(ConflictKind::Invalid, "what was to be signed is no certificate");
        };
        let mut record = intent.record.clone().unwrap_or_default();
        record.fingerprint = digest::digest(&digest::SHA256, certificate.der()).as_ref().to_vec();
        record.issuer = intent.issuer;
        if let Some(office) = intent.office() {
            return self.complete_by_office((number, &intent), office, &record, &certificate);
        }
        record.key_sha256.clone_from(&intent.key_sha256); // empty below the level that knows it
        // What allowed it may be gone since: a token that was taken back, a certificate that was revoked or is on hold, a place on the
        // list, an authority that retired, a profile that was changed. Whoever asked is asked to ask again, and gets what is right by then.
        let proof = intent.proof.as_ref().and_then(|p| p.kind.as_ref());
        let changed = intent.profile_version != 0
            && profile_of(&record).is_none_or(|p| self.profile(p).version != intent.profile_version);
        if changed
            || !self.still_proves(proof)
            || !self.still_allows(&intent, &record)
            || self.superseded(&record, intent.issuer).is_some()
        {
            return self.abandon_certificate(&AbandonCertificate { serial: command.serial.clone() });
        }
        let reply = self.record_certificate(Some(&record));
        if matches!(reply.outcome, Some(Outcome::Conflict(_))) {
            return reply;
        }
        self.drop_intent(number, &intent);
        let method = match intent.proof.as_ref().and_then(|p| p.kind.as_ref()) {
            Some(ProofKind::Token(_)) => v1::EnrollMethod::Token,
            Some(ProofKind::Certificate(_) | ProofKind::Gateway(_)) => v1::EnrollMethod::Renewal,
            Some(ProofKind::Listed(_)) => v1::EnrollMethod::List,
            Some(ProofKind::Approved(_)) => v1::EnrollMethod::Approval,
            Some(ProofKind::Office(_)) | None => v1::EnrollMethod::Operator,
        };
        match record.profile() {
            v1::CertificateProfile::Gateway | v1::CertificateProfile::GatewayLink => {
                let by = match proof {
                    Some(ProofKind::Gateway(by)) => Some(by),
                    _ => None,
                };
                self.note_gateway_certificate(&record, &intent.holder, intent.due_ms, by);
            }
            _ => self.note_enrolled(&record, (method, intent.due_ms, &intent.holder)),
        }
        self.keep_certificate(&record, certificate.der());
        self.keep_issued(number, &intent, record.serial.clone(), certificate.der().to_vec());
        Reply::done()
    }

    /// Gives back what was used up for it.
    pub(in crate::state) fn abandon_certificate(&mut self, command: &AbandonCertificate) -> Reply {
        let Some((number, intent)) = self.intent_of(&command.serial) else { return Reply::done() };
        self.drop_intent(number, &intent);
        self.use_up(intent.proof.as_ref().and_then(|p| p.kind.as_ref()), -1);
        Reply::done()
    }

    fn intent_of(&self, serial: &str) -> Option<(u64, IntentRow)> {
        let number = *self.index.enroll.intent_of_serial.get(serial)?;
        Some((number, self.intents.get(&number)?.clone()))
    }

    pub(super) fn drop_intent(&mut self, number: u64, intent: &IntentRow) {
        self.index.forget_intent(number, intent);
        self.intents.remove(&number);
    }

    fn use_up(&mut self, proof: Option<&ProofKind>, times: i32) {
        match proof {
            Some(ProofKind::Token(token)) => {
                if let Some(row) = self.enroll_tokens.change(&token.id) {
                    row.used = row.used.saturating_add_signed(times);
                }
            }
            Some(ProofKind::Approved(number)) => {
                let state = if times > 0 { v1::RequestState::Issued } else { v1::RequestState::Approved };
                self.change_request(*number, |row| row.state = state.into());
            }
            Some(ProofKind::Certificate(_) | ProofKind::Listed(_) | ProofKind::Gateway(_) | ProofKind::Office(_))
            | None => {}
        }
    }

    pub(super) fn forget_issued(&mut self, now_ms: u64) {
        // Numbers grow with the log's time, about: an intent that took long has an old one, and goes a little early.
        while self.issued.len() > MAX_ISSUED
            || self.issued.iter().next().is_some_and(|(_, oldest)| oldest.at_ms.saturating_add(ISSUED_MS) < now_ms)
        {
            let Some((_, row)) = self.issued.pop_first() else { break };
            self.index.enroll.issued_of.remove(&row.transaction);
        }
    }
}
