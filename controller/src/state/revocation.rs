//! Revocation by serial number, machine or holder; hold and release. One place writes what a row says of it.
//!
//! Every change of what is live has a number from one counter, in which certificates are numbered, too. So "what changed after
//! number n" is three ranges of the index ([`State::live_changes`]), and what is said of a certificate is always what its row says now:
//! hearing a change twice, or an older one after a newer, leaves the same.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound;

use sallyport_ca::crl::Reason;
use sallyport_proto::v1;

use super::enroll::{AbandonCertificate, machine_key};
use super::ledger::entry;
use super::{CertificateRow, ConflictKind, Index, Outcome, Reply, State};

/// The level of reasons, hold, release, and revocation by machine and holder.
pub(crate) const REVOCATION_LEVEL: u32 = 7;
/// Most certificates that one command takes back.
pub const MAX_REVOKED: usize = 10_000;

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
}

fn why(reason: Reason, text: &str) -> String {
    match (reason, text) {
        (Reason::Unspecified, "") => "no reason given".into(),
        (Reason::Unspecified, text) => text.into(),
        (reason, "") => reason.name().into(),
        (reason, text) => format!("{} ({text})", reason.name()),
    }
}

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    machine_key(name).hash(&mut hasher);
    hasher.finish()
}

impl Index {
    /// A machine's certificate is found by its name.
    pub(super) fn note_name(&mut self, row: &CertificateRow) {
        if row.profile() == v1::CertificateProfile::Machine {
            self.certificates_of_name.insert((hash(&row.name), row.number));
        }
    }
}

impl State {
    /// Revokes one row, and ends the sessions on it. One that is revoked already stays as it is, but for one on hold.
    pub(super) fn revoke_row(&mut self, serial: &String, reason: Reason, text: &str) -> u32 {
        let (now_ms, number) = (self.now_ms(), self.next_certificate());
        let code = if self.level() >= REVOCATION_LEVEL { u32::from(reason.code()) } else { 0 };
        let hold = reason == Reason::CertificateHold;
        if let Some(row) = self.certificates.change(serial)
            && (row.revoked_ms == 0 || (row.is_on_hold() && !hold))
        {
            if row.revoked_ms == 0 {
                row.revoked_ms = now_ms.max(1); // 0 says "not revoked"
            }
            row.revocation_reason = text.to_owned();
            row.revocation_code = code;
            let before = std::mem::replace(&mut row.revocation_number, number);
            let released = std::mem::take(&mut row.release_number);
            self.index.revocations.remove(&before);
            self.index.releases.remove(&released);
            self.index.revocations.insert(number, serial.clone());
            self.notices += 1;
        }
        let ids = self.index.sessions_of_machine.get(serial).cloned().unwrap_or_default();
        let text = if hold { "the machine's certificate is on hold" } else { "the machine's certificate was revoked" };
        self.doom(ids, v1::EndReason::Revoked, text)
    }

    fn release_row(&mut self, serial: &String) {
        let number = self.next_certificate();
        if let Some(row) = self.certificates.change(serial) {
            row.revoked_ms = 0;
            row.revocation_code = 0;
            row.revocation_reason.clear();
            row.release_number = number;
            let before = std::mem::take(&mut row.revocation_number);
            self.index.revocations.remove(&before);
            self.index.releases.insert(number, serial.clone());
            self.notices += 1;
        }
    }

    /// Certificates that were issued to a machine, the oldest first.
    pub fn certificates_of(&self, name: &str) -> impl Iterator<Item = &CertificateRow> {
        let (key, of) = (machine_key(name), hash(name));
        let numbers = self.index.certificates_of_name.range((of, 0)..=(of, u64::MAX)).map(|(_, number)| *number);
        let rows = numbers.filter_map(|number| self.certificates.get(self.index.certificates.get(&number)?));
        rows.filter(move |row| machine_key(&row.name) == key)
    }

    /// Certificates of a machine that open something: a session, or by a late renewal another certificate.
    fn open_certificates_of(&self, name: &str) -> Vec<&CertificateRow> {
        let now_ms = self.now_ms();
        let machine = self.machine(name);
        let renews = |row: &CertificateRow| machine.is_some_and(|m| m.serial == row.serial || m.previous == row.serial);
        self.certificates_of(name).filter(|row| row.not_after_ms > now_ms || renews(row)).collect()
    }

