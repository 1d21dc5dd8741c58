//! The controllers themselves: who is a member, under which id, and the tokens to become one.
//!
//! What Raft calls membership follows these rows: the leader adds and removes nodes until both agree.

use sallyport_ca::crl::Reason;
use sallyport_proto::v1;

use super::restore::RESTORED;
use super::{
    AdmitMember, Admitted, CertificateRow, ConflictKind, CreateToken, DescribeMember, Index, MAX_MEMBERS,
    MAX_REMOVED_MEMBERS, MemberRow, Outcome, PromoteMember, ReadmitMember, RemoveMember, Reply, State, TokenRow,
};

impl Index {
    pub(super) fn note_member_certificate(&mut self, row: &CertificateRow) {
        if row.member != 0 {
            self.certificates_of_member.entry(row.member).or_default().insert(row.serial.clone());
        }
    }

    pub(super) fn drop_member_certificate(&mut self, row: &CertificateRow) {
        if let Some(serials) = self.certificates_of_member.get_mut(&row.member) {
            serials.remove(&row.serial);
            if serials.is_empty() {
                self.certificates_of_member.remove(&row.member);
            }
        }
    }
}

/// Whether a certificate is what the first controller made for the operator's folder beside it.
fn of_operators_folder(row: &CertificateRow) -> bool {
    row.profile() == v1::CertificateProfile::Operator && row.name == crate::identity::OPERATOR
}

fn not_found(id: u64) -> Reply {
    Reply::conflict(ConflictKind::NotFound, format!("there is no controller {id}; see sallyport cluster status"))
}

fn exhausted() -> Reply {
    Reply::conflict(
        ConflictKind::Exhausted,
        "no id is left for another controller; restore a backup into a new cluster",
    )
}

impl State {
    /// The id for another member; `None` when there is none left.
    fn next_member(&self) -> Option<u64> {
        self.last_member().checked_add(1)
    }

    /// Forgets the controllers that were removed first, when many were. Their certificates stay revoked.
    fn forget_removed_members(&mut self) {
        // Older software keeps them all.
        if self.level() < 4 {
            return;
        }
        let mut removed: Vec<(u64, u64)> =
            self.members.iter().filter(|(_, m)| m.removed_ms != 0).map(|(id, m)| (m.removed_ms, *id)).collect();
        removed.sort_unstable();
        for (_, id) in removed.iter().take(removed.len().saturating_sub(MAX_REMOVED_MEMBERS)) {
            self.members.remove(id);
        }
    }

    /// Whether whose certificate this is was removed, maybe so long ago that nothing else is known of it. Those that a restore put out
    /// were not: they may be a cluster still.
    pub fn was_removed(&self, certificate: &CertificateRow) -> bool {
        match self.members.get(&certificate.member) {
            Some(member) => member.removed_ms != 0,
            None => {
                certificate.member != 0
                    && certificate.profile() == v1::CertificateProfile::Controller
                    && certificate.revoked_ms != 0
                    && certificate.revocation_reason != RESTORED
            }
        }
    }

    /// A member in force.
    pub fn member(&self, id: u64) -> Option<&MemberRow> {
        self.members.get(&id).filter(|m| m.removed_ms == 0)
    }

    /// Id of the controller that joined last.
    pub fn last_member(&self) -> u64 {
        self.core_row().map_or(0, |core| core.last_member)
    }

    /// Members in force.
    pub fn live_members(&self) -> impl Iterator<Item = (u64, &MemberRow)> {
        self.members.iter().filter(|(_, m)| m.removed_ms == 0).map(|(id, m)| (*id, m))
    }

    pub(super) fn create_token(&mut self, command: &CreateToken) -> Reply {
        if command.id.is_empty() || command.hash.len() != 32 || command.ttl_ms == 0 {
            return Reply::conflict(ConflictKind::Invalid, "a token needs an id, a hash and a time to live");
        }
        let now_ms = self.now_ms();
        let over: Vec<Vec<u8>> =
            self.tokens.iter().filter(|(_, t)| t.expires_ms <= now_ms).map(|(id, _)| id.clone()).collect();
        for id in over {
            self.tokens.remove(&id);
        }
        if self.tokens.len() >= MAX_MEMBERS {
            return Reply::conflict(ConflictKind::Exhausted, "too many tokens are out; wait until some end");
        }
        let expires_ms = now_ms.saturating_add(command.ttl_ms);
        let row = TokenRow { hash: command.hash.clone(), expires_ms, made_by: command.made_by.clone() };
        self.tokens.insert(command.id.clone(), row);
        Reply::done()
    }

    pub(super) fn revoke_tokens(&mut self) -> Reply {
        while self.tokens.pop_first().is_some() {}
        Reply::done()
    }

    pub(super) fn admit_member(&mut self, command: &AdmitMember) -> Reply {
        let (Some(member), Some(record)) = (&command.member, &command.record) else {
            return Reply::conflict(ConflictKind::Invalid, "no member in the command");
        };
        // The hash of a random secret of 128 bits: how long this comparison takes tells nothing of use.
        let good = self.tokens.get(&command.token).is_some_and(|token| token.hash == command.hash);
        if !good {
            let message = "this token is not known, or was used before: make another with sallyport cluster token";
            return Reply::conflict(ConflictKind::NotFound, message);
        }
        if self.tokens.get(&command.token).is_some_and(|token| token.expires_ms <= self.now_ms()) {
            self.tokens.remove(&command.token);
            let message = "this token has ended: make another with sallyport cluster token";
            return Reply::conflict(ConflictKind::Precondition, message);
        }
        if let Some(reply) = self.refuse_member(member) {
            return reply;
        }
        if let Some(superseded) = self.superseded(record, record.issuer) {
            return superseded;
        }
        if let Some(refused) = self.against_rules(record) {
            return refused;
        }
        let Some(id) = self.next_member() else { return exhausted() };
        let recorded = self.record_certificate(Some(&CertificateRow { member: id, ..record.clone() }));
        if matches!(recorded.outcome, Some(Outcome::Conflict(_))) {
            return recorded;
        }
        self.tokens.remove(&command.token);
        self.insert_member(id, member, !command.learner)
    }

