//! Every kind of entry, each by the command that makes it.

use super::*;

const NAME: &str = "laptop7.example.com";
const EC: v1::KeyAlgorithm = v1::KeyAlgorithm::EcdsaP256;

fn revoke_for(which: Selector, code: u32, text: &str) -> Action {
    Action::RevokeCertificates(RevokeCertificates { which: Some(which), code, text: text.into() })
}

fn serial(serial: &str) -> Selector {
    Selector::Serial(serial.into())
}

/// What a token of [`token`] allows, about to be signed.
fn intend(id: u8, token: u8, name: &str) -> Action {
    let record = CertificateRow {
        serial: format!("1{id}"),
        profile: v1::CertificateProfile::Machine.into(),
        name: name.into(),
        sans: vec![name.into()],
        not_after_ms: 86_400_000,
        key_algorithm: EC.into(),
        ..CertificateRow::default()
    };
    let proof = ProofKind::Token(TokenProof { id: vec![token; 8], hash: vec![token; 32] });
    Action::IntendCertificate(IntendCertificate {
        transaction: vec![id; 16],
        proof: Some(Proof { kind: Some(proof) }),
        key_sha256: vec![id; 32],
        source: "192.0.2.7".into(),
        profile_version: 1,
        tbs: vec![1],
        record: Some(record),
        issuer: 0,
    })
}

fn queue(key: u8) -> Action {
    let (key_sha256, profile) = (vec![key; 32], "machine".into());
    Action::QueueRequest(QueueRequest { key_sha256, claims: "laptop8".into(), profile, ..QueueRequest::default() })
}

fn decide(number: u64, approve: bool, name: &str) -> Action {
    let (name, decided_by) = (name.into(), "ada".into());
    Action::DecideRequest(DecideRequest { number, approve, name, decided_by, ..DecideRequest::default() })
}

fn put(name: &str, key: u8) -> Action {
    let (name, profile, key_sha256) = (name.into(), "machine".into(), vec![key; 32]);
    let machine = MachineRow { name, profile, holder: "Ada".into(), key_sha256, ..MachineRow::default() };
    Action::PutMachines(PutMachines { machines: vec![machine], keep: false })
}

fn authority(number: u64, root: u64, kind: v1::KeyAlgorithm) -> NewIssuer {
    let record = CertificateRow {
        serial: format!("aa{number}"),
        profile: v1::CertificateProfile::Issuing.into(),
        key_algorithm: kind.into(),
        ..CertificateRow::default()
    };
    NewIssuer { number, certificate: vec![20], sealed_key: vec![1], root, record: Some(record), constraints: None }
}

fn add(number: u64, kind: v1::KeyAlgorithm) -> Action {
    Action::AddIssuers(AddIssuers { issuers: vec![authority(number, 1, kind)], replace: false })
}

fn another_root() -> Action {
    let record = CertificateRow {
        serial: "bb".into(),
        profile: v1::CertificateProfile::Root.into(),
        key_algorithm: EC.into(),
        ..CertificateRow::default()
    };
    Action::BeginRollover(BeginRollover {
        number: 2,
        certificate: vec![12],
        sealed_key: vec![2],
        record: Some(record),
        before: 1,
        by_before: vec![0x21],
        of_before: vec![0x12],
    })
}

fn turn(step: RolloverStep, issuers: Vec<NewIssuer>) -> Action {
    Action::TurnRollover(TurnRollover { step: step.into(), from: 1, to: 2, issuers })
}

fn member(id: u64) -> DescribeMember {
    let (name, address) = (format!("vpn{id}"), format!("192.0.2.{id}:7443"));
    DescribeMember { id, name, address, version: "0.1.0".into(), level: LEDGER_LEVEL }
}

fn admit() -> Action {
    let record = CertificateRow {
        serial: "cc".into(),
        profile: v1::CertificateProfile::Controller.into(),
        name: "vpn2.example.com".into(),
        not_after_ms: 86_400_000,
        key_algorithm: EC.into(),
        ..CertificateRow::default()
    };
    let (token, hash, member, record) = (vec![5; 8], vec![5; 32], Some(member(2)), Some(record));
    Action::AdmitMember(AdmitMember { token, hash, member, learner: true, record })
}

