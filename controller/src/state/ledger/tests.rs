use std::collections::BTreeMap;

use proptest::prelude::*;
use sallyport_ca::merkle::{
    Frontier, Hash, NodeId, Nodes, SignedTreeHead, consistency_proof, empty_root, inclusion_proof, leaf_hash,
    node_hash, verify_consistency, verify_inclusion,
};
use sallyport_ca::{KeyAlgorithm, KeyPair, SystemRandom};
use sallyport_proto::v1::{self, LogEntry, LogKind};

use super::super::tests::{Bench, machine_record};
use super::super::*;
use super::*;

mod kinds;

fn bench() -> Bench {
    let mut bench = Bench::empty();
    bench.raise(LEDGER_LEVEL);
    bench
}

/// The tree of RFC 6962 §2.1 as it is written there.
fn naive(leaves: &[Vec<u8>]) -> Hash {
    match leaves {
        [] => empty_root(),
        [leaf] => leaf_hash(leaf),
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node_hash(&naive(left), &naive(right))
        }
    }
}

fn leaves(state: &State) -> Vec<Vec<u8>> {
    let rows = state.rows().into_iter().filter(|(key, _)| key.first() == Some(&LEAVES));
    rows.map(|(_, value)| leaf_of(&value).expect("a leaf").to_vec()).collect()
}

fn entries(state: &State) -> Vec<LogEntry> {
    leaves(state).iter().map(|leaf| LogEntry::decode(leaf.as_slice()).expect("an entry")).collect()
}

fn kinds(state: &State) -> Vec<LogKind> {
    entries(state).iter().map(LogEntry::kind).collect()
}

fn stored(rows: &BTreeMap<Vec<u8>, Vec<u8>>) -> impl Nodes + '_ {
    StoredTree(|key: &[u8]| rows.get(key).cloned())
}

fn token(id: u8, name: &str) -> Action {
    Action::CreateEnrollToken(CreateEnrollToken {
        id: vec![id; 8],
        hash: vec![id; 32],
        profile: "machine".into(),
        name: name.into(),
        ttl_ms: 60_000,
        uses: 1,
        made_by: "ada".into(),
        ..CreateEnrollToken::default()
    })
}

fn record(serial: &str) -> Action {
    let key_algorithm = v1::KeyAlgorithm::EcdsaP256.into();
    let record = CertificateRow { key_algorithm, not_after_ms: 86_400_000, ..machine_record(serial) };
    Action::RecordCertificate(RecordCertificate { record: Some(record), answer: Vec::new() })
}

fn revoke(serial: &str) -> Action {
    Action::RevokeCertificate(RevokeCertificate { serial: serial.into(), reason: "stolen".into() })
}

fn refused(id: u8, cause: &str) -> Action {
    let attempt = v1::Attempt {
        id: vec![id; 16],
        remote: "198.51.100.9".into(),
        phase: v1::Phase::Enrollment.into(),
        outcome: v1::Outcome::Refused.into(),
        cause: cause.into(),
        ..v1::Attempt::default()
    };
    Action::RecordAttempts(RecordAttempts { attempts: vec![attempt], ..RecordAttempts::default() })
}

fn by(name: &str, action: Action) -> Action {
    Action::Attributed(Attributed {
        actor: name.into(),
        actor_serial: "0a".into(),
        source: "192.0.2.1".into(),
        action: Some(Box::new(Command { request_id: Vec::new(), at_ms: 0, action: Some(action) })),
    })
}

