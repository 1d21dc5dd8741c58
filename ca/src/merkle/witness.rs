//! Who remembers what a log said of itself, and holds it to that.
//!
//! A log that lost entries, or has others than it said, cannot show a tree that began as the witness remembers it. So a
//! cluster that was set back, or one that is two, is found by the first witness that it meets again.

use std::collections::BTreeMap;

use super::proof::consistent_roots;
use super::{Hash, HeadError, MAX_PROOF, SignedTreeHead, TreeHead, proof_from_bytes, verify_consistency};
use crate::PublicKey;

/// How many logs one witness remembers.
pub const MAX_LOGS: usize = 16;

/// Two heads of one log that cannot both be honest, or have not been shown to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// What the witness remembers.
    pub known: SignedTreeHead,
    /// What the log says now.
    pub shown: SignedTreeHead,
    /// The consistency proof that came with it, from the smaller to the larger size.
    pub proof: Vec<Hash>,
}

/// What two signed heads show about their log. Both can be told from the heads and the proof alone, by anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// There were fewer entries at a later time of the log.
    RolledBack,
    /// The two are not states of one log: some entry is another one.
    Forked,
}

/// What is thought of a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was known of this log.
    First,
    /// The same entries as before.
    Same,
    /// What was known, and more.
    Grown,
    /// A state of before what is known: who says it is behind, which is no offence. The known one stays.
    Older,
    /// The log lost entries, or its time was set back. The known head stays.
    RolledBack(Box<Evidence>),
    /// The log has other entries than it said. The known head stays.
    Forked(Box<Evidence>),
}

/// Why a head is not judged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WitnessError {
    /// It is not an honest head by its looks.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The proof does not show that the log only grew. That may be the carrier's fault, so it shows nothing against the log either;
    /// when nobody can bring a good proof, take it for a fork. The known head stays.
    #[error("it was not proven that the log of {} entries began with the {} that are known", .0.shown.head.size, .0.known.head.size)]
    Unproven(Box<Evidence>),
    /// More logs than are remembered.
    #[error("more than {MAX_LOGS} logs")]
    TooMany,
}

impl Evidence {
    /// Names what the witness found: the same for the same known head, whatever it is shown, and whoever notices.
    pub fn id(&self) -> [u8; 16] {
        let hash = super::hash_of(&[b"sallyport evidence\0", &self.known.to_bytes()]);
        hash.first_chunk().copied().unwrap_or_default()
    }

    /// What it shows, if it shows anything: both heads must be signed by one of `keys`.
    pub fn finding(&self, keys: &[PublicKey]) -> Result<Option<Finding>, HeadError> {
        self.known.verify(keys)?;
        self.shown.verify(keys)?;
        Ok(finding(&self.known.head, &self.shown.head, &self.proof))
    }

    /// `| known | shown | proof |`, to be kept or handed on.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.known.to_bytes()[..], &self.shown.to_bytes(), self.proof.as_flattened()].concat()
    }

    /// The reverse; nothing is verified.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (known, rest) = SignedTreeHead::take(bytes)?;
        let (shown, rest) = SignedTreeHead::take(rest)?;
        Some(Self { known, shown, proof: proof_from_bytes(rest)? })
    }
}

fn finding(known: &TreeHead, shown: &TreeHead, proof: &[Hash]) -> Option<Finding> {
    if known.cluster != shown.cluster {
        return None;
    }
    if known.size == shown.size {
        return (known.root != shown.root).then_some(Finding::Forked);
    }
    let (small, large) = if known.size < shown.size { (known, shown) } else { (shown, known) };
    // A proof that leads to the larger tree's root shows how that began.
    let began = consistent_roots(small.size, large.size, &small.root, proof);
    if began.is_some_and(|(old, new)| new == large.root && old != small.root) {
        return Some(Finding::Forked);
    }
    (small.time_ms > large.time_ms).then_some(Finding::RolledBack)
}

/// Remembers the newest head of each log that it saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Witness {
    heads: BTreeMap<[u8; 16], SignedTreeHead>,
}

impl Witness {
    /// One that remembers nothing.
    pub const fn new() -> Self {
        Self { heads: BTreeMap::new() }
    }

    /// One that remembers this.
    pub fn knowing(known: SignedTreeHead) -> Self {
        Self { heads: BTreeMap::from([(known.head.cluster, known)]) }
    }

    /// The newest head of a log.
    pub fn newest(&self, cluster: &[u8; 16]) -> Option<&SignedTreeHead> {
        self.heads.get(cluster)
    }

    /// Judges what a log says now, with the consistency proof between the size that is known ([`Self::newest`]) and that which is
    /// shown: from the smaller to the larger. `keys` are those that may sign heads.
    pub fn judge(
        &mut self,
        shown: &SignedTreeHead,
        proof: &[Hash],
        keys: &[PublicKey],
    ) -> Result<Verdict, WitnessError> {
        shown.verify(keys)?;
        let Some(known) = self.heads.get(&shown.head.cluster) else {
            if self.heads.len() >= MAX_LOGS {
                return Err(WitnessError::TooMany);
            }
            self.heads.insert(shown.head.cluster, shown.clone());
            return Ok(Verdict::First);
        };
        let (old, new) = (&known.head, &shown.head);
        let evidence = || {
            let proof = proof.iter().take(MAX_PROOF).copied().collect();
            Box::new(Evidence { known: known.clone(), shown: shown.clone(), proof })
        };
        let verdict = match finding(old, new, proof) {
            Some(Finding::Forked) => return Ok(Verdict::Forked(evidence())),
            // Also where it has more now, with an earlier time: time goes back in no honest log.
            Some(Finding::RolledBack) => return Ok(Verdict::RolledBack(evidence())),
            _ if new.size < old.size => return Ok(Verdict::Older),
            _ if new.size == old.size => Verdict::Same,
            _ if verify_consistency(old.size, new.size, &old.root, &new.root, proof) => Verdict::Grown,
            _ => return Err(WitnessError::Unproven(evidence())),
        };
        if verdict == Verdict::Grown || new.time_ms > old.time_ms {
            self.heads.insert(new.cluster, shown.clone());
        }
        Ok(verdict)
    }

    /// Forgets a log, for an operator who knows why it was set back. Gives what was known.
    pub fn forget(&mut self, cluster: &[u8; 16]) -> Option<SignedTreeHead> {
        self.heads.remove(cluster)
    }

    /// The heads one behind the other, to be kept.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.heads.values().flat_map(SignedTreeHead::to_bytes).collect()
    }

    /// The reverse. Signatures are not verified again: it was kept where nobody else writes.
    pub fn from_bytes(mut bytes: &[u8]) -> Result<Self, HeadError> {
        let mut heads = BTreeMap::new();
        while !bytes.is_empty() {
            let (head, rest) = SignedTreeHead::take(bytes).ok_or(HeadError::Malformed)?;
            if heads.len() >= MAX_LOGS || heads.insert(head.head.cluster, head).is_some() {
                return Err(HeadError::Malformed);
            }
            bytes = rest;
        }
        Ok(Self { heads })
    }
}
