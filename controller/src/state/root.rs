//! The roots' life: a key that leaves the cluster and comes back, a root elsewhere above ours, another root in its place.

use sallyport_proto::v1;

use super::{AddIssuers, CertificateRow, ConflictKind, NewIssuer, Reply, RootRow, State};

/// The level from which on a root's key may be away, and there may be several roots (see `software`).
pub(crate) const ROOT_LEVEL: u32 = 7;
/// Most roots, those that are trusted no more included.
pub const MAX_ROOTS: usize = 64;

/// What is known of a root beside its certificate and key. Since level 7.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RootLifeRow {
    /// When its key was erased last; 0 for never.
    #[prost(uint64, tag = "1")]
    pub erased_ms: u64,
    /// When its key is erased again; 0 where it stays.
    #[prost(uint64, tag = "2")]
    pub key_until_ms: u64,
    /// While the key is away: the list of revoked controllers that it signed last, for software that knows of no other signer.
    #[prost(bytes = "vec", tag = "3")]
    pub controllers_list: Vec<u8>,
    /// While the key is away: the list of what it has issued and taken back, as it signed it last.
    #[prost(bytes = "vec", tag = "4")]
    pub own_list: Vec<u8>,
    /// Until when that one is good.
    #[prost(uint64, tag = "5")]
    pub own_list_until_ms: u64,
    /// What it stands below: its certificate by an authority elsewhere, ..., the other root; DER.
    #[prost(bytes = "vec", repeated, tag = "6")]
    pub above: Vec<Vec<u8>>,
    /// Number of the root whose place it takes; 0 for the first.
    #[prost(uint64, tag = "7")]
    pub before: u64,
    /// Its certificate by that root, DER.
    #[prost(bytes = "vec", tag = "8")]
    pub by_before: Vec<u8>,
    /// That root's certificate by this one, DER.
    #[prost(bytes = "vec", tag = "9")]
    pub of_before: Vec<u8>,
    /// When it was made beside the root before; 0 for the first.
    #[prost(uint64, tag = "10")]
    pub begun_ms: u64,
    /// Since when it is trusted no more; 0 while it is.
    #[prost(uint64, tag = "11")]
    pub retired_ms: u64,
}

/// A root's private key leaves the state.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EraseRootKey {
    /// Which root.
    #[prost(uint64, tag = "1")]
    pub root: u64,
    /// See [`RootLifeRow::controllers_list`]: signed before the key goes.
    #[prost(bytes = "vec", tag = "2")]
    pub controllers_list: Vec<u8>,
    /// See [`RootLifeRow::own_list`].
    #[prost(bytes = "vec", tag = "3")]
    pub own_list: Vec<u8>,
    /// See [`RootLifeRow::own_list_until_ms`].
    #[prost(uint64, tag = "4")]
    pub own_list_until_ms: u64,
    /// The revocation that the lists go up to.
    #[prost(uint64, tag = "5")]
    pub last_revocation: u64,
}

/// A root's private key comes back.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RestoreRootKey {
    /// Which root.
    #[prost(uint64, tag = "1")]
    pub root: u64,
    /// The key, PKCS #8, sealed.
    #[prost(bytes = "vec", tag = "2")]
    pub sealed_key: Vec<u8>,
    /// When it is erased again; 0 for good.
    #[prost(uint64, tag = "3")]
    pub until_ms: u64,
}

/// A root stands below another authority's, or no more.
#[derive(Clone, PartialEq, prost::Message)]
pub struct InstallRootChain {
    /// Which root.
    #[prost(uint64, tag = "1")]
    pub root: u64,
    /// See [`RootLifeRow::above`].
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub above: Vec<Vec<u8>>,
}

/// Another root, trusted beside the one in force.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BeginRollover {
    /// Its number: the next one.
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
    /// The root in force, which vouches for it.
    #[prost(uint64, tag = "5")]
    pub before: u64,
    /// Its certificate by that root, DER.
    #[prost(bytes = "vec", tag = "6")]
    pub by_before: Vec<u8>,
    /// That root's certificate by this one, DER.
    #[prost(bytes = "vec", tag = "7")]
    pub of_before: Vec<u8>,
}

/// What happens in a change of roots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum RolloverStep {
    /// Not said.
    Unspecified = 0,
    /// The next root issues.
    Activate = 1,
    /// The root before is trusted no more.
    Finish = 2,
    /// The root before is in force again, or still.
    Abort = 3,
}

