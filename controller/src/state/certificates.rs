//! Certificate records: what this authority has signed, and what it has taken back.

use std::collections::BTreeSet;

use sallyport_ca::Profile;
use sallyport_ca::crl::Reason;
use sallyport_ca::renewal::Life;
use sallyport_proto::v1;

use super::enroll::{ENROLL_LEVEL, GATEWAYS_LEVEL, canonical_name};
use super::{CertificateRow, ConflictKind, Index, Issued, Outcome, RecordCertificate, Reply, RevokeCertificate, State};

impl Index {
    pub(super) fn note_gateway_certificate(&mut self, row: &CertificateRow) {
        if row.profile() == v1::CertificateProfile::Gateway {
            self.certificates_of_gateways.insert((row.not_after_ms, row.serial.clone()));
            for name in std::iter::once(&row.name).chain(&row.sans) {
                self.names_of_gateways.insert((canonical_name(name), row.not_after_ms, row.serial.clone()));
            }
        }
    }

    pub(super) fn drop_gateway_certificate(&mut self, row: &CertificateRow) {
        self.certificates_of_gateways.remove(&(row.not_after_ms, row.serial.clone()));
        if row.profile() == v1::CertificateProfile::Gateway {
            for name in std::iter::once(&row.name).chain(&row.sans) {
                self.names_of_gateways.remove(&(canonical_name(name), row.not_after_ms, row.serial.clone()));
            }
        }
    }
}

impl State {
    /// The names under which clients reach the service: those that operators set (`setting set public-names`, then of single
    /// gateways), then those in the certificates that gateways show, the oldest first.
    pub fn public_names(&self) -> impl Iterator<Item = &String> {
        let open = (self.now_ms().saturating_add(1), String::new())..;
        let open = self.index.certificates_of_gateways.range(open);
        let rows = open.filter_map(|(_, serial)| self.certificates.get(serial));
        let mut live: Vec<&CertificateRow> = rows.filter(|c| c.revoked_ms == 0).collect();
        live.sort_unstable_by_key(|c| c.number);
        let mut seen = BTreeSet::new();
        self.names_set()
            .chain(live.into_iter().flat_map(|c| std::iter::once(&c.name).chain(&c.sans)))
            .filter(move |name| seen.insert(name.as_str()))
    }

    /// The answer to the caller is the answer to the command: remembered like every other, it is given again.
    pub(super) fn issue_certificate(&mut self, command: &RecordCertificate) -> Reply {
        if let Some(refused) = command.record.as_ref().and_then(|record| self.refuses_to_record(record, record.issuer))
        {
            return refused;
        }
        let recorded = self.record_unenrolled(command.record.as_ref());
        match (&recorded.outcome, &command.record) {
            (Some(Outcome::Done(_)), Some(record)) if !command.answer.is_empty() => {
                let (serial, answer) = (record.serial.clone(), command.answer.clone());
                Outcome::Issued(Issued { serial, answer, certificate: Vec::new() }).into()
            }
            _ => recorded,
        }
    }

    /// Why a certificate that nobody enrolls for may not be there, by what the state says now.
    pub(super) fn refuses_to_record(&self, record: &CertificateRow, issuer: u64) -> Option<Reply> {
        let precondition = |why: String| Reply::conflict(ConflictKind::Precondition, why);
        let superseded = self.superseded(record, issuer).or_else(|| self.against_rules(record));
        let named = || self.refuses_name_of(record).map(precondition);
        superseded.or_else(named).or_else(|| self.refuses_while_on_hold(record).map(precondition))
    }

    /// A certificate that nobody enrolled for is there, and what follows from it.
    pub(super) fn record_unenrolled(&mut self, record: Option<&CertificateRow>) -> Reply {
        let recorded = self.record_certificate(record);
        if let (Some(Outcome::Done(_)), Some(record)) = (&recorded.outcome, record)
            && record.profile() == v1::CertificateProfile::Machine
            && self.level() >= ENROLL_LEVEL
        {
            let rules = self.profile(Profile::Machine);
            let life_ms = record.not_after_ms.saturating_sub(self.now_ms());
            let due_ms = Life { from: self.now_ms(), length: life_ms }.overdue_from(rules.overdue_percent);
            self.note_enrolled(record, (v1::EnrollMethod::Operator, due_ms, ""));
        }
        if let (Some(Outcome::Done(_)), Some(record)) = (&recorded.outcome, record)
            && record.profile() == v1::CertificateProfile::GatewayLink
            && self.level() >= GATEWAYS_LEVEL
        {
            self.note_gateway_certificate(record, &record.name, 0, None);
        }
        recorded
    }

