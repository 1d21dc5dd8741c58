use super::*;
use crate::state::{Action, Bootstrap, Command, IssuerRow, Outcome, RetireIssuer, RevokeCertificate};

const EC: v1::KeyAlgorithm = v1::KeyAlgorithm::EcdsaP256;

fn record(serial: &str, profile: v1::CertificateProfile) -> CertificateRow {
    let (profile, key_algorithm) = (profile.into(), EC.into());
    CertificateRow { serial: serial.into(), profile, key_algorithm, ..CertificateRow::default() }
}

fn issuer(number: u64, root: u64) -> NewIssuer {
    NewIssuer {
        constraints: None,
        number,
        certificate: vec![20 + number as u8],
        sealed_key: vec![1],
        root,
        record: Some(record(&format!("aa{number}"), v1::CertificateProfile::Issuing)),
    }
}

fn apply(state: &mut State, action: Action) -> Result<(), ConflictKind> {
    let at_ms = state.now_ms() + 5;
    match state.apply(&Command { request_id: Vec::new(), at_ms, action: Some(action) }).outcome {
        Some(Outcome::Conflict(c)) => Err(c.kind()),
        _ => Ok(()),
    }
}

/// One root, one issuing authority.
fn state() -> State {
    let mut state = State::new();
    let bootstrap = Bootstrap {
        cluster_id: vec![1; 16],
        root_certificate: vec![11],
        sealed_root_key: vec![2],
        record: Some(record("a1", v1::CertificateProfile::Root)),
        member: None,
    };
    apply(&mut state, Action::Bootstrap(bootstrap)).expect("begins");
    let first = AddIssuers { issuers: vec![issuer(1, 1)], replace: false };
    apply(&mut state, Action::AddIssuers(first)).expect("adds");
    state
}

fn erase(state: &State) -> EraseRootKey {
    EraseRootKey {
        root: 1,
        controllers_list: vec![7],
        own_list: vec![8],
        own_list_until_ms: 900,
        last_revocation: state.last_revocation(),
    }
}

fn begin(number: u64, before: u64) -> BeginRollover {
    BeginRollover {
        number,
        certificate: vec![10 + number as u8],
        sealed_key: vec![2],
        record: Some(record(&format!("a{number}"), v1::CertificateProfile::Root)),
        before,
        by_before: vec![0x21],
        of_before: vec![0x12],
    }
}

fn turn(
    state: &mut State,
    step: RolloverStep,
    (from, to): (u64, u64),
    issuers: Vec<NewIssuer>,
) -> Result<(), ConflictKind> {
    apply(state, Action::TurnRollover(TurnRollover { step: step.into(), from, to, issuers }))
}

fn in_force(state: &State) -> Vec<u64> {
    state.issuers_in_force().map(|(number, _)| number).collect()
}

fn trusted(state: &State) -> Vec<u64> {
    state.trusted_roots().map(|(number, _)| number).collect()
}

fn reloads(state: &State) {
    assert_eq!(State::from_rows(state.rows()).expect("reads").rows(), state.rows());
}

#[test]
fn a_key_leaves_the_state_with_its_last_lists_and_comes_back_for_a_while() {
    let mut state = state();
    let restore = |until_ms| Action::RestoreRootKey(RestoreRootKey { root: 1, sealed_key: vec![3], until_ms });
    assert_eq!(apply(&mut state, restore(0)), Err(ConflictKind::AlreadyExists), "it is there");
    let command = erase(&state);
    for wrong in [
        EraseRootKey { controllers_list: Vec::new(), ..command.clone() },
        EraseRootKey { own_list: Vec::new(), ..command.clone() },
        EraseRootKey { root: 9, ..command.clone() },
        EraseRootKey { last_revocation: 77, ..command.clone() },
    ] {
        assert!(apply(&mut state, Action::EraseRootKey(wrong)).is_err());
    }
    assert_eq!(apply(&mut state, Action::EraseRootKey(command.clone())), Ok(()));
    let life = state.root_life(1);
    assert_eq!((life.controllers_list, life.own_list, life.own_list_until_ms), (vec![7], vec![8], 900));
    assert!(life.erased_ms != 0 && state.root_in_force().is_some_and(|(_, row)| row.sealed_key.is_empty()));
    assert_eq!(apply(&mut state, Action::EraseRootKey(command.clone())), Ok(()), "once more");
    assert_eq!(apply(&mut state, restore(5_000)), Ok(()));
    assert_eq!(state.visiting_keys().collect::<Vec<_>>(), [(1, 5_000)]);
    assert_eq!(apply(&mut state, restore(6_000)), Ok(()), "for longer");
    assert_eq!(apply(&mut state, Action::EraseRootKey(command)), Ok(()));
    assert_eq!(state.visiting_keys().count(), 0);
    assert_eq!(apply(&mut state, restore(0)), Ok(()), "for good");
    assert_eq!(state.visiting_keys().count(), 0);
    reloads(&state);
}