/// A step in a change of roots.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TurnRollover {
    /// Which.
    #[prost(enumeration = "RolloverStep", tag = "1")]
    pub step: i32,
    /// The root before: that it is this change of roots.
    #[prost(uint64, tag = "2")]
    pub from: u64,
    /// The next root.
    #[prost(uint64, tag = "3")]
    pub to: u64,
    /// To activate: issuing authorities below the next root.
    #[prost(message, repeated, tag = "4")]
    pub issuers: Vec<NewIssuer>,
}

/// A change of roots that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rollover {
    /// The root before.
    pub from: u64,
    /// The next one.
    pub to: u64,
    /// Since when the next one is in force, log's time; 0 while it is not.
    pub activated_ms: u64,
}

fn conflict(kind: ConflictKind, text: &str) -> Reply {
    Reply::conflict(kind, text)
}

impl State {
    /// Number of the root in force, which stands above new issuing authorities; 0 before the first command.
    pub fn root_number(&self) -> u64 {
        match self.core_row().map_or(0, |core| core.root_in_force) {
            0 => self.roots.iter().next().map_or(0, |(number, _)| *number),
            number => number,
        }
    }

    /// The root in force and its number.
    pub fn root_in_force(&self) -> Option<(u64, &RootRow)> {
        let number = self.root_number();
        self.roots.get(&number).map(|row| (number, row))
    }

    /// What is known of a root beside its certificate and key.
    pub fn root_life(&self, number: u64) -> RootLifeRow {
        self.root_lives.get(&number).cloned().unwrap_or_default()
    }

    /// Roots that are trusted, the one in force first.
    pub fn trusted_roots(&self) -> impl Iterator<Item = (u64, &RootRow)> {
        let in_force = self.root_number();
        let retired = |number: &u64| self.root_lives.get(number).is_some_and(|life| life.retired_ms != 0);
        let others = self.roots.iter().rev().filter(move |(number, _)| **number != in_force && !retired(number));
        self.root_in_force().into_iter().chain(others.map(|(number, row)| (*number, row)))
    }

    /// The change of roots that is under way.
    pub fn rollover(&self) -> Option<Rollover> {
        let core = self.core_row().filter(|core| core.rollover_to != 0)?;
        Some(Rollover { from: core.rollover_from, to: core.rollover_to, activated_ms: core.rollover_activated_ms })
    }

    /// Certificates of one root by another, and what stands above a root elsewhere: for whoever collects authorities' certificates.
    pub fn cross_certificates(&self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for (number, _) in self.trusted_roots() {
            all.extend(self.root_life(number).above);
        }
        all.extend(self.root_crossings());
        all
    }

    /// The certificates of one root of ours by the other while a change of roots is under way: by them who trusts one learns of both.
    pub fn root_crossings(&self) -> Vec<Vec<u8>> {
        let Some(Rollover { from, to, .. }) = self.rollover() else { return Vec::new() };
        [self.crossed(to, from), self.crossed(from, to)].into_iter().flatten().collect()
    }

    /// The certificate of a root by another one.
    fn crossed(&self, of: u64, by: u64) -> Option<Vec<u8>> {
        let life = self.root_life(of.max(by));
        let certificate = if of > by { life.by_before } else { life.of_before };
        (life.before == of.min(by) && !certificate.is_empty()).then_some(certificate)
    }

    /// What stands above the issuing authorities of a root, up to a root: the root itself, or what leads from its name and key to one
    /// that others trust. Whoever trusts the root itself finds it among what he trusts.
    pub fn above_issuers_of(&self, root: u64) -> Vec<Vec<u8>> {
        let life = self.root_life(root);
        if !life.above.is_empty() {
            return life.above;
        }
        let row = self.roots.get(&root).or_else(|| self.root_in_force().map(|(_, row)| row));
        let itself = || row.map(|row| row.certificate.clone()).into_iter().collect();
        match self.rollover() {
            Some(Rollover { from, to, activated_ms }) if to == root && activated_ms != 0 => {
                match (self.crossed(to, from), self.roots.get(&from)) {
                    (Some(cross), Some(before)) => vec![cross, before.certificate.clone()],
                    _ => itself(),
                }
            }
            _ => itself(),
        }
    }

    /// Number of the next root: none is used twice.
    pub(crate) fn next_root(&self) -> u64 {
        // No row of a root goes away.
        self.roots.iter().next_back().map_or(0, |(number, _)| *number) + 1
    }

    /// Roots whose keys are here for a while, and until when, log's time.
    pub(crate) fn visiting_keys(&self) -> impl Iterator<Item = (u64, u64)> {
        let lives = self.root_lives.iter().filter(|(_, life)| life.key_until_ms != 0);
        lives.map(|(number, life)| (*number, life.key_until_ms))
    }

    fn change_life(&mut self, root: u64, change: impl FnOnce(&mut RootLifeRow)) {
        let mut life = self.root_life(root);
        change(&mut life);
        self.root_lives.insert(root, life);
    }

