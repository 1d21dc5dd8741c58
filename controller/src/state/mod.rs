//! All that the cluster agrees on: a pure function of the log.
//!
//! [`State::apply_batch`] reads no clock, no random source and no setting of this machine. The same commands give the same
//! rows, byte for byte, on every node.

mod apply;
mod attempts;
mod batch;
mod certificates;
mod command;
mod compaction;
mod constraints;
mod deltas;
mod ended;
mod enroll;
mod gateways;
#[cfg(test)]
mod golden;
mod issuers;
mod ledger;
mod level;
mod lockouts;
mod members;
pub mod net;
mod operators;
mod pools;
mod publication;
mod reply;
mod restore;
mod revocation;
mod root;
mod row;
mod rows;
mod scep;
mod sessions;
mod stream;
mod users;

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use sallyport_proto::v1;

pub use batch::{CommandBatch, SharedBatch};
pub use command::*;
pub(crate) use compaction::COMPACTION_LEVEL;
pub use compaction::{CompactCertificates, KEPT_MS, MAX_COMPACTED, Standing};
pub(crate) use deltas::{DeltaBase, LISTS_SPAN_MS};
pub use deltas::{DeltasRow, ListsMark};
pub use ended::{Ended, EndedCertificate};
pub use enroll::*;
pub use issuers::MAX_ISSUERS;
pub(crate) use issuers::{COMPROMISED_LEVEL, ISSUERS_LEVEL};
pub use ledger::{AcceptHeads, Attributed, KeyUse, MAX_ACCEPTED, NoteKeyUse};
pub(crate) use ledger::{LEDGER_LEVEL, Ledger, StoredTree, first_leaf_key, leaf_key, leaf_of};
pub use lockouts::GATEWAY_FACTOR;
pub use operators::{OperatorRow, ROLES, SetOperatorRoles, role_name};
pub use publication::{FormerName, PublicationRow, publication_name};
pub use reply::{
    Admitted, Conflict, ConflictKind, DENIAL_PHASE, DenialKind, Denied, Done, Intended, Issued, Opened, Outcome,
    Registered, Reply, ReplyBatch,
};
pub(crate) use revocation::REVOCATION_LEVEL;
pub use revocation::{MAX_MACHINES_REVOKED, MAX_REVOKED, ReleaseCertificates, RevokeCertificates, Revoked, Selector};
pub use root::{
    BeginRollover, EraseRootKey, InstallRootChain, MAX_ROOTS, RestoreRootKey, Rollover, RolloverStep, RootLifeRow,
    TurnRollover,
};
pub use row::*;
pub use rows::{Numbered, RowError, Rows};
pub(crate) use scep::STATUS_LEVEL;
pub use scep::{AddScepRa, MAX_SCEP_RAS, ScepRaRow};
pub(crate) use stream::{RowReader, RowWriter};

use rows::Key;

use crate::raft::kv::{Op, Row};

/// Slots are 12 bits; 0 is no gateway.
pub const MAX_SLOT: u32 = 4_095;
/// Answers to commands are remembered this long, in the log's time.
pub const ANSWER_MS: u64 = 10 * 60 * 1_000;
/// And at most so many of them: the oldest go first.
pub const MAX_ANSWERS: usize = 100_000;
/// Most users.
pub const MAX_USERS: usize = 1_000_000;
/// Most pools.
pub const MAX_POOLS: usize = 1_000;
/// Most addresses in one pool: a /8.
pub const MAX_POOL_SIZE: u64 = 1 << 24;
/// Most members, removed ones included, and most tokens.
pub const MAX_MEMBERS: usize = 10_000;
/// And of them removed ones that are kept: a node that comes back on its old data is told so by its row.
pub const MAX_REMOVED_MEMBERS: usize = 1_000;
/// Most pairs of user and address, or user and gateway, whose wrong passwords are counted.
pub const MAX_LOCKOUTS: usize = 65_536;
/// And of them those that one gateway brought.
pub const MAX_LOCKOUTS_OF_GATEWAY: usize = 4_096;
/// Most attempts that can be kept.
pub const MAX_ATTEMPTS: u32 = 1_000_000;

