//! What befalls the group.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::executor::{self, OUTSIDE};
use super::network::Weather;
use super::world::{World, address};
use crate::raft::membership::Change;

/// How long it lasts, virtual milliseconds.
const LASTS: u64 = 12_000;

#[derive(Clone, Copy, Debug)]
enum Blow {
    /// One node is cut off, the leader if possible.
    Isolate,
    /// Two halves.
    Split,
    /// One way, in one direction.
    OneWay,
    /// One machine loses power, at once or at a call to its disk that comes.
    Crash,
    /// All of them.
    CrashAll,
    SlowDisk,
    Weather,
    /// One machine has a slow line.
    SlowLine,
    /// A process stands still and wakes up.
    Pause,
    Transfer,
    Members,
    Snapshot,
}

const BLOWS: [(Blow, u64); 12] = [
    (Blow::Isolate, 10),
    (Blow::Split, 5),
    (Blow::OneWay, 6),
    (Blow::Crash, 18),
    (Blow::CrashAll, 3),
    (Blow::SlowDisk, 6),
    (Blow::Weather, 6),
    (Blow::SlowLine, 5),
    (Blow::Pause, 6),
    (Blow::Transfer, 6),
    (Blow::Members, 12),
    (Blow::Snapshot, 3),
];

/// All that befalls it, and then the end of all of it.
pub(super) async fn run(world: &Arc<World>) {
    // Not each kind in each run: some things happen only where others leave time.
    let blows: Vec<Blow> = {
        let mut random = world.random();
        let kinds: Vec<_> = BLOWS.into_iter().filter(|_| random.permille(650)).collect();
        kinds.into_iter().flat_map(|(blow, weight)| std::iter::repeat_n(blow, weight as usize)).collect()
    };
    let longest = world.random().between(100, 900);
    let until = executor::now() + Duration::from_millis(LASTS);
    let mut next_id = world.ids().len() as u64 + 1;
    while executor::now() < until && !world.is_over() {
        let (pause, blow) = {
            let mut random = world.random();
            (random.millis(5, longest), random.one_of(&blows))
        };
        executor::sleep(pause).await;
        if let Some(blow) = blow {
            strike(world, blow, &mut next_id).await;
        }
    }
    heal(world).await;
}

/// Bytes in a second of a line of 256 kbit/s.
const SLOW: u64 = 32_000;

/// One follower has a slow line from now on. Returns the term in which it begins.
pub(super) async fn slow_line(world: &Arc<World>) -> Option<u64> {
    let (leader, _, node) = world.leader()?;
    let ids = world.ids();
    let others: Vec<u64> = ids.iter().copied().filter(|id| *id != leader).collect();
    let slow = world.random().one_of(&others)?;
    world.trace(|| format!("{slow} has a slow line"));
    let term = node.figures().term;
    world.net().line(slow, &ids, Some(SLOW));
    let until = executor::now() + Duration::from_millis(LASTS);
    while executor::now() < until && !world.is_over() {
        executor::sleep(Duration::from_millis(100)).await;
        world.keeps(Some(term));
    }
    Some(term)
}

async fn heal(world: &Arc<World>) {
    world.trace(|| "all is mended".into());
    {
        let mut net = world.net();
        net.cut.clear();
        net.weather = Weather::FINE;
        net.mend_lines();
    }
    for id in world.ids() {
        if let Some(disk) = world.disk(id) {
            disk.keep_power();
            disk.slow_until(Duration::ZERO);
        }
        executor::resume(world.process(id));
        world.power_on(id, false);
    }
}

/// Someone, half the time whoever leads.
fn victim(world: &Arc<World>) -> Option<u64> {
    let leader = world.leader().map(|(id, ..)| id);
    let ids = world.ids();
    let mut random = world.random();
    leader.filter(|_| random.permille(500)).or_else(|| random.one_of(&ids))
}

