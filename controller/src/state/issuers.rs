//! Issuing authorities: below a root, they sign what machines, gateways, controllers and operators have.

use sallyport_ca::crl::Reason;
use sallyport_proto::v1;

use super::constraints::is_bound;
use super::{AddIssuers, CertificateRow, ConflictKind, IssuerRow, Reply, RetireIssuer, State};

/// The level from which on there are issuing authorities (see `software`).
pub(crate) const ISSUERS_LEVEL: u32 = 6;
/// The level from which on it is known of an issuing authority that its key is in other hands.
pub(crate) const COMPROMISED_LEVEL: u32 = 8;
/// Most issuing authorities, retired ones included: gateways know all of them.
pub const MAX_ISSUERS: usize = 128;

impl IssuerRow {
    /// Whether it issues.
    pub fn in_force(&self) -> bool {
        self.retired_ms == 0
    }

    /// There is one of each in force at most: kind of key, and whether it has name constraints.
    fn kind(&self) -> (v1::KeyAlgorithm, bool) {
        (self.key_algorithm(), self.is_constrained())
    }
}

const fn is_rsa(kind: v1::KeyAlgorithm) -> bool {
    matches!(kind, v1::KeyAlgorithm::Rsa2048 | v1::KeyAlgorithm::Rsa3072 | v1::KeyAlgorithm::Rsa4096)
}

impl State {
    /// Puts another root in the place of the first.
    #[cfg(test)]
    pub(crate) fn set_root_for_test(&mut self, certificate: &[u8], sealed_key: &[u8]) {
        let row = super::RootRow { certificate: certificate.to_vec(), sealed_key: sealed_key.to_vec() };
        self.roots.insert(1, row);
    }

    /// Issuing authorities in force, by number.
    pub fn issuers_in_force(&self) -> impl Iterator<Item = (u64, &IssuerRow)> {
        self.issuers.iter().filter(|(_, row)| row.in_force()).map(|(number, row)| (*number, row))
    }

    /// The one that issues certificates of a profile for keys of a kind: of the same kind, else of the same family, else the first; of
    /// those with name constraints for whom they are made, if there are any, else of those without. `None` while there is none, and the
    /// root issues.
    pub fn issuer_for(&self, profile: v1::CertificateProfile, kind: v1::KeyAlgorithm) -> Option<(u64, &IssuerRow)> {
        let constrained = is_bound(profile) && self.has_constraints();
        let right = || self.issuers_in_force().filter(move |(_, row)| row.is_constrained() == constrained);
        let same = right().find(|(_, row)| row.key_algorithm() == kind);
        let family = || right().find(|(_, row)| is_rsa(row.key_algorithm()) == is_rsa(kind));
        same.or_else(family).or_else(|| right().next())
    }

    /// What stands above the certificates of an issuing authority (0 for the root): its own certificate, then the root.
    pub fn chain_of(&self, issuer: u64) -> Vec<Vec<u8>> {
        let Some(row) = self.issuers.get(&issuer) else {
            return self.root_in_force().map(|(_, root)| root.certificate.clone()).into_iter().collect();
        };
        let mut chain = vec![row.certificate.clone()];
        chain.extend(self.above_issuers_of(row.root));
        chain
    }

    /// Number of the next issuing authority: none is used twice.
    pub(crate) fn next_issuer(&self) -> u64 {
        self.core_row().map_or(0, |core| core.last_issuer) + 1
    }

    pub(super) fn add_issuers(&mut self, command: &AddIssuers) -> Reply {
        self.add_issuers_below(command, self.root_number())
    }

