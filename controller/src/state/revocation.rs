//! Revocation by serial number, machine or holder; hold and release. One place writes what a row says of it.
//!
//! Every change of what is live has a number from one counter, in which certificates are numbered, too. So "what changed after
//! number n" is three ranges of the index ([`State::live_changes`]), and what is said of a certificate is always what its row says now:
//! hearing a change twice, or an older one after a newer, leaves the same.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::{Bound, RangeInclusive};

use sallyport_ca::crl::Reason;
use sallyport_proto::v1;

use super::enroll::{AbandonCertificate, machine_key};
use super::ledger::entry;
use super::{CertificateRow, ConflictKind, EnrollTokenRow, Index, Outcome, Reply, State};

/// The level of reasons, hold, release, and revocation by machine and holder.
pub(crate) const REVOCATION_LEVEL: u32 = 7;
/// The level from which on what is made for gateways is no machine's, and what is used up or has ended is not counted as taken back.
pub(crate) const MACHINES_LEVEL: u32 = 8;
/// Most certificates that one command takes back.
pub const MAX_REVOKED: usize = 10_000;
/// And most machines, tokens and requests of a holder that it is about.
pub const MAX_MACHINES_REVOKED: usize = 10_000;

/// Which certificates.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum Selector {
    /// That with this serial number, and the machine's other one with it.
    #[prost(string, tag = "1")]
    Serial(String),
    /// All of the machine with this name.
    #[prost(string, tag = "2")]
    Machine(String),
    /// All of the machines of this holder.
    #[prost(string, tag = "3")]
    Holder(String),
}

/// Certificates are no longer good.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RevokeCertificates {
    /// Which.
    #[prost(oneof = "Selector", tags = "1, 2, 3")]
    pub which: Option<Selector>,
    /// Why, as a number of RFC 5280 §5.3.1; 6 puts them on hold.
    #[prost(uint32, tag = "4")]
    pub code: u32,
    /// Why, in words.
    #[prost(string, tag = "5")]
    pub text: String,
}

/// Certificates that were on hold are good again.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReleaseCertificates {
    /// Which.
    #[prost(oneof = "Selector", tags = "1, 2, 3")]
    pub which: Option<Selector>,
}

/// What was revoked or released.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Revoked {
    /// The certificates that changed by it, by serial number.
    #[prost(string, repeated, tag = "1")]
    pub serials: Vec<String>,
    /// Sessions that end because of it.
    #[prost(uint32, tag = "2")]
    pub ended_sessions: u32,
    /// The certificates have numbers above this in the order of revocations,
    #[prost(uint64, tag = "3")]
    pub after: u64,
    /// and up to this.
    #[prost(uint64, tag = "4")]
    pub last: u64,
    /// Tokens for first certificates that were taken back.
    #[prost(uint32, tag = "5")]
    pub tokens: u32,
    /// Requests that had been approved, and are not any more.
    #[prost(uint32, tag = "6")]
    pub requests: u32,
    /// When, log's time.
    #[prost(uint64, tag = "7")]
    pub at_ms: u64,
}

impl CertificateRow {
    /// Why it is revoked, for people.
    pub fn why_revoked(&self) -> String {
        why(self.reason(), &self.revocation_reason)
    }

    /// Why it is revoked, for lists, OCSP and what is kept of it: records of a time before reasons had numbers may name one in their text.
    pub fn told_reason(&self) -> Reason {
        let text = self.revocation_reason.as_str();
        match (self.reason(), text.split_once(':').map_or(text, |(word, _)| word).parse()) {
            // What was revoked for good before there were holds stays so.
            (Reason::Unspecified, Ok(Reason::CertificateHold) | Err(_)) => Reason::Unspecified,
            (Reason::Unspecified, Ok(said)) | (said, _) => said,
        }
    }
}

fn why(reason: Reason, text: &str) -> String {
    match (reason, text) {
        (Reason::Unspecified, "") => "no reason given".into(),
        (Reason::Unspecified, text) => text.into(),
        (reason, "") => reason.name().into(),
        (reason, text) => format!("{} ({text})", reason.name()),
    }
}

/// A certificate by its machine: a hash of the name, whether it is revoked for good, when it ends, its number. So those are found that
/// open something, without a look at those that do not: a machine has a new one each month, and years of them.
pub(super) type OfName = (u64, bool, u64, u64);

