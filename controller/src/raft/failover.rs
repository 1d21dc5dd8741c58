//! Standing for election as soon as the silence of a leader allows it.
//!
//! openraft would wait for the leader's lease and then for an election timeout that each process draws once. The lease is
//! needed: before its end nobody votes. The timeout only keeps candidates apart, and their rank does that better. And it would
//! stand unasked: a member that alone does not hear the leader would depose it, again and again. So its own elections are
//! off, and a member stands only if a majority would vote for it (see [`super::pre_vote`]).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::type_config::TypeConfigExt;
use openraft::{Raft, ServerState};

use super::network::Transport;
use super::{Instant, TypeConfig, pre_vote};

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
pub(super) async fn run(
    raft: Raft<TypeConfig>,
    transport: Arc<dyn Transport>,
    heard: Heard,
    lease: Duration,
    heartbeat: Duration,
) {
    let metrics = raft.metrics();
    // Before the next question, when the last one came to nothing.
    let mut pause = Duration::ZERO;
    loop {
        TypeConfig::sleep(LOOK + pause).await;
        let rank = {
            let now = metrics.borrow();
            if now.running_state.is_err() {
                return;
            }
            if now.state == ServerState::Leader {
                heard.note();
                pause = Duration::ZERO;
                continue;
            }
            // The leader that fell silent takes no turn.
            let voters = now.membership_config.voter_ids().filter(|id| Some(*id) != now.current_leader);
            let turns: BTreeSet<u64> = voters.collect();
            match turns.iter().position(|id| *id == now.id) {
                Some(rank) => u32::try_from(rank).unwrap_or(u32::MAX),
                None => continue,
            }
        };
        if heard.silence() < lease + heartbeat + TURN.saturating_mul(rank) {
            pause = Duration::ZERO;
            continue;
        }
        if !pre_vote::would_win(&raft, &*transport, lease.saturating_sub(heartbeat)).await {
            if pause.is_zero() {
                tracing::info!("the leader is silent, and no majority would vote for this member: it does not stand");
            }
            pause = (pause * 2).clamp(TURN, lease);
            continue;
        }
        // It may have spoken meanwhile, or another stands.
        if heard.silence() < lease {
            continue;
        }
        tracing::info!("the leader is silent, standing for election");
        if raft.trigger().elect().await.is_err() {
            return;
        }
        // If this comes to nothing, the next try is a full silence away.
        heard.note();
        pause = Duration::ZERO;
    }
}