    /// Below this root and no other: one that was given up meanwhile must have none that issues.
    pub(super) fn add_issuers_below(&mut self, command: &AddIssuers, root: u64) -> Reply {
        let conflict = |kind, text: &str| Reply::conflict(kind, text);
        if command.issuers.is_empty() {
            return conflict(ConflictKind::Invalid, "no issuing authority in the command");
        }
        if self.issuers.len() + command.issuers.len() > MAX_ISSUERS {
            return Reply::conflict(
                ConflictKind::Exhausted,
                format!("there are {} issuing authorities", self.issuers.len()),
            );
        }
        let mut kinds = Vec::new();
        for (new, number) in command.issuers.iter().zip(self.next_issuer()..) {
            let is_right = |r: &&CertificateRow| {
                !r.serial.is_empty() && r.profile() == v1::CertificateProfile::Issuing && r.issuer == 0
            };
            let record = new.record.as_ref().filter(is_right);
            let Some(record) = record.filter(|_| !new.certificate.is_empty() && !new.sealed_key.is_empty()) else {
                return conflict(ConflictKind::Invalid, "an issuing authority needs a certificate, a key and a record");
            };
            if !self.roots.contains(&new.root) {
                return conflict(ConflictKind::NotFound, "there is no such root");
            }
            if new.root != root {
                return conflict(ConflictKind::Changed, "another root is in force by now; try again");
            }
            if new.number != number || self.is_used(&record.serial) {
                return conflict(ConflictKind::Changed, "another issuing authority was made meanwhile; try again");
            }
            if let Some(refused) = self.refuses_constraints(new) {
                return refused;
            }
            let kind = (record.key_algorithm(), new.constraints.is_some());
            let has_one = !command.replace && self.issuers_in_force().any(|(_, row)| row.kind() == kind);
            if has_one || kinds.contains(&kind) {
                return conflict(
                    ConflictKind::AlreadyExists,
                    "an issuing authority with such a key is in force; sallyport ca issuer add --replace puts another one \
                     in its place",
                );
            }
            kinds.push(kind);
        }
        // Operators, controllers and whatever else has names that no site chose get theirs from one without constraints.
        let without = |(_, constrained): &(_, bool)| !constrained;
        if !kinds.iter().any(without)
            && self.issuers_in_force().all(|(_, row)| row.is_constrained() || row.root != root)
        {
            return conflict(
                ConflictKind::Precondition,
                "first make an issuing authority without name constraints, for operators and controllers: sallyport ca issuer \
                 add --key KIND",
            );
        }
        let now_ms = self.now_ms().max(1); // 0 says "in force"
        let replaced: Vec<u64> = self
            .issuers_in_force()
            .filter(|(_, row)| command.replace && kinds.contains(&row.kind()))
            .map(|(number, _)| number)
            .collect();
        for number in replaced {
            if let Some(row) = self.issuers.change(&number) {
                row.retired_ms = now_ms;
            }
        }
        for new in &command.issuers {
            self.record_certificate(new.record.as_ref());
            let row = IssuerRow {
                certificate: new.certificate.clone(),
                sealed_key: new.sealed_key.clone(),
                root: new.root,
                made_ms: self.now_ms(),
                retired_ms: 0,
                key_algorithm: new.record.as_ref().map_or(0, |r| r.key_algorithm),
                serial: new.record.as_ref().map_or_else(String::new, |r| r.serial.clone()),
                constraints: new.constraints.clone(),
                compromised_ms: 0,
            };
            self.issuers.insert(new.number, row);
            self.change_core(|core| core.last_issuer = new.number);
        }
        self.change_policy();
        Reply::done()
    }

    pub(super) fn retire_issuer(&mut self, command: &RetireIssuer) -> Reply {
        let Some(row) = self.issuers.get(&command.number) else {
            return Reply::conflict(
                ConflictKind::NotFound,
                format!("there is no issuing authority {}", command.number),
            );
        };
        let (in_force, serial) = (row.in_force(), row.serial.clone());
        let compromised = command.compromised && row.compromised_ms == 0;
        if !in_force && !compromised {
            return Reply::done();
        }
        let of_all_names = self.issuers_in_force().filter(|(_, row)| !row.is_constrained()).count();
        if in_force && !row.is_constrained() && of_all_names == 1 {
            return Reply::conflict(
                ConflictKind::Precondition,
                match self.has_constraints() {
                    false => {
                        "it is the only issuing authority in force; make another one first: sallyport ca issuer add --key KIND, \
                         or with --replace one of the same kind"
                    }
                    true => {
                        "it is the only issuing authority in force without name constraints, and operators and controllers need \
                         one; make another one first: sallyport ca issuer add --key KIND, or with --replace one of the same kind"
                    }
                },
            );
        }
        let now_ms = self.now_ms().max(1);
        if let Some(row) = self.issuers.change(&command.number) {
            if in_force {
                row.retired_ms = now_ms;
            }
            if compromised {
                row.compromised_ms = now_ms;
            }
        }
        if compromised {
            self.revoke_row(&serial, Reason::CaCompromise, "its key is in other hands");
        }
        self.change_policy();
        Reply::done()
    }

    /// Issuing authorities whose keys are in other hands, that their certificates would still be good: serial numbers, and since when.
    pub fn compromised_issuers(&self, now_ms: u64) -> impl Iterator<Item = (&String, u64)> {
        let good = move |serial: &String| self.certificates.get(serial).is_some_and(|row| row.not_after_ms > now_ms);
        let rows = self.issuers.iter().filter(|(_, row)| row.compromised_ms != 0);
        rows.map(|(_, row)| (&row.serial, row.compromised_ms)).filter(move |(serial, _)| good(serial))
    }