/// Of a name, however it is written. Two names may have the same: whoever looks by it compares the names, too, and sorts what he found
/// by something else, as another build of this software may hash in another way.
pub(super) fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    machine_key(name).hash(&mut hasher);
    hasher.finish()
}

fn of_name(row: &CertificateRow) -> OfName {
    (hash(&row.name), row.revoked_ms != 0 && !row.is_on_hold(), row.not_after_ms, row.number)
}

impl Index {
    /// What follows from whether a certificate is revoked, on hold, released or nothing of that.
    pub(super) fn note_standing(&mut self, row: &CertificateRow) {
        self.note_revocation(row);
        if row.profile() == v1::CertificateProfile::Machine {
            self.certificates_of_name.insert(of_name(row));
        }
    }

    /// The part of it that most certificates have none of.
    pub(super) fn note_revocation(&mut self, row: &CertificateRow) {
        if row.revocation_number != 0 {
            self.revocations.insert(row.revocation_number, row.serial.clone());
            self.revoked_of_issuer.insert((row.issuer, row.not_after_ms, row.revocation_number));
        }
        if row.release_number != 0 {
            self.releases.insert(row.release_number, row.serial.clone());
        }
    }

    pub(super) fn drop_standing(&mut self, row: &CertificateRow) {
        self.revocations.remove(&row.revocation_number);
        self.revoked_of_issuer.remove(&(row.issuer, row.not_after_ms, row.revocation_number));
        self.releases.remove(&row.release_number);
        if row.profile() == v1::CertificateProfile::Machine {
            self.certificates_of_name.remove(&of_name(row));
        }
    }
}

impl State {
    /// Machines' certificates by name, as the index has them.
    pub(super) fn certificates_of_name(&self) -> BTreeSet<OfName> {
        let machines = self.certificates.iter().filter(|(_, row)| row.profile() == v1::CertificateProfile::Machine);
        machines.map(|(_, row)| of_name(row)).collect()
    }

    /// Revokes one row, and ends the sessions on it. One that is revoked already stays as it is, but for one on hold.
    pub(super) fn revoke_row(&mut self, serial: &String, reason: Reason, text: &str) -> u32 {
        let (now_ms, number) = (self.now_ms(), self.next_certificate());
        let code = if self.level() >= REVOCATION_LEVEL { u32::from(reason.code()) } else { 0 };
        let hold = reason == Reason::CertificateHold;
        if let Some(row) = self.certificates.change(serial)
            && (row.revoked_ms == 0 || (row.is_on_hold() && !hold))
        {
            self.index.drop_standing(row);
            if row.revoked_ms == 0 {
                row.revoked_ms = now_ms.max(1); // 0 says "not revoked"
            }
            row.revocation_reason = text.to_owned();
            row.revocation_code = code;
            let of_gateway = row.profile() == v1::CertificateProfile::Gateway;
            let of_machine = row.profile() == v1::CertificateProfile::Machine;
            (row.revocation_number, row.release_number) = (number, 0);
            self.index.note_standing(row);
            if of_machine && !hold {
                self.forget_certificate(serial);
            }
            self.note_lists_change(number);
            self.notices += 1;
            if of_gateway {
                self.review_publication();
            }
        }
        let ids = self.index.sessions_of_machine.get(serial).cloned().unwrap_or_default();
        let text = if hold { "the machine's certificate is on hold" } else { "the machine's certificate was revoked" };
        self.doom(ids, v1::EndReason::Revoked, text)
    }

    fn release_row(&mut self, serial: &String) {
        let number = self.next_certificate();
        if let Some(row) = self.certificates.change(serial) {
            self.index.drop_standing(row);
            row.revoked_ms = 0;
            row.revocation_code = 0;
            row.revocation_reason.clear();
            (row.revocation_number, row.release_number) = (0, number);
            self.index.note_standing(row);
            self.note_lists_change(number);
            self.notices += 1;
        }
    }

    /// Whether there ever was a certificate of a machine.
    fn had_certificate(&self, name: &str) -> bool {
        let (key, of) = (machine_key(name), hash(name));
        let mut rows = self.rows_of_name((of, false, 0, 0)..=(of, true, u64::MAX, u64::MAX));
        rows.any(|row| machine_key(&row.name) == key)
    }

