//! What follows from the rows of enrollment and is kept to find them: what a command costs does not grow with how many there are.

use std::collections::{BTreeMap, BTreeSet};

use sallyport_ca::Profile;
use sallyport_proto::v1;

use super::guards::{canonical_name, network_of};
use super::{EnrollTokenRow, IntentRow, MachineRow, RequestRow, machine_key};
use crate::state::revocation::{MACHINES_LEVEL, hash};
use crate::state::{CertificateRow, Index, State};

/// Rows of enrollment by what they are looked for. Names and holders are there as hashes, however they are written; empty ones are not.
#[derive(Debug, Default)]
pub(in crate::state) struct EnrollIndex {
    /// Intents by transaction.
    pub(super) intent_of: BTreeMap<Vec<u8>, u64>,
    /// Intents by serial number.
    pub(super) intent_of_serial: BTreeMap<String, u64>,
    /// Intents by what there is one at a time of.
    pub(super) intent_of_lane: BTreeMap<String, u64>,
    /// Intents by the machine's name.
    intents_of_machine: BTreeSet<(u64, u64)>,
    /// Certificates issued lately, by transaction.
    pub(super) issued_of: BTreeMap<Vec<u8>, u64>,
    /// Machines by the key that may enroll without a token.
    pub(super) machine_of_key: BTreeMap<Vec<u8>, String>,
    /// Machines that may enroll by the network that they come from.
    pub(super) machines_by_network: BTreeSet<String>,
    /// Machines by the time at which they are expected.
    pub(super) due: BTreeSet<(u64, String)>,
    /// Machines by their holder.
    machines_of_holder: BTreeSet<(u64, String)>,
    /// Requests by key.
    pub(super) request_of_key: BTreeMap<Vec<u8>, u64>,
    /// Requests by the name that was given to them,
    requests_of_machine: BTreeSet<(u64, u64)>,
    /// and by the holder.
    requests_of_holder: BTreeSet<(u64, u64)>,
    /// Those that wait, by the network that they came from.
    waiting_of_network: BTreeSet<(String, u64)>,
    /// Those that make room for others.
    pub(super) closed_requests: BTreeSet<u64>,
    /// Tokens by when they end,
    pub(super) tokens_by_end: BTreeSet<(u64, Vec<u8>)>,
    /// by name,
    tokens_of_machine: BTreeSet<(u64, Vec<u8>)>,
    /// and by holder.
    tokens_of_holder: BTreeSet<(u64, Vec<u8>)>,
    /// Serial numbers of the certificates with which each gateway calls.
    pub(in crate::state) links_of_gateway: BTreeMap<String, BTreeSet<String>>,
    /// Public names that were set for single gateways, and for which.
    names_set: BTreeSet<(String, String)>,
}

/// Puts an entry of a text in, or takes it out; the empty text has none.
fn keep<T: Ord>(set: &mut BTreeSet<(u64, T)>, there: bool, text: &str, entry: T) {
    if text.is_empty() {
        return;
    }
    match there {
        true => set.insert((hash(text), entry)),
        false => set.remove(&(hash(text), entry)),
    };
}

/// The entries of a text: those after the least one.
fn entries<'a, T: Ord>(set: &'a BTreeSet<(u64, T)>, text: &str, least: T) -> impl Iterator<Item = &'a T> {
    let of = hash(text);
    set.range((of, least)..).take_while(move |(hash, _)| *hash == of).map(|(_, entry)| entry)
}

/// A machine among those that are expected.
fn due(key: &str, row: &MachineRow) -> Option<(u64, String)> {
    (row.due_ms != 0).then(|| (row.due_ms, key.to_owned()))
}

/// A machine among those of its holder.
fn of_holder(key: &str, row: &MachineRow) -> Option<(u64, String)> {
    (!row.holder.is_empty()).then(|| (hash(&row.holder), key.to_owned()))
}

/// A machine among those that may enroll by their key.
fn of_key(key: &str, row: &MachineRow) -> Option<(Vec<u8>, String)> {
    (!row.key_sha256.is_empty()).then(|| (row.key_sha256.clone(), key.to_owned()))
}

/// A machine among those that may enroll by their network. A key says more than a place: with one, the place alone opens nothing.
fn by_network(key: &str, row: &MachineRow) -> Option<String> {
    (row.network.is_some() && row.key_sha256.is_empty()).then(|| key.to_owned())
}

