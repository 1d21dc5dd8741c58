//! Machines: the list of those that may enroll, and what is known of those that did.

use sallyport_ca::crl::Reason;
use sallyport_ca::{AltName, Profile, Subject};
use sallyport_proto::v1;

use super::{
    AGAIN_LEVEL, ENROLLABLE, MAX_MACHINE_NETWORKS, MAX_MACHINES, MachineRow, ProfileRow, PutMachines, RemoveMachine,
    profile_named,
};
use crate::state::{CertificateRow, ConflictKind, Reply, State};

/// Most alternative names of a machine.
const MAX_SANS: usize = 64;
/// In which renewals are counted.
pub(super) const DAY_MS: u64 = 86_400 * 1_000;
/// Why a certificate is revoked that was replaced twice.
const REPLACED: &str = "superseded: the machine has two newer ones";
/// Longest name of a holder, bytes.
const MAX_HOLDER: usize = 256;

/// How a machine is found.
pub(in crate::state) fn machine_key(name: &str) -> String {
    name.to_lowercase()
}

/// Whether certificates of a profile may be made out to these names.
pub(super) fn check_names(profile: &ProfileRow, name: &str, sans: &[String]) -> Result<(), String> {
    if sans.len() > MAX_SANS {
        return Err(format!("at most {MAX_SANS} further names"));
    }
    let further = sans.iter().map(|s| crate::authority::alt_name(s)).collect();
    let subject = Subject::new(name, further).map_err(|e| e.to_string())?;
    let hosts = |n: &AltName| matches!(n, AltName::Dns(_) | AltName::Ip(_));
    if subject.alt_names().is_empty() || !subject.alt_names().iter().all(hosts) {
        return Err(format!(
            "{name:?} is no machine's name: DNS names and IP addresses are, such as laptop7.example.com"
        ));
    }
    let addresses: Vec<String> =
        subject.alt_names().iter().filter(|n| matches!(n, AltName::Ip(_))).map(ToString::to_string).collect();
    if let Some(address) = profile.refused_name(Profile::Machine, &addresses) {
        return Err(format!("the profile allows no IP addresses in its certificates, such as {address}"));
    }
    let names = std::iter::once(name.to_owned()).chain(subject.alt_names().iter().filter_map(|n| match n {
        AltName::Dns(name) => Some(name.to_string()),
        _ => None,
    }));
    for name in names {
        if !profile.admits_name(&name) {
            let allowed = profile.name_suffixes.join(", ");
            return Err(format!("the profile allows only names that end in {allowed}; {name} does not"));
        }
        if name.eq_ignore_ascii_case(sallyport_proto::CONTROLLER_NAME) {
            return Err(format!("{name} is the name of controllers; choose another"));
        }
    }
    Ok(())
}

impl State {
    /// A machine by its name, also one that was removed.
    pub fn machine(&self, name: &str) -> Option<&MachineRow> {
        self.machines.get(&machine_key(name))
    }

    /// Machines whose certificate should have been renewed by a time, the longest overdue first.
    pub fn overdue(&self, by_ms: u64) -> impl Iterator<Item = &MachineRow> {
        let due = self.index.enroll.due.range(..(by_ms, String::new()));
        due.filter_map(|(_, key)| self.machines.get(key))
    }

    /// How many there are; their rows are not looked at.
    pub fn count_overdue(&self, by_ms: u64) -> usize {
        self.index.enroll.due.range(..(by_ms, String::new())).count()
    }

    /// Those whose time came since the one look, and by the other.
    pub fn overdue_between(&self, since_ms: u64, by_ms: u64) -> impl Iterator<Item = &MachineRow> {
        let due = (since_ms.min(by_ms), String::new())..(by_ms, String::new());
        self.index.enroll.due.range(due).filter_map(|(_, key)| self.machines.get(key))
    }

