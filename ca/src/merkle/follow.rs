//! Following one log from answer to answer: what a gateway does, and an operator's tool.

use std::fmt;

use super::{Evidence, Hash, SignedTreeHead, Verdict, Witness, WitnessError, head_keys, proof_from_bytes};
use crate::Certificate;

/// What whoever keeps the log says of it. Nothing in it is believed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer<'a> {
    /// The signed head; empty for no log.
    pub head: &'a [u8],
    /// The consistency proof from the head that is known.
    pub proof: &'a [u8],
    /// Certificates of authorities below the roots, DER.
    pub issuers: &'a [Vec<u8>],
    /// Signed heads that are none of this log, as an operator has said there.
    pub accepted: &'a [Vec<u8>],
}

/// What is wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no log any more.
    Gone,
    /// It cannot be read.
    Malformed,
    /// Nobody who may has signed it.
    Unsigned,
    /// It is the log of another cluster.
    OtherCluster,
    /// There are fewer entries than were shown before.
    Shorter,
    /// There are fewer entries at a later time: proven by the two heads.
    RolledBack,
    /// There are other entries than were shown before: proven by the two heads and the proof, or by the heads alone.
    Forked,
    /// Nothing shows that it goes on from what was shown before.
    Unproven,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "the controllers show no audit log any more",
            Self::Malformed => "what the controllers show as the audit log's head is none",
            Self::Unsigned => "no authority of this cluster has signed the audit log's head",
            Self::OtherCluster => "the controllers show the audit log of another cluster",
            Self::Shorter => "the audit log has lost entries",
            Self::RolledBack => "the audit log was rolled back: it has fewer entries than before, at a later time",
            Self::Forked => "the audit log was forked: it has other entries than before",
            Self::Unproven => "nothing shows that the audit log goes on from where it was",
        })
    }
}

/// What was found wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// What.
    pub fault: Fault,
    /// The two heads, and the proof, as far as there are two.
    pub evidence: Option<Evidence>,
}

/// What is thought of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// There is no log yet.
    Nothing,
    /// Nothing was known: this is from now on.
    First,
    /// It goes on from what was known; whether there is more now.
    Good(bool),
    /// It is another log than the known one, and an operator has said in it that he knows why. It is known from now on.
    Replaced(Box<SignedTreeHead>),
    /// It cannot be honest, or was not shown to be. What was known stays known.
    Wrong(Box<Wrong>),
}

/// Remembers the newest head of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Follower {
    known: Option<SignedTreeHead>,
}

impl Follower {
    /// One that knows this head.
    pub const fn knowing(known: Option<SignedTreeHead>) -> Self {
        Self { known }
    }

    /// The newest head.
    pub const fn known(&self) -> Option<&SignedTreeHead> {
        self.known.as_ref()
    }

    /// Judges an answer, and goes on from it if it is good. `roots` are those of the cluster.
    pub fn follow(&mut self, answer: &Answer<'_>, roots: &[Certificate]) -> Followed {
        let fault = |fault| Followed::Wrong(Box::new(Wrong { fault, evidence: None }));
        if answer.head.is_empty() {
            return if self.known.is_some() { fault(Fault::Gone) } else { Followed::Nothing };
        }
        let (Ok(shown), Some(proof)) = (SignedTreeHead::from_bytes(answer.head), proof_from_bytes(answer.proof)) else {
            return fault(Fault::Malformed);
        };
        let keys = head_keys(roots, answer.issuers);
        if shown.verify(&keys).is_err() {
            return fault(Fault::Unsigned);
        }
        let Some(known) = self.known.clone() else {
            self.known = Some(shown);
            return Followed::First;
        };
        match self.compare(&known, &shown, &proof, &keys) {
            Ok(followed) => followed,
            Err(_) if answer.accepted.contains(&known.to_bytes()) => {
                self.known = Some(shown);
                Followed::Replaced(Box::new(known))
            }
            Err(wrong) => Followed::Wrong(wrong),
        }
    }

