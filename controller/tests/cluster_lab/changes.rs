//! Members that join and leave under load, the leader too.

use sallyport_proto::v1;

use super::lab::{Lab, slow_set, wait_for};

impl Lab {
    /// Removes a member for good; it ends by itself.
    async fn remove(&mut self, victim: u32, via: u32) {
        self.fault(format!("member {victim} is removed"));
        self.world().remove_reader(victim);
        let world = self.world().clone();
        wait_for("the removal", || async {
            let request = v1::RemoveMemberRequest { id: u64::from(victim) };
            let removed = world.reader(via).remove_member(request).await;
            // Asked again after a lost answer, it is not there any more.
            removed.map_or_else(|e| (e.code() == tonic::Code::NotFound).then_some(()), |_| Some(()))
        })
        .await;
        self.member(victim).ended().await;
        let log = self.member(victim).log();
        assert!(log.contains("removed"), "it says why it has ended:\n{}", self.member(victim).tail());
        self.fault(format!("member {victim} has ended"));
    }
}

/// Three members join and leave until two are left; in the slow set another one joins those.
pub(crate) async fn act(lab: &mut Lab) -> String {
    let leader = lab.whole(3).await;
    lab.fault("member 4 joins");
    lab.join(4, leader).await;
    lab.ask_too(4);
    let leader = lab.whole(4).await;
    lab.goes_on("sessions with four").await;
    // A follower leaves, and then the leader.
    let follower = leader % 4 + 1;
    lab.remove(follower, leader).await;
    let leader = lab.whole(3).await;
    lab.goes_on("sessions with three").await;
    let via = lab.world().readers().into_iter().map(|(n, _)| n).find(|n| *n != leader).expect("another");
    lab.remove(leader, via).await;
    lab.whole(2).await;
    lab.goes_on("sessions with two").await;
    let mut joined = 1;
    if slow_set() {
        lab.fault("member 5 joins");
        lab.join(5, via).await;
        lab.ask_too(5);
        lab.whole(3).await;
        lab.goes_on("sessions with three again").await;
        joined += 1;
    }
    format!("{joined} joined, 2 removed, one of them the leader")
}