    pub(super) fn record_certificate(&mut self, record: Option<&CertificateRow>) -> Reply {
        let Some(mut row) = record.filter(|r| !r.serial.is_empty()).cloned() else {
            return Reply::conflict(ConflictKind::Invalid, "no certificate in the command");
        };
        if self.is_used(&row.serial) {
            return Reply::conflict(ConflictKind::AlreadyExists, "this serial number was used before; sign again");
        }
        let number = self.next_certificate();
        row.number = number;
        row.issued_ms = self.now_ms();
        (row.revoked_ms, row.revocation_number) = (0, 0);
        (row.revocation_code, row.release_number) = (0, 0);
        self.index.note_member_certificate(&row);
        self.index.note_standing(&row);
        self.index.note_gateway_certificate(&row);
        self.index.note_link_certificate(&row);
        self.index.note_operator_certificate(&row);
        self.index.certificates.insert(number, row.serial.clone());
        let of_gateway = row.profile() == v1::CertificateProfile::Gateway;
        self.certificates.insert(row.serial.clone(), row);
        if of_gateway {
            self.review_publication();
        }
        Reply::done()
    }

    pub(super) fn revoke_certificate(&mut self, command: &RevokeCertificate) -> Reply {
        self.revoke_one(&command.serial, Reason::Unspecified, &command.reason)
    }

    /// Revokes a certificate, and with that of a machine its other one. The reason is recorded since level 7.
    pub(super) fn revoke_one(&mut self, serial: &String, reason: Reason, text: &str) -> Reply {
        if let Some(refused) = self.refuse_revocation(serial) {
            return refused;
        }
        let ended = self.revoke_row(serial, reason, text);
        // Whoever has taken a machine has both of its certificates.
        let Some(other) = self.other_of_machine(serial) else { return Reply::ended(ended) };
        match self.revoke_one(&other, reason, text).outcome {
            Some(Outcome::Done(done)) => Reply::ended(ended + done.ended_sessions),
            _ => Reply::ended(ended),
        }
    }

    /// Why a certificate cannot be revoked.
    pub(super) fn refuse_revocation(&self, serial: &String) -> Option<Reply> {
        let Some(profile) = self.certificates.get(serial).map(CertificateRow::profile) else {
            let ended = self.refuse_to_revoke_ended(serial);
            return ended.or_else(|| {
                Some(Reply::conflict(
                    ConflictKind::NotFound,
                    format!("this authority never issued a certificate with serial number {serial}"),
                ))
            });
        };
        let message = match profile {
            v1::CertificateProfile::Root => "a root cannot be revoked, only replaced: nothing above it could say so",
            v1::CertificateProfile::Issuing => {
                "an issuing authority is not revoked like a machine: sallyport ca issuer retire ends its issuing"
            }
            _ => return None,
        };
        Some(Reply::conflict(ConflictKind::Precondition, message))
    }

    /// The other live certificate of a machine, that before its newest or the newest itself. Since level 6.
    pub(super) fn other_of_machine(&self, serial: &String) -> Option<String> {
        if self.level() < ENROLL_LEVEL {
            return None;
        }
        let machine = self.machine(&self.certificates.get(serial)?.name)?;
        let other = match serial {
            s if *s == machine.serial => &machine.previous,
            s if *s == machine.previous => &machine.serial,
            _ => return None,
        };
        self.certificates.get(other).filter(|c| c.revoked_ms == 0).map(|c| c.serial.clone())
    }

    /// From 1: as the number of a revocation, 0 says "not revoked".
    pub(super) fn next_certificate(&mut self) -> u64 {
        let mut number = 0;
        self.change_core(|core| {
            core.last_certificate += 1;
            number = core.last_certificate;
        });
        number
    }