#[test]
fn each_thing_that_happens_is_an_entry_with_its_time_and_whoever_did_it() {
    let mut bench = bench();
    bench.done(by("ada", token(1, "laptop7.example.com")));
    bench.done(record("0a"));
    bench.done(by("ada", revoke("0a")));
    bench.done(refused(1, "a token that is not known"));
    bench.done(refused(1, "the same report again"));
    // What a gateway says of itself is no entry, or a hostile one would fill the disks of all controllers for good.
    let Action::RecordAttempts(mut of_gateway) = refused(2, "invented") else { panic!("attempts") };
    of_gateway.attempts[0].gateway = "gw1".into();
    bench.done(Action::RecordAttempts(of_gateway));
    bench.done(Action::QueueRequest(QueueRequest {
        key_sha256: vec![4; 32],
        claims: "boss\u{202e}".into(),
        source: "198.51.100.9".into(),
        profile: "machine".into(),
        ..QueueRequest::default()
    }));
    bench.done(by("eve", Action::DecideRequest(DecideRequest { number: 1, ..DecideRequest::default() })));
    bench.done(by("ada", Action::RevokeEnrollToken(RevokeEnrollToken { id: vec![1; 8] })));
    bench.done(Action::SetPsk(SetPsk { sealed: vec![1] }));
    use LogKind as K;
    let expected = [
        K::TokenMade,
        K::CertificateIssued,
        K::CertificateRevoked,
        K::CertificateRefused,
        K::RequestQueued,
        K::RequestDenied,
        K::TokenRevoked,
        K::PskSet,
    ];
    assert_eq!(kinds(&bench.state), expected);
    let entries = entries(&bench.state);
    assert!(entries.is_sorted_by_key(|entry| entry.time_unix_ms) && entries.iter().all(|e| e.version == 1));
    assert_eq!(bench.state.log_time_ms(), bench.state.now_ms());
    let [made, issued, revoked, refused, ..] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!((made.actor.as_str(), made.actor_serial.as_str(), made.source.as_str()), ("ada", "0a", "192.0.2.1"));
    assert_eq!((made.name.as_str(), made.detail.as_str()), ("laptop7.example.com", "0101010101010101"));
    assert_eq!((issued.serial.as_str(), issued.profile.as_str(), issued.actor.as_str()), ("0a", "machine", ""));
    assert_eq!((revoked.serial.as_str(), revoked.detail.as_str(), revoked.actor.as_str()), ("0a", "stolen", "ada"));
    assert_eq!((refused.source.as_str(), refused.detail.as_str()), ("198.51.100.9", "a token that is not known"));
    // What changes nothing is nothing.
    bench.apply(revoke("ff"));
    bench.done(by("ada", revoke("0a")));
    assert_eq!(bench.state.log_tree().size(), expected.len() as u64);
}

#[test]
fn below_its_level_there_is_no_log_and_the_first_entry_says_what_was_before() {
    let mut bench = Bench::empty();
    bench.raise(LEDGER_LEVEL - 1);
    let before = bench.state.rows();
    bench.done(record("0a"));
    assert_eq!((bench.state.log_tree().size(), leaves(&bench.state).len()), (0, 0));
    assert!(bench.state.rows().iter().all(|(key, _)| !matches!(key.first(), Some(&(LEAVES | NODES | TREE)))));
    assert!(before.len() < bench.state.rows().len());
    bench.done(Action::RaiseLevel(RaiseLevel { level: LEDGER_LEVEL, since: "0.1.0".into() }));
    let [begun] = entries(&bench.state).try_into().expect("one entry");
    assert_eq!((begun.kind(), begun.number), (LogKind::Begun, 2), "the root's certificate and the machine's");
}

#[test]
fn a_change_in_two_names_is_none() {
    let mut bench = bench();
    let twice = by("ada", by("eve", record("0a")));
    assert!(matches!(bench.apply(twice), Outcome::Conflict(c) if c.kind() == ConflictKind::Invalid));
    let empty = Command { request_id: vec![9; 16], at_ms: 0, action: Some(Action::Attributed(Attributed::default())) };
    assert!(
        !CommandBatch { commands: vec![empty.clone()] }.is_known(LEDGER_LEVEL),
        "a node stops at what it cannot read"
    );
    assert!(matches!(bench.state.apply(&empty).outcome, Some(Outcome::Conflict(_))));
    let named = Command { action: Some(by("ada", record("0b"))), ..empty };
    assert!(CommandBatch { commands: vec![named.clone()] }.is_known(LEDGER_LEVEL));
    assert!(!CommandBatch { commands: vec![named] }.is_known(LEDGER_LEVEL - 1));
    assert_eq!(bench.state.log_tree().size(), 0);
}

#[test]
fn beside_a_store_the_leaves_are_in_the_store_and_the_tree_goes_on_after_a_restart() {
    let mut whole = bench();
    for n in 0..40_u8 {
        whole.done(token(n, "laptop7.example.com"));
    }
    let mut rows: BTreeMap<Vec<u8>, Vec<u8>> = whole.state.rows().into_iter().collect();
    let mut loading = State::loading_beside_store();
    rows.iter().try_for_each(|(key, value)| loading.row(key, value)).expect("loads");
    let mut lean = loading.end();
    assert!(leaves(&lean).is_empty(), "they take no memory");
    assert_eq!(lean.log_tree(), whole.state.log_tree());
    for n in 40..60_u8 {
        let command = Command { request_id: vec![n; 16], at_ms: 5_000, action: Some(token(n, "laptop8.example.com")) };
        assert_eq!(lean.apply(&command), whole.state.apply(&command));
        for op in lean.take_changes() {
            match op {
                crate::raft::kv::Op::Put(_, key, value) => drop(rows.insert(key, value)),
                crate::raft::kv::Op::Del(_, key) => drop(rows.remove(&key)),
                crate::raft::kv::Op::DelRange(..) => panic!("no range"),
            }
        }
    }
    assert_eq!(rows.into_iter().collect::<Vec<_>>(), whole.state.rows(), "byte for byte");
}