    fn erase_key_of(&mut self, root: u64) {
        if let Some(row) = self.roots.change(&root) {
            // What was there is of no use to anybody who reads memory later.
            row.sealed_key.fill(0);
            row.sealed_key = Vec::new();
        }
        let now_ms = self.now_ms().max(1);
        self.change_life(root, |life| (life.erased_ms, life.key_until_ms) = (now_ms, 0));
    }

    pub(super) fn erase_root_key(&mut self, command: &EraseRootKey) -> Reply {
        match self.roots.get(&command.root) {
            None => return conflict(ConflictKind::NotFound, "there is no such root"),
            Some(row) if row.sealed_key.is_empty() => return Reply::done(),
            Some(_) => {}
        }
        if self.issuers_in_force().next().is_none() {
            return conflict(
                ConflictKind::Precondition,
                "nothing else issues certificates yet; make an issuing authority first: sallyport ca issuer add --key KIND",
            );
        }
        if command.controllers_list.is_empty() || command.own_list.is_empty() {
            return conflict(ConflictKind::Invalid, "a root signs its lists before its key goes");
        }
        if command.last_revocation != self.last_revocation() {
            return conflict(ConflictKind::Changed, "a certificate was revoked meanwhile; try again");
        }
        self.erase_key_of(command.root);
        self.change_life(command.root, |life| {
            life.controllers_list.clone_from(&command.controllers_list);
            life.own_list.clone_from(&command.own_list);
            life.own_list_until_ms = command.own_list_until_ms;
        });
        self.change_policy(); // so that each member looks after its files
        Reply::done()
    }

    pub(super) fn restore_root_key(&mut self, command: &RestoreRootKey) -> Reply {
        let life = self.root_life(command.root);
        match self.roots.get(&command.root) {
            None => return conflict(ConflictKind::NotFound, "there is no such root"),
            Some(_) if life.retired_ms != 0 => {
                return conflict(ConflictKind::Precondition, "this root is trusted no more");
            }
            Some(row) if !row.sealed_key.is_empty() && life.key_until_ms == 0 => {
                return conflict(ConflictKind::AlreadyExists, "the cluster has this root's private key");
            }
            Some(_) => {}
        }
        if command.sealed_key.is_empty() {
            return conflict(ConflictKind::Invalid, "no key in the command");
        }
        if let Some(row) = self.roots.change(&command.root) {
            row.sealed_key.clone_from(&command.sealed_key);
        }
        self.change_life(command.root, |life| life.key_until_ms = command.until_ms);
        self.change_policy();
        Reply::done()
    }

    pub(super) fn install_root_chain(&mut self, command: &InstallRootChain) -> Reply {
        if !self.roots.contains(&command.root) {
            return conflict(ConflictKind::NotFound, "there is no such root");
        }
        if command.above.iter().any(Vec::is_empty) || command.above.len() > sallyport_ca::MAX_ABOVE {
            return conflict(ConflictKind::Invalid, "no chain that a root can stand below");
        }
        self.change_life(command.root, |life| life.above.clone_from(&command.above));
        self.change_policy();
        Reply::done()
    }

    pub(super) fn begin_rollover(&mut self, command: &BeginRollover) -> Reply {
        let record = command.record.as_ref();
        let record = record.filter(|r| !r.serial.is_empty() && r.profile() == v1::CertificateProfile::Root);
        let whole = [&command.certificate, &command.sealed_key, &command.by_before, &command.of_before];
        let Some(record) = record.filter(|_| whole.iter().all(|part| !part.is_empty())) else {
            return conflict(ConflictKind::Invalid, "a root needs a certificate, a key, a record, and two that vouch");
        };
        if self.rollover().is_some() {
            return conflict(
                ConflictKind::AlreadyExists,
                "a change of roots is under way; see sallyport ca rollover status, and finish or abort it first",
            );
        }
        if self.roots.len() >= MAX_ROOTS {
            return conflict(ConflictKind::Exhausted, "there were too many roots in this cluster");
        }
        if command.number != self.next_root() || command.before != self.root_number() || self.is_used(&record.serial) {
            return conflict(ConflictKind::Changed, "another root was made meanwhile; try again");
        }
        self.record_certificate(Some(record));
        let row = RootRow { certificate: command.certificate.clone(), sealed_key: command.sealed_key.clone() };
        self.roots.insert(command.number, row);
        let now_ms = self.now_ms().max(1);
        self.change_life(command.number, |life| {
            life.before = command.before;
            life.by_before.clone_from(&command.by_before);
            life.of_before.clone_from(&command.of_before);
            life.begun_ms = now_ms;
        });
        self.change_core(|core| {
            // The one in force stays so, and is no longer the only one.
            core.root_in_force = command.before;
            (core.rollover_from, core.rollover_to, core.rollover_activated_ms) = (command.before, command.number, 0);
        });
        self.change_policy();
        Reply::done()
    }