// First byte of the stored keys of each table: never reuse one.
const CORE: u8 = 1;
const USERS: u8 = 2;
const POOLS: u8 = 3;
const SESSIONS: u8 = 4;
const CERTIFICATES: u8 = 5;
const ROOTS: u8 = 6;
const GATEWAYS: u8 = 7;
const ATTEMPTS: u8 = 8;
const ANSWERS: u8 = 9;
const MEMBERS: u8 = 10;
const TOKENS: u8 = 11;
const LOCKOUTS: u8 = 12;
const ISSUERS: u8 = 13;
const PROFILES: u8 = 14;
const ENROLL_TOKENS: u8 = 15;
const MACHINES: u8 = 16;
const REQUESTS: u8 = 17;
const INTENTS: u8 = 18;
const ISSUED: u8 = 19;
const ROOT_LIVES: u8 = 20;
const ENDED: u8 = 21;
const LEAVES: u8 = 22;
const NODES: u8 = 23;
const TREE: u8 = 24;
const SCEP_RAS: u8 = 25;
const GATEWAY_IDENTITIES: u8 = 26;
const KEPT_CERTIFICATES: u8 = 28;
const OPERATORS: u8 = 30;
const ATTEMPT_PACKS: u8 = 31;
const ANSWER_PACKS: u8 = 32;

/// The state.
#[derive(Debug)]
pub struct State {
    core: Rows<u32, CoreRow>,
    /// Users by folded name.
    pub users: Rows<String, UserRow>,
    /// Pools by name.
    pub pools: Rows<String, PoolRow>,
    /// Sessions by id.
    pub sessions: Rows<u64, SessionRow>,
    /// Certificates by serial number, but for those that ended long ago.
    pub certificates: Rows<String, CertificateRow>,
    /// Roots by number, the newest last.
    pub roots: Rows<u64, RootRow>,
    /// Gateways by slot.
    pub gateways: Rows<u32, GatewayRow>,
    /// The audit by number, the newest last.
    pub attempts: Numbered<v1::Attempt>,
    answers: Numbered<AnswerRow>,
    /// Controllers by id, removed ones included.
    pub members: Rows<u64, MemberRow>,
    /// Tokens to join with, by id.
    pub tokens: Rows<Vec<u8>, TokenRow>,
    lockouts: Rows<Vec<u8>, LockoutRow>,
    /// Issuing authorities by number, retired ones included.
    pub issuers: Rows<u64, IssuerRow>,
    /// Profiles that an operator has changed, by name.
    pub profiles: Rows<String, ProfileRow>,
    /// Tokens for first certificates, by id.
    pub enroll_tokens: Rows<Vec<u8>, EnrollTokenRow>,
    /// Machines by folded name.
    pub machines: Rows<String, MachineRow>,
    /// Requests without proof, by number.
    pub requests: Rows<u64, RequestRow>,
    /// What shall be signed, by number.
    pub intents: Rows<u64, IntentRow>,
    issued: Rows<u64, IssuedRow>,
    root_lives: Rows<u64, RootLifeRow>,
    /// What is kept of certificates that ended long ago.
    pub ended: Ended,
    /// The audit log.
    pub(crate) ledger: Ledger,
    /// What SCEP's requests are encrypted to, by number, the newest last.
    pub scep_ras: Rows<u64, ScepRaRow>,
    /// What is known of gateways' names and certificates, by name.
    pub gateway_identities: Rows<String, GatewayIdentityRow>,
    /// Operators whose roles are set, by name.
    pub operators: Rows<String, OperatorRow>,
    /// The machines' certificates themselves, for whoever asks again.
    pub(crate) kept_certificates: Kept,
    index: Index,
    /// Not part of the state: counts what gateways must hear of.
    notices: u64,
}

