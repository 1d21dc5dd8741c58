//! A leader that is paused (SIGSTOP) for longer than an election takes, and wakes up in the belief that it leads.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::task::JoinSet;

use super::lab::{Lab, slow_set};

/// A leader that slept through an election is not believed.
pub(crate) async fn act(lab: &mut Lab) -> String {
    let rounds = if slow_set() { 15 } else { 1 };
    for _ in 0..rounds {
        let leader = lab.whole(3).await;
        lab.fault(format!("member {leader} sleeps, it leads"));
        lab.member(leader).signal(Signal::SIGSTOP);
        let next = lab.leader_without(leader).await;
        lab.goes_on("sessions with the new leader").await;
        let newcomer = lab.newcomer(next, leader).await;
        // Questions that wait in its sockets are the first thing it sees.
        let mut questions = JoinSet::new();
        for _ in 0..8 {
            let (world, reader) = (lab.world().clone(), lab.world().reader(leader));
            questions.spawn(async move { world.read(leader, reader).await.is_ok() });
            let (world, reader) = (lab.world().clone(), lab.world().reader(leader));
            questions.spawn(async move { world.list_at(leader, reader).await.is_ok() });
        }
        let mut first = newcomer.clone();
        questions.spawn(async move { first.is_answered().await });
        tokio::time::sleep(Duration::from_millis(200)).await;
        lab.fault(format!("member {leader} wakes up, {next} leads"));
        lab.member(leader).signal(Signal::SIGCONT);
        // Whatever it answers is in the history, which knows what was acknowledged before.
        while let Some(asked) = questions.join_next().await {
            asked.expect("no client panicked");
        }
        newcomer.gets_in().await;
        lab.goes_on("sessions after it woke up").await;
    }
    lab.whole(3).await;
    format!("{rounds} leaders that slept")
}
