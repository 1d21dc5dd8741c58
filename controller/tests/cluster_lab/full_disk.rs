//! A disk that is full: a small one of its own for each member.

use std::fs::{File, remove_file};
use std::io::Write;
use std::path::PathBuf;

use super::lab::{Lab, wait_for};

/// Of each member's disk.
const SIZE: &str = "48m";

pub(crate) fn prepare(lab: &mut Lab) {
    for member in &lab.members {
        std::fs::create_dir(&member.state).expect("a folder");
        lab.place.small_disk(&member.state, SIZE);
    }
}

impl Lab {
    /// Fills the disk of a member until that has ended: compaction may make room. Returns what takes the room.
    async fn fill(&mut self, victim: u32) -> PathBuf {
        let ballast = self.member(victim).state.join("ballast");
        self.fault(format!("the disk of member {victim} is full"));
        let mut file = File::create(&ballast).expect("a file");
        let block = vec![0_u8; 64 * 1024];
        let world = self.world().clone();
        let member = self.member(victim);
        let ended = wait_for("the end of a controller whose disk is full", || {
            while file.write(&block[..]).is_ok() {}
            while file.write(&block[..512]).is_ok() {}
            let ended = member.has_ended().map(drop);
            async move { ended }
        });
        // It notices when it needs more of the disk: the more is written, the sooner.
        let writes = |mut seed: u64| {
            let world = &world;
            async move {
                loop {
                    world.change(&mut seed).await;
                }
            }
        };
        tokio::select! {
            () = ended => {}
            () = writes(1) => {}
            () = writes(2) => {}
            () = writes(3) => {}
        }
        ballast
    }
}

/// Fills the disk of a follower and of the leader; each comes back when there is room.
pub(crate) async fn act(lab: &mut Lab) -> String {
    for leads in [false, true] {
        let leader = lab.whole(3).await;
        let victim = if leads { leader } else { leader % 3 + 1 };
        let ballast = lab.fill(victim).await;
        lab.member(victim).ended().await;
        let log = lab.member(victim).log();
        let message = log.lines().find(|l| l.starts_with("ENDED")).map(str::to_owned).unwrap_or_default();
        let folder = lab.member(victim).state.display().to_string();
        assert!(message.contains(&folder), "the message names the place: {message:?}\n{}", lab.member(victim).tail());
        let says = message.to_lowercase();
        assert!(says.contains("full") || says.contains("space"), "the message names the cause: {message:?}");
        lab.goes_on("sessions without it").await;
        // It comes back when there is room, with everything.
        remove_file(ballast).expect("there");
        lab.fault(format!("the disk of member {victim} has room"));
        lab.start_again(victim).await;
        lab.whole(3).await;
    }
    "a follower's and a leader's disk full".into()
}
