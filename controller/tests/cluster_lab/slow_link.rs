//! A follower behind a slow link: the group stays with a leader, and the follower gets what it lacks, by a snapshot too.

use super::lab::{Lab, slow_set, wait_for};

/// A follower behind a slow link holds up nobody and catches up.
pub(crate) async fn act(lab: &mut Lab) -> String {
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
    let now = lab.leader_without(follower).await;
    assert_eq!(now, leader, "the leader changed because of a follower behind a slow link");
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
    lab.place.fast(follower);
    lab.fault("all links are fast");
    lab.whole(3).await;
    format!("a follower behind {how}, brought up by {by}")
}
