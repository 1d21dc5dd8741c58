//! What operators may change: each role is apart from the others, so that whoever hands out certificates cannot change what stands in
//! them, and neither can take the keys away (AD CS's ESC 4, 5 and 7).

use std::collections::BTreeMap;

use sallyport_proto::v1::{self, OperatorRole};

use super::{CertificateRow, ConflictKind, Index, Reply, State};

/// The level of everything here.
pub(crate) const ROLES_LEVEL: u32 = 7;
/// Most operators whose roles are set.
const MAX_OPERATORS: usize = 1_000;
/// Longest name, bytes.
const MAX_NAME: usize = 256;

/// Every role.
pub const ROLES: [OperatorRole; 6] = [
    OperatorRole::Users,
    OperatorRole::Enrollment,
    OperatorRole::Gateways,
    OperatorRole::Policy,
    OperatorRole::Keys,
    OperatorRole::Operators,
];

/// What an operator may change, where somebody has said it. Numbers are part of the log: never reuse one. Since level 7.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct OperatorRow {
    /// The roles, in the order of their numbers.
    #[prost(enumeration = "OperatorRole", repeated, tag = "1")]
    pub roles: Vec<i32>,
}

/// Sets what an operator may change.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SetOperatorRoles {
    /// The name in the certificates.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The roles; none for somebody who only looks.
    #[prost(enumeration = "OperatorRole", repeated, tag = "2")]
    pub roles: Vec<i32>,
    /// All of them.
    #[prost(bool, tag = "3")]
    pub all: bool,
}

/// As operators write a role.
pub fn role_name(role: OperatorRole) -> &'static str {
    match role {
        OperatorRole::Unspecified => "none",
        OperatorRole::Users => "users",
        OperatorRole::Enrollment => "enrollment",
        OperatorRole::Gateways => "gateways",
        OperatorRole::Policy => "policy",
        OperatorRole::Keys => "keys",
        OperatorRole::Operators => "operators",
    }
}

impl Index {
    pub(super) fn note_operator_certificate(&mut self, row: &CertificateRow) {
        if row.profile() == v1::CertificateProfile::Operator {
            self.certificates_of_operators.insert((row.not_after_ms, row.serial.clone()));
        }
    }

    pub(super) fn drop_operator_certificate(&mut self, row: &CertificateRow) {
        self.certificates_of_operators.remove(&(row.not_after_ms, row.serial.clone()));
    }
}

impl State {
    /// The roles of the operator of this name.
    pub fn operator_roles(&self, name: &str) -> Vec<OperatorRole> {
        match self.operators.get(&name.to_owned()) {
            Some(row) => row.roles().collect(),
            None => ROLES.to_vec(),
        }
    }

    /// Whether the operator of this name has a role.
    pub fn operator_may(&self, name: &str, role: OperatorRole) -> bool {
        self.operators.get(&name.to_owned()).is_none_or(|row| row.roles().any(|has| has == role))
    }

    fn live_operators(&self) -> impl Iterator<Item = &CertificateRow> {
        let live = (self.now_ms().saturating_add(1), String::new())..;
        let serials = self.index.certificates_of_operators.range(live).map(|(_, serial)| serial);
        serials.filter_map(|serial| self.certificates.get(serial)).filter(|row| row.revoked_ms == 0)
    }

    /// The operators by name: those who have a live certificate, and those whose roles are set.
    pub fn operators(&self) -> Vec<v1::OperatorInfo> {
        let mut all: BTreeMap<&str, v1::OperatorInfo> = BTreeMap::new();
        let info = |name: &str| v1::OperatorInfo {
            name: name.to_owned(),
            roles: self.operator_roles(name).into_iter().map(Into::into).collect(),
            restricted: self.operators.contains(&name.to_owned()),
            ..v1::OperatorInfo::default()
        };
        for (name, _) in self.operators.iter() {
            all.insert(name, info(name));
        }
        for row in self.live_operators() {
            let entry = all.entry(&row.name).or_insert_with(|| info(&row.name));
            entry.certificates += 1;
            entry.not_after_unix_ms = entry.not_after_unix_ms.max(row.not_after_ms);
        }
        all.into_values().collect()
    }