    fn compare(
        &mut self,
        known: &SignedTreeHead,
        shown: &SignedTreeHead,
        proof: &[Hash],
        keys: &[crate::PublicKey],
    ) -> Result<Followed, Box<Wrong>> {
        let wrong = |fault, evidence: Evidence| Err(Box::new(Wrong { fault, evidence: Some(evidence) }));
        let plain = || Evidence { known: known.clone(), shown: shown.clone(), proof: Vec::new() };
        if known.head.cluster != shown.head.cluster {
            return wrong(Fault::OtherCluster, plain());
        }
        let mut witness = Witness::knowing(known.clone());
        match witness.judge(shown, proof, keys) {
            Ok(Verdict::First | Verdict::Same) => {}
            Ok(Verdict::Grown) => {
                self.known = Some(shown.clone());
                return Ok(Followed::Good(true));
            }
            Ok(Verdict::Older) => return wrong(Fault::Shorter, plain()),
            Ok(Verdict::RolledBack(evidence)) => return wrong(Fault::RolledBack, *evidence),
            Ok(Verdict::Forked(evidence)) => return wrong(Fault::Forked, *evidence),
            Err(WitnessError::Unproven(evidence)) => return wrong(Fault::Unproven, *evidence),
            Err(WitnessError::Head(_) | WitnessError::TooMany) => return wrong(Fault::Unsigned, plain()),
        }
        Ok(Followed::Good(false))
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::super::{Frontier, NodeId, consistency_proof, leaf_hash, proof_to_bytes};
    use super::*;
    use crate::seal::SealKey;
    use crate::{Authority, IssuingConfig, KeyAlgorithm, KeyPair, Profile, RootConfig, Serial, Subject, UnixTime};

    const NOW: UnixTime = UnixTime(1_800_000_000);

    struct Cluster {
        roots: Vec<Certificate>,
        issuing: Authority,
        issuers: Vec<Vec<u8>>,
        log: Vec<(&'static str, u64)>,
    }

    fn cluster() -> Cluster {
        let rng = SystemRandom::new();
        let seal = SealKey::generate(&rng).unwrap();
        let (root, _) = Authority::create(&RootConfig::new("Example", "Example Root"), &seal, NOW, &rng).unwrap();
        let config = IssuingConfig::new("Example Issuing", KeyAlgorithm::EcdsaP256);
        let (issuing, _) = Authority::create_issuing(&root, &config, &seal, NOW, &rng).unwrap();
        let issuers = vec![issuing.certificate().der().to_vec()];
        Cluster { roots: vec![root.certificate().clone()], issuing, issuers, log: Vec::new() }
    }

    impl Cluster {
        fn nodes(&self) -> (Frontier, std::collections::BTreeMap<NodeId, Hash>) {
            let (mut tree, mut nodes) = (Frontier::new(), std::collections::BTreeMap::new());
            for (entry, _) in &self.log {
                tree.append(leaf_hash(entry.as_bytes()), |node, hash| nodes.extend([(node, hash)]));
            }
            (tree, nodes)
        }

        fn head(&self) -> SignedTreeHead {
            let time = self.log.last().map_or(0, |(_, time)| *time);
            self.issuing.sign_tree_head([7; 16], &self.nodes().0, time, &SystemRandom::new()).unwrap()
        }

        fn proof(&self, from: u64) -> Vec<u8> {
            let (tree, nodes) = self.nodes();
            consistency_proof(&nodes, from, tree.size()).map(|proof| proof_to_bytes(&proof)).unwrap_or_default()
        }

        fn tell(&self, follower: &mut Follower, accepted: &[Vec<u8>]) -> Followed {
            let from = follower.known().map_or(0, |known| known.head.size);
            let (head, proof) = (self.head().to_bytes(), self.proof(from));
            let answer = Answer { head: &head, proof: &proof, issuers: &self.issuers, accepted };
            follower.follow(&answer, &self.roots)
        }
    }

    fn fault(followed: Followed) -> Fault {
        match followed {
            Followed::Wrong(wrong) => wrong.fault,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_log_is_followed_while_it_grows_and_found_when_it_was_set_back_until_an_operator_says_why() {
        let mut cluster = cluster();
        let mut follower = Follower::default();
        assert_eq!(follower.follow(&Answer::default(), &cluster.roots), Followed::Nothing);
        cluster.log.extend([("a", 1), ("b", 2), ("c", 3)]);
        assert_eq!(cluster.tell(&mut follower, &[]), Followed::First);
        assert_eq!(cluster.tell(&mut follower, &[]), Followed::Good(false));
        cluster.log.extend([("d", 4), ("e", 5)]);
        assert_eq!(cluster.tell(&mut follower, &[]), Followed::Good(true));
        let known = follower.known().unwrap().clone();

        cluster.log.truncate(2);
        assert_eq!(fault(cluster.tell(&mut follower, &[])), Fault::Shorter, "nothing was added yet");
        cluster.log.push(("restored", 9));
        assert_eq!(fault(cluster.tell(&mut follower, &[])), Fault::RolledBack);
        cluster.log.extend([("f", 10), ("g", 11), ("h", 12)]);
        let Followed::Wrong(wrong) = cluster.tell(&mut follower, &[]) else { panic!("not found") };
        let evidence = wrong.evidence.expect("both heads");
        assert_eq!((wrong.fault, &evidence.known, &evidence.shown.head), (Fault::Forked, &known, &cluster.head().head));
        assert!(evidence.finding(&head_keys(&cluster.roots, &cluster.issuers)).unwrap().is_some(), "anybody can tell");
        assert_eq!(follower.known(), Some(&known), "and it stays so");
        assert_eq!(fault(follower.follow(&Answer::default(), &cluster.roots)), Fault::Gone);

        assert_eq!(cluster.tell(&mut follower, &[known.to_bytes()]), Followed::Replaced(Box::new(known)));
        assert_eq!(cluster.tell(&mut follower, &[]), Followed::Good(false), "it goes on from there");
    }

    #[test]
    fn a_head_counts_only_if_an_authority_of_the_cluster_signed_it() {
        let (mut cluster, mut other) = (cluster(), cluster());
        cluster.log.push(("a", 1));
        other.log.push(("a", 1));
        let mut follower = Follower::default();
        let head = other.head().to_bytes();
        for issuers in [&cluster.issuers, &other.issuers] {
            let answer = Answer { head: &head, issuers, ..Answer::default() };
            assert_eq!(fault(follower.follow(&answer, &cluster.roots)), Fault::Unsigned);
        }
        let answer = Answer { head: &head[..50], ..Answer::default() };
        assert_eq!(fault(follower.follow(&answer, &cluster.roots)), Fault::Malformed);
        assert_eq!(follower.known(), None);
    }

    #[test]
    fn a_machines_key_signs_no_head_even_where_the_root_itself_certified_it() {
        let rng = SystemRandom::new();
        let seal = SealKey::generate(&rng).unwrap();
        let (root, _) = Authority::create(&RootConfig::new("Example", "Example Root"), &seal, NOW, &rng).unwrap();
        let key = KeyPair::generate(KeyAlgorithm::EcdsaP256, &rng).unwrap();
        let subject = Subject::new("laptop7.example.com", Vec::new()).unwrap();
        let serial = Serial::generate(&rng).unwrap();
        let machine = root.issue(Profile::Machine, &subject, &key.public_key(), NOW, serial, &rng).unwrap();
        let head = SignedTreeHead::sign([7; 16], &Frontier::new(), 0, &key, &rng).unwrap().to_bytes();
        let issuers = [machine.der().to_vec()];
        let answer = Answer { head: &head, issuers: &issuers, ..Answer::default() };
        assert_eq!(fault(Follower::default().follow(&answer, &[root.certificate().clone()])), Fault::Unsigned);
    }
}
