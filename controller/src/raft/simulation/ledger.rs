//! What the group has agreed on, as an outside observer sees it, and whether every node keeps to it.
//!
//! An entry is in the ledger once any node has applied it. From then on each node must apply the same one at its index, hold
//! the same rows after it, and each later leader must have it in its log. Beside the real [`State`] there is a model of its
//! own of what the workload does (a register that is overwritten, and a set that grows), so that a mistake of `State` itself
//! shows, too.

use std::collections::{BTreeMap, BTreeSet};

use openraft::EntryPayload;

use super::disk::row_sum;
use crate::raft::kv::Op;
use crate::raft::{Entry, LogId, Vote, codec};
use crate::state::{Action, Command, Outcome, State};

type LeaderId = openraft::LeaderId<u64>;

/// An entry.
struct Known {
    id: LogId,
    /// Of its bytes.
    sum: u64,
    /// Of the state's rows after it.
    state: u64,
    /// The leader that the first to apply it followed then: no earlier one has committed it.
    under: LeaderId,
}

/// The ledger.
pub(super) struct Ledger {
    entries: Vec<Known>,
    state: State,
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    sum: u64,
    /// Requests that were done, and the register's version since then.
    done: BTreeMap<Vec<u8>, u64>,
    /// What the register held, by version; version 0 is nothing.
    register: Vec<Vec<u8>>,
    users: BTreeSet<String>,
    /// Which process led, by leader id.
    leaders: BTreeMap<(u64, u64), u64>,
    /// Everyone, by the last entry that says.
    members: BTreeSet<u64>,
    /// Installed snapshots.
    pub(super) installed: u64,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self {
            entries: Vec::new(),
            state: State::new(),
            rows: BTreeMap::new(),
            sum: 0,
            done: BTreeMap::new(),
            register: vec![Vec::new()],
            users: BTreeSet::new(),
            leaders: BTreeMap::new(),
            members: BTreeSet::new(),
            installed: 0,
        }
    }

    /// Entries so far.
    pub(super) fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Leaders so far.
    pub(super) fn terms(&self) -> u64 {
        self.leaders.len() as u64
    }

    /// Register's version with which a request was done.
    pub(super) fn version_of(&self, request_id: &[u8]) -> Option<u64> {
        self.done.get(request_id).copied()
    }

    /// What the register held.
    pub(super) fn value(&self, version: u64) -> Option<&[u8]> {
        self.register.get(usize::try_from(version).ok()?).map(Vec::as_slice)
    }

    /// Whether a node takes no part any more.
    pub(super) fn is_out(&self, id: u64) -> bool {
        !self.members.contains(&id)
    }

    /// The whole state.
    pub(super) fn state(&self) -> Vec<u8> {
        self.state.to_bytes()
    }

    /// A node has applied the entries from one on up to `last`; none, if it took them as a snapshot.
    pub(super) fn applied(
        &mut self,
        node: u64,
        from: u64,
        last: LogId,
        sum: u64,
        under: LeaderId,
        entry: &dyn Fn(u64) -> Option<Vec<u8>>,
    ) -> Result<(), String> {
        if from > last.index {
            self.installed += 1;
        }
        for index in from..=last.index {
            let Some(bytes) = entry(index) else {
                return Err(format!("node {node} applies entry {index}, which is not in its log"));
            };
            self.agree(node, index, under, &bytes)?;
        }
        let known = usize::try_from(last.index).ok().and_then(|i| self.entries.get(i));
        let Some(Known { id, state, .. }) = known else {
            return Err(format!("node {node} has a snapshot up to {last}, which nobody has applied"));
        };
        if *id != last {
            return Err(format!("node {node} stands at {last}, the others had {id} there"));
        }
        if *state != sum {
            return Err(format!("node {node} has another state than the log gives at {last}"));
        }
        Ok(())
    }

    fn agree(&mut self, node: u64, index: u64, under: LeaderId, bytes: &[u8]) -> Result<(), String> {
        let decoded = |e: codec::CodecError| format!("entry {index} of node {node}: {e}");
        let entry: Entry = codec::decode(bytes).map_err(decoded)?;
        if entry.log_id.index != index {
            return Err(format!("node {node} has {} in the place of {index}", entry.log_id));
        }
        match self.entries.get(index as usize) {
            Some(known) if known.id == entry.log_id && known.sum == row_sum(&[], bytes) => return Ok(()),
            Some(Known { id, .. }) => {
                let other = entry.log_id;
                return Err(format!("two entries were committed at {index}: {id}, and {other} by node {node}"));
            }
            None if index != self.len() => return Err(format!("node {node} applies {index} before {}", self.len())),
            None => {}
        }
        let log_id = entry.log_id;
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Normal(batch) => batch.commands.iter().try_for_each(|command| self.act(command))?,
            EntryPayload::Membership(members) => self.members = members.nodes().map(|(id, _)| *id).collect(),
        }
        for op in self.state.take_changes() {
            let (key, new) = match op {
                Op::Put(_, key, value) => (key, Some(value)),
                Op::Del(_, key) => (key, None),
                Op::DelRange(..) => return Err("a state that removes ranges".into()),
            };
            if let Some(old) = self.rows.remove(&key) {
                self.sum = self.sum.wrapping_sub(row_sum(&key, &old));
            }
            if let Some(new) = new {
                self.sum = self.sum.wrapping_add(row_sum(&key, &new));
                self.rows.insert(key, new);
            }
        }
        self.entries.push(Known { id: log_id, sum: row_sum(&[], bytes), state: self.sum, under });
        Ok(())
    }

    fn act(&mut self, command: &Command) -> Result<(), String> {
        let reply = self.state.apply(command);
        let refused = matches!(reply.outcome, Some(Outcome::Conflict(_)));
        if !refused && !self.done.contains_key(&command.request_id) {
            match &command.action {
                Some(Action::SetPsk(set)) => self.register.push(set.sealed.clone()),
                Some(Action::AddUser(add)) => drop(self.users.insert(add.key.clone())),
                _ => {}
            }
            self.done.insert(command.request_id.clone(), self.register.len() as u64 - 1);
        }
        let register = self.state.sealed_psk().map_or(&[][..], |(sealed, _)| sealed);
        if register != self.register.last().map_or(&[][..], Vec::as_slice)
            || self.state.policy_version() != self.register.len() as u64 - 1
            || self.state.users.len() != self.users.len()
        {
            return Err(format!("request {:02x?} was not applied exactly once", command.request_id));
        }
        Ok(())
    }

    /// A process acts as a leader. `lacks` finds the first of these entries that is not in its log.
    pub(super) fn leads(
        &mut self,
        node: u64,
        process: u64,
        vote: &Vote,
        lacks: impl FnOnce(&mut dyn Iterator<Item = (u64, &u64)>) -> Option<u64>,
    ) -> Result<bool, String> {
        let leader = *vote.leader_id();
        if !vote.is_committed() || leader.node_id != node {
            return Err(format!("node {node} leads by the vote {vote}"));
        }
        if let Some(other) = self.leaders.get(&(leader.term, node)) {
            return match *other == process {
                true => Ok(false),
                false => Err(format!("node {node} was started anew and leads on in term {}", leader.term)),
            };
        }
        self.leaders.insert((leader.term, node), process);
        let earlier = self.entries.iter().zip(0..).filter(|(known, _)| known.under < leader);
        match lacks(&mut earlier.map(|(known, index)| (index, &known.sum))) {
            Some(index) => Err(format!("node {node} leads in term {} without entry {index}", leader.term)),
            None => Ok(true),
        }
    }
}

/// What clients saw of the register: versions only grow with time, for writes strictly.
///
/// The order of writes is the ledger's, so this is all of linearizability: whatever ended before something else began comes
/// before it.
#[derive(Default)]
pub(super) struct History {
    /// The greatest version that anybody has been answered with.
    floor: u64,
    pub(super) reads: u64,
    pub(super) writes: u64,
}

impl History {
    /// A question is asked; what is returned belongs to its end.
    pub(super) fn begins(&self) -> u64 {
        self.floor
    }

    /// A write was acknowledged.
    pub(super) fn wrote(&mut self, floor: u64, version: u64) -> Result<(), String> {
        self.writes += 1;
        self.floor = self.floor.max(version);
        if version > floor { Ok(()) } else { Err(format!("a write became version {version}, after {floor} was seen")) }
    }

    /// A read was answered.
    pub(super) fn read(&mut self, floor: u64, version: u64) -> Result<(), String> {
        self.reads += 1;
        self.floor = self.floor.max(version);
        if version >= floor { Ok(()) } else { Err(format!("a stale read: version {version}, after {floor} was seen")) }
    }
}