    pub(super) fn turn_rollover(&mut self, command: &TurnRollover) -> Reply {
        let Some(rollover) = self.rollover() else {
            return conflict(
                ConflictKind::Precondition,
                "no change of roots is under way; begin one: sallyport ca rollover begin",
            );
        };
        if (rollover.from, rollover.to) != (command.from, command.to) {
            return conflict(ConflictKind::Changed, "another change of roots is under way; look again and repeat");
        }
        match RolloverStep::try_from(command.step) {
            Ok(RolloverStep::Activate) => self.activate_rollover(rollover, &command.issuers),
            Ok(RolloverStep::Finish) => self.finish_rollover(rollover),
            Ok(RolloverStep::Abort) => self.abort_rollover(rollover),
            Ok(RolloverStep::Unspecified) | Err(_) => conflict(ConflictKind::Invalid, "no step in the command"),
        }
    }

    fn activate_rollover(&mut self, rollover: Rollover, issuers: &[NewIssuer]) -> Reply {
        if rollover.activated_ms != 0 {
            return conflict(ConflictKind::AlreadyExists, "the next root is in force");
        }
        if issuers.is_empty() || issuers.iter().any(|new| new.root != rollover.to) {
            return conflict(ConflictKind::Invalid, "issuing authorities below the next root are needed");
        }
        let added = self.add_issuers_below(&AddIssuers { issuers: issuers.to_vec(), replace: true }, rollover.to);
        if !matches!(added.outcome, Some(super::Outcome::Done(_))) {
            return added;
        }
        let now_ms = self.now_ms().max(1);
        self.retire_issuers_of(rollover.from, now_ms);
        self.change_core(|core| {
            core.root_in_force = rollover.to;
            core.rollover_activated_ms = now_ms;
        });
        self.note_other_root();
        self.change_policy();
        Reply::done()
    }

    fn retire_issuers_of(&mut self, root: u64, now_ms: u64) {
        let of_root = self.issuers_in_force().filter(|(_, row)| row.root == root).map(|(number, _)| number);
        for number in of_root.collect::<Vec<_>>() {
            if let Some(row) = self.issuers.change(&number) {
                row.retired_ms = now_ms;
            }
        }
    }

    fn finish_rollover(&mut self, rollover: Rollover) -> Reply {
        if rollover.activated_ms == 0 {
            return conflict(
                ConflictKind::Precondition,
                "the next root is not in force yet; first: sallyport ca rollover activate",
            );
        }
        self.end_root(rollover.from);
        Reply::done()
    }

    /// Goes back. Before the next root was in force it is as if it had never been; afterwards it becomes the one before, which is
    /// trusted until somebody finishes that.
    fn abort_rollover(&mut self, rollover: Rollover) -> Reply {
        let Rollover { from, to, activated_ms } = rollover;
        if activated_ms == 0 {
            self.end_root(to);
            return Reply::done();
        }
        let back = self.issuers.iter().filter(|(_, row)| row.root == from && row.retired_ms == activated_ms);
        let back: Vec<u64> = back.map(|(number, _)| *number).collect();
        if back.is_empty() {
            return conflict(
                ConflictKind::Precondition,
                "no issuing authority of the root before is left to go back to; begin another change of roots instead",
            );
        }
        let now_ms = self.now_ms().max(1);
        self.retire_issuers_of(to, now_ms);
        for number in back {
            if let Some(row) = self.issuers.change(&number) {
                row.retired_ms = 0;
            }
        }
        self.change_core(|core| {
            core.root_in_force = from;
            (core.rollover_from, core.rollover_to, core.rollover_activated_ms) = (to, from, now_ms);
        });
        self.note_other_root();
        self.change_policy();
        Reply::done()
    }

    /// At the address of the root's list is another list: caches know it by its number and time.
    fn note_other_root(&mut self) {
        let number = self.next_certificate();
        self.note_lists_change(number);
    }

    /// A root is trusted no more, and the change of roots is over.
    fn end_root(&mut self, root: u64) {
        self.erase_key_of(root);
        let now_ms = self.now_ms().max(1);
        self.change_life(root, |life| life.retired_ms = now_ms);
        self.change_core(|core| (core.rollover_from, core.rollover_to, core.rollover_activated_ms) = (0, 0, 0));
        self.change_policy();
    }
}

#[cfg(test)]
mod tests;
