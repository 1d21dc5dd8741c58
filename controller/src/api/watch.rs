//! The policy stream to one gateway.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sallyport_proto::v1;
use sallyport_proto::v1::watch_policy_response::Update;
use tokio::sync::{mpsc, oneshot, watch};
use tonic::Status;

use super::caller::Caller;
use super::convert::{pool, session_text};
use super::live::{Cursor, TELL};
use crate::app::Core;
use crate::error::Error;
use crate::raft::Health;
use crate::state::{CertificateRow, State};

/// A session that shall end is named again after this time, until it is reported down.
const REPEAT_MS: u64 = 10_000;
/// Messages on their way to a gateway that reads slowly.
pub(super) const QUEUE: usize = 64;

type Sender = mpsc::Sender<Result<v1::WatchPolicyResponse, Status>>;

/// The policy of a gateway, with the pre-shared key opened: it goes into mutual TLS to a gateway and nowhere else.
pub(super) fn policy(core: &Core, gateway: &str) -> Result<v1::Policy, Error> {
    let (mut policy, sealed_psk, cluster) = {
        let state = core.node.shared().read();
        let settings = state.settings();
        let max_stale_s = settings.max_stale_s();
        let policy = v1::Policy {
            version: state.policy_version(),
            trusted_roots: state.trusted_roots().map(|(_, r)| r.certificate.clone()).collect(),
            psk: None,
            ike: Some(settings.ike.unwrap_or_default()),
            pools: state.pools.iter().map(|(name, row)| pool(name, row)).collect(),
            auth_methods: settings.auth_methods,
            ppp: Some(settings.ppp.unwrap_or_default()),
            issuers: state.issuers.iter().rev().map(|(_, row)| row.certificate.clone()).collect(),
            max_stale_s,
            fail_closed: settings.fail_closed,
            public_names: state.names_set_for(gateway),
            crossing: state.root_crossings(),
            issuing: state.issuers_in_force().map(|(_, row)| row.certificate.clone()).collect(),
        };
        (policy, state.sealed_psk().map(|(sealed, _)| sealed.to_vec()), state.cluster_id().to_vec())
    };
    if let Some(sealed) = sealed_psk {
        let psk = core.sealer.open_psk(&cluster, &sealed)?;
        policy.psk = Some(v1::Secret::new(psk.to_vec()));
    }
    Ok(policy)
}

/// What has been said on a stream.
struct Said {
    policy_version: Option<u64>,
    /// When each session was last named, monotonic milliseconds.
    kills: BTreeMap<u64, u64>,
    /// Number of the last revocation that was named as a command, to a gateway that keeps no set of what is live.
    revocation: u64,
    /// Up to where the set was said, to one that does.
    live: Option<Cursor>,
}

/// Policy streams that one gateway may have. It needs one; others may be left of connections that broke.
const STREAMS: usize = 4;

/// The policy streams, by name of the gateway: the oldest of one that has too many is told to end.
#[derive(Debug, Default)]
pub(super) struct Streams(Mutex<BTreeMap<String, VecDeque<oneshot::Sender<()>>>>);

impl Streams {
    /// Room for another stream. It shall end when the receiver resolves.
    pub(super) fn open(&self, gateway: &str) -> oneshot::Receiver<()> {
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(|_, of_one| {
            of_one.retain(|end| !end.is_closed());
            !of_one.is_empty()
        });
        let (end, ended) = oneshot::channel();
        let of_one = streams.entry(gateway.to_owned()).or_default();
        of_one.push_back(end);
        while of_one.len() > STREAMS {
            drop(of_one.pop_front()); // resolves its receiver
        }
        ended
    }
}

/// Follows the state until the gateway hangs up, is replaced, or loses its certificate.
pub(super) async fn follow(
    core: Arc<Core>,
    caller: Caller,
    (member, live): (v1::Member, Option<v1::LiveFrom>),
    out: Sender,
    mut stopped: watch::Receiver<bool>,
    mut evicted: oneshot::Receiver<()>,
) {
    let mut changes = core.node.shared().changes();
    let heartbeat = Duration::from_millis(u64::from(core.config.gateways.heartbeat_ms));
    let mut ticks = tokio::time::interval(if live.is_some() { heartbeat.min(TELL) } else { heartbeat });
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let live = live.map(|from| Cursor::new(from, &core.node.shared().read()));
    let mut said = Said { policy_version: None, kills: BTreeMap::new(), revocation: 0, live };
    loop {
        let tick = tokio::select! {
            _ = ticks.tick() => true,
            changed = changes.changed() => { if changed.is_err() { return } false }
            _ = stopped.wait_for(|stop| *stop) => return,
            () = out.closed() => return,
            _ = &mut evicted => return,
        };
        changes.borrow_and_update();
        if let Err(end) = say(&core, &caller, &member, &mut said, tick, &out).await {
            if let Some(status) = end {
                let _ = out.send(Err(status)).await; // the gateway may have gone
            }
            return;
        }
    }
}

