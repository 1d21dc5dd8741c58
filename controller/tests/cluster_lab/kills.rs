//! `kill -9` of the leader and of followers, again and again.

use std::time::Duration;

use super::lab::{Lab, run, say, slow_set};
use super::workload::random;

/// How often to kill; another number by hand: `SALLYPORT_KILLS`.
const KILLS: &str = "SALLYPORT_KILLS";

/// What was killed. With a member away the other two are all there is: nobody gets on before one has come back.
const NAMES: [&str; 3] = ["a follower", "the leader", "the leader while another member was away"];
const FOLLOWER: usize = 0;
const LEADER: usize = 1;

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
    let mut waited = [const { Vec::new() }; 3];
    for round in 0..kills {
        // One of the others, or the leader: in the quick set while the one before is on its way back.
        let follower = round % 2 == 0;
        let (leader, following) = match follower || slow_set() {
            true => (lab.whole(3).await, 3),
            false => lab.led_by().await,
        };
        let other = u32::try_from(random(&mut seed) % 2).expect("small");
        let victim = if follower { (leader - 1 + 1 + other) % 3 + 1 } else { leader };
        lab.fault(format!("member {victim} is killed, {leader} leads and {following} follow"));
        lab.member(victim).kill();
        // The others go on without it, before it comes back.
        let first = lab.goes_on("a session after the kill").await;
        let what = if follower { FOLLOWER } else { LEADER + usize::from(following < 3) };
        waited[what].push(first);
        lab.restart(victim);
        if !follower || slow_set() {
            lab.member(victim).ready().await;
        }
    }
    lab.whole(3).await;
    let stall = lab.world().longest_stall().as_millis();
    let figures: Vec<String> = NAMES.iter().zip(waited).filter_map(|(name, times)| figures(name, times)).collect();
    say(&format!("{kills} kills: a client that came then waited, {}; longest stall {stall} ms", figures.join("; ")));
    lab.conclude().await;
}

/// Count, median, 99th percentile and maximum; `None` of nothing.
fn figures(name: &str, mut times: Vec<Duration>) -> Option<String> {
    times.sort_unstable();
    let at = |permille: usize| times.get((times.len() * permille).div_ceil(1_000).saturating_sub(1));
    let ms = |permille| at(permille).map(Duration::as_millis);
    let (median, p99, most) = (ms(500)?, ms(990)?, ms(1_000)?);
    Some(format!("{} times {name}, {median} ms (p50), {p99} ms (p99), {most} ms (most)", times.len()))
}