#[test]
fn a_byte_of_a_leaf_or_node_that_was_changed_is_found() {
    let mut bench = bench();
    for n in 0..70_u8 {
        bench.done(token(n, "laptop7.example.com"));
    }
    let (root, size) = (bench.state.log_tree().root(), bench.state.log_tree().size());
    let whole = bench.state.ledger.kept().clone();
    let keys: Vec<Vec<u8>> = whole.keys().cloned().collect();
    let old = Frontier::from_nodes(&stored(&whole), 5).expect("a tree").root();
    for key in keys {
        let mut rows = whole.clone();
        let at = rows.get(&key).map_or(0, Vec::len) / 2;
        *rows.get_mut(&key).and_then(|row| row.get_mut(at)).expect("a byte") ^= 1;
        let leaves: Vec<Vec<u8>> =
            rows.iter().filter(|(k, _)| k.first() == Some(&LEAVES)).map(|(_, v)| v[1..].to_vec()).collect();
        let whole_tree = naive(&leaves) != root;
        // A node that was changed shows in what is proven by it.
        let tree = Frontier::from_nodes(&stored(&rows), size).map_or(true, |tree| tree.root() != root);
        let proofs = (0..size).any(|index| {
            let proof = inclusion_proof(&stored(&rows), index, size).expect("a proof");
            let leaf = leaf_hash(leaves.get(usize::try_from(index).unwrap_or(0)).expect("a leaf"));
            !verify_inclusion(&leaf, index, size, &proof, &root)
        });
        let proof = consistency_proof(&stored(&rows), 5, size).expect("a proof");
        let consistent = verify_consistency(5, size, &old, &root, &proof);
        let is_leaf = key.first() == Some(&LEAVES);
        assert!(if is_leaf { whole_tree } else { tree || proofs || !consistent }, "{key:02x?}");
    }
}

#[test]
fn a_restored_state_says_so_and_what_was_lost_is_known_to_be_none_of_it_once_an_operator_says_so() {
    let mut bench = bench();
    bench.done(record("0a"));
    let mut state = State::from_bytes(&bench.state.to_bytes()).expect("a backup");
    state.begin_anew(1_000_000);
    let entries = entries(&state);
    let last = entries.last().expect("an entry");
    assert_eq!((last.kind(), last.number, last.time_unix_ms), (LogKind::Restored, 1, 1_000_000));

    let (rng, cluster) = (SystemRandom::new(), [1; 16]);
    let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng).expect("a key");
    let head = |tree: &Frontier, cluster| SignedTreeHead::sign(cluster, tree, 7, &key, &rng).expect("signs").to_bytes();
    bench.state = state;
    let lost = head(bench.state.log_tree(), cluster);
    let accept = |heads| Action::AcceptHeads(AcceptHeads { heads, reason: "the disk died".into() });
    for wrong in [vec![], vec![vec![1, 2, 3]], vec![head(bench.state.log_tree(), [9; 16])]] {
        assert!(matches!(bench.apply(accept(wrong)), Outcome::Conflict(_)));
    }
    bench.done(by("ada", accept(vec![lost.clone()])));
    assert!(bench.state.accepts_head(&lost) && bench.state.ledger.accepted() == 1);
    let edge = |state: &State| state.rows().into_iter().find(|(key, _)| *key == [TREE]).expect("the edge").1.len();
    let edge_before = edge(&bench.state);
    let last = entries_last(&bench.state);
    assert_eq!(
        (last.kind(), last.actor.as_str(), last.detail.as_str()),
        (LogKind::HeadAccepted, "ada", "the disk died")
    );
    // Each gateway that there can be holds another one.
    let heads: Vec<Vec<u8>> = (0..MAX_ACCEPTED as u64)
        .map(|n| {
            let mut tree = Frontier::new();
            tree.append(leaf_hash(&n.to_be_bytes()), |_, _| {});
            head(&tree, cluster)
        })
        .collect();
    assert!(MAX_ACCEPTED > MAX_SLOT as usize);
    assert!(matches!(bench.apply(accept(heads[..=MAX_HEADS].to_vec())), Outcome::Conflict(_)), "not in one command");
    bench.state.take_changes();
    let mut rows: BTreeMap<Vec<u8>, Vec<u8>> = bench.state.rows().into_iter().collect();
    for some in heads.chunks(MAX_HEADS) {
        bench.done(accept(some.to_vec()));
        bench.done(accept(some[..1].to_vec()));
    }
    assert_eq!((bench.state.ledger.accepted(), bench.state.accepts_head(&lost)), (MAX_ACCEPTED, false));
    assert!(heads.iter().all(|head| bench.state.accepts_head(head)));
    assert!(edge(&bench.state) < edge_before + 512, "the row that is written with every entry stays small");
    for op in bench.state.take_changes() {
        match op {
            crate::raft::kv::Op::Put(_, key, value) => drop(rows.insert(key, value)),
            crate::raft::kv::Op::Del(_, key) => drop(rows.remove(&key)),
            crate::raft::kv::Op::DelRange(..) => panic!("no range"),
        }
    }
    assert_eq!(rows.into_iter().collect::<Vec<_>>(), bench.state.rows(), "and what is stored follows");
    let again = State::from_rows(bench.state.rows()).expect("reads");
    assert!(again.rows() == bench.state.rows() && again.accepts_head(&heads[7]) && !again.accepts_head(&lost));
}

