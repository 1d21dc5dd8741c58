//! A follower behind a slow link: it deposes nobody, and the follower gets what it lacks, by a snapshot too.

use super::lab::{Lab, slow_set, wait_for};

/// On a machine that does much else a leader may in truth be silent for longer than its lease; then whoever stands does so by right.
const TRIES: u32 = 3;

/// A follower behind a slow link holds up nobody, stands for nothing and catches up.
pub(crate) async fn act(lab: &mut Lab) -> String {
    for _ in 0..TRIES {
        if let Some(what) = catches_up(lab).await {
            return what;
        }
    }
    panic!("a follower behind a slow link stood for election, {TRIES} times of {TRIES}");
}

/// `None` if the follower has stood for election.
async fn catches_up(lab: &mut Lab) -> Option<String> {
    let leader = lab.whole(3).await;
    let follower = leader % 3 + 1;
    // In the slow set so much is written and purged while it is away that only a snapshot can bring it up again.
    lab.fault(format!("member {follower} is killed"));
    lab.member(follower).kill();
    let how = lab.place.slow(follower, "256kbit", "100ms");
    let missed = if slow_set() { 1_500 } else { 30 };
    let before = lab.world().acknowledged();
    wait_for("much to be written", || async { (lab.world().acknowledged() > before + missed).then_some(()) }).await;
    lab.fault(format!("member {follower} comes back behind a slow link: {how}"));
    lab.restart(follower);
    lab.goes_on("sessions while it catches up").await;
    // It answers, over the slow link, and is not behind.
    wait_for("the follower to catch up over the slow link", || async {
        let reader = lab.world().reader(follower);
        let read = tokio::time::timeout(std::time::Duration::from_secs(5), lab.world().read(follower, reader)).await;
        matches!(read, Ok(Ok(_))).then_some(())
    })
    .await;
    lab.goes_on("sessions when it has caught up").await;
    let by = if lab.member(follower).log().contains("install_full_snapshot") { "a snapshot" } else { "the log" };
    assert!(!slow_set() || by == "a snapshot", "the follower was brought up by {by}");
    let stood = lab.member(follower).has_stood();
    lab.place.fast(follower);
    lab.fault(format!(
        "all links are fast; member {follower} has {}stood for election",
        if stood { "" } else { "not " }
    ));
    lab.whole(3).await;
    (!stood).then(|| format!("a follower behind {how}, brought up by {by}"))
}