    /// Whether the key of an issuing authority is in other hands.
    pub fn is_compromised(&self, issuer: u64) -> bool {
        self.issuers.get(&issuer).is_some_and(|row| row.compromised_ms != 0)
    }

    /// Once there is an issuing authority, nothing else issues certificates; and only one in force does. What was signed, or is about
    /// to be, by another is to be signed again.
    pub(super) fn superseded(&self, record: &CertificateRow, issuer: u64) -> Option<Reply> {
        let above = matches!(record.profile(), v1::CertificateProfile::Root | v1::CertificateProfile::Issuing);
        let right = match issuer {
            0 => above || self.issuers_in_force().next().is_none(),
            // What a retired one has issued is still asked about, and its own signer must answer (RFC 6960 §4.2.2.2).
            number if record.profile() == v1::CertificateProfile::OcspSigner => self.issuers.contains(&number),
            number => {
                let right = |row: &IssuerRow| row.in_force() && self.is_right_issuer(record, row);
                !above && self.issuers.get(&number).is_some_and(right)
            }
        };
        let text = "the authority that signed it issues no more; sign again";
        (!right).then(|| Reply::conflict(ConflictKind::Changed, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Action, Bootstrap, Command, NewIssuer, Outcome, RecordCertificate};

    fn record(serial: &str, profile: v1::CertificateProfile, kind: v1::KeyAlgorithm, issuer: u64) -> CertificateRow {
        CertificateRow {
            serial: serial.into(),
            profile: profile.into(),
            key_algorithm: kind.into(),
            issuer,
            ..CertificateRow::default()
        }
    }

    fn new(number: u64, kind: v1::KeyAlgorithm) -> NewIssuer {
        NewIssuer {
            number,
            certificate: vec![10 + number as u8],
            sealed_key: vec![1],
            root: 1,
            record: Some(record(&format!("aa{number}"), v1::CertificateProfile::Issuing, kind, 0)),
            constraints: None,
        }
    }

    fn apply(state: &mut State, action: Action) -> Result<(), ConflictKind> {
        match state.apply(&Command { request_id: Vec::new(), at_ms: 5, action: Some(action) }).outcome {
            Some(Outcome::Conflict(c)) => Err(c.kind()),
            _ => Ok(()),
        }
    }

    fn add(state: &mut State, issuers: Vec<NewIssuer>, replace: bool) -> Result<(), ConflictKind> {
        apply(state, Action::AddIssuers(AddIssuers { issuers, replace }))
    }

    fn issue(state: &mut State, serial: &str, issuer: u64) -> Result<(), ConflictKind> {
        let row = record(serial, v1::CertificateProfile::Machine, EC, issuer);
        apply(state, Action::RecordCertificate(RecordCertificate { record: Some(row), answer: Vec::new() }))
    }

    const EC: v1::KeyAlgorithm = v1::KeyAlgorithm::EcdsaP256;
    const RSA: v1::KeyAlgorithm = v1::KeyAlgorithm::Rsa2048;

    fn state() -> State {
        let mut state = State::new();
        let bootstrap = Bootstrap {
            cluster_id: vec![1; 16],
            root_certificate: vec![9],
            sealed_root_key: vec![2],
            record: Some(record("a0", v1::CertificateProfile::Root, EC, 0)),
            member: None,
        };
        apply(&mut state, Action::Bootstrap(bootstrap)).expect("begins");
        state
    }

    #[test]
    fn the_root_issues_until_there_is_an_issuing_authority_and_then_no_more() {
        let mut state = state();
        assert_eq!(issue(&mut state, "b1", 0), Ok(()));
        assert_eq!(issue(&mut state, "b2", 1), Err(ConflictKind::Changed), "there is none of that number");
        let before = state.policy_version();
        assert_eq!(add(&mut state, vec![new(1, EC), new(2, RSA)], false), Ok(()));
        assert_eq!(state.policy_version(), before + 1, "gateways are told");
        assert_eq!(issue(&mut state, "b3", 0), Err(ConflictKind::Changed));
        assert_eq!(issue(&mut state, "b3", 2), Ok(()));
        assert_eq!(
            state.issuer_for(v1::CertificateProfile::Machine, v1::KeyAlgorithm::Rsa4096).map(|(n, _)| n),
            Some(2)
        );
        assert_eq!(
            state.issuer_for(v1::CertificateProfile::Machine, v1::KeyAlgorithm::EcdsaP384).map(|(n, _)| n),
            Some(1)
        );
        assert_eq!((state.chain_of(2), state.chain_of(0)), (vec![vec![12], vec![9]], vec![vec![9]]));
    }

    #[test]
    fn there_is_one_of_each_kind_in_force_and_the_last_one_stays() {
        let mut state = state();
        assert_eq!(add(&mut state, Vec::new(), false), Err(ConflictKind::Invalid));
        assert_eq!(add(&mut state, vec![new(1, EC), new(2, EC)], false), Err(ConflictKind::AlreadyExists));
        assert_eq!(add(&mut state, vec![new(2, EC)], false), Err(ConflictKind::Changed));
        assert!(state.issuers.is_empty());
        add(&mut state, vec![new(1, EC)], false).expect("the first");
        assert_eq!(add(&mut state, vec![new(2, EC)], false), Err(ConflictKind::AlreadyExists));
        let retire = |number| Action::RetireIssuer(RetireIssuer { number, compromised: false });
        assert_eq!(apply(&mut state, retire(1)), Err(ConflictKind::Precondition), "the only one");
        assert_eq!(apply(&mut state, retire(7)), Err(ConflictKind::NotFound));
        add(&mut state, vec![new(2, EC)], true).expect("in its place");
        assert_eq!(state.issuers_in_force().map(|(n, _)| n).collect::<Vec<_>>(), [2]);
        assert_eq!(issue(&mut state, "b1", 1), Err(ConflictKind::Changed), "retired");
        add(&mut state, vec![new(3, RSA)], false).expect("another kind");
        apply(&mut state, retire(2)).expect("there is another");
        assert_eq!(state.issuer_for(v1::CertificateProfile::Machine, EC).map(|(n, _)| n), Some(3));
        assert_eq!(state.chain_of(1), [vec![11], vec![9]], "what it issued is still good");
    }

    #[test]
    fn an_issuing_authority_is_not_revoked_like_a_machine() {
        let mut state = state();
        add(&mut state, vec![new(1, EC)], false).expect("adds");
        let revoke = crate::state::RevokeCertificate { serial: "aa1".into(), reason: String::new() };
        assert_eq!(apply(&mut state, Action::RevokeCertificate(revoke)), Err(ConflictKind::Precondition));
    }

    #[test]
    fn one_whose_key_was_stolen_is_revoked_as_well_whenever_that_is_found_out() {
        let mut state = state();
        let raise = crate::state::RaiseLevel { level: COMPROMISED_LEVEL, since: String::new() };
        apply(&mut state, Action::RaiseLevel(raise)).expect("raises");
        add(&mut state, vec![new(1, EC)], false).expect("adds");
        let stolen = |number| Action::RetireIssuer(RetireIssuer { number, compromised: true });
        assert_eq!(stolen(1).level(), COMPROMISED_LEVEL);
        assert_eq!(apply(&mut state, stolen(1)), Err(ConflictKind::Precondition), "the only one");
        assert!(
            !state.is_compromised(1)
                && state.certificates.get(&"aa1".to_owned()).is_some_and(|row| row.revoked_ms == 0)
        );
        add(&mut state, vec![new(2, EC)], true).expect("in its place");
        let (before, policy) = (state.last_revocation(), state.policy_version());
        assert_eq!(apply(&mut state, stolen(1)), Ok(()), "retired before");
        assert!(state.is_compromised(1) && state.last_revocation() > before && state.policy_version() > policy);
        let row = state.certificates.get(&"aa1".to_owned()).expect("there");
        assert_eq!((row.revoked_ms != 0, row.revocation_code), (true, 2));
        assert_eq!(state.revoked_of(0, 0).map(|row| row.serial.as_str()).collect::<Vec<_>>(), Vec::<&str>::new());
        let again = state.last_revocation();
        assert_eq!((apply(&mut state, stolen(1)), state.last_revocation()), (Ok(()), again), "once");
        let same = State::from_rows(state.rows()).expect("reads");
        assert_eq!((same.rows(), same.is_compromised(1)), (state.rows(), true));
    }

    #[test]
    fn rows_read_back_as_they_were() {
        let mut state = state();
        add(&mut state, vec![new(1, EC), new(2, RSA)], false).expect("adds");
        let again = State::from_rows(state.rows()).expect("reads");
        assert_eq!(again.rows(), state.rows());
        assert_eq!(again.next_issuer(), 3);
    }
}
