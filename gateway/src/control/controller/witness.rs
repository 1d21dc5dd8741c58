//! This gateway as a witness of the controllers' audit log: it keeps the newest signed head, asks how the log goes on from there,
//! and raises the alarm where it does not. It keeps serving meanwhile: a log that was set back says that something is wrong with the
//! controllers, not with those who are connected. What is kept is in memory; other gateways, and the operators' folders, remember
//! what one that is started anew does not.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sallyport_ca::merkle::{Answer, Fault, Followed, Follower, REMEDY, SignedTreeHead, Wrong};
use sallyport_proto::v1;
use tracing::{debug, error, info, warn};

use super::roots::KnownRoots;
use super::{CALL_TIMEOUT, Controllers, Report};
use crate::clock::Clock;

/// Time between two questions; half of it differs between gateways.
const EVERY: Duration = Duration::from_secs(10);
/// An alarm that goes on is said again after so many questions: about an hour.
const REPEAT: u32 = 400;
/// Alarms of which the records were made, at most.
const RECORDS: usize = 64;

/// What is known of the log, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogSight {
    /// Entries in the newest head.
    pub entries: u64,
    /// Whether the controllers show another log than that.
    pub alarm: bool,
}

#[derive(Debug, Default)]
struct Memory {
    follower: Follower,
    /// Answers since the alarm began; `None` while there is none.
    alarmed: Option<u32>,
    recorded: BTreeSet<[u8; 16]>,
}

/// The witness.
#[derive(Debug)]
pub(super) struct Witnessing {
    roots: Arc<KnownRoots>,
    memory: Mutex<Memory>,
}

