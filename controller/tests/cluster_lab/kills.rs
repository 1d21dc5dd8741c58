//! `kill -9` of the leader and of followers, again and again.

use std::time::Duration;

use super::lab::{Lab, run, say, slow_set};
use super::workload::random;

/// How often to kill; another number by hand: `SALLYPORT_KILLS`.
const KILLS: &str = "SALLYPORT_KILLS";

#[test]
fn nothing_acknowledged_is_lost_while_controllers_are_killed() {
    run(module_path!(), "nothing_acknowledged_is_lost_while_controllers_are_killed", scenario);
}

async fn scenario(lab: &mut Lab) {
    let usual = if slow_set() { 200 } else { 30 };
    let kills: u32 = std::env::var(KILLS).ok().and_then(|k| k.parse().ok()).unwrap_or(usual);
    lab.renew("group");
    lab.form().await;
    let mut seed = 0xdead_u64;
    let mut leaderless = Vec::new();
    let mut followers = Vec::new();
    let mut leader = 0;
    for round in 0..kills {
        // One of the others, or the leader: in the quick set while the one before is on its way back.
        let follower = round % 2 == 0;
        if follower || slow_set() {
            leader = lab.whole(3).await;
        }
        let other = u32::try_from(random(&mut seed) % 2).expect("small");
        let victim = if follower { (leader - 1 + 1 + other) % 3 + 1 } else { leader };
        lab.fault(format!("member {victim} is killed, {leader} leads"));
        lab.member(victim).kill();
        // The others go on without it, before it comes back.
        let first = lab.goes_on("a session after the kill").await;
        if follower { &mut followers } else { &mut leaderless }.push(first);
        lab.restart(victim);
        if !follower || slow_set() {
            lab.member(victim).ready().await;
        }
    }
    lab.whole(3).await;
    let stall = lab.world().longest_stall().as_millis();
    say(&format!(
        "{kills} kills, {} of them of the leader; a client that came when a leader was killed waited {}, when a follower was, {}; \
         longest stall {stall} ms",
        leaderless.len(),
        figures(leaderless),
        figures(followers)
    ));
    lab.conclude().await;
}

/// Median, 99th percentile and maximum.
fn figures(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |permille: usize| times.get((times.len() * permille).div_ceil(1_000).saturating_sub(1));
    let ms = |permille| at(permille).map_or(0, Duration::as_millis);
    format!("{} ms (p50), {} ms (p99), {} ms (most)", ms(500), ms(990), ms(1_000))
}