#[test]
fn a_key_stays_while_nothing_else_issues_or_a_list_would_lack_something() {
    let mut state = State::new();
    let bootstrap = Bootstrap {
        cluster_id: vec![1; 16],
        root_certificate: vec![11],
        sealed_root_key: vec![2],
        record: Some(record("a1", v1::CertificateProfile::Root)),
        member: None,
    };
    apply(&mut state, Action::Bootstrap(bootstrap)).expect("begins");
    let command = erase(&state);
    assert_eq!(apply(&mut state, Action::EraseRootKey(command)), Err(ConflictKind::Precondition));
    let first = AddIssuers { issuers: vec![issuer(1, 1)], replace: false };
    apply(&mut state, Action::AddIssuers(first)).expect("adds");
    let command = erase(&state);
    let machine = CertificateRow { issuer: 1, ..record("b1", v1::CertificateProfile::Machine) };
    let record = crate::state::RecordCertificate { record: Some(machine), answer: Vec::new() };
    apply(&mut state, Action::RecordCertificate(record)).expect("records");
    let revoke = RevokeCertificate { serial: "b1".into(), reason: String::new() };
    apply(&mut state, Action::RevokeCertificate(revoke)).expect("revokes");
    assert_eq!(apply(&mut state, Action::EraseRootKey(command)), Err(ConflictKind::Changed));
}

#[test]
fn a_root_elsewhere_stands_above_what_is_shown() {
    let mut state = state();
    assert_eq!(state.chain_of(1), [vec![21], vec![11]]);
    let install = |above: Vec<Vec<u8>>| Action::InstallRootChain(InstallRootChain { root: 1, above });
    assert_eq!(apply(&mut state, install(vec![vec![91], vec![92]])), Ok(()));
    assert_eq!(state.chain_of(1), [vec![21], vec![91], vec![92]]);
    assert_eq!(state.cross_certificates(), [vec![91], vec![92]]);
    assert_eq!(trusted(&state), [1], "for the cluster's own members nothing changes");
    assert_eq!(apply(&mut state, install(vec![Vec::new()])), Err(ConflictKind::Invalid));
    assert_eq!(apply(&mut state, install(vec![vec![1]; 4])), Err(ConflictKind::Invalid));
    reloads(&state);
    assert_eq!(apply(&mut state, install(Vec::new())), Ok(()));
    assert_eq!(state.chain_of(1), [vec![21], vec![11]]);
}

#[test]
fn the_next_root_is_trusted_at_once_issues_when_activated_and_is_alone_at_the_end() {
    let mut state = state();
    assert_eq!((state.root_number(), state.next_root(), state.rollover()), (1, 2, None));
    assert_eq!(turn(&mut state, RolloverStep::Activate, (1, 2), vec![issuer(2, 2)]), Err(ConflictKind::Precondition));
    for wrong in [begin(3, 1), begin(2, 2)] {
        assert_eq!(apply(&mut state, Action::BeginRollover(wrong)), Err(ConflictKind::Changed));
    }
    let unsigned = BeginRollover { by_before: Vec::new(), ..begin(2, 1) };
    assert_eq!(apply(&mut state, Action::BeginRollover(unsigned)), Err(ConflictKind::Invalid));
    let told = state.policy_version();
    assert_eq!(apply(&mut state, Action::BeginRollover(begin(2, 1))), Ok(()));
    assert_eq!(state.policy_version(), told + 1, "gateways are told");
    assert_eq!((state.root_number(), trusted(&state)), (1, vec![1, 2]));
    assert_eq!(state.chain_of(1), [vec![21], vec![11]]);
    assert_eq!(state.cross_certificates(), [vec![0x21], vec![0x12]]);
    assert_eq!(apply(&mut state, Action::BeginRollover(begin(3, 1))), Err(ConflictKind::AlreadyExists));
    assert_eq!(turn(&mut state, RolloverStep::Finish, (1, 2), Vec::new()), Err(ConflictKind::Precondition));
    assert_eq!(turn(&mut state, RolloverStep::Activate, (2, 1), vec![issuer(2, 2)]), Err(ConflictKind::Changed));
    assert_eq!(turn(&mut state, RolloverStep::Activate, (1, 2), vec![issuer(2, 1)]), Err(ConflictKind::Invalid));
    assert_eq!(turn(&mut state, RolloverStep::Activate, (1, 2), vec![issuer(2, 2)]), Ok(()));
    assert_eq!((state.root_number(), in_force(&state), trusted(&state)), (2, vec![2], vec![2, 1]));
    assert_eq!(state.chain_of(2), [vec![22], vec![0x21], vec![11]], "who trusts the old root only is led to it");
    assert_eq!(state.chain_of(1), [vec![21], vec![11]]);
    assert_eq!(turn(&mut state, RolloverStep::Activate, (1, 2), vec![issuer(3, 2)]), Err(ConflictKind::AlreadyExists));
    reloads(&state);
    assert_eq!(turn(&mut state, RolloverStep::Finish, (1, 2), Vec::new()), Ok(()));
    assert_eq!((trusted(&state), state.rollover()), (vec![2], None));
    assert_eq!(state.chain_of(2), [vec![22], vec![12]]);
    assert!(state.roots.get(&1).is_some_and(|old| old.sealed_key.is_empty()));
    let restore = RestoreRootKey { root: 1, sealed_key: vec![3], until_ms: 0 };
    assert_eq!(apply(&mut state, Action::RestoreRootKey(restore)), Err(ConflictKind::Precondition));
    reloads(&state);
    assert_eq!(apply(&mut state, Action::BeginRollover(begin(3, 2))), Ok(()), "and the next time");
}