    pub(super) fn set_operator_roles(&mut self, command: &SetOperatorRoles) -> Reply {
        let mut roles: Vec<i32> = command.roles().map(Into::into).collect();
        roles.sort_unstable();
        roles.dedup();
        let known = roles.len() <= ROLES.len() && !roles.contains(&OperatorRole::Unspecified.into());
        if command.name.is_empty() || command.name.len() > MAX_NAME || !known || (command.all && !roles.is_empty()) {
            let message = "an operator has a name of 1 to 256 bytes, and roles that there are, or all";
            return Reply::conflict(ConflictKind::Invalid, message);
        }
        let rows = self.operators.len();
        if !command.all && !self.operators.contains(&command.name) && rows >= MAX_OPERATORS {
            let message =
                format!("the roles of {rows} operators are set; give one of them all roles, which is none to keep");
            return Reply::conflict(ConflictKind::Exhausted, message);
        }
        let keeps = command.all || roles.contains(&OperatorRole::Operators.into());
        let others = || self.live_operators().filter(|row| row.name != command.name);
        if !keeps && !others().any(|row| self.operator_may(&row.name, OperatorRole::Operators)) {
            let message = format!(
                "nobody but {:?} has the role operators and a certificate that is live: nobody could set roles any more",
                command.name
            );
            return Reply::conflict(ConflictKind::Precondition, message);
        }
        match command.all {
            true => drop(self.operators.remove(&command.name)),
            false => self.operators.insert(command.name.clone(), OperatorRow { roles }),
        }
        Reply::done()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::Bench;
    use crate::state::{Action, RecordCertificate};

    fn set(name: &str, roles: &[OperatorRole]) -> Action {
        let roles = roles.iter().map(|role| (*role).into()).collect();
        Action::SetOperatorRoles(SetOperatorRoles { name: name.into(), roles, all: false })
    }

    fn operator(bench: &mut Bench, serial: &str, name: &str) {
        let record = CertificateRow {
            serial: serial.into(),
            name: name.into(),
            profile: v1::CertificateProfile::Operator.into(),
            key_algorithm: v1::KeyAlgorithm::EcdsaP256.into(),
            not_after_ms: 86_400_000,
            ..CertificateRow::default()
        };
        bench.done(Action::RecordCertificate(RecordCertificate { record: Some(record), answer: Vec::new() }));
    }

    #[test]
    fn whoever_has_no_row_has_every_role_and_a_row_says_which() {
        let mut bench = Bench::empty();
        bench.raise(ROLES_LEVEL);
        operator(&mut bench, "01", "ada");
        operator(&mut bench, "02", "bob");
        operator(&mut bench, "03", "bob");
        assert!(ROLES.iter().all(|role| bench.state.operator_may("ada", *role)));
        bench.done(set("bob", &[OperatorRole::Enrollment, OperatorRole::Users, OperatorRole::Users]));
        let has: Vec<OperatorRole> = bench.state.operator_roles("bob");
        assert_eq!(has, [OperatorRole::Users, OperatorRole::Enrollment]);
        let may = |role| bench.state.operator_may("bob", role);
        assert!(may(OperatorRole::Users) && may(OperatorRole::Enrollment));
        assert!(
            ![OperatorRole::Gateways, OperatorRole::Policy, OperatorRole::Keys, OperatorRole::Operators]
                .map(may)
                .contains(&true)
        );
        // Roles may be set before there is a certificate.
        bench.done(set("eve", &[]));
        let all = bench.state.operators();
        let short = |o: &v1::OperatorInfo| (o.name.clone(), o.roles.len(), o.restricted, o.certificates);
        assert_eq!(
            all.iter().map(short).collect::<Vec<_>>(),
            [("ada".to_owned(), 6, false, 1), ("bob".into(), 2, true, 2), ("eve".into(), 0, true, 0)]
        );
        let again = State::from_rows(bench.state.rows()).expect("reads");
        assert_eq!(again.operators(), all);
        bench.done(Action::SetOperatorRoles(SetOperatorRoles { name: "bob".into(), roles: Vec::new(), all: true }));
        assert!(ROLES.iter().all(|role| bench.state.operator_may("bob", *role)));
    }

    #[test]
    fn somebody_can_always_set_roles() {
        let mut bench = Bench::empty();
        bench.raise(ROLES_LEVEL);
        operator(&mut bench, "01", "ada");
        let refused = |bench: &mut Bench, action| match bench.apply(action) {
            crate::state::Outcome::Conflict(c) => c.kind(),
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(&mut bench, set("ada", &[OperatorRole::Keys])), ConflictKind::Precondition);
        operator(&mut bench, "02", "bob");
        bench.done(set("ada", &[OperatorRole::Keys]));
        assert_eq!(refused(&mut bench, set("bob", &[])), ConflictKind::Precondition, "now bob is the last one");
        bench.done(set("ada", &[OperatorRole::Operators]));
        bench.done(set("bob", &[]));
        assert_eq!(refused(&mut bench, set("", &[])), ConflictKind::Invalid);
        assert_eq!(refused(&mut bench, set("ada", &[OperatorRole::Unspecified])), ConflictKind::Invalid);
    }

    #[test]
    fn rows_of_roles_are_bounded() {
        let mut bench = Bench::empty();
        bench.raise(ROLES_LEVEL);
        operator(&mut bench, "01", "ada");
        for n in 0..MAX_OPERATORS {
            bench.done(set(&format!("o{n}"), &[]));
        }
        assert!(matches!(bench.apply(set("one more", &[])), crate::state::Outcome::Conflict(_)));
        bench.done(set("o7", &[OperatorRole::Users]));
    }
}