async fn strike(world: &Arc<World>, blow: Blow, next_id: &mut u64) {
    let Some(id) = victim(world) else { return };
    let (ids, now) = (world.ids(), executor::now());
    let length = world.random().millis(100, 3_000);
    world.trace(|| format!("{blow:?} ({id}, {} ms)", length.as_millis()));
    match blow {
        Blow::Isolate => {
            let mut net = world.net();
            for other in ids {
                net.cut(id, other, now + length);
                net.cut(other, id, now + length);
            }
        }
        Blow::Split => {
            let mut net = world.net();
            let side: Vec<bool> = ids.iter().map(|_| net.random.permille(500)).collect();
            for (a, at) in ids.iter().zip(&side) {
                for (b, bt) in ids.iter().zip(&side) {
                    if at != bt {
                        net.cut(*a, *b, now + length);
                    }
                }
            }
        }
        Blow::OneWay => {
            let mut net = world.net();
            let (out, all) = (net.random.permille(500), net.random.permille(400));
            for other in ids.into_iter().filter(|other| *other != id) {
                let (from, to) = if out { (id, other) } else { (other, id) };
                net.cut(from, to, now + length);
                if !all {
                    break;
                }
            }
        }
        Blow::Crash => {
            if world.random().permille(500) {
                let calls = world.random().below(12);
                if let Some(disk) = world.disk(id) {
                    disk.fail_in(calls);
                }
            } else {
                world.power_off(id);
                world.power_on_later(id);
            }
        }
        Blow::CrashAll => {
            for id in ids {
                world.power_off(id);
                world.power_on_later(id);
            }
        }
        Blow::SlowDisk => {
            if let Some(disk) = world.disk(id) {
                disk.slow_until(now + length);
            }
        }
        Blow::Weather => {
            let mut net = world.net();
            let bad = net.random.permille(700);
            net.weather = Weather::FINE;
            if bad {
                let random = &mut net.random;
                let weather = Weather {
                    lost: random.below(150),
                    repeated: random.below(200),
                    late: random.below(100),
                    delay: (100, random.between(1_000, 60_000)),
                };
                net.weather = weather;
            }
        }
        Blow::SlowLine => {
            let bytes_per_s = world.random().between(4_000, 64_000);
            world.net().line(id, &ids, Some(bytes_per_s));
            let world = world.clone();
            executor::spawn_in(OUTSIDE, async move {
                executor::sleep(length).await;
                world.net().line(id, &ids, None);
            });
        }
        Blow::Pause => {
            let process = world.process(id);
            if process != 0 {
                executor::pause(process);
                executor::spawn_in(OUTSIDE, async move {
                    executor::sleep(length).await;
                    executor::resume(process);
                });
            }
        }
        Blow::Transfer => transfer(world).await,
        Blow::Members => members(world, next_id).await,
        Blow::Snapshot => {
            if let Some((process, node)) = world.node(id) {
                executor::spawn_in(process, async move { node.trigger_snapshot().await });
            }
        }
    }
}

/// As `cluster::lead` does it.
async fn transfer(world: &Arc<World>) {
    let Some((leader, _, node)) = world.leader() else { return };
    let others: Vec<u64> = node.membership().voters.into_iter().filter(|id| *id != leader).collect();
    let Some(chosen) = world.random().one_of(&others) else { return };
    node.keep_silent(true);
    for wait in [node.lease() + Duration::from_millis(100), Duration::from_secs(1)] {
        if let Some((process, chosen)) = world.node(chosen) {
            executor::spawn_in(process, async move { chosen.stand().await });
        }
        executor::sleep(wait).await;
    }
    node.keep_silent(false);
}

/// One step of a change of the members.
async fn members(world: &Arc<World>, next_id: &mut u64) {
    let members = world.members();
    let learners: Vec<u64> = members.addresses.keys().copied().filter(|id| members.is_learner(*id)).collect();
    let voters: Vec<u64> = members.voters.iter().copied().collect();
    let (kind, learner, voter) = {
        let mut random = world.random();
        (random.below(10), random.one_of(&learners), random.one_of(&voters))
    };
    match (kind, learner, voter) {
        _ if members.changing => {
            world.change(Change::Finish).await;
        }
        (0..4, Some(id), _) => {
            world.change(Change::Promote(BTreeSet::from([id]))).await;
        }
        (4, Some(id), _) => {
            world.change(Change::RemoveLearners(BTreeSet::from([id]))).await;
            scrap_if_out(world, id);
        }
        (5..8, _, Some(id)) if voters.len() > 2 => {
            world.change(Change::RemoveVoters(BTreeSet::from([id]))).await;
            scrap_if_out(world, id);
        }
        _ if members.addresses.len() < 6 && !members.addresses.is_empty() => {
            let id = *next_id;
            *next_id += 1;
            world.add_machine(id);
            world.power_on(id, false);
            world.change(Change::AddLearner { id, address: address(id) }).await;
        }
        _ => {}
    }
}

/// Switches off a machine that is out of the group, some time later.
fn scrap_if_out(world: &Arc<World>, id: u64) {
    let world = world.clone();
    executor::spawn_in(OUTSIDE, async move {
        let wait = world.random().millis(0, 2_000);
        executor::sleep(wait).await;
        let out = world.ledger().is_out(id);
        if out {
            world.scrap(id);
        }
    });
}