fn entries_last(state: &State) -> LogEntry {
    entries(state).pop().expect("an entry")
}

fn action() -> impl Strategy<Value = Action> {
    let serial = || prop::sample::select(vec!["01", "02", "03", "04"]);
    prop_oneof![
        (0..6_u8).prop_map(|id| token(id, "laptop7.example.com")),
        (0..6_u8).prop_map(|id| Action::RevokeEnrollToken(RevokeEnrollToken { id: vec![id; 8] })),
        serial().prop_map(record),
        serial().prop_map(revoke),
        serial().prop_map(|serial| by("ada", revoke(serial))),
        (0..9_u8).prop_map(|id| refused(id, "no")),
        (0..4_u8).prop_map(|n| Action::QueueRequest(QueueRequest { key_sha256: vec![n; 32], ..Default::default() })),
        (0..5_u64, any::<bool>()).prop_map(|(number, approve)| {
            let name = "laptop7.example.com".into();
            Action::DecideRequest(DecideRequest { number, approve, name, ..DecideRequest::default() })
        }),
        Just(Action::SetPsk(SetPsk { sealed: vec![1] })),
        Just(Action::ClearPsk(ClearPsk {})),
        Just(Action::RevokeTokens(RevokeTokens {})),
        Just(Action::AddUser(AddUser { key: "ada".into(), ..AddUser::default() })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_tree_of_apply_is_the_naive_tree_of_its_leaves(actions in prop::collection::vec(action(), 1..80), cut in 0..80_usize) {
        let mut bench = bench();
        for action in actions {
            bench.apply(action);
        }
        let (leaves, state) = (leaves(&bench.state), &mut bench.state);
        prop_assert_eq!(state.log_tree().size(), leaves.len() as u64);
        prop_assert_eq!(state.log_tree().root(), naive(&leaves));
        // What is stored gives the same trees, of all sizes, and the proofs between them.
        let (rows, size) = (state.ledger.kept().clone(), leaves.len() as u64);
        prop_assert_eq!(&Frontier::from_nodes(&stored(&rows), size).expect("a tree"), state.log_tree());
        let old = cut.min(leaves.len());
        let old_root = naive(&leaves[..old]);
        prop_assert_eq!(Frontier::from_nodes(&stored(&rows), old as u64).expect("a tree").root(), old_root);
        let proof = consistency_proof(&stored(&rows), old as u64, size).expect("a proof");
        prop_assert!(verify_consistency(old as u64, size, &old_root, &state.log_tree().root(), &proof));
        prop_assert!(rows.keys().all(|key| key[0] == LEAVES || NodeId::from_key(&key[1..]).is_some_and(|n| n.level >= 4)));
        // Any other node has the same.
        let loaded = State::from_bytes(&state.to_bytes()).expect("loads");
        prop_assert_eq!(loaded.log_tree(), state.log_tree());
    }
}

#[test]
fn what_operators_say_of_gateways_is_an_entry() {
    let mut bench = bench();
    let name = "gw1.example.com";
    let names =
        |names: &[&str]| SetGatewayNames { name: name.into(), names: names.iter().map(|n| (*n).to_owned()).collect() };
    bench.done(by("ada", Action::SetGatewayNames(names(&["VPN.example.com", "192.0.2.1"]))));
    bench.done(by("ada", Action::SetGatewayNames(names(&[]))));
    bench.register(name, 1);
    bench.done(by("eve", Action::RemoveGateway(RemoveGateway { name: name.into() })));
    let entries = entries(&bench.state);
    let of_it: Vec<_> = entries.iter().filter(|e| e.name == "gateway gw1.example.com").collect();
    let said: Vec<_> = of_it.iter().map(|e| (e.kind(), e.actor.as_str(), e.detail.as_str())).collect();
    assert_eq!(
        said,
        [
            (LogKind::Other, "ada", "public names: vpn.example.com, 192.0.2.1"),
            (LogKind::Other, "ada", "no public names of its own"),
            (LogKind::Other, "eve", "it was removed"),
        ]
    );
}
