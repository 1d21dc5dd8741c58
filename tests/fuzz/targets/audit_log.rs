//! What a log says of itself and what a person types: tree heads, proofs, a witness's memory, evidence, shares of a key.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_ca::merkle::{
    Answer, Evidence, Follower, Frontier, NodeId, SignedTreeHead, Witness, proof_from_bytes, verify_consistency, verify_inclusion,
};
use sallyport_ca::shares::Share;

fuzz_target!(|data: &[u8]| {
    if let Ok(head) = SignedTreeHead::from_bytes(data) {
        assert_eq!(head.to_bytes(), data);
    }
    if let Some(tree) = Frontier::from_bytes(data) {
        assert_eq!(tree.to_bytes(), data);
        let mut grown = tree.clone();
        grown.append(tree.root(), |_, _| ());
    }
    if let Ok(witness) = Witness::from_bytes(data) {
        // The heads come back in the order of their clusters.
        assert_eq!(Witness::from_bytes(&witness.to_bytes()), Ok(witness));
    }
    if let Some(evidence) = Evidence::from_bytes(data) {
        assert_eq!(evidence.to_bytes(), data);
    }
    // What a hostile controller says, whose authorities are none of ours.
    let (head, rest) = data.split_at(data.len().min(200));
    let (issuers, mut follower) = ([rest.to_vec()], Follower::default());
    let _ = follower.follow(&Answer { head, proof: rest, issuers: &issuers, accepted: &issuers }, &[]);
    assert_eq!(follower.known(), None);
    if let Some(node) = NodeId::from_key(data) {
        assert_eq!(node.to_key(), data);
    }
    if let Some((sizes, rest)) = data.split_first_chunk::<16>()
        && let (old, new) = ((u128::from_be_bytes(*sizes) >> 64) as u64, u128::from_be_bytes(*sizes) as u64)
        && let Some((roots, proof)) = rest.split_first_chunk::<64>()
        && let ([first, second], _) = roots.as_chunks::<32>()
        && let Some(proof) = proof_from_bytes(proof)
    {
        let _ = verify_inclusion(first, old, new, &proof, second);
        let _ = verify_consistency(old, new, first, second, &proof);
    }
    if let Ok(text) = core::str::from_utf8(data)
        && let Ok(share) = Share::parse(text)
    {
        assert!(Share::parse(&share.to_text()).is_ok());
    }
});
