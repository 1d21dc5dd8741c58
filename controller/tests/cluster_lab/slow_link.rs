//! A follower behind a slow link: it deposes nobody, and the follower gets what it lacks, by a snapshot too.

use std::time::Duration;

use super::lab::{Lab, slow_set, wait_for};

/// On a machine that does much else a leader may in truth be silent for longer than its lease; then whoever stands does so by right.
const TRIES: u32 = 3;
/// So many entries a member keeps for those that lag behind, and at most a snapshot's worth of them more.
const KEPT: u64 = 1_000;
/// How often to look at the log.
const LOOK: Duration = Duration::from_millis(250);

impl Lab {
    /// What a member has applied, as another sees it.
    async fn applied(&self, at: u32, number: u32) -> u64 {
        wait_for("what a member has applied", || async {
            let cluster = self.cluster(at).await?;
            let member = cluster.members.into_iter().find(|m| m.id == u64::from(number))?;
            member.vitals.map(|vitals| vitals.applied_index)
        })
        .await
    }
}

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
    // Entries count for that, and several sessions may share one.
    let missed = if slow_set() { KEPT + 300 } else { 15 };
    let before = lab.applied(leader, leader).await;
    wait_for("much to be written", || async {
        tokio::time::sleep(LOOK).await;
        (lab.applied(leader, leader).await > before + missed).then_some(())
    })
    .await;
    let written = lab.applied(leader, leader).await;
    lab.fault(format!("member {follower} comes back behind a slow link: {how}"));
    lab.restart(follower);
    lab.goes_on("sessions while it catches up").await;
    // It answers, over the slow link, and is not behind: an answer alone may be the leader's, passed on.
    wait_for("the follower to catch up over the slow link", || async {
        tokio::time::sleep(LOOK).await;
        (lab.applied(leader, follower).await >= written).then_some(())
    })
    .await;
    wait_for("the follower to answer over the slow link", || async {
        let reader = lab.world().reader(follower);
        let read = tokio::time::timeout(Duration::from_secs(5), lab.world().read(follower, reader)).await;
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