/// What follows from the rows and is kept to find things: rebuilt when they are loaded.
#[derive(Debug, Default)]
struct Index {
    /// Session by leased address: the proof that no address is leased twice.
    leases: BTreeMap<u32, u64>,
    sessions_of_user: BTreeMap<String, BTreeSet<u64>>,
    sessions_of_slot: BTreeMap<u32, BTreeSet<u64>>,
    sessions_of_machine: BTreeMap<String, BTreeSet<u64>>,
    /// Sessions that shall end, by the slot that must end them.
    doomed: BTreeMap<u32, BTreeSet<u64>>,
    /// Addresses fixed to users.
    fixed: BTreeMap<u32, String>,
    /// Addresses that each pool may lease.
    ranges: BTreeMap<String, net::Ranges>,
    /// Addresses of each pool that are leased.
    used: BTreeMap<String, u64>,
    slot_of_gateway: BTreeMap<String, u32>,
    /// Serial numbers of the controllers' certificates, by member.
    certificates_of_member: BTreeMap<u64, BTreeSet<String>>,
    /// Numbers of attempts by gateway and id, to know a repeated report.
    attempt_ids: BTreeMap<(String, Vec<u8>), u64>,
    /// Numbers of attempts by gateway.
    attempts_of_gateway: BTreeMap<String, BTreeSet<u64>>,
    /// Those of them that say that all went well.
    quiet_attempts: BTreeSet<u64>,
    /// Those of them with evidence about the audit log,
    evidence: BTreeSet<u64>,
    /// and the same by gateway.
    evidence_of_gateway: BTreeSet<(String, u64)>,
    /// Answers by request id.
    answer_of: BTreeMap<Vec<u8>, u64>,
    /// Wrong passwords by the time of the last.
    lockouts: BTreeSet<(u64, Vec<u8>)>,
    /// The same by the gateway that brought the last.
    lockouts_of_gateway: BTreeMap<String, BTreeSet<(u64, Vec<u8>)>>,
    /// The same, those first that are missed least.
    lockouts_by_weight: BTreeMap<String, BTreeSet<lockouts::Weight>>,
    /// Certificates by the order of issuing.
    certificates: BTreeMap<u64, String>,
    /// Certificates by the order of revocation.
    revocations: BTreeMap<u64, String>,
    /// Those that were released from hold, in the same order.
    releases: BTreeMap<u64, String>,
    /// Those of each issuer that are revoked, by when they end and their place in the order of revocations.
    revoked_of_issuer: BTreeSet<(u64, u64, u64)>,
    /// Machines' certificates by name.
    certificates_of_name: BTreeSet<revocation::OfName>,
    enroll: enroll::EnrollIndex,
    /// Serial numbers of what gateways show to clients, by when they end.
    certificates_of_gateways: BTreeSet<(u64, String)>,
    /// Serial numbers of operators' certificates, by when they end.
    certificates_of_operators: BTreeSet<(u64, String)>,
    /// The same by the names in it, each in its one form.
    names_of_gateways: BTreeSet<(String, u64, String)>,
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// The state before the first command.
    pub fn new() -> Self {
        Self {
            core: Rows::new(CORE),
            users: Rows::new(USERS),
            pools: Rows::new(POOLS),
            sessions: Rows::new(SESSIONS),
            certificates: Rows::new(CERTIFICATES),
            roots: Rows::new(ROOTS),
            gateways: Rows::new(GATEWAYS),
            attempts: Numbered::new(ATTEMPTS, ATTEMPT_PACKS),
            answers: Numbered::new(ANSWERS, ANSWER_PACKS),
            members: Rows::new(MEMBERS),
            tokens: Rows::new(TOKENS),
            lockouts: Rows::new(LOCKOUTS),
            issuers: Rows::new(ISSUERS),
            profiles: Rows::new(PROFILES),
            enroll_tokens: Rows::new(ENROLL_TOKENS),
            machines: Rows::new(MACHINES),
            requests: Rows::new(REQUESTS),
            intents: Rows::new(INTENTS),
            issued: Rows::new(ISSUED),
            root_lives: Rows::new(ROOT_LIVES),
            ended: Ended::default(),
            ledger: Ledger::new(true),
            scep_ras: Rows::new(SCEP_RAS),
            gateway_identities: Rows::new(GATEWAY_IDENTITIES),
            operators: Rows::new(OPERATORS),
            kept_certificates: Kept::new(true),
            index: Index::default(),
            notices: 0,
        }
    }

    /// The state that these stored rows stand for.
    pub fn from_rows(rows: impl IntoIterator<Item = Row>) -> Result<Self, RowError> {
        let mut loading = Self::loading();
        for (key, value) in rows {
            loading.row(&key, &value)?;
        }
        Ok(loading.end())
    }