fn join_token() -> Action {
    let (id, hash, made_by) = (vec![5; 8], vec![5; 32], "ada".into());
    Action::CreateToken(CreateToken { id, hash, ttl_ms: 60_000, made_by })
}

fn use_key(purpose: KeyUse, root: u64) -> Action {
    Action::NoteKeyUse(NoteKeyUse { purpose: purpose.into(), root })
}

fn erase_root() -> Action {
    let (list, until) = (vec![7], 900);
    // Of revocations the last are those of a machine and of a controller: see the table.
    Action::EraseRootKey(EraseRootKey {
        root: 1,
        controllers_list: list.clone(),
        own_list: list,
        own_list_until_ms: until,
        last_revocation: 0,
    })
}

/// A command, the kinds of its entries, and of the first one: name or serial number, number, and what its details begin with.
type Step = (Action, Vec<LogKind>, &'static str, u64, &'static str);

fn of_certificates() -> Vec<Step> {
    use LogKind as K;
    let release = Action::ReleaseCertificates(ReleaseCertificates { which: Some(serial("0a")) });
    let abandon = Action::AbandonCertificate(AbandonCertificate { serial: "11".into() });
    let take_back = Action::RevokeEnrollToken(RevokeEnrollToken { id: vec![1; 8] });
    vec![
        (token(1, NAME), vec![K::TokenMade], NAME, 1, "0101010101010101"),
        (intend(1, 1, NAME), vec![K::CertificateIntended], NAME, 0, "token 0101010101010101"),
        (abandon, vec![K::CertificateAbandoned], "11", 0, ""),
        (take_back, vec![K::TokenRevoked], "", 0, "0101010101010101"),
        (record("0a"), vec![K::CertificateIssued], "laptop", 0, ""),
        (revoke_for(serial("0a"), 6, ""), vec![K::CertificateRevoked], "laptop", 0, "certificate-hold"),
        (release, vec![K::CertificateReleased], "laptop", 0, ""),
        (revoke_for(serial("0a"), 1, ""), vec![K::CertificateRevoked], "laptop", 0, "key-compromise"),
        (record("0b"), vec![K::CertificateIssued], "laptop", 0, ""),
        (revoke_for(serial("0b"), 4, "new disk"), vec![K::CertificateRevoked], "laptop", 0, "superseded (new disk)"),
        (refused(1, "no token"), vec![K::CertificateRefused], "", 0, "no token"),
        (queue(8), vec![K::RequestQueued], "laptop8", 2, ""),
        (queue(8), vec![], "", 0, ""),
        (decide(2, false, ""), vec![K::RequestDenied], "", 2, ""),
        (decide(2, true, NAME), vec![K::RequestApproved], NAME, 2, ""),
    ]
}

fn of_policy() -> Vec<Step> {
    use LogKind as K;
    let profile = Some(ProfileRow::initial(sallyport_ca::Profile::Machine));
    let set = Action::SetProfile(SetProfile { name: "machine".into(), profile });
    let remove = Action::RemoveMachine(RemoveMachine { key: NAME.into() });
    // What is none of this log.
    let gateway = RegisterGateway { name: "gw1".into(), boot_id: vec![1; 16], ..RegisterGateway::default() };
    let gateway = Action::RegisterGateway(gateway);
    let roles = Action::SetOperatorRoles(SetOperatorRoles { name: "bob".into(), roles: vec![1, 6], all: false });
    let settings = SettingsRow::initial();
    let version = settings.version + 1;
    vec![
        (set, vec![K::ProfileSet], "machine", 2, "validity"),
        (put(NAME, 9), vec![K::MachinesPut], "", 1, NAME),
        (remove, vec![K::MachineRemoved], NAME, 0, ""),
        (Action::SetPsk(SetPsk { sealed: vec![1] }), vec![K::PskSet], "", 0, ""),
        (Action::ClearPsk(ClearPsk {}), vec![K::PskCleared], "", 0, ""),
        (roles, vec![K::Other], "operator bob", 0, "roles: users, operators"),
        (Action::UpdateSettings(UpdateSettings { settings: Some(settings) }), vec![K::SettingsSet], "", version, ""),
        (gateway, vec![], "", 0, ""),
    ]
}