    pub(in crate::state) fn put_machines(&mut self, command: &PutMachines) -> Reply {
        let mut networks = self.index.enroll.machines_by_network.len();
        let machines: Vec<MachineRow> = command.machines.iter().map(|row| self.listed(row, command.keep)).collect();
        if let Some(name) = self.gateways_name_among(machines.iter().flat_map(|m| m.sans.iter().chain([&m.name]))) {
            let message = format!("{name} is the name of a gateway; give the machine another");
            return Reply::conflict(ConflictKind::Invalid, message);
        }
        for row in &machines {
            let refuse = |why: String| Reply::conflict(ConflictKind::Invalid, format!("machine {:?}: {why}", row.name));
            let Some((profile, _)) = profile_named(&row.profile).filter(|(p, _)| ENROLLABLE.contains(p)) else {
                return refuse(format!("there is no profile {:?} for machines", row.profile));
            };
            if let Err(why) = check_names(&self.profile(profile), &row.name, &row.sans) {
                return refuse(why);
            }
            if row.holder.len() > MAX_HOLDER || !matches!(row.key_sha256.len(), 0 | 32) {
                return refuse(format!("a holder of at most {MAX_HOLDER} bytes, and the SHA-256 of a key"));
            }
            let of_other = self.index.enroll.machine_of_key.get(&row.key_sha256);
            if of_other.is_some_and(|other| *other != machine_key(&row.name)) {
                return refuse("another machine has the same key".into());
            }
            networks += usize::from(row.network.is_some());
        }
        let mut names: Vec<String> = machines.iter().map(|m| machine_key(&m.name)).collect();
        let mut keys: Vec<&[u8]> = machines.iter().map(|m| m.key_sha256.as_slice()).filter(|k| !k.is_empty()).collect();
        names.sort_unstable();
        keys.sort_unstable();
        let (all, of_keys) = (names.len(), keys.len());
        names.dedup();
        keys.dedup();
        if names.len() != all || keys.len() != of_keys {
            return Reply::conflict(ConflictKind::Invalid, "a name or a key stands twice in the list");
        }
        if self.machines.len() + machines.len() > MAX_MACHINES || networks > MAX_MACHINE_NETWORKS {
            return Reply::conflict(
                ConflictKind::Exhausted,
                format!("at most {MAX_MACHINES} machines, {MAX_MACHINE_NETWORKS} of them known by their network"),
            );
        }
        let now_ms = self.now_ms();
        for row in &machines {
            let key = machine_key(&row.name);
            let known =
                self.machines.get(&key).cloned().unwrap_or(MachineRow { known_ms: now_ms, ..MachineRow::default() });
            let row = MachineRow {
                name: row.name.clone(),
                profile: row.profile.clone(),
                sans: row.sans.clone(),
                holder: row.holder.clone(),
                key_sha256: row.key_sha256.clone(),
                network: row.network,
                removed: false,
                ..known
            };
            self.put_machine(key, row);
        }
        Reply::done()
    }

    pub(in crate::state) fn remove_machine(&mut self, command: &RemoveMachine) -> Reply {
        let Some(row) = self.machines.get(&command.key).cloned() else {
            return Reply::conflict(ConflictKind::NotFound, format!("there is no machine {:?}", command.key));
        };
        if row.removed {
            return Reply::conflict(ConflictKind::NotFound, format!("there is no machine {:?}", command.key));
        }
        // It stays known as removed: its certificates are live until they end or are revoked, and must not renew.
        let row = MachineRow { key_sha256: Vec::new(), network: None, due_ms: 0, removed: true, ..row };
        self.put_machine(command.key.clone(), row);
        Reply::done()
    }

    /// The list lets a machine in by nothing any more: neither its key nor its place. Says whether it did.
    pub(in crate::state) fn forget_listing(&mut self, key: &str) -> bool {
        if let Some(row) = self.machines.get(&key.to_owned()).cloned()
            && (!row.key_sha256.is_empty() || row.network.is_some())
        {
            self.put_machine(key.to_owned(), MachineRow { key_sha256: Vec::new(), network: None, ..row });
            return true;
        }
        false
    }

    pub(in crate::state) fn put_machine(&mut self, key: String, row: MachineRow) {
        if let Some(before) = self.machines.get(&key).cloned() {
            self.index.drop_machine(&key, &before);
        }
        self.index.note_machine(&key, &row);
        self.machines.insert(key, row);
    }

    /// A machine has a new certificate.
    pub(in crate::state) fn note_enrolled(
        &mut self,
        record: &CertificateRow,
        (method, due_ms, holder): (v1::EnrollMethod, u64, &str),
    ) {
        let key = machine_key(&record.name);
        let now_ms = self.now_ms();
        let mut row = self.machines.get(&key).cloned().unwrap_or_else(|| MachineRow {
            name: record.name.clone(),
            profile: Profile::Machine.name().into(),
            known_ms: now_ms,
            ..MachineRow::default()
        });
        let mut replaced = String::new();
        if row.serial != record.serial {
            let newest = std::mem::replace(&mut row.serial, record.serial.clone());
            // One that is revoked is no way back in, and keeps nobody out who came by a new token.
            // One on hold is not forgotten by it.
            let held = |c: &CertificateRow| c.is_on_hold() && self.level() >= AGAIN_LEVEL;
            let live = self.certificates.get(&newest).is_some_and(|c| c.revoked_ms == 0 || held(c));
            replaced = std::mem::replace(&mut row.previous, if live { newest } else { String::new() });
        }
        if method == v1::EnrollMethod::Renewal {
            let same_day = now_ms.saturating_sub(row.day_ms) < DAY_MS;
            (row.day_ms, row.renewals) = if same_day { (row.day_ms, row.renewals + 1) } else { (now_ms, 1) };
        }
        row.removed = false;
        row.sans.clone_from(&record.sans);
        (row.due_ms, row.enrolled_ms, row.method) = (due_ms, now_ms, method.into());
        if !holder.is_empty() {
            row.holder = holder.to_owned();
        }
        // An address proves little: it opens once, and nothing to a machine that is in.
        row.network = row.network.filter(|_| !row.key_sha256.is_empty());
        self.put_machine(key, row);
        if !replaced.is_empty() {
            self.forget_certificate(&replaced);
        }
        // Two are enough: the newest, and the one before, as the machine may not use the newest yet. Those that an operator made are his.
        if method != v1::EnrollMethod::Operator && self.certificates.contains(&replaced) {
            self.revoke_one(&replaced, Reason::Superseded, REPLACED);
        }
    }
}