    fn rows_of_name(&self, range: RangeInclusive<OfName>) -> impl Iterator<Item = &CertificateRow> {
        let numbers = self.index.certificates_of_name.range(range).map(|(_, _, _, number)| number);
        numbers.filter_map(|number| self.certificates.get(self.index.certificates.get(number)?))
    }

    /// Certificates of a machine, or of one whose name has the same hash, that are revoked for good: those that end last first.
    pub(super) fn closed_certificates_of(&self, name: &str) -> impl Iterator<Item = &CertificateRow> {
        let of = hash(name);
        let range = (of, true, 0, 0)..=(of, true, u64::MAX, u64::MAX);
        let numbers = self.index.certificates_of_name.range(range).rev().map(|(_, _, _, number)| number);
        numbers.filter_map(|number| self.certificates.get(self.index.certificates.get(number)?))
    }

    /// Why an operator cannot have a certificate made: it would open what a hold has closed.
    pub(super) fn refuses_while_on_hold(&self, record: &CertificateRow) -> Option<String> {
        let name = &record.name;
        let of_machine = record.profile() == v1::CertificateProfile::Machine && self.level() >= REVOCATION_LEVEL;
        (of_machine && self.machine_on_hold(name)).then(|| {
            format!(
                "the certificate of {name} is on hold: sallyport cert release --machine {name} lets it in again, and sallyport cert \
                 revoke --machine {name} takes it back for good, after which it can have another"
            )
        })
    }

    /// Certificates of a machine that open something, a session or by a late renewal another certificate, or would if they were
    /// released: the oldest first.
    fn open_certificates_of(&self, name: &str) -> Vec<&CertificateRow> {
        let (key, of) = (machine_key(name), hash(name));
        let live = (of, false, self.now_ms().saturating_add(1), 0)..=(of, false, u64::MAX, u64::MAX);
        let machine = self.machines.get(&key);
        let renew = machine.into_iter().flat_map(|m| [&m.serial, &m.previous]).filter_map(|s| self.certificates.get(s));
        let rows = self.rows_of_name(live).filter(|row| machine_key(&row.name) == key).chain(renew);
        let by_number: BTreeMap<u64, &CertificateRow> = rows.map(|row| (row.number, row)).collect();
        by_number.into_values().collect()
    }

    /// The machines that a command is about, by folded name; otherwise why there are none, or none that it could be about.
    fn machines_of(&self, which: &Selector) -> Result<Vec<String>, (ConflictKind, String)> {
        match which {
            Selector::Serial(_) => Ok(Vec::new()),
            Selector::Machine(name) => {
                let key = machine_key(name);
                let known = self.machines.contains(&key) || self.had_certificate(name) || self.was_made_for(&key);
                if known {
                    return Ok(vec![key]);
                }
                let message = format!("there is no machine {name:?}; see sallyport machine list");
                Err((ConflictKind::NotFound, message))
            }
            Selector::Holder(holder) => {
                let mut machines: Vec<String> = self.held_by(holder).take(MAX_MACHINES_REVOKED + 1).collect();
                if machines.is_empty() {
                    let message = format!("no machine has the holder {holder:?}; see sallyport machine list");
                    return Err((ConflictKind::NotFound, message));
                }
                if machines.len() > MAX_MACHINES_REVOKED {
                    let message = format!(
                        "{holder:?} has more than {MAX_MACHINES_REVOKED} machines, tokens and requests, too many at once; revoke them \
                         machine by machine"
                    );
                    return Err((ConflictKind::Exhausted, message));
                }
                machines.sort_unstable();
                machines.dedup();
                Ok(machines)
            }
        }
    }

    /// The machine, by folded name, that has this certificate in use. Whoever took it has the key that the list names, too, and the
    /// token beside it.
    fn machine_with(&self, serial: &String) -> Option<String> {
        let row = self.certificates.get(serial).filter(|r| r.profile() == v1::CertificateProfile::Machine)?;
        let machine = self.machine(&row.name)?;
        (machine.serial == *serial || machine.previous == *serial).then(|| machine_key(&row.name))
    }

