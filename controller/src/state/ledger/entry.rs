//! What a command did, as entries of the log.

use std::fmt::Display;

use prost::Message;
use ring::digest;
use sallyport_proto::v1::{self, LogEntry, LogKind};

use super::{KeyUse, Mark, NoteKeyUse};
use crate::state::{
    Action, CertificateRow, DecideRequest, IntendCertificate, IntentRow, NewIssuer, ProfileRow, ProofKind, PutMachines,
    QueueRequest, RolloverStep, SetOperatorRoles, State, role_name,
};

/// Longest text of an entry, bytes: of strangers' words there is no more than this in it.
const MAX_TEXT: usize = 512;

fn entry(kind: LogKind) -> LogEntry {
    LogEntry { kind: kind.into(), ..LogEntry::default() }
}

/// Texts are cut: they may come from anybody.
fn cut(mut text: String) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, bytes).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn join<T: Display>(parts: impl IntoIterator<Item = T>) -> String {
    parts.into_iter().map(|part| part.to_string()).collect::<Vec<_>>().join(", ")
}

/// What allows a certificate, in words.
fn proof_text(proof: Option<&ProofKind>) -> String {
    match proof {
        Some(ProofKind::Token(token)) => format!("token {}", hex(&token.id)),
        Some(ProofKind::Certificate(serial)) => format!("renewal of {serial}"),
        Some(ProofKind::Listed(name)) => format!("the list of machines: {name}"),
        Some(ProofKind::Approved(number)) => format!("request {number}, approved"),
        Some(ProofKind::Gateway(gateway)) => {
            let late = if gateway.late { ", shown outside of a handshake" } else { "" };
            format!("the link certificate {} of the gateway{late}", gateway.link)
        }
        Some(ProofKind::Office(_)) => "nobody enrolls: an operator asks, or a controller for itself".into(),
        None => "an operator".into(),
    }
}

/// What the profile of a certificate is called.
fn profile_text(record: &CertificateRow) -> String {
    use v1::CertificateProfile as P;
    let name = match record.profile() {
        P::Root => "root",
        P::Issuing => "issuing",
        other => sallyport_ca::Profile::ALL
            .into_iter()
            .find(|p| other != P::Unspecified && crate::authority::profile_to_proto(*p) == other)
            .map_or("", |p| p.name()),
    };
    name.into()
}

fn certificate(kind: LogKind, record: &CertificateRow) -> LogEntry {
    LogEntry {
        name: cut(record.name.clone()),
        serial: record.serial.clone(),
        profile: profile_text(record),
        number: record.issuer,
        sha256: record.fingerprint.clone(),
        until_unix_ms: record.not_after_ms,
        detail: cut(join(&record.sans)),
        ..entry(kind)
    }
}

/// The first entry: what was issued before is in no log.
pub(super) fn begun(certificates: u64) -> LogEntry {
    LogEntry { number: certificates, ..entry(LogKind::Begun) }
}

/// The first entry after a restore.
pub(super) fn restored(size: u64) -> LogEntry {
    LogEntry { number: size, ..entry(LogKind::Restored) }
}

fn intended(row: &IntentRow, source: &str) -> LogEntry {
    let record = row.record.clone().unwrap_or_default();
    let proof = row.proof.as_ref().and_then(|p| p.kind.as_ref());
    LogEntry {
        source: cut(source.to_owned()),
        number: row.issuer,
        detail: cut(proof_text(proof)),
        sha256: Vec::new(),
        ..certificate(LogKind::CertificateIntended, &record)
    }
}

fn profile_set(name: &str, row: &ProfileRow) -> LogEntry {
    let detail = format!(
        "validity {} s, late renewal {} s, overdue at {} %, ways {:?}, keys {:?}, names under {:?}",
        row.validity_s, row.late_renewal_s, row.overdue_percent, row.methods, row.keys, row.name_suffixes
    );
    LogEntry {
        name: name.to_owned(),
        number: row.version,
        sha256: sha256(&row.encode_to_vec()),
        detail: cut(detail),
        ..entry(LogKind::ProfileSet)
    }
}

fn machines_put(command: &PutMachines) -> LogEntry {
    LogEntry {
        number: command.machines.len() as u64,
        detail: cut(join(command.machines.iter().map(|m| &m.name))),
        sha256: sha256(&command.encode_to_vec()),
        ..entry(LogKind::MachinesPut)
    }
}