    /// A state that is loaded row by row.
    pub(crate) fn loading() -> Loading {
        Loading(Self::new())
    }

    /// The same beside a store, which keeps the leaves of the audit log and the machines' certificates.
    pub(crate) fn loading_beside_store() -> Loading {
        Loading(Self { ledger: Ledger::new(false), kept_certificates: Kept::new(false), ..Self::new() })
    }

    /// Whether the rows of a table are in the store and nowhere else ([`Self::loading_beside_store`]).
    pub(crate) fn stays_in_store(table: u8) -> bool {
        matches!(table, LEAVES | NODES | KEPT_CERTIFICATES)
    }

    /// Whether a table's rows may be loaded in several parts, each into a state of its own ([`Loading::absorb`]): those that are [`Rows`].
    pub(crate) fn may_be_parted(table: u8) -> bool {
        !Self::stays_in_store(table) && !matches!(table, ENDED | TREE)
    }

    /// On several processors: of what there are millions of, each has some.
    fn build_index(&self) -> Index {
        std::thread::scope(|scope| {
            let names = scope.spawn(|| self.certificates_of_name());
            let enroll = scope.spawn(|| self.enroll_index());
            let mut index = self.build_rest();
            index.certificates_of_name = joined(names);
            let of_certificates = std::mem::replace(&mut index.enroll, joined(enroll));
            index.enroll.links_of_gateway = of_certificates.links_of_gateway;
            index
        })
    }

    fn build_rest(&self) -> Index {
        let mut index = Index::default();
        for (name, pool) in self.pools.iter() {
            index.ranges.insert(name.clone(), pool.ranges());
            index.used.insert(name.clone(), 0);
        }
        for (key, user) in self.users.iter().filter(|(_, u)| u.address != 0) {
            index.fixed.insert(user.address, key.clone());
        }
        for (id, session) in self.sessions.iter() {
            index.add_session(*id, session);
        }
        for (slot, gateway) in self.gateways.iter() {
            index.slot_of_gateway.insert(gateway.name.clone(), *slot);
        }
        for (number, attempt) in self.attempts.iter() {
            if attempts::is_quiet(attempt) {
                index.quiet_attempts.insert(*number);
            }
            index.attempts_of_gateway.entry(attempt.gateway.clone()).or_default().insert(*number);
            index.note_evidence(*number, attempt);
            index.attempt_ids.insert((attempt.gateway.clone(), attempt.id.clone()), *number);
        }
        index.answer_of = self.answers.iter().map(|(number, row)| (row.request_id.clone(), *number)).collect();
        for (key, row) in self.lockouts.iter() {
            index.note_lockout(key, row);
        }
        index.certificates = self.certificates.iter().map(|(serial, row)| (row.number, serial.clone())).collect();
        for (_, certificate) in self.certificates.iter() {
            index.note_member_certificate(certificate);
            index.note_gateway_certificate(certificate);
            index.note_revocation(certificate);
            index.note_link_certificate(certificate);
            index.note_operator_certificate(certificate);
        }
        index
    }

    /// Each row as it is stored, in the order of the stored keys.
    pub(crate) fn each_row<E>(&self, mut each: impl FnMut(Vec<u8>, Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        self.core.each_row(&mut each)?;
        self.users.each_row(&mut each)?;
        self.pools.each_row(&mut each)?;
        self.sessions.each_row(&mut each)?;
        self.certificates.each_row(&mut each)?;
        self.roots.each_row(&mut each)?;
        self.gateways.each_row(&mut each)?;
        self.attempts.each_row(&mut each)?;
        self.answers.each_row(&mut each)?;
        self.members.each_row(&mut each)?;
        self.tokens.each_row(&mut each)?;
        self.lockouts.each_row(&mut each)?;
        self.issuers.each_row(&mut each)?;
        self.profiles.each_row(&mut each)?;
        self.enroll_tokens.each_row(&mut each)?;
        self.machines.each_row(&mut each)?;
        self.requests.each_row(&mut each)?;
        self.intents.each_row(&mut each)?;
        self.issued.each_row(&mut each)?;
        self.root_lives.each_row(&mut each)?;
        self.ended.each_row(&mut each)?;
        self.ledger.each_row(&mut each)?;
        self.scep_ras.each_row(&mut each)?;
        self.gateway_identities.each_row(&mut each)?;
        self.kept_certificates.each_row(&mut each)?;
        self.operators.each_row(&mut each)?;
        self.attempts.each_pack(&mut each)?;
        self.answers.each_pack(&mut each)
    }

    /// Every row.
    #[cfg(test)]
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        let all: Result<(), RowError> = self.each_row(|key, value| {
            rows.push((key, value));
            Ok(())
        });
        all.expect("none fails");
        rows
    }

