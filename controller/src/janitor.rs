//! What nobody asks for and must be done: giving up silent gateways, ending sessions that are no more, having old records make room.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sallyport_proto::v1;
use tokio::time::MissedTickBehavior;

use crate::app::Core;
use crate::authority::root;
use crate::compaction;
use crate::enroll;
use crate::overdue::Overdue;
use crate::raft::ProposeError;
use crate::soft::{GatewaySigns, SessionSigns};
use crate::state::{Action, EndSessions, EndedSession, LoseGateway};

/// How often to look after gateways.
const INTERVAL: Duration = Duration::from_secs(1);
/// And whether somebody is overdue with a renewal.
const OVERDUE_EVERY: u32 = 60;
/// Sessions are looked after at every so many looks.
const SESSIONS_EVERY: u32 = 10;
/// Between two looks further apart, this process was stopped: it heard nobody, and so nobody was silent.
const STOPPED_MS: u64 = 5_000;
/// Sessions ended by one command.
const BATCH: usize = 500;

/// Since when this process hears everybody: silence before that is not theirs.
struct Listening {
    /// The term it leads in, if any.
    led: Option<u64>,
    looked_ms: u64,
}

impl Listening {
    /// Another look, at this monotonic time. Returns whether it has not listened all the time since the last one.
    fn begins_anew(&mut self, leads: Option<u64>, now_ms: u64) -> bool {
        let pause_ms = now_ms.saturating_sub(std::mem::replace(&mut self.looked_ms, now_ms));
        std::mem::replace(&mut self.led, leads) != leads || pause_ms > STOPPED_MS
    }
}

/// Looks after everything until the process ends.
pub(crate) async fn run(core: Arc<Core>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count = 0_u32;
    let mut overdue = Overdue::default();
    let mut look = compaction::Look::default();
    let mut listening = Listening { led: None, looked_ms: core.clock.monotonic_ms() };
    loop {
        ticks.tick().await;
        let now_ms = core.clock.monotonic_ms();
        let leads = core.node.leads().then(|| core.node.figures().term);
        let anew = listening.begins_anew(leads, now_ms);
        if leads.is_none() {
            continue;
        }
        // A leader without a majority answers nobody: who asks then is not silent, and what it decided now would come true
        // as soon as the majority is back.
        if core.linearizable().await.is_err() {
            listening.led = None;
            continue;
        }
        if anew {
            core.soft.give_all_the_full_time(now_ms);
        }
        let swept = async {
            sweep_gateways(&core).await?;
            if let Err(error) = enroll::finish_intents(&core).await {
                tracing::debug!(%error, "could not finish certificates that were left; trying again");
            }
            if let Err(error) = root::sweep(&core).await {
                tracing::debug!(%error, "could not erase the root's key again; trying again");
            }
            if count.is_multiple_of(OVERDUE_EVERY) {
                let news = overdue.look(&core.node.shared().read(), core.now_ms());
                news.say();
            }
            if let Err(error) = compaction::sweep(&core, &mut look).await {
                tracing::debug!(%error, "could not have old certificates make room; trying again");
            }
            if count.is_multiple_of(SESSIONS_EVERY) {
                sweep_sessions(&core).await?;
            }
            Ok::<_, ProposeError>(())
        };
        if let Err(e) = swept.await {
            tracing::debug!(error = %e, "could not end what should end; trying again");
        }
        count = count.wrapping_add(1);
    }
}

/// Gives up gateways that have been silent too long.
pub(crate) async fn sweep_gateways(core: &Core) -> Result<(), ProposeError> {
    let now = core.clock.monotonic_ms();
    let known: Vec<(u32, u64, String)> = {
        let state = core.node.shared().read();
        state.gateways.iter().filter(|(_, g)| !g.lost).map(|(slot, g)| (*slot, g.epoch, g.name.clone())).collect()
    };
    let silent: Vec<(u32, u64, String)> = {
        let mut signs = core.soft.lock();
        signs.gateways.retain(|slot, _| known.iter().any(|(s, ..)| s == slot));
        core.audit.witnesses.retain(|slot| known.iter().any(|(s, ..)| *s == slot));
        let mut silent = Vec::new();
        for (slot, epoch, name) in known {
            let fresh = GatewaySigns { epoch, seen_ms: now, ..GatewaySigns::default() };
            let signs = signs.gateways.entry(slot).or_insert(fresh);
            if signs.epoch != epoch {
                *signs = fresh;
            }
            if now.saturating_sub(signs.seen_ms) > u64::from(core.config.gateways.timeout_ms) {
                silent.push((slot, epoch, name));
            }
        }
        silent
    };
    for (slot, epoch, name) in silent {
        tracing::warn!(gateway = %name, "gave up a gateway that has been silent too long, and its sessions with it");
        core.propose_here(Action::LoseGateway(LoseGateway { slot, epoch })).await?;
    }
    Ok(())
}

/// Ends sessions that never came up, and those that their gateway no longer reports.
pub(crate) async fn sweep_sessions(core: &Core) -> Result<(), ProposeError> {
    let now = core.clock.monotonic_ms();
    let config = core.config.gateways;
    let mut due: BTreeMap<(u32, u64), Vec<EndedSession>> = BTreeMap::new();
    {
        let state = core.node.shared().read();
        let mut signs = core.soft.lock();
        signs.sessions.retain(|id, _| state.sessions.contains(id));
        for (id, session) in state.sessions.iter() {
            let fresh = || SessionSigns { seen_ms: now, ..SessionSigns::default() };
            let silent = now.saturating_sub(signs.sessions.entry(*id).or_insert_with(fresh).seen_ms);
            let (limit, reason, text) = if session.up_ms == 0 {
                (u64::from(config.setup_ms), v1::EndReason::NeverUp, "authorized, but never came up")
            } else {
                let text = "the gateway no longer reports it";
                (u64::from(config.report_ms) * 3, v1::EndReason::GatewayLost, text)
            };
            if silent > limit {
                let end = EndedSession { session_id: *id, reason: reason.into(), text: text.into() };
                due.entry((session.slot, session.epoch)).or_default().push(end);
            }
        }
    }
    for ((slot, epoch), sessions) in due {
        for batch in sessions.chunks(BATCH) {
            tracing::info!(slot, count = batch.len(), "ending sessions that are no more");
            let sessions = batch.to_vec();
            core.propose_here(Action::EndSessions(EndSessions { slot, epoch, sessions })).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_did_not_listen_blames_nobody_for_silence() {
        let mut listening = Listening { led: None, looked_ms: 0 };
        assert!(!listening.begins_anew(None, 1_000));
        assert!(listening.begins_anew(Some(3), 2_000), "it leads");
        assert!(!listening.begins_anew(Some(3), 3_000));
        assert!(!listening.begins_anew(Some(3), 3_000 + STOPPED_MS), "a busy machine");
        assert!(listening.begins_anew(Some(3), 4_000 + 2 * STOPPED_MS), "it was stopped");
        assert!(listening.begins_anew(Some(5), 15_000), "another led between two looks");
        assert!(!listening.begins_anew(Some(5), 16_000));
    }
}