    /// The rows that a command may be about, by serial number: those that open something.
    fn selected(&self, which: &Selector, machines: &[String]) -> Vec<String> {
        match which {
            Selector::Serial(serial) => {
                let machine = self.machine_with(serial).and_then(|key| self.machines.get(&key));
                let both = machine.map(|m| [m.serial.clone(), m.previous.clone()]).into_iter().flatten();
                let others = both.filter(|other| other != serial && self.certificates.contains(other));
                std::iter::once(serial.clone()).chain(others).collect()
            }
            Selector::Machine(_) | Selector::Holder(_) => {
                let rows = machines.iter().flat_map(|name| self.open_certificates_of(name));
                rows.map(|row| row.serial.clone()).collect()
            }
        }
    }

    pub(super) fn revoke_certificates(&mut self, command: &RevokeCertificates) -> Reply {
        let (Some(which), Some(reason)) = (&command.which, u8::try_from(command.code).ok().and_then(Reason::from_code))
        else {
            return Reply::conflict(ConflictKind::Invalid, "a revocation names certificates, and a reason of RFC 5280");
        };
        let hold = reason == Reason::CertificateHold;
        if let Selector::Serial(serial) = which {
            if let Some(refused) = self.refuse_revocation(serial) {
                return refused;
            }
            if hold && let Some(refused) = self.refuse_hold(serial) {
                return refused;
            }
        }
        let machines = match self.machines_of(which) {
            Ok(machines) => machines,
            Err((kind, message)) => return Reply::conflict(kind, message),
        };
        let changes = |serial: &String| {
            self.certificates.get(serial).is_some_and(|row| row.revoked_ms == 0 || (row.is_on_hold() && !hold))
        };
        let serials: Vec<String> = self.selected(which, &machines).into_iter().filter(changes).collect();
        if serials.len() > MAX_REVOKED {
            return Reply::conflict(
                ConflictKind::Exhausted,
                format!("more than {MAX_REVOKED} certificates at once; revoke them machine by machine"),
            );
        }
        if hold && serials.is_empty() && !machines.is_empty() && self.on_hold_among(&machines) == 0 {
            let message =
                "it has no certificate that could be on hold; sallyport cert revoke without --hold takes tokens back";
            return Reply::conflict(ConflictKind::Precondition, message);
        }
        // From here on something changes, and so nothing is refused.
        let after = self.last_certificate();
        let ended_sessions = serials.iter().map(|serial| self.revoke_row(serial, reason, &command.text)).sum();
        let (mut tokens, mut requests) = (0, 0);
        if !hold {
            let of_serial = match which {
                Selector::Serial(serial) if reason != Reason::Superseded => self.machine_with(serial),
                _ => None,
            };
            let why = why(reason, &command.text);
            for machine in machines.iter().chain(&of_serial) {
                let (t, r) = self.shut_out(machine, &why);
                (tokens, requests) = (tokens + t, requests + r);
            }
        }
        let (last, at_ms) = (self.last_certificate(), self.now_ms());
        Outcome::Revoked(Revoked { serials, ended_sessions, after, last, tokens, requests, at_ms }).into()
    }

    fn on_hold_among(&self, machines: &[String]) -> usize {
        machines.iter().flat_map(|name| self.open_certificates_of(name)).filter(|row| row.is_on_hold()).count()
    }

    /// Why a certificate cannot be on hold.
    fn refuse_hold(&self, serial: &String) -> Option<Reply> {
        let row = self.certificates.get(serial)?;
        let message = match row.profile() {
            v1::CertificateProfile::Controller | v1::CertificateProfile::Endpoint => {
                "a controller's certificate cannot be on hold: whoever heard that it is revoked keeps that"
            }
            _ if row.revoked_ms != 0 && !row.is_on_hold() => "it is revoked for good, and cannot be on hold",
            _ => return None,
        };
        Some(Reply::conflict(ConflictKind::Precondition, message))
    }