fn decided(command: &DecideRequest) -> LogEntry {
    LogEntry {
        actor: command.decided_by.clone(),
        name: cut(command.name.clone()),
        number: command.number,
        detail: cut(join(&command.sans)),
        ..entry(if command.approve { LogKind::RequestApproved } else { LogKind::RequestDenied })
    }
}

fn other(name: impl Into<String>, detail: &str) -> LogEntry {
    LogEntry { name: cut(name.into()), detail: cut(detail.into()), ..entry(LogKind::Other) }
}

fn operator_set(command: &SetOperatorRoles) -> LogEntry {
    let roles: Vec<&str> = command.roles().map(role_name).collect();
    let detail = match (command.all, roles.is_empty()) {
        (true, _) => "all roles".into(),
        (false, true) => "no role".into(),
        (false, false) => format!("roles: {}", roles.join(", ")),
    };
    other(format!("operator {}", command.name), &detail)
}

fn authority_added(new: &NewIssuer, replace: bool) -> LogEntry {
    let place = replace.then(|| "in the place of the one before".to_owned());
    let names = new.constraints.as_ref().and_then(|row| row.read()).map(|names| format!("names {names}"));
    LogEntry {
        sha256: sha256(&new.certificate),
        number: new.number,
        detail: cut(place.into_iter().chain(names).collect::<Vec<_>>().join("; ")),
        ..certificate(LogKind::AuthorityAdded, &new.record.clone().unwrap_or_default())
    }
}

fn queued(command: &QueueRequest, number: u64) -> LogEntry {
    LogEntry {
        source: cut(command.source.clone()),
        name: cut(command.claims.clone()),
        number,
        sha256: command.key_sha256.clone(),
        profile: command.profile.clone(),
        ..entry(LogKind::RequestQueued)
    }
}

fn key_used(command: &NoteKeyUse) -> LogEntry {
    match command.purpose() {
        KeyUse::Unspecified => entry(LogKind::KeyUsed),
        KeyUse::Exported => of_root(command.root, "the private key goes out of the cluster to whoever asked for it"),
        KeyUse::Requested => of_root(command.root, "it signs a request for a certificate by another authority"),
        KeyUse::BackedUp => LogEntry {
            name: "every key".into(),
            detail: "a backup is made: it holds all private keys, and what opens them".into(),
            ..entry(LogKind::KeyUsed)
        },
    }
}

/// A token that was taken back with all of its machine.
pub(in crate::state) fn token_taken_back(id: &[u8], machine: &str, why: &str) -> LogEntry {
    LogEntry {
        name: cut(machine.to_owned()),
        detail: cut(format!("{}; all of the machine: {why}", hex(id))),
        ..entry(LogKind::TokenRevoked)
    }
}

/// A request whose approval was taken back with all of its machine.
pub(in crate::state) fn approval_taken_back(number: u64, machine: &str, why: &str) -> LogEntry {
    LogEntry {
        name: cut(machine.to_owned()),
        number,
        detail: cut(format!("it had been approved; all of the machine: {why}")),
        ..entry(LogKind::RequestDenied)
    }
}

/// A certificate that will not be signed, as all of its machine was taken back.
pub(in crate::state) fn intent_taken_back(serial: &str, machine: &str, why: &str) -> LogEntry {
    LogEntry {
        serial: serial.to_owned(),
        name: cut(machine.to_owned()),
        detail: cut(format!("all of the machine: {why}")),
        ..entry(LogKind::CertificateAbandoned)
    }
}

/// The list of machines lets one in no more.
pub(in crate::state) fn listing_taken_back(machine: &str, why: &str) -> LogEntry {
    other(machine, &format!("neither its key nor its place in the list of machines opens anything now: {why}"))
}

/// What happened to a root.
fn of_root(number: u64, detail: &str) -> LogEntry {
    LogEntry { name: format!("root {number}"), detail: detail.into(), ..entry(LogKind::KeyUsed) }
}

impl State {
    /// Certificates that were issued, revoked and released since, in this order.
    pub(super) fn certificate_entries(&self, mark: &Mark) -> Vec<LogEntry> {
        let since = mark.certificate + 1..;
        let record = |serial: &String| self.certificates.get(serial);
        let issued = self.index.certificates.range(since.clone()).filter_map(|(_, serial)| record(serial));
        let revoked = self.index.revocations.range(since.clone()).filter_map(|(_, serial)| record(serial));
        let released = self.index.releases.range(since).filter_map(|(_, serial)| record(serial));
        let released = released.map(|row| certificate(LogKind::CertificateReleased, row));
        let issued = issued.map(|row| certificate(LogKind::CertificateIssued, row));
        let revoked = revoked
            .map(|row| LogEntry { detail: cut(row.why_revoked()), ..certificate(LogKind::CertificateRevoked, row) });
        issued.chain(revoked).chain(released).collect()
    }