fn of_controllers() -> Vec<Step> {
    use LogKind as K;
    let promote = Action::PromoteMember(PromoteMember { id: 2 });
    let remove = Action::RemoveMember(RemoveMember { id: 2 });
    vec![
        (Action::DescribeMember(member(1)), vec![], "", 0, ""),
        (join_token(), vec![K::ControllerTokenMade], "", 0, "0505050505050505"),
        (Action::RevokeTokens(RevokeTokens {}), vec![K::ControllerTokensRevoked], "", 0, ""),
        (join_token(), vec![K::ControllerTokenMade], "", 0, "0505050505050505"),
        (admit(), vec![K::ControllerAdmitted, K::CertificateIssued], "vpn2", 2, ""),
        (promote, vec![K::Other], "controller 2", 0, "it votes"),
        (remove, vec![K::ControllerRemoved, K::CertificateRevoked], "", 2, ""),
    ]
}

fn of_authorities() -> Vec<Step> {
    use LogKind as K;
    let p384 = v1::KeyAlgorithm::EcdsaP384;
    let install = Action::InstallRootChain(InstallRootChain { root: 1, above: vec![vec![9]] });
    let restore = Action::RestoreRootKey(RestoreRootKey { root: 1, sealed_key: vec![3], until_ms: 0 });
    let activate = turn(RolloverStep::Activate, vec![authority(3, 2, EC)]);
    let activated = vec![K::KeyUsed, K::AuthorityAdded, K::CertificateIssued];
    vec![
        (add(1, EC), vec![K::AuthorityAdded, K::CertificateIssued], "aa1", 1, ""),
        (add(2, p384), vec![K::AuthorityAdded, K::CertificateIssued], "aa2", 2, ""),
        (Action::RetireIssuer(RetireIssuer { number: 2, compromised: false }), vec![K::AuthorityRetired], "", 2, ""),
        (use_key(KeyUse::Exported, 1), vec![K::KeyUsed], "root 1", 0, "the private key goes out"),
        (use_key(KeyUse::Requested, 1), vec![K::KeyUsed], "root 1", 0, "it signs a request"),
        (use_key(KeyUse::BackedUp, 0), vec![K::KeyUsed], "every key", 0, "a backup is made"),
        (erase_root(), vec![K::KeyUsed], "root 1", 0, "the private key was erased"),
        (restore, vec![K::KeyUsed], "root 1", 0, "the private key was brought back"),
        (install, vec![K::KeyUsed], "root 1", 0, "it stands below"),
        (another_root(), vec![K::KeyUsed, K::CertificateIssued], "root 2", 0, "a root beside root 1"),
        (activate, activated, "root 2", 0, "the change from root 1: activate"),
        (turn(RolloverStep::Finish, Vec::new()), vec![K::KeyUsed], "root 2", 0, "the change from root 1: finish"),
    ]
}

fn accept() -> Step {
    let rng = SystemRandom::new();
    let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng).expect("a key");
    let mut tree = Frontier::new();
    tree.append(leaf_hash(b"lost"), |_, _| {});
    let head = SignedTreeHead::sign([1; 16], &tree, 7, &key, &rng).expect("signs").to_bytes();
    let accept = AcceptHeads { heads: vec![head], reason: "the disk died".into() };
    (Action::AcceptHeads(accept), vec![LogKind::HeadAccepted], "", 1, "the disk died")
}

/// The entries of a command.
fn new_entries(bench: &mut Bench, action: Action) -> Vec<LogEntry> {
    let before = leaves(&bench.state).len();
    let outcome = bench.apply(by("ada", action));
    assert!(!matches!(outcome, Outcome::Conflict(_)), "{outcome:?}");
    entries(&bench.state).split_off(before)
}