    fn refuse_member(&self, member: &DescribeMember) -> Option<Reply> {
        if member.address.is_empty() {
            return Some(Reply::conflict(ConflictKind::Invalid, "a controller needs an address that others reach"));
        }
        if let Some(message) = self.refuses_software(&member.version, member.level) {
            return Some(Reply::conflict(ConflictKind::Precondition, message));
        }
        if self.members.len() >= MAX_MEMBERS {
            return Some(Reply::conflict(ConflictKind::Exhausted, "too many controllers have been members"));
        }
        let taken = self.live_members().find(|(id, m)| m.address == member.address && *id != member.id);
        taken.map(|(id, _)| {
            Reply::conflict(
                ConflictKind::AlreadyExists,
                format!(
                    "controller {id} has the address {}: remove it first (sallyport cluster remove {id}), or give this one \
                     another address (controller.advertise)",
                    member.address
                ),
            )
        })
    }

    fn insert_member(&mut self, id: u64, member: &DescribeMember, wants_vote: bool) -> Reply {
        let row = MemberRow {
            name: member.name.clone(),
            address: member.address.clone(),
            version: member.version.clone(),
            wants_vote,
            joined_ms: self.now_ms(),
            removed_ms: 0,
            successor: 0,
            supports_level: member.level,
        };
        self.forget_removed_members();
        self.members.insert(id, row);
        self.change_core(|core| core.last_member = core.last_member.max(id));
        self.notices += 1;
        Outcome::Admitted(Admitted { member_id: id }).into()
    }

    pub(super) fn readmit_member(&mut self, command: &ReadmitMember) -> Reply {
        let Some(member) = &command.member else {
            return Reply::conflict(ConflictKind::Invalid, "no member in the command");
        };
        let Some(old) = self.member(command.old_id).cloned() else { return not_found(command.old_id) };
        if let Some(reply) = self.refuse_member(&DescribeMember { id: command.old_id, ..member.clone() }) {
            return reply;
        }
        let Some(id) = self.next_member() else { return exhausted() };
        let now_ms = self.now_ms();
        if let Some(row) = self.members.change(&command.old_id) {
            (row.removed_ms, row.successor) = (now_ms.max(1), id);
        }
        // The certificates go with the machine that holds their keys.
        for serial in self.index.certificates_of_member.remove(&command.old_id).unwrap_or_default() {
            if let Some(row) = self.certificates.change(&serial) {
                row.member = id;
            }
            self.index.certificates_of_member.entry(id).or_default().insert(serial);
        }
        self.insert_member(id, member, old.wants_vote)
    }

    pub(super) fn describe_member(&mut self, command: &DescribeMember) -> Reply {
        // The first member of a cluster made before there were rows for members describes itself, too.
        if self.members.is_empty() && command.id != 0 {
            let orphans: Vec<String> = self
                .certificates
                .iter()
                .filter(|(_, c)| {
                    c.member == 0 && (c.profile() == v1::CertificateProfile::Controller || of_operators_folder(c))
                })
                .map(|(serial, _)| serial.clone())
                .collect();
            for serial in orphans {
                if let Some(row) = self.certificates.change(&serial) {
                    row.member = command.id;
                }
                self.index.certificates_of_member.entry(command.id).or_default().insert(serial);
            }
            return self.insert_member(command.id, command, true);
        }
        if self.member(command.id).is_none() {
            return not_found(command.id);
        }
        if let Some(reply) = self.refuse_member(command) {
            return reply;
        }
        if let Some(row) = self.members.change(&command.id) {
            row.name.clone_from(&command.name);
            row.address.clone_from(&command.address);
            row.version.clone_from(&command.version);
            row.supports_level = command.level;
        }
        self.notices += 1;
        Reply::done()
    }

    pub(super) fn promote_member(&mut self, command: &PromoteMember) -> Reply {
        if self.member(command.id).is_none() {
            return not_found(command.id);
        }
        if let Some(row) = self.members.change(&command.id) {
            row.wants_vote = true;
        }
        Reply::done()
    }

    pub(super) fn remove_member(&mut self, command: &RemoveMember) -> Reply {
        if self.member(command.id).is_none() {
            return not_found(command.id);
        }
        if self.live_members().filter(|(_, m)| m.wants_vote).all(|(id, _)| id == command.id) {
            let message = "this is the only controller that votes: without it there is no cluster";
            return Reply::conflict(ConflictKind::Precondition, message);
        }
        let now_ms = self.now_ms();
        if let Some(row) = self.members.change(&command.id) {
            row.removed_ms = now_ms.max(1);
        }
        let serials = self.index.certificates_of_member.get(&command.id).cloned().unwrap_or_default();
        for serial in serials {
            let reason = format!("controller {} was removed", command.id);
            self.revoke_one(&serial, Reason::CessationOfOperation, &reason);
        }
        self.notices += 1;
        Reply::done()
    }
}