    /// Nothing that was made for a machine opens anything any more: tokens, approved requests, what the list says of its key and
    /// place, and certificates on their way. Each leaves an entry in the audit log. Gives how many tokens and requests that were.
    fn shut_out(&mut self, key: &str, why: &str) -> (u32, u32) {
        for serial in self.intents_of(key) {
            self.ledger.note(entry::intent_taken_back(&serial, key, why));
            self.abandon_certificate(&AbandonCertificate { serial });
        }
        let now_ms = self.now_ms();
        let all = self.level() < MACHINES_LEVEL;
        let mut tokens = 0_usize;
        for id in &self.tokens_of(key) {
            // One that opens nothing any more goes, too: it is good for the answer that it has brought.
            let good = |row: &EnrollTokenRow| row.used < row.uses && row.expires_ms > now_ms;
            if all || self.enroll_tokens.get(id).is_some_and(good) {
                self.ledger.note(entry::token_taken_back(id, key, why));
                tokens += 1;
            }
            self.drop_enroll_token(id);
        }
        let mut approved = self.requests_of(key);
        approved.retain(|n| self.requests.get(n).is_some_and(|r| r.state() == v1::RequestState::Approved));
        for number in &approved {
            self.ledger.note(entry::approval_taken_back(*number, key, why));
            self.change_request(*number, |row| {
                row.state = v1::RequestState::Refused.into();
                row.decided_ms = now_ms;
            });
        }
        if self.forget_listing(key) {
            self.ledger.note(entry::listing_taken_back(key, why));
        }
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        (count(tokens), count(approved.len()))
    }

    pub(super) fn release_certificates(&mut self, command: &ReleaseCertificates) -> Reply {
        let Some(which) = &command.which else {
            return Reply::conflict(ConflictKind::Invalid, "a release names certificates");
        };
        if let Selector::Serial(serial) = which
            && let Some(refused) = self.refuse_revocation(serial)
        {
            return refused;
        }
        let machines = match self.machines_of(which) {
            Ok(machines) => machines,
            Err((kind, message)) => return Reply::conflict(kind, message),
        };
        let mut held = self.selected(which, &machines);
        held.retain(|serial| self.certificates.get(serial).is_some_and(CertificateRow::is_on_hold));
        if held.is_empty() {
            let message = "nothing of it is on hold: what is revoked for good stays so, and needs a new certificate";
            return Reply::conflict(ConflictKind::Precondition, message);
        }
        if held.len() > MAX_REVOKED {
            let message = format!("more than {MAX_REVOKED} certificates at once; release them machine by machine");
            return Reply::conflict(ConflictKind::Exhausted, message);
        }
        let after = self.last_certificate();
        for serial in &held {
            self.release_row(serial);
        }
        let (last, at_ms) = (self.last_certificate(), self.now_ms());
        Outcome::Revoked(Revoked { serials: held, after, last, at_ms, ..Revoked::default() }).into()
    }

    /// Whether a machine's newest certificate, or the one before, is on hold: until it is released nothing makes it another one.
    pub(super) fn machine_on_hold(&self, name: &str) -> bool {
        let held = |serial: &String| self.certificates.get(serial).is_some_and(CertificateRow::is_on_hold);
        self.machine(name).is_some_and(|machine| held(&machine.serial) || held(&machine.previous))
    }

    /// Number of the newest revocation or release; 0 before the first.
    pub fn last_revocation_or_release(&self) -> u64 {
        let released = self.index.releases.last_key_value().map_or(0, |(number, _)| *number);
        self.last_revocation().max(released)
    }

    /// Certificates that were issued, revoked or released after a number, in the order of that, with the number: at most `most`.
    pub fn live_changes(&self, after: u64, most: usize) -> Vec<(u64, &CertificateRow)> {
        let range = (Bound::Excluded(after), Bound::Unbounded);
        let mut changes = BTreeMap::new();
        for of in [&self.index.certificates, &self.index.revocations, &self.index.releases] {
            changes.extend(of.range(range).take(most).map(|(number, serial)| (*number, serial)));
        }
        let rows = changes.into_iter().take(most);
        rows.filter_map(|(number, serial)| Some((number, self.certificates.get(serial)?))).collect()
    }

    /// Certificates that were issued after a number and up to another, in order: at most `most`.
    pub fn issued_between(&self, after: u64, up_to: u64, most: usize) -> Vec<&CertificateRow> {
        let range = (Bound::Excluded(after), Bound::Included(up_to.max(after.saturating_add(1))));
        let serials = self.index.certificates.range(range).take_while(|(number, _)| **number <= up_to).take(most);
        serials.filter_map(|(_, serial)| self.certificates.get(serial)).collect()
    }
}

#[cfg(test)]
mod tests;
