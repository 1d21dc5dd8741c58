//! What the witnesses of the log hold, and whether that is this log. Gateways tell with each question.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use sallyport_ca::PublicKey;
use sallyport_ca::merkle::{Evidence, REMEDY, SignedTreeHead, proof_from_bytes};
use sallyport_proto::v1;

use super::{Shown, proof, tree_at};
use crate::app::Core;
use crate::error::Error;
use crate::state::{Action, RecordAttempts};

/// What is wrong between a head that somebody holds and the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It has more entries than the log.
    Shorter,
    /// It has other entries than the log.
    Forked,
    /// It is of another cluster.
    Foreign,
    /// No authority of this cluster signed it.
    Unsigned,
}

impl Trouble {
    /// In words.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Shorter => "it knows entries of the audit log that the controllers have lost",
            Self::Forked => "it knows other entries of the audit log than the controllers have",
            Self::Foreign => "what it knows is the audit log of another cluster",
            Self::Unsigned => "it reported a head of the audit log that nobody has signed whom the controllers know",
        }
    }

    /// Whether it shows that there is another log: two heads that authorities of ours have signed do. What nobody has signed anybody
    /// can make up, and a gateway that does so raises no alarm about the controllers.
    pub(crate) const fn is_evidence(self) -> bool {
        !matches!(self, Self::Unsigned)
    }
}

/// A witness.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Its name.
    pub(crate) gateway: String,
    epoch: u64,
    /// The head that it holds.
    pub(crate) head: SignedTreeHead,
    /// When it said so, milliseconds since 1970.
    pub(crate) seen_ms: u64,
    /// What is wrong with it.
    pub(crate) trouble: Option<Trouble>,
    /// Whether that was recorded.
    recorded: bool,
}

/// The gateways that this process has heard as witnesses, by slot.
#[derive(Debug, Default)]
pub(crate) struct Witnesses(Mutex<BTreeMap<u32, Seen>>);

impl Witnesses {
    /// All of them.
    pub(crate) fn all(&self) -> BTreeMap<u32, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One of them, in this incarnation.
    pub(crate) fn of(&self, slot: u32, epoch: u64) -> Option<Seen> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&slot).cloned();
        seen.filter(|seen| seen.epoch == epoch)
    }

    /// Gateways whose heads an authority has signed, and which are not of this log.
    pub(crate) fn in_trouble(&self) -> usize {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().filter(|seen| seen.trouble.is_some_and(Trouble::is_evidence)).count()
    }

    /// Keeps what one holds. Says whether it is in trouble with a head for which that was not recorded yet.
    fn note(&self, slot: u32, mut seen: Seen) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Unsigned ones can be as many as one likes: of these there is a word once.
        let one = |before: &&Seen| before.head == seen.head || (!evident(before) && !evident(&seen));
        let before = all.get(&slot).filter(|before| before.epoch == seen.epoch).filter(one);
        seen.recorded = seen.trouble.is_some();
        let new = seen.recorded && !before.is_some_and(|before| before.recorded);
        all.insert(slot, seen);
        new
    }

    /// Forgets those that are not among these slots.
    pub(crate) fn retain(&self, live: impl Fn(u32) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|slot, _| live(*slot));
    }
}

fn evident(seen: &Seen) -> bool {
    seen.trouble.is_none_or(Trouble::is_evidence)
}

/// Whether authorities of ours have signed both heads of a gateway's evidence.
pub(crate) fn is_signed(evidence: &[u8], keys: &[PublicKey]) -> bool {
    Evidence::from_bytes(evidence)
        .is_some_and(|evidence| evidence.known.verify(keys).is_ok() && evidence.shown.verify(keys).is_ok())
}

/// Looks at a head that somebody holds: whether this log goes on from it.
pub(crate) async fn judge(
    core: &Core,
    known: &SignedTreeHead,
    shown: &Shown,
    keys: &[PublicKey],
) -> Result<Option<Trouble>, Error> {
    // First this: of another cluster anybody can have one.
    if known.verify(keys).is_err() {
        return Ok(Some(Trouble::Unsigned));
    }
    if known.head.cluster != shown.head.head.cluster {
        return Ok(Some(Trouble::Foreign));
    }
    if known.head.size > shown.head.head.size {
        return Ok(Some(Trouble::Shorter));
    }
    let tree = tree_at(core, known.head.size).await?;
    Ok((tree.root() != known.head.root).then_some(Trouble::Forked))
}

/// Takes note of what a gateway holds, and records it where it is not of this log.
pub(crate) async fn heard(
    core: &Arc<Core>,
    (gateway, slot, epoch): (&str, u32, u64),
    known: SignedTreeHead,
    shown: &Shown,
) -> Result<Option<Trouble>, Error> {
    let accepted = core.node.shared().read().accepts_head(&known.to_bytes());
    let trouble = if accepted { None } else { judge(core, &known, shown, &super::signers(core).keys).await? };
    let seen = Seen {
        gateway: gateway.to_owned(),
        epoch,
        head: known.clone(),
        seen_ms: core.now_ms(),
        trouble,
        recorded: false,
    };
    let new = core.audit.witnesses.note(slot, seen);
    if new && trouble == Some(Trouble::Unsigned) {
        tracing::warn!(
            gateway,
            "a gateway reported a head of the audit log that nobody has signed: look at that gateway"
        );
    }
    if let Some(trouble) = trouble.filter(|trouble| new && trouble.is_evidence()) {
        let evidence = evidence(core, known, shown).await?;
        tracing::error!(gateway, known = %evidence.known.head.summary(), ours = %evidence.shown.head.summary(), "{}", trouble.text());
        let attempt = attempt(gateway, trouble.text(), &evidence, core.now_ms());
        core.propose(Action::RecordAttempts(RecordAttempts { attempts: vec![attempt], ..Default::default() })).await?;
    }
    Ok(trouble)
}

async fn evidence(core: &Core, known: SignedTreeHead, shown: &Shown) -> Result<Evidence, Error> {
    let proof = proof_from_bytes(&proof(core, known.head.size, shown).await?).unwrap_or_default();
    Ok(Evidence { known, shown: shown.head.clone(), proof })
}

/// The record of it. A gateway makes one of the same id.
fn attempt(gateway: &str, cause: &str, evidence: &Evidence, now_ms: u64) -> v1::Attempt {
    v1::Attempt {
        id: evidence.id().to_vec(),
        time_unix_ms: now_ms,
        gateway: gateway.to_owned(),
        phase: v1::Phase::AuditLog.into(),
        outcome: v1::Outcome::Refused.into(),
        cause: format!("{cause}: {}, against {}", evidence.known.head.summary(), evidence.shown.head.summary()),
        remedy: REMEDY.into(),
        controller_time: true,
        evidence: evidence.to_bytes(),
        ..v1::Attempt::default()
    }
}
