//! Standing for election as soon as the silence of a leader allows it.
//!
//! openraft waits for the leader's lease and then for an election timeout that each process draws once. The lease is
//! needed: before its end nobody votes. The timeout only keeps candidates apart, and their rank does that better.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::type_config::TypeConfigExt;
use openraft::{Raft, ServerState};

use super::{Instant, TypeConfig};

/// How often the silence is looked at.
const LOOK: Duration = Duration::from_millis(25);
/// What a member waits for those before it in rank.
const TURN: Duration = Duration::from_millis(75);

/// When this node last heard from a leader. Clones show the same.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    origin: Instant,
    at_ms: Arc<AtomicU64>,
}

impl Heard {
    pub(super) fn now() -> Self {
        Self { origin: TypeConfig::now(), at_ms: Arc::default() }
    }

    /// A leader has spoken.
    pub(super) fn note(&self) {
        let ms = u64::try_from((TypeConfig::now() - self.origin).as_millis()).unwrap_or(u64::MAX);
        self.at_ms.fetch_max(ms, Ordering::Relaxed);
    }

    fn silence(&self) -> Duration {
        (TypeConfig::now() - self.origin).saturating_sub(Duration::from_millis(self.at_ms.load(Ordering::Relaxed)))
    }
}

/// Watches until the member ends. `lease` is how long the others believe in a leader they heard of last a `heartbeat` after us.
pub(super) async fn run(raft: Raft<TypeConfig>, heard: Heard, lease: Duration, heartbeat: Duration) {
    let metrics = raft.metrics();
    loop {
        TypeConfig::sleep(LOOK).await;
        let rank = {
            let now = metrics.borrow();
            if now.running_state.is_err() {
                return;
            }
            if now.state == ServerState::Leader {
                heard.note();
                continue;
            }
            let voters: Vec<u64> = now.membership_config.voter_ids().collect();
            // The leader that fell silent takes no turn.
            let mut turns: Vec<u64> = voters.iter().copied().filter(|id| Some(*id) != now.current_leader).collect();
            turns.sort_unstable();
            match turns.iter().position(|id| *id == now.id) {
                Some(rank) if voters.len() > 1 => u32::try_from(rank).unwrap_or(u32::MAX),
                _ => continue,
            }
        };
        if heard.silence() < lease + heartbeat + TURN.saturating_mul(rank) {
            continue;
        }
        tracing::info!("the leader is silent, standing for election");
        if raft.trigger().elect().await.is_err() {
            return;
        }
        // If this comes to nothing, the next try is a full silence away.
        heard.note();
    }
}
