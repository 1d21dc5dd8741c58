//! Clocks that are set an hour forward and an hour back, on the leader and on a follower, while they run.

use sallyport_proto::v1;

use super::lab::{Lab, slow_set, wait_for};
use super::member::faketime;

/// An hour, seconds.
const STEP: i64 = 3_600;

pub(crate) fn possible(_: &Lab) -> Result<(), String> {
    faketime().map_or(Err("no libfaketime (apt-get install faketime)".into()), |_| Ok(()))
}

pub(crate) fn prepare(lab: &mut Lab) {
    lab.members.iter_mut().for_each(|member| member.with_clock());
}

impl Lab {
    /// Sets the clock of a member and waits until it shows that.
    async fn set_clock(&mut self, number: u32, offset_s: i64) {
        self.member(number).set_clock(offset_s);
        let now = i64::try_from(sallyport_controller::Clock::system().unix_ms()).expect("fits");
        let shows = |cluster: v1::GetClusterResponse| {
            let member = cluster.members.into_iter().find(|m| m.id == u64::from(number))?;
            let wall = i64::try_from(member.vitals?.wall_unix_ms).ok()?;
            // Whole hours apart, and a test takes minutes.
            ((wall - now - offset_s * 1_000).abs() < STEP * 500).then_some(())
        };
        wait_for("the clock to be another", || async { self.cluster(number).await.and_then(shows) }).await;
    }
}

/// Sets clocks, and leaves them right.
pub(crate) async fn act(lab: &mut Lab) -> String {
    // Sessions that are open are ended by half an hour without a sign of life, which is not over: whoever believes that it is
    // ends them, and the history has lost them. Certificates say when they were made: the clients compare (see `workload`).
    let steps = if slow_set() { [STEP, -STEP, 0].repeat(4) } else { vec![STEP] };
    for offset in &steps {
        let leader = lab.whole(3).await;
        lab.fault(format!("the clock of member {leader}, which leads, is set to {offset:+} s"));
        lab.set_clock(leader, *offset).await;
        lab.goes_on("sessions after the leader's clock was set").await;
        let follower = leader % 3 + 1;
        lab.fault(format!("the clock of member {follower} is set to {:+} s", -offset));
        lab.set_clock(follower, -offset).await;
        lab.goes_on("sessions after a follower's clock was set").await;
    }
    // Another leader, whose clock is another.
    let leader = lab.whole(3).await;
    lab.fault(format!("the clock of member {leader} is set, and it is killed"));
    lab.member(leader).set_clock(STEP);
    lab.member(leader).kill();
    lab.leader_without(leader).await;
    lab.start_again(leader).await;
    lab.whole(3).await;
    lab.goes_on("sessions with the other leader").await;
    lab.members.iter().for_each(|member| member.set_clock(0));
    format!("{} steps of the leader's clock", steps.len())
}