impl EnrollIndex {
    /// Keeps the public names of a gateway, or forgets them.
    pub(super) fn keep_names(&mut self, there: bool, gateway: &str, names: &[String]) {
        for name in names {
            let entry = (canonical_name(name), gateway.to_owned());
            match there {
                true => self.names_set.insert(entry),
                false => self.names_set.remove(&entry),
            };
        }
    }

    /// Whether this name, in its one form, was set for a gateway.
    pub(super) fn is_name_set(&self, name: &str) -> bool {
        self.names_set.range((name.to_owned(), String::new())..).next().is_some_and(|(of, _)| of == name)
    }

    /// Requests that wait and came from a network.
    pub(super) fn waiting_of(&self, network: &str) -> impl Iterator<Item = &u64> {
        let of = (network.to_owned(), 0)..=(network.to_owned(), u64::MAX);
        self.waiting_of_network.range(of).map(|(_, number)| number)
    }
}

impl State {
    /// How many requests wait for an operator.
    pub fn requests_waiting(&self) -> usize {
        self.index.enroll.waiting_of_network.len()
    }
}

impl Index {
    pub(super) fn note_machine(&mut self, key: &str, row: &MachineRow) {
        self.enroll.machine_of_key.extend(of_key(key, row));
        self.enroll.machines_by_network.extend(by_network(key, row));
        self.enroll.due.extend(due(key, row));
        self.enroll.machines_of_holder.extend(of_holder(key, row));
    }

    pub(super) fn drop_machine(&mut self, key: &str, row: &MachineRow) {
        self.enroll.machine_of_key.remove(&row.key_sha256);
        self.enroll.machines_by_network.remove(key);
        self.enroll.due.remove(&(row.due_ms, key.to_owned()));
        keep(&mut self.enroll.machines_of_holder, false, &row.holder, key.to_owned());
    }

    pub(super) fn note_token(&mut self, id: &[u8], row: &EnrollTokenRow) {
        self.enroll.tokens_by_end.insert((row.expires_ms, id.to_vec()));
        self.keep_token(true, id, row);
    }

    pub(super) fn drop_token(&mut self, id: &[u8], row: &EnrollTokenRow) {
        self.enroll.tokens_by_end.remove(&(row.expires_ms, id.to_vec()));
        self.keep_token(false, id, row);
    }

    fn keep_token(&mut self, there: bool, id: &[u8], row: &EnrollTokenRow) {
        keep(&mut self.enroll.tokens_of_machine, there, &row.name, id.to_vec());
        keep(&mut self.enroll.tokens_of_holder, there, &row.holder, id.to_vec());
    }

    pub(super) fn note_request(&mut self, number: u64, row: &RequestRow) {
        self.enroll.request_of_key.insert(row.key_sha256.clone(), number);
        match row.state() {
            v1::RequestState::Waiting => drop(self.enroll.waiting_of_network.insert((network_of(&row.source), number))),
            v1::RequestState::Approved => {}
            _ => drop(self.enroll.closed_requests.insert(number)),
        }
        self.keep_request(true, number, row);
    }

    pub(super) fn drop_request(&mut self, number: u64, row: &RequestRow) {
        self.enroll.request_of_key.remove(&row.key_sha256);
        self.enroll.waiting_of_network.remove(&(network_of(&row.source), number));
        self.enroll.closed_requests.remove(&number);
        self.keep_request(false, number, row);
    }

    fn keep_request(&mut self, there: bool, number: u64, row: &RequestRow) {
        keep(&mut self.enroll.requests_of_machine, there, &row.name, number);
        keep(&mut self.enroll.requests_of_holder, there, &row.holder, number);
    }

    pub(super) fn note_intent(&mut self, number: u64, row: &IntentRow) {
        self.enroll.intent_of.insert(row.transaction.clone(), number);
        self.enroll.intent_of_lane.insert(row.lane(), number);
        if let Some(record) = &row.record {
            self.enroll.intent_of_serial.insert(record.serial.clone(), number);
            keep(&mut self.enroll.intents_of_machine, true, &record.name, number);
        }
    }

    pub(super) fn forget_intent(&mut self, number: u64, row: &IntentRow) {
        self.enroll.intent_of.remove(&row.transaction);
        self.enroll.intent_of_lane.remove(&row.lane());
        if let Some(record) = &row.record {
            self.enroll.intent_of_serial.remove(&record.serial);
            keep(&mut self.enroll.intents_of_machine, false, &record.name, number);
        }
    }
}