    /// Rows that changed since the last call, as storage operations.
    pub(crate) fn take_changes(&mut self) -> Vec<Op> {
        let mut ops = Vec::new();
        self.core.take_changes(&mut ops);
        self.users.take_changes(&mut ops);
        self.pools.take_changes(&mut ops);
        self.sessions.take_changes(&mut ops);
        self.certificates.take_changes(&mut ops);
        self.roots.take_changes(&mut ops);
        self.gateways.take_changes(&mut ops);
        self.attempts.take_changes(&mut ops);
        self.answers.take_changes(&mut ops);
        self.members.take_changes(&mut ops);
        self.tokens.take_changes(&mut ops);
        self.lockouts.take_changes(&mut ops);
        self.issuers.take_changes(&mut ops);
        self.profiles.take_changes(&mut ops);
        self.enroll_tokens.take_changes(&mut ops);
        self.machines.take_changes(&mut ops);
        self.requests.take_changes(&mut ops);
        self.intents.take_changes(&mut ops);
        self.issued.take_changes(&mut ops);
        self.root_lives.take_changes(&mut ops);
        self.ended.take_changes(&mut ops);
        self.ledger.take_changes(&mut ops);
        self.scep_ras.take_changes(&mut ops);
        self.gateway_identities.take_changes(&mut ops);
        self.operators.take_changes(&mut ops);
        self.kept_certificates.take_changes(&mut ops);
        ops
    }

    /// Where the row of what there is once is stored.
    pub(crate) fn core_key() -> Vec<u8> {
        [[CORE].as_slice(), &0_u32.to_bytes()].concat()
    }

    /// The level in force by that row and the version that brought it, also where the rest is beyond this software.
    pub(crate) fn level_in(core: &[u8]) -> (u32, String) {
        let core = core.get(1..).and_then(|row| CoreRow::decode(row).ok());
        core.map_or_else(Default::default, |core| (core.level, core.level_since))
    }

    /// Counts what gateways must hear of: policy, sessions to end, revocations. Not part of the state.
    pub(crate) fn notices(&self) -> u64 {
        self.notices
    }

    /// Goes on counting where `previous` was, as its replacement.
    pub(crate) fn continue_notices(&mut self, previous: &Self) {
        self.notices = previous.notices + 1;
    }

    fn core_row(&self) -> Option<&CoreRow> {
        self.core.get(&0)
    }

    fn change_core(&mut self, change: impl FnOnce(&mut CoreRow)) {
        if !self.core.contains(&0) {
            self.core.insert(0, CoreRow::default());
        }
        if let Some(row) = self.core.change(&0) {
            change(row);
        }
    }

    /// What gateways are told has changed.
    fn change_policy(&mut self) {
        self.notices += 1;
        self.change_core(|core| core.policy_version += 1);
    }

    /// Whether there has been a first command.
    pub fn is_bootstrapped(&self) -> bool {
        self.core_row().is_some_and(|c| !c.cluster_id.is_empty())
    }

    /// Names the cluster; empty before the first command.
    pub fn cluster_id(&self) -> &[u8] {
        self.core_row().map_or(&[], |c| &c.cluster_id)
    }

    /// When the cluster was restored from a backup; 0 if it never was.
    pub fn begun_ms(&self) -> u64 {
        self.core_row().map_or(0, |c| c.begun_ms)
    }