impl Witnessing {
    /// One that believes these roots.
    pub(super) fn trusting(roots: Arc<KnownRoots>) -> Self {
        Self { roots, memory: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known.
    pub(super) fn sight(&self) -> LogSight {
        let memory = self.lock();
        let entries = memory.follower.known().map_or(0, |known| known.head.size);
        LogSight { entries, alarm: memory.alarmed.is_some() }
    }

    /// The newest head, to be shown.
    fn known(&self) -> Vec<u8> {
        self.lock().follower.known().map(SignedTreeHead::to_bytes).unwrap_or_default()
    }

    /// Takes an answer up; what is to be recorded of it, if anything.
    fn take(&self, answer: &v1::WitnessLogResponse) -> Option<Box<v1::Attempt>> {
        let (roots, issuers) = (self.roots.roots(), self.roots.believed(&answer.issuers));
        let mut memory = self.lock();
        let said = Answer { head: &answer.head, proof: &answer.proof, issuers: &issuers, accepted: &answer.accepted };
        match memory.follower.follow(&said, roots.trusted()) {
            Followed::Nothing | Followed::First | Followed::Good(_) => {
                if memory.alarmed.take().is_some() {
                    info!("the controllers' audit log goes on from what this gateway knew: the alarm is over");
                }
                None
            }
            Followed::Replaced(known) => {
                memory.alarmed = None;
                warn!(was = %known.head.summary(), "another audit log is followed from now on: an operator has said in it why that is so");
                None
            }
            Followed::Wrong(wrong) => {
                let count = memory.alarmed.map_or(0, |count| count.wrapping_add(1));
                memory.alarmed = Some(count);
                let restored = restored_text(answer.restored_unix_ms);
                if count.is_multiple_of(REPEAT) {
                    let heads = wrong.evidence.as_ref().map(|e| (e.known.head.summary(), e.shown.head.summary()));
                    error!(?heads, restored, "{}; {REMEDY}; this gateway keeps serving", wrong.fault);
                }
                let attempt = attempt(&wrong, &restored)?;
                // The id is the same for the same head: it is recorded once.
                let id = wrong.evidence.as_ref().map(sallyport_ca::merkle::Evidence::id)?;
                let new = memory.recorded.len() < RECORDS && memory.recorded.insert(id);
                new.then_some(attempt)
            }
        }
    }
}

fn restored_text(restored_ms: u64) -> String {
    match restored_ms {
        0 => String::new(),
        ms => format!(" (the controllers say that they were restored from a backup, at {} s since 1970)", ms / 1_000),
    }
}

/// The record, with both heads: from them anybody can judge.
fn attempt(wrong: &Wrong, restored: &str) -> Option<Box<v1::Attempt>> {
    let evidence = wrong.evidence.as_ref()?;
    // A fault of the signature is nobody's statement.
    if matches!(wrong.fault, Fault::Unsigned | Fault::Malformed | Fault::Gone) {
        return None;
    }
    let (known, shown) = (evidence.known.head.summary(), evidence.shown.head.summary());
    Some(Box::new(v1::Attempt {
        id: evidence.id().to_vec(),
        time_unix_ms: Clock::unix_ms(),
        phase: v1::Phase::AuditLog.into(),
        outcome: v1::Outcome::Refused.into(),
        cause: format!("{}: {known} was known, {shown} is shown{restored}", wrong.fault),
        remedy: REMEDY.into(),
        evidence: evidence.to_bytes(),
        ..v1::Attempt::default()
    }))
}

impl Controllers {
    /// Asks how the log goes on, again and again.
    pub(super) async fn keep_witnessing(self, seed: u64) {
        let pause = EVERY / 2 + (EVERY / 2).mul_f64((seed >> 11) as f64 / (1_u64 << 53) as f64);
        while !self.events.is_closed() {
            self.witness_log().await;
            tokio::time::sleep(pause).await;
        }
    }

    /// Asks the controllers, now, how their audit log goes on. It is done every 5 to 10 s anyway.
    pub async fn witness_log(&self) {
        let member = self.member();
        let request = v1::WitnessLogRequest { slot: member.slot, epoch: member.epoch, known: self.witnessing.known() };
        let mut client = self.client.clone();
        match tokio::time::timeout(CALL_TIMEOUT, client.witness_log(request)).await {
            Ok(Ok(answer)) => {
                if let Some(attempt) = self.witnessing.take(&answer.into_inner()) {
                    self.report(Report::Attempt(attempt));
                }
            }
            // Controllers that are away show no other log; older ones have none.
            Ok(Err(status)) => debug!(status = %status.message(), "nobody says how the audit log goes on"),
            Err(_) => debug!("nobody says in time how the audit log goes on"),
        }
    }
}

#[cfg(test)]
mod tests {
    use sallyport_ca::merkle::{Frontier, leaf_hash};
    use sallyport_ca::seal::SealKey;
    use sallyport_ca::{Authority, RootConfig, SystemRandom, UnixTime};

    use super::*;

    fn head(root: &Authority, leaves: &[&str], time: u64) -> v1::WitnessLogResponse {
        let mut tree = Frontier::new();
        for leaf in leaves {
            tree.append(leaf_hash(leaf.as_bytes()), |_, _| {});
        }
        let head = root.sign_tree_head([7; 16], &tree, time, &SystemRandom::new()).unwrap();
        v1::WitnessLogResponse { head: head.to_bytes(), ..v1::WitnessLogResponse::default() }
    }

    #[test]
    fn a_log_that_was_set_back_is_an_alarm_recorded_once_with_both_heads_until_an_operator_says_why() {
        let rng = SystemRandom::new();
        let seal = SealKey::generate(&rng).unwrap();
        let config = RootConfig::new("Example", "Example Root");
        let (root, _) = Authority::create(&config, &seal, UnixTime(1_800_000_000), &rng).unwrap();
        let identity = crate::identity::Identity {
            grpc_chain: Vec::new(),
            grpc_key: zeroize::Zeroizing::default(),
            ca: root.certificate().pem().into_bytes(),
            gone: Vec::new(),
            revoked: None,
            ike: Vec::new(),
        };
        let witness = Witnessing::trusting(KnownRoots::of(&identity, Arc::default()).unwrap());
        assert!(witness.known().is_empty());
        assert_eq!(witness.take(&v1::WitnessLogResponse::default()), None, "a cluster without a log");
        let first = head(&root, &["a", "b", "c"], 3);
        assert_eq!(witness.take(&first), None);
        assert_eq!((witness.known(), witness.sight()), (first.head.clone(), LogSight { entries: 3, alarm: false }));

        let mut back = head(&root, &["a", "x"], 9);
        back.restored_unix_ms = 8_000;
        let attempt = witness.take(&back).expect("recorded");
        assert_eq!((attempt.phase(), attempt.outcome()), (v1::Phase::AuditLog, v1::Outcome::Refused));
        assert!(attempt.cause.contains("rolled back") && attempt.cause.contains("restored"), "{}", attempt.cause);
        let evidence = sallyport_ca::merkle::Evidence::from_bytes(&attempt.evidence).expect("two heads");
        assert_eq!((evidence.known.to_bytes(), evidence.shown.to_bytes()), (first.head.clone(), back.head.clone()));
        assert_eq!(witness.take(&back), None, "once");
        assert_eq!(witness.sight(), LogSight { entries: 3, alarm: true });
        assert_eq!(witness.take(&v1::WitnessLogResponse::default()), None);
        assert!(witness.sight().alarm, "a log that is gone is no better");

        back.accepted = vec![first.head.clone()];
        assert_eq!(witness.take(&back), None);
        assert_eq!((witness.known(), witness.sight()), (back.head, LogSight { entries: 2, alarm: false }));
        assert_eq!(witness.take(&first).expect("the other one again").phase(), v1::Phase::AuditLog);
    }
}