#[test]
fn a_change_of_roots_goes_back_before_and_after_the_next_one_issues() {
    let mut state = state();
    apply(&mut state, Action::BeginRollover(begin(2, 1))).expect("begins");
    assert_eq!(turn(&mut state, RolloverStep::Abort, (1, 2), Vec::new()), Ok(()));
    assert_eq!((trusted(&state), state.rollover(), in_force(&state)), (vec![1], None, vec![1]));
    apply(&mut state, Action::BeginRollover(begin(3, 1))).expect("begins again, with another number");
    turn(&mut state, RolloverStep::Activate, (1, 3), vec![issuer(2, 3)]).expect("activates");
    assert_eq!(turn(&mut state, RolloverStep::Abort, (1, 3), Vec::new()), Ok(()));
    assert_eq!((state.root_number(), in_force(&state), trusted(&state)), (1, vec![1], vec![1, 3]));
    assert!(state.rollover().is_some_and(|r| (r.from, r.to) == (3, 1) && r.activated_ms != 0));
    assert_eq!(state.chain_of(1), [vec![21], vec![0x12], vec![13]], "who has come to trust the other only is led here");
    assert_eq!(turn(&mut state, RolloverStep::Finish, (3, 1), Vec::new()), Ok(()));
    assert_eq!((trusted(&state), state.rollover()), (vec![1], None));
    reloads(&state);
    let retire = Action::RetireIssuer(RetireIssuer { number: 1, compromised: false });
    assert_eq!(apply(&mut state, retire), Err(ConflictKind::Precondition), "it is the only one again");
    assert!(state.issuers.get(&2).is_some_and(|row: &IssuerRow| !row.in_force()));
}

#[test]
fn no_issuing_authority_stands_below_a_root_that_was_given_up_or_is_not_in_force() {
    let mut state = state();
    apply(&mut state, Action::BeginRollover(begin(2, 1))).expect("begins");
    let below = |root| Action::AddIssuers(AddIssuers { issuers: vec![issuer(2, root)], replace: true });
    assert_eq!(apply(&mut state, below(2)), Err(ConflictKind::Changed), "the next root does not issue yet");
    // `ca issuer add` was made below the next root while that was in force, and comes after the way back.
    turn(&mut state, RolloverStep::Activate, (1, 2), vec![issuer(2, 2)]).expect("activates");
    let late = Action::AddIssuers(AddIssuers { issuers: vec![issuer(3, 2)], replace: true });
    turn(&mut state, RolloverStep::Abort, (1, 2), Vec::new()).expect("goes back");
    assert_eq!(apply(&mut state, late), Err(ConflictKind::Changed));
    assert_eq!(in_force(&state), [1]);
    turn(&mut state, RolloverStep::Finish, (2, 1), Vec::new()).expect("gives the other up");
    let given_up = Action::AddIssuers(AddIssuers { issuers: vec![issuer(3, 2)], replace: true });
    assert_eq!(apply(&mut state, given_up), Err(ConflictKind::Changed));
    let below = Action::AddIssuers(AddIssuers { issuers: vec![issuer(3, 1)], replace: true });
    assert_eq!(apply(&mut state, below), Ok(()));
    assert_eq!(in_force(&state), [3]);
    reloads(&state);
}

/// The root's list is at one address, whichever root it is: a cache must see that it is another.
#[test]
fn another_root_in_force_changes_the_lists() {
    let mut state = state();
    state.change_core(|core| core.level = ROOT_LEVEL);
    apply(&mut state, Action::BeginRollover(begin(2, 1))).expect("begins");
    let before = state.lists_change();
    turn(&mut state, RolloverStep::Activate, (1, 2), vec![issuer(2, 2)]).expect("activates");
    let activated = state.lists_change();
    assert!(activated > before && activated.at_ms > before.at_ms);
    turn(&mut state, RolloverStep::Abort, (1, 2), Vec::new()).expect("goes back");
    assert!(state.lists_change() > activated);
}