#[test]
fn every_kind_of_entry_says_what_its_command_did_and_in_whose_name() {
    let mut bench = Bench::empty();
    bench.raise(LEDGER_LEVEL - 1);
    bench.done(Action::RaiseLevel(RaiseLevel { level: LEDGER_LEVEL, since: "0.1.0".into() }));
    let steps = [of_certificates(), of_policy(), of_controllers(), of_authorities(), vec![accept()]].concat();
    for (action, kinds, what, number, detail) in steps {
        let of = format!("{action:?}");
        let action = match action {
            // The lists go up to what was revoked by then.
            Action::EraseRootKey(c) => {
                Action::EraseRootKey(EraseRootKey { last_revocation: bench.state.last_revocation(), ..c })
            }
            other => other,
        };
        let entries = new_entries(&mut bench, action);
        assert_eq!(entries.iter().map(LogEntry::kind).collect::<Vec<_>>(), kinds, "{of}");
        assert!(entries.iter().all(|entry| entry.actor == "ada" && !entry.source.is_empty()), "{of}: {entries:?}");
        let Some(first) = entries.first() else { continue };
        assert!([first.name.as_str(), first.serial.as_str()].contains(&what), "{of}: {first:?}");
        assert_eq!(first.number, number, "{of}");
        assert!(first.detail.starts_with(detail) && (!detail.is_empty() || first.detail.len() < 64), "{of}: {first:?}");
    }
    bench.state.begin_anew(1_000_000);
    let seen: std::collections::BTreeSet<i32> = entries(&bench.state).iter().map(|entry| entry.kind).collect();
    let all: std::collections::BTreeSet<i32> = (1..).take_while(|n| LogKind::try_from(*n).is_ok()).collect();
    assert_eq!(seen, all, "every kind there is: whoever adds one adds it here");
}

#[test]
fn what_a_revocation_takes_back_beside_certificates_is_in_the_log_with_the_reason() {
    use LogKind as K;
    let mut bench = bench();
    bench.done(token(1, NAME));
    bench.done(token(2, NAME));
    bench.done(token(3, "other.example.com"));
    assert!(matches!(bench.apply(intend(1, 1, NAME)), Outcome::Intended(_)));
    bench.done(queue(8));
    bench.done(decide(2, true, NAME));
    bench.done(put(NAME, 9));
    let machine = || Selector::Machine(NAME.into());
    // It has no certificate yet: what would bring it one is all there is.
    let new = new_entries(&mut bench, revoke_for(machine(), 1, "stolen at the fair"));
    let kinds: Vec<LogKind> = new.iter().map(LogEntry::kind).collect();
    assert_eq!(kinds, [K::CertificateAbandoned, K::TokenRevoked, K::TokenRevoked, K::RequestDenied, K::Other]);
    for entry in &new {
        assert!(entry.detail.contains("key-compromise (stolen at the fair)"), "{entry:?}");
        assert_eq!((entry.name.as_str(), entry.actor.as_str()), (NAME, "ada"));
    }
    let [abandoned, first, second, denied, _] = new.as_slice() else { panic!("{new:?}") };
    assert_eq!((abandoned.serial.as_str(), denied.number), ("11", 2));
    assert!(first.detail.starts_with("0101010101010101") && second.detail.starts_with("0202020202020202"));
    assert_eq!(bench.state.enroll_tokens.len(), 1, "what is of others stays");
    assert_eq!(new_entries(&mut bench, revoke_for(machine(), 1, "again")), [], "and nothing is said twice");
}

#[test]
fn a_key_that_is_not_here_is_not_said_to_have_been_used() {
    let mut bench = bench();
    for (action, kind) in [
        (use_key(KeyUse::Unspecified, 1), ConflictKind::Invalid),
        (use_key(KeyUse::Exported, 7), ConflictKind::NotFound),
        (use_key(KeyUse::Requested, 0), ConflictKind::NotFound),
    ] {
        assert!(matches!(bench.apply(action), Outcome::Conflict(c) if c.kind() == kind));
    }
    bench.done(add(1, EC));
    let Action::EraseRootKey(erase) = erase_root() else { panic!("another command") };
    bench.done(Action::EraseRootKey(EraseRootKey { last_revocation: bench.state.last_revocation(), ..erase }));
    let size = bench.state.log_tree().size();
    let away = bench.apply(use_key(KeyUse::Exported, 1));
    assert!(matches!(away, Outcome::Conflict(c) if c.kind() == ConflictKind::Precondition));
    assert_eq!(bench.state.log_tree().size(), size);
    let batch = CommandBatch {
        commands: vec![Command { request_id: Vec::new(), at_ms: 0, action: Some(use_key(KeyUse::BackedUp, 0)) }],
    };
    assert!(batch.is_known(LEDGER_LEVEL) && !batch.is_known(LEDGER_LEVEL - 1));
}