    /// The log's time, milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.core_row().map_or(0, |c| c.now_ms)
    }

    /// Version of what gateways are told.
    pub fn policy_version(&self) -> u64 {
        self.core_row().map_or(0, |c| c.policy_version)
    }

    /// The settings.
    pub fn settings(&self) -> SettingsRow {
        self.core_row().and_then(|c| c.settings.clone()).unwrap_or_else(SettingsRow::initial)
    }

    /// The pre-shared key, sealed, and when it was set.
    pub fn sealed_psk(&self) -> Option<(&[u8], u64)> {
        let core = self.core_row().filter(|c| !c.sealed_psk.is_empty())?;
        Some((&core.sealed_psk, core.psk_set_ms))
    }

    /// The answer to a command that was applied already.
    pub fn answered(&self, request_id: &[u8]) -> Option<&Reply> {
        let number = self.index.answer_of.get(request_id)?;
        self.answers.get(number)?.reply.as_ref()
    }
}

/// What a thread has made; a panic goes on.
fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A state, or a part of one, while its rows are loaded.
pub(crate) struct Loading(State);

/// Has a macro do something with each table whose rows are all in memory.
macro_rules! for_tables {
    ($do:ident) => {
        $do!(core users pools sessions certificates roots gateways attempts answers members tokens lockouts issuers profiles
            enroll_tokens machines requests intents issued root_lives scep_ras gateway_identities operators)
    };
}

impl Loading {
    /// The next row, as it is stored.
    pub(crate) fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), RowError> {
        let state = &mut self.0;
        let Some((&tag, key)) = key.split_first() else { return Err(RowError::Damaged(0)) };
        match tag {
            CORE => state.core.load(key, value),
            USERS => state.users.load(key, value),
            POOLS => state.pools.load(key, value),
            SESSIONS => state.sessions.load(key, value),
            CERTIFICATES => state.certificates.load(key, value),
            ROOTS => state.roots.load(key, value),
            GATEWAYS => state.gateways.load(key, value),
            ATTEMPTS => state.attempts.load(key, value),
            ANSWERS => state.answers.load(key, value),
            MEMBERS => state.members.load(key, value),
            TOKENS => state.tokens.load(key, value),
            LOCKOUTS => state.lockouts.load(key, value),
            ISSUERS => state.issuers.load(key, value),
            PROFILES => state.profiles.load(key, value),
            ENROLL_TOKENS => state.enroll_tokens.load(key, value),
            MACHINES => state.machines.load(key, value),
            REQUESTS => state.requests.load(key, value),
            INTENTS => state.intents.load(key, value),
            ISSUED => state.issued.load(key, value),
            ROOT_LIVES => state.root_lives.load(key, value),
            ENDED => state.ended.load(key, value),
            LEAVES | NODES | TREE => state.ledger.load(tag, key, value),
            SCEP_RAS => state.scep_ras.load(key, value),
            GATEWAY_IDENTITIES => state.gateway_identities.load(key, value),
            OPERATORS => state.operators.load(key, value),
            ATTEMPT_PACKS => state.attempts.load_pack(key, value),
            ANSWER_PACKS => state.answers.load_pack(key, value),
            KEPT_CERTIFICATES => state.kept_certificates.load(key, value),
            other => Err(RowError::Table(other)),
        }
    }

    /// Takes in a part whose rows come behind those that are here. No table of another kind than [`Rows`] may be in two parts.
    pub(crate) fn absorb(&mut self, part: Self) {
        let whole = &mut self.0;
        macro_rules! absorb {
            ($($table:ident)*) => {
                // Whoever adds a field is asked by the compiler what becomes of it here.
                let State { $($table,)* ended, ledger, kept_certificates: _, index: _, notices: _ } = part.0;
                $(whole.$table.absorb($table);)*
                if !ended.is_empty() {
                    whole.ended = ended;
                }
                if ledger.has_rows() {
                    whole.ledger = ledger;
                }
            };
        }
        for_tables!(absorb);
    }

    /// The whole state.
    pub(crate) fn end(mut self) -> State {
        let state = &mut self.0;
        macro_rules! loaded {
            ($($table:ident)*) => { $(state.$table.loaded();)* };
        }
        let mut certificates = std::mem::replace(&mut state.certificates, Rows::new(CERTIFICATES));
        std::thread::scope(|scope| {
            let most = scope.spawn(|| certificates.loaded());
            for_tables!(loaded);
            joined(most);
        });
        state.certificates = certificates;
        state.follow_packs();
        state.index = state.build_index();
        self.0
    }
}

#[cfg(test)]
mod tests;
