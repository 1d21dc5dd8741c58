//! `kill -9` of the leader: how long nothing is acknowledged, and how long somebody who connects meanwhile waits.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::Settings;
use crate::controllers::Group;
use crate::load::Latencies;

/// Clients that connect all the time.
pub(crate) const CLIENTS: usize = 12;

pub(crate) fn measure(runtime: &Runtime, settings: &Settings, group: &mut Group) {
    let start = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    // When the leader was killed, and when the first session was acknowledged that was asked for after it: microseconds.
    let killed = Arc::new(AtomicU64::new(u64::MAX));
    let first = Arc::new(AtomicU64::new(u64::MAX));
    let worst = Arc::new(Mutex::new(Duration::ZERO));
    let micros = move |at: Instant| u64::try_from((at - start).as_micros()).unwrap();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (stop, killed, first, worst) = (stop.clone(), killed.clone(), first.clone(), worst.clone());
            let mut client = group.client(number);
            runtime.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let waited = client.connect().await;
                    let now = micros(Instant::now());
                    if now.saturating_sub(u64::try_from(waited.as_micros()).unwrap()) > killed.load(Ordering::Relaxed) {
                        first.fetch_min(now, Ordering::Relaxed);
                    }
                    let mut worst = worst.lock().unwrap();
                    *worst = worst.max(waited);
                }
            })
        })
        .collect();
    let (mut leaderless, mut stalls) = (Latencies::default(), Latencies::default());
    for _ in 0..settings.kills {
        let leader = runtime.block_on(group.whole());
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(300)).await });
        *worst.lock().unwrap() = Duration::ZERO;
        first.store(u64::MAX, Ordering::Relaxed);
        let at = micros(Instant::now());
        group.nodes[leader].kill();
        killed.store(at, Ordering::Relaxed);
        let acknowledged = runtime.block_on(async {
            loop {
                tokio::time::sleep(Duration::from_millis(5)).await;
                let seen = first.load(Ordering::Relaxed);
                if seen != u64::MAX {
                    break seen;
                }
            }
        });
        leaderless.note(Duration::from_micros(acknowledged.saturating_sub(at)));
        // Those who asked before have had an answer, too, as far as it took no longer than that.
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(500)).await });
        killed.store(u64::MAX, Ordering::Relaxed);
        group.nodes[leader].start();
        runtime.block_on(group.whole());
        stalls.note(*worst.lock().unwrap());
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        runtime.block_on(client).unwrap();
    }
    println!("\n## kill -9 of the leader, {} times, {CLIENTS} clients that connect all the time\n", settings.kills);
    println!("| | p50 ms | p99 ms | max ms |\n|---|---|---|---|");
    for (name, seen) in [
        ("from the kill to the next session that was asked for and acknowledged", &mut leaderless),
        ("longest wait of a client, fail-over included", &mut stalls),
    ] {
        println!("| {name} | {:.0} | {:.0} | {:.0} |", seen.ms(0.5), seen.ms(0.99), seen.ms(1.0));
    }
}