    /// Whether a machine with this certificate may connect at a time; otherwise cause and remedy.
    pub fn machine_certificate(&self, serial: &str, at_ms: u64) -> Result<&CertificateRow, (String, String)> {
        let Some(row) = self.certificates.get(&serial.to_owned()) else {
            if let Some((_, cause)) = self.refuse_ended(serial) {
                return Err((cause, "issue a new certificate: sallyport cert issue --machine NAME".into()));
            }
            return Err((
                format!("the log of this authority holds no certificate with serial number {serial}"),
                "issue a certificate to the machine: sallyport cert issue --machine NAME; if its issuer is really this \
                 authority, its key was used elsewhere: replace the root"
                    .into(),
            ));
        };
        if row.is_on_hold() {
            return Err((
                format!("the certificate of {:?} (serial number {serial}) is on hold: {}", row.name, row.why_revoked()),
                format!("sallyport cert release {serial} lets the machine in again"),
            ));
        }
        if row.revoked_ms != 0 {
            return Err((
                format!("the certificate of {:?} (serial number {serial}) is revoked: {}", row.name, row.why_revoked()),
                "issue a new certificate if the machine may connect again: sallyport cert issue --machine NAME".into(),
            ));
        }
        if row.profile() != v1::CertificateProfile::Machine {
            return Err((
                format!("the certificate of {:?} (serial number {serial}) is not a machine's", row.name),
                "issue a machine certificate: sallyport cert issue --machine NAME".into(),
            ));
        }
        if row.not_after_ms <= at_ms {
            return Err((
                format!("the certificate of {:?} (serial number {serial}) has expired", row.name),
                "issue a new certificate: sallyport cert issue --machine NAME".into(),
            ));
        }
        Ok(row)
    }

    /// Certificates in the order of issuing, from (or before) a number, newest first.
    pub fn certificates_before(&self, number: u64) -> impl Iterator<Item = &CertificateRow> {
        self.index.certificates.range(..number).rev().filter_map(|(_, serial)| self.certificates.get(serial))
    }

    /// Certificates that go with controllers, those of removed ones included.
    pub fn certificates_of_members(&self) -> impl Iterator<Item = &CertificateRow> {
        self.index.certificates_of_member.values().flatten().filter_map(|serial| self.certificates.get(serial))
    }

    /// Number of the newest revocation; 0 before the first.
    pub fn last_revocation(&self) -> u64 {
        self.index.revocations.last_key_value().map_or(0, |(number, _)| *number)
    }

    /// Revocations in their order, after a number.
    pub fn revocations_after(&self, number: u64) -> impl Iterator<Item = &CertificateRow> {
        let after = self.index.revocations.range((std::ops::Bound::Excluded(number), std::ops::Bound::Unbounded));
        after.filter_map(|(_, serial)| self.certificates.get(serial))
    }

    /// Certificates that were released from a hold after a number and are good since, in the order of that.
    pub fn releases_after(&self, number: u64) -> impl Iterator<Item = &CertificateRow> {
        let after = self.index.releases.range((std::ops::Bound::Excluded(number), std::ops::Bound::Unbounded));
        after.filter_map(|(_, serial)| self.certificates.get(serial))
    }

    /// What an authority (0 for the root) has issued that is revoked and has not ended by a time, those first that end first. What has
    /// ended is not looked at, however much that is.
    pub fn revoked_of(&self, issuer: u64, at_ms: u64) -> impl Iterator<Item = &CertificateRow> {
        let open = (issuer, at_ms.saturating_add(1), 0)..=(issuer, u64::MAX, u64::MAX);
        let numbers = self.index.revoked_of_issuer.range(open).map(|(_, _, number)| number);
        numbers.filter_map(|number| self.certificates.get(self.index.revocations.get(number)?))
    }

    /// The same of all authorities.
    pub fn all_revoked(&self, at_ms: u64) -> impl Iterator<Item = &CertificateRow> {
        let issuers = std::iter::once(0).chain(self.issuers.iter().map(|(number, _)| *number));
        issuers.flat_map(move |issuer| self.revoked_of(issuer, at_ms))
    }
}