    /// The machines that a command is about, by folded name; otherwise why there are none.
    fn machines_of(&self, which: &Selector) -> Result<Vec<String>, String> {
        match which {
            Selector::Serial(_) => Ok(Vec::new()),
            Selector::Machine(name) => {
                let key = machine_key(name);
                let named = |other: &str| machine_key(other) == key;
                let known = self.machines.contains(&key)
                    || self.certificates_of(name).next().is_some()
                    || self.enroll_tokens.iter().any(|(_, token)| named(&token.name))
                    || self.requests.iter().any(|(_, request)| named(&request.name));
                if known {
                    Ok(vec![key])
                } else {
                    Err(format!("there is no machine {name:?}; see sallyport machine list"))
                }
            }
            Selector::Holder(holder) => {
                let wanted = holder.to_lowercase();
                let is = |other: &str| !other.is_empty() && other.to_lowercase() == wanted;
                let mut keys: Vec<String> =
                    self.machines.iter().filter(|(_, m)| is(&m.holder)).map(|(key, _)| key.clone()).collect();
                keys.extend(
                    self.enroll_tokens.iter().filter(|(_, t)| is(&t.holder)).map(|(_, t)| machine_key(&t.name)),
                );
                keys.extend(self.requests.iter().filter(|(_, r)| is(&r.holder)).map(|(_, r)| machine_key(&r.name)));
                keys.sort_unstable();
                keys.dedup();
                if keys.is_empty() {
                    return Err(format!("no machine has the holder {holder:?}; see sallyport machine list"));
                }
                Ok(keys)
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

    /// The rows that a command is about, by serial number: those that open something.
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
                rows.take(MAX_REVOKED + 1).map(|row| row.serial.clone()).collect()
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
            Err(message) => return Reply::conflict(ConflictKind::NotFound, message),
        };
        let selected = self.selected(which, &machines);
        if selected.len() > MAX_REVOKED {
            return Reply::conflict(
                ConflictKind::Exhausted,
                format!("more than {MAX_REVOKED} certificates at once; revoke them machine by machine"),
            );
        }
        let changes = |serial: &String| {
            self.certificates.get(serial).is_some_and(|row| row.revoked_ms == 0 || (row.is_on_hold() && !hold))
        };
        let serials: Vec<String> = selected.into_iter().filter(changes).collect();
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
        machines.iter().flat_map(|name| self.certificates_of(name)).filter(|row| row.is_on_hold()).count()
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
        let named = |name: &str| machine_key(name) == key;
        let records = self.intents.iter().filter_map(|(_, intent)| intent.record.as_ref());
        let intents: Vec<String> = records.filter(|r| named(&r.name)).map(|r| r.serial.clone()).collect();
        for serial in intents {
            self.ledger.note(entry::intent_taken_back(&serial, key, why));
            self.abandon_certificate(&AbandonCertificate { serial });
        }
        let tokens: Vec<Vec<u8>> =
            self.enroll_tokens.iter().filter(|(_, t)| named(&t.name)).map(|(id, _)| id.clone()).collect();
        for id in &tokens {
            self.ledger.note(entry::token_taken_back(id, key, why));
            self.enroll_tokens.remove(id);
        }
        let approved: Vec<u64> = self
            .requests
            .iter()
            .filter(|(_, r)| r.state() == v1::RequestState::Approved && named(&r.name))
            .map(|(number, _)| *number)
            .collect();
        let now_ms = self.now_ms();
        for number in &approved {
            self.ledger.note(entry::approval_taken_back(*number, key, why));
            if let Some(row) = self.requests.change(number) {
                row.state = v1::RequestState::Refused.into();
                row.decided_ms = now_ms;
            }
        }
        if self.forget_listing(key) {
            self.ledger.note(entry::listing_taken_back(key, why));
        }
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        (count(tokens.len()), count(approved.len()))
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
            Err(message) => return Reply::conflict(ConflictKind::NotFound, message),
        };
        let selected: Vec<String> = match which {
            Selector::Serial(_) => self.selected(which, &machines),
            Selector::Machine(_) | Selector::Holder(_) => {
                let rows = machines.iter().flat_map(|name| self.certificates_of(name));
                rows.map(|row| row.serial.clone()).collect()
            }
        };
        let held: Vec<String> = selected
            .into_iter()
            .filter(|serial| self.certificates.get(serial).is_some_and(CertificateRow::is_on_hold))
            .collect();
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