/// Says what is new. The error ends the stream, with a status if the gateway shall know.
async fn say(
    core: &Core,
    caller: &Caller,
    member: &v1::Member,
    said: &mut Said,
    tick: bool,
    out: &Sender,
) -> Result<(), Option<Status>> {
    if *core.node.health().borrow() != Health::Running {
        return Err(Some(Status::unavailable("this controller has stopped; see its log")));
    }
    let now = core.clock.monotonic_ms();
    let (version, commands) = {
        let state = core.node.shared().read();
        caller.still_good(&state, core.now_ms(), v1::CertificateProfile::GatewayLink).map_err(Some)?;
        super::gateway::check_member(&state, caller, Some(*member)).map_err(Some)?;
        (state.policy_version(), commands(&state, member.slot, said, now))
    };
    // A gateway that reads slowly holds nobody's state up, and no more than a part of the set in memory.
    if said.policy_version != Some(version) {
        let policy = policy(core, &caller.name).map_err(|e| Some(e.into()))?;
        said.policy_version = Some(policy.version);
        send(out, Update::Policy(policy)).await?;
    }
    // Changes of the set first: a revocation dooms its sessions, too, and a client that hangs up because of that would not be among what
    // the gateway has ended by the revocation. A whole set is long: nobody's session waits for it.
    let whole = said.live.as_ref().is_some_and(Cursor::is_whole);
    let mut spoke = !whole && say_live(core, said, out).await?;
    for command in commands {
        send(out, command).await?;
    }
    spoke |= whole && say_live(core, said, out).await?;
    if tick && !spoke {
        send(out, Update::KeepAlive(v1::KeepAlive { policy_version: version })).await?;
    }
    Ok(())
}

async fn send(out: &Sender, update: Update) -> Result<(), Option<Status>> {
    let message = v1::WatchPolicyResponse { update: Some(update) };
    out.send(Ok(message)).await.map_err(|_| None)
}

/// Says which certificates are live, part by part. Returns whether anything was said.
async fn say_live(core: &Core, said: &mut Said, out: &Sender) -> Result<bool, Option<Status>> {
    let Some(cursor) = said.live.as_mut() else { return Ok(false) };
    let mut spoke = false;
    loop {
        let update = cursor.next(&core.node.shared().read());
        let Some(update) = update else { return Ok(spoke) };
        send(out, Update::Live(update)).await?;
        spoke = true;
    }
}

fn commands(state: &State, slot: u32, said: &mut Said, now: u64) -> Vec<Update> {
    use v1::command::Action;
    let command = |action| Update::Command(v1::Command { action: Some(action) });
    let mut updates = Vec::new();
    let doomed: BTreeMap<u64, _> = state.doomed(slot).collect();
    said.kills.retain(|id, _| doomed.contains_key(id));
    for (id, doom) in doomed {
        if said.kills.get(&id).is_some_and(|last| now.saturating_sub(*last) < REPEAT_MS) {
            continue;
        }
        said.kills.insert(id, now);
        updates.push(command(Action::KillSession(v1::KillSession {
            session_id: session_text(id),
            reason: doom.reason,
            text: doom.text.clone(),
        })));
    }
    if said.live.is_some() {
        return updates; // the set says it
    }
    // A new stream names every machine certificate that is revoked and would still be valid: the gateway may have missed it.
    let now_ms = state.now_ms();
    let mut drop_machine = |record: &CertificateRow| {
        if record.profile() == v1::CertificateProfile::Machine && record.not_after_ms > now_ms {
            updates.push(command(Action::DropMachine(v1::DropMachine {
                certificate_serial: record.serial.clone(),
                text: record.revocation_reason.clone(),
            })));
        }
    };
    match said.revocation {
        // All that ever were are more than those.
        0 => state.all_revoked(now_ms).for_each(&mut drop_machine),
        known => state.revocations_after(known).for_each(&mut drop_machine),
    }
    said.revocation = said.revocation.max(state.last_revocation());
    updates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_streams_of_a_gateway_stay_and_others_are_not_touched() {
        let streams = Streams::default();
        let mut other = streams.open("gw2");
        let mut held: Vec<_> = (0..STREAMS + 3).map(|_| streams.open("gw1")).collect();
        let open: Vec<bool> =
            held.iter_mut().map(|s| s.try_recv() == Err(oneshot::error::TryRecvError::Empty)).collect();
        assert_eq!(open, [[false; 3].as_slice(), &[true; STREAMS]].concat());
        assert_eq!(other.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        drop((held, other));
        let _last = streams.open("gw3");
        assert_eq!(streams.0.lock().expect("whole").keys().collect::<Vec<_>>(), ["gw3"], "nothing is kept of the rest");
    }
}