    /// Refusals that controllers recorded since. What a gateway says of itself is no entry: entries stay for ever, and a hostile one
    /// would fill the disks of all controllers with them.
    fn refusal_entries(&self, mark: &Mark) -> Vec<LogEntry> {
        let refused = |attempt: &v1::Attempt| {
            attempt.gateway.is_empty()
                && attempt.phase() == v1::Phase::Enrollment
                && attempt.outcome() == v1::Outcome::Refused
        };
        let new = self.attempts.range(mark.attempt..).filter(|(_, attempt)| refused(attempt));
        let entry = |attempt: &v1::Attempt| LogEntry {
            source: cut(attempt.remote.clone()),
            detail: cut(attempt.cause.clone()),
            ..entry(LogKind::CertificateRefused)
        };
        new.map(|(_, attempt)| entry(attempt)).collect()
    }

    /// What a command did.
    pub(super) fn entries_of(&self, mark: &Mark, action: &Action) -> Vec<LogEntry> {
        let mut entries = Vec::new();
        match action {
            Action::RecordAttempts(_) => entries.extend(self.refusal_entries(mark)),
            Action::IntendCertificate(c) => entries.extend(self.newly_intended(mark, c)),
            Action::CompleteCertificate(c) => entries.extend(self.newly_abandoned(mark, &c.serial)),
            Action::AbandonCertificate(c) => entries.extend(self.newly_abandoned(mark, &c.serial)),
            Action::CreateEnrollToken(c) => entries.push(LogEntry {
                actor: c.made_by.clone(),
                name: cut(c.name.clone()),
                profile: c.profile.clone(),
                number: c.uses.into(),
                until_unix_ms: self.now_ms().saturating_add(c.ttl_ms),
                detail: hex(&c.id),
                ..entry(LogKind::TokenMade)
            }),
            Action::RevokeEnrollToken(c) => {
                entries.push(LogEntry { detail: hex(&c.id), ..entry(LogKind::TokenRevoked) });
            }
            Action::SetProfile(c) => {
                let row = self.profiles.get(&c.name);
                entries.extend(row.map(|row| profile_set(&c.name, row)));
            }
            Action::PutMachines(c) => entries.push(machines_put(c)),
            Action::RemoveMachine(c) => {
                entries.push(LogEntry { name: c.key.clone(), ..entry(LogKind::MachineRemoved) });
            }
            Action::QueueRequest(c) => {
                let number = self.last_enrollment();
                entries.extend((number > mark.enrollment).then(|| queued(c, number)));
            }
            Action::DecideRequest(c) => entries.push(decided(c)),
            Action::AddIssuers(c) => entries.extend(c.issuers.iter().map(|new| authority_added(new, c.replace))),
            Action::RetireIssuer(c) => {
                let detail = if c.compromised { "its key is in other hands" } else { "" }.to_owned();
                entries.push(LogEntry { number: c.number, detail, ..entry(LogKind::AuthorityRetired) });
            }
            Action::SetPsk(_) => entries.push(entry(LogKind::PskSet)),
            Action::ClearPsk(_) => entries.push(entry(LogKind::PskCleared)),
            Action::UpdateSettings(_) => {
                let settings = self.settings();
                entries.push(LogEntry {
                    number: settings.version,
                    sha256: sha256(&settings.encode_to_vec()),
                    ..entry(LogKind::SettingsSet)
                });
            }
            Action::CreateToken(c) => entries.push(LogEntry {
                actor: c.made_by.clone(),
                until_unix_ms: self.now_ms().saturating_add(c.ttl_ms),
                detail: hex(&c.id),
                ..entry(LogKind::ControllerTokenMade)
            }),
            Action::RevokeTokens(_) => entries.push(entry(LogKind::ControllerTokensRevoked)),
            Action::AdmitMember(_) | Action::ReadmitMember(_) => {
                let newest = self.members.iter().next_back();
                entries.extend(newest.map(|(id, row)| LogEntry {
                    name: cut(row.name.clone()),
                    number: *id,
                    source: cut(row.address.clone()),
                    ..entry(LogKind::ControllerAdmitted)
                }));
            }
            Action::RemoveMember(c) => entries.push(LogEntry { number: c.id, ..entry(LogKind::ControllerRemoved) }),
            Action::PromoteMember(c) => entries.push(other(format!("controller {}", c.id), "it votes")),
            Action::EraseRootKey(c) => entries.push(of_root(c.root, "the private key was erased from the cluster")),
            Action::RestoreRootKey(c) => entries
                .push(LogEntry { until_unix_ms: c.until_ms, ..of_root(c.root, "the private key was brought back") }),
            Action::InstallRootChain(c) => {
                let detail =
                    if c.above.is_empty() { "it stands by itself" } else { "it stands below another authority" };
                entries.push(of_root(c.root, detail));
            }
            Action::BeginRollover(c) => entries.push(LogEntry {
                sha256: sha256(&c.certificate),
                detail: format!("a root beside root {}, trusted from now on", c.before),
                ..of_root(c.number, "")
            }),
            Action::TurnRollover(c) => {
                let step = format!("{:?}", c.step()).to_lowercase();
                entries.push(of_root(c.to, &format!("the change from root {}: {step}", c.from)));
                if c.step() == RolloverStep::Activate {
                    entries.extend(c.issuers.iter().map(|new| authority_added(new, true)));
                }
            }
            Action::AcceptHeads(c) => entries.extend(c.heads.iter().filter_map(|head| {
                let head = sallyport_ca::merkle::SignedTreeHead::from_bytes(head).ok()?.head;
                Some(LogEntry {
                    number: head.size,
                    sha256: head.root.to_vec(),
                    until_unix_ms: head.time_ms,
                    detail: cut(c.reason.clone()),
                    ..entry(LogKind::HeadAccepted)
                })
            })),
            Action::NoteKeyUse(c) => entries.push(key_used(c)),
            Action::SetGatewayNames(c) => {
                let set = self.gateway_identity(&c.name).map(|row| join(&row.names)).unwrap_or_default();
                let detail =
                    if set.is_empty() { "no public names of its own".into() } else { format!("public names: {set}") };
                entries.push(other(format!("gateway {}", c.name), &cut(detail)));
            }
            Action::SetOperatorRoles(c) => entries.push(operator_set(c)),
            Action::RemoveGateway(c) => entries.push(other(format!("gateway {}", c.name), "it was removed")),
            // The certificates that these make, take back or give back are found by their numbers, below; what else a revocation takes
            // away it has noted itself, as it cannot be seen any more.
            Action::Bootstrap(_)
            | Action::RecordCertificate(_)
            | Action::AddScepRa(_)
            | Action::RevokeCertificate(_)
            | Action::RevokeCertificates(_)
            | Action::ReleaseCertificates(_)
            // Users, pools, sessions, gateways, what a controller says of itself and the level are not of this log.
            | Action::AddUser(_)
            | Action::RemoveUser(_)
            | Action::SetPassword(_)
            | Action::SetUserEnabled(_)
            | Action::UpdateUser(_)
            | Action::UnlockUser(_)
            | Action::AddPool(_)
            | Action::RemovePool(_)
            | Action::OpenSession(_)
            | Action::SessionsUp(_)
            | Action::EndSessions(_)
            | Action::KillSession(_)
            | Action::RegisterGateway(_)
            | Action::LoseGateway(_)
            | Action::DescribeMember(_)
            | Action::RaiseLevel(_)
            // Nor does it matter here in which form records are kept.
            | Action::CompactCertificates(_)
            // One within another was refused.
            | Action::Attributed(_) => {}
        }
        entries.extend(self.certificate_entries(mark));
        entries
    }

    fn newly_intended(&self, mark: &Mark, command: &IntendCertificate) -> Option<LogEntry> {
        let new = self.last_enrollment() > mark.enrollment;
        let row = self.intended(&command.transaction).filter(|_| new)?;
        Some(intended(row, &command.source))
    }

    fn newly_abandoned(&self, mark: &Mark, serial: &str) -> Option<LogEntry> {
        let issued = self.certificates.contains(&serial.to_owned());
        let gone = mark.intended && !self.has_intent(serial) && !issued;
        gone.then(|| LogEntry { serial: serial.to_owned(), ..entry(LogKind::CertificateAbandoned) })
    }

    fn last_enrollment(&self) -> u64 {
        self.core_row().map_or(0, |core| core.last_enrollment)
    }
}
