//! The vectors of Certificate Transparency, a second tree after the letter of the RFC, and what a dishonest log does.

use std::cell::Cell;

use hex_literal::hex;
use proptest::prelude::*;

use super::*;
use crate::{KeyAlgorithm, KeyPair, SystemRandom};

type Stored = BTreeMap<NodeId, Hash>;

/// The eight entries that all implementations of RFC 6962 are tested with.
const ENTRIES: [&[u8]; 8] = [
    b"",
    b"\x00",
    b"\x10",
    b"\x20\x21",
    b"\x30\x31",
    b"\x40\x41\x42\x43",
    b"\x50\x51\x52\x53\x54\x55\x56\x57",
    b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
];

/// The roots of none, one, two... of them.
const ROOTS: [Hash; 9] = [
    hex!("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    hex!("6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
    hex!("fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
    hex!("aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
    hex!("d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
    hex!("4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"),
    hex!("76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"),
    hex!("ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"),
    hex!("5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
];

const N0: Hash = hex!("6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
const N1: Hash = hex!("96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7");
const N01: Hash = hex!("fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125");
const N23: Hash = hex!("5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e");
const N0123: Hash = hex!("d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7");
const N4: Hash = hex!("bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b");
const N45: Hash = hex!("0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a");
const N67: Hash = hex!("ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0");
const N4567: Hash = hex!("6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4");

fn grown(leaves: impl IntoIterator<Item = Hash>) -> (Frontier, Stored) {
    let (mut frontier, mut stored) = (Frontier::new(), Stored::new());
    for leaf in leaves {
        // Each subtree is complete once.
        frontier.append(leaf, |node, hash| assert_eq!(stored.insert(node, hash), None));
    }
    (frontier, stored)
}

fn leaves(n: u64) -> impl Iterator<Item = Hash> {
    (0..n).map(|i| leaf_hash(&i.to_be_bytes()))
}

/// RFC 6962 §2.1, word by word.
fn mth(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_root(),
        [only] => *only,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node_hash(&mth(left), &mth(right))
        }
    }
}

/// PATH(m, D[n]) of RFC 6962 §2.1.1.
fn path(m: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() <= 1 {
        return vec![];
    }
    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
    let (mut path, sibling) =
        if m < left.len() { (path(m, left), mth(right)) } else { (path(m - left.len(), right), mth(left)) };
    path.push(sibling);
    path
}

/// SUBPROOF(m, D[n], b) of RFC 6962 §2.1.2.
fn subproof(m: usize, leaves: &[Hash], whole: bool) -> Vec<Hash> {
    if m == leaves.len() {
        return if whole { vec![] } else { vec![mth(leaves)] };
    }
    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
    let (mut proof, sibling) = if m <= left.len() {
        (subproof(m, left, whole), mth(right))
    } else {
        (subproof(m - left.len(), right, false), mth(left))
    };
    proof.push(sibling);
    proof
}

#[test]
fn roots_are_those_of_certificate_transparency() {
    for (n, root) in ROOTS.iter().enumerate() {
        let (frontier, _) = grown(ENTRIES[..n].iter().map(|e| leaf_hash(e)));
        assert_eq!((frontier.size(), frontier.root()), (n as u64, *root));
    }
}

#[test]
fn proofs_are_those_of_certificate_transparency() {
    let (_, stored) = grown(ENTRIES.iter().map(|e| leaf_hash(e)));
    let inclusion: &[(u64, u64, &[Hash])] =
        &[(0, 1, &[]), (0, 8, &[N1, N23, N4567]), (5, 8, &[N4, N67, N0123]), (2, 3, &[N01]), (1, 5, &[N0, N23, N4])];
    for (index, size, proof) in inclusion {
        assert_eq!(inclusion_proof(&stored, *index, *size).unwrap(), *proof, "{index} in {size}");
        let leaf = leaf_hash(ENTRIES[*index as usize]);
        assert!(verify_inclusion(&leaf, *index, *size, proof, &ROOTS[*size as usize]));
    }
    let consistency: &[(u64, u64, &[Hash])] =
        &[(1, 1, &[]), (1, 8, &[N1, N23, N4567]), (6, 8, &[N45, N67, N0123]), (2, 5, &[N23, N4]), (0, 8, &[])];
    for (old, new, proof) in consistency {
        assert_eq!(consistency_proof(&stored, *old, *new).unwrap(), *proof, "{old} to {new}");
        assert!(verify_consistency(*old, *new, &ROOTS[*old as usize], &ROOTS[*new as usize], proof));
    }
}

#[test]
fn the_example_of_rfc_6962_section_2_1_3_has_the_proofs_that_it_says() {
    // d0..d6 are seven entries; a..f are their leaf hashes, g to l the nodes above, hash(k, l) the root.
    let d: Vec<Hash> = (0..7_u8).map(|i| leaf_hash(&[b'd', b'0' + i])).collect();
    let (a, b, c, e, f, j) = (d[0], d[1], d[2], d[4], d[5], d[6]);
    let (g, h, i) = (node_hash(&a, &b), node_hash(&c, &d[3]), node_hash(&e, &f));
    let (k, l) = (node_hash(&g, &h), node_hash(&i, &j));
    let (frontier, stored) = grown(d.iter().copied());
    assert_eq!(frontier.root(), node_hash(&k, &l));
    let path = |m| inclusion_proof(&stored, m, 7).unwrap();
    assert_eq!((path(0), path(3)), (vec![b, h, l], vec![c, g, l]));
    assert_eq!((path(4), path(6)), (vec![f, j, k], vec![i, k]));
    let proof = |m| consistency_proof(&stored, m, 7).unwrap();
    assert_eq!((proof(3), proof(4), proof(6)), (vec![c, d[3], g, l], vec![l], vec![i, j, k]));
}

#[test]
fn every_size_up_to_seventy_agrees_with_the_letter_of_the_rfc() {
    let all: Vec<Hash> = leaves(70).collect();
    let (_, stored) = grown(leaves(70));
    let mut frontier = Frontier::new();
    for new in 1..=all.len() {
        assert_eq!(frontier.append(all[new - 1], |_, _| ()), new as u64 - 1);
        let root = mth(&all[..new]);
        assert_eq!(frontier.root(), root);
        for index in 0..new {
            let proof = inclusion_proof(&stored, index as u64, new as u64).unwrap();
            assert_eq!(proof, path(index, &all[..new]));
            assert!(verify_inclusion(&all[index], index as u64, new as u64, &proof, &root));
        }
        for old in 1..=new {
            let proof = consistency_proof(&stored, old as u64, new as u64).unwrap();
            assert_eq!(proof, subproof(old, &all[..new], true));
            assert!(verify_consistency(old as u64, new as u64, &mth(&all[..old]), &root, &proof));
        }
    }
}

#[test]
fn a_frontier_is_kept_and_rebuilt() {
    let (frontier, stored) = grown(leaves(1_000));
    for size in (0..=1_000).step_by(37).chain([1_000]) {
        let rebuilt = Frontier::from_nodes(&stored, size).unwrap();
        let (fresh, _) = grown(leaves(size));
        assert_eq!(rebuilt, fresh);
        let bytes = rebuilt.to_bytes();
        assert_eq!(Frontier::from_bytes(&bytes).as_ref(), Some(&rebuilt));
        assert_eq!(Frontier::from_bytes(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Frontier::from_bytes(&[&bytes[..], &[0; 32]].concat()), None);
    }
    assert_eq!(Frontier::from_nodes(&stored, 1_000).unwrap(), frontier);
    assert_eq!(Frontier::from_nodes(&stored, 1_001), Err(ProofError::Missing(NodeId { level: 0, index: 1_000 })));
    assert_eq!(Frontier::from_nodes(&stored, u64::MAX), Err(ProofError::Range));
    let huge = [&(1_u64 << 60).to_be_bytes()[..], &[0; 32]].concat();
    assert_eq!(Frontier::from_bytes(&huge), None);
}

#[test]
fn rows_are_in_order_of_level_and_index() {
    let (_, stored) = grown(leaves(300));
    let keys: Vec<_> = stored.keys().map(|node| node.to_key()).collect();
    assert!(keys.is_sorted());
    assert!(stored.keys().zip(&keys).all(|(node, key)| NodeId::from_key(key) == Some(*node)));
    // 300 leaves and one row for each pair, each four, ...
    assert_eq!(stored.len(), 300 + 150 + 75 + 37 + 18 + 9 + 4 + 2 + 1);
    for wrong in [&[0; 8][..], &[0; 10], &[64, 0, 0, 0, 0, 0, 0, 0, 0], &[]] {
        assert_eq!(NodeId::from_key(wrong), None);
    }
}

/// A log of ten million entries of which nothing is stored: each leaf is the same, so a level has one hash.
struct Endless {
    levels: Vec<Hash>,
    reads: Cell<usize>,
}

impl Nodes for Endless {
    fn hash(&self, node: NodeId) -> Option<Hash> {
        self.reads.set(self.reads.get() + 1);
        self.levels.get(usize::from(node.level)).copied()
    }
}

#[test]
fn proofs_in_a_log_of_ten_million_entries_read_few_rows() {
    let mut levels = vec![leaf_hash(b"x")];
    (0..40).for_each(|level| levels.push(node_hash(&levels[level], &levels[level])));
    let log = Endless { levels, reads: Cell::new(0) };
    let n = 10_000_019;
    let root = |size| Frontier::from_nodes(&log, size).unwrap().root();
    for at in [0, 1, 4_194_304, 8_388_607, 8_388_608, 9_999_999, n - 1] {
        let (whole, before) = (root(n), root(at));
        log.reads.set(0);
        let proof = inclusion_proof(&log, at, n).unwrap();
        assert!(
            proof.len() <= 24 && log.reads.take() <= 24 + 12,
            "one for each sibling, the bits of the size for the last"
        );
        assert!(verify_inclusion(&leaf_hash(b"x"), at, n, &proof, &whole));
        assert!(!verify_inclusion(&leaf_hash(b"y"), at, n, &proof, &whole));
        let proof = consistency_proof(&log, at, n).unwrap();
        assert!(proof.len() <= 25 && log.reads.take() <= 25 + 12);
        assert!(verify_consistency(at, n, &before, &whole, &proof));
    }
}

#[test]
fn what_is_not_in_the_log_has_no_proof() {
    let (frontier, mut stored) = grown(leaves(10));
    for (index, size) in [(10, 10), (0, 0), (u64::MAX, u64::MAX), (0, u64::MAX)] {
        assert_eq!(inclusion_proof(&stored, index, size), Err(ProofError::Range));
        assert!(!verify_inclusion(&leaf_hash(b"x"), index, size, &[], &frontier.root()));
    }
    assert_eq!(consistency_proof(&stored, 5, 4), Err(ProofError::Range));
    assert_eq!(consistency_proof(&stored, 0, u64::MAX), Err(ProofError::Range));
    assert!(matches!(inclusion_proof(&stored, 3, 11), Err(ProofError::Missing(_))));
    let gone = NodeId { level: 1, index: 0 };
    stored.remove(&gone);
    assert_eq!(inclusion_proof(&stored, 3, 10), Err(ProofError::Missing(gone)));
    assert!(ProofError::Missing(gone).to_string().contains("subtree 0 at level 1"));
    assert!(!verify_consistency(0, 5, &ROOTS[1], &ROOTS[5], &[]), "the empty tree has one root");
    assert!(!verify_consistency(0, u64::MAX, &ROOTS[0], &ROOTS[5], &[]));
    assert!(!verify_consistency(3, 3, &ROOTS[3], &ROOTS[3], &[ROOTS[3]]));
    assert!(verify_consistency(0, 0, &ROOTS[0], &ROOTS[0], &[]));
}

#[test]
fn a_proof_travels_as_bytes() {
    let (_, stored) = grown(leaves(100));
    let proof = consistency_proof(&stored, 37, 100).unwrap();
    assert_eq!(proof_from_bytes(&proof_to_bytes(&proof)), Some(proof));
    assert_eq!(proof_from_bytes(&[0; 31]), None);
    assert_eq!(proof_from_bytes(&[0; 32 * (MAX_PROOF + 1)]), None);
}

fn key() -> KeyPair {
    KeyPair::generate(KeyAlgorithm::EcdsaP256, &SystemRandom::new()).unwrap()
}

/// The head of a log of these leaves; its time is that of the size.
fn head(leaves: &[Hash], key: &KeyPair) -> SignedTreeHead {
    head_at(leaves, leaves.len() as u64 * 1_000, key)
}

fn head_at(leaves: &[Hash], time_ms: u64, key: &KeyPair) -> SignedTreeHead {
    SignedTreeHead::sign([7; 16], &grown(leaves.iter().copied()).0, time_ms, key, &SystemRandom::new()).unwrap()
}

fn proof(leaves: &[Hash], old: usize) -> Vec<Hash> {
    consistency_proof(&grown(leaves.iter().copied()).1, old as u64, leaves.len() as u64).unwrap()
}

#[test]
fn a_head_is_signed_by_each_kind_of_key() {
    let all: Vec<Hash> = leaves(5).collect();
    for algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384, KeyAlgorithm::Rsa2048] {
        let key = KeyPair::generate(algorithm, &SystemRandom::new()).unwrap();
        let head = head(&all, &key);
        let bytes = head.to_bytes();
        assert_eq!(SignedTreeHead::from_bytes(&bytes).unwrap(), head);
        assert_eq!(head.verify(&[self::key().public_key(), key.public_key()]), Ok(()));
        assert_eq!(head.verify(&[self::key().public_key()]), Err(HeadError::OtherKey));
        for at in 0..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[at] ^= 1;
            let refused = SignedTreeHead::from_bytes(&wrong).and_then(|head| head.verify(&[key.public_key()]));
            assert!(refused.is_err(), "octet {at}");
        }
    }
}

#[test]
fn a_head_has_one_encoding() {
    let tree = grown(ENTRIES.iter().map(|e| leaf_hash(e))).0;
    let key = key();
    let signed = SignedTreeHead::sign([0xab; 16], &tree, 0x0102_0304, &key, &SystemRandom::new()).unwrap();
    let bytes = signed.to_bytes();
    assert_eq!(bytes[..16], [0xab; 16]);
    assert_eq!(bytes[16..24], [0, 0, 0, 0, 0, 0, 0, 8]);
    assert_eq!(bytes[24..56], ROOTS[8]);
    assert_eq!(bytes[56..64], [0, 0, 0, 0, 1, 2, 3, 4]);
    assert_eq!(bytes[64..96], key_id(&key.public_key()));
    // What is signed is told apart from all else that a key signs.
    let body = [&b"sallyport tree head v1\0"[..], &bytes[..96]].concat();
    assert!(key.public_key().verifies(&body, &signed.signature));
    assert!(!key.public_key().verifies(&bytes[..96], &signed.signature));
    let longer = [&bytes[..], &[0]].concat();
    for wrong in [&bytes[..95], &bytes[..bytes.len() - 1], &longer, &[]] {
        assert_eq!(SignedTreeHead::from_bytes(wrong), Err(HeadError::Malformed));
    }
    let mut huge = bytes;
    huge[16] = 1;
    assert_eq!(SignedTreeHead::from_bytes(&huge), Err(HeadError::Malformed));
}

#[test]
fn a_witness_follows_an_honest_log() {
    let (key, all) = (key(), leaves(60).collect::<Vec<_>>());
    let keys = [key.public_key()];
    let mut witness = Witness::new();
    assert_eq!(witness.judge(&head(&[], &key), &[], &keys), Ok(Verdict::First));
    assert_eq!(witness.judge(&head(&all[..1], &key), &[], &keys), Ok(Verdict::Grown));
    let mut known = 1;
    for size in [1, 2, 3, 7, 8, 9, 31, 32, 33, 60] {
        let verdict = if size == known { Verdict::Same } else { Verdict::Grown };
        assert_eq!(witness.judge(&head(&all[..size], &key), &proof(&all[..size], known), &keys), Ok(verdict));
        assert_eq!(witness.judge(&head(&all[..size], &key), &[], &keys), Ok(Verdict::Same));
        assert_eq!(Witness::from_bytes(&witness.to_bytes()), Ok(witness.clone()));
        known = size;
    }
    // Another controller that is behind: with a proof or without.
    assert_eq!(witness.judge(&head(&all[..50], &key), &proof(&all, 50), &keys), Ok(Verdict::Older));
    assert_eq!(witness.judge(&head(&all[..50], &key), &[], &keys), Ok(Verdict::Older));
    assert_eq!(witness.newest(&[7; 16]).unwrap().head.size, 60);
    assert_eq!(witness.newest(&[8; 16]), None);
    // After a change of keys the old head still counts.
    let next = self::key();
    let both = [key.public_key(), next.public_key()];
    assert_eq!(witness.judge(&head(&all, &next), &[], &keys), Err(HeadError::OtherKey.into()));
    assert_eq!(witness.judge(&head(&all, &next), &[], &both), Ok(Verdict::Same));
}

#[test]
fn a_log_that_was_rolled_back_is_found_with_evidence() {
    let (key, all) = (key(), leaves(40).collect::<Vec<_>>());
    let keys = [key.public_key()];
    let mut witness = Witness::new();
    witness.judge(&head(&all[..30], &key), &[], &keys).unwrap();
    // A backup of 20 entries was brought back, and the log goes on: its first head is an old one, the next is not.
    assert_eq!(witness.judge(&head(&all[..20], &key), &proof(&all[..30], 20), &keys), Ok(Verdict::Older));
    let later = head_at(&all[..25], 31_000, &key);
    let Ok(Verdict::RolledBack(evidence)) = witness.judge(&later, &[], &keys) else { panic!() };
    assert_eq!((evidence.known.head.size, &evidence.shown), (30, &later));
    let told = Evidence::from_bytes(&evidence.to_bytes()).unwrap();
    assert_eq!(told, *evidence);
    assert_eq!(told.finding(&keys), Ok(Some(Finding::RolledBack)));
    assert_eq!(told.finding(&[self::key().public_key()]), Err(HeadError::OtherKey));
    assert_eq!(witness.newest(&[7; 16]).unwrap().head.size, 30, "it is not talked out of what it saw");
    // More entries, but earlier: time was set back.
    let back = head_at(&all, 1_000, &key);
    assert!(matches!(witness.judge(&back, &proof(&all, 30), &keys), Ok(Verdict::RolledBack(_))));
    // The operator says that it was he.
    assert_eq!(witness.forget(&[7; 16]).unwrap().head.size, 30);
    assert_eq!(witness.judge(&later, &[], &keys), Ok(Verdict::First));
}

#[test]
fn a_log_that_is_two_is_found_with_evidence() {
    let key = key();
    let keys = [key.public_key()];
    let honest: Vec<Hash> = leaves(40).collect();
    for changed in [0, 10, 29] {
        let mut other = honest.clone();
        other[changed] = leaf_hash(b"something else");
        let mut witness = Witness::new();
        witness.judge(&head(&honest[..30], &key), &[], &keys).unwrap();
        let forked = |shown: &SignedTreeHead, proof: &[Hash], witness: &mut Witness| {
            match witness.judge(shown, proof, &keys) {
                Ok(Verdict::Forked(evidence)) => {
                    assert_eq!(evidence.finding(&keys), Ok(Some(Finding::Forked)));
                    assert_eq!(evidence.shown, *shown);
                }
                verdict => panic!("{verdict:?}"),
            }
            assert_eq!(witness.newest(&[7; 16]).unwrap().head.root, mth(&honest[..30]));
        };
        forked(&head(&other[..30], &key), &[], &mut witness);
        // A good proof of the other log shows that it began otherwise.
        forked(&head(&other, &key), &proof(&other, 30), &mut witness);
        // One that was made up shows nothing, and is not believed either.
        for bad in [vec![], proof(&honest, 30), proof(&other, 29), vec![[0; 32]; 70]] {
            let Err(WitnessError::Unproven(evidence)) = witness.judge(&head(&other, &key), &bad, &keys) else {
                panic!()
            };
            assert_eq!(evidence.finding(&keys), Ok(None));
            assert!(Evidence::from_bytes(&evidence.to_bytes()).is_some());
        }
        // Smaller than what is known, and not how that began.
        if changed < 20 {
            let mut witness = Witness::new();
            witness.judge(&head(&honest, &key), &[], &keys).unwrap();
            let shown = head(&other[..21], &key);
            assert!(matches!(witness.judge(&shown, &proof(&honest, 21), &keys), Ok(Verdict::Forked(_))));
        }
    }
}

#[test]
fn what_is_not_signed_changes_nothing_and_a_witness_is_bounded() {
    let (key, all) = (key(), leaves(4).collect::<Vec<_>>());
    let keys = [key.public_key()];
    let mut witness = Witness::new();
    let mut forged = head(&all, &key);
    forged.head.size = 5;
    assert_eq!(witness.judge(&forged, &[], &keys), Err(HeadError::Signature.into()));
    assert_eq!(witness, Witness::new());
    let tree = grown(all.iter().copied()).0;
    let of = |n: u8| SignedTreeHead::sign([n; 16], &tree, 1, &key, &SystemRandom::new()).unwrap();
    (0..MAX_LOGS as u8).for_each(|n| assert_eq!(witness.judge(&of(n), &[], &keys), Ok(Verdict::First)));
    assert_eq!(witness.judge(&of(99), &[], &keys), Err(WitnessError::TooMany));
    assert_eq!(witness.judge(&of(3), &[], &keys), Ok(Verdict::Same));
    let bytes = witness.to_bytes();
    assert_eq!(Witness::from_bytes(&bytes), Ok(witness));
    for wrong in [&bytes[1..], &bytes[..bytes.len() - 1], &[&bytes[..], &of(99).to_bytes()].concat()] {
        assert_eq!(Witness::from_bytes(wrong), Err(HeadError::Malformed));
    }
    assert_eq!(
        Witness::from_bytes(&[of(1).to_bytes(), of(1).to_bytes()].concat()),
        Err(HeadError::Malformed),
        "one twice"
    );
    // Heads of two logs say nothing about each other.
    let evidence = Evidence { known: of(1), shown: of(2), proof: vec![] };
    assert_eq!(evidence.finding(&keys), Ok(None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn each_prefix_is_consistent_and_each_leaf_included(new in 1_u64..3_000, a in any::<u64>(), b in any::<u64>()) {
        let (frontier, stored) = grown(leaves(new));
        let (index, old) = (a % new, b % (new + 1));
        let leaf = leaf_hash(&index.to_be_bytes());
        let inclusion = inclusion_proof(&stored, index, new).unwrap();
        prop_assert!(verify_inclusion(&leaf, index, new, &inclusion, &frontier.root()));
        let before = Frontier::from_nodes(&stored, old).unwrap().root();
        let consistency = consistency_proof(&stored, old, new).unwrap();
        prop_assert!(verify_consistency(old, new, &before, &frontier.root(), &consistency));
        prop_assert!(inclusion.len() <= 12 && consistency.len() <= 13);
    }

    #[test]
    fn any_bit_that_is_turned_is_found(new in 2_u64..300, a in any::<u64>(), b in any::<u64>(), bit in any::<usize>()) {
        let (frontier, stored) = grown(leaves(new));
        let (index, old, root) = (a % new, 1 + b % (new - 1), frontier.root());
        let flip = |hash: &Hash| {
            let mut hash = *hash;
            hash[bit / 8 % 32] ^= 1 << (bit % 8);
            hash
        };
        let leaf = leaf_hash(&index.to_be_bytes());
        let proof = inclusion_proof(&stored, index, new).unwrap();
        prop_assert!(!verify_inclusion(&flip(&leaf), index, new, &proof, &root));
        prop_assert!(!verify_inclusion(&leaf, index, new, &proof, &flip(&root)));
        prop_assert!(!verify_inclusion(&leaf, index ^ 1, new, &proof, &root));
        for at in 0..proof.len() {
            let mut wrong = proof.clone();
            wrong[at] = flip(&wrong[at]);
            prop_assert!(!verify_inclusion(&leaf, index, new, &wrong, &root));
            wrong.remove(at);
            prop_assert!(!verify_inclusion(&leaf, index, new, &wrong, &root));
        }
        prop_assert!(!verify_inclusion(&leaf, index, new, &[&proof[..], &[root]].concat(), &root));
        let before = Frontier::from_nodes(&stored, old).unwrap().root();
        let proof = consistency_proof(&stored, old, new).unwrap();
        prop_assert!(!verify_consistency(old, new, &flip(&before), &root, &proof));
        prop_assert!(!verify_consistency(old, new, &before, &flip(&root), &proof));
        for at in 0..proof.len() {
            let mut wrong = proof.clone();
            wrong[at] = flip(&wrong[at]);
            prop_assert!(!verify_consistency(old, new, &before, &root, &wrong));
            wrong.remove(at);
            prop_assert!(!verify_consistency(old, new, &before, &root, &wrong));
        }
        prop_assert!(!verify_consistency(old, new, &before, &root, &[&proof[..], &[root]].concat()));
    }

    #[test]
    fn nothing_that_arrives_makes_a_witness_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), size in any::<u64>()) {
        let _ = (SignedTreeHead::from_bytes(&bytes), Frontier::from_bytes(&bytes), Witness::from_bytes(&bytes));
        let _ = (Evidence::from_bytes(&bytes), proof_from_bytes(&bytes), NodeId::from_key(&bytes));
        let (proof, _) = bytes.as_chunks::<32>();
        let old = size.rotate_left(7);
        prop_assert!(!verify_inclusion(&ROOTS[1], old, size, proof, &ROOTS[2]));
        prop_assert!(!verify_consistency(old, size, &ROOTS[1], &ROOTS[2], proof));
    }
}