impl State {
    /// The index of enrollment, from the rows; but for what follows from certificates. A set that is made at once is made faster.
    pub(in crate::state) fn enroll_index(&self) -> EnrollIndex {
        let mut index = Index {
            enroll: EnrollIndex {
                due: self.machines.iter().filter_map(|(key, row)| due(key, row)).collect(),
                machines_of_holder: self.machines.iter().filter_map(|(key, row)| of_holder(key, row)).collect(),
                machine_of_key: self.machines.iter().filter_map(|(key, row)| of_key(key, row)).collect(),
                machines_by_network: self.machines.iter().filter_map(|(key, row)| by_network(key, row)).collect(),
                ..EnrollIndex::default()
            },
            ..Index::default()
        };
        for (id, row) in self.enroll_tokens.iter() {
            index.note_token(id, row);
        }
        for (number, row) in self.requests.iter() {
            index.note_request(*number, row);
        }
        for (number, row) in self.intents.iter() {
            index.note_intent(*number, row);
        }
        for (gateway, row) in self.gateway_identities.iter() {
            index.enroll.keep_names(true, gateway, &row.names);
        }
        for (number, row) in self.issued.iter() {
            index.enroll.issued_of.insert(row.transaction.clone(), *number);
        }
        index.enroll
    }

    /// Tokens for a machine, by its folded name.
    pub(in crate::state) fn tokens_of(&self, key: &str) -> Vec<Vec<u8>> {
        self.tokens_named(key).cloned().collect()
    }

    fn tokens_named(&self, key: &str) -> impl Iterator<Item = &Vec<u8>> {
        let ids = entries(&self.index.enroll.tokens_of_machine, key, Vec::new());
        ids.filter(move |id| {
            self.enroll_tokens.get(id).is_some_and(|row| machine_key(&row.name) == key && self.is_for_machine(row))
        })
    }

    /// Whether a token is for a machine: whoever revokes machines has no say in gateways.
    fn is_for_machine(&self, row: &EnrollTokenRow) -> bool {
        self.level() < MACHINES_LEVEL || row.profile != Profile::GatewayLink.name()
    }

    /// Requests that were given the name of a machine, by its folded name.
    pub(in crate::state) fn requests_of(&self, key: &str) -> Vec<u64> {
        self.requests_named(key).copied().collect()
    }

    fn requests_named(&self, key: &str) -> impl Iterator<Item = &u64> {
        let numbers = entries(&self.index.enroll.requests_of_machine, key, 0);
        numbers.filter(move |number| self.requests.get(number).is_some_and(|row| machine_key(&row.name) == key))
    }

    /// Serial numbers of a machine's certificates that are about to be signed, by its folded name.
    pub(in crate::state) fn intents_of(&self, key: &str) -> Vec<String> {
        let numbers = entries(&self.index.enroll.intents_of_machine, key, 0);
        let records = numbers.filter_map(|number| self.intents.get(number)?.record.as_ref());
        let all = self.level() < MACHINES_LEVEL;
        let of_machine = |r: &&CertificateRow| {
            machine_key(&r.name) == key && (all || r.profile() == v1::CertificateProfile::Machine)
        };
        records.filter(of_machine).map(|record| record.serial.clone()).collect()
    }

    /// Whether there is a token for a machine or a request that was given its name, by its folded name.
    pub(in crate::state) fn was_made_for(&self, key: &str) -> bool {
        self.tokens_named(key).next().is_some() || self.requests_named(key).next().is_some()
    }

    /// Folded names of the machines of a holder, removed ones included, and of those that his tokens and requests are for. One may
    /// come more than once.
    pub(in crate::state) fn held_by(&self, holder: &str) -> impl Iterator<Item = String> {
        let wanted = holder.to_lowercase();
        let (of_machine, of_token) = (wanted.clone(), wanted.clone());
        let index = &self.index.enroll;
        let machines = entries(&index.machines_of_holder, holder, String::new())
            .filter(move |key| self.machines.get(key).is_some_and(|row| row.holder.to_lowercase() == of_machine))
            .cloned();
        let tokens = entries(&index.tokens_of_holder, holder, Vec::new())
            .filter_map(|id| self.enroll_tokens.get(id))
            .filter(move |row| row.holder.to_lowercase() == of_token && self.is_for_machine(row))
            .map(|row| machine_key(&row.name));
        let requests = entries(&index.requests_of_holder, holder, 0)
            .filter_map(|number| self.requests.get(number))
            .filter(move |row| row.holder.to_lowercase() == wanted && !row.name.is_empty())
            .map(|row| machine_key(&row.name));
        machines.chain(tokens).chain(requests)
    }
}
